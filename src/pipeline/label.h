/* Text on pictures: labels of grids. Latin, Greek, Cyrillic, Chinese, Japanese, Korean and signs, from left to right; anything
 * else is drawn as U+FFFD. The same on every machine: the glyphs are in the library. */
#ifndef SM_LABEL_H
#define SM_LABEL_H

#include "base/base.h"

typedef struct sm_font sm_font;
typedef struct sm_canvas { uint8_t *rgb; int w, h; } sm_canvas; /* rows from the top, dense */

sm_font *sm_font_open(sm_mem *mem, sm_err *e); /* NULL on failure */
void sm_font_close(sm_font *f);

/* Width in pixels of n bytes at a size of px from line to line. */
double sm_font_width(const sm_font *f, const char *s, size_t n, double px);
/* Bytes of s[0..n) that go on a line of that width, cut at a blank where there is one; at least one character. A newline ends it.
 * *next: where the following line begins. */
size_t sm_font_fit(const sm_font *f, const char *s, size_t n, double px, double width, size_t *next);
/* Draws a line with its upper left corner at x, y; grey 0 is black. What lies outside the canvas is cut. */
void sm_font_draw(const sm_font *f, const sm_canvas *c, double x, double y, const char *s, size_t n, double px, int grey);

#endif
