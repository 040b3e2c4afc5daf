/* Drawing the choices in a prompt (see choices.h). One pass pairs up brackets, so that work stays in proportion to the text
 * whatever it holds; only what is drawn is looked into. */
#include "text/choices.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/rng.h"

enum { DEPTH = 16, MOST_DRAWS = 10000, FILE_LIMIT = 16 << 20, MOST_FILES = 1000, NAME_MAX_BYTES = 200 };

typedef struct drawer {
    const char *folder;
    uint64_t seed, stream, index;
    sm_mem *mem;
    sm_buf out;
    sm_err *e;
} drawer;

/* A text and the partner of each of its brackets, 0: none. */
typedef struct paired { const char *s; uint32_t *match; } paired;

typedef struct option { const char *at; size_t n; double weight; } option;
typedef struct options { option *at; size_t n, room; sm_buf text; } options; /* text: of the files they come from */

static void expand(drawer *d, const paired *p, size_t from, size_t to, int depth);

/* ---- brackets -------------------------------------------------------------------------------------------------------- */

/* Pairs {} and [] each by themselves; escaped ones are none. */
static sumi_status pair_up(paired *p, const char *s, size_t n, sm_mem *mem, sm_err *e)
{
    uint32_t top[2] = {0, 0}; /* innermost open bracket + 1; its match holds the next outer one meanwhile */
    p->s = s;
    p->match = sm_alloc0(mem, SM_MEM_MISC, sizeof *p->match * (n + 1));
    if (!p->match)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for a prompt's choices");
    for (uint32_t i = 0; i < n; i++) {
        int square = s[i] == '[' || s[i] == ']';
        if (s[i] == '\\' && i + 1 < n) {
            i++;
        } else if (s[i] == '{' || s[i] == '[') {
            p->match[i] = top[square];
            top[square] = i + 1;
        } else if ((s[i] == '}' || s[i] == ']') && top[square]) {
            uint32_t open = top[square] - 1;
            top[square] = p->match[open];
            p->match[open] = i;
        }
    }
    for (int k = 0; k < 2; k++)
        while (top[k]) { /* never closed */
            uint32_t open = top[k] - 1;
            top[k] = p->match[open];
            p->match[open] = 0;
        }
    return SUMI_OK;
}

/* The next | of this level in [from, to), or `to`. */
static size_t next_bar(const paired *p, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        if (p->s[i] == '|')
            return i;
        if (p->s[i] == '\\')
            i++;
        else if (p->match[i] && p->match[i] < to)
            i = p->match[i];
    }
    return to;
}

/* ---- numbers and separators in front ----------------------------------------------------------------------------------- */

typedef struct amount { int low, high; const char *joint; size_t joint_n; bool given; } amount;

static const char *find_dollars(const char *s, const char *end)
{
    for (; s + 1 < end; s++)
        if (s[0] == '$' && s[1] == '$')
            return s;
    return NULL;
}

/* "2$$", "1-3$$", "2$$ and $$" at from; the place after it. */
static size_t read_amount(const paired *p, size_t from, size_t to, amount *a)
{
    const char *s = p->s + from, *end = p->s + next_bar(p, from, to);
    size_t n = strspn(s, "0123456789");
    *a = (amount){1, 1, ", ", 2, false};
    if (!n || n > 4 || s + n >= end)
        return from;
    int low = atoi(s), high = low;
    s += n;
    if (*s == '-' && (n = strspn(s + 1, "0123456789")) && n <= 4)
        high = atoi(s + 1), s += n + 1;
    if (s + 1 >= end || s[0] != '$' || s[1] != '$' || high < low)
        return from;
    *a = (amount){low, high, ", ", 2, true};
    s += 2;
    const char *second = find_dollars(s, end);
    if (second) {
        a->joint = s;
        a->joint_n = (size_t)(second - s);
        s = second + 2;
    }
    return (size_t)(s - p->s);
}

/* "0.5::" is cut off o. */
static void read_weight(option *o)
{
    size_t n = strspn(o->at, "0123456789."), lead = strspn(o->at, " ");
    if (lead < o->n)
        n = strspn(o->at + lead, "0123456789.");
    o->weight = 1;
    if (lead < o->n && n && n <= 12 && lead + n + 2 <= o->n && o->at[lead + n] == ':' && o->at[lead + n + 1] == ':') {
        o->weight = strtod(o->at + lead, NULL);
        o->at += lead + n + 2;
        o->n -= lead + n + 2;
    }
}

/* ---- options --------------------------------------------------------------------------------------------------------- */

static bool add_option(options *list, const char *at, size_t n, sm_mem *mem)
{
    if (list->n == list->room) {
        size_t room = list->room ? 2 * list->room : 16;
        option *more = sm_realloc(mem, SM_MEM_MISC, list->at, room * sizeof *more);
        if (!more)
            return false;
        list->at = more;
        list->room = room;
    }
    list->at[list->n] = (option){at, n, 1};
    read_weight(&list->at[list->n++]);
    return true;
}

static void free_options(options *list)
{
    sm_free(list->at);
    sm_buf_free(&list->text);
    *list = (options){0};
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Appends the files of the folder that match, in order of their names, to the list's text. */
static void read_matching(drawer *d, const char *folder, const char *pattern, options *list)
{
    char *names[MOST_FILES], path[2048];
    size_t n = 0;
    DIR *dir = opendir(folder);
    const struct dirent *x;
    while (dir && n < MOST_FILES && (x = readdir(dir)))
        if (!fnmatch(pattern, x->d_name, FNM_PERIOD) && (names[n] = strdup(x->d_name)))
            n++;
    if (dir)
        closedir(dir);
    qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++) {
        int k = snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        if (k > 0 && (size_t)k < sizeof path && !d->e->code && !sm_file_read(path, FILE_LIMIT, &list->text, d->e))
            sm_buf_add(&list->text, "\n", 1);
        free(names[i]);
    }
}

static sumi_status bad_wildcard(drawer *d, const char *name, size_t n, const char *why)
{
    return sm_fail(d->e, SUMI_E_ARG, "wildcard __%.*s__: %s", (int)SM_MIN(n, (size_t)80), name, why);
}

/* Lines of the files that __name__ stands for. */
static sumi_status read_wildcard(drawer *d, const char *name, size_t n, options *list)
{
    char path[2048];
    int k = snprintf(path, sizeof path, "%s/%.*s.txt", d->folder, (int)n, name);
    if (k < 0 || (size_t)k >= sizeof path)
        return bad_wildcard(d, name, n, "the name is too long");
    list->text.mem = d->mem;
    char *base = strrchr(path, '/');
    *base = 0;
    read_matching(d, path, base + 1, list);
    *base = '/';
    if (d->e->code)
        return d->e->code;
    const char *s = list->text.data ? list->text.data : "", *end = s + list->text.len;
    if (!sm_utf8_valid(s, list->text.len) || memchr(s, 0, list->text.len))
        return bad_wildcard(d, name, n, "the file is not UTF-8 text");
    while (s < end) {
        const char *nl = memchr(s, '\n', (size_t)(end - s));
        size_t m = (size_t)((nl ? nl : end) - s);
        const char *next = nl ? nl + 1 : end;
        while (m && strchr(" \t\r", *s))
            s++, m--;
        while (m && strchr(" \t\r", s[m - 1]))
            m--;
        if (m && *s != '#' && !add_option(list, s, m, d->mem))
            return sm_fail(d->e, SUMI_E_MEMORY, "out of memory for wildcards");
        s = next;
    }
    return list->n ? SUMI_OK
                   : sm_fail(d->e, SUMI_E_ARG,
                             "wildcard __%.*s__: %s is not there or holds no line; --wildcards names the folder",
                             (int)SM_MIN(n, (size_t)80), name, path);
}

/* Length of the name between __ and __ at s; 0: none there. Names do not leave the folder. */
static size_t wildcard_name(const char *s, size_t n)
{
    size_t i = 2;
    if (n < 5 || s[0] != '_' || s[1] != '_' || s[2] == '_' || s[2] == '/' || s[2] == ' ')
        return 0;
    for (; i + 1 < n && i < NAME_MAX_BYTES; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '_' && s[i + 1] == '_')
            return s[i - 1] == ' ' || s[i - 1] == '/' ? 0 : i - 2;
        bool good = c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || strchr("_-/* ", c);
        if (!good)
            return 0;
    }
    return 0;
}

/* ---- drawing --------------------------------------------------------------------------------------------------------- */

/* Takes an option out of the list by weight; n > 0. */
static option draw(drawer *d, options *list)
{
    double sum = 0, at = sm_rng_u32(d->seed, d->stream, d->index++) * 0x1p-32;
    for (size_t i = 0; i < list->n; i++)
        sum += list->at[i].weight;
    size_t k = sum > 0 ? 0 : (size_t)(at * (double)list->n);
    for (at *= sum; sum > 0 && k + 1 < list->n && at >= list->at[k].weight; k++)
        at -= list->at[k].weight;
    option o = list->at[k];
    memmove(list->at + k, list->at + k + 1, (--list->n - k) * sizeof *list->at);
    return o;
}

static void expand_text(drawer *d, const char *s, size_t n, int depth)
{
    paired p;
    if (!pair_up(&p, s, n, d->mem, d->e))
        expand(d, &p, 0, n, depth);
    sm_free(p.match);
}

/* Draws `low` to `high` of the options into the output. own: they lie in p, else in files. */
static void draw_some(drawer *d, options *list, const amount *a, const paired *p, int depth)
{
    int want = a->low;
    if (depth >= DEPTH || d->index >= MOST_DRAWS) {
        sm_fail(d->e, SUMI_E_ARG, depth >= DEPTH ? "choices are nested more than %d deep; does a wildcard name itself?"
                                                 : "more than %d choices in one prompt",
                depth >= DEPTH ? DEPTH : MOST_DRAWS);
        return;
    }
    if (a->high > a->low)
        want += (int)(sm_rng_u32(d->seed, d->stream, d->index++) * 0x1p-32 * (a->high - a->low + 1));
    for (int i = 0; i < want && list->n && !d->e->code; i++) {
        option o = draw(d, list);
        if (i)
            sm_buf_add(&d->out, a->joint, a->joint_n);
        if (p)
            expand(d, p, (size_t)(o.at - p->s), (size_t)(o.at - p->s) + o.n, depth + 1);
        else
            expand_text(d, o.at, o.n, depth + 1);
    }
}

static void draw_wildcard(drawer *d, const char *name, size_t n, const amount *a, int depth)
{
    options list = {0};
    if (!read_wildcard(d, name, n, &list))
        draw_some(d, &list, a, NULL, depth);
    free_options(&list);
}

/* {...} whose inside is [from, to). */
static void draw_braces(drawer *d, const paired *p, size_t from, size_t to, int depth)
{
    amount a;
    options list = {0};
    from = read_amount(p, from, to, &a);
    size_t name = d->folder[0] ? wildcard_name(p->s + from, to - from) : 0;
    if (a.given && name && name + 4 == to - from) {
        draw_wildcard(d, p->s + from + 2, name, &a, depth);
        return;
    }
    for (size_t at = from, bar; at <= to; at = bar + 1) {
        bar = next_bar(p, at, to);
        if (!add_option(&list, p->s + at, bar - at, d->mem)) {
            sm_fail(d->e, SUMI_E_MEMORY, "out of memory for a prompt's choices");
            break;
        }
    }
    if (!d->e->code)
        draw_some(d, &list, &a, p, depth);
    free_options(&list);
}

/* Whether the brace at i opens a choice. */
static bool is_choice(const paired *p, size_t i, size_t to)
{
    amount a;
    size_t end = p->match[i];
    if (p->s[i] != '{' || !end || end >= to)
        return false;
    read_amount(p, i + 1, end, &a);
    return a.given || next_bar(p, i + 1, end) < end;
}

static bool is_escape(const char *s, size_t n) { return n > 1 && s[0] == '\\' && (s[1] == '{' || s[1] == '}'); }

static void expand(drawer *d, const paired *p, size_t from, size_t to, int depth)
{
    static const amount one = {1, 1, "", 0, false};
    for (size_t i = from; i < to && !d->e->code; i++) {
        size_t name = d->folder[0] ? wildcard_name(p->s + i, to - i) : 0;
        if (is_escape(p->s + i, to - i)) {
            sm_buf_add(&d->out, p->s + ++i, 1);
        } else if (p->s[i] == '\\' && i + 1 < to) {
            sm_buf_add(&d->out, p->s + i++, 2);
        } else if (is_choice(p, i, to)) {
            draw_braces(d, p, i + 1, p->match[i], depth);
            i = p->match[i];
        } else if (name) {
            draw_wildcard(d, p->s + i + 2, name, &one, depth);
            i += name + 3;
        } else {
            sm_buf_add(&d->out, p->s + i, 1);
        }
        if (d->out.len > SUMI_TEXT_MAX)
            sm_fail(d->e, SUMI_E_ARG, "the choices make a prompt of more than %d bytes", SUMI_TEXT_MAX);
    }
}

bool sm_choices_any(const char *text, bool folder)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) /* a matched brace may still turn out to be text */
        if (text[i] == '{' || is_escape(text + i, n - i) || (folder && wildcard_name(text + i, n - i)))
            return true;
    return false;
}

const char *sm_choices_make(const char *text, const char *folder, uint64_t seed, uint64_t stream, sm_arena *a, sm_err *e)
{
    sm_err own = {0};
    drawer d = {.folder = folder, .seed = seed, .stream = stream, .mem = a->mem, .out = {.mem = a->mem}, .e = &own};
    expand_text(&d, text, strlen(text), 0);
    const char *made = own.code || d.out.oom ? NULL : sm_arena_str(a, d.out.data ? d.out.data : "");
    sm_buf_free(&d.out);
    if (!made)
        sm_fail(e, own.code ? own.code : SUMI_E_MEMORY, "%s", own.code ? own.msg : "out of memory for a prompt's choices");
    return made;
}
