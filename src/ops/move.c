/* Ops that move data without arithmetic, and those that resample it: rules and record functions. */
#include "ops/rules.h"

#include <string.h>

sm_node *sm_reshape(sm_node *x, int rank, const int64_t *dims)
{
    sm_param p = {.shape = {.rank = rank}};
    if (rank < 0 || rank > SM_MAX_DIMS)
        return sm_graph_fail(x->g, "reshape: to %d dimensions", rank);
    memcpy(p.shape.dims, dims, sizeof *dims * (size_t)rank);
    return SM_REC(SM_OP_RESHAPE, &p, x);
}

sm_node *sm_permute(sm_node *x, const int *perm)
{
    sm_param p = {0};
    memcpy(p.perm.perm, perm, sizeof *perm * (size_t)x->rank);
    return SM_REC(SM_OP_PERMUTE, &p, x);
}

sm_node *sm_concat(int n, sm_node *const *x, int axis) { return sm_rec(SM_OP_CONCAT, n, x, &((sm_param){.axis = {axis}})); }
sm_node *sm_concat2(sm_node *a, sm_node *b, int axis) { return sm_concat(2, (sm_node *[]){a, b}, axis); }

sm_node *sm_slice(sm_node *x, int axis, int64_t start, int64_t len)
{
    return SM_REC(SM_OP_SLICE, &((sm_param){.slice = {axis, start, len}}), x);
}

sm_node *sm_pad(sm_node *x, int axis, int64_t before, int64_t after)
{
    return SM_REC(SM_OP_PAD, &((sm_param){.slice = {axis, before, after}}), x);
}

sm_node *sm_expand(sm_node *x, int rank, const int64_t *dims)
{
    sm_param p = {.shape = {.rank = rank}};
    if (rank < 0 || rank > SM_MAX_DIMS)
        return sm_graph_fail(x->g, "expand: to %d dimensions", rank);
    memcpy(p.shape.dims, dims, sizeof *dims * (size_t)rank);
    return SM_REC(SM_OP_EXPAND, &p, x);
}

sm_node *sm_gather(sm_node *table, sm_node *ids) { return SM_REC(SM_OP_GATHER, NULL, table, ids); }

sm_node *sm_pixel_shuffle(sm_node *x, int r)
{
    int64_t n = x->dims[0], h = x->dims[1], w = x->dims[2], c = r > 0 ? x->dims[3] / ((int64_t)r * r) : 0;
    if (x->rank != 4 || c < 1 || c * r * r != x->dims[3])
        return sm_graph_fail(x->g, "pixel_shuffle: channels do not divide by %d squared", r);
    sm_node *y = SM_PERMUTE(SM_RESHAPE(x, n, h, w, c, r, r), 0, 1, 4, 2, 5, 3);
    return SM_RESHAPE(y, n, h * r, w * r, c);
}

sm_node *sm_pixel_unshuffle(sm_node *x, int r)
{
    int64_t n = x->dims[0], h = x->dims[1], w = x->dims[2], c = x->dims[3];
    if (x->rank != 4 || r < 1 || h % r || w % r)
        return sm_graph_fail(x->g, "pixel_unshuffle: size does not divide by %d", r);
    sm_node *y = SM_PERMUTE(SM_RESHAPE(x, n, h / r, r, w / r, r, c), 0, 1, 3, 5, 2, 4);
    return SM_RESHAPE(y, n, h / r, w / r, c * r * r);
}

sm_node *sm_resize_nearest(sm_node *x, int h, int w)
{
    return SM_REC(SM_OP_RESIZE_NEAREST, &((sm_param){.resize = {{h, w}}}), x);
}
sm_node *sm_resize_bilinear(sm_node *x, int h, int w)
{
    return SM_REC(SM_OP_RESIZE_BILINEAR, &((sm_param){.resize = {{h, w}}}), x);
}

static sm_param pool_param(int kernel, int stride, int pad)
{
    return (sm_param){.pool = {{kernel, kernel}, {stride, stride}, {pad, pad}}};
}

sm_node *sm_avg_pool(sm_node *x, int kernel, int stride, int pad)
{
    sm_param p = pool_param(kernel, stride, pad);
    return SM_REC(SM_OP_AVG_POOL, &p, x);
}

sm_node *sm_max_pool(sm_node *x, int kernel, int stride, int pad)
{
    sm_param p = pool_param(kernel, stride, pad);
    return SM_REC(SM_OP_MAX_POOL, &p, x);
}

/* ---- shapes ---- */

bool shape_reshape(sm_node *n)
{
    const sm_node *x = n->src[0];
    char s[96];
    int64_t known = 1;
    int hole = -1;
    n->rank = n->p.shape.rank;
    n->dtype = x->dtype;
    for (int i = 0; i < n->rank; i++) {
        n->dims[i] = n->p.shape.dims[i];
        if (n->dims[i] == -1 && hole < 0)
            hole = i;
        else if (n->dims[i] < 1 || __builtin_mul_overflow(known, n->dims[i], &known))
            return sm_node_fail(n, "%s to an invalid shape", sm_dims_str(x, s));
    }
    if (hole >= 0) {
        n->dims[hole] = sm_numel(x) / known;
        known *= n->dims[hole];
    }
    if (known != sm_numel(x)) {
        char t[96];
        return sm_node_fail(n, "%s has not as many elements as %s", sm_dims_str(x, s), sm_dims_str(n, t));
    }
    return true;
}

bool shape_permute(sm_node *n)
{
    const sm_node *x = n->src[0];
    unsigned seen = 0;
    n->rank = x->rank;
    for (int i = 0; i < x->rank; i++) {
        int p = n->p.perm.perm[i];
        if (p < 0 || p >= x->rank || seen >> p & 1)
            return sm_node_fail(n, "dimension %d twice or out of range", p);
        seen |= 1u << p;
        n->dims[i] = x->dims[p];
    }
    return sm_want_f32(n, 0);
}

bool shape_concat(sm_node *n)
{
    char s[96], t[96];
    int axis = sm_want_axis(n, n->p.axis.axis, n->src[0]->rank);
    if (axis < 0)
        return false;
    n->p.axis.axis = axis;
    sm_take_shape(n, n->src[0]);
    for (int i = 1; i < n->nsrc; i++) {
        const sm_node *x = n->src[i];
        if (!x || x->rank != n->rank)
            return sm_node_fail(n, "source %d is missing or has another number of dimensions", i);
        for (int d = 0; d < n->rank; d++)
            if (d != axis && x->dims[d] != n->dims[d])
                return sm_node_fail(n, "%s and %s differ outside axis %d", sm_dims_str(n->src[0], s), sm_dims_str(x, t), axis);
        n->dims[axis] += x->dims[axis];
    }
    return sm_want_f32(n, 0);
}

bool shape_slice(sm_node *n)
{
    const sm_node *x = n->src[0];
    int axis = sm_want_axis(n, n->p.slice.axis, x->rank);
    if (axis < 0)
        return false;
    n->p.slice.axis = axis;
    sm_take_shape(n, x);
    int64_t start = n->p.slice.start, len = n->p.slice.len;
    if (start < 0 || len < 1 || start > x->dims[axis] - len)
        return sm_node_fail(n, "[%lld, %lld + %lld) of %lld", (long long)start, (long long)start, (long long)len,
                            (long long)x->dims[axis]);
    n->dims[axis] = len;
    return sm_want_f32(n, 0);
}

bool shape_pad(sm_node *n)
{
    const sm_node *x = n->src[0];
    int axis = sm_want_axis(n, n->p.slice.axis, x->rank);
    if (axis < 0)
        return false;
    n->p.slice.axis = axis;
    sm_take_shape(n, x);
    if (n->p.slice.start < 0 || n->p.slice.len < 0)
        return sm_node_fail(n, "by %lld and %lld", (long long)n->p.slice.start, (long long)n->p.slice.len);
    n->dims[axis] += n->p.slice.start + n->p.slice.len;
    return sm_want_f32(n, 0);
}

/* to broadcasts from x: aligned at the last dimension, sizes equal or 1 */
static bool broadcasts(const sm_node *x, int rank, const int64_t *to)
{
    bool ok = rank >= x->rank && rank <= SM_MAX_DIMS;
    for (int i = 1; ok && i <= x->rank; i++)
        ok = x->dims[x->rank - i] == to[rank - i] || x->dims[x->rank - i] == 1;
    return ok;
}

bool shape_expand(sm_node *n)
{
    char s[96], t[96];
    n->rank = n->p.shape.rank;
    memcpy(n->dims, n->p.shape.dims, sizeof n->dims[0] * (size_t)n->rank);
    if (!broadcasts(n->src[0], n->rank, n->dims))
        return sm_node_fail(n, "%s does not broadcast to %s", sm_dims_str(n->src[0], s), sm_dims_str(n, t));
    return sm_want_f32(n, 0);
}

bool shape_gather(sm_node *n)
{
    const sm_node *table = n->src[0], *ids = n->src[1];
    char s[96];
    if (!sm_want_rank(n, 0, 2))
        return false;
    if (ids->dtype != SM_I32 || ids->rank >= SM_MAX_DIMS || table->dtype == SM_I32)
        return sm_node_fail(n, "ids %s must be i32, the table of a float type", sm_dims_str(ids, s));
    sm_take_shape(n, ids);
    n->dims[n->rank++] = table->dims[1];
    return true;
}

bool shape_scatter_add(sm_node *n)
{
    const sm_node *dy = n->src[0], *ids = n->src[1];
    if (dy->rank != ids->rank + 1 || ids->dtype != SM_I32 || dy->dtype != SM_F32)
        return sm_node_fail(n, "rows and ids do not fit");
    n->rank = 2;
    n->dims[0] = n->p.slice.len;
    n->dims[1] = dy->dims[dy->rank - 1];
    return true;
}

bool shape_resize(sm_node *n)
{
    if (!sm_want_rank(n, 0, 4))
        return false;
    sm_take_shape(n, n->src[0]);
    n->dims[1] = n->p.resize.size[0];
    n->dims[2] = n->p.resize.size[1];
    return sm_want_f32(n, 0);
}

bool shape_pool(sm_node *n)
{
    const sm_node *x = n->src[0];
    if (!sm_want_rank(n, 0, 4))
        return false;
    sm_take_shape(n, x);
    for (int i = 0; i < 2; i++) {
        int k = n->p.pool.kernel[i], s = n->p.pool.stride[i], pad = n->p.pool.pad[i];
        if (k < 1 || s < 1 || pad < 0 || pad * 2 > k || x->dims[1 + i] + 2 * pad < k)
            return sm_node_fail(n, "kernel %d, stride %d, padding %d on size %lld", k, s, pad, (long long)x->dims[1 + i]);
        n->dims[1 + i] = (x->dims[1 + i] + 2 * pad - k) / s + 1;
    }
    return sm_want_f32(n, 0);
}

bool shape_pool_dx(sm_node *n)
{
    if (!sm_want_rank(n, 0, 4) || !sm_want_rank(n, 1, 4))
        return false;
    sm_take_shape(n, n->src[0]);
    return sm_want_f32(n, 0);
}

/* ---- gradients ---- */

sm_node *grad_reshape(sm_node *n, int i, sm_node *dy) { return sm_reshape(dy, n->src[0]->rank, n->src[0]->dims); }

sm_node *grad_permute(sm_node *n, int i, sm_node *dy)
{
    int inv[SM_MAX_DIMS] = {0};
    for (int d = 0; d < n->rank; d++)
        inv[n->p.perm.perm[d]] = d;
    return sm_permute(dy, inv);
}

sm_node *grad_concat(sm_node *n, int i, sm_node *dy)
{
    int axis = n->p.axis.axis;
    int64_t start = 0;
    for (int k = 0; k < i; k++)
        start += n->src[k]->dims[axis];
    return sm_slice(dy, axis, start, n->src[i]->dims[axis]);
}

sm_node *grad_slice(sm_node *n, int i, sm_node *dy)
{
    int axis = n->p.slice.axis;
    int64_t after = n->src[0]->dims[axis] - n->p.slice.start - n->p.slice.len;
    return sm_pad(dy, axis, n->p.slice.start, after);
}

sm_node *grad_pad(sm_node *n, int i, sm_node *dy)
{
    int axis = n->p.slice.axis;
    return sm_slice(dy, axis, n->p.slice.start, n->src[0]->dims[axis]);
}

sm_node *grad_expand(sm_node *n, int i, sm_node *dy) { return sm_sum_to(dy, n->src[0]->rank, n->src[0]->dims); }

sm_node *grad_gather(sm_node *n, int i, sm_node *dy)
{
    sm_param p = {.slice = {.len = n->src[0]->dims[0]}};
    return i ? NULL : SM_REC(SM_OP_SCATTER_ADD, &p, dy, n->src[1]);
}

static sm_node *resize_grad(sm_node *n, sm_op_id op, sm_node *dy)
{
    sm_param p = {.resize = {{(int)n->src[0]->dims[1], (int)n->src[0]->dims[2]}}};
    return SM_REC(op, &p, dy);
}

sm_node *grad_resize_nearest(sm_node *n, int i, sm_node *dy) { return resize_grad(n, SM_OP_RESIZE_NEAREST_DX, dy); }
sm_node *grad_resize_bilinear(sm_node *n, int i, sm_node *dy) { return resize_grad(n, SM_OP_RESIZE_BILINEAR_DX, dy); }
sm_node *grad_avg_pool(sm_node *n, int i, sm_node *dy) { return SM_REC(SM_OP_AVG_POOL_DX, &n->p, n->src[0], dy); }
sm_node *grad_max_pool(sm_node *n, int i, sm_node *dy) { return SM_REC(SM_OP_MAX_POOL_DX, &n->p, n->src[0], dy); }
