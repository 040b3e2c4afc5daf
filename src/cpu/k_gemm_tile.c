/* The microkernel: m x nv vectors of outputs in registers, one broadcast and nv fused multiply-adds a row and step. */
#include "cpu/gemm.h"

enum { LINE = 16, LINES = (SM_NR + LINE - 1) / LINE }; /* floats of a line of the caches; lines of a row of results */
/* Steps of a turn of the loop over K, and whether it fetches without asking if there is something to fetch. Measured: with AVX2
 * the branches of short turns leave no history to foresee the loop's end by, which is 4 points of the peak at 384 steps;
 * AVX-512's tiles are long, and 16 steps cost them 3 points. */
#if SM_VL == 8
enum { STEPS = 16, ALWAYS = 1 };
#else
enum { STEPS = 4, ALWAYS = 0 };
#endif

/* acc += one step: row i of the left operand is at a[i], the nv vectors of the right one at b. */
SM_FLAT void step(const int m, const int nv, vf (*acc)[SM_NV], const float *const *a, int64_t at, const float *b)
{
    vf bv[SM_NV];
    SM_UNROLL(16) for (int j = 0; j < nv; j++)
        bv[j] = vload(b + j * SM_VL);
    SM_UNROLL(16) for (int i = 0; i < m; i++) {
        vf av = vset(a[i][at]);
        SM_UNROLL(16) for (int j = 0; j < nv; j++)
            acc[i][j] = vfma(av, bv[j], acc[i][j]);
    }
}

SM_FLAT void load_c(const int m, const int nv, vf (*acc)[SM_NV], const sm_tile *t)
{
    const float *const *from = t->from ? t->from : (const float *const *)t->c;
    SM_UNROLL(16) for (int i = 0; i < m; i++)
        SM_UNROLL(16) for (int j = 0; j < nv; j++)
            acc[i][j] = t->add ? vload(from[i] + j * SM_VL) : (vf){0};
}

SM_FLAT void store_c(const int m, const int nv, vf (*acc)[SM_NV], const sm_tile *t)
{
    if (t->bias)
        SM_UNROLL(16) for (int j = 0; j < nv; j++) {
            vf bias = vload(t->bias + j * SM_VL);
            SM_UNROLL(16) for (int i = 0; i < m; i++)
                acc[i][j] += bias;
        }
    if (t->plus)
        SM_UNROLL(16) for (int i = 0; i < m; i++)
            SM_UNROLL(16) for (int j = 0; j < nv; j++)
                acc[i][j] += vload(t->plus[i] + j * SM_VL);
    if (t->add_to)
        SM_UNROLL(16) for (int i = 0; i < m; i++)
            SM_UNROLL(16) for (int j = 0; j < nv; j++)
                acc[i][j] += vload(t->c[i] + j * SM_VL);
    SM_UNROLL(16) for (int i = 0; i < m; i++)
        SM_UNROLL(16) for (int j = 0; j < nv; j++)
            vstore(t->c[i] + j * SM_VL, acc[i][j]);
}

/* Left operand through row pointers. */
SM_FLAT void tile_rows(const int m, const int nv, const sm_tile *t)
{
    vf acc[SM_MR][SM_NV];
    const float *ahead = t->ahead, *far = t->far, *const *next = t->next ? t->next : t->rows;
    const int64_t far_step = far ? LINE : 0;
    far = far ? far : t->b[0];
    int line = 0; /* of the next tile's results */
    load_c(m, nv, acc, t);
    for (int s = 0; s < t->segs; s++) {
        const float *a[SM_MR], *b = t->b[s];
        SM_UNROLL(16) for (int i = 0; i < m; i++)
            a[i] = t->rows[s * SM_MR + i];
        const int64_t len = t->len;
        int64_t k = 0;
        for (; k + STEPS <= len; k += STEPS) {
            SM_UNROLL(16) for (int u = 0; u < STEPS; u++) {
                step(m, nv, acc, a, k + u, b + u * nv * SM_VL);
                if (u % 4 == 3 && (ALWAYS || far_step)) {
                    __builtin_prefetch(far, 0, 2);
                    far += far_step;
                }
            }
            b += STEPS * nv * SM_VL;
            if (ahead) {
                SM_UNROLL(16) for (int u = 0; u < STEPS / 2 * nv * SM_VL; u += LINE)
                    __builtin_prefetch(ahead + u);
                ahead += STEPS / 2 * nv * SM_VL;
            }
            if (t->results) {
                __builtin_prefetch(t->results[line / LINES] + line % LINES * LINE, 1);
                line += line + 1 < SM_MR * LINES;
            }
            if (ALWAYS || t->next)
                SM_UNROLL(16) for (int i = 0; i < (ALWAYS ? m : SM_MR); i += LINE / STEPS)
                    __builtin_prefetch(next[i + k / STEPS % (LINE / STEPS)] + k / LINE * LINE);
        }
        for (; k < len; k++, b += nv * SM_VL)
            step(m, nv, acc, a, k, b);
        next += SM_MR;
    }
    store_c(m, nv, acc, t);
}

/* Left operand in place, rows side by side. */
SM_FLAT void tile_strips(const int m, const int nv, const sm_tile *t)
{
    vf acc[SM_MR][SM_NV];
    load_c(m, nv, acc, t);
    for (int s = 0; s < t->segs; s++) {
        const float *a = t->strips[s].a, *b = t->strips[s].b;
        for (int64_t k = t->strips[s].len; k; k--, a += t->lda, b += nv * SM_VL) {
            const float *row[SM_MR];
            SM_UNROLL(16) for (int i = 0; i < m; i++)
                row[i] = a + i;
            __builtin_prefetch(a + 8 * t->lda);
            step(m, nv, acc, row, 0, b);
        }
    }
    store_c(m, nv, acc, t);
}

#define TILE(M, V)                                                                       \
    static __attribute__((noinline)) void rows_##M##x##V(const sm_tile *t) { tile_rows(M, V, t); } \
    static __attribute__((noinline)) void strips_##M##x##V(const sm_tile *t) { tile_strips(M, V, t); }
#if SM_VL == 4
#define TILES(M) TILE(M, 1) TILE(M, 2) TILE(M, 3)
#define NAMES(K, M) {K##_##M##x1, K##_##M##x2, K##_##M##x3}
#else
#define TILES(M) TILE(M, 1) TILE(M, 2)
#define NAMES(K, M) {K##_##M##x1, K##_##M##x2}
#endif
#define NAMES6(K) NAMES(K, 1), NAMES(K, 2), NAMES(K, 3), NAMES(K, 4), NAMES(K, 5), NAMES(K, 6)

typedef void tile_fn(const sm_tile *t);
TILES(1) TILES(2) TILES(3) TILES(4) TILES(5) TILES(6)
#if SM_VL == 16
TILES(7) TILES(8) TILES(9) TILES(10) TILES(11) TILES(12)
#define ALL(K) NAMES6(K), NAMES(K, 7), NAMES(K, 8), NAMES(K, 9), NAMES(K, 10), NAMES(K, 11), NAMES(K, 12)
#elif SM_VL == 8
#define ALL(K) NAMES6(K)
#else
TILES(7) TILES(8)
#define ALL(K) NAMES6(K), NAMES(K, 7), NAMES(K, 8)
#endif
static tile_fn *const by_rows[SM_MR][SM_NV] = {ALL(rows)};
static tile_fn *const by_strips[SM_MR][SM_NV] = {ALL(strips)};

/* A tile whose last vector is only partly stored: computed beside, n columns copied. */
static void tile_ragged(const sm_tile *t, tile_fn *fn)
{
    float buf[SM_MR][SM_NR], more[SM_MR][SM_NR], bias[SM_NR] = {0}, *c[SM_MR];
    const float *plus[SM_MR];
    size_t bytes = (size_t)t->n * sizeof(float);
    sm_tile u = *t;
    memset(buf, 0, sizeof buf);
    memset(more, 0, sizeof more);
    for (int i = 0; i < t->m; i++) {
        c[i] = buf[i];
        plus[i] = more[i];
        if (t->add || t->add_to)
            memcpy(buf[i], t->from ? t->from[i] : t->c[i], bytes);
        if (t->plus)
            memcpy(more[i], t->plus[i], bytes);
    }
    u.c = c;
    u.from = NULL;
    u.plus = t->plus ? plus : NULL;
    if (t->bias) {
        memcpy(bias, t->bias, bytes);
        u.bias = bias;
    }
    fn(&u);
    for (int i = 0; i < t->m; i++)
        memcpy(t->c[i], buf[i], bytes);
}

void SM_K(sm_gemm_tile)(const sm_tile *t)
{
    tile_fn *fn = t->strips ? by_strips[t->m - 1][t->nv - 1] : by_rows[t->m - 1][t->nv - 1];
    if (t->n == t->nv * SM_VL)
        fn(t);
    else
        tile_ragged(t, fn);
}
