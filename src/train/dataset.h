/* The picture data set: memory-mapped drawings, what they show, and training examples made of them.
 *
 *     sm_dataset *d = sm_dataset_open("pictograms-128.safetensors", "pictograms.jsonl", &(sm_data_filter){.styles = "noto"}, mem,
 *                                        &e);
 *     sm_scene s = sm_dataset_scene(d, &opts, seed, i, variant);      what is shown and where: i and variant name it for good
 *     sm_dataset_draw(d, &s, 128, rgb, &e);                           its pixels
 *     sm_dataset_caption(d, &s, seed, draw, text, sizeof text);       one of its many captions, a new one for each draw
 *
 * Everything but open and free is safe from several threads at once. */
#ifndef SM_DATASET_H
#define SM_DATASET_H

#include "train/captions.h"
#include "train/compose.h"
#include "train/picture_index.h"

typedef struct sm_dataset sm_dataset;

/* Which pictures are taken. NULL or 0 is the default. */
typedef struct sm_data_filter {
    const char *styles;     /* comma-separated ids or names of sm_styles; default all in the file */
    const char *groups_out; /* comma-separated groups (animals-nature ...) or subgroups (time ...) to leave out; default none */
    unsigned splits;        /* bits of sm_split; default SM_SPLIT_TRAIN */
} sm_data_filter;

/* Opens both files and checks them against each other: tensor `rgba`, U8 [N, S, S, 4], N lines. Pictures stay mapped until
 * sm_dataset_free. Fails with one line naming file and cause; an unknown style, or a filter that leaves nothing, fails too. */
sm_dataset *sm_dataset_open(const char *pixels, const char *index, const sm_data_filter *f, sm_mem *mem, sm_err *e);
void sm_dataset_free(sm_dataset *d);

int64_t sm_dataset_count(const sm_dataset *d); /* pictures after the filter */
int sm_dataset_side(const sm_dataset *d);      /* S */
const sm_picture *sm_dataset_picture(const sm_dataset *d, int64_t i);
const uint8_t *sm_dataset_rgba(const sm_dataset *d, int64_t i); /* [S, S, 4], straight alpha */

/* An example: one or two pictures of one style (indices after the filter) and their placement. */
typedef struct sm_scene {
    int64_t picture[2];
    sm_placement place;
} sm_scene;

/* Depends on (seed, row of picture i in the file, variant), and on the filter for the second picture. Variant 0 is the
 * plain one. */
sm_scene sm_dataset_scene(const sm_dataset *d, const sm_compose_opts *o, uint64_t seed, int64_t i, uint64_t variant);

/* rgb: uint8 [size, size, 3]. */
sumi_status sm_dataset_draw(const sm_dataset *d, const sm_scene *s, int size, uint8_t *rgb, sm_err *e);

/* What sm_caption_draw writes about what the scene shows. */
void sm_dataset_caption(const sm_dataset *d, const sm_scene *s, uint64_t seed, uint64_t draw, char *out, size_t cap);

#endif
