/* DEIS (Zhang & Chen 2023) in log rho, rho = sigma / alpha: x / alpha moves by the integral of the predicted noise over rho, and
 * the noise is a polynomial in log rho through the last three predictions; diffusers' DEISMultistepScheduler of order 3. Order 2
 * as a whole, for the first step is Euler's. */
#include "sample/snr.h"

#include <math.h>

enum { ORDER = 3, FEW = 15 };

/* How many predictions step i builds on: as many as there are, less where one lies at infinite rho (a flow's start), and as in
 * diffusers two in the last but one of few steps. */
static int points(const sm_sampling *p, int i)
{
    int most = p->steps < FEW && p->sigmas[p->steps] == 0 && i == p->steps - 2 ? 2 : ORDER, n = 1;
    while (n < most && n <= i && isfinite(sm_lambda(p, p->sigmas[i - n])))
        n++;
    return isfinite(sm_lambda(p, p->sigmas[i])) ? n : 1;
}

/* c[j]: the integral of prediction j's Lagrange polynomial in u = log(rho / rho_i) over rho, from step i's start to its end.
 * Those of all n add up to the change of rho, so the latest's is not needed. */
static void coefficients(const sm_sampling *p, int i, int n, double c[ORDER])
{
    double start = sm_lambda(p, p->sigmas[i]), rho = exp(-start), w = start - sm_lambda(p, p->sigmas[i + 1]);
    double i0 = expm1(w), i1 = w * exp(w) - i0, i2 = w * w * exp(w) - 2 * i1; /* of e^u, u e^u, u^2 e^u from 0 to w */
    double a = start - sm_lambda(p, p->sigmas[i - 1]);
    c[1] = rho * i1 / a;
    if (n == 3) {
        double b = start - sm_lambda(p, p->sigmas[i - 2]);
        c[1] = rho * (i2 - b * i1) / (a * (a - b));
        c[2] = rho * (i2 - a * i1) / (b * (b - a));
    }
}

/* Euler's step, which keeps the latest noise, and what the others add to it. */
static void move(const sm_sampling *p, int i, const float *x0, float *const noise[ORDER], float *x)
{
    double c[ORDER] = {0}, s = p->sigmas[i], t = p->sigmas[i + 1], alpha = sm_alpha(p, t);
    int n = t > 0 ? points(p, i) : 1;
    sm_sample_blend(p, t / s, x, alpha - t / s * sm_alpha(p, s), x0);
    if (n == 1)
        return;
    coefficients(p, i, n, c);
    for (int64_t k = 0; k < p->n; k++) {
        double now = noise[0][k], sum = c[1] * (noise[1][k] - now) + (n == 3 ? c[2] * (noise[2][k] - now) : 0);
        x[k] = (float)(x[k] + alpha * sum);
    }
}

sumi_status sm_sample_deis(const sm_sampling *p, float *x, sm_err *e)
{
    float *room = sm_sample_room(p, ORDER + 1, e), *x0 = room;
    sumi_status st = room ? SUMI_OK : SUMI_E_MEMORY;
    float *noise[ORDER];
    for (int k = 0; k < ORDER; k++)
        noise[k] = room ? room + (k + 1) * p->n : NULL;
    for (int i = 0; st == SUMI_OK && i < p->steps; i++) {
        st = sm_sample_look(p, i, x, x0, e);
        if (st != SUMI_OK)
            break;
        float *oldest = noise[2];
        noise[2] = noise[1];
        noise[1] = noise[0];
        noise[0] = oldest;
        for (int64_t k = 0; k < p->n; k++)
            noise[0][k] = (float)((x[k] - sm_alpha(p, p->sigmas[i]) * x0[k]) / p->sigmas[i]);
        move(p, i, x0, noise, x);
    }
    sm_free(room);
    return st;
}
