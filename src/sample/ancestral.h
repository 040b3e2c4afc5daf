/* Ancestral steps (k-diffusion; for flow models as ComfyUI): an exact step goes down to `down`, below the next noise level; x is
 * then scaled by `keep` and gets `up` of fresh noise, so that the level is the next one again. */
#ifndef SM_SAMPLE_ANCESTRAL_H
#define SM_SAMPLE_ANCESTRAL_H

#include "sample/sampler.h"

typedef struct sm_split {
    double down, keep, up;
} sm_split;

/* By p->eta. To 0, or with eta 0, all of it is the step. */
sm_split sm_ancestral(const sm_sampling *p, double from, double to);
/* The same where the step goes to `down`, at most `to`. */
sm_split sm_ancestral_below(const sm_sampling *p, double to, double down);
/* x = keep x + up noise, the draw-th. room: n floats; not used where up is 0. */
sumi_status sm_ancestral_noise(const sm_sampling *p, const sm_split *s, int draw, double from, double to,
                               float *x, float *room, sm_err *e);
/* A sampler of moves, each to `down` and with noise after it. rows: as in sm_sample_moves, at least 1. */
sumi_status sm_ancestral_moves(const sm_sampling *p, sm_move *move, int rows, float *x, sm_err *e);

#endif
