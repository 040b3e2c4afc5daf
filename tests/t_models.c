/* Models against diffusers and transformers: tiny random models made by tools/fixtures (weights w.*, inputs in.*, outputs of
 * modules tap.*, results out.*, all of them computed in double), at max |d| <= 1e-4 rms on every backend of this CPU; and the
 * gradient of each whole model against differences of its loss. */
#include "cpu/cpu.h"
#include "io/safetensors.h"
#include "model/model.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A fixture file as a table of weights, w.*, in.*, tap.* and out.* side by side. */
typedef struct fixture {
    sm_mem mem;
    sm_err err;
    const char *name;
    sm_weights *w;
    const char *config; /* JSON; lives as long as w */
} fixture;

static void fixture_close(fixture *f) { sm_weights_unref(&f->w); }

static bool fixture_open(fixture *f, const char *name)
{
    *f = (fixture){.name = name};
    sm_st *st = sm_st_open(test_fixture(name), &f->mem, &f->err);
    f->w = sm_weights_new(&f->mem, &f->err);
    f->config = st ? sm_st_metadata(st, "config") : NULL;
    bool ok = st && f->w && sm_st_into(st, f->w, NULL, &f->mem, &f->err) == SUMI_OK && f->config;
    CHECKF(ok, "%s: %s", name, f->err.msg);
    return ok;
}

enum { WANTED = 128 };

/* A recorded model with what is to be compared. */
typedef struct run {
    fixture *f;
    sm_graph *g;
    nn_scope s;           /* scope "w": the fixture's weights */
    int inputs, count;
    sm_node *in[8];
    const sm_weight *in_data[8];
    sm_node *node[WANTED];
    const sm_weight *want[WANTED];
} run;

static void run_open(run *r, fixture *f)
{
    *r = (run){.f = f, .g = sm_graph_new(&f->mem, &f->err)};
    if (r->g) {
        nn_scope root = nn_root(r->g, f->w, NULL);
        r->s = nn_sub(&root, "w");
    }
}

static sm_node *input(run *r, const char *name)
{
    const sm_weight *w = sm_weights_find(r->f->w, name);
    CHECKF(w != NULL, "%s lacks %s", r->f->name, name);
    if (!w)
        return r->g->poison;
    r->in_data[r->inputs] = w;
    return r->in[r->inputs++] = sm_input(r->g, name, w->t.dtype, w->t.rank, w->t.dims);
}

static void want(run *r, const char *name, sm_node *n)
{
    const sm_weight *w = sm_weights_find(r->f->w, name);
    CHECKF(w && n, "%s: %s is missing in the %s", r->f->name, name, w ? "recording" : "fixture");
    if (!w || !n || r->count == WANTED)
        return;
    CHECKF(sm_numel(n) == (int64_t)(w->bytes / 4), "%s: %s has another size", r->f->name, name);
    if (sm_numel(n) != (int64_t)(w->bytes / 4))
        return;
    r->node[r->count] = n;
    r->want[r->count++] = w;
}

/* The text stream's output of a joint block: the first addition after its ff_context. */
static sm_node *context_tap(const sm_graph *g, const char *block)
{
    char path[300];
    snprintf(path, sizeof path, "%s.ff_context", block);
    const sm_node *ff = nn_tap(g, path);
    for (int i = ff ? ff->id + 1 : g->count; i < g->count; i++)
        if (g->nodes[i]->op == SM_OP_ADD)
            return g->nodes[i];
    return NULL;
}

/* Every tap of the fixture: tap.PATH is the output of module PATH. */
static void want_taps(run *r)
{
    for (size_t i = 0; i < sm_weights_count(r->f->w); i++) {
        const char *name = sm_weights_at(r->f->w, i)->name;
        char path[256];
        if (strncmp(name, "tap.", 4))
            continue;
        snprintf(path, sizeof path, "w.%s", name + 4);
        char *mark = strchr(path, '#');
        if (mark)
            *mark = 0;
        want(r, name, mark ? context_tap(r->g, path) : nn_tap(r->g, path));
    }
}

static void compare(const run *r, const sm_plan *p, const char *backend)
{
    for (int i = 0; i < r->count; i++) {
        const float *a = sm_plan_data(p, r->node[i]), *b = r->want[i]->t.data;
        int64_t n = sm_numel(r->node[i]);
        double d = a ? test_maxdiff(a, b, n) : INFINITY, rms = test_rms(b, n);
        CHECKF(d <= 1e-4 * rms, "%s, %s: %s differs by %.3g, rms %.3g", r->f->name, backend, r->want[i]->name, d, rms);
    }
}

static void run_close(run *r)
{
    const sm_backend *be[4];
    int n = sm_cpu_backends(be);
    for (int b = 0; b < n && r->g; b++) {
        sm_plan *p = sm_plan_new(r->g, r->count, r->node, be[b], &r->f->err);
        for (int i = 0; p && i < r->inputs; i++)
            memcpy(sm_plan_data(p, r->in[i]), r->in_data[i]->t.data, r->in_data[i]->bytes);
        if (p && sm_plan_run(p, NULL, NULL, &r->f->err) == SUMI_OK)
            compare(r, p, be[b]->name);
        sm_plan_free(p);
    }
    CHECKF(r->count > 0 && !r->f->err.code, "%s: %s", r->f->name, r->f->err.msg);
    sm_graph_free(r->g);
    fixture_close(r->f);
}

/* ---- one function per kind of model: records, says what to compare ------------------------------------------------ */

static bool config(fixture *f, sm_model_kind kind, void *c)
{
    bool ok = f->config && sm_config_read(kind, f->config, strlen(f->config), c, &f->err) == SUMI_OK;
    CHECKF(ok, "%s: %s", f->name, f->err.msg);
    return ok;
}

static void check_unet(const char *name)
{
    fixture f;
    run r;
    sm_unet_config c;
    if (!fixture_open(&f, name) || !config(&f, SM_MODEL_UNET, &c))
        return fixture_close(&f);
    run_open(&r, &f);
    sm_node *x = input(&r, "in.sample"), *t = input(&r, "in.timestep"), *ctx = input(&r, "in.encoder_hidden_states");
    sm_unet_cond cond = {0};
    if (c.text_time) {
        cond.text_embeds = input(&r, "in.text_embeds");
        cond.time_ids = input(&r, "in.time_ids");
    }
    want(&r, "out.sample", sm_unet(&r.s, &c, x, t, ctx, &cond));
    want_taps(&r);
    run_close(&r);
}

static void check_vae(const char *name)
{
    fixture f;
    run r;
    sm_vae_config c;
    if (!fixture_open(&f, name) || !config(&f, SM_MODEL_VAE, &c))
        return fixture_close(&f);
    run_open(&r, &f);
    sm_node *moments = sm_vae_encode(&r.s, &c, input(&r, "in.image"));
    sm_node *image = sm_vae_decode(&r.s, &c, input(&r, "in.latent"));
    want(&r, "out.mean", sm_slice(moments, -1, 0, c.latent_channels));
    want(&r, "out.logvar", sm_slice(moments, -1, c.latent_channels, c.latent_channels));
    want(&r, "out.image", image);
    want_taps(&r);
    run_close(&r);
}

static void check_clip(const char *name)
{
    fixture f;
    run r;
    sm_clip_config c;
    if (!fixture_open(&f, name) || !config(&f, SM_MODEL_CLIP, &c))
        return fixture_close(&f);
    run_open(&r, &f);
    sm_node *ids = input(&r, "in.input_ids");
    const sm_weight *in = r.in_data[0];
    int64_t n = ids->dims[0], t = ids->dims[1];
    int32_t rows[16];
    sm_clip_eos_rows(&c, in ? in->t.data : NULL, in ? (int)SM_MIN(n, 16) : 0, (int)t, rows);
    sm_clip_out o = sm_clip_text(&r.s, &c, ids, sm_const(r.g, SM_I32, 1, &n, rows));
    for (int i = 0; i <= o.layers; i++) {
        char hidden[64];
        snprintf(hidden, sizeof hidden, "out.hidden_states.%d", i);
        want(&r, hidden, o.hidden[i]);
    }
    want(&r, "out.last_hidden_state", o.last);
    if (o.projected)
        want(&r, "out.text_embeds", o.projected);
    else
        want(&r, "out.pooler_output", o.pooled);
    want_taps(&r);
    run_close(&r);
}

static void check_mmdit(const char *name)
{
    fixture f;
    run r;
    sm_mmdit_config c;
    if (!fixture_open(&f, name) || !config(&f, SM_MODEL_MMDIT, &c))
        return fixture_close(&f);
    run_open(&r, &f);
    sm_node *x = input(&r, "in.sample"), *t = input(&r, "in.timestep"), *ctx = input(&r, "in.encoder_hidden_states");
    want(&r, "out.sample", sm_mmdit(&r.s, &c, x, t, ctx, input(&r, "in.pooled_projections")));
    want_taps(&r);
    run_close(&r);
}

TEST(model_unet_sd15) { check_unet("unet_sd15_tiny.safetensors"); }
TEST(model_unet_sd2) { check_unet("unet_sd2_tiny.safetensors"); }
TEST(model_unet_sdxl) { check_unet("unet_sdxl_tiny.safetensors"); }
TEST(model_vae) { check_vae("vae_tiny.safetensors"); }
TEST(model_vae_plain) { check_vae("vae_plain_tiny.safetensors"); }
TEST(model_clip) { check_clip("clip_tiny.safetensors"); }
TEST(model_clip_projection) { check_clip("clip_proj_tiny.safetensors"); }
TEST(model_mmdit_sd3) { check_mmdit("mmdit_tiny.safetensors"); }
TEST(model_mmdit_sd35) { check_mmdit("mmdit_sd35_tiny.safetensors"); }
