/* The autoencoder of a request (see decode.h). */
#include "pipeline/decode.h"

#include <string.h>

#include "pipeline/sheet.h"

sumi_status sm_decode_init(sm_decode *d, const sm_job *j, int h, int w, sm_err *e)
{
    *d = (sm_decode){.j = j, .h = h, .w = w, .c = j->m->vae.latent_channels};
    if (!j->cb || !j->cb->preview)
        return SUMI_OK;
    d->small = sm_alloc(j->mem, SM_MEM_DATA, (size_t)h * (size_t)w * 3);
    return d->small ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "out of memory for a preview");
}

void sm_decode_done(sm_decode *d) { sm_part_close(&d->part); }

void sm_decode_close(sm_decode *d)
{
    sm_decode_done(d);
    sm_free(d->small);
}

/* The denoiser's latents to the autoencoder's: by one factor and shift, or by a mean and a deviation for each channel. */
static sm_node *unscale(const sumi_model *m, sm_node *x)
{
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
    p->g = sm_graph_new(j->mem, e);
    if (!p->g)
        return e->code;
    nn_scope root = nn_root(p->g, j->m->w, NULL), s = nn_sub(&root, "vae");
    p->in[0] = sm_input(p->g, "latents", SM_F32, 4, (int64_t[]){1, d->h, d->w, d->c});
    p->out = sm_vae_decode(&s, &j->m->vae, unscale(j->m, p->in[0]));
    p->p = sm_plan_new(p->g, 1, &p->out, j->be, e);
    return e->code;
}

static bool all_finite(const float *x, size_t n)
{
    float sum = 0; /* 0 * x is 0 for numbers alone */
    for (size_t i = 0; i < n; i++)
        sum += 0 * x[i];
    return sum == 0;
}

/* The picture of one latent, [height, width, 3] in about -1..1, good until the next one; NULL on failure. */
static const float *decode_one(sm_decode *d, const float *latent, int number, sm_err *e)
{
    const sm_job *j = d->j;
    if (!d->part.p && sm_decode_open(d, e))
        return NULL;
    memcpy(sm_plan_data(d->part.p, d->part.in[0]), latent, sizeof(float) * (size_t)d->h * (size_t)d->w * (size_t)d->c);
    if (sm_plan_run(d->part.p, j->pool, sm_job_cancel(j), e))
        return NULL;
    const float *out = sm_plan_data(d->part.p, d->part.out);
    if (all_finite(out, (size_t)j->r.width * (size_t)j->r.height * 3))
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
        const float *x = decode_one(d, latents + (size_t)k * each, first + k, e);
        if (!x)
            break;
        sm_pixels_from_float(x, (int64_t)bytes, rgb + (size_t)k * bytes);
    }
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

sumi_status sm_decode_preview(sm_decode *d, const float *latents, int first, int n, int step, sm_err *e)
{
    const sumi_callbacks *cb = d->j->cb;
    size_t each = (size_t)d->h * (size_t)d->w * (size_t)d->c;
    bool due = d->small && (cb->preview_every < 2 || (step + 1) % cb->preview_every == 0);
    for (int k = 0; k < n && due; k++) {
        const float *x = decode_one(d, latents + (size_t)k * each, first + k, e);
        if (!x)
            return e->code;
        shrink(d, x);
        cb->preview(cb->user, first + k, step, d->w, d->h, d->small);
    }
    return SUMI_OK;
}

sumi_status sm_encode_gray(const sm_job *j, int h, int w, float *out, sm_err *e)
{
    const sumi_model *m = j->m;
    int f = sm_vae_factor(&m->vae), c = m->vae.latent_channels;
    sm_part p = {.g = sm_graph_new(j->mem, e)};
    if (!p.g)
        return e->code;
    nn_scope root = nn_root(p.g, m->w, NULL), s = nn_sub(&root, "vae");
    p.in[0] = sm_input(p.g, "image", SM_F32, 4, (int64_t[]){1, h * f, w * f, m->vae.in_channels});
    sm_node *moments = sm_vae_encode(&s, &m->vae, p.in[0]);
    p.out = sm_affine(sm_slice(moments, -1, 0, c), m->vae.scaling_factor, -m->vae.shift_factor * m->vae.scaling_factor);
    p.p = sm_plan_new(p.g, 1, &p.out, j->be, e);
    if (p.p) {
        memset(sm_plan_data(p.p, p.in[0]), 0, sizeof(float) * (size_t)(h * f) * (size_t)(w * f) * (size_t)m->vae.in_channels);
        if (!sm_plan_run(p.p, j->pool, sm_job_cancel(j), e))
            memcpy(out, sm_plan_data(p.p, p.out), sizeof(float) * (size_t)h * (size_t)w * (size_t)c);
    }
    sm_part_close(&p);
    return e->code;
}
