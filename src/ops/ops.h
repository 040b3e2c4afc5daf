/* Record functions of every operation: what each computes, on which shapes. All take and return nodes of one graph and
 * never fail by themselves (see graph.h: errors are sticky). `rank <= 6`; f32 unless said otherwise. */
#ifndef SM_OPS_H
#define SM_OPS_H

#include "graph/graph.h"

/* ---- linear ---- */

/* y[..., N] = x[..., K] w[N, K]^T + b[N]. w may be f32, f16 or bf16; b (f32, f16, bf16) may be NULL. */
sm_node *sm_linear(sm_node *x, sm_node *w, sm_node *b);
/* y[..., M, N] = A B, A [..., M, K] (ta: stored [..., K, M]), B [..., K, N] (tb: stored [..., N, K]).
 * Leading dimensions are equal. Gradient products over long K use it too. */
sm_node *sm_matmul(sm_node *a, sm_node *b, bool ta, bool tb);

/* ---- conv: x [N, H, W, C], w [O, C/groups, kh, kw] as in checkpoints, b [O] or NULL ---- */

typedef struct sm_conv { int stride, pad, dil, groups, pad4[4], circular[2]; bool use_pad4; } sm_conv;
/* y [N, Ho, Wo, O], Ho = (H + pads - dil*(kh-1) - 1)/stride + 1. c NULL: stride 1, no padding. */
sm_node *sm_conv2d(sm_node *x, sm_node *w, sm_node *b, const sm_conv *c);
/* The adjoint of conv2d in x, which is also the transposed convolution of a layer (PyTorch's ConvTranspose2d, weight
 * [in, out/groups, kh, kw]): dy [N, Ho, Wo, O], w [O, C/groups, kh, kw] -> [N, h, w_, C], plus b [C] or NULL. */
sm_node *sm_conv2d_dx(sm_node *dy, sm_node *w, sm_node *b, const sm_param *conv, int h, int w_);
/* The adjoint of conv2d in w: x [N,H,W,C], dy [N,Ho,Wo,O] -> [O, C/groups, kh, kw]. */
sm_node *sm_conv2d_dw(sm_node *x, sm_node *dy, const sm_param *conv, int kh, int kw);

/* ---- norm: variance is the biased one, eps added inside the root ---- */

/* x [N, ..., C], statistics over all middle dimensions and the C/groups channels of a group; w, b [C] or both NULL. */
sm_node *sm_group_norm(sm_node *x, sm_node *w, sm_node *b, int groups, float eps);
/* Statistics apart from their use, for pictures that are computed in pieces. x [N,H,W,C] without `margin` rows and columns (top,
 * bottom, left, right; NULL: none), all N together -> [2, groups]: mean and variance. No gradients. */
sm_node *sm_group_stats(sm_node *x, int groups, const int margin[4]);
/* group_norm of x [N, ..., C] by given statistics [2, groups]. */
sm_node *sm_group_norm_by(sm_node *x, sm_node *stats, sm_node *w, sm_node *b, float eps);
sm_node *sm_layer_norm(sm_node *x, sm_node *w, sm_node *b, float eps); /* over the last dimension; w, b [C] or NULL */
sm_node *sm_rms_norm(sm_node *x, sm_node *w, float eps);               /* x / sqrt(mean x^2 + eps) * w, w [C] or NULL */
/* Backward ops: _DX(x, dy, w or NULL) -> like x; _DP(x, dy) -> [2, C]: row 0 d w, row 1 d b (rms: [1, C]). */

/* ---- attention ---- */

/* q [N, Tq, H, D], k [N, Tk, H, D], v [N, Tk, H, Dv] -> [N, Tq, H, Dv]: softmax(scale q k^T + bias) v.
 * scale 0 means 1/sqrt(D). bias [N or 1, H or 1, Tq or 1, Tk], added to the scores, may be NULL; -INFINITY masks.
 * A row with every key masked gives zeros. causal: key j is seen by query i when j <= i + (Tk - Tq). */
sm_node *sm_attention(sm_node *q, sm_node *k, sm_node *v, sm_node *bias, float scale, bool causal);
/* ATTENTION_GRAD(q, k, v, dy[, bias]) -> one flat tensor [numel q + numel k + numel v]: dq, dk, dv one after the other.
 * No gradient flows to the bias. */

/* Rotary embedding. x [N, T, H, D], cos and sin [T, D/2]. interleaved: pairs (2i, 2i+1), else (i, i + D/2).
 * (a, b) -> (a cos - b sin, a sin + b cos); inverse turns the other way (the gradient). */
sm_node *sm_rope(sm_node *x, sm_node *cos, sm_node *sin, bool interleaved, bool inverse);
sm_node *sm_softmax(sm_node *x);     /* over the last dimension. SOFTMAX_DX takes (y, dy) */
sm_node *sm_log_softmax(sm_node *x); /* over the last dimension */

/* ---- elementwise ---- */

sm_node *sm_affine(sm_node *x, float a, float b); /* a x + b */
sm_node *sm_unary(sm_op_id op, sm_node *x);       /* SM_OP_SILU .. SM_OP_SQUARE, not the _DX ops */
sm_node *sm_silu(sm_node *x);
sm_node *sm_gelu_tanh(sm_node *x);
sm_node *sm_gelu_erf(sm_node *x);
sm_node *sm_quick_gelu(sm_node *x); /* x sigmoid(1.702 x) */
/* Broadcasting: shapes are aligned at the last dimension; sizes must be equal or 1. */
sm_node *sm_add(sm_node *a, sm_node *b);
sm_node *sm_sub(sm_node *a, sm_node *b);
sm_node *sm_mul(sm_node *a, sm_node *b);
sm_node *sm_div(sm_node *a, sm_node *b);

/* ---- move ---- */

sm_node *sm_reshape(sm_node *x, int rank, const int64_t *dims); /* one size may be -1; no data moves */
#define SM_RESHAPE(x, ...) sm_reshape(x, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (int64_t[]){__VA_ARGS__})
sm_node *sm_permute(sm_node *x, const int *perm);               /* y.dims[i] = x.dims[perm[i]] */
#define SM_PERMUTE(x, ...) sm_permute(x, (int[SM_MAX_DIMS]){__VA_ARGS__})
sm_node *sm_concat(int n, sm_node *const *x, int axis);         /* axis may be negative, here and below */
sm_node *sm_concat2(sm_node *a, sm_node *b, int axis);
sm_node *sm_slice(sm_node *x, int axis, int64_t start, int64_t len);
sm_node *sm_pad(sm_node *x, int axis, int64_t before, int64_t after); /* with zeros */
sm_node *sm_expand(sm_node *x, int rank, const int64_t *dims);        /* broadcast to dims */
sm_node *sm_gather(sm_node *table, sm_node *ids); /* table [V, C] f32/f16/bf16, ids [...] i32 in 0..V-1 -> [..., C] */
/* SCATTER_ADD(dy [..., C], ids [...]) -> [V, C] (p.slice.len = V), rows summed in order of ids. */
sm_node *sm_pixel_shuffle(sm_node *x, int r);   /* [N,H,W,C r r] -> [N,Hr,Wr,C], channel order as PyTorch's (composite) */
sm_node *sm_pixel_unshuffle(sm_node *x, int r); /* the inverse (composite) */
sm_node *sm_resize_nearest(sm_node *x, int h, int w);  /* [N,H,W,C]; source index floor(i * in / out) */
sm_node *sm_resize_bilinear(sm_node *x, int h, int w); /* half-pixel centres, edges clamped, no antialiasing
                                                          (align_corners=False) */
sm_node *sm_avg_pool(sm_node *x, int kernel, int stride, int pad); /* padding counts as zeros in the mean (PyTorch's default) */
sm_node *sm_max_pool(sm_node *x, int kernel, int stride, int pad);
/* Backward: _POOL_DX takes (x, dy). RESIZE_*_DX takes (dy), p.resize.size the input's size. */

/* ---- reduce ---- */

/* Sums add in a fixed order that depends on the shape alone: along the last dimension blocks of 4096, sixteen lanes in each,
 * then a tree; over rows blocks of 128 in row order, then a tree; other patterns sixteen lanes and a fold. */
sm_node *sm_sum(sm_node *x, int axis); /* the axis stays with size 1 */
sm_node *sm_sum_to(sm_node *x, int rank, const int64_t *dims); /* adjoint of broadcasting: sums to the given shape */
sm_node *sm_sum_all(sm_node *x);       /* -> [1] */
sm_node *sm_mean_all(sm_node *x);      /* -> [1] */

/* ---- token merging (Bolya and Hoffman 2023; dbolya/tomesd): no gradients ---- */

typedef struct sm_cells { int size[2], cell[2]; } sm_cells; /* tokens of a picture, height and width, and of a cell */
static inline int64_t sm_cells_count(const sm_cells *c) { return (int64_t)(c->size[0] / c->cell[0]) * (c->size[1] / c->cell[1]); }
/* x [N, T, C], T = height width. In every whole cell token chosen[cell] (i32, 0 .. of the cell's tokens in row order; others
 * count as 0) stays; each other token is matched with the one of these that is nearest in direction (the first of several), and
 * the `merged` best matches (of equal ones the first tokens') join. -> i32 [N, T]: each token's row among the T - merged that are
 * left, in order. */
sm_node *sm_token_match(sm_node *x, sm_node *chosen, const sm_cells *c, int64_t merged);
/* x [N, T, C], row [N, T] i32 -> [N, rows, C]: means of the tokens with that row, added in order; zeros where there are none. */
sm_node *sm_token_merge(sm_node *x, sm_node *row, int64_t rows);
sm_node *sm_token_part(sm_node *y, sm_node *row); /* y [N, R, C], row [N, T] i32 -> [N, T, C]: each token's row; NaN past the
                                                     last */

/* ---- losses (composites) ---- */

sm_node *sm_mse(sm_node *a, sm_node *b);                   /* mean (a-b)^2 -> [1] */
sm_node *sm_l1(sm_node *a, sm_node *b);                    /* mean |a-b| -> [1] */
sm_node *sm_huber(sm_node *a, sm_node *b, float c);        /* mean sqrt((a-b)^2 + c^2) - c -> [1] (pseudo-Huber) */

#endif
