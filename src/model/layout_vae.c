/* Names of the autoencoder: CompVis' model.py and diffusers' AutoencoderKL, as diffusers' convert_ldm_vae_checkpoint
 * (loaders/single_file_utils.py) relates them. The decoder's blocks are numbered from the other end; attention in the
 * middle has 1x1 convolutions there and linear layers here, which are the same bytes. */
#include "model/layout_impl.h"

#define ROW(C, S, NUM) {C, S, NUM, SM_AS_IS, 0}
#define SAME(C) ROW(C, C, SM_NUM_SAME)
#define RESNET(C, S, NUM)                                                                                                  \
    ROW(C ".norm1.*", S ".norm1.*", NUM), ROW(C ".conv1.*", S ".conv1.*", NUM), ROW(C ".norm2.*", S ".norm2.*", NUM),      \
    ROW(C ".conv2.*", S ".conv2.*", NUM), ROW(C ".conv_shortcut.*", S ".nin_shortcut.*", NUM)
#define LINEAR(C, S) {C, S, SM_NUM_SAME, SM_LINEAR, 0}
#define MIDDLE(HALF)                                                                                                       \
    RESNET(HALF ".mid_block.resnets.0", HALF ".mid.block_1", SM_NUM_SAME),                                                 \
    RESNET(HALF ".mid_block.resnets.1", HALF ".mid.block_2", SM_NUM_SAME),                                                 \
    ROW(HALF ".mid_block.attentions.0.group_norm.*", HALF ".mid.attn_1.norm.*", SM_NUM_SAME),                              \
    LINEAR(HALF ".mid_block.attentions.0.to_q.*", HALF ".mid.attn_1.q.*"),                                                 \
    LINEAR(HALF ".mid_block.attentions.0.to_k.*", HALF ".mid.attn_1.k.*"),                                                 \
    LINEAR(HALF ".mid_block.attentions.0.to_v.*", HALF ".mid.attn_1.v.*"),                                                 \
    LINEAR(HALF ".mid_block.attentions.0.to_out.0.*", HALF ".mid.attn_1.proj_out.*")
#define ENDS(HALF)                                                                                                         \
    SAME(HALF ".conv_in.*"), ROW(HALF ".conv_norm_out.*", HALF ".norm_out.*", SM_NUM_SAME), SAME(HALF ".conv_out.*")

static const sm_alias rows[] = {
    ENDS("encoder"),
    RESNET("encoder.down_blocks.#.resnets.#", "encoder.down.#.block.#", SM_NUM_SAME),
    ROW("encoder.down_blocks.#.downsamplers.0.conv.*", "encoder.down.#.downsample.conv.*", SM_NUM_SAME),
    MIDDLE("encoder"),
    SAME("quant_conv.*"),
    SAME("post_quant_conv.*"),
    ENDS("decoder"),
    MIDDLE("decoder"),
    RESNET("decoder.up_blocks.#.resnets.#", "decoder.up.#.block.#", SM_NUM_REVERSE),
    ROW("decoder.up_blocks.#.upsamplers.0.conv.*", "decoder.up.#.upsample.conv.*", SM_NUM_REVERSE),
};
const sm_alias_table sm_aliases_vae = {rows, SM_COUNT(rows)};

/* diffusers before 0.15 called the layers of attention otherwise; its files are still about. */
#define OLD(HALF)                                                                                                          \
    LINEAR(HALF ".mid_block.attentions.0.to_q.*", HALF ".mid_block.attentions.0.query.*"),                                 \
    LINEAR(HALF ".mid_block.attentions.0.to_k.*", HALF ".mid_block.attentions.0.key.*"),                                   \
    LINEAR(HALF ".mid_block.attentions.0.to_v.*", HALF ".mid_block.attentions.0.value.*"),                                 \
    LINEAR(HALF ".mid_block.attentions.0.to_out.0.*", HALF ".mid_block.attentions.0.proj_attn.*")
static const sm_alias old_rows[] = {OLD("encoder"), OLD("decoder")};
const sm_alias_table sm_aliases_vae_old = {old_rows, SM_COUNT(old_rows)};

void sm_shape_note_vae(sm_shape *s, const char *name)
{
    sm_match m;
    if ((sm_pattern_match("decoder.up_blocks.#.*", name, &m) || sm_pattern_match("decoder.up.#.*", name, &m)) &&
        m.num[0] < SM_BLOCKS)
        s->vae_ups = SM_MAX(s->vae_ups, m.num[0] + 1);
}

void sm_shape_relate_vae(sm_shape *s)
{
    sm_relation *r = &s->relation[SM_NUM_REVERSE];
    r->nc = r->ns = 1;
    r->count = s->vae_ups;
    for (int b = 0; b < s->vae_ups; b++) {
        r->pair[b].c[0] = b;
        r->pair[b].s = s->vae_ups - 1 - b;
    }
}
