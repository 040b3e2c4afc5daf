/* Noise levels of a model and the schedules that choose some of them for sampling.
 * Notation of Karras et al. 2022: sigma is the noise level, and a noisy picture is
 *   variance exploding:  x = x0 + sigma n          (every eps, v and x0 model: the model's own x is c_in times this one)
 *   flow:                x = (1 - sigma) x0 + sigma n
 * A timestep is what the model was trained to see: 0..T-1 for the former, (0, T] for flow, both real numbers here. */
#ifndef SM_SAMPLE_SCHEDULE_H
#define SM_SAMPLE_SCHEDULE_H

#include "base/base.h"

typedef enum sm_beta { SM_BETA_LINEAR, SM_BETA_SCALED_LINEAR, SM_BETA_COSINE } sm_beta;

/* A model's noise levels. */
typedef struct sm_noise {
    bool flow;
    int steps;         /* training timesteps T */
    double shift;      /* flow only: sigma = shift u / (1 + (shift - 1) u) with u = t / T */
    double sigma_data; /* EDM only (0 else): deviation of the data; the model sees log(sigma) / 4 for a timestep */
    double *log_sigma; /* [T] rising; NULL for flow */
} sm_noise;

/* beta_schedule, beta_start and beta_end as in diffusers' scheduler_config.json (SD 1.x: scaled_linear 0.00085 0.012; the
 * cosine schedule takes no range). steps: 2..100000. */
sumi_status sm_noise_vp(sm_noise *m, sm_mem *mem, sm_beta beta, int steps, double beta_start, double beta_end, sm_err *e);
/* Rescales a variance-preserving table so that its last level is noise alone (Lin et al. 2024), which as a number is a
 * remaining variance of 2^-24 of the picture, as in diffusers: sigma 4096. */
void sm_noise_zero_snr(sm_noise *m);
/* Karras et al. 2022, trained at any level of sigma_min..sigma_max: T levels even in log sigma stand for them. */
sumi_status sm_noise_edm(sm_noise *m, sm_mem *mem, int steps, double sigma_min, double sigma_max, double sigma_data, sm_err *e);
/* shift > 0, 1 is none (SD 3: 3). */
sumi_status sm_noise_flow(sm_noise *m, int steps, double shift, sm_err *e);
void sm_noise_free(sm_noise *m);
/* By diffusers' name ("linear", "scaled_linear", "squaredcos_cap_v2"); false for another. */
bool sm_beta_by_name(const char *name, sm_beta *out);

double sm_noise_max(const sm_noise *m);
double sm_noise_min(const sm_noise *m);
/* Between the trained levels log sigma is linear in t (k-diffusion's DiscreteSchedule); outside them t is clamped. */
double sm_noise_sigma(const sm_noise *m, double t);
double sm_noise_t(const sm_noise *m, double sigma);
/* x = (1 or 1 - sigma) x0 + sigma noise; x0 NULL: zero. x may be either of them. */
void sm_noise_mix(bool flow, double sigma, const float *x0, const float *noise, float *x, int64_t n);

/* One schedule: fills sigmas[0..steps) falling from about sm_noise_max, and sigmas[steps] = 0. */
typedef struct sm_schedule {
    const char *name, *a1111, *advice;
    sumi_status (*fill)(const sm_noise *m, int steps, double *sigmas, sm_err *e);
} sm_schedule;

extern const sm_schedule sm_schedules[];
extern const int sm_schedule_count;

/* By name or by A1111's name, letter case aside; NULL where there is none. */
const sm_schedule *sm_schedule_find(const char *name);
/* Checks steps (1..100000), fills sigmas[steps + 1], checks the result. */
sumi_status sm_schedule_fill(const sm_schedule *s, const sm_noise *m, int steps, double *sigmas, sm_err *e);

#endif
