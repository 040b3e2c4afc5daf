/* The hand-over of the last steps to another model, as XL's refiner is used (Podell et al. 2023): the request's `refiner` goes on
 * below the noise level that refiner_switch_at says. The sampler does not notice. */
#ifndef SM_PIPELINE_REFINE_H
#define SM_PIPELINE_REFINE_H

#include "pipeline/denoise.h"

typedef struct sm_refine {
    sm_job j;            /* the request with the refiner for a model; j.m NULL: there is none */
    sm_text_cond text;
    sm_denoise den;
    bool on;             /* it has taken over in this round */
} sm_refine;

/* Loads r.refiner into j->refiner, which sm_job_done releases, and checks that it goes with the model. */
sumi_status sm_refine_load(sm_job *j, sm_err *e);
/* For a pass with the job j at h x w latents; sm_refine_close in any case. */
sumi_status sm_refine_open(sm_refine *r, const sm_job *j, int h, int w, sm_err *e);
void sm_refine_close(sm_refine *r);
/* Whether the noise level is the refiner's, by the model's own count of timesteps, as in diffusers (denoising_end). */
bool sm_refine_due(const sm_refine *r, const sm_noise *base, double sigma);
/* base has done its part of the round of pictures first..first+n-1. earlier: as for sm_text_open. */
sumi_status sm_refine_take(sm_refine *r, sm_denoise *base, int first, int n, int earlier, sm_err *e);
void sm_refine_done(sm_refine *r);

#endif
