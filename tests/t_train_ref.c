/* Ten steps of AdamW on the flow-matching loss against torch.optim.AdamW on diffusers' models (tools/fixtures/make_train.py,
 * computed in double): loss and gradient norm of every step, gradients of the first, weights after the last; the weights'
 * moving average by its definition. Recorded as src/train/flow.c does: the model sees (1 - t) x0 + t noise at 1000 t and
 * answers noise - x0. */
#include "cpu/cpu.h"
#include "model/registry.h"
#include "reference.h"
#include "test.h"
#include "train/state.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 10 };

/* A run on one backend. */
typedef struct lesson {
    reference f;
    sm_weights *w;       /* trainable copies of a file's w.*, without that prefix */
    const sm_backend *be;
    sm_graph *g;
    sm_node *sample, *target, *time, *ctx, *pooled, *loss;
    sm_train_state state;
    sm_plan *plan;
} lesson;

/* The position table of a transformer is a buffer: stored, never trained. */
static void copy_weights(lesson *l, const reference *from)
{
    l->w = sm_weights_new(&l->f.mem, &l->f.err);
    for (size_t i = 0; l->w && i < sm_weights_count(from->w); i++) {
        const sm_weight *x = sm_weights_at(from->w, i);
        if (strncmp(x->name, "w.", 2))
            continue;
        sm_weight *to = sm_weights_create(l->w, x->name + 2, x->t.rank, x->t.dims, &l->f.err);
        if (!to)
            return;
        memcpy(to->t.data, x->t.data, x->bytes);
        to->mutable_data = strcmp(to->name, "pos_embed.pos_embed") != 0;
    }
}

/* An input with the shape that the file's first step has. */
static sm_node *input(lesson *l, const char *name)
{
    const sm_weight *x = reference_find(&l->f, "in.%s.0", name);
    return x ? sm_input(l->g, name, SM_F32, x->t.rank, x->t.dims) : l->g->poison;
}

static void record(lesson *l, const sm_denoiser *family)
{
    sm_denoiser_config c;
    l->g = sm_graph_new(&l->f.mem, &l->f.err);
    if (!l->g || !reference_config(&l->f, family->kind, &c))
        return;
    nn_scope s = nn_root(l->g, l->w, NULL);
    l->sample = input(l, "x0");
    l->target = input(l, "noise");
    l->time = input(l, "t");
    l->ctx = input(l, "encoder_hidden_states");
    l->pooled = family->kind == SM_MODEL_MMDIT ? input(l, "pooled_projections") : NULL;
    l->loss = sm_mse(family->record(&s, &c, l->sample, l->time, &(sm_conditions){.ctx = l->ctx, .pooled = l->pooled}), l->target);
    if (sm_state_init(&l->state, &l->f.mem, l->w, l->loss, true, &l->f.err))
        return;
    sm_node *out[512];
    int n = SM_MIN(l->state.count, 511);
    for (int i = 0; i < n; i++)
        out[i] = l->state.t[i].grad;
    out[n] = l->loss;
    l->plan = sm_plan_new(l->g, n + 1, out, l->be, &l->f.err);
}

static void put(const lesson *l, int step, const char *name, const sm_node *n)
{
    char full[64];
    snprintf(full, sizeof full, "in.%s.%d", name, step);
    reference_copy(&l->f, full, sm_plan_data(l->plan, n), sm_numel(n));
}

static void fill(const lesson *l, int step)
{
    put(l, step, "x0", l->sample);
    put(l, step, "noise", l->target);
    put(l, step, "t", l->time);
    put(l, step, "encoder_hidden_states", l->ctx);
    if (l->pooled)
        put(l, step, "pooled_projections", l->pooled);
    float *x = sm_plan_data(l->plan, l->sample), *v = sm_plan_data(l->plan, l->target), *t = sm_plan_data(l->plan, l->time);
    int64_t batch = l->sample->dims[0], each = sm_numel(l->sample) / batch;
    for (int64_t i = 0; i < batch * each; i++) {
        float s = t[i / each], x0 = x[i];
        x[i] = (1 - s) * x0 + s * v[i];
        v[i] -= x0;
    }
    for (int64_t i = 0; i < batch; i++)
        t[i] *= 1000;
}

/* A figure of the file's f32_error: how far torch in float32 is from torch in float64. */
static double f32_error(const lesson *l, const char *key)
{
    cJSON *j = cJSON_Parse(l->f.f32_error ? l->f.f32_error : "");
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(j, key));
    double x = text ? strtod(text, NULL) : 0;
    CHECKF(x > 0 && x < 1e-2, "%s: f32_error has no %s", l->f.name, key);
    cJSON_Delete(j);
    return x;
}

/* grad0.NAME for the trained tensors that the file has. */
static void compare_gradients(const lesson *l)
{
    int seen = 0;
    for (int i = 0; i < l->state.count; i++) {
        const sm_trained *t = &l->state.t[i];
        char name[256];
        snprintf(name, sizeof name, "grad0.%s", t->w->name);
        if (!sm_weights_find(l->f.w, name))
            continue;
        reference_near(&l->f, name, sm_plan_data(l->plan, t->grad), t->n, 1e-4, l->be->name);
        seen++;
    }
    CHECKF(seen > 30, "%s: only %d gradients", l->f.name, seen);
}

/* final.NAME. The worst weight may be off by as much as torch's is in float32: Adam divides tiny gradients by themselves, so
 * a rounding error there is a step. All together they are within a thousandth of the way they went; without the decay, say,
 * they would be five thousandths off. */
static void compare_weights(const lesson *l)
{
    double worst = 0, squares = 0, n = 0;
    for (int i = 0; i < l->state.count; i++) {
        const sm_trained *t = &l->state.t[i];
        char name[256];
        snprintf(name, sizeof name, "final.%s", t->w->name);
        const sm_weight *want = sm_weights_find(l->f.w, name);
        for (int64_t k = 0; want && k < t->n; k++) {
            double d = fabs((double)((const float *)t->w->t.data)[k] - ((const float *)want->t.data)[k]);
            worst = fmax(worst, d);
            squares += d * d;
            n++;
        }
    }
    double rms = sqrt(squares / fmax(n, 1)), way = f32_error(l, "weight_change_rms");
    CHECKF(n > 500 && rms <= 1e-3 * way, "%s, %s: weights differ by %.3g (rms of %.0f), they moved by %.3g", l->f.name,
           l->be->name, rms, n, way);
    CHECKF(worst <= f32_error(l, "final_weight_abs"), "%s, %s: a weight differs by %.3g", l->f.name, l->be->name, worst);
}

/* The moving average of the first tensor's values by its definition, in double: at step k = 1, 2 ... the decay is (1 + k) / (10 +
 * k), DECAY at most, which it reaches at the eighth. k 0: the weights as they were. */
#define DECAY 0.5
enum { AVERAGED = 64 };
static void average(const lesson *l, int k, double mean[AVERAGED])
{
    const sm_trained *t = &l->state.t[0];
    double keep = k ? fmin(DECAY, (1.0 + k) / (10 + k)) : 0;
    for (int i = 0; i < SM_MIN(t->n, AVERAGED); i++) {
        mean[i] = keep * mean[i] + (1 - keep) * ((const float *)t->w->t.data)[i];
        CHECKF(fabs(mean[i] - t->ema[i]) <= 1e-6, "%s, step %d: average %.8g, not %.8g", l->be->name, k, t->ema[i], mean[i]);
    }
}

/* Loss and norm: ten times what torch loses in float32, as the sums here are in another order. */
static void run(lesson *l, const float *loss, const float *norm)
{
    const sm_opt_config o = {.steps = STEPS, .batch = 3, .lr = 2e-3f, .min_lr = 2e-3f, .beta1 = 0.9f, .beta2 = 0.99f,
                             .eps = 1e-8f,
                             .weight_decay = 0.01f, .clip = 1, .ema = (float)DECAY};
    double loss_tol = 10 * f32_error(l, "loss"), norm_tol = 10 * f32_error(l, "grad_norm"), mean[AVERAGED] = {0};
    average(l, 0, mean);
    for (int k = 0; k < STEPS; k++) {
        double got;
        fill(l, k);
        if (sm_plan_run(l->plan, NULL, NULL, &l->f.err))
            return;
        if (k == 0)
            compare_gradients(l);
        float x = *(const float *)sm_plan_data(l->plan, l->loss);
        CHECKF(fabs(x - loss[k]) <= loss_tol * loss[k], "%s, %s, step %d: loss %.8g, not %.8g", l->f.name, l->be->name, k, x,
               loss[k]);
        if (sm_state_step(&l->state, &o, l->plan, l->be->name, NULL, &got, &l->f.err))
            return;
        CHECKF(fabs(got - norm[k]) <= norm_tol * norm[k], "%s, %s, step %d: gradient norm %.8g, not %.8g", l->f.name, l->be->name,
               k, got, norm[k]);
        average(l, k + 1, mean);
    }
    compare_weights(l);
}

static void check_run(const char *name, const char *weights, const char *class_name)
{
    const sm_backend *be[4];
    int n = sm_cpu_backends(be);
    for (int b = 0; b < n; b++) {
        lesson l = {.be = be[b]};
        reference from = {0};
        if (reference_open(&l.f, name) && reference_open(&from, weights)) {
            copy_weights(&l, &from);
            record(&l, sm_denoiser_by_class(class_name));
            const sm_weight *loss = reference_find(&l.f, "out.loss"), *norm = reference_find(&l.f, "out.grad_norm");
            if (l.plan && loss && norm)
                run(&l, loss->t.data, norm->t.data);
            CHECKF(!l.f.err.code, "%s, %s: %s", name, be[b]->name, l.f.err.msg);
        }
        sm_plan_free(l.plan);
        sm_state_free(&l.state);
        sm_graph_free(l.g);
        sm_weights_unref(&l.w);
        reference_close(&from);
        reference_close(&l.f);
    }
}

TEST(train_ref_unet) { check_run("train_tiny.safetensors", "train_tiny.safetensors", "UNet2DConditionModel"); }
TEST(train_ref_mmdit) { check_run("train_mmdit_tiny.safetensors", "mmdit_tiny.safetensors", "SD3Transformer2DModel"); }
