/* The guided denoiser of a round of pictures: what samplers call. A call is a list of predictions (denoise_rows.c): for each
 * picture those of its texts, the negative prompt's where guidance acts, and what PAG, SAG and InstructPix2Pix ask for. They run
 * in batches that share a plan (denoise_part.c), and sample/guidance.h puts them together. */
#ifndef SM_PIPELINE_DENOISE_H
#define SM_PIPELINE_DENOISE_H

#include "pipeline/classify.h"
#include "pipeline/p2p.h"
#include "pipeline/step_cache.h"
#include "pipeline/text.h"
#include "sample/guidance.h"
#include "sample/param.h"

/* What is done to the denoiser for a prediction: nothing, identity attention (PAG), the middle's attention is told too (SAG); or
 * bits of SM_P2P_ANY: it runs together with its source's. */
typedef enum sm_how { SM_HOW_PLAIN, SM_HOW_IDENTITY, SM_HOW_MAP } sm_how;

/* How much of the denoiser: all of it; with deepcache all of it and the features at the cut, or what lies above that; or what
 * teacache looks at. */
typedef enum sm_cut { SM_CUT_NONE, SM_CUT_WHOLE, SM_CUT_SHALLOW, SM_CUT_MODULATED } sm_cut;

enum { SM_DENOISE_PARTS = 8 }; /* plans kept at a time, without a step cache half, with low_memory one: they differ in tokens,
                                  batch and what is done */

typedef struct sm_denoise_part {
    sm_part part;             /* part.pooled: SAG's map, the attention to Prompt-to-Prompt's words, or the features at the cut */
    int tokens, batch;        /* batch: rows, or pairs of them */
    sm_how how;
    sm_cut cut;
    nn_merging merging;       /* token merging: the inputs that say which tokens others join */
    int64_t used;             /* when last, for making room */
} sm_denoise_part;

/* One row that the denoiser runs for. */
typedef struct sm_prediction {
    int picture, text;        /* the text is a row of the table */
    bool negative;            /* of XL's sizes and scores it gets the negative prompt's */
    bool blank;               /* zeros instead of what the model sees beside the latent */
    sm_how how;
    bool done;
    int slot;                 /* which of the picture's it is: 0 the negative prompt's, 1 edit models' picture alone, 2, 4, ..
                                 texts, 3, 5, .. PAG's */
    bool shallow, keep;       /* step cache: only what lies above the cut runs; it is computed in full, to be kept */
    int with;                 /* a pair's edited picture: the source's row, which runs with it; else 0 */
    const float *x;           /* [h, w, c] */
} sm_prediction;

typedef struct sm_denoise {
    const sm_job *j;
    const sm_text_cond *text;
    int n;                    /* pictures, sources among them: the second half of twice as many */
    sm_p2p *p2p;              /* NULL: none are edited from others */
    int h, w, c;              /* of a latent */
    int extra;                /* channels beside the latent's that the denoiser takes */
    const float *beside;      /* [h, w, extra] of the round's first picture; NULL: zeros */
    int64_t beside_step;      /* floats to the next one's; 0: the same for all */
    const double *sigmas;     /* [steps + 1] of the pass, for what depends on how far it is; NULL: nothing does */
    int steps;
    int step;                 /* of them, that the call is in */
    sm_pred pred;
    sm_noise noise;           /* of the model */
    sm_guidance guide;
    bool embedded;            /* the scale is an input of the model (LCM): no negative prompt, no scale outside */
    sm_unet_tweaks tweaks;    /* FreeU; the rest is set for each part */
    sm_step_cache cache;
    sm_denoise_part parts[SM_DENOISE_PARTS];
    int nparts;
    int64_t clock;            /* of parts' use */
    sm_part classifier;       /* the gradient of j->classify (classify.h), made when first asked */
    sm_denoise_part largest;  /* that planning has seen; its plan may be gone */
    size_t largest_bytes;
    sm_prediction *rows;      /* of the call */
    int nrows, most;          /* there are; there is room for */
    int *first;               /* [n + 1] a picture's first row */
    float *out;               /* [most, h, w, c] */
    float *map;               /* [most, h, w] of rows with SM_HOW_MAP, of which mh mw count */
    int mh, mw;               /* of the last map */
    float *average;           /* [n, h, w, c] APG's */
    float *room;              /* [n, h, w, c] of SAG's questions, then scratch of 3 latents */
    const float **ptr;        /* [2 most] */
    double *weight;           /* [most] */
    int64_t evals;            /* calls since sm_denoise_open */
} sm_denoise;

/* The model's noise levels and prediction, the request's guidance. sm_denoise_close in any case. */
sumi_status sm_denoise_init(sm_denoise *d, const sm_job *j, int h, int w, sm_err *e);
/* For n pictures (Prompt-to-Prompt: and their n sources); their texts are encoded when the first call comes. */
sumi_status sm_denoise_open(sm_denoise *d, int n, const sm_text_cond *text, sm_err *e);
void sm_denoise_done(sm_denoise *d);  /* plans and room are released */
void sm_denoise_close(sm_denoise *d);
/* x [n, h, w, c] at sigma to x0 of the same shape, and to the x0 of the unconditional prediction alone, which for an unguided
 * model is x0. uncond may be NULL. */
sumi_status sm_denoise_run(sm_denoise *d, const float *x, double sigma, float *x0, float *uncond, sm_err *e);
/* Instead of running, after sm_denoise_open: makes the plans that a pass over d->sigmas needs (the last ones stay in d->parts)
 * and gives the mean flops of a call. both: calls are sm_denoise_run's. */
sumi_status sm_denoise_plan(sm_denoise *d, bool both, double *flops, sm_err *e);

/* ---- for its parts ------------------------------------------------------------------------------------------------- */

/* The request's guidance against what the model can do (denoise_guide.c). */
sumi_status sm_denoise_guidance(sm_denoise *d, sm_err *e);
/* Whether a path is among pag_applied_layers; arg is an sm_layers. */
typedef struct sm_layers { const char *list, *component; int found; } sm_layers;
bool sm_layers_match(void *arg, const char *path);

/* The list of a call (denoise_rows.c). */
sumi_status sm_denoise_list(sm_denoise *d, const float *x, const sm_guidance_step *s, bool both, sm_err *e);
/* Runs rows first.. of the list into out and map; flops not NULL: plans them only, and adds. */
sumi_status sm_denoise_rows(sm_denoise *d, int first, const sm_precond *pc, double *flops, sm_err *e);

/* The plan for a batch, made where it is not there (denoise_part.c). */
sm_denoise_part *sm_denoise_part_for(sm_denoise *d, int tokens, sm_how how, sm_cut cut, int batch, sm_err *e);
void sm_denoise_place(const sm_denoise *d, const sm_denoise_part *p, const sm_precond *pc, const sm_prediction *row, int at);

#endif
