/* Gradient estimation (Permenter & Yuan 2024) as ComfyUI has it: Euler's step along 2 d - d_last, where d is the noise's
 * direction, whose change is taken as a sign of its error. Adams and Bashforth's weights would be 1.5 and -0.5, and of order 2;
 * with these it stays 1. */
#include "sample/sampler.h"

sumi_status sm_sample_gradient_estimation(const sm_sampling *p, float *x, sm_err *e)
{
    const double gamma = 2; /* the paper's and ComfyUI's */
    float *room = sm_sample_room(p, 3, e), *x0 = room, *d = room ? room + p->n : NULL, *last = room ? room + 2 * p->n : NULL;
    sumi_status st = room ? SUMI_OK : SUMI_E_MEMORY;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        st = sm_sample_look(p, i, x, x0, e);
        if (st != SUMI_OK)
            break;
        double from = p->sigmas[i], to = p->sigmas[i + 1], more = i > 0 ? gamma - 1 : 0;
        for (int64_t k = 0; k < p->n; k++)
            d[k] = (float)(((double)x[k] - x0[k]) / from);
        if (to == 0)
            sm_sample_blend(p, 0, x, 1, x0);
        else
            for (int64_t k = 0; k < p->n; k++)
                x[k] = (float)(x[k] + (to - from) * (d[k] + (more != 0 ? more * ((double)d[k] - last[k]) : 0)));
        float *t = last;
        last = d;
        d = t;
    }
    sm_free(room);
    return st;
}
