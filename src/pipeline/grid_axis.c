/* Axes of grids: reading "NAME=VALUES" and changing requests by them. Ranges, "Prompt S/R" and "Prompt order" mean what they mean
 * in AUTOMATIC1111's script "X/Y/Z plot" (scripts/xyz_grid.py), whose ranges of numbers with points end where numpy.arange
 * does. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "pipeline/grid.h"

enum { MOST_WORDS = 6 }; /* of which there are 720 orders */

/* ---- values between commas --------------------------------------------------------------------------------------------- */

/* The value at *s, blanks around it and quotes taken away ("" in quotes is one); *s moves behind its comma, *more: there was
 * one. */
static char *next_value(const char **s, bool *more, sm_arena *a)
{
    const char *p = *s + strspn(*s, " \t\n");
    char *out = sm_arena_get(a, strlen(p) + 1), *end = out;
    if (!out)
        return NULL;
    if (*p == '"') {
        for (p++; *p && (*p != '"' || p[1] == '"'); p++) {
            *end++ = *p;
            p += *p == '"';
        }
        p += *p == '"';
    }
    while (*p && *p != ',')
        *end++ = *p++;
    while (end > out && strchr(" \t\n", end[-1]))
        end--;
    *end = 0;
    *more = *p == ',';
    *s = p + *more;
    return out;
}

static sumi_status add_value(sm_axis *x, const char *text, sm_err *e)
{
    if (!text)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for an axis");
    if (x->n == SM_GRID_VALUES)
        return sm_fail(e, SUMI_E_ARG, "the axis %s has more than %d values", x->name, SM_GRID_VALUES);
    x->value[x->n++] = text;
    return SUMI_OK;
}

/* ---- ranges ---------------------------------------------------------------------------------------------------------- */

/* A number at *s: a sign, blanks, digits and, unless whole, a point and digits. */
static bool number(const char **s, bool whole, double *v)
{
    const char *p = *s + strspn(*s, " ");
    int sign = *p == '-' ? -1 : 1;
    p += *p == '-' || *p == '+';
    p += strspn(p, " ");
    size_t n = strspn(p, "0123456789");
    if (!n || n > 15)
        return false;
    if (!whole && p[n] == '.')
        n += 1 + strspn(p + n + 1, "0123456789");
    *v = sign * strtod(p, NULL);
    *s = p + n;
    return true;
}

typedef struct range { double from, to, step; int count; } range; /* count > 0: so many, else by steps */

/* "1-5", "1-10 (+2)", "1-10 [5]"; false for anything else. */
static bool read_range(const char *s, bool whole, range *r)
{
    double n;
    *r = (range){.step = 1};
    if (!number(&s, whole, &r->from))
        return false;
    s += strspn(s, " ");
    if (*s++ != '-' || !number(&s, whole, &r->to))
        return false;
    s += strspn(s, " ");
    if (*s == '(') {
        s++;
        if ((*s != '+' && *s != '-') || !number(&s, whole, &r->step) || *s != ')' || r->step == 0)
            return false;
        s++;
    } else if (*s == '[') {
        s++;
        if (!number(&s, true, &n) || n < 1 || n > SM_GRID_VALUES)
            return false;
        r->count = (int)n;
        s += strspn(s, " ");
        if (*s++ != ']')
            return false;
    }
    return !s[strspn(s, " ")];
}

static sumi_status add_range(sm_axis *x, const range *r, bool whole, sm_arena *a, sm_err *e)
{
    double stop = whole ? r->to + 1 : r->to + r->step, n = r->count ? r->count : ceil((stop - r->from) / r->step);
    if (n > SM_GRID_VALUES)
        return sm_fail(e, SUMI_E_ARG, "the axis %s has more than %d values", x->name, SM_GRID_VALUES);
    for (int i = 0; i < n; i++) {
        double v = r->from + i * r->step;
        if (r->count)
            v = r->from + (r->count > 1 ? i * ((r->to - r->from) / (r->count - 1)) : 0);
        if (add_value(x, sm_arena_fmt(a, whole ? "%.0f" : "%.8g", whole ? trunc(v) : v), e))
            return e->code;
    }
    return SUMI_OK;
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

static sumi_status read_values(sm_axis *x, const char *s, sm_arena *a, sm_err *e)
{
    bool more = true, whole = x->p && x->p->type != SUMI_PARAM_FLOAT;
    range r;
    while (more && !e->code) {
        char *v = next_value(&s, &more, a);
        if (v && x->p && x->p->type != SUMI_PARAM_TEXT && read_range(v, whole, &r))
            add_range(x, &r, whole, a, e);
        else if (!v || *v || (x->p && x->p->type == SUMI_PARAM_TEXT) || x->kind == SM_AXIS_REPLACE)
            add_value(x, v, e);
    }
    return e->code;
}

static sumi_status check_values(const sm_axis *x, sm_err *e)
{
    for (int i = 0; i < x->n && x->kind == SM_AXIS_PARAM; i++) {
        sumi_request r = sumi_request_default();
        if (sm_param_set(x->p, &r, x->value[i], e) || sm_request_check(&r, e))
            return e->code;
    }
    return SUMI_OK;
}

static sumi_status find_name(sm_axis *x, const char *text, size_t n, sm_err *e)
{
    static const struct { const char *name; sm_axis_kind kind; } words[] = {
        {"Prompt S/R", SM_AXIS_REPLACE}, {"S/R", SM_AXIS_REPLACE}, {"prompt-sr", SM_AXIS_REPLACE}, {"sr", SM_AXIS_REPLACE},
        {"Prompt order", SM_AXIS_ORDER}, {"prompt-order", SM_AXIS_ORDER}, {"order", SM_AXIS_ORDER}};
    static const char *const unfit[] = {"count", "save_latents", "save_inverted", "save_steps"};
    for (size_t i = 0; i < SM_COUNT(words); i++)
        if (strlen(words[i].name) == n && !strncasecmp(words[i].name, text, n)) {
            x->kind = words[i].kind;
            x->name = x->kind == SM_AXIS_REPLACE ? "Prompt S/R" : "Prompt order";
            return SUMI_OK;
        }
    x->kind = SM_AXIS_PARAM;
    x->p = sm_param_find_n(text, n);
    if (!x->p)
        return sm_fail(e, SUMI_E_ARG, "axis: unknown parameter '%.*s'; a parameter's name, Prompt S/R or Prompt order",
                       (int)SM_MIN(n, (size_t)60), text);
    for (size_t i = 0; i < SM_COUNT(unfit); i++)
        if (!strcmp(x->p->name, unfit[i]))
            return sm_fail(e, SUMI_E_ARG, "axis: %s cannot be one", x->p->name);
    size_t m = strlen(x->p->a1111);
    bool half = m > 2 && x->p->a1111[m - 2] == '-'; /* "Size-1" is no name for people */
    x->name = m && !half ? x->p->a1111 : x->p->flag;
    return SUMI_OK;
}

sumi_status sm_axis_read(sm_axis *x, const char *text, sm_arena *a, sm_err *e)
{
    *x = (sm_axis){.n = 1};
    if (!text)
        return SUMI_OK;
    size_t n = strcspn(text, "=");
    if (!text[n])
        return sm_fail(e, SUMI_E_ARG, "axis: '%.60s' is not NAME=VALUES, such as steps=10,20,30", text);
    if (!sm_utf8_valid(text, strlen(text)))
        return sm_fail(e, SUMI_E_ARG, "axis: not valid UTF-8");
    x->n = 0;
    x->value = sm_arena_get(a, SM_GRID_VALUES * sizeof *x->value);
    if (!x->value)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for an axis");
    while (n && text[n - 1] == ' ')
        n--;
    if (find_name(x, text, n, e) || read_values(x, strchr(text, '=') + 1, a, e) || check_values(x, e))
        return e->code;
    if (!x->n || (x->kind != SM_AXIS_PARAM && x->n < 2) || (x->kind == SM_AXIS_REPLACE && !x->value[0][0]))
        return sm_fail(e, SUMI_E_ARG, "the axis %s has no values", x->name);
    if (x->kind == SM_AXIS_ORDER) {
        if (x->n > MOST_WORDS)
            return sm_fail(e, SUMI_E_ARG, "Prompt order: %d words, at most %d", x->n, MOST_WORDS);
        x->words = x->n;
        for (int k = x->n - 1; k > 1; k--)
            x->n *= k;
    }
    return SUMI_OK;
}

/* ---- applying -------------------------------------------------------------------------------------------------------- */

/* Every occurrence of `from` becomes `to`. */
static const char *replace(const char *text, const char *from, const char *to, sm_arena *a)
{
    sm_buf b = {.mem = a->mem};
    for (const char *at; (at = strstr(text, from)); text = at + strlen(from)) {
        sm_buf_add(&b, text, (size_t)(at - text));
        sm_buf_fmt(&b, "%s", to);
    }
    sm_buf_fmt(&b, "%s", text);
    const char *made = b.oom ? NULL : sm_arena_str(a, b.data);
    sm_buf_free(&b);
    return made;
}

static sumi_status apply_replace(const sm_axis *x, int i, sumi_request *r, sm_arena *a, sm_err *e)
{
    const char *from = x->value[0];
    if (!strstr(r->prompt, from) && !strstr(r->negative_prompt, from))
        return sm_fail(e, SUMI_E_ARG, "Prompt S/R: '%.60s' is in neither prompt", from);
    r->prompt = replace(r->prompt, from, x->value[i], a);
    r->negative_prompt = replace(r->negative_prompt, from, x->value[i], a);
    return r->prompt && r->negative_prompt ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "out of memory for a prompt");
}

/* The i-th order of the words, in the order of itertools.permutations. */
static void order(const sm_axis *x, int i, const char *out[MOST_WORDS])
{
    const char *left[MOST_WORDS];
    int n = x->words, ways = x->n;
    memcpy(left, x->value, (size_t)n * sizeof *left);
    for (int k = 0; k < n; k++) {
        ways /= n - k;
        int pick = i / ways;
        i %= ways;
        out[k] = left[pick];
        memmove(left + pick, left + pick + 1, (size_t)(n - k - 1 - pick) * sizeof *left);
    }
}

/* The places in the prompt where the words stand get them in the new order; the text between stays. */
static sumi_status apply_order(const sm_axis *x, int i, sumi_request *r, sm_arena *a, sm_err *e)
{
    const char *words[MOST_WORDS], *at[MOST_WORDS], *was[MOST_WORDS];
    sm_buf b = {.mem = a->mem};
    order(x, i, words);
    for (int k = 0; k < x->words; k++) { /* insertion by place */
        const char *found = strstr(r->prompt, x->value[k]);
        int m = k;
        if (!found)
            return sm_fail(e, SUMI_E_ARG, "Prompt order: '%.60s' is not in the prompt", x->value[k]);
        for (; m && at[m - 1] > found; m--) {
            at[m] = at[m - 1];
            was[m] = was[m - 1];
        }
        at[m] = found;
        was[m] = x->value[k];
    }
    const char *s = r->prompt;
    for (int k = 0; k < x->words; k++) {
        if (at[k] < s) {
            sm_buf_free(&b);
            return sm_fail(e, SUMI_E_ARG, "Prompt order: '%.60s' and another word overlap in the prompt", was[k]);
        }
        sm_buf_add(&b, s, (size_t)(at[k] - s));
        sm_buf_fmt(&b, "%s", words[k]);
        s = at[k] + strlen(was[k]);
    }
    sm_buf_fmt(&b, "%s", s);
    r->prompt = b.oom ? NULL : sm_arena_str(a, b.data);
    sm_buf_free(&b);
    return r->prompt ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "out of memory for a prompt");
}

sumi_status sm_axis_apply(const sm_axis *x, int i, sumi_request *r, sm_arena *a, sm_err *e)
{
    switch (x->kind) {
    case SM_AXIS_PARAM: return sm_param_set(x->p, r, x->value[i], e);
    case SM_AXIS_REPLACE: return apply_replace(x, i, r, a, e);
    case SM_AXIS_ORDER: return apply_order(x, i, r, a, e);
    default: return SUMI_OK;
    }
}

const char *sm_axis_title(const sm_axis *x, int i, sm_arena *a)
{
    const char *words[MOST_WORDS];
    sm_choice c;
    switch (x->kind) {
    case SM_AXIS_PARAM:
        return sm_arena_fmt(a, "%s: %s", x->name, sm_choice_find(x->p, x->value[i], &c) ? c.a1111 : x->value[i]);
    case SM_AXIS_REPLACE: return x->value[i][0] ? x->value[i] : "(nothing)";
    case SM_AXIS_ORDER: break;
    default: return "";
    }
    order(x, i, words);
    sm_buf b = {.mem = a->mem};
    for (int k = 0; k < x->words; k++)
        sm_buf_fmt(&b, "%s%s", k ? ", " : "", words[k]);
    const char *made = b.oom ? NULL : sm_arena_str(a, b.data);
    sm_buf_free(&b);
    return made;
}
