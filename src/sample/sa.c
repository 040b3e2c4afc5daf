/* SA-Solver (Xue et al. 2023) on x0: a stochastic Adams predictor in lambda, and a corrector that makes the last step anew, with
 * the same noise, from the x0 found at its end. tau, how much noise is drawn, is eta between 20 and 80 % of the timesteps and 0
 * outside (everywhere eta where timesteps are not known). sa_solver is ComfyUI's: predictor through 3 points, corrector through
 * 4. sa_solver_2 is diffusers' SASolverScheduler: 2 and 2, with the paper's simplified weights (appendix D). Without noise the
 * first is of order 3, not 4, as its first step is corrected through 2 points; the other of order 2. A flow's step from sigma 1
 * is Euler's and stays uncorrected. */
#include "sample/hop.h"

#include <string.h>

enum { MOST = 4 };

typedef struct kind {
    int predictor, corrector;
    bool simple;   /* weights of two points */
    bool at_start; /* tau is that of a step's start, and noise is drawn at every step; else that of its end, where tau > 0 */
} kind;

typedef struct adams {
    const sm_sampling *p;
    kind k;
    float *x0[MOST]; /* the latest first */
    float *last, *noise;
    double tau, up; /* of the last step; its noise is up noise */
    int draws;
} adams;

static double tau_of(const adams *a, int i)
{
    const sm_sampling *p = a->p;
    if (!p->levels)
        return p->eta;
    double t = sm_noise_t(p->levels, p->sigmas[a->k.at_start ? i : i + 1]), top = p->levels->steps;
    if (a->k.at_start)
        return round(t) >= 0.2 * top && round(t) <= 0.8 * top ? p->eta : 0;
    double whole = p->flow ? top : top - 1, to = p->sigmas[i + 1];
    return to >= sm_noise_sigma(p->levels, 0.2 * whole) && to <= sm_noise_sigma(p->levels, 0.8 * whole) ? p->eta : 0;
}

/* m[k]: integral of T e^(T u) u^k over u = lambda - its end, from -h to 0. */
static void moments(double rate, double h, double m[MOST])
{
    double decay = exp(-rate * h), power = 1;
    m[0] = -expm1(-rate * h);
    for (int k = 1; k < MOST; k++) {
        power *= -h;
        m[k] = -power * decay - k / rate * m[k - 1];
    }
}

/* b[j]: integral of the Lagrange polynomial of point u[j] of n. */
static void lagrange(const double *u, int n, const double m[MOST], double *b)
{
    for (int j = 0; j < n; j++) {
        double c[MOST] = {1}; /* product of (u - u[k]) / (u[j] - u[k]), by powers of u */
        for (int k = 0, deg = 0; k < n; k++) {
            if (k == j)
                continue;
            deg++;
            for (int d = deg; d >= 0; d--)
                c[d] = ((d > 0 ? c[d - 1] : 0) - u[k] * c[d]) / (u[j] - u[k]);
        }
        b[j] = 0;
        for (int d = 0; d < n; d++)
            b[j] += c[d] * m[d];
    }
}

/* Weights of the n latest x0, the first of which is at sigmas[newest], for the step from sigmas[i]. */
static void weights(const adams *a, int i, int newest, int n, double *b)
{
    sm_hop s = sm_hop_at(a->p, i);
    double rate = 1 + a->tau * a->tau, u[MOST], m[MOST];
    if (n == 1) {
        b[0] = -s.alpha * expm1(-rate * s.h);
        return;
    }
    if (n == 2 && a->k.simple) {
        double all = -s.alpha * expm1(-rate * s.h), last = i > 0 ? sm_hop_at(a->p, i - 1).h : 0;
        b[1] = newest > i ? all - s.alpha * 0.5 * rate * s.h : -s.alpha * 0.5 * rate * s.h * s.h / last;
        b[0] = all - b[1];
        return;
    }
    for (int j = 0; j < n; j++)
        u[j] = sm_lambda(a->p, a->p->sigmas[newest - j]) - s.lambda - s.h;
    moments(rate, s.h, m);
    lagrange(u, n, m, b);
    for (int j = 0; j < n; j++)
        b[j] *= s.alpha;
}

/* x goes the step from sigmas[i], by n of the x0. */
static void go(const adams *a, int i, int newest, int n, float *x)
{
    sm_hop s = sm_hop_at(a->p, i);
    double b[MOST], keep = a->tau > 0 ? s.keep * exp(-a->tau * a->tau * s.h) : s.keep;
    weights(a, i, newest, n, b);
    for (int64_t k = 0; k < a->p->n; k++) {
        double sum = keep * x[k] + (a->up > 0 ? a->up * a->noise[k] : 0);
        for (int j = 0; j < n; j++)
            sum += b[j] * a->x0[j][k];
        x[k] = (float)sum;
    }
}

/* How many points there are from `newest` back, at finite lambda, up to most. */
static int points(const adams *a, int newest, int most)
{
    int n = 1;
    while (n < most && n <= newest && isfinite(sm_lambda(a->p, a->p->sigmas[newest - n])))
        n++;
    return n;
}

static void correct(const adams *a, int i, float *x)
{
    int left = a->p->sigmas[a->p->steps] == 0 ? a->p->steps - i : MOST;
    if (!isfinite(sm_hop_at(a->p, i - 1).h))
        return;
    memcpy(x, a->last, (size_t)a->p->n * sizeof *x);
    go(a, i - 1, i, points(a, i, SM_MIN(a->k.corrector, left + a->k.at_start)), x);
}

static sumi_status predict(adams *a, int i, float *x, sm_err *e)
{
    const sm_sampling *p = a->p;
    int left = p->sigmas[p->steps] == 0 ? p->steps - 1 - i : MOST; /* steps to come before the one to 0: orders go down to it */
    double h = sm_hop_at(p, i).h;
    a->tau = tau_of(a, i);
    a->up = a->tau > 0 ? p->s_noise * p->sigmas[i + 1] * sqrt(-expm1(-2 * a->tau * a->tau * h)) : 0;
    memcpy(a->last, x, (size_t)p->n * sizeof *x);
    if (a->tau > 0 || (a->k.at_start && p->eta > 0)) {
        sumi_status st = p->noise(p->ctx, a->draws++, p->sigmas[i], p->sigmas[i + 1], a->noise, e);
        if (st != SUMI_OK)
            return st;
    }
    go(a, i, i, points(a, i, SM_MIN(a->k.predictor, left + a->k.at_start)), x);
    return SUMI_OK;
}

static sumi_status run(const sm_sampling *p, kind k, float *x, sm_err *e)
{
    float *room = sm_sample_room(p, MOST + 2, e);
    sumi_status st = room ? SUMI_OK : SUMI_E_MEMORY;
    adams a = {.p = p, .k = k, .last = room ? room + MOST * p->n : NULL, .noise = room ? room + (MOST + 1) * p->n : NULL};
    for (int j = 0; j < MOST; j++)
        a.x0[j] = room ? room + j * p->n : NULL;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        float *oldest = a.x0[MOST - 1];
        for (int j = MOST - 1; j > 0; j--)
            a.x0[j] = a.x0[j - 1];
        a.x0[0] = oldest;
        st = sm_sample_look(p, i, x, a.x0[0], e);
        if (st != SUMI_OK)
            break;
        if (p->sigmas[i + 1] == 0) {
            sm_sample_blend(p, 0, x, 1, a.x0[0]);
            break;
        }
        if (i > 0)
            correct(&a, i, x);
        st = predict(&a, i, x, e);
    }
    sm_free(room);
    return st;
}

sumi_status sm_sample_sa_solver(const sm_sampling *p, float *x, sm_err *e)
{
    return run(p, (kind){.predictor = 3, .corrector = 4}, x, e);
}

sumi_status sm_sample_sa_solver_2(const sm_sampling *p, float *x, sm_err *e)
{
    return run(p, (kind){.predictor = 2, .corrector = 2, .simple = true, .at_start = true}, x, e);
}
