/* The families: a row each (see registry.h). */
#include "model/registry.h"

#include <stdio.h>
#include <string.h>

static int unet_channels(const sm_denoiser_config *c) { return c->unet.out_channels; }
static int unet_context(const sm_denoiser_config *c) { return c->unet.cross_attention_dim; }
static int unet_multiple(const sm_denoiser_config *c) { return 1; } /* its blocks on the way up go to the skips' sizes */

enum { XL_FACTOR = 8 }; /* pixels per latent of SDXL */

static int unet_time_ids(const sm_denoiser_config *c) { return sm_unet_time_ids(&c->unet); }

/* What add_embedding takes is the pooled text and the embedded time ids, one after the other. */
static int unet_pooled(const sm_denoiser_config *c)
{
    int width = c->unet.projection_class_embeddings_input_dim - unet_time_ids(c) * c->unet.addition_time_embed_dim;
    return !c->unet.text_time ? 0 : width > 0 ? width : -1;
}

/* SDXL's size and crop conditioning: original size, crop corner, target size; the whole picture, uncropped. The refiner has
 * an aesthetic score instead of the target size: 6, as its authors draw with. */
static sm_node *whole_picture(const sm_node *x, int64_t n)
{
    float h = (float)(x->dims[1] * XL_FACTOR), w = (float)(x->dims[2] * XL_FACTOR);
    sm_node *ids = sm_const(x->g, SM_F32, 2, (int64_t[]){1, n}, n == 5 ? (float[]){h, w, 0, 0, 6} : (float[]){h, w, 0, 0, h, w});
    return sm_expand(ids, 2, (int64_t[]){x->dims[0], n});
}

static sm_unet_cond unet_cond(const sm_denoiser_config *c, const sm_node *x, const sm_conditions *cond)
{
    sm_unet_cond more = {.text_embeds = cond->pooled, .time_ids = cond->time_ids, .timestep_cond = cond->timestep_cond,
                         .tweaks = cond->tweaks};
    if (c->unet.text_time && !more.time_ids && !sm_poisoned(x))
        more.time_ids = whole_picture(x, unet_time_ids(c));
    return more;
}

static sm_node *unet_record(const nn_scope *s, const sm_denoiser_config *c, sm_node *x, sm_node *t, const sm_conditions *cond)
{
    sm_unet_cond more = unet_cond(c, x, cond);
    return sm_unet(s, &c->unet, x, t, cond->ctx, &more);
}

static sm_node *unet_modulated(const nn_scope *s, const sm_denoiser_config *c, sm_node *x, sm_node *t, const sm_conditions *cond)
{
    sm_unet_cond more = unet_cond(c, x, cond);
    return sm_unet_modulated(s, &c->unet, x, t, &more);
}

static int mmdit_channels(const sm_denoiser_config *c) { return c->mmdit.out_channels; }
static int mmdit_context(const sm_denoiser_config *c) { return c->mmdit.joint_attention_dim; }
static int mmdit_pooled(const sm_denoiser_config *c)
{
    return c->mmdit.pooled_projection_dim > 0 ? c->mmdit.pooled_projection_dim : -1;
}
static int mmdit_time_ids(const sm_denoiser_config *c) { return 0; }
static int mmdit_multiple(const sm_denoiser_config *c) { return c->mmdit.patch_size; }

static sm_node *mmdit_record(const nn_scope *s, const sm_denoiser_config *c, sm_node *x, sm_node *t, const sm_conditions *cond)
{
    if (cond->tweaks)
        return sm_graph_fail(s->g, "PAG, SAG and FreeU change UNets, this model is a transformer");
    return sm_mmdit(s, &c->mmdit, x, t, cond->ctx, cond->pooled);
}

static sm_node *mmdit_modulated(const nn_scope *s, const sm_denoiser_config *c, sm_node *x, sm_node *t, const sm_conditions *cond)
{
    return sm_mmdit_modulated(s, &c->mmdit, x, t, cond->pooled);
}

const sm_denoiser sm_denoisers[] = {
    {.component = "unet", .class_name = "UNet2DConditionModel", .marker = "time_embedding.linear_1.weight", .kind = SM_MODEL_UNET,
     .latent_channels = unet_channels, .context_width = unet_context, .pooled_width = unet_pooled, .multiple = unet_multiple,
     .time_ids = unet_time_ids, .record = unet_record, .modulated = unet_modulated},
    {.component = "transformer", .class_name = "SD3Transformer2DModel", .marker = "context_embedder.weight",
     .kind = SM_MODEL_MMDIT,
     .latent_channels = mmdit_channels, .context_width = mmdit_context, .pooled_width = mmdit_pooled, .multiple = mmdit_multiple,
     .time_ids = mmdit_time_ids, .record = mmdit_record, .modulated = mmdit_modulated},
};
const int sm_denoiser_count = (int)SM_COUNT(sm_denoisers);

const sm_denoiser *sm_denoiser_by_class(const char *class_name)
{
    for (int i = 0; i < sm_denoiser_count; i++)
        if (!strcmp(sm_denoisers[i].class_name, class_name))
            return &sm_denoisers[i];
    return NULL;
}

const sm_denoiser *sm_denoiser_detect(const sm_weights *w)
{
    for (int i = 0; i < sm_denoiser_count; i++) {
        char name[160];
        snprintf(name, sizeof name, "%s.%s", sm_denoisers[i].component, sm_denoisers[i].marker);
        if (sm_weights_find(w, name))
            return &sm_denoisers[i];
    }
    return NULL;
}

/* The ids are what the pooled text leaves of the row, addition_time_embed_dim each. A CLIPTextModel's config may tell a
 * projection_dim that it has no layer for. */
void sm_denoiser_settle(const sm_denoiser *d, sm_denoiser_config *c, const sm_clip_config *text)
{
    if (d->kind != SM_MODEL_UNET || !c->unet.text_time || c->unet.addition_time_embed_dim < 1)
        return;
    int each = c->unet.addition_time_embed_dim, row = c->unet.projection_class_embeddings_input_dim;
    const int widths[] = {text->projection_dim, text->hidden_size};
    for (size_t i = 0; i < SM_COUNT(widths); i++)
        for (int ids = 6; ids >= 5; ids--)
            if (widths[i] > 0 && row - widths[i] == (int64_t)ids * each) {
                c->unet.time_ids = ids;
                return;
            }
}

sm_node *sm_denoiser_pooled(const sm_denoiser *d, const sm_denoiser_config *c, const sm_clip_out *text)
{
    if (!d->pooled_width(c) || sm_poisoned(text->last))
        return d->pooled_width(c) ? text->last : NULL;
    sm_node *pooled = text->projected ? text->projected : text->pooled;
    sm_graph *g = text->last->g;
    if (!pooled)
        return sm_graph_fail(g, "%s: the text encoder was recorded without its end marks", d->class_name);
    if (!sm_poisoned(pooled) && pooled->dims[1] != d->pooled_width(c))
        return sm_graph_fail(g, "%s: takes pooled text of width %d, the text encoder gives %lld (projection_dim)", d->class_name,
                             d->pooled_width(c), (long long)pooled->dims[1]);
    return pooled;
}
