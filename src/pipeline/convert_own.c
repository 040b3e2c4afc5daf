/* sumi convert: what makes a file one of sumi's own, the metadata "sumi.model" and "merges" (pipeline/model.h). A file's are
 * carried over; with another autoencoder they are written anew; a folder whose tensors alone do not say how the model is used
 * (rectified flow, a tokenizer of its own) gets them, so that the file that is written is as whole as the folder was. */
#include <string.h>

#include "pipeline/convert.h"
#include "pipeline/model.h"

static const char *text_of(const sm_conversion *c, const char *key)
{
    return c->meta_st ? sm_st_metadata(c->meta_st, key) : c->meta_gguf ? sm_gguf_text(c->meta_gguf, key) : NULL;
}

/* A copy in the conversion's memory; b is released. NULL when memory is out. */
static const char *keep(sm_conversion *c, sm_buf *b, sm_err *e)
{
    const char *s = b->oom ? NULL : sm_arena_str(&c->arena, b->data ? b->data : "");
    sm_buf_free(b);
    if (!s)
        sm_fail(e, SUMI_E_MEMORY, "out of memory converting %s", c->in);
    return s;
}

static void describe(sm_conversion *c, const sumi_model *m, sm_err *e)
{
    sm_buf b = {.mem = c->mem};
    sm_model_describe(m, &b);
    c->own = keep(c, &b, e);
}

/* The latent's scale belongs to how the model was trained and stays, as when a model is opened with --vae. */
static sumi_status with_other_vae(sm_conversion *c, const char *config, sm_err *e)
{
    sumi_model m = {.mem = c->mem};
    if (sm_model_configure(&m, config, c->in, e))
        return e->code;
    float scale = m.vae.scaling_factor, shift = m.vae.shift_factor;
    if (sm_detect_vae(c->w, "vae", &m.vae, e))
        return e->code;
    m.vae.scaling_factor = scale;
    m.vae.shift_factor = shift;
    if (!sm_components_fit(m.family, &m.denoiser, &m.traits, &m.vae, c->in, e))
        describe(c, &m, e);
    return e->code;
}

/* What "sumi.model" can say: rectified flow with one text encoder's last output (sm_traits_flow). */
static bool can_say(const sm_traits *t)
{
    const sm_text_use *u = &t->text[0];
    return !strcmp(t->prediction, "flow_prediction") && t->texts == 1 && !strcmp(u->component, "text_encoder") && !u->skip &&
           u->final_norm && u->pad < 0 && !t->latents_stats && !t->time_ids && t->extra == SM_EXTRA_NONE;
}

static sumi_status of_folder(sm_conversion *c, sm_err *e)
{
    sm_err why = {0};
    sm_buf merges = {.mem = c->mem};
    sumi_model *m = NULL;
    if (sm_model_open(&m, c->mem, &(sumi_model_options){.path = c->in, .vae = c->vae}, true, &why))
        return why.code == SUMI_E_MEMORY ? sm_fail(e, why.code, "%s", why.msg) : SUMI_OK; /* parts can be converted too */
    if (can_say(&m->traits)) {
        describe(c, m, e);
        sumi_status st = sm_bpe_merges(m->bpe, &merges, &why);
        if (!st)
            c->merges = keep(c, &merges, e);
        else if (st == SUMI_E_MEMORY)
            sm_fail(e, st, "%s", why.msg);
        else
            c->note = "the tokenizer is not in it (its ids are in no order that merges tell): load it with --tokenizer FOLDER";
    }
    sm_buf_free(&merges);
    sumi_model_free(m);
    return e->code;
}

sumi_status sm_convert_own(sm_conversion *c, sm_err *e)
{
    const char *config = text_of(c, "sumi.model");
    if (c->flow && !config)
        return of_folder(c, e);
    return config && c->vae ? with_other_vae(c, config, e) : SUMI_OK;
}
