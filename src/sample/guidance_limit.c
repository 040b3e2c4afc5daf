/* Guidance that holds values back: dynamic thresholding as in the extension sd-dynamic-thresholding (dynthres_core.py), where a
 * high scale's result gets the spread of a lower one's, and as in Imagen (Saharia et al. 2022, section 2.3). The extension's
 * measures over all channels take a whole batch together; here each picture has its own, which is the same for one. */
#include "sample/guidance.h"

#include <math.h>
#include <stdlib.h>

static int rising(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Value at a fraction of sorted x, between two of them in proportion (torch.quantile). Sorts x. */
static double quantile(float *x, int64_t n, double q)
{
    qsort(x, (size_t)n, sizeof *x, rising);
    double at = q * (double)(n - 1);
    int64_t i = (int64_t)at;
    return i + 1 < n ? x[i] + (at - (double)i) * ((double)x[i + 1] - x[i]) : x[n - 1];
}

typedef struct measure { double mean, sum2, most; } measure;

/* The guided value at i of [pixels, channels]. Means are each channel's own, so loops go over one channel. */
static double at(const float *e, const float *u, double scale, int64_t i) { return u[i] + scale * ((double)e[i] - u[i]); }

static double channel_mean(const float *e, const float *u, double scale, int64_t n, int c, int channels)
{
    double sum = 0;
    for (int64_t i = c; i < n; i += channels)
        sum += at(e, u, scale, i);
    return sum / (double)(n / channels);
}

/* Adds a channel's spread around its mean to m; where absolute is given, |value - mean| go there. */
static void spread(measure *m, const float *e, const float *u, double scale, int64_t n, int c, int channels, float *absolute)
{
    double mean = m->mean = channel_mean(e, u, scale, n, c, channels);
    for (int64_t i = c, k = 0; i < n; i += channels, k++) {
        double x = at(e, u, scale, i) - mean;
        m->sum2 += x * x;
        m->most = fmax(m->most, fabs(x));
        if (absolute)
            absolute[k] = (float)fabs(x);
    }
}

/* One channel with the measures ref_m of the mimicked result and ref_c of the guided one. */
static void limit(const sm_mimic *m, double scale, double ref_m, double ref_c, const float *e, const float *u, float *g,
                  int64_t n, int c, int channels)
{
    double mean = channel_mean(e, u, scale, n, c, channels), most = fmax(ref_m, ref_c);
    for (int64_t i = c; i < n; i += channels) {
        double x = at(e, u, scale, i), y;
        if (m->from_zero)
            y = ref_c > 0 ? x * (ref_m / ref_c) : x;
        else if (m->deviation)
            y = mean + (ref_c > 0 ? (x - mean) / ref_c * ref_m : 0);
        else
            y = mean + (most > 0 ? fmax(-most, fmin(most, x - mean)) / most * ref_m : 0);
        g[i] = (float)(m->phi * y + (1 - m->phi) * x);
    }
}

void sm_mimic_apply(const sm_mimic *m, double scale, double mimic, const float *e, const float *u, float *g, int64_t n,
                    int channels, float *room)
{
    int64_t pixels = n / channels;
    for (int first = 0, take = m->together ? channels : 1; first < channels; first += take) {
        measure low = {0}, high = {0};
        for (int c = first; c < first + take; c++) {
            spread(&low, e, u, mimic, n, c, channels, NULL);
            spread(&high, e, u, scale, n, c, channels, room + (c - first) * pixels);
        }
        double ref_m = m->deviation ? sqrt(low.sum2) : low.most;
        double ref_c = m->deviation ? sqrt(high.sum2) : quantile(room, pixels * take, m->percentile);
        for (int c = first; c < first + take; c++)
            limit(m, scale, ref_m, ref_c, e, u, g, n, c, channels);
    }
}

void sm_clamp_apply(double ratio, double most, float *x0, int64_t n, float *room)
{
    for (int64_t i = 0; i < n; i++)
        room[i] = fabsf(x0[i]);
    double s = fmax(quantile(room, n, ratio), 1);
    if (most > 0)
        s = fmin(s, most);
    for (int64_t i = 0; i < n; i++)
        x0[i] = (float)(fmax(-s, fmin(s, x0[i])) / s);
}
