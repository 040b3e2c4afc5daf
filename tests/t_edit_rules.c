/* Requests that begin from a picture, by what follows from definitions: steps and noise of flow models, batches, what stays of
 * the picture, extended pictures, hires fix, edges that meet, what is refused. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "families.h"
#include "io/resize.h"
#include "io/safetensors.h"
#include "pipeline/context.h"
#include "test.h"
#include "tiny.h"

typedef struct session { sumi_context *ctx; sumi_model *m; char saved[300]; } session;

static bool begin(session *s, const char *model)
{
    sumi_model_options o = {.path = model, .tokenizer = strstr(model, "family") ? family_tokenizer() : NULL};
    *s = (session){0};
    snprintf(s->saved, sizeof s->saved, "%s", test_tmp("rules-latents.safetensors"));
    CHECK(!sumi_context_new(NULL, &s->ctx));
    CHECKF(!sumi_model_load_with(s->ctx, &o, &s->m), "%s: %s", model, sumi_error(s->ctx));
    return s->m != NULL;
}

static void end(session *s)
{
    sumi_model_free(s->m);
    sumi_context_free(s->ctx);
}

static sumi_images *draw(session *s, const sumi_request *r)
{
    sumi_images *im = NULL;
    CHECKF(!sumi_generate(s->ctx, s->m, r, NULL, &im), "%s", sumi_error(s->ctx));
    return im;
}

/* A soft pattern of bytes. */
static void pattern(uint8_t *x, int w, int h, int c, int seed)
{
    for (int y = 0; y < h; y++)
        for (int i = 0; i < w; i++)
            for (int k = 0; k < c; k++)
                *x++ = (uint8_t)(128 + 90 * sin(0.31 * (i + seed) + 0.7 * k) * cos(0.23 * y + 0.1 * seed));
}

static const char *picture(const char *name, int w, int h, int seed)
{
    static char paths[8][300];
    static int at;
    char *path = paths[at++ % 8];
    uint8_t rgb[64 * 64 * 3];
    sumi_context *ctx;
    pattern(rgb, w, h, 3, seed);
    snprintf(path, sizeof paths[0], "%s", test_tmp(name));
    CHECK(!sumi_context_new(NULL, &ctx));
    CHECKF(!sumi_image_save(ctx, &(sumi_image){.width = w, .height = h, .channels = 3, .pixels = rgb}, path), "%s",
           sumi_error(ctx));
    sumi_context_free(ctx);
    return path;
}

/* White in x0..x1, y0..y1. */
static const char *mask_picture(const char *name, int w, int h, int x0, int y0, int x1, int y1)
{
    static char paths[8][300];
    static int at;
    char *path = paths[at++ % 8];
    uint8_t rgb[64 * 64 * 3];
    sumi_context *ctx;
    for (int i = 0; i < w * h * 3; i++)
        rgb[i] = i / 3 % w >= x0 && i / 3 % w < x1 && i / 3 / w >= y0 && i / 3 / w < y1 ? 255 : 0;
    snprintf(path, sizeof paths[0], "%s", test_tmp(name));
    CHECK(!sumi_context_new(NULL, &ctx));
    CHECKF(!sumi_image_save(ctx, &(sumi_image){.width = w, .height = h, .channels = 3, .pixels = rgb}, path), "%s",
           sumi_error(ctx));
    sumi_context_free(ctx);
    return path;
}

/* Saved latents of a step (< 0: the result) into x, n floats. */
static void saved(const session *s, int step, float *x, size_t n)
{
    sm_mem mem = {0};
    sm_err e = {0};
    char name[32];
    snprintf(name, sizeof name, step < 0 ? "latents" : "latents.%d", step);
    sm_weights *w = sm_weights_new(&mem, &e);
    CHECKF(w && !sm_st_load(s->saved, w, NULL, &mem, &e), "%s", e.msg);
    const sm_weight *t = w ? sm_weights_find(w, name) : NULL;
    CHECKF(t && t->bytes == n * sizeof *x, "%s: %zu floats", name, t ? t->bytes / sizeof *x : 0);
    if (t && t->bytes == n * sizeof *x)
        memcpy(x, t->t.data, t->bytes);
    sm_weights_unref(&w);
}

static bool has_step(const session *s, int step)
{
    sm_mem mem = {0};
    sm_err e = {0};
    char name[32];
    snprintf(name, sizeof name, "latents.%d", step);
    sm_weights *w = sm_weights_new(&mem, &e);
    bool there = w && !sm_st_load(s->saved, w, NULL, &mem, &e) && sm_weights_find(w, name);
    sm_weights_unref(&w);
    return there;
}

static sumi_request small(const session *s)
{
    sumi_request r = sumi_request_default();
    r.prompt = "red disc";
    r.steps = 8;
    r.seed = 5;
    r.sampler = "euler";
    r.schedule = "normal";
    r.save_latents = s->saved;
    r.save_steps = 1;
    return r;
}

/* ---- strength ------------------------------------------------------------------------------------------------------ */

/* Steps that run: of 8 with strength 0.5 A1111 takes int(4) + 1, diffusers 4, diffusers' flow pipelines 8 - int(8 - 8 * 0.55) = 5
 * with 0.55; exact steps are all. */
TEST(edit_rules_steps)
{
    static const struct { const char *rules; float strength; int exact, run; } rows[] = {
        {"a1111", 0.5f, 0, 5}, {"diffusers", 0.5f, 0, 4}, {"diffusers", 0.55f, 0, 5}, {"a1111", 1, 0, 8}, {"diffusers", 1, 0, 8},
        {"a1111", 0, 0, 1}, {"a1111", 0.3f, 1, 8}, {"diffusers", 0.7f, 1, 8}};
    session s;
    float x[4 * 8 * 8];
    bool ok = begin(&s, tiny_model(TINY_UNET));
    for (size_t i = 0; ok && i < SM_COUNT(rows); i++) {
        sumi_request r = small(&s);
        r.init_image = picture("steps.png", 16, 16, 1);
        r.edit_rules = rows[i].rules;
        r.strength = rows[i].strength;
        r.exact_steps = rows[i].exact;
        sumi_images_free(draw(&s, &r));
        saved(&s, rows[i].run - 1, x, SM_COUNT(x));
        CHECKF(!has_step(&s, rows[i].run), "row %zu: more than %d steps", i, rows[i].run);
    }
    end(&s);
}

/* The start is (1 - sigma) init + sigma noise: without noise it is (1 - sigma) init, and init is the encoder's mean, scaled. */
TEST(edit_rules_flow_start)
{
    enum { N = 4 * 8 * 8 };
    session s;
    float zero[N] = {0}, one[N], a[N], b[N], all[N];
    sm_err e = {0};
    char given[300];
    snprintf(given, sizeof given, "%s", test_tmp("rules-noise.safetensors"));
    for (int i = 0; i < N; i++)
        one[i] = 1;
    if (begin(&s, tiny_model(TINY_UNET))) {
        sumi_request r = small(&s);
        r.init_image = picture("flow.png", 16, 16, 2);
        r.init_latents = given;
        r.vae_encode = "mean";
        const float *noise[] = {zero, one, one};
        float *got[] = {a, b, all};
        for (int i = 0; i < 3; i++) {
            sm_st_item item = {.name = "latents",
                               .t = {.dtype = SM_F32, .rank = 4, .dims = {1, 4, 8, 8}, .data = (void *)(uintptr_t)noise[i]}};
            CHECK(!sm_st_write(given, 1, &item, 0, NULL, NULL, &e));
            r.strength = i < 2 ? 0.5f : 0.875f;
            sumi_images_free(draw(&s, &r));
            saved(&s, 0, got[i], N);
        }
        double sigma = b[0] - a[0], top = 0, below = 0;
        for (int i = 0; i < N; i++)
            CHECKF(fabs(b[i] - a[i] - sigma) < 1e-5, "%g, %g", b[i] - a[i], sigma);
        CHECKF(sigma > 0.3 && sigma < 0.95, "%g", sigma);
        for (int i = 0; i < N; i++) { /* strength 0.875 begins higher up with the same init: all - init = top (1 - init) */
            double init = a[i] / (1 - sigma);
            top += (all[i] - init) * (1 - init);
            below += (1 - init) * (1 - init);
        }
        top /= below;
        for (int i = 0; i < N; i++)
            CHECKF(fabs((1 - top) * a[i] / (1 - sigma) + top - all[i]) < 1e-4, "%d: %g", i, all[i]);
        CHECKF(top > sigma + 0.05, "%g, %g", top, sigma);
    }
    end(&s);
}

/* Picture k of a batch is the single one of seed + k, with the autoencoder's noise, masks, and what models look at. */
TEST(edit_rules_batch)
{
    static const struct { const char *model, *rules, *rng; } rows[] = {{"sd1", "a1111", "sumi"}, {"sd1", "diffusers", "torch"},
                                                                       {"inpaint", "a1111", "torch"},
                                                                       {"inpaint", "diffusers", "philox"},
                                                                       {"ip2p", "a1111", "sumi"}};
    for (size_t i = 0; i < SM_COUNT(rows); i++) {
        session s;
        if (begin(&s, family_model(rows[i].model, FAMILY_FOLDER))) {
            sumi_request r = small(&s);
            r.steps = 4;
            r.width = 24;
            r.height = 16;
            r.sampler = "euler_a";
            r.init_image = picture("batch.png", 24, 16, 3);
            r.mask = mask_picture("batch-mask.png", 24, 16, 4, 4, 18, 14);
            r.edit_rules = rows[i].rules;
            r.rng = rows[i].rng;
            r.strength = 0.8f;
            r.count = 3;
            sumi_images *all = draw(&s, &r);
            r.count = 1;
            for (int k = 0; k < 3 && all; k += 2) {
                r.seed = 5 + k;
                sumi_images *one = draw(&s, &r);
                CHECKF(one && !memcmp(sumi_images_at(one, 0)->pixels, sumi_images_at(all, (size_t)k)->pixels, 24 * 16 * 3),
                       "%s, %s: picture %d", rows[i].model, rows[i].rules, k);
                sumi_images_free(one);
            }
            sumi_images_free(all);
        }
        end(&s);
    }
}

/* ---- what stays of the picture ------------------------------------------------------------------------------------- */

/* Differences of picture im from the original outside and inside x0..x1, y0..y1. */
static void changed(const sumi_image *im, const uint8_t *from, int x0, int y0, int x1, int y1, int *outside, int *inside)
{
    *outside = *inside = 0;
    for (int y = 0; y < im->height; y++)
        for (int x = 0; x < im->width; x++) {
            bool in = x >= x0 && x < x1 && y >= y0 && y < y1;
            for (int k = 0; k < 3; k++) {
                size_t i = ((size_t)y * (size_t)im->width + (size_t)x) * 3 + (size_t)k;
                *(in ? inside : outside) += im->pixels[i] != from[i];
            }
        }
}

TEST(edit_rules_only_masked)
{
    session s;
    uint8_t from[50 * 40 * 3];
    int outside, inside;
    pattern(from, 50, 40, 3, 4);
    if (begin(&s, tiny_model(TINY_UNET))) {
        sumi_request r = small(&s);
        r.width = r.height = 16;
        r.init_image = picture("part.png", 50, 40, 4);
        r.mask = mask_picture("part-mask.png", 50, 40, 20, 15, 30, 25);
        r.mask_blur = 0;
        r.mask_padding = 3;
        r.only_masked = 1;
        sumi_images *im = draw(&s, &r);
        const sumi_image *p = sumi_images_at(im, 0);
        CHECK(p && p->width == 50 && p->height == 40);
        if (p) {
            changed(p, from, 20, 15, 30, 25, &outside, &inside);
            CHECKF(outside == 0 && inside > 200, "%d, %d", outside, inside);
            CHECKF(strstr(p->infotext, "Inpaint area: Only masked") && strstr(p->infotext, "Masked area padding: 3"), "%s",
                   p->infotext);
        }
        sumi_images_free(im);
        r.mask_invert = 1; /* then all but the middle changes */
        im = draw(&s, &r);
        if ((p = sumi_images_at(im, 0))) {
            changed(p, from, 20, 15, 30, 25, &outside, &inside);
            CHECKF(inside == 0 && outside > 1000, "%d, %d", outside, inside);
        }
        sumi_images_free(im);
    }
    end(&s);
}

/* Left of and below the picture is new; what is far from there stays. */
TEST(edit_rules_outpaint)
{
    session s;
    uint8_t from[16 * 16 * 3];
    int kept = 0;
    pattern(from, 16, 16, 3, 5);
    if (begin(&s, tiny_model(TINY_UNET))) {
        sumi_request r = small(&s);
        r.init_image = picture("wide.png", 16, 16, 5);
        r.outpaint_left = 8;
        r.outpaint_down = 4;
        r.mask_blur = 1;
        sumi_images *im = draw(&s, &r);
        const sumi_image *p = sumi_images_at(im, 0);
        CHECK(p && p->width == 24 && p->height == 20);
        for (int y = 0; p && y < 12; y++)
            for (int x = 4; x < 16; x++)
                kept += !memcmp(p->pixels + (y * 24 + x + 8) * 3, from + (y * 16 + x) * 3, 3);
        CHECKF(kept == 12 * 12, "%d of %d pixels", kept, 12 * 12);
        sumi_images_free(im);
    }
    end(&s);
}

/* ---- hires fix ----------------------------------------------------------------------------------------------------- */

static void to_last(const float *x, int c, int hw, float *out)
{
    for (int i = 0; i < hw * c; i++)
        out[i % hw * c + i / hw] = x[i];
}

/* The second pass begins from the first's result, enlarged as torch does it, with the noise of the larger size. */
TEST(edit_rules_hires)
{
    enum { SMALL = 4 * 8 * 8, LARGE = 4 * 16 * 16 };
    session s;
    float x[LARGE], first[SMALL], large[LARGE], noise[LARGE], start[LARGE];
    sm_err e = {0};
    if (begin(&s, tiny_model(TINY_UNET))) {
        sumi_request r = small(&s);
        r.width = r.height = 16;
        sumi_images_free(draw(&s, &r));
        saved(&s, -1, x, SMALL);
        to_last(x, 4, 64, first);
        CHECK(!sm_interpolate(first, 8, 8, 4, SM_INTERP_BICUBIC, large, 16, 16, NULL, &e));
        r.hires_upscale = 2;
        r.hires_upscaler = "Latent (bicubic)";
        r.hires_steps = 5;
        r.strength = 0.6f;
        sumi_images *im = draw(&s, &r);
        const sumi_image *p = sumi_images_at(im, 0);
        CHECK(p && p->width == 32 && p->height == 32);
        CHECKF(p && strstr(p->infotext, "Denoising strength: 0.6") && strstr(p->infotext, "Hires upscale: 2") &&
               strstr(p->infotext, "Hires upscaler: Latent (bicubic)") && strstr(p->infotext, "Hires steps: 5") &&
               strstr(p->infotext, "Size: 16x16"), "%s", p ? p->infotext : "");
        sumi_images_free(im);
        saved(&s, 0, x, LARGE);
        to_last(x, 4, 256, start);
        sm_rng_normal(5, 1, 0, noise, LARGE);
        double top = 0, below = 0; /* start - large = sigma (noise - large): least squares */
        for (int i = 0; i < LARGE; i++) {
            top += (start[i] - large[i]) * (noise[i] - large[i]);
            below += (noise[i] - large[i]) * (noise[i] - large[i]);
        }
        for (int i = 0; i < LARGE; i++)
            CHECKF(fabs(start[i] - large[i] - top / below * (noise[i] - large[i])) < 1e-4, "%d", i);
        CHECKF(top / below > 0.3 && top / below < 0.9 && has_step(&s, 4) && !has_step(&s, 5), "%g", top / below);
    }
    end(&s);
}

/* Both sides given: the first result keeps its proportions, covers them, and its middle is drawn over (A1111). 8x8 latents for
 * 20x10 become 20x20; ten lines stick out, five of them above. */
TEST(edit_rules_hires_sides)
{
    enum { SMALL = 4 * 8 * 8, W = 20, H = 10, LARGE = 4 * W * H };
    session s;
    float x[LARGE], first[SMALL], whole[4 * W * W], noise[LARGE], start[LARGE], *large = whole + 5 * 4 * W;
    sm_err e = {0};
    if (begin(&s, tiny_model(TINY_UNET))) {
        sumi_request r = small(&s);
        r.width = r.height = 16;
        sumi_images_free(draw(&s, &r));
        saved(&s, -1, x, SMALL);
        to_last(x, 4, 64, first);
        CHECK(!sm_interpolate(first, 8, 8, 4, SM_INTERP_BILINEAR, whole, W, W, NULL, &e));
        r.hires_width = 40;
        r.hires_height = 20;
        r.strength = 0.6f;
        sumi_images_free(draw(&s, &r));
        saved(&s, 0, x, LARGE);
        to_last(x, 4, W * H, start);
        sm_rng_normal(5, 1, 0, noise, LARGE);
        double top = 0, below = 0; /* as above */
        for (int i = 0; i < LARGE; i++) {
            top += (start[i] - large[i]) * (noise[i] - large[i]);
            below += (noise[i] - large[i]) * (noise[i] - large[i]);
        }
        for (int i = 0; i < LARGE; i++)
            CHECKF(fabs(start[i] - large[i] - top / below * (noise[i] - large[i])) < 1e-4, "%d", i);
        r.hires_upscaler = "Lanczos";
        sumi_images *im = draw(&s, &r);
        CHECK(sumi_images_at(im, 0) && sumi_images_at(im, 0)->width == 40 && sumi_images_at(im, 0)->height == 20);
        sumi_images_free(im);
    }
    end(&s);
}

TEST(edit_rules_hires_pixels)
{
    session s;
    if (begin(&s, tiny_model(TINY_UNET))) {
        sumi_request r = small(&s);
        r.width = r.height = 16;
        r.count = 2;
        r.hires_width = 24;
        r.hires_upscaler = "Lanczos";
        sumi_images *two = draw(&s, &r);
        const sumi_image *p = sumi_images_at(two, 1);
        CHECK(p && p->width == 24 && p->height == 24);
        r.count = 1;
        r.seed = 6;
        sumi_images *one = draw(&s, &r);
        CHECK(p && one && !memcmp(p->pixels, sumi_images_at(one, 0)->pixels, 24 * 24 * 3));
        sumi_images_free(two);
        sumi_images_free(one);
    }
    end(&s);
}

/* ---- edges that meet ----------------------------------------------------------------------------------------------- */

/* Noise turned around by two latents gives the picture turned around, where edges meet in that direction, and only there. */
TEST(edit_rules_tile)
{
    enum { N = 4 * 8 * 8 };
    static const struct { const char *tile; int along_x, meets; } rows[] = {{"both", 1, 1}, {"both", 0, 1}, {"x", 1, 1},
                                                                            {"y", 1, 0}, {"", 1, 0}};
    session s;
    float noise[2][N], got[2][N];
    sm_err e = {0};
    char given[300];
    snprintf(given, sizeof given, "%s", test_tmp("tile-noise.safetensors"));
    bool ok = begin(&s, tiny_model(TINY_UNET));
    for (size_t k = 0; ok && k < SM_COUNT(rows); k++) {
        sumi_request r = small(&s);
        sumi_images *im[2];
        test_fill(noise[0], N, 7, -1.7f, 1.7f);
        for (int i = 0; i < N; i++)
            noise[1][rows[k].along_x ? i / 8 * 8 + (i % 8 + 2) % 8 : i / 64 * 64 + (i % 64 + 16) % 64] = noise[0][i];
        r.init_latents = given;
        r.tile = rows[k].tile;
        for (int i = 0; i < 2; i++) {
            sm_st_item item = {.name = "latents", .t = {.dtype = SM_F32, .rank = 4, .dims = {1, 4, 8, 8}, .data = noise[i]}};
            CHECK(!sm_st_write(given, 1, &item, 0, NULL, NULL, &e));
            im[i] = draw(&s, &r);
            saved(&s, -1, got[i], N);
        }
        int off = 0, worst = 0;
        for (int i = 0; i < N; i++)
            off += fabs(got[1][rows[k].along_x ? i / 8 * 8 + (i % 8 + 2) % 8 : i / 64 * 64 + (i % 64 + 16) % 64] - got[0][i]) >
                1e-3;
        for (int y = 0; im[0] && im[1] && y < 16; y++)
            for (int x = 0; x < 16 * 3; x++) {
                int to = rows[k].along_x ? y * 48 + (x + 12) % 48 : (y + 4) % 16 * 48 + x;
                worst = SM_MAX(worst, abs(sumi_images_at(im[1], 0)->pixels[to] - sumi_images_at(im[0], 0)->pixels[y * 48 + x]));
            }
        CHECKF((off == 0) == rows[k].meets && (worst <= 1) == rows[k].meets, "'%s': %d latents, %d", rows[k].tile, off, worst);
        sumi_images_free(im[0]);
        sumi_images_free(im[1]);
    }
    end(&s);
}

/* ---- refused ------------------------------------------------------------------------------------------------------- */

TEST(edit_rules_refused)
{
    session s;
    const char *p = picture("ok.png", 16, 16, 6), *mask = mask_picture("ok-mask.png", 16, 16, 4, 4, 12, 12),
               *none = mask_picture("none.png", 16, 16, 0, 0, 0, 0),
               *other = mask_picture("other.png", 18, 16, 4, 4, 12, 12), *dot = mask_picture("dot.png", 16, 16, 5, 5, 6, 6);
    const struct { sumi_request r; sumi_status code; const char *says; } rows[] = {
        {{.init_image = "no-such.png"}, SUMI_E_FILE, "--init-image: cannot open no-such.png"},
        {{.init_image = tiny_model(TINY_UNET)}, SUMI_E_FORMAT, "--init-image"},
        {{.mask = mask}, SUMI_E_ARG, "--mask needs a picture"},
        {{.strength = 0.4f}, SUMI_E_ARG, "--strength 0.4 needs a picture"},
        {{.outpaint_left = 8}, SUMI_E_ARG, "--outpaint-... needs a picture"},
        {{.init_image = p, .only_masked = 1}, SUMI_E_ARG, "--only-masked needs a mask"},
        {{.init_image = p, .mask = "no-such.png"}, SUMI_E_FILE, "--mask: cannot open no-such.png"},
        {{.init_image = p, .mask = other}, SUMI_E_ARG, "is 18x16, the init image 16x16"},
        {{.init_image = p, .mask = none}, SUMI_E_ARG, "has no white"},
        {{.init_image = p, .mask = dot}, SUMI_E_ARG, "smaller than one"},
        {{.init_image = p, .mask = mask, .mask_padding = 5000}, SUMI_E_ARG, "--mask-padding: 5000 is out of range"},
        {{.init_image = p, .strength = 1.5f}, SUMI_E_ARG, "--strength: 1.5 is out of range"},
        {{.init_image = p, .strength = 0, .edit_rules = "diffusers"}, SUMI_E_ARG, "--strength: 0 of 8 steps leaves none"},
        {{.init_image = p, .strength = 0, .exact_steps = 1}, SUMI_E_ARG, "--strength: 0 of 8 steps leaves none"},
        {{.init_image = p, .edit_rules = "other"}, SUMI_E_ARG, "--edit-rules"},
        {{.init_image = p, .resize_mode = "other"}, SUMI_E_ARG, "--resize-mode"},
        {{.init_image = p, .resize_filter = "other"}, SUMI_E_ARG, "--resize-filter"},
        {{.init_image = p, .vae_encode = "other"}, SUMI_E_ARG, "--vae-encode"},
        {{.init_image = p, .mask = mask, .masked_content = "other"}, SUMI_E_ARG, "--masked-content"},
        {{.init_image = p, .mask = mask, .resize_mode = "latent"}, SUMI_E_ARG, "does not go with masks"},
        {{.init_image = p, .mask = mask, .only_masked = 1, .outpaint_up = 4}, SUMI_E_ARG, "do not go together"},
        {{.init_image = p, .hires_upscale = 2}, SUMI_E_ARG, "hires fix begins from noise"},
        {{.hires_upscale = 2, .hires_upscaler = "other"}, SUMI_E_ARG, "--hires-upscaler"},
        {{.hires_upscale = 2, .hires_width = 32}, SUMI_E_ARG, "give one"},
        {{.hires_upscale = 0.01f}, SUMI_E_ARG, "too small"},
        {{.hires_width = 8192, .height = 16, .width = 8}, SUMI_E_ARG, "at most 8192"},
        {{.hires_upscale = 2, .strength = 0}, SUMI_E_ARG, "leaves no noise"},
        {{.tile = "z"}, SUMI_E_ARG, "--tile"},
        {{.refiner = "no-such.safetensors"}, SUMI_E_FILE, "--refiner: "},
        {{.refiner = family_model("sd1", FAMILY_FILE)}, SUMI_E_ARG, "has other latents or another prediction"},
        {{.refiner = family_model("inpaint", FAMILY_FILE)}, SUMI_E_SUPPORT, "a UNet that takes latents and text is needed"},
    };
    bool ok = begin(&s, tiny_model(TINY_UNET));
    for (size_t i = 0; ok && i < SM_COUNT(rows); i++) {
        const sumi_request *a = &rows[i].r;
        sumi_request r = small(&s);
        sumi_images *im = NULL;
#define TAKE(F) r.F = a->F ? a->F : r.F
        TAKE(init_image), TAKE(mask), TAKE(outpaint_left), TAKE(outpaint_up), TAKE(only_masked),
            TAKE(mask_padding), TAKE(exact_steps);
        TAKE(edit_rules), TAKE(resize_mode), TAKE(resize_filter), TAKE(vae_encode), TAKE(masked_content), TAKE(hires_upscale);
        TAKE(hires_upscaler), TAKE(hires_width), TAKE(width), TAKE(height), TAKE(tile), TAKE(refiner);
#undef TAKE
        r.mask_blur = 0;
        r.strength = a->strength > 0 || strstr(rows[i].says, "0 of 8") || strstr(rows[i].says, "no noise") ? a->strength : -1;
        sumi_status st = sumi_generate(s.ctx, s.m, &r, NULL, &im);
        CHECKF(st == rows[i].code && strstr(sumi_error(s.ctx), rows[i].says) && !im, "row %zu: %d, %s", i, st, sumi_error(s.ctx));
        CHECK(!strchr(sumi_error(s.ctx), '\n'));
        sumi_images_free(im);
    }
    end(&s);
}

/* ---- memory -------------------------------------------------------------------------------------------------------- */

/* Requests of every kind: a mask, nine channels, hires fix by way of pixels, a refiner; least memory first, which encodes in
 * tiles. */
typedef struct kind { const char *model; int mask, hires, refine, low; } kind;
static const kind kinds[] = {{"sd1", 1, 0, 0, 0}, {"inpaint", 1, 0, 0, 0}, {"sd1", 0, 1, 0, 0}, {"xl", 0, 0, 1, 0},
                             {"inpaint", 1, 0, 0, 1}};

static sumi_request request_of(const session *s, const kind *k)
{
    static char refiner[300];
    sumi_request r = small(s);
    r.width = r.height = k->low ? 200 : 64;
    r.steps = k->low ? 1 : 8;
    r.save_latents = "";
    r.save_steps = 0;
    if (k->mask) {
        r.init_image = picture("plan.png", 64, 64, 7);
        r.mask = mask_picture("plan-mask.png", 64, 64, 10, 10, 50, 50);
    }
    if (k->hires) {
        r.hires_upscale = 1.5f;
        r.hires_upscaler = "Lanczos";
    }
    if (k->refine) {
        snprintf(refiner, sizeof refiner, "%s", family_model("refiner", FAMILY_FILE));
        r.refiner = refiner;
        r.refiner_switch_at = 0.5f;
    }
    return r;
}

static bool begin_kind(session *s, const kind *k)
{
    sumi_model_options o = {.path = family_model(k->model, FAMILY_FILE), .tokenizer = family_tokenizer(), .low_memory = k->low};
    *s = (session){0};
    CHECK(!sumi_context_new(NULL, &s->ctx));
    CHECKF(!sumi_model_load_with(s->ctx, &o, &s->m), "%s: %s", o.path, sumi_error(s->ctx));
    return s->m != NULL;
}

/* The plan is what the request takes, within a tenth; that of tiles leaves out their recordings, 2.3 MB of this autoencoder. */
TEST(edit_rules_plan)
{
    static const int steps[] = {7, 7, 16, 8, 1};
    for (size_t i = 0; i < SM_COUNT(kinds); i++) {
        session s;
        sumi_plan_info info = {0};
        if (begin_kind(&s, &kinds[i])) {
            sumi_request r = request_of(&s, &kinds[i]);
            CHECKF(!sumi_plan_request(s.ctx, s.m, &r, &info), "%s", sumi_error(s.ctx));
        }
        end(&s);
        if (begin_kind(&s, &kinds[i])) {
            sumi_request r = request_of(&s, &kinds[i]);
            sumi_images_free(draw(&s, &r));
            double took = (double)sumi_memory_peak(s.ctx), said = (double)info.peak_bytes - (double)info.weight_bytes;
            CHECKF(said > 0.9 * took - (kinds[i].low ? 2.5e6 : 0) && said < 1.1 * took, "%zu: said %.0f, took %.0f", i, said,
                   took);
            CHECKF(info.encode_flops > 0 && info.steps == steps[i], "%zu: %d steps", i, info.steps);
        }
        end(&s);
    }
}

/* Edit models predict three times where the picture has a scale of its own, and twice where that is 1. */
TEST(edit_rules_plan_predictions)
{
    session s;
    sumi_plan_info two = {0}, three = {0};
    if (begin_kind(&s, &(kind){.model = "ip2p"})) {
        sumi_request r = request_of(&s, &(kind){.mask = 1});
        r.mask = "";
        r.cfg_scale = 7;
        r.image_guidance_scale = 1;
        CHECKF(!sumi_plan_request(s.ctx, s.m, &r, &two), "%s", sumi_error(s.ctx));
        r.image_guidance_scale = 1.5f;
        CHECKF(!sumi_plan_request(s.ctx, s.m, &r, &three), "%s", sumi_error(s.ctx));
        CHECKF(three.step_flops > 1.45 * two.step_flops, "%g, %g", two.step_flops, three.step_flops);
    }
    end(&s);
}

/* Every allocation that fails is an error, and nothing is lost. */
TEST(edit_rules_failing_allocations)
{
    for (size_t i = 0; i < 4; i++) {
        session s;
        if (begin_kind(&s, &kinds[i])) {
            sumi_request r = request_of(&s, &kinds[i]);
            sumi_images *im = NULL;
            size_t before = s.ctx->mem.total;
            sumi_status st = SUMI_E_MEMORY;
            int64_t at = 1;
            r.width = r.height = 16;
            r.hires_upscale = kinds[i].hires ? 2 : 0;
            r.steps = 2;
            for (; st && at < 100000; at += 1 + at / 40) {
                s.ctx->mem.fail_at = at;
                st = sumi_generate(s.ctx, s.m, &r, NULL, &im);
                CHECKF(!st || (st == SUMI_E_MEMORY && !im), "%zu, allocation %lld: %d, %s", i,
                       (long long)at, st, sumi_error(s.ctx));
                s.ctx->mem.fail_at = 0;
                sumi_images_free(im);
                im = NULL;
                CHECKF(s.ctx->mem.total == before, "%zu, allocation %lld: %zu bytes are left", i, (long long)at,
                       s.ctx->mem.total - before);
            }
            CHECKF(at > 50, "%lld", (long long)at);
        }
        end(&s);
    }
}
