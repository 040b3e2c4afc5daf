/* Latents to pixels: the decoder of a request. */
#ifndef SM_PIPELINE_DECODE_H
#define SM_PIPELINE_DECODE_H

#include "pipeline/generate.h"
#include "pipeline/preview.h"
#include "pipeline/tiny.h"
#include "pipeline/vae_tiles.h"

typedef struct sm_decode {
    const sm_job *j;
    int h, w, c;    /* of a latent */
    int tile;       /* largest piece that is decoded at once, latents a side; 0: the whole picture */
    sm_part part;   /* opened by the first picture that is decoded whole */
    float *pixels;  /* [height, width, 3], of pictures decoded in tiles */
    bool by_tiny;   /* the tiny decoder gives the pictures */
    sm_tiny_bands tiny;   /* where pictures or previews ask for it; j NULL: neither does */
    uint8_t *small; /* [h, w, 3], a preview; NULL when nobody looks */
    uint8_t *large; /* [height, width, 3], one of the tiny decoder */
    sm_preview_method method;
    const sm_linear_rgb *linear; /* for latents that are known, or fitted: own */
    sm_linear_rgb own;
} sm_decode;

sumi_status sm_decode_init(sm_decode *d, const sm_job *j, int h, int w, sm_err *e);
void sm_decode_done(sm_decode *d);  /* the plan is released, the next picture makes another */
void sm_decode_close(sm_decode *d);
/* Whether pictures are decoded in tiles; if so, what that takes, else the plan for one picture. */
bool sm_decode_tiled(const sm_decode *d);
sumi_status sm_decode_plan_tiles(const sm_decode *d, sm_vae_tiles_info *out, sm_err *e);
sumi_status sm_decode_open(sm_decode *d, sm_err *e);
const sm_part *sm_decode_part(const sm_decode *d);
double sm_decode_flops(const sm_decode *d); /* of a picture, by the plan that sm_decode_open made */
/* n latents [n, h, w, c] into rgb [n, height, width, 3]; first: number of the first one, for messages. */
sumi_status sm_decode_run(sm_decode *d, const float *latents, int first, int n, uint8_t *rgb, sm_err *e);
/* Pictures of latents for the caller's preview, if there is one. */
sumi_status sm_decode_preview(sm_decode *d, const float *latents, int first, int n, int step, sm_err *e);

/* Pieces in which pictures of h x w latents are decoded or encoded, latents a side, 0: whole. As large as the request says; by
 * itself whole up to 1024x1024 pixels, or TILE_LOW latents a side where memory is short. */
sumi_status sm_job_vae_tile(const sm_job *j, bool encode, int h, int w, int *tile, sm_err *e);

#endif
