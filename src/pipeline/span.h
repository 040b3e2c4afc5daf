/* Progress of requests that are parts of a larger whole: each part's is told on as a part of that, with the time left of all. */
#ifndef SM_SPAN_H
#define SM_SPAN_H

#include "base/base.h"

typedef struct sm_span {
    const sumi_callbacks *to; /* may be NULL */
    const char *stage;        /* told instead of "sample" */
    double whole, done, part; /* in sampling steps: all, of the parts that are through, of the one at work */
    double started;
    char told[400];           /* the last message: parts that say the same again are not told on */
} sm_span;

/* whole: sampling steps of all parts. The callbacks for the parts' requests live as long as s does. */
sumi_callbacks sm_span_start(sm_span *s, const sumi_callbacks *to, const char *stage, double whole);
/* The part before is through; the next one has so many steps. */
void sm_span_next(sm_span *s, double steps);

#endif
