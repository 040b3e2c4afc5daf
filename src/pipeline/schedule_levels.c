/* The public call that tells the noise levels of a request, for people who want to see them and programs that compare. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "pipeline/levels.h"
#include "pipeline/params.h"

/* What the caller gets is the first member. */
typedef struct told {
    sumi_levels out;
    char model[96];
    sumi_level at[];
} told;

/* Defaults as drawing fills them, without pictures and texts. *list is r->sigmas' memory. */
static sumi_status complete(sumi_request *r, const sumi_model *m, sm_mem *mem, char **list, sm_err *e)
{
    if (sm_request_check(r, e) || (r->sigmas[0] && sm_levels_list(r->sigmas, &r->steps, mem, list, e)))
        return e->code;
    if (*list)
        r->sigmas = *list;
    r->steps = r->steps ? r->steps : m->traits.steps;
    r->sampler = r->sampler[0] ? r->sampler : m->traits.sampler;
    r->schedule = r->schedule[0] || r->sigmas[0] ? r->schedule : m->traits.schedule;
    if (!sm_sampler_find(r->sampler) || (!r->sigmas[0] && !sm_schedule_find(r->schedule)))
        return sm_fail(e, SUMI_E_ARG, "sampler '%.40s' or schedule '%.40s' is unknown; see `sumi generate --help`", r->sampler,
                       r->schedule);
    return sm_levels_check(r, m, e);
}

static sumi_level level_of(const sm_noise *n, double sigma)
{
    double t = sigma > 0 ? n->sigma_data > 0 ? log(sigma) / 4 : sm_noise_t(n, sigma) : -1;
    return (sumi_level){.sigma = sigma, .timestep = t, .alpha = sm_noise_alpha(n, sigma), .log_snr = sm_noise_log_snr(n, sigma)};
}

static told *tell(const sm_noise *n, const sumi_model *m, const sumi_request *r, sm_mem *mem, sm_err *e)
{
    int steps = 0;
    const sm_schedule *s = r->sigmas[0] ? NULL : sm_schedule_find(r->schedule);
    double *sigmas = sm_alloc(mem, SM_MEM_MISC, sizeof *sigmas * ((size_t)r->steps + 2));
    told *t = sigmas ? sm_alloc0(mem, SM_MEM_MISC, sizeof *t + sizeof t->at[0] * ((size_t)r->steps + 2)) : NULL;
    if (!t) {
        sm_fail(e, SUMI_E_MEMORY, "out of memory for %d noise levels", r->steps);
    } else if (!sm_levels_fill(n, m, r, r->steps, sigmas, &steps, e)) {
        snprintf(t->model, sizeof t->model, "%s", m->name);
        t->out = (sumi_levels){.model = t->model, .schedule = s ? s->name : "list", .source = s ? s->source : "--sigmas",
                               .kind = n->flow ? "flow" : n->sigma_data > 0 ? "edm" : "vp", .sigma_min = sm_noise_min(n),
                               .sigma_max = sm_noise_max(n), .count = (size_t)steps + 1, .at = t->at};
        for (int i = 0; i <= steps; i++)
            t->at[i] = level_of(n, sigmas[i]);
    }
    sm_free(sigmas);
    if (e->code) {
        sm_free(t);
        t = NULL;
    }
    return t;
}

sumi_status sumi_schedule_levels(sumi_context *ctx, const sumi_model *model, const char *family, const sumi_request *r,
                                 sumi_levels **out)
{
    sm_err *e = sm_begin(ctx);
    sumi_model bare;
    sumi_request q = *r;
    char *list = NULL;
    sm_noise n = {0};
    *out = NULL;
    if (!model == !family)
        return sm_fail(e, SUMI_E_ARG, "noise levels are those of a model or of a family: give one of them");
    if (family && sm_levels_family(family, &bare, e))
        return e->code;
    const sumi_model *m = family ? &bare : model;
    if (!complete(&q, m, &ctx->mem, &list, e) && !sm_levels_open(&n, m, &q, &ctx->mem, e)) {
        told *t = tell(&n, m, &q, &ctx->mem, e);
        *out = t ? &t->out : NULL;
    }
    sm_noise_free(&n);
    sm_free(list);
    return e->code;
}

void sumi_levels_free(sumi_levels *l) { sm_free(l); }
