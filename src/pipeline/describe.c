/* The configuration of a whole model as JSON, read and written: what a single-file model carries in its metadata. */
#include "pipeline/model.h"

#include <stdio.h>
#include <string.h>

#include "io/json.h"

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

sumi_status sm_components_fit(const sm_denoiser *f, const sm_denoiser_config *d, const sm_clip_config *clip, const sm_vae_config *vae,
                              const char *what, sm_err *e)
{
    if (vae->in_channels != 3 || vae->out_channels != 3)
        return sm_fail(e, SUMI_E_MODEL, "%s: vae: in_channels %d, out_channels %d; pictures have 3", what, vae->in_channels, vae->out_channels);
    if (vae->latent_channels < 1 || vae->latent_channels > 1024 || vae->scaling_factor == 0)
        return sm_fail(e, SUMI_E_MODEL, "%s: vae: latent_channels %d, scaling_factor %g are out of range", what,
                       vae->latent_channels, (double)vae->scaling_factor);
    if (clip->max_position_embeddings < 2 || clip->max_position_embeddings > 4096 || clip->hidden_size < 1 || clip->hidden_size > 65536)
        return sm_fail(e, SUMI_E_MODEL, "%s: text_encoder: max_position_embeddings %d, hidden_size %d are out of range", what,
                       clip->max_position_embeddings, clip->hidden_size);
    if (f->latent_channels(d) != vae->latent_channels)
        return sm_fail(e, SUMI_E_MODEL, "%s: the %s makes %d latent channels, the vae has %d", what, f->component,
                       f->latent_channels(d), vae->latent_channels);
    if (f->context_width(d) != clip->hidden_size)
        return sm_fail(e, SUMI_E_MODEL, "%s: the %s takes text of width %d, the text_encoder's hidden_size is %d", what, f->component,
                       f->context_width(d), clip->hidden_size);
    int multiple = f->multiple(d), pooled = f->pooled_width(d);
    if (multiple < 1 || multiple > 4096 || pooled < 0 || pooled > 65536)
        return sm_fail(e, SUMI_E_MODEL, "%s: the %s's patch_size or pooled_projection_dim is out of range", what, f->component);
    return SUMI_OK;
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

static sumi_status read_defaults(sumi_model *m, const cJSON *d, const char *what, sm_err *e)
{
    m->defaults.steps = (int)number(d, "steps", 20, 1, 1000, what, e);
    m->defaults.width = (int)number(d, "width", 128, 1, 8192, what, e);
    m->defaults.height = (int)number(d, "height", 128, 1, 8192, what, e);
    m->defaults.cfg_scale = (float)number(d, "cfg_scale", 3, 0, 1000, what, e);
    m->defaults.shift = (float)number(d, "shift", 1, 0.001, 1000, what, e);
    text(d, "sampler", "euler", m->defaults.sampler, sizeof m->defaults.sampler);
    text(d, "schedule", "simple", m->defaults.schedule, sizeof m->defaults.schedule);
    return e->code;
}

static sumi_status configure(sumi_model *m, const cJSON *j, const char *what, sm_err *e)
{
    for (int i = 0; i < sm_denoiser_count && !m->family; i++)
        if (cJSON_GetObjectItemCaseSensitive(j, sm_denoisers[i].component))
            m->family = &sm_denoisers[i];
    if (!m->family)
        return sm_fail(e, SUMI_E_MODEL, "%s: the configuration names no denoiser (unet or transformer)", what);
    if (component(j, m->family->component, m->family->kind, &m->denoiser, what, e) ||
        component(j, "text_encoder", SM_MODEL_CLIP, &m->clip, what, e) || component(j, "vae", SM_MODEL_VAE, &m->vae, what, e) ||
        read_defaults(m, cJSON_GetObjectItemCaseSensitive(j, "defaults"), what, e))
        return e->code;
    text(j, "name", "model", m->name, sizeof m->name);
    sm_denoiser_settle(m->family, &m->denoiser, &m->clip);
    return sm_components_fit(m->family, &m->denoiser, &m->clip, &m->vae, what, e);
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
    sm_config_write(SM_MODEL_CLIP, &m->clip, b);
    sm_buf_fmt(b, ",\"vae\":");
    sm_config_write(SM_MODEL_VAE, &m->vae, b);
    sm_buf_fmt(b, ",\"defaults\":{\"steps\":%d,\"width\":%d,\"height\":%d,\"cfg_scale\":%.6g,\"shift\":%.6g,\"sampler\":",
               m->defaults.steps, m->defaults.width, m->defaults.height, (double)m->defaults.cfg_scale, (double)m->defaults.shift);
    sm_json_put_text(b, m->defaults.sampler);
    sm_buf_fmt(b, ",\"schedule\":");
    sm_json_put_text(b, m->defaults.schedule);
    sm_buf_fmt(b, "}}");
}
