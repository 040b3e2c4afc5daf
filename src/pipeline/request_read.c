/* Requests from lines of a file: JSON objects of parameters, or a prompt and then flags, as in A1111's script "Prompts from
 * file". */
#include <stdio.h>
#include <string.h>

#include "io/json.h"
#include "pipeline/params.h"

enum { MAX_TEXTS = 256, LINE_MAX_BYTES = 4 << 20 };

/* Texts of the request, one after the other in a block that has room for all: nothing read is longer than the line. */
typedef struct line_reader {
    sumi_request *r;
    char *block;
    size_t used;
    size_t words; /* bytes of the prompt at the block's beginning, which is put together from several places of the line */
    sm_err *e;
} line_reader;

static char *keep(line_reader *l, const char *text, size_t n)
{
    char *at = l->block + l->used;
    memcpy(at, text, n);
    at[n] = 0;
    l->used += n + 1;
    return at;
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------ */

static sumi_status set_json(line_reader *l, const sumi_param_info *p, const cJSON *v)
{
    char number[40];
    sumi_request d = sumi_request_default();
    if (cJSON_IsNull(v)) { /* the default */
        size_t size = p->type == SUMI_PARAM_TEXT ? sizeof(char *) : p->type == SUMI_PARAM_INT64 ? sizeof(int64_t) : sizeof(int);
        memcpy((char *)l->r + p->offset, (char *)&d + p->offset, size);
        return SUMI_OK;
    }
    if (cJSON_IsString(v) && p->type == SUMI_PARAM_TEXT)
        return sm_param_set(p, l->r, keep(l, v->valuestring, strlen(v->valuestring)), l->e);
    if (cJSON_IsBool(v) && sm_param_switch(p))
        return sm_param_set(p, l->r, cJSON_IsTrue(v) ? "1" : "0", l->e);
    if (!cJSON_IsNumber(v) || p->type == SUMI_PARAM_TEXT)
        return sm_fail(l->e, SUMI_E_ARG, "%s: a %s is wanted", p->name,
                       p->type == SUMI_PARAM_TEXT ? "text" : sm_param_switch(p) ? "number or true or false" : "number");
    snprintf(number, sizeof number, "%.17g", v->valuedouble);
    return sm_param_set(p, l->r, number, l->e);
}

static void read_json(line_reader *l, sm_mem *mem, const char *line, size_t n)
{
    cJSON *root = sm_json_parse(mem, line, n, 4, 1000, "the line", l->e);
    for (const cJSON *v = root ? root->child : NULL; v && !l->e->code; v = v->next) {
        const sumi_param_info *p = sm_param_find(v->string);
        if (!p)
            sm_fail(l->e, SUMI_E_ARG, "unknown parameter '%.80s'", v->string);
        else
            set_json(l, p, v);
    }
    cJSON_Delete(root);
}

/* ---- flags ----------------------------------------------------------------------------------------------------------- */

static bool blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

/* Whether "--name" of a parameter begins at s, which follows a blank or begins the line. */
static const sumi_param_info *flag_at(const char *s, size_t *n, bool *size)
{
    if (s[0] != '-' || s[1] != '-')
        return NULL;
    *n = strcspn(s + 2, " \t\r=");
    bool seed = *n == 11 && (!strncmp(s + 2, "seed-resize", 11) || !strncmp(s + 2, "seed_resize", 11));
    *size = seed || (*n == 4 && !strncmp(s + 2, "size", 4));
    return *size ? sm_param_find(seed ? "seed_resize_width" : "width") : sm_param_find_n(s + 2, *n);
}

/* A flag, or one of Midjourney's suffixes, which are the prompt's. */
static bool dashes_at(const char *s) { return s[0] == '-' && s[1] == '-' && ((s[2] | 32) >= 'a' && (s[2] | 32) <= 'z'); }

/* The value at *s: a word with quotes and backslashes taken out or, for prompts, all words up to the next flag. */
static char *read_value(line_reader *l, const char **s, bool words)
{
    char *out = l->block + l->used, *end = out, quote = 0;
    const char *p = *s;
    for (; *p; p++) {
        if (!quote && blank(*p)) {
            const char *next = p + strspn(p, " \t\r");
            if (!words || !*next || dashes_at(next))
                break;
            *end++ = *p;
        } else if (quote ? *p == quote : (*p == '"' || (*p == '\'' && p == *s))) {
            quote = quote ? 0 : *p;
        } else if (*p == '\\' && quote != '\'' && (p[1] == '"' || p[1] == '\\')) {
            *end++ = *++p;
        } else {
            *end++ = *p;
        }
    }
    if (quote)
        sm_fail(l->e, SUMI_E_ARG, "a quote in '%.40s' is not closed; \\\" is one that is meant", *s);
    *end = 0;
    l->used += (size_t)(end - out) + 1;
    *s = p;
    return out;
}

/* Width is the row p, height the one behind it. */
static sumi_status set_size(line_reader *l, const sumi_param_info *p, char *value)
{
    char *x = strpbrk(value, "xX");
    if (!x)
        return sm_fail(l->e, SUMI_E_ARG, "--%s: '%.40s' is not WIDTHxHEIGHT", strcmp(p->name, "width") ? "seed-resize" : "size",
                       value);
    *x = 0;
    return sm_param_set(p, l->r, value, l->e) ? l->e->code : sm_param_set(p + 1, l->r, x + 1, l->e);
}

/* The first flag at or after s that follows a blank, or the end. */
static const char *first_flag(const char *line)
{
    size_t n;
    bool size;
    for (const char *s = line; *s; s++)
        if ((s == line || blank(s[-1])) && flag_at(s, &n, &size))
            return s;
    return line + strlen(line);
}

static void add_words(line_reader *l, const char *s, size_t n)
{
    while (n && blank(s[n - 1]))
        n--;
    if (!n)
        return;
    if (l->words)
        l->block[l->words++] = ' ';
    memcpy(l->block + l->words, s, n);
    l->words += n;
    l->block[l->words] = 0;
    l->r->prompt = l->block;
}

/* The flag at s and its value; returns what follows. */
static const char *read_flag(line_reader *l, const char *s)
{
    size_t n;
    bool size;
    const sumi_param_info *p = flag_at(s, &n, &size);
    if (!p) {
        sm_fail(l->e, SUMI_E_ARG, "'%.40s' is no parameter's flag", s);
        return s;
    }
    const char *name = s + 2;
    s += 2 + n + strspn(s + 2 + n, " \t\r=");
    if (!*s || dashes_at(s)) {
        if (strcmp(p->name, "tile")) /* Midjourney's has none */
            sm_fail(l->e, SUMI_E_ARG, "--%.*s needs a value", (int)n, name);
        else
            l->r->tile = "both";
        return s;
    }
    char *value = read_value(l, &s, p->type == SUMI_PARAM_TEXT &&
                             (!strcmp(p->name, "prompt") || !strcmp(p->name, "negative_prompt")));
    if (l->e->code)
        return s;
    if (size)
        set_size(l, p, value);
    else
        sm_param_set(p, l->r, value, l->e);
    if (!strcmp(p->name, "prompt")) {
        l->words = 0;
        add_words(l, value, strlen(value));
    }
    return s;
}

/* all: bytes of the line. The prompt is before the first flag and where words begin with dashes that are no flag's. */
static void read_flags(line_reader *l, const char *line, size_t all)
{
    const char *s = first_flag(line);
    size_t n = (size_t)(s - line);
    while (n && blank(line[n - 1]))
        n--;
    bool quoted = *s && n > 1 && line[0] == '"' && memchr(line + 1, '"', n - 1) == line + n - 1; /* as on a command line */
    l->used = all + 1;
    add_words(l, line + quoted, n - 2 * (size_t)quoted);
    while (*s && !l->e->code) {
        if (dashes_at(s) && !flag_at(s, &n, &(bool){0})) {
            const char *end = first_flag(s);
            add_words(l, s, (size_t)(end - s));
            s = end;
        } else
            s = read_flag(l, s);
        s += strspn(s, " \t\r");
    }
}

sumi_status sumi_request_read(sumi_context *ctx, const char *line, sumi_request *r, char **texts)
{
    sm_err *e = sm_begin(ctx);
    size_t n = strlen(line);
    sumi_request own = *r;
    *texts = NULL;
    if (n > LINE_MAX_BYTES)
        return sm_fail(e, SUMI_E_ARG, "a line of %zu bytes; at most %d are taken", n, LINE_MAX_BYTES);
    line += strspn(line, " \t\r");
    n = strlen(line);
    line_reader l = {&own, sm_alloc(&ctx->mem, SM_MEM_DATA, 2 * n + 2), 0, 0, e};
    if (!l.block)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for a request");
    const char *second = line + (*line == '{');
    second += strspn(second, " \t");
    if (*line == '{' && (*second == '"' || *second == '}')) /* else it begins a choice */
        read_json(&l, &ctx->mem, line, n);
    else
        read_flags(&l, line, n);
    if (!e->code && !sm_request_check(&own, e)) {
        *r = own;
        *texts = l.block;
        return SUMI_OK;
    }
    sm_free(l.block);
    return e->code;
}
