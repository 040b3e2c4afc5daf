/* Whole requests through the public header, on a model that a tiny training run made: same seed, same bits for any thread
 * count and batch; metadata; plans; hostile parameters and files. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "pipeline/params.h"
#include "test.h"
#include "tiny.h"

static sumi_request request(int count)
{
    sumi_request r = sumi_request_default();
    r.prompt = "red disc, noto style";
    r.seed = 41;
    r.steps = 4;
    r.count = count;
    r.cfg_scale = 3;
    return r;
}

/* Draws on a fresh context; NULL after a failed check. */
static sumi_images *draw_with(tiny_kind kind, const sumi_request *r, int threads, sumi_context **ctx)
{
    sumi_context_options o = {.threads = threads};
    sumi_model *m = NULL;
    sumi_images *im = NULL;
    bool ok = !sumi_context_new(&o, ctx) && !sumi_model_load(*ctx, tiny_model(kind), &m) && !sumi_generate(*ctx, m, r, NULL, &im);
    CHECKF(ok, "%s", sumi_error(*ctx));
    sumi_model_free(m);
    return im;
}

static sumi_images *draw(const sumi_request *r, int threads, sumi_context **ctx) { return draw_with(TINY_UNET, r, threads, ctx); }

static bool same(const sumi_image *a, const sumi_image *b)
{
    size_t n = (size_t)a->width * (size_t)a->height * 3;
    return a->width == b->width && a->height == b->height && !memcmp(a->pixels, b->pixels, n);
}

/* Three pictures on one thread against one or two of them on 1 to 4 threads. */
static void check_same_bits(tiny_kind kind, const char *sampler)
{
    sumi_context *c3, *c;
    sumi_request r = request(3);
    r.sampler = sampler;
    sumi_images *three = draw_with(kind, &r, 1, &c3);
    for (int threads = 1; three && threads <= 4; threads++) {
        sumi_request one = request(threads % 2 + 1);
        one.sampler = sampler;
        one.seed += 1;
        sumi_images *im = draw_with(kind, &one, threads, &c);
        for (int i = 0; im && i < one.count; i++)
            CHECKF(same(sumi_images_at(im, (size_t)i), sumi_images_at(three, (size_t)i + 1)), "%s, %d threads, picture %d",
                   sampler, threads, i);
        sumi_images_free(im);
        sumi_context_free(c);
    }
    CHECK(three && !same(sumi_images_at(three, 0), sumi_images_at(three, 1)));
    sumi_images_free(three);
    sumi_context_free(c3);
}

TEST(request_same_bits_for_threads_and_batches)
{
    static const char *const samplers[] = {"euler", "euler_a", "heun", "dpmpp_2m"};
    for (size_t k = 0; k < SM_COUNT(samplers); k++)
        check_same_bits(TINY_UNET, samplers[k]);
}

TEST(request_same_bits_with_pooled_text) { check_same_bits(TINY_MMDIT, "euler"); }

TEST(request_metadata_survives_the_file)
{
    static const char *const names[] = {"a.png", "a.webp", "a.jpg"};
    sumi_context *ctx;
    sumi_request r = request(1);
    r.negative_prompt = "blau, \xc3\xa4";
    sumi_images *im = draw(&r, 2, &ctx), *back = NULL;
    const sumi_image *a = sumi_images_at(im, 0);
    CHECK(a && strstr(a->infotext, "red disc, noto style\nNegative prompt: blau, \xc3\xa4\nSteps: 4, Sampler: Euler, ") ==
          a->infotext);
    CHECKF(a && strstr(a->infotext, "CFG scale: 3, Seed: 41, Size: 16x16, Model hash: ") &&
           strstr(a->infotext, ", Model: tiny, "), "%s", a ? a->infotext : "");
    for (size_t i = 0; a && i < SM_COUNT(names); i++) {
        const char *path = test_tmp(names[i]);
        CHECKF(!sumi_image_save(ctx, a, path) && !sumi_image_load(ctx, path, &back), "%s", sumi_error(ctx));
        const sumi_image *b = sumi_images_at(back, 0);
        CHECK(b && !strcmp(b->infotext, a->infotext));
        CHECK(b && (i == 2 || same(a, b)));
        sumi_images_free(back);
    }
    CHECK(a && sumi_image_save(ctx, a, "/nonexistent/folder/a.png") == SUMI_E_FILE &&
          strstr(sumi_error(ctx), "/nonexistent/folder/a.png"));
    CHECK(a && sumi_image_save(ctx, a, "/dev/full") != SUMI_OK);
    sumi_images_free(im);
    sumi_context_free(ctx);
}

/* Sides need not divide by what the UNet halves: 9x11 latents become 5x6 and 9x11 again. */
TEST(request_odd_latents)
{
    sumi_context *ctx;
    sumi_request r = request(1);
    r.width = 22;
    r.height = 18;
    sumi_images *im = draw(&r, 2, &ctx);
    CHECK(sumi_images_at(im, 0) && sumi_images_at(im, 0)->width == 22 && sumi_images_at(im, 0)->height == 18);
    sumi_images_free(im);
    sumi_context_free(ctx);
}

/* 0.01 as a float is less than 0.01. */
TEST(request_numbers_at_their_bounds)
{
    sumi_request r = request(1);
    sm_err e = {0};
    CHECKF(!sm_param_set(sm_param_find("refiner_switch_at"), &r, "0.01", &e) && !sm_request_check(&r, &e), "%s", e.msg);
    r.refiner_switch_at = 0.0099f;
    CHECK(sm_request_check(&r, &e) == SUMI_E_ARG);
}

TEST(request_bad_parameters_are_one_clear_line)
{
    static const struct { const char *name, *value, *want; } cases[] = {
        {"steps", "1001", "--steps: 1001 is out of range"}, {"steps", "x", "--steps: 'x' is not a whole number"},
        {"cfg", "nan", "--cfg"},
        {"width", "17", "--size: 17x16, both sides must be multiples of 2"}, {"sampler", "eulr", "--sampler: 'eulr' is unknown"},
        {"schedule", "x", "--schedule: 'x' is unknown"}, {"prompt", "", "the prompt is empty"},
        {"prompt", " \t\n", "the prompt is empty"},
        {"prompt", "a\xff", "--prompt: not valid UTF-8"}, {"negative", "\xc0\x80", "--negative: not valid UTF-8"},
        {"count", "0", "--count: 0 is out of range"},
        {"seed", "-2", "--seed: -2 is out of range"}, {"height", "8192", NULL}, {"colour", "1", "unknown parameter 'colour'"},
    };
    sumi_context *ctx;
    sumi_model *m = NULL;
    CHECK(!sumi_context_new(NULL, &ctx) && !sumi_model_load(ctx, tiny_model(TINY_UNET), &m));
    for (size_t i = 0; m && i < SM_COUNT(cases) && cases[i].want; i++) {
        sumi_request r = request(1);
        sumi_images *im = NULL;
        sumi_status st = sumi_request_set(ctx, &r, cases[i].name, cases[i].value);
        if (!st)
            st = sumi_generate(ctx, m, &r, NULL, &im);
        CHECKF(st == SUMI_E_ARG && strstr(sumi_error(ctx), cases[i].want) && !strchr(sumi_error(ctx), '\n'), "case %zu: %d %s", i,
               st, sumi_error(ctx));
        CHECK(!im);
    }
    sumi_model_free(m);
    sumi_context_free(ctx);
}

/* The longest prompt draws; one byte more is refused here as by the command (tests/cli/t_draw.sh). */
TEST(request_longest_prompt)
{
    static char text[SUMI_TEXT_MAX + 2];
    sumi_context *ctx;
    sumi_model *m = NULL;
    CHECK(!sumi_context_new(NULL, &ctx) && !sumi_model_load(ctx, tiny_model(TINY_UNET), &m));
    memset(text, 'a', SUMI_TEXT_MAX);
    for (int more = 0; m && more < 2; more++) {
        sumi_request r = request(1);
        sumi_images *im = NULL;
        text[SUMI_TEXT_MAX] = more ? 'a' : 0;
        r.prompt = r.negative_prompt = text;
        sumi_status st = sumi_generate(ctx, m, &r, NULL, &im);
        CHECKF(more ? st == SUMI_E_ARG && !strcmp(sumi_error(ctx), "--prompt: 65537 bytes, at most 65536") : !st, "%d %s", st,
               sumi_error(ctx));
        sumi_images_free(im);
    }
    sumi_model_free(m);
    sumi_context_free(ctx);
}

TEST(request_plan_foresees_memory)
{
    sumi_context *ctx;
    sumi_model *m = NULL;
    sumi_plan_info p;
    sumi_images *im = NULL;
    sumi_request r = request(2);
    CHECK(!sumi_context_new(NULL, &ctx) && !sumi_model_load(ctx, tiny_model(TINY_UNET), &m));
    CHECKF(m && !sumi_plan_request(ctx, m, &r, &p), "%s", sumi_error(ctx));
    CHECK(p.steps == 4 && p.step_flops > 0 && p.decode_flops > 0);
    CHECK(p.total_flops > 4 * p.step_flops && p.total_flops < 4 * p.step_flops + 2 * (p.encode_flops + p.decode_flops));
    CHECK(m && !sumi_generate(ctx, m, &r, NULL, &im));
    size_t most = p.peak_bytes - p.weight_bytes; /* mapped weights are not allocated */
    CHECKF(sumi_memory_peak(ctx) > most / 2 && sumi_memory_peak(ctx) < most + 1000000, "peak %zu, planned %zu",
           sumi_memory_peak(ctx), most);
    sumi_images_free(im);
    sumi_model_free(m);
    sumi_context_free(ctx);
}

/* Every allocation of loading and drawing fails once: always a clean error, never a leak. */
TEST(request_every_allocation_may_fail)
{
    sm_buf file = {0};
    const char *path = tiny_model(TINY_UNET);
    CHECK(!sm_file_read(path, 1 << 24, &file, NULL));
    sm_buf_free(&file);
    int failures = 0;
    for (int64_t at = 1; at < 100000; at += 1 + at / 24) {
        sumi_context *ctx;
        sumi_model *m = NULL;
        sumi_images *im = NULL;
        sumi_request r = request(1);
        sumi_context_options o = {.threads = 1};
        r.steps = 1;
        CHECK(!sumi_context_new(&o, &ctx));
        sm_mem *mem = (sm_mem *)ctx; /* the context's first member */
        size_t before = mem->total;
        mem->fail_at = at;
        sumi_status st = sumi_model_load(ctx, path, &m);
        if (!st)
            st = sumi_generate(ctx, m, &r, NULL, &im);
        CHECKF(!st || st == SUMI_E_MEMORY, "allocation %lld: %d %s", (long long)at, st, sumi_error(ctx));
        failures += st == SUMI_E_MEMORY;
        bool enough = !st && mem->fail_at > 0;
        sumi_images_free(im);
        sumi_model_free(m);
        CHECKF(mem->total == before, "allocation %lld failing leaks %zd bytes: %s", (long long)at, mem->total - before,
               sumi_error(ctx));
        sumi_context_free(ctx);
        if (enough)
            break;
    }
    CHECKF(failures > 20, "only %d failing allocations", failures);
}

TEST(request_hostile_model_files)
{
    sm_buf file = {0};
    char cut[300];
    sumi_context *ctx;
    CHECK(!sumi_context_new(NULL, &ctx));
    CHECK(!sm_file_read(tiny_model(TINY_UNET), 1 << 24, &file, NULL));
    snprintf(cut, sizeof cut, "%s", test_tmp("cut.safetensors"));
    for (int percent = 0; percent < 100; percent++) {
        sumi_model *m = NULL;
        CHECK(!sm_file_write(cut, file.data, file.len * (size_t)percent / 100, NULL));
        sumi_status st = sumi_model_load(ctx, cut, &m);
        CHECKF(st && !m && strstr(sumi_error(ctx), "cut.safetensors") && !strchr(sumi_error(ctx), '\n'), "%d%%: %d %s", percent,
               st, sumi_error(ctx));
    }
    sumi_model *m = NULL;
    CHECK(sumi_model_load(ctx, "/nonexistent.safetensors", &m) == SUMI_E_FILE &&
          strstr(sumi_error(ctx), "/nonexistent.safetensors"));
    CHECK(sumi_model_load(ctx, test_fixture("unet_sd15_tiny.safetensors"), &m) == SUMI_E_MODEL &&
          strstr(sumi_error(ctx), "not a whole model"));
    char *text = NULL;
    CHECKF(!sumi_inspect(ctx, tiny_model(TINY_UNET), 0, &text) && strstr(text, "rectified flow, UNet2DConditionModel") &&
           !strstr(text, "missing") && !strstr(text, "unexpected"), "%s", text ? text : sumi_error(ctx));
    sumi_text_free(text);
    sm_buf_free(&file);
    sumi_context_free(ctx);
}
