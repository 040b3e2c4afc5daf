/* Latents of what a request begins from (see edit.h). The picture is encoded once; each picture that is drawn gets a draw of its
 * own of the autoencoder's noise. */
#include <string.h>

#include "pipeline/edit.h"
#include "pipeline/encode.h"
#include "sample/schedule.h"

/* Draws of sm_randn beside the start's: the picture's, and that of the picture without what is masked. */
enum { DRAW_PICTURE = -2, DRAW_MASKED = -3 };

static float *floats(const sm_job *j, int64_t n, sm_err *e)
{
    float *x = sm_alloc(j->mem, SM_MEM_DATA, sizeof *x * (size_t)n);
    if (!x)
        sm_fail(e, SUMI_E_MEMORY, "out of memory for the latents of the picture");
    return x;
}

static bool sampled(const sm_edit_latents *l) { return !strcmp(l->j->r.vae_encode, "sample"); }
static bool from_picture(const sm_edit_latents *l) { return l->j->edit && l->moments; }

/* ---- masks --------------------------------------------------------------------------------------------------------- */

static sumi_status shrink_mask(sm_edit_latents *l, sm_err *e)
{
    const sm_edit *d = l->j->edit;
    size_t n = (size_t)l->h * (size_t)l->w;
    uint8_t *small = sm_alloc(l->j->mem, SM_MEM_DATA, n);
    if (!small)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for the mask");
    if (!sm_resize(d->mask, d->width, d->height, 1, NULL, SM_FILTER_BICUBIC, small, l->w, l->h, l->j->mem, e))
        for (size_t i = 0; i < n; i++)
            l->mask[i] = small[i] > 127;
    sm_free(small);
    return e->code;
}

/* Cut at one half, the pixel at each latent's corner. */
static void nearest_mask(const sm_edit_latents *l, float *out)
{
    const sm_edit *d = l->j->edit;
    int f = sm_vae_factor(&l->j->m->vae);
    for (int y = 0; y < l->h; y++)
        for (int x = 0; x < l->w; x++)
            out[y * l->w + x] = !d || !d->mask || d->mask[(size_t)(y * f) * (size_t)d->width + (size_t)(x * f)] > 127;
}

static sumi_status open_mask(sm_edit_latents *l, sm_err *e)
{
    int n = l->h * l->w, white = 0;
    if (!(l->mask = floats(l->j, n, e)))
        return e->code;
    if (l->j->edit->diffusers)
        nearest_mask(l, l->mask);
    else if (shrink_mask(l, e))
        return e->code;
    for (int i = 0; i < n; i++)
        white += l->mask[i] > 0;
    return white ? SUMI_OK : sm_fail(e, SUMI_E_ARG, "--mask: what is to be drawn anew is smaller than one of the %dx%d latents",
                                     l->w, l->h);
}

/* ---- opening ------------------------------------------------------------------------------------------------------- */

static sumi_status open_beside(sm_edit_latents *l, sm_err *e)
{
    sm_extra extra = l->j->m->traits.extra;
    int64_t n = (int64_t)l->h * l->w;
    l->extra = extra == SM_EXTRA_INPAINT ? l->c + 1 : extra == SM_EXTRA_EDIT && l->moments ? l->c : 0;
    if (l->extra && !(l->beside = floats(l->j, l->most * n * l->extra, e)))
        return e->code;
    if (extra == SM_EXTRA_INPAINT && (!(l->masked = floats(l->j, n * 2 * l->c, e)) || !(l->seen = floats(l->j, n, e))))
        return e->code;
    return SUMI_OK;
}

/* What a request with a picture needs. */
static sumi_status open_picture(sm_edit_latents *l, sm_err *e)
{
    const sm_edit *d = l->j->edit;
    int f = sm_vae_factor(&l->j->m->vae);
    int64_t all = (int64_t)l->most * l->h * l->w * l->c;
    l->eh = d->height / f;
    l->ew = d->width / f;
    if (!(l->moments = floats(l->j, (int64_t)l->eh * l->ew * 2 * l->c, e)) || !(l->init = floats(l->j, all, e)) ||
        !(l->room = floats(l->j, 2 * (int64_t)l->c * SM_MAX(l->eh * l->ew, l->h * l->w) * l->most, e)))
        return e->code;
    /* there the model sees the mask itself */
    bool blends = d->mask && !(d->diffusers && l->j->m->traits.extra == SM_EXTRA_INPAINT);
    if (blends && open_mask(l, e))
        return e->code;
    if (d->diffusers && blends && !(l->noise = floats(l->j, all, e)))
        return e->code;
    return sm_randn_open(&l->randn, l->j->mem, "sumi", l->most, l->eh, l->ew, l->c, e);
}

sumi_status sm_edit_latents_open(sm_edit_latents *l, const sm_job *j, int h, int w, int most, bool with_init, sm_err *e)
{
    *l = (sm_edit_latents){.j = j, .h = h, .w = w, .c = j->m->vae.latent_channels, .most = most, .eh = h, .ew = w};
    if (j->edit && open_picture(l, e))
        return e->code;
    if (with_init) {
        l->init = floats(j, (int64_t)most * h * w * l->c, e);
        l->room = floats(j, 2 * (int64_t)most * h * w * l->c, e);
        if (!l->init || !l->room || sm_randn_open(&l->randn, j->mem, "sumi", most, h, w, l->c, e))
            return e->code;
    }
    l->randn.same = j->r.variation_strength > 0;
    return open_beside(l, e);
}

void sm_edit_latents_close(sm_edit_latents *l)
{
    sm_free(l->moments);
    sm_free(l->masked);
    sm_free(l->mask);
    sm_free(l->seen);
    sm_free(l->init);
    sm_free(l->noise);
    sm_free(l->beside);
    sm_free(l->room);
    sm_randn_close(&l->randn);
    *l = (sm_edit_latents){0};
}

/* ---- encoding ------------------------------------------------------------------------------------------------------ */

/* The picture, with gray where `without` (NULL: nowhere) is more than one half; a picture all gray where there is none. */
static sumi_status encode(const sm_edit_latents *l, const uint8_t *without, int h, int w, float *moments, sm_err *e)
{
    const sm_edit *d = l->j->edit;
    int f = sm_vae_factor(&l->j->m->vae);
    size_t n = (size_t)(h * f) * (size_t)(w * f);
    float *x = floats(l->j, (int64_t)(3 * n), e);
    for (size_t i = 0; x && i < 3 * n; i++)
        x[i] = !d || (without && without[i / 3] > 127) ? 0 : (float)(d->picture[i] / 127.5 - 1);
    if (x)
        sm_encode_run(l->j, h, w, x, moments, e);
    sm_free(x);
    return e->code;
}

sumi_status sm_edit_encode(sm_edit_latents *l, sm_err *e)
{
    const sm_edit *d = l->j->edit;
    if (l->moments || l->masked)
        sm_job_tell(l->j, "encode picture", 0, 1, -1);
    if (l->moments && encode(l, NULL, l->eh, l->ew, l->moments, e))
        return e->code;
    if (!l->masked)
        return SUMI_OK;
    nearest_mask(l, l->seen);
    /* Without a mask all of the picture is masked, and gray is all that is left. */
    if (d && d->mask)
        return encode(l, d->mask, l->h, l->w, l->masked, e);
    sm_edit_latents gray = *l;
    sm_job job = *l->j;
    job.edit = NULL;
    gray.j = &job;
    return encode(&gray, NULL, l->h, l->w, l->masked, e);
}

/* ---- a round ------------------------------------------------------------------------------------------------------- */

/* The picture's latents of every one that is drawn; noise [n, eh, ew, c] or NULL. */
static void fill_init(sm_edit_latents *l, const float *noise, int n)
{
    int64_t pixels = (int64_t)l->eh * l->ew, each = (int64_t)l->h * l->w * l->c;
    float *z = l->room + pixels * l->c * n;
    sm_err none = {0};
    for (int k = 0; k < n; k++) {
        bool same = l->eh == l->h && l->ew == l->w;
        float *to = l->init + k * each;
        sm_encode_latent(l->j->m, l->moments, noise ? noise + k * pixels * l->c : NULL, true, pixels, same ? to : z);
        if (!same && sm_interpolate(z, l->ew, l->eh, l->c, SM_INTERP_BILINEAR, to, l->w, l->h, l->j->mem, &none))
            memset(to, 0, sizeof *to * (size_t)each);
    }
}

void sm_edit_before(sm_edit_latents *l, sm_randn *r, uint64_t seed, int n, bool all_noise)
{
    if (!from_picture(l))
        return;
    bool own = !l->j->edit->diffusers || l->eh != l->h || l->ew != l->w;
    sm_randn_start(&l->randn, seed, n);
    if (all_noise && !l->mask)
        return;
    if (sampled(l))
        sm_randn_draw(own ? &l->randn : r, DRAW_PICTURE, l->room);
    fill_init(l, sampled(l) ? l->room : NULL, n);
}

/* What the model looks at beside the latent. */
static void fill_beside(sm_edit_latents *l, const float *noise, int n)
{
    int64_t pixels = (int64_t)l->h * l->w;
    float *z = l->room ? l->room + pixels * l->c * n : NULL;
    for (int k = 0; k < n; k++) {
        float *to = l->beside + k * pixels * l->extra;
        if (l->j->m->traits.extra == SM_EXTRA_EDIT) {
            sm_encode_latent(l->j->m, l->moments, NULL, false, pixels, to);
            continue;
        }
        float *latent = z ? z : to;
        sm_encode_latent(l->j->m, l->masked, noise ? noise + k * pixels * l->c : NULL, true, pixels, latent);
        for (int64_t i = pixels - 1; i >= 0; i--) { /* from the end, where both lie in one place */
            memmove(to + i * l->extra + 1, latent + i * l->c, sizeof *to * (size_t)l->c);
            to[i * l->extra] = l->seen[i];
        }
    }
}

void sm_edit_after(sm_edit_latents *l, sm_randn *r, const float *start, int n)
{
    const sm_edit *d = l->j ? l->j->edit : NULL;
    int64_t pixels = (int64_t)l->h * l->w;
    bool draws = d && d->mask && sampled(l);
    if (draws && (l->masked || d->diffusers)) /* diffusers encodes it for models that do not look at it, too */
        sm_randn_draw(d->diffusers ? r : &l->randn, DRAW_MASKED, l->room);
    if (l->beside)
        fill_beside(l, draws ? l->room : NULL, n);
    if (l->noise)
        memcpy(l->noise, start, sizeof *start * (size_t)(n * pixels * l->c));
    if (!l->mask || d->content < SM_CONTENT_NOISE)
        return;
    for (int k = 0; k < n && r->room; k++) /* without variation and resizing, as A1111's create_random_tensors for it */
        sm_randn_plain(r, k, l->room + k * pixels * l->c);
    const float *noise = r->room ? l->room : start;
    for (int64_t i = 0; i < n * pixels * l->c; i++)
        if (l->mask[i / l->c % pixels] > 0)
            l->init[i] = d->content == SM_CONTENT_NOISE ? noise[i] : 0;
}

void sm_edit_keep_from(const sm_edit_latents *l, const float *from, int n, float *x)
{
    int64_t pixels = (int64_t)l->h * l->w;
    for (int64_t i = 0; i < n * pixels * l->c; i++)
        if (l->mask[i / l->c % pixels] == 0)
            x[i] = from[i];
}

void sm_edit_keep(const sm_edit_latents *l, int n, float *x) { sm_edit_keep_from(l, l->init, n, x); }

void sm_edit_keep_noisy(const sm_edit_latents *l, bool flow, double sigma, int n, float *x)
{
    int64_t pixels = (int64_t)l->h * l->w;
    for (int64_t i = 0; i < n * pixels * l->c; i++)
        if (l->mask[i / l->c % pixels] == 0)
            sm_noise_mix(flow, sigma, l->init + i, l->noise + i, x + i, 1);
}
