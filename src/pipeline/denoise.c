/* The guided denoiser (see denoise.h): opening, and one call from noise to pictures. */
#include "pipeline/denoise.h"

#include <string.h>

#include "pipeline/levels.h"

sumi_status sm_denoise_init(sm_denoise *d, const sm_job *j, int h, int w, sm_err *e)
{
    const sumi_model *m = j->m;
    *d = (sm_denoise){.j = j, .h = h, .w = w, .c = m->vae.latent_channels};
    if (j->classify && sm_classify_fits(j, h, w, e))
        return e->code;
    d->extra = m->traits.extra == SM_EXTRA_INPAINT ? d->c + 1 : m->traits.extra == SM_EXTRA_EDIT ? d->c : 0;
    d->embedded = m->family->kind == SM_MODEL_UNET && m->denoiser.unet.time_cond_proj_dim;
    const char *name = j->r.prediction[0] ? j->r.prediction : m->traits.prediction;
    if (!sm_pred_by_name(name, &d->pred))
        return sm_fail(e, SUMI_E_ARG, "--prediction: '%.40s' is unknown; epsilon, v_prediction, sample, flow_prediction or edm",
                       name);
    sm_pred of_model = m->traits.sigma_data > 0 ? SM_PRED_EDM : m->traits.beta_schedule[0] ? SM_PRED_EPS : SM_PRED_FLOW;
    if ((d->pred == SM_PRED_EDM || d->pred == SM_PRED_FLOW ? d->pred : SM_PRED_EPS) != of_model)
        return sm_fail(e, SUMI_E_ARG, "--prediction: %s does not go with %s (%s), which was trained on other noise levels", name,
                       m->name, m->traits.prediction);
    return sm_denoise_guidance(d, e) || sm_step_cache_init(d, e) ? e->code : sm_levels_open(&d->noise, m, &j->r, j->mem, e);
}

void sm_denoise_done(sm_denoise *d)
{
    for (int i = 0; i < d->nparts; i++)
        sm_part_close(&d->parts[i].part);
    sm_classify_done(d);
    sm_step_cache_done(&d->cache);
    d->nparts = d->most = d->nrows = 0;
    sm_p2p_free(d->p2p);
    d->p2p = NULL;
    void **all[] = {(void **)&d->rows,    (void **)&d->first, (void **)&d->out, (void **)&d->map,
                    (void **)&d->average, (void **)&d->room,  (void **)&d->ptr, (void **)&d->weight};
    for (size_t i = 0; i < SM_COUNT(all); i++) {
        sm_free(*all[i]);
        *all[i] = NULL;
    }
}

void sm_denoise_close(sm_denoise *d)
{
    sm_denoise_done(d);
    sm_noise_free(&d->noise);
}

static int64_t latent(const sm_denoise *d) { return (int64_t)d->h * d->w * d->c; }

sumi_status sm_denoise_open(sm_denoise *d, int n, const sm_text_cond *text, sm_err *e)
{
    size_t each = sizeof(float) * (size_t)latent(d);
    if (sm_p2p_open(&d->p2p, d->j, text, n, d->h, d->w, d->steps, e))
        return e->code;
    n *= d->p2p ? 2 : 1;
    d->n = n;
    d->text = text;
    d->evals = 0;
    sm_step_cache_open(&d->cache);
    d->first = sm_alloc(d->j->mem, SM_MEM_MISC, sizeof *d->first * ((size_t)n + 1));
    d->room = sm_alloc(d->j->mem, SM_MEM_MISC, each * ((size_t)(d->guide.sag != 0 ? n : 0) + 3));
    bool remembers = d->guide.kind != SM_GUIDE_CFG && d->guide.momentum != 0;
    d->average = remembers ? sm_alloc0(d->j->mem, SM_MEM_MISC, each * (size_t)n) : NULL;
    return d->first && d->room && (d->average || !remembers)
               ? SUMI_OK
               : sm_fail(e, SUMI_E_MEMORY, "out of memory for %d predictions of %dx%d latents", n, d->w, d->h);
}

/* ---- a call -------------------------------------------------------------------------------------------------------- */

/* Row of the prediction that SAG starts from, that of the negative prompt or else of the first text. */
static int base_of(const sm_denoise *d, int k)
{
    for (int i = d->first[k]; i < d->first[k + 1]; i++)
        if (d->rows[i].negative)
            return i;
    return d->first[k];
}

/* SAG's second question for every picture: the rows after the list's. */
static sumi_status ask_degraded(sm_denoise *d, double sigma, const sm_precond *pc, sm_err *e)
{
    int64_t each = latent(d);
    int first = d->nrows;
    sm_sag s = {.h = d->h, .w = d->w, .c = d->c, .mh = d->mh, .mw = d->mw, .flow = d->noise.flow, .sigma = sigma,
                .blur = d->j->r.sag_blur_sigma};
    for (int k = 0; k < d->n; k++) {
        int base = base_of(d, k);
        float *to = d->room + k * each, *more = d->room + d->n * each;
        sm_precond_out(pc, d->rows[base].x, d->out + base * each, more, each);
        sm_sag_degrade(&s, d->map + base * (int64_t)d->h * d->w, d->rows[base].x, more, to, more + each);
        d->rows[d->nrows] = d->rows[base];
        d->rows[d->nrows].how = SM_HOW_PLAIN;
        d->rows[d->nrows].done = false;
        d->rows[d->nrows++].x = to;
    }
    return sm_denoise_rows(d, first, pc, NULL, e);
}

/* Picture k of the call: its rows put together. */
static void combine(sm_denoise *d, int k, const sm_guidance_step *s, const sm_precond *pc, const float *x, float *x0,
                    float *uncond)
{
    int64_t each = latent(d);
    const sm_text_pick *pick;
    int parts = sm_text_at(d->text, k, (int)d->evals, false, &pick), at = d->first[k], end = d->first[k + 1];
    sm_guided in = {.cond = d->ptr, .weight = d->weight, .parts = parts, .x = x, .pc = pc, .n = each, .channels = d->c,
                    .average = d->average ? d->average + k * each : NULL};
    for (int i = 0; i < parts; i++, at++) {
        d->ptr[i] = d->out + at * each;
        d->weight[i] = pick[i].weight;
    }
    if (at < end && d->rows[at].negative)
        in.uncond = d->out + at++ * each;
    if (at < end && d->rows[at].negative)
        in.image = d->out + at++ * each;
    if (at < end)
        in.perturbed = d->ptr + parts;
    for (int i = 0; at < end; i++, at++)
        d->ptr[parts + i] = d->out + at * each;
    if (s->sag != 0)
        in.degraded = d->out + (d->first[d->n] + k) * each;
    sm_guidance_combine(&d->guide, s, &in, x0, d->room + (s->sag != 0 ? d->n : 0) * each);
    if (uncond && in.uncond)
        sm_precond_out(pc, x, in.uncond, uncond, each);
    else if (uncond)
        memcpy(uncond, x0, sizeof *x0 * (size_t)each);
}

static sm_guidance_step step_at(sm_denoise *d, double sigma, double t)
{
    double position = sm_guidance_position(d->sigmas, d->steps, sigma);
    d->step = (int)(position + 1e-4); /* churn begins a step above its level: it counts as the one before */
    return sm_guidance_at(&d->guide, sigma, t, position, d->steps);
}

sumi_status sm_denoise_run(sm_denoise *d, const float *x, double sigma, float *x0, float *uncond, sm_err *e)
{
    sm_precond pc;
    if (sm_precond_at(&d->noise, d->pred, sigma, &pc, e))
        return e->code;
    sm_guidance_step s = step_at(d, sigma, pc.t);
    if (sm_denoise_list(d, x, &s, uncond != NULL, e) || sm_step_cache_before(d, &pc, sigma, NULL, e) ||
        sm_denoise_rows(d, 0, &pc, NULL, e) || sm_step_cache_after(d, &pc, false, e) ||
        (s.sag != 0 && ask_degraded(d, sigma, &pc, e)))
        return e->code;
    for (int k = 0; k < d->n; k++)
        combine(d, k, &s, &pc, x + k * latent(d), x0 + k * latent(d), uncond ? uncond + k * latent(d) : NULL);
    d->evals++;
    double by = s.classifier * sm_precond_score(&d->noise, &pc, sigma);
    return by != 0 ? sm_classify_push(d, by, x, pc.c_in, pc.t, x0, e) : SUMI_OK;
}

/* ---- planning ------------------------------------------------------------------------------------------------------ */

/* The rows of one call; with a step cache those of all calls of a sampler's step, their mean. */
static sumi_status plan_rows(sm_denoise *d, double sigma, double *flops, sm_err *e)
{
    int times = d->cache.way.kind ? d->cache.places : 1;
    double sum = 0;
    for (int i = 0; i < times && !e->code; i++) {
        for (int k = 0; i && k < d->nrows; k++)
            d->rows[k].done = d->rows[k].shallow = false;
        if (!sm_step_cache_before(d, NULL, sigma, &sum, e) && !sm_denoise_rows(d, 0, NULL, &sum, e))
            sm_step_cache_after(d, NULL, true, e);
    }
    *flops += sum / times;
    if (sm_cache_adapts(&d->cache.way) && d->n > 1 && !e->code) { /* the plan for when only some pictures are computed */
        for (int k = 0; k < d->nrows; k++)
            d->rows[k].done = false;
        d->cache.partial = true;
        sm_denoise_rows(d, 0, NULL, &sum, e);
    }
    sm_step_cache_turn(&d->cache);
    return e->code;
}

sumi_status sm_denoise_plan(sm_denoise *d, bool both, double *flops, sm_err *e)
{
    double sum = 0, look = 0;
    int calls = SM_MAX(1, d->steps);
    if (d->guide.classifier != 0 && sm_classify_flops(d, &look, e))
        return e->code;
    d->largest = (sm_denoise_part){0};
    d->largest_bytes = 0;
    for (int i = 0; i < calls && !e->code; i++) {
        sm_guidance_step s = step_at(d, d->sigmas ? d->sigmas[i] : sm_noise_max(&d->noise), 1000);
        d->evals = i;
        sum += s.classifier != 0 ? look : 0;
        if (sm_denoise_list(d, NULL, &s, both, e) || plan_rows(d, calls - i, &sum, e))
            break;
        int first = d->nrows;
        for (int k = 0; k < d->n && s.sag != 0; k++) {
            d->rows[d->nrows] = d->rows[base_of(d, k)];
            d->rows[d->nrows].how = SM_HOW_PLAIN;
            d->rows[d->nrows++].done = false;
        }
        sm_denoise_rows(d, first, NULL, &sum, e);
    }
    if (!e->code) /* among those that are kept, for who looks at their memory */
        sm_denoise_part_for(d, d->largest.tokens, d->largest.how, d->largest.cut, d->largest.batch, e);
    d->evals = 0;
    *flops = sum / calls;
    return e->code;
}
