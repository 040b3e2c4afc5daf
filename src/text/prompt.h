/* The prompt language: what a person writes, as texts with the calls they are for and weights within. A1111's grammar
 * (modules/prompt_parser.py, extra_networks.py, sd_hijack_clip.py of version 1.10) with its several ways of emphasis, ComfyUI's
 * (comfy/sd1_clip.py) and compel's. Nothing here knows a model; what is returned lives in the caller's arena. */
#ifndef SM_TEXT_PROMPT_H
#define SM_TEXT_PROMPT_H

#include "text/bpe.h"

enum {
    SM_PROMPT_DEPTH = 250,            /* brackets open at a time, in which something is weighed */
    SM_PROMPT_TEXTS_BYTES = 16 << 20, /* of all texts that one prompt turns into */
    SM_PROMPT_SIDES = 64,             /* of AND: each is a prediction of its own at every step */
    SM_PROMPT_BACKTRACK = 20,         /* A1111's comma_padding_backtrack */
};

/* What (brackets:1.2) do. The first four are A1111's options. */
typedef enum sm_emphasis {
    SM_EMPHASIS_ORIGINAL, /* outputs times weights, then the chunk's mean restored */
    SM_EMPHASIS_NO_NORM,  /* without the latter */
    SM_EMPHASIS_IGNORE,   /* read, but of no effect */
    SM_EMPHASIS_NONE,     /* brackets, colons and BREAK are text; schedules and AND are not */
    SM_EMPHASIS_COMFY,    /* ComfyUI's grammar: nothing but (x) and (x:1.2); weights count from the empty text */
    SM_EMPHASIS_COMPEL,   /* compel's: word++, (words)1.2, (words)--; the same, and below 1 towards the text without them */
    SM_EMPHASIS_DIFFUSERS /* none of this: the text as it is, cut where one chunk is full */
} sm_emphasis;

/* "original", "no_norm", "ignore", "none", "comfy", "compel", "diffusers", or as A1111 writes them; letter case aside. */
bool sm_emphasis_by_name(const char *name, sm_emphasis *out);
const char *sm_emphasis_a1111(sm_emphasis m);

/* ---- prompt.c: a prompt as a whole --------------------------------------------------------------------------------- */

typedef struct sm_prompt_stage { int end; const char *text; } sm_prompt_stage; /* equal texts are one pointer */

/* One side of AND. */
typedef struct sm_prompt_part {
    const char *text;       /* as written, without its weight */
    float weight;
    sm_prompt_stage *stage; /* the first whose end is not below the call, counted from 0, is the call's; past the last one it
                               stays */
    int stages;
} sm_prompt_part;

typedef struct sm_prompt_net { const char *kind, *name; } sm_prompt_net; /* <kind:name>, the name with its colons: "style:0.8" */

/* What a prompt's parts are to each other. */
typedef enum sm_join {
    SM_JOIN_NONE,   /* sides of AND: predictions of their own */
    SM_JOIN_BEHIND, /* compel's .and: what encoders give for them, one behind the other, each weighed from the empty text's */
    SM_JOIN_BLEND   /* compel's .blend: its weighted sum; shorter ones are filled with the empty text's */
} sm_join;

typedef struct sm_prompt {
    sm_join join;
    sm_prompt_part *part;
    sm_prompt_net *net;
    int parts, nets;
} sm_prompt;

typedef struct sm_prompt_how {
    sm_emphasis emphasis;
    bool negative; /* AND and <lora:...> are text there, as in A1111 */
    int calls;     /* of the denoiser: steps, twice as many with second-order samplers */
    int earlier;   /* hires fix: calls of the first pass, from which whole numbers count on, fractions beginning at 1; else 0 */
} sm_prompt_how;

/* SUMI_E_ARG: no UTF-8, or one of the limits. Whatever has no other meaning is text, as in A1111. */
sumi_status sm_prompt_read(const char *text, const sm_prompt_how *how, sm_arena *room, sm_prompt *out, sm_err *e);

/* prompt_join.c: sets out->join and the parts, without stages, where s is such a list; else leaves it SM_JOIN_NONE. */
sumi_status sm_prompt_joined(const char *s, sm_arena *room, sm_prompt *out, sm_err *e);

/* ---- prompt_schedule.c: [from:to:when], [to:when], [from::when], [a|b] ----------------------------------------------- */

/* n stages into *stage, ends rising, the last one calls. The reference's grammar is ambiguous where brackets do not match: here a
 * complete [a:b:1] always is one, the reference sometimes takes it for text next to stray brackets. */
sumi_status sm_prompt_schedule(const char *text, size_t n, int calls, int earlier, sm_arena *room, sm_prompt_stage **stage,
                               int *stages, sm_err *e);

/* ---- prompt_weight.c, prompt_compel.c: emphasis ----------------------------------------------------------------------- */

typedef struct sm_piece { size_t at, n; double weight; } sm_piece;

/* Pieces of text that follow one another in text. Zero-initialise with only mem set in text. */
typedef struct sm_pieces {
    sm_buf text;
    sm_piece *piece;
    size_t n, cap;
} sm_pieces;

void sm_pieces_free(sm_pieces *p);
/* A piece that reads BREAK with weight -1 ends a chunk. */
bool sm_piece_breaks(const sm_pieces *p, size_t i);
sumi_status sm_prompt_weigh(const char *text, sm_emphasis m, sm_pieces *out, sm_err *e);

/* ---- prompt_chunk.c: tokens in chunks that the text encoder can read ------------------------------------------------ */

typedef struct sm_chunks {
    int length;     /* tokens of a chunk with its marks: 77 */
    int n;          /* at least 1 */
    int32_t *id;    /* [n, length]: start, tokens, end marks up to the end */
    float *weight;  /* [n, length] */
    int32_t *piece; /* [n, length] which piece it is of, -1 for marks */
    int pieces;
    double *piece_weight; /* [pieces] */
    int tokens;     /* that A1111 counts: chunks in full but the last */
    int cut;        /* tokens left out */
} sm_chunks;

/* length: at least 3. */
sumi_status sm_chunks_make(const sm_bpe *b, const char *text, sm_emphasis m, int length, sm_mem *mem, sm_chunks *out, sm_err *e);
void sm_chunks_free(sm_chunks *c);

/* ---- for these files ------------------------------------------------------------------------------------------------ */

/* Python's \s at s[0..n): the character's length, 0 where it is none. */
int sm_prompt_space(const char *s, size_t n);
/* Whether the word stands at s[at..n) between word boundaries; from is where the text begins. */
bool sm_prompt_keyword(const char *s, size_t from, size_t at, size_t n, const char *word);
/* [+-]digits[.digits][e[+-]digits] of all of s[0..n) (no exponent where !exponent): false if it is not. Not the locale's. */
bool sm_prompt_number(const char *s, size_t n, bool exponent, double *out);

bool sm_pieces_add(sm_pieces *p, const char *s, size_t n, double weight);
sumi_status sm_prompt_weigh_compel(const char *text, sm_pieces *out, sm_err *e);

#endif
