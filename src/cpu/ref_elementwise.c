/* Scalar reference of the element-wise ops: each function in double, by its definition. */
#include "cpu/ref.h"

#include <math.h>

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double phi(double x) { return exp(-x * x / 2) * 0.3989422804014327; } /* normal density */
static double cap_phi(double x) { return 0.5 * erfc(-x * 0.7071067811865476); }
static double gelu_arg(double x) { return 0.7978845608028654 * (x + 0.044715 * x * x * x); }

static double unary(sm_op_id op, double x)
{
    switch (op) {
    case SM_OP_SILU: return x * sigmoid(x);
    case SM_OP_GELU_TANH: return 0.5 * x * (1 + tanh(gelu_arg(x)));
    case SM_OP_GELU_ERF: return x * cap_phi(x);
    case SM_OP_QUICK_GELU: return x * sigmoid(1.702 * x);
    case SM_OP_RELU: return 0 > x ? 0 : x;
    case SM_OP_SIGMOID: return sigmoid(x);
    case SM_OP_TANH: return tanh(x);
    case SM_OP_EXP: return exp(x);
    case SM_OP_LOG: return log(x);
    case SM_OP_SQRT: return sqrt(x);
    case SM_OP_SIN: return sin(x);
    case SM_OP_COS: return cos(x);
    case SM_OP_ABS: return fabs(x);
    case SM_OP_SQUARE: return x * x;
    default: return NAN;
    }
}

static double gelu_tanh_slope(double x)
{
    double t = tanh(gelu_arg(x)), u = 0.7978845608028654 * (1 + 3 * 0.044715 * x * x);
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * u;
}

/* Derivative at x. At the kinks of relu and abs it is 0. */
static double slope(sm_op_id op, double x)
{
    double s;
    switch (op) {
    case SM_OP_SILU_DX: s = sigmoid(x); return s * (1 + x * (1 - s));
    case SM_OP_GELU_TANH_DX: return gelu_tanh_slope(x);
    case SM_OP_GELU_ERF_DX: return cap_phi(x) + x * phi(x);
    case SM_OP_QUICK_GELU_DX: s = sigmoid(1.702 * x); return s * (1 + 1.702 * x * (1 - s));
    case SM_OP_RELU_DX: return x > 0;
    case SM_OP_SIGMOID_DX: s = sigmoid(x); return s * (1 - s);
    case SM_OP_TANH_DX: s = tanh(x); return 1 - s * s;
    case SM_OP_EXP_DX: return exp(x);
    case SM_OP_LOG_DX: return 1 / x;
    case SM_OP_SQRT_DX: return 0.5 / sqrt(x);
    case SM_OP_SIN_DX: return cos(x);
    case SM_OP_COS_DX: return -sin(x);
    case SM_OP_ABS_DX: return (x > 0) - (x < 0);
    case SM_OP_SQUARE_DX: return 2 * x;
    default: return NAN;
    }
}

static void run_unary(const sm_kcall *c, int task, int tasks)
{
    const float *x = ref_f32(c, 0);
    float *y = c->dst.data;
    int64_t a, b;
    sm_range(ref_numel(&c->dst), task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++)
        y[i] = (float)unary(c->node->op, x[i]);
}

static void run_slope(const sm_kcall *c, int task, int tasks)
{
    const float *x = ref_f32(c, 0), *dy = ref_f32(c, 1);
    float *y = c->dst.data;
    int64_t a, b;
    sm_range(ref_numel(&c->dst), task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++)
        y[i] = (float)(dy[i] * slope(c->node->op, x[i]));
}

static void run_affine(const sm_kcall *c, int task, int tasks)
{
    const float *x = ref_f32(c, 0);
    float *y = c->dst.data;
    int64_t a, b;
    sm_range(ref_numel(&c->dst), task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++)
        y[i] = (float)((double)c->node->p.affine.a * x[i] + c->node->p.affine.b);
}

static double binary(sm_op_id op, double a, double b)
{
    switch (op) {
    case SM_OP_ADD: return a + b;
    case SM_OP_SUB: return a - b;
    case SM_OP_MUL: return a * b;
    default: return a / b;
    }
}

static void run_binary(const sm_kcall *c, int task, int tasks)
{
    float *y = c->dst.data;
    int64_t a, b, idx[SM_MAX_DIMS];
    sm_range(ref_numel(&c->dst), task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) {
        ref_unravel(&c->dst, i, idx);
        double l = ref_f32(c, 0)[ref_broadcast(&c->src[0], c->dst.rank, idx)];
        double r = ref_f32(c, 1)[ref_broadcast(&c->src[1], c->dst.rank, idx)];
        y[i] = (float)binary(c->node->op, l, r);
    }
}

void sm_cpu_elementwise_scalar(sm_kernel *k)
{
    for (int op = SM_OP_SILU; op <= SM_OP_SQUARE_DX; op++) /* each op is followed by its gradient op */
        k[op] = (sm_kernel){.run = (op - SM_OP_SILU) % 2 ? run_slope : run_unary, .inplace = true};
    k[SM_OP_AFFINE] = (sm_kernel){.run = run_affine, .inplace = true};
    for (int op = SM_OP_ADD; op <= SM_OP_DIV; op++)
        k[op] = (sm_kernel){.run = run_binary, .inplace = true};
}
