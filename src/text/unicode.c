/* Unicode classes, case and NFC from generated tables (see unicode.h). Table look-ups are binary searches; NFC follows
 * UAX #15: full canonical decomposition, stable sort of combining marks, composition; Hangul is arithmetic. */
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

typedef struct uni_run {
    uint32_t first, last;
    uint8_t value;
} uni_run;

/* Every step-th code point of [first, last] has its lower case at the distance diff. */
typedef struct uni_lower {
    uint32_t first, last, step;
    int32_t diff;
} uni_lower;

typedef struct uni_triple {
    uint32_t a, b, c;
} uni_triple;

#include "text/unicode_table.h"

bool sm_cps_add(sm_cps *c, uint32_t cp)
{
    if (c->n == c->cap) {
        size_t cap = c->cap ? c->cap * 2 : 64;
        uint32_t *p = sm_realloc(c->mem, SM_MEM_MISC, c->cp, cap * sizeof *p);
        if (!p)
            return false;
        c->cp = p;
        c->cap = cap;
    }
    c->cp[c->n++] = cp;
    return true;
}

void sm_cps_free(sm_cps *c)
{
    sm_free(c->cp);
    c->cp = NULL;
    c->n = c->cap = 0;
}

static int run_value(const uni_run *r, size_t n, uint32_t cp)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (cp < r[mid].first)
            hi = mid;
        else if (cp > r[mid].last)
            lo = mid + 1;
        else
            return r[mid].value;
    }
    return 0;
}

sm_uni sm_uni_class(uint32_t cp) { return (sm_uni)run_value(class_runs, SM_COUNT(class_runs), cp); }

bool sm_uni_word(uint32_t cp)
{
    sm_uni c = sm_uni_class(cp);
    return (c == SM_UNI_LETTER || c == SM_UNI_NUMBER) && !run_value(newer_runs, SM_COUNT(newer_runs), cp);
}

sm_case sm_uni_case(uint32_t cp) { return (sm_case)run_value(case_runs, SM_COUNT(case_runs), cp); }

bool sm_uni_decimal(uint32_t cp)
{
    size_t k = 0;
    while (k < SM_COUNT(decimal_zeros) && cp >= decimal_zeros[k] + 10)
        k++;
    return k < SM_COUNT(decimal_zeros) && cp >= decimal_zeros[k];
}

static int combining_class(uint32_t cp) { return cp < 0x300 ? 0 : run_value(ccc_runs, SM_COUNT(ccc_runs), cp); }

int sm_uni_lower(uint32_t cp, uint32_t out[2])
{
    out[0] = cp;
    if (cp == 0x130) {
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    size_t lo = 0, hi = SM_COUNT(lower_runs);
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const uni_lower *r = &lower_runs[mid];
        if (cp < r->first) {
            hi = mid;
        } else if (cp > r->last) {
            lo = mid + 1;
        } else {
            if ((cp - r->first) % r->step == 0)
                out[0] = (uint32_t)((int32_t)cp + r->diff);
            break;
        }
    }
    return 1;
}

int sm_utf8_get(const char *s, size_t n, uint32_t *cp)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t *u = (const uint8_t *)s;
    if (!n)
        return 0;
    int len = u[0] < 0x80 ? 1 : u[0] < 0xc2 ? 0 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : u[0] < 0xf5 ? 4 : 0;
    if (!len || (size_t)len > n)
        return 0;
    uint32_t v = len == 1 ? u[0] : u[0] & (0x7fu >> len);
    for (int i = 1; i < len; i++) {
        if ((u[i] & 0xc0) != 0x80)
            return 0;
        v = v << 6 | (u[i] & 0x3f);
    }
    if (v < least[len] || v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
        return 0;
    *cp = v;
    return len;
}

int sm_utf8_put(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    int len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (int i = len - 1; i > 0; i--, cp >>= 6)
        out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)((0xf00u >> len & 0xf0) | cp);
    return len;
}

sumi_status sm_uni_decode(const char *s, size_t n, sm_cps *out, sm_err *e)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = sm_utf8_get(s + i, n - i, &cp);
        if (!len)
            return sm_fail(e, SUMI_E_ARG, "the text is not valid UTF-8: byte 0x%02x at offset %zu", (uint8_t)s[i], i);
        if (!sm_cps_add(out, cp))
            return sm_fail(e, SUMI_E_MEMORY, "out of memory for a text of %zu bytes", n);
        i += (size_t)len;
    }
    return SUMI_OK;
}

/* ---- NFC --------------------------------------------------------------------------------------------------------- */

enum { HAN_S = 0xac00, HAN_L = 0x1100, HAN_V = 0x1161, HAN_T = 0x11a7, HAN_LN = 19, HAN_VN = 21, HAN_TN = 28 };

static const uni_triple *decomposition(uint32_t cp)
{
    size_t lo = 0, hi = SM_COUNT(decompose);
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (decompose[mid].a == cp)
            return &decompose[mid];
        if (decompose[mid].a < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* The code point that a and b compose to, 0 where they do not. */
static uint32_t composition(uint32_t a, uint32_t b)
{
    if (a - HAN_L < HAN_LN && b - HAN_V < HAN_VN)
        return HAN_S + ((a - HAN_L) * HAN_VN + (b - HAN_V)) * HAN_TN;
    if (a - HAN_S < HAN_LN * HAN_VN * HAN_TN && (a - HAN_S) % HAN_TN == 0 && b > HAN_T && b < HAN_T + HAN_TN)
        return a + (b - HAN_T);
    size_t lo = 0, hi = SM_COUNT(compose);
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const uni_triple *t = &compose[mid];
        if (t->a == a && t->b == b)
            return t->c;
        if (t->a < a || (t->a == a && t->b < b))
            lo = mid + 1;
        else
            hi = mid;
    }
    return 0;
}

/* Recursion ends: decompositions are at most three deep, the second part never decomposes further. */
static bool add_decomposed(sm_cps *out, uint32_t cp)
{
    if (cp < 0xc0)
        return sm_cps_add(out, cp);
    if (cp - HAN_S < HAN_LN * HAN_VN * HAN_TN) {
        uint32_t s = cp - HAN_S, t = s % HAN_TN;
        return sm_cps_add(out, HAN_L + s / (HAN_VN * HAN_TN)) && sm_cps_add(out, HAN_V + s / HAN_TN % HAN_VN) &&
               (!t || sm_cps_add(out, HAN_T + t));
    }
    const uni_triple *d = decomposition(cp);
    if (!d)
        return sm_cps_add(out, cp);
    return add_decomposed(out, d->b) && (!d->c || sm_cps_add(out, d->c));
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Sorts n combining marks by class, stably. Real text has two or three; a hostile one may have millions. */
static bool sort_marks(sm_mem *mem, uint32_t *cp, size_t n)
{
    if (n < 2)
        return true;
    uint64_t few[16], *key = n <= SM_COUNT(few) ? few : sm_alloc(mem, SM_MEM_MISC, n * sizeof *key);
    if (!key)
        return false;
    for (size_t i = 0; i < n; i++) /* class, position, code point: 8 + 32 + 21 bits */
        key[i] = (uint64_t)combining_class(cp[i]) << 53 | (uint64_t)i << 21 | cp[i];
    qsort(key, n, sizeof *key, by_value);
    for (size_t i = 0; i < n; i++)
        cp[i] = key[i] & 0x1fffff;
    if (key != few)
        sm_free(key);
    return true;
}

static bool order_marks(sm_cps *c)
{
    for (size_t i = 0; i < c->n;) {
        size_t j = i;
        while (j < c->n && combining_class(c->cp[j]))
            j++;
        if (!sort_marks(c->mem, c->cp + i, j - i))
            return false;
        i = j + 1;
    }
    return true;
}

static void compose_all(sm_cps *c)
{
    size_t out = 0, starter = SIZE_MAX;
    int last = -1; /* class of the last mark kept after the starter; -1: none */
    for (size_t i = 0; i < c->n; i++) {
        uint32_t cp = c->cp[i];
        int ccc = combining_class(cp);
        uint32_t made = starter != SIZE_MAX && last < ccc ? composition(c->cp[starter], cp) : 0;
        if (made) {
            c->cp[starter] = made;
            continue;
        }
        if (!ccc) {
            starter = out;
            last = -1;
        } else {
            last = ccc;
        }
        c->cp[out++] = cp;
    }
    c->n = out;
}

sumi_status sm_uni_nfc(sm_cps *c, sm_err *e)
{
    size_t i = 0;
    while (i < c->n && c->cp[i] < 0x300) /* below U+0300 everything is composed already */
        i++;
    if (i == c->n)
        return SUMI_OK;
    sm_cps d = {c->mem, NULL, 0, 0};
    bool ok = true;
    for (i = 0; ok && i < c->n; i++)
        ok = add_decomposed(&d, c->cp[i]);
    if (!ok || !order_marks(&d)) {
        sm_cps_free(&d);
        return sm_fail(e, SUMI_E_MEMORY, "out of memory while normalising a text");
    }
    compose_all(&d);
    sm_cps_free(c);
    *c = d;
    return SUMI_OK;
}
