/* Looking up tensors of one component by a pattern of its names. */
#ifndef SM_DETECT_IMPL_H
#define SM_DETECT_IMPL_H

#include "model/detect.h"

typedef struct look {
    const sm_weights *w;
    const char *component;
} look;

/* The tensor "component.NAME", NULL when absent. */
const sm_weight *sm_look(const look *l, const char *fmt, ...) SM_PRINTF(2, 3);
/* Size `axis` of it as an int; 0 where it is absent, has no such axis, or one beyond 2^24, which no model has. */
int sm_look_dim(const look *l, int axis, const char *fmt, ...) SM_PRINTF(3, 4);
/* How many of a numbered list are there: fmt has one %d, tried with 0, 1, ... below most. */
int sm_look_count(const look *l, int most, const char *fmt);
/* Groups of the norms, which no tensor tells: 32 as in every published model; where some width does not divide by that, the
 * greatest divisor that all have and that divides 32. */
int sm_detect_groups(const int *widths, int n);

#endif
