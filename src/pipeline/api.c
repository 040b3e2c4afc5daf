/* The public calls around models, requests and pictures. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/image.h"
#include "pipeline/generate.h"
#include "pipeline/images.h"
#include "pipeline/merging.h"
#include "pipeline/model.h"
#include "pipeline/params.h"
#include "pipeline/randn.h"
#include "pipeline/span.h"
#include "pipeline/tiny.h"
#include "sample/sampler.h"
#include "sample/schedule.h"

struct sumi_images {
    size_t count;
    sumi_image at[];
};

sumi_status sumi_model_load(sumi_context *ctx, const char *path, sumi_model **out)
{
    return sumi_model_load_with(ctx, &(sumi_model_options){.path = path}, out);
}

sumi_status sumi_model_load_with(sumi_context *ctx, const sumi_model_options *o, sumi_model **out)
{
    return sm_model_open(out, &ctx->mem, o, true, sm_begin(ctx));
}

const char *sumi_model_summary(const sumi_model *m) { return m->summary; }

sumi_images *sm_images_new(sm_mem *mem, size_t n)
{
    sumi_images *im = sm_alloc0(mem, SM_MEM_DATA, sizeof *im + n * sizeof im->at[0]);
    if (im)
        im->count = n;
    return im;
}

void sumi_images_free(sumi_images *im)
{
    for (size_t i = 0; im && i < im->count; i++) {
        sm_free(im->at[i].pixels);
        sm_free(im->at[i].infotext);
    }
    sm_free(im);
}

sumi_image *sm_images_put(sumi_images *im, size_t i) { return &im->at[i]; }
void sm_images_release(sumi_images *im) { sm_free(im); }

size_t sumi_images_count(const sumi_images *im) { return im ? im->count : 0; }
const sumi_image *sumi_images_at(const sumi_images *im, size_t i) { return im && i < im->count ? &im->at[i] : NULL; }

/* Cuts the request's pixels into pictures of their own, each with its infotext. */
static sumi_images *to_images(const sm_job *j, const uint8_t *rgb, sm_mem *mem)
{
    size_t bytes = (size_t)j->out_width * (size_t)j->out_height * 3;
    sumi_images *im = sm_images_new(mem, (size_t)j->r.count);
    for (int k = 0; im && k < j->r.count; k++) {
        sm_buf text = {.mem = mem};
        sm_job_infotext(j, k, &text);
        im->at[k] = (sumi_image){j->out_width, j->out_height, 3, sm_alloc(mem, SM_MEM_DATA, bytes),
                                 sm_seed_of(&j->r, k), text.data};
        if (!im->at[k].pixels || text.oom) {
            sumi_images_free(im);
            return NULL;
        }
        memcpy(im->at[k].pixels, rgb + (size_t)k * bytes, bytes);
    }
    return im;
}

/* Pictures with negative prompts of their own, one by one. */
static sumi_status run_each(sm_job *j, uint8_t *rgb, size_t bytes, sm_err *e)
{
    sm_span span;
    sumi_callbacks cb = sm_span_start(&span, j->cb, "sample", (double)j->r.steps * j->r.count);
    for (int k = 0; k < j->r.count && !e->code; k++) {
        sm_job one = *j;
        one.cb = &cb;
        one.r.count = 1;
        one.r.seed = sm_seed_of(&j->r, k);
        one.r.variation_seed = sm_subseed_of(&j->r, k);
        one.prompts = j->prompts ? j->prompts + k : NULL;
        one.sources = j->sources ? j->sources + k : NULL;
        one.r.negative_prompt = j->negatives[k];
        sm_span_next(&span, j->r.steps);
        sm_job_run(&one, rgb + (size_t)k * bytes, e);
    }
    return e->code;
}

static sumi_status run_job(sm_job *j, sm_mem *mem, sumi_images **out, sm_err *e)
{
    size_t bytes = (size_t)j->out_width * (size_t)j->out_height * 3;
    sm_arena texts;
    sm_arena_init(&texts, mem, SM_MEM_DATA);
    uint8_t *rgb = sm_alloc(mem, SM_MEM_DATA, (size_t)j->r.count * bytes);
    if (!rgb)
        sm_fail(e, SUMI_E_MEMORY, "out of memory for %d pictures of %dx%d", j->r.count, j->out_width, j->out_height);
    if (!e->code && !sm_job_choose(j, &texts, e) && !(j->negatives ? run_each(j, rgb, bytes, e) : sm_job_run(j, rgb, e)) &&
        !(*out = to_images(j, rgb, mem)))
        sm_fail(e, SUMI_E_MEMORY, "out of memory for %d pictures of %dx%d", j->r.count, j->out_width, j->out_height);
    sm_free(rgb);
    sm_arena_free(&texts);
    return e->code;
}

/* False: memory is out. */
static bool tell_idle(const sm_job *j, const sumi_request *r, sm_err *e)
{
    sm_buf line = {.mem = j->mem};
    sm_request_idle(r, j->m->traits.extra == SM_EXTRA_INPAINT, &line);
    sm_merging_idle(j, &line);
    sm_tiny_idle(j, &line);
    if (line.len && !line.oom && j->cb && j->cb->progress)
        j->cb->progress(j->cb->user, &(sumi_progress){.stage = "encode", .eta = -1, .message = line.data});
    bool ok = !line.oom || !sm_fail(e, SUMI_E_MEMORY, "out of memory for a request");
    sm_buf_free(&line);
    return ok;
}

sumi_status sumi_generate(sumi_context *ctx, sumi_model *m, const sumi_request *r, const sumi_callbacks *cb, sumi_images **out)
{
    sm_err *e = sm_begin(ctx);
    sm_job j;
    *out = NULL;
    if (sm_job_init(&j, m, ctx, r, e))
        return e->code;
    j.cb = cb;
    if (tell_idle(&j, r, e))
        run_job(&j, &ctx->mem, out, e);
    sm_job_done(&j);
    return e->code;
}

sumi_status sumi_plan_request(sumi_context *ctx, sumi_model *m, const sumi_request *r, sumi_plan_info *out)
{
    sm_err *e = sm_begin(ctx);
    sm_job j;
    if (sm_job_init(&j, m, ctx, r, e))
        return e->code;
    sm_job_plan(&j, out, e);
    sm_job_done(&j);
    return e->code;
}

const char *sumi_sampler_name(size_t i, const char **advice)
{
    if (i >= (size_t)sm_sampler_count)
        return NULL;
    if (advice)
        *advice = sm_samplers[i].advice;
    return sm_samplers[i].name;
}

const char *sumi_schedule_name(size_t i, const char **advice)
{
    if (i >= (size_t)sm_schedule_count)
        return NULL;
    if (advice)
        *advice = sm_schedules[i].advice;
    return sm_schedules[i].name;
}

sumi_status sumi_image_save(sumi_context *ctx, const sumi_image *im, const char *path)
{
    if (!im || !im->pixels || !path)
        return sm_fail(sm_begin(ctx), SUMI_E_ARG, "there is no picture to save, or no path");
    sm_image_text text = {"parameters", im->infotext};
    sm_image x = {.width = im->width, .height = im->height, .channels = im->channels, .pixels = im->pixels};
    return sm_image_save(&x, path, im->infotext && im->infotext[0] ? &text : NULL, &ctx->mem, sm_begin(ctx));
}

sumi_status sumi_image_load(sumi_context *ctx, const char *path, sumi_images **out)
{
    sm_err *e = sm_begin(ctx);
    sm_image im;
    *out = NULL;
    if (sm_image_load(&im, path, &ctx->mem, e))
        return e->code;
    size_t bytes = (size_t)im.width * (size_t)im.height * (size_t)im.channels;
    const char *text = sm_image_text_find(&im, "parameters");
    sumi_images *o = sm_images_new(&ctx->mem, 1);
    sm_buf b = {.mem = &ctx->mem};
    sm_buf_fmt(&b, "%s", text ? text : "");
    if (o) {
        o->at[0] = (sumi_image){im.width, im.height, im.channels, sm_alloc(&ctx->mem, SM_MEM_DATA, bytes), -1, b.data};
        if (o->at[0].pixels)
            memcpy(o->at[0].pixels, im.pixels, bytes);
    }
    sm_image_free(&im);
    if (o && o->at[0].pixels && !b.oom) {
        *out = o;
        return SUMI_OK;
    }
    sumi_images_free(o);
    if (!o)
        sm_buf_free(&b);
    return sm_fail(e, SUMI_E_MEMORY, "out of memory for %s", path);
}
