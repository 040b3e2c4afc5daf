/* What a model was loaded from, as infotexts tell it: name, hash of the file, files that were named. */
#ifndef SM_ORIGIN_H
#define SM_ORIGIN_H

#include "base/base.h"

typedef struct sm_origin sm_origin;

/* o: what the caller asked for; file: what the model is, a folder or a file. NULL on failure. */
sm_origin *sm_origin_new(const sumi_model_options *o, const char *file, sm_mem *mem, sm_err *e);
void sm_origin_free(sm_origin *g);
/* Ten hexadecimal digits; "" for a folder or a file that cannot be read. Computed once, by whoever asks first. */
const char *sm_origin_hash(sm_origin *g);
/* The file itself; NULL: a folder. */
const char *sm_origin_file(const sm_origin *g);
/* Appends ", KEY: VALUE" for every file that was named; of the tiny autoencoder only if the picture was made by it. */
void sm_origin_put(const sm_origin *g, bool tiny, sm_buf *b);
/* Appends a path as a value: one below the home folder as "~/REST". */
void sm_origin_put_path(const char *path, sm_buf *b);
/* The member of o that the key names, NULL for another key; *low_memory as well. */
const char **sm_origin_member(sumi_model_options *o, const char *key);

#define SM_ORIGIN_LOW_MEMORY "Low memory"

#endif
