/* UniPC (Zhao et al. 2023) of order 2 on x0: a step of an exponential integrator in lambda, which the next step's x0 corrects
 * without a call of its own. B(h), which scales the differences, is h in the form bh1 and e^h - 1 in bh2; as diffusers'
 * UniPCMultistepScheduler. The correction raises the order to 3. A flow's step from sigma 1 is Euler's and stays uncorrected. */
#include "sample/hop.h"

#include <string.h>

typedef struct unipc {
    const sm_sampling *p;
    bool bh1;
    int order;             /* of the last step */
    float *now, *m0, *m1;  /* x0 of this step, of the last two */
    float *last;           /* corrected x before the last step */
} unipc;

/* x = keep x - alpha (e^-h - 1) m0, what both forms have in common. */
static void base(const unipc *u, sm_hop s, const float *m0, float *x)
{
    sm_sample_blend(u->p, s.keep, x, -s.alpha * expm1(-s.h), m0);
}

static double scale(const unipc *u, sm_hop s) { return s.alpha * (u->bh1 ? -s.h : expm1(-s.h)); }

/* (lambda before the step at i - lambda there) / h: negative. */
static double ratio(const unipc *u, int i, sm_hop s) { return -sm_hop_at(u->p, i - 1).h / s.h; }

/* Makes the step that led to i anew, with the x0 found at its end. */
static void correct(const unipc *u, int i, float *x)
{
    sm_hop s = sm_hop_at(u->p, i - 1);
    double hh = -s.h, phi = expm1(hh), unit = scale(u, s) / s.alpha, back = 0, ahead = 0.5;
    if (!isfinite(s.h))
        return;
    if (u->order == 2) {
        double r = ratio(u, i - 1, s), phi2 = phi / hh - 1, b1 = phi2 / unit, b2 = (phi2 / hh - 0.5) * 2 / unit;
        double rho = (b1 - b2) / (1 - r); /* rho + ahead = b1, r rho + ahead = b2 */
        ahead = b1 - rho;
        back = rho / r;
    }
    memcpy(x, u->last, (size_t)u->p->n * sizeof *x);
    base(u, s, u->m0, x);
    double k = scale(u, s);
    for (int64_t j = 0; j < u->p->n; j++) {
        double d = ahead * ((double)u->now[j] - u->m0[j]) + (back != 0 ? back * ((double)u->m1[j] - u->m0[j]) : 0);
        x[j] = (float)(x[j] - k * d);
    }
}

static void predict(unipc *u, int i, float *x)
{
    sm_hop s = sm_hop_at(u->p, i);
    u->order = i > 0 && isfinite(sm_hop_at(u->p, i - 1).h) ? 2 : 1;
    double k = u->order == 2 ? -0.5 * scale(u, s) / ratio(u, i, s) : 0;
    base(u, s, u->m0, x);
    for (int64_t j = 0; k != 0 && j < u->p->n; j++)
        x[j] = (float)(x[j] + k * ((double)u->m1[j] - u->m0[j]));
}

static sumi_status run(const sm_sampling *p, bool bh1, float *x, sm_err *e)
{
    float *room = sm_sample_room(p, 4, e);
    sumi_status st = room ? SUMI_OK : SUMI_E_MEMORY;
    unipc u = {p, bh1, 1, room, room ? room + p->n : NULL, room ? room + 2 * p->n : NULL, room ? room + 3 * p->n : NULL};
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        st = sm_sample_look(p, i, x, u.now, e);
        if (st != SUMI_OK)
            break;
        if (p->sigmas[i + 1] == 0) { /* the correction would be scaled by 0 */
            sm_sample_blend(p, 0, x, 1, u.now);
            break;
        }
        if (i > 0)
            correct(&u, i, x);
        float *t = u.m1;
        u.m1 = u.m0;
        u.m0 = u.now;
        u.now = t;
        memcpy(u.last, x, (size_t)p->n * sizeof *x);
        predict(&u, i, x);
    }
    sm_free(room);
    return st;
}

sumi_status sm_sample_unipc_bh1(const sm_sampling *p, float *x, sm_err *e) { return run(p, true, x, e); }
sumi_status sm_sample_unipc_bh2(const sm_sampling *p, float *x, sm_err *e) { return run(p, false, x, e); }
