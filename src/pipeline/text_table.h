/* The inside of a round's texts (text.h), shared by text.c, which lays it out, and text_encode.c, which fills it. */
#ifndef SM_PIPELINE_TEXT_TABLE_H
#define SM_PIPELINE_TEXT_TABLE_H

#include "pipeline/text.h"
#include "text/prompt.h"

/* One text in chunks; sequences seq .. seq + words.n - 1 are its own, the group's other chunks are empty ones. */
typedef struct sm_text_words {
    const char *text;
    sm_chunks words;
    int count;        /* stages that have it */
    int seq;
} sm_text_words;

/* One side of AND, or the negative prompt: its texts are encoded as one batch, as in A1111, where the mean that emphasis restores is
 * that of the batch. */
typedef struct sm_text_group {
    const sm_prompt_part *part;
    int *stage_text;  /* [part->stages] which text */
    sm_text_words *text;
    int texts, chunks; /* chunks: of the longest text */
    bool zero;        /* no text: zeros */
} sm_text_group;

/* compel's weights below 1: a chunk once more, with a piece's tokens unseen. Those of a text follow each other, by piece, then chunk. */
typedef struct sm_text_down { int group, text, piece, chunk, seq; } sm_text_down;

/* A context that is put together from other rows' (compel's .and, .blend). */
typedef struct sm_text_join {
    sm_join how;
    int n;
    int *row;
    float *weight;
} sm_text_join;

typedef struct sm_text_row {
    int group, text, tokens;
    size_t at;                /* its context's first token */
    bool padded;              /* a part of a join: what its text lacks is the empty text's */
    const sm_text_join *join; /* NULL: of one text. Else group and text are -1, and its rows are before it */
} sm_text_row;

typedef struct sm_text_span { int end; sm_text_pick *pick; } sm_text_span; /* for calls up to end */

/* What one prompt comes to. */
typedef struct sm_text_side {
    const char *prompt;
    bool negative;
    sm_prompt read;
    sm_text_span *span;
    int spans, picks;
} sm_text_side;

typedef struct sm_text_table {
    sm_arena room;         /* all but chunks and contexts */
    sm_mem *mem;
    sm_emphasis emphasis;
    int length;            /* tokens of a chunk */
    int calls, earlier;    /* see sm_prompt_how */
    sm_text_side *side;    /* different ones */
    int sides;
    int *side_of;          /* [pictures + 1] the last is the negative prompt's */
    int pictures;
    sm_text_group *group;
    int groups, group_cap;
    sm_text_row *row;
    int rows, row_cap;
    sm_text_down *down;
    int downs, down_cap;
    int seqs, empty;       /* sequences of all groups; the empty one's number, -1: none is needed */
    int quiet;             /* networks and cuts were told of already: a second pass */
    float *context;        /* every row's [tokens, width] */
    float *pooled;         /* [rows, pool] */
} sm_text_table;

#endif
