/* Minimal filtering F(4x4, 3x3) of at most four tiles with kernels that are not kept turned (8x8 pixels): there a kernel's turn
 * takes longer than its products. So kernels are turned halfway, to 18 numbers instead of 36, sixteen channels of a vector of
 * columns at a time, which stay in L1. The other half is done in registers by the loop over channels that multiplies: it makes
 * the six points of a column and adds their products with four tiles to 24 sums, which are in registers too.
 *
 * The sum of a part's channels is one chain from zero, then added to those of the parts before: bits are those of kernels that
 * were turned beforehand (k_winograd.c). Of the instruction sets only AVX-512 has the registers and was measured to gain
 * (docs/SPEED.md). */
#include "cpu/winograd.h"

#if SM_VL == 16

enum { TILES = SM_WINO_FEW, SUMS = 6 * TILES, LD = SM_WINO_LONGEST, NEXT = 6 * SM_WINO_FEW_APART, STEPS = SM_WINO_STEPS };
enum { LINE = 32 /* halves of a line of the caches */, AHEAD = 3 };

/* A constant that stays in a register: compilers read it from memory in every step, where loads are as many as the processor
 * can do. */
SM_FLAT vf kept(float x)
{
    vf v = vset(x);
    __asm__("" : "+v"(v));
    return v;
}

/* Sums of a point and all tiles go on. */
SM_FLAT void add_point(vf u, const float *v, vf *acc)
{
    SM_UNROLL(32) for (int t = 0; t < TILES; t++)
        acc[t] = vfma(vset(v[t * LD]), u, acc[t]);
}

/* Of points p and -p: even is what both have, b what p multiplies. */
SM_FLAT void add_pair(vf even, vf b, vf p, const float *v, vf *acc)
{
    add_point(vfma(p, b, even), v, acc);
    add_point(vfma(-p, b, even), v + NEXT, acc + TILES);
}

/* Sums [6][TILES] of a column of points go on, or begin: kernels [len][3], tiles' channels from v on. */
static void multiply(const float *rows, const float *v, int len, float *sums, bool first)
{
    const vf a1 = kept(SM_WINO_A), a2 = kept(SM_WINO_A * SM_WINO_A);
    const vf b1 = kept(SM_WINO_B), b2 = kept(SM_WINO_B * SM_WINO_B);
    vf acc[SUMS];
    SM_UNROLL(32) for (int i = 0; i < SUMS; i++)
        acc[i] = first ? vset(0) : vload(sums + i * SM_VL);
    SM_ROLLED for (int k = 0; k < len; k++, rows += 3 * SM_VL, v++) {
        vf g0 = vload(rows), g1 = vload(rows + SM_VL), g2 = vload(rows + 2 * SM_VL);
        add_point(g0, v, acc);
        add_pair(vfma(a2, g2, g0), g1, a1, v + NEXT, acc + TILES);
        add_pair(vfma(b2, g2, g0), g1, b1, v + 3 * NEXT, acc + 3 * TILES);
        add_point(g2, v + 5 * NEXT, acc + 5 * TILES);
    }
    SM_UNROLL(32) for (int i = 0; i < SUMS; i++)
        vstore(sums + i * SM_VL, acc[i]);
}

/* Of SM_VL runs `from` one another a sixth, after column x: a block of stored kernels, from memory. */
static void fetch(const uint16_t *next, int64_t from, int x)
{
    for (int i = x * SM_VL / 6; i < (x + 1) * SM_VL / 6; i++)
        for (int at = 0; at < 9 * STEPS; at += LINE)
            __builtin_prefetch(next + i * from + at);
}

/* The stored kernels AHEAD blocks after those of channel k and the vector of columns j (one block ahead: a tenth slower); NULL:
 * they are not runs of halves. */
static const uint16_t *find_next(const sm_wino_few *f, int64_t j, int64_t k)
{
    const sm_tensor *t = f->w->t;
    k += AHEAD * STEPS;
    if (k >= f->c0 + f->len) { /* of the next columns, or of the next part, which begins with the first ones */
        j += SM_VL;
        k = j < f->j1 ? k - f->len : k;
        j = j < f->j1 ? j : f->j0;
    }
    bool halves = !f->w->back && (t->dtype == SM_F16 || t->dtype == SM_BF16) && j + SM_VL <= f->w->cols;
    return halves && k < t->dims[1] ? (const uint16_t *)t->data + (j * t->dims[1] + k) * 9 : NULL;
}

/* Sums [6 of x][6 of y][TILES] of a part to where they belong: point 6 y + x of tile t to out + point * apart + t * width. */
static void store_sums(const float *sums, int64_t tiles, float *out, int64_t apart, int width, bool add)
{
    for (int i = 0; i < SM_WINO_POINTS4; i++)
        for (int64_t t = 0; t < tiles; t++) {
            vf v = vload(sums + (i % 6 * SUMS + i / 6 * TILES + t) * SM_VL);
            float *to = out + i * apart + t * width;
            vstore(to, add ? v + vload(to) : v);
        }
}

void SM_K(sm_wino_products_few)(const sm_wino_few *f)
{
    float rows[18 * STEPS * SM_VL] __attribute__((aligned(64))), sums[6 * SUMS * SM_VL] __attribute__((aligned(64)));
    for (int64_t j = f->j0; j < f->j1; j += SM_VL) {
        int64_t panel = f->j0 + (j - f->j0) / SM_NR * SM_NR;
        for (int64_t k = 0; k < f->len; k += STEPS) {
            int count = (int)SM_MIN(STEPS, f->len - k);
            const uint16_t *next = find_next(f, j, f->c0 + k);
            SM_K(sm_wino_halfway)(f->w, j, f->c0 + k, count, rows);
            for (int x = 0; x < 6; x++) {
                multiply(rows + x * 3 * STEPS * SM_VL, f->v + x * SM_WINO_FEW_APART + k, count, sums + x * SUMS * SM_VL, k == 0);
                if (next)
                    fetch(next, f->w->t->dims[1] * 9, x);
            }
        }
        store_sums(sums, f->count, f->sums + (panel - f->j0) * f->count + j - panel, f->apart,
                   sm_panel_width(f->w->cols, panel), f->add);
    }
}
#else
void SM_K(sm_wino_products_few)(const sm_wino_few *f) {}
#endif
