/* Writing a GGUF file in one pass (version 3, little-endian; see gguf.h and out.h). */
#include <stdlib.h>
#include <string.h>

#include "io/gguf_impl.h"

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

/* The format's number of the type, -1 for none. */
static int type_of(const sm_out_tensor *x) { return x->parts ? sm_gguf_type_id(x->as) : sm_gguf_raw_id(x->raw); }

static sumi_status check_item(const sm_out_tensor *x, const char *path, sm_err *e)
{
    if (!name_ok(x->name))
        return sm_fail(e, SUMI_E_ARG, "cannot write %s: a tensor's name is empty, too long, or not plain UTF-8", path);
    if (sm_out_check(x, path, e) != SUMI_OK)
        return e->code;
    if (type_of(x) < 0)
        return sm_fail(e, SUMI_E_ARG, "cannot write %s: tensor %s cannot be %s, GGUF has no such type", path, x->name,
                       x->parts ? sm_store_name(x->as) : x->raw);
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
static sumi_status check_all(const char *path, const sm_out *o, size_t nmeta, const sm_gguf_meta *meta, const char **names,
                             uint64_t *alignment, sm_err *e)
{
    *alignment = SM_GGUF_ALIGNMENT;
    for (size_t i = 0; i < o->n; i++) {
        if (check_item(&o->t[i], path, e) != SUMI_OK)
            return e->code;
        names[i] = o->t[i].name;
    }
    if (check_twice(names, o->n, "tensor", path, e) != SUMI_OK)
        return e->code;
    for (size_t i = 0; i < nmeta; i++) {
        const sm_gguf_value *v = &meta[i].value;
        if (!name_ok(meta[i].key))
            return sm_fail(e, SUMI_E_ARG, "cannot write %s: a metadata key is empty, too long, or not plain UTF-8", path);
        names[i] = meta[i].key;
        if (strcmp(meta[i].key, "general.alignment"))
            continue;
        if (v->type != SM_GGUF_U32 || !sm_gguf_alignment_ok(v->u) || v->u > 1 << 20)
            return sm_fail(e, SUMI_E_ARG, "cannot write %s: general.alignment must be a power of two up to 2^20, of type U32",
                           path);
        *alignment = v->u;
    }
    return check_twice(names, nmeta, "metadata", path, e);
}

/* ---- header ------------------------------------------------------------------------------------------------------ */

/* Little-endian hosts only, as everywhere. */
static void put_number(sm_buf *b, uint64_t v, size_t bytes) { sm_buf_add(b, &v, bytes); }

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

static sumi_status put_header(sm_buf *b, const char *path, const sm_out *o, size_t nmeta, const sm_gguf_meta *meta,
                              uint64_t alignment, sm_err *e)
{
    sm_buf_add(b, "GGUF\3\0\0\0", 8);
    put_number(b, o->n, 8);
    put_number(b, nmeta, 8);
    for (size_t i = 0; i < nmeta; i++) {
        put_text(b, meta[i].key, strlen(meta[i].key));
        put_number(b, (uint64_t)meta[i].value.type, 4);
        if (!put_value(b, &meta[i].value, 0))
            return sm_fail(e, SUMI_E_ARG, "cannot write %s: metadata %s has a value that GGUF does not allow", path, meta[i].key);
    }
    for (size_t i = 0, at = 0; i < o->n; at = padded(at + sm_out_bytes(&o->t[i]), alignment), i++) {
        const sm_out_tensor *x = &o->t[i];
        put_text(b, x->name, strlen(x->name));
        put_number(b, (uint64_t)x->rank, 4);
        for (int d = x->rank - 1; d >= 0; d--)
            put_number(b, (uint64_t)x->dims[d], 8);
        put_number(b, (uint64_t)type_of(x), 4);
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

static sumi_status write_all(const char *path, const sm_buf *header, const sm_out *o, uint64_t alignment, sm_mem *mem, sm_err *e)
{
    sm_file_writer *w = sm_file_writer_open(mem, path, e);
    if (!w)
        return e->code;
    sumi_status st = sm_file_writer_append(w, header->data, header->len, e);
    for (size_t i = 0; st == SUMI_OK && i < o->n; i++) {
        size_t bytes = sm_out_bytes(&o->t[i]);
        st = sm_out_data(w, o, &o->t[i], path, mem, e);
        if (st == SUMI_OK)
            st = put_padding(w, padded(bytes, alignment) - bytes, e);
    }
    if (st == SUMI_OK)
        return sm_file_writer_commit(w, e);
    sm_file_writer_abort(w);
    return st;
}

sumi_status sm_gguf_write_out(const char *path, const sm_out *o, size_t nmeta, const sm_gguf_meta *meta, sm_mem *mem, sm_err *e)
{
    sm_err own = {0};
    sm_buf header = {.mem = mem};
    uint64_t alignment;
    const char **names = sm_alloc(mem, SM_MEM_MISC, (SM_MAX(o->n, nmeta) + 1) * sizeof *names);
    if (!names)
        sm_fail(&own, SUMI_E_MEMORY, "out of memory for writing %s", path);
    else if (check_all(path, o, nmeta, meta, names, &alignment, &own) == SUMI_OK &&
             put_header(&header, path, o, nmeta, meta, alignment, &own) == SUMI_OK)
        write_all(path, &header, o, alignment, mem, &own);
    sm_buf_free(&header);
    sm_free(names);
    if (own.code != SUMI_OK)
        sm_fail(e, own.code, "%s", own.msg);
    return own.code;
}

sumi_status sm_gguf_write(const char *path, size_t n, const sm_gguf_item *items, size_t nmeta, const sm_gguf_meta *meta,
                          sm_mem *mem, sm_err *e)
{
    sm_out_tensor *t = sm_alloc0(mem, SM_MEM_MISC, (n + 1) * sizeof *t);
    if (!t)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for writing %s", path);
    for (size_t i = 0; i < n; i++) {
        const sm_gguf_item *x = &items[i];
        t[i] = (sm_out_tensor){.name = x->name, .rank = x->rank, .as = x->as, .parts = 1};
        t[i].part[0] = (sm_out_part){.t = {.data = (void *)x->data, .dtype = x->store}, .n = 1};
        for (int k = 0; k < x->rank && k < SM_GGUF_MAX_DIMS; k++) {
            t[i].dims[k] = x->dims[k];
            if (x->dims[k] < 0 || __builtin_mul_overflow(t[i].part[0].n, x->dims[k], &t[i].part[0].n))
                t[i].part[0].n = -1; /* refused by the check */
        }
    }
    sumi_status st = sm_gguf_write_out(path, &(sm_out){.n = n, .t = t}, nmeta, meta, mem, e);
    sm_free(t);
    return st;
}
