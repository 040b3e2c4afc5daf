/* Step caching in a request (the techniques: sample/step_cache.h): which of a call's predictions are computed, which are not, and
 * what is kept of them. Each prediction of each picture has a past of its own: its texts', the negative prompt's, PAG's. Samplers
 * that call the model several times a step have one for each of those calls, in order, so that a past is always one call a step.
 *
 * What decides by change decides for a picture, by its first prediction, and the others of the picture follow: a picture's bits
 * do not depend on what is drawn beside it. Words that change ([a:b:0.5]), noise that rises again (restart) and a prediction's
 * first step are always computed in full. */
#ifndef SM_PIPELINE_STEP_CACHE_H
#define SM_PIPELINE_STEP_CACHE_H

#include "pipeline/generate.h"
#include "sample/param.h"
#include "sample/step_cache.h"

struct sm_denoise;
struct sm_prediction;

/* The past of one prediction. */
typedef struct sm_cached {
    sm_cache_past past;
    float *room;      /* of past.term */
    int text;         /* row of the table that it was asked with */
    bool blank;
    double sigma;     /* when it was last asked */
} sm_cached;

typedef struct sm_step_cache {
    sm_cache_way way;
    int branch;           /* deepcache */
    int places, slots;    /* calls of a sampler's step, predictions of a picture, that have a past */
    int pictures;
    int64_t turn;         /* steps that the sampler has made */
    int place;            /* calls since the last */
    int64_t n;            /* numbers kept of a prediction: the model's output, or deepcache's features; 0: not known yet */
    int64_t feature[3];   /* [h, w, c] of those */
    sm_cached *at;        /* [places, pictures, slots] */
    sm_cache_watch *watch;/* [places, pictures] */
    float *scratch;       /* [2, h, w, c] of a latent */
    bool partial;         /* in this call some pictures are computed and some are not */
    int64_t asked, spared;/* predictions: all, and those that were not computed in full; since sm_step_cache_init */
} sm_step_cache;

/* Fills in a technique's numbers where r leaves them open. */
void sm_step_cache_fill(sumi_request *r);
/* The request's technique against the model; where there is none the calls below do nothing. */
sumi_status sm_step_cache_init(struct sm_denoise *d, sm_err *e);
/* Forgets everything: a round of pictures begins. */
void sm_step_cache_open(sm_step_cache *c);
void sm_step_cache_done(sm_step_cache *c);
/* The sampler has made a step. */
void sm_step_cache_turn(sm_step_cache *c);
/* Tells how much was spared. */
void sm_step_cache_tell(const sm_job *j, int64_t asked, int64_t spared);

/* ---- for the denoiser ------------------------------------------------------------------------------------------------- */

/* Of the rows listed: which are computed in full, which in part (shallow), and of the rest the results are written. flops not
 * NULL: nothing is written, what decides by change spares nothing, and the cost of deciding is added. */
sumi_status sm_step_cache_before(struct sm_denoise *d, const sm_precond *pc, double sigma, double *flops, sm_err *e);
/* When they are computed. */
sumi_status sm_step_cache_after(struct sm_denoise *d, const sm_precond *pc, bool planned, sm_err *e);
/* deepcache: features of a full row; what takes their place in a shallow one; their shape, from the plan that gives them for all
 * rows. */
sumi_status sm_step_cache_keep(struct sm_denoise *d, const struct sm_prediction *row, const float *features, sm_err *e);
void sm_step_cache_place(const struct sm_denoise *d, const struct sm_prediction *row, float *features);
void sm_step_cache_shape(sm_step_cache *c, const sm_node *features);

#endif
