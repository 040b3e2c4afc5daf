/* Reading a PyTorch checkpoint (see ckpt.h): from the values of its pickle to a sorted list of tensors, each checked against
 * its storage. A tensor is its storage seen through offset, sizes and strides; what is not dense and little-endian is copied. */
#include "io/ckpt_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/safetensors_impl.h"

void *sm_ckpt_copy(ckpt_reader *r, uint64_t bytes, const char *what)
{
    sm_ckpt *f = r->f;
    if (bytes > f->limit - f->copied) {
        sm_fail(r->e, SUMI_E_FORMAT, "%s: '%.200s' would take %llu bytes of memory, far more than its file explains; refused",
                r->label, what,
                (unsigned long long)bytes);
        return NULL;
    }
    void *p = sm_arena_get(&f->copies, (size_t)bytes);
    if (!p)
        sm_fail(r->e, SUMI_E_MEMORY, "%s: out of memory for '%.200s' (%llu bytes)", r->label, what, (unsigned long long)bytes);
    f->copied += bytes;
    return p;
}

static int by_key(const void *a, const void *b)
{
    const sm_pk_storage *x = *(sm_pk_storage *const *)a, *y = *(sm_pk_storage *const *)b;
    int c = memcmp(x->key, y->key, SM_MIN(x->nkey, y->nkey));
    c = c ? c : (x->nkey > y->nkey) - (x->nkey < y->nkey);
    return c ? c : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

void sm_ckpt_sort_storages(sm_pickle *p)
{
    if (p->nstorages)
        qsort(p->storages, p->nstorages, sizeof *p->storages, by_key);
}

/* ---- a tensor's data --------------------------------------------------------------------------------------------- */

static bool bad(const ckpt_reader *r, const char *name, const char *what)
{
    sm_fail(r->e, SUMI_E_FORMAT, "%s: tensor '%.200s' %s", r->label, name, what);
    return false;
}

/* Elements of the tensor; that none lies outside of the storage, and whether they follow each other without gaps. */
static bool measure(const ckpt_reader *r, const sm_pk_tensor *t, const char *name, uint64_t *numel, bool *dense)
{
    uint64_t last = t->offset, step, end, inner = 1;
    *dense = true;
    bool ok = sm_st_numel(t->dims, t->rank, numel);
    for (int i = t->rank - 1; i >= 0 && ok; i--) {
        uint64_t d = (uint64_t)t->dims[i], s = (uint64_t)t->strides[i];
        *dense &= d == 1 || s == inner;
        inner *= d;
        ok = !d || !(__builtin_mul_overflow(d - 1, s, &step) || __builtin_add_overflow(last, step, &last));
    }
    if (!ok)
        return bad(r, name, "has sizes or strides whose product is too large");
    /* A zero may hide how far the others reach, and then nothing is read. */
    if (!*numel)
        return true;
    if (__builtin_add_overflow(last, (uint64_t)1, &end) || __builtin_mul_overflow(end, (uint64_t)t->type->size, &end) ||
        end > t->storage->bytes)
        return bad(r, name, "reaches out of its storage");
    return true;
}

/* One element of size bytes, the bytes of each unit turned around. */
static void turn(uint8_t *to, const uint8_t *from, int size, int unit)
{
    for (int i = 0; i < size; i++)
        to[i] = from[i - i % unit + unit - 1 - i % unit];
}

static void put_element(const sm_pk_dtype *type, bool big_endian, uint8_t *to, const uint8_t *from)
{
    uint8_t x[8];
    if (big_endian)
        turn(x, from, type->size, type->unit);
    else
        memcpy(x, from, (size_t)type->size);
    if (type->size == 8 && type->compute == SM_F32) {
        double wide;
        memcpy(&wide, x, 8);
        float narrow = (float)wide;
        memcpy(to, &narrow, 4);
    } else {
        memcpy(to, x, (size_t)type->size);
    }
}

/* All numel elements in order of the last dimension first. */
static void gather(const ckpt_reader *r, const sm_pk_tensor *t, uint64_t numel, size_t out_size, uint8_t *to)
{
    int64_t at[SM_PK_MAX_DIMS] = {0};
    size_t size = (size_t)t->type->size;
    /* may wrap around between two elements, as a stride of a single one may be anything */
    size_t from = (size_t)t->offset * size;
    for (uint64_t i = 0; i < numel; i++, to += out_size) {
        put_element(t->type, r->big_endian, to, t->storage->data + from);
        for (int d = t->rank - 1; d >= 0; d--) {
            from += (size_t)t->strides[d] * size;
            if (++at[d] < t->dims[d])
                break;
            from -= (size_t)t->strides[d] * size * (size_t)t->dims[d];
            at[d] = 0;
        }
    }
}

static bool fill_entry(ckpt_reader *r, const sm_pk_tensor *t, sm_st_entry *x)
{
    uint64_t numel;
    bool dense;
    if (!measure(r, t, x->name, &numel, &dense))
        return false;
    bool f64 = t->type->size == 8 && t->type->compute == SM_F32, empty = !numel;
    size_t size = f64 ? 4 : (size_t)t->type->size;
    x->dtype = t->type->name;
    x->computable = t->type->compute >= 0 && !empty && t->rank <= SM_MAX_DIMS;
    x->type = x->computable ? (sm_dtype)t->type->compute : SM_F32;
    x->rank = t->rank;
    memcpy(x->dims, t->dims, sizeof x->dims);
    if (__builtin_mul_overflow(numel, size, &x->bytes))
        return bad(r, x->name, "has sizes or strides whose product is too large");
    if (empty || (dense && !f64 && (!r->big_endian || t->type->unit == 1))) {
        x->data = empty ? r->data : t->storage->data + t->offset * size;
        return true;
    }
    uint8_t *copy = sm_ckpt_copy(r, x->bytes, x->name);
    if (copy)
        gather(r, t, numel, size, copy);
    x->data = copy;
    return copy;
}

/* ---- from containers to names ------------------------------------------------------------------------------------ */

typedef struct walker {
    ckpt_reader *r;
    size_t visits, n;
    char name[SM_ST_MAX_NAME + 1]; /* n bytes, terminated only where a tensor takes it */
} walker;

static bool add_tensor(walker *w, const sm_pk_tensor *t)
{
    sm_ckpt *f = w->r->f;
    w->name[w->n] = 0;
    if (!w->n)
        strcpy(w->name, "tensor");
    if (f->count == SM_CKPT_MAX_TENSORS)
        return bad(w->r, w->name, "is one too many: the limit is 200000");
    if (f->count == f->cap) {
        size_t cap = f->cap ? f->cap * 2 : 256;
        sm_st_entry *more = sm_realloc(f->mem, SM_MEM_MISC, f->entries, cap * sizeof *more);
        f->entries = more ? more : f->entries;
        f->cap = more ? cap : f->cap;
    }
    sm_st_entry x = {.name = sm_arena_str(&f->arena, w->name)};
    if (f->count == f->cap || !x.name) {
        sm_fail(w->r->e, SUMI_E_MEMORY, "%s: out of memory for its list of tensors", w->r->label);
        return false;
    }
    if (!fill_entry(w->r, t, &x))
        return false;
    f->entries[f->count++] = x;
    return true;
}

/* Appends ".part" to the name, or "part" to an empty one. */
static bool add_name(walker *w, const char *part, size_t n)
{
    size_t dot = w->n > 0;
    if (!n || memchr(part, 0, n) || !sm_utf8_valid(part, n) || n > SM_ST_MAX_NAME || w->n + dot + n > SM_ST_MAX_NAME)
        return bad(w->r, "", "has a name that is empty, no UTF-8 or longer than 1024 bytes");
    if (dot)
        w->name[w->n] = '.';
    memcpy(w->name + w->n + dot, part, n);
    w->n += dot + n;
    return true;
}

static bool add_key(walker *w, const sm_pk_value *key)
{
    char text[200];
    switch (key->kind) {
    case SM_PK_STR: return add_name(w, key->u.s, key->n);
    case SM_PK_INT: return snprintf(text, sizeof text, "%lld", (long long)key->u.i), add_name(w, text, strlen(text));
    case SM_PK_GLOBAL:
        snprintf(text, sizeof text, "%s.%s", key->u.global->module,
                 key->u.global->name ? key->u.global->name : key->u.global->type->name);
        return add_name(w, text, strlen(text));
    default: return bad(w->r, "", "is under a key that is neither text nor a whole number");
    }
}

static bool walk(walker *w, const sm_pk_value *v, int depth)
{
    const ckpt_reader *r = w->r;
    bool dict = v->kind == SM_PK_DICT;
    if (v->kind == SM_PK_TENSOR)
        return add_tensor(w, v->u.tensor);
    if (!dict && v->kind != SM_PK_LIST)
        return true;
    if (depth == SM_CKPT_MAX_DEPTH) {
        sm_fail(r->e, SUMI_E_FORMAT, "%s: holds containers more than %d deep, or one that holds itself", r->label,
                SM_CKPT_MAX_DEPTH);
        return false;
    }
    for (size_t i = 0, n = w->n; i < v->n; i += 1 + dict, w->n = n) {
        const sm_pk_value *x = v->u.item[i + dict], number = {.kind = SM_PK_INT, .u.i = (int64_t)i};
        if (++w->visits > SM_CKPT_MAX_VISITS) {
            sm_fail(r->e, SUMI_E_FORMAT, "%s: holds more than %d values", r->label, SM_CKPT_MAX_VISITS);
            return false;
        }
        bool inner = x->kind == SM_PK_TENSOR || ((x->kind == SM_PK_DICT || x->kind == SM_PK_LIST) && x->n);
        if (inner && !(add_key(w, dict ? v->u.item[i] : &number) && walk(w, x, depth + 1)))
            return false;
    }
    return true;
}

/* The part that is the model: `state_dict` when it has a tensor of its own, else everything. */
static const sm_pk_value *model_of(const sm_pk_value *root)
{
    const sm_pk_value *inner = sm_pk_get(root, "state_dict");
    for (size_t i = 1; inner && inner->kind == SM_PK_DICT && i < inner->n; i += 2)
        if (inner->u.item[i]->kind == SM_PK_TENSOR)
            return inner;
    return root;
}

static bool list_tensors(ckpt_reader *r)
{
    sm_ckpt *f = r->f;
    walker w = {.r = r};
    if (!walk(&w, model_of(r->root), 0))
        return false;
    if (f->count)
        qsort(f->entries, f->count, sizeof *f->entries, sm_st_by_name);
    for (size_t i = 1; i < f->count; i++)
        if (!strcmp(f->entries[i - 1].name, f->entries[i].name))
            return bad(r, f->entries[i].name, "is there twice");
    return true;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static bool is_zip(const uint8_t *p, size_t n) { return n >= 4 && !memcmp(p, "PK\3\4", 4); }
static bool is_tar(const uint8_t *p, size_t n) { return n >= 262 && !memcmp(p + 257, "ustar", 5); }
/* A safetensors file may begin so too, with the length of its header, but then a '{' follows. */
static bool is_pickle(const uint8_t *p, size_t n) { return n >= 3 && p[0] == 0x80 && p[1] <= 5 && (n < 9 || p[8] != '{'); }

bool sm_ckpt_is(const void *head, size_t n)
{
    return is_zip(head, n) || sm_ckpt_magic(head, n) || is_tar(head, n) || is_pickle(head, n);
}

static bool read_any(ckpt_reader *r)
{
    if (is_zip(r->data, r->size))
        return sm_ckpt_read_zip(r);
    if (sm_ckpt_magic(r->data, r->size))
        return sm_ckpt_read_stream(r);
    if (is_tar(r->data, r->size))
        sm_fail(r->e, SUMI_E_FORMAT, "%s: a tar archive, as torch before 0.1.11 wrote; load and save it with a torch before 2.6 "
                "first", r->label);
    else if (is_pickle(r->data, r->size))
        sm_fail(r->e, SUMI_E_FORMAT, "%s: a pickle, but none that torch.save wrote, or a truncated one", r->label);
    else
        sm_fail(r->e, SUMI_E_FORMAT, "%s: no PyTorch checkpoint, or a truncated one", r->label);
    return false;
}

sm_ckpt *sm_ckpt_open_mem(const void *data, size_t size, const char *label, sm_mem *mem, sm_err *e)
{
    sm_err own = {0};
    sm_ckpt *f = sm_alloc0(mem, SM_MEM_MISC, sizeof *f);
    if (!f) {
        sm_fail(e, SUMI_E_MEMORY, "%s: out of memory", label);
        return NULL;
    }
    f->mem = mem;
    f->limit = (uint64_t)size * 32 + (64 << 20);
    sm_arena_init(&f->arena, mem, SM_MEM_MISC);
    sm_arena_init(&f->copies, mem, SM_MEM_WEIGHT);
    ckpt_reader r = {.f = f, .data = data, .size = size, .label = label, .e = &own};
    sm_pickle_init(&r.pickle, mem);
    bool ok = read_any(&r) && list_tensors(&r);
    sm_pickle_free(&r.pickle);
    if (ok)
        return f;
    sm_fail(e, own.code, "%s", own.msg);
    sm_ckpt_close(f);
    return NULL;
}

sm_ckpt *sm_ckpt_open(const char *path, sm_mem *mem, sm_err *e)
{
    sm_map *map = sm_map_open(mem, path, e);
    if (!map)
        return NULL;
    sm_ckpt *f = sm_ckpt_open_mem(map->data, map->size, path, mem, e);
    if (f)
        f->map = map;
    else
        sm_map_close(map);
    return f;
}

void sm_ckpt_close(sm_ckpt *f)
{
    if (!f)
        return;
    sm_map_close(f->map);
    sm_free(f->entries);
    sm_arena_free(&f->copies);
    sm_arena_free(&f->arena);
    sm_free(f);
}

/* ---- looking things up, into the table of weights ---------------------------------------------------------------- */

size_t sm_ckpt_count(const sm_ckpt *f) { return f->count; }
const sm_st_entry *sm_ckpt_at(const sm_ckpt *f, size_t i) { return i < f->count ? &f->entries[i] : NULL; }

const sm_st_entry *sm_ckpt_find(const sm_ckpt *f, const char *name)
{
    sm_st_entry key = {.name = name};
    return f->count ? bsearch(&key, f->entries, f->count, sizeof key, sm_st_by_name) : NULL;
}

static void close_kept(void *f) { sm_ckpt_close(f); }

sumi_status sm_ckpt_map(const sm_ckpt *f, sm_weights *w, sm_err *e)
{
    return f->map ? sm_weights_map(w, f->map->data, f->map->size, e) : SUMI_OK;
}

sumi_status sm_ckpt_into(sm_ckpt *f, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e)
{
    sumi_status st = sm_weights_keep(w, close_kept, f, e);
    for (size_t i = 0; st == SUMI_OK && i < f->count; i++)
        if (f->entries[i].computable)
            st = sm_st_add(&f->entries[i], w, prefix ? prefix : "", mem, e);
    return st;
}

sumi_status sm_ckpt_load(const char *path, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e)
{
    sm_err own = {0};
    sm_ckpt *f = sm_ckpt_open(path, mem, &own);
    if (f)
        return sm_ckpt_into(f, w, prefix, mem, e);
    sm_fail(e, own.code, "%s", own.msg);
    return own.code;
}
