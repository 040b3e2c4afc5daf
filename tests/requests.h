/* What tests of whole requests share. */
#ifndef REQUESTS_H
#define REQUESTS_H

#include "sumi.h"

/* XL's size fields as the fixtures of requests have them (tools/fixtures/make_families.py). */
void requests_xl_sizes(sumi_request *r);
/* Draws with each allocation failing once (all of the first ones, then ever fewer): out of memory until it is drawn, and never
 * anything left. */
void requests_out_of_memory(sumi_context *ctx, sumi_model *m, const sumi_request *r);

#endif
