/* sumi_inspect: what a file of tensors or a diffusers folder holds: components, parameters, types, and, where it is a model
 * sumi knows, which tensors are missing or unexpected (recording the model finds both). */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "io/tensors.h"
#include "pipeline/model.h"

enum { MAX_GROUPS = 32, MAX_LISTED = 20 };

typedef struct group { char name[80]; int tensors; double params, bytes; } group;

typedef struct report {
    sm_mem *mem;
    group component[MAX_GROUPS], type[MAX_GROUPS];
    int components, types, tensors;
    double params, bytes;
    char family[96], problem[640];
    const char *format, *unexpected[MAX_LISTED];
    int nunexpected;
} report;

static void count(group *g, int *n, const char *name, size_t len, double params, double bytes)
{
    int i = 0;
    len = SM_MIN(len, sizeof g[0].name - 1);
    while (i < *n && (strncmp(g[i].name, name, len) || g[i].name[len]))
        i++;
    if (i == MAX_GROUPS)
        i--; /* the last group takes the rest */
    if (i == *n) {
        memcpy(g[i].name, name, len);
        (*n)++;
    }
    g[i].tensors++;
    g[i].params += params;
    g[i].bytes += bytes;
}

static void count_file(report *r, const sm_tensors *f, const char *component)
{
    for (size_t i = 0; i < sm_tensors_count(f); i++) {
        const sm_st_entry *x = sm_tensors_at(f, i);
        double params = 1;
        for (int d = 0; d < x->rank; d++)
            params *= (double)x->dims[d];
        const char *name = component ? component : x->name;
        count(r->component, &r->components, name, component ? strlen(name) : strcspn(name, "."), params, (double)x->bytes);
        count(r->type, &r->types, x->dtype, strlen(x->dtype), params, (double)x->bytes);
        r->tensors++;
        r->params += params;
        r->bytes += (double)x->bytes;
    }
}

static sumi_status count_path(report *r, const char *path, sm_err *e)
{
    static const char *const parts[] = {"text_encoder", "text_encoder_2", "text_encoder_3", "unet", "transformer", "vae"};
    char index[600];
    struct stat st;
    snprintf(index, sizeof index, "%.500s/model_index.json", path);
    bool folder = !stat(index, &st);
    for (size_t i = 0; i < (folder ? SM_COUNT(parts) : 1) && !e->code; i++) {
        snprintf(index, sizeof index, "%.500s/%s", path, parts[i]);
        if (folder && stat(index, &st))
            continue;
        sm_tensors *f = sm_tensors_open(folder ? index : path, r->mem, e);
        if (f) {
            count_file(r, f, folder ? parts[i] : NULL);
            r->format = sm_tensors_format(f);
        }
        sm_tensors_close(f);
    }
    return e->code;
}

/* The encoders' texts side by side, as the denoiser takes them; *pooled the last one's, NULL where none is taken. */
static sm_node *record_texts(const nn_scope *root, const sumi_model *m, sm_node **pooled)
{
    sm_node *words[SM_TEXTS], *eos = sm_input(root->g, "eos", SM_I32, 1, (int64_t[]){1});
    for (int i = 0; i < m->traits.texts; i++) {
        const sm_text_use *u = &m->traits.text[i];
        bool last = i == m->traits.texts - 1;
        nn_scope s = nn_sub(root, "%s", u->component);
        sm_node *ids = sm_input(root->g, "ids", SM_I32, 2, (int64_t[]){1, u->clip.max_position_embeddings});
        sm_clip_out text = sm_clip_text(&s, &u->clip, ids, last && m->family->pooled_width(&m->denoiser) ? eos : NULL);
        words[i] = text.last;
        if (last)
            *pooled = sm_denoiser_pooled(m->family, &m->denoiser, &text);
    }
    return m->traits.texts > 1 ? sm_concat(m->traits.texts, words, -1) : words[0];
}

/* Records every component at its default size: a missing tensor is the graph's error, one that nothing asked for is
 * unexpected. */
static void check_model(report *r, sumi_model *m, sm_err *why)
{
    sm_graph *g = sm_graph_new(r->mem, why);
    if (!g)
        return;
    nn_scope root = nn_root(g, m->w, NULL), den = nn_sub(&root, "%s", m->family->component), vae = nn_sub(&root, "vae");
    int f = sm_vae_factor(&m->vae), one = m->family->multiple(&m->denoiser), c = m->vae.latent_channels;
    int in = m->family->kind == SM_MODEL_UNET ? m->denoiser.unet.in_channels : c;
    sm_conditions cond = {0};
    cond.ctx = record_texts(&root, m, &cond.pooled);
    if (m->traits.time_ids)
        cond.time_ids = sm_input(g, "time_ids", SM_F32, 2, (int64_t[]){1, m->traits.time_ids});
    if (m->family->kind == SM_MODEL_UNET && m->denoiser.unet.time_cond_proj_dim)
        cond.timestep_cond = sm_input(g, "timestep_cond", SM_F32, 2, (int64_t[]){1, m->denoiser.unet.time_cond_proj_dim});
    sm_node *x = sm_input(g, "x", SM_F32, 4, (int64_t[]){1, one, one, in}), *t = sm_input(g, "t", SM_F32, 1, (int64_t[]){1});
    m->family->record(&den, &m->denoiser, x, t, &cond);
    sm_vae_decode(&vae, &m->vae, sm_input(g, "z", SM_F32, 4, (int64_t[]){1, 1, 1, c}));
    sm_vae_encode(&vae, &m->vae, sm_input(g, "image", SM_F32, 4, (int64_t[]){1, f, f, m->vae.in_channels}));
    if (g->err.code)
        sm_fail(why, g->err.code, "%s", g->err.msg);
    sm_graph_free(g);
}

static void look_at_model(report *r, sumi_context *ctx, const char *path, sumi_model **m)
{
    sm_err why = {0};
    if (!sm_model_open(m, &ctx->mem, &(sumi_model_options){.path = path}, false, &why)) {
        snprintf(r->family, sizeof r->family, "%s, %s%s%s", (*m)->traits.label, (*m)->family->class_name,
                 (*m)->traits.assumed ? ", assumed " : "", (*m)->traits.assumed ? (*m)->traits.prediction : "");
        check_model(r, *m, &why);
        for (size_t i = 0; i < sm_weights_count((*m)->w); i++) {
            const sm_weight *w = sm_weights_at((*m)->w, i);
            if (!w->used && r->nunexpected < MAX_LISTED)
                r->unexpected[r->nunexpected++] = w->name;
        }
    }
    snprintf(r->problem, sizeof r->problem, "%s", why.msg);
}

static void write_groups(sm_buf *b, const char *title, const group *g, int n)
{
    for (int i = 0; i < n; i++)
        sm_buf_fmt(b, "%-12s %-32s %6d tensors %10.3f M %9.2f MB\n", i ? "" : title, g[i].name, g[i].tensors, g[i].params / 1e6, g[i].bytes / 1e6);
}

static void write_text(const report *r, const char *path, sm_buf *b)
{
    sm_buf_fmt(b, "%-12s %s, a %s\n%-12s %s\n", "file", path, r->format ? r->format : "folder", "family", r->family[0] ? r->family : "not a model that this version runs");
    write_groups(b, "components", r->component, r->components);
    write_groups(b, "types", r->type, r->types);
    sm_buf_fmt(b, "%-12s %d tensors, %.3f M parameters, %.2f MB\n", "all", r->tensors, r->params / 1e6, r->bytes / 1e6);
    if (r->problem[0])
        sm_buf_fmt(b, "%-12s %s\n", r->family[0] ? "missing" : "because", r->problem);
    for (int i = 0; i < r->nunexpected; i++)
        sm_buf_fmt(b, "%-12s %s\n", i ? "" : "unexpected", r->unexpected[i]);
}

static void add_groups(cJSON *j, const char *name, const group *g, int n)
{
    cJSON *a = cJSON_AddArrayToObject(j, name);
    for (int i = 0; a && i < n; i++) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", g[i].name);
        cJSON_AddNumberToObject(o, "tensors", g[i].tensors);
        cJSON_AddNumberToObject(o, "parameters", g[i].params);
        cJSON_AddNumberToObject(o, "bytes", g[i].bytes);
        cJSON_AddItemToArray(a, o);
    }
}

static void write_json(const report *r, const char *path, sm_buf *b)
{
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "file", path);
    cJSON_AddItemToObject(j, "family", r->family[0] ? cJSON_CreateString(r->family) : cJSON_CreateNull());
    add_groups(j, "components", r->component, r->components);
    add_groups(j, "types", r->type, r->types);
    cJSON_AddNumberToObject(j, "tensors", r->tensors);
    cJSON_AddNumberToObject(j, "parameters", r->params);
    cJSON_AddItemToObject(j, "problem", r->problem[0] ? cJSON_CreateString(r->problem) : cJSON_CreateNull());
    cJSON_AddItemToObject(j, "unexpected", cJSON_CreateStringArray(r->unexpected, r->nunexpected));
    char *text = cJSON_Print(j);
    sm_buf_fmt(b, "%s\n", text ? text : "");
    b->oom |= !text;
    cJSON_free(text);
    cJSON_Delete(j);
}

sumi_status sumi_inspect(sumi_context *ctx, const char *path, int json, char **out)
{
    sm_err *e = sm_begin(ctx);
    report r = {.mem = &ctx->mem};
    sumi_model *m = NULL;
    sm_buf b = {.mem = &ctx->mem};
    *out = NULL;
    if (!count_path(&r, path, e)) {
        look_at_model(&r, ctx, path, &m);
        (json ? write_json : write_text)(&r, path, &b);
        if (b.oom)
            sm_fail(e, SUMI_E_MEMORY, "out of memory inspecting %s", path);
    }
    sumi_model_free(m);
    if (e->code)
        sm_buf_free(&b);
    else
        *out = b.data;
    return e->code;
}
