/* Prompts to what denoisers take: a table of encoded texts, and which of them a picture is told at each call of the denoiser. The
 * prompt language itself is text/prompt.h. */
#ifndef SM_PIPELINE_TEXT_H
#define SM_PIPELINE_TEXT_H

#include "pipeline/generate.h"
#include "sample/sampler.h"

/* One text that a prediction is made for. Where there are several (AND), the prediction is the unconditional one plus each one's
 * weighted difference from it. */
typedef struct sm_text_pick { int row; float weight; } sm_text_pick; /* 1 where there is but one and nothing was said */

typedef struct sm_text_cond {
    int width;               /* of a token: the sum of the encoders' */
    int pool;                /* width of the pooled text, 0 without */
    struct sm_text_table *t; /* text_table.h */
} sm_text_cond;

/* Calls that whole numbers and fractions in prompts count: as A1111's total_steps, two a step, the last one's too, of samplers
 * that evaluate twice (its second_order), else one, whatever the sampler does (DPM fast, DPM adaptive, PLMS). */
int sm_text_calls(const sm_sampler *s, int steps);
/* Lays out the texts of the request's pictures first..first+n-1 (with Prompt-to-Prompt behind them those of the n that they are
 * edited from) and of the negative prompt, for every call of the denoiser: rows, their tokens and all picks are known from here
 * on, contexts after sm_text_encode. earlier: steps of the pass before, from which hires fix counts on; else 0. sm_text_close in
 * any case. */
sumi_status sm_text_open(sm_text_cond *c, const sm_job *j, int first, int n, int earlier, sm_err *e);
void sm_text_close(sm_text_cond *c);
/* Encodes every text once, one encoder after the other; tells what the prompts asked for and is not there. */
sumi_status sm_text_encode(sm_text_cond *c, const sm_job *j, sm_err *e);

/* Texts of picture 0..n-1 at the denoiser's call-th call, from 0; the last text stays for calls beyond those that were planned.
 * All picks of one picture and side have the same number of tokens, at every call; both sides may differ. Returns how many, at
 * least 1; the negative prompt has 1, of weight 1. *picks is good until sm_text_close. */
int sm_text_at(const sm_text_cond *c, int picture, int call, bool negative, const sm_text_pick **picks);
int sm_text_tokens(const sm_text_cond *c, int row);
const float *sm_text_context(const sm_text_cond *c, int row); /* [tokens, width] */
const float *sm_text_pooled(const sm_text_cond *c, int row);  /* [pool] */
/* Sequences that each encoder reads for all rows, and how many of them at a time. */
int sm_text_sequences(const sm_text_cond *c);
int sm_text_batch(const sm_text_cond *c);

/* One encoder's graph for rows texts: inputs input_ids [rows, tokens] and eos [rows], outputs the context [rows, tokens,
 * hidden_size] of the layer that the model or clip_skip says, and, for the last encoder of a model that takes pooled text,
 * that. Closed with sm_part_close, also after a failure. */
sumi_status sm_text_open_part(sm_part *p, const sm_job *j, int encoder, int rows, sm_err *e);

#endif
