/* Laying out a round's texts (see text.h): prompts are read once, their different texts cut into chunks; rows are a text at the
 * length that its picture needs. A1111's way throughout: all texts of a schedule have as many chunks as the longest one, filled
 * with empty chunks, and the sides of AND as many tokens as the longest one, its last token's output repeated. */
#include "pipeline/p2p.h"
#include "pipeline/text_table.h"

#include <string.h>

/* Sequences that an encoder reads at a time; the most of one round, whose outputs must not take more than 2 GB either. */
enum { BATCH = 8, MOST = 16384, MOST_BYTES = 2147483647 };

static sumi_status no_memory(sm_err *e) { return sm_fail(e, SUMI_E_MEMORY, "out of memory for the texts of a request"); }

/* ---- groups and rows ------------------------------------------------------------------------------------------------- */

static bool has_piece(const sm_chunks *c, int chunk, int piece)
{
    for (int i = 0; i < c->length; i++)
        if (c->piece[(size_t)chunk * (size_t)c->length + (size_t)i] == piece)
            return true;
    return false;
}

/* A piece without tokens weighs nothing. */
static sumi_status add_downs(sm_text_table *t, int group, int text, sm_err *e)
{
    const sm_chunks *c = &t->group[group].text[text].words;
    for (int piece = 0; piece < c->pieces; piece++)
        for (int chunk = 0; chunk < c->n && c->piece_weight[piece] < 1; chunk++) {
            if (!has_piece(c, chunk, piece))
                continue;
            if (t->downs == t->down_cap) {
                int cap = t->down_cap ? 2 * t->down_cap : 8;
                void *more = sm_realloc(t->mem, SM_MEM_MISC, t->down, sizeof *t->down * (size_t)cap);
                if (!more)
                    return no_memory(e);
                t->down = more;
                t->down_cap = cap;
            }
            t->down[t->downs++] = (sm_text_down){group, text, piece, chunk, t->seqs++};
        }
    return SUMI_OK;
}

static sumi_status fill_group(sm_text_table *t, sm_text_group *g, const sm_job *j, sm_err *e)
{
    const sm_prompt_part *p = g->part;
    g->stage_text = sm_arena_get(&t->room, sizeof *g->stage_text * (size_t)p->stages);
    g->text = sm_arena_get(&t->room, sizeof *g->text * (size_t)p->stages);
    if (!g->stage_text || !g->text)
        return no_memory(e);
    for (int i = 0; i < p->stages; i++) {
        int k = g->texts; /* a schedule's equal texts are one pointer */
        while (k > 0 && g->text[k - 1].text != p->stage[i].text)
            k--;
        if (!k) {
            sm_text_words *w = &g->text[g->texts++];
            k = g->texts;
            w->text = p->stage[i].text;
            w->seq = t->seqs;
            if (sm_chunks_make(j->m->bpe, w->text, t->emphasis, t->length, t->mem, &w->words, e))
                return e->code;
            t->seqs += w->words.n;
            if (t->emphasis == SM_EMPHASIS_COMPEL && add_downs(t, (int)(g - t->group), k - 1, e))
                return e->code;
            g->chunks = SM_MAX(g->chunks, w->words.n);
        }
        g->stage_text[i] = k - 1;
        g->text[k - 1].count++;
    }
    return SUMI_OK;
}

/* XL was trained with zeros for no text. ComfyUI and compel encode the empty text. */
static bool is_zero(const sm_text_table *t, const sm_prompt_part *p, const sm_job *j, bool negative)
{
    bool all = negative && j->m->traits.zero_empty && t->emphasis != SM_EMPHASIS_COMFY && t->emphasis != SM_EMPHASIS_COMPEL;
    for (int i = 0; i < p->stages; i++)
        all &= !p->stage[i].text[0];
    return all;
}

/* Number of the part's group; -1 and e set. Parts that were there before share it. */
static int group_of(sm_text_table *t, const sm_prompt_part *p, const sm_job *j, bool negative, sm_err *e)
{
    bool zero = is_zero(t, p, j, negative);
    for (int i = 0; i < t->groups; i++)
        if (t->group[i].zero == zero && !strcmp(t->group[i].part->text, p->text))
            return i;
    if (t->groups == t->group_cap) {
        int cap = t->group_cap ? 2 * t->group_cap : 8;
        void *more = sm_realloc(t->mem, SM_MEM_MISC, t->group, sizeof *t->group * (size_t)cap);
        if (!more)
            return no_memory(e), -1;
        t->group = more;
        t->group_cap = cap;
    }
    sm_text_group *g = &t->group[t->groups++];
    *g = (sm_text_group){.part = p, .zero = zero};
    return fill_group(t, g, j, e) ? -1 : t->groups - 1;
}

/* Number of the row; -1 and e set. */
static int row_of(sm_text_table *t, sm_text_row want, sm_err *e)
{
    for (int i = 0; i < t->rows; i++)
        if (!want.join && t->row[i].group == want.group && t->row[i].text == want.text && t->row[i].tokens == want.tokens &&
            t->row[i].padded == want.padded)
            return i;
    if (t->rows == t->row_cap) {
        int cap = t->row_cap ? 2 * t->row_cap : 8;
        void *more = sm_realloc(t->mem, SM_MEM_MISC, t->row, sizeof *t->row * (size_t)cap);
        if (!more)
            return no_memory(e), -1;
        t->row = more;
        t->row_cap = cap;
    }
    size_t at = t->rows ? t->row[t->rows - 1].at + (size_t)t->row[t->rows - 1].tokens : 0;
    t->row[t->rows] = want;
    t->row[t->rows].at = at;
    return t->rows++;
}

/* ---- a prompt ------------------------------------------------------------------------------------------------------------ */

/* The first stage that reaches the call, else the last. */
static int stage_at(const sm_prompt_part *p, int call)
{
    int i = 0;
    while (i + 1 < p->stages && p->stage[i].end < call)
        i++;
    return i;
}

static sm_text_row one_text(int group, int text, int tokens)
{
    return (sm_text_row){.group = group, .text = text, .tokens = tokens};
}

static sumi_status fill_spans(sm_text_table *t, sm_text_side *s, const int *group, int tokens, sm_err *e)
{
    const sm_prompt *r = &s->read;
    int most = 0;
    for (int i = 0; i < r->parts; i++)
        most += r->part[i].stages;
    s->picks = r->parts;
    s->span = sm_arena_get(&t->room, sizeof *s->span * (size_t)most);
    for (int end = -1; s->span && end < t->calls;) {
        int next = t->calls;
        for (int i = 0; i < r->parts; i++) {
            int own = r->part[i].stage[stage_at(&r->part[i], end + 1)].end;
            next = own > end ? SM_MIN(next, own) : next;
        }
        sm_text_span *span = &s->span[s->spans++];
        span->end = end = next;
        span->pick = sm_arena_get(&t->room, sizeof *span->pick * (size_t)r->parts);
        if (!span->pick)
            return no_memory(e);
        for (int i = 0; i < r->parts; i++) {
            int row = row_of(t, one_text(group[i], t->group[group[i]].stage_text[stage_at(&r->part[i], end)], tokens), e);
            if (row < 0)
                return e->code;
            span->pick[i] = (sm_text_pick){row, s->negative ? 1 : r->part[i].weight};
        }
    }
    return s->span ? SUMI_OK : no_memory(e);
}

/* One row for all calls, made of those of the parts; chunks: of the longest. */
static sumi_status fill_joined(sm_text_table *t, sm_text_side *s, const int *group, int chunks, sm_err *e)
{
    const sm_prompt *r = &s->read;
    bool blend = r->join == SM_JOIN_BLEND;
    int tokens = 0;
    sm_text_join *j = sm_arena_get(&t->room, sizeof *j);
    if (!j || !(j->row = sm_arena_get(&t->room, sizeof *j->row * (size_t)r->parts)) ||
        !(j->weight = sm_arena_get(&t->room, sizeof *j->weight * (size_t)r->parts)) ||
        !(s->span = sm_arena_get(&t->room, sizeof *s->span)) || !(s->span->pick = sm_arena_get(&t->room, sizeof *s->span->pick)))
        return no_memory(e);
    j->how = r->join;
    for (j->n = 0; j->n < r->parts; j->n++) {
        sm_text_row part = {.group = group[j->n], .tokens = (blend ? chunks : t->group[group[j->n]].chunks) * t->length,
                            .padded = true};
        if ((j->row[j->n] = row_of(t, part, e)) < 0)
            return e->code;
        j->weight[j->n] = r->part[j->n].weight;
        tokens = blend ? part.tokens : tokens + part.tokens;
    }
    int row = row_of(t, (sm_text_row){.group = -1, .text = -1, .tokens = tokens, .join = j}, e);
    s->span->end = t->calls;
    s->span->pick[0] = (sm_text_pick){row, 1};
    s->spans = s->picks = 1;
    return e->code;
}

static sumi_status fill_side(sm_text_table *t, sm_text_side *s, const sm_job *j, sm_err *e)
{
    sm_prompt_how how = {t->emphasis, s->negative, t->calls, t->earlier};
    if (sm_prompt_read(s->prompt, &how, &t->room, &s->read, e))
        return e->code;
    int *group = sm_arena_get(&t->room, sizeof *group * (size_t)s->read.parts), chunks = 1;
    if (!group)
        return no_memory(e);
    for (int i = 0; i < s->read.parts; i++) {
        group[i] = group_of(t, &s->read.part[i], j, s->negative, e);
        if (group[i] < 0)
            return e->code;
        chunks = SM_MAX(chunks, t->group[group[i]].chunks);
    }
    return s->read.join ? fill_joined(t, s, group, chunks, e) : fill_spans(t, s, group, chunks * t->length, e);
}

/* Number of the prompt's side; -1 and e set. */
static int side_of(sm_text_table *t, const char *prompt, bool negative, const sm_job *j, sm_err *e)
{
    for (int i = 0; i < t->sides; i++)
        if (t->side[i].negative == negative && !strcmp(t->side[i].prompt, prompt))
            return i;
    sm_text_side *s = &t->side[t->sides++];
    *s = (sm_text_side){.prompt = prompt, .negative = negative};
    return fill_side(t, s, j, e) ? -1 : t->sides - 1;
}

/* ---- the round ----------------------------------------------------------------------------------------------------------- */

/* The empty sequence is read where a text is shorter than its siblings, or where weights count from it. */
static void want_empty(sm_text_table *t)
{
    bool relative = t->emphasis == SM_EMPHASIS_COMFY || t->emphasis == SM_EMPHASIS_COMPEL, wanted = false;
    for (int i = 0; i < t->groups; i++)
        for (int k = 0; k < t->group[i].texts; k++) {
            const sm_text_words *w = &t->group[i].text[k];
            wanted |= w->words.n < t->group[i].chunks;
            for (int n = 0; relative && n < w->words.pieces; n++)
                wanted |= w->words.piece_weight[n] != 1;
        }
    for (int i = 0; i < t->rows; i++)
        wanted |= t->row[i].join != NULL;
    t->empty = wanted ? t->seqs++ : -1;
}

/* Pictures are the round's n from the first one on, with Prompt-to-Prompt then the n they are edited from. */
static sumi_status lay_out(sm_text_cond *c, sm_text_table *t, const sm_job *j, int first, int n, sm_err *e)
{
    t->side = sm_arena_get(&t->room, sizeof *t->side * (size_t)(t->pictures + 1));
    t->side_of = sm_arena_get(&t->room, sizeof *t->side_of * (size_t)(t->pictures + 1));
    if (!t->side || !t->side_of)
        return no_memory(e);
    for (int k = 0; k <= t->pictures; k++) {
        bool negative = k == t->pictures, source = k >= n && !negative;
        const char *prompt = negative     ? j->r.negative_prompt
                             : source     ? sm_p2p_source(j, first + k - n)
                             : j->prompts ? j->prompts[first + k]
                                          : j->r.prompt;
        t->side_of[k] = side_of(t, prompt, negative, j, e);
        if (t->side_of[k] < 0)
            return e->code;
    }
    want_empty(t);
    int most = SM_MIN(MOST, (int)(MOST_BYTES / ((int64_t)t->length * c->width * (int64_t)sizeof(float))));
    if (t->seqs > most)
        return sm_fail(e, SUMI_E_ARG,
                       "the prompts come to %d chunks over all steps, at most %d: make them shorter or let fewer parts alternate",
                       t->seqs, most);
    size_t tokens = t->row[t->rows - 1].at + (size_t)t->row[t->rows - 1].tokens, bytes;
    bool fits = sm_mul_ok(tokens, sizeof(float) * (size_t)c->width, &bytes);
    t->context = fits ? sm_alloc(t->mem, SM_MEM_MISC, bytes) : NULL;
    t->pooled = sm_alloc(t->mem, SM_MEM_MISC, sizeof(float) * (size_t)t->rows * (size_t)c->pool);
    return t->context && t->pooled ? SUMI_OK
                                   : sm_fail(e, SUMI_E_MEMORY, "out of memory for prompts of %zu tokens in all", tokens);
}

int sm_text_calls(const sm_sampler *s, int steps) { return SM_MAX(1, steps) * (s && s->evals == 2 ? 2 : 1); }

sumi_status sm_text_open(sm_text_cond *c, const sm_job *j, int first, int n, int earlier, sm_err *e)
{
    const sumi_model *m = j->m;
    const sm_sampler *s = sm_sampler_find(j->r.sampler);
    *c = (sm_text_cond){.pool = m->family->pooled_width(&m->denoiser)};
    for (int i = 0; i < m->traits.texts; i++)
        c->width += m->traits.text[i].clip.hidden_size;
    sm_text_table *t = c->t = sm_alloc0(j->mem, SM_MEM_MISC, sizeof *t);
    if (!t)
        return no_memory(e);
    t->mem = j->mem;
    sm_arena_init(&t->room, j->mem, SM_MEM_MISC);
    t->length = m->traits.text[0].clip.max_position_embeddings;
    t->pictures = sm_p2p_wanted(&j->r) ? 2 * n : n;
    t->calls = sm_text_calls(s, j->prompt_steps ? j->prompt_steps : j->r.steps);
    t->earlier = earlier ? sm_text_calls(s, earlier) : 0;
    t->quiet = earlier > 0;
    if (t->length < 3)
        return sm_fail(e, SUMI_E_MODEL, "%s: its text encoder takes %d tokens, none of which is left for a text", m->name,
                       t->length);
    if (!sm_emphasis_by_name(j->r.emphasis, &t->emphasis))
        return sm_fail(e, SUMI_E_ARG,
                       "--emphasis: '%.40s' is unknown; original, no_norm, ignore, none, comfy, compel or diffusers",
                       j->r.emphasis);
    return lay_out(c, t, j, first, n, e);
}

void sm_text_close(sm_text_cond *c)
{
    sm_text_table *t = c->t;
    for (int i = 0; t && i < t->groups; i++)
        for (int k = 0; k < t->group[i].texts; k++)
            sm_chunks_free(&t->group[i].text[k].words);
    if (t) {
        sm_free(t->group);
        sm_free(t->row);
        sm_free(t->down);
        sm_free(t->context);
        sm_free(t->pooled);
        sm_arena_free(&t->room);
        sm_free(t);
    }
    *c = (sm_text_cond){0};
}

int sm_text_at(const sm_text_cond *c, int picture, int call, bool negative, const sm_text_pick **picks)
{
    const sm_text_side *s = &c->t->side[c->t->side_of[negative ? c->t->pictures : picture]];
    int low = 0, high = s->spans - 1;
    while (low < high) {
        int mid = (low + high) / 2;
        if (s->span[mid].end < call)
            low = mid + 1;
        else
            high = mid;
    }
    *picks = s->span[low].pick;
    return s->picks;
}

int sm_text_tokens(const sm_text_cond *c, int row) { return c->t->row[row].tokens; }
const float *sm_text_context(const sm_text_cond *c, int row) { return c->t->context + c->t->row[row].at * (size_t)c->width; }
const float *sm_text_pooled(const sm_text_cond *c, int row) { return c->t->pooled + (size_t)row * (size_t)c->pool; }
int sm_text_sequences(const sm_text_cond *c) { return c->t->seqs; }
int sm_text_batch(const sm_text_cond *c) { return SM_MIN(c->t->seqs, BATCH); }
