/* Pictures and masks as bytes (see mask.h). Quotients and rounding are those of Pillow's paste, alpha_composite and convert. */
#include "pipeline/mask.h"

#include <string.h>

#include "io/blur.h"

/* ---- fitting ------------------------------------------------------------------------------------------------------- */

void sm_cut_picture(const uint8_t *src, int w, int c, sm_rect r, uint8_t *dst)
{
    size_t line = (size_t)r.w * (size_t)c;
    for (int y = 0; y < r.h; y++)
        memcpy(dst + (size_t)y * line, src + ((size_t)(r.y + y) * (size_t)w + (size_t)r.x) * (size_t)c, line);
}

/* src [h, w, c] with its corner at (x, y) of dst; what is outside is cut off. */
static void paste(const uint8_t *src, int w, int h, int c, uint8_t *dst, int dw, int dh, int x, int y)
{
    int from = SM_MAX(-x, 0), n = SM_MIN(w, dw - x) - from;
    for (int r = SM_MAX(-y, 0); r < h && y + r < dh && n > 0; r++)
        memcpy(dst + ((size_t)(y + r) * (size_t)dw + (size_t)(x + from)) * (size_t)c,
               src + ((size_t)r * (size_t)w + (size_t)from) * (size_t)c, (size_t)n * (size_t)c);
}

/* A band of bw x bh beside the picture: its edge, drawn out from a box without width or height. */
static sumi_status band(const uint8_t *src, int w, int h, int c, sm_box edge, int bw, int bh, uint8_t *room,
                        uint8_t *dst, int dw, int dh, int x, int y, sm_mem *mem, sm_err *e)
{
    if (bw < 1 || bh < 1 || sm_resize(src, w, h, c, &edge, SM_FILTER_BICUBIC, room, bw, bh, mem, e))
        return e->code;
    paste(room, bw, bh, c, dst, dw, dh, x, y);
    return SUMI_OK;
}

static sumi_status bands(const uint8_t *src, int w, int h, int c, uint8_t *room, uint8_t *dst, int dw,
                         int dh, sm_mem *mem, sm_err *e)
{
    int x = dw / 2 - w / 2, y = dh / 2 - h / 2;
    if (h < dh && (band(src, w, h, c, (sm_box){0, 0, w, 0}, dw, y, room, dst, dw, dh, 0, 0, mem, e) ||
                   band(src, w, h, c, (sm_box){0, h, w, h}, dw, dh - y - h, room, dst, dw, dh, 0, y + h, mem, e)))
        return e->code;
    if (w < dw && (band(src, w, h, c, (sm_box){0, 0, 0, h}, x, dh, room, dst, dw, dh, 0, 0, mem, e) ||
                   band(src, w, h, c, (sm_box){w, 0, w, h}, dw - x - w, dh, room, dst, dw, dh, x + w, 0, mem, e)))
        return e->code;
    return SUMI_OK;
}

sumi_status sm_fit_picture(const uint8_t *src, int w, int h, int c, sm_fit fit, sm_filter f, uint8_t *dst,
                           int dw, int dh, sm_mem *mem, sm_err *e)
{
    double ratio = (double)dw / dh, own = (double)w / h;
    bool wide = fit == SM_FIT_CROP ? ratio > own : ratio < own, high = fit == SM_FIT_CROP ? ratio <= own : ratio >= own;
    int sw = wide ? dw : SM_MAX((int)((int64_t)w * dh / h), 1), sh = high ? dh : SM_MAX((int)((int64_t)h * dw / w), 1);
    if (fit == SM_FIT_STRETCH)
        return sm_resize(src, w, h, c, NULL, f, dst, dw, dh, mem, e);
    size_t scaled = (size_t)sw * (size_t)sh * (size_t)c, whole = (size_t)dw * (size_t)dh * (size_t)c;
    uint8_t *room = sm_alloc(mem, SM_MEM_DATA, scaled + whole);
    if (!room)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory resizing a picture from %dx%d to %dx%d", w, h, dw, dh);
    if (!sm_resize(src, w, h, c, NULL, f, room, sw, sh, mem, e)) {
        paste(room, sw, sh, c, dst, dw, dh, dw / 2 - sw / 2, dh / 2 - sh / 2);
        if (fit == SM_FIT_FILL)
            bands(room, sw, sh, c, room + scaled, dst, dw, dh, mem, e);
    }
    sm_free(room);
    return e->code;
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

/* x / 255, rounded, for 0 <= x <= 65025. */
static unsigned over_255(unsigned x) { return (x + 128 + ((x + 128) >> 8)) >> 8; }

void sm_flatten(const sm_image *im, uint8_t *rgb)
{
    const uint8_t *x = im->pixels;
    size_t n = (size_t)im->width * (size_t)im->height;
    for (size_t i = 0; i < n; i++, x += im->channels)
        for (int k = 0; k < 3; k++)
            rgb[3 * i + (size_t)k] = im->channels == 4 ? (uint8_t)over_255(x[k] * (unsigned)x[3] + 255u * (255u - x[3])) : x[k];
}

void sm_mask_read(const sm_image *im, uint8_t *mask)
{
    const uint8_t *x = im->pixels;
    size_t n = (size_t)im->width * (size_t)im->height;
    bool alpha = false;
    for (size_t i = 0; i < n && im->channels == 4 && !alpha; i++)
        alpha = x[4 * i + 3] != 255;
    for (size_t i = 0; i < n; i++, x += im->channels) /* lightness: 299, 587 and 114 thousandths, in 16 bits */
        mask[i] = alpha ? (x[3] > 128 ? 255 : 0) : (uint8_t)((x[0] * 19595u + x[1] * 38470u + x[2] * 7471u + 0x8000u) >> 16);
}

/* ---- where the mask is --------------------------------------------------------------------------------------------- */

bool sm_mask_region(const uint8_t *mask, int w, int h, int pad, sm_rect *out)
{
    int x0 = w, x1 = -1, y0 = h, y1 = -1;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            if (mask[(size_t)y * (size_t)w + (size_t)x]) {
                x0 = SM_MIN(x0, x);
                x1 = SM_MAX(x1, x);
                y0 = SM_MIN(y0, y);
                y1 = y;
            }
    if (x1 < 0)
        return false;
    x0 = SM_MAX(x0 - pad, 0);
    y0 = SM_MAX(y0 - pad, 0);
    *out = (sm_rect){x0, y0, SM_MIN(x1 + 1 + pad, w) - x0, SM_MIN(y1 + 1 + pad, h) - y0};
    return true;
}

/* Grows the stretch at, len by `more`, half on either side, moved back into 0..size. */
static void grow(int *at, int *len, int more, int size)
{
    int from = *at - more / 2, to = *at + *len + more - more / 2;
    if (to >= size) {
        from -= to - size;
        to = size;
    }
    if (from < 0) {
        to -= from;
        from = 0;
    }
    to = SM_MIN(to, size);
    *at = from;
    *len = to - from;
}

sm_rect sm_mask_widen(sm_rect r, int w, int h, int to_w, int to_h)
{
    double ratio = (double)to_w / to_h;
    if ((double)r.w / r.h > ratio)
        grow(&r.y, &r.h, (int)(r.w / ratio - r.h), h);
    else
        grow(&r.x, &r.w, (int)(r.h * ratio - r.w), w);
    return r;
}

/* ---- filling ------------------------------------------------------------------------------------------------------- */

/* Straight colours of premultiplied ones, over dst, both RGBA of n pixels. */
static void lay_over(const uint8_t *premultiplied, uint8_t *dst, size_t n)
{
    for (size_t i = 0; i < n; i++, premultiplied += 4, dst += 4) {
        unsigned a = premultiplied[3], rest = dst[3] * (255 - a), all = a * 255 + rest;
        if (!a)
            continue;
        unsigned top = a * 255u * 255u * 128u / all, below = 255u * 128u - top; /* shares of 255 * 128 */
        for (int k = 0; k < 3; k++) {
            unsigned straight = a == 255 ? premultiplied[k] : SM_MIN(255u * premultiplied[k] / a, 255u);
            unsigned x = straight * top + dst[k] * below + (128u << 7);
            dst[k] = (uint8_t)(((x >> 8) + x) >> 8 >> 7);
        }
        dst[3] = (uint8_t)over_255(all);
    }
}

sumi_status sm_mask_fill(uint8_t *rgb, const uint8_t *mask, int w, int h, sm_mem *mem, sm_err *e)
{
    static const struct { int sigma, times; } rounds[] = {{256, 1}, {64, 1}, {16, 2}, {4, 4}, {2, 2}, {0, 1}};
    size_t n = (size_t)w * (size_t)h;
    uint8_t *bare = sm_alloc(mem, SM_MEM_DATA, n * 12), *blurred = bare ? bare + 4 * n : NULL, *out = bare ? bare + 8 * n : NULL;
    if (!bare)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory filling a mask of %dx%d", w, h);
    for (size_t i = 0; i < n; i++) {
        for (int k = 0; k < 3; k++)
            bare[4 * i + (size_t)k] = (uint8_t)over_255(rgb[3 * i + (size_t)k] * (255u - mask[i]));
        bare[4 * i + 3] = (uint8_t)(255 - mask[i]);
    }
    memset(out, 0, 4 * n);
    for (size_t r = 0; r < SM_COUNT(rounds) && !e->code; r++) {
        memcpy(blurred, bare, 4 * n);
        if (rounds[r].sigma)
            sm_blur_boxes(blurred, w, h, 4, rounds[r].sigma, mem, e);
        for (int k = 0; k < rounds[r].times; k++)
            lay_over(blurred, out, n);
    }
    for (size_t i = 0; i < n && !e->code; i++)
        memcpy(rgb + 3 * i, out + 4 * i, 3);
    sm_free(bare);
    return e->code;
}
