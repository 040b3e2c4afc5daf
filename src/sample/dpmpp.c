/* DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): exponential integrator in lambda = log(alpha / sigma), with x0
 * extrapolated from the last two steps. alpha is 1, or 1 - sigma for flow models, whose lambda begins at minus infinity:
 * the first step there is Euler's, and so is the second, as the infinite step before it weighs nothing. */
#include "sample/sampler.h"

#include <math.h>

static double lambda(const sm_sampling *p, double sigma) { return log((p->flow ? 1 - sigma : 1) / sigma); }

/* How much of the last change of x0 is added to it: h / (2 h_last); nothing at the ends. */
static double extrapolation(const sm_sampling *p, int i)
{
    if (i == 0 || p->sigmas[i + 1] == 0)
        return 0;
    double now = lambda(p, p->sigmas[i]), h = lambda(p, p->sigmas[i + 1]) - now, last = now - lambda(p, p->sigmas[i - 1]);
    return isfinite(last) ? h / (2 * last) : 0;
}

sumi_status sm_sample_dpmpp_2m(const sm_sampling *p, float *x, sm_err *e)
{
    float *room = sm_sample_room(p, 2, e), *x0 = room, *old = room ? room + p->n : NULL;
    sumi_status st = room ? SUMI_OK : SUMI_E_MEMORY;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        st = sm_sample_look(p, i, x, x0, e);
        if (st != SUMI_OK)
            break;
        /* alpha_to (1 - exp(-h)) is 1 - to / from for both kinds of noise. */
        double r = p->sigmas[i + 1] / p->sigmas[i], k = extrapolation(p, i), a = (1 - r) * (1 + k), b = (1 - r) * k;
        for (int64_t j = 0; j < p->n; j++)
            x[j] = (float)(r * x[j] + a * x0[j] - (k != 0 ? b * old[j] : 0));
        float *t = old;
        old = x0;
        x0 = t;
    }
    sm_free(room);
    return st;
}
