/* What the cache holds (see hub.h): finding a model by its name, listing all, removing one. Reads huggingface_hub's cache, too,
 * and never writes there. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "hub/cache.h"
#include "hub/digest.h"

enum { DEPTH = 32 };

/* ---- counting files ------------------------------------------------------------------------------------------------ */

/* Walks over the files below a folder: fn gets the path and the size. Links are followed for files only. */
typedef struct walk {
    const char *folder;
    int depth;
    void (*fn)(void *arg, const char *path, uint64_t size);
    void *arg;
} walk;

static bool walk_one(void *arg, const char *name)
{
    const walk *w = arg;
    char path[SM_HUB_LONG];
    struct stat st;
    int n = snprintf(path, sizeof path, "%s/%s", w->folder, name);
    if (n < 0 || n >= (int)sizeof path || lstat(path, &st))
        return true;
    if (S_ISDIR(st.st_mode) && w->depth < DEPTH)
        sm_cache_each(path, walk_one, &(walk){path, w->depth + 1, w->fn, w->arg});
    else if (!S_ISDIR(st.st_mode) && !stat(path, &st) && S_ISREG(st.st_mode))
        w->fn(w->arg, path, (uint64_t)st.st_size);
    return true;
}

static void each_file(const char *folder, void (*fn)(void *arg, const char *path, uint64_t size), void *arg)
{
    sm_cache_each(folder, walk_one, &(walk){folder, 0, fn, arg});
}

typedef struct tally { uint64_t bytes; int files, models; char model[SM_HUB_LONG]; } tally;

static bool is_model(const char *path)
{
    static const char *const ext[] = {".safetensors", ".gguf", ".ckpt", ".pt", ".pth", ".bin"};
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < SM_COUNT(ext); i++)
        if (!strcasecmp(dot, ext[i]))
            return true;
    return false;
}

static void add_file(void *arg, const char *path, uint64_t size)
{
    tally *t = arg;
    t->bytes += size;
    t->files++;
    if (is_model(path) && !t->models++)
        snprintf(t->model, sizeof t->model, "%s", path);
}

/* ---- finding ------------------------------------------------------------------------------------------------------- */

static bool exists(const char *folder, const char *name)
{
    char path[SM_HUB_LONG];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    return n > 0 && n < (int)sizeof path && !access(path, F_OK);
}

typedef struct file_search { const char *folder, *path; char *found; size_t size; } file_search;

/* The file in any snapshot: one that was pulled alone may lie in another than the name's. */
static bool search_snapshot(void *arg, const char *commit)
{
    const file_search *s = arg;
    int n = snprintf(s->found, s->size, "%s/%s/%s", s->folder, commit, s->path);
    bool there = n > 0 && (size_t)n < s->size && !access(s->found, F_OK);
    if (!there)
        s->found[0] = 0;
    return !there;
}

static bool see_marker(void *arg, const char *name)
{
    *(bool *)arg |= !strncmp(name, ".unfinished-", 12);
    return true;
}

/* The place in one repository's folder, "" when it is not there. */
static sumi_status find_in_repo(const sm_hub_name *n, const char *repo, const char *what, char *out, size_t size, sm_err *e)
{
    char commit[65], snapshot[SM_HUB_LONG], folder[SM_HUB_LONG], marker[100];
    tally t = {0};
    out[0] = 0;
    bool known = sm_cache_commit(repo, n->revision, commit);
    snprintf(folder, sizeof folder, "%s/snapshots", repo);
    snprintf(snapshot, sizeof snapshot, "%s/snapshots/%s", repo, commit);
    if (n->path[0]) {
        if (known)
            search_snapshot(&(file_search){folder, n->path, out, size}, commit);
        if (!out[0] && !strcmp(n->revision, "main"))
            sm_cache_each(folder, search_snapshot, &(file_search){folder, n->path, out, size});
        return SUMI_OK;
    }
    bool there = known && !access(snapshot, F_OK), begun = false;
    snprintf(marker, sizeof marker, ".unfinished-%s", commit);
    sm_cache_each(repo, see_marker, &begun);
    if (!there && !begun)
        return SUMI_OK;
    if (!there || exists(repo, marker))
        return sm_fail(e, SUMI_E_FILE, "%s: its pull was not finished; sumi pull %s goes on with it", what, what);
    each_file(snapshot, add_file, &t);
    bool whole = exists(snapshot, "model_index.json") || exists(snapshot, "config.json");
    if (!whole && t.models != 1)
        return sm_fail(e, SUMI_E_FILE, t.models ? "%s: %d model files of it are in the cache: name one, as in %s/FILE"
                       : "%s: no model file of it is in the cache (%d); sumi pull %s fetches it", what, t.models, what);
    if (strlen(whole ? snapshot : t.model) >= size)
        return sm_fail(e, SUMI_E_ARG, "%s: its path is too long", what);
    strcpy(out, whole ? snapshot : t.model);
    return SUMI_OK;
}

sumi_status sm_hub_find_in(const sm_hub_settings *s, const char *what, sm_mem *mem, char *path, size_t size, sm_err *e)
{
    char root[SM_HUB_FOLDER], repo[SM_HUB_FOLDER], below[SM_HUB_LONG];
    sm_hub_name n;
    path[0] = 0;
    if (sm_hub_parse(what, s->endpoint, &n, e))
        return e->code;
    if (!n.owner[0]) {
        if (sm_hub_address_path(n.address, below, sizeof below, e))
            return e->code;
        int k = snprintf(path, size, "%s/%s", s->cache, below);
        if (k > 0 && (size_t)k < size && !access(path, F_OK))
            return SUMI_OK;
        path[0] = 0;
        return sm_fail(e, SUMI_E_FILE, "'%.*s' is not in the cache; sumi pull fetches it", (int)strcspn(what, "?"), what);
    }
    for (int i = 0; i < 2 && !path[0]; i++) {
        if (i == 0)
            snprintf(root, sizeof root, "%s/hub", s->cache);
        else if (!sm_cache_foreign(root))
            break;
        if (sm_cache_repo(root, &n, repo) && find_in_repo(&n, repo, what, path, size, e))
            return e->code;
    }
    if (!path[0])
        return sm_fail(e, SUMI_E_FILE, "%.200s: no such file or folder, nor a model in the cache; sumi pull %.200s fetches it",
                       what, what);
    return SUMI_OK;
}

sumi_status sm_hub_find(const char *name, sm_mem *mem, char *path, size_t size, sm_err *e)
{
    sm_hub_settings s;
    return sm_hub_settings_read(NULL, &s, e) ? e->code : sm_hub_find_in(&s, name, mem, path, size, e);
}

/* ---- listing ------------------------------------------------------------------------------------------------------- */

typedef struct lister {
    sm_hub_entries *x;
    sm_err *e;
    const char *root, *repo, *owner_name, *url_root;
    int snapshots;
    bool foreign;
} lister;

static void add_entry(lister *l, const char *name, const char *path, const tally *t, bool finished)
{
    sm_hub_entries *x = l->x;
    if (x->n == x->room) {
        size_t room = x->room ? 2 * x->room : 32;
        sm_hub_entry *at = sm_realloc(x->arena.mem, SM_MEM_MISC, x->at, room * sizeof *at);
        if (!at) {
            sm_fail(l->e, SUMI_E_MEMORY, "out of memory listing models");
            return;
        }
        x->at = at;
        x->room = room;
    }
    sm_hub_entry en = {sm_arena_str(&x->arena, name), sm_arena_str(&x->arena, path), t->bytes, t->files, finished, l->foreign};
    if (!en.name || !en.path)
        sm_fail(l->e, SUMI_E_MEMORY, "out of memory listing models");
    else
        x->at[x->n++] = en;
}

typedef struct ref_search { const char *refs, *commit; char *name; } ref_search;

static void match_ref(void *arg, const char *path, uint64_t size)
{
    const ref_search *s = arg;
    sm_buf b = {0};
    sm_err none = {0};
    const char *name = path + strlen(s->refs) + 1;
    if (size < 256 && strlen(name) < SM_HUB_REVISION && !sm_file_read(path, 256, &b, &none) && b.data &&
        !strncmp(b.data, s->commit, strlen(s->commit)) && strcmp(s->name, "main"))
        strcpy(s->name, name);
    sm_buf_free(&b);
}

static bool list_snapshot(void *arg, const char *commit)
{
    lister *l = arg;
    char path[SM_HUB_LONG], refs[SM_HUB_LONG], ref[SM_HUB_REVISION] = "", name[SM_HUB_LONG], marker[100], main_commit[65];
    tally t = {0};
    if (!sm_is_hex(commit, 40) && !sm_is_hex(commit, 64))
        return true;
    snprintf(path, sizeof path, "%s/snapshots/%s", l->repo, commit);
    snprintf(refs, sizeof refs, "%s/refs", l->repo);
    snprintf(marker, sizeof marker, ".unfinished-%s", commit);
    each_file(refs, match_ref, &(ref_search){refs, commit, ref});
    if (!ref[0] && sm_cache_commit(l->repo, "main", main_commit) && !strcmp(main_commit, commit))
        strcpy(ref, "main");
    if (!ref[0])
        snprintf(ref, sizeof ref, "%.12s", commit);
    bool named = strcmp(ref, "main") != 0;
    snprintf(name, sizeof name, "%s%s%s", l->owner_name, named ? "@" : "", named ? ref : "");
    each_file(path, add_file, &t);
    add_entry(l, name, path, &t, !exists(l->repo, marker));
    l->snapshots++;
    return !l->e->code;
}

static bool list_repo(void *arg, const char *name)
{
    lister l = *(lister *)arg;
    char repo[SM_HUB_FOLDER], folder[SM_HUB_LONG], owner_name[256];
    tally t = {0};
    const char *dash = strncmp(name, "models--", 8) ? NULL : strstr(name + 8, "--");
    if (!dash || strlen(name) > 200)
        return true;
    snprintf(owner_name, sizeof owner_name, "%.*s/%s", (int)(dash - name - 8), name + 8, dash + 2);
    int n = snprintf(repo, sizeof repo, "%s/%s", l.root, name);
    if (n < 0 || n > (int)sizeof repo - 100 || !sm_hub_is_name(owner_name))
        return true;
    snprintf(folder, sizeof folder, "%s/snapshots", repo);
    l.repo = repo;
    l.owner_name = owner_name;
    l.snapshots = 0;
    sm_cache_each(folder, list_snapshot, &l);
    snprintf(folder, sizeof folder, "%s/blobs", repo);
    if (!l.snapshots && !l.e->code) { /* a first pull that was stopped */
        each_file(folder, add_file, &t);
        if (t.files)
            add_entry(&l, owner_name, repo, &t, false);
    }
    return !l.e->code;
}

static bool has_end(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static void list_address(void *arg, const char *path, uint64_t size)
{
    lister *l = arg;
    char name[SM_HUB_LONG];
    const char *scheme = path + strlen(l->url_root) + 1, *rest = strchr(scheme, '/');
    if (!rest || has_end(path, ".part") || has_end(path, ".part.etag") || has_end(path, ".lock"))
        return;
    snprintf(name, sizeof name, "%.*s:/%s", (int)(rest - scheme), scheme, rest);
    add_entry(l, name, path, &(tally){.bytes = size, .files = 1}, true);
}

static int by_name(const void *a, const void *b)
{
    const sm_hub_entry *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : (int)x->foreign - (int)y->foreign;
}

sumi_status sm_hub_list(const sm_hub_settings *s, sm_mem *mem, sm_hub_entries *out, sm_err *e)
{
    char root[SM_HUB_FOLDER];
    lister l = {.x = out, .e = e, .root = root, .url_root = root};
    *out = (sm_hub_entries){0};
    sm_arena_init(&out->arena, mem, SM_MEM_MISC);
    snprintf(root, sizeof root, "%s/hub", s->cache);
    sm_cache_each(root, list_repo, &l);
    snprintf(root, sizeof root, "%s/url", s->cache);
    each_file(root, list_address, &l);
    l.foreign = true;
    if (sm_cache_foreign(root))
        sm_cache_each(root, list_repo, &l);
    if (out->n)
        qsort(out->at, out->n, sizeof *out->at, by_name);
    return e->code;
}

void sm_hub_entries_free(sm_hub_entries *x)
{
    sm_free(x->at);
    sm_arena_free(&x->arena);
    *x = (sm_hub_entries){0};
}

/* ---- removing ------------------------------------------------------------------------------------------------------ */

static sumi_status not_there(const char *what, bool foreign, sm_err *e)
{
    if (foreign)
        return sm_fail(e, SUMI_E_FILE, "%.200s lies in huggingface_hub's cache, which sumi only reads", what);
    return sm_fail(e, SUMI_E_FILE, "%.200s is not in the cache; sumi models lists what is", what);
}

typedef struct ref_drop { const char *refs, *commit; } ref_drop;

static void drop_ref(void *arg, const char *path, uint64_t size)
{
    const ref_drop *d = arg;
    char name[SM_HUB_REVISION] = "";
    match_ref(&(ref_search){d->refs, d->commit, name}, path, size);
    if (name[0])
        unlink(path);
}

/* One snapshot, the refs to it and what only it needs. */
static bool remove_snapshot(const char *repo, const char *commit, uint64_t *freed)
{
    char path[SM_HUB_LONG];
    snprintf(path, sizeof path, "%s/.unfinished-%s", repo, commit);
    unlink(path);
    snprintf(path, sizeof path, "%s/refs", repo);
    each_file(path, drop_ref, &(ref_drop){path, commit});
    snprintf(path, sizeof path, "%s/snapshots/%s", repo, commit);
    bool ok = sm_cache_remove(path, freed);
    sm_cache_sweep(repo, freed);
    return ok;
}

static sumi_status remove_repo(const sm_hub_settings *s, const sm_hub_name *n, const char *what, uint64_t *freed, sm_err *e)
{
    char root[SM_HUB_FOLDER], repo[SM_HUB_FOLDER], path[SM_HUB_LONG], commit[65], other[SM_HUB_FOLDER];
    bool busy, one = strchr(what, '@') != NULL;
    snprintf(root, sizeof root, "%s/hub", s->cache);
    if (n->path[0])
        return sm_fail(e, SUMI_E_ARG, "%.200s: whole models are removed, or one revision: OWNER/NAME[@REVISION]", what);
    if (!sm_cache_repo(root, n, repo) || access(repo, F_OK))
        return not_there(what, sm_cache_foreign(other) && sm_cache_repo(other, n, repo) && !access(repo, F_OK), e);
    snprintf(path, sizeof path, "%s/.lock", repo);
    int fd = sm_cache_lock(path, NULL, NULL, &busy, e);
    if (fd < 0)
        return busy ? sm_fail(e, SUMI_E_FILE, "%.200s is being pulled just now", what) : e->code;
    if (one && !sm_cache_commit(repo, n->revision, commit))
        not_there(what, false, e);
    else if (!(one ? remove_snapshot(repo, commit, freed) : sm_cache_remove(repo, freed)))
        sm_fail(e, SUMI_E_FILE, "cannot remove all of %s: %s", repo, strerror(errno));
    sm_cache_unlock(fd);
    return e->code;
}

sumi_status sm_hub_remove(const sm_hub_settings *s, const char *what, sm_mem *mem, uint64_t *freed, sm_err *e)
{
    char path[SM_HUB_LONG], extra[SM_HUB_LONG + 16];
    sm_hub_name n;
    *freed = 0;
    if (sm_hub_parse(what, s->endpoint, &n, e))
        return e->code;
    if (n.owner[0])
        return remove_repo(s, &n, what, freed, e);
    if (sm_hub_find_in(s, what, mem, path, sizeof path, e))
        return e->code;
    if (!sm_cache_remove(path, freed))
        return sm_fail(e, SUMI_E_FILE, "cannot remove %s: %s", path, strerror(errno));
    snprintf(extra, sizeof extra, "%s.part", path);
    sm_cache_remove(extra, freed);
    snprintf(extra, sizeof extra, "%s.part.etag", path);
    sm_cache_remove(extra, freed);
    return SUMI_OK;
}
