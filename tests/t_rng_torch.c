/* torch's noise: the CPU generator against torch itself, CUDA's against a NumPy model, A1111's stated values and what CUDA
 * devices printed (tests/fixtures/rng_torch.json, made by tools/fixtures/make_rng.py). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#include "base/rng_torch.h"
#include "known.h"
#include "test.h"

static double num(const cJSON *o, const char *key) { return cJSON_GetNumberValue(cJSON_GetObjectItem(o, key)); }

/* The largest |difference|, and how many are not bit-equal, of x[n] and the kept numbers: all, or the first and last 32. */
static double worst(const cJSON *want, const float *x, int n, int *unequal)
{
    double most = 0;
    int kept = cJSON_GetArraySize(want), i = 0;
    const cJSON *v;
    cJSON_ArrayForEach(v, want)
    {
        float w = (float)v->valuedouble, got = x[i < kept / 2 ? i : n - kept + i];
        most = fmax(most, fabs((double)w - (double)got));
        *unequal += w != got;
        i++;
    }
    return kept == (n > 64 ? 64 : n) ? most : INFINITY;
}

typedef void draw_two(uint64_t seed, float *first, float *second, int n);

static void draw_cpu(uint64_t seed, float *first, float *second, int n)
{
    sm_torch_cpu g;
    sm_torch_cpu_seed(&g, seed);
    sm_torch_cpu_normal(&g, first, (size_t)n);
    sm_torch_cpu_normal(&g, second, (size_t)n);
}

static void draw_cuda(uint64_t seed, float *first, float *second, int n)
{
    sm_torch_cuda_normal(seed, 0, first, (size_t)n);
    sm_torch_cuda_normal(seed, 1, second, (size_t)n);
}

/* Every row of the list within `tol`; rows of fewer than 16 numbers bit-equal. */
static void check_rows(const char *key, draw_two *draw, double tol, bool exact_below_16)
{
    cJSON *j = known_json("rng_torch.json"), *row;
    float *x = malloc(sizeof *x * 2 * 16384), *y = x + 16384;
    int rows = 0;
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(j, key))
    {
        uint64_t seed = strtoull(cJSON_GetStringValue(cJSON_GetObjectItem(row, "seed")), NULL, 10);
        int n = (int)num(row, "n"), unequal = 0;
        double squares = 0;
        draw(seed, x, y, n);
        double d = fmax(worst(cJSON_GetObjectItem(row, "values"), x, n, &unequal),
                        worst(cJSON_GetObjectItem(row, "then"), y, n, &unequal));
        for (int i = 0; i < n; i++)
            squares += (double)x[i] * x[i];
        CHECKF(d <= tol, "%s, seed %llu, %d numbers: off by %g", key, (unsigned long long)seed, n, d);
        CHECKF(!exact_below_16 || n >= 16 || !unequal, "%s, seed %llu, %d numbers: %d bits differ", key, (unsigned long long)seed,
               n, unequal);
        CHECK(fabs(squares - num(row, "squares")) <= 1e-5 * squares);
        rows++;
    }
    CHECKF(rows >= 15, "%d rows of %s", rows, key);
    free(x);
    cJSON_Delete(j);
}

TEST(rng_torch_cpu) { check_rows("cpu", draw_cpu, 1e-6, true); }
TEST(rng_torch_cpu_plain) { check_rows("cpu_plain", draw_cpu, 3e-6, true); }
/* The same arithmetic in double twice: at most the last bit of a float32 below 4 apart. */
TEST(rng_torch_cuda) { check_rows("cuda", draw_cuda, 2.4e-7, false); }

/* What others state: A1111's CPU model, and real devices to four decimals. */
TEST(rng_torch_cuda_stated)
{
    cJSON *j = known_json("rng_torch.json"), *v;
    static float x[6144];
    double stated = 0, device = 0;
    int i = 0, n = 0;
    sm_torch_cuda_normal(0, 0, x, 80);
    cJSON_ArrayForEach(v, cJSON_GetObjectItem(j, "a1111"))
        stated = fmax(stated, fabs(v->valuedouble - (double)x[i++]));
    cJSON_ArrayForEach(v, cJSON_GetObjectItem(j, "device_0"))
        device = fmax(device, fabs(v->valuedouble - (double)x[n++]));
    sm_torch_cuda_normal(42, 0, x, 6144);
    cJSON_ArrayForEach(v, cJSON_GetObjectItem(j, "device_42"))
    {
        device = fmax(device, fabs(cJSON_GetArrayItem(v, 1)->valuedouble - (double)x[cJSON_GetArrayItem(v, 0)->valueint]));
        n++;
    }
    CHECKF(i == 12 && stated < 3e-7, "%d values of A1111's, off by %g", i, stated);
    CHECKF(n == 98 && device < 6e-5, "%d values of devices, off by %g", n, device);
    cJSON_Delete(j);
}

/* torch keeps 32 bits of a seed on the CPU, CUDA all 64. A draw goes on where the last one ended. */
TEST(rng_torch_seeds)
{
    float a[32], b[32], c[32];
    draw_cpu(7, a, b, 16);
    draw_cpu(7 + (1ull << 32), c, c + 16, 16);
    CHECK(!memcmp(a, c, 16 * sizeof *a) && !memcmp(b, c + 16, 16 * sizeof *b) && memcmp(a, b, 16 * sizeof *a));
    draw_cuda(7, a, b, 16);
    draw_cuda(7 + (1ull << 32), c, c + 16, 16);
    CHECK(memcmp(a, c, 16 * sizeof *a) && memcmp(b, c + 16, 16 * sizeof *b) && memcmp(a, b, 16 * sizeof *a));
}
