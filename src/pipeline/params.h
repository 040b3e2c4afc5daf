/* Checking requests against the parameter table of sumi.h. */
#ifndef SM_PARAMS_H
#define SM_PARAMS_H

#include "pipeline/context.h"

/* Every parameter in range, every text present, UTF-8 and of at most SUMI_TEXT_MAX bytes. */
sumi_status sm_request_check(const sumi_request *r, sm_err *e);

#endif
