/* torch's CPU and CUDA normals (see rng_torch.h). */
#include "base/rng_torch.h"

#include <math.h>

#include "base/rng.h"

/* ---- sine and cosine ---- */

/* The multiple of pi/2 is taken off in two parts (the first has 33 bits, so its product is exact); the series
 * on the rest, at most pi/4, are cut off below 2e-19 and 3e-18. */
void sm_torch_sincos(double x, double *sin_out, double *cos_out)
{
    int k = (int)(x * 0.63661977236758134308 + 0.5);
    double r = x - k * 1.5707963267341256141663 - k * 6.0771005065061922e-11, z = r * r, s = 1, c = 1;
    for (int n = 16; n >= 2; n -= 2) {
        s = 1 - z * s * (1.0 / (n * (n + 1)));
        c = 1 - z * c * (1.0 / (n * (n - 1)));
    }
    s *= r;
    *sin_out = k & 1 ? c : s;
    *cos_out = k & 1 ? s : c;
    if (k & 2)
        *sin_out = -*sin_out;
    if ((k & 3) == 1 || (k & 3) == 2)
        *cos_out = -*cos_out;
}

/* ---- MT19937 ---- */

enum { MT_N = 624, MT_M = 397 };

void sm_torch_cpu_seed(sm_torch_cpu *g, uint64_t seed)
{
    *g = (sm_torch_cpu){.at = MT_N};
    g->mt[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < MT_N; i++)
        g->mt[i] = 1812433253u * (g->mt[i - 1] ^ g->mt[i - 1] >> 30) + i;
}

static void refill(sm_torch_cpu *g)
{
    uint32_t *m = g->mt;
    for (int i = 0; i < MT_N; i++) {
        uint32_t y = (m[i] & 0x80000000u) | (m[(i + 1) % MT_N] & 0x7fffffffu);
        m[i] = m[(i + MT_M) % MT_N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    g->at = 0;
}

static uint32_t next_word(sm_torch_cpu *g)
{
    if (g->at == MT_N)
        refill(g);
    uint32_t y = g->mt[g->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

/* [0, 1) with 53 bits of two words, the first one above. */
static double uniform53(sm_torch_cpu *g)
{
    uint64_t high = next_word(g);
    return (double)((high << 32 | next_word(g)) & 0x1fffffffffffffu) * 0x1p-53;
}

/* ---- torch.randn on the CPU ---- */

/* One at a time, in double: the cosine now, the sine on the next call. */
static float single_normal(sm_torch_cpu *g)
{
    if (g->has_spare) {
        g->has_spare = false;
        return (float)g->spare;
    }
    double turn = uniform53(g), s, c, r = sqrt(-2 * sm_rng_ln(1 - uniform53(g)));
    sm_torch_sincos(6.28318530717958647693 * turn, &s, &c);
    g->spare = r * s;
    g->has_spare = true;
    return (float)(r * c);
}

static void fill_uniform(sm_torch_cpu *g, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(next_word(g) & 0xffffffu) * 0x1p-24f;
}

/* Sixteen uniforms become normals in place: pair j is (j, j + 8). Every step is rounded to float32, as torch's is. */
static void normal16(float *x)
{
    for (int j = 0; j < 8; j++) {
        float radius = sqrtf(-2 * (float)sm_rng_ln(1 - x[j])), angle = 6.28318530717958647693f * x[j + 8];
        double s, c;
        sm_torch_sincos(angle, &s, &c);
        x[j] = radius * (float)c;
        x[j + 8] = radius * (float)s;
    }
}

void sm_torch_cpu_normal(sm_torch_cpu *g, float *out, size_t n)
{
    if (n < 16) {
        for (size_t i = 0; i < n; i++)
            out[i] = single_normal(g);
        return;
    }
    fill_uniform(g, out, n);
    for (size_t i = 0; i + 16 <= n; i += 16)
        normal16(out + i);
    if (n % 16) { /* the last sixteen are drawn again, over what was there */
        fill_uniform(g, out + n - 16, 16);
        normal16(out + n - 16);
    }
}

/* ---- torch.randn on CUDA ---- */

/* Thread i draws from subsequence i, a call moves every thread's counter by one block; of the block's four normals the first
 * is used, curand's sine. The constants are float32's. */
void sm_torch_cuda_normal(uint64_t seed, uint32_t draw, float *out, size_t n)
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const double angle = (float)(2.3283064e-10 * 6.2831855);
    for (size_t i = 0; i < n; i++) {
        uint32_t b[4];
        double s, c;
        sm_philox4x32((uint32_t[4]){draw, 0, (uint32_t)i, (uint32_t)((uint64_t)i >> 32)}, key, b);
        double u = b[0] * 0x1p-32 + 0x1p-33;
        sm_torch_sincos(b[1] * angle + angle / 2, &s, &c);
        out[i] = (float)(sqrt(-2 * sm_rng_ln(u)) * s);
    }
}
