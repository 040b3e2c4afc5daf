/* The configuration of a whole model as JSON, read and written: what a single-file model carries in its metadata. */
#include "pipeline/model.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

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

static int whole(const cJSON *d, const char *name, int def)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(d, name);
    return cJSON_IsNumber(x) && x->valuedouble >= 0 && x->valuedouble <= 8192 ? (int)x->valuedouble : def;
}

static float number(const cJSON *d, const char *name, float def)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(d, name);
    return cJSON_IsNumber(x) && x->valuedouble > 0 && x->valuedouble < 1000 ? (float)x->valuedouble : def;
}

static void text(const cJSON *d, const char *name, const char *def, char *out, size_t size)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(d, name);
    snprintf(out, size, "%s", cJSON_IsString(x) ? x->valuestring : def);
}

static sumi_status configure(sumi_model *m, const cJSON *j, const char *what, sm_err *e)
{
    for (int i = 0; i < sm_denoiser_count && !m->family; i++)
        if (cJSON_GetObjectItemCaseSensitive(j, sm_denoisers[i].component))
            m->family = &sm_denoisers[i];
    if (!m->family)
        return sm_fail(e, SUMI_E_MODEL, "%s: the configuration names no denoiser (unet or transformer)", what);
    if (component(j, m->family->component, m->family->kind, &m->denoiser, what, e) ||
        component(j, "text_encoder", SM_MODEL_CLIP, &m->clip, what, e) || component(j, "vae", SM_MODEL_VAE, &m->vae, what, e))
        return e->code;
    const cJSON *d = cJSON_GetObjectItemCaseSensitive(j, "defaults");
    m->defaults.steps = whole(d, "steps", 20);
    m->defaults.width = whole(d, "width", 128);
    m->defaults.height = whole(d, "height", 128);
    m->defaults.cfg_scale = number(d, "cfg_scale", 3);
    m->defaults.shift = number(d, "shift", 1);
    text(d, "sampler", "euler", m->defaults.sampler, sizeof m->defaults.sampler);
    text(d, "schedule", "simple", m->defaults.schedule, sizeof m->defaults.schedule);
    text(j, "name", "model", m->name, sizeof m->name);
    if (m->family->latent_channels(&m->denoiser) != m->vae.latent_channels)
        return sm_fail(e, SUMI_E_MODEL, "%s: the %s works on %d latent channels, the vae has %d", what, m->family->component,
                       m->family->latent_channels(&m->denoiser), m->vae.latent_channels);
    return SUMI_OK;
}

sumi_status sm_model_configure(sumi_model *m, const char *json, const char *what, sm_err *e)
{
    cJSON *j = cJSON_Parse(json);
    sumi_status st = cJSON_IsObject(j) ? configure(m, j, what, e) : sm_fail(e, SUMI_E_FORMAT, "%s: the configuration is not JSON", what);
    cJSON_Delete(j);
    return st;
}

void sm_model_describe(const sumi_model *m, sm_buf *b)
{
    sm_buf_fmt(b, "{\"name\":\"%s\",\"%s\":", m->name, m->family->component);
    sm_config_write(m->family->kind, &m->denoiser, b);
    sm_buf_fmt(b, ",\"text_encoder\":");
    sm_config_write(SM_MODEL_CLIP, &m->clip, b);
    sm_buf_fmt(b, ",\"vae\":");
    sm_config_write(SM_MODEL_VAE, &m->vae, b);
    sm_buf_fmt(b, ",\"defaults\":{\"steps\":%d,\"width\":%d,\"height\":%d,\"cfg_scale\":%.6g,\"shift\":%.6g,\"sampler\":\"%s\",\"schedule\":\"%s\"}}",
               m->defaults.steps, m->defaults.width, m->defaults.height, (double)m->defaults.cfg_scale, (double)m->defaults.shift,
               m->defaults.sampler, m->defaults.schedule);
}
