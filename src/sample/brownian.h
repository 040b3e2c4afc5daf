/* A Brownian path B(sigma) of n numbers, for samplers that draw the noise of a step and of a part of it: what they get are
 * increments of one path, so parts add up to the whole, and the path is a function of the seed alone, whatever is asked in which
 * order.
 *
 * Two paths. torchsde's BrownianTree as k-diffusion's BrownianTreeNoiseSampler asks it, which A1111 and ComfyUI use: between the
 * lowest and the highest sigma of the request, found by halving to a millionth, each half by its own seed of numpy's
 * SeedSequence. Its numbers are torch's in float32, here in double: they differ by rounding, about 1e-6. Sigmas are rounded to
 * float32 as there, but schedules round differently before that: one unit of sigma 14.6 is a millionth, and may move the noise by
 * a thousandth. And sumi's own: anchored at B(1) = 0, with a stream of Philox for each octave of sigma and each half in it, 20
 * halvings deep; it needs no range, so requests with more steps follow the same path. */
#ifndef SM_SAMPLE_BROWNIAN_H
#define SM_SAMPLE_BROWNIAN_H

#include "base/base.h"

/* Unit normals of a generator that was just seeded. */
typedef void sm_normals(uint64_t seed, float *out, size_t n);

typedef struct sm_brownian {
    size_t n;
    uint64_t seed;
    sm_normals *torch;  /* torchsde's tree, of these normals; NULL: sumi's own */
    double low, high;   /* torchsde's range */
    double at[2];       /* sigmas of the two points asked last, newest first; 0: none */
    double *point[2];   /* [n] B there */
    double *part;       /* [n] */
    float *room;        /* [n] */
    void *block;
} sm_brownian;

sumi_status sm_brownian_open(sm_brownian *b, sm_mem *mem, size_t n, sm_normals *torch, sm_err *e);
void sm_brownian_close(sm_brownian *b);
/* Begins a path. low and high are torchsde's range, 0 < low < high. */
void sm_brownian_start(sm_brownian *b, uint64_t seed, double low, double high);
/* out = (B(to) - B(from)) / sqrt(from - to), for from > to > 0. */
void sm_brownian_step(sm_brownian *b, double from, double to, float *out);

#endif
