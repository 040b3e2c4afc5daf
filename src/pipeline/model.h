/* A loaded model: weights, tokenizer, the configuration of every component, defaults. The struct behind sumi_model. */
#ifndef SM_PIPELINE_MODEL_H
#define SM_PIPELINE_MODEL_H

#include "model/registry.h"
#include "pipeline/context.h"
#include "text/bpe.h"

struct sumi_model {
    sm_mem *mem;
    sm_weights *w;                 /* vae.*, text_encoder.*, <family component>.* */
    sm_bpe *bpe;
    sm_clip_config clip;
    sm_vae_config vae;
    const sm_denoiser *family;
    sm_denoiser_config denoiser;
    struct { int steps, width, height; float cfg_scale, shift; char sampler[32], schedule[32]; } defaults;
    char name[96], summary[192];
};

/* A single file carries its configuration in the safetensors metadata "sumi.model": {"name", "text_encoder", "vae",
 * "unet" or "transformer": the components' config.json, "defaults": {steps, cfg_scale, width, height, shift, sampler, schedule}},
 * and the tokenizer's merges in "merges". */
sumi_status sm_model_open(sumi_model **out, sm_mem *mem, const char *path, sm_err *e);
/* Reads that configuration text; m->w and m->bpe are the caller's affair. what: a name for messages. */
sumi_status sm_model_configure(sumi_model *m, const char *json, const char *what, sm_err *e);
/* Whether the components work together: channels and widths that meet are equal, sizes are in range. What the tensors say is
 * checked when they are recorded. */
sumi_status sm_components_fit(const sm_denoiser *f, const sm_denoiser_config *d, const sm_clip_config *clip, const sm_vae_config *vae,
                              const char *what, sm_err *e);
/* Appends the configuration text of m. */
void sm_model_describe(const sumi_model *m, sm_buf *out);

#endif
