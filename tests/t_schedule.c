/* Noise levels and schedules against diffusers, k-diffusion and the rules of ComfyUI, A1111 and its forks, to 1e-6 of each level
 * (tests/fixtures/schedules.json, made by tools/fixtures/make_schedules.py; samplers.json of make_samplers.py); limits; lists. */
#include "sample/schedule.h"
#include "known.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_N = 4096 };

static double num(const cJSON *o, const char *key) { return cJSON_GetNumberValue(cJSON_GetObjectItem(o, key)); }
static double num_or_0(const cJSON *o, const char *key) { return cJSON_HasObjectItem(o, key) ? num(o, key) : 0; }
static const char *str(const cJSON *o, const char *key) { return cJSON_GetStringValue(cJSON_GetObjectItem(o, key)); }

static int list(const cJSON *o, const char *key, double *out)
{
    int n = 0;
    const cJSON *v, *a = cJSON_GetObjectItem(o, key);
    cJSON_ArrayForEach(v, a) if (n < MAX_N) out[n++] = v->valuedouble;
    return n;
}

static bool near(double a, double b, double rel) { return fabs(a - b) <= rel * fabs(b); }

static sm_noise stable_diffusion(void)
{
    sm_noise m;
    CHECK(sm_noise_vp(&m, NULL, SM_BETA_SCALED_LINEAR, 1000, 0.00085, 0.012, NULL) == SUMI_OK);
    return m;
}

/* ---- levels ------------------------------------------------------------------------------------------------------ */

static sumi_status noise_of(const cJSON *r, sm_noise *m, sm_err *e)
{
    static double v[MAX_N];
    sm_beta beta;
    if (cJSON_HasObjectItem(r, "flow"))
        return sm_noise_flow(m, (int)num(r, "T"), num(r, "flow"), e);
    if (list(r, "edm", v))
        return sm_noise_edm(m, NULL, (int)num(r, "T"), v[0], v[1], v[2], e);
    if (cJSON_HasObjectItem(r, "betas"))
        return sm_noise_betas(m, NULL, v, list(r, "betas", v), e);
    CHECKF(sm_beta_by_name(str(r, "beta"), &beta), "%s", str(r, "beta"));
    sumi_status st = sm_noise_vp(m, NULL, beta, (int)num(r, "T"), num(r, "start"), num(r, "end"), e);
    if (st == SUMI_OK && num_or_0(r, "zero_snr"))
        sm_noise_zero_snr(m);
    return st;
}

TEST(schedule_tables)
{
    cJSON *j = known_json("schedules.json"), *rows = cJSON_GetObjectItem(j, "tables"), *r;
    int seen = 0;
    cJSON_ArrayForEach(r, rows)
    {
        sm_noise m;
        sm_err e = {0};
        double at[32], want[32];
        CHECKF(noise_of(r, &m, &e) == SUMI_OK, "%s: %s", str(r, "model"), e.msg);
        int n = list(r, "at", at);
        CHECK(list(r, "sigma", want) == n && n == 16);
        for (int i = 0; i < n; i++) {
            double got = sm_noise_level(&m, (int)at[i]);
            CHECKF(near(got, want[i], 1e-6), "%s: level %g is %.10g, not %.10g", str(r, "model"), at[i], got, want[i]);
        }
        CHECK(sm_noise_min(&m) == sm_noise_level(&m, 0) && sm_noise_max(&m) == sm_noise_level(&m, m.steps - 1));
        sm_noise_free(&m);
        seen++;
    }
    CHECK(seen == 13);
    cJSON_Delete(j);
}

/* What the levels mean: a picture of variance 1 and noise in the model's own x have variances alpha^2 and 1 - alpha^2, for flow
 * (1 - s)^2 and s^2, and EDM scales by the data's deviation. */
TEST(schedule_alpha_and_snr)
{
    sm_noise sd = stable_diffusion(), flow, edm;
    CHECK(sm_noise_flow(&flow, 1000, 3, NULL) == SUMI_OK && sm_noise_edm(&edm, NULL, 100, 0.002, 80, 0.5, NULL) == SUMI_OK);
    for (double s = 0.05; s < 1; s += 0.13) {
        double a = sm_noise_alpha(&sd, s);
        CHECK(near(a * a + s * a * s * a, 1, 1e-12) && near(sm_noise_log_snr(&sd, s), log(a * a / (1 - a * a)), 1e-9));
        CHECK(near(sm_noise_alpha(&flow, s), 1 - s, 1e-12) && near(sm_noise_log_snr(&flow, s), 2 * log((1 - s) / s), 1e-9));
        a = sm_noise_alpha(&edm, s);
        CHECK(near(a * a * (0.25 + s * s), 0.25, 1e-12) && near(sm_noise_log_snr(&edm, s), -2 * log(s), 1e-9));
    }
    CHECK(sm_noise_log_snr(&flow, 1) == -INFINITY && sm_noise_log_snr(&sd, 0) == INFINITY && sm_noise_alpha(&sd, 0) == 1);
    sm_noise_free(&sd);
    sm_noise_free(&edm);
}

TEST(schedule_noise_levels)
{
    cJSON *j = known_json("samplers.json"), *rows = cJSON_GetObjectItem(j, "levels"), *r;
    int seen = 0;
    cJSON_ArrayForEach(r, rows)
    {
        sm_beta beta;
        sm_noise m;
        sm_err e = {0};
        double t[16], s[16];
        CHECK(sm_beta_by_name(str(r, "beta"), &beta));
        CHECKF(sm_noise_vp(&m, NULL, beta, (int)num(r, "steps"), num(r, "start"), num(r, "end"), &e) == SUMI_OK, "%s", e.msg);
        int n = list(r, "t", t);
        list(r, "sigma", s);
        for (int i = 0; i < n; i++) { /* diffusers keeps betas as floats: 0.999 is off by 6e-5 of 1 - beta */
            CHECKF(near(sm_noise_sigma(&m, t[i]), s[i], 1e-4), "%s: sigma(%g) is %.9g, not %.9g", str(r, "beta"), t[i],
                   sm_noise_sigma(&m, t[i]), s[i]);
            CHECKF(fabs(sm_noise_t(&m, sm_noise_sigma(&m, t[i])) - t[i]) <= 1e-9 * (1 + t[i]), "%s: t(sigma(%g))", str(r, "beta"),
                   t[i]);
        }
        n = list(r, "sigma_between", s);
        list(r, "t_between", t);
        for (int i = 0; i < n; i++)
            CHECKF(near(sm_noise_t(&m, s[i]), t[i], 1e-4), "%s: t(%g) is %.9g, not %.9g", str(r, "beta"), s[i],
                   sm_noise_t(&m, s[i]), t[i]);
        CHECK(sm_noise_t(&m, 1e9) == m.steps - 1 && sm_noise_t(&m, 1e-9) == 0);
        sm_noise_free(&m);
        seen++;
    }
    CHECK(seen == 4);
    cJSON_Delete(j);
}

/* ---- schedules --------------------------------------------------------------------------------------------------- */

static cJSON *table_of(cJSON *j, const char *model)
{
    cJSON *rows = cJSON_GetObjectItem(j, "tables"), *r;
    cJSON_ArrayForEach(r, rows) if (!strcmp(str(r, "model"), model)) return r;
    return NULL;
}

static void check_row(const cJSON *r, const sm_noise *m)
{
    static double got[MAX_N];
    double at[32], want[32], t[32];
    const sm_schedule *s = sm_schedule_find(str(r, "name"));
    sm_schedule_opts o = {.steps = (int)num(r, "n"), .xl = num_or_0(r, "xl") > 0};
    sm_err e = {0};
    int steps = 0, n = list(r, "at", at), times = list(r, "t", t);
    CHECKF(s && sm_schedule_make(s, m, &o, got, &steps, &e) == SUMI_OK, "%s: %s", str(r, "name"), e.msg);
    CHECKF(steps == (int)num(r, "count") && got[steps] == 0, "%s for %s with %d steps (%s): %d levels, not %g", str(r, "name"),
           str(r, "model"), o.steps, str(r, "source"), steps, num(r, "count"));
    CHECK(list(r, "sigma", want) == n && n > 0 && (!times || times == n));
    for (int i = 0; i < n && (int)at[i] <= steps; i++) {
        double v = got[(int)at[i]];
        CHECKF(near(v, want[i], 1e-6), "%s for %s with %d steps (%s): level %g is %.10g, not %.10g", str(r, "name"),
               str(r, "model"), o.steps, str(r, "source"), at[i], v, want[i]);
        if (times)
            CHECKF(fabs(sm_noise_t(m, v) - t[i]) <= 1e-6 * t[i] + 1e-9,
                   "%s for %s with %d steps: timestep %g is %.10g, not %.10g", str(r, "name"), str(r, "model"), o.steps, at[i],
                   sm_noise_t(m, v), t[i]);
    }
}

TEST(schedule_rows)
{
    cJSON *j = known_json("schedules.json"), *rows = cJSON_GetObjectItem(j, "rows"), *r;
    static const int asked[] = {1, 2, 7, 20, 50, 1000};
    const char *model = "";
    sm_noise m = {0};
    int seen = 0, steps = 0;
    bool named[64] = {0};
    cJSON_ArrayForEach(r, rows)
    {
        if (strcmp(model, str(r, "model"))) {
            model = str(r, "model");
            sm_noise_free(&m);
            CHECK(noise_of(table_of(j, model), &m, NULL) == SUMI_OK);
        }
        check_row(r, &m);
        const sm_schedule *s = sm_schedule_find(str(r, "name"));
        if (s)
            named[s - sm_schedules] = true;
        for (size_t i = 0; i < SM_COUNT(asked); i++)
            steps |= num(r, "n") == asked[i] ? 1 << i : 0;
        seen++;
    }
    CHECKF(seen > 800 && steps == 63, "%d rows, steps %d", seen, steps);
    for (int i = 0; i < sm_schedule_count; i++)
        CHECKF(named[i], "schedule %s is compared with nothing", sm_schedules[i].name);
    sm_noise_free(&m);
    cJSON_Delete(j);
}

/* The ten timesteps that diffusers has for them (AysSchedules). */
TEST(schedule_align_your_steps_timesteps)
{
    static const int want[2][10] = {{999, 850, 736, 645, 545, 455, 343, 233, 124, 24},
                                    {999, 845, 730, 587, 443, 310, 193, 116, 53, 13}};
    sm_noise m = stable_diffusion();
    for (int xl = 0; xl < 2; xl++) {
        double s[16];
        int n = 0;
        CHECK(sm_schedule_make(sm_schedule_find("ays"), &m, &(sm_schedule_opts){.steps = 10, .xl = xl}, s, &n, NULL) == SUMI_OK &&
              n == 10);
        for (int i = 0; i < n; i++)
            CHECKF(fabs(sm_noise_t(&m, s[i]) - want[xl][i]) < 1e-3, "timestep %d is %.6g, not %d", i, sm_noise_t(&m, s[i]),
                   want[xl][i]);
    }
    sm_noise_free(&m);
}

/* Ranges, rho and the level that is left out. */
TEST(schedule_options)
{
    cJSON *j = known_json("schedules.json"), *rows = cJSON_GetObjectItem(j, "options"), *r;
    sm_noise m = stable_diffusion();
    int seen = 0;
    cJSON_ArrayForEach(r, rows)
    {
        double want[64], got[64];
        sm_err e = {0};
        int n = list(r, "levels", want), steps = 0;
        sm_schedule_opts o = {.steps = (int)num(r, "n"),
                              .sigma_max = num_or_0(r, "max"),
                              .sigma_min = num_or_0(r, "min"),
                              .rho = num_or_0(r, "rho"),
                              .drop_last = num_or_0(r, "drop") > 0};
        CHECKF(sm_schedule_make(sm_schedule_find(str(r, "name")), &m, &o, got, &steps, &e) == SUMI_OK && steps == n &&
                   got[n] == 0,
               "%s: %d, %s", str(r, "name"), steps, e.msg);
        for (int i = 0; i < n && i < steps; i++)
            CHECKF(near(got[i], want[i], 1e-6), "%s, case %d: level %d is %.10g, not %.10g", str(r, "name"), seen, i, got[i],
                   want[i]);
        seen++;
    }
    CHECK(seen == 7);
    sm_noise_free(&m);
    cJSON_Delete(j);
}

TEST(schedule_older_fixture)
{
    cJSON *j = known_json("samplers.json"), *rows = cJSON_GetObjectItem(j, "schedules"), *r;
    sm_noise sd = stable_diffusion();
    sm_err e = {0};
    int seen = 0;
    cJSON_ArrayForEach(r, rows)
    {
        sm_noise flow, *m = &sd;
        if (num(r, "shift") > 0) {
            CHECK(sm_noise_flow(&flow, 1000, num(r, "shift"), &e) == SUMI_OK);
            m = &flow;
        }
        double want[128], got[128], t[128];
        int n = list(r, "sigmas", want) - 1;
        const sm_schedule *s = sm_schedule_find(str(r, "name"));
        CHECKF(s && sm_schedule_fill(s, m, n, got, &e) == SUMI_OK, "%s", e.msg);
        for (int i = 0; i <= n; i++) /* floats there */
            CHECKF(fabs(got[i] - want[i]) <= 1e-5 * (1e-3 + want[i]), "%s of %d steps, shift %g: sigma %d is %.9g, not %.9g (%s)",
                   str(r, "name"), n, num(r, "shift"), i, got[i], want[i], str(r, "source"));
        if (list(r, "timesteps", t)) /* what the model sees */
            for (int i = 0; i < n; i++)
                CHECKF(near(sm_noise_t(m, got[i]), t[i], 1e-5), "timestep %d is %g, not %g", i, sm_noise_t(m, got[i]), t[i]);
        seen++;
    }
    CHECK(seen >= 40);
    sm_noise_free(&sd);
    cJSON_Delete(j);
}

TEST(schedule_limits)
{
    sm_noise sd = stable_diffusion(), flow, edm;
    sm_err e = {0};
    CHECK(sm_noise_flow(&flow, 1000, 3, &e) == SUMI_OK && sm_noise_edm(&edm, NULL, 1000, 0.002, 80, 0.5, &e) == SUMI_OK);
    const sm_noise *models[] = {&sd, &flow, &edm};
    static double s[MAX_N];
    for (int i = 0; i < sm_schedule_count; i++) {
        const sm_schedule *row = &sm_schedules[i];
        for (int k = 0; k < 3; k++) {
            bool none = (row->no_flow && models[k]->flow) || (!strncmp(row->name, "align", 5) && k == 2);
            for (int n = 1; n < 1000; n += n < 60 ? 1 : 97) {
                int steps = 0;
                sumi_status st = sm_schedule_make(row, models[k], &(sm_schedule_opts){.steps = n}, s, &steps, &e);
                if (none)
                    CHECKF(st == SUMI_E_ARG && strstr(e.msg, row->name), "%s: %s", row->name, e.msg);
                else
                    CHECKF(st == SUMI_OK && s[steps] == 0 && steps > 0 && (row->fewer ? steps <= n : steps == n) &&
                           s[0] <= sm_noise_max(models[k]) * 1.0001, "%s, model %d, %d steps: %s", row->name, k, n, e.msg);
                sm_err_clear(&e);
            }
        }
        CHECK(sm_schedule_fill(row, &sd, 0, s, NULL) == SUMI_E_ARG && sm_schedule_fill(row, &sd, -3, s, NULL) == SUMI_E_ARG);
        CHECK(sm_schedule_find(row->a1111) == row && sm_schedule_find(row->name) == row &&
              (!row->alias || sm_schedule_find(row->alias) == row));
        CHECK(row->advice[0] && row->source[0]);
    }
    CHECK(sm_schedule_fill(sm_schedule_find("simple"), &sd, 1001, s, NULL) == SUMI_E_ARG && sm_schedule_find("nothing") == NULL);
    CHECK(sm_schedule_fill(sm_schedule_find("beta"), &sd, 1000, s, NULL) == SUMI_E_ARG); /* not so many different levels */
    sm_noise_free(&sd);
    sm_noise_free(&edm);
}

TEST(schedule_refusals)
{
    sm_noise sd = stable_diffusion(), flow, bad;
    CHECK(sm_noise_flow(&flow, 1000, 1, NULL) == SUMI_OK);
    static const struct { const char *name; sm_schedule_opts o; bool flow; const char *says; } cases[] = {
        {"karras", {.steps = 5, .sigma_max = 0.01}, false, "0.01 down to"},
        {"karras", {.steps = 5, .sigma_min = 20}, false, "down to 20"},
        {"karras", {.steps = 5, .sigma_min = -1}, false, "no range"},
        {"karras", {.steps = 5, .sigma_max = NAN}, false, "no range"},
        {"karras", {.steps = 5, .sigma_max = 1.5}, true, "up to 1"},
        {"karras", {.steps = 5, .rho = -1}, false, "rho"},
        {"normal", {.steps = 5, .rho = 2}, false, "takes no rho"},
        {"simple", {.steps = 5, .sigma_max = 2}, false, "takes no highest"},
        {"normal", {.steps = 5, .sigma_max = 30, .sigma_min = 20}, false, "do not fall"},
        {"cosine", {.steps = 5}, true, "flow"},
    };
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        double s[16];
        int steps = 0;
        sm_err e = {0};
        sumi_status st =
            sm_schedule_make(sm_schedule_find(cases[i].name), cases[i].flow ? &flow : &sd, &cases[i].o, s, &steps, &e);
        CHECKF(st == SUMI_E_ARG && strstr(e.msg, cases[i].says), "case %zu: %s", i, e.msg);
    }
    CHECK(sm_noise_vp(&bad, NULL, SM_BETA_LINEAR, 1, 0.1, 0.2, NULL) == SUMI_E_FORMAT);
    CHECK(sm_noise_vp(&bad, NULL, SM_BETA_LINEAR, 1000, 0.2, 0.1, NULL) == SUMI_E_FORMAT);
    CHECK(sm_noise_vp(&bad, NULL, SM_BETA_LINEAR, 1000, NAN, 0.1, NULL) == SUMI_E_FORMAT);
    CHECK(sm_noise_flow(&bad, 1000, 0, NULL) == SUMI_E_FORMAT && sm_noise_flow(&bad, 1000, NAN, NULL) == SUMI_E_FORMAT);
    CHECK(sm_noise_betas(&bad, NULL, (double[]){0.1, 0}, 2, NULL) == SUMI_E_FORMAT);
    CHECK(sm_noise_betas(&bad, NULL, (double[]){0.1, 1}, 2, NULL) == SUMI_E_FORMAT);
    CHECK(sm_noise_betas(&bad, NULL, (double[]){0.1}, 1, NULL) == SUMI_E_FORMAT);
    sm_mem mem = {.fail_at = 1};
    CHECK(sm_noise_vp(&bad, &mem, SM_BETA_LINEAR, 1000, 0.1, 0.2, NULL) == SUMI_E_MEMORY);
    sm_beta beta;
    CHECK(!sm_beta_by_name("quadratic", &beta));
    sm_noise_free(&sd);
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

TEST(schedule_lists)
{
    static const struct { const char *text; int n; double first, last; } good[] = {
        {"14.6,7.8,0", 3, 14.6, 0}, {" [1e1; 5\t 0.5 ]\n", 3, 10, 0.5}, {"1.0\r\n0.5\r\n", 2, 1, 0.5}, {"3,.25,", 2, 3, 0.25}};
    for (size_t i = 0; i < SM_COUNT(good); i++) {
        double s[4] = {0};
        sm_err e = {0};
        int n = sm_sigmas_parse(good[i].text, s, 4, "--sigmas", &e);
        CHECKF(n == good[i].n && s[0] == good[i].first && s[n - 1] == good[i].last, "'%s': %d, %s", good[i].text, n, e.msg);
    }
    static const struct { const char *text, *says;
    } bad[] = {{"", "no noise levels"},      {"14.6", "one noise level"},  {"14.6,x,0", "'x' is not a number"},
               {"1,2,0", "2 comes after 1"}, {"1,1,0", "must fall"},       {"1,0,0", "must fall"},
               {"2,-1", "below 0"},          {"5,4,3,2,1", "more than 4"}, {"nan,0", "not a number"},
               {"inf,0", "not a number"},    {"1e999,0", "not a number"},  {"1 2x", "'2x'"},
               {"0x10,1", "not a number"}};
    for (size_t i = 0; i < SM_COUNT(bad); i++) {
        double s[4];
        sm_err e = {0};
        CHECKF(sm_sigmas_parse(bad[i].text, s, 4, "--sigmas", &e) == 0 && e.code == SUMI_E_ARG && strstr(e.msg, bad[i].says),
               "'%s': %s", bad[i].text, e.msg);
    }
}

/* scipy's, which agree with 50 digits of mpmath's to 1e-14; ends and a half exactly. */
TEST(schedule_beta_quantiles)
{
    cJSON *j = known_json("schedules.json"), *rows = cJSON_GetObjectItem(j, "quantiles"), *r;
    int seen = 0;
    cJSON_ArrayForEach(r, rows)
    {
        double v[4];
        for (int i = 0; i < 4; i++)
            v[i] = cJSON_GetNumberValue(cJSON_GetArrayItem(r, i));
        double got = sm_beta_quantile(v[0], v[1], v[2]);
        CHECKF(near(got, v[3], 1e-10), "%.17g of beta(%g, %g): %.17g, not %.17g", v[0], v[1], v[2], got, v[3]);
        seen++;
    }
    CHECK(seen == 96 && sm_beta_quantile(0.5, 0.6, 0.6) == 0.5 && sm_beta_quantile(-1, 2, 3) == 0);
    cJSON_Delete(j);
}
