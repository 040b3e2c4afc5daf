/* What requests do where models and flags meet in unusual ways: what a folder's small files say, no negative prompt, failures
 * that must come before the work or must not leave anything behind. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "families.h"
#include "pipeline/decode.h"
#include "test.h"

static sumi_model *load(sumi_context *ctx, const char *path)
{
    sumi_model *m = NULL;
    sumi_model_options o = {.path = path, .tokenizer = family_tokenizer()};
    CHECKF(!sumi_model_load_with(ctx, &o, &m), "%s", sumi_error(ctx));
    return m;
}

static sumi_request small(void)
{
    sumi_request r = sumi_request_default();
    r.prompt = "a cat in a hat";
    r.steps = 1;
    r.cfg_scale = 7;
    r.width = 24;
    r.height = 16;
    r.seed = 1;
    return r;
}

/* Whether no negative prompt and one of no words, which encode to the same tokens, draw the same. */
static bool empty_is_encoded(const char *path)
{
    sumi_context *ctx;
    sumi_images *a = NULL, *b = NULL;
    CHECK(sumi_context_new(NULL, &ctx) == SUMI_OK);
    sumi_model *m = load(ctx, path);
    sumi_request r = small();
    CHECKF(m && !sumi_generate(ctx, m, &r, NULL, &a), "%s", sumi_error(ctx));
    r.negative_prompt = " ";
    CHECKF(m && !sumi_generate(ctx, m, &r, NULL, &b), "%s", sumi_error(ctx));
    bool same = a && b && !memcmp(sumi_images_at(a, 0)->pixels, sumi_images_at(b, 0)->pixels, 24 * 16 * 3);
    sumi_images_free(a);
    sumi_images_free(b);
    sumi_model_free(m);
    sumi_context_free(ctx);
    return same;
}

/* diffusers' and A1111's XL takes zeros for no negative prompt, the refiner and all others the encoding of "". */
TEST(edges_no_negative_prompt)
{
    CHECK(!empty_is_encoded(family_model("xl", FAMILY_FILE)));
    CHECK(!empty_is_encoded(family_model("xl", FAMILY_FOLDER)));
    CHECK(empty_is_encoded(family_model("refiner", FAMILY_FILE)));
    CHECK(empty_is_encoded(family_model("sd1", FAMILY_FILE)));
}

/* ---- what a folder's files say ----------------------------------------------------------------------------------- */

/* Opens the folder with one file's text replaced by another, then puts it back; the summary or the message in out. */
static sumi_status open_with(const char *folder, const char *file, const char *text, char out[640])
{
    char path[700];
    sm_err e = {0};
    sm_buf was = {0};
    sumi_context *ctx;
    sumi_model *m = NULL;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    CHECKF(!sm_file_read(path, 1 << 20, &was, &e) && !sm_file_write(path, text, strlen(text), &e), "%s", e.msg);
    CHECK(sumi_context_new(NULL, &ctx) == SUMI_OK);
    sumi_model_options o = {.path = folder, .tokenizer = family_tokenizer()};
    sumi_status st = sumi_model_load_with(ctx, &o, &m);
    snprintf(out, 640, "%s", st ? sumi_error(ctx) : sumi_model_summary(m));
    sumi_model_free(m);
    sumi_context_free(ctx);
    CHECKF(!sm_file_write(path, was.data, was.len, &e), "%s", e.msg);
    sm_buf_free(&was);
    return st;
}

/* EDM's scheduler with v (CosXL) has the other sign; Playground's with epsilon is the one that is known. */
TEST(edges_edm_of_another_prediction)
{
    char out[640];
    const char *dir = family_model("playground", FAMILY_FOLDER), *file = "scheduler/scheduler_config.json";
    CHECK(open_with(dir, file, "{\"_class_name\":\"EDMEulerScheduler\",\"prediction_type\":\"v_prediction\"}",
                    out) == SUMI_E_SUPPORT);
    CHECKF(strstr(out, "v_prediction"), "%s", out);
    CHECKF(!open_with(dir, file, "{\"_class_name\":\"EDMEulerScheduler\",\"prediction_type\":\"epsilon\"}", out), "%s", out);
}

TEST(edges_size_of_a_folder)
{
    char out[640], path[600];
    sm_err e = {0};
    sm_buf config = {0};
    const char *dir = family_model("sd1", FAMILY_FOLDER);
    snprintf(path, sizeof path, "%s/unet/config.json", dir);
    CHECKF(!sm_file_read(path, 1 << 20, &config, &e), "%s", e.msg);
    sm_buf_add(&config, "", 1);
    char *at = config.data ? strstr(config.data, "\"sample_size\": 64") : NULL; /* the autoencoder's factor is 4 */
    CHECK(at != NULL);
    if (at) {
        CHECKF(!open_with(dir, "unet/config.json", config.data, out) && strstr(out, "256x256"), "%s", out);
        memcpy(at + strlen("\"sample_size\": "), "96", 2);
        CHECKF(!open_with(dir, "unet/config.json", config.data, out) && strstr(out, "384x384"), "%s", out);
    }
    sm_buf_free(&config);
}

/* ---- failures ---------------------------------------------------------------------------------------------------- */

static void count(void *user, const sumi_progress *p) { ++*(int *)user; }

TEST(edges_latents_cannot_be_saved)
{
    int calls = 0;
    sumi_context *ctx;
    sumi_images *im = NULL;
    CHECK(sumi_context_new(NULL, &ctx) == SUMI_OK);
    sumi_model *m = load(ctx, family_model("sd1", FAMILY_FILE));
    sumi_request r = small();
    r.save_latents = "/nonexistent/folder/x.safetensors";
    CHECK(m && sumi_generate(ctx, m, &r, &(sumi_callbacks){.progress = count, .user = &calls}, &im) == SUMI_E_FILE);
    CHECKF(strstr(sumi_error(ctx), "--save-latents") && strstr(sumi_error(ctx), "/nonexistent/folder"), "%s", sumi_error(ctx));
    CHECKF(!calls, "%d calls of progress before the failure", calls);
    sumi_model_free(m);
    sumi_context_free(ctx);
}

/* Every allocation of a model with a part of another file fails once. */
TEST(edges_part_out_of_memory)
{
    sumi_context *ctx;
    const char *path = family_model("sd1", FAMILY_FILE);
    sumi_model_options o = {.path = path, .vae = path, .tokenizer = family_tokenizer()};
    CHECK(sumi_context_new(NULL, &ctx) == SUMI_OK);
    sumi_status st = SUMI_E_MEMORY;
    size_t before = ctx->mem.total;
    for (int i = 1; st == SUMI_E_MEMORY && i < 100000; i++) {
        sumi_model *m = NULL;
        ctx->mem.fail_at = i;
        st = sumi_model_load_with(ctx, &o, &m);
        ctx->mem.fail_at = 0;
        CHECKF(!st == (m != NULL), "allocation %d", i);
        sumi_model_free(m);
        CHECKF(ctx->mem.total == before, "allocation %d: %zu bytes are left", i, ctx->mem.total - before);
    }
    CHECKF(!st, "%s", sumi_error(ctx));
    sumi_context_free(ctx);
}

/* A module's model may be called by the name it was pulled under; one that was not says so as a request's does. */
TEST(edges_module_of_a_name)
{
    sumi_context *ctx;
    sumi_model *m = NULL;
    char *text = NULL, why[640];
    CHECK(sumi_context_new(NULL, &ctx) == SUMI_OK);
    sumi_status st = sumi_model_load(ctx, "acme/no-such-model", &m);
    snprintf(why, sizeof why, "%s", sumi_error(ctx));
    CHECK(st && sumi_list_module(ctx, &(sumi_model_options){.path = "acme/no-such-model"}, "unet", &text) == st);
    CHECKF(!strcmp(why, sumi_error(ctx)), "%s; %s", why, sumi_error(ctx));
    sumi_context_free(ctx);
}

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

TEST(edges_infotext_quotes)
{
    char path[400];
    sumi_context *ctx = NULL;
    sumi_images *im = NULL;
    snprintf(path, sizeof path, "%s", test_tmp("cat: v1, \"pruned\".safetensors"));
    CHECK(!link(family_model("sd1", FAMILY_FILE), path) && sumi_context_new(NULL, &ctx) == SUMI_OK);
    sumi_model *m = load(ctx, path);
    sumi_request r = small();
    CHECKF(m && !sumi_generate(ctx, m, &r, NULL, &im), "%s", sumi_error(ctx));
    const char *text = im ? sumi_images_at(im, 0)->infotext : "";
    CHECKF(strstr(text, ", Model: \"cat: v1, \\\"pruned\\\"\", "), "%s", text);
    sumi_images_free(im);
    sumi_model_free(m);
    sumi_context_free(ctx);
}

/* Sizes in latents: tiles, which change a picture, begin above Stable Diffusion XL's 1024x1024. */
TEST(edges_tiles_begin)
{
    static const struct { int h, w, low, tiled; } cases[] = {
        {64, 64, 0, 0}, {128, 128, 0, 0}, {96, 168, 0, 0}, {144, 128, 0, 1}, {256, 256, 0, 1}, {48, 48, 1, 0}, {64, 64, 1, 1}};
    sumi_context *ctx;
    CHECK(sumi_context_new(NULL, &ctx) == SUMI_OK);
    sumi_model *m = load(ctx, family_model("sd1", FAMILY_FILE));
    for (size_t i = 0; m && i < SM_COUNT(cases); i++) {
        sm_job j;
        sm_err e = {0};
        sm_decode d;
        sumi_request r = small();
        CHECKF(!sm_job_init(&j, m, ctx, &r, &e), "%s", e.msg);
        m->low_memory = cases[i].low;
        CHECKF(!sm_decode_init(&d, &j, cases[i].h, cases[i].w, &e), "%s", e.msg);
        CHECKF(sm_decode_tiled(&d) == cases[i].tiled, "%dx%d, low %d", cases[i].w, cases[i].h, cases[i].low);
        sm_decode_close(&d);
    }
    sumi_model_free(m);
    sumi_context_free(ctx);
}
