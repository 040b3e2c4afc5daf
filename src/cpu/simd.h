/* The vector type of the instruction set this file is compiled for: `vf`, SM_VL floats. The same source gives the same
 * bits on all of them: fused multiply-adds are written out (the build has -ffp-contract=off), and reductions keep
 * sixteen lanes (lane j adds elements j, j+16, ...) in SM_LV vectors, then fold in the fixed order of sm_fold16. */
#ifndef SM_SIMD_H
#define SM_SIMD_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define SM_VL 16
#define SM_ISA avx512
#elif defined(__AVX2__)
#include <immintrin.h>
#define SM_VL 8
#define SM_ISA avx2
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#define SM_VL 4
#define SM_ISA neon
#else
#error "simd.h: compile with AVX2+FMA+F16C, AVX-512F or NEON; other CPUs use the scalar reference"
#endif

#define SM_LV (16 / SM_VL) /* vectors that make sixteen lanes */
typedef float vf __attribute__((vector_size(SM_VL * 4)));
typedef int32_t vi __attribute__((vector_size(SM_VL * 4)));
typedef uint32_t vu __attribute__((vector_size(SM_VL * 4))); /* for integer arithmetic that may wrap */

#define SM_CAT_(a, b) a##_##b
#define SM_CAT(a, b) SM_CAT_(a, b)
#define SM_K(name) SM_CAT(name, SM_ISA) /* kernel names end in the instruction set */

/* Loops whose count is known, at most n, as straight code; loops whose steps need all registers, which compilers that unroll them
 * would spill (a turn of pictures: 200 cycles instead of 270); functions whose arguments are constants of their callers. */
#ifdef __clang__
#define SM_UNROLL(n) _Pragma("clang loop unroll(full)")
#define SM_ROLLED _Pragma("clang loop unroll(disable)")
#else
#define SM_PRAGMA(x) _Pragma(#x)
#define SM_UNROLL(n) SM_PRAGMA(GCC unroll n)
#define SM_ROLLED SM_PRAGMA(GCC unroll 1)
#endif
#define SM_FLAT static inline __attribute__((always_inline))

static inline vf vset(float x) { return x - (vf){0}; }
static inline vf vload(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void vstore(float *p, vf v) { memcpy(p, &v, sizeof v); }

static inline vf vfma(vf a, vf b, vf c) /* a*b + c, one rounding */
{
#if SM_VL == 16
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif SM_VL == 8
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#endif
}
static inline float sfma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

static inline vf vmax(vf a, vf b) /* a > b ? a : b in every lane (b where either is NaN) */
{
#if SM_VL == 16
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif SM_VL == 8
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return (vf)vbslq_f32(vcgtq_f32((float32x4_t)a, (float32x4_t)b), (float32x4_t)a, (float32x4_t)b);
#endif
}

static inline vf vmin(vf a, vf b) /* a < b ? a : b in every lane (b where either is NaN) */
{
#if SM_VL == 16
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif SM_VL == 8
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return (vf)vbslq_f32(vcltq_f32((float32x4_t)a, (float32x4_t)b), (float32x4_t)a, (float32x4_t)b);
#endif
}
static inline vf vsqrt(vf a)
{
#if SM_VL == 16
    return (vf)_mm512_sqrt_ps((__m512)a);
#elif SM_VL == 8
    return (vf)_mm256_sqrt_ps((__m256)a);
#else
    return (vf)vsqrtq_f32((float32x4_t)a);
#endif
}

/* mask is the result of a comparison: all ones or all zeros in every lane. */
static inline vf vsel(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
static inline vi viset(int32_t x) { return x - (vi){0}; }
static inline vf vabs(vf a) { return (vf)((vi)a & viset(0x7fffffff)); }
static inline vf vsign_of(vf value, vf sign) /* value >= 0 with the sign bit of the other */
{
    return (vf)((vi)value | ((vi)sign & viset((int32_t)0x80000000)));
}
static inline int vany(vi mask)
{
#if SM_VL == 16
    return _mm512_movepi32_mask((__m512i)mask) != 0;
#elif SM_VL == 8
    return _mm256_movemask_ps((__m256)mask) != 0;
#else
    return vmaxvq_u32((uint32x4_t)mask) != 0;
#endif
}

#if SM_VL == 8
static inline __m256i vpart_mask(int n)
{
    static const int32_t m[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i *)(m + 8 - n));
}
#endif

/* 0 <= n <= SM_VL floats at p; the other lanes are `fill`. Nothing past the n-th is touched, here and in vstore_part. */
static inline vf vload_part(const float *p, int n, float fill)
{
#if SM_VL == 16
    return (vf)_mm512_mask_loadu_ps(_mm512_set1_ps(fill), (__mmask16)((1u << n) - 1), p);
#elif SM_VL == 8
    __m256i m = vpart_mask(n);
    return (vf)_mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(p, m), (__m256)m);
#else
    if (n == SM_VL)
        return vload(p);
    float t[SM_VL];
    for (int i = 0; i < SM_VL; i++)
        t[i] = i < n ? p[i] : fill;
    return vload(t);
#endif
}
static inline void vstore_part(float *p, vf v, int n)
{
#if SM_VL == 16
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#elif SM_VL == 8
    if (n == SM_VL) /* masked stores are slow on AMD */
        _mm256_storeu_ps(p, (__m256)v);
    else
        _mm256_maskstore_ps(p, vpart_mask(n), (__m256)v);
#else
    if (n == SM_VL) {
        vstore(p, v);
        return;
    }
    float t[SM_VL];
    vstore(t, v);
    memcpy(p, t, (size_t)n * sizeof *p);
#endif
}

/* Storage types to f32, SM_VL values. */
static inline vf vload_f16(const uint16_t *p)
{
#if SM_VL == 16
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif SM_VL == 8
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
    return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
#endif
}
static inline vf vload_bf16(const uint16_t *p)
{
#if SM_VL == 16
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
#elif SM_VL == 8
    return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
#else
    return (vf)vshll_n_u16(vld1_u16(p), 16);
#endif
}

/* Sixteen lanes to one: l[j] + l[j+8], then +4, +2, +1. */
static inline float sm_fold16(const vf lane[SM_LV])
{
#if SM_VL == 4
    float32x4_t s = (float32x4_t)((lane[0] + lane[2]) + (lane[1] + lane[3]));
    float32x2_t h = vadd_f32(vget_low_f32(s), vget_high_f32(s));
    return vget_lane_f32(h, 0) + vget_lane_f32(h, 1);
#else
#if SM_VL == 16
    __m512 l = (__m512)lane[0];
    __m256 e = _mm256_add_ps(_mm512_castps512_ps256(l), _mm512_extractf32x8_ps(l, 1));
#else
    __m256 e = _mm256_add_ps((__m256)lane[0], (__m256)lane[1]);
#endif
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(e), _mm256_extractf128_ps(e, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
#endif
}
static inline float sm_fold16_max(const vf lane[SM_LV])
{
    float t[16];
    memcpy(t, lane, sizeof t);
    for (int h = 8; h; h >>= 1)
        for (int j = 0; j < h; j++)
            t[j] = t[j] > t[j + h] ? t[j] : t[j + h];
    return t[0];
}

/* Valid floats in vector l of a step of sixteen that has `left` of them: 0..SM_VL. */
static inline int sm_part(int64_t left, int l)
{
    int64_t n = left - (int64_t)l * SM_VL;
    return n < 0 ? 0 : n > SM_VL ? SM_VL : (int)n;
}

/* Vector l of the step of sixteen at p + i of n floats; lanes past the end are `fill`. */
static inline vf vload16(const float *p, int64_t i, int64_t n, int l, float fill)
{
    if (i + 16 <= n)
        return vload(p + i + l * SM_VL);
    int part = sm_part(n - i, l);
    return part ? vload_part(p + i + l * SM_VL, part, fill) : vset(fill);
}
static inline void vstore16(float *p, int64_t i, int64_t n, int l, vf v)
{
    if (i + 16 <= n)
        vstore(p + i + l * SM_VL, v);
    else if (sm_part(n - i, l))
        vstore_part(p + i + l * SM_VL, v, sm_part(n - i, l));
}

/* y[r * ys + j] = x[j * xs + r] for r, j < 4. */
static inline void sm_transpose4(const float *x, int64_t xs, float *y, int64_t ys)
{
    typedef float v4 __attribute__((vector_size(16)));
    v4 a, b, c, d;
    memcpy(&a, x, 16);
    memcpy(&b, x + xs, 16);
    memcpy(&c, x + 2 * xs, 16);
    memcpy(&d, x + 3 * xs, 16);
    v4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), ba = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    v4 cd = __builtin_shufflevector(c, d, 0, 4, 1, 5), dc = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    a = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    b = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    c = __builtin_shufflevector(ba, dc, 0, 1, 4, 5);
    d = __builtin_shufflevector(ba, dc, 2, 3, 6, 7);
    memcpy(y, &a, 16);
    memcpy(y + ys, &b, 16);
    memcpy(y + 2 * ys, &c, 16);
    memcpy(y + 3 * ys, &d, 16);
}

/* y[r * ys + j] = x[j * xs + r] for r < rows, j < cols. */
static inline void sm_transpose(const float *x, int64_t xs, float *y, int64_t ys, int64_t rows, int64_t cols)
{
    int64_t r4 = rows & ~(int64_t)3, c4 = cols & ~(int64_t)3;
    for (int64_t j = 0; j < c4; j += 4)
        for (int64_t r = 0; r < r4; r += 4)
            sm_transpose4(x + j * xs + r, xs, y + r * ys + j, ys);
    for (int64_t j = 0; j < cols; j++)
        for (int64_t r = j < c4 ? r4 : 0; r < rows; r++)
            y[r * ys + j] = x[j * xs + r];
}

#endif
