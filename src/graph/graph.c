/* Recording: nodes, leaves, the sticky error and the poison node (see graph.h). */
#include "graph/graph.h"

#include <stdio.h>
#include <string.h>

static const struct { const char *name; uint16_t block, bytes; } types[SM_DTYPES] = {
    [SM_F32] = {"f32", 1, 4}, [SM_F16] = {"f16", 1, 2}, [SM_BF16] = {"bf16", 1, 2}, [SM_I32] = {"i32", 1, 4},
    [SM_F8_E4M3] = {"f8_e4m3", 1, 1}, [SM_F8_E5M2] = {"f8_e5m2", 1, 1}, [SM_Q4_0] = {"q4_0", 32, 18},
    [SM_Q4_1] = {"q4_1", 32, 20},
    [SM_Q5_0] = {"q5_0", 32, 22}, [SM_Q5_1] = {"q5_1", 32, 24}, [SM_Q8_0] = {"q8_0", 32, 34}, [SM_Q2_K] = {"q2_k", 256, 84},
    [SM_Q3_K] = {"q3_k", 256, 110}, [SM_Q4_K] = {"q4_k", 256, 144}, [SM_Q5_K] = {"q5_k", 256, 176},
    [SM_Q6_K] = {"q6_k", 256, 210},
};

size_t sm_dtype_size(sm_dtype t) { return t < SM_DTYPES && types[t].block == 1 ? types[t].bytes : 0; }
int sm_dtype_block(sm_dtype t) { return t < SM_DTYPES ? types[t].block : 1; }
size_t sm_dtype_block_bytes(sm_dtype t) { return t < SM_DTYPES ? types[t].bytes : 0; }
size_t sm_dtype_bytes(sm_dtype t, int64_t n) { return (size_t)(n / sm_dtype_block(t)) * sm_dtype_block_bytes(t); }
const char *sm_dtype_name(sm_dtype t) { return t < SM_DTYPES ? types[t].name : "?"; }

sm_graph *sm_graph_new(sm_mem *mem, sm_err *e)
{
    sm_graph *g = sm_alloc0(mem, SM_MEM_GRAPH, sizeof *g);
    if (g) {
        g->mem = mem;
        sm_arena_init(&g->arena, mem, SM_MEM_GRAPH);
        g->poison = sm_arena_get(&g->arena, sizeof *g->poison);
    }
    if (!g || !g->poison) {
        sm_graph_free(g);
        sm_fail(e, SUMI_E_MEMORY, "out of memory for a graph");
        return NULL;
    }
    *g->poison = (sm_node){.g = g, .op = SM_OP_COUNT, .id = -1, .rank = 1, .name = "poison"};
    for (int i = 0; i < SM_MAX_DIMS; i++)
        g->poison->dims[i] = 1;
    return g;
}

void sm_graph_free(sm_graph *g)
{
    if (!g)
        return;
    sm_arena_free(&g->arena);
    sm_free(g->nodes);
    sm_free(g);
}

int64_t sm_numel(const sm_node *n)
{
    int64_t c = 1;
    for (int i = 0; i < n->rank; i++)
        c *= n->dims[i];
    return c;
}

bool sm_same_shape(const sm_node *a, const sm_node *b)
{
    return a->rank == b->rank && !memcmp(a->dims, b->dims, sizeof a->dims[0] * (size_t)a->rank);
}

const char *sm_dims_str(const sm_node *n, char buf[96])
{
    int at = snprintf(buf, 96, "[");
    for (int i = 0; i < n->rank && at < 72; i++) /* a size takes 22 bytes at most */
        at += snprintf(buf + at, 96 - (size_t)at, "%s%lld", i ? ", " : "", (long long)n->dims[i]);
    snprintf(buf + at, 96 - (size_t)at, "]");
    return buf;
}

static const char *op_name(const sm_node *n) { return n->op < SM_OP_COUNT ? sm_ops[n->op].name : "graph"; }

bool sm_node_fail(sm_node *n, const char *fmt, ...)
{
    char what[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    sm_graph *g = n->g;
    sm_fail(&g->err, SUMI_E_MODEL, "%s%s%s: %s", g->scope, g->scope[0] ? ": " : "", op_name(n), what);
    return false;
}

sm_node *sm_graph_fail(sm_graph *g, const char *fmt, ...)
{
    char what[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    sm_fail(&g->err, SUMI_E_MODEL, "%s%s%s", g->scope, g->scope[0] ? ": " : "", what);
    return g->poison;
}

static sm_node *out_of_memory(sm_graph *g)
{
    sm_fail(&g->err, SUMI_E_MEMORY, "out of memory while recording a graph of %d operations", g->count);
    return g->poison;
}

static sm_node *new_node(sm_graph *g, sm_op_id op)
{
    if (g->err.code)
        return NULL;
    if (g->count == g->cap) {
        int cap = g->cap ? g->cap * 2 : 512;
        sm_node **p = sm_realloc(g->mem, SM_MEM_GRAPH, g->nodes, sizeof *p * (size_t)cap);
        if (!p)
            return out_of_memory(g), NULL;
        g->nodes = p;
        g->cap = cap;
    }
    sm_node *n = sm_arena_get(&g->arena, sizeof *n);
    if (!n)
        return out_of_memory(g), NULL;
    n->g = g;
    n->op = op;
    n->id = g->count;
    for (int i = 0; i < SM_MAX_DIMS; i++)
        n->dims[i] = 1;
    return n;
}

/* Shapes whose element count stays far from overflow; every dimension at least 1. */
static bool dims_ok(sm_node *n)
{
    int64_t total = 1;
    char s[96];
    for (int i = 0; i < n->rank; i++)
        if (n->dims[i] < 1 || __builtin_mul_overflow(total, n->dims[i], &total) || total > (int64_t)1 << 40)
            return sm_node_fail(n, "shape %s is empty or too large", sm_dims_str(n, s));
    return true;
}

static sm_node *finish(sm_node *n)
{
    sm_graph *g = n->g;
    if (!dims_ok(n))
        return g->poison;
    g->nodes[g->count++] = n;
    return n;
}

static sm_node *leaf(sm_graph *g, sm_op_id op, const char *name, sm_dtype t, int rank, const int64_t *dims)
{
    sm_node *n = new_node(g, op);
    if (!n)
        return NULL;
    if (rank < 0 || rank > SM_MAX_DIMS) {
        sm_graph_fail(g, "%s: %d dimensions, at most %d", name, rank, SM_MAX_DIMS);
        return NULL;
    }
    n->dtype = t;
    n->rank = rank;
    memcpy(n->dims, dims, sizeof *dims * (size_t)rank);
    n->name = sm_arena_str(&g->arena, name);
    if (!n->name)
        return out_of_memory(g), NULL;
    return n;
}

sm_node *sm_input(sm_graph *g, const char *name, sm_dtype t, int rank, const int64_t *dims)
{
    sm_node *n = leaf(g, SM_OP_INPUT, name, t, rank, dims);
    return n ? finish(n) : g->poison;
}

sm_node *sm_leaf_param(sm_graph *g, const char *name, sm_dtype t, int rank, const int64_t *dims, const void *data,
                       bool mutable_data)
{
    sm_node *n = leaf(g, SM_OP_PARAM, name, t, rank, dims);
    if (!n)
        return g->poison;
    n->data = data;
    n->mutable_data = mutable_data;
    return finish(n);
}

sm_node *sm_const(sm_graph *g, sm_dtype t, int rank, const int64_t *dims, const void *data)
{
    sm_node *n = leaf(g, SM_OP_CONST, "const", t, rank, dims);
    if (!n || !dims_ok(n))
        return g->poison;
    size_t bytes = sm_dtype_bytes(t, sm_numel(n));
    void *copy = sm_arena_get(&g->arena, bytes);
    if (!copy)
        return out_of_memory(g);
    memcpy(copy, data, bytes);
    n->data = copy;
    return finish(n);
}

sm_node *sm_const_f32(sm_graph *g, float value)
{
    int64_t one = 1;
    return sm_const(g, SM_F32, 1, &one, &value);
}

sm_node *sm_record(sm_graph *g, sm_op_id op, int nsrc, sm_node *const *src, const sm_param *p)
{
    const sm_op_row *row = &sm_ops[op];
    sm_node *n = new_node(g, op);
    if (!n)
        return g->poison;
    n->dtype = SM_F32;
    n->nsrc = nsrc;
    if (p)
        n->p = *p;
    for (int i = 0; i < nsrc && i < SM_MAX_SRC; i++) {
        n->src[i] = src[i];
        if (src[i] && sm_poisoned(src[i]))
            return g->poison;
        if (src[i] && src[i]->g != g)
            return sm_graph_fail(g, "%s: source %d belongs to another graph", row->name, i);
    }
    if (nsrc > row->max_src || nsrc < row->min_src)
        return sm_graph_fail(g, "%s: %d sources, takes %d to %d", row->name, nsrc, row->min_src, row->max_src);
    for (int i = 0; i < row->min_src; i++)
        if (!n->src[i])
            return sm_graph_fail(g, "%s: source %d is missing", row->name, i);
    n->name = sm_arena_str(&g->arena, g->scope);
    if (!n->name)
        return out_of_memory(g);
    return row->shape(n) ? finish(n) : g->poison;
}
