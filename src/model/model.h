/* Models: each is a record function over a scope and a config in the field names of its config.json (diffusers,
 * transformers). Pictures and latents are [N,H,W,C]. The same function loads (scope without init) and invents (with init).
 * Every size in a config is checked against the tensors while recording; whether optional layers exist, the tensors say. */
#ifndef SM_MODEL_H
#define SM_MODEL_H

#include "nn/nn.h"

enum { SM_BLOCKS = 8, SM_LAYERS = 64, SM_UNET_LAYERS = 16 }; /* the last: resnets of a down block; an up block has one more */

/* ---- CLIP text encoder (clip.c) ---------------------------------------------------------------------------------- */

typedef struct sm_clip_config {
    int vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, max_position_embeddings;
    int projection_dim;  /* 0: no text_projection */
    int eos_token_id;    /* 2: the highest id marks the end (an old mistake of the published configs) */
    sm_act hidden_act;
    float layer_norm_eps;
} sm_clip_config;

typedef struct sm_clip_out {
    sm_node *hidden[SM_LAYERS + 1]; /* [N,T,C]: 0 the embeddings, i the output of layer i */
    int layers;
    sm_node *last;                  /* final_layer_norm of the last */
    sm_node *pooled;                /* [N,C]: last at the end of text; NULL without eos */
    sm_node *projected;             /* [N,projection_dim]: text_projection of pooled; NULL where the model has none */
} sm_clip_out;

/* ids [N,T] i32. eos [N] i32: for each text the row n*T + position of its end mark, from sm_clip_eos_rows; or NULL. */
sm_clip_out sm_clip_text(const nn_scope *s, const sm_clip_config *c, sm_node *ids, sm_node *eos);
/* The same; mask [N,1,1,T], added to the attention's scores (-INFINITY: the token is not seen), may be NULL. */
sm_clip_out sm_clip_text_masked(const nn_scope *s, const sm_clip_config *c, sm_node *ids, sm_node *eos, sm_node *mask);
void sm_clip_eos_rows(const sm_clip_config *c, const int32_t *ids, int n, int t, int32_t *rows);
/* final_layer_norm of any hidden state (clip skip). */
sm_node *sm_clip_final_norm(const nn_scope *s, const sm_clip_config *c, sm_node *hidden);

/* ---- UNet2DConditionModel (unet.c) ------------------------------------------------------------------------------- */

typedef enum sm_unet_mid { SM_MID_NONE, SM_MID_PLAIN, SM_MID_CROSS } sm_unet_mid;

typedef struct sm_unet_config {
    int in_channels, out_channels;
    int blocks;                               /* entries used of the arrays, down blocks first to last */
    int block_out_channels[SM_BLOCKS];
    int layers_per_block[SM_BLOCKS];
    int transformer_layers_per_block[SM_BLOCKS]; /* of each attention of a level, down and up; the deepest level's also of
                                                 the middle */
    /* Where attentions of one block differ (SSD-1B: nested lists in config.json), one number each; a row that starts with 0
     * is not used. up_depth: reverse_transformer_layers_per_block, first up block first. */
    int down_depth[SM_BLOCKS][SM_UNET_LAYERS + 1], up_depth[SM_BLOCKS][SM_UNET_LAYERS + 1];
    int attention_head_dim[SM_BLOCKS];        /* as named by mistake: the number of heads */
    bool down_attention[SM_BLOCKS];           /* down_block_types: CrossAttnDownBlock2D */
    bool up_attention[SM_BLOCKS];             /* up_block_types, first up block (the deepest) first */
    sm_unet_mid mid_block;                    /* mid_block_type: null, UNetMidBlock2D, UNetMidBlock2DCrossAttn */
    int cross_attention_dim;
    int norm_num_groups;
    float norm_eps;
    bool use_linear_projection, flip_sin_to_cos, center_input_sample;
    float freq_shift;
    int text_time;                            /* 1: addition_embed_type is text_time (SDXL) */
    int addition_time_embed_dim;
    int projection_class_embeddings_input_dim;
    int num_class_embeds;                     /* 0: no class_embedding */
    int time_cond_proj_dim;                   /* 0: no time_embedding.cond_proj (LCM has one) */
    int time_ids;                             /* with text_time, how many; in no config.json: 0 until the text encoder is
                                                 known (sm_denoiser_settle), see sm_unet_time_ids */
} sm_unet_config;

/* Conditions beyond the text; members that the config does not ask for are NULL. */
typedef struct sm_unet_cond {
    sm_node *text_embeds; /* [N,P], text_time */
    sm_node *time_ids;    /* [N,6] f32: original height, width, crop top, left, target height, width; or the refiner's
                             [N,5]: original height, width, crop top, left, aesthetic score */
    sm_node *labels;      /* [N] i32, num_class_embeds */
    struct sm_unet_tweaks *tweaks; /* NULL: none */
    sm_node *timestep_cond; /* [N,time_cond_proj_dim]; may be NULL, which adds nothing */
} sm_unet_cond;

/* What guidance changes inside a UNet while it draws. */
typedef enum sm_freeu {
    SM_FREEU_NONE,
    SM_FREEU_1,         /* Si et al. 2023 and ComfyUI: features four and two times as wide as the first block's are strengthened
                           by b[0] and b[1], the skip connections that meet them lose their lowest frequencies, by s[0] and s[1]
                           */
    SM_FREEU_2,         /* the same, strengthened where the features' mean is high */
    SM_FREEU_DIFFUSERS  /* as 1, but in the first and the second up block (diffusers' enable_freeu) */
} sm_freeu;

typedef struct sm_unet_tweaks {
    /* PAG: whether the self-attention at this path (of the graph's root) keeps each token's own value; NULL: none does. */
    bool (*identity)(void *arg, const char *path);
    void *arg;
    sm_freeu freeu;
    float b[2], s[2];
    bool map;           /* SAG: received is recorded */
    sm_node *received;  /* out: [N,h,w], the attention that each place of the middle gets (nn_attention_received) */
    const nn_pairs *pairs; /* Prompt-to-Prompt: rows are pairs; NULL: they are not */
    int seen_level;     /* with pairs->words: the attentions on the way down and up at this level are looked at */
    nn_merging *merging; /* token merging; NULL: none */
    sm_node *seen;      /* out: [2m,P,W], sum of what nn_attention_pairs sees there; NULL: there are none */
    /* DeepCache: the UNet is cut where skip connection `branch`, counted from conv_in's, 0, comes in on the way up. */
    bool cut;
    int branch;
    sm_node *deep;      /* out: what comes from below there, [N,h,w,c] */
    sm_node *deep_in;   /* given, with cut: taken instead, and nothing below is recorded */
} sm_unet_tweaks;

/* Strengthens x, the features of up block i, and filters the skip connection that will be put beside them (unet_freeu.c). */
void sm_unet_freeu(const sm_unet_tweaks *t, int base, int block, sm_node **x, sm_node **skip);

/* Transformer layers of attention `layer` of a level's down or up block. */
int sm_unet_depth(const sm_unet_config *c, bool up, int level, int layer);
/* What an LCM takes as timestep_cond for a guidance scale: out [dim], time_cond_proj_dim. Guidance is then part of the model. */
void sm_unet_guidance(float scale, int dim, float *out);
/* How many time ids the model takes: 0, 6, or 5 for the XL refiner. Where they are not settled, the refiner is known by its one
 * text encoder: context and pooled text have one width, which with five ids fills projection_class_embeddings_input_dim. */
int sm_unet_time_ids(const sm_unet_config *c);

/* How many skip connections there are. */
int sm_unet_skips(const sm_unet_config *c);
/* What tells how much a step changes (TeaCache's timestep-modulated input, here of a UNet's first resnet): its first convolution
 * with the timestep added, [N,H,W,C]. Arguments as of sm_unet. */
sm_node *sm_unet_modulated(const nn_scope *s, const sm_unet_config *c, sm_node *sample, sm_node *timestep,
                           const sm_unet_cond *cond);

/* sample [N,H,W,in], timestep [N] f32, ctx [N,T,cross_attention_dim] -> [N,H,W,out]. cond may be NULL. */
sm_node *sm_unet(const nn_scope *s, const sm_unet_config *c, sm_node *sample, sm_node *timestep, sm_node *ctx,
                 const sm_unet_cond *cond);

/* ---- AutoencoderKL (vae.c) --------------------------------------------------------------------------------------- */

typedef struct sm_vae_config {
    int in_channels, out_channels, latent_channels;
    int blocks;
    int block_out_channels[SM_BLOCKS];
    int layers_per_block;
    int norm_num_groups;
    float scaling_factor, shift_factor; /* the denoiser's latent is (z - shift) * scaling */
    bool use_quant_conv, use_post_quant_conv, mid_block_add_attention;
} sm_vae_config;

static inline int sm_vae_factor(const sm_vae_config *c) { return 1 << (c->blocks - 1); } /* pixels per latent, one axis */

/* image [N,H,W,in] in -1..1 -> moments [N,h,w,2*latent]: mean, then log variance. */
sm_node *sm_vae_encode(const nn_scope *s, const sm_vae_config *c, sm_node *image);
/* z [N,h,w,latent] -> image [N,H,W,out], about -1..1. */
sm_node *sm_vae_decode(const nn_scope *s, const sm_vae_config *c, sm_node *z);
/* The same in two halves: decode is high of low, encode low of high. low is what looks at the whole picture (attention) and
 * works at about the latents' size, [N,h,w,block_out_channels' last] lies between; high sees `reach` latent pixels far. */
sm_node *sm_vae_decode_low(const nn_scope *s, const sm_vae_config *c, sm_node *z);
sm_node *sm_vae_decode_high(const nn_scope *s, const sm_vae_config *c, sm_node *x);
sm_node *sm_vae_encode_high(const nn_scope *s, const sm_vae_config *c, sm_node *image);
sm_node *sm_vae_encode_low(const nn_scope *s, const sm_vae_config *c, sm_node *x);
int sm_vae_reach(const sm_vae_config *c, bool encode);

/* ---- SD3Transformer2DModel (mmdit.c) ----------------------------------------------------------------------------- */

typedef struct sm_mmdit_config {
    int sample_size;            /* only sets the scale of a new position table */
    int patch_size, in_channels, out_channels;
    int num_layers, attention_head_dim, num_attention_heads;
    int joint_attention_dim, caption_projection_dim, pooled_projection_dim;
    int pos_embed_max_size;
    bool dual_attention[SM_LAYERS]; /* dual_attention_layers (SD 3.5 medium) */
    int qk_norm;                /* 1: rms_norm of q and k */
} sm_mmdit_config;

/* sample [N,H,W,in], timestep [N] (0..1000), ctx [N,T,joint_attention_dim], pooled [N,pooled_projection_dim] -> [N,H,W,out]. */
sm_node *sm_mmdit(const nn_scope *s, const sm_mmdit_config *c, sm_node *sample, sm_node *timestep, sm_node *ctx, sm_node *pooled);
/* TeaCache's timestep-modulated input: what the first block's attention sees of the picture, [N,h*w,dim]. */
sm_node *sm_mmdit_modulated(const nn_scope *s, const sm_mmdit_config *c, sm_node *sample, sm_node *timestep, sm_node *pooled);

/* ---- config.json (config.c) -------------------------------------------------------------------------------------- */

typedef enum sm_model_kind { SM_MODEL_CLIP, SM_MODEL_UNET, SM_MODEL_VAE, SM_MODEL_MMDIT, SM_MODEL_KINDS } sm_model_kind;

/* Reads a config.json of n bytes into the config struct of that kind; keys that are absent get the defaults of diffusers or
 * transformers. SUMI_E_FORMAT: not JSON, or a value of the wrong type; SUMI_E_SUPPORT: a variant that sumi lacks. */
sumi_status sm_config_read(sm_model_kind kind, const char *json, size_t n, void *config, sm_err *e);
/* Appends the config.json that diffusers or transformers would read as the same model. */
void sm_config_write(sm_model_kind kind, const void *config, sm_buf *out);

#endif
