/* Schedules that choose timesteps, evenly or along a curve, and visit the noise levels that belong to them: those of the model,
 * or those of a table of betas that another model might have been trained with. Names and rules are those of k-diffusion, ComfyUI
 * (comfy/samplers.py), Forge and diffusers; which one is said in schedule.c's table. */
#include <math.h>

#include "sample/schedule_rows.h"

/* For flow this is ComfyUI's and diffusers' FlowMatchEulerDiscreteScheduler's, whose lower end is shifted twice. */
sumi_status sm_fill_normal(const sm_schedule_part *q, double *s, sm_err *e)
{
    double top = sm_noise_t(q->m, q->top), low = sm_noise_t(q->m, q->low);
    for (int i = 0; i < q->n; i++)
        s[i] = sm_noise_sigma(q->m, sm_even(top, low, i, q->n));
    return SUMI_OK;
}

sumi_status sm_fill_sgm_uniform(const sm_schedule_part *q, double *s, sm_err *e)
{
    double top = sm_noise_t(q->m, q->top), low = sm_noise_t(q->m, q->low);
    for (int i = 0; i < q->n; i++)
        s[i] = sm_noise_sigma(q->m, sm_even(top, low, i, q->n + 1));
    return SUMI_OK;
}

static sumi_status too_many(const sm_schedule_part *q, int most, sm_err *e)
{
    return sm_fail(e, SUMI_E_ARG, "schedule %s: %d steps, but the model has %d noise levels, which allow %d", q->row->name, q->n,
                   q->m->steps, most);
}

/* Every (T / steps)-th trained level, from the top. */
sumi_status sm_fill_simple(const sm_schedule_part *q, double *s, sm_err *e)
{
    if (q->n > q->m->steps)
        return too_many(q, q->m->steps, e);
    for (int i = 0; i < q->n; i++)
        s[i] = sm_noise_level(q->m, q->m->steps - 1 - (int)((int64_t)i * q->m->steps / q->n));
    return SUMI_OK;
}

/* Levels 1, 1 + T/steps, ...: DDIM's, as Stable Diffusion 1.x was first sampled ("leading" with offset 1 in diffusers). */
sumi_status sm_fill_ddim_uniform(const sm_schedule_part *q, double *s, sm_err *e)
{
    if (q->n >= q->m->steps)
        return too_many(q, q->m->steps - 1, e);
    for (int i = 0; i < q->n; i++)
        s[i] = sm_noise_level(q->m, 1 + (q->n - 1 - i) * (q->m->steps / q->n));
    return SUMI_OK;
}

/* Of the 50 timesteps k T/50 - 1, those at even places from the highest, rounded down to it. */
sumi_status sm_fill_lcm(const sm_schedule_part *q, double *s, sm_err *e)
{
    int known = SM_MIN(50, q->m->steps), gap = q->m->steps / known;
    for (int i = 0; i < q->n; i++)
        s[i] = sm_noise_level(q->m, (known - (int)((int64_t)i * known / q->n)) * gap - 1);
    return SUMI_OK;
}

/* Timesteps k T/steps - 1, rounded to the even number where two are as near. */
sumi_status sm_fill_turbo(const sm_schedule_part *q, double *s, sm_err *e)
{
    if (q->n > q->m->steps)
        return too_many(q, q->m->steps, e);
    for (int i = 0; i < q->n; i++)
        s[i] = sm_noise_level(q->m, (int)fmax(rint((double)(q->n - i) * q->m->steps / q->n - 1), 0));
    return SUMI_OK;
}

/* Timesteps at quantiles of the beta distribution (Lee et al. 2024), denser at both ends. */
sumi_status sm_fill_beta(const sm_schedule_part *q, double *s, sm_err *e)
{
    for (int i = 0; i < q->n; i++)
        s[i] = sm_noise_level(q->m, (int)rint(sm_beta_quantile(1 - (double)i / q->n, 0.6, 0.6) * (q->m->steps - 1)));
    return SUMI_OK;
}

/* ---- levels of other tables -------------------------------------------------------------------------------------- */

/* `normal` as if the model had been trained with these betas, between its own levels top and low. */
static sumi_status fill_betas(const sm_schedule_part *q, sm_beta kind, double beta_start, double beta_end, double *s, sm_err *e)
{
    double levels[1000];
    sm_noise other = {.steps = (int)SM_COUNT(levels), .shift = 1, .log_sigma = levels};
    sm_schedule_part part = *q;
    sm_beta_levels(kind, other.steps, beta_start, beta_end, levels);
    part.m = &other;
    return sm_fill_normal(&part, s, e);
}

/* Ranges: Ho et al. 2020; Stable Diffusion; CompVis' make_beta_schedule. */
sumi_status sm_fill_linear(const sm_schedule_part *q, double *s, sm_err *e)
{
    return fill_betas(q, SM_BETA_LINEAR, 1e-4, 0.02, s, e);
}
sumi_status sm_fill_scaled_linear(const sm_schedule_part *q, double *s, sm_err *e)
{
    return fill_betas(q, SM_BETA_SCALED_LINEAR, 0.00085, 0.012, s, e);
}
sumi_status sm_fill_cosine(const sm_schedule_part *q, double *s, sm_err *e) { return fill_betas(q, SM_BETA_COSINE, 0, 0, s, e); }
sumi_status sm_fill_sqrt(const sm_schedule_part *q, double *s, sm_err *e)
{
    return fill_betas(q, SM_BETA_SQRT, 1e-4, 0.02, s, e);
}
