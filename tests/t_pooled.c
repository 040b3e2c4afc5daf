/* Pooled text in whole requests. A tiny model gets random weights and a context embedder of zeros, so that the prompt can
 * reach the picture through the pooled text alone: it must then do so, for the prompt and, with guidance, for the negative
 * one; and not at all once the pooled text's embedder is zero too. */
#include <stdio.h>
#include <string.h>

#include "io/safetensors.h"
#include "test.h"
#include "tiny.h"

enum { BYTES = 16 * 16 * 3 };

/* Where text enters a denoiser (parts of tensor names), and how far its random weights go. */
static const struct { tiny_kind kind; const char *component, *context, *pooled; float most; } families[] = {
    {TINY_MMDIT, "transformer.", "context_embedder.weight", "text_embedder.linear_1.weight", 0.4f},
    {TINY_UNET_XL, "unet.", "attn2.to_v.weight", "add_embedding.linear_1.weight", 0.2f},
};

/* The family's tiny model with random denoiser and text projection, tensors whose names hold a or b (may be NULL) zero. */
static const char *random_model(size_t family, const char *name, const char *a, const char *b)
{
    sm_err e = {0};
    sm_st *f = sm_st_open(tiny_model(families[family].kind), NULL, &e);
    const char *path = test_tmp(name);
    sm_arena room;
    sm_arena_init(&room, NULL, SM_MEM_MISC);
    size_t n = f ? sm_st_count(f) : 0;
    sm_st_item *it = sm_arena_get(&room, sizeof *it * (n + 1));
    for (size_t i = 0; it && i < n; i++) {
        const sm_st_entry *x = sm_st_at(f, i);
        it[i] = (sm_st_item){.name = x->name, .t = {.data = (void *)(uintptr_t)x->data, .dtype = x->type, .rank = x->rank}};
        memcpy(it[i].t.dims, x->dims, sizeof it[i].t.dims);
        if (strncmp(x->name, families[family].component, strlen(families[family].component)) &&
            !strstr(x->name, "text_projection"))
            continue;
        int64_t count = (int64_t)(x->bytes / sm_dtype_size(x->type));
        float *v = sm_arena_get(&room, sizeof *v * (size_t)count);
        if (v && !(a && strstr(x->name, a)) && !(b && strstr(x->name, b)))
            test_fill(v, count, i, -families[family].most, families[family].most);
        it[i].t.data = v;
        it[i].t.dtype = SM_F32;
    }
    sm_st_meta meta[3];
    for (size_t i = 0; f && i < 3; i++)
        meta[i] = sm_st_metadata_at(f, i);
    CHECKF(f && it && sm_st_metadata_count(f) == 3 && !sm_st_write(path, n, it, 3, meta, NULL, &e), "%s", e.msg);
    sm_arena_free(&room);
    sm_st_close(f);
    return path;
}

static void draw(const char *model, const char *prompt, const char *negative, float cfg, uint8_t rgb[BYTES])
{
    sumi_context *ctx;
    sumi_model *m = NULL;
    sumi_images *im = NULL;
    sumi_request r = sumi_request_default();
    r.prompt = prompt;
    r.negative_prompt = negative;
    r.cfg_scale = cfg;
    r.seed = 3;
    r.steps = 2;
    bool ok = !sumi_context_new(&(sumi_context_options){.threads = 1}, &ctx) && !sumi_model_load(ctx, model, &m) &&
        !sumi_generate(ctx, m, &r, NULL, &im);
    CHECKF(ok, "%s", sumi_error(ctx));
    memset(rgb, 0, BYTES);
    if (ok && sumi_images_at(im, 0)->width * sumi_images_at(im, 0)->height * 3 == BYTES)
        memcpy(rgb, sumi_images_at(im, 0)->pixels, BYTES);
    sumi_images_free(im);
    sumi_model_free(m);
    sumi_context_free(ctx);
}

/* Whether the second request's picture is another one. */
static bool differ(const char *model, const char *p, const char *neg, const char *p2, const char *neg2, float cfg)
{
    uint8_t a[BYTES], b[BYTES];
    draw(model, p, neg, cfg, a);
    draw(model, p2, neg2, cfg, b);
    return memcmp(a, b, BYTES) != 0;
}

static void check_family(size_t k)
{
    char model[300];
    const char *context = families[k].context, *pooled = families[k].pooled;
    snprintf(model, sizeof model, "%s", random_model(k, "pooled-only.safetensors", context, NULL));
    CHECK(differ(model, "red disc", "", "blue ring", "", 1));
    CHECK(differ(model, "red disc", "", "red disc", "blue ring", 3));
    CHECK(!differ(model, "red disc", "", "red disc", "blue ring", 1)); /* unguided: the negative prompt is not asked */
    CHECK(!differ(model, "red disc", "blue ring", "red disc", "blue ring", 3));
    CHECK(!differ(model, "red disc", "red disc", "red disc", "red disc", 3));
    snprintf(model, sizeof model, "%s", random_model(k, "no-text.safetensors", context, pooled));
    CHECK(!differ(model, "red disc", "", "blue ring", "", 1));
    CHECK(!differ(model, "red disc", "", "red disc", "blue ring", 3));
    snprintf(model, sizeof model, "%s", random_model(k, "context-only.safetensors", pooled, NULL));
    CHECK(differ(model, "red disc", "", "blue ring", "", 1));
}

TEST(request_prompts_reach_the_picture_through_pooled_text)
{
    for (size_t k = 0; k < SM_COUNT(families); k++)
        check_family(k);
}

/* A text encoder whose pooled width is not the transformer's: one line that names both. */
TEST(request_pooled_text_of_another_width_is_refused)
{
    sm_err e = {0};
    sm_st *f = sm_st_open(tiny_model(TINY_MMDIT), NULL, &e);
    const char *path = test_tmp("width.safetensors");
    sm_weights *w = sm_weights_new(NULL, &e);
    char config[8192] = "";
    const char *merges = f ? sm_st_metadata(f, "merges") : "", *from = f ? sm_st_metadata(f, "sumi.model") : "";
    const char *at = strstr(from, "\"pooled_projection_dim\": 12");
    CHECK(at != NULL && strlen(from) < sizeof config);
    if (at)
        snprintf(config, sizeof config, "%.*s\"pooled_projection_dim\": 20%s", (int)(at - from), from,
                 at + strlen("\"pooled_projection_dim\": 12"));
    sm_st_meta meta[] = {{"sumi.model", config}, {"merges", merges}};
    for (size_t i = 0; w && f && i < sm_st_count(f); i++) {
        const sm_st_entry *x = sm_st_at(f, i);
        sm_tensor t = {.data = (void *)(uintptr_t)x->data, .dtype = x->type, .rank = x->rank};
        memcpy(t.dims, x->dims, sizeof t.dims);
        sm_weights_add(w, x->name, &t, &e);
    }
    CHECKF(w && !sm_st_write_weights(path, w, SM_F16, 2, meta, NULL, &e), "%s", e.msg);
    sumi_context *ctx;
    sumi_model *m = NULL;
    CHECK(!sumi_context_new(NULL, &ctx) && sumi_model_load(ctx, path, &m) == SUMI_E_MODEL && !m);
    CHECKF(strstr(sumi_error(ctx), "takes pooled text of width 20, the text encoder gives 12"), "%s", sumi_error(ctx));
    char *text = NULL;
    CHECK(!sumi_inspect(ctx, path, 0, &text) && strstr(text, "width 20"));
    sumi_text_free(text);
    CHECK(!sumi_inspect(ctx, tiny_model(TINY_MMDIT), 0, &text) && strstr(text, "SD3Transformer2DModel") &&
          !strstr(text, "missing") && !strstr(text, "unexpected"));
    sumi_text_free(text);
    sumi_context_free(ctx);
    sm_weights_unref(&w);
    sm_st_close(f);
}
