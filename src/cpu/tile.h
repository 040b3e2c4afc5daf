/* A small matrix product for blocks that sit in cache (attention): C[m][n] (+)= A[m][k] B[k][n]. A has any two strides, so
 * a transposed A costs nothing; the rows of B are padded to a multiple of 16 floats. Every element of C is one chain of
 * fused multiply-adds over k in order, so the bits depend neither on tiling nor on the instruction set. */
#ifndef SM_TILE_H
#define SM_TILE_H

#include "cpu/simd.h"

#define SM_TILE_ROWS 6
#if SM_VL == 4
#define SM_TILE_VECS 4
#else
#define SM_TILE_VECS 2
#endif

typedef struct tile_mat { const float *p; int64_t rs, cs; } tile_mat; /* element (i, j) at p[i rs + j cs] */

/* `rows` and `vecs` are constants where this is called, n <= vecs * SM_VL columns are valid. */
static inline __attribute__((always_inline)) void tile_block(int rows, int vecs, int64_t k, tile_mat a, const float *b, int64_t ldb,
                                                             float *c, int64_t ldc, int64_t n, int add)
{
    vf s[SM_TILE_ROWS][SM_TILE_VECS];
    int whole = n == vecs * SM_VL;
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++)
            s[i][v] = !add    ? vset(0)
                      : whole ? vload(c + i * ldc + v * SM_VL)
                              : vload_part(c + i * ldc + v * SM_VL, sm_part(n, v), 0);
    for (int64_t p = 0; p < k; p++) {
        vf bv[SM_TILE_VECS];
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++)
            bv[v] = vload(b + p * ldb + v * SM_VL);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            vf av = vset(a.p[i * a.rs + p * a.cs]);
#pragma GCC unroll 4
            for (int v = 0; v < vecs; v++)
                s[i][v] = vfma(av, bv[v], s[i][v]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++)
            if (whole)
                vstore(c + i * ldc + v * SM_VL, s[i][v]);
            else if (sm_part(n, v))
                vstore_part(c + i * ldc + v * SM_VL, s[i][v], sm_part(n, v));
}

static inline __attribute__((always_inline)) void tile_columns(int vecs, int64_t m, int64_t k, tile_mat a, const float *b, int64_t ldb,
                                                               float *c, int64_t ldc, int64_t n, int add)
{
    int64_t i = 0;
    for (; i + SM_TILE_ROWS <= m; i += SM_TILE_ROWS) {
        tile_mat t = {a.p + i * a.rs, a.rs, a.cs};
        tile_block(SM_TILE_ROWS, vecs, k, t, b, ldb, c + i * ldc, ldc, n, add);
    }
    for (; i + 4 <= m; i += 4) {
        tile_mat t = {a.p + i * a.rs, a.rs, a.cs};
        tile_block(4, vecs, k, t, b, ldb, c + i * ldc, ldc, n, add);
    }
    for (; i + 2 <= m; i += 2) {
        tile_mat t = {a.p + i * a.rs, a.rs, a.cs};
        tile_block(2, vecs, k, t, b, ldb, c + i * ldc, ldc, n, add);
    }
    if (i < m) {
        tile_mat t = {a.p + i * a.rs, a.rs, a.cs};
        tile_block(1, vecs, k, t, b, ldb, c + i * ldc, ldc, n, add);
    }
}

static inline void tile_mm(int64_t m, int64_t n, int64_t k, tile_mat a, const float *b, int64_t ldb, float *c, int64_t ldc, int add)
{
    int64_t j = 0;
    for (; n - j > SM_VL; j += SM_TILE_VECS * SM_VL)
        tile_columns(SM_TILE_VECS, m, k, a, b + j, ldb, c + j, ldc, n - j < SM_TILE_VECS * SM_VL ? n - j : SM_TILE_VECS * SM_VL,
                     add);
    if (j < n)
        tile_columns(1, m, k, a, b + j, ldb, c + j, ldc, n - j, add);
}

/* y[r][0..width16) = x[r stride ..][0..width), zeros after: a B operand from rows of a larger tensor. */
static inline void tile_pack(const float *x, int64_t stride, int64_t rows, int64_t width, float *y)
{
    int64_t ld = (width + 15) & ~(int64_t)15;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < width; j += 16)
            for (int l = 0; l < SM_LV; l++)
                vstore(y + r * ld + j + l * SM_VL, vload16(x + r * stride, j, width, l, 0));
}

/* y[d][0..ld) = x[r stride + d] for r < rows, zeros after, ld = rows rounded up to 16: the transposed operand. */
static inline void tile_pack_transposed(const float *x, int64_t stride, int64_t rows, int64_t width, float *y)
{
    int64_t ld = (rows + 15) & ~(int64_t)15;
    sm_transpose(x, stride, y, ld, width, rows);
    for (int64_t d = 0; d < width && rows < ld; d++)
        memset(y + d * ld + rows, 0, sizeof *y * (size_t)(ld - rows));
}

#endif
