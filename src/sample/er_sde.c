/* ER-SDE-Solver-3 (Cui et al. 2023, eq. 22) as ComfyUI has it: the reverse-time equation whose noise is set by a function phi of
 * q = sigma / alpha, here q (e^(q^0.3) + 10)^eta. eta 1 is the authors' choice, 0 the probability-flow equation. x0 is a
 * polynomial in q through the last three; its integrals against 1 / phi are the authors' sums of 200 terms, which is coarse but
 * what the references compute, and exact where eta is 0. Order 2 then, as the first step is Euler's. */
#include "sample/snr.h"

#include <math.h>

enum { TERMS = 200 };

static double ratio(const sm_sampling *p, double sigma) { return sigma / sm_alpha(p, sigma); }

/* phi(q) / q; infinite for a flow's start. */
static double excess(const sm_sampling *p, double q) { return pow(exp(pow(q, 0.3)) + 10, p->eta); }

/* s = integral of 1 / phi(q), u = that of (q - from) / phi(q), over (to, from), both times phi(to). */
static void integrals(const sm_sampling *p, double from, double to, double *s, double *u)
{
    double cell = (from - to) / TERMS, at_to = to * excess(p, to);
    *s = *u = 0;
    if (p->eta == 0) {
        *s = to * log(from / to);
        *u = to * (from - to) - from * *s;
        return;
    }
    for (int k = 0; k < TERMS; k++) {
        double q = to + k * cell, w = cell * at_to / (q * excess(p, q));
        *s += w;
        *u += w * (q - from);
    }
}

typedef struct history {
    float *x0, *old, *slope, *old_slope; /* x0 now and before, and their divided differences in q */
    float *room;
} history;

/* Slope of x0 in q over the last step, and the change of that slope, join x with their weights. */
static void refine(const sm_sampling *p, int i, const history *h, float *x)
{
    double from = ratio(p, p->sigmas[i]), to = ratio(p, p->sigmas[i + 1]), dt = to - from, s, u, c = 0;
    double alpha = sm_alpha(p, p->sigmas[i + 1]), q1 = ratio(p, p->sigmas[i - 1]);
    double q2 = i > 1 ? ratio(p, p->sigmas[i - 2]) : INFINITY;
    integrals(p, from, to, &s, &u);
    for (int64_t k = 0; k < p->n; k++)
        h->slope[k] = (float)(((double)h->x0[k] - h->old[k]) / (from - q1));
    if (isfinite(q2))
        c = alpha * (dt * dt / 2 + u) * 2 / (from - q2);
    for (int64_t k = 0; k < p->n; k++)
        x[k] = (float)(x[k] + alpha * (dt + s) * h->slope[k] + (c != 0 ? c * ((double)h->slope[k] - h->old_slope[k]) : 0));
}

static sumi_status step(const sm_sampling *p, int i, const history *h, float *x, sm_err *e)
{
    double from = p->sigmas[i], to = p->sigmas[i + 1], alpha = sm_alpha(p, to), q = ratio(p, from);
    double g = p->eta == 0 ? 1 : excess(p, ratio(p, to)) / excess(p, q); /* 0 from infinite q */
    sm_sample_blend(p, to / from * g, x, alpha - to / from * g * sm_alpha(p, from), h->x0);
    if (i > 0 && isfinite(ratio(p, p->sigmas[i - 1])))
        refine(p, i, h, x);
    double up = to * sqrt(fmax(1 - g * g, 0)); /* alpha sqrt(q_to^2 - q_from^2 (phi_to / phi_from)^2) */
    return p->eta > 0 ? sm_sample_renoise(p, i, from, to, up, x, h->room, e) : SUMI_OK;
}

sumi_status sm_sample_er_sde(const sm_sampling *p, float *x, sm_err *e)
{
    float *room = sm_sample_room(p, 5, e);
    sumi_status st = room ? SUMI_OK : SUMI_E_MEMORY;
    history h = {0};
    if (room)
        h = (history){room, room + p->n, room + 2 * p->n, room + 3 * p->n, room + 4 * p->n};
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        st = sm_sample_look(p, i, x, h.x0, e);
        if (st != SUMI_OK)
            break;
        if (p->sigmas[i + 1] == 0)
            sm_sample_blend(p, 0, x, 1, h.x0);
        else
            st = step(p, i, &h, x, e);
        h = (history){h.old, h.x0, h.old_slope, h.slope, h.room};
    }
    sm_free(room);
    return st;
}
