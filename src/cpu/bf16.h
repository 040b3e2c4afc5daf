/* Matrix products with operands rounded to bfloat16 and sums in f32, as AVX512_BF16's VDPBF16PS makes them: of every pair of
 * steps of K, the odd step's product and then the even one's are added to an f32, each rounded once, denormals taken for 0.
 * An output is one such chain over K in increasing order from zero, the bias added last, whatever the blocks, tasks and rows. */
#ifndef SM_BF16_H
#define SM_BF16_H

#include "cpu/gemm.h"

/* A tile is BF_MR rows by BF_NR columns: 24 sums. BF_PAIRS pairs of steps of BF_NR columns (98 KB) and of BF_MC rows (452 KB) share
 * L2, as many bytes as the f32 kernels' blocks. */
enum { BF_MR = 12, BF_NR = 32, BF_PAIRS = 768, BF_MC = 12 * BF_MR, BF_LD = BF_PAIRS + 16 };

static inline int64_t bf16_pairs(int64_t k) { return (k + 1) / 2; }
static inline int64_t bf16_panels(int64_t cols) { return (cols + BF_NR - 1) / BF_NR; }

/* Words of lo's values in the low halves and hi's in the high ones. */
static inline __m512i bf16_paired(vf lo, vf hi)
{
    static const uint16_t order[32] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_permutexvar_epi16(_mm512_loadu_si512(order), (__m512i)_mm512_cvtne2ps_pbh((__m512)hi, (__m512)lo));
}

/* Pairs [p[0], p[1]) of the panel of columns j.. of a weight [N][K] of any type, as [pair][BF_NR] with the even step in the low
 * half (k_bf16_pack.c); zeros past the last column and step. */
void sm_bf16_pack(const sm_tensor *w, int64_t j, const int64_t p[2], uint32_t *out);

typedef struct bf16_product {
    const float *x;             /* [rows][k] */
    float *dst;                 /* [rows][cols] */
    int64_t k, cols;
    const uint32_t *b;          /* panels of [pairs of k][BF_NR], the first one that of column b_from */
    int64_t b_from;
    sm_tensor bias;             /* data NULL: none */
    uint32_t *copy;             /* the task's own: rows as pairs, BF_LD for each row of a block */
    const sm_finish *finish;    /* NULL: nothing is done to the results; with it: */
    float *sums;                /* bf16_sums(k) floats for each row of a block */
    int64_t gate;               /* with a gate: columns from a result's panel to its gate's */
} bf16_product;

/* Columns of unfinished results of a row: few enough to stay in L2 beside the rest, and many where rows are rounded again for each
 * such block since K is cut. With a gate half of them. */
static inline int64_t bf16_sums(int64_t k) { return bf16_pairs(k) > BF_PAIRS ? 16 * BF_NR : 8 * BF_NR; }

/* Rows [r[0], r[1]) and columns [j[0], j[1]), j[0] a multiple of BF_NR (k_bf16_gemm.c). */
void sm_bf16_gemm(const bf16_product *g, const int64_t r[2], const int64_t j[2]);

/* Overwrites attention's row (k_bf16_attention.c). */
void sm_bf16_attention_rows(sm_kernel *k);

#endif
