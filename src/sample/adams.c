/* Adams-Bashforth methods: the slope dx/dsigma over a step is extrapolated from up to four, by weights meant for even steps.
 * PNDM (Liu et al. 2022) begins with Runge-Kutta steps, its form for Stable Diffusion, PLMS, with one of Heun (both as
 * diffusers' PNDMScheduler), iPNDM (Zhang & Chen 2023, Zhou et al. 2023; as ComfyUI) with Euler's; ipndm_v is iPNDM with
 * weights for uneven steps. In the variance-preserving notation of the paper its transfer (eq. 9) is the straight step
 * x + (to - from) slope here. As sigma is not even in the steps, and as a first step may be of low order, the order is 2
 * whatever the weights; it is the constant of the error that they make small. */
#include "sample/sampler.h"

#include <math.h>
#include <string.h>

enum { WARM = 3 }; /* Runge-Kutta steps before there is history enough */

typedef enum kind { IPNDM, IPNDM_V, PLMS, PNDM } kind;

typedef struct adams {
    const sm_sampling *p;
    float *d[4]; /* slopes, the latest first */
    int have;
    float *x0, *probe, *slope, *sum;
} adams;

static void slope_at(const adams *a, double sigma, const float *x, const float *x0, float *d)
{
    for (int64_t k = 0; k < a->p->n; k++)
        d[k] = (float)(((double)x[k] - x0[k]) / sigma);
}

static void push(adams *a, double sigma, const float *x)
{
    float *oldest = a->d[3];
    for (int k = 3; k > 0; k--)
        a->d[k] = a->d[k - 1];
    a->d[0] = oldest;
    a->have = SM_MIN(a->have + 1, 4);
    slope_at(a, sigma, x, a->x0, a->d[0]);
}

/* ipndm_v's weights for step i. They are ComfyUI's and its source's, which for uneven steps are Adams and Bashforth's only up to
 * two points: the first temp lacks a pair of brackets and w[3] has h1 / h2 for h2 / h3. */
static void uneven(const adams *a, int i, double w[4])
{
    const double *s = a->p->sigmas + i;
    double h = s[1] - s[0], h1 = a->have > 1 ? s[0] - s[-1] : 1, h2 = a->have > 2 ? s[-1] - s[-2] : 1, r = h1 / h2;
    w[0] = 1;
    if (a->have > 1) {
        w[0] += h / h1 / 2;
        w[1] = -h / h1 / 2;
    }
    if (a->have > 2) {
        double temp = (1 - h * h / (3 * h1 * (h1 + h2))) / 2;
        w[0] += temp;
        w[1] -= (1 + r) * temp;
        w[2] = r * temp;
    }
    if (a->have > 3) {
        double h3 = s[-2] - s[-3], two = h + h1, three = two + h2, q = h1 * (h1 + h2) / (h2 * (h2 + h3));
        double temp = ((1 - h / (3 * two)) / 2 + (1 - h / (2 * two)) * h / (6 * three)) * (h * two * three) /
                      (h1 * (h1 + h2) * (h1 + h2 + h3));
        w[0] += temp;
        w[1] -= (1 + r + q) * temp;
        w[2] += (r + q * (1 + h2 / h3)) * temp;
        w[3] = -q * r * temp;
    }
}

static void extrapolate(const adams *a, int i, kind what, float *x)
{
    static const double even[4][4] = {
        {1}, {3 / 2., -1 / 2.}, {23 / 12., -16 / 12., 5 / 12.}, {55 / 24., -59 / 24., 37 / 24., -9 / 24.}};
    double dt = a->p->sigmas[i + 1] - a->p->sigmas[i], w[4];
    memcpy(w, even[a->have - 1], sizeof w);
    if (what == IPNDM_V)
        uneven(a, i, w);
    for (int64_t k = 0; k < a->p->n; k++) {
        double d = 0;
        for (int j = 0; j < a->have; j++)
            d += w[j] * a->d[j][k];
        x[k] = (float)(x[k] + dt * d);
    }
}

/* slope = that at x + reach d, whose noise level is sigma; joins the sum with weight w. */
static sumi_status probe(adams *a, const float *x, double reach, const float *d, double sigma, double w, sm_err *e)
{
    for (int64_t k = 0; k < a->p->n; k++)
        a->probe[k] = (float)(x[k] + reach * d[k]);
    sumi_status st = sm_sample_denoise(a->p, a->probe, sigma, a->x0, e);
    if (st != SUMI_OK)
        return st;
    slope_at(a, sigma, a->probe, a->x0, a->slope);
    sm_sample_blend(a->p, 1, a->sum, w, a->slope);
    return SUMI_OK;
}

static sumi_status heun(adams *a, double from, double to, float *x, sm_err *e)
{
    sm_sample_blend(a->p, 0, a->sum, 0.5, a->d[0]);
    sumi_status st = probe(a, x, to - from, a->d[0], to, 0.5, e);
    sm_sample_blend(a->p, 1, x, to - from, a->sum);
    return st;
}

/* The level at the middle timestep; the middle of lambda where timesteps are not known. */
static double middle(const sm_sampling *p, double from, double to)
{
    double mid = p->flow ? 0.5 * (from + to) : sqrt(from * to);
    if (!p->flow && p->levels) {
        double s = sm_noise_sigma(p->levels, 0.5 * (sm_noise_t(p->levels, from) + sm_noise_t(p->levels, to)));
        mid = s > to && s < from ? s : mid;
    }
    return mid;
}

static sumi_status runge_kutta(adams *a, double from, double to, float *x, sm_err *e)
{
    double mid = middle(a->p, from, to);
    sm_sample_blend(a->p, 0, a->sum, 1 / 6., a->d[0]);
    sumi_status st = probe(a, x, mid - from, a->d[0], mid, 1 / 3., e);
    st = st != SUMI_OK ? st : probe(a, x, mid - from, a->slope, mid, 1 / 3., e);
    st = st != SUMI_OK ? st : probe(a, x, to - from, a->slope, to, 1 / 6., e);
    sm_sample_blend(a->p, 1, x, to - from, a->sum);
    return st;
}

static sumi_status run(const sm_sampling *p, kind what, float *x, sm_err *e)
{
    float *room = sm_sample_room(p, 8, e);
    sumi_status st = room ? SUMI_OK : SUMI_E_MEMORY;
    adams a = {.p = p};
    if (room) {
        for (int k = 0; k < 4; k++)
            a.d[k] = room + k * p->n;
        a.x0 = room + 4 * p->n, a.probe = room + 5 * p->n, a.slope = room + 6 * p->n, a.sum = room + 7 * p->n;
        memset(a.sum, 0, (size_t)p->n * sizeof *a.sum); /* blended with weight 0 at first */
    }
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        double from = p->sigmas[i], to = p->sigmas[i + 1];
        st = sm_sample_look(p, i, x, a.x0, e);
        if (st != SUMI_OK)
            break;
        push(&a, from, x);
        if (to > 0 && i == 0 && what == PLMS)
            st = heun(&a, from, to, x, e);
        else if (to > 0 && i < WARM && what == PNDM)
            st = runge_kutta(&a, from, to, x, e);
        else if (to == 0 && (what == IPNDM || what == IPNDM_V))
            sm_sample_blend(p, 0, x, 1, a.x0);
        else
            extrapolate(&a, i, what, x);
    }
    sm_free(room);
    return st;
}

sumi_status sm_sample_ipndm(const sm_sampling *p, float *x, sm_err *e) { return run(p, IPNDM, x, e); }
sumi_status sm_sample_ipndm_v(const sm_sampling *p, float *x, sm_err *e) { return run(p, IPNDM_V, x, e); }
sumi_status sm_sample_plms(const sm_sampling *p, float *x, sm_err *e) { return run(p, PLMS, x, e); }
sumi_status sm_sample_pndm(const sm_sampling *p, float *x, sm_err *e) { return run(p, PNDM, x, e); }

int64_t sm_sample_plms_evals(const double *sigmas, int steps) { return (int64_t)steps + (sigmas[1] > 0); }

int64_t sm_sample_pndm_evals(const double *sigmas, int steps)
{
    return (int64_t)steps + 3 * SM_MIN(steps - (sigmas[steps] == 0), WARM);
}
