/* The fill functions of schedule.c's table, by file. */
#ifndef SM_SAMPLE_SCHEDULE_ROWS_H
#define SM_SAMPLE_SCHEDULE_ROWS_H

#include "sample/schedule.h"

/* A checked request: n levels are wanted, of a model, between top and low. */
typedef struct sm_schedule_part {
    const sm_schedule *row;
    const sm_noise *m;
    int n;
    double top, low, rho;
    bool xl;
} sm_schedule_part;

/* i-th of n equal steps from a to b, both included; a alone for n = 1. */
static inline double sm_even(double a, double b, int i, int n) { return n > 1 ? a + (b - a) * i / (n - 1) : a; }

/* ---- schedule_times.c: even timesteps, trained levels ---------------------------------------------------------------- */

sumi_status sm_fill_normal(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_sgm_uniform(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_simple(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_ddim_uniform(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_turbo(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_lcm(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_beta(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_linear(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_scaled_linear(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_cosine(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_sqrt(const sm_schedule_part *q, double *s, sm_err *e);

/* ---- schedule_curves.c: formulas between two levels, and published lists --------------------------------------------- */

sumi_status sm_fill_karras(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_exponential(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_polyexponential(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_kl_optimal(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_laplace(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_beta_sigmas(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_linear_quadratic(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_ays(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_ays_11(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_ays_32(const sm_schedule_part *q, double *s, sm_err *e);
sumi_status sm_fill_ays_gits(const sm_schedule_part *q, double *s, sm_err *e);

#endif
