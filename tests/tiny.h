/* A whole training run small enough for tests: 16-pixel pictures of drawn shapes, every stage a few steps; its end is a
 * model file that requests can be made of. */
#ifndef TINY_H
#define TINY_H

#include "sumi.h"

typedef struct tiny { char dir[256], config[320], pixels[320], index[320]; } tiny;

/* The latter two take pooled text: as SDXL's UNet and as SD 3. The last draws validation sheets. */
typedef enum tiny_kind { TINY_UNET, TINY_UNET_XL, TINY_MMDIT, TINY_KINDS } tiny_kind;

/* Writes data set and configuration. extra: more keys for the autoencoder section (",\"lr\":1"), or "". */
tiny tiny_setup(const char *name, tiny_kind kind, const char *extra);
/* out: NULL for the configuration's folder (s->dir). message: NULL or 640 bytes that get the error. */
sumi_status tiny_train(const tiny *s, const char *out, int resume, int64_t max_steps, int threads, char *message);

/* The finished model file of such a run, trained when first asked for. */
const char *tiny_model(tiny_kind kind);

#endif
