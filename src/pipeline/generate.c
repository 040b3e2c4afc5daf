/* Text to image: tokens -> text encoders -> sampler over the guided denoiser -> autoencoder. Pictures are drawn in rounds
 * that share the denoiser's runs; which round a picture is in does not change its bits. */
#include "pipeline/generate.h"

#include <stdio.h>
#include <string.h>

#include "pipeline/decode.h"
#include "pipeline/denoise.h"
#include "pipeline/latents.h"
#include "pipeline/randn.h"
#include "sample/sampler.h"

/* Pictures of a round: small latents fill the kernels better together, large ones only cost memory. */
enum { ROUND = 8, ROUND_TOKENS = 4096 };

typedef struct drawing {
    sm_job *j;
    int round, first, n;  /* the round's pictures are first .. first+n-1 of the request */
    int h, w, c;          /* of a latent */
    sm_text_cond text;
    sm_denoise den;
    sm_decode dec;
    sm_randn randn;
    sm_kept kept;
    double *sigmas;
    float *latents;       /* [round, h, w, c], also x of the sampler */
    float *given;         /* start noise of all pictures from a file; NULL: from the generator */
    float *beside;        /* [h, w, extra]; NULL: zeros */
    int64_t evals_all;    /* of the denoiser, over the whole request */
} drawing;

void sm_part_close(sm_part *p)
{
    sm_plan_free(p->p);
    sm_graph_free(p->g);
    *p = (sm_part){0};
}

const int *sm_job_cancel(const sm_job *j) { return j->cb ? j->cb->cancel : NULL; }

void sm_job_tell(const sm_job *j, const char *stage, int64_t step, int64_t steps, double eta)
{
    if (!j->cb || !j->cb->progress)
        return;
    sumi_progress p = {.stage = stage, .step = step, .steps = steps, .seconds = sm_now() - j->started, .eta = eta};
    j->cb->progress(j->cb->user, &p);
}

sm_plan_opts sm_job_plan_opts(const sm_job *j)
{
    return (sm_plan_opts){.packed = j->m->low_memory ? 0 : SM_PACKED_USUAL, .drop_pages = j->m->low_memory};
}

/* Bytes of the model's mapped weights whose names begin so (NULL: of all); the others are in the memory's count. */
static size_t mapped_of(const sumi_model *m, const char *prefix)
{
    size_t n = 0;
    for (size_t i = 0; i < sm_weights_count(m->w); i++) {
        const sm_weight *w = sm_weights_at(m->w, i);
        n += w->mapped && (!prefix || !strncmp(w->name, prefix, strlen(prefix))) ? w->bytes : 0;
    }
    return n;
}

/* Below this nothing is given back between components. */
enum { LARGE_MODEL = 256 << 20 };
static bool large(const sumi_model *m) { return mapped_of(m, NULL) > LARGE_MODEL; }

void sm_job_release(const sm_job *j, const char *component)
{
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.", component);
    if (large(j->m))
        sm_weights_drop(j->m->w, prefix);
}

/* ---- sampling ---- */

static sumi_status denoise(void *ctx, const float *x, double sigma, float *x0, sm_err *e)
{
    return sm_denoise_run(&((drawing *)ctx)->den, x, sigma, x0, e);
}

static sumi_status step_noise(void *ctx, int draw, double from, double to, float *out, sm_err *e)
{
    sm_randn_draw(&((drawing *)ctx)->randn, draw, out);
    return SUMI_OK;
}

static bool on_step(void *ctx, int step, double sigma, const float *x, const float *x0)
{
    drawing *d = ctx;
    double each = (sm_now() - d->j->started) / (double)SM_MAX(d->den.evals, 1);
    sm_err why = {0};
    sm_job_tell(d->j, "sample", d->den.evals, d->evals_all, each * (double)(d->evals_all - d->den.evals));
    sm_kept_put(&d->kept, step, d->first, d->n, x);
    return sm_decode_preview(&d->dec, x0, d->first, d->n, step, &why) != SUMI_E_CANCELLED; /* one that fails otherwise is none */
}

static void start(drawing *d)
{
    int64_t each = (int64_t)d->h * d->w * d->c;
    sm_randn_start(&d->randn, (uint64_t)(d->j->r.seed + d->first), d->n);
    if (d->given) /* a generator of torch's then begins with the steps' noise, as in diffusers */
        memcpy(d->latents, d->given + d->first * each, sizeof(float) * (size_t)(d->n * each));
    else
        sm_randn_draw(&d->randn, -1, d->latents);
    for (int64_t i = 0; i < d->n * each; i++)
        d->latents[i] = (float)(d->sigmas[0] * d->latents[i]);
}

static sumi_status sample(drawing *d, sm_err *e)
{
    const sm_job *j = d->j;
    if (!sm_denoise_open(&d->den, d->n, &d->text, e)) {
        start(d);
        d->den.beside = d->beside;
        sm_sampling s = {.mem = j->mem, .n = (int64_t)d->n * d->h * d->w * d->c, .flow = d->den.noise.flow, .levels = &d->den.noise, .sigmas = d->sigmas,
                         .steps = j->r.steps, .eta = -1, .denoise = denoise, .noise = step_noise, .on_step = on_step, .ctx = d};
        if (!sm_sample(sm_sampler_find(j->r.sampler), &s, d->latents, e))
            sm_kept_put(&d->kept, j->r.steps, d->first, d->n, d->latents);
    }
    sm_denoise_done(&d->den);
    sm_job_release(j, j->m->family->component);
    return e->code;
}

/* ---- the whole request ---- */

/* What inpainting models see when nothing is given: the whole picture masked, gray under the mask (A1111's way; diffusers'
 * with a mask of ones is the same). Edit models were trained with their picture left out as zeros. */
static sumi_status fill_beside(drawing *d, sm_err *e)
{
    int c = d->c, extra = d->den.extra, hw = d->h * d->w;
    if (d->j->m->traits.extra != SM_EXTRA_INPAINT)
        return SUMI_OK;
    float *gray = sm_alloc(d->j->mem, SM_MEM_MISC, sizeof(float) * (size_t)hw * (size_t)c);
    d->beside = sm_alloc(d->j->mem, SM_MEM_MISC, sizeof(float) * (size_t)hw * (size_t)extra);
    if (!gray || !d->beside)
        sm_fail(e, SUMI_E_MEMORY, "out of memory for the masked picture");
    else if (!sm_encode_gray(d->j, d->h, d->w, gray, e))
        for (int i = 0; i < hw; i++) {
            d->beside[i * extra] = 1;
            memcpy(d->beside + i * extra + 1, gray + i * c, sizeof(float) * (size_t)c);
        }
    sm_free(gray);
    return e->code;
}

static sumi_status open_drawing(drawing *d, sm_job *j, sm_err *e)
{
    const sumi_model *m = j->m;
    int f = sm_vae_factor(&m->vae);
    *d = (drawing){.j = j, .h = j->r.height / f, .w = j->r.width / f, .c = m->vae.latent_channels};
    d->round = SM_MAX(1, SM_MIN(SM_MIN(ROUND, j->r.count), m->low_memory ? 1 : ROUND_TOKENS / (d->h * d->w)));
    d->sigmas = sm_alloc(j->mem, SM_MEM_MISC, sizeof *d->sigmas * (size_t)(j->r.steps + 1));
    d->latents = sm_alloc(j->mem, SM_MEM_MISC, sizeof(float) * (size_t)d->round * (size_t)d->h * (size_t)d->w * (size_t)d->c);
    if (!d->sigmas || !d->latents)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for %d pictures of %dx%d", d->round, j->r.width, j->r.height);
    if (sm_denoise_init(&d->den, j, d->h, d->w, e) ||
        sm_decode_init(&d->dec, j, d->h, d->w, e) || sm_kept_open(&d->kept, j, d->h, d->w, d->c, e) ||
        sm_randn_open(&d->randn, j->mem, j->r.rng, d->round, d->h, d->w, d->c, e) ||
        sm_schedule_fill(sm_schedule_find(j->r.schedule), &d->den.noise, j->r.steps, d->sigmas, e))
        return e->code;
    int rounds = (j->r.count + d->round - 1) / d->round;
    d->evals_all = rounds * sm_sampler_evals(sm_sampler_find(j->r.sampler), d->sigmas, j->r.steps);
    return SUMI_OK;
}

static sumi_status read_given(drawing *d, sm_err *e)
{
    if (!d->j->r.init_latents[0])
        return SUMI_OK;
    d->given = sm_alloc(d->j->mem, SM_MEM_DATA, sizeof(float) * (size_t)d->j->r.count * (size_t)d->h * (size_t)d->w * (size_t)d->c);
    return d->given ? sm_latents_read(d->j, d->h, d->w, d->c, d->given, e) : sm_fail(e, SUMI_E_MEMORY, "out of memory for --init-latents");
}

static void close_drawing(drawing *d)
{
    sm_free(d->sigmas);
    sm_free(d->latents);
    sm_free(d->given);
    sm_free(d->beside);
    sm_text_close(&d->text);
    sm_denoise_close(&d->den);
    sm_decode_close(&d->dec);
    sm_kept_close(&d->kept);
    sm_randn_close(&d->randn);
}

static sumi_status draw_round(drawing *d, int first, uint8_t *rgb, sm_err *e)
{
    const sm_job *j = d->j;
    d->first = first;
    d->n = SM_MIN(d->round, j->r.count - first);
    if (!first || j->prompts) { /* else all pictures have the same texts */
        sm_text_close(&d->text);
        if (sm_text_open(&d->text, j, first, d->n, 0, e) || sm_text_encode(&d->text, j, e))
            return e->code;
    }
    if (!sample(d, e))
        sm_decode_run(&d->dec, d->latents, first, d->n, rgb, e);
    sm_decode_done(&d->dec);
    return e->code;
}

sumi_status sm_job_run(sm_job *j, uint8_t *rgb, sm_err *e)
{
    drawing d;
    j->started = sm_now();
    size_t bytes = (size_t)j->r.width * (size_t)j->r.height * 3;
    if (!open_drawing(&d, j, e) && !read_given(&d, e))
        fill_beside(&d, e);
    for (int k = 0; k < j->r.count && !e->code; k += d.round)
        draw_round(&d, k, rgb + (size_t)k * bytes, e);
    if (!e->code)
        sm_kept_write(&d.kept, j, e);
    close_drawing(&d);
    return e->code;
}

/* ---- planning ---- */

static size_t held(const sm_job *j) { return __atomic_load_n(&j->mem->total, __ATOMIC_RELAXED); }

/* Adds one component's figures. An open part holds what it will hold when it runs, so the peak is counted, not guessed;
 * besides are the pictures. Of a large model only that component's weights are in memory, of a small one all. */
static void add_part(const sm_part *p, const sm_job *j, size_t besides, sumi_plan_info *out)
{
    size_t mapped = large(j->m) ? sm_plan_mapped_bytes(p->p) : mapped_of(j->m, NULL);
    out->packed_bytes += sm_plan_packed_bytes(p->p);
    out->activation_bytes = SM_MAX(out->activation_bytes, sm_plan_activation_bytes(p->p));
    out->peak_bytes = SM_MAX(out->peak_bytes, held(j) + besides + mapped);
}

static void plan_decoder(drawing *d, size_t besides, sumi_plan_info *out, sm_err *e)
{
    const sm_job *j = d->j;
    sm_vae_tiles_info tiles;
    if (sm_decode_tiled(&d->dec)) {
        if (sm_decode_plan_tiles(&d->dec, &tiles, e))
            return;
        out->activation_bytes = SM_MAX(out->activation_bytes, tiles.bytes);
        size_t canvas = sizeof(float) * 3 * (size_t)j->r.width * (size_t)j->r.height; /* tiles drop the pages they have used */
        size_t mapped = !large(j->m) ? mapped_of(j->m, NULL) : j->m->low_memory ? 0 : mapped_of(j->m, "vae.decoder.");
        out->peak_bytes = SM_MAX(out->peak_bytes, held(j) + besides + tiles.bytes + canvas + mapped);
        out->decode_flops = tiles.flops * j->r.count;
    } else if (!sm_decode_open(&d->dec, e)) {
        add_part(&d->dec.part, j, besides, out);
        out->decode_flops = sm_plan_cost(d->dec.part.p).flops * j->r.count;
    }
}

static void plan_text(const drawing *d, size_t besides, sumi_plan_info *out, sm_err *e)
{
    for (int i = 0; i < d->j->m->traits.texts && !e->code; i++) {
        sm_part p = {0};
        if (!sm_text_open_part(&p, d->j, i, sm_text_sequences(&d->text), e)) {
            add_part(&p, d->j, besides, out);
            out->encode_flops += sm_plan_cost(p.p).flops;
        }
        sm_part_close(&p);
    }
}

sumi_status sm_job_plan(sm_job *j, sumi_plan_info *out, sm_err *e)
{
    drawing d;
    *out = (sumi_plan_info){.steps = j->r.steps};
    for (size_t i = 0; i < sm_weights_count(j->m->w); i++)
        out->weight_bytes += sm_weights_at(j->m->w, i)->bytes;
    size_t rgb = (size_t)j->r.count * (size_t)j->r.width * (size_t)j->r.height * 3;
    out->peak_bytes = held(j) + 2 * rgb; /* at the end, when the pictures are handed out */
    if (!open_drawing(&d, j, e) && !sm_text_open(&d.text, j, 0, d.round, 0, e))
        plan_text(&d, rgb, out, e);
    if (!e->code && !sm_denoise_open(&d.den, d.round, NULL, e)) {
        add_part(&d.den.part, j, rgb, out);
        out->step_flops = sm_plan_cost(d.den.part.p).flops * d.den.rows / d.den.batch / d.round * j->r.count;
    }
    sm_denoise_done(&d.den);
    if (!e->code)
        plan_decoder(&d, rgb, out, e);
    if (!e->code) {
        int64_t evals = sm_sampler_evals(sm_sampler_find(j->r.sampler), d.sigmas, j->r.steps);
        out->total_flops = out->encode_flops + out->step_flops * (double)evals + out->decode_flops;
    }
    close_drawing(&d);
    return e->code;
}
