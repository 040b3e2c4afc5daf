/* Fuzz entry of CLIP's clean-up of texts and its tokenizer on what comes out. Whatever is valid UTF-8 comes out as whole
 * characters, single spaces between them and none at the ends; anything else is refused with a message. Repairing a repaired text
 * changes nothing. The ids of a text are known ones, and a row begins with them. */
#include "text/bpe_impl.h"
#include "text/clean.h"

#include <stdlib.h>
#include <string.h>

static void check_clean(const sm_cps *c)
{
    for (size_t i = 0; i < c->n; i++) {
        bool space = sm_uni_class(c->cp[i]) == SM_UNI_SPACE;
        if (c->cp[i] > 0x10ffff || (c->cp[i] >= 0xd800 && c->cp[i] < 0xe000))
            abort();
        if (space && (!i || i + 1 == c->n || c->cp[i] != ' ' || c->cp[i - 1] == ' '))
            abort();
    }
}

/* One line of moderate length: the whole repair is then run to its end, so a second one finds nothing. Text without "<": the
 * first run may make one, and the second would then keep references. */
static void check_settled(const char *s, size_t n)
{
    sm_cps a = {0}, b = {0};
    if (n > 256 || memchr(s, '\n', n) || memchr(s, '<', n) || sm_uni_decode(s, n, &a, NULL) != SUMI_OK || !sm_text_repair(&a))
        goto out;
    for (size_t i = 0; i < a.n; i++) {
        if (a.cp[i] == '<' || a.cp[i] == '\n')
            goto out;
        sm_cps_add(&b, a.cp[i]);
    }
    if (!sm_text_repair(&b) || b.n != a.n || (a.n && memcmp(a.cp, b.cp, a.n * sizeof *a.cp)))
        abort();
out:
    sm_cps_free(&a);
    sm_cps_free(&b);
}

static void check_tokens(const char *s, size_t n)
{
    static sm_bpe *clip;
    sm_ids ids = {0};
    sm_err e = {0};
    int32_t row[77];
    int used;
    size_t cut;
    if (!clip && !(clip = sm_bpe_clip(NULL, &e)))
        abort();
    if (sm_bpe_encode(clip, s, n, &ids, &e) != (sm_utf8_valid(s, n) ? SUMI_OK : SUMI_E_ARG))
        abort();
    for (size_t i = 0; i < ids.n; i++)
        if (!sm_bpe_token(clip, ids.id[i]))
            abort();
    if (!e.code && (sm_bpe_row(clip, s, n, 77, 0, row, &used, &cut, &e) || (size_t)used - 2 + cut != ids.n ||
                    (used > 2 && memcmp(row + 1, ids.id, ((size_t)used - 2) * sizeof *row)) || row[0] != 49406 ||
                    row[used - 1] != 49407))
        abort();
    sm_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *s = (const char *)data;
    sm_cps c = {0};
    sm_err e = {0};
    sumi_status st = sm_bpe_clean(s, size, &c, &e);
    if (sm_utf8_valid(s, size) != (st == SUMI_OK) || (st != SUMI_OK && !e.msg[0]))
        abort();
    check_clean(&c);
    sm_cps_free(&c);
    check_settled(s, size);
    check_tokens(s, size);
    return 0;
}
