/* Noise levels of models (see schedule.h): tables of betas as diffusers and CompVis' latent-diffusion make them (Ho et al. 2020,
 * Rombach et al. 2022, Nichol & Dhariwal 2021), EDM's range (Karras et al. 2022), the flow's shift (Esser et al. 2024). */
#include <math.h>
#include <string.h>

#include "sample/schedule.h"

#define MAX_STEPS 100000

/* ---- betas ------------------------------------------------------------------------------------------------------- */

/* What is left of the picture's variance at time u of 0..1, for kinds that begin with it. */
static double left_at(sm_beta kind, double u)
{
    if (kind == SM_BETA_EXP)
        return exp(-12 * u);
    if (kind == SM_BETA_LAPLACE) {
        double half = u <= 0.5 ? -0.5 : 0.5, snr = exp(half * log(1 - 2 * fabs(0.5 - u) + 1e-6));
        return sqrt(snr / (1 + snr));
    }
    double c = cos((u + 0.008) / 1.008 * (M_PI / 2));
    return c * c;
}

static double even(double a, double b, double u) { return a + (b - a) * u; }

static double beta_at(sm_beta kind, int i, int steps, double b0, double b1)
{
    double u = (double)i / (steps - 1), r;
    switch (kind) {
    case SM_BETA_LINEAR: return even(b0, b1, u);
    case SM_BETA_SCALED_LINEAR: r = even(sqrt(b0), sqrt(b1), u); return r * r;
    case SM_BETA_SQRT: return sqrt(even(b0, b1, u));
    case SM_BETA_SIGMOID: return even(b0, b1, 1 / (1 + exp(-even(-6, 6, u))));
    default: return fmin(1 - left_at(kind, (i + 1.0) / steps) / left_at(kind, (double)i / steps), 0.999);
    }
}

/* Whether beta_start and beta_end mean something. */
static bool ranged(sm_beta kind) { return kind < SM_BETA_COSINE; }

void sm_beta_levels(sm_beta kind, int steps, double beta_start, double beta_end, double *log_sigma)
{
    double log_bar = 0; /* log of the product of 1 - beta: how much of the picture's variance is left */
    for (int i = 0; i < steps; i++) {
        log_bar += log1p(-beta_at(kind, i, steps, beta_start, beta_end));
        log_sigma[i] = 0.5 * (log(-expm1(log_bar)) - log_bar);
    }
}

bool sm_beta_by_name(const char *name, sm_beta *out)
{
    static const struct { const char *name; sm_beta kind;
    } names[] = {
        {"linear", SM_BETA_LINEAR},
        {"scaled_linear", SM_BETA_SCALED_LINEAR},
        {"sqrt", SM_BETA_SQRT},
        {"sigmoid", SM_BETA_SIGMOID},
        {"squaredcos_cap_v2", SM_BETA_COSINE},
        {"cosine", SM_BETA_COSINE},
        {"laplace", SM_BETA_LAPLACE},
        {"exp", SM_BETA_EXP},
    };
    for (size_t i = 0; i < SM_COUNT(names); i++)
        if (!strcmp(name, names[i].name)) {
            *out = names[i].kind;
            return true;
        }
    return false;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

/* A table of `steps` numbers to be filled. */
static sumi_status table(sm_noise *m, sm_mem *mem, int steps, sm_err *e)
{
    if (steps < 2 || steps > MAX_STEPS)
        return sm_fail(e, SUMI_E_FORMAT, "a noise schedule of %d training steps; 2 to %d are possible", steps, MAX_STEPS);
    m->log_sigma = sm_alloc(mem, SM_MEM_MISC, (size_t)steps * sizeof *m->log_sigma);
    return m->log_sigma ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "out of memory for %d noise levels", steps);
}

sumi_status sm_noise_vp(sm_noise *m, sm_mem *mem, sm_beta beta, int steps, double beta_start, double beta_end, sm_err *e)
{
    *m = (sm_noise){.steps = steps, .shift = 1};
    if (ranged(beta) && !(beta_start > 0 && beta_start <= beta_end && beta_end < 1))
        return sm_fail(e, SUMI_E_FORMAT, "beta_start %g and beta_end %g are no range inside (0, 1)", beta_start, beta_end);
    sumi_status st = table(m, mem, steps, e);
    if (st == SUMI_OK)
        sm_beta_levels(beta, steps, beta_start, beta_end, m->log_sigma);
    return st;
}

sumi_status sm_noise_betas(sm_noise *m, sm_mem *mem, const double *betas, int steps, sm_err *e)
{
    *m = (sm_noise){.steps = steps, .shift = 1};
    for (int i = 0; i < steps; i++)
        if (!(betas[i] > 0 && betas[i] < 1))
            return sm_fail(e, SUMI_E_FORMAT, "trained_betas: number %d is %g; all must be inside (0, 1)", i, betas[i]);
    sumi_status st = table(m, mem, steps, e);
    double log_bar = 0;
    for (int i = 0; st == SUMI_OK && i < steps; i++) {
        log_bar += log1p(-betas[i]);
        m->log_sigma[i] = 0.5 * (log(-expm1(log_bar)) - log_bar);
    }
    return st;
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
    if (!(sigma_min > 0 && sigma_min < sigma_max && sigma_max < 1e6 && sigma_data > 0 && sigma_data < 1e6))
        return sm_fail(e, SUMI_E_FORMAT, "sigma_min %g, sigma_max %g, sigma_data %g: all must be positive, the range rising",
                       sigma_min, sigma_max, sigma_data);
    sumi_status st = table(m, mem, steps, e);
    for (int i = 0; st == SUMI_OK && i < steps; i++)
        m->log_sigma[i] = log(sigma_min) + (log(sigma_max) - log(sigma_min)) * i / (steps - 1);
    return st;
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

/* ---- asking ------------------------------------------------------------------------------------------------------ */

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

double sm_noise_level(const sm_noise *m, int i) { return sm_noise_sigma(m, m->flow ? i + 1 : i); }
double sm_noise_max(const sm_noise *m) { return sm_noise_level(m, m->steps - 1); }
double sm_noise_min(const sm_noise *m) { return sm_noise_level(m, 0); }

double sm_noise_alpha(const sm_noise *m, double sigma)
{
    double d = m->sigma_data > 0 ? m->sigma_data : 1;
    return m->flow ? 1 - sigma : d / sqrt(sigma * sigma + d * d);
}

double sm_noise_log_snr(const sm_noise *m, double sigma) { return 2 * (log(m->flow ? 1 - sigma : 1) - log(sigma)); }

void sm_noise_mix(bool flow, double sigma, const float *x0, const float *noise, float *x, int64_t n)
{
    double a = flow ? 1 - sigma : 1;
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((x0 ? a * x0[i] : 0) + sigma * noise[i]);
}
