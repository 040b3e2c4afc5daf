/* Variation seeds, seeds resized from another size and ENSD: noises against A1111's rules in torch
 * (tools/fixtures/make_seeds.py), whole requests against the same noise given from outside, and the infotext there and back. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "families.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "pipeline/infotext.h"
#include "pipeline/params.h"
#include "pipeline/randn.h"
#include "reference.h"
#include "sample/slerp.h"
#include "test.h"
#include "tiny.h"

/* ---- the noise ------------------------------------------------------------------------------------------------------- */

/* A case's request, for latents of one pixel; dims [C, H, W]. */
static sumi_request request_of(const cJSON *c, int dims[3])
{
    const char *const names[] = {"seed", "subseed", "strength", "ensd"};
    double v[4];
    sumi_request q = sumi_request_default();
    for (int i = 0; i < 4; i++)
        v[i] = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(c, names[i]));
    for (int i = 0; i < 3; i++)
        dims[i] = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(c, "shape"), i)->valueint;
    q.rng = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(c, "kind"));
    q.seed = (int64_t)v[0];
    q.variation_seed = (int64_t)v[1];
    q.variation_strength = (float)v[2];
    q.ensd = (int64_t)v[3];
    q.seed_resize_height = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(c, "from"), 0)->valueint;
    q.seed_resize_width = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(c, "from"), 1)->valueint;
    return q;
}

/* The largest difference of x [2, H, W, C] to the fixture's [2, C, H, W]. */
static double worst(const reference *r, int i, const char *what, const float *x, const int dims[3])
{
    const sm_weight *w = reference_find(r, "%d.%s", i, what);
    int c = dims[0], hw = dims[1] * dims[2];
    double most = w ? 0 : INFINITY;
    for (int k = 0; w && k < 2 * c * hw; k++) {
        int p = k / (c * hw), channel = k / hw % c, at = k % hw;
        most = fmax(most, fabs((double)((const float *)w->t.data)[k] - (double)x[(p * hw + at) * c + channel]));
    }
    return most;
}

/* The generator's numbers are good to 1e-6 (rng_torch.h), torch's float32 on the way costs a little more. Both pictures at once,
 * and the second alone. */
TEST(seeds_noise)
{
    reference r;
    sm_err e = {0};
    if (!reference_open(&r, "seeds.safetensors"))
        return;
    cJSON *root = sm_json_parse(NULL, r.config, strlen(r.config), 8, 1000, "seeds", &e), *one;
    int i = 0;
    cJSON_ArrayForEach(one, cJSON_GetObjectItemCaseSensitive(root, "cases"))
    {
        int dims[3];
        sumi_request q = request_of(one, dims);
        float x[2 * 4 * 7 * 9], single[4 * 7 * 9];
        int each = dims[0] * dims[1] * dims[2];
        sm_randn g;
        CHECK(!sm_randn_open(&g, &r.mem, q.rng, 2, dims[1], dims[2], dims[0], &e) && !sm_randn_vary(&g, &r.mem, &q, 1, &e));
        sm_randn_start_of(&g, &q, 0, 2);
        sm_randn_draw(&g, -1, x);
        double start = worst(&r, i, "start", x, dims);
        CHECKF(start <= 2e-6, "case %d (%s): the start is off by %g", i, q.rng, start);
        sm_randn_start_of(&g, &q, 1, 1);
        sm_randn_draw(&g, -1, single);
        CHECKF(!memcmp(single, x + each, sizeof *x * (size_t)each), "case %d: the second picture alone", i);
        sm_randn_start_of(&g, &q, 0, 2);
        sm_randn_draw(&g, -1, x);
        sm_randn_draw(&g, 0, x);
        double then = worst(&r, i, "then", x, dims);
        CHECKF(then <= 2e-6, "case %d (%s): the step's noise is off by %g", i, q.rng, then);
        sm_randn_close(&g);
        i++;
    }
    CHECKF(i >= 22, "%d cases", i);
    cJSON_Delete(root);
    reference_close(&r);
}

/* The same with sumi's own numbers, which the rules are put together from. */
TEST(seeds_noise_own)
{
    enum { H = 5, W = 4, C = 3, FH = 7, FW = 2 };
    sm_mem mem = {0};
    sm_err e = {0};
    sm_randn own, there, here;
    float got[2 * H * W * C], a[FH * FW * C], b[FH * FW * C], x[H * W * C];
    sumi_request q = sumi_request_default();
    q.seed = 5;
    q.variation_seed = 80;
    q.variation_strength = 0.4f;
    q.seed_resize_width = 8 * FW;
    q.seed_resize_height = 8 * FH;
    CHECK(!sm_randn_open(&own, &mem, "sumi", 2, H, W, C, &e) && !sm_randn_vary(&own, &mem, &q, 8, &e));
    CHECK(!sm_randn_open(&there, &mem, "sumi", 1, FH, FW, C, &e) && !sm_randn_open(&here, &mem, "sumi", 1, H, W, C, &e));
    sm_randn_start_of(&own, &q, 0, 2);
    sm_randn_draw(&own, -1, got);
    for (int k = 0; k < 2; k++) {
        sm_randn_start(&there, 5, 1);
        sm_randn_draw(&there, -1, a);
        sm_randn_start(&there, (uint64_t)(80 + k), 1);
        sm_randn_draw(&there, -1, b);
        sm_slerp(q.variation_strength, FH, FW * C, a, b);
        sm_randn_start(&here, 5, 1);
        sm_randn_draw(&here, -1, x);
        for (int y = 0; y < H; y++) /* 5 of 7 rows from the second, 2 of 4 columns */
            memcpy(x + (y * W + 1) * C, a + (y + 1) * FW * C, sizeof *x * FW * C);
        CHECKF(!memcmp(x, got + k * H * W * C, sizeof x), "picture %d", k);
    }
    sm_randn_close(&own);
    sm_randn_close(&there);
    sm_randn_close(&here);
    for (int64_t at = 1; at < 5; at++) { /* planes and generators, then room and larger planes */
        mem.fail_at = at;
        sm_err_clear(&e);
        CHECK(sm_randn_open(&own, &mem, "torch", 2, H, W / 2, C, &e) == SUMI_E_MEMORY ||
              sm_randn_vary(&own, &mem, &q, 8, &e) == SUMI_E_MEMORY);
        sm_randn_close(&own);
    }
    CHECK(mem.total == 0);
}

/* By hand: a right angle, opposite columns, equal ones, one pixel high, all nearly parallel. */
TEST(seeds_slerp)
{
    float a[4] = {1, 1, 0, 1}, b[4] = {0, -1, 2, -1}; /* [2, 2]: column 0 at a right angle, column 1 opposite */
    sm_slerp(0.5, 2, 2, a, b);
    CHECK(fabs(a[0] - sqrt(0.5)) < 1e-6 && fabs(a[2] - sqrt(2)) < 1e-6 && a[1] == 0 && a[3] == 0);
    float c[2] = {1, 0.5f}, d[2] = {0.5f, -1}; /* [1, 2]: no angles, the second's opposite */
    sm_slerp(0.25, 1, 2, c, d);
    CHECK(c[0] == 0.875f && c[1] == 0.125f);
    float p[4] = {1, 0, 0, 1}, q[4] = {1, 0, 0.01f, 1};
    sm_slerp(0.25, 2, 2, p, q); /* cosines 0.99995 and 1: A1111's shares of the straight mix */
    CHECK(p[0] == 1 && fabs(p[2] - 0.0075) < 1e-8 && p[1] == 0 && p[3] == 1);
    for (int i = 0; i <= 64; i++) { /* the angle itself, by the cosine of the result to its start */
        double angle = 3.1415926 * i / 64, t = 0.3;
        float u[2] = {1, 0}, v[2] = {(float)cos(angle), (float)sin(angle)};
        sm_slerp(t, 2, 1, u, v);
        if (angle > 0.05 && i < 64)
            CHECKF(fabs(u[0] - cos(t * angle)) < 3e-7 && fabs(u[1] - sin(t * angle)) < 3e-7, "angle %g: %g %g", angle, u[0],
                   u[1]);
    }
    float z[2] = {0, 0}, o[2] = {1, 1};
    sm_slerp(0.5, 2, 1, z, o);
    CHECK(z[0] == 0.5f && z[1] == 0.5f);
}

/* ---- whole requests -------------------------------------------------------------------------------------------------- */

enum { SIDE = 32, F = 4, L = SIDE / F, EACH = 4 * L * L }; /* family sd1: latents of 4 channels, 4 pixels */

typedef struct session { sumi_context *ctx; sumi_model *m; } session;

static bool begin(session *s)
{
    sumi_model_options o = {.path = family_model("sd1", FAMILY_FOLDER), .tokenizer = family_tokenizer()};
    *s = (session){0};
    CHECK(!sumi_context_new(NULL, &s->ctx));
    CHECKF(!sumi_model_load_with(s->ctx, &o, &s->m), "%s", sumi_error(s->ctx));
    return s->m != NULL;
}

static void end(session *s)
{
    sumi_model_free(s->m);
    sumi_context_free(s->ctx);
}

static sumi_request small(const char *rng)
{
    sumi_request r = sumi_request_default();
    r.prompt = "a red ring";
    r.sampler = "euler_a";
    r.schedule = "normal";
    r.rng = rng;
    r.seed = 40;
    r.steps = 3;
    r.width = r.height = SIDE;
    r.cfg_scale = 2;
    return r;
}

static sumi_images *draw(session *s, const sumi_request *r)
{
    sumi_images *im = NULL;
    CHECKF(!sumi_generate(s->ctx, s->m, r, NULL, &im), "%s", sumi_error(s->ctx));
    return im;
}

static bool equal(const sumi_images *a, size_t i, const sumi_images *b, size_t k)
{
    const sumi_image *x = sumi_images_at(a, i), *y = sumi_images_at(b, k);
    return x && y && x->width == y->width && x->height == y->height &&
           !memcmp(x->pixels, y->pixels, 3 * (size_t)x->width * (size_t)x->height);
}

/* The starts of the request's pictures, each of which sm_randn gives, as --init-latents wants them. */
static const char *starts(const sumi_request *q)
{
    static char path[300];
    float x[2 * EACH], y[2 * EACH];
    sm_mem mem = {0};
    sm_err e = {0};
    sm_randn g;
    CHECK(!sm_randn_open(&g, &mem, q->rng, 2, L, L, 4, &e) && !sm_randn_vary(&g, &mem, q, F, &e));
    sm_randn_start_of(&g, q, 0, 2);
    sm_randn_draw(&g, -1, x);
    sm_randn_close(&g);
    for (int i = 0; i < 2 * EACH; i++)
        y[i] = x[i / EACH * EACH + (i % (L * L)) * 4 + i / (L * L) % 4];
    snprintf(path, sizeof path, "%s", test_tmp("starts.safetensors"));
    CHECK(!sm_st_write(path, 1,
                       &(sm_st_item){.name = "latents", .t = {.dtype = SM_F32, .rank = 4, .dims = {2, 4, L, L}, .data = y}},
                       0, NULL, NULL, &e));
    return path;
}

static const char *const rngs[] = {"sumi", "torch", "philox"};

/* A variation, resized, is the request with that noise given. Its steps draw what the seed's do, which for given noise come first
 * from torch's generators; so the sampler draws none. */
TEST(seeds_request_start)
{
    session s;
    for (int k = 0; k < 3 && begin(&s); k++, end(&s)) {
        sumi_request r = small(rngs[k]), given;
        r.sampler = "euler";
        r.count = 2;
        r.variation_seed = 7;
        r.variation_strength = 0.35f;
        r.seed_resize_width = 48;
        r.seed_resize_height = 24;
        given = small(rngs[k]);
        given.sampler = "euler";
        given.count = 2;
        given.init_latents = starts(&r);
        sumi_images *a = draw(&s, &r), *b = draw(&s, &given);
        CHECKF(equal(a, 0, b, 0) && equal(a, 1, b, 1) && !equal(a, 0, a, 1), "%s", rngs[k]);
        CHECK(a && b && sumi_images_at(a, 1)->seed == 40 && sumi_images_at(b, 1)->seed == 41);
        sumi_images_free(a);
        sumi_images_free(b);
    }
}

/* With ENSD d, the steps' noise is that of the seeds + d from its beginning: what a request with those seeds draws whose start is
 * given. */
TEST(seeds_request_ensd)
{
    session s;
    for (int k = 0; k < 3 && begin(&s); k++, end(&s)) {
        sumi_request r = small(rngs[k]), given;
        r.count = 2;
        given = r;
        given.init_latents = starts(&r);
        given.seed = 40 + 31337;
        sumi_images *plain = draw(&s, &r), *b = draw(&s, &given);
        r.ensd = 31337;
        sumi_images *a = draw(&s, &r);
        CHECKF(equal(a, 0, b, 0) && equal(a, 1, b, 1) && !equal(a, 0, plain, 0), "%s", rngs[k]);
        sumi_images_free(plain);
        sumi_images_free(a);
        sumi_images_free(b);
        r.sampler = "dpmpp_sde"; /* its noise is a path of the seed */
        a = draw(&s, &r);
        r.ensd = 0;
        b = draw(&s, &r);
        CHECKF(equal(a, 0, b, 0), "%s: paths", rngs[k]);
        sumi_images_free(a);
        sumi_images_free(b);
    }
}

/* There and back: a picture of several, with hires fix, which resizes and varies its second noise too; a random variation
 * seed. */
TEST(seeds_infotext)
{
    session s;
    for (int k = 0; k < 4 && begin(&s); k++, end(&s)) {
        sumi_request r = small(rngs[k % 3]);
        sumi_infotext *t = NULL;
        sm_err e = {0};
        r.count = 2;
        r.variation_seed = k == 3 ? -1 : 9007199254740990;
        r.variation_strength = 0.1f;
        r.seed_resize_width = 40;
        r.seed_resize_height = 64;
        r.ensd = k == 1 ? -3 : 31337;
        r.prompt = "a {red|blue} ring";
        r.negative_prompt = k == 2 ? "{one|two}" : "";
        if (k == 0)
            r.hires_upscale = 1.5;
        sumi_images *a = draw(&s, &r), *b = NULL;
        const char *text = a ? sumi_images_at(a, 1)->infotext : "";
        CHECKF(strstr(text, "Seed: 40, Size: 32x32, ") &&
               strstr(text, ", Variation seed strength: 0.1, Seed resize from: 40x64, ") &&
               strstr(text, k == 1 ? ", ENSD: -3" : ", ENSD: 31337"), "%s", text);
        CHECKF(k == 3 || strstr(text, ", Variation seed: 9007199254740991, "), "%s", text);
        CHECKF(!sm_infotext_read(NULL, text, &t, &e), "%s", e.msg);
        for (size_t i = 0; t && i < t->count; i++)
            CHECKF(t->field[i].understood, "%s", t->field[i].key);
        b = t ? draw(&s, &t->request) : NULL;
        CHECKF(equal(a, 1, b, 0) && (strstr(text, "Template") || !strcmp(text, sumi_images_at(b, 0)->infotext)), "%s", text);
        sumi_images_free(a);
        sumi_images_free(b);
        sumi_infotext_free(t);
    }
}

/* As A1111 writes them. */
TEST(seeds_infotext_of_a1111)
{
    sumi_context *c = NULL;
    sumi_infotext *t = NULL;
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &c));
    CHECK(!sumi_infotext_parse(c,
                               "cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768, Model hash: 6ce0161689, "
                               "Variation seed: 8, "
                                  "Variation seed strength: 0.25, Seed resize from: 512x512, Denoising strength: 0.7, ENSD: "
                                  "31337, Version: v1.10.1", &t));
    CHECK(t && t->request.variation_seed == 8 && t->request.variation_strength == 0.25f && t->request.seed_resize_width == 512 &&
          t->request.seed_resize_height == 512 && t->request.ensd == 31337);
    for (size_t i = 0; t && i < t->count; i++)
        CHECKF(t->field[i].understood, "%s", t->field[i].key);
    sumi_infotext_free(t);
    sumi_context_free(c);
}

/* A mask whose content is noise gets the seed's, without the variation (create_random_tensors has no subseeds there); the
 * autoencoder's noise is the seed's for all pictures. So at strength 1 of a picture that is all masked, what is under the mask is
 * the noise of both. */
TEST(seeds_masked_content)
{
    session s;
    uint8_t white[SIDE * SIDE * 3];
    char path[300];
    memset(white, 255, sizeof white);
    if (!begin(&s))
        return;
    snprintf(path, sizeof path, "%s", test_tmp("white.png"));
    CHECK(!sumi_image_save(s.ctx, &(sumi_image){.width = SIDE, .height = SIDE, .channels = 3, .pixels = white}, path));
    sumi_request r = small("torch"), q;
    r.sampler = "euler";
    r.init_image = r.mask = path;
    r.masked_content = "latent noise";
    r.strength = 0.5f;
    r.variation_seed = 8;
    r.variation_strength = 1; /* the start is all the variation seed's, up to rounding */
    r.steps = 4;
    q = r;
    q.variation_seed = 9;
    sumi_images *a = draw(&s, &r), *b = draw(&s, &q);
    CHECK(!equal(a, 0, b, 0));
    sumi_images_free(a);
    sumi_images_free(b);
    /* Of strength 0 one step of the lowest level runs: what comes out is the content, but for a trace of the start. */
    r.strength = q.strength = 0;
    a = draw(&s, &r);
    b = draw(&s, &q);
    q.seed = 77;
    sumi_images *c = draw(&s, &q);
    double same = 0, other = 0;
    for (size_t i = 0; a && b && c && i < sizeof white; i++) {
        same += fabs(sumi_images_at(a, 0)->pixels[i] - (double)sumi_images_at(b, 0)->pixels[i]) / sizeof white;
        other += fabs(sumi_images_at(a, 0)->pixels[i] - (double)sumi_images_at(c, 0)->pixels[i]) / sizeof white;
    }
    CHECKF(same < other / 10 && other > 5, "%g %g", same, other);
    sumi_images_free(a);
    sumi_images_free(b);
    sumi_images_free(c);
    end(&s);
}

/* ---- what is refused, and other names -------------------------------------------------------------------------------- */

TEST(seeds_refused)
{
    static const struct { const char *line, *message; } rows[] = {
        {"x --steps 2 --seed-resize-width 64", "--seed-resize: 64x0; both sides"},
        {"x --steps 2 --seed-resize 2x64", "--seed-resize: 2x64; sides of at least 4 pixels"},
        {"x --steps 2 --variation-strength 0.5 --init-latents l", "--variation-strength: not with --init-latents"},
        {"x --steps 2 --seed_resize 64x64 --init-latents l", "--seed-resize: not with --init-latents"},
        {"x --variation-strength 1.5", "--variation-strength: 1.5 is out of range, 0 to 1"},
        {"x --subseed 9007199254740990 --subseed_strength 0.5 --count 3",
         "--variation-seed: 9007199254740990 leaves no seeds for 3 pictures"},
        {"x --seed-resize 64", "--seed-resize: '64' is not WIDTHxHEIGHT"}};
    session s;
    if (!begin(&s))
        return;
    for (size_t i = 0; i < SM_COUNT(rows); i++) {
        sumi_request r = sumi_request_default();
        sumi_images *im = NULL;
        char *texts = NULL;
        sumi_status st = sumi_request_read(s.ctx, rows[i].line, &r, &texts);
        st = st ? st : sumi_generate(s.ctx, s.m, &r, NULL, &im);
        CHECKF(st == SUMI_E_ARG && strstr(sumi_error(s.ctx), rows[i].message), "%s: %s", rows[i].line, sumi_error(s.ctx));
        sumi_images_free(im);
        sumi_text_free(texts);
    }
    end(&s);
}

TEST(seeds_names)
{
    sumi_context *c = NULL;
    sumi_request r = sumi_request_default();
    char *texts = NULL;
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &c));
    CHECKF(!sumi_request_read(c,
                              "{\"subseed\": 8, \"subseed_strength\": 0.5, \"seed_resize_from_w\": 64, \"seed_resize_from_h\": "
                              "48, "
                              "\"denoising_strength\": 0.6}", &r, &texts), "%s", sumi_error(c));
    CHECK(r.variation_seed == 8 && r.variation_strength == 0.5f && r.seed_resize_width == 64 && r.seed_resize_height == 48 &&
          r.strength == 0.6f);
    sumi_text_free(texts);
    CHECK(!sumi_request_read(c, "a cat --size 64x32 --seed-resize 16x24 --subseed 3", &r, &texts) && r.variation_seed == 3);
    CHECK(r.width == 64 && r.height == 32 && r.seed_resize_width == 16 && r.seed_resize_height == 24 &&
          !strcmp(r.prompt, "a cat"));
    sumi_text_free(texts);
    CHECK(sumi_param_find("eta-noise-seed-delta") == sumi_param_find("ENSD") &&
          sumi_param_find("cfg_scale") == sumi_param_find("cfg") && sumi_param_find("nothing") == NULL);
    sumi_context_free(c);
}
