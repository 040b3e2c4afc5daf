/* Places in the cache (the layout is in hub.h), its locks, and giving contents their names. */
#ifndef SM_HUB_CACHE_H
#define SM_HUB_CACHE_H

#include "hub/hub.h"

enum { SM_HUB_FOLDER = 2048, SM_HUB_LONG = 4096 };

/* ROOT/models--OWNER--NAME; root is CACHE/hub, or huggingface_hub's. False: too long. */
bool sm_cache_repo(const char *root, const sm_hub_name *n, char out[SM_HUB_FOLDER]);
/* The commit that revision stands for in a repository's folder: a ref, a commit or the first seven or more digits of one.
 * With revision "main" and no such ref: the only snapshot. False: none, or several. */
bool sm_cache_commit(const char *repo, const char *revision, char commit[65]);
/* huggingface_hub's root, by HF_HUB_CACHE, HF_HOME or the home folder; false: not known. */
bool sm_cache_foreign(char out[SM_HUB_FOLDER]);

/* Makes every folder of the path up to its last slash. */
sumi_status sm_cache_folders(const char *path, sm_err *e);

/* An exclusive lock by flock(2) on a file that is made if need be. wait: called with `arg` while somebody else has it, several
 * times a second; false gives up (the caller says why). NULL: do not wait; then *busy says that it was taken. -1 on failure. */
int sm_cache_lock(const char *path, bool (*wait)(void *arg), void *arg, bool *busy, sm_err *e);
void sm_cache_unlock(int fd);

/* Makes path another name of blob: a hard link or, where the file system has none, a move. What is there is replaced. */
sumi_status sm_cache_link(const char *blob, const char *path, sm_err *e);
/* Removes blobs that no snapshot names any more; *freed grows. */
void sm_cache_sweep(const char *repo, uint64_t *freed);
/* Removes a tree without following links; *freed grows by the bytes that no other name holds. */
bool sm_cache_remove(const char *path, uint64_t *freed);

/* Calls fn for every name in a folder but "." and ".."; false from fn ends it. A folder that is not there has none. */
void sm_cache_each(const char *folder, bool (*fn)(void *arg, const char *name), void *arg);

#endif
