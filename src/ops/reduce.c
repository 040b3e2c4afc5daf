/* Reductions and losses: rules, record functions, composites. */
#include "ops/rules.h"

#include <string.h>

sm_node *sm_sum(sm_node *x, int axis) { return SM_REC(SM_OP_SUM, &((sm_param){.axis = {axis}}), x); }

sm_node *sm_sum_to(sm_node *x, int rank, const int64_t *dims)
{
    sm_param p = {.shape = {.rank = rank}};
    if (rank < 0 || rank > SM_MAX_DIMS)
        return sm_graph_fail(x->g, "sum_to: %d dimensions", rank);
    memcpy(p.shape.dims, dims, sizeof *dims * (size_t)rank);
    return SM_REC(SM_OP_SUM_TO, &p, x);
}

sm_node *sm_sum_all(sm_node *x) { return sm_sum(SM_RESHAPE(x, sm_numel(x)), 0); }
sm_node *sm_mean_all(sm_node *x) { return sm_affine(sm_sum_all(x), 1 / (float)sm_numel(x), 0); }
sm_node *sm_mse(sm_node *a, sm_node *b) { return sm_mean_all(sm_unary(SM_OP_SQUARE, sm_sub(a, b))); }
sm_node *sm_l1(sm_node *a, sm_node *b) { return sm_mean_all(sm_unary(SM_OP_ABS, sm_sub(a, b))); }

sm_node *sm_huber(sm_node *a, sm_node *b, float c)
{
    sm_node *d2 = sm_unary(SM_OP_SQUARE, sm_sub(a, b));
    return sm_affine(sm_mean_all(sm_unary(SM_OP_SQRT, sm_affine(d2, 1, c * c))), 1, -c);
}

bool shape_sum(sm_node *n)
{
    int axis = sm_want_axis(n, n->p.axis.axis, n->src[0]->rank);
    if (axis < 0)
        return false;
    n->p.axis.axis = axis;
    sm_take_shape(n, n->src[0]);
    n->dims[axis] = 1;
    return sm_want_f32(n, 0);
}

bool shape_sum_to(sm_node *n)
{
    const sm_node *x = n->src[0];
    char s[96], t[96];
    n->rank = n->p.shape.rank;
    memcpy(n->dims, n->p.shape.dims, sizeof n->dims[0] * (size_t)n->rank);
    bool ok = n->rank <= x->rank;
    for (int i = 1; ok && i <= n->rank; i++)
        ok = n->dims[n->rank - i] == x->dims[x->rank - i] || n->dims[n->rank - i] == 1;
    return (ok || sm_node_fail(n, "%s does not sum to %s", sm_dims_str(x, s), sm_dims_str(n, t))) && sm_want_f32(n, 0);
}

sm_node *grad_sum(sm_node *n, int i, sm_node *dy) { return sm_expand(dy, n->src[0]->rank, n->src[0]->dims); }
sm_node *grad_sum_to(sm_node *n, int i, sm_node *dy) { return sm_expand(dy, n->src[0]->rank, n->src[0]->dims); }
