/* CFG++ (Chung et al. 2024) as ComfyUI: a step goes to the guided x0, but along the noise that the unconditional prediction sees.
 * Guidance scales are small then, 0 to 2. */
#include "sample/snr.h"

#include <math.h>

/* Euler's and, with eta, DDIM's stochastic step in sigma / alpha. The ratios are written so that a flow's first, infinite one
 * does. */
static sumi_status euler_step(const sm_sampling *p, int i, float *x, const float *x0, const float *uncond, float *noise,
                              sm_err *e)
{
    double from = p->sigmas[i], to = p->sigmas[i + 1], a = sm_alpha(p, from), b = sm_alpha(p, to);
    double shrunk = to * a / (b * from), up = to * p->eta * sqrt(fmax(1 - shrunk * shrunk, 0)), down = sqrt(to * to - up * up);
    for (int64_t q = 0; q < p->n; q++)
        x[q] = (float)(b * x0[q] + down * ((double)x[q] - a * uncond[q]) / from);
    return up > 0 ? sm_sample_renoise(p, i, from, to, up, x, noise, e) : SUMI_OK;
}

sumi_status sm_sample_euler_cfgpp(const sm_sampling *p, float *x, sm_err *e)
{
    float *x0 = sm_sample_room(p, 3, e);
    sumi_status st = x0 ? SUMI_OK : SUMI_E_MEMORY;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        st = sm_sample_look_both(p, i, x, x0, x0 + p->n, e);
        if (st == SUMI_OK)
            st = euler_step(p, i, x, x0, x0 + p->n, x0 + 2 * p->n, e);
    }
    sm_free(x0);
    return st;
}

/* DPM++ 2M whose extrapolation is from the last unconditional x0 to this guided one. */
sumi_status sm_sample_dpmpp_2m_cfgpp(const sm_sampling *p, float *x, sm_err *e)
{
    float *x0 = sm_sample_room(p, 3, e), *uncond = x0 ? x0 + p->n : NULL, *old = x0 ? x0 + 2 * p->n : NULL;
    sumi_status st = x0 ? SUMI_OK : SUMI_E_MEMORY;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        st = sm_sample_look_both(p, i, x, x0, uncond, e);
        if (st != SUMI_OK)
            break;
        double from = p->sigmas[i], to = p->sigmas[i + 1], r = to / from, k = 0;
        if (i > 0 && to > 0)
            k = (1 - r) * log(from / to) / (2 * log(p->sigmas[i - 1] / from));
        for (int64_t q = 0; q < p->n; q++)
            x[q] = (float)(x0[q] + r * ((double)x[q] - uncond[q]) + (k != 0 ? k * ((double)x0[q] - old[q]) : 0));
        float *t = old;
        old = uncond;
        uncond = t;
    }
    sm_free(x0);
    return st;
}
