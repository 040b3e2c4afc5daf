/* JPEG through libjpeg-turbo. Its errors become jumps; damage that it would only warn of is an error too, so that a truncated
 * picture is never taken for a whole one. */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#include "io/image_impl.h"

enum { MAX_SCANS = 200, OUT_BLOCK = 16384 }; /* a progressive file of few bytes can ask for thousands of passes */

/* What both directions need for errors; the first member, as libjpeg hands a pointer to it around. */
typedef struct fault {
    struct jpeg_error_mgr mgr;
    jmp_buf jump;
    sumi_status code;
    char msg[JMSG_LENGTH_MAX];
} fault;

static void on_error(j_common_ptr c)
{
    fault *f = (fault *)c->err;
    if (f->code == SUMI_OK) {
        f->code = f->mgr.msg_code == JERR_OUT_OF_MEMORY ? SUMI_E_MEMORY : SUMI_E_FORMAT;
        f->mgr.format_message(c, f->msg);
    }
    longjmp(f->jump, 1);
}

static void on_message(j_common_ptr c, int level)
{
    int code = c->err->msg_code;
    if (level < 0 && (code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE || code == JWRN_ARITH_BAD_CODE ||
                      code == JWRN_MUST_RESYNC))
        on_error(c);
}

static void on_output(j_common_ptr c) {}

static void fault_init(fault *f)
{
    jpeg_std_error(&f->mgr);
    f->mgr.error_exit = on_error;
    f->mgr.emit_message = on_message;
    f->mgr.output_message = on_output;
}

static void stop(fault *f, sumi_status code, const char *msg)
{
    f->code = code;
    snprintf(f->msg, sizeof f->msg, "%s", msg);
    longjmp(f->jump, 1);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

typedef struct reader {
    struct jpeg_decompress_struct c;
    fault f;
    struct jpeg_source_mgr src;
    struct jpeg_progress_mgr progress;
    uint8_t *row; /* one row of CMYK */
} reader;

static void src_nop(j_decompress_ptr c) {}

static boolean src_more(j_decompress_ptr c)
{
    stop((fault *)c->err, SUMI_E_FORMAT, "the file is truncated");
    return FALSE;
}

static void src_skip(j_decompress_ptr c, long n)
{
    if (n < 0 || (size_t)n > c->src->bytes_in_buffer)
        src_more(c);
    c->src->next_input_byte += n;
    c->src->bytes_in_buffer -= (size_t)n;
}

static void on_progress(j_common_ptr c)
{
    if (((j_decompress_ptr)c)->input_scan_number > MAX_SCANS)
        stop((fault *)c->err, SUMI_E_FORMAT, "too many scans");
}

static bool read_texts(sm_image *im, const jpeg_saved_marker_ptr first)
{
    for (jpeg_saved_marker_ptr m = first; m; m = m->next) {
        if (m->marker == JPEG_APP0 + 1 && m->data_length > 6 && !memcmp(m->data, "Exif\0", 6)) {
            if (!sm_exif_read(im, m->data, m->data_length))
                return false;
        } else if (m->marker == JPEG_COM && !sm_image_add_text(im, "Comment", (const char *)m->data, m->data_length)) {
            return false;
        }
    }
    return true;
}

/* CMYK to RGB without profiles. Adobe's programs store it inverted, 255 being no ink, and say so in their marker. */
static void from_cmyk(uint8_t *rgb, const uint8_t *cmyk, int n, bool inverted)
{
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 3; k++) {
            int c = cmyk[4 * i + k], b = cmyk[4 * i + 3];
            rgb[3 * i + k] = (uint8_t)((inverted ? c * b : (255 - c) * (255 - b)) / 255);
        }
}

/* Between setjmp and a jump no variable of this function changes that is used after the jump. */
static void decode(reader *r, sm_image *im, const sm_image_source *s, sm_err *e)
{
    j_decompress_ptr c = &r->c;
    if (setjmp(r->f.jump))
        return;
    jpeg_create_decompress(c);
    r->src = (struct jpeg_source_mgr){s->data, s->size, src_nop, src_more, src_skip, jpeg_resync_to_restart, src_nop};
    c->src = &r->src;
    r->progress.progress_monitor = on_progress;
    c->progress = &r->progress;
    jpeg_save_markers(c, JPEG_APP0 + 1, 0xffff);
    jpeg_save_markers(c, JPEG_COM, 0xffff);
    jpeg_read_header(c, TRUE);
    bool cmyk = c->jpeg_color_space == JCS_CMYK || c->jpeg_color_space == JCS_YCCK;
    c->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    if ((r->f.code = sm_image_shape(im, s, c->image_width, c->image_height, 3, e)) != SUMI_OK)
        return;
    jpeg_start_decompress(c);
    if (cmyk && !(r->row = sm_alloc(s->mem, SM_MEM_MISC, (size_t)im->width * 4)))
        stop(&r->f, SUMI_E_MEMORY, "out of memory");
    while (c->output_scanline < c->output_height) {
        uint8_t *to = im->pixels + (size_t)c->output_scanline * (size_t)im->width * 3;
        jpeg_read_scanlines(c, cmyk ? &r->row : &to, 1);
        if (cmyk)
            from_cmyk(to, r->row, im->width, c->saw_Adobe_marker);
    }
    if (!read_texts(im, c->marker_list))
        stop(&r->f, SUMI_E_MEMORY, "out of memory");
    jpeg_finish_decompress(c);
}

sumi_status sm_jpeg_decode(sm_image *im, const sm_image_source *s, sm_err *e)
{
    reader r = {0};
    fault_init(&r.f);
    r.c.err = &r.f.mgr;
    decode(&r, im, s, e);
    jpeg_destroy_decompress(&r.c);
    sm_free(r.row);
    return r.f.code == SUMI_OK ? SUMI_OK : sm_fail(e, r.f.code, "%s: JPEG: %s", s->label, r.f.msg);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

typedef struct writer {
    struct jpeg_compress_struct c;
    fault f;
    struct jpeg_destination_mgr dest;
    sm_buf *out, exif;
    uint8_t *row;
    uint8_t block[OUT_BLOCK];
} writer;

static void dest_block(writer *w, size_t n)
{
    sm_buf_add(w->out, w->block, n);
    if (w->out->oom)
        stop(&w->f, SUMI_E_MEMORY, "out of memory");
    w->dest.next_output_byte = w->block;
    w->dest.free_in_buffer = OUT_BLOCK;
}

static void dest_start(j_compress_ptr c) { dest_block(c->client_data, 0); }

static boolean dest_full(j_compress_ptr c)
{
    dest_block(c->client_data, OUT_BLOCK);
    return TRUE;
}

static void dest_end(j_compress_ptr c)
{
    writer *w = c->client_data;
    dest_block(w, OUT_BLOCK - w->dest.free_in_buffer);
}

/* A row of RGB, laid on white where there is alpha. */
static void flat_row(uint8_t *rgb, const uint8_t *p, int n, int channels)
{
    for (int i = 0; i < n; i++, p += channels)
        for (int k = 0; k < 3; k++) {
            int a = channels == 4 ? p[3] : 255;
            rgb[3 * i + k] = (uint8_t)((p[k] * a + 255 * (255 - a) + 127) / 255);
        }
}

static void encode(writer *w, const sm_image *im, int quality)
{
    j_compress_ptr c = &w->c;
    if (setjmp(w->f.jump))
        return;
    jpeg_create_compress(c);
    c->client_data = w;
    w->dest = (struct jpeg_destination_mgr){.init_destination = dest_start, .empty_output_buffer = dest_full,
                                            .term_destination = dest_end};
    c->dest = &w->dest;
    c->image_width = (JDIMENSION)im->width;
    c->image_height = (JDIMENSION)im->height;
    c->input_components = 3;
    c->in_color_space = JCS_RGB;
    jpeg_set_defaults(c);
    jpeg_set_quality(c, quality ? quality : 95, TRUE);
    if (!quality || quality >= 90) /* no subsampling of colour: edges of flat colours stay clean */
        c->comp_info[0].h_samp_factor = c->comp_info[0].v_samp_factor = 1;
    c->optimize_coding = TRUE;
    jpeg_start_compress(c, TRUE);
    if (w->exif.len)
        jpeg_write_marker(c, JPEG_APP0 + 1, (const JOCTET *)w->exif.data, (unsigned)w->exif.len);
    for (int y = 0; y < im->height; y++) {
        flat_row(w->row, im->pixels + (size_t)y * (size_t)im->width * (size_t)im->channels, im->width, im->channels);
        jpeg_write_scanlines(c, &w->row, 1);
    }
    jpeg_finish_compress(c);
}

sumi_status sm_jpeg_encode(const sm_image *im, int quality, int ntext, const sm_image_text *text, sm_buf *out, sm_err *e)
{
    writer *w = sm_alloc0(out->mem, SM_MEM_MISC, sizeof *w);
    uint8_t *row = sm_alloc(out->mem, SM_MEM_MISC, (size_t)im->width * 3);
    if (!w || !row) {
        sm_free(w);
        sm_free(row);
        return sm_fail(e, SUMI_E_MEMORY, "JPEG: cannot encode: out of memory");
    }
    fault_init(&w->f);
    w->c.err = &w->f.mgr;
    w->out = out;
    w->row = row;
    w->exif.mem = out->mem;
    if (ntext)
        sm_exif_write(&w->exif, ntext, text);
    sumi_status st = SUMI_OK;
    if (w->exif.oom)
        st = sm_fail(e, SUMI_E_MEMORY, "JPEG: cannot encode: out of memory");
    else if (w->exif.len > 65533)
        st = sm_fail(e, SUMI_E_ARG, "JPEG: the texts are too long for a JPEG file (64 KB together); save as PNG");
    if (st == SUMI_OK) {
        encode(w, im, quality);
        jpeg_destroy_compress(&w->c);
        st = w->f.code == SUMI_OK ? SUMI_OK : sm_fail(e, w->f.code, "JPEG: cannot encode: %s", w->f.msg);
    }
    sm_buf_free(&w->exif);
    sm_free(row);
    sm_free(w);
    return st;
}
