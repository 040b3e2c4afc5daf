/* DPM-Solver++(2S) (Lu et al. 2022, algorithm 1), ancestral (k-diffusion; for flow models as ComfyUI): x0 at the middle of the
 * step in lambda makes the whole of it. */
#include "sample/ancestral.h"
#include "sample/snr.h"

#include <math.h>

/* Where x0 is taken. A flow's start has no finite lambda: ComfyUI takes 0.9999 there. */
static double middle(const sm_sampling *p, double from, double to)
{
    if (p->flow && from >= 1)
        return fmax(0.9999, 0.5 * (1 + to));
    return sm_lambda_sigma(p, 0.5 * (sm_lambda(p, from) + sm_lambda(p, to)));
}

/* room: 2 n floats. alpha_to (1 - exp(-h)) is 1 - to / from for both kinds of noise. */
static sumi_status move(const sm_sampling *p, double from, double to, float *x, const float *x0, float *room, sm_err *e)
{
    if (to == 0) {
        sm_sample_blend(p, 0, x, 1, x0);
        return SUMI_OK;
    }
    double mid = middle(p, from, to), r = mid / from;
    float *probe = room, *x0_mid = room + p->n;
    for (int64_t i = 0; i < p->n; i++)
        probe[i] = (float)(r * x[i] + (1 - r) * x0[i]);
    sumi_status st = sm_sample_denoise(p, probe, mid, x0_mid, e);
    if (st == SUMI_OK)
        sm_sample_blend(p, to / from, x, 1 - to / from, x0_mid);
    return st;
}

sumi_status sm_sample_dpmpp_2s_ancestral(const sm_sampling *p, float *x, sm_err *e)
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
