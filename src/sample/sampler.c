/* The table of samplers and what they share (see sampler.h). */
#include "sample/sampler.h"

#include <math.h>
#include <string.h>
#include <strings.h>

const sm_sampler sm_samplers[] = {
    {.name = "euler", .a1111 = "Euler", .order = 1, .evals = 1, .flow = true, .churn = true, .schedule = "normal",
     .advice = "plain and dependable; what flow models are made for", .run = sm_sample_euler},
    {.name = "euler_a", .a1111 = "Euler a", .alias = "euler_ancestral", .order = 1, .evals = 1, .stochastic = true, .eta = 1,
     .flow = true, .schedule = "normal",
     .advice = "adds noise at every step, so more steps go on changing the picture", .run = sm_sample_euler_ancestral},
    {.name = "heun", .a1111 = "Heun", .order = 2, .evals = 2, .flow = true, .churn = true, .schedule = "karras",
     .advice = "twice the time a step, accurate in few of them", .run = sm_sample_heun},
    {.name = "ddim", .a1111 = "DDIM", .order = 1, .evals = 1, .stochastic = true, .flow = true, .schedule = "ddim_uniform",
     .advice = "the classic of Stable Diffusion 1.x; with eta 0 the same path as Euler", .run = sm_sample_ddim},
    {.name = "dpmpp_2m", .a1111 = "DPM++ 2M", .order = 2, .evals = 1, .flow = true, .schedule = "karras",
     .advice = "second order at one call a step; good from about 15 steps", .run = sm_sample_dpmpp_2m},
    {.name = "ddpm", .a1111 = "DDPM", .order = 1, .evals = 1, .stochastic = true, .eta = 1, .flow = true,
     .schedule = "normal",
     .advice = "the original: draws noise at every step and wants hundreds of them", .run = sm_sample_ddim},
    {.name = "pndm", .a1111 = "PNDM", .order = 2, .evals = 1, .count = sm_sample_pndm_evals, .flow = true,
     .schedule = "ddim_uniform",
     .advice = "three steps of four calls, then one call a step; for models of the first years", .run = sm_sample_pndm},
    {.name = "plms", .a1111 = "PLMS", .order = 2, .evals = 1, .count = sm_sample_plms_evals, .flow = true,
     .schedule = "ddim_uniform",
     .advice = "PNDM as Stable Diffusion 1.x was published with; one call more than steps", .run = sm_sample_plms},
    {.name = "ipndm", .a1111 = "iPNDM", .order = 2, .evals = 1, .flow = true, .schedule = "normal",
     .advice = "PNDM without its costly start; good at 10 to 20 steps", .run = sm_sample_ipndm},
    {.name = "ipndm_v", .a1111 = "iPNDM v", .order = 2, .evals = 1, .flow = true, .schedule = "normal",
     .advice = "iPNDM that minds how uneven the steps are", .run = sm_sample_ipndm_v},
    {.name = "uni_pc", .a1111 = "UniPC", .order = 3, .evals = 1, .flow = true, .schedule = "normal",
     .advice = "corrects every step by the next one's call; made for 5 to 10 steps", .run = sm_sample_unipc_bh1},
    {.name = "uni_pc_bh2", .a1111 = "UniPC bh2", .order = 3, .evals = 1, .flow = true, .schedule = "normal",
     .advice = "UniPC's other form, what diffusers calls UniPC; for guided sampling, more than 10 steps",
     .run = sm_sample_unipc_bh2},
    {.name = "deis", .a1111 = "DEIS", .order = 2, .evals = 1, .flow = true, .schedule = "normal",
     .advice = "exponential integrator on the noise; good at 10 to 20 steps", .run = sm_sample_deis},
    {.name = "lcm", .a1111 = "LCM", .order = 1, .evals = 1, .stochastic = true, .eta = 1, .flow = true, .schedule = "lcm",
     .advice = "for latent consistency models only, 1 to 8 steps", .run = sm_sample_lcm},
    {.name = "tcd", .a1111 = "TCD", .order = 1, .evals = 1, .stochastic = true, .eta = 0.3, .flow = true, .schedule = "lcm",
     .advice = "for trajectory consistency models, 4 to 20 steps; eta is their gamma", .run = sm_sample_tcd},
    {.name = "res_multistep", .a1111 = "RES multistep", .order = 2, .evals = 1, .stochastic = true, .flow = true,
     .schedule = "simple",
     .advice = "like DPM++ 2M with exact weights; with eta its ancestral form", .run = sm_sample_res_multistep},
    {.name = "gradient_estimation", .a1111 = "Gradient estimation", .order = 1, .evals = 1, .flow = true,
     .schedule = "normal",
     .advice = "Euler that leans into the change of direction; contrast in few steps", .run = sm_sample_gradient_estimation},
    {.name = "er_sde", .a1111 = "ER SDE", .order = 2, .evals = 1, .stochastic = true, .eta = 1, .flow = true,
     .schedule = "simple",
     .advice = "fresh noise, most of it early; good at 15 to 30 steps", .run = sm_sample_er_sde},
    {.name = "sa_solver", .a1111 = "SA-Solver", .order = 3, .evals = 1, .stochastic = true, .eta = 1, .flow = true,
     .schedule = "normal",
     .advice = "fresh noise in the middle of the way, corrected steps; good at 15 to 30 steps", .run = sm_sample_sa_solver},
    {.name = "sa_solver_2", .a1111 = "SA-Solver 2", .order = 2, .evals = 1, .stochastic = true, .eta = 1, .flow = true,
     .schedule = "normal",
     .advice = "SA-Solver as diffusers sets it, of lower order", .run = sm_sample_sa_solver_2},
    {.name = "lms", .a1111 = "LMS", .order = 2, .evals = 1, .flow = true, .schedule = "karras",
     .advice = "extrapolates from four steps; wants 30 or more", .run = sm_sample_lms},
    {.name = "dpm2", .a1111 = "DPM2", .alias = "dpm_2", .order = 2, .evals = 2, .flow = true, .churn = true, .skip_last = true,
     .schedule = "karras",
     .advice = "twice the time a step, like Heun", .run = sm_sample_dpm2},
    {.name = "dpm2_a", .a1111 = "DPM2 a", .alias = "dpm_2_ancestral", .order = 2, .evals = 2, .stochastic = true, .eta = 1,
     .flow = true, .skip_last = true,
     .schedule = "karras",
     .advice = "DPM2 with fresh noise at every step", .run = sm_sample_dpm2_ancestral},
    {.name = "dpmpp_2s_a", .a1111 = "DPM++ 2S a", .alias = "dpmpp_2s_ancestral", .order = 2, .evals = 2, .stochastic = true,
     .eta = 1, .flow = true,
     .schedule = "karras",
     .advice = "twice the time a step, fresh noise at each; rich in detail", .run = sm_sample_dpmpp_2s_ancestral},
    {.name = "dpmpp_sde", .a1111 = "DPM++ SDE", .order = 2, .evals = 2, .stochastic = true, .eta = 1, .flow = true,
     .brownian = true, .schedule = "karras",
     .advice = "twice the time a step; good pictures in 10 to 15, also of distilled models", .run = sm_sample_dpmpp_sde},
    {.name = "dpmpp_2m_sde", .a1111 = "DPM++ 2M SDE", .order = 2, .evals = 1, .stochastic = true, .eta = 1, .flow = true,
     .brownian = true, .schedule = "karras",
     .advice = "DPM++ 2M with fresh noise at every step; for 25 or more", .run = sm_sample_dpmpp_2m_sde},
    {.name = "dpmpp_2m_sde_heun", .a1111 = "DPM++ 2M SDE Heun", .order = 2, .evals = 1, .stochastic = true, .eta = 1,
     .flow = true, .brownian = true, .schedule = "karras",
     .advice = "the same with another weight of the last step", .run = sm_sample_dpmpp_2m_sde_heun},
    {.name = "dpmpp_3m_sde", .a1111 = "DPM++ 3M SDE", .order = 2, .evals = 1, .stochastic = true, .eta = 1, .flow = true,
     .brownian = true, .schedule = "exponential",
     .advice = "of third order but for its first steps; for 30 or more and low guidance", .run = sm_sample_dpmpp_3m_sde},
    {.name = "dpm_fast", .a1111 = "DPM fast", .order = 2, .evals = 1, .count = sm_sample_dpm_fast_evals, .stochastic = true,
     .flow = true, .schedule = "normal",
     .advice = "spends the steps as calls, three to a move; ends at the lowest level. A1111 runs it with --eta 1",
     .run = sm_sample_dpm_fast},
    {.name = "dpm_adaptive", .a1111 = "DPM adaptive", .order = 3, .evals = 3, .count = sm_sample_unknown_evals,
     .stochastic = true, .flow = true, .alone = true, .schedule = "normal",
     .advice = "takes the steps it needs, whatever --steps says. A1111 runs it with --eta 1", .run = sm_sample_dpm_adaptive},
    {.name = "restart", .a1111 = "Restart", .order = 2, .evals = 2, .count = sm_sample_restart_evals, .schedule = "karras",
     .advice = "Heun that goes back and down again from 20 steps on, by Karras's levels", .run = sm_sample_restart},
    {.name = "heunpp2", .a1111 = "HeunPP2", .order = 1, .evals = 3, .count = sm_sample_heunpp2_evals, .flow = true,
     .churn = true, .schedule = "karras",
     .advice = "looks two steps ahead, three times the time a step", .run = sm_sample_heunpp2},
    {.name = "euler_cfg_pp", .a1111 = "Euler CFG++", .order = 1, .evals = 1, .flow = true, .cfgpp = true, .schedule = "normal",
     .advice = "follows the unguided noise; --cfg from 0.6 to 2", .run = sm_sample_euler_cfgpp},
    {.name = "euler_a_cfg_pp", .a1111 = "Euler a CFG++", .alias = "euler_ancestral_cfg_pp", .order = 1, .evals = 1,
     .stochastic = true, .eta = 1, .flow = true,
     .cfgpp = true, .schedule = "normal",
     .advice = "the same with fresh noise at every step; --cfg from 0.6 to 2", .run = sm_sample_euler_cfgpp},
    {.name = "dpmpp_2m_cfg_pp", .a1111 = "DPM++ 2M CFG++", .order = 2, .evals = 1, .cfgpp = true, .schedule = "karras",
     .advice = "DPM++ 2M that follows the unguided noise; --cfg from 0.6 to 2", .run = sm_sample_dpmpp_2m_cfgpp},
};
const int sm_sampler_count = SM_COUNT(sm_samplers);

const sm_sampler *sm_sampler_find(const char *name)
{
    for (int i = 0; i < sm_sampler_count; i++) {
        const sm_sampler *s = &sm_samplers[i];
        if (!strcasecmp(name, s->name) || !strcasecmp(name, s->a1111) || (s->alias && !strcasecmp(name, s->alias)))
            return s;
    }
    return NULL;
}

int64_t sm_sampler_evals(const sm_sampler *s, const double *sigmas, int steps)
{
    if (s->count)
        return s->count(sigmas, steps);
    return (int64_t)steps * s->evals - (steps > 0 && sigmas[steps] == 0 ? s->evals - 1 : 0);
}

sumi_status sm_sample_levels(const sm_sampling *p, sm_err *e)
{
    for (int i = 0; i < p->steps; i++)
        if (!(p->sigmas[i] > p->sigmas[i + 1]) || !isfinite(p->sigmas[i]))
            return sm_fail(e, SUMI_E_ARG, "noise levels must fall: number %d is %g, the next one %g", i, p->sigmas[i],
                           p->sigmas[i + 1]);
    if (p->sigmas[p->steps] < 0 || (p->flow && p->sigmas[0] > 1))
        return sm_fail(e, SUMI_E_ARG, "noise levels from %g to %g are out of range", p->sigmas[0], p->sigmas[p->steps]);
    return SUMI_OK;
}

static sumi_status check(const sm_sampler *s, const sm_sampling *p, sm_err *e)
{
    if (p->flow && !s->flow)
        return sm_fail(e, SUMI_E_ARG, "sampler %s does not work for flow models", s->name);
    if (p->steps < 1 || p->n < 1 || !p->denoise)
        return sm_fail(e, SUMI_E_INTERNAL, "sampler %s was given nothing to do", s->name);
    sumi_status st = sm_sample_levels(p, e);
    if (st)
        return st;
    double eta = p->eta < 0 ? s->eta : p->eta;
    if (!(eta >= 0 && eta <= 1))
        return sm_fail(e, SUMI_E_ARG, "eta is %g; it goes from 0 to 1", p->eta);
    if (s->stochastic && eta > 0 && !p->noise)
        return sm_fail(e, SUMI_E_INTERNAL, "sampler %s with eta %g needs a source of noise", s->name, eta);
    if (p->s_churn > 0 && (!s->churn || p->flow))
        return sm_fail(e, SUMI_E_ARG, "churn is for euler, heun, dpm2 and heunpp2 on models that predict noise, not for %s%s",
                       s->name, p->flow ? " on a flow model" : "");
    if (p->s_churn > 0 && !p->noise)
        return sm_fail(e, SUMI_E_INTERNAL, "sampler %s with churn needs a source of noise", s->name);
    return SUMI_OK;
}

sumi_status sm_sample(const sm_sampler *s, const sm_sampling *p, float *x, sm_err *e)
{
    sumi_status st = check(s, p, e);
    if (st != SUMI_OK)
        return st;
    sm_sampling q = *p;
    q.eta = !s->stochastic ? 0 : p->eta < 0 ? s->eta : p->eta;
    q.s_noise = p->s_noise == 0 ? 1 : p->s_noise;
    return s->run(&q, x, e);
}

float *sm_sample_room(const sm_sampling *p, int rows, sm_err *e)
{
    size_t bytes;
    bool fits = sm_mul_ok((size_t)p->n, (size_t)rows * sizeof(float), &bytes);
    float *room = fits ? sm_alloc(p->mem, SM_MEM_ACTIVATION, bytes) : NULL;
    if (!room)
        sm_fail(e, SUMI_E_MEMORY, "out of memory for %lld latent numbers", (long long)p->n);
    return room;
}

static bool finite_all(const float *x, int64_t n)
{
    float sum = 0; /* 0 * x is 0 for numbers alone */
    for (int64_t i = 0; i < n; i++)
        sum += 0 * x[i];
    return sum == 0;
}

static sumi_status not_finite(double sigma, sm_err *e)
{
    return sm_fail(e, SUMI_E_NUMERIC, "the model gave NaN or infinity at noise level %g", sigma);
}

sumi_status sm_sample_denoise(const sm_sampling *p, const float *x, double sigma, float *x0, sm_err *e)
{
    sumi_status st = p->denoise(p->ctx, x, sigma, x0, e);
    return st == SUMI_OK && !finite_all(x0, p->n) ? not_finite(sigma, e) : st;
}

static sumi_status denoise_both(const sm_sampling *p, const float *x, double sigma, float *x0, float *uncond, sm_err *e)
{
    if (!p->denoise_both) {
        sumi_status st = sm_sample_denoise(p, x, sigma, x0, e);
        if (st == SUMI_OK)
            memcpy(uncond, x0, sizeof *x0 * (size_t)p->n);
        return st;
    }
    sumi_status st = p->denoise_both(p->ctx, x, sigma, x0, uncond, e);
    return st == SUMI_OK && !(finite_all(x0, p->n) && finite_all(uncond, p->n)) ? not_finite(sigma, e) : st;
}

static void begin(const sm_sampling *p, int step, double sigma, float *x)
{
    if (step > 0 && p->between)
        p->between(p->ctx, step, sigma, x);
}

static sumi_status tell(const sm_sampling *p, int step, double sigma, const float *x, const float *x0, sm_err *e)
{
    if (p->on_step && !p->on_step(p->ctx, step, sigma, x, x0))
        return sm_fail(e, SUMI_E_CANCELLED, "stopped at step %d of %d", step + 1, p->steps);
    return SUMI_OK;
}

sumi_status sm_sample_look_at(const sm_sampling *p, int step, double sigma, float *x, float *x0, sm_err *e)
{
    begin(p, step, sigma, x);
    sumi_status st = sm_sample_denoise(p, x, sigma, x0, e);
    return st == SUMI_OK ? tell(p, step, sigma, x, x0, e) : st;
}

sumi_status sm_sample_look(const sm_sampling *p, int step, float *x, float *x0, sm_err *e)
{
    return sm_sample_look_at(p, step, p->sigmas[step], x, x0, e);
}

sumi_status sm_sample_look_both(const sm_sampling *p, int step, float *x, float *x0, float *uncond, sm_err *e)
{
    double sigma = p->sigmas[step];
    begin(p, step, sigma, x);
    sumi_status st = denoise_both(p, x, sigma, x0, uncond, e);
    return st == SUMI_OK ? tell(p, step, sigma, x, x0, e) : st;
}

sumi_status sm_sample_renoise(const sm_sampling *p, int draw, double from, double to, double k, float *x, float *room, sm_err *e)
{
    sumi_status st = p->noise(p->ctx, draw, from, to, room, e);
    if (st == SUMI_OK)
        sm_sample_blend(p, 1, x, k * p->s_noise, room);
    return st;
}

void sm_sample_blend(const sm_sampling *p, double a, float *x, double b, const float *y)
{
    for (int64_t i = 0; i < p->n; i++)
        x[i] = (float)(a * x[i] + b * y[i]);
}
