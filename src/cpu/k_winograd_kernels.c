/* Minimal filtering's turn of kernels, G g G' (k_winograd_turn.c has the other two): a panel's columns are the lanes, every
 * kernel nine vectors that become 16 or 36. Checkpoints store a column's kernels as one run of values, so runs are transposed
 * first: halves of 16 bits as such, sixteen values of VL columns at a time in registers, and become f32 when the turn reads them.
 * Other types go by way of the packed panel that matrix products use.
 *
 * F(4x4)'s numbers are the kernel's polynomial at 0, -a, a, -b, b and infinity, as they are: what else the points ask for is a
 * part of the results' turn, which is done for far fewer numbers. */
#include "cpu/winograd.h"

#define A SM_WINO_A
#define B SM_WINO_B

/* ---- the turn ---------------------------------------------------------------------------------------------------- */

/* g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2. */
SM_FLAT void kernel2(vf a, vf b, vf c, vf *out)
{
    vf half = vset(0.5f), ends = a + c;
    out[0] = a;
    out[1] = half * (ends + b);
    out[2] = half * (ends - b);
    out[3] = c;
}

/* The polynomial a + b x + c x^2 at p and -p. */
SM_FLAT void at_pair(vf a, vf b, vf c, float p, vf *out)
{
    vf even = vfma(vset(p * p), c, a);
    out[0] = vfma(vset(p), b, even);
    out[1] = vfma(vset(-p), b, even);
}

SM_FLAT void kernel4(vf a, vf b, vf c, vf *out)
{
    out[0] = a;
    at_pair(a, b, c, A, out + 1);
    at_pair(a, b, c, B, out + 3);
    out[5] = c;
}

/* Nine vectors to all x all, `apart` floats apart. */
typedef void kernel_turn(vf, vf, vf, vf *);
SM_FLAT void turn_vector(const int all, kernel_turn *turn, const vf g[9], float *out, int64_t apart)
{
    vf rows[3][6], u[6];
    for (int y = 0; y < 3; y++)
        turn(g[3 * y], g[3 * y + 1], g[3 * y + 2], rows[y]);
    SM_ROLLED for (int x = 0; x < all; x++) {
        turn(rows[0][x], rows[1][x], rows[2][x], u);
        for (int y = 0; y < all; y++)
            vstore(out + (all * y + x) * apart, u[y]);
    }
}

/* ---- halves of 16 bits ------------------------------------------------------------------------------------------- */

enum { STEPS = SM_WINO_STEPS, VALUES = 9 * STEPS }; /* channels that are turned at a time, values of their kernels */

#if SM_VL > 4
#if SM_VL == 16
#define WORDS(F, A, B) (vu)_mm512_##F((__m512i)A, (__m512i)B)
#else
#define WORDS(F, A, B) (vu)_mm256_##F((__m256i)A, (__m256i)B)
#endif

/* Sixteen halves of each of VL runs `from` one another to out [16][ld], VL of each row. */
SM_FLAT void transpose_halves(const uint16_t *p, int64_t from, uint16_t *out, const int ld)
{
    vu z[8], t[8], u[8];
    for (int r = 0; r < 8; r++, p += from) { /* of runs r (and r + 8) values 0..7 are a lane, 8..15 another one */
#if SM_VL == 16
        __m256i low = _mm256_loadu_si256((const __m256i *)p), high = _mm256_loadu_si256((const __m256i *)(p + 8 * from));
        z[r] = (vu)_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
#else
        z[r] = (vu)_mm256_loadu_si256((const __m256i *)p);
#endif
    }
    for (int i = 0; i < 8; i += 2) {
        t[i] = WORDS(unpacklo_epi16, z[i], z[i + 1]);
        t[i + 1] = WORDS(unpackhi_epi16, z[i], z[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            u[i + 2 * j] = WORDS(unpacklo_epi32, t[i + j], t[i + j + 2]);
            u[i + 2 * j + 1] = WORDS(unpackhi_epi32, t[i + j], t[i + j + 2]);
        }
    for (int k = 0; k < 8; k++) {
        vu v = k % 2 ? WORDS(unpackhi_epi64, u[k / 2], u[k / 2 + 4]) : WORDS(unpacklo_epi64, u[k / 2], u[k / 2 + 4]);
#if SM_VL == 16
        __m512i w = _mm512_shuffle_i64x2((__m512i)v, (__m512i)v, 0xd8);
        _mm256_storeu_si256((__m256i *)(out + k * ld), _mm512_castsi512_si256(w));
        _mm256_storeu_si256((__m256i *)(out + (k + 8) * ld), _mm512_extracti64x4_epi64(w, 1));
#else
        _mm_storeu_si128((__m128i *)(out + k * ld), _mm256_castsi256_si128((__m256i)v));
        _mm_storeu_si128((__m128i *)(out + (k + 8) * ld), _mm256_extracti128_si256((__m256i)v, 1));
#endif
    }
}

/* Kernels of STEPS channels: VALUES values of `width` runs, the first at p, to out. */
typedef vf half_load(const uint16_t *);
SM_FLAT void turn_halves(const int all, kernel_turn *turn, half_load *load, const uint16_t *p, int64_t from, int width, float *out,
                      int64_t apart)
{
    uint16_t x[VALUES * SM_NR] __attribute__((aligned(64)));
    for (int i = 0; i < width; i += SM_VL)
        for (int v = 0; v < VALUES; v += 16)
            transpose_halves(p + i * from + v, from, x + v * SM_NR + i, SM_NR);
    for (int k = 0; k < STEPS; k++) {
        for (int i = k * width / STEPS; i < (k + 1) * width / STEPS; i++)
            for (int v = 0; v < VALUES; v += 32)
                __builtin_prefetch(p + VALUES + i * from + v);
        for (int i = 0; i < width; i += SM_VL) {
            vf g[9];
            for (int t = 0; t < 9; t++)
                g[t] = load(x + (9 * k + t) * SM_NR + i);
            turn_vector(all, turn, g, out + k * width + i, apart);
        }
    }
}

/* Whether the kernels of so many columns from j on are runs of halves. */
static bool is_halves(const sm_wino_weight *w, int64_t j, int width)
{
    return !w->back && !w->t->scale && (w->t->dtype == SM_F16 || w->t->dtype == SM_BF16) && j + width <= w->cols;
}

/* As far as it goes: returns the channel where it ended. */
static int64_t from_halves(const sm_wino_weight *w, int64_t j, int64_t c0, int64_t c1, float *out, int64_t apart)
{
    const sm_tensor *t = w->t;
    int width = sm_panel_width(w->cols, j);
    int64_t from = t->dims[1] * 9, k = c0;
    if (!is_halves(w, j, width))
        return c0;
    const uint16_t *p = (const uint16_t *)t->data + j * from;
    for (; k + STEPS <= c1; k += STEPS) {
        float *to = out + (k - c0) * width;
        if (w->side == 4 && t->dtype == SM_F16)
            turn_halves(6, kernel4, vload_f16, p + 9 * k, from, width, to, apart);
        else if (w->side == 4)
            turn_halves(6, kernel4, vload_bf16, p + 9 * k, from, width, to, apart);
        else if (t->dtype == SM_F16)
            turn_halves(4, kernel2, vload_f16, p + 9 * k, from, width, to, apart);
        else
            turn_halves(4, kernel2, vload_bf16, p + 9 * k, from, width, to, apart);
    }
    return k;
}
#else
static int64_t from_halves(const sm_wino_weight *w, int64_t j, int64_t c0, int64_t c1, float *out, int64_t apart) { return c0; }
#endif

/* ---- any type ---------------------------------------------------------------------------------------------------- */

/* Taps [9][n] of kernels. */
SM_FLAT void turn_taps(const int all, kernel_turn *turn, const float *taps, int n, bool back, float *out, int64_t apart)
{
    for (int i = 0; i < n; i += SM_VL) {
        vf g[9];
        for (int t = 0; t < 9; t++)
            g[t] = vload(taps + (back ? 8 - t : t) * n + i);
        turn_vector(all, turn, g, out + i, apart);
    }
}

void SM_K(sm_wino_kernels)(const sm_wino_weight *w, int64_t j, int64_t c0, int64_t c1, float *out, int64_t apart)
{
    int64_t o = w->t->dims[1] * 9;
    int width = sm_panel_width(w->cols, j);
    float taps[9 * STEPS * SM_NR];
    for (int64_t k = from_halves(w, j, c0, c1, out, apart); k < c1; k += STEPS) {
        int count = (int)SM_MIN(STEPS, c1 - k);
        sm_pack_src s = {.t = *w->t, .col = w->back ? 9 : o, .step = w->back ? o : 9, .tap_step = 1, .n = w->cols, .k = count,
                         .taps = 9};
        s.base = k * s.step;
        SM_K(sm_gemm_pack)(&s, j, (const int64_t[]){0, count}, taps);
        if (w->side == 4)
            turn_taps(6, kernel4, taps, count * width, w->back, out + (k - c0) * width, apart);
        else
            turn_taps(4, kernel2, taps, count * width, w->back, out + (k - c0) * width, apart);
    }
}

/* ---- halfway ----------------------------------------------------------------------------------------------------- */

/* Nine vectors, turned along the kernels' rows only: those of step k of [6][STEPS][3]. */
SM_FLAT void turn_halfway(const vf g[9], int k, float *rows)
{
    vf r[3][6];
    for (int y = 0; y < 3; y++)
        kernel4(g[3 * y], g[3 * y + 1], g[3 * y + 2], r[y]);
    for (int x = 0; x < 6; x++)
        for (int y = 0; y < 3; y++)
            vstore(rows + ((x * STEPS + k) * 3 + y) * SM_VL, r[y][x]);
}

#if SM_VL > 4
/* STEPS channels of SM_VL runs. */
SM_FLAT void halves_halfway(half_load *load, const uint16_t *p, int64_t from, float *rows)
{
    uint16_t x[VALUES * SM_VL] __attribute__((aligned(64)));
    for (int v = 0; v < VALUES; v += 16)
        transpose_halves(p + v, from, x + v * SM_VL, SM_VL);
    SM_ROLLED for (int k = 0; k < STEPS; k++) {
        vf g[9];
        for (int t = 0; t < 9; t++)
            g[t] = load(x + (9 * k + t) * SM_VL);
        turn_halfway(g, k, rows);
    }
}
#endif

void SM_K(sm_wino_halfway)(const sm_wino_weight *w, int64_t j, int64_t c, int count, float *rows)
{
    int64_t o = w->t->dims[1] * 9;
#if SM_VL > 4
    if (count == STEPS && is_halves(w, j, SM_VL)) {
        const uint16_t *p = (const uint16_t *)w->t->data + j * o + c * 9;
        if (w->t->dtype == SM_F16)
            halves_halfway(vload_f16, p, o, rows);
        else
            halves_halfway(vload_bf16, p, o, rows);
        return;
    }
#endif
    float taps[9 * STEPS * SM_VL];
    sm_pack_src s = {.t = *w->t, .base = c * (w->back ? o : 9), .col = w->back ? 9 : o, .step = w->back ? o : 9, .tap_step = 1,
                     .n = SM_MIN(w->cols, j + SM_VL), .k = count, .taps = 9};
    SM_K(sm_gemm_pack)(&s, j, (const int64_t[]){0, count}, taps);
    for (int k = 0; k < count; k++) {
        vf g[9];
        for (int tap = 0; tap < 9; tap++)
            g[w->back ? 8 - tap : tap] = vload(taps + (tap * count + k) * SM_VL);
        turn_halfway(g, k, rows);
    }
}
