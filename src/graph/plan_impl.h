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

/* How a node is computed where that is by the kernel of another one, its maker, or from a picture of half the size (fuse.c). */
typedef struct sm_fuse {
    const sm_node *maker;   /* NULL: the node is computed as it stands */
    const sm_node *add;     /* of f.add_rows */
    const sm_node *small;   /* instead of source 0, with f.doubled */
    sm_finish f;
} sm_fuse;

typedef struct step {
    const sm_kernel *k;
    sm_kcall call;          /* its node is the maker */
    const sm_node *out;     /* whose result it gives */
    sm_cost cost;
    bool held;              /* depends on inputs that seldom change alone, and runs when they did */
    int passes, prep_tasks;
    int work, prep;         /* storages, -1: none */
    int64_t units, part;    /* of the prepared weight: all, and as many as are prepared at once */
    bool keep;              /* the weight stays prepared from run to run, see sm_plan_opts */
    sm_pack *pack;          /* then: the copy */
    void *prep_each_run;    /* where it is prepared otherwise */
    double seconds[2], cpu; /* of profiled runs: preparing the weight, the kernel; processor time of both */
} step;

/* Where a node's data is: in storage `at` at byte `offset`, or (at < 0) at `data`. */
typedef struct place {
    int at;
    size_t offset;
    const void *data;
    bool live; /* some output depends on it */
    bool constant; /* depends on weights that do not change and constants alone */
    bool held; /* depends on fixed inputs, weights and constants alone */
    bool kept; /* held, and read by what is not: stays from run to run */
} place;

struct sm_plan {
    sm_graph *g;
    sm_mem *mem;
    sm_plan_opts opts;
    step *steps;
    int nsteps;
    place *places; /* by node id; only the nodes that existed when the plan was made */
    sm_fuse *fuse; /* likewise */
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
    bool stale;             /* results of held steps are not those of the inputs */
    bool profile;
    int profiled;           /* runs whose seconds the steps have */
};

/* Decides what is done beside what, and takes what vanishes off the living nodes. */
sumi_status sm_plan_fuse(sm_plan *p, int n, sm_node *const *outputs, const sm_backend *be, sm_err *e);
const sm_node *sm_plan_maker(const sm_plan *p, const sm_node *n);
/* What computing n reads: k up to and including sm_plan_maker(n)->nsrc; NULL where nothing is. */
const sm_node *sm_plan_source(const sm_plan *p, const sm_node *n, int k);
sm_cost sm_plan_step_cost(const sm_plan *p, const sm_node *n);

#endif
