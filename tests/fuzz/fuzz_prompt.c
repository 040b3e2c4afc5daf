/* Fuzz entry of the prompt language. The first byte picks the emphasis, the second the calls; the rest is a prompt. What is read
 * is used: every text is weighed and cut into chunks by a small vocabulary, whose marks and weights must be in place; suffixes
 * are taken off. Failures have a message. */
#include <stdlib.h>
#include <string.h>

#include "text/mj.h"
#include "text/prompt.h"

enum { LENGTH = 7 };

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void use_text(const sm_bpe *b, const char *text, sm_emphasis m)
{
    sm_chunks c;
    sm_err e = {0};
    sumi_status st = sm_chunks_make(b, text, m, LENGTH, NULL, &c, &e);
    check(st == e.code && (!st || e.msg[0]));
    if (!st) {
        check(c.n >= 1 && (m != SM_EMPHASIS_DIFFUSERS || c.n == 1));
        for (int i = 0; i < c.n * LENGTH; i++) {
            bool end = i % LENGTH == LENGTH - 1;
            check((i % LENGTH ? !end || c.id[i] == sm_bpe_end(b) : c.id[i] == sm_bpe_start(b)) && sm_bpe_token(b, c.id[i]));
            check(c.piece[i] >= 0 ? c.piece[i] < c.pieces && i % LENGTH && !end : c.weight[i] == 1);
        }
    }
    sm_chunks_free(&c);
}

static void use_prompt(const sm_bpe *b, const char *text, sm_emphasis m, int calls)
{
    for (int negative = 0; negative < 2; negative++) {
        sm_arena room;
        sm_prompt p;
        sm_err e = {0};
        sm_prompt_how how = {m, negative, calls, negative ? 0 : calls / 2};
        sm_arena_init(&room, NULL, SM_MEM_MISC);
        sumi_status st = sm_prompt_read(text, &how, &room, &p, &e);
        check(st == e.code && (!st || e.msg[0]));
        for (int i = 0; !st && i < p.parts; i++) {
            const sm_prompt_part *x = &p.part[i];
            check(x->stages >= 1 && x->stage[x->stages - 1].end == calls);
            for (int k = 0; k < x->stages; k++) {
                check(x->stage[k].end >= 1 && (!k || x->stage[k].end > x->stage[k - 1].end));
                if (k < 4)
                    use_text(b, x->stage[k].text, m);
            }
        }
        sm_arena_free(&room);
    }
}

static void use_suffixes(const char *text)
{
    sm_arena room;
    sm_suffix *s;
    sm_err e = {0};
    char *rest;
    int n;
    sm_arena_init(&room, NULL, SM_MEM_MISC);
    check(!sm_suffixes_split(text, &room, &rest, &s, &n, &e));
    for (int i = 0; i < n; i++)
        check(s[i].name[0] && strlen(s[i].name) + strlen(s[i].value) < strlen(text));
    sm_arena_free(&room);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char merges[] = "a b\nb c\na bc\nab c\nt h\nth e</w>\nabc abc\n";
    sm_err e = {0};
    if (size < 2)
        return 0;
    char *text = malloc(size - 1);
    sm_bpe *b = sm_bpe_from_merges(NULL, merges, sizeof merges - 1, &e);
    check(text && b);
    memcpy(text, data + 2, size - 2);
    text[size - 2] = 0;
    use_prompt(b, text, (sm_emphasis)(data[0] % (SM_EMPHASIS_DIFFUSERS + 1)), 1 + data[1] % 50);
    use_suffixes(text);
    sm_bpe_free(b);
    free(text);
    return 0;
}
