/* The stream of torch.save before 1.6 (torch/serialization.py, _legacy_save): pickles of a magic number, a protocol, facts of
 * the system, the object and the keys of its storages, then each storage: its count of elements and its bytes. */
#include <stdio.h>
#include <string.h>

#include "io/ckpt_impl.h"

enum { STREAM_PROTOCOL = 1001 };

/* 0x1950a86a20f9469cfc6c, as pickle spells it in protocols 2 to 5 and in 1. */
static const uint8_t magic[] = {0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};
static const char magic_text[] = "L119547037146038801333356L\n.";

size_t sm_ckpt_magic(const uint8_t *p, size_t n)
{
    size_t text = sizeof magic_text - 1, at = 2;
    if (n >= text && !memcmp(p, magic_text, text))
        return text;
    if (n < 2 || p[0] != 0x80)
        return 0;
    at += n > 2 && p[2] == 0x95 ? 9 : 0; /* protocol 4 puts a frame around it */
    return n >= at + sizeof magic && !memcmp(p + at, magic, sizeof magic) ? at + sizeof magic : 0;
}

static const sm_pk_value *next_pickle(ckpt_reader *r, size_t *at, const char *what)
{
    char label[600];
    size_t used;
    snprintf(label, sizeof label, "%.500s: %s", r->label, what);
    const sm_pk_value *v = sm_pickle_read(&r->pickle, r->data + *at, r->size - *at, label, &used, r->e);
    *at += used;
    return v;
}

static bool bad(ckpt_reader *r, const char *what)
{
    sm_fail(r->e, SUMI_E_FORMAT, "%s: %s", r->label, what);
    return false;
}

static int compare_key(const sm_pk_storage *s, const char *key, size_t n)
{
    int c = memcmp(s->key, key, SM_MIN(s->nkey, n));
    return c ? c : (s->nkey > n) - (s->nkey < n);
}

/* The first of the sorted mentions of that key, or their count. */
static size_t first_of(const sm_pickle *p, const sm_pk_value *key)
{
    size_t a = 0, b = p->nstorages;
    while (a < b) {
        size_t m = a + (b - a) / 2;
        if (compare_key(p->storages[m], key->u.s, key->n) < 0)
            a = m + 1;
        else
            b = m;
    }
    return a < p->nstorages && !compare_key(p->storages[a], key->u.s, key->n) ? a : p->nstorages;
}

/* Reads the storage at *at and gives it to every mention of its key. */
static bool read_storage(ckpt_reader *r, const sm_pk_value *key, size_t *at)
{
    const sm_pickle *p = &r->pickle;
    size_t i = key->kind == SM_PK_STR ? first_of(p, key) : p->nstorages;
    if (i == p->nstorages || p->storages[i]->data)
        return bad(r, "lists a storage that no tensor has, or one twice");
    if (r->size - *at < 8)
        return bad(r, "ends before its last storage; is the file truncated?");
    uint64_t count = 0, bytes;
    for (int k = 7; k >= 0; k--)
        count = count << 8 | r->data[*at + (size_t)(r->big_endian ? 7 - k : k)];
    *at += 8;
    if (__builtin_mul_overflow(count, (uint64_t)p->storages[i]->type->size, &bytes) || bytes != p->storages[i]->bytes)
        return bad(r, "a storage has not the size that its pickle states");
    if (bytes > r->size - *at)
        return bad(r, "ends in a storage; is the file truncated?");
    for (; i < p->nstorages && !compare_key(p->storages[i], key->u.s, key->n); i++) {
        if (p->storages[i]->bytes != bytes)
            return bad(r, "a storage is mentioned with two sizes");
        p->storages[i]->data = r->data + *at;
    }
    *at += (size_t)bytes;
    return true;
}

bool sm_ckpt_read_stream(ckpt_reader *r)
{
    size_t at = sm_ckpt_magic(r->data, r->size);
    const sm_pk_value *version = next_pickle(r, &at, "protocol"), *system = version ? next_pickle(r, &at, "system") : NULL;
    if (!system)
        return false;
    const sm_pk_value *little = sm_pk_get(system, "little_endian");
    if (version->kind != SM_PK_INT || version->u.i != STREAM_PROTOCOL || !little || little->kind != SM_PK_BOOL)
        return bad(r, "a torch stream of an unknown version");
    r->big_endian = !little->u.i;
    r->root = next_pickle(r, &at, "object");
    const sm_pk_value *keys = r->root ? next_pickle(r, &at, "storage keys") : NULL;
    if (!keys)
        return false;
    if (keys->kind != SM_PK_LIST)
        return bad(r, "its storage keys are no list");
    sm_ckpt_sort_storages(&r->pickle);
    for (size_t i = 0; i < keys->n; i++)
        if (!read_storage(r, keys->u.item[i], &at))
            return false;
    for (size_t i = 0; i < r->pickle.nstorages; i++)
        if (!r->pickle.storages[i]->data)
            return bad(r, "a tensor's storage is not in the file");
    return at == r->size || bad(r, "bytes after the last storage belong to none");
}
