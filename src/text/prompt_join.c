/* compel's prompts of several texts, ("a", "b").and(1, 0.5) and ("a", "b").blend(0.7, 0.3): the whole prompt is such a list or
 * none of it. Texts stand in quotes (\" is one that is meant), in brackets, or are single words; weights may be left out. */
#include "text/prompt.h"

#include <string.h>

typedef struct scanner {
    const char *s;
    size_t at, n;
} scanner;

static void skip(scanner *x)
{
    while (x->at < x->n && strchr(" \t\n\r\v\f", x->s[x->at]))
        x->at++;
}

/* The word at the scanner, which moves behind it and what blanks follow. */
static bool take(scanner *x, const char *word)
{
    size_t len = strlen(word);
    if (x->n - x->at < len || memcmp(x->s + x->at, word, len))
        return false;
    x->at += len;
    skip(x);
    return true;
}

/* Where the text that begins at x->at ends; 0: nowhere. */
static size_t text_end(const scanner *x)
{
    char first = x->s[x->at];
    size_t i = x->at + 1;
    int depth = 1;
    for (; i < x->n; i++) {
        char c = x->s[i];
        bool escaped = x->s[i - 1] == '\\';
        if (first == '"' && c == '"' && !escaped)
            return i + 1;
        if (first == '"' && c == '\n')
            return 0;
        if (first == '(' && !escaped && !(depth += c == '(' ? 1 : c == ')' ? -1 : 0))
            return i + 1;
        if (first != '"' && first != '(' && strchr(" \t\n\r\v\f,)(\"", c))
            return i;
    }
    return 0;
}

/* NULL: out of memory. Quotes go. */
static char *copy(const char *s, size_t n, sm_arena *room)
{
    bool quoted = *s == '"';
    char *to = sm_arena_get(room, n + 1), *w = to;
    for (size_t i = quoted; to && i < n - quoted; i++)
        if (!quoted || s[i] != '\\' || s[i + 1] != '"' || i + 1 == n - 1)
            *w++ = s[i];
    return to;
}

/* Texts up to the bracket that ends them; their number, 0: this is no list. */
static int texts(scanner *x, size_t from[SM_PROMPT_SIDES], size_t to[SM_PROMPT_SIDES])
{
    int n = 0;
    if (!take(x, "("))
        return 0;
    do {
        if (n == SM_PROMPT_SIDES || x->at == x->n || strchr(",)", x->s[x->at]) || !(to[n] = text_end(x)))
            return 0;
        from[n] = x->at;
        x->at = to[n++];
        skip(x);
    } while (take(x, ","));
    return take(x, ")") ? n : 0;
}

/* Weights up to the closing bracket, behind which nothing may be; how many, -1: they are none. */
static int weights(scanner *x, double w[SM_PROMPT_SIDES], bool *normal)
{
    int n = 0;
    *normal = true;
    while (x->at < x->n && x->s[x->at] != ')') {
        size_t len = strcspn(x->s + x->at, " \t\n\r\v\f,)");
        if (*normal && len == strlen("no_normalize") && !memcmp(x->s + x->at, "no_normalize", len))
            *normal = false;
        else if (!*normal || n == SM_PROMPT_SIDES || !sm_prompt_number(x->s + x->at, len, false, &w[n++]))
            return -1;
        x->at += len;
        skip(x);
        if (!take(x, ",") && x->at < x->n && x->s[x->at] != ')')
            return -1;
    }
    return take(x, ")") && x->at == x->n ? n : -1;
}

static sumi_status fill(const scanner *x, int n, const size_t *from, const size_t *to, double *w, int given, bool normal,
                        sm_arena *room, sm_prompt *out, sm_err *e)
{
    const char *name = out->join == SM_JOIN_BLEND ? "blend" : "and";
    double sum = 0;
    if (given && given != n)
        return sm_fail(e, SUMI_E_ARG, "the prompt's .%s(...) has %d weights for %d texts", name, given, n);
    for (int i = 0; i < n; i++)
        sum += w[i] = given ? w[i] : 1;
    if (out->join == SM_JOIN_BLEND && normal && sum == 0)
        return sm_fail(e, SUMI_E_ARG,
                       "the prompt's .blend(...) has weights that add up to 0; .blend(1, -1, no_normalize) takes them as they are");
    out->part = sm_arena_get(room, sizeof *out->part * (size_t)n);
    for (int i = 0; out->part && i < n; i++) {
        double share = out->join == SM_JOIN_BLEND && normal ? w[i] / sum : w[i];
        out->part[i] = (sm_prompt_part){.text = copy(x->s + from[i], to[i] - from[i], room), .weight = (float)share};
        if (!out->part[i].text)
            return sm_fail(e, SUMI_E_MEMORY, "out of memory for a prompt of %zu bytes", x->n);
    }
    out->parts = n;
    return out->part ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "out of memory for a prompt of %zu bytes", x->n);
}

sumi_status sm_prompt_joined(const char *s, sm_arena *room, sm_prompt *out, sm_err *e)
{
    scanner x = {s, 0, strlen(s)};
    size_t from[SM_PROMPT_SIDES], to[SM_PROMPT_SIDES];
    double w[SM_PROMPT_SIDES];
    bool normal;
    skip(&x);
    int n = texts(&x, from, to);
    sm_join join = !n ? SM_JOIN_NONE : take(&x, ".and") ? SM_JOIN_BEHIND : take(&x, ".blend") ? SM_JOIN_BLEND : SM_JOIN_NONE;
    int given = join && take(&x, "(") ? weights(&x, w, &normal) : -1;
    if (given < 0 || (join == SM_JOIN_BEHIND && !normal))
        return SUMI_OK;
    out->join = join;
    return fill(&x, n, from, to, w, given, normal, room, out, e);
}
