/* Pictures and latents at another size. Bytes are resampled as by Pillow's Image.resize (filters that widen when they shrink,
 * weights in 22 bits, rows first, rounded between the two), floats as by torch's interpolate (align_corners false). */
#ifndef SM_RESIZE_H
#define SM_RESIZE_H

#include "base/base.h"

typedef enum sm_filter {
    SM_FILTER_NEAREST, SM_FILTER_BOX, SM_FILTER_BILINEAR, SM_FILTER_HAMMING, SM_FILTER_BICUBIC, SM_FILTER_LANCZOS, SM_FILTER_COUNT
} sm_filter;

/* "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"; SM_FILTER_COUNT for another. */
sm_filter sm_filter_find(const char *name);

typedef struct sm_box { double x0, y0, x1, y1; } sm_box; /* a part of the source, in its pixels; may have no width or height */

/* src [h, w, c] to dst [dh, dw, c]; box NULL: the whole. Channels are taken each for itself (no alpha). */
sumi_status sm_resize(const uint8_t *src, int w, int h, int c, const sm_box *box, sm_filter f, uint8_t *dst,
                      int dw, int dh, sm_mem *mem, sm_err *e);

/* torch's modes; the antialiased ones widen when they shrink. */
typedef enum sm_interp {
    SM_INTERP_NEAREST, SM_INTERP_NEAREST_EXACT, SM_INTERP_BILINEAR, SM_INTERP_BICUBIC, SM_INTERP_BILINEAR_AA, SM_INTERP_BICUBIC_AA
} sm_interp;

/* src [h, w, c] to dst [dh, dw, c]. */
sumi_status sm_interpolate(const float *src, int w, int h, int c, sm_interp mode, float *dst, int dw,
                           int dh, sm_mem *mem, sm_err *e);

#endif
