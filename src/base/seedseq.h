/* numpy.random.SeedSequence: words for seeding generators, mixed from an integer and a path of integers (O'Neill 2015,
 * "Developing a seed_seq Alternative"; numpy's entropy layout). */
#ifndef SM_SEEDSEQ_H
#define SM_SEEDSEQ_H

#include "base/base.h"

enum { SM_SEEDSEQ_POOL_MAX = 32 };

/* SeedSequence(entropy, spawn_key=key[0..nkey), pool_size=pool).generate_state(1)[0]. nkey is 0 to 4; pool 4 to
 * SM_SEEDSEQ_POOL_MAX. */
uint32_t sm_seedseq_word(uint64_t entropy, const uint64_t *key, int nkey, int pool);

#endif
