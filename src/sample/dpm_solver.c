/* DPM-Solver of orders 1 to 3 (Lu et al. 2022, DPM-Solver: algorithms 1 and 2) as k-diffusion has it: DPM fast spends a number of
 * calls, DPM adaptive takes steps as long as orders 2 and 3 agree. Both step the noise eps = (x - x0) / sigma in t = -log sigma,
 * end at the lowest positive sigma, and with eta each step is ancestral. */
#include "sample/ancestral.h"

#include <math.h>

enum { EPS, EPS_1, EPS_2, PROBE, LOW, OLD, ROOMS };

typedef struct solver {
    const sm_sampling *p;
    float *room[ROOMS];
    double end; /* sigma */
    int draws;
} solver;

static sumi_status open_solver(solver *v, const sm_sampling *p, sm_err *e)
{
    float *room = sm_sample_room(p, ROOMS, e);
    double last = p->sigmas[p->steps];
    *v = (solver){.p = p, .end = last > 0 ? last : p->sigmas[p->steps - 1]};
    for (int k = 0; room && k < ROOMS; k++)
        v->room[k] = room + k * p->n;
    return room ? SUMI_OK : SUMI_E_MEMORY;
}

static void close_solver(solver *v) { sm_free(v->room[0]); }

/* x0 becomes eps, in place. */
static void to_eps(const sm_sampling *p, const float *x, double sigma, float *x0)
{
    for (int64_t i = 0; i < p->n; i++)
        x0[i] = (float)(((double)x[i] - x0[i]) / sigma);
}

/* eps at the step's beginning; tells on_step. */
static sumi_status begin(solver *v, int step, double sigma, float *x, sm_err *e)
{
    sumi_status st = sm_sample_look_at(v->p, step, sigma, x, v->room[EPS], e);
    if (st == SUMI_OK)
        to_eps(v->p, x, sigma, v->room[EPS]);
    return st;
}

/* eps at the share r of the step, of x + a eps + b (eps_1 - eps); eps_1 is not read where b is 0. */
static sumi_status inner(solver *v, double sigma, const float *x, double a, double b, float *out, sm_err *e)
{
    const float *eps = v->room[EPS], *eps_1 = v->room[EPS_1];
    float *probe = v->room[PROBE];
    for (int64_t i = 0; i < v->p->n; i++)
        probe[i] = (float)(x[i] + a * eps[i] + (b != 0 ? b * ((double)eps_1[i] - eps[i]) : 0));
    sumi_status st = sm_sample_denoise(v->p, probe, sigma, out, e);
    if (st == SUMI_OK)
        to_eps(v->p, probe, sigma, out);
    return st;
}

/* What a step between two sigmas does: x + a eps + b (eps_k - eps). */
typedef struct update {
    double a, b;
} update;

/* Of order 1 to 3, whose inner points eps_1 (at the share r of the step) and eps_2 (at 2/3) are filled in. */
static sumi_status step_update(solver *v, int order, double r, double from, double to, const float *x, update *u, sm_err *e)
{
    double h = log(from / to), s1 = from * exp(-r * h), s2 = from * exp(-2 * h / 3);
    *u = (update){to - from, 0}; /* -to (exp(h) - 1) */
    if (order == 1 || h == 0)
        return SUMI_OK;
    sumi_status st = inner(v, s1, x, s1 - from, 0, v->room[EPS_1], e);
    u->b = (to - from) / (2 * r);
    if (st != SUMI_OK || order == 2)
        return st;
    double g = 2 * h / 3; /* r is 1/3 for order 3, so eps_2's difference has the factor r2 / r1 = 2 */
    st = inner(v, s2, x, s2 - from, -2 * s2 * (expm1(g) / g - 1), v->room[EPS_2], e);
    u->b = -1.5 * to * (expm1(h) / h - 1);
    return st;
}

static void apply(const sm_sampling *p, const update *u, const float *eps, const float *inner_eps, float *x)
{
    for (int64_t i = 0; i < p->n; i++)
        x[i] = (float)(x[i] + u->a * eps[i] + (u->b != 0 ? u->b * ((double)inner_eps[i] - eps[i]) : 0));
}

/* The ancestral step never goes below the end. */
static sm_split split(const solver *v, double from, double to)
{
    sm_split s = sm_ancestral(v->p, from, to);
    return s.down < v->end ? sm_ancestral_below(v->p, to, v->end) : s;
}

/* One step to 0: there is no other level to end at. */
static sumi_status alone(solver *v, float *x, sm_err *e)
{
    sumi_status st = sm_sample_look(v->p, 0, x, v->room[EPS], e);
    if (st == SUMI_OK)
        sm_sample_blend(v->p, 0, x, 1, v->room[EPS]);
    return st;
}

/* ---- DPM fast ---- */

/* Steps of order 3 in equal parts of t, then what is left of the number of calls, but at least one lower step. */
static int fast_order(int calls, int step)
{
    int parts = calls / 3 + 1;
    if (step == parts - 1)
        return calls % 3 ? calls % 3 : 1;
    return calls % 3 == 0 && step == parts - 2 ? 2 : 3;
}

static sumi_status fast_step(solver *v, int i, int parts, double start, float *x, sm_err *e)
{
    const sm_sampling *p = v->p;
    double span = log(start / v->end), from = i ? start * exp(-span * i / parts) : start;
    double to = i == parts - 1 ? v->end : start * exp(-span * (i + 1) / parts);
    int order = fast_order(p->steps, i);
    sm_split s = split(v, from, to);
    update u;
    sumi_status st = begin(v, i, from, x, e);
    if (st == SUMI_OK)
        st = step_update(v, order, order == 3 ? 1.0 / 3 : 0.5, from, s.down, x, &u, e);
    if (st != SUMI_OK)
        return st;
    apply(p, &u, v->room[EPS], v->room[order == 3 ? EPS_2 : EPS_1], x);
    return sm_ancestral_noise(p, &s, i, from, to, x, v->room[PROBE], e);
}

sumi_status sm_sample_dpm_fast(const sm_sampling *p, float *x, sm_err *e)
{
    solver v;
    sumi_status st = open_solver(&v, p, e);
    if (st == SUMI_OK && v.end == p->sigmas[0])
        st = alone(&v, x, e);
    else
        for (int i = 0, parts = p->steps / 3 + 1; st == SUMI_OK && i < parts; i++)
            st = fast_step(&v, i, parts, p->sigmas[0], x, e);
    close_solver(&v);
    return st;
}

/* ---- DPM adaptive ---- */

/* k-diffusion's: tolerances on x, the first step in t, the acceptance threshold; a step's length follows the error alone (the
 * controller's other gains are zero). ATTEMPTS is ours: it ends what would not. */
static const double RTOL = 0.05, ATOL = 0.0078, FIRST = 0.05, SAFETY = 0.81, TINY = 1e-8, NEAR = 1e-5;
enum { ATTEMPTS = 10000 };

/* Writes x of order 3 to PROBE, of order 2 to LOW, and their RMS difference in units of the tolerance; OLD is LOW of the last
 * step. */
static double compare(const solver *v, const float *x, const update *low, const update *high)
{
    const float *eps = v->room[EPS], *eps_1 = v->room[EPS_1], *eps_2 = v->room[EPS_2], *old = v->room[OLD];
    double sum = 0;
    for (int64_t i = 0; i < v->p->n; i++) {
        double base = x[i] + low->a * eps[i], b2 = low->b != 0 ? low->b * ((double)eps_1[i] - eps[i]) : 0;
        double b3 = high->b != 0 ? high->b * ((double)eps_2[i] - eps[i]) : 0;
        double room = fmax(ATOL, RTOL * fmax(fabs(base + b2), fabs(old[i]))), d = (b2 - b3) / room;
        v->room[LOW][i] = (float)(base + b2);
        v->room[PROBE][i] = (float)(base + b3);
        sum += d * d;
    }
    return sqrt(sum / (double)v->p->n);
}

/* One attempt of length *h at step `step`; *t moves where it is accepted. */
static sumi_status attempt(solver *v, int step, double *t, double *h, float *x, bool *accepted, sm_err *e)
{
    const sm_sampling *p = v->p;
    double t_end = -log(v->end), next = fmin(t_end, *t + *h), from = exp(-*t), to = next == t_end ? v->end : exp(-next);
    sm_split s = split(v, from, to);
    update low, high;
    sumi_status st = begin(v, step, from, x, e);
    if (st == SUMI_OK)
        st = step_update(v, 3, 1.0 / 3, from, s.down, x, &high, e);
    if (st != SUMI_OK)
        return st;
    low = (update){s.down - from, 1.5 * (s.down - from)};
    double error = compare(v, x, &low, &high), factor = 1 + atan(pow(1 / (error + TINY), p->eta > 0 ? 1 / 1.5 : 1.0 / 3) - 1);
    *accepted = factor >= SAFETY;
    *h *= factor;
    if (!*accepted)
        return SUMI_OK;
    for (int64_t i = 0; i < p->n; i++) {
        x[i] = v->room[PROBE][i];
        v->room[OLD][i] = v->room[LOW][i];
    }
    *t = next;
    return sm_ancestral_noise(p, &s, v->draws++, from, to, x, v->room[PROBE], e);
}

static sumi_status adapt(solver *v, float *x, sm_err *e)
{
    double t = -log(v->p->sigmas[0]), t_end = -log(v->end), h = FIRST;
    sumi_status st = SUMI_OK;
    int step = 0;
    for (int64_t i = 0; i < v->p->n; i++)
        v->room[OLD][i] = x[i];
    for (int k = 0; st == SUMI_OK && t < t_end - NEAR; k++) {
        bool accepted = false;
        if (k == ATTEMPTS || t + h == t)
            return sm_fail(e, SUMI_E_NUMERIC, "dpm_adaptive: no step is accurate enough at noise level %g; take another sampler",
                           exp(-t));
        st = attempt(v, step, &t, &h, x, &accepted, e);
        step += accepted;
    }
    return st;
}

sumi_status sm_sample_dpm_adaptive(const sm_sampling *p, float *x, sm_err *e)
{
    solver v;
    sumi_status st = open_solver(&v, p, e);
    if (st == SUMI_OK)
        st = v.end == p->sigmas[0] ? alone(&v, x, e) : adapt(&v, x, e);
    close_solver(&v);
    return st;
}

int64_t sm_sample_dpm_fast_evals(const double *sigmas, int steps) { return steps; }
int64_t sm_sample_unknown_evals(const double *sigmas, int steps) { return 0; }
