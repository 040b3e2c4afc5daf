/* Opening a folder in diffusers' layout: model_index.json, a folder with config.json and weights for each component, the
 * scheduler's configuration, the tokenizer. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/shown.h"
#include "io/json.h"
#include "io/weight_files.h"
#include "pipeline/model.h"
#include "sample/schedule.h"

typedef struct folder {
    sumi_model *m;
    const sumi_model_options *o;
    const char *dir;
    int zeros; /* model_index.json's force_zeros_for_empty_prompt; -1: not said */
} folder;

/* part: of the folder dir; "." for dir itself. */
static void path_in(const char *dir, const char *part, const char *name, char out[700])
{
    bool own = !strcmp(part, ".");
    snprintf(out, 700, "%.440s%s%.60s/%.150s", dir, own ? "" : "/", own ? "" : part, name);
}

static void path_of(const folder *f, const char *part, const char *name, char out[700]) { path_in(f->dir, part, name, out); }

static bool is_in(const char *dir, const char *part, const char *name)
{
    char path[700];
    path_in(dir, part, name, path);
    return !access(path, R_OK);
}

static bool has(const folder *f, const char *part, const char *name) { return is_in(f->dir, part, name); }

static sumi_status read_config(const char *dir, const char *part, const char *name, sm_buf *text, sm_err *e)
{
    char path[700];
    path_in(dir, part, name, path);
    return sm_file_read(path, (size_t)16 << 20, text, e);
}

sumi_status sm_folder_config(const char *dir, const char *part, sm_model_kind kind, void *config, sm_mem *mem, sm_err *e)
{
    sm_buf text = {.mem = mem};
    sm_err why = {0};
    char label[700];
    path_in(dir, part, "config.json", label);
    if (!read_config(dir, part, "config.json", &text, e) && sm_config_read(kind, text.data, text.len, config, &why))
        sm_fail(e, why.code, "%.460s: %.160s", label, why.msg);
    sm_buf_free(&text);
    return e->code;
}

sumi_status sm_folder_weights(const char *dir, const char *part, sm_component c, sm_weights *w, sm_mem *mem, sm_err *e)
{
    char at[700];
    sm_wf_set set;
    size_t found = 0;
    snprintf(at, sizeof at, "%.500s/%.60s", dir, part);
    sm_wf_find(at, mem, &set, e);
    for (int i = 0; i < set.n && !e->code; i++) {
        sm_layout_report r = {0};
        sm_tensors *t = sm_tensors_open(set.path[i], mem, e);
        if (t)
            sm_layout_into(t, w, c, &r, mem, e);
        found += r.found[c];
    }
    if (!e->code && !found)
        sm_fail(e, SUMI_E_MODEL, "%s: holds no tensors of a %s", set.path[0], sm_component_names[c]);
    sm_wf_free(&set);
    return e->code;
}

static sumi_status component_config(const folder *f, const char *part, sm_model_kind kind, void *config, sm_err *e)
{
    return sm_folder_config(f->dir, part, kind, config, f->m->mem, e);
}

static sumi_status component_weights(const folder *f, sm_component c, sm_err *e)
{
    return sm_folder_weights(f->dir, sm_component_names[c], c, f->m->w, f->m->mem, e);
}

/* ---- the scheduler ---- */

static double number(const cJSON *j, const char *name, double fallback)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(j, name);
    return cJSON_IsNumber(x) ? x->valuedouble : fallback;
}

static const char *word(const cJSON *j, const char *name)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(j, name);
    return cJSON_IsString(x) ? x->valuestring : "";
}

/* Betas that were listed instead of named, one a training timestep. */
static sumi_status take_betas(sumi_model *m, const cJSON *list, const char *dir, sm_err *e)
{
    int n = cJSON_GetArraySize(list);
    sm_noise check;
    if (n < 2 || n != (m->train_steps ? m->train_steps : 1000))
        return sm_fail(e, SUMI_E_FORMAT,
                       "%s/scheduler/scheduler_config.json: trained_betas: %d numbers for %d num_train_timesteps", dir, n,
                       m->train_steps ? m->train_steps : 1000);
    m->trained_betas = sm_alloc(m->mem, SM_MEM_MISC, sizeof *m->trained_betas * (size_t)n);
    if (!m->trained_betas)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for %d betas", n);
    int i = 0;
    for (const cJSON *x = list->child; x; x = x->next)
        m->trained_betas[i++] = cJSON_IsNumber(x) ? x->valuedouble : NAN;
    sm_err why = {0};
    if (sm_noise_betas(&check, m->mem, m->trained_betas, n, &why))
        sm_fail(e, why.code, "%s/scheduler/scheduler_config.json: %s", dir, why.msg);
    sm_noise_free(&check);
    return e->code;
}

static sumi_status take_edm(sm_traits *t, const cJSON *j, const char *dir, sm_err *e)
{
    t->sigma_min = number(j, "sigma_min", 0.002);
    t->sigma_max = number(j, "sigma_max", 80);
    t->sigma_data = number(j, "sigma_data", 0.5);
    if (!(t->sigma_min >= 1e-6 && t->sigma_max > t->sigma_min && t->sigma_max <= 1e6 && t->sigma_data >= 1e-6 &&
          t->sigma_data <= 1e6))
        sm_fail(e, SUMI_E_FORMAT,
                "%s/scheduler/scheduler_config.json: sigma_min %g, sigma_max %g, sigma_data %g: min below max and all inside "
                "1e-6 to 1e6 were expected", dir, t->sigma_min, t->sigma_max, t->sigma_data);
    return e->code;
}

static sumi_status take_scheduler(sumi_model *m, const cJSON *j, const char *dir, sm_err *e)
{
    static const char *const predictions[] = {"epsilon", "v_prediction", "sample"};
    static const char *const betas[] = {"scaled_linear", "linear", "squaredcos_cap_v2", "sigmoid", "laplace"};
    sm_traits *t = &m->traits;
    double steps = number(j, "num_train_timesteps", 1000);
    const char *class_name = word(j, "_class_name"), *prediction = word(j, "prediction_type"), *beta = word(j, "beta_schedule");
    t->assumed = false;
    if (!(steps >= 2 && steps <= 100000 && steps == floor(steps)))
        return sm_fail(e, SUMI_E_FORMAT,
                       "%s/scheduler/scheduler_config.json: num_train_timesteps is %g; 2 to 100000 were expected", dir, steps);
    m->train_steps = (int)steps;
    if (strstr(class_name, "FlowMatch") || !strcmp(prediction, "flow_prediction")) {
        t->prediction = "flow_prediction";
        t->beta_schedule = "";
        t->shift = (float)number(j, strstr(class_name, "FlowMatch") ? "shift" : "flow_shift", 1);
        if (!(t->shift > 0 && t->shift <= 1000))
            return sm_fail(e, SUMI_E_FORMAT,
                           "%s/scheduler/scheduler_config.json: a shift of %g; it must be positive, 1000 at most", dir,
                           (double)t->shift);
        return SUMI_OK;
    }
    if (!strncmp(class_name, "EDM", 3)) {
        if (prediction[0] && strcmp(prediction, "epsilon")) /* CosXL: c_out has the other sign */
            return sm_fail(e, SUMI_E_SUPPORT,
                           "%s/scheduler/scheduler_config.json: %s with prediction_type '%.40s' is not supported", dir,
                           class_name, prediction);
        t->prediction = "edm";
        t->beta_schedule = "";
        t->steps = 50; /* as detected from a single file (model/detect.c) */
        t->cfg_scale = 3;
        return take_edm(t, j, dir, e);
    }
    size_t p = 0, b = 0;
    while (p < SM_COUNT(predictions) && prediction[0] && strcmp(prediction, predictions[p]))
        p++;
    while (b < SM_COUNT(betas) && strcmp(beta, betas[b]))
        b++;
    const cJSON *zero = cJSON_GetObjectItemCaseSensitive(j, "rescale_betas_zero_snr"),
                *trained = cJSON_GetObjectItemCaseSensitive(j, "trained_betas");
    bool listed = cJSON_IsArray(trained);
    if (p == SM_COUNT(predictions) || (b == SM_COUNT(betas) && beta[0] && !listed))
        return sm_fail(e, SUMI_E_SUPPORT,
                       "%s/scheduler/scheduler_config.json: prediction_type '%.40s', beta_schedule '%.40s': not known", dir,
                       prediction, beta);
    t->prediction = predictions[p];
    t->beta_schedule = betas[b < SM_COUNT(betas) ? b : 1]; /* diffusers' default is linear */
    t->beta_start = number(j, "beta_start", 0.0001);
    t->beta_end = number(j, "beta_end", 0.02);
    t->zero_snr = cJSON_IsTrue(zero);
    return listed ? take_betas(m, trained, dir, e) : SUMI_OK;
}

static sumi_status read_scheduler(const folder *f, sm_err *e)
{
    sm_buf text = {.mem = f->m->mem};
    char label[700];
    path_of(f, "scheduler", "scheduler_config.json", label);
    if (!has(f, "scheduler", "scheduler_config.json"))
        return SUMI_OK;
    cJSON *j = read_config(f->dir, "scheduler", "scheduler_config.json", &text, e) ? NULL
                                                                            : sm_json_parse(f->m->mem, text.data,
                                                                                            text.len, 8, 200000, label, e);
    if (j)
        take_scheduler(f->m, j, f->dir, e);
    cJSON_Delete(j);
    sm_buf_free(&text);
    return e->code;
}

/* Four numbers; false: no such list. What is a list of four and holds anything else is refused. */
static bool four(const cJSON *j, const char *name, const char *file, bool positive, float out[4], sm_err *e)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(j, name);
    if (cJSON_GetArraySize(list) != 4)
        return false;
    for (int i = 0; i < 4; i++) {
        const cJSON *x = cJSON_GetArrayItem(list, i);
        out[i] = cJSON_IsNumber(x) ? (float)x->valuedouble : NAN;
        if (!isfinite(out[i]) || (positive && !(out[i] > 0)))
            return sm_fail(e, SUMI_E_FORMAT, "%s: %s: must be 4 numbers%s", file, name, positive ? " above 0" : ""),
                   false;
    }
    return true;
}

bool sm_latents_stats(const cJSON *vae, const char *file, float mean[4], float std[4], sm_err *e)
{
    return four(vae, "latents_mean", file, false, mean, e) && four(vae, "latents_std", file, true, std, e);
}

static sumi_status read_latents_stats(sumi_model *m, const char *dir, const char *part, sm_err *e)
{
    sm_buf text = {.mem = m->mem};
    char label[700];
    path_in(dir, part, "config.json", label);
    if (!is_in(dir, part, "config.json"))
        return SUMI_OK;
    cJSON *j = read_config(dir, part, "config.json", &text, e) ? NULL
                                                               : sm_json_parse(m->mem, text.data, text.len, 8, 4096, label, e);
    sm_traits *t = &m->traits;
    if (!e->code && m->vae.latent_channels == 4)
        t->latents_stats = sm_latents_stats(j, label, t->latents_mean, t->latents_std, e);
    cJSON_Delete(j);
    sm_buf_free(&text);
    return e->code;
}

/* ---- the folder ---- */

/* What a flag gives is not read here: not even a part that is damaged or missing. */
static sumi_status open_denoiser(const folder *f, sm_err *e)
{
    sumi_model *m = f->m;
    for (int i = 0; i < sm_denoiser_count; i++)
        if (has(f, sm_denoisers[i].component, "config.json"))
            m->family = &sm_denoisers[i];
    if (!m->family && f->o->unet) {
        m->family = sm_denoiser_by_class("UNet2DConditionModel");
        return SUMI_OK;
    }
    if (!m->family)
        return sm_fail(e, SUMI_E_MODEL, "%s: has neither unet/config.json nor transformer/config.json: no denoiser (--unet FILE)",
                       f->dir);
    bool unet = m->family->kind == SM_MODEL_UNET;
    if (component_config(f, m->family->component, m->family->kind, &m->denoiser, e) || (unet && f->o->unet))
        return e->code;
    return component_weights(f, unet ? SM_COMPONENT_UNET : SM_COMPONENT_TRANSFORMER, e);
}

static sumi_status open_vae(const folder *f, sm_err *e)
{
    if (!has(f, "vae", "config.json"))
        return f->o->vae ? SUMI_OK : sm_fail(e, SUMI_E_MODEL, "%s: has no vae/config.json: no autoencoder (--vae FILE)", f->dir);
    if (component_config(f, "vae", SM_MODEL_VAE, &f->m->vae, e) || f->o->vae)
        return e->code;
    return component_weights(f, SM_COMPONENT_VAE, e);
}

/* Behind sm_open_parts, which took the files that are given. */
static sumi_status open_texts(const folder *f, sm_err *e)
{
    const struct { sm_component c; const char *given; } parts[] = {{SM_COMPONENT_TEXT, f->o->text_encoder},
                                                                   {SM_COMPONENT_TEXT_2, f->o->text_encoder_2}};
    sumi_model *m = f->m;
    sm_clip_config clip[SM_TEXTS];
    const char *names[SM_TEXTS];
    char missing[200];
    int n = 0, width = 0;
    for (size_t i = 0; i < SM_COUNT(parts) && !e->code; i++) {
        names[n] = sm_component_names[parts[i].c];
        if (parts[i].given && !sm_detect_clip(m->w, names[n], &clip[n], e))
            n++;
        else if (!parts[i].given && has(f, names[n], "config.json") &&
                 !component_config(f, names[n], SM_MODEL_CLIP, &clip[n], e) && !component_weights(f, parts[i].c, e))
            n++;
    }
    if (!e->code && !n)
        return sm_fail(e, SUMI_E_MODEL,
                       "%s: has neither text_encoder/config.json nor text_encoder_2/config.json: no text encoder "
                       "(--text-encoder FILE, --text-encoder-2 FILE)", f->dir);
    if (!e->code)
        sm_traits_for(m->family, &m->denoiser, clip, n, NULL, &m->traits);
    for (int i = 0; i < n && !e->code; i++) {
        m->traits.text[i].component = names[i];
        width += clip[i].hidden_size;
    }
    if (e->code)
        return e->code;
    sm_traits_missing(m->family, &m->denoiser, &m->traits, missing, sizeof missing);
    return missing[0] && width < m->family->context_width(&m->denoiser) ? sm_fail(e, SUMI_E_MODEL, "%s: %s: %s", f->dir,
                                                                                  m->traits.label, missing) : SUMI_OK;
}

static sumi_status open_tokenizer(const folder *f, sm_err *e)
{
    static const char *const parts[] = {"tokenizer", "tokenizer_2"};
    char vocab[700], merges[700];
    for (size_t i = 0; i < SM_COUNT(parts); i++)
        if (has(f, parts[i], "vocab.json")) {
            path_of(f, parts[i], "vocab.json", vocab);
            path_of(f, parts[i], "merges.txt", merges);
            f->m->bpe = sm_bpe_load(f->m->mem, vocab, merges, e);
            return e->code;
        }
    return SUMI_OK; /* CLIP's own, if it fits */
}

/* The folders say what there is; the index must be whole all the same, or the copy is not. */
static sumi_status check_index(folder *f, sm_err *e)
{
    sm_buf text = {.mem = f->m->mem};
    char label[700];
    path_of(f, ".", "model_index.json", label);
    cJSON *j = read_config(f->dir, ".", "model_index.json", &text, e) ? NULL
                                                                      : sm_json_parse(f->m->mem, text.data,
                                                                                      text.len, 8, 4096, label, e);
    if (j && !cJSON_IsObject(j))
        sm_fail(e, SUMI_E_FORMAT, "%s: no JSON object", label);
    const cJSON *zeros = cJSON_GetObjectItemCaseSensitive(j, "force_zeros_for_empty_prompt");
    f->zeros = cJSON_IsBool(zeros) ? cJSON_IsTrue(zeros) : -1;
    cJSON_Delete(j);
    sm_buf_free(&text);
    return e->code;
}

/* sample_size, the latents' side that the denoiser was trained at, tells apart what shapes do not: versions 2 for 512 and for 768
 * pixels, Turbo. */
static sumi_status read_size(const folder *f, sm_err *e)
{
    sumi_model *m = f->m;
    sm_buf text = {.mem = m->mem};
    char label[700];
    path_of(f, m->family->component, "config.json", label);
    if (!has(f, m->family->component, "config.json"))
        return SUMI_OK;
    cJSON *j = read_config(f->dir, m->family->component, "config.json", &text, e) ? NULL
                                                                                  : sm_json_parse(m->mem, text.data,
                                                                                                  text.len, 8, 4096, label, e);
    double side = number(j, "sample_size", 0) * sm_vae_factor(&m->vae);
    int step = sm_vae_factor(&m->vae) * m->family->multiple(&m->denoiser);
    if (step > 0 && side >= 1 && side <= 8192 && side == (int)side && (int)side % step == 0)
        m->traits.width = m->traits.height = (int)side;
    cJSON_Delete(j);
    sm_buf_free(&text);
    return e->code;
}

/* What model_index.json and the components' own files say beats what the family usually is. */
static sumi_status read_use(const folder *f, sm_err *e)
{
    if (f->zeros >= 0)
        f->m->traits.zero_empty = f->zeros;
    return read_latents_stats(f->m, f->dir, "vae", e) || read_scheduler(f, e) ? e->code : read_size(f, e);
}

/* A part's own folder, if path is one and has a config.json: what that says beats what tensors let guess. */
static sumi_status part_config(const char *path, sm_model_kind kind, void *config, sm_mem *mem, sm_err *e)
{
    return path && is_in(path, ".", "config.json") ? sm_folder_config(path, ".", kind, config, mem, e) : SUMI_OK;
}

sumi_status sm_parts_config(sumi_model *m, const sumi_model_options *o, sm_err *e)
{
    sm_traits *t = &m->traits;
    if (part_config(o->vae, SM_MODEL_VAE, &m->vae, m->mem, e) || (o->vae && read_latents_stats(m, o->vae, ".", e)) ||
        part_config(o->unet, SM_MODEL_UNET, &m->denoiser, m->mem, e))
        return e->code;
    for (int i = 0; i < t->texts && !e->code; i++)
        part_config(strcmp(t->text[i].component, "text_encoder") ? o->text_encoder_2 : o->text_encoder, SM_MODEL_CLIP,
                    &t->text[i].clip, m->mem, e);
    return e->code;
}

sumi_status sm_open_folder(sumi_model *m, const sumi_model_options *o, sm_err *e)
{
    folder f = {m, o, o->path, -1};
    char dir[512];
    snprintf(dir, sizeof dir, "%.500s", o->path);
    while (strlen(dir) > 1 && dir[strlen(dir) - 1] == '/')
        dir[strlen(dir) - 1] = 0;
    f.dir = dir;
    if (!has(&f, ".", "model_index.json"))
        return sm_fail(e, SUMI_E_MODEL, "%s: a folder without model_index.json is no model in diffusers' layout", dir);
    if (check_index(&f, e))
        return e->code;
    const char *base = strrchr(dir, '/');
    sm_shown(base && base[1] ? base + 1 : dir, m->name, sizeof m->name);
    if (open_denoiser(&f, e) || open_vae(&f, e) || sm_open_parts(m, o, NULL, e) || open_texts(&f, e) || read_use(&f, e))
        return e->code;
    return open_tokenizer(&f, e);
}
