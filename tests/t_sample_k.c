/* k-diffusion's samplers, and those of A1111 and ComfyUI that are built like them, against tests/fixtures/samplers_k.json (made
 * by tools/fixtures/make_samplers_k.py): x before every step, the numbers of calls, and torchsde's Brownian tree. The model is a
 * network that knows the noise, or the velocity, of a mixture of Gaussians exactly. */
#include "base/rng_torch.h"
#include "sample/brownian.h"
#include "sample/param.h"
#include "sample/sampler.h"
#include "known.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 5, DRAWS = 64, SEEN = 128 };

static const double SHIFT = 0.5, SCALE = 1.4; /* of the unconditional model's means; of guidance */

typedef struct world {
    sm_sampling p;
    sm_noise levels;
    bool wrapped;        /* the model is asked through its parameterisation */
    sm_pred pred;
    double noise[DRAWS][N], x[SEEN][N];
    int seen, calls, draws;
} world;

/* What a network trained so would answer to c_in x at timestep t. */
static float network(const world *w, double z, double t)
{
    double s = sm_noise_sigma(&w->levels, t), x = z * sqrt(1 + s * s), x0 = known_x0(x, s, 1, 0), eps = (x - x0) / s;
    return (float)(w->pred == SM_PRED_EPS ? eps : (eps - s * x0) / sqrt(1 + s * s));
}

static sumi_status ask(void *ctx, const float *x, double sigma, float *x0, sm_err *e)
{
    world *w = ctx;
    sm_precond pc;
    w->calls++;
    if (!w->wrapped) {
        for (int i = 0; i < N; i++)
            x0[i] = (float)known_x0(x[i], sigma, w->p.flow ? 1 - sigma : 1, 0);
        return SUMI_OK;
    }
    if (sm_precond_at(&w->levels, w->pred, sigma, &pc, e))
        return e->code;
    for (int i = 0; i < N; i++)
        x0[i] = network(w, pc.c_in * x[i], pc.t);
    sm_precond_out(&pc, x, x0, x0, N);
    return SUMI_OK;
}

static sumi_status ask_both(void *ctx, const float *x, double sigma, float *x0, float *uncond, sm_err *e)
{
    world *w = ctx;
    double alpha = w->p.flow ? 1 - sigma : 1;
    w->calls++;
    for (int i = 0; i < N; i++) {
        double u = known_x0(x[i], sigma, alpha, SHIFT);
        uncond[i] = (float)u;
        x0[i] = (float)(u + SCALE * (known_x0(x[i], sigma, alpha, 0) - u));
    }
    return SUMI_OK;
}

static sumi_status draw(void *ctx, int k, double from, double to, float *out, sm_err *e)
{
    world *w = ctx;
    CHECKF(k == w->draws && k < DRAWS && from >= to && to > 0, "draw %d of %d, from %g to %g", k, w->draws, from, to);
    for (int i = 0; i < N; i++)
        out[i] = (float)w->noise[k % DRAWS][i];
    w->draws++;
    return SUMI_OK;
}

static bool look(void *ctx, int step, double sigma, const float *x, const float *x0)
{
    world *w = ctx;
    for (int i = 0; i < N && w->seen < SEEN; i++)
        w->x[w->seen][i] = x[i];
    w->seen++;
    return true;
}

/* ---- trajectories ------------------------------------------------------------------------------------------------ */

static double num(const cJSON *o, const char *key) { return cJSON_GetNumberValue(cJSON_GetObjectItem(o, key)); }
static const char *str(const cJSON *o, const char *key) { return cJSON_GetStringValue(cJSON_GetObjectItem(o, key)); }
static double num_or(const cJSON *o, const char *key, double other) { return cJSON_GetObjectItem(o, key) ? num(o, key) : other; }

static int list(const cJSON *a, double *out, int most)
{
    int n = 0;
    const cJSON *v;
    cJSON_ArrayForEach(v, a) if (n < most) out[n++] = v->valuedouble;
    return n;
}

/* Largest difference in units of 1 + |want|. */
static double worst(const double *got, const cJSON *want)
{
    double v[N], d = 0;
    if (list(want, v, N) != N)
        return INFINITY;
    for (int i = 0; i < N; i++) {
        double off = fabs(got[i] - v[i]) / (1 + fabs(v[i]));
        d = off <= d ? d : isnan(off) ? INFINITY : off;
    }
    return d;
}

static void set_up(world *w, const cJSON *r, const cJSON *noise, const double *sigmas, int steps)
{
    sm_err e = {0};
    bool flow = cJSON_IsTrue(cJSON_GetObjectItem(r, "flow"));
    *w = (world){.wrapped = str(r, "pred")[0] != 0};
    if (w->wrapped)
        CHECK(sm_pred_by_name(str(r, "pred"), &w->pred));
    sumi_status st = flow ? sm_noise_flow(&w->levels, 1000, 3, &e)
                          : sm_noise_vp(&w->levels, NULL, SM_BETA_SCALED_LINEAR, 1000, 0.00085, 0.012, &e);
    CHECK(st == SUMI_OK);
    w->p = (sm_sampling){.n = N, .flow = flow, .levels = &w->levels, .sigmas = sigmas, .steps = steps, .eta = num(r, "eta"),
                         .s_noise = num_or(r, "s_noise", 0), .s_churn = num_or(r, "s_churn", 0), .s_tmin = num_or(r, "s_tmin", 0),
                         .s_tmax = num_or(r, "s_tmax", 0), .denoise = ask, .noise = draw, .on_step = look, .ctx = w};
    if (cJSON_GetObjectItem(r, "guided"))
        w->p.denoise_both = ask_both;
    for (int i = 0; i < DRAWS; i++)
        list(cJSON_GetArrayItem(noise, i), w->noise[i], N);
}

/* The model and x are float32. An adaptive sampler's steps follow from small differences of them: with both rounded so, the
 * reference itself moves by 3.8e-5. */
static double tolerance(const sm_sampler *s) { return s->alone ? 1e-4 : 1e-5; }

static double check_trajectory(const cJSON *r, const cJSON *start, const cJSON *noise)
{
    double sigmas[64], v[N], end[N], d = 0;
    int steps = list(cJSON_GetObjectItem(r, "sigmas"), sigmas, 64) - 1;
    const cJSON *want = cJSON_GetObjectItem(r, "x");
    const sm_sampler *s = sm_sampler_find(str(r, "sampler"));
    world *w = malloc(sizeof *w);
    sm_err e = {0};
    float x[N];
    set_up(w, r, noise, sigmas, steps);
    list(start, v, N);
    for (int i = 0; i < N; i++)
        x[i] = (float)(sigmas[0] * v[i]);
    CHECKF(s && sm_sample(s, &w->p, x, &e) == SUMI_OK, "%s: %s", str(r, "sampler"), e.msg);
    int64_t calls = sm_sampler_evals(s, sigmas, steps);
    CHECKF(w->seen == cJSON_GetArraySize(want), "%s: %d steps, not %d", s->name, w->seen, cJSON_GetArraySize(want));
    CHECKF((calls == 0 && s->alone) || calls == w->calls, "%s: %d calls, %d were announced", s->name, w->calls, (int)calls);
    CHECKF(w->calls == num_or(r, "calls", w->calls), "%s: %d calls, not %g", s->name, w->calls, num(r, "calls"));
    for (int i = 0; i < w->seen && i < SEEN; i++) {
        d = fmax(d, worst(w->x[i], cJSON_GetArrayItem(want, i)));
        CHECKF(d < tolerance(s), "%s %s of %d steps, eta %g, against %s: x before step %d is off by %g", s->name,
               str(r, "pred"), steps, num(r, "eta"), str(r, "source"), i, d);
    }
    for (int i = 0; i < N; i++)
        end[i] = x[i];
    d = fmax(d, worst(end, cJSON_GetObjectItem(r, "end")));
    CHECKF(d < tolerance(s), "%s %s of %d steps, eta %g, against %s: the end is off by %g", s->name,
           str(r, "pred"), steps, num(r, "eta"), str(r, "source"), d);
    sm_noise_free(&w->levels);
    free(w);
    return d;
}

TEST(sample_k_trajectories)
{
    cJSON *j = known_json("samplers_k.json"), *rows = cJSON_GetObjectItem(j, "trajectories"), *r;
    int seen = 0;
    double d = 0;
    cJSON_ArrayForEach(r, rows)
    {
        d = fmax(d, check_trajectory(r, cJSON_GetObjectItem(j, "start"), cJSON_GetObjectItem(j, "noise")));
        seen++;
    }
    CHECK(seen == 142);
    cJSON_Delete(j);
}

/* ---- Brownian paths ---------------------------------------------------------------------------------------------- */

static void torch_normals(uint64_t seed, float *out, size_t n)
{
    sm_torch_cpu g;
    sm_torch_cpu_seed(&g, seed);
    sm_torch_cpu_normal(&g, out, n);
}

/* torchsde's own rounding in float32 is all that may differ, at most about 1e-6 of a level that is up to some 4. */
TEST(sample_k_torchsde_tree)
{
    cJSON *j = known_json("samplers_k.json"), *trees = cJSON_GetObjectItem(j, "brownian"), *t, *a;
    cJSON_ArrayForEach(t, trees)
    {
        sm_brownian b;
        sm_err e = {0};
        double want[64];
        float got[64];
        cJSON *asked = cJSON_GetObjectItem(t, "asked");
        int n = list(cJSON_GetObjectItem(cJSON_GetArrayItem(asked, 0), "noise"), want, 64);
        CHECK(n > 0 && sm_brownian_open(&b, NULL, (size_t)n, torch_normals, &e) == SUMI_OK);
        for (int turn = 0; turn < 2; turn++) { /* the second time backwards: order does not matter */
            sm_brownian_start(&b, strtoull(str(t, "seed"), NULL, 10), num(t, "low"), num(t, "high"));
            for (int k = 0, all = cJSON_GetArraySize(asked); k < all; k++) {
                a = cJSON_GetArrayItem(asked, turn ? all - 1 - k : k);
                sm_brownian_step(&b, num(a, "from"), num(a, "to"), got);
                list(cJSON_GetObjectItem(a, "noise"), want, 64);
                for (int i = 0; i < n; i++)
                    CHECKF(fabs(got[i] - want[i]) < 1e-5 * (1 + fabs(want[i])), "seed %s, %g to %g: %.9g, not %.9g",
                           str(t, "seed"), num(a, "from"), num(a, "to"), got[i], want[i]);
            }
        }
        sm_brownian_close(&b);
    }
    cJSON_Delete(j);
}

enum { MANY = 20000, POINTS = 7 };

static double mean_product(const float *a, const float *b)
{
    double sum = 0;
    for (int i = 0; i < MANY; i++)
        sum += (double)a[i] * b[i];
    return sum / MANY;
}

/* By definition of a Brownian path: unit increments are normal, those of intervals that do not overlap independent, and parts add
 * up. The bounds are five standard errors of the moments of MANY normals. */
TEST(sample_k_own_path)
{
    static const double at[POINTS + 1] = {14.6, 9, 8, 3, 1, 0.71, 0.25, 0.03};
    static float step[POINTS][MANY], whole[MANY], again[MANY];
    sm_brownian b;
    sm_err e = {0};
    CHECK(sm_brownian_open(&b, NULL, MANY, NULL, &e) == SUMI_OK);
    sm_brownian_start(&b, 7, 0, 0);
    for (int k = 0; k < POINTS; k++)
        sm_brownian_step(&b, at[k], at[k + 1], step[k]);
    for (int k = 0; k < POINTS; k++) {
        double m = 0;
        for (int i = 0; i < MANY; i++)
            m += step[k][i] / (double)MANY;
        CHECKF(fabs(m) < 5 / sqrt(MANY), "mean %g from %g", m, at[k]);
        CHECKF(fabs(mean_product(step[k], step[k]) - 1) < 5 * sqrt(2.0 / MANY), "variance %g from %g",
               mean_product(step[k], step[k]), at[k]);
        for (int q = 0; q < k; q++)
            CHECKF(fabs(mean_product(step[k], step[q])) < 5 / sqrt(MANY), "steps from %g and %g: correlation %g", at[k], at[q],
                   mean_product(step[k], step[q]));
    }
    for (int from = 0; from < POINTS; from++) /* a whole in one, asked of a path that begins anew, against its parts */
        for (int to = from + 1; to <= POINTS; to++) {
            sm_brownian_start(&b, 7, 1, 2);
            sm_brownian_step(&b, at[from], at[to], whole);
            for (int i = 0; i < MANY; i += 97) {
                double sum = 0;
                for (int k = from; k < to; k++)
                    sum += sqrt(at[k] - at[k + 1]) * step[k][i];
                CHECKF(fabs(sum - sqrt(at[from] - at[to]) * whole[i]) < 1e-5, "%g to %g: parts make %g", at[from], at[to], sum);
            }
        }
    sm_brownian_start(&b, 8, 0, 0);
    sm_brownian_step(&b, at[0], at[1], again);
    CHECK(fabs(mean_product(again, step[0])) < 5 / sqrt(MANY)); /* another seed, another path */
    sm_brownian_close(&b);
}

/* The noise must not know how it was asked: an ever finer way down sums to the same path. */
TEST(sample_k_path_by_steps)
{
    enum { SMALL = 8 };
    for (int torch = 0; torch < 2; torch++) {
        sm_brownian b;
        sm_err e = {0};
        float got[SMALL];
        double sums[3][SMALL] = {{0}};
        CHECK(sm_brownian_open(&b, NULL, SMALL, torch ? torch_normals : NULL, &e) == SUMI_OK);
        for (int k = 0; k < 3; k++) {
            int steps = (int[]){1, 7, 100}[k];
            sm_brownian_start(&b, 3, 0.5, 12);
            for (int i = 0; i < steps; i++) {
                double from = 12 * pow(0.5 / 12, (double)i / steps), to = 12 * pow(0.5 / 12, (i + 1.0) / steps);
                sm_brownian_step(&b, from, to, got);
                for (int q = 0; q < SMALL; q++)
                    sums[k][q] += sqrt(torch ? (float)from - (float)to : from - to) * got[q];
            }
        }
        for (int q = 0; q < SMALL; q++)
            CHECKF(fabs(sums[0][q] - sums[1][q]) < 1e-5 && fabs(sums[0][q] - sums[2][q]) < 1e-5, "%g, %g, %g",
                   sums[0][q], sums[1][q], sums[2][q]);
        sm_brownian_close(&b);
    }
}

TEST(sample_k_path_memory)
{
    sm_mem mem = {.fail_at = 1};
    sm_brownian b;
    sm_err e = {0};
    CHECK(sm_brownian_open(&b, &mem, 16, NULL, &e) == SUMI_E_MEMORY && mem.total == 0);
    sm_brownian_close(&b);
    mem.fail_at = 0;
    CHECK(sm_brownian_open(&b, &mem, SIZE_MAX / 8, NULL, &e) == SUMI_E_MEMORY && mem.total == 0);
    sm_brownian_close(&b);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* Churn goes with four samplers and with models that predict noise; 0 leaves everything as it is. */
TEST(sample_k_churn_refused)
{
    static const double sigmas[] = {1, 0.5, 0};
    for (int k = 0; k < sm_sampler_count; k++)
        for (int flow = 0; flow <= sm_samplers[k].flow; flow++) {
            world *w = calloc(1, sizeof *w);
            float x[N] = {0};
            sm_err e = {0};
            w->p = (sm_sampling){.n = N, .flow = flow, .sigmas = sigmas, .steps = 2, .s_churn = 1, .denoise = ask,
                                 .noise = draw, .ctx = w};
            sumi_status st = sm_sample(&sm_samplers[k], &w->p, x, &e);
            CHECKF((st == SUMI_OK) == (sm_samplers[k].churn && !flow), "%s, flow %d: %s", sm_samplers[k].name, flow, e.msg);
            CHECK(st == SUMI_OK || (st == SUMI_E_ARG && strstr(e.msg, "churn")));
            w->p.noise = NULL;
            sm_err_clear(&e);
            CHECK(sm_sample(&sm_samplers[k], &w->p, x, &e) != SUMI_OK);
            free(w);
        }
}

TEST(sample_k_names)
{
    static const char *const same[][2] = {{"euler_ancestral", "euler_a"}, {"dpm_2", "dpm2"}, {"dpm_2_ancestral", "dpm2_a"},
                                          {"dpmpp_2s_ancestral", "dpmpp_2s_a"}, {"euler_ancestral_cfg_pp", "euler_a_cfg_pp"},
                                          {"DPM++ 2M SDE Heun", "dpmpp_2m_sde_heun"}, {"dpm adaptive", "dpm_adaptive"}};
    for (size_t i = 0; i < SM_COUNT(same); i++)
        CHECKF(sm_sampler_find(same[i][0]) && !strcmp(sm_sampler_find(same[i][0])->name, same[i][1]), "%s", same[i][0]);
    for (int i = 0; i < sm_sampler_count; i++) { /* no word means two rows */
        const sm_sampler *s = &sm_samplers[i];
        CHECKF(sm_sampler_find(s->name) == s && sm_sampler_find(s->a1111) == s && (!s->alias || sm_sampler_find(s->alias) == s),
               "%s", s->name);
        CHECKF(s->advice && s->schedule && sm_schedule_find(s->schedule), "%s: schedule %s", s->name, s->schedule);
    }
}

/* What k-diffusion says for 1 to 12 calls: nothing left over, nothing missing. */
TEST(sample_k_calls)
{
    for (int k = 0; k < sm_sampler_count; k++)
        for (int steps = 1; steps < 45; steps += steps < 12 ? 1 : 8)
            for (int ends = 0; ends < 2; ends++) {
                const sm_sampler *s = &sm_samplers[k];
                world *w = calloc(1, sizeof *w);
                double sigmas[64];
                float x[N] = {3, -2, 1, 0, 5};
                sm_err e = {0};
                for (int i = 0; i <= steps; i++)
                    sigmas[i] = i == steps && !ends ? 0 : 14 * pow(0.03 / 14, (double)i / steps);
                w->p = (sm_sampling){.n = N, .sigmas = sigmas, .steps = steps, .eta = 0, .denoise = ask, .noise = draw,
                                     .on_step = look, .ctx = w};
                CHECKF(sm_sample(s, &w->p, x, &e) == SUMI_OK, "%s of %d steps: %s", s->name, steps, e.msg);
                CHECKF(s->alone || w->calls == sm_sampler_evals(s, sigmas, steps), "%s of %d steps: %d calls, %d were announced",
                       s->name, steps, w->calls, (int)sm_sampler_evals(s, sigmas, steps));
                free(w);
            }
}

/* A model for which no step is accurate enough: an end, not a loop. */
static sumi_status ask_noise(void *ctx, const float *x, double sigma, float *x0, sm_err *e)
{
    world *w = ctx;
    for (int i = 0; i < N; i++)
        x0[i] = (w->calls & 1 ? 1e6F : -1e6F);
    w->calls++;
    return SUMI_OK;
}

TEST(sample_k_adaptive_ends)
{
    static const double sigmas[] = {14, 1, 0};
    world *w = calloc(1, sizeof *w);
    float x[N] = {0};
    sm_err e = {0};
    w->p = (sm_sampling){.n = N, .sigmas = sigmas, .steps = 2, .denoise = ask_noise, .noise = draw, .ctx = w};
    CHECK(sm_sample(sm_sampler_find("dpm_adaptive"), &w->p, x, &e) == SUMI_E_NUMERIC && strstr(e.msg, "dpm_adaptive") &&
          w->calls < 40000);
    free(w);
}
