/* Elementary functions on vectors, a few ulp each, the same bits on every instruction set: only operations that IEEE 754
 * rounds (fused ones written out). Polynomials are our own minimax fits (Remez) in the reduced argument; the reductions
 * are the usual ones (Muller, Elementary Functions). NaN gives NaN; infinities give the limits. */
#ifndef SM_VMATH_H
#define SM_VMATH_H

#include <math.h>

#include "cpu/simd.h"

static inline vf vpoly3(vf x, float c0, float c1, float c2, float c3)
{
    return vfma(vfma(vfma(vset(c3), x, vset(c2)), x, vset(c1)), x, vset(c0));
}
static inline vf vpoly4(vf x, float c0, float c1, float c2, float c3, float c4)
{
    return vfma(vpoly3(x, c1, c2, c3, c4), x, vset(c0));
}

#define SM_ROUND_MAGIC 12582912.0f /* 1.5 * 2^23: adding it leaves the rounded integer in the low bits */
static inline vi vrounded(vf t) { return (vi)((vu)t - (vu)vset(SM_ROUND_MAGIC)); }

/* e^x = 2^k e^r, |r| <= ln2 / 2. The scale is applied in two steps so that subnormal results round once. */
static inline vf vexp(vf x)
{
    x = vmax(vset(-104.5f), vmin(vset(89.0f), x)); /* keeps NaN */
    vf t = vfma(x, vset(1.44269504f), vset(SM_ROUND_MAGIC)), n = t - SM_ROUND_MAGIC;
    vf r = vfma(n, vset(-1.42860677e-6f), vfma(n, vset(-0.693145752f), x));
    vf p = vpoly4(r, 0.5f, 0.166665183f, 0.0416662041f, 0.00836895351f, 0.00139506021f);
    vf e = vfma(r * r, p, r) + 1.0f;
    vi k = vrounded(t), half = k >> 1;
    return e * (vf)((vu)(half + 127) << 23) * (vf)((vu)(k - half + 127) << 23);
}

/* log x = k ln2 + log m, m in [sqrt 1/2, sqrt 2): with s = f / (2 + f), f = m - 1, log m = 2 atanh s. */
static inline vf vlog(vf x)
{
    vi small = x < vset(1.17549435e-38f);
    vf y = vsel(small, x * 8388608.0f, x);
    vi bits = (vi)((vu)y - 0x3f3504f3u), k = (bits >> 23) - (small & viset(23));
    vf f = (vf)((bits & viset(0x007fffff)) + 0x3f3504f3) - 1.0f, n = (vf)((vu)k + (vu)vset(SM_ROUND_MAGIC)) - SM_ROUND_MAGIC;
    vf s = f / (f + 2.0f), z = s * s, h = f * f * 0.5f;
    vf p = z * vpoly3(z, 0.666666667f, 0.4f, 0.285714286f, 0.222222222f);
    vf r = vfma(n, vset(0.693145752f), f - (h - vfma(s, h + p, n * 1.42860677e-6f)));
    r = vsel(x == vset(INFINITY), x, r);
    r = vsel(x == vset(0), vset(-INFINITY), r);
    return vsel(x >= vset(0), r, vset(NAN));
}

static inline vf vsigmoid(vf x) { return 1.0f / (vexp(-x) + 1.0f); }

static inline vf vtanh(vf x)
{
    vf a = vabs(x), u = x * x;
    vf p = vpoly4(u, -0.333332783f, 0.13331329f, -0.0537292302f, 0.0206020082f, -0.00566078955f);
    vf big = 1.0f - 2.0f / (vexp(a + a) + 1.0f);
    return vsel(a < vset(0.625f), vfma(x * u, p, x), vsign_of(big, x));
}

/* erf x = x P(x^2) below 1, else 1 - exp(Q(|x|)) with Q a fit of log erfc; 1 from 4 on. */
static inline vf verf(vf x)
{
    vf a = vmin(vset(4.1f), vabs(x)), u = x * x;
    vf p = vfma(vpoly4(u, 0.112836002f, -0.0268544447f, 0.00518953547f, -0.000802084241f, 7.88912329e-05f), u * u,
                vfma(vset(-0.376126271f), u, vset(1.12837917f)));
    vf q = vpoly4(a, -0.638225679f, -0.103037367f, 0.0218053173f, -0.00293960705f, 0.000185573983f);
    q = vfma(vfma(q, a, vset(-1.12704003f)), a, vset(-0.000353719799f));
    return vsel(a < vset(1), x * p, vsign_of(1.0f - vexp(q), x));
}

/* Quadrant and rest of one large argument, in double; beyond 1e9 an f32 is coarser than a turn and any value serves. */
static inline float sm_big_angle(float x, int32_t *quadrant)
{
    double d = fabsf(x) > 1e9f ? fmod((double)x, 6.283185307179586) : (double)x;
    double n = (d * 0.6366197723675814 + 6755399441055744.0) - 6755399441055744.0;
    *quadrant = (int32_t)((int64_t)n & 3);
    return (float)__builtin_fma(-n, 6.123233995736766e-17, __builtin_fma(-n, 1.5707963267948966, d));
}

/* sin(x + quadrants * pi/2) */
static inline vf vsin_shift(vf x, int quadrants)
{
    vf t = vfma(x, vset(0.636619772f), vset(SM_ROUND_MAGIC)), n = t - SM_ROUND_MAGIC;
    vf r = vfma(n, vset(-1.57079637f), x);
    r = vfma(n, vset(1.71512449e-15f), vfma(n, vset(4.37113883e-8f), r));
    vi q = vrounded(t);
    vi big = vabs(x) > vset(1e5f);
    if (__builtin_expect(vany(big), 0))
        for (int i = 0; i < SM_VL; i++)
            if (big[i] && x[i] - x[i] == 0) {
                int32_t k;
                r[i] = sm_big_angle(x[i], &k);
                q[i] = k;
            }
    q = (vi)((vu)q + (uint32_t)quadrants);
    vf u = r * r;
    vf s = vfma(r * u, vfma(vfma(vset(-0.000195108392f), u, vset(0.0083321315f)), u, vset(-0.166666542f)), r);
    vf c = vfma(vfma(vset(2.44312051e-05f), u, vset(-0.0013887306f)), u, vset(0.0416666457f));
    c = vfma(c, u * u, vfma(u, vset(-0.5f), vset(1)));
    vf y = vsel((q & viset(1)) == viset(0), s, c);
    y = (vf)((vi)y ^ (vi)((vu)(q & viset(2)) << 30));
    return vsel(vabs(x) < vset(INFINITY), y, vset(NAN));
}
static inline vf vsin(vf x) { return vsin_shift(x, 0); }
static inline vf vcos(vf x) { return vsin_shift(x, 1); }

#endif
