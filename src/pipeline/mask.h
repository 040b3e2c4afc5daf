/* Pictures and masks as bytes: fitting, cropping, filling, as A1111 does it with Pillow (modules/images.py, masking.py). */
#ifndef SM_PIPELINE_MASK_H
#define SM_PIPELINE_MASK_H

#include "io/image.h"
#include "io/resize.h"

typedef struct sm_rect { int x, y, w, h; } sm_rect;

typedef enum sm_fit { SM_FIT_STRETCH, SM_FIT_CROP, SM_FIT_FILL } sm_fit;

/* src [h, w, c] to dst [dh, dw, c]: stretched; scaled to cover it, what is over being cut off; or scaled to fit in, the rest
 * filled with the edges' colours. */
sumi_status sm_fit_picture(const uint8_t *src, int w, int h, int c, sm_fit fit, sm_filter f, uint8_t *dst,
                           int dw, int dh, sm_mem *mem, sm_err *e);
/* The part r of src [.., w, c]. */
void sm_cut_picture(const uint8_t *src, int w, int c, sm_rect r, uint8_t *dst);

/* RGB on white of a picture with or without alpha; rgb [height, width, 3]. */
void sm_flatten(const sm_image *im, uint8_t *rgb);
/* What a picture says as a mask: its alpha, cut at one half, where that is not the same everywhere, else its lightness. */
void sm_mask_read(const sm_image *im, uint8_t *mask);

/* The smallest part of mask [h, w] with all that is not 0, and pad pixels around; false where nothing is. */
bool sm_mask_region(const uint8_t *mask, int w, int h, int pad, sm_rect *out);
/* r, in a picture of w x h, widened to the proportions of to_w x to_h as far as the picture goes. */
sm_rect sm_mask_widen(sm_rect r, int w, int h, int to_w, int to_h);
/* What is masked gets colours from around it, blurred widely and ever less so; rgb, mask [h, w]. */
sumi_status sm_mask_fill(uint8_t *rgb, const uint8_t *mask, int w, int h, sm_mem *mem, sm_err *e);

#endif
