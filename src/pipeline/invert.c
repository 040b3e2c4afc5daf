/* A request's inversion (see invert.h). */
#include "pipeline/invert.h"

#include <string.h>

#include "pipeline/edit.h"
#include "pipeline/levels.h"
#include "sample/invert.h"

/* ---- what goes together ---------------------------------------------------------------------------------------------- */

/* Samplers that do not visit the request's levels one after the other. */
static bool own_levels(const char *sampler)
{
    static const char *const names[] = {"dpm_adaptive", "dpm_fast", "restart"};
    const sm_sampler *s = sm_sampler_find(sampler);
    for (size_t i = 0; i < SM_COUNT(names); i++)
        if (!strcmp(s->name, names[i]))
            return true;
    return false;
}

sumi_status sm_inversion_check(const sm_job *j, sm_err *e)
{
    const sumi_request *r = &j->r;
    const sumi_model *m = j->m;
    if (!r->invert && r->save_inverted[0]) /* a file that somebody waits for */
        return sm_fail(e, SUMI_E_ARG, "--save-inverted: nothing is inverted without --invert 1");
    if (r->save_inverted[0] && !strcmp(r->save_inverted, r->save_latents))
        return sm_fail(e, SUMI_E_ARG, "--save-inverted: %.300s is --save-latents' file, too; two are needed", r->save_inverted);
    if (!r->invert)
        return SUMI_OK;
    if (!r->init_image[0])
        return sm_fail(e, SUMI_E_ARG, "--invert needs a picture: --init-image FILE");
    if (m->traits.extra != SM_EXTRA_NONE)
        return sm_fail(e, SUMI_E_ARG,
                       "--invert: %s looks at the picture beside the noise and needs no inversion of it; leave it out", m->name);
    if (r->init_latents[0])
        return sm_fail(e, SUMI_E_ARG, "--init-latents: --invert makes the start itself; leave one of them out");
    if (r->variation_strength > 0 || r->seed_resize_width) /* all pictures would be the same, or nothing changed */
        return sm_fail(e, SUMI_E_ARG,
                       "--%s: it changes the noise of the start, which --invert makes of the picture; leave one of them out",
                       r->seed_resize_width ? "seed-resize" : "variation-strength");
    if (r->refiner[0])
        return sm_fail(e, SUMI_E_ARG, "--refiner: --invert goes up with one model only; leave one of them out");
    if (r->invert_steps && r->sigmas[0])
        return sm_fail(e, SUMI_E_ARG, "--invert-steps: --sigmas lists the levels, which are the inversion's too");
    if (r->invert_steps && j->edit->diffusers && j->edit->mask)
        return sm_fail(e, SUMI_E_ARG,
                       "--invert-steps: masks by --edit-rules diffusers blend with the inversion at the levels of drawing");
    if (own_levels(r->sampler) && j->edit->diffusers && j->edit->mask)
        return sm_fail(e, SUMI_E_ARG,
                       "--sampler: %s goes by levels of its own, where the inversion has nothing for masks by --edit-rules "
                       "diffusers to "
                       "blend with; choose another, or --edit-rules a1111", r->sampler);
    if (!strcmp(r->masked_content, "latent noise") || !strcmp(r->masked_content, "latent nothing"))
        return sm_fail(e, SUMI_E_ARG, "--masked-content: %s leaves nothing under the mask to invert; original or fill",
                       r->masked_content);
    return SUMI_OK;
}

static bool draws_noise(const sumi_request *r)
{
    const sm_sampler *s = sm_sampler_find(r->sampler);
    return (s->stochastic && (r->eta < 0 ? s->eta : r->eta) > 0) || (s->churn && r->s_churn > 0);
}

/* Said, not refused. */
static void warn(const sm_job *j)
{
    sumi_progress p = {.stage = "invert", .seconds = sm_now() - j->started, .eta = -1,
                       .message =
                           "--invert: the sampler draws noise on its way, which leads away from the picture; ddim and euler do "
                           "not"};
    if (j->cb && j->cb->progress)
        j->cb->progress(j->cb->user, &p);
}

/* ---- opening --------------------------------------------------------------------------------------------------------- */

/* The request as the inversion sees it: its prompt, which with Prompt-to-Prompt is the source's unless said, and plain guidance
 * by its scale. */
static void told(sm_job *j)
{
    sumi_request d = sumi_request_default(), *r = &j->r;
    bool itself = !r->edit_from_prompt[0] && sm_p2p_wanted(r); /* words re-weighted: its own source */
    j->prompts = r->invert_prompt[0] ? NULL : itself ? j->prompts : j->sources;
    r->prompt = r->invert_prompt[0] ? r->invert_prompt : itself ? r->prompt : r->edit_from_prompt;
    j->sources = NULL;
    r->edit_from_prompt = d.edit_from_prompt;
    r->p2p_reweight = d.p2p_reweight;
    r->classifier = d.classifier;
    j->classify = NULL;
    r->cfg_scale = r->invert_cfg;
    r->sampler = "euler"; /* one call a step is what prompts count */
    j->prompt_steps = 0;
    r->save_latents = r->save_inverted;
    r->guidance = d.guidance;
    r->guidance_start = d.guidance_start;
    r->guidance_stop = d.guidance_stop;
    r->guidance_sigma_min = d.guidance_sigma_min;
    r->guidance_sigma_max = d.guidance_sigma_max;
    r->cfg_mode = d.cfg_mode;
    r->guidance_rescale = d.guidance_rescale;
    r->mimic_scale = d.mimic_scale;
    r->dynamic_thresholding_ratio = d.dynamic_thresholding_ratio;
    r->sample_max_value = d.sample_max_value;
    r->pag_scale = d.pag_scale;
    r->pag_adaptive_scale = d.pag_adaptive_scale;
    r->sag_scale = d.sag_scale;
    r->step_cache = d.step_cache; /* the way back is to be exact */
}

/* Drawing's levels, or the part of a schedule of so many steps that is below where drawing begins, and that. */
static sumi_status open_sigmas(sm_inversion *v, const sm_job *j, const double *sigmas, int steps, sm_err *e)
{
    int all = j->r.invert_steps ? j->r.invert_steps : steps, at = 0;
    v->sigmas = sm_alloc(j->mem, SM_MEM_MISC, sizeof *v->sigmas * ((size_t)all + 3));
    if (!v->sigmas)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for %d steps", all);
    memcpy(v->sigmas, sigmas, sizeof *sigmas * (size_t)(SM_MIN(steps, all) + 1));
    v->steps = all;
    if (!j->r.invert_steps)
        return SUMI_OK;
    double *list = v->sigmas + 1;
    if (sm_levels_fill(&v->den.noise, j->m, &j->r, all, list, &all, e))
        return e->code;
    while (at < all && list[at] >= sigmas[0])
        at++;
    memmove(list, list + at, sizeof *list * (size_t)(all - at + 1));
    v->steps = all - at + 1;
    return SUMI_OK;
}

/* diffusers' rules blend at every level (DiffEdit, Couairon et al. 2023, whose unmasked part is the inversion itself). */
static sumi_status open_way(sm_inversion *v, const sm_job *j, sm_err *e)
{
    if (!j->edit->diffusers || !j->edit->mask)
        return SUMI_OK;
    size_t each = (size_t)v->most * (size_t)v->h * (size_t)v->w * (size_t)v->c, bytes;
    bool fits = sm_mul_ok(each, sizeof *v->way * ((size_t)v->steps + 1), &bytes);
    v->way = fits ? sm_alloc(j->mem, SM_MEM_DATA, bytes) : NULL;
    return v->way ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "out of memory for the latents of %d steps", v->steps);
}

sumi_status sm_inversion_open(sm_inversion *v, const sm_job *j, int h, int w, int c, int most, const double *sigmas, int steps,
                              sm_err *e)
{
    *v = (sm_inversion){.h = h, .w = w, .c = c, .most = most};
    if (!j->r.invert)
        return SUMI_OK;
    v->j = *j;
    v->draws = draws_noise(&j->r);
    told(&v->j);
    if (sm_denoise_init(&v->den, &v->j, h, w, e) || open_sigmas(v, j, sigmas, steps, e) || open_way(v, j, e))
        return e->code;
    v->j.r.steps = v->den.steps = v->steps;
    v->den.sigmas = v->sigmas;
    return sm_kept_open(&v->kept, &v->j, "save-inverted", h, w, c, e);
}

void sm_inversion_close(sm_inversion *v)
{
    if (!v->j.m)
        return;
    sm_text_close(&v->text);
    sm_denoise_close(&v->den);
    sm_kept_close(&v->kept);
    sm_free(v->sigmas);
    sm_free(v->way);
}

int64_t sm_inversion_evals(const sm_inversion *v) { return v->j.m ? sm_invert_evals(v->steps, v->j.r.invert_refine) : 0; }

/* ---- a round --------------------------------------------------------------------------------------------------------- */

sumi_status sm_inversion_texts(sm_inversion *v, int first, int n, sm_err *e)
{
    if (!v->j.m || (first && !v->j.prompts)) /* else all pictures have the same */
        return e->code;
    sm_text_close(&v->text);
    return sm_text_open(&v->text, &v->j, first, n, 0, e) ? e->code : sm_text_encode(&v->text, &v->j, e);
}

/* Prompts that change on the way down change back on the way up: at a level they are the text that is drawn there. */
static sumi_status denoise(void *ctx, const float *x, double sigma, float *x0, sm_err *e)
{
    sm_inversion *v = ctx;
    for (v->den.evals = 0; v->den.evals < v->steps - 1 && v->sigmas[v->den.evals] > sigma;)
        v->den.evals++;
    if (sm_denoise_run(&v->den, x, sigma, x0, NULL, e))
        return e->code;
    v->call(v->told);
    return SUMI_OK;
}

static float *place(const sm_inversion *v, int step) { return v->way + (int64_t)step * v->most * v->h * v->w * v->c; }
const float *sm_inversion_at(const sm_inversion *v, int step) { return place(v, step); }

static bool on_step(void *ctx, int step, double sigma, const float *x, const float *x0)
{
    sm_inversion *v = ctx;
    if (v->way)
        memcpy(place(v, v->steps - step), x, sizeof *x * (size_t)v->n * (size_t)v->h * (size_t)v->w * (size_t)v->c);
    v->tell(v->told);
    if (step < v->steps)
        sm_kept_put(&v->kept, step, v->first, v->n, x);
    return true;
}

sumi_status sm_inversion_run(sm_inversion *v, int first, int n, const float *init, float *noise, sm_err *e)
{
    const sm_job *j = &v->j;
    int64_t all = (int64_t)n * v->h * v->w * v->c;
    v->first = first;
    v->n = n;
    if (!first && v->draws)
        warn(j);
    memcpy(noise, init, sizeof *init * (size_t)all);
    sm_kept_put(&v->kept, 0, first, n, init);
    if (!sm_denoise_open(&v->den, n, &v->text, e)) {
        sm_sampling s = {.mem = j->mem, .n = all, .flow = v->den.noise.flow, .levels = &v->den.noise, .sigmas = v->sigmas,
                         .steps = v->steps, .denoise = denoise, .on_step = on_step, .ctx = v};
        sm_invert(&s, v->den.pred, j->r.invert_refine, noise, e);
    }
    sm_denoise_done(&v->den);
    for (int64_t i = 0; i < all; i++)
        noise[i] = (float)(noise[i] / v->sigmas[0]);
    sm_kept_put(&v->kept, v->steps, first, n, noise);
    return e->code;
}
