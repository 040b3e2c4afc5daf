/* Hires fix (see hires.h), after A1111's StableDiffusionProcessingTxt2Img.sample_hr_pass. */
#include "pipeline/hires.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#include "pipeline/encode.h"

static const struct { const char *name; bool pixels; sm_interp mode; sm_filter filter; } upscalers[] = {
    {"Latent", false, SM_INTERP_BILINEAR, 0},
    {"Latent (antialiased)", false, SM_INTERP_BILINEAR_AA, 0},
    {"Latent (bicubic)", false, SM_INTERP_BICUBIC, 0},
    {"Latent (bicubic antialiased)", false, SM_INTERP_BICUBIC_AA, 0},
    {"Latent (nearest)", false, SM_INTERP_NEAREST, 0},
    {"Latent (nearest-exact)", false, SM_INTERP_NEAREST_EXACT, 0},
    {"Lanczos", true, 0, SM_FILTER_LANCZOS},
    {"Nearest", true, 0, SM_FILTER_NEAREST},
    {"None", true, 0, SM_FILTER_LANCZOS}, /* A1111's word for no upscaler: its resizing is Lanczos */
};

static int upscaler(const sumi_request *r)
{
    int i = (int)SM_COUNT(upscalers) - 1;
    while (i >= 0 && strcasecmp(upscalers[i].name, r->hires_upscaler))
        i--;
    return i;
}

bool sm_hires_wanted(const sumi_request *r) { return r->hires_upscale > 0 || r->hires_width || r->hires_height; }
bool sm_hires_pixels(const sumi_request *r) { return upscalers[SM_MAX(upscaler(r), 0)].pixels; }

sumi_status sm_hires_open(sm_job *j, int multiple, sm_err *e)
{
    sumi_request *r = &j->r;
    if (!sm_hires_wanted(r))
        return SUMI_OK;
    if (j->edit)
        return sm_fail(e, SUMI_E_ARG,
                       "--hires-...: hires fix begins from noise; with --init-image draw at the larger --size instead");
    r->hires_upscaler = r->hires_upscaler[0] ? r->hires_upscaler : "Latent";
    if (r->hires_upscale > 0 && (r->hires_width || r->hires_height))
        return sm_fail(e, SUMI_E_ARG, "--hires-upscale and --hires-width or --hires-height both say how large: give one");
    double k = r->hires_upscale, w = r->width * k, h = r->height * k;
    if (k == 0) { /* a side that is not given goes by the other */
        w = r->hires_width ? r->hires_width : (double)r->hires_height * r->width / r->height;
        h = r->hires_height ? r->hires_height : (double)r->hires_width * r->height / r->width;
    }
    if (w > 8192 || h > 8192)
        return sm_fail(e, SUMI_E_ARG, "--hires-...: %.0fx%.0f; at most 8192 a side", w, h);
    if (sm_hires_pixels(r) && sm_model_encodes(j->m, "hires-upscaler", e))
        return e->code;
    j->out_width = (int)w / multiple * multiple;
    j->out_height = (int)h / multiple * multiple;
    r->strength = r->strength >= 0 ? r->strength : 0.7f;
    if (!j->out_width || !j->out_height)
        return sm_fail(e, SUMI_E_ARG, "--hires-...: %.0fx%.0f is too small; sides are multiples of %d", w, h, multiple);
    return SUMI_OK;
}

sumi_status sm_hires_stretch(const sm_job *j, sm_stretch *out, sm_err *e)
{
    double s = round(j->r.strength * 1e6) / 1e6;
    int steps = j->r.hires_steps ? j->r.hires_steps : j->r.steps;
    if (s <= 0 || steps / fmin(s, 0.999) > 100000)
        return sm_fail(e, SUMI_E_ARG, "--strength: %g leaves no noise for hires fix to work with", s);
    *out = (sm_stretch){.all = (int)(steps / fmin(s, 0.999)), .run = steps};
    return SUMI_OK;
}

/* Of an enlarged first result: its size, and in latents where the second pass's size begins in it. */
typedef struct cover { int w, h, x, y; } cover;

/* With both sides given it keeps its proportions and covers them; what sticks out goes, the same on either side (A1111). */
static cover cover_of(const sm_pass *from, const sm_pass *to)
{
    const sumi_request *a = &from->j.r, *b = &to->j.r;
    int f = sm_vae_factor(&from->j.m->vae);
    cover v = {.w = b->width, .h = b->height};
    if (!a->hires_width || !a->hires_height)
        return v;
    if ((int64_t)a->width * b->height < (int64_t)b->width * a->height)
        v.h = (int)((int64_t)b->width * a->height / a->width);
    else
        v.w = (int)((int64_t)b->height * a->width / a->height);
    v.x = (v.w - b->width) / f / 2;
    v.y = (v.h - b->height) / f / 2;
    return v;
}

/* One picture, decoded, to latents by way of its pixels; `small` and `large` have room for both. */
static sumi_status by_pixels(const sm_pass *from, sm_pass *to, cover v, const uint8_t *small, uint8_t *large,
                             float *x, float *moments, sm_err *e)
{
    const sumi_request *a = &from->j.r, *b = &to->j.r;
    size_t line = (size_t)b->width * 3;
    int f = sm_vae_factor(&from->j.m->vae);
    if (sm_resize(small, a->width, a->height, 3, NULL, upscalers[upscaler(a)].filter, large, v.w, v.h, from->j.mem, e))
        return e->code;
    for (int y = 0; y < b->height; y++)
        for (size_t i = 0; i < line; i++)
            x[(size_t)y * line + i] =
                (float)(large[((size_t)(v.y * f + y) * (size_t)v.w + (size_t)(v.x * f)) * 3 + i] / 127.5 - 1);
    return sm_encode_run(&to->j, to->h, to->w, x, moments, e);
}

static size_t small_bytes(const sm_pass *from) { return (size_t)from->j.r.width * (size_t)from->j.r.height * 3; }

/* The decoded pictures and one enlarged. */
static size_t rgb_bytes(const sm_pass *from, const sm_pass *to, int n)
{
    cover v = cover_of(from, to);
    return (size_t)n * small_bytes(from) + (size_t)v.w * (size_t)v.h * 3;
}

/* That for the encoder, and its moments. */
static size_t x_bytes(const sm_pass *to)
{
    return sizeof(float) * ((size_t)to->j.r.width * (size_t)to->j.r.height * 3 +
                            2 * (size_t)to->h * (size_t)to->w * (size_t)to->c);
}

static size_t enlarged_bytes(const sm_pass *from, const sm_pass *to)
{
    cover v = cover_of(from, to);
    int f = sm_vae_factor(&from->j.m->vae);
    return sizeof(float) * (size_t)(v.w / f) * (size_t)(v.h / f) * (size_t)to->c;
}

size_t sm_hires_bytes(const sm_pass *from, const sm_pass *to, int n)
{
    return sm_hires_pixels(&from->j.r) ? rgb_bytes(from, to, n) + x_bytes(to) : enlarged_bytes(from, to);
}

static sumi_status enlarge_pixels(sm_pass *from, sm_pass *to, int first, int n, sm_err *e)
{
    sm_mem *mem = from->j.mem;
    cover v = cover_of(from, to);
    size_t small = small_bytes(from), large = (size_t)to->j.r.width * (size_t)to->j.r.height * 3;
    int64_t pixels = (int64_t)to->h * to->w, each = pixels * to->c;
    uint8_t *rgb = sm_alloc(mem, SM_MEM_DATA, rgb_bytes(from, to, n));
    float *x = sm_alloc(mem, SM_MEM_DATA, x_bytes(to));
    bool sampled = !strcmp(from->j.r.vae_encode, "sample");
    if (!rgb || !x)
        sm_fail(e, SUMI_E_MEMORY, "out of memory for pictures of %dx%d", to->j.r.width, to->j.r.height);
    else
        sm_decode_run(&from->dec, from->latents, first, n, rgb, e);
    sm_decode_done(&from->dec);
    sm_randn_start(&to->edit.randn, (uint64_t)sm_seed_of(&from->j.r, first), n);
    if (sampled)
        sm_randn_draw(&to->edit.randn, -2, to->edit.room);
    for (int k = 0; k < n && !e->code; k++)
        if (!by_pixels(from, to, v, rgb + (size_t)k * small, rgb + (size_t)n * small, x, x + large, e))
            sm_encode_latent(from->j.m, x + large, sampled ? to->edit.room + k * each : NULL, true, pixels,
                             to->edit.init + k * each);
    sm_free(rgb);
    sm_free(x);
    return e->code;
}

static sumi_status enlarge_latents(sm_pass *from, sm_pass *to, int n, sm_err *e)
{
    cover v = cover_of(from, to);
    int f = sm_vae_factor(&from->j.m->vae), w = v.w / f, h = v.h / f;
    int64_t a = (int64_t)from->h * from->w * from->c, line = (int64_t)to->w * to->c;
    sm_interp mode = upscalers[upscaler(&from->j.r)].mode;
    float *large = sm_alloc(from->j.mem, SM_MEM_DATA, enlarged_bytes(from, to));
    if (!large)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for pictures of %dx%d", v.w, v.h);
    for (int k = 0; k < n && !e->code; k++) {
        float *init = to->edit.init + k * to->h * line;
        if (!sm_interpolate(from->latents + k * a, from->w, from->h, from->c, mode, large, w, h, from->j.mem, e))
            for (int y = 0; y < to->h; y++)
                memcpy(init + y * line, large + ((int64_t)(v.y + y) * w + v.x) * to->c, sizeof *large * (size_t)line);
    }
    sm_free(large);
    return e->code;
}

sumi_status sm_hires_enlarge(sm_pass *from, sm_pass *to, int first, int n, sm_err *e)
{
    return sm_hires_pixels(&from->j.r) ? enlarge_pixels(from, to, first, n, e) : enlarge_latents(from, to, n, e);
}
