/* Spherical interpolation between two noises, so that what comes out has the spread of noise again, as A1111's variation seeds do
 * it (modules/rng.py, slerp, which is dim 1 of a tensor [C, H, W]: each column of pixels of each channel turns by an angle of its
 * own). */
#ifndef SM_SAMPLE_SLERP_H
#define SM_SAMPLE_SLERP_H

#include "base/base.h"

/* a [h, columns] moves the share t, 0..1, of the way to b, in place. Where the cosines' mean is above 0.9995 the mix is a
 * straight one, with A1111's shares: t of a, 1 - t of b. A single column that has no angle (parallel, or h 1) is mixed straight
 * by 1 - t and t; A1111 gives NaN there. */
void sm_slerp(double t, int64_t h, int64_t columns, float *a, const float *b);

#endif
