/* What whole requests promise beyond a single context: the same bits on every instruction set with FMA, over several rounds of
 * pictures, and when several contexts draw with one model at once; the planner's figures against what was taken. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "graph/packs.h"
#include "pipeline/model.h"
#include "test.h"
#include "tiny.h"

static sumi_request request(int count)
{
    sumi_request r = sumi_request_default();
    r.prompt = "blue ring, noto style";
    r.negative_prompt = "red";
    r.seed = 7;
    r.steps = 3;
    r.count = count;
    r.cfg_scale = 2.5f;
    return r;
}

static sumi_images *draw(tiny_kind kind, const sumi_request *r, const char *cpu, sumi_context **ctx)
{
    sumi_context_options o = {.threads = 2, .cpu = cpu};
    sumi_model *m = NULL;
    sumi_images *im = NULL;
    if (sumi_context_new(&o, ctx))
        return NULL;
    CHECKF(!sumi_model_load(*ctx, tiny_model(kind), &m) && !sumi_generate(*ctx, m, r, NULL, &im), "%s", sumi_error(*ctx));
    sumi_model_free(m);
    return im;
}

static bool same(const sumi_images *a, size_t i, const sumi_images *b, size_t k)
{
    const sumi_image *x = sumi_images_at(a, i), *y = sumi_images_at(b, k);
    return x && y && x->width == y->width && x->height == y->height && x->seed == y->seed &&
           !memcmp(x->pixels, y->pixels, (size_t)x->width * (size_t)x->height * 3);
}

TEST(request_same_bits_on_avx2_and_avx512)
{
    static const char *const samplers[] = {"euler", "dpmpp_2m"};
    for (int kind = TINY_UNET; kind <= TINY_MMDIT; kind++)
        for (size_t k = 0; k < SM_COUNT(samplers); k++) {
            sumi_context *ca, *cb;
            sumi_request r = request(2);
            r.sampler = samplers[k];
            r.width = r.height = kind == TINY_UNET ? 40 : 32; /* no multiple of a vector's width at the lower levels */
            sumi_images *a = draw((tiny_kind)kind, &r, "avx2", &ca), *b = draw((tiny_kind)kind, &r, "avx512", &cb);
            if (a && b)
                CHECKF(same(a, 0, b, 0) && same(a, 1, b, 1), "%s, model %d: other bits", samplers[k], kind);
            else
                test_skip("this processor lacks AVX2 or AVX-512");
            sumi_images_free(a);
            sumi_images_free(b);
            sumi_context_free(ca);
            sumi_context_free(cb);
        }
}

TEST(request_same_bits_over_several_rounds)
{
    static const int firsts[] = {0, 7, 8, 15, 16};
    sumi_context *c, *c1;
    sumi_request r = request(17);
    r.sampler = "euler_a"; /* draws noise at every step */
    sumi_images *all = draw(TINY_UNET, &r, NULL, &c);
    CHECK(sumi_images_count(all) == 17);
    for (size_t k = 0; k < SM_COUNT(firsts); k++) {
        sumi_request one = r;
        one.count = 1;
        one.seed += firsts[k];
        sumi_images *im = draw(TINY_UNET, &one, NULL, &c1);
        CHECKF(same(all, (size_t)firsts[k], im, 0), "picture %d of 17", firsts[k]);
        sumi_images_free(im);
        sumi_context_free(c1);
    }
    sumi_images_free(all);
    sumi_context_free(c);
}

typedef struct caller { sumi_model *m; sumi_context *ctx; sumi_images *im; } caller;

static void *draw_on(void *arg)
{
    caller *c = arg;
    sumi_context_options o = {.threads = 2};
    sumi_request r = request(2);
    if (!sumi_context_new(&o, &c->ctx))
        sumi_generate(c->ctx, c->m, &r, NULL, &c->im);
    return NULL;
}

TEST(request_threads_share_a_model)
{
    sumi_context *ctx;
    sumi_model *m = NULL;
    pthread_t th[2];
    caller c[2] = {{0}};
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &ctx) && !sumi_model_load(ctx, tiny_model(TINY_MMDIT), &m));
    size_t before = sumi_memory_peak(ctx);
    for (int i = 0; i < 2; i++) {
        c[i].m = m;
        CHECK(!pthread_create(&th[i], NULL, draw_on, &c[i]));
    }
    for (int i = 0; i < 2; i++)
        pthread_join(th[i], NULL);
    CHECKF(same(c[0].im, 0, c[1].im, 0) && same(c[0].im, 1, c[1].im, 1), "%s%s", sumi_error(c[0].ctx), sumi_error(c[1].ctx));
    /* a context is charged for its own work; the tokenizer and prepared weights, which both use, count as the model's */
    size_t prepared = m ? sm_packs_bytes(sm_weights_packs(m->w)) : 0;
    CHECKF(prepared > 100000 && sumi_memory_peak(ctx) < before + prepared + 60000, "%zu bytes, %zu of them prepared weights",
           sumi_memory_peak(ctx) - before, prepared);
    for (int i = 0; i < 2; i++) {
        sumi_images_free(c[i].im);
        sumi_context_free(c[i].ctx);
    }
    sumi_model_free(m);
    sumi_context_free(ctx);
}

typedef struct looks { int calls, index[64], step[64]; uint8_t last[20 * 20 * 3]; int width, height; } looks;

static void on_preview(void *user, int index, int step, int width, int height, const uint8_t *rgb)
{
    looks *l = user;
    if (l->calls < 64) {
        l->index[l->calls] = index;
        l->step[l->calls] = step;
    }
    l->calls++;
    l->width = width;
    l->height = height;
    if ((size_t)width * (size_t)height * 3 <= sizeof l->last)
        memcpy(l->last, rgb, (size_t)width * (size_t)height * 3);
}

/* One preview a step and picture; looking changes no bit; the last estimate of Euler is the picture itself, so its blocks'
 * means are the preview up to rounding. */
TEST(request_previews_show_the_picture)
{
    sumi_context *c;
    sumi_model *m = NULL;
    sumi_images *im = NULL, *plain = NULL;
    looks l = {0};
    sumi_callbacks cb = {.preview = on_preview, .user = &l};
    sumi_request r = request(10);
    r.sampler = "euler";
    r.width = 32;
    r.height = 16;
    CHECK(!sumi_context_new(NULL, &c) && !sumi_model_load(c, tiny_model(TINY_UNET), &m));
    CHECKF(m && !sumi_generate(c, m, &r, &cb, &im) && !sumi_generate(c, m, &r, NULL, &plain), "%s", sumi_error(c));
    CHECKF(l.calls == 30 && l.width == 16 && l.height == 8, "%d calls, %dx%d", l.calls, l.width, l.height);
    CHECK(l.index[0] == 0 && l.index[7] == 7 && l.index[8] == 0 && l.step[8] == 1 && l.index[24] == 8 && l.index[29] == 9 &&
          l.step[29] == 2);
    for (size_t k = 0; k < 10; k++)
        CHECK(same(im, k, plain, k));
    const sumi_image *last = sumi_images_at(im, 9);
    int off = 0, seen = 0;
    for (int i = 0; last && i < 16 * 8 * 3; i++) {
        int ch = i % 3, x = i / 3 % 16 * 2, y = i / 3 / 16 * 2, sum = 0;
        bool clipped = false; /* the picture's pixels are cut off at 0 and 255 before this mean is taken */
        for (int k = 0; k < 4; k++) {
            int v = last->pixels[((y + k / 2) * 32 + x + k % 2) * 3 + ch];
            clipped |= v == 0 || v == 255;
            sum += v;
        }
        off += !clipped && (l.last[i] * 4 > sum + 8 || l.last[i] * 4 < sum - 8);
        seen += !clipped;
    }
    CHECKF(!off && seen > 100, "%d of %d values are off", off, seen);
    sumi_images_free(im);
    sumi_images_free(plain);
    sumi_model_free(m);
    sumi_context_free(c);
}

TEST(request_saving_nothing_is_refused)
{
    sumi_context *c;
    CHECK(!sumi_context_new(NULL, &c));
    CHECK(sumi_image_save(c, sumi_images_at(NULL, 0), "x.png") == SUMI_E_ARG && sumi_error(c)[0]);
    sumi_context_free(c);
}

/* The planned peak is what a request takes, within a twentieth; mapped weights are not allocated. */
TEST(request_plan_is_what_is_taken)
{
    static const struct { int count, side; float cfg; } cases[] = {{1, 128, 3}, {1, 16, 1}, {3, 64, 3}, {20, 64, 1}};
    for (int kind = TINY_UNET; kind <= TINY_MMDIT; kind++)
        for (size_t k = 0; k < SM_COUNT(cases); k++) {
            sumi_context *ctx = NULL;
            sumi_model *m = NULL;
            sumi_images *im = NULL;
            sumi_plan_info p = {0};
            sumi_request r = request(cases[k].count);
            r.width = r.height = kind == TINY_UNET ? cases[k].side : SM_MIN(cases[k].side, 32);
            r.cfg_scale = cases[k].cfg;
            r.steps = 1;
            for (int draw = 0; draw < 2; draw++) { /* contexts of their own: planning is no part of what drawing takes */
                CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &ctx) &&
                      !sumi_model_load(ctx, tiny_model((tiny_kind)kind), &m));
                CHECKF(m && !(draw ? sumi_generate(ctx, m, &r, NULL, &im) : sumi_plan_request(ctx, m, &r, &p)), "%s",
                       sumi_error(ctx));
                if (!draw) {
                    sumi_model_free(m);
                    sumi_context_free(ctx);
                }
            }
            double taken = (double)sumi_memory_peak(ctx), planned = (double)p.peak_bytes - (double)p.weight_bytes;
            CHECKF(planned > 0.95 * taken && planned < 1.05 * taken,
                   "model %d, %d pictures of %d: planned %.0f, taken %.0f", kind, cases[k].count,
                   r.width, planned, taken);
            sumi_images_free(im);
            sumi_model_free(m);
            sumi_context_free(ctx);
        }
}
