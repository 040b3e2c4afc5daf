/* Blurring (see blur.h). A line is a row or a column of one channel: n bytes, `step` apart. */
#include "io/blur.h"

#include <math.h>
#include <stdlib.h>

typedef void line_fn(uint8_t *x, int64_t step, int n, const void *arg, uint8_t *room);

static void all_lines(uint8_t *x, int w, int h, int c, bool columns, line_fn *fn, const void *arg, uint8_t *room)
{
    int64_t row = (int64_t)w * c;
    for (int64_t i = 0; i < (columns ? row : (int64_t)h * c); i++)
        fn(columns ? x + i : x + i / c * row + i % c, columns ? row : c, columns ? h : w, arg, room);
}

static sumi_status both_ways(uint8_t *x, int w, int h, int c, int times, line_fn *fn, const void *arg, sm_mem *mem, sm_err *e)
{
    uint8_t *room = sm_alloc(mem, SM_MEM_DATA, (size_t)SM_MAX(w, h));
    if (!room)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory blurring a picture of %dx%d", w, h);
    for (int i = 0; i < 2 * times; i++)
        all_lines(x, w, h, c, i >= times, fn, arg, room);
    sm_free(room);
    return SUMI_OK;
}

/* ---- Gaussian ------------------------------------------------------------------------------------------------------ */

typedef struct gauss { int reach; const double *weight; } gauss; /* weight [reach + 1], from the middle outwards */

static int reflected(int i, int n)
{
    int period = SM_MAX(2 * (n - 1), 1);
    i = abs(i) % period;
    return i < n ? i : period - i;
}

static void gauss_line(uint8_t *x, int64_t step, int n, const void *arg, uint8_t *room)
{
    const gauss *g = arg;
    for (int i = 0; i < n; i++)
        room[i] = x[i * step];
    for (int i = 0; i < n; i++) {
        double sum = g->weight[0] * room[i];
        for (int k = 1; k <= g->reach; k++)
            sum += g->weight[k] * (room[reflected(i - k, n)] + room[reflected(i + k, n)]);
        x[i * step] = (uint8_t)(sum + 0.5);
    }
}

sumi_status sm_blur_gauss(uint8_t *x, int w, int h, int c, double sigma, sm_mem *mem, sm_err *e)
{
    double weight[256], sum = 0;
    int reach = SM_MIN((int)(2.5 * sigma + 0.5), (int)SM_COUNT(weight) - 1);
    for (int k = 0; k <= reach; k++)
        sum += (k ? 2 : 1) * (weight[k] = exp(-0.5 * k * k / (sigma * sigma)));
    for (int k = 0; k <= reach; k++)
        weight[k] /= sum;
    return both_ways(x, w, h, c, 1, gauss_line, &(gauss){reach, weight}, mem, e);
}

/* ---- boxes --------------------------------------------------------------------------------------------------------- */

/* A mean over 2 whole + 1 pixels and a part of the next on either side, in 24 bits. */
typedef struct means { int whole; uint32_t each, edge; } means;

static means means_for(double sigma)
{
    float variance = (float)(sigma * sigma / 3), whole = floorf((sqrtf(12 * variance + 1) - 1) / 2);
    float part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) * (whole + 1)));
    means m = {.whole = (int)whole, .each = (uint32_t)((1 << 24) / ((whole + part) * 2 + 1))};
    m.edge = ((1u << 24) - (uint32_t)(2 * m.whole + 1) * m.each) / 2;
    return m;
}

static void means_line(uint8_t *x, int64_t step, int n, const void *arg, uint8_t *room)
{
    const means *m = arg;
    int last = n - 1;
    uint32_t sum = 0;
    for (int i = 0; i < n; i++)
        room[i] = x[i * step];
    for (int k = -m->whole; k <= m->whole; k++)
        sum += room[SM_MIN(SM_MAX(k, 0), last)];
    for (int i = 0; i < n; i++) {
        uint32_t ends = (uint32_t)room[SM_MAX(i - m->whole - 1, 0)] + room[SM_MIN(i + m->whole + 1, last)];
        x[i * step] = (uint8_t)(((uint64_t)sum * m->each + (uint64_t)ends * m->edge + (1 << 23)) >> 24);
        sum += (uint32_t)room[SM_MIN(i + m->whole + 1, last)] - room[SM_MAX(i - m->whole, 0)];
    }
}

sumi_status sm_blur_boxes(uint8_t *x, int w, int h, int c, double sigma, sm_mem *mem, sm_err *e)
{
    means m = means_for(sigma);
    return both_ways(x, w, h, c, 3, means_line, &m, mem, e);
}
