/* PyTorch checkpoints (.ckpt .pt .pth .bin), read without running anything in them: the zip archives of torch.save since 1.6,
 * mapped in place, and the stream before that. Formats: torch/serialization.py, caffe2/serialize/inline_container.cc.
 *
 * Entries are those of safetensors.h. Containers in one another become names joined by '.', items of a list by their number;
 * when the outermost dict has a `state_dict`, that is the model and the rest (optimizer, notes) is left out. A tensor that is
 * alone is called "tensor". Everything but tensors is passed over. */
#ifndef SM_CKPT_H
#define SM_CKPT_H

#include "io/safetensors.h"

typedef struct sm_ckpt sm_ckpt;

/* True when these first bytes of a file (512 or all) are of a checkpoint, or of a pickle or tar that this reader refuses by
 * a message of its own. */
bool sm_ckpt_is(const void *head, size_t n);

/* NULL on failure. F64 is converted to F32 (`dtype` still says F64, `data` and `bytes` are of the F32). Tensors that are not
 * contiguous, packed or big-endian are copied; such copies of more than 32 times the file and 64 MB are refused. */
sm_ckpt *sm_ckpt_open(const char *path, sm_mem *mem, sm_err *e);
/* A file's bytes in memory; they must outlive the result. label names them in messages. */
sm_ckpt *sm_ckpt_open_mem(const void *data, size_t size, const char *label, sm_mem *mem, sm_err *e);
void sm_ckpt_close(sm_ckpt *f); /* takes NULL */

/* Entries are sorted by name (bytewise). */
size_t sm_ckpt_count(const sm_ckpt *f);
const sm_st_entry *sm_ckpt_at(const sm_ckpt *f, size_t i);
const sm_st_entry *sm_ckpt_find(const sm_ckpt *f, const char *name); /* NULL when absent */

/* As sm_st_map, sm_st_into and sm_st_load. */
sumi_status sm_ckpt_map(const sm_ckpt *f, sm_weights *w, sm_err *e);
sumi_status sm_ckpt_into(sm_ckpt *f, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e);
sumi_status sm_ckpt_load(const char *path, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e);

#endif
