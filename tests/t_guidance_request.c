/* Guidance through whole requests, on the tiny model `deep`: latents of every step against diffusers' pipelines and guiders and
 * formulas (tests/fixtures/guidance.safetensors, tools/fixtures/make_guidance.py says which case is which); the same bits over
 * threads, pictures at once and low memory; what does not go together. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "families.h"
#include "pipeline/context.h"
#include "request_cases.h"
#include "requests.h"
#include "test.h"
#include "tiny.h"

enum { STEPS = 5 };

static sumi_request request(void) { return request_cases_base(STEPS, "ddim"); }

static void check_case(request_cases *x, const char *name, const char *where)
{
    sumi_request base = request(), r = request_cases_named(x, name, &base);
    sumi_images *im = NULL;
    sumi_status st = sumi_generate(x->ctx, x->m, &r, NULL, &im);
    CHECKF(!st, "%s: %s", name, sumi_error(x->ctx));
    if (!st)
        request_steps_near(&x->f, name, x->saved, STEPS, where);
    sumi_images_free(im);
}

/* All cases whose names begin so. */
static void check_cases(const char *prefix)
{
    request_cases x;
    int n = 0;
    const cJSON *c;
    request_cases_open(&x, "guidance", 0, 0);
    if (x.ok)
        cJSON_ArrayForEach(c, x.cases)
            if (!strncmp(c->string, prefix, strlen(prefix))) {
                check_case(&x, c->string, "usual memory");
                n++;
            }
    CHECKF(n > 0, "no case %s", prefix);
    request_cases_close(&x);
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
    request_cases x;
    request_cases_open(&x, "guidance", 0, 0);
    if (x.ok) {
        cJSON_AddStringToObject(cJSON_GetObjectItem(x.cases, "pag"), "pag-layers", "nowhere, ^mid_block\\.");
        check_case(&x, "pag", "layers by name");
    }
    request_cases_close(&x);
}

/* One plan at a time, one row at a time: what asks for several plans a step makes them anew. */
TEST(guidance_in_low_memory)
{
    static const char *const names[] = {"cfg", "pag", "sag", "freeu_v2", "interval"};
    request_cases x;
    request_cases_open(&x, "guidance", 1, 0);
    for (size_t i = 0; x.ok && i < SM_COUNT(names); i++)
        check_case(&x, names[i], "low memory");
    request_cases_close(&x);
}

TEST(guidance_same_bits)
{
    static const char *const names[] = {"pag_adaptive", "sag", "apg", "mimic_zero", "freeu_v2"};
    sumi_request base = request_cases_base(3, "ddim");
    request_cases_same_bits("guidance", names, SM_COUNT(names), &base);
}

/* The planner's mean over the steps: guidance in half of them is one and a half predictions a step. */
TEST(guidance_in_the_plan)
{
    request_cases x;
    request_cases_open(&x, "guidance", 0, 0);
    static const struct { const char *param, *value; double times; } cases[] = {
        {"cfg", "1", 1}, {"cfg", "5", 2}, {"guidance-stop", "0.4", 1.4}, {"cfg-scale-min", "0", 2}};
    double one = 0;
    for (size_t i = 0; x.ok && i < SM_COUNT(cases); i++) {
        sumi_request r = request();
        sumi_plan_info p;
        CHECK(!sumi_request_set(x.ctx, &r, cases[i].param, cases[i].value));
        CHECKF(!sumi_plan_request(x.ctx, x.m, &r, &p), "%s", sumi_error(x.ctx));
        one = i ? one : p.step_flops;
        CHECKF(fabs(p.step_flops / one - cases[i].times) < 1e-9, "%s %s: %g predictions a step", cases[i].param, cases[i].value,
               p.step_flops / one);
    }
    request_cases_close(&x);
}

TEST(guidance_plan_is_what_is_taken) /* of requests that need several plans a step */
{
    static const char *const names[] = {"pag", "sag", "parts"};
    sumi_request base = request();
    request_cases_plan_is_taken("guidance", names, SM_COUNT(names), &base);
}

/* Every allocation fails once; nothing is left. One step of everything that makes plans and rows. */
TEST(guidance_out_of_memory)
{
    request_cases x;
    request_cases_open(&x, "guidance", 0, 1);
    sumi_request r = request();
    r.width = r.height = 16;
    r.steps = 1;
    r.pag_scale = 2;
    r.sag_scale = 1;
    r.guidance = "apg";
    r.freeu = "v2";
    if (x.ok)
        requests_out_of_memory(x.ctx, x.m, &r);
    request_cases_close(&x);
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
    request_cases x;
    request_cases_open(&x, "guidance", 0, 0);
    for (size_t i = 0; x.ok && i < SM_COUNT(cases); i++) {
        sumi_request r = request();
        sumi_images *im = NULL;
        for (int k = 0; k < 4; k += 2)
            CHECK(!sumi_request_set(x.ctx, &r, cases[i].set[k], cases[i].set[k + 1]));
        CHECKF(sumi_generate(x.ctx, x.m, &r, NULL, &im) == SUMI_E_ARG && strstr(sumi_error(x.ctx), cases[i].says), "case %zu: %s",
               i, sumi_error(x.ctx));
    }
    request_cases_close(&x);
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
        sumi_request r = request();
        sumi_context *ctx;
        sumi_model *m = NULL;
        sumi_images *im = NULL;
        r.sampler = r.schedule = "";
        CHECK(sumi_context_new(NULL, &ctx) == SUMI_OK);
        for (int k = 0; k < 4; k += 2)
            CHECK(!sumi_request_set(ctx, &r, cases[i].set[k], cases[i].set[k + 1]));
        CHECKF(!sumi_model_load_with(ctx, &o, &m), "%s", sumi_error(ctx));
        CHECKF(m && sumi_generate(ctx, m, &r, NULL, &im) == SUMI_E_ARG && strstr(sumi_error(ctx), cases[i].says), "case %zu: %s",
               i, sumi_error(ctx));
        sumi_model_free(m);
        sumi_context_free(ctx);
    }
}
