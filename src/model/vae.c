/* The KL autoencoder of latent diffusion (Rombach et al. 2022), in the layout of diffusers' AutoencoderKL
 * (models/autoencoders/autoencoder_kl.py, vae.py). Every norm has eps 1e-6. Downsampling pads only at the bottom and right. */
#include "model/model.h"

static const float EPS = 1e-6f;

static bool config_ok(const nn_scope *s, const sm_vae_config *c, const sm_node *x, bool encode)
{
    char d[96];
    if (c->blocks < 1 || c->blocks > SM_BLOCKS || c->layers_per_block < 1 || c->layers_per_block > SM_LAYERS)
        return nn_reject(s, "VAE: %d blocks of %d layers, must be 1 to %d of 1 to %d", c->blocks, c->layers_per_block,
                         SM_BLOCKS, SM_LAYERS);
    for (int i = 0; i < c->blocks; i++) {
        int ch = c->block_out_channels[i], groups = c->norm_num_groups;
        if (groups < 1 || ch < 1 || ch % groups)
            return nn_reject(s, "VAE: block_out_channels %d does not divide into %d groups", ch, groups);
    }
    int f = encode ? sm_vae_factor(c) : 1;
    if (x->rank != 4 || x->dims[1] % f || x->dims[2] % f)
        return nn_reject(s, "VAE: input %s, height and width must be multiples of %d", sm_dims_str(x, d), f);
    return true;
}

/* One head over all channels; pixels are tokens. */
static sm_node *attention(const nn_scope *s, sm_node *x, int groups)
{
    sm_node *h = nn_group_norm(s, "group_norm", x, groups, EPS);
    h = nn_attention(s, SM_RESHAPE(h, h->dims[0], h->dims[1] * h->dims[2], h->dims[3]), NULL, 1, true);
    return sm_add(sm_reshape(h, 4, x->dims), x);
}

static sm_node *resnet(const nn_scope *s, const sm_vae_config *c, sm_node *x, int64_t out, int i)
{
    nn_scope r = nn_sub(s, "resnets.%d", i);
    return nn_resnet_block(&r, x, NULL, out, c->norm_num_groups, EPS);
}

static sm_node *mid_block(const nn_scope *s, const sm_vae_config *c, sm_node *x)
{
    nn_scope mid = nn_sub(s, "mid_block"), attn = nn_sub(&mid, "attentions.0");
    bool attends = nn_wants(&mid, "attentions.0.to_q.weight", "resnets.0.conv1.weight", c->mid_block_add_attention);
    x = resnet(&mid, c, x, x->dims[3], 0);
    if (attends) {
        nn_here(&attn);
        x = attention(&attn, x, c->norm_num_groups);
    }
    return resnet(&mid, c, x, x->dims[3], 1);
}

static sm_node *head(const nn_scope *s, const sm_vae_config *c, sm_node *x, int64_t out)
{
    x = nn_group_norm(s, "conv_norm_out", x, c->norm_num_groups, EPS);
    return nn_conv(s, "conv_out", sm_silu(x), out, 3, 1, 1, true);
}

/* ---- encoder: pixels to the last block's size, then that block, attention, moments ---- */

static sm_node *down_resnets(const nn_scope *block, const sm_vae_config *c, sm_node *x, int b)
{
    for (int i = 0; i < c->layers_per_block; i++)
        x = resnet(block, c, x, c->block_out_channels[b], i);
    nn_here(block);
    return x;
}

sm_node *sm_vae_encode_high(const nn_scope *s, const sm_vae_config *c, sm_node *image)
{
    if (sm_poisoned(image) || !config_ok(s, c, image, true))
        return s->g->poison;
    nn_scope enc = nn_sub(s, "encoder");
    sm_node *x = nn_conv(&enc, "conv_in", image, c->block_out_channels[0], 3, 1, 1, true);
    for (int b = 0; b + 1 < c->blocks; b++) {
        nn_scope block = nn_sub(&enc, "down_blocks.%d", b);
        x = down_resnets(&block, c, x, b);
        x = nn_downsample(&block, "downsamplers.0.conv", x, c->block_out_channels[b], true);
    }
    return x;
}

sm_node *sm_vae_encode_low(const nn_scope *s, const sm_vae_config *c, sm_node *x)
{
    if (sm_poisoned(x))
        return x;
    bool quant = nn_wants(s, "quant_conv.weight", "encoder.conv_out.weight", c->use_quant_conv);
    nn_scope enc = nn_sub(s, "encoder"), block = nn_sub(&enc, "down_blocks.%d", c->blocks - 1);
    x = mid_block(&enc, c, down_resnets(&block, c, x, c->blocks - 1));
    nn_here(&enc);
    x = head(&enc, c, x, 2 * c->latent_channels);
    return quant ? nn_conv(s, "quant_conv", x, 2 * c->latent_channels, 1, 1, 0, true) : x;
}

sm_node *sm_vae_encode(const nn_scope *s, const sm_vae_config *c, sm_node *image)
{
    return sm_vae_encode_low(s, c, sm_vae_encode_high(s, c, image));
}

/* ---- decoder: attention and the first block at the latents' size, then up to pixels ---- */

static sm_node *up_resnets(const nn_scope *block, const sm_vae_config *c, sm_node *x, int b)
{
    for (int i = 0; i <= c->layers_per_block; i++)
        x = resnet(block, c, x, c->block_out_channels[c->blocks - 1 - b], i);
    nn_here(block);
    return x;
}

sm_node *sm_vae_decode_low(const nn_scope *s, const sm_vae_config *c, sm_node *z)
{
    if (sm_poisoned(z) || !config_ok(s, c, z, false))
        return s->g->poison;
    bool quant = nn_wants(s, "post_quant_conv.weight", "decoder.conv_in.weight", c->use_post_quant_conv);
    nn_scope dec = nn_sub(s, "decoder");
    if (quant)
        z = nn_conv(s, "post_quant_conv", z, c->latent_channels, 1, 1, 0, true);
    nn_here(&dec);
    sm_node *x = nn_conv(&dec, "conv_in", z, c->block_out_channels[c->blocks - 1], 3, 1, 1, true);
    x = mid_block(&dec, c, x);
    nn_scope block = nn_sub(&dec, "up_blocks.0");
    return up_resnets(&block, c, x, 0);
}

sm_node *sm_vae_decode_high(const nn_scope *s, const sm_vae_config *c, sm_node *x)
{
    if (sm_poisoned(x))
        return x;
    nn_scope dec = nn_sub(s, "decoder");
    for (int b = 1; b < c->blocks; b++) {
        nn_scope before = nn_sub(&dec, "up_blocks.%d", b - 1);
        x = sm_resize_nearest(x, (int)x->dims[1] * 2, (int)x->dims[2] * 2);
        x = nn_conv(&before, "upsamplers.0.conv", x, c->block_out_channels[c->blocks - b], 3, 1, 1, true);
        nn_scope block = nn_sub(&dec, "up_blocks.%d", b);
        x = up_resnets(&block, c, x, b);
    }
    nn_here(&dec);
    return head(&dec, c, x, c->out_channels);
}

sm_node *sm_vae_decode(const nn_scope *s, const sm_vae_config *c, sm_node *z)
{
    return sm_vae_decode_high(s, c, sm_vae_decode_low(s, c, z));
}

/* Every 3x3 convolution reaches a pixel of its own size further: two for each resnet, one for each change of size (a stride
 * that pads at the end reaches one to the left too), one at the ends. */
int sm_vae_reach(const sm_vae_config *c, bool encode)
{
    int f = sm_vae_factor(c), pixels = 1; /* of the largest size */
    for (int b = 1; b < c->blocks; b++) { /* decoder: at size 2^b; encoder: 2^(b-1) finer steps from the end */
        int convs = encode ? 2 * c->layers_per_block + 1 : 2 * (c->layers_per_block + 1) + 1;
        pixels += convs * (encode ? 1 << (b - 1) : f >> b);
    }
    return (pixels + f - 1) / f;
}
