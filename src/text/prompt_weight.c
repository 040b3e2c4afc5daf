/* Emphasis: which weight each piece of a text has. A1111's (modules/prompt_parser.py, parse_prompt_attention): (x) is 1.1 times,
 * [x] 1/1.1, (x:1.3) 1.3 times, what is open at the end closes there. ComfyUI's (comfy/sd1_clip.py, token_weights): (x) is 1.1
 * times, (x:1.3) is 1.3 whatever is around it. In both a backslash makes the next bracket text. */
#include "text/prompt.h"

#include <string.h>

void sm_pieces_free(sm_pieces *p)
{
    sm_mem *mem = p->text.mem;
    sm_buf_free(&p->text);
    sm_free(p->piece);
    *p = (sm_pieces){.text.mem = mem};
}

bool sm_pieces_add(sm_pieces *p, const char *s, size_t n, double weight)
{
    if (p->n == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 16;
        sm_piece *more = sm_realloc(p->text.mem, SM_MEM_MISC, p->piece, cap * sizeof *more);
        if (!more)
            return false;
        p->piece = more;
        p->cap = cap;
    }
    p->piece[p->n++] = (sm_piece){p->text.len, n, weight};
    sm_buf_add(&p->text, s, n);
    return !p->text.oom;
}

bool sm_piece_breaks(const sm_pieces *p, size_t i)
{
    const sm_piece *x = &p->piece[i];
    return x->weight == -1 && x->n == 5 && !memcmp(p->text.data + x->at, "BREAK", 5);
}

/* Neighbours of equal weight become one. */
static void merge(sm_pieces *p)
{
    size_t w = 0;
    for (size_t i = 1; i < p->n; i++)
        if (p->piece[i].weight == p->piece[w].weight)
            p->piece[w].n += p->piece[i].n;
        else
            p->piece[++w] = p->piece[i];
    p->n = p->n ? w + 1 : 0;
}

/* ---- A1111 ------------------------------------------------------------------------------------------------------------- */

typedef struct open_brackets { size_t first[SM_PROMPT_DEPTH]; int n; } open_brackets; /* piece after each bracket */

static void multiply(sm_pieces *p, size_t from, double by)
{
    for (size_t i = from; i < p->n; i++)
        p->piece[i].weight *= by;
}

static bool push(open_brackets *b, size_t first)
{
    if (b->n == SM_PROMPT_DEPTH)
        return false;
    b->first[b->n++] = first;
    return true;
}

/* Length of ": 1.3 )" at s, 0 where it does not begin; the number's characters in *from, *to. */
static size_t weight_at(const char *s, size_t n, size_t *from, size_t *to)
{
    size_t at = 1;
    for (int len; (len = sm_prompt_space(s + at, n - at)) > 0;)
        at += (size_t)len;
    *from = at;
    at += at < n && (s[at] == '+' || s[at] == '-');
    size_t first = at;
    while (at < n && (s[at] == '.' || (s[at] >= '0' && s[at] <= '9')))
        at++;
    *to = at;
    if (at == first)
        return 0;
    for (int len; (len = sm_prompt_space(s + at, n - at)) > 0;)
        at += (size_t)len;
    return at < n && s[at] == ')' ? at + 1 : 0;
}

/* Text without brackets, at BREAK in pieces; what is around a BREAK loses its white space. */
static bool add_text(sm_pieces *p, const char *s, size_t n)
{
    size_t from = 0, end = 0; /* end: of what is no white space before i */
    for (size_t i = 0; i < n;) {
        int space = sm_prompt_space(s + i, n - i);
        if (space) {
            i += (size_t)space;
        } else if (s[i] == 'B' && sm_prompt_keyword(s, 0, i, n, "BREAK")) {
            if (!sm_pieces_add(p, s + from, SM_MAX(end, from) - from, 1) || !sm_pieces_add(p, "BREAK", 5, -1))
                return false;
            for (i += 5; (space = sm_prompt_space(s + i, n - i)) > 0;)
                i += (size_t)space;
            from = end = i;
        } else {
            end = ++i;
        }
    }
    return sm_pieces_add(p, s + from, n - from, 1);
}

/* What begins with s[at] and how long it is; brackets closed and weights given as it goes. 0: memory is out, or an error is
 * set. */
static size_t a1111_step(const char *s, size_t n, sm_pieces *p, open_brackets *round, open_brackets *square, sm_err *e)
{
    size_t from, to, len;
    double w = 1;
    if (*s == '\\') {
        bool escape = n > 1 && s[1] && strchr("()[]\\", s[1]);
        return sm_pieces_add(p, s + 1, escape, 1) ? 1 + (size_t)escape : 0;
    }
    if (*s == '(' || *s == '[') {
        if (push(*s == '(' ? round : square, p->n))
            return 1;
        sm_fail(e, SUMI_E_ARG, "the prompt has more than %d brackets open at a time", SM_PROMPT_DEPTH);
        return 0;
    }
    if (*s == ':' && (len = weight_at(s, n, &from, &to)) > 0) {
        if (!round->n)
            return add_text(p, s, len) ? len : 0;
        if (!sm_prompt_number(s + from, to - from, false, &w)) {
            sm_fail(e, SUMI_E_ARG, "the prompt gives the weight '%.*s', which is no number", (int)SM_MIN(to - from, 40),
                    s + from);
            return 0;
        }
        multiply(p, round->first[--round->n], w);
        return len;
    }
    if (*s == ')' && round->n) {
        multiply(p, round->first[--round->n], 1.1);
        return 1;
    }
    if (*s == ']' && square->n) {
        multiply(p, square->first[--square->n], 1 / 1.1);
        return 1;
    }
    len = strchr(":)]", *s) ? 1 : strcspn(s, "\\()[]:");
    return add_text(p, s, len) ? len : 0;
}

static sumi_status weigh_a1111(const char *text, sm_pieces *p, sm_err *e)
{
    open_brackets round = {.n = 0}, square = {.n = 0};
    size_t n = strlen(text);
    for (size_t at = 0, step; at < n; at += step)
        if (!(step = a1111_step(text + at, n - at, p, &round, &square, e)))
            return sm_fail(e, SUMI_E_MEMORY, "out of memory for a prompt of %zu bytes", n);
    for (int i = 0; i < round.n; i++)
        multiply(p, round.first[i], 1.1);
    for (int i = 0; i < square.n; i++)
        multiply(p, square.first[i], 1 / 1.1);
    merge(p);
    return SUMI_OK;
}

/* ---- ComfyUI ------------------------------------------------------------------------------------------------------------- */

enum { CLOSE = 0xfe, OPEN = 0xff }; /* bytes that UTF-8 never has stand for escaped brackets meanwhile */

/* The number after the last colon, and where that is; 0 where there is none. */
static size_t comfy_weight(const char *s, size_t n, double *w)
{
    size_t colon = n;
    while (colon > 0 && s[colon - 1] != ':')
        colon--;
    if (colon < 2)
        return 0;
    size_t at = colon, end = n;
    for (int len; (len = sm_prompt_space(s + at, end - at)) > 0;)
        at += (size_t)len;
    while (end > at && sm_prompt_space(s + end - 1, 1))
        end--;
    return sm_prompt_number(s + at, end - at, true, w) ? colon - 1 : 0;
}

/* Items are runs outside brackets and whole bracketed runs; an item that begins and ends with brackets is looked into. A bracket
 * that closes nothing still counts, as in the reference. */
static bool comfy(const char *s, size_t n, double weight, int depth, sm_pieces *p, sm_err *e)
{
    int nesting = 0;
    bool ok = true;
    if (depth > SM_PROMPT_DEPTH) {
        sm_fail(e, SUMI_E_ARG, "the prompt has more than %d brackets open at a time", SM_PROMPT_DEPTH);
        return false;
    }
    for (size_t from = 0, i = 0; ok && i <= n; i++) {
        bool opens = i < n && s[i] == '(' && nesting++ == 0, closes = i < n && s[i] == ')' && --nesting == 0;
        size_t end = closes ? i + 1 : i;
        if (!opens && !closes && i < n)
            continue;
        if (end == from && !closes)
            continue;
        const char *item = s + from;
        size_t len = end - from;
        from = end;
        if (len >= 2 && item[0] == '(' && item[len - 1] == ')') {
            double w;
            size_t colon = comfy_weight(item + 1, len - 2, &w);
            ok = comfy(item + 1, colon ? colon : len - 2, colon ? w : weight * 1.1, depth + 1, p, e);
        } else {
            ok = sm_pieces_add(p, item, len, weight);
        }
    }
    return ok;
}

static sumi_status weigh_comfy(const char *text, sm_pieces *p, sm_err *e)
{
    size_t n = strlen(text), w = 0;
    char *s = sm_alloc(p->text.mem, SM_MEM_MISC, n + 1);
    for (size_t i = 0; s && i < n; i++) {
        bool escape = text[i] == '\\' && (text[i + 1] == '(' || text[i + 1] == ')');
        i += escape;
        s[w++] = !escape ? text[i] : text[i] == '(' ? (char)OPEN : (char)CLOSE;
    }
    bool ok = s && comfy(s, w, 1, 0, p, e);
    sm_free(s);
    for (size_t i = 0; ok && i < p->text.len; i++) {
        unsigned char c = (unsigned char)p->text.data[i];
        p->text.data[i] = c == OPEN ? '(' : c == CLOSE ? ')' : (char)c;
    }
    return ok ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "out of memory for a prompt of %zu bytes", n);
}

sumi_status sm_prompt_weigh(const char *text, sm_emphasis m, sm_pieces *out, sm_err *e)
{
    bool ok = true;
    if (m == SM_EMPHASIS_COMFY)
        weigh_comfy(text, out, e);
    else if (m == SM_EMPHASIS_COMPEL)
        sm_prompt_weigh_compel(text, out, e);
    else if (m == SM_EMPHASIS_NONE || m == SM_EMPHASIS_DIFFUSERS)
        ok = sm_pieces_add(out, text, strlen(text), 1);
    else
        weigh_a1111(text, out, e);
    ok = ok && (e->code || out->n || sm_pieces_add(out, "", 0, 1));
    return ok && !out->text.oom ? e->code : sm_fail(e, SUMI_E_MEMORY, "out of memory for a prompt of %zu bytes", strlen(text));
}
