/* sumi_run_module on the reference files of single models (tests/fixtures, see tools/fixtures/README.md), each put into a folder
 * of its own as diffusers saves a component: outputs at 1e-4 rms; the types of inputs; what is refused, in which words. Whole
 * checkpoints of every layout are in t_request_families.c. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "io/safetensors.h"
#include "pipeline/context.h"
#include "reference.h"
#include "test.h"

/* A component's folder, and the inputs and outputs of a run. */
typedef struct bench {
    reference f;
    sumi_context *ctx;
    char dir[256], in[256], out[256];
} bench;

static bool bench_open(bench *b, const char *fixture, const char *dir)
{
    static sm_st_item item[600];
    char path[300];
    size_t n = 0;
    sm_err e = {0};
    snprintf(b->dir, sizeof b->dir, "%s", test_tmp(dir));
    snprintf(b->in, sizeof b->in, "%s", test_tmp("run-in.safetensors"));
    snprintf(b->out, sizeof b->out, "%s", test_tmp("run-out.safetensors"));
    CHECK(sumi_context_new(NULL, &b->ctx) == SUMI_OK);
    if (!reference_open(&b->f, fixture))
        return false;
    for (size_t i = 0; i < sm_weights_count(b->f.w) && n < SM_COUNT(item); i++) {
        const sm_weight *w = sm_weights_at(b->f.w, i);
        if (!strncmp(w->name, "w.", 2))
            item[n++] = (sm_st_item){.name = w->name + 2, .t = w->t};
    }
    mkdir(b->dir, 0755);
    snprintf(path, sizeof path, "%s/%s.safetensors", b->dir, strstr(fixture, "clip") ? "model" : "diffusion_pytorch_model");
    sm_st_write(path, n, item, 0, NULL, NULL, &e);
    snprintf(path, sizeof path, "%s/config.json", b->dir);
    sm_file_write(path, b->f.config, strlen(b->f.config), &e);
    unlink(b->out);
    CHECKF(!e.code, "%s", e.msg);
    return !e.code;
}

static void bench_close(bench *b)
{
    sumi_context_free(b->ctx);
    reference_close(&b->f);
}

static sumi_status run(bench *b, const char *module)
{
    return sumi_run_module(b->ctx, &(sumi_model_options){.path = b->dir}, module, b->in, b->out);
}

/* ---- files of inputs ---- */

/* One tensor of a file that is written byte by byte, in types that sumi does not write. */
typedef struct raw { const char *name, *type, *shape; const void *data; size_t bytes; } raw;

static void write_raw(const char *path, size_t n, const raw *x)
{
    sm_buf head = {0}, all = {0};
    sm_err e = {0};
    size_t at = 0;
    for (size_t i = 0; i < n; at += x[i++].bytes)
        sm_buf_fmt(&head, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", i ? "," : "{", x[i].name,
                   x[i].type, x[i].shape, at, at + x[i].bytes);
    sm_buf_fmt(&head, "%s}", n ? "" : "{");
    uint64_t len = head.len;
    sm_buf_add(&all, &len, 8);
    sm_buf_add(&all, head.data, head.len);
    for (size_t i = 0; i < n; i++)
        sm_buf_add(&all, x[i].data, x[i].bytes);
    CHECKF(!all.oom && !sm_file_write(path, all.data, all.len, &e), "%s", e.msg);
    sm_buf_free(&head);
    sm_buf_free(&all);
}

/* [N,H,W,C] to [N,C,H,W] and back (first: to the former). */
static void swap(const float *x, const int64_t *d, bool to_last, float *out)
{
    int64_t hw = d[1] * d[2], c = d[3];
    for (int64_t i = 0; i < d[0] * hw * c; i++) {
        int64_t first = i / (hw * c) * hw * c + i % c * hw + i / c % hw;
        out[to_last ? i : first] = x[to_last ? first : i];
    }
}

static void write_in(const bench *b, size_t n, const char *const (*names)[2])
{
    static float room[2][8192];
    sm_st_item item[8];
    sm_err e = {0};
    size_t swapped = 0;
    for (size_t i = 0; i < n; i++) {
        const sm_weight *w = reference_find(&b->f, "%s", names[i][0]);
        if (!w)
            return;
        item[i] = (sm_st_item){.name = names[i][1], .t = w->t};
        const int64_t *d = w->t.dims;
        if (w->t.rank != 4)
            continue;
        swap(w->t.data, d, false, room[swapped]);
        item[i].t = (sm_tensor){.dtype = SM_F32, .rank = 4, .dims = {d[0], d[3], d[1], d[2]}, .data = room[swapped++]};
    }
    CHECKF(!sm_st_write(b->in, n, item, 0, NULL, NULL, &e), "%s", e.msg);
}

static void compare(const bench *b, const char *wanted, const char *name)
{
    static float room[8192];
    sm_mem mem = {0};
    sm_err e = {0};
    sm_weights *w = sm_weights_new(&mem, &e);
    const sm_weight *x = w && !sm_st_load(b->out, w, NULL, &mem, &e) ? sm_weights_find(w, name) : NULL,
        *want = reference_find(&b->f, "%s", wanted);
    CHECKF(x && x->t.dtype == SM_F32, "%s: %s%s", b->f.name, name, e.msg);
    if (x && want) {
        const float *v = x->t.data;
        if (x->t.rank == 4 && x->bytes <= sizeof room) {
            swap(v, want->t.dims, true, room);
            v = room;
        }
        reference_near(&b->f, wanted, v, (int64_t)(x->bytes / sizeof(float)), 1e-4, "run");
    }
    sm_weights_unref(&w);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

typedef const char *const pair[2];

static void check_model(const char *fixture, const char *module, size_t nin, pair *in, size_t nout, pair *out)
{
    bench b = {0};
    if (bench_open(&b, fixture, fixture)) {
        write_in(&b, nin, in);
        sumi_status st = run(&b, module);
        CHECKF(!st, "%s: %s", fixture, sumi_error(b.ctx));
        for (size_t i = 0; !st && i < nout; i++)
            compare(&b, out[i][0], out[i][1]);
    }
    bench_close(&b);
}
#define PAIRS(...) sizeof((pair[]){__VA_ARGS__}) / sizeof(pair), (pair[]){__VA_ARGS__}
#define DENOISER {"in.sample", "sample"}, {"in.timestep", "timestep"}, {"in.encoder_hidden_states", "encoder_hidden_states"}

TEST(run_module_unet)
{
    check_model("unet_sd15_tiny.safetensors", "unet", PAIRS(DENOISER), PAIRS({"out.sample", "sample"}));
    check_model("unet_sdxl_tiny.safetensors", "unet",
                PAIRS(DENOISER, {"in.text_embeds", "added_cond_kwargs.text_embeds"},
                      {"in.time_ids", "added_cond_kwargs.time_ids"}),
                PAIRS({"out.sample", "sample"}));
}

TEST(run_module_transformer)
{
    check_model("mmdit_tiny.safetensors", "transformer", PAIRS(DENOISER, {"in.pooled_projections", "pooled_projections"}),
                PAIRS({"out.sample", "sample"}));
    check_model("mmdit_sd35_tiny.safetensors", "transformer",
                PAIRS({"in.sample", "hidden_states"}, {"in.timestep", "timestep"},
                      {"in.encoder_hidden_states", "encoder_hidden_states"},
                      {"in.pooled_projections", "pooled_projections"}), PAIRS({"out.sample", "sample"}));
}

TEST(run_module_vae)
{
    check_model("vae_tiny.safetensors", "vae_encoder", PAIRS({"in.image", "sample"}),
                PAIRS({"out.mean", "mean"}, {"out.logvar", "logvar"}));
    check_model("vae_tiny.safetensors", "vae_decoder", PAIRS({"in.latent", "latents"}), PAIRS({"out.image", "sample"}));
    check_model("vae_plain_tiny.safetensors", "vae_decoder", PAIRS({"in.latent", "latents"}), PAIRS({"out.image", "sample"}));
}

TEST(run_module_text)
{
    check_model("clip_tiny.safetensors", "text_encoder", PAIRS({"in.input_ids", "input_ids"}),
                PAIRS({"out.last_hidden_state", "last_hidden_state"}, {"out.pooler_output", "pooler_output"},
                      {"out.hidden_states.0", "hidden_states.0"},
                      {"out.hidden_states.2", "hidden_states.2"}, {"out.hidden_states.3", "hidden_states.3"}));
    check_model("clip_proj_tiny.safetensors", "text_encoder_2", PAIRS({"in.input_ids", "input_ids"}),
                PAIRS({"out.last_hidden_state", "last_hidden_state"}, {"out.text_embeds", "text_embeds"}));
}

/* The pooled output of a model that projects, which transformers keeps to itself, is the last hidden state at the end mark. */
TEST(run_module_pooled_before_projection)
{
    static const int ends[] = {3, 11, 1, 7}; /* of the fixture's rows */
    bench b = {0};
    if (bench_open(&b, "clip_proj_tiny.safetensors", "run-pooled")) {
        sm_mem mem = {0};
        sm_err e = {0};
        sm_weights *w = sm_weights_new(&mem, &e);
        write_in(&b, PAIRS({"in.input_ids", "input_ids"}));
        CHECKF(!run(&b, "text_encoder_2") && !sm_st_load(b.out, w, NULL, &mem, &e), "%s%s", sumi_error(b.ctx), e.msg);
        const sm_weight *last = sm_weights_find(w, "last_hidden_state"), *pooled = sm_weights_find(w, "pooler_output");
        CHECK(last && pooled && pooled->t.rank == 2 && pooled->t.dims[0] == 4 && pooled->t.dims[1] == 32);
        for (int i = 0; last && pooled && i < 4; i++)
            CHECK(!memcmp((float *)pooled->t.data + i * 32, (float *)last->t.data + (i * 12 + ends[i]) * 32, 32 * sizeof(float)));
        sm_weights_unref(&w);
    }
    bench_close(&b);
}

/* ---- types of inputs --------------------------------------------------------------------------------------------- */

/* Ids as torch writes them: 64 bit. */
TEST(run_module_takes_64_bit_ids)
{
    bench b = {0};
    int64_t ids[64] = {0};
    if (bench_open(&b, "clip_tiny.safetensors", "run-clip")) {
        const sm_weight *w = reference_find(&b.f, "in.input_ids");
        for (int i = 0; w && i < 48; i++)
            ids[i] = ((const int32_t *)w->t.data)[i];
        write_raw(b.in, 1, &(raw){"input_ids", "I64", "4,12", ids, 48 * sizeof *ids});
        CHECKF(!run(&b, "text_encoder"), "%s", sumi_error(b.ctx));
        compare(&b, "out.last_hidden_state", "last_hidden_state");
        ids[17] = 100;
        write_raw(b.in, 1, &(raw){"input_ids", "I64", "4,12", ids, 48 * sizeof *ids});
        CHECK(run(&b, "text_encoder") == SUMI_E_FORMAT &&
              strstr(sumi_error(b.ctx), "holds 100 at place 17; the text_encoder takes 0 to 99"));
        ids[17] = INT64_MIN;
        write_raw(b.in, 1, &(raw){"input_ids", "I64", "4,12", ids, 48 * sizeof *ids});
        CHECK(run(&b, "text_encoder") == SUMI_E_FORMAT);
        write_raw(b.in, 1, &(raw){"input_ids", "F32", "4,24", ids, 48 * sizeof *ids});
        CHECK(run(&b, "text_encoder") == SUMI_E_FORMAT && strstr(sumi_error(b.ctx), "is of type F32; I64 or I32 was expected"));
        int64_t many[13] = {0};
        write_raw(b.in, 1, &(raw){"input_ids", "I64", "1,13", many, sizeof many});
        CHECK(run(&b, "text_encoder") != SUMI_OK && strstr(sumi_error(b.ctx), "13 tokens, at most 12"));
    }
    bench_close(&b);
}

/* 1, -0.5, 0.25 ... are the same in every type: so are the results, bit for bit. */
TEST(run_module_takes_every_float)
{
    enum { N = 4 * 2 * 3 };
    float f32[N], first[8192];
    double f64[N];
    uint16_t f16[N], bf16[N];
    static const struct { float v; uint16_t f16, bf16; } exact[] = {{1, 0x3c00, 0x3f80}, {-0.5f, 0xb800, 0xbf00},
                                                                    {0.25f, 0x3400, 0x3e80}, {2, 0x4000, 0x4000}};
    for (int i = 0; i < N; i++) {
        int k = i * 7 % 4;
        f32[i] = exact[k].v;
        f64[i] = exact[k].v;
        f16[i] = exact[k].f16;
        bf16[i] = exact[k].bf16;
    }
    const raw x[] = {{"latents", "F32", "1,4,2,3", f32, sizeof f32}, {"latents", "F16", "1,4,2,3", f16, sizeof f16},
                     {"latents", "BF16", "1,4,2,3", bf16, sizeof bf16}, {"latents", "F64", "1,4,2,3", f64, sizeof f64}};
    bench b = {0};
    for (size_t i = 0; bench_open(&b, "vae_tiny.safetensors", "run-vae") && i < SM_COUNT(x); i++) {
        sm_mem mem = {0};
        sm_err e = {0};
        sm_weights *w = sm_weights_new(&mem, &e);
        write_raw(b.in, 1, &x[i]);
        CHECKF(!run(&b, "vae_decoder"), "%s: %s", x[i].type, sumi_error(b.ctx));
        const sm_weight *y = !sm_st_load(b.out, w, NULL, &mem, &e) ? sm_weights_find(w, "sample") : NULL;
        CHECK(y && y->t.rank == 4 && y->t.dims[1] == 3 && y->t.dims[2] == 4 && y->t.dims[3] == 6 && y->bytes <= sizeof first);
        if (y && i == 0)
            memcpy(first, y->t.data, y->bytes);
        CHECKF(y && !memcmp(first, y->t.data, y->bytes), "%s gives other numbers", x[i].type);
        sm_weights_unref(&w);
        bench_close(&b);
        b = (bench){0};
    }
    bench_close(&b);
}

/* One timestep for all pictures, as a number, and as an integer. */
TEST(run_module_timestep_of_all)
{
    bench b = {0};
    float sample[2 * 4 * 8 * 6], ctx[2 * 7 * 32], out[2][2 * 4 * 8 * 6], times[2] = {17, 17};
    int64_t one = 17;
    test_fill(sample, SM_COUNT(sample), 1, -1, 1);
    test_fill(ctx, SM_COUNT(ctx), 2, -1, 1);
    raw x[] = {{"sample", "F32", "2,4,8,6", sample, sizeof sample}, {"encoder_hidden_states", "F32", "2,7,32", ctx, sizeof ctx},
               {"timestep", "F32", "2", times, sizeof times}};
    for (int i = 0; bench_open(&b, "unet_sd15_tiny.safetensors", "run-unet") && i < 2; i++) {
        sm_mem mem = {0};
        sm_err e = {0};
        sm_weights *w = sm_weights_new(&mem, &e);
        write_raw(b.in, SM_COUNT(x), x);
        CHECKF(!run(&b, "unet"), "%s", sumi_error(b.ctx));
        const sm_weight *y = !sm_st_load(b.out, w, NULL, &mem, &e) ? sm_weights_find(w, "sample") : NULL;
        CHECK(y && y->bytes == sizeof out[0]);
        if (y)
            memcpy(out[i], y->t.data, sizeof out[0]);
        x[2] = (raw){"timestep", "I64", "", &one, sizeof one};
        sm_weights_unref(&w);
        bench_close(&b);
        b = (bench){0};
    }
    bench_close(&b);
    CHECK(!memcmp(out[0], out[1], sizeof out[0]));
}

/* diffusers clamps the logarithm of the variance to -30..20: biases of 1000 and -1000 go to the ends, the mean stays. */
TEST(run_module_clamps_logvar)
{
    bench b = {0};
    float x[2 * 3 * 12 * 8];
    test_fill(x, SM_COUNT(x), 3, -1, 1);
    if (bench_open(&b, "vae_tiny.safetensors", "run-clamp")) {
        sm_mem mem = {0};
        sm_err e = {0};
        char path[300];
        sm_weights *w = sm_weights_new(&mem, &e), *y = sm_weights_new(&mem, &e);
        snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", b.dir);
        sm_weight *bias = !sm_st_load(path, w, NULL, &mem, &e) ? sm_weights_find(w, "quant_conv.bias") : NULL;
        float moved[8] = {0, 0, 0, 0, 1000, -1000, 1000, -1000};
        for (int i = 0; bias && i < 4; i++)
            moved[i] = ((float *)bias->t.data)[i];
        if (bias)
            bias->t.data = moved;
        snprintf(path, sizeof path, "%s", test_tmp("run-clamp.safetensors"));
        CHECK(bias && !sm_st_write_weights(path, w, SM_F32, 0, NULL, NULL, &e));
        write_raw(b.in, 1, &(raw){"sample", "F32", "2,3,12,8", x, sizeof x});
        sumi_model_options o = {.path = path};
        CHECKF(!sumi_run_module(b.ctx, &o, "vae_encoder", b.in, b.out), "%s", sumi_error(b.ctx));
        const sm_weight *v = !sm_st_load(b.out, y, NULL, &mem, &e) ? sm_weights_find(y, "logvar") : NULL;
        CHECK(v && v->bytes == 2 * 4 * 24 * sizeof(float));
        for (int i = 0; v && i < 2 * 4 * 24; i++)
            CHECK(((float *)v->t.data)[i] == (i / 24 % 2 ? -30 : 20));
        sm_weights_unref(&w);
        sm_weights_unref(&y);
    }
    bench_close(&b);
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

static void refuses(bench *b, const char *module, size_t n, const raw *x, const char *why)
{
    write_raw(b->in, n, x);
    sumi_status st = run(b, module);
    CHECKF(st == SUMI_E_FORMAT && strstr(sumi_error(b->ctx), why), "wanted '%s', got %d: %s", why, (int)st, sumi_error(b->ctx));
    CHECK(access(b->out, F_OK) != 0);
}

TEST(run_module_refusals)
{
    bench b = {0};
    static float z[4096];
    raw sample = {"sample", "F32", "2,4,8,6", z, 4 * 384}, t = {"timestep", "F32", "2", z, 8},
        ctx = {"encoder_hidden_states", "F32", "2,7,32", z, 4 * 448};
    if (bench_open(&b, "unet_sd15_tiny.safetensors", "run-refuse")) {
        refuses(&b, "unet", 0, NULL, "lacks 'sample', [N, 4, H, W], which the unet takes");
        refuses(&b, "unet", 2, (raw[]){sample, t}, "lacks 'encoder_hidden_states', [2, T, 32]");
        refuses(&b, "unet", 4, (raw[]){sample, t, ctx, {"time_ids", "F32", "2", z, 8}},
                "'time_ids' is no input of this unet, which takes sample, timestep, encoder");
        refuses(&b, "unet", 3, (raw[]){{"sample", "F32", "2,3,8,6", z, 4 * 288}, t, ctx},
                "'sample' is [2, 3, 8, 6], the unet takes [N, 4, H, W]");
        refuses(&b, "unet", 3, (raw[]){sample, {"timestep", "F32", "3", z, 12}, ctx},
                "'timestep' is [3], the unet takes [2] or [1] or []");
        refuses(&b, "unet", 3, (raw[]){sample, t, {"encoder_hidden_states", "F32", "1,7,32", z, 4 * 224}},
                "is [1, 7, 32], the unet takes [2, T, 32]");
        refuses(&b, "unet", 3, (raw[]){{"sample", "U8", "2,4,8,6", z, 384}, t, ctx}, "'sample' is of type U8");
        refuses(&b, "unet", 3, (raw[]){{"sample", "F32", "0,4,8,6", z, 0}, t, ctx}, "'sample' is [0, 4, 8, 6]");
        CHECK(run(&b, "vae_decoder") != SUMI_OK);
        CHECK(run(&b, "unets") == SUMI_E_ARG && strstr(sumi_error(b.ctx), "'unets' is no module; text_encoder"));
        snprintf(b.dir, sizeof b.dir, "%s", test_tmp("nothing.safetensors"));
        CHECK(run(&b, "unet") == SUMI_E_FILE && strstr(sumi_error(b.ctx), "nothing.safetensors"));
    }
    bench_close(&b);
}

TEST(run_module_list)
{
    bench b = {0};
    char *text = NULL;
    if (bench_open(&b, "unet_sdxl_tiny.safetensors", "run-list")) {
        sumi_model_options o = {.path = b.dir};
        CHECKF(!sumi_list_module(b.ctx, &o, "unet", &text), "%s", sumi_error(b.ctx));
        CHECK(text && strstr(text, "added_cond_kwargs.time_ids       [N, 6]\n") &&
              strstr(text, "added_cond_kwargs.text_embeds    [N, 20]\n"));
        CHECK(text && strstr(text, "gives  sample                           [N, 4, H, W]\n"));
        sumi_text_free(text);
        CHECK(sumi_list_module(b.ctx, &o, "", &text) == SUMI_E_ARG && !text);
    }
    bench_close(&b);
}

/* Whichever allocation fails, the call says so and leaves nothing behind. */
TEST(run_module_out_of_memory)
{
    bench b = {0};
    static float z[2 * 16 * 2 * 3];
    int k = 1;
    if (bench_open(&b, "vae_plain_tiny.safetensors", "run-memory")) {
        sumi_status st = SUMI_E_MEMORY;
        write_raw(b.in, 1, &(raw){"latents", "F32", "2,16,2,3", z, sizeof z});
        for (; st && k < 20000; k++) {
            size_t before = b.ctx->mem.total;
            b.ctx->mem.fail_at = k;
            st = run(&b, "vae_decoder");
            b.ctx->mem.fail_at = 0;
            CHECKF(!st || st == SUMI_E_MEMORY, "allocation %d: %d, %s", k, (int)st, sumi_error(b.ctx));
            CHECKF(b.ctx->mem.total == before, "allocation %d: %zu bytes are left", k, b.ctx->mem.total - before);
            CHECK(!st == !access(b.out, F_OK));
        }
        CHECKF(!st && k > 30, "%d allocations", k);
    }
    bench_close(&b);
}
