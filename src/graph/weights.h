/* Weights: a table from full tensor name to data. Filled by loaders (io/) with views of mapped files, or by training with
 * memory of its own. Knows no file format. Reference-counted, shared by models and plans. */
#ifndef SM_WEIGHTS_H
#define SM_WEIGHTS_H

#include "graph/graph.h"

typedef struct sm_weight {
    const char *name;     /* owned by the table */
    sm_tensor t;
    size_t bytes;
    bool mutable_data;    /* trained: f32, values change between runs */
    bool mapped;          /* a view of a file mapped for reading (sm_weights_map) */
    bool used;            /* some model asked for it (to report unexpected tensors) */
} sm_weight;

typedef struct sm_weights sm_weights;

sm_weights *sm_weights_new(sm_mem *mem, sm_err *e);
sm_weights *sm_weights_ref(sm_weights *w);
void sm_weights_unref(sm_weights **w); /* clears the caller's pointer; takes NULL content */

/* Adds a view; data must outlive the table (see sm_weights_keep). A name that is there already is SUMI_E_FORMAT. */
sumi_status sm_weights_add(sm_weights *w, const char *name, const sm_tensor *t, sm_err *e);
/* Adds a zeroed, mutable f32 tensor owned by the table; returns it, NULL on failure. */
sm_weight *sm_weights_create(sm_weights *w, const char *name, int rank, const int64_t *dims, sm_err *e);
/* free_fn(arg) runs when the table dies: how a loader hands over its mapping. Called at once on failure. */
sumi_status sm_weights_keep(sm_weights *w, void (*free_fn)(void *), void *arg, sm_err *e);

/* Tells that the n bytes at data are a mapped file: tensors inside are `mapped`, those added already and those to come. */
sumi_status sm_weights_map(sm_weights *w, const void *data, size_t n, sm_err *e);
/* The same of all files that from was told of: for a table with views of another one's tensors. */
sumi_status sm_weights_map_as(sm_weights *w, const sm_weights *from, sm_err *e);
/* Gives back the pages of mapped tensors whose names begin with prefix (NULL: of all); reading them again costs little as
 * long as the system keeps the file cached. */
void sm_weights_drop(const sm_weights *w, const char *prefix);

/* Prepared copies of the table's mapped tensors; dies with the table. */
struct sm_packs *sm_weights_packs(sm_weights *w);

sm_weight *sm_weights_find(const sm_weights *w, const char *name); /* NULL when absent */
size_t sm_weights_count(const sm_weights *w);
sm_weight *sm_weights_at(const sm_weights *w, size_t i);           /* in order of adding */

#endif
