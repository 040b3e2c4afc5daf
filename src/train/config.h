/* The file that `sumi train` reads: JSON, every key known or an error. docs/TRAINING.md describes it. */
#ifndef SM_TRAIN_CONFIG_H
#define SM_TRAIN_CONFIG_H

#include "train/state.h"

enum { SM_MAX_STYLES = 16, SM_MAX_PROMPTS = 32 };

typedef struct sm_train_config {
    sm_mem *mem;
    void *json;                      /* cJSON tree that the strings below point into */
    const char *name, *output;       /* output: folder for checkpoints, logs, the finished model */
    double seed;
    struct {
        const char *pictures, *index; /* as tools/pictograms/prepare.py writes them */
        const char *styles[SM_MAX_STYLES];
        int nstyles;
        int size;                    /* pixels of a training picture's side */
        int variants;                /* composed variants of each picture whose latents are cached */
    } data;
    int vocab_size;
    const char *vae, *text_encoder, *denoiser; /* JSON texts of the models' configurations */
    struct {
        sm_opt_config opt;
        int crop;                    /* side of the random crops */
        float kl_weight, edge_weight;
        bool decoder_only;           /* the encoder stays as it is: latents in use remain valid */
    } autoencoder;
    struct {
        sm_opt_config opt;
        float dropout;               /* share of captions replaced by the empty one, for classifier-free guidance */
        float logit_mean, logit_std; /* timestep = sigmoid(mean + std * normal) */
        float plain;                 /* chance that an example is the picture's plain variant, whatever its share */
    } flow;
    struct {
        int64_t every;               /* steps between validation sheets; 0: none */
        const char *prompts[SM_MAX_PROMPTS];
        int nprompts, steps;
        float cfg;
    } validate;
} sm_train_config;

sumi_status sm_train_config_load(sm_train_config *c, sm_mem *mem, const char *path, sm_err *e);
void sm_train_config_free(sm_train_config *c);

#endif
