/* The multimodal diffusion transformer of Stable Diffusion 3 (Esser et al. 2024): picture and text tokens keep their own
 * weights and meet in joint attention. In the layout of diffusers' SD3Transformer2DModel (models/transformers/
 * transformer_sd3.py). Layer norms have eps 1e-6 and no weights: scale and shift come from the conditioning vector. */
#include "model/model.h"

#include <math.h>

static const float EPS = 1e-6f;

static bool config_ok(const nn_scope *s, const sm_mmdit_config *c, const sm_node *x)
{
    char d[96];
    if (c->num_layers < 1 || c->num_layers > SM_LAYERS)
        return nn_reject(s, "MMDiT: num_layers is %d, must be 1 to %d", c->num_layers, SM_LAYERS);
    if (c->patch_size < 1 || c->patch_size > 16 || c->pos_embed_max_size < 1 || c->pos_embed_max_size > 1024)
        return nn_reject(s, "MMDiT: patch_size %d or pos_embed_max_size %d out of range", c->patch_size, c->pos_embed_max_size);
    int64_t p = c->patch_size, most = p * c->pos_embed_max_size, h = x->dims[1], w = x->dims[2];
    if (x->rank != 4 || x->dims[3] != c->in_channels || h % p || w % p || h > most || w > most)
        return nn_reject(s, "MMDiT: sample %s, must be [N, H, W, %d] with H and W multiples of %lld, at most %lld",
                         sm_dims_str(x, d), c->in_channels, (long long)p, (long long)most);
    int64_t width = (int64_t)c->num_attention_heads * c->attention_head_dim;
    if (c->num_attention_heads < 1 || c->attention_head_dim < 1 || c->caption_projection_dim != width)
        return nn_reject(s, "MMDiT: caption_projection_dim %d must be num_attention_heads %d x attention_head_dim %d",
                         c->caption_projection_dim, c->num_attention_heads, c->attention_head_dim);
    return true;
}

/* ---- positions --------------------------------------------------------------------------------------------------- */

/* The table [max*max, dim] of a new model: sines, then cosines, of the column in the first half of the channels, of the row
 * in the second; one step of the grid a model was configured for is one unit. dim is a multiple of 4. */
static void sincos_table(float *out, const void *arg)
{
    const sm_mmdit_config *c = arg;
    int max = c->pos_embed_max_size, dim = c->caption_projection_dim, quarter = dim / 4;
    float step = (float)max / (float)SM_MAX(c->sample_size / c->patch_size, 1);
    for (int i = 0; i < max * max; i++) {
        float at[2] = {(float)(i % max) / step, (float)(i / max) / step};
        for (int half = 0; half < 2; half++)
            for (int k = 0; k < quarter; k++) {
                double angle = (double)at[half] * pow(10000.0, -(double)k / quarter);
                out[(size_t)i * (size_t)dim + (size_t)(2 * half * quarter + k)] = (float)sin(angle);
                out[(size_t)i * (size_t)dim + (size_t)((2 * half + 1) * quarter + k)] = (float)cos(angle);
            }
    }
}

/* Rows of the position table for h x w patches, cut from its centre: [h*w, dim]. */
static sm_node *positions(const nn_scope *s, const sm_mmdit_config *c, int64_t h, int64_t w)
{
    int64_t max = c->pos_embed_max_size, rows = max * max, dim = c->caption_projection_dim, n = h * w;
    if (dim % 4)
        return sm_graph_fail(s->g, "MMDiT: width %lld is not a multiple of 4", (long long)dim);
    sm_node *table = nn_buffer(s, "pos_embed", sincos_table, c, 3, (int64_t[]){1, rows, dim}, 2, (int64_t[]){rows, dim});
    int32_t *ids = sm_arena_get(&s->g->arena, sizeof *ids * (size_t)n);
    if (!ids)
        return sm_graph_fail(s->g, "out of memory for positions");
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)(((max - h) / 2 + i / w) * max + (max - w) / 2 + i % w);
    return sm_gather(table, sm_const(s->g, SM_I32, 1, &n, ids));
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* Part i of `parts` of a modulation vector [N, parts*C], as [N,1,C]. */
static sm_node *part(sm_node *m, int i, int parts)
{
    int64_t c = m->dims[1] / parts;
    return SM_RESHAPE(sm_slice(m, 1, i * c, c), m->dims[0], 1, c);
}

/* x (1 + scale) + shift */
static sm_node *modulate(sm_node *x, sm_node *shift, sm_node *scale) { return sm_add(sm_mul(x, sm_affine(scale, 1, 1)), shift); }

static sm_node *bare_norm(sm_node *x) { return sm_layer_norm(x, NULL, NULL, EPS); }

/* The stream's modulation: `parts` vectors of x's width from silu(temb); zero in a new model (adaLN-Zero). */
static sm_node *modulation(const nn_scope *s, const char *norm, sm_node *act, const sm_node *x, int parts)
{
    nn_scope n = nn_sub(s, "%s", norm);
    sm_node *m = nn_linear_zero(&n, "linear", act, x->dims[2] * parts);
    nn_here(s);
    return m;
}

typedef struct qkv { sm_node *q, *k, *v; } qkv;

/* names: the layers for q, k, v, then the norms of q and k. */
static qkv project(const nn_scope *s, const sm_mmdit_config *c, sm_node *x, const char *const names[5])
{
    qkv p;
    p.q = nn_head_proj(s, names[0], names[3], x, x->dims[2], c->num_attention_heads, true, c->qk_norm);
    p.k = nn_head_proj(s, names[1], names[4], x, x->dims[2], c->num_attention_heads, true, c->qk_norm);
    p.v = nn_head_proj(s, names[2], NULL, x, x->dims[2], c->num_attention_heads, true, false);
    return p;
}

static const char *const SAMPLE[5] = {"to_q", "to_k", "to_v", "norm_q", "norm_k"};
static const char *const CONTEXT[5] = {"add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"};

/* [N,T,H,D] -> tokens [start, start+len) as [N,len,H*D] */
static sm_node *merge(sm_node *a, int64_t start, int64_t len)
{
    sm_node *t = start == 0 && len == a->dims[1] ? a : sm_slice(a, 1, start, len);
    return SM_RESHAPE(t, a->dims[0], len, a->dims[2] * a->dims[3]);
}

/* Attention over picture tokens x, then text tokens ctx. Replaces both by their outputs. In the last block nobody asks for
 * the text's: its queries are recorded, for their tensors, and left unused. */
static void joint_attention(const nn_scope *s, const sm_mmdit_config *c, sm_node **x, sm_node **ctx, bool last)
{
    int64_t width = (*x)->dims[2], tx = (*x)->dims[1], tc = (*ctx)->dims[1];
    qkv a = project(s, c, *x, SAMPLE), b = project(s, c, *ctx, CONTEXT);
    sm_node *q = last ? a.q : sm_concat2(a.q, b.q, 1);
    sm_node *o = sm_attention(q, sm_concat2(a.k, b.k, 1), sm_concat2(a.v, b.v, 1), NULL, 0, false);
    *x = nn_linear(s, "to_out.0", merge(o, 0, tx), width, true);
    *ctx = last ? NULL : nn_linear(s, "to_add_out", merge(o, tx, tc), width, true);
}

/* The second attention of SD 3.5 medium: picture tokens alone. */
static sm_node *self_attention(const nn_scope *s, const sm_mmdit_config *c, sm_node *x)
{
    qkv a = project(s, c, x, SAMPLE);
    return nn_linear(s, "to_out.0", merge(sm_attention(a.q, a.k, a.v, NULL, 0, false), 0, x->dims[1]), x->dims[2], true);
}

/* x + gate * ff(modulated norm of x) */
static sm_node *mlp(const nn_scope *s, const char *name, sm_node *x, sm_node *shift, sm_node *scale, sm_node *gate)
{
    sm_node *h = modulate(bare_norm(x), shift, scale);
    nn_scope ff = nn_sub(s, "%s", name);
    h = nn_feed_forward(&ff, h, 4, SM_ACT_GELU_TANH, false);
    nn_here(s);
    return sm_add(x, sm_mul(h, gate));
}

/* JointTransformerBlock. Modulation vectors are in the order shift, scale, gate of attention, shift, scale, gate of the MLP,
 * and with dual attention shift, scale, gate of the second one. The last block uses the text only as keys and values, and
 * its norm gives scale before shift; *ctx is NULL after it. */
static void block(const nn_scope *s, const sm_mmdit_config *c, sm_node **x, sm_node **ctx, sm_node *act, int i)
{
    bool last = i == c->num_layers - 1, dual = nn_wants(s, "attn2.to_q.weight", "attn.to_q.weight", c->dual_attention[i]);
    int px = dual ? 9 : 6, pc = last ? 2 : 6;
    sm_node *m = modulation(s, "norm1", act, *x, px), *mc = modulation(s, "norm1_context", act, *ctx, pc);
    nn_enter(s, "norm1");
    sm_node *norm = bare_norm(*x), *h = modulate(norm, part(m, 0, px), part(m, 1, px));
    nn_enter(s, "norm1_context");
    sm_node *hc = modulate(bare_norm(*ctx), part(mc, last ? 1 : 0, pc), part(mc, last ? 0 : 1, pc));
    nn_scope attn = nn_sub(s, "attn"), attn2 = nn_sub(s, "attn2");
    nn_here(&attn);
    joint_attention(&attn, c, &h, &hc, last);
    nn_here(s);
    if (!last) {
        *ctx = sm_add(*ctx, sm_mul(hc, part(mc, 2, pc)));
        *ctx = mlp(s, "ff_context", *ctx, part(mc, 3, pc), part(mc, 4, pc), part(mc, 5, pc));
    }
    *x = sm_add(*x, sm_mul(h, part(m, 2, px)));
    if (dual) {
        h = modulate(norm, part(m, 6, px), part(m, 7, px));
        nn_here(&attn2);
        h = self_attention(&attn2, c, h);
        nn_here(s);
        *x = sm_add(*x, sm_mul(h, part(m, 8, px)));
    }
    *x = mlp(s, "ff", *x, part(m, 3, px), part(m, 4, px), part(m, 5, px));
}

/* ---- model ------------------------------------------------------------------------------------------------------- */

/* [N,H,W,in] -> patch tokens with their positions [N, H/p * W/p, dim] */
static sm_node *embed_patches(const nn_scope *s, const sm_mmdit_config *c, sm_node *x)
{
    int p = c->patch_size;
    nn_scope e = nn_sub(s, "pos_embed");
    x = nn_conv(&e, "proj", x, c->caption_projection_dim, p, p, 0, true);
    int64_t h = x->dims[1], w = x->dims[2];
    return sm_add(SM_RESHAPE(x, x->dims[0], h * w, x->dims[3]), positions(&e, c, h, w));
}

/* Timestep and pooled text, each through two layers, added: [N, dim] */
static sm_node *condition(const nn_scope *s, const sm_mmdit_config *c, sm_node *timestep, sm_node *pooled)
{
    int64_t dim = c->caption_projection_dim;
    nn_scope e = nn_sub(s, "time_text_embed"), time = nn_sub(&e, "timestep_embedder"), text = nn_sub(&e, "text_embedder");
    nn_enter(&e, "time_proj");
    sm_node *t = nn_timestep_embedding(timestep, 256, true, 0, 1, 10000);
    nn_here(&time);
    t = nn_mlp2(&time, t, dim, dim, SM_ACT_SILU);
    nn_here(&text);
    sm_node *v = nn_mlp2(&text, pooled, dim, dim, SM_ACT_SILU);
    nn_here(&e);
    return sm_add(t, v);
}

/* Tokens [N, h*w, p*p*C] -> [N, h*p, w*p, C] */
static sm_node *unpatchify(sm_node *x, int64_t h, int64_t w, int64_t p, int64_t ch)
{
    x = SM_PERMUTE(SM_RESHAPE(x, x->dims[0], h, w, p, p, ch), 0, 1, 3, 2, 4, 5);
    return SM_RESHAPE(x, x->dims[0], h * p, w * p, ch);
}

sm_node *sm_mmdit(const nn_scope *s, const sm_mmdit_config *c, sm_node *sample, sm_node *timestep, sm_node *ctx, sm_node *pooled)
{
    if (sm_poisoned(sample) || sm_poisoned(ctx) || !config_ok(s, c, sample))
        return s->g->poison;
    sm_node *x = embed_patches(s, c, sample), *act = condition(s, c, timestep, pooled);
    nn_here(s);
    act = sm_silu(act);
    ctx = nn_linear(s, "context_embedder", ctx, c->caption_projection_dim, true);
    for (int i = 0; i < c->num_layers; i++) {
        nn_scope b = nn_sub(s, "transformer_blocks.%d", i);
        block(&b, c, &x, &ctx, act, i);
    }
    nn_here(s);
    int64_t p = c->patch_size;
    sm_node *m = modulation(s, "norm_out", act, x, 2);
    nn_enter(s, "norm_out");
    x = modulate(bare_norm(x), part(m, 1, 2), part(m, 0, 2));
    x = nn_linear_zero(s, "proj_out", x, p * p * c->out_channels);
    return unpatchify(x, sample->dims[1] / p, sample->dims[2] / p, p, c->out_channels);
}

sm_node *sm_mmdit_modulated(const nn_scope *s, const sm_mmdit_config *c, sm_node *sample, sm_node *timestep, sm_node *pooled)
{
    if (sm_poisoned(sample) || !config_ok(s, c, sample))
        return s->g->poison;
    sm_node *x = embed_patches(s, c, sample), *act = sm_silu(condition(s, c, timestep, pooled));
    nn_scope b = nn_sub(s, "transformer_blocks.0");
    int parts = nn_wants(&b, "attn2.to_q.weight", "attn.to_q.weight", c->dual_attention[0]) ? 9 : 6;
    sm_node *m = modulation(&b, "norm1", act, x, parts);
    return modulate(bare_norm(x), part(m, 0, parts), part(m, 1, parts));
}
