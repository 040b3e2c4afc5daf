/* Grids over parameters: every combination of the axes' values is a request of its own, checked before the first is drawn. The
 * sheets' infotext is that of the first picture and, in the keys of AUTOMATIC1111's script "X/Y/Z plot", the axes. */
#include "pipeline/grid.h"

#include <stdio.h>
#include <string.h>

#include "pipeline/images.h"
#include "pipeline/infotext.h"
#include "pipeline/model.h"
#include "pipeline/span.h"

typedef struct grid {
    sm_axis axis[3];       /* x, y, z */
    sumi_request *cell;    /* x first, then y, then z */
    int cells, drawn;
    int64_t varied;        /* a variation seed that all cells have because none was given; -1: it was */
    sumi_image *picture;   /* [cells], drawn of them */
    sm_arena texts;
    const sumi_grid_options *o;
} grid;

static sumi_status fix_seeds(grid *g, sumi_request *r, sm_err *e)
{
    r->seed = r->seed < 0 ? sm_random_seed() : r->seed;
    g->varied = r->variation_seed < 0 ? sm_random_seed() : -1;
    r->variation_seed = g->varied < 0 ? r->variation_seed : g->varied;
    for (int k = 0; k < 3; k++) {
        const sm_axis *x = &g->axis[k];
        for (int i = 0; x->p && (!strcmp(x->p->name, "seed") || !strcmp(x->p->name, "variation_seed")) && i < x->n; i++)
            if (!strcmp(x->value[i], "-1") && !(x->value[i] = sm_arena_fmt(&g->texts, "%lld", (long long)sm_random_seed())))
                return sm_fail(e, SUMI_E_MEMORY, "out of memory for an axis");
    }
    return SUMI_OK;
}

static sumi_status make_cells(grid *g, const sumi_request *base, sm_err *e)
{
    int nx = g->axis[0].n, ny = g->axis[1].n, nz = g->axis[2].n;
    if ((int64_t)nx * ny * nz > SM_GRID_CELLS)
        return sm_fail(e, SUMI_E_ARG, "the grid has %d x %d x %d pictures, at most %d in all", nx, ny, nz, SM_GRID_CELLS);
    g->cells = nx * ny * nz;
    g->cell = sm_arena_get(&g->texts, (size_t)g->cells * sizeof *g->cell);
    g->picture = sm_arena_get(&g->texts, (size_t)g->cells * sizeof *g->picture);
    if (!g->cell || !g->picture)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for a grid of %d pictures", g->cells);
    for (int i = 0; i < g->cells && !e->code; i++) {
        const int at[3] = {i % nx, i / nx % ny, i / nx / ny};
        g->cell[i] = *base;
        for (int k = 0; k < 3 && !e->code; k++)
            sm_axis_apply(&g->axis[k], at[k], &g->cell[i], &g->texts, e);
        if (g->cell[i].variation_strength == 0 && g->cell[i].variation_seed == g->varied)
            g->cell[i].variation_seed = -1; /* nobody gave what has no effect */
        if (!e->code)
            sm_request_check(&g->cell[i], e);
    }
    return e->code;
}

/* ---- drawing --------------------------------------------------------------------------------------------------------- */

static double steps_of(const sumi_request *r, const sumi_model *m) { return r->steps ? r->steps : m->traits.steps; }

static sumi_status draw_cells(grid *g, sumi_context *ctx, sumi_model *m, const sumi_callbacks *cb, sm_err *e)
{
    sm_span span;
    double whole = 0;
    for (int i = 0; i < g->cells; i++)
        whole += steps_of(&g->cell[i], m);
    sumi_callbacks part = sm_span_start(&span, cb, "grid", whole);
    for (; g->drawn < g->cells; g->drawn++) {
        sumi_images *one = NULL;
        sm_span_next(&span, steps_of(&g->cell[g->drawn], m));
        if (sumi_generate(ctx, m, &g->cell[g->drawn], &part, &one)) /* its error is the context's, and so e's */
            return e->code;
        g->picture[g->drawn] = *sumi_images_at(one, 0);
        sm_images_release(one);
    }
    return SUMI_OK;
}

/* ---- sheets ---------------------------------------------------------------------------------------------------------- */

/* The titles of an axis's values; NULL without an axis or memory. */
static const char *const *titles(grid *g, const sm_axis *x, sm_err *e)
{
    const char **t = x->kind && g->o->legend ? sm_arena_get(&g->texts, (size_t)x->n * sizeof *t) : NULL;
    for (int i = 0; t && i < x->n; i++)
        if (!(t[i] = sm_axis_title(x, i, &g->texts)))
            sm_fail(e, SUMI_E_MEMORY, "out of memory for a grid's titles");
    return t;
}

static bool on_axis(const grid *g, const char *key)
{
    for (int k = 0; k < 3; k++) {
        const sumi_param_info *p = g->axis[k].p;
        size_t n = strlen(key);
        if (p && !strncmp(p->a1111, key, n) && (!p->a1111[n] || !strcmp(p->a1111 + n, "-1") || !strcmp(p->a1111 + n, "-2")))
            return true;
    }
    return false;
}

/* What pictures of a sheet have alike and no legend needs. */
static bool untold(const grid *g, const char *key)
{
    return on_axis(g, key) || strstr(key, " file") || !strcmp(key, "Version") || !strcmp(key, "Template") ||
           !strcmp(key, "Negative Template");
}

static bool has(const sumi_infotext *t, const char *key, const char *value)
{
    for (size_t i = 0; i < t->count; i++)
        if (!strcmp(t->field[i].key, key))
            return !strcmp(t->field[i].value, value);
    return false;
}

/* [t->count]: whether another picture lacks the field or has another value: numbers that are filled in by what an axis
 * chooses. */
static const bool *differing(grid *g, const sumi_infotext *t, sm_mem *mem, sm_err *e)
{
    bool *differs = sm_arena_get(&g->texts, t->count + 1);
    for (int k = 1; differs && k < g->cells; k++) {
        sumi_infotext *other = NULL;
        if (sm_infotext_read(mem, g->picture[k].infotext, &other, e))
            return NULL;
        for (size_t i = 0; i < t->count; i++)
            differs[i] |= !has(other, t->field[i].key, t->field[i].value);
        sumi_infotext_free(other);
    }
    if (!differs)
        sm_fail(e, SUMI_E_MEMORY, "out of memory for a grid's legend");
    return differs;
}

/* The prompts and what else all pictures have alike. */
static const char *legend(grid *g, sm_mem *mem, sm_err *e)
{
    sumi_infotext *t = NULL;
    sm_buf b = {.mem = mem};
    const char *sep = "";
    if (!g->o->legend || sm_infotext_read(mem, g->picture[0].infotext, &t, e))
        return NULL;
    const bool *differs = differing(g, t, mem, e);
    sm_buf_fmt(&b, "%s\n", g->cell[0].prompt);
    if (g->cell[0].negative_prompt[0])
        sm_buf_fmt(&b, SM_INFOTEXT_NEGATIVE " %s\n", g->cell[0].negative_prompt);
    for (size_t i = 0; differs && i < t->count; i++) {
        const char *k = t->field[i].key;
        if (differs[i] || untold(g, k))
            continue;
        sm_buf_fmt(&b, "%s%s: %s", sep, k, t->field[i].value);
        sep = ", ";
    }
    const char *made = b.oom ? NULL : sm_arena_str(&g->texts, b.data);
    sm_buf_free(&b);
    sumi_infotext_free(t);
    if (!made)
        sm_fail(e, SUMI_E_MEMORY, "out of memory for a grid's legend");
    return made;
}

static void put_axis(const grid *g, int k, sm_buf *b)
{
    const sm_axis *x = &g->axis[k];
    sm_buf list = {.mem = b->mem};
    int n = x->kind == SM_AXIS_ORDER ? x->words : x->n;
    if (!x->kind)
        return;
    for (int i = 0; i < n; i++)
        sm_buf_fmt(&list, strpbrk(x->value[i], ",\"") ? "%s\"%s\"" : "%s%s", i ? ", " : "", x->value[i]);
    b->oom = b->oom || list.oom;
    if (!b->oom) {
        sm_buf_fmt(b, ", %c Type: ", "XYZ"[k]);
        sm_infotext_quote(x->name, b);
        sm_buf_fmt(b, ", %c Values: ", "XYZ"[k]);
        sm_infotext_quote(list.data, b);
    }
    sm_buf_free(&list);
}

/* The first picture's infotext with the axes before its version. */
static char *infotext(const grid *g, int z, sm_mem *mem)
{
    sm_buf b = {.mem = mem};
    const char *first = g->picture[z * g->axis[0].n * g->axis[1].n].infotext, *end = strrchr(first, '\n'), *version = NULL;
    for (const char *s = end ? end : first; (s = strstr(s, ", Version: sumi ")); s++)
        version = s;
    sm_buf_add(&b, first, version ? (size_t)(version - first) : strlen(first));
    sm_buf_fmt(&b, ", Script: X/Y/Z plot");
    for (int k = 0; k < 3; k++)
        put_axis(g, k, &b);
    sm_buf_fmt(&b, "%s", version ? version : "");
    if (b.oom)
        sm_buf_free(&b);
    return b.data;
}

/* Sheets, then pictures, which pass from g to the result. */
static sumi_status lay_out(grid *g, sm_mem *mem, int *sheets, sumi_images **out, sm_err *e)
{
    int nx = g->axis[0].n, ny = g->axis[1].n, nz = g->axis[2].n;
    const char *const *above = titles(g, &g->axis[0], e), *const *beside = titles(g, &g->axis[1], e),
               *const *on_top = titles(g, &g->axis[2], e);
    const char *below = e->code ? NULL : legend(g, mem, e);
    sumi_images *im = e->code ? NULL : sm_images_new(mem, (size_t)(nz + g->cells));
    if (!im)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for a grid of %d pictures", g->cells);
    for (int z = 0; z < nz && !e->code; z++) {
        sumi_image *at = sm_images_put(im, (size_t)z);
        sm_sheet s = {.columns = nx, .rows = ny, .column_title = above, .row_title = beside, .title = on_top ? on_top[z] : NULL,
                      .legend = below, .cell = g->picture + z * nx * ny, .margin = g->o->margin};
        if (!sm_sheet_draw(&s, mem, at, e) && !(at->infotext = infotext(g, z, mem)))
            sm_fail(e, SUMI_E_MEMORY, "out of memory for a grid's infotext");
        at->seed = g->cell[z * nx * ny].seed;
    }
    if (e->code) {
        sumi_images_free(im);
        return e->code;
    }
    for (int i = 0; i < g->cells; i++)
        *sm_images_put(im, (size_t)(nz + i)) = g->picture[i];
    g->drawn = 0;
    *sheets = nz;
    *out = im;
    return SUMI_OK;
}

static sumi_status run(grid *g, sumi_context *ctx, sumi_model *m, const sumi_request *r, const sumi_callbacks *cb, int *sheets,
                       sumi_images **out, sm_err *e)
{
    const char *const text[3] = {g->o->x, g->o->y, g->o->z};
    sumi_request base = *r;
    if (r->count != 1)
        return sm_fail(e, SUMI_E_ARG, "--count: a grid has one picture for each combination; an axis seed=1-4 gives several");
    if (g->o->margin < 0 || g->o->margin > 256)
        return sm_fail(e, SUMI_E_ARG, "--margin: %d is out of range, 0 to 256", g->o->margin);
    if (sm_request_check(r, e))
        return e->code;
    if (r->save_latents[0] || r->save_inverted[0])
        return sm_fail(e, SUMI_E_ARG, "--%s: every picture of a grid would write the same file",
                       r->save_latents[0] ? "save-latents" : "save-inverted");
    for (int k = 0; k < 3 && !e->code; k++)
        sm_axis_read(&g->axis[k], text[k], &g->texts, e);
    if (!e->code && !fix_seeds(g, &base, e) && !make_cells(g, &base, e) && !draw_cells(g, ctx, m, cb, e))
        lay_out(g, &ctx->mem, sheets, out, e);
    return e->code;
}

sumi_status sumi_grid(sumi_context *ctx, sumi_model *m, const sumi_request *r, const sumi_grid_options *o,
                      const sumi_callbacks *cb, int *sheets, sumi_images **out)
{
    sm_err *e = sm_begin(ctx);
    grid g = {.o = o};
    *out = NULL;
    *sheets = 0;
    sm_arena_init(&g.texts, &ctx->mem, SM_MEM_DATA);
    run(&g, ctx, m, r, cb, sheets, out, e);
    for (int i = 0; i < g.drawn; i++) {
        sm_free(g.picture[i].pixels);
        sm_free(g.picture[i].infotext);
    }
    sm_arena_free(&g.texts);
    return e->code;
}
