/* What a training run carries from step to step: the trained tensors with AdamW's moments and the moving average (EMA),
 * and the step number. Everything else (data order, noise, dropout) is computed from the seed and the step, so this state
 * is all that a checkpoint needs for a run to go on bit for bit.
 * AdamW: Loshchilov and Hutter 2019, as torch.optim.AdamW; decay only on tensors of two or more dimensions. */
#ifndef SM_TRAIN_STATE_H
#define SM_TRAIN_STATE_H

#include "base/pool.h"
#include "graph/weights.h"

typedef struct sm_opt_config {
    int64_t steps, warmup;      /* total steps; linear warm-up over the first of them */
    int batch;
    float lr, min_lr;           /* cosine from lr to min_lr after the warm-up */
    float beta1, beta2, eps, weight_decay;
    float clip;                 /* largest norm of all gradients together; 0: none */
    float ema;                  /* decay of the moving average, reached through min(ema, (1+step)/(10+step)); 0: none */
    int64_t save_every, log_every;
} sm_opt_config;

typedef struct sm_trained {
    sm_weight *w;
    sm_node *param, *grad;      /* in the training graph */
    float *m, *v, *ema;         /* n each; ema NULL when not kept */
    int64_t n;
    bool frozen;                /* keeps its value, its grad is not computed */
} sm_trained;

typedef struct sm_train_state {
    sm_mem *mem;
    sm_trained *t;
    int count;
    int64_t step;               /* steps done */
    float *block;               /* m, v and ema of all tensors */
    char words[20];             /* digest of the tokenizer that the ids of the data come from; "": the stage reads no text */
} sm_train_state;

/* Collects the mutable params of the graph that loss depends on and appends their gradients. */
sumi_status sm_state_init(sm_train_state *s, sm_mem *mem, sm_weights *w, sm_node *loss, bool ema, sm_err *e);
void sm_state_free(sm_train_state *s);

/* Tensor i changes no more: its value is the moving average from now on. To be called before the plan is made. */
void sm_state_freeze(sm_train_state *s, int i);

/* The learning rate of step (counted from 0). */
float sm_lr_at(const sm_opt_config *c, int64_t step);

/* One AdamW update from the gradients that the plan has just computed; raises step. *norm gets the gradients' L2 norm
 * before clipping. SUMI_E_NUMERIC, with nothing changed, when it is not finite. */
sumi_status sm_state_step(sm_train_state *s, const sm_opt_config *c, const sm_plan *plan, const char *isa, sm_pool *pool,
                          double *norm, sm_err *e);

/* Checkpoint: one safetensors file, w.NAME m.NAME v.NAME e.NAME, metadata step, stage and words. Written whole or not at all;
 * SUMI_E_NUMERIC, and the older file stays, when a value is not finite. Loading refuses other words than s's; a file that does
 * not say any, as older versions wrote, is taken. */
sumi_status sm_state_save(const sm_train_state *s, const char *path, const char *what, sm_err *e);
sumi_status sm_state_load(sm_train_state *s, const char *path, const char *what, sm_err *e);

#endif
