/* Gather product: the left operand's rows are runs of channels at pixels of an image, found through pointers; pixels
 * outside point to zeros. Loops as in BLIS: blocks of columns, of K, of SM_MC rows; then panels of columns and tiles of rows.
 * What comes from further than L2 is asked for while something else is multiplied: a panel during the one before it, a tile's
 * rows and memory of its results during the tile before it. */
#include "cpu/gemm.h"

enum { LINE = 16, SLOW = 8 }; /* tiles from which on `far` brings a panel */

static const float zeros[SM_KC];

/* A row's place: source position of tap offset 0, first pixel of its image, output row. */
typedef struct place { int64_t y, x; const float *image; } place;

typedef struct block {
    int rows, tiles;
    int16_t from[SM_MC / SM_MR + 1]; /* first row of each tile, and the end */
    place at[SM_MC];
    float *dst[SM_MC];
    const float *ptr[SM_MC / SM_MR * SM_MAX_SEGS * SM_MR]; /* [tile][seg][SM_MR] */
} block;

static void find_rows(const sm_gather *g, int64_t r0, block *b)
{
    int64_t x = r0 % g->grid[1], y = r0 / g->grid[1] % g->grid[0], n = r0 / g->grid[1] / g->grid[0];
    for (int i = 0; i < b->rows; i++) {
        b->at[i] = (place){y * g->stride[0], x * g->stride[1], g->src + n * g->src_size[0] * g->src_size[1] * g->ld_src};
        int64_t dy = y * g->dst_step[0] + g->dst_off[0], dx = x * g->dst_step[1] + g->dst_off[1];
        b->dst[i] = g->dst + ((n * g->dst_size[0] + dy) * g->dst_size[1] + dx) * g->ld_dst;
        if (++x == g->grid[1]) {
            x = 0;
            if (++y == g->grid[0]) {
                y = 0;
                n++;
            }
        }
    }
}

/* Tap number i of an axis: sets its source offset, returns its index in the weight. */
static int tap_at(const sm_taps *t, int i, int64_t *off)
{
    const sm_prog *p = t->p;
    while (i >= p->count)
        i -= p++->count;
    *off = p->off + i * p->off_step;
    return p->k + i * p->k_step;
}

static int64_t wrap(int64_t i, int64_t n) { return i < 0 ? i + n : i >= n ? i - n : i; }

/* Pointers of one tap: rows of tile t at ptr[t * segs * SM_MR + i]. */
static void point_rows(const sm_gather *g, block *b, int segs, int seg, int64_t oy, int64_t ox, int64_t channel)
{
    for (int t = 0; t < b->tiles; t++) {
        const float **ptr = b->ptr + (t * segs + seg) * SM_MR;
        int i0 = b->from[t], i1 = b->from[t + 1];
        for (int i = i0; i < i1; i++) {
            int64_t y = b->at[i].y + oy, x = b->at[i].x + ox;
            if (g->circular[0])
                y = wrap(y, g->src_size[0]);
            if (g->circular[1])
                x = wrap(x, g->src_size[1]);
            bool in = (uint64_t)y < (uint64_t)g->src_size[0] && (uint64_t)x < (uint64_t)g->src_size[1];
            ptr[i - i0] = in ? b->at[i].image + (y * g->src_size[1] + x) * g->ld_src + channel : zeros;
        }
        for (int i = i1 - i0; i < SM_MR; i++) /* fetched ahead, not read */
            ptr[i] = ptr[i1 - i0 - 1];
    }
}

/* A block of K: taps [tap, tap + segs), channels [channel, channel + len). */
typedef struct kblock { int tap, segs; int64_t channel, len; bool first, last; } kblock;

/* Blocks of K in the order of the sum: several taps at once, or a part of one. Without any tap the result is the bias. */
static int kblocks(const sm_gather *g)
{
    int64_t taps = g->taps[0].count * g->taps[1].count;
    if (g->k > SM_KC || !taps)
        return (int)SM_MAX(taps * ((g->k + SM_KC - 1) / SM_KC), 1);
    int64_t most = SM_MIN(SM_KC / g->k, SM_MAX_SEGS);
    return (int)((taps + most - 1) / most);
}

static kblock kblock_at(const sm_gather *g, int i, int count)
{
    int taps = g->taps[0].count * g->taps[1].count;
    kblock b = {.first = i == 0, .last = i == count - 1};
    if (g->k > SM_KC && taps) {
        int parts = count / taps, p = i % parts;
        b.tap = i / parts;
        b.segs = 1;
        int64_t lines = (g->k + LINE - 1) / LINE; /* shared out as wholes, so that no part is longer than SM_KC */
        b.channel = p * lines / parts * LINE;
        b.len = SM_MIN((p + 1) * lines / parts * LINE, g->k) - b.channel;
    } else {
        b.tap = i * taps / count;
        b.segs = (i + 1) * taps / count - b.tap;
        b.len = g->k;
    }
    return b;
}

/* Weight row of a tap's first channel, and where the tap reads. */
static int64_t weight_row(const sm_gather *g, int tap, int64_t off[2])
{
    int ky = tap_at(&g->taps[0], tap / g->taps[1].count, &off[0]), kx = tap_at(&g->taps[1], tap % g->taps[1].count, &off[1]);
    return (int64_t)(ky * g->kw + kx) * g->k;
}

/* ---- panels and tiles -------------------------------------------------------------------------------------------- */

/* Columns [j0, j1) of a block of K: at[s] is the weight row of segment s. What is read after it: of the panel `then` columns
 * further, from weight row then_at on, so many rows; columns end at `end`. */
typedef struct panels {
    const sm_gather *g;
    kblock k;
    int64_t j0, j1, end, at[SM_MAX_SEGS], then, then_at;
    const float *bp[SM_MAX_SEGS];
    float bias[SM_NC];
} panels;

/* Row `at` of the panel of column j. */
static const float *panel_row(const sm_gather *g, int64_t j, int64_t at)
{
    return g->b + (j - g->b_from) * g->packed_k + at * sm_panel_width(g->cols, j);
}

/* Everything of a tile of the panel of column j but its rows. */
static sm_tile panel_tile(panels *p, int64_t j)
{
    int width = sm_panel_width(p->g->cols, j);
    for (int s = 0; s < p->k.segs; s++)
        p->bp[s] = panel_row(p->g, j, p->at[s]);
    return (sm_tile){.nv = width / SM_VL, .n = (int)SM_MIN(width, p->g->cols - j), .segs = p->k.segs, .len = p->k.len, .b = p->bp,
                     .add = !p->k.first, .bias = p->k.last && p->g->bias.data ? p->bias + (j - p->j0) : NULL};
}

/* Columns j.. of the results of tile i; past its last row that row's again. */
static void put_results(const block *b, int i, int64_t j, float **c)
{
    for (int r = 0; r < SM_MR; r++)
        c[r] = b->dst[SM_MIN(b->from[i] + r, b->from[i + 1] - 1)] + j;
}

/* Partial sums of tile i apart from the results, if the last part of K does not end them, and what is added if it does. */
typedef struct beside { float *sums[SM_MR]; const float *plus[SM_MR]; } beside;

static void put_beside(const panels *p, const block *b, int i, int64_t j, beside *s, sm_tile *t)
{
    const sm_gather *g = p->g;
    for (int r = 0; r < t->m; r++) {
        s->sums[r] = g->partial ? g->partial + (b->from[i] + r) * SM_NC + (j - p->j0) : NULL;
        s->plus[r] = g->add + (t->c[r] - g->dst);
    }
    t->from = g->partial ? (const float *const *)s->sums : NULL;
    if (p->k.last)
        t->plus = s->plus;
    else if (g->partial)
        t->c = s->sums;
}

/* What is read after the panel of column j; NULL: nothing. */
static const float *next_panel(const panels *p, int64_t j)
{
    if (!p->k.segs)
        return NULL;
    if (j + SM_NR < p->j1)
        return panel_row(p->g, j + SM_NR, p->at[0]);
    return p->j0 + p->then < p->end ? panel_row(p->g, p->j0 + p->then, p->then_at) : NULL;
}

/* Copies of a tile's rows, [SM_MR][SM_COPY_LD], take the place of what its pointers [segs][SM_MR] point to. */
static void copy_tile(const kblock *k, const float **ptr, int m, float *copy)
{
    for (int s = 0; s < k->segs; s++)
        for (int i = 0; i < m; i++) {
            float *to = copy + i * SM_COPY_LD + s * k->len;
            memcpy(to, ptr[s * SM_MR + i], (size_t)k->len * sizeof *to);
            ptr[s * SM_MR + i] = to;
        }
}

static void run_panel(block *b, panels *p, int64_t j)
{
    float *c[2][SM_MR];
    beside s;
    sm_tile t = panel_tile(p, j);
    const float *next = next_panel(p, j);
    int64_t steps = t.segs * t.len;
    put_results(b, 0, j, c[0]);
    for (int i = 0; i < b->tiles; i++) {
        bool more = i + 1 < b->tiles || j + SM_NR < p->j1;
        t.m = b->from[i + 1] - b->from[i];
        t.rows = b->ptr + i * t.segs * SM_MR;
        t.c = c[i % 2];
        t.results = more ? c[(i + 1) % 2] : NULL;
        if (more)
            put_results(b, i + 1 < b->tiles ? i + 1 : 0, i + 1 < b->tiles ? j : j + SM_NR, c[(i + 1) % 2]);
        if (p->g->add)
            put_beside(p, b, i, j, &s, &t);
        if (p->g->copy && j == p->j0)
            copy_tile(&p->k, b->ptr + i * t.segs * SM_MR, t.m, p->g->copy + i * SM_MR * SM_COPY_LD);
        t.ahead = next && b->tiles < SLOW && i < 2 ? next + i * (steps / 2) * SM_NR : NULL;
        t.far = next && b->tiles >= SLOW && i < 4 * SM_NR / LINE ? next + i * (steps / 4) * LINE : NULL;
        t.next = j == p->j0 && i + 1 < b->tiles ? t.rows + t.segs * SM_MR : NULL;
        SM_K(sm_gemm_tile)(&t);
    }
}

static void run_kblock(panels *p, block *b)
{
    for (int s = 0; s < p->k.segs; s++) {
        int64_t off[2];
        p->at[s] = weight_row(p->g, p->k.tap + s, off) + p->k.channel;
        point_rows(p->g, b, p->k.segs, s, off[0], off[1], p->k.channel);
    }
    for (int64_t j = p->j0; j < p->j1; j += SM_NR)
        run_panel(b, p, j);
}

/* What is read after block k of `count`: the next one of these columns, the first one again, or after the last rows that of the
 * next columns. */
static void set_then(panels *p, int k, int count, bool last_rows)
{
    int64_t off[2];
    bool wraps = k + 1 == count;
    kblock then = kblock_at(p->g, wraps ? 0 : k + 1, count);
    p->then = wraps && last_rows ? p->j1 - p->j0 : 0;
    if (then.segs)
        p->then_at = weight_row(p->g, then.tap, off) + then.channel;
}

static void run_columns(const sm_gather *g, const int64_t r[2], int64_t j0, int64_t j1, int64_t end)
{
    block b;
    panels p = {.g = g, .j0 = j0, .j1 = j1, .end = end};
    int64_t rows = r[1] - r[0], blocks = (rows + SM_MC - 1) / SM_MC, tiles = (rows + SM_MR - 1) / SM_MR, t0, t1;
    int count = kblocks(g);
    for (int64_t j = j0; g->bias.data && j < j1; j++)
        p.bias[j - j0] = sm_load_f32(&g->bias, g->bias_base + j);
    for (int64_t i = 0; i < blocks; i++) {
        sm_range(tiles, (int)i, (int)blocks, &t0, &t1);
        int64_t r0 = t0 * rows / tiles, r1 = t1 * rows / tiles;
        b.rows = (int)(r1 - r0);
        b.tiles = (int)(t1 - t0);
        for (int t = 0; t <= b.tiles; t++)
            b.from[t] = (int16_t)(t * b.rows / b.tiles);
        find_rows(g, r[0] + r0, &b);
        for (int k = 0; k < count; k++) {
            p.k = kblock_at(g, k, count);
            set_then(&p, k, count, i == blocks - 1);
            run_kblock(&p, &b);
        }
    }
}

/* Rows r, at most SM_MC, of the columns [j0, j1) of a dense product: into g->sums, gates behind them, and from there to the
 * result. */
static void run_finished(const sm_gather *g, const int64_t r[2], int64_t j0, int64_t j1)
{
    const sm_finish *f = g->finish;
    sm_gather part = *g;
    float *gates = f->gate ? g->sums + (r[1] - r[0]) * SM_FINISH_COLS : NULL;
    part.ld_dst = SM_FINISH_COLS;
    part.dst = g->sums - (r[0] * SM_FINISH_COLS + j0);
    run_columns(&part, r, j0, j1, j1);
    if (gates) {
        part.dst += gates - g->sums;
        part.b += g->gate * g->packed_k;
        part.bias_base += g->cols;
        run_columns(&part, r, j0, j1, j1);
    }
    for (int64_t i = r[0]; i < r[1]; i++) {
        int64_t at = (i - r[0]) * SM_FINISH_COLS;
        const float *add = f->add_rows ? f->add + i / f->add_rows * g->ld_dst + j0 : NULL;
        SM_K(sm_finish_row)(f->act, g->sums + at, gates ? gates + at : NULL, add, g->dst + i * g->ld_dst + j0, j1 - j0);
    }
}

void SM_K(sm_gemm_gather)(const sm_gather *g, const int64_t r[2], const int64_t j[2])
{
    int64_t tiles = (r[1] - r[0] + SM_MR - 1) / SM_MR, blocks = (tiles * SM_MR + SM_MC - 1) / SM_MC, piece[2];
    for (int64_t j0 = j[0]; !g->finish && j0 < j[1]; j0 += SM_NC)
        run_columns(g, r, j0, SM_MIN(j0 + SM_NC, j[1]), j[1]);
    for (int64_t j0 = j[0]; g->finish && j0 < j[1]; j0 += SM_FINISH_COLS)
        for (int64_t i = 0; i < blocks; i++) {
            piece[0] = r[0] + i * tiles / blocks * SM_MR;
            piece[1] = SM_MIN(r[0] + (i + 1) * tiles / blocks * SM_MR, r[1]);
            run_finished(g, piece, j0, SM_MIN(j0 + SM_FINISH_COLS, j[1]));
        }
}
