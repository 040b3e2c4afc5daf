/* The predictions of one call of the denoiser (see denoise.h): which they are, and running them. Rows with the same number of
 * tokens and the same treatment run together; which rows share a run changes no bit. */
#include "pipeline/denoise.h"
#include "pipeline/merging.h"

#include <string.h>

static int64_t latent(const sm_denoise *d) { return (int64_t)d->h * d->w * d->c; }

/* At least `floats` in *p, with what is there. */
static bool grow(const sm_denoise *d, float **p, size_t floats)
{
    float *q = sm_realloc(d->j->mem, SM_MEM_MISC, *p, sizeof *q * floats);
    *p = q ? q : *p;
    return q != NULL;
}

/* Room for so many rows; keeps what is there. */
static sumi_status reserve(sm_denoise *d, int rows, sm_err *e)
{
    size_t n = (size_t)rows;
    if (rows <= d->most)
        return SUMI_OK;
    sm_prediction *list = sm_realloc(d->j->mem, SM_MEM_MISC, d->rows, sizeof *list * n);
    d->rows = list ? list : d->rows;
    const float **ptr = sm_realloc(d->j->mem, SM_MEM_MISC, d->ptr, sizeof *ptr * 2 * n);
    d->ptr = ptr ? ptr : d->ptr;
    double *weight = sm_realloc(d->j->mem, SM_MEM_MISC, d->weight, sizeof *weight * n);
    d->weight = weight ? weight : d->weight;
    if (!list || !ptr || !weight || !grow(d, &d->out, n * (size_t)latent(d)) ||
        (d->guide.sag != 0 && !grow(d, &d->map, n * (size_t)d->h * (size_t)d->w)))
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for %d predictions of %dx%d latents", rows, d->w, d->h);
    d->most = rows;
    return SUMI_OK;
}

static void add(sm_denoise *d, sm_prediction row)
{
    d->rows[d->nrows++] = row;
}

/* A picture's rows: its texts, the negative prompt, InstructPix2Pix's picture without text, the texts again for PAG. SAG looks at
 * the negative prompt's attention, without it at the first text's. */
static void list_picture(sm_denoise *d, int k, const float *x, const sm_guidance_step *s, bool uncond, bool image)
{
    const sm_text_pick *pick, *minus;
    int parts = sm_text_at(d->text, k, (int)d->evals, false, &pick);
    sm_how how = s->sag != 0 ? SM_HOW_MAP : SM_HOW_PLAIN;
    for (int i = 0; i < parts; i++)
        add(d, (sm_prediction){.picture = k, .text = pick[i].row, .x = x, .how = how, .slot = 2 + 2 * i});
    sm_text_at(d->text, k, (int)d->evals, true, &minus);
    if (uncond)
        add(d, (sm_prediction){.picture = k, .text = minus->row, .negative = true, .blank = image, .x = x, .how = how});
    if (image)
        add(d, (sm_prediction){.picture = k, .text = minus->row, .negative = true, .x = x, .how = how, .slot = 1});
    for (int i = 0; i < parts && s->pag != 0; i++)
        add(d, (sm_prediction){.picture = k, .text = pick[i].row, .x = x, .how = SM_HOW_IDENTITY, .slot = 3 + 2 * i});
}

/* The first rows of edited pictures and of their sources become pairs where the step takes something over. */
static void pair(sm_denoise *d)
{
    int how = d->p2p ? sm_p2p_how(d->p2p, d->step) : 0;
    for (int k = 0; how && k < d->p2p->pairs; k++) {
        sm_prediction *edited = &d->rows[d->first[k]];
        edited->how = (sm_how)how;
        edited->with = d->first[d->p2p->pairs + k];
        d->rows[edited->with].done = true;
    }
}

/* Parts of a prompt are weighed against the negative prompt's prediction, so they ask for it at scale 1 too. */
static bool in_parts(const sm_denoise *d, int k)
{
    const sm_text_pick *pick;
    return sm_text_at(d->text, k, (int)d->evals, false, &pick) > 1 || pick->weight != 1;
}

sumi_status sm_denoise_list(sm_denoise *d, const float *x, const sm_guidance_step *s, bool both, sm_err *e)
{
    const sm_text_pick *pick;
    int rows = 0;
    for (int k = 0; k < d->n; k++)
        rows += 2 * sm_text_at(d->text, k, (int)d->evals, false, &pick) + 3;
    if (reserve(d, rows, e))
        return e->code;
    d->nrows = 0;
    for (int k = 0; k < d->n; k++) {
        bool uncond = !d->embedded && (s->active || both || (in_parts(d, k) && d->guide.scale == 1));
        d->first[k] = d->nrows;
        list_picture(d, k, x ? x + k * latent(d) : NULL, s, uncond,
                     uncond && s->active && d->beside && d->guide.image_scale != 1);
    }
    d->first[d->n] = d->nrows;
    pair(d);
    return SUMI_OK;
}

static bool alike(const sm_denoise *d, const sm_prediction *a, const sm_prediction *b)
{
    return a->how == b->how && a->shallow == b->shallow && sm_text_tokens(d->text, a->text) == sm_text_tokens(d->text, b->text);
}

/* What a run told of attention: for SAG of every row, for Prompt-to-Prompt of both of a pair. */
static void keep_attention(sm_denoise *d, const sm_denoise_part *p, const int *row, int count)
{
    const sm_node *told = p->part.pooled;
    const float *map = told ? sm_plan_data(p->part.p, told) : NULL;
    int64_t each = map ? sm_numel(told) / told->dims[0] : 0;
    if (map && p->how == SM_HOW_MAP) {
        d->mh = (int)told->dims[1];
        d->mw = (int)told->dims[2];
    }
    for (int k = 0; map && p->cut == SM_CUT_NONE && k < count; k++) {
        if (p->how == SM_HOW_MAP) {
            memcpy(d->map + row[k] * (int64_t)d->h * d->w, map + k * each, sizeof *map * (size_t)each);
            continue;
        }
        sm_p2p_see(d->p2p, d->rows[row[k]].picture, false, map + k * each);
        sm_p2p_see(d->p2p, d->rows[row[k]].picture, true, map + (p->batch + k) * each);
    }
}

static sm_cut cut_of(const sm_denoise *d, const sm_prediction *row)
{
    return d->cache.way.kind != SM_CACHE_DEEP ? SM_CUT_NONE : row->shallow ? SM_CUT_SHALLOW : SM_CUT_WHOLE;
}

static sumi_status keep_features(sm_denoise *d, const sm_denoise_part *p, const int *row, int count, sm_err *e)
{
    const float *features = sm_plan_data(p->part.p, p->part.pooled);
    for (int k = 0; k < count && !e->code; k++)
        if (d->rows[row[k]].keep)
            sm_step_cache_keep(d, &d->rows[row[k]], features + k * d->cache.n, e);
    return e->code;
}

static sumi_status run_batch(sm_denoise *d, sm_denoise_part *p, const int *row, int count, const sm_precond *pc, sm_err *e)
{
    int64_t each = latent(d);
    for (int k = 0; k < p->batch; k++) { /* what is left of the last batch repeats its last row */
        const sm_prediction *r = &d->rows[row[SM_MIN(k, count - 1)]];
        sm_denoise_place(d, p, pc, r, k);
        if (r->with)
            sm_denoise_place(d, p, pc, &d->rows[r->with], p->batch + k);
    }
    sm_merging_choose(d, p);
    if (sm_plan_run(p->part.p, d->j->pool, sm_job_cancel(d->j), e))
        return e->code;
    const float *out = sm_plan_data(p->part.p, p->part.out);
    for (int k = 0; k < count; k++) {
        int with = d->rows[row[k]].with;
        memcpy(d->out + row[k] * each, out + k * each, sizeof *out * (size_t)each);
        if (with)
            memcpy(d->out + with * each, out + (p->batch + k) * each, sizeof *out * (size_t)each);
    }
    keep_attention(d, p, row, count);
    return p->cut == SM_CUT_WHOLE ? keep_features(d, p, row, count, e) : SUMI_OK;
}

enum { BATCH = 32 }; /* rows of a run at most: eight pictures with all that guidance asks for */

/* All rows like row `from` that are not done, in as few runs as fit twice the pictures, or in low memory one by one. */
static sumi_status run_alike(sm_denoise *d, int from, const sm_precond *pc, double *flops, sm_err *e)
{
    int each = d->rows[from].with ? 2 : 1, count = 0, batch[BATCH];
    int limit = d->j->m->low_memory ? 1 : SM_MIN(BATCH, 2 * d->n) / each;
    if (d->cache.partial) /* of some pictures: one plan for whatever number of them there is */
        limit = SM_MIN(limit, d->first[1]);
    for (int i = from; i < d->nrows; i++)
        count += !d->rows[i].done && alike(d, &d->rows[i], &d->rows[from]);
    int runs = (count + limit - 1) / limit, size = (count + runs - 1) / runs, taken = 0;
    sm_denoise_part *p = sm_denoise_part_for(d, sm_text_tokens(d->text, d->rows[from].text), d->rows[from].how,
                                             cut_of(d, &d->rows[from]), size, e);
    if (p && flops) {
        *flops += sm_plan_cost(p->part.p).flops * runs;
        if (!d->largest.batch || sm_plan_activation_bytes(p->part.p) > d->largest_bytes) {
            d->largest_bytes = sm_plan_activation_bytes(p->part.p);
            d->largest = *p;
        }
    }
    sm_prediction like = d->rows[from];
    for (int i = from; i < d->nrows && p && !e->code; i++) {
        if (d->rows[i].done || !alike(d, &d->rows[i], &like))
            continue;
        d->rows[i].done = true;
        batch[taken++] = i;
        if (--count == 0 || taken == size) {
            if (!flops)
                run_batch(d, p, batch, taken, pc, e);
            taken = 0;
        }
    }
    return e->code;
}

sumi_status sm_denoise_rows(sm_denoise *d, int first, const sm_precond *pc, double *flops, sm_err *e)
{
    for (int i = first; i < d->nrows && !e->code; i++)
        if (!d->rows[i].done)
            run_alike(d, i, pc, flops, e);
    return e->code;
}
