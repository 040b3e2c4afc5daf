/* What the checkpoint files share: the struct behind sm_ckpt, and where its storages come from. */
#ifndef SM_CKPT_IMPL_H
#define SM_CKPT_IMPL_H

#include "base/file.h"
#include "io/ckpt.h"
#include "io/pickle.h"

enum {
    SM_CKPT_MAX_TENSORS = 200000,
    SM_CKPT_MAX_VISITS = 4000000, /* values met on the way to the tensors: a value may be shared, and a container hold itself */
    SM_CKPT_MAX_DEPTH = 64
};

struct sm_ckpt {
    sm_mem *mem;
    sm_arena arena, copies; /* names; data that is not the file's */
    sm_map *map;            /* NULL for memory */
    uint64_t copied, limit; /* bytes in copies, at most */
    sm_st_entry *entries;   /* sorted by name */
    size_t count, cap;
};

/* A checkpoint while it is opened. */
typedef struct ckpt_reader {
    sm_ckpt *f;
    const uint8_t *data;
    size_t size;
    const char *label;
    sm_pickle pickle;
    const sm_pk_value *root;
    bool big_endian;
    sm_err *e;
} ckpt_reader;

/* Memory that lives as long as the checkpoint, within the limit of copies; NULL after an error. what names it in the message. */
void *sm_ckpt_copy(ckpt_reader *r, uint64_t bytes, const char *what);

/* Both read the pickle into r->root and set data of every storage, with at least the bytes that the pickle says. */
bool sm_ckpt_read_zip(ckpt_reader *r);    /* ckpt_zip.c */
bool sm_ckpt_read_stream(ckpt_reader *r); /* ckpt_stream.c; r->data begins with the magic number's pickle */

/* Bytes of the pickle of the magic number that begins a stream; 0 when there is none. */
size_t sm_ckpt_magic(const uint8_t *p, size_t n);

/* Sorts the mentions of storages by key; those of one key follow each other. */
void sm_ckpt_sort_storages(sm_pickle *p);

#endif
