/* A loaded model: weights, tokenizer, the configuration of every component, defaults. The struct behind sumi_model. */
#ifndef SM_PIPELINE_MODEL_H
#define SM_PIPELINE_MODEL_H

#include "model/detect.h"
#include "pipeline/context.h"
#include "text/bpe.h"

struct sumi_model {
    sm_mem *mem;
    sm_weights *w;              /* canonical names: vae.*, text_encoder.*, <family component>.* (model/layout.h) */
    sm_bpe *bpe;                /* of every text encoder */
    const sm_denoiser *family;
    sm_denoiser_config denoiser;
    sm_vae_config vae;
    sm_traits traits;           /* text encoders, prediction, defaults; sampler and schedule are names of sample/'s tables */
    double *trained_betas;      /* [train_steps], of scheduler_config.json; NULL: traits say how betas are made */
    int train_steps;            /* training timesteps; 0: 1000 */
    bool low_memory;
    struct sm_tiny *tiny;       /* --taesd (tiny.h); NULL: none */
    struct sm_origin *origin;   /* for infotexts (origin.h); NULL: trained, not loaded */
    char name[96], summary[256];
};

/* One text encoder, used as the small flow models do: its last output, padded with the end mark. */
static inline sm_traits sm_traits_flow(const sm_clip_config *clip, float shift)
{
    return (sm_traits){.label = "rectified flow", .prediction = "flow_prediction", .beta_schedule = "",
                       .shift = shift, .texts = 1,
                       .text = {{.component = "text_encoder", .clip = *clip, .final_norm = true, .pad = -1}}};
}

/* words: with a tokenizer, without which nothing can be drawn. */
sumi_status sm_model_open(sumi_model **out, sm_mem *mem, const sumi_model_options *o, bool words, sm_err *e);

/* ---- open_folder.c, open_file.c: what a path holds, into m (m->w and all that follows from it) --------------------- */

/* diffusers' layout: model_index.json and a folder per component. */
sumi_status sm_open_folder(sumi_model *m, const sumi_model_options *o, sm_err *e);
/* One component of such a folder, dir/part ("." where dir is the component's own): its config.json, its weights. */
sumi_status sm_folder_config(const char *dir, const char *part, sm_model_kind kind, void *config, sm_mem *mem, sm_err *e);
sumi_status sm_folder_weights(const char *dir, const char *part, sm_component c, sm_weights *w, sm_mem *mem, sm_err *e);
/* "latents_mean" and "latents_std" of a vae's config.json (Playground v2.5), one number a channel, deviations above 0. False: not
 * there, for another number of channels, or with e set. */
struct cJSON;
bool sm_latents_stats(const struct cJSON *vae, const char *file, float mean[4], float std[4], sm_err *e);
/* Tensors of a file of sumi's own into w under canonical names, whichever layout they are stored in; takes f over. */
sumi_status sm_own_into(sm_tensors *f, const sm_denoiser *family, sm_weights *w, sm_mem *mem, sm_err *e);
/* One file of any format: sumi's own, which carries its configuration in the safetensors metadata "sumi.model": {"name",
 * "text_encoder", "vae", "unet" or "transformer": the components' config.json, "defaults": {steps, cfg_scale, width, height,
 * shift, sampler, schedule}} and the tokenizer's merges in "merges"; or another program's, whose tensors say what it is. */
sumi_status sm_open_file(sumi_model *m, const sumi_model_options *o, sm_err *e);
/* Files named beside the model (--vae ...) replace its components of that kind, sizes included where m is configured already.
 * Marks of the denoiser's file are added to marks, which may be NULL. */
sumi_status sm_open_parts(sumi_model *m, const sumi_model_options *o, sm_layout_report *marks, sm_err *e);
/* Where such a part is a folder with a config.json, that holds: for m whose family is known. */
sumi_status sm_parts_config(sumi_model *m, const sumi_model_options *o, sm_err *e);
/* A name that is no path here may be that of a model that was pulled: *path becomes what sumi_pull left, in found. One that could
 * be and is not gets the answer of `find`. */
sumi_status sm_model_find_pulled(const char **path, sm_mem *mem, char *found, size_t size, sm_err *e);
/* The tokenizer that o names or, without one, CLIP's where the encoders have its vocabulary. */
sumi_status sm_open_tokenizer(sumi_model *m, const sumi_model_options *o, sm_err *e);

/* ---- complete.c ---------------------------------------------------------------------------------------------------- */

/* Every tensor of every part is there and has its shape; encoder: the autoencoder's too. The message names the first that is not
 * and the flag that takes the part from elsewhere. what: a name for messages. Marks what is used (sm_weight). */
sumi_status sm_model_complete(const sumi_model *m, bool encoder, const char *what, sm_err *e);
/* The same of the autoencoder's encoder alone, for a request whose flag asks for it. */
sumi_status sm_model_encodes(const sumi_model *m, const char *flag, sm_err *e);

/* ---- describe.c ---------------------------------------------------------------------------------------------------- */

/* Reads that configuration text; m->w and m->bpe are the caller's affair. what: a name for messages. */
sumi_status sm_model_configure(sumi_model *m, const char *json, const char *what, sm_err *e);
/* Whether the components work together: channels and widths that meet are equal, sizes are in range. What the tensors say is
 * checked when they are recorded. */
sumi_status sm_components_fit(const sm_denoiser *f, const sm_denoiser_config *d, const sm_traits *t, const sm_vae_config *vae,
                              const char *what, sm_err *e);
/* Appends the configuration text of m, a model with one text encoder. */
void sm_model_describe(const sumi_model *m, sm_buf *out);

#endif
