/* safetensors: a JSON header (name, type, shape, byte range of every tensor, string metadata), then the data.
 * Format: github.com/huggingface/safetensors (README). A file is mapped, checked whole against its header, and seen through
 * views; several files with an index (`*.safetensors.index.json`) look like one. */
#ifndef SM_SAFETENSORS_H
#define SM_SAFETENSORS_H

#include "base/base.h"
#include "graph/weights.h"

enum { SM_ST_MAX_DIMS = 8 };

typedef struct sm_st_entry {
    const char *name;
    const char *dtype;    /* as in the file: F32, BF16, U8, ... */
    bool computable;      /* sumi computes with it: type F32, F16, BF16 or I32, 1 .. SM_MAX_DIMS dimensions or none, not empty */
    sm_dtype type;        /* when computable */
    int rank;
    int64_t dims[SM_ST_MAX_DIMS];
    const uint8_t *data;  /* not aligned to anything */
    size_t bytes;
} sm_st_entry;

/* The number of values of a shape. False where a size is 2^53 or more, which JSON does not hold, or the product of those that are
 * not 0 above INT64_MAX: a shape that one format takes can then be written in any other, and in any order. */
bool sm_st_numel(const int64_t *dims, int rank, uint64_t *numel);

typedef struct sm_st_meta {
    const char *key, *value;
} sm_st_meta;

typedef struct sm_st sm_st;

/* path: a file, an index, or a folder that holds an index or one file. NULL on failure. */
sm_st *sm_st_open(const char *path, sm_mem *mem, sm_err *e);
/* A file's bytes in memory; they must outlive the result. label names them in messages. */
sm_st *sm_st_open_mem(const void *data, size_t size, const char *label, sm_mem *mem, sm_err *e);
void sm_st_close(sm_st *f); /* takes NULL */

/* Entries are sorted by name (bytewise). */
size_t sm_st_count(const sm_st *f);
const sm_st_entry *sm_st_at(const sm_st *f, size_t i);
const sm_st_entry *sm_st_find(const sm_st *f, const char *name); /* NULL when absent */

/* `__metadata__` of the file, of several that of the first. */
size_t sm_st_metadata_count(const sm_st *f);
sm_st_meta sm_st_metadata_at(const sm_st *f, size_t i);
const char *sm_st_metadata(const sm_st *f, const char *key); /* NULL when absent */

/* Adds every computable entry as prefix + name to w (prefix may be NULL); the others are left out. w takes f over: f lives as
 * long as w does, or is closed at once on SUMI_E_MEMORY before anything was added. Data that is not aligned for its type
 * is copied. */
sumi_status sm_st_into(sm_st *f, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e);
/* Tells w which memory is f's mapped file (sm_weights_map); sm_st_into does it too. */
sumi_status sm_st_map(const sm_st *f, sm_weights *w, sm_err *e);
/* sm_st_open and sm_st_into. */
sumi_status sm_st_load(const char *path, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e);

/* ---- index and folders (safetensors_index.c) --------------------------------------------------------------------- */

/* Calls fn for every (tensor, file) of an index text; file is a plain name, never a path. Stops when fn fails. */
sumi_status sm_st_index_each(const char *json, size_t n, const char *label, sm_mem *mem,
                             sumi_status (*fn)(void *arg, const char *tensor, const char *file, sm_err *e), void *arg, sm_err *e);

/* ---- writing (safetensors_write.c) ------------------------------------------------------------------------------- */

typedef struct sm_st_item {
    const char *name;
    sm_tensor t;
    bool convert; /* write as type `as` (F32, F16 or BF16, from any of these); else as it is */
    sm_dtype as;
} sm_st_item;

/* Writes a whole file or leaves path as it was. Sorted by element size, largest first, then by name; every tensor is aligned
 * for its type, the data starts at a multiple of 8. A value that overflows the wanted type (65520 as F16) is
 * SUMI_E_NUMERIC: infinities are written only where infinities were. */
sumi_status sm_st_write(const char *path, size_t n, const sm_st_item *items, size_t nmeta, const sm_st_meta *meta, sm_mem *mem,
                        sm_err *e);
/* All of w; float tensors become `as`. */
sumi_status sm_st_write_weights(const char *path, const sm_weights *w, sm_dtype as, size_t nmeta, const sm_st_meta *meta,
                                sm_mem *mem,
                                sm_err *e);

#endif
