/* Step caching through whole requests, on the tiny model `deep`: latents of every step against DeepCache's package, diffusers'
 * TaylorSeer and the formulas of EasyCache and TeaCache (tests/fixtures/step_cache.safetensors, tools/fixtures/make_step_cache.py
 * says which case is which), and how many steps were computed; the same bits over threads, pictures at once and low memory; the
 * plan; what does not go together. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cpu/cpu.h"
#include "families.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "model/model.h"
#include "request_cases.h"
#include "requests.h"
#include "sample/step_cache.h"
#include "test.h"
#include "tiny.h"

enum { STEPS = 10, PLACES = 48 * 32 };

static sumi_request request(void) { return request_cases_base(STEPS, "euler"); }

/* ---- against the references -------------------------------------------------------------------------------------------- */

typedef struct told { long long spared, asked; int times; } told;

static void on_message(void *user, const sumi_progress *p)
{
    told *t = user;
    const char *s = p->message ? strstr(p->message, " spared ") : NULL;
    if (s && sscanf(s, " spared %lld of %lld", &t->spared, &t->asked) == 2)
        t->times++;
}

/* Every prediction of a step is computed or spared together, but for those of Heun's two calls, of an interval and of new
 * words. */
static void check_told(const request_cases *x, const char *name, const sumi_request *r, const told *t)
{
    const sm_weight *full = reference_find(&x->f, "full.%s", name);
    long long spared = 0;
    for (int k = 0; full && k < r->count; k++)
        spared += STEPS - (long long)((const float *)full->t.data)[k];
    CHECKF(t->times == 1, "%s: told %d times", name, t->times);
    if (!strcmp(r->sampler, "euler") && r->guidance_stop == 1 && !strcmp(r->emphasis, "diffusers"))
        CHECKF(t->asked == 2 * STEPS * r->count && t->spared == 2 * spared, "%s: %lld of %lld spared, not %lld",
               name, t->spared, t->asked, 2 * spared);
}

static void check_case(request_cases *x, const char *name, const char *where)
{
    told t = {0};
    sumi_request base = request(), r = request_cases_named(x, name, &base);
    sumi_callbacks cb = {.progress = on_message, .user = &t};
    sumi_images *im = NULL;
    sumi_status st = sumi_generate(x->ctx, x->m, &r, &cb, &im);
    CHECKF(!st, "%s: %s", name, sumi_error(x->ctx));
    if (!st) {
        request_steps_near(&x->f, name, x->saved, STEPS, where);
        check_told(x, name, &r, &t);
    }
    sumi_images_free(im);
}

static void check_cases(const char *prefix, int low_memory)
{
    request_cases x;
    int n = 0;
    const cJSON *c;
    request_cases_open(&x, "step_cache", low_memory, 0);
    if (x.ok)
        cJSON_ArrayForEach(c, x.cases)
            if (!strncmp(c->string, prefix, strlen(prefix))) {
                check_case(&x, c->string, low_memory ? "low memory" : "usual memory");
                n++;
            }
    CHECKF(n > 0, "no case %s", prefix);
    request_cases_close(&x);
}

TEST(step_cache_deepcache) { check_cases("deepcache", 0); }   /* DeepCacheSDHelper */
TEST(step_cache_taylorseer) { check_cases("taylorseer", 0); } /* diffusers' TaylorSeerState; words that change, guidance that
                                                                 stops */
TEST(step_cache_easycache) { check_cases("easycache", 0); }   /* H-EmbodVis/EasyCache */
TEST(step_cache_teacache) { check_cases("teacache", 0); }     /* ali-vilab/TeaCache */

/* One plan at a time, one row at a time. */
TEST(step_cache_in_low_memory)
{
    static const char *const names[] = {"deepcache_two", "taylorseer_words", "easycache_apart", "teacache"};
    for (size_t i = 0; i < SM_COUNT(names); i++)
        check_cases(names[i], 1);
}

/* What TeaCache looks at in SD 3's transformer: tap of diffusers' norm1. */
TEST(step_cache_modulated_transformer)
{
    reference f;
    sm_mmdit_config c;
    if (!reference_open(&f, "mmdit_tiny.safetensors") || !reference_config(&f, SM_MODEL_MMDIT, &c))
        return;
    static const char *const names[] = {"sample", "timestep", "pooled_projections"};
    sm_graph *g = sm_graph_new(&f.mem, &f.err);
    sm_node *in[3];
    for (int i = 0; i < 3; i++) {
        const sm_weight *w = reference_find(&f, "in.%s", names[i]);
        in[i] = w ? sm_input(g, names[i], SM_F32, w->t.rank, w->t.dims) : g->poison;
    }
    nn_scope root = nn_root(g, f.w, NULL), s = nn_sub(&root, "w");
    sm_node *out = sm_mmdit_modulated(&s, &c, in[0], in[1], in[2]);
    const sm_backend *be[4];
    sm_cpu_backends(be);
    sm_plan *p = sm_plan_new(g, 1, &out, be[0], &f.err);
    CHECKF(p != NULL, "%s", f.err.msg);
    for (int i = 0; p && i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "in.%s", names[i]);
        reference_copy(&f, name, sm_plan_data(p, in[i]), sm_numel(in[i]));
    }
    CHECKF(p && !sm_plan_run(p, NULL, NULL, &f.err), "%s", f.err.msg);
    if (p)
        reference_near(&f, "tap.transformer_blocks.0.norm1", sm_plan_data(p, out), sm_numel(out), 1e-5, "scalar");
    sm_plan_free(p);
    sm_graph_free(g);
    reference_close(&f);
}

/* ---- its numbers ------------------------------------------------------------------------------------------------------- */

/* Divided differences of equal and unequal steps; a parabola is forecast exactly from its second difference's own definition:
 * derivative k of the series is the difference of derivatives k - 1 by the last step's length, as TaylorSeer has it. */
TEST(step_cache_forecasts)
{
    float room[3], out;
    sm_cache_past p = {.term = {&room[0], &room[1], &room[2]}};
    for (int step = 0; step <= 4; step += 2)
        sm_cache_keep(&p, 2, step, &(float){(float)(3 + 2 * step + step * step)}, 1);
    CHECK(p.have == 3 && p.last == 4);
    CHECKF(room[0] == 27 && room[1] == 8 && room[2] == 2, "%g %g %g", room[0], room[1], room[2]); /* (27 - 11) / 2, (8 - 4) / 2 */
    sm_cache_forecast(&p, 7, &out, 1);
    CHECKF(out == 27 + 3 * 8 + 9 * 2 / 2, "%g", out);
    sm_cache_keep(&p, 2, 5, &(float){30}, 1);
    CHECKF(room[1] == 3 && room[2] == -5, "%g %g", room[1], room[2]);
}

TEST(step_cache_where_it_acts)
{
    static const struct { int steps, first, last; } cases[] = {{20, 3, 18}, {30, 5, 27}, {10, 2, 8}, {4, 1, 2}, {1, -1, -1},
                                                               {100, 15, 94}, {1000, 150, 949}};
    const sm_cache_way w = {.start = 0.15f, .end = 0.95f};
    for (size_t i = 0; i < SM_COUNT(cases); i++)
        for (int k = 0; k < cases[i].steps; k++)
            CHECKF(sm_cache_acts(&w, k, cases[i].steps) == (cases[i].first >= 0 && k >= cases[i].first && k <= cases[i].last),
                   "step %d of %d", k, cases[i].steps);
}

TEST(step_cache_polynomials)
{
    static const struct { const char *text; int n; } cases[] = {
        {"", 0}, {"2", 1}, {"4.98651651e+02, -2.83781631e+02 5.5", 3}, {"1,2,3,4,5,6,7,8", 8}, {"1,2,3,4,5,6,7,8,9", -1},
        {"1;2", -1}, {"nan", -1}, {"x", -1}};
    sm_cache_way w;
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        bool ok = sm_cache_polynomial(cases[i].text, &w);
        CHECKF(ok == (cases[i].n >= 0) && (!ok || w.coefficients == cases[i].n), "'%s'", cases[i].text);
    }
}

/* ---- bits, plans, refusals --------------------------------------------------------------------------------------------- */

TEST(step_cache_same_bits)
{
    static const char *const names[] = {"deepcache_order", "taylorseer", "easycache_apart", "teacache_polynomial"};
    sumi_request base = request();
    request_cases_same_bits("step_cache", names, SM_COUNT(names), &base);
}

/* An interval of one computes every step. */
TEST(step_cache_of_every_step_changes_nothing)
{
    static const char *const words[] = {"deepcache", "taylorseer"};
    request_cases x;
    sumi_images *im[2] = {0};
    request_cases_open(&x, "step_cache", 0, 0);
    for (size_t i = 0; x.ok && i < SM_COUNT(words); i++) {
        sumi_request r = request();
        CHECKF(!sumi_generate(x.ctx, x.m, &r, NULL, &im[0]), "%s", sumi_error(x.ctx));
        r.step_cache = words[i];
        r.cache_interval = 1;
        CHECKF(!sumi_generate(x.ctx, x.m, &r, NULL, &im[1]), "%s", sumi_error(x.ctx));
        CHECKF(im[0] && im[1] && !memcmp(sumi_images_at(im[0], 0)->pixels, sumi_images_at(im[1], 0)->pixels, PLACES * 3), "%s",
               words[i]);
        sumi_images_free(im[0]);
        sumi_images_free(im[1]);
        im[0] = im[1] = NULL;
    }
    request_cases_close(&x);
}

/* Steps that are foreseen cost nothing, those that changes decide about their full cost; with PAG every prediction has a past. */
TEST(step_cache_in_the_plan)
{
    static const struct { const char *cache, *start; double share; } cases[] = {
        {"taylorseer", "0", 0.4}, {"taylorseer", "0.3", 0.5}, {"easycache", "-1", 1}};
    request_cases x;
    sumi_plan_info p, plain;
    request_cases_open(&x, "step_cache", 0, 0);
    for (size_t i = 0; x.ok && i < SM_COUNT(cases); i++) {
        sumi_request r = request();
        r.pag_scale = 3;
        CHECKF(!sumi_plan_request(x.ctx, x.m, &r, &plain), "%s", sumi_error(x.ctx));
        r.step_cache = cases[i].cache;
        r.cache_end = 1;
        CHECK(!sumi_request_set(x.ctx, &r, "cache-start", cases[i].start));
        CHECKF(!sumi_plan_request(x.ctx, x.m, &r, &p), "%s", sumi_error(x.ctx));
        CHECKF(fabs(p.step_flops / plain.step_flops - cases[i].share) < 1e-9, "%s from %s on: %g of the work",
               cases[i].cache, cases[i].start, p.step_flops / plain.step_flops);
        r.pag_scale = 0;
        r.step_cache = "deepcache"; /* 4 steps of 10 in full, 6 in part */
        double full = plain.step_flops * 2 / 3; /* without PAG's prediction */
        CHECKF(!sumi_plan_request(x.ctx, x.m, &r, &p), "%s", sumi_error(x.ctx));
        CHECKF(p.step_flops > 0.4 * full && p.step_flops < 0.95 * full, "deepcache: %g of the work", p.step_flops / full);
    }
    request_cases_close(&x);
}

/* What is planned holds the plan for when only some pictures are computed, which pictures that change alike never make: here the
 * two of easycache_apart do not, and teacache draws one. */
TEST(step_cache_plan_is_what_is_taken)
{
    static const char *const names[] = {"deepcache_order", "deepcache_heun", "taylorseer", "easycache_apart",
                                        "teacache_polynomial"};
    sumi_request base = request();
    request_cases_plan_is_taken("step_cache", names, SM_COUNT(names), &base);
}

/* Restart's noise rises again, other samplers call several times a step: it runs, and where it computes every step nothing
 * changes. */
TEST(step_cache_with_every_sampler)
{
    request_cases x;
    request_cases_open(&x, "step_cache", 0, 0);
    for (size_t i = 0; x.ok && sumi_sampler_name(i, NULL); i++) {
        static const char *const words[] = {"deepcache", "taylorseer", "easycache"};
        sumi_images *im[2] = {0};
        sumi_request r = request();
        r.sampler = sumi_sampler_name(i, NULL);
        r.steps = 6;
        if (!strcmp(r.sampler, "dpm_adaptive"))
            continue;
        CHECKF(!sumi_generate(x.ctx, x.m, &r, NULL, &im[0]), "%s: %s", r.sampler, sumi_error(x.ctx));
        r.step_cache = words[i % 3];
        r.cache_start = 1 - 1e-6f; /* outside every step is full */
        r.cache_end = 1;
        r.cache_interval = 2;
        CHECKF(!sumi_generate(x.ctx, x.m, &r, NULL, &im[1]), "%s: %s", r.sampler, sumi_error(x.ctx));
        CHECKF(im[0] && im[1] && !memcmp(sumi_images_at(im[0], 0)->pixels, sumi_images_at(im[1], 0)->pixels, PLACES * 3),
               "%s, %s", r.sampler, r.step_cache);
        sumi_images_free(im[1]);
        r.cache_start = 0;
        CHECKF(!sumi_generate(x.ctx, x.m, &r, NULL, &im[1]), "%s: %s", r.sampler, sumi_error(x.ctx));
        sumi_images_free(im[0]);
        sumi_images_free(im[1]);
    }
    request_cases_close(&x);
}

TEST(step_cache_refusals)
{
    static const struct { const char *set[3][2]; const char *says; } cases[] = {
        {{{"step-cache", "deepcach"}}, "--step-cache: 'deepcach' is unknown"},
        {{{"step-cache", "easycache"}, {"sag", "1"}}, "--step-cache: --sag"},
        {{{"step-cache", "easycache"}, {"sampler", "dpm_adaptive"}}, "dpm_adaptive"},
        {{{"step-cache", "taylorseer"}, {"edit-from-prompt", "a dog"}}, "Prompt-to-Prompt"},
        {{{"step-cache", "deepcache"}, {"cache-branch", "6"}}, "skip connections 0 to 5"},
        {{{"step-cache", "teacache"}, {"cache-coefficients", "1;2"}}, "--cache-coefficients"},
        {{{"step-cache", "teacache"}, {"cache-start", "0.95"}}, "--cache-start"},
        {{{"step-cache", "taylorseer"}, {"cache-order", "5"}}, "--cache-order"},
    };
    request_cases x;
    request_cases_open(&x, "step_cache", 0, 0);
    for (size_t i = 0; x.ok && i < SM_COUNT(cases); i++) {
        sumi_request r = request();
        sumi_images *im = NULL;
        bool refused = false;
        for (int k = 0; k < 3 && cases[i].set[k][0]; k++)
            refused |= sumi_request_set(x.ctx, &r, cases[i].set[k][0], cases[i].set[k][1]) != 0;
        r.emphasis = "original";
        refused |= !refused && sumi_generate(x.ctx, x.m, &r, NULL, &im) != 0;
        CHECKF(refused && strstr(sumi_error(x.ctx), cases[i].says), "case %zu: %s", i, sumi_error(x.ctx));
        sumi_images_free(im);
    }
    request_cases_close(&x);
}

/* Transformers take what looks at outputs alone. */
TEST(step_cache_of_transformers)
{
    static const char *const words[] = {"taylorseer", "easycache", "teacache"};
    sumi_context *ctx;
    sumi_model *m = NULL;
    sumi_request r = sumi_request_default();
    r.prompt = "red circle";
    r.steps = 12;
    r.seed = 1;
    r.cache_threshold = 10; /* all that can be spared */
    CHECK(sumi_context_new(NULL, &ctx) == SUMI_OK);
    CHECKF(!sumi_model_load(ctx, tiny_model(TINY_MMDIT), &m), "%s", sumi_error(ctx));
    for (size_t i = 0; m && i < SM_COUNT(words); i++) {
        told t = {0};
        sumi_callbacks cb = {.progress = on_message, .user = &t};
        sumi_images *im = NULL;
        r.step_cache = words[i];
        CHECKF(!sumi_generate(ctx, m, &r, &cb, &im), "%s: %s", words[i], sumi_error(ctx));
        CHECKF(t.spared * 2 >= t.asked, "%s: %lld of %lld", words[i], t.spared, t.asked);
        sumi_images_free(im);
    }
    r.step_cache = "deepcache";
    sumi_images *im = NULL;
    CHECKF(m && sumi_generate(ctx, m, &r, NULL, &im) && strstr(sumi_error(ctx), "is a transformer"), "%s", sumi_error(ctx));
    sumi_images_free(im);
    sumi_model_free(m);
    sumi_context_free(ctx);
}

TEST(step_cache_memory_can_run_out)
{
    static const char *const names[] = {"deepcache_order", "easycache"};
    request_cases x;
    request_cases_open(&x, "step_cache", 0, 1);
    for (size_t i = 0; x.ok && i < SM_COUNT(names); i++) {
        sumi_request base = request(), r = request_cases_plain(&x, names[i], &base);
        r.steps = 4;
        requests_out_of_memory(x.ctx, x.m, &r);
    }
    request_cases_close(&x);
}
