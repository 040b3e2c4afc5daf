/* Spoiling pictures in known ways (see concept_check.h). Amounts are for 128 pixels a side and grow with the side. */
#include "concept_check.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"

enum { AS_IS, MOVED, PLACED, BLUR_4, BLUR_8, NOISE, TINT, BLOCKS, BENT, ALL_MILD, ALL_STRONG, EMPTY };

const char *const sm_spoil_names[SM_SPOILS] = {"as it is", "moved by up to 4 pixels", "placed as in training",
                                               "blurred over 4 pixels",
    "blurred over 8 pixels", "noise of 12 steps", "tinted by 15%", "8x8 blocks down to 3 coefficients", "bent by 4 pixels",
    "mildly bent, blurred, tinted, noisy", "strongly bent, blurred, tinted, noisy", "empty and noisy"};

static uint8_t to_byte(float v) { return (uint8_t)(SM_MAX(0.0f, SM_MIN(255.0f, v)) + 0.5f); }

static float mix(float a, float b, float f) { return a + (b - a) * f; }

/* Means over f x f blocks, joined bilinearly. tmp: float [side * side * 3 / (f * f)]. */
static void blur(uint8_t *rgb, int side, int f, float *tmp)
{
    int n = side / f;
    for (int i = 0; i < n * n * 3; i++) {
        int y = i / 3 / n * f, x = i / 3 % n * f, sum = 0;
        for (int k = 0; k < f * f; k++)
            sum += rgb[((y + k / f) * side + x + k % f) * 3 + i % 3];
        tmp[i] = (float)sum / (float)(f * f);
    }
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            float gy = SM_MAX(0.0f, ((float)y + 0.5f) / (float)f - 0.5f), gx = SM_MAX(0.0f, ((float)x + 0.5f) / (float)f - 0.5f);
            int y0 = SM_MIN((int)gy, n - 1), x0 = SM_MIN((int)gx, n - 1), y1 = SM_MIN(y0 + 1, n - 1), x1 = SM_MIN(x0 + 1, n - 1);
            for (int c = 0; c < 3; c++)
                rgb[(y * side + x) * 3 + c] =
                    to_byte(mix(mix(tmp[(y0 * n + x0) * 3 + c], tmp[(y0 * n + x1) * 3 + c], gx - (float)x0),
                                mix(tmp[(y1 * n + x0) * 3 + c], tmp[(y1 * n + x1) * 3 + c], gx - (float)x0), gy - (float)y0));
        }
}

/* tmp: float [side * side * 3]. */
static void noise(uint8_t *rgb, int side, float deviation, uint64_t seed, uint64_t stream, float *tmp)
{
    size_t n = (size_t)side * (size_t)side * 3;
    sm_rng_normal(seed, stream, 0, tmp, n);
    for (size_t i = 0; i < n; i++)
        rgb[i] = to_byte((float)rgb[i] + deviation * tmp[i]);
}

/* Distance from white grows or shrinks by a factor of its own in each channel. */
static void tint(uint8_t *rgb, int side, float deviation, uint64_t seed, uint64_t stream)
{
    float f[4];
    sm_rng_normal(seed, stream, 0, f, 4);
    for (int i = 0; i < side * side * 3; i++)
        rgb[i] = to_byte(255.0f - (255.0f - (float)rgb[i]) * (1.0f + deviation * f[i % 3]));
}

/* Of each 8x8 block's cosine transform only the mean and the two slopes stay. */
static void blocks(uint8_t *rgb, int side)
{
    float slope[8];
    for (int k = 0; k < 8; k++)
        slope[k] = (float)cos((2 * k + 1) * M_PI / 16);
    for (int b = 0; b < side / 8 * (side / 8) * 3; b++) {
        uint8_t *p = rgb + ((b / 3 / (side / 8) * 8) * side + b / 3 % (side / 8) * 8) * 3 + b % 3;
        float m = 0, sx = 0, sy = 0;
        for (int k = 0; k < 64; k++) {
            float v = p[(k / 8 * side + k % 8) * 3];
            m += v / 64;
            sy += v * slope[k / 8] / 32;
            sx += v * slope[k % 8] / 32;
        }
        for (int k = 0; k < 64; k++)
            p[(k / 8 * side + k % 8) * 3] = to_byte(m + sy * slope[k / 8] + sx * slope[k % 8]);
    }
}

/* Pixels are taken from places displaced by a smooth field: normal with this deviation (in pixels) at 6x6 knots. */
static void bend(uint8_t *rgb, int side, float deviation, uint64_t seed, uint64_t stream, uint8_t *tmp)
{
    enum { K = 6 };
    float f[2 * K * K];
    sm_rng_normal(seed, stream, 0, f, SM_COUNT(f));
    memcpy(tmp, rgb, (size_t)side * (size_t)side * 3);
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            float gy = (float)y * (K - 1) / (float)side, gx = (float)x * (K - 1) / (float)side, to[2];
            int y0 = (int)gy, x0 = (int)gx;
            for (int k = 0; k < 2; k++) {
                const float *q = f + (k * K + y0) * K + x0;
                to[k] = deviation * mix(mix(q[0], q[1], gx - (float)x0), mix(q[K], q[K + 1], gx - (float)x0), gy - (float)y0);
            }
            long sy = lrintf((float)y + to[0]), sx = lrintf((float)x + to[1]);
            bool in = sy >= 0 && sx >= 0 && sy < side && sx < side;
            for (int c = 0; c < 3; c++)
                rgb[(y * side + x) * 3 + c] = in ? tmp[(sy * side + sx) * 3 + c] : 255;
        }
}

sumi_status sm_spoil(int k, uint64_t seed, int64_t i, int side, uint8_t *rgb, sm_mem *mem, sm_err *e)
{
    size_t n = (size_t)side * (size_t)side * 3;
    if (side < 16 || side > 1024)
        return sm_fail(e, SUMI_E_ARG, "concept check: pictures of %d pixels; 16 to 1024 are possible", side);
    float *tmp = sm_alloc(mem, SM_MEM_DATA, n * sizeof *tmp);
    if (!tmp)
        return sm_fail(e, SUMI_E_MEMORY, "concept check: out of memory");
    uint64_t stream = (uint64_t)(i + 1) << 8 | (uint64_t)k << 4; /* the last four bits tell its parts apart */
    float unit = (float)side / 128.0f;
    int mild = SM_MAX(1, side / 32), strong = SM_MAX(1, side / 16);
    if (k == BENT || k == ALL_MILD || k == ALL_STRONG)
        bend(rgb, side, (k == ALL_MILD ? 2.0f : 4.0f) * unit, seed, stream | 1, (uint8_t *)tmp);
    if (k == BLUR_4 || k == BLUR_8 || k == ALL_MILD || k == ALL_STRONG)
        blur(rgb, side, k == BLUR_4 || k == ALL_MILD ? mild : strong, tmp);
    if (k == TINT || k == ALL_MILD || k == ALL_STRONG)
        tint(rgb, side, k == ALL_MILD ? 0.1f : k == TINT ? 0.15f : 0.2f, seed, stream | 2);
    if (k == BLOCKS || k == ALL_MILD || k == ALL_STRONG)
        blocks(rgb, side);
    if (k == EMPTY)
        memset(rgb, 255, n);
    if (k == NOISE || k == ALL_MILD || k == ALL_STRONG || k == EMPTY)
        noise(rgb, side, k == NOISE ? 12.0f : k == ALL_MILD ? 5.0f : k == ALL_STRONG ? 10.0f : 40.0f, seed, stream | 3, tmp);
    sm_free(tmp);
    return SUMI_OK;
}

/* Where picture i goes before it is spoiled in way k. */
static sm_scene placed(const sm_dataset *d, int64_t i, int k, uint64_t seed)
{
    sm_compose_opts o = {.p_white = 1.0f, .p_two = 0.0f, .scale_min = 0.8f, .scale_max = 1.0f};
    bool random = k == PLACED || k == ALL_MILD || k == ALL_STRONG;
    sm_scene s = sm_dataset_scene(d, &o, seed, i, random ? 1 + (uint64_t)i % 7 : 0);
    if (k == MOVED) {
        float u[2];
        sm_rng_uniform(seed, (uint64_t)(i + 1) << 8 | 15, 0, u, 2);
        s.place.at[0].x = (u[0] - 0.5f) / 16;
        s.place.at[0].y = (u[1] - 0.5f) / 16;
    }
    return s;
}

sumi_status sm_concept_check(const sm_gallery *g, const sm_dataset *d, int style, int64_t step, uint64_t seed,
                             sm_concept_tally t[SM_SPOILS],
                             sm_mem *mem, sm_err *e)
{
    int side = sm_dataset_side(d);
    uint8_t *rgb = sm_alloc(mem, SM_MEM_DATA, (size_t)side * (size_t)side * 3);
    if (!rgb)
        return sm_fail(e, SUMI_E_MEMORY, "concept check: out of memory");
    memset(t, 0, sizeof *t * SM_SPOILS);
    sumi_status st = SUMI_OK;
    for (int64_t i = 0; i < sm_dataset_count(d) && st == SUMI_OK; i += SM_MAX(step, (int64_t)1))
        for (int k = 0; k < SM_SPOILS && st == SUMI_OK && sm_dataset_picture(d, i)->style_row == style; k++) {
            sm_scene s = placed(d, i, k, seed);
            sm_concept_hit hit = {0};
            st = sm_dataset_draw(d, &s, side, rgb, e);
            if (st == SUMI_OK)
                st = sm_spoil(k, seed, i, side, rgb, mem, e);
            if (st == SUMI_OK)
                st = sm_gallery_find(g, rgb, side, side, sm_dataset_picture(d, i)->caption, &hit, e);
            if (st == SUMI_OK)
                sm_concept_tally_add(&t[k], &hit);
        }
    sm_free(rgb);
    return st;
}
