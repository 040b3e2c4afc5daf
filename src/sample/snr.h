/* lambda = log(alpha / sigma), half the logarithm of the signal-to-noise ratio: the time in which exponential integrators step
 * (Lu et al. 2022). alpha is 1, or 1 - sigma for flow models. */
#ifndef SM_SAMPLE_SNR_H
#define SM_SAMPLE_SNR_H

#include "sample/sampler.h"

double sm_alpha(const sm_sampling *p, double sigma);
/* Minus infinity at a flow's start, sigma 1. */
double sm_lambda(const sm_sampling *p, double sigma);
double sm_lambda_sigma(const sm_sampling *p, double lambda);

/* *q is p for samplers that need a finite lambda everywhere: a flow that begins at 1 begins a ten-thousandth of the timesteps
 * below it, with x as it is (as in ComfyUI). Returns q's own list of sigmas, to be released with sm_free; NULL and e set on
 * failure. */
double *sm_sample_finite(const sm_sampling *p, sm_sampling *q, sm_err *e);

#endif
