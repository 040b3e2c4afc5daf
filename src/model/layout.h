/* Layouts: which stored tensor is which canonical one. A canonical name is "<component>.<diffusers' or transformers' name>",
 * component one of unet, transformer, vae, text_encoder, text_encoder_2. Single files of other programs (CompVis' and
 * Stability's "model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner.embedders.N.") are mapped
 * by bijective alias tables that serve reading and export alike. */
#ifndef SM_LAYOUT_H
#define SM_LAYOUT_H

#include "io/tensors.h"

typedef enum sm_component {
    SM_COMPONENT_UNET, SM_COMPONENT_TRANSFORMER, SM_COMPONENT_VAE, SM_COMPONENT_TEXT, SM_COMPONENT_TEXT_2, SM_COMPONENTS
} sm_component;

extern const char *const sm_component_names[SM_COMPONENTS]; /* "unet", "transformer", "vae", "text_encoder", "text_encoder_2" */

/* What a file turned out to hold. */
typedef struct sm_layout_report {
    const char *layout;           /* "diffusers", "original" or "mixed" */
    size_t found[SM_COMPONENTS];  /* canonical tensors of each component */
    size_t ignored;               /* known and not needed: schedules, EMA copies, position ids, the loss's own nets */
    size_t unknown;               /* neither */
    char first_unknown[160];
    bool lora, controlnet, embedding; /* tensors of things that go on top of a model */
    bool v_prediction, zero_snr;  /* marks that trainers leave in a checkpoint: keys "v_pred" and "ztsnr" */
    bool edm_mark;                /* Playground v2.5's "edm_mean", "edm_std" */
    float latents_mean[4], latents_std[4]; /* with edm_mark, or where the file has them */
    bool edm_v;                   /* CosXL's "edm_vpred.sigma_max", "edm_vpred.sigma_min": v over EDM's noise, not supported */
    float edm_v_sigma[2];         /* their values, 0 where there is none */
} sm_layout_report;

/* Of SD 2.x's own files the text encoder's last layer (24th) and projection are left out, as diffusers does: nobody reads them.
 *
 * Adds f's tensors to w under their canonical names and takes f over (it lives as long as w does). Views where an
 * order of bytes allows (whole tensors, row ranges of a fused matrix, other dims of the same bytes), copies where not
 * (transposes). only: the component to take, the rest is left out; SM_COMPONENTS takes all. A file that holds one component
 * under bare names ("down_blocks.0...", "encoder.down.0...", "text_model...") is recognised too. r is filled also on failure. */
sumi_status sm_layout_into(sm_tensors *f, sm_weights *w, sm_component only, sm_layout_report *r, sm_mem *mem, sm_err *e);

/* Adds r's marks to w under their own names (v_pred and ztsnr are one zero each: the name counts), for a file that is to be
 * written; sm_layout_original lets them through. A table that is to be run does not need them. */
sumi_status sm_layout_add_marks(const sm_layout_report *r, sm_weights *w, sm_err *e);

/* One stored tensor of an export: rows of canonical tensors, one after the other, in the stored shape. */
typedef struct sm_layout_export {
    char name[160];
    int rank;
    int64_t dims[SM_MAX_DIMS];
    int parts;                    /* 1..3 */
    const sm_weight *part[3];     /* written in this order */
    bool transpose;               /* of the only part, rank 2 */
} sm_layout_export;

/* The single-file ("original") form of all tensors of w, sorted by name; *out is released with sm_free. Types of parts may
 * differ. SUMI_E_SUPPORT where w's family has no such layout or reading the result would not give w's names again (blocks
 * missing in the middle); SUMI_E_MODEL where shapes do not go together. */
sumi_status sm_layout_original(const sm_weights *w, sm_layout_export **out, size_t *n, sm_mem *mem, sm_err *e);

#endif
