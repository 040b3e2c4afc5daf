/* Classifiers of noisy latents for tests (see classifier_file.h). */
#include "classifier_file.h"

#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "test.h"

enum { MOST = 160 };

/* The i-th number of an array. */
static double number(const cJSON *list, int i) { return cJSON_GetNumberValue(cJSON_GetArrayItem(list, i)); }

/* [name, dims, lo, hi] as a tensor with its values. */
static bool make(sm_arena *a, const cJSON *line, const classifier_change *c, bool half, sm_st_item *x)
{
    const cJSON *dims = cJSON_GetArrayItem(line, 1);
    const char *name = cJSON_GetStringValue(cJSON_GetArrayItem(line, 0));
    *x = (sm_st_item){.name = name, .t = {.dtype = SM_F32, .rank = cJSON_GetArraySize(dims)}, .convert = half, .as = SM_F16};
    for (int i = 0; i < x->t.rank; i++)
        x->t.dims[i] = (int64_t)number(dims, i);
    if (c && c->in_channels && !strcmp(name, "input_blocks.0.0.weight"))
        x->t.dims[1] = c->in_channels;
    if (c && c->cut && !strcmp(name, c->cut))
        x->t.dims[c->axis] = c->to;
    int64_t n = 1;
    for (int i = 0; i < x->t.rank; i++)
        n *= x->t.dims[i];
    x->t.data = sm_arena_get(a, (size_t)n * sizeof(float));
    if (x->t.data)
        test_fill(x->t.data, n, crc32(0, (const Bytef *)name, (uInt)strlen(name)), (float)number(line, 2),
                  (float)number(line, 3));
    return x->t.data != NULL;
}

static size_t metadata(const cJSON *one, const classifier_change *c, sm_st_meta meta[3])
{
    size_t n = 0;
    const cJSON *x;
    for (; c && c->metadata[0][0] && n < 3 && c->metadata[n][0]; n++)
        meta[n] = (sm_st_meta){c->metadata[n][0], c->metadata[n][1]};
    if (!c || !c->metadata[0][0])
        cJSON_ArrayForEach(x, cJSON_GetObjectItem(one, "metadata"))
            meta[n++] = (sm_st_meta){x->string, x->valuestring};
    return n;
}

const char *classifier_file(const cJSON *config, const char *name, const classifier_change *change, const char *as)
{
    static char path[256];
    static sm_st_item item[MOST];
    const cJSON *one = cJSON_GetObjectItem(config, name), *line;
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItem(one, "type"));
    sm_arena a;
    sm_err e = {0};
    sm_st_meta meta[3];
    size_t n = 0;
    sm_arena_init(&a, NULL, SM_MEM_MISC);
    snprintf(path, sizeof path, "%s", test_tmp(as));
    cJSON_ArrayForEach(line, cJSON_GetObjectItem(one, "tensors"))
    {
        const char *tensor = cJSON_GetStringValue(cJSON_GetArrayItem(line, 0));
        bool left_out = change && change->without && !strncmp(tensor, change->without, strlen(change->without));
        if (!left_out && n < MOST && make(&a, line, change, type && !strcmp(type, "f16"), &item[n]))
            n++;
    }
    sm_st_write(path, n, item, metadata(one, change, meta), meta, NULL, &e);
    CHECKF(n > 20 && !e.code, "classifier %s: %zu tensors, %s", name, n, e.msg);
    sm_arena_free(&a);
    return e.code ? "" : path;
}
