/* Fuzz entry of the byte-pair tokenizer. The first byte picks the parser: 'm' a merge list and a text (after a line "~"),
 * 'v' vocab.json, merges and a text, 't' training lines, anything else a text for a fixed small vocabulary. Whatever loads is
 * used: encoding must give known ids, and decoding them must succeed. */
#include "text/bpe.h"

#include <stdlib.h>
#include <string.h>

/* Cuts the next part, up to a line that is "~" alone, off the data. */
static const char *part(const char **s, size_t *left, size_t *n)
{
    const char *at = *s, *end = memmem(at, *left, "\n~\n", 3);
    *n = end ? (size_t)(end - at) + 1 : *left;
    size_t used = end ? *n + 2 : *left;
    *s += used;
    *left -= used;
    return at;
}

static void use(const sm_bpe *b, const char *text, size_t n)
{
    sm_ids ids = {0};
    sm_err e = {0};
    if (sm_bpe_encode(b, text, n, &ids, &e) == SUMI_OK) {
        sm_buf out = {0};
        for (size_t i = 0; i < ids.n; i++)
            if (!sm_bpe_token(b, ids.id[i]))
                abort();
        if (sm_bpe_decode(b, ids.id, ids.n, &out, &e) != SUMI_OK)
            abort();
        sm_buf_free(&out);
        int32_t row[9];
        int used;
        size_t cut;
        if (sm_bpe_row(b, text, n, 9, -1, row, &used, &cut, &e) != SUMI_OK || (size_t)used - 2 + cut != ids.n)
            abort();
    }
    sm_ids_free(&ids);
}

static void train(const char *s, size_t left)
{
    sm_bpe_line lines[16];
    size_t n = 0;
    for (; left && n < SM_COUNT(lines); n++) {
        lines[n].text = part(&s, &left, &lines[n].n);
        lines[n].count = n + 1;
    }
    sm_buf merges = {0};
    sm_err e = {0};
    if (sm_bpe_train(NULL, lines, n, 514 + 40, &merges, &e) == SUMI_OK) {
        sm_bpe *b = sm_bpe_from_merges(NULL, merges.data, merges.len, &e);
        if (!b) /* what was learned must load */
            abort();
        use(b, lines[0].text, n ? lines[0].n : 0);
        sm_bpe_free(b);
    }
    sm_buf_free(&merges);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char small[] = "a b\nb c\na bc\nab c\nt h\nth e</w>\nabc abc\n";
    const char *s = (const char *)data + 1;
    size_t left = size ? size - 1 : 0, vn = 0, mn = 0;
    sm_err e = {0};
    sm_bpe *b;
    if (!size)
        return 0;
    if (data[0] == 't') {
        train(s, left);
        return 0;
    }
    const char *v = data[0] == 'v' ? part(&s, &left, &vn) : NULL;
    const char *m = v || data[0] == 'm' ? part(&s, &left, &mn) : small;
    if (m == small)
        mn = sizeof small - 1;
    b = v ? sm_bpe_from_vocab(NULL, v, vn, m, mn, &e) : sm_bpe_from_merges(NULL, m, mn, &e);
    if (!b && e.code == SUMI_OK) /* a failure without a message */
        abort();
    if (b)
        use(b, s, left);
    sm_bpe_free(b);
    return 0;
}
