/* A request while it runs or is planned: its passes. */
#ifndef SM_PIPELINE_DRAWING_H
#define SM_PIPELINE_DRAWING_H

#include "pipeline/hires.h"
#include "pipeline/pass.h"

typedef struct sm_drawing {
    const sm_job *j;
    int round;         /* pictures at once */
    int passes;
    sm_pass pass[2];
    uint8_t *pixels;   /* [round, height, width, 3], results that are laid into the edited picture; NULL: they come out as they
                          are */
    int64_t evals;     /* denoiser calls so far */
} sm_drawing;

/* sm_drawing_close in any case. */
sumi_status sm_drawing_open(sm_drawing *d, const sm_job *j, sm_err *e);
void sm_drawing_close(sm_drawing *d);

#endif
