/* DPM-Solver-2 as k-diffusion has it, with Karras et al.'s churn, and its ancestral form (for flow models as ComfyUI): the slope
 * at the geometric middle of both levels makes the whole step. A step to sigma 0 stays Euler's. */
#include "sample/ancestral.h"

#include <math.h>

/* room: 2 n floats. */
static sumi_status move(const sm_sampling *p, int step, double from, double to, float *x, float *x0, float *room, sm_err *e)
{
    double mid = sqrt(from * to);
    float *probe = room, *x0_mid = room + p->n;
    sumi_status st = sm_sample_probe(p, from, mid, x, x0, probe, x0_mid, e);
    for (int64_t i = 0; st == SUMI_OK && i < p->n; i++)
        x[i] = (float)(x[i] + (to - from) * ((double)probe[i] - x0_mid[i]) / mid);
    return st;
}

sumi_status sm_sample_dpm2(const sm_sampling *p, float *x, sm_err *e) { return sm_sample_moves(p, move, 3, x, e); }
sumi_status sm_sample_dpm2_ancestral(const sm_sampling *p, float *x, sm_err *e) { return sm_ancestral_moves(p, move, 3, x, e); }
