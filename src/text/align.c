/* Alignment of two prompts' tokens (see align.h), as in the seq_aligner of google/prompt-to-prompt; words end
 * where the tokenizer ends them, there at blanks. */
#include "text/align.h"

#include <string.h>

/* ---- words --------------------------------------------------------------------------------------------------------- */

/* A word's last token carries the mark. */
static bool ends_word(const sm_bpe *b, int32_t id)
{
    const char *s = sm_bpe_token(b, id);
    size_t n = s ? strlen(s) : 0;
    return n >= 4 && !strcmp(s + n - 4, "</w>");
}

void sm_align_words(const sm_bpe *b, const int32_t *id, int n, int length, bool *begins)
{
    for (int i = 0; i < length; i++)
        begins[i] = i > 0 && i < n - 1 && (i == 1 || ends_word(b, id[i - 1]));
}

int sm_align_count(const sm_align_text *t)
{
    int words = 0;
    for (int i = 1; i < t->n - 1; i++)
        words += t->begins[i];
    return words;
}

/* Where the word that begins at `at` ends. */
static int word_end(const sm_align_text *t, int at)
{
    int i = at + 1;
    while (i < t->n - 1 && !t->begins[i])
        i++;
    return i;
}

int sm_align_find(const sm_bpe *b, const sm_align_text *t, const char *words, size_t n, bool *out, sm_mem *mem, sm_err *e)
{
    sm_ids ids = {.mem = mem};
    int found = 0;
    if (sm_bpe_encode(b, words, n, &ids, e)) {
        sm_ids_free(&ids);
        return -1;
    }
    for (int at = 1; ids.n && at + (int)ids.n <= t->n - 1; at++) {
        if (!t->begins[at] || memcmp(t->id + at, ids.id, sizeof *ids.id * ids.n)) /* the last one's mark ends a word */
            continue;
        found++;
        for (size_t i = 0; i < ids.n; i++)
            out[(size_t)at + i] = true;
    }
    sm_ids_free(&ids);
    return found;
}

/* ---- replacement --------------------------------------------------------------------------------------------------- */

static bool same_word(const sm_align_text *a, int i, int i_end, const sm_align_text *b, int j, int j_end)
{
    return i_end - i == j_end - j && !memcmp(a->id + i, b->id + j, sizeof *a->id * (size_t)(i_end - i));
}

/* Past the last differing word, where positions are compared with themselves. */
static int last_change(const sm_align_text *a, const sm_align_text *b)
{
    int last = 0;
    for (int i = 1, j = 1, i_end, j_end; i < a->n - 1 && j < b->n - 1; i = i_end, j = j_end) {
        i_end = word_end(a, i);
        j_end = word_end(b, j);
        last = same_word(a, i, i_end, b, j, j_end) ? last : i_end;
    }
    return last;
}

sumi_status sm_align_replace(const sm_align_text *a, const sm_align_text *b, float *map, float *own, sm_err *e)
{
    int t = a->length, last = last_change(a, b), words = sm_align_count(a), others = sm_align_count(b);
    if (words != others)
        return sm_fail(e, SUMI_E_ARG,
                       "--p2p-mode replace: needs as many words in both prompts, here %d in the source and %d; refine aligns "
                       "such texts", words, others);
    memset(map, 0, sizeof *map * (size_t)t * (size_t)t);
    memset(own, 0, sizeof *own * (size_t)t);
    int i = 0, j = 0;
    while (i < t && j < t) {
        int i_end = i + 1, j_end = j + 1;
        bool word = i < last && a->begins[i];
        if (word) {
            i_end = word_end(a, i);
            j_end = word_end(b, j);
        }
        int n = i_end - i, m = j_end - j;
        for (int p = 0; p < n; p++)
            for (int q = 0; q < m; q++)
                map[(i < last ? i + p : j) * t + j + q] = n == m ? p == q : 1 / (float)m;
        i = i_end;
        j = j_end;
    }
    return SUMI_OK;
}

/* ---- refinement ---------------------------------------------------------------------------------------------------- */

enum { MATCH = 1, MISMATCH = -1 };

/* score[i][j] of the first i and j tokens; a gap costs nothing, so the edges are 0. */
static void fill_scores(const sm_align_text *a, const sm_align_text *b, int *score)
{
    int w = b->n + 1;
    memset(score, 0, sizeof *score * (size_t)(a->n + 1) * (size_t)w);
    for (int i = 1; i <= a->n; i++)
        for (int j = 1; j <= b->n; j++) {
            int both = score[(i - 1) * w + j - 1] + (a->id[i - 1] == b->id[j - 1] ? MATCH : MISMATCH);
            score[i * w + j] = SM_MAX(both, SM_MAX(score[i * w + j - 1], score[(i - 1) * w + j]));
        }
}

sumi_status sm_align_refine(const sm_align_text *a, const sm_align_text *b, float *map, float *own, sm_mem *mem, sm_err *e)
{
    int t = a->length, w = b->n + 1;
    int *score = sm_alloc(mem, SM_MEM_MISC, sizeof *score * (size_t)(a->n + 1) * (size_t)w);
    if (!score)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for two prompts of %d and %d tokens", a->n, b->n);
    memset(map, 0, sizeof *map * (size_t)t * (size_t)t);
    memset(own, 0, sizeof *own * (size_t)t);
    fill_scores(a, b, score);
    for (int i = a->n, j = b->n; j > 0;) { /* of equal scores first the edited text's gap, then the source's */
        int here = score[i * w + j];
        if (i == 0 || here == score[i * w + j - 1])
            own[--j] = 1;
        else if (here == score[(i - 1) * w + j])
            i--;
        else
            map[--i * t + --j] = 1;
    }
    for (int j = b->n; j < t; j++) /* padding by position */
        map[j * t + j] = 1;
    sm_free(score);
    return SUMI_OK;
}
