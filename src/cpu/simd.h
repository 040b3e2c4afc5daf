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

#define SM_CAT_(a, b) a##_##b
#define SM_CAT(a, b) SM_CAT_(a, b)
#define SM_K(name) SM_CAT(name, SM_ISA) /* kernel names end in the instruction set */

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

/* n < SM_VL floats; the other lanes are `fill`. */
static inline vf vload_part(const float *p, int n, float fill)
{
    float t[SM_VL];
    for (int i = 0; i < SM_VL; i++)
        t[i] = i < n ? p[i] : fill;
    return vload(t);
}
static inline void vstore_part(float *p, vf v, int n)
{
    float t[SM_VL];
    vstore(t, v);
    memcpy(p, t, (size_t)n * sizeof *p);
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
    uint16_t t[SM_VL];
    memcpy(t, p, sizeof t);
    vi v;
    for (int i = 0; i < SM_VL; i++)
        v[i] = (int32_t)((uint32_t)t[i] << 16);
    return (vf)v;
}

/* Sixteen lanes to one: l[j] + l[j+8], then +4, +2, +1. */
static inline float sm_fold16(const vf lane[SM_LV])
{
    float t[16];
    memcpy(t, lane, sizeof t);
    for (int h = 8; h; h >>= 1)
        for (int j = 0; j < h; j++)
            t[j] += t[j + h];
    return t[0];
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

#endif
