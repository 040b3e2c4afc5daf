/* Gradient rules: for every case of an op with a gradient, d/dx of a random-weighted sum of outputs by sm_grad against
 * five-point central differences on the scalar reference, whose sums are in double. */
#include "graph/graph.h"
#include "op_cases.h"
#include "ops/ops.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Step 1/256: the rounding of f32 outputs (2^-24 each) gives errors near 2^-24 * 256 * sqrt(outputs), the formula's own
 * error is h^4/30 times the fifth derivative. */
enum { PROBES = 12 };
static const double step = 1.0 / 256;

typedef struct checked {
    const op_case *c;
    sm_graph *g;
    sm_node *src[SM_MAX_SRC], *y, *weights;
    sm_plan *forward;
    int64_t n;
    float *w;
} checked;

static double weighted_sum(const checked *t)
{
    sm_err e = {0};
    CHECKF(!sm_plan_run(t->forward, NULL, NULL, &e), "%s: %s", case_name(t->c), e.msg);
    const float *y = sm_plan_data(t->forward, t->y);
    double s = 0;
    for (int64_t i = 0; i < t->n; i++)
        s += (double)y[i] * t->w[i];
    return s;
}

static double slope(const checked *t, float *x)
{
    static const double at[4] = {-2, -1, 1, 2}, coeff[4] = {1, -8, 8, -1};
    float x0 = *x;
    double d = 0;
    for (int i = 0; i < 4; i++) {
        *x = (float)(x0 + at[i] * step);
        d += coeff[i] * weighted_sum(t);
    }
    *x = x0;
    return d / (12 * step);
}

/* Sources a gradient flows to: f32, and not attention's bias, rope's tables. */
static bool wanted(const checked *t, int i)
{
    return t->src[i] && t->src[i]->dtype == SM_F32 && !(t->c->op == SM_OP_ATTENTION && i == 3) && !(t->c->op == SM_OP_ROPE && i);
}

static void set_inputs(const checked *t, sm_plan *p)
{
    for (int i = 0; i < SM_MAX_SRC; i++)
        if (t->src[i] && sm_plan_data(p, t->src[i]))
            case_values(t->c, i, 99, t->src[i], sm_plan_data(p, t->src[i]));
}

static void compare(const checked *t, int i, const float *grad)
{
    float *x = sm_plan_data(t->forward, t->src[i]);
    int64_t n = sm_numel(t->src[i]), count = SM_MIN(n, PROBES);
    double scale = test_rms(grad, n), tol = 2e-3 * scale + 2e-5 * sqrt((double)t->n) * (1 + sm_ops[t->c->op].hi);
    for (int64_t k = 0; k < count; k++) {
        int64_t at = n <= PROBES ? k : (k * 2654435761 + 17) % n;
        double num = slope(t, x + at);
        CHECKF(fabs(num - grad[at]) <= tol, "%s: source %d, element %lld: sm_grad gives %.6g, differences %.6g (allowed %.2g)",
               case_name(t->c), i,
               (long long)at, grad[at], num, tol);
    }
}

static void check_grad(const op_case *c, const sm_backend *be)
{
    checked t = {.c = c, .g = sm_graph_new(NULL, NULL)};
    sm_node *wrt[SM_MAX_SRC], *outs[SM_MAX_SRC];
    int index[SM_MAX_SRC], n = 0;
    sm_err e = {0};
    t.y = case_record(c, t.g, 0, t.src);
    t.n = sm_numel(t.y);
    t.weights = sm_input(t.g, "weights", SM_F32, t.y->rank, t.y->dims);
    for (int i = 0; i < SM_MAX_SRC; i++)
        if (wanted(&t, i)) {
            index[n] = i;
            wrt[n++] = t.src[i];
        }
    int before = t.g->count;
    sm_node *loss = sm_sum_all(sm_mul(t.y, t.weights));
    bool ok = sm_grad(loss, n, wrt, outs);
    CHECKF(ok && t.g->count > before, "%s: %s", case_name(c), t.g->err.msg);
    sm_plan *back = ok ? sm_plan_new(t.g, n, outs, be, &e) : NULL;
    t.forward = ok ? sm_plan_new(t.g, 1, &t.y, be, &e) : NULL;
    CHECKF(back && t.forward, "%s: %s", case_name(c), e.msg);
    t.w = malloc((size_t)t.n * sizeof *t.w);
    if (back && t.forward && t.w) {
        test_fill(t.w, t.n, 5, -1, 1);
        set_inputs(&t, t.forward);
        set_inputs(&t, back);
        if (sm_plan_data(back, t.weights))
            memcpy(sm_plan_data(back, t.weights), t.w, (size_t)t.n * sizeof *t.w);
        CHECKF(!sm_plan_run(back, NULL, NULL, &e), "%s: %s", case_name(c), e.msg);
        for (int i = 0; i < n; i++)
            compare(&t, index[i], sm_plan_data(back, outs[i]));
    }
    sm_plan_free(back);
    sm_plan_free(t.forward);
    sm_graph_free(t.g);
    free(t.w);
}

static int64_t elements(const op_case *c)
{
    int64_t most = 0;
    for (int i = 0; i < SM_MAX_SRC; i++) {
        int64_t n = c->src[i].used;
        for (int d = 0; d < c->src[i].rank; d++)
            n *= c->src[i].dims[d];
        most = SM_MAX(most, n);
    }
    return most;
}

/* A step across a kink proves nothing: ops with kinks are checked on spaced values only. */
static bool fit(const op_case *c)
{
    bool kinks = c->op == SM_OP_RELU || c->op == SM_OP_ABS || c->op == SM_OP_MAX_POOL;
    return sm_ops[c->op].grad && !c->bench && elements(c) <= 2500 && !(kinks && c->src[0].fill != FILL_GRID && elements(c) > 1);
}

static void check_grads(sm_op_id from, sm_op_id to)
{
    const sm_backend *be = sm_cpu_backend("scalar", NULL);
    for (int op = (int)from; op <= (int)to; op++) {
        int cases = 0;
        for (int i = 0; i < op_case_count; i++)
            if ((int)op_cases[i].op == op && fit(&op_cases[i])) {
                check_grad(&op_cases[i], be);
                cases++;
            }
        CHECKF(cases || !sm_ops[op].grad, "%s has a gradient rule, but no case that checks it", sm_ops[op].name);
    }
}

TEST(grads_linear) { check_grads(SM_OP_LINEAR, SM_OP_MATMUL); }
TEST(grads_conv) { check_grads(SM_OP_CONV2D, SM_OP_CONV2D_DW); }
TEST(grads_norm) { check_grads(SM_OP_GROUP_NORM, SM_OP_RMS_NORM_DP); }
TEST(grads_attention) { check_grads(SM_OP_ATTENTION, SM_OP_LOG_SOFTMAX); }
TEST(grads_elementwise) { check_grads(SM_OP_AFFINE, SM_OP_DIV); }
TEST(grads_move) { check_grads(SM_OP_RESHAPE, SM_OP_MAX_POOL_DX); }
TEST(grads_reduce) { check_grads(SM_OP_SUM, SM_OP_SUM_TO); }

/* ---- through whole expressions: a node used twice, composites, a source that the loss does not depend on ---- */

typedef sm_node *expression(sm_graph *g, sm_node *x);

static sm_node *used_twice(sm_graph *g, sm_node *x)
{
    return sm_mean_all(sm_mul(sm_silu(x), sm_add(x, sm_unary(SM_OP_TANH, x))));
}
static sm_node *loss_mse(sm_graph *g, sm_node *x) { return sm_mse(sm_unary(SM_OP_SIN, x), sm_affine(x, 0.5f, 0.1f)); }
static sm_node *loss_huber(sm_graph *g, sm_node *x) { return sm_huber(x, sm_const_f32(g, 0.2f), 0.1f); }
static sm_node *shuffled(sm_graph *g, sm_node *x)
{
    sm_node *y = sm_pixel_unshuffle(SM_RESHAPE(x, 1, 4, 4, 2), 2);
    return sm_sum_all(sm_unary(SM_OP_SQUARE, sm_pixel_shuffle(sm_affine(y, 2, 0), 2)));
}
static sm_node *sliced_attention(sm_graph *g, sm_node *x)
{
    sm_node *qkv = SM_RESHAPE(x, 1, 2, 2, 8), *q = sm_slice(qkv, 3, 0, 4), *k = sm_slice(qkv, 3, 4, 4);
    return sm_sum_all(sm_unary(SM_OP_SQUARE, sm_attention(q, k, sm_affine(k, 1, 1), NULL, 0, false)));
}

static double value_at(sm_plan *p, sm_node *loss)
{
    sm_err e = {0};
    CHECKF(!sm_plan_run(p, NULL, NULL, &e), "%s", e.msg);
    return *(const float *)sm_plan_data(p, loss);
}

static void check_expression(const char *name, expression *f)
{
    enum { N = 32 };
    sm_err e = {0};
    sm_graph *g = sm_graph_new(NULL, &e);
    int64_t dims = N;
    sm_node *x = sm_input(g, "x", SM_F32, 1, &dims), *unused = sm_input(g, "unused", SM_F32, 1, &dims), *loss = f(g, x), *d[3];
    bool ok = sm_grad(loss, 2, (sm_node *[]){x, unused}, d);
    d[2] = loss;
    sm_plan *p = ok ? sm_plan_new(g, 3, d, sm_cpu_backend("scalar", NULL), &e) : NULL;
    CHECKF(p != NULL, "%s: %s", name, ok ? e.msg : g->err.msg);
    if (p) {
        float *v = sm_plan_data(p, x), grad[N];
        test_fill(v, N, 3, -1, 1);
        value_at(p, loss);
        memcpy(grad, sm_plan_data(p, d[0]), sizeof grad);
        for (int i = 0; i < N; i++)
            CHECKF(((const float *)sm_plan_data(p, d[1]))[i] == 0, "%s: gradient of an unused source is not 0", name);
        for (int i = 0; i < N; i += 5) {
            float x0 = v[i];
            double up, down;
            v[i] = x0 + 1.0f / 64;
            up = value_at(p, loss);
            v[i] = x0 - 1.0f / 64;
            down = value_at(p, loss);
            v[i] = x0;
            CHECKF(fabs((up - down) * 32 - grad[i]) <= 5e-3 * test_rms(grad, N) + 2e-5,
                   "%s: element %d: sm_grad %.6g, differences %.6g", name, i, grad[i], (up - down) * 32);
        }
    }
    sm_plan_free(p);
    sm_graph_free(g);
}

TEST(grads_expressions)
{
    check_expression("used twice", used_twice);
    check_expression("mse", loss_mse);
    check_expression("huber", loss_huber);
    check_expression("pixel shuffle", shuffled);
    check_expression("attention on slices", sliced_attention);
}

TEST(grads_errors)
{
    sm_graph *g = sm_graph_new(NULL, NULL);
    sm_node *x = sm_input(g, "x", SM_F32, 2, (int64_t[]){3, 5}), *y = sm_silu(x), *d;
    CHECK(!sm_grad(y, 1, &x, &d) && d == g->poison && strstr(g->err.msg, "15 elements"));
    sm_graph_free(g);
    g = sm_graph_new(NULL, NULL);
    x = sm_input(g, "x", SM_F32, 2, (int64_t[]){3, 5});
    sm_node *src[2] = {x, x};
    CHECK(!sm_grad(sm_sum_all(sm_record(g, SM_OP_SILU_DX, 2, src, NULL)), 1, &x, &d) &&
          strstr(g->err.msg, "silu_dx has no gradient"));
    sm_graph_free(g);
}
