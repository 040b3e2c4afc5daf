/* Reference files of tests/fixtures (tools/fixtures/README.md): tensors by name, models by their configuration, and
 * comparison in units of the reference's rms. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include "graph/weights.h"
#include "model/model.h"

typedef struct reference {
    const char *name;
    sm_mem mem;
    sm_err err;
    sm_weights *w;      /* every tensor under its name in the file: w.*, in.*, out.* ... */
    const char *config;    /* metadata, JSON; NULL where the file has none */
    const char *f32_error; /* metadata: what the reference itself loses in float32 */
} reference;

/* A missing or broken file is a failed check; close in any case. */
bool reference_open(reference *r, const char *name);
void reference_close(reference *r);
bool reference_config(reference *r, sm_model_kind kind, void *config);
/* NULL and a failed check where the file lacks the tensor. */
const sm_weight *reference_find(const reference *r, const char *fmt, ...) SM_PRINTF(2, 3);
/* Copies the tensor to x, which has room for n floats; a failed check where the file has another number. */
void reference_copy(const reference *r, const char *name, float *x, int64_t n);
/* Checks max |x - tensor| <= tolerance * rms(tensor) over n floats. where: for the message. */
void reference_near(const reference *r, const char *name, const float *x, int64_t n, double tolerance, const char *where);

#endif
