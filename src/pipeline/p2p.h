/* Prompt-to-Prompt (Hertz et al. 2022): a picture is drawn together with the one it is edited from, whose prompt is
 * edit_from_prompt. Both begin from the same noise and are sampled in lock-step; the edited one's attention takes over what
 * the source's says of the words that both prompts have. Rows of a pass are then 2 n: the edited pictures, which come out,
 * and behind them their sources, which are what their prompt alone would draw. Follows google/prompt-to-prompt
 * (AttentionReplace, -Refine, -Reweight, LocalBlend) in what is taken over, for how long and where; the map itself is never
 * formed (nn/attention_pairs.c). */
#ifndef SM_PIPELINE_P2P_H
#define SM_PIPELINE_P2P_H

#include "pipeline/text.h"
#include "text/align.h"
#include "text/prompt.h"

/* What a step's predictions of pairs need; bits of sm_how beside its other values. */
enum { SM_P2P_CROSS = 4, SM_P2P_SELF = 8, SM_P2P_SEEN = 16, SM_P2P_ANY = SM_P2P_CROSS | SM_P2P_SELF | SM_P2P_SEEN };
enum { SM_P2P_WORDS = 2 }; /* sets of words that are looked at: those that bound the edit, those that are left out of it */

/* Steps [from, to). */
typedef struct sm_p2p_span { int from, to; } sm_p2p_span;

/* One picture and its source. Positions are those of the texts' one chunk. */
typedef struct sm_p2p_pair {
    float *map, *own;       /* sm_align_replace or sm_align_refine, own and the map's columns times the words' factors */
    float *factor;          /* [tokens] */
    sm_p2p_span *cross;     /* [tokens] when the edited token's attention is taken over */
    float *words[2];        /* [tokens, SM_P2P_WORDS] of the edited text, of the source: 1 where looked at */
} sm_p2p_pair;

typedef struct sm_p2p {
    const sm_job *j;
    int pairs, tokens, steps;
    sm_p2p_pair *pair;
    sm_p2p_span self;
    int self_tokens;
    bool blends, subtracts;
    int blend_from;         /* first step after which the edit is bounded */
    int level;              /* of the UNet, whose cross-attention is looked at */
    int mh, mw;             /* its places */
    float *seen;            /* [2 pairs, mh, mw, SM_P2P_WORDS] sum over the calls so far; NULL: does not blend */
    float *room;            /* [2, mh, mw] */
    uint8_t *mask;          /* [h, w] */
    int h, w;               /* of a latent */
    sm_arena mem;
} sm_p2p;

bool sm_p2p_wanted(const sumi_request *r);
/* What picture k of the request is edited from. */
const char *sm_p2p_source(const sm_job *j, int k);
/* What a request can be told of before its texts are read. */
sumi_status sm_p2p_check(const sm_job *j, sm_err *e);

/* For n pictures of h x w latents whose texts are rows 0..n-1 of `text` at every call, sources n..2n-1. *out is released with
 * sm_p2p_free; NULL where the request wants none. */
sumi_status sm_p2p_open(sm_p2p **out, const sm_job *j, const sm_text_cond *text, int n, int h, int w, int steps, sm_err *e);
void sm_p2p_free(sm_p2p *p);

/* Bits for step's predictions with text; 0: nothing is taken over any more, nor looked at. */
int sm_p2p_how(const sm_p2p *p, int step);
/* A pair's inputs at that step: map [tokens, tokens], own [tokens]. */
void sm_p2p_control(const sm_p2p *p, int pair, int step, float *map, float *own);
/* Adds what a call saw: [mh, mw, SM_P2P_WORDS] of the edited picture or of its source. */
void sm_p2p_see(sm_p2p *p, int pair, bool source, const float *seen);
/* After step: x [2n, h, w, c] of the edited pictures becomes the sources' outside the words' places. */
void sm_p2p_blend(sm_p2p *p, int step, int c, float *x);

/* What is made of the two prompts: which token takes over whose attention; appended for people or as a member of a JSON object
 * (p2p_explain.c). Texts are read by `how`, chunks have length tokens. */
sumi_status sm_p2p_explain(const sm_bpe *bpe, const sumi_request *r, const sm_prompt_how *how, int length, bool json, sm_mem *mem,
                           sm_buf *out, sm_err *e);

/* ---- for its parts ------------------------------------------------------------------------------------------------- */

/* One of a list between commas, "WORDS:VALUE", "WORDS" or "VALUE" (p2p_read.c). */
typedef struct sm_p2p_item {
    const char *words;      /* n bytes, not terminated; n 0: none */
    size_t n;
    double value[2];        /* of "0.2-0.8" both, of one number 0 and it */
    int values;             /* how many were written, 0 to 2 */
} sm_p2p_item;

/* The pair's words, factors and spans from the request. text: the edited one and the source. */
sumi_status sm_p2p_read(sm_p2p *p, sm_p2p_pair *q, const sm_align_text *text, sm_err *e);
/* A text's only chunk; begins [c->length] is filled and borrowed. */
sm_align_text sm_p2p_text(const sm_bpe *bpe, const sm_chunks *c, bool *begins);
/* Whether words are replaced, or else refined: as the request says or, where it does not, replaced where every word has a
 * counterpart, of as many tokens in all. text: the edited one and the source. */
bool sm_p2p_replaces(const sumi_request *r, const sm_align_text *text);
/* Steps of `all` by a list's only share without words, "0.8" or "0.2-0.8", all where there is none. words: others may be of
 * words. */
sumi_status sm_p2p_read_span(const char *flag, const char *list, bool words, int all, sm_p2p_span *out, sm_err *e);

#endif
