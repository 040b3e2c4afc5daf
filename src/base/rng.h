/* Random numbers as a function of (seed, stream, index): no state, so any element can be drawn alone, in any order, on any
 * thread, after any resume, and is the same. Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as
 * 1, 2, 3, SC 2011). What a seed means is part of sumi's results: none of these functions may ever change its values. */
#ifndef SM_RNG_H
#define SM_RNG_H

#include "base/base.h"

/* One block of the cipher: ten rounds on the counter c under the key k. */
void sm_philox4x32(const uint32_t c[4], const uint32_t k[2], uint32_t out[4]);

/* Element index of the stream: word index % 4 of the block with the counter (index / 4, stream) under the key seed, each
 * 64-bit number low word first. */
uint32_t sm_rng_u32(uint64_t seed, uint64_t stream, uint64_t index);

/* out[i] is in [0, 1) with 24 bits, made of the upper bits of element offset + i. */
void sm_rng_uniform(uint64_t seed, uint64_t stream, uint64_t offset, float *out, size_t n);

/* out[i] is normal with mean 0 and variance 1 (Box and Muller 1958, in double): elements 2p and 2p+1 of the stream give the
 * normals 2p (cosine) and 2p+1 (sine). |out[i]| < 6.8. The same stream must not be used for uniforms as well. */
void sm_rng_normal(uint64_t seed, uint64_t stream, uint64_t offset, float *out, size_t n);

/* Natural logarithm of x, 0 < x <= 1 and normal, the same bits on every machine; within 2 units in the last place. */
double sm_rng_ln(double x);

/* FNV-1a, 64 bit: names to streams, table keys. Not for hostile input where collisions matter. */
uint64_t sm_hash64(const void *data, size_t n);

#endif
