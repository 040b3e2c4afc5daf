/* Scalar reference of the trainer's loops (see optim.h), and their selection by the backend's name. */
#include "cpu/optim.h"

#include <math.h>
#include <string.h>

static void adamw(float *w, float *m, float *v, float *ema, const float *g, int64_t n, const sm_adamw *p)
{
    for (int64_t i = 0; i < n; i++) {
        double d = (double)g[i] * p->grad_scale, mean = p->beta1 * (double)m[i] + (1 - (double)p->beta1) * d;
        double square = p->beta2 * (double)v[i] + (1 - (double)p->beta2) * d * d;
        double step = mean / p->bias1 / (sqrt(square / p->bias2) + p->eps);
        w[i] = (float)(w[i] * (1 - (double)p->lr * p->weight_decay) - p->lr * step);
        m[i] = (float)mean;
        v[i] = (float)square;
        if (ema)
            ema[i] = (float)(ema[i] + (double)p->average * ((double)w[i] - ema[i]));
    }
}

static double sum_squares(const float *x, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += (double)x[i] * x[i];
    return s;
}

static bool all_finite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

const sm_optim sm_optim_scalar = {adamw, sum_squares, all_finite};

const sm_optim *sm_optim_for(const char *backend)
{
#if defined(__x86_64__)
    if (!strcmp(backend, "avx2"))
        return &sm_optim_avx2;
    if (!strcmp(backend, "avx512"))
        return &sm_optim_avx512;
#elif defined(__aarch64__)
    if (!strcmp(backend, "neon"))
        return &sm_optim_neon;
#endif
    return &sm_optim_scalar;
}
