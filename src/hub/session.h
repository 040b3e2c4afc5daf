/* What the files of this room share while one pull runs: the connection, progress in bytes, waiting, tries. */
#ifndef SM_HUB_SESSION_H
#define SM_HUB_SESSION_H

#include "hub/digest.h"
#include "hub/http.h"
#include "hub/hub.h"

typedef struct sm_session {
    const sm_hub_settings *s;
    const sumi_callbacks *cb;  /* may be NULL */
    sm_http *http;
    sm_mem *mem;
    double begun;              /* sm_now() */
    uint64_t done, total;      /* bytes of what is to be fetched; total 0: not known */
    uint64_t moved;            /* over the network */
    double rate, rate_at;      /* bytes per second, smoothed; when it was last looked at */
    uint64_t rate_moved;
} sm_session;

/* Tells the caller; message may be NULL. */
void sm_session_show(sm_session *x, const char *stage, const char *message);
void sm_session_moved(sm_session *x, size_t bytes);
bool sm_session_cancelled(const sm_session *x);
/* Sleeps; false when cancelled meanwhile. */
bool sm_session_sleep(sm_session *x, double seconds);
sumi_status sm_session_stopped(sm_err *e); /* SUMI_E_CANCELLED */

/* Tries of one request. */
typedef struct sm_tries {
    int used;                  /* without progress in between */
    double waited;             /* for 429 and 503, in all */
} sm_tries;

/* After a transfer that brought no success: waits and returns true when another try makes sense, else fails for good. what: name
 * for messages; whose: the hub's model as OWNER/NAME, or NULL for an address. Never true after SM_HTTP_STOPPED or _FAILED. */
bool sm_session_again(sm_session *x, sm_tries *t, sm_http_end end, const sm_http_reply *r, const char *why, const char *what,
                      const char *whose,
                      sm_err *e);

/* ---- fetch.c: one file ---------------------------------------------------------------------------------------------- */

typedef struct sm_fetch {
    const char *url, *label;   /* label: for messages */
    const char *whose;         /* OWNER/NAME, or NULL */
    const char *target;        /* path; TARGET.part and TARGET.part.etag are beside it */
    bool sized;
    uint64_t size;             /* when sized: known beforehand; after success the file's */
    sm_digest_kind kind;
    char want[SM_DIGEST_HEX];  /* "": not known beforehand; after success the file's */
} sm_fetch;

/* Fetches into target.part, going on where an earlier try ended, verifies, renames. The caller holds the lock of the place. */
sumi_status sm_fetch_file(sm_session *x, sm_fetch *f, sm_err *e);
/* Fetches a text of at most limit bytes. */
sumi_status sm_fetch_text(sm_session *x, const char *url, const char *label, const char *whose, size_t limit, sm_buf *out,
                          sm_err *e);
/* Whether the file system of the folder at path has room for so many bytes more; a failure names label. */
sumi_status sm_fetch_room(const char *path, uint64_t more, const char *label, sm_err *e);
/* Compares a file with f's size and digest. */
sumi_status sm_fetch_check(sm_session *x, const sm_fetch *f, bool *same, sm_err *e);

#endif
