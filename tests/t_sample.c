/* Parameterisations, samplers and guidance against diffusers and k-diffusion (tests/fixtures/samplers.json, made by
 * tools/fixtures/make_samplers.py) on an analytic denoiser, every step; orders of convergence against the exact flow; and
 * properties that follow from the definitions. */
#include "sample/param.h"
#include "sample/sampler.h"
#include "known.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_N = 4096 };

static double num(const cJSON *o, const char *key) { return cJSON_GetNumberValue(cJSON_GetObjectItem(o, key)); }
static const char *str(const cJSON *o, const char *key) { return cJSON_GetStringValue(cJSON_GetObjectItem(o, key)); }

static int list(const cJSON *a, double *out)
{
    int n = 0;
    const cJSON *v;
    cJSON_ArrayForEach(v, a) if (n < MAX_N) out[n++] = v->valuedouble;
    return n;
}

static bool near(double a, double b, double rel) { return fabs(a - b) <= rel * (1e-3 + fabs(b)); }

/* ---- the analytic denoiser --------------------------------------------------------------------------------------- */

typedef struct world {
    sm_sampling p;
    double noise[64][64], x[64][64], x0[64][64]; /* by step */
    int seen, calls, stop_at, fail_at;
} world;

static sumi_status world_denoise(void *ctx, const float *x, double sigma, float *x0, sm_err *e)
{
    world *w = ctx;
    w->calls++;
    for (int64_t i = 0; i < w->p.n; i++)
        x0[i] = w->calls == w->fail_at ? NAN : (float)known_x0(x[i], sigma, w->p.flow ? 1 - sigma : 1, 0);
    return SUMI_OK;
}

static sumi_status world_noise(void *ctx, int draw, double from, double to, float *out, sm_err *e)
{
    world *w = ctx;
    for (int64_t i = 0; i < w->p.n; i++)
        out[i] = (float)w->noise[draw][i];
    return SUMI_OK;
}

static bool world_step(void *ctx, int step, double sigma, const float *x, const float *x0)
{
    world *w = ctx;
    for (int64_t i = 0; step < 64 && i < w->p.n && i < 64; i++) {
        w->x[step][i] = x[i];
        w->x0[step][i] = x0[i];
    }
    w->seen++;
    return step != w->stop_at;
}

static world *world_new(bool flow, const double *sigmas, int steps, int64_t n)
{
    world *w = calloc(1, sizeof *w);
    w->p = (sm_sampling){.n = n,
                         .flow = flow,
                         .sigmas = sigmas,
                         .steps = steps,
                         .eta = -1,
                         .denoise = world_denoise,
                         .noise = world_noise,
                         .on_step = world_step,
                         .ctx = w};
    w->stop_at = -1;
    return w;
}

/* ---- parameterisations ------------------------------------------------------------------------------------------- */

/* A model that knows x0 and the noise exactly must be turned into x0, from the definitions of what each one predicts. */
TEST(sample_parameterisations)
{
    sm_noise sd, flow;
    sm_err e = {0};
    CHECK(sm_noise_vp(&sd, NULL, SM_BETA_SCALED_LINEAR, 1000, 0.00085, 0.012, &e) == SUMI_OK);
    CHECK(sm_noise_flow(&flow, 1000, 3, &e) == SUMI_OK);
    float x0[32], noise[32], x[32], in[32], out[32], got[32];
    test_fill(x0, 32, 1, -2, 2);
    test_fill(noise, 32, 2, -2, 2);
    for (int t = 1; t < 1000; t += 111) {
        for (int k = SM_PRED_EPS; k <= SM_PRED_FLOW; k++) {
            const sm_noise *m = k == SM_PRED_FLOW ? &flow : &sd;
            double s = sm_noise_sigma(m, t), a = 1 / sqrt(1 + s * s), b = s * a; /* VP: a x0 + b noise */
            sm_noise_mix(m->flow, s, x0, noise, x, 32);
            sm_precond p;
            CHECKF(sm_precond_at(m, (sm_pred)k, s, &p, &e) == SUMI_OK, "%s", e.msg);
            CHECK(near(p.t, m->flow ? s * 1000 : t, 1e-9));
            sm_precond_in(&p, x, in, 32);
            for (int i = 0; i < 32; i++) {
                if (!m->flow)
                    CHECK(fabs(in[i] - (a * x0[i] + b * noise[i])) < 1e-5);
                double model[] = {noise[i], a * noise[i] - b * x0[i], x0[i], (double)noise[i] - x0[i]};
                out[i] = (float)model[k];
            }
            sm_precond_out(&p, x, out, got, 32);
            CHECKF(test_maxdiff(got, x0, 32) < 1e-5 * (1 + s), "prediction %d at sigma %g: %g", k, s, test_maxdiff(got, x0, 32));
        }
    }
    sm_precond p;
    CHECK(sm_precond_at(&flow, SM_PRED_EPS, 0.5, &p, NULL) == SUMI_E_MODEL);
    CHECK(sm_precond_at(&sd, SM_PRED_FLOW, 0.5, &p, NULL) == SUMI_E_MODEL);
    CHECK(sm_precond_at(&sd, SM_PRED_EPS, 0, &p, NULL) == SUMI_E_INTERNAL);
    sm_pred pred;
    CHECK(sm_pred_by_name("v_prediction", &pred) && pred == SM_PRED_V && !sm_pred_by_name("velocity", &pred));
    sm_noise_free(&sd);
}

/* ---- samplers ---------------------------------------------------------------------------------------------------- */

static double worst(const double *got, const cJSON *want)
{
    double w[64], d = 0;
    int n = list(want, w);
    for (int i = 0; i < n; i++) {
        double off = fabs(got[i] - w[i]) / (1 + fabs(w[i]));
        d = off <= d ? d : isnan(off) ? INFINITY : off;
    }
    return n ? d : INFINITY;
}

static void check_trajectory(const cJSON *r)
{
    double sigmas[64], end[64], v[64];
    int steps = list(cJSON_GetObjectItem(r, "sigmas"), sigmas) - 1;
    const cJSON *want = cJSON_GetObjectItem(r, "steps"), *first = cJSON_GetObjectItem(cJSON_GetArrayItem(want, 0), "x");
    float x[64];
    int n = list(first, v);
    for (int i = 0; i < n; i++)
        x[i] = (float)v[i];
    world *w = world_new(cJSON_IsTrue(cJSON_GetObjectItem(r, "flow")), sigmas, steps, n);
    w->p.eta = num(r, "eta");
    const cJSON *noise = cJSON_GetObjectItem(r, "noise");
    for (int i = 0; i < cJSON_GetArraySize(noise); i++)
        list(cJSON_GetArrayItem(noise, i), w->noise[i]);
    const sm_sampler *s = sm_sampler_find(str(r, "sampler"));
    sm_err e = {0};
    CHECKF(s && sm_sample(s, &w->p, x, &e) == SUMI_OK, "%s", e.msg);
    CHECK(s && w->seen == steps && w->calls == sm_sampler_evals(s, sigmas, steps));
    double d = 0;
    for (int i = 0; i < steps; i++) {
        const cJSON *at = cJSON_GetArrayItem(want, i);
        d = fmax(d, fmax(worst(w->x[i], cJSON_GetObjectItem(at, "x")), worst(w->x0[i], cJSON_GetObjectItem(at, "x0"))));
        CHECK(cJSON_GetArraySize(cJSON_GetObjectItem(at, "x")) == n);
        CHECKF(d < 1e-5, "%s, eta %g, against %s: step %d is off by %g", str(r, "sampler"), num(r, "eta"), str(r, "source"), i,
               d);
    }
    for (int i = 0; i < n; i++)
        end[i] = x[i];
    CHECKF(worst(end, cJSON_GetObjectItem(r, "end")) < 1e-5, "%s against %s: the end is off by %g", str(r, "sampler"),
           str(r, "source"), worst(end, cJSON_GetObjectItem(r, "end")));
    free(w);
}

TEST(sample_trajectories)
{
    cJSON *j = known_json("samplers.json"), *rows = cJSON_GetObjectItem(j, "trajectories"), *r;
    int seen = 0;
    cJSON_ArrayForEach(r, rows)
    {
        check_trajectory(r);
        seen++;
    }
    CHECK(seen == 13);
    cJSON_Delete(j);
}

/* Cumulative distribution of x at a noise level. */
static double mass_below(double x, double sigma, double alpha)
{
    double p = 0;
    for (int k = 0; k < 3; k++)
        p += known_share[k] * 0.5 *
            erfc((alpha * known_mean[k] - x) / sqrt(2 * (alpha * alpha * known_dev[k] * known_dev[k] + sigma * sigma)));
    return p;
}

/* The probability-flow ODE moves numbers without passing each other, so it keeps the mass below: the exact flow. */
static double exact(double x, double from, double to, bool flow)
{
    double p = mass_below(x, from, flow ? 1 - from : 1), lo = -200, hi = 200;
    for (int i = 0; i < 200; i++) {
        double mid = 0.5 * (lo + hi);
        if (mass_below(mid, to, flow ? 1 - to : 1) < p)
            lo = mid;
        else
            hi = mid;
    }
    return 0.5 * (lo + hi);
}

/* RMS error of a sampler with n steps, evenly spaced in log(sigma / alpha). */
static double flow_error(const sm_sampler *s, bool flow, int n)
{
    double from = flow ? 0.97 : 10, to = flow ? 0.2 : 0.3, sigmas[257], l0, l1, sum = 0;
    l0 = log(from / (flow ? 1 - from : 1));
    l1 = log(to / (flow ? 1 - to : 1));
    for (int i = 0; i <= n; i++) {
        double q = exp(l0 + (l1 - l0) * i / n);
        sigmas[i] = flow ? q / (1 + q) : q;
    }
    enum { N = 33 };
    float x[N], x0[N];
    for (int i = 0; i < N; i++)
        x0[i] = x[i] = (float)((i - 16) / 8.0 * from);
    world *w = world_new(flow, sigmas, n, N);
    w->p.eta = 0;
    sm_err e = {0};
    CHECKF(sm_sample(s, &w->p, x, &e) == SUMI_OK, "%s", e.msg);
    for (int i = 0; i < N; i++) {
        double d = x[i] - exact(x0[i], sigmas[0], sigmas[n], flow);
        sum += d * d / N;
    }
    free(w);
    return sqrt(sum);
}

/* What a row claims, or better: a multistep sampler's first steps are of lower order, but weigh little. Samplers that choose
 * their levels themselves have no order in the number of steps. */
TEST(sample_order_of_convergence)
{
    for (int k = 0; k < sm_sampler_count; k++) {
        const sm_sampler *s = &sm_samplers[k];
        if (s->alone || !strcmp(s->name, "restart"))
            continue;
        for (int flow = 0; flow <= s->flow; flow++) {
            double a = flow_error(s, flow, 64), b = flow_error(s, flow, 128), order = log2(a / b);
            CHECKF(order > s->order - 0.25, "%s, %s: order %.2f, not %d (errors %g, %g)", s->name, flow ? "flow" : "VE",
                   order, s->order, a, b);
        }
    }
}

static sumi_status point_denoise(void *ctx, const float *x, double sigma, float *x0, sm_err *e)
{
    *x0 = 3;
    return SUMI_OK;
}

/* One step from x with the fresh noise v, when all data is the one number 3. */
static double one_step(const sm_sampler *s, bool flow, double eta, const double *sigmas, double x, double v)
{
    world *w = world_new(flow, sigmas, 1, 1);
    w->p.denoise = point_denoise;
    w->p.eta = eta;
    for (int i = 0; i < 64; i++)
        w->noise[i][0] = v;
    float at = (float)x;
    sm_err e = {0};
    CHECKF(sm_sample(s, &w->p, &at, &e) == SUMI_OK, "%s", e.msg);
    free(w);
    return at;
}

/* If all data is the point 3, x is normal with mean 3 alpha and deviation sigma. A step is affine in x and in the noise, so
 * its effect on mean and variance is exact, and must give the next level's, whatever share of the noise is drawn anew. */
TEST(sample_keeps_the_marginals)
{
    for (int k = 0; k < sm_sampler_count; k++) {
        const sm_sampler *s = &sm_samplers[k];
        for (int c = 0; c < 24; c++) {
            bool flow = c & 1, ends = !strcmp(s->name, "dpm_fast"); /* its last step, here the only one, draws nothing */
            if (flow && !s->flow)
                continue;
            double eta = s->stochastic && !s->alone ? (c >> 1 & 3) / 3.0 : 0, from = flow ? (c & 8 ? 1 : 0.8)
                                                                                          : (c & 8 ? 12 : 0.7),
                   to = from * (c & 16 ? 0.9 : 0.3);
            double sigmas[2] = {from, to}, a = flow ? 1 - from : 1, b = flow ? 1 - to : 1,
                   m = one_step(s, flow, eta, sigmas, 3 * a, 0);
            double dx = one_step(s, flow, eta, sigmas, 3 * a + from, 0) - m, dv = one_step(s, flow, eta, sigmas, 3 * a, 1) - m;
            double off = flow && from == 1 && s->brownian ? 3e-4 : 1e-5; /* these begin a ten-thousandth lower */
            CHECKF(fabs(m - 3 * b) < off, "%s, flow %d, eta %g, %g to %g: mean %g, not %g", s->name, flow, eta, from, to, m,
                   3 * b);
            CHECKF(fabs(dx * dx + dv * dv - to * to) < off * (1 + to * to),
                   "%s, flow %d, eta %g, %g to %g: variance %g, not %g", s->name, flow, eta, from, to, dx * dx + dv * dv,
                   to * to);
            CHECKF(eta > 0 && !ends ? fabs(dv) > 0 : dv == 0, "%s, eta %g: %g of fresh noise", s->name, eta, dv);
        }
    }
}

TEST(sample_failures)
{
    static const double ok[] = {1, 0.7, 0.4, 0}, rising[] = {0.5, 0.7, 0}, nan[] = {1, NAN, 0}, high[] = {1.5, 0.5, 0},
                        below[] = {1, -0.5};
    static const struct {
        const double *sigmas;
        int steps;
        bool flow;
        double eta;
        sumi_status st;
    } bad[] = {{rising, 2, false, 0, SUMI_E_ARG}, {nan, 2, false, 0, SUMI_E_ARG},   {high, 2, true, 0, SUMI_E_ARG},
               {below, 1, false, 0, SUMI_E_ARG},  {ok, 0, false, 0, SUMI_E_INTERNAL}, {ok, 3, true, 1.5, SUMI_E_ARG}};
    for (int k = 0; k < sm_sampler_count; k++) {
        const sm_sampler *s = &sm_samplers[k];
        float x[4] = {1, -1, 0.5, 2};
        CHECK(sm_sampler_find(s->a1111) == s);
        for (size_t i = 0; i < SM_COUNT(bad); i++) {
            world *w = world_new(bad[i].flow, bad[i].sigmas, bad[i].steps, 4);
            w->p.eta = bad[i].eta;
            CHECKF(sm_sample(s, &w->p, x, NULL) == bad[i].st && w->calls == 0, "%s, case %zu", s->name, i);
            free(w);
        }
        world *w = world_new(s->flow, ok, 3, 4);
        sm_err e = {0};
        w->stop_at = 1;
        CHECK(sm_sample(s, &w->p, x, &e) == SUMI_E_CANCELLED && w->seen == 2);
        free(w);
        for (int call = 1; call <= 3; call++) {
            w = world_new(s->flow, ok, 3, 4);
            w->fail_at = call;
            sm_err_clear(&e);
            float y[4] = {1, -1, 0.5, 2};
            CHECKF(sm_sample(s, &w->p, y, &e) == SUMI_E_NUMERIC && w->calls == call, "%s: %s", s->name, e.msg);
            free(w);
        }
        sm_mem mem = {.fail_at = 1};
        w = world_new(s->flow, ok, 3, 4);
        w->p.mem = &mem;
        CHECK(sm_sample(s, &w->p, x, NULL) == SUMI_E_MEMORY && mem.total == 0);
        free(w);
    }
    CHECK(sm_sampler_find("") == NULL);
}
