/* Where a request's noise comes from, the parameter rng: sumi's own counter-based numbers, or torch's CPU or CUDA generator
 * as diffusers, ComfyUI and A1111 use it: one generator per picture, seeded with the picture's seed, which draws the start
 * noise and then each step's, every time as one tensor (1, C, H, W). Noise of a picture depends on its own seeds only.
 *
 * What A1111 does with seeds (modules/rng.py, ImageRNG; processing.py): a variation seed's noise is gone towards by slerp, and
 * then pictures that follow count that seed up; a seed resized from another size lays the middle of the noise it has there over
 * its own; with ENSD the noise of steps is that of other seeds, from its beginning. */
#ifndef SM_RANDN_H
#define SM_RANDN_H

#include "base/rng_torch.h"
#include "sample/brownian.h"

typedef enum sm_randn_kind { SM_RANDN_SUMI, SM_RANDN_TORCH, SM_RANDN_PHILOX, SM_RANDN_COUNT } sm_randn_kind;

typedef struct sm_randn {
    sm_randn_kind kind;
    int h, w, c;        /* of a latent */
    int most;           /* pictures at once */
    uint64_t seed;      /* of the first picture; the next ones count up, unless: */
    bool same;          /* all have that */
    int n;              /* pictures */
    uint32_t drawn;     /* draws since the start */
    uint64_t delta;     /* ENSD: added to seeds for the noise of steps */
    bool delayed;       /* it has not been yet */
    double strength;    /* of the variation, 0: none */
    uint64_t subseed;   /* its seed for the first picture; the next ones count up */
    int from_h, from_w; /* latents of the size that seeds are resized from, 0: none */
    float *room;        /* two latents of that size or h x w, where variation or resizing need them */
    sm_torch_cpu *cpu;  /* [most], with torch */
    float *planes;      /* [c, h, w] or [c, from_h, from_w], unless sumi */
    sm_brownian *paths; /* [most], where sm_randn_open_paths made them */
    double low, high;   /* of the paths */
} sm_randn;

/* Seeds of a request's picture k. */
static inline int64_t sm_seed_of(const sumi_request *q, int k) { return q->seed + (q->variation_strength > 0 ? 0 : k); }
static inline int64_t sm_subseed_of(const sumi_request *q, int k)
{
    return q->variation_seed + (q->variation_strength > 0 ? k : 0);
}
/* The kind of that name, SM_RANDN_COUNT for none. */
sm_randn_kind sm_randn_find(const char *name);
/* For up to `most` pictures at once. sm_randn_close in any case. */
sumi_status sm_randn_open(sm_randn *r, sm_mem *mem, const char *name, int most, int h, int w, int c, sm_err *e);
void sm_randn_close(sm_randn *r);
/* Takes over what the request says of variation, resizing and ENSD; f: pixels a side of a latent. */
sumi_status sm_randn_vary(sm_randn *r, sm_mem *mem, const sumi_request *q, int f, sm_err *e);
/* Begins n pictures; what follows is their start noise. */
void sm_randn_start(sm_randn *r, uint64_t seed, int n);
/* The same for pictures first .. first+n-1 of a request. */
void sm_randn_start_of(sm_randn *r, const sumi_request *q, int first, int n);
/* Normals [n, h, w, c]: of the start (draw -1), of the sampler's draws, counted from 0, or of others (-2 and below). torch's
 * generators give their next ones whatever the number. */
void sm_randn_draw(sm_randn *r, int draw, float *out);
/* What picture k's seed alone gives first, [h, w, c], whatever was drawn. */
void sm_randn_plain(sm_randn *r, int k, float *out);

/* Brownian paths, for samplers that ask for increments of one: with torch and philox torchsde's tree between the lowest and the
 * highest sigma, as A1111 and ComfyUI (there on the CPU) make it from the picture's seed. Beside the other draws, which they
 * leave as they are. */
sumi_status sm_randn_open_paths(sm_randn *r, sm_mem *mem, double low, double high, sm_err *e);
/* The paths' unit increments [n, h, w, c] from one sigma down to another. */
void sm_randn_step(sm_randn *r, double from, double to, float *out);

#endif
