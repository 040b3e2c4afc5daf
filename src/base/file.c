/* Mapped reading and atomic writing (see file.h). The writing order, data before name, follows the usual POSIX recipe: after
 * a crash at any moment the path holds the old content or the new, never a mixture. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static sumi_status sys_fail(sm_err *e, const char *verb, const char *path)
{
    int no = errno;
    return sm_fail(e, SUMI_E_FILE, "cannot %s %s: %s", verb, path, strerror(no));
}

static sumi_status no_memory(sm_err *e, const char *path)
{
    return sm_fail(e, SUMI_E_MEMORY, "out of memory for file %s", path);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* Opens for reading, without waiting for the other end of a pipe; refuses folders. -1 on failure. */
static int open_read(const char *path, struct stat *st, sm_err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        sys_fail(e, "open", path);
        return -1;
    }
    if (fstat(fd, st) || S_ISDIR(st->st_mode)) {
        errno = S_ISDIR(st->st_mode) ? EISDIR : errno;
        sys_fail(e, "read", path);
        close(fd);
        return -1;
    }
    (void)fcntl(fd, F_SETFL, 0);
    return fd;
}

sm_map *sm_map_open(sm_mem *mem, const char *path, sm_err *e)
{
    struct stat st = {0};
    int fd = open_read(path, &st, e);
    if (fd < 0)
        return NULL;
    sm_map *m = S_ISREG(st.st_mode) ? sm_alloc0(mem, SM_MEM_MISC, sizeof *m) : NULL;
    if (!m) {
        if (S_ISREG(st.st_mode))
            no_memory(e, path);
        else
            sm_fail(e, SUMI_E_FILE, "cannot map %s: not a regular file", path);
        close(fd);
        return NULL;
    }
    m->size = (size_t)st.st_size;
    if (m->size) {
        void *p = mmap(NULL, m->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            sys_fail(e, "map", path);
            sm_free(m);
            m = NULL;
        } else {
            m->data = p;
        }
    }
    close(fd);
    return m;
}

void sm_map_close(void *map)
{
    sm_map *m = map;
    if (m && m->data)
        munmap((void *)m->data, m->size);
    sm_free(m);
}

sumi_status sm_file_read(const char *path, size_t limit, sm_buf *out, sm_err *e)
{
    struct stat st = {0};
    int fd = open_read(path, &st, e);
    sumi_status r = fd < 0 ? SUMI_E_FILE : SUMI_OK;
    size_t before = out->len;
    char part[16384];
    while (r == SUMI_OK) {
        ssize_t n = read(fd, part, sizeof part);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            r = sys_fail(e, "read", path);
        if (n <= 0)
            break;
        if (out->len - before + (size_t)n > limit) {
            r = SUMI_E_FORMAT;
            sm_fail(e, r, "%s is too large: more than %zu bytes", path, limit);
        } else {
            sm_buf_add(out, part, (size_t)n);
        }
        if (out->oom) {
            r = SUMI_E_MEMORY;
            no_memory(e, path);
        }
    }
    if (fd >= 0)
        close(fd);
    if (r != SUMI_OK)
        sm_buf_free(out);
    return r;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

struct sm_file_writer {
    int fd;
    bool direct;    /* written in place: a device or a pipe */
    bool failed;
    char *path;     /* as the caller said it, for messages */
    char *target;   /* with symbolic links followed */
    char *tmp;      /* what is being written, in target's folder */
    sm_arena arena;
};

static void writer_free(sm_file_writer *w)
{
    sm_arena_free(&w->arena);
    sm_free(w);
}

/* Bytes of path up to and with its last slash. */
static size_t folder_len(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* Creates a file of a new name beside target; its mode is that of the file to be replaced, or as the umask says. */
static bool open_tmp(sm_file_writer *w, const struct stat *old)
{
    for (unsigned i = 0; i < 10000; i++) {
        w->tmp = sm_arena_fmt(&w->arena, "%.*s.sumi-%ld-%u.tmp", (int)folder_len(w->target), w->target, (long)getpid(), i);
        if (!w->tmp) {
            errno = ENOMEM;
            return false;
        }
        w->fd = open(w->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (w->fd >= 0 || errno != EEXIST)
            break;
    }
    if (w->fd >= 0 && old)
        (void)!fchmod(w->fd, old->st_mode & 0777);
    return w->fd >= 0;
}

static bool writer_start(sm_file_writer *w, const char *path, sm_err *e)
{
    struct stat st;
    bool exists = stat(path, &st) == 0;
    if (exists && S_ISDIR(st.st_mode)) {
        errno = EISDIR;
        return sys_fail(e, "write", path), false;
    }
    w->path = sm_arena_str(&w->arena, path);
    char *real = exists ? realpath(path, NULL) : NULL;
    w->target = sm_arena_str(&w->arena, real ? real : path);
    free(real);
    if (!w->path || !w->target)
        return no_memory(e, path), false;
    if (exists && !S_ISREG(st.st_mode)) {
        w->direct = true;
        w->fd = open(path, O_WRONLY | O_CLOEXEC);
        return w->fd >= 0 || (sys_fail(e, "write", path), false);
    }
    if (exists && access(w->target, W_OK)) /* a rename would replace it all the same */
        return sys_fail(e, "write", path), false;
    if (open_tmp(w, exists ? &st : NULL))
        return true;
    if (errno == ENOMEM)
        no_memory(e, path);
    else
        sys_fail(e, "write", path);
    return false;
}

sm_file_writer *sm_file_writer_open(sm_mem *mem, const char *path, sm_err *e)
{
    sm_file_writer *w = sm_alloc0(mem, SM_MEM_MISC, sizeof *w);
    if (!w) {
        no_memory(e, path);
        return NULL;
    }
    w->fd = -1;
    sm_arena_init(&w->arena, mem, SM_MEM_MISC);
    if (writer_start(w, path, e))
        return w;
    writer_free(w);
    return NULL;
}

sumi_status sm_file_writer_append(sm_file_writer *w, const void *data, size_t n, sm_err *e)
{
    const char *p = data;
    while (n && !w->failed) {
        ssize_t k = write(w->fd, p, SM_MIN(n, (size_t)1 << 30));
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0) {
            errno = k ? errno : EIO;
            sys_fail(e, "write", w->path);
            w->failed = true;
        } else {
            p += k;
            n -= (size_t)k;
        }
    }
    return w->failed ? SUMI_E_FILE : SUMI_OK;
}

void sm_file_writer_abort(sm_file_writer *w)
{
    if (!w)
        return;
    close(w->fd);
    if (!w->direct)
        unlink(w->tmp);
    writer_free(w);
}

/* The new name must reach the disk too. File systems that cannot sync a folder say EINVAL; then there is nothing to do. */
static bool sync_folder(sm_file_writer *w)
{
    size_t n = folder_len(w->target);
    const char *dir = n ? sm_arena_fmt(&w->arena, "%.*s", (int)n, w->target) : ".";
    int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd < 0)
        return dir && errno == EACCES; /* a folder may be writable and not readable */
    bool ok = fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP;
    int no = errno;
    close(fd);
    errno = no;
    return ok;
}

sumi_status sm_file_writer_commit(sm_file_writer *w, sm_err *e)
{
    if (w->failed) {
        sm_fail(e, SUMI_E_FILE, "cannot write %s: an earlier write failed", w->path);
        sm_file_writer_abort(w);
        return SUMI_E_FILE;
    }
    bool ok = w->direct || ((fsync(w->fd) == 0 || errno == EINVAL) && rename(w->tmp, w->target) == 0);
    if (!ok) {
        sys_fail(e, "write", w->path);
        sm_file_writer_abort(w);
        return SUMI_E_FILE;
    }
    ok = close(w->fd) == 0 && (w->direct || sync_folder(w));
    if (!ok)
        sys_fail(e, "write", w->path);
    writer_free(w);
    return ok ? SUMI_OK : SUMI_E_FILE;
}

sumi_status sm_file_write(const char *path, const void *data, size_t n, sm_err *e)
{
    sm_file_writer *w = sm_file_writer_open(NULL, path, e);
    if (!w)
        return e && e->code ? e->code : SUMI_E_FILE;
    if (sm_file_writer_append(w, data, n, e) == SUMI_OK)
        return sm_file_writer_commit(w, e);
    sm_file_writer_abort(w);
    return SUMI_E_FILE;
}

/* The process that wrote "NAME.sumi-PID-N.tmp", 0 for any other name. */
static long writer_of(const char *name)
{
    const char *at = NULL;
    for (const char *s = name; (s = strstr(s, ".sumi-")); s++)
        at = s;
    char *end;
    long pid = at && at > name && at[6] >= '1' && at[6] <= '9' ? strtol(at + 6, &end, 10) : 0;
    size_t n = pid > 0 && *end == '-' ? strspn(end + 1, "0123456789") : 0;
    return n && !strcmp(end + 1 + n, ".tmp") ? pid : 0;
}

void sm_file_sweep(const char *folder)
{
    DIR *d = opendir(folder);
    for (struct dirent *x; d && (x = readdir(d));) {
        long pid = writer_of(x->d_name);
        if (pid && (pid_t)pid == pid && kill((pid_t)pid, 0) && errno == ESRCH)
            (void)!unlinkat(dirfd(d), x->d_name, 0);
    }
    if (d)
        closedir(d);
}
