/* numpy's SeedSequence (see seedseq.h). */
#include "base/seedseq.h"

/* A multiplicative hash whose constant moves on with every word. */
static uint32_t hash(uint32_t v, uint32_t *constant)
{
    v ^= *constant;
    *constant *= 0x931e8875u;
    v *= *constant;
    return v ^ v >> 16;
}

static uint32_t mix(uint32_t a, uint32_t b)
{
    uint32_t v = a * 0xca01f9ddu - b * 0x4973f715u;
    return v ^ v >> 16;
}

/* An integer's words, lowest first; 0 has one. */
static int put(uint64_t v, uint32_t *words, int n)
{
    words[n++] = (uint32_t)v;
    if (v >> 32)
        words[n++] = (uint32_t)(v >> 32);
    return n;
}

uint32_t sm_seedseq_word(uint64_t entropy, const uint64_t *key, int nkey, int pool)
{
    uint32_t words[SM_SEEDSEQ_POOL_MAX + 8] = {0}, m[SM_SEEDSEQ_POOL_MAX], constant = 0x43b0d7e5u;
    int n = put(entropy, words, 0);
    if (nkey) /* zeros between, so that a path is never taken for more entropy */
        n = pool;
    for (int i = 0; i < nkey; i++)
        n = put(key[i], words, n);
    for (int i = 0; i < pool; i++)
        m[i] = hash(words[i], &constant);
    for (int i = 0; i < pool; i++)
        for (int k = 0; k < pool; k++)
            if (i != k)
                m[k] = mix(m[k], hash(m[i], &constant));
    for (int i = pool; i < n; i++)
        for (int k = 0; k < pool; k++)
            m[k] = mix(m[k], hash(words[i], &constant));
    uint32_t v = (m[0] ^ 0x8b51f9ddu) * (0x8b51f9ddu * 0x58f38dedu);
    return v ^ v >> 16;
}
