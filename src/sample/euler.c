/* Euler's method along dx/dsigma = (x - x0) / sigma (Karras et al. 2022, algorithm 2 without its correction), and its ancestral
 * form (k-diffusion; for flow models as ComfyUI). */
#include "sample/ancestral.h"

/* x + (x - x0) / from (to - from) is a blend of x and x0; at to = 0 it is x0 itself. */
static void move(const sm_sampling *p, double from, double to, float *x, const float *x0)
{
    double r = to / from;
    sm_sample_blend(p, r, x, 1 - r, x0);
}

sumi_status sm_sample_euler(const sm_sampling *p, float *x, sm_err *e)
{
    float *x0 = sm_sample_room(p, 1, e);
    sumi_status st = x0 ? SUMI_OK : SUMI_E_MEMORY;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        double from;
        st = sm_sample_churn(p, i, x, &from, x0, e);
        if (st == SUMI_OK)
            st = sm_sample_look_at(p, i, from, x, x0, e);
        if (st == SUMI_OK)
            move(p, from, p->sigmas[i + 1], x, x0);
    }
    sm_free(x0);
    return st;
}

sumi_status sm_sample_euler_ancestral(const sm_sampling *p, float *x, sm_err *e)
{
    float *x0 = sm_sample_room(p, 1, e);
    sumi_status st = x0 ? SUMI_OK : SUMI_E_MEMORY;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        double from = p->sigmas[i], to = p->sigmas[i + 1];
        st = sm_sample_look(p, i, x, x0, e);
        if (st != SUMI_OK)
            break;
        sm_split s = sm_ancestral(p, from, to);
        move(p, from, s.down, x, x0);
        st = sm_ancestral_noise(p, &s, i, from, to, x, x0, e);
    }
    sm_free(x0);
    return st;
}
