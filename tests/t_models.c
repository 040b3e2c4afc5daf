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

enum { WANTED = 128, PARAMS = 600 };

/* A recorded model with what is to be compared. */
typedef struct run {
    fixture *f;
    sm_graph *g;
    nn_scope s;           /* scope "w" */
    int inputs, count;
    sm_node *in[8];
    const sm_weight *in_data[8];
    sm_node *node[WANTED];
    const sm_weight *want[WANTED];
} run;

/* Reads the config, records on the fixture's inputs, says which out.* to expect; returns a node that depends on every weight. */
typedef sm_node *record_fn(run *r);

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
    bool ok = w && n && sm_numel(n) == (int64_t)(w->bytes / 4) && r->count < WANTED;
    CHECKF(ok, "%s: %s is missing or has another size in the %s", r->f->name, name, w ? "recording" : "fixture");
    if (ok) {
        r->node[r->count] = n;
        r->want[r->count++] = w;
    }
}

static bool config(run *r, sm_model_kind kind, void *c)
{
    return sm_config_read(kind, r->f->config, strlen(r->f->config), c, &r->f->err) == SUMI_OK;
}

/* ---- the four kinds ------------------------------------------------------------------------------------------------ */

static sm_node *record_unet(run *r)
{
    sm_unet_config c;
    if (!config(r, SM_MODEL_UNET, &c))
        return r->g->poison;
    sm_node *x = input(r, "in.sample"), *t = input(r, "in.timestep"), *ctx = input(r, "in.encoder_hidden_states");
    sm_unet_cond cond = {0};
    if (c.text_time) {
        cond.text_embeds = input(r, "in.text_embeds");
        cond.time_ids = input(r, "in.time_ids");
    }
    if (c.time_cond_proj_dim)
        cond.timestep_cond = input(r, "in.timestep_cond");
    sm_node *y = sm_unet(&r->s, &c, x, t, ctx, &cond);
    want(r, "out.sample", y);
    return y;
}

static sm_node *record_vae(run *r)
{
    sm_vae_config c;
    if (!config(r, SM_MODEL_VAE, &c))
        return r->g->poison;
    sm_node *moments = sm_vae_encode(&r->s, &c, input(r, "in.image"));
    sm_node *image = sm_vae_decode(&r->s, &c, input(r, "in.latent"));
    want(r, "out.mean", sm_slice(moments, -1, 0, c.latent_channels));
    want(r, "out.logvar", sm_slice(moments, -1, c.latent_channels, c.latent_channels));
    want(r, "out.image", image);
    return sm_concat2(SM_RESHAPE(moments, sm_numel(moments)), SM_RESHAPE(image, sm_numel(image)), 0);
}

static sm_node *record_clip(run *r)
{
    sm_clip_config c;
    sm_node *ids = input(r, "in.input_ids");
    int64_t n = ids->dims[0], t = ids->dims[1];
    int32_t rows[16] = {0};
    if (!config(r, SM_MODEL_CLIP, &c) || n > 16 || sm_poisoned(ids))
        return r->g->poison;
    sm_clip_eos_rows(&c, r->in_data[0]->t.data, (int)n, (int)t, rows);
    sm_clip_out o = sm_clip_text(&r->s, &c, ids, sm_const(r->g, SM_I32, 1, &n, rows));
    for (int i = 0; i <= o.layers; i++) {
        char hidden[64];
        snprintf(hidden, sizeof hidden, "out.hidden_states.%d", i);
        want(r, hidden, o.hidden[i]);
    }
    want(r, "out.last_hidden_state", o.last);
    want(r, o.projected ? "out.text_embeds" : "out.pooler_output", o.projected ? o.projected : o.pooled);
    return o.projected ? o.projected : o.pooled;
}

static sm_node *record_mmdit(run *r)
{
    sm_mmdit_config c;
    if (!config(r, SM_MODEL_MMDIT, &c))
        return r->g->poison;
    sm_node *x = input(r, "in.sample"), *t = input(r, "in.timestep"), *ctx = input(r, "in.encoder_hidden_states");
    sm_node *y = sm_mmdit(&r->s, &c, x, t, ctx, input(r, "in.pooled_projections"));
    want(r, "out.sample", y);
    return y;
}

/* Opens the fixture and records it on weights that weights_of picks. NULL after a failure, which is reported. */
static sm_node *run_open(run *r, fixture *f, const char *name, record_fn *record, sm_weights *(*weights_of)(fixture *))
{
    *r = (run){.f = f};
    if (!fixture_open(f, name))
        return NULL;
    sm_weights *w = weights_of(f);
    r->g = w ? sm_graph_new(&f->mem, &f->err) : NULL;
    if (!r->g)
        return NULL;
    nn_scope root = nn_root(r->g, w, NULL);
    r->s = nn_sub(&root, "w");
    sm_node *y = record(r);
    CHECKF(!r->g->err.code && !f->err.code, "%s: %s%s", name, r->g->err.msg, f->err.msg);
    return sm_poisoned(y) || r->g->err.code ? NULL : y;
}

static void run_close(run *r)
{
    CHECKF(!r->f->err.code, "%s: %s", r->f->name, r->f->err.msg);
    sm_graph_free(r->g);
    fixture_close(r->f);
}

static void put_inputs(const run *r, const sm_plan *p)
{
    for (int i = 0; i < r->inputs; i++)
        if (sm_plan_data(p, r->in[i]))
            memcpy(sm_plan_data(p, r->in[i]), r->in_data[i]->t.data, r->in_data[i]->bytes);
}

/* ---- values -------------------------------------------------------------------------------------------------------- */

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

static sm_weights *as_stored(fixture *f) { return f->w; }

static void check_values(const char *name, record_fn *record)
{
    fixture f;
    run r;
    const sm_backend *be[4];
    int n = run_open(&r, &f, name, record, as_stored) ? sm_cpu_backends(be) : 0;
    want_taps(&r);
    for (int b = 0; b < n; b++) {
        sm_plan *p = sm_plan_new(r.g, r.count, r.node, be[b], &f.err);
        if (p) {
            put_inputs(&r, p);
            CHECK(sm_plan_run(p, NULL, NULL, &f.err) == SUMI_OK);
            compare(&r, p, be[b]->name);
        }
        sm_plan_free(p);
    }
    run_close(&r);
}

/* ---- gradients ----------------------------------------------------------------------------------------------------- */

/* Copies of the fixture's w.* as trainable tensors of the same names; the fixture's table keeps them alive. */
static void drop(void *w) { sm_weights_unref(&(sm_weights *){w}); }

static sm_weights *trainable(fixture *f)
{
    sm_weights *w = sm_weights_new(&f->mem, &f->err);
    if (!w || sm_weights_keep(f->w, drop, w, &f->err) != SUMI_OK)
        return NULL;
    for (size_t i = 0; i < sm_weights_count(f->w); i++) {
        const sm_weight *from = sm_weights_at(f->w, i);
        if (strncmp(from->name, "w.", 2))
            continue;
        sm_weight *to = sm_weights_create(w, from->name, from->t.rank, from->t.dims, &f->err);
        if (!to)
            return NULL;
        memcpy(to->t.data, from->t.data, from->bytes);
        to->mutable_data = !strstr(from->name, "pos_embed.pos_embed");
    }
    return w;
}

/* Whether a tensor has no influence: a bias of keys shifts all scores of a query alike; the last joint block does not ask
 * for the text's output. */
static bool idle(const char *name)
{
    return strstr(name, "k_proj.bias") || strstr(name, "to_k.bias") || strstr(name, "add_q_proj") || strstr(name, "norm_added_q");
}

/* Adds scale * gradient to every parameter. */
static void move(int n, sm_node *const *params, float *const *grads, double scale)
{
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < sm_numel(params[i]); k++)
            ((float *)(uintptr_t)params[i]->data)[k] += (float)(scale * (double)grads[i][k]);
}

/* Moves all parameters along the gradient: the loss changes by step * |gradient|^2 (central difference). out[0] is the loss. */
static void check_slope(run *r, sm_plan *p, int n, sm_node *const *params, sm_node *const *out)
{
    float *grads[PARAMS] = {0};
    double norm = 0, loss[2] = {0};
    CHECK(sm_plan_run(p, NULL, NULL, &r->f->err) == SUMI_OK);
    for (int i = 0; i < n; i++) {
        int64_t count = sm_numel(params[i]);
        grads[i] = sm_alloc(NULL, SM_MEM_MISC, (size_t)count * sizeof(float));
        memcpy(grads[i], sm_plan_data(p, out[i + 1]), (size_t)count * sizeof(float));
        double rms = test_rms(grads[i], count);
        CHECKF(rms > 0 || idle(params[i]->name), "%s: no gradient reaches %s", r->f->name, params[i]->name);
        norm += rms * rms * (double)count;
    }
    /* far enough that f32 sums do not drown the difference, near enough that the third derivative does not show (it does at
     * 2e-3 in models whose norms have few pixels) */
    double step = 1e-4 / sqrt(norm);
    for (int side = 0; side < 2; side++) {
        move(n, params, grads, side ? -2 * step : step);
        CHECK(sm_plan_run(p, NULL, NULL, &r->f->err) == SUMI_OK);
        loss[side] = (double)*(float *)sm_plan_data(p, out[0]);
    }
    double slope = (loss[0] - loss[1]) / (2 * step);
    CHECKF(fabs(slope - norm) <= 0.01 * norm, "%s: slope %.6g, squared gradient %.6g", r->f->name, slope, norm);
    for (int i = 0; i < n; i++)
        sm_free(grads[i]);
}

/* The loss is a sum of the outputs with random weights in -1..1. */
static void check_gradient(const char *name, record_fn *record)
{
    fixture f;
    run r;
    float weight[4096];
    sm_node *params[PARAMS], *out[PARAMS + 1], *y = run_open(&r, &f, name, record, trainable);
    int n = 0;
    for (int i = 0; y && i < r.g->count && n < PARAMS; i++)
        if (r.g->nodes[i]->op == SM_OP_PARAM && r.g->nodes[i]->mutable_data)
            params[n++] = r.g->nodes[i];
    if (y && n && sm_numel(y) <= 4096) {
        int64_t count = sm_numel(y);
        test_fill(weight, count, 5, -1, 1);
        out[0] = sm_sum_all(sm_mul(SM_RESHAPE(y, count), sm_const(r.g, SM_F32, 1, &count, weight)));
        CHECK(sm_grad(out[0], n, params, out + 1));
        sm_plan *p = sm_plan_new(r.g, n + 1, out, sm_cpu_backend("", &f.err), &f.err);
        if (p) {
            put_inputs(&r, p);
            check_slope(&r, p, n, params, out);
        }
        sm_plan_free(p);
    }
    CHECKF(n > 20, "%s: %d trainable tensors", name, n);
    run_close(&r);
}

#define MODEL_TESTS(NAME, KIND)                                                  \
    TEST(model_##NAME) { check_values(#NAME "_tiny.safetensors", record_##KIND); } \
    TEST(model_gradient_##NAME) { check_gradient(#NAME "_tiny.safetensors", record_##KIND); }

MODEL_TESTS(unet_sd15, unet)
MODEL_TESTS(unet_sd2, unet)
MODEL_TESTS(unet_sdxl, unet)
MODEL_TESTS(unet_ssd, unet)
MODEL_TESTS(unet_refiner, unet)
MODEL_TESTS(unet_lcm, unet)
MODEL_TESTS(unet_odd, unet)

/* Angles are up to 7500, half an f32 place of which is 2.5e-4. */
TEST(model_unet_lcm_guidance)
{
    fixture f;
    float out[13];
    const sm_weight *w = fixture_open(&f, "unet_lcm_tiny.safetensors") ? sm_weights_find(f.w, "in.timestep_cond") : NULL;
    CHECK(w && w->t.rank == 2 && w->t.dims[1] == 12);
    for (int i = 0; i < 2 && w; i++) {
        out[12] = 5;
        sm_unet_guidance(i ? 2 : 8.5f, 12, out);
        double d = test_maxdiff(out, (const float *)w->t.data + 12 * i, 12);
        CHECKF(d <= (i ? 1e-4 : 7e-4), "differs by %g", d);
        CHECK(out[12] == 5);
    }
    sm_unet_guidance(3, 13, out);
    CHECK(out[12] == 0 && out[6] == (float)cos(2000) && out[0] == (float)sin(2000));
    fixture_close(&f);
}
MODEL_TESTS(vae, vae)
MODEL_TESTS(vae_plain, vae)
MODEL_TESTS(clip, clip)
MODEL_TESTS(clip_proj, clip)
MODEL_TESTS(mmdit, mmdit)
MODEL_TESTS(mmdit_sd35, mmdit)
