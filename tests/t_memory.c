/* Memory of plans: weights packed part by part give the bits of weights packed once; pages of mapped files come and go; what is
 * resident at most is what the plan says. */
#include "test.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "io/safetensors.h"
#include "model/model.h"
#include "process.h"

/* ---- parts ---- */

typedef struct layer { int64_t h, c, o; int k, stride, groups; sm_dtype type; } layer; /* k 0: linear */

/* Packed f32 weights of 3.4 to 5 MB: several parts of one or more panels, the last one ragged; steps that divide into no whole
 * piece; one grouped, which is never cut. Of the linear layers' weights the first four are packed by the tasks that use them. */
static const layer layers[] = {
    {5, 1100, 811, 0, 1, 1, SM_F16}, {4, 531, 1603, 0, 1, 1, SM_BF16}, {3, 1830, 500, 0, 1, 1, SM_F32},
    {3, 700, 1500, 0, 1, 1, SM_F16}, {16, 700, 1500, 0, 1, 1, SM_F16},
    {6, 130, 459, 3, 1, 1, SM_F16}, {7, 530, 197, 3, 2, 1, SM_F16}, {5, 200, 340, 3, 1, 1, SM_F32},
    {4, 600, 600, 3, 1, 2, SM_BF16},
};

static void *stored(const layer *l, int64_t n)
{
    float *x = malloc(sizeof *x * (size_t)n);
    uint16_t *y = malloc(sizeof *y * (size_t)n);
    test_fill(x, n, 11, -1, 1);
    if (l->type == SM_F32) {
        free(y);
        return x;
    }
    for (int64_t i = 0; i < n; i++)
        y[i] = l->type == SM_F16 ? sm_f32_f16(x[i]) : sm_f32_bf16(x[i]);
    free(x);
    return y;
}

static sm_node *record(sm_graph *g, const layer *l, const void *w, sm_node **x)
{
    int64_t dims[4] = {l->o, l->c / l->groups, l->k, l->k};
    *x = sm_input(g, "x", SM_F32, 4, (int64_t[]){2, l->h, l->h + 1, l->c});
    sm_node *p = sm_leaf_param(g, "w", l->type, l->k ? 4 : 2, dims, w, false);
    return l->k ? sm_conv2d(*x, p, NULL, &(sm_conv){.stride = l->stride, .pad = 1, .groups = l->groups}) : sm_linear(*x, p, NULL);
}

static float *result(sm_graph *g, sm_node *x, sm_node *y, const sm_backend *be, size_t packed, int threads, sm_plan **plan)
{
    sm_err e = {0};
    sm_pool *pool = sm_pool_new(NULL, threads, &e);
    *plan = sm_plan_new_with(g, 1, &y, be, &(sm_plan_opts){.packed = packed}, &e);
    float *out = calloc((size_t)sm_numel(y), sizeof *out);
    if (*plan) {
        test_fill(sm_plan_data(*plan, x), sm_numel(x), 3, -1, 1);
        sm_plan_run(*plan, pool, NULL, &e);
        memcpy(out, sm_plan_data(*plan, y), sizeof *out * (size_t)sm_numel(y));
    }
    CHECKF(!e.code, "%s", e.msg);
    sm_pool_free(pool);
    return out;
}

static void check_layer(const layer *l, const sm_backend *be)
{
    int64_t n = l->o * (l->c / l->groups) * (l->k ? l->k * l->k : 1);
    void *w = stored(l, n);
    sm_graph *g = sm_graph_new(NULL, NULL);
    sm_node *x, *y = record(g, l, w, &x);
    sm_plan *kept, *parts;
    float *want = result(g, x, y, be, SIZE_MAX, 1, &kept);
    size_t packed = kept ? sm_plan_packed_bytes(kept) : 0, act = kept ? sm_plan_activation_bytes(kept) : 0;
    CHECKF(packed >= (size_t)n * 4, "%s: %zu bytes packed of %lld values", be->name, packed, (long long)n);
    sm_plan_free(kept);
    for (int threads = 1; threads <= 3; threads++) {
        float *got = result(g, x, y, be, packed - 1, threads, &parts);
        CHECKF(!memcmp(got, want, sizeof *got * (size_t)sm_numel(y)), "%s: other bits in parts: %lld to %lld, %dx%d", be->name,
               (long long)l->c, (long long)l->o, l->k, l->k);
        CHECK(parts && !sm_plan_packed_bytes(parts));
        CHECKF(parts && (l->groups > 1 || sm_plan_activation_bytes(parts) < act + packed * 7 / 8), "%s: not cut", be->name);
        sm_plan_free(parts);
        free(got);
    }
    free(want);
    free(w);
    sm_graph_free(g);
}

TEST(memory_parts_give_the_same_bits)
{
    const sm_backend *be[4];
    int n = sm_cpu_backends(be);
    for (int b = 1; b < n; b++)
        for (size_t i = 0; i < SM_COUNT(layers); i++)
            check_layer(&layers[i], be[b]);
}

/* Weights of which each value is used very often are not worth keeping packed, whatever there is room for. */
TEST(memory_often_used_weights_are_not_kept_packed)
{
    sm_err e = {0};
    const sm_backend *be = sm_cpu_backend(NULL, &e);
    float w[64 * 64] = {0};
    sm_graph *g = sm_graph_new(NULL, &e);
    sm_node *p = sm_leaf_param(g, "w", SM_F32, 2, (int64_t[]){64, 64}, w, false);
    sm_node *few = sm_linear(sm_input(g, "x", SM_F32, 2, (int64_t[]){1024, 64}), p, NULL);
    sm_node *many = sm_linear(sm_input(g, "x", SM_F32, 2, (int64_t[]){1025, 64}), p, NULL);
    sm_plan *a = sm_plan_new(g, 1, &few, be, &e), *b = sm_plan_new(g, 1, &many, be, &e);
    CHECK(a && b && sm_plan_packed_bytes(a) == 64 * 64 * 4 * (strcmp(be->name, "scalar") != 0) && sm_plan_packed_bytes(b) == 0);
    sm_plan_free(a);
    sm_plan_free(b);
    sm_graph_free(g);
}

/* ---- mapped files ---- */

static const sm_unet_config middle = {
    .in_channels = 4, .out_channels = 4, .blocks = 3, .block_out_channels = {64, 128, 256}, .layers_per_block = {2, 2, 2},
    .transformer_layers_per_block = {1, 1, 1}, .attention_head_dim = {4, 4, 8}, .down_attention = {true, true, false},
    .up_attention = {false, true, true}, .mid_block = SM_MID_CROSS, .cross_attention_dim = 96,
    .norm_num_groups = 16, .norm_eps = 1e-5f, .flip_sin_to_cos = true};

static sm_node *record_unet(sm_graph *g, sm_weights *w, const nn_init *init, sm_node *in[3])
{
    nn_scope root = nn_root(g, w, init), s = nn_sub(&root, "unet");
    in[0] = sm_input(g, "x", SM_F32, 4, (int64_t[]){2, 32, 32, 4});
    in[1] = sm_input(g, "t", SM_F32, 1, (int64_t[]){2});
    in[2] = sm_input(g, "ctx", SM_F32, 3, (int64_t[]){2, 20, 96});
    return sm_unet(&s, &middle, in[0], in[1], in[2], NULL);
}

/* A UNet of 23 MB in f16 in a file, made once. */
static const char *unet_file(void)
{
    static char path[300];
    static const nn_init init = {.seed = 2};
    sm_err e = {0};
    if (path[0])
        return path;
    snprintf(path, sizeof path, "%s", test_tmp("middle.safetensors"));
    sm_weights *w = sm_weights_new(NULL, &e);
    sm_graph *g = sm_graph_new(NULL, &e);
    sm_node *in[3];
    record_unet(g, w, &init, in);
    sm_st_write_weights(path, w, SM_F16, 0, NULL, NULL, &e);
    CHECKF(!g->err.code && !e.code, "%s%s", g->err.msg, e.msg);
    sm_graph_free(g);
    sm_weights_unref(&w);
    return path;
}

typedef struct ran { double mapped, foreseen, peak, file_before, file_after; float *out; int64_t n; sm_weights *w; } ran;

static ran run_unet(const sm_plan_opts *o)
{
    ran r = {0};
    sm_err e = {0};
    const sm_backend *be = sm_cpu_backend(NULL, &e);
    sm_graph *g = sm_graph_new(NULL, &e);
    sm_node *in[3];
    r.w = sm_weights_new(NULL, &e);
    sm_st_load(unet_file(), r.w, NULL, NULL, &e);
    for (size_t i = 0; i < sm_weights_count(r.w); i++) {
        CHECK(sm_weights_at(r.w, i)->mapped);
        r.mapped += (double)sm_weights_at(r.w, i)->bytes;
    }
    sm_weights_drop(r.w, NULL);
    sm_node *y = record_unet(g, r.w, NULL, in);
    r.file_before = process_memory("RssFile");
    malloc_trim(0); /* what earlier tests have freed is not resident for this one */
    process_reset_peak();
    double before = process_memory("VmRSS");
    sm_plan *p = sm_plan_new_with(g, 1, &y, be, o, &e);
    CHECKF(p && !e.code, "%s", e.msg);
    r.foreseen = (double)(sm_plan_activation_bytes(p) + sm_plan_packed_bytes(p) + sm_plan_mapped_bytes(p));
    for (int i = 0; i < 3; i++)
        test_fill(sm_plan_data(p, in[i]), sm_numel(in[i]), (uint64_t)i, -1, 1);
    CHECKF(!sm_plan_run(p, NULL, NULL, &e), "%s", e.msg);
    r.peak = process_memory("VmHWM") - before;
    r.file_after = process_memory("RssFile");
    r.n = sm_numel(y);
    r.out = malloc(sizeof *r.out * (size_t)r.n);
    memcpy(r.out, sm_plan_data(p, y), sizeof *r.out * (size_t)r.n);
    sm_plan_free(p);
    sm_graph_free(g);
    return r;
}

/* What the plan foresees is what the system sees, within a tenth; with pages given back the weights do not count. */
TEST(memory_peak_is_foreseen)
{
    if (SANITIZED || !process_reset_peak()) {
        test_skip(SANITIZED ? "a sanitizer takes memory of its own"
                            : "this system does not start the peak of resident memory again");
        return;
    }
    ran usual = run_unet(&(sm_plan_opts){.packed = 0}), low = run_unet(&(sm_plan_opts){.drop_pages = true});
    CHECKF(usual.peak > 0.9 * usual.foreseen && usual.peak < 1.1 * usual.foreseen, "%.1f MB, foreseen %.1f", usual.peak * 1e-6,
           usual.foreseen * 1e-6);
    double around = 0.5 * low.mapped; /* a fault maps 64 KB around it: pages of the small tensors beside */
    CHECKF(low.peak < 1.1 * low.foreseen + around, "pages given back: %.1f MB, foreseen %.1f",
           low.peak * 1e-6, low.foreseen * 1e-6);
    double came = usual.file_after - usual.file_before, stayed = low.file_after - low.file_before;
    CHECKF(came > 0.9 * usual.mapped, "%.1f MB of the file resident", came * 1e-6);
    CHECKF(stayed < around, "%.1f MB of the file still resident", stayed * 1e-6);
    CHECK(usual.n == low.n && !memcmp(usual.out, low.out, sizeof *low.out * (size_t)low.n));
    free(usual.out);
    free(low.out);
    sm_weights_unref(&usual.w);
    sm_weights_unref(&low.w);
}

/* Pages of one component go, those of memory of our own never: their content would be lost. */
TEST(memory_only_mapped_tensors_are_dropped)
{
    sm_err e = {0};
    sm_weights *w = sm_weights_new(NULL, &e);
    sm_weight *own = sm_weights_create(w, "unet.own", 1, (int64_t[]){100000}, &e);
    test_fill(own->t.data, 100000, 4, 1, 2);
    CHECK(!sm_st_load(unet_file(), w, NULL, NULL, &e));
    const sm_weight *file = sm_weights_find(w, "unet.conv_in.weight");
    CHECK(file && file->mapped && !own->mapped);
    float first = sm_load_f32(&file->t, 5);
    sm_weights_drop(w, "unet.");
    CHECK(sm_load_f32(&file->t, 5) == first);
    sm_weights *view = sm_weights_new(NULL, &e);
    CHECK(!sm_weights_add(view, "a", &file->t, &e) && !sm_weights_add(view, "b", &own->t, &e) && !sm_weights_map_as(view, w, &e));
    CHECK(sm_weights_at(view, 0)->mapped && !sm_weights_at(view, 1)->mapped);
    sm_weights_unref(&view);
    for (int i = 0; i < 100000; i += 999)
        CHECK(((float *)own->t.data)[i] >= 1);
    sm_weights_unref(&w);
}
