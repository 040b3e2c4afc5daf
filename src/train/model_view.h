/* The model that a training run has so far, as others see it. */
#ifndef SM_MODEL_VIEW_H
#define SM_MODEL_VIEW_H

#include "train/stages.h"

/* A table of the stage's moving averages and, for every tensor that is not trained now, its present value. Views only: the
 * trainer and the state must outlive it. NULL on failure. */
sm_weights *sm_view_weights(const sm_trainer *t, const sm_train_state *st, sm_err *e);

/* The stages' validations (sm_stage.validate): sheets of pictures in the output folder. */
sumi_status sm_vae_validate(sm_stage *s, sm_trainer *t, const sm_train_state *st, int64_t step, sm_err *e);
sumi_status sm_flow_validate(sm_stage *s, sm_trainer *t, const sm_train_state *st, int64_t step, sm_err *e);

#endif
