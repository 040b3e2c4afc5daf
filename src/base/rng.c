/* Philox4x32-10, uniforms and normals (see rng.h). Logarithm, sine and cosine are series of our own, in double without fused
 * operations, so that every machine and every C library gives the same bits. */
#include "base/rng.h"

#include <math.h>
#include <string.h>

void sm_philox4x32(const uint32_t c[4], const uint32_t k[2], uint32_t out[4])
{
    uint32_t c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3], k0 = k[0], k1 = k[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)0xD2511F53u * c0, q = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(q >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)q;
        c2 = (uint32_t)(p >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p;
        k0 += 0x9E3779B9u; /* golden ratio, square root of 3 minus 1: the Weyl sequence of the keys */
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static void block_of(uint64_t seed, uint64_t stream, uint64_t block, uint32_t out[4])
{
    uint32_t c[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)};
    uint32_t k[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    sm_philox4x32(c, k, out);
}

uint32_t sm_rng_u32(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint32_t b[4];
    block_of(seed, stream, index / 4, b);
    return b[index % 4];
}

static void block_uniform(const uint32_t b[4], float v[4])
{
    for (int i = 0; i < 4; i++)
        v[i] = (float)(b[i] >> 8) * 0x1p-24f;
}

/* x = 2^k m with m in [1/sqrt 2, sqrt 2), and with s = (m-1)/(m+1)
 * ln m = 2 (s + s^3/3 + ... + s^21/21), |s| < 0.172: what is cut off is below 2e-19. */
double sm_rng_ln(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, 8);
    int k = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffu) | 0x3ff0000000000000u;
    double m;
    memcpy(&m, &bits, 8);
    if (m >= 1.4142135623730951) {
        m *= 0.5;
        k++;
    }
    double s = (m - 1) / (m + 1), z = s * s, p = 0;
    for (int n = 21; n >= 1; n -= 2)
        p = p * z + 1.0 / n;
    return 2 * s * p + k * 0.69314718055994530942;
}

/* Sine and cosine of 2 pi u / 2^32. The quadrant is split off in integers, exactly; the rest is at most pi/4, where the
 * Taylor series up to x^17 and x^16 are cut off below 2e-19 and 3e-18. */
static void sincos_turn(uint32_t u, double *sin_out, double *cos_out)
{
    uint32_t quadrant = (u + 0x20000000u) >> 30;
    double x = (double)(int32_t)(u - (quadrant << 30)) * (6.28318530717958647693 * 0x1p-32), z = x * x, s = 1, c = 1;
    for (int n = 16; n >= 2; n -= 2) {
        s = 1 - z * s * (1.0 / (n * (n + 1)));
        c = 1 - z * c * (1.0 / (n * (n - 1)));
    }
    s *= x;
    *sin_out = quadrant & 1 ? c : s;
    *cos_out = quadrant & 1 ? s : c;
    if (quadrant & 2)
        *sin_out = -*sin_out;
    if (quadrant == 1 || quadrant == 2)
        *cos_out = -*cos_out;
}

static void block_normal(const uint32_t b[4], float v[4])
{
    for (int i = 0; i < 4; i += 2) {
        double s, c, r = sqrt(-2 * sm_rng_ln(((double)b[i] + 0.5) * 0x1p-32));
        sincos_turn(b[i + 1], &s, &c);
        v[i] = (float)(r * c);
        v[i + 1] = (float)(r * s);
    }
}

static void draw(uint64_t seed, uint64_t stream, uint64_t offset, float *out, size_t n, void (*make)(const uint32_t[4], float[4]))
{
    for (size_t i = 0; i < n;) {
        uint32_t b[4];
        float v[4];
        size_t lane = offset % 4, k = SM_MIN(4 - lane, n - i);
        block_of(seed, stream, offset / 4, b);
        make(b, v);
        memcpy(out + i, v + lane, k * sizeof *v);
        i += k;
        offset += k;
    }
}

void sm_rng_uniform(uint64_t seed, uint64_t stream, uint64_t offset, float *out, size_t n)
{
    draw(seed, stream, offset, out, n, block_uniform);
}

void sm_rng_normal(uint64_t seed, uint64_t stream, uint64_t offset, float *out, size_t n)
{
    draw(seed, stream, offset, out, n, block_normal);
}

uint64_t sm_hash64(const void *data, size_t n)
{
    const uint8_t *p = data;
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}
