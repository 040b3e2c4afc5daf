/* Every sampler on a mixture of Gaussians in one dimension, where score, probability flow and distribution are known: the order
 * of convergence that its row claims, and that what it draws follows the distribution. */
#include "base/rng.h"
#include "sample/sampler.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 8192, FEW = 33, PARTS = 2 };

/* One deviation for both parts: the odds of the second are exp(bias + slope x). */
static const double share[PARTS] = {0.6, 0.4}, mean[PARTS] = {-1, 1.2}, dev = 0.5;

/* P(alpha x0 + sigma n < x). */
static double mass_below(double x, double sigma, double alpha)
{
    double s = sqrt(2 * (alpha * alpha * dev * dev + sigma * sigma));
    return 0.5 * (share[0] * erfc((alpha * mean[0] - x) / s) + share[1] * erfc((alpha * mean[1] - x) / s));
}

/* The x below which that much lies, by halving. */
static double quantile(double p, double sigma, double alpha)
{
    double reach = 9 * sqrt(alpha * alpha * dev * dev + sigma * sigma) + 1.3 * alpha, lo = -reach, hi = reach;
    for (int i = 0; i < 48; i++) {
        double mid = 0.5 * (lo + hi);
        if (mass_below(mid, sigma, alpha) < p)
            lo = mid;
        else
            hi = mid;
    }
    return 0.5 * (lo + hi);
}

/* The probability flow moves numbers without passing each other, so it keeps the mass below. */
static double exact(double x, double from, double to, bool flow)
{
    return quantile(mass_below(x, from, flow ? 1 - from : 1), to, flow ? 1 - to : 1);
}

typedef struct world {
    sm_sampling p;
    bool consistent; /* x0 is where the flow ends instead of the mean: what consistency models learn */
    int draws;
    double low;      /* a Brownian path: the lowest level it is known at, */
    float *path[2];  /* where the last increment began and at the lowest level */
    double began;
} world;

static sumi_status denoise(void *ctx, const float *x, double sigma, float *x0, sm_err *e)
{
    const world *w = ctx;
    double a = w->p.flow ? 1 - sigma : 1, var = a * a * dev * dev + sigma * sigma, gain = a * dev * dev / var;
    double slope = a * (mean[1] - mean[0]) / var;
    double bias = log(share[1] / share[0]) - a * a * (mean[1] * mean[1] - mean[0] * mean[0]) / (2 * var);
    for (int64_t i = 0; i < w->p.n; i++) {
        double second = 1 / (1 + exp(-(bias + slope * x[i])));
        double m = mean[0] + second * (mean[1] - mean[0]);
        x0[i] = (float)(w->consistent ? exact(x[i], sigma, 0, w->p.flow) : m + gain * (x[i] - a * m));
    }
    return SUMI_OK;
}

static void independent(world *w, float *out) { sm_rng_normal(7, 16 + (uint64_t)w->draws++, 0, out, (size_t)w->p.n); }

/* Increments of one path. Samplers ask downwards: one begins where the last one did, or at the lowest level so far. */
static void brownian(world *w, double from, double to, float *out)
{
    if (w->low == 0)
        w->low = w->began = from;
    if (from != w->began) {
        CHECKF(from == w->low, "increment from %g; the path is at %g and %g", from, w->began, w->low);
        memcpy(w->path[0], w->path[1], (size_t)w->p.n * sizeof *out);
        w->began = from;
    }
    CHECKF(to < w->low, "increment to %g after %g", to, w->low);
    independent(w, out);
    for (int64_t i = 0; i < w->p.n; i++) {
        w->path[1][i] += (float)(sqrt(w->low - to) * out[i]);
        out[i] = (float)((w->path[1][i] - w->path[0][i]) / sqrt(from - to));
    }
    w->low = to;
}

static sumi_status noise(void *ctx, int draw, double from, double to, float *out, sm_err *e)
{
    world *w = ctx;
    if (w->path[0])
        brownian(w, from, to, out);
    else
        independent(w, out);
    return SUMI_OK;
}

/* ---- order of convergence ---------------------------------------------------------------------------------------- */

/* By Karras's levels, which are uneven in sigma and in lambda, so that no sampler is exact by luck. */
static void levels(double from, double to, int n, double *sigmas)
{
    for (int i = 0; i <= n; i++)
        sigmas[i] = pow(pow(from, 1 / 7.) * (n - i) / n + pow(to, 1 / 7.) * i / n, 7);
}

/* RMS error against the exact flow after n steps without fresh noise. */
static double flow_error(const sm_sampler *s, bool flow, int n)
{
    double from = flow ? 0.6 : 0.8, to = flow ? 0.2 : 0.1, sigmas[256], start[FEW], sum = 0;
    float x[FEW];
    levels(from, to, n, sigmas);
    for (int i = 0; i < FEW; i++)
        start[i] = x[i] = (float)((i - FEW / 2) / 8.0 * (flow ? 1 : 1.4));
    world w = {.p = {.n = FEW, .flow = flow, .sigmas = sigmas, .steps = n, .denoise = denoise, .noise = noise}};
    w.p.ctx = &w;
    sm_err e = {0};
    CHECKF(sm_sample(s, &w.p, x, &e) == SUMI_OK, "%s", e.msg);
    for (int i = 0; i < FEW; i++) {
        double d = x[i] - exact(start[i], sigmas[0], sigmas[n], flow);
        sum += d * d / FEW;
    }
    return sqrt(sum);
}

/* Halving the steps divides the error by 2^order. Steps are few enough that float rounding, some 1e-7, stays far below. */
TEST(sample_gmm_order)
{
    static const int base[] = {0, 48, 24, 12};
    for (int k = 0; k < sm_sampler_count; k++) {
        const sm_sampler *s = &sm_samplers[k];
        for (int flow = 0; flow <= s->flow; flow++) {
            if (s->alone) { /* chooses its steps for an error of 0.0078 + 0.05 |x| in each */
                double d = flow_error(s, flow, 24);
                CHECKF(d < 0.02, "%s, %s: off by %g", s->name, flow ? "flow" : "VE", d);
                continue;
            }
            CHECKF(s->order >= 1 && s->order <= 3, "%s claims order %d", s->name, s->order);
            int n = base[s->order];
            double a = flow_error(s, flow, n), b = flow_error(s, flow, 2 * n), c = flow_error(s, flow, 4 * n);
            CHECKF(fabs(log2(b / c) - s->order) < 0.25 && c < b && b < a, "%s, %s: order %.2f, %.2f, not %d (errors %g, %g, %g)",
                   s->name, flow ? "flow" : "VE", log2(a / b), log2(b / c), s->order, a, b, c);
        }
    }
}

/* ---- distribution ------------------------------------------------------------------------------------------------ */

static int rising(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Largest distance of the distribution functions (Kolmogorov). Sorts x. */
static double distance(float *x)
{
    double d = 0;
    qsort(x, LANES, sizeof *x, rising);
    for (int i = 0; i < LANES; i++) {
        double p = mass_below(x[i], 0, 1);
        d = fmax(d, fmax(p - (double)i / LANES, (i + 1.0) / LANES - p));
    }
    return d;
}

/* Noisy pictures of the mixture. */
static void begin(const world *w, float *x)
{
    static float u[LANES], z[LANES];
    double s = w->p.sigmas[0], a = w->p.flow ? 1 - s : 1;
    sm_rng_uniform(5, 1, 0, u, LANES);
    sm_rng_normal(5, 2, 0, z, LANES);
    sm_rng_normal(5, 3, 0, x, LANES);
    for (int i = 0; i < LANES; i++)
        x[i] = (float)(a * (mean[u[i] >= share[0]] + dev * z[i]) + s * x[i]);
}

/* A sample of n is farther than d from its distribution with a chance below 2 exp(-2 n d^2) (Massart 1990): 1e-6 here, which
 * leaves what finite steps add. The second moment, to which that distance is deaf, is held to five of its deviations. */
static void follows(const sm_sampler *s, const sm_noise *m, int steps, double eta, double churn, bool consistent)
{
    static float x[LANES], path[2][LANES];
    double sigmas[256], far = sqrt(log(2e6) / (2.0 * LANES)), second = 0, fourth = 0, want = 0;
    sm_err e = {0};
    CHECK(sm_schedule_fill(sm_schedule_find(m->flow ? "normal" : "karras"), m, steps, sigmas, &e) == SUMI_OK);
    world w = {.p = {.n = LANES, .flow = m->flow, .levels = m, .sigmas = sigmas, .steps = steps, .eta = eta, .s_churn = churn,
                     .denoise = denoise, .noise = noise},
               .consistent = consistent};
    w.p.ctx = &w;
    memset(path, 0, sizeof path);
    if (s->brownian)
        w.path[0] = path[0], w.path[1] = path[1];
    begin(&w, x);
    CHECKF(sm_sample(s, &w.p, x, &e) == SUMI_OK, "%s", e.msg);
    for (int i = 0; i < LANES; i++) {
        second += (double)x[i] * x[i] / LANES;
        fourth += (double)x[i] * x[i] * x[i] * x[i] / LANES;
    }
    for (int k = 0; k < PARTS; k++)
        want += share[k] * (mean[k] * mean[k] + dev * dev);
    double d = distance(x), off = (second - want) / sqrt((fourth - second * second) / LANES);
    CHECKF(d < far, "%s, %s, eta %g, churn %g: the distribution is off by %.4f, more than %.4f", s->name,
           m->flow ? "flow" : "VE", eta, churn, d, far);
    CHECKF(fabs(off) < 5, "%s, %s, eta %g, churn %g: second moment %g, not %g, off by %.1f deviations", s->name,
           m->flow ? "flow" : "VE", eta, churn, second, want, off);
}

/* So many steps that their error in the distribution is below what the sample's size lets one see. lcm and tcd with fresh noise
 * jump to the end and back, which only a consistency model's x0 bears, in few steps. */
TEST(sample_gmm_distribution)
{
    sm_noise vp, flow;
    sm_err e = {0};
    CHECK(sm_noise_vp(&vp, NULL, SM_BETA_SCALED_LINEAR, 1000, 0.00085, 0.012, &e) == SUMI_OK);
    CHECK(sm_noise_flow(&flow, 1000, 1, &e) == SUMI_OK);
    for (int k = 0; k < sm_sampler_count; k++) {
        const sm_sampler *s = &sm_samplers[k];
        bool jumps = !strcmp(s->name, "lcm") || !strcmp(s->name, "tcd");
        int steps = s->order == 1 ? 160 : 80;
        for (int f = 0; f <= s->flow; f++) {
            const sm_noise *m = f ? &flow : &vp;
            follows(s, m, steps, 0, 0, false);
            if (s->stochastic)
                follows(s, m, jumps ? 4 : steps, 1, 0, jumps);
            if (s->churn && !f)
                follows(s, m, steps, 0, 20, false);
        }
    }
    sm_noise_free(&vp);
}
