/* Plans of the denoiser and their inputs (see denoise.h): text, sizes and scores of XL, LCM's embedded guidance scale, what
 * inpainting and edit models see beside the latent. */
#include "pipeline/denoise.h"
#include "pipeline/merging.h"

#include <string.h>

enum { SAMPLE, TIME, CONTEXT, POOLED, IDS, BESIDE, MAP, OWN, WORDS, DEEP }; /* inputs of the part; MAP to WORDS of pairs */

/* LCM's guidance scale, an input of the UNet [rows, dim]. */
static sm_node *guidance_embedding(sm_graph *g, double scale, int64_t rows, int dim)
{
    float v[1024];
    if (dim < 4 || dim > (int)SM_COUNT(v))
        return sm_graph_fail(g, "time_cond_proj_dim: %d; a number from 4 to %d was expected", dim, (int)SM_COUNT(v));
    sm_unet_guidance((float)scale, dim, v);
    return sm_expand(sm_const(g, SM_F32, 2, (int64_t[]){1, dim}, v), 2, (int64_t[]){rows, dim});
}

static void inputs(const sm_denoise *d, sm_part *p, int64_t rows, int64_t tokens)
{
    const sumi_model *m = d->j->m;
    int pool = m->family->pooled_width(&m->denoiser);
    p->in[SAMPLE] = sm_input(p->g, "sample", SM_F32, 4, (int64_t[]){rows, d->h, d->w, d->c});
    p->in[TIME] = sm_input(p->g, "timestep", SM_F32, 1, &rows);
    p->in[CONTEXT] =
        sm_input(p->g, "encoder_hidden_states", SM_F32, 3, (int64_t[]){rows, tokens, m->family->context_width(&m->denoiser)});
    if (pool)
        p->in[POOLED] = sm_input(p->g, "pooled_projections", SM_F32, 2, (int64_t[]){rows, pool});
    if (m->traits.time_ids)
        p->in[IDS] = sm_input(p->g, "time_ids", SM_F32, 2, (int64_t[]){rows, m->traits.time_ids});
    for (int i = CONTEXT; i <= IDS; i++) /* every step of a request has the same, unless its prompt changes on the way */
        if (p->in[i])
            p->in[i]->fixed = true;
    if (d->extra)
        p->in[BESIDE] = sm_input(p->g, "beside", SM_F32, 4, (int64_t[]){rows, d->h, d->w, d->extra});
}

/* Prompt-to-Prompt: rows are q->batch edited ones, then their sources. */
static nn_pairs pairs(const sm_denoise *d, const sm_denoise_part *q, sm_part *p)
{
    int64_t m = q->batch, t = q->tokens;
    nn_pairs a = {.count = m, .self = q->how & SM_P2P_SELF, .self_tokens = d->p2p->self_tokens};
    if (q->how & SM_P2P_CROSS) {
        a.map = p->in[MAP] = sm_input(p->g, "p2p.map", SM_F32, 3, (int64_t[]){m, t, t});
        a.own = p->in[OWN] = sm_input(p->g, "p2p.own", SM_F32, 3, (int64_t[]){m, t, 1});
    }
    if (q->how & SM_P2P_SEEN)
        a.words = p->in[WORDS] = sm_input(p->g, "p2p.words", SM_F32, 3, (int64_t[]){2 * m, t, SM_P2P_WORDS});
    return a;
}

/* deepcache: a full run tells the features at the cut, a shallow one takes them. */
static void cut(const sm_denoise *d, sm_denoise_part *q, int64_t rows, sm_unet_tweaks *t)
{
    const int64_t *f = d->cache.feature;
    t->cut = q->cut == SM_CUT_WHOLE || q->cut == SM_CUT_SHALLOW;
    t->branch = d->cache.branch;
    if (q->cut == SM_CUT_SHALLOW)
        t->deep_in = q->part.in[DEEP] = sm_input(q->part.g, "deep", SM_F32, 4, (int64_t[]){rows, f[0], f[1], f[2]});
}

static sumi_status record(sm_denoise *d, sm_denoise_part *q, sm_err *e)
{
    const sumi_model *m = d->j->m;
    sm_part *p = &q->part;
    sm_unet_tweaks tweaks = d->tweaks;
    sm_layers layers = {.list = d->j->r.pag_applied_layers, .component = m->family->component};
    p->g = sm_graph_new(d->j->mem, e);
    if (!p->g)
        return e->code;
    bool paired = q->how & SM_P2P_ANY;
    int rows = paired ? 2 * q->batch : q->batch;
    nn_pairs both;
    inputs(d, p, rows, q->tokens);
    if (paired) {
        both = pairs(d, q, p);
        tweaks.pairs = &both;
        tweaks.seen_level = d->p2p->level;
    }
    if (q->how == SM_HOW_IDENTITY) {
        tweaks.identity = sm_layers_match;
        tweaks.arg = &layers;
    }
    tweaks.map = q->how == SM_HOW_MAP;
    q->merging = sm_merging_of(d->j);
    tweaks.merging = q->merging.ratio > 0 ? &q->merging : NULL;
    cut(d, q, rows, &tweaks);
    sm_conditions c = {.ctx = p->in[CONTEXT], .pooled = p->in[POOLED], .time_ids = p->in[IDS],
                       .tweaks = tweaks.freeu || tweaks.map || tweaks.identity || tweaks.merging || tweaks.cut ||
                       paired ? &tweaks : NULL};
    if (d->embedded)
        c.timestep_cond = guidance_embedding(p->g, d->j->r.cfg_scale, rows, m->denoiser.unet.time_cond_proj_dim);
    sm_node *x = d->extra ? sm_concat2(p->in[SAMPLE], p->in[BESIDE], -1) : p->in[SAMPLE];
    nn_scope s = sm_job_scope(d->j, p->g, m->family->component);
    p->out = q->cut == SM_CUT_MODULATED ? m->family->modulated(&s, &m->denoiser, x, p->in[TIME], &c)
                                        : m->family->record(&s, &m->denoiser, x, p->in[TIME], &c);
    p->pooled = paired ? tweaks.seen : q->cut == SM_CUT_WHOLE ? tweaks.deep : tweaks.received;
    if (q->cut == SM_CUT_WHOLE && !sm_poisoned(p->out))
        sm_step_cache_shape(&d->cache, p->pooled);
    if (tweaks.identity && !layers.found && q->cut != SM_CUT_SHALLOW && !sm_poisoned(p->out))
        return sm_fail(e, SUMI_E_ARG,
                       "--pag-layers: no self-attention of this model is called '%.80s'; try mid, or down_blocks.2", layers.list);
    if (tweaks.map && !p->pooled && !sm_poisoned(p->out))
        return sm_fail(e, SUMI_E_ARG, "--sag: this model has no attention in its middle, which self-attention guidance looks at");
    sm_plan_opts opts = sm_job_plan_opts(d->j);
    p->p = sm_plan_new_with(p->g, p->pooled ? 2 : 1, (sm_node *[]){p->out, p->pooled}, d->j->compute, &opts, e);
    return e->code;
}

/* A free place: with all of them taken, that of the plan which was not used for longest. */
static sm_denoise_part *place(sm_denoise *d)
{
    int limit = d->j->m->low_memory ? 1 : d->cache.way.kind ? SM_DENOISE_PARTS : SM_DENOISE_PARTS / 2, oldest = 0;
    if (d->nparts < limit)
        return &d->parts[d->nparts++];
    for (int i = 1; i < d->nparts; i++)
        if (d->parts[i].used < d->parts[oldest].used)
            oldest = i;
    sm_part_close(&d->parts[oldest].part);
    return &d->parts[oldest];
}

sm_denoise_part *sm_denoise_part_for(sm_denoise *d, int tokens, sm_how how, sm_cut cut_at, int batch, sm_err *e)
{
    sm_denoise_part *p = NULL;
    for (int i = 0; i < d->nparts && !p; i++)
        if (d->parts[i].part.p && d->parts[i].tokens == tokens && d->parts[i].how == how && d->parts[i].cut == cut_at &&
            d->parts[i].batch == batch)
            p = &d->parts[i];
    if (!p) {
        if (d->j->m->low_memory)
            sm_part_close(&d->classifier);
        p = place(d);
        *p = (sm_denoise_part){.tokens = tokens, .how = how, .cut = cut_at, .batch = batch};
        record(d, p, e);
    }
    p->used = ++d->clock;
    return e->code ? NULL : p;
}

/* XL's sizes: original height and width, top and left of the crop, then the target's height and width, or for the refiner
 * the aesthetic score. */
static void place_ids(const sm_denoise *d, bool negative, float *ids)
{
    const sumi_request *r = &d->j->r;
    float head[4] = {(float)(r->original_height ? r->original_height : r->height),
                     (float)(r->original_width ? r->original_width : r->width), (float)r->crop_top, (float)r->crop_left};
    memcpy(ids, head, sizeof head);
    if (d->j->m->traits.time_ids == 5) {
        ids[4] = negative ? r->negative_aesthetic_score : r->aesthetic_score;
    } else {
        ids[4] = (float)(r->target_height ? r->target_height : r->height);
        ids[5] = (float)(r->target_width ? r->target_width : r->width);
    }
}

static float *slot(const sm_part *p, int input, int at, int64_t floats)
{
    float *data = sm_plan_data(p->p, p->in[input]);
    return data ? data + at * floats : NULL;
}

/* Where the plan looks at that input: one that is cut short need not see the text. */
static void put(const sm_part *p, int input, int at, const float *x, int64_t floats)
{
    sm_plan_put(p->p, p->in[input], sizeof *x * (size_t)(at * floats), x, sizeof *x * (size_t)floats);
}

/* An edited row has the pair's control. */
static void place_pair(const sm_denoise *d, const sm_denoise_part *q, bool edited, int picture, int at)
{
    const sm_part *p = &q->part;
    int64_t t = q->tokens;
    if (p->in[MAP] && edited)
        sm_p2p_control(d->p2p, picture, d->step, slot(p, MAP, at, t * t), slot(p, OWN, at, t));
    if (p->in[WORDS])
        memcpy(slot(p, WORDS, at, t * SM_P2P_WORDS), d->p2p->pair[picture].words[!edited],
               sizeof(float) * (size_t)(t * SM_P2P_WORDS));
}

void sm_denoise_place(const sm_denoise *d, const sm_denoise_part *q, const sm_precond *pc, const sm_prediction *row, int at)
{
    const sm_part *p = &q->part;
    const sm_text_cond *t = d->text;
    int picture = d->p2p ? row->picture % d->p2p->pairs : row->picture;
    int64_t each = (int64_t)d->h * d->w * d->c, beside = (int64_t)d->h * d->w * d->extra, words = (int64_t)q->tokens * t->width;
    sm_precond_in(pc, row->x, slot(p, SAMPLE, at, each), each);
    *slot(p, TIME, at, 1) = (float)pc->t;
    put(p, CONTEXT, at, sm_text_context(t, row->text), words);
    if (p->in[POOLED])
        put(p, POOLED, at, sm_text_pooled(t, row->text), t->pool);
    if (p->in[IDS]) {
        float ids[6];
        place_ids(d, row->negative, ids);
        put(p, IDS, at, ids, d->j->m->traits.time_ids);
    }
    if (p->in[BESIDE] && d->beside && !row->blank)
        memcpy(slot(p, BESIDE, at, beside), d->beside + picture * d->beside_step, sizeof(float) * (size_t)beside);
    else if (p->in[BESIDE])
        memset(slot(p, BESIDE, at, beside), 0, sizeof(float) * (size_t)beside);
    if (q->cut == SM_CUT_SHALLOW)
        sm_step_cache_place(d, row, slot(p, DEEP, at, d->cache.n));
    if (q->how & SM_P2P_ANY)
        place_pair(d, q, row->with != 0, picture, at);
}
