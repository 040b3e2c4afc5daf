/* Latents in files: start noise that is given, results and steps that are kept. NCHW as in diffusers; levels in Karras'
 * notation, x = x0 + sigma n (flow: (1 - sigma) x0 + sigma n), which is diffusers' Euler latents. */
#ifndef SM_PIPELINE_LATENTS_H
#define SM_PIPELINE_LATENTS_H

#include "pipeline/generate.h"

/* Where latents go; zeroed where nobody asked. */
typedef struct sm_kept {
    int count, h, w, c;
    int first;  /* step whose latents are the first block: 0, or the number of steps where the result alone is kept */
    int blocks;
    int moves;  /* steps that were told so far: samplers may make fewer than were asked for */
    float *all; /* [blocks][count, c, h, w]; the last block is the result */
} sm_kept;

/* Unit normals of r.count pictures, from number r.init_latents_at on, of the file that init_latents names, into out [count, h, w,
 * c]. */
sumi_status sm_latents_read(const sm_job *j, int h, int w, int c, float *out, sm_err *e);

/* Of j->r.save_latents; flag: whose value that is, for messages. */
sumi_status sm_kept_open(sm_kept *k, const sm_job *j, const char *flag, int h, int w, int c, sm_err *e);
/* x [n, h, w, c] of pictures first..first+n-1 as they are before `step`; step r.steps is the result. Others above are left
 * out. */
void sm_kept_put(sm_kept *k, int step, int first, int n, const float *x);
/* Writes save_latents: "latents", and "latents.0" (the start) to that before the last step where steps were kept. */
sumi_status sm_kept_write(const sm_kept *k, const sm_job *j, sm_err *e);
void sm_kept_close(sm_kept *k);

#endif
