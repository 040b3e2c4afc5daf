/* The public call that shows what a text encoder is given: ids and spellings of a text's tokens. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "pipeline/model.h"

/* The name "clip", OpenAI's file, or a folder with transformers' pair. */
static sm_bpe *open_vocab(sm_mem *mem, const char *path, sm_err *e)
{
    struct stat s;
    char vocab[4096], merges[4096];
    if (!strcmp(path, "clip"))
        return sm_bpe_clip(mem, e);
    if (stat(path, &s) || !S_ISDIR(s.st_mode))
        return sm_bpe_load_openai(mem, path, e);
    if (strlen(path) > sizeof vocab - 16) {
        sm_fail(e, SUMI_E_ARG, "the vocabulary folder's name is too long");
        return NULL;
    }
    snprintf(vocab, sizeof vocab, "%s/vocab.json", path);
    snprintf(merges, sizeof merges, "%s/merges.txt", path);
    return sm_bpe_load(mem, vocab, merges, e);
}

/* Everything in one block: the struct, the pointers, the ids, the spellings. NULL when memory is out. */
static sumi_tokens *to_tokens(const sm_bpe *b, const sm_ids *ids, sm_mem *mem)
{
    size_t bytes = sizeof(sumi_tokens) + ids->n * (sizeof(char *) + sizeof(int32_t));
    for (size_t i = 0; i < ids->n; i++)
        bytes += strlen(sm_bpe_token(b, ids->id[i])) + 1;
    sumi_tokens *t = sm_alloc(mem, SM_MEM_DATA, bytes);
    if (!t)
        return NULL;
    const char **text = (const char **)(t + 1);
    int32_t *id = (int32_t *)(text + ids->n);
    char *at = (char *)(id + ids->n);
    for (size_t i = 0; i < ids->n; i++) {
        const char *s = sm_bpe_token(b, ids->id[i]);
        size_t n = strlen(s) + 1;
        id[i] = ids->id[i];
        text[i] = memcpy(at, s, n);
        at += n;
    }
    *t = (sumi_tokens){ids->n, id, text};
    return t;
}

static sumi_status encode(const sm_bpe *b, const char *text, sm_ids *ids, sm_err *e)
{
    int32_t start = sm_bpe_find(b, "<|startoftext|>", 15), end = sm_bpe_find(b, "<|endoftext|>", 13);
    if (start < 0 || end < 0)
        return sm_fail(e, SUMI_E_FORMAT, "the vocabulary lacks <|startoftext|> or <|endoftext|>");
    bool ok = sm_ids_add(ids, start);
    if (ok && sm_bpe_encode(b, text, strlen(text), ids, e))
        return e->code;
    return ok && sm_ids_add(ids, end) ? SUMI_OK
                                      : sm_fail(e, SUMI_E_MEMORY, "out of memory for the tokens of %zu bytes", strlen(text));
}

sumi_status sumi_tokenize(sumi_context *ctx, const sumi_model *m, const char *vocab, const char *text, sumi_tokens **out)
{
    sm_err *e = sm_begin(ctx);
    sm_ids ids = {.mem = &ctx->mem};
    *out = NULL;
    if (!m && !vocab)
        return sm_fail(e, SUMI_E_ARG, "a model or a vocabulary is needed to tokenize");
    sm_bpe *own = vocab ? open_vocab(&ctx->mem, vocab, e) : NULL;
    const sm_bpe *b = vocab ? own : m->bpe;
    if (b && !encode(b, text, &ids, e) && !(*out = to_tokens(b, &ids, &ctx->mem)))
        sm_fail(e, SUMI_E_MEMORY, "out of memory for %zu tokens", ids.n);
    sm_ids_free(&ids);
    sm_bpe_free(own);
    return e->code;
}

void sumi_tokens_free(sumi_tokens *t) { sm_free(t); }
