/* Shared by the scalar references (ref_*.c): strides, broadcasting, shares of the work. The references are plain loops
 * with double accumulators: they judge the vector kernels, and run where no vector unit is known. */
#ifndef SM_REF_H
#define SM_REF_H

#include "cpu/cpu.h"

static inline int64_t ref_numel(const sm_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->dims[i];
    return n;
}

static inline int64_t ref_last(const sm_tensor *t) { return t->rank ? t->dims[t->rank - 1] : 1; }

/* Position i (row-major) in a tensor of t's shape as indices. */
static inline void ref_unravel(const sm_tensor *t, int64_t i, int64_t idx[SM_MAX_DIMS])
{
    for (int d = t->rank - 1; d >= 0; d--) {
        idx[d] = i % t->dims[d];
        i /= t->dims[d];
    }
}

/* Offset in t of the indices idx of a tensor of rank `rank` that t broadcasts to (aligned at the last dimension). */
static inline int64_t ref_broadcast(const sm_tensor *t, int rank, const int64_t *idx)
{
    int64_t at = 0;
    for (int d = 0; d < t->rank; d++)
        at = at * t->dims[d] + (t->dims[d] == 1 ? 0 : idx[rank - t->rank + d]);
    return at;
}

static inline const float *ref_f32(const sm_kcall *c, int i) { return c->src[i].data; }

#endif
