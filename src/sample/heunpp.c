/* Heun++2 (ComfyUI's and the WebUI extension's heunpp2): a step's slope is a mean of those at this level and the next two, each
 * weighed by its sigma in parts of the first sigma. The last step is Euler's, the one before looks one level ahead. */
#include "sample/sampler.h"

/* One more level: probe moves from sigma `from` along `slope` to `to`, whose slope then takes its place. x0: n floats. */
static sumi_status ahead(const sm_sampling *p, double from, double to, float *probe, float *slope, float *x0, sm_err *e)
{
    for (int64_t i = 0; i < p->n; i++)
        probe[i] = (float)(probe[i] + (to - from) * slope[i]);
    sumi_status st = sm_sample_denoise(p, probe, to, x0, e);
    for (int64_t i = 0; st == SUMI_OK && i < p->n; i++)
        slope[i] = (float)(((double)probe[i] - x0[i]) / to);
    return st;
}

/* room: 3 n floats. from: sigmas[i], or above it with churn. */
static sumi_status move(const sm_sampling *p, int i, double from, double to, float *x, float *x0, float *room, sm_err *e)
{
    const double *s = p->sigmas + i;
    int more = SM_MIN(2, p->steps - 1 - i); /* levels looked ahead */
    float *probe = room, *slope = room + p->n, *sum = slope + p->n;
    double weight[2] = {0}, first = 1;
    for (int k = 0; k < more; k++)
        first -= weight[k] = s[k + 1] / ((more + 1) * p->sigmas[0]);
    for (int64_t q = 0; q < p->n; q++) {
        probe[q] = x[q];
        slope[q] = (float)(((double)x[q] - x0[q]) / from);
        sum[q] = (float)(first * slope[q]);
    }
    sumi_status st = SUMI_OK;
    for (int k = 0; st == SUMI_OK && k < more; k++) {
        st = ahead(p, k ? s[k] : from, s[k + 1], probe, slope, x0, e);
        for (int64_t q = 0; st == SUMI_OK && q < p->n; q++)
            sum[q] = (float)(sum[q] + weight[k] * slope[q]);
    }
    for (int64_t q = 0; st == SUMI_OK && q < p->n; q++)
        x[q] = (float)(x[q] + (to - from) * sum[q]);
    return st;
}

sumi_status sm_sample_heunpp2(const sm_sampling *p, float *x, sm_err *e) { return sm_sample_moves(p, move, 4, x, e); }

int64_t sm_sample_heunpp2_evals(const double *sigmas, int steps) { return steps < 2 ? steps : 3 * (int64_t)steps - 3; }
