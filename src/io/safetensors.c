/* Reading one safetensors file (see safetensors.h). The header is believed in nothing: afterwards every entry has a known
 * type, a byte count that is the product of its shape, and the ranges of all entries tile the data without hole or overlap. */
#include "io/safetensors_impl.h"

#include <stdlib.h>
#include <string.h>

#include "io/json.h"

/* Types of the format and their size in bits; compute is -1 where sumi does not compute with them. */
static const struct dtype {
    const char *name;
    int bits, compute;
} dtypes[] = {
    {"F32", 32, SM_F32}, {"F16", 16, SM_F16}, {"BF16", 16, SM_BF16}, {"I32", 32, SM_I32}, {"F64", 64, -1}, {"I64", 64, -1},
    {"I16", 16, -1}, {"I8", 8, -1}, {"U64", 64, -1}, {"U32", 32, -1}, {"U16", 16, -1}, {"U8", 8, -1}, {"BOOL", 8, -1},
    {"C64", 64, -1}, {"F8_E4M3", 8, -1}, {"F8_E5M2", 8, -1}, {"F8_E8M0", 8, -1}, {"F6_E2M3", 6, -1}, {"F6_E3M2", 6, -1},
    {"F4", 4, -1},
};

/* One file while its header is read. */
typedef struct reader {
    sm_st *f;
    const char *label;
    const uint8_t *data; /* what the offsets count from */
    size_t size;
    sm_err *e;
} reader;

static bool bad_entry(const reader *r, const char *name, const char *what)
{
    sm_fail(r->e, SUMI_E_FORMAT, "%s: tensor '%.200s' %s", r->label, name, what);
    return false;
}

static bool no_memory(const reader *r)
{
    sm_fail(r->e, SUMI_E_MEMORY, "%s: out of memory for its list of tensors", r->label);
    return false;
}

bool sm_st_numel(const int64_t *dims, int rank, uint64_t *numel)
{
    uint64_t of_others = 1; /* than 0 */
    bool empty = false;
    for (int i = 0; i < rank; i++) {
        if (dims[i] < 0 || dims[i] >= (int64_t)1 << 53)
            return false;
        empty |= !dims[i];
        if (dims[i] && (__builtin_mul_overflow(of_others, (uint64_t)dims[i], &of_others) || of_others > INT64_MAX))
            return false;
    }
    *numel = empty ? 0 : of_others;
    return true;
}

/* Fills rank and dims; *numel is their product. */
static bool read_shape(const reader *r, const cJSON *shape, sm_st_entry *t, uint64_t *numel)
{
    if (!cJSON_IsArray(shape))
        return bad_entry(r, t->name, "has no shape");
    for (const cJSON *c = shape->child; c; c = c->next) {
        uint64_t d;
        if (t->rank == SM_ST_MAX_DIMS)
            return bad_entry(r, t->name, "has more than 8 dimensions");
        if (!sm_json_index(c, &d))
            return bad_entry(r, t->name, "has a size that is no whole number from 0 to 2^53 - 1");
        t->dims[t->rank++] = (int64_t)d;
    }
    return sm_st_numel(t->dims, t->rank, numel) || bad_entry(r, t->name, "has a shape whose product is too large");
}

static bool read_range(const reader *r, const cJSON *range, sm_st_entry *t)
{
    const cJSON *a = cJSON_IsArray(range) ? range->child : NULL, *b = a ? a->next : NULL;
    uint64_t begin, end;
    if (!b || b->next || !sm_json_index(a, &begin) || !sm_json_index(b, &end))
        return bad_entry(r, t->name, "has no data_offsets of two whole numbers");
    if (begin > end || end > r->size)
        return bad_entry(r, t->name, "has data_offsets outside of the file; is the file truncated?");
    t->data = r->data + begin;
    t->bytes = (size_t)(end - begin);
    return true;
}

static bool read_entry(const reader *r, const cJSON *item, sm_st_entry *t)
{
    t->name = item->string;
    if (!*t->name || strlen(t->name) > SM_ST_MAX_NAME)
        return bad_entry(r, t->name, "has a name that is empty or longer than 1024 bytes");
    if (!cJSON_IsObject(item))
        return bad_entry(r, t->name, "is not described by a JSON object");
    const cJSON *type = NULL, *shape = NULL, *range = NULL;
    for (const cJSON *c = item->child; c; c = c->next)
        *(!strcmp(c->string, "dtype") ? &type : !strcmp(c->string, "shape") ? &shape : &range) = c;
    if (!type || !shape || !range || strcmp(range->string, "data_offsets") || cJSON_GetArraySize(item) != 3)
        return bad_entry(r, t->name, "must have dtype, shape and data_offsets, and nothing else");
    const struct dtype *d = dtypes;
    while (d < dtypes + SM_COUNT(dtypes) && !(cJSON_IsString(type) && !strcmp(type->valuestring, d->name)))
        d++;
    if (d == dtypes + SM_COUNT(dtypes))
        return bad_entry(r, t->name, "has a dtype that is none of the format's");
    uint64_t numel, bits;
    if (!read_shape(r, shape, t, &numel) || !read_range(r, range, t))
        return false;
    if (__builtin_mul_overflow(numel, (uint64_t)d->bits, &bits) || bits % 8 || bits / 8 != t->bytes)
        return bad_entry(r, t->name, "has a shape and a dtype that do not fit its data_offsets");
    t->dtype = d->name;
    t->computable = d->compute >= 0 && numel > 0 && t->rank <= SM_MAX_DIMS;
    t->type = t->computable ? (sm_dtype)d->compute : SM_F32;
    t->name = sm_arena_str(&r->f->arena, t->name);
    return t->name || no_memory(r);
}

static bool read_metadata(const reader *r, const cJSON *meta)
{
    sm_st *f = r->f;
    if (!cJSON_IsObject(meta)) {
        sm_fail(r->e, SUMI_E_FORMAT, "%s: __metadata__ is not a JSON object", r->label);
        return false;
    }
    f->meta = sm_arena_get(&f->arena, ((size_t)cJSON_GetArraySize(meta) + 1) * sizeof *f->meta);
    if (!f->meta)
        return no_memory(r);
    for (const cJSON *c = meta->child; c; c = c->next) {
        if (!cJSON_IsString(c)) {
            sm_fail(r->e, SUMI_E_FORMAT, "%s: __metadata__ '%.100s' is not a string", r->label, c->string);
            return false;
        }
        sm_st_meta m = {sm_arena_str(&f->arena, c->string), sm_arena_str(&f->arena, c->valuestring)};
        if (!m.key || !m.value)
            return no_memory(r);
        f->meta[f->nmeta++] = m;
    }
    return true;
}

int sm_st_by_name(const void *a, const void *b)
{
    return strcmp(((const sm_st_entry *)a)->name, ((const sm_st_entry *)b)->name);
}

static int by_place(const void *a, const void *b)
{
    const sm_st_entry *x = a, *y = b;
    return x->data != y->data ? (x->data < y->data ? -1 : 1) : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* The entries cover the data exactly; the format forbids holes, which could hide things. */
static bool check_tiling(const reader *r)
{
    sm_st *f = r->f;
    const uint8_t *at = r->data;
    qsort(f->entries, f->count, sizeof *f->entries, by_place);
    for (size_t i = 0; i < f->count; i++) {
        if (f->entries[i].data != at)
            return bad_entry(r, f->entries[i].name,
                             f->entries[i].data < at ? "overlaps another" : "begins after a hole in the data");
        at += f->entries[i].bytes;
    }
    if (at != r->data + r->size) {
        sm_fail(r->e, SUMI_E_FORMAT, "%s: %zu bytes after the last tensor belong to none", r->label,
                (size_t)(r->data + r->size - at));
        return false;
    }
    qsort(f->entries, f->count, sizeof *f->entries, sm_st_by_name);
    return true;
}

static bool read_header(const reader *r, const cJSON *root)
{
    sm_st *f = r->f;
    if (!cJSON_IsObject(root)) {
        sm_fail(r->e, SUMI_E_FORMAT, "%s: the safetensors header is not a JSON object", r->label);
        return false;
    }
    size_t n = (size_t)cJSON_GetArraySize(root);
    f->entries = sm_alloc0(f->mem, SM_MEM_MISC, (n + 1) * sizeof *f->entries);
    if (!f->entries)
        return no_memory(r);
    for (const cJSON *c = root->child; c; c = c->next) {
        bool meta = !strcmp(c->string, "__metadata__");
        if (!(meta ? read_metadata(r, c) : read_entry(r, c, &f->entries[f->count])))
            return false;
        f->count += !meta;
    }
    return check_tiling(r);
}

sm_st *sm_st_open_mem(const void *data, size_t size, const char *label, sm_mem *mem, sm_err *e)
{
    const uint8_t *p = data;
    uint64_t header = 0;
    for (int i = 7; i >= 0 && size >= 8; i--)
        header = header << 8 | p[i];
    if (size < 8 || header > SM_ST_MAX_HEADER || header > size - 8 || header < 2 || p[8] != '{') {
        sm_fail(e, SUMI_E_FORMAT, "%s: no safetensors file, or a truncated one", label);
        return NULL;
    }
    sm_st *f = sm_alloc0(mem, SM_MEM_MISC, sizeof *f);
    if (!f) {
        sm_fail(e, SUMI_E_MEMORY, "%s: out of memory", label);
        return NULL;
    }
    f->mem = mem;
    sm_arena_init(&f->arena, mem, SM_MEM_MISC);
    reader r = {f, label, p + 8 + header, size - 8 - (size_t)header, e};
    cJSON *root = sm_json_parse(mem, (const char *)p + 8, (size_t)header, 4, SM_ST_MAX_VALUES, label, e);
    bool ok = root && read_header(&r, root);
    cJSON_Delete(root);
    if (ok)
        return f;
    sm_st_close(f);
    return NULL;
}

sm_st *sm_st_open_file(const char *path, sm_mem *mem, sm_err *e)
{
    sm_map *map = sm_map_open(mem, path, e);
    if (!map)
        return NULL;
    sm_st *f = sm_st_open_mem(map->data, map->size, path, mem, e);
    if (f)
        f->map = map;
    else
        sm_map_close(map);
    return f;
}

void sm_st_close(sm_st *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->nshards; i++)
        sm_st_close(f->shards[i]);
    sm_map_close(f->map);
    sm_free(f->entries);
    sm_arena_free(&f->arena);
    sm_free(f);
}

/* ---- looking things up ------------------------------------------------------------------------------------------- */

size_t sm_st_count(const sm_st *f) { return f->count; }
const sm_st_entry *sm_st_at(const sm_st *f, size_t i) { return i < f->count ? &f->entries[i] : NULL; }

const sm_st_entry *sm_st_find(const sm_st *f, const char *name)
{
    sm_st_entry key = {.name = name};
    return f->count ? bsearch(&key, f->entries, f->count, sizeof key, sm_st_by_name) : NULL;
}

size_t sm_st_metadata_count(const sm_st *f) { return f->nmeta; }
sm_st_meta sm_st_metadata_at(const sm_st *f, size_t i) { return i < f->nmeta ? f->meta[i] : (sm_st_meta){NULL, NULL}; }

const char *sm_st_metadata(const sm_st *f, const char *key)
{
    for (size_t i = 0; i < f->nmeta; i++)
        if (!strcmp(f->meta[i].key, key))
            return f->meta[i].value;
    return NULL;
}

/* ---- into the table of weights ----------------------------------------------------------------------------------- */

static void close_kept(void *f) { sm_st_close(f); }

sumi_status sm_st_add(const sm_st_entry *t, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e)
{
    char name[2 * SM_ST_MAX_NAME + 2];
    size_t n = strlen(prefix), k = strlen(t->name);
    if (n > SM_ST_MAX_NAME)
        return sm_fail(e, SUMI_E_ARG, "a prefix of tensor names is longer than %d bytes", SM_ST_MAX_NAME);
    memcpy(name, prefix, n);
    memcpy(name + n, t->name, k + 1);
    sm_tensor v = {.data = (void *)t->data, .dtype = t->type, .rank = t->rank};
    memcpy(v.dims, t->dims, (size_t)t->rank * sizeof *v.dims);
    if ((uintptr_t)t->data % sm_dtype_size(t->type)) {
        v.data = sm_alloc(mem, SM_MEM_WEIGHT, t->bytes);
        if (!v.data)
            return sm_fail(e, SUMI_E_MEMORY, "out of memory for tensor %s (%zu bytes)", name, t->bytes);
        memcpy(v.data, t->data, t->bytes);
        sumi_status st = sm_weights_keep(w, sm_free, v.data, e);
        if (st != SUMI_OK)
            return st;
    }
    return sm_weights_add(w, name, &v, e);
}

sumi_status sm_st_map(const sm_st *f, sm_weights *w, sm_err *e)
{
    sumi_status st = f->map ? sm_weights_map(w, f->map->data, f->map->size, e) : SUMI_OK;
    for (size_t i = 0; st == SUMI_OK && i < f->nshards; i++)
        st = sm_st_map(f->shards[i], w, e);
    return st;
}

sumi_status sm_st_into(sm_st *f, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e)
{
    sumi_status st = sm_weights_keep(w, close_kept, f, e);
    if (st == SUMI_OK)
        st = sm_st_map(f, w, e);
    for (size_t i = 0; st == SUMI_OK && i < f->count; i++)
        if (f->entries[i].computable)
            st = sm_st_add(&f->entries[i], w, prefix ? prefix : "", mem, e);
    return st;
}

sumi_status sm_st_load(const char *path, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e)
{
    sm_err own = {0};
    sm_st *f = sm_st_open(path, mem, &own);
    if (f)
        return sm_st_into(f, w, prefix, mem, e);
    sm_fail(e, own.code, "%s", own.msg);
    return own.code;
}
