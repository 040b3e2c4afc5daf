/* ftfy.fix_text with its default settings (Robyn Speer, ftfy 6.3.1): each line is put through all fixes, again and again
 * until none changes it. Surrogates need no fix of their own: valid UTF-8 has none, and no step makes any. */
#include "text/clean.h"

#include <string.h>

typedef struct ligature {
    uint16_t cp, to[3];
} ligature;

#include "text/repair_table.h"

enum { SEGMENT = 1000000, PASSES = 64 }; /* longer lines are cut; PASSES over a line and a little more */

/* ---- single characters ------------------------------------------------------------------------------------------- */

/* Curly quotes and prime-like letters become straight, line and paragraph separators line feeds. */
static uint32_t plain(uint32_t cp)
{
    if (cp == 0x2bc || (cp >= 0x2018 && cp <= 0x201b))
        return '\'';
    if (cp >= 0x201c && cp <= 0x201f)
        return '"';
    return cp == '\r' || cp == 0x2028 || cp == 0x2029 ? '\n' : cp;
}

static const ligature *ligature_of(uint32_t cp)
{
    for (size_t i = 0; cp >= ligatures[0].cp && i < SM_COUNT(ligatures) && ligatures[i].cp <= cp; i++)
        if (ligatures[i].cp == cp)
            return &ligatures[i];
    return NULL;
}

/* One character with everything that looks at no other. */
static bool put_plain(sm_cps *out, uint32_t cp)
{
    if (cp >= 0x80 && cp < 0xa0)
        cp = sm_windows_1252((uint8_t)cp);
    const ligature *l = ligature_of(cp);
    if (l)
        return sm_cps_add(out, plain(l->to[0])) && sm_cps_add(out, l->to[1]) && (!l->to[2] || sm_cps_add(out, l->to[2]));
    uint32_t narrow = cp == 0x3000 ? ' ' : cp > 0xff00 && cp < 0xfff0 ? usual_width[cp - 0xff01] : 0;
    return sm_cps_add(out, plain(narrow ? narrow : cp)) && (cp != 0xffe3 || sm_cps_add(out, 0x304));
}

static bool plain_characters(const sm_cps *c, sm_cps *out)
{
    bool ok = true;
    out->n = 0;
    for (size_t i = 0; ok && i < c->n; i++)
        if (c->cp[i] != '\r' || i + 1 == c->n || c->cp[i + 1] != '\n')
            ok = put_plain(out, c->cp[i]);
    return ok;
}

/* ---- what is not text -------------------------------------------------------------------------------------------- */

/* Length of a terminal escape at s[0..n): ESC [ digits and semicolons, a letter. Digits of any script. */
static size_t escape_at(const uint32_t *s, size_t n)
{
    if (n < 3 || s[0] != 0x1b || s[1] != '[')
        return 0;
    size_t i = 2;
    while (i < n && (s[i] == ';' || sm_uni_decimal(s[i])))
        i++;
    bool letter = i < n && (s[i] | 32) >= 'a' && (s[i] | 32) <= 'z';
    return letter ? i + 1 : 0;
}

static bool control(uint32_t c)
{
    return c < 9 || c == 0xb || (c >= 0xe && c < 0x20) || c == 0x7f || (c >= 0x206a && c < 0x2070) || c == 0xfeff ||
           (c >= 0xfff9 && c < 0xfffd);
}

static void remove_controls(sm_cps *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n;) {
        size_t len = escape_at(c->cp + i, c->n - i);
        if (!len && !control(c->cp[i]))
            c->cp[n++] = c->cp[i];
        i += SM_MAX(len, 1u);
    }
    c->n = n;
}

/* ---- lines ------------------------------------------------------------------------------------------------------- */

/* was: work space. */
static bool repair_line(sm_cps *c, bool references, sm_cps *was)
{
    int64_t work = PASSES * ((int64_t)c->n + 4096);
    for (bool ok = true; work > 0; work -= (int64_t)c->n + 1) {
        was->n = 0;
        for (size_t i = 0; ok && i < c->n; i++)
            ok = sm_cps_add(was, c->cp[i]);
        ok = ok && (!references || sm_html_unescape_whole(c)) && sm_mojibake_fix(c, &work);
        sm_cps out = {c->mem, NULL, 0, 0};
        ok = ok && plain_characters(c, &out);
        sm_cps_free(c);
        *c = out;
        if (!ok)
            return false;
        remove_controls(c);
        if (sm_uni_nfc(c, NULL) != SUMI_OK)
            return false;
        if (c->n == was->n && (!c->n || !memcmp(c->cp, was->cp, c->n * sizeof *c->cp)))
            break;
    }
    return true;
}

/* From the first line with a "<" on the text is taken for HTML and its references are kept. */
bool sm_text_repair(sm_cps *c)
{
    sm_cps out = {c->mem, NULL, 0, 0}, line = out, work = out;
    bool references = true, ok = true;
    for (size_t i = 0; ok && i < c->n;) {
        size_t end = i;
        while (end < c->n && end - i < SEGMENT && (end == i || c->cp[end - 1] != '\n'))
            end++;
        line.n = 0;
        for (; ok && i < end; i++) {
            references = references && c->cp[i] != '<';
            ok = sm_cps_add(&line, c->cp[i]);
        }
        ok = ok && repair_line(&line, references, &work);
        for (size_t k = 0; ok && k < line.n; k++)
            ok = sm_cps_add(&out, line.cp[k]);
    }
    sm_cps_free(&line);
    sm_cps_free(&work);
    sm_cps_free(c);
    *c = out;
    return ok;
}
