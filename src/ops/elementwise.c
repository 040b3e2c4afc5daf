/* Element-wise ops of one and two sources: rules and record functions. */
#include "ops/rules.h"

sm_node *sm_affine(sm_node *x, float a, float b) { return SM_REC(SM_OP_AFFINE, &((sm_param){.affine = {a, b}}), x); }
sm_node *sm_unary(sm_op_id op, sm_node *x) { return SM_REC(op, NULL, x); }
sm_node *sm_silu(sm_node *x) { return sm_unary(SM_OP_SILU, x); }
sm_node *sm_gelu_tanh(sm_node *x) { return sm_unary(SM_OP_GELU_TANH, x); }
sm_node *sm_gelu_erf(sm_node *x) { return sm_unary(SM_OP_GELU_ERF, x); }
sm_node *sm_quick_gelu(sm_node *x) { return sm_unary(SM_OP_QUICK_GELU, x); }
sm_node *sm_add(sm_node *a, sm_node *b) { return SM_REC(SM_OP_ADD, NULL, a, b); }
sm_node *sm_sub(sm_node *a, sm_node *b) { return SM_REC(SM_OP_SUB, NULL, a, b); }
sm_node *sm_mul(sm_node *a, sm_node *b) { return SM_REC(SM_OP_MUL, NULL, a, b); }
sm_node *sm_div(sm_node *a, sm_node *b) { return SM_REC(SM_OP_DIV, NULL, a, b); }

bool shape_broadcast(sm_node *n)
{
    const sm_node *a = n->src[0], *b = n->src[1];
    char s[96], t[96];
    n->rank = SM_MAX(a->rank, b->rank);
    for (int i = 1; i <= n->rank; i++) {
        int64_t da = i <= a->rank ? a->dims[a->rank - i] : 1, db = i <= b->rank ? b->dims[b->rank - i] : 1;
        if (da != db && da != 1 && db != 1)
            return sm_node_fail(n, "%s and %s do not broadcast", sm_dims_str(a, s), sm_dims_str(b, t));
        n->dims[n->rank - i] = SM_MAX(da, db);
    }
    return sm_want_f32(n, 0);
}

sm_node *grad_affine(sm_node *n, int i, sm_node *dy) { return sm_affine(dy, n->p.affine.a, 0); }

/* In ops.def every unary op is followed by its gradient op. */
sm_node *grad_unary(sm_node *n, int i, sm_node *dy) { return SM_REC((sm_op_id)(n->op + 1), NULL, n->src[0], dy); }

static sm_node *to_shape_of(sm_node *d, const sm_node *s) { return sm_same_shape(d, s) ? d : sm_sum_to(d, s->rank, s->dims); }

sm_node *grad_add(sm_node *n, int i, sm_node *dy) { return to_shape_of(dy, n->src[i]); }

sm_node *grad_sub(sm_node *n, int i, sm_node *dy)
{
    sm_node *d = to_shape_of(dy, n->src[i]);
    return i ? sm_affine(d, -1, 0) : d;
}

sm_node *grad_mul(sm_node *n, int i, sm_node *dy) { return to_shape_of(sm_mul(dy, n->src[1 - i]), n->src[i]); }

sm_node *grad_div(sm_node *n, int i, sm_node *dy)
{
    sm_node *d = sm_div(dy, n->src[1]);
    return to_shape_of(i ? sm_affine(sm_mul(d, n), -1, 0) : d, n->src[i]);
}
