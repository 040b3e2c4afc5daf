/* Reads the training configuration through one table of keys per section. */
#include "train/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "io/json.h"

typedef enum kind { K_INT, K_INT64, K_FLOAT, K_DOUBLE, K_BOOL, K_TEXT, K_OBJECT, K_LIST } kind;

typedef struct key {
    const char *name;
    kind kind;
    size_t at, count_at;         /* offsets into sm_train_config; count_at: of a list's length */
    double lo, hi, def;          /* numbers: range and default; texts: def 1 means required */
} key;

#define AT(f) offsetof(sm_train_config, f)
#define OPT(p, STEPS, BATCH, LR) \
    {"steps", K_INT64, AT(p.steps), 0, 1, 1e12, STEPS}, {"warmup", K_INT64, AT(p.warmup), 0, 0, 1e9, 500}, \
    {"batch", K_INT, AT(p.batch), 0, 1, 65536, BATCH}, {"lr", K_FLOAT, AT(p.lr), 0, 0, 10, LR}, \
    {"min_lr", K_FLOAT, AT(p.min_lr), 0, 0, 10, 0}, {"beta1", K_FLOAT, AT(p.beta1), 0, 0, 0.99999, 0.9}, \
    {"beta2", K_FLOAT, AT(p.beta2), 0, 0, 0.999999, 0.99}, {"eps", K_FLOAT, AT(p.eps), 0, 0, 1, 1e-8}, \
    {"weight_decay", K_FLOAT, AT(p.weight_decay), 0, 0, 10, 0.01}, {"clip", K_FLOAT, AT(p.clip), 0, 0, 1e9, 1}, \
    {"ema", K_FLOAT, AT(p.ema), 0, 0, 0.999999, 0.999}, {"save_every", K_INT64, AT(p.save_every), 0, 1, 1e12, 500}, \
    {"log_every", K_INT64, AT(p.log_every), 0, 1, 1e12, 20}

static const key top_keys[] = {
    {"name", K_TEXT, AT(name), 0, 0, 0, 1}, {"output", K_TEXT, AT(output), 0, 0, 0, 1},
    {"seed", K_DOUBLE, AT(seed), 0, 0, 9007199254740992.0, 1},
    {"vocab_size", K_INT, AT(vocab_size), 0, 514, 65536, 2048}, {"vae", K_OBJECT, AT(vae), 0, 0, 0, 1},
    {"text_encoder", K_OBJECT, AT(text_encoder), 0, 0, 0, 1}, {"denoiser", K_OBJECT, AT(denoiser), 0, 0, 0, 1},
};
static const key data_keys[] = {
    {"pictures", K_TEXT, AT(data.pictures), 0, 0, 0, 1}, {"index", K_TEXT, AT(data.index), 0, 0, 0, 1},
    {"styles", K_LIST, AT(data.styles), AT(data.nstyles), 0, SM_MAX_STYLES, 0},
    {"size", K_INT, AT(data.size), 0, 8, 4096, 128}, {"variants", K_INT, AT(data.variants), 0, 1, 1024, 8},
};
static const key vae_keys[] = {
    OPT(autoencoder.opt, 1000, 16, 1e-3), {"crop", K_INT, AT(autoencoder.crop), 0, 8, 4096, 64},
    {"kl_weight", K_FLOAT, AT(autoencoder.kl_weight), 0, 0, 1e6, 1e-6},
    {"edge_weight", K_FLOAT, AT(autoencoder.edge_weight), 0, 0, 1e6, 0.5},
    {"decoder_only", K_BOOL, AT(autoencoder.decoder_only), 0, 0, 0, 0},
};
static const key flow_keys[] = {
    OPT(flow.opt, 1000, 64, 1e-3), {"dropout", K_FLOAT, AT(flow.dropout), 0, 0, 1, 0.1},
    {"logit_mean", K_FLOAT, AT(flow.logit_mean), 0, -10, 10, 0}, {"logit_std", K_FLOAT, AT(flow.logit_std), 0, 0, 10, 1},
    {"plain", K_FLOAT, AT(flow.plain), 0, 0, 1, 0},
};
static const key validate_keys[] = {
    {"every", K_INT64, AT(validate.every), 0, 0, 1e12, 0}, {"steps", K_INT, AT(validate.steps), 0, 1, 1000, 20},
    {"cfg", K_FLOAT, AT(validate.cfg), 0, 0, 1000, 3},
    {"prompts", K_LIST, AT(validate.prompts), AT(validate.nprompts), 0, SM_MAX_PROMPTS, 0},
};

typedef struct section { const char *name; const key *keys; size_t n; bool required; } section;
static const section sections[] = {
    {NULL, top_keys, SM_COUNT(top_keys), true},
    {"data", data_keys, SM_COUNT(data_keys), true},
    {"autoencoder", vae_keys, SM_COUNT(vae_keys), true},
    {"flow", flow_keys, SM_COUNT(flow_keys), true},
    {"validate", validate_keys, SM_COUNT(validate_keys), false},
};

static void put_number(void *at, kind k, double v)
{
    switch (k) {
    case K_INT: *(int *)at = (int)v; break;
    case K_INT64: *(int64_t *)at = (int64_t)v; break;
    case K_FLOAT: *(float *)at = (float)v; break;
    case K_DOUBLE: *(double *)at = v; break;
    case K_BOOL: *(bool *)at = v != 0; break;
    default: break;
    }
}

static sumi_status read_list(void *base, const key *k, const cJSON *j, const char *where, sm_err *e)
{
    const char **out = (const char **)((char *)base + k->at);
    int *n = (int *)((char *)base + k->count_at);
    if (!cJSON_IsArray(j) || cJSON_GetArraySize(j) > (int)k->hi)
        return sm_fail(e, SUMI_E_FORMAT, "%s: must be a list of at most %d texts", where, (int)k->hi);
    const cJSON *it;
    cJSON_ArrayForEach(it, j)
    {
        if (!cJSON_IsString(it))
            return sm_fail(e, SUMI_E_FORMAT, "%s: every entry must be a text", where);
        out[(*n)++] = it->valuestring;
    }
    return SUMI_OK;
}

static sumi_status read_key(void *base, const key *k, const cJSON *j, const char *where, sm_err *e)
{
    void *at = (char *)base + k->at;
    if (k->kind == K_LIST)
        return read_list(base, k, j, where, e);
    if (k->kind == K_TEXT || k->kind == K_OBJECT) {
        if (k->kind == K_TEXT && cJSON_IsString(j) && !j->valuestring[0])
            return sm_fail(e, SUMI_E_FORMAT, "%s: is empty", where);
        if (k->kind == K_TEXT ? !cJSON_IsString(j) : !cJSON_IsObject(j))
            return sm_fail(e, SUMI_E_FORMAT, "%s: must be %s", where, k->kind == K_TEXT ? "a text" : "an object");
        *(const char **)at = k->kind == K_TEXT ? j->valuestring : cJSON_PrintUnformatted(j);
        return *(const char **)at ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "out of memory reading %s", where);
    }
    if (k->kind == K_BOOL ? !cJSON_IsBool(j) : !cJSON_IsNumber(j))
        return sm_fail(e, SUMI_E_FORMAT, "%s: must be %s", where, k->kind == K_BOOL ? "true or false" : "a number");
    double v = k->kind == K_BOOL ? cJSON_IsTrue(j) : j->valuedouble;
    bool whole = k->kind != K_FLOAT && k->kind != K_BOOL; /* the one K_DOUBLE is the seed */
    if (k->kind != K_BOOL && (!(v >= k->lo && v <= k->hi) || (whole && v != (double)(int64_t)v)))
        return sm_fail(e, SUMI_E_FORMAT, "%s: %g is not %s in %g to %g", where, v, whole ? "a whole number" : "a number", k->lo,
                       k->hi);
    put_number(at, k->kind, v);
    return SUMI_OK;
}

static bool is_section(const char *name)
{
    for (size_t i = 1; i < SM_COUNT(sections); i++)
        if (!strcmp(sections[i].name, name))
            return true;
    return false;
}

static sumi_status read_section(sm_train_config *c, const section *s, const cJSON *obj, const char *path, sm_err *e)
{
    const cJSON *it;
    char where[256];
    cJSON_ArrayForEach(it, obj)
    {
        const key *k = NULL;
        for (size_t i = 0; i < s->n && !k; i++)
            k = strcmp(s->keys[i].name, it->string) ? NULL : &s->keys[i];
        snprintf(where, sizeof where, "%.160s: %s%s%.60s", path, s->name ? s->name : "", s->name ? "." : "", it->string);
        if (!k && !(s->name == NULL && is_section(it->string)))
            return sm_fail(e, SUMI_E_FORMAT, "%s: unknown key", where);
        if (k && read_key(c, k, it, where, e))
            return e->code;
    }
    for (size_t i = 0; i < s->n; i++) {
        const key *k = &s->keys[i];
        if (cJSON_GetObjectItemCaseSensitive(obj, k->name))
            continue;
        if ((k->kind == K_TEXT || k->kind == K_OBJECT) && k->def != 0)
            return sm_fail(e, SUMI_E_FORMAT, "%s: %s%s%s is missing", path, s->name ? s->name : "", s->name ? "." : "", k->name);
        put_number((char *)c + k->at, k->kind, k->def);
    }
    return SUMI_OK;
}

/* The name is the exported file's name as well. */
static sumi_status check_name(const sm_train_config *c, const char *path, sm_err *e)
{
    bool ok = strlen(c->name) <= 80 && c->name[0] != '.';
    for (const char *p = c->name; *p; p++)
        ok = ok && (unsigned char)*p >= 0x20 && *p != 0x7f && *p != '/';
    return ok ? SUMI_OK : sm_fail(e, SUMI_E_FORMAT,
                                  "%s: name: at most 80 bytes, no '/' and no dot in front: it names the model's file", path);
}

/* The file as a JSON object; no name appears twice in an object. NULL on failure. */
static cJSON *parse(sm_mem *mem, const char *path, sm_err *e)
{
    sm_buf text = {.mem = mem};
    sm_err why = {0};
    if (sm_file_read(path, (size_t)1 << 20, &text, e))
        return NULL;
    cJSON *j = sm_json_parse(mem, text.data ? text.data : "", text.len, 16, 1 << 16, path, &why);
    sm_buf_free(&text);
    if (cJSON_IsObject(j))
        return j;
    if (j)
        sm_fail(e, SUMI_E_FORMAT, "%s: not a JSON object", path);
    else
        sm_fail(e, why.code, "%s: not a JSON object", why.msg);
    cJSON_Delete(j);
    return NULL;
}

sumi_status sm_train_config_load(sm_train_config *c, sm_mem *mem, const char *path, sm_err *e)
{
    *c = (sm_train_config){.mem = mem};
    const cJSON *j = c->json = parse(mem, path, e);
    sumi_status st = j ? SUMI_OK : e->code;
    for (size_t i = 0; i < SM_COUNT(sections) && !st; i++) {
        const section *s = &sections[i];
        const cJSON *obj = s->name ? cJSON_GetObjectItemCaseSensitive(j, s->name) : j;
        if (!obj && s->required)
            st = sm_fail(e, SUMI_E_FORMAT, "%s: section %s is missing", path, s->name);
        else if (obj && !cJSON_IsObject(obj))
            st = sm_fail(e, SUMI_E_FORMAT, "%s: %s must be an object", path, s->name);
        else
            st = read_section(c, s, obj, path, e);
    }
    if (!st)
        st = check_name(c, path, e);
    if (st)
        sm_train_config_free(c);
    return st;
}

void sm_train_config_free(sm_train_config *c)
{
    cJSON_Delete(c->json);
    cJSON_free((void *)c->vae);
    cJSON_free((void *)c->text_encoder);
    cJSON_free((void *)c->denoiser);
    *c = (sm_train_config){.mem = c->mem};
}
