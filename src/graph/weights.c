/* The table of weights: an open-addressing hash table from tensor name to entry, entries in order of adding (see weights.h).
 * Entries and names live in an arena, so pointers to them stay good until the table dies. */
#include "graph/weights.h"

#include "base/pages.h"
#include "base/rng.h"
#include "graph/packs.h"

#include <stdatomic.h>
#include <string.h>

/* What dies with the table: memory of created tensors and what loaders handed over. */
typedef struct keeper {
    void (*free_fn)(void *);
    void *arg;
    struct keeper *next;
} keeper;

/* A mapped file. */
typedef struct range {
    const char *from, *to;
    struct range *next;
} range;

struct sm_weights {
    sm_mem *mem;
    sm_arena arena;
    atomic_int refs;
    sm_weight **items;      /* in order of adding */
    size_t count, cap;
    uint32_t *slots;        /* index into items plus one; 0 is free. nslots is a power of two, at least twice count */
    size_t nslots;
    keeper *keepers;        /* last handed over first */
    range *mapped;
    sm_packs packs;
};

static size_t hash(const char *s)
{
    uint64_t h = sm_hash64(s, strlen(s));
    return (size_t)(h ^ h >> 32);
}

sm_weights *sm_weights_new(sm_mem *mem, sm_err *e)
{
    sm_weights *w = sm_alloc0(mem, SM_MEM_WEIGHT, sizeof *w);
    if (!w) {
        sm_fail(e, SUMI_E_MEMORY, "out of memory for a table of weights");
        return NULL;
    }
    w->mem = mem;
    sm_arena_init(&w->arena, mem, SM_MEM_WEIGHT);
    atomic_init(&w->refs, 1);
    sm_packs_init(&w->packs, mem);
    return w;
}

sm_weights *sm_weights_ref(sm_weights *w)
{
    if (w)
        atomic_fetch_add(&w->refs, 1);
    return w;
}

void sm_weights_unref(sm_weights **p)
{
    sm_weights *w = *p;
    *p = NULL;
    if (!w || atomic_fetch_sub(&w->refs, 1) != 1)
        return;
    sm_packs_close(&w->packs);
    for (keeper *k = w->keepers; k; k = k->next)
        k->free_fn(k->arg);
    sm_free(w->items);
    sm_free(w->slots);
    sm_arena_free(&w->arena);
    sm_free(w);
}

/* The slot that holds name, or the free one where it belongs. Needs nslots > count. */
static size_t slot_of(const sm_weights *w, const char *name)
{
    size_t i = hash(name) & (w->nslots - 1);
    while (w->slots[i] && strcmp(w->items[w->slots[i] - 1]->name, name))
        i = (i + 1) & (w->nslots - 1);
    return i;
}

sm_weight *sm_weights_find(const sm_weights *w, const char *name)
{
    if (!w->count)
        return NULL;
    uint32_t k = w->slots[slot_of(w, name)];
    return k ? w->items[k - 1] : NULL;
}

struct sm_packs *sm_weights_packs(sm_weights *w) { return &w->packs; }
size_t sm_weights_count(const sm_weights *w) { return w->count; }
sm_weight *sm_weights_at(const sm_weights *w, size_t i) { return i < w->count ? w->items[i] : NULL; }

/* Doubles the room for entries and refills the slots. */
static bool grow(sm_weights *w)
{
    size_t cap = w->cap ? w->cap * 2 : 256, nslots = cap * 2;
    if (cap > UINT32_MAX / 4)
        return false;
    sm_weight **items = sm_realloc(w->mem, SM_MEM_WEIGHT, w->items, cap * sizeof *items);
    if (!items)
        return false;
    w->items = items;
    uint32_t *slots = sm_alloc0(w->mem, SM_MEM_WEIGHT, nslots * sizeof *slots);
    if (!slots)
        return false;
    sm_free(w->slots);
    w->slots = slots;
    w->nslots = nslots;
    w->cap = cap;
    for (size_t i = 0; i < w->count; i++)
        slots[slot_of(w, w->items[i]->name)] = (uint32_t)i + 1;
    return true;
}

/* Size in bytes of a tensor of rank 0..SM_MAX_DIMS with sizes of at least 1 (a scalar file tensor has rank 0), a whole number of
 * its type's blocks; false when it is neither or the size overflows. */
static bool tensor_bytes(const sm_tensor *t, size_t *bytes)
{
    size_t n = 1, size = sm_dtype_block_bytes(t->dtype), block = (size_t)sm_dtype_block(t->dtype);
    if (!size || t->rank < 0 || t->rank > SM_MAX_DIMS)
        return false;
    for (int i = 0; i < t->rank; i++)
        if (t->dims[i] < 1 || !sm_mul_ok(n, (size_t)t->dims[i], &n))
            return false;
    if (n % block || !sm_mul_ok(n / block, size, &n))
        return false;
    *bytes = n;
    return true;
}

static bool inside(const sm_weight *n, const range *r)
{
    const char *p = n->t.data;
    return p >= r->from && p + n->bytes <= r->to;
}

sumi_status sm_weights_map(sm_weights *w, const void *data, size_t n, sm_err *e)
{
    range *r = sm_arena_get(&w->arena, sizeof *r);
    if (!r)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for a table of weights");
    *r = (range){data, (const char *)data + n, w->mapped};
    w->mapped = r;
    for (size_t i = 0; i < w->count; i++)
        w->items[i]->mapped |= inside(w->items[i], r);
    return SUMI_OK;
}

sumi_status sm_weights_map_as(sm_weights *w, const sm_weights *from, sm_err *e)
{
    sumi_status st = SUMI_OK;
    for (const range *r = from->mapped; r && !st; r = r->next)
        st = sm_weights_map(w, r->from, (size_t)(r->to - r->from), e);
    return st;
}

void sm_weights_drop(const sm_weights *w, const char *prefix)
{
    for (size_t i = 0; i < w->count; i++)
        if (w->items[i]->mapped && (!prefix || !strncmp(w->items[i]->name, prefix, strlen(prefix))))
            sm_pages_drop(w->items[i]->t.data, w->items[i]->bytes);
}

static sm_weight *insert(sm_weights *w, const char *name, const sm_tensor *t, sm_err *e)
{
    size_t bytes;
    if (!tensor_bytes(t, &bytes)) {
        sm_fail(e, SUMI_E_FORMAT, "tensor %s has a shape that is empty, too large or of more than %d dimensions", name,
                SM_MAX_DIMS);
        return NULL;
    }
    if (sm_weights_find(w, name)) {
        sm_fail(e, SUMI_E_FORMAT, "tensor %s appears twice", name);
        return NULL;
    }
    sm_weight *n = sm_arena_get(&w->arena, sizeof *n);
    char *own = n ? sm_arena_str(&w->arena, name) : NULL;
    if (!own || (w->count == w->cap && !grow(w))) {
        sm_fail(e, SUMI_E_MEMORY, "out of memory for tensor %s", name);
        return NULL;
    }
    *n = (sm_weight){.name = own, .t = *t, .bytes = bytes};
    for (int i = t->rank; i < SM_MAX_DIMS; i++)
        n->t.dims[i] = 1;
    for (const range *r = w->mapped; r; r = r->next)
        n->mapped |= inside(n, r);
    w->items[w->count++] = n;
    w->slots[slot_of(w, own)] = (uint32_t)w->count;
    return n;
}

sumi_status sm_weights_add(sm_weights *w, const char *name, const sm_tensor *t, sm_err *e)
{
    sm_err own = {0};
    if (insert(w, name, t, &own))
        return SUMI_OK;
    sm_fail(e, own.code, "%s", own.msg);
    return own.code;
}

sm_weight *sm_weights_create(sm_weights *w, const char *name, int rank, const int64_t *dims, sm_err *e)
{
    sm_tensor t = {.dtype = SM_F32, .rank = rank};
    size_t bytes;
    if (rank >= 0 && rank <= SM_MAX_DIMS)
        memcpy(t.dims, dims, (size_t)rank * sizeof *dims);
    if (tensor_bytes(&t, &bytes)) {
        t.data = sm_alloc0(w->mem, SM_MEM_WEIGHT, bytes);
        if (!t.data) {
            sm_fail(e, SUMI_E_MEMORY, "out of memory for tensor %s (%zu bytes)", name, bytes);
            return NULL;
        }
        if (sm_weights_keep(w, sm_free, t.data, e) != SUMI_OK)
            return NULL;
    }
    sm_weight *n = insert(w, name, &t, e); /* when it fails, the memory stays until the table dies */
    if (n)
        n->mutable_data = true;
    return n;
}

sumi_status sm_weights_keep(sm_weights *w, void (*free_fn)(void *), void *arg, sm_err *e)
{
    keeper *k = sm_arena_get(&w->arena, sizeof *k);
    if (!k) {
        free_fn(arg);
        sm_fail(e, SUMI_E_MEMORY, "out of memory for a table of weights");
        return SUMI_E_MEMORY;
    }
    *k = (keeper){free_fn, arg, w->keepers};
    w->keepers = k;
    return SUMI_OK;
}
