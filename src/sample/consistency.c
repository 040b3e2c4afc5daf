/* Samplers of consistency models, which predict x0 in one go from any noise level. LCM (Luo et al. 2023) adds all of the next
 * level's noise to it anew. TCD (Zheng et al. 2024) goes down along the predicted noise to timestep (1 - gamma) of the next one
 * and up from there; gamma is eta here. As diffusers' LCMScheduler and TCDScheduler, but that LCM's boundary scalings, which
 * differ from 0 and 1 by 7e-6 at the lowest timestep that models are distilled at (19) and less above, are left out, as in
 * ComfyUI. With eta 0 both are Euler's method. Flow models as diffusers' FlowMatchLCMScheduler. */
#include "sample/snr.h"

#include <math.h>

/* One step: the picture estimate x0 and the noise it leaves are mixed for the level `down`, scaled to the next level's share of
 * picture, and fresh noise makes up for the rest. */
static sumi_status step(const sm_sampling *p, int i, double down, float *x, const float *x0, float *room, sm_err *e)
{
    double from = p->sigmas[i], to = p->sigmas[i + 1], keep = sm_alpha(p, to) / sm_alpha(p, down), r = down / from;
    double up = sqrt(fmax(to * to - down * down * keep * keep, 0));
    sm_sample_blend(p, keep * r, x, keep * (sm_alpha(p, down) - r * sm_alpha(p, from)), x0);
    return up > 0 && p->eta > 0 ? sm_sample_renoise(p, i, from, to, up, x, room, e) : SUMI_OK;
}

/* So that a share eta of the deviation is new. */
static double lcm_down(const sm_sampling *p, double to)
{
    if (!p->flow)
        return to * sqrt(fmax(1 - p->eta * p->eta, 0));
    double r = to / (1 - to) * sqrt(fmax(1 - p->eta * p->eta, 0)); /* the same of the ratio sigma / alpha */
    return r / (1 + r);
}

/* Timesteps are whole numbers where models know them so; what is off by rounding is taken as whole. */
static double tcd_down(const sm_sampling *p, double to)
{
    if (p->eta == 0 || to == 0 || p->flow || !p->levels)
        return (1 - p->eta) * to;
    return fmin(to, sm_noise_sigma(p->levels, floor((1 - p->eta) * sm_noise_t(p->levels, to) + 1e-6)));
}

static sumi_status run(const sm_sampling *p, double (*down)(const sm_sampling *, double), float *x, sm_err *e)
{
    float *x0 = sm_sample_room(p, 2, e);
    sumi_status st = x0 ? SUMI_OK : SUMI_E_MEMORY;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        st = sm_sample_look(p, i, x, x0, e);
        if (st == SUMI_OK)
            st = step(p, i, down(p, p->sigmas[i + 1]), x, x0, x0 + p->n, e);
    }
    sm_free(x0);
    return st;
}

sumi_status sm_sample_lcm(const sm_sampling *p, float *x, sm_err *e) { return run(p, lcm_down, x, e); }
sumi_status sm_sample_tcd(const sm_sampling *p, float *x, sm_err *e) { return run(p, tcd_down, x, e); }
