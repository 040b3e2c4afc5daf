/* Attention of pictures in pairs, an edited one and its source (Hertz et al. 2022, Prompt-to-Prompt): the edited one's
 * attention map is made of both. What a map M does to values V is linear, so the rule for maps becomes one for values and no
 * map is ever formed:
 *     (S P + E diag(o)) V  =  S (P V) + E (diag(o) V)
 * S, E: maps of source and edited row over their own tokens; P, o: see nn_pairs. A self-attention map that is taken over
 * whole is S V. */
#include "nn/nn.h"

/* Rows 0..m-1 or m..2m-1 of x. */
static sm_node *edited(sm_node *x, int64_t m) { return sm_slice(x, 0, 0, m); }
static sm_node *source(sm_node *x, int64_t m) { return sm_slice(x, 0, m, m); }

/* [N,T,H,D] as [N,T,H*D], and back. */
static sm_node *merged(sm_node *x) { return SM_RESHAPE(x, x->dims[0], x->dims[1], x->dims[2] * x->dims[3]); }
static sm_node *in_heads(sm_node *x, const sm_node *like)
{
    return SM_RESHAPE(x, x->dims[0], x->dims[1], like->dims[2], like->dims[3]);
}

/* Of 3m rows, edited, source, source as the edited one sees it: the first and the last added, the second. */
static sm_node *fold(sm_node *y, int64_t m)
{
    sm_node *sum = sm_add(sm_slice(y, 0, 0, m), sm_slice(y, 0, 2 * m, m));
    return sm_concat2(sum, source(y, m), 0);
}

/* Values v [2m,T,C] of both rows as 3m rows, each for the map that acts on it. */
static sm_node *spread(sm_node *v, const nn_pairs *p)
{
    sm_node *own = sm_mul(edited(v, p->count), p->own), *taken = sm_matmul(p->map, edited(v, p->count), false, false);
    return sm_concat(3, (sm_node *[]){own, source(v, p->count), taken}, 0);
}

/* The attention that the words get at every place, sum over heads: [2m,P,W]. q, k are those of 3m rows or, cross-attention
 * being each row's own, of 2m. */
static sm_node *look(sm_node *q, sm_node *k, const nn_pairs *p)
{
    bool both = p->map != NULL;
    sm_node *w = both ? spread(p->words, p) : p->words;
    if (sm_poisoned(q) || sm_poisoned(k) || sm_poisoned(w))
        return w->g->poison;
    int64_t n = w->dims[0], t = w->dims[1], width = w->dims[2], heads = q->dims[2];
    sm_node *v = sm_expand(SM_RESHAPE(w, n, t, 1, width), 4, (int64_t[]){n, t, heads, width});
    sm_node *y = sm_sum(sm_attention(q, k, v, NULL, 0, false), 2);
    y = SM_RESHAPE(y, n, q->dims[1], width);
    return both ? fold(y, p->count) : y;
}

static sm_node *cross(const nn_scope *s, sm_node *x, sm_node *ctx, int heads, bool bias, const nn_pairs *p, sm_node **seen)
{
    int64_t m = p->count, inner = nn_dim(s, "to_q.weight", 0, x->dims[2]);
    sm_node *q = nn_head_proj(s, "to_q", "norm_q", x, inner, heads, bias, false);
    sm_node *k = nn_head_proj(s, "to_k", "norm_k", ctx, inner, heads, bias, false);
    sm_node *v = nn_head_proj(s, "to_v", NULL, ctx, inner, heads, bias, false);
    if (sm_poisoned(q) || sm_poisoned(k) || sm_poisoned(v))
        return s->g->poison;
    if (p->map) {
        q = sm_concat2(q, source(q, m), 0);
        k = sm_concat2(k, source(k, m), 0);
        v = in_heads(spread(merged(v), p), v);
    }
    if (seen)
        *seen = look(q, k, p);
    sm_node *y = merged(sm_attention(q, k, v, NULL, 0, false));
    return p->map ? fold(y, m) : y;
}

static sm_node *self(const nn_scope *s, sm_node *x, int heads, bool bias, const nn_pairs *p)
{
    int64_t inner = nn_dim(s, "to_q.weight", 0, x->dims[2]);
    sm_node *from = source(x, p->count);
    sm_node *q = nn_head_proj(s, "to_q", "norm_q", from, inner, heads, bias, false);
    sm_node *k = nn_head_proj(s, "to_k", "norm_k", from, inner, heads, bias, false);
    sm_node *v = nn_head_proj(s, "to_v", NULL, x, inner, heads, bias, false);
    return merged(sm_attention(sm_concat2(q, q, 0), sm_concat2(k, k, 0), v, NULL, 0, false));
}

sm_node *nn_attention_pairs(const nn_scope *s, sm_node *x, sm_node *ctx, int heads, bool qkv_bias, const nn_pairs *p,
                            sm_node **seen)
{
    if (sm_poisoned(x) || (ctx && sm_poisoned(ctx)))
        return s->g->poison;
    if (x->dims[0] != 2 * p->count)
        return sm_graph_fail(s->g, "attention in pairs: %lld rows are not %lld pairs", (long long)x->dims[0],
                             (long long)p->count);
    if (ctx ? !p->map && !seen : !p->self || x->dims[1] > p->self_tokens)
        return nn_attention(s, x, ctx, heads, qkv_bias);
    sm_node *y = ctx ? cross(s, x, ctx, heads, qkv_bias, p, seen) : self(s, x, heads, qkv_bias, p);
    return nn_linear(s, "to_out.0", y, x->dims[2], true);
}
