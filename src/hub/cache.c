/* Paths, locks, links and removal (see cache.h). Names come from name.c alone, which has checked them. */
#include "hub/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "hub/digest.h"

enum { DEPTH = 64 }; /* of a tree that is removed or counted: a path of 400 bytes has at most 200 parts, models have few */

/* ---- places -------------------------------------------------------------------------------------------------------- */

bool sm_cache_repo(const char *root, const sm_hub_name *n, char out[SM_HUB_FOLDER])
{
    int k = snprintf(out, SM_HUB_FOLDER, "%s/models--%s--%s", root, n->owner, n->name);
    return k > 0 && k < SM_HUB_FOLDER;
}

bool sm_cache_foreign(char out[SM_HUB_FOLDER])
{
    const char *hub = getenv("HF_HUB_CACHE"), *hf = getenv("HF_HOME"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int k = hub && *hub ? snprintf(out, SM_HUB_FOLDER, "%s", hub)
            : hf && *hf ? snprintf(out, SM_HUB_FOLDER, "%s/hub", hf)
            : xdg && *xdg ? snprintf(out, SM_HUB_FOLDER, "%s/huggingface/hub", xdg)
            : home && *home ? snprintf(out, SM_HUB_FOLDER, "%s/.cache/huggingface/hub", home) : 0;
    return k > 0 && k < SM_HUB_FOLDER;
}

void sm_cache_each(const char *folder, bool (*fn)(void *arg, const char *name), void *arg)
{
    DIR *d = opendir(folder);
    const struct dirent *x;
    while (d && (x = readdir(d)))
        if (strcmp(x->d_name, ".") && strcmp(x->d_name, "..") && !fn(arg, x->d_name))
            break;
    if (d)
        closedir(d);
}

typedef struct commit_search { const char *begin; size_t n; int found; char *commit; } commit_search;

static bool match_commit(void *arg, const char *name)
{
    commit_search *s = arg;
    bool commit = sm_is_hex(name, 40) || sm_is_hex(name, 64);
    if (commit && !strncmp(name, s->begin, s->n) && !s->found++)
        strcpy(s->commit, name);
    return true;
}

bool sm_cache_commit(const char *repo, const char *revision, char commit[65])
{
    char path[SM_HUB_LONG];
    sm_buf b = {0};
    sm_err none = {0};
    commit[0] = 0;
    snprintf(path, sizeof path, "%s/refs/%s", repo, revision);
    if (!sm_file_read(path, 256, &b, &none) && b.data) {
        b.data[strcspn(b.data, " \r\n")] = 0;
        if (sm_is_hex(b.data, 40) || sm_is_hex(b.data, 64))
            strcpy(commit, b.data);
    }
    sm_buf_free(&b);
    if (commit[0])
        return true;
    bool any = !strcmp(revision, "main");
    commit_search s = {any ? "" : revision, any ? 0 : strlen(revision), 0, commit};
    snprintf(path, sizeof path, "%s/snapshots", repo);
    if (any || (s.n >= 7 && strspn(revision, "0123456789abcdef") == s.n))
        sm_cache_each(path, match_commit, &s);
    return s.found == 1;
}

/* ---- making -------------------------------------------------------------------------------------------------------- */

sumi_status sm_cache_folders(const char *path, sm_err *e)
{
    char part[SM_HUB_LONG];
    size_t n = strlen(path);
    if (n >= sizeof part)
        return sm_fail(e, SUMI_E_ARG, "the cache folder's name is too long");
    for (size_t i = 1; i < n; i++) {
        if (path[i] != '/')
            continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (mkdir(part, 0777) && errno != EEXIST) {
            struct stat st;
            int no = errno;
            if (stat(part, &st) || !S_ISDIR(st.st_mode))
                return sm_fail(e, SUMI_E_FILE, "cannot make the folder %s: %s; set SUMI_CACHE to one that can be written to",
                               part, strerror(no));
        }
    }
    return SUMI_OK;
}

int sm_cache_lock(const char *path, bool (*wait)(void *arg), void *arg, bool *busy, sm_err *e)
{
    if (busy)
        *busy = false;
    for (;;) {
        struct stat mine, there;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (fd < 0) {
            sm_fail(e, SUMI_E_FILE, "cannot write %s: %s; set SUMI_CACHE to a folder that can be written to", path,
                    strerror(errno));
            return -1;
        }
        while (flock(fd, LOCK_EX | LOCK_NB)) {
            bool held = errno == EWOULDBLOCK;
            if (!held && errno != EINTR)
                sm_fail(e, SUMI_E_FILE, "cannot lock %s: %s", path, strerror(errno));
            else if (held && !wait && busy)
                *busy = true;
            if (e->code || (held && (!wait || !wait(arg)))) {
                close(fd);
                return -1;
            }
        }
        /* Its holder may have removed the file with the folder: then a new one counts. */
        if (!fstat(fd, &mine) && !stat(path, &there) && mine.st_ino == there.st_ino && mine.st_dev == there.st_dev)
            return fd;
        close(fd);
        if (sm_cache_folders(path, e))
            return -1;
    }
}

void sm_cache_unlock(int fd)
{
    if (fd >= 0)
        close(fd);
}

sumi_status sm_cache_link(const char *blob, const char *path, sm_err *e)
{
    if (sm_cache_folders(path, e))
        return e->code;
    if (unlink(path) && errno != ENOENT)
        return sm_fail(e, SUMI_E_FILE, "cannot replace %s: %s", path, strerror(errno));
    if (!link(blob, path) || !rename(blob, path))
        return SUMI_OK;
    return sm_fail(e, SUMI_E_FILE, "cannot write %s: %s", path, strerror(errno));
}

/* ---- removing ------------------------------------------------------------------------------------------------------ */

static bool remove_inside(int dir, uint64_t *freed, int depth)
{
    DIR *d = depth < DEPTH ? fdopendir(dir) : NULL;
    bool ok = d != NULL;
    const struct dirent *x;
    if (!d)
        close(dir);
    while (d && (x = readdir(d))) {
        struct stat st;
        if (!strcmp(x->d_name, ".") || !strcmp(x->d_name, ".."))
            continue;
        if (fstatat(dirfd(d), x->d_name, &st, AT_SYMLINK_NOFOLLOW)) {
            ok = false;
            continue;
        }
        bool folder = S_ISDIR(st.st_mode);
        int below = folder ? openat(dirfd(d), x->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
        if (folder)
            ok &= below >= 0 && remove_inside(below, freed, depth + 1);
        if (unlinkat(dirfd(d), x->d_name, folder ? AT_REMOVEDIR : 0))
            ok = false;
        else if (S_ISREG(st.st_mode) && st.st_nlink == 1)
            *freed += (uint64_t)st.st_size;
    }
    if (d)
        closedir(d);
    return ok;
}

bool sm_cache_remove(const char *path, uint64_t *freed)
{
    struct stat st;
    if (lstat(path, &st))
        return errno == ENOENT;
    if (!S_ISDIR(st.st_mode)) {
        if (unlink(path))
            return false;
        *freed += st.st_nlink == 1 ? (uint64_t)st.st_size : 0;
        return true;
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd >= 0 && remove_inside(fd, freed, 0) && !rmdir(path);
}

typedef struct sweep { const char *folder; uint64_t *freed; } sweep;

static bool sweep_one(void *arg, const char *name)
{
    const sweep *s = arg;
    char path[SM_HUB_LONG];
    struct stat st;
    int n = snprintf(path, sizeof path, "%s/%s", s->folder, name);
    if (n < 0 || n >= (int)sizeof path)
        return true;
    bool whole = sm_is_hex(name, 40) || sm_is_hex(name, 64); /* what is being fetched stays */
    if (whole && !lstat(path, &st) && S_ISREG(st.st_mode) && st.st_nlink == 1 && !unlink(path))
        *s->freed += (uint64_t)st.st_size;
    return true;
}

void sm_cache_sweep(const char *repo, uint64_t *freed)
{
    char folder[SM_HUB_LONG];
    snprintf(folder, sizeof folder, "%s/blobs", repo);
    sm_cache_each(folder, sweep_one, &(sweep){folder, freed});
}
