/* Checking requests against the parameter table of sumi.h. */
#ifndef SM_PARAMS_H
#define SM_PARAMS_H

#include "pipeline/context.h"

enum { SM_TEXT_MAX = 1 << 20 }; /* bytes of a prompt */

/* Every parameter in range, every text present and UTF-8. */
sumi_status sm_request_check(const sumi_request *r, sm_err *e);

#endif
