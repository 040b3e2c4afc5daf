/* The hub's listing of a repository, and which of its files a pull takes. */
#ifndef SM_HUB_LISTING_H
#define SM_HUB_LISTING_H

#include "hub/digest.h"
#include "hub/name.h"

typedef struct sm_hub_file {
    const char *path;
    uint64_t size;
    sm_digest_kind kind;
    char digest[SM_DIGEST_HEX];
    bool taken;
} sm_hub_file;

typedef struct sm_listing {
    sm_arena arena;
    char commit[65];
    sm_hub_file *at;   /* by path */
    size_t n;
} sm_listing;

/* Reads the answer to /api/models/OWNER/NAME/revision/REVISION?blobs=true. Every name is checked (sm_hub_path_wrong), every file
 * must have a size and a digest. label: for messages. sm_listing_free in any case. */
sumi_status sm_listing_parse(const char *json, size_t n, const char *label, sm_mem *mem, sm_listing *out, sm_err *e);
void sm_listing_free(sm_listing *l);
/* NULL: none. */
sm_hub_file *sm_listing_find(const sm_listing *l, const char *path);

/* ---- select.c ------------------------------------------------------------------------------------------------------ */

typedef struct sm_hub_wish {
    const char *path;             /* one file, or "" */
    const char *variant;          /* "fp16", or NULL */
    const char *include, *exclude; /* patterns of fnmatch(3) between commas, or NULL */
} sm_hub_wish;

/* Marks the files to take. Fails when that is none, or when it would take a guess. */
sumi_status sm_listing_select(sm_listing *l, const sm_hub_wish *w, const char *label, sm_err *e);

#endif
