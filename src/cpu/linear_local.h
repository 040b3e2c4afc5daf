/* linear whose weight is packed where it is used (k_linear_local.c), chosen in k_linear.c. */
#ifndef SM_LINEAR_LOCAL_H
#define SM_LINEAR_LOCAL_H

#include "cpu/gemm.h"

bool SM_K(sm_linear_local)(const sm_node *n);
int SM_K(sm_linear_local_tasks)(const sm_node *n);
/* Floats of each task's own: a packed panel, sums that are finished later. */
int64_t SM_K(sm_linear_local_panel)(const sm_node *n);
int64_t SM_K(sm_linear_local_sums)(const sm_node *n);
/* sums: NULL with nothing to finish. */
void SM_K(sm_linear_local_run)(const sm_kcall *c, float *panel, float *sums, int task, int tasks);

#endif
