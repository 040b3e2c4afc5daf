/* What a table of canonical tensors (see model/layout.h) is: its family, every component's configuration and how it is meant
 * to be sampled, from names and shapes alone. */
#ifndef SM_DETECT_H
#define SM_DETECT_H

#include "model/layout.h"
#include "model/registry.h"

enum { SM_TEXTS = 2 }; /* text encoders of a model */

/* How one text encoder is used. */
typedef struct sm_text_use {
    const char *component; /* "text_encoder", "text_encoder_2" */
    sm_clip_config clip;
    int skip;              /* layers left out at the end: 0 the last layer's output, 1 the one before */
    bool final_norm;       /* final_layer_norm of that output (SD 1.x, 2.x); XL takes it raw */
    int pad;               /* token that fills a row; -1: the end mark */
} sm_text_use;

/* What is conditioned beside text. */
typedef enum sm_extra { /* input channels: */
    SM_EXTRA_NONE,      /* the latent's */
    SM_EXTRA_INPAINT,   /* 9: latent, mask, masked picture */
    SM_EXTRA_EDIT       /* 8: latent, picture */
} sm_extra;

typedef struct sm_traits {
    char label[64];           /* "Stable Diffusion XL base" */
    const char *prediction;   /* epsilon, v_prediction, flow_prediction, edm */
    bool assumed;             /* two predictions have these very tensors (version 2): a guess; the request's --prediction
                                 overrides it. What shares XL's tensors (Turbo, Lightning, Playground v2) gets XL's defaults */
    const char *beta_schedule;/* "scaled_linear"; "" for flow and edm */
    double beta_start, beta_end;
    bool zero_snr;            /* betas rescaled to zero terminal SNR */
    float shift;              /* flow */
    double sigma_min, sigma_max, sigma_data; /* edm */
    int time_ids;             /* 0 none, 6 XL base, 5 refiner (last one the aesthetic score) */
    bool latents_stats;       /* latents are scaled by a mean and a deviation for each channel, 4 of them (Playground v2.5) */
    float latents_mean[4], latents_std[4];
    sm_extra extra;
    bool zero_empty;          /* an empty negative prompt is zeros, not the encoding of no words (XL base, as it was trained) */
    int texts;
    sm_text_use text[SM_TEXTS]; /* widths side by side make the context; the last one's projection is the pooled text */
    int steps, width, height; /* defaults */
    float cfg_scale;          /* of an LCM (time_cond_proj_dim): given to the model by sm_unet_guidance, not applied outside */
    const char *sampler, *schedule;
} sm_traits;

typedef struct sm_detected {
    const sm_denoiser *family;     /* NULL: no denoiser */
    sm_denoiser_config denoiser;
    bool has_vae;
    sm_vae_config vae;
    sm_traits traits;              /* meaningful with a family; texts counts the encoders that the table really has */
    char missing[200];             /* what a whole model of the family still needs and which flag gives it, "" for nothing:
                                      "no autoencoder (--vae FILE)" */
} sm_detected;

/* r: the report of the file that w was filled from (marks that are no tensors of the model). what: a name for messages.
 * SUMI_E_MODEL: shapes that contradict each other. A table without a denoiser is no failure. */
sumi_status sm_detect(const sm_weights *w, const sm_layout_report *r, const char *what, sm_detected *out, sm_err *e);
/* One component alone: config from shapes. */
sumi_status sm_detect_unet(const sm_weights *w, const char *component, sm_unet_config *c, sm_err *e);
sumi_status sm_detect_vae(const sm_weights *w, const char *component, sm_vae_config *c, sm_err *e);
sumi_status sm_detect_clip(const sm_weights *w, const char *component, sm_clip_config *c, sm_err *e);
/* Which family a denoiser and its text encoders are, where configurations are known already (folders): fills the traits. */
void sm_traits_for(const sm_denoiser *family, const sm_denoiser_config *c, const sm_clip_config *text, int texts,
                   const sm_layout_report *r, sm_traits *out);

/* The text encoders that the family needs and t lacks, with the flags that give them; "" for none. */
void sm_traits_missing(const sm_denoiser *family, const sm_denoiser_config *c, const sm_traits *t, char *out, size_t size);

#endif
