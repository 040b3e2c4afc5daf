/* Inside of the byte-pair tokenizer, shared by bpe.c, bpe_load.c and bpe_train.c. */
#ifndef SM_TEXT_BPE_IMPL_H
#define SM_TEXT_BPE_IMPL_H

#include "text/bpe.h"
#include "text/unicode.h"

/* Where a pair of token ids stands in the merge list and what it becomes. */
typedef struct sm_bpe_pair {
    uint64_t key; /* left << 32 | right; SM_BPE_FREE marks a free slot */
    uint32_t rank;
    int32_t made;
} sm_bpe_pair;

#define SM_BPE_FREE UINT64_MAX

typedef struct sm_bpe_tok {
    const char *s; /* NUL-terminated, in the arena; NULL where no token has the id */
    uint32_t n;
} sm_bpe_tok;

struct sm_bpe {
    sm_mem *mem;
    sm_arena arena;      /* the tokens' spellings */
    sm_bpe_tok *tok;     /* [size] by id */
    int32_t size;
    int32_t *slot;       /* [slots] hash of spellings to ids, -1 free; slots is a power of two */
    uint32_t slots;
    sm_bpe_pair *pair;   /* [pairs] hash of pairs; pairs is a power of two */
    uint32_t pairs;
    int32_t base[2][256]; /* id of a byte inside a word, at a word's end; -1 where the vocabulary lacks it */
    int32_t start, end;
};

/* The text of OpenAI's bpe_simple_vocab_16e6.txt, of which anything behind CLIP's last merge may be missing. */
sm_bpe *sm_bpe_from_openai(sm_mem *mem, const char *text, size_t n, sm_err *e);

static inline uint64_t sm_bpe_mix(uint64_t x)
{
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

/* The byte alphabet: the code point a byte is spelled with, and its place in OpenAI's order (bytes_to_unicode). */
uint32_t sm_bpe_byte_char(int byte);
int sm_bpe_byte_order(int byte);

/* Appends the text as CLIP's reference cleans it: ftfy's repair, references unescaped twice, single spaces, lower case. */
sumi_status sm_bpe_clean(const char *text, size_t n, sm_cps *out, sm_err *e);

typedef enum sm_bpe_kind { SM_BPE_WORD, SM_BPE_START, SM_BPE_END } sm_bpe_kind;
/* Finds the next piece at or after *at of a cleaned text: [*at, *to). false at the end. */
bool sm_bpe_next(const sm_cps *c, size_t *at, size_t *to, sm_bpe_kind *kind);

#endif
