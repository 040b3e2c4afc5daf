/* Every kernel of every instruction set this machine has, against the scalar reference, on the cases of op_cases.c:
 * tolerance of the op's row, guard pages on both sides, in place, one task or many, the same bits on all vector units. */
#include "kernel_run.h"
#include "ops/ops.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed(void)
{
    const char *s = getenv("SUMI_TEST_SEED");
    return s ? strtoull(s, NULL, 10) : 20240601;
}

TEST(kernels_every_op_has_a_case)
{
    for (int op = SM_OP_CONST + 1; op < SM_OP_COUNT; op++) {
        int cases = 0;
        for (int i = 0; i < op_case_count; i++)
            cases += (int)op_cases[i].op == op && !op_cases[i].bench;
        CHECKF(cases > 0, "%s has no case in tests/op_cases.c", sm_ops[op].name);
    }
}

TEST(kernels_every_backend_has_every_op)
{
    const sm_backend *be[4];
    int n = sm_cpu_backends(be);
    CHECK(n >= 1 && !strcmp(be[0]->name, "scalar"));
    for (int b = 0; b < n; b++)
        for (int op = SM_OP_CONST + 1; op < SM_OP_COUNT; op++)
            CHECKF(be[b]->k[op].run != NULL, "%s: no kernel for %s", be[b]->name, sm_ops[op].name);
}

TEST(kernels_backend_names)
{
    sm_err e = {0};
    const sm_backend *best = sm_cpu_backend("auto", &e);
    CHECK(best != NULL && sm_cpu_backend("", NULL) == best);
    CHECK(best && sm_cpu_backend(best->name, NULL) == best);
    CHECK(!strcmp(sm_cpu_backend("scalar", NULL)->name, "scalar"));
    CHECK(sm_cpu_backend("mmx", &e) == NULL && e.code == SUMI_E_ARG && strstr(e.msg, "'mmx'"));
}

/* A case recorded with its values. */
typedef struct recorded { sm_graph *g; sm_node *node, *src[SM_MAX_SRC]; void *values[SM_MAX_SRC]; } recorded;

static bool record(recorded *r, const op_case *c)
{
    memset(r, 0, sizeof *r);
    r->g = sm_graph_new(NULL, NULL);
    r->node = case_record(c, r->g, 0, r->src);
    CHECKF(!r->g->err.code, "%s: %s", case_name(c), r->g->err.msg);
    for (int i = 0; i < SM_MAX_SRC && !r->g->err.code; i++)
        if (r->src[i]) {
            r->values[i] = malloc((size_t)sm_numel(r->src[i]) * 4);
            case_values(c, i, seed(), r->src[i], r->values[i]);
        }
    return !r->g->err.code;
}

static void drop(recorded *r)
{
    for (int i = 0; i < SM_MAX_SRC; i++)
        free(r->values[i]);
    sm_graph_free(r->g);
}

static float *result(const recorded *r, const sm_backend *be, bool high, int inplace, bool one_task)
{
    kernel_run k = {.k = &be->k[r->node->op], .node = r->node, .high = high, .inplace = inplace, .one_task = one_task};
    memcpy(k.src, r->values, sizeof k.src);
    return kernel_result(&k);
}

static double tolerance(const recorded *r, const float *ref, int64_t n)
{
    const sm_op_row *row = &sm_ops[r->node->op];
    double scale = test_rms(ref, n);
    if (n < 64 && r->node->src[0]->dtype == SM_F32) /* few values may all be small by cancellation */
        scale = fmax(scale, test_rms(r->values[0], sm_numel(r->node->src[0])));
    return row->atol + row->c * 0x1p-23 * sqrt(case_terms(r->node)) * scale;
}

static void same_bits(const float *a, const float *b, int64_t n, const op_case *c, const char *what)
{
    int64_t i = 0;
    while (i < n && !memcmp(a + i, b + i, sizeof *a))
        i++;
    CHECKF(i == n, "%s: %s: element %lld of %lld is %.9g, then %.9g", case_name(c), what, (long long)i, (long long)n,
           i < n ? a[i] : 0, i < n ? b[i] : 0);
}

/* The runs of one backend that must agree to the bit with `want`. Matrix products are cut into a grid that belongs to their
 * own number of tasks; all others must give the same bits in one task. */
static void check_variants(const recorded *r, const op_case *c, const sm_backend *be, const float *want)
{
    int64_t n = sm_numel(r->node);
    char what[80];
    bool grid = c->op >= SM_OP_LINEAR && c->op <= SM_OP_CONV2D_DW;
    for (int v = 0; v < 2; v++) {
        float *y = result(r, be, v == 0, -1, v == 1 && !grid);
        snprintf(what, sizeof what, "%s, %s", be->name, v ? "one task and a low guard" : "run again");
        same_bits(want, y, n, c, what);
        free(y);
    }
    for (int i = 0; be->k[c->op].inplace && i < r->node->nsrc; i++) {
        const sm_node *s = r->node->src[i];
        if (!s || s->dtype != r->node->dtype || sm_numel(s) != n)
            continue;
        float *y = result(r, be, true, i, false);
        snprintf(what, sizeof what, "%s, in place of source %d", be->name, i);
        same_bits(want, y, n, c, what);
        free(y);
    }
}

static void check_case(const op_case *c)
{
    const sm_backend *be[4];
    int backends = sm_cpu_backends(be);
    recorded r;
    if (!record(&r, c)) {
        drop(&r);
        return;
    }
    int64_t n = sm_numel(r.node);
    float *ref = result(&r, be[0], true, -1, false), *first = NULL;
    double tol = tolerance(&r, ref, n);
    check_variants(&r, c, be[0], ref);
    for (int b = 1; b < backends; b++) {
        float *y = result(&r, be[b], true, -1, false);
        double d = test_maxdiff(y, ref, n);
        if (r.node->dtype == SM_I32)
            same_bits(ref, y, n, c, "numbers differ from the reference's");
        CHECKF(d <= tol, "%s: %s differs by %.3g, allowed %.3g (SUMI_TEST_SEED=%llu)", case_name(c), be[b]->name, d, tol,
               (unsigned long long)seed());
        check_variants(&r, c, be[b], y);
        if (first)
            same_bits(first, y, n, c, "vector units disagree");
        else
            first = y;
        if (first != y)
            free(y);
    }
    free(first);
    free(ref);
    drop(&r);
}

/* SUMI_TEST_OP limits the checks to one operation. */
static void check_ops(sm_op_id from, sm_op_id to)
{
    const char *only = getenv("SUMI_TEST_OP");
    for (int i = 0; i < op_case_count; i++)
        if (!op_cases[i].bench && op_cases[i].op >= from && op_cases[i].op <= to &&
            (!only || !strcmp(only, sm_ops[op_cases[i].op].name)))
            check_case(&op_cases[i]);
}

TEST(kernels_linear) { check_ops(SM_OP_LINEAR, SM_OP_MATMUL); }
TEST(kernels_conv) { check_ops(SM_OP_CONV2D, SM_OP_CONV2D_DW); }
TEST(kernels_norm) { check_ops(SM_OP_GROUP_NORM, SM_OP_RMS_NORM_DP); }
TEST(kernels_norm_in_pieces) { check_ops(SM_OP_GROUP_STATS, SM_OP_GROUP_NORM_BY); }
/* A picture that is almost constant, far from 0, in every lane: its sums must not lose the small part. The mean is rounded to a
 * float, half of 6e-5 at 1000 beside a deviation of 0.02; the result may be off by that and as much again. */
TEST(kernels_norm_far_from_zero)
{
    enum { N = 64 * 64 * 16 };
    static float x[N];
    const sm_backend *be[4];
    double mean = 0, var = 0;
    for (int i = 0; i < N; i++) {
        x[i] = 1000 + 0.01f * (float)(i * 31 / 7 % 7);
        mean += x[i] / (double)N;
    }
    for (int i = 0; i < N; i++)
        var += (x[i] - mean) * (x[i] - mean) / N;
    sm_graph *g = sm_graph_new(NULL, NULL);
    sm_node *in = sm_input(g, "x", SM_F32, 4, (int64_t[]){1, 64, 64, 16}), *node = sm_group_norm(in, NULL, NULL, 1, 1e-6f);
    for (int b = 0, n = sm_cpu_backends(be); b < n; b++) {
        kernel_run k = {.k = &be[b]->k[SM_OP_GROUP_NORM], .node = node, .src = {x}, .high = true, .inplace = -1};
        float *y = kernel_result(&k);
        double worst = 0;
        for (int i = 0; i < N; i++) {
            double off = fabs(y[i] - (x[i] - mean) / sqrt(var + 1e-6));
            if (!(off <= worst)) /* NaN too */
                worst = off;
        }
        CHECKF(worst < 6.1e-5 / sqrt(var), "%s: %.3g off, deviation %.3g", be[b]->name, worst, sqrt(var));
        free(y);
    }
    sm_graph_free(g);
}

TEST(kernels_attention) { check_ops(SM_OP_ATTENTION, SM_OP_LOG_SOFTMAX); }
TEST(kernels_elementwise) { check_ops(SM_OP_AFFINE, SM_OP_DIV); }
TEST(kernels_move) { check_ops(SM_OP_RESHAPE, SM_OP_MAX_POOL_DX); }
TEST(kernels_reduce) { check_ops(SM_OP_SUM, SM_OP_SUM_TO); }
TEST(kernels_tokens) { check_ops(SM_OP_TOKEN_MATCH, SM_OP_TOKEN_PART); }

/* ---- elementary functions over their whole range ---- */

typedef struct sweep { sm_op_id op; float lo, hi; double ulps; } sweep;

static double ulp_of(double x)
{
    int e;
    frexp(x, &e);
    return ldexp(1, SM_MAX(e - 24, -149));
}

/* Largest error in ulps of the reference over n values; NaN and infinity must agree in kind. */
static double worst_ulps(const sm_backend *be, const sm_backend *ref, sm_op_id op, const float *x, int n, float *at)
{
    sm_graph *g = sm_graph_new(NULL, NULL);
    int64_t dims = n;
    sm_node *in = sm_input(g, "x", SM_F32, 1, &dims), *node = sm_unary(op, in);
    float *y[2];
    double worst = 0;
    for (int i = 0; i < 2; i++) {
        kernel_run k = {.k = &(i ? ref : be)->k[op], .node = node, .src = {x}, .high = true, .inplace = -1};
        y[i] = kernel_result(&k);
    }
    for (int i = 0; i < n; i++) {
        double d = 0;
        if (isnan(y[0][i]) != isnan(y[1][i]) || (isinf(y[1][i]) && y[0][i] != y[1][i]))
            d = INFINITY;
        else if (isfinite(y[1][i]))
            d = fabs((double)y[0][i] - y[1][i]) / ulp_of(y[1][i]);
        if (d > worst) {
            worst = d;
            *at = x[i];
        }
    }
    free(y[0]);
    free(y[1]);
    sm_graph_free(g);
    return worst;
}

TEST(kernels_elementary_functions)
{
    enum { N = 20000 };
    static float x[N];
    static const sweep sweeps[] = {
        {SM_OP_EXP, -87, 88.7f, 2}, {SM_OP_EXP, -104, -86, 2}, {SM_OP_EXP, -1, 1, 2}, {SM_OP_LOG, 1e-6f, 4, 2},
        {SM_OP_LOG, 0.9f, 1.1f, 2},
        {SM_OP_LOG, 1, 3e38f, 2}, {SM_OP_SIN, -3.2f, 3.2f, 3}, {SM_OP_COS, -3.2f, 3.2f, 3}, {SM_OP_SIN, -9e4f, 9e4f, 4},
        {SM_OP_COS, -9e4f, 9e4f, 4},
        {SM_OP_SIN, -1e9f, 1e9f, 4}, {SM_OP_TANH, -10, 10, 4}, {SM_OP_TANH, -0.7f, 0.7f, 4}, {SM_OP_SIGMOID, -80, 80, 4},
        {SM_OP_SQRT, 0, 1e30f, 1},
    };
    const sm_backend *be[4];
    int n = sm_cpu_backends(be);
    for (int b = 1; b < n; b++)
        for (size_t i = 0; i < SM_COUNT(sweeps); i++) {
            float at = 0;
            test_fill(x, N, seed() + i, sweeps[i].lo, sweeps[i].hi);
            double worst = worst_ulps(be[b], be[0], sweeps[i].op, x, N, &at);
            CHECKF(worst <= sweeps[i].ulps, "%s: %s is off by %.2f ulp at %.9g, allowed %.0f", be[b]->name,
                   sm_ops[sweeps[i].op].name, worst, at, sweeps[i].ulps);
        }
}

TEST(kernels_special_values)
{
    static const float x[] = {0, -0.0f, INFINITY, -INFINITY, NAN, 1e-40f, -1e-40f, 1.17549435e-38f, 3.4e38f, -3.4e38f, 1, -1, 89,
                              -104, 200, -200, 1e-30f};
    static const sm_op_id ops[] = {SM_OP_EXP, SM_OP_LOG, SM_OP_SQRT, SM_OP_TANH, SM_OP_SIGMOID, SM_OP_RELU, SM_OP_ABS};
    static const float angle[] = {0, -0.0f, INFINITY, -INFINITY, NAN, 1e-40f, 1e5f, -1e5f, 123456.7f, 1, -1};
    const sm_backend *be[4];
    int n = sm_cpu_backends(be);
    for (int b = 1; b < n; b++) {
        float at = 0;
        for (size_t i = 0; i < SM_COUNT(ops); i++) {
            double worst = worst_ulps(be[b], be[0], ops[i], x, (int)SM_COUNT(x), &at);
            CHECKF(worst <= 4, "%s: %s is off by %g ulp at %g", be[b]->name, sm_ops[ops[i]].name, worst, at);
        }
        for (int op = SM_OP_SIN; op <= SM_OP_COS; op += 2) {
            double worst = worst_ulps(be[b], be[0], (sm_op_id)op, angle, (int)SM_COUNT(angle), &at);
            CHECKF(worst <= 4, "%s: %s is off by %g ulp at %g", be[b]->name, sm_ops[op].name, worst, at);
        }
    }
}

/* ---- storage types ---- */

TEST(kernels_f16_bf16_round_trip)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float f = sm_f16_f32((uint16_t)h), b = sm_bf16_f32((uint16_t)h);
        if (!isnan(f))
            CHECKF(sm_f32_f16(f) == h, "f16 %04x -> %g -> %04x", h, f, sm_f32_f16(f));
        else
            CHECK(isnan(sm_f16_f32(sm_f32_f16(f))));
        if (!isnan(b))
            CHECKF(sm_f32_bf16(b) == h, "bf16 %04x -> %g -> %04x", h, b, sm_f32_bf16(b));
        else
            CHECK(isnan(sm_bf16_f32(sm_f32_bf16(b))));
    }
    /* IEEE 754: ties to even, overflow at 65520, underflow at 2^-25 */
    CHECK(sm_f32_f16(1 + 0x1p-11f) == 0x3c00 && sm_f32_f16(1 + 0x1.8p-10f) == 0x3c02 && sm_f32_f16(1 + 0x1.002p-11f) == 0x3c01);
    CHECK(sm_f32_f16(65519.996f) == 0x7bff && sm_f32_f16(65520) == 0x7c00 && sm_f32_f16(-1e30f) == 0xfc00);
    CHECK(sm_f32_f16(0x1p-25f) == 0 && sm_f32_f16(0x1.002p-25f) == 1 && sm_f16_f32(0x0001) == 0x1p-24f &&
          sm_f16_f32(0x3555) == 0x1.554p-2f);
    CHECK(sm_f32_bf16(1 + 0x1p-8f) == 0x3f80 && sm_f32_bf16(1 + 0x1.8p-7f) == 0x3f82 && sm_f32_bf16(3.4e38f) == 0x7f80);
}
