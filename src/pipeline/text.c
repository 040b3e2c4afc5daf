/* Encoding prompts (see text.h). Which layer a family reads, with or without the final norm, and how rows are filled up are
 * traits (model/detect.h); clip_skip counts as A1111 does. */
#include "pipeline/text.h"

#include <string.h>

sumi_status sm_text_open_part(sm_part *p, const sm_job *j, int encoder, int rows, sm_err *e)
{
    const sumi_model *m = j->m;
    const sm_text_use *u = &m->traits.text[encoder];
    bool last = encoder == m->traits.texts - 1, pooled = last && m->family->pooled_width(&m->denoiser);
    int64_t n = rows;
    int skip = j->r.clip_skip ? j->r.clip_skip - 1 : u->skip;
    p->g = sm_graph_new(j->mem, e);
    if (!p->g)
        return e->code;
    nn_scope root = nn_root(p->g, m->w, NULL), s = nn_sub(&root, "%s", u->component);
    p->in[0] = sm_input(p->g, "input_ids", SM_I32, 2, (int64_t[]){n, u->clip.max_position_embeddings});
    p->in[1] = pooled ? sm_input(p->g, "eos", SM_I32, 1, &n) : NULL;
    sm_clip_out text = sm_clip_text(&s, &u->clip, p->in[0], p->in[1]);
    p->out = text.last;
    if (skip >= text.layers && !sm_poisoned(text.last))
        return sm_fail(e, SUMI_E_ARG, "--clip-skip: %d, but the %s has %d layers", skip + 1, u->component, text.layers);
    if ((skip || !u->final_norm) && !sm_poisoned(text.last))
        p->out = u->final_norm ? sm_clip_final_norm(&s, &u->clip, text.hidden[text.layers - skip]) : text.hidden[text.layers - skip];
    p->pooled = pooled ? sm_denoiser_pooled(m->family, &m->denoiser, &text) : NULL;
    sm_plan_opts opts = sm_job_plan_opts(j);
    p->p = sm_plan_new_with(p->g, p->pooled ? 2 : 1, (sm_node *[]){p->out, p->pooled}, j->be, &opts, e);
    return e->code;
}

/* Row of the text, a new one where it is not there yet. */
static int row_of(sm_text_cond *c, const char *text)
{
    for (int i = 0; i < c->rows; i++)
        if (!strcmp(c->text[i], text))
            return i;
    c->text[c->rows] = text;
    return c->rows++;
}

sumi_status sm_text_open(sm_text_cond *c, const sm_job *j, int first, int n, int earlier, sm_err *e)
{
    const sumi_model *m = j->m;
    *c = (sm_text_cond){.tokens = m->traits.text[0].clip.max_position_embeddings, .pool = m->family->pooled_width(&m->denoiser), .pictures = n};
    for (int i = 0; i < m->traits.texts; i++)
        c->width += m->traits.text[i].clip.hidden_size;
    c->text = sm_alloc(j->mem, SM_MEM_MISC, sizeof *c->text * (size_t)(n + 1));
    c->pick = sm_alloc(j->mem, SM_MEM_MISC, sizeof *c->pick * (size_t)(n + 1));
    for (int k = 0; k < n && c->text && c->pick; k++)
        c->pick[k] = (sm_text_pick){row_of(c, j->prompts ? j->prompts[first + k] : j->r.prompt), 1};
    if (c->text && c->pick) { /* a row of its own: it may become zeros */
        c->text[c->rows] = j->r.negative_prompt;
        c->pick[n] = (sm_text_pick){c->rows++, 1};
    }
    c->context = sm_alloc(j->mem, SM_MEM_MISC, sizeof(float) * (size_t)c->rows * (size_t)c->tokens * (size_t)c->width);
    c->pooled = sm_alloc(j->mem, SM_MEM_MISC, sizeof(float) * (size_t)c->rows * (size_t)c->pool);
    return c->text && c->pick && c->context && c->pooled ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "out of memory for the texts of %d pictures", n);
}

void sm_text_close(sm_text_cond *c)
{
    sm_free(c->text);
    sm_free(c->pick);
    sm_free(c->context);
    sm_free(c->pooled);
    *c = (sm_text_cond){0};
}

int sm_text_at(const sm_text_cond *c, int picture, int call, bool negative, const sm_text_pick **picks)
{
    *picks = c->pick + (negative ? c->pictures : picture);
    return 1;
}

int sm_text_tokens(const sm_text_cond *c, int row) { return c->tokens; }
const float *sm_text_context(const sm_text_cond *c, int row) { return c->context + (size_t)row * (size_t)c->tokens * (size_t)c->width; }
const float *sm_text_pooled(const sm_text_cond *c, int row) { return c->pooled + (size_t)row * (size_t)c->pool; }
int sm_text_sequences(const sm_text_cond *c) { return c->rows; }

/* Puts one encoder's output beside the others': columns at..at+hidden_size of every token. */
static void place(const sm_text_cond *c, const float *out, int rows, int hidden, int at)
{
    for (int64_t t = 0; t < (int64_t)rows * c->tokens; t++)
        memcpy(c->context + t * c->width + at, out + t * hidden, sizeof(float) * (size_t)hidden);
}

static sumi_status encode_one(sm_text_cond *c, const sm_job *j, int encoder, int at, sm_err *e)
{
    const sm_text_use *u = &j->m->traits.text[encoder];
    int rows = c->rows;
    sm_part p = {0};
    if (!sm_text_open_part(&p, j, encoder, rows, e)) {
        int32_t *ids = sm_plan_data(p.p, p.in[0]);
        for (int k = 0; k < rows && !e->code; k++)
            sm_bpe_row(j->m->bpe, c->text[k], strlen(c->text[k]), c->tokens, u->pad, ids + k * c->tokens, NULL, NULL, e);
        if (p.in[1])
            sm_clip_eos_rows(&u->clip, ids, rows, c->tokens, sm_plan_data(p.p, p.in[1]));
        if (!e->code && !sm_plan_run(p.p, j->pool, sm_job_cancel(j), e)) {
            place(c, sm_plan_data(p.p, p.out), rows, u->clip.hidden_size, at);
            if (p.pooled)
                memcpy(c->pooled, sm_plan_data(p.p, p.pooled), sizeof(float) * (size_t)rows * (size_t)c->pool);
        }
    }
    sm_part_close(&p);
    sm_job_release(j, u->component);
    return e->code;
}

sumi_status sm_text_encode(sm_text_cond *c, const sm_job *j, sm_err *e)
{
    for (int i = 0, at = 0; i < j->m->traits.texts && !e->code; at += j->m->traits.text[i++].clip.hidden_size) {
        sm_job_tell(j, "encode", i, j->m->traits.texts, -1);
        encode_one(c, j, i, at, e);
    }
    if (!e->code && j->m->traits.zero_empty && !j->r.negative_prompt[0]) {
        int row = c->pick[c->pictures].row;
        memset((float *)sm_text_context(c, row), 0, sizeof(float) * (size_t)c->tokens * (size_t)c->width);
        memset((float *)sm_text_pooled(c, row), 0, sizeof(float) * (size_t)c->pool);
    }
    return e->code;
}
