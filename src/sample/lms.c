/* Linear multistep (k-diffusion's LMS): Adams and Bashforth's method on uneven levels. The slope dx/dsigma = (x - x0) / sigma is
 * extrapolated by the polynomial through its last four values, and that is integrated exactly. */
#include "sample/sampler.h"

#include <math.h>
#include <string.h>

enum { MOST = 4 };

/* Integral over sigmas[i]..sigmas[i + 1] of the Lagrange polynomial that is 1 at sigmas[i - j] and 0 at the other `order` levels
 * up to sigmas[i]: a cubic at most, for which two Gauss points are exact. */
static double weight(const double *sigmas, int i, int j, int order)
{
    double half = 0.5 * (sigmas[i + 1] - sigmas[i]), mid = sigmas[i] + half, sum = 0;
    for (int side = -1; side <= 1; side += 2) {
        double at = mid + side * half / sqrt(3), v = 1;
        for (int k = 0; k < order; k++)
            if (k != j)
                v *= (at - sigmas[i - k]) / (sigmas[i - j] - sigmas[i - k]);
        sum += v * half;
    }
    return sum;
}

sumi_status sm_sample_lms(const sm_sampling *p, float *x, sm_err *e)
{
    float *room = sm_sample_room(p, MOST + 1, e), *x0 = room, *slope[MOST]; /* slope[0] is the newest */
    sumi_status st = room ? SUMI_OK : SUMI_E_MEMORY;
    for (int k = 0; k < MOST; k++)
        slope[k] = room ? room + (k + 1) * p->n : NULL;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        st = sm_sample_look(p, i, x, x0, e);
        if (st != SUMI_OK)
            break;
        float *oldest = slope[MOST - 1];
        memmove(slope + 1, slope, sizeof slope[0] * (MOST - 1));
        slope[0] = oldest;
        int order = SM_MIN(i + 1, MOST);
        double w[MOST];
        for (int k = 0; k < order; k++)
            w[k] = weight(p->sigmas, i, k, order);
        for (int64_t q = 0; q < p->n; q++) {
            slope[0][q] = (float)(((double)x[q] - x0[q]) / p->sigmas[i]);
            double move = 0;
            for (int k = 0; k < order; k++)
                move += w[k] * slope[k][q];
            x[q] = (float)(x[q] + move);
        }
    }
    sm_free(room);
    return st;
}
