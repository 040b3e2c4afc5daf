/* WebP through libwebp, its EXIF block through libwebpmux. Written lossless unless a quality is asked for. */
#include <string.h>

#include <webp/decode.h>
#include <webp/encode.h>
#include <webp/mux.h>

#include "io/image_impl.h"

static sumi_status bad(const sm_image_source *s, sm_err *e, const char *what)
{
    return sm_fail(e, SUMI_E_FORMAT, "%s: WebP: %s", s->label, what);
}

sumi_status sm_webp_decode(sm_image *im, const sm_image_source *s, sm_err *e)
{
    WebPBitstreamFeatures f;
    VP8StatusCode code = WebPGetFeatures(s->data, s->size, &f);
    if (code != VP8_STATUS_OK)
        return bad(s, e, code == VP8_STATUS_NOT_ENOUGH_DATA ? "the file is truncated" : "the file is damaged");
    if (f.has_animation)
        return bad(s, e, "animations are not supported");
    int channels = f.has_alpha ? 4 : 3;
    sumi_status st = sm_image_shape(im, s, (uint64_t)f.width, (uint64_t)f.height, channels, e);
    if (st != SUMI_OK)
        return st;
    size_t n = (size_t)im->width * (size_t)im->height * (size_t)channels;
    int stride = im->width * channels;
    bool ok = channels == 4 ? WebPDecodeRGBAInto(s->data, s->size, im->pixels, n, stride)
        : WebPDecodeRGBInto(s->data, s->size, im->pixels, n, stride);
    if (!ok)
        return bad(s, e, "the file is truncated or damaged");
    WebPData whole = {s->data, s->size}, exif;
    WebPMux *mux = WebPMuxCreate(&whole, 0);
    if (mux && WebPMuxGetChunk(mux, "EXIF", &exif) == WEBP_MUX_OK && !sm_exif_read(im, exif.bytes, exif.size))
        st = sm_fail(e, SUMI_E_MEMORY, "%s: out of memory", s->label);
    WebPMuxDelete(mux);
    return st;
}

static int on_write(const uint8_t *data, size_t n, const WebPPicture *p)
{
    sm_buf *out = p->custom_ptr;
    sm_buf_add(out, data, n);
    return !out->oom;
}

/* The picture alone. */
static sumi_status encode(const sm_image *im, int quality, sm_buf *out, sm_err *e)
{
    WebPConfig cfg;
    WebPPicture p;
    if (im->width > WEBP_MAX_DIMENSION || im->height > WEBP_MAX_DIMENSION)
        return sm_fail(e, SUMI_E_ARG, "WebP: a side has at most %d pixels", WEBP_MAX_DIMENSION);
    if (!WebPConfigInit(&cfg) || !WebPPictureInit(&p))
        return sm_fail(e, SUMI_E_SUPPORT, "WebP: the installed libwebp does not fit this build");
    cfg.lossless = !quality;
    cfg.exact = !quality; /* keeps colours under full transparency */
    cfg.quality = quality ? (float)quality : 75;
    p.use_argb = cfg.lossless;
    p.width = im->width;
    p.height = im->height;
    p.writer = on_write;
    p.custom_ptr = out;
    int stride = im->width * im->channels;
    bool ok = im->channels == 4 ? WebPPictureImportRGBA(&p, im->pixels, stride) : WebPPictureImportRGB(&p, im->pixels, stride);
    ok = ok && WebPEncode(&cfg, &p);
    bool memory = out->oom || p.error_code == VP8_ENC_ERROR_OUT_OF_MEMORY ||
        p.error_code == VP8_ENC_ERROR_BITSTREAM_OUT_OF_MEMORY;
    WebPPictureFree(&p);
    if (ok)
        return SUMI_OK;
    return sm_fail(e, memory ? SUMI_E_MEMORY : SUMI_E_INTERNAL, "WebP: cannot encode%s", memory ? ": out of memory" : "");
}

/* The encoded picture and the EXIF block in one container. */
static bool assemble(const sm_buf *picture, const sm_buf *exif, sm_buf *out)
{
    WebPData a = {(const uint8_t *)picture->data, picture->len}, b = {(const uint8_t *)exif->data, exif->len}, whole = {NULL, 0};
    WebPMux *mux = WebPMuxNew();
    bool ok = mux && WebPMuxSetImage(mux, &a, 0) == WEBP_MUX_OK && WebPMuxSetChunk(mux, "EXIF", &b, 0) == WEBP_MUX_OK &&
              WebPMuxAssemble(mux, &whole) == WEBP_MUX_OK;
    if (ok)
        sm_buf_add(out, whole.bytes, whole.size);
    WebPDataClear(&whole);
    WebPMuxDelete(mux);
    return ok && !out->oom;
}

sumi_status sm_webp_encode(const sm_image *im, int quality, int ntext, const sm_image_text *text, sm_buf *out, sm_err *e)
{
    if (!ntext)
        return encode(im, quality, out, e);
    sm_buf picture = {.mem = out->mem}, exif = {.mem = out->mem};
    sm_exif_write(&exif, ntext, text);
    sumi_status st = encode(im, quality, &picture, e);
    if (st == SUMI_OK && (exif.oom || !assemble(&picture, &exif, out)))
        st = sm_fail(e, SUMI_E_MEMORY, "WebP: cannot encode: out of memory");
    sm_buf_free(&picture);
    sm_buf_free(&exif);
    return st;
}
