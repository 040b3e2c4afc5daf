/* Churn (Karras et al. 2022, algorithm 2): before a step some noise is added, so that errors made so far fade. As k-diffusion's
 * it draws noise at every step, also where it adds none: a generator's later numbers stay where they are. With it the samplers
 * that are nothing but a move from each level to the next. */
#include "sample/sampler.h"

#include <math.h>

/* Before a step: noise is added to x (room: n floats), *sigma is the step's level then. */
static sumi_status churn(const sm_sampling *p, int step, float *x, double *sigma, float *room, sm_err *e)
{
    double at = p->sigmas[step], gamma = fmin(p->s_churn / p->steps, sqrt(2) - 1);
    *sigma = at;
    if (p->s_churn <= 0)
        return SUMI_OK;
    bool inside = at >= p->s_tmin && (p->s_tmax <= 0 || at <= p->s_tmax);
    *sigma = inside ? at * (1 + gamma) : at;
    return sm_sample_renoise(p, step, *sigma, at, inside ? at * sqrt(gamma * (2 + gamma)) : 0, x, room, e);
}

sumi_status sm_sample_move(const sm_sampling *p, sm_move *move, int step, double from, double to, float *x,
                           float *x0, float *room, sm_err *e)
{
    if (to > 0)
        return move(p, step, from, to, x, x0, room, e);
    sm_sample_blend(p, 0, x, 1, x0);
    return SUMI_OK;
}

sumi_status sm_sample_moves(const sm_sampling *p, sm_move *move, int rows, float *x, sm_err *e)
{
    float *x0 = sm_sample_room(p, rows, e);
    sumi_status st = x0 ? SUMI_OK : SUMI_E_MEMORY;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        double from;
        st = churn(p, i, x, &from, x0, e);
        if (st == SUMI_OK)
            st = sm_sample_look_at(p, i, from, x, x0, e);
        if (st == SUMI_OK)
            st = sm_sample_move(p, move, i, from, p->sigmas[i + 1], x, x0, x0 + p->n, e);
    }
    sm_free(x0);
    return st;
}

sumi_status sm_sample_probe(const sm_sampling *p, double from, double mid, const float *x, const float *x0, float *probe,
                            float *x0_mid, sm_err *e)
{
    double r = mid / from;
    for (int64_t i = 0; i < p->n; i++)
        probe[i] = (float)(r * x[i] + (1 - r) * x0[i]);
    return sm_sample_denoise(p, probe, mid, x0_mid, e);
}
