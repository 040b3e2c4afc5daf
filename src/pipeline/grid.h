/* Axes of grids and the sheets they are laid out on; the drawing itself is in grid.c. */
#ifndef SM_GRID_H
#define SM_GRID_H

#include "pipeline/params.h"

enum { SM_GRID_VALUES = 1000, SM_GRID_CELLS = 10000 };

typedef enum sm_axis_kind { SM_AXIS_NONE, SM_AXIS_PARAM, SM_AXIS_REPLACE, SM_AXIS_ORDER } sm_axis_kind;

typedef struct sm_axis {
    sm_axis_kind kind;
    const sumi_param_info *p;  /* of PARAM */
    const char *name;          /* as titles and infotexts call it */
    int n;                     /* values; 1 where there is no axis */
    const char **value;        /* texts; of ORDER the words as given, n being the number of their orders */
    int words;                 /* of ORDER */
} sm_axis;

/* Reads "NAME=VALUES"; NULL: an axis of one value that changes nothing. Texts live in the arena. */
sumi_status sm_axis_read(sm_axis *x, const char *text, sm_arena *a, sm_err *e);
/* Gives the request the axis's i-th value. Prompts are made in the arena. */
sumi_status sm_axis_apply(const sm_axis *x, int i, sumi_request *r, sm_arena *a, sm_err *e);
/* What is written beside that value's pictures; NULL when memory is out. */
const char *sm_axis_title(const sm_axis *x, int i, sm_arena *a);

/* ---- grid_sheet.c ---- */

typedef struct sm_sheet {
    int columns, rows;
    const char *const *column_title, *const *row_title; /* NULL: without titles */
    const char *title, *legend;                         /* above and below, may be NULL */
    const sumi_image *cell;                             /* [rows, columns], of any sizes */
    int margin;
} sm_sheet;

/* Lays the sheet out into out->width, height and pixels (RGB). */
sumi_status sm_sheet_draw(const sm_sheet *s, sm_mem *mem, sumi_image *out, sm_err *e);

#endif
