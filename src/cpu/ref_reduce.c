/* Scalar reference of the reductions: one double accumulator per output element. */
#include "cpu/ref.h"

/* Adds all elements of x that broadcasting maps to the output element `out` (sum's kept axis of size 1 is a broadcast too). */
static double sum_into(const sm_kcall *c, const int64_t *out)
{
    const sm_tensor *x = &c->src[0], *y = &c->dst;
    int64_t lo[SM_MAX_DIMS], len[SM_MAX_DIMS], count = 1;
    for (int d = 0; d < x->rank; d++) {
        int k = d - (x->rank - y->rank);
        bool kept = k >= 0 && y->dims[k] == x->dims[d];
        lo[d] = kept ? out[k] : 0;
        len[d] = kept ? 1 : x->dims[d];
        count *= len[d];
    }
    double s = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = 0, rest = i, stride = 1;
        for (int d = x->rank - 1; d >= 0; d--) {
            at += (lo[d] + rest % len[d]) * stride;
            rest /= len[d];
            stride *= x->dims[d];
        }
        s += ref_f32(c, 0)[at];
    }
    return s;
}

static void run_sum(const sm_kcall *c, int task, int tasks)
{
    float *y = c->dst.data;
    int64_t a, b, idx[SM_MAX_DIMS];
    sm_range(ref_numel(&c->dst), task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) {
        ref_unravel(&c->dst, i, idx);
        y[i] = (float)sum_into(c, idx);
    }
}

void sm_cpu_reduce_scalar(sm_kernel *k)
{
    k[SM_OP_SUM] = (sm_kernel){.run = run_sum};
    k[SM_OP_SUM_TO] = (sm_kernel){.run = run_sum};
}
