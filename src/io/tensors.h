/* Files of tensors, whatever their format: what a path is, is told by its content, never by its name. */
#ifndef SM_TENSORS_H
#define SM_TENSORS_H

#include "io/safetensors.h"

typedef struct sm_tensors sm_tensors;

/* path: a file of any format in tensors.c's table, or what else sm_st_open takes. NULL on failure. */
sm_tensors *sm_tensors_open(const char *path, sm_mem *mem, sm_err *e);
void sm_tensors_close(sm_tensors *f); /* takes NULL */
const char *sm_tensors_format(const sm_tensors *f); /* "safetensors", "PyTorch checkpoint", "GGUF file" */

/* Entries are sorted by name (bytewise). */
size_t sm_tensors_count(const sm_tensors *f);
const sm_st_entry *sm_tensors_at(const sm_tensors *f, size_t i);
const sm_st_entry *sm_tensors_find(const sm_tensors *f, const char *name); /* NULL when absent */

/* Adds every computable entry as prefix + name to w (prefix may be NULL) and takes f over: the file lives as long as w does. */
sumi_status sm_tensors_into(sm_tensors *f, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e);
sumi_status sm_tensors_load(const char *path, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e);

#endif
