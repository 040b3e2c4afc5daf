/* Samplers: from noise to a picture by calls of a denoiser. A sampler sees denoise(x, sigma) -> x0 and a falling list of
 * sigmas (notation in sample/schedule.h), never the model, its parameterisation or the guidance. Where the two kinds of
 * noise differ the sampler says so; the derivative dx/dsigma = (x - x0) / sigma is the same for both. */
#ifndef SM_SAMPLE_SAMPLER_H
#define SM_SAMPLE_SAMPLER_H

#include "sample/schedule.h"

/* What is to be sampled. x, x0 and noise are n floats, in any layout. */
typedef struct sm_sampling {
    sm_mem *mem;
    int64_t n;
    bool flow;            /* x = (1 - sigma) x0 + sigma noise; else x = x0 + sigma noise */
    const sm_noise *levels; /* the model's noise levels, for samplers that go by timesteps; NULL: not known */
    const double *sigmas; /* [steps + 1], strictly falling; the last may be 0, a flow's first is at most 1 */
    int steps;
    double eta;           /* how much of a step's noise is drawn anew, 0..1; < 0: the sampler's default */
    double s_noise;       /* factor of the noise that is drawn anew; 0 stands for 1 */
    double s_churn, s_tmin, s_tmax; /* Karras et al. 2022, algorithm 2, where the row says churn; s_tmax 0: no upper end */
    /* Writes the denoised x0 for x at sigma > 0. A failure ends the sampling. */
    sumi_status (*denoise)(void *ctx, const float *x, double sigma, float *x0, sm_err *e);
    /* The same, and the x0 that the unconditional prediction alone gives, for rows that say cfgpp; NULL: there is no guidance and
     * both are the same. */
    sumi_status (*denoise_both)(void *ctx, const float *x, double sigma, float *x0, float *uncond, sm_err *e);
    /* Unit normals for going from one noise level to another. draw counts the calls from 0. Rows that say brownian get increments
     * of one Brownian path over (to, from) in units of its deviation sqrt(from - to), so that halves of a step add up to the
     * whole; all others get independent numbers. Only stochastic samplers call it. */
    sumi_status (*noise)(void *ctx, int draw, double from, double to, float *out, sm_err *e);
    /* Before each step's move: its number, noise level, x and the current estimate x0. false: stop. May be NULL. */
    bool (*on_step)(void *ctx, int step, double sigma, const float *x, const float *x0);
    /* May change x where a step ends and the next, `step`, begins (masks). Not called before the first and after the last. May be
     * NULL. */
    void (*between)(void *ctx, int step, double sigma, float *x);
    void *ctx;            /* of all */
} sm_sampling;

typedef struct sm_sampler {
    const char *name, *a1111;
    const char *alias;    /* ComfyUI's name where it is another; else NULL */
    int order;            /* of convergence in the number of steps, for eta 0 */
    int evals;            /* denoiser calls per step; the step to sigma 0 takes one */
    int64_t (*count)(const double *sigmas, int steps); /* denoiser calls in all, where evals does not say it; else NULL */
    bool stochastic;      /* eta means something; it draws noise where eta > 0 */
    double eta;           /* default */
    bool flow;            /* works for flow models */
    bool brownian;        /* noise is asked for as increments of a Brownian path */
    bool alone;           /* its steps depend on the values, so pictures are sampled one by one; steps only set the range of
                             sigmas */
    bool cfgpp;           /* uses the unconditional prediction (CFG++, Chung et al. 2024) */
    bool churn;           /* s_churn, s_tmin and s_tmax mean something */
    bool skip_last;       /* its references leave out the lowest sigma but 0 (one more is made, then dropped) */
    const char *schedule; /* that goes well with it */
    const char *advice;
    sumi_status (*run)(const sm_sampling *p, float *x, sm_err *e);
} sm_sampler;

extern const sm_sampler sm_samplers[];
extern const int sm_sampler_count;

/* By name, alias or A1111's name, letter case aside; NULL where there is none. */
const sm_sampler *sm_sampler_find(const char *name);

/* Denoiser calls that sampling takes, for progress bars; 0: nobody knows before (its steps follow the values). */
int64_t sm_sampler_evals(const sm_sampler *s, const double *sigmas, int steps);

/* Checks the problem and samples: x is the noisy start at sigmas[0] and, on success, the result at sigmas[steps]. A denoiser
 * that gives no number is SUMI_E_NUMERIC, a stop by on_step SUMI_E_CANCELLED; x is undefined after a failure. */
sumi_status sm_sample(const sm_sampler *s, const sm_sampling *p, float *x, sm_err *e);

/* ---- for the samplers -------------------------------------------------------------------------------------------- */

sumi_status sm_sample_euler(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_euler_ancestral(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_heun(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_ddim(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_dpmpp_2m(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_plms(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_pndm(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_ipndm(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_ipndm_v(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_unipc_bh1(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_unipc_bh2(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_deis(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_lcm(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_tcd(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_res_multistep(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_gradient_estimation(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_er_sde(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_sa_solver(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_sa_solver_2(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_lms(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_dpm2(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_dpm2_ancestral(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_dpmpp_2s_ancestral(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_dpmpp_sde(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_dpmpp_2m_sde(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_dpmpp_2m_sde_heun(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_dpmpp_3m_sde(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_dpm_fast(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_dpm_adaptive(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_restart(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_heunpp2(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_euler_cfgpp(const sm_sampling *p, float *x, sm_err *e);
sumi_status sm_sample_dpmpp_2m_cfgpp(const sm_sampling *p, float *x, sm_err *e);
int64_t sm_sample_plms_evals(const double *sigmas, int steps);
int64_t sm_sample_dpm_fast_evals(const double *sigmas, int steps);
int64_t sm_sample_restart_evals(const double *sigmas, int steps);
int64_t sm_sample_heunpp2_evals(const double *sigmas, int steps);
int64_t sm_sample_unknown_evals(const double *sigmas, int steps); /* 0 */
int64_t sm_sample_pndm_evals(const double *sigmas, int steps);

/* That the noise levels fall, to 0 or above, from no more than a flow's 1. */
sumi_status sm_sample_levels(const sm_sampling *p, sm_err *e);
/* `rows` buffers of n floats in one block, released with sm_free; NULL and e set on failure. */
float *sm_sample_room(const sm_sampling *p, int rows, sm_err *e);
/* Calls the denoiser and checks that it gave numbers. */
sumi_status sm_sample_denoise(const sm_sampling *p, const float *x, double sigma, float *x0, sm_err *e);
/* The same at sigmas[step], then tells on_step. */
sumi_status sm_sample_look(const sm_sampling *p, int step, float *x, float *x0, sm_err *e);
/* The same at another level: where a step begins above or between the sigmas. */
sumi_status sm_sample_look_at(const sm_sampling *p, int step, double sigma, float *x, float *x0, sm_err *e);
/* As sm_sample_look, with the unconditional prediction's x0 too. */
sumi_status sm_sample_look_both(const sm_sampling *p, int step, float *x, float *x0, float *uncond, sm_err *e);
/* x from one level to a lower one above 0, where x0 is what the denoiser gave at x. room is the move's own, and so is x0 then. */
typedef sumi_status sm_move(const sm_sampling *p, int step, double from, double to, float *x, float *x0, float *room, sm_err *e);
/* That move; to 0 it is x0 itself. */
sumi_status sm_sample_move(const sm_sampling *p, sm_move *move, int step, double from, double to, float *x,
                           float *x0, float *room, sm_err *e);
/* A sampler of such moves: before each churn and a look. rows: times n floats for x0 and the move's room together. */
sumi_status sm_sample_moves(const sm_sampling *p, sm_move *move, int rows, float *x, sm_err *e);
/* probe = x along the slope at `from` to mid, and its x0. */
sumi_status sm_sample_probe(const sm_sampling *p, double from, double mid, const float *x, const float *x0, float *probe,
                            float *x0_mid, sm_err *e);
/* Heun's: room 2 n floats. */
sm_move sm_sample_heun_move;
/* x += k noise, the draw-th, of the interval. */
sumi_status sm_sample_renoise(const sm_sampling *p, int draw, double from, double to, double k, float *x, float *room, sm_err *e);
/* x = a x + b y, for n numbers. */
void sm_sample_blend(const sm_sampling *p, double a, float *x, double b, const float *y);

#endif
