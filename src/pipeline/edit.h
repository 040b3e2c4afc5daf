/* Pictures that a request begins from: what is read and prepared before drawing (sm_edit), the latents made of it
 * (sm_edit_latents), and how the result goes back into the picture.
 *
 * Two sets of rules, the parameter edit_rules. A1111 (modules/processing.py, StableDiffusionProcessingImg2Img): of N steps
 * int(min(strength, 0.999) N) + 1 are run; the mask is blurred, shrunk bicubically and rounded; every estimate x0 keeps the
 * picture's latents outside the mask; the unmasked pixels are put back at the end. diffusers (StableDiffusion*Img2ImgPipeline and
 * *InpaintPipeline): min(int(N strength), N) steps, for flow models N - int(N - N strength); the mask is cut at one half and
 * shrunk to the nearest; after every step the picture's latents, noised to that level by the start's noise, are put outside the
 * mask; the autoencoder's noise comes from the picture's generator, before the start's. */
#ifndef SM_PIPELINE_EDIT_H
#define SM_PIPELINE_EDIT_H

#include "pipeline/generate.h"
#include "pipeline/mask.h"
#include "pipeline/randn.h"

typedef enum sm_content { SM_CONTENT_ORIGINAL, SM_CONTENT_FILL, SM_CONTENT_NOISE, SM_CONTENT_NOTHING } sm_content;

/* What of a schedule is run. */
typedef struct sm_stretch {
    int all;     /* its steps */
    int run;     /* the last so many of them */
    bool noise;  /* the start is noise alone, whatever picture there is */
} sm_stretch;

typedef struct sm_edit {
    bool diffusers;     /* whose rules */
    sm_content content;
    int width, height;  /* of picture; not the request's with resize_mode latent */
    uint8_t *picture;   /* [height, width, 3], what is encoded */
    uint8_t *mask;      /* [height, width], 255 where to draw anew; NULL without a mask */
    uint8_t *under;     /* [out_height, out_width, 3] of the job: the picture that the result is laid on; NULL: the result is
                           all */
    uint8_t *cover;     /* [out_height, out_width]: how much of `under` stays */
    sm_rect at;         /* where in it the result goes */
} sm_edit;

/* Reads and prepares the request's pictures into j->edit, and fills the sizes that depend on them: r.width and r.height where
 * they are 0, out_width and out_height. Without pictures j->edit is NULL. sm_edit_free in any case. */
sumi_status sm_edit_open(sm_job *j, sm_err *e);
/* The rest, when r is complete: resizing, masks. */
sumi_status sm_edit_prepare(sm_job *j, sm_err *e);
void sm_edit_free(sm_edit *d);
/* A result, [height, width, 3] of the request, into the picture that comes out. */
sumi_status sm_edit_finish(const sm_job *j, const uint8_t *rgb, uint8_t *out, sm_err *e);
/* The part of a schedule of `steps` steps that the request's strength leaves. */
sumi_status sm_edit_stretch(const sm_job *j, int steps, sm_stretch *out, sm_err *e);

/* Latents of a round. Zeroed where there is nothing to edit. */
typedef struct sm_edit_latents {
    const sm_job *j;
    int h, w, c, most;
    int eh, ew;         /* latents of the encoded picture */
    float *moments;     /* [eh, ew, 2 c]; NULL: no picture to begin from */
    float *masked;      /* [h, w, 2 c], of the picture with gray under the mask, for models that look at it */
    float *mask;        /* [h, w], 1 where to draw anew; NULL without a mask */
    float *seen;        /* [h, w], the mask that models look at */
    float *init;        /* [most, h, w, c] to begin from; NULL: from noise */
    float *noise;       /* [most, h, w, c], the start's, where steps blend by it */
    float *beside;      /* [most, h, w, extra] for models that look at the picture */
    int extra;
    sm_randn randn;     /* the autoencoder's noise, where rules do not say that it comes from the picture's generator */
    float *room;        /* [eh, ew, c] twice, and the same at h, w */
} sm_edit_latents;

/* For rounds of up to most pictures of h x w latents. with_init: they begin from latents that the caller puts into init (hires
 * fix). sm_edit_latents_close in any case. */
sumi_status sm_edit_latents_open(sm_edit_latents *l, const sm_job *j, int h, int w, int most, bool with_init, sm_err *e);
void sm_edit_latents_close(sm_edit_latents *l);
/* Encodes what the request begins from; once. */
sumi_status sm_edit_encode(sm_edit_latents *l, sm_err *e);
/* What rules need before and after the start's noise `start` [n, h, w, c] is drawn from r. all_noise: the start is that alone. */
void sm_edit_before(sm_edit_latents *l, sm_randn *r, uint64_t seed, int n, bool all_noise);
void sm_edit_after(sm_edit_latents *l, sm_randn *r, const float *start, int n);
/* x [n, h, w, c] outside the mask becomes init, or what else is given. */
void sm_edit_keep(const sm_edit_latents *l, int n, float *x);
void sm_edit_keep_from(const sm_edit_latents *l, const float *from, int n, float *x);
/* The same with noise on it, at level sigma. */
void sm_edit_keep_noisy(const sm_edit_latents *l, bool flow, double sigma, int n, float *x);

#endif
