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
static sumi_status move(const sm_sampling *p, int step, double from, double to, float *x, float *x0, float *room, sm_err *e)
{
    float *x0_mid = room + p->n;
    sumi_status st = sm_sample_probe(p, from, middle(p, from, to), x, x0, room, x0_mid, e);
    if (st == SUMI_OK)
        sm_sample_blend(p, to / from, x, 1 - to / from, x0_mid);
    return st;
}

sumi_status sm_sample_dpmpp_2s_ancestral(const sm_sampling *p, float *x, sm_err *e)
{
    return sm_ancestral_moves(p, move, 3, x, e);
}
