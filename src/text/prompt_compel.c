/* compel's emphasis (github.com/damian0815/compel, prompt_parser.py): word+, word--, (some words)++, "some words"-, (some
 * words)1.3; a + is 1.1 times, a - 0.9 times, nested ones multiply. Brackets that do not match, and what is in no way special,
 * are text up to the next space. .and and .blend are of whole prompts: prompt_join.c. Not there: .swap and withLora. */
#include "text/prompt.h"

#include <math.h>
#include <string.h>

typedef struct reader {
    const char *s;
    sm_pieces *p; /* a piece for each word; neighbours are put together in the end */
    sm_err *e;
    bool oom;
} reader;

static bool is_space(char c) { return c && strchr(" \t\n\r\v\f", c); }
static bool is_syntax(char c) { return c && strchr("()\",.+-=", c); }

/* Pieces are kept apart by a space. What escapes a bracket or a quote goes. */
static void add(reader *r, size_t from, size_t to, double weight)
{
    char c;
    r->oom |= r->p->n && !r->p->text.oom && (sm_buf_add(&r->p->text, " ", 1), r->p->text.oom);
    if (r->oom || !sm_pieces_add(r->p, "", 0, weight)) {
        r->oom = true;
        return;
    }
    size_t at = r->p->text.len;
    for (size_t i = from; i < to; i++) {
        i += r->s[i] == '\\' && i + 1 < to && strchr("()\"", r->s[i + 1]);
        c = r->s[i];
        sm_buf_add(&r->p->text, &c, 1);
    }
    r->oom |= r->p->text.oom;
    r->p->piece[r->p->n - 1].n = r->p->text.len - at;
}

static void cut_back(reader *r, size_t pieces, size_t bytes)
{
    r->p->n = pieces;
    r->p->text.len = bytes;
}

/* End of a word without meaning of its own. */
static size_t word_end(const reader *r, size_t at, size_t end)
{
    for (; at < end; at++) {
        char c = r->s[at], next = at + 1 < end ? r->s[at + 1] : 0;
        if (c == '\\' && is_syntax(next))
            at++;
        else if (c == '+' || c == '-' ? !next || is_space(next) || is_syntax(next) : is_space(c) || is_syntax(c))
            break;
    }
    return at;
}

/* ++ or -- at s[at]; brackets may have a number too. Returns where it ends, at where there is none. */
static size_t operator_end(const reader *r, size_t at, size_t end, bool number, double *weight)
{
    size_t to = at;
    char c = at < end ? r->s[at] : 0;
    while ((c == '+' || c == '-') && to < end && r->s[to] == c)
        to++;
    if (to > at) {
        *weight = pow(c == '+' ? 1.1 : 0.9, (double)(to - at));
        return to;
    }
    while (number && to < end && ((r->s[to] >= '0' && r->s[to] <= '9') || (r->s[to] == '.' && !memchr(r->s + at, '.', to - at))))
        to++;
    return to > at && sm_prompt_number(r->s + at, to - at, false, weight) ? to : at;
}

/* Operators that are not there would otherwise be drawn as words. */
static bool refuse(reader *r, size_t at, size_t end)
{
    static const char *const other[] = {".swap(", ".add(", ".attend("}, *const whole[] = {".blend(", ".and("};
    for (size_t i = 0; i < SM_COUNT(whole); i++)
        if (end - at >= strlen(whole[i]) && !memcmp(r->s + at, whole[i], strlen(whole[i])))
            sm_fail(r->e, SUMI_E_ARG, "compel's %s...) is of a whole prompt: (\"a cat\", \"a dog\")%s0.7, 0.3)", whole[i],
                    whole[i]);
    for (size_t i = 0; i < SM_COUNT(other); i++)
        if (end - at >= strlen(other[i]) && !memcmp(r->s + at, other[i], strlen(other[i])))
            sm_fail(r->e, SUMI_E_SUPPORT, "the prompt has compel's %s...), which is not there: weights such as (words)1.3 are",
                    other[i]);
    return r->e->code;
}

static size_t inner(reader *r, size_t at, size_t end, int depth);

/* (...) or "..." at s[at] with what weighs it; returns where it ends, 0 where it is none. */
static size_t bracketed(reader *r, size_t at, size_t end, int depth)
{
    size_t pieces = r->p->n, bytes = r->p->text.len, close = at + 1;
    double weight = 1;
    if (r->s[at] == '"')
        while (close < end && r->s[close] != '"')
            close += r->s[close] == '\\' && close + 1 < end && r->s[close + 1] == '"' ? 2 : 1;
    bool quoted = r->s[at] == '"', there = !quoted || (close < end && !memchr(r->s + at, '\n', close - at));
    size_t stop = there && depth < SM_PROMPT_DEPTH ? inner(r, at + 1, quoted ? close : end, depth + 1) : 0;
    if (!stop || (quoted ? stop != close : stop >= end || r->s[stop] != ')')) {
        cut_back(r, pieces, bytes);
        return 0;
    }
    size_t to = operator_end(r, stop + 1, end, true, &weight);
    for (size_t i = pieces; i < r->p->n; i++)
        r->p->piece[i].weight *= weight;
    return refuse(r, to, end) ? 0 : to;
}

/* What may stand in brackets; returns where that ends. */
static size_t inner(reader *r, size_t at, size_t end, int depth)
{
    while (!r->oom && !r->e->code) {
        double weight = 1;
        while (at < end && is_space(r->s[at]))
            at++;
        if (at == end)
            break;
        size_t word = word_end(r, at, end), to;
        if (word > at) {
            to = operator_end(r, word, end, false, &weight);
            add(r, at, word, weight);
        } else if (r->s[at] == '(' || r->s[at] == '"') {
            if (!(to = bracketed(r, at, end, depth)))
                break;
        } else if (r->s[at] == ',' || r->s[at] == '.') {
            to = at + 1;
            add(r, at, to, 1);
        } else {
            break;
        }
        at = to;
    }
    return at;
}

static void outer(reader *r, size_t end)
{
    for (size_t at = 0, to = 0; !r->oom && !r->e->code; at = to) {
        double weight = 1;
        while (at < end && is_space(r->s[at]))
            at++;
        if (at == end)
            break;
        to = r->s[at] == '(' || r->s[at] == '"' ? bracketed(r, at, end, 0) : 0;
        if (to || r->e->code)
            continue;
        size_t word = word_end(r, at, end), weighed = word > at ? operator_end(r, word, end, false, &weight) : word;
        if (refuse(r, word, end))
            return;
        for (to = weighed; weighed == word && to < end && !is_space(r->s[to]);)
            to++;
        add(r, at, weighed > word ? word : to, weight);
    }
}

/* A comma ends a word: it gets a space. */
static void space_commas(const char *s, sm_buf *out)
{
    for (size_t n = strlen(s), i = 0; i < n; i++) {
        bool tight = s[i] == ',' && i + 1 < n && !sm_prompt_space(s + i + 1, n - i - 1);
        sm_buf_add(out, s + i, 1);
        if (tight) {
            sm_buf_add(out, " ", 1);
            sm_buf_add(out, s + ++i, 1);
        }
    }
    sm_buf_add(out, "", 0);
}

sumi_status sm_prompt_weigh_compel(const char *text, sm_pieces *out, sm_err *e)
{
    sm_buf spaced = {.mem = out->text.mem};
    space_commas(text, &spaced);
    reader r = {.s = spaced.data, .p = out, .e = e, .oom = spaced.oom};
    if (!r.oom)
        outer(&r, spaced.len);
    size_t w = 0;
    for (size_t i = 1; i < out->n; i++) {
        sm_piece *last = &out->piece[w], *x = &out->piece[i];
        if (x->weight == last->weight)
            last->n = x->at + x->n - last->at;
        else
            out->piece[++w] = *x;
    }
    out->n = out->n ? w + 1 : 0;
    sm_buf_free(&spaced);
    return r.oom ? sm_fail(e, SUMI_E_MEMORY, "out of memory for a prompt of %zu bytes", strlen(text)) : e->code;
}
