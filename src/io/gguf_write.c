/* Writing a GGUF file in one pass (version 3, little-endian), converting between storage types in small pieces, so that memory
 * stays flat (see gguf.h). */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "io/gguf_impl.h"

enum { PIECE = 4096 }; /* values converted at a time: a multiple of every block */

typedef struct layout { size_t values, bytes; } layout; /* of one tensor as it is written */

static uint64_t padded(uint64_t n, uint64_t alignment) { return (n + alignment - 1) & ~(alignment - 1); }

/* ---- checks ------------------------------------------------------------------------------------------------------ */

static bool name_ok(const char *s)
{
    size_t n = s ? strlen(s) : 0;
    if (!n || n > SM_GGUF_MAX_NAME || !sm_utf8_valid(s, n))
        return false;
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)s[i] < 0x20 || s[i] == 0x7f)
            return false;
    return true;
}

static sumi_status check_item(const sm_gguf_item *x, layout *l, const char *path, sm_err *e)
{
    if (!name_ok(x->name))
        return sm_fail(e, SUMI_E_ARG, "cannot write %s: a tensor's name is empty, too long, or not plain UTF-8", path);
    size_t n = 1, unused;
    bool ok = (unsigned)x->store < SM_STORES && (unsigned)x->as < SM_STORES && x->rank >= 0 && x->rank <= SM_GGUF_MAX_DIMS;
    for (int i = 0; ok && i < x->rank; i++)
        ok = x->dims[i] >= 0 && sm_mul_ok(n, (size_t)x->dims[i], &n);
    if (!ok || !sm_mul_ok(n, 8, &unused))
        return sm_fail(e, SUMI_E_ARG, "cannot write %s: tensor %s has a bad type or shape", path, x->name);
    if (sm_gguf_type_id(x->as) < 0)
        return sm_fail(e, SUMI_E_ARG, "cannot write %s: tensor %s cannot be %s, GGUF has no such type", path, x->name, sm_store_name(x->as));
    if (x->as != x->store && (x->store == SM_STORE_I32 || !sm_store_writable(x->as)))
        return sm_fail(e, SUMI_E_ARG, "cannot write %s: tensor %s cannot be made %s from %s", path, x->name, sm_store_name(x->as),
                       sm_store_name(x->store));
    int64_t row = x->rank ? x->dims[x->rank - 1] : 1;
    if (row % sm_store_block(x->as) || row % sm_store_block(x->store))
        return sm_fail(e, SUMI_E_ARG, "cannot write %s: tensor %s has rows of %lld values, no whole number of %s blocks", path, x->name,
                       (long long)row, sm_store_name(row % sm_store_block(x->as) ? x->as : x->store));
    *l = (layout){n, n / (size_t)sm_store_block(x->as) * sm_store_block_bytes(x->as)};
    return SUMI_OK;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static sumi_status check_twice(const char **names, size_t n, const char *kind, const char *path, sm_err *e)
{
    qsort(names, n, sizeof *names, by_text);
    for (size_t i = 1; i < n; i++)
        if (!strcmp(names[i - 1], names[i]))
            return sm_fail(e, SUMI_E_ARG, "cannot write %s: %s %s is given twice", path, kind, names[i]);
    return SUMI_OK;
}

/* names has room for the longer list. */
static sumi_status check_all(const char *path, size_t n, const sm_gguf_item *items, layout *l, size_t nmeta, const sm_gguf_meta *meta,
                             const char **names, uint64_t *alignment, sm_err *e)
{
    *alignment = SM_GGUF_ALIGNMENT;
    for (size_t i = 0; i < n; i++) {
        if (check_item(&items[i], &l[i], path, e) != SUMI_OK)
            return e->code;
        names[i] = items[i].name;
    }
    if (check_twice(names, n, "tensor", path, e) != SUMI_OK)
        return e->code;
    for (size_t i = 0; i < nmeta; i++) {
        const sm_gguf_value *v = &meta[i].value;
        if (!name_ok(meta[i].key))
            return sm_fail(e, SUMI_E_ARG, "cannot write %s: a metadata key is empty, too long, or not plain UTF-8", path);
        names[i] = meta[i].key;
        if (strcmp(meta[i].key, "general.alignment"))
            continue;
        if (v->type != SM_GGUF_U32 || !sm_gguf_alignment_ok(v->u) || v->u > 1 << 20)
            return sm_fail(e, SUMI_E_ARG, "cannot write %s: general.alignment must be a power of two up to 2^20, of type U32", path);
        *alignment = v->u;
    }
    return check_twice(names, nmeta, "metadata", path, e);
}

/* ---- header ------------------------------------------------------------------------------------------------------ */

static void put_number(sm_buf *b, uint64_t v, size_t bytes) { sm_buf_add(b, &v, bytes); } /* little-endian hosts only, as everywhere */

static bool put_text(sm_buf *b, const char *s, uint64_t n)
{
    put_number(b, n, 8);
    sm_buf_add(b, s, n);
    return n <= SM_GGUF_MAX_TEXT && !memchr(s, 0, n) && sm_utf8_valid(s, n);
}

/* False for a value that the reader would refuse. */
static bool put_value(sm_buf *b, const sm_gguf_value *v, int depth)
{
    if ((unsigned)v->type >= SM_GGUF_TYPES || (v->type == SM_GGUF_BOOL && v->u > 1))
        return false;
    if (v->type == SM_GGUF_STRING)
        return put_text(b, v->s, v->n);
    if (v->type != SM_GGUF_ARRAY) {
        float f = v->type == SM_GGUF_F32 ? (float)v->f : 0;
        sm_buf_add(b, v->type == SM_GGUF_F32 ? (const void *)&f : (const void *)&v->u, sm_gguf_value_size(v->type));
        return true;
    }
    if ((unsigned)v->of >= SM_GGUF_TYPES || depth == SM_GGUF_MAX_DEPTH)
        return false;
    put_number(b, (uint64_t)v->of, 4);
    put_number(b, v->n, 8);
    size_t each = sm_gguf_value_size(v->of), bytes;
    if (each) {
        bool ok = sm_mul_ok(v->n, each, &bytes);
        if (ok)
            sm_buf_add(b, v->raw, bytes);
        for (uint64_t i = 0; ok && v->of == SM_GGUF_BOOL && i < v->n; i++)
            ok = ((const uint8_t *)v->raw)[i] <= 1;
        return ok;
    }
    for (uint64_t i = 0; i < v->n; i++)
        if (v->items[i].type != v->of || !put_value(b, &v->items[i], depth + 1))
            return false;
    return true;
}

static sumi_status put_header(sm_buf *b, const char *path, size_t n, const sm_gguf_item *items, const layout *l, size_t nmeta,
                              const sm_gguf_meta *meta, uint64_t alignment, sm_err *e)
{
    sm_buf_add(b, "GGUF\3\0\0\0", 8);
    put_number(b, n, 8);
    put_number(b, nmeta, 8);
    for (size_t i = 0; i < nmeta; i++) {
        put_text(b, meta[i].key, strlen(meta[i].key));
        put_number(b, (uint64_t)meta[i].value.type, 4);
        if (!put_value(b, &meta[i].value, 0))
            return sm_fail(e, SUMI_E_ARG, "cannot write %s: metadata %s has a value that GGUF does not allow", path, meta[i].key);
    }
    for (size_t i = 0, at = 0; i < n; at = padded(at + l[i].bytes, alignment), i++) {
        const sm_gguf_item *x = &items[i];
        put_text(b, x->name, strlen(x->name));
        put_number(b, (uint64_t)x->rank, 4);
        for (int d = x->rank - 1; d >= 0; d--)
            put_number(b, (uint64_t)x->dims[d], 8);
        put_number(b, (uint64_t)sm_gguf_type_id(x->as), 4);
        put_number(b, at, 8);
    }
    while (b->len % alignment && !b->oom)
        sm_buf_add(b, "", 1);
    return b->oom ? sm_fail(e, SUMI_E_MEMORY, "out of memory for writing %s", path) : SUMI_OK;
}

/* ---- data -------------------------------------------------------------------------------------------------------- */

static sumi_status put_padding(sm_file_writer *w, uint64_t n, sm_err *e)
{
    static const uint8_t zeros[4096];
    sumi_status st = SUMI_OK;
    for (; n && st == SUMI_OK; n -= SM_MIN(n, sizeof zeros))
        st = sm_file_writer_append(w, zeros, (size_t)SM_MIN(n, sizeof zeros), e);
    return st;
}

static sumi_status put_data(sm_file_writer *w, const sm_gguf_item *x, const layout *l, const char *path, sm_err *e)
{
    if (x->as == x->store)
        return sm_file_writer_append(w, x->data, l->bytes, e);
    float piece[PIECE];
    uint8_t out[4 * PIECE];
    size_t in_block = (size_t)sm_store_block(x->store), in_bytes = sm_store_block_bytes(x->store);
    size_t out_block = (size_t)sm_store_block(x->as), out_bytes = sm_store_block_bytes(x->as);
    sumi_status st = SUMI_OK;
    for (size_t at = 0; at < l->values && st == SUMI_OK; at += PIECE) {
        size_t k = SM_MIN(l->values - at, (size_t)PIECE);
        sm_store_load(x->store, (const uint8_t *)x->data + at / in_block * in_bytes, (int64_t)k, piece);
        if (!sm_store_save(x->as, piece, (int64_t)k, out))
            st = sm_fail(e, SUMI_E_NUMERIC, "cannot write %s: tensor %s has values that are too large for %s or not finite", path, x->name,
                         sm_store_name(x->as));
        else
            st = sm_file_writer_append(w, out, k / out_block * out_bytes, e);
    }
    return st;
}

static sumi_status write_all(const char *path, const sm_buf *header, size_t n, const sm_gguf_item *items, const layout *l,
                             uint64_t alignment, sm_mem *mem, sm_err *e)
{
    sm_file_writer *w = sm_file_writer_open(mem, path, e);
    if (!w)
        return e->code;
    sumi_status st = sm_file_writer_append(w, header->data, header->len, e);
    for (size_t i = 0; st == SUMI_OK && i < n; i++) {
        st = put_data(w, &items[i], &l[i], path, e);
        if (st == SUMI_OK)
            st = put_padding(w, padded(l[i].bytes, alignment) - l[i].bytes, e);
    }
    if (st == SUMI_OK)
        return sm_file_writer_commit(w, e);
    sm_file_writer_abort(w);
    return st;
}

sumi_status sm_gguf_write(const char *path, size_t n, const sm_gguf_item *items, size_t nmeta, const sm_gguf_meta *meta, sm_mem *mem,
                          sm_err *e)
{
    sm_err own = {0};
    sm_buf header = {.mem = mem};
    uint64_t alignment;
    layout *l = sm_alloc(mem, SM_MEM_MISC, (n + 1) * sizeof *l);
    const char **names = sm_alloc(mem, SM_MEM_MISC, (SM_MAX(n, nmeta) + 1) * sizeof *names);
    if (!l || !names)
        sm_fail(&own, SUMI_E_MEMORY, "out of memory for writing %s", path);
    else if (check_all(path, n, items, l, nmeta, meta, names, &alignment, &own) == SUMI_OK &&
             put_header(&header, path, n, items, l, nmeta, meta, alignment, &own) == SUMI_OK)
        write_all(path, &header, n, items, l, alignment, mem, &own);
    sm_buf_free(&header);
    sm_free(l);
    sm_free(names);
    if (own.code != SUMI_OK)
        sm_fail(e, own.code, "%s", own.msg);
    return own.code;
}
