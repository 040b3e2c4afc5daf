/* A request's classifier from its file (see classify.h): what the tensors and the metadata say, and which class is meant. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/shown.h"
#include "io/json.h"
#include "io/tensors.h"
#include "pipeline/classify.h"
#include "pipeline/origin.h"

enum { SHOWN = 60, MOST_NAMES = 1 << 20 };

void sm_classify_free(sm_classify *k)
{
    if (!k)
        return;
    sm_weights_unref(&k->w);
    sm_free(k);
}

/* ---- metadata ------------------------------------------------------------------------------------------------------ */

/* A whole number of the metadata, 0 where it is not there. */
static sumi_status read_number(const sm_tensors *f, const char *key, int *out, sm_err *e)
{
    const char *text = sm_tensors_metadata(f, key);
    char shown[SHOWN], *end;
    long v = text ? strtol(text, &end, 10) : 0;
    *out = (int)v;
    if (!text || (*text && !*end && v >= 1 && v <= 1 << 16))
        return SUMI_OK;
    return sm_fail(e, SUMI_E_FORMAT, "its metadata says %s: \"%s\"; a number from 1 to 65536 was expected", key,
                   sm_shown(text, shown, sizeof shown));
}

static sumi_status read_hints(const sm_tensors *f, sm_classifier_hints *h, sm_err *e)
{
    const char *order = sm_tensors_metadata(f, "use_new_attention_order");
    *h = (sm_classifier_hints){.use_new_attention_order =
                                   order && (!strcmp(order, "True") || !strcmp(order, "true") || !strcmp(order, "1"))};
    if (read_number(f, "num_res_blocks", &h->num_res_blocks, e) || read_number(f, "num_heads", &h->num_heads, e))
        return e->code;
    return read_number(f, "num_head_channels", &h->num_head_channels, e);
}

/* The list of names, NULL where there is none. */
static cJSON *read_names(const sm_tensors *f, sm_mem *mem, sm_err *e)
{
    const char *text = sm_tensors_metadata(f, "class_names");
    cJSON *list = text ? sm_json_parse(mem, text, strlen(text), 2, MOST_NAMES, "its metadata, class_names", e) : NULL;
    const cJSON *x;
    bool good = cJSON_IsArray(list);
    cJSON_ArrayForEach(x, list)
        good = good && cJSON_IsString(x);
    if (list && !good)
        sm_fail(e, SUMI_E_FORMAT, "its metadata, class_names: a list of texts was expected");
    return list;
}

/* ---- class --------------------------------------------------------------------------------------------------------- */

/* "0 to 9", and names as far as they fit: ", or a name: cat, dog ...". */
static void list_classes(const sm_classify *k, const cJSON *names, char *out, size_t size)
{
    char shown[SHOWN];
    size_t n = (size_t)snprintf(out, size, "0 to %d", k->c.classes - 1);
    for (int i = 0; i < cJSON_GetArraySize(names) && i < k->c.classes; i++) {
        sm_shown(cJSON_GetArrayItem(names, i)->valuestring, shown, sizeof shown);
        if (n + strlen(shown) + 24 > size) {
            snprintf(out + n, size - n, " ...");
            return;
        }
        n += (size_t)snprintf(out + n, size - n, "%s%s", i ? ", " : ", or a name: ", shown);
    }
}

static sumi_status find_class(sm_classify *k, const char *class, const cJSON *names, sm_err *e)
{
    char list[300], *end;
    long v = strtol(class, &end, 10);
    const cJSON *x;
    int i = 0;
    cJSON_ArrayForEach(x, names)
    {
        if (class[0] && i < k->c.classes && !strcmp(x->valuestring, class))
            return k->label = i, SUMI_OK;
        i++;
    }
    k->label = (int)v;
    if (class[0] >= '0' && class[0] <= '9' && !*end && v < k->c.classes)
        return SUMI_OK;
    list_classes(k, names, list, sizeof list);
    if (!class[0])
        return sm_fail(e, SUMI_E_ARG, "--classifier: towards which class? give --class, %s", list);
    return sm_fail(e, SUMI_E_ARG, "--class: '%.40s' is no class of the classifier, which has %s", class, list);
}

/* ---- the whole ----------------------------------------------------------------------------------------------------- */

/* The file's tensors into k->w, its configuration; *names may be NULL afterwards. Messages name the file. */
static sumi_status read_file(sm_classify *k, const char *path, cJSON **names, sm_mem *mem, sm_err *e)
{
    sm_classifier_hints hints;
    sm_err why = {0};
    sm_tensors *f = sm_tensors_open(path, mem, e);
    *names = NULL;
    if (f && (read_hints(f, &hints, &why) || ((*names = read_names(f, mem, &why)), why.code))) {
        sm_tensors_close(f);
        return sm_fail(e, why.code, "%s: %s", path, why.msg);
    }
    return !f || sm_tensors_into(f, k->w, "classifier.", mem, e) ? e->code : sm_detect_classifier(k->w, &hints, &k->c, path, e);
}

static sumi_status load(sm_classify *k, const sumi_request *r, sm_mem *mem, sm_err *e)
{
    sm_err why = {0};
    cJSON *names;
    if (read_file(k, r->classifier, &names, mem, &why))
        sm_fail(e, why.code, "--classifier: %s", why.msg);
    else
        find_class(k, r->classifier_class, names, e);
    cJSON_Delete(names);
    return e->code;
}

static sumi_status check_model(const sm_job *j, sm_err *e)
{
    int has = j->classify->c.in_channels, wants = j->m->vae.latent_channels;
    if (has == wants)
        return SUMI_OK;
    return sm_fail(e, SUMI_E_ARG,
                   "--classifier: %s looks at %d channels%s, the latents of %s have %d; a classifier trained on its noisy "
                   "latents "
                   "is needed",
                   j->r.classifier, has, has == 3 ? " (pixels?)" : "", j->m->name, wants);
}

/* Which file it is, against what the request says. */
static sumi_status check_hash(sm_job *j, sm_err *e)
{
    sm_origin *o = sm_origin_new(&(sumi_model_options){0}, j->r.classifier, j->mem, e);
    if (!o)
        return e->code;
    snprintf(j->classify->hash, sizeof j->classify->hash, "%s", sm_origin_hash(o));
    sm_origin_free(o);
    if (j->r.classifier_hash[0] && strcmp(j->r.classifier_hash, j->classify->hash))
        return sm_fail(e, SUMI_E_ARG,
                       "--classifier-hash: %.20s is wanted, %s has %s; for another classifier leave it empty: --classifier-hash "
                       "\"\"",
                       j->r.classifier_hash, j->r.classifier, j->classify->hash);
    j->r.classifier_hash = j->classify->hash;
    return SUMI_OK;
}

sumi_status sm_classify_load(sm_job *j, sm_err *e)
{
    const sumi_request *r = &j->r;
    if (!r->classifier[0])
        return SUMI_OK;
    j->classify = sm_alloc0(j->mem, SM_MEM_WEIGHT, sizeof *j->classify);
    if (!j->classify)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for a classifier");
    j->classify->w = sm_weights_new(j->mem, e);
    if (!j->classify->w || load(j->classify, r, j->mem, e) || check_model(j, e))
        return e->code;
    return check_hash(j, e);
}

bool sm_classify_describe(const char *path, sm_mem *mem, char *out, size_t size)
{
    static const char *const pools[] = {"adaptive", "attention", "spatial", "spatial_v2"};
    sm_err why = {0};
    sm_classify k = {.w = sm_weights_new(mem, &why)};
    cJSON *names = NULL;
    bool ok = k.w && !read_file(&k, path, &names, mem, &why);
    if (ok)
        snprintf(out, size, "noisy classifier, %d classes%s, %d channels, %s pool", k.c.classes, names ? " with names" : "",
                 k.c.in_channels, pools[k.c.pool]);
    cJSON_Delete(names);
    sm_weights_unref(&k.w);
    return ok;
}
