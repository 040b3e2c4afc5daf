/* A request that begins from its picture inverted (the parameter invert): the picture's latents go up the levels that drawing
 * will come down, told of invert_prompt and guided by invert_cfg, and drawing begins from what they become instead of from noise.
 * The way itself is sample/invert.h. */
#ifndef SM_PIPELINE_INVERT_H
#define SM_PIPELINE_INVERT_H

#include "pipeline/denoise.h"
#include "pipeline/latents.h"

typedef struct sm_inversion {
    sm_job j;              /* the request with what the inversion is told; j.m NULL: there is none */
    sm_text_cond text;
    sm_denoise den;
    double *sigmas;        /* [steps + 1], falling, from the level that drawing begins at */
    int steps;
    bool draws;            /* the sampler that comes after does */
    int first, n;          /* of the round */
    int h, w, c;
    int most;              /* pictures at once */
    float *way;            /* [steps + 1, most, h, w, c], the round's x at each of sigmas, where masks blend by it; else NULL */
    sm_kept kept;          /* save_inverted */
    void *told;            /* the pass, whose progress it is: */
    void (*call)(void *told); /* the denoiser was called */
    void (*tell)(void *told); /* a step is done */
} sm_inversion;

/* What does not go with it, in one line each. The request is complete. */
sumi_status sm_inversion_check(const sm_job *j, sm_err *e);
/* For a pass of job j, up to most pictures of h x w latents at once, that visits steps + 1 falling sigmas; without the parameter
 * v is zeroed. sm_inversion_close in any case. */
sumi_status sm_inversion_open(sm_inversion *v, const sm_job *j, int h, int w, int c, int most, const double *sigmas, int steps,
                              sm_err *e);
void sm_inversion_close(sm_inversion *v);
/* Lays out and encodes the texts of a round, which is run then. Nothing where there is no inversion. */
sumi_status sm_inversion_texts(sm_inversion *v, int first, int n, sm_err *e);
/* init [n, h, w, c], latents of pictures first..first+n-1, to noise in units of the first sigma, which is what --init-latents
 * takes. */
sumi_status sm_inversion_run(sm_inversion *v, int first, int n, const float *init, float *noise, sm_err *e);
/* Where the way is kept: x [n, h, w, c] at sigmas[step], of step 0..steps-1. */
const float *sm_inversion_at(const sm_inversion *v, int step);
int64_t sm_inversion_evals(const sm_inversion *v); /* of one round */

#endif
