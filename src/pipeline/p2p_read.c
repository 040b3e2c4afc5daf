/* What a request says of Prompt-to-Prompt in words (see p2p.h): lists such as "fluffy:2, snow:0.5", whose words must be in
 * the prompts. */
#include "pipeline/p2p.h"

#include <stdlib.h>
#include <string.h>

static bool blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

/* s[0..n) without blanks around it. */
static const char *trim(const char *s, size_t *n)
{
    while (*n && blank(*s))
        s++, --*n;
    while (*n && blank(s[*n - 1]))
        --*n;
    return s;
}

/* "0.8", or "0.2-0.8" as two. */
static int read_values(const char *s, size_t n, double value[2])
{
    char text[64], *end;
    if (!n || n >= sizeof text || !strchr("+-.0123456789", *s))
        return 0;
    memcpy(text, s, n);
    text[n] = 0;
    value[0] = 0;
    value[1] = strtod(text, &end);
    if (end == text || (*end && *end != '-') || !(value[1] > -1e9 && value[1] < 1e9))
        return 0;
    if (!*end)
        return 1;
    const char *second = end + 1;
    value[0] = value[1];
    value[1] = strtod(second, &end);
    return end != second && !*end && *second != '-' && value[1] > -1e9 && value[1] < 1e9 ? 2 : 0;
}

/* The next one; false past the last, or with e set. what: what a value is called in messages; NULL: words alone, colons are
 * theirs. */
static bool next(const char *flag, const char **list, const char *what, sm_p2p_item *out, sm_err *e)
{
    *out = (sm_p2p_item){0};
    *list += strspn(*list, ", \t\r\n");
    size_t n = strcspn(*list, ",");
    const char *s = *list;
    *list += n;
    s = trim(s, &n);
    if (!n)
        return false;
    size_t colon = n;
    while (what && colon > 0 && s[colon - 1] != ':')
        colon--;
    out->words = s;
    out->n = n;
    if (!what)
        return true;
    size_t left = colon ? colon - 1 : 0, right = n - colon;
    const char *value = trim(s + colon, &right);
    out->values = read_values(value, right, out->value);
    out->words = trim(s, &left);
    out->n = left;
    if (!out->values || (colon && !left))
        return sm_fail(e, SUMI_E_ARG, "--%s: '%.*s' is not WORD:%s", flag, (int)SM_MIN(n, 80), s, what), false;
    return true;
}

/* One item of a list of steps as steps of `all`. */
static sumi_status steps_of(const char *flag, const sm_p2p_item *i, int all, sm_p2p_span *out, sm_err *e)
{
    if (i->value[0] < 0 || i->value[1] > 1 || i->value[0] > i->value[1])
        return sm_fail(e, SUMI_E_ARG, "--%s: shares of the steps are from 0 to 1, as 0.8 or 0.2-0.8", flag);
    *out = (sm_p2p_span){(int)(i->value[0] * all), (int)(i->value[1] * all)};
    return SUMI_OK;
}

sumi_status sm_p2p_read_span(const char *flag, const char *list, bool words, int all, sm_p2p_span *out, sm_err *e)
{
    sm_p2p_item i;
    int plain = 0, items = 0;
    *out = (sm_p2p_span){0, all};
    for (; next(flag, &list, "SHARE", &i, e); items++)
        if (!i.n && (steps_of(flag, &i, all, out, e) || plain++))
            return sm_fail(e, SUMI_E_ARG, "--%s: one share of the steps goes for all words, others are WORD:SHARE", flag);
        else if (i.n && !words)
            return sm_fail(e, SUMI_E_ARG, "--%s: names no words, is one share of the steps, as 0.4 or 0.1-0.4", flag);
    return items ? e->code : sm_fail(e, SUMI_E_ARG, "--%s: a share of the steps is missing, as 0.8 or 0.2-0.8", flag);
}

/* ---- words --------------------------------------------------------------------------------------------------------- */

/* Marks of the words in the text; how often they are there. */
static int find(const sm_p2p *p, const sm_align_text *t, const sm_p2p_item *i, bool *marks, sm_err *e)
{
    memset(marks, 0, sizeof *marks * (size_t)p->tokens);
    return sm_align_find(p->j->m->bpe, t, i->words, i->n, marks, p->j->mem, e);
}

static sumi_status missing(const char *flag, const sm_p2p_item *i, const char *where, sm_err *e)
{
    return sm_fail(e, SUMI_E_ARG, "--%s: '%.*s' is not in %s", flag, (int)SM_MIN(i->n, 80), i->words, where);
}

static sumi_status no_words(const char *flag, sm_err *e) { return sm_fail(e, SUMI_E_ARG, "--%s: names no words", flag); }

static sumi_status read_factors(const sm_p2p *p, sm_p2p_pair *q, const sm_align_text *edited, bool *marks, sm_err *e)
{
    static const char flag[] = "p2p-reweight";
    const char *list = p->j->r.p2p_reweight;
    sm_p2p_item i;
    int items = 0;
    for (; next(flag, &list, "FACTOR", &i, e); items++) {
        if (!i.n || i.values != 1)
            return sm_fail(e, SUMI_E_ARG, "--%s: '%.80s' is not WORD:FACTOR", flag, p->j->r.p2p_reweight);
        int found = find(p, edited, &i, marks, e);
        if (found <= 0)
            return e->code ? e->code : missing(flag, &i, "the prompt", e);
        for (int k = 0; k < p->tokens; k++)
            q->factor[k] = marks[k] ? (float)i.value[1] : q->factor[k];
    }
    return items || !p->j->r.p2p_reweight[0] ? e->code : no_words(flag, e);
}

static sumi_status read_cross(const sm_p2p *p, sm_p2p_pair *q, const sm_align_text *edited, bool *marks, sm_err *e)
{
    static const char flag[] = "p2p-cross-steps";
    const char *list = p->j->r.p2p_cross_steps;
    sm_p2p_item i;
    sm_p2p_span all, own;
    if (sm_p2p_read_span(flag, list, true, p->steps + 1, &all, e)) /* one more than there are, as in the reference */
        return e->code;
    for (int k = 0; k < p->tokens; k++)
        q->cross[k] = all;
    while (next(flag, &list, "SHARE", &i, e)) {
        int found = i.n ? find(p, edited, &i, marks, e) : 0;
        if (!i.n)
            continue;
        if (found <= 0)
            return e->code ? e->code : missing(flag, &i, "the prompt", e);
        if (steps_of(flag, &i, p->steps + 1, &own, e))
            return e->code;
        for (int k = 0; k < p->tokens; k++)
            q->cross[k] = marks[k] ? own : q->cross[k];
    }
    return e->code;
}

/* Words of one set, each in the texts that have it. */
static sumi_status read_blend(const sm_p2p *p, sm_p2p_pair *q, const sm_align_text *text, const char *flag, const char *list,
                              int set, bool *marks, sm_err *e)
{
    sm_p2p_item i;
    bool given = list[0];
    int items = 0;
    for (; next(flag, &list, NULL, &i, e); items++) {
        int all = 0;
        for (int side = 0; side < 2; side++) {
            int found = find(p, &text[side], &i, marks, e);
            if (found < 0)
                return e->code;
            all += found;
            for (int k = 0; k < p->tokens; k++)
                if (marks[k])
                    q->words[side][k * SM_P2P_WORDS + set] = 1;
        }
        if (!all)
            return missing(flag, &i, "either prompt", e);
    }
    return items || !given ? e->code : no_words(flag, e);
}

sumi_status sm_p2p_read(sm_p2p *p, sm_p2p_pair *q, const sm_align_text *text, sm_err *e)
{
    bool *marks = sm_arena_get(&p->mem, sizeof *marks * (size_t)p->tokens);
    if (!marks)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for the words of a prompt");
    for (int k = 0; k < p->tokens; k++)
        q->factor[k] = 1;
    if (read_factors(p, q, &text[0], marks, e) || read_cross(p, q, &text[0], marks, e) ||
        read_blend(p, q, text, "p2p-blend", p->j->r.p2p_blend, 0, marks, e) || !p->subtracts)
        return e->code;
    return read_blend(p, q, text, "p2p-blend-subtract", p->j->r.p2p_blend_subtract, 1, marks, e);
}
