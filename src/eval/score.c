/* sumi_score_concepts: draws every (concept, style) pair once and counts how often the nearest picture shows that concept
 * (concept_score.h). Trained pairs are looked up among the training pictures of their style, held-out ones among all. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "eval/concept_score.h"
#include "io/image.h"
#include "pipeline/generate.h"
#include "pipeline/sheet.h"

enum { ROUND = 8, SHEET = 96, COLUMNS = 12 };

typedef struct scorer {
    sumi_context *ctx;
    sumi_model *m;
    const sumi_score_options *o;
    const sumi_callbacks *cb;
    sm_dataset *train, *all;
    sm_gallery *train_gallery, *all_gallery; /* of the style at hand */
    int style;
    sm_job job;
    const sm_picture *picture[ROUND];
    char prompt[ROUND][320];
    int n;                                   /* pairs waiting to be drawn */
    uint8_t *rgb, *sheet;                    /* ROUND and SHEET pictures; no sheet without a folder for it */
    int in_sheet, sheets;
    int64_t done, total;
    double t0;
    sumi_score *out;
} scorer;

static sumi_score_part *part_of(scorer *s, sm_split split)
{
    return split == SM_SPLIT_TRAIN ? &s->out->trained : split == SM_SPLIT_PAIR ? &s->out->held_pairs : &s->out->held_concepts;
}

static sumi_status write_sheet(scorer *s, sm_err *e)
{
    char path[512];
    int w, h;
    uint8_t *pixels = NULL;
    if (!s->in_sheet)
        return SUMI_OK;
    if (sm_sheet_make(s->sheet, s->in_sheet, s->job.r.width, s->job.r.height, COLUMNS, &s->ctx->mem, &pixels, &w, &h, e))
        return e->code;
    snprintf(path, sizeof path, "%.400s/score-%03d.png", s->o->save_dir, s->sheets++);
    sm_image_save(&(sm_image){.width = w, .height = h, .channels = 3, .pixels = pixels}, path, NULL, &s->ctx->mem, e);
    sm_free(pixels);
    s->in_sheet = 0;
    return e->code;
}

static sumi_status judge(scorer *s, int k, sm_err *e)
{
    size_t bytes = (size_t)s->job.r.width * (size_t)s->job.r.height * 3;
    const sm_picture *p = s->picture[k];
    sm_gallery *g = p->split == SM_SPLIT_TRAIN ? s->train_gallery : s->all_gallery;
    sm_concept_hit hit;
    if (sm_gallery_find(g, s->rgb + (size_t)k * bytes, s->job.r.width, s->job.r.height, p->caption, &hit, e))
        return e->code;
    sumi_score_part *part = part_of(s, p->split);
    part->pairs++;
    part->top1 += hit.rank == 1;
    part->top5 += hit.rank >= 1 && hit.rank <= 5;
    if (!s->sheet)
        return SUMI_OK;
    memcpy(s->sheet + (size_t)s->in_sheet * bytes, s->rgb + (size_t)k * bytes, bytes);
    return ++s->in_sheet == SHEET ? write_sheet(s, e) : SUMI_OK;
}

static sumi_status draw_waiting(scorer *s, sm_err *e)
{
    const char *prompts[ROUND];
    if (!s->n)
        return SUMI_OK;
    for (int k = 0; k < s->n; k++)
        prompts[k] = s->prompt[k];
    s->job.prompts = prompts;
    s->job.r.count = s->n;
    if (sm_job_run(&s->job, s->rgb, e))
        return e->code;
    for (int k = 0; k < s->n; k++)
        if (judge(s, k, e))
            return e->code;
    s->done += s->n;
    s->n = 0;
    if (s->cb && s->cb->progress) {
        double dt = sm_now() - s->t0;
        sumi_progress p = {.stage = "score", .step = s->done, .steps = s->total, .seconds = dt};
        p.eta = dt / (double)s->done * (double)(s->total - s->done);
        s->cb->progress(s->cb->user, &p);
    }
    return SUMI_OK;
}

static sumi_status open_style(scorer *s, int style, sm_err *e)
{
    sm_gallery_free(s->train_gallery);
    sm_gallery_free(s->all_gallery);
    s->all_gallery = NULL;
    s->train_gallery = sm_gallery_new(s->train, style, &s->ctx->mem, e);
    if (s->train_gallery)
        s->all_gallery = sm_gallery_new(s->all, style, &s->ctx->mem, e);
    s->style = style;
    return e->code;
}

static sumi_status add_pair(scorer *s, int64_t i, sm_err *e)
{
    const sm_picture *p = sm_dataset_picture(s->all, i);
    if (p->style_row != s->style && (draw_waiting(s, e) || open_style(s, p->style_row, e)))
        return e->code;
    s->picture[s->n] = p;
    snprintf(s->prompt[s->n], sizeof s->prompt[0], "%.200s, %s style", p->caption, sm_styles[p->style_row].name);
    return ++s->n == ROUND ? draw_waiting(s, e) : SUMI_OK;
}

static sumi_status open_all(scorer *s, sm_err *e)
{
    const sumi_score_options *o = s->o;
    sumi_request r = sumi_request_default();
    r.prompt = "score";
    r.emphasis = "diffusers"; /* captions are no prompts */
    r.steps = o->steps;
    r.cfg_scale = o->cfg_scale < 0 ? SUMI_CFG_DEFAULT : o->cfg_scale;
    r.seed = o->seed;
    r.count = ROUND;
    if (sm_job_init(&s->job, s->m, s->ctx, &r, e))
        return e->code;
    if (o->save_dir && access(o->save_dir, W_OK | X_OK))
        return sm_fail(e, SUMI_E_FILE, "%s: sheets cannot be written to this folder: %s", o->save_dir, strerror(errno));
    size_t bytes = (size_t)s->job.r.width * (size_t)s->job.r.height * 3;
    s->rgb = sm_alloc(&s->ctx->mem, SM_MEM_DATA, bytes * ROUND);
    s->sheet = o->save_dir ? sm_alloc(&s->ctx->mem, SM_MEM_DATA, bytes * SHEET) : NULL;
    if (!s->rgb || (o->save_dir && !s->sheet))
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for scoring");
    sm_data_filter all = {.styles = o->styles, .splits = SM_SPLIT_TRAIN | SM_SPLIT_PAIR | SM_SPLIT_CONCEPT};
    s->all = sm_dataset_open(o->pictures, o->index, &all, &s->ctx->mem, e);
    if (s->all)
        s->train = sm_dataset_open(o->pictures, o->index, &(sm_data_filter){.styles = o->styles}, &s->ctx->mem, e);
    return e->code;
}

static sumi_status score_all(scorer *s, sm_err *e)
{
    int64_t count = sm_dataset_count(s->all);
    s->total = s->o->limit > 0 ? SM_MIN((int64_t)s->o->limit, count) : count;
    s->t0 = sm_now();
    s->style = -1;
    for (int64_t k = 0; k < s->total; k++)
        if (add_pair(s, k * count / s->total, e))
            return e->code;
    if (draw_waiting(s, e))
        return e->code;
    s->out->seconds_per_picture = (sm_now() - s->t0) / (double)s->total;
    return write_sheet(s, e);
}

sumi_status sumi_score_concepts(sumi_context *ctx, sumi_model *m, const sumi_score_options *o, const sumi_callbacks *cb,
                                sumi_score *out)
{
    sm_err *e = sm_begin(ctx);
    scorer s = {.ctx = ctx, .m = m, .o = o, .cb = cb, .out = out};
    sumi_callbacks quiet = {.cancel = cb ? cb->cancel : NULL}; /* a picture's own progress is not the score's */
    *out = (sumi_score){0};
    if (!o->pictures || !o->index)
        return sm_fail(e, SUMI_E_ARG, "score: the data set's pictures and index must be given");
    if (!open_all(&s, e)) {
        s.job.cb = &quiet;
        score_all(&s, e);
    }
    sm_gallery_free(s.train_gallery);
    sm_gallery_free(s.all_gallery);
    sm_dataset_free(s.train);
    sm_dataset_free(s.all);
    sm_free(s.rgb);
    sm_free(s.sheet);
    return e->code;
}
