/* Names: what "sumi pull" and "--model" may be given, and which file names a hub may hand out. */
#ifndef SM_HUB_NAME_H
#define SM_HUB_NAME_H

#include "base/base.h"

enum { SM_HUB_PART = 97, SM_HUB_REVISION = 200, SM_HUB_PATH = 512, SM_HUB_ADDRESS = 2048 };

typedef struct sm_hub_name {
    char owner[SM_HUB_PART], name[SM_HUB_PART]; /* "" for an address */
    char revision[SM_HUB_REVISION];             /* "main" unless said otherwise */
    char path[SM_HUB_PATH];                     /* of a file in the repository, "" for all of it */
    char address[SM_HUB_ADDRESS];               /* an http(s) URL outside the hub, normalised; else "" */
} sm_hub_name;

/* OWNER/NAME, OWNER/NAME@REVISION, OWNER/NAME[@REVISION]/PATH (a revision of several parts must be refs/X/Y), or a URL. One of
 * the hub's own pages (ENDPOINT/OWNER/NAME, .../blob/REVISION/PATH, .../resolve/...) is the repository's name in another form. */
sumi_status sm_hub_parse(const char *what, const char *endpoint, sm_hub_name *out, sm_err *e);
/* Whether the text may be OWNER/NAME[...] or a URL at all: anything else can only be a path. */
bool sm_hub_is_name(const char *what);

/* Why a file of a listing may not have this name, NULL when it may: only relative paths without "." and ".." parts, control
 * characters and backslashes. */
const char *sm_hub_path_wrong(const char *path);

/* Scheme, host and port of a URL; port is always there. */
typedef struct sm_origin { char scheme[8], host[256], port[8]; } sm_origin;
bool sm_origin_of(const char *url, sm_origin *o);
bool sm_origin_same(const sm_origin *a, const sm_origin *b);
bool sm_origin_loopback(const sm_origin *o);

/* Where the file of an address lies below the cache: "url/https/host/dir/file", or "file-1a2b3c4d.ext" with a query, whose digest
 * it is: queries may hold secrets. Fails for an address that names no file. */
sumi_status sm_hub_address_path(const char *address, char *out, size_t size, sm_err *e);

#endif
