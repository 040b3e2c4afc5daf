/* sumi_train: opens configuration, data, tokenizer and models, then runs the stages that are not finished. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "pipeline/model.h"
#include "train/stages.h"

static const struct {
    const char *name;
    sumi_status (*run)(sm_trainer *t, bool *done, sm_err *e);
} stages[] = {
    {"autoencoder", sm_stage_autoencoder},
    {"latents", sm_stage_latents},
    {"flow", sm_stage_flow},
    {"export", sm_stage_export},
};

/* The output folder's path, and mkdir -p of it. */
static sumi_status make_output(sm_trainer *t, const char *path, sm_err *e)
{
    char part[sizeof t->out];
    if (!*path || strlen(path) >= sizeof t->out)
        return sm_fail(e, SUMI_E_ARG, "output: a folder's path of 1 to %zu bytes is needed, not of %zu", sizeof t->out - 1,
                       strlen(path));
    strcpy(t->out, path);
    strcpy(part, path);
    for (char *p = part + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char keep = *p;
        *p = 0;
        if (mkdir(part, 0777) && errno != EEXIST)
            return sm_fail(e, SUMI_E_FILE, "%s: cannot make the folder: %s", part, strerror(errno));
        if (!keep)
            return SUMI_OK;
        *p = keep;
    }
}

/* One run at a time: the folder itself is locked, so nothing stays behind when a run is killed. Where the file system has no
 * such locks, there is none. */
static sumi_status lock_output(sm_trainer *t, sm_err *e)
{
    t->lock = open(t->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (t->lock < 0)
        return sm_fail(e, SUMI_E_FILE, "%s: cannot open the folder: %s", t->out, strerror(errno));
    while (flock(t->lock, LOCK_EX | LOCK_NB)) {
        if (errno == EWOULDBLOCK)
            return sm_fail(e, SUMI_E_FILE,
                           "%s: another run is training in this folder: wait for its end, or choose another --output", t->out);
        if (errno != EINTR)
            return SUMI_OK;
    }
    sm_file_sweep(t->out);
    return SUMI_OK;
}

static sumi_status open_data(sm_trainer *t, sm_err *e)
{
    sm_buf styles = {.mem = t->mem};
    for (int i = 0; i < t->cfg.data.nstyles; i++)
        sm_buf_fmt(&styles, "%s%s", i ? "," : "", t->cfg.data.styles[i]);
    if (styles.oom)
        sm_fail(e, SUMI_E_MEMORY, "out of memory opening the data set");
    else
        t->data = sm_dataset_open(t->cfg.data.pictures, t->cfg.data.index, &(sm_data_filter){.styles = styles.data}, t->mem, e);
    sm_buf_free(&styles);
    return e->code;
}

/* Merges are learned from the captions of every variant of every picture, eight wordings each. */
static sumi_status learn_merges(sm_trainer *t, sm_buf *out, sm_err *e)
{
    enum { WORDINGS = 8, CAP = 320 };
    int64_t n = sm_dataset_count(t->data) * WORDINGS;
    sm_bpe_line *lines = sm_alloc(t->mem, SM_MEM_DATA, sizeof *lines * (size_t)n);
    char *texts = sm_alloc(t->mem, SM_MEM_DATA, (size_t)n * CAP);
    for (int64_t i = 0; lines && texts && i < n; i++) {
        sm_scene s = sm_dataset_scene(t->data, &t->compose, t->init.seed, i / WORDINGS, (uint64_t)(i % WORDINGS));
        sm_dataset_caption(t->data, &s, t->init.seed, (uint64_t)i, texts + i * CAP, CAP);
        lines[i] = (sm_bpe_line){texts + i * CAP, strlen(texts + i * CAP), 1};
    }
    sumi_status st = lines && texts ? sm_bpe_train(t->mem, lines, (size_t)n, t->cfg.vocab_size, out, e)
                                    : sm_fail(e, SUMI_E_MEMORY, "out of memory for the tokenizer's texts");
    sm_free(lines);
    sm_free(texts);
    return st;
}

/* The tokenizer of the output folder, learned on the first run. */
static sumi_status open_tokenizer(sm_trainer *t, sm_err *e)
{
    char path[512];
    sm_buf text = {.mem = t->mem};
    sm_out_path(t, "merges.txt", path);
    bool there = sm_file_exists(path);
    if (there)
        sm_file_read(path, (size_t)16 << 20, &text, e);
    else if (!learn_merges(t, &text, e))
        sm_file_write(path, text.data, text.len, e);
    t->merges = text.data;
    if (e->code || !text.data)
        return sm_fail(e, SUMI_E_FORMAT, "%s is empty", path);
    t->bpe = sm_bpe_from_merges(t->mem, text.data, text.len, e);
    return e->code;
}

/* The family by the registry's name for its class; without _class_name a UNet. */
static const sm_denoiser *family_of(const char *denoiser, const char *config, sm_err *e)
{
    cJSON *j = cJSON_Parse(denoiser);
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(j, "_class_name");
    const sm_denoiser *d = NULL;
    if (!j)
        sm_fail(e, SUMI_E_MEMORY, "%s: out of memory reading denoiser", config);
    else if (name && !cJSON_IsString(name))
        sm_fail(e, SUMI_E_FORMAT, "%s: denoiser._class_name: must be a text", config);
    else if (!(d = sm_denoiser_by_class(name ? name->valuestring : "UNet2DConditionModel")))
        sm_fail(e, SUMI_E_SUPPORT, "%s: denoiser._class_name: '%.60s' is none that can be trained", config,
                name ? name->valuestring : "");
    cJSON_Delete(j);
    return d;
}

static sumi_status configure(sm_trainer *t, const char *config, sm_err *e)
{
    if (sm_config_read(SM_MODEL_CLIP, t->cfg.text_encoder, strlen(t->cfg.text_encoder), &t->clip, e) ||
        sm_config_read(SM_MODEL_VAE, t->cfg.vae, strlen(t->cfg.vae), &t->vae, e))
        return e->code;
    t->family = family_of(t->cfg.denoiser, config, e);
    if (!t->family || sm_config_read(t->family->kind, t->cfg.denoiser, strlen(t->cfg.denoiser), &t->denoiser, e))
        return e->code;
    t->clip.vocab_size = sm_bpe_size(t->bpe);
    t->clip.eos_token_id = sm_bpe_end(t->bpe);
    sm_denoiser_settle(t->family, &t->denoiser, &t->clip);
    sm_traits traits = sm_traits_flow(&t->clip, 1);
    if (sm_components_fit(t->family, &t->denoiser, &traits, &t->vae, config, e))
        return e->code;
    int f = sm_vae_factor(&t->vae), multiple = t->family->multiple(&t->denoiser);
    if (t->cfg.data.size % (f * multiple))
        return sm_fail(e, SUMI_E_ARG, "%s: data.size: %d does not divide by the vae's %d and the denoiser's %d", config,
                       t->cfg.data.size, f, multiple);
    return SUMI_OK;
}

static sumi_status open_all(sm_trainer *t, const char *config, const sumi_train_options *o, sm_err *e)
{
    if (sm_train_config_load(&t->cfg, t->mem, config, e))
        return e->code;
    t->init.seed = (uint64_t)t->cfg.seed;
    t->compose = SM_COMPOSE_DEFAULT;
    t->resume = o->resume;
    t->steps_left = o->max_steps > 0 ? o->max_steps : -1;
    t->vae_weights = sm_weights_new(t->mem, e);
    t->flow_weights = sm_weights_new(t->mem, e);
    bool exports = o->stage && !strcmp(o->stage, "export"); /* only reads checkpoints: may go on beside a run */
    if (e->code || make_output(t, o->output ? o->output : t->cfg.output, e) || (!exports && lock_output(t, e)) ||
        open_data(t, e) || open_tokenizer(t, e))
        return e->code;
    return configure(t, config, e);
}

/* Up to and with stage `only`. Export takes the checkpoints as they are: the stages before it then only load theirs. */
static sumi_status run_stages(sm_trainer *t, const char *only, sm_err *e)
{
    size_t last = SM_COUNT(stages) - 1;
    t->as_is = only && !strcmp(only, stages[last].name);
    while (only && last && strcmp(only, stages[last].name))
        last--;
    if (only && strcmp(only, stages[last].name))
        return sm_fail(e, SUMI_E_ARG, "stage: '%s' is none of autoencoder, latents, flow, export", only);
    if (t->as_is) {
        t->steps_left = 0;
        t->resume = true;
    }
    for (size_t i = 0; i <= last; i++) {
        bool done = false;
        if (stages[i].run(t, &done, e))
            return e->code;
        if (!done && !t->as_is)
            return SUMI_OK;
    }
    return SUMI_OK;
}

static void close_all(sm_trainer *t)
{
    sm_weights_unref(&t->vae_weights);
    sm_weights_unref(&t->flow_weights);
    sm_free(t->latents);
    sm_free(t->merges);
    sm_bpe_free(t->bpe);
    sm_dataset_free(t->data);
    sm_train_config_free(&t->cfg);
    if (t->lock >= 0)
        close(t->lock);
}

sumi_status sumi_train(sumi_context *ctx, const char *config, const sumi_train_options *o, const sumi_callbacks *cb)
{
    sm_err *e = sm_begin(ctx);
    sumi_train_options none = {0};
    sm_trainer t = {.mem = &ctx->mem, .be = ctx->be, .pool = ctx->pool, .cb = cb, .started = sm_now(), .lock = -1};
    o = o ? o : &none;
    if (!ctx->be || !ctx->pool)
        return sm_fail(e, SUMI_E_ARG, "the context could not be made and holds only its error");
    if (!open_all(&t, config, o, e))
        run_stages(&t, o->stage, e);
    close_all(&t);
    return e->code;
}
