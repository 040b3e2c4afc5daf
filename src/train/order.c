/* The order of examples: example number `at` of a run is element at % n of epoch at / n's permutation. A four-round Feistel
 * network with cycle walking gives any element of any epoch's permutation at once, so a resumed run needs no list. */
#include "base/rng.h"
#include "train/stages.h"

static uint32_t feistel(uint64_t seed, uint64_t epoch, uint32_t x, int half)
{
    uint32_t mask = (1u << half) - 1, l = x >> half, r = x & mask;
    for (uint32_t round = 0; round < 4; round++) {
        uint32_t f = sm_rng_u32(seed, SM_STREAM_ORDER, epoch << 34 | (uint64_t)round << 32 | r) & mask;
        uint32_t next = l ^ f;
        l = r;
        r = next;
    }
    return l << half | r;
}

int64_t sm_epoch_order(uint64_t seed, int64_t n, int64_t at)
{
    uint64_t epoch = (uint64_t)(at / n);
    uint32_t x = (uint32_t)(at % n);
    int half = 1;
    while (((int64_t)1 << 2 * half) < n)
        half++;
    do
        x = feistel(seed, epoch, x, half);
    while ((int64_t)x >= n);
    return x;
}
