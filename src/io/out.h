/* A tensor as it goes into a file, of whatever format: from where its values come, the type they get, and writing them in pieces,
 * so that memory stays flat. Shared by the writers of safetensors and GGUF. */
#ifndef SM_OUT_H
#define SM_OUT_H

#include "base/file.h"
#include "base/pool.h"
#include "io/quant.h"
#include "io/safetensors.h"

/* Values that follow each other: t's type, data and scale count, its shape does not. */
typedef struct sm_out_part {
    sm_tensor t;
    int64_t n;
    bool mapped;          /* of a mapped file: pages are given back once they are written */
} sm_out_part;

typedef struct sm_out_tensor {
    const char *name;
    int rank;             /* as stored, outermost first */
    int64_t dims[SM_ST_MAX_DIMS];
    sm_dtype as;          /* type in the file. A part of the same type without scale is copied bit by bit */
    int parts;            /* 1..3, together as many values as dims say; 0: raw */
    sm_out_part part[3];
    bool transpose;       /* the only part lies as [dims[1], dims[0]] */
    const char *raw;      /* no type of sumi's: the format's own name of it ("I64"), copied */
    const void *raw_data;
    size_t raw_bytes;
} sm_out_tensor;

typedef struct sm_out {
    size_t n;
    const sm_out_tensor *t;
    sm_pool *pool;        /* converts with several threads; may be NULL */
    /* Told after each piece how many bytes went into the file; a failure (cancelled) ends the writing. May be NULL. */
    sumi_status (*wrote)(void *arg, size_t bytes, sm_err *e);
    void *arg;
} sm_out;

/* A tensor of one part as it is, written as `as`. */
sm_out_tensor sm_out_of(const char *name, const sm_tensor *t, sm_dtype as);
/* Bytes of the data in the file. */
size_t sm_out_bytes(const sm_out_tensor *t);
/* Shape, types and blocks fit; SUMI_E_ARG where not. path is for messages. Afterwards sm_out_bytes is right. */
sumi_status sm_out_check(const sm_out_tensor *t, const char *path, sm_err *e);
/* Appends the data. A value that does not fit the type (see sm_store_save) is SUMI_E_NUMERIC. */
sumi_status sm_out_data(sm_file_writer *w, const sm_out *o, const sm_out_tensor *t, const char *path, sm_mem *mem, sm_err *e);

/* Writes a whole safetensors file or leaves path as it was; order and alignment as sm_st_write. Types that the format lacks are
 * SUMI_E_ARG. (safetensors_write.c) */
sumi_status sm_st_write_out(const char *path, const sm_out *o, size_t nmeta, const sm_st_meta *meta, sm_mem *mem, sm_err *e);

#endif
