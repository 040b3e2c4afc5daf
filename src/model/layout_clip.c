/* Names of the CLIP text encoders: transformers' (SD 1.x and the first encoder of XL store these), the same without
 * "text_model." (CLIPTextModel of transformers 5.6 and later), and OpenCLIP's (SD 2.x, the second encoder of XL), whose
 * attention keeps q, k and v in one matrix and whose projection is applied from the other side. The reference of the rows is
 * diffusers' convert_open_clip_checkpoint (loaders/single_file_utils.py). */
#include "model/layout_impl.h"

#define ROW(C, S) {C, S, SM_NUM_SAME, SM_AS_IS, 0}
#define LAYER "text_model.encoder.layers.#."

static const sm_alias clip[] = {
    ROW("text_model.embeddings.token_embedding.*", "text_model.embeddings.token_embedding.*"),
    ROW("text_model.embeddings.position_embedding.*", "text_model.embeddings.position_embedding.*"),
    ROW(LAYER "*", LAYER "*"),
    ROW("text_model.final_layer_norm.*", "text_model.final_layer_norm.*"),
    ROW("text_projection.weight", "text_projection.weight"),
};
const sm_alias_table sm_aliases_clip = {clip, SM_COUNT(clip)};

static const sm_alias flat[] = {
    ROW("text_model.embeddings.token_embedding.*", "embeddings.token_embedding.*"),
    ROW("text_model.embeddings.position_embedding.*", "embeddings.position_embedding.*"),
    ROW(LAYER "*", "encoder.layers.#.*"),
    ROW("text_model.final_layer_norm.*", "final_layer_norm.*"),
};
const sm_alias_table sm_aliases_clip_flat = {flat, SM_COUNT(flat)};

#define BLOCK "transformer.resblocks.#."
#define THIRDS(C, S)                                                                                                       \
    {LAYER "self_attn.q_proj." C, BLOCK "attn.in_proj_" S, SM_NUM_SAME, SM_THIRD, 0},                                      \
    {LAYER "self_attn.k_proj." C, BLOCK "attn.in_proj_" S, SM_NUM_SAME, SM_THIRD, 1},                                      \
    {LAYER "self_attn.v_proj." C, BLOCK "attn.in_proj_" S, SM_NUM_SAME, SM_THIRD, 2}

static const sm_alias openclip[] = {
    ROW("text_model.embeddings.token_embedding.weight", "token_embedding.weight"),
    ROW("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    THIRDS("weight", "weight"),
    THIRDS("bias", "bias"),
    ROW(LAYER "self_attn.out_proj.*", BLOCK "attn.out_proj.*"),
    ROW(LAYER "layer_norm1.*", BLOCK "ln_1.*"),
    ROW(LAYER "layer_norm2.*", BLOCK "ln_2.*"),
    ROW(LAYER "mlp.fc1.*", BLOCK "mlp.c_fc.*"),
    ROW(LAYER "mlp.fc2.*", BLOCK "mlp.c_proj.*"),
    ROW("text_model.final_layer_norm.*", "ln_final.*"),
    {"text_projection.weight", "text_projection", SM_NUM_SAME, SM_TRANSPOSED, 0},
};
const sm_alias_table sm_aliases_openclip = {openclip, SM_COUNT(openclip)};
