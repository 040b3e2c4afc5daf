/* Ancestral steps (see ancestral.h). */
#include "sample/ancestral.h"

#include <math.h>

sm_split sm_ancestral_below(const sm_sampling *p, double to, double down)
{
    /* A flow's picture has the share 1 - down and must have 1 - to, which scales the noise that is left as well. */
    double keep = p->flow ? (1 - to) / (1 - down) : 1;
    return (sm_split){down, keep, sqrt(fmax(to * to - down * down * keep * keep, 0))};
}

sm_split sm_ancestral(const sm_sampling *p, double from, double to)
{
    if (to == 0 || p->eta == 0)
        return (sm_split){to, 1, 0};
    if (p->flow)
        return sm_ancestral_below(p, to, to * (1 + (to / from - 1) * p->eta));
    double up = fmin(to, p->eta * to / from * sqrt(from * from - to * to));
    return (sm_split){sqrt(to * to - up * up), 1, up};
}

sumi_status sm_ancestral_noise(const sm_sampling *p, const sm_split *s, int draw, double from, double to,
                               float *x, float *room, sm_err *e)
{
    if (!(s->up > 0))
        return SUMI_OK;
    if (s->keep != 1)
        for (int64_t i = 0; i < p->n; i++)
            x[i] = (float)(s->keep * x[i]);
    return sm_sample_renoise(p, draw, from, to, s->up, x, room, e);
}

sumi_status sm_ancestral_moves(const sm_sampling *p, sm_move *move, int rows, float *x, sm_err *e)
{
    float *x0 = sm_sample_room(p, rows, e);
    sumi_status st = x0 ? SUMI_OK : SUMI_E_MEMORY;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        double from = p->sigmas[i], to = p->sigmas[i + 1];
        sm_split s = sm_ancestral(p, from, to);
        st = sm_sample_look(p, i, x, x0, e);
        if (st == SUMI_OK)
            st = sm_sample_move(p, move, i, from, s.down, x, x0, x0 + p->n, e);
        if (st == SUMI_OK)
            st = sm_ancestral_noise(p, &s, i, from, to, x, x0, e);
    }
    sm_free(x0);
    return st;
}
