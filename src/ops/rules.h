/* Shared by the op families: declarations of every shape, gradient and cost rule named in ops.def, small helpers. */
#ifndef SM_RULES_H
#define SM_RULES_H

#include "ops/ops.h"

#define grad_none NULL
bool shape_leaf(sm_node *n);
bool shape_same(sm_node *n);
bool shape_same2(sm_node *n);
bool shape_broadcast(sm_node *n);
bool shape_linear(sm_node *n);
bool shape_matmul(sm_node *n);
bool shape_conv2d(sm_node *n);
bool shape_conv2d_dx(sm_node *n);
bool shape_conv2d_dw(sm_node *n);
bool shape_group_norm(sm_node *n);
bool shape_group_norm_dx(sm_node *n);
bool shape_group_norm_dp(sm_node *n);
bool shape_group_stats(sm_node *n);
bool shape_group_norm_by(sm_node *n);
bool shape_layer_norm(sm_node *n);
bool shape_layer_norm_dx(sm_node *n);
bool shape_layer_norm_dp(sm_node *n);
bool shape_rms_norm(sm_node *n);
bool shape_rms_norm_dx(sm_node *n);
bool shape_rms_norm_dp(sm_node *n);
bool shape_attention(sm_node *n);
bool shape_attention_grad(sm_node *n);
bool shape_rope(sm_node *n);
bool shape_reshape(sm_node *n);
bool shape_permute(sm_node *n);
bool shape_concat(sm_node *n);
bool shape_slice(sm_node *n);
bool shape_pad(sm_node *n);
bool shape_expand(sm_node *n);
bool shape_gather(sm_node *n);
bool shape_scatter_add(sm_node *n);
bool shape_resize(sm_node *n);
bool shape_pool(sm_node *n);
bool shape_pool_dx(sm_node *n);
bool shape_sum(sm_node *n);
bool shape_sum_to(sm_node *n);
bool shape_token_match(sm_node *n);
bool shape_token_merge(sm_node *n);
bool shape_token_part(sm_node *n);

sm_node *grad_linear(sm_node *n, int i, sm_node *dy);
sm_node *grad_matmul(sm_node *n, int i, sm_node *dy);
sm_node *grad_conv2d(sm_node *n, int i, sm_node *dy);
sm_node *grad_conv2d_dx(sm_node *n, int i, sm_node *dy);
sm_node *grad_group_norm(sm_node *n, int i, sm_node *dy);
sm_node *grad_layer_norm(sm_node *n, int i, sm_node *dy);
sm_node *grad_rms_norm(sm_node *n, int i, sm_node *dy);
sm_node *grad_attention(sm_node *n, int i, sm_node *dy);
sm_node *grad_rope(sm_node *n, int i, sm_node *dy);
sm_node *grad_softmax(sm_node *n, int i, sm_node *dy);
sm_node *grad_log_softmax(sm_node *n, int i, sm_node *dy);
sm_node *grad_affine(sm_node *n, int i, sm_node *dy);
sm_node *grad_unary(sm_node *n, int i, sm_node *dy);
sm_node *grad_add(sm_node *n, int i, sm_node *dy);
sm_node *grad_sub(sm_node *n, int i, sm_node *dy);
sm_node *grad_mul(sm_node *n, int i, sm_node *dy);
sm_node *grad_div(sm_node *n, int i, sm_node *dy);
sm_node *grad_reshape(sm_node *n, int i, sm_node *dy);
sm_node *grad_permute(sm_node *n, int i, sm_node *dy);
sm_node *grad_concat(sm_node *n, int i, sm_node *dy);
sm_node *grad_slice(sm_node *n, int i, sm_node *dy);
sm_node *grad_pad(sm_node *n, int i, sm_node *dy);
sm_node *grad_expand(sm_node *n, int i, sm_node *dy);
sm_node *grad_gather(sm_node *n, int i, sm_node *dy);
sm_node *grad_resize_nearest(sm_node *n, int i, sm_node *dy);
sm_node *grad_resize_bilinear(sm_node *n, int i, sm_node *dy);
sm_node *grad_avg_pool(sm_node *n, int i, sm_node *dy);
sm_node *grad_max_pool(sm_node *n, int i, sm_node *dy);
sm_node *grad_sum(sm_node *n, int i, sm_node *dy);
sm_node *grad_sum_to(sm_node *n, int i, sm_node *dy);

sm_cost cost_zero(const sm_node *n);
sm_cost cost_elementwise(const sm_node *n);
sm_cost cost_move(const sm_node *n);
sm_cost cost_reduce(const sm_node *n);
sm_cost cost_token_match(const sm_node *n);
sm_cost cost_norm(const sm_node *n);
sm_cost cost_linear(const sm_node *n);
sm_cost cost_matmul(const sm_node *n);
sm_cost cost_conv2d(const sm_node *n);
sm_cost cost_conv2d_dx(const sm_node *n);
sm_cost cost_conv2d_dw(const sm_node *n);
sm_cost cost_attention(const sm_node *n);
sm_cost cost_attention_grad(const sm_node *n);

/* Copies rank and dims. */
void sm_take_shape(sm_node *n, const sm_node *from);
/* Bytes read and written by the op. */
double sm_io_bytes(const sm_node *n);
/* Every source that is present is f32, or a storage type if `weights` names it (bit i = source i); else a failure. */
bool sm_want_f32(sm_node *n, unsigned weights);
bool sm_want_rank(sm_node *n, int i, int rank);
/* Source i is absent or [len]. */
bool sm_want_vector(sm_node *n, int i, int64_t len);
/* axis in -rank..rank-1 made non-negative; -1 after a failure. */
int sm_want_axis(sm_node *n, int axis, int rank);

static inline sm_node *sm_rec(sm_op_id op, int nsrc, sm_node *const *src, const sm_param *p)
{
    return sm_record(src[0]->g, op, nsrc, src, p);
}
#define SM_REC(op, p, ...) \
    sm_rec(op, (int)(sizeof((sm_node *[]){__VA_ARGS__}) / sizeof(sm_node *)), (sm_node *[]){__VA_ARGS__}, p)

#endif
