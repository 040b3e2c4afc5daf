/* Files of tensors, whatever their format: what a path is, is told by its content, never by its name. */
#ifndef SM_TENSORS_H
#define SM_TENSORS_H

#include "io/safetensors.h"

typedef struct sm_tensors sm_tensors;

/* path: a file of any format in tensors.c's table, or what else sm_st_open takes. NULL on failure. */
sm_tensors *sm_tensors_open(const char *path, sm_mem *mem, sm_err *e);
/* A file's bytes in memory; they must outlive the result. label names them in messages. */
sm_tensors *sm_tensors_open_mem(const void *data, size_t size, const char *label, sm_mem *mem, sm_err *e);
void sm_tensors_close(sm_tensors *f); /* takes NULL */
const char *sm_tensors_path(const sm_tensors *f); /* path or label */
const char *sm_tensors_format(const sm_tensors *f); /* "safetensors", "PyTorch checkpoint", "GGUF file" */

const char *sm_tensors_metadata(const sm_tensors *f, const char *key); /* a text of safetensors or GGUF; NULL when absent */

/* Entries are sorted by name (bytewise). */
size_t sm_tensors_count(const sm_tensors *f);
const sm_st_entry *sm_tensors_at(const sm_tensors *f, size_t i);
const sm_st_entry *sm_tensors_find(const sm_tensors *f, const char *name); /* NULL when absent */

/* Whether sm_tensors_view can give x: types that weights may have (graph.h) and F64, 0 .. SM_MAX_DIMS dimensions, not empty. */
bool sm_tensors_usable(const sm_st_entry *x);
/* Entry x of f as a weight: a view of the file, or a copy that w keeps where the data is not aligned for its type. F64 becomes
 * f32. FP8 takes the scale that the file has beside it, one number or one per row: NAME.scale_weight or NAME.weight_scale for
 * NAME.weight. SUMI_E_SUPPORT: not usable. */
sumi_status sm_tensors_view(const sm_tensors *f, const sm_st_entry *x, sm_weights *w, sm_tensor *t, sm_mem *mem, sm_err *e);
/* Swaps the dims of a matrix in memory that w keeps; types of blocks and scaled ones become f32. name is for messages. */
sumi_status sm_tensors_transpose(sm_tensor *t, const char *name, sm_weights *w, sm_mem *mem, sm_err *e);
/* w takes f over: the file lives as long as w does, or is closed at once on failure. Told of mapped files (sm_weights_map). */
sumi_status sm_tensors_keep(sm_tensors *f, sm_weights *w, sm_err *e);

/* Adds every usable entry as prefix + name to w (prefix may be NULL) and takes f over. */
sumi_status sm_tensors_into(sm_tensors *f, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e);
sumi_status sm_tensors_load(const char *path, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e);

#endif
