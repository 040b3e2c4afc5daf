/* Blurring bytes: the Gaussian as OpenCV's GaussianBlur lays it, and Pillow's, which is three box filters. */
#ifndef SM_BLUR_H
#define SM_BLUR_H

#include "base/base.h"

/* x [h, w, c] in place, deviation sigma > 0 in pixels. */

/* A kernel of 2 int(2.5 sigma + 0.5) + 1 pixels; edges reflect without repeating their pixel. */
sumi_status sm_blur_gauss(uint8_t *x, int w, int h, int c, double sigma, sm_mem *mem, sm_err *e);
/* Three running means along each axis whose variance is sigma^2 together (Gwosdek et al. 2011), rounded after each; edges
 * repeat. */
sumi_status sm_blur_boxes(uint8_t *x, int w, int h, int c, double sigma, sm_mem *mem, sm_err *e);

#endif
