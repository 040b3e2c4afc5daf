/* A step of an exponential integrator (Lu et al. 2022) as numbers, for samplers that step in lambda (see snr.h). */
#ifndef SM_SAMPLE_HOP_H
#define SM_SAMPLE_HOP_H

#include "sample/snr.h"

#include <math.h>

/* From sigmas[from] to sigmas[from + 1]. Steps to sigma 0 have no finite h, and no sampler asks for it; a flow's step from
 * sigma 1 has none either, and neither history nor correction: its samplers make it Euler's. */
typedef struct sm_hop {
    double alpha;  /* at its end */
    double keep;   /* of x: end's sigma / start's sigma */
    double lambda; /* at its start */
    double h;      /* by which lambda grows */
} sm_hop;

static inline sm_hop sm_hop_at(const sm_sampling *p, int from)
{
    double s = p->sigmas[from], t = p->sigmas[from + 1], l = sm_lambda(p, s);
    return (sm_hop){sm_alpha(p, t), t / s, l, sm_lambda(p, t) - l};
}

#endif
