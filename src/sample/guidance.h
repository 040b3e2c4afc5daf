/* Guidance: how several predictions of one step become one picture. It sees predictions and the noise level, never the
 * sampler or the model. sm_guidance_at says which predictions a step needs, sm_guidance_combine puts them together.
 *
 * Kinds that go together do so in this order, all on the model's outputs (as in diffusers): parts of a prompt (AND), the scale
 * (CFG, the two scales of InstructPix2Pix, APG or dynamic thresholding), PAG, SAG, rescaling; then, on x0, Imagen's clamp. */
#ifndef SM_SAMPLE_GUIDANCE_H
#define SM_SAMPLE_GUIDANCE_H

#include "sample/param.h"

/* How a scale changes while sampling: scale(u) = low + (scale - low) at(u), u from 0 (first step) to 1 (last). */
typedef struct sm_curve {
    const char *name, *a1111, *advice;
    double low;                        /* where none is given */
    double (*at)(double u, double power);
} sm_curve;

extern const sm_curve sm_curves[];
extern const int sm_curve_count;
/* By name or by A1111's name, letter case aside; NULL where there is none. */
const sm_curve *sm_curve_find(const char *name);

typedef enum sm_guide {
    SM_GUIDE_CFG,   /* Ho & Salimans 2022 */
    SM_GUIDE_APG,   /* Sadat et al. 2024, on model outputs (diffusers' AdaptiveProjectedGuidance) */
    SM_GUIDE_APG_X0 /* the same on x0 (the paper; ComfyUI) */
} sm_guide;

/* Dynamic thresholding of sd-dynamic-thresholding (mcmonkey): a high scale's result with the spread of a lower one's. */
typedef struct sm_mimic {
    double scale;            /* 0: off */
    double low, percentile, phi; /* lowest mimic scale; 0..1; share of the result, the rest is plain CFG */
    const sm_curve *curve;   /* of scale; NULL: constant */
    bool together;           /* one measure for all channels */
    bool from_zero, deviation; /* scaled from zero, not from the mean; measured by the deviation, not by the largest value */
} sm_mimic;

typedef struct sm_guidance {
    sm_guide kind;
    double scale;            /* 1: the conditional prediction alone */
    double image_scale;      /* InstructPix2Pix's second scale; counts where sm_guided has image */
    double rescale;          /* phi of Lin et al. 2024: 0 none, 1 the whole of the conditional's deviation restored */
    double low, high;        /* sigmas between which guidance acts (Kynkaanniemi et al. 2024); high 0: no upper end */
    double start, stop;      /* fractions of the steps between which it acts, as in diffusers' guiders; stop 0 or 1: to the end */
    const sm_curve *curve;   /* of scale; NULL: constant */
    double curve_low, power; /* curve's lowest scale; exponent or number of waves */
    double eta, momentum, norm; /* APG: share of the parallel part kept, weight of earlier steps, largest norm (0: any) */
    sm_mimic mimic;
    double pag, pag_adaptive; /* Ahn et al. 2024; less by pag_adaptive for each timestep below 1000 (diffusers) */
    double sag;              /* Hong et al. 2023 */
    double classifier;       /* Dhariwal & Nichol 2021: scale of the classifier's gradient, which is added after all of this; 0:
                                none */
    double clamp, clamp_max; /* Saharia et al. 2022 (Imagen): share of |x0| that stays, 0: off; the largest limit, 0: none */
} sm_guidance;

/* What one step does. */
typedef struct sm_guidance_step {
    bool active;             /* the unconditional prediction is needed */
    double scale, mimic, pag, sag, classifier;
} sm_guidance_step;

/* How many steps are done when x is at this noise level: between two of sigmas[steps + 1] a fraction. sigmas NULL: 0. */
double sm_guidance_position(const double *sigmas, int steps, double sigma);
/* position: of sm_guidance_position; t: the model's timestep in 0..1000 (pag_adaptive). */
sm_guidance_step sm_guidance_at(const sm_guidance *g, double sigma, double t, double position, int steps);

/* One picture's predictions, model outputs of n numbers [h, w, channels]. What a step does not need is NULL. */
typedef struct sm_guided {
    const float *const *cond;      /* [parts] */
    const float *const *perturbed; /* [parts] PAG's */
    const double *weight;          /* [parts] */
    int parts;
    const float *uncond, *image;   /* image: InstructPix2Pix's with the picture, but without the text */
    const float *degraded;         /* SAG's, of the base's blurred x0: uncond where it is there, else cond[0] */
    float *average;                /* [n] APG's, kept from step to step, first zeros; NULL without momentum */
    const float *x;
    const sm_precond *pc;
    int64_t n;
    int channels;
} sm_guided;

/* Writes x0. room: 3 n floats. */
void sm_guidance_combine(const sm_guidance *g, const sm_guidance_step *s, const sm_guided *in, float *x0, float *room);

/* What SAG asks about: x with x0 blurred (a Gaussian of deviation `blur`, nine pixels wide) where the attention map [mh, mw] is
 * above 1, and the noise of the same prediction put back. x, x0 and out are [h, w, c]; room: 2 h w c floats. */
typedef struct sm_sag {
    int h, w, c, mh, mw;
    bool flow;
    double sigma, blur;
} sm_sag;
void sm_sag_degrade(const sm_sag *s, const float *map, const float *x, const float *x0, float *out, float *room);

/* ---- for the guidances --------------------------------------------------------------------------------------------- */

/* g = dynamic thresholding of e and u, in x0; all may be the same. room: n floats. */
void sm_mimic_apply(const sm_mimic *m, double scale, double mimic, const float *e, const float *u, float *g, int64_t n,
                    int channels, float *room);
/* In place: Imagen's dynamic thresholding. room: n floats. */
void sm_clamp_apply(double ratio, double most, float *x0, int64_t n, float *room);

#endif
