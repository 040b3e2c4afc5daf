/* Writing a safetensors file in one pass (see safetensors.h and out.h). */
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "io/out.h"

/* ---- order ------------------------------------------------------------------------------------------------------- */

/* Bytes that a tensor's data is aligned to. */
static size_t element(const sm_out_tensor *x)
{
    if (x->parts)
        return sm_dtype_size(x->as);
    for (size_t n = 8; n > 1; n /= 2) /* the number in the type's name is bits: I64, F8_E8M0 */
        if (atoi(x->raw + strcspn(x->raw, "0123456789")) == (int)(8 * n))
            return n;
    return 1;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const sm_out_tensor *const *)a)->name, (*(const sm_out_tensor *const *)b)->name);
}

static int by_size_and_name(const void *a, const void *b)
{
    size_t m = element(*(const sm_out_tensor *const *)a), n = element(*(const sm_out_tensor *const *)b);
    return m != n ? (m < n ? 1 : -1) : by_name(a, b);
}

static int by_key(const void *a, const void *b) { return strcmp(((const sm_st_meta *)a)->key, ((const sm_st_meta *)b)->key); }

/* ---- header ------------------------------------------------------------------------------------------------------ */

/* Eight bytes for the length, the JSON text, spaces up to a multiple of 8. */
static void put_header(sm_buf *b, size_t n, const sm_out_tensor *const *items, size_t nmeta, const sm_st_meta *meta)
{
    sm_buf_add(b, "\0\0\0\0\0\0\0\0{", 9);
    if (nmeta)
        sm_buf_fmt(b, "\"__metadata__\":{");
    for (size_t i = 0; i < nmeta; i++) {
        sm_buf_add(b, ",", i > 0);
        sm_json_put_text(b, meta[i].key);
        sm_buf_fmt(b, ":");
        sm_json_put_text(b, meta[i].value);
    }
    sm_buf_add(b, "},", nmeta ? n ? 2 : 1 : 0);
    for (size_t i = 0, at = 0; i < n; i++) {
        const sm_out_tensor *x = items[i];
        size_t bytes = sm_out_bytes(x);
        sm_buf_add(b, ",", i > 0);
        sm_json_put_text(b, x->name);
        sm_buf_fmt(b, ":{\"dtype\":\"%s\",\"shape\":[", x->parts ? sm_store_name(x->as) : x->raw);
        for (int d = 0; d < x->rank; d++)
            sm_buf_fmt(b, d ? ",%lld" : "%lld", (long long)x->dims[d]);
        sm_buf_fmt(b, "],\"data_offsets\":[%zu,%zu]}", at, at + bytes);
        at += bytes;
    }
    sm_buf_fmt(b, "}");
    while (b->len % 8 && !b->oom)
        sm_buf_add(b, " ", 1);
    for (int i = 0; i < 8 && !b->oom; i++)
        b->data[i] = (char)((uint64_t)(b->len - 8) >> (8 * i));
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static sumi_status check_item(const sm_out_tensor *x, const char *path, sm_err *e)
{
    if (!x->name || !*x->name || !strcmp(x->name, "__metadata__") || !sm_utf8_valid(x->name, strlen(x->name)))
        return sm_fail(e, SUMI_E_ARG, "cannot write %s: a tensor's name is empty, reserved or not UTF-8", path);
    if (sm_out_check(x, path, e) != SUMI_OK)
        return e->code;
    if (x->parts && sm_dtype_block(x->as) > 1)
        return sm_fail(e, SUMI_E_ARG, "cannot write %s: tensor %s cannot be %s, safetensors has no such type", path, x->name,
                       sm_store_name(x->as));
    return SUMI_OK;
}

/* Sorted copies of both lists, checked for names that appear twice. */
static sumi_status arrange(const char *path, size_t n, const sm_out_tensor **items, size_t nmeta, sm_st_meta *meta, sm_err *e)
{
    qsort(items, n, sizeof *items, by_name);
    for (size_t i = 1; i < n; i++)
        if (!strcmp(items[i - 1]->name, items[i]->name))
            return sm_fail(e, SUMI_E_ARG, "cannot write %s: tensor %s is given twice", path, items[i]->name);
    qsort(items, n, sizeof *items, by_size_and_name);
    qsort(meta, nmeta, sizeof *meta, by_key);
    for (size_t i = 0; i < nmeta; i++) {
        if (i && !strcmp(meta[i - 1].key, meta[i].key))
            return sm_fail(e, SUMI_E_ARG, "cannot write %s: metadata %s is given twice", path, meta[i].key);
        if (!sm_utf8_valid(meta[i].key, strlen(meta[i].key)) || !sm_utf8_valid(meta[i].value, strlen(meta[i].value)))
            return sm_fail(e, SUMI_E_ARG, "cannot write %s: metadata is not UTF-8", path);
    }
    return SUMI_OK;
}

static sumi_status write_all(const char *path, const sm_buf *header, const sm_out *o, const sm_out_tensor *const *items,
                             sm_mem *mem, sm_err *e)
{
    sm_file_writer *w = sm_file_writer_open(mem, path, e);
    if (!w)
        return e->code;
    sumi_status st = sm_file_writer_append(w, header->data, header->len, e);
    for (size_t i = 0; st == SUMI_OK && i < o->n; i++)
        st = sm_out_data(w, o, items[i], path, mem, e);
    if (st == SUMI_OK)
        return sm_file_writer_commit(w, e);
    sm_file_writer_abort(w);
    return st;
}

sumi_status sm_st_write_out(const char *path, const sm_out *o, size_t nmeta, const sm_st_meta *meta, sm_mem *mem, sm_err *e)
{
    sm_err own = {0};
    sm_buf header = {.mem = mem};
    const sm_out_tensor **sorted = sm_alloc(mem, SM_MEM_MISC, (o->n + 1) * sizeof *sorted);
    sm_st_meta *pairs = sm_alloc(mem, SM_MEM_MISC, (nmeta + 1) * sizeof *pairs);
    if (!sorted || !pairs)
        sm_fail(&own, SUMI_E_MEMORY, "out of memory for writing %s", path);
    for (size_t i = 0; i < o->n && own.code == SUMI_OK; i++) {
        sorted[i] = &o->t[i];
        check_item(&o->t[i], path, &own);
    }
    for (size_t i = 0; i < nmeta && own.code == SUMI_OK; i++)
        pairs[i] = meta[i];
    if (own.code == SUMI_OK && arrange(path, o->n, sorted, nmeta, pairs, &own) == SUMI_OK) {
        put_header(&header, o->n, sorted, nmeta, pairs);
        if (header.oom)
            sm_fail(&own, SUMI_E_MEMORY, "out of memory for writing %s", path);
        else
            write_all(path, &header, o, sorted, mem, &own);
    }
    sm_buf_free(&header);
    sm_free(sorted);
    sm_free(pairs);
    if (own.code != SUMI_OK)
        sm_fail(e, own.code, "%s", own.msg);
    return own.code;
}

/* ---- lists of views ---------------------------------------------------------------------------------------------- */

sumi_status sm_st_write(const char *path, size_t n, const sm_st_item *items, size_t nmeta, const sm_st_meta *meta, sm_mem *mem,
                        sm_err *e)
{
    sm_out_tensor *t = sm_alloc(mem, SM_MEM_MISC, (n + 1) * sizeof *t);
    if (!t)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for writing %s", path);
    for (size_t i = 0; i < n; i++)
        t[i] = sm_out_of(items[i].name, &items[i].t, items[i].convert ? items[i].as : items[i].t.dtype);
    sumi_status st = sm_st_write_out(path, &(sm_out){.n = n, .t = t}, nmeta, meta, mem, e);
    sm_free(t);
    return st;
}

sumi_status sm_st_write_weights(const char *path, const sm_weights *w, sm_dtype as, size_t nmeta, const sm_st_meta *meta,
                                sm_mem *mem, sm_err *e)
{
    size_t n = sm_weights_count(w);
    sm_out_tensor *t = sm_alloc(mem, SM_MEM_MISC, (n + 1) * sizeof *t);
    if (!t)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for writing %s", path);
    for (size_t i = 0; i < n; i++) {
        const sm_weight *x = sm_weights_at(w, i);
        t[i] = sm_out_of(x->name, &x->t, x->t.dtype == SM_I32 ? SM_I32 : as);
    }
    sumi_status st = sm_st_write_out(path, &(sm_out){.n = n, .t = t}, nmeta, meta, mem, e);
    sm_free(t);
    return st;
}
