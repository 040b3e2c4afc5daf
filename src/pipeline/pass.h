/* One pass of a request: sampling at one size over a stretch of the schedule, from noise alone or from latents with noise on top
 * (SDEdit, Meng et al. 2022). Hires fix has two, everything else one. */
#ifndef SM_PIPELINE_PASS_H
#define SM_PIPELINE_PASS_H

#include "pipeline/decode.h"
#include "pipeline/denoise.h"
#include "pipeline/edit.h"
#include "pipeline/invert.h"
#include "pipeline/latents.h"
#include "pipeline/randn.h"
#include "pipeline/refine.h"

typedef struct sm_pass {
    sm_job j;            /* the request at the pass's size, steps those that run */
    int h, w, c, most;   /* of a latent; pictures at once */
    int first, n;        /* the round's pictures are first .. first+n-1 of the request */
    int earlier;         /* steps of the pass before, 0: there is none */
    sm_stretch stretch;
    double *levels;      /* [stretch.all + 1] */
    const double *sigmas;/* [j.r.steps + 1], the end of levels */
    sm_text_cond text;
    sm_denoise den;
    sm_refine refine;    /* of the last pass */
    sm_inversion inverse;
    sm_decode dec;
    sm_randn randn;
    sm_kept kept;
    sm_edit_latents edit;
    float *latents;      /* [most, h, w, c], also x of the sampler; with Prompt-to-Prompt twice as many, the second half the
                            sources' */
    float *given;        /* start noise of all pictures from a file; NULL: from the generator */
    int64_t *done, all;  /* denoiser calls of the request: so far (all passes count there), in all */
} sm_pass;

/* width, height: the pass's. keep: it is the last one, whose latents save_latents wants. done is shared
 * by the passes. The pass stays where it is until sm_pass_close, which is called in any case. */
sumi_status sm_pass_open(sm_pass *p, const sm_job *j, int width, int height, sm_stretch s, int most, bool keep,
                         int64_t *done, sm_err *e);
void sm_pass_close(sm_pass *p);
int64_t sm_pass_evals(const sm_pass *p); /* of one round, its inversion included; 0: not known before */
/* Draws the latents of n pictures; where the pass begins from latents they are in p->edit.init already, or made of the request's
 * picture. */
sumi_status sm_pass_run(sm_pass *p, int first, int n, sm_err *e);

#endif
