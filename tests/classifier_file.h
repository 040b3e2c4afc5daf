/* Classifiers of noisy latents for tests: tests/fixtures/classifier.safetensors says their tensors, whose values are a formula of
 * the names, and what guided-diffusion computes with them (tools/fixtures/make_classifier.py). */
#ifndef CLASSIFIER_FILE_H
#define CLASSIFIER_FILE_H

#include <cjson/cJSON.h>

#include "io/safetensors.h"

/* What a test does to the file's tensors before it is written. */
typedef struct classifier_change {
    const char *without;        /* leave out tensors whose names begin so */
    const char *cut;            /* of this one, the first of dims[axis] only `to` stay */
    int axis;
    int64_t to;
    const char *metadata[3][2]; /* instead of the case's own; the first key NULL: the case's own */
    int in_channels;            /* of the first convolution, 0: 4 */
} classifier_change;

/* Writes the case's file and returns its path, good until the next call with that name; change may be NULL. "" and a failed check
 * where it cannot be. config: the fixture's metadata of that name. */
const char *classifier_file(const cJSON *config, const char *name, const classifier_change *change, const char *as);

#endif
