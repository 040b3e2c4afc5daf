/* Storage types: their names in files, and writing them (reading is cpu/stored.c, the types graph.h). Block formats follow ggml;
 * the reference is the `gguf` package (gguf.quants), whose bytes these are where it writes a type. FP8 follows "FP8 Formats for
 * Deep Learning" (Micikevicius et al., 2022). Scalar code. */
#ifndef SM_QUANT_H
#define SM_QUANT_H

#include "cpu/cpu.h"

const char *sm_store_name(sm_dtype t); /* "F16", "Q4_K", "F8_E4M3": as GGUF and safetensors write them */
int sm_store_find(const char *name);   /* case does not matter; -1 when there is none */

/* Rounded to nearest, ties to even, as torch's conversions. F8_E4M3 has no infinities and its only NaNs are 0x7f and 0xff: what
 * is too large, infinities included, becomes the largest value, 448. F8_E5M2 is the upper half of an f16. */
uint8_t sm_f32_f8_e4m3(float f);
uint8_t sm_f32_f8_e5m2(float f);

/* All but I32: what sm_store_save writes. */
bool sm_store_writable(sm_dtype t);

/* n values (a multiple of the block) into sm_dtype_bytes(t, n). False when t is not writable or a value does not fit: one that is
 * not finite in a block type, or a finite one (a block's scale, too) that would become infinite or, as F8_E4M3, be cut to 448.
 *
 * Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: gguf.quants' bytes for every input where that is defined; a block whose scale is so small that
 * its reciprocal is infinite (values below 1e-37) is written as zeros.
 *
 * Q2_K .. Q6_K (quant_k.c): no reference writes them; scales are searched for the least sum of squared differences, and a block
 * is never worse in it than with the simplest scales (largest value over largest integer). */
bool sm_store_save(sm_dtype t, const float *x, int64_t n, void *out);

/* A block of 256 values; false when a scale does not fit its half float (quant_k.c). */
bool sm_save_q2_k(const float *x, uint8_t *b);
bool sm_save_q3_k(const float *x, uint8_t *b);
bool sm_save_q4_k(const float *x, uint8_t *b);
bool sm_save_q5_k(const float *x, uint8_t *b);
bool sm_save_q6_k(const float *x, uint8_t *b);

#endif
