/* Schedules that are formulas between the highest and the lowest level (k-diffusion's sampling.py, ComfyUI's samplers.py,
 * diffusers' use_beta_sigmas), and published lists of levels (Sabour et al. 2024, "Align Your Steps"; Chen et al. 2024, GITS)
 * that are stretched to any number of steps evenly in log sigma. */
#include <math.h>

#include "sample/schedule_rows.h"

/* Both ends are levels that were asked for, not what comes back from a power or a logarithm: a flow's must not exceed 1. */
static void ends(const sm_schedule_part *q, double *s)
{
    s[q->n - 1] = q->low;
    s[0] = q->top;
}

sumi_status sm_fill_karras(const sm_schedule_part *q, double *s, sm_err *e)
{
    for (int i = 0; i < q->n; i++)
        s[i] = pow(sm_even(pow(q->top, 1 / q->rho), pow(q->low, 1 / q->rho), i, q->n), q->rho);
    ends(q, s);
    return SUMI_OK;
}

sumi_status sm_fill_exponential(const sm_schedule_part *q, double *s, sm_err *e)
{
    for (int i = 0; i < q->n; i++)
        s[i] = exp(sm_even(log(q->top), log(q->low), i, q->n));
    ends(q, s);
    return SUMI_OK;
}

sumi_status sm_fill_polyexponential(const sm_schedule_part *q, double *s, sm_err *e)
{
    for (int i = 0; i < q->n; i++)
        s[i] = exp(log(q->low) + (log(q->top) - log(q->low)) * pow(sm_even(1, 0, i, q->n), q->rho));
    ends(q, s);
    return SUMI_OK;
}

/* Evenly in the angle whose tangent sigma is: optimal for a Gaussian (Sabour et al. 2024, theorem 3.1). */
sumi_status sm_fill_kl_optimal(const sm_schedule_part *q, double *s, sm_err *e)
{
    for (int i = 0; i < q->n; i++)
        s[i] = tan(sm_even(atan(q->top), atan(q->low), i, q->n));
    ends(q, s);
    return SUMI_OK;
}

/* log sigma at quantiles of a Laplace distribution about 0 of scale 0.5, cut at the ends (Hang et al. 2024). */
sumi_status sm_fill_laplace(const sm_schedule_part *q, double *s, sm_err *e)
{
    for (int i = 0; i < q->n; i++) {
        double u = 0.5 - sm_even(0, 1, i, q->n), l = -0.5 * log(1 - 2 * fabs(u) + 1e-5);
        s[i] = fmin(fmax(exp(u > 0 ? l : u < 0 ? -l : 0), q->low), q->top);
    }
    return SUMI_OK;
}

sumi_status sm_fill_beta_sigmas(const sm_schedule_part *q, double *s, sm_err *e)
{
    for (int i = 0; i < q->n; i++)
        s[i] = q->low + (q->top - q->low) * sm_beta_quantile(sm_even(1, 0, i, q->n), 0.6, 0.6);
    ends(q, s);
    return SUMI_OK;
}

/* Half of the steps go linearly through the highest fortieth of the range, the others fall quadratically (Mochi). */
sumi_status sm_fill_linear_quadratic(const sm_schedule_part *q, double *s, sm_err *e)
{
    const double threshold = 0.025;
    int n = q->n, linear = n / 2, rest = n - linear;
    double jump = linear - threshold * n, a = n > 1 ? jump / ((double)linear * rest * rest) : 0;
    double b = n > 1 ? threshold / linear - 2 * jump / ((double)rest * rest) : 0;
    for (int i = 0; i < n; i++)
        s[i] = q->top * (1 - (i < linear ? i * threshold / linear : a * i * i + b * i + a * linear * linear));
    s[0] = q->top;
    return SUMI_OK;
}

/* ---- published lists --------------------------------------------------------------------------------------------- */

/* n levels from the first of `levels` to its last, their logarithms on straight lines between them; one alone is the last, as the
 * references have it. */
static void stretch(const double *levels, int count, double *s, int n)
{
    for (int i = 0; i < n; i++) {
        double at = n > 1 ? (double)i * (count - 1) / (n - 1) : count - 1;
        int k = SM_MIN((int)at, count - 2);
        s[i] = n == count ? levels[i] : exp(log(levels[k]) + (log(levels[k + 1]) - log(levels[k])) * (at - k));
    }
}

/* Ten steps as ComfyUI has them (diffusers and A1111 round to three places); the last level stands for 0. */
static const double ays_sd[11] = {14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092,
                                  0.9642583904,  0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582};
static const double ays_xl[11] = {14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141,
                                  0.5550693289,  0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582};
static const double ays_video[11] = {700, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002};

sumi_status sm_fill_ays(const sm_schedule_part *q, double *s, sm_err *e)
{
    bool edm = q->m->sigma_data > 0;
    if (edm && sm_noise_max(q->m) < 699)
        return sm_fail(e, SUMI_E_ARG,
                       "schedule %s: there is no list of levels for EDM models up to %g, only for Stable Video Diffusion's 700",
                       q->row->name, sm_noise_max(q->m));
    stretch(edm ? ays_video : q->xl ? ays_xl : ays_sd, SM_COUNT(ays_sd), s, q->n + 1);
    return SUMI_OK;
}

/* The lists that end above 0 and get it as one more level, A1111's way; for Stable Diffusion's range alone. */
static sumi_status listed(const sm_schedule_part *q, const double *sd, const double *xl, int count, double *s, sm_err *e)
{
    if (q->m->sigma_data > 0)
        return sm_fail(e, SUMI_E_ARG, "schedule %s: there is no list of levels for EDM models", q->row->name);
    stretch(q->xl ? xl : sd, count, s, q->n);
    return SUMI_OK;
}

sumi_status sm_fill_ays_11(const sm_schedule_part *q, double *s, sm_err *e)
{
    static const double sd[11] = {14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029};
    static const double xl[11] = {14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029};
    return listed(q, sd, xl, SM_COUNT(sd), s, e);
}

sumi_status sm_fill_ays_32(const sm_schedule_part *q, double *s, sm_err *e)
{
    static const double sd[32] = {14.615,     11.23951352, 8.64363081, 6.64729424, 5.57250862, 4.71648546, 3.99196065, 3.5195609,
                                  3.13490466, 2.79228788,  2.48773628, 2.21663865, 1.97508351, 1.7793172,  1.61475335, 1.46540953,
                                  1.314849,   1.16642497,  1.03475547, 0.91573744, 0.80748169, 0.71202361, 0.621739,   0.53065202,
                                  0.4529096,  0.37491455,  0.27461819, 0.2011529,  0.14105873, 0.06682881, 0.03166121, 0.015};
    static const double xl[32] = {14.615,     11.1491618, 8.50522127, 6.48827151, 5.43707402, 4.60398619, 3.89854704, 3.27407457,
                                  2.74396527, 2.29968659, 1.95448514, 1.67108715, 1.42878152, 1.23181009, 1.06789649, 0.92579443,
                                  0.80290886, 0.69660121, 0.60436903, 0.52852552, 0.46773344, 0.41393379, 0.36258186, 0.31008517,
                                  0.26518925, 0.22326461, 0.17653877, 0.13959192, 0.10587381, 0.05519369, 0.02877334, 0.015};
    return listed(q, sd, xl, SM_COUNT(sd), s, e);
}

sumi_status sm_fill_ays_gits(const sm_schedule_part *q, double *s, sm_err *e)
{
    static const double sd[11] = {14.615, 4.617, 2.507, 1.236, 0.702, 0.402, 0.240, 0.156, 0.104, 0.094, 0.029};
    static const double xl[11] = {14.615, 4.734, 2.567, 1.529, 0.987, 0.652, 0.418, 0.268, 0.179, 0.127, 0.029};
    return listed(q, sd, xl, SM_COUNT(sd), s, e);
}
