/* linear of few rows (k_linear_few.c), chosen in k_linear.c. */
#ifndef SM_LINEAR_FEW_H
#define SM_LINEAR_FEW_H

#include "cpu/gemm.h"

/* Rows up to which a weight is read as it is stored, whether or not it might be kept packed. */
enum { SM_FEW_ROWS = 8 };

bool SM_K(sm_linear_few)(const sm_node *n);
int SM_K(sm_linear_few_tasks)(const sm_node *n);
void SM_K(sm_linear_few_run)(const sm_kcall *c, int task, int tasks);

#endif
