/* Attention whose products round to bfloat16 (k_bf16_attention.c): against its definition in double, against plain attention within
 * what rounding all operands gives; the same bits for any threads, batch and memory; what stays f32. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_run.h"
#include "ops/ops.h"
#include "test.h"

/* Keys after which a row's largest score is looked at again. */
static int64_t tile_of(int64_t d, int64_t dv) { return d + dv <= 192 ? 32 : 128; }

typedef struct shape { int64_t n, h, tq, tk, d, dv; } shape;
typedef struct attention { sm_graph *g; sm_node *y; shape s; float *x[3]; } attention;

static attention make(shape s, bool causal)
{
    attention a = {.g = sm_graph_new(NULL, NULL), .s = s};
    int64_t dims[3][4] = {{s.n, s.tq, s.h, s.d}, {s.n, s.tk, s.h, s.d}, {s.n, s.tk, s.h, s.dv}};
    sm_node *in[3];
    for (int i = 0; i < 3; i++) {
        int64_t item = dims[i][1] * dims[i][2] * dims[i][3];
        in[i] = sm_input(a.g, "x", SM_F32, 4, dims[i]);
        a.x[i] = malloc(sizeof(float) * (size_t)(s.n * item));
        for (int64_t k = 0; k < s.n; k++)
            test_fill(a.x[i] + k * item, item, 10 * (uint64_t)k + (uint64_t)i, i < 2 ? -2 : -1, i < 2 ? 2 : 1);
    }
    a.y = sm_attention(in[0], in[1], in[2], NULL, 0, causal);
    CHECKF(!a.g->err.code, "%s", a.g->err.msg);
    return a;
}

static void drop(attention *a)
{
    for (int i = 0; i < 3; i++)
        free(a->x[i]);
    sm_graph_free(a->g);
}

static float *run(const attention *a, const sm_backend *be, bool high, sm_pool *pool)
{
    kernel_run k = {.k = &be->k[SM_OP_ATTENTION], .node = a->y, .src = {a->x[0], a->x[1], a->x[2]}, .high = high, .inplace = -1,
                    .pool = pool};
    return kernel_result(&k);
}

static double rounded(float x) { return sm_bf16_f32(sm_f32_bf16(x)); }

/* A row: its definition, plain attention, and how far the two may be apart for every value. Rounding moves a score by at most
 * (2 u + u^2) times the sum of its products' sizes, so a weight and the sum of weights by e to twice that; weights and values are
 * rounded once more. */
typedef struct row { double *defined, *plain, *apart; } row;

static void define(const attention *a, int64_t n, int64_t h, int64_t i, row *r)
{
    const shape *s = &a->s;
    const double u = 0x1p-8;
    const int64_t tile = tile_of(s->d, s->dv);
    const float unit = 1 / sqrtf((float)s->d) * 1.44269504f;
    const float *q = a->x[0] + ((n * s->tq + i) * s->h + h) * s->d;
    double *score = malloc(sizeof(double) * 2 * (size_t)s->tk), *exact = score + s->tk, most = 0, sum = 0, plain = 0, max = -INFINITY;
    for (int64_t j = 0; j < s->tk; j++) {
        const float *k = a->x[1] + ((n * s->tk + j) * s->h + h) * s->d;
        double sizes = 0;
        score[j] = exact[j] = 0;
        for (int64_t c = 0; c < s->d; c++) {
            score[j] += rounded(q[c] * unit) * rounded(k[c]);
            exact[j] += (double)q[c] * k[c] / sqrt((double)s->d);
            sizes += fabs((double)q[c] * k[c]) / sqrt((double)s->d);
        }
        most = fmax(most, (2 * u + u * u) * sizes);
    }
    memset(r->defined, 0, sizeof(double) * 3 * (size_t)s->dv);
    for (int64_t j = 0; j < s->tk; j++) {
        const float *v = a->x[2] + ((n * s->tk + j) * s->h + h) * s->dv;
        double before = max;
        for (int64_t l = j; j % tile == 0 && l < SM_MIN(j + tile, s->tk); l++)
            max = fmax(max, score[l]);
        for (int64_t c = 0; max > before && c < s->dv; c++)
            r->defined[c] *= exp2(before - max);
        sum = (max > before ? sum * exp2(before - max) : sum) + exp2(score[j] - max);
        plain += exp(exact[j]);
        for (int64_t c = 0; c < s->dv; c++) {
            r->defined[c] += rounded((float)exp2(score[j] - max)) * rounded(v[c]);
            r->plain[c] += exp(exact[j]) * v[c];
            r->apart[c] += exp(exact[j]) * fabs(v[c]);
        }
    }
    for (int64_t c = 0; c < s->dv; c++) {
        r->defined[c] /= sum;
        r->plain[c] /= plain;
        r->apart[c] *= (exp(2 * most) * (1 + u) * (1 + u) - 1) / plain;
    }
    free(score);
}

static void check_values(const attention *a, const float *y, const char *what)
{
    const shape *s = &a->s;
    double *memory = malloc(sizeof(double) * 3 * (size_t)s->dv), off = 0, from_f32 = 0, all = 0;
    row r = {memory, memory + s->dv, memory + 2 * s->dv};
    int64_t far = 0;
    for (int64_t n = 0; n < s->n; n++)
        for (int64_t i = 0; i < s->tq; i++)
            for (int64_t h = 0; h < s->h; h++) {
                define(a, n, h, i, &r);
                for (int64_t c = 0; c < s->dv; c++) {
                    double got = y[((n * s->tq + i) * s->h + h) * s->dv + c];
                    off += (got - r.defined[c]) * (got - r.defined[c]);
                    from_f32 += (got - r.plain[c]) * (got - r.plain[c]);
                    all += got * got;
                    far += !(fabs(got - r.plain[c]) <= r.apart[c] + 1e-6);
                }
            }
    CHECKF(!far, "%s: %lld values further from plain attention than roundings go", what, (long long)far);
    /* f32's errors in a weight turn the rounding of one in 2^-8 / 2^-22 or so: sqrt(2^-14) of 2^-8 is 3e-5 */
    CHECKF(sqrt(off / all) < 1e-4 && sqrt(from_f32 / all) > 5e-4, "%s: %.3g of the definition, %.3g of plain attention", what,
           sqrt(off / all), sqrt(from_f32 / all));
    free(memory);
}

static const shape shapes[] = {
    {2, 2, 9, 137, 3, 5}, {1, 3, 50, 177, 40, 40}, {2, 1, 97, 160, 32, 8}, {1, 2, 33, 129, 17, 24}, {1, 1, 49, 400, 80, 80},
    {1, 2, 16, 263, 160, 161}, {3, 2, 64, 130, 64, 64}, {1, 1, 100, 256, 1, 1},
};

TEST(bf16_attention_by_definition)
{
    const sm_backend *be = kernel_bf16();
    for (size_t i = 0; be && i < SM_COUNT(shapes); i++) {
        char what[80];
        const shape *s = &shapes[i];
        snprintf(what, sizeof what, "%d queries, %d keys, %d and %d wide", (int)s->tq, (int)s->tk, (int)s->d, (int)s->dv);
        attention a = make(*s, false);
        float *y = run(&a, be, true, NULL), *low = run(&a, be, false, NULL);
        if (s->d > 1)
            check_values(&a, y, what);
        CHECKF(!memcmp(y, low, sizeof *y * (size_t)sm_numel(a.y)), "%s: other bits elsewhere in memory", what);
        free(y);
        free(low);
        drop(&a);
    }
}

TEST(bf16_attention_threads_and_batches)
{
    const sm_backend *be = kernel_bf16();
    sm_pool *pools[2] = {sm_pool_new(NULL, 2, NULL), sm_pool_new(NULL, 4, NULL)};
    for (size_t i = 0; be && i < SM_COUNT(shapes); i++) {
        shape one = shapes[i], few = shapes[i];
        one.n = 1;
        few.tq = 9; /* the first queries alone */
        attention a = make(shapes[i], false), b = make(one, false);
        float *y = run(&a, be, true, NULL), *alone = run(&b, be, true, NULL);
        CHECKF(!memcmp(y, alone, sizeof *y * (size_t)sm_numel(b.y)), "shape %d: other bits alone", (int)i);
        for (int p = 0; p < 2; p++) {
            float *z = run(&a, be, true, pools[p]);
            CHECKF(!memcmp(y, z, sizeof *y * (size_t)sm_numel(a.y)), "shape %d: other bits, pool %d", (int)i, p);
            free(z);
        }
        if (one.tq > 9) {
            few.n = 1;
            attention c = make(few, false);
            float *z = run(&c, be, true, NULL);
            CHECKF(!memcmp(alone, z, sizeof *z * (size_t)sm_numel(c.y)), "shape %d: other bits of nine queries", (int)i);
            free(z);
            drop(&c);
        }
        free(y);
        free(alone);
        drop(&a);
        drop(&b);
    }
    for (int p = 0; p < 2; p++)
        sm_pool_free(pools[p]);
}

TEST(bf16_attention_stays_f32)
{
    static const shape kept[] = {{1, 2, 20, 8, 16, 16}, {1, 2, 300, 128, 16, 16}, {1, 1, 200, 200, 8, 8}};
    const sm_backend *be = kernel_bf16(), *plain = sm_cpu_backend("avx512", NULL);
    for (size_t i = 0; be && i < SM_COUNT(kept); i++) {
        attention a = make(kept[i], i == 2); /* few keys, causal */
        float *y = run(&a, be, true, NULL), *z = run(&a, plain, true, NULL);
        CHECKF(!memcmp(y, z, sizeof *y * (size_t)sm_numel(a.y)), "shape %d", (int)i);
        free(y);
        free(z);
        drop(&a);
    }
}
