/* UNet2DConditionModel's configuration from its tensors: counts are counted, widths read off. Two things no tensor tells:
 *  - heads: Stable Diffusion 1.x has 8 at every level, 2.x and XL heads of width 64 (told by their linear projections or, for
 *    files that store those as convolutions, by a context of 1024 and more). Where a level does not divide so (tiny models):
 *    the largest power of two up to 8 heads, or heads of the largest power of two up to 16, that fit every level with attention;
 *  - groups of the norms (sm_detect_groups). */
#include <stdio.h>
#include <string.h>

#include "model/detect_impl.h"

/* Parts that make another model of it: a piece of a tensor's name and what it is. */
static const struct { const char *part, *what; } FOREIGN[] = {
    {".class_embedding.linear_1.", "takes a picture's embedding as its class (Stable unCLIP)"},
    {".encoder_hid_proj.", "takes pictures through an adapter (IP-Adapter, Kandinsky)"},
    {".add_embedding.text_norm", "takes a text and a picture embedding (Kandinsky)"},
    {".add_embedding.image_norm", "takes a picture embedding (Kandinsky)"},
    {".add_embedding.pool.", "pools its text by attention (DeepFloyd IF)"},
    {".position_net.", "takes boxes with captions (GLIGEN)"},
    {".fuser.", "takes boxes with captions (GLIGEN)"},
    {".motion_modules.", "draws films (AnimateDiff)"},
    {".temp_attentions.", "draws films"},
    {".temporal_transformer_blocks.", "draws films (Stable Video Diffusion)"},
    {".add_k_proj.", "has attention that adds the text (DeepFloyd IF, Kandinsky)"},
};

static sumi_status check_foreign(const look *l, sm_err *e)
{
    size_t n = strlen(l->component);
    for (size_t i = 0; i < sm_weights_count(l->w); i++) {
        const char *name = sm_weights_at(l->w, i)->name;
        for (size_t k = 0; k < SM_COUNT(FOREIGN); k++)
            if (!strncmp(name, l->component, n) && name[n] == '.' && strstr(name + n, FOREIGN[k].part))
                return sm_fail(e, SUMI_E_SUPPORT, "%s: this one %s, which is not supported (%.120s)", l->component,
                               FOREIGN[k].what, name);
    }
    return SUMI_OK;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* Transformer layers of attention k of a block, 0 without one. */
static int depth_of(const look *l, const char *block, int k)
{
    char fmt[128];
    snprintf(fmt, sizeof fmt, "%s.attentions.%d.transformer_blocks.%%d.attn1.to_q.weight", block, k);
    return sm_look_count(l, SM_LAYERS + 1, fmt);
}

/* The depths of a block of n layers into row; *attends: whether it has attention. */
static sumi_status block_depths(const look *l, const char *block, int i, int n, int *row, bool *attends, sm_err *e)
{
    int with = 0;
    char path[32];
    snprintf(path, sizeof path, "%s.%d", block, i);
    for (int k = 0; k < n; k++) {
        row[k] = depth_of(l, path, k);
        with += row[k] > 0;
        if (row[k] > SM_LAYERS)
            return sm_fail(e, SUMI_E_SUPPORT, "%s.%s.attentions.%d has more than %d layers", l->component, path, k, SM_LAYERS);
    }
    *attends = with > 0;
    if (with && with < n)
        return sm_fail(e, SUMI_E_MODEL, "%s.%s.%d has attention after %d of its %d resnets", l->component, block, i, with, n);
    return SUMI_OK;
}

static sumi_status down_block(const look *l, sm_unet_config *c, int i, sm_err *e)
{
    char fmt[128];
    snprintf(fmt, sizeof fmt, "down_blocks.%d.resnets.%%d.conv1.weight", i);
    c->layers_per_block[i] = sm_look_count(l, SM_UNET_LAYERS + 1, fmt);
    c->block_out_channels[i] = sm_look_dim(l, 0, "down_blocks.%d.resnets.0.conv1.weight", i);
    if (c->block_out_channels[i] < 1 || c->layers_per_block[i] > SM_UNET_LAYERS)
        return sm_fail(e, SUMI_E_SUPPORT, "%s.down_blocks.%d has %d resnets, at most %d are supported", l->component, i,
                       c->layers_per_block[i], SM_UNET_LAYERS);
    return block_depths(l, "down_blocks", i, c->layers_per_block[i], c->down_depth[i], &c->down_attention[i], e);
}

static sumi_status up_block(const look *l, sm_unet_config *c, int i, sm_err *e)
{
    char fmt[128];
    int level = c->blocks - 1 - i, n = c->layers_per_block[level] + 1;
    snprintf(fmt, sizeof fmt, "up_blocks.%d.resnets.%%d.conv1.weight", i);
    int has = sm_look_count(l, SM_UNET_LAYERS + 2, fmt);
    if (has != n)
        return sm_fail(e, SUMI_E_MODEL, "%s.up_blocks.%d has %d resnets; down_blocks.%d with %d needs %d", l->component, i, has,
                       level, n - 1, n);
    return block_depths(l, "up_blocks", i, n, c->up_depth[i], &c->up_attention[i], e);
}

static bool uniform(const int *row, int n, int one)
{
    for (int i = 0; i < n; i++)
        if (row[i] != one)
            return false;
    return true;
}

/* One number per level where its attentions agree, rows where not (as sm_config_read leaves them). The middle's depth is the
 * deepest level's number. */
static sumi_status settle_depths(const look *l, sm_unet_config *c, sm_err *e)
{
    int last = c->blocks - 1, mid = c->mid_block == SM_MID_CROSS ? depth_of(l, "mid_block", 0) : 0;
    for (int i = 0; i <= last; i++) {
        int n = c->layers_per_block[i], up = last - i;
        int one = c->down_attention[i] ? c->down_depth[i][0] : i == last && mid ? mid : SM_MAX(c->up_depth[up][0], 1);
        c->transformer_layers_per_block[i] = one;
        if (!c->down_attention[i] || uniform(c->down_depth[i], n, one))
            memset(c->down_depth[i], 0, sizeof c->down_depth[i]);
        if (!c->up_attention[up] || uniform(c->up_depth[up], n + 1, one))
            memset(c->up_depth[up], 0, sizeof c->up_depth[up]);
    }
    if (mid && mid != c->transformer_layers_per_block[last])
        return sm_fail(e, SUMI_E_SUPPORT, "%s.mid_block has %d transformer layers, the level before %d; they must be equal",
                       l->component, mid, c->transformer_layers_per_block[last]);
    return SUMI_OK;
}

static sumi_status blocks(const look *l, sm_unet_config *c, sm_err *e)
{
    c->blocks = sm_look_count(l, SM_BLOCKS + 1, "down_blocks.%d.resnets.0.conv1.weight");
    int ups = sm_look_count(l, SM_BLOCKS + 1, "up_blocks.%d.resnets.0.conv1.weight");
    if (c->blocks > SM_BLOCKS)
        return sm_fail(e, SUMI_E_SUPPORT, "%s has more than %d down_blocks", l->component, SM_BLOCKS);
    if (c->blocks < 1 || ups != c->blocks)
        return sm_fail(e, SUMI_E_MODEL, "%s has %d down_blocks and %d up_blocks", l->component, c->blocks, ups);
    for (int i = 0; i < c->blocks; i++)
        if (down_block(l, c, i, e))
            return e->code;
    for (int i = 0; i < c->blocks; i++)
        if (up_block(l, c, i, e))
            return e->code;
    c->mid_block = !sm_look(l, "mid_block.resnets.0.conv1.weight") ? SM_MID_NONE
                   : sm_look(l, "mid_block.attentions.0.norm.weight") ? SM_MID_CROSS : SM_MID_PLAIN;
    return settle_depths(l, c, e);
}

/* ---- widths ------------------------------------------------------------------------------------------------------ */

/* The first attention there is, whose sizes stand for all. */
static bool first_attention(const sm_unet_config *c, char *path, size_t size)
{
    snprintf(path, size, "mid_block.attentions.0");
    bool found = c->mid_block == SM_MID_CROSS;
    for (int i = 0; i < c->blocks && !found; i++) {
        found = c->down_attention[i] || c->up_attention[i];
        snprintf(path, size, "%s_blocks.%d.attentions.0", c->down_attention[i] ? "down" : "up", i);
    }
    return found;
}

static void heads(sm_unet_config *c, bool wide)
{
    int each = 64, eight = 8;
    for (int i = 0; i < c->blocks; i++) {
        int ch = c->block_out_channels[i];
        bool mid = i == c->blocks - 1 && c->mid_block == SM_MID_CROSS;
        bool attends = mid || c->down_attention[i] || c->up_attention[c->blocks - 1 - i];
        if (ch % 64)
            each = SM_MIN(each, 16);
        while (attends && ch % each)
            each /= 2;
        while (attends && ch % eight)
            eight /= 2;
    }
    for (int i = 0; i < c->blocks; i++)
        c->attention_head_dim[i] = wide ? SM_MAX(c->block_out_channels[i] / each, 1) : eight;
}

/* What the add_embedding takes: pooled text, then six (or the refiner's five) numbers, each embedded in so many floats. The
 * text's width is that of the encoder in the same table, the last one; without one the published sizes are tried, then
 * the refiner's rule (sm_unet_time_ids), with embeddings of a power of two. */
static void added(const look *l, sm_unet_config *c)
{
    static const char *const encoders[] = {"text_encoder_2", "text_encoder"};
    int row = sm_look_dim(l, 1, "add_embedding.linear_1.weight");
    c->text_time = row > 0;
    c->projection_class_embeddings_input_dim = row;
    if (!row)
        return;
    int widths[4] = {0, 0, 1280, c->cross_attention_dim};
    for (int i = 0; i < 2 && !widths[0]; i++) {
        look text = {l->w, encoders[i]};
        widths[0] = sm_look_dim(&text, 0, "text_projection.weight");
        widths[1] = sm_look_dim(&text, 1, "text_model.embeddings.token_embedding.weight");
        if (!widths[0])
            widths[0] = widths[1];
    }
    for (int i = 0; i < 4 * 2 * 2 && !c->time_ids; i++) {
        int width = widths[i / 4], ids = 6 - i % 2, each = (row - width) / ids;
        bool power = !(each & (each - 1)), known = i < 4; /* the text's width as it is: any size will do in the second round */
        if (width > 0 && each > 0 && row - width == ids * each && (power || (known && i >= 2))) {
            c->time_ids = ids;
            c->addition_time_embed_dim = each;
        }
    }
}

/* SDXS' self-attention looks at the text: its keys take the context's width instead of the level's. */
static sumi_status check_attention(const look *l, const sm_unet_config *c, sm_err *e)
{
    for (int i = 0; i < c->blocks; i++) {
        int width = sm_look_dim(l, 1, "down_blocks.%d.attentions.0.transformer_blocks.0.attn1.to_k.weight", i);
        if (c->down_attention[i] && width != c->block_out_channels[i])
            return sm_fail(e, SUMI_E_SUPPORT,
                           "%s.down_blocks.%d: keys of width %d in attn1, the level has %d; self-attention that looks "
                           "at the text (SDXS) is not supported", l->component, i, width, c->block_out_channels[i]);
    }
    return SUMI_OK;
}

static sumi_status check(const look *l, const sm_unet_config *c, sm_err *e)
{
    if (c->in_channels < 1 || c->out_channels < 1 || c->block_out_channels[0] != sm_look_dim(l, 0, "conv_in.weight"))
        return sm_fail(e, SUMI_E_MODEL, "%s: conv_in, conv_out and down_blocks.0 do not fit each other", l->component);
    if (c->cross_attention_dim < 1)
        return sm_fail(e, SUMI_E_SUPPORT, "%s: no cross-attention, so it takes no text", l->component);
    if (c->text_time && !c->time_ids)
        return sm_fail(e, SUMI_E_MODEL, "%s: add_embedding takes %d numbers, which are not pooled text and five or six sizes",
                       l->component, c->projection_class_embeddings_input_dim);
    if (c->num_class_embeds && c->text_time)
        return sm_fail(e, SUMI_E_SUPPORT, "%s: has both class_embedding and add_embedding", l->component);
    return SUMI_OK;
}

sumi_status sm_detect_unet(const sm_weights *w, const char *component, sm_unet_config *c, sm_err *e)
{
    look l = {w, component};
    char a[64];
    *c = (sm_unet_config){.in_channels = sm_look_dim(&l, 1, "conv_in.weight"),
                          .out_channels = sm_look_dim(&l, 0, "conv_out.weight"),
                          .norm_eps = 1e-5f, .flip_sin_to_cos = true,
                          .num_class_embeds = sm_look_dim(&l, 0, "class_embedding.weight"),
                          .time_cond_proj_dim = sm_look_dim(&l, 1, "time_embedding.cond_proj.weight")};
    if (check_foreign(&l, e) || blocks(&l, c, e))
        return e->code;
    if (first_attention(c, a, sizeof a)) {
        const sm_weight *in = sm_look(&l, "%s.proj_in.weight", a);
        c->cross_attention_dim = sm_look_dim(&l, 1, "%s.transformer_blocks.0.attn2.to_k.weight", a);
        c->use_linear_projection = in && in->t.rank == 2;
    }
    added(&l, c);
    heads(c, c->use_linear_projection || c->cross_attention_dim >= 1024);
    c->norm_num_groups = sm_detect_groups(c->block_out_channels, c->blocks);
    return check(&l, c, e) ? e->code : check_attention(&l, c, e);
}
