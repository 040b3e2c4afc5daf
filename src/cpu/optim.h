/* Vector loops of the trainer on flat f32 arrays: not graph operations, but picked per instruction set like the kernels.
 * Each call is serial; the caller cuts arrays into tasks. Element-wise results do not depend on the cut. */
#ifndef SM_OPTIM_H
#define SM_OPTIM_H

#include "base/base.h"

/* AdamW (Loshchilov and Hutter 2019) as in PyTorch: g is multiplied by grad_scale (clipping) first, then
 * w -= lr weight_decay w;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
 * w -= lr (m / bias1) / (sqrt(v / bias2) + eps), bias1 = 1 - beta1^t, bias2 = 1 - beta2^t for step t = 1, 2 ...
 * Then ema += average (w - ema), the moving average of the weights. */
typedef struct sm_adamw {
    float lr, beta1, beta2, eps, weight_decay, bias1, bias2, grad_scale, average;
} sm_adamw;

typedef struct sm_optim {
    /* ema NULL: none is kept */
    void (*adamw)(float *w, float *m, float *v, float *ema, const float *g, int64_t n, const sm_adamw *p);
    double (*sum_squares)(const float *x, int64_t n);            /* in double, sixteen lanes: the order is fixed */
    bool (*all_finite)(const float *x, int64_t n);
} sm_optim;

/* For the backend of this name ("scalar", "avx2" ...); the scalar one for a name this build lacks. */
const sm_optim *sm_optim_for(const char *backend);

extern const sm_optim sm_optim_scalar, sm_optim_avx2, sm_optim_avx512, sm_optim_neon;

#endif
