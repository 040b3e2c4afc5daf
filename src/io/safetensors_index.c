/* Several safetensors files that look like one: the index that transformers and diffusers write beside shards
 * (`weight_map`: tensor to file), and folders that hold an index or a single file. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/json.h"
#include "io/safetensors_impl.h"

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && !strcmp(s + n - k, tail);
}

/* ---- the index text ---------------------------------------------------------------------------------------------- */

/* A shard is named, not located: an index must not reach out of its folder. */
static bool plain_name(const char *s)
{
    return *s && *s != '.' && strlen(s) <= 255 && !strchr(s, '/') && ends_with(s, ".safetensors");
}

sumi_status sm_st_index_each(const char *json, size_t n, const char *label, sm_mem *mem,
                             sumi_status (*fn)(void *arg, const char *tensor, const char *file, sm_err *e), void *arg, sm_err *e)
{
    sm_err own = {0};
    cJSON *root = sm_json_parse(mem, json, n, 8, SM_ST_MAX_VALUES, label, &own);
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(root, "weight_map");
    if (root && (!cJSON_IsObject(map) || !map->child))
        sm_fail(&own, SUMI_E_FORMAT, "%s: has no weight_map; it is no safetensors index", label);
    for (const cJSON *c = map ? map->child : NULL; c && own.code == SUMI_OK; c = c->next) {
        if (!*c->string || strlen(c->string) > SM_ST_MAX_NAME)
            sm_fail(&own, SUMI_E_FORMAT, "%s: a tensor name is empty or longer than %d bytes", label, SM_ST_MAX_NAME);
        else if (!cJSON_IsString(c) || !plain_name(c->valuestring))
            sm_fail(&own, SUMI_E_FORMAT, "%s: tensor '%.200s' is not assigned to a .safetensors file of the same folder", label,
                    c->string);
        else
            fn(arg, c->string, c->valuestring, &own);
    }
    cJSON_Delete(root);
    if (own.code != SUMI_OK)
        sm_fail(e, own.code, "%s", own.msg);
    return own.code;
}

/* ---- shards ------------------------------------------------------------------------------------------------------ */

/* An index while it is opened: files[i] is the name of f->shards[i]. */
typedef struct opener {
    sm_st *f;
    const char *path, *files[SM_ST_MAX_SHARDS];
    int folder;          /* bytes of path before the file name */
} opener;

/* The shard of that name, opened at its first use. */
static sm_st *shard(opener *o, const char *file, sm_err *e)
{
    sm_st *f = o->f;
    for (size_t i = f->nshards; i-- > 0;) /* tensors of one shard mostly follow each other */
        if (!strcmp(o->files[i], file))
            return f->shards[i];
    if (f->nshards == SM_ST_MAX_SHARDS) {
        sm_fail(e, SUMI_E_FORMAT, "%s: names more than %d files", o->path, SM_ST_MAX_SHARDS);
        return NULL;
    }
    char *own = sm_arena_str(&f->arena, file);
    char *full = sm_arena_fmt(&f->arena, "%.*s%s", o->folder, o->path, file);
    if (!own || !full) {
        sm_fail(e, SUMI_E_MEMORY, "%s: out of memory for its list of files", o->path);
        return NULL;
    }
    sm_st *s = sm_st_open_file(full, f->mem, e);
    if (s) {
        o->files[f->nshards] = own;
        f->shards[f->nshards++] = s;
    }
    return s;
}

static sumi_status want(void *arg, const char *tensor, const char *file, sm_err *e)
{
    opener *o = arg;
    const sm_st *s = shard(o, file, e);
    if (s && !sm_st_find(s, tensor))
        sm_fail(e, SUMI_E_FORMAT, "%s: tensor '%.200s' is not in %s", o->path, tensor, file);
    return e->code;
}

/* The entries of all shards in one sorted list; a name may be in one shard only. */
static sumi_status merge(sm_st *f, const char *path, sm_err *e)
{
    size_t n = 0;
    for (size_t i = 0; i < f->nshards; i++)
        n += f->shards[i]->count;
    f->entries = sm_alloc(f->mem, SM_MEM_MISC, (n + 1) * sizeof *f->entries);
    if (!f->entries)
        return sm_fail(e, SUMI_E_MEMORY, "%s: out of memory for its list of tensors", path);
    for (size_t i = 0; i < f->nshards; i++) {
        const sm_st *s = f->shards[i];
        memcpy(f->entries + f->count, s->entries, s->count * sizeof *s->entries);
        f->count += s->count;
    }
    qsort(f->entries, f->count, sizeof *f->entries, sm_st_by_name);
    for (size_t i = 1; i < f->count; i++)
        if (!strcmp(f->entries[i - 1].name, f->entries[i].name))
            return sm_fail(e, SUMI_E_FORMAT, "%s: tensor '%.200s' is in two of its files", path, f->entries[i].name);
    f->meta = f->shards[0]->meta;
    f->nmeta = f->shards[0]->nmeta;
    return SUMI_OK;
}

static sm_st *open_index(const char *path, sm_mem *mem, sm_err *e)
{
    sm_buf text = {.mem = mem};
    const char *slash = strrchr(path, '/');
    sm_st *f = sm_alloc0(mem, SM_MEM_MISC, sizeof *f);
    opener *o = sm_alloc0(mem, SM_MEM_MISC, sizeof *o);
    if (f && o) {
        *o = (opener){.f = f, .path = path, .folder = slash ? (int)(slash - path) + 1 : 0};
        f->mem = mem;
        sm_arena_init(&f->arena, mem, SM_MEM_MISC);
        f->shards = sm_arena_get(&f->arena, SM_ST_MAX_SHARDS * sizeof(sm_st *));
    }
    bool ok = false;
    if (!f || !o || !f->shards)
        sm_fail(e, SUMI_E_MEMORY, "%s: out of memory", path);
    else if (sm_file_read(path, SM_ST_MAX_HEADER, &text, e) == SUMI_OK)
        ok = sm_st_index_each(text.data ? text.data : "", text.len, path, mem, want, o, e) == SUMI_OK &&
            merge(f, path, e) == SUMI_OK;
    sm_buf_free(&text);
    sm_free(o);
    if (ok)
        return f;
    sm_st_close(f);
    return NULL;
}

/* ---- folders ----------------------------------------------------------------------------------------------------- */

/* The file of the folder that ends so, if it is the only one; *n counts them. NULL on failure or if there is none. */
static char *only_file(sm_arena *a, const char *folder, const char *tail, int *n, sm_err *e)
{
    DIR *d = opendir(folder);
    char *found = NULL;
    *n = 0;
    if (!d) {
        sm_fail(e, SUMI_E_FILE, "cannot open %s: %s", folder, strerror(errno));
        return NULL;
    }
    for (struct dirent *x; (x = readdir(d));) {
        if (x->d_name[0] == '.' || !ends_with(x->d_name, tail))
            continue;
        if (!(*n)++ && !(found = sm_arena_fmt(a, "%s/%s", folder, x->d_name)))
            sm_fail(e, SUMI_E_MEMORY, "%s: out of memory", folder);
    }
    closedir(d);
    return *n == 1 ? found : NULL;
}

/* Which file a folder stands for: the usual names first, then whatever is alone of its kind. */
static const char *pick(sm_arena *a, const char *folder, sm_err *e)
{
    static const char *const usual[] = {"model.safetensors.index.json", "diffusion_pytorch_model.safetensors.index.json",
                                        "model.safetensors", "diffusion_pytorch_model.safetensors"};
    for (size_t i = 0; i < SM_COUNT(usual); i++) {
        struct stat st;
        char *p = sm_arena_fmt(a, "%s/%s", folder, usual[i]);
        if (!p) {
            sm_fail(e, SUMI_E_MEMORY, "%s: out of memory", folder);
            return NULL;
        }
        if (!stat(p, &st))
            return p;
    }
    int n, m = 0;
    const char *p = only_file(a, folder, ".safetensors.index.json", &n, e);
    if (!p && !n)
        p = only_file(a, folder, ".safetensors", &m, e);
    if (!p && n + m == 0)
        sm_fail(e, SUMI_E_FILE, "folder %s holds no .safetensors file", folder);
    else if (!p)
        sm_fail(e, SUMI_E_FILE, "folder %s holds several .safetensors files; name one", folder);
    return p;
}

sm_st *sm_st_open(const char *path, sm_mem *mem, sm_err *e)
{
    struct stat st;
    if (stat(path, &st) || !S_ISDIR(st.st_mode))
        return ends_with(path, ".json") ? open_index(path, mem, e) : sm_st_open_file(path, mem, e);
    sm_arena a;
    sm_arena_init(&a, mem, SM_MEM_MISC);
    const char *p = pick(&a, path, e);
    sm_st *f = !p ? NULL : ends_with(p, ".json") ? open_index(p, mem, e) : sm_st_open_file(p, mem, e);
    sm_arena_free(&a);
    return f;
}
