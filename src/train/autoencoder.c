/* First stage: a KL autoencoder (Kingma and Welling 2014; Rombach et al. 2022) on random crops of composed pictures.
 * Loss: mean |x - y|, the same on differences between neighbouring pixels (edges) and on means of 8x8 blocks (colour of
 * plain areas, which group norm tends to lose), and a small KL term that keeps the latents near zero. No perceptual
 * network: nothing but our own data and weights is needed. */
#include <string.h>

#include "train/model_view.h"

enum { BLOCK = 8 };

typedef struct vae_stage {
    sm_node *image, *noise;
    int64_t latent;            /* floats of one example's noise */
    uint8_t *rgb;              /* one whole picture per example */
} vae_stage;

static sm_node *edges(sm_node *x, int axis)
{
    int64_t n = x->dims[axis] - 1;
    return sm_sub(sm_slice(x, axis, 1, n), sm_slice(x, axis, 0, n));
}

static sm_node *reconstruction_loss(sm_node *y, sm_node *x, float edge_weight)
{
    sm_node *d = sm_sub(y, x);
    sm_node *l = sm_mean_all(sm_unary(SM_OP_ABS, d));
    for (int axis = 1; axis <= 2 && edge_weight > 0; axis++)
        l = sm_add(l, sm_affine(sm_mean_all(sm_unary(SM_OP_ABS, edges(d, axis))), edge_weight, 0));
    return sm_add(l, sm_mean_all(sm_unary(SM_OP_ABS, sm_avg_pool(d, BLOCK, BLOCK, 0))));
}

/* KL(N(mean, exp(logvar)) || N(0, 1)), mean over elements */
static sm_node *kl_loss(sm_node *mean, sm_node *logvar)
{
    sm_node *v = sm_sub(sm_add(sm_unary(SM_OP_SQUARE, mean), sm_unary(SM_OP_EXP, logvar)), logvar);
    return sm_affine(sm_mean_all(v), 0.5f, -0.5f);
}

static sm_node *record(sm_trainer *t, sm_graph *g, vae_stage *v)
{
    int64_t b = t->cfg.autoencoder.opt.batch, s = t->cfg.autoencoder.crop, f = s / sm_vae_factor(&t->vae),
        c = t->vae.latent_channels;
    nn_scope root = nn_root(g, t->vae_weights, &t->init), vae = nn_sub(&root, "vae");
    v->image = sm_input(g, "image", SM_F32, 4, (int64_t[]){b, s, s, t->vae.in_channels});
    v->noise = sm_input(g, "noise", SM_F32, 4, (int64_t[]){b, f, f, c});
    v->latent = f * f * c;
    sm_node *moments = sm_vae_encode(&vae, &t->vae, v->image);
    sm_node *mean = sm_slice(moments, -1, 0, c), *logvar = sm_slice(moments, -1, c, c);
    sm_node *z = sm_add(mean, sm_mul(sm_unary(SM_OP_EXP, sm_affine(logvar, 0.5f, 0)), v->noise));
    sm_node *loss = reconstruction_loss(sm_vae_decode(&vae, &t->vae, z), v->image, t->cfg.autoencoder.edge_weight);
    return sm_add(loss, sm_affine(kl_loss(mean, logvar), t->cfg.autoencoder.kl_weight, 0));
}

typedef struct crop_job { sm_trainer *t; vae_stage *v; float *image; int64_t step; sm_err err; } crop_job;

/* Example `task` of the step: a picture by the epoch's order, one of its variants, a random crop. */
static void crop_task(void *arg, int task, int tasks)
{
    crop_job *j = arg;
    sm_trainer *t = j->t;
    int64_t at = j->step * tasks + task, s = t->cfg.autoencoder.crop;
    int size = t->cfg.data.size;
    uint64_t seed = t->init.seed;
    int64_t i = sm_epoch_order(seed, sm_dataset_count(t->data), at);
    sm_compose_opts o = SM_COMPOSE_DEFAULT;
    sm_scene scene = sm_dataset_scene(t->data, &o, seed, i, sm_rng_u32(seed, SM_STREAM_VARIANT, (uint64_t)at) % 64);
    uint8_t *rgb = j->v->rgb + (size_t)task * (size_t)size * (size_t)size * 3;
    sm_err e = {0};
    if (sm_dataset_draw(t->data, &scene, size, rgb, &e)) {
        sm_task_failed(&j->err, &e);
        return;
    }
    int64_t room = size - s + 1;
    int64_t y0 = sm_rng_u32(seed, SM_STREAM_VAE_CROP, (uint64_t)at * 2) % (uint64_t)room;
    int64_t x0 = sm_rng_u32(seed, SM_STREAM_VAE_CROP, (uint64_t)at * 2 + 1) % (uint64_t)room;
    for (int64_t y = 0; y < s; y++)
        sm_rgb_to_float(rgb + ((y0 + y) * size + x0) * 3, s * 3, j->image + ((int64_t)task * s + y) * s * 3);
}

static sumi_status fill(sm_stage *s, sm_trainer *t, const sm_plan *p, int64_t step, sm_err *e)
{
    vae_stage *v = s->self;
    int64_t b = s->opt->batch;
    crop_job j = {.t = t, .v = v, .image = sm_plan_data(p, v->image), .step = step};
    sm_pool_run(t->pool, crop_task, &j, (int)b);
    if (j.err.code)
        return sm_fail(e, j.err.code, "%s", j.err.msg);
    sm_rng_normal(t->init.seed, SM_STREAM_VAE_NOISE, (uint64_t)(step * b * v->latent), sm_plan_data(p, v->noise),
                  (size_t)(b * v->latent));
    return SUMI_OK;
}

/* With decoder_only the encoder is part of the graph but nothing of it may change. */
static bool frozen(const sm_trainer *t, const char *name)
{
    bool encoder = !strncmp(name, "vae.encoder.", 12) || !strncmp(name, "vae.quant_conv.", 15);
    return t->cfg.autoencoder.decoder_only && encoder;
}

sumi_status sm_stage_autoencoder(sm_trainer *t, bool *done, sm_err *e)
{
    int f = sm_vae_factor(&t->vae), crop = t->cfg.autoencoder.crop;
    if (crop % f || crop > t->cfg.data.size)
        return sm_fail(e, SUMI_E_ARG, "autoencoder.crop: %d must be a multiple of %d, at most data.size (%d)", crop, f,
                       t->cfg.data.size);
    vae_stage v = {0};
    sm_stage s = {.name = "autoencoder", .opt = &t->cfg.autoencoder.opt, .weights = t->vae_weights, .fill = fill,
                  .frozen = frozen,
                  .validate = sm_vae_validate, .self = &v};
    v.rgb = sm_alloc(t->mem, SM_MEM_DATA, (size_t)s.opt->batch * (size_t)t->cfg.data.size * (size_t)t->cfg.data.size * 3);
    s.g = sm_graph_new(t->mem, e);
    if (s.g && v.rgb)
        s.loss = record(t, s.g, &v);
    else
        sm_fail(e, SUMI_E_MEMORY, "out of memory for the autoencoder stage");
    sumi_status st = e->code ? e->code : sm_loop_run(&s, t, done, e);
    sm_graph_free(s.g);
    sm_free(v.rgb);
    return st;
}
