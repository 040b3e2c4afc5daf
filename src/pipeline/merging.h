/* Token merging of a request (nn/token_merge.c): what its parameters mean for a pass, and which tokens others join in a call. */
#ifndef SM_PIPELINE_MERGING_H
#define SM_PIPELINE_MERGING_H

#include "pipeline/denoise.h"

/* The ratio of hires fix's second pass takes the first one's place. */
void sm_merging_hires(sumi_request *r);
/* For a recording of j's denoiser; ratio 0: off. */
nn_merging sm_merging_of(const sm_job *j);
/* Writes the inputs of a part for the call that d is in. */
void sm_merging_choose(const sm_denoise *d, const sm_denoise_part *p);
sumi_status sm_merging_check(const sm_job *j, sm_err *e);
/* Appends to line why merging has no effect on this model, if it is wanted and has none. */
void sm_merging_idle(const sm_job *j, sm_buf *line);

#endif
