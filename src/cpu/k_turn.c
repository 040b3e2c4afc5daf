/* Stored types to f32 across rows: SM_VL rows are the lanes, one vector a value. Sixteen bytes of each row become four
 * vectors of 32-bit words first (turned as words: a quarter of the shuffles that floats would take, an eighth with two values
 * to a byte), out of which values are taken with shifts; a block's scales are vectors, one lane a row. Formats and the order
 * of roundings as in stored.c; a vector costs 5 to 11 instructions. */
#include "cpu/gemm.h"
#include "cpu/turn.h"


/* ---- rows into lanes --------------------------------------------------------------------------------------------- */

SM_FLAT vu words_of(const uint8_t *p)
{
    vu v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Word i of the sixteen bytes at p of each row. */
SM_FLAT void turn4(const uint8_t *p, ptrdiff_t apart, vu out[4])
{
    vu z[4];
    SM_UNROLL(16) for (int r = 0; r < 4; r++) { /* rows r, r + 4, r + 8, ... */
#if SM_VL == 16
        __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(p + r * apart)));
        v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + (r + 4) * apart)), 1);
        v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + (r + 8) * apart)), 2);
        z[r] = (vu)_mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + (r + 12) * apart)), 3);
#elif SM_VL == 8
        z[r] = (vu)_mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(p + r * apart))),
                                           _mm_loadu_si128((const __m128i *)(p + (r + 4) * apart)), 1);
#else
        z[r] = words_of(p + r * apart);
#endif
    }
#if SM_VL == 16
#define WORDS(F, A, B) (vu)_mm512_##F((__m512i)A, (__m512i)B)
#elif SM_VL == 8
#define WORDS(F, A, B) (vu)_mm256_##F((__m256i)A, (__m256i)B)
#else
#define unpacklo_epi32 vzip1q_u32
#define unpackhi_epi32 vzip2q_u32
#define WORDS(F, A, B) (vu)F((uint32x4_t)A, (uint32x4_t)B)
#define unpacklo_epi64(A, B) vreinterpretq_u32_u64(vzip1q_u64(vreinterpretq_u64_u32(A), vreinterpretq_u64_u32(B)))
#define unpackhi_epi64(A, B) vreinterpretq_u32_u64(vzip2q_u64(vreinterpretq_u64_u32(A), vreinterpretq_u64_u32(B)))
#endif
    vu a = WORDS(unpacklo_epi32, z[0], z[1]), b = WORDS(unpackhi_epi32, z[0], z[1]);
    vu c = WORDS(unpacklo_epi32, z[2], z[3]), d = WORDS(unpackhi_epi32, z[2], z[3]);
    out[0] = WORDS(unpacklo_epi64, a, c);
    out[1] = WORDS(unpackhi_epi64, a, c);
    out[2] = WORDS(unpacklo_epi64, b, d);
    out[3] = WORDS(unpackhi_epi64, b, d);
}

/* The f16 in the low and in the high half of each word. */
SM_FLAT void halves(vu v, vf *low, vf *high)
{
#if SM_VL == 16
    *low = (vf)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)v));
    *high = (vf)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)(v >> 16)));
#elif SM_VL == 8
    const __m256i apart = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
    __m256i h = _mm256_permute4x64_epi64(_mm256_shuffle_epi8((__m256i)v, apart), 0xd8);
    *low = (vf)_mm256_cvtph_ps(_mm256_castsi256_si128(h));
    *high = (vf)_mm256_cvtph_ps(_mm256_extracti128_si256(h, 1));
#else
    *low = (vf)vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32((uint32x4_t)v)));
    *high = (vf)vcvt_f32_f16(vreinterpret_f16_u16(vshrn_n_u32((uint32x4_t)v, 16)));
#endif
}

SM_FLAT vu word_at(const uint8_t *p, ptrdiff_t apart)
{
    uint32_t w[SM_VL];
    SM_UNROLL(16) for (int r = 0; r < SM_VL; r++)
        memcpy(&w[r], p + r * apart, 4);
    return words_of((const uint8_t *)w);
}

SM_FLAT vf half_at(const uint8_t *p, ptrdiff_t apart)
{
    uint16_t h[SM_VL];
    SM_UNROLL(16) for (int r = 0; r < SM_VL; r++)
        memcpy(&h[r], p + r * apart, 2);
    return vload_f16(h);
}

/* ---- words into values ------------------------------------------------------------------------------------------- */

SM_FLAT vf number(vu v) { return __builtin_convertvector((vi)v, vf); }
SM_FLAT vu byte_of(vu v, int i) { return i == 3 ? v >> 24 : v >> 8 * i & 255; }
SM_FLAT vf signed_byte(vu v, int i) { return __builtin_convertvector((vi)(v << (24 - 8 * i)) >> 24, vf); }

/* Byte i of words whose bytes are below 128: bytes 1 and 2 as 128 + q, which needs no conversion where the bits are at an f32's
 * place (AVX2: 2 to 8% less). */
SM_FLAT bool has_128(int i) { return i % 4 == 1 || i % 4 == 2; }
SM_FLAT vf plain_byte(const vu q[4], int i)
{
    vu v = q[i / 4];
    return has_128(i) ? (vf)(((i % 4 == 1 ? v << 8 : v) & 0x7f0000) | 0x43000000) : number(byte_of(v, i % 4));
}

/* Sixteen values, four to a word: d * (q - low). The product of d, of 19 bits at most, and low, 8, 16 or 32, or that plus 128 is
 * exact (Q3_K: 17 bits and 4), so all is rounded once, to the same number. */
SM_FLAT void put_scaled(const vu q[4], int low, vf d, float *out, int64_t step)
{
    vf less = d * (float)-low, less_128 = d * (float)(-low - 128);
    SM_UNROLL(16) for (int i = 0; i < 16; i++)
        vstore(out + i * step, vfma(d, plain_byte(q, i), has_128(i) ? less_128 : less));
}
/* d * q + m, rounded twice. */
SM_FLAT void put_affine(const vu q[4], vf d, vf m, float *out, int64_t step)
{
    vf less_128 = d * -128.0f;
    SM_UNROLL(16) for (int i = 0; i < 16; i++) {
        vf x = plain_byte(q, i);
        vstore(out + i * step, (has_128(i) ? vfma(d, x, less_128) : d * x) + m);
    }
}

enum { NIBBLES = 0x0f0f0f0f, PAIRS = 0x03030303, BITS = 0x01010101 };

/* Every function: `count` units from the one that begins at p (of a type with blocks of 256: from unit g of the block at p).
 * Compiled for each step there is: with the sixteen places as displacements they take 4 to 14% less. */
#define UNITS const uint8_t *p, ptrdiff_t apart, int g, int64_t count, float *out, const int64_t step

/* ---- one value to a block: units of 16 --------------------------------------------------------------------------- */

SM_FLAT void turn_f32(UNITS)
{
    for (int64_t n = 0; n < 4 * count; n++, p += 16, out += 4 * step) {
        vu v[4];
        turn4(p, apart, v);
        SM_UNROLL(16) for (int i = 0; i < 4; i++)
            vstore(out + i * step, (vf)v[i]);
    }
}

SM_FLAT void turn_f16(UNITS)
{
    for (int64_t n = 0; n < 2 * count; n++, p += 16, out += 8 * step) {
        vu v[4];
        turn4(p, apart, v);
        SM_UNROLL(16) for (int i = 0; i < 4; i++) {
            vf a, b;
            halves(v[i], &a, &b);
            vstore(out + 2 * i * step, a);
            vstore(out + (2 * i + 1) * step, b);
        }
    }
}

SM_FLAT void turn_bf16(UNITS)
{
    for (int64_t n = 0; n < 2 * count; n++, p += 16, out += 8 * step) {
        vu v[4];
        turn4(p, apart, v);
        SM_UNROLL(16) for (int i = 0; i < 4; i++) {
            vstore(out + 2 * i * step, (vf)(v[i] << 16));
            vstore(out + (2 * i + 1) * step, (vf)(v[i] & 0xffff0000));
        }
    }
}

/* Whether one of the bytes has all of the seven bits of E4M3's NaN. */
SM_FLAT bool any_e4m3_nan(const vu v[4])
{
    vu bits = {0};
    SM_UNROLL(16) for (int i = 0; i < 4; i++)
        bits |= (v[i] & 0x7f7f7f7f) + BITS;
    return vany((vi)(bits & 0x80808080) != 0);
}

/* Moved a bit to the right in the upper half of 16 bits a byte is an f16 whose exponent is too small by 8. (As f32 with a small
 * exponent the subnormal values, most of the weights that have no scale, would be subnormal f32: twice as slow.) */
SM_FLAT void turn_f8_e4m3(UNITS)
{
    typedef int16_t vs __attribute__((vector_size(SM_VL * 4)));
    enum { NONE = 127 };
    for (int64_t n = 0; n < count; n++, p += 16, out += 16 * step) {
        vu v[4];
        turn4(p, apart, v);
        SM_UNROLL(16) for (int i = 0; i < 4; i++) {
            vf x[4];
            halves((vu)((vs)(v[i] << 8) >> 1) & 0xbf80bf80, &x[0], &x[2]);
            halves((vu)((vs)v[i] >> 1) & 0xbf80bf80, &x[1], &x[3]);
            SM_UNROLL(16) for (int k = 0; k < 4; k++)
                vstore(out + (4 * i + k) * step, x[k] * 256.0f);
        }
        for (int i = 0; any_e4m3_nan(v) && i < 16 * SM_VL; i++)
            if ((p[i % SM_VL * apart + i / SM_VL] & NONE) == NONE)
                out[i / SM_VL * step + i % SM_VL] = __builtin_nanf("");
    }
}

/* The upper byte of an f16. */
SM_FLAT void turn_f8_e5m2(UNITS)
{
    for (int64_t n = 0; n < count; n++, p += 16, out += 16 * step) {
        vu v[4];
        turn4(p, apart, v);
        SM_UNROLL(16) for (int i = 0; i < 4; i++) {
            vf x[4];
            halves(v[i] << 8 & 0xff00ff00, &x[0], &x[2]);
            halves(v[i] & 0xff00ff00, &x[1], &x[3]);
            SM_UNROLL(16) for (int k = 0; k < 4; k++)
                vstore(out + (4 * i + k) * step, x[k]);
        }
    }
}

/* ---- blocks of 32 ------------------------------------------------------------------------------------------------ */

/* Nibbles of 16 bytes: values 0..15 low, 16..31 high. */
SM_FLAT void nibbles(const uint8_t *p, ptrdiff_t apart, vu low[4], vu high[4])
{
    turn4(p, apart, low);
    SM_UNROLL(16) for (int i = 0; i < 4; i++) {
        high[i] = low[i] >> 4 & NIBBLES;
        low[i] &= NIBBLES;
    }
}

/* Bits [k, k + 4) of h as the fifth bits of the four values of a word, by copies seven bits apart, no two of whose bits meet. */
SM_FLAT vu fifth_bits(vu h, int k) { return (h >> k & 15) * 0x02040810 & BITS << 4; }

SM_FLAT void fives(const uint8_t *p, ptrdiff_t apart, vu low[4], vu high[4]) /* fifth bits, nibbles */
{
    vu h = word_at(p, apart);
    nibbles(p + 4, apart, low, high);
    SM_UNROLL(16) for (int i = 0; i < 4; i++) {
        low[i] |= fifth_bits(h, 4 * i);
        high[i] |= fifth_bits(h, 16 + 4 * i);
    }
}

/* Blocks of 32 values of 4 or 5 bits: a scale, or a scale and a minimum, before them. */
SM_FLAT void bits_of(const bool five, const uint8_t *p, ptrdiff_t apart, vu low[4], vu high[4])
{
    if (five)
        fives(p, apart, low, high);
    else
        nibbles(p, apart, low, high);
}

SM_FLAT void turn_scaled(const bool five, const uint8_t *p, ptrdiff_t apart, int64_t count, float *out, int64_t step)
{
    for (; count; count--, p += five ? 22 : 18, out += 32 * step) {
        vf d = half_at(p, apart);
        vu low[4], high[4];
        bits_of(five, p + 2, apart, low, high);
        put_scaled(low, five ? 16 : 8, d, out, step);
        put_scaled(high, five ? 16 : 8, d, out + 16 * step, step);
    }
}

SM_FLAT void turn_affine(const bool five, const uint8_t *p, ptrdiff_t apart, int64_t count, float *out, int64_t step)
{
    for (; count; count--, p += five ? 24 : 20, out += 32 * step) {
        vf d, m;
        vu low[4], high[4];
        halves(word_at(p, apart), &d, &m);
        bits_of(five, p + 4, apart, low, high);
        put_affine(low, d, m, out, step);
        put_affine(high, d, m, out + 16 * step, step);
    }
}

SM_FLAT void turn_q4_0(UNITS) { turn_scaled(false, p, apart, count, out, step); }
SM_FLAT void turn_q4_1(UNITS) { turn_affine(false, p, apart, count, out, step); }
SM_FLAT void turn_q5_0(UNITS) { turn_scaled(true, p, apart, count, out, step); }
SM_FLAT void turn_q5_1(UNITS) { turn_affine(true, p, apart, count, out, step); }

SM_FLAT void turn_q8_0(UNITS)
{
    for (; count; count--, p += 34) {
        vf d = half_at(p, apart);
        for (int c = 0; c < 32; c += 16, out += 16 * step) {
            vu v[4];
            turn4(p + 2 + c, apart, v);
            SM_UNROLL(16) for (int i = 0; i < 16; i++)
                vstore(out + i * step, d * signed_byte(v[i / 4], i % 4));
        }
    }
}

/* ---- blocks of 256: unit g is values 32 g to 32 g + 31 ----------------------------------------------------------- */

/* Byte i of sixteen. */
SM_FLAT vu of_sixteen(const vu s[4], int i) { return s[i / 4] >> i % 4 * 8 & 255; }

/* The 32 bytes that have bits of several units. */
SM_FLAT void turn_shared(const uint8_t *p, ptrdiff_t apart, vu h[8])
{
    turn4(p, apart, h);
    turn4(p + 16, apart, h + 4);
}

/* Two-bit fields of unit g: of the 32 bytes of its half of the block. */
SM_FLAT void pairs(const vu h[4], int g, vu q[4])
{
    SM_UNROLL(16) for (int i = 0; i < 4; i++)
        q[i] = h[i] >> g % 4 * 2 & PAIRS;
}

/* To values: bits that begin at bit `from` of each byte, as bits from `to` on. */
SM_FLAT void add_bits(const vu h[4], int from, int to, uint32_t mask, vu q[4])
{
    if (from < to)
        SM_UNROLL(16) for (int i = 0; i < 4; i++)
            q[i] |= h[i] << (to - from) & mask << to;
    else
        SM_UNROLL(16) for (int i = 0; i < 4; i++)
            q[i] |= h[i] >> (from - to) & mask << to;
}

SM_FLAT void turn_q2_k(UNITS)
{
    for (; count > 0; p += 84, g = 0) {
        vf d, m;
        vu s[4], q[4], h[8];
        turn4(p, apart, s);
        halves(word_at(p + 80, apart), &d, &m);
        turn_shared(p + 16 + g / 4 * 32, apart, h);
        for (; g < 8 && count; g++, count--) {
            for (int c = 0; c < 2; c++, out += 16 * step) {
                vu both = of_sixteen(s, 2 * g + c);
                pairs(h + 4 * c, g, q);
                put_affine(q, d * number(both & 15), -(m * number(both >> 4)), out, step);
            }
            if (g == 3 && count > 1)
                turn_shared(p + 48, apart, h);
        }
    }
}

/* Scale k of the sixteen; the bytes of scales begin at byte 2 of s. */
SM_FLAT vf q3_scale(const vu s[4], int k)
{
    vu low = of_sixteen(s, 2 + k % 8) >> k / 8 * 4 & 15, high = of_sixteen(s, 10 + k % 4) >> k / 4 * 2 & 3;
    return number((low | high << 4) - 32);
}

SM_FLAT void turn_q3_k(UNITS)
{
    for (; count > 0; p += 110, g = 0) {
        vf d, none;
        vu s[4], q[4], h[8], b[8];
        turn4(p + 94, apart, s);
        halves(s[3], &none, &d);
        turn_shared(p, apart, b);
        turn_shared(p + 32 + g / 4 * 32, apart, h);
        for (; g < 8 && count; g++, count--) {
            for (int c = 0; c < 2; c++, out += 16 * step) {
                pairs(h + 4 * c, g, q);
                add_bits(b + 4 * c, g, 2, BITS, q);
                put_scaled(q, 4, d * q3_scale(s, 2 * g + c), out, step);
            }
            if (g == 3 && count > 1)
                turn_shared(p + 64, apart, h);
        }
    }
}

/* Scale and offset of unit g of Q4_K and Q5_K; s: d, dmin, 12 bytes. */
SM_FLAT void k_scale(const vu s[4], int g, vf *dl, vf *ml)
{
    vf d, m;
    vu a = s[1] >> g % 4 * 8, b = s[2] >> g % 4 * 8, c = s[3] >> g % 4 * 8;
    halves(s[0], &d, &m);
    *dl = d * number(g < 4 ? a & 63 : (c & 15) | (a >> 2 & 48));
    *ml = m * number(g < 4 ? b & 63 : (c >> 4 & 15) | (b >> 2 & 48));
}

/* 16 of the nibbles of unit g, from p: two units share 32 bytes. */
SM_FLAT void nibbles_of(const uint8_t *p, ptrdiff_t apart, int shift, vu q[4])
{
    turn4(p, apart, q);
    SM_UNROLL(16) for (int i = 0; i < 4; i++)
        q[i] = q[i] >> shift & NIBBLES;
}

SM_FLAT void turn_q4_k(UNITS)
{
    for (; count > 0; p += 144, g = 0) {
        vu s[4], q[4];
        turn4(p, apart, s);
        for (; g < 8 && count; g++, count--) {
            vf dl, ml;
            k_scale(s, g, &dl, &ml);
            for (int c = 0; c < 32; c += 16, out += 16 * step) {
                nibbles_of(p + 16 + g / 2 * 32 + c, apart, g % 2 * 4, q);
                put_affine(q, dl, -ml, out, step);
            }
        }
    }
}

SM_FLAT void turn_q5_k(UNITS)
{
    for (; count > 0; p += 176, g = 0) {
        vu s[4], q[4], h[8];
        turn4(p, apart, s);
        turn_shared(p + 16, apart, h);
        for (; g < 8 && count; g++, count--) {
            vf dl, ml;
            k_scale(s, g, &dl, &ml);
            for (int c = 0; c < 32; c += 16, out += 16 * step) {
                nibbles_of(p + 48 + g / 2 * 32 + c, apart, g % 2 * 4, q);
                add_bits(h + c / 4, g, 4, BITS, q);
                put_affine(q, dl, -ml, out, step);
            }
        }
    }
}

SM_FLAT void turn_q6_k(UNITS)
{
    for (; count > 0; p += 210, g = 0) {
        vf d = half_at(p + 208, apart);
        vu s[4], q[4], h[8];
        turn4(p + 192, apart, s);
        turn_shared(p + 128 + g / 4 * 32, apart, h);
        for (; g < 8 && count; g++, count--) {
            for (int c = 0; c < 2; c++, out += 16 * step) {
                nibbles_of(p + g / 4 * 64 + g % 2 * 32 + 16 * c, apart, g / 2 % 2 * 4, q);
                add_bits(h + 4 * c, g % 4 * 2, 4, PAIRS, q);
                put_scaled(q, 32, d * signed_byte(s[(2 * g + c) / 4] >> (2 * g + c) % 4 * 8, 0), out, step);
            }
            if (g == 3 && count > 1)
                turn_shared(p + 160, apart, h);
        }
    }
}

/* ---- the tables -------------------------------------------------------------------------------------------------- */

#define TYPES(F) \
    F(F32, f32) F(F16, f16) F(BF16, bf16) F(F8_E4M3, f8_e4m3) F(F8_E5M2, f8_e5m2) \
    F(Q4_0, q4_0) F(Q4_1, q4_1) F(Q5_0, q5_0) F(Q5_1, q5_1) F(Q8_0, q8_0) \
    F(Q2_K, q2_k) F(Q3_K, q3_k) F(Q4_K, q4_k) F(Q5_K, q5_k) F(Q6_K, q6_k)
#define STEP(NAME, VECTORS) \
    static void turn_##NAME##_##VECTORS(const uint8_t *p, ptrdiff_t apart, int g, int64_t count, float *out) \
    { \
        turn_##NAME(p, apart, g, count, out, VECTORS * SM_VL); \
    }
#define STEP_1(TYPE, NAME) STEP(NAME, 1)
#define STEP_2(TYPE, NAME) STEP(NAME, 2)
#define ROW_1(TYPE, NAME) [SM_##TYPE] = turn_##NAME##_1,
#define ROW_2(TYPE, NAME) [SM_##TYPE] = turn_##NAME##_2,
TYPES(STEP_1)
TYPES(STEP_2)
#if SM_VL == 4
#define STEP_3(TYPE, NAME) STEP(NAME, 3)
#define ROW_3(TYPE, NAME) [SM_##TYPE] = turn_##NAME##_3,
TYPES(STEP_3)
#endif

typedef void turn_fn(const uint8_t *p, ptrdiff_t apart, int g, int64_t count, float *out);
static turn_fn *const rows[][SM_DTYPES] = {
    {TYPES(ROW_1)}, {TYPES(ROW_2)},
#if SM_VL == 4
    {TYPES(ROW_3)},
#endif
};
_Static_assert(SM_COUNT(rows) == SM_NV, "a step for every width of a panel");

void SM_K(sm_turn)(const sm_tensor *t, int64_t at, int64_t apart, int64_t n, float *out, int64_t step)
{
    int block = sm_turn_shift(t->dtype), unit = sm_turn_unit_shift(t->dtype);
    ptrdiff_t bytes = (ptrdiff_t)sm_dtype_block_bytes(t->dtype);
    const uint8_t *p = (const uint8_t *)t->data + (at >> block) * bytes;
    rows[step / SM_VL - 1][t->dtype](p, (apart >> block) * bytes, (int)(at >> unit) & 7, n >> unit, out);
    if (!t->scale || t->dtype <= SM_BF16)
        return;
    float s[SM_VL];
    for (int r = 0; r < SM_VL; r++)
        s[r] = t->scale[(at + r * apart) / t->scale_run];
    for (int64_t i = 0; i < n; i++)
        vstore(out + i * step, vload(out + i * step) * vload(s));
}

void SM_K(sm_turn_fetch)(const sm_tensor *t, int64_t at, int64_t apart, int64_t n, int count)
{
    enum { LINE = 64 };
    int block = sm_turn_shift(t->dtype);
    ptrdiff_t bytes = (ptrdiff_t)sm_dtype_block_bytes(t->dtype), row = (apart >> block) * bytes;
    ptrdiff_t from = (at * bytes) >> block, all = (n * bytes) >> block;
    const char *p = (const char *)t->data + from;
    for (int r = 0; r < count; r++, p += row) {
        for (ptrdiff_t b = 0; b < all; b += LINE)
            __builtin_prefetch(p + b);
        __builtin_prefetch(p + all - 1);
    }
}
