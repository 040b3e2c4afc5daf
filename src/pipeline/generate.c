/* Text to image: tokens -> text encoder -> sampler over the guided denoiser -> autoencoder. */
#include "pipeline/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/params.h"
#include "pipeline/randn.h"
#include "pipeline/sheet.h"
#include "sample/guidance.h"
#include "sample/param.h"
#include "sample/sampler.h"

/* Pictures drawn together; more go in several rounds, so memory does not grow with the count. */
enum { ROUND = 8 };

/* One component's graph and plan. */
typedef struct part {
    sm_graph *g;
    sm_plan *p;
    sm_node *in[4], *out;
    sm_node *pooled;          /* text: second output, NULL where the family takes none */
} part;

typedef struct drawing {
    sm_job *j;
    int first, n;             /* pictures first .. first+n-1 of the request */
    int tokens, width, pool;  /* of the text encoder's outputs; pool is 0 without pooled text */
    int h, w, c;              /* of a latent */
    sm_noise noise;
    sm_randn randn;
    double *sigmas;
    sm_guidance guide;
    float *context;           /* [n + 1, tokens, width]: each picture's prompt, then the negative one */
    float *pooled;            /* [n + 1, pool], in the same order */
    float *latents;           /* [n, h, w, c], also x of the sampler */
    part den, dec;            /* dec is open from the first preview, or for decoding, to the round's end */
    uint8_t *small;           /* [h, w, 3], a preview; NULL when nobody looks */
    int64_t evals, evals_all; /* of the denoiser, over the whole request */
} drawing;

static void close_part(part *p)
{
    sm_plan_free(p->p);
    sm_graph_free(p->g);
    *p = (part){0};
}

static const int *cancel_of(const sm_job *j) { return j->cb ? j->cb->cancel : NULL; }

static void tell(const sm_job *j, const char *stage, int64_t step, int64_t steps, double eta)
{
    if (!j->cb || !j->cb->progress)
        return;
    sumi_progress p = {.stage = stage, .step = step, .steps = steps, .seconds = sm_now() - j->started, .eta = eta};
    j->cb->progress(j->cb->user, &p);
}

/* ---- text ---- */

static sumi_status open_text(part *p, const sm_job *j, int64_t rows, sm_err *e)
{
    const sumi_model *m = j->m;
    p->g = sm_graph_new(j->mem, e);
    if (!p->g)
        return e->code;
    nn_scope root = nn_root(p->g, m->w, NULL), s = nn_sub(&root, "text_encoder");
    p->in[0] = sm_input(p->g, "input_ids", SM_I32, 2, (int64_t[]){rows, m->clip.max_position_embeddings});
    p->in[1] = m->family->pooled_width(&m->denoiser) ? sm_input(p->g, "eos", SM_I32, 1, &rows) : NULL;
    sm_clip_out text = sm_clip_text(&s, &m->clip, p->in[0], p->in[1]);
    p->out = text.last;
    p->pooled = sm_denoiser_pooled(m->family, &m->denoiser, &text);
    p->p = sm_plan_new(p->g, p->pooled ? 2 : 1, (sm_node *[]){p->out, p->pooled}, j->be, e);
    return e->code;
}

static const char *prompt_of(const sm_job *j, int k) { return j->prompts ? j->prompts[k] : j->r.prompt; }

static sumi_status encode(drawing *d, sm_err *e)
{
    sm_job *j = d->j;
    part p = {0};
    tell(j, "encode", 0, 1, -1);
    if (!open_text(&p, j, d->n + 1, e)) {
        int32_t *ids = sm_plan_data(p.p, p.in[0]);
        for (int k = 0; k <= d->n && !e->code; k++) {
            const char *text = k < d->n ? prompt_of(j, d->first + k) : j->r.negative_prompt;
            sm_bpe_row(j->m->bpe, text, strlen(text), d->tokens, -1, ids + k * d->tokens, NULL, NULL, e);
        }
        if (p.in[1])
            sm_clip_eos_rows(&j->m->clip, ids, d->n + 1, d->tokens, sm_plan_data(p.p, p.in[1]));
        if (!e->code && !sm_plan_run(p.p, j->pool, cancel_of(j), e)) {
            memcpy(d->context, sm_plan_data(p.p, p.out), sizeof(float) * (size_t)(d->n + 1) * (size_t)d->tokens * (size_t)d->width);
            if (p.pooled)
                memcpy(d->pooled, sm_plan_data(p.p, p.pooled), sizeof(float) * (size_t)(d->n + 1) * (size_t)d->pool);
        }
    }
    close_part(&p);
    return e->code;
}

/* ---- denoiser ---- */

static sumi_status open_denoiser(part *p, const sm_job *j, int64_t rows, int h, int w, sm_err *e)
{
    const sumi_model *m = j->m;
    p->g = sm_graph_new(j->mem, e);
    if (!p->g)
        return e->code;
    nn_scope root = nn_root(p->g, m->w, NULL), s = nn_sub(&root, "%s", m->family->component);
    p->in[0] = sm_input(p->g, "sample", SM_F32, 4, (int64_t[]){rows, h, w, m->vae.latent_channels});
    p->in[1] = sm_input(p->g, "timestep", SM_F32, 1, &rows);
    p->in[2] = sm_input(p->g, "encoder_hidden_states", SM_F32, 3, (int64_t[]){rows, m->clip.max_position_embeddings, m->clip.hidden_size});
    if (m->family->pooled_width(&m->denoiser))
        p->in[3] = sm_input(p->g, "pooled_projections", SM_F32, 2, (int64_t[]){rows, m->family->pooled_width(&m->denoiser)});
    p->out = m->family->record(&s, &m->denoiser, p->in[0], p->in[1], &(sm_conditions){.ctx = p->in[2], .pooled = p->in[3]});
    p->p = sm_plan_new(p->g, 1, &p->out, j->be, e);
    return e->code;
}

static bool guided(const sm_job *j) { return j->r.cfg_scale != 1; }

/* Rows of `one` floats for the denoiser: each picture's, then, guided, the last one (the negative prompt's) for each. */
static void place_rows(const drawing *d, const float *rows, size_t one, float *out)
{
    memcpy(out, rows, sizeof(float) * one * (size_t)d->n);
    for (int k = 0; guided(d->j) && k < d->n; k++)
        memcpy(out + (size_t)(d->n + k) * one, rows + (size_t)d->n * one, sizeof(float) * one);
}

/* The text never changes during sampling. */
static void place_context(const drawing *d)
{
    place_rows(d, d->context, (size_t)d->tokens * (size_t)d->width, sm_plan_data(d->den.p, d->den.in[2]));
    if (d->den.in[3])
        place_rows(d, d->pooled, (size_t)d->pool, sm_plan_data(d->den.p, d->den.in[3]));
}

static sumi_status denoise(void *ctx, const float *x, double sigma, float *x0, sm_err *e)
{
    drawing *d = ctx;
    sm_precond pc;
    int64_t each = (int64_t)d->h * d->w * d->c, all = each * d->n;
    int rows = guided(d->j) ? 2 * d->n : d->n;
    if (sm_precond_at(&d->noise, SM_PRED_FLOW, sigma, &pc, e))
        return e->code;
    float *in = sm_plan_data(d->den.p, d->den.in[0]), *t = sm_plan_data(d->den.p, d->den.in[1]);
    sm_precond_in(&pc, x, in, all);
    if (rows > d->n)
        memcpy(in + all, in, sizeof *in * (size_t)all);
    for (int k = 0; k < rows; k++)
        t[k] = (float)pc.t;
    if (sm_plan_run(d->den.p, d->j->pool, cancel_of(d->j), e))
        return e->code;
    float *out = sm_plan_data(d->den.p, d->den.out);
    sm_guidance_apply(&d->guide, sigma, out, out + all, x0, d->n, each);
    sm_precond_out(&pc, x, x0, x0, all);
    d->evals++;
    return SUMI_OK;
}

static sumi_status step_noise(void *ctx, int step, float *out, sm_err *e)
{
    sm_randn_draw(&((drawing *)ctx)->randn, step, out);
    return SUMI_OK;
}

/* ---- pictures ---- */

static sumi_status open_decoder(part *p, const sm_job *j, int h, int w, sm_err *e)
{
    const sumi_model *m = j->m;
    p->g = sm_graph_new(j->mem, e);
    if (!p->g)
        return e->code;
    nn_scope root = nn_root(p->g, m->w, NULL), s = nn_sub(&root, "vae");
    p->in[0] = sm_input(p->g, "latents", SM_F32, 4, (int64_t[]){1, h, w, m->vae.latent_channels});
    sm_node *z = sm_affine(p->in[0], 1 / m->vae.scaling_factor, m->vae.shift_factor);
    p->out = sm_vae_decode(&s, &m->vae, z);
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

/* The picture of latent k of these, [height, width, 3] in about -1..1, good until the next one; NULL on failure. */
static const float *decode_one(drawing *d, const float *latents, int k, sm_err *e)
{
    const sm_job *j = d->j;
    size_t each = (size_t)d->h * (size_t)d->w * (size_t)d->c;
    if (!d->dec.p && open_decoder(&d->dec, j, d->h, d->w, e))
        return NULL;
    memcpy(sm_plan_data(d->dec.p, d->dec.in[0]), latents + (size_t)k * each, sizeof(float) * each);
    if (sm_plan_run(d->dec.p, j->pool, cancel_of(j), e))
        return NULL;
    const float *out = sm_plan_data(d->dec.p, d->dec.out);
    if (all_finite(out, (size_t)j->r.width * (size_t)j->r.height * 3))
        return out;
    sm_fail(e, SUMI_E_NUMERIC, "picture %d: the autoencoder gave NaN or infinity", d->first + k + 1);
    return NULL;
}

static sumi_status decode(drawing *d, uint8_t *rgb, sm_err *e)
{
    const sm_job *j = d->j;
    size_t bytes = (size_t)j->r.width * (size_t)j->r.height * 3;
    for (int k = 0; k < d->n; k++) {
        tell(j, "decode", d->first + k, j->r.count, -1);
        const float *x = decode_one(d, d->latents, k, e);
        if (!x)
            break;
        sm_pixels_from_float(x, (int64_t)bytes, rgb + (size_t)(d->first + k) * bytes);
    }
    return e->code;
}

/* Means of the blocks that each belong to one latent. */
static void shrink(const drawing *d, const float *x, uint8_t *rgb)
{
    int width = d->j->r.width, f = width / d->w;
    for (int i = 0; i < d->h * d->w; i++)
        for (int c = 0; c < 3; c++) {
            double sum = 0;
            for (int y = 0; y < f; y++)
                for (int k = 0; k < f; k++)
                    sum += x[((size_t)(i / d->w * f + y) * (size_t)width + (size_t)(i % d->w * f + k)) * 3 + (size_t)c];
            float mean = (float)(sum / (f * f));
            sm_pixels_from_float(&mean, 1, rgb + 3 * i + c);
        }
}

static sumi_status preview(drawing *d, int step, const float *x0, sm_err *e)
{
    const sumi_callbacks *cb = d->j->cb;
    for (int k = 0; k < d->n && d->small; k++) {
        const float *x = decode_one(d, x0, k, e);
        if (!x)
            return e->code;
        shrink(d, x, d->small);
        cb->preview(cb->user, d->first + k, step, d->w, d->h, d->small);
    }
    return SUMI_OK;
}

/* ---- sampling ---- */

static bool on_step(void *ctx, int step, double sigma, const float *x, const float *x0)
{
    drawing *d = ctx;
    double each = (sm_now() - d->j->started) / (double)SM_MAX(d->evals, 1);
    sm_err why = {0};
    tell(d->j, "sample", d->evals, d->evals_all, each * (double)(d->evals_all - d->evals));
    return preview(d, step, x0, &why) != SUMI_E_CANCELLED; /* a preview that fails otherwise is none */
}

static sumi_status sample(drawing *d, sm_err *e)
{
    const sm_job *j = d->j;
    int rows = guided(j) ? 2 * d->n : d->n;
    if (!open_denoiser(&d->den, j, rows, d->h, d->w, e)) {
        place_context(d);
        sm_randn_start(&d->randn, (uint64_t)(j->r.seed + d->first), d->n);
        sm_randn_draw(&d->randn, -1, d->latents);
        sm_sampling s = {.mem = j->mem, .n = (int64_t)d->n * d->h * d->w * d->c, .flow = true, .sigmas = d->sigmas,
                         .steps = j->r.steps, .eta = -1, .denoise = denoise, .noise = step_noise, .on_step = on_step, .ctx = d};
        for (int64_t i = 0; i < s.n; i++)
            d->latents[i] = (float)(d->sigmas[0] * d->latents[i]);
        sm_sample(sm_sampler_find(j->r.sampler), &s, d->latents, e);
    }
    close_part(&d->den);
    return e->code;
}

/* ---- the whole request ---- */

static sumi_status open_drawing(drawing *d, sm_job *j, sm_err *e)
{
    const sumi_model *m = j->m;
    int f = sm_vae_factor(&m->vae), most = SM_MIN(j->r.count, ROUND);
    *d = (drawing){.j = j, .tokens = m->clip.max_position_embeddings, .width = m->clip.hidden_size, .h = j->r.height / f, .w = j->r.width / f,
                   .c = m->vae.latent_channels, .guide = {.scale = j->r.cfg_scale}};
    d->pool = m->family->pooled_width(&m->denoiser);
    d->sigmas = sm_alloc(j->mem, SM_MEM_MISC, sizeof *d->sigmas * (size_t)(j->r.steps + 1));
    d->context = sm_alloc(j->mem, SM_MEM_MISC, sizeof(float) * (size_t)(most + 1) * (size_t)d->tokens * (size_t)d->width);
    d->pooled = sm_alloc(j->mem, SM_MEM_MISC, sizeof(float) * (size_t)(most + 1) * (size_t)d->pool);
    d->latents = sm_alloc(j->mem, SM_MEM_MISC, sizeof(float) * (size_t)most * (size_t)d->h * (size_t)d->w * (size_t)d->c);
    if (j->cb && j->cb->preview)
        d->small = sm_alloc(j->mem, SM_MEM_DATA, (size_t)d->h * (size_t)d->w * 3);
    if (!d->sigmas || !d->context || !d->pooled || !d->latents)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for %d pictures of %dx%d", most, j->r.width, j->r.height);
    if (sm_randn_open(&d->randn, j->mem, j->r.rng, most, d->h, d->w, d->c, e))
        return e->code;
    if (sm_noise_flow(&d->noise, 1000, m->defaults.shift, e) ||
        sm_schedule_fill(sm_schedule_find(j->r.schedule), &d->noise, j->r.steps, d->sigmas, e))
        return e->code;
    int rounds = (j->r.count + ROUND - 1) / ROUND;
    d->evals_all = rounds * sm_sampler_evals(sm_sampler_find(j->r.sampler), d->sigmas, j->r.steps);
    return SUMI_OK;
}

static void close_drawing(drawing *d)
{
    sm_free(d->sigmas);
    sm_free(d->context);
    sm_free(d->pooled);
    sm_free(d->latents);
    sm_free(d->small);
    sm_noise_free(&d->noise);
    sm_randn_close(&d->randn);
}

sumi_status sm_job_run(sm_job *j, uint8_t *rgb, sm_err *e)
{
    drawing d;
    j->started = sm_now();
    open_drawing(&d, j, e);
    for (int k = 0; k < j->r.count && !e->code; k += ROUND) {
        d.first = k;
        d.n = SM_MIN(ROUND, j->r.count - k);
        if (!encode(&d, e) && !sample(&d, e))
            decode(&d, rgb, e);
        close_part(&d.dec);
    }
    close_drawing(&d);
    return e->code;
}

static size_t held(const sm_job *j) { return __atomic_load_n(&j->mem->total, __ATOMIC_RELAXED); }

/* Adds one component's figures. An open part holds what it will hold when it runs, so the peak is counted, not guessed;
 * besides are: what is held in any case. */
static void add_part(const part *p, const sm_job *j, size_t besides, sumi_plan_info *out)
{
    out->packed_bytes += sm_plan_packed_bytes(p->p);
    out->activation_bytes = SM_MAX(out->activation_bytes, sm_plan_activation_bytes(p->p));
    out->peak_bytes = SM_MAX(out->peak_bytes, held(j) + besides);
}

sumi_status sm_job_plan(sm_job *j, sumi_plan_info *out, sm_err *e)
{
    drawing d;
    part p = {0};
    int n = SM_MIN(j->r.count, ROUND);
    *out = (sumi_plan_info){.steps = j->r.steps};
    for (size_t i = 0; i < sm_weights_count(j->m->w); i++)
        out->weight_bytes += sm_weights_at(j->m->w, i)->bytes;
    size_t rgb = (size_t)j->r.count * (size_t)j->r.width * (size_t)j->r.height * 3, besides = out->weight_bytes + rgb - held(j);
    out->peak_bytes = out->weight_bytes + 2 * rgb; /* at the end, when the pictures are handed out */
    if (!open_drawing(&d, j, e) && !open_text(&p, j, n + 1, e)) {
        add_part(&p, j, besides, out);
        out->encode_flops = sm_plan_cost(p.p).flops / (n + 1) * (j->r.count + 1);
        close_part(&p);
    }
    if (!e->code && !open_denoiser(&p, j, guided(j) ? 2 * n : n, d.h, d.w, e)) {
        add_part(&p, j, besides, out);
        out->step_flops = sm_plan_cost(p.p).flops / n * j->r.count;
        close_part(&p);
    }
    if (!e->code && !open_decoder(&p, j, d.h, d.w, e)) {
        add_part(&p, j, besides, out);
        out->decode_flops = sm_plan_cost(p.p).flops * j->r.count;
    }
    if (!e->code) {
        int64_t evals = sm_sampler_evals(sm_sampler_find(j->r.sampler), d.sigmas, j->r.steps);
        out->total_flops = out->encode_flops + out->step_flops * (double)evals + out->decode_flops;
    }
    close_part(&p);
    close_drawing(&d);
    return e->code;
}
