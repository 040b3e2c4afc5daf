/* DPM-Solver++ for the diffusion SDE with one call a step (k-diffusion's DPM++ 2M SDE, midpoint and Heun, and DPM++ 3M SDE; for
 * flow models as ComfyUI): an exponential integrator in lambda whose x0 is extrapolated from the last two or three steps. With
 * eta the noise decays 1 + eta times as fast, and what is missing then is drawn from a Brownian path. */
#include "sample/snr.h"

#include <math.h>

typedef enum kind { MIDPOINT, HEUN, THIRD } kind;

/* x = keep x + now x0 + last (x0 one step ago) + first (x0 two steps ago) + up noise. */
typedef struct terms {
    double keep, now, last, first, up;
} terms;

/* h: the step in lambda; h1, h2: the ones before, 0 where there is none. */
static terms step_terms(const sm_sampling *p, kind k, double from, double to, double h, double h1, double h2)
{
    double he = h * (1 + p->eta), a = sm_alpha(p, to), grown = -expm1(-he);
    double phi2 = 1 - grown / he, phi3 = phi2 / he - 0.5;
    terms t = {.keep = to / from * exp(-h * p->eta), .now = a * grown, .up = to * sqrt(-expm1(-2 * h * p->eta))};
    if (h1 == 0)
        return t;
    /* factors of the last two differences, each by its own step */
    double near = a * (k == MIDPOINT ? 0.5 * grown : phi2), far = 0;
    if (k == THIRD && h2 > 0) {
        double sum = (h1 + h2) / h, curve = a * (phi2 * h1 / h - phi3) / sum;
        near += curve;
        far = -curve * h / h2;
    }
    near *= h / h1;
    t.now += near;
    t.last = far - near;
    t.first = -far;
    return t;
}

static void apply(const sm_sampling *p, const terms *t, float *x, float *const x0[3])
{
    for (int64_t i = 0; i < p->n; i++) {
        double v = t->keep * x[i] + t->now * x0[0][i];
        if (t->last != 0)
            v += t->last * x0[1][i];
        if (t->first != 0)
            v += t->first * x0[2][i];
        x[i] = (float)v;
    }
}

static sumi_status run(const sm_sampling *p, kind k, float *x, sm_err *e)
{
    float *room = sm_sample_room(p, 4, e);
    float *x0[3] = {room, room ? room + p->n : NULL, room ? room + 2 * p->n : NULL}, *noise = room ? room + 3 * p->n : NULL;
    double h1 = 0, h2 = 0;
    sumi_status st = room ? SUMI_OK : SUMI_E_MEMORY;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        double from = p->sigmas[i], to = p->sigmas[i + 1];
        st = sm_sample_look(p, i, x, x0[0], e);
        if (st != SUMI_OK)
            break;
        if (to == 0) {
            sm_sample_blend(p, 0, x, 1, x0[0]);
            break;
        }
        double h = sm_lambda(p, to) - sm_lambda(p, from);
        terms t = step_terms(p, k, from, to, h, h1, h2);
        apply(p, &t, x, x0);
        if (t.up > 0)
            st = sm_sample_renoise(p, i, from, to, t.up, x, noise, e);
        float *oldest = x0[2];
        x0[2] = x0[1];
        x0[1] = x0[0];
        x0[0] = oldest;
        h2 = h1;
        h1 = h;
    }
    sm_free(room);
    return st;
}

static sumi_status on_finite(const sm_sampling *p, kind k, float *x, sm_err *e)
{
    sm_sampling q;
    double *sigmas = sm_sample_finite(p, &q, e);
    sumi_status st = sigmas ? run(&q, k, x, e) : SUMI_E_MEMORY;
    sm_free(sigmas);
    return st;
}

sumi_status sm_sample_dpmpp_2m_sde(const sm_sampling *p, float *x, sm_err *e) { return on_finite(p, MIDPOINT, x, e); }
sumi_status sm_sample_dpmpp_2m_sde_heun(const sm_sampling *p, float *x, sm_err *e) { return on_finite(p, HEUN, x, e); }
sumi_status sm_sample_dpmpp_3m_sde(const sm_sampling *p, float *x, sm_err *e) { return on_finite(p, THIRD, x, e); }
