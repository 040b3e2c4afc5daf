/* Texts of any length in chunks that a text encoder can read. A1111's (modules/sd_hijack_clip.py, tokenize_line): as many tokens
 * as fit between the marks; where a comma is among the last 20, what follows it goes into the next chunk; BREAK fills a chunk up.
 * ComfyUI's (comfy/sd1_clip.py): words of less than 8 tokens stay together. compel's: as many as fit. */
#include "text/prompt.h"

#include <string.h>

typedef struct builder {
    sm_mem *mem;
    sm_chunks *c;
    int32_t start, end, comma;
    int n, cap;        /* tokens in the open chunk; chunks there is room for */
    int last_comma;    /* its place in the open chunk, -1: none */
    bool oom;
} builder;

void sm_chunks_free(sm_chunks *c)
{
    sm_free(c->id);
    sm_free(c->weight);
    sm_free(c->piece);
    sm_free(c->piece_weight);
    *c = (sm_chunks){0};
}

/* The open chunk is number c->n: its marks, all end marks until tokens come. */
static void open_chunk(builder *b)
{
    sm_chunks *c = b->c;
    size_t length = (size_t)c->length;
    if (c->n == b->cap) {
        size_t cap = (size_t)(b->cap ? 2 * b->cap : 1), count = cap * length;
        void *id = sm_realloc(b->mem, SM_MEM_MISC, c->id, count * sizeof *c->id);
        c->id = id ? id : c->id;
        void *weight = sm_realloc(b->mem, SM_MEM_MISC, c->weight, count * sizeof *c->weight);
        c->weight = weight ? weight : c->weight;
        void *piece = sm_realloc(b->mem, SM_MEM_MISC, c->piece, count * sizeof *c->piece);
        c->piece = piece ? piece : c->piece;
        b->oom |= !id || !weight || !piece;
        if (b->oom)
            return;
        b->cap = (int)cap;
    }
    size_t at = (size_t)c->n * length;
    for (size_t i = 0; i < length; i++) {
        c->id[at + i] = i ? b->end : b->start;
        c->weight[at + i] = 1;
        c->piece[at + i] = -1;
    }
    b->n = 0;
    b->last_comma = -1;
}

static void close_chunk(builder *b)
{
    b->c->tokens += b->c->length - 2;
    b->c->n++;
    open_chunk(b);
}

static void put(builder *b, int32_t id, double weight, int piece)
{
    size_t at = (size_t)b->c->n * (size_t)b->c->length + 1 + (size_t)b->n++;
    b->c->id[at] = id;
    b->c->weight[at] = (float)weight;
    b->c->piece[at] = piece;
}

/* Closes the chunk behind its last comma; what came after goes into the next one. */
static void backtrack(builder *b)
{
    sm_chunks *c = b->c;
    int from = b->last_comma + 1, moved = b->n - from;
    close_chunk(b);
    if (b->oom)
        return;
    for (int i = 0; i < moved; i++) {
        size_t old = (size_t)(c->n - 1) * (size_t)c->length + 1 + (size_t)(from + i);
        put(b, c->id[old], c->weight[old], c->piece[old]);
        c->id[old] = b->end;
        c->weight[old] = 1;
        c->piece[old] = -1;
    }
}

static void add_a1111(builder *b, int32_t id, double weight, int piece)
{
    int room = b->c->length - 2;
    if (id == b->comma)
        b->last_comma = b->n;
    else if (b->n == room && b->last_comma >= 0 && b->n - b->last_comma <= SM_PROMPT_BACKTRACK)
        backtrack(b);
    if (!b->oom && b->n == room)
        close_chunk(b);
    if (!b->oom)
        put(b, id, weight, piece);
}

/* A word of ComfyUI's: n tokens. */
static void add_word(builder *b, const int32_t *id, size_t n, double weight, int piece)
{
    enum { LARGE = 8 };
    bool large = n >= LARGE;
    while (n && !b->oom) {
        size_t room = (size_t)(b->c->length - 2 - b->n), take = SM_MIN(n, room);
        if (n > room && !large) {
            if (!b->n) { /* longer than a chunk of a tiny model */
                large = true;
                continue;
            }
            close_chunk(b);
            continue;
        }
        for (size_t i = 0; i < take; i++)
            put(b, id[i], weight, piece);
        id += take;
        n -= take;
        if (n)
            close_chunk(b);
    }
}

static sumi_status add_words(builder *b, const sm_bpe *bpe, const char *s, size_t n, double weight, int piece, sm_err *e)
{
    for (size_t from = 0, i = 0; i <= n && !e->code && !b->oom; i++) {
        if (i < n && s[i] != ' ' && s[i] != '\n')
            continue;
        sm_ids ids = {.mem = b->mem};
        if (i > from && !sm_bpe_encode(bpe, s + from, i - from, &ids, e))
            add_word(b, ids.id, ids.n, weight, piece);
        sm_ids_free(&ids);
        from = i + 1;
    }
    return e->code;
}

static sumi_status add_piece(builder *b, const sm_bpe *bpe, const sm_pieces *p, size_t i, sm_emphasis m, sm_err *e)
{
    const sm_piece *x = &p->piece[i];
    const char *s = p->text.data + x->at;
    if (m == SM_EMPHASIS_COMFY)
        return add_words(b, bpe, s, x->n, x->weight, (int)i, e);
    if (m < SM_EMPHASIS_NONE && sm_piece_breaks(p, i)) {
        close_chunk(b);
        return SUMI_OK;
    }
    sm_ids ids = {.mem = b->mem};
    sm_bpe_encode(bpe, s, x->n, &ids, e);
    for (size_t k = 0; k < ids.n && !e->code && !b->oom; k++) {
        bool full = b->n == b->c->length - 2;
        if (m < SM_EMPHASIS_COMFY)
            add_a1111(b, ids.id[k], x->weight, (int)i);
        else if (full && m == SM_EMPHASIS_DIFFUSERS)
            b->c->cut++;
        else if (full)
            close_chunk(b);
        if (m >= SM_EMPHASIS_COMFY && !b->oom && b->n < b->c->length - 2)
            put(b, ids.id[k], x->weight, (int)i);
    }
    sm_ids_free(&ids);
    return e->code;
}

sumi_status sm_chunks_make(const sm_bpe *bpe, const char *text, sm_emphasis m, int length, sm_mem *mem, sm_chunks *out, sm_err *e)
{
    sm_pieces p = {.text.mem = mem};
    *out = (sm_chunks){.length = length};
    builder b = {.mem = mem, .c = out, .start = sm_bpe_start(bpe), .end = sm_bpe_end(bpe), .comma = sm_bpe_find(bpe, ",</w>", 5)};
    b.comma = b.comma < 0 ? INT32_MIN : b.comma;
    if (!sm_prompt_weigh(text, m, &p, e)) {
        open_chunk(&b);
        out->pieces = (int)p.n;
        out->piece_weight = sm_alloc(mem, SM_MEM_MISC, sizeof *out->piece_weight * p.n);
        b.oom |= !out->piece_weight;
        for (size_t i = 0; i < p.n && !b.oom && !e->code; i++) {
            out->piece_weight[i] = p.piece[i].weight;
            add_piece(&b, bpe, &p, i, m, e);
        }
        if (!b.oom && (b.n || !out->n)) {
            out->tokens += b.n;
            out->n++;
        }
    }
    sm_pieces_free(&p);
    return e->code || !b.oom ? e->code : sm_fail(e, SUMI_E_MEMORY, "out of memory for the tokens of %zu bytes", strlen(text));
}
