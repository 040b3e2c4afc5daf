/* A tiny autoencoder that was distilled from the large one of the same latents (madebyollin/taesd), in the layout of diffusers'
 * AutoencoderTiny (models/autoencoders/autoencoder_tiny.py, vae.py: EncoderTiny, DecoderTiny): 3x3 convolutions and blocks of
 * three, nothing but ReLU between them, no norms. Layers without tensors are the first activation and the upsamplers. */
#include "model/taesd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names --------------------------------------------------------------------------------------------------------- */

static const char *after(const char *s, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(s, prefix, n) ? NULL : s + n;
}

static bool layer_tensor(const char *s)
{
    static const char *const names[] = {"weight", "bias", "conv.0.weight", "conv.0.bias", "conv.2.weight", "conv.2.bias",
                                        "conv.4.weight", "conv.4.bias", "skip.weight"};
    for (size_t i = 0; i < SM_COUNT(names); i++)
        if (!strcmp(s, names[i]))
            return true;
    return false;
}

/* The authors' decoder counts its first layer, which clamps; diffusers' does not. */
bool sm_taesd_name(const char *stored, bool decoder, char *out, size_t size)
{
    static const struct { const char *prefix; bool decoder; } halves[] = {
        {"taesd_decoder.", true}, {"taesd_encoder.", false}, {"decoder.", true}, {"encoder.", false}};
    const char *rest = stored;
    for (size_t i = 0; i < SM_COUNT(halves) && rest == stored; i++)
        if (after(stored, halves[i].prefix)) {
            rest = after(stored, halves[i].prefix);
            decoder = halves[i].decoder;
        }
    const char *own = after(rest, "layers."), *number = own ? own : rest;
    char *end;
    long i = number[0] >= '0' && number[0] <= '9' ? strtol(number, &end, 10) : -1;
    if (i < 0 || i > SM_TAESD_LAYERS || *end != '.' || !layer_tensor(end + 1) || (!own && decoder && i < 1))
        return false;
    return snprintf(out, size, "%s.layers.%ld%s", decoder ? "decoder" : "encoder", i - (!own && decoder), end) < (int)size;
}

/* ---- sizes --------------------------------------------------------------------------------------------------------- */

static const sm_weight *tensor(const sm_weights *w, const char *half, int i, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "%s.layers.%d.%s", half, i, name);
    return sm_weights_find(w, full);
}

enum { MOST = 64 }; /* pixels a latent: the large ones have 8 to 32 */

/* Layers as the tensors tell them; a decoder's convolution after a layer without tensors is behind an upsampler, an encoder's
 * later ones but the last halve. */
static sumi_status detect_half(const sm_weights *w, bool decoder, sm_taesd_half *h, const char *what, sm_err *e)
{
    const char *half = decoder ? "decoder" : "encoder";
    double reach = 0;
    *h = (sm_taesd_half){.factor = 1};
    for (int i = 0; i < SM_TAESD_LAYERS; i++) {
        h->layer[i] = tensor(w, half, i, "weight") ? SM_TINY_CONV
                                                   : tensor(w, half, i, "conv.0.weight") ? SM_TINY_BLOCK : SM_TINY_NONE;
        h->layers = h->layer[i] ? i + 1 : h->layers;
    }
    if (!h->layers)
        return SUMI_OK;
    const sm_weight *ends = tensor(w, half, decoder ? 0 : h->layers - 1, "weight");
    if (!ends || ends->t.rank != 4 || h->layer[h->layers - 1] != SM_TINY_CONV || h->layer[0] != SM_TINY_CONV)
        return sm_fail(e, SUMI_E_MODEL, "%s: its %s does not begin and end in a convolution: no tiny autoencoder that is known",
                       what, half);
    h->channels = (int)ends->t.dims[decoder ? 1 : 0];
    for (int i = 0; i < h->layers; i++) {
        if (!h->layer[i] && (!decoder || (i > 1 && h->layer[i + 1] != SM_TINY_CONV)))
            return sm_fail(e, SUMI_E_MODEL, "%s: %s.layers.%d is missing", what, half, i);
        double convs = h->layer[i] == SM_TINY_BLOCK ? 3 : h->layer[i] == SM_TINY_CONV;
        reach += decoder ? convs / h->factor : convs * h->factor;
        if (decoder ? !h->layer[i] && i > 1 : h->layer[i] == SM_TINY_CONV && i && i + 1 < h->layers)
            h->factor *= 2;
        if (h->factor > MOST)
            return sm_fail(e, SUMI_E_MODEL, "%s: its %s changes the size more than %d times", what, half, MOST);
    }
    h->reach = (int)(decoder ? reach : reach / h->factor) + 1;
    return SUMI_OK;
}

sumi_status sm_detect_taesd(const sm_weights *w, sm_taesd_config *c, const char *what, sm_err *e)
{
    if (detect_half(w, true, &c->decoder, what, e) || detect_half(w, false, &c->encoder, what, e))
        return e->code;
    if (!c->decoder.layers && !c->encoder.layers)
        return sm_fail(e, SUMI_E_MODEL, "%s: holds no tensors of a tiny autoencoder (decoder.layers.0.weight, 1.weight)", what);
    return SUMI_OK;
}

/* ---- recording ----------------------------------------------------------------------------------------------------- */

static int64_t width(const nn_scope *s, const char *name, int64_t otherwise) { return nn_dim(s, name, 0, otherwise); }

static sm_node *block(const nn_scope *s, sm_node *x)
{
    int64_t out = width(s, "conv.0.weight", x->dims[3]);
    sm_node *h = nn_conv(s, "conv.0", x, out, 3, 1, 1, true);
    h = nn_conv(s, "conv.2", sm_unary(SM_OP_RELU, h), out, 3, 1, 1, true);
    h = nn_conv(s, "conv.4", sm_unary(SM_OP_RELU, h), out, 3, 1, 1, true);
    sm_node *skip = nn_has(s, "skip.weight") ? nn_conv(s, "skip", x, out, 1, 1, 0, false) : x;
    nn_here(s);
    return sm_unary(SM_OP_RELU, sm_add(h, skip));
}

static sm_node *layers(const nn_scope *s, const sm_taesd_half *c, bool decoder, sm_node *x)
{
    nn_scope half = nn_sub(s, decoder ? "decoder" : "encoder");
    for (int i = 0; i < c->layers; i++) {
        nn_scope l = nn_sub(&half, "layers.%d", i);
        char name[24], weight[40];
        snprintf(name, sizeof name, "layers.%d", i);
        snprintf(weight, sizeof weight, "%s.weight", name);
        bool turns = i && i + 1 < c->layers;
        nn_here(&l);
        if (c->layer[i] == SM_TINY_BLOCK)
            x = block(&l, x);
        else if (c->layer[i] == SM_TINY_CONV)
            x = nn_conv(&half, name, x, width(&half, weight, x->dims[3]), 3, !decoder && turns ? 2 : 1, 1, true);
        else if (i == 1)
            x = sm_unary(SM_OP_RELU, x);
        else
            x = sm_resize_nearest(x, (int)x->dims[1] * 2, (int)x->dims[2] * 2);
    }
    nn_here(s);
    return x;
}

sm_node *sm_taesd_decode(const nn_scope *s, const sm_taesd_config *c, sm_node *z)
{
    if (sm_poisoned(z))
        return z;
    z = sm_affine(sm_unary(SM_OP_TANH, sm_affine(z, 1.0f / 3, 0)), 3, 0);
    return sm_affine(layers(s, &c->decoder, true, z), 2, -1);
}

sm_node *sm_taesd_encode(const nn_scope *s, const sm_taesd_config *c, sm_node *image)
{
    return sm_poisoned(image) ? image : layers(s, &c->encoder, false, sm_affine(image, 0.5f, 0.5f));
}
