/* Opening a model: one safetensors file that carries its configuration, or a folder in diffusers' layout. */
#include "pipeline/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "pipeline/builtin.h"

/* What a file without our configuration is, in a message that says what to do. */
static sumi_status not_ours(const sm_st *f, const char *path, sm_err *e)
{
    bool lora = false, vae = false;
    for (size_t i = 0; i < sm_st_count(f); i++) {
        const char *n = sm_st_at(f, i)->name;
        lora |= strstr(n, "lora_") || strstr(n, ".lora");
        vae |= !strncmp(n, "decoder.", 8) || !strncmp(n, "encoder.", 8) || !strncmp(n, "first_stage_model.", 18);
    }
    const char *what = lora ? "it looks like a LoRA, which goes on top of a model"
                       : vae ? "it looks like an autoencoder alone" : "no component of it is known";
    return sm_fail(e, SUMI_E_MODEL, "%s: not a whole model in sumi's single-file layout (no \"sumi.model\" in its metadata): %s", path, what);
}

static sumi_status open_file(sumi_model *m, const char *path, sm_err *e)
{
    sm_st *f = sm_st_open(path, m->mem, e);
    if (!f)
        return e->code;
    const char *config = sm_st_metadata(f, "sumi.model"), *merges = sm_st_metadata(f, "merges");
    if (!config) {
        not_ours(f, path, e);
    } else if (!merges) {
        sm_fail(e, SUMI_E_MODEL, "%s: the metadata has no \"merges\", the tokenizer's table", path);
    } else if (!sm_model_configure(m, config, path, e)) {
        sm_err why = {0};
        m->bpe = sm_bpe_from_merges(m->mem, merges, strlen(merges), &why);
        if (!m->bpe)
            sm_fail(e, why.code, "%s: %s", path, why.msg);
        else
            return sm_st_into(f, m->w, NULL, m->mem, e);
    }
    sm_st_close(f);
    return e->code;
}

static sumi_status read_text(const char *dir, const char *name, sm_buf *b, sm_err *e)
{
    char path[600];
    snprintf(path, sizeof path, "%.440s/%.150s", dir, name);
    return sm_file_read(path, (size_t)16 << 20, b, e);
}

static sumi_status load_component(sumi_model *m, const char *dir, const char *name, sm_buf *config, sm_err *e)
{
    char path[600], prefix[64], file[128];
    snprintf(file, sizeof file, "%s/config.json", name);
    sm_buf_fmt(config, ",\"%s\":", name);
    if (read_text(dir, file, config, e))
        return e->code;
    snprintf(path, sizeof path, "%.440s/%s", dir, name);
    snprintf(prefix, sizeof prefix, "%s.", name);
    return sm_st_load(path, m->w, prefix, m->mem, e);
}

/* diffusers' layout: model_index.json and a folder per component. The scheduler's configuration gives the flow's shift. */
static sumi_status open_folder(sumi_model *m, const char *dir, sm_err *e)
{
    sm_buf config = {.mem = m->mem}, index = {.mem = m->mem};
    char path[600], merges[600];
    if (read_text(dir, "model_index.json", &index, e))
        return e->code;
    const char *denoiser = NULL;
    for (int i = 0; i < sm_denoiser_count; i++) {
        snprintf(path, sizeof path, "%.440s/%s/config.json", dir, sm_denoisers[i].component);
        if (!access(path, R_OK))
            denoiser = sm_denoisers[i].component;
    }
    if (!denoiser)
        sm_fail(e, SUMI_E_MODEL, "%s: has neither unet/config.json nor transformer/config.json", dir);
    const char *base = strrchr(dir, '/');
    sm_buf_fmt(&config, "{\"name\":");
    sm_json_put_text(&config, base && base[1] ? base + 1 : "model");
    if (!e->code && !load_component(m, dir, denoiser, &config, e) && !load_component(m, dir, "vae", &config, e) &&
        !load_component(m, dir, "text_encoder", &config, e)) {
        sm_buf_fmt(&config, "}");
        snprintf(path, sizeof path, "%.440s/tokenizer/vocab.json", dir);
        snprintf(merges, sizeof merges, "%.440s/tokenizer/merges.txt", dir);
        if (config.oom)
            sm_fail(e, SUMI_E_MEMORY, "out of memory opening %s", dir);
        else if (!sm_model_configure(m, config.data, dir, e))
            m->bpe = sm_bpe_load(m->mem, path, merges, e);
    }
    sm_buf_free(&config);
    sm_buf_free(&index);
    return e->code;
}

static sumi_status check_vocabulary(const sumi_model *m, const char *path, sm_err *e)
{
    if (sm_bpe_size(m->bpe) > m->clip.vocab_size)
        return sm_fail(e, SUMI_E_MODEL, "%s: the tokenizer has %d tokens, the text_encoder's vocab_size is %d", path,
                       (int)sm_bpe_size(m->bpe), m->clip.vocab_size);
    return SUMI_OK;
}

static void summarise(sumi_model *m)
{
    double n = 0;
    for (size_t i = 0; i < sm_weights_count(m->w); i++) {
        const sm_tensor *t = &sm_weights_at(m->w, i)->t;
        double c = 1;
        for (int d = 0; d < t->rank; d++)
            c *= (double)t->dims[d];
        n += c;
    }
    snprintf(m->summary, sizeof m->summary, "%s: rectified flow, %s, %.1f M parameters, %dx%d", m->name, m->family->class_name, n / 1e6,
             m->defaults.width, m->defaults.height);
}

sumi_status sm_model_open(sumi_model **out, sm_mem *mem, const char *path, sm_err *e)
{
    char found[512];
    struct stat st;
    *out = NULL;
    if (!path && sm_builtin_find(found, sizeof found, e))
        return e->code;
    path = path ? path : found;
    sumi_model *m = sm_alloc0(mem, SM_MEM_WEIGHT, sizeof *m);
    if (!m)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory opening %s", path);
    m->mem = mem;
    m->w = sm_weights_new(mem, e);
    if (m->w) {
        bool folder = !stat(path, &st) && S_ISDIR(st.st_mode);
        if (!(folder ? open_folder(m, path, e) : open_file(m, path, e)) && !check_vocabulary(m, path, e))
            summarise(m);
    }
    if (e->code)
        sumi_model_free(m);
    else
        *out = m;
    return e->code;
}

void sumi_model_free(sumi_model *m)
{
    if (!m)
        return;
    sm_weights_unref(&m->w);
    sm_bpe_free(m->bpe);
    sm_free(m);
}
