/* GGUF: a header of typed key-value metadata and tensor descriptions, then aligned data. Versions 2 and 3, little-endian.
 * Format: github.com/ggml-org/ggml, docs/gguf.md. A file is mapped, checked whole against its header, and seen through views.
 * GGUF writes the sizes of a tensor innermost first; everything here is outermost first, as in PyTorch. */
#ifndef SM_GGUF_H
#define SM_GGUF_H

#include "base/base.h"
#include "graph/weights.h"
#include "io/out.h"

enum { SM_GGUF_MAX_DIMS = SM_ST_MAX_DIMS };

typedef enum sm_gguf_type {
    SM_GGUF_U8, SM_GGUF_I8, SM_GGUF_U16, SM_GGUF_I16, SM_GGUF_U32, SM_GGUF_I32, SM_GGUF_F32, SM_GGUF_BOOL, SM_GGUF_STRING,
    SM_GGUF_ARRAY, SM_GGUF_U64, SM_GGUF_I64, SM_GGUF_F64, SM_GGUF_TYPES
} sm_gguf_type;

/* A metadata value. type says which member counts: u for BOOL and the unsigned, i for the signed, f for both floats. */
typedef struct sm_gguf_value {
    sm_gguf_type type;
    sm_gguf_type of;      /* ARRAY: type of its elements */
    uint64_t n;           /* STRING: bytes; ARRAY: elements */
    union {
        uint64_t u;
        int64_t i;
        double f;
        const char *s;                     /* STRING: UTF-8 without NUL bytes. NUL-terminated, but not within an array */
        const void *raw;                   /* ARRAY of numbers: as in the file, not aligned to anything */
        const struct sm_gguf_value *items; /* ARRAY of strings or of arrays */
    };
} sm_gguf_value;

typedef struct sm_gguf_meta {
    const char *key;
    sm_gguf_value value;
} sm_gguf_meta;

typedef struct sm_gguf sm_gguf;

/* Whether a file that begins with these n bytes is one. */
bool sm_gguf_is(const void *head, size_t n);

/* NULL on failure. Refused are: other versions, big-endian files, texts that are not UTF-8 or of more than 64 MiB, names and
 * keys that appear twice, hold control characters or are longer than 1024 bytes, arrays nested deeper than 4, tensors outside of
 * the file, not at a multiple of the alignment, overlapping, or with a gap between them (ggml refuses these too). Bytes after the
 * last tensor are ignored. */
sm_gguf *sm_gguf_open(const char *path, sm_mem *mem, sm_err *e);
/* A file's bytes in memory; they must outlive the result. label names them in messages. */
sm_gguf *sm_gguf_open_mem(const void *data, size_t size, const char *label, sm_mem *mem, sm_err *e);
void sm_gguf_close(sm_gguf *f); /* takes NULL */

int sm_gguf_version(const sm_gguf *f);

/* Entries are sorted by name (bytewise). dtype is the name GGUF gives the type. computable: the values can be read, there are
 * 0 .. SM_MAX_DIMS dimensions and no empty one; type is then the data's, block types included. A tensor that ComfyUI's converters
 * flattened (metadata `comfy.gguf.orig_shape.NAME`) has its own shape again: its last dimension need not be whole blocks. */
size_t sm_gguf_count(const sm_gguf *f);
const sm_st_entry *sm_gguf_at(const sm_gguf *f, size_t i);
const sm_st_entry *sm_gguf_find(const sm_gguf *f, const char *name); /* NULL when absent */

/* Sorted by key. */
size_t sm_gguf_metadata_count(const sm_gguf *f);
const sm_gguf_meta *sm_gguf_metadata_at(const sm_gguf *f, size_t i);
const sm_gguf_value *sm_gguf_metadata(const sm_gguf *f, const char *key); /* NULL when absent */
const char *sm_gguf_text(const sm_gguf *f, const char *key);              /* NULL when absent or no string */

/* Adds every computable entry as prefix + name to w (prefix may be NULL), in the type it has; the others are left out. Views of
 * the file (copies where it is not aligned for the type). w takes f over: f lives as long as w does, or is closed at once on
 * SUMI_E_MEMORY before anything was added. */
sumi_status sm_gguf_into(sm_gguf *f, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e);
/* Tells w which memory is f's mapped file (sm_weights_map); sm_gguf_into does it too. */
sumi_status sm_gguf_map(const sm_gguf *f, sm_weights *w, sm_err *e);
/* sm_gguf_open and sm_gguf_into. */
sumi_status sm_gguf_load(const char *path, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e);

/* ---- writing (gguf_write.c) -------------------------------------------------------------------------------------- */

typedef struct sm_gguf_item {
    const char *name;
    sm_dtype store;       /* of data */
    int rank;             /* 0 .. SM_GGUF_MAX_DIMS; the last of dims is a multiple of the block */
    int64_t dims[SM_GGUF_MAX_DIMS];
    const void *data;
    sm_dtype as;          /* written type; other than store: neither is I32 */
} sm_gguf_item;

/* Writes a whole file of version 3 or leaves path as it was: tensors in the order given, at multiples of 32, or of the U32 that
 * meta gives as general.alignment. Converts in pieces, memory stays flat; the same type is copied as it is. A value that does
 * not fit the written type is SUMI_E_NUMERIC. FP8 is no type of GGUF. */
sumi_status sm_gguf_write(const char *path, size_t n, const sm_gguf_item *items, size_t nmeta, const sm_gguf_meta *meta,
                          sm_mem *mem, sm_err *e);
/* The same from parts, with threads (out.h). */
sumi_status sm_gguf_write_out(const char *path, const sm_out *o, size_t nmeta, const sm_gguf_meta *meta, sm_mem *mem, sm_err *e);
/* Whether GGUF has a type of this name ("I64", "Q4_K", "IQ4_NL"). */
bool sm_gguf_has_type(const char *name);

#endif
