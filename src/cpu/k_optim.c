/* The trainer's loops per instruction set (see optim.h). The same bits on all of them, tails included. */
#include "cpu/optim.h"
#include "cpu/simd.h"

#include <math.h>

static inline void adamw_vec(vf *w, vf *m, vf *v, vf g, const sm_adamw *p, float keep, float rate, float root)
{
    g = g * p->grad_scale;
    *m = vfma(g - *m, vset(1 - p->beta1), *m);
    *v = vfma(g * g - *v, vset(1 - p->beta2), *v);
    vf denom = vfma(vsqrt(*v), vset(root), vset(p->eps));
    *w = vfma(*w, vset(keep), -(*m * rate / denom));
}

/* Everything is read and written once. */
static inline __attribute__((always_inline)) void update(const bool keeps, float *w, float *m, float *v, float *ema,
                                                         const float *g, int64_t n, const sm_adamw *p)
{
    float keep = 1 - p->lr * p->weight_decay, rate = p->lr / p->bias1, root = 1 / __builtin_sqrtf(p->bias2);
    for (int64_t i = 0; i < n; i += SM_VL) {
        int part = (int)SM_MIN(n - i, SM_VL);
        bool full = part == SM_VL;
        vf vw = full ? vload(w + i) : vload_part(w + i, part, 0), vm = full ? vload(m + i) : vload_part(m + i, part, 0);
        vf vv = full ? vload(v + i) : vload_part(v + i, part, 0), vg = full ? vload(g + i) : vload_part(g + i, part, 0);
        adamw_vec(&vw, &vm, &vv, vg, p, keep, rate, root);
        vstore_part(w + i, vw, part);
        vstore_part(m + i, vm, part);
        vstore_part(v + i, vv, part);
        if (keeps) {
            vf ve = full ? vload(ema + i) : vload_part(ema + i, part, 0);
            vstore_part(ema + i, vfma(vw - ve, vset(p->average), ve), part);
        }
    }
}

static void adamw(float *w, float *m, float *v, float *ema, const float *g, int64_t n, const sm_adamw *p)
{
    ema ? update(true, w, m, v, ema, g, n, p) : update(false, w, m, v, NULL, g, n, p);
}

/* Squares of floats are exact in double; lane j adds elements j, j + 16 ... */
static double sum_squares(const float *x, int64_t n)
{
    double lane[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++)
            lane[j] += (double)x[i + j] * x[i + j];
    for (int j = 0; i < n; i++, j++)
        lane[j] += (double)x[i] * x[i];
    for (int h = 8; h; h >>= 1)
        for (int j = 0; j < h; j++)
            lane[j] += lane[j + h];
    return lane[0];
}

static bool all_finite(const float *x, int64_t n)
{
    vi bad = viset(0), exponent = viset(0x7f800000);
    for (int64_t i = 0; i < n; i += SM_VL) {
        vf v = vload_part(x + i, (int)SM_MIN(n - i, SM_VL), 0);
        bad |= ((vi)v & exponent) == exponent;
    }
    return !vany(bad);
}

const sm_optim SM_K(sm_optim) = {adamw, sum_squares, all_finite};
