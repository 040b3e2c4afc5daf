/* The zip archives of torch.save (torch 1.6 and later): NAME/data.pkl, and NAME/data/KEY for each storage. */
#include <stdio.h>
#include <string.h>

#include "io/ckpt_impl.h"
#include "io/zip.h"

/* The content: in place when it is stored, else unpacked. */
static const uint8_t *content(ckpt_reader *r, sm_zip *z, const sm_zip_entry *x)
{
    if (x->stored)
        return x->data;
    uint8_t *p = sm_ckpt_copy(r, x->size, x->name);
    return p && sm_zip_inflate(z, x, p, r->e) == SUMI_OK ? p : NULL;
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && !strcmp(s + n - k, tail);
}

/* The one pickle, `data.pkl` in the archive's folder or without a folder. */
static const sm_zip_entry *find_pickle(ckpt_reader *r, const sm_zip *z)
{
    const sm_zip_entry *found = NULL;
    for (size_t i = 0; i < sm_zip_count(z); i++) {
        const sm_zip_entry *x = sm_zip_at(z, i);
        if (ends_with(x->name, "/constants.pkl")) {
            sm_fail(r->e, SUMI_E_FORMAT, "%s: is a TorchScript program, not a checkpoint; save its state_dict instead", r->label);
            return NULL;
        }
        if (strcmp(x->name, "data.pkl") && !ends_with(x->name, "/data.pkl"))
            continue;
        if (found) {
            sm_fail(r->e, SUMI_E_FORMAT, "%s: is a zip archive with several checkpoints in it", r->label);
            return NULL;
        }
        found = x;
    }
    if (!found)
        sm_fail(r->e, SUMI_E_FORMAT, "%s: is a zip archive, but none that torch.save wrote: it has no data.pkl", r->label);
    else if (found->size > SM_PK_MAX_BYTES)
        sm_fail(r->e, SUMI_E_FORMAT, "%s: has a pickle of more than %d bytes", r->label, SM_PK_MAX_BYTES);
    else
        return found;
    return NULL;
}

/* The entry NAME/what, NULL when there is none. */
static const sm_zip_entry *sibling(const sm_zip *z, const sm_zip_entry *pickle, const char *what, const char *key, size_t nkey)
{
    char name[2048];
    int folder = (int)(strlen(pickle->name) - strlen("data.pkl"));
    if (nkey > 512 || memchr(key, 0, nkey))
        return NULL;
    snprintf(name, sizeof name, "%.*s%s%.*s", folder, pickle->name, what, (int)nkey, key);
    return sm_zip_find(z, name);
}

static bool read_byteorder(ckpt_reader *r, sm_zip *z, const sm_zip_entry *pickle)
{
    const sm_zip_entry *x = sibling(z, pickle, "byteorder", "", 0);
    if (!x)
        return true;
    const uint8_t *p = x->size <= 16 ? content(r, z, x) : NULL;
    r->big_endian = p && x->size == 3 && !memcmp(p, "big", 3);
    if (!r->big_endian && !(p && x->size == 6 && !memcmp(p, "little", 6)))
        sm_fail(r->e, SUMI_E_FORMAT, "%s: %s says neither little nor big", r->label, x->name);
    return !r->e->code;
}

static bool place(ckpt_reader *r, sm_zip *z, const sm_zip_entry *pickle, sm_pk_storage *s)
{
    int nkey = (int)SM_MIN(s->nkey, (size_t)64);
    const sm_zip_entry *x = sibling(z, pickle, "data/", s->key, s->nkey);
    if (!x) {
        sm_fail(r->e, SUMI_E_FORMAT, "%s: storage '%.*s' is not in the archive", r->label, nkey, s->key);
        return false;
    }
    if (x->size != s->bytes) {
        sm_fail(r->e, SUMI_E_FORMAT, "%s: storage '%.*s' has %zu bytes, but %llu are stated", r->label, nkey, s->key, x->size,
                (unsigned long long)s->bytes);
        return false;
    }
    s->data = content(r, z, x);
    return s->data;
}

static bool same_key(const sm_pk_storage *a, const sm_pk_storage *b)
{
    return a->nkey == b->nkey && !memcmp(a->key, b->key, a->nkey);
}

static bool read_archive(ckpt_reader *r, sm_zip *z)
{
    char label[600];
    size_t used;
    const sm_zip_entry *x = find_pickle(r, z);
    const uint8_t *p = x ? content(r, z, x) : NULL;
    if (!p || !read_byteorder(r, z, x))
        return false;
    snprintf(label, sizeof label, "%.400s: %.150s", r->label, x->name);
    r->root = sm_pickle_read(&r->pickle, p, x->size, label, &used, r->e);
    if (!r->root)
        return false;
    sm_ckpt_sort_storages(&r->pickle);
    for (size_t i = 0; i < r->pickle.nstorages; i++) {
        sm_pk_storage *s = r->pickle.storages[i], *before = i ? r->pickle.storages[i - 1] : NULL;
        if (before && same_key(s, before) && s->bytes == before->bytes)
            s->data = before->data;
        else if (!place(r, z, x, s))
            return false;
    }
    return true;
}

bool sm_ckpt_read_zip(ckpt_reader *r)
{
    sm_zip *z = sm_zip_open_mem(r->data, r->size, r->label, r->f->mem, r->e);
    bool ok = z && read_archive(r, z);
    sm_zip_close(z);
    return ok;
}
