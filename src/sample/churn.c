/* Churn (Karras et al. 2022, algorithm 2): before a step some noise is added, so that errors made so far fade. As k-diffusion's it
 * draws noise at every step, also where it adds none: a generator's later numbers stay where they are. */
#include "sample/sampler.h"

#include <math.h>

sumi_status sm_sample_churn(const sm_sampling *p, int step, float *x, double *sigma, float *room, sm_err *e)
{
    double at = p->sigmas[step], gamma = fmin(p->s_churn / p->steps, sqrt(2) - 1);
    *sigma = at;
    if (p->s_churn <= 0)
        return SUMI_OK;
    bool inside = at >= p->s_tmin && (p->s_tmax <= 0 || at <= p->s_tmax);
    *sigma = inside ? at * (1 + gamma) : at;
    return sm_sample_renoise(p, step, *sigma, at, inside ? at * sqrt(gamma * (2 + gamma)) : 0, x, room, e);
}
