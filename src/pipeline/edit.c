/* Pictures that a request begins from, up to bytes at the size that is drawn (see edit.h). Masks are 255 where to draw anew. */
#include "pipeline/edit.h"

#include <math.h>
#include <string.h>

#include "io/blur.h"
#include "pipeline/hires.h"

/* Of a picture whose size nobody gave. */
enum { MAX_PIXELS = 4096 * 4096 };

static bool extends(const sumi_request *r) { return r->outpaint_left || r->outpaint_right || r->outpaint_up || r->outpaint_down; }

void sm_edit_free(sm_edit *d)
{
    if (!d)
        return;
    sm_free(d->picture);
    sm_free(d->mask);
    sm_free(d->under);
    sm_free(d->cover);
    sm_free(d);
}

static uint8_t *pixels(const sm_job *j, int w, int h, int c, sm_err *e)
{
    uint8_t *x = sm_alloc(j->mem, SM_MEM_DATA, (size_t)w * (size_t)h * (size_t)c);
    if (!x)
        sm_fail(e, SUMI_E_MEMORY, "out of memory for a picture of %dx%d", w, h);
    return x;
}

/* ---- names and combinations ---------------------------------------------------------------------------------------- */

static sm_content content_of(const sumi_request *r)
{
    static const char *const words[] = {"original", "fill", "latent noise", "latent nothing"}; /* in sm_content's order */
    for (size_t i = 0; i < SM_COUNT(words); i++)
        if (!strcmp(r->masked_content, words[i]))
            return (sm_content)i;
    return extends(r) ? SM_CONTENT_FILL : SM_CONTENT_ORIGINAL;
}

static sumi_status check_together(const sumi_request *r, sm_err *e)
{
    bool masked = r->mask[0] || extends(r);
    const char *lone = r->mask[0] ? "mask" : extends(r) ? "outpaint-..." : r->only_masked ? "only-masked" : NULL;
    if (!r->init_image[0] && lone)
        return sm_fail(e, SUMI_E_ARG, "--%s needs a picture: --init-image FILE", lone);
    /* A1111's infotexts do not name the picture */
    if (!r->init_image[0] && r->strength >= 0 && r->strength < 1 && !sm_hires_wanted(r))
        return sm_fail(e, SUMI_E_ARG,
                       "--strength %g needs a picture, --init-image FILE, or hires fix; --strength -1 draws from noise",
                       (double)r->strength);
    if (r->only_masked && !r->mask[0])
        return sm_fail(e, SUMI_E_ARG, "--only-masked needs a mask: --mask FILE");
    if (r->only_masked && extends(r))
        return sm_fail(e, SUMI_E_ARG,
                       "--only-masked and --outpaint-... do not go together: an extended picture is drawn as a whole");
    if (masked && !strcmp(r->resize_mode, "latent"))
        return sm_fail(e, SUMI_E_ARG, "--resize-mode latent does not go with masks: resize, crop or fill");
    return SUMI_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

/* A failure of another file keeps its message, with the flag in front. */
static sumi_status load(const sm_job *j, const char *flag, const char *path, sm_image *im, sm_err *e)
{
    sm_err why = {0};
    return sm_image_load(im, path, j->mem, &why) ? sm_fail(e, why.code, "--%s: %s", flag, why.msg) : SUMI_OK;
}

static sumi_status read_mask(const sm_job *j, sm_edit *d, sm_err *e)
{
    sm_image im;
    if (!j->r.mask[0] || load(j, "mask", j->r.mask, &im, e))
        return e->code;
    size_t n = (size_t)im.width * (size_t)im.height, white = 0;
    if (im.width != d->width || im.height != d->height)
        sm_fail(e, SUMI_E_ARG, "--mask: %s is %dx%d, the init image %dx%d; both must have one size",
                j->r.mask, im.width, im.height, d->width, d->height);
    else if ((d->mask = pixels(j, im.width, im.height, 1, e)))
        sm_mask_read(&im, d->mask);
    for (size_t i = 0; d->mask && i < n; i++)
        white += (d->mask[i] = j->r.mask_invert ? 255 - d->mask[i] : d->mask[i]) > 127;
    if (d->mask && !white)
        sm_fail(e, SUMI_E_ARG, "--mask: %s has no %s: there is nothing to draw anew", j->r.mask,
                j->r.mask_invert ? "black" : "white");
    sm_image_free(&im);
    return e->code;
}

static sumi_status read_pictures(const sm_job *j, sm_edit *d, sm_err *e)
{
    sm_image im;
    if (load(j, "init-image", j->r.init_image, &im, e))
        return e->code;
    d->width = im.width;
    d->height = im.height;
    d->picture = pixels(j, im.width, im.height, 3, e);
    if (d->picture)
        sm_flatten(&im, d->picture);
    sm_image_free(&im);
    return e->code ? e->code : read_mask(j, d, e);
}

/* A side of what is drawn: the picture's with what it is extended by, cut down to what the model can draw. */
static int side(int picture, int more, int step) { return SM_MAX((picture + more) / step * step, step); }

sumi_status sm_edit_open(sm_job *j, sm_err *e)
{
    sumi_request *r = &j->r;
    int step = sm_vae_factor(&j->m->vae) * j->m->family->multiple(&j->m->denoiser);
    if (check_together(r, e) || !r->init_image[0] || sm_model_encodes(j->m, "init-image", e))
        return e->code;
    sm_edit *d = j->edit = sm_alloc(j->mem, SM_MEM_DATA, sizeof *d);
    if (!d)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for --init-image");
    *d = (sm_edit){.diffusers = !strcmp(r->edit_rules, "diffusers"), .content = content_of(r)};
    if (read_pictures(j, d, e))
        return e->code;
    bool edits = j->m->traits.extra == SM_EXTRA_EDIT;
    r->strength = r->strength >= 0 ? r->strength : edits || extends(r) || r->invert ? 1 : 0.75f;
    r->mask_blur = r->mask_blur >= 0 || !(d->mask || extends(r)) ? r->mask_blur : d->diffusers ? 0 : 4;
    if (r->only_masked)
        r->mask_padding = r->mask_padding < 0 ? 32 : r->mask_padding;
    else {
        r->width = r->width ? r->width : side(d->width, r->outpaint_left + r->outpaint_right, step);
        r->height = r->height ? r->height : side(d->height, r->outpaint_up + r->outpaint_down, step);
    }
    if (r->width > 8192 || r->height > 8192 || (int64_t)r->width * r->height > MAX_PIXELS)
        return sm_fail(e, SUMI_E_ARG, "--init-image: %s is %dx%d; say at what size to draw (--size)", r->init_image, d->width,
                       d->height);
    return SUMI_OK;
}

/* ---- the size that is drawn ---------------------------------------------------------------------------------------- */

static sm_fit fit_of(const sumi_request *r)
{
    return !strcmp(r->resize_mode, "crop") ? SM_FIT_CROP : !strcmp(r->resize_mode, "fill") ? SM_FIT_FILL : SM_FIT_STRETCH;
}

/* *x of d's size, resized to w x h. */
static sumi_status refit(const sm_job *j, uint8_t **x, int from_w, int from_h, int c, sm_fit fit, int w, int h, sm_err *e)
{
    uint8_t *to = pixels(j, w, h, c, e);
    if (!to || sm_fit_picture(*x, from_w, from_h, c, fit, sm_filter_find(j->r.resize_filter), to, w, h, j->mem, e)) {
        sm_free(to);
        return e->code;
    }
    sm_free(*x);
    *x = to;
    return SUMI_OK;
}

/* x [h, w, c] in the middle of what it is extended by: its edges go on, and masks are white there. */
static void extend(const sumi_request *r, const uint8_t *x, int w, int h, int c, bool mask, uint8_t *out)
{
    for (int y = 0; y < r->height; y++)
        for (int i = 0; i < r->width; i++, out += c) {
            int sy = y - r->outpaint_up, sx = i - r->outpaint_left, iy = SM_MIN(SM_MAX(sy, 0), h - 1),
                ix = SM_MIN(SM_MAX(sx, 0), w - 1);
            if (mask && (sy != iy || sx != ix))
                *out = 255;
            else
                memcpy(out, x + ((size_t)iy * (size_t)w + (size_t)ix) * (size_t)c, (size_t)c);
        }
}

static sumi_status extend_picture(const sm_job *j, sm_edit *d, sm_err *e)
{
    const sumi_request *r = &j->r;
    int w = r->width - r->outpaint_left - r->outpaint_right, h = r->height - r->outpaint_up - r->outpaint_down;
    if (w < 1 || h < 1)
        return sm_fail(e, SUMI_E_ARG, "--size: %dx%d is what comes out, and --outpaint-... leaves nothing of the picture in it",
                       r->width, r->height);
    if (!d->mask && (d->mask = pixels(j, d->width, d->height, 1, e)))
        memset(d->mask, 0, (size_t)d->width * (size_t)d->height);
    if (!d->mask || refit(j, &d->picture, d->width, d->height, 3, fit_of(r), w, h, e) ||
        refit(j, &d->mask, d->width, d->height, 1, fit_of(r), w, h, e))
        return e->code;
    uint8_t *wide = pixels(j, r->width, r->height, 3, e), *wide_mask = pixels(j, r->width, r->height, 1, e);
    if (wide && wide_mask) {
        extend(r, d->picture, w, h, 3, false, wide);
        extend(r, d->mask, w, h, 1, true, wide_mask);
    }
    sm_free(d->picture);
    sm_free(d->mask);
    d->picture = wide;
    d->mask = wide_mask;
    d->width = r->width;
    d->height = r->height;
    return e->code;
}

/* ---- masks --------------------------------------------------------------------------------------------------------- */

/* The mask's surroundings become the picture that is drawn; the whole is what comes out. */
static sumi_status only_masked(sm_job *j, sm_edit *d, sm_err *e)
{
    const sumi_request *r = &j->r;
    if (!sm_mask_region(d->mask, d->width, d->height, r->mask_padding, &d->at))
        return sm_fail(e, SUMI_E_INTERNAL, "--mask: empty");
    d->at = sm_mask_widen(d->at, d->width, d->height, r->width, r->height);
    uint8_t *part = pixels(j, d->at.w, d->at.h, 3, e), *part_mask = pixels(j, d->at.w, d->at.h, 1, e);
    if (part && part_mask) {
        sm_cut_picture(d->picture, d->width, 3, d->at, part);
        sm_cut_picture(d->mask, d->width, 1, d->at, part_mask);
    }
    d->under = d->picture;
    d->cover = d->mask;
    d->picture = part;
    d->mask = part_mask;
    j->out_width = d->width;
    j->out_height = d->height;
    if (e->code || refit(j, &d->picture, d->at.w, d->at.h, 3, SM_FIT_FILL, r->width, r->height, e))
        return e->code;
    return refit(j, &d->mask, d->at.w, d->at.h, 1, SM_FIT_FILL, r->width, r->height, e);
}

/* A1111 puts back what the blurred mask hardly covers; diffusers does not put back. */
static sumi_status whole_picture(sm_job *j, sm_edit *d, sm_err *e)
{
    const sumi_request *r = &j->r;
    size_t n = (size_t)r->width * (size_t)r->height;
    if (refit(j, &d->picture, d->width, d->height, 3, fit_of(r), r->width, r->height, e) ||
        refit(j, &d->mask, d->width, d->height, 1, fit_of(r), r->width, r->height, e) || d->diffusers)
        return e->code;
    d->at = (sm_rect){0, 0, r->width, r->height};
    d->under = pixels(j, r->width, r->height, 3, e);
    d->cover = pixels(j, r->width, r->height, 1, e);
    if (d->under && d->cover) {
        memcpy(d->under, d->picture, 3 * n);
        for (size_t i = 0; i < n; i++)
            d->cover[i] = (uint8_t)SM_MIN(2 * d->mask[i], 255);
    }
    return e->code;
}

static sumi_status prepare_mask(sm_job *j, sm_edit *d, sm_err *e)
{
    const sumi_request *r = &j->r;
    if (r->mask_blur > 0 && sm_blur_gauss(d->mask, d->width, d->height, 1, r->mask_blur, j->mem, e))
        return e->code;
    if ((r->only_masked ? only_masked : whole_picture)(j, d, e))
        return e->code;
    for (size_t i = 0; d->cover && i < (size_t)j->out_width * (size_t)j->out_height; i++)
        d->cover[i] = 255 - d->cover[i];
    if (d->content == SM_CONTENT_ORIGINAL)
        return SUMI_OK;
    return sm_mask_fill(d->picture, d->mask, r->width, r->height, j->mem, e);
}

sumi_status sm_edit_prepare(sm_job *j, sm_err *e)
{
    sm_edit *d = j->edit;
    const sumi_request *r = &j->r;
    int f = sm_vae_factor(&j->m->vae);
    j->out_width = r->width;
    j->out_height = r->height;
    if (!d || (extends(r) && extend_picture(j, d, e)))
        return e->code;
    if (d->mask)
        prepare_mask(j, d, e);
    else if (strcmp(r->resize_mode, "latent"))
        refit(j, &d->picture, d->width, d->height, 3, fit_of(r), r->width, r->height, e);
    else { /* to the nearest that can be encoded */
        int w = SM_MAX(d->width / f * f, f), h = SM_MAX(d->height / f * f, f);
        refit(j, &d->picture, d->width, d->height, 3, SM_FIT_STRETCH, w, h, e);
        d->width = w;
        d->height = h;
        return e->code;
    }
    d->width = r->width;
    d->height = r->height;
    return e->code;
}

/* ---- steps --------------------------------------------------------------------------------------------------------- */

sumi_status sm_edit_stretch(const sm_job *j, int steps, sm_stretch *out, sm_err *e)
{
    double s = round(j->r.strength * 1e6) / 1e6; /* the number as it was written, which a float is not */
    bool masked = j->edit->mask != NULL, flow = !j->m->traits.beta_schedule[0] && j->m->traits.sigma_data == 0;
    *out = (sm_stretch){.all = steps, .noise = s == 1 && !j->r.invert &&
                        (j->m->traits.extra == SM_EXTRA_EDIT || (j->edit->diffusers && masked))};
    if (out->noise)
        out->run = steps;
    else if (j->r.exact_steps) {
        out->all = s > 0 ? (int)SM_MIN(steps / fmin(s, 0.999), 100000) : 0;
        out->run = steps;
    } else if (j->edit->diffusers)
        out->run = flow ? steps - (int)fmax(steps - fmin(steps * s, steps), 0) : SM_MIN((int)(steps * s), steps);
    else
        out->run = (int)(fmin(s, 0.999) * steps) + 1;
    if (out->run < 1 || out->all < out->run)
        return sm_fail(e, SUMI_E_ARG, "--strength: %g of %d steps leaves none to run", s, steps);
    return SUMI_OK;
}

/* ---- back into the picture ----------------------------------------------------------------------------------------- */

/* 255 (a b + c (255 - b)) / 255^2, rounded. */
static uint8_t blend(unsigned a, unsigned b, unsigned c) { return (uint8_t)((a * b + c * (255 - b) + 127) / 255); }

sumi_status sm_edit_finish(const sm_job *j, const uint8_t *rgb, uint8_t *out, sm_err *e)
{
    const sm_edit *d = j->edit;
    const sumi_request *r = &j->r;
    size_t line = (size_t)j->out_width * 3, n = (size_t)j->out_width * (size_t)j->out_height;
    uint8_t *part = pixels(j, d->at.w, d->at.h, 3, e);
    if (part && !sm_fit_picture(rgb, r->width, r->height, 3, SM_FIT_CROP, SM_FILTER_LANCZOS, part, d->at.w, d->at.h, j->mem, e)) {
        memcpy(out, d->under, 3 * n);
        for (int y = 0; y < d->at.h; y++)
            memcpy(out + (size_t)(d->at.y + y) * line + (size_t)d->at.x * 3, part + (size_t)y * (size_t)d->at.w * 3,
                   (size_t)d->at.w * 3);
        for (size_t i = 0; i < 3 * n; i++)
            out[i] = blend(d->under[i], d->cover[i / 3], out[i]);
    }
    sm_free(part);
    return e->code;
}
