/* The tiny autoencoder of latents (madebyollin/taesd; AutoencoderTiny of diffusers): its sizes are those of its tensors. */
#ifndef SM_TAESD_H
#define SM_TAESD_H

#include "nn/nn.h"

enum { SM_TAESD_LAYERS = 64 };

/* Of one half: how many layers, what each is, pixels a latent along an axis, how many latents far a pixel (decoder) or a latent
 * (encoder) sees. */
typedef enum sm_tiny_layer { SM_TINY_NONE, SM_TINY_CONV, SM_TINY_BLOCK } sm_tiny_layer;
typedef struct sm_taesd_half {
    int layers, channels, factor, reach; /* layers 0: the file lacks this half; channels of the latents */
    unsigned char layer[SM_TAESD_LAYERS];
} sm_taesd_half;
typedef struct sm_taesd_config { sm_taesd_half decoder, encoder; } sm_taesd_config;

/* From tensors under diffusers' names, "decoder.layers.0.weight". what: a name for messages. */
sumi_status sm_detect_taesd(const sm_weights *w, sm_taesd_config *c, const char *what, sm_err *e);
/* Diffusers' name of a tensor that the authors, ComfyUI or diffusers stored as `stored`; false: it is none of such a model.
 * decoder: what a file is whose names do not say which half they are of. */
bool sm_taesd_name(const char *stored, bool decoder, char *out, size_t size);

/* z [N,h,w,channels], latents as the denoiser has them -> [N,h factor,w factor,3], about -1..1. */
sm_node *sm_taesd_decode(const nn_scope *s, const sm_taesd_config *c, sm_node *z);
/* image [N,H,W,3] in -1..1 -> such latents. */
sm_node *sm_taesd_encode(const nn_scope *s, const sm_taesd_config *c, sm_node *image);

#endif
