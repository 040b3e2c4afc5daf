/* The public calls around models of a hub: pull, list, find, remove (hub/hub.h does the work). What a listed model is, is read
 * off what it says about itself: the pipeline's class in model_index.json, or the family that the one file's tensors tell. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "hub/hub.h"
#include "io/json.h"
#include "io/tensors.h"
#include "model/detect.h"
#include "pipeline/builtin.h"
#include "pipeline/context.h"

/* ---- pull ---------------------------------------------------------------------------------------------------------- */

struct pulled { sumi_pulled pub; sm_hub_pulled own; };

sumi_status sumi_pull(sumi_context *ctx, const char *what, const sumi_pull_options *o, const sumi_callbacks *cb,
                      sumi_pulled **out)
{
    sm_err *e = sm_begin(ctx);
    sm_hub_settings s;
    if (out)
        *out = NULL;
    if (!what)
        return sm_fail(e, SUMI_E_ARG, "there is no name of a model to pull");
    struct pulled *p = sm_alloc0(&ctx->mem, SM_MEM_MISC, sizeof *p);
    if (!p)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory pulling %s", what);
    if (!sm_hub_settings_read(o, &s, e))
        sm_hub_pull(what, &s, o, cb, &ctx->mem, &p->own, e);
    explicit_bzero(s.token, sizeof s.token);
    p->pub = (sumi_pulled){p->own.path, p->own.commit, p->own.sha256, p->own.bytes, p->own.fetched, p->own.files};
    if (out && !e->code)
        *out = &p->pub;
    else
        sm_free(p);
    return e->code;
}

void sumi_pulled_free(sumi_pulled *p) { sm_free(p); } /* pub is the block's beginning */

/* ---- what a model is ----------------------------------------------------------------------------------------------- */

/* Texts of files go into lines of their own: printable ASCII only. */
static void add_plain(sm_buf *b, const char *s, size_t most)
{
    for (size_t i = 0; i < most && s[i]; i++)
        sm_buf_add(b, (unsigned char)s[i] < 0x20 || (unsigned char)s[i] > 0x7e ? "?" : s + i, 1);
}

/* "_class_name" of a folder's configuration; false: it has none. */
static bool class_of(const char *folder, const char *file, sm_mem *mem, sm_buf *out)
{
    char path[4200];
    sm_buf text = {.mem = mem};
    sm_err none = {0};
    cJSON *j = NULL;
    int n = snprintf(path, sizeof path, "%s/%s", folder, file);
    if (n > 0 && n < (int)sizeof path && !sm_file_read(path, 1 << 20, &text, &none) && text.data)
        j = sm_json_parse(mem, text.data, text.len, 32, 1 << 16, file, &none);
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(j, "_class_name");
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(j, "architectures");
    name = name ? name : cJSON_GetArrayItem(list, 0);
    bool has = cJSON_IsString(name);
    if (has)
        add_plain(out, name->valuestring, 80);
    cJSON_Delete(j);
    sm_buf_free(&text);
    return has;
}

/* The family that a file's tensors tell, or what it holds at all. Headers are read, weights stay on the disk. */
static void look_inside(const char *path, sm_mem *mem, sm_buf *out)
{
    sm_err none = {0};
    sm_tensors *f = sm_tensors_open(path, mem, &none);
    sm_weights *w = f ? sm_weights_new(mem, &none) : NULL;
    sm_layout_report r = {0};
    sm_detected d;
    size_t n = f ? sm_tensors_count(f) : 0;
    const char *format = f ? sm_tensors_format(f) : NULL;
    if (!w)
        sm_tensors_close(f);
    else if (!sm_layout_into(f, w, SM_COMPONENTS, &r, mem, &none) && !sm_detect(w, &r, path, &d, &none) && d.family)
        add_plain(out, d.traits.label, sizeof d.traits.label);
    if (format && !out->len)
        sm_buf_fmt(out, "%s, %zu tensors%s", format, n, r.lora ? ", a LoRA"
                   : r.controlnet ? ", a ControlNet" : r.embedding ? ", an embedding" : "");
    sm_weights_unref(&w);
}

static void describe(const sm_hub_entry *x, sm_mem *mem, sm_buf *out)
{
    struct stat st;
    if (!x->finished || stat(x->path, &st))
        return;
    if (!S_ISDIR(st.st_mode))
        look_inside(x->path, mem, out);
    else if (!class_of(x->path, "model_index.json", mem, out))
        class_of(x->path, "config.json", mem, out);
}

/* ---- list ---------------------------------------------------------------------------------------------------------- */

struct sumi_models {
    sm_hub_entries found;
    size_t n;
    sumi_model_entry at[];
};

static const char *keep(sumi_models *m, sm_buf *b, sm_err *e)
{
    const char *s = b->oom ? NULL : sm_arena_str(&m->found.arena, b->data ? b->data : "");
    sm_buf_free(b);
    if (!s)
        sm_fail(e, SUMI_E_MEMORY, "out of memory listing models");
    return s;
}

/* The single file of a snapshot stands for it: that is what --model takes. */
static void add_model(sumi_models *m, const sm_hub_settings *s, const sm_hub_entry *x, sm_mem *mem, sm_err *e)
{
    char path[4096];
    sm_err none = {0};
    sm_buf b = {.mem = mem}, where = {.mem = mem};
    sm_hub_entry y = *x;
    if (x->finished && !sm_hub_find_in(s, x->name, mem, path, sizeof path, &none) && !strncmp(path, x->path, strlen(x->path)))
        y.path = path;
    describe(&y, mem, &b);
    sm_buf_fmt(&where, "%s", y.path);
    const char *family = keep(m, &b, e), *at = keep(m, &where, e);
    m->at[m->n++] = (sumi_model_entry){x->name, at, family, x->bytes, x->files, x->finished, x->foreign};
}

static void add_builtin(sumi_models *m, sm_mem *mem, sm_err *e)
{
    char path[1024];
    sm_err none = {0};
    struct stat st;
    sm_buf b = {.mem = mem}, where = {.mem = mem};
    if (sm_builtin_find(path, sizeof path, &none) || stat(path, &st))
        return;
    describe(&(sm_hub_entry){.path = path, .finished = true}, mem, &b);
    sm_buf_fmt(&where, "%s", path);
    const char *family = keep(m, &b, e), *at = keep(m, &where, e);
    m->at[m->n++] = (sumi_model_entry){"built-in", at, family, (uint64_t)st.st_size, 1, 1, 0};
}

static sumi_status settings_for(const char *cache, sm_hub_settings *s, sm_err *e)
{
    return sm_hub_settings_read(&(sumi_pull_options){.cache = cache, .token = ""}, s, e);
}

sumi_status sumi_models_list(sumi_context *ctx, const char *cache, sumi_models **out)
{
    sm_err *e = sm_begin(ctx);
    sm_hub_settings s;
    sm_hub_entries found = {0};
    *out = NULL;
    if (settings_for(cache, &s, e))
        return e->code;
    sumi_models *m = NULL;
    if (!sm_hub_list(&s, &ctx->mem, &found, e))
        m = sm_alloc0(&ctx->mem, SM_MEM_MISC, sizeof *m + (found.n + 1) * sizeof m->at[0]);
    if (!m) {
        sm_hub_entries_free(&found);
        return sm_fail(e, SUMI_E_MEMORY, "out of memory listing models");
    }
    m->found = found;
    add_builtin(m, &ctx->mem, e);
    for (size_t i = 0; i < found.n; i++)
        add_model(m, &s, &found.at[i], &ctx->mem, e);
    if (e->code)
        sumi_models_free(m);
    else
        *out = m;
    return e->code;
}

size_t sumi_models_count(const sumi_models *m) { return m ? m->n : 0; }
const sumi_model_entry *sumi_models_at(const sumi_models *m, size_t i) { return m && i < m->n ? &m->at[i] : NULL; }

void sumi_models_free(sumi_models *m)
{
    if (m)
        sm_hub_entries_free(&m->found);
    sm_free(m);
}

/* ---- find, remove -------------------------------------------------------------------------------------------------- */

sumi_status sumi_models_find(sumi_context *ctx, const char *cache, const char *name, char **path)
{
    sm_err *e = sm_begin(ctx);
    char found[4096];
    sm_hub_settings s;
    sm_buf b = {.mem = &ctx->mem};
    *path = NULL;
    if (!name)
        return sm_fail(e, SUMI_E_ARG, "sumi_models_find: no name of a model");
    if (settings_for(cache, &s, e) || sm_hub_find_in(&s, name, &ctx->mem, found, sizeof found, e))
        return e->code;
    sm_buf_fmt(&b, "%s", found);
    *path = b.data;
    return b.oom ? sm_fail(e, SUMI_E_MEMORY, "out of memory looking for %s", name) : SUMI_OK;
}

sumi_status sumi_models_remove(sumi_context *ctx, const char *cache, const char *name, uint64_t *freed)
{
    sm_err *e = sm_begin(ctx);
    sm_hub_settings s;
    uint64_t bytes = 0;
    if (!settings_for(cache, &s, e) && name && !strcmp(name, "built-in"))
        sm_fail(e, SUMI_E_ARG, "the built-in model belongs to the program and is not removed");
    if (!e->code)
        sm_hub_remove(&s, name ? name : "", &ctx->mem, &bytes, e);
    if (freed)
        *freed = bytes;
    return e->code;
}
