/* From a caller's request to a job: the model's defaults filled in, names and sizes checked, choices made. */
#include <string.h>
#include <time.h>

#include "pipeline/classify.h"
#include "pipeline/hires.h"
#include "pipeline/invert.h"
#include "pipeline/levels.h"
#include "pipeline/p2p.h"
#include "pipeline/params.h"
#include "pipeline/refine.h"
#include "pipeline/step_cache.h"
#include "text/choices.h"

/* Unguessable is not needed, different is. */
int64_t sm_random_seed(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)(((uint64_t)t.tv_nsec * 2654435761u ^ (uint64_t)t.tv_sec * 40503u) & 0xffffffffu);
}

static void fill_defaults(sumi_request *r, const sumi_model *m)
{
    r->seed = r->seed < 0 ? sm_random_seed() : r->seed;
    if (r->variation_strength <= 0)
        r->variation_seed = -1; /* nothing asks for it: the infotext is without */
    else if (r->variation_seed < 0)
        r->variation_seed = sm_random_seed() ^ 0x5bd1e995; /* another than the seed drawn in the same instant */
    r->steps = r->steps ? r->steps : m->traits.steps;
    r->cfg_scale = r->cfg_scale == SUMI_CFG_DEFAULT ? m->traits.cfg_scale : r->cfg_scale;
    r->width = r->width ? r->width : m->traits.width;
    r->height = r->height ? r->height : m->traits.height;
    r->sampler = r->sampler[0] ? r->sampler : m->traits.sampler;
    r->schedule = r->schedule[0] || r->sigmas[0] ? r->schedule : m->traits.schedule;
    sm_step_cache_fill(r);
}

static sumi_status check_sampler(const sumi_request *r, bool flow, sm_err *e)
{
    if (!sm_sampler_find(r->sampler))
        return sm_fail(e, SUMI_E_MODEL, "the model's default sampler '%.40s' is unknown; give --sampler", r->sampler);
    if (flow && !sm_sampler_find(r->sampler)->flow)
        return sm_fail(e, SUMI_E_ARG, "--sampler: %s does not work with flow models; see `sumi generate --help`", r->sampler);
    return SUMI_OK;
}

static sumi_status check_size(const sm_job *j, sm_err *e)
{
    const sumi_request *r = &j->r;
    int step = sm_vae_factor(&j->m->vae) * j->m->family->multiple(&j->m->denoiser);
    if (r->width % step || r->height % step)
        return sm_fail(e, SUMI_E_ARG, "--size: %dx%d, both sides must be multiples of %d for this model",
                       r->width, r->height, step);
    if ((int64_t)r->width * r->height > (int64_t)4096 * 4096)
        return sm_fail(e, SUMI_E_ARG, "--size: %dx%d is more than 16 million pixels", r->width, r->height);
    return SUMI_OK;
}

/* Variation and resizing are of the start's noise. */
static sumi_status check_seeds(const sumi_request *r, int f, sm_err *e)
{
    int w = r->seed_resize_width, h = r->seed_resize_height;
    if (!w != !h)
        return sm_fail(e, SUMI_E_ARG, "--seed-resize: %dx%d; both sides are needed", w, h);
    if (w && (w < f || h < f || (int64_t)w * h > (int64_t)4096 * 4096))
        return sm_fail(e, SUMI_E_ARG, "--seed-resize: %dx%d; sides of at least %d pixels, 16 million pixels in all", w, h, f);
    if (r->init_latents[0] && (w || r->variation_strength > 0))
        return sm_fail(e, SUMI_E_ARG, "--%s: not with --init-latents, which is the noise that would be changed",
                       w ? "seed-resize" : "variation-strength");
    return SUMI_OK;
}

/* Streams of the numbers that choices are drawn with. */
#define STREAM_PROMPT 0x70726f6d70740001u
#define STREAM_NEGATIVE 0x70726f6d70740002u

/* The text of each picture; NULL in *out where all have the same. */
static sumi_status choose(const sm_job *j, const char *text, uint64_t stream, sm_arena *a, const char *const **out, sm_err *e)
{
    const char **made = sm_choices_any(text, j->r.wildcards[0]) ? sm_arena_get(a, (size_t)j->r.count * sizeof *made) : NULL;
    if (!sm_choices_any(text, j->r.wildcards[0]))
        return SUMI_OK;
    for (int k = 0; made && k < j->r.count; k++)
        if (!(made[k] = sm_choices_make(text, j->r.wildcards, (uint64_t)sm_seed_of(&j->r, k), stream, a, e)))
            return e->code;
    *out = made;
    return made ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "out of memory for %d prompts", j->r.count);
}

sumi_status sm_job_choose(sm_job *j, sm_arena *a, sm_err *e)
{
    if (!j->r.choices || choose(j, j->r.prompt, STREAM_PROMPT, a, &j->prompts, e) ||
        choose(j, j->r.edit_from_prompt, STREAM_PROMPT, a, &j->sources, e)) /* the same words in the same places */
        return e->code;
    if (!choose(j, j->r.negative_prompt, STREAM_NEGATIVE, a, &j->negatives, e) && j->negatives && j->r.count > 1 &&
        (j->r.save_latents[0] || j->r.init_latents[0] || j->r.save_inverted[0]))
        return sm_fail(e, SUMI_E_ARG,
                       "--%s: not for several pictures with choices in the negative prompt; --choices 0 makes them text",
                       j->r.save_latents[0] ? "save-latents" : j->r.init_latents[0] ? "init-latents" : "save-inverted");
    return e->code;
}

/* Edges that meet. */
static sumi_status fill_circular(sm_job *j, sm_err *e)
{
    const char *t = j->r.tile;
    bool both = !strcmp(t, "both");
    j->circular[0] = both || !strcmp(t, "y");
    j->circular[1] = both || !strcmp(t, "x");
    if (t[0] && !j->circular[0] && !j->circular[1])
        return sm_fail(e, SUMI_E_ARG, "--tile: '%.40s' is unknown; x, y or both", t);
    if (t[0] && j->m->family->kind != SM_MODEL_UNET)
        return sm_fail(e, SUMI_E_SUPPORT, "--tile: %s has no convolutions whose edges could meet", j->m->name);
    return SUMI_OK;
}

/* Defaults, pictures, sizes. */
static sumi_status complete(sm_job *j, sm_err *e)
{
    bool flow = !strcmp(j->m->traits.prediction, "flow_prediction");
    int step = sm_vae_factor(&j->m->vae) * j->m->family->multiple(&j->m->denoiser);
    if (sm_edit_open(j, e))
        return e->code;
    if (j->r.sigmas[0] && sm_levels_list(j->r.sigmas, &j->r.steps, j->mem, &j->sigmas, e))
        return e->code;
    j->r.sigmas = j->sigmas ? j->sigmas : "";
    fill_defaults(&j->r, j->m);
    if (check_sampler(&j->r, flow, e) || sm_levels_check(&j->r, j->m, e) || check_size(j, e) ||
        check_seeds(&j->r, sm_vae_factor(&j->m->vae), e) || fill_circular(j, e) || sm_edit_prepare(j, e) ||
        sm_inversion_check(j, e) || sm_refine_load(j, e) || sm_p2p_check(j, e) || sm_classify_load(j, e))
        return e->code;
    return sm_hires_open(j, step, e);
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
    sm_request_spell(&j->r);
    j->compute = strcmp(j->r.compute, "bf16") ? j->be : sm_cpu_bf16(j->be, e);
    if (!j->compute)
        return e->code;
    if (complete(j, e))
        sm_job_done(j);
    return e->code;
}
