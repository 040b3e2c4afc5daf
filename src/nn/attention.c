/* Multi-head attention and feed-forward blocks, in the layout of diffusers' models/attention.py. Heads are a view: a row of
 * heads*d channels is heads rows of d, so splitting and merging move no data. */
#include "nn/nn.h"

#include <math.h>
#include <stdio.h>

/* [N,T,C] -> [N,T,heads,C/heads] */
static sm_node *split(sm_node *x, int heads)
{
    char s[96];
    if (sm_poisoned(x))
        return x;
    if (x->rank != 3 || heads < 1 || x->dims[2] % heads)
        return sm_graph_fail(x->g, "attention: %s does not divide into %d heads", sm_dims_str(x, s), heads);
    return SM_RESHAPE(x, x->dims[0], x->dims[1], heads, x->dims[2] / heads);
}

/* [N,T,H,D] -> [N,T,H*D] */
static sm_node *merge(sm_node *x) { return SM_RESHAPE(x, x->dims[0], x->dims[1], x->dims[2] * x->dims[3]); }

sm_node *nn_heads_attention(sm_node *q, sm_node *k, sm_node *v, int heads, sm_node *bias, bool causal)
{
    return merge(sm_attention(split(q, heads), split(k, heads), split(v, heads), bias, 0, causal));
}

sm_node *nn_head_proj(const nn_scope *s, const char *name, const char *norm, sm_node *x, int64_t n, int heads, bool bias,
                      bool fresh_norm)
{
    char w[64], owner[64];
    snprintf(w, sizeof w, "%s.weight", norm ? norm : "");
    snprintf(owner, sizeof owner, "%s.weight", name);
    bool normed = norm && nn_wants(s, w, owner, fresh_norm);
    sm_node *y = split(nn_linear(s, name, x, n, bias), heads);
    return normed ? nn_rms_norm(s, norm, y, 1e-6f) : y;
}

sm_node *nn_attention(const nn_scope *s, sm_node *x, sm_node *ctx, int heads, bool qkv_bias)
{
    int64_t c = x->dims[2], inner = nn_dim(s, "to_q.weight", 0, c);
    sm_node *from = ctx ? ctx : x;
    sm_node *q = nn_head_proj(s, "to_q", "norm_q", x, inner, heads, qkv_bias, false);
    sm_node *k = nn_head_proj(s, "to_k", "norm_k", from, inner, heads, qkv_bias, false);
    sm_node *v = nn_head_proj(s, "to_v", NULL, from, inner, heads, qkv_bias, false);
    return nn_linear(s, "to_out.0", merge(sm_attention(q, k, v, NULL, 0, false)), c, true);
}

sm_node *nn_attention_identity(const nn_scope *s, sm_node *x, bool qkv_bias)
{
    int64_t c = x->dims[2], inner = nn_dim(s, "to_v.weight", 0, c);
    return nn_linear(s, "to_out.0", nn_linear(s, "to_v", x, inner, qkv_bias), c, true);
}

sm_node *nn_attention_received(const nn_scope *s, sm_node *x, int heads, bool qkv_bias)
{
    int64_t n = x->dims[0], t = x->dims[1], c = x->dims[2], inner = nn_dim(s, "to_q.weight", 0, c);
    sm_node *q = nn_head_proj(s, "to_q", "norm_q", x, inner, heads, qkv_bias, false);
    sm_node *k = nn_head_proj(s, "to_k", "norm_k", x, inner, heads, qkv_bias, false);
    if (sm_poisoned(q) || sm_poisoned(k))
        return s->g->poison;
    float scale = 1 / sqrtf((float)(inner / heads));
    sm_node *scores = sm_matmul(SM_PERMUTE(q, 0, 2, 1, 3), SM_PERMUTE(k, 0, 2, 1, 3), false, true); /* [N,H,T,T] */
    sm_node *map = sm_softmax(sm_affine(scores, scale, 0));
    sm_node *sum = SM_RESHAPE(sm_sum(sm_sum(map, 2), 1), n, t);
    return sm_affine(sum, 1 / (float)heads, 0);
}

sm_node *nn_feed_forward(const nn_scope *s, sm_node *x, int mult, sm_act act, bool geglu)
{
    int64_t c = x->dims[x->rank - 1], inner = nn_dim(s, "net.2.weight", 1, c * mult);
    sm_node *h = nn_linear(s, "net.0.proj", x, geglu ? 2 * inner : inner, true);
    nn_enter(s, "net.0");
    if (geglu)
        h = sm_mul(sm_slice(h, -1, 0, inner), nn_act(sm_slice(h, -1, inner, inner), act));
    else
        h = nn_act(h, act);
    nn_here(s);
    return nn_linear(s, "net.2", h, c, true);
}
