/* Guidance: how several predictions of one step become one. A guidance sees predictions and the noise level, never the
 * sampler or the model; its row says which predictions it needs. */
#ifndef SM_SAMPLE_GUIDANCE_H
#define SM_SAMPLE_GUIDANCE_H

#include "base/base.h"

typedef struct sm_guidance {
    double scale;      /* 1: the conditional prediction alone */
    double rescale;    /* phi of Lin et al. 2024: 0 none, 1 the whole of the conditional's deviation restored */
    double low, high;  /* sigmas between which guidance acts (Kynkaanniemi et al. 2024); high 0: everywhere */
} sm_guidance;

/* Whether the unconditional prediction is needed at this noise level; if not, a model need not compute it. */
bool sm_guidance_active(const sm_guidance *g, double sigma);

/* Combines the predictions of count pictures of n numbers each, one after the other, into out, which may be cond or
 * uncond. uncond is not read where guidance is not active. Predictions may be the model's outputs or x0: the scale gives
 * the same picture in either form, rescale is defined on the model's outputs (as in diffusers). */
void sm_guidance_apply(const sm_guidance *g, double sigma, const float *cond, const float *uncond, float *out, int count,
                       int64_t n);

#endif
