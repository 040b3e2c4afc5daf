/* Heun's method (Karras et al. 2022, algorithm 2): an Euler step, then the mean of the slopes at both ends. The step to sigma 0
 * stays Euler's, as the slope there is not defined. */
#include "sample/sampler.h"

/* One step at whose end sigma is positive. room holds n floats for the probe and n for its x0. */
static sumi_status slopes(const sm_sampling *p, double from, double to, float *x, const float *x0, float *room, sm_err *e)
{
    double dt = to - from;
    float *probe = room, *x0_probe = room + p->n;
    for (int64_t k = 0; k < p->n; k++)
        probe[k] = (float)(x[k] + dt * ((double)x[k] - x0[k]) / from);
    sumi_status st = sm_sample_denoise(p, probe, to, x0_probe, e);
    if (st != SUMI_OK)
        return st;
    for (int64_t k = 0; k < p->n; k++) {
        double d = ((double)x[k] - x0[k]) / from, d2 = ((double)probe[k] - x0_probe[k]) / to;
        x[k] = (float)(x[k] + 0.5 * dt * (d + d2));
    }
    return SUMI_OK;
}

sumi_status sm_sample_heun_move(const sm_sampling *p, double from, double to, float *x, const float *x0, float *room, sm_err *e)
{
    if (to > 0)
        return slopes(p, from, to, x, x0, room, e);
    sm_sample_blend(p, 0, x, 1, x0);
    return SUMI_OK;
}

sumi_status sm_sample_heun(const sm_sampling *p, float *x, sm_err *e)
{
    float *x0 = sm_sample_room(p, 3, e);
    sumi_status st = x0 ? SUMI_OK : SUMI_E_MEMORY;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        double from;
        st = sm_sample_churn(p, i, x, &from, x0, e);
        if (st == SUMI_OK)
            st = sm_sample_look_at(p, i, from, x, x0, e);
        if (st == SUMI_OK)
            st = sm_sample_heun_move(p, from, p->sigmas[i + 1], x, x0, x0 + p->n, e);
    }
    sm_free(x0);
    return st;
}
