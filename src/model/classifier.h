/* The classifier of noisy pictures that classifier guidance asks (Dhariwal & Nichol 2021): the half of a UNet on the way down,
 * with a pool on top, in the layout of guided-diffusion's EncoderUNetModel (guided_diffusion/unet.py). */
#ifndef SM_CLASSIFIER_H
#define SM_CLASSIFIER_H

#include "model/model.h"

enum { SM_CLASSIFIER_BLOCKS = 128 }; /* input blocks at most */

typedef enum sm_classifier_pool {
    SM_POOL_ADAPTIVE,  /* mean over places, one layer */
    SM_POOL_ATTENTION, /* the mean asks all places, as in CLIP's image towers; its position table fixes how many there are */
    SM_POOL_SPATIAL,   /* means of every block's output, two layers with ReLU between */
    SM_POOL_SPATIAL_V2 /* the same with a group norm and SiLU */
} sm_classifier_pool;

typedef enum sm_classifier_block {
    SM_DOWN_NONE, /* a residual block, perhaps with attention */
    SM_DOWN_RES,  /* a residual block between halved pictures (resblock_updown) */
    SM_DOWN_CONV, /* a convolution of stride 2 */
    SM_DOWN_POOL  /* the mean of 2x2 */
} sm_classifier_block;

/* What no tensor tells, by guided-diffusion's names of arguments; 0: not said. */
typedef struct sm_classifier_hints {
    int num_res_blocks;
    int num_heads, num_head_channels; /* the latter wins */
    bool use_new_attention_order;
} sm_classifier_hints;

typedef struct sm_classifier_config {
    char component[64];               /* the scope in the table */
    int in_channels, model_channels, classes;
    int blocks;                       /* input blocks; block 0 is a convolution */
    sm_classifier_block down[SM_CLASSIFIER_BLOCKS];
    int halvings;
    int groups;
    int heads, head_channels;         /* head_channels not 0: a head for so many channels */
    bool new_order;                   /* q, k, v first and then heads; else heads first */
    sm_classifier_pool pool;
    int64_t places;                   /* of SM_POOL_ATTENTION: height times width at its end; 0: any */
} sm_classifier_config;

/* Reads the configuration off the tensors in the table, whatever stands before their names there ("classifier.", "module.").
 * Heads are 64 channels wide where all attentions divide so, as in guided-diffusion's create_classifier, and else there is one,
 * unless hints say otherwise. Where the blocks on the way down could be told from others in several ways, num_res_blocks is asked
 * for. SUMI_E_MODEL: no such classifier. what: a name for messages. */
sumi_status sm_detect_classifier(const sm_weights *w, const sm_classifier_hints *hints, sm_classifier_config *c, const char *what,
                                 sm_err *e);
/* x [N,H,W,in], timestep [N] f32 -> logits [N,classes]. */
sm_node *sm_classifier(const nn_scope *s, const sm_classifier_config *c, sm_node *x, sm_node *timestep);

#endif
