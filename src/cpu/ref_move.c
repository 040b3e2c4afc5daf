/* Scalar reference of the ops that move and resample: each output element finds its sources; the adjoints find, for each
 * input element, the outputs it went to. */
#include "cpu/ref.h"

#include <math.h>
#include <string.h>

/* Calls value(c, idx) for each output element of the task's share. */
static void each(const sm_kcall *c, int task, int tasks, double (*value)(const sm_kcall *c, const int64_t *idx))
{
    float *y = c->dst.data;
    int64_t a, b, idx[SM_MAX_DIMS] = {0};
    sm_range(ref_numel(&c->dst), task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) {
        ref_unravel(&c->dst, i, idx);
        y[i] = (float)value(c, idx);
    }
}

static double at(const sm_tensor *t, const int64_t *idx) { return ((const float *)t->data)[ref_broadcast(t, t->rank, idx)]; }
static double at4(const sm_tensor *t, int64_t n, int64_t y, int64_t x, int64_t ch)
{
    return ((const float *)t->data)[((n * t->dims[1] + y) * t->dims[2] + x) * t->dims[3] + ch];
}

static double permuted(const sm_kcall *c, const int64_t *idx)
{
    int64_t in[SM_MAX_DIMS];
    for (int d = 0; d < c->dst.rank; d++)
        in[c->node->p.perm.perm[d]] = idx[d];
    return at(&c->src[0], in);
}

static double concatenated(const sm_kcall *c, const int64_t *idx)
{
    int64_t in[SM_MAX_DIMS];
    int axis = c->node->p.axis.axis, s = 0;
    memcpy(in, idx, sizeof in);
    for (; in[axis] >= c->src[s].dims[axis]; s++)
        in[axis] -= c->src[s].dims[axis];
    return at(&c->src[s], in);
}

static double sliced(const sm_kcall *c, const int64_t *idx)
{
    int64_t in[SM_MAX_DIMS];
    memcpy(in, idx, sizeof in);
    in[c->node->p.slice.axis] += c->node->p.slice.start;
    return at(&c->src[0], in);
}

static double padded(const sm_kcall *c, const int64_t *idx)
{
    int64_t in[SM_MAX_DIMS];
    int axis = c->node->p.slice.axis;
    memcpy(in, idx, sizeof in);
    in[axis] -= c->node->p.slice.start;
    return in[axis] >= 0 && in[axis] < c->src[0].dims[axis] ? at(&c->src[0], in) : 0;
}

static double expanded(const sm_kcall *c, const int64_t *idx)
{
    return ref_f32(c, 0)[ref_broadcast(&c->src[0], c->dst.rank, idx)];
}

/* An id outside the table gives NaN: visible, and nothing is read. */
static double gathered(const sm_kcall *c, const int64_t *idx)
{
    const sm_tensor *table = &c->src[0], *ids = &c->src[1];
    int64_t id = ((const int32_t *)ids->data)[ref_broadcast(ids, ids->rank, idx)];
    return id < 0 || id >= table->dims[0] ? NAN : sm_load_f32(table, id * table->dims[1] + idx[c->dst.rank - 1]);
}

static double scattered(const sm_kcall *c, const int64_t *idx)
{
    const int32_t *ids = c->src[1].data;
    int64_t n = ref_numel(&c->src[1]), w = c->dst.dims[1];
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        if (ids[i] == idx[0])
            s += ref_f32(c, 0)[i * w + idx[1]];
    return s;
}

/* Source position of output i along an axis of sizes in -> out. */
static int64_t nearest(int64_t i, int64_t in, int64_t out) { return i * in / out; }

/* The two source positions of output i and the weight of the second; half-pixel centres, clamped. */
static double between(int64_t i, int64_t in, int64_t out, int64_t *lo, int64_t *hi)
{
    float f = ((float)i + 0.5f) * ((float)in / (float)out) - 0.5f; /* in f32, as the models' reference has it */
    f = f < 0 ? 0 : f;
    *lo = SM_MIN((int64_t)f, in - 1);
    *hi = SM_MIN(*lo + 1, in - 1);
    return (double)(f - (float)*lo);
}

static double nearest_value(const sm_kcall *c, const int64_t *i)
{
    const sm_tensor *x = &c->src[0];
    return at4(x, i[0], nearest(i[1], x->dims[1], c->dst.dims[1]), nearest(i[2], x->dims[2], c->dst.dims[2]), i[3]);
}

static double nearest_adjoint(const sm_kcall *c, const int64_t *i)
{
    const sm_tensor *dy = &c->src[0];
    double s = 0;
    for (int64_t y = 0; y < dy->dims[1]; y++)
        for (int64_t x = 0; x < dy->dims[2]; x++)
            if (nearest(y, c->dst.dims[1], dy->dims[1]) == i[1] && nearest(x, c->dst.dims[2], dy->dims[2]) == i[2])
                s += at4(dy, i[0], y, x, i[3]);
    return s;
}

static double bilinear_value(const sm_kcall *c, const int64_t *i)
{
    const sm_tensor *s = &c->src[0];
    int64_t y0, y1, x0, x1;
    double fy = between(i[1], s->dims[1], c->dst.dims[1], &y0, &y1), fx = between(i[2], s->dims[2], c->dst.dims[2], &x0, &x1);
    double top = at4(s, i[0], y0, x0, i[3]) * (1 - fx) + at4(s, i[0], y0, x1, i[3]) * fx;
    double bottom = at4(s, i[0], y1, x0, i[3]) * (1 - fx) + at4(s, i[0], y1, x1, i[3]) * fx;
    return top * (1 - fy) + bottom * fy;
}

/* Weight with which source position k goes into output i. */
static double share(int64_t k, int64_t i, int64_t in, int64_t out)
{
    int64_t lo, hi;
    double f = between(i, in, out, &lo, &hi);
    return (lo == k ? 1 - f : 0) + (hi == k ? f : 0);
}

static double bilinear_adjoint(const sm_kcall *c, const int64_t *i)
{
    const sm_tensor *dy = &c->src[0];
    double s = 0;
    for (int64_t y = 0; y < dy->dims[1]; y++) {
        double wy = share(i[1], y, c->dst.dims[1], dy->dims[1]);
        for (int64_t x = 0; wy != 0 && x < dy->dims[2]; x++)
            s += wy * share(i[2], x, c->dst.dims[2], dy->dims[2]) * at4(dy, i[0], y, x, i[3]);
    }
    return s;
}

/* The window of output position o, cut to the input: [*a, *b). */
static void window(const sm_kcall *c, int axis, int64_t o, int64_t *a, int64_t *b)
{
    int64_t s = o * c->node->p.pool.stride[axis] - c->node->p.pool.pad[axis];
    *a = SM_MAX(s, 0);
    *b = SM_MIN(s + c->node->p.pool.kernel[axis], c->src[0].dims[1 + axis]);
}

static double pool_size(const sm_kcall *c) { return (double)c->node->p.pool.kernel[0] * c->node->p.pool.kernel[1]; }

static double averaged(const sm_kcall *c, const int64_t *i)
{
    int64_t ya, yb, xa, xb;
    double s = 0;
    window(c, 0, i[1], &ya, &yb);
    window(c, 1, i[2], &xa, &xb);
    for (int64_t y = ya; y < yb; y++)
        for (int64_t x = xa; x < xb; x++)
            s += at4(&c->src[0], i[0], y, x, i[3]);
    return s / pool_size(c);
}

/* Position (y * width + x) of the first maximum of output (oy, ox)'s window. */
static int64_t argmax(const sm_kcall *c, int64_t n, int64_t oy, int64_t ox, int64_t ch)
{
    int64_t ya, yb, xa, xb, best;
    window(c, 0, oy, &ya, &yb);
    window(c, 1, ox, &xa, &xb);
    best = ya * c->src[0].dims[2] + xa;
    double max = -INFINITY;
    for (int64_t y = ya; y < yb; y++)
        for (int64_t x = xa; x < xb; x++) {
            double v = at4(&c->src[0], n, y, x, ch);
            if (v > max) {
                max = v;
                best = y * c->src[0].dims[2] + x;
            }
        }
    return best;
}

static double maximum(const sm_kcall *c, const int64_t *i)
{
    int64_t k = argmax(c, i[0], i[1], i[2], i[3]), w = c->src[0].dims[2];
    return at4(&c->src[0], i[0], k / w, k % w, i[3]);
}

/* Sum over the outputs whose window holds input (y, x): all of dy for the average, dy of the windows it is the maximum of. */
static double pool_adjoint(const sm_kcall *c, const int64_t *i)
{
    const sm_tensor *dy = &c->src[1];
    bool max = c->node->op == SM_OP_MAX_POOL_DX;
    double s = 0;
    for (int64_t oy = 0; oy < dy->dims[1]; oy++)
        for (int64_t ox = 0; ox < dy->dims[2]; ox++) {
            int64_t ya, yb, xa, xb;
            window(c, 0, oy, &ya, &yb);
            window(c, 1, ox, &xa, &xb);
            if (i[1] < ya || i[1] >= yb || i[2] < xa || i[2] >= xb)
                continue;
            if (!max)
                s += at4(dy, i[0], oy, ox, i[3]) / pool_size(c);
            else if (argmax(c, i[0], oy, ox, i[3]) == i[1] * c->src[0].dims[2] + i[2])
                s += at4(dy, i[0], oy, ox, i[3]);
        }
    return s;
}

#define RUN(name, value) \
    static void run_##name(const sm_kcall *c, int task, int tasks) { each(c, task, tasks, value); }
RUN(permute, permuted)
RUN(concat, concatenated)
RUN(slice, sliced)
RUN(pad, padded)
RUN(expand, expanded)
RUN(gather, gathered)
RUN(scatter_add, scattered)
RUN(resize_nearest, nearest_value)
RUN(resize_nearest_dx, nearest_adjoint)
RUN(resize_bilinear, bilinear_value)
RUN(resize_bilinear_dx, bilinear_adjoint)
RUN(avg_pool, averaged)
RUN(max_pool, maximum)
RUN(pool_dx, pool_adjoint)

/* The planner makes reshapes views; as a kernel it is a copy. */
static void run_reshape(const sm_kcall *c, int task, int tasks)
{
    size_t w = sm_dtype_size(c->dst.dtype);
    int64_t a, b;
    sm_range(ref_numel(&c->dst), task, tasks, &a, &b);
    memmove((char *)c->dst.data + (size_t)a * w, (const char *)c->src[0].data + (size_t)a * w, (size_t)(b - a) * w);
}

void sm_cpu_move_scalar(sm_kernel *k)
{
    k[SM_OP_RESHAPE] = (sm_kernel){.run = run_reshape, .inplace = true};
    k[SM_OP_PERMUTE] = (sm_kernel){.run = run_permute};
    k[SM_OP_CONCAT] = (sm_kernel){.run = run_concat};
    k[SM_OP_SLICE] = (sm_kernel){.run = run_slice};
    k[SM_OP_PAD] = (sm_kernel){.run = run_pad};
    k[SM_OP_EXPAND] = (sm_kernel){.run = run_expand};
    k[SM_OP_GATHER] = (sm_kernel){.run = run_gather};
    k[SM_OP_SCATTER_ADD] = (sm_kernel){.run = run_scatter_add};
    k[SM_OP_RESIZE_NEAREST] = (sm_kernel){.run = run_resize_nearest};
    k[SM_OP_RESIZE_NEAREST_DX] = (sm_kernel){.run = run_resize_nearest_dx};
    k[SM_OP_RESIZE_BILINEAR] = (sm_kernel){.run = run_resize_bilinear};
    k[SM_OP_RESIZE_BILINEAR_DX] = (sm_kernel){.run = run_resize_bilinear_dx};
    k[SM_OP_AVG_POOL] = (sm_kernel){.run = run_avg_pool};
    k[SM_OP_AVG_POOL_DX] = (sm_kernel){.run = run_pool_dx};
    k[SM_OP_MAX_POOL] = (sm_kernel){.run = run_max_pool};
    k[SM_OP_MAX_POOL_DX] = (sm_kernel){.run = run_pool_dx};
}
