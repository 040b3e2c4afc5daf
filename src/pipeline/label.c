/* Drawing text from glyphs that were rendered once (label_font.bin.gz, made by tools/make_font.py) and are scaled by a triangle
 * filter. The file holds faces one after the other: "face", u32 em in pixels, u32 glyphs, u32 bytes of their pixels; the glyphs'
 * rows, sorted by code point: u32 code point, u16 advance in quarter pixels, i8 x, i8 y of the upper left corner from the origin
 * on the base line, u8 width, u8 height, u16 0, u32 offset of the pixels; the pixels, four bits each, the first in the low half.
 * Little endian. */
#include "pipeline/label.h"

#include <math.h>
#include <string.h>
#include <zlib.h>

#include "text/unicode.h"

/* The path is seen from the repository's root, where make runs the compiler. */
__asm__(".pushsection .rodata\n"
        ".balign 16\n"
        "sm_label_gz:\n"
        ".incbin \"src/pipeline/label_font.bin.gz\"\n"
        "sm_label_gz_end:\n"
        ".balign 8\n"
        "sm_label_gz_bytes: .quad sm_label_gz_end - sm_label_gz\n"
        ".popsection\n");
extern const uint8_t sm_label_gz[] __attribute__((visibility("hidden")));
extern const uint64_t sm_label_gz_bytes __attribute__((visibility("hidden")));

enum { FACES = 2, ROW = 16, HEAD = 16, REPLACEMENT = 0xfffd };

typedef struct face { int em; uint32_t n; const uint8_t *rows, *pixels; } face;
struct sm_font { face face[FACES]; uint8_t data[]; };
typedef struct glyph { int em, x, y, w, h; double advance; const uint8_t *pixels; } glyph;

static uint32_t u32(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }

static bool unpack(uint8_t *to, size_t size)
{
    z_stream z = {.next_in = (z_const Bytef *)sm_label_gz, .avail_in = (uInt)sm_label_gz_bytes};
    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
        return false;
    z.next_out = to;
    z.avail_out = (uInt)size;
    int rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return rc == Z_STREAM_END && !z.avail_out;
}

sm_font *sm_font_open(sm_mem *mem, sm_err *e)
{
    size_t size = u32(sm_label_gz + sm_label_gz_bytes - 4); /* gzip ends in the length */
    sm_font *f = sm_alloc(mem, SM_MEM_DATA, sizeof *f + size);
    if (!f || !unpack(f->data, size)) {
        sm_free(f);
        sm_fail(e, SUMI_E_MEMORY, "out of memory for the labels' font");
        return NULL;
    }
    const uint8_t *p = f->data;
    for (int i = 0; i < FACES; i++) {
        f->face[i] = (face){(int)u32(p + 4), u32(p + 8), p + HEAD, p + HEAD + (size_t)ROW * u32(p + 8)};
        p = f->face[i].pixels + u32(p + 12);
    }
    return f;
}

void sm_font_close(sm_font *f) { sm_free(f); }

static bool find(const sm_font *f, uint32_t cp, glyph *g)
{
    for (int i = 0; i < FACES; i++) {
        const face *t = &f->face[i];
        uint32_t a = 0, b = t->n;
        while (a < b) {
            uint32_t m = (a + b) / 2;
            if (u32(t->rows + (size_t)m * ROW) < cp)
                a = m + 1;
            else
                b = m;
        }
        const uint8_t *r = t->rows + (size_t)a * ROW;
        if (a < t->n && u32(r) == cp) {
            *g = (glyph){t->em, (int8_t)r[6], (int8_t)r[7], r[8], r[9], (r[4] | r[5] << 8) / 4.0, t->pixels + u32(r + 12)};
            return true;
        }
    }
    return false;
}

/* The glyph of the character at s; its length in bytes. */
static size_t next_glyph(const sm_font *f, const char *s, size_t n, glyph *g)
{
    uint32_t cp = 0;
    int k = sm_utf8_get(s, n, &cp);
    if (!find(f, cp == '\t' || cp == '\n' ? ' ' : cp, g) && !find(f, REPLACEMENT, g))
        *g = (glyph){.em = 1};
    return k > 0 ? (size_t)k : 1;
}

/* A line is 1.25 em high, as both faces want it at least. */
#define LEADING 1.25

double sm_font_width(const sm_font *f, const char *s, size_t n, double px)
{
    double w = 0;
    glyph g;
    for (size_t i = 0; i < n;) {
        i += next_glyph(f, s + i, n - i, &g);
        w += g.advance / g.em;
    }
    return w * px / LEADING;
}

size_t sm_font_fit(const sm_font *f, const char *s, size_t n, double px, double width, size_t *next)
{
    double w = 0;
    size_t blank = 0, i = 0;
    glyph g;
    while (i < n && s[i] != '\n') {
        size_t k = next_glyph(f, s + i, n - i, &g);
        w += g.advance / g.em * px / LEADING;
        if (w > width && i && s[i] != ' ') {
            *next = blank ? blank + 1 : i;
            return blank ? blank : i;
        }
        if (s[i] == ' ')
            blank = i;
        i += k;
    }
    *next = i + (i < n);
    return i;
}

static double pixel(const glyph *g, int x, int y)
{
    if (x < 0 || y < 0 || x >= g->w || y >= g->h)
        return 0;
    int i = y * g->w + x;
    return (g->pixels[i / 2] >> 4 * (i % 2) & 15) / 15.0;
}

/* Coverage at the point u, v of the glyph's pixels: the mean under a triangle of radius r >= 1. */
static double coverage(const glyph *g, double u, double v, double r)
{
    double sum = 0;
    for (int y = (int)ceil(v - r); y <= (int)floor(v + r); y++)
        for (int x = (int)ceil(u - r); x <= (int)floor(u + r); x++)
            sum += pixel(g, x, y) * (1 - fabs(u - x) / r) * (1 - fabs(v - y) / r);
    return sum / (r * r);
}

static void draw_glyph(const sm_canvas *c, const glyph *g, double x, double base, double em, int grey)
{
    double s = em / g->em, r = s < 1 ? 1 / s : 1, left = x + g->x * s, top = base + g->y * s;
    int x0 = SM_MAX(0, (int)floor(left - s)), x1 = SM_MIN(c->w, (int)ceil(left + (g->w + 1) * s));
    int y0 = SM_MAX(0, (int)floor(top - s)), y1 = SM_MIN(c->h, (int)ceil(top + (g->h + 1) * s));
    for (int py = y0; py < y1; py++)
        for (int px = x0; px < x1; px++) {
            double a = coverage(g, (px + 0.5 - left) / s - 0.5, (py + 0.5 - top) / s - 0.5, r);
            uint8_t *at = c->rgb + 3 * ((size_t)py * (size_t)c->w + (size_t)px);
            for (int k = 0; k < 3 && a > 0; k++)
                at[k] = (uint8_t)(at[k] + SM_MIN(a, 1.0) * (grey - at[k]) + 0.5);
        }
}

void sm_font_draw(const sm_font *f, const sm_canvas *c, double x, double y, const char *s, size_t n, double px, int grey)
{
    double em = px / LEADING;
    glyph g;
    for (size_t i = 0; i < n;) {
        i += next_glyph(f, s + i, n - i, &g);
        draw_glyph(c, &g, x, y + 0.97 * em, em, grey); /* 0.93 em is the ascent */
        x += g.advance / g.em * em;
    }
}
