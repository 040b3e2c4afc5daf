/* The files that hold one component's weights in a folder as diffusers and transformers write it, and which of them to take.
 * They are called BASE[.VARIANT][-00001-of-00002][.VARIANT].EXT, BASE one of three words (diffusers' pipeline_loading_utils and
 * transformers' modeling_utils). One choice for what is pulled and for what is loaded: the former is always enough for the
 * latter. */
#ifndef SM_WEIGHT_FILES_H
#define SM_WEIGHT_FILES_H

#include "base/base.h"

typedef struct sm_wf_name {
    bool safetensors, index; /* index: of shards (a .json), else weights */
    int base;                /* which of the words, 0 the usual one of a denoiser or autoencoder */
    int shard, shards;       /* 1 .. shards; 0 and 0: not one of several */
    char variant[32];        /* "fp16"; "" without */
} sm_wf_name;

/* Takes a file's name apart; false: neither weights nor an index of theirs. */
bool sm_wf_read(const char *file, sm_wf_name *n);

/* Whether the choice is among such files: an index of .bin shards only comes along, their own names say how many there are. */
bool sm_wf_counts(const sm_wf_name *n);

enum { SM_WF_WANTED = 9 }; /* from here on: the wanted variant */
/* How good such a file is for the wish (variant may be NULL), at least 1. In order: the wanted variant, none, fp16 and bf16, any
 * other, which is better than nothing; safetensors before .bin in each. */
int sm_wf_rank(const sm_wf_name *n, const char *variant);
/* Whether a is better than b: by rank, then the word, then one file before several. */
bool sm_wf_better(const sm_wf_name *a, const sm_wf_name *b, const char *variant);
/* Whether both belong to one set: a file, or shards and their index. */
bool sm_wf_same_set(const sm_wf_name *a, const sm_wf_name *b);

enum { SM_WF_MOST = 256 };
typedef struct sm_wf_set {
    sm_arena arena;
    const char *path[SM_WF_MOST]; /* what sm_tensors_open takes: an index of safetensors, else every file of the set */
    int n;
} sm_wf_set;

/* The set of a folder to load. None: SUMI_E_MODEL; a shard is missing: SUMI_E_FILE. sm_wf_free in any case. */
sumi_status sm_wf_find(const char *folder, sm_mem *mem, sm_wf_set *out, sm_err *e);
void sm_wf_free(sm_wf_set *s);

#endif
