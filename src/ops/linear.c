/* linear and matmul: rules and record functions. */
#include "ops/rules.h"

sm_node *sm_linear(sm_node *x, sm_node *w, sm_node *b) { return SM_REC(SM_OP_LINEAR, NULL, x, w, b); }

sm_node *sm_matmul(sm_node *a, sm_node *b, bool ta, bool tb)
{
    return SM_REC(SM_OP_MATMUL, &((sm_param){.matmul = {ta, tb}}), a, b);
}

bool shape_linear(sm_node *n)
{
    const sm_node *x = n->src[0], *w = n->src[1];
    char s[96], t[96];
    if (!sm_want_f32(n, 6) || !sm_want_rank(n, 1, 2))
        return false;
    if (x->rank < 1 || x->dims[x->rank - 1] != w->dims[1])
        return sm_node_fail(n, "input %s does not fit weight %s", sm_dims_str(x, s), sm_dims_str(w, t));
    sm_take_shape(n, x);
    n->dims[n->rank - 1] = w->dims[0];
    return sm_want_vector(n, 2, w->dims[0]);
}

bool shape_matmul(sm_node *n)
{
    const sm_node *a = n->src[0], *b = n->src[1];
    char s[96], t[96];
    int r = a->rank;
    if (!sm_want_f32(n, 0))
        return false;
    bool ok = r >= 2 && b->rank == r;
    for (int i = 0; ok && i < r - 2; i++)
        ok = a->dims[i] == b->dims[i];
    if (!ok || a->dims[r - 1 - n->p.matmul.ta] != b->dims[r - 2 + n->p.matmul.tb])
        return sm_node_fail(n, "%s%s and %s%s do not fit", sm_dims_str(a, s), n->p.matmul.ta ? "^T" : "", sm_dims_str(b, t),
                            n->p.matmul.tb ? "^T" : "");
    sm_take_shape(n, a);
    n->dims[r - 2] = a->dims[r - 2 + n->p.matmul.ta];
    n->dims[r - 1] = b->dims[r - 1 - n->p.matmul.tb];
    return true;
}

/* x as a matrix [rows, last]. */
static sm_node *as_rows(sm_node *x)
{
    int64_t last = x->dims[x->rank - 1];
    return SM_RESHAPE(x, sm_numel(x) / last, last);
}

/* dy w. Stored weights (f16, bf16) go through the adjoint of the 1x1 convolution, which reads every storage type. */
static sm_node *input_grad(sm_node *n, sm_node *dy)
{
    sm_node *x = n->src[0], *w = n->src[1], *rows = as_rows(dy);
    if (w->dtype == SM_F32)
        return sm_reshape(sm_matmul(rows, w, false, false), x->rank, x->dims);
    const sm_param p = {.conv = {.stride = {1, 1}, .dil = {1, 1}, .groups = 1}};
    sm_node *one = SM_RESHAPE(w, w->dims[0], w->dims[1], 1, 1), *y = SM_RESHAPE(rows, 1, 1, rows->dims[0], rows->dims[1]);
    return sm_reshape(sm_conv2d_dx(y, one, NULL, &p, 1, (int)rows->dims[0]), x->rank, x->dims);
}

sm_node *grad_linear(sm_node *n, int i, sm_node *dy)
{
    sm_node *x = n->src[0], *w = n->src[1];
    if (i == 0)
        return input_grad(n, dy);
    if (i == 1)
        return sm_matmul(as_rows(dy), as_rows(x), true, false);
    return sm_sum_to(dy, 1, w->dims);
}

sm_node *grad_matmul(sm_node *n, int i, sm_node *dy)
{
    sm_node *a = n->src[0], *b = n->src[1];
    bool ta = n->p.matmul.ta, tb = n->p.matmul.tb;
    if (i == 0) /* dA = dy B^T; stored transposed: B dy^T */
        return ta ? sm_matmul(b, dy, tb, true) : sm_matmul(dy, b, false, !tb);
    return tb ? sm_matmul(dy, a, true, ta) : sm_matmul(a, dy, !ta, false);
}

sm_cost cost_linear(const sm_node *n)
{
    return (sm_cost){2 * (double)sm_numel(n) * (double)n->src[1]->dims[1], sm_io_bytes(n)};
}

sm_cost cost_matmul(const sm_node *n)
{
    const sm_node *a = n->src[0];
    return (sm_cost){2 * (double)sm_numel(n) * (double)a->dims[a->rank - 1 - n->p.matmul.ta], sm_io_bytes(n)};
}
