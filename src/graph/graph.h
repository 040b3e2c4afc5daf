/* Graph: recording operations on tensors, with sticky errors, reverse-mode autodiff and a planner.
 *
 * A graph is recorded once per shape, planned once and run many times. Recording never computes. The first failure is
 * kept in the graph with the op, the scope (tensor path) and the shapes; every later call returns the poison node, so a
 * model records without a single check and its caller looks at g->err when the plan is made.
 *
 * Activations are channels last: [N,H,W,C] or [N,T,C], dense, f32, outermost dimension first. */
#ifndef SM_GRAPH_H
#define SM_GRAPH_H

#include "base/base.h"
#include "base/pool.h"

enum { SM_MAX_DIMS = 6, SM_MAX_SRC = 8 };

/* How values are stored. Activations are f32, ids i32; the others are types of weights that linear, conv2d, gather and the
 * norms read (cpu/stored.c turns them into f32). Block types follow ggml: a block of values shares scales and has no bytes of
 * a value's own; a tensor is a whole number of blocks. */
typedef enum sm_dtype {
    SM_F32, SM_F16, SM_BF16, SM_I32,
    SM_F8_E4M3, SM_F8_E5M2,
    SM_Q4_0, SM_Q4_1, SM_Q5_0, SM_Q5_1, SM_Q8_0,   /* blocks of 32 values */
    SM_Q2_K, SM_Q3_K, SM_Q4_K, SM_Q5_K, SM_Q6_K,   /* blocks of 256, scales quantised too */
    SM_DTYPES
} sm_dtype;
enum { SM_MAX_BLOCK = 256 };
size_t sm_dtype_size(sm_dtype t);              /* bytes of a value; 0 for block types */
int sm_dtype_block(sm_dtype t);                /* values that share a block; 1 for the others */
size_t sm_dtype_block_bytes(sm_dtype t);
size_t sm_dtype_bytes(sm_dtype t, int64_t n);  /* of n values, a whole number of blocks */
const char *sm_dtype_name(sm_dtype t);         /* "f32", "q4_k" */

/* A view of dense data with its shape; owns nothing. */
typedef struct sm_tensor {
    void *data;
    sm_dtype dtype;
    int rank;
    int64_t dims[SM_MAX_DIMS];
    const float *scale;             /* FP8 weights with scales: value i is multiplied by scale[i / scale_run]; NULL: none */
    int64_t scale_run;
} sm_tensor;

typedef enum sm_op_id {
#define OP(ID, ...) SM_OP_##ID,
#include "ops/ops.def"
#undef OP
    SM_OP_COUNT
} sm_op_id;

typedef enum sm_act { SM_ACT_NONE, SM_ACT_SILU, SM_ACT_GELU_TANH, SM_ACT_GELU_ERF, SM_ACT_QUICK_GELU, SM_ACT_RELU } sm_act;

/* Parameters of an op; which member counts is said in the op's record function (ops/ops.h). */
typedef union sm_param {
    struct { float a, b; } affine;                  /* y = a x + b */
    struct { int ta, tb; } matmul;                  /* 1: operand is stored transposed */
    struct { int stride[2], dil[2], groups;         /* [0] is y (height), [1] is x (width) */
             int pad[4];                            /* top, bottom, left, right */
             int circular[2];                       /* padding wraps around in y, x */
             int size[2];                           /* conv2d_dx: output height, width; conv2d_dw: kernel height, width */
           } conv;
    struct { int groups; float eps;
             int margin[4];                 /* group_stats: top, bottom, left, right */
           } norm;
    struct { float scale; int causal; } attn;
    struct { int axis; int64_t start, len; } slice; /* slice: [start, start+len); pad: start zeros before, len after */
    struct { int axis; } axis;
    struct { int perm[SM_MAX_DIMS]; } perm;         /* y.dims[i] = x.dims[perm[i]] */
    struct { int rank; int64_t dims[SM_MAX_DIMS]; } shape;
    struct { int kernel[2], stride[2], pad[2]; } pool;
    struct { int size[2]; } resize;                 /* output height, width */
    struct { int interleaved, inverse; } rope;
    struct { int size[2], cell[2]; int64_t merged; } tokens;
} sm_param;

typedef struct sm_graph sm_graph;

typedef struct sm_node {
    sm_graph *g;
    sm_op_id op;
    sm_dtype dtype;
    int id, rank, nsrc;
    int64_t dims[SM_MAX_DIMS];      /* unused ones are 1 */
    struct sm_node *src[SM_MAX_SRC]; /* an optional source that is absent is NULL */
    sm_param p;
    const char *name;               /* leaves: full tensor name; others: scope at recording */
    const void *data;               /* param and const leaves: their values, owned elsewhere */
    const float *scale;             /* of data, as in sm_tensor */
    int64_t scale_run;
    bool mutable_data;              /* param whose values change between runs (training): prepared anew each run */
    bool fixed;                     /* input that seldom changes, set before planning; written with sm_plan_put */
    bool mapped;                    /* data is a view of a file mapped for reading: its pages may be given back */
    struct sm_packs *packs;         /* where plans share prepared copies of it (packs.h); NULL: nowhere */
} sm_node;

struct sm_graph {
    sm_mem *mem;
    sm_arena arena;
    sm_node **nodes;                /* in recording order, which is a topological order */
    int count, cap;
    sm_node *poison;
    sm_err err;
    char scope[256];                /* tensor path, set by nn; only for messages */
};

/* ---- recording --------------------------------------------------------------------------------------------------- */

sm_graph *sm_graph_new(sm_mem *mem, sm_err *e);
void sm_graph_free(sm_graph *g);

/* Leaves. An input's values are written before each run (sm_plan_data). A param's or constant's data must outlive the
 * plan; sm_const copies it into the graph. */
sm_node *sm_input(sm_graph *g, const char *name, sm_dtype t, int rank, const int64_t *dims);
sm_node *sm_leaf_param(sm_graph *g, const char *name, sm_dtype t, int rank, const int64_t *dims,
                       const void *data, bool mutable_data);
sm_node *sm_const(sm_graph *g, sm_dtype t, int rank, const int64_t *dims, const void *data);
sm_node *sm_const_f32(sm_graph *g, float value); /* rank 1, one element: broadcasts against everything */

/* Records op; nsrc sources of which optional ones may be NULL. The op's shape rule checks sources and sets the shape. */
sm_node *sm_record(sm_graph *g, sm_op_id op, int nsrc, sm_node *const *src, const sm_param *p);

/* For shape rules and models: stores the graph's first failure, prefixed with op and scope; returns false. */
bool sm_node_fail(sm_node *n, const char *fmt, ...) SM_PRINTF(2, 3);
sm_node *sm_graph_fail(sm_graph *g, const char *fmt, ...) SM_PRINTF(2, 3); /* returns the poison node */

int64_t sm_numel(const sm_node *n);
bool sm_same_shape(const sm_node *a, const sm_node *b);
const char *sm_dims_str(const sm_node *n, char buf[96]); /* "[1, 16, 16, 8]" */
static inline bool sm_poisoned(const sm_node *n) { return n == n->g->poison; }

/* ---- autodiff (grad.c) ------------------------------------------------------------------------------------------- */

/* Appends d loss / d wrt[i] to the graph for i < n and writes the nodes to out[i] (a zero constant where loss does not
 * depend on wrt[i]). loss has one element. Only what the wanted gradients need is recorded. */
bool sm_grad(sm_node *loss, int n, sm_node *const *wrt, sm_node **out);

/* ---- the op table ------------------------------------------------------------------------------------------------ */

typedef struct sm_cost { double flops, bytes; } sm_cost;

typedef struct sm_op_row {
    const char *name;
    int min_src, max_src;
    bool (*shape)(sm_node *n);                            /* sets rank, dims, dtype; false after sm_node_fail */
    sm_node *(*grad)(sm_node *n, int i, sm_node *dy);     /* gradient for source i (NULL: none flows); NULL: op has no gradient */
    sm_cost (*cost)(const sm_node *n);
    /* Largest allowed |kernel - reference| = atol + c * eps32 * sqrt(K) * scale, K the reduction length, scale the RMS. */
    float atol, c;
    float lo, hi;                                         /* domain of random f32 inputs in checks */
} sm_op_row;

extern const sm_op_row sm_ops[SM_OP_COUNT];

/* ---- plan (plan.c) ----------------------------------------------------------------------------------------------- */

struct sm_backend; /* cpu/cpu.h */
typedef struct sm_plan sm_plan;

/* What a plan may hold besides activations. Neither changes a bit of any result. */
typedef struct sm_plan_opts {
    size_t packed;   /* constant weights stay packed from run to run if all those that gain by it fit into as many bytes; else
                        they are packed part by part whenever they are used, from the type they are stored in */
    bool drop_pages; /* pages of mapped weights are given back after each op: hardly any weights in memory at a time (what the
                        system maps beside them, 64 KB around a fault, stays) */
} sm_plan_opts;
enum { SM_PACKED_USUAL = 256 << 20 };

/* Plans the computation of outputs (nodes of one graph): dead ops dropped, memory laid out by liveness, element-wise ops
 * in place or done by the kernel before them (fuse.c). The graph must outlive the plan. NULL and e set on failure, the graph's
 * own recording error included. sm_plan_new: SM_PACKED_USUAL, pages kept. */
sm_plan *sm_plan_new(sm_graph *g, int n, sm_node *const *outputs, const struct sm_backend *be, sm_err *e);
sm_plan *sm_plan_new_with(sm_graph *g, int n, sm_node *const *outputs, const struct sm_backend *be, const sm_plan_opts *o,
                          sm_err *e);
void sm_plan_free(sm_plan *p);

/* Storage of an input (write before a run), or of an output (read after a run, until the next). NULL: not in the plan. */
void *sm_plan_data(const sm_plan *p, const sm_node *n);

/* Writes bytes of an input from byte `at` on, if it is in the plan. The way to write inputs that are fixed (sm_node): what
 * depends on these alone is computed in the first run and in the next one after bytes that differ were put; its results stay in
 * between. */
void sm_plan_put(sm_plan *p, const sm_node *input, size_t at, const void *data, size_t bytes);

/* Runs all steps. cancel (may be NULL) is read between ops; a nonzero value stops with SUMI_E_CANCELLED. */
sumi_status sm_plan_run(sm_plan *p, sm_pool *pool, const int *cancel, sm_err *e);

size_t sm_plan_activation_bytes(const sm_plan *p); /* arena for activations and workspaces */
size_t sm_plan_packed_bytes(const sm_plan *p);     /* constant weights that stay packed */
/* Pages of mapped weights that a run leaves in memory; with drop_pages those of the op that reads most. Tables of which a
 * gather reads some rows do not count. */
size_t sm_plan_mapped_bytes(const sm_plan *p);
size_t sm_plan_floor_bytes(const sm_plan *p);      /* what lives at once at most: no layout of these steps takes less */
sm_cost sm_plan_cost(const sm_plan *p);
int sm_plan_steps(const sm_plan *p);

/* While profiling is on, runs note the time of their steps. The table: by op (convolutions also by size and form, and what is
 * done beside), most time first, ms a run, of which preparing weights, processor time of all threads, rates by that time of the
 * op rows' flops (direct sums') and bytes. */
void sm_plan_profile(sm_plan *p, bool on);
void sm_plan_report(const sm_plan *p, sm_buf *b);
/* The step at which most memory is alive, and the largest of what is alive then. */
void sm_plan_memory(const sm_plan *p, sm_buf *b);

#endif
