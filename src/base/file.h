/* Files: read-only mappings, bounded whole-file reads, and writes that are either complete or absent.
 * Every failure is one line that names the path and the system's reason. */
#ifndef SM_FILE_H
#define SM_FILE_H

#include "base/base.h"

/* A regular file mapped for reading. data is NULL when the file is empty. The bytes are the file's as long as nobody
 * shortens it: replacing it by rename (as the writer below does) is safe, truncating it in place is not. */
typedef struct sm_map {
    const uint8_t *data;
    size_t size;
} sm_map;

sm_map *sm_map_open(sm_mem *mem, const char *path, sm_err *e); /* NULL on failure */
void sm_map_close(void *map);                                  /* an sm_map or NULL; the signature of sm_weights_keep */

/* Appends the whole file (or pipe; one that nobody writes to is empty) to out. A file of more than limit bytes is SUMI_E_FORMAT.
 * On failure out is freed. */
sumi_status sm_file_read(const char *path, size_t limit, sm_buf *out, sm_err *e);

/* Replaces path by these n bytes, or leaves it untouched and fails. */
sumi_status sm_file_write(const char *path, const void *data, size_t n, sm_err *e);

/* The same in pieces: a temporary file in the same folder, then fsync, rename, fsync of the folder. A path that exists and
 * is no regular file (a device, a pipe) is written directly; a symbolic link keeps pointing where it did. */
typedef struct sm_file_writer sm_file_writer;

sm_file_writer *sm_file_writer_open(sm_mem *mem, const char *path, sm_err *e); /* NULL on failure */
sumi_status sm_file_writer_append(sm_file_writer *w, const void *data, size_t n, sm_err *e);
/* Both end the writer, whatever they return. Commit fails when an earlier append did. w may be NULL for abort. */
sumi_status sm_file_writer_commit(sm_file_writer *w, sm_err *e);
void sm_file_writer_abort(sm_file_writer *w);

/* Removes the temporary files that writers in this folder have left behind when their process was killed. Only for a folder that
 * nobody else writes to; those of processes that are alive stay. */
void sm_file_sweep(const char *folder);

#endif
