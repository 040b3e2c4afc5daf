/* The latent UNet with cross-attention of Stable Diffusion 1.x, 2.x and XL (Rombach et al. 2022; Podell et al. 2023), in the
 * layout of diffusers' UNet2DConditionModel (models/unets/unet_2d_condition.py, transformers/transformer_2d.py). */
#include "model/model.h"

#include <math.h>

/* Most skip connections: the input, then per down block its layers and a downsampler. */
enum { MAX_SKIPS = 1 + SM_BLOCKS * (SM_UNET_LAYERS + 1) };

/* What every block needs; skips is the stack of outputs on the way down. */
typedef struct unet {
    const sm_unet_config *c;
    sm_node *temb, *ctx;
    sm_node *skips[MAX_SKIPS];
    int count;
    sm_unet_tweaks *tweaks; /* NULL: none */
    bool middle;            /* recording its attention */
    int next;               /* number of the skip connection that the way up takes next */
    int level;              /* of the attention that is recorded */
    int64_t h, w;           /* its places */
} unet;

int sm_unet_depth(const sm_unet_config *c, bool up, int level, int layer)
{
    const int *row = up ? c->up_depth[c->blocks - 1 - level] : c->down_depth[level];
    return row[0] ? row[layer] : c->transformer_layers_per_block[level];
}

static bool depths_ok(const nn_scope *s, const sm_unet_config *c, int level)
{
    for (int k = 0; k <= 2 * c->layers_per_block[level]; k++) {
        bool up = k >= c->layers_per_block[level]; /* attentions on the way down, then those on the way up */
        int depth = sm_unet_depth(c, up, level, up ? k - c->layers_per_block[level] : k);
        if ((up ? c->up_attention[c->blocks - 1 - level] : c->down_attention[level]) && (depth < 1 || depth > SM_LAYERS))
            return nn_reject(s, "UNet: transformer_layers_per_block is %d, must be 1 to %d", depth, SM_LAYERS);
    }
    return true;
}

static bool block_ok(const nn_scope *s, const sm_unet_config *c, int i)
{
    int ch = c->block_out_channels[i], heads = c->attention_head_dim[i], depth = c->transformer_layers_per_block[i];
    if (ch < 1 || c->norm_num_groups < 1 || ch % c->norm_num_groups)
        return nn_reject(s, "UNet: block_out_channels %d does not divide into %d groups", ch, c->norm_num_groups);
    if (c->layers_per_block[i] < 1 || c->layers_per_block[i] > SM_UNET_LAYERS)
        return nn_reject(s, "UNet: layers_per_block is %d, must be 1 to %d", c->layers_per_block[i], SM_UNET_LAYERS);
    int up = c->blocks - 1 - i;
    bool mid = c->mid_block == SM_MID_CROSS && i == c->blocks - 1, attends = c->down_attention[i] || c->up_attention[up] || mid;
    if (attends && (heads < 1 || ch % heads))
        return nn_reject(s, "UNet: %d channels do not divide into %d heads (attention_head_dim)", ch, heads);
    if (mid && (depth < 1 || depth > SM_LAYERS))
        return nn_reject(s, "UNet: transformer_layers_per_block is %d, must be 1 to %d", depth, SM_LAYERS);
    return depths_ok(s, c, i);
}

static bool config_ok(const nn_scope *s, const sm_unet_config *c, const sm_node *sample, const sm_node *timestep)
{
    char d[96];
    if (c->blocks < 1 || c->blocks > SM_BLOCKS)
        return nn_reject(s, "UNet: %d blocks, must be 1 to %d", c->blocks, SM_BLOCKS);
    for (int i = 0; i < c->blocks; i++)
        if (!block_ok(s, c, i))
            return false;
    if (sample->rank != 4 || sample->dims[3] != c->in_channels)
        return nn_reject(s, "UNet: sample %s, must be [N, H, W, %d]", sm_dims_str(sample, d), c->in_channels);
    if (timestep->rank != 1 || timestep->dims[0] != sample->dims[0])
        return nn_reject(s, "UNet: timestep %s, must be [%lld]", sm_dims_str(timestep, d), (long long)sample->dims[0]);
    return true;
}

/* ---- conditioning vector ----------------------------------------------------------------------------------------- */

int sm_unet_time_ids(const sm_unet_config *c)
{
    if (!c->text_time || c->time_ids)
        return c->text_time ? c->time_ids : 0;
    return c->projection_class_embeddings_input_dim - 5 * c->addition_time_embed_dim == c->cross_attention_dim ? 5 : 6;
}

/* Sines, then cosines of 1000 (scale - 1) times frequencies from 1 to 1/10000 (Meng et al. 2023; Luo et al. 2023); an odd last
 * place is 0. Rounded to f32 where PyTorch rounds: the angles are large. */
void sm_unet_guidance(float scale, int dim, float *out)
{
    int half = dim / 2;
    float w = (scale - 1) * 1000, slope = half > 1 ? logf(10000) / (float)(half - 1) : 0;
    if (dim % 2)
        out[dim - 1] = 0;
    for (int i = 0; i < half; i++) {
        float angle = w * (float)exp((double)((float)i * -slope));
        out[i] = (float)sin((double)angle);
        out[half + i] = (float)cos((double)angle);
    }
}

/* SDXL: text_embeds and the sinusoidal time_ids side by side, through add_embedding. */
static sm_node *text_time(const nn_scope *s, const sm_unet_config *c, const sm_unet_cond *cond, int64_t width)
{
    if (!cond || !cond->text_embeds || !cond->time_ids)
        return sm_graph_fail(s->g, "UNet: this model needs text_embeds and time_ids");
    nn_scope add = nn_sub(s, "add_embedding");
    int64_t n = cond->text_embeds->dims[0], ids = cond->time_ids->dims[1];
    sm_node *t = nn_timestep_embedding(SM_RESHAPE(cond->time_ids, n * ids), c->addition_time_embed_dim, c->flip_sin_to_cos,
                                       c->freq_shift, 1, 10000);
    t = SM_RESHAPE(t, n, ids * c->addition_time_embed_dim);
    return nn_mlp2(&add, sm_concat2(cond->text_embeds, t, -1), width, width, SM_ACT_SILU);
}

static sm_node *embed(const nn_scope *s, const sm_unet_config *c, sm_node *timestep, const sm_unet_cond *cond)
{
    nn_scope time = nn_sub(s, "time_embedding");
    int64_t base = c->block_out_channels[0], width = nn_dim(&time, "linear_1.weight", 0, base * 4);
    nn_enter(s, "time_proj");
    sm_node *t = nn_timestep_embedding(timestep, base, c->flip_sin_to_cos, c->freq_shift, 1, 10000);
    if (c->time_cond_proj_dim > 0 && cond && cond->timestep_cond) {
        sm_node *more = nn_linear(&time, "cond_proj", cond->timestep_cond, base, false);
        nn_here(&time);
        t = sm_add(t, more);
    }
    nn_here(&time);
    sm_node *emb = nn_mlp2(&time, t, width, width, SM_ACT_SILU);
    if (c->num_class_embeds > 0) {
        nn_here(s);
        if (!cond || !cond->labels)
            return sm_graph_fail(s->g, "UNet: this model needs class labels");
        emb = sm_add(emb, nn_embedding(s, "class_embedding", cond->labels, c->num_class_embeds, width, NN_NORMAL_1));
    }
    if (c->text_time) {
        sm_node *add = text_time(s, c, cond, width);
        nn_here(s);
        emb = sm_add(emb, add);
    }
    return emb;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* ctx NULL: self-attention. */
static sm_node *attention(const nn_scope *s, const unet *u, sm_node *x, sm_node *ctx, int heads)
{
    sm_unet_tweaks *t = u->tweaks;
    if (!t || !t->pairs)
        return nn_attention(s, x, ctx, heads, false);
    sm_node *seen = NULL;
    bool look = ctx && t->pairs->words && !u->middle && u->level == t->seen_level;
    sm_node *y = nn_attention_pairs(s, x, ctx, heads, false, t->pairs, look ? &seen : NULL);
    if (seen)
        t->seen = t->seen ? sm_add(t->seen, seen) : seen;
    return y;
}

/* Token merging: which tokens of x join before self-attention; NULL: none. Maps that Prompt-to-Prompt takes over are of all
 * tokens. */
static sm_node *joined(const unet *u, sm_node *x)
{
    const sm_unet_tweaks *t = u->tweaks;
    bool taken = t && t->pairs && t->pairs->self && u->h * u->w <= t->pairs->self_tokens;
    return t && t->merging && !taken ? nn_merging_rows(t->merging, x, u->h, u->w, 1 << u->level) : NULL;
}

/* BasicTransformerBlock on tokens [N,T,C]. */
static sm_node *transformer_block(const nn_scope *s, const unet *u, sm_node *x, int heads)
{
    sm_node *rows = joined(u, x), *h = nn_layer_norm(s, "norm1", x, 1e-5f, true);
    nn_scope attn1 = nn_sub(s, "attn1"), attn2 = nn_sub(s, "attn2"), ff = nn_sub(s, "ff");
    nn_here(&attn1);
    if (u->middle && u->tweaks && u->tweaks->map && !u->tweaks->received)
        u->tweaks->received = nn_attention_received(&attn1, h, heads, false);
    bool identity = u->tweaks && u->tweaks->identity && u->tweaks->identity(u->tweaks->arg, attn1.path);
    h = rows ? nn_merge(u->tweaks->merging, rows, h) : h;
    h = identity ? nn_attention_identity(&attn1, h, false) : attention(&attn1, u, h, NULL, heads);
    nn_here(s);
    x = sm_add(x, nn_part(rows, h));
    h = nn_layer_norm(s, "norm2", x, 1e-5f, true);
    nn_here(&attn2);
    h = attention(&attn2, u, h, u->ctx, heads);
    nn_here(s);
    x = sm_add(x, h);
    h = nn_layer_norm(s, "norm3", x, 1e-5f, true);
    nn_here(&ff);
    h = nn_feed_forward(&ff, h, 4, SM_ACT_GELU_ERF, true);
    nn_here(s);
    return sm_add(x, h);
}

/* Transformer2DModel on pixels [N,H,W,C]. proj_in and proj_out are linear layers over pixels, stored as such or as 1x1
 * convolutions; proj_out starts at zero. */
static sm_node *transformer(const nn_scope *s, const unet *u, sm_node *x, int level, int depth)
{
    const sm_unet_config *c = u->c;
    int64_t ch = x->dims[3], tokens[3] = {x->dims[0], x->dims[1] * x->dims[2], ch};
    sm_node *h = nn_group_norm(s, "norm", x, c->norm_num_groups, 1e-6f);
    h = c->use_linear_projection ? nn_linear(s, "proj_in", h, ch, true) : nn_conv(s, "proj_in", h, ch, 1, 1, 0, true);
    h = sm_reshape(h, 3, tokens);
    for (int i = 0; i < depth; i++) {
        nn_scope b = nn_sub(s, "transformer_blocks.%d", i);
        h = transformer_block(&b, u, h, c->attention_head_dim[level]);
    }
    nn_here(s);
    h = sm_reshape(h, 4, x->dims);
    h = c->use_linear_projection ? nn_linear_zero(s, "proj_out", h, ch) : nn_conv_zero(s, "proj_out", h, ch, 1, 0);
    return sm_add(h, x);
}

static sm_node *resnet(const nn_scope *s, const unet *u, sm_node *x, int64_t out, int i)
{
    nn_scope r = nn_sub(s, "resnets.%d", i);
    return nn_resnet_block(&r, x, u->temb, out, u->c->norm_num_groups, u->c->norm_eps);
}

static sm_node *attend(const nn_scope *s, unet *u, sm_node *x, int level, int i, int depth)
{
    nn_scope a = nn_sub(s, "attentions.%d", i);
    u->level = level;
    u->h = x->dims[1];
    u->w = x->dims[2];
    return transformer(&a, u, x, level, depth);
}

int sm_unet_skips(const sm_unet_config *c)
{
    int n = c->blocks;
    for (int i = 0; i < c->blocks; i++)
        n += c->layers_per_block[i];
    return n;
}

/* Of a shallow UNet: what lies deeper than the skip connections recorded so far is given. */
static bool deep_enough(const unet *u) { return u->tweaks && u->tweaks->deep_in && u->count > u->tweaks->branch; }

static sm_node *down_block(const nn_scope *s, unet *u, sm_node *x, int level)
{
    const sm_unet_config *c = u->c;
    int64_t out = c->block_out_channels[level];
    for (int i = 0; i < c->layers_per_block[level] && !deep_enough(u); i++) {
        x = resnet(s, u, x, out, i);
        if (c->down_attention[level])
            x = attend(s, u, x, level, i, sm_unet_depth(c, false, level, i));
        u->skips[u->count++] = x;
    }
    nn_here(s);
    if (level + 1 < c->blocks && !deep_enough(u))
        u->skips[u->count++] = x = nn_downsample(s, "downsamplers.0.conv", x, out, false);
    return x;
}

static sm_node *mid_block(const nn_scope *s, unet *u, sm_node *x)
{
    x = resnet(s, u, x, x->dims[3], 0);
    if (u->c->mid_block != SM_MID_CROSS)
        return x;
    int last = u->c->blocks - 1;
    u->middle = true;
    x = attend(s, u, x, last, 0, u->c->transformer_layers_per_block[last]);
    u->middle = false;
    if (u->tweaks && u->tweaks->received)
        u->tweaks->received = SM_RESHAPE(u->tweaks->received, x->dims[0], x->dims[1], x->dims[2]);
    return resnet(s, u, x, x->dims[3], 1);
}

/* Layer k of up block i: x at the cut is kept, or what was kept takes its place. False: it lies below the cut and is not
 * recorded. */
static bool up_layer(unet *u, sm_node **x)
{
    sm_unet_tweaks *t = u->tweaks;
    int at = u->next--;
    if (!t || !t->cut)
        return true;
    if (at == t->branch && t->deep_in)
        *x = t->deep_in;
    else if (at == t->branch)
        t->deep = *x;
    return at <= t->branch || !t->deep_in;
}

/* Up block i mirrors down block `level`. Its upsampler goes to the size of the next skip, which is twice as large or, where
 * a size was odd on the way down, one less. */
static sm_node *up_block(const nn_scope *s, unet *u, sm_node *x, int i)
{
    const sm_unet_config *c = u->c;
    int level = c->blocks - 1 - i;
    int64_t out = c->block_out_channels[level];
    for (int k = 0; k <= c->layers_per_block[level]; k++) {
        if (!up_layer(u, &x))
            continue;
        nn_here(s);
        sm_node *skip = u->skips[--u->count];
        if (u->tweaks && u->tweaks->freeu)
            sm_unet_freeu(u->tweaks, c->block_out_channels[0], i, &x, &skip);
        x = resnet(s, u, sm_concat2(x, skip, -1), out, k);
        if (c->up_attention[i])
            x = attend(s, u, x, level, k, sm_unet_depth(c, true, level, k));
    }
    nn_here(s);
    if (level == 0 || (u->tweaks && u->tweaks->deep_in && u->next >= u->tweaks->branch))
        return x;
    const sm_node *next = u->skips[u->count - 1];
    x = sm_resize_nearest(x, (int)next->dims[1], (int)next->dims[2]);
    return nn_conv(s, "upsamplers.0.conv", x, out, 3, 1, 1, true);
}

sm_node *sm_unet(const nn_scope *s, const sm_unet_config *c, sm_node *sample, sm_node *timestep, sm_node *ctx,
                 const sm_unet_cond *cond)
{
    if (sm_poisoned(sample) || sm_poisoned(timestep) || !config_ok(s, c, sample, timestep))
        return s->g->poison;
    unet u = {.c = c, .ctx = ctx, .temb = embed(s, c, timestep, cond), .tweaks = cond ? cond->tweaks : NULL,
              .next = sm_unet_skips(c) - 1};
    nn_here(s);
    sm_node *x = c->center_input_sample ? sm_affine(sample, 2, -1) : sample;
    u.skips[u.count++] = x = nn_conv(s, "conv_in", x, c->block_out_channels[0], 3, 1, 1, true);
    for (int i = 0; i < c->blocks && !deep_enough(&u); i++) {
        nn_scope b = nn_sub(s, "down_blocks.%d", i);
        x = down_block(&b, &u, x, i);
    }
    if (c->mid_block != SM_MID_NONE && !deep_enough(&u)) {
        nn_scope b = nn_sub(s, "mid_block");
        x = mid_block(&b, &u, x);
    }
    for (int i = 0; i < c->blocks; i++) {
        nn_scope b = nn_sub(s, "up_blocks.%d", i);
        x = up_block(&b, &u, x, i);
    }
    nn_here(s);
    x = nn_group_norm(s, "conv_norm_out", x, c->norm_num_groups, c->norm_eps);
    return nn_conv_zero(s, "conv_out", sm_silu(x), c->out_channels, 3, 1);
}

sm_node *sm_unet_modulated(const nn_scope *s, const sm_unet_config *c, sm_node *sample, sm_node *timestep,
                           const sm_unet_cond *cond)
{
    if (sm_poisoned(sample) || sm_poisoned(timestep) || !config_ok(s, c, sample, timestep))
        return s->g->poison;
    int64_t ch = c->block_out_channels[0], shift[4] = {sample->dims[0], 1, 1, ch};
    sm_node *temb = embed(s, c, timestep, cond);
    nn_here(s);
    sm_node *x = nn_conv(s, "conv_in", c->center_input_sample ? sm_affine(sample, 2, -1) : sample, ch, 3, 1, 1, true);
    nn_scope r = nn_sub(s, "down_blocks.0.resnets.0");
    x = nn_conv(&r, "conv1", sm_silu(nn_group_norm(&r, "norm1", x, c->norm_num_groups, c->norm_eps)), ch, 3, 1, 1, true);
    return sm_add(x, sm_reshape(nn_linear(&r, "time_emb_proj", sm_silu(temb), ch, true), 4, shift));
}
