/* The table of samplers and what they share (see sampler.h). */
#include "sample/sampler.h"

#include <math.h>
#include <strings.h>

const sm_sampler sm_samplers[] = {
    {.name = "euler", .a1111 = "Euler", .order = 1, .evals = 1, .flow = true, .schedule = "normal",
     .advice = "plain and dependable; what flow models are made for", .run = sm_sample_euler},
    {.name = "euler_a", .a1111 = "Euler a", .order = 1, .evals = 1, .stochastic = true, .eta = 1, .flow = true, .schedule = "normal",
     .advice = "adds noise at every step, so more steps go on changing the picture", .run = sm_sample_euler_ancestral},
    {.name = "heun", .a1111 = "Heun", .order = 2, .evals = 2, .flow = true, .schedule = "karras",
     .advice = "twice the time a step, accurate in few of them", .run = sm_sample_heun},
    {.name = "ddim", .a1111 = "DDIM", .order = 1, .evals = 1, .stochastic = true, .flow = true, .schedule = "ddim_uniform",
     .advice = "the classic of Stable Diffusion 1.x; with eta 0 the same path as Euler", .run = sm_sample_ddim},
    {.name = "dpmpp_2m", .a1111 = "DPM++ 2M", .order = 2, .evals = 1, .flow = true, .schedule = "karras",
     .advice = "second order at one call a step; good from about 15 steps", .run = sm_sample_dpmpp_2m},
};
const int sm_sampler_count = SM_COUNT(sm_samplers);

const sm_sampler *sm_sampler_find(const char *name)
{
    for (int i = 0; i < sm_sampler_count; i++)
        if (!strcasecmp(name, sm_samplers[i].name) || !strcasecmp(name, sm_samplers[i].a1111))
            return &sm_samplers[i];
    return NULL;
}

int64_t sm_sampler_evals(const sm_sampler *s, const double *sigmas, int steps)
{
    return (int64_t)steps * s->evals - (steps > 0 && sigmas[steps] == 0 ? s->evals - 1 : 0);
}

static sumi_status check(const sm_sampler *s, const sm_sampling *p, sm_err *e)
{
    if (p->flow && !s->flow)
        return sm_fail(e, SUMI_E_ARG, "sampler %s does not work for flow models", s->name);
    if (p->steps < 1 || p->n < 1 || !p->denoise)
        return sm_fail(e, SUMI_E_INTERNAL, "sampler %s was given nothing to do", s->name);
    for (int i = 0; i < p->steps; i++)
        if (!(p->sigmas[i] > p->sigmas[i + 1]) || !isfinite(p->sigmas[i]))
            return sm_fail(e, SUMI_E_ARG, "noise levels must fall: number %d is %g, the next one %g", i, p->sigmas[i],
                           p->sigmas[i + 1]);
    if (p->sigmas[p->steps] < 0 || (p->flow && p->sigmas[0] > 1))
        return sm_fail(e, SUMI_E_ARG, "noise levels from %g to %g are out of range", p->sigmas[0], p->sigmas[p->steps]);
    double eta = p->eta < 0 ? s->eta : p->eta;
    if (!(eta >= 0 && eta <= 1))
        return sm_fail(e, SUMI_E_ARG, "eta is %g; it goes from 0 to 1", p->eta);
    if (s->stochastic && eta > 0 && !p->noise)
        return sm_fail(e, SUMI_E_INTERNAL, "sampler %s with eta %g needs a source of noise", s->name, eta);
    return SUMI_OK;
}

sumi_status sm_sample(const sm_sampler *s, const sm_sampling *p, float *x, sm_err *e)
{
    sumi_status st = check(s, p, e);
    if (st != SUMI_OK)
        return st;
    sm_sampling q = *p;
    q.eta = p->eta < 0 ? s->eta : p->eta;
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

sumi_status sm_sample_denoise(const sm_sampling *p, const float *x, double sigma, float *x0, sm_err *e)
{
    sumi_status st = p->denoise(p->ctx, x, sigma, x0, e);
    if (st != SUMI_OK)
        return st;
    float sum = 0; /* 0 * x is 0 for numbers alone */
    for (int64_t i = 0; i < p->n; i++)
        sum += 0 * x0[i];
    return sum == 0 ? SUMI_OK : sm_fail(e, SUMI_E_NUMERIC, "the model gave NaN or infinity at noise level %g", sigma);
}

sumi_status sm_sample_look(const sm_sampling *p, int step, const float *x, float *x0, sm_err *e)
{
    sumi_status st = sm_sample_denoise(p, x, p->sigmas[step], x0, e);
    if (st == SUMI_OK && p->on_step && !p->on_step(p->ctx, step, p->sigmas[step], x, x0))
        st = sm_fail(e, SUMI_E_CANCELLED, "stopped at step %d of %d", step + 1, p->steps);
    return st;
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
