/* Classifier-free guidance (Ho & Salimans 2022), rescaled (Lin et al. 2024, section 3.4), on an interval of noise levels
 * (Kynkaanniemi et al. 2024). */
#include "sample/guidance.h"

#include <math.h>
#include <string.h>

bool sm_guidance_active(const sm_guidance *g, double sigma)
{
    return g->scale != 1 && (g->high <= 0 || (sigma >= g->low && sigma <= g->high));
}

static double deviation(const float *x, int64_t n)
{
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++)
        square += (x[i] - mean) * (x[i] - mean);
    return sqrt(square / (double)n);
}

/* One picture. out may be one of the inputs, so the conditional's deviation is taken first. */
static void guide(const sm_guidance *g, const float *cond, const float *uncond, float *out, int64_t n)
{
    double was = g->rescale != 0 ? deviation(cond, n) : 0;
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)(uncond[i] + g->scale * ((double)cond[i] - uncond[i]));
    double now = g->rescale != 0 ? deviation(out, n) : 0;
    if (now > 0) {
        double f = g->rescale * was / now + (1 - g->rescale);
        for (int64_t i = 0; i < n; i++)
            out[i] = (float)(f * out[i]);
    }
}

void sm_guidance_apply(const sm_guidance *g, double sigma, const float *cond, const float *uncond, float *out, int count,
                       int64_t n)
{
    if (!sm_guidance_active(g, sigma)) {
        if (out != cond)
            memmove(out, cond, (size_t)count * (size_t)n * sizeof *out);
        return;
    }
    for (int k = 0; k < count; k++)
        guide(g, cond + k * n, uncond + k * n, out + k * n, n);
}
