/* Checkpoints made in memory (see layout_file.h). */
#include "layout_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

size_t layout_numel(const item *x)
{
    size_t n = 1;
    for (int i = 0; i < x->rank; i++)
        n *= (size_t)x->dims[i];
    return n;
}

static size_t width(const char *type)
{
    return !type || !strcmp(type, "I32") ? 4 : !strcmp(type, "I64") || !strcmp(type, "F64") ? 8 : strstr(type, "16") ? 2 : 1;
}

void layout_formula(const char *name, size_t n, float *out)
{
    uint32_t seed = (uint32_t)crc32(0, (const Bytef *)name, (uInt)strlen(name));
    for (size_t k = 0; k < n; k++)
        out[k] = (float)((seed + (uint32_t)k * 0x9E3779B1u) >> 8) / 16777216.0f;
}

static void header(sm_buf *b, const item *x, size_t n)
{
    size_t at = 0;
    sm_buf_fmt(b, "{");
    for (size_t i = 0; i < n; i++) {
        size_t bytes = layout_numel(&x[i]) * width(x[i].type);
        sm_buf_fmt(b, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "", x[i].name, x[i].type ? x[i].type : "F32");
        for (int d = 0; d < x[i].rank; d++)
            sm_buf_fmt(b, "%s%lld", d ? "," : "", (long long)x[i].dims[d]);
        sm_buf_fmt(b, "],\"data_offsets\":[%zu,%zu]}", at, at + bytes);
        at += bytes;
    }
    sm_buf_fmt(b, "}");
    while (b->len % 8)
        sm_buf_add(b, " ", 1);
}

sm_buf layout_file(const item *x, size_t n)
{
    sm_buf head = {0}, b = {0};
    header(&head, x, n);
    uint64_t len = head.len;
    sm_buf_add(&b, &len, 8);
    sm_buf_add(&b, head.data, head.len);
    sm_buf_free(&head);
    for (size_t i = 0; i < n; i++) {
        size_t k = layout_numel(&x[i]), bytes = k * width(x[i].type);
        float *v = calloc(k + 1, 8);
        if (!x[i].data)
            layout_formula(x[i].name, width(x[i].type) == 4 ? k : 0, v);
        sm_buf_add(&b, x[i].data ? x[i].data : v, bytes);
        free(v);
    }
    return b;
}

sumi_status layout_read(const sm_buf *file, sm_component only, sm_weights **w, sm_layout_report *r, sm_err *e)
{
    if (!*w)
        *w = sm_weights_new(NULL, NULL);
    sm_tensors *f = sm_tensors_open_mem(file->data, file->len, "file", NULL, e);
    return f ? sm_layout_into(f, *w, only, r, NULL, e) : e->code;
}

item layout_item(const char *name, int rank, int64_t a, int64_t b, int64_t c, int64_t d)
{
    item x = {.rank = rank, .dims = {a, b, c, d}};
    snprintf(x.name, sizeof x.name, "%s", name);
    return x;
}

sumi_status layout_read_items(const item *x, size_t n, sm_component only, sm_weights **w, sm_layout_report *r, sm_err *e)
{
    sm_buf file = layout_file(x, n);
    *w = sm_weights_new(NULL, NULL);
    sumi_status st = layout_read(&file, only, w, r, e);
    /* views point into the file: it is released with the table */
    if (sm_weights_keep(*w, sm_free, file.data, NULL) != SUMI_OK)
        st = SUMI_E_MEMORY;
    return st;
}
