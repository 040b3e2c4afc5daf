/* Restart sampling (Xu et al. 2023) with A1111's settings: Heun's method; from 20 steps on some of them are spent on going back
 * from sigma 0.1 to 2 with fresh noise and down again, once, from 36 steps on twice. The main way then goes by Karras's levels
 * whatever the schedule was. */
#include "sample/sampler.h"

#include <math.h>

typedef struct route {
    const double *given; /* the request's levels; NULL: Karras's */
    double high, low;
    int main, again, times; /* steps of the main way, of a repetition; repetitions */
    int bottom, top;        /* indices of the main way between which it is repeated */
} route;

/* Level i of n, from high to low. */
static double karras(double high, double low, int i, int n)
{
    double a = pow(high, 1.0 / 7), b = pow(low, 1.0 / 7);
    return i == 0 ? high : pow(a + (b - a) * i / (n - 1), 7);
}

static double level(const route *r, int i)
{
    if (r->given)
        return r->given[i];
    return i == r->main ? 0 : karras(r->high, r->low, i, r->main);
}

static int nearest(const route *r, double sigma)
{
    int best = 0;
    for (int i = 1; i <= r->main; i++)
        if (fabs(level(r, i) - sigma) < fabs(level(r, best) - sigma))
            best = i;
    return best;
}

static route plan(const double *sigmas, int steps)
{
    route r = {.given = sigmas, .main = steps};
    if (steps < 20 || sigmas[steps] > 0)
        return r;
    int times = steps < 36 ? 1 : 2, again = steps < 36 ? 9 : steps / 4;
    r = (route){.high = sigmas[0], .low = sigmas[steps - 1], .main = steps - again * times, .again = again};
    r.bottom = nearest(&r, 0.1);
    r.top = nearest(&r, 2);
    r.times = r.top < r.bottom ? times : 0;
    return r;
}

static int length(const route *r) { return r->main + r->times * r->again; }

/* The k-th step's levels. */
static void step_at(const route *r, int k, double *from, double *to)
{
    int extra = r->times * r->again;
    if (r->times && k >= r->bottom && k < r->bottom + extra) {
        int i = (k - r->bottom) % r->again;
        double high = level(r, r->top), low = level(r, r->bottom);
        *from = karras(high, low, i, r->again + 1);
        *to = karras(high, low, i + 1, r->again + 1);
        return;
    }
    int i = r->times && k >= r->bottom + extra ? k - extra : k;
    *from = level(r, i);
    *to = level(r, i + 1);
}

int64_t sm_sample_restart_evals(const double *sigmas, int steps)
{
    route r = plan(sigmas, steps);
    int64_t calls = 0;
    for (int k = 0; k < length(&r); k++) {
        double from, to;
        step_at(&r, k, &from, &to);
        calls += to == 0 ? 1 : 2;
    }
    return calls;
}

sumi_status sm_sample_restart(const sm_sampling *p, float *x, sm_err *e)
{
    route r = plan(p->sigmas, p->steps);
    float *x0 = sm_sample_room(p, 3, e);
    sumi_status st = x0 ? SUMI_OK : SUMI_E_MEMORY;
    double at = p->sigmas[0];
    int draws = 0;
    if (st == SUMI_OK && r.times && !p->noise)
        st = sm_fail(e, SUMI_E_INTERNAL, "sampler restart needs a source of noise");
    for (int k = 0; st == SUMI_OK && k < length(&r); k++) {
        double from, to;
        step_at(&r, k, &from, &to);
        if (from > at)
            st = sm_sample_renoise(p, draws++, from, at, sqrt(from * from - at * at), x, x0, e);
        if (st == SUMI_OK)
            st = sm_sample_look_at(p, k, from, x, x0, e);
        if (st == SUMI_OK)
            st = sm_sample_move(p, sm_sample_heun_move, k, from, to, x, x0, x0 + p->n, e);
        at = to;
    }
    sm_free(x0);
    return st;
}
