/* Guidance through whole requests, on the tiny model `deep`: latents of every step against diffusers' pipelines and guiders and
 * formulas (tests/fixtures/guidance.safetensors, tools/fixtures/make_guidance.py says which case is which); the same bits over
 * threads, pictures at once and low memory; what does not go together. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "families.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "pipeline/context.h"
#include "reference.h"
#include "requests.h"
#include "test.h"
#include "tiny.h"

enum { STEPS = 5 };

static sumi_request request(const char *noise, const char *saved)
{
    sumi_request r = sumi_request_default();
    r.prompt = "a cat in a hat";
    r.negative_prompt = "blurry, a very long text that does not fit";
    r.emphasis = "diffusers"; /* cuts it as the fixture's pipelines do */
    r.steps = STEPS;
    r.cfg_scale = 5;
    r.width = 48;
    r.height = 32;
    r.seed = 1;
    r.sampler = "ddim";
    r.schedule = "simple";
    r.init_latents = noise;
    r.save_latents = saved;
    r.save_steps = 1;
    return r;
}

/* The noise of so many pictures, as a file. */
static bool write_noise(const reference *f, int pictures, const char *path)
{
    const sm_weight *noise = reference_find(f, "noise");
    sm_err e = {0};
    if (!noise)
        return false;
    sm_st_item item = {.name = "latents", .t = noise->t};
    item.t.dims[0] = pictures;
    CHECKF(!sm_st_write(path, 1, &item, 0, NULL, NULL, &e), "%s", e.msg);
    return !e.code;
}

/* Sets what a case says; values are numbers or texts. */
static void say(sumi_context *ctx, sumi_request *r, const cJSON *how)
{
    const cJSON *x;
    cJSON_ArrayForEach(x, how)
    {
        char value[32];
        snprintf(value, sizeof value, "%.9g", x->valuedouble);
        CHECKF(!sumi_request_set(ctx, r, x->string, cJSON_IsString(x) ? x->valuestring : value), "%s", sumi_error(ctx));
    }
}

/* Every step of the saved latents against latents.NAME [STEPS + 1, pictures, 4, h, w]. */
static void compare(const reference *f, const char *name, const char *path, const char *where)
{
    sm_mem mem = {0};
    sm_err e = {0};
    const sm_weight *want = reference_find(f, "latents.%s", name);
    sm_weights *got = sm_weights_new(&mem, &e);
    CHECKF(got && !sm_st_load(path, got, NULL, &mem, &e), "%s", e.msg);
    for (int i = 0; want && got && i <= STEPS; i++) {
        char step[32];
        snprintf(step, sizeof step, i == STEPS ? "latents" : "latents.%d", i);
        const sm_weight *x = sm_weights_find(got, step);
        int64_t n = (int64_t)(want->bytes / sizeof(float) / (STEPS + 1));
        CHECKF(x && (int64_t)(x->bytes / sizeof(float)) == n, "%s: %s is missing or of another size", name, step);
        if (!x)
            break;
        const float *b = (const float *)want->t.data + i * n;
        double d = test_maxdiff(x->t.data, b, n) / test_rms(b, n);
        CHECKF(d <= 1e-4, "%s: latents of step %d differ by %.3g rms (%s)", name, i, d, where);
    }
    sm_weights_unref(&got);
}

typedef struct fixture {
    reference f;
    sumi_context *ctx;
    sumi_model *m;
    cJSON *cases;
    char noise[2][256], saved[256];
    bool ok;
} fixture;

static void fixture_open(fixture *x, int low_memory, int threads)
{
    sumi_model_options o = {
        .path = family_model("deep", FAMILY_FOLDER), .tokenizer = family_tokenizer(), .low_memory = low_memory};
    *x = (fixture){0};
    snprintf(x->noise[0], sizeof x->noise[0], "%s", test_tmp("guidance-noise-1.safetensors"));
    snprintf(x->noise[1], sizeof x->noise[1], "%s", test_tmp("guidance-noise-2.safetensors"));
    snprintf(x->saved, sizeof x->saved, "%s", test_tmp("guidance-latents.safetensors"));
    CHECK(sumi_context_new(&(sumi_context_options){.threads = threads}, &x->ctx) == SUMI_OK);
    x->ok =
        reference_open(&x->f, "guidance.safetensors") && write_noise(&x->f, 1, x->noise[0]) && write_noise(&x->f, 2, x->noise[1]);
    CHECKF(x->ok && !sumi_model_load_with(x->ctx, &o, &x->m), "%s", sumi_error(x->ctx));
    x->cases = x->f.config ? cJSON_Parse(x->f.config) : NULL;
    x->ok = x->ok && x->m && x->cases;
    CHECK(x->ok);
}

static void fixture_close(fixture *x)
{
    cJSON_Delete(x->cases);
    sumi_model_free(x->m);
    sumi_context_free(x->ctx);
    reference_close(&x->f);
}

/* The case as a request; its texts are the fixture's. */
static sumi_request case_request(fixture *x, const char *name)
{
    const cJSON *how = cJSON_GetObjectItem(x->cases, name), *count = cJSON_GetObjectItem(how, "count");
    sumi_request r = request(x->noise[count && count->valueint == 2], x->saved);
    CHECKF(how != NULL, "no case %s", name);
    say(x->ctx, &r, how);
    return r;
}

static void check_case(fixture *x, const char *name, const char *where)
{
    sumi_request r = case_request(x, name);
    sumi_images *im = NULL;
    sumi_status st = sumi_generate(x->ctx, x->m, &r, NULL, &im);
    CHECKF(!st, "%s: %s", name, sumi_error(x->ctx));
    if (!st)
        compare(&x->f, name, x->saved, where);
    sumi_images_free(im);
}

/* All cases whose names begin so. */
static void check_cases(const char *prefix)
{
    fixture x;
    int n = 0;
    const cJSON *c;
    fixture_open(&x, 0, 0);
    if (x.ok)
        cJSON_ArrayForEach(c, x.cases)
            if (!strncmp(c->string, prefix, strlen(prefix))) {
                check_case(&x, c->string, "usual memory");
                n++;
            }
    CHECKF(n > 0, "no case %s", prefix);
    fixture_close(&x);
}

TEST(guidance_cfg) { check_cases("cfg"); }           /* also below one and negative; CFG++: ComfyUI's formula */
TEST(guidance_rescale) { check_cases("rescale"); }   /* StableDiffusionPipeline's guidance_rescale */
TEST(guidance_interval) { check_cases("interval"); } /* diffusers' ClassifierFreeGuidance(start, stop) */
TEST(guidance_sigmas) { check_cases("sigmas"); }     /* Kynkaanniemi et al. 2024 */
TEST(guidance_curve) { check_cases("curve"); }       /* sd-dynamic-thresholding, Wang et al. 2024 */
TEST(guidance_apg) { check_cases("apg"); }           /* diffusers' AdaptiveProjectedGuidance; on x0: ComfyUI's formula */
TEST(guidance_pag) { check_cases("pag"); }           /* StableDiffusionPAGPipeline */
TEST(guidance_sag) { check_cases("sag"); }           /* StableDiffusionSAGPipeline */
TEST(guidance_freeu) { check_cases("freeu"); }       /* enable_freeu; by width: the paper's code, ComfyUI */
TEST(guidance_clamp) { check_cases("clamp"); }       /* DPMSolverMultistepScheduler(thresholding) */
TEST(guidance_parts) { check_cases("parts"); }       /* A1111's combine_denoised */
TEST(guidance_mimic) { check_cases("mimic"); }       /* sd-dynamic-thresholding */

/* Names of layers begin below the component. */
TEST(guidance_pag_layers)
{
    fixture x;
    fixture_open(&x, 0, 0);
    if (x.ok) {
        cJSON_AddStringToObject(cJSON_GetObjectItem(x.cases, "pag"), "pag-layers", "nowhere, ^mid_block\\.");
        check_case(&x, "pag", "layers by name");
    }
    fixture_close(&x);
}

/* One plan at a time, one row at a time: what asks for several plans a step makes them anew. */
TEST(guidance_in_low_memory)
{
    static const char *const names[] = {"cfg", "pag", "sag", "freeu_v2", "interval"};
    fixture x;
    fixture_open(&x, 1, 0);
    for (size_t i = 0; x.ok && i < SM_COUNT(names); i++)
        check_case(&x, names[i], "low memory");
    fixture_close(&x);
}

/* The latents' file of three pictures, or of the k-th alone; bytes. */
static size_t drawn(const char *name, int threads, int low_memory, int k, uint8_t *rgb)
{
    fixture x;
    size_t bytes = 0;
    fixture_open(&x, low_memory, threads);
    sumi_images *im = NULL;
    if (x.ok) {
        sumi_request r = case_request(&x, name);
        r.init_latents = r.save_latents = "";
        r.save_steps = 0;
        r.count = k < 0 ? 3 : 1;
        r.seed = k < 0 ? 1 : 1 + k;
        r.steps = 3;
        CHECKF(!sumi_generate(x.ctx, x.m, &r, NULL, &im), "%s: %s", name, sumi_error(x.ctx));
    }
    for (size_t i = 0; im && i < sumi_images_count(im); i++) {
        const sumi_image *p = sumi_images_at(im, i);
        size_t n = (size_t)p->width * (size_t)p->height * 3;
        memcpy(rgb + bytes, p->pixels, n);
        bytes += n;
    }
    sumi_images_free(im);
    fixture_close(&x);
    return bytes;
}

TEST(guidance_same_bits)
{
    static const char *const names[] = {"pag_adaptive", "sag", "apg", "mimic_zero", "freeu_v2"};
    enum { EACH = 48 * 32 * 3 };
    static uint8_t all[3 * EACH], again[3 * EACH];
    for (size_t i = 0; i < SM_COUNT(names); i++) {
        CHECK(drawn(names[i], 1, 0, -1, all) == sizeof all);
        CHECKF(drawn(names[i], 3, 0, -1, again) == sizeof again && !memcmp(all, again, sizeof all), "%s: threads", names[i]);
        CHECKF(drawn(names[i], 2, 1, -1, again) == sizeof again && !memcmp(all, again, sizeof all), "%s: low memory", names[i]);
        for (int k = 0; k < 3; k += 2)
            CHECKF(drawn(names[i], 2, 0, k, again) == EACH && !memcmp(all + k * EACH, again, EACH), "%s: picture %d alone",
                   names[i], k);
    }
}

/* The planner's mean over the steps: guidance in half of them is one and a half predictions a step. */
TEST(guidance_in_the_plan)
{
    fixture x;
    fixture_open(&x, 0, 0);
    static const struct { const char *param, *value; double times; } cases[] = {
        {"cfg", "1", 1}, {"cfg", "5", 2}, {"guidance-stop", "0.4", 1.4}, {"cfg-scale-min", "0", 2}};
    double one = 0;
    for (size_t i = 0; x.ok && i < SM_COUNT(cases); i++) {
        sumi_request r = request("", "");
        sumi_plan_info p;
        r.save_steps = 0;
        CHECK(!sumi_request_set(x.ctx, &r, cases[i].param, cases[i].value));
        CHECKF(!sumi_plan_request(x.ctx, x.m, &r, &p), "%s", sumi_error(x.ctx));
        one = i ? one : p.step_flops;
        CHECKF(fabs(p.step_flops / one - cases[i].times) < 1e-9, "%s %s: %g predictions a step", cases[i].param, cases[i].value,
               p.step_flops / one);
    }
    fixture_close(&x);
}

/* The planned peak of requests that need several plans a step is what they take, within a twentieth. */
TEST(guidance_plan_is_what_is_taken)
{
    static const char *const names[] = {"pag", "sag", "parts"};
    for (size_t i = 0; i < 2 * SM_COUNT(names); i++) {
        const char *name = names[i / 2];
        sumi_plan_info p = {0};
        double taken = 0;
        for (int draw = 0; draw < 2; draw++) {
            fixture x;
            sumi_images *im = NULL;
            fixture_open(&x, i % 2, 1);
            sumi_request r = case_request(&x, name);
            r.init_latents = r.save_latents = "";
            r.save_steps = 0;
            r.width = r.height = 64;
            CHECKF(x.ok && !(draw ? sumi_generate(x.ctx, x.m, &r, NULL, &im) : sumi_plan_request(x.ctx, x.m, &r, &p)), "%s: %s",
                   name, sumi_error(x.ctx));
            taken = (double)sumi_memory_peak(x.ctx);
            sumi_images_free(im);
            fixture_close(&x);
        }
        double planned = (double)p.peak_bytes - (double)p.weight_bytes;
        CHECKF(planned > 0.95 * taken && planned < 1.05 * taken, "%s%s: planned %.0f, taken %.0f", name,
               i % 2 ? " in low memory" : "", planned, taken);
    }
}

/* Every allocation fails once; nothing is left. One step of everything that makes plans and rows. */
TEST(guidance_out_of_memory)
{
    fixture x;
    fixture_open(&x, 0, 1);
    sumi_request r = request("", "");
    r.save_steps = 0;
    r.width = r.height = 16;
    r.steps = 1;
    r.pag_scale = 2;
    r.sag_scale = 1;
    r.guidance = "apg";
    r.freeu = "v2";
    if (x.ok)
        requests_out_of_memory(x.ctx, x.m, &r);
    fixture_close(&x);
}

TEST(guidance_refusals)
{
    static const struct { const char *set[4], *says; } cases[] = {
        {{"guidance", "apg", "mimic-scale", "5"}, "--mimic-scale"},
        {{"cfg", "1", "guidance", "apg"}, "--cfg is 1"},
        {{"cfg", "1", "guidance-rescale", "0.5"}, "--cfg is 1"},
        {{"guidance-start", "0.5", "guidance-stop", "0.5"}, "not before"},
        {{"guidance-sigma-min", "5", "guidance-sigma-max", "1"}, "above"},
        {{"pag", "3", "pag-layers", "nowhere"}, "nowhere"},
        {{"pag", "3", "pag-layers", "mid_(block"}, "regular expression"},
        {{"pag", "3", "pag-layers", " , "}, "no layer is named"},
    };
    fixture x;
    fixture_open(&x, 0, 0);
    for (size_t i = 0; x.ok && i < SM_COUNT(cases); i++) {
        sumi_request r = request("", "");
        sumi_images *im = NULL;
        r.save_steps = 0;
        for (int k = 0; k < 4; k += 2)
            CHECK(!sumi_request_set(x.ctx, &r, cases[i].set[k], cases[i].set[k + 1]));
        CHECKF(sumi_generate(x.ctx, x.m, &r, NULL, &im) == SUMI_E_ARG && strstr(sumi_error(x.ctx), cases[i].says), "case %zu: %s",
               i, sumi_error(x.ctx));
    }
    fixture_close(&x);
}

/* What a model cannot do: embedded scales, transformers, edit models. */
TEST(guidance_refusals_of_models)
{
    static const struct { const char *model, *set[4], *says; } cases[] = {
        {"lcm", {"guidance", "apg", "steps", "2"}, "takes the guidance scale as an input"},
        {"lcm", {"cfg-mode", "linear_up", "steps", "2"}, "takes the guidance scale as an input"},
        {"mmdit", {"pag", "3", "steps", "2"}, "is a transformer"},
        {"mmdit", {"freeu", "v1", "steps", "2"}, "is a transformer"},
        {"ip2p", {"guidance", "apg", "steps", "2"}, "edit models two"},
        {"ip2p", {"sag", "1", "steps", "2"}, "--sag"},
        {"playground", {"pag", "1", "pag-adaptive", "0.1"}, "timesteps"},
    };
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        bool mmdit = !strcmp(cases[i].model, "mmdit");
        sumi_model_options o = {.path = mmdit ? tiny_model(TINY_MMDIT) : family_model(cases[i].model, FAMILY_FOLDER),
                                .tokenizer = mmdit ? NULL : family_tokenizer()};
        sumi_request r = request("", "");
        sumi_context *ctx;
        sumi_model *m = NULL;
        sumi_images *im = NULL;
        r.save_steps = 0;
        r.sampler = r.schedule = "";
        CHECK(sumi_context_new(NULL, &ctx) == SUMI_OK);
        for (int k = 0; k < 4; k += 2)
            CHECK(!sumi_request_set(ctx, &r, cases[i].set[k], cases[i].set[k + 1]));
        CHECKF(!sumi_model_load_with(ctx, &o, &m), "%s", sumi_error(ctx));
        CHECKF(m && sumi_generate(ctx, m, &r, NULL, &im) == SUMI_E_ARG && strstr(sumi_error(ctx), cases[i].says), "case %zu: %s", i,
               sumi_error(ctx));
        sumi_model_free(m);
        sumi_context_free(ctx);
    }
}
