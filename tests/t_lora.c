/* Low-rank adapters: the UNet's output and the adapters' gradients against PEFT on diffusers' model (tools/fixtures/make_lora.py,
 * in double); nothing else gets a gradient, and nothing below the first adapter is gone through; new adapters change no bit. */
#include "cpu/cpu.h"
#include "reference.h"
#include "test.h"
#include "train/state.h"

#include <stdio.h>
#include <string.h>

static const char *const targets[] = {"to_q", "to_k", "to_v", "to_out.0"};

/* Tensors of `from` under `prefix`, without it, in a table of their own. */
static sm_weights *table(reference *r, const reference *from, const char *prefix, bool trained)
{
    sm_weights *w = sm_weights_new(&r->mem, &r->err);
    size_t n = strlen(prefix);
    for (size_t i = 0; w && i < sm_weights_count(from->w); i++) {
        const sm_weight *x = sm_weights_at(from->w, i);
        sm_weight *to = strncmp(x->name, prefix, n) ? NULL : sm_weights_create(w, x->name + n, x->t.rank, x->t.dims, &r->err);
        if (to) {
            memcpy(to->t.data, x->t.data, x->bytes);
            to->mutable_data = trained;
        }
    }
    return w;
}

typedef struct lesson {
    reference f, base;
    sm_weights *w, *adapters;
    sm_graph *g;
    sm_node *in[4], *y, *loss; /* sample, timestep, context, target */
    sm_train_state state;
} lesson;

static const char *const names[4] = {"in.sample", "in.timestep", "in.encoder_hidden_states", "in.target"};

static void record(lesson *l, const nn_lora *lora)
{
    sm_unet_config c;
    l->g = sm_graph_new(&l->f.mem, &l->f.err);
    if (!l->g || !reference_config(&l->f, SM_MODEL_UNET, &c))
        return;
    for (int i = 0; i < 4; i++) {
        const sm_weight *x = reference_find(&l->f, "%s", names[i]);
        l->in[i] = x ? sm_input(l->g, names[i], SM_F32, x->t.rank, x->t.dims) : l->g->poison;
    }
    nn_scope s = nn_root(l->g, l->w, NULL);
    s.lora = lora;
    l->y = sm_unet(&s, &c, l->in[0], l->in[1], l->in[2], NULL);
    l->loss = sm_mse(l->y, l->in[3]);
}

static bool open(lesson *l)
{
    *l = (lesson){0};
    if (!reference_open(&l->f, "lora_tiny.safetensors") || !reference_open(&l->base, "train_tiny.safetensors"))
        return false;
    l->w = table(&l->f, &l->base, "w.", false);
    l->adapters = table(&l->f, &l->f, "lora.", true);
    return l->w && l->adapters;
}

static void shut(lesson *l)
{
    CHECKF(!l->f.err.code, "%s", l->f.err.msg);
    sm_state_free(&l->state);
    sm_graph_free(l->g);
    sm_weights_unref(&l->w);
    sm_weights_unref(&l->adapters);
    reference_close(&l->base);
    reference_close(&l->f);
}

static sm_plan *run(lesson *l, int n, sm_node *const *out, const sm_backend *be)
{
    sm_plan *p = sm_plan_new(l->g, n, out, be, &l->f.err);
    for (int i = 0; p && i < 4; i++)
        if (sm_plan_data(p, l->in[i]))
            reference_copy(&l->f, names[i], sm_plan_data(p, l->in[i]), sm_numel(l->in[i]));
    if (p && sm_plan_run(p, NULL, NULL, &l->f.err)) {
        sm_plan_free(p);
        return NULL;
    }
    return p;
}

static void check_backend(const sm_backend *be)
{
    lesson l;
    sm_node *out[128];
    if (open(&l)) {
        record(&l, &(nn_lora){.w = l.adapters, .targets = targets, .ntargets = 4, .scale = 0.5f});
        sm_state_init(&l.state, &l.f.mem, l.adapters, l.loss, false, &l.f.err);
        CHECKF(l.state.count == (int)sm_weights_count(l.adapters), "%d tensors are trained, not %zu", l.state.count,
               sm_weights_count(l.adapters));
        for (int i = 0; i < l.state.count && i < 126; i++)
            out[i + 2] = l.state.t[i].grad;
        out[0] = l.y;
        out[1] = l.loss;
        sm_plan *p = run(&l, l.state.count + 2, out, be);
        if (p) {
            reference_near(&l.f, "out.sample", sm_plan_data(p, l.y), sm_numel(l.y), 1e-4, be->name);
            reference_near(&l.f, "out.loss", sm_plan_data(p, l.loss), 1, 1e-5, be->name);
        }
        for (int i = 0; p && i < l.state.count; i++) {
            char name[256];
            snprintf(name, sizeof name, "grad.%s", l.state.t[i].w->name);
            reference_near(&l.f, name, sm_plan_data(p, l.state.t[i].grad), l.state.t[i].n, 1e-4, be->name);
        }
        sm_plan_free(p);
    }
    shut(&l);
}

TEST(lora_gradients_are_pefts)
{
    const sm_backend *be[4];
    int n = sm_cpu_backends(be);
    for (int i = 0; i < n; i++)
        check_backend(be[i]);
}

/* The first adapter of this UNet is down_blocks.0.attentions.0...attn1.to_q. */
TEST(lora_backward_prunes_itself)
{
    lesson l;
    if (open(&l)) {
        record(&l, &(nn_lora){.w = l.adapters, .targets = targets, .ntargets = 4, .scale = 0.5f});
        int forward = l.g->count, dw = 0, below = 0;
        sm_state_init(&l.state, &l.f.mem, l.adapters, l.loss, false, &l.f.err);
        for (int i = forward; i < l.g->count; i++) {
            const sm_node *n = l.g->nodes[i];
            dw += n->op == SM_OP_CONV2D_DW || n->op == SM_OP_GROUP_NORM_DP || n->op == SM_OP_LAYER_NORM_DP ||
                n->op == SM_OP_SUM_TO;
            below += n->nsrc && (!strncmp(n->name, "conv_in", 7) || !strncmp(n->name, "time_embedding", 14) ||
                                 !strncmp(n->name, "down_blocks.0.resnets.0", 23) || strstr(n->name, "time_emb_proj"));
        }
        CHECKF(dw == 0, "%d gradients of frozen weights", dw);
        CHECKF(below == 0, "%d steps back below the first adapter", below);
        CHECK(l.g->count > forward + 100);
    }
    shut(&l);
}

static float *outputs(const nn_lora *lora, int64_t *n)
{
    lesson l;
    float *y = NULL;
    if (open(&l)) {
        nn_lora own = {0};
        if (lora) {
            own = *lora;
            own.w = sm_weights_new(&l.f.mem, &l.f.err);
        }
        record(&l, lora ? &own : NULL);
        sm_plan *p = run(&l, 1, &l.y, sm_cpu_backend(NULL, NULL));
        *n = sm_numel(l.y);
        y = p ? sm_alloc(NULL, SM_MEM_MISC, sizeof *y * (size_t)*n) : NULL;
        if (y)
            memcpy(y, sm_plan_data(p, l.y), sizeof *y * (size_t)*n);
        sm_plan_free(p);
        sm_weights_unref(&own.w);
    }
    shut(&l);
    return y;
}

TEST(lora_new_adapters_change_nothing)
{
    static const nn_init init = {.seed = 3};
    int64_t n = 0, m = 0;
    float *plain = outputs(NULL, &n),
          *fresh = outputs(&(nn_lora){.init = &init, .targets = targets, .ntargets = 4, .rank = 4, .scale = 2}, &m),
          *none = outputs(&(nn_lora){.targets = targets, .ntargets = 4, .rank = 4, .scale = 2}, &m);
    CHECK(plain && fresh && n == m && test_maxdiff(plain, fresh, n) == 0);
    CHECK(plain && none && test_maxdiff(plain, none, n) == 0);
    sm_free(plain);
    sm_free(fresh);
    sm_free(none);
}
