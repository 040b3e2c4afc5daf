/* Parameterisations: what a model's output means. Every one is x0 = c_skip x + c_out model(c_in x, t), the preconditioning
 * of Karras et al. 2022, so that samplers know denoisers only. */
#ifndef SM_SAMPLE_PARAM_H
#define SM_SAMPLE_PARAM_H

#include "sample/schedule.h"

typedef enum sm_pred {
    SM_PRED_EPS,  /* the noise (Ho et al. 2020) */
    SM_PRED_V,    /* alpha n - sigma x0 of the variance-preserving x (Salimans & Ho 2022) */
    SM_PRED_X0,   /* the picture */
    SM_PRED_FLOW, /* the velocity n - x0 (Lipman et al. 2023, Liu et al. 2023) */
    SM_PRED_EDM   /* F of Karras et al. 2022, whose own preconditioning it is (Playground v2.5) */
} sm_pred;

typedef struct sm_precond {
    double c_in, c_skip, c_out;
    double t; /* the timestep that the model sees */
} sm_precond;

/* By diffusers' prediction_type: epsilon, v_prediction, sample, flow_prediction, and edm; false for another. */
bool sm_pred_by_name(const char *name, sm_pred *out);
/* sigma in (0, sm_noise_max]. The flow's velocity goes with flow noise only, EDM's F with EDM noise, the others with VP noise. */
sumi_status sm_precond_at(const sm_noise *m, sm_pred pred, double sigma, sm_precond *out, sm_err *e);
/* in = c_in x, for n numbers; may be in place. */
void sm_precond_in(const sm_precond *p, const float *x, float *in, int64_t n);
/* x0 = c_skip x + c_out out, for n numbers; x0 may be out. */
void sm_precond_out(const sm_precond *p, const float *x, const float *out, float *x0, int64_t n);

/* How much x0 changes for a gradient of log p(y | what the model sees) in what it sees, by Tweedie's formula: the score of x
 * given y is that of x plus c_in times this gradient, and
 *   x = x0 + sigma n:              x0 = x + sigma^2 score                       -> sigma^2 c_in
 *   x = (1 - sigma) x0 + sigma n:  x0 = (x + sigma^2 score) / (1 - sigma)       -> sigma^2 c_in / (1 - sigma)
 * For VP models, whose noise is (x - x0) / sigma, that is eps - sqrt(1 - alpha_bar) gradient (Dhariwal & Nichol 2021, algorithm
 * 2), for flow models velocity - sigma / (1 - sigma) gradient. A flow's x at sigma 1 is noise alone, which says nothing about y:
 * 0. */
double sm_precond_score(const sm_noise *m, const sm_precond *p, double sigma);

#endif
