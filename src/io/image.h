/* Pictures: 8-bit RGB or RGBA in memory, PNG, JPEG or WebP outside, with text metadata. A file's format is recognised by its
 * content when read and chosen by its extension when written. */
#ifndef SM_IMAGE_H
#define SM_IMAGE_H

#include "base/base.h"

enum { SM_IMAGE_MAX_SIDE = 16384, SM_IMAGE_MAX_TEXTS = 64 };

typedef enum sm_image_format { SM_IMAGE_PNG, SM_IMAGE_JPEG, SM_IMAGE_WEBP } sm_image_format;

/* Both UTF-8. "parameters" is the key of a picture's generation parameters, as the tools of the field use it. */
typedef struct sm_image_text {
    const char *key, *value;
} sm_image_text;

/* For saving only width, height, channels and pixels count; text and arena are what loading found. */
typedef struct sm_image {
    int width, height, channels; /* 3: RGB, 4: RGBA with straight alpha */
    uint8_t *pixels;             /* rows from the top, dense */
    sm_image_text *text;
    int ntext;                   /* at most SM_IMAGE_MAX_TEXTS; further ones of a file are ignored */
    int orientation;             /* EXIF's, 1..8, as the file was stored; 0: it says none. pixels are upright */
    sm_arena arena;
} sm_image;

/* On failure *im is all zero. Grey, palette, 16-bit, CMYK and interlaced files become RGB(A) of 8 bits, turned and mirrored
 * as their EXIF orientation says; colour profiles and gamma are not applied. Damaged or truncated files, sides past max_side
 * (0: SM_IMAGE_MAX_SIDE) and animations are refused. label names the bytes in messages. */
sumi_status sm_image_load(sm_image *im, const char *path, sm_mem *mem, sm_err *e);
sumi_status sm_image_decode(sm_image *im, const void *data, size_t size, const char *label, int max_side, sm_mem *mem, sm_err *e);
void sm_image_free(sm_image *im);
const char *sm_image_text_find(const sm_image *im, const char *key); /* NULL when absent */

/* The format that the path's extension names: .png .jpg .jpeg .webp. */
sumi_status sm_image_format_of(const char *path, sm_image_format *f, sm_err *e);

/* Appends the encoded picture to out. quality: 1..100 for JPEG and lossy WebP; 0 is the default (JPEG 95, WebP lossless).
 * JPEG has no alpha: the picture is laid on white. Texts: a key has 1..79 printable ASCII characters. In JPEG and WebP they are
 * EXIF, "parameters" as UserComment, together under 64 KB in JPEG. */
sumi_status sm_image_encode(const sm_image *im, sm_image_format f, int quality, int ntext, const sm_image_text *text, sm_buf *out,
                            sm_err *e);
/* Encodes with the default quality and writes the file atomically. text may be NULL. */
sumi_status sm_image_save(const sm_image *im, const char *path, const sm_image_text *text, sm_mem *mem, sm_err *e);

#endif
