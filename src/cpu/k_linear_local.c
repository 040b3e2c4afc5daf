/* linear of some rows whose weight does not stay packed: each task packs one panel of it at a time, one block of K deep, into
 * memory of its own and multiplies all rows with it before the next one takes its place. The panel stays in the L2 of the
 * processor that packed it and no thread waits for another; packing part by part for all of them takes two barriers for every
 * 2 MiB. What a panel is packed from is asked for during the products before it, since most weights come from memory. */
#include "cpu/linear_local.h"

enum { MOST_ROWS = 512, MOST = 20, LINE = 64, UNIT = SM_MAX_BLOCK }; /* tasks: some 8 MB; K is cut at whole blocks of any type */
enum { GROUP = 64 / SM_NR, WIDTH = GROUP * SM_NR }; /* panels that share the rows of a block of K in L2; their columns */

typedef struct local {
    const sm_kcall *c;
    int64_t rows, depth, n, cols, end, tiles; /* n columns of the weight, cols of the result, end: of the task's */
    int halves, blocks;
    bool adds;                                /* all that there is to finish: tiles do it */
    float *panel, *sums;
} local;

/* Rows that share few sets of the caches (gemm.h): without copies a block of K of 512 of them does not stay in L2. */
static bool pages_apart(int64_t depth) { return sm_gather_copy(depth) != 0; }

bool SM_K(sm_linear_local)(const sm_node *n)
{
    return sm_linear_rows(n) <= (pages_apart(n->src[1]->dims[1]) ? MOST_ROWS / 2 : MOST_ROWS);
}

static int64_t groups_of(int64_t n) { return (sm_panels(n) + GROUP - 1) / GROUP; }

int SM_K(sm_linear_local_tasks)(const sm_node *n) { return (int)SM_MIN(groups_of(n->src[1]->dims[0]), MOST); }

int64_t SM_K(sm_linear_local_panel)(const sm_node *n) { return SM_NR * SM_MIN(n->src[1]->dims[1], SM_KC); }

int64_t SM_K(sm_linear_local_sums)(const sm_node *n) { return sm_linear_rows(n) * WIDTH; }

/* A panel of the weight, one block of K: of the columns j.. */
typedef struct item { int64_t j, at, k[2]; bool gates, first, last; } item;

/* Item i of the `panels` from column j0 of the result on: blocks of K, then panels, each followed by that of its gates. at: the
 * column of its sums. */
static item item_at(const local *l, int64_t j0, int panels, int i)
{
    int block = i / panels / l->halves, at = i % (panels * l->halves);
    item it = {.at = at * SM_NR, .gates = at % l->halves, .first = block == 0, .last = block + 1 == l->blocks};
    it.j = j0 + at / l->halves * SM_NR + it.gates * l->cols;
    sm_range((l->depth + UNIT - 1) / UNIT, block, l->blocks, &it.k[0], &it.k[1]);
    it.k[0] *= UNIT;
    it.k[1] = SM_MIN(it.k[1] * UNIT, l->depth);
    return it;
}

/* What tile i of it brings to L2, a line every four steps: columns of the panel after it, which lie one behind the other as they
 * are stored. A whole panel takes the tiles of 64 rows, of f32 those of 96. */
static const float *far_of(const local *l, const item *it, int64_t i)
{
    const sm_tensor *w = &l->c->src[1];
    int64_t j = l->halves == 1 ? it->j + SM_NR : it->gates ? it->j - l->cols + SM_NR : it->j + l->cols;
    int64_t skip = LINE / 4 * (l->tiles * it->k[0] + i * (it->k[1] - it->k[0]));
    if ((it->gates || l->halves == 1) && j >= l->end)
        return NULL;
    if (skip >= (int64_t)sm_dtype_bytes(w->dtype, SM_MIN(SM_NR, l->n - j) * l->depth))
        return NULL;
    return (const float *)((const char *)w->data + sm_dtype_bytes(w->dtype, j * l->depth) + skip);
}

/* Pointers of a tile; past its last row those of that row again. */
typedef struct place { const float *rows[SM_MR], *from[SM_MR], *plus[SM_MR]; float *c[SM_MR]; int m; } place;

static void point(const local *l, const item *it, int64_t i, place *p)
{
    int64_t r0 = i * l->rows / l->tiles, r1 = (i + 1) * l->rows / l->tiles;
    const float *x = (const float *)l->c->src[0].data + it->k[0];
    float *y = (float *)l->c->dst.data + it->j;
    bool done = !l->sums || (l->adds && it->last);
    p->m = (int)(r1 - r0);
    for (int r = 0; r < SM_MR; r++) {
        int64_t at = SM_MIN(r0 + r, r1 - 1);
        p->rows[r] = x + at * l->depth;
        p->c[r] = done ? y + at * l->cols : l->sums + at * WIDTH + it->at;
        if (l->adds) {
            p->from[r] = l->sums + at * WIDTH + it->at;
            p->plus[r] = l->c->finish.add + at * l->cols + it->j;
        }
    }
}

static void multiply(const local *l, const item *it)
{
    place p[2];
    const float *b = l->panel;
    float bias[SM_NR];
    int width = sm_panel_width(l->n, it->j);
    sm_tile t = {.nv = width / SM_VL, .n = (int)SM_MIN(width, l->n - it->j), .segs = 1, .len = it->k[1] - it->k[0], .b = &b,
                 .add = !it->first, .bias = it->last && l->c->src[2].data ? bias : NULL};
    for (int i = 0; t.bias && i < t.n; i++)
        bias[i] = sm_load_f32(&l->c->src[2], it->j + i);
    point(l, it, 0, &p[0]);
    for (int64_t i = 0; i < l->tiles; i++) {
        const place *now = &p[i % 2], *next = i + 1 < l->tiles ? &p[(i + 1) % 2] : NULL;
        if (next)
            point(l, it, i + 1, &p[(i + 1) % 2]);
        t.m = now->m;
        t.rows = now->rows;
        t.c = now->c;
        t.from = l->adds ? now->from : NULL;
        t.plus = l->adds && it->last ? now->plus : NULL;
        t.next = next && !pages_apart(l->depth) ? next->rows : NULL; /* they would push this tile's out of L1 */
        t.results = next ? next->c : NULL;
        t.far = far_of(l, it, i);
        SM_K(sm_gemm_tile)(&t);
    }
}

/* Columns [j0, j0 + cols) of the result, with their gates at most WIDTH. */
static void run_group(const local *l, int64_t j0, int64_t cols)
{
    const sm_finish *f = &l->c->finish;
    int panels = (int)sm_panels(cols);
    sm_pack_src s = {.t = l->c->src[1], .col = l->depth, .step = 1, .n = l->n, .taps = 1};
    for (int i = 0; i < panels * l->halves * l->blocks; i++) {
        item it = item_at(l, j0, panels, i);
        s.base = it.k[0];
        s.k = it.k[1] - it.k[0];
        SM_K(sm_gemm_pack)(&s, it.j, (const int64_t[]){0, s.k}, l->panel);
        multiply(l, &it);
    }
    for (int64_t i = 0; l->sums && !l->adds && i < l->rows; i++)
        for (int64_t j = 0; j < cols; j += l->halves == 1 ? cols : SM_NR) {
            const float *sums = l->sums + i * WIDTH + j * l->halves, *add = NULL;
            if (f->add_rows)
                add = f->add + i / f->add_rows * l->cols + j0 + j;
            SM_K(sm_finish_row)(f->act, sums, l->halves == 1 ? NULL : sums + SM_NR, add,
                                (float *)l->c->dst.data + i * l->cols + j0 + j, l->halves == 1 ? cols : SM_NR);
        }
}

void SM_K(sm_linear_local_run)(const sm_kcall *c, float *panel, float *sums, int task, int tasks)
{
    const int64_t *w = c->src[1].dims;
    const sm_finish *f = &c->finish;
    local l = {.c = c, .rows = sm_linear_rows(c->node), .depth = w[1], .n = w[0], .halves = f->gate ? 2 : 1,
               .panel = panel, .sums = sums, .adds = sums && sm_only_adds(f)};
    int64_t a, b, most = SM_KC / UNIT, width = f->gate ? GROUP / 2 * SM_NR : WIDTH;
    l.cols = l.n / l.halves;
    l.tiles = (l.rows + SM_MR - 1) / SM_MR;
    l.blocks = (int)(((l.depth + UNIT - 1) / UNIT + most - 1) / most);
    sm_range((l.cols + width - 1) / width, task, tasks, &a, &b);
    l.end = SM_MIN(b * width, l.cols);
    for (int64_t j = a * width; j < l.end; j += width)
        run_group(&l, j, SM_MIN(width, l.end - j));
}
