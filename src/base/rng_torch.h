/* torch's random normals, so that seeds from diffusers, ComfyUI and A1111 draw the same noise: the CPU generator (MT19937:
 * Matsumoto and Nishimura 1998) with the two ways torch.randn makes float32 normals of it, and CUDA's (Philox4x32-10, one
 * subsequence per thread). Logarithm, sine and cosine are sumi's own in double, so the bits are the same on every machine.
 *
 * Where they may differ from torch's. Fewer than 16 numbers: torch works in double too; equal but for a rounding tie. From 16
 * on: torch's own bits depend on its machine. On x86 with AVX2 it uses polynomials in float32; these functions round at the
 * same places but with exact functions, and differ by at most 1e-6. Elsewhere torch rounds the angle once less; up to 3e-6.
 * CUDA: the device computes the angle in float32 and its sine in the special function unit, good to about 2^-21; these are
 * what A1111's "NV" source (modules/rng_philox.py) computes on the CPU. A card puts more than one number on a thread only
 * when it runs fewer threads than there are numbers (an RTX 3090: 125,952); beyond that its order depends on the card,
 * and these go on with one each, as A1111 and ComfyUI do. */
#ifndef SM_RNG_TORCH_H
#define SM_RNG_TORCH_H

#include "base/base.h"

/* torch.Generator("cpu"). The next call goes on where the last one ended. */
typedef struct sm_torch_cpu {
    uint32_t mt[624];
    int at;          /* next word of mt, 624: none left */
    double spare;    /* second normal of a pair, kept by calls for fewer than 16 numbers */
    bool has_spare;
} sm_torch_cpu;

void sm_torch_cpu_seed(sm_torch_cpu *g, uint64_t seed); /* torch keeps the lower 32 bits */
/* torch.randn(n, generator=g), contiguous float32: a tensor of shape (1, C, H, W) is filled in that order. */
void sm_torch_cpu_normal(sm_torch_cpu *g, float *out, size_t n);

/* Sine and cosine of 0 <= x < 8, the same bits on every machine; within 2 units in the last place. */
void sm_torch_sincos(double x, double *sin_out, double *cos_out);

/* The draw-th call (from 0) of torch.randn(n, device="cuda") after seeding. n < 2^32. */
void sm_torch_cuda_normal(uint64_t seed, uint32_t draw, float *out, size_t n);

#endif
