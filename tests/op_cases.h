/* Small cases of every operation: the kernel checks, the gradient checks, the determinism checks and the bench walk over
 * this one table. A non-leaf row of ops.def without a case fails the suite (t_kernels.c). */
#ifndef OP_CASES_H
#define OP_CASES_H

#include "cpu/cpu.h"
#include "graph/graph.h"

/* How a source is filled. Uniform: in the op row's domain. Mask: a third of the values is -infinity, every fifth row of
 * the last dimension wholly. Grid: distinct, far apart and away from 0 (ops with kinks). Ids: below the table's rows. */
typedef enum case_fill { FILL_UNIFORM, FILL_MASK, FILL_GRID, FILL_IDS } case_fill;

typedef struct case_src {
    bool used;
    int rank;
    int64_t dims[SM_MAX_DIMS];
    sm_dtype dtype;
    case_fill fill;
} case_src;

typedef struct op_case {
    sm_op_id op;
    case_src src[SM_MAX_SRC];
    sm_param p;
    unsigned batch; /* bit i: dimension 0 of source i (and of the result) is the batch; 0: no batch */
    bool bench;     /* a size for timing: too large for the checks */
} op_case;

extern const op_case op_cases[];
extern const int op_case_count;

/* Records the case with inputs as sources (src[i] is NULL where the case has none); batch > 0 replaces the batch size. */
sm_node *case_record(const op_case *c, sm_graph *g, int64_t batch, sm_node *src[SM_MAX_SRC]);
/* Values of source i for n elements: same case, same source, same seed, same values. */
void case_values(const op_case *c, int i, uint64_t seed, const sm_node *src, void *out);
/* How many products or terms are added up for one result element. */
double case_terms(const sm_node *n);
/* "conv2d [2, 5, 7, 3] [4, 3, 3, 3]" in a static buffer, good until the next call. */
const char *case_name(const op_case *c);

#endif
