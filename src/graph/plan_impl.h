/* What planning (plan.c) and running (plan_run.c) share. */
#ifndef SM_PLAN_IMPL_H
#define SM_PLAN_IMPL_H

#include "cpu/cpu.h"
#include "graph/packs.h"

/* A piece of the arena that lives from step `from` to step `to`, both included. */
typedef struct storage {
    size_t bytes, offset;
    int from, to;
    const sm_node *first;   /* whose result it holds first; NULL: inputs, workspaces, packed weights */
} storage;

typedef struct step {
    const sm_kernel *k;
    sm_kcall call;
    int passes, prep_tasks;
    int work, prep;         /* storages, -1: none */
    int64_t units, part;    /* of the prepared weight: all, and as many as are prepared at once */
    bool keep;              /* the weight stays prepared from run to run, see sm_plan_opts */
    sm_pack *pack;          /* then: the copy */
    void *prep_each_run;    /* where it is prepared otherwise */
    double seconds[2];      /* of profiled runs: preparing the weight, the kernel */
} step;

/* Where a node's data is: in storage `at` at byte `offset`, or (at < 0) at `data`. */
typedef struct place {
    int at;
    size_t offset;
    const void *data;
    bool live; /* some output depends on it */
} place;

struct sm_plan {
    sm_graph *g;
    sm_mem *mem;
    sm_plan_opts opts;
    step *steps;
    int nsteps;
    place *places; /* by node id; only the nodes that existed when the plan was made */
    int nodes;
    storage *stores;
    int nstores, cap;
    char *arena;
    size_t arena_bytes, packed_bytes;
    int npacked;            /* steps that keep theirs */
    sm_slab **slabs;        /* that they are in */
    int nslabs;
    sm_packs *store;        /* of the shared ones, NULL: there are none */
    bool ready;             /* all are filled */
    sm_cost cost;
    bool profile;
    int profiled;           /* runs whose seconds the steps have */
};

#endif
