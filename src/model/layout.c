/* Reading a file of any layout into the table of canonical names (see layout.h): a first look at all names tells the shape,
 * then each tensor becomes a view under its canonical name. */
#include "model/layout_impl.h"

#include <stdio.h>
#include <string.h>

#include "io/quant.h"

typedef struct reading {
    sm_tensors *f;
    sm_weights *w;
    sm_component only;
    sm_layout_report *r;
    sm_mem *mem;
    sm_layout_context x;
    size_t diffusers, original; /* tensors whose names are of one layout alone */
} reading;

/* ---- first look -------------------------------------------------------------------------------------------------- */

/* Text encoders under bare names: as the caller wants, else told by the width, which is 1280 in the second encoder of XL. */
static sm_component bare_text(const reading *g)
{
    static const char *const names[] = {"text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight",
                                        "token_embedding.weight"};
    if (g->only == SM_COMPONENT_TEXT || g->only == SM_COMPONENT_TEXT_2)
        return g->only;
    for (size_t i = 0; i < SM_COUNT(names); i++) {
        const sm_st_entry *x = sm_tensors_find(g->f, names[i]);
        if (x && x->rank == 2 && x->dims[1] == 1280)
            return SM_COMPONENT_TEXT_2;
    }
    return SM_COMPONENT_TEXT;
}

/* Stability's later programs give XL's refiner and SD 2.x (SD Turbo) one prefix for their only encoder. The refiner's is 1280
 * wide and its UNet has label_emb. */
#define ONLY "conditioner.embedders.0.model."
static bool is_version_2(const sm_tensors *f)
{
    const sm_st_entry *x = sm_tensors_find(f, ONLY "token_embedding.weight");
    bool unet = sm_tensors_find(f, "model.diffusion_model.time_embed.0.weight");
    return x && x->rank == 2 &&
           (x->dims[1] == 1024 || (unet && !sm_tensors_find(f, "model.diffusion_model.label_emb.0.0.weight")));
}

static bool lacks_layer_after(const sm_tensors *f, const char *last, const char *next)
{
    return sm_tensors_find(f, last) && !sm_tensors_find(f, next);
}

static void first_look(reading *g)
{
    size_t n = sm_tensors_count(g->f);
    sm_layout_context *x = &g->x;
    for (size_t i = 0; i < n; i++)
        sm_layout_addon(sm_tensors_at(g->f, i)->name, g->r);
    x->controlnet = g->r->controlnet;
    x->text = bare_text(g);
    x->version_2 = is_version_2(g->f);
    x->last_unused = lacks_layer_after(g->f, "cond_stage_model.model.transformer.resblocks.23.ln_1.weight",
                                       "cond_stage_model.model.transformer.resblocks.24.ln_1.weight") ||
                     (x->version_2 && lacks_layer_after(g->f, ONLY "transformer.resblocks.23.ln_1.weight",
                                                        ONLY "transformer.resblocks.24.ln_1.weight"));
    for (size_t i = 0; i < n; i++) {
        const sm_st_entry *t = sm_tensors_at(g->f, i);
        sm_layout_note(x, t->name, t->rank, t->dims);
    }
    sm_layout_relate(x);
}

/* What the name of entry i is. */
static sm_name look(const reading *g, size_t i)
{
    sm_layout_report none = {0};
    const char *name = sm_tensors_at(g->f, i)->name;
    sm_name s = sm_layout_place(&g->x, name);
    if (s.kind == SM_NAME_TENSOR && sm_layout_addon(name, &none))
        s.kind = SM_NAME_UNKNOWN;
    if (s.kind == SM_NAME_TENSOR)
        sm_layout_resolve(&g->x, &s);
    return s;
}

/* The full canonical name of one part (row is NULL for names that are canonical already). */
static bool canonical_name(const reading *g, const sm_name *s, const sm_alias *row, char *out, size_t size)
{
    char rest[SM_LAYOUT_NAME + 64];
    if (row && !sm_alias_read(row, &g->x.shape[s->component], s->rest, rest, sizeof rest))
        return false;
    int n = snprintf(out, size, "%s.%s", sm_component_names[s->component], row ? rest : s->rest);
    return n > 0 && (size_t)n < size;
}

/* ---- marks ------------------------------------------------------------------------------------------------------- */

/* n values of a tensor that has so many (up to 4); of another one none. */
static void read_values(const sm_st_entry *x, size_t n, float *out)
{
    size_t has = x->computable && x->type <= SM_BF16 ? 1 : 0;
    for (int i = 0; i < x->rank && has <= 4; i++)
        has = x->dims[i] >= 0 && x->dims[i] <= 4 ? has * (size_t)x->dims[i] : 5;
    if (has == n)
        sm_load_blocks(x->type, x->data, (int64_t)n, out);
}

static void note_mark(reading *g, const sm_st_entry *x)
{
    sm_layout_report *r = g->r;
    const struct { const char *name; bool *set; size_t n; float *values; } marks[] = {
        {"v_pred", &r->v_prediction, 0, NULL}, {"ztsnr", &r->zero_snr, 0, NULL}, {"edm_mean", &r->edm_mark, 4, r->latents_mean},
        {"edm_std", &r->edm_mark, 4, r->latents_std}, {"edm_vpred.sigma_max", &r->edm_v, 1, &r->edm_v_sigma[0]},
        {"edm_vpred.sigma_min", &r->edm_v, 1, &r->edm_v_sigma[1]}};
    for (size_t i = 0; i < SM_COUNT(marks); i++) {
        if (strcmp(x->name, marks[i].name))
            continue;
        *marks[i].set = true;
        if (marks[i].values)
            read_values(x, marks[i].n, marks[i].values);
    }
}

sumi_status sm_layout_add_marks(const sm_layout_report *r, sm_weights *w, sm_err *e)
{
    static const float zero = 0;
    const struct { const char *name; bool set; int rank; const float *values; } marks[] = {
        {"v_pred", r->v_prediction, 1, &zero}, {"ztsnr", r->zero_snr, 1, &zero}, {"edm_mean", r->edm_mark, 4, r->latents_mean},
        {"edm_std", r->edm_mark, 4, r->latents_std}, {"edm_vpred.sigma_max", r->edm_v, 0, &r->edm_v_sigma[0]},
        {"edm_vpred.sigma_min", r->edm_v_sigma[1] > 0, 0, &r->edm_v_sigma[1]}};
    for (size_t i = 0; i < SM_COUNT(marks); i++) {
        if (!marks[i].set)
            continue;
        sm_weight *x = sm_weights_create(w, marks[i].name, marks[i].rank, (int64_t[]){1, 4, 1, 1}, e);
        if (!x)
            return e ? e->code : SUMI_E_MEMORY;
        memcpy(x->t.data, marks[i].values, x->bytes);
    }
    return SUMI_OK;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

static sumi_status bad(const reading *g, const sm_st_entry *x, sm_err *e, const char *what)
{
    return sm_fail(e, SUMI_E_FORMAT, "%s: tensor %.200s (%d dimensions, the first %lld) %s", sm_tensors_path(g->f), x->name,
                   x->rank, x->rank ? (long long)x->dims[0] : 0, what);
}

/* The part's share of the rows; a share of blocks, and of the scales, must be a whole one. */
static bool third(sm_tensor *t, int part)
{
    if (t->rank < 1 || t->rank > 2 || t->dims[0] % 3)
        return false;
    t->dims[0] /= 3;
    int64_t n = t->dims[0] * (t->rank > 1 ? t->dims[1] : 1), at = part * n;
    if (n % sm_dtype_block(t->dtype) || (t->scale && t->scale_run < 3 * n && n % t->scale_run))
        return false;
    t->data = (uint8_t *)t->data + sm_dtype_bytes(t->dtype, at);
    if (t->scale)
        t->scale += at / t->scale_run;
    return true;
}

/* The canonical view of what is stored. */
static sumi_status reshape(const reading *g, const sm_st_entry *x, sm_alias_how how, int part, sm_tensor *t, sm_err *e)
{
    if (how == SM_TRANSPOSED)
        return t->rank == 2 ? sm_tensors_transpose(t, x->name, g->w, g->mem, e) : bad(g, x, e, "must be a matrix");
    while (how == SM_LINEAR && t->rank > 2 && t->dims[t->rank - 1] == 1)
        t->rank--;
    return how != SM_THIRD || third(t, part) ? SUMI_OK : bad(g, x, e, "must divide into q, k and v");
}

/* Entry j < i whose tensor got this canonical name; NULL: none of this file. Only for messages. */
static const char *earlier(const reading *g, size_t i, const char *canonical)
{
    char name[SM_LAYOUT_NAME + 96];
    for (size_t j = 0; j < i; j++) {
        sm_name s = look(g, j);
        for (int p = 0; s.kind == SM_NAME_TENSOR && p < (s.how == SM_THIRD ? 3 : 1); p++)
            if (canonical_name(g, &s, s.row ? s.row + p : NULL, name, sizeof name) && !strcmp(name, canonical))
                return sm_tensors_at(g->f, j)->name;
    }
    return NULL;
}

static sumi_status add_part(const reading *g, size_t i, const sm_name *s, int part, sm_tensor t, sm_err *e)
{
    const sm_st_entry *x = sm_tensors_at(g->f, i);
    char name[SM_LAYOUT_NAME + 96];
    if (!canonical_name(g, s, s->row ? s->row + part : NULL, name, sizeof name))
        return bad(g, x, e, "has too long a name");
    if (sm_weights_find(g->w, name)) {
        const char *other = earlier(g, i, name);
        return other ? sm_fail(e, SUMI_E_FORMAT, "%s: tensors %.160s and %.160s are both %.160s", sm_tensors_path(g->f), other,
                               x->name, name)
                     : sm_fail(e, SUMI_E_FORMAT, "%s: tensor %.160s is %.160s, which is loaded already", sm_tensors_path(g->f),
                               x->name, name);
    }
    sumi_status st = reshape(g, x, s->how, part, &t, e);
    return st == SUMI_OK ? sm_weights_add(g->w, name, &t, e) : st;
}

static sumi_status add_entry(reading *g, size_t i, const sm_name *s, sm_err *e)
{
    const sm_st_entry *x = sm_tensors_at(g->f, i);
    int parts = s->how == SM_THIRD ? 3 : 1;
    sm_tensor t;
    g->r->found[s->component] += (size_t)parts;
    g->diffusers += s->diffusers;
    g->original += s->original;
    if (g->only != SM_COMPONENTS && g->only != s->component)
        return SUMI_OK;
    sumi_status st = sm_tensors_view(g->f, x, g->w, &t, g->mem, e);
    for (int p = 0; st == SUMI_OK && p < parts; p++)
        st = add_part(g, i, s, p, t, e);
    return st;
}

static sumi_status each(reading *g, sm_err *e)
{
    sumi_status st = SUMI_OK;
    sm_layout_report *r = g->r;
    for (size_t i = 0; st == SUMI_OK && i < sm_tensors_count(g->f); i++) {
        const sm_st_entry *x = sm_tensors_at(g->f, i);
        sm_name s = look(g, i);
        switch (s.kind) {
        case SM_NAME_TENSOR: st = add_entry(g, i, &s, e); break;
        case SM_NAME_IGNORED: r->ignored++; break;
        case SM_NAME_MARK: note_mark(g, x); break;
        default:
            if (!r->unknown++)
                snprintf(r->first_unknown, sizeof r->first_unknown, "%s", x->name);
        }
    }
    r->layout = g->original && g->diffusers ? "mixed" : g->original ? "original" : "diffusers";
    return st;
}

sumi_status sm_layout_into(sm_tensors *f, sm_weights *w, sm_component only, sm_layout_report *r, sm_mem *mem, sm_err *e)
{
    *r = (sm_layout_report){.layout = "diffusers"};
    reading *g = sm_alloc0(mem, SM_MEM_MISC, sizeof *g);
    sumi_status st = sm_tensors_keep(f, w, e);
    if (!g && st == SUMI_OK)
        st = sm_fail(e, SUMI_E_MEMORY, "%s: out of memory for its names", sm_tensors_path(f));
    if (st == SUMI_OK) {
        *g = (reading){.f = f, .w = w, .only = only, .r = r, .mem = mem};
        first_look(g);
        st = each(g, e);
    }
    sm_free(g);
    return st;
}
