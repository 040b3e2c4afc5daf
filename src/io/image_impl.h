/* What image.c and the file of each format share. */
#ifndef SM_IMAGE_IMPL_H
#define SM_IMAGE_IMPL_H

#include "io/image.h"

/* A decoder's job: image.c has recognised the format. A decoder sets the picture's size with sm_image_shape before it
 * decodes, adds texts, and leaves freeing im on failure to image.c. */
typedef struct sm_image_source {
    const uint8_t *data;
    size_t size;
    const char *label;
    int max_side;
    sm_mem *mem;
} sm_image_source;

sumi_status sm_png_decode(sm_image *im, const sm_image_source *s, sm_err *e);
sumi_status sm_jpeg_decode(sm_image *im, const sm_image_source *s, sm_err *e);
sumi_status sm_webp_decode(sm_image *im, const sm_image_source *s, sm_err *e);

/* Encoders: im and texts are checked. */
sumi_status sm_png_encode(const sm_image *im, int ntext, const sm_image_text *text, sm_buf *out, sm_err *e);
sumi_status sm_jpeg_encode(const sm_image *im, int quality, int ntext, const sm_image_text *text, sm_buf *out, sm_err *e);
sumi_status sm_webp_encode(const sm_image *im, int quality, int ntext, const sm_image_text *text, sm_buf *out, sm_err *e);

/* Checks the size against the limit and allocates the pixels (not cleared). */
sumi_status sm_image_shape(sm_image *im, const sm_image_source *s, uint64_t width, uint64_t height, int channels, sm_err *e);

/* Adds a text that a file holds; NULs at its end are cut. One that is not UTF-8, has NULs inside or no room is ignored.
 * False when memory is short. */
bool sm_image_add_text(sm_image *im, const char *key, const char *value, size_t n);

/* ---- EXIF (exif.c) ----------------------------------------------------------------------------------------------- */

/* Appends "Exif\0\0" and a TIFF structure that holds the texts. */
void sm_exif_write(sm_buf *out, int ntext, const sm_image_text *text);
/* Adds what an EXIF block (with or without its "Exif\0\0") says in texts, and its orientation where none is known yet. Whatever
 * is malformed is skipped. False when memory is short. */
bool sm_exif_read(sm_image *im, const uint8_t *data, size_t n);

#endif
