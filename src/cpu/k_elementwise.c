/* Element-wise kernels: every op is one expression on vectors; two loops apply it, one to contiguous data, one to rows
 * that broadcasting makes contiguous or constant. Tails run the same expression on a partial vector, so a value does not
 * depend on where it stands. */
#include "cpu/cpu.h"
#include "cpu/activation.h"

typedef struct span { int64_t a, b; } span;

/* The task's share of n elements, cut at multiples of 16. */
static inline span share(int64_t n, int task, int tasks)
{
    int64_t a, b;
    sm_range((n + 15) / 16, task, tasks, &a, &b);
    return (span){a * 16, SM_MIN(b * 16, n)};
}

/* KERNEL1(name, y of x), KERNEL2(name, y of x and dy) */
#define KERNEL1(name, expr)                                                                                    \
    static inline vf f_##name(vf x) { return expr; }                                                           \
    static void run_##name(const sm_kcall *c, int task, int tasks)                                             \
    {                                                                                                          \
        const float *xs = c->src[0].data;                                                                      \
        float *ys = c->dst.data;                                                                               \
        span s = share(sm_numel(c->node), task, tasks);                                                        \
        int64_t i = s.a;                                                                                       \
        for (; i + SM_VL <= s.b; i += SM_VL)                                                                   \
            vstore(ys + i, f_##name(vload(xs + i)));                                                           \
        if (i < s.b)                                                                                           \
            vstore_part(ys + i, f_##name(vload_part(xs + i, (int)(s.b - i), 1)), (int)(s.b - i));              \
    }
#define KERNEL2(name, expr)                                                                                    \
    static inline vf f_##name(vf x, vf dy) { return expr; }                                                    \
    static void run_##name(const sm_kcall *c, int task, int tasks)                                             \
    {                                                                                                          \
        const float *xs = c->src[0].data, *ds = c->src[1].data;                                                \
        float *ys = c->dst.data;                                                                               \
        span s = share(sm_numel(c->node), task, tasks);                                                        \
        int64_t i = s.a;                                                                                       \
        for (; i + SM_VL <= s.b; i += SM_VL)                                                                   \
            vstore(ys + i, f_##name(vload(xs + i), vload(ds + i)));                                            \
        if (i < s.b) {                                                                                         \
            int n = (int)(s.b - i);                                                                            \
            vstore_part(ys + i, f_##name(vload_part(xs + i, n, 1), vload_part(ds + i, n, 0)), n);              \
        }                                                                                                      \
    }

static inline vf silu_slope(vf x)
{
    vf s = vsigmoid(x);
    return s * vfma(x, 1.0f - s, vset(1));
}
static inline vf gelu_tanh_slope(vf x)
{
    vf e = vexp(-sm_gelu_tanh_arg(x)), s = 1.0f / (e + 1.0f), du = vfma(x * x, vset(0.214064449f), vset(1.59576912f));
    vf rest = vsel(s < vset(0.5f), 1.0f - s, e * s); /* 1 - s without cancellation */
    return vfma(x * s * rest, du, s);
}
static inline vf gelu_erf_slope(vf x) { return vfma(x * 0.398942280f, vexp(x * x * -0.5f), sm_normal_cdf(x)); }
static inline vf quick_gelu_slope(vf x)
{
    vf s = vsigmoid(x * 1.702f);
    return s * vfma(x * 1.702f, 1.0f - s, vset(1));
}
static inline vf sigmoid_slope(vf x)
{
    vf s = vsigmoid(x);
    return s * (1.0f - s);
}
static inline vf tanh_slope(vf x)
{
    vf t = vtanh(x);
    return (1.0f - t) * (1.0f + t);
}

KERNEL1(silu, sm_v_silu(x))
KERNEL1(gelu_tanh, sm_v_gelu_tanh(x))
KERNEL1(gelu_erf, sm_v_gelu_erf(x))
KERNEL1(quick_gelu, sm_v_quick_gelu(x))
KERNEL1(relu, sm_v_relu(x))
KERNEL1(sigmoid, vsigmoid(x))
KERNEL1(tanh, vtanh(x))
KERNEL1(exp, vexp(x))
KERNEL1(log, vlog(x))
KERNEL1(sqrt, vsqrt(x))
KERNEL1(sin, vsin(x))
KERNEL1(cos, vcos(x))
KERNEL1(abs, vabs(x))
KERNEL1(square, x *x)
KERNEL2(silu_dx, dy *silu_slope(x))
KERNEL2(gelu_tanh_dx, dy *gelu_tanh_slope(x))
KERNEL2(gelu_erf_dx, dy *gelu_erf_slope(x))
KERNEL2(quick_gelu_dx, dy *quick_gelu_slope(x))
KERNEL2(relu_dx, vsel(x > vset(0), dy, vset(0)))
KERNEL2(sigmoid_dx, dy *sigmoid_slope(x))
KERNEL2(tanh_dx, dy *tanh_slope(x))
KERNEL2(exp_dx, dy *vexp(x))
KERNEL2(log_dx, dy / x)
KERNEL2(sqrt_dx, dy * 0.5f / vsqrt(x))
KERNEL2(sin_dx, dy *vcos(x))
KERNEL2(cos_dx, -(dy * vsin(x)))
KERNEL2(abs_dx, vsel(x > vset(0), dy, vsel(x < vset(0), -dy, vset(0))))
KERNEL2(square_dx, dy *(x + x))

static void run_affine(const sm_kcall *c, int task, int tasks)
{
    const float *x = c->src[0].data;
    float *y = c->dst.data;
    vf a = vset(c->node->p.affine.a), b = vset(c->node->p.affine.b);
    span s = share(sm_numel(c->node), task, tasks);
    int64_t i = s.a;
    for (; i + SM_VL <= s.b; i += SM_VL)
        vstore(y + i, vfma(a, vload(x + i), b));
    if (i < s.b)
        vstore_part(y + i, vfma(a, vload_part(x + i, (int)(s.b - i), 0), b), (int)(s.b - i));
}

/* ---- two sources with broadcasting ---- */

/* The result as `outer` dimensions around rows of `len`; in a row each source is contiguous (step 1) or constant (0).
 * Dimensions along which both sources go on regularly are joined. */
typedef struct layout {
    int outer;
    int64_t len, dims[SM_MAX_DIMS], stride[2][SM_MAX_DIMS];
    bool moves[2];
} layout;

static layout layout_of(const sm_kcall *c)
{
    layout l = {0};
    int rank = c->dst.rank, n = 0;
    int64_t dims[SM_MAX_DIMS], st[2][SM_MAX_DIMS], at[2] = {1, 1};
    for (int d = rank - 1; d >= 0; d--) { /* n counts from the innermost dimension */
        int64_t size = c->dst.dims[d], step[2];
        for (int s = 0; s < 2; s++) {
            int k = d - (rank - c->src[s].rank);
            int64_t own = k < 0 ? 1 : c->src[s].dims[k];
            step[s] = own == 1 ? 0 : at[s];
            at[s] *= own;
        }
        if (size == 1)
            continue;
        if (n && step[0] == st[0][n - 1] * dims[n - 1] && step[1] == st[1][n - 1] * dims[n - 1]) {
            dims[n - 1] *= size;
            continue;
        }
        dims[n] = size;
        st[0][n] = step[0];
        st[1][n++] = step[1];
    }
    l.len = n ? dims[0] : 1;
    for (int s = 0; s < 2; s++)
        l.moves[s] = n && st[s][0];
    l.outer = n ? n - 1 : 0;
    for (int i = 1; i < n; i++) { /* outermost first */
        l.dims[n - 1 - i] = dims[i];
        l.stride[0][n - 1 - i] = st[0][i];
        l.stride[1][n - 1 - i] = st[1][i];
    }
    return l;
}

/* Offsets of both sources for row r. */
static inline void row_at(const layout *l, int64_t r, int64_t off[2])
{
    off[0] = off[1] = 0;
    for (int d = l->outer - 1; d >= 0; d--) {
        int64_t i = r;
        if (d) {
            i = r % l->dims[d];
            r /= l->dims[d];
        }
        off[0] += i * l->stride[0][d];
        off[1] += i * l->stride[1][d];
    }
}

#define ROW_LOOP(A, B, expr)                                                                                   \
    for (; i + SM_VL <= n; i += SM_VL) {                                                                       \
        vf x = A, y = B;                                                                                       \
        vstore(out + i, expr);                                                                                 \
    }

/* BINARY(name, expression in x and y) */
#define BINARY(name, expr)                                                                                     \
    static inline void row_##name(const float *a, bool ma, const float *b, bool mb, float *out, int64_t n)     \
    {                                                                                                          \
        int64_t i = 0;                                                                                         \
        vf ca = vset(*a), cb = vset(*b);                                                                       \
        if (ma && mb)                                                                                          \
            ROW_LOOP(vload(a + i), vload(b + i), expr)                                                         \
        else if (ma)                                                                                           \
            ROW_LOOP(vload(a + i), cb, expr)                                                                   \
        else                                                                                                   \
            ROW_LOOP(ca, mb ? vload(b + i) : cb, expr)                                                         \
        if (i < n) {                                                                                           \
            vf x = ma ? vload_part(a + i, (int)(n - i), 1) : ca, y = mb ? vload_part(b + i, (int)(n - i), 1) : cb; \
            vstore_part(out + i, expr, (int)(n - i));                                                          \
        }                                                                                                      \
    }                                                                                                          \
    static void run_##name(const sm_kcall *c, int task, int tasks)                                             \
    {                                                                                                          \
        const float *a = c->src[0].data, *b = c->src[1].data;                                                  \
        layout l = layout_of(c);                                                                               \
        span s = share(sm_numel(c->node), task, tasks);                                                        \
        for (int64_t i = s.a; i < s.b;) {                                                                      \
            int64_t r = i / l.len, in = i - r * l.len, n = SM_MIN(l.len - in, s.b - i), off[2];                \
            row_at(&l, r, off);                                                                                \
            row_##name(a + off[0] + (l.moves[0] ? in : 0), l.moves[0], b + off[1] + (l.moves[1] ? in : 0), l.moves[1], \
                       (float *)c->dst.data + i, n);                                                           \
            i += n;                                                                                            \
        }                                                                                                      \
    }

BINARY(add, x + y)
BINARY(sub, x - y)
BINARY(mul, x *y)
BINARY(div, x / y)

void SM_K(sm_cpu_elementwise)(sm_kernel *k)
{
#define PUT(ID, name) k[SM_OP_##ID] = (sm_kernel){.run = run_##name, .inplace = true};
    PUT(SILU, silu) PUT(GELU_TANH, gelu_tanh) PUT(GELU_ERF, gelu_erf) PUT(QUICK_GELU, quick_gelu) PUT(RELU, relu)
    PUT(SIGMOID, sigmoid) PUT(TANH, tanh) PUT(EXP, exp) PUT(LOG, log) PUT(SQRT, sqrt) PUT(SIN, sin) PUT(COS, cos)
    PUT(ABS, abs) PUT(SQUARE, square)
    PUT(SILU_DX, silu_dx) PUT(GELU_TANH_DX, gelu_tanh_dx) PUT(GELU_ERF_DX, gelu_erf_dx) PUT(QUICK_GELU_DX, quick_gelu_dx)
    PUT(RELU_DX, relu_dx) PUT(SIGMOID_DX, sigmoid_dx) PUT(TANH_DX, tanh_dx) PUT(EXP_DX, exp_dx) PUT(LOG_DX, log_dx)
    PUT(SQRT_DX, sqrt_dx) PUT(SIN_DX, sin_dx) PUT(COS_DX, cos_dx) PUT(ABS_DX, abs_dx) PUT(SQUARE_DX, square_dx)
    PUT(AFFINE, affine) PUT(ADD, add) PUT(SUB, sub) PUT(MUL, mul) PUT(DIV, div)
#undef PUT
}
