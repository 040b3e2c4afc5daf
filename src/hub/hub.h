/* Models from a hub: pulling them into a cache, and what lies there. The public calls around this are in pipeline/hub.c.
 *
 * The cache's layout is that of huggingface_hub, so that each program finds what the other fetched:
 *     CACHE/hub/models--OWNER--NAME/refs/REVISION          the commit a branch stood at when it was pulled, as text
 *     CACHE/hub/models--OWNER--NAME/blobs/DIGEST[.part]    contents, verified; .part: being fetched, with .part.etag beside it
 *     CACHE/hub/models--OWNER--NAME/snapshots/COMMIT/PATH  the files under their names: hard links to blobs
 *     CACHE/hub/models--OWNER--NAME/.unfinished-COMMIT     there while a pull of the whole model is not done
 *     CACHE/url/SCHEME/HOST/PATH                           files fetched by address */
#ifndef SM_HUB_H
#define SM_HUB_H

#include "hub/name.h"

/* What holds for one call, from options and environment. */
typedef struct sm_hub_settings {
    char cache[1024];
    char endpoint[512];       /* without a slash at the end */
    char token[512];          /* "": none */
    bool insecure_http;
    int tries;                /* of one request without progress in between */
    double backoff;           /* seconds before the second try, doubled for each further one up to a minute */
    double stall;             /* seconds without a byte that end a connection */
    double patience;          /* the longest Retry-After that is waited for */
    uint64_t unsized_limit;   /* bytes of a file whose size nobody says */
} sm_hub_settings;

/* o may be NULL. Environment: SUMI_CACHE, XDG_CACHE_HOME, HOME; HF_ENDPOINT; HF_TOKEN. */
sumi_status sm_hub_settings_read(const sumi_pull_options *o, sm_hub_settings *s, sm_err *e);

/* What a pull did. */
typedef struct sm_hub_pulled {
    char path[4096];          /* what --model takes */
    char commit[65];          /* "" for an address */
    uint64_t bytes, fetched;  /* of all files; of those that came over the network now */
    int files;
    char sha256[65];          /* of the file, for an address */
} sm_hub_pulled;

/* o may be NULL. cb: progress in bytes, cancel. */
sumi_status sm_hub_pull(const char *what, const sm_hub_settings *s, const sumi_pull_options *o, const sumi_callbacks *cb,
                        sm_mem *mem,
                        sm_hub_pulled *out, sm_err *e);

/* ---- find.c: what is there ---------------------------------------------------------------------------------------- */

/* The file or folder that a name stands for in the cache (also that of huggingface_hub: HF_HUB_CACHE, HF_HOME/hub), with the
 * environment's settings. SUMI_E_FILE when it is not there; the message says how to get it. */
sumi_status sm_hub_find(const char *name, sm_mem *mem, char *path, size_t size, sm_err *e);
sumi_status sm_hub_find_in(const sm_hub_settings *s, const char *name, sm_mem *mem, char *path, size_t size, sm_err *e);

typedef struct sm_hub_entry {
    const char *name;         /* OWNER/NAME, with @REVISION where it is not main; or an address */
    const char *path;
    uint64_t bytes;
    int files;
    bool finished, foreign;   /* foreign: in huggingface_hub's cache */
} sm_hub_entry;

typedef struct sm_hub_entries {
    sm_arena arena;
    sm_hub_entry *at;
    size_t n, room;
} sm_hub_entries;

/* Every model in the cache, by name. Zero-initialised before; sm_hub_entries_free in any case. */
sumi_status sm_hub_list(const sm_hub_settings *s, sm_mem *mem, sm_hub_entries *out, sm_err *e);
void sm_hub_entries_free(sm_hub_entries *x);

/* Removes a model (every revision, or the one named) or a file fetched by address. *freed: bytes. */
sumi_status sm_hub_remove(const sm_hub_settings *s, const char *name, sm_mem *mem, uint64_t *freed, sm_err *e);

#endif
