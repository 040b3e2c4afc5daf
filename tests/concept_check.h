/* How far the concept score can be trusted: training pictures are spoiled in known ways and looked up again. A feature that
 * loses a picture which was merely moved or blurred would blame the model for its own faults; one that finds an empty frame
 * would praise it for nothing. */
#ifndef SM_CONCEPT_CHECK_H
#define SM_CONCEPT_CHECK_H

#include "eval/concept_score.h"

enum { SM_SPOILS = 12 };
extern const char *const sm_spoil_names[SM_SPOILS];

/* Spoils rgb, uint8 [side, side, 3], in way k (0 .. SM_SPOILS - 1; "moved" and "placed" are done when drawing); (seed, i) draw
 * the chance. */
sumi_status sm_spoil(int k, uint64_t seed, int64_t i, int side, uint8_t *rgb, sm_mem *mem, sm_err *e);

/* Looks up every step-th picture of the gallery's style spoiled in each way; t[SM_SPOILS]. */
sumi_status sm_concept_check(const sm_gallery *g, const sm_dataset *d, int style, int64_t step, uint64_t seed,
                             sm_concept_tally t[SM_SPOILS],
                             sm_mem *mem, sm_err *e);

#endif
