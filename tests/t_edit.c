/* Requests that begin from a picture: latents of every step and pictures against diffusers' pipelines and A1111's rules
 * (tests/fixtures/edits.safetensors, made in double by tools/fixtures/make_edits.py), and what follows from the definitions. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "families.h"
#include "io/safetensors.h"
#include "reference.h"
#include "requests.h"
#include "test.h"
#include "tiny.h"

enum { WIDTH = 24, HEIGHT = 16 };

/* ---- files --------------------------------------------------------------------------------------------------------- */

/* A picture of bytes, c channels (1: gray), at a path in a temporary folder. */
static const char *write_picture(const char *name, const uint8_t *x, int w, int h, int c)
{
    static char paths[8][300];
    static int at;
    char *path = paths[at++ % 8];
    uint8_t rgb[64 * 64 * 4];
    sumi_context *ctx;
    CHECK(w * h <= 64 * 64);
    for (int i = 0; i < w * h * SM_MAX(c, 3); i++)
        rgb[i] = c == 1 ? x[i / 3] : x[i];
    snprintf(path, sizeof paths[0], "%s", test_tmp(name));
    sumi_image im = {.width = w, .height = h, .channels = SM_MAX(c, 3), .pixels = rgb};
    CHECK(!sumi_context_new(NULL, &ctx));
    CHECKF(!sumi_image_save(ctx, &im, path), "%s", sumi_error(ctx));
    sumi_context_free(ctx);
    return path;
}

static const char *fixture_picture(const reference *f, const char *tensor, int c)
{
    uint8_t x[WIDTH * HEIGHT * 3];
    char file[40];
    const sm_weight *w = reference_find(f, "%s", tensor);
    for (int i = 0; w && i < WIDTH * HEIGHT * c; i++)
        x[i] = (uint8_t)((const float *)w->t.data)[i];
    snprintf(file, sizeof file, "%s.png", tensor);
    return write_picture(file, x, WIDTH, HEIGHT, c);
}

/* Latents that a request saved: "latents.STEP" or, step < 0, "latents"; closed with sm_weights_unref. */
static sm_weights *open_saved(const char *path, sm_mem *mem)
{
    sm_err e = {0};
    sm_weights *w = sm_weights_new(mem, &e);
    CHECKF(w && !sm_st_load(path, w, NULL, mem, &e), "%s", e.msg);
    return w;
}

static const float *saved_step(const sm_weights *w, int step)
{
    char name[32];
    snprintf(name, sizeof name, step < 0 ? "latents" : "latents.%d", step);
    const sm_weight *x = sm_weights_find(w, name);
    return x ? x->t.data : NULL;
}

/* ---- against the references ---------------------------------------------------------------------------------------- */

typedef struct edit {
    const char *run, *family, *sampler, *rules;
    float strength;
    bool mask, edm, part;
    const char *content, *refiner;
} edit;

static sumi_request request(const edit *a, const reference *f, const char *saved)
{
    sumi_request r = sumi_request_default();
    r.prompt = "a cat in a hat";
    r.negative_prompt = "blurry, a very long text that does not fit";
    r.emphasis = "diffusers"; /* a text that does not fit is cut */
    r.steps = 10;
    r.cfg_scale = 7;
    r.seed = 3;
    r.rng = "torch";
    r.sampler = a->sampler;
    r.schedule = a->edm ? "karras" : strcmp(a->sampler, "euler") ? "simple" : "normal"; /* trailing and linspace in diffusers */
    r.save_latents = saved;
    r.save_steps = 1;
    requests_xl_sizes(&r);
    r.aesthetic_score = 6.5f;
    r.negative_aesthetic_score = 2.25f;
    if (a->refiner) {
        r.refiner = a->refiner;
        r.width = WIDTH;
        r.height = HEIGHT;
        return r;
    }
    r.init_image = fixture_picture(f, "in.picture", 3);
    r.mask = a->mask ? fixture_picture(f, "in.mask", 1) : "";
    if (a->part) {
        r.mask = fixture_picture(f, "in.part", 1);
        r.only_masked = 1;
        r.mask_padding = 2;
        r.width = WIDTH;
        r.height = HEIGHT;
    }
    r.strength = a->strength;
    r.edit_rules = a->rules;
    r.masked_content = a->content ? a->content : "";
    if (!strcmp(a->rules, "a1111")) {
        r.mask_blur = 0;
        r.vae_encode = "mean";
    }
    return r;
}

static void compare_latents(const reference *f, const char *run, const char *path)
{
    sm_mem mem = {0};
    const sm_weight *want = reference_find(f, "%s.latents", run);
    sm_weights *got = open_saved(path, &mem);
    int steps = want ? (int)want->t.dims[0] - 1 : 0;
    int64_t n = want ? (int64_t)(want->bytes / sizeof(float)) / (steps + 1) : 0;
    for (int i = 0; got && i <= steps; i++) {
        const float *x = saved_step(got, i == steps ? -1 : i), *b = (const float *)want->t.data + i * n;
        double d = x ? test_maxdiff(x, b, n) / test_rms(b, n) : INFINITY;
        CHECKF(d <= 5e-5, "%s: latents of step %d of %d differ by %.3g rms", run, i, steps, d);
    }
    CHECK(got && saved_step(got, steps) == NULL);
    sm_weights_unref(&got);
}

static void compare_picture(const reference *f, const char *run, const sumi_images *im)
{
    const sm_weight *want = reference_find(f, "%s.image", run);
    const sumi_image *p = sumi_images_at(im, 0);
    double worst = 0;
    CHECK(p->width == WIDTH && p->height == HEIGHT && want && want->bytes == sizeof(float) * WIDTH * HEIGHT * 3);
    for (int i = 0; want && i < WIDTH * HEIGHT * 3; i++)
        worst = fmax(worst, fabs(p->pixels[i] - ((const float *)want->t.data)[i]));
    CHECKF(worst <= 1.01, "%s: pixels differ by %.3g", run, worst); /* rounded before and after what is put back */
}

static void check_edit(const edit *a)
{
    reference f;
    sumi_context *ctx;
    sumi_model *m = NULL;
    sumi_images *im = NULL;
    char saved[300];
    snprintf(saved, sizeof saved, "%s", test_tmp("edit-latents.safetensors"));
    sumi_model_options o = {.path = family_model(a->family, FAMILY_FOLDER), .tokenizer = family_tokenizer()};
    CHECK(!sumi_context_new(NULL, &ctx));
    if (reference_open(&f, "edits.safetensors") && !sumi_model_load_with(ctx, &o, &m)) {
        sumi_request r = request(a, &f, saved);
        if (!sumi_generate(ctx, m, &r, NULL, &im)) {
            compare_latents(&f, a->run, saved);
            compare_picture(&f, a->run, im);
        }
    }
    CHECKF(!sumi_error(ctx)[0], "%s: %s", a->run, sumi_error(ctx));
    sumi_images_free(im);
    sumi_model_free(m);
    sumi_context_free(ctx);
    reference_close(&f);
}

#define EDIT(RUN, FAMILY, SAMPLER, RULES, STRENGTH, ...) \
    TEST(edit_##RUN) { check_edit(&(edit){.run = #RUN, .family = FAMILY, .sampler = SAMPLER, .rules = RULES, \
                                          .strength = STRENGTH, __VA_ARGS__}); }

EDIT(i2i_sd1, "sd1", "euler", "diffusers", 0.6f, .mask = false)
EDIT(i2i_sd1_v, "sd1_v", "ddim", "diffusers", 0.75f, .mask = false)
EDIT(i2i_xl, "xl", "dpmpp_2m", "diffusers", 0.45f, .mask = false)
EDIT(i2i_playground, "playground", "euler", "diffusers", 0.5f, .edm = true)
EDIT(i2i_refiner, "refiner", "euler", "diffusers", 0.3f, .mask = false)
EDIT(mask_sd1, "sd1", "euler", "diffusers", 1, .mask = true)
EDIT(mask_sd1_part, "sd1", "dpmpp_2m", "diffusers", 0.7f, .mask = true)
EDIT(mask_sd1_ddim, "sd1", "ddim", "diffusers", 0.55f, .mask = true)
EDIT(mask9, "inpaint", "euler", "diffusers", 1, .mask = true)
EDIT(mask9_part, "inpaint", "euler", "diffusers", 0.7f, .mask = true)
EDIT(mask_crop, "sd1", "euler", "diffusers", 0.7f, .part = true)
EDIT(ip2p, "ip2p", "euler", "diffusers", -1, .mask = false)
EDIT(a1111_original, "sd1", "euler", "a1111", 0.75f, .mask = true)
EDIT(a1111_fill, "sd1", "euler", "a1111", 0.75f, .mask = true, .content = "fill")
EDIT(a1111_noise, "sd1", "euler", "a1111", 0.75f, .mask = true, .content = "latent noise")
EDIT(a1111_nothing, "sd1", "euler", "a1111", 0.75f, .mask = true, .content = "latent nothing")

/* The base's eight steps of ten, the refiner's two: as diffusers with denoising_end and denoising_start 0.8. */
TEST(edit_refine)
{
    char path[300];
    snprintf(path, sizeof path, "%s", family_model("refiner", FAMILY_FOLDER));
    check_edit(&(edit){.run = "refine", .family = "xl", .sampler = "euler", .rules = "diffusers", .refiner = path});
    snprintf(path, sizeof path, "%s", family_model("refiner", FAMILY_FILE));
    check_edit(&(edit){.run = "refine", .family = "xl", .sampler = "euler", .rules = "diffusers", .refiner = path});
}
