/* Laying pictures of a grid out on one sheet: titles above the columns and left of the rows, a title on top, a legend below. */
#include <string.h>

#include "io/image.h"
#include "pipeline/grid.h"
#include "pipeline/label.h"

enum { INK = 32, LEAST_PITCH = 96 };

typedef struct layout {
    const sm_sheet *s;
    sm_font *font;
    double px, small;      /* sizes of titles and legend */
    int cell_w, cell_h;    /* the largest picture */
    int pitch_w, pitch_h;  /* room for one, margin not included */
    int left, top, bottom; /* of titles; the legend */
} layout;

static int lines_of(const layout *l, const char *text, double px, int width)
{
    size_t n = text ? strlen(text) : 0, next;
    int lines = 0;
    for (; n; lines++) {
        sm_font_fit(l->font, text, n, px, width, &next);
        text += next;
        n -= next;
    }
    return lines;
}

/* Lines from y down, in the middle of width or, with middle false, from its left. */
static void draw_text(const layout *l, const sm_canvas *c, const char *text, double px, int x, double y, int width, bool middle)
{
    size_t n = text ? strlen(text) : 0, next;
    for (; n; y += px) {
        size_t k = sm_font_fit(l->font, text, n, px, width, &next);
        double room = middle ? width - sm_font_width(l->font, text, k, px) : 0;
        sm_font_draw(l->font, c, x + (room > 0 ? room / 2 : 0), y, text, k, px, INK);
        text += next;
        n -= next;
    }
}

static int titles_height(const layout *l, const char *const *title, int n, int width)
{
    int most = 0;
    for (int i = 0; title && i < n; i++)
        most = SM_MAX(most, lines_of(l, title[i], l->px, width));
    return most ? (int)(most * l->px + l->px / 2) : 0;
}

/* The widest title, but no wider than twice a picture. */
static int titles_width(const layout *l, const char *const *title, int n)
{
    double most = 0;
    for (int i = 0; title && i < n; i++)
        most = SM_MAX(most, sm_font_width(l->font, title[i], strlen(title[i]), l->px));
    return most > 0 ? (int)SM_MIN(most + l->px, 2.0 * l->pitch_w) : 0;
}

static sumi_status measure(layout *l, sumi_image *out, sm_err *e)
{
    const sm_sheet *s = l->s;
    for (int i = 0; i < s->columns * s->rows; i++) {
        l->cell_w = SM_MAX(l->cell_w, s->cell[i].width);
        l->cell_h = SM_MAX(l->cell_h, s->cell[i].height);
    }
    bool words = s->column_title || s->row_title;
    l->px = SM_MAX(18, SM_MIN(48, l->cell_w / 16));
    l->small = SM_MAX(16, l->px * 0.75);
    l->pitch_w = words ? SM_MAX(l->cell_w, LEAST_PITCH) : l->cell_w;
    l->left = titles_width(l, s->row_title, s->rows);
    l->pitch_h = l->cell_h;
    for (int i = 0; s->row_title && i < s->rows; i++)
        l->pitch_h = SM_MAX(l->pitch_h, (int)(lines_of(l, s->row_title[i], l->px, l->left) * l->px));
    int64_t w = l->left + s->margin + (int64_t)s->columns * (l->pitch_w + s->margin);
    int heading = titles_height(l, &s->title, s->title ? 1 : 0, (int)SM_MIN(w, SM_IMAGE_MAX_SIDE));
    l->top = heading + titles_height(l, s->column_title, s->columns, l->pitch_w);
    l->bottom = s->legend ? (int)(lines_of(l, s->legend, l->small, (int)SM_MIN(w, SM_IMAGE_MAX_SIDE) - 2 * s->margin) * l->small +
                                  l->small / 2) : 0;
    int64_t h = l->top + s->margin + (int64_t)s->rows * (l->pitch_h + s->margin) + l->bottom;
    if (w > SM_IMAGE_MAX_SIDE || h > SM_IMAGE_MAX_SIDE)
        return sm_fail(e, SUMI_E_ARG,
                       "the sheet would have %lld x %lld pixels, at most %d a side: fewer values, or smaller pictures",
                       (long long)w, (long long)h, SM_IMAGE_MAX_SIDE);
    *out = (sumi_image){.width = (int)w, .height = (int)h, .channels = 3};
    return SUMI_OK;
}

static void place(const sumi_image *im, const sm_canvas *c, int x, int y)
{
    for (int row = 0; row < im->height; row++)
        memcpy(c->rgb + 3 * ((size_t)(y + row) * (size_t)c->w + (size_t)x), im->pixels + 3 * (size_t)row * (size_t)im->width,
               3 * (size_t)im->width);
}

static void draw(const layout *l, const sm_canvas *c)
{
    const sm_sheet *s = l->s;
    int heading = titles_height(l, &s->title, s->title ? 1 : 0, c->w);
    draw_text(l, c, s->title, l->px, 0, l->px / 4, c->w, true);
    for (int k = 0; k < s->columns; k++) {
        int x = l->left + s->margin + k * (l->pitch_w + s->margin);
        if (s->column_title)
            draw_text(l, c, s->column_title[k], l->px, x, heading + l->px / 4, l->pitch_w, true);
        for (int i = 0; i < s->rows; i++) {
            const sumi_image *im = &s->cell[i * s->columns + k];
            int y = l->top + s->margin + i * (l->pitch_h + s->margin);
            place(im, c, x + (l->pitch_w - im->width) / 2, y + (l->pitch_h - im->height) / 2);
        }
    }
    for (int i = 0; s->row_title && i < s->rows; i++) {
        double high = lines_of(l, s->row_title[i], l->px, l->left) * l->px;
        draw_text(l, c, s->row_title[i], l->px, 0, l->top + s->margin + i * (l->pitch_h + s->margin) + (l->pitch_h - high) / 2,
                  l->left, true);
    }
    draw_text(l, c, s->legend, l->small, s->margin, c->h - l->bottom + l->small / 4, c->w - 2 * s->margin, false);
}

sumi_status sm_sheet_draw(const sm_sheet *s, sm_mem *mem, sumi_image *out, sm_err *e)
{
    layout l = {.s = s, .font = sm_font_open(mem, e)};
    if (l.font && !measure(&l, out, e)) {
        size_t bytes = (size_t)out->width * (size_t)out->height * 3;
        out->pixels = sm_alloc(mem, SM_MEM_DATA, bytes);
        if (out->pixels) {
            memset(out->pixels, 255, bytes);
            draw(&l, &(sm_canvas){out->pixels, out->width, out->height});
        } else {
            sm_fail(e, SUMI_E_MEMORY, "out of memory for a sheet of %d x %d pixels", out->width, out->height);
        }
    }
    sm_font_close(l.font);
    return e->code;
}
