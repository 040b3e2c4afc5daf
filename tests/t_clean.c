/* CLIP's clean-up of texts against OpenAI's and open_clip's tokenizer with ftfy (tests/fixtures/clip_clean.bin.gz, made by
 * tools/fixtures/make_clip_clean.py), by hand, and on texts made to hurt. */
#include "test.h"
#include "text/bpe_impl.h"
#include "text/clean.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static char *clean(const char *text, size_t n, sm_mem *mem, sm_err *e)
{
    sm_cps c = {.mem = mem};
    char *out = NULL;
    if (sm_bpe_clean(text, n, &c, e) == SUMI_OK) {
        size_t len = 0;
        out = malloc(4 * c.n + 1);
        for (size_t i = 0; i < c.n; i++)
            len += (size_t)sm_utf8_put(c.cp[i], out + len);
        out[len] = 0;
    }
    sm_cps_free(&c);
    return out;
}

typedef struct bytes {
    uint8_t *at, *end;
} bytes;

static uint8_t *take(bytes *b, size_t n)
{
    uint8_t *p = b->at;
    if ((size_t)(b->end - b->at) < n)
        return NULL;
    b->at += n;
    return p;
}

/* Compares one record: text, clean text, ids (u16), each behind its length. */
static bool check_record(bytes *f, const sm_bpe *b)
{
    uint8_t *head = take(f, 12), *part[3];
    uint32_t n[3];
    for (int i = 0; i < 3; i++) {
        if (head)
            memcpy(&n[i], head + 4 * i, 4);
        if (!head || !(part[i] = take(f, n[i])))
            return false;
    }
    sm_err e = {0};
    char *got = clean((char *)part[0], n[0], NULL, &e);
    CHECKF(got && strlen(got) == n[1] && !memcmp(got, part[1], n[1]), "\"%.*s\" became \"%s\", expected \"%.*s\" %s", (int)n[0],
           (char *)part[0], got ? got : "", (int)n[1], (char *)part[1], e.msg);
    free(got);
    sm_ids ids = {0};
    bool same = sm_bpe_encode(b, (char *)part[0], n[0], &ids, &e) == SUMI_OK && ids.n == n[2] / 2;
    for (size_t i = 0; same && i < ids.n; i++)
        same = ids.id[i] == part[2][2 * i] + 256 * part[2][2 * i + 1];
    CHECKF(same, "other ids for \"%.*s\"", (int)n[0], (char *)part[0]);
    sm_ids_free(&ids);
    return true;
}

TEST(clean_reference)
{
    enum { MOST = 8 << 20 };
    gzFile z = gzopen(test_fixture("clip_clean.bin.gz"), "rb");
    uint8_t *data = malloc(MOST);
    int n = z ? gzread(z, data, MOST) : -1, seen = 0;
    CHECK(n > 0 && n < MOST);
    if (z)
        gzclose(z);
    sm_err e = {0};
    sm_bpe *b = sm_bpe_clip(NULL, &e);
    CHECKF(b != NULL, "%s", e.msg);
    bytes f = {data, data + (n > 0 ? n : 0)};
    for (uint8_t *c = NULL; (!c || *c != '\n') && (c = take(&f, 1));) /* the line of versions */
        ;
    while (b && f.at < f.end && check_record(&f, b))
        seen++;
    CHECK(f.at == f.end);
    CHECKF(seen >= 4000, "%d texts", seen);
    sm_bpe_free(b);
    free(data);
}

/* What the steps are for, each by a text whose result is plain to see. */
TEST(clean_by_hand)
{
    static const char *const cases[][2] = {
        {"  Red\t\nApple  ", "red apple"},
        {"\xce\x9f\xce\x94\xce\x9f\xce\xa3 \xce\xa3", "\xce\xbf\xce\xb4\xce\xbf\xcf\x82 \xcf\x83"}, /* final sigma, and alone */
        {"sch\xc3\x83\xc2\xb6n", "sch\xc3\xb6n"},                                                  /* UTF-8 read as Latin-1 */
        {"sch\xc3\x83\xc6\x92\xc3\x82\xc2\xb6n", "sch\xc3\xb6n"},                                  /* as Windows-1252, twice */
        {"voil\xc3\x83 le travail", "voil\xc3\xa0 le travail"},                                    /* a0 became a space */
        {"\xe2\x80\x9cquoted\xe2\x80\x9d it\xe2\x80\x99s", "\"quoted\" it's"},
        {"\xef\xbc\xa1\xef\xbc\xa2\xe3\x80\x80\xef\xac\x81", "ab fi"}, /* full width, ligature */
        {"a\xcc\x81", "\xc3\xa1"},
        {"\x1b[1;31mred\x1b[0m \x07" "apple\xef\xbb\xbf", "red apple"},
        {"&lt;b&gt; &amp;amp;lt; &eacute; P&EACUTE;REZ", "<b> < \xc3\xa9 p\xc3\xa9rez"},
        {"<b> &amp;amp;amp;lt;", "<b> &amp;lt;"}, /* HTML: twice and no more */
        {"&notit; &notin; &amp &#65 &#x42; &#x80; &#0; &#xd800;",
         "\xc2\xacit; \xe2\x88\x89 & a b \xe2\x82\xac \xef\xbf\xbd \xef\xbf\xbd"},
        {"&#1;&#xfdd0;&#x1fffe;|&#99999999999999999999;|&;&#;&#x;&nosuch;", "|\xef\xbf\xbd|&;&#;&#x;&nosuch;"},
    };
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        sm_err e = {0};
        char *got = clean(cases[i][0], strlen(cases[i][0]), NULL, &e);
        CHECKF(got && !strcmp(got, cases[i][1]), "case %zu: \"%s\"", i, got ? got : e.msg);
        free(got);
    }
    sm_err e = {0};
    CHECK(!clean("ab\xc3(", 4, NULL, &e) && e.code == SUMI_E_ARG && strstr(e.msg, "offset 2"));
}

/* Texts of 200,000 bytes that ask for a pass over everything per byte or two: the reference takes hours. */
TEST(clean_work_is_bounded)
{
    static const char *const unit[] = {"amp;", "\xc3\x83", "\xc3\xa2\xe2\x82\xac", "\xcd\x85\xcc\x81", "\x1b[;",
                                       "\xc3\x83\xc2\x83 \xe2\x80\x9c"};
    enum { BYTES = 200000 };
    char *s = malloc(BYTES + 16);
    for (size_t k = 0; k < SM_COUNT(unit); k++) {
        size_t n = 1, len = strlen(unit[k]);
        for (s[0] = '&'; n + len <= BYTES; n += len)
            memcpy(s + n, unit[k], len);
        sm_err e = {0};
        double t = sm_now();
        char *got = clean(s, n, NULL, &e);
        t = sm_now() - t;
        CHECKF(got != NULL, "%s", e.msg);
        CHECKF(t < 60, "unit %zu: %.1f s", k, t);
        free(got);
    }
    free(s);
}

TEST(clean_out_of_memory)
{
    static const char text[] =
        "caf\xc3\x83\xc2\xa9 &amp;eacute; \xe2\x80\x9cx\xe2\x80\x9d \xc3\x90\xc2\x9f\xc3\x91\xc2\x80 na\xc3\x83\xc2\xafve "
        "\xe7\x8c\xab a\xcc\x81\n&lt;\xef\xbc\xa1";
    sm_mem m = {0};
    int64_t k = 1;
    for (bool done = false; !done && k < 1000; k++) {
        sm_err e = {0};
        m.fail_at = k;
        char *got = clean(text, sizeof text - 1, &m, &e);
        done = got != NULL;
        CHECK(done ? m.fail_at != 0 : e.code == SUMI_E_MEMORY);
        CHECK(m.total == 0);
        free(got);
    }
    CHECK(k > 8 && k < 1000);
}
