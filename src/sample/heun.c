/* Heun's method (Karras et al. 2022, algorithm 2): an Euler step, then the mean of the slopes at both ends. The step to sigma 0
 * stays Euler's, as the slope there is not defined. */
#include "sample/sampler.h"

sumi_status sm_sample_heun_move(const sm_sampling *p, int step, double from, double to, float *x, float *x0, float *room,
                                sm_err *e)
{
    float *probe = room, *x0_probe = room + p->n;
    sumi_status st = sm_sample_probe(p, from, to, x, x0, probe, x0_probe, e);
    for (int64_t k = 0; st == SUMI_OK && k < p->n; k++) {
        double d = ((double)x[k] - x0[k]) / from, d2 = ((double)probe[k] - x0_probe[k]) / to;
        x[k] = (float)(x[k] + 0.5 * (to - from) * (d + d2));
    }
    return st;
}

sumi_status sm_sample_heun(const sm_sampling *p, float *x, sm_err *e) { return sm_sample_moves(p, sm_sample_heun_move, 3, x, e); }
