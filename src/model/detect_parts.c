/* The autoencoder's and the text encoders' configuration from tensors. What no tensor tells (groups, heads, activations, the
 * latent's scale) is what the published models of that width have; tiny models get the nearest rule that fits, as said at
 * each. */
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/detect_impl.h"

static const sm_weight *find(const look *l, const char *fmt, va_list ap)
{
    char name[256];
    int n = snprintf(name, sizeof name, "%s.", l->component), m = vsnprintf(name + n, sizeof name - (size_t)n, fmt, ap);
    return n + m < (int)sizeof name ? sm_weights_find(l->w, name) : NULL;
}

const sm_weight *sm_look(const look *l, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    const sm_weight *w = find(l, fmt, ap);
    va_end(ap);
    return w;
}

int sm_look_dim(const look *l, int axis, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    const sm_weight *w = find(l, fmt, ap);
    va_end(ap);
    bool there = w && axis < w->t.rank && w->t.dims[axis] > 0 && w->t.dims[axis] <= 1 << 24;
    return there ? (int)w->t.dims[axis] : 0;
}

int sm_look_count(const look *l, int most, const char *fmt)
{
    const char *hole = strstr(fmt, "%d");
    int n = 0;
    while (n < most && sm_look(l, "%.*s%d%s", (int)(hole - fmt), fmt, n, hole + 2))
        n++;
    return n;
}

int sm_detect_groups(const int *widths, int n)
{
    int groups = 32;
    for (int i = 0; i < n; i++)
        while (widths[i] % groups)
            groups /= 2;
    return groups;
}

/* ---- AutoencoderKL ----------------------------------------------------------------------------------------------- */

/* What the latent is multiplied by is learnt by nothing: one number per published autoencoder, told apart by the denoiser in
 * the same table. Alone, 4 channels count as Stable Diffusion 1.x' and 16 as version 3's. */
static void scale_latent(const sm_weights *w, sm_vae_config *c)
{
    bool xl = sm_weights_find(w, "unet.add_embedding.linear_1.weight") != NULL;
    c->scaling_factor = c->latent_channels == 16 ? 1.5305f : xl ? 0.13025f : 0.18215f;
    c->shift_factor = c->latent_channels == 16 ? 0.0609f : 0;
}

sumi_status sm_detect_vae(const sm_weights *w, const char *component, sm_vae_config *c, sm_err *e)
{
    look l = {w, component};
    *c = (sm_vae_config){.in_channels = sm_look_dim(&l, 1, "encoder.conv_in.weight"),
                         .out_channels = sm_look_dim(&l, 0, "decoder.conv_out.weight"),
                         .latent_channels = sm_look_dim(&l, 1, "decoder.conv_in.weight"),
                         .blocks = sm_look_count(&l, SM_BLOCKS, "decoder.up_blocks.%d.resnets.0.conv1.weight"),
                         .layers_per_block = sm_look_count(&l, SM_LAYERS + 1, "decoder.up_blocks.0.resnets.%d.conv1.weight") - 1,
                         .use_quant_conv = sm_look(&l, "quant_conv.weight"),
                         .use_post_quant_conv = sm_look(&l, "post_quant_conv.weight"),
                         .mid_block_add_attention = sm_look(&l, "decoder.mid_block.attentions.0.to_q.weight")};
    for (int i = 0; i < c->blocks; i++) {
        int up = sm_look_dim(&l, 0, "decoder.up_blocks.%d.resnets.0.conv1.weight", c->blocks - 1 - i);
        int down = sm_look_dim(&l, 0, "encoder.down_blocks.%d.resnets.0.conv1.weight", i);
        if (up < 1 || (down && down != up))
            return sm_fail(e, SUMI_E_SUPPORT, "%s: level %d of the encoder has %d channels, of the decoder %d; only autoencoders "
                           "with a mirrored decoder are supported", component, i, down, up);
        c->block_out_channels[i] = up;
    }
    if (!c->in_channels) /* a decoder alone */
        c->in_channels = c->out_channels;
    if (c->blocks < 1 || c->layers_per_block < 1 || c->latent_channels < 1 || c->out_channels < 1)
        return sm_fail(e, SUMI_E_MODEL, "%s: no decoder of an AutoencoderKL (decoder.conv_in, up_blocks.N.resnets.N, conv_out)",
                       component);
    c->norm_num_groups = sm_detect_groups(c->block_out_channels, c->blocks);
    scale_latent(w, c);
    return SUMI_OK;
}

/* ---- CLIPTextModel ----------------------------------------------------------------------------------------------- */

/* OpenAI's CLIP has the quick GELU, OpenCLIP's the exact one. Told by the published widths: 768 and below is OpenAI's L,
 * 1024 and 1280 OpenCLIP's H and bigG. Among narrow ones a second encoder, and that of a UNet of version 2 (linear
 * projections, no added embedding), count as OpenCLIP's. */
static sm_act activation(const sm_weights *w, const char *component, int width)
{
    if (width == 768 || width >= 1024)
        return width == 768 ? SM_ACT_QUICK_GELU : SM_ACT_GELU_ERF;
    sm_unet_config u;
    bool two = !sm_weights_find(w, "unet.add_embedding.linear_1.weight") && sm_weights_find(w, "unet.conv_in.weight") &&
               !sm_detect_unet(w, "unet", &u, &(sm_err){0}) && u.use_linear_projection;
    return two || !strcmp(component, "text_encoder_2") ? SM_ACT_GELU_ERF : SM_ACT_QUICK_GELU;
}

sumi_status sm_detect_clip(const sm_weights *w, const char *component, sm_clip_config *c, sm_err *e)
{
    look l = {w, component};
    int width = sm_look_dim(&l, 1, "text_model.embeddings.token_embedding.weight");
    *c = (sm_clip_config){.vocab_size = sm_look_dim(&l, 0, "text_model.embeddings.token_embedding.weight"),
                          .hidden_size = width,
                          .intermediate_size = sm_look_dim(&l, 0, "text_model.encoder.layers.0.mlp.fc1.weight"),
                          .num_hidden_layers = sm_look_count(&l, SM_LAYERS + 1, "text_model.encoder.layers.%d.mlp.fc1.weight"),
                          .max_position_embeddings = sm_look_dim(&l, 0, "text_model.embeddings.position_embedding.weight"),
                          .projection_dim = sm_look_dim(&l, 0, "text_projection.weight"),
                          .layer_norm_eps = 1e-5f};
    if (c->vocab_size < 1 || width < 1 || c->intermediate_size < 1 || c->max_position_embeddings < 1)
        return sm_fail(e, SUMI_E_MODEL, "%s: no CLIP text encoder (text_model.embeddings, encoder.layers.0.mlp.fc1)", component);
    if (c->num_hidden_layers > SM_LAYERS)
        return sm_fail(e, SUMI_E_SUPPORT, "%s: more than %d layers", component, SM_LAYERS);
    if (sm_look_dim(&l, 1, "text_model.embeddings.position_embedding.weight") != width ||
        sm_look_dim(&l, 1, "text_model.encoder.layers.0.mlp.fc1.weight") != width)
        return sm_fail(e, SUMI_E_MODEL, "%s: token_embedding is %d wide, position_embedding or layers.0.mlp.fc1 is not",
                       component, width);
    /* Heads are 64 wide, in the reference libraries' tiny models 8; the end mark is the last id of CLIP's vocabulary, elsewhere
     * the highest in a text. */
    c->num_attention_heads = width % 64 == 0 ? width / 64 : width % 8 == 0 ? width / 8 : 1;
    c->eos_token_id = c->vocab_size >= 49408 ? 49407 : 2;
    c->hidden_act = activation(w, component, width);
    return SUMI_OK;
}
