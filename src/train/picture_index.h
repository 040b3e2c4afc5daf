/* pictograms.jsonl: what each picture of a data set shows, a line a picture, in the order of the pixel tensor's rows. */
#ifndef SM_PICTURE_INDEX_H
#define SM_PICTURE_INDEX_H

#include "base/base.h"

/* Which part of the data a picture belongs to, as bits for filters. */
typedef enum sm_split {
    SM_SPLIT_TRAIN = 1,
    SM_SPLIT_CONCEPT = 2, /* its caption is held out in every style */
    SM_SPLIT_PAIR = 4     /* its caption is held out in this style only */
} sm_split;

/* Strings are UTF-8, owned by the arena the index was read into. */
typedef struct sm_picture {
    const char *style, *name, *caption, *group, *sub;
    const char *const *tags;
    int n_tags;
    int style_row; /* in sm_styles */
    sm_split split;
    int64_t row; /* in the pixel tensor */
} sm_picture;

/* Parses n bytes of text; path is for messages. On success *out holds *count pictures. Every line must be one object with the
 * strings style (one of sm_styles), name, caption, group, sub, split (train, concept, pair) and the array of strings tags. */
sumi_status sm_picture_index_parse(const char *text, size_t n, const char *path, sm_arena *a, sm_picture **out, int64_t *count,
                                   sm_err *e);

/* Reads and parses the file (64 MiB at most). */
sumi_status sm_picture_index_read(const char *path, sm_arena *a, sm_picture **out, int64_t *count, sm_err *e);

#endif
