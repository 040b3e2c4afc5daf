/* Layers whose weights are stored in any type: the same bits as with their values in f32, for few rows and many, rows that are
 * whole blocks and rows that are not, on every vector unit; a row has the same bits alone and among others. The values are
 * those of stored.c, which other tests hold against torch and ggml; linear layers are held against the scalar reference too. */
#include "cpu/cpu.h"
#include "ops/ops.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Where a block's f16 are. */
typedef struct form { sm_dtype t; int half[2]; } form;
static const form forms[] = {
    {SM_F32, {-1, -1}}, {SM_F16, {-1, -1}}, {SM_BF16, {-1, -1}}, {SM_F8_E4M3, {-1, -1}}, {SM_F8_E5M2, {-1, -1}},
    {SM_Q8_0, {0, -1}}, {SM_Q4_0, {0, -1}}, {SM_Q4_1, {0, 2}},   {SM_Q5_0, {0, -1}},     {SM_Q5_1, {0, 2}},
    {SM_Q2_K, {80, 82}}, {SM_Q3_K, {108, -1}}, {SM_Q4_K, {0, 2}}, {SM_Q5_K, {0, 2}},     {SM_Q6_K, {208, -1}},
};

/* Bytes of any kind, but no value that is infinite, none or huge. */
static uint8_t *stored(const form *f, int64_t n)
{
    size_t bytes = sm_dtype_bytes(f->t, n), step = sm_dtype_block_bytes(f->t);
    uint8_t *p = malloc(bytes);
    float *u = malloc(bytes * sizeof *u);
    if (!p || !u)
        exit(2);
    test_fill(u, (int64_t)bytes, 5, 0, 256);
    for (size_t i = 0; i < bytes; i++)
        p[i] = (uint8_t)u[i];
    for (size_t i = 0; i < bytes; i += step)
        if (f->half[0] >= 0)
            for (int k = 0; k < 2 && f->half[k] >= 0; k++)
                p[i + (size_t)f->half[k] + 1] = (uint8_t)(0x18 | (p[i] & 0x87)); /* both signs, subnormal values among them */
        else
            p[i + step - 1] &= f->t <= SM_BF16 && f->t != SM_F16 ? 0xbf : 0xb7;
    free(u);
    return p;
}

typedef struct layer { int64_t rows, c, o; int size, back; bool bias; } layer; /* size > 0: a picture's side, 3x3 kernels */

/* The layer's result, in malloc'd memory; *n its size. */
static float *result(const layer *l, sm_dtype t, const void *w, const float *scale, int64_t run,
                     const sm_backend *be, size_t packed, sm_pool *pool, int64_t *n)
{
    int64_t in = l->back ? l->o : l->c, dims[4] = {l->rows, l->size, l->size, in}, flat[2] = {l->rows, in},
            wd[4] = {l->o, l->c, 3, 3};
    static const sm_param back = {.conv = {.stride = {1, 1}, .dil = {1, 1}, .groups = 1, .pad = {1, 1, 1, 1}}};
    static float bias[1000];
    sm_graph *g = sm_graph_new(NULL, NULL);
    sm_node *x = sm_input(g, "x", SM_F32, l->size ? 4 : 2, l->size ? dims : flat);
    sm_node *p = sm_leaf_param(g, "w", t, l->size ? 4 : 2, wd, w, false), *b = NULL, *y;
    p->scale = scale;
    p->scale_run = run;
    if (l->bias) {
        test_fill(bias, 1000, 8, -1, 1);
        b = sm_leaf_param(g, "b", SM_F32, 1, wd, bias, false);
    }
    if (!l->size)
        y = sm_linear(x, p, b);
    else
        y = l->back ? sm_conv2d_dx(x, p, NULL, &back, l->size, l->size) : sm_conv2d(x, p, b, &(sm_conv){.stride = 1, .pad = 1});
    sm_err e = {0};
    sm_plan *plan = sm_plan_new_with(g, 1, &y, be, &(sm_plan_opts){.packed = packed}, &e);
    CHECKF(plan != NULL, "%s", e.msg);
    float *out = plan ? malloc((size_t)sm_numel(y) * sizeof *out) : NULL;
    if (out) {
        test_fill(sm_plan_data(plan, x), sm_numel(x), 3, -1, 1);
        CHECK(!sm_plan_run(plan, pool, NULL, &e));
        memcpy(out, sm_plan_data(plan, y), (size_t)sm_numel(y) * sizeof *out);
        *n = sm_numel(y);
    }
    sm_plan_free(plan);
    sm_graph_free(g);
    return out;
}

static void near(const layer *l, const char *type, const float *got, const float *values, int64_t n)
{
    const sm_backend *be[4];
    int64_t m;
    sm_cpu_backends(be);
    float *want = result(l, SM_F32, values, NULL, 0, be[0], 0, NULL, &m);
    double d = test_maxdiff(got, want, n), tol = 1e-5 * test_rms(want, n) + 1e-6;
    CHECKF(l->size || d <= tol, "%s: [%ld, %ld] to %ld: %g from the reference, allowed %g", type, (long)l->rows,
           (long)l->c, (long)l->o, d, tol);
    free(want);
}

static void check(const layer *l, const form *f, const float *scale, int64_t run, sm_pool *pool)
{
    const sm_backend *be[4];
    int backends = sm_cpu_backends(be);
    int64_t count = l->c * l->o * (l->size ? 9 : 1), n = 0;
    uint8_t *w = stored(f, count);
    float *values = malloc((size_t)count * sizeof *values);
    if (!values)
        exit(2);
    sm_load_values(&(sm_tensor){.data = w, .dtype = f->t, .scale = scale, .scale_run = run}, 0, count, values);
    float *want = NULL;
    for (int b = 1; b < backends; b++) {
        float *plain = result(l, SM_F32, values, NULL, 0, be[b], 0, NULL, &n);
        if (!want)
            near(l, sm_dtype_name(f->t), want = plain, values, n);
        for (int k = 0; k < 3; k++) {
            float *got = result(l, f->t, w, scale, run, be[b], k == 1 ? SIZE_MAX : 0, k == 2 ? pool : NULL, &n);
            CHECKF(!memcmp(got, want, (size_t)n * sizeof *got),
                   "%s, %s: [%ld, %ld] to %ld, %d: other bits than with values in f32", be[b]->name,
                   sm_dtype_name(f->t), (long)l->rows, (long)l->c, (long)l->o, l->size);
            free(got);
        }
        if (plain != want) {
            CHECKF(!memcmp(plain, want, (size_t)n * sizeof *want), "%s: other bits than another vector unit", be[b]->name);
            free(plain);
        }
    }
    free(want);
    free(values);
    free(w);
}

static void check_all(const layer *l, int count)
{
    sm_pool *pool = sm_pool_new(NULL, 3, NULL);
    for (size_t t = 0; t < SM_COUNT(forms); t++)
        for (int i = 0; i < count; i++)
            if (l[i].c * l[i].o * (l[i].size ? 9 : 1) % sm_dtype_block(forms[t].t) == 0)
                check(&l[i], &forms[t], NULL, 0, pool);
    sm_pool_free(pool);
}

TEST(turn_linear_few_rows)
{
    static const layer l[] = {{1, 512, 130, .bias = true}, {2, 256, 300, .size = 0}, {3, 768, 64, .bias = true},
                              {4, 256, 75, .size = 0}, {8, 512, 131, .bias = true},
                              {1, 320, 256, .size = 0}, {5, 96, 128, .size = 0}, {2, 77, 256, .size = 0}, {1, 31, 512, .size = 0},
                              {7, 288, 40, .bias = true}};
    check_all(l, SM_COUNT(l));
}

TEST(turn_linear_many_rows)
{
    static const layer l[] = {{9, 512, 130, .bias = true}, {20, 768, 75, .size = 0}, {13, 320, 256, .size = 0},
                              {17, 288, 64, .bias = true}, {10, 77, 256, .size = 0}};
    check_all(l, SM_COUNT(l));
}

TEST(turn_convolutions)
{
    static const layer l[] = {{1, 64, 96, 3, .bias = true}, {1, 32, 48, 9, .back = 0}, {1, 20, 64, 16, .bias = true},
                              {1, 256, 40, 2, .back = 0},
                              {1, 64, 96, 3, .back = 1}, {1, 32, 48, 9, .back = 1}, {1, 20, 64, 16, .back = 1}};
    check_all(l, SM_COUNT(l));
}

/* FP8 with a scale of the tensor, of every row, of parts of rows. */
TEST(turn_scales)
{
    static const layer l[] = {{2, 128, 96, .bias = false}, {12, 128, 96, .bias = true}};
    float scale[512];
    test_fill(scale, 512, 9, 0.1f, 3);
    for (int i = 0; i < 2; i++)
        for (int t = 0; t < 2; t++) {
            check(&l[i], &forms[3 + t], scale, 128 * 96, NULL);
            check(&l[i], &forms[3 + t], scale, 128 * 32, NULL);
            check(&l[i], &forms[3 + t], scale, 128, NULL);
            check(&l[i], &forms[3 + t], scale, 32, NULL);
        }
}

/* FP8's NaN, of both signs, in few rows and many: in the columns whose weights they are, and nowhere else. Those of E5M2 are all
 * above its infinity; 126 and 123 are the largest numbers. */
TEST(turn_fp8_nan)
{
    static const struct { sm_dtype t; uint8_t none[4], largest; } of[] = {{SM_F8_E4M3, {127, 255, 127, 255}, 126},
                                                                          {SM_F8_E5M2, {125, 254, 127, 255}, 123}};
    static uint8_t w[96 * 128];
    const sm_backend *be[4];
    int backends = sm_cpu_backends(be);
    for (int t = 0; t < 2; t++) {
        memset(w, of[t].largest, sizeof w);
        for (int i = 0; i < 4; i++)
            w[(i * 23 + 5) * 128 + i * 37] = of[t].none[i];
        for (int b = 0; b < backends; b++)
            for (int rows = 1; rows < 20; rows += 9) {
                layer l = {rows, 128, 96, .bias = false};
                int64_t n;
                float *y = result(&l, of[t].t, w, NULL, 0, be[b], 0, NULL, &n);
                for (int64_t i = 0; i < n; i++)
                    CHECKF(isnan(y[i]) == (i % 96 % 23 == 5 && i % 96 < 92), "%s, %s, %d rows: column %d: %g",
                           be[b]->name, sm_dtype_name(of[t].t), rows, (int)(i % 96), y[i]);
                free(y);
            }
    }
}

TEST(turn_rows_alone_and_among_others)
{
    const sm_backend *be[4];
    int backends = sm_cpu_backends(be);
    enum { MANY = 20 };
    for (size_t t = 0; t < SM_COUNT(forms); t++) {
        layer l = {MANY, 512, 150, .bias = true};
        uint8_t *w = stored(&forms[t], l.c * l.o);
        int64_t n;
        for (int b = 1; b < backends; b++) {
            l.rows = MANY;
            float *all = result(&l, forms[t].t, w, NULL, 0, be[b], 0, NULL, &n);
            for (l.rows = 1; l.rows < MANY; l.rows++) {
                float *some = result(&l, forms[t].t, w, NULL, 0, be[b], 0, NULL, &n);
                CHECKF(!memcmp(some, all, (size_t)n * sizeof *all), "%s, %s: other bits in %ld rows than in 20", be[b]->name,
                       sm_dtype_name(forms[t].t), (long)l.rows);
                free(some);
            }
            free(all);
        }
        free(w);
    }
}
