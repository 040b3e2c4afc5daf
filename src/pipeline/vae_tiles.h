/* The autoencoder in pieces, in bounded memory and without seams.
 *
 * What looks at the whole picture (attention, the blocks at the latents' size) is computed whole. The rest, up to pixels, is
 * computed window by window; a window is wider than its tile by all that convolutions reach, so what is kept of it has the
 * values of the untiled computation, if the group norms have the same statistics. Those are global: they are measured first on
 * a sample of the picture, crops of it that go through all layers together, and every window uses the same. So neighbouring
 * tiles meet exactly (no blending as in diffusers' tiled_decode, which gives every tile statistics of its own); what differs
 * from the untiled result is smooth: how far the sample's statistics are from the whole picture's. More rounds measure them on
 * all tiles of the round before: after as many rounds as there are norms the result is the untiled one, fewer gain nothing
 * (an early norm's mended error is still in what the later ones saw; measured).
 *
 * Statistics measured apart are known from "Tiled VAE" (pkuliyi2015, multidiffusion-upscaler), which takes them from a
 * downscaled picture. */
#ifndef SM_VAE_TILES_H
#define SM_VAE_TILES_H

#include "model/model.h"

typedef struct sm_tiled_vae {
    sm_mem *mem;
    const struct sm_backend *be;
    sm_pool *pool;
    const sm_weights *w;      /* tensors "<component>.decoder..." */
    const char *component;    /* "vae" */
    const sm_vae_config *c;
    sm_plan_opts opts;
    sm_node *(*unscale)(const void *arg, sm_node *z); /* recorded before decoding; NULL: z is the autoencoder's own latent */
    const void *unscale_arg;
    int tile;                 /* largest window, latent pixels a side, at least three times sm_vae_reach; a picture that fits is
                                 computed whole. 0: SM_VAE_TILE */
    int rounds;               /* over the tiles, 1 or as many as norms; 0: 1 */
    int circular[2];          /* the picture's edges meet, y, x */
    const int *cancel;        /* may be NULL */
    void (*progress)(void *user, int done, int of); /* windows; may be NULL */
    void *user;
} sm_tiled_vae;

enum { SM_VAE_TILE = 80 };

/* z [h, w, latent_channels] to out [h f, w f, out_channels], f the autoencoder's factor. */
sumi_status sm_vae_decode_tiled(const sm_tiled_vae *v, const float *z, int h, int w, float *out, sm_err *e);
/* image [h f, w f, in_channels] in -1..1 to moments [h, w, 2 latent_channels]; h and w count latents here too. */
sumi_status sm_vae_encode_tiled(const sm_tiled_vae *v, const float *image, int h, int w, float *moments, sm_err *e);

typedef struct sm_vae_tiles_info {
    int down, across;         /* tiles; 1 and 1: computed whole */
    size_t bytes;             /* taken beside weights, input and output at the worst moment */
    double flops;
} sm_vae_tiles_info;

/* What one of them would take. */
sumi_status sm_vae_tiles_plan(const sm_tiled_vae *v, bool encode, int h, int w, sm_vae_tiles_info *out, sm_err *e);

#endif
