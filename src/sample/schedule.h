/* Noise levels of a model and the schedules that choose some of them for sampling.
 * Notation of Karras et al. 2022: sigma is the noise level, and a noisy picture is
 *   variance exploding:  x = x0 + sigma n          (every eps, v and x0 model: the model's own x is c_in times this one)
 *   flow:                x = (1 - sigma) x0 + sigma n
 * A timestep is what the model was trained to see: 0..T-1 for the former, (0, T] for flow, both real numbers here. */
#ifndef SM_SAMPLE_SCHEDULE_H
#define SM_SAMPLE_SCHEDULE_H

#include "base/base.h"

/* How a table of betas is made: diffusers' beta_schedule, and CompVis' "sqrt". The first four go from beta_start to beta_end. */
typedef enum sm_beta {
    SM_BETA_LINEAR,        /* evenly (Ho et al. 2020; CompVis calls it sqrt_linear) */
    SM_BETA_SCALED_LINEAR, /* their roots evenly (Rombach et al. 2022; CompVis: linear) */
    SM_BETA_SQRT,          /* roots of evenly spaced numbers */
    SM_BETA_SIGMOID,       /* along a sigmoid from -6 to 6 (GeoDiff) */
    SM_BETA_COSINE,        /* squaredcos_cap_v2 (Nichol & Dhariwal 2021) */
    SM_BETA_LAPLACE,       /* Hang et al. 2024 as in diffusers */
    SM_BETA_EXP            /* what is left falls as exp(-12 t) */
} sm_beta;

/* A model's noise levels. */
typedef struct sm_noise {
    bool flow;
    int steps;         /* training timesteps T */
    double shift;      /* flow only: sigma = shift u / (1 + (shift - 1) u) with u = t / T */
    double sigma_data; /* EDM only (0 else): deviation of the data; the model sees log(sigma) / 4 for a timestep */
    double *log_sigma; /* [T] rising; NULL for flow */
} sm_noise;

/* beta_schedule, beta_start and beta_end as in diffusers' scheduler_config.json (SD 1.x: scaled_linear 0.00085 0.012; kinds from
 * cosine on take no range). steps: 2..100000. */
sumi_status sm_noise_vp(sm_noise *m, sm_mem *mem, sm_beta beta, int steps, double beta_start, double beta_end, sm_err *e);
/* diffusers' trained_betas, each inside (0, 1). */
sumi_status sm_noise_betas(sm_noise *m, sm_mem *mem, const double *betas, int steps, sm_err *e);
/* Rescales a variance-preserving table so that its last level is noise alone (Lin et al. 2024), which as a number is a
 * remaining variance of 2^-24 of the picture, as in diffusers: sigma 4096. */
void sm_noise_zero_snr(sm_noise *m);
/* Karras et al. 2022, trained at any level of sigma_min..sigma_max: T levels even in log sigma stand for them. */
sumi_status sm_noise_edm(sm_noise *m, sm_mem *mem, int steps, double sigma_min, double sigma_max, double sigma_data, sm_err *e);
/* shift > 0, 1 is none (SD 3: 3). */
sumi_status sm_noise_flow(sm_noise *m, int steps, double shift, sm_err *e);
void sm_noise_free(sm_noise *m);
/* By diffusers' name ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp"), "cosine" or "sqrt"; false for
 * another. */
bool sm_beta_by_name(const char *name, sm_beta *out);
/* log sigma [steps] of such a table. */
void sm_beta_levels(sm_beta kind, int steps, double beta_start, double beta_end, double *log_sigma);

double sm_noise_max(const sm_noise *m);
double sm_noise_min(const sm_noise *m);
/* The i-th of the T trained levels, from the lowest: timestep i, for flow i + 1. */
double sm_noise_level(const sm_noise *m, int i);
/* Between the trained levels log sigma is linear in t (k-diffusion's DiscreteSchedule); outside them t is clamped. */
double sm_noise_sigma(const sm_noise *m, double t);
double sm_noise_t(const sm_noise *m, double sigma);
/* The picture's factor in the model's own x, and log of the picture's variance over the noise's there, for data of deviation 1:
 * infinite at sigma 0 and, for flow, at 1. */
double sm_noise_alpha(const sm_noise *m, double sigma);
double sm_noise_log_snr(const sm_noise *m, double sigma);
/* x = (1 or 1 - sigma) x0 + sigma noise; x0 NULL: zero. x may be either of them. */
void sm_noise_mix(bool flow, double sigma, const float *x0, const float *noise, float *x, int64_t n);

/* ---- schedules --------------------------------------------------------------------------------------------------- */

/* What a schedule is asked for. */
typedef struct sm_schedule_opts {
    int steps;
    double sigma_max, sigma_min; /* ends of the range, for rows that have one; 0: the model's */
    double rho;                  /* for rows that have one; 0: theirs */
    bool xl;                     /* the model is of XL's kind, which has levels of its own in align_your_steps */
    bool drop_last;              /* one more step is made and the lowest level but 0 left out (ComfyUI, A1111) */
} sm_schedule_opts;

struct sm_schedule_part;

/* One schedule: falling levels, the last 0. */
typedef struct sm_schedule {
    const char *name;    /* ComfyUI's, or the one it has where it comes from */
    const char *a1111;   /* label of A1111 and its kin */
    const char *alias;   /* another program's name; NULL: none */
    const char *advice;
    const char *source;  /* who defines it */
    bool range;          /* sigma_max and sigma_min mean something */
    double rho;          /* its own; 0: has none */
    bool fewer;          /* levels that coincide are visited once, so there may be fewer steps than asked for */
    bool no_flow;        /* has no meaning for flow models */
    sumi_status (*fill)(const struct sm_schedule_part *q, double *sigmas, sm_err *e);
} sm_schedule;

extern const sm_schedule sm_schedules[];
extern const int sm_schedule_count;

/* By name, alias or A1111's name, letter case aside; NULL where there is none. */
const sm_schedule *sm_schedule_find(const char *name);
/* Fills sigmas, which has room for o->steps + 2, and *steps: the levels are sigmas[0..*steps]. Checks the options (steps
 * 1..100000) and the result: strictly falling, the last 0, a flow's first at most 1. */
sumi_status sm_schedule_make(const sm_schedule *s, const sm_noise *m, const sm_schedule_opts *o, double *sigmas, int *steps,
                             sm_err *e);
/* The same for the model's whole range and exactly `steps` steps: sigmas[steps + 1] is filled and room for it. Rows that may give
 * fewer are refused where they do. */
sumi_status sm_schedule_fill(const sm_schedule *s, const sm_noise *m, int steps, double *sigmas, sm_err *e);

/* Reads falling levels between commas, semicolons or white space ("14.6, 7.8, 0"), at most `room` of them, with or without
 * brackets; returns their number (2 at least), or 0 and e set: not a number, not falling, negative, too many. what: the name in
 * messages. */
int sm_sigmas_parse(const char *text, double *sigmas, int room, const char *what, sm_err *e);

/* Inverse of the regularised incomplete beta function I_x(a, b) = p, the quantile function of the beta distribution; a, b > 0. */
double sm_beta_quantile(double p, double a, double b);

#endif
