/* Inversion (see invert.h), written with slopes: both kinds of noise have dx/dsigma = (x - x0) / sigma, and the slope that a
 * model's raw output F stands for is k x + l F, also at sigma 0, where x0 alone says nothing of it. */
#include "sample/invert.h"

#include <math.h>

/* c_in at any level, 0 included. */
static double input_scale(const sm_noise *m, double sigma)
{
    double s = m->sigma_data;
    return m->flow ? 1 : 1 / sqrt(sigma * sigma + (s > 0 ? s * s : 1));
}

/* A step up is x = keep x + add x0, where x0 is the answer for reach x at the level `to`. */
typedef struct rise { double reach, keep, add; } rise;

/* Output F at `to` from its x0 there, F = (x0 - c_skip reach x) / c_out; then the slope k x + l F at `from`. A model of x0 has no
 * slope at 0: its own is read at `to`, which for noise and velocity is the same. */
static sumi_status rise_at(const sm_noise *m, sm_pred pred, double from, double to, rise *out, sm_err *e)
{
    sm_precond pc;
    double d = to - from, s = m->sigma_data, v = from * from + (pred == SM_PRED_EDM ? s * s : 1), k = 0, l = 1;
    if (sm_precond_at(m, pred, to, &pc, e))
        return e->code;
    out->reach = input_scale(m, from) / input_scale(m, to);
    out->keep = 1 + d * out->reach / to;
    out->add = -d / to;
    if (pred == SM_PRED_V || pred == SM_PRED_EDM) {
        k = from / v;
        l = pred == SM_PRED_V ? 1 / sqrt(v) : -s / sqrt(v);
        out->keep = 1 + d * (k - l * pc.c_skip * out->reach / pc.c_out);
        out->add = d * l / pc.c_out;
    }
    return SUMI_OK;
}

/* x at `from` to y at `to`. */
static sumi_status step_up(const sm_sampling *p, sm_pred pred, int refine, double from, double to, const float *x, float *y,
                           float *x0, sm_err *e)
{
    rise r = {0};
    if (rise_at(p->levels, pred, from, to, &r, e))
        return e->code;
    for (int64_t i = 0; i < p->n; i++)
        y[i] = (float)(r.reach * x[i]);
    if (sm_sample_denoise(p, y, to, x0, e))
        return e->code;
    for (int64_t i = 0; i < p->n; i++)
        y[i] = (float)(r.keep * x[i] + r.add * x0[i]);
    for (int k = 0; k < refine; k++) {
        if (sm_sample_denoise(p, y, to, x0, e))
            return e->code;
        for (int64_t i = 0; i < p->n; i++)
            y[i] = (float)(x[i] + (to - from) / to * (y[i] - x0[i]));
    }
    return SUMI_OK;
}

static sumi_status check(const sm_sampling *p, int refine, sm_err *e)
{
    if (p->steps < 1 || p->n < 1 || !p->denoise || !p->levels || refine < 0)
        return sm_fail(e, SUMI_E_INTERNAL, "the inversion was given nothing to do");
    return sm_sample_levels(p, e);
}

sumi_status sm_invert(const sm_sampling *p, sm_pred pred, int refine, float *x, sm_err *e)
{
    if (check(p, refine, e))
        return e->code;
    float *y = sm_sample_room(p, 2, e), *x0 = y ? y + p->n : NULL;
    for (int i = p->steps; y && i > 0 && !e->code; i--) {
        if (step_up(p, pred, refine, p->sigmas[i], p->sigmas[i - 1], x, y, x0, e))
            break;
        for (int64_t k = 0; k < p->n; k++)
            x[k] = y[k];
        if (p->on_step && !p->on_step(p->ctx, p->steps - i + 1, p->sigmas[i - 1], x, x0))
            sm_fail(e, SUMI_E_CANCELLED, "stopped at step %d of %d of the inversion", p->steps - i + 1, p->steps);
    }
    sm_free(y);
    return e->code;
}
