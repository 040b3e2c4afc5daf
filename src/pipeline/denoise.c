/* The guided denoiser (see denoise.h): parameterisation, text, sizes and scores of XL, LCM's embedded guidance scale, and
 * what inpainting models see beside the latent. */
#include "pipeline/denoise.h"

#include <string.h>

enum { SAMPLE, TIME, CONTEXT, POOLED, IDS, BESIDE }; /* inputs of the part */

bool sm_job_guided(const sm_job *j)
{
    const sumi_model *m = j->m;
    return j->r.cfg_scale != 1 && !(m->family->kind == SM_MODEL_UNET && m->denoiser.unet.time_cond_proj_dim);
}

static sumi_status open_noise(sm_denoise *d, sm_err *e)
{
    const sm_traits *t = &d->j->m->traits;
    sm_mem *mem = d->j->mem;
    sm_beta beta;
    if (d->pred == SM_PRED_FLOW)
        return sm_noise_flow(&d->noise, 1000, t->shift > 0 ? t->shift : 1, e);
    if (d->pred == SM_PRED_EDM)
        return sm_noise_edm(&d->noise, mem, 1000, t->sigma_min, t->sigma_max, t->sigma_data, e);
    if (!sm_beta_by_name(t->beta_schedule, &beta))
        return sm_fail(e, SUMI_E_SUPPORT, "%s: the noise schedule '%s' (beta_schedule) is not there", d->j->m->name, t->beta_schedule);
    if (!sm_noise_vp(&d->noise, mem, beta, 1000, t->beta_start, t->beta_end, e) && t->zero_snr)
        sm_noise_zero_snr(&d->noise);
    return e->code;
}

sumi_status sm_denoise_init(sm_denoise *d, const sm_job *j, int h, int w, sm_err *e)
{
    const sumi_model *m = j->m;
    *d = (sm_denoise){.j = j, .h = h, .w = w, .c = m->vae.latent_channels, .guide = {.scale = sm_job_guided(j) ? j->r.cfg_scale : 1}};
    d->extra = m->traits.extra == SM_EXTRA_INPAINT ? d->c + 1 : m->traits.extra == SM_EXTRA_EDIT ? d->c : 0;
    const char *name = j->r.prediction[0] ? j->r.prediction : m->traits.prediction;
    if (!sm_pred_by_name(name, &d->pred))
        return sm_fail(e, SUMI_E_ARG, "--prediction: '%.40s' is unknown; epsilon, v_prediction, sample, flow_prediction or edm", name);
    sm_pred of_model = m->traits.sigma_data > 0 ? SM_PRED_EDM : m->traits.beta_schedule[0] ? SM_PRED_EPS : SM_PRED_FLOW;
    if ((d->pred == SM_PRED_EDM || d->pred == SM_PRED_FLOW ? d->pred : SM_PRED_EPS) != of_model)
        return sm_fail(e, SUMI_E_ARG, "--prediction: %s does not go with %s (%s), which was trained on other noise levels", name, m->name,
                       m->traits.prediction);
    return open_noise(d, e);
}

void sm_denoise_done(sm_denoise *d)
{
    sm_part_close(&d->part);
    sm_free(d->out);
    d->out = NULL;
}

void sm_denoise_close(sm_denoise *d)
{
    sm_denoise_done(d);
    sm_noise_free(&d->noise);
}

/* LCM's guidance scale, an input of the UNet [rows, dim]. */
static sm_node *guidance_embedding(sm_graph *g, double scale, int64_t rows, int dim)
{
    float v[1024];
    if (dim < 4 || dim > (int)SM_COUNT(v))
        return sm_graph_fail(g, "time_cond_proj_dim: %d; a number from 4 to %d was expected", dim, (int)SM_COUNT(v));
    sm_unet_guidance((float)scale, dim, v);
    return sm_expand(sm_const(g, SM_F32, 2, (int64_t[]){1, dim}, v), 2, (int64_t[]){rows, dim});
}

static sumi_status plan(sm_denoise *d, sm_err *e)
{
    const sumi_model *m = d->j->m;
    sm_part *p = &d->part;
    int64_t rows = d->batch;
    int pool = m->family->pooled_width(&m->denoiser), tokens = m->traits.text[0].clip.max_position_embeddings;
    p->g = sm_graph_new(d->j->mem, e);
    if (!p->g)
        return e->code;
    nn_scope root = nn_root(p->g, m->w, NULL), s = nn_sub(&root, "%s", m->family->component);
    p->in[SAMPLE] = sm_input(p->g, "sample", SM_F32, 4, (int64_t[]){rows, d->h, d->w, d->c});
    p->in[TIME] = sm_input(p->g, "timestep", SM_F32, 1, &rows);
    p->in[CONTEXT] = sm_input(p->g, "encoder_hidden_states", SM_F32, 3, (int64_t[]){rows, tokens, m->family->context_width(&m->denoiser)});
    if (pool)
        p->in[POOLED] = sm_input(p->g, "pooled_projections", SM_F32, 2, (int64_t[]){rows, pool});
    if (m->traits.time_ids)
        p->in[IDS] = sm_input(p->g, "time_ids", SM_F32, 2, (int64_t[]){rows, m->traits.time_ids});
    if (d->extra)
        p->in[BESIDE] = sm_input(p->g, "beside", SM_F32, 4, (int64_t[]){rows, d->h, d->w, d->extra});
    sm_conditions c = {.ctx = p->in[CONTEXT], .pooled = p->in[POOLED], .time_ids = p->in[IDS]};
    if (m->family->kind == SM_MODEL_UNET && m->denoiser.unet.time_cond_proj_dim)
        c.timestep_cond = guidance_embedding(p->g, d->j->r.cfg_scale, rows, m->denoiser.unet.time_cond_proj_dim);
    sm_node *x = d->extra ? sm_concat2(p->in[SAMPLE], p->in[BESIDE], -1) : p->in[SAMPLE];
    p->out = m->family->record(&s, &m->denoiser, x, p->in[TIME], &c);
    sm_plan_opts opts = sm_job_plan_opts(d->j);
    p->p = sm_plan_new_with(p->g, 1, &p->out, d->j->be, &opts, e);
    return e->code;
}

sumi_status sm_denoise_open(sm_denoise *d, int n, const sm_text_cond *text, sm_err *e)
{
    d->n = n;
    d->rows = sm_job_guided(d->j) ? 2 * n : n;
    d->batch = d->j->m->low_memory ? 1 : d->rows;
    d->text = text;
    d->out = sm_alloc(d->j->mem, SM_MEM_MISC, sizeof(float) * (size_t)d->rows * (size_t)d->h * (size_t)d->w * (size_t)d->c);
    return d->out ? plan(d, e) : sm_fail(e, SUMI_E_MEMORY, "out of memory for %d predictions of %dx%d latents", d->rows, d->w, d->h);
}

/* XL's sizes: original height and width, top and left of the crop, then the target's height and width, or for the refiner
 * the aesthetic score. */
static void place_ids(const sm_denoise *d, bool negative, float *ids)
{
    const sumi_request *r = &d->j->r;
    float head[4] = {(float)(r->original_height ? r->original_height : r->height), (float)(r->original_width ? r->original_width : r->width),
                     (float)r->crop_top, (float)r->crop_left};
    memcpy(ids, head, sizeof head);
    if (d->j->m->traits.time_ids == 5) {
        ids[4] = negative ? r->negative_aesthetic_score : r->aesthetic_score;
    } else {
        ids[4] = (float)(r->target_height ? r->target_height : r->height);
        ids[5] = (float)(r->target_width ? r->target_width : r->width);
    }
}

/* Inputs of prediction `row` into row `at` of the plan. */
static void place_row(const sm_denoise *d, const sm_precond *pc, const float *x, int row, int at)
{
    const sm_part *p = &d->part;
    const sm_text_cond *t = d->text;
    bool negative = row >= d->n;
    int64_t each = (int64_t)d->h * d->w * d->c, beside = (int64_t)d->h * d->w * d->extra, words = (int64_t)t->tokens * t->width;
    const sm_text_pick *pick;
    sm_text_at(t, row % d->n, 0, negative, &pick);
    sm_precond_in(pc, x + (row % d->n) * each, (float *)sm_plan_data(p->p, p->in[SAMPLE]) + at * each, each);
    ((float *)sm_plan_data(p->p, p->in[TIME]))[at] = (float)pc->t;
    memcpy((float *)sm_plan_data(p->p, p->in[CONTEXT]) + at * words, sm_text_context(t, pick->row), sizeof(float) * (size_t)words);
    if (p->in[POOLED])
        memcpy((float *)sm_plan_data(p->p, p->in[POOLED]) + at * t->pool, sm_text_pooled(t, pick->row), sizeof(float) * (size_t)t->pool);
    if (p->in[IDS])
        place_ids(d, negative, (float *)sm_plan_data(p->p, p->in[IDS]) + at * d->j->m->traits.time_ids);
    if (p->in[BESIDE]) {
        float *to = (float *)sm_plan_data(p->p, p->in[BESIDE]) + at * beside;
        if (d->beside)
            memcpy(to, d->beside, sizeof(float) * (size_t)beside);
        else
            memset(to, 0, sizeof(float) * (size_t)beside);
    }
}

sumi_status sm_denoise_run(sm_denoise *d, const float *x, double sigma, float *x0, sm_err *e)
{
    int64_t each = (int64_t)d->h * d->w * d->c, all = each * d->n;
    sm_precond pc;
    if (sm_precond_at(&d->noise, d->pred, sigma, &pc, e))
        return e->code;
    for (int row = 0; row < d->rows; row += d->batch) {
        for (int k = 0; k < d->batch; k++)
            place_row(d, &pc, x, row + k, k);
        if (sm_plan_run(d->part.p, d->j->pool, sm_job_cancel(d->j), e))
            return e->code;
        memcpy(d->out + row * each, sm_plan_data(d->part.p, d->part.out), sizeof(float) * (size_t)(d->batch * each));
    }
    sm_guidance_apply(&d->guide, sigma, d->out, d->out + (d->rows > d->n ? all : 0), x0, d->n, each);
    sm_precond_out(&pc, x, x0, x0, all);
    d->evals++;
    return SUMI_OK;
}
