/* lambda (see snr.h). */
#include "sample/snr.h"

#include <math.h>
#include <string.h>

double sm_alpha(const sm_sampling *p, double sigma) { return p->flow ? 1 - sigma : 1; }
double sm_lambda(const sm_sampling *p, double sigma) { return log(sm_alpha(p, sigma) / sigma); }
double sm_lambda_sigma(const sm_sampling *p, double lambda) { return p->flow ? 1 / (1 + exp(lambda)) : exp(-lambda); }

double *sm_sample_finite(const sm_sampling *p, sm_sampling *q, sm_err *e)
{
    size_t bytes = sizeof(double) * ((size_t)p->steps + 1);
    double *sigmas = sm_alloc(p->mem, SM_MEM_MISC, bytes);
    if (!sigmas) {
        sm_fail(e, SUMI_E_MEMORY, "out of memory for %d noise levels", p->steps);
        return NULL;
    }
    memcpy(sigmas, p->sigmas, bytes);
    if (p->flow && sigmas[0] >= 1) {
        double u = 1 - 1e-4, below = p->levels ? sm_noise_sigma(p->levels, u * p->levels->steps) : u;
        sigmas[0] = fmax(below, 0.5 * (1 + sigmas[1])); /* the latter only in more steps than timesteps */
    }
    *q = *p;
    q->sigmas = sigmas;
    return sigmas;
}
