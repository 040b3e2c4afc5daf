/* Convolutions by minimal filtering (k_winograd.c), chosen in k_conv.c. */
#ifndef SM_WINOGRAD_H
#define SM_WINOGRAD_H

#include "cpu/gemm.h"

/* Whether a recorded conv2d or conv2d_dx goes this way: by the shapes of one picture. */
bool SM_K(sm_winograd_fits)(const sm_node *n);
/* Members of sm_kernel for such nodes. */
int SM_K(sm_winograd_tasks)(const sm_node *n);
size_t SM_K(sm_winograd_work)(const sm_node *n);
size_t SM_K(sm_winograd_prep_bytes)(const sm_node *n);
size_t SM_K(sm_winograd_prep_unit)(const sm_node *n);
int SM_K(sm_winograd_prep_tasks)(const sm_node *n);
void SM_K(sm_winograd_prep)(const sm_kcall *c, void *out, int task, int tasks);
void SM_K(sm_winograd_run)(const sm_kcall *c, int task, int tasks);

#endif
