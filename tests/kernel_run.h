/* Runs one op of one backend on guarded buffers: what the kernel, gradient and determinism checks share. */
#ifndef KERNEL_RUN_H
#define KERNEL_RUN_H

#include "op_cases.h"

/* Memory between two unreadable pages. At the end of its pages when `high`, else at their start. Filled with 0xff (NaN). */
typedef struct guarded { void *data, *map; size_t map_bytes; } guarded;
guarded guarded_new(size_t bytes, size_t align, bool high);
void guarded_free(guarded *g);

typedef struct kernel_run {
    const sm_kernel *k;
    const sm_node *node;
    const void *src[SM_MAX_SRC]; /* values, copied into guarded buffers */
    bool high;                   /* which side of the buffers is guarded */
    int inplace;                 /* the source whose memory is the result's, -1: none */
    bool unprepared;             /* the weight is left to the kernel where it takes it so */
    bool one_task;               /* all in one task instead of the kernel's own number */
    sm_pool *pool;               /* NULL: serial */
} kernel_run;

/* The result, numel floats, in malloc'd memory. */
float *kernel_result(const kernel_run *r);

/* The backend of rounded products; NULL, and the test is skipped, where the processor cannot. */
const sm_backend *kernel_bf16(void);

#endif
