/* One part of a model run by itself on named tensors: what sits behind sumi_run_module. A module is a text encoder, a denoiser,
 * or half of the autoencoder; its inputs and outputs are slots: names and shapes as in diffusers and transformers, NCHW. */
#ifndef SM_PIPELINE_MODULE_H
#define SM_PIPELINE_MODULE_H

#include "io/tensors.h"
#include "pipeline/model.h"

typedef enum sm_module_id {
    SM_MODULE_TEXT, SM_MODULE_TEXT_2, SM_MODULE_UNET, SM_MODULE_TRANSFORMER, SM_MODULE_VAE_ENCODER, SM_MODULE_VAE_DECODER,
    SM_MODULES
} sm_module_id;

typedef struct sm_module_row {
    const char *name;       /* "vae_encoder" */
    sm_component component; /* whose weights it runs with */
    sm_model_kind kind;
} sm_module_row;

extern const sm_module_row sm_module_rows[SM_MODULES];
/* SM_MODULES where the name is none. */
sm_module_id sm_module_find(const char *name);

/* Weights and configuration of the one component. */
typedef struct sm_module {
    const sm_module_row *row;
    sm_mem *mem;
    sm_weights *w;          /* under canonical names (model/layout.h), perhaps among others */
    union { sm_clip_config clip; sm_unet_config unet; sm_vae_config vae; sm_mmdit_config mmdit; } c;
    char path[512];         /* where it was found, for messages */
} sm_module;

/* ---- module_open.c ------------------------------------------------------------------------------------------------- */

/* The part out of whatever o names: a whole model in any layout, a file or folder of the part alone, the built-in model, or the
 * file given for the part (o->vae ...). Nothing else of the model need be there. sm_module_close in any case. */
sumi_status sm_module_open(sm_module *m, const sm_module_row *row, const sumi_model_options *o, sm_mem *mem, sm_err *e);
void sm_module_close(sm_module *m);

/* ---- module_slots.c ------------------------------------------------------------------------------------------------ */

enum { SM_MODULE_INPUTS = 8, SM_MODULE_OUTPUTS = SM_LAYERS + 4 };

typedef enum sm_slot_id {
    SM_IN_SAMPLE, SM_IN_TIME, SM_IN_CONTEXT, SM_IN_POOLED, SM_IN_TIME_IDS, SM_IN_TIME_COND, SM_IN_LABELS, SM_IN_IDS
} sm_slot_id;

typedef struct sm_slot {
    char name[64];
    const char *other;      /* a second name that is taken too, or NULL */
    sm_slot_id id;          /* inputs */
    int rank;
    int64_t dims[4];        /* less than 0: free, the negative of the letter it is called by; equal letters are equal sizes */
    bool ids;               /* integers from 0 to below */
    int64_t below;
    bool optional, each;    /* each: rank 1 [N], or one value for all */
} sm_slot;

typedef struct sm_slots {
    int nin, nout;
    sm_slot in[SM_MODULE_INPUTS], out[SM_MODULE_OUTPUTS];
} sm_slots;

void sm_module_slots(const sm_module *m, sm_slots *s);
/* "[N, 4, H, W]"; a letter that is bound (letters['N' - 'A'] is not 0) is its size. letters may be NULL. */
const char *sm_slot_shape(const sm_slot *s, const int64_t letters[26], char buf[96]);

/* The value of one input as the graph takes it: channels last, f32, or i32 where the slot holds ids. */
typedef struct sm_slot_value {
    int rank;               /* 0: not given */
    int64_t dims[4];
    void *data;             /* sm_free */
} sm_slot_value;

/* Reads and checks every input from the file at path; value[i] belongs to s->in[i]. What was read is the caller's to free, also
 * after a failure. */
sumi_status sm_slots_read(const sm_slots *s, const sm_module *m, const char *path, sm_slot_value value[SM_MODULE_INPUTS],
                          sm_err *e);
/* Writes outputs, data[i] of s->out[i], shaped dims[i] and channels last where it has four. */
sumi_status sm_slots_write(const sm_slots *s, const float *const *data, const int64_t (*dims)[4], const char *path, sm_mem *mem,
                           sm_err *e);

#endif
