/* Prompts to what denoisers take: the context of every text encoder side by side, and the pooled text. */
#ifndef SM_PIPELINE_TEXT_H
#define SM_PIPELINE_TEXT_H

#include "pipeline/generate.h"

typedef struct sm_text_cond {
    int tokens, width;  /* of a row: width is the sum of the encoders' */
    int pool;           /* width of the pooled text, 0 without */
    float *context;     /* [rows, tokens, width] */
    float *pooled;      /* [rows, pool] */
} sm_text_cond;

/* Room for rows texts of the job's model. sm_text_cond_close in any case. */
sumi_status sm_text_cond_open(sm_text_cond *c, const sm_job *j, int rows, sm_err *e);
void sm_text_cond_close(sm_text_cond *c);
/* Encodes texts 0..rows-1, one encoder after the other. */
sumi_status sm_text_encode(sm_text_cond *c, const sm_job *j, int rows, const char *const *texts, sm_err *e);

/* Row `row` becomes zeros: what models with the trait zero_empty (model/detect.h) take for no text. */
void sm_text_zero(sm_text_cond *c, int row);

/* One encoder's graph for rows texts: inputs input_ids [rows, tokens] and eos [rows], outputs the context [rows, tokens,
 * hidden_size] of the layer that the model or clip_skip says, and, for the last encoder of a model that takes pooled text,
 * that. Closed with sm_part_close, also after a failure. */
sumi_status sm_text_open_part(sm_part *p, const sm_job *j, int encoder, int rows, sm_err *e);

#endif
