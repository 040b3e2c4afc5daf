/* PNG through libpng, with errors as jumps into the function that started and all memory accounted. Texts are tEXt when
 * they are ASCII, iTXt otherwise; read are tEXt, zTXt, iTXt and eXIf. */
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "io/image_impl.h"

enum { MAX_CHUNK = 8 << 20 };

/* One reading or writing. Lives in the caller of the function that calls setjmp, so a jump leaves it intact. */
typedef struct session {
    png_structp png;
    png_infop info;
    sm_mem *mem;
    const uint8_t *at;   /* reading: what is left */
    size_t left;
    sm_buf *out;         /* writing */
    sumi_status code;    /* of the failure */
    char msg[128];
    jmp_buf jump;
} session;

static void on_error(png_structp png, png_const_charp msg)
{
    session *s = png_get_error_ptr(png);
    if (s->code == SUMI_OK) { /* else memory was short, which libpng may put in other words */
        s->code = SUMI_E_FORMAT;
        snprintf(s->msg, sizeof s->msg, "%s", msg);
    }
    longjmp(s->jump, 1);
}

static void on_warning(png_structp png, png_const_charp msg) {}

/* libpng only warns of a chunk past its limit and goes on to allocate the length it claims, so the limit is kept here. No row
 * and no decompressed text needs as much. */
static png_voidp on_alloc(png_structp png, png_alloc_size_t n)
{
    session *s = png_get_mem_ptr(png);
    if (n > 2 * MAX_CHUNK)
        return NULL;
    void *p = sm_alloc(s->mem, SM_MEM_MISC, n);
    if (!p) {
        s->code = SUMI_E_MEMORY;
        snprintf(s->msg, sizeof s->msg, "out of memory");
    }
    return p;
}

static void on_free(png_structp png, png_voidp p) { sm_free(p); }

static void on_read(png_structp png, png_bytep out, size_t n)
{
    session *s = png_get_io_ptr(png);
    if (n > s->left)
        png_error(png, "the file is truncated");
    memcpy(out, s->at, n);
    s->at += n;
    s->left -= n;
}

static void out_of_memory(session *s)
{
    s->code = SUMI_E_MEMORY;
    snprintf(s->msg, sizeof s->msg, "out of memory");
    longjmp(s->jump, 1);
}

static void on_write(png_structp png, png_bytep data, size_t n)
{
    session *s = png_get_io_ptr(png);
    sm_buf_add(s->out, data, n);
    if (s->out->oom)
        out_of_memory(s);
}

static void on_flush(png_structp png) {}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* tEXt and zTXt are Latin-1 by the standard; many writers put UTF-8 there all the same, which is told by its form. */
static bool add_latin1(sm_image *im, const char *key, const char *text, size_t n)
{
    if (sm_utf8_valid(text, n))
        return sm_image_add_text(im, key, text, n);
    sm_buf b = {.mem = im->arena.mem};
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        char two[2] = {(char)(c < 0x80 ? c : 0xc0 | c >> 6), (char)(0x80 | (c & 0x3f))};
        sm_buf_add(&b, two, c < 0x80 ? 1 : 2);
    }
    bool ok = !b.oom && sm_image_add_text(im, key, b.data, b.len);
    sm_buf_free(&b);
    return ok;
}

static bool read_texts(sm_image *im, png_structp png, png_infop info)
{
    png_textp t;
    int n = 0;
    png_get_text(png, info, &t, &n);
    for (int i = 0; i < n; i++) {
        bool utf8 = t[i].compression >= PNG_ITXT_COMPRESSION_NONE;
        size_t len = utf8 ? t[i].itxt_length : t[i].text_length;
        if (t[i].text && !(utf8 ? sm_image_add_text(im, t[i].key, t[i].text, len) : add_latin1(im, t[i].key, t[i].text, len)))
            return false;
    }
    return true;
}

static bool read_exif(sm_image *im, png_structp png, png_infop info)
{
    png_bytep exif = NULL;
    png_uint_32 n = 0;
    return !png_get_eXIf_1(png, info, &n, &exif) || sm_exif_read(im, exif, n);
}

/* Between setjmp and a jump no variable of this function changes that is used after the jump. */
static void decode(session *s, sm_image *im, const sm_image_source *src, sm_err *e)
{
    if (setjmp(s->jump))
        return;
    s->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, s, on_error, on_warning, s, on_alloc, on_free);
    s->info = s->png ? png_create_info_struct(s->png) : NULL;
    if (!s->info)
        out_of_memory(s);
    png_structp png = s->png;
    png_set_read_fn(png, s, on_read);
    png_set_user_limits(png, (png_uint_32)src->max_side, (png_uint_32)src->max_side);
    png_set_chunk_malloc_max(png, MAX_CHUNK);
    png_set_chunk_cache_max(png, 256);
    png_read_info(png, s->info);
    png_set_expand(png);
    png_set_scale_16(png);
    png_set_gray_to_rgb(png);
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, s->info);
    uint32_t w = png_get_image_width(png, s->info), h = png_get_image_height(png, s->info);
    int channels = png_get_channels(png, s->info);
    size_t row = png_get_rowbytes(png, s->info);
    if ((channels != 3 && channels != 4) || row != (size_t)w * (size_t)channels)
        png_error(png, "unexpected pixel layout");
    sumi_status shaped = sm_image_shape(im, src, w, h, channels, e);
    if (shaped != SUMI_OK) {
        s->code = shaped;
        longjmp(s->jump, 1);
    }
    for (int p = 0; p < passes; p++)
        for (uint32_t y = 0; y < h; y++)
            png_read_row(png, im->pixels + y * row, NULL);
    png_read_end(png, s->info);
    if (!read_texts(im, png, s->info) || !read_exif(im, png, s->info))
        out_of_memory(s);
}

sumi_status sm_png_decode(sm_image *im, const sm_image_source *src, sm_err *e)
{
    session s = {.mem = src->mem, .at = src->data, .left = src->size};
    decode(&s, im, src, e);
    png_destroy_read_struct(&s.png, &s.info, NULL);
    return s.code == SUMI_OK ? SUMI_OK : sm_fail(e, s.code, "%s: PNG: %s", src->label, s.msg);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static bool ascii(const char *s)
{
    while (*s && (unsigned char)*s < 0x80)
        s++;
    return !*s;
}

static void put_texts(session *s, int ntext, const sm_image_text *text)
{
    for (int i = 0; i < ntext; i++) {
        png_text t = {.key = (char *)text[i].key, .text = (char *)text[i].value, .text_length = strlen(text[i].value)};
        t.compression = ascii(t.text) ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
        png_set_text(s->png, s->info, &t, 1);
    }
}

static void encode(session *s, const sm_image *im, int ntext, const sm_image_text *text)
{
    if (setjmp(s->jump))
        return;
    s->png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, s, on_error, on_warning, s, on_alloc, on_free);
    s->info = s->png ? png_create_info_struct(s->png) : NULL;
    if (!s->info)
        out_of_memory(s);
    png_set_write_fn(s->png, s, on_write, on_flush);
    png_set_IHDR(s->png, s->info, (png_uint_32)im->width, (png_uint_32)im->height, 8,
                 im->channels == 4 ? PNG_COLOR_TYPE_RGB_ALPHA : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                     PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    put_texts(s, ntext, text);
    png_write_info(s->png, s->info);
    for (int y = 0; y < im->height; y++)
        png_write_row(s->png, im->pixels + (size_t)y * (size_t)im->width * (size_t)im->channels);
    png_write_end(s->png, s->info);
}

sumi_status sm_png_encode(const sm_image *im, int ntext, const sm_image_text *text, sm_buf *out, sm_err *e)
{
    session s = {.mem = out->mem, .out = out};
    encode(&s, im, ntext, text);
    png_destroy_write_struct(&s.png, &s.info);
    return s.code == SUMI_OK ? SUMI_OK : sm_fail(e, s.code, "PNG: cannot encode: %s", s.msg);
}
