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
typedef struct nn_init {
    uint64_t seed;
    bool shapes_only; /* tensors come into the table with their shape and one and the same byte as data: to learn what a model
                         consists of; what is recorded must not be run */
} nn_init;

/* Where group norms below a scope take their statistics from instead of their own input (pictures computed in pieces).
 * at: a node [2, groups] for the input x. */
typedef struct nn_norms { sm_node *(*at)(struct nn_norms *self, sm_node *x, int groups); } nn_norms;

/* Low-rank adapters of the linear layers below a scope (lora.c). `w` has PATH.lora_A.weight [rank, in] and PATH.lora_B.weight
 * [out, rank], PATH being the layer's; with init missing ones are made, A as PyTorch makes a layer and B zero, otherwise a layer
 * without them stays as it is. */
typedef struct nn_lora {
    sm_weights *w;
    const nn_init *init;
    const char *const *targets; /* ends of layers' paths, whole components: "to_q", "to_out.0" */
    int ntargets, rank;         /* rank: of new ones */
    float scale;                /* alpha / rank */
} nn_lora;

typedef struct nn_scope {
    sm_graph *g;
    sm_weights *w;
    const nn_init *init;
    nn_norms *norms;  /* NULL: as usual */
    const nn_lora *lora; /* NULL: none */
    bool circular[2]; /* convolutions below pad by wrapping around in y, x (seamless tiles) */
    char path[192];   /* "" at the root; no trailing dot */
} nn_scope;

nn_scope nn_root(sm_graph *g, sm_weights *w, const nn_init *init);
nn_scope nn_sub(const nn_scope *s, const char *fmt, ...) SM_PRINTF(2, 3); /* appends ".fmt" */

/* Nodes are named by the scope they are recorded in (sm_node.name), which is how a module's output is found again. Layers
 * enter path.name and come back to the path; a block that records an op of its own after a sub-scope calls nn_here first. */
void nn_here(const nn_scope *s);
void nn_enter(const nn_scope *s, const char *name);
/* For checks of configs and inputs: the graph's failure, at this scope; returns false. */
bool nn_reject(const nn_scope *s, const char *fmt, ...) SM_PRINTF(2, 3);
/* The module's output: the last op recorded at or below path. NULL when there is none. */
sm_node *nn_tap(const sm_graph *g, const char *path);

bool nn_has(const nn_scope *s, const char *name); /* tensor "path.name" exists */
/* A dim of "path.name" as stored, otherwise where it is absent: for sizes read off the checkpoint. */
int64_t nn_dim(const nn_scope *s, const char *name, int axis, int64_t otherwise);
/* Whether an optional tensor is part of this model: the table has it, or `fresh` in a model that is being made (told by
 * the absence of owner, a tensor which is always there; so ask before recording that one). */
bool nn_wants(const nn_scope *s, const char *name, const char *owner, bool fresh);

typedef enum nn_fill { NN_ZEROS, NN_ONES, NN_UNIFORM_FAN_IN, NN_NORMAL_1, NN_NORMAL_002 } nn_fill;
/* The leaf for "path.name" with exactly these dims; created with fill (fan: the fan-in of NN_UNIFORM_FAN_IN, whose
 * bound is 1/sqrt(fan)). */
sm_node *nn_param(const nn_scope *s, const char *name, nn_fill fill, int64_t fan, int rank, const int64_t *dims);
/* The same; the leaf shows only the first leaf_rank dims, the others being 1 (a 1x1 convolution seen as a linear layer). */
sm_node *nn_param_as(const nn_scope *s, const char *name, nn_fill fill, int64_t fan, int rank, const int64_t *dims,
                     int leaf_rank);
/* A constant that checkpoints carry (a position table): made with fill(x, arg), never trained, seen with leaf_dims. */
sm_node *nn_buffer(const nn_scope *s, const char *name, void (*fill)(float *x, const void *arg), const void *arg, int rank,
                   const int64_t *dims, int leaf_rank, const int64_t *leaf_dims);
#define NN_PARAM(s, name, fill, fan, ...) \
    nn_param(s, name, fill, fan, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (int64_t[]){__VA_ARGS__})

/* Layers. `bias`: whether a new one gets a bias; a loaded one has whatever the file has. */
sm_node *nn_linear(const nn_scope *s, const char *name, sm_node *x, int64_t n, bool bias);
sm_node *nn_conv(const nn_scope *s, const char *name, sm_node *x, int64_t out, int kernel, int stride, int pad, bool bias);
/* y, the result of layer `name` for x, with what its adapter adds; y where it has none. */
sm_node *nn_lora_add(const nn_scope *s, const char *name, sm_node *x, sm_node *y);
/* Starting at zero when new: the last layer of a residual branch or of a model. With bias. */
sm_node *nn_linear_zero(const nn_scope *s, const char *name, sm_node *x, int64_t n);
sm_node *nn_conv_zero(const nn_scope *s, const char *name, sm_node *x, int64_t out, int kernel, int pad);
/* Halves height and width: kernel 3, stride 2, padded by one all round, or (trailing) only at the bottom and right. */
sm_node *nn_downsample(const nn_scope *s, const char *name, sm_node *x, int64_t out, bool trailing);
sm_node *nn_group_norm(const nn_scope *s, const char *name, sm_node *x, int groups, float eps);
sm_node *nn_layer_norm(const nn_scope *s, const char *name, sm_node *x, float eps, bool affine);
sm_node *nn_rms_norm(const nn_scope *s, const char *name, sm_node *x, float eps);
/* PyTorch's nn.Embedding: ids [...] i32 -> [..., width]; new ones from fill. */
sm_node *nn_embedding(const nn_scope *s, const char *name, sm_node *ids, int64_t rows, int64_t width, nn_fill fill);

/* Multi-head attention over already projected q [N,Tq,heads*d], k and v [N,Tk,heads*d] -> [N,Tq,heads*d]. */
sm_node *nn_heads_attention(sm_node *q, sm_node *k, sm_node *v, int heads, sm_node *bias, bool causal);
/* The layer `name` on x [N,T,C], split into heads [N,T,heads,d] of a total width n. Where norm is not NULL and the model
 * has "norm.weight", each head is RMS-normalised (eps 1e-6); a new model has it if fresh_norm. */
sm_node *nn_head_proj(const nn_scope *s, const char *name, const char *norm, sm_node *x, int64_t n, int heads, bool bias,
                      bool fresh_norm);
/* diffusers' `Attention`: to_q, to_k, to_v, to_out.0; ctx NULL is self-attention. */
sm_node *nn_attention(const nn_scope *s, sm_node *x, sm_node *ctx, int heads, bool qkv_bias);
/* The same layers with the identity for a self-attention map: every token keeps its own value. */
sm_node *nn_attention_identity(const nn_scope *s, sm_node *x, bool qkv_bias);
/* How much attention each token of x gets: [N,T], the columns' sums of the self-attention map, mean over heads. */
sm_node *nn_attention_received(const nn_scope *s, sm_node *x, int heads, bool qkv_bias);
/* Token merging (token_merge.c): self-attentions of pictures of at most 1/max_downsample as many places a side as the model's
 * input let `ratio` of their tokens join others, in cells of cell x cell tokens. */
enum { NN_MERGINGS = 160 }; /* attentions of a model: XL has 70 */
typedef struct nn_merging {
    double ratio;
    int cell, max_downsample;
    sm_node *chosen[NN_MERGINGS]; /* out: for each of them an input, i32 [cells]: which token of a cell others may join */
    int count;
    int64_t left;                 /* tokens that the last one keeps */
} nn_merging;
/* The rows that tokens x [N, h w, C] get; NULL: none join here. */
sm_node *nn_merging_rows(nn_merging *m, sm_node *x, int64_t h, int64_t w, int downsample);
/* x by the last rows: merged, and parted again; x itself where rows is NULL. */
sm_node *nn_merge(const nn_merging *m, sm_node *rows, sm_node *x);
sm_node *nn_part(sm_node *rows, sm_node *x);
/* Prompt-to-Prompt: rows 0..m-1 are edited pictures, m..2m-1 what they are edited from. */
typedef struct nn_pairs {
    int64_t count;       /* m */
    sm_node *map;        /* [m,T,T]: of the source's attention to token i the share that token j of the edited text gets; NULL:
                            cross-attention is each row's own */
    sm_node *own;        /* [m,T,1]: what edited rows keep of their own attention to each token; with map */
    bool self;           /* edited rows take over the self-attention maps of up to self_tokens places */
    int64_t self_tokens;
    sm_node *words;      /* [2m,T,W], for seen */
} nn_pairs;
/* nn_attention over such rows x [2m,P,C]. seen (NULL: not wanted) gets [2m,P,W]: the attention at each place to the words'
 * tokens, by their weights, sum over heads; of the edited rows after the change. ctx is not NULL then. */
sm_node *nn_attention_pairs(const nn_scope *s, sm_node *x, sm_node *ctx, int heads, bool qkv_bias,
                            const nn_pairs *p, sm_node **seen);
/* diffusers' FeedForward with GEGLU (net.0.proj, net.2) or GELU. */
sm_node *nn_feed_forward(const nn_scope *s, sm_node *x, int mult, sm_act act, bool geglu);
/* diffusers' ResnetBlock2D: norm1, conv1, time_emb_proj (temb may be NULL), norm2, conv2, conv_shortcut. A time_emb_proj of
 * twice the width scales and shifts (its config's resnet_time_scale_shift). A new conv2 starts at zero if there is temb. */
sm_node *nn_resnet_block(const nn_scope *s, sm_node *x, sm_node *temb, int64_t out, int groups, float eps);
/* diffusers' get_timestep_embedding: t [N] -> [N, dim]. */
sm_node *nn_timestep_embedding(sm_node *t, int64_t dim, bool flip_sin_to_cos, float freq_shift, float scale, float max_period);
/* linear_1, act, linear_2 (TimestepEmbedding, PixArtAlphaTextProjection ...). */
sm_node *nn_mlp2(const nn_scope *s, sm_node *x, int64_t hidden, int64_t out, sm_act act);
sm_node *nn_act(sm_node *x, sm_act act);

#endif
