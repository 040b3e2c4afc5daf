/* Undoes wrong decodings: UTF-8 that was read as a single-byte encoding, perhaps several times over ("Ã©" for "é"). The
 * method and the facts in mojibake_table.h are ftfy's (Robyn Speer, ftfy 6.3.1; tools/make_clean.py makes the table): where
 * the text holds a sequence that real text hardly has, it is encoded in each of ten encodings and read as UTF-8; the first
 * that works wins. Where none does, the parts that look like UTF-8 are treated so on their own. */
#include "text/clean.h"

#include <string.h>

typedef struct known_char {
    uint16_t cp;
    uint8_t kind;
    uint8_t byte[9]; /* 0: not in that encoding */
} known_char;

typedef struct bad_sequence {
    uint8_t start, n, set[7];
} bad_sequence;

#include "text/mojibake_table.h"

_Static_assert(BYTE_ENCODINGS == 9 && KINDS <= 127, "known_char and window below");

enum { LATIN_1, SLOPPY_FIRST, SLOPPY_LAST = 6, MACROMAN = 8, ENCODINGS = 10 }; /* in the order they are tried */
enum { NO_CHAR = 127, WINDOW = 7, DEPTH = 24 };

typedef enum outcome { SAME, CHANGED, NO_MEMORY } outcome;

uint32_t sm_windows_1252(uint8_t byte) { return byte >= 0x80 && byte < 0xa0 ? windows_1252[byte - 0x80] : byte; }

/* ---- characters -------------------------------------------------------------------------------------------------- */

static const known_char *known(uint32_t cp)
{
    size_t lo = 0, hi = cp < 0x80 ? 0 : SM_COUNT(known_chars);
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (known_chars[mid].cp == cp)
            return &known_chars[mid];
        if (known_chars[mid].cp < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static int kind_of(uint32_t cp)
{
    if (cp < 0x80)
        return ascii_kind[cp];
    const known_char *k = known(cp);
    if (k)
        return k->kind;
    return sm_uni_word(cp) ? KIND_WORD : sm_uni_class(cp) == SM_UNI_SPACE ? KIND_SPACE : KIND_OTHER;
}

static bool in_set(int set, int kind) { return sets[set][kind >> 6] >> (kind & 63) & 1; }

static bool sequence_at(const bad_sequence *s, const uint8_t *kind)
{
    for (int i = 0; i < s->n; i++)
        if (!in_set(s->set[i], kind[i]))
            return false;
    return true;
}

static bool looks_bad(const uint32_t *cp, size_t n)
{
    uint8_t kind[WINDOW];
    for (size_t i = 0; i < WINDOW; i++)
        kind[i] = i < n ? (uint8_t)kind_of(cp[i]) : NO_CHAR;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < SM_COUNT(bad_sequences); k++)
            if ((!bad_sequences[k].start || !i) && sequence_at(&bad_sequences[k], kind))
                return true;
        memmove(kind, kind + 1, WINDOW - 1);
        kind[WINDOW - 1] = i + WINDOW < n ? (uint8_t)kind_of(cp[i + WINDOW]) : NO_CHAR;
    }
    return false;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

/* The byte of cp in an encoding, -1 where it has none. 0x1a, the byte that means "lost", stands for U+FFFD in the sloppy ones. */
static int byte_in(uint32_t cp, int encoding)
{
    if (cp < 0x80)
        return cp == 0x1a && encoding >= SLOPPY_FIRST && encoding <= SLOPPY_LAST ? -1 : (int)cp;
    if (encoding == LATIN_1)
        return cp < 0x100 ? (int)cp : -1;
    const known_char *k = known(cp);
    return k && k->byte[encoding - 1] ? k->byte[encoding - 1] : -1;
}

/* false when a character has no byte in the encoding, or when memory is out (out->oom). */
static bool encode(const sm_cps *c, int encoding, sm_buf *out)
{
    out->len = 0;
    for (size_t i = 0; i < c->n && !out->oom; i++) {
        int b = byte_in(c->cp[i], encoding);
        char byte = (char)b;
        if (b < 0)
            return false;
        sm_buf_add(out, &byte, 1);
    }
    return !out->oom;
}

static bool between(uint8_t b, int lo, int hi) { return b >= lo && b <= hi; }
static bool continues(uint8_t b) { return (b & 0xc0) == 0x80; }
static bool continues_or_lost(uint8_t b) { return continues(b) || b == 0x1a; }
static bool lost(uint8_t b) { return b == 0x1a || b == '?'; }

/* Length of a UTF-8 sequence at s[0..n) that lacks nothing but one byte 0xa0 turned into a space; 0 where there is none. The
 * first bytes are those whose characters are likely enough. */
static size_t spaced_sequence(const uint8_t *s, size_t n)
{
    if (n < 2 || s[0] < 0xc2)
        return 0;
    if (s[1] == ' ' && strchr("\xc2\xc3\xc5\xce\xd0\xd9", s[0]))
        return 2;
    if (n < 3)
        return 0;
    bool second = continues(s[1]) && s[1] != 0x85 && s[1] != 0xa0, third = continues(s[2]) && s[2] != 0x85 && s[2] != 0xa0;
    if (((s[0] == 0xe2 || s[0] == 0xe3) && s[1] == ' ' && third) || (between(s[0], 0xe0, 0xe3) && second && s[2] == ' '))
        return 3;
    if (n < 4 || s[0] != 0xf0)
        return 0;
    int spaces = 0, others = 0;
    for (int i = 1; i < 4; i++) {
        spaces += s[i] == ' ';
        others += continues(s[i]);
    }
    return spaces == 1 && others == 2 ? 4 : 0;
}

/* "à" before a space lost its second byte: the space stays a space, except in Portuguese words that begin with it. */
static bool lone_a_grave(const uint8_t *s, size_t n)
{
    static const char *const not_before[] = {" ", "quele", "quela", "quilo", "s "};
    if (n < 2 || s[0] != 0xc3 || s[1] != ' ')
        return false;
    for (size_t i = 0; i < SM_COUNT(not_before); i++)
        if (n - 2 >= strlen(not_before[i]) && !memcmp(s + 2, not_before[i], strlen(not_before[i])))
            return false;
    return true;
}

static void restore_spaces(const sm_buf *in, sm_buf *out)
{
    const uint8_t *s = (const uint8_t *)in->data;
    out->len = 0;
    for (size_t i = 0; i < in->len; i++) {
        sm_buf_add(out, s + i, 1);
        if (lone_a_grave(s + i, in->len - i))
            sm_buf_add(out, "\xa0", 1);
    }
    uint8_t *t = (uint8_t *)out->data;
    for (size_t i = 0; !out->oom && i < out->len;) {
        size_t len = spaced_sequence(t + i, out->len - i);
        for (size_t k = 1; k < len; k++)
            if (t[i + k] == ' ')
                t[i + k] = 0xa0;
        i += SM_MAX(len, 1u);
    }
}

/* A pair of surrogates, each as three bytes, of which the lower bits of one may be lost. */
static bool lossy_pair(const uint8_t *s, size_t n)
{
    if (n < 6 || s[0] != 0xed || !between(s[1], 0xa0, 0xaf) || s[3] != 0xed || !between(s[4], 0xb0, 0xbf))
        return false;
    bool a = lost(s[2]), b = lost(s[5]);
    return (a && (b || continues(s[5]))) || (b && continues(s[2]));
}

/* Length of a UTF-8 sequence at s[0..n) that lost bytes: 0x1a for any of them, or '?' for one. 0 where there is none. */
static size_t lossy_sequence(const uint8_t *s, size_t n)
{
    if (n >= 2 && ((between(s[0], 0xc2, 0xdf) && s[1] == 0x1a) || (between(s[0], 0xc2, 0xc3) && s[1] == '?')))
        return 2;
    if (lossy_pair(s, n))
        return 6;
    size_t len = between(s[0], 0xe0, 0xef) ? 3 : between(s[0], 0xf0, 0xf4) ? 4 : 0;
    if (len && n >= len) {
        int fit = 0, gone = 0, asked = 0;
        for (size_t i = 1; i < len; i++) {
            fit += continues_or_lost(s[i]) || s[i] == '?';
            gone += lost(s[i]);
            asked += s[i] == '?';
        }
        if (fit == (int)len - 1 && gone && asked <= 1)
            return len;
    }
    return s[0] == 0x1a;
}

static void replace_lossy(const sm_buf *in, sm_buf *out)
{
    out->len = 0;
    for (size_t i = 0; i < in->len;) {
        size_t len = lossy_sequence((const uint8_t *)in->data + i, in->len - i);
        sm_buf_add(out, len ? "\xef\xbf\xbd" : in->data + i, len ? 3 : 1);
        i += SM_MAX(len, 1u);
    }
}

/* One character of UTF-8 or, with variants, of CESU-8 and Java's 0xc0 0x80; its length, 0 where none begins. A line feed that
 * ends the text passes for the last byte of a cut variant: the reference's expressions say $, which matches before it too. */
static size_t utf8_get(const uint8_t *s, size_t n, bool variants, uint32_t *cp)
{
    if (variants && n >= 2 && s[0] == 0xc0 && (s[1] == 0x80 || (n == 2 && s[1] == '\n'))) {
        *cp = 0;
        return 2;
    }
    if (variants && n >= 6 && s[0] == 0xed && between(s[1], 0xa0, 0xaf) && continues(s[2]) && s[3] == 0xed &&
        between(s[4], 0xb0, 0xbf) && (continues(s[5]) || (n == 6 && s[5] == '\n'))) {
        *cp = 0x10000 + ((s[1] & 15u) << 16 | (s[2] & 63u) << 10 | (s[4] & 15u) << 6 | (s[5] & 63u));
        return 6;
    }
    return (size_t)sm_utf8_get((const char *)s, n, cp);
}

static outcome decode(const sm_buf *in, sm_cps *out)
{
    const uint8_t *s = (const uint8_t *)in->data;
    bool variants = memchr(s, 0xed, in->len) || memchr(s, 0xc0, in->len);
    out->n = 0;
    for (size_t i = 0; i < in->len;) {
        uint32_t cp;
        size_t len = utf8_get(s + i, in->len - i, variants, &cp);
        if (!len)
            return SAME;
        if (!sm_cps_add(out, cp))
            return NO_MEMORY;
        i += len;
    }
    return CHANGED;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static void swap_bytes(sm_buf *a, sm_buf *b)
{
    sm_buf t = *a;
    *a = *b;
    *b = t;
}

static void swap_texts(sm_cps *a, sm_cps *b)
{
    sm_cps t = *a;
    *a = *b;
    *b = t;
}

/* Reads c, encoded, as UTF-8 into out. SAME: it is none. */
static outcome reread(const sm_cps *c, int encoding, sm_buf *a, sm_buf *b, sm_cps *out)
{
    if (!encode(c, encoding, a))
        return a->oom ? NO_MEMORY : SAME;
    if (encoding != MACROMAN) { /* there, an en dash before a space would look like one */
        restore_spaces(a, b);
        swap_bytes(a, b);
    }
    if (encoding >= SLOPPY_FIRST && encoding <= SLOPPY_LAST) {
        replace_lossy(a, b);
        swap_bytes(a, b);
    }
    return a->oom || b->oom ? NO_MEMORY : decode(a, out);
}

static outcome reread_any(const sm_cps *c, sm_cps *out)
{
    sm_buf a = {.mem = c->mem}, b = {.mem = c->mem};
    outcome got = SAME;
    for (int encoding = 0; encoding < ENCODINGS && got == SAME; encoding++)
        got = reread(c, encoding, &a, &b, out);
    sm_buf_free(&a);
    sm_buf_free(&b);
    return got;
}

/* Where the run of would-be UTF-8 sequences from at ends; at itself where none begins. */
static size_t utf8_run(const sm_cps *c, size_t at)
{
    if (at && in_set(CONTINUES_STRICT, kind_of(c->cp[at - 1])))
        return at;
    for (;;) {
        int first = at < c->n ? kind_of(c->cp[at]) : NO_CHAR;
        size_t more = in_set(FIRST_OF_2, first) ? 1 : in_set(FIRST_OF_3, first) ? 2 : in_set(FIRST_OF_4, first) ? 3 : 0;
        if (!more || c->n - at <= more)
            return at;
        for (size_t i = 1; i <= more; i++)
            if (!in_set(CONTINUES, kind_of(c->cp[at + i])))
                return at;
        at += more + 1;
    }
}

static bool fix(sm_cps *c, int64_t *work, int depth);

static bool add_all(sm_cps *out, const uint32_t *cp, size_t n)
{
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++)
        ok = sm_cps_add(out, cp[i]);
    return ok;
}

/* Fixes every such run that is not the whole text, by itself. */
static bool fix_runs(const sm_cps *c, sm_cps *out, int64_t *work, int depth)
{
    bool ok = true;
    out->n = 0;
    for (size_t i = 0; ok && i < c->n;) {
        size_t end = utf8_run(c, i);
        if (end == i) {
            ok = sm_cps_add(out, c->cp[i++]);
            continue;
        }
        sm_cps part = {c->mem, NULL, 0, 0};
        ok = add_all(&part, c->cp + i, end - i);
        if (ok && part.n < c->n && depth < DEPTH && looks_bad(part.cp, part.n))
            ok = fix(&part, work, depth + 1);
        ok = ok && add_all(out, part.cp, part.n);
        sm_cps_free(&part);
        i = end;
    }
    return ok;
}

/* Latin-1's control characters as Windows-1252. strict: only in a text that is all Latin-1 without the five free bytes. */
static bool controls_as_1252(sm_cps *c, bool strict)
{
    bool changed = false;
    for (size_t i = 0; strict && i < c->n; i++)
        if (c->cp[i] > 0xff || (c->cp[i] >= 0x80 && c->cp[i] < 0xa0 && sm_windows_1252((uint8_t)c->cp[i]) == c->cp[i]))
            return false;
    for (size_t i = 0; i < c->n; i++) {
        uint32_t was = c->cp[i];
        if (was >= 0x80 && was < 0xa0)
            c->cp[i] = sm_windows_1252((uint8_t)was);
        changed |= c->cp[i] != was;
    }
    return changed;
}

static bool same_text(const sm_cps *a, const sm_cps *b) { return a->n == b->n && !memcmp(a->cp, b->cp, a->n * sizeof *a->cp); }

static bool ascii(const sm_cps *c)
{
    uint32_t all = 0;
    for (size_t i = 0; i < c->n; i++)
        all |= c->cp[i];
    return all < 0x80;
}

static outcome fix_once(sm_cps *c, int64_t *work, int depth)
{
    if (ascii(c) || !looks_bad(c->cp, c->n))
        return SAME;
    sm_cps out = {c->mem, NULL, 0, 0};
    outcome got = reread_any(c, &out);
    if (got == SAME)
        got = !fix_runs(c, &out, work, depth) ? NO_MEMORY : same_text(c, &out) ? SAME : CHANGED;
    else if (got == CHANGED && same_text(c, &out)) { /* nothing but lost characters */
        sm_cps_free(&out);
        return SAME;
    }
    if (got == CHANGED)
        swap_texts(c, &out);
    sm_cps_free(&out);
    if (got == SAME && (controls_as_1252(c, true) || controls_as_1252(c, false)))
        got = CHANGED;
    return got;
}

static bool fix(sm_cps *c, int64_t *work, int depth)
{
    outcome got = CHANGED;
    while (got == CHANGED && *work > 0) {
        *work -= (int64_t)c->n + 1;
        got = fix_once(c, work, depth);
    }
    return got != NO_MEMORY;
}

bool sm_mojibake_fix(sm_cps *c, int64_t *work) { return fix(c, work, 0); }
