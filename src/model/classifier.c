/* The classifier of noisy pictures (see classifier.h), recorded. Pictures are [N,H,W,C], tokens [N,T,C]; what guided-diffusion
 * calls a one-dimensional convolution is a linear layer over tokens. */
#include "model/classifier.h"

static const float EPS = 1e-5f;

/* [N,H,W,C] -> [N,C] */
static sm_node *mean(sm_node *x)
{
    if (sm_poisoned(x))
        return x;
    int64_t n = x->dims[0], places = x->dims[1] * x->dims[2], c = x->dims[3];
    return SM_RESHAPE(sm_affine(sm_sum(SM_RESHAPE(x, n, places, c), 1), 1 / (float)places, 0), n, c);
}

static sm_node *halve(sm_node *x) { return sm_avg_pool(x, 2, 2, 0); }

/* ---- blocks -------------------------------------------------------------------------------------------------------- */

/* ResBlock; emb [N,4 width] after its SiLU. An emb_layers.1 of twice the width scales and shifts. */
static sm_node *res_block(const nn_scope *s, const sm_classifier_config *c, sm_node *x, sm_node *emb, bool down)
{
    int64_t out = nn_dim(s, "in_layers.2.weight", 0, 0), width = nn_dim(s, "emb_layers.1.weight", 0, 0);
    sm_node *h = sm_silu(nn_group_norm(s, "in_layers.0", x, c->groups, EPS));
    if (down) {
        h = halve(h);
        x = halve(x);
    }
    h = nn_conv(s, "in_layers.2", h, out, 3, 1, 1, true);
    sm_node *t = nn_linear(s, "emb_layers.1", emb, width, true);
    if (sm_poisoned(t) || sm_poisoned(h))
        return s->g->poison;
    t = SM_RESHAPE(t, t->dims[0], 1, 1, width);
    bool scales = width == 2 * out;
    h = nn_group_norm(s, "out_layers.0", scales ? h : sm_add(h, t), c->groups, EPS);
    if (scales)
        h = sm_add(sm_mul(h, sm_affine(sm_slice(t, -1, 0, out), 1, 1)), sm_slice(t, -1, out, out));
    h = nn_conv(s, "out_layers.3", sm_silu(h), out, 3, 1, 1, true);
    return sm_add(nn_has(s, "skip_connection.weight") ? nn_conv(s, "skip_connection", x, out, 1, 1, 0, true) : x, h);
}

/* Part k (q, k or v) of qkv [N,T,3C] as [N,T,heads,C/heads]. */
static sm_node *part(sm_node *qkv, int k, int64_t heads, bool new_order)
{
    int64_t n = qkv->dims[0], t = qkv->dims[1], c = qkv->dims[2] / 3, d = c / heads;
    if (new_order)
        return SM_RESHAPE(sm_slice(qkv, -1, k * c, c), n, t, heads, d);
    return sm_slice(SM_RESHAPE(qkv, n, t, heads, 3 * d), -1, k * d, d);
}

/* Attention among tokens [N,T,C], the first `asking` of which ask: [N,asking,C]. */
static sm_node *attend(const nn_scope *s, const sm_classifier_config *c, const char *name, sm_node *x, int64_t asking,
                       bool new_order)
{
    if (sm_poisoned(x))
        return x;
    int64_t n = x->dims[0], ch = x->dims[2], heads = c->head_channels ? ch / c->head_channels : c->heads;
    if (heads < 1 || ch % heads)
        return nn_reject(s, "attention: %lld channels do not divide into %lld heads", (long long)ch, (long long)heads),
               s->g->poison;
    sm_node *qkv = nn_linear(s, name, x, 3 * ch, true);
    if (sm_poisoned(qkv))
        return qkv;
    sm_node *q = sm_slice(part(qkv, 0, heads, new_order), 1, 0, asking);
    sm_node *y = sm_attention(q, part(qkv, 1, heads, new_order), part(qkv, 2, heads, new_order), NULL, 0, false);
    return SM_RESHAPE(y, n, asking, ch);
}

static sm_node *attention_block(const nn_scope *s, const sm_classifier_config *c, sm_node *x)
{
    if (sm_poisoned(x))
        return x;
    int64_t n = x->dims[0], places = x->dims[1] * x->dims[2], ch = x->dims[3];
    sm_node *h = SM_RESHAPE(nn_group_norm(s, "norm", x, c->groups, EPS), n, places, ch);
    h = nn_linear(s, "proj_out", attend(s, c, "qkv", h, places, c->new_order), ch, true);
    return sm_poisoned(h) ? h : sm_add(x, sm_reshape(h, 4, x->dims));
}

/* Modules 0.. of one block: a residual block, then attention where its tensors are there. */
static sm_node *input_block(const nn_scope *s, const sm_classifier_config *c, int i, sm_node *x, sm_node *emb)
{
    nn_scope first = nn_sub(s, "0"), second = nn_sub(s, "1");
    nn_here(&first);
    if (i == 0)
        return nn_conv(s, "0", x, nn_dim(s, "0.weight", 0, 0), 3, 1, 1, true);
    if (c->down[i] == SM_DOWN_POOL)
        return halve(x);
    if (c->down[i] == SM_DOWN_CONV)
        return nn_conv(&first, "op", x, nn_dim(&first, "op.weight", 0, 0), 3, 2, 1, true);
    x = res_block(&first, c, x, emb, c->down[i] == SM_DOWN_RES);
    return nn_has(&second, "qkv.weight") ? attention_block(&second, c, x) : x;
}

static sm_node *middle(const nn_scope *s, const sm_classifier_config *c, sm_node *x, sm_node *emb)
{
    nn_scope m[3] = {nn_sub(s, "middle_block.0"), nn_sub(s, "middle_block.1"), nn_sub(s, "middle_block.2")};
    x = res_block(&m[0], c, x, emb, false);
    x = attention_block(&m[1], c, x);
    return res_block(&m[2], c, x, emb, false);
}

/* ---- pools --------------------------------------------------------------------------------------------------------- */

/* The position table [C,T] of any stored type, as [1,T,C]. */
static sm_node *positions(const nn_scope *s, int64_t channels, int64_t tokens)
{
    enum { MOST = 1 << 16 };
    sm_node *table = NN_PARAM(s, "positional_embedding", NN_NORMAL_002, 0, channels, tokens);
    sm_arena *a = &s->g->arena;
    int32_t *rows = channels <= MOST ? sm_arena_get(a, sizeof *rows * (size_t)channels) : NULL;
    if (!rows)
        return sm_graph_fail(s->g, "the position table has %lld rows, at most %d are possible", (long long)channels, MOST);
    for (int i = 0; i < channels; i++)
        rows[i] = i;
    sm_node *values = sm_gather(table, sm_const(s->g, SM_I32, 1, &channels, rows)); /* as f32 */
    return sm_poisoned(values) ? values : SM_RESHAPE(SM_PERMUTE(values, 1, 0), 1, tokens, channels);
}

/* AttentionPool2d: the places and, before them, their mean, which alone asks. */
static sm_node *attention_pool(const nn_scope *s, const sm_classifier_config *c, sm_node *x)
{
    if (sm_poisoned(x))
        return x;
    int64_t n = x->dims[0], places = x->dims[1] * x->dims[2], ch = x->dims[3];
    nn_scope p = nn_sub(s, "out.2");
    if (places != c->places)
        return nn_reject(&p, "its position table has %lld places, %lldx%lld are to be pooled", (long long)c->places,
                         (long long)x->dims[1], (long long)x->dims[2]),
               s->g->poison;
    sm_node *t = sm_concat2(SM_RESHAPE(mean(x), n, 1, ch), SM_RESHAPE(x, n, places, ch), 1);
    t = sm_add(t, positions(&p, ch, places + 1));
    return nn_linear(&p, "c_proj", SM_RESHAPE(attend(&p, c, "qkv_proj", t, 1, true), n, ch), c->classes, true);
}

/* Of the features [N,F] of all blocks. */
static sm_node *spatial_pool(const nn_scope *s, const sm_classifier_config *c, sm_node *f)
{
    nn_scope o = nn_sub(s, "out");
    int64_t hidden = nn_dim(&o, "0.weight", 0, 0);
    bool v2 = c->pool == SM_POOL_SPATIAL_V2;
    sm_node *h = nn_linear(&o, "0", f, hidden, true);
    if (sm_poisoned(h))
        return h;
    if (v2)
        h = SM_RESHAPE(nn_group_norm(&o, "1", SM_RESHAPE(h, h->dims[0], 1, hidden), c->groups, EPS), h->dims[0], hidden);
    return nn_linear(&o, v2 ? "3" : "2", v2 ? sm_silu(h) : sm_unary(SM_OP_RELU, h), c->classes, true);
}

/* ---- the whole ----------------------------------------------------------------------------------------------------- */

static sm_node *embed(const nn_scope *s, const sm_classifier_config *c, sm_node *timestep)
{
    nn_scope t = nn_sub(s, "time_embed");
    int64_t width = nn_dim(&t, "0.weight", 0, 0);
    sm_node *e = nn_timestep_embedding(timestep, c->model_channels, true, 0, 1, 10000);
    return nn_linear(&t, "2", sm_silu(nn_linear(&t, "0", e, width, true)), width, true);
}

sm_node *sm_classifier(const nn_scope *s, const sm_classifier_config *c, sm_node *x, sm_node *timestep)
{
    char d[96];
    if (sm_poisoned(x) || sm_poisoned(timestep))
        return s->g->poison;
    if (x->rank != 4 || x->dims[3] != c->in_channels)
        return nn_reject(s, "classifier: pictures %s, must be [N, H, W, %d]", sm_dims_str(x, d), c->in_channels), s->g->poison;
    bool spatial = c->pool == SM_POOL_SPATIAL || c->pool == SM_POOL_SPATIAL_V2;
    sm_node *emb = sm_silu(embed(s, c, timestep)), *features = NULL; /* every block begins with the same SiLU */
    for (int i = 0; i <= c->blocks; i++) {
        nn_scope b = nn_sub(s, "input_blocks.%d", i);
        x = i < c->blocks ? input_block(&b, c, i, x, emb) : middle(s, c, x, emb);
        nn_here(s);
        if (spatial)
            features = features ? sm_concat2(features, mean(x), -1) : mean(x);
    }
    if (spatial)
        return spatial_pool(s, c, features);
    x = sm_silu(nn_group_norm(s, "out.0", x, c->groups, EPS));
    if (c->pool == SM_POOL_ATTENTION)
        return attention_pool(s, c, x);
    nn_scope o = nn_sub(s, "out");
    return nn_linear(&o, "3", mean(x), c->classes, true);
}
