/* Reading a GGUF file (see gguf.h). The header is believed in nothing: every count is held against the bytes that are left
 * before memory is taken for it, and afterwards every entry has a known size and lies within the file, apart from all others. */
#include "io/gguf_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

/* The format's tensor types: number, name, values and bytes of a block; store is -1 where sumi cannot read the values. */
static const struct tensor_type {
    const char *name;
    int id, block, bytes, store;
} tensor_types[] = {
    {"F32", 0, 1, 4, SM_F32}, {"F16", 1, 1, 2, SM_F16}, {"BF16", 30, 1, 2, SM_BF16}, {"I32", 26, 1, 4, SM_I32},
    {"Q4_0", 2, 32, 18, SM_Q4_0}, {"Q4_1", 3, 32, 20, SM_Q4_1}, {"Q5_0", 6, 32, 22, SM_Q5_0},
    {"Q5_1", 7, 32, 24, SM_Q5_1}, {"Q8_0", 8, 32, 34, SM_Q8_0}, {"Q2_K", 10, 256, 84, SM_Q2_K},
    {"Q3_K", 11, 256, 110, SM_Q3_K}, {"Q4_K", 12, 256, 144, SM_Q4_K}, {"Q5_K", 13, 256, 176, SM_Q5_K},
    {"Q6_K", 14, 256, 210, SM_Q6_K}, {"Q8_1", 9, 32, 40, -1}, {"Q8_K", 15, 256, 292, -1}, {"IQ2_XXS", 16, 256, 66, -1},
    {"IQ2_XS", 17, 256, 74, -1}, {"IQ3_XXS", 18, 256, 98, -1}, {"IQ1_S", 19, 256, 50, -1}, {"IQ4_NL", 20, 32, 18, -1},
    {"IQ3_S", 21, 256, 110, -1}, {"IQ2_S", 22, 256, 82, -1}, {"IQ4_XS", 23, 256, 136, -1}, {"I8", 24, 1, 1, -1},
    {"I16", 25, 1, 2, -1},
    {"I64", 27, 1, 8, -1}, {"F64", 28, 1, 8, -1}, {"IQ1_M", 29, 256, 56, -1}, {"TQ1_0", 34, 256, 54, -1},
    {"TQ2_0", 35, 256, 66, -1},
    {"MXFP4", 39, 32, 17, -1}, {"NVFP4", 40, 64, 36, -1}, {"Q1_0", 41, 128, 18, -1},
};

struct sm_gguf {
    sm_mem *mem;
    sm_arena arena;         /* names, keys, texts, arrays of texts */
    sm_map *map;            /* NULL for memory */
    int version;
    sm_st_entry *entries; /* sorted by name */
    size_t count;
    sm_gguf_meta *meta;     /* sorted by key */
    size_t nmeta;
};

int sm_gguf_type_id(sm_dtype t)
{
    for (size_t i = 0; i < SM_COUNT(tensor_types); i++)
        if (tensor_types[i].store == (int)t)
            return tensor_types[i].id;
    return -1;
}

int sm_gguf_raw_id(const char *name)
{
    for (size_t i = 0; i < SM_COUNT(tensor_types); i++)
        if (!strcmp(tensor_types[i].name, name))
            return tensor_types[i].id;
    return -1;
}

bool sm_gguf_has_type(const char *name) { return sm_gguf_raw_id(name) >= 0; }

size_t sm_gguf_value_size(sm_gguf_type t)
{
    static const uint8_t sizes[SM_GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return sizes[t];
}

/* ---- the header's bytes ------------------------------------------------------------------------------------------ */

/* One file while its header is read. A reading that fails records the reason in e and makes all later ones give zeros. */
typedef struct reader {
    sm_gguf *f;
    const char *label;
    const uint8_t *data;
    size_t size, at;
    uint64_t items;     /* taken of SM_GGUF_MAX_ITEMS */
    uint64_t alignment;
    char where[96];     /* what is being read, for messages */
    sm_err *e;
} reader;

static bool bad(const reader *r, const char *what)
{
    return sm_fail(r->e, SUMI_E_FORMAT, "%s: %s %s", r->label, r->where, what), false;
}
static bool no_memory(const reader *r)
{
    return sm_fail(r->e, SUMI_E_MEMORY, "%s: out of memory for its header", r->label), false;
}

static bool bad_entry(const reader *r, const char *name, const char *what)
{
    return sm_fail(r->e, SUMI_E_FORMAT, "%s: tensor '%.200s' %s", r->label, name, what), false;
}

static const uint8_t *take(reader *r, uint64_t n)
{
    if (r->e->code)
        return NULL;
    if (n > r->size - r->at) {
        bad(r, "reaches past the end of the file; is the file truncated?");
        return NULL;
    }
    r->at += (size_t)n;
    return r->data + r->at - n;
}

static uint64_t number(reader *r, size_t bytes)
{
    uint64_t v = 0;
    const uint8_t *p = take(r, bytes);
    if (p)
        memcpy(&v, p, bytes);
    return v;
}

/* n things of at least `least` bytes each can follow, and there are not too many of them in all. */
static bool can_follow(reader *r, uint64_t n, size_t least)
{
    if (r->e->code)
        return false;
    if (n > (r->size - r->at) / least)
        return bad(r, "claims more than the file holds; is the file truncated?");
    if (n > SM_GGUF_MAX_ITEMS - r->items)
        return bad(r, "claims more than 4000000 values in all");
    r->items += n;
    return true;
}

static const char *text(reader *r, uint64_t *n)
{
    *n = number(r, 8);
    const char *s = (const char *)take(r, *n);
    if (s && (memchr(s, 0, *n) || !sm_utf8_valid(s, *n))) {
        bad(r, "has a text that is not UTF-8 or holds a NUL byte");
        return NULL;
    }
    return s;
}

static const char *copy(reader *r, const char *s, uint64_t n)
{
    char *c = s ? sm_arena_get(&r->f->arena, (size_t)n + 1) : NULL;
    if (c)
        memcpy(c, s, n); /* the arena zeroes */
    else if (s)
        no_memory(r);
    return c;
}

/* A key or a name: from now on what messages speak of. */
static const char *name(reader *r, const char *kind)
{
    uint64_t n;
    const char *s = text(r, &n);
    if (s && (n == 0 || n > SM_GGUF_MAX_NAME)) {
        bad(r, "has a name that is empty or longer than 1024 bytes");
        return NULL;
    }
    for (uint64_t i = 0; s && i < n; i++)
        if ((uint8_t)s[i] < 0x20 || s[i] == 0x7f) {
            bad(r, "has a name with a control character");
            return NULL;
        }
    const char *c = copy(r, s, n);
    if (c) {
        size_t k = SM_MIN(n, 64); /* not in the middle of a character */
        while (k < n && (c[k] & 0xc0) == 0x80)
            k--;
        snprintf(r->where, sizeof r->where, "%s '%.*s'", kind, (int)k, c);
    }
    return c;
}

/* ---- metadata ---------------------------------------------------------------------------------------------------- */

static bool read_value(reader *r, sm_gguf_type type, int depth, sm_gguf_value *v);

static bool read_type(reader *r, sm_gguf_type *t)
{
    uint64_t k = number(r, 4);
    *t = k < SM_GGUF_TYPES ? (sm_gguf_type)k : SM_GGUF_U8;
    return k < SM_GGUF_TYPES ? !r->e->code : bad(r, "has a type that is none of the format's");
}

static bool read_array(reader *r, int depth, sm_gguf_value *v)
{
    if (depth == SM_GGUF_MAX_DEPTH)
        return bad(r, "has arrays nested deeper than 4");
    if (!read_type(r, &v->of))
        return false;
    v->n = number(r, 8);
    size_t each = sm_gguf_value_size(v->of);
    if (each) {
        if (!r->e->code && v->n > (r->size - r->at) / each)
            return bad(r, "claims more than the file holds; is the file truncated?");
        const uint8_t *p = take(r, v->n * each);
        for (uint64_t i = 0; v->of == SM_GGUF_BOOL && p && i < v->n; i++)
            if (p[i] > 1)
                return bad(r, "has a truth value that is neither 0 nor 1");
        v->raw = p;
        return p != NULL;
    }
    if (!can_follow(r, v->n, v->of == SM_GGUF_STRING ? 8 : 12))
        return false;
    sm_gguf_value *items = sm_arena_get(&r->f->arena, ((size_t)v->n + 1) * sizeof *items);
    if (!items)
        return no_memory(r);
    v->items = items;
    for (uint64_t i = 0; i < v->n; i++)
        if (!read_value(r, v->of, depth + 1, &items[i]))
            return false;
    return true;
}

static bool read_value(reader *r, sm_gguf_type type, int depth, sm_gguf_value *v)
{
    size_t size = sm_gguf_value_size(type);
    v->type = type;
    if (type == SM_GGUF_ARRAY)
        return read_array(r, depth, v);
    if (type == SM_GGUF_STRING) {
        v->s = text(r, &v->n);
        if (v->n > SM_GGUF_MAX_TEXT)
            return bad(r, "has a text of more than 64 MiB");
        if (!depth)
            v->s = copy(r, v->s, v->n);
        return v->s != NULL;
    }
    uint64_t u = number(r, size);
    float f;
    if (type == SM_GGUF_F64) {
        memcpy(&v->f, &u, 8);
    } else if (type == SM_GGUF_F32) {
        memcpy(&f, &u, 4);
        v->f = (double)f;
    } else if (type == SM_GGUF_I8 || type == SM_GGUF_I16 || type == SM_GGUF_I32) {
        v->i = (int64_t)(u << (64 - 8 * size)) >> (64 - 8 * size);
    } else {
        v->u = u;
    }
    if (type == SM_GGUF_BOOL && u > 1)
        return bad(r, "has a truth value that is neither 0 nor 1");
    return !r->e->code;
}

static int by_key(const void *a, const void *b) { return strcmp(((const sm_gguf_meta *)a)->key, ((const sm_gguf_meta *)b)->key); }

static bool read_metadata(reader *r, uint64_t n)
{
    sm_gguf *f = r->f;
    if (!can_follow(r, n, 13))
        return false;
    f->meta = sm_alloc0(f->mem, SM_MEM_MISC, ((size_t)n + 1) * sizeof *f->meta);
    if (!f->meta)
        return no_memory(r);
    for (; f->nmeta < n; f->nmeta++) {
        sm_gguf_meta *m = &f->meta[f->nmeta];
        sm_gguf_type type;
        snprintf(r->where, sizeof r->where, "metadata %zu", f->nmeta);
        m->key = name(r, "metadata");
        if (!m->key || !read_type(r, &type) || !read_value(r, type, 0, &m->value))
            return false;
    }
    qsort(f->meta, f->nmeta, sizeof *f->meta, by_key);
    for (size_t i = 1; i < f->nmeta; i++)
        if (!by_key(&f->meta[i - 1], &f->meta[i]))
            return sm_fail(r->e, SUMI_E_FORMAT, "%s: metadata '%.200s' appears twice", r->label, f->meta[i].key), false;
    const sm_gguf_value *a = sm_gguf_metadata(f, "general.alignment");
    if (a && (a->type != SM_GGUF_U32 || !sm_gguf_alignment_ok(a->u)))
        return sm_fail(r->e, SUMI_E_FORMAT, "%s: general.alignment is no power of two of type U32", r->label), false;
    r->alignment = a ? a->u : SM_GGUF_ALIGNMENT;
    return true;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

/* The shape a converter flattened: the same number of values, given outermost first. */
static void restore_shape(const reader *r, sm_st_entry *t, uint64_t numel)
{
    char key[SM_GGUF_MAX_NAME + 32];
    int64_t dims[SM_GGUF_MAX_DIMS], product = 1;
    snprintf(key, sizeof key, "comfy.gguf.orig_shape.%s", t->name);
    const sm_gguf_value *v = sm_gguf_metadata(r->f, key);
    if (!v || v->type != SM_GGUF_ARRAY || (v->of != SM_GGUF_I32 && v->of != SM_GGUF_U32) || !v->n || v->n > SM_GGUF_MAX_DIMS)
        return;
    for (uint64_t i = 0; i < v->n; i++) {
        int32_t d;
        memcpy(&d, (const uint8_t *)v->raw + 4 * i, 4);
        if (d < 1 || __builtin_mul_overflow(product, (int64_t)d, &product))
            return;
        dims[i] = d;
    }
    if ((uint64_t)product != numel)
        return;
    t->rank = (int)v->n;
    memcpy(t->dims, dims, (size_t)v->n * sizeof *dims);
}

/* Sizes innermost first in the file; *numel is their product. */
static bool read_shape(reader *r, sm_st_entry *t, uint64_t *numel)
{
    uint64_t rank = number(r, 4);
    if (rank > SM_GGUF_MAX_DIMS)
        return bad(r, "has more than 8 dimensions");
    t->rank = (int)rank;
    for (int i = t->rank - 1; i >= 0; i--) {
        uint64_t d = number(r, 8);
        t->dims[i] = d > INT64_MAX ? INT64_MAX : (int64_t)d;
    }
    return !r->e->code && (sm_st_numel(t->dims, t->rank, numel) || bad(r, "has a shape whose product is too large"));
}

/* Leaves the offset in the data in *offset: where the data begins is known only after the last tensor. */
static bool read_entry(reader *r, sm_st_entry *t, uint64_t *offset)
{
    uint64_t numel, bytes;
    t->name = name(r, "tensor");
    if (!t->name || !read_shape(r, t, &numel))
        return false;
    uint64_t id = number(r, 4);
    *offset = number(r, 8);
    if (r->e->code)
        return false;
    const struct tensor_type *d = tensor_types;
    while (d < tensor_types + SM_COUNT(tensor_types) && (uint64_t)d->id != id)
        d++;
    if (d == tensor_types + SM_COUNT(tensor_types))
        return bad(r, "has a type that is none of the format's");
    uint64_t row = t->rank ? (uint64_t)t->dims[t->rank - 1] : 1;
    if (row % (uint64_t)d->block)
        return bad(r, "has rows that are no whole number of its type's blocks");
    if (__builtin_mul_overflow(numel / (uint64_t)d->block, (uint64_t)d->bytes, &bytes) || bytes > r->size)
        return bad(r, "is larger than the file; is the file truncated?");
    if (*offset % r->alignment)
        return bad(r, "has an offset that is no multiple of the alignment");
    t->bytes = (size_t)bytes;
    t->dtype = d->name;
    restore_shape(r, t, numel);
    t->computable = d->store >= 0 && numel > 0 && t->rank <= SM_MAX_DIMS;
    t->type = t->computable ? (sm_dtype)d->store : SM_F32;
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const sm_st_entry *)a)->name, ((const sm_st_entry *)b)->name);
}

static int by_place(const void *a, const void *b)
{
    const sm_st_entry *x = a, *y = b;
    return x->data != y->data ? (x->data < y->data ? -1 : 1) : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* The entries follow one another with nothing but alignment between them, in whatever order they are described. */
static bool check_places(const reader *r, size_t begin)
{
    sm_gguf *f = r->f;
    uint64_t at = 0;
    qsort(f->entries, f->count, sizeof *f->entries, by_place);
    for (size_t i = 0; i < f->count; i++) {
        uint64_t offset = (uint64_t)(f->entries[i].data - r->data) - begin;
        if (offset != at)
            return bad_entry(r, f->entries[i].name, offset < at ? "overlaps another" : "begins after a gap in the data");
        at = (at + f->entries[i].bytes + r->alignment - 1) & ~(r->alignment - 1);
    }
    qsort(f->entries, f->count, sizeof *f->entries, by_name);
    for (size_t i = 1; i < f->count; i++)
        if (!by_name(&f->entries[i - 1], &f->entries[i]))
            return bad_entry(r, f->entries[i].name, "appears twice");
    return true;
}

static bool read_tensors(reader *r, uint64_t n)
{
    sm_gguf *f = r->f;
    snprintf(r->where, sizeof r->where, "the number of tensors");
    if (!can_follow(r, n, 25))
        return false;
    f->entries = sm_alloc0(f->mem, SM_MEM_MISC, ((size_t)n + 1) * sizeof *f->entries);
    uint64_t *offsets = sm_alloc(f->mem, SM_MEM_MISC, ((size_t)n + 1) * sizeof *offsets);
    bool ok = f->entries && offsets ? true : no_memory(r);
    for (; ok && f->count < n; f->count += ok) {
        snprintf(r->where, sizeof r->where, "tensor %zu", f->count);
        ok = read_entry(r, &f->entries[f->count], &offsets[f->count]);
    }
    uint64_t begin = (r->at + r->alignment - 1) & ~(r->alignment - 1);
    for (size_t i = 0; ok && i < n; i++) {
        sm_st_entry *t = &f->entries[i];
        if (begin > r->size || offsets[i] > r->size - begin || t->bytes > r->size - begin - offsets[i])
            ok = bad_entry(r, t->name, "lies outside of the file; is the file truncated?");
        else
            t->data = r->data + begin + offsets[i];
    }
    sm_free(offsets);
    return ok && check_places(r, (size_t)begin);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static bool read_header(reader *r)
{
    uint32_t version = (uint32_t)number(r, 4);
    if (version && !(version & 0xffff))
        return sm_fail(r->e, SUMI_E_FORMAT, "%s: a big-endian GGUF file; convert it to little-endian first", r->label), false;
    if (version != 2 && version != 3)
        return sm_fail(r->e, SUMI_E_FORMAT, "%s: GGUF version %u; versions 2 and 3 can be read", r->label, version), false;
    r->f->version = (int)version;
    uint64_t tensors = number(r, 8), pairs = number(r, 8);
    return read_metadata(r, pairs) && read_tensors(r, tensors);
}

bool sm_gguf_is(const void *head, size_t n) { return n >= 4 && !memcmp(head, "GGUF", 4); }

sm_gguf *sm_gguf_open_mem(const void *data, size_t size, const char *label, sm_mem *mem, sm_err *e)
{
    sm_err own = {0};
    if (size < 24 || !sm_gguf_is(data, size)) {
        sm_fail(e, SUMI_E_FORMAT, "%s: no GGUF file, or a truncated one", label);
        return NULL;
    }
    sm_gguf *f = sm_alloc0(mem, SM_MEM_MISC, sizeof *f);
    if (!f) {
        sm_fail(e, SUMI_E_MEMORY, "%s: out of memory", label);
        return NULL;
    }
    f->mem = mem;
    sm_arena_init(&f->arena, mem, SM_MEM_MISC);
    reader r = {.f = f, .label = label, .data = data, .size = size, .at = 4, .where = "the number of metadata pairs", .e = &own};
    if (read_header(&r))
        return f;
    sm_fail(e, own.code, "%s", own.msg);
    sm_gguf_close(f);
    return NULL;
}

sm_gguf *sm_gguf_open(const char *path, sm_mem *mem, sm_err *e)
{
    sm_map *map = sm_map_open(mem, path, e);
    if (!map)
        return NULL;
    sm_gguf *f = sm_gguf_open_mem(map->data, map->size, path, mem, e);
    if (f)
        f->map = map;
    else
        sm_map_close(map);
    return f;
}

void sm_gguf_close(sm_gguf *f)
{
    if (!f)
        return;
    sm_map_close(f->map);
    sm_free(f->entries);
    sm_free(f->meta);
    sm_arena_free(&f->arena);
    sm_free(f);
}

/* ---- looking things up ------------------------------------------------------------------------------------------- */

int sm_gguf_version(const sm_gguf *f) { return f->version; }
size_t sm_gguf_count(const sm_gguf *f) { return f->count; }
const sm_st_entry *sm_gguf_at(const sm_gguf *f, size_t i) { return i < f->count ? &f->entries[i] : NULL; }

const sm_st_entry *sm_gguf_find(const sm_gguf *f, const char *wanted)
{
    sm_st_entry key = {.name = wanted};
    return f->count ? bsearch(&key, f->entries, f->count, sizeof key, by_name) : NULL;
}

size_t sm_gguf_metadata_count(const sm_gguf *f) { return f->nmeta; }
const sm_gguf_meta *sm_gguf_metadata_at(const sm_gguf *f, size_t i) { return i < f->nmeta ? &f->meta[i] : NULL; }

const sm_gguf_value *sm_gguf_metadata(const sm_gguf *f, const char *key)
{
    sm_gguf_meta wanted = {.key = key};
    const sm_gguf_meta *m = f->nmeta ? bsearch(&wanted, f->meta, f->nmeta, sizeof wanted, by_key) : NULL;
    return m ? &m->value : NULL;
}

const char *sm_gguf_text(const sm_gguf *f, const char *key)
{
    const sm_gguf_value *v = sm_gguf_metadata(f, key);
    return v && v->type == SM_GGUF_STRING ? v->s : NULL;
}

/* ---- into the table of weights ----------------------------------------------------------------------------------- */

static void close_kept(void *f) { sm_gguf_close(f); }

sumi_status sm_gguf_map(const sm_gguf *f, sm_weights *w, sm_err *e)
{
    return f->map ? sm_weights_map(w, f->map->data, f->map->size, e) : SUMI_OK;
}

/* A copy, where the data is not aligned for its type. */
static sumi_status own_data(const sm_st_entry *t, const char *full, sm_weights *w, sm_tensor *v, sm_mem *mem, sm_err *e)
{
    v->data = sm_alloc(mem, SM_MEM_WEIGHT, t->bytes);
    if (!v->data)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for tensor %s (%zu bytes)", full, t->bytes);
    memcpy(v->data, t->data, t->bytes);
    return sm_weights_keep(w, sm_free, v->data, e);
}

static sumi_status add(const sm_st_entry *t, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e)
{
    char full[2 * SM_GGUF_MAX_NAME + 2];
    size_t n = strlen(prefix), size = sm_dtype_size(t->type);
    sm_tensor v = {.data = (void *)t->data, .dtype = t->type, .rank = t->rank};
    if (n > SM_GGUF_MAX_NAME)
        return sm_fail(e, SUMI_E_ARG, "a prefix of tensor names is longer than %d bytes", SM_GGUF_MAX_NAME);
    memcpy(full, prefix, n);
    memcpy(full + n, t->name, strlen(t->name) + 1);
    memcpy(v.dims, t->dims, (size_t)t->rank * sizeof *v.dims);
    sumi_status st = SUMI_OK;
    if (size && (uintptr_t)t->data % size)
        st = own_data(t, full, w, &v, mem, e);
    return st == SUMI_OK ? sm_weights_add(w, full, &v, e) : st;
}

sumi_status sm_gguf_into(sm_gguf *f, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e)
{
    sumi_status st = sm_weights_keep(w, close_kept, f, e);
    if (st == SUMI_OK)
        st = sm_gguf_map(f, w, e);
    for (size_t i = 0; st == SUMI_OK && i < f->count; i++)
        if (f->entries[i].computable)
            st = add(&f->entries[i], w, prefix ? prefix : "", mem, e);
    return st;
}

sumi_status sm_gguf_load(const char *path, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e)
{
    sm_err own = {0};
    sm_gguf *f = sm_gguf_open(path, mem, &own);
    if (f)
        return sm_gguf_into(f, w, prefix, mem, e);
    sm_fail(e, own.code, "%s", own.msg);
    return own.code;
}
