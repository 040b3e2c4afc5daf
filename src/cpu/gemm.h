/* Matrix products of the CPU backend, all made of one microkernel: a tile of SM_MR rows by SM_NV vectors of outputs that
 * stays in registers while K runs. After Goto and van de Geijn (2008) and BLIS; the left operand of a convolution is read
 * in place through row pointers (indirect convolution, Dukhan 2019), so nothing is unrolled into memory.
 *
 * Every output is one chain of fused multiply-adds over K in increasing order, starting from zero, the bias added last.
 * Where K is blocked the chain goes on from the stored partial sum, which changes no bit: results do not depend on the
 * tile, the blocking, the instruction set, the number of rows or the number of tasks. */
#ifndef SM_GEMM_H
#define SM_GEMM_H

#include "cpu/cpu.h"
#include "cpu/simd.h"

/* Tiles: 12x32 (AVX-512), 6x16 (AVX2), 8x12 (NEON). SM_KC bounds the K steps of a block: a panel of the right operand (SM_KC x
 * SM_NR) and SM_MC rows of the left one share L2. Partial sums that go to memory and back cost more than a panel that comes from
 * L2 instead of L1 (measured, AVX-512, 384 to 768 steps: 256x1280 to 1280 86 to 88%, 1024x640 to 640 88 to 91% of the peak). */
#if SM_VL == 16
enum { SM_MR = 12, SM_NV = 2, SM_KC = 768, SM_MC = 12 * SM_MR };
#elif SM_VL == 8
enum { SM_MR = 6, SM_NV = 2, SM_KC = 512, SM_MC = 24 * SM_MR };
#else
enum { SM_MR = 8, SM_NV = 3, SM_KC = 256, SM_MC = 16 * SM_MR };
#endif
enum { SM_NR = SM_NV * SM_VL, SM_MAX_SEGS = 16 };

/* ---- microkernel (k_gemm_tile.c) --------------------------------------------------------------------------------- */

/* Steps of K for which row i of the left operand is at a[step * lda + i] and the right one at b[step * width]. */
typedef struct sm_strip { const float *a, *b; int64_t len; } sm_strip;

typedef struct sm_tile {
    int m, nv;                /* rows 1..SM_MR, vectors 1..SM_NV; the right operand is nv * SM_VL floats wide */
    int n;                    /* columns that are stored, <= nv * SM_VL; bias has as many */
    int segs;                 /* K is made of segs runs, given either by ... */
    const sm_strip *strips;   /* [segs], with lda, or if NULL by ... */
    int64_t lda;
    int64_t len;              /* ... runs of len steps, */
    const float *const *rows; /* [segs][SM_MR]: start of each row's run, and */
    const float *const *b;    /* [segs]: [len][nv * SM_VL] */
    float *const *c;          /* [m] */
    const float *bias;        /* added at the end; NULL: none */
    bool add;                 /* go on from `from`, [m], or where that is NULL from c, instead of zero */
    const float *const *from;
    const float *const *plus; /* [m]: added after the bias; NULL: nothing */
    bool add_to;              /* these steps' own sum is added to c */
    /* Fetched meanwhile (rows only; NULL: nothing): */
    const float *ahead;       /* what is read next, half as long as b; */
    const float *far;         /* what is read later: to L2, a line of 64 bytes every four steps; */
    const float *const *next; /* rows of the next tile, [segs][SM_MR]; */
    float *const *results;    /* where the next tile's results go, [SM_MR]: all of them from 96 steps on */
} sm_tile;

void SM_K(sm_gemm_tile)(const sm_tile *t);

/* ---- cutting a product into pieces, and packing the right operand (k_gemm_pack.c) -------------------------------- */

/* Panels of SM_NR columns, the last as narrow as whole vectors allow; each [k][width], zeros past the last column. The
 * panel that starts at column j (a multiple of SM_NR) is at packed + j * k. */
static inline int sm_panel_width(int64_t n, int64_t j)
{
    int64_t left = (n - j + SM_VL - 1) / SM_VL * SM_VL;
    return (int)(left < SM_NR ? left : SM_NR);
}
static inline int64_t sm_packed_cols(int64_t n) { return (n + SM_VL - 1) / SM_VL * SM_VL; }
static inline int64_t sm_panels(int64_t n) { return (n + SM_NR - 1) / SM_NR; }

/* Element (tap, k, j) of a matrix is element base + j * col + k * step + tap * tap_step of t, of any type of weights. */
typedef struct sm_pack_src {
    sm_tensor t;
    int64_t base, col, step, tap_step;
    int64_t n, k, taps;
} sm_pack_src;

/* Steps [steps[0], steps[1]) of the panel of columns j.., which lies at out as [taps][k][width]. */
void SM_K(sm_gemm_pack)(const sm_pack_src *s, int64_t j, const int64_t steps[2], float *out);

/* Columns [c0, c1) of that panel where t is none of f32, f16 and bf16 (k_gemm_stored.c). */
void SM_K(sm_gemm_pack_stored)(const sm_pack_src *s, int64_t j, const int cols[2], const int64_t steps[2], int width, float *out);

/* Where each step's columns, every one with its taps, are one run (k_gemm_across.c): width and cols (stored) of the panel. */
bool SM_K(sm_gemm_runs_across)(const sm_pack_src *s);
void SM_K(sm_gemm_pack_across)(const sm_pack_src *s, int64_t j, const int64_t steps[2], int width, int cols, float *out);

/* Shares a weight's panels [panels[0], panels[1]) out between tasks in pieces of SM_PACK_K steps: piece i is of panel
 * panels[0] + i / pieces, steps as written to k. */
enum { SM_PACK_K = 256 };
static inline int64_t sm_pack_pieces(int64_t k) { return (k + SM_PACK_K - 1) / SM_PACK_K; }
static inline void sm_pack_piece(int64_t k, int64_t i, int64_t steps[2])
{
    steps[0] = i % sm_pack_pieces(k) * SM_PACK_K;
    steps[1] = SM_MIN(steps[0] + SM_PACK_K, k);
}

/* A product of m rows, n columns and k steps in tm x tn pieces of whole panels, about equal; chosen from shapes alone. a
 * is the number of floats read for one row (less than k where a convolution reads them again). */
typedef struct sm_grid { int tm, tn; } sm_grid;
sm_grid SM_K(sm_gemm_grid)(int64_t m, int64_t n, double k, double a, int most);
void SM_K(sm_gemm_piece)(sm_grid g, int piece, int64_t m, int64_t n, int64_t r[2], int64_t j[2]);

/* The panels that a call is about, of `panels`. */
static inline void sm_part_of(const sm_kcall *c, int64_t panels, int64_t part[2])
{
    part[0] = c->part[0];
    part[1] = c->part[1] ? c->part[1] : panels;
}

/* ---- gather product: linear, conv2d, conv2d_dx, matmul (k_gemm_gather.c) ----------------------------------------- */

/* Taps along one axis: up to three arithmetic progressions. Tap k + i*k_step reads source position grid*stride + off +
 * i*off_step, for i < count. */
typedef struct sm_prog { int count, k, k_step; int64_t off, off_step; } sm_prog;
typedef struct sm_taps { sm_prog p[3]; int count; } sm_taps; /* count: of all three */

/* Rows are the pixels of a grid [n, grid[0], grid[1]]; row (i, y, x) is written to output pixel (i, y*dst_step[0] +
 * dst_off[0], ...). The sum runs over taps[0], taps[1], channels; positions outside the source read as zeros, or wrap
 * around (at most once) where circular. A linear layer is grid [1, 1, M], one tap. */
typedef struct sm_gather {
    const float *src;           /* [n, src_size[0], src_size[1], ld_src]; channels 0..k-1 are read */
    int64_t src_size[2], ld_src;
    int stride[2], circular[2];
    int64_t n, grid[2];
    float *dst;                 /* [n, dst_size[0], dst_size[1], ld_dst]; channels 0..cols-1 are written */
    int64_t dst_size[2], ld_dst;
    int dst_step[2], dst_off[2];
    sm_taps taps[2];
    int kw;                     /* packed weights hold tap (ky, kx) at ky * kw + kx */
    int64_t k, cols, packed_k;  /* packed_k: all taps of the packed weight times k */
    const float *b;             /* panels of [taps][k][width], the first one that of column b_from */
    int64_t b_from;
    sm_tensor bias;             /* data NULL: none */
    int64_t bias_base;
    const float *add;           /* as the results, [cols] of ld_dst a row: added to them; NULL: nothing. If it is they themselves: */
    float *partial;             /* this task's own, SM_PARTIAL floats, for sums of parts of K; NULL: they are in the results */
    float *copy;                /* this task's own, sm_gather_copy(ld_src) floats; NULL: rows are read in place */
    const sm_finish *finish;    /* what is done to the results of a linear layer; NULL: nothing. With it: */
    float *sums;                /* SM_FINISH_COLS floats of the task's own for each of its rows, at most SM_MC; with gate twice so
                                   many, */
    int64_t gate;               /* with gate: columns from a result's to its gate's, in panels behind them: also floats /
                                   packed_k */
} sm_gather;

/* Rows that are a multiple of a page apart share few sets of the caches: a block of SM_MC pushes itself out of L2, and is copied
 * (measured, AVX-512: 1024x3072 to 3072 64 to 84% of the peak, 2048x2048 to 2048 64 to 83%; other widths lose 3 points by it). */
enum { SM_COPY_LD = SM_KC + 16 };
static inline int64_t sm_gather_copy(int64_t ld) { return ld % 1024 == 0 ? SM_MC * SM_COPY_LD : 0; }

/* Columns whose sums of parts of K stay in L2, and those of a block of rows. */
enum { SM_NC = 16 * SM_NR, SM_PARTIAL = SM_MC * SM_NC };

/* A gather product's results that are not finished yet: SM_MC rows of SM_FINISH_COLS columns, which stay in L2; with gate twice
 * so many. */
enum { SM_FINISH_COLS = 4 * SM_NR };

/* Rows of a linear layer. */
static inline int64_t sm_linear_rows(const sm_node *n) { return sm_numel(n) / n->dims[n->rank - 1]; }

/* What a tile does itself. */
static inline bool sm_only_adds(const sm_finish *f) { return f->act == SM_OP_INPUT && !f->gate && f->add_rows == 1; }

/* n results: in (times by act(gate) or through act) plus add, which may be NULL, to out, which may be add (k_finish.c). */
void SM_K(sm_finish_row)(sm_op_id act, const float *in, const float *gate, const float *add, float *out, int64_t n);
bool SM_K(sm_finish_knows)(sm_op_id act);

/* Rows [r[0], r[1]) and columns [j[0], j[1]), j[0] a multiple of SM_NR. */
void SM_K(sm_gemm_gather)(const sm_gather *g, const int64_t r[2], const int64_t j[2]);

/* ---- outer product: conv2d_dw, matmul with a transposed left operand (k_gemm_outer.c) ---------------------------- */

/* out[(tap, i), j] = sum over the pixels p = (n, y, x) of a grid of src[source pixel of p and tap][i] * right[p][j]. */
typedef struct sm_outer {
    const float *src;           /* as in sm_gather; i < m channels are used */
    int64_t src_size[2], ld_src, m;
    int stride[2], circular[2];
    int64_t n, grid[2];
    sm_taps taps[2];
    sm_pack_src right;          /* k = pixels, n = columns */
    float *out;                 /* [taps][m][ld_out] */
    int64_t ld_out;
    float *scratch;             /* this task's own, sm_scratch(ld_src) floats */
} sm_outer;

/* Rows of the left operand that are a multiple of a page apart share few sets of the caches. Where tiles are narrower than
 * a cache line it pays to copy SM_OUTER_K pixels by SM_OUTER_M rows first (measured: AVX2 62% to 78% of peak, AVX-512 76%
 * to 67%). */
enum { SM_OUTER_K = 256, SM_OUTER_M = 192 };
static inline int64_t sm_scratch(int64_t ld) { return SM_VL < 16 && ld % 1024 == 0 ? SM_OUTER_K * SM_OUTER_M : 0; }

/* In how many equal parts the sum over k steps is cut: more than one where the outputs are too few to be shared out
 * between threads. Part of the definition of the result's bits, so it is the same on every instruction set. */
static inline int sm_gemm_splits(int64_t outputs, int64_t k)
{
    int64_t s = SM_MIN(SM_MIN(524288 / outputs, k / 1024), 8);
    return (int)SM_MAX(s, 1);
}

/* Rows r of the taps * m, columns j, summed over pixels [p[0], p[1]). */
void SM_K(sm_gemm_outer)(const sm_outer *o, const int64_t r[2], const int64_t j[2], const int64_t p[2]);

#endif
