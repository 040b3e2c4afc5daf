/* The scan before cJSON, the search for names that appear twice after it, strings as JSON (see json.h). */
#include "io/json.h"

#include <stdlib.h>
#include <string.h>

/* Walks over the bytes without building anything. Every value but the first follows a comma, a colon or an opening
 * bracket, so counting those bounds the number of values. */
static const char *scan(const char *s, size_t n, int max_depth, size_t max_items)
{
    bool quoted = false;
    int depth = 0;
    size_t items = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c < 0x20 && (quoted || (c != '\n' && c != '\r' && c != '\t')))
            return "has control characters";
        if (quoted && c == '\\') {
            if (n - i > 5 && !memcmp(s + i + 1, "u0000", 5))
                return "has a NUL character in a string";
            i++;
        } else if (c == '"') {
            quoted = !quoted;
        } else if (!quoted && (c == '{' || c == '[')) {
            if (++depth > max_depth)
                return "is nested too deeply";
            items++;
        } else if (!quoted && (c == '}' || c == ']')) {
            depth--;
        } else if (!quoted && (c == ',' || c == ':') && ++items > max_items) {
            return "has too many values";
        }
    }
    return sm_utf8_valid(s, n) ? NULL : "is not UTF-8";
}

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* Objects are checked from the inside out; the scan bounds the recursion. names has room for all names of the text. */
static const char *repeated(const cJSON *v, const char **names)
{
    size_t n = 0;
    for (const cJSON *c = v->child; c; c = c->next) {
        const char *r = c->child ? repeated(c, names) : NULL;
        if (r)
            return r;
    }
    if (!cJSON_IsObject(v))
        return NULL;
    for (const cJSON *c = v->child; c; c = c->next)
        names[n++] = c->string;
    qsort(names, n, sizeof *names, by_name);
    for (size_t i = 1; i < n; i++)
        if (!strcmp(names[i - 1], names[i]))
            return names[i];
    return NULL;
}

static size_t count_colons(const char *s)
{
    size_t n = 1;
    for (; *s; s++)
        n += *s == ':';
    return n;
}

cJSON *sm_json_parse(sm_mem *mem, const char *text, size_t n, int max_depth, size_t max_items, const char *label, sm_err *e)
{
    const char *wrong = scan(text, n, max_depth, max_items);
    if (wrong) {
        sm_fail(e, SUMI_E_FORMAT, "%s: the JSON text %s", label, wrong);
        return NULL;
    }
    char *copy = sm_alloc(mem, SM_MEM_MISC, n + 1); /* with a NUL, and safe from changes of a mapped file */
    if (!copy) {
        sm_fail(e, SUMI_E_MEMORY, "%s: out of memory for a JSON text", label);
        return NULL;
    }
    if (n) /* an empty file's text is NULL */
        memcpy(copy, text, n);
    copy[n] = 0;
    const char *end = NULL;
    cJSON *v = cJSON_ParseWithLengthOpts(copy, n + 1, &end, false);
    if (v)
        end += strspn(end, " \t\r\n");
    if (!v || *end) {
        sm_fail(e, SUMI_E_FORMAT, "%s: the JSON text is not valid near byte %zu", label, end ? (size_t)(end - copy) : 0);
    } else {
        const char **names = sm_alloc(mem, SM_MEM_MISC, count_colons(copy) * sizeof *names);
        const char *twice = names ? repeated(v, names) : NULL;
        if (!names)
            sm_fail(e, SUMI_E_MEMORY, "%s: out of memory for a JSON text", label);
        else if (twice)
            sm_fail(e, SUMI_E_FORMAT, "%s: the name '%.100s' appears twice in one JSON object", label, twice);
        if (names && !twice) {
            sm_free(names);
            sm_free(copy);
            return v;
        }
        sm_free(names);
    }
    cJSON_Delete(v);
    sm_free(copy);
    return NULL;
}

void sm_json_put_text(sm_buf *b, const char *s)
{
    sm_buf_add(b, "\"", 1);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            sm_buf_fmt(b, "\\%c", *s);
        else if ((unsigned char)*s < 0x20)
            sm_buf_fmt(b, "\\u%04x", *s);
        else
            sm_buf_add(b, s, 1);
    }
    sm_buf_add(b, "\"", 1);
}

bool sm_json_index(const cJSON *item, uint64_t *value)
{
    double d = cJSON_IsNumber(item) ? item->valuedouble : -1;
    if (!(d >= 0 && d < 0x1p53) || d != (double)(uint64_t)d)
        return false;
    *value = (uint64_t)d;
    return true;
}
