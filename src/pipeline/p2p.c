/* Prompt-to-Prompt (see p2p.h): what it goes with, aligning a round's prompts, what is taken over at a step. */
#include "pipeline/p2p.h"

#include <math.h>
#include <string.h>

#include "pipeline/hires.h"
#include "pipeline/text_table.h"

bool sm_p2p_wanted(const sumi_request *r) { return r->edit_from_prompt[0] || r->p2p_reweight[0]; }

const char *sm_p2p_source(const sm_job *j, int k)
{
    if (!j->r.edit_from_prompt[0]) /* re-weighting needs no other prompt */
        return j->prompts ? j->prompts[k] : j->r.prompt;
    return j->sources ? j->sources[k] : j->r.edit_from_prompt;
}

/* ---- what it goes with --------------------------------------------------------------------------------------------- */

static const char *flag_of(const sumi_request *r) { return r->edit_from_prompt[0] ? "edit-from-prompt" : "p2p-reweight"; }

sumi_status sm_p2p_check(const sm_job *j, sm_err *e)
{
    const sumi_request *r = &j->r;
    const char *flag = flag_of(r), *inside = r->pag_scale != 0 ? "pag" : "sag";
    if (!sm_p2p_wanted(r))
        return SUMI_OK;
    if (j->m->family->kind != SM_MODEL_UNET)
        return sm_fail(e, SUMI_E_SUPPORT, "--%s: works on the cross-attention of UNets; %s is a transformer without", flag,
                       j->m->name);
    if (j->m->traits.extra == SM_EXTRA_EDIT)
        return sm_fail(e, SUMI_E_ARG, "--%s: %s is an edit model, whose prompt itself says what to change", flag, j->m->name);
    if (sm_sampler_find(r->sampler)->alone)
        return sm_fail(e, SUMI_E_ARG, "--%s: needs steps that do not depend on the picture; %s chooses its own", flag,
                       r->sampler);
    if (r->pag_scale != 0 || r->sag_scale != 0)
        return sm_fail(e, SUMI_E_ARG, "--%s: does not go with --%s, which changes the same attention", flag, inside);
    if (sm_hires_wanted(r))
        return sm_fail(e, SUMI_E_ARG, "--%s: does not go with hires fix; draw at the larger --size", flag);
    if (j->refiner)
        return sm_fail(e, SUMI_E_ARG, "--%s: does not go with --refiner, whose attention is another", flag);
    sm_p2p_span span; /* words are looked for in each picture's text */
    return sm_p2p_read_span("p2p-self-steps", r->p2p_self_steps, false, r->steps, &span, e);
}

/* ---- texts --------------------------------------------------------------------------------------------------------- */

/* The one text of lane k of the table as an alignment takes it. */
static sumi_status text_of(sm_p2p *p, const sm_text_table *t, int k, const char *which, sm_align_text *out, sm_err *e)
{
    const sm_text_side *s = &t->side[t->side_of[k]];
    const char *flag = flag_of(&p->j->r);
    if (s->picks > 1)
        return sm_fail(e, SUMI_E_ARG, "--%s: the %s has parts (AND); Prompt-to-Prompt needs one text", flag, which);
    if (s->spans > 1)
        return sm_fail(e, SUMI_E_ARG, "--%s: the %s changes between steps ([a:b:0.5], [a|b]); Prompt-to-Prompt needs one text",
                       flag, which);
    if (s->read.join)
        return sm_fail(e, SUMI_E_ARG, "--%s: the %s is put together of texts (.and, .blend); Prompt-to-Prompt needs one text",
                       flag, which);
    const sm_text_row *row = &t->row[s->span[0].pick[0].row];
    const sm_chunks *c = &t->group[row->group].text[row->text].words;
    if (row->tokens != t->length)
        return sm_fail(e, SUMI_E_ARG, "--%s: the %s has %d tokens; both prompts must fit one chunk of %d", flag, which, c->tokens,
                       t->length - 2);
    bool *begins = sm_arena_get(&p->mem, sizeof *begins * (size_t)t->length);
    if (!begins)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for the words of a prompt");
    *out = sm_p2p_text(p->j->m->bpe, c, begins);
    return SUMI_OK;
}

sm_align_text sm_p2p_text(const sm_bpe *bpe, const sm_chunks *c, bool *begins)
{
    sm_align_text t = {.id = c->id, .begins = begins, .n = 2, .length = c->length};
    for (int i = 1; i < c->length; i++)
        t.n += c->piece[i] >= 0;
    sm_align_words(bpe, t.id, t.n, t.length, begins);
    return t;
}

bool sm_p2p_replaces(const sumi_request *r, const sm_align_text *text)
{
    bool alike = text[0].n == text[1].n && sm_align_count(&text[0]) == sm_align_count(&text[1]);
    return r->p2p_mode[0] ? !strcmp(r->p2p_mode, "replace") : alike;
}

static sumi_status align(const sm_p2p *p, sm_p2p_pair *q, const sm_align_text *text, sm_err *e)
{
    if (sm_p2p_replaces(&p->j->r, text))
        return sm_align_replace(&text[1], &text[0], q->map, q->own, e);
    return sm_align_refine(&text[1], &text[0], q->map, q->own, p->j->mem, e);
}

static sumi_status open_pair(sm_p2p *p, const sm_text_table *t, int k, sm_err *e)
{
    sm_p2p_pair *q = &p->pair[k];
    sm_align_text text[2];
    size_t n = (size_t)p->tokens;
    q->map = sm_arena_get(&p->mem, sizeof *q->map * n * n);
    q->own = sm_arena_get(&p->mem, sizeof *q->own * n);
    q->factor = sm_arena_get(&p->mem, sizeof *q->factor * n);
    q->cross = sm_arena_get(&p->mem, sizeof *q->cross * n);
    for (int side = 0; side < 2; side++)
        q->words[side] = sm_arena_get(&p->mem, sizeof **q->words * n * SM_P2P_WORDS);
    if (!q->map || !q->own || !q->factor || !q->cross || !q->words[0] || !q->words[1])
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for aligning two prompts");
    if (text_of(p, t, k, "prompt", &text[0], e) || text_of(p, t, p->pairs + k, "source prompt", &text[1], e) ||
        sm_p2p_read(p, q, text, e) || align(p, q, text, e))
        return e->code;
    for (size_t i = 0; i < n * n; i++)
        q->map[i] *= q->factor[i % n];
    for (size_t i = 0; i < n; i++)
        q->own[i] *= q->factor[i];
    return SUMI_OK;
}

/* ---- opening ------------------------------------------------------------------------------------------------------- */

/* The level whose side is nearest to 16 places, by ratio: that of the reference at 512 pixels, the one below the first at
 * XL's 1024. -1: no level has attention. */
static int seen_level(const sm_unet_config *c, int h, int w, int *mh, int *mw)
{
    int best = -1;
    double least = INFINITY;
    for (int level = 0; level < c->blocks; level++, h = (h + 1) / 2, w = (w + 1) / 2) {
        double far = fabs(log((double)h * w / 256));
        if ((!c->down_attention[level] && !c->up_attention[c->blocks - 1 - level]) || far >= least)
            continue;
        best = level;
        least = far;
        *mh = h;
        *mw = w;
    }
    return best;
}

static sumi_status open_blend(sm_p2p *p, sm_err *e)
{
    const sumi_request *r = &p->j->r;
    p->blends = r->p2p_blend[0];
    p->subtracts = p->blends && r->p2p_blend_subtract[0];
    double start = round(r->p2p_blend_start * 1e6) / 1e6; /* the number as it was written, which a float is not */
    p->blend_from = (int)(start * p->steps);
    if (!p->blends)
        return SUMI_OK;
    p->level = seen_level(&p->j->m->denoiser.unet, p->h, p->w, &p->mh, &p->mw);
    if (p->level < 0)
        return sm_fail(e, SUMI_E_ARG, "--p2p-blend: this model has no cross-attention on its way down or up to look at");
    size_t places = (size_t)p->mh * (size_t)p->mw;
    p->seen = sm_arena_get(&p->mem, sizeof *p->seen * 2 * (size_t)p->pairs * places * SM_P2P_WORDS);
    p->room = sm_arena_get(&p->mem, sizeof *p->room * 2 * places);
    p->mask = sm_arena_get(&p->mem, (size_t)p->h * (size_t)p->w);
    return p->seen && p->room && p->mask
               ? SUMI_OK
               : sm_fail(e, SUMI_E_MEMORY, "out of memory for the attention of %d pictures", 2 * p->pairs);
}

static sumi_status open_all(sm_p2p *p, const sm_text_table *t, sm_err *e)
{
    p->pair = sm_arena_get(&p->mem, sizeof *p->pair * (size_t)p->pairs);
    if (!p->pair)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for %d pairs of pictures", p->pairs);
    if (sm_p2p_read_span("p2p-self-steps", p->j->r.p2p_self_steps, false, p->steps, &p->self, e) || open_blend(p, e))
        return e->code;
    for (int k = 0; k < p->pairs && !e->code; k++)
        open_pair(p, t, k, e);
    return e->code;
}

sumi_status sm_p2p_open(sm_p2p **out, const sm_job *j, const sm_text_cond *text, int n, int h, int w, int steps, sm_err *e)
{
    *out = NULL;
    if (!sm_p2p_wanted(&j->r))
        return SUMI_OK;
    sm_p2p *p = sm_alloc0(j->mem, SM_MEM_MISC, sizeof *p);
    if (!p)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for %d pairs of pictures", n);
    *p = (sm_p2p){.j = j, .pairs = n, .tokens = text->t->length, .steps = steps, .h = h, .w = w};
    p->self_tokens = j->r.p2p_self_size * j->r.p2p_self_size;
    sm_arena_init(&p->mem, j->mem, SM_MEM_MISC);
    if (open_all(p, text->t, e)) {
        sm_p2p_free(p);
        return e->code;
    }
    *out = p;
    return SUMI_OK;
}

void sm_p2p_free(sm_p2p *p)
{
    if (p)
        sm_arena_free(&p->mem);
    sm_free(p);
}

/* ---- a step -------------------------------------------------------------------------------------------------------- */

static bool within(sm_p2p_span s, int step) { return step >= s.from && step < s.to; }

int sm_p2p_how(const sm_p2p *p, int step)
{
    bool cross = false, self = within(p->self, step) && p->self_tokens > 0;
    for (int k = 0; k < p->pairs; k++)
        for (int i = 0; i < p->tokens && !cross; i++)
            cross = within(p->pair[k].cross[i], step);
    return (cross ? SM_P2P_CROSS : 0) | (self ? SM_P2P_SELF : 0) | (p->blends ? SM_P2P_SEEN : 0);
}

void sm_p2p_control(const sm_p2p *p, int pair, int step, float *map, float *own)
{
    const sm_p2p_pair *q = &p->pair[pair];
    int n = p->tokens;
    for (int j = 0; j < n; j++)
        own[j] = within(q->cross[j], step) ? q->own[j] : 1;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            map[i * n + j] = within(q->cross[j], step) ? q->map[i * n + j] : 0;
}
