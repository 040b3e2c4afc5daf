/* Thread pool: runs a function over numbered tasks. Results must not depend on which thread runs a task, so the number
 * of tasks is chosen from the problem alone, never from the number of threads. */
#ifndef SM_POOL_H
#define SM_POOL_H

#include "base/base.h"

typedef struct sm_pool sm_pool;
typedef void sm_task_fn(void *arg, int task, int tasks);

/* threads >= 1 counts the caller. NULL and e set on failure. */
sm_pool *sm_pool_new(sm_mem *mem, int threads, sm_err *e);
void sm_pool_free(sm_pool *p);
int sm_pool_threads(const sm_pool *p);

/* Runs fn(arg, 0..tasks-1, tasks), returns when all are done. The caller's thread takes part. pool may be NULL (serial).
 * Not reentrant: fn must not call sm_pool_run on the same pool. */
void sm_pool_run(sm_pool *p, sm_task_fn *fn, void *arg, int tasks);

/* Processors this process may run on. */
int sm_cpu_count(void);

#endif
