/* conv2d_dw of 3x3 kernels at stride 1 by minimal filtering F(3x3, 2x2), the transpose of k_winograd.c: the 4x4 tile of the
 * picture is turned as there, the 2x2 tile of the result's gradient into 16 numbers (the transpose of the results' turn), and the
 * sums over the tiles of their products turn into 3x3 (the transpose of the kernel's turn).
 *
 * Every one of the 16 points is a matrix product [C, tiles] x [tiles, O]. Pass 0 makes them in pieces that stay in the L2
 * cache, over parts of the tiles where the result has few elements; pass 1 adds the parts in order and turns them. Where there is
 * one part, pass 0 turns each piece at once. */
#include "cpu/winograd.h"

/* A piece of the sums, [POINTS][ROWS][COLS], and the turned tiles that go into it fill the L2 cache. LEAST pixels
 * (measured at 256, 1280 to 1280 channels: 90% of the peak, 36% as a direct sum; not below). */
enum { POINTS = SM_WINO_POINTS, TILES = 64, ROWS = 48, COLS = 96, MOST = 32, LEAST = 200 };

typedef struct dw {
    sm_wino_tiles in;               /* x */
    int64_t oh, ow, c, o, tiles;
    const float *dy;                /* [n, oh, ow, o] */
    int64_t down, across;           /* pieces of ROWS channels and COLS columns */
    int splits;                     /* parts of the tiles */
} dw;

bool SM_K(sm_winograd_dw_fits)(const sm_node *n)
{
    const int64_t *y = n->src[1]->dims;
    return y[0] * y[1] * y[2] >= LEAST && n->dims[2] == 3 && n->dims[3] == 3 && n->dims[0] >= 16 && n->dims[1] >= 16 &&
           sm_wino_geometry(&n->p, n->src[0]->dims, y, 4);
}

static dw make(const sm_node *n)
{
    const int64_t *x = n->src[0]->dims, *y = n->src[1]->dims;
    dw p = {.in = sm_wino_tiles_of(&n->p, x, y, 2), .oh = y[1], .ow = y[2], .c = x[3], .o = y[3]};
    p.tiles = x[0] * p.in.th * p.in.tw;
    p.down = (p.c + ROWS - 1) / ROWS;
    p.across = (sm_panels(p.o) + COLS / SM_NR - 1) / (COLS / SM_NR);
    p.splits = sm_gemm_splits(sm_numel(n), x[0] * p.oh * p.ow);
    return p;
}

static int64_t items(const dw *p) { return p->splits * p->down * p->across; }

int SM_K(sm_winograd_dw_tasks)(const sm_node *n, int pass)
{
    dw p = make(n);
    if (pass && p.splits == 1)
        return 1;
    return pass ? (int)SM_MIN(SM_MIN(sm_numel(n) / 32768 + 1, MOST), (p.o + SM_VL - 1) / SM_VL) : (int)SM_MIN(items(&p), MOST);
}

/* work: the sums of every item, [POINTS][ROWS][COLS], of every task where the tiles are one part; then for every task turned
 * tiles [POINTS][TILES][ROWS] and, of a panel, [POINTS][TILES][SM_NR]; from point to point SM_WINO_PAD more. */
enum { SUMS = POINTS * ROWS * COLS, ROOM = POINTS * (TILES * (ROWS + SM_NR) + 2 * SM_WINO_PAD) };

size_t SM_K(sm_winograd_dw_work)(const sm_node *n)
{
    dw p = make(n);
    int64_t tasks = SM_K(sm_winograd_dw_tasks)(n, 0);
    return (size_t)((p.splits > 1 ? items(&p) : tasks) * SUMS + tasks * ROOM) * sizeof(float);
}

/* ---- pass 0 ------------------------------------------------------------------------------------------------------ */

/* a, a + b, a - b, -b: a column of the results' turn transposed. */
static inline void turn_pair(vf a, vf b, vf out[4])
{
    out[0] = a;
    out[1] = a + b;
    out[2] = a - b;
    out[3] = -b;
}

/* Columns [j, j + width) of tiles [t0, t0 + count) of dy to d [POINTS][count][width]; zeros past the last column and outside. */
static void turn_results(const dw *p, int64_t t0, int64_t count, int64_t j, int width, float *d)
{
    sm_wino_at at = sm_wino_find(&p->in, t0);
    for (int64_t t = 0; t < count; t++, sm_wino_next(&p->in, &at)) {
        int64_t x = at.x * 2, y = at.y * 2;
        const float *px = p->dy + ((at.n * p->oh + y) * p->ow + x) * p->o + j;
        bool right = x + 1 < p->ow, below = y + 1 < p->oh;
        for (int c = 0; c < width; c += SM_VL) {
            int live = (int)SM_MIN(SM_MAX(p->o - j - c, 0), SM_VL);
            vf zero = vset(0), rows[2][4], u[4];
            vf a = vload_part(px + c, live, 0), b = right ? vload_part(px + p->o + c, live, 0) : zero;
            turn_pair(a, b, rows[0]);
            a = below ? vload_part(px + p->ow * p->o + c, live, 0) : zero;
            b = below && right ? vload_part(px + (p->ow + 1) * p->o + c, live, 0) : zero;
            turn_pair(a, b, rows[1]);
            for (int k = 0; k < 4; k++) {
                turn_pair(rows[0][k], rows[1][k], u);
                for (int i = 0; i < 4; i++)
                    vstore(d + (4 * i + k) * (count * width + SM_WINO_PAD) + t * width + c, u[i]);
            }
        }
    }
}

/* Columns of m [POINTS][ROWS][COLS] (+)= v [POINTS][count][ROWS] transposed, times d [POINTS][count][width]. */
static void multiply(const float *v, const float *d, int64_t count, int64_t rows, int width, float *m, bool add)
{
    float *to[SM_MR];
    int groups = (int)((rows + SM_MR - 1) / SM_MR);
    for (int i = 0; i < POINTS; i++)
        for (int g = 0; g < groups; g++) {
            int64_t r0, r1;
            sm_range(rows, g, groups, &r0, &r1);
            sm_strip strip = {v + i * (count * ROWS + SM_WINO_PAD) + r0, d + i * (count * width + SM_WINO_PAD), count};
            sm_tile t = {.m = (int)(r1 - r0), .nv = width / SM_VL, .n = width, .segs = 1, .strips = &strip,
                         .lda = ROWS, .c = to, .add = add};
            for (int r = 0; r < t.m; r++)
                to[r] = m + (i * ROWS + r0 + r) * COLS;
            SM_K(sm_gemm_tile)(&t);
        }
}

static void run_item(const dw *p, int64_t item, float *m, float *v)
{
    int64_t c0 = item / p->across % p->down * ROWS, c1 = SM_MIN(c0 + ROWS, p->c), a, b;
    int64_t j0 = item % p->across * (COLS / SM_NR) * SM_NR, j1 = SM_MIN(j0 + COLS / SM_NR * SM_NR, p->o);
    float *d = v + POINTS * (TILES * ROWS + SM_WINO_PAD);
    sm_range(p->tiles, (int)(item / p->across / p->down), p->splits, &a, &b);
    for (int64_t t = a; t < b; t += TILES) {
        int64_t count = SM_MIN(TILES, b - t);
        SM_K(sm_wino_pixels)(&p->in, t, count, c0, c1 - c0, v, ROWS, count * ROWS + SM_WINO_PAD);
        for (int64_t j = j0; j < j1; j += SM_NR) {
            int width = sm_panel_width(p->o, j);
            turn_results(p, t, count, j, width, d);
            multiply(v, d, count, c1 - c0, width, m + j - j0, t > a);
        }
    }
}

/* ---- pass 1 ------------------------------------------------------------------------------------------------------ */

/* m0 + (m1 + m2) / 2, (m1 - m2) / 2, (m1 + m2) / 2 + m3. */
static inline void turn_sums(vf a, vf b, vf c, vf d, vf out[3])
{
    vf half = vset(0.5f), both = half * (b + c);
    out[0] = a + both;
    out[1] = half * (b - c);
    out[2] = both + d;
}

/* A channel's kernels of SM_VL columns from their sums on: out [9][SM_VL]. */
static void turn_kernel(const dw *p, const float *m, float *out)
{
    int64_t total = p->down * p->across * SUMS;
    vf s[POINTS], rows[4][3], w[3];
    for (int i = 0; i < POINTS; i++) {
        s[i] = vload(m + i * ROWS * COLS);
        for (int split = 1; split < p->splits; split++)
            s[i] += vload(m + split * total + i * ROWS * COLS);
    }
    for (int y = 0; y < 4; y++)
        turn_sums(s[4 * y], s[4 * y + 1], s[4 * y + 2], s[4 * y + 3], rows[y]);
    for (int x = 0; x < 3; x++) {
        turn_sums(rows[0][x], rows[1][x], rows[2][x], rows[3][x], w);
        for (int y = 0; y < 3; y++)
            vstore(out + (3 * y + x) * SM_VL, w[y]);
    }
}

/* Of an item with sums m and first channel c0: SM_VL columns from j on to [O, C, 3, 3]. */
static void put_kernels(const dw *p, const float *m, int64_t c0, int64_t j, float *out)
{
    enum { CHANNELS = 16 };
    float k[CHANNELS * 9 * SM_VL];
    int64_t rows = SM_MIN(ROWS, p->c - c0), live = SM_MIN(SM_VL, p->o - j);
    for (int64_t r = 0; r < rows; r += CHANNELS) {
        int64_t count = SM_MIN(CHANNELS, rows - r);
        for (int64_t c = 0; c < count; c++)
            turn_kernel(p, m + (r + c) * COLS + j % (COLS / SM_NR * SM_NR), k + c * 9 * SM_VL);
        sm_transpose(k, SM_VL, out + (j * p->c + c0 + r) * 9, p->c * 9, live, count * 9);
    }
}

/* Pass 1: block `i` of SM_VL columns, all channels. */
static void put_columns(const dw *p, const float *m, int64_t i, float *out)
{
    int64_t j = i * SM_VL;
    for (int64_t down = 0; down < p->down; down++)
        put_kernels(p, m + (down * p->across + j / (COLS / SM_NR * SM_NR)) * SUMS, down * ROWS, j, out);
}

/* The tiles being one part, an item's kernels are turned while its sums are in the cache. */
static void put_item(const dw *p, const float *m, int64_t item, float *out)
{
    int64_t j0 = item % p->across * (COLS / SM_NR * SM_NR), j1 = SM_MIN(j0 + COLS / SM_NR * SM_NR, p->o);
    for (int64_t j = j0; j < j1; j += SM_VL)
        put_kernels(p, m, item / p->across * ROWS, j, out);
}

void SM_K(sm_winograd_dw_run)(const sm_kcall *c, int task, int tasks)
{
    dw p = make(c->node);
    bool whole = p.splits == 1;
    int64_t a, b, kept = whole ? tasks : items(&p);
    float *m = c->work;
    p.in.src = c->src[0].data;
    p.dy = c->src[1].data;
    if (whole && c->pass)
        return;
    sm_range(c->pass ? (p.o + SM_VL - 1) / SM_VL : items(&p), task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) {
        if (c->pass) {
            put_columns(&p, m, i, c->dst.data);
            continue;
        }
        float *sums = m + (whole ? task : i) * SUMS;
        run_item(&p, i, sums, m + kept * SUMS + task * ROOM);
        if (whole)
            put_item(&p, sums, i, c->dst.data);
    }
}
