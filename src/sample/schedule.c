/* Noise levels and schedules (see schedule.h). Beta schedules follow Rombach et al. 2022 and Nichol & Dhariwal 2021 as
 * diffusers writes them, the flow's shift Esser et al. 2024; karras is eq. 5 of Karras et al. 2022, the other schedules are
 * those of k-diffusion and ComfyUI under their names. */
#include "sample/schedule.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#define MAX_STEPS 100000

/* ---- noise levels ------------------------------------------------------------------------------------------------ */

static double cosine_bar(double u)
{
    double c = cos((u + 0.008) / 1.008 * (M_PI / 2));
    return c * c;
}

static double beta_at(sm_beta kind, int i, int steps, double b0, double b1)
{
    double u = (double)i / (steps - 1);
    if (kind == SM_BETA_LINEAR)
        return b0 + (b1 - b0) * u;
    if (kind == SM_BETA_SCALED_LINEAR) {
        double r = sqrt(b0) + (sqrt(b1) - sqrt(b0)) * u;
        return r * r;
    }
    return fmin(1 - cosine_bar((i + 1.0) / steps) / cosine_bar((double)i / steps), 0.999);
}

sumi_status sm_noise_vp(sm_noise *m, sm_mem *mem, sm_beta beta, int steps, double beta_start, double beta_end, sm_err *e)
{
    *m = (sm_noise){.steps = steps, .shift = 1};
    if (steps < 2 || steps > MAX_STEPS)
        return sm_fail(e, SUMI_E_FORMAT, "a noise schedule of %d training steps; 2 to %d are possible", steps, MAX_STEPS);
    if (beta != SM_BETA_COSINE && !(beta_start > 0 && beta_start <= beta_end && beta_end < 1))
        return sm_fail(e, SUMI_E_FORMAT, "beta_start %g and beta_end %g are no range inside (0, 1)", beta_start, beta_end);
    m->log_sigma = sm_alloc(mem, SM_MEM_MISC, (size_t)steps * sizeof *m->log_sigma);
    if (!m->log_sigma)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for %d noise levels", steps);
    double log_bar = 0; /* log of the product of 1 - beta: how much of the picture's variance is left */
    for (int i = 0; i < steps; i++) {
        log_bar += log1p(-beta_at(beta, i, steps, beta_start, beta_end));
        m->log_sigma[i] = 0.5 * (log(-expm1(log_bar)) - log_bar);
    }
    return SUMI_OK;
}

/* With a = the root of what is left of the picture's variance: a becomes a0 (a - aT) / (a0 - aT). */
void sm_noise_zero_snr(sm_noise *m)
{
    double last = sqrt(1 / (1 + exp(2 * m->log_sigma[m->steps - 1]))), first = sqrt(1 / (1 + exp(2 * m->log_sigma[0])));
    for (int i = 0; i < m->steps; i++) {
        double a = (sqrt(1 / (1 + exp(2 * m->log_sigma[i]))) - last) * first / (first - last);
        double bar = i == m->steps - 1 ? 0x1p-24 : a * a;
        m->log_sigma[i] = 0.5 * log((1 - bar) / bar);
    }
}

sumi_status sm_noise_edm(sm_noise *m, sm_mem *mem, int steps, double sigma_min, double sigma_max, double sigma_data, sm_err *e)
{
    *m = (sm_noise){.steps = steps, .shift = 1, .sigma_data = sigma_data};
    if (steps < 2 || steps > MAX_STEPS)
        return sm_fail(e, SUMI_E_FORMAT, "a noise schedule of %d training steps; 2 to %d are possible", steps, MAX_STEPS);
    if (!(sigma_min > 0 && sigma_min < sigma_max && sigma_max < 1e6 && sigma_data > 0 && sigma_data < 1e6))
        return sm_fail(e, SUMI_E_FORMAT, "sigma_min %g, sigma_max %g, sigma_data %g: all must be positive, the range rising",
                       sigma_min,
                       sigma_max, sigma_data);
    m->log_sigma = sm_alloc(mem, SM_MEM_MISC, (size_t)steps * sizeof *m->log_sigma);
    if (!m->log_sigma)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for %d noise levels", steps);
    for (int i = 0; i < steps; i++)
        m->log_sigma[i] = log(sigma_min) + (log(sigma_max) - log(sigma_min)) * i / (steps - 1);
    return SUMI_OK;
}

sumi_status sm_noise_flow(sm_noise *m, int steps, double shift, sm_err *e)
{
    *m = (sm_noise){.flow = true, .steps = steps, .shift = shift};
    if (steps < 2 || steps > MAX_STEPS)
        return sm_fail(e, SUMI_E_FORMAT, "a noise schedule of %d training steps; 2 to %d are possible", steps, MAX_STEPS);
    if (!(shift > 0 && shift < 1e6))
        return sm_fail(e, SUMI_E_FORMAT, "the flow's shift is %g; it must be positive", shift);
    return SUMI_OK;
}

void sm_noise_free(sm_noise *m)
{
    sm_free(m->log_sigma);
    m->log_sigma = NULL;
}

bool sm_beta_by_name(const char *name, sm_beta *out)
{
    static const char *const names[] = {"linear", "scaled_linear", "squaredcos_cap_v2"};
    for (size_t i = 0; i < SM_COUNT(names); i++)
        if (!strcmp(name, names[i])) {
            *out = (sm_beta)i;
            return true;
        }
    return false;
}

double sm_noise_sigma(const sm_noise *m, double t)
{
    if (m->flow) {
        double u = fmin(fmax(t / m->steps, 0), 1);
        return m->shift * u / (1 + (m->shift - 1) * u);
    }
    t = fmin(fmax(t, 0), m->steps - 1);
    int i = SM_MIN((int)t, m->steps - 2);
    double w = t - i;
    return exp((1 - w) * m->log_sigma[i] + w * m->log_sigma[i + 1]);
}

/* A flow model sees sigma itself, times T: the shift moves the levels that are visited, not what a level is called. */
double sm_noise_t(const sm_noise *m, double sigma)
{
    if (m->flow)
        return sigma * m->steps;
    double l = log(sigma);
    int lo = 0, hi = m->steps - 1; /* log_sigma[lo] <= l < log_sigma[hi], once inside the range */
    if (!(l > m->log_sigma[lo]))
        return 0;
    if (l >= m->log_sigma[hi])
        return hi;
    while (hi - lo > 1) {
        int mid = (lo + hi) / 2;
        if (m->log_sigma[mid] <= l)
            lo = mid;
        else
            hi = mid;
    }
    return lo + (l - m->log_sigma[lo]) / (m->log_sigma[hi] - m->log_sigma[lo]);
}

double sm_noise_max(const sm_noise *m) { return sm_noise_sigma(m, m->flow ? m->steps : m->steps - 1); }
double sm_noise_min(const sm_noise *m) { return sm_noise_sigma(m, m->flow ? 1 : 0); }

void sm_noise_mix(bool flow, double sigma, const float *x0, const float *noise, float *x, int64_t n)
{
    double a = flow ? 1 - sigma : 1;
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((x0 ? a * x0[i] : 0) + sigma * noise[i]);
}

/* ---- schedules --------------------------------------------------------------------------------------------------- */

/* i-th of n equal steps from a to b, both included; a alone for n = 1. */
static double linspace(double a, double b, int i, int n) { return n > 1 ? a + (b - a) * i / (n - 1) : a; }

/* For flow this is diffusers' FlowMatchEulerDiscreteScheduler, whose lower end is shifted twice. */
static sumi_status fill_normal(const sm_noise *m, int steps, double *s, sm_err *e)
{
    double top = sm_noise_t(m, sm_noise_max(m)), low = sm_noise_t(m, sm_noise_min(m));
    for (int i = 0; i < steps; i++)
        s[i] = sm_noise_sigma(m, linspace(top, low, i, steps));
    return SUMI_OK;
}

static sumi_status fill_sgm_uniform(const sm_noise *m, int steps, double *s, sm_err *e)
{
    double top = sm_noise_t(m, sm_noise_max(m)), low = sm_noise_t(m, sm_noise_min(m));
    for (int i = 0; i < steps; i++)
        s[i] = sm_noise_sigma(m, linspace(top, low, i, steps + 1));
    return SUMI_OK;
}

/* Every (T / steps)-th trained level, from the top. */
static sumi_status fill_simple(const sm_noise *m, int steps, double *s, sm_err *e)
{
    if (steps > m->steps)
        return sm_fail(e, SUMI_E_ARG, "schedule simple: %d steps, but the model has %d noise levels", steps, m->steps);
    for (int i = 0; i < steps; i++) {
        int back = (int)((int64_t)i * m->steps / steps);
        s[i] = sm_noise_sigma(m, (m->flow ? m->steps : m->steps - 1) - back);
    }
    return SUMI_OK;
}

/* Timesteps 1, 1 + T/steps, ...: DDIM's, as Stable Diffusion 1.x was first sampled ("leading" with offset 1 in diffusers). */
static sumi_status fill_ddim_uniform(const sm_noise *m, int steps, double *s, sm_err *e)
{
    if (steps >= m->steps)
        return sm_fail(e, SUMI_E_ARG, "schedule ddim_uniform: %d steps, but the model has %d noise levels", steps, m->steps);
    for (int i = 0; i < steps; i++)
        s[i] = sm_noise_sigma(m, 1 + (int64_t)(steps - 1 - i) * (m->steps / steps));
    return SUMI_OK;
}

static sumi_status fill_karras(const sm_noise *m, int steps, double *s, sm_err *e)
{
    const double rho = 7, top = sm_noise_max(m), low = sm_noise_min(m);
    for (int i = 0; i < steps; i++)
        s[i] = pow(linspace(pow(top, 1 / rho), pow(low, 1 / rho), i, steps), rho);
    s[0] = top; /* not pow(pow(top)): a flow's must not exceed 1 */
    return SUMI_OK;
}

static sumi_status fill_exponential(const sm_noise *m, int steps, double *s, sm_err *e)
{
    const double top = sm_noise_max(m), low = sm_noise_min(m);
    for (int i = 0; i < steps; i++)
        s[i] = exp(linspace(log(top), log(low), i, steps));
    s[0] = top;
    return SUMI_OK;
}

const sm_schedule sm_schedules[] = {
    {"normal", "Normal", "timesteps evenly spaced; what flow models are used with in diffusers", fill_normal},
    {"simple", "Simple", "every k-th trained noise level; the usual choice for flow models elsewhere", fill_simple},
    {"karras", "Karras", "more steps at low noise; good with DPM++ on Stable Diffusion 1.x and XL", fill_karras},
    {"exponential", "Exponential", "noise levels in a geometric series; smooth, few high-noise steps", fill_exponential},
    {"sgm_uniform", "SGM Uniform", "evenly spaced timesteps without the lowest; for Lightning and Turbo models",
     fill_sgm_uniform},
    {"ddim_uniform", "DDIM", "the timesteps DDIM was published with", fill_ddim_uniform},
};
const int sm_schedule_count = SM_COUNT(sm_schedules);

const sm_schedule *sm_schedule_find(const char *name)
{
    for (int i = 0; i < sm_schedule_count; i++)
        if (!strcasecmp(name, sm_schedules[i].name) || !strcasecmp(name, sm_schedules[i].a1111))
            return &sm_schedules[i];
    return NULL;
}

sumi_status sm_schedule_fill(const sm_schedule *s, const sm_noise *m, int steps, double *sigmas, sm_err *e)
{
    if (steps < 1 || steps > MAX_STEPS)
        return sm_fail(e, SUMI_E_ARG, "%d sampling steps; 1 to %d are possible", steps, MAX_STEPS);
    sumi_status st = s->fill(m, steps, sigmas, e);
    if (st != SUMI_OK)
        return st;
    sigmas[steps] = 0;
    for (int i = 0; i < steps; i++)
        if (!(sigmas[i] > sigmas[i + 1]) || !isfinite(sigmas[i]))
            return sm_fail(e, SUMI_E_ARG, "schedule %s with %d steps: the noise levels do not fall (%g, then %g)", s->name,
                           steps, sigmas[i], sigmas[i + 1]);
    return SUMI_OK;
}
