/* The parameter rng: torch's noise reaches the latents in torch's order, picture by picture and draw by draw; the picture's
 * text names it as A1111 does; unknown names are refused. */
#include <string.h>

#include "pipeline/randn.h"
#include "test.h"
#include "tiny.h"

enum { H = 3, W = 5, C = 2, EACH = H * W * C };

/* A draw of two pictures against one generator each: channels first there, last here. */
static void check_draw(sm_randn *r, int step, const float *one, const float *two)
{
    float out[2 * EACH];
    sm_randn_draw(r, step, out);
    for (int i = 0; i < H * W; i++)
        for (int c = 0; c < C; c++)
            CHECK(out[i * C + c] == one[c * H * W + i] && out[EACH + i * C + c] == two[c * H * W + i]);
}

TEST(randn_order)
{
    for (int kind = SM_RANDN_TORCH; kind <= SM_RANDN_PHILOX; kind++) {
        sm_mem mem = {0};
        sm_err e = {0};
        sm_randn r;
        sm_torch_cpu g[2];
        float want[2][EACH];
        CHECK(!sm_randn_open(&r, &mem, kind == SM_RANDN_TORCH ? "torch" : "philox", 2, H, W, C, &e));
        for (int round = 0; round < 2; round++) { /* a second start begins anew */
            sm_randn_start(&r, 42, 2);
            for (uint32_t draw = 0; draw < 3; draw++) {
                for (int k = 0; k < 2; k++) {
                    if (!draw)
                        sm_torch_cpu_seed(&g[k], 42 + (uint64_t)k);
                    if (kind == SM_RANDN_TORCH)
                        sm_torch_cpu_normal(&g[k], want[k], EACH);
                    else
                        sm_torch_cuda_normal(42 + (uint64_t)k, draw, want[k], EACH);
                }
                check_draw(&r, (int)draw * 3 - 1, want[0], want[1]); /* the step's number does not matter */
            }
        }
        sm_randn_close(&r);
    }
}

TEST(randn_unknown)
{
    sm_mem mem = {0};
    sm_err e = {0};
    sm_randn r;
    CHECK(sm_randn_open(&r, &mem, "numpy", 1, H, W, C, &e) == SUMI_E_ARG && strstr(e.msg, "numpy") && strstr(e.msg, "philox"));
    sm_randn_close(&r);
    CHECK(sm_randn_find("sumi") == SM_RANDN_SUMI && sm_randn_find("") == SM_RANDN_COUNT);
}

static sumi_images *draw(sumi_context *c, sumi_model *m, const char *rng, int64_t seed, int count)
{
    sumi_request r = sumi_request_default();
    sumi_images *im = NULL;
    r.prompt = "red disc";
    r.seed = seed;
    r.steps = 2;
    r.count = count;
    r.sampler = "euler";
    r.rng = rng;
    sumi_generate(c, m, &r, NULL, &im);
    return im;
}

static bool same(const sumi_image *a, const sumi_image *b)
{
    return a && b && !memcmp(a->pixels, b->pixels, (size_t)a->width * (size_t)a->height * 3);
}

/* Each generator draws a picture of its own; picture k of a batch is a single one with seed + k; the text says which. */
TEST(randn_request)
{
    static const struct { const char *name, *text; } kinds[] = {{"sumi", "Model: tiny, Model file: "},
                                                                {"torch", "Model: tiny, RNG: CPU, "},
                                                                {"philox", "Model: tiny, RNG: NV, "}};
    sumi_context *c = NULL;
    sumi_model *m = NULL;
    sumi_images *last = NULL;
    bool ok = !sumi_context_new(NULL, &c) && !sumi_model_load(c, tiny_model(TINY_UNET), &m);
    CHECKF(ok, "%s", sumi_error(c));
    for (int k = 0; ok && k < 3; k++) {
        sumi_images *two = draw(c, m, kinds[k].name, 5, 2), *one = draw(c, m, kinds[k].name, 6, 1);
        CHECKF(two && one, "%s: %s", kinds[k].name, sumi_error(c));
        CHECKF(same(sumi_images_at(two, 1), sumi_images_at(one, 0)), "%s: a batch draws something else", kinds[k].name);
        CHECK(!same(sumi_images_at(last, 0), sumi_images_at(one, 0)));
        CHECKF(one && strstr(sumi_images_at(one, 0)->infotext, kinds[k].text), "%s", one ? sumi_images_at(one, 0)->infotext : "");
        sumi_images_free(last);
        sumi_images_free(two);
        last = one;
    }
    CHECK(ok && !draw(c, m, "mt", 5, 1) && strstr(sumi_error(c), "--rng: 'mt' is unknown; sumi, torch or philox"));
    sumi_images_free(last);
    sumi_model_free(m);
    sumi_context_free(c);
}

/* Paths: each picture's is that of its own seed, in torch's order of channels, whatever is beside it and was drawn between. */
TEST(randn_paths)
{
    for (int kind = 0; kind < SM_RANDN_COUNT; kind++) {
        static const char *const names[SM_RANDN_COUNT] = {"sumi", "torch", "philox"};
        sm_mem mem = {0};
        sm_err e = {0};
        sm_randn two, one;
        float both[2 * EACH], alone[EACH], start[2 * EACH];
        CHECK(!sm_randn_open(&two, &mem, names[kind], 2, H, W, C, &e) && !sm_randn_open_paths(&two, &mem, 0.03, 14, &e));
        CHECK(!sm_randn_open(&one, &mem, names[kind], 1, H, W, C, &e) && !sm_randn_open_paths(&one, &mem, 0.03, 14, &e));
        sm_randn_start(&two, 42, 2);
        sm_randn_draw(&two, -1, start);
        sm_randn_step(&two, 14, 7, both);
        sm_randn_step(&two, 7, 3, both);
        for (int k = 0; k < 2; k++) {
            sm_randn_start(&one, 42 + (uint64_t)k, 1);
            sm_randn_step(&one, 7, 3, alone);
            CHECKF(!memcmp(alone, both + k * EACH, sizeof alone), "%s, picture %d", names[kind], k);
        }
        sm_brownian b;
        CHECK(!sm_brownian_open(&b, &mem, EACH, two.paths[0].torch, &e) && !two.paths[0].torch == (kind == SM_RANDN_SUMI));
        sm_brownian_start(&b, 42, 0.03, 14);
        sm_brownian_step(&b, 7, 3, start);
        for (int i = 0; i < H * W; i++)
            for (int c = 0; c < C; c++)
                CHECK(both[i * C + c] == start[kind == SM_RANDN_SUMI ? i * C + c : c * H * W + i]);
        sm_brownian_close(&b);
        sm_randn_close(&one);
        sm_randn_close(&two);
        CHECK(mem.total == 0);
        mem.fail_at = 3; /* the second path */
        CHECK(sm_randn_open(&two, &mem, "sumi", 2, H, W, C, &e) || sm_randn_open_paths(&two, &mem, 1, 2, &e) == SUMI_E_MEMORY);
        sm_randn_close(&two);
        CHECK(mem.total == 0);
    }
}
