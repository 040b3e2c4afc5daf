/* Names of the UNet: CompVis' and Stability's openaimodel.py numbers everything on the way down and up in one row
 * (input_blocks.N, output_blocks.N), diffusers by block and layer. Which place is which block follows from the places of the
 * down- and upsamplers, so any number of blocks and of layers per block is told apart. The reference of the rows is diffusers'
 * convert_ldm_unet_checkpoint (loaders/single_file_utils.py). */
#include "model/layout_impl.h"

#define RESNET(C, S, NUM)                                                                                                  \
    {C ".norm1.*", S ".in_layers.0.*", NUM, SM_AS_IS, 0}, {C ".conv1.*", S ".in_layers.2.*", NUM, SM_AS_IS, 0},            \
    {C ".time_emb_proj.*", S ".emb_layers.1.*", NUM, SM_AS_IS, 0}, {C ".norm2.*", S ".out_layers.0.*", NUM, SM_AS_IS, 0},  \
    {C ".conv2.*", S ".out_layers.3.*", NUM, SM_AS_IS, 0}, {C ".conv_shortcut.*", S ".skip_connection.*", NUM, SM_AS_IS, 0}
#define SPATIAL(C, S, NUM)                                                                                                 \
    {C ".norm.*", S ".norm.*", NUM, SM_AS_IS, 0}, {C ".proj_in.*", S ".proj_in.*", NUM, SM_AS_IS, 0},                      \
    {C ".transformer_blocks.#.*", S ".transformer_blocks.#.*", NUM, SM_AS_IS, 0},                                          \
    {C ".proj_out.*", S ".proj_out.*", NUM, SM_AS_IS, 0}
#define ROW(C, S, NUM) {C, S, NUM, SM_AS_IS, 0}

static const sm_alias rows[] = {
    ROW("time_embedding.linear_1.*", "time_embed.0.*", SM_NUM_SAME),
    ROW("time_embedding.linear_2.*", "time_embed.2.*", SM_NUM_SAME),
    ROW("time_embedding.cond_proj.*", "time_embed.cond_proj.*", SM_NUM_SAME), /* latent consistency models' guidance */
    ROW("add_embedding.linear_1.*", "label_emb.0.0.*", SM_NUM_ADDED),
    ROW("add_embedding.linear_2.*", "label_emb.0.2.*", SM_NUM_ADDED),
    ROW("class_embedding.linear_1.*", "label_emb.0.0.*", SM_NUM_CLASS),
    ROW("class_embedding.linear_2.*", "label_emb.0.2.*", SM_NUM_CLASS),
    ROW("class_embedding.weight", "label_emb.weight", SM_NUM_SAME),
    ROW("conv_in.*", "input_blocks.0.0.*", SM_NUM_SAME),
    RESNET("down_blocks.#.resnets.#", "input_blocks.#.0", SM_NUM_DOWN),
    SPATIAL("down_blocks.#.attentions.#", "input_blocks.#.1", SM_NUM_DOWN),
    ROW("down_blocks.#.downsamplers.0.conv.*", "input_blocks.#.0.op.*", SM_NUM_DOWNSAMPLER),
    RESNET("mid_block.resnets.0", "middle_block.0", SM_NUM_SAME),
    SPATIAL("mid_block.attentions.0", "middle_block.1", SM_NUM_SAME),
    RESNET("mid_block.resnets.1", "middle_block.2", SM_NUM_SAME),
    RESNET("up_blocks.#.resnets.#", "output_blocks.#.0", SM_NUM_UP),
    SPATIAL("up_blocks.#.attentions.#", "output_blocks.#.1", SM_NUM_UP),
    ROW("up_blocks.#.upsamplers.0.conv.*", "output_blocks.#.1.conv.*", SM_NUM_UPSAMPLER_1),
    ROW("up_blocks.#.upsamplers.0.conv.*", "output_blocks.#.2.conv.*", SM_NUM_UPSAMPLER_2),
    ROW("conv_norm_out.*", "out.0.*", SM_NUM_SAME),
    ROW("conv_out.*", "out.2.*", SM_NUM_SAME),
};
const sm_alias_table sm_aliases_unet = {rows, SM_COUNT(rows)};

/* ---- the shape --------------------------------------------------------------------------------------------------- */

/* The highest second number of a block, plus one. */
static void most(int count[SM_BLOCKS], const sm_match *m)
{
    if (m->num[0] < SM_BLOCKS && m->num[1] < SM_LAYOUT_LAYERS)
        count[m->num[0]] = SM_MAX(count[m->num[0]], m->num[1] + 1);
}

static void note_blocks(sm_shape *s, const char *name)
{
    sm_match m;
    if (sm_pattern_match("down_blocks.#.resnets.#.*", name, &m))
        most(s->layers, &m);
    else if (sm_pattern_match("down_blocks.#.downsamplers.#.*", name, &m))
        most(s->downsamplers, &m);
    else if (sm_pattern_match("up_blocks.#.resnets.#.*", name, &m))
        most(s->up_layers, &m);
    else if (sm_pattern_match("up_blocks.#.attentions.#.*", name, &m))
        most(s->up_attended, &m);
    else if (sm_pattern_match("up_blocks.#.upsamplers.#.*", name, &m))
        most(s->upsamplers, &m);
}

static void note_places(sm_shape *s, const char *name)
{
    sm_match m;
    if (sm_pattern_match("input_blocks.#.*", name, &m) && m.num[0] < SM_LAYOUT_PLACES) {
        s->inputs = SM_MAX(s->inputs, m.num[0] + 1);
        if (sm_pattern_match("input_blocks.#.0.op.*", name, &m))
            s->op[m.num[0]] = true;
    }
    if (sm_pattern_match("output_blocks.#.*", name, &m) && m.num[0] < SM_LAYOUT_PLACES) {
        s->outputs = SM_MAX(s->outputs, m.num[0] + 1);
        if (sm_pattern_match("output_blocks.#.#.conv.*", name, &m) && (m.num[1] == 1 || m.num[1] == 2))
            s->conv[m.num[0]] = (uint8_t)m.num[1];
    }
}

/* label_emb belongs to a class embedding in unCLIP models, which are SD 2.x in everything else: text of width 1024. */
void sm_shape_note_unet(sm_shape *s, const char *name, int rank, const int64_t *dims)
{
    sm_match m;
    note_blocks(s, name);
    note_places(s, name);
    s->class_embedding |= sm_pattern_match("class_embedding.linear_#.*", name, &m);
    s->class_places |= rank == 2 && dims[1] == 1024 &&
        sm_pattern_match("input_blocks.#.1.transformer_blocks.0.attn2.to_k.weight", name, &m);
}

/* Blocks from the places of samplers; what goes beyond the limits is no block and its names stay unknown. */
static void blocks_from_places(sm_shape *s)
{
    int b = 0, start = 1; /* input_blocks.0 is conv_in */
    for (int n = 1; n < s->inputs && b < SM_BLOCKS; n++) {
        if (!s->op[n] && n + 1 < s->inputs)
            continue;
        s->layers[b] = SM_MIN(n - start + !s->op[n], SM_LAYOUT_LAYERS);
        s->downsamplers[b++] = s->op[n];
        start = n + 1;
    }
    b = start = 0;
    for (int n = 0; n < s->outputs && b < SM_BLOCKS; n++) {
        if (!s->conv[n] && n + 1 < s->outputs)
            continue;
        s->up_layers[b] = SM_MIN(n - start + 1, SM_LAYOUT_LAYERS);
        s->up_attended[b] = s->conv[n] == 2 ? s->up_layers[b] : 0;
        s->upsamplers[b++] = s->conv[n] != 0;
        start = n + 1;
    }
}

static void pair(sm_relation *r, int c0, int c1, int stored)
{
    if (r->count == SM_COUNT(r->pair))
        return;
    r->pair[r->count].c[0] = c0;
    r->pair[r->count].c[1] = c1;
    r->pair[r->count++].s = stored;
}

void sm_shape_relate_unet(sm_shape *s)
{
    if (s->inputs || s->outputs)
        blocks_from_places(s);
    sm_relation *r = s->relation;
    for (int k = SM_NUM_DOWN; k <= SM_NUM_UPSAMPLER_2; k++)
        r[k].nc = r[k].ns = 1;
    r[SM_NUM_DOWN].nc = r[SM_NUM_UP].nc = 2;
    for (int b = 0, at = 1; b < SM_BLOCKS; at += s->layers[b++] + 1) { /* a downsampler has a place of its own */
        for (int l = 0; l < s->layers[b]; l++)
            pair(&r[SM_NUM_DOWN], b, l, at + l);
        if (s->downsamplers[b])
            pair(&r[SM_NUM_DOWNSAMPLER], b, 0, at + s->layers[b]);
    }
    for (int b = 0, at = 0; b < SM_BLOCKS; at += s->up_layers[b++]) { /* an upsampler shares the last layer's */
        for (int l = 0; l < s->up_layers[b]; l++)
            pair(&r[SM_NUM_UP], b, l, at + l);
        bool attends = s->up_attended[b] && s->up_attended[b] == s->up_layers[b];
        if (s->upsamplers[b] && s->up_layers[b])
            pair(&r[attends ? SM_NUM_UPSAMPLER_2 : SM_NUM_UPSAMPLER_1], b, 0, at + s->up_layers[b] - 1);
    }
    pair(&r[s->class_embedding || s->class_places ? SM_NUM_CLASS : SM_NUM_ADDED], 0, 0, 0);
}
