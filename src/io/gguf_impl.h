/* What GGUF's reader and writer share: limits, the numbers of the tensor types, sizes of metadata types. */
#ifndef SM_GGUF_IMPL_H
#define SM_GGUF_IMPL_H

#include "io/gguf.h"

enum {
    SM_GGUF_MAX_NAME = 1024,      /* bytes of a key or of a tensor's name */
    SM_GGUF_MAX_ITEMS = 4000000,  /* tensors, keys, texts and nested arrays in a header: up to 200 bytes of memory each */
    SM_GGUF_MAX_TEXT = 1 << 26,
    SM_GGUF_MAX_DEPTH = 4,        /* arrays within arrays */
    SM_GGUF_ALIGNMENT = 32        /* where general.alignment does not say otherwise */
};

/* The format's number of a storage type, -1 for FP8, which it lacks. */
int sm_gguf_type_id(sm_dtype t);
int sm_gguf_raw_id(const char *name); /* of any type, by its name */
/* Bytes of a number or BOOL; 0 for STRING and ARRAY. */
size_t sm_gguf_value_size(sm_gguf_type t);

static inline bool sm_gguf_alignment_ok(uint64_t a) { return a && !(a & (a - 1)); }

#endif
