/* Parameterisations (see param.h); eps and v as k-diffusion's CompVisDenoiser and CompVisVDenoiser. */
#include "sample/param.h"

#include <math.h>
#include <string.h>

bool sm_pred_by_name(const char *name, sm_pred *out)
{
    static const char *const names[] = {"epsilon", "v_prediction", "sample", "flow_prediction", "edm"};
    for (size_t i = 0; i < SM_COUNT(names); i++)
        if (!strcmp(name, names[i])) {
            *out = (sm_pred)i;
            return true;
        }
    return false;
}

sumi_status sm_precond_at(const sm_noise *m, sm_pred pred, double sigma, sm_precond *out, sm_err *e)
{
    if (m->flow != (pred == SM_PRED_FLOW) || (m->sigma_data > 0) != (pred == SM_PRED_EDM))
        return sm_fail(e, SUMI_E_MODEL, "prediction type and noise schedule do not go together: velocity belongs to flow models, "
                                        "edm to EDM's noise levels, the others to VP's");
    if (!(sigma > 0) || !isfinite(sigma))
        return sm_fail(e, SUMI_E_INTERNAL, "a denoiser was asked for the noise level %g", sigma);
    double s = m->sigma_data, v = sigma * sigma + (s > 0 ? s * s : 1);
    out->t = s > 0 ? log(sigma) / 4 : sm_noise_t(m, sigma);
    out->c_in = m->flow ? 1 : 1 / sqrt(v);
    switch (pred) {
    case SM_PRED_EPS:
    case SM_PRED_FLOW:
        out->c_skip = 1;
        out->c_out = -sigma;
        break;
    case SM_PRED_V:
        out->c_skip = 1 / v;
        out->c_out = -sigma / sqrt(v);
        break;
    case SM_PRED_X0:
        out->c_skip = 0;
        out->c_out = 1;
        break;
    case SM_PRED_EDM:
        out->c_skip = s * s / v;
        out->c_out = sigma * s / sqrt(v);
        break;
    }
    return SUMI_OK;
}

void sm_precond_in(const sm_precond *p, const float *x, float *in, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        in[i] = (float)(p->c_in * x[i]);
}

void sm_precond_out(const sm_precond *p, const float *x, const float *out, float *x0, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x0[i] = (float)(p->c_skip * x[i] + p->c_out * out[i]);
}

double sm_precond_score(const sm_noise *m, const sm_precond *p, double sigma)
{
    double left = m->flow ? 1 - sigma : 1;
    return left > 0 ? sigma * sigma * p->c_in / left : 0;
}
