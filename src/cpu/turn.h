/* Stored weights as f32 vectors across rows: what a layer's columns need, which checkpoints store as rows. */
#ifndef SM_TURN_H
#define SM_TURN_H

#include "cpu/cpu.h"
#include "cpu/simd.h"

/* Values of a row that are turned at a time: rows must begin at such a place, and as many are asked for. */
static inline int sm_turn_unit_shift(sm_dtype t) { return t < SM_Q4_0 ? 4 : 5; }

/* Blocks are of 1, 32 or 256 values: log2. */
static inline int sm_turn_shift(sm_dtype t) { return t < SM_Q4_0 ? 0 : t < SM_Q2_K ? 5 : 8; }

/* Whether rows that begin `apart` elements apart, the first at element `at`, can be turned: blocks lie alike in all of them,
 * and a row has one scale at most. */
static inline bool sm_turn_fits(const sm_tensor *t, int64_t at, int64_t apart)
{
    int64_t block = (int64_t)1 << sm_turn_shift(t->dtype);
    return t->dtype != SM_I32 && !(at & SM_MIN(block - 1, 31)) && !(apart & (block - 1)) &&
           (!t->scale || t->dtype <= SM_BF16 || t->scale_run % apart == 0);
}

/* Values [at, at + n) of SM_VL rows, row r's being those from at + r * apart on: vector i to out + i * step. n is a whole
 * number of 1 << sm_turn_unit_shift, step the width of a panel (gemm.h). Each value is what sm_load_values gives, but for which
 * of the NaN a NaN is, a zero's sign, which no sum shows, and blocks whose scale is infinite: all of theirs may be NaN. */
void SM_K(sm_turn)(const sm_tensor *t, int64_t at, int64_t apart, int64_t n, float *out, int64_t step);

/* Fetches the same values of `rows` rows, of which those past the tensor's end do no harm. */
void SM_K(sm_turn_fetch)(const sm_tensor *t, int64_t at, int64_t apart, int64_t n, int rows);

#endif
