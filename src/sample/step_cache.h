/* Step caching: which steps a model is asked again in, and what stands for its answer in the others. Numbers in, numbers out;
 * what is kept, of which rows and layers, is the caller's (pipeline/step_cache.h).
 *
 *   deepcache Ma et al. 2023 (horseee/DeepCache): every interval-th step is computed in full, the others compute the outermost
 *   layers
 *               of a UNet on what the deeper ones gave then; order > 0 forecasts that as taylorseer does
 *   taylorseer Liu et al. 2025 (Shenyi-Z/TaylorSeer): in the steps between, the answer is a Taylor series of order `order` in the
 *   number of
 *               the step, its derivatives finite differences of full steps
 *   easycache Zhou et al. 2025 (H-EmbodVis/EasyCache): answer - input of the last full step goes on standing for the next ones
 *   until
 *               the changes foreseen, input's change times answer's change per input's change, add up to the threshold
 *   teacache Liu et al. 2024 (ali-vilab/TeaCache): the same until the changes of the timestep-modulated input, through a
 *   polynomial, do */
#ifndef SM_SAMPLE_STEP_CACHE_H
#define SM_SAMPLE_STEP_CACHE_H

#include "base/base.h"

typedef enum sm_caching { SM_CACHE_NONE, SM_CACHE_DEEP, SM_CACHE_TAYLOR, SM_CACHE_EASY, SM_CACHE_TEA } sm_caching;

enum { SM_CACHE_TERMS = 5, SM_CACHE_POLYNOMIAL = 8 };

typedef struct sm_cache_way {
    sm_caching kind;
    int interval, order; /* of the first two; order < SM_CACHE_TERMS */
    double threshold;    /* of the last two */
    double start, end;   /* shares of the steps between which it acts; outside every step is full */
    double polynomial[SM_CACHE_POLYNOMIAL]; /* teacache's, highest power first */
    int coefficients;    /* 0: the change itself */
} sm_cache_way;

static inline bool sm_cache_adapts(const sm_cache_way *w) { return w->kind == SM_CACHE_EASY || w->kind == SM_CACHE_TEA; }

/* Whether it acts in a step, 0..steps-1. The first step at or after start, and the last before end, whole steps alone: 0.15 and
 * 0.95 of 20 steps leave 0, 1, 2 and 19 full, of 30 steps 0 to 4, 28 and 29. */
bool sm_cache_acts(const sm_cache_way *w, int step, int steps);
/* Numbers between commas or blanks, highest power first; false: they are none, or too many. */
bool sm_cache_polynomial(const char *text, sm_cache_way *w);

/* ---- what is kept of a row, n numbers ------------------------------------------------------------------------------- */

typedef struct sm_cache_past {
    float *term[SM_CACHE_TERMS]; /* derivatives by the step, from the 0th, of the last full step */
    int have;                    /* of them */
    int64_t last;                /* that step */
} sm_cache_past;

/* A full step's x: derivatives up to order become divided differences with the ones before. */
void sm_cache_keep(sm_cache_past *p, int order, int64_t step, const float *x, int64_t n);
/* The series at another step. */
void sm_cache_forecast(const sm_cache_past *p, int64_t step, float *out, int64_t n);

/* ---- how much changes, for the two that decide by it ----------------------------------------------------------------- */

typedef struct sm_cache_watch {
    double sum;         /* of changes since the last full step */
    double rate, norm;  /* easycache: answer's change per input's change, mean |answer| of the last full step */
    int full;           /* full steps seen, up to 2 */
    bool seen;          /* before[] holds numbers */
    float *before;      /* what was looked at in the step before: input (easycache) or modulated input (teacache) */
    float *in, *out;    /* easycache: input and answer of the last full step */
} sm_cache_watch;

/* One step: looks at x (n numbers) and says whether the step is to be full. acts: the way acts in it. */
bool sm_cache_due(const sm_cache_way *w, sm_cache_watch *c, bool acts, const float *x, int64_t n);
/* easycache: what the full step gave. */
void sm_cache_learn(sm_cache_watch *c, const float *in, const float *out, int64_t n);
/* Forgets what was seen. */
void sm_cache_forget(sm_cache_watch *c);

#endif
