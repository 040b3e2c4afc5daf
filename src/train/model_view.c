/* The model that a training run has so far, as the pipeline sees it: for validation sheets and for the exported file. */
#include <stdio.h>
#include <string.h>

#include "io/image.h"
#include "io/safetensors.h"
#include "pipeline/generate.h"
#include "pipeline/sheet.h"
#include "train/model_view.h"

static void copy_config(const sm_trainer *t, sumi_model *m)
{
    *m = (sumi_model){.mem = t->mem, .bpe = t->bpe, .traits = sm_traits_flow(&t->clip, 1), .vae = t->vae,
                        .family = t->family, .denoiser = t->denoiser};
    m->vae.scaling_factor = t->scale;
    m->vae.shift_factor = t->shift;
    m->traits.steps = t->cfg.validate.steps;
    m->traits.width = m->traits.height = t->cfg.data.size;
    m->traits.cfg_scale = t->cfg.validate.cfg;
    m->traits.sampler = "euler";
    m->traits.schedule = "simple";
    snprintf(m->name, sizeof m->name, "%s", t->cfg.name);
}

static sumi_status add_all(sm_weights *to, const sm_weights *from, sm_err *e)
{
    for (size_t i = 0; i < sm_weights_count(from) && !e->code; i++) {
        const sm_weight *w = sm_weights_at(from, i);
        if (!sm_weights_find(to, w->name))
            sm_weights_add(to, w->name, &w->t, e);
    }
    return e->code;
}

sm_weights *sm_view_weights(const sm_trainer *t, const sm_train_state *st, sm_err *e)
{
    sm_weights *to = sm_weights_new(t->mem, e);
    for (int i = 0; to && st && i < st->count && !e->code; i++) {
        sm_tensor x = st->t[i].w->t;
        if (st->t[i].ema)
            x.data = st->t[i].ema;
        sm_weights_add(to, st->t[i].w->name, &x, e);
    }
    if (!e->code && !add_all(to, t->vae_weights, e))
        add_all(to, t->flow_weights, e);
    if (e->code)
        sm_weights_unref(&to);
    return to;
}

static sumi_status draw_sheet(sm_trainer *t, const sumi_model *m, int64_t step, sm_err *e)
{
    int n = t->cfg.validate.nprompts, size = t->cfg.data.size, w, h;
    sumi_context ctx = {.pool = t->pool, .be = t->be};
    sumi_callbacks quiet = {.cancel = t->cb ? t->cb->cancel : NULL};
    sumi_request r = sumi_request_default();
    sm_job j;
    char path[512], name[64];
    r.prompt = t->cfg.validate.prompts[0];
    r.emphasis = "diffusers"; /* as captions are learnt */
    r.seed = 1;
    r.count = n;
    uint8_t *rgb = sm_alloc(t->mem, SM_MEM_DATA, (size_t)n * (size_t)size * (size_t)size * 3), *sheet = NULL;
    if (!rgb)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for a validation sheet");
    if (!sm_job_init(&j, m, &ctx, &r, e)) {
        j.prompts = t->cfg.validate.prompts;
        j.cb = &quiet;
        j.mem = t->mem;
        if (!sm_job_run(&j, rgb, e) && !sm_sheet_make(rgb, n, size, size, 8, t->mem, &sheet, &w, &h, e)) {
            snprintf(name, sizeof name, "validate-%07lld.png", (long long)step);
            sm_image_save(&(sm_image){.width = w, .height = h, .channels = 3, .pixels = sheet}, sm_out_path(t, name, path), NULL,
                          t->mem, e);
        }
    }
    sm_free(sheet);
    sm_free(rgb);
    return e->code;
}

sumi_status sm_flow_validate(sm_stage *s, sm_trainer *t, const sm_train_state *st, int64_t step, sm_err *e)
{
    sumi_model m;
    if (!t->cfg.validate.nprompts)
        return SUMI_OK;
    copy_config(t, &m);
    m.w = sm_view_weights(t, st, e);
    if (m.w)
        draw_sheet(t, &m, step, e);
    sm_weights_unref(&m.w);
    return e->code;
}

sumi_status sm_stage_export(sm_trainer *t, bool *done, sm_err *e)
{
    sumi_model m;
    char path[512], name[128];
    copy_config(t, &m);
    sm_buf config = {.mem = t->mem};
    sm_model_describe(&m, &config);
    m.w = sm_view_weights(t, NULL, e);
    if (config.oom)
        sm_fail(e, SUMI_E_MEMORY, "out of memory for the model file");
    if (!e->code) {
        sm_st_meta meta[] = {{"sumi.model", config.data}, {"merges", t->merges}, {"format", "pt"}};
        snprintf(name, sizeof name, "%.100s.safetensors", t->cfg.name);
        sm_st_write_weights(sm_out_path(t, name, path), m.w, SM_F16, SM_COUNT(meta), meta, t->mem, e);
    }
    sm_weights_unref(&m.w);
    sm_buf_free(&config);
    *done = !e->code;
    return e->code;
}
