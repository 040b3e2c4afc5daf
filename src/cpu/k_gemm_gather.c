/* Gather product: the left operand's rows are runs of channels at pixels of an image, found through pointers; pixels
 * outside point to zeros. Loops as in BLIS: blocks of columns, of SM_MC rows, of K; panels; tiles. */
#include "cpu/gemm.h"

enum { NC = 16 * SM_NR }; /* columns whose partial sums stay in L2 between blocks of K */

static const float zeros[SM_KC];

/* A row's place: source position of tap offset 0, first pixel of its image, output row. */
typedef struct place { int64_t y, x; const float *image; } place;

typedef struct block {
    int rows, tiles;
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
        int64_t i0, i1;
        sm_range(b->rows, t, b->tiles, &i0, &i1);
        for (int64_t i = i0; i < i1; i++) {
            int64_t y = b->at[i].y + oy, x = b->at[i].x + ox;
            if (g->circular[0])
                y = wrap(y, g->src_size[0]);
            if (g->circular[1])
                x = wrap(x, g->src_size[1]);
            bool in = (uint64_t)y < (uint64_t)g->src_size[0] && (uint64_t)x < (uint64_t)g->src_size[1];
            ptr[i - i0] = in ? b->at[i].image + (y * g->src_size[1] + x) * g->ld_src + channel : zeros;
        }
    }
}

/* All tiles of a block for one panel and one block of K. The first two fetch a half each of the next panel (NULL: there is none). */
static void run_panel(const block *b, const sm_tile *tile, int64_t j, const float *next)
{
    float *c[SM_MR];
    sm_tile t = *tile;
    t.c = c;
    for (int i = 0; i < b->tiles; i++) {
        int64_t i0, i1;
        sm_range(b->rows, i, b->tiles, &i0, &i1);
        t.m = (int)(i1 - i0);
        t.ahead = next && i < 2 ? next + i * (t.segs * t.len / 2) * t.nv * SM_VL : NULL;
        for (int r = 0; r < t.m; r++)
            c[r] = b->dst[i0 + r] + j;
        t.rows = b->ptr + i * t.segs * SM_MR;
        SM_K(sm_gemm_tile)(&t);
    }
}

/* A block of K: taps [tap, tap + segs), channels [channel, channel + len). */
typedef struct kblock { int tap, segs; int64_t channel, len; bool first, last; } kblock;

static void run_kblock(const sm_gather *g, block *b, const kblock *kb, int64_t j0, int64_t j1)
{
    int64_t at[SM_MAX_SEGS]; /* weight row of each segment */
    for (int s = 0; s < kb->segs; s++) {
        int64_t oy, ox;
        int ky = tap_at(&g->taps[0], (kb->tap + s) / g->taps[1].count, &oy);
        int kx = tap_at(&g->taps[1], (kb->tap + s) % g->taps[1].count, &ox);
        at[s] = (int64_t)(ky * g->kw + kx) * g->k + kb->channel;
        point_rows(g, b, kb->segs, s, oy, ox, kb->channel);
    }
    for (int64_t j = j0; j < j1; j += SM_NR) {
        int width = sm_panel_width(g->cols, j);
        const float *bp[SM_MAX_SEGS];
        float bias[SM_NR];
        sm_tile t = {.nv = width / SM_VL, .n = (int)SM_MIN(width, g->cols - j), .segs = kb->segs, .len = kb->len, .b = bp, .add = !kb->first};
        for (int s = 0; s < kb->segs; s++)
            bp[s] = g->b + (j - g->b_from) * g->packed_k + at[s] * width;
        if (kb->last && g->bias.data) {
            for (int i = 0; i < t.n; i++)
                bias[i] = sm_load_f32(&g->bias, g->bias_base + j + i);
            t.bias = bias;
        }
        bool more = kb->segs && j + SM_NR < j1;
        run_panel(b, &t, j, more ? bp[0] + g->packed_k * SM_NR + at[0] * (sm_panel_width(g->cols, j + SM_NR) - width) : NULL);
    }
}

/* Blocks of K in the order of the sum: several taps at once, or a part of one. Without any tap the result is the bias. */
static void run_block(const sm_gather *g, block *b, int64_t j0, int64_t j1)
{
    int taps = g->taps[0].count * g->taps[1].count;
    if (g->k > SM_KC || !taps) {
        int64_t parts = (g->k + SM_KC - 1) / SM_KC;
        for (int i = 0; i < SM_MAX(taps, 1); i++)
            for (int64_t p = 0; p < (taps ? parts : 1); p++) {
                int64_t c0 = p * g->k / parts, c1 = (p + 1) * g->k / parts;
                kblock kb = {i, taps ? 1 : 0, c0, c1 - c0, i == 0 && p == 0, !taps || (i == taps - 1 && p == parts - 1)};
                run_kblock(g, b, &kb, j0, j1);
            }
        return;
    }
    int most = (int)SM_MIN(SM_KC / g->k, SM_MAX_SEGS), parts = (taps + most - 1) / most;
    for (int p = 0; p < parts; p++) {
        int t0 = p * taps / parts, t1 = (p + 1) * taps / parts;
        kblock kb = {t0, t1 - t0, 0, g->k, p == 0, p == parts - 1};
        run_kblock(g, b, &kb, j0, j1);
    }
}

void SM_K(sm_gemm_gather)(const sm_gather *g, const int64_t r[2], const int64_t j[2])
{
    block b;
    int64_t rows = r[1] - r[0], blocks = (rows + SM_MC - 1) / SM_MC, tiles = (rows + SM_MR - 1) / SM_MR;
    for (int64_t j0 = j[0]; j0 < j[1]; j0 += NC)
        for (int64_t i = 0; i < blocks; i++) {
            int64_t t0, t1, r0, r1;
            sm_range(tiles, (int)i, (int)blocks, &t0, &t1);
            r0 = t0 * rows / tiles;
            r1 = t1 * rows / tiles;
            b.rows = (int)(r1 - r0);
            b.tiles = (int)(t1 - t0);
            find_rows(g, r[0] + r0, &b);
            run_block(g, &b, j0, SM_MIN(j0 + NC, j[1]));
        }
}
