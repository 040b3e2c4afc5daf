/* Times training steps: forward, backward, update.
 *     bench_train flow RECIPE STEPS [threads] [profile] the flow stage of a recipe (models/pictograms/train.json) on random
 *     latents and ids
 *     bench_train lora DIR STEPS [threads] [profile] [rank] [size] adapters of rank 16 on the attentions of the UNet in DIR
 *     (diffusers'
 *                                                           folder), one picture of 256x256, the noise as target
 * Prints the seconds of every step as `sumi run --repeat` does, processor seconds beside them, then memory. Inputs are drawn anew
 * for every step. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/rng.h"
#include "cpu/cpu.h"
#include "io/tensors.h"
#include "model/registry.h"
#include "train/config.h"

typedef struct job {
    sm_err e;
    const sm_backend *be;
    sm_pool *pool;
    sm_graph *g;
    sm_weights *base, *trained;
    sm_opt_config opt;
    sm_node *sample, *target, *time, *ids, *eos, *ctx, *loss;
    sm_clip_config clip;
    bool flow;
} job;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_train: %s: %s\n", what, why);
    exit(1);
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void record_flow(job *j, const char *recipe)
{
    static const nn_init init = {.seed = 1};
    sm_train_config c;
    sm_denoiser_config den;
    if (sm_train_config_load(&c, NULL, recipe, &j->e))
        die(recipe, j->e.msg);
    const sm_denoiser *f = sm_denoiser_by_class("UNet2DConditionModel");
    sm_vae_config vae;
    if (sm_config_read(SM_MODEL_CLIP, c.text_encoder, strlen(c.text_encoder), &j->clip, &j->e) ||
        sm_config_read(SM_MODEL_VAE, c.vae, strlen(c.vae), &vae, &j->e) ||
        sm_config_read(f->kind, c.denoiser, strlen(c.denoiser), &den, &j->e))
        die(recipe, j->e.msg);
    j->clip.vocab_size = c.vocab_size;
    j->clip.eos_token_id = c.vocab_size - 1;
    sm_denoiser_settle(f, &den, &j->clip);
    j->trained = sm_weights_new(NULL, &j->e);
    int64_t b = c.flow.opt.batch, s = c.data.size / sm_vae_factor(&vae), tokens = j->clip.max_position_embeddings,
            l = vae.latent_channels;
    nn_scope root = nn_root(j->g, j->trained, &init), text = nn_sub(&root, "text_encoder"),
             scope = nn_sub(&root, "%s", f->component);
    j->sample = sm_input(j->g, "sample", SM_F32, 4, (int64_t[]){b, s, s, l});
    j->target = sm_input(j->g, "target", SM_F32, 4, (int64_t[]){b, s, s, l});
    j->time = sm_input(j->g, "timestep", SM_F32, 1, &b);
    j->ids = sm_input(j->g, "input_ids", SM_I32, 2, (int64_t[]){b, tokens});
    j->eos = f->pooled_width(&den) ? sm_input(j->g, "eos", SM_I32, 1, &b) : NULL;
    sm_clip_out out = sm_clip_text(&text, &j->clip, j->ids, j->eos);
    sm_conditions cond = {.ctx = out.last, .pooled = sm_denoiser_pooled(f, &den, &out)};
    j->loss = sm_mse(f->record(&scope, &den, j->sample, j->time, &cond), j->target);
    j->opt = c.flow.opt;
    sm_train_config_free(&c);
}

static void record_lora(job *j, const char *dir, int rank, int size)
{
    static const nn_init init = {.seed = 1};
    static const char *const targets[] = {"to_q", "to_k", "to_v", "to_out.0"};
    char path[600], config[4000];
    sm_unet_config c;
    snprintf(path, sizeof path, "%s/unet/config.json", dir);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(config, 1, sizeof config, f) : 0;
    if (!f || fclose(f) || sm_config_read(SM_MODEL_UNET, config, n, &c, &j->e))
        die(path, f ? j->e.msg : "cannot read");
    snprintf(path, sizeof path, "%s/unet", dir);
    j->base = sm_weights_new(NULL, &j->e);
    j->trained = sm_weights_new(NULL, &j->e);
    if (!j->base || !j->trained || sm_tensors_load(path, j->base, "unet.", NULL, &j->e))
        die(path, j->e.msg);
    nn_lora lora = {.w = j->trained, .init = &init, .targets = targets, .ntargets = SM_COUNT(targets), .rank = rank, .scale = 1};
    nn_scope root = nn_root(j->g, j->base, NULL), s = nn_sub(&root, "unet");
    s.lora = &lora;
    int64_t one = 1, side = size / 8;
    j->sample = sm_input(j->g, "sample", SM_F32, 4, (int64_t[]){1, side, side, c.in_channels});
    j->target = sm_input(j->g, "target", SM_F32, 4, (int64_t[]){1, side, side, c.out_channels});
    j->time = sm_input(j->g, "timestep", SM_F32, 1, &one);
    j->ctx = sm_input(j->g, "context", SM_F32, 3, (int64_t[]){1, 77, c.cross_attention_dim});
    j->loss = sm_mse(sm_unet(&s, &c, j->sample, j->time, j->ctx, NULL), j->target);
    j->opt = (sm_opt_config){.steps = 1000, .batch = 1, .lr = 1e-4f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f,
                             .weight_decay = 0.01f, .clip = 1};
}

/* Latents of a unit normal; rectified flow (x0 to noise - x0), or variance-preserving noise as the target. */
static void fill(job *j, const sm_plan *p, uint64_t step)
{
    float *x = sm_plan_data(p, j->sample), *v = sm_plan_data(p, j->target), *t = sm_plan_data(p, j->time), x0[4096];
    int64_t n = sm_numel(j->sample), b = j->time->dims[0], each = n / b;
    sm_rng_normal(2, step, 0, v, (size_t)n);
    sm_rng_uniform(3, step, 0, t, (size_t)b);
    for (int64_t i = 0; i < b; i++)
        for (int64_t at = 0; at < each; at += 4096) {
            int64_t m = SM_MIN(each - at, 4096);
            float s = t[i], *xi = x + i * each + at, *vi = v + i * each + at;
            sm_rng_normal(4, (uint64_t)i, (uint64_t)at, x0, (size_t)m);
            for (int64_t k = 0; k < m; k++) {
                xi[k] = j->flow ? (1 - s) * x0[k] + s * vi[k] : sqrtf(1 - s) * x0[k] + sqrtf(s) * vi[k];
                vi[k] -= j->flow ? x0[k] : 0;
            }
        }
    for (int64_t i = 0; i < b; i++)
        t[i] *= 1000;
    if (j->ctx)
        sm_rng_normal(5, step, 0, sm_plan_data(p, j->ctx), (size_t)sm_numel(j->ctx));
    if (!j->ids)
        return;
    int32_t *ids = sm_plan_data(p, j->ids), tokens = (int32_t)j->ids->dims[1];
    for (int64_t i = 0; i < sm_numel(j->ids); i++)
        ids[i] = i % tokens ? (int32_t)(sm_rng_u32(6, step, (uint64_t)i) % (uint32_t)(j->clip.vocab_size - 1))
                            : j->clip.vocab_size - 2;
    for (int64_t i = 0; i < b; i++)
        ids[i * tokens + 10] = j->clip.eos_token_id;
    if (j->eos)
        sm_clip_eos_rows(&j->clip, ids, (int)b, tokens, sm_plan_data(p, j->eos));
}

static void train(job *j, int steps, bool profile)
{
    sm_train_state s;
    double norm, t = sm_now();
    if (sm_state_init(&s, NULL, j->trained, j->loss, j->opt.ema > 0, &j->e))
        die("gradients", j->e.msg);
    sm_node **out = malloc(sizeof *out * (size_t)(s.count + 1));
    int64_t values = 0;
    for (int i = 0; out && i < s.count; i++) {
        out[i] = s.t[i].grad;
        values += s.t[i].n;
    }
    if (out)
        out[s.count] = j->loss;
    sm_plan *p = out ? sm_plan_new(j->g, s.count + 1, out, j->be, &j->e) : NULL;
    if (!p)
        die("plan", j->e.msg);
    free(out);
    printf("%s, %d threads, %d tensors of %.2f M values trained, %d steps in a plan made in %.1f s: %.1f GFLOP of direct sums, "
           "%.0f MB of activations and gradients, "
           "%.0f MB of packed weights\n", j->be->name, sm_pool_threads(j->pool), s.count, (double)values * 1e-6,
           sm_plan_steps(p), sm_now() - t,
           sm_plan_cost(p).flops * 1e-9, (double)sm_plan_activation_bytes(p) * 1e-6, (double)sm_plan_packed_bytes(p) * 1e-6);
    for (int i = 0; i < steps; i++) {
        double cpu = cpu_seconds();
        t = sm_now();
        fill(j, p, (uint64_t)i);
        if (i == 1)
            sm_plan_profile(p, profile);
        if (sm_plan_run(p, j->pool, NULL, &j->e))
            die("run", j->e.msg);
        double ran = cpu_seconds() - cpu;
        if (sm_state_step(&s, &j->opt, p, j->be->name, j->pool, &norm, &j->e))
            die("update", j->e.msg);
        cpu = cpu_seconds() - cpu;
        printf("evaluation %d: %.6f s\n  processor %.4f s, of which update %.4f s; loss %.6f, norm of the gradients %.6f\n",
               i + 1, sm_now() - t, cpu, cpu - ran, (double)*(float *)sm_plan_data(p, j->loss), norm);
        fflush(stdout);
    }
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    printf("most memory resident: %.0f MB\n", (double)u.ru_maxrss * 1024e-6);
    if (profile) {
        sm_buf b = {0};
        sm_plan_report(p, &b);
        sm_plan_memory(p, &b);
        printf("%s", b.data);
        sm_buf_free(&b);
    }
    sm_plan_free(p);
    sm_state_free(&s);
}

int main(int argc, char **argv)
{
    job j = {.flow = argc > 1 && !strcmp(argv[1], "flow")};
    if (argc == 1) {
        printf("bench_train: flow RECIPE STEPS | lora DIR STEPS, then threads, profile (0, 1), rank, size\n");
        return 0;
    }
    if (argc < 4 || (!j.flow && strcmp(argv[1], "lora")))
        die("arguments", "flow RECIPE STEPS | lora DIR STEPS, then threads, profile (0, 1), rank, size");
    int threads = argc > 4 ? atoi(argv[4]) : sm_cpu_count();
    j.be = sm_cpu_backend(NULL, &j.e);
    j.pool = j.be ? sm_pool_new(NULL, threads, &j.e) : NULL;
    j.g = j.pool ? sm_graph_new(NULL, &j.e) : NULL;
    if (!j.g)
        die("start", j.e.msg);
    if (j.flow)
        record_flow(&j, argv[2]);
    else
        record_lora(&j, argv[2], argc > 6 ? atoi(argv[6]) : 16, argc > 7 ? atoi(argv[7]) : 256);
    train(&j, atoi(argv[3]), argc > 5 && atoi(argv[5]));
    sm_graph_free(j.g);
    sm_weights_unref(&j.base);
    sm_weights_unref(&j.trained);
    sm_pool_free(j.pool);
    return 0;
}
