/* What a request does: encode the prompts and the picture that it begins from, sample latents, decode them. Used by the public
 * call and by the trainer's validation. */
#ifndef SM_GENERATE_H
#define SM_GENERATE_H

#include "pipeline/model.h"

/* A request with every default of the model filled in. */
typedef struct sm_job {
    const sumi_model *m;
    const sm_backend *be;
    const sm_backend *compute;  /* what --compute makes of it, for texts and the denoiser */
    sm_pool *pool;
    sm_mem *mem;
    const sumi_callbacks *cb;
    sumi_request r;          /* complete: no 0 or -1 left that means "default", but for what only the run can know */
    const char *const *prompts; /* r.count prompts; NULL: r.prompt for all */
    int prompt_steps;           /* steps that prompts count in ([a:b:0.5]) where only a part of them runs; 0: r.steps */
    const char *const *sources; /* r.count prompts to edit from, where choices made them differ; NULL: r.edit_from_prompt */
    const char *const *negatives; /* r.count negative prompts, where choices made them differ; such pictures are drawn one by
                                     one */
    double started;
    char *sigmas;               /* of r.sigmas, sm_job_done; NULL: none */
    bool circular[2];           /* the picture's edges meet, y, x */
    sumi_model *refiner;        /* goes on with the last steps (refine.h); NULL: none */
    struct sm_classify *classify; /* classifier guidance (classify.h); NULL: none */
    struct sm_edit *edit;       /* pictures that the request begins from (edit.h); NULL: it begins from noise */
    int out_width, out_height;  /* of the pictures that come out; r.width and r.height are what is drawn first */
} sm_job;

/* Fills defaults, reads the request's pictures, checks sizes and names against the model. sm_job_done when it succeeded. */
sumi_status sm_job_init(sm_job *j, const sumi_model *m, sumi_context *ctx, const sumi_request *r, sm_err *e);
void sm_job_done(sm_job *j);
/* Makes the choices in the prompts, in arena a, which outlives the job. */
sumi_status sm_job_choose(sm_job *j, sm_arena *a, sm_err *e);
/* Draws r.count pictures into rgb, uint8 [count, out_height, out_width, 3]. Picture k has the seed sm_seed_of(&r, k). */
sumi_status sm_job_run(sm_job *j, uint8_t *rgb, sm_err *e);
/* Bytes and flops of the request, without running it. */
sumi_status sm_job_plan(sm_job *j, sumi_plan_info *out, sm_err *e);
/* A1111's parameters text for picture k; appended to b. */
void sm_job_infotext(const sm_job *j, int k, sm_buf *b);

/* ---- for the parts of a request ------------------------------------------------------------------------------------ */

/* One component's graph and plan. */
typedef struct sm_part {
    sm_graph *g;
    sm_plan *p;
    sm_node *in[10], *out;
    sm_node *pooled; /* text: second output, or NULL */
} sm_part;

void sm_part_close(sm_part *p);
/* Bytes that the context holds, those included that wait for the next part. */
size_t sm_job_held(const sm_job *j);
const int *sm_job_cancel(const sm_job *j);
void sm_job_tell(const sm_job *j, const char *stage, int64_t step, int64_t steps, double eta);
/* What plans may hold: with low_memory nothing that can be had again. */
sm_plan_opts sm_job_plan_opts(const sm_job *j);
/* Bytes of the model's mapped weights whose names begin so (NULL: of all), which the memory's count leaves out; and whether the
 * model is so large that only the component at work is kept. */
size_t sm_job_mapped(const sumi_model *m, const char *prefix);
bool sm_job_large(const sumi_model *m);
/* The scope of a component of the model, with the request's way of padding. */
nn_scope sm_job_scope(const sm_job *j, sm_graph *g, const char *component);
/* A component has done its work: pages of its mapped weights are given back, unless the model is small. */
void sm_job_release(const sm_job *j, const char *component);

#endif
