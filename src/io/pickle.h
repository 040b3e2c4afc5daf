/* Pickles that torch.save writes, read without running anything: tensors, plain containers, numbers and strings become
 * values; a global outside of the table in pickle_globals.c, or an opcode that torch.save never writes, is an error that names
 * it and its byte. Opcodes: Python's Lib/pickletools.py, protocols 1 to 5 (protocol 0 cannot hold a tensor). */
#ifndef SM_PICKLE_H
#define SM_PICKLE_H

#include "base/base.h"

enum {
    SM_PK_MAX_BYTES = 64 << 20,  /* of one pickle */
    SM_PK_MAX_VALUES = 2000000,  /* made, on the stack, in the memo: each */
    SM_PK_MAX_ITEMS = 8000000,   /* of all containers together */
    SM_PK_MAX_DIMS = 8
};

/* A type of elements, under its names in torch and in safetensors. */
typedef struct sm_pk_dtype {
    const char *storage, *torch, *name; /* torch.<storage>, torch.<torch>; either may be NULL */
    int size, unit;                     /* bytes of an element, of what byte order turns around */
    int compute;                        /* the sm_dtype that sumi computes with, or -1 */
} sm_pk_dtype;

/* What a global does when it is called; SM_PK_G_LABEL and the types cannot be. */
typedef enum sm_pk_call {
    SM_PK_G_LABEL, SM_PK_G_STORAGE, SM_PK_G_DTYPE, SM_PK_G_TENSOR, SM_PK_G_TENSOR_V2, SM_PK_G_TENSOR_V3, SM_PK_G_PARAMETER,
    SM_PK_G_PARAMETER_STATE,
    SM_PK_G_DICT, SM_PK_G_SEQUENCE, SM_PK_G_OPAQUE
} sm_pk_call;

typedef struct sm_pk_global {
    const char *module, *name;
    sm_pk_call call;
    const sm_pk_dtype *type; /* of a storage or a dtype */
} sm_pk_global;

/* One mention of a storage; several may have the same key. data and bytes are for the reader of the file to set. */
typedef struct sm_pk_storage {
    const char *key;   /* in the pickle, not terminated */
    size_t nkey;
    const sm_pk_dtype *type;
    uint64_t bytes;    /* what the pickle says it has */
    const uint8_t *data;
} sm_pk_storage;

/* Offset and strides count elements; they are not checked against the storage yet, but none is negative. */
typedef struct sm_pk_tensor {
    const sm_pk_storage *storage;
    const sm_pk_dtype *type;
    uint64_t offset;
    int rank;
    int64_t dims[SM_PK_MAX_DIMS], strides[SM_PK_MAX_DIMS];
} sm_pk_tensor;

typedef enum sm_pk_kind {
    SM_PK_NONE, SM_PK_BOOL, SM_PK_INT, SM_PK_FLOAT, SM_PK_STR, SM_PK_LIST, SM_PK_DICT, SM_PK_GLOBAL, SM_PK_STORAGE, SM_PK_TENSOR,
    SM_PK_OTHER /* bytes, whole numbers past 64 bits, numpy's scalars: nothing that a checkpoint's tensors need */
} sm_pk_kind;

/* Values may be shared, and a container may hold itself. */
typedef struct sm_pk_value {
    sm_pk_kind kind;
    bool fixed;                     /* a tuple: a list that cannot grow */
    size_t n, cap;                  /* bytes of a string; items of a list; keys and values of a dict, so twice its entries */
    union {
        int64_t i;                  /* and bool */
        double f;
        const char *s;              /* in the pickle, not terminated */
        struct sm_pk_value **item;
        const sm_pk_global *global;
        sm_pk_storage *storage;
        sm_pk_tensor *tensor;
    } u;
} sm_pk_value;

/* The values of one or more pickles. */
typedef struct sm_pickle {
    sm_mem *mem;
    sm_arena arena;
    size_t values, items;
    sm_pk_storage **storages; /* every mention */
    size_t nstorages, capstorages;
} sm_pickle;

void sm_pickle_init(sm_pickle *p, sm_mem *mem);
void sm_pickle_free(sm_pickle *p);

/* Reads the pickle at data, of at most n bytes, which must outlive the values; *used is its length. label begins the
 * messages. NULL on failure. */
sm_pk_value *sm_pickle_read(sm_pickle *p, const uint8_t *data, size_t n, const char *label, size_t *used, sm_err *e);

/* The value under a text key, NULL when v is no dict or has none. */
const sm_pk_value *sm_pk_get(const sm_pk_value *v, const char *key);

/* ---- the table (pickle_globals.c) -------------------------------------------------------------------------------- */

const sm_pk_global *sm_pk_global_find(const char *module, size_t nmodule, const char *name, size_t nname); /* NULL when absent */

#endif
