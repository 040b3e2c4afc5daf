/* linear of few rows: the weight is read once, as it is stored. STEPS values of some columns at a time become f32 in a buffer
 * that stays in L1 and are used up by all rows; nothing is packed. A column's sum is the same chain of multiply-adds over K as
 * everywhere (gemm.h), so a row has the same bits among few rows and among many. Four panels at a time: a single row has no
 * more chains than vectors of columns, and eight hide a multiply-add's latency. */
#include "cpu/linear_few.h"


/* 32 KB of weights. More steps share more of a block's unpacking (AVX2, 64 and 128 steps: Q6_K 1.07 and 0.92 of f16's time), but
 * 64 KB leave L1 (AVX-512, 64 and 128 steps: f16 1.30 and 1.63 ms). */
enum { STEPS = SM_VL == 16 ? 64 : 128, WIDE = 4, COLS = WIDE * SM_NR, MOST = 32 };

bool SM_K(sm_linear_few)(const sm_node *n) { return sm_linear_rows(n) <= SM_FEW_ROWS; }

int SM_K(sm_linear_few_tasks)(const sm_node *n)
{
    return (int)SM_MIN((n->src[1]->dims[0] + COLS - 1) / COLS, MOST);
}

/* m rows of sums, COLS apart, of `panels` whole panels: go on with n steps. x: [m][ld]; w: [panel][STEPS][SM_NR]. */
SM_FLAT void add_steps(const int m, const int panels, const float *x, int64_t ld, const float *w, int64_t n, float *sums)
{
    enum { MOST_VECTORS = WIDE * SM_NV };
    vf acc[3][MOST_VECTORS];
    SM_UNROLL(16) for (int i = 0; i < m; i++)
        SM_UNROLL(16) for (int j = 0; j < panels * SM_NV; j++)
            acc[i][j] = vload(sums + i * COLS + j * SM_VL);
    for (int64_t k = 0; k < n; k++) {
        vf a[3];
        SM_UNROLL(16) for (int i = 0; i < m; i++)
            a[i] = vset(x[i * ld + k]);
        SM_UNROLL(16) for (int j = 0; j < panels * SM_NV; j++) {
            vf b = vload(w + j / SM_NV * (STEPS * SM_NR) + k * SM_NR + j % SM_NV * SM_VL);
            SM_UNROLL(16) for (int i = 0; i < m; i++)
                acc[i][j] = vfma(a[i], b, acc[i][j]);
        }
    }
    SM_UNROLL(16) for (int i = 0; i < m; i++)
        SM_UNROLL(16) for (int j = 0; j < panels * SM_NV; j++)
            vstore(sums + i * COLS + j * SM_VL, acc[i][j]);
}

/* As many rows as one to three take the panels together, the others one by one. */
static void multiply(int64_t m, int64_t cols, const float *x, int64_t ld, const float *w, int64_t n, float *sums)
{
    if (m <= 3 && cols == COLS) {
        if (m == 1)
            add_steps(1, WIDE, x, ld, w, n, sums);
        for (int p = 0; p < WIDE && m > 1; p += 2, w += 2 * STEPS * SM_NR, sums += 2 * SM_NR)
            m == 2 ? add_steps(2, 2, x, ld, w, n, sums) : add_steps(3, 2, x, ld, w, n, sums);
        return;
    }
    for (int64_t j = 0; j < cols; j += SM_NR, w += STEPS * SM_NR) {
        const float *rows[SM_MR];
        float *c[SM_MR];
        int tiles = (int)((m + SM_MR - 1) / SM_MR), width = sm_panel_width(cols, j);
        sm_tile t = {.nv = width / SM_VL, .n = width, .segs = 1, .len = n, .rows = rows, .b = &w, .c = c, .add = true};
        for (int i = 0; i < tiles; i++) {
            int64_t r0, r1;
            sm_range(m, i, tiles, &r0, &r1);
            t.m = (int)(r1 - r0);
            for (int r = 0; r < t.m; r++) {
                rows[r] = x + (r0 + r) * ld;
                c[r] = sums + (r0 + r) * COLS + j;
            }
            SM_K(sm_gemm_tile)(&t);
        }
    }
}

/* Columns [j0, j0 + cols), at most COLS. */
static void run_columns(const sm_kcall *c, int64_t j0, int64_t cols)
{
    float w[WIDE * STEPS * SM_NR] __attribute__((aligned(64))), sums[SM_FEW_ROWS * COLS] __attribute__((aligned(64)));
    const float *x = c->src[0].data;
    int64_t n = c->src[1].dims[0], depth = c->src[1].dims[1], m = sm_numel(c->node) / n;
    sm_pack_src s = {.t = c->src[1], .col = depth, .step = 1, .n = n, .taps = 1};
    memset(sums, 0, (size_t)(m * COLS) * sizeof *sums);
    for (int64_t k = 0; k < depth; k += s.k) {
        s.k = SM_MIN(STEPS, depth - k);
        s.base = k;
        for (int64_t j = 0; j < cols; j += SM_NR)
            SM_K(sm_gemm_pack)(&s, j0 + j, (const int64_t[]){0, s.k}, w + j * STEPS);
        multiply(m, cols, x + k, depth, w, s.k, sums);
    }
    for (int64_t j = 0; j < cols; j++) {
        float *y = (float *)c->dst.data + j0 + j;
        float bias = c->src[2].data ? sm_load_f32(&c->src[2], j0 + j) : 0;
        for (int64_t i = 0; i < m; i++)
            y[i * n] = c->src[2].data ? sums[i * COLS + j] + bias : sums[i * COLS + j];
    }
}

void SM_K(sm_linear_few_run)(const sm_kcall *c, int task, int tasks)
{
    int64_t n = c->src[1].dims[0], a, b;
    sm_range((n + COLS - 1) / COLS, task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++)
        run_columns(c, i * COLS, SM_MIN(COLS, n - i * COLS));
}
