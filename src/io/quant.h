/* Storage types: how tensors' values lie in files, from plain floats to blocks of a few bits with shared scales, and their
 * values as f32. Block formats follow ggml; the reference is the `gguf` package (gguf.quants), whose values these are, bit
 * for bit. FP8 follows "FP8 Formats for Deep Learning" (Micikevicius et al., 2022). Scalar code for loading and writing. */
#ifndef SM_QUANT_H
#define SM_QUANT_H

#include "base/base.h"
#include "graph/graph.h"

/* The first four are sm_dtype's, in its order.
 *
 * F8_E4M3 has no infinities, its only NaNs are 0x7f and 0xff, the largest value is 448; F8_E5M2 is the upper half of an f16.
 * Neither carries a scale. Checkpoints with scales keep them in tensors of their own beside the weight (`NAME.scale_weight`,
 * `NAME.weight_scale`, one f32 or one per row); the values are then what sm_store_load gives, times that scale. */
typedef enum sm_store {
    SM_STORE_F32, SM_STORE_F16, SM_STORE_BF16, SM_STORE_I32,
    SM_STORE_F8_E4M3, SM_STORE_F8_E5M2,
    SM_STORE_Q4_0, SM_STORE_Q4_1, SM_STORE_Q5_0, SM_STORE_Q5_1, SM_STORE_Q8_0,   /* blocks of 32 values */
    SM_STORE_Q2_K, SM_STORE_Q3_K, SM_STORE_Q4_K, SM_STORE_Q5_K, SM_STORE_Q6_K,   /* blocks of 256, scales quantised too */
    SM_STORES
} sm_store;

enum { SM_STORE_MAX_BLOCK = 256 };

const char *sm_store_name(sm_store t);      /* "F16", "Q4_K", "F8_E4M3": as GGUF and safetensors write them */
int sm_store_find(const char *name);        /* case does not matter; -1 when there is none */
int sm_store_block(sm_store t);             /* values that share a block; 1 for plain types */
size_t sm_store_block_bytes(sm_store t);

/* n values as f32; n is a multiple of the block, src of any alignment. I32 becomes the nearest float.
 * Infinities and NaN that a block's scale holds come out as the multiplication gives them. */
void sm_store_load(sm_store t, const void *src, int64_t n, float *out);

/* True for F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: what sm_store_save writes. */
bool sm_store_writable(sm_store t);

/* n values (a multiple of the block) into sm_store_block_bytes each. False when t is not writable or a value does not fit:
 * one that is not finite in a block type, or a finite one (a block's scale, too) that would become infinite.
 * The bytes are gguf.quants' for every input where that is defined: a block whose scale is so small that its reciprocal is
 * infinite (values below 1e-37) is written as zeros. */
bool sm_store_save(sm_store t, const float *x, int64_t n, void *out);

#endif
