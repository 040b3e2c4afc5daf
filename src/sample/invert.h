/* Inversion: from a picture to the noise that a sampler would have drawn it from, by the probability flow run backwards (DDIM's
 * step of Song et al. 2021 in the other direction, Dhariwal & Nichol 2021 section F; of flow models Euler's). */
#ifndef SM_SAMPLE_INVERT_H
#define SM_SAMPLE_INVERT_H

#include "sample/param.h"
#include "sample/sampler.h"

/* x at sigmas[steps] becomes x at sigmas[0]: the list is drawing's, falling, and gone through from its end. p->levels is needed,
 * of the rest mem, n, flow, denoise, on_step and ctx count. pred: what the model behind denoise predicts.
 *
 * A step that rises to a level asks the model as drawing will ask there, but with the lower level's x, since the upper one's is
 * what is looked for; the answer is read at the lower level. That is diffusers' DDIMInverseScheduler. Each of `refine` further
 * calls asks with the upper level's x found so far: a fixed point of them is exactly where Euler's or DDIM's step comes down from
 * (Garibi et al. 2024). on_step is told after each step: how many are done, the level reached, x there, the last x0. */
sumi_status sm_invert(const sm_sampling *p, sm_pred pred, int refine, float *x, sm_err *e);
/* Calls of denoise that it makes. */
static inline int64_t sm_invert_evals(int steps, int refine) { return (int64_t)steps * (1 + refine); }

#endif
