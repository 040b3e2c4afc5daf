/* The context behind the public handle: error, memory counters, threads, backend. */
#ifndef SM_CONTEXT_H
#define SM_CONTEXT_H

#include "cpu/cpu.h"

struct sumi_context {
    sm_mem mem;
    sm_err err;
    sm_pool *pool;
    const sm_backend *be;
    const sm_backend *compute; /* of modules that are run alone */
};

/* Every public call begins with this: forgets the last error. */
sm_err *sm_begin(sumi_context *ctx);

#endif
