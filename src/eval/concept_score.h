/* The concept score: does a drawn picture look like the thing it was asked for? A drawing counts when, among all pictures of
 * its style in a gallery, the nearest one (top 1) or one of the five nearest concepts (top 5) shows that thing.
 *
 * The feature is fixed by hand and nothing in it is learnt from what a model drew; see concept_score.c for what it holds and
 * tests/concept_check.h for how well it finds pictures again that were moved, blurred, compressed or bent. */
#ifndef SM_CONCEPT_SCORE_H
#define SM_CONCEPT_SCORE_H

#include "train/dataset.h"

enum { SM_CONCEPT_DIM = 3 * (12 * 12 + 6 * 6 + 3 * 3) + 8 * (8 * 8 + 4 * 4) };

/* Raw feature of a picture on white, rgb uint8 [h, w, 3], 8 to 4096 a side, into out[SM_CONCEPT_DIM]. */
sumi_status sm_concept_feature(const uint8_t *rgb, int w, int h, float *out, sm_mem *mem, sm_err *e);

/* The pictures of one style that a drawing is compared with. */
typedef struct sm_gallery sm_gallery;

/* All pictures of the style (row of sm_styles) that d's filter left, each plain and on white. d must outlive the gallery.
 * Trained pairs are scored against the training pictures; for held-out ones open d with those splits too. */
sm_gallery *sm_gallery_new(const sm_dataset *d, int style, sm_mem *mem, sm_err *e);
void sm_gallery_free(sm_gallery *g);
int64_t sm_gallery_count(const sm_gallery *g);

/* What a drawing resembles. */
typedef struct sm_concept_hit {
    int rank;           /* of the wanted caption among the gallery's captions, 1 is the nearest; 0 when the gallery lacks it */
    int64_t nearest[5]; /* pictures of d: the nearest one of each of the five nearest captions; -1 where there are fewer */
    float similarity;   /* to nearest[0]: cosine, 1 is equal */
} sm_concept_hit;

sumi_status sm_gallery_find(const sm_gallery *g, const uint8_t *rgb, int w, int h, const char *caption, sm_concept_hit *hit,
                            sm_err *e);

/* Counts over many drawings. Zero-initialise. */
typedef struct sm_concept_tally {
    int64_t n, top1, top5;
    double reciprocal; /* sum of 1 / rank */
} sm_concept_tally;

void sm_concept_tally_add(sm_concept_tally *t, const sm_concept_hit *hit);

/* Scores n drawings, rgb[i] uint8 [side, side, 3] meant to show caption[i], all of the gallery's style; rank may be NULL, else
 * [n]. */
sumi_status sm_concept_score(const sm_gallery *g, int64_t n, const uint8_t *const *rgb, int side, const char *const *caption,
                             sm_concept_tally *t, int *rank, sm_err *e);

#endif
