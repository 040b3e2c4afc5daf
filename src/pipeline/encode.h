/* Pixels to latents: the encoder of a request, whole or in tiles by the rules of decode.h. */
#ifndef SM_PIPELINE_ENCODE_H
#define SM_PIPELINE_ENCODE_H

#include "pipeline/generate.h"

/* What encoding a picture of h x w latents takes beside mapped weights, the picture and the latents: bytes in all, and of
 * those. */
typedef struct sm_encode_info { size_t bytes, packed, activation; double flops; } sm_encode_info;

/* image [h f, w f, 3] in -1..1, f the autoencoder's factor, to moments [h, w, 2 c]: mean, then log variance. */
sumi_status sm_encode_run(const sm_job *j, int h, int w, const float *image, float *moments, sm_err *e);
sumi_status sm_encode_plan(const sm_job *j, int h, int w, sm_encode_info *out, sm_err *e);

/* A latent of moments, `pixels` of them: mean + deviation * noise; noise NULL: the mean. scaled: as the denoiser knows it (by
 * factor and shift, or by the channels' statistics); else as the autoencoder does. */
void sm_encode_latent(const sumi_model *m, const float *moments, const float *noise, bool scaled, int64_t pixels, float *out);

#endif
