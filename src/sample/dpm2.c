/* DPM-Solver-2 as k-diffusion has it, with Karras et al.'s churn, and its ancestral form (for flow models as ComfyUI): the slope at
 * the geometric middle of both levels makes the whole step. A step to sigma 0 stays Euler's. */
#include "sample/ancestral.h"

#include <math.h>

/* x from one level to another, where x0 is what the denoiser gave at x. room: 2 n floats. */
static sumi_status move(const sm_sampling *p, double from, double to, float *x, const float *x0, float *room, sm_err *e)
{
    if (to == 0) {
        sm_sample_blend(p, 0, x, 1, x0);
        return SUMI_OK;
    }
    double mid = sqrt(from * to), r = mid / from;
    float *probe = room, *x0_mid = room + p->n;
    for (int64_t i = 0; i < p->n; i++)
        probe[i] = (float)(r * x[i] + (1 - r) * x0[i]);
    sumi_status st = sm_sample_denoise(p, probe, mid, x0_mid, e);
    for (int64_t i = 0; st == SUMI_OK && i < p->n; i++)
        x[i] = (float)(x[i] + (to - from) * ((double)probe[i] - x0_mid[i]) / mid);
    return st;
}

sumi_status sm_sample_dpm2(const sm_sampling *p, float *x, sm_err *e)
{
    float *x0 = sm_sample_room(p, 3, e);
    sumi_status st = x0 ? SUMI_OK : SUMI_E_MEMORY;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        double from;
        st = sm_sample_churn(p, i, x, &from, x0, e);
        if (st == SUMI_OK)
            st = sm_sample_look_at(p, i, from, x, x0, e);
        if (st == SUMI_OK)
            st = move(p, from, p->sigmas[i + 1], x, x0, x0 + p->n, e);
    }
    sm_free(x0);
    return st;
}

sumi_status sm_sample_dpm2_ancestral(const sm_sampling *p, float *x, sm_err *e)
{
    float *x0 = sm_sample_room(p, 3, e);
    sumi_status st = x0 ? SUMI_OK : SUMI_E_MEMORY;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        double from = p->sigmas[i], to = p->sigmas[i + 1];
        sm_split s = sm_ancestral(p, from, to);
        st = sm_sample_look(p, i, x, x0, e);
        if (st == SUMI_OK)
            st = move(p, from, s.down, x, x0, x0 + p->n, e);
        if (st == SUMI_OK)
            st = sm_ancestral_noise(p, &s, i, from, to, x, x0, e);
    }
    sm_free(x0);
    return st;
}
