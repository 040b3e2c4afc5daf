/* Weights as kernels want them (sm_kernel.prep), shared: plans of any batch size, one after the other or at once, use the copies
 * that the first of them made. What a plan makes is a slab, one block of memory. A store belongs to a table of weights
 * (sm_weights_packs) and knows copies of mapped files only: what is in those never changes. */
#ifndef SM_PACKS_H
#define SM_PACKS_H

#include <pthread.h>

#include "cpu/cpu.h"

/* What a copy is of, all that its content depends on (see sm_kernel.prep), and the copy. */
typedef struct sm_pack {
    void (*prep)(const sm_kcall *c, void *out, int task, int tasks);
    const char *how;
    sm_op_id op;
    sm_param p;             /* of convolutions */
    sm_tensor w;
    size_t bytes, unit;
    void *out;
    bool ready;             /* under the store's lock */
} sm_pack;

typedef struct sm_slab {
    struct sm_packs *owner; /* NULL: one plan's alone */
    struct sm_slab *next;
    int users;              /* plans */
    int64_t used;           /* when last, for making room */
    size_t bytes;
    char *data;
    int n;
    sm_pack at[];
} sm_slab;

typedef struct sm_packs {
    pthread_mutex_t lock;   /* several contexts may use one model */
    sm_mem *mem;
    sm_slab *slabs;
    size_t bytes, idle;     /* of all, of those that no plan uses */
    size_t keep;
    int64_t clock;
} sm_packs;

void sm_packs_init(sm_packs *s, sm_mem *mem);
void sm_packs_close(sm_packs *s); /* no plan uses it any more */
/* What no plan uses stays as long as there are no more bytes in all than that; 0, the default: none does. */
void sm_packs_keep(sm_packs *s, size_t bytes);
size_t sm_packs_bytes(sm_packs *s);

/* ---- a plan's part ------------------------------------------------------------------------------------------------- */

/* Finds the copies that the plan keeps, or makes room for them. */
sumi_status sm_plan_prepare(sm_plan *p, sm_err *e);
/* Before the first run: fills those that nobody has filled yet. */
void sm_plan_pack(sm_plan *p, sm_pool *pool);
void sm_plan_unpack(sm_plan *p);

#endif
