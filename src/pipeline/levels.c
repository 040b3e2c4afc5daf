/* The noise levels of a request (see levels.h): parameters sigmas, sigma_min, sigma_max, rho, shift, zero_snr, beta_schedule,
 * discard_next_to_last_sigma, and the knobs of samplers. */
#include "pipeline/levels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

enum { MAX_LEVELS = 1001, MAX_FILE = 1 << 16 };

/* ---- lists ------------------------------------------------------------------------------------------------------- */

static void put_list(const double *v, int n, sm_buf *b)
{
    char text[40];
    for (int i = 0; i < n; i++) {
        for (int digits = 6; digits <= 17; digits++) {
            snprintf(text, sizeof text, "%.*g", digits, v[i]);
            if (strtod(text, NULL) == v[i])
                break;
        }
        sm_buf_fmt(b, "%s%s", i ? "," : "", text);
    }
}

sumi_status sm_levels_list(const char *given, int *steps, sm_mem *mem, char **text, sm_err *e)
{
    double v[MAX_LEVELS];
    sm_buf file = {.mem = mem}, out = {.mem = mem};
    const char *list = given;
    char what[128] = "--sigmas";
    *text = NULL;
    bool plain = !given[strspn(given, "0123456789.+-eE, \t\r\n;[]()")];
    if (!plain && (!strchr(given, ',') || !access(given, F_OK))) { /* no list, not even a wrong one, so a file's name */
        snprintf(what, sizeof what, "--sigmas: %.100s", given);
        list = sm_file_read(given, MAX_FILE, &file, e) ? NULL : file.data;
    }
    int n = list ? sm_sigmas_parse(list, v, MAX_LEVELS, what, e) : 0;
    sm_buf_free(&file);
    if (!n)
        return e->code;
    if (*steps && *steps != n - 1)
        return sm_fail(e, SUMI_E_ARG, "--sigmas: %d levels are %d steps, but --steps says %d; leave that out", n, n - 1, *steps);
    put_list(v, n, &out);
    if (out.oom)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for --sigmas");
    *steps = n - 1;
    *text = out.data;
    return SUMI_OK;
}

/* ---- checks ------------------------------------------------------------------------------------------------------ */

typedef enum kind { VP, EDM, FLOW } kind;

static kind kind_of(const sumi_model *m)
{
    return m->traits.sigma_data > 0 ? EDM : m->traits.beta_schedule[0] || m->trained_betas ? VP : FLOW;
}

static sumi_status check_knobs(const sumi_request *r, sm_err *e)
{
    const sm_sampler *s = sm_sampler_find(r->sampler);
    if (r->eta < 0 && r->eta != -1)
        return sm_fail(e, SUMI_E_ARG, "--eta: %g is below 0; -1 is the sampler's default", (double)r->eta);
    if (r->eta > 0 && !s->stochastic)
        return sm_fail(e, SUMI_E_ARG, "--eta: sampler %s draws no noise anew; euler_a, ddim and their kin do", s->name);
    if (r->s_noise != 1 && !s->stochastic && !s->churn)
        return sm_fail(e, SUMI_E_ARG, "--s-noise: sampler %s draws no noise anew", s->name);
    if ((r->s_churn != 0 || r->s_tmin != 0 || r->s_tmax != 0) && !s->churn)
        return sm_fail(e, SUMI_E_ARG, "--s-churn, --s-tmin, --s-tmax: sampler %s has no churn; euler, heun and dpm2 have",
                       s->name);
    if (r->s_tmax > 0 && r->s_tmax < r->s_tmin)
        return sm_fail(e, SUMI_E_ARG, "--s-tmax: %g is below --s-tmin %g", (double)r->s_tmax, (double)r->s_tmin);
    return SUMI_OK;
}

static sumi_status check_list(const sumi_request *r, sm_err *e)
{
    if (r->schedule[0])
        return sm_fail(e, SUMI_E_ARG,
                       "--sigmas: the list takes the place of --schedule %.40s; leave that out, or empty it with --schedule \"\"",
                       r->schedule);
    if (r->sigma_min != 0 || r->sigma_max != 0 || r->rho != 0)
        return sm_fail(e, SUMI_E_ARG, "--sigma-min, --sigma-max, --rho: not with --sigmas, which says every level");
    if (r->discard_next_to_last_sigma >= 0)
        return sm_fail(e, SUMI_E_ARG, "--discard-next-to-last-sigma: not with --sigmas, whose levels are taken as they are");
    return SUMI_OK;
}

sumi_status sm_levels_check(const sumi_request *r, const sumi_model *m, sm_err *e)
{
    static const char *const kinds[] = {"one of betas", "an EDM one", "a flow model"};
    kind k = kind_of(m);
    sm_beta beta;
    if (r->shift != 0 && k != FLOW)
        return sm_fail(e, SUMI_E_ARG, "--shift: %s is %s; only flow models have a shift", m->name, kinds[k]);
    if (r->zero_snr >= 0 && k != VP)
        return sm_fail(e, SUMI_E_ARG, "--zero-snr: %s is %s, not one of betas, which can be rescaled", m->name, kinds[k]);
    if (r->beta_schedule[0] && k != VP)
        return sm_fail(e, SUMI_E_ARG, "--beta-schedule: %s is %s, which has no betas", m->name, kinds[k]);
    if (r->beta_schedule[0] && !sm_beta_by_name(r->beta_schedule, &beta))
        return sm_fail(e, SUMI_E_ARG,
                       "--beta-schedule: '%.40s' is unknown; linear, scaled_linear, squaredcos_cap_v2 (cosine), sqrt, sigmoid, "
                       "laplace or exp",
                       r->beta_schedule);
    return r->sigmas[0] && check_list(r, e) ? e->code : check_knobs(r, e);
}

/* ---- levels ------------------------------------------------------------------------------------------------------ */

static sumi_status open_betas(sm_noise *out, const sumi_model *m, const sumi_request *r, int steps, sm_mem *mem, sm_err *e)
{
    const sm_traits *t = &m->traits;
    const char *name = r->beta_schedule[0] ? r->beta_schedule : t->beta_schedule;
    /* Of another schedule asked for, the range is the model's, where it has one, and diffusers' default else. */
    bool has = t->beta_start > 0 && t->beta_end > 0;
    sm_beta beta;
    if (m->trained_betas && !r->beta_schedule[0])
        return sm_noise_betas(out, mem, m->trained_betas, steps, e);
    if (!sm_beta_by_name(name, &beta))
        return sm_fail(e, SUMI_E_SUPPORT, "%s: the noise schedule '%s' (beta_schedule) is not there", m->name, name);
    return sm_noise_vp(out, mem, beta, steps, has ? t->beta_start : 1e-4, has ? t->beta_end : 0.02, e);
}

sumi_status sm_levels_open(sm_noise *out, const sumi_model *m, const sumi_request *r, sm_mem *mem, sm_err *e)
{
    const sm_traits *t = &m->traits;
    int steps = m->train_steps ? m->train_steps : 1000;
    *out = (sm_noise){0};
    if (kind_of(m) == FLOW)
        return sm_noise_flow(out, steps, r->shift > 0 ? r->shift : t->shift > 0 ? t->shift : 1, e);
    if (kind_of(m) == EDM)
        return sm_noise_edm(out, mem, 1000, t->sigma_min, t->sigma_max, t->sigma_data, e);
    if (!open_betas(out, m, r, steps, mem, e) && (r->zero_snr > 0 || (r->zero_snr < 0 && t->zero_snr)))
        sm_noise_zero_snr(out);
    return e->code;
}

sumi_status sm_levels_fill(const sm_noise *n, const sumi_model *m, const sumi_request *r, int steps, double *sigmas, int *count,
                           sm_err *e)
{
    if (!r->sigmas[0]) {
        bool drop = r->discard_next_to_last_sigma < 0 ? sm_sampler_find(r->sampler)->skip_last : r->discard_next_to_last_sigma;
        sm_schedule_opts o = {.steps = steps, .sigma_max = r->sigma_max, .sigma_min = r->sigma_min, .rho = r->rho,
                              .xl = m->traits.time_ids > 0, .drop_last = drop};
        return sm_schedule_make(sm_schedule_find(r->schedule), n, &o, sigmas, count, e);
    }
    double list[MAX_LEVELS];
    int levels = sm_sigmas_parse(r->sigmas, list, MAX_LEVELS, "--sigmas", e);
    if (!levels)
        return e->code;
    if (levels - 1 != steps)
        return sm_fail(e, SUMI_E_ARG, "--sigmas: %d levels are %d steps, but %d are wanted here (hires fix, exact steps)", levels,
                       levels - 1, steps);
    if (n->flow && list[0] > 1)
        return sm_fail(e, SUMI_E_ARG, "--sigmas: %g is above 1, where a flow model is noise alone", list[0]);
    memcpy(sigmas, list, sizeof *list * (size_t)levels);
    *count = levels - 1;
    return SUMI_OK;
}

void sm_levels_knobs(const sumi_request *r, sm_sampling *s)
{
    s->eta = r->eta;
    s->s_noise = r->s_noise > 0 ? r->s_noise : 1e-30; /* 0 would stand for 1; so little leaves every float as it is */
    s->s_churn = r->s_churn;
    s->s_tmin = r->s_tmin;
    s->s_tmax = r->s_tmax;
}

/* ---- families without a model ------------------------------------------------------------------------------------ */

/* Up to `most` numbers after colons; the number of them, -1 when it is anything else. */
static int numbers(const char *text, double *v, int most)
{
    int n = 0;
    while (*text == ':' && n < most) {
        char *end;
        v[n] = strtod(text + 1, &end);
        if (end == text + 1 || !isfinite(v[n++]))
            return -1;
        text = end;
    }
    return *text ? -1 : n;
}

static bool betas_of(const char *text, sm_traits *t)
{
    static const char *const names[] = {"scaled_linear", "linear",  "squaredcos_cap_v2", "cosine",
                                        "sqrt",          "sigmoid", "laplace",           "exp"};
    size_t n = strcspn(text, ":");
    double v[2] = {1e-4, 0.02};
    for (size_t i = 0; i < SM_COUNT(names); i++)
        if (strlen(names[i]) == n && !strncmp(text, names[i], n)) {
            int count = numbers(text + n, v, 2);
            t->beta_schedule = names[i];
            t->beta_start = v[0];
            t->beta_end = v[1];
            return count == 0 || count == 2;
        }
    return false;
}

sumi_status sm_levels_family(const char *name, sumi_model *out, sm_err *e)
{
    double v[2] = {0.002, 80};
    *out = (sumi_model){
        .traits = {.prediction = "epsilon", .beta_schedule = "", .sampler = "euler", .schedule = "normal", .steps = 20}};
    sm_traits *t = &out->traits;
    snprintf(out->name, sizeof out->name, "%.90s", name);
    bool xl = !strcmp(name, "sdxl"), ok = xl || !strcmp(name, "sd15");
    if (ok) {
        t->beta_schedule = "scaled_linear";
        t->beta_start = 0.00085;
        t->beta_end = 0.012;
        t->time_ids = xl ? 6 : 0;
    } else if (!strncmp(name, "vp:", 3)) {
        ok = betas_of(name + 3, t);
    } else if (!strncmp(name, "flow", 4)) {
        int n = numbers(name + 4, v, 1);
        ok = n >= 0;
        t->prediction = "flow_prediction";
        t->shift = n == 1 ? (float)v[0] : 1;
        ok = ok && t->shift > 0;
    } else if (!strncmp(name, "edm", 3)) {
        int n = numbers(name + 3, v, 2);
        ok = n == 0 || n == 2;
        t->prediction = "edm";
        t->sigma_min = v[0];
        t->sigma_max = v[1];
        t->sigma_data = 0.5;
    }
    if (!ok)
        return sm_fail(e, SUMI_E_ARG,
                       "--family: '%.60s' is none of sd15, sdxl, vp:BETA[:START:END] (vp:linear:0.0001:0.02), edm[:MIN:MAX], "
                       "flow[:SHIFT]",
                       name);
    return SUMI_OK;
}
