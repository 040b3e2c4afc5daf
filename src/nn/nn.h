/* Building blocks that record. A scope is a graph, a weight table and a path: nn_linear(s, "to_q", x, n) in the scope
 * `transformer_blocks.3.attn` reads `transformer_blocks.3.attn.to_q.weight` and, where the table has one, `.bias`.
 *
 * In a table opened for creation (nn_root with init != NULL: training from scratch) a missing tensor is made and
 * initialised instead: that is the only difference between recording a model and inventing one. */
#ifndef SM_NN_H
#define SM_NN_H

#include "graph/weights.h"
#include "ops/ops.h"

/* How new tensors get values: PyTorch's defaults, drawn from a counter-based generator keyed by seed and tensor name, so
 * that the order of recording does not matter. */
typedef struct nn_init { uint64_t seed; } nn_init;

typedef struct nn_scope {
    sm_graph *g;
    sm_weights *w;
    const nn_init *init;
    char path[192]; /* "" at the root; no trailing dot */
} nn_scope;

nn_scope nn_root(sm_graph *g, sm_weights *w, const nn_init *init);
nn_scope nn_sub(const nn_scope *s, const char *fmt, ...) SM_PRINTF(2, 3); /* appends ".fmt" */

bool nn_has(const nn_scope *s, const char *name); /* tensor "path.name" exists */
/* dims of "path.name" as stored, false when absent: for sizes read off the checkpoint */
bool nn_dims(const nn_scope *s, const char *name, int *rank, int64_t dims[SM_MAX_DIMS]);

typedef enum nn_fill { NN_ZEROS, NN_ONES, NN_UNIFORM_FAN_IN, NN_NORMAL_1, NN_NORMAL_002 } nn_fill;
/* The leaf for "path.name" with exactly these dims; created with fill (fan: the fan-in of NN_UNIFORM_FAN_IN, bound 1/sqrt(fan)). */
sm_node *nn_param(const nn_scope *s, const char *name, nn_fill fill, int64_t fan, int rank, const int64_t *dims);
#define NN_PARAM(s, name, fill, fan, ...) nn_param(s, name, fill, fan, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (int64_t[]){__VA_ARGS__})

/* Layers. `bias`: whether a new one gets a bias; a loaded one has whatever the file has. */
sm_node *nn_linear(const nn_scope *s, const char *name, sm_node *x, int64_t n, bool bias);
sm_node *nn_conv(const nn_scope *s, const char *name, sm_node *x, int64_t out, int kernel, int stride, int pad, bool bias);
sm_node *nn_group_norm(const nn_scope *s, const char *name, sm_node *x, int groups, float eps);
sm_node *nn_layer_norm(const nn_scope *s, const char *name, sm_node *x, float eps, bool affine);
sm_node *nn_rms_norm(const nn_scope *s, const char *name, sm_node *x, float eps);
sm_node *nn_embedding(const nn_scope *s, const char *name, sm_node *ids, int64_t rows, int64_t width);

/* Multi-head attention over already projected q [N,Tq,heads*d], k and v [N,Tk,heads*d] -> [N,Tq,heads*d]. */
sm_node *nn_heads_attention(sm_node *q, sm_node *k, sm_node *v, int heads, sm_node *bias, bool causal);
/* diffusers' `Attention`: to_q, to_k, to_v, to_out.0; ctx NULL is self-attention. */
sm_node *nn_attention(const nn_scope *s, sm_node *x, sm_node *ctx, int heads, bool qkv_bias);
/* diffusers' FeedForward with GEGLU (net.0.proj, net.2) or GELU. */
sm_node *nn_feed_forward(const nn_scope *s, sm_node *x, int mult, sm_act act, bool geglu);
/* diffusers' ResnetBlock2D: norm1, conv1, time_emb_proj (temb may be NULL), norm2, conv2, conv_shortcut. */
sm_node *nn_resnet_block(const nn_scope *s, sm_node *x, sm_node *temb, int64_t out, int groups, float eps);
/* diffusers' get_timestep_embedding: t [N] -> [N, dim]. */
sm_node *nn_timestep_embedding(sm_node *t, int64_t dim, bool flip_sin_to_cos, float freq_shift, float scale, float max_period);
/* linear_1, act, linear_2 (TimestepEmbedding, PixArtAlphaTextProjection ...). */
sm_node *nn_mlp2(const nn_scope *s, sm_node *x, int64_t hidden, int64_t out, sm_act act);
sm_node *nn_act(sm_node *x, sm_act act);

#endif
