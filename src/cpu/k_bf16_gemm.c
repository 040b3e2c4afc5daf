/* Products of rows that are rounded to bfloat16 as they are copied, a block at a time, with panels of rounded columns: see bf16.h.
 * Loops as in k_gemm_gather.c, but the left operand is copied once for all columns where K is not cut: reading and rounding it
 * again costs as much as 30 columns.
 *
 * Floor of 12 rows, 32 columns and a pair of steps: 12 cycles of two units that each make sixteen pairs of products a cycle;
 * beside them 14 loads, of which two can go in a cycle. */
#include "cpu/bf16.h"


enum { IN_L2 = 640 << 10 };

typedef struct tile {
    int64_t pairs, ldc;
    const uint32_t *a, *b;      /* [BF_MR][BF_LD], [pairs][BF_NR] */
    const uint32_t *far;        /* what is read later, to L2: a line of 64 bytes every four pairs; NULL: nothing. Likewise */
    const float *rows;          /* the rows that are copied next */
    float *c;
    const float *bias;          /* BF_NR of them, added at the end; NULL: none */
    __mmask16 part[2];          /* columns that are stored */
    bool add;                   /* go on from c instead of zero */
} tile;

SM_FLAT __m512i kept(__m512i x)
{
    __asm__("" : "+v"(x)); /* in a register: a broadcast from memory for each of two uses would be one load too many */
    return x;
}

SM_FLAT void step(const int m, __m512 (*acc)[2], const uint32_t *a, const uint32_t *b)
{
    __m512i b0 = kept(_mm512_loadu_si512(b)), b1 = kept(_mm512_loadu_si512(b + 16));
    SM_UNROLL(16) for (int i = 0; i < m; i++) {
        __m512i x = kept(_mm512_set1_epi32((int)a[i * BF_LD]));
        acc[i][0] = _mm512_dpbf16_ps(acc[i][0], (__m512bh)x, (__m512bh)b0);
        acc[i][1] = _mm512_dpbf16_ps(acc[i][1], (__m512bh)x, (__m512bh)b1);
    }
}

SM_FLAT void begin(const int m, const tile *t, __m512 (*acc)[2])
{
    const float *c = t->c;
    const int64_t ldc = t->ldc;
    SM_UNROLL(16) for (int i = 0; i < m; i++)
        SM_UNROLL(16) for (int v = 0; v < 2; v++)
            acc[i][v] = _mm512_setzero_ps();
    if (t->add)
        SM_UNROLL(16) for (int i = 0; i < m; i++)
            SM_UNROLL(16) for (int v = 0; v < 2; v++)
                acc[i][v] = _mm512_maskz_loadu_ps(t->part[v], c + i * ldc + 16 * v);
}

SM_FLAT void end(const int m, const tile *t, __m512 (*acc)[2])
{
    float *c = t->c;
    const int64_t ldc = t->ldc;
    const __mmask16 part[2] = {t->part[0], t->part[1]};
    if (t->bias)
        SM_UNROLL(16) for (int v = 0; v < 2; v++) {
            __m512 bias = _mm512_loadu_ps(t->bias + 16 * v);
            SM_UNROLL(16) for (int i = 0; i < m; i++)
                acc[i][v] = _mm512_add_ps(acc[i][v], bias);
        }
    SM_UNROLL(16) for (int i = 0; i < m; i++)
        SM_UNROLL(16) for (int v = 0; v < 2; v++)
            if (part[1] == 0xffff)
                _mm512_storeu_ps(c + i * ldc + 16 * v, acc[i][v]);
            else
                _mm512_mask_storeu_ps(c + i * ldc + 16 * v, part[v], acc[i][v]);
}

SM_FLAT void multiply(const int m, const tile *t)
{
    __m512 acc[BF_MR][2];
    const uint32_t *a = t->a, *b = t->b, *far = t->far ? t->far : t->b;
    const float *rows = t->rows ? t->rows : (const float *)t->b;
    const int64_t line = t->far ? 16 : 0, row_line = t->rows ? 16 : 0;
    begin(m, t, acc);
    int64_t p = t->pairs;
    for (; p >= 4; p -= 4, a += 4, b += 4 * BF_NR, far += line, rows += row_line) {
        __builtin_prefetch(far, 0, 2);
        __builtin_prefetch(rows, 0, 2);
        SM_UNROLL(16) for (int s = 0; s < 4; s++)
            step(m, acc, a + s, b + s * BF_NR);
    }
    for (; p; p--, a++, b += BF_NR)
        step(m, acc, a, b);
    end(m, t, acc);
}

#define ROWS(M) static __attribute__((noinline)) void tile_##M(const tile *t) { multiply(M, t); }
ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12)
static void (*const tile_of[BF_MR])(const tile *) = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6,
                                                    tile_7, tile_8, tile_9, tile_10, tile_11, tile_12};

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

typedef struct block {
    int64_t row, rows;          /* of the product */
    int tiles;
    int64_t p0, p1;             /* pairs that `copy` holds */
    bool first, last;           /* of K */
    const float *ahead, *end;   /* of the next block's rows, what is not asked for yet */
} block;

/* First row of tile i within the block; tiles are of about equal height. */
static int64_t tile_row(const block *b, int i) { return i * b->rows / b->tiles; }

static int k_blocks(int64_t pairs) { return (int)((pairs + BF_PAIRS - 1) / BF_PAIRS); }

/* Shares of whole sixteens, so that none is longer than BF_PAIRS. */
static void set_pairs(block *b, int64_t pairs, int i, int count)
{
    int64_t lines = (pairs + 15) / 16;
    b->p0 = i * lines / count * 16;
    b->p1 = SM_MIN((i + 1) * lines / count * 16, pairs);
    b->first = i == 0;
    b->last = i == count - 1;
}

/* Tiles of a block of rows: its copy and what it is made of, which comes from further away meanwhile, in L2. */
static int64_t block_tiles(int64_t pairs)
{
    int64_t tiles = IN_L2 / (12 * BF_MR * SM_MIN(pairs, BF_PAIRS));
    return SM_MAX(SM_MIN(tiles, BF_MC / BF_MR), 6);
}

static void copy_rows(const bf16_product *g, const block *b)
{
    for (int64_t r = 0; r < b->rows; r++) {
        const float *x = g->x + (b->row + r) * g->k + 2 * b->p0;
        uint32_t *to = g->copy + r * BF_LD;
        int64_t n = SM_MIN(2 * (b->p1 - b->p0), g->k - 2 * b->p0), i = 0;
        for (; i + 32 <= n; i += 32)
            _mm512_storeu_si512(to + i / 2, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(x + i)));
        __mmask32 m = (1u << (n - i)) - 1;
        if (m)
            _mm512_storeu_si512(to + i / 2, (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps((__mmask16)(m >> 16), x + i + 16),
                                                                         _mm512_maskz_loadu_ps((__mmask16)m, x + i)));
    }
}

/* n values of a bias from element `at` on. */
static void load_bias(const sm_tensor *t, int64_t at, int n, float out[BF_NR])
{
    for (int i = 0; i < n; i++)
        out[i] = sm_load_f32(t, at + i);
}

/* Columns [j0, j1) of the block; `shift` further on are the weight's, whose panel is `panel` columns behind. */
typedef struct half { int64_t shift, panel; float *c; int64_t ldc; } half;

static void run_panels(const bf16_product *g, block *b, int64_t j0, int64_t j1, const half *h)
{
    int64_t pairs = bf16_pairs(g->k);
    float bias[BF_NR] = {0};
    for (int64_t j = j0; j < j1; j += BF_NR) {
        int n = (int)SM_MIN(BF_NR, j1 - j);
        const uint32_t *panel = g->b + (j - g->b_from + h->panel) * pairs + b->p0 * BF_NR, *next = panel + pairs * BF_NR;
        tile t = {.pairs = b->p1 - b->p0, .ldc = h->ldc, .b = panel, .add = !b->first};
        t.part[0] = (__mmask16)((1u << SM_MIN(n, 16)) - 1);
        t.part[1] = (__mmask16)((1u << SM_MAX(n - 16, 0)) - 1);
        if (b->last && g->bias.data) {
            load_bias(&g->bias, j + h->shift, n, bias);
            t.bias = bias;
        }
        for (int i = 0; i < b->tiles; i++) {
            int64_t r = tile_row(b, i), m = tile_row(b, i + 1) - r;
            t.a = g->copy + r * BF_LD;
            t.c = h->c + r * h->ldc + (j - j0);
            t.far = i < 8 && j + BF_NR < j1 ? next + i * (t.pairs / 4) * 16 : NULL;
            t.rows = b->ahead < b->end ? b->ahead : NULL;
            b->ahead += t.rows ? t.pairs / 4 * 16 : 0;
            tile_of[m - 1](&t);
        }
    }
}

static void finish_rows(const bf16_product *g, const block *b, int64_t j0, int64_t j1)
{
    const sm_finish *f = g->finish;
    int64_t ld = bf16_sums(g->k);
    for (int64_t r = 0; r < b->rows; r++) {
        const float *in = g->sums + r * ld, *add = f->add_rows ? f->add + (b->row + r) / f->add_rows * g->cols + j0 : NULL;
        SM_K(sm_finish_row)(f->act, in, f->gate ? in + ld / 2 : NULL, add, g->dst + (b->row + r) * g->cols + j0, j1 - j0);
    }
}

/* Columns [j0, j1) of a block of rows; `copied` is whether all of K lies in g->copy. */
static void run_columns(const bf16_product *g, block *b, int64_t j0, int64_t j1, bool copied)
{
    int64_t pairs = bf16_pairs(g->k), ld = bf16_sums(g->k);
    int count = k_blocks(pairs);
    half to = {0, 0, g->dst + b->row * g->cols + j0, g->cols}, gates = {0};
    if (g->finish) {
        to = (half){0, 0, g->sums, ld};
        gates = (half){g->cols, g->gate, g->sums + ld / 2, ld};
    }
    for (int i = 0; i < count; i++) {
        set_pairs(b, pairs, i, count);
        if (!copied)
            copy_rows(g, b);
        run_panels(g, b, j0, j1, &to);
        if (g->finish && g->finish->gate)
            run_panels(g, b, j0, j1, &gates);
    }
    if (g->finish)
        finish_rows(g, b, j0, j1);
}

void sm_bf16_gemm(const bf16_product *g, const int64_t r[2], const int64_t j[2])
{
    int64_t rows = r[1] - r[0], tiles = (rows + BF_MR - 1) / BF_MR, most = block_tiles(bf16_pairs(g->k));
    int64_t blocks = (tiles + most - 1) / most, wide = 16 * BF_NR;
    bool whole = k_blocks(bf16_pairs(g->k)) == 1;
    if (g->finish)
        wide = bf16_sums(g->k) / (g->finish->gate ? 2 : 1);
    for (int64_t i = 0; i < blocks; i++) {
        int64_t t0 = i * tiles / blocks, t1 = (i + 1) * tiles / blocks;
        block b = {.row = r[0] + t0 * rows / tiles, .tiles = (int)(t1 - t0)};
        b.rows = r[0] + t1 * rows / tiles - b.row;
        if (whole && i + 1 < blocks) {
            b.ahead = g->x + (b.row + b.rows) * g->k;
            b.end = b.ahead + ((i + 2) * tiles / blocks * rows / tiles - t1 * rows / tiles) * g->k;
        }
        for (int64_t c = j[0]; c < j[1]; c += wide)
            run_columns(g, &b, c, SM_MIN(c + wide, j[1]), whole && c > j[0]);
    }
}
