/* Encoding a round's texts (see text.h). Which layer a family reads, with or without the final norm, and how rows are filled up
 * are traits (model/detect.h); clip_skip counts as A1111 does. Emphasis acts on what the encoders give, chunk by chunk
 * (text/prompt.h says whose way); the pooled text is the first chunk's, without emphasis. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "pipeline/text_table.h"

/* masked: with in[2], [rows,1,1,tokens] for sm_clip_text_masked. */
static sumi_status open_part(sm_part *p, const sm_job *j, int encoder, int rows, bool masked, sm_err *e)
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
    p->in[2] = masked ? sm_input(p->g, "mask", SM_F32, 4, (int64_t[]){n, 1, 1, u->clip.max_position_embeddings}) : NULL;
    sm_clip_out text = sm_clip_text_masked(&s, &u->clip, p->in[0], p->in[1], p->in[2]);
    p->out = text.last;
    if (skip >= text.layers && !sm_poisoned(text.last))
        return sm_fail(e, SUMI_E_ARG, "--clip-skip: %d, but the %s has %d layers", skip + 1, u->component, text.layers);
    if ((skip || !u->final_norm) && !sm_poisoned(text.last))
        p->out = u->final_norm ? sm_clip_final_norm(&s, &u->clip, text.hidden[text.layers - skip])
                               : text.hidden[text.layers - skip];
    p->pooled = pooled ? sm_denoiser_pooled(m->family, &m->denoiser, &text) : NULL;
    sm_plan_opts opts = sm_job_plan_opts(j);
    p->p = sm_plan_new_with(p->g, p->pooled ? 2 : 1, (sm_node *[]){p->out, p->pooled}, j->compute, &opts, e);
    return e->code;
}

sumi_status sm_text_open_part(sm_part *p, const sm_job *j, int encoder, int rows, sm_err *e)
{
    return open_part(p, j, encoder, rows, false, e);
}

/* One encoder's answers to all sequences. */
typedef struct encoded {
    sm_text_cond *c;
    const sm_text_table *t;
    const sm_text_use *use;
    int at;         /* its first column of the context */
    int32_t *ids;   /* [seqs, length] */
    float *z;       /* [seqs, length, hidden_size] */
    float *pooled;  /* [seqs, pool] of the last encoder, else NULL */
} encoded;

/* What comes after a sequence's first end mark is padding. */
static void pad(int32_t *ids, int length, int32_t end, int32_t with)
{
    int i = 1;
    while (i < length && ids[i] != end)
        i++;
    while (with >= 0 && ++i < length)
        ids[i] = with;
}

static void fill_ids(encoded *x, const sm_bpe *bpe)
{
    const sm_text_table *t = x->t;
    size_t length = (size_t)t->length;
    for (int i = 0; i < t->groups; i++)
        for (int k = 0; k < t->group[i].texts; k++) {
            const sm_text_words *w = &t->group[i].text[k];
            memcpy(x->ids + (size_t)w->seq * length, w->words.id, sizeof *x->ids * (size_t)w->words.n * length);
        }
    for (int i = 0; i < t->downs; i++) {
        const sm_chunks *c = &t->group[t->down[i].group].text[t->down[i].text].words;
        memcpy(x->ids + (size_t)t->down[i].seq * length, c->id + (size_t)t->down[i].chunk * length, sizeof *x->ids * length);
    }
    for (size_t i = 0; t->empty >= 0 && i < length; i++)
        x->ids[(size_t)t->empty * length + i] = i ? sm_bpe_end(bpe) : sm_bpe_start(bpe);
    for (int s = 0; s < t->seqs; s++)
        pad(x->ids + (size_t)s * length, t->length, sm_bpe_end(bpe), x->use->pad);
}

/* What sequence s does not see of itself. */
static void fill_mask(const sm_text_table *t, int s, float *mask)
{
    memset(mask, 0, sizeof *mask * (size_t)t->length);
    for (int i = 0; i < t->downs; i++) {
        const sm_text_down *d = &t->down[i];
        const sm_chunks *c = &t->group[d->group].text[d->text].words;
        for (int k = 0; d->seq == s && k < t->length; k++)
            if (c->piece[(size_t)d->chunk * (size_t)t->length + (size_t)k] == d->piece)
                mask[k] = -INFINITY;
    }
}

/* Runs all sequences, a batch at a time; the last one's free places repeat a sequence. */
static sumi_status run(encoded *x, const sm_job *j, sm_part *p, int batch, sm_err *e)
{
    const sm_text_table *t = x->t;
    size_t length = (size_t)t->length, each = length * (size_t)x->use->clip.hidden_size, pool = (size_t)x->c->pool;
    for (int s = 0; s < t->seqs && !e->code; s += batch) {
        int n = SM_MIN(batch, t->seqs - s);
        int32_t *ids = sm_plan_data(p->p, p->in[0]);
        for (int i = 0; i < batch; i++)
            memcpy(ids + (size_t)i * length, x->ids + (size_t)(s + SM_MIN(i, n - 1)) * length, sizeof *ids * length);
        for (int i = 0; p->in[2] && i < batch; i++)
            fill_mask(t, s + SM_MIN(i, n - 1), (float *)sm_plan_data(p->p, p->in[2]) + (size_t)i * length);
        if (p->in[1])
            sm_clip_eos_rows(&x->use->clip, ids, batch, t->length, sm_plan_data(p->p, p->in[1]));
        if (sm_plan_run(p->p, j->pool, sm_job_cancel(j), e))
            break;
        memcpy(x->z + (size_t)s * each, sm_plan_data(p->p, p->out), sizeof(float) * (size_t)n * each);
        if (p->pooled)
            memcpy(x->pooled + (size_t)s * pool, sm_plan_data(p->p, p->pooled), sizeof(float) * (size_t)n * pool);
    }
    return e->code;
}

/* ---- emphasis -------------------------------------------------------------------------------------------------------------- */

static int seq_of(const sm_text_table *t, const sm_text_words *w, int chunk)
{
    return chunk < w->words.n ? w->seq + chunk : t->empty;
}

static const float *weights_of(const sm_text_words *w, int chunk)
{
    /* of an empty chunk all are 1 */
    return chunk < w->words.n ? w->words.weight + (size_t)chunk * (size_t)w->words.length : NULL;
}

/* A1111's restored mean: what all outputs of the group's chunk are multiplied with after their weights. */
static double norm_of(const encoded *x, const sm_text_group *g, int chunk)
{
    int hidden = x->use->clip.hidden_size;
    double before = 0, after = 0;
    for (int k = 0; k < g->texts; k++) {
        const float *z = x->z + (size_t)seq_of(x->t, &g->text[k], chunk) * (size_t)x->t->length * (size_t)hidden;
        const float *w = weights_of(&g->text[k], chunk);
        for (int i = 0; i < x->t->length; i++) {
            double sum = 0;
            for (int h = 0; h < hidden; h++)
                sum += z[(size_t)i * (size_t)hidden + (size_t)h];
            before += sum * g->text[k].count;
            after += sum * g->text[k].count * (double)(w ? w[i] : 1);
        }
    }
    return before == after || after == 0 ? 1 : before / after;
}

/* One token's outputs into the context. from: the empty text's, from which the weight counts; NULL: from zero. */
static void weigh(const float *z, const float *from, double w, int hidden, float *out)
{
    for (int h = 0; h < hidden; h++)
        out[h] = w == 1 ? z[h] : from ? (float)((z[h] - from[h]) * w + from[h]) : (float)(z[h] * w);
}

/* compel's weights below 1: the chunk's outputs, weighed already, go towards what they are without the piece, at weight w by
 * tan((1 - w) pi / 2) parts to one. Chunks without a piece of the text are the same without it. */
static void take_down(const encoded *x, const sm_text_row *r, const sm_text_words *words, int chunk, float *out)
{
    const sm_text_table *t = x->t;
    int hidden = x->use->clip.hidden_size, width = x->c->width, last = -1;
    size_t each = (size_t)t->length * (size_t)hidden;
    const float *empty = x->z + (size_t)t->empty * each;
    double all = 1, here = 0;
    for (int pass = 0; pass < 2; pass++) /* first the sums, then each piece's part */
        for (int i = 0; i < t->downs; i++) {
            const sm_text_down *d = &t->down[i];
            if (d->group != r->group || d->text != r->text)
                continue;
            double part = tan((1 - fmax(1e-5, words->words.piece_weight[d->piece])) * M_PI / 2);
            if (!pass) {
                all += d->piece != last ? part : 0;
                here += d->chunk == chunk ? part : 0;
                last = d->piece;
                continue;
            }
            for (int k = 0; d->chunk == chunk && k < t->length; k++) {
                double w = (double)words->words.weight[chunk * t->length + k];
                const float *z = x->z + (size_t)d->seq * each + k * hidden, *from = empty + k * hidden;
                float *to = out + k * width;
                for (int h = 0; h < hidden; h++) {
                    double without = (z[h] - from[h]) * w + from[h];
                    to[h] = (float)(to[h] + part / (all - here) * without);
                }
            }
        }
    for (int k = 0; here > 0 && k < t->length; k++)
        for (int h = 0; h < hidden; h++)
            out[k * width + h] = (float)(out[k * width + h] * ((all - here) / all));
}

static void fill_row(const encoded *x, const sm_text_row *r, const sm_text_group *g)
{
    const sm_text_table *t = x->t;
    const sm_text_words *words = &g->text[r->text];
    int hidden = x->use->clip.hidden_size, width = x->c->width;
    size_t each = (size_t)t->length * (size_t)hidden;
    bool relative = t->emphasis == SM_EMPHASIS_COMFY || t->emphasis == SM_EMPHASIS_COMPEL,
         ignore = t->emphasis == SM_EMPHASIS_IGNORE;
    float *out = t->context + r->at * (size_t)width + x->at;
    int chunks = r->padded ? r->tokens / t->length : g->chunks;
    for (int chunk = 0; chunk < chunks; chunk++) {
        const float *z = x->z + (size_t)seq_of(t, words, chunk) * each, *w = weights_of(words, chunk);
        double norm = t->emphasis == SM_EMPHASIS_ORIGINAL ? norm_of(x, g, chunk) : 1;
        float *begin = out;
        for (int i = 0; i < t->length; i++, out += width)
            weigh(z + i * hidden, relative && t->empty >= 0 ? x->z + (size_t)t->empty * each + i * hidden : NULL,
                  ignore ? 1 : norm * (double)(w ? w[i] : 1), hidden, out);
        if (t->downs)
            take_down(x, r, words, chunk, begin);
    }
    for (int i = chunks * t->length; i < r->tokens; i++, out += width)
        memcpy(out, out - width, sizeof *out * (size_t)hidden);
}

/* Adds w times a part's token to the context, or puts it there weighed from the empty text's. */
static void join_token(const sm_text_join *j, const float *z, const float *from, float w, bool first, int hidden, float *out)
{
    for (int h = 0; h < hidden; h++)
        out[h] = j->how == SM_JOIN_BLEND ? (first ? 0 : out[h]) + w * z[h] : w == 1 ? z[h] : from[h] + (z[h] - from[h]) * w;
}

/* The pooled text of an .and is its first text's, that of a blend the same sum. */
static void join_row(const encoded *x, int row)
{
    const sm_text_table *t = x->t;
    const sm_text_join *j = t->row[row].join;
    int hidden = x->use->clip.hidden_size, pool = x->pooled ? x->c->pool : 0;
    size_t width = (size_t)x->c->width, at = t->row[row].at;
    for (int i = 0; i < j->n; i++) {
        const sm_text_row *p = &t->row[j->row[i]];
        for (int k = 0; k < p->tokens; k++)
            join_token(j, t->context + (p->at + (size_t)k) * width + x->at,
                       x->z + ((size_t)t->empty * (size_t)t->length + (size_t)(k % t->length)) * (size_t)hidden,
                       j->weight[i], i == 0, hidden, t->context + (at + (size_t)k) * width + x->at);
        at += j->how == SM_JOIN_BLEND ? 0 : (size_t)p->tokens;
        for (int k = 0; k < pool && (j->how == SM_JOIN_BLEND || !i); k++)
            t->pooled[(size_t)row * (size_t)pool + (size_t)k] = (i ? t->pooled[(size_t)row * (size_t)pool + (size_t)k] : 0) +
                (j->how == SM_JOIN_BLEND ? j->weight[i] : 1) * t->pooled[(size_t)j->row[i] * (size_t)pool + (size_t)k];
    }
}

static void fill_rows(const encoded *x)
{
    const sm_text_table *t = x->t;
    size_t pool = (size_t)x->c->pool;
    for (int i = 0; i < t->rows; i++) {
        const sm_text_row *r = &t->row[i];
        if (r->join) {
            join_row(x, i);
            continue;
        }
        const sm_text_group *g = &t->group[r->group];
        if (g->zero) {
            memset(t->context + r->at * (size_t)x->c->width, 0, sizeof(float) * (size_t)r->tokens * (size_t)x->c->width);
            memset(t->pooled + (size_t)i * pool, 0, sizeof(float) * pool);
            continue;
        }
        fill_row(x, r, g);
        if (x->pooled)
            memcpy(t->pooled + (size_t)i * pool, x->pooled + (size_t)g->text[r->text].seq * pool, sizeof(float) * pool);
    }
}

/* ---- all of it ------------------------------------------------------------------------------------------------------------- */

static sumi_status encode_one(sm_text_cond *c, const sm_job *j, int encoder, int at, sm_err *e)
{
    const sm_text_use *u = &j->m->traits.text[encoder];
    int batch = sm_text_batch(c);
    size_t tokens = (size_t)c->t->seqs * (size_t)c->t->length;
    encoded x = {.c = c, .t = c->t, .use = u, .at = at};
    sm_part p = {0};
    if (!open_part(&p, j, encoder, batch, c->t->downs > 0, e)) {
        x.ids = sm_alloc(j->mem, SM_MEM_MISC, sizeof *x.ids * tokens);
        x.z = sm_alloc(j->mem, SM_MEM_MISC, sizeof *x.z * tokens * (size_t)u->clip.hidden_size);
        x.pooled = p.pooled ? sm_alloc(j->mem, SM_MEM_MISC, sizeof(float) * (size_t)c->t->seqs * (size_t)c->pool) : NULL;
        if (!x.ids || !x.z || (p.pooled && !x.pooled))
            sm_fail(e, SUMI_E_MEMORY, "out of memory for %zu tokens of prompts", tokens);
        if (!e->code) {
            fill_ids(&x, j->m->bpe);
            if (!run(&x, j, &p, batch, e))
                fill_rows(&x);
        }
    }
    sm_free(x.ids);
    sm_free(x.z);
    sm_free(x.pooled);
    sm_part_close(&p);
    sm_job_release(j, u->component);
    return e->code;
}

static void tell(const sm_job *j, const char *message)
{
    sumi_progress p = {.stage = "encode", .steps = j->m->traits.texts, .seconds = sm_now() - j->started,
                       .eta = -1, .message = message};
    if (j->cb && j->cb->progress)
        j->cb->progress(j->cb->user, &p);
}

/* As in A1111, where an unknown network is reported and drawing goes on. */
static void tell_missing(const sm_text_table *t, const sm_job *j)
{
    char line[400];
    int cut = 0;
    for (int i = 0; i < t->sides && !t->quiet; i++)
        for (int k = 0; k < t->side[i].read.nets; k++) {
            const sm_prompt_net *n = &t->side[i].read.net[k];
            snprintf(line, sizeof line, "<%.40s:%.200s>: left out, adapters are not there yet; the picture is drawn without",
                     n->kind, n->name);
            tell(j, line);
        }
    for (int i = 0; i < t->groups && !t->quiet; i++)
        for (int k = 0; k < t->group[i].texts; k++)
            cut = SM_MAX(cut, t->group[i].text[k].words.cut);
    snprintf(line, sizeof line, "%d tokens of a text did not fit and are left out, as --emphasis diffusers says", cut);
    if (cut)
        tell(j, line);
}

sumi_status sm_text_encode(sm_text_cond *c, const sm_job *j, sm_err *e)
{
    tell_missing(c->t, j);
    for (int i = 0, at = 0; i < j->m->traits.texts && !e->code; at += j->m->traits.text[i++].clip.hidden_size) {
        sm_job_tell(j, "encode", i, j->m->traits.texts, -1);
        encode_one(c, j, i, at, e);
    }
    return e->code;
}
