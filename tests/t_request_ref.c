/* Whole requests against the loops of diffusers' pipelines (tools/fixtures/make_requests.py, computed in double) on tiny
 * random models, from given token ids and noise, with guidance: noise levels, what the model sees, the guided output and the
 * latents of every step, at last the picture. Everything goes through the rooms that draw pictures: src/model, src/sample. */
#include "cpu/cpu.h"
#include "model/model.h"
#include "reference.h"
#include "sample/guidance.h"
#include "sample/param.h"
#include "sample/sampler.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { STEPS = 4, MOST = 1024 };

/* One scheduler of the reference, in sumi's words. */
typedef struct scheduler {
    const char *name, *sampler;
    const char *schedule;  /* NULL: diffusers' "leading" timesteps of DPM-Solver, (STEPS - i) T / (STEPS + 1) + 1 */
    bool scaled;           /* its latents are c_in x, variance preserving */
    bool to_first_level;   /* the last step ends at the lowest trained level, not at 0 (set_alpha_to_one false) */
    bool whole_timesteps;  /* the model sees rounded timesteps */
} scheduler;

/* A recorded model with its file. */
typedef struct model {
    reference f;
    sm_graph *g;
    nn_scope s;            /* the file's w.* */
    sm_node *in[4], *out;
    sm_plan *p;
} model;

typedef struct request {
    reference f;           /* in.*, out.* */
    const scheduler *how;
    const char *backend;
    model *den;
    sm_noise noise;
    sm_pred pred;
    sm_guidance guide;
    double sigmas[STEPS + 1];
    int64_t n;             /* floats of the latent */
    int step;              /* denoiser calls so far */
} request;

/* ---- models ------------------------------------------------------------------------------------------------------ */

static bool model_open(model *m, const char *file, sm_model_kind kind, void *config)
{
    *m = (model){0};
    if (!reference_open(&m->f, file) || !reference_config(&m->f, kind, config))
        return false;
    m->g = sm_graph_new(&m->f.mem, &m->f.err);
    if (m->g) {
        nn_scope root = nn_root(m->g, m->f.w, NULL);
        m->s = nn_sub(&root, "w");
    }
    return m->g != NULL;
}

static bool model_plan(model *m, sm_node *out, const sm_backend *be)
{
    m->out = out;
    m->p = sm_plan_new(m->g, 1, &out, be, &m->f.err);
    CHECKF(m->p != NULL, "%s: %s", m->f.name, m->f.err.msg);
    return m->p != NULL;
}

/* The result; NULL after a failed check. */
static float *model_run(model *m)
{
    bool ok = !sm_plan_run(m->p, NULL, NULL, &m->f.err);
    CHECKF(ok, "%s: %s", m->f.name, m->f.err.msg);
    return ok ? sm_plan_data(m->p, m->out) : NULL;
}

static void model_close(model *m)
{
    sm_plan_free(m->p);
    sm_graph_free(m->g);
    reference_close(&m->f);
}

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

/* Compares with out.SCHEDULER.WHAT, or out.SCHEDULER.WHAT.STEP for step >= 0, to 1e-4 rms (the reference
 * itself loses up to 1.4e-5 of it in float32, sumi up to 2.8e-5). */
static void compare(const request *r, const char *what, int step, const float *x, int64_t n)
{
    char name[96];
    if (step < 0)
        snprintf(name, sizeof name, "out.%s.%s", r->how->name, what);
    else
        snprintf(name, sizeof name, "out.%s.%s.%d", r->how->name, what, step);
    reference_near(&r->f, name, x, n, 1e-4, r->backend);
}

/* y is x, at noise level sigma, in the reference's coordinates. */
static void rescale(const request *r, const float *x, double sigma, float *y)
{
    double scale = r->how->scaled ? 1 / sqrt(1 + sigma * sigma) : 1;
    for (int64_t i = 0; i < r->n; i++)
        y[i] = (float)(scale * x[i]);
}

static void compare_x(const request *r, const char *what, int step, const float *x, double sigma)
{
    float y[MOST];
    rescale(r, x, sigma, y);
    compare(r, what, step, y, r->n);
}

static sumi_status denoise(void *ctx, const float *x, double sigma, float *x0, sm_err *e)
{
    request *r = ctx;
    sm_precond pc;
    if (sm_precond_at(&r->noise, r->pred, sigma, &pc, e))
        return e->code;
    float *in = sm_plan_data(r->den->p, r->den->in[0]), *t = sm_plan_data(r->den->p, r->den->in[1]);
    const sm_weight *times = reference_find(&r->f, "out.%s.timesteps", r->how->name);
    t[0] = t[1] = (float)(r->how->whole_timesteps ? round(pc.t) : pc.t);
    if (times)
        CHECKF(fabs(t[0] - ((const float *)times->t.data)[r->step]) <= 2e-3, "%s, step %d: timestep %.5g", r->how->name, r->step,
               t[0]);
    sm_precond_in(&pc, x, in, r->n);
    memcpy(in + r->n, in, sizeof *in * (size_t)r->n);
    compare(r, "model_in", r->step, in, r->n);
    float *out = model_run(r->den);
    if (!out)
        return SUMI_E_INTERNAL;
    const float *cond = out + r->n; /* row 0 is the negative prompt's */
    float guided[MOST], room[3 * MOST];
    sm_guidance_step s = sm_guidance_at(&r->guide, sigma, pc.t, 0, 0);
    sm_guided g = {.cond = &cond,
                   .weight = (double[]){1},
                   .parts = 1,
                   .uncond = out,
                   .x = x,
                   .pc = &(sm_precond){.c_out = 1},
                   .n = r->n,
                   .channels = 4};
    sm_guidance_combine(&r->guide, &s, &g, guided, room);
    compare(r, "guided", r->step++, guided, r->n);
    sm_precond_out(&pc, x, guided, x0, r->n);
    return SUMI_OK;
}

static bool on_step(void *ctx, int step, double sigma, const float *x, const float *x0)
{
    if (step > 0)
        compare_x(ctx, "latent", step - 1, x, sigma);
    return true;
}

/* diffusers adds betas up in float, which is 2e-5 of the lowest level. */
static bool fill_sigmas(request *r)
{
    sm_err e = {0};
    if (r->how->schedule)
        CHECKF(!sm_schedule_fill(sm_schedule_find(r->how->schedule), &r->noise, STEPS, r->sigmas, &e), "%s", e.msg);
    for (int i = 0; i < STEPS && !r->how->schedule; i++)
        r->sigmas[i] = sm_noise_sigma(&r->noise, (STEPS - i) * (r->noise.steps / (STEPS + 1)) + 1);
    r->sigmas[STEPS] = r->how->to_first_level ? sm_noise_min(&r->noise) : 0;
    const sm_weight *want = r->how->to_first_level ? NULL : reference_find(&r->f, "out.%s.sigmas", r->how->name);
    for (int i = 0; want && i <= STEPS; i++) {
        double s = ((const float *)want->t.data)[i];
        CHECKF(fabs(r->sigmas[i] - s) <= 1e-4 * s, "%s: noise level %d is %.7g, not %.7g", r->how->name, i, r->sigmas[i], s);
    }
    return !e.code;
}

/* Samples into x, which has room for MOST floats: the last latents in the reference's coordinates. */
static void sample(request *r, float *x)
{
    sm_err e = {0};
    r->step = 0;
    if (!fill_sigmas(r))
        return;
    reference_copy(&r->f, "in.noise", x, r->n);
    double scale = r->noise.flow ? r->sigmas[0] : sqrt(1 + r->sigmas[0] * r->sigmas[0]);
    for (int64_t i = 0; i < r->n; i++)
        x[i] = (float)(scale * x[i]);
    compare_x(r, "start", -1, x, r->sigmas[0]);
    sm_sampling s = {.mem = &r->f.mem, .n = r->n, .flow = r->noise.flow, .sigmas = r->sigmas, .steps = STEPS, .eta = 0,
                     .denoise = denoise,
                     .on_step = on_step, .ctx = r};
    CHECKF(!sm_sample(sm_sampler_find(r->how->sampler), &s, x, &e), "%s: %s", r->how->name, e.msg);
    rescale(r, x, r->sigmas[STEPS], x);
    compare(r, "latent", STEPS - 1, x, r->n);
    CHECKF(r->step == STEPS, "%s: %d denoiser calls", r->how->name, r->step);
}

static sm_node *input_like(model *m, int i, const reference *f, const char *name)
{
    const sm_weight *w = reference_find(f, "in.%s", name);
    return m->in[i] = w ? sm_input(m->g, name, w->t.dtype, w->t.rank, w->t.dims) : m->g->poison;
}

/* The latent twice, for both prompts, and their timesteps. */
static void latent_inputs(request *r, model *m)
{
    const sm_weight *w = reference_find(&r->f, "in.noise");
    int64_t two = 2, dims[4] = {2};
    for (int i = 1; w && i < 4; i++)
        dims[i] = w->t.dims[i];
    r->n = w ? (int64_t)(w->bytes / sizeof(float)) : 0;
    CHECK(r->n > 0 && r->n <= MOST);
    m->in[0] = sm_input(m->g, "sample", SM_F32, 4, dims);
    m->in[1] = sm_input(m->g, "timestep", SM_F32, 1, &two);
}

/* ---- Stable Diffusion 3: MMDiT, flow Euler, shift 3, CFG 4 -------------------------------------------------------- */

static void run_flow(const sm_backend *be)
{
    static const scheduler how = {.name = "flow", .sampler = "euler", .schedule = "normal"};
    model m = {0};
    sm_mmdit_config c;
    request r = {.how = &how, .backend = be->name, .den = &m, .pred = SM_PRED_FLOW, .guide = {.scale = 4}};
    float x[MOST] = {0};
    if (reference_open(&r.f, "request_flow_tiny.safetensors") && model_open(&m, "mmdit_tiny.safetensors", SM_MODEL_MMDIT, &c) &&
        !sm_noise_flow(&r.noise, 1000, 3, &r.f.err)) {
        latent_inputs(&r, &m);
        sm_node *ctx = input_like(&m, 2, &r.f, "encoder_hidden_states"), *pooled = input_like(&m, 3, &r.f, "pooled_projections");
        if (model_plan(&m, sm_mmdit(&m.s, &c, m.in[0], m.in[1], ctx, pooled), be)) {
            reference_copy(&r.f, "in.encoder_hidden_states", sm_plan_data(m.p, ctx), sm_numel(ctx));
            reference_copy(&r.f, "in.pooled_projections", sm_plan_data(m.p, pooled), sm_numel(pooled));
            sample(&r, x);
        }
    }
    model_close(&m);
    sm_noise_free(&r.noise);
    reference_close(&r.f);
}

/* ---- Stable Diffusion 1.x: CLIP, UNet, autoencoder, CFG 7.5 ------------------------------------------------------- */

typedef struct sd15 {
    model text, unet, vae;
    sm_unet_config c;
    sm_vae_config vc;
} sd15;

static void plan_text(sd15 *m, request *r, const sm_backend *be)
{
    sm_clip_config c;
    if (!model_open(&m->text, "clip_tiny.safetensors", SM_MODEL_CLIP, &c))
        return;
    sm_node *ids = input_like(&m->text, 0, &r->f, "input_ids");
    model_plan(&m->text, sm_clip_text(&m->text.s, &c, ids, NULL).last, be);
}

static void plan_unet(sd15 *m, request *r, const sm_backend *be)
{
    if (!m->text.p || !model_open(&m->unet, "unet_sd15_tiny.safetensors", SM_MODEL_UNET, &m->c))
        return;
    latent_inputs(r, &m->unet);
    m->unet.in[2] = sm_input(m->unet.g, "context", SM_F32, m->text.out->rank, m->text.out->dims);
    model_plan(&m->unet, sm_unet(&m->unet.s, &m->c, m->unet.in[0], m->unet.in[1], m->unet.in[2], NULL), be);
}

static void plan_vae(sd15 *m, const sm_backend *be)
{
    if (!m->unet.p || !model_open(&m->vae, "vae_tiny.safetensors", SM_MODEL_VAE, &m->vc))
        return;
    int64_t dims[4] = {1, m->unet.in[0]->dims[1], m->unet.in[0]->dims[2], m->unet.in[0]->dims[3]};
    m->vae.in[0] = sm_input(m->vae.g, "latents", SM_F32, 4, dims);
    sm_node *z = sm_affine(m->vae.in[0], 1 / m->vc.scaling_factor, m->vc.shift_factor);
    model_plan(&m->vae, sm_vae_decode(&m->vae.s, &m->vc, z), be);
}

static void encode(sd15 *m, const request *r)
{
    const sm_node *ids = m->text.in[0], *ctx = m->unet.in[2];
    const sm_weight *from = reference_find(&r->f, "in.input_ids");
    if (from)
        memcpy(sm_plan_data(m->text.p, ids), from->t.data, from->bytes);
    const float *out = model_run(&m->text);
    if (!out)
        return;
    reference_near(&r->f, "out.context", out, sm_numel(m->text.out), 1e-4, r->backend);
    memcpy(sm_plan_data(m->unet.p, ctx), out, sizeof *out * (size_t)sm_numel(ctx));
}

static void run_sd15(const sm_backend *be, const scheduler *how)
{
    sd15 m = {0};
    request r = {.how = how, .backend = be->name, .den = &m.unet, .pred = SM_PRED_EPS, .guide = {.scale = 7.5}};
    float x[MOST] = {0};
    if (reference_open(&r.f, "request_sd15_tiny.safetensors") &&
        !sm_noise_vp(&r.noise, &r.f.mem, SM_BETA_SCALED_LINEAR, 1000, 0.00085, 0.012, &r.f.err)) {
        plan_text(&m, &r, be);
        plan_unet(&m, &r, be);
        plan_vae(&m, be);
    }
    if (m.vae.p) {
        encode(&m, &r);
        sample(&r, x);
        memcpy(sm_plan_data(m.vae.p, m.vae.in[0]), x, sizeof *x * (size_t)r.n);
        const float *image = model_run(&m.vae);
        if (image)
            compare(&r, "image", -1, image, sm_numel(m.vae.out));
    }
    model_close(&m.text);
    model_close(&m.unet);
    model_close(&m.vae);
    sm_noise_free(&r.noise);
    reference_close(&r.f);
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

static void check_sd15(const scheduler *how)
{
    const sm_backend *be[4];
    int n = sm_cpu_backends(be);
    for (int b = 0; b < n; b++)
        run_sd15(be[b], how);
}

TEST(request_ref_flow)
{
    const sm_backend *be[4];
    int n = sm_cpu_backends(be);
    for (int b = 0; b < n; b++)
        run_flow(be[b]);
}

TEST(request_ref_sd15_euler)
{
    check_sd15(&(scheduler){.name = "euler", .sampler = "euler", .schedule = "ddim_uniform"});
}

TEST(request_ref_sd15_ddim)
{
    check_sd15(&(scheduler){.name = "ddim", .sampler = "ddim", .schedule = "ddim_uniform", .scaled = true,
                            .to_first_level = true});
}

TEST(request_ref_sd15_dpmpp_2m) { check_sd15(&(scheduler){.name = "dpmpp_2m", .sampler = "dpmpp_2m", .scaled = true}); }

TEST(request_ref_sd15_dpmpp_2m_karras)
{
    check_sd15(&(scheduler){.name = "dpmpp_2m_karras", .sampler = "dpmpp_2m", .schedule = "karras", .scaled = true,
                            .whole_timesteps = true});
}
