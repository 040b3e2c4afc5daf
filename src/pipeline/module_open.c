/* Opening one part of a model (see module.h): its weights and its configuration, whichever of the ways to store them it is. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pipeline/builtin.h"
#include "pipeline/module.h"

const sm_module_row sm_module_rows[SM_MODULES] = {
    [SM_MODULE_TEXT] = {"text_encoder", SM_COMPONENT_TEXT, SM_MODEL_CLIP},
    [SM_MODULE_TEXT_2] = {"text_encoder_2", SM_COMPONENT_TEXT_2, SM_MODEL_CLIP},
    [SM_MODULE_UNET] = {"unet", SM_COMPONENT_UNET, SM_MODEL_UNET},
    [SM_MODULE_TRANSFORMER] = {"transformer", SM_COMPONENT_TRANSFORMER, SM_MODEL_MMDIT},
    [SM_MODULE_VAE_ENCODER] = {"vae_encoder", SM_COMPONENT_VAE, SM_MODEL_VAE},
    [SM_MODULE_VAE_DECODER] = {"vae_decoder", SM_COMPONENT_VAE, SM_MODEL_VAE},
};

sm_module_id sm_module_find(const char *name)
{
    int i = 0;
    while (i < SM_MODULES && strcmp(sm_module_rows[i].name, name))
        i++;
    return (sm_module_id)i;
}

void sm_module_close(sm_module *m) { sm_weights_unref(&m->w); }

static const char *given_part(const sumi_model_options *o, sm_component c)
{
    switch (c) {
    case SM_COMPONENT_TEXT: return o->text_encoder;
    case SM_COMPONENT_TEXT_2: return o->text_encoder_2;
    case SM_COMPONENT_VAE: return o->vae;
    default: return o->unet;
    }
}

/* ---- a folder ---- */

static bool is_file(const char *dir, const char *name)
{
    char path[1100];
    snprintf(path, sizeof path, "%.512s/%.500s", dir, name);
    return !access(path, R_OK);
}

/* m->path as a whole model's folder, or as that of the component alone; *is_one is false where it is neither. */
static sumi_status open_folder(sm_module *m, bool *is_one, sm_err *e)
{
    const char *component = sm_component_names[m->row->component], *part = is_file(m->path, "model_index.json") ? component : ".";
    char config[128];
    snprintf(config, sizeof config, "%s/config.json", part);
    *is_one = is_file(m->path, config);
    if (*is_one && !sm_folder_config(m->path, part, m->row->kind, &m->c, m->mem, e))
        sm_folder_weights(m->path, part, m->row->component, m->w, m->mem, e);
    if (*is_one)
        return e->code;
    return part == component ? sm_fail(e, SUMI_E_MODEL, "%s: the model has no %s", m->path, component) : SUMI_OK;
}

/* ---- a file ---- */

/* sumi's own kind: the configuration is in the metadata. */
static sumi_status open_own(sm_module *m, sm_tensors *f, const char *config, sm_err *e)
{
    sumi_model own = {.mem = m->mem};
    if (sm_model_configure(&own, config, m->path, e)) {
        sm_tensors_close(f);
        return e->code;
    }
    bool denoiser = m->row->component == SM_COMPONENT_UNET || m->row->component == SM_COMPONENT_TRANSFORMER;
    bool there = denoiser ? own.family->kind == m->row->kind : m->row->component != SM_COMPONENT_TEXT_2;
    if (m->row->kind == SM_MODEL_CLIP)
        m->c.clip = own.traits.text[0].clip;
    else if (m->row->kind == SM_MODEL_VAE)
        m->c.vae = own.vae;
    else if (m->row->kind == SM_MODEL_UNET)
        m->c.unet = own.denoiser.unet;
    else
        m->c.mmdit = own.denoiser.mmdit;
    if (there)
        return sm_own_into(f, own.family, m->w, m->mem, e);
    sm_tensors_close(f);
    return sm_fail(e, SUMI_E_MODEL, "%s: the model has no %s; its denoiser is a %s", m->path, m->row->name,
                   own.family->component);
}

static sumi_status detect(sm_module *m, sm_err *e)
{
    const char *component = sm_component_names[m->row->component];
    switch (m->row->kind) {
    case SM_MODEL_CLIP: return sm_detect_clip(m->w, component, &m->c.clip, e);
    case SM_MODEL_UNET: return sm_detect_unet(m->w, component, &m->c.unet, e);
    case SM_MODEL_VAE: return sm_detect_vae(m->w, component, &m->c.vae, e);
    default:
        return sm_fail(e, SUMI_E_SUPPORT, "%s: a %s's configuration cannot be told from its tensors: give its folder with "
                       "config.json", m->path, component);
    }
}

/* What a file without the part has instead. */
static sumi_status lacks(const sm_module *m, const sm_layout_report *r, sm_err *e)
{
    char has[160] = "";
    for (int i = 0; i < SM_COMPONENTS; i++)
        if (r->found[i])
            snprintf(has + strlen(has), sizeof has - strlen(has), "%s%s", has[0] ? ", " : "; it has: ", sm_component_names[i]);
    return sm_fail(e, SUMI_E_MODEL, "%s: holds no tensors of a %s%s%s%.100s", m->path, sm_component_names[m->row->component], has,
                   r->unknown ? "; one of its own is " : "", r->first_unknown);
}

/* Takes the other components too: what no tensor of the part tells, detection takes from those beside it. A text encoder alone
 * under bare names is whichever one the caller says. */
static sumi_status open_any(sm_module *m, sm_tensors *f, sm_err *e)
{
    sm_layout_report r = {0};
    sm_component c = m->row->component;
    if (sm_layout_into(f, m->w, SM_COMPONENTS, &r, m->mem, e))
        return e->code;
    if (!r.found[c] && m->row->kind == SM_MODEL_CLIP && (r.found[SM_COMPONENT_TEXT] || r.found[SM_COMPONENT_TEXT_2])) {
        sm_weights_unref(&m->w);
        m->w = sm_weights_new(m->mem, e);
        f = m->w ? sm_tensors_open(m->path, m->mem, e) : NULL;
        if (!f || sm_layout_into(f, m->w, c, &r, m->mem, e))
            return e->code;
    }
    return r.found[c] ? detect(m, e) : lacks(m, &r, e);
}

/* ---- whichever it is ---- */

static sumi_status open_path(sm_module *m, sm_err *e)
{
    struct stat st;
    bool done = false;
    if (!stat(m->path, &st) && S_ISDIR(st.st_mode) && (open_folder(m, &done, e) || done))
        return e->code;
    sm_tensors *f = sm_tensors_open(m->path, m->mem, e);
    const char *config = f ? sm_tensors_metadata(f, "sumi.model") : NULL;
    return !f ? e->code : config ? open_own(m, f, config, e) : open_any(m, f, e);
}

sumi_status sm_module_open(sm_module *m, const sm_module_row *row, const sumi_model_options *o, sm_mem *mem, sm_err *e)
{
    const char *part = given_part(o, row->component), *path = part ? part : o->path;
    char found[4096];
    *m = (sm_module){.row = row, .mem = mem};
    if (path && !part && sm_model_find_pulled(&path, mem, found, sizeof found, e))
        return e->code;
    if (!path && sm_builtin_find(m->path, sizeof m->path, e))
        return e->code;
    if (path && snprintf(m->path, sizeof m->path, "%s", path) >= (int)sizeof m->path)
        return sm_fail(e, SUMI_E_ARG, "the model's path is longer than %zu bytes", sizeof m->path - 1);
    while (strlen(m->path) > 1 && m->path[strlen(m->path) - 1] == '/')
        m->path[strlen(m->path) - 1] = 0;
    m->w = sm_weights_new(mem, e);
    return m->w ? open_path(m, e) : e->code;
}
