/* The samplers that diffusers and ComfyUI define, against diffusers' schedulers and ComfyUI's formulas written out in double
 * (tests/fixtures/samplers_d.json, made by tools/fixtures/make_samplers_d.py): x at every step and the end, for models of noise,
 * of v and of a flow's velocity that are slightly wrong, on even timesteps and on karras. Stochastic ones get the reference's
 * noise. */
#include "sample/param.h"
#include "sample/sampler.h"
#include "known.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST = 32, N = 6 };

static double num(const cJSON *o, const char *key) { return cJSON_GetNumberValue(cJSON_GetObjectItem(o, key)); }
static const char *str(const cJSON *o, const char *key) { return cJSON_GetStringValue(cJSON_GetObjectItem(o, key)); }

static int list(const cJSON *a, double *out)
{
    int n = 0;
    const cJSON *v;
    cJSON_ArrayForEach(v, a) if (n < MOST) out[n++] = v->valuedouble;
    return n;
}

typedef struct track {
    sm_sampling p;
    sm_pred pred;
    double noise[MOST][N], x[MOST][N];
    int draws, seen, calls;
} track;

static sumi_status model(void *ctx, const float *x, double sigma, float *x0, sm_err *e)
{
    track *t = ctx;
    sm_precond c;
    sumi_status st = sm_precond_at(t->p.levels, t->pred, sigma, &c, e);
    if (st != SUMI_OK)
        return st;
    t->calls++;
    float z[N], out[N];
    sm_precond_in(&c, x, z, N);
    for (int i = 0; i < N; i++) {
        double exact = known_x0(x[i], sigma, t->p.flow ? 1 - sigma : 1, 0);
        double slope = (x[i] - exact) / sigma; /* the noise, or a flow's velocity */
        double said = t->pred == SM_PRED_V ? c.c_in * (slope - sigma * exact) : slope;
        out[i] = (float)(said + 0.1 * sin(2.0 * z[i] + 1));
    }
    sm_precond_out(&c, x, out, x0, N);
    return SUMI_OK;
}

static sumi_status given_noise(void *ctx, int draw, double from, double to, float *out, sm_err *e)
{
    track *t = ctx;
    CHECK(draw == t->draws && from > to && to > 0);
    for (int i = 0; i < N; i++)
        out[i] = (float)t->noise[t->draws][i];
    t->draws++;
    return SUMI_OK;
}

static bool keep(void *ctx, int step, double sigma, const float *x, const float *x0)
{
    track *t = ctx;
    CHECK(step == t->seen && sigma == t->p.sigmas[step]);
    for (int i = 0; i < N; i++)
        t->x[step][i] = x[i];
    t->seen++;
    return true;
}

/* max |got - want| / rms of want. */
static double off(const double *got, const cJSON *want)
{
    double w[MOST], d = 0, rms = 0;
    if (list(want, w) != N)
        return INFINITY;
    for (int i = 0; i < N; i++) {
        d = fmax(d, isnan(got[i]) ? INFINITY : fabs(got[i] - w[i]));
        rms += w[i] * w[i] / N;
    }
    return d / sqrt(rms);
}

static void follow(const cJSON *r, const sm_noise *vp, const sm_noise *flow)
{
    double sigmas[MOST], first[N], end[N];
    track t = {0};
    const char *pred = str(r, "pred");
    t.pred = !strcmp(pred, "flow") ? SM_PRED_FLOW : !strcmp(pred, "v") ? SM_PRED_V : SM_PRED_EPS;
    const cJSON *want = cJSON_GetObjectItem(r, "steps"), *noise = cJSON_GetObjectItem(r, "noise");
    int steps = list(cJSON_GetObjectItem(r, "sigmas"), sigmas) - 1, draws = cJSON_GetArraySize(noise);
    CHECK(list(cJSON_GetArrayItem(want, 0), first) == N && cJSON_GetArraySize(want) == steps && draws < MOST);
    for (int i = 0; i < draws; i++)
        list(cJSON_GetArrayItem(noise, i), t.noise[i]);
    bool is_flow = t.pred == SM_PRED_FLOW;
    t.p = (sm_sampling){.n = N, .flow = is_flow, .levels = is_flow ? flow : vp, .sigmas = sigmas, .steps = steps,
                        .eta = num(r, "eta"), .denoise = model, .noise = given_noise, .on_step = keep, .ctx = &t};
    float x[N];
    for (int i = 0; i < N; i++)
        x[i] = (float)first[i];
    const sm_sampler *s = sm_sampler_find(str(r, "sampler"));
    sm_err e = {0};
    CHECKF(s && sm_sample(s, &t.p, x, &e) == SUMI_OK, "%s: %s", str(r, "sampler"), e.msg);
    CHECKF(s && t.seen == steps && t.calls == sm_sampler_evals(s, sigmas, steps), "%s: %d calls", str(r, "sampler"), t.calls);
    for (int i = 0; i < N; i++)
        end[i] = x[i];
    for (int i = 0; i <= steps; i++) {
        double at = i < steps ? off(t.x[i], cJSON_GetArrayItem(want, i)) : off(end, cJSON_GetObjectItem(r, "end"));
        CHECKF(at < 1e-5, "%s, %s, %s, eta %g, against %s: step %d of %d is off by %g", str(r, "sampler"), str(r, "pred"),
               str(r, "schedule"), num(r, "eta"), str(r, "source"), i, steps, at);
    }
}

TEST(sample_d_trajectories)
{
    FILE *f = fopen(test_fixture("samplers_d.json"), "rb");
    CHECK(f != NULL);
    if (!f)
        return;
    static char text[1 << 18];
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    cJSON *j = cJSON_Parse(text), *rows = cJSON_GetObjectItem(j, "trajectories"), *r;
    sm_noise vp, flow;
    sm_err e = {0};
    CHECK(sm_noise_vp(&vp, NULL, SM_BETA_SCALED_LINEAR, 1000, 0.00085, 0.012, &e) == SUMI_OK);
    CHECK(sm_noise_flow(&flow, 1000, 3, &e) == SUMI_OK);
    int seen = 0;
    cJSON_ArrayForEach(r, rows)
    {
        follow(r, &vp, &flow);
        seen++;
    }
    CHECKF(seen == 82, "%d trajectories", seen);
    sm_noise_free(&vp);
    cJSON_Delete(j);
}
