/* Resampling (see resize.h). Every filter is a table of taps for each axis: which pixels make a new one, and how much each
 * counts. */
#include "io/resize.h"

#include <math.h>
#include <string.h>

enum { BITS = 22 }; /* of a weight after the point: what 8-bit pixels leave of 32 bits, less 2 for overshoot */

typedef struct taps {
    int out, most;   /* pixels made, taps of one at most */
    int *first, *count;
    double *weight;  /* [out, most] */
} taps;

/* ---- kernels: value at x, in pixels of the coarser picture --------------------------------------------------------- */

static double box_at(double x) { return x > -0.5 && x <= 0.5; }
static double triangle_at(double x) { return fmax(1 - fabs(x), 0); }
static double sinc(double x) { return x == 0 ? 1 : sin(M_PI * x) / (M_PI * x); }
static double lanczos_at(double x) { return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0; }
static double hamming_at(double x) { return fabs(x) >= 1 ? 0 : x == 0 ? 1 : sinc(x) * (0.54 + 0.46 * cos(M_PI * x)); }

/* Keys 1981, with the slope a at 1. */
static double cubic(double x, double a)
{
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? ((x - 5) * x + 8) * x * a - 4 * a : 0;
}

static double cubic_at(double x) { return cubic(x, -0.5); }

static const struct { const char *name; double (*at)(double); double support; } filters[SM_FILTER_COUNT] = {
    [SM_FILTER_NEAREST] = {"nearest", NULL, 0},
    [SM_FILTER_BOX] = {"box", box_at, 0.5},
    [SM_FILTER_BILINEAR] = {"bilinear", triangle_at, 1},
    [SM_FILTER_HAMMING] = {"hamming", hamming_at, 1},
    [SM_FILTER_BICUBIC] = {"bicubic", cubic_at, 2},
    [SM_FILTER_LANCZOS] = {"lanczos", lanczos_at, 3},
};

sm_filter sm_filter_find(const char *name)
{
    int f = 0;
    while (f < SM_FILTER_COUNT && strcmp(filters[f].name, name))
        f++;
    return (sm_filter)f;
}

/* ---- tables -------------------------------------------------------------------------------------------------------- */

static bool taps_new(taps *t, int out, int most, sm_mem *mem)
{
    size_t n = 0;
    *t = (taps){.out = out, .most = most};
    if (sm_mul_ok((size_t)out, (size_t)most * sizeof *t->weight, &n))
        t->weight = sm_alloc0(mem, SM_MEM_DATA, n);
    t->first = sm_alloc(mem, SM_MEM_DATA, 2 * (size_t)out * sizeof *t->first);
    t->count = t->first ? t->first + out : NULL;
    return t->first && t->weight;
}

static void taps_free(taps *t)
{
    sm_free(t->first);
    sm_free(t->weight);
}

/* The kernel around the middle of each new pixel, widened where it shrinks; from a stretch x0..x1 of `in` pixels. */
static bool taps_kernel(taps *t, double (*at)(double), double support, int in, double x0, double x1, int out, sm_mem *mem)
{
    double scale = (x1 - x0) / out, wide = fmax(scale, 1), reach = support * wide;
    if (!taps_new(t, out, (int)ceil(reach) * 2 + 1, mem))
        return false;
    for (int i = 0; i < out; i++) {
        double middle = x0 + (i + 0.5) * scale, sum = 0, *w = t->weight + (size_t)i * (size_t)t->most;
        int first = SM_MAX((int)(middle - reach + 0.5), 0), end = SM_MIN((int)(middle + reach + 0.5), in);
        t->first[i] = first;
        t->count[i] = SM_MAX(end - first, 0);
        for (int k = 0; k < t->count[i]; k++)
            sum += w[k] = at((k + first - middle + 0.5) / wide);
        for (int k = 0; k < t->count[i] && sum != 0; k++)
            w[k] /= sum;
    }
    return true;
}

static void one_tap(taps *t, int i, int from, int in)
{
    t->first[i] = SM_MIN(SM_MAX(from, 0), in - 1);
    t->count[i] = 1;
    t->weight[(size_t)i * (size_t)t->most] = 1;
}

/* Pillow adds the step up, which decides ties. */
static bool taps_nearest(taps *t, int in, double x0, double x1, int out, sm_mem *mem)
{
    double step = (x1 - x0) / out, x = x0 + step * 0.5;
    if (!taps_new(t, out, 1, mem))
        return false;
    for (int i = 0; i < out; i++, x += step)
        one_tap(t, i, (int)x, in);
    return true;
}

/* torch's, in its float arithmetic: n taps around scale (i + 0.5) - 0.5, those beyond an edge counted to the edge. */
static bool taps_plain(taps *t, sm_interp mode, int in, int out, sm_mem *mem)
{
    float scale = (float)in / (float)out;
    bool cubic_one = mode == SM_INTERP_BICUBIC;
    if (!taps_new(t, out, 4, mem))
        return false;
    for (int i = 0; i < out; i++) {
        if (mode == SM_INTERP_NEAREST || mode == SM_INTERP_NEAREST_EXACT) {
            one_tap(t, i, (int)floorf(((float)i + (mode == SM_INTERP_NEAREST ? 0.0f : 0.5f)) * scale), in);
            continue;
        }
        float x = scale * ((float)i + 0.5f) - 0.5f;
        x = cubic_one ? x : fmaxf(x, 0);
        int at = (int)floorf(x), from = cubic_one ? at - 1 : at, n = cubic_one ? 4 : 2;
        double part = x - (float)at, *w = t->weight + (size_t)i * 4;
        t->first[i] = SM_MIN(SM_MAX(from, 0), in - 1);
        t->count[i] = SM_MIN(SM_MIN(SM_MAX(from + n, 1), in) - t->first[i], 4);
        for (int k = 0; k < n; k++) {
            int to = SM_MIN(SM_MAX(from + k, 0), in - 1) - t->first[i];
            w[to] += cubic_one ? cubic(part + 1 - k, -0.75) : k ? part : 1 - part;
        }
    }
    return true;
}

/* ---- bytes --------------------------------------------------------------------------------------------------------- */

static uint8_t cut(int32_t sum) { return (uint8_t)SM_MIN(SM_MAX(sum >> BITS, 0), 255); }

/* Weights become whole numbers, in place. */
static int32_t *whole_weights(taps *t)
{
    int32_t *k = (int32_t *)(void *)t->weight;
    for (size_t i = 0; i < (size_t)t->out * (size_t)t->most; i++) {
        double w = t->weight[i] * (1 << BITS);
        int32_t v = (int32_t)(w < 0 ? w - 0.5 : w + 0.5);
        memcpy(k + i, &v, sizeof v);
    }
    return k;
}

static void rows_u8(const uint8_t *src, int w, int h, int c, taps *t, uint8_t *dst)
{
    const int32_t *weights = whole_weights(t);
    for (int y = 0; y < h; y++, src += (size_t)w * (size_t)c)
        for (int x = 0; x < t->out; x++)
            for (int q = 0; q < c; q++) {
                const int32_t *k = weights + (size_t)x * (size_t)t->most;
                const uint8_t *from = src + (size_t)t->first[x] * (size_t)c + q;
                int32_t sum = 1 << (BITS - 1);
                for (int i = 0; i < t->count[x]; i++)
                    sum += from[(size_t)i * (size_t)c] * k[i];
                *dst++ = cut(sum);
            }
}

static void columns_u8(const uint8_t *src, int line, taps *t, uint8_t *dst)
{
    const int32_t *weights = whole_weights(t);
    for (int y = 0; y < t->out; y++)
        for (int x = 0; x < line; x++) {
            const int32_t *k = weights + (size_t)y * (size_t)t->most;
            const uint8_t *from = src + (size_t)t->first[y] * (size_t)line + x;
            int32_t sum = 1 << (BITS - 1);
            for (int i = 0; i < t->count[y]; i++)
                sum += from[(size_t)i * (size_t)line] * k[i];
            *dst++ = cut(sum);
        }
}

static bool taps_for(taps *t, sm_filter f, int in, double x0, double x1, int out, sm_mem *mem)
{
    if (f == SM_FILTER_NEAREST)
        return taps_nearest(t, in, x0, x1, out, mem);
    return taps_kernel(t, filters[f].at, filters[f].support, in, x0, x1, out, mem);
}

sumi_status sm_resize(const uint8_t *src, int w, int h, int c, const sm_box *box, sm_filter f, uint8_t *dst,
                      int dw, int dh, sm_mem *mem, sm_err *e)
{
    sm_box b = box ? *box : (sm_box){0, 0, w, h};
    bool across = dw != w || b.x0 != 0 || b.x1 != w, down = dh != h || b.y0 != 0 || b.y1 != h;
    taps x = {0}, y = {0};
    uint8_t *between = NULL;
    bool ok = (!across || taps_for(&x, f, w, b.x0, b.x1, dw, mem)) && (!down || taps_for(&y, f, h, b.y0, b.y1, dh, mem));
    if (ok && across && down)
        ok = (between = sm_alloc(mem, SM_MEM_DATA, (size_t)dw * (size_t)h * (size_t)c)) != NULL;
    if (!ok)
        sm_fail(e, SUMI_E_MEMORY, "out of memory resizing a picture from %dx%d to %dx%d", w, h, dw, dh);
    else if (!across && !down)
        memcpy(dst, src, (size_t)w * (size_t)h * (size_t)c);
    else {
        if (across)
            rows_u8(src, w, h, c, &x, down ? between : dst);
        if (down)
            columns_u8(across ? between : src, dw * c, &y, dst);
    }
    sm_free(between);
    taps_free(&x);
    taps_free(&y);
    return ok ? SUMI_OK : SUMI_E_MEMORY;
}

/* ---- floats -------------------------------------------------------------------------------------------------------- */

static bool taps_mode(taps *t, sm_interp mode, int in, int out, sm_mem *mem)
{
    if (mode == SM_INTERP_BILINEAR_AA)
        return taps_kernel(t, triangle_at, 1, in, 0, in, out, mem);
    if (mode == SM_INTERP_BICUBIC_AA)
        return taps_kernel(t, cubic_at, 2, in, 0, in, out, mem);
    return taps_plain(t, mode, in, out, mem);
}

/* Sums of lines that lie `step` floats apart, n floats each. */
static void mix(const float *src, int64_t step, int64_t n, const taps *t, int i, float *dst)
{
    const double *w = t->weight + (size_t)i * (size_t)t->most;
    for (int64_t x = 0; x < n; x++) {
        double sum = 0;
        for (int k = 0; k < t->count[i]; k++)
            sum += w[k] * src[(t->first[i] + k) * step + x];
        dst[x] = (float)sum;
    }
}

sumi_status sm_interpolate(const float *src, int w, int h, int c, sm_interp mode, float *dst, int dw,
                           int dh, sm_mem *mem, sm_err *e)
{
    taps x = {0}, y = {0};
    float *between = sm_alloc(mem, SM_MEM_DATA, sizeof *between * (size_t)dw * (size_t)h * (size_t)c);
    bool ok = between && taps_mode(&x, mode, w, dw, mem) && taps_mode(&y, mode, h, dh, mem);
    if (!ok)
        sm_fail(e, SUMI_E_MEMORY, "out of memory resizing latents from %dx%d to %dx%d", w, h, dw, dh);
    for (int r = 0; ok && r < h; r++)
        for (int i = 0; i < dw; i++)
            mix(src + (size_t)r * (size_t)w * (size_t)c, c, c, &x, i, between + ((size_t)r * (size_t)dw + (size_t)i) * (size_t)c);
    for (int i = 0; ok && i < dh; i++)
        mix(between, (int64_t)dw * c, (int64_t)dw * c, &y, i, dst + (size_t)i * (size_t)dw * (size_t)c);
    sm_free(between);
    taps_free(&x);
    taps_free(&y);
    return ok ? SUMI_OK : SUMI_E_MEMORY;
}
