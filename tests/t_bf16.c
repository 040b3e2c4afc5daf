/* Linear layers on operands rounded to bfloat16 (cpu/bf16.h): against the definition, which the processor's instruction follows to
 * the bit (odd step, even step, each a fused multiply-add), against double sums within the row's tolerance, and against f32 within
 * what rounding both operands gives; the same bits for any threads, parts of weights and batches, joined operations or not. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/quant.h"
#include "kernel_run.h"
#include "ops/ops.h"
#include "test.h"

TEST(bf16_backends)
{
    sm_err e = {0};
    CHECK(!sm_cpu_bf16(sm_cpu_backend("scalar", NULL), &e) && e.code == SUMI_E_SUPPORT && strstr(e.msg, "--compute bf16"));
    const sm_backend *be = kernel_bf16(), *exact = be ? sm_cpu_bf16(sm_cpu_backend("avx512-exact", NULL), &e) : NULL;
    if (!be)
        return;
    CHECK(!strcmp(be->name, "avx512-bf16") && exact && !strcmp(exact->name, "avx512-exact-bf16"));
    for (int op = SM_OP_CONST + 1; op < SM_OP_COUNT; op++)
        CHECK(be->k[op].run && exact->k[op].run);
    CHECK(exact->k[SM_OP_CONV2D].run == sm_cpu_backend("avx512-exact", NULL)->k[SM_OP_CONV2D].run);
}

/* ---- one layer ----------------------------------------------------------------------------------------------------- */

typedef struct layer {
    sm_graph *g;
    sm_node *y;
    int64_t items, rows, k, n;
    float *x, *w, *b;           /* f32 of what the node has */
    void *stored;               /* the weight */
} layer;

static layer make(int64_t items, int64_t rows, int64_t k, int64_t n, sm_dtype type, bool biased)
{
    layer l = {.g = sm_graph_new(NULL, NULL), .items = items, .rows = rows, .k = k, .n = n};
    sm_node *x = sm_input(l.g, "x", SM_F32, 3, (int64_t[]){items, rows, k});
    sm_node *w = sm_input(l.g, "w", type, 2, (int64_t[]){n, k});
    l.y = sm_linear(x, w, biased ? sm_input(l.g, "b", SM_F32, 1, (int64_t[]){n}) : NULL);
    l.x = malloc(sizeof(float) * (size_t)(items * rows * k));
    l.w = malloc(sizeof(float) * (size_t)(n * k));
    l.b = malloc(sizeof(float) * (size_t)n);
    l.stored = malloc(sizeof(float) * (size_t)(n * k));
    for (int64_t i = 0; i < items; i++) /* an item's values do not depend on how many there are */
        test_fill(l.x + i * rows * k, rows * k, 5 + (uint64_t)i, -1, 1);
    test_fill(l.w, n * k, 3, -1, 1);
    test_fill(l.b, n, 4, -1, 1);
    CHECK(sm_store_save(type, l.w, n * k, l.stored));
    sm_tensor t = {.data = l.stored, .dtype = type, .rank = 2, .dims = {n, k}};
    sm_load_values(&t, 0, n * k, l.w);
    return l;
}

static void drop(layer *l)
{
    free(l->x);
    free(l->w);
    free(l->b);
    free(l->stored);
    sm_graph_free(l->g);
}

static float *run(const layer *l, const sm_backend *be, bool high, sm_pool *pool)
{
    kernel_run k = {.k = &be->k[SM_OP_LINEAR], .node = l->y, .src = {l->x, l->stored, l->b}, .high = high, .inplace = -1, .pool = pool};
    return kernel_result(&k);
}

static float rounded(float x) { return sm_bf16_f32(sm_f32_bf16(x)); }

/* What is told of element (row, col): the chain, the sum of the rounded products in double, that of all in double, and of their
 * sizes. */
typedef struct element { float chain; double exact, unrounded, sizes; } element;

static element define(const layer *l, int64_t row, int64_t col, bool biased)
{
    const float *x = l->x + row * l->k, *w = l->w + col * l->k;
    element e = {0};
    for (int64_t p = 0; p < l->k; p += 2)
        for (int64_t s = p + 1; s >= p; s--)
            if (s < l->k) {
                float a = rounded(x[s]), b = rounded(w[s]);
                e.chain = fmaf(a, b, e.chain);
                e.exact += (double)a * b;
                e.unrounded += (double)x[s] * w[s];
                e.sizes += fabs((double)x[s] * w[s]);
            }
    if (biased) {
        e.chain += l->b[col];
        e.exact += l->b[col];
        e.unrounded += l->b[col];
    }
    return e;
}

static void check_layer(const layer *l, const float *y, bool biased, const char *what)
{
    const sm_op_row *row = &sm_ops[SM_OP_LINEAR];
    const double u = 0x1p-8, both = 2 * u + u * u; /* 8 bits of significand, to nearest: two factors within 1 + u each */
    int64_t rows = l->items * l->rows, bad[3] = {0};
    double tol = row->atol + row->c * 0x1p-23 * sqrt((double)l->k) * test_rms(y, rows * l->n), off = 0, all = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < l->n; c++) {
            element e = define(l, r, c, biased);
            float got = y[r * l->n + c];
            bad[0] += memcmp(&got, &e.chain, sizeof got) != 0;
            bad[1] += !(fabs(got - e.exact) <= tol);
            bad[2] += !(fabs(got - e.unrounded) <= both * e.sizes + tol);
            off += (got - e.unrounded) * (got - e.unrounded);
            all += e.unrounded * e.unrounded;
        }
    CHECKF(!bad[0], "%s: %lld of %lld other bits than the chain", what, (long long)bad[0], (long long)(rows * l->n));
    CHECKF(!bad[1] && !bad[2], "%s: %lld and %lld too far off", what, (long long)bad[1], (long long)bad[2]);
    /* Rounding errors of values in [2^e, 2^(e+1)) are even within u 2^e: of even values below 1 their squares' mean is u^2 / 21, the
     * values' 1 / 3. So each rounded operand adds (u^2 / 7) to the squares of a sum of random signs: 0.38 u, both 0.53 u. */
    if (l->k > 100 && rows * l->n > 500)
        CHECKF(sqrt(off / all) > u / 3 && sqrt(off / all) < u * 2 / 3, "%s: %.3g of f32", what, sqrt(off / all));
}

static void check_shape(int64_t items, int64_t rows, int64_t k, int64_t n, sm_dtype type, bool biased)
{
    const sm_backend *be = kernel_bf16();
    char what[80];
    snprintf(what, sizeof what, "%dx%dx%d to %d, %s", (int)items, (int)rows, (int)k, (int)n, sm_store_name(type));
    layer l = make(items, rows, k, n, type, biased);
    float *y = run(&l, be, true, NULL), *low = run(&l, be, false, NULL);
    check_layer(&l, y, biased, what);
    CHECKF(!memcmp(y, low, sizeof *y * (size_t)(items * rows * n)), "%s: other bits elsewhere in memory", what);
    free(y);
    free(low);
    drop(&l);
}

TEST(bf16_linear_by_definition)
{
    if (!kernel_bf16())
        return;
    static const int64_t shapes[][4] = {
        {1, 9, 1, 1}, {1, 13, 2, 33}, {2, 10, 3, 16}, {1, 31, 77, 40}, {3, 50, 64, 96}, {1, 150, 319, 130}, /* over a block of rows */
        {1, 20, 1536, 31}, {1, 20, 1537, 64}, {2, 75, 3100, 37}, /* one block of K, two, three */
        {1, 10, 40, 1100}, {1, 10, 1600, 530}, /* over a block of columns */
    };
    for (size_t i = 0; i < SM_COUNT(shapes); i++)
        check_shape(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], SM_F32, i % 2);
}

TEST(bf16_linear_of_stored_types) /* those in blocks: bf16_plans */
{
    static const sm_dtype types[] = {SM_F16, SM_BF16, SM_F8_E4M3, SM_F8_E5M2};
    for (size_t i = 0; i < SM_COUNT(types) && kernel_bf16(); i++) {
        check_shape(1, 25, 351, 45, types[i], true);
        check_shape(1, 12, 34, 80, types[i], false);
        check_shape(1, 12, 600, 20, types[i], false);
    }
}

/* Rows 1 to 40: up to eight of an item, and items alone, are the f32 kernel's. */
TEST(bf16_linear_rows)
{
    const sm_backend *be = kernel_bf16(), *plain = sm_cpu_backend("avx512", NULL);
    for (int64_t rows = 1; be && rows <= 40; rows++) {
        layer l = make(1, rows, 70, 45, SM_F16, true);
        float *y = run(&l, be, true, NULL), *f32 = run(&l, plain, true, NULL);
        bool same = !memcmp(y, f32, sizeof *y * (size_t)(rows * l.n));
        CHECKF(same == (rows <= 8), "%d rows", (int)rows);
        if (rows > 8)
            check_layer(&l, y, true, "rows");
        free(y);
        free(f32);
        drop(&l);
    }
    if (be) {
        sm_graph *g = sm_graph_new(NULL, NULL);
        sm_node *y = sm_linear(sm_input(g, "x", SM_F32, 2, (int64_t[]){40, 70}), sm_input(g, "w", SM_F16, 2, (int64_t[]){45, 70}), NULL);
        CHECK(be->k[SM_OP_LINEAR].prep_bytes(y) == plain->k[SM_OP_LINEAR].prep_bytes(y)); /* 40 items, not rows of one */
        sm_graph_free(g);
    }
}

/* What rounding makes of the ends of the range: the largest f32 becomes infinity, denormals count as 0, the rest stays what it is. */
TEST(bf16_linear_ends_of_range)
{
    const sm_backend *be = kernel_bf16();
    const float ends[] = {NAN, INFINITY, -INFINITY, FLT_MAX, -FLT_MAX, 1e-40f}, want[] = {NAN, INFINITY, -INFINITY, INFINITY, -INFINITY, 2};
    enum { ENDS = sizeof ends / sizeof *ends, ROWS = 12, K = 3, N = 33 };
    for (int step = 0; be && step < K; step++) {
        layer l = make(1, ROWS, K, N, SM_F32, false);
        for (int i = 0; i < N * K; i++)
            ((float *)l.stored)[i] = 1;
        for (int i = 0; i < ROWS * K; i++)
            l.x[i] = 1;
        for (int i = 0; i < ENDS; i++)
            l.x[i * K + step] = ends[i];
        float *y = run(&l, be, true, NULL);
        for (int i = 0; i < ROWS * N; i++) {
            float w = i / N < ENDS ? want[i / N] : K;
            CHECKF(y[i] == w || (y[i] != y[i] && w != w), "step %d, row %d: %g", step, i / N, y[i]);
        }
        free(y);
        drop(&l);
    }
}

TEST(bf16_linear_batches_and_threads)
{
    static const int64_t shapes[][3] = {{30, 200, 90}, {200, 70, 300}, {40, 1700, 64}, {5, 70, 45}}; /* the last: f32 */
    const sm_backend *be = kernel_bf16();
    sm_pool *pools[3] = {sm_pool_new(NULL, 1, NULL), sm_pool_new(NULL, 2, NULL), sm_pool_new(NULL, 4, NULL)};
    for (size_t i = 0; be && i < SM_COUNT(shapes); i++) {
        layer l = make(3, shapes[i][0], shapes[i][1], shapes[i][2], SM_F32, true);
        layer one = make(1, shapes[i][0], shapes[i][1], shapes[i][2], SM_F32, true);
        float *all = run(&l, be, true, NULL), *alone = run(&one, be, true, NULL);
        size_t item = sizeof *all * (size_t)(l.rows * l.n);
        CHECKF(!memcmp(all, alone, item), "%d rows: other bits alone", (int)l.rows);
        for (int p = 0; p < 3; p++) {
            float *y = run(&l, be, true, pools[p]);
            CHECKF(!memcmp(all, y, 3 * item), "%d rows, pool %d", (int)l.rows, p);
            free(y);
        }
        free(all);
        free(alone);
        drop(&l);
        drop(&one);
    }
    for (int p = 0; p < 3; p++)
        sm_pool_free(pools[p]);
}

/* ---- in plans ------------------------------------------------------------------------------------------------------ */

enum { MOST = 24 };
typedef struct net { sm_graph *g; sm_dtype type; uint64_t seed; void *values[MOST]; int count; } net;

static sm_node *weight(net *t, int64_t n, int64_t k)
{
    float *x = malloc(sizeof *x * (size_t)(n * k));
    void *v = t->values[t->count++] = malloc(sizeof *x * (size_t)(n * k));
    test_fill(x, n * k, ++t->seed, -0.2f, 0.2f);
    CHECK(sm_store_save(t->type, x, n * k, v));
    free(x);
    return sm_leaf_param(t->g, "w", t->type, 2, (int64_t[]){n, k}, v, false);
}

static sm_node *bias(net *t, int64_t n)
{
    float *v = t->values[t->count++] = malloc(sizeof *v * (size_t)n);
    test_fill(v, n, ++t->seed, -0.5f, 0.5f);
    return sm_leaf_param(t->g, "b", SM_F32, 1, &n, v, false);
}

/* Gates, activations and sums, in one block of K and in several; 4 MiB of f16 are more than one part of a weight. */
static sm_node *gates(net *t, sm_node *x)
{
    sm_node *h = sm_linear(x, weight(t, 4096, 512), bias(t, 4096));
    h = sm_mul(sm_slice(h, -1, 0, 2048), sm_gelu_erf(sm_slice(h, -1, 2048, 2048)));
    h = sm_add(x, sm_linear(h, weight(t, 512, 2048), bias(t, 512)));
    h = sm_silu(sm_linear(h, weight(t, 1600, 512), NULL));
    h = sm_linear(h, weight(t, 128, 1600), bias(t, 128));
    return sm_mul(sm_slice(h, -1, 0, 64), sm_silu(sm_slice(h, -1, 64, 64)));
}

/* Layers of items: f32's, whichever way that takes. */
static sm_node *modulation(net *t, sm_node *x)
{
    sm_node *h = sm_linear(x, weight(t, 256, 512), bias(t, 256));
    h = sm_mul(sm_slice(h, -1, 0, 128), sm_silu(sm_slice(h, -1, 128, 128)));
    return sm_add(h, sm_linear(h, weight(t, 128, 128), bias(t, 128)));
}

/* Results of a plan; apart: every intermediate result is wanted, so that nothing is joined. items 0: of 60 items. */
static float *planned(sm_dtype type, int64_t items, const sm_backend *be, bool apart, int threads, size_t packed, int *steps, int64_t *n)
{
    net t = {.g = sm_graph_new(NULL, NULL), .type = type};
    int64_t dims[] = {items, 60, 512};
    sm_node *x = sm_input(t.g, "x", SM_F32, items ? 3 : 2, items ? dims : dims + 1), *y = items ? gates(&t, x) : modulation(&t, x);
    sm_node *outs[64] = {y};
    sm_err e = {0};
    int count = 1;
    for (int i = 0; apart && i < t.g->count; i++)
        if (t.g->nodes[i] != y && t.g->nodes[i]->nsrc)
            outs[count++] = t.g->nodes[i];
    sm_plan *p = sm_plan_new_with(t.g, count, outs, be, &(sm_plan_opts){.packed = packed}, &e);
    sm_pool *pool = sm_pool_new(NULL, threads, &e);
    float *out = NULL;
    *n = sm_numel(y);
    for (int64_t i = 0; p && i < SM_MAX(items, 1); i++)
        test_fill((float *)sm_plan_data(p, x) + i * 60 * 512, 60 * 512, 50 + (uint64_t)i, -1, 1);
    CHECKF(p && pool && !sm_plan_run(p, pool, NULL, &e), "%s", e.msg);
    if (!e.code) {
        out = malloc(sizeof *out * (size_t)*n);
        memcpy(out, sm_plan_data(p, y), sizeof *out * (size_t)*n);
        *steps = sm_plan_steps(p);
    }
    sm_plan_free(p);
    sm_pool_free(pool);
    sm_graph_free(t.g);
    for (int i = 0; i < t.count; i++)
        free(t.values[i]);
    return out;
}

TEST(bf16_plans)
{
    static const sm_dtype types[] = {SM_F32, SM_F16, SM_BF16, SM_Q8_0, SM_Q6_K};
    const sm_backend *be = kernel_bf16(), *plain = sm_cpu_backend("avx512", NULL);
    for (size_t i = 0; be && i < SM_COUNT(types); i++) {
        int64_t n, one;
        int steps, apart, few;
        float *y = planned(types[i], 2, be, false, 1, SM_PACKED_USUAL, &steps, &n);
        float *v[] = {planned(types[i], 2, be, true, 2, SM_PACKED_USUAL, &apart, &n),
                      planned(types[i], 2, be, false, 2, 0, &few, &n), planned(types[i], 2, be, true, 1, 0, &few, &n),
                      planned(types[i], 1, be, false, 3, 0, &few, &one)};
        float *f32 = planned(types[i], 2, plain, false, 1, 0, &few, &n);
        for (int k = 0; y && k < 4; k++)
            CHECKF(v[k] && !memcmp(v[k], y, sizeof *y * (size_t)(k == 3 ? one : n)), "%s: other bits, way %d", sm_store_name(types[i]), k);
        CHECKF(steps == 4 && apart > 10, "%d and %d steps: gates and sums belong to the products", steps, apart);
        double off = 0;
        for (int64_t k = 0; y && f32 && k < n; k++)
            off += ((double)y[k] - f32[k]) * ((double)y[k] - f32[k]) / (double)n;
        /* An operand is off by u / sqrt(3) at most (mean square), a product by 0.82 u; a gate adds what both halves are off by.
         * With four products and two gates that is 0.82, 1.64, 1.83, 2.0, 2.2, 4.4 u. */
        CHECKF(sqrt(off) < 0x1p-8 * 4.4 * test_rms(f32, n) && off > 0, "%s: %.3g of %.3g", sm_store_name(types[i]), sqrt(off), test_rms(f32, n));
        for (int k = 0; k < 4; k++)
            free(v[k]);
        free(y);
        free(f32);
    }
}

TEST(bf16_plans_of_items)
{
    const sm_backend *be = kernel_bf16(), *plain = sm_cpu_backend("avx512", NULL);
    for (int way = 0; be && way < 4; way++) {
        int64_t n;
        int steps, as_many;
        float *y = planned(SM_F16, 0, be, false, 1 + way % 2, way < 2 ? 0 : SM_PACKED_USUAL, &steps, &n);
        float *f32 = planned(SM_F16, 0, plain, false, 1 + way % 2, way < 2 ? 0 : SM_PACKED_USUAL, &as_many, &n);
        CHECKF(y && f32 && !memcmp(y, f32, sizeof *y * (size_t)n) && steps == as_many, "way %d", way);
        free(y);
        free(f32);
    }
}
