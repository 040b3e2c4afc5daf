/* Fuzz entry of the layouts: lines `NAME D,D,...` are the tensors of a file. Whatever they are called and whatever shapes they
 * have, reading fails with a message or gives a table; what can be exported from it reads as the same table again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/layout.h"

enum { MOST = 400, VALUES = 4096 };

typedef struct line {
    char name[240];
    int rank;
    int64_t dims[SM_MAX_DIMS], n;
    const void *data;
} line;

static void check(bool ok)
{
    if (!ok)
        abort();
}

/* One line; false for one that is no tensor. */
static bool read_line(const char *s, size_t n, line *x)
{
    size_t k = 0;
    *x = (line){.n = 1};
    for (; k < n && s[k] != ' ' && k + 1 < sizeof x->name; k++)
        x->name[k] = s[k] < ' ' || s[k] > '~' || s[k] == '"' || s[k] == '\\' ? '_' : s[k];
    for (const char *p = s + k + 1; k && k < n && p < s + n && *p >= '0' && *p <= '9' && x->rank < SM_MAX_DIMS; p++) {
        int64_t d = 0;
        for (; p < s + n && *p >= '0' && *p <= '9' && d <= VALUES; p++)
            d = d * 10 + (*p - '0');
        x->dims[x->rank++] = d;
        x->n *= d;
        if (x->n > VALUES)
            return false;
    }
    return k > 0;
}

static sm_buf make_file(const line *x, size_t n)
{
    sm_buf h = {0}, b = {0};
    size_t at = 0;
    sm_buf_fmt(&h, "{");
    for (size_t i = 0; i < n; i++) {
        sm_buf_fmt(&h, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", i ? "," : "", x[i].name);
        for (int d = 0; d < x[i].rank; d++)
            sm_buf_fmt(&h, "%s%lld", d ? "," : "", (long long)x[i].dims[d]);
        sm_buf_fmt(&h, "],\"data_offsets\":[%zu,%zu]}", at, at + 4 * (size_t)x[i].n);
        at += 4 * (size_t)x[i].n;
    }
    sm_buf_fmt(&h, "}");
    while (h.len % 8)
        sm_buf_add(&h, " ", 1);
    uint64_t len = h.len;
    sm_buf_add(&b, &len, 8);
    sm_buf_add(&b, h.data, h.len);
    for (size_t i = 0; i < n; i++)
        for (int64_t k = 0; k < x[i].n; k++) {
            uint32_t v = (uint32_t)(i * 7919 + (size_t)k);
            sm_buf_add(&b, x[i].data ? (const char *)x[i].data + 4 * k : (const char *)&v, 4);
        }
    sm_buf_free(&h);
    return b;
}

static sumi_status read_file(const sm_buf *file, sm_weights *w, sm_layout_report *r, sm_mem *mem)
{
    sm_err e = {0};
    sm_tensors *f = sm_tensors_open_mem(file->data, file->len, "fuzz", mem, &e);
    sumi_status st = f ? sm_layout_into(f, w, SM_COMPONENTS, r, mem, &e) : e.code;
    check(st == e.code && (st == SUMI_OK || (e.msg[0] && !strchr(e.msg, '\n'))));
    return st;
}

/* The line of an exported tensor, with data that the caller frees. */
static void export_line(const sm_layout_export *y, line *x)
{
    *x = (line){.rank = y->rank, .n = 1};
    snprintf(x->name, sizeof x->name, "%s", y->name);
    for (int d = 0; d < y->rank; d++)
        x->n *= x->dims[d] = y->dims[d];
    char *data = malloc(4 * (size_t)x->n + 1);
    size_t at = 0;
    for (int p = 0; p < y->parts; at += y->part[p++]->bytes) {
        check(at + y->part[p]->bytes <= 4 * (size_t)x->n);
        memcpy(data + at, y->part[p]->t.data, y->part[p]->bytes);
    }
    check(at == 4 * (size_t)x->n);
    for (int64_t i = 0; y->transpose && i < y->dims[0]; i++)
        for (int64_t k = 0; k < y->dims[1]; k++)
            memcpy(data + 4 * (i * y->dims[1] + k), (const char *)y->part[0]->t.data + 4 * (k * y->dims[0] + i), 4);
    x->data = data;
}

/* The export of w reads as w, except for what SD 2.x's text encoder leaves out. */
static void back(const sm_weights *w, sm_mem *mem)
{
    sm_err e = {0};
    sm_layout_report r;
    sm_layout_export *out = NULL;
    size_t n = 0;
    if (sm_layout_original(w, &out, &n, mem, &e) != SUMI_OK) {
        check(e.msg[0] && !out && !n);
        return;
    }
    line *x = calloc(n + 1, sizeof *x);
    bool openclip = false;
    for (size_t i = 0; i < n; i++) {
        export_line(&out[i], &x[i]);
        openclip |= !strncmp(x[i].name, "cond_stage_model.model.", 23);
    }
    sm_buf file = make_file(x, n);
    sm_weights *again = sm_weights_new(mem, &e);
    check(again && read_file(&file, again, &r, mem) == SUMI_OK && !r.unknown);
    check(sm_weights_count(again) == sm_weights_count(w) || openclip);
    for (size_t i = 0; i < sm_weights_count(again); i++) {
        const sm_weight *b = sm_weights_at(again, i), *a = sm_weights_find(w, b->name);
        check(a && a->bytes == b->bytes && a->t.rank == b->t.rank && !memcmp(a->t.data, b->t.data, a->bytes));
    }
    sm_weights_unref(&again);
    sm_buf_free(&file);
    for (size_t i = 0; i < n; i++)
        free((void *)x[i].data);
    free(x);
    sm_free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    line *x = calloc(MOST, sizeof *x);
    size_t n = 0;
    for (size_t at = 0, end; at < size && n < MOST; at = end + 1) {
        for (end = at; end < size && data[end] != '\n'; end++)
            ;
        n += read_line((const char *)data + at, end - at, &x[n]);
    }
    sm_mem mem = {0};
    sm_err e = {0};
    sm_layout_report r = {0};
    sm_buf file = make_file(x, n);
    sm_weights *w = sm_weights_new(&mem, &e);
    check(w != NULL);
    if (read_file(&file, w, &r, &mem) == SUMI_OK)
        back(w, &mem);
    sm_weights_unref(&w);
    check(mem.total == 0);
    sm_buf_free(&file);
    free(x);
    return 0;
}
