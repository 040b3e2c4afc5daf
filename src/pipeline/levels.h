/* The noise levels of a request: the model's, as the request changes them, and those that are visited. */
#ifndef SM_PIPELINE_LEVELS_H
#define SM_PIPELINE_LEVELS_H

#include "pipeline/model.h"
#include "sample/sampler.h"

/* The parameter sigmas, a list of levels or the name of a file that holds one, as the list "14.6,7.8,0" in *text, for sm_free.
 * *steps (0: as the list says) becomes the list's. */
sumi_status sm_levels_list(const char *given, int *steps, sm_mem *mem, char **text, sm_err *e);
/* What r, whose sampler is filled in, says about levels and the sampler's knobs goes together and has a meaning for m. */
sumi_status sm_levels_check(const sumi_request *r, const sumi_model *m, sm_err *e);
/* The model's levels with r's shift, zero_snr and beta_schedule; sm_noise_free. */
sumi_status sm_levels_open(sm_noise *out, const sumi_model *m, const sumi_request *r, sm_mem *mem, sm_err *e);
/* The levels of a whole schedule of `steps` steps, or r's list: sigmas, which has room for steps + 2, and *count, the number of
 * steps that there really are (schedules whose levels coincide have fewer). */
sumi_status sm_levels_fill(const sm_noise *n, const sumi_model *m, const sumi_request *r, int steps, double *sigmas, int *count,
                           sm_err *e);
/* eta, s_noise and the churn of r. */
void sm_levels_knobs(const sumi_request *r, sm_sampling *s);

/* A model of that name of a family, of which only the traits mean something: sd15, sdxl, vp:BETA[:START:END], edm[:MIN:MAX],
 * flow[:SHIFT]. */
sumi_status sm_levels_family(const char *name, sumi_model *out, sm_err *e);

#endif
