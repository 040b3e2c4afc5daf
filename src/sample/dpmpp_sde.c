/* DPM-Solver++ for the diffusion SDE, one step of two stages (k-diffusion's DPM++ SDE, r = 1/2; for flow models as ComfyUI): both
 * stages are ancestral in sigma / alpha, the second with the first one's x0. Noise comes from one Brownian path, so that
 * that of the half step is part of that of the whole. */
#include "sample/snr.h"

#include <math.h>

/* out = x moved from one level to another with the noise of draw, where x0 stands for the whole way. out may be x. */
static sumi_status stage(const sm_sampling *p, int draw, double from, double to, const float *x, const float *x0, float *out,
                         float *room, sm_err *e)
{
    double a = sm_alpha(p, from), b = sm_alpha(p, to), ratio_from = from / a, ratio_to = to / b;
    double up = fmin(ratio_to, p->eta * ratio_to * sqrt(1 - (ratio_to / ratio_from) * (ratio_to / ratio_from)));
    double r = sqrt(ratio_to * ratio_to - up * up) / ratio_from;
    for (int64_t i = 0; i < p->n; i++)
        out[i] = (float)(b * (r / a * x[i] + (1 - r) * x0[i]));
    return up > 0 ? sm_sample_renoise(p, draw, from, to, b * up, out, room, e) : SUMI_OK;
}

/* One step at whose end sigma is positive. room: 2 n floats. */
static sumi_status move(const sm_sampling *p, int i, float *x, float *x0, float *room, sm_err *e)
{
    double from = p->sigmas[i], to = p->sigmas[i + 1], mid = sm_lambda_sigma(p, 0.5 * (sm_lambda(p, from) + sm_lambda(p, to)));
    float *probe = room, *noise = room + p->n;
    sumi_status st = stage(p, 2 * i, from, mid, x, x0, probe, noise, e);
    if (st == SUMI_OK)
        st = sm_sample_denoise(p, probe, mid, x0, e);
    return st == SUMI_OK ? stage(p, 2 * i + 1, from, to, x, x0, x, noise, e) : st;
}

static sumi_status run(const sm_sampling *p, float *x, sm_err *e)
{
    float *x0 = sm_sample_room(p, 3, e);
    sumi_status st = x0 ? SUMI_OK : SUMI_E_MEMORY;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        st = sm_sample_look(p, i, x, x0, e);
        if (st != SUMI_OK)
            break;
        if (p->sigmas[i + 1] == 0)
            sm_sample_blend(p, 0, x, 1, x0);
        else
            st = move(p, i, x, x0, x0 + p->n, e);
    }
    sm_free(x0);
    return st;
}

sumi_status sm_sample_dpmpp_sde(const sm_sampling *p, float *x, sm_err *e)
{
    sm_sampling q;
    double *sigmas = sm_sample_finite(p, &q, e);
    sumi_status st = sigmas ? run(&q, x, e) : SUMI_E_MEMORY;
    sm_free(sigmas);
    return st;
}
