/* Classifier guidance (Dhariwal & Nichol 2021, section 4): the gradient of log p(class | noisy latents) of a classifier that the
 * user brings moves the guided prediction, after everything else that guidance does (as guided-diffusion's condition_score, which
 * begins with the finished x0). The classifier sees what the denoiser sees: latents in the model's own scale, and the
 * timestep. */
#ifndef SM_PIPELINE_CLASSIFY_H
#define SM_PIPELINE_CLASSIFY_H

#include "model/classifier.h"
#include "pipeline/generate.h"

struct sm_denoise;

typedef struct sm_classify {
    sm_weights *w;
    sm_classifier_config c;
    int label;       /* the class to go towards */
    char hash[11];   /* of the file, as A1111's "Model hash"; "" for a folder */
} sm_classify;

/* Loads r.classifier into j->classify, which sm_job_done releases, finds the class and checks that it goes with the model's
 * latents. Fills r.classifier_hash. The file's metadata may have, by guided-diffusion's names, what no tensor tells
 * (sm_classifier_hints), and "class_names", a JSON list of texts. */
sumi_status sm_classify_load(sm_job *j, sm_err *e);
void sm_classify_free(sm_classify *k);
/* A line about the file, if it is a classifier: "noisy classifier, 10 classes, 4 channels, adaptive pool". */
bool sm_classify_describe(const char *path, sm_mem *mem, char *out, size_t size);
/* Whether it can look at h x w latents; recorded on them as a trial. */
sumi_status sm_classify_fits(const sm_job *j, int h, int w, sm_err *e);
/* d->classifier for d's pictures, planned where it is not yet. In low memory no other plan of d is kept then, and only one
 * picture is looked at at a time. */
sumi_status sm_classify_part(struct sm_denoise *d, sm_err *e);
/* What looking at all pictures once takes. */
sumi_status sm_classify_flops(struct sm_denoise *d, double *flops, sm_err *e);
/* x0 += by * gradient in what the denoiser sees of x; both [n, h, w, c]. */
sumi_status sm_classify_push(struct sm_denoise *d, double by, const float *x, double c_in, double t, float *x0, sm_err *e);
/* The plan is released; of large models also the weights' pages. */
void sm_classify_done(struct sm_denoise *d);

#endif
