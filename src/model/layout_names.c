/* Names of tensors in files: patterns with numbers, prefixes that tell the component, things that are known and not needed,
 * and things that go on top of a model. */
#include "model/layout_impl.h"

#include <stdio.h>
#include <string.h>

const char *const sm_component_names[SM_COMPONENTS] = {"unet", "transformer", "vae", "text_encoder", "text_encoder_2"};

/* ---- patterns ---------------------------------------------------------------------------------------------------- */

/* A number of one to four digits as programs write them, without zeros in front; the end of it, or NULL. */
static const char *number(const char *s, int *n)
{
    int v = 0, digits = 0;
    for (; s[digits] >= '0' && s[digits] <= '9'; digits++) {
        if (digits == 4)
            return NULL;
        v = v * 10 + (s[digits] - '0');
    }
    if (!digits || (digits > 1 && s[0] == '0'))
        return NULL;
    *n = v;
    return s + digits;
}

bool sm_pattern_match(const char *p, const char *s, sm_match *m)
{
    m->n = 0;
    m->rest = "";
    for (; *p; p++) {
        if (*p == '*') {
            m->rest = s;
            return *s != 0;
        }
        if (*p == '#') {
            if (m->n == SM_LAYOUT_NUMBERS || !(s = number(s, &m->num[m->n])))
                return false;
            m->n++;
        } else if (*p != *s++) {
            return false;
        }
    }
    return !*s;
}

/* False when it does not fit into size bytes. */
static bool make(const char *p, const sm_match *m, char *out, size_t size)
{
    size_t n = 0;
    int k = 0;
    for (; *p && n + 1 < size; p++) {
        if (*p == '#')
            n += (size_t)snprintf(out + n, size - n, "%d", k < m->n ? m->num[k++] : 0);
        else if (*p == '*')
            n += (size_t)snprintf(out + n, size - n, "%s", m->rest);
        else
            out[n++] = *p;
    }
    if (*p || n >= size)
        return false;
    out[n] = 0;
    return true;
}

/* The numbers of the other side. */
static bool renumber(const sm_relation *r, bool to_stored, sm_match *m)
{
    int from = to_stored ? r->nc : r->ns, to = to_stored ? r->ns : r->nc;
    for (int i = 0; i < r->count; i++) {
        const int *c = r->pair[i].c, *s = &r->pair[i].s, *a = to_stored ? c : s, *b = to_stored ? s : c;
        if (m->n < from || memcmp(m->num, a, (size_t)from * sizeof *a) || m->n - from + to > SM_LAYOUT_NUMBERS)
            continue;
        memmove(m->num + to, m->num + from, (size_t)(m->n - from) * sizeof *a);
        memcpy(m->num, b, (size_t)to * sizeof *b);
        m->n += to - from;
        return true;
    }
    return false;
}

static bool through(const sm_alias *a, const sm_shape *s, bool to_stored, const char *name, char *out, size_t size)
{
    sm_match m;
    return sm_pattern_match(to_stored ? a->canonical : a->stored, name, &m) &&
           (a->numbering == SM_NUM_SAME || renumber(&s->relation[a->numbering], to_stored, &m)) &&
           make(to_stored ? a->stored : a->canonical, &m, out, size);
}

bool sm_alias_read(const sm_alias *a, const sm_shape *s, const char *stored, char *canonical, size_t size)
{
    return through(a, s, false, stored, canonical, size);
}

bool sm_alias_export(const sm_alias *a, const sm_shape *s, const char *canonical, char *stored, size_t size)
{
    return through(a, s, true, canonical, stored, size);
}

/* Whether name is one of the table's canonical names, whatever its numbers; the row, or NULL. */
static const sm_alias *canonical_row(const sm_alias_table *t, const char *name)
{
    sm_match m;
    for (size_t i = 0; i < t->count; i++)
        if (sm_pattern_match(t->rows[i].canonical, name, &m))
            return &t->rows[i];
    return NULL;
}

/* ---- not of the model -------------------------------------------------------------------------------------------- */

static bool any(const char *name, const char *const *list, bool (*is)(const char *, const char *))
{
    while (*list && !is(name, *list))
        list++;
    return *list != NULL;
}

static bool begins(const char *s, const char *with) { return !strncmp(s, with, strlen(with)); }
static bool is(const char *s, const char *what) { return !strcmp(s, what); }
static bool contains(const char *s, const char *what) { return strstr(s, what) != NULL; }
static bool ends(const char *s, const char *with)
{
    size_t n = strlen(s), k = strlen(with);
    return n >= k && !strcmp(s + n - k, with);
}

static bool ignored(const char *name)
{
    /* EMA copies; constants of the noise schedule and of the loss; nets of the autoencoder's training; picture towers. */
    static const char *const heads[] = {
        "model_ema.", "alphas_cumprod", "betas", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_", "lvlb_weights",
        "denoiser.", "loss_fn.", "loss.", "first_stage_model.loss.", "first_stage_model.model_ema.", "discriminator.", "logvar",
        "scale_factor", "global_step", "iteration", "visual.", "cond_stage_model.model.visual.",
        "conditioner.embedders.0.model.visual.", "conditioner.embedders.1.model.visual.", "vision_model.", "visual_projection.",
        "noise_augmentor.", "embedder.", "safety_checker.", "scaled_fp8", NULL};
    static const char *const tails[] = {".position_ids", "logit_scale", ".attn_mask", "scale_weight", "weight_scale",
                                        "scale_input", "input_scale", ".scaled_fp8", NULL};
    return any(name, heads, begins) || any(name, tails, ends) || !strcmp(name, "position_ids") || !strcmp(name, "attn_mask");
}

bool sm_layout_mark(const char *name)
{
    static const char *const marks[] = {"v_pred", "ztsnr", "edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min",
                                        NULL};
    return any(name, marks, is);
}

bool sm_layout_addon(const char *name, sm_layout_report *r)
{
    static const char *const lora[] = {"lora_", ".lora.", ".lora_", "_lora.", "hada_w1", "hada_w2", "lokr_w1", "lokr_w2",
                                       "oft_blocks", "oft_diag", ".dora_scale", NULL};
    static const char *const first_lora[] = {"unet:", "text_encoder:", NULL}; /* cloneofsimo/lora */
    static const char *const control[] = {
        "control_model.", "controlnet_cond_embedding.", "controlnet_down_blocks.", "controlnet_mid_block.", "input_hint_block.",
        "zero_convs.", "middle_block_out.", "lllite_", NULL};
    static const char *const embedding[] = {"string_to_param", "string_to_token", "emb_params", NULL};
    if (any(name, lora, contains) || any(name, first_lora, begins))
        return r->lora = true;
    if (any(name, control, begins))
        return r->controlnet = true;
    if (any(name, embedding, begins) || !strcmp(name, "clip_l") || !strcmp(name, "clip_g") || (name[0] == '<' && ends(name, ">")))
        return r->embedding = true;
    return false;
}

/* ---- which component --------------------------------------------------------------------------------------------- */

/* Canonical only: the layouts of other programs for this family are not among the tables. */
#define SELF(C) {C, C, SM_NUM_SAME, SM_AS_IS, 0}
static const sm_alias mmdit[] = {SELF("transformer_blocks.#.*"), SELF("pos_embed.*"), SELF("context_embedder.*"),
                                 SELF("time_text_embed.*"), SELF("norm_out.*"), SELF("proj_out.*")};
static const sm_alias_table aliases_mmdit = {mmdit, SM_COUNT(mmdit)};

/* The tables of a component. The first is the one whose canonical names recognise a file that holds it alone. */
enum { TABLES = 3 };
static const sm_alias_table *const tables[SM_COMPONENTS][TABLES] = {
    [SM_COMPONENT_UNET] = {&sm_aliases_unet},
    [SM_COMPONENT_TRANSFORMER] = {&aliases_mmdit},
    [SM_COMPONENT_VAE] = {&sm_aliases_vae, &sm_aliases_vae_old},
    [SM_COMPONENT_TEXT] = {&sm_aliases_clip, &sm_aliases_clip_flat, &sm_aliases_openclip},
    [SM_COMPONENT_TEXT_2] = {&sm_aliases_clip, &sm_aliases_clip_flat, &sm_aliases_openclip},
};

/* Prefixes. Names under diffusers' own prefixes are canonical where no row says otherwise. */
static const struct source {
    const char *prefix;
    sm_component component;
    bool diffusers;
} sources[] = {
    {"model.diffusion_model.", SM_COMPONENT_UNET, false},
    {"diffusion_model.", SM_COMPONENT_UNET, false},
    {"first_stage_model.", SM_COMPONENT_VAE, false},
    {"cond_stage_model.transformer.", SM_COMPONENT_TEXT, false},
    {"cond_stage_model.model.", SM_COMPONENT_TEXT, false},
    {"conditioner.embedders.0.transformer.", SM_COMPONENT_TEXT, false},
    {"conditioner.embedders.1.transformer.", SM_COMPONENT_TEXT_2, false},
    {"conditioner.embedders.0.model.", SM_COMPONENT_TEXT_2, false}, /* the refiner; SD Turbo's: see version_2 */
    {"conditioner.embedders.1.model.", SM_COMPONENT_TEXT_2, false},
    {"text_encoders.clip_l.transformer.", SM_COMPONENT_TEXT, false},
    {"text_encoders.clip_g.transformer.", SM_COMPONENT_TEXT_2, false},
    {"unet.", SM_COMPONENT_UNET, true},
    {"vae.", SM_COMPONENT_VAE, true},
    {"text_encoder.", SM_COMPONENT_TEXT, true},
    {"text_encoder_2.", SM_COMPONENT_TEXT_2, true},
    {"transformer.", SM_COMPONENT_TRANSFORMER, true},
};

static bool in_table(const sm_alias_table *t, const char *name)
{
    sm_match m;
    for (size_t i = 0; i < t->count; i++)
        if (sm_pattern_match(t->rows[i].stored, name, &m) || sm_pattern_match(t->rows[i].canonical, name, &m))
            return true;
    return false;
}

/* The component whose names these are when nothing stands before them. */
static bool bare_component(const sm_layout_context *x, const char *name, sm_component *c)
{
    static const sm_component order[] = {SM_COMPONENT_UNET, SM_COMPONENT_VAE, SM_COMPONENT_TEXT, SM_COMPONENT_TRANSFORMER};
    for (size_t i = 0; i < SM_COUNT(order); i++)
        for (int t = 0; t < TABLES && tables[order[i]][t]; t++)
            if (in_table(tables[order[i]][t], name)) {
                *c = order[i] == SM_COMPONENT_TEXT ? x->text : order[i];
                return !(x->controlnet && *c == SM_COMPONENT_UNET);
            }
    return false;
}

sm_name sm_layout_place(const sm_layout_context *x, const char *name)
{
    sm_name n = {.rest = name};
    if (strlen(name) >= SM_LAYOUT_NAME)
        return n;
    if (sm_layout_mark(name) || ignored(name)) {
        n.kind = sm_layout_mark(name) ? SM_NAME_MARK : SM_NAME_IGNORED;
        return n;
    }
    bool openclip = begins(name, "transformer.resblocks.");
    for (size_t i = 0; i < SM_COUNT(sources) && !openclip; i++) {
        const struct source *s = &sources[i];
        if (!begins(name, s->prefix) || !name[strlen(s->prefix)])
            continue;
        n = (sm_name){SM_NAME_TENSOR, s->component, name + strlen(s->prefix), NULL, SM_AS_IS, s->diffusers, !s->diffusers};
        if (x->version_2 && begins(name, "conditioner.embedders.0.model."))
            n.component = SM_COMPONENT_TEXT;
        return n;
    }
    if (bare_component(x, name, &n.component))
        n.kind = SM_NAME_TENSOR;
    return n;
}

void sm_layout_note(sm_layout_context *x, const char *name, int rank, const int64_t *dims)
{
    sm_layout_report none = {0};
    sm_name n = sm_layout_place(x, name);
    if (n.kind != SM_NAME_TENSOR || sm_layout_addon(name, &none))
        return;
    if (n.component == SM_COMPONENT_UNET)
        sm_shape_note_unet(&x->shape[n.component], n.rest, rank, dims);
    if (n.component == SM_COMPONENT_VAE)
        sm_shape_note_vae(&x->shape[n.component], n.rest);
    if (!strcmp(name, "cond_stage_model.model.ln_final.weight"))
        x->shape[SM_COMPONENT_UNET].class_places = true;
}

void sm_layout_relate(sm_layout_context *x)
{
    sm_shape_relate_unet(&x->shape[SM_COMPONENT_UNET]);
    sm_shape_relate_vae(&x->shape[SM_COMPONENT_VAE]);
}

/* SD 2.x takes the output of the layer before the last, and diffusers' encoder does not have the last. */
static bool unused(const sm_layout_context *x, const sm_name *n)
{
    return x->last_unused && n->original && n->component == SM_COMPONENT_TEXT &&
           (begins(n->rest, "transformer.resblocks.23.") || !strcmp(n->rest, "text_projection"));
}

void sm_layout_resolve(const sm_layout_context *x, sm_name *n)
{
    const sm_shape *s = &x->shape[n->component];
    char out[SM_LAYOUT_NAME + 64];
    if (unused(x, n)) {
        n->kind = SM_NAME_IGNORED;
        return;
    }
    for (int t = 0; t < TABLES && tables[n->component][t]; t++) {
        const sm_alias_table *table = tables[n->component][t];
        const sm_alias *same = canonical_row(table, n->rest);
        if (same) {
            n->how = same->how == SM_LINEAR ? SM_LINEAR : SM_AS_IS;
            bool own = strcmp(same->canonical, same->stored) != 0; /* names that both layouts have are evidence for neither; */
            if (own)                                               /* "vae." stands before either */
                n->original = false;
            n->diffusers = own || (n->diffusers && n->component != SM_COMPONENT_VAE);
            return;
        }
        for (size_t i = 0; i < table->count; i++)
            if (sm_alias_read(&table->rows[i], s, n->rest, out, sizeof out)) {
                bool older = table == &sm_aliases_vae_old || table == &sm_aliases_clip_flat; /* other names of diffusers' own */
                n->row = &table->rows[i];
                n->how = n->row->how;
                n->original |= !older;
                n->diffusers = !n->original;
                return;
            }
    }
    if (!n->diffusers)
        n->kind = SM_NAME_UNKNOWN;
}
