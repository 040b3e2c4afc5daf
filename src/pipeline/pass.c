/* One pass of a request (see pass.h): levels, start, the sampler over the guided denoiser, masks. */
#include "pipeline/pass.h"

#include <string.h>

#include "pipeline/levels.h"

/* Pictures that are edited from others are sampled behind them, with the same noise (p2p.h). */
static int lanes(const sm_pass *p) { return sm_p2p_wanted(&p->j.r) ? 2 : 1; }
static int64_t latents(const sm_pass *p) { return (int64_t)p->n * p->h * p->w * p->c; }

static void share(const sm_pass *p, float *x)
{
    if (lanes(p) > 1)
        memcpy(x + latents(p), x, sizeof *x * (size_t)latents(p));
}

/* ---- what the sampler calls ---------------------------------------------------------------------------------------- */

static sumi_status denoise_both(void *ctx, const float *x, double sigma, float *x0, float *uncond, sm_err *e)
{
    sm_pass *p = ctx;
    if (!p->refine.on && sm_refine_due(&p->refine, &p->den.noise, sigma) &&
        sm_refine_take(&p->refine, &p->den, p->first, p->n, p->earlier, e))
        return e->code;
    if (sm_denoise_run(p->refine.on ? &p->refine.den : &p->den, x, sigma, x0, uncond, e))
        return e->code;
    ++*p->done;
    for (int k = 0; p->edit.mask && !p->j.edit->diffusers && k < lanes(p); k++) {
        sm_edit_keep(&p->edit, p->n, x0 + k * latents(p));
        if (uncond)
            sm_edit_keep(&p->edit, p->n, uncond + k * latents(p));
    }
    return SUMI_OK;
}

static sumi_status denoise(void *ctx, const float *x, double sigma, float *x0, sm_err *e)
{
    return denoise_both(ctx, x, sigma, x0, NULL, e);
}

static sumi_status step_noise(void *ctx, int draw, double from, double to, float *out, sm_err *e)
{
    sm_randn *r = &((sm_pass *)ctx)->randn;
    if (r->paths)
        sm_randn_step(r, from, to, out);
    else
        sm_randn_draw(r, draw, out);
    share(ctx, out);
    return SUMI_OK;
}

static void between(void *ctx, int step, double sigma, float *x)
{
    sm_pass *p = ctx;
    int passed = (int)(sm_guidance_position(p->sigmas, p->j.r.steps, sigma) + 1e-4); /* DPM fast takes several at a time */
    if (p->den.p2p)
        sm_p2p_blend(p->den.p2p, SM_MAX(step, passed) - 1, p->c, x);
    for (int k = 0; p->edit.mask && p->j.edit->diffusers && k < lanes(p); k++)
        if (p->inverse.way)
            sm_edit_keep_from(&p->edit, sm_inversion_at(&p->inverse, step), p->n, x + k * latents(p));
        else
            sm_edit_keep_noisy(&p->edit, p->den.noise.flow, sigma, p->n, x + k * latents(p));
}

static void tell(const sm_pass *p, const char *stage)
{
    double each = (sm_now() - p->j.started) / (double)SM_MAX(*p->done, 1);
    sm_job_tell(&p->j, stage, *p->done, p->all, each * (double)(p->all - *p->done));
}

static void on_inverse_call(void *told) { ++*((sm_pass *)told)->done; }
static void on_inverse_step(void *told) { tell(told, "invert"); }

static bool on_step(void *ctx, int step, double sigma, const float *x, const float *x0)
{
    sm_pass *p = ctx;
    sm_err why = {0};
    tell(p, "sample");
    sm_step_cache_turn(p->refine.on ? &p->refine.den.cache : &p->den.cache);
    sm_kept_put(&p->kept, step, p->first, p->n, x);
    return sm_decode_preview(&p->dec, x0, p->first, p->n, step, &why) != SUMI_E_CANCELLED; /* one that fails otherwise is none */
}

/* ---- a round ------------------------------------------------------------------------------------------------------- */

static sumi_status start(sm_pass *p, sm_err *e)
{
    int64_t each = (int64_t)p->h * p->w * p->c;
    sm_randn_start_of(&p->randn, &p->j.r, p->first, p->n);
    sm_edit_before(&p->edit, &p->randn, (uint64_t)sm_seed_of(&p->j.r, p->first), p->n, p->stretch.noise);
    if (p->inverse.j.m)
        sm_inversion_run(&p->inverse, p->first, p->n, p->edit.init, p->latents, e);
    else if (p->given) /* a generator of torch's then goes on with what comes next, as in diffusers */
        memcpy(p->latents, p->given + p->first * each, sizeof(float) * (size_t)(p->n * each));
    else
        sm_randn_draw(&p->randn, -1, p->latents);
    sm_edit_after(&p->edit, &p->randn, p->latents, p->n);
    if (p->edit.init && !p->stretch.noise && !p->inverse.j.m)
        sm_noise_mix(p->den.noise.flow, p->sigmas[0], p->edit.init, p->latents, p->latents, p->n * each);
    else
        for (int64_t i = 0; i < p->n * each; i++)
            p->latents[i] = (float)(p->sigmas[0] * p->latents[i]);
    share(p, p->latents);
    return e->code;
}

static sumi_status sample(sm_pass *p, sm_err *e)
{
    const sm_job *j = &p->j;
    bool blends = (p->edit.mask && j->edit->diffusers) || (p->den.p2p && p->den.p2p->blends);
    sm_sampling s = {.mem = j->mem, .n = lanes(p) * latents(p), .flow = p->den.noise.flow, .levels = &p->den.noise,
                     .sigmas = p->sigmas,
                     .steps = j->r.steps, .denoise = denoise, .denoise_both = denoise_both,
                     .noise = step_noise, .on_step = on_step, .between = blends ? between : NULL, .ctx = p};
    sm_levels_knobs(&j->r, &s);
    if (sm_sample(sm_sampler_find(j->r.sampler), &s, p->latents, e))
        return e->code;
    if (p->den.p2p)
        sm_p2p_blend(p->den.p2p, j->r.steps - 1, p->c, p->latents);
    if (p->edit.mask)
        sm_edit_keep(&p->edit, p->n, p->latents);
    sm_kept_put(&p->kept, j->r.steps, p->first, p->n, p->latents);
    return SUMI_OK;
}

sumi_status sm_pass_run(sm_pass *p, int first, int n, sm_err *e)
{
    const sm_job *j = &p->j;
    p->first = first;
    p->n = n;
    p->den.evals = 0;
    if (!first || j->prompts || lanes(p) > 1) { /* else all pictures have the same texts */
        sm_text_close(&p->text);
        if (sm_text_open(&p->text, j, first, n, p->earlier, e) || sm_text_encode(&p->text, j, e))
            return e->code;
    }
    if (!sm_inversion_texts(&p->inverse, first, n, e) && !start(p, e) && !sm_denoise_open(&p->den, n, &p->text, e)) {
        p->den.beside = p->edit.beside;
        p->den.beside_step = (int64_t)p->h * p->w * p->edit.extra;
        sample(p, e);
    }
    sm_denoise_done(&p->den);
    sm_refine_done(&p->refine);
    sm_job_release(j, j->m->family->component);
    return e->code;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------- */

static sumi_status read_given(sm_pass *p, sm_err *e)
{
    const sm_job *j = &p->j;
    if (!j->r.init_latents[0])
        return SUMI_OK;
    p->given = sm_alloc(j->mem, SM_MEM_DATA, sizeof(float) * (size_t)j->r.count * (size_t)p->h * (size_t)p->w * (size_t)p->c);
    return p->given ? sm_latents_read(j, p->h, p->w, p->c, p->given, e)
                    : sm_fail(e, SUMI_E_MEMORY, "out of memory for --init-latents");
}

static sumi_status open_levels(sm_pass *p, sm_err *e)
{
    const sm_job *j = &p->j;
    int steps = 0;
    p->levels = sm_alloc(j->mem, SM_MEM_MISC, sizeof *p->levels * (size_t)(p->stretch.all + 2));
    if (!p->levels)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for %d steps", p->stretch.all);
    if (sm_levels_fill(&p->den.noise, j->m, &j->r, p->stretch.all, p->levels, &steps, e))
        return e->code;
    p->stretch.all = steps; /* levels that coincide are visited once */
    p->stretch.run = p->j.r.steps = SM_MIN(p->stretch.run, steps);
    p->sigmas = p->levels + (steps - p->stretch.run);
    return SUMI_OK;
}

/* Between the ends of the whole schedule, also where only its last part is run (as in A1111). */
static sumi_status open_paths(sm_pass *p, sm_err *e)
{
    const double *s = p->levels, last = s[p->stretch.all];
    if (!sm_sampler_find(p->j.r.sampler)->brownian)
        return SUMI_OK;
    return sm_randn_open_paths(&p->randn, p->j.mem, last > 0 ? last : s[p->stretch.all - 1], s[0], e);
}

sumi_status sm_pass_open(sm_pass *p, const sm_job *j, int width, int height, sm_stretch s, int most, bool keep,
                         int64_t *done, sm_err *e)
{
    int f = sm_vae_factor(&j->m->vae);
    *p = (sm_pass){.j = *j, .h = height / f, .w = width / f, .c = j->m->vae.latent_channels, .most = most,
                   .stretch = s, .done = done};
    p->j.r.width = width;
    p->j.r.height = height;
    p->j.prompt_steps = s.all == j->r.steps ? s.all : s.run; /* as asked for, in A1111's both ways of counting */
    p->j.r.steps = s.run;
    if (!keep)
        p->j.r.save_latents = "";
    p->latents = sm_alloc(j->mem, SM_MEM_MISC,
                          sizeof(float) * (size_t)(most * lanes(p)) * (size_t)p->h * (size_t)p->w * (size_t)p->c);
    if (!p->latents)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for %d pictures of %dx%d", most, width, height);
    if (sm_denoise_init(&p->den, &p->j, p->h, p->w, e) || open_levels(p, e) || sm_decode_init(&p->dec, &p->j, p->h, p->w, e) ||
        sm_kept_open(&p->kept, &p->j, "save-latents", p->h, p->w, p->c, e) ||
        sm_randn_open(&p->randn, j->mem, j->r.rng, most, p->h, p->w, p->c, e) || sm_randn_vary(&p->randn, j->mem, &p->j.r, f, e))
        return e->code;
    if (keep && sm_refine_open(&p->refine, &p->j, p->h, p->w, e))
        return e->code;
    p->den.sigmas = p->sigmas;
    p->den.steps = p->stretch.run;
    if (sm_inversion_open(&p->inverse, &p->j, p->h, p->w, p->c, most, p->sigmas, p->stretch.run, e))
        return e->code;
    p->inverse.told = p;
    p->inverse.call = on_inverse_call;
    p->inverse.tell = on_inverse_step;
    return open_paths(p, e) ? e->code : read_given(p, e);
}

void sm_pass_close(sm_pass *p)
{
    sm_free(p->levels);
    sm_free(p->latents);
    sm_free(p->given);
    sm_text_close(&p->text);
    sm_refine_close(&p->refine);
    sm_inversion_close(&p->inverse);
    sm_denoise_close(&p->den);
    sm_decode_close(&p->dec);
    sm_kept_close(&p->kept);
    sm_randn_close(&p->randn);
    sm_edit_latents_close(&p->edit);
}

int64_t sm_pass_evals(const sm_pass *p)
{
    int64_t drawn = sm_sampler_evals(sm_sampler_find(p->j.r.sampler), p->sigmas, p->j.r.steps);
    return drawn ? drawn + sm_inversion_evals(&p->inverse) : 0;
}
