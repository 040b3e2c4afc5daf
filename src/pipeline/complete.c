/* Whether a model has every tensor it needs, known by recording each part at its smallest size: before a request has encoded a
 * prompt, not when the missing part's turn comes. Recording reads no weights. */
#include <string.h>

#include "pipeline/model.h"

/* A graph for one part; scope is the part's. NULL on failure. */
static sm_graph *begin(const sumi_model *m, const char *component, nn_scope *s, sm_err *e)
{
    sm_graph *g = sm_graph_new(m->mem, e);
    nn_scope root;
    if (g) {
        root = nn_root(g, m->w, NULL);
        *s = nn_sub(&root, "%s", component);
    }
    return g;
}

/* flag: what gives another such part, NULL for none. */
static sumi_status end(sm_graph *g, const char *what, const char *flag, sm_err *e)
{
    if (g && g->err.code && flag)
        sm_fail(e, g->err.code, "%s: %s; %s FILE takes that part from another file", what, g->err.msg, flag);
    else if (g && g->err.code)
        sm_fail(e, g->err.code, "%s: %s", what, g->err.msg);
    sm_graph_free(g);
    return e->code;
}

static sumi_status record_text(const sumi_model *m, int i, const char *what, sm_err *e)
{
    const sm_text_use *u = &m->traits.text[i];
    bool pooled = i == m->traits.texts - 1 && m->family->pooled_width(&m->denoiser);
    nn_scope s;
    sm_graph *g = begin(m, u->component, &s, e);
    if (g) {
        sm_node *ids = sm_input(g, "ids", SM_I32, 2, (int64_t[]){1, u->clip.max_position_embeddings});
        sm_clip_out text = sm_clip_text(&s, &u->clip, ids, pooled ? sm_input(g, "eos", SM_I32, 1, (int64_t[]){1}) : NULL);
        if (pooled)
            sm_denoiser_pooled(m->family, &m->denoiser, &text);
    }
    return end(g, what, strcmp(u->component, "text_encoder_2") ? "--text-encoder" : "--text-encoder-2", e);
}

static sumi_status record_denoiser(const sumi_model *m, const char *what, sm_err *e)
{
    const sm_denoiser *f = m->family;
    bool unet = f->kind == SM_MODEL_UNET;
    int64_t n = f->multiple(&m->denoiser), in = unet ? m->denoiser.unet.in_channels : m->vae.latent_channels, one = 1;
    int64_t tokens = m->traits.text[0].clip.max_position_embeddings, guide = unet ? m->denoiser.unet.time_cond_proj_dim : 0;
    nn_scope s;
    sm_graph *g = begin(m, f->component, &s, e);
    if (g) {
        sm_conditions cond = {.ctx = sm_input(g, "ctx", SM_F32, 3, (int64_t[]){1, tokens, f->context_width(&m->denoiser)})};
        if (f->pooled_width(&m->denoiser))
            cond.pooled = sm_input(g, "pooled", SM_F32, 2, (int64_t[]){1, f->pooled_width(&m->denoiser)});
        if (m->traits.time_ids)
            cond.time_ids = sm_input(g, "time_ids", SM_F32, 2, (int64_t[]){1, m->traits.time_ids});
        if (guide)
            cond.timestep_cond = sm_input(g, "timestep_cond", SM_F32, 2, (int64_t[]){1, guide});
        sm_node *x = sm_input(g, "x", SM_F32, 4, (int64_t[]){1, n, n, in}), *t = sm_input(g, "t", SM_F32, 1, &one);
        f->record(&s, &m->denoiser, x, t, &cond);
    }
    return end(g, what, unet ? "--unet" : NULL, e);
}

static sumi_status record_vae(const sumi_model *m, bool encoder, const char *what, sm_err *e)
{
    int64_t f = sm_vae_factor(&m->vae);
    nn_scope s;
    sm_graph *g = begin(m, "vae", &s, e);
    if (g) {
        sm_vae_decode(&s, &m->vae, sm_input(g, "z", SM_F32, 4, (int64_t[]){1, 1, 1, m->vae.latent_channels}));
        if (encoder)
            sm_vae_encode(&s, &m->vae, sm_input(g, "image", SM_F32, 4, (int64_t[]){1, f, f, m->vae.in_channels}));
    }
    return end(g, what, "--vae", e);
}

sumi_status sm_model_encodes(const sumi_model *m, const char *flag, sm_err *e)
{
    int64_t f = sm_vae_factor(&m->vae);
    nn_scope s;
    sm_graph *g = begin(m, "vae", &s, e);
    if (g)
        sm_vae_encode(&s, &m->vae, sm_input(g, "image", SM_F32, 4, (int64_t[]){1, f, f, m->vae.in_channels}));
    if (g && g->err.code)
        sm_fail(e, g->err.code, "--%s: pictures are encoded for it, but %s: %s; --vae FILE takes that part from another file",
                flag, m->name, g->err.msg);
    sm_graph_free(g);
    return e->code;
}

sumi_status sm_model_complete(const sumi_model *m, bool encoder, const char *what, sm_err *e)
{
    for (int i = 0; i < m->traits.texts && !e->code; i++)
        record_text(m, i, what, e);
    return e->code || record_denoiser(m, what, e) ? e->code : record_vae(m, encoder, what, e);
}
