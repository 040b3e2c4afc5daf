/* sumi_convert: any file of tensors, or a folder in diffusers' layout, into one file of another type, layout or format. Tensors
 * are views of mapped files, converted in pieces as they are written, and their pages given back: memory stays far below the
 * model's size. Which type a tensor gets is in convert_types.c, metadata in convert_meta.c and convert_own.c. */
#include "pipeline/convert.h"
#include "io/weight_files.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static sumi_status no_memory(const sm_conversion *c, sm_err *e)
{
    return sm_fail(e, SUMI_E_MEMORY, "out of memory converting %s", c->in);
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

static bool is(const char *a, const char *b) { return !a || !strcmp(a, b); }

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && !strcmp(s + n - k, tail);
}

static sumi_status read_options(sm_conversion *c, const sumi_convert_options *o, sm_err *e)
{
    const char *layout = o->layout ? o->layout : "keep", *format = o->format;
    static const char *const only_read[] = {".ckpt", ".pt", ".pth", ".bin"};
    for (size_t i = 0; !format && i < SM_COUNT(only_read); i++)
        if (ends_with(c->out, only_read[i]))
            return sm_fail(e, SUMI_E_ARG, "%s: PyTorch's files are read only; end the name in .safetensors or .gguf", c->out);
    if (!format)
        format = ends_with(c->out, ".gguf") ? "gguf" : "safetensors";
    int type = is(o->type, "keep") ? SM_KEEP : sm_store_find(o->type);
    if (type < 0 || type == SM_I32)
        return sm_fail(e, SUMI_E_ARG,
                       "--type: '%.40s' is unknown; f32, f16, bf16, f8_e4m3, f8_e5m2, q8_0, q4_0, q4_1, q5_0, q5_1, "
                       "q2_k, q3_k, q4_k, q5_k, q6_k or keep", o->type);
    if (strcmp(layout, "keep") && strcmp(layout, "diffusers") && strcmp(layout, "original"))
        return sm_fail(e, SUMI_E_ARG, "--layout: '%.40s' is unknown; diffusers, original or keep", layout);
    if (strcmp(format, "safetensors") && strcmp(format, "gguf"))
        return sm_fail(e, SUMI_E_ARG, "--format: '%.40s' is unknown; safetensors or gguf", format);
    c->type = (sm_dtype)type;
    c->gguf = !strcmp(format, "gguf");
    c->layout = layout;
    c->vae = o->vae;
    c->patterns = o->keep_type;
    if (!c->gguf && type != SM_KEEP && sm_dtype_block(c->type) > 1)
        return sm_fail(e, SUMI_E_ARG, "safetensors has no type %s; write GGUF (--format gguf, or an output that ends in .gguf)",
                       sm_store_name(c->type));
    if (c->gguf && (type == SM_F8_E4M3 || type == SM_F8_E5M2))
        return sm_fail(e, SUMI_E_ARG, "GGUF has no type %s; write safetensors", sm_store_name(c->type));
    return SUMI_OK;
}

static bool same_file(const struct stat *a, const char *path)
{
    struct stat b;
    return !stat(path, &b) && a->st_dev == b.st_dev && a->st_ino == b.st_ino;
}

/* Whether a file below the folder is the one of st; two storeys deep, as models are. */
static bool within(const struct stat *st, const char *folder, int depth)
{
    DIR *d = opendir(folder);
    bool found = false;
    for (struct dirent *x; d && !found && (x = readdir(d));) {
        char path[4352];
        struct stat s;
        if (x->d_name[0] == '.' || snprintf(path, sizeof path, "%.4095s/%s", folder, x->d_name) >= (int)sizeof path)
            continue;
        found = same_file(st, path) || (depth > 0 && !stat(path, &s) && S_ISDIR(s.st_mode) && within(st, path, depth - 1));
    }
    if (d)
        closedir(d);
    return found;
}

/* The output must not be a file that is read. */
static sumi_status check_output(const sm_conversion *c, sm_err *e)
{
    struct stat st, in;
    if (stat(c->out, &st) || !S_ISREG(st.st_mode))
        return SUMI_OK;
    bool folder = !stat(c->in, &in) && S_ISDIR(in.st_mode), shards = !folder && ends_with(c->in, ".index.json");
    char parent[4352];
    const char *slash = strrchr(c->in, '/');
    snprintf(parent, sizeof parent, "%.*s", slash ? (int)SM_MIN(slash - c->in + 1, 4095) : 1, slash ? c->in : ".");
    if (same_file(&st, c->in) || (folder && within(&st, c->in, 1)) || (shards && within(&st, parent, 0)) ||
        (c->vae && same_file(&st, c->vae)))
        return sm_fail(e, SUMI_E_ARG, "%s: the output is a file that is read; give it another name", c->out);
    return SUMI_OK;
}

/* ---- sources ----------------------------------------------------------------------------------------------------- */

/* What the file says beside its tensors, from the first file that is opened. */
static sumi_status open_metadata(sm_conversion *c, const char *path, const char *format, sm_err *e)
{
    if (c->meta_st || c->meta_gguf)
        return SUMI_OK;
    if (!strcmp(format, "safetensors"))
        c->meta_st = sm_st_open(path, c->mem, e);
    else if (!strcmp(format, "GGUF file"))
        c->meta_gguf = sm_gguf_open(path, c->mem, e);
    return e->code;
}

/* What is copied without being understood: types that sumi does not compute with, empty tensors. */
static bool is_raw(const sm_conversion *c, const sm_st_entry *x)
{
    return !sm_tensors_usable(x) || (c->type == SM_KEEP && !x->computable && !strcmp(x->dtype, "F64"));
}

static sm_out_tensor *new_tensor(sm_conversion *c, sm_err *e)
{
    if (c->n == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 1024;
        sm_out_tensor *t = sm_realloc(c->mem, SM_MEM_MISC, c->t, cap * sizeof *t);
        if (!t) {
            no_memory(c, e);
            return NULL;
        }
        c->t = t;
        c->cap = cap;
    }
    return memset(&c->t[c->n++], 0, sizeof *c->t);
}

static void leave_out(sm_conversion *c, const char *name)
{
    if (!c->left_out++)
        c->first_left_out = name;
}

static sumi_status add_raw(sm_conversion *c, const sm_st_entry *x, const char *name, sm_err *e)
{
    if (c->gguf && !sm_gguf_has_type(x->dtype)) {
        leave_out(c, name);
        return SUMI_OK;
    }
    int type = sm_store_find(x->dtype);
    if (!c->gguf && sm_gguf_has_type(x->dtype) && (strchr(x->dtype, 'Q') || strchr(x->dtype, 'P')))
        return sm_fail(e, SUMI_E_SUPPORT, "%s: tensor %s is of type %s, which safetensors lacks and sumi cannot read", c->in,
                       x->name, x->dtype);
    sm_out_tensor *t = new_tensor(c, e);
    if (!t)
        return e->code;
    *t = (sm_out_tensor){.name = name, .rank = x->rank, .raw = x->dtype, .raw_data = x->data, .raw_bytes = x->bytes,
                         .as = type < 0 ? SM_F32 : (sm_dtype)type};
    memcpy(t->dims, x->dims, sizeof t->dims);
    c->bytes_in += x->bytes;
    return SUMI_OK;
}

/* A file whose names stay, after prefix. The table takes what is usable; the rest is listed now. */
static sumi_status add_file(sm_conversion *c, const char *path, const char *prefix, sm_err *e)
{
    sm_tensors *f = sm_tensors_open(path, c->mem, e);
    if (!f)
        return e->code;
    sumi_status st = open_metadata(c, path, sm_tensors_format(f), e);
    for (size_t i = 0; st == SUMI_OK && i < sm_tensors_count(f); i++) {
        const sm_st_entry *x = sm_tensors_at(f, i);
        char *name = is_raw(c, x) ? sm_arena_fmt(&c->arena, "%s%s", prefix, x->name) : NULL;
        if (is_raw(c, x))
            st = name ? add_raw(c, x, name, e) : no_memory(c, e);
    }
    if (st == SUMI_OK)
        return sm_tensors_into(f, c->w, prefix, c->mem, e);
    sm_tensors_close(f);
    return st;
}

/* A file's tensors under canonical names. */
static sumi_status add_canonical(sm_conversion *c, const char *path, sm_weights *w, sm_component only, sm_layout_report *r,
                                 sm_err *e)
{
    sm_tensors *f = sm_tensors_open(path, c->mem, e);
    if (!f)
        return e->code;
    if (w == c->w && open_metadata(c, path, sm_tensors_format(f), e)) {
        sm_tensors_close(f);
        return e->code;
    }
    sumi_status st = sm_layout_into(f, w, only, r, c->mem, e);
    if (st == SUMI_OK)
        c->left_out += r->ignored + r->unknown;
    if (st == SUMI_OK && r->unknown && !c->first_left_out)
        c->first_left_out = sm_arena_str(&c->arena, r->first_unknown);
    else if (st == SUMI_OK && r->ignored && !c->first_left_out)
        c->first_left_out = "schedules and copies of weights";
    return st;
}

/* One component's folder: its file, or shards. */
static sumi_status add_component(sm_conversion *c, const char *path, sm_component i, sm_err *e)
{
    char prefix[64];
    sm_wf_set set;
    snprintf(prefix, sizeof prefix, "%s.", sm_component_names[i]);
    sm_wf_find(path, c->mem, &set, e);
    for (int k = 0; k < set.n && !e->code; k++) {
        sm_layout_report r;
        if (c->canonical)
            add_canonical(c, set.path[k], c->w, i, &r, e);
        else
            add_file(c, set.path[k], prefix, e);
    }
    sm_wf_free(&set);
    return e->code;
}

/* diffusers' folder: one for each component. */
static sumi_status add_folder(sm_conversion *c, sm_err *e)
{
    int found = 0;
    for (int i = 0; i < SM_COMPONENTS && !e->code; i++) {
        char path[4200];
        struct stat st;
        snprintf(path, sizeof path, "%.4000s/%s", c->in, sm_component_names[i]);
        if (stat(path, &st) || !S_ISDIR(st.st_mode) || (c->vae && i == SM_COMPONENT_VAE))
            continue;
        found++;
        add_component(c, path, (sm_component)i, e);
    }
    if (!found && !e->code)
        sm_fail(e, SUMI_E_MODEL,
                "%s: has model_index.json, but none of the folders unet, transformer, vae, text_encoder, text_encoder_2", c->in);
    return e->code;
}

/* Takes the autoencoder of c->vae in place of the one that is there: a table with views of both others, which outlive it. */
static sumi_status replace_vae(sm_conversion *c, sm_err *e)
{
    sm_layout_report r;
    c->base = c->w;
    c->w = NULL;
    c->vae_w = sm_weights_new(c->mem, e);
    if (!c->vae_w || add_canonical(c, c->vae, c->vae_w, SM_COMPONENT_VAE, &r, e))
        return e->code;
    if (!sm_weights_count(c->vae_w))
        return sm_fail(e, SUMI_E_MODEL, "%s: holds no autoencoder", c->vae);
    c->w = sm_weights_new(c->mem, e);
    for (int k = 0; c->w && k < 2; k++) {
        const sm_weights *from = k ? c->vae_w : c->base;
        for (size_t i = 0; i < sm_weights_count(from) && !e->code; i++) {
            const sm_weight *x = sm_weights_at(from, i);
            if ((k || strncmp(x->name, "vae.", 4)) && !sm_weights_add(c->w, x->name, &x->t, e))
                sm_weights_find(c->w, x->name)->mapped = x->mapped;
        }
    }
    return e->code;
}

static sumi_status open_sources(sm_conversion *c, sm_err *e)
{
    char index[4200];
    struct stat st;
    snprintf(index, sizeof index, "%.4000s/model_index.json", c->in);
    bool folder = !stat(index, &st);
    sm_layout_report r = {.layout = "diffusers"};
    c->canonical = strcmp(c->layout, "keep") || c->vae;
    c->w = sm_weights_new(c->mem, e);
    if (!c->w)
        return e->code;
    if (folder)
        (void)(add_folder(c, e) || sm_convert_folder_marks(c, &r, e));
    else if (c->canonical)
        add_canonical(c, c->in, c->w, SM_COMPONENTS, &r, e);
    else
        add_file(c, c->in, "", e);
    if (!e->code && (c->canonical || folder))
        sm_layout_add_marks(&r, c->w, e); /* v_pred and its like say how the model is sampled */
    if (!e->code && !strcmp(c->layout, "keep"))
        c->layout = strcmp(r.layout, "diffusers") ? "original" : "diffusers";
    if (!e->code && c->vae)
        replace_vae(c, e);
    if (!e->code && !sm_weights_count(c->w) && !c->n)
        sm_fail(e, SUMI_E_MODEL, c->canonical ? "%s: holds no tensor of a model's; --layout keep converts any file"
                : "%s: holds no tensors", c->in);
    return e->code ? e->code : sm_convert_own(c, e);
}

/* ---- the list ---------------------------------------------------------------------------------------------------- */

static void set_part(sm_out_tensor *t, int i, const sm_weight *x)
{
    t->part[i] = (sm_out_part){.t = x->t, .n = 1, .mapped = x->mapped};
    for (int d = 0; d < x->t.rank; d++)
        t->part[i].n *= x->t.dims[d];
    t->parts = i + 1;
}

/* Whether FP8 tensors with scales stay what they are, their scales beside them: only where nothing is renamed or converted. */
static bool keeps_scales(const sm_conversion *c) { return c->type == SM_KEEP && !c->gguf && !c->canonical; }

/* The scale of a weight that is there, or what belongs to such scales: its values go into the weight. */
static bool is_used_scale(sm_conversion *c, const char *name)
{
    char weight[1200];
    size_t stem;
    bool of_weight;
    if (!sm_convert_is_scale(name, &stem, &of_weight) || stem + 7 > sizeof weight)
        return false;
    if (!of_weight) /* nothing is computed with the others, and they mean nothing without the FP8 weights */
        return true;
    memcpy(weight, name, stem);
    strcpy(weight + stem, "weight");
    const sm_weight *x = sm_weights_find(c->w, weight);
    c->scaled += x && x->t.scale;
    return x && x->t.scale;
}

static bool any_scales(const sm_conversion *c)
{
    for (size_t i = 0; i < sm_weights_count(c->w); i++)
        if (sm_weights_at(c->w, i)->t.scale)
            return true;
    return false;
}

/* Under the names they have in the table. */
static sumi_status list_table(sm_conversion *c, sm_err *e)
{
    bool drop = any_scales(c) && !keeps_scales(c);
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++) /* raw ones: the mark of scaled FP8 may be an empty tensor */
        if (!drop || !is_used_scale(c, c->t[i].name))
            c->t[n++] = c->t[i];
    c->n = n;
    for (size_t i = 0; i < sm_weights_count(c->w); i++) {
        const sm_weight *x = sm_weights_at(c->w, i);
        bool raw = false; /* F64 that stays F64 is listed already, and its copy in the table is not */
        for (size_t k = 0; k < n && !raw; k++)
            raw = !strcmp(c->t[k].name, x->name);
        if (raw || (drop && is_used_scale(c, x->name)))
            continue;
        sm_out_tensor *t = new_tensor(c, e);
        if (!t)
            return e->code;
        t->name = x->name;
        t->rank = x->t.rank;
        memcpy(t->dims, x->t.dims, sizeof x->t.dims);
        set_part(t, 0, x);
    }
    return SUMI_OK;
}

static sumi_status list_original(sm_conversion *c, sm_err *e)
{
    sm_layout_export *x;
    size_t n;
    sumi_status st = sm_layout_original(c->w, &x, &n, c->mem, e);
    for (size_t i = 0; st == SUMI_OK && i < n; i++) {
        sm_out_tensor *t = new_tensor(c, e);
        char *name = t ? sm_arena_str(&c->arena, x[i].name) : NULL;
        if (!name) {
            st = no_memory(c, e);
            break;
        }
        t->name = name;
        t->rank = x[i].rank;
        t->transpose = x[i].transpose;
        memcpy(t->dims, x[i].dims, sizeof x[i].dims);
        for (int k = 0; k < x[i].parts; k++)
            set_part(t, k, x[i].part[k]);
    }
    sm_free(x);
    return st;
}

static size_t most_metadata(const sm_conversion *c)
{
    size_t texts = c->meta_st ? sm_st_metadata_count(c->meta_st) : 0;
    size_t typed = c->meta_gguf ? sm_gguf_metadata_count(c->meta_gguf) : 0;
    return c->n + 8 + texts + typed;
}

static sumi_status make_list(sm_conversion *c, sm_err *e)
{
    bool original = c->canonical && !strcmp(c->layout, "original");
    if (original ? list_original(c, e) : list_table(c, e))
        return e->code;
    c->meta = sm_arena_get(&c->arena, most_metadata(c) * sizeof *c->meta);
    c->gmeta = sm_arena_get(&c->arena, most_metadata(c) * sizeof *c->gmeta);
    if (!c->meta || !c->gmeta)
        return no_memory(c, e);
    for (size_t i = 0; i < c->n && !e->code; i++)
        if (c->t[i].parts)
            sm_convert_type(c, &c->t[i], e);
    return e->code ? e->code : sm_convert_meta(c, e);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

typedef struct progress {
    const sumi_callbacks *cb;
    double start;
    int64_t done, all;
} progress;

static sumi_status wrote(void *arg, size_t bytes, sm_err *e)
{
    progress *p = arg;
    p->done += (int64_t)bytes;
    if (p->cb && p->cb->cancel && __atomic_load_n(p->cb->cancel, __ATOMIC_RELAXED))
        return sm_fail(e, SUMI_E_CANCELLED, "cancelled");
    if (p->cb && p->cb->progress) {
        double s = sm_now() - p->start, rate = s > 0 ? (double)p->done / s : 0;
        double eta = s > 0.5 && rate > 0 ? (double)(p->all - p->done) / rate : -1;
        p->cb->progress(p->cb->user, &(sumi_progress){.stage = "convert", .step = p->done, .steps = p->all, .seconds = s,
                                                      .unit = "B", .rate = rate, .eta = eta});
    }
    return SUMI_OK;
}

static sumi_status write_file(sm_conversion *c, sm_pool *pool, const sumi_callbacks *cb, sm_err *e)
{
    progress p = {.cb = cb, .start = sm_now()};
    for (size_t i = 0; i < c->n; i++)
        p.all += (int64_t)sm_out_bytes(&c->t[i]);
    sm_out o = {.n = c->n, .t = c->t, .pool = pool, .wrote = wrote, .arg = &p};
    return c->gguf ? sm_gguf_write_out(c->out, &o, c->nmeta, c->gmeta, c->mem, e)
        : sm_st_write_out(c->out, &o, c->nmeta, c->meta, c->mem, e);
}

static void end(sm_conversion *c)
{
    sm_weights_unref(&c->w);
    sm_weights_unref(&c->base);
    sm_weights_unref(&c->vae_w);
    sm_st_close(c->meta_st);
    sm_gguf_close(c->meta_gguf);
    sm_free(c->t);
    sm_arena_free(&c->arena);
}

sumi_status sumi_convert(sumi_context *ctx, const char *in, const char *out, const sumi_convert_options *o,
                         const sumi_callbacks *cb, char **summary)
{
    static const sumi_convert_options none = {0};
    sm_err *e = sm_begin(ctx);
    sm_conversion c = {.mem = &ctx->mem, .in = in, .out = out};
    sm_buf b = {.mem = &ctx->mem};
    if (summary)
        *summary = NULL;
    sm_arena_init(&c.arena, c.mem, SM_MEM_MISC);
    if (!read_options(&c, o ? o : &none, e) && !check_output(&c, e) && !open_sources(&c, e) && !make_list(&c, e) &&
        !write_file(&c, ctx->pool, cb, e) && summary) {
        sm_convert_summary(&c, &b);
        if (b.oom)
            sm_fail(e, SUMI_E_MEMORY, "out of memory for the summary of %s; the file is written", out);
        else
            *summary = b.data;
    }
    end(&c);
    return e->code;
}
