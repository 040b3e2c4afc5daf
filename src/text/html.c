/* Character references in texts: Python's html.unescape, which follows the HTML standard ("named" and "numeric character
 * reference end state"), and ftfy's cautious form. The names are html_table.h, made by tools/make_clean.py. */
#include "text/clean.h"

#include <string.h>

enum { REF_STANDARD = 1, REF_BARE = 2 }; /* "name;" and "name" alone are HTML5's */

typedef struct html_ref {
    char name[32];
    uint8_t flags;
    uint32_t cp[3]; /* 0: none */
} html_ref;

#include "text/html_table.h"

#define NAME_MAX 32

/* The row of the first n bytes of name that has a flag of want, NULL where there is none. */
static const html_ref *find_ref(const char *name, size_t n, int want)
{
    size_t lo = 0, hi = SM_COUNT(html_refs);
    while (n < sizeof html_refs->name && lo < hi) {
        size_t mid = (lo + hi) / 2;
        int order = strncmp(html_refs[mid].name, name, n);
        if (!order)
            order = html_refs[mid].name[n] != 0;
        if (!order)
            return !want || html_refs[mid].flags & want ? &html_refs[mid] : NULL;
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static bool add_ref(sm_cps *out, const html_ref *r)
{
    bool ok = true;
    for (int i = 0; ok && i < 3 && r->cp[i]; i++)
        ok = sm_cps_add(out, r->cp[i]);
    return ok;
}

static int digit_of(uint32_t cp, int base)
{
    if (cp >= '0' && cp <= '9')
        return (int)cp - '0';
    cp |= 32;
    return base == 16 && cp >= 'a' && cp <= 'f' ? (int)cp - 'a' + 10 : -1;
}

/* Reads "#65" or "#x41" at s[0..n); returns its length without a semicolon, 0 where there is none. */
static size_t number_at(const uint32_t *s, size_t n, uint32_t *value)
{
    int base = n > 1 && (s[1] | 32) == 'x' ? 16 : 10;
    size_t first = base == 16 ? 2 : 1, i = first;
    uint32_t v = 0;
    if (!n || s[0] != '#')
        return 0;
    for (; i < n && digit_of(s[i], base) >= 0; i++)
        v = SM_MIN(v * (uint32_t)base + (uint32_t)digit_of(s[i], base), 0x110000u);
    *value = v;
    return i > first ? i : 0;
}

/* What a number stands for; -1: nothing at all. */
static int64_t number_char(uint32_t v)
{
    if (v >= 0x80 && v < 0xa0)
        return sm_windows_1252((uint8_t)v);
    if (!v || (v >= 0xd800 && v < 0xe000) || v > 0x10ffff)
        return 0xfffd;
    bool control = v < 9 || v == 0xb || (v >= 0xe && v < 0x20) || v == 0x7f;
    bool no_character = (v >= 0xfdd0 && v < 0xfdf0) || (v & 0xfffe) == 0xfffe;
    return control || no_character ? -1 : (int64_t)v;
}

static bool add_number(sm_cps *out, uint32_t v)
{
    int64_t c = number_char(v);
    return c < 0 || sm_cps_add(out, (uint32_t)c);
}

/* The run of characters behind an ampersand that may be a name, as bytes; what is not ASCII matches nothing. */
static size_t name_at(const uint32_t *s, size_t n, char name[NAME_MAX])
{
    size_t i = 0;
    for (; i < n && i < NAME_MAX && (s[i] > 127 || !s[i] || !strchr("\t\n\f <&#;", (int)s[i])); i++)
        name[i] = s[i] > 127 || !s[i] ? '\x7f' : (char)s[i];
    return i;
}

/* Replaces the reference whose ampersand stands before s[0..n); *used: code points read of s, 0 when it is none. */
static bool replace(const uint32_t *s, size_t n, sm_cps *out, size_t *used)
{
    char name[NAME_MAX];
    uint32_t v;
    size_t len = number_at(s, n, &v);
    if (len) {
        *used = len + (len < n && s[len] == ';');
        return add_number(out, v);
    }
    len = name_at(s, n, name);
    bool whole = len < n && s[len] == ';';
    const html_ref *r = find_ref(name, len, whole ? REF_STANDARD : REF_BARE);
    *used = r ? len + whole : 0;
    for (size_t k = len; !r && k >= 2; k--) {
        r = find_ref(name, k, REF_BARE);
        *used = r ? k : 0;
    }
    return !r || add_ref(out, r);
}

/* The same for what ends in a semicolon, of at most 24 letters and digits. */
static bool replace_whole(const uint32_t *s, size_t n, sm_cps *out, size_t *used)
{
    char name[NAME_MAX];
    uint32_t v;
    size_t hash = n && s[0] == '#', len = 0;
    *used = 0;
    for (; hash + len < n && len < 25; len++) {
        uint32_t c = s[hash + len];
        if (!((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z')))
            break;
        name[len] = (char)c;
    }
    if (!len || len > 24 || hash + len >= n || s[hash + len] != ';')
        return true;
    if (hash) {
        if (number_at(s, n, &v) != len + 1 || v == ';') /* a semicolon in the result looks like a half-read reference */
            return true;
        *used = len + 2;
        return add_number(out, v);
    }
    const html_ref *r = find_ref(name, len, 0);
    *used = r ? len + 1 : 0;
    return !r || add_ref(out, r);
}

static bool unescape(sm_cps *c, bool (*fn)(const uint32_t *, size_t, sm_cps *, size_t *))
{
    size_t i = 0;
    while (i < c->n && c->cp[i] != '&')
        i++;
    if (i == c->n)
        return true;
    sm_cps out = {c->mem, NULL, 0, 0};
    bool ok = true;
    for (i = 0; ok && i < c->n; i++) {
        size_t used = 0;
        if (c->cp[i] == '&')
            ok = fn(c->cp + i + 1, c->n - i - 1, &out, &used);
        if (used)
            i += used;
        else
            ok = ok && sm_cps_add(&out, c->cp[i]);
    }
    sm_cps_free(c);
    *c = out;
    return ok;
}

bool sm_html_unescape(sm_cps *c) { return unescape(c, replace); }

bool sm_html_unescape_whole(sm_cps *c) { return unescape(c, replace_whole); }
