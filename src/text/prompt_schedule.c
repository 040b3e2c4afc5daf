/* Prompt editing and alternation (see prompt.h), after get_learned_conditioning_prompt_schedules of A1111's
 * modules/prompt_parser.py. Brackets are matched with a stack; a pair counts if what lies in it has one of the forms
 *     (x) (x:y) [x]      text, brackets and all        [x:when] [x:y:when]  x before, y after        [x|y|...]  by turns
 * whose x and y hold no stray bracket, colon or bar. Any other bracket or colon is text. A bar outside [x|y], and a backslash
 * before the end or a line break, make all of the prompt text, as there. Time and room grow with the text's length alone. */
#include "text/prompt.h"

#include <math.h>
#include <string.h>

typedef enum kind { STRAY, PLAIN, EDIT, TURNS } kind;

typedef struct group {
    uint32_t open, close;  /* positions of its brackets */
    uint32_t colon[2];     /* the last two, the latter in [1] */
    uint32_t bar, bars;    /* first one in the list of bars, how many */
    uint32_t last_bar;
    uint32_t colons;
    kind kind;
    int when;
} group;

typedef struct bar { uint32_t at, next; } bar; /* next one of the same group */

typedef struct parse {
    const char *s;
    size_t n;
    int calls, earlier;
    group *g;              /* in the order of their opening brackets */
    uint32_t groups;
    bar *bar;
    uint32_t bars;
    uint32_t *stack, depth, deepest;
    bool *end;             /* [calls + 1] a stage ends with this call */
} parse;

static bool number_at_end(const parse *p, const group *g, double *v, bool *fraction)
{
    size_t at = g->colon[1] + 1, end = g->close;
    for (int len; (len = sm_prompt_space(p->s + at, end - at)) > 0;)
        at += (size_t)len;
    size_t stop = at;
    while (stop < end && !sm_prompt_space(p->s + stop, end - stop))
        stop++;
    for (size_t i = stop; i < end;) {
        int len = sm_prompt_space(p->s + i, end - i);
        if (!len)
            return false;
        i += (size_t)len;
    }
    *fraction = memchr(p->s + at, '.', stop - at) != NULL;
    return sm_prompt_number(p->s + at, stop - at, true, v);
}

/* A number with a point is a share of the calls, one without a call. The second pass of hires fix has its own 1.0 to 2.0, and
 * calls beyond the first pass's. */
static int when_of(const parse *p, double v, bool fraction)
{
    if (p->earlier)
        v = fraction ? (v - 1) * p->calls : v - p->earlier;
    else if (fraction)
        v *= p->calls;
    return v >= p->calls ? p->calls : v > -1 ? (int)v : -1;
}

static kind close_group(parse *p, group *g)
{
    double v;
    bool fraction;
    if (p->s[g->open] == '(')
        return !g->bars && g->colons <= 1 ? PLAIN : STRAY;
    if (g->bars)
        return g->colons ? STRAY : TURNS;
    if (!g->colons)
        return PLAIN;
    if (g->colons > 2 || !number_at_end(p, g, &v, &fraction))
        return STRAY;
    g->when = when_of(p, v, fraction);
    return EDIT;
}

static void mark_ends(parse *p, const group *g)
{
    if (g->kind == EDIT && g->when >= 1)
        p->end[g->when] = true;
    if (g->kind == TURNS)
        memset(p->end + 1, true, (size_t)p->calls);
}

/* false: all of it is text. What a stray bracket lies in can be no group, so the stack is emptied. */
static bool match(parse *p)
{
    uint32_t used = 0;
    for (size_t i = 0; i < p->n; i++) {
        char c = p->s[i];
        group *top = p->depth ? &p->g[p->stack[p->depth - 1]] : NULL;
        if (c == '\\') {
            if (++i >= p->n || p->s[i] == '\n')
                return false;
        } else if (c == '(' || c == '[') {
            p->g[p->groups] = (group){.open = (uint32_t)i};
            p->stack[p->depth++] = p->groups++;
            p->deepest = SM_MAX(p->deepest, p->depth);
        } else if (c == ':' && top) {
            top->colon[0] = top->colon[1];
            top->colon[1] = (uint32_t)i;
            top->colons++;
        } else if (c == '|') {
            if (!top)
                return false;
            p->bar[p->bars] = (bar){(uint32_t)i, 0};
            if (top->bars++)
                p->bar[top->last_bar].next = p->bars;
            else
                top->bar = p->bars;
            top->last_bar = p->bars++;
        } else if (c == ')' || c == ']') {
            bool pair = top && (p->s[top->open] == '(') == (c == ')');
            if (pair) {
                top->close = (uint32_t)i;
                top->kind = close_group(p, top);
                used += top->kind == TURNS ? top->bars : 0;
            }
            p->depth = pair && top->kind != STRAY ? p->depth - 1 : 0;
        }
    }
    for (uint32_t i = 0; i < p->groups; i++)
        mark_ends(p, &p->g[i]);
    return used == p->bars;
}

/* The part of group g that holds at the call: [*from, *to). */
static void choose(const parse *p, const group *g, int call, size_t *from, size_t *to)
{
    *from = g->open + 1;
    *to = g->close;
    if (g->kind == EDIT) {
        bool before = call <= g->when;
        if (g->colons == 2)
            *from = before ? g->open + 1 : g->colon[0] + 1;
        *to = !before ? g->colon[1] : g->colons == 2 ? g->colon[0] : *from;
        return;
    }
    uint32_t turn = (uint32_t)(call - 1) % (g->bars + 1), at = g->bar;
    for (uint32_t k = 1; k < turn; k++)
        at = p->bar[at].next;
    if (turn) {
        *from = p->bar[at].at + 1;
        at = p->bar[at].next;
    }
    if (turn < g->bars)
        *to = p->bar[at].at;
}

typedef struct resume { size_t at, end; } resume;

/* Appends the text that holds at the call. */
static void write_text(const parse *p, int call, resume *stack, sm_buf *out)
{
    size_t at = 0, end = p->n, depth = 0;
    uint32_t next = 0; /* group: none before it opens at or after `at` */
    for (;;) {
        while (next < p->groups && (p->g[next].open < at || p->g[next].kind < EDIT))
            next++;
        if (next < p->groups && p->g[next].open < end) {
            const group *g = &p->g[next];
            sm_buf_add(out, p->s + at, g->open - at);
            stack[depth++] = (resume){g->close + 1, end};
            choose(p, g, call, &at, &end);
            next++;
            continue;
        }
        sm_buf_add(out, p->s + at, end - at);
        if (!depth)
            return;
        at = stack[--depth].at;
        end = stack[depth].end;
    }
}

static uint64_t hash_of(const char *s, size_t n)
{
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)s[i]) * 1099511628211u;
    return h;
}

/* A text that was there before is that one. */
static const char *keep(const sm_buf *b, sm_prompt_stage *stage, uint64_t *hash, int n, sm_arena *room, size_t *total, sm_err *e)
{
    hash[n] = hash_of(b->data, b->len);
    for (int i = n - 1; i >= 0; i--)
        if (hash[i] == hash[n] && !strcmp(stage[i].text, b->data))
            return stage[i].text;
    char *to = (*total += b->len) <= SM_PROMPT_TEXTS_BYTES ? sm_arena_get(room, b->len + 1) : NULL;
    if (to)
        return memcpy(to, b->data, b->len + 1);
    if (*total > SM_PROMPT_TEXTS_BYTES)
        sm_fail(e, SUMI_E_ARG,
                "the prompt turns into more than %d MB of different texts over its steps: make it shorter or let fewer parts "
                "alternate", SM_PROMPT_TEXTS_BYTES >> 20);
    return NULL;
}

static sumi_status write_stages(parse *p, bool edited, sm_arena *room, sm_prompt_stage *stage, int *stages, sm_err *e)
{
    sm_buf b = {.mem = room->mem};
    size_t total = 0;
    resume *stack = sm_arena_get(room, sizeof *stack * ((size_t)p->deepest + 1));
    uint64_t *hash = sm_arena_get(room, sizeof *hash * ((size_t)p->calls + 1));
    bool ok = stack && hash;
    for (int call = 1; call <= p->calls && ok && !e->code; call++) {
        if (!p->end[call])
            continue;
        b.len = 0;
        if (edited)
            write_text(p, call, stack, &b);
        else
            sm_buf_add(&b, p->s, p->n);
        sm_buf_add(&b, "", 0); /* an empty text is a text */
        const char *text = b.oom ? NULL : keep(&b, stage, hash, *stages, room, &total, e);
        ok = text != NULL;
        stage[(*stages)++] = (sm_prompt_stage){call, text};
    }
    sm_buf_free(&b);
    return ok || e->code ? e->code : sm_fail(e, SUMI_E_MEMORY, "out of memory for the texts of a prompt of %zu bytes", p->n);
}

sumi_status sm_prompt_schedule(const char *text, size_t n, int calls, int earlier, sm_arena *room, sm_prompt_stage **stage,
                               int *stages, sm_err *e)
{
    parse p = {.s = text, .n = n, .calls = calls, .earlier = earlier};
    size_t brackets = 1, bars = 1;
    for (size_t i = 0; i < n; i++) {
        brackets += text[i] == '(' || text[i] == '[';
        bars += text[i] == '|';
    }
    *stages = 0;
    p.g = sm_arena_get(room, sizeof *p.g * brackets);
    p.bar = sm_arena_get(room, sizeof *p.bar * bars);
    p.stack = sm_arena_get(room, sizeof *p.stack * brackets);
    p.end = sm_arena_get(room, sizeof *p.end * ((size_t)calls + 1));
    *stage = sm_arena_get(room, sizeof **stage * ((size_t)calls + 1));
    if (!p.g || !p.bar || !p.stack || !p.end || !*stage)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for a prompt of %zu bytes", n);
    bool edited = match(&p);
    if (!edited)
        memset(p.end, 0, (size_t)calls);
    p.end[calls] = true;
    return write_stages(&p, edited, room, *stage, stages, e);
}
