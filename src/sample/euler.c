/* Euler's method along dx/dsigma = (x - x0) / sigma (Karras et al. 2022, algorithm 2 without churn), and its ancestral
 * form, which steps below the next noise level and draws the difference anew (k-diffusion; for flow models as ComfyUI). */
#include "sample/sampler.h"

#include <math.h>

/* x + (x - x0) / from (to - from) is a blend of x and x0; at to = 0 it is x0 itself. */
static void euler_step(const sm_sampling *p, double from, double to, float *x, const float *x0)
{
    double r = to / from;
    sm_sample_blend(p, r, x, 1 - r, x0);
}

sumi_status sm_sample_euler(const sm_sampling *p, float *x, sm_err *e)
{
    float *x0 = sm_sample_room(p, 1, e);
    sumi_status st = x0 ? SUMI_OK : SUMI_E_MEMORY;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        st = sm_sample_look(p, i, x, x0, e);
        if (st == SUMI_OK)
            euler_step(p, p->sigmas[i], p->sigmas[i + 1], x, x0);
    }
    sm_free(x0);
    return st;
}

/* A step goes down to `down`, is scaled by `keep` and gets `up` of fresh noise, so that the noise level is `to` again. */
typedef struct split {
    double down, keep, up;
} split;

static split ancestral(const sm_sampling *p, double from, double to)
{
    if (to == 0 || p->eta == 0)
        return (split){to, 1, 0};
    if (!p->flow) {
        double up = fmin(to, p->eta * to / from * sqrt(from * from - to * to));
        return (split){sqrt(to * to - up * up), 1, up};
    }
    /* The picture's share must rise from 1 - down to 1 - to, which scales the noise left as well. */
    double down = to * (1 + (to / from - 1) * p->eta), keep = (1 - to) / (1 - down);
    return (split){down, keep, sqrt(fmax(to * to - down * down * keep * keep, 0))};
}

sumi_status sm_sample_euler_ancestral(const sm_sampling *p, float *x, sm_err *e)
{
    float *x0 = sm_sample_room(p, 2, e), *noise = x0 ? x0 + p->n : NULL;
    sumi_status st = x0 ? SUMI_OK : SUMI_E_MEMORY;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        st = sm_sample_look(p, i, x, x0, e);
        if (st != SUMI_OK)
            break;
        split s = ancestral(p, p->sigmas[i], p->sigmas[i + 1]);
        double r = s.down / p->sigmas[i];
        sm_sample_blend(p, s.keep * r, x, s.keep * (1 - r), x0);
        if (s.up > 0)
            st = sm_sample_renoise(p, i, p->sigmas[i], p->sigmas[i + 1], s.up, x, noise, e);
    }
    sm_free(x0);
    return st;
}
