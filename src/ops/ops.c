/* The op table, made from ops.def, and what the families share. */
#include "ops/rules.h"

#include <string.h>

const sm_op_row sm_ops[SM_OP_COUNT] = {
#define OP(ID, NAME, MIN, MAX, SHAPE, GRAD, COST, ATOL, C, LO, HI) \
    [SM_OP_##ID] = {#NAME, MIN, MAX, shape_##SHAPE, grad_##GRAD, cost_##COST, ATOL, C, LO, HI},
#include "ops/ops.def"
#undef OP
};

void sm_take_shape(sm_node *n, const sm_node *from)
{
    n->rank = from->rank;
    memcpy(n->dims, from->dims, sizeof n->dims);
}

bool sm_want_f32(sm_node *n, unsigned weights)
{
    for (int i = 0; i < n->nsrc; i++)
        if (n->src[i] && n->src[i]->dtype != SM_F32 && (n->src[i]->dtype == SM_I32 || !(weights >> i & 1)))
            return sm_node_fail(n, "source %d is %s, must be %s", i, sm_dtype_name(n->src[i]->dtype),
                                weights >> i & 1 ? "a type of weights" : "f32");
    return true;
}

bool sm_want_rank(sm_node *n, int i, int rank)
{
    char s[96];
    if (n->src[i]->rank != rank)
        return sm_node_fail(n, "source %d has shape %s, must have %d dimensions", i, sm_dims_str(n->src[i], s), rank);
    return true;
}

bool sm_want_vector(sm_node *n, int i, int64_t len)
{
    char s[96];
    const sm_node *v = i < n->nsrc ? n->src[i] : NULL;
    if (v && (v->rank != 1 || v->dims[0] != len))
        return sm_node_fail(n, "source %d has shape %s, must be [%lld]", i, sm_dims_str(v, s), (long long)len);
    return true;
}

int sm_want_axis(sm_node *n, int axis, int rank)
{
    if (axis < -rank || axis >= rank) {
        sm_node_fail(n, "axis %d of %d dimensions", axis, rank);
        return -1;
    }
    return axis < 0 ? axis + rank : axis;
}

bool shape_leaf(sm_node *n) { return sm_node_fail(n, "leaves are not recorded as operations"); }

bool shape_same(sm_node *n)
{
    sm_take_shape(n, n->src[0]);
    return sm_want_f32(n, 0);
}

bool shape_same2(sm_node *n)
{
    char a[96], b[96];
    sm_take_shape(n, n->src[0]);
    if (!sm_same_shape(n->src[0], n->src[1]))
        return sm_node_fail(n, "shapes %s and %s differ", sm_dims_str(n->src[0], a), sm_dims_str(n->src[1], b));
    return sm_want_f32(n, 4); /* a norm's weight may be the third */
}

double sm_io_bytes(const sm_node *n)
{
    double b = (double)sm_numel(n) * 4;
    for (int i = 0; i < n->nsrc; i++)
        if (n->src[i])
            b += (double)sm_dtype_bytes(n->src[i]->dtype, sm_numel(n->src[i]));
    return b;
}

sm_cost cost_zero(const sm_node *n) { return (sm_cost){0, 0}; }
sm_cost cost_elementwise(const sm_node *n) { return (sm_cost){(double)sm_numel(n), sm_io_bytes(n)}; }
sm_cost cost_move(const sm_node *n) { return (sm_cost){0, sm_io_bytes(n)}; }
sm_cost cost_reduce(const sm_node *n) { return (sm_cost){(double)sm_numel(n->src[0]), sm_io_bytes(n)}; }
sm_cost cost_norm(const sm_node *n) { return (sm_cost){8 * (double)sm_numel(n->src[0]), sm_io_bytes(n)}; }
