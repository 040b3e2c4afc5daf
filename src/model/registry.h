/* The table of families: what core code asks instead of asking a model's name. One row per denoiser architecture. */
#ifndef SM_REGISTRY_H
#define SM_REGISTRY_H

#include "model/model.h"

typedef union sm_denoiser_config { sm_unet_config unet; sm_mmdit_config mmdit; } sm_denoiser_config;

/* What a denoiser is told beside the noisy sample and the time; members that its config does not ask for are NULL. */
typedef struct sm_conditions {
    sm_node *ctx;           /* [N,T,C] text */
    sm_node *pooled;        /* [N,P], where pooled_width is not 0 */
    sm_node *time_ids;      /* [N,I] f32, XL's sizes (sm_unet_cond); NULL: the whole picture at the sample's size */
    sm_node *timestep_cond; /* [N,time_cond_proj_dim], LCM's embedded guidance scale; NULL: without */
    sm_unet_tweaks *tweaks; /* UNets alone; NULL: none */
} sm_conditions;

typedef struct sm_denoiser {
    const char *component;  /* name in model_index.json and prefix of its tensors: "unet", "transformer" */
    const char *class_name; /* diffusers' class */
    const char *marker;     /* a tensor that every member has and no other family */
    sm_model_kind kind;     /* reads and writes its config.json (sm_config_read) */
    int (*latent_channels)(const sm_denoiser_config *c); /* of the result; what goes in is checked when it is recorded */
    int (*context_width)(const sm_denoiser_config *c);
    int (*pooled_width)(const sm_denoiser_config *c); /* P of the pooled text; 0: this member takes none; < 0: nonsense */
    int (*multiple)(const sm_denoiser_config *c); /* latent sides must divide by this */
    int (*time_ids)(const sm_denoiser_config *c); /* I of the time ids; 0: this member takes none */
    /* sample [N,h,w,L], t [N] in 0..1000 -> [N,h,w,L] */
    sm_node *(*record)(const nn_scope *s, const sm_denoiser_config *c, sm_node *sample, sm_node *t, const sm_conditions *cond);
    /* The timestep-modulated input of the first block (TeaCache); the text is not looked at. */
    sm_node *(*modulated)(const nn_scope *s, const sm_denoiser_config *c, sm_node *sample, sm_node *t, const sm_conditions *cond);
} sm_denoiser;

extern const sm_denoiser sm_denoisers[];
extern const int sm_denoiser_count;

const sm_denoiser *sm_denoiser_by_class(const char *class_name);
/* By the tensors alone: the row whose marker is in the table under its component's name. */
const sm_denoiser *sm_denoiser_detect(const sm_weights *w);

/* Completes what a denoiser's own config leaves open, from the text encoder that gives the pooled text. */
void sm_denoiser_settle(const sm_denoiser *d, sm_denoiser_config *c, const sm_clip_config *text);

/* What a family takes as pooled text: the encoder's projection where it has one, else its output at the end mark; NULL for
 * a family that takes none. Recorded with eos rows; a width that is not the denoiser's is the graph's failure. */
sm_node *sm_denoiser_pooled(const sm_denoiser *d, const sm_denoiser_config *c, const sm_clip_out *text);

#endif
