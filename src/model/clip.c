/* The CLIP text encoder (Radford et al. 2021): a causal pre-norm transformer, in the layout of transformers'
 * CLIPTextModel and CLIPTextModelWithProjection (models/clip/modeling_clip.py). */
#include "model/model.h"

static bool config_ok(const nn_scope *s, const sm_clip_config *c, const sm_node *ids)
{
    if (c->num_hidden_layers < 1 || c->num_hidden_layers > SM_LAYERS)
        return nn_reject(s, "CLIP: num_hidden_layers is %d, must be 1 to %d", c->num_hidden_layers, SM_LAYERS);
    if (c->num_attention_heads < 1 || c->hidden_size < 1 || c->hidden_size % c->num_attention_heads)
        return nn_reject(s, "CLIP: hidden_size %d does not divide into %d heads", c->hidden_size, c->num_attention_heads);
    if (ids->rank != 2 || ids->dims[1] > c->max_position_embeddings)
        return nn_reject(s, "CLIP: %lld tokens, at most %d", (long long)ids->dims[ids->rank - 1], c->max_position_embeddings);
    return true;
}

/* token_embedding + position_embedding -> [N,T,C] */
static sm_node *embeddings(const nn_scope *s, const sm_clip_config *c, sm_node *ids)
{
    enum { MOST = 4096 };
    int64_t t = ids->dims[1];
    int32_t at[MOST];
    if (t > MOST)
        return sm_graph_fail(s->g, "CLIP: %lld tokens, at most %d", (long long)t, MOST);
    for (int32_t i = 0; i < t; i++)
        at[i] = i;
    sm_node *x = nn_embedding(s, "token_embedding", ids, c->vocab_size, c->hidden_size, NN_NORMAL_002);
    sm_node *positions = sm_const(s->g, SM_I32, 1, &t, at);
    return sm_add(x, nn_embedding(s, "position_embedding", positions, c->max_position_embeddings, c->hidden_size, NN_NORMAL_002));
}

static sm_node *self_attention(const nn_scope *s, const sm_clip_config *c, sm_node *x, sm_node *mask)
{
    sm_node *q = nn_linear(s, "q_proj", x, c->hidden_size, true);
    sm_node *k = nn_linear(s, "k_proj", x, c->hidden_size, true);
    sm_node *v = nn_linear(s, "v_proj", x, c->hidden_size, true);
    return nn_linear(s, "out_proj", nn_heads_attention(q, k, v, c->num_attention_heads, mask, true), c->hidden_size, true);
}

static sm_node *layer(const nn_scope *s, const sm_clip_config *c, sm_node *x, sm_node *mask)
{
    sm_node *h = nn_layer_norm(s, "layer_norm1", x, c->layer_norm_eps, true);
    nn_scope attn = nn_sub(s, "self_attn");
    h = self_attention(&attn, c, h, mask);
    nn_here(s);
    x = sm_add(x, h);
    h = nn_layer_norm(s, "layer_norm2", x, c->layer_norm_eps, true);
    nn_scope mlp = nn_sub(s, "mlp");
    h = nn_act(nn_linear(&mlp, "fc1", h, c->intermediate_size, true), c->hidden_act);
    h = nn_linear(&mlp, "fc2", h, c->hidden_size, true);
    nn_here(s);
    return sm_add(x, h);
}

sm_node *sm_clip_final_norm(const nn_scope *s, const sm_clip_config *c, sm_node *hidden)
{
    nn_scope text = nn_sub(s, "text_model");
    return nn_layer_norm(&text, "final_layer_norm", hidden, c->layer_norm_eps, true);
}

sm_clip_out sm_clip_text(const nn_scope *s, const sm_clip_config *c, sm_node *ids, sm_node *eos)
{
    return sm_clip_text_masked(s, c, ids, eos, NULL);
}

sm_clip_out sm_clip_text_masked(const nn_scope *s, const sm_clip_config *c, sm_node *ids, sm_node *eos, sm_node *mask)
{
    sm_clip_out o = {.last = s->g->poison};
    if (sm_poisoned(ids) || !config_ok(s, c, ids))
        return o;
    bool projects = nn_wants(s, "text_projection.weight", "text_model.final_layer_norm.weight", c->projection_dim > 0);
    nn_scope text = nn_sub(s, "text_model"), e = nn_sub(&text, "embeddings");
    sm_node *x = o.hidden[0] = embeddings(&e, c, ids);
    for (int i = 0; i < c->num_hidden_layers; i++) {
        nn_scope l = nn_sub(&text, "encoder.layers.%d", i);
        o.hidden[i + 1] = x = layer(&l, c, x, mask);
    }
    o.layers = c->num_hidden_layers;
    o.last = sm_clip_final_norm(s, c, x);
    if (!eos)
        return o;
    nn_here(s);
    o.pooled = sm_gather(SM_RESHAPE(o.last, ids->dims[0] * ids->dims[1], c->hidden_size), eos);
    if (projects)
        o.projected = nn_linear(s, "text_projection", o.pooled, nn_dim(s, "text_projection.weight", 0, c->projection_dim), false);
    return o;
}

void sm_clip_eos_rows(const sm_clip_config *c, const int32_t *ids, int n, int t, int32_t *rows)
{
    for (int i = 0; i < n; i++) {
        const int32_t *row = ids + (size_t)i * (size_t)t;
        int at = 0;
        for (int j = 1; j < t; j++) {
            if (c->eos_token_id == 2 ? row[j] > row[at] : row[at] != c->eos_token_id && row[j] == c->eos_token_id)
                at = j;
        }
        rows[i] = i * t + at;
    }
}
