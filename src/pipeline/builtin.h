/* Where the built-in model lies. */
#ifndef SM_BUILTIN_H
#define SM_BUILTIN_H

#include "base/base.h"

/* $SUMI_MODEL, beside the program, in the installed share folder: the first that is there. */
sumi_status sm_builtin_find(char *out, size_t size, sm_err *e);

#endif
