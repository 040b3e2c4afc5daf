/* Fetching one file (see session.h): a range of what is missing, the digest carried along, and the name given only to content
 * that was verified and has reached the disk. What a .part holds is trusted as far as the ETag beside it says the server still
 * has that file, and in the end by the digest alone. RFC 9110, 13.1.5 (If-Range) and 14 (ranges). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/file.h"
#include "hub/session.h"

enum { PROGRESS_BYTES = 64 << 10 }; /* so much more counts as progress: the tries start anew */

typedef struct job {
    sm_session *x;
    sm_fetch *f;
    sm_err *e;
    char part[4200], etag_path[4210], etag[200];
    int fd;
    uint64_t have;       /* bytes of the .part */
    uint64_t at_try;     /* have when the tries were last reset */
    int64_t total;       /* as the server says, -1: it does not */
    sm_digest *digest;
    bool resumed;        /* bytes of more than one transfer */
    bool restart;        /* the server cannot go on from here: again, from the beginning */
} job;

static sumi_status sys_fail(const job *j, const char *verb)
{
    int no = errno;
    const char *what = no == ENOSPC || no == EDQUOT ? "; free some space, or set SUMI_CACHE; what was fetched is kept"
                     : no == EACCES || no == EROFS || no == EPERM ? "; set SUMI_CACHE to a folder that can be written to" : "";
    return sm_fail(j->e, SUMI_E_FILE, "cannot %s %s: %s%s", verb, j->part, strerror(no), what);
}

/* ---- the .part ----------------------------------------------------------------------------------------------------- */

/* Forgets what was fetched of the file. */
static sumi_status start_over(job *j)
{
    j->x->done -= SM_MIN(j->x->done, j->have);
    j->have = j->at_try = 0;
    j->resumed = false;
    j->etag[0] = 0;
    sm_digest_free(j->digest);
    j->digest = sm_digest_new(j->f->kind, j->f->size, j->e);
    if (j->digest && (ftruncate(j->fd, 0) || lseek(j->fd, 0, SEEK_SET) < 0 || (unlink(j->etag_path) && errno != ENOENT)))
        sys_fail(j, "write");
    return j->e->code;
}

/* The digest of the first n bytes of fd, into d. */
static sumi_status hash_file(sm_session *x, int fd, uint64_t n, sm_digest *d, const char *path, sm_err *e)
{
    enum { PIECE = 1 << 18 };
    char *buf = sm_alloc(x->mem, SM_MEM_MISC, PIECE);
    if (!buf)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory checking %s", path);
    for (uint64_t at = 0; at < n && !e->code;) {
        ssize_t k = pread(fd, buf, (size_t)SM_MIN(n - at, PIECE), (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            sm_fail(e, SUMI_E_FILE, "cannot read %s: %s", path, k ? strerror(errno) : "it became shorter");
        else if (!sm_digest_add(d, buf, (size_t)k))
            sm_fail(e, SUMI_E_INTERNAL, "the checksum of %s failed", path);
        else if (sm_session_cancelled(x))
            sm_session_stopped(e);
        at += k > 0 ? (uint64_t)k : 0;
    }
    sm_free(buf);
    return e->code;
}

/* Opens the .part and takes up what it holds, when there is something to compare it with in the end or to go on by. */
static sumi_status open_part(job *j)
{
    struct stat st;
    sm_buf tag = {.mem = j->x->mem};
    sm_err none = {0};
    j->fd = open(j->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (j->fd < 0 || fstat(j->fd, &st))
        return sys_fail(j, "write");
    if (!S_ISREG(st.st_mode))
        return sm_fail(j->e, SUMI_E_FILE, "%s is in the way: not a regular file", j->part);
    uint64_t n = (uint64_t)st.st_size;
    if (!sm_file_read(j->etag_path, sizeof j->etag - 1, &tag, &none) && tag.data)
        memcpy(j->etag, tag.data, strlen(tag.data) + 1);
    sm_buf_free(&tag);
    for (const char *c = j->etag; *c; c++)
        if (*c <= 0x20 || *c >= 0x7f) { /* nothing that was written here: it goes into a header */
            j->etag[0] = 0;
            break;
        }
    if (!n || (!j->etag[0] && !j->f->want[0]) || (j->f->sized && n > j->f->size))
        return start_over(j);
    j->digest = sm_digest_new(j->f->kind, j->f->size, j->e);
    if (!j->digest || hash_file(j->x, j->fd, n, j->digest, j->part, j->e))
        return j->e->code;
    if (lseek(j->fd, (off_t)n, SEEK_SET) < 0)
        return sys_fail(j, "write");
    j->have = j->at_try = n;
    j->x->done += n;
    j->resumed = true;
    return SUMI_OK;
}

/* ---- the transfer's callbacks -------------------------------------------------------------------------------------- */

sumi_status sm_fetch_room(const char *path, uint64_t more, const char *label, sm_err *e)
{
    struct statvfs v;
    if (statvfs(path, &v) || !v.f_blocks || more <= (uint64_t)v.f_bavail * v.f_frsize) /* or not known */
        return SUMI_OK;
    return sm_fail(e, SUMI_E_FILE, "%s takes %.2f GB more, and %.2f GB are free at %.200s: free some space, or set SUMI_CACHE",
                   label,
                   (double)more / 1e9, (double)v.f_bavail * (double)v.f_frsize / 1e9, path);
}

/* The answer's first look: does it continue what is there, and can the file be what was asked for? */
static bool on_head(void *arg, const sm_http_reply *r)
{
    job *j = arg;
    if (r->encoded)
        return sm_fail(j->e, SUMI_E_NETWORK, "%s: %s sends it compressed though it was not to", j->f->label, r->host), false;
    if (r->status != 206 && j->have && start_over(j)) /* no ranges there, or the file has changed */
        return false;
    bool changed = r->status == 206 && j->etag[0] && r->etag[0] && strcmp(j->etag, r->etag) &&
                   !j->f->want[0]; /* If-Range was ignored */
    if (changed || (r->status == 206 && r->range_from != (int64_t)j->have)) {
        j->restart = true;
        return false;
    }
    j->total = r->status == 206 ? r->range_total : r->length;
    if (!j->f->want[0] && j->f->kind == SM_DIGEST_SHA256 && sm_is_hex(r->linked_etag, 64))
        strcpy(j->f->want, r->linked_etag); /* an address that is a hub's */
    if (j->f->sized && j->total >= 0 && (uint64_t)j->total != j->f->size)
        return sm_fail(j->e, SUMI_E_NETWORK, "%s: %s announces %lld bytes, the hub's listing %llu: not the file that was asked "
                       "for", j->f->label, r->host, (long long)j->total, (unsigned long long)j->f->size), false;
    if (strcmp(j->etag, r->etag)) {
        snprintf(j->etag, sizeof j->etag, "%s", r->etag);
        if (!j->etag[0] ? unlink(j->etag_path) && errno != ENOENT : sm_file_write(j->etag_path, j->etag, strlen(j->etag), j->e))
            return sys_fail(j, "write"), false;
    }
    if (!j->x->total && j->total > 0)
        j->x->total = (uint64_t)j->total;
    uint64_t size = j->f->sized ? j->f->size : j->total > 0 ? (uint64_t)j->total : 0;
    return !sm_fetch_room(j->part, size - SM_MIN(size, j->have), j->f->label, j->e);
}

static bool on_body(void *arg, const void *data, size_t n)
{
    job *j = arg;
    uint64_t limit = j->f->sized ? j->f->size : j->total >= 0 ? (uint64_t)j->total : j->x->s->unsized_limit;
    bool known = j->f->sized || j->total >= 0;
    if (n > limit - SM_MIN(limit, j->have))
        return sm_fail(j->e, SUMI_E_NETWORK, known ? "%s: the server sends more than the file's %llu bytes"
                       : "%s: the server does not say how large the file is and has sent more than %llu bytes: refused",
                       j->f->label, (unsigned long long)limit), false;
    for (size_t at = 0; at < n;) {
        ssize_t k = write(j->fd, (const char *)data + at, n - at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return sys_fail(j, "write"), false;
        sm_digest_add(j->digest, (const char *)data + at, (size_t)k);
        j->have += (size_t)k;
        at += (size_t)k;
    }
    sm_session_moved(j->x, n);
    return true;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------- */

static bool whole(const job *j) { return j->f->sized ? j->have == j->f->size : j->total >= 0 && j->have == (uint64_t)j->total; }

/* A range past the end: all is there, or what is there does not belong to the server's file. */
static bool past_end(job *j, const sm_http_reply *r)
{
    if (r->range_total == (int64_t)j->have && !j->f->sized) {
        j->total = r->range_total;
        return true;
    }
    start_over(j);
    return false;
}

/* Until all bytes are in the .part. */
static sumi_status transfer_all(job *j)
{
    sm_tries tries = {0};
    sm_http_reply r;
    char why[256];
    while (!(j->f->sized && j->have == j->f->size) && !j->e->code) {
        if (j->have && !j->etag[0] && !j->f->want[0] && start_over(j)) /* nothing would tell a changed file */
            break;
        sm_http_request q = {.url = j->f->url, .from = j->have, .if_range = j->etag, .head = on_head, .body = on_body, .arg = j};
        j->total = -1;
        j->restart = false;
        why[0] = 0;
        sm_http_end end = sm_http_get(j->x->http, &q, &r, why, j->e);
        bool good = end == SM_HTTP_DONE && r.status >= 200 && r.status < 300;
        if (good && (whole(j) || (!j->f->sized && j->total < 0)))
            return SUMI_OK;
        if (good)
            snprintf(why, sizeof why, "the server ended early");
        if (end == SM_HTTP_DONE && r.status == 416 && j->have && past_end(j, &r))
            return SUMI_OK;
        if (j->restart && start_over(j))
            return j->e->code;
        if (good || j->restart || (end == SM_HTTP_DONE && r.status == 416)) {
            end = SM_HTTP_DROPPED;
            snprintf(why, sizeof why, "%s", good ? "the server ended early" : "the server cannot go on there");
        }
        if (j->have >= j->at_try + PROGRESS_BYTES) {
            j->at_try = j->have;
            tries = (sm_tries){0};
        }
        j->resumed |= j->have > 0;
        if (!sm_session_again(j->x, &tries, end, &r, why, j->f->label, j->f->whose, j->e))
            return j->e->code;
    }
    return j->e->code;
}

static sumi_status give_name(job *j)
{
    char folder[4200];
    snprintf(folder, sizeof folder, "%s", j->f->target);
    *strrchr(folder, '/') = 0;
    if ((fsync(j->fd) && errno != EINVAL) || rename(j->part, j->f->target))
        return sys_fail(j, "write");
    unlink(j->etag_path);
    int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir >= 0) {
        (void)!fsync(dir); /* the name's way to the disk; the content is there */
        close(dir);
    }
    return SUMI_OK;
}

/* Transfers and compares; once more from the beginning when bytes of an earlier transfer may be to blame. */
static sumi_status fetch_verified(job *j)
{
    char hex[SM_DIGEST_HEX];
    for (int round = 0;; round++) {
        if (transfer_all(j))
            return j->e->code;
        if (!j->have && !j->f->sized && !j->f->want[0]) { /* nobody says what it should be, and no model is empty */
            unlink(j->part);
            unlink(j->etag_path);
            return sm_fail(j->e, SUMI_E_NETWORK, "%s: the server sends an empty file; is the address right?", j->f->label);
        }
        if (!sm_digest_end(j->digest, hex))
            return sm_fail(j->e, SUMI_E_INTERNAL, "the checksum of %s failed", j->f->label);
        if (!j->f->want[0] || !strcasecmp(hex, j->f->want))
            break;
        bool again = j->resumed && !round;
        uint64_t n = j->have;
        if (start_over(j))
            return j->e->code;
        if (!again) {
            unlink(j->part);
            return sm_fail(j->e, SUMI_E_NETWORK, "%s: wrong content: its %s is %s, wanted is %s (%llu bytes); thrown away",
                           j->f->label,
                           j->f->kind == SM_DIGEST_GIT ? "git digest" : "sha256", hex, j->f->want, (unsigned long long)n);
        }
        sm_session_show(j->x, "pull", "the pieces of several tries do not fit together: once more from the beginning");
    }
    memcpy(j->f->want, hex, sizeof hex);
    j->f->size = j->have;
    return give_name(j);
}

sumi_status sm_fetch_file(sm_session *x, sm_fetch *f, sm_err *e)
{
    job j = {.x = x, .f = f, .e = e, .fd = -1, .total = -1};
    if (strlen(f->target) > 4000)
        return sm_fail(e, SUMI_E_ARG, "the cache folder's name is too long");
    snprintf(j.part, sizeof j.part, "%s.part", f->target);
    snprintf(j.etag_path, sizeof j.etag_path, "%s.etag", j.part);
    if (!open_part(&j))
        fetch_verified(&j);
    sm_digest_free(j.digest);
    if (j.fd >= 0)
        close(j.fd);
    return e->code;
}

/* ---- texts --------------------------------------------------------------------------------------------------------- */

typedef struct text_job { sm_buf *out; size_t limit; const char *label; sm_err *e; } text_job;

static bool text_body(void *arg, const void *data, size_t n)
{
    text_job *t = arg;
    if (n > t->limit - SM_MIN(t->limit, t->out->len))
        return sm_fail(t->e, SUMI_E_NETWORK, "%s: the server's answer is larger than %zu bytes", t->label, t->limit), false;
    sm_buf_add(t->out, data, n);
    return !t->out->oom || (sm_fail(t->e, SUMI_E_MEMORY, "out of memory for the listing of %s", t->label), false);
}

sumi_status sm_fetch_text(sm_session *x, const char *url, const char *label, const char *whose, size_t limit, sm_buf *out,
                          sm_err *e)
{
    sm_tries tries = {0};
    sm_http_reply r;
    text_job t = {out, limit, label, e};
    for (;;) {
        char why[256] = "";
        sm_buf_free(out);
        sm_http_request q = {.url = url, .body = text_body, .arg = &t};
        sm_http_end end = sm_http_get(x->http, &q, &r, why, e);
        if (end == SM_HTTP_DONE && r.status >= 200 && r.status < 300)
            return SUMI_OK;
        if (!sm_session_again(x, &tries, end, &r, why, label, whose, e))
            return e->code;
    }
}

sumi_status sm_fetch_check(sm_session *x, const sm_fetch *f, bool *same, sm_err *e)
{
    char hex[SM_DIGEST_HEX] = "";
    struct stat st;
    int fd = open(f->target, O_RDONLY | O_CLOEXEC);
    *same = false;
    if (fd < 0)
        return SUMI_OK;
    if (!fstat(fd, &st) && (!f->sized || (uint64_t)st.st_size == f->size)) {
        sm_digest *d = sm_digest_new(f->kind, (uint64_t)st.st_size, e);
        if (d && !hash_file(x, fd, (uint64_t)st.st_size, d, f->target, e) && sm_digest_end(d, hex))
            *same = !f->want[0] || !strcasecmp(hex, f->want);
        sm_digest_free(d);
    }
    close(fd);
    return e->code;
}
