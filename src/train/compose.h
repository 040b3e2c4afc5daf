/* Composing a training picture: cut-out drawings placed on a plain background, and where the dice put them. */
#ifndef SM_COMPOSE_H
#define SM_COMPOSE_H

#include "train/dice.h"

/* One drawing: rgba is uint8 [size, size, 4], straight alpha, sRGB. It fills the square whose top left corner is (x, y) and
 * whose side is scale, in units of the frame (0..1). What reaches over the frame is cut. */
typedef struct sm_layer {
    const uint8_t *rgba;
    int size;
    float x, y, scale;
} sm_layer;

/* Draws n layers over the background, later ones on top, into rgb, uint8 [size, size, 3]. Filtering is of premultiplied
 * alpha: the exact area under a pixel where a drawing shrinks, bilinear where it grows; a layer at (0, 0, 1) of the frame's own
 * size comes out as it is. size 8 to 2048, layers 1 to 4096. Blending is in sRGB values, as browsers do. */
sumi_status sm_compose(const sm_layer *layer, int n, const uint8_t background[3], int size, uint8_t *rgb, sm_mem *mem, sm_err *e);

/* uint8 [n] to float [n] in [-1, 1]. */
void sm_rgb_to_float(const uint8_t *rgb, int64_t n, float *out);

/* How often and how far examples leave the plain one (a single drawing, whole frame, on white). */
typedef struct sm_compose_opts {
    float p_white;              /* background white; else any other colour */
    float p_two;                /* two things side by side, half of them twice the same where the caption has a plural */
    float scale_min, scale_max; /* of a single drawing */
} sm_compose_opts;

#define SM_COMPOSE_DEFAULT ((sm_compose_opts){.p_white = 0.5f, .p_two = 0.1f, .scale_min = 0.8f, .scale_max = 1.0f})

/* Where things go in one variant of a picture. Variant 0 is always the plain one. Never mirrored, never stretched. */
typedef struct sm_placement {
    int n; /* 1 or 2, left one first */
    struct {
        float x, y, scale;
    } at[2];
    bool same;  /* n == 2: both are the same drawing */
    int colour; /* row of sm_colours */
} sm_placement;

/* countable: the caption has a plural (sm_caption_countable). d must be fresh from sm_dice_new(.., SM_DICE_SCENE, picture,
 * variant). */
void sm_place(const sm_compose_opts *o, uint64_t variant, bool countable, sm_dice *d, sm_placement *p);

#endif
