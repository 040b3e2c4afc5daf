/* From a caller's request to a job: the model's defaults filled in, names and sizes checked; and its infotext. */
#include <string.h>
#include <time.h>

#include "io/json.h"
#include "pipeline/generate.h"
#include "pipeline/params.h"
#include "pipeline/randn.h"
#include "sample/sampler.h"
#include "sample/schedule.h"

/* Unguessable is not needed, different is. */
static int64_t random_seed(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)(((uint64_t)t.tv_nsec * 2654435761u ^ (uint64_t)t.tv_sec * 40503u) & 0xffffffffu);
}

static void fill_defaults(sumi_request *r, const sumi_model *m)
{
    r->seed = r->seed < 0 ? random_seed() : r->seed;
    r->steps = r->steps ? r->steps : m->traits.steps;
    r->cfg_scale = r->cfg_scale < 0 ? m->traits.cfg_scale : r->cfg_scale;
    r->width = r->width ? r->width : m->traits.width;
    r->height = r->height ? r->height : m->traits.height;
    r->sampler = r->sampler[0] ? r->sampler : m->traits.sampler;
    r->schedule = r->schedule[0] ? r->schedule : m->traits.schedule;
}

static sumi_status check_names(const sumi_request *r, bool flow, sm_err *e)
{
    if (!sm_sampler_find(r->sampler))
        return sm_fail(e, SUMI_E_ARG, "--sampler: '%.40s' is unknown; see `sumi generate --help`", r->sampler);
    if (flow && !sm_sampler_find(r->sampler)->flow)
        return sm_fail(e, SUMI_E_ARG, "--sampler: %s does not work with flow models; see `sumi generate --help`", r->sampler);
    if (!sm_schedule_find(r->schedule))
        return sm_fail(e, SUMI_E_ARG, "--schedule: '%.40s' is unknown; see `sumi generate --help`", r->schedule);
    if (sm_randn_find(r->rng) == SM_RANDN_COUNT)
        return sm_fail(e, SUMI_E_ARG, "--rng: '%.40s' is unknown; sumi, torch or philox", r->rng);
    return SUMI_OK;
}

static sumi_status check_size(const sm_job *j, sm_err *e)
{
    const sumi_request *r = &j->r;
    int step = sm_vae_factor(&j->m->vae) * j->m->family->multiple(&j->m->denoiser);
    if (r->width % step || r->height % step)
        return sm_fail(e, SUMI_E_ARG, "--size: %dx%d, both sides must be multiples of %d for this model", r->width, r->height, step);
    if ((int64_t)r->width * r->height > (int64_t)4096 * 4096)
        return sm_fail(e, SUMI_E_ARG, "--size: %dx%d is more than 16 million pixels", r->width, r->height);
    return SUMI_OK;
}

sumi_status sm_job_init(sm_job *j, const sumi_model *m, sumi_context *ctx, const sumi_request *r, sm_err *e)
{
    *j = (sm_job){.m = m, .be = ctx->be, .pool = ctx->pool, .mem = &ctx->mem, .r = *r};
    if (!ctx->be || !ctx->pool)
        return sm_fail(e, SUMI_E_ARG, "the context could not be made and holds only its error");
    if (sm_request_check(r, e))
        return e->code;
    if (!r->prompt[strspn(r->prompt, " \t\r\n")])
        return sm_fail(e, SUMI_E_ARG, "the prompt is empty: say what to draw");
    fill_defaults(&j->r, m);
    return check_names(&j->r, !strcmp(m->traits.prediction, "flow_prediction"), e) ? e->code : check_size(j, e);
}

/* As A1111 quotes a value that its reader would take apart. */
static void put_value(const char *text, sm_buf *b)
{
    if (strpbrk(text, ",:\n"))
        sm_json_put_text(b, text);
    else
        sm_buf_fmt(b, "%s", text);
}

/* What XL was told of sizes and scores, where it is not the usual. */
static void put_sizes(const sumi_request *r, int time_ids, sm_buf *b)
{
    if (time_ids && (r->original_width || r->original_height))
        sm_buf_fmt(b, ", Original size: %dx%d", r->original_width ? r->original_width : r->width, r->original_height ? r->original_height : r->height);
    if (time_ids && (r->crop_left || r->crop_top))
        sm_buf_fmt(b, ", Crop: %d %d", r->crop_left, r->crop_top);
    if (time_ids == 6 && (r->target_width || r->target_height))
        sm_buf_fmt(b, ", Target size: %dx%d", r->target_width ? r->target_width : r->width, r->target_height ? r->target_height : r->height);
    if (time_ids == 5)
        sm_buf_fmt(b, ", Aesthetic score: %g, Negative aesthetic score: %g", (double)r->aesthetic_score, (double)r->negative_aesthetic_score);
}

void sm_job_infotext(const sm_job *j, int k, sm_buf *b)
{
    const sumi_request *r = &j->r;
    const char *rng = sm_randn_a1111(sm_randn_find(r->rng));
    sm_buf_fmt(b, "%s\n", j->prompts ? j->prompts[k] : r->prompt);
    if (r->negative_prompt[0])
        sm_buf_fmt(b, "Negative prompt: %s\n", r->negative_prompt);
    sm_buf_fmt(b, "Steps: %d, Sampler: %s, Schedule type: %s, CFG scale: %g, Seed: %lld, Size: %dx%d, Model: ",
               r->steps, sm_sampler_find(r->sampler)->a1111, sm_schedule_find(r->schedule)->a1111, (double)r->cfg_scale,
               (long long)(r->seed + k), r->width, r->height);
    put_value(j->m->name, b);
    if (r->clip_skip)
        sm_buf_fmt(b, ", Clip skip: %d", r->clip_skip);
    if (rng)
        sm_buf_fmt(b, ", RNG: %s", rng);
    if (r->prediction[0])
        sm_buf_fmt(b, ", Prediction type: %s", r->prediction);
    put_sizes(r, j->m->traits.time_ids, b);
    sm_buf_fmt(b, ", Version: sumi " SUMI_VERSION);
}
