/* Euler's method along dx/dsigma = (x - x0) / sigma (Karras et al. 2022, algorithm 2 without its correction), and its ancestral
 * form (k-diffusion; for flow models as ComfyUI). */
#include "sample/ancestral.h"

/* x + (x - x0) / from (to - from) is a blend of x and x0. */
static sumi_status move(const sm_sampling *p, int step, double from, double to, float *x, float *x0, float *room, sm_err *e)
{
    sm_sample_blend(p, to / from, x, 1 - to / from, x0);
    return SUMI_OK;
}

sumi_status sm_sample_euler(const sm_sampling *p, float *x, sm_err *e) { return sm_sample_moves(p, move, 1, x, e); }
sumi_status sm_sample_euler_ancestral(const sm_sampling *p, float *x, sm_err *e) { return sm_ancestral_moves(p, move, 1, x, e); }
