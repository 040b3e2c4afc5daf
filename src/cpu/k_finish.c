/* What is done to a row of results before it is stored for good: activation or gate, then something added. Vectors are whole or
 * partial with the same expression, so bits do not depend on where a value stands. */
#include "cpu/activation.h"
#include "cpu/gemm.h"

typedef vf act_fn(vf x);
static inline vf identity(vf x) { return x; }

static inline __attribute__((always_inline)) vf finished(act_fn *act, vf x, const float *gate, vf g)
{
    return gate ? x * act(g) : act(x);
}

static inline __attribute__((always_inline)) void row(act_fn *act, const float *in, const float *gate,
                                                      const float *add, float *out, int64_t n)
{
    int64_t i = 0;
    for (; i + SM_VL <= n; i += SM_VL) {
        vf y = finished(act, vload(in + i), gate, gate ? vload(gate + i) : vset(0));
        vstore(out + i, add ? y + vload(add + i) : y);
    }
    if (i == n)
        return;
    int rest = (int)(n - i);
    vf y = finished(act, vload_part(in + i, rest, 0), gate, gate ? vload_part(gate + i, rest, 0) : vset(0));
    vstore_part(out + i, add ? y + vload_part(add + i, rest, 0) : y, rest);
}

/* The four shapes apart, so that loops hold no branches. */
static inline __attribute__((always_inline)) void rows(act_fn *act, const float *in, const float *gate,
                                                       const float *add, float *out, int64_t n)
{
    if (gate && add)
        row(act, in, gate, add, out, n);
    else if (gate)
        row(act, in, gate, NULL, out, n);
    else if (add)
        row(act, in, NULL, add, out, n);
    else
        row(act, in, NULL, NULL, out, n);
}

bool SM_K(sm_finish_knows)(sm_op_id act)
{
    return act == SM_OP_INPUT || act == SM_OP_SILU || act == SM_OP_GELU_TANH || act == SM_OP_GELU_ERF ||
           act == SM_OP_QUICK_GELU || act == SM_OP_RELU;
}

void SM_K(sm_finish_row)(sm_op_id act, const float *in, const float *gate, const float *add, float *out, int64_t n)
{
    switch (act) {
    case SM_OP_SILU: rows(sm_v_silu, in, gate, add, out, n); break;
    case SM_OP_GELU_TANH: rows(sm_v_gelu_tanh, in, gate, add, out, n); break;
    case SM_OP_GELU_ERF: rows(sm_v_gelu_erf, in, gate, add, out, n); break;
    case SM_OP_QUICK_GELU: rows(sm_v_quick_gelu, in, gate, add, out, n); break;
    case SM_OP_RELU: rows(sm_v_relu, in, gate, add, out, n); break;
    default: rows(identity, in, gate, add, out, n);
    }
}
