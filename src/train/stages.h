/* The stages of a training run: autoencoder, latents, flow, export. Each is a graph, a way to fill its inputs for a step,
 * and the generic loop (loop.c). */
#ifndef SM_STAGES_H
#define SM_STAGES_H

#include <unistd.h>

#include "cpu/cpu.h"
#include "model/registry.h"
#include "text/bpe.h"
#include "train/config.h"
#include "train/dataset.h"

/* Streams of the counter-based generator, one per purpose; a caller's step is part of the offset. */
enum { SM_STREAM_VAE_CROP = 101, SM_STREAM_VAE_NOISE, SM_STREAM_NOISE, SM_STREAM_TIME, SM_STREAM_DROP, SM_STREAM_VARIANT,
      SM_STREAM_ORDER, SM_STREAM_PLAIN };

typedef struct sm_trainer {
    sm_mem *mem;
    const sm_backend *be;
    sm_pool *pool;
    const sumi_callbacks *cb;
    sm_train_config cfg;
    sm_dataset *data;
    sm_bpe *bpe;
    char *merges;                /* the tokenizer's text */
    sm_clip_config clip;
    sm_vae_config vae;
    const sm_denoiser *family;
    sm_denoiser_config denoiser;
    sm_weights *vae_weights;     /* names under "vae." */
    sm_weights *flow_weights;    /* names under "text_encoder." and the denoiser's component */
    uint16_t *latents;           /* f16 [pictures * variants, h, w, L], raw (not shifted or scaled); flow stage */
    float shift, scale;          /* the denoiser's latent is (z - shift) * scale */
    sm_compose_opts compose;
    nn_init init;
    char out[400];               /* output folder */
    int lock;                    /* the output folder, locked against other runs; -1: not */
    bool resume, as_is;          /* as_is: the checkpoints are only read, and must be there */
    int64_t steps_left;          /* of this call; < 0: no limit */
    double started;
} sm_trainer;

/* A stage in the loop's eyes. */
typedef struct sm_stage {
    const char *name;            /* "autoencoder", "flow": names the checkpoint and the log lines */
    const sm_opt_config *opt;
    sm_graph *g;
    sm_node *loss;
    sm_weights *weights;
    bool reads_text;             /* its checkpoint belongs to the tokenizer */
    /* Writes the inputs of a step (counted from 0). */
    sumi_status (*fill)(struct sm_stage *s, sm_trainer *t, const sm_plan *p, int64_t step, sm_err *e);
    /* Tensors that stay as the checkpoint's average has them; may be NULL. */
    bool (*frozen)(const sm_trainer *t, const char *name);
    /* After every validate.every steps and at the end; may be NULL. */
    sumi_status (*validate)(struct sm_stage *s, sm_trainer *t, const sm_train_state *st, int64_t step, sm_err *e);
    void *self;
} sm_stage;

/* Trains until the stage's steps are done, t->steps_left runs out, or it is cancelled; leaves a checkpoint in each case.
 * *done tells whether all steps are done. A finished stage's weights are its moving average. */
sumi_status sm_loop_run(sm_stage *s, sm_trainer *t, bool *done, sm_err *e);
/* A task's failure, from any thread: the first one goes to `to`, which is read when all tasks have ended. */
void sm_task_failed(sm_err *to, const sm_err *from);
/* Which of n examples is number `at` of the run: a new permutation every n examples (order.c). */
int64_t sm_epoch_order(uint64_t seed, int64_t n, int64_t at);
/* Which variant that example shows: the plain one by the chance flow.plain, else any of them (flow.c). */
int64_t sm_flow_variant(const sm_train_config *c, uint64_t seed, uint64_t at);
/* Whether a file or folder is there. */
static inline bool sm_file_exists(const char *path) { return access(path, F_OK) == 0; }
/* Path of a file in the output folder, in buf. */
const char *sm_out_path(const sm_trainer *t, const char *name, char buf[512]);

sumi_status sm_stage_autoencoder(sm_trainer *t, bool *done, sm_err *e);
/* Encodes every variant of every training picture, measures the latents' mean and deviation (shift_factor and
 * scaling_factor), writes latents.safetensors. */
sumi_status sm_stage_latents(sm_trainer *t, bool *done, sm_err *e);
sumi_status sm_stage_flow(sm_trainer *t, bool *done, sm_err *e);
/* Writes the finished model file from the moving averages. */
sumi_status sm_stage_export(sm_trainer *t, bool *done, sm_err *e);

#endif
