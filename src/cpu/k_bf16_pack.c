/* Panels of pairs of steps of a weight, rounded to bfloat16. A pair of neighbours of a row is one word of 32 bits, so a stored row
 * is rounded as it lies and what is turned is words: half as many as the f32 panels'. */
#include "cpu/bf16.h"


enum { SIDE = 16, STEPS = 2 * SIDE, CHUNK = SM_MAX_BLOCK, AHEAD = 256 }; /* AHEAD: bytes of a row that are asked for before their
                                                                             turn */

/* The n values, 1..STEPS, of a row from element `at` on as pairs, zeros after them. */
SM_FLAT __m512i load_pairs(const sm_tensor *t, int64_t at, int64_t n)
{
    __mmask32 m = n < STEPS ? (1u << n) - 1 : ~0u;
    if (t->dtype == SM_BF16)
        return _mm512_maskz_loadu_epi16(m, (const uint16_t *)t->data + at);
    __m512 lo, hi;
    if (t->dtype == SM_F16) {
        __m512i h = _mm512_maskz_loadu_epi16(m, (const uint16_t *)t->data + at);
        lo = _mm512_cvtph_ps(_mm512_castsi512_si256(h));
        hi = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1));
    } else {
        const float *p = (const float *)t->data + at;
        lo = _mm512_maskz_loadu_ps((__mmask16)m, p);
        hi = _mm512_maskz_loadu_ps((__mmask16)(m >> SIDE), p + SIDE);
    }
    return (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
}

/* x[r] gets word r of each of the sixteen. */
SM_FLAT void turn(__m512i x[SIDE])
{
    __m512i y[SIDE];
    SM_UNROLL(16) for (int i = 0; i < SIDE; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    SM_UNROLL(16) for (int i = 0; i < SIDE; i += 4)
        for (int h = 0; h < 2; h++) {
            x[i + 2 * h] = _mm512_unpacklo_epi64(y[i + h], y[i + 2 + h]);
            x[i + 2 * h + 1] = _mm512_unpackhi_epi64(y[i + h], y[i + 2 + h]);
        }
    /* x[4 q + c] has in part p (of 128 bits) words 4 p + c of rows 4 q .. 4 q + 3 */
    SM_UNROLL(16) for (int c = 0; c < 4; c++) {
        __m512i a = _mm512_shuffle_i32x4(x[c], x[4 + c], 0x44), b = _mm512_shuffle_i32x4(x[c], x[4 + c], 0xee);
        __m512i d = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0x44), e = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0xee);
        y[c] = _mm512_shuffle_i32x4(a, d, 0x88);
        y[4 + c] = _mm512_shuffle_i32x4(a, d, 0xdd);
        y[8 + c] = _mm512_shuffle_i32x4(b, e, 0x88);
        y[12 + c] = _mm512_shuffle_i32x4(b, e, 0xdd);
    }
    SM_UNROLL(16) for (int i = 0; i < SIDE; i++)
        x[i] = y[i];
}

/* Columns [j, j + SIDE) to out, BF_NR apart. */
static void pack_rows(const sm_tensor *w, int64_t j, const int64_t p[2], uint32_t *out)
{
    int64_t n = w->dims[0], k = w->dims[1], rows = SM_MAX(SM_MIN(n - j, SIDE), 0);
    size_t size = sm_dtype_size(w->dtype);
    for (int64_t q = p[0]; q < p[1]; q += SIDE, out += SIDE * BF_NR) {
        __m512i x[SIDE];
        SM_UNROLL(16) for (int r = 0; r < SIDE; r++) {
            int64_t at = (j + r) * k + 2 * q;
            x[r] = r < rows ? load_pairs(w, at, SM_MIN(k - 2 * q, STEPS)) : _mm512_setzero_si512();
            for (size_t b = 0; r < rows && b < STEPS * size; b += 64)
                __builtin_prefetch((const char *)w->data + (size_t)at * size + AHEAD + b);
        }
        turn(x);
        SM_UNROLL(16) for (int i = 0; i < SIDE; i++)
            if (i < p[1] - q)
                _mm512_storeu_si512(out + i * BF_NR, x[i]);
    }
}

/* Types that are stored in blocks or as FP8: f32 panels of CHUNK steps, made by k_gemm_pack.c. */
static void pack_stored(const sm_tensor *w, int64_t j, const int64_t p[2], uint32_t *out)
{
    float x[CHUNK * BF_NR];
    int64_t n = w->dims[0], k = w->dims[1];
    int width = sm_panel_width(n, j);
    for (int64_t q = p[0]; q < p[1]; q += CHUNK / 2) {
        sm_pack_src s = {.t = *w, .base = 2 * q, .col = k, .step = 1, .n = n, .k = SM_MIN(CHUNK, k - 2 * q), .taps = 1};
        SM_K(sm_gemm_pack)(&s, j, (const int64_t[]){0, s.k}, x);
        /* beside it the row's pair has a 0, whose product with chance's NaN would be one */
        memset(x + s.k * width, 0, sizeof(float) * (size_t)(s.k % 2 * width));
        for (int64_t i = 0; i < SM_MIN(CHUNK / 2, p[1] - q); i++, out += BF_NR)
            for (int l = 0; l < BF_NR; l += SM_VL) {
                const float *even = x + 2 * i * width + l;
                _mm512_storeu_si512(out + l, l < width ? bf16_paired(vload(even), vload(even + width)) : _mm512_setzero_si512());
            }
    }
}

void sm_bf16_pack(const sm_tensor *w, int64_t j, const int64_t p[2], uint32_t *out)
{
    if (w->dtype > SM_BF16) {
        pack_stored(w, j, p, out);
        return;
    }
    for (int c = 0; c < BF_NR; c += SIDE)
        pack_rows(w, j + c, p, out + c);
}
