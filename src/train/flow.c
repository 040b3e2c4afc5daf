/* Third stage: rectified flow (Liu et al. 2022; Esser et al. 2024, SD 3) on cached latents, the text encoder trained along.
 * x_s = (1 - s) x0 + s noise with s = sigmoid(mean + std * normal); the model sees 1000 s and learns noise - x0. */
#include <math.h>
#include <string.h>

#include "train/model_view.h"

typedef struct flow_stage {
    sm_node *sample, *time, *ids, *target;
    sm_node *eos;      /* rows of the end marks; NULL where the family takes no pooled text */
    int64_t each;      /* floats of one latent */
    int tokens;
    int32_t *empty;    /* the row of the empty prompt */
} flow_stage;

static sm_node *record(sm_trainer *t, sm_graph *g, flow_stage *f)
{
    int64_t b = t->cfg.flow.opt.batch, s = t->cfg.data.size / sm_vae_factor(&t->vae), c = t->vae.latent_channels;
    nn_scope root = nn_root(g, t->flow_weights, &t->init), text = nn_sub(&root, "text_encoder"),
        den = nn_sub(&root, "%s", t->family->component);
    f->each = s * s * c;
    f->tokens = t->clip.max_position_embeddings;
    f->sample = sm_input(g, "sample", SM_F32, 4, (int64_t[]){b, s, s, c});
    f->target = sm_input(g, "target", SM_F32, 4, (int64_t[]){b, s, s, c});
    f->time = sm_input(g, "timestep", SM_F32, 1, &b);
    f->ids = sm_input(g, "input_ids", SM_I32, 2, (int64_t[]){b, f->tokens});
    f->eos = t->family->pooled_width(&t->denoiser) ? sm_input(g, "eos", SM_I32, 1, &b) : NULL;
    sm_clip_out ctx = sm_clip_text(&text, &t->clip, f->ids, f->eos);
    sm_conditions cond = {.ctx = ctx.last, .pooled = sm_denoiser_pooled(t->family, &t->denoiser, &ctx)};
    sm_node *v = t->family->record(&den, &t->denoiser, f->sample, f->time, &cond);
    return sm_mse(v, f->target);
}

typedef struct fill_job {
    sm_trainer *t;
    flow_stage *f;
    float *sample, *target, *time;
    int32_t *ids;
    int64_t step;
    sm_err err;
} fill_job;

static sumi_status text_row(const fill_job *j, int64_t picture, const sm_scene *scene, uint64_t at, int32_t *row, sm_err *e)
{
    const sm_trainer *t = j->t;
    float drop;
    sm_rng_uniform(t->init.seed, SM_STREAM_DROP, at, &drop, 1);
    if (drop < t->cfg.flow.dropout) {
        memcpy(row, j->f->empty, sizeof *row * (size_t)j->f->tokens);
        return SUMI_OK;
    }
    char text[512];
    sm_dataset_caption(t->data, scene, t->init.seed, at, text, sizeof text);
    return sm_bpe_row(t->bpe, text, strlen(text), j->f->tokens, -1, row, NULL, NULL, e);
}

int64_t sm_flow_variant(const sm_train_config *c, uint64_t seed, uint64_t at)
{
    bool plain = sm_rng_u32(seed, SM_STREAM_PLAIN, at) < c->flow.plain * 0x1p32;
    return plain ? 0 : sm_rng_u32(seed, SM_STREAM_VARIANT, at) % (uint32_t)c->data.variants;
}

/* Example `task` of the step: latent of one variant, noise, time, caption. */
static void fill_task(void *arg, int task, int tasks)
{
    fill_job *j = arg;
    sm_trainer *t = j->t;
    uint64_t seed = t->init.seed, at = (uint64_t)(j->step * tasks + task);
    int64_t n = j->f->each, i = sm_epoch_order(seed, sm_dataset_count(t->data), (int64_t)at);
    int64_t variant = sm_flow_variant(&t->cfg, seed, at);
    const uint16_t *z = t->latents + (i * t->cfg.data.variants + variant) * n;
    float *x = j->sample + (int64_t)task * n, *v = j->target + (int64_t)task * n, u;
    sm_rng_normal(seed, SM_STREAM_NOISE, at * (uint64_t)n, v, (size_t)n);
    sm_rng_normal(seed, SM_STREAM_TIME, at, &u, 1);
    float s = (float)(1 / (1 + exp(-(double)(t->cfg.flow.logit_mean + t->cfg.flow.logit_std * u))));
    for (int64_t k = 0; k < n; k++) {
        float x0 = (sm_f16_f32(z[k]) - t->shift) * t->scale;
        x[k] = (1 - s) * x0 + s * v[k];
        v[k] -= x0;
    }
    j->time[task] = 1000 * s;
    sm_scene scene = sm_dataset_scene(t->data, &t->compose, seed, i, (uint64_t)variant);
    sm_err e = {0};
    if (text_row(j, i, &scene, at, j->ids + (int64_t)task * j->f->tokens, &e))
        sm_task_failed(&j->err, &e);
}

static sumi_status fill(sm_stage *s, sm_trainer *t, const sm_plan *p, int64_t step, sm_err *e)
{
    flow_stage *f = s->self;
    fill_job j = {.t = t, .f = f, .step = step, .sample = sm_plan_data(p, f->sample), .target = sm_plan_data(p, f->target),
                  .time = sm_plan_data(p, f->time), .ids = sm_plan_data(p, f->ids)};
    sm_pool_run(t->pool, fill_task, &j, s->opt->batch);
    if (f->eos)
        sm_clip_eos_rows(&t->clip, j.ids, s->opt->batch, f->tokens, sm_plan_data(p, f->eos));
    return j.err.code ? sm_fail(e, j.err.code, "%s", j.err.msg) : SUMI_OK;
}

sumi_status sm_stage_flow(sm_trainer *t, bool *done, sm_err *e)
{
    flow_stage f = {0};
    sm_stage s = {.name = "flow", .opt = &t->cfg.flow.opt, .weights = t->flow_weights, .reads_text = true, .fill = fill,
                  .validate = sm_flow_validate, .self = &f};
    s.g = sm_graph_new(t->mem, e);
    if (!s.g)
        return e->code;
    s.loss = record(t, s.g, &f);
    f.empty = sm_alloc(t->mem, SM_MEM_MISC, sizeof *f.empty * (size_t)f.tokens);
    sumi_status st = f.empty ? sm_bpe_row(t->bpe, "", 0, f.tokens, -1, f.empty, NULL, NULL, e)
                             : sm_fail(e, SUMI_E_MEMORY, "out of memory for the flow stage");
    if (!st)
        st = sm_loop_run(&s, t, done, e);
    sm_free(f.empty);
    sm_graph_free(s.g);
    return st;
}
