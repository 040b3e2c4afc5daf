/* What the three safetensors files share: the struct behind sm_st. */
#ifndef SM_SAFETENSORS_IMPL_H
#define SM_SAFETENSORS_IMPL_H

#include "base/file.h"
#include "io/safetensors.h"

enum {
    SM_ST_MAX_HEADER = 100000000, /* bytes; the reference implementation's limit */
    SM_ST_MAX_VALUES = 4000000,   /* JSON values in a header or an index: about 400 MB of parsed JSON at worst */
    SM_ST_MAX_NAME = 1024,
    SM_ST_MAX_SHARDS = 1000
};

struct sm_st {
    sm_mem *mem;
    sm_arena arena;        /* names, metadata */
    sm_map *map;           /* NULL for memory and for an index */
    sm_st **shards;        /* of an index; they own the names and the data */
    size_t nshards;
    sm_st_entry *entries;  /* sorted by name */
    size_t count;
    sm_st_meta *meta;
    size_t nmeta;
};

sm_st *sm_st_open_file(const char *path, sm_mem *mem, sm_err *e);  /* one file */
int sm_st_by_name(const void *a, const void *b);                   /* compares entries */
/* Adds the computable entry t as prefix + name; a copy where it is not aligned. */
sumi_status sm_st_add(const sm_st_entry *t, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e);

#endif
