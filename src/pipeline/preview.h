/* How the pictures that a caller looks at on the way are made of latents. */
#ifndef SM_PIPELINE_PREVIEW_H
#define SM_PIPELINE_PREVIEW_H

#include "pipeline/generate.h"

typedef enum sm_preview_method { SM_PREVIEW_FULL, SM_PREVIEW_TAESD, SM_PREVIEW_LINEAR } sm_preview_method;
/* sumi_callbacks.preview_method; NULL and "" are full. */
sumi_status sm_preview_method_of(const char *word, sm_preview_method *out, sm_err *e);

/* A latent's colour, -1..1, as a sum over its channels. */
enum { SM_LINEAR_MOST = 64 };
typedef struct sm_linear_rgb { int channels; float factor[SM_LINEAR_MOST][3], bias[3]; } sm_linear_rgb;

/* The published ones of well-known autoencoders' latents; NULL: none are known. */
const sm_linear_rgb *sm_linear_known(const sumi_model *m);
/* Those that bring n latents [n, channels] nearest to colours [n, 3]: least squares. False: too many channels. */
bool sm_linear_fit(const float *latent, const uint8_t *rgb, int64_t n, int channels, sm_linear_rgb *out);
void sm_linear_apply(const sm_linear_rgb *l, const float *latent, int64_t n, uint8_t *rgb);

#endif
