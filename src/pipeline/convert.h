/* sumi convert: what its files share. A conversion is a list of sources (open files and the table their tensors are in), a list
 * of tensors as they will be stored, and metadata. */
#ifndef SM_CONVERT_H
#define SM_CONVERT_H

#include "io/gguf.h"
#include "io/tensors.h"
#include "model/layout.h"
#include "pipeline/context.h"

#define SM_KEEP SM_DTYPES /* as a type wanted: the one it has */

/* Why a tensor has not the type that was wanted. */
typedef enum sm_kept {
    SM_CONVERTED, SM_KEPT_NAME, SM_KEPT_ROWS, SM_KEPT_SMALL, SM_KEPT_PATTERN, SM_KEPT_INTEGER, SM_KEPT_NO_TYPE, SM_KEPT_REASONS
} sm_kept;

typedef struct sm_conversion {
    sm_mem *mem;
    const char *in, *out;
    sm_dtype type;             /* wanted, or SM_KEEP */
    bool gguf;
    const char *layout;        /* "keep", "diffusers", "original" */
    const char *vae, *patterns;
    sm_arena arena;            /* names, metadata */
    sm_weights *w, *base, *vae_w; /* tensors; with an autoencoder of another file, w holds views of base and vae_w */
    sm_st *meta_st;            /* where metadata comes from: at most one of both */
    sm_gguf *meta_gguf;
    bool canonical;            /* names of w are diffusers' with a component before them */
    sm_out_tensor *t;          /* what is written, n of them, room for cap */
    size_t n, cap;
    /* Counts for the summary. first: a name for each reason. */
    size_t kept[SM_KEPT_REASONS], left_out, scaled;
    const char *first[SM_KEPT_REASONS], *first_left_out;
    size_t bytes_in;
    bool flow;                 /* a folder of a rectified-flow model, which tensors do not tell */
    const char *own, *merges;  /* "sumi.model" and "merges" in place of the source's; NULL: its own */
    const char *note;          /* a line more for the summary, or NULL */
    /* Metadata of the file to be written: pairs or, for GGUF, typed values. */
    sm_st_meta *meta;
    sm_gguf_meta *gmeta;
    size_t nmeta;
} sm_conversion;

/* convert_types.c: sets t->as (and, where GGUF asks for it, t's shape) and counts why. scaled: see sm_convert_scales. */
sumi_status sm_convert_type(sm_conversion *c, sm_out_tensor *t, sm_err *e);
/* "Q8_0 112, F16 84: ..." and what was kept, as lines. */
void sm_convert_summary(const sm_conversion *c, sm_buf *b);
/* The name that ends a scale of NAME.weight, NULL: name is none. Also for marks and scales of activations, with which nothing is
 * computed here: then *weight is false. */
bool sm_convert_is_scale(const char *name, size_t *stem, bool *weight);

/* convert_meta.c: fills the metadata. */
sumi_status sm_convert_meta(sm_conversion *c, sm_err *e);
/* How the model of a folder is sampled, as the marks of a single file, which has no scheduler_config.json; sets flow. */
sumi_status sm_convert_folder_marks(sm_conversion *c, sm_layout_report *r, sm_err *e);

/* convert_own.c: sets own, merges and note. */
sumi_status sm_convert_own(sm_conversion *c, sm_err *e);

#endif
