/* Random numbers: the cipher against the vectors of the Random123 distribution (tests/kat_vectors), the streams built on it
 * against an evaluation in 120-bit arithmetic (mpmath) of the definitions in rng.h, and statistics with their known spread. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "test.h"

TEST(rng_philox_vectors)
{
    static const struct { uint32_t c[4], k[2], want[4]; } row[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < SM_COUNT(row); i++) {
        uint32_t out[4];
        sm_philox4x32(row[i].c, row[i].k, out);
        CHECKF(!memcmp(out, row[i].want, sizeof out), "vector %zu: %08x %08x %08x %08x", i, out[0], out[1], out[2], out[3]);
    }
}

enum { N = 12 };
static const uint64_t seed = 0x0123456789abcdefu, stream = 0xfedcba9876543210u;
/* Elements 0..3, 4..7 and the last four of the stream. */
static const uint64_t at[3] = {0, 4, 0xfffffffffffffffcu};
static const uint32_t words[N] = {0xaef2adf7, 0xf69b5950, 0x3ceb44f4, 0x89b6573a, 0xec2ab39f, 0x4671fd85,
                                  0x74decae0, 0x4b77ec76, 0xfb134bcc, 0xf6e3a740, 0xed378809, 0x4742b6c6};
static const uint32_t normals[N] = {0x3f5977c1, 0xbe4c2c42, 0xbfd2c2a9, 0xbeccdada, 0xbd819088, 0x3ecb0c90,
                                    0xbeb21a1e, 0x3f99fc15, 0x3e44ce41, 0xbd330685, 0xbd8db923, 0x3ec4b6f9};

TEST(rng_streams_by_definition)
{
    for (int b = 0; b < 3; b++) {
        float u[4], n[4];
        uint32_t bits[4];
        sm_rng_uniform(seed, stream, at[b], u, 4);
        sm_rng_normal(seed, stream, at[b], n, 4);
        memcpy(bits, n, sizeof bits);
        for (int i = 0; i < 4; i++) {
            CHECK(sm_rng_u32(seed, stream, at[b] + (uint64_t)i) == words[4 * b + i]);
            CHECK(u[i] == (float)((words[4 * b + i] >> 8) / 16777216.0));
            CHECKF(bits[i] == normals[4 * b + i], "normal %d of block %d is %08x", i, b, bits[i]);
        }
    }
}

/* Any window gives what the whole gives: element i depends on (seed, stream, offset + i) alone. */
TEST(rng_windows)
{
    float whole[64], part[64];
    void (*draw[])(uint64_t, uint64_t, uint64_t, float *, size_t) = {sm_rng_uniform, sm_rng_normal};
    for (int k = 0; k < 2; k++) {
        draw[k](7, 9, 100, whole, 64);
        for (size_t from = 0; from < 9; from++)
            for (size_t n = 0; n + from <= 24; n++) {
                part[n] = -99;
                draw[k](7, 9, 100 + from, part, n);
                CHECK(!memcmp(part, whole + from, n * sizeof *part) && part[n] == -99);
            }
        draw[k](8, 9, 100, part, 64);
        CHECK(memcmp(part, whole, sizeof part));
        draw[k](7, 10, 100, part, 64);
        CHECK(memcmp(part, whole, sizeof part));
    }
}

/* Every normal against the C library's functions in double; rounding to float may differ in the last place at most. */
TEST(rng_normal_against_libm)
{
    static float x[100000];
    size_t n = SM_COUNT(x), other = 0;
    sm_rng_normal(1, 2, 0, x, n);
    for (size_t i = 0; i < n; i++) {
        double r = sqrt(-2 * log((sm_rng_u32(1, 2, i & ~(size_t)1) + 0.5) * 0x1p-32));
        double t = 2 * 3.14159265358979323846 * 0x1p-32 * sm_rng_u32(1, 2, i | 1);
        float want = (float)(r * (i & 1 ? sin(t) : cos(t)));
        other += want != x[i];
        CHECKF(fabsf(want - x[i]) <= 1.2e-7f * fabsf(want), "normal %zu: %.9g, expected %.9g", i, x[i], want);
    }
    CHECKF(other < 10, "%zu of %zu differ in the last place", other, n);
}

/* Moments of 400,000 numbers; each bound is five standard deviations of the estimate. */
TEST(rng_moments)
{
    enum { M = 400000 };
    float *x = malloc(M * sizeof *x);
    double m[5] = {0}, pair = 0, s = sqrt(M);
    sm_rng_normal(3, 5, 0, x, M);
    for (int i = 0; i < M; i++) {
        for (int k = 1; k < 5; k++)
            m[k] += pow(x[i], k) / M;
        pair += i ? x[i] * x[i - 1] / M : 0;
    }
    CHECKF(fabs(m[1]) < 5 / s, "mean %g", m[1]);
    CHECKF(fabs(m[2] - 1) < 5 * sqrt(2) / s, "variance %g", m[2]);
    CHECKF(fabs(m[3]) < 5 * sqrt(15) / s, "third moment %g", m[3]);
    CHECKF(fabs(m[4] - 3) < 5 * sqrt(96) / s, "fourth moment %g", m[4]);
    CHECKF(fabs(pair) < 5 / s, "neighbours correlate: %g", pair);
    sm_rng_uniform(3, 6, 0, x, M);
    m[1] = m[2] = 0;
    bool inside = true;
    for (int i = 0; i < M; i++) {
        inside = inside && x[i] >= 0 && x[i] < 1;
        m[1] += x[i] / M;
        m[2] += x[i] * (double)x[i] / M;
    }
    CHECK(inside);
    CHECKF(fabs(m[1] - 0.5) < 5 * sqrt(1.0 / 12) / s, "mean %g", m[1]);
    CHECKF(fabs(m[2] - 1.0 / 3) < 5 * sqrt(4.0 / 45) / s, "second moment %g", m[2]);
    free(x);
}

/* Vectors of the FNV reference page (Noll), 64-bit FNV-1a. */
TEST(rng_hash64)
{
    CHECK(sm_hash64("", 0) == 0xcbf29ce484222325u);
    CHECK(sm_hash64("a", 1) == 0xaf63dc4c8601ec8cu);
    CHECK(sm_hash64("foobar", 6) == 0x85944171f73967e8u);
}
