/* The autoencoder of a request (see decode.h). */
#include "pipeline/decode.h"

#include <string.h>
#include <strings.h>

#include "pipeline/sheet.h"

/* TILE_LOW: latents a side with --low-memory. WHOLE: latents of a picture that is decoded whole without it, Stable Diffusion XL's
 * 1024x1024: tiles change a picture (tests/t_tiles.c), and the decoder then takes less than XL's weights. */
enum { TILE_LOW = 48, WHOLE = 128 * 128 };

sumi_status sm_job_vae_tile(const sm_job *j, bool encode, int h, int w, int *tile, sm_err *e)
{
    int asked = j->r.vae_tile, f = sm_vae_factor(&j->m->vae), least = 3 * sm_vae_reach(&j->m->vae, encode);
    *tile = asked < 0 ? SM_MAX(j->m->low_memory ? TILE_LOW : SM_VAE_TILE, least) : asked / f;
    if (asked > 0 && *tile < least)
        return sm_fail(e, SUMI_E_ARG, "--vae-tile: %d pixels, this model's autoencoder needs at least %d", asked, least * f);
    bool whole = asked < 0 && !j->m->low_memory && (int64_t)h * w <= WHOLE;
    if (whole || (h <= *tile && w <= *tile))
        *tile = 0;
    return SUMI_OK;
}

static sumi_status open_preview(sm_decode *d, sm_err *e)
{
    const sm_job *j = d->j;
    if (sm_preview_method_of(j->cb->preview_method, &d->method, e) ||
        (d->method == SM_PREVIEW_TAESD && sm_tiny_wanted(j->m, false, "preview-method", e)))
        return e->code;
    d->linear = sm_linear_known(j->m);
    d->small = sm_alloc(j->mem, SM_MEM_DATA, (size_t)d->h * (size_t)d->w * 3);
    d->large = d->method == SM_PREVIEW_TAESD ? sm_alloc(j->mem, SM_MEM_DATA, (size_t)j->r.width * (size_t)j->r.height * 3) : NULL;
    return d->small && (d->large || d->method != SM_PREVIEW_TAESD) ? SUMI_OK
                                                                   : sm_fail(e, SUMI_E_MEMORY, "out of memory for a preview");
}

sumi_status sm_decode_init(sm_decode *d, const sm_job *j, int h, int w, sm_err *e)
{
    *d = (sm_decode){.j = j, .h = h, .w = w, .c = j->m->vae.latent_channels};
    bool looks = j->cb && j->cb->preview;
    d->by_tiny = !strcasecmp(j->r.vae_decoder, "taesd");
    if (d->by_tiny ? sm_tiny_wanted(j->m, false, "vae-decoder", e) : sm_job_vae_tile(j, false, h, w, &d->tile, e))
        return e->code;
    if (looks && open_preview(d, e))
        return e->code;
    if (d->by_tiny || (looks && d->method == SM_PREVIEW_TAESD))
        d->tiny = sm_tiny_bands_of(j, false, h, w);
    return SUMI_OK;
}

void sm_decode_done(sm_decode *d)
{
    sm_part_close(&d->part);
    sm_tiny_close(&d->tiny);
    sm_free(d->pixels);
    d->pixels = NULL;
}

void sm_decode_close(sm_decode *d)
{
    sm_decode_done(d);
    sm_free(d->small);
    sm_free(d->large);
}

/* The denoiser's latents to the autoencoder's: by one factor and shift, or by a mean and a deviation for each channel. */
static sm_node *unscale(const void *model, sm_node *x)
{
    const sumi_model *m = model;
    const sm_traits *t = &m->traits;
    int64_t c = m->vae.latent_channels;
    if (!t->latents_stats)
        return sm_affine(x, 1 / m->vae.scaling_factor, m->vae.shift_factor);
    float factor[4];
    for (int k = 0; k < 4; k++)
        factor[k] = t->latents_std[k] / m->vae.scaling_factor;
    return sm_add(sm_mul(x, sm_const(x->g, SM_F32, 1, &c, factor)), sm_const(x->g, SM_F32, 1, &c, t->latents_mean));
}

sumi_status sm_decode_open(sm_decode *d, sm_err *e)
{
    const sm_job *j = d->j;
    sm_part *p = &d->part;
    if (d->by_tiny)
        return sm_tiny_open(&d->tiny, e);
    p->g = sm_graph_new(j->mem, e);
    if (!p->g)
        return e->code;
    nn_scope s = sm_job_scope(j, p->g, "vae");
    p->in[0] = sm_input(p->g, "latents", SM_F32, 4, (int64_t[]){1, d->h, d->w, d->c});
    p->out = sm_vae_decode(&s, &j->m->vae, unscale(j->m, p->in[0]));
    sm_plan_opts opts = sm_job_plan_opts(j);
    p->p = sm_plan_new_with(p->g, 1, &p->out, j->be, &opts, e);
    if (!p->p) /* a preview's failure is tried again at the next step */
        sm_part_close(p);
    return e->code;
}

bool sm_decode_tiled(const sm_decode *d) { return d->tile > 0; }
const sm_part *sm_decode_part(const sm_decode *d) { return d->by_tiny ? &d->tiny.part : &d->part; }
double sm_decode_flops(const sm_decode *d) { return d->by_tiny ? sm_tiny_flops(&d->tiny) : sm_plan_cost(d->part.p).flops; }

static sm_tiled_vae tiles_of(const sm_decode *d)
{
    const sm_job *j = d->j;
    return (sm_tiled_vae){.mem = j->mem, .be = j->be, .pool = j->pool, .w = j->m->w, .component = "vae", .c = &j->m->vae,
                          .opts = sm_job_plan_opts(j), .unscale = unscale, .unscale_arg = j->m, .tile = d->tile,
                          .circular = {j->circular[0], j->circular[1]}, .cancel = sm_job_cancel(j)};
}

sumi_status sm_decode_plan_tiles(const sm_decode *d, sm_vae_tiles_info *out, sm_err *e)
{
    sm_tiled_vae v = tiles_of(d);
    return sm_vae_tiles_plan(&v, false, d->h, d->w, out, e);
}

static bool all_finite(const float *x, size_t n)
{
    float sum = 0; /* 0 * x is 0 for numbers alone */
    for (size_t i = 0; i < n; i++)
        sum += 0 * x[i];
    return sum == 0;
}

static const float *decode_whole(sm_decode *d, const float *latent, sm_err *e)
{
    if (!d->part.p && sm_decode_open(d, e))
        return NULL;
    memcpy(sm_plan_data(d->part.p, d->part.in[0]), latent, sizeof(float) * (size_t)d->h * (size_t)d->w * (size_t)d->c);
    return sm_plan_run(d->part.p, d->j->pool, sm_job_cancel(d->j), e) ? NULL : sm_plan_data(d->part.p, d->part.out);
}

static const float *decode_tiles(sm_decode *d, const float *latent, sm_err *e)
{
    sm_tiled_vae v = tiles_of(d);
    if (!d->pixels)
        d->pixels = sm_alloc(d->j->mem, SM_MEM_DATA, sizeof(float) * (size_t)d->j->r.width * (size_t)d->j->r.height * 3);
    if (!d->pixels)
        sm_fail(e, SUMI_E_MEMORY, "out of memory for a picture of %dx%d", d->j->r.width, d->j->r.height);
    return !d->pixels || sm_vae_decode_tiled(&v, latent, d->h, d->w, d->pixels, e) ? NULL : d->pixels;
}

/* The picture of one latent, [height, width, 3] in about -1..1, good until the next one; NULL on failure. */
static const float *decode_by(sm_decode *d, bool tiny, const float *latent, int number, sm_err *e)
{
    const float *out = tiny ? sm_tiny_run(&d->tiny, latent, e) : (d->tile > 0 ? decode_tiles : decode_whole)(d, latent, e);
    if (!out || all_finite(out, (size_t)d->j->r.width * (size_t)d->j->r.height * 3))
        return out;
    sm_fail(e, SUMI_E_NUMERIC, "picture %d: the autoencoder gave NaN or infinity", number + 1);
    return NULL;
}

sumi_status sm_decode_run(sm_decode *d, const float *latents, int first, int n, uint8_t *rgb, sm_err *e)
{
    const sm_job *j = d->j;
    size_t bytes = (size_t)j->r.width * (size_t)j->r.height * 3, each = (size_t)d->h * (size_t)d->w * (size_t)d->c;
    for (int k = 0; k < n; k++) {
        sm_job_tell(j, "decode", first + k, j->r.count, -1);
        const float *x = decode_by(d, d->by_tiny, latents + (size_t)k * each, first + k, e);
        if (!x)
            break;
        sm_pixels_from_float(x, (int64_t)bytes, rgb + (size_t)k * bytes);
    }
    sm_job_release(j, "vae");
    return e->code;
}

/* Means of the blocks that each belong to one latent. */
static void shrink(const sm_decode *d, const float *x)
{
    int width = d->j->r.width, f = width / d->w;
    for (int i = 0; i < d->h * d->w; i++)
        for (int c = 0; c < 3; c++) {
            double sum = 0;
            for (int y = 0; y < f; y++)
                for (int k = 0; k < f; k++)
                    sum += x[((size_t)(i / d->w * f + y) * (size_t)width + (size_t)(i % d->w * f + k)) * 3 + (size_t)c];
            float mean = (float)(sum / (f * f));
            sm_pixels_from_float(&mean, 1, d->small + 3 * i + c);
        }
}

static sumi_status preview(sm_decode *d, const float *latent, int number, int step, sm_err *e)
{
    const sumi_callbacks *cb = d->j->cb;
    int64_t n = (int64_t)d->h * d->w;
    bool tiny = d->method == SM_PREVIEW_TAESD;
    if (d->method == SM_PREVIEW_LINEAR && d->linear) {
        sm_linear_apply(d->linear, latent, n, d->small);
    } else {
        const float *x = decode_by(d, tiny || d->by_tiny, latent, number, e);
        if (!x)
            return e->code;
        if (tiny) {
            sm_pixels_from_float(x, (int64_t)d->j->r.width * d->j->r.height * 3, d->large);
            cb->preview(cb->user, number, step, d->j->r.width, d->j->r.height, d->large);
            return SUMI_OK;
        }
        shrink(d, x);
        if (d->method == SM_PREVIEW_LINEAR && sm_linear_fit(latent, d->small, n, d->c, &d->own))
            d->linear = &d->own;
    }
    cb->preview(cb->user, number, step, d->w, d->h, d->small);
    return SUMI_OK;
}

sumi_status sm_decode_preview(sm_decode *d, const float *latents, int first, int n, int step, sm_err *e)
{
    size_t each = (size_t)d->h * (size_t)d->w * (size_t)d->c;
    const sumi_callbacks *cb = d->j->cb;
    bool due = d->small && (cb->preview_every < 2 || (step + 1) % cb->preview_every == 0);
    for (int k = 0; k < n && due; k++)
        if (preview(d, latents + (size_t)k * each, first + k, step, e))
            return e->code;
    return SUMI_OK;
}
