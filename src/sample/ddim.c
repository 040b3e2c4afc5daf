/* DDIM (Song et al. 2021, eq. 12 and 16), written in sigmas: with alpha_bar = 1 / (1 + sigma^2) its step keeps the predicted
 * noise direction at strength sqrt(to^2 - up^2) and draws up = eta to / from sqrt(from^2 - to^2) anew. With eta 0 that is
 * Euler's step; with eta 1 the original DDPM's. A flow model has alpha = 1 - sigma instead, and the ratio sigma / alpha in
 * the place of sigma.
 * A1111's own DDIM and PLMS (modules/sd_samplers_timesteps_impl.py) visit the timesteps but the lowest, so N of them are N - 1
 * steps, and x stays at the lowest one's level; with a picture x begins at the level of timestep t_enc and is looked at as if at
 * t_enc - 1. Here, as in diffusers and ComfyUI, N timesteps are N steps down to 0; a list of sigmas whose last is above 0 ends
 * where A1111 does. */
#include "sample/sampler.h"

#include <math.h>

/* In the exploding notation, where x is divided by its alpha: up for a step between two noise-to-picture ratios. The
 * division is written so that from may be infinite (a flow's start). */
static double ddim_up(double eta, double from, double to) { return eta * to * sqrt(fmax(1 - (to / from) * (to / from), 0)); }

sumi_status sm_sample_ddim(const sm_sampling *p, float *x, sm_err *e)
{
    float *x0 = sm_sample_room(p, 2, e), *noise = x0 ? x0 + p->n : NULL;
    sumi_status st = x0 ? SUMI_OK : SUMI_E_MEMORY;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        st = sm_sample_look(p, i, x, x0, e);
        if (st != SUMI_OK)
            break;
        double from = p->sigmas[i], to = p->sigmas[i + 1];
        double alpha_from = p->flow ? 1 - from : 1, alpha = p->flow ? 1 - to : 1;
        double up = alpha * ddim_up(p->eta, from / alpha_from, to / alpha);
        double along = sqrt(fmax(to * to - up * up, 0)); /* noise = (x - alpha_from x0) / from */
        sm_sample_blend(p, along / from, x, alpha - along * alpha_from / from, x0);
        if (up > 0)
            st = sm_sample_renoise(p, i, from, to, up, x, noise, e);
    }
    sm_free(x0);
    return st;
}
