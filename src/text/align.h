/* Which tokens of an edited prompt take over the attention of which tokens of the prompt it was made from (Hertz et al. 2022,
 * Prompt-to-Prompt), and where words stand among tokens. Positions are those of one chunk: start mark, tokens, end marks. */
#ifndef SM_TEXT_ALIGN_H
#define SM_TEXT_ALIGN_H

#include "text/bpe.h"

/* One text's chunk. Words are what the tokenizer took for words: a comma is one of its own. */
typedef struct sm_align_text {
    const int32_t *id;  /* [length] */
    const bool *begins; /* [length] a word begins here; neither mark is a word */
    int n;              /* positions with the start and the first end mark */
    int length;
} sm_align_text;

/* Tokens that begin words, into begins [t->length]. */
void sm_align_words(const sm_bpe *b, const int32_t *id, int n, int length, bool *begins);
int sm_align_count(const sm_align_text *t); /* words */

/* map [length, length]: of the attention to source token i what share edited token j gets, at i * length + j. own [length]:
 * how much of its own attention token j keeps. Both texts have one length.
 *
 * Replacement: as many words in both, and each word that differs takes over its counterpart's attention: token by token
 * where both have as many, else each of its n tokens an nth of all. As in the reference, what follows the last such word
 * goes by position. SUMI_E_ARG: the texts differ in their number of words. */
sumi_status sm_align_replace(const sm_align_text *source, const sm_align_text *edited, float *map, float *own, sm_err *e);
/* Refinement: the longest common sequence of tokens (Needleman and Wunsch 1970; match 1, mismatch -1, gap 0; of equal scores the
 * reference's), the other tokens of the edited text keep their own attention. */
sumi_status sm_align_refine(const sm_align_text *source, const sm_align_text *edited, float *map, float *own, sm_mem *mem,
                            sm_err *e);

/* Marks in out [t->length] every token of t that belongs to the words: wherever their tokens follow each other, as whole
 * words. Returns how often that is; -1 and e set: no UTF-8, or memory is out. */
int sm_align_find(const sm_bpe *b, const sm_align_text *t, const char *words, size_t n, bool *out, sm_mem *mem, sm_err *e);

#endif
