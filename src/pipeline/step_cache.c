/* Step caching in a request (see step_cache.h). */
#include "pipeline/step_cache.h"

#include <stdio.h>
#include <string.h>

#include "pipeline/denoise.h"
#include "pipeline/p2p.h"
#include "sample/sampler.h"

/* ---- from a request --------------------------------------------------------------------------------------------------- */

/* What each is called and does where the request does not say. Published: deepcache's interval and branch (its README's),
 * taylorseer's order (diffusers'), start and end (ComfyUI's EasyCache; taylorseer's authors begin after 3 steps, 0.15 of 20). */
static const struct technique {
    const char *name;
    sm_caching kind;
    int interval, order;
    float threshold, start, end;
} techniques[] = {
    {"deepcache", SM_CACHE_DEEP, 3, 0, 0, 0, 1},
    {"taylorseer", SM_CACHE_TAYLOR, 3, 1, 0, 0.15f, 0.95f},
    {"easycache", SM_CACHE_EASY, 0, 0, 0.1f, 0.15f, 0.95f},
    {"teacache", SM_CACHE_TEA, 0, 0, 0.2f, 0.15f, 0.95f},
};

static const struct technique *technique_of(const sumi_request *r)
{
    for (size_t i = 0; i < SM_COUNT(techniques); i++)
        if (!strcmp(techniques[i].name, r->step_cache))
            return &techniques[i];
    return NULL;
}

void sm_step_cache_fill(sumi_request *r)
{
    const struct technique *t = technique_of(r);
    if (!t)
        return;
    if (t->interval) {
        r->cache_interval = r->cache_interval ? r->cache_interval : t->interval;
        r->cache_order = r->cache_order >= 0 ? r->cache_order : t->order;
    } else
        r->cache_threshold = r->cache_threshold > 0 ? r->cache_threshold : t->threshold;
    r->cache_start = r->cache_start >= 0 ? r->cache_start : t->start;
    r->cache_end = r->cache_end >= 0 ? r->cache_end : t->end;
}

static sumi_status check(const sm_denoise *d, const sumi_request *r, sm_caching kind, sm_err *e)
{
    const sumi_model *m = d->j->m;
    if (sm_p2p_wanted(r))
        return sm_fail(e, SUMI_E_ARG,
                       "--step-cache: Prompt-to-Prompt hands attention over inside the model in every step; leave one of them out");
    if (r->sag_scale != 0)
        return sm_fail(e, SUMI_E_ARG, "--step-cache: --sag looks at the model's attention in every step; leave one of them out");
    if (!strcmp(sm_sampler_find(r->sampler)->name, "dpm_adaptive"))
        return sm_fail(e, SUMI_E_ARG,
                       "--step-cache: dpm_adaptive chooses its steps by the difference of two calls; choose another --sampler");
    if (kind == SM_CACHE_DEEP && m->family->kind != SM_MODEL_UNET)
        return sm_fail(e, SUMI_E_ARG,
                       "--step-cache: deepcache cuts UNets; %s is a transformer: taylorseer, easycache or teacache", m->name);
    if (kind == SM_CACHE_DEEP && r->cache_branch >= sm_unet_skips(&m->denoiser.unet))
        return sm_fail(e, SUMI_E_ARG, "--cache-branch: %d; %s has skip connections 0 to %d", r->cache_branch, m->name,
                       sm_unet_skips(&m->denoiser.unet) - 1);
    if (r->cache_start >= r->cache_end)
        return sm_fail(e, SUMI_E_ARG, "--cache-start: %g is not before --cache-end %g", (double)r->cache_start,
                       (double)r->cache_end);
    return SUMI_OK;
}

sumi_status sm_step_cache_init(sm_denoise *d, sm_err *e)
{
    const sumi_request *r = &d->j->r;
    const struct technique *t = technique_of(r);
    sm_step_cache *c = &d->cache;
    *c = (sm_step_cache){0};
    if (!t)
        return SUMI_OK;
    if (check(d, r, t->kind, e))
        return e->code;
    c->way = (sm_cache_way){.kind = t->kind, .interval = r->cache_interval, .order = SM_MAX(r->cache_order, 0),
                            .threshold = r->cache_threshold, .start = r->cache_start, .end = r->cache_end};
    c->branch = r->cache_branch;
    if (!sm_cache_polynomial(r->cache_coefficients, &c->way))
        return sm_fail(e, SUMI_E_ARG, "--cache-coefficients: '%.60s' is no list of up to %d numbers, as 4.5,-1.2,0.3",
                       r->cache_coefficients, (int)SM_CACHE_POLYNOMIAL);
    const sm_sampler *s = sm_sampler_find(r->sampler);
    c->places = s->count ? 4 : s->evals; /* PNDM's Runge-Kutta steps have the most */
    c->n = t->kind == SM_CACHE_DEEP ? 0 : (int64_t)d->h * d->w * d->c;
    return SUMI_OK;
}

void sm_step_cache_tell(const sm_job *j, int64_t asked, int64_t spared)
{
    char line[160];
    if (!j->cb || !j->cb->progress || !asked)
        return;
    snprintf(line, sizeof line, "step cache: %s spared %lld of %lld evaluations of the model%s",
             j->r.step_cache, (long long)spared,
             (long long)asked, !strcmp(j->r.step_cache, "deepcache") ? ", of which it computed the outermost layers" : "");
    j->cb->progress(j->cb->user,
                    &(sumi_progress){.stage = "decode", .seconds = sm_now() - j->started, .eta = -1, .message = line});
}

/* ---- room ------------------------------------------------------------------------------------------------------------- */

void sm_step_cache_done(sm_step_cache *c)
{
    int all = c->at ? c->places * c->pictures : 0;
    for (int i = 0; i < all * c->slots; i++)
        sm_free(c->at[i].room);
    for (int i = 0; i < all; i++)
        sm_free(c->watch[i].before);
    sm_free(c->at);
    sm_free(c->watch);
    sm_free(c->scratch);
    c->at = NULL;
    c->watch = NULL;
    c->scratch = NULL;
}

void sm_step_cache_open(sm_step_cache *c)
{
    sm_step_cache_done(c);
    c->turn = c->place = 0;
}

void sm_step_cache_turn(sm_step_cache *c)
{
    c->turn++;
    c->place = 0;
}

static sumi_status no_memory(const sm_denoise *d, sm_err *e)
{
    return sm_fail(e, SUMI_E_MEMORY, "out of memory for --step-cache %s", d->j->r.step_cache);
}

/* Pasts for all rows of the call; where a picture has more of them than ever before, all begin anew. */
static sumi_status open_pasts(sm_denoise *d, sm_err *e)
{
    sm_step_cache *c = &d->cache;
    int slots = 1;
    for (int i = 0; i < d->nrows; i++)
        slots = SM_MAX(slots, d->rows[i].slot + 1);
    if (c->at && slots <= c->slots && d->n == c->pictures)
        return SUMI_OK;
    sm_step_cache_done(c);
    size_t all = (size_t)c->places * (size_t)d->n;
    c->slots = slots;
    c->pictures = d->n;
    c->watch = sm_alloc0(d->j->mem, SM_MEM_MISC, sizeof *c->watch * all);
    c->scratch = sm_alloc(d->j->mem, SM_MEM_MISC, sizeof(float) * 2 * (size_t)d->h * (size_t)d->w * (size_t)d->c);
    c->at = c->watch && c->scratch ? sm_alloc0(d->j->mem, SM_MEM_MISC, sizeof *c->at * all * (size_t)slots) : NULL;
    if (!c->at) { /* without it the others are no pasts' */
        sm_free(c->watch);
        sm_free(c->scratch);
        c->watch = NULL;
        c->scratch = NULL;
        return no_memory(d, e);
    }
    return SUMI_OK;
}

static sm_cached *past_of(const sm_denoise *d, const sm_prediction *row)
{
    const sm_step_cache *c = &d->cache;
    return &c->at[(c->place * c->pictures + row->picture) * c->slots + row->slot];
}

static sumi_status open_room(sm_denoise *d, sm_cached *p, sm_err *e)
{
    sm_step_cache *c = &d->cache;
    size_t terms = (size_t)c->way.order + 1;
    if (p->room || !c->n)
        return SUMI_OK;
    p->room = sm_alloc(d->j->mem, SM_MEM_MISC, sizeof(float) * terms * (size_t)c->n);
    for (size_t k = 0; k < terms && p->room; k++)
        p->past.term[k] = p->room + k * (size_t)c->n;
    return p->room ? SUMI_OK : no_memory(d, e);
}

/* easycache: inputs of this step and the last full one, and that one's answer; teacache: n numbers that are looked at. */
static sumi_status open_watch(sm_denoise *d, sm_cache_watch *w, int64_t n, sm_err *e)
{
    int many = d->cache.way.kind == SM_CACHE_EASY ? 3 : 1;
    if (w->before)
        return SUMI_OK;
    w->before = sm_alloc(d->j->mem, SM_MEM_MISC, sizeof(float) * (size_t)many * (size_t)n);
    if (!w->before)
        return no_memory(d, e);
    w->in = many > 1 ? w->before + n : NULL;
    w->out = many > 1 ? w->before + 2 * n : NULL;
    return SUMI_OK;
}

/* ---- before the model runs -------------------------------------------------------------------------------------------- */

/* The row by which a picture's change is judged: its first text's, which every list has. */
static int lead_of(const sm_denoise *d, int k) { return d->first[k]; }

/* teacache: the timestep-modulated inputs of all pictures, good until the plan's next run. */
static sumi_status modulated(sm_denoise *d, const sm_precond *pc, double *flops, const float **at, int64_t *n, sm_err *e)
{
    const sm_prediction *lead = &d->rows[lead_of(d, 0)];
    sm_denoise_part *p = sm_denoise_part_for(d, sm_text_tokens(d->text, lead->text), SM_HOW_PLAIN, SM_CUT_MODULATED, d->n, e);
    if (!p)
        return e->code;
    *n = sm_numel(p->part.out) / d->n;
    *at = sm_plan_data(p->part.p, p->part.out);
    if (flops) {
        *flops += sm_plan_cost(p->part.p).flops;
        return SUMI_OK;
    }
    for (int k = 0; k < d->n; k++)
        sm_denoise_place(d, p, pc, &d->rows[lead_of(d, k)], k);
    return sm_plan_run(p->part.p, d->j->pool, sm_job_cancel(d->j), e);
}

static bool holds(const sm_cached *p, const sm_prediction *row, double sigma)
{
    return p->past.have && p->text == row->text && p->blank == row->blank && sigma < p->sigma;
}

/* Whether picture k is to be computed in full, by what changed. */
static sumi_status changed(sm_denoise *d, int k, const sm_precond *pc, double sigma, bool acts, const float *seen,
                           int64_t n, bool *due, sm_err *e)
{
    sm_step_cache *c = &d->cache;
    const sm_prediction *lead = &d->rows[lead_of(d, k)];
    sm_cache_watch *w = &c->watch[c->place * c->pictures + k];
    int64_t latent = (int64_t)d->h * d->w * d->c;
    if (open_watch(d, w, seen ? n : latent, e) || !pc) /* planned */
        return e->code;
    if (!holds(past_of(d, lead), lead, sigma))
        sm_cache_forget(w);
    if (!seen) {
        sm_precond_in(pc, lead->x, c->scratch, latent);
        seen = c->scratch;
        n = latent;
    }
    *due = sm_cache_due(&c->way, w, acts, seen, n);
    return SUMI_OK;
}

/* A row that is not computed in full: the output that stands for it. deepcache computes it in part. */
static void stand_in(sm_denoise *d, sm_prediction *row, const sm_cached *p, const sm_precond *pc, bool planned)
{
    sm_step_cache *c = &d->cache;
    float *out = d->out + (row - d->rows) * c->n;
    c->spared += !planned;
    row->shallow = c->way.kind == SM_CACHE_DEEP;
    row->done = !row->shallow;
    c->partial = row->done && sm_cache_adapts(&c->way);
    if (planned || row->shallow)
        return;
    sm_cache_forecast(&p->past, c->turn, out, c->n);
    if (!sm_cache_adapts(&c->way))
        return;
    sm_precond_in(pc, row->x, c->scratch, c->n);
    for (int64_t i = 0; i < c->n; i++)
        out[i] += c->scratch[i];
}

sumi_status sm_step_cache_before(sm_denoise *d, const sm_precond *pc, double sigma, double *flops, sm_err *e)
{
    sm_step_cache *c = &d->cache;
    bool acts = sm_cache_acts(&c->way, d->step, d->steps), planned = flops != NULL, adapts = sm_cache_adapts(&c->way);
    const float *seen = NULL;
    int64_t n = 0;
    c->partial = false;
    if (!c->way.kind || c->place >= c->places || open_pasts(d, e))
        return e->code;
    if (c->way.kind == SM_CACHE_TEA && modulated(d, pc, flops, &seen, &n, e))
        return e->code;
    for (int k = 0; k < d->n && !e->code; k++) {
        bool due = true;
        if (adapts && changed(d, k, pc, sigma, acts, seen ? seen + k * n : NULL, n, &due, e))
            break;
        for (int i = d->first[k]; i < d->first[k + 1] && !open_room(d, past_of(d, &d->rows[i]), e); i++) {
            sm_prediction *row = &d->rows[i];
            sm_cached *p = past_of(d, row);
            bool held = holds(p, row, sigma);
            p->past.have = held ? p->past.have : 0;
            row->keep = !held || !acts || (adapts ? due || planned : c->turn - p->past.last >= c->way.interval);
            *p = (sm_cached){.past = p->past, .room = p->room, .text = row->text, .blank = row->blank, .sigma = sigma};
            c->asked += !planned;
            if (!row->keep)
                stand_in(d, row, p, pc, planned);
        }
    }
    return e->code;
}

/* ---- after it ran ----------------------------------------------------------------------------------------------------- */

sumi_status sm_step_cache_keep(sm_denoise *d, const sm_prediction *row, const float *features, sm_err *e)
{
    sm_step_cache *c = &d->cache;
    sm_cached *p = past_of(d, row);
    if (open_room(d, p, e))
        return e->code;
    if (features)
        sm_cache_keep(&p->past, c->way.order, c->turn, features, c->n);
    else { /* planned */
        p->past.have = 1;
        p->past.last = c->turn;
    }
    return SUMI_OK;
}

void sm_step_cache_place(const sm_denoise *d, const sm_prediction *row, float *features)
{
    sm_cache_forecast(&past_of(d, row)->past, d->cache.turn, features, d->cache.n);
}

void sm_step_cache_shape(sm_step_cache *c, const sm_node *features)
{
    c->n = 1;
    for (int i = 0; i < 3; i++)
        c->n *= c->feature[i] = features->dims[1 + i];
}

sumi_status sm_step_cache_after(sm_denoise *d, const sm_precond *pc, bool planned, sm_err *e)
{
    sm_step_cache *c = &d->cache;
    bool adapts = sm_cache_adapts(&c->way), deep = c->way.kind == SM_CACHE_DEEP;
    for (int i = 0; c->way.kind && c->place < c->places && i < d->nrows && !e->code; i++) {
        const sm_prediction *row = &d->rows[i];
        const float *kept = planned || !row->keep ? NULL : d->out + i * c->n;
        if (!row->keep || (deep && !planned)) /* those were kept batch by batch */
            continue;
        if (adapts && kept) {
            float *in = c->scratch, *change = c->scratch + c->n;
            sm_precond_in(pc, row->x, in, c->n);
            if (c->way.kind == SM_CACHE_EASY && i == lead_of(d, row->picture))
                sm_cache_learn(&c->watch[c->place * c->pictures + row->picture], in, kept, c->n);
            for (int64_t k = 0; k < c->n; k++)
                change[k] = kept[k] - in[k];
            kept = change;
        }
        sm_step_cache_keep(d, row, kept, e);
    }
    c->place++;
    return e->code;
}
