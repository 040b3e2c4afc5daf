/* Writing a safetensors file in one pass, converting in small pieces, so that memory stays flat (see safetensors.h). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cpu/cpu.h"
#include "io/json.h"
#include "io/safetensors.h"

enum { PIECE = 8192 }; /* elements converted at a time */

static const char *const type_names[SM_DTYPES] = {"F32", "F16", "BF16", "I32"};

static sm_dtype stored(const sm_st_item *x) { return x->convert ? x->as : x->t.dtype; }

static size_t numel(const sm_st_item *x)
{
    size_t n = 1;
    for (int i = 0; i < x->t.rank; i++)
        n *= (size_t)x->t.dims[i];
    return n;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const sm_st_item *const *)a)->name, (*(const sm_st_item *const *)b)->name);
}

static int by_size_and_name(const void *a, const void *b)
{
    size_t m = sm_dtype_size(stored(*(const sm_st_item *const *)a)), n = sm_dtype_size(stored(*(const sm_st_item *const *)b));
    return m != n ? (m < n ? 1 : -1) : by_name(a, b);
}

static int by_key(const void *a, const void *b) { return strcmp(((const sm_st_meta *)a)->key, ((const sm_st_meta *)b)->key); }

/* ---- header ------------------------------------------------------------------------------------------------------ */

/* Eight bytes for the length, the JSON text, spaces up to a multiple of 8. */
static void put_header(sm_buf *b, size_t n, const sm_st_item *const *items, size_t nmeta, const sm_st_meta *meta)
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
        const sm_st_item *x = items[i];
        size_t bytes = numel(x) * sm_dtype_size(stored(x));
        sm_buf_add(b, ",", i > 0);
        sm_json_put_text(b, x->name);
        sm_buf_fmt(b, ":{\"dtype\":\"%s\",\"shape\":[", type_names[stored(x)]);
        for (int d = 0; d < x->t.rank; d++)
            sm_buf_fmt(b, d ? ",%lld" : "%lld", (long long)x->t.dims[d]);
        sm_buf_fmt(b, "],\"data_offsets\":[%zu,%zu]}", at, at + bytes);
        at += bytes;
    }
    sm_buf_fmt(b, "}");
    while (b->len % 8 && !b->oom)
        sm_buf_add(b, " ", 1);
    for (int i = 0; i < 8 && !b->oom; i++)
        b->data[i] = (char)((uint64_t)(b->len - 8) >> (8 * i));
}

/* ---- data -------------------------------------------------------------------------------------------------------- */

static float element(const sm_tensor *t, size_t i)
{
    if (t->dtype == SM_F32)
        return ((const float *)t->data)[i];
    uint16_t h = ((const uint16_t *)t->data)[i];
    return t->dtype == SM_F16 ? sm_f16_f32(h) : sm_bf16_f32(h);
}

/* Elements from..from+n of x into out; false when a finite value became infinite. */
static bool convert(const sm_st_item *x, size_t from, size_t n, void *out)
{
    bool fits = true;
    for (size_t i = 0; i < n; i++) {
        float v = element(&x->t, from + i), back = v;
        if (x->as == SM_F32) {
            ((float *)out)[i] = v;
        } else {
            uint16_t h = x->as == SM_F16 ? sm_f32_f16(v) : sm_f32_bf16(v);
            ((uint16_t *)out)[i] = h;
            back = x->as == SM_F16 ? sm_f16_f32(h) : sm_bf16_f32(h);
        }
        fits = fits && (!isinf(back) || isinf(v));
    }
    return fits;
}

static sumi_status put_data(sm_file_writer *w, const sm_st_item *x, const char *path, sm_err *e)
{
    size_t n = numel(x), each = sm_dtype_size(stored(x));
    if (stored(x) == x->t.dtype)
        return sm_file_writer_append(w, x->t.data, n * each, e);
    float piece[PIECE];
    sumi_status st = SUMI_OK;
    for (size_t at = 0; at < n && st == SUMI_OK; at += PIECE) {
        size_t k = SM_MIN(n - at, (size_t)PIECE);
        if (!convert(x, at, k, piece))
            st = sm_fail(e, SUMI_E_NUMERIC, "cannot write %s: tensor %s has values too large for %s", path, x->name, type_names[x->as]);
        else
            st = sm_file_writer_append(w, piece, k * each, e);
    }
    return st;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static sumi_status check_item(const sm_st_item *x, const char *path, sm_err *e)
{
    size_t bytes = 8;
    if (!x->name || !*x->name || !strcmp(x->name, "__metadata__") || !sm_utf8_valid(x->name, strlen(x->name)))
        return sm_fail(e, SUMI_E_ARG, "cannot write %s: a tensor's name is empty, reserved or not UTF-8", path);
    bool ok = (unsigned)x->t.dtype < SM_DTYPES && x->t.rank >= 0 && x->t.rank <= SM_MAX_DIMS;
    for (int i = 0; ok && i < x->t.rank; i++)
        ok = x->t.dims[i] >= 0 && sm_mul_ok(bytes, (size_t)x->t.dims[i], &bytes);
    if (!ok)
        return sm_fail(e, SUMI_E_ARG, "cannot write %s: tensor %s has a bad type or shape", path, x->name);
    if (x->convert && x->as != x->t.dtype && (x->as == SM_I32 || x->t.dtype == SM_I32 || (unsigned)x->as >= SM_DTYPES))
        return sm_fail(e, SUMI_E_ARG, "cannot write %s: tensor %s converts only between float types", path, x->name);
    return SUMI_OK;
}

/* Sorted copies of both lists, checked for names that appear twice. */
static sumi_status arrange(const char *path, size_t n, const sm_st_item **items, size_t nmeta, sm_st_meta *meta, sm_err *e)
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

static sumi_status write_all(const char *path, const sm_buf *header, size_t n, const sm_st_item *const *items, sm_mem *mem, sm_err *e)
{
    sm_file_writer *w = sm_file_writer_open(mem, path, e);
    if (!w)
        return e->code;
    sumi_status st = sm_file_writer_append(w, header->data, header->len, e);
    for (size_t i = 0; st == SUMI_OK && i < n; i++)
        st = put_data(w, items[i], path, e);
    if (st == SUMI_OK)
        return sm_file_writer_commit(w, e);
    sm_file_writer_abort(w);
    return st;
}

sumi_status sm_st_write(const char *path, size_t n, const sm_st_item *items, size_t nmeta, const sm_st_meta *meta, sm_mem *mem, sm_err *e)
{
    sm_err own = {0};
    sm_buf header = {.mem = mem};
    const sm_st_item **sorted = sm_alloc(mem, SM_MEM_MISC, (n + 1) * sizeof *sorted);
    sm_st_meta *pairs = sm_alloc(mem, SM_MEM_MISC, (nmeta + 1) * sizeof *pairs);
    if (!sorted || !pairs)
        sm_fail(&own, SUMI_E_MEMORY, "out of memory for writing %s", path);
    for (size_t i = 0; i < n && own.code == SUMI_OK; i++) {
        sorted[i] = &items[i];
        check_item(&items[i], path, &own);
    }
    for (size_t i = 0; i < nmeta && own.code == SUMI_OK; i++)
        pairs[i] = meta[i];
    if (own.code == SUMI_OK && arrange(path, n, sorted, nmeta, pairs, &own) == SUMI_OK) {
        put_header(&header, n, sorted, nmeta, pairs);
        if (header.oom)
            sm_fail(&own, SUMI_E_MEMORY, "out of memory for writing %s", path);
        else
            write_all(path, &header, n, sorted, mem, &own);
    }
    sm_buf_free(&header);
    sm_free(sorted);
    sm_free(pairs);
    if (own.code != SUMI_OK)
        sm_fail(e, own.code, "%s", own.msg);
    return own.code;
}

sumi_status sm_st_write_weights(const char *path, const sm_weights *w, sm_dtype as, size_t nmeta, const sm_st_meta *meta, sm_mem *mem,
                                sm_err *e)
{
    size_t n = sm_weights_count(w);
    sm_st_item *items = sm_alloc(mem, SM_MEM_MISC, (n + 1) * sizeof *items);
    if (!items)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for writing %s", path);
    for (size_t i = 0; i < n; i++) {
        const sm_weight *x = sm_weights_at(w, i);
        items[i] = (sm_st_item){.name = x->name, .t = x->t, .convert = x->t.dtype != SM_I32, .as = as};
    }
    sumi_status st = sm_st_write(path, n, items, nmeta, meta, mem, e);
    sm_free(items);
    return st;
}
