/* Scopes and parameters: from a path in the checkpoint to a leaf of the graph, and, in a table opened for creation, the
 * initial values. Those are PyTorch's defaults (torch.nn.Linear.reset_parameters and its kin), drawn from a generator keyed
 * by (seed, tensor name, element), so that neither the order of recording nor the thread count matters. */
#include "nn/nn.h"

#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { NAME = 256 };

nn_scope nn_root(sm_graph *g, sm_weights *w, const nn_init *init)
{
    g->scope[0] = 0;
    return (nn_scope){.g = g, .w = w, .init = init};
}

/* Joins with a dot; false when the result was cut off. */
static bool join(char *out, size_t size, const char *path, const char *name)
{
    int n = snprintf(out, size, "%s%s%s", path, path[0] && name[0] ? "." : "", name);
    return n >= 0 && (size_t)n < size;
}

nn_scope nn_sub(const nn_scope *s, const char *fmt, ...)
{
    nn_scope sub = *s;
    char tail[sizeof sub.path];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(tail, sizeof tail, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof tail || !join(sub.path, sizeof sub.path, s->path, tail))
        sm_graph_fail(s->g, "the tensor path below it is longer than %zu characters", sizeof sub.path - 1);
    nn_here(&sub);
    return sub;
}

void nn_here(const nn_scope *s) { snprintf(s->g->scope, sizeof s->g->scope, "%s", s->path); }

void nn_enter(const nn_scope *s, const char *name) { join(s->g->scope, sizeof s->g->scope, s->path, name); }

bool nn_reject(const nn_scope *s, const char *fmt, ...)
{
    char what[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    nn_here(s);
    sm_graph_fail(s->g, "%s", what);
    return false;
}

static sm_weight *find(const nn_scope *s, const char *name, char full[NAME])
{
    return join(full, NAME, s->path, name) ? sm_weights_find(s->w, full) : NULL;
}

bool nn_has(const nn_scope *s, const char *name)
{
    char full[NAME];
    return find(s, name, full) != NULL;
}

int64_t nn_dim(const nn_scope *s, const char *name, int axis, int64_t otherwise)
{
    char full[NAME];
    const sm_weight *w = find(s, name, full);
    return w && axis < w->t.rank ? w->t.dims[axis] : otherwise;
}

bool nn_wants(const nn_scope *s, const char *name, const char *owner, bool fresh)
{
    return nn_has(s, name) || (s->init && !nn_has(s, owner) && fresh);
}

sm_node *nn_tap(const sm_graph *g, const char *path)
{
    size_t n = strlen(path);
    for (int i = g->count - 1; i >= 0; i--) {
        const sm_node *x = g->nodes[i];
        if (x->nsrc && !strncmp(x->name, path, n) && (!x->name[n] || x->name[n] == '.'))
            return g->nodes[i];
    }
    return NULL;
}

/* ---- initial values ---------------------------------------------------------------------------------------------- */

/* The stream of a tensor's values: part of what a seed means, never to change. */
static uint64_t stream_of(const char *name) { return sm_hash64(name, strlen(name)); }

static void fill_values(float *x, size_t n, nn_fill fill, int64_t fan, uint64_t seed, const char *name)
{
    float bound = fan > 0 ? (float)(1.0 / sqrt((double)fan)) : 0;
    switch (fill) {
    case NN_ZEROS:
        memset(x, 0, n * sizeof *x);
        break;
    case NN_ONES:
        for (size_t i = 0; i < n; i++)
            x[i] = 1;
        break;
    case NN_UNIFORM_FAN_IN:
        sm_rng_uniform(seed, stream_of(name), 0, x, n);
        for (size_t i = 0; i < n; i++)
            x[i] = bound * (2 * x[i] - 1);
        break;
    case NN_NORMAL_1:
    case NN_NORMAL_002:
        sm_rng_normal(seed, stream_of(name), 0, x, n);
        for (size_t i = 0; fill == NN_NORMAL_002 && i < n; i++)
            x[i] *= 0.02f;
        break;
    }
}

/* ---- leaves ------------------------------------------------------------------------------------------------------ */

/* Same sizes; trailing ones count for nothing, so that a 1x1 convolution's weight serves a linear layer and back. */
static bool dims_match(const sm_tensor *t, int rank, const int64_t *dims)
{
    for (int i = 0; i < SM_MAX_DIMS; i++)
        if ((i < t->rank ? t->dims[i] : 1) != (i < rank ? dims[i] : 1))
            return false;
    return true;
}

static void dims_text(char out[96], int rank, const int64_t *dims)
{
    sm_node n = {.rank = rank};
    memcpy(n.dims, dims, (size_t)rank * sizeof *dims);
    sm_dims_str(&n, out);
}

/* A new entry without values. */
static sm_weight *shape_entry(const nn_scope *s, const char *full, int rank, const int64_t *dims)
{
    sm_tensor t = {.data = (void *)s->init, .dtype = SM_F32, .rank = rank};
    memcpy(t.dims, dims, (size_t)rank * sizeof *dims);
    return sm_weights_add(s->w, full, &t, &s->g->err) == SUMI_OK ? sm_weights_find(s->w, full) : NULL;
}

/* The entry of "path.name", made where the table is open for creation. *made tells so. NULL after a failure. */
static sm_weight *entry(const nn_scope *s, const char *name, int rank, const int64_t *dims, bool *made)
{
    char full[NAME], want[96], has[96];
    sm_weight *w = find(s, name, full);
    *made = false;
    if (s->g->err.code)
        return NULL;
    dims_text(want, rank, dims);
    if (!w && s->init && s->init->shapes_only) {
        w = shape_entry(s, full, rank, dims);
    } else if (!w && s->init) {
        w = sm_weights_create(s->w, full, rank, dims, &s->g->err);
        *made = w != NULL;
    } else if (!w) {
        sm_graph_fail(s->g, "tensor %s is missing; the model needs it with shape %s", full, want);
    } else if (!dims_match(&w->t, rank, dims)) {
        dims_text(has, w->t.rank, w->t.dims);
        sm_graph_fail(s->g, "tensor %s has shape %s; the model needs %s", full, has, want);
        w = NULL;
    }
    if (w)
        __atomic_store_n(&w->used, true, __ATOMIC_RELAXED); /* several contexts may record one model */
    return w;
}

static sm_node *leaf(const nn_scope *s, const sm_weight *w, int rank, const int64_t *dims)
{
    sm_node *n = sm_leaf_param(s->g, w->name, w->t.dtype, rank, dims, w->t.data, w->mutable_data);
    if (!sm_poisoned(n)) {
        n->mapped = w->mapped;
        n->packs = w->mapped ? sm_weights_packs(s->w) : NULL;
        n->scale = w->t.scale;
        n->scale_run = w->t.scale_run;
    }
    return n;
}

sm_node *nn_param_as(const nn_scope *s, const char *name, nn_fill fill, int64_t fan, int rank, const int64_t *dims, int leaf_rank)
{
    bool made;
    sm_weight *w = entry(s, name, rank, dims, &made);
    if (!w)
        return s->g->poison;
    if (made)
        fill_values(w->t.data, w->bytes / sizeof(float), fill, fan, s->init->seed, w->name);
    return leaf(s, w, leaf_rank, dims);
}

sm_node *nn_param(const nn_scope *s, const char *name, nn_fill fill, int64_t fan, int rank, const int64_t *dims)
{
    return nn_param_as(s, name, fill, fan, rank, dims, rank);
}

sm_node *nn_buffer(const nn_scope *s, const char *name, void (*fill)(float *x, const void *arg), const void *arg, int rank,
                   const int64_t *dims, int leaf_rank, const int64_t *leaf_dims)
{
    bool made;
    sm_weight *w = entry(s, name, rank, dims, &made);
    if (!w)
        return s->g->poison;
    if (made) {
        fill(w->t.data, arg);
        w->mutable_data = false;
    }
    return leaf(s, w, leaf_rank, leaf_dims);
}
