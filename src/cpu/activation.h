/* Activations as expressions on vectors: operations of their own (k_elementwise.c) and at the end of others (k_finish.c) give
 * the same bits. */
#ifndef SM_ACTIVATION_H
#define SM_ACTIVATION_H

#include "cpu/vmath.h"

/* x sigmoid(2 u), u = sqrt(2/pi) (x + 0.044715 x^3), is 0.5 x (1 + tanh u). */
static inline vf sm_gelu_tanh_arg(vf x) { return x * vfma(x * x, vset(0.0713548163f), vset(1.59576912f)); }
static inline vf sm_normal_cdf(vf x) { return vfma(verf(x * 0.707106781f), vset(0.5f), vset(0.5f)); }

static inline vf sm_v_silu(vf x) { return x * vsigmoid(x); }
static inline vf sm_v_gelu_tanh(vf x) { return x * vsigmoid(sm_gelu_tanh_arg(x)); }
static inline vf sm_v_gelu_erf(vf x) { return x * sm_normal_cdf(x); }
static inline vf sm_v_quick_gelu(vf x) { return x * vsigmoid(x * 1.702f); }
static inline vf sm_v_relu(vf x) { return vmax(vset(0), x); }

#endif
