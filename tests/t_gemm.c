/* Matrix products and convolutions at sizes that cross every block of the CPU kernels (K, rows, columns, parts of long
 * sums) and at corners of the geometry: against the scalar reference; the same bits for every vector unit, any number of
 * threads and of tasks, any number of rows. */
#include "kernel_run.h"
#include "ops/ops.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANK(...) (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))
#define F(...) {true, RANK(__VA_ARGS__), {__VA_ARGS__}, SM_F32, FILL_UNIFORM}
#define H(...) {true, RANK(__VA_ARGS__), {__VA_ARGS__}, SM_F16, FILL_UNIFORM}
#define B(...) {true, RANK(__VA_ARGS__), {__VA_ARGS__}, SM_BF16, FILL_UNIFORM}
/* stride, dilation (y, x), groups, padding (top, bottom, left, right), circular (y, x) */
#define CONV(sy, sx, dy, dx, g, t, b, l, r, cy, cx) \
    .conv.stride = {sy, sx}, .conv.dil = {dy, dx}, .conv.groups = g, .conv.pad = {t, b, l, r}, .conv.circular = {cy, cx}

static const op_case cases[] = {
    {SM_OP_LINEAR, {F(700, 40), F(530, 40), F(530)}, .batch = 1},
    {SM_OP_LINEAR, {F(31, 1000), F(40, 1000), F(40)}, .batch = 1},
    {SM_OP_LINEAR, {F(13, 900), H(50, 900), B(50)}, .batch = 1},
    {SM_OP_LINEAR, {F(2, 3, 385), B(33, 385)}, .batch = 1},
    {SM_OP_LINEAR, {F(150, 1024), F(140, 1024), F(140)}, .batch = 1}, /* rows that are pages apart are copied */
    {SM_OP_MATMUL, {F(3, 150, 70), F(3, 70, 90)}, .batch = 3},
    {SM_OP_MATMUL, {F(2, 30, 800), F(2, 45, 800)}, .p = {.matmul = {0, 1}}, .batch = 3},
    {SM_OP_MATMUL, {F(5000, 30), F(5000, 70)}, .p = {.matmul = {1, 0}}},
    {SM_OP_MATMUL, {F(300, 1024), F(300, 60)}, .p = {.matmul = {1, 0}}},
    {SM_OP_MATMUL, {F(20, 2, 300, 17), F(20, 2, 50, 300)}, .p = {.matmul = {1, 1}}, .batch = 3},
    /* several taps in a block of K, parts of one tap, a row of taps as one run, a large kernel */
    {SM_OP_CONV2D, {F(2, 13, 15, 100), F(40, 100, 3, 3), F(40)}, .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0)}, .batch = 1},
    {SM_OP_CONV2D, {F(1, 6, 7, 800), F(20, 800, 3, 3)}, .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0)}, .batch = 1},
    {SM_OP_CONV2D, {F(2, 32, 48, 3), F(20, 3, 16, 16), F(20)}, .p = {CONV(16, 16, 1, 1, 1, 0, 0, 0, 0, 0, 0)}, .batch = 1},
    {SM_OP_CONV2D, {F(1, 20, 21, 3), F(5, 3, 14, 15), F(5)}, .p = {CONV(3, 2, 1, 1, 1, 4, 5, 6, 3, 0, 0)}, .batch = 1},
    {SM_OP_CONV2D, {F(2, 9, 8, 12), F(18, 4, 3, 3), F(18)}, .p = {CONV(2, 1, 1, 2, 3, 1, 2, 3, 2, 1, 1)}, .batch = 1},
    {SM_OP_CONV2D, {F(1, 5, 4, 3), F(4, 3, 3, 3)}, .p = {CONV(1, 1, 2, 2, 1, 5, 5, 4, 4, 1, 1)}, .batch = 1},
    /* minimal filtering: many tiles, several parts of K, chunks of columns, half tiles, paddings, wrapped pixels, stored types */
    {SM_OP_CONV2D, {F(2, 17, 30, 520), F(110, 520, 3, 3), F(110)}, .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0)}, .batch = 1},
    {SM_OP_CONV2D, {F(2, 7, 8, 17), H(16, 17, 3, 3), B(16)}, .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)}, .batch = 1},
    {SM_OP_CONV2D, {F(3, 9, 10, 16), B(37, 16, 3, 3)}, .p = {CONV(1, 1, 1, 1, 1, 0, 2, 2, 0, 0, 0)}, .batch = 1},
    /* the same with tiles of 4x4 results: wrapped pixels, uneven paddings, an odd number of channels and columns, a narrow
     * picture */
    {SM_OP_CONV2D, {F(2, 15, 16, 150), H(75, 150, 3, 3), B(75)}, .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)}, .batch = 1},
    {SM_OP_CONV2D, {F(2, 16, 17, 33), B(140, 33, 3, 3)}, .p = {CONV(1, 1, 1, 1, 1, 0, 2, 2, 1, 0, 0)}, .batch = 1},
    {SM_OP_CONV2D, {F(1, 66, 5, 16), F(16, 16, 3, 3), F(16)}, .p = {CONV(1, 1, 1, 1, 1, 2, 1, 1, 2, 0, 0)}},
    {SM_OP_CONV2D, {F(1, 13, 15, 1040), F(70, 1040, 3, 3), F(70)}, .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0)}},
    {SM_OP_CONV2D_DX, {F(2, 17, 14, 140), F(140, 70, 3, 3), F(70)},
     .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0), .conv.size = {17, 14}}, .batch = 1},
    {SM_OP_CONV2D_DX, {F(2, 16, 18, 20), B(20, 17, 3, 3)}, .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1), .conv.size = {16, 18}},
     .batch = 1},
    {SM_OP_CONV2D_DX, {F(1, 16, 19, 18), F(18, 34, 3, 3)}, .p = {CONV(1, 1, 1, 1, 1, 0, 2, 2, 0, 0, 0), .conv.size = {16, 19}},
     .batch = 1},
    /* many kernels, four tiles: kernels turned on the way to the products (AVX-512), ends of channels and of columns */
    {SM_OP_CONV2D, {F(1, 7, 8, 523), H(507, 523, 3, 3), F(507)}, .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1)}},
    {SM_OP_CONV2D, {F(1, 8, 7, 523), B(512, 523, 3, 3)}, .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0)}},
    {SM_OP_CONV2D_DX, {F(1, 8, 8, 514), H(514, 515, 3, 3), F(515)},
     .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0), .conv.size = {8, 8}}},
    /* not minimal filtering: dilated, strided */
    {SM_OP_CONV2D, {F(1, 12, 11, 16), F(16, 16, 3, 3)}, .p = {CONV(1, 1, 2, 2, 1, 2, 2, 2, 2, 0, 0)}, .batch = 1},
    {SM_OP_CONV2D, {F(1, 12, 11, 16), F(16, 16, 3, 3)}, .p = {CONV(2, 2, 1, 1, 1, 1, 1, 1, 1, 0, 0)}, .batch = 1},
    {SM_OP_CONV2D, {F(1, 40, 8, 257), F(200, 257, 3, 3), F(200)}, .p = {CONV(1, 1, 1, 1, 1, 2, 2, 1, 1, 0, 1)}, .batch = 1},
    {SM_OP_CONV2D_DX, {F(2, 15, 9, 300), F(300, 130, 3, 3), F(130)},
     .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0), .conv.size = {15, 9}}, .batch = 1},
    {SM_OP_CONV2D_DX, {F(2, 8, 7, 20), H(20, 33, 3, 3)}, .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1), .conv.size = {8, 7}},
     .batch = 1},
    {SM_OP_CONV2D_DX, {F(1, 7, 9, 40), F(40, 16, 3, 3)}, .p = {CONV(1, 1, 1, 1, 1, 0, 2, 2, 0, 0, 0), .conv.size = {7, 9}},
     .batch = 1},
    /* phases that no tap reaches, taps that only some phases see, images of wrapped pixels */
    {SM_OP_CONV2D_DX, {F(2, 5, 6, 9), F(9, 7, 1, 1), F(7)}, .p = {CONV(3, 2, 1, 1, 1, 0, 0, 0, 0, 0, 0), .conv.size = {14, 12}},
     .batch = 1},
    {SM_OP_CONV2D_DX, {F(2, 4, 5, 9), F(9, 7, 2, 3), F(7)}, .p = {CONV(3, 4, 2, 3, 1, 1, 1, 2, 2, 0, 0), .conv.size = {11, 20}},
     .batch = 1},
    {SM_OP_CONV2D_DX, {F(2, 4, 4, 6), F(6, 5, 3, 3), F(5)}, .p = {CONV(2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1), .conv.size = {8, 7}},
     .batch = 1},
    {SM_OP_CONV2D_DX, {F(2, 9, 8, 60), F(60, 21, 3, 3)}, .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0), .conv.size = {9, 8}},
     .batch = 1},
    {SM_OP_CONV2D_DX, {F(1, 6, 6, 450), F(450, 19, 3, 3)}, .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0), .conv.size = {6, 6}},
     .batch = 1},
    {SM_OP_CONV2D_DX, {F(2, 8, 8, 40), H(40, 30, 4, 4), F(30)},
     .p = {CONV(2, 2, 1, 1, 1, 1, 1, 1, 1, 0, 0), .conv.size = {16, 16}}, .batch = 1},
    {SM_OP_CONV2D_DX, {F(2, 7, 8, 18), F(18, 4, 3, 3)}, .p = {CONV(1, 1, 1, 1, 3, 1, 1, 1, 1, 0, 0), .conv.size = {7, 8}},
     .batch = 1},
    /* long sums in parts, strips that end with image rows, copies of rows a page apart */
    {SM_OP_CONV2D_DW, {F(3, 40, 41, 5), F(3, 40, 41, 37)}, .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0), .conv.size = {3, 3}}},
    {SM_OP_CONV2D_DW, {F(3, 9, 8, 12), F(3, 5, 7, 18)}, .p = {CONV(2, 1, 1, 2, 3, 1, 2, 3, 2, 1, 1), .conv.size = {3, 4}}},
    {SM_OP_CONV2D_DW, {F(3, 17, 12, 50), F(3, 17, 12, 110)}, .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0), .conv.size = {3, 3}}},
    {SM_OP_CONV2D_DW, {F(2, 9, 8, 17), F(2, 9, 8, 16)}, .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1), .conv.size = {3, 3}}},
    {SM_OP_CONV2D_DW, {F(8, 31, 33, 16), F(8, 30, 35, 40)}, .p = {CONV(1, 1, 1, 1, 1, 0, 1, 2, 2, 0, 0), .conv.size = {3, 3}}},
    {SM_OP_CONV2D_DW, {F(2, 12, 13, 1024), F(2, 12, 13, 60)}, .p = {CONV(1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0), .conv.size = {1, 1}}},
    {SM_OP_CONV2D_DW, {F(2, 13, 11, 30), F(2, 7, 6, 20)}, .p = {CONV(2, 2, 1, 1, 1, 1, 1, 1, 1, 0, 0), .conv.size = {3, 3}}},
    {SM_OP_CONV2D_DW, {F(2, 6, 1, 14), F(2, 2, 1, 10)}, .p = {CONV(1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0), .conv.size = {5, 3}}},
};

typedef struct recorded { sm_graph *g; sm_node *node, *src[SM_MAX_SRC]; void *values[SM_MAX_SRC]; } recorded;

static bool record(recorded *r, const op_case *c, int64_t batch)
{
    memset(r, 0, sizeof *r);
    r->g = sm_graph_new(NULL, NULL);
    r->node = case_record(c, r->g, batch, r->src);
    CHECKF(!r->g->err.code, "%s: %s", case_name(c), r->g->err.msg);
    for (int i = 0; i < SM_MAX_SRC && !r->g->err.code; i++)
        if (r->src[i]) {
            r->values[i] = malloc((size_t)sm_numel(r->src[i]) * 4);
            case_values(c, i, 7, r->src[i], r->values[i]);
        }
    return !r->g->err.code;
}

static void drop(recorded *r)
{
    for (int i = 0; i < SM_MAX_SRC; i++)
        free(r->values[i]);
    sm_graph_free(r->g);
}

typedef enum { USUAL, ONE_TASK, UNPREPARED } way;
static float *result(const recorded *r, const sm_backend *be, way w, sm_pool *pool)
{
    kernel_run k = {.k = &be->k[r->node->op], .node = r->node, .high = w != ONE_TASK, .inplace = -1, .one_task = w == ONE_TASK,
                    .unprepared = w == UNPREPARED, .pool = pool};
    memcpy(k.src, r->values, sizeof k.src);
    return kernel_result(&k);
}

static void same_bits(const op_case *c, const char *who, const char *what, float *got, const float *want, int64_t n)
{
    CHECKF(!memcmp(got, want, (size_t)n * sizeof *got), "%s: %s: other bits %s", case_name(c), who, what);
    free(got);
}

/* The first image (or row) alone must have the bits it has among the others. */
static void check_batch(const op_case *c, const sm_backend *be, const float *want)
{
    recorded one;
    if (c->batch && record(&one, c, 1))
        same_bits(c, be->name, "alone and in a batch", result(&one, be, USUAL, NULL), want, sm_numel(one.node));
    if (c->batch)
        drop(&one);
}

static void check_case(const op_case *c, sm_pool *const pools[3])
{
    const sm_backend *be[4];
    int backends = sm_cpu_backends(be);
    recorded r;
    float *ref = NULL, *first = NULL;
    if (record(&r, c, 0)) {
        const sm_op_row *row = &sm_ops[c->op];
        int64_t n = sm_numel(r.node);
        ref = result(&r, be[0], USUAL, NULL);
        double tol = row->atol + row->c * 0x1p-23 * sqrt(case_terms(r.node)) * test_rms(ref, n);
        for (int b = 1; b < backends; b++) {
            float *y = result(&r, be[b], USUAL, NULL);
            double d = test_maxdiff(y, ref, n);
            CHECKF(d <= tol, "%s: %s differs by %.3g, allowed %.3g", case_name(c), be[b]->name, d, tol);
            for (int t = 0; t < 3; t++)
                same_bits(c, be[b]->name, "with threads", result(&r, be[b], USUAL, pools[t]), y, n);
            for (int t = 0; t < 3; t++)
                same_bits(c, be[b]->name, "with a weight that is not prepared", result(&r, be[b], UNPREPARED, pools[t]), y, n);
            same_bits(c, be[b]->name, "in one task", result(&r, be[b], ONE_TASK, NULL), y, n);
            check_batch(c, be[b], y);
            if (first)
                same_bits(c, be[b]->name, "on another vector unit", y, first, n);
            else
                first = y;
        }
    }
    free(ref);
    free(first);
    drop(&r);
}

static void check_range(sm_op_id from, sm_op_id to)
{
    sm_pool *pools[3];
    for (int t = 0; t < 3; t++)
        CHECK((pools[t] = sm_pool_new(NULL, t + 2, NULL)) != NULL);
    for (size_t i = 0; i < SM_COUNT(cases); i++)
        if (cases[i].op >= from && cases[i].op <= to)
            check_case(&cases[i], pools);
    for (int t = 0; t < 3; t++)
        sm_pool_free(pools[t]);
}

TEST(gemm_linear_and_matmul_blocks) { check_range(SM_OP_LINEAR, SM_OP_MATMUL); }
TEST(gemm_conv_blocks_and_geometry) { check_range(SM_OP_CONV2D, SM_OP_CONV2D); }
TEST(gemm_conv_input_gradient) { check_range(SM_OP_CONV2D_DX, SM_OP_CONV2D_DX); }
TEST(gemm_conv_weight_gradient) { check_range(SM_OP_CONV2D_DW, SM_OP_CONV2D_DW); }

/* Small pictures take the direct sum, of which the exact backends have no other: the same bits; larger ones do not. */
TEST(gemm_winograd_is_chosen)
{
    const sm_backend *be[4];
    op_case c = {SM_OP_CONV2D, {F(1, 7, 7, 16), F(16, 16, 3, 3)}, .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0)}};
    int backends = sm_cpu_backends(be);
    for (int b = 1; b < backends; b++)
        for (int side = 3; side <= 4; side++) {
            char name[32];
            recorded r;
            snprintf(name, sizeof name, "%s-exact", be[b]->name);
            const sm_backend *direct = sm_cpu_backend(name, NULL);
            CHECKF(direct && !strcmp(direct->name, name), "no backend %s", name);
            c.src[0].dims[1] = c.src[0].dims[2] = side;
            if (!direct || !record(&r, &c, 0))
                continue;
            float *y = result(&r, be[b], USUAL, NULL), *exact = result(&r, direct, USUAL, NULL);
            CHECKF(!memcmp(y, exact, (size_t)sm_numel(r.node) * sizeof *y) == (side == 3), "%s: %d pixels a side", be[b]->name,
                   side);
            free(y);
            free(exact);
            drop(&r);
        }
}

/* Tiles of 4x4 results where a picture has sixteen of them: turned kernels are 36/9 of the kernels instead of 16/9, and a
 * little. */
TEST(gemm_winograd_tiles_are_chosen)
{
    const sm_backend *be[4];
    op_case c = {SM_OP_CONV2D, {F(1, 13, 13, 64), F(64, 64, 3, 3)}, .p = {CONV(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0)}};
    int backends = sm_cpu_backends(be);
    for (int b = 1; b < backends; b++)
        for (int side = 12; side <= 13; side++) {
            recorded r;
            c.src[0].dims[1] = c.src[0].dims[2] = side;
            if (record(&r, &c, 0)) {
                double points = (double)be[b]->k[SM_OP_CONV2D].prep_bytes(r.node) / (64 * 64 * sizeof(float)),
                       want = side > 12 ? 36 : 16;
                CHECKF(points >= want && points < want * 1.02, "%s: %d pixels a side: %g numbers a kernel",
                       be[b]->name, side, points);
            }
            drop(&r);
        }
}

/* A cut depends on shapes only and is fine enough for four threads where there is work to share. */
TEST(gemm_tasks)
{
    const sm_backend *be[4];
    int backends = sm_cpu_backends(be);
    sm_graph *g = sm_graph_new(NULL, NULL);
    sm_conv same = {.stride = 1, .pad = 1};
    sm_node *x = sm_input(g, "x", SM_F32, 4, (int64_t[]){64, 16, 16, 96}),
        *w = sm_input(g, "w", SM_F32, 4, (int64_t[]){96, 96, 3, 3});
    sm_node *large[] = {sm_conv2d(x, w, NULL, &same), sm_conv2d_dx(x, w, NULL, &sm_conv2d(x, w, NULL, &same)->p, 16, 16),
                        sm_conv2d_dw(x, x, &sm_conv2d(x, w, NULL, &same)->p, 3, 3)};
    sm_node *v = sm_input(g, "v", SM_F32, 2, (int64_t[]){1, 16}), *m = sm_input(g, "m", SM_F32, 2, (int64_t[]){16, 16});
    sm_node *tiny = sm_linear(v, m, NULL);
    for (int b = 1; b < backends; b++) {
        for (size_t i = 0; i < SM_COUNT(large); i++) {
            int t = be[b]->k[large[i]->op].tasks(large[i], 0);
            CHECKF(t >= 8 && t <= 32, "%s: %d tasks for %s", be[b]->name, t, sm_ops[large[i]->op].name);
        }
        CHECK(be[b]->k[SM_OP_LINEAR].tasks(tiny, 0) == 1);
    }
    sm_graph_free(g);
}
