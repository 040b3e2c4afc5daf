/* From numbers to pixels, and contact sheets: many pictures of one size on one. */
#ifndef SM_SHEET_H
#define SM_SHEET_H

#include "base/base.h"

/* float [n] in about [-1, 1] to uint8 [n], rounded, cut at the ends; NaN gives 0. */
void sm_pixels_from_float(const float *x, int64_t n, uint8_t *rgb);

/* Lays count pictures (uint8 [count, h, w, 3]) out in rows of `columns` with a gap of 4 white pixels; *sheet is allocated
 * (sm_free), its size written to *width and *height. */
sumi_status sm_sheet_make(const uint8_t *rgb, int count, int w, int h, int columns, sm_mem *mem, uint8_t **sheet,
                          int *width, int *height, sm_err *e);

#endif
