/* Noise levels of requests: the public call against the references' numbers (tests/fixtures/schedules.json), what a folder's
 * scheduler_config.json says, lists of levels, parameters that do not go together, and that drawing visits the levels that are
 * told. */
#include "base/file.h"
#include "families.h"
#include "pipeline/context.h"
#include "sumi.h"
#include "known.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static sumi_context *context(void)
{
    sumi_context *ctx;
    CHECK(sumi_context_new(NULL, &ctx) == SUMI_OK);
    return ctx;
}

/* The fixture's row, without one of diffusers' timesteps where there are two. */
static const cJSON *row_of(const cJSON *j, const char *model, const char *name, int n)
{
    const cJSON *r, *rows = cJSON_GetObjectItem(j, "rows");
    cJSON_ArrayForEach(r, rows)
    {
        const char *m = cJSON_GetStringValue(cJSON_GetObjectItem(r, "model")),
                   *s = cJSON_GetStringValue(cJSON_GetObjectItem(r, "name"));
        if (m && s && !strcmp(m, model) && !strcmp(s, name) && cJSON_GetNumberValue(cJSON_GetObjectItem(r, "n")) == n)
            return r;
    }
    return NULL;
}

static void check_levels(const cJSON *r, const sumi_levels *l, const char *what)
{
    const cJSON *at = cJSON_GetObjectItem(r, "at"), *sigma = cJSON_GetObjectItem(r, "sigma");
    CHECKF(r && l->count == (size_t)cJSON_GetNumberValue(cJSON_GetObjectItem(r, "count")) + 1 && l->at[l->count - 1].sigma == 0,
           "%s", what);
    for (int i = 0; i < cJSON_GetArraySize(at); i++) {
        size_t k = (size_t)cJSON_GetNumberValue(cJSON_GetArrayItem(at, i));
        double want = cJSON_GetNumberValue(cJSON_GetArrayItem(sigma, i)), got = k < l->count ? l->at[k].sigma : NAN;
        CHECKF(fabs(got - want) <= 1e-6 * want, "%s: level %zu is %.10g, not %.10g", what, k, got, want);
    }
}

TEST(levels_of_families)
{
    static const struct { const char *family, *model, *schedule, *kind; int steps;
    } cases[] = {
        {"sd15", "sd", "karras", "vp", 20},
        {"sdxl", "sd", "normal", "vp", 50},
        {"vp:linear", "ddpm", "turbo", "vp", 20},
        {"vp:scaled_linear:0.00085:0.012", "sd", "Beta", "vp", 1000},
        {"vp:cosine", "cosine", "kl_optimal", "vp", 7},
        {"edm", "edm", "Exponential", "edm", 20},
        {"edm:0.002:700", "edm 700", "ays", "edm", 7},
        {"flow:3", "flow 3", "", "flow", 20},
        {"flow", "flow 1", "linear_quadratic", "flow", 20},
    };
    cJSON *j = known_json("schedules.json");
    sumi_context *ctx = context();
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        static const char *const rows[] = {"karras",           "normal", "turbo",           "beta", "kl_optimal", "exponential",
                                           "align_your_steps", "normal", "linear_quadratic"};
        sumi_levels *l = NULL;
        sumi_request r = sumi_request_default();
        r.schedule = cases[i].schedule;
        r.steps = cases[i].steps;
        CHECKF(!sumi_schedule_levels(ctx, NULL, cases[i].family, &r, &l), "%s: %s", cases[i].family, sumi_error(ctx));
        if (!l)
            continue;
        check_levels(row_of(j, cases[i].model, rows[i], r.steps), l, cases[i].family);
        CHECKF(!strcmp(l->kind, cases[i].kind) && !strcmp(l->schedule, rows[i]) && l->source[0] &&
                   !strcmp(l->model, cases[i].family),
               "%s: %s, %s", l->model, l->kind, l->schedule);
        const sumi_level *v = &l->at[l->count / 2];
        double s = v->sigma, alpha = l->kind[0] == 'f'   ? 1 - s
                                     : l->kind[0] == 'e' ? 0.5 / sqrt(0.25 + s * s)
                                                         : 1 / sqrt(1 + s * s);
        CHECK(fabs(v->alpha - alpha) < 1e-12 && l->at[l->count - 1].timestep == -1 && isinf(l->at[l->count - 1].log_snr));
        if (l->kind[0] == 'e')
            CHECK(fabs(v->timestep - 0.25 * log(s)) < 1e-12);
        if (l->kind[0] == 'f')
            CHECK(fabs(v->timestep - 1000 * s) < 1e-9 && fabs(v->log_snr - 2 * log((1 - s) / s)) < 1e-9);
        sumi_levels_free(l);
    }
    sumi_context_free(ctx);
    cJSON_Delete(j);
}

/* Shift, zero SNR, another table, the level that is left out. */
TEST(levels_as_requests_change_them)
{
    cJSON *j = known_json("schedules.json");
    sumi_context *ctx = context();
    sumi_levels *l = NULL;
    sumi_request r = sumi_request_default();
    r.steps = 20;
    r.shift = 3;
    CHECK(!sumi_schedule_levels(ctx, NULL, "flow", &r, &l));
    check_levels(row_of(j, "flow 3", "normal", 20), l, "shift");
    sumi_levels_free(l);
    r = sumi_request_default();
    r.steps = 7;
    r.zero_snr = 1;
    r.schedule = "simple";
    CHECK(!sumi_schedule_levels(ctx, NULL, "sd15", &r, &l));
    check_levels(row_of(j, "sd zero snr", "simple", 7), l, "zero snr");
    CHECK(fabs(l->sigma_max - 4096) < 1 && l->at[0].sigma == l->sigma_max);
    sumi_levels_free(l);
    r.zero_snr = -1;
    r.beta_schedule = "squaredcos_cap_v2";
    CHECK(!sumi_schedule_levels(ctx, NULL, "sd15", &r, &l));
    check_levels(row_of(j, "cosine", "simple", 7), l, "beta schedule");
    sumi_levels_free(l);
    r = sumi_request_default();
    r.steps = 6;
    r.schedule = "karras";
    r.discard_next_to_last_sigma = 1;
    CHECK(!sumi_schedule_levels(ctx, NULL, "sd15", &r, &l));
    const cJSON *seven = cJSON_GetObjectItem(row_of(j, "sd", "karras", 7), "sigma");
    CHECK(l && l->count == 7 && l->at[6].sigma == 0);
    for (int i = 0; l && i < 6; i++)
        CHECK(fabs(l->at[i].sigma / cJSON_GetNumberValue(cJSON_GetArrayItem(seven, i)) - 1) < 1e-6);
    sumi_levels_free(l);
    sumi_context_free(ctx);
    cJSON_Delete(j);
}

TEST(levels_lists)
{
    sumi_context *ctx = context();
    sumi_levels *l = NULL;
    sumi_request r = sumi_request_default();
    sm_err e = {0};
    static const char text[] = "10\n5.5\n1\n0.125\n";
    char path[300];
    snprintf(path, sizeof path, "%s", test_tmp("list.txt"));
    CHECK(!sm_file_write(path, text, sizeof text - 1, &e));
    const char *const lists[] = {"10, 5.5, 1, .125", path};
    for (int i = 0; i < 2; i++) {
        r.sigmas = lists[i];
        CHECKF(!sumi_schedule_levels(ctx, NULL, "sd15", &r, &l), "%s", sumi_error(ctx));
        CHECK(l && l->count == 4 && l->at[0].sigma == 10 && l->at[1].sigma == 5.5 && l->at[3].sigma == 0.125 &&
              !strcmp(l->schedule, "list"));
        sumi_levels_free(l);
    }
    CHECK(!sm_file_write(path, "1 2 3", 5, &e));
    static const struct { const char *list; int steps; const char *says; } bad[] = {
        {"10,5,0", 3, "2 steps, but --steps says 3"}, {"10", 0, "one noise level"}, {"/nonexistent/list", 0, "/nonexistent/list"},
        {"1,2", 0, "must fall"}, {"10,nan", 0, "is not a number"}};
    for (size_t i = 0; i < SM_COUNT(bad); i++) {
        r.sigmas = bad[i].list;
        r.steps = bad[i].steps;
        CHECKF(sumi_schedule_levels(ctx, NULL, "sd15", &r, &l) && !l && strstr(sumi_error(ctx), bad[i].says), "%s: %s",
               bad[i].list, sumi_error(ctx));
    }
    r.steps = 0;
    r.sigmas = path;
    CHECKF(sumi_schedule_levels(ctx, NULL, "sd15", &r, &l) == SUMI_E_ARG && strstr(sumi_error(ctx), "2 comes after 1"), "%s",
           sumi_error(ctx));
    sumi_context_free(ctx);
}

TEST(levels_refusals)
{
    static const struct { const char *family, *name, *value, *also, *also_value, *says;
    } cases[] = {
        {"sd16", "steps", "5", NULL, NULL, "sd16"},
        {"flow:0", "steps", "5", NULL, NULL, "flow:0"},
        {"edm:1", "steps", "5", NULL, NULL, "edm:1"},
        {"vp:linear:1", "steps", "5", NULL, NULL, "vp:linear:1"},
        {"vp:quadratic", "steps", "5", NULL, NULL, "vp:quadratic"},
        {"vp:linear:0.5:0.1", "steps", "5", NULL, NULL, "no range"},
        {"edm:5:1", "steps", "5", NULL, NULL, "sigma_min"},
        {"sd15", "shift", "3", NULL, NULL, "only flow"},
        {"edm", "shift", "3", NULL, NULL, "only flow"},
        {"flow", "zero-snr", "1", NULL, NULL, "betas"},
        {"edm", "zero-snr", "0", NULL, NULL, "betas"},
        {"flow", "beta-schedule", "linear", NULL, NULL, "no betas"},
        {"sd15", "beta-schedule", "square", NULL, NULL, "'square' is unknown"},
        {"sd15", "sigmas", "3,2,0", "schedule", "karras", "takes the place"},
        {"sd15", "sigmas", "3,2,0", "rho", "3", "not with --sigmas"},
        {"sd15", "sigmas", "3,2,0", "discard-next-to-last-sigma", "1", "not with"},
        {"flow", "sigmas", "3,2,0", NULL, NULL, "above 1"},
        {"sd15", "eta", "0.5", "sampler", "euler", "no noise anew"},
        {"sd15", "eta", "-0.5", "sampler", "euler_a", "below 0"},
        {"sd15", "s-noise", "0.9", "sampler", "dpmpp_2m", "no noise anew"},
        {"sd15", "s-churn", "3", "sampler", "ddim", "no churn"},
        {"sd15", "schedule", "simple", "sigma-max", "3", "takes no highest"},
        {"sd15", "schedule", "karras", "sigma-min", "30", "no range"},
        {"sd15", "schedule", "normal", "rho", "3", "takes no rho"},
        {"flow", "schedule", "cosine", NULL, NULL, "flow models"},
        {"edm", "schedule", "ays", NULL, NULL, "no list of levels"},
        {"sd15", "schedule", "ddim_uniform", "steps", "1000", "allow 999"},
    };
    sumi_context *ctx = context();
    sumi_levels *l = NULL;
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        sumi_request r = sumi_request_default();
        CHECKF(!sumi_request_set(ctx, &r, cases[i].name, cases[i].value) &&
                   (!cases[i].also || !sumi_request_set(ctx, &r, cases[i].also, cases[i].also_value)),
               "case %zu: %s", i, sumi_error(ctx));
        sumi_status st = sumi_schedule_levels(ctx, NULL, cases[i].family, &r, &l);
        CHECKF(st && st != SUMI_E_INTERNAL && !l && strstr(sumi_error(ctx), cases[i].says), "case %zu: status %d: %s", i, st,
               sumi_error(ctx));
    }
    sumi_request r = sumi_request_default();
    CHECK(sumi_schedule_levels(ctx, NULL, NULL, &r, &l) == SUMI_E_ARG);
    sumi_context_free(ctx);
}

/* Every allocation fails once. */
TEST(levels_out_of_memory)
{
    static const struct { const char *schedule, *sigmas; } cases[] = {{"cosine", ""}, {"", "3,2,1,0"}};
    sumi_context *ctx = context();
    size_t before = ctx->mem.total;
    for (size_t c = 0; c < SM_COUNT(cases); c++) {
        sumi_status st = SUMI_E_MEMORY;
        for (int i = 1; st == SUMI_E_MEMORY && i < 100; i++) {
            sumi_levels *l = NULL;
            sumi_request r = sumi_request_default();
            r.schedule = cases[c].schedule;
            r.sigmas = cases[c].sigmas;
            ctx->mem.fail_at = i;
            st = sumi_schedule_levels(ctx, NULL, "sd15", &r, &l);
            ctx->mem.fail_at = 0;
            CHECKF(!st == (l != NULL), "case %zu, allocation %d", c, i);
            sumi_levels_free(l);
            CHECKF(ctx->mem.total == before, "case %zu, allocation %d: %zu bytes are left", c, i, ctx->mem.total - before);
        }
        CHECKF(!st, "%s", sumi_error(ctx));
    }
    sumi_context_free(ctx);
}

/* ---- folders ----------------------------------------------------------------------------------------------------- */

/* Levels of family sd1's folder with another scheduler_config.json, which is put back; NULL and the message. */
static sumi_levels *with_scheduler(sumi_context *ctx, const char *config, const sumi_request *r)
{
    char path[700];
    sm_buf was = {0};
    sm_err e = {0};
    sumi_model *m = NULL;
    sumi_levels *l = NULL;
    const char *dir = family_model("sd1", FAMILY_FOLDER);
    snprintf(path, sizeof path, "%s/scheduler/scheduler_config.json", dir);
    CHECKF(!sm_file_read(path, 1 << 20, &was, &e) && !sm_file_write(path, config, strlen(config), &e), "%s", e.msg);
    sumi_model_options o = {.path = dir, .tokenizer = family_tokenizer()};
    if (!sumi_model_load_with(ctx, &o, &m))
        sumi_schedule_levels(ctx, m, NULL, r, &l);
    sumi_model_free(m);
    CHECKF(!sm_file_write(path, was.data, was.len, &e), "%s", e.msg);
    sm_buf_free(&was);
    return l;
}

TEST(levels_of_a_folder)
{
    cJSON *j = known_json("schedules.json"), *t, *tables = cJSON_GetObjectItem(j, "tables");
    sumi_context *ctx = context();
    sumi_request r = sumi_request_default();
    r.steps = 20;
    r.schedule = "normal";
    char *betas = NULL;
    cJSON_ArrayForEach(t, tables) if (cJSON_HasObjectItem(t, "betas")) betas =
        cJSON_PrintUnformatted(cJSON_GetObjectItem(t, "betas"));
    sm_buf config = {0};
    sm_buf_fmt(&config, "{\"_class_name\":\"DDIMScheduler\",\"num_train_timesteps\":300,\"trained_betas\":%s}",
               betas ? betas : "");
    sumi_levels *l = with_scheduler(ctx, config.data, &r);
    CHECKF(l != NULL, "trained_betas: %s", sumi_error(ctx));
    if (l)
        check_levels(row_of(j, "trained", "normal", 20), l, "trained_betas");
    sumi_levels_free(l);
    static const struct { const char *config, *model;
    } known[] = {
        {"{\"_class_name\":\"UniPCMultistepScheduler\",\"prediction_type\":\"flow_prediction\",\"use_flow_sigmas\":true,\"flow_"
         "shift\":3.0}",
         "flow 3"},
        {"{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"shift\":3.0,\"flow_shift\":7}", "flow 3"},
        {"{\"_class_name\":\"DDPMScheduler\"}", "ddpm"},
        {"{\"_class_name\":\"DDIMScheduler\",\"beta_schedule\":\"scaled_linear\",\"beta_start\":0.00085,\"beta_end\":0.012,"
         "\"rescale_betas_zero_snr\":true,\"trained_betas\":null}",
         "sd zero snr"},
    };
    for (size_t i = 0; i < SM_COUNT(known); i++) {
        l = with_scheduler(ctx, known[i].config, &r);
        CHECKF(l != NULL, "%s: %s", known[i].config, sumi_error(ctx));
        if (l)
            check_levels(row_of(j, known[i].model, "normal", 20), l, known[i].config);
        sumi_levels_free(l);
    }
    static const struct { const char *config, *says; } bad[] = {
        {"{\"_class_name\":\"DDIMScheduler\",\"trained_betas\":[0.1,0.2]}", "trained_betas: 2 numbers for 1000"},
        {"{\"_class_name\":\"DDIMScheduler\",\"num_train_timesteps\":3,\"trained_betas\":[0.1,2,0.2]}", "number 1 is 2"},
        {"{\"_class_name\":\"DDIMScheduler\",\"num_train_timesteps\":3,\"trained_betas\":[0.1,\"x\",0.2]}", "number 1 is"},
        {"{\"_class_name\":\"DDIMScheduler\",\"num_train_timesteps\":0}", "num_train_timesteps is 0"},
        {"{\"_class_name\":\"DDIMScheduler\",\"num_train_timesteps\":2.5}", "num_train_timesteps is 2.5"},
        {"{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"shift\":-1}", "shift of -1"},
        {"{\"_class_name\":\"DDIMScheduler\",\"beta_schedule\":\"square\"}", "'square'"},
        {"{\"_class_name\":\"EDMEulerScheduler\",\"sigma_min\":0}", "sigma_min 0"},
        {"{\"_class_name\":\"EDMEulerScheduler\",\"sigma_min\":2,\"sigma_max\":1}", "sigma_max 1"},
        {"{\"_class_name\":\"EDMEulerScheduler\",\"sigma_max\":1e99}", "sigma_max 1e+99"},
        {"{\"_class_name\":\"EDMEulerScheduler\",\"sigma_data\":-1}", "sigma_data -1"},
    };
    for (size_t i = 0; i < SM_COUNT(bad); i++)
        CHECKF(!with_scheduler(ctx, bad[i].config, &r) && strstr(sumi_error(ctx), bad[i].says) &&
                   strstr(sumi_error(ctx), "scheduler_config.json"),
               "%s: %s", bad[i].config, sumi_error(ctx));
    cJSON_free(betas);
    sm_buf_free(&config);
    sumi_context_free(ctx);
    cJSON_Delete(j);
}

/* ---- drawing ----------------------------------------------------------------------------------------------------- */

/* Parameters between spaces, "name=value"; the picture's pixels and its infotext. */
static sumi_images *draw(sumi_context *ctx, sumi_model *m, const char *params)
{
    static char text[512];
    sumi_request r = sumi_request_default();
    sumi_images *im = NULL;
    r.prompt = "a red apple";
    r.seed = 3;
    r.width = r.height = 64;
    snprintf(text, sizeof text, "%s", params);
    for (char *save, *p = strtok_r(text, " ", &save); p; p = strtok_r(NULL, " ", &save)) {
        char *value = strchr(p, '=');
        if (value)
            *value++ = 0;
        CHECKF(value && !sumi_request_set(ctx, &r, p, value), "%s: %s", params, sumi_error(ctx));
    }
    CHECKF(!sumi_generate(ctx, m, &r, NULL, &im), "%s: %s", params, sumi_error(ctx));
    return im;
}

static bool same(sumi_context *ctx, sumi_model *m, const char *a, const char *b)
{
    sumi_images *x = draw(ctx, m, a), *y = draw(ctx, m, b);
    const sumi_image *p = sumi_images_at(x, 0), *q = sumi_images_at(y, 0);
    bool is = p && q && !memcmp(p->pixels, q->pixels, (size_t)p->width * (size_t)p->height * 3);
    sumi_images_free(x);
    sumi_images_free(y);
    return is;
}

static bool says(sumi_context *ctx, sumi_model *m, const char *params, const char *what)
{
    sumi_images *x = draw(ctx, m, params);
    bool is = x && strstr(sumi_images_at(x, 0)->infotext, what);
    CHECKF(is, "%s: '%s' is not in '%s'", params, what, x ? sumi_images_at(x, 0)->infotext : "");
    sumi_images_free(x);
    return is;
}

TEST(levels_that_are_drawn)
{
    sumi_context *ctx = context();
    sumi_model *m = NULL;
    sumi_levels *l = NULL;
    sumi_model_options o = {.path = family_model("sd1", FAMILY_FILE), .tokenizer = family_tokenizer()};
    CHECKF(!sumi_model_load_with(ctx, &o, &m), "%s", sumi_error(ctx));
    if (!m) {
        sumi_context_free(ctx);
        return;
    }
    sumi_request r = sumi_request_default();
    r.schedule = "kl_optimal";
    r.steps = 4;
    CHECK(!sumi_schedule_levels(ctx, m, NULL, &r, &l));
    char list[256];
    int n = snprintf(list, sizeof list, "sampler=heun sigmas=");
    for (size_t i = 0; l && i < l->count; i++)
        n += snprintf(list + n, sizeof list - (size_t)n, "%s%.17g", i ? "," : "", l->at[i].sigma);
    sumi_levels_free(l);
    CHECK(same(ctx, m, "sampler=heun schedule=kl_optimal steps=4", list));
    CHECK(!same(ctx, m, "sampler=heun schedule=kl_optimal steps=4", "sampler=heun schedule=karras steps=4"));
    CHECK(same(ctx, m, "sampler=euler_a schedule=karras steps=4 eta=0", "sampler=euler schedule=karras steps=4"));
    CHECK(same(ctx, m, "sampler=euler_a schedule=karras steps=4 s_noise=0",
               "sampler=euler_a schedule=karras steps=4 s_noise=0 eta=1"));
    CHECK(!same(ctx, m, "sampler=euler_a schedule=karras steps=4", "sampler=euler_a schedule=karras steps=4 s_noise=0.9"));
    CHECK(!same(ctx, m, "sampler=euler_a schedule=karras steps=4", "sampler=euler_a schedule=karras steps=4 eta=0.7"));
    CHECK(!same(ctx, m, "sampler=euler schedule=karras steps=4", "sampler=euler schedule=karras steps=4 s_churn=2"));
    CHECK(same(ctx, m, "sampler=euler schedule=karras steps=4 s_churn=2 s_tmin=900", "sampler=euler schedule=karras steps=4"));
    CHECK(!same(ctx, m, "sampler=euler schedule=karras steps=4", "sampler=euler schedule=karras steps=4 zero_snr=1"));
    CHECK(!same(ctx, m, "sampler=euler schedule=karras steps=4",
                "sampler=euler schedule=karras steps=4 discard_next_to_last_sigma=1"));
    CHECK(!same(ctx, m, "sampler=euler schedule=normal steps=4", "sampler=euler schedule=normal steps=4 beta_schedule=linear"));
    /* 14 of 16 levels of Laplace's are apart */
    CHECK(same(ctx, m, "sampler=euler schedule=laplace steps=400 sigma_min=0.5 sigma_max=0.6",
               "sampler=euler schedule=laplace steps=400 sigma_min=0.5 sigma_max=0.6"));
    says(ctx, m, "sampler=euler_a schedule=karras steps=2 eta=0.7 s_noise=0.9 rho=5", ", Schedule rho: 5");
    says(ctx, m, "sampler=euler_a schedule=karras steps=2 eta=0.7 s_noise=0.9 rho=5", ", Eta: 0.7, Sigma noise: 0.9");
    says(ctx, m, "sampler=euler schedule=karras steps=2 zero_snr=1", ", Noise Schedule: Zero Terminal SNR");
    says(ctx, m, "sampler=euler schedule=karras steps=2 sigma_min=0.1 sigma_max=10",
         ", Schedule min sigma: 0.1, Schedule max sigma: 10");
    says(ctx, m, "sampler=euler sigmas=10,1,0", "Steps: 2, Sampler: Euler, CFG");
    says(ctx, m, "sampler=euler sigmas=10,1,0", ", Sigmas: \"10,1,0\"");
    sumi_model_free(m);
    sumi_context_free(ctx);
}
