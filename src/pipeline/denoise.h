/* The guided denoiser of a round of pictures: what samplers call. */
#ifndef SM_PIPELINE_DENOISE_H
#define SM_PIPELINE_DENOISE_H

#include "pipeline/text.h"
#include "sample/guidance.h"
#include "sample/param.h"

typedef struct sm_denoise {
    const sm_job *j;
    const sm_text_cond *text; /* rows 0..n-1 the pictures' prompts, row n the negative one */
    int n;                    /* pictures */
    int rows;                 /* predictions a step: n, guided 2 n, the second half for the negative prompt */
    int batch;                /* rows of the plan; runs of it follow one another where it is less than rows */
    int h, w, c;              /* of a latent */
    int extra;                /* channels beside the latent's that the denoiser takes */
    const float *beside;      /* [h, w, extra], the same for all pictures; NULL: zeros */
    sm_pred pred;
    sm_noise noise;           /* of the model */
    sm_guidance guide;
    sm_part part;
    float *out;               /* [rows, h, w, c] */
    int64_t evals;            /* calls so far */
} sm_denoise;

/* The model's noise levels and prediction, with the request's. sm_denoise_close in any case. */
sumi_status sm_denoise_init(sm_denoise *d, const sm_job *j, int h, int w, sm_err *e);
/* Plans for n pictures whose texts are encoded; text may be NULL for planning alone. */
sumi_status sm_denoise_open(sm_denoise *d, int n, const sm_text_cond *text, sm_err *e);
void sm_denoise_done(sm_denoise *d);  /* the plan is released */
void sm_denoise_close(sm_denoise *d);
/* x [n, h, w, c] at sigma to x0 of the same shape. */
sumi_status sm_denoise_run(sm_denoise *d, const float *x, double sigma, float *x0, sm_err *e);

#endif
