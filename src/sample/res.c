/* RES multistep (Zhang et al. 2023, "Refined exponential solver", eq. 25 for two steps) as ComfyUI has it: the exponential
 * integrator in -log sigma through the last two x0, with eta as an ancestral sampler. -log sigma is used for flow models as well,
 * whose derivative is the same; their fresh noise is split as in Euler ancestral, where ComfyUI's would leave the noise level. */
#include "sample/ancestral.h"

#include <math.h>

/* Weights of the last two x0 for a step of h in -log sigma; they lie c h apart. */
static void weights(double h, double c, double *now, double *old)
{
    double phi1 = expm1(-h) / -h, phi2 = (phi1 - 1) / -h;
    *old = h * phi2 / c;
    *now = h * phi1 - *old;
}

sumi_status sm_sample_res_multistep(const sm_sampling *p, float *x, sm_err *e)
{
    float *room = sm_sample_room(p, 3, e), *x0 = room, *old = room ? room + p->n : NULL;
    sumi_status st = room ? SUMI_OK : SUMI_E_MEMORY;
    double last_down = 0;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        st = sm_sample_look(p, i, x, x0, e);
        if (st != SUMI_OK)
            break;
        double from = p->sigmas[i], to = p->sigmas[i + 1], r, a, b = 0;
        sm_split s = sm_ancestral(p, from, to);
        r = s.down / from;
        a = 1 - r;
        if (i > 0 && to > 0) { /* the last x0 came before the noise that led from last_down to from: t_old - t_prev */
            double h = -log(r);
            weights(h, log(last_down / p->sigmas[i - 1]) / h, &a, &b);
        }
        for (int64_t k = 0; k < p->n; k++)
            x[k] = (float)(r * x[k] + a * x0[k] + (b != 0 ? b * old[k] : 0));
        st = sm_ancestral_noise(p, &s, i, from, to, x, room + 2 * p->n, e);
        last_down = s.down;
        float *t = old;
        old = x0;
        x0 = t;
    }
    sm_free(room);
    return st;
}
