/* Ops that move data (rows are copied whole, transposes go tile by tile) and those that resample channels-last pictures
 * (vectors of channels; the adjoints gather, one task per destination row, so nothing is added by two tasks). */
#include "cpu/cpu.h"
#include "cpu/simd.h"

#include <math.h>

/* A strided copy: y dense with these dimensions (outermost first), x with these strides. Regular neighbours are joined. */
typedef struct copy { int n; int64_t dims[SM_MAX_DIMS], stride[SM_MAX_DIMS]; } copy;

static copy copy_of(int rank, const int64_t *dims, const int64_t *stride)
{
    copy c = {0};
    for (int d = 0; d < rank; d++) {
        if (dims[d] == 1)
            continue;
        if (c.n && c.stride[c.n - 1] == stride[d] * dims[d]) {
            c.dims[c.n - 1] *= dims[d];
            c.stride[c.n - 1] = stride[d];
        } else {
            c.dims[c.n] = dims[d];
            c.stride[c.n++] = stride[d];
        }
    }
    if (!c.n) {
        c.dims[0] = 1;
        c.stride[c.n++] = 1;
    }
    return c;
}

static inline int64_t offset_of(const copy *c, int dims, int64_t i)
{
    int64_t at = 0;
    for (int d = dims - 1; d >= 0; d--) {
        at += i % c->dims[d] * c->stride[d];
        i /= c->dims[d];
    }
    return at;
}

/* Rows along the last dimension: contiguous, constant, or strided. */
static void copy_rows(const copy *c, const float *x, float *y, int task, int tasks)
{
    int64_t len = c->dims[c->n - 1], step = c->stride[c->n - 1], total = len, from, to;
    for (int d = 0; d < c->n - 1; d++)
        total *= c->dims[d];
    sm_range(total, task, tasks, &from, &to);
    for (int64_t i = from; i < to;) {
        int64_t in = i % len, n = SM_MIN(len - in, to - i);
        const float *p = x + offset_of(c, c->n - 1, i / len) + in * step;
        if (step == 1)
            memcpy(y + i, p, sizeof *y * (size_t)n);
        else
            for (int64_t j = 0; j < n; j++)
                y[i + j] = p[j * step];
        i += n;
    }
}

/* The source is contiguous along dimension u < last: 16x16 tiles over (u, last), everything else outside. */
static void copy_tiles(const copy *c, int u, const float *x, float *y, int task, int tasks)
{
    int last = c->n - 1;
    int64_t rows = c->dims[u], cols = c->dims[last], tr = (rows + 15) / 16, tc = (cols + 15) / 16;
    int64_t ys = 1, count = tr * tc, from, to;
    copy rest = {0};
    int64_t ystride[SM_MAX_DIMS] = {0}, at = 1;
    for (int d = last; d >= 0; d--) {
        ystride[d] = at;
        at *= c->dims[d];
    }
    ys = ystride[u];
    int64_t rest_y[SM_MAX_DIMS];
    for (int d = 0; d < last; d++)
        if (d != u) {
            rest.dims[rest.n] = c->dims[d];
            rest_y[rest.n] = ystride[d];
            rest.stride[rest.n++] = c->stride[d];
            count *= c->dims[d];
        }
    copy dest = rest;
    memcpy(dest.stride, rest_y, sizeof rest_y);
    sm_range(count, task, tasks, &from, &to);
    for (int64_t i = from; i < to; i++) {
        int64_t r = i / tc % tr * 16, j = i % tc * 16, o = i / tc / tr;
        sm_transpose(x + offset_of(&rest, rest.n, o) + r + j * c->stride[last], c->stride[last],
                     y + offset_of(&dest, dest.n, o) + r * ys + j, ys, SM_MIN(rows - r, 16), SM_MIN(cols - j, 16));
    }
}

static void run_copy(const copy *c, const float *x, float *y, int task, int tasks)
{
    int last = c->n - 1;
    if (c->stride[last] > 1)
        for (int d = 0; d < last; d++)
            if (c->stride[d] == 1) {
                copy_tiles(c, d, x, y, task, tasks);
                return;
            }
    copy_rows(c, x, y, task, tasks);
}

static void dense_strides(const sm_tensor *t, int64_t *stride)
{
    int64_t at = 1;
    for (int d = t->rank - 1; d >= 0; d--) {
        stride[d] = at;
        at *= t->dims[d];
    }
}

static void run_permute(const sm_kcall *c, int task, int tasks)
{
    int64_t in[SM_MAX_DIMS], stride[SM_MAX_DIMS];
    dense_strides(&c->src[0], in);
    for (int d = 0; d < c->dst.rank; d++)
        stride[d] = in[c->node->p.perm.perm[d]];
    copy p = copy_of(c->dst.rank, c->dst.dims, stride);
    run_copy(&p, c->src[0].data, c->dst.data, task, tasks);
}

static void run_slice(const sm_kcall *c, int task, int tasks)
{
    int64_t stride[SM_MAX_DIMS];
    dense_strides(&c->src[0], stride);
    copy p = copy_of(c->dst.rank, c->dst.dims, stride);
    run_copy(&p, (const float *)c->src[0].data + c->node->p.slice.start * stride[c->node->p.slice.axis],
             c->dst.data, task, tasks);
}

static void run_expand(const sm_kcall *c, int task, int tasks)
{
    const sm_tensor *x = &c->src[0];
    int64_t in[SM_MAX_DIMS], stride[SM_MAX_DIMS];
    int lead = c->dst.rank - x->rank;
    dense_strides(x, in);
    for (int d = 0; d < c->dst.rank; d++)
        stride[d] = d < lead || x->dims[d - lead] == 1 ? 0 : in[d - lead];
    copy p = copy_of(c->dst.rank, c->dst.dims, stride);
    run_copy(&p, x->data, c->dst.data, task, tasks);
}

/* [outer, axis, inner] with the sources one after the other along the axis: runs of axis * inner values. */
static void run_concat(const sm_kcall *c, int task, int tasks)
{
    int axis = c->node->p.axis.axis;
    int64_t inner = 1, outer = 1, from, to;
    for (int d = 0; d < c->dst.rank; d++)
        *(d < axis ? &outer : &inner) *= c->dst.dims[d];
    float *y = c->dst.data;
    sm_range(outer * inner, task, tasks, &from, &to);
    for (int64_t i = from; i < to;) {
        int64_t o = i / inner, in = i % inner, begin = 0;
        for (int s = 0; s < c->nsrc && i < to; s++) {
            int64_t run = inner / c->dst.dims[axis] * c->src[s].dims[axis];
            if (in < begin + run) {
                int64_t n = SM_MIN(begin + run - in, to - i);
                memcpy(y + i, (const float *)c->src[s].data + o * run + in - begin, sizeof *y * (size_t)n);
                i += n;
                in += n;
            }
            begin += run;
        }
    }
}

static void run_pad(const sm_kcall *c, int task, int tasks)
{
    int axis = c->node->p.slice.axis;
    int64_t inner = 1, from, to;
    for (int d = axis + 1; d < c->dst.rank; d++)
        inner *= c->dst.dims[d];
    int64_t before = c->node->p.slice.start * inner, mid = c->src[0].dims[axis] * inner, run = c->dst.dims[axis] * inner;
    float *y = c->dst.data;
    sm_range(sm_numel(c->node), task, tasks, &from, &to);
    for (int64_t i = from; i < to;) {
        int64_t o = i / run, in = i % run, n;
        if (in < before || in >= before + mid) {
            n = SM_MIN((in < before ? before : run) - in, to - i);
            memset(y + i, 0, sizeof *y * (size_t)n);
        } else {
            n = SM_MIN(before + mid - in, to - i);
            memcpy(y + i, (const float *)c->src[0].data + o * mid + in - before, sizeof *y * (size_t)n);
        }
        i += n;
    }
}

static void run_reshape(const sm_kcall *c, int task, int tasks)
{
    size_t w = sm_dtype_size(c->dst.dtype);
    int64_t a, b;
    sm_range(sm_numel(c->node), task, tasks, &a, &b);
    memmove((char *)c->dst.data + (size_t)a * w, (const char *)c->src[0].data + (size_t)a * w, (size_t)(b - a) * w);
}

static void widen_row(const sm_tensor *t, int64_t at, float *y, int64_t n)
{
    const uint16_t *h = t->data;
    int64_t i = 0;
    if (t->dtype > SM_BF16) {
        sm_load_values(t, at, n, y);
        return;
    }
    if (t->dtype == SM_F32)
        memcpy(y, (const float *)t->data + at, sizeof *y * (size_t)n);
    else
        for (; i + SM_VL <= n; i += SM_VL)
            vstore(y + i, t->dtype == SM_F16 ? vload_f16(h + at + i) : vload_bf16(h + at + i));
    for (; t->dtype != SM_F32 && i < n; i++)
        y[i] = sm_load_f32(t, at + i);
}

/* An id outside the table gives NaN: visible, and nothing is read. */
static void run_gather(const sm_kcall *c, int task, int tasks)
{
    const int32_t *ids = c->src[1].data;
    int64_t rows = c->src[0].dims[0], w = c->src[0].dims[1], from, to;
    sm_range(sm_numel(c->node) / w, task, tasks, &from, &to);
    for (int64_t i = from; i < to; i++) {
        float *y = (float *)c->dst.data + i * w;
        if (ids[i] >= 0 && ids[i] < rows)
            widen_row(&c->src[0], ids[i] * w, y, w);
        else
            for (int64_t j = 0; j < w; j++)
                y[j] = NAN;
    }
}

/* y += a * x over n channels */
static inline void add_scaled(float *y, const float *x, float a, int64_t n)
{
    vf va = vset(a);
    int64_t i = 0;
    for (; i + SM_VL <= n; i += SM_VL)
        vstore(y + i, vfma(va, vload(x + i), vload(y + i)));
    if (i < n) {
        int p = (int)(n - i);
        vstore_part(y + i, vfma(va, vload_part(x + i, p, 0), vload_part(y + i, p, 0)), p);
    }
}

/* A task owns rows of the table and walks over all ids, so every row is summed in their order. */
static void run_scatter_add(const sm_kcall *c, int task, int tasks)
{
    const int32_t *ids = c->src[1].data;
    const float *dy = c->src[0].data;
    float *y = c->dst.data;
    int64_t w = c->dst.dims[1], n = 1, from, to;
    for (int d = 0; d < c->src[1].rank; d++)
        n *= c->src[1].dims[d];
    sm_range(c->dst.dims[0], task, tasks, &from, &to);
    memset(y + from * w, 0, sizeof *y * (size_t)((to - from) * w));
    for (int64_t i = 0; i < n; i++)
        if (ids[i] >= from && ids[i] < to)
            add_scaled(y + ids[i] * w, dy + i * w, 1, w);
}

/* ---- pictures [N, H, W, C] ---- */

static inline int64_t nearest(int64_t i, int64_t in, int64_t out) { return i * in / out; }

/* Both source positions of output i and the weight of the second; half-pixel centres, clamped at the edges. */
static inline float between(int64_t i, int64_t in, int64_t out, int64_t *lo, int64_t *hi)
{
    float f = ((float)i + 0.5f) * ((float)in / (float)out) - 0.5f;
    f = f < 0 ? 0 : f;
    *lo = SM_MIN((int64_t)f, in - 1);
    *hi = SM_MIN(*lo + 1, in - 1);
    return f - (float)*lo;
}

/* The share of output rows (n, y) of dst. */
typedef struct rows { int64_t from, to, h, w, ch; } rows;
static rows rows_of(const sm_kcall *c, int task, int tasks)
{
    rows r = {.h = c->dst.dims[1], .w = c->dst.dims[2], .ch = c->dst.dims[3]};
    sm_range(c->dst.dims[0] * r.h, task, tasks, &r.from, &r.to);
    return r;
}

static void run_resize_nearest(const sm_kcall *c, int task, int tasks)
{
    const sm_tensor *x = &c->src[0];
    rows r = rows_of(c, task, tasks);
    for (int64_t i = r.from; i < r.to; i++) {
        const float *in = (const float *)x->data + (i / r.h * x->dims[1] + nearest(i % r.h, x->dims[1], r.h)) * x->dims[2] * r.ch;
        float *y = (float *)c->dst.data + i * r.w * r.ch;
        for (int64_t j = 0; j < r.w; j++)
            memcpy(y + j * r.ch, in + nearest(j, x->dims[2], r.w) * r.ch, sizeof *y * (size_t)r.ch);
    }
}

static void run_resize_nearest_dx(const sm_kcall *c, int task, int tasks)
{
    const sm_tensor *dy = &c->src[0];
    int64_t oh = dy->dims[1], ow = dy->dims[2];
    rows r = rows_of(c, task, tasks);
    for (int64_t i = r.from; i < r.to; i++) {
        float *dx = (float *)c->dst.data + i * r.w * r.ch;
        memset(dx, 0, sizeof *dx * (size_t)(r.w * r.ch));
        for (int64_t y = 0; y < oh; y++)
            for (int64_t x = 0; nearest(y, r.h, oh) == i % r.h && x < ow; x++)
                add_scaled(dx + nearest(x, r.w, ow) * r.ch, (const float *)dy->data + ((i / r.h * oh + y) * ow + x) * r.ch, 1,
                           r.ch);
    }
}

static inline vf lerp(vf a, vf b, vf t) { return vfma(t, b - a, a); }

static void run_resize_bilinear(const sm_kcall *c, int task, int tasks)
{
    const sm_tensor *x = &c->src[0];
    int64_t w = x->dims[2], y0, y1, x0, x1;
    rows r = rows_of(c, task, tasks);
    for (int64_t i = r.from; i < r.to; i++) {
        vf fy = vset(between(i % r.h, x->dims[1], r.h, &y0, &y1));
        const float *top = (const float *)x->data + (i / r.h * x->dims[1] + y0) * w * r.ch, *low = top + (y1 - y0) * w * r.ch;
        for (int64_t j = 0; j < r.w; j++) {
            vf fx = vset(between(j, w, r.w, &x0, &x1));
            float *y = (float *)c->dst.data + (i * r.w + j) * r.ch;
            for (int64_t k = 0; k < r.ch; k += SM_VL) {
                int n = (int)SM_MIN(r.ch - k, SM_VL);
                vf a = lerp(vload_part(top + x0 * r.ch + k, n, 0), vload_part(top + x1 * r.ch + k, n, 0), fx);
                vf b = lerp(vload_part(low + x0 * r.ch + k, n, 0), vload_part(low + x1 * r.ch + k, n, 0), fx);
                vstore_part(y + k, lerp(a, b, fy), n);
            }
        }
    }
}

static void run_resize_bilinear_dx(const sm_kcall *c, int task, int tasks)
{
    const sm_tensor *g = &c->src[0];
    int64_t oh = g->dims[1], ow = g->dims[2], y0, y1, x0, x1;
    rows r = rows_of(c, task, tasks);
    for (int64_t i = r.from; i < r.to; i++) {
        float *dx = (float *)c->dst.data + i * r.w * r.ch;
        memset(dx, 0, sizeof *dx * (size_t)(r.w * r.ch));
        for (int64_t y = 0; y < oh; y++) {
            float fy = between(y, r.h, oh, &y0, &y1);
            float wy = (y0 == i % r.h ? 1 - fy : 0) + (y1 == i % r.h ? fy : 0);
            const float *in = (const float *)g->data + (i / r.h * oh + y) * ow * r.ch;
            for (int64_t x = 0; wy != 0 && x < ow; x++) {
                float fx = between(x, r.w, ow, &x0, &x1);
                add_scaled(dx + x0 * r.ch, in + x * r.ch, wy * (1 - fx), r.ch);
                add_scaled(dx + x1 * r.ch, in + x * r.ch, wy * fx, r.ch);
            }
        }
    }
}

/* The window of output o along an axis (0 is y), cut to the input: [*a, *b). */
static inline void window(const sm_kcall *c, int axis, int64_t o, int64_t *a, int64_t *b)
{
    int64_t s = o * c->node->p.pool.stride[axis] - c->node->p.pool.pad[axis];
    *a = SM_MAX(s, 0);
    *b = SM_MIN(s + c->node->p.pool.kernel[axis], c->src[0].dims[1 + axis]);
}

static void run_pool(const sm_kcall *c, int task, int tasks)
{
    const sm_tensor *in = &c->src[0];
    bool max = c->node->op == SM_OP_MAX_POOL;
    vf unit = vset(max ? 1 : 1 / (float)(c->node->p.pool.kernel[0] * c->node->p.pool.kernel[1]));
    rows r = rows_of(c, task, tasks);
    for (int64_t i = r.from * r.w; i < r.to * r.w; i++) {
        int64_t ya, yb, xa, xb;
        window(c, 0, i / r.w % r.h, &ya, &yb);
        window(c, 1, i % r.w, &xa, &xb);
        for (int64_t k = 0; k < r.ch; k += SM_VL) {
            int n = (int)SM_MIN(r.ch - k, SM_VL);
            vf s = vset(max ? -INFINITY : 0);
            for (int64_t y = ya; y < yb; y++)
                for (int64_t x = xa; x < xb; x++) {
                    const float *p = (const float *)in->data + ((i / r.w / r.h * in->dims[1] + y) * in->dims[2] + x) * r.ch + k;
                    vf v = vload_part(p, n, 0);
                    s = max ? vmax(v, s) : s + v;
                }
            vstore_part((float *)c->dst.data + i * r.ch + k, s * unit, n);
        }
    }
}

/* Outputs along an axis whose window holds input position p: [*a, *b). */
static inline void holders(const sm_kcall *c, int axis, int64_t p, int64_t *a, int64_t *b)
{
    int64_t s = c->node->p.pool.stride[axis], k = c->node->p.pool.kernel[axis], at = p + c->node->p.pool.pad[axis];
    *a = at < k ? 0 : (at - k) / s + 1;
    *b = SM_MIN(at / s + 1, c->src[1].dims[1 + axis]);
}

/* All ones in the channels where input (y, x) is the first maximum of output (oy, ox)'s window. */
static inline vi is_argmax(const sm_kcall *c, const float *in, int64_t y, int64_t x, int64_t oy, int64_t ox, int n)
{
    int64_t w = c->dst.dims[2], ch = c->dst.dims[3], ya, yb, xa, xb;
    window(c, 0, oy, &ya, &yb);
    window(c, 1, ox, &xa, &xb);
    vf v = vload_part(in + (y * w + x) * ch, n, 0);
    vi yes = viset(-1);
    for (int64_t b = ya; b < yb; b++)
        for (int64_t a = xa; a < xb; a++) {
            vf o = vload_part(in + (b * w + a) * ch, n, 0);
            if (b < y || (b == y && a < x))
                yes &= v > o;
            else if (b != y || a != x)
                yes &= v >= o;
        }
    return yes;
}

static void run_pool_dx(const sm_kcall *c, int task, int tasks)
{
    const float *dy = c->src[1].data;
    bool max = c->node->op == SM_OP_MAX_POOL_DX;
    int64_t oh = c->src[1].dims[1], ow = c->src[1].dims[2], ya, yb, xa, xb;
    vf unit = vset(max ? 1 : 1 / (float)(c->node->p.pool.kernel[0] * c->node->p.pool.kernel[1]));
    rows r = rows_of(c, task, tasks);
    for (int64_t i = r.from * r.w; i < r.to * r.w; i++) {
        int64_t n = i / r.w / r.h, y = i / r.w % r.h, x = i % r.w;
        holders(c, 0, y, &ya, &yb);
        holders(c, 1, x, &xa, &xb);
        for (int64_t k = 0; k < r.ch; k += SM_VL) {
            int part = (int)SM_MIN(r.ch - k, SM_VL);
            const float *in = (const float *)c->src[0].data + n * r.h * r.w * r.ch + k;
            vf s = vset(0);
            for (int64_t oy = ya; oy < yb; oy++)
                for (int64_t ox = xa; ox < xb; ox++) {
                    vf g = vload_part(dy + ((n * oh + oy) * ow + ox) * r.ch + k, part, 0);
                    s += max ? vsel(is_argmax(c, in, y, x, oy, ox, part), g, vset(0)) : g;
                }
            vstore_part((float *)c->dst.data + i * r.ch + k, s * unit, part);
        }
    }
}

void SM_K(sm_cpu_move)(sm_kernel *k)
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
    k[SM_OP_AVG_POOL] = k[SM_OP_MAX_POOL] = (sm_kernel){.run = run_pool};
    k[SM_OP_AVG_POOL_DX] = k[SM_OP_MAX_POOL_DX] = (sm_kernel){.run = run_pool_dx};
}
