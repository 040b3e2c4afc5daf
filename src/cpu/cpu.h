/* The CPU backend: one kernel per op and instruction set.
 *
 * A kernel computes its share of one op's result. It never allocates, locks, logs or keeps state. How many tasks an op is
 * cut into depends on its shapes alone, and each result element is computed in one order whatever the cut, so the bits
 * do not depend on threads or on batch composition. Kernels written against cpu/simd.h give the same bits on every
 * instruction set with FMA: reductions run in sixteen lanes whatever the vector width (see simd.h). */
#ifndef SM_CPU_H
#define SM_CPU_H

#include "graph/graph.h"

/* What a kernel does to its results beside, instead of operations of their own that would follow: bits are those of the
 * operations. */
typedef struct sm_finish {
    sm_op_id act;               /* an activation; SM_OP_INPUT: none */
    bool gate;                  /* linear: of each row the left half times act(right half) is the result */
    int64_t add_rows;           /* rows of the result that a row of `add` is added to, after the activation; 1: add is like the
                                   result, 0: none */
    const float *add;           /* may be the same memory as the result */
    int doubled;                /* source 0 is a picture of half the height and width: every pixel of it counts for four */
} sm_finish;

/* Everything a kernel sees. Sources that are absent have data NULL. */
typedef struct sm_kcall {
    const sm_node *node;        /* parameters and shapes; node->p, node->rank */
    int nsrc;
    sm_tensor src[SM_MAX_SRC];
    sm_tensor dst;
    sm_finish finish;           /* only what the kernel fuses */
    void *work;                 /* shared by all tasks and passes of this op, sm_kernel.work bytes, 64-byte aligned */
    const void *prep;           /* prepared weight, see sm_kernel.prep */
    int64_t part[2];            /* units [part[0], part[1]) of the weight are prepared and their results wanted; part[1] 0: all */
    int pass;
} sm_kcall;

typedef struct sm_kernel {
    void (*run)(const sm_kcall *c, int task, int tasks); /* NULL: this backend lacks the op */
    int passes;                                          /* 0 means 1; all tasks of a pass end before the next begins */
    int (*tasks)(const sm_node *n, int pass);            /* NULL: sm_tasks_default; depends on the node's shapes only */
    size_t (*work)(const sm_node *n);                    /* NULL: none */
    /* Optional transformed copy of the weight (source 1): made once by the planner where that pays (see sm_plan_opts), else
     * before each run of the op, then in a buffer that lives only that long. Where the copy is cut into units (columns of
     * the result that need nothing of the rest), a large one is made and used part by part. prep writes to out, and what it
     * writes depends on the op, the weight, a convolution's parameters, prep_bytes, prep_unit and how alone: plans of other
     * shapes share it. */
    size_t (*prep_bytes)(const sm_node *n);              /* 0: not wanted for this node */
    size_t (*prep_unit)(const sm_node *n);               /* bytes of a unit, the last may have fewer; NULL or 0: one unit */
    void (*prep)(const sm_kcall *c, void *out, int task, int tasks);
    int (*prep_tasks)(const sm_node *n);                 /* NULL: 1 */
    bool (*unprepared)(const sm_node *n);                /* a weight that does not stay prepared is not prepared at all, run is
                                                            given prep NULL; NULL: never */
    const char *(*how)(const sm_node *n);                /* which of several ways a node takes, for tables; may be NULL or give
                                                            it */
    bool (*fuses)(const sm_node *n, const sm_finish *f); /* whether the kernel does that too; may be NULL. f->add is not known
                                                            yet */
    size_t (*finish_work)(const sm_node *n);             /* bytes of work memory more with an f that asks for act, gate or add */
    bool inplace;                                        /* dst may be the same memory as any source of dst's size */
} sm_kernel;

typedef struct sm_backend {
    const char *name;                                    /* "scalar", "avx2", "avx512", "neon" */
    sm_kernel k[SM_OP_COUNT];
} sm_backend;

/* The best backend for this CPU, or the one that mask names (NULL: the environment's SUMI_CPU; "" or "auto": best). "exact" or a
 * name with "-exact" ("avx2-exact"): convolutions as direct sums, without minimal filtering (k_winograd.c). NULL and e set when
 * the name is unknown or the CPU lacks it. */
const sm_backend *sm_cpu_backend(const char *mask, sm_err *e);
/* be with the large products on operands that are rounded to bfloat16 (bf16.h), the rest as it is; NULL and e set where be is
 * none of AVX-512's or the CPU lacks AVX512_BF16. */
const sm_backend *sm_cpu_bf16(const sm_backend *be, sm_err *e);
/* All backends this CPU can run, scalar first; returns their number. */
int sm_cpu_backends(const sm_backend *out[4]);

/* About one task per 16k output elements, at most 64. */
int sm_tasks_default(const sm_node *n, int pass);

/* Each family file defines one of these per instruction set: it overwrites the rows it has better kernels for.
 * SM_ISA is avx2, avx512 or neon (set by the compiler command line); scalar families are ref_*.c. */
#define SM_FAMILIES(X) X(linear) X(conv) X(norm) X(attention) X(elementwise) X(move) X(reduce) X(merge)
#define SM_DECL_FAMILY(f) void sm_cpu_##f##_scalar(sm_kernel *k); void sm_cpu_##f##_avx2(sm_kernel *k); \
    void sm_cpu_##f##_avx512(sm_kernel *k); void sm_cpu_##f##_neon(sm_kernel *k);
SM_FAMILIES(SM_DECL_FAMILY)
SM_DECL_FAMILY(conv_direct) /* convolutions as direct sums only, over the rows of conv */
void sm_cpu_bf16_rows(sm_kernel *k); /* over AVX-512's (k_bf16_linear.c) */

/* Storage types as f32, scalar. */
float sm_f16_f32(uint16_t h);
uint16_t sm_f32_f16(float f);  /* round to nearest even */
float sm_bf16_f32(uint16_t h);
uint16_t sm_f32_bf16(float f);
/* Element i of a tensor of any float dtype as f32. */
float sm_load_f32(const sm_tensor *t, int64_t i);
/* Elements [at, at + n) of a tensor of any type as f32, its scale applied (stored.c); a run that begins or ends within a block
 * costs that whole block. Weights of other types than f32, f16 and bf16 are read through this alone. */
void sm_load_values(const sm_tensor *t, int64_t at, int64_t n, float *out);
/* n values, whole blocks, from src of any alignment. Infinities and NaN that a block's scale holds come out as the
 * multiplication gives them. */
void sm_load_blocks(sm_dtype t, const void *src, int64_t n, float *out);

#endif
