/* The hub's JSON (see listing.h), as its public API documents it: {"sha": COMMIT, "siblings": [{"rfilename", "size", "blobId",
 * "lfs": {"sha256", "size"}}]}; a file without "lfs" is an ordinary git blob. */
#include "hub/listing.h"

#include <stdlib.h>
#include <string.h>

#include "io/json.h"

enum { MAX_DEPTH = 16, MAX_VALUES = 1 << 20, MAX_FILES = 50000 };

static const char *text_of(const cJSON *o, const char *name)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(o, name);
    return cJSON_IsString(x) ? x->valuestring : NULL;
}

/* As it may stand in a message: the name is somebody else's. */
static void printable(const char *s, char out[81])
{
    size_t n = 0;
    for (; n < 80 && s[n]; n++)
        out[n] = (unsigned char)s[n] < 0x20 || (unsigned char)s[n] >= 0x7f ? '?' : s[n];
    out[n] = 0;
}

static sumi_status read_file(const cJSON *j, sm_listing *l, sm_hub_file *f, const char *label, sm_err *e)
{
    char shown[81];
    const char *path = text_of(j, "rfilename"), *wrong = path ? sm_hub_path_wrong(path) : NULL;
    const cJSON *lfs = cJSON_GetObjectItemCaseSensitive(j, "lfs");
    if (!path)
        return sm_fail(e, SUMI_E_FORMAT, "%s: the hub's listing has a file without a name", label);
    printable(path, shown);
    if (wrong)
        return sm_fail(e, SUMI_E_FORMAT, "%s: the hub's listing names a file '%s' that %s: refused", label, shown, wrong);
    bool big = cJSON_IsObject(lfs);
    const char *digest = !big ? text_of(j, "blobId") : text_of(lfs, "sha256") ? text_of(lfs, "sha256") : text_of(lfs, "oid");
    const cJSON *size = cJSON_GetObjectItemCaseSensitive(big ? lfs : j, "size");
    if (!sm_json_index(size, &f->size) || !sm_is_hex(digest, big ? 64 : 40))
        return sm_fail(e, SUMI_E_FORMAT, "%s: the hub's listing has no size or digest of '%s'", label, shown);
    f->kind = big ? SM_DIGEST_SHA256 : SM_DIGEST_GIT;
    for (size_t i = 0; i <= strlen(digest); i++)
        f->digest[i] = digest[i] >= 'A' && digest[i] <= 'F' ? (char)(digest[i] + 32) : digest[i];
    f->path = sm_arena_str(&l->arena, path);
    return f->path ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "out of memory for the listing of %s", label);
}

static int by_path(const void *a, const void *b)
{
    const sm_hub_file *x = a, *y = b;
    return strcmp(x->path, y->path);
}

static sumi_status read_all(const cJSON *j, sm_listing *l, const char *label, sm_err *e)
{
    const char *commit = text_of(j, "sha");
    const cJSON *files = cJSON_GetObjectItemCaseSensitive(j, "siblings"), *x;
    if (!cJSON_IsObject(j) || !cJSON_IsArray(files) || !(sm_is_hex(commit, 40) || sm_is_hex(commit, 64)))
        return sm_fail(e, SUMI_E_FORMAT, "%s: what the server sends is no hub's listing of a model; is HF_ENDPOINT right?",
                       label);
    strcpy(l->commit, commit);
    size_t n = (size_t)cJSON_GetArraySize(files);
    if (n > MAX_FILES)
        return sm_fail(e, SUMI_E_FORMAT, "%s: more than %d files", label, MAX_FILES);
    l->at = sm_arena_get(&l->arena, (n + 1) * sizeof *l->at);
    if (!l->at)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for the listing of %s", label);
    cJSON_ArrayForEach(x, files)
        if (read_file(x, l, &l->at[l->n++], label, e))
            return e->code;
    qsort(l->at, l->n, sizeof *l->at, by_path);
    for (size_t i = 1; i < l->n; i++)
        if (!strcmp(l->at[i - 1].path, l->at[i].path))
            return sm_fail(e, SUMI_E_FORMAT, "%s: the hub's listing names one file twice", label);
    return SUMI_OK;
}

sumi_status sm_listing_parse(const char *json, size_t n, const char *label, sm_mem *mem, sm_listing *out, sm_err *e)
{
    *out = (sm_listing){0};
    sm_arena_init(&out->arena, mem, SM_MEM_MISC);
    sm_err why = {0};
    cJSON *j = sm_json_parse(mem, json, n, MAX_DEPTH, MAX_VALUES, label, &why);
    if (j)
        read_all(j, out, label, e);
    else
        sm_fail(e, why.code, why.code == SUMI_E_MEMORY ? "%s"
                : "%s: what the server sends is no hub's listing; is HF_ENDPOINT right?", why.msg);
    cJSON_Delete(j);
    return e->code;
}

void sm_listing_free(sm_listing *l)
{
    sm_arena_free(&l->arena);
    *l = (sm_listing){0};
}

sm_hub_file *sm_listing_find(const sm_listing *l, const char *path)
{
    sm_hub_file key = {.path = path};
    return l->n ? bsearch(&key, l->at, l->n, sizeof *l->at, by_path) : NULL;
}
