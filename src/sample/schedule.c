/* The table of schedules and what they share (see schedule.h): finding, options, checks, levels that a user lists. The rules are
 * in schedule_times.c and schedule_curves.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "sample/schedule_rows.h"

#define MAX_STEPS 100000

const sm_schedule sm_schedules[] = {
    {.name = "normal", .a1111 = "Normal", .alias = "uniform", .source = "k-diffusion, ComfyUI; flow: diffusers", .range = true,
     .advice = "timesteps evenly spaced; what flow models are used with in diffusers", .fill = sm_fill_normal},
    {.name = "simple", .a1111 = "Simple", .source = "ComfyUI",
     .advice = "every k-th trained noise level; the usual choice for flow models elsewhere", .fill = sm_fill_simple},
    {.name = "karras", .a1111 = "Karras", .source = "k-diffusion", .range = true, .rho = 7,
     .advice = "more steps at low noise; good with DPM++ on Stable Diffusion 1.x and XL", .fill = sm_fill_karras},
    {.name = "exponential", .a1111 = "Exponential", .source = "k-diffusion", .range = true,
     .advice = "noise levels in a geometric series; smooth, few high-noise steps", .fill = sm_fill_exponential},
    {.name = "polyexponential", .a1111 = "Polyexponential", .source = "k-diffusion", .range = true, .rho = 1,
     .advice = "exponential bent by --rho: above 1 more steps at low noise", .fill = sm_fill_polyexponential},
    {.name = "sgm_uniform", .a1111 = "SGM Uniform", .alias = "SGMUniform", .source = "ComfyUI, A1111", .range = true,
     .advice = "evenly spaced timesteps without the lowest; for Lightning and Turbo models", .fill = sm_fill_sgm_uniform},
    {.name = "ddim_uniform", .a1111 = "DDIM", .source = "diffusers' leading, ComfyUI",
     .advice = "the timesteps DDIM was published with", .fill = sm_fill_ddim_uniform},
    {.name = "beta", .a1111 = "Beta", .source = "ComfyUI", .fewer = true,
     .advice = "trained levels at quantiles of a beta distribution of 0.6 and 0.6: more steps at both ends",
     .fill = sm_fill_beta},
    {.name = "beta_sigmas", .a1111 = "Beta Sigmas", .source = "A1111's Beta, diffusers' use_beta_sigmas", .range = true,
     .advice = "the same quantiles of sigma itself: A1111's own Beta", .fill = sm_fill_beta_sigmas},
    {.name = "linear_quadratic", .a1111 = "Linear Quadratic", .source = "ComfyUI, Mochi", .range = true,
     .advice = "half of the steps in the highest fortieth of the noise, then a parabola; for flow models",
     .fill = sm_fill_linear_quadratic},
    {.name = "kl_optimal", .a1111 = "KL Optimal", .source = "ComfyUI", .range = true,
     .advice = "even in the angle of sigma; good in few steps (A1111 stops at the lowest level, this goes on to 0)",
     .fill = sm_fill_kl_optimal},
    {.name = "align_your_steps", .a1111 = "Align Your Steps", .alias = "ays", .source = "ComfyUI, NVIDIA", .no_flow = true,
     .advice = "levels optimised for 10 steps of Stable Diffusion 1.5, XL or Stable Video Diffusion", .fill = sm_fill_ays},
    {.name = "align_your_steps_11", .a1111 = "Align Your Steps 11", .source = "A1111's Align Your Steps, Forge",
     .no_flow = true, .advice = "the same as A1111 has it, for 11 steps", .fill = sm_fill_ays_11},
    {.name = "align_your_steps_32", .a1111 = "Align Your Steps 32", .source = "Forge", .no_flow = true,
     .advice = "the same for 32 steps", .fill = sm_fill_ays_32},
    {.name = "align_your_steps_gits", .a1111 = "Align Your Steps GITS", .alias = "gits", .source = "Forge", .no_flow = true,
     .advice = "levels found by geometry instead, for 11 steps", .fill = sm_fill_ays_gits},
    {.name = "turbo", .a1111 = "Turbo", .source = "Forge; diffusers' trailing",
     .advice = "timesteps T, T - T/steps, ...; for SD Turbo and XL Turbo", .fill = sm_fill_turbo},
    {.name = "lcm", .a1111 = "LCM", .source = "diffusers' LCMScheduler, TCDScheduler", .fewer = true, .no_flow = true,
     .advice = "some of the 50 timesteps that LCM and TCD models were distilled at", .fill = sm_fill_lcm},
    {.name = "laplace", .a1111 = "Laplace", .source = "ComfyUI, reForge", .range = true, .fewer = true,
     .advice = "most steps at medium noise", .fill = sm_fill_laplace},
    {.name = "linear", .a1111 = "Linear", .source = "diffusers' beta_schedule linear over k-diffusion's even timesteps",
     .range = true, .no_flow = true,
     .advice = "the levels of betas that rise linearly from 0.0001 to 0.02 (DDPM), in the model's range",
     .fill = sm_fill_linear},
    {.name = "scaled_linear", .a1111 = "Scaled Linear", .source = "diffusers' beta_schedule scaled_linear", .range = true,
     .no_flow = true, .advice = "the levels of Stable Diffusion's betas, whichever the model has",
     .fill = sm_fill_scaled_linear},
    {.name = "cosine", .a1111 = "Cosine", .source = "diffusers' beta_schedule squaredcos_cap_v2", .range = true,
     .no_flow = true, .advice = "the levels of the cosine schedule of betas, in the model's range", .fill = sm_fill_cosine},
    {.name = "sqrt", .a1111 = "Sqrt", .source = "CompVis' make_beta_schedule sqrt", .range = true, .no_flow = true,
     .advice = "the levels of betas that are roots of evenly spaced numbers, in the model's range", .fill = sm_fill_sqrt},
};
const int sm_schedule_count = SM_COUNT(sm_schedules);

const sm_schedule *sm_schedule_find(const char *name)
{
    for (int i = 0; i < sm_schedule_count; i++) {
        const sm_schedule *s = &sm_schedules[i];
        if (!strcasecmp(name, s->name) || !strcasecmp(name, s->a1111) || (s->alias && !strcasecmp(name, s->alias)))
            return s;
    }
    return NULL;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

static sumi_status check_opts(const sm_schedule *s, const sm_noise *m, const sm_schedule_opts *o, sm_err *e)
{
    if (o->steps < 1 || o->steps > MAX_STEPS)
        return sm_fail(e, SUMI_E_ARG, "%d sampling steps; 1 to %d are possible", o->steps, MAX_STEPS);
    if (s->no_flow && m->flow)
        return sm_fail(e, SUMI_E_ARG, "schedule %s does not work for flow models", s->name);
    if ((o->sigma_max != 0 || o->sigma_min != 0) && !s->range)
        return sm_fail(e, SUMI_E_ARG, "schedule %s takes no highest or lowest sigma: it visits levels of its own choice",
                       s->name);
    if (o->rho != 0 && !(s->rho > 0))
        return sm_fail(e, SUMI_E_ARG, "schedule %s takes no rho; karras and polyexponential do", s->name);
    if (!(o->rho >= 0 && o->rho <= 1000))
        return sm_fail(e, SUMI_E_ARG, "rho is %g; it goes from 0 to 1000", o->rho);
    return SUMI_OK;
}

static sumi_status part_of(const sm_schedule *s, const sm_noise *m, const sm_schedule_opts *o, sm_schedule_part *q, sm_err *e)
{
    *q = (sm_schedule_part){.row = s, .m = m, .n = o->steps + o->drop_last, .rho = o->rho > 0 ? o->rho : s->rho, .xl = o->xl};
    q->top = o->sigma_max != 0 ? o->sigma_max : sm_noise_max(m);
    q->low = o->sigma_min != 0 ? o->sigma_min : sm_noise_min(m);
    if (!(q->low > 0 && q->low < q->top && q->top <= (m->flow ? 1 : 1e6)))
        return sm_fail(e, SUMI_E_ARG, "noise levels from %g down to %g are no range above 0%s", q->top, q->low,
                       m->flow ? " and up to 1" : "");
    return SUMI_OK;
}

/* Levels that repeat the one before are left out; returns how many stay. */
static int distinct(double *s, int n)
{
    int k = 1;
    for (int i = 1; i < n; i++)
        if (s[i] != s[k - 1])
            s[k++] = s[i];
    return k;
}

static sumi_status check_falling(const sm_schedule *s, const sm_noise *m, const double *sigmas, int n, sm_err *e)
{
    for (int i = 0; i < n; i++)
        if (!(sigmas[i] > sigmas[i + 1]) || !isfinite(sigmas[i]))
            return sm_fail(e, SUMI_E_ARG, "schedule %s with %d steps: the noise levels do not fall (%g, then %g)", s->name, n,
                           sigmas[i], sigmas[i + 1]);
    return m->flow && sigmas[0] > 1
               ? sm_fail(e, SUMI_E_ARG, "schedule %s begins at %g, above a flow model's 1", s->name, sigmas[0])
               : SUMI_OK;
}

sumi_status sm_schedule_make(const sm_schedule *s, const sm_noise *m, const sm_schedule_opts *o, double *sigmas, int *steps,
                             sm_err *e)
{
    sm_schedule_part q;
    sumi_status st = check_opts(s, m, o, e);
    st = st == SUMI_OK ? part_of(s, m, o, &q, e) : st;
    st = st == SUMI_OK ? s->fill(&q, sigmas, e) : st;
    if (st != SUMI_OK)
        return st;
    int n = s->fewer ? distinct(sigmas, q.n) : q.n;
    n -= o->drop_last && n > 1;
    sigmas[n] = 0;
    *steps = n;
    return check_falling(s, m, sigmas, n, e);
}

sumi_status sm_schedule_fill(const sm_schedule *s, const sm_noise *m, int steps, double *sigmas, sm_err *e)
{
    int n;
    sumi_status st = sm_schedule_make(s, m, &(sm_schedule_opts){.steps = steps}, sigmas, &n, e);
    if (st == SUMI_OK && n != steps)
        return sm_fail(e, SUMI_E_ARG, "schedule %s has only %d different noise levels for %d steps", s->name, n, steps);
    return st;
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

int sm_sigmas_parse(const char *text, double *sigmas, int room, const char *what, sm_err *e)
{
    static const char between[] = " \t\r\n,;[]()";
    int n = 0;
    for (const char *p = text + strspn(text, between); *p; p += strspn(p, between)) {
        char *end;
        size_t length = strcspn(p, between);
        double v = strtod(p, &end);
        if (end != p + length || !isfinite(v) || strspn(p, "0123456789.+-eE") < length)
            return sm_fail(e, SUMI_E_ARG, "%s: '%.*s' is not a number", what, (int)SM_MIN(length, 40u), p), 0;
        if (v < 0)
            return sm_fail(e, SUMI_E_ARG, "%s: %g is below 0", what, v), 0;
        if (n == room)
            return sm_fail(e, SUMI_E_ARG, "%s: more than %d noise levels", what, room), 0;
        if (n && !(v < sigmas[n - 1]))
            return sm_fail(e, SUMI_E_ARG, "%s: the noise levels must fall, and %g comes after %g", what, v, sigmas[n - 1]), 0;
        sigmas[n++] = v;
        p = end;
    }
    return n > 1 ? n
                 : (sm_fail(e, SUMI_E_ARG, "%s: %s; at least two are needed, such as 14.6,3,0", what,
                            n ? "one noise level" : "no noise levels"),
                    0);
}
