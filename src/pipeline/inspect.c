/* sumi_inspect: what a file of tensors or a diffusers folder holds: components, parameters, types, and, where it is a model
 * sumi knows, which tensors are missing or unexpected (recording the model finds both). */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/shown.h"
#include "io/tensors.h"
#include "io/weight_files.h"
#include "pipeline/classify.h"
#include "pipeline/model.h"

enum { MAX_GROUPS = 32, MAX_LISTED = 20 };

typedef struct group { char name[80]; int tensors; double params, bytes; } group;

typedef struct report {
    sm_mem *mem;
    group component[MAX_GROUPS], type[MAX_GROUPS];
    int components, types, tensors;
    double params, bytes;
    char family[96], problem[640];
    const char *format, *unexpected[MAX_LISTED];
    int nunexpected;
} report;

static void count(group *g, int *n, const char *name, size_t len, double params, double bytes)
{
    int i = 0;
    len = SM_MIN(len, sizeof g[0].name - 1); /* what a name has more is not looked at */
    while (i < *n && (strncmp(g[i].name, name, len) || g[i].name[len]))
        i++;
    if (i == MAX_GROUPS)
        i--; /* the last group takes the rest */
    if (i == *n) {
        memcpy(g[i].name, name, len);
        (*n)++;
    }
    g[i].tensors++;
    g[i].params += params;
    g[i].bytes += bytes;
}

static void count_file(report *r, const sm_tensors *f, const char *component)
{
    for (size_t i = 0; i < sm_tensors_count(f); i++) {
        const sm_st_entry *x = sm_tensors_at(f, i);
        double params = 1;
        for (int d = 0; d < x->rank; d++)
            params *= (double)x->dims[d];
        const char *name = component ? component : x->name;
        count(r->component, &r->components, name, component ? strlen(name) : strcspn(name, "."), params, (double)x->bytes);
        count(r->type, &r->types, x->dtype, strlen(x->dtype), params, (double)x->bytes);
        r->tensors++;
        r->params += params;
        r->bytes += (double)x->bytes;
    }
}

static sumi_status count_one(report *r, const char *path, const char *component, sm_err *e)
{
    sm_tensors *f = sm_tensors_open(path, r->mem, e);
    if (f) {
        count_file(r, f, component);
        r->format = sm_tensors_format(f);
    }
    sm_tensors_close(f);
    return e->code;
}

static sumi_status count_path(report *r, const char *path, sm_err *e)
{
    static const char *const parts[] = {"text_encoder", "text_encoder_2", "text_encoder_3", "unet", "transformer", "vae"};
    char at[600];
    struct stat st;
    snprintf(at, sizeof at, "%.500s/model_index.json", path);
    if (stat(at, &st))
        return count_one(r, path, NULL, e);
    for (size_t i = 0; i < SM_COUNT(parts) && !e->code; i++) {
        sm_wf_set set;
        snprintf(at, sizeof at, "%.500s/%s", path, parts[i]);
        if (stat(at, &st))
            continue;
        sm_wf_find(at, r->mem, &set, e);
        for (int k = 0; k < set.n && !e->code; k++)
            count_one(r, set.path[k], parts[i], e);
        sm_wf_free(&set);
    }
    return e->code;
}

static void look_at_model(report *r, sumi_context *ctx, const char *path, sumi_model **m)
{
    sm_err why = {0};
    if (!sm_model_open(m, &ctx->mem, &(sumi_model_options){.path = path}, false, &why)) {
        snprintf(r->family, sizeof r->family, "%s, %s%s%s", (*m)->traits.label, (*m)->family->class_name,
                 (*m)->traits.assumed ? ", assumed " : "", (*m)->traits.assumed ? (*m)->traits.prediction : "");
        sm_model_complete(*m, true, path, &why); /* what nothing asked for then is unexpected */
        for (size_t i = 0; i < sm_weights_count((*m)->w); i++) {
            const sm_weight *w = sm_weights_at((*m)->w, i);
            if (!w->used && r->nunexpected < MAX_LISTED)
                r->unexpected[r->nunexpected++] = w->name;
        }
    }
    if (*m || !sm_classify_describe(path, &ctx->mem, r->family, sizeof r->family))
        snprintf(r->problem, sizeof r->problem, "%s", why.msg);
}

/* Names in a report: no longer than a line, nothing in them that a terminal would obey. */
enum { SHOWN = 120 };

static void write_groups(sm_buf *b, const char *title, const group *g, int n)
{
    char name[SHOWN];
    for (int i = 0; i < n; i++)
        sm_buf_fmt(b, "%-12s %-32s %6d tensors %10.3f M %9.2f MB\n", i ? "" : title, sm_shown(g[i].name, name, sizeof name),
                   g[i].tensors, g[i].params / 1e6, g[i].bytes / 1e6);
}

static void write_text(const report *r, const char *path, sm_buf *b)
{
    char file[4096];
    sm_buf_fmt(b, "%-12s %s, a %s\n%-12s %s\n", "file", sm_shown(path, file, sizeof file), r->format ? r->format : "folder",
               "family", r->family[0] ? r->family : "not a model that this version runs");
    write_groups(b, "components", r->component, r->components);
    write_groups(b, "types", r->type, r->types);
    sm_buf_fmt(b, "%-12s %d tensors, %.3f M parameters, %.2f MB\n", "all", r->tensors, r->params / 1e6, r->bytes / 1e6);
    if (r->problem[0])
        sm_buf_fmt(b, "%-12s %s\n", r->family[0] ? "missing" : "because", r->problem);
    for (int i = 0; i < r->nunexpected; i++) {
        char name[2 * SHOWN];
        sm_buf_fmt(b, "%-12s %s\n", i ? "" : "unexpected", sm_shown(r->unexpected[i], name, sizeof name));
    }
}

static void add_groups(cJSON *j, const char *name, const group *g, int n)
{
    cJSON *a = cJSON_AddArrayToObject(j, name);
    for (int i = 0; a && i < n; i++) {
        cJSON *o = cJSON_CreateObject();
        char text[SHOWN];
        cJSON_AddStringToObject(o, "name", sm_shown(g[i].name, text, sizeof text));
        cJSON_AddNumberToObject(o, "tensors", g[i].tensors);
        cJSON_AddNumberToObject(o, "parameters", g[i].params);
        cJSON_AddNumberToObject(o, "bytes", g[i].bytes);
        cJSON_AddItemToArray(a, o);
    }
}

static void write_json(const report *r, const char *path, sm_buf *b)
{
    cJSON *j = cJSON_CreateObject();
    char file[4096];
    cJSON_AddStringToObject(j, "file", sm_utf8_valid(path, strlen(path)) ? path : sm_shown(path, file, sizeof file));
    cJSON_AddItemToObject(j, "family", r->family[0] ? cJSON_CreateString(r->family) : cJSON_CreateNull());
    add_groups(j, "components", r->component, r->components);
    add_groups(j, "types", r->type, r->types);
    cJSON_AddNumberToObject(j, "tensors", r->tensors);
    cJSON_AddNumberToObject(j, "parameters", r->params);
    cJSON_AddItemToObject(j, "problem", r->problem[0] ? cJSON_CreateString(r->problem) : cJSON_CreateNull());
    cJSON *names = cJSON_AddArrayToObject(j, "unexpected");
    for (int i = 0; i < r->nunexpected; i++) {
        char name[4200]; /* whole, each byte escaped */
        cJSON_AddItemToArray(names, cJSON_CreateString(sm_shown(r->unexpected[i], name, sizeof name)));
    }
    char *text = cJSON_Print(j);
    sm_buf_fmt(b, "%s\n", text ? text : "");
    b->oom |= !text;
    cJSON_free(text);
    cJSON_Delete(j);
}

sumi_status sumi_inspect(sumi_context *ctx, const char *path, int json, char **out)
{
    sm_err *e = sm_begin(ctx);
    report r = {.mem = &ctx->mem};
    sumi_model *m = NULL;
    sm_buf b = {.mem = &ctx->mem};
    *out = NULL;
    if (!count_path(&r, path, e)) {
        look_at_model(&r, ctx, path, &m);
        (json ? write_json : write_text)(&r, path, &b);
        if (b.oom)
            sm_fail(e, SUMI_E_MEMORY, "out of memory inspecting %s", path);
    }
    sumi_model_free(m);
    if (e->code)
        sm_buf_free(&b);
    else
        *out = b.data;
    return e->code;
}
