/* What the kernels of token merging share: which tokens stay, and numbering the rows once every other token has its match. */
#ifndef SM_MERGE_H
#define SM_MERGE_H

#include "cpu/cpu.h"

typedef struct tokens {
    int64_t n, t, c, stay, go, merged; /* batch, tokens, channels; of the tokens stay + go = t */
    int size[2], cell[2];              /* tokens of the picture and of a cell, height and width */
} tokens;

static inline tokens tokens_of(const sm_node *n)
{
    const int *s = n->p.tokens.size, *c = n->p.tokens.cell;
    tokens k = {.n = n->dims[0], .t = n->dims[1], .c = n->src[0]->dims[2], .merged = n->p.tokens.merged,
                .size = {s[0], s[1]}, .cell = {c[0], c[1]}};
    k.stay = (int64_t)(s[0] / c[0]) * (s[1] / c[1]);
    k.go = k.t - k.stay;
    return k;
}

/* The token that stays in cell i. */
static inline int32_t token_of(const tokens *k, const int32_t *chosen, int64_t i)
{
    const int *cell = k->cell;
    int64_t across = k->size[1] / cell[1], at = chosen[i];
    at = at < 0 || at >= (int64_t)cell[0] * cell[1] ? 0 : at;
    return (int32_t)((i / across * cell[0] + at / cell[1]) * k->size[1] + i % across * cell[1] + at % cell[1]);
}

/* Whether token t is the one that stays in its cell. */
static inline bool token_stays(const tokens *k, const int32_t *chosen, int64_t t)
{
    const int *cell = k->cell;
    int64_t y = t / k->size[1] / cell[0], x = t % k->size[1] / cell[1], across = k->size[1] / cell[1];
    return y < k->size[0] / cell[0] && x < across && token_of(k, chosen, y * across + x) == t;
}

/* Rows of the tokens: those that are left count up in order, the others take their match's. Token number i of those that may go
 * (in order) joins cell match[i] if joins[i]. */
static inline void tokens_number(const tokens *k, const int32_t *chosen, const int32_t *match, const uint8_t *joins, int32_t *row)
{
    int32_t count = 0;
    int64_t i = 0;
    for (int64_t t = 0; t < k->t; t++) {
        bool left = token_stays(k, chosen, t) || !joins[i++];
        row[t] = left ? count++ : -1;
    }
    i = 0;
    for (int64_t t = 0; t < k->t; t++)
        if (!token_stays(k, chosen, t)) {
            if (joins[i])
                row[t] = row[token_of(k, chosen, match[i])];
            i++;
        }
}

#endif
