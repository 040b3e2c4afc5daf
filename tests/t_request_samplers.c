/* Every sampler in whole requests, on a tiny Stable Diffusion 1 and on a tiny flow model: a picture's latents do not depend on
 * what is drawn beside it, on threads or on the round, also where noise is a Brownian path and where steps follow the values;
 * what is kept and told where a sampler makes other steps than were asked for. */
#include <stdio.h>
#include <string.h>

#include "families.h"
#include "io/safetensors.h"
#include "sample/sampler.h"
#include "test.h"
#include "tiny.h"

enum { PICTURES = 2, ROOM = 4096 };

static sumi_request request(const char *sampler, int rng)
{
    sumi_request r = sumi_request_default();
    r.prompt = "a red ring";
    r.negative_prompt = "blue";
    r.sampler = sampler;
    r.rng = (const char *[]){"sumi", "torch", "philox"}[rng];
    r.seed = 11;
    r.steps = 4;
    r.width = r.height = 32;
    r.cfg_scale = 1.5f;
    return r;
}

/* Latents of r, each picture after the other; how many numbers. */
static int latents(sumi_context *c, sumi_model *m, sumi_request r, float *out)
{
    char path[256];
    sumi_images *im = NULL;
    sm_err e = {0};
    int n = 0;
    snprintf(path, sizeof path, "%s", test_tmp("sampler-latents.safetensors"));
    r.save_latents = path;
    CHECKF(sumi_generate(c, m, &r, NULL, &im) == SUMI_OK, "%s: %s", r.sampler, sumi_error(c));
    sm_weights *w = sm_weights_new(NULL, &e);
    if (im && w && !sm_st_load(path, w, NULL, NULL, &e)) {
        const sm_weight *x = sm_weights_find(w, "latents");
        n = x ? (int)(x->bytes / sizeof(float)) : 0;
        CHECK(n > 0 && n <= ROOM);
        memcpy(out, x ? x->t.data : out, x && n <= ROOM ? x->bytes : 0);
    }
    sm_weights_unref(&w);
    sumi_images_free(im);
    return n;
}

static void check_all(const char *path, bool flow)
{
    static float all[ROOM], one[ROOM];
    sumi_context *c = NULL, *threads = NULL;
    sumi_model *m = NULL, *m2 = NULL;
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &c) &&
          !sumi_context_new(&(sumi_context_options){.threads = 3}, &threads));
    sumi_model_options o = {.path = path, .tokenizer = flow ? NULL : family_tokenizer()};
    CHECKF(!sumi_model_load_with(c, &o, &m) && !sumi_model_load_with(threads, &o, &m2), "%s: %s", path, sumi_error(c));
    for (int k = 0; m && m2 && k < sm_sampler_count; k++) {
        const sm_sampler *s = &sm_samplers[k];
        sumi_request r = request(s->name, k % 3);
        if (flow && !s->flow)
            continue;
        r.count = PICTURES;
        int n = latents(c, m, r, all);
        r.count = 1;
        for (int p = 0; p < PICTURES; p++, r.seed++) {
            CHECK(latents(threads, m2, r, one) * PICTURES == n);
            CHECKF(!memcmp(one, all + p * (n / PICTURES), sizeof *one * (size_t)(n / PICTURES)),
                   "%s, %s: picture %d has other bits", path, s->name, p);
        }
    }
    sumi_model_free(m);
    sumi_model_free(m2);
    sumi_context_free(c);
    sumi_context_free(threads);
}

TEST(request_samplers_noise) { check_all(family_model("sd1", FAMILY_FOLDER), false); }
TEST(request_samplers_flow) { check_all(tiny_model(TINY_UNET), true); }

typedef struct told {
    int64_t steps, last;
    double left;
} told;

static void tell(void *user, const sumi_progress *p)
{
    told *t = user;
    if (strcmp(p->stage, "sample"))
        return;
    t->steps = p->steps;
    t->last = p->step;
    t->left = p->eta;
}

/* Where the number of calls is not known nobody says one; where steps are fewer than asked for only those are kept. */
TEST(request_samplers_other_steps)
{
    sumi_context *c = NULL;
    sumi_model *m = NULL;
    sumi_plan_info plan;
    told t = {0};
    sumi_callbacks cb = {.progress = tell, .user = &t};
    sumi_images *im = NULL;
    char path[256];
    sumi_model_options o = {.path = family_model("sd1", FAMILY_FOLDER), .tokenizer = family_tokenizer()};
    CHECK(!sumi_context_new(NULL, &c) && !sumi_model_load_with(c, &o, &m));
    sumi_request r = request("dpm_adaptive", 0);
    CHECKF(!sumi_generate(c, m, &r, &cb, &im) && t.steps == 0 && t.last > 4 && t.left < 0, "%s: %d of %d", sumi_error(c),
           (int)t.last, (int)t.steps);
    sumi_images_free(im);
    CHECK(!sumi_plan_request(c, m, &r, &plan) && plan.total_flops == 0 && plan.step_flops > 0);
    snprintf(path, sizeof path, "%s", test_tmp("sampler-steps.safetensors"));
    r.save_latents = path;
    r.save_steps = 1;
    im = NULL;
    CHECKF(sumi_generate(c, m, &r, NULL, &im) == SUMI_E_ARG && strstr(sumi_error(c), "save-steps"), "%s", sumi_error(c));
    r.sampler = "dpm_fast"; /* 7 calls: 3, 3 and 1 */
    r.steps = 7;
    CHECKF(sumi_generate(c, m, &r, &cb, &im) == SUMI_OK && t.steps == 7, "%s", sumi_error(c));
    sumi_images_free(im);
    CHECK(!sumi_plan_request(c, m, &r, &plan) && plan.total_flops > 7 * plan.step_flops);
    sm_err e = {0};
    sm_weights *w = sm_weights_new(NULL, &e);
    CHECKF(w && !sm_st_load(path, w, NULL, NULL, &e), "%s", e.msg);
    CHECK(w && sm_weights_count(w) == 4 && sm_weights_find(w, "latents") && sm_weights_find(w, "latents.2") &&
          !sm_weights_find(w, "latents.3"));
    sm_weights_unref(&w);
    sumi_model_free(m);
    sumi_context_free(c);
}
