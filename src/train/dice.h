/* A counted sequence of random numbers on top of the counter-based generator: the n-th throw depends on (seed, purpose,
 * picture, variant, n) alone, so an example is the same whatever was drawn before it, on any thread and after a resume. */
#ifndef SM_DICE_H
#define SM_DICE_H

#include "base/base.h"
#include "base/rng.h"

/* What a sequence is for; sequences of different purposes are independent under one seed. */
typedef enum sm_dice_use { SM_DICE_SCENE = 1, SM_DICE_CAPTION = 2 } sm_dice_use;

typedef struct sm_dice {
    uint64_t seed, stream, next;
} sm_dice;

/* picture is taken modulo 2^24, variant modulo 2^32. */
static inline sm_dice sm_dice_new(uint64_t seed, sm_dice_use use, uint64_t picture, uint64_t variant)
{
    uint64_t stream = (uint64_t)use << 56 | (picture & 0xffffffu) << 32 | (variant & 0xffffffffu);
    return (sm_dice){seed, stream, 0};
}

/* Uniform in [0, 1), 24 bits. */
static inline float sm_dice_unit(sm_dice *d)
{
    return (float)(sm_rng_u32(d->seed, d->stream, d->next++) >> 8) * 0x1p-24f;
}

static inline float sm_dice_range(sm_dice *d, float lo, float hi) { return lo + (hi - lo) * sm_dice_unit(d); }

/* Uniform in 0 .. n-1; 0 when n <= 1. The bias of the multiplication is below n / 2^32. */
static inline int64_t sm_dice_pick(sm_dice *d, int64_t n)
{
    uint32_t u = sm_rng_u32(d->seed, d->stream, d->next++);
    return n <= 1 ? 0 : (int64_t)(((uint64_t)u * (uint64_t)n) >> 32);
}

static inline bool sm_dice_chance(sm_dice *d, float p) { return sm_dice_unit(d) < p; }

#endif
