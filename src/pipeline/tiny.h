/* The tiny autoencoder that came with --taesd: loading it, decoding and encoding with it. */
#ifndef SM_PIPELINE_TINY_H
#define SM_PIPELINE_TINY_H

#include "model/taesd.h"
#include "pipeline/generate.h"

struct sm_tiny {
    sm_weights *w;   /* decoder.layers.*, encoder.layers.* */
    sm_taesd_config c;
};

/* A file with either half or both, in any layout, or a folder of diffusers. It must fit m's latents. */
sumi_status sm_tiny_load(sumi_model *m, const char *path, sm_err *e);
void sm_tiny_free(struct sm_tiny *t); /* takes NULL */
/* SUMI_E_ARG that names the flag: there is no such decoder, or encoder. */
sumi_status sm_tiny_wanted(const sumi_model *m, bool encoder, const char *flag, sm_err *e);

/* Whether the request's encoder is the tiny one; whether a picture of the request depends on the tiny autoencoder. */
bool sm_tiny_encodes(const sm_job *j);
bool sm_tiny_makes(const sm_job *j);
/* Appends to line that --taesd has no effect, where neither pictures nor previews use it. */
void sm_tiny_idle(const sm_job *j, sm_buf *line);

/* One half on pictures of h x w latents, the large ones in bands of latent rows that see all that the whole would. */
typedef struct sm_tiny_bands {
    const sm_job *j;
    bool encoder;
    int h, w;
    int rows, window; /* that a band gives, that it sees */
    sm_part part;
    float *out;       /* of a picture in bands */
} sm_tiny_bands;

sm_tiny_bands sm_tiny_bands_of(const sm_job *j, bool encoder, int h, int w); /* sm_tiny_wanted said yes */
sumi_status sm_tiny_open(sm_tiny_bands *b, sm_err *e);   /* makes the plan, if there is none */
void sm_tiny_close(sm_tiny_bands *b);
double sm_tiny_flops(const sm_tiny_bands *b);            /* of a picture; after sm_tiny_open */
/* A latent [h, w, c] as the denoiser has it to [height, width, 3], about -1..1, or the other way round; good until the next, NULL
 * on failure. */
const float *sm_tiny_run(sm_tiny_bands *b, const float *in, sm_err *e);
/* A picture [height, width, 3] in -1..1 to moments as sm_encode_run gives them: the mean, and a log variance so low that there is
 * none. */
sumi_status sm_tiny_encode(const sm_job *j, int h, int w, const float *image, float *moments, sm_err *e);

#endif
