/* CLIP's byte-pair tokenizer (Sennrich et al. 2016; OpenAI's simple_tokenizer.py, which open_clip keeps).
 * Text is cleaned as there (ftfy, character references, whitespace, lower case: clean.h) and split into words by CLIP's
 * expression; each word's UTF-8 bytes are merged in the order of the merge list, the last byte carrying `</w>`.
 * transformers' CLIPTokenizer, which diffusers uses, only composes (NFC) and lower-cases: it keeps curly quotes, full width,
 * ligatures, wrong decodings, control characters and character references, and its final sigma is a plain one: such texts get
 * other ids there. A tokenizer never changes once made and may be shared. */
#ifndef SM_TEXT_BPE_H
#define SM_TEXT_BPE_H

#include "base/base.h"

typedef struct sm_bpe sm_bpe;

/* A growing list of token ids. Zero-initialise with only mem set. */
typedef struct sm_ids {
    sm_mem *mem;
    int32_t *id;
    size_t n, cap;
} sm_ids;

bool sm_ids_add(sm_ids *ids, int32_t id); /* false when memory is out */
void sm_ids_free(sm_ids *ids);

/* ---- loading; NULL and e set on failure -------------------------------------------------------------------------- */

/* Vocabulary from the merges alone, in OpenAI's order: 256 bytes, 256 bytes with </w>, the merges, <|startoftext|>,
 * <|endoftext|>. text: one merge "left right" a line; a first line starting with #version is skipped. */
sm_bpe *sm_bpe_from_merges(sm_mem *mem, const char *text, size_t n, sm_err *e);
/* transformers' pair of files, as text: vocab.json {"token": id, ...} and merges.txt. */
sm_bpe *sm_bpe_from_vocab(sm_mem *mem, const char *vocab, size_t vocab_n, const char *merges, size_t merges_n, sm_err *e);
sm_bpe *sm_bpe_load(sm_mem *mem, const char *vocab_json, const char *merges_txt, sm_err *e);
/* OpenAI's bpe_simple_vocab_16e6.txt, gzipped or not: its first 48,894 merges give CLIP's 49,408 tokens. */
sm_bpe *sm_bpe_load_openai(sm_mem *mem, const char *path, sm_err *e);
/* The same vocabulary, built into the library: the tokenizer of SD 1.x, 2.x and both of XL's encoders. */
sm_bpe *sm_bpe_clip(sm_mem *mem, sm_err *e);
void sm_bpe_free(sm_bpe *b);

/* ---- use --------------------------------------------------------------------------------------------------------- */

int32_t sm_bpe_size(const sm_bpe *b); /* one more than the largest id */
int32_t sm_bpe_start(const sm_bpe *b);
int32_t sm_bpe_end(const sm_bpe *b);

/* Appends the ids of n bytes of text, without start and end, however many. NUL ends nothing. Ill-formed
 * UTF-8 is SUMI_E_ARG with the byte offset. <|startoftext|> and <|endoftext|> in the text give their own ids, as in CLIP. */
sumi_status sm_bpe_encode(const sm_bpe *b, const char *text, size_t n, sm_ids *out, sm_err *e);

/* One row for a text encoder: start, the ids that fit, end, then pad up to length (at least 2; CLIP: 77). pad: an id, or -1
 * for the end token (SD 1.x; SD 2.x and SDXL's second encoder pad with 0). *used, if not NULL: positions up to and with
 * the end token; *cut, if not NULL: ids that did not fit. */
sumi_status sm_bpe_row(const sm_bpe *b, const char *text, size_t n, int length, int32_t pad, int32_t *row, int *used, size_t *cut,
                       sm_err *e);

/* Appends the text of the ids: bytes restored, a space for each </w>, start and end tokens by name, the last space dropped.
 * Bytes cut in the middle of a character are given as they are. An id outside the vocabulary is SUMI_E_ARG. */
sumi_status sm_bpe_decode(const sm_bpe *b, const int32_t *ids, size_t n, sm_buf *out, sm_err *e);
/* The token in the vocabulary's own spelling ("cat</w>"), NUL-terminated; NULL for an id outside it. */
const char *sm_bpe_token(const sm_bpe *b, int32_t id);
/* The id of a token in that spelling, -1 where there is none. */
int32_t sm_bpe_find(const sm_bpe *b, const char *token, size_t n);

/* Appends the merges as text of which sm_bpe_from_merges makes the same tokenizer. SUMI_E_SUPPORT where its ids are in another
 * order than OpenAI's, which only a vocab.json can tell. */
sumi_status sm_bpe_merges(const sm_bpe *b, sm_buf *out, sm_err *e);

/* ---- training ---------------------------------------------------------------------------------------------------- */

typedef struct sm_bpe_line {
    const char *text;
    size_t n;
    uint64_t count; /* how often the line counts */
} sm_bpe_line;

/* Learns merges for a vocabulary of at most vocab_size tokens (at least 514: the bytes and the two marks) from the lines,
 * and appends them to out as the text that sm_bpe_from_merges reads. The most frequent pair is merged first, equal counts
 * by the smaller left, then right symbol, so the result depends on the multiset of lines alone. Stops early when no pair
 * occurs twice. */
sumi_status sm_bpe_train(sm_mem *mem, const sm_bpe_line *lines, size_t n, int vocab_size, sm_buf *out, sm_err *e);

#endif
