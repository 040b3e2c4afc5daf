/* The configuration of a whole model as JSON, read and written: what a single-file model carries in its metadata. */
#include "pipeline/model.h"

#include <stdio.h>
#include <string.h>

#include "io/json.h"
#include "sample/sampler.h"
#include "sample/schedule.h"

/* The component's object as text, or a failure that names it. */
static sumi_status component(const cJSON *j, const char *name, sm_model_kind kind, void *config, const char *what, sm_err *e)
{
    const cJSON *c = cJSON_GetObjectItemCaseSensitive(j, name);
    if (!cJSON_IsObject(c))
        return sm_fail(e, SUMI_E_MODEL, "%s: the configuration has no \"%s\"", what, name);
    char *text = cJSON_PrintUnformatted(c);
    if (!text)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory reading the configuration of %s", what);
    sm_err inner = {0};
    sumi_status st = sm_config_read(kind, text, strlen(text), config, &inner);
    cJSON_free(text);
    return st ? sm_fail(e, st, "%s: %s: %s", what, name, inner.msg) : SUMI_OK;
}

static sumi_status texts_fit(const sm_denoiser *f, const sm_denoiser_config *d, const sm_traits *t, const char *what, sm_err *e)
{
    int width = 0;
    for (int i = 0; i < t->texts; i++) {
        const sm_clip_config *c = &t->text[i].clip;
        if (c->max_position_embeddings < 2 || c->max_position_embeddings > 4096 || c->hidden_size < 1 || c->hidden_size > 65536)
            return sm_fail(e, SUMI_E_MODEL, "%s: %s: max_position_embeddings %d, hidden_size %d are out of range",
                           what, t->text[i].component, c->max_position_embeddings, c->hidden_size);
        if (c->max_position_embeddings != t->text[0].clip.max_position_embeddings)
            return sm_fail(e, SUMI_E_MODEL, "%s: the text encoders take %d and %d tokens", what,
                           t->text[0].clip.max_position_embeddings, c->max_position_embeddings);
        width += c->hidden_size;
    }
    if (f->context_width(d) != width)
        return sm_fail(e, SUMI_E_MODEL, "%s: the %s takes text of width %d, the text encoder%s hidden_size is %d%s", what,
                       f->component, f->context_width(d), t->texts > 1 ? "s'" : "'s", width, t->texts > 1 ? " together" : "");
    return SUMI_OK;
}

sumi_status sm_components_fit(const sm_denoiser *f, const sm_denoiser_config *d, const sm_traits *t, const sm_vae_config *vae,
                              const char *what, sm_err *e)
{
    if (vae->in_channels != 3 || vae->out_channels != 3)
        return sm_fail(e, SUMI_E_MODEL, "%s: vae: in_channels %d, out_channels %d; pictures have 3", what,
                       vae->in_channels, vae->out_channels);
    if (vae->latent_channels < 1 || vae->latent_channels > 1024 || vae->scaling_factor == 0)
        return sm_fail(e, SUMI_E_MODEL, "%s: vae: latent_channels %d, scaling_factor %g are out of range", what,
                       vae->latent_channels, (double)vae->scaling_factor);
    if (f->latent_channels(d) != vae->latent_channels)
        return sm_fail(e, SUMI_E_MODEL, "%s: the %s makes %d latent channels, the vae has %d", what, f->component,
                       f->latent_channels(d), vae->latent_channels);
    int multiple = f->multiple(d), pooled = f->pooled_width(d);
    if (multiple < 1 || multiple > 4096 || pooled < 0 || pooled > 65536)
        return sm_fail(e, SUMI_E_MODEL, "%s: the %s's patch_size or pooled_projection_dim is out of range", what, f->component);
    return texts_fit(f, d, t, what, e);
}

/* A number of "defaults" in lo..hi, or def where there is none. */
static double number(const cJSON *d, const char *name, double def, double lo, double hi, const char *what, sm_err *e)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(d, name);
    if (!x)
        return def;
    if (!cJSON_IsNumber(x) || !(x->valuedouble >= lo && x->valuedouble <= hi))
        sm_fail(e, SUMI_E_FORMAT, "%s: defaults: %s must be a number from %g to %g", what, name, lo, hi);
    return e->code ? def : x->valuedouble;
}

/* Texts go into logs and into pictures' metadata, which are read by lines: a control character becomes a space. */
static void text(const cJSON *d, const char *name, const char *def, char *out, size_t size)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(d, name);
    snprintf(out, size, "%s", cJSON_IsString(x) ? x->valuestring : def);
    for (char *p = out; *p; p++)
        *p = (unsigned char)*p < 0x20 || *p == 0x7f ? ' ' : *p;
    while (*out && !sm_utf8_valid(out, strlen(out))) /* cut inside a character */
        out[strlen(out) - 1] = 0;
}

/* Names of samplers and schedules are those of the tables, so that they live as long as the program. */
static sumi_status read_names(sumi_model *m, const cJSON *d, const char *what, sm_err *e)
{
    char sampler[48], schedule[48];
    text(d, "sampler", "euler", sampler, sizeof sampler);
    text(d, "schedule", "simple", schedule, sizeof schedule);
    if (!sm_sampler_find(sampler) || !sm_schedule_find(schedule))
        return sm_fail(e, SUMI_E_SUPPORT, "%s: defaults: sampler '%s' with schedule '%s' is not there", what, sampler, schedule);
    m->traits.sampler = sm_sampler_find(sampler)->name;
    m->traits.schedule = sm_schedule_find(schedule)->name;
    return SUMI_OK;
}

static sumi_status read_defaults(sumi_model *m, const cJSON *d, const sm_clip_config *clip, const char *what, sm_err *e)
{
    m->traits = sm_traits_flow(clip, (float)number(d, "shift", 1, 0.001, 1000, what, e));
    m->traits.steps = (int)number(d, "steps", 20, 1, 1000, what, e);
    m->traits.width = (int)number(d, "width", 128, 1, 8192, what, e);
    m->traits.height = (int)number(d, "height", 128, 1, 8192, what, e);
    m->traits.cfg_scale = (float)number(d, "cfg_scale", 3, 0, 1000, what, e);
    return e->code ? e->code : read_names(m, d, what, e);
}

static sumi_status configure(sumi_model *m, const cJSON *j, const char *what, sm_err *e)
{
    sm_clip_config clip;
    for (int i = 0; i < sm_denoiser_count && !m->family; i++)
        if (cJSON_GetObjectItemCaseSensitive(j, sm_denoisers[i].component))
            m->family = &sm_denoisers[i];
    if (!m->family)
        return sm_fail(e, SUMI_E_MODEL, "%s: the configuration names no denoiser (unet or transformer)", what);
    if (component(j, m->family->component, m->family->kind, &m->denoiser, what, e) ||
        component(j, "text_encoder", SM_MODEL_CLIP, &clip, what, e) || component(j, "vae", SM_MODEL_VAE, &m->vae, what, e) ||
        read_defaults(m, cJSON_GetObjectItemCaseSensitive(j, "defaults"), &clip, what, e))
        return e->code;
    text(j, "name", "model", m->name, sizeof m->name);
    sm_denoiser_settle(m->family, &m->denoiser, &clip);
    return sm_components_fit(m->family, &m->denoiser, &m->traits, &m->vae, what, e);
}

sumi_status sm_model_configure(sumi_model *m, const char *json, const char *what, sm_err *e)
{
    char label[256];
    snprintf(label, sizeof label, "%.200s: the configuration", what);
    cJSON *j = sm_json_parse(m->mem, json, strlen(json), 16, 1 << 16, label, e);
    if (cJSON_IsObject(j))
        configure(m, j, what, e);
    else
        sm_fail(e, SUMI_E_FORMAT, "%s is no JSON object", label);
    cJSON_Delete(j);
    return e->code;
}

void sm_model_describe(const sumi_model *m, sm_buf *b)
{
    sm_buf_fmt(b, "{\"name\":");
    sm_json_put_text(b, m->name);
    sm_buf_fmt(b, ",\"%s\":", m->family->component);
    sm_config_write(m->family->kind, &m->denoiser, b);
    sm_buf_fmt(b, ",\"text_encoder\":");
    sm_config_write(SM_MODEL_CLIP, &m->traits.text[0].clip, b);
    sm_buf_fmt(b, ",\"vae\":");
    sm_config_write(SM_MODEL_VAE, &m->vae, b);
    sm_buf_fmt(b, ",\"defaults\":{\"steps\":%d,\"width\":%d,\"height\":%d,\"cfg_scale\":%.6g,\"shift\":%.6g,\"sampler\":",
               m->traits.steps, m->traits.width, m->traits.height, (double)m->traits.cfg_scale, (double)m->traits.shift);
    sm_json_put_text(b, m->traits.sampler);
    sm_buf_fmt(b, ",\"schedule\":");
    sm_json_put_text(b, m->traits.schedule);
    sm_buf_fmt(b, "}}");
}
