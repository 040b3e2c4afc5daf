/* Attention, rotary embedding, softmax: rules and record functions. */
#include "ops/rules.h"

sm_node *sm_attention(sm_node *q, sm_node *k, sm_node *v, sm_node *bias, float scale, bool causal)
{
    return SM_REC(SM_OP_ATTENTION, &((sm_param){.attn = {scale, causal}}), q, k, v, bias);
}

sm_node *sm_rope(sm_node *x, sm_node *cos, sm_node *sin, bool interleaved, bool inverse)
{
    return SM_REC(SM_OP_ROPE, &((sm_param){.rope = {interleaved, inverse}}), x, cos, sin);
}

sm_node *sm_softmax(sm_node *x) { return SM_REC(SM_OP_SOFTMAX, NULL, x); }
sm_node *sm_log_softmax(sm_node *x) { return SM_REC(SM_OP_LOG_SOFTMAX, NULL, x); }

static bool heads_fit(sm_node *n)
{
    const sm_node *q = n->src[0], *k = n->src[1], *v = n->src[2];
    char a[96], b[96], c[96];
    for (int i = 0; i < 3; i++)
        if (!sm_want_rank(n, i, 4))
            return false;
    if (q->dims[0] != k->dims[0] || k->dims[0] != v->dims[0] || q->dims[2] != k->dims[2] || k->dims[2] != v->dims[2] ||
        k->dims[1] != v->dims[1] || q->dims[3] != k->dims[3])
        return sm_node_fail(n, "q %s, k %s, v %s do not fit", sm_dims_str(q, a), sm_dims_str(k, b), sm_dims_str(v, c));
    return sm_want_f32(n, 0);
}

/* Source i is absent or broadcasts against [N, H, Tq, Tk]. */
static bool bias_fits(sm_node *n, int i)
{
    const sm_node *q = n->src[0], *k = n->src[1], *b = i < n->nsrc ? n->src[i] : NULL;
    char s[96];
    if (!b)
        return true;
    const int64_t want[4] = {q->dims[0], q->dims[2], q->dims[1], k->dims[1]};
    bool ok = b->rank == 4 && b->dims[3] == want[3];
    for (int d = 0; ok && d < 3; d++)
        ok = b->dims[d] == 1 || b->dims[d] == want[d];
    return ok || sm_node_fail(n, "bias %s does not broadcast to [%lld, %lld, %lld, %lld]", sm_dims_str(b, s), (long long)want[0],
                              (long long)want[1], (long long)want[2], (long long)want[3]);
}

bool shape_attention(sm_node *n)
{
    if (!heads_fit(n) || !bias_fits(n, 3))
        return false;
    sm_take_shape(n, n->src[0]);
    n->dims[3] = n->src[2]->dims[3];
    return true;
}

bool shape_attention_grad(sm_node *n)
{
    const sm_node *q = n->src[0], *v = n->src[2], *dy = n->src[3];
    char s[96];
    if (!heads_fit(n) || !bias_fits(n, 4))
        return false;
    if (dy->rank != 4 || dy->dims[0] != q->dims[0] || dy->dims[1] != q->dims[1] || dy->dims[2] != q->dims[2] ||
        dy->dims[3] != v->dims[3])
        return sm_node_fail(n, "output gradient %s does not fit", sm_dims_str(dy, s));
    n->rank = 1;
    n->dims[0] = sm_numel(q) + sm_numel(n->src[1]) + sm_numel(v);
    return true;
}

bool shape_rope(sm_node *n)
{
    const sm_node *x = n->src[0];
    char a[96], b[96];
    if (!sm_want_rank(n, 0, 4) || !sm_want_rank(n, 1, 2) || !sm_want_rank(n, 2, 2))
        return false;
    for (int i = 1; i < 3; i++)
        if (n->src[i]->dims[0] != x->dims[1] || n->src[i]->dims[1] * 2 != x->dims[3])
            return sm_node_fail(n, "table %s does not fit %s", sm_dims_str(n->src[i], a), sm_dims_str(x, b));
    sm_take_shape(n, x);
    return sm_want_f32(n, 0);
}

/* Whether x is the backward node of n for dy: the bias and the parameters tell it from that of another attention over the
 * same q, k, v. */
static bool is_grad_of(const sm_node *x, const sm_node *n, const sm_node *dy)
{
    return x->op == SM_OP_ATTENTION_GRAD && x->src[0] == n->src[0] && x->src[1] == n->src[1] && x->src[2] == n->src[2] &&
           x->src[3] == dy && x->src[4] == n->src[3] &&
           x->p.attn.scale == n->p.attn.scale && x->p.attn.causal == n->p.attn.causal;
}

/* q, k and v share one backward node; it is made for the first of them that asks. */
sm_node *grad_attention(sm_node *n, int i, sm_node *dy)
{
    if (i > 2)
        return sm_graph_fail(n->g, "attention: no gradient flows to the bias; add a learned bias outside");
    sm_graph *g = n->g;
    sm_node *all = NULL;
    for (int c = g->count - 1; c >= 0 && c >= g->count - 16 && !all; c--)
        all = is_grad_of(g->nodes[c], n, dy) ? g->nodes[c] : NULL;
    if (!all)
        all = SM_REC(SM_OP_ATTENTION_GRAD, &n->p, n->src[0], n->src[1], n->src[2], dy, n->src[3]);
    int64_t start = 0;
    for (int k = 0; k < i; k++)
        start += sm_numel(n->src[k]);
    return sm_reshape(sm_slice(all, 0, start, sm_numel(n->src[i])), 4, n->src[i]->dims);
}

sm_node *grad_rope(sm_node *n, int i, sm_node *dy)
{
    return i ? NULL : sm_rope(dy, n->src[1], n->src[2], n->p.rope.interleaved, !n->p.rope.inverse);
}

sm_node *grad_softmax(sm_node *n, int i, sm_node *dy) { return SM_REC(SM_OP_SOFTMAX_DX, NULL, n, dy); }

/* d log softmax: dy - softmax(x) * sum dy */
sm_node *grad_log_softmax(sm_node *n, int i, sm_node *dy)
{
    return sm_sub(dy, sm_mul(sm_unary(SM_OP_EXP, n), sm_sum(dy, -1)));
}

static double scores(const sm_node *n)
{
    const sm_node *q = n->src[0], *k = n->src[1];
    return (double)q->dims[0] * (double)q->dims[2] * (double)q->dims[1] * (double)k->dims[1];
}

sm_cost cost_attention(const sm_node *n)
{
    double d = (double)(n->src[0]->dims[3] + n->src[2]->dims[3]);
    return (sm_cost){2 * scores(n) * d, sm_io_bytes(n)};
}

/* Scores again, dP = dy v^T, dv = P^T dy, dq = dS k, dk = dS^T q. */
sm_cost cost_attention_grad(const sm_node *n)
{
    double d = (double)n->src[0]->dims[3], dv = (double)n->src[2]->dims[3];
    return (sm_cost){2 * scores(n) * (3 * d + 2 * dv), sm_io_bytes(n)};
}
