/* The byte-pair tokenizer against transformers' CLIPTokenizer on texts that it cleans as OpenAI's does (tests/fixtures/
 * clip_tokens.json; the others: t_clean.c), against a plain copy of the published merge loop on random vocabularies, by hand. */
#include "test.h"
#include "text/bpe.h"
#include "text/unicode.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *read_text(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    long len = ftell(f);
    rewind(f);
    char *s = malloc((size_t)len + 1);
    *n = fread(s, 1, (size_t)len, f);
    s[*n] = 0;
    fclose(f);
    return s;
}

static sm_bpe *clip_vocab(void)
{
    sm_err e = {0};
    sm_bpe *b = sm_bpe_clip(NULL, &e);
    CHECKF(b != NULL, "%s", e.msg);
    return b;
}

static bool same_ids(const sm_ids *a, const int32_t *b, size_t n)
{
    return a->n == n && (!n || !memcmp(a->id, b, n * sizeof *b));
}

TEST(bpe_clip_fixture)
{
    sm_bpe *b = clip_vocab();
    if (!b)
        return;
    CHECK(sm_bpe_size(b) == 49408 && sm_bpe_start(b) == 49406 && sm_bpe_end(b) == 49407);
    size_t n;
    char *text = read_text(test_fixture("clip_tokens.json"), &n);
    cJSON *root = text ? cJSON_Parse(text) : NULL, *c;
    CHECK(root != NULL);
    int seen = 0;
    cJSON *cases = cJSON_GetObjectItem(root, "cases");
    cJSON_ArrayForEach(c, cases)
    {
        const char *s = cJSON_GetObjectItem(c, "text")->valuestring;
        cJSON *want = cJSON_GetObjectItem(c, "ids"), *v;
        sm_ids got = {0};
        sm_err e = {0};
        CHECKF(sm_bpe_encode(b, s, strlen(s), &got, &e) == SUMI_OK, "%s", e.msg);
        size_t i = 0;
        bool same = (int)got.n == cJSON_GetArraySize(want);
        cJSON_ArrayForEach(v, want)
        {
            same = same && got.id[i] == v->valueint;
            i++;
        }
        CHECKF(same, "other ids than CLIPTokenizer for \"%.100s\"", s);
        sm_ids_free(&got);
        seen++;
    }
    CHECK(seen >= 180);
    cJSON_Delete(root);
    free(text);
    sm_bpe_free(b);
}

/* The whole file, read as a user would, and the part that is built in give one vocabulary; each allocation may fail. */
TEST(bpe_clip_builtin)
{
    sm_err e = {0};
    sm_bpe *b = clip_vocab(), *f = sm_bpe_load_openai(NULL, "models/clip/bpe_simple_vocab_16e6.txt.gz", &e);
    CHECKF(f != NULL, "%s", e.msg);
    if (b && f) {
        int other = sm_bpe_size(b) != sm_bpe_size(f);
        for (int32_t i = 0; i < sm_bpe_size(b) && i < sm_bpe_size(f); i++)
            other += strcmp(sm_bpe_token(b, i), sm_bpe_token(f, i)) != 0;
        CHECKF(!other, "%d tokens differ", other);
    }
    sm_bpe_free(b);
    sm_bpe_free(f);
    sm_mem m = {0};
    for (int64_t k = 1; k < 8; k++) {
        m.fail_at = k;
        sm_err_clear(&e);
        b = sm_bpe_clip(&m, &e);
        CHECK(!b && e.code == SUMI_E_MEMORY && m.total == 0);
    }
    m.fail_at = 0;
    b = sm_bpe_clip(&m, NULL);
    CHECK(b != NULL);
    sm_bpe_free(b);
    CHECK(m.total == 0);
}

TEST(bpe_clip_rows)
{
    sm_bpe *b = clip_vocab();
    if (!b)
        return;
    int32_t row[77];
    int used;
    size_t cut;
    sm_err e = {0};
    CHECK(sm_bpe_row(b, "a photo of a cat", 16, 77, -1, row, &used, &cut, &e) == SUMI_OK);
    static const int32_t want[] = {49406, 320, 1125, 539, 320, 2368, 49407, 49407}; /* as transformers prints them */
    CHECK(!memcmp(row, want, sizeof want) && row[76] == 49407 && used == 7 && cut == 0);
    CHECK(sm_bpe_row(b, "cat", 3, 77, 0, row, &used, NULL, &e) == SUMI_OK);
    CHECK(row[1] == 2368 && row[2] == 49407 && row[3] == 0 && row[76] == 0 && used == 3);
    char many[200];
    for (int i = 0; i < 100; i++)
        memcpy(many + 2 * i, "a ", 2);
    CHECK(sm_bpe_row(b, many, 200, 77, -1, row, &used, &cut, &e) == SUMI_OK);
    CHECK(row[75] == 320 && row[76] == 49407 && used == 77 && cut == 25);
    CHECK(sm_bpe_row(b, "", 0, 2, -1, row, &used, &cut, &e) == SUMI_OK && row[1] == 49407 && used == 2);
    CHECK(sm_bpe_row(b, "a", 1, 1, -1, row, NULL, NULL, &e) == SUMI_E_ARG);
    sm_bpe_free(b);
}

TEST(bpe_clip_decode)
{
    sm_bpe *b = clip_vocab();
    if (!b)
        return;
    static const char *const text = "a cat ' s caf\xc3\xa9 \xf0\x9f\x8d\x8e ! <|endoftext|>";
    sm_ids ids = {0};
    sm_buf out = {0};
    sm_err e = {0};
    CHECK(sm_bpe_encode(b, text, strlen(text), &ids, &e) == SUMI_OK);
    CHECK(sm_bpe_decode(b, ids.id, ids.n, &out, &e) == SUMI_OK);
    CHECKF(out.data && !strcmp(out.data, text), "%s", out.data);
    CHECK(!strcmp(sm_bpe_token(b, 2368), "cat</w>") && sm_bpe_find(b, "cat</w>", 7) == 2368);
    CHECK(sm_bpe_token(b, -1) == NULL && sm_bpe_token(b, 49408) == NULL && sm_bpe_find(b, "no such token", 13) == -1);
    int32_t bad = 49408;
    CHECK(sm_bpe_decode(b, &bad, 1, &out, &e) == SUMI_E_ARG);
    sm_buf_free(&out);
    sm_ids_free(&ids);
    sm_bpe_free(b);
}

/* A word of a million letters is one word: quadratic merging would take hours. */
TEST(bpe_huge_word)
{
    static const char merges[] = "#version: 0.2\na a\naa aa\naaaa aaaa\naaaaaaaa aaaaaaaa</w>\n";
    sm_bpe *b = sm_bpe_from_merges(NULL, merges, sizeof merges - 1, NULL);
    CHECK(b == NULL); /* aaaaaaaa</w> is made by no line */
    static const char good[] = "a a\naa aa\naaaa aaaa\n";
    sm_err e = {0};
    b = sm_bpe_from_merges(NULL, good, sizeof good - 1, &e);
    CHECKF(b != NULL, "%s", e.msg);
    size_t n = 1000001;
    char *s = malloc(n);
    memset(s, 'A', n);
    sm_ids ids = {0};
    CHECK(b && sm_bpe_encode(b, s, n, &ids, &e) == SUMI_OK);
    CHECK(ids.n == 125001 && ids.id[0] == 514 && ids.id[124999] == 514 && ids.id[125000] == 256 + 'a' - '!');
    free(s);
    sm_ids_free(&ids);
    sm_bpe_free(b);
}

/* ---- against the published loop ---------------------------------------------------------------------------------- */

typedef struct rule {
    char a[64], b[64];
} rule;

/* OpenAI's bpe(): the lowest-ranked pair of the word, all its occurrences from left to right, until none is left. */
static int plain_loop(const rule *r, int n, char w[][64], int len)
{
    for (;;) {
        int best = -1;
        for (int k = 0; k < n && best < 0; k++)
            for (int i = 0; i + 1 < len && best < 0; i++)
                if (!strcmp(w[i], r[k].a) && !strcmp(w[i + 1], r[k].b))
                    best = k;
        if (best < 0)
            return len;
        int out = 0;
        for (int i = 0; i < len; out++) {
            bool hit = i + 1 < len && !strcmp(w[i], r[best].a) && !strcmp(w[i + 1], r[best].b);
            char t[64];
            snprintf(t, sizeof t, "%.31s%.31s", w[i], hit ? w[i + 1] : "");
            strcpy(w[out], t);
            i += hit ? 2 : 1;
        }
        len = out;
    }
}

/* Merge lists in random order, so that a merge may make a pair of lower rank: the case in which a heap goes wrong first. */
TEST(bpe_plain_loop)
{
    uint64_t seed = 1;
    for (int trial = 0; trial < 200; trial++) {
        static rule r[64];
        char spell[80][64] = {"a", "b", "c", "a</w>", "b</w>", "c</w>"};
        int n = 0, syms = 6;
        float u[256];
        test_fill(u, 256, seed++, 0, 1);
        for (int k = 0; k < 24; k++) {
            char x[64], y[64];
            strcpy(x, spell[(int)(u[2 * k] * (float)syms)]);
            strcpy(y, spell[(int)(u[2 * k + 1] * (float)syms)]);
            bool known = strstr(x, "<") != NULL || strlen(x) + strlen(y) > 24;
            for (int j = 0; j < n; j++)
                known = known || (!strcmp(r[j].a, x) && !strcmp(r[j].b, y));
            if (known)
                continue;
            strcpy(r[n].a, x);
            strcpy(r[n++].b, y);
            snprintf(spell[syms++], 64, "%.31s%.31s", x, y);
        }
        for (int k = n - 1; k > 0; k--) { /* shuffle */
            int j = (int)(u[128 + k] * (float)(k + 1));
            rule t = r[k];
            r[k] = r[j];
            r[j] = t;
        }
        sm_buf m = {0};
        for (int k = 0; k < n; k++)
            sm_buf_fmt(&m, "%s %s\n", r[k].a, r[k].b);
        sm_err e = {0};
        sm_bpe *b = sm_bpe_from_merges(NULL, m.data ? m.data : "", m.len, &e);
        CHECKF(b != NULL, "%s", e.msg);
        for (int t = 0; b && t < 20; t++) {
            char word[40], w[40][64];
            float v[41];
            test_fill(v, 41, seed++, 0, 1);
            int len = 1 + (int)(v[40] * 39);
            for (int i = 0; i < len; i++) {
                word[i] = (char)('a' + (int)(v[i] * 3));
                snprintf(w[i], 64, "%c%s", word[i], i + 1 == len ? "</w>" : "");
            }
            sm_ids ids = {0};
            sm_bpe_encode(b, word, (size_t)len, &ids, &e);
            int want = plain_loop(r, n, w, len);
            bool same = (int)ids.n == want;
            for (int i = 0; same && i < want; i++)
                same = !strcmp(sm_bpe_token(b, ids.id[i]), w[i]);
            CHECKF(same, "trial %d: the word %.*s", trial, len, word);
            sm_ids_free(&ids);
        }
        sm_bpe_free(b);
        sm_buf_free(&m);
    }
}

/* ---- Unicode ----------------------------------------------------------------------------------------------------- */

/* Cases of Unicode's NormalizationTest.txt and of UAX #15: ordering, blocking, exclusions, singletons, Hangul. */
TEST(unicode_nfc)
{
    static const struct {
        uint32_t in[6], want[6];
    } cases[] = {
        {{'a', 0x315, 0x300, 0x5ae, 'b'}, {0xe0, 0x5ae, 0x315, 'b'}},
        {{'a', 0x305, 0x300}, {'a', 0x305, 0x300}},                 /* blocked by a mark of the same class */
        {{'a', 0x332, 0x300}, {0xe0, 0x332}},                       /* a lower class does not block */
        {{0xb47, 0x300, 0xb3e}, {0xb47, 0x300, 0xb3e}},             /* a starter does not compose past a mark */
        {{0xb47, 0xb3e}, {0xb4b}},
        {{0x958}, {0x915, 0x93c}},                                  /* composition exclusion */
        {{0x344}, {0x308, 0x301}},
        {{0x212b}, {0xc5}},
        {{0x1e9b, 0x323}, {0x1e9b, 0x323}},
        {{0x1e0a, 0x323}, {0x1e0c, 0x307}},
        {{0x1f82}, {0x1f82}},
        {{0x3b1, 0x313, 0x300, 0x345}, {0x1f82}},
        {{0x1112, 0x1161, 0x11ab}, {0xd55c}},
        {{0xac00, 0x11a7}, {0xac00, 0x11a7}},                       /* U+11A7 is no trailing consonant */
        {{0x1100, 0x300, 0x1161}, {0x1100, 0x300, 0x1161}},
        {{0x1d157, 0x1d165}, {0x1d157, 0x1d165}},
        {{0x11099, 0x110ba}, {0x1109a}},
    };
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        sm_cps c = {0};
        sm_err e = {0};
        for (int k = 0; k < 6 && cases[i].in[k]; k++)
            CHECK(sm_cps_add(&c, cases[i].in[k]));
        CHECK(sm_uni_nfc(&c, &e) == SUMI_OK);
        bool same = c.n <= 6;
        for (size_t k = 0; same && k < 6; k++)
            same = cases[i].want[k] == (k < c.n ? c.cp[k] : 0);
        CHECKF(same, "case %zu, U+%04X ...", i, cases[i].in[0]);
        sm_cps_free(&c);
    }
}

TEST(unicode_utf8_and_classes)
{
    for (uint32_t cp = 0; cp <= 0x10ffff; cp += cp < 0x11000 ? 1 : 97) {
        char u[4];
        uint32_t back = 0;
        if (cp >= 0xd800 && cp < 0xe000)
            continue;
        int n = sm_utf8_put(cp, u);
        CHECKF(sm_utf8_valid(u, (size_t)n) && sm_utf8_get(u, 4, &back) == n && back == cp, "U+%04X", cp);
        CHECKF(sm_utf8_get(u, (size_t)n - 1, &back) == 0, "U+%04X cut short", cp);
    }
    static const struct {
        uint32_t cp, lower;
        sm_uni cls;
    } cases[] = {{'A', 'a', SM_UNI_LETTER},         {0xc9, 0xe9, SM_UNI_LETTER},       {0x100, 0x101, SM_UNI_LETTER},
                 {0x101, 0x101, SM_UNI_LETTER},     {0x130, 'i', SM_UNI_LETTER},       {0x3a3, 0x3c3, SM_UNI_LETTER},
                 {0x1e9e, 0xdf, SM_UNI_LETTER},     {0x10400, 0x10428, SM_UNI_LETTER}, {'5', '5', SM_UNI_NUMBER},
                 {0xbd, 0xbd, SM_UNI_NUMBER},       {0x2160, 0x2170, SM_UNI_NUMBER},   {0x24b6, 0x24d0, SM_UNI_OTHER},
                 {0x300, 0x300, SM_UNI_OTHER},      {0x1f34e, 0x1f34e, SM_UNI_OTHER},  {0xa0, 0xa0, SM_UNI_SPACE},
                 {0x3000, 0x3000, SM_UNI_SPACE},    {0x85, 0x85, SM_UNI_SPACE},        {0x1c, 0x1c, SM_UNI_OTHER},
                 {0x200b, 0x200b, SM_UNI_OTHER},    {0x732b, 0x732b, SM_UNI_LETTER},   {0x212a, 'k', SM_UNI_LETTER},
                 {0x10ffff, 0x10ffff, SM_UNI_OTHER}};
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        uint32_t low[2];
        int n = sm_uni_lower(cases[i].cp, low);
        CHECKF(low[0] == cases[i].lower && n == (cases[i].cp == 0x130 ? 2 : 1), "lower case of U+%04X", cases[i].cp);
        CHECKF(sm_uni_class(cases[i].cp) == cases[i].cls, "class of U+%04X", cases[i].cp);
    }
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

/* vocab.json with ids in another order than the merges: they count, not the order. */
TEST(bpe_vocab_json)
{
    static const char vocab[] = "{\"a\":3,\"b</w>\" : 4,\n\"ab</w>\":0,\"\\u00e9</w>\":7,\"\\ud83d\\ude00\":9,"
                                "\"<|startoftext|>\":1,\"<|endoftext|>\":2}";
    static const char merges[] = "#version: 0.2\r\na b</w>\r\n\r\n";
    sm_err e = {0};
    sm_bpe *b = sm_bpe_from_vocab(NULL, vocab, sizeof vocab - 1, merges, sizeof merges - 1, &e);
    CHECKF(b != NULL, "%s", e.msg);
    if (!b)
        return;
    CHECK(sm_bpe_size(b) == 10 && sm_bpe_token(b, 5) == NULL && !strcmp(sm_bpe_token(b, 7), "\xc3\xa9</w>"));
    CHECK(!strcmp(sm_bpe_token(b, 9), "\xf0\x9f\x98\x80"));
    sm_ids ids = {0};
    static const int32_t want[] = {0, 3, 2, 4, 1}; /* "ab"; "a", "x" unknown: the end token; "b"; start */
    CHECK(sm_bpe_encode(b, "AB axb <|startoftext|>", 22, &ids, &e) == SUMI_OK && same_ids(&ids, want, 5));
    sm_ids_free(&ids);
    sm_bpe_free(b);
}

TEST(bpe_bad_files)
{
    static const struct {
        const char *vocab, *merges, *says;
    } bad[] = {
        {"", "", "not an object"},
        {"[]", "", "not an object"},
        {"{\"a\":1", "", "expected ',' or '}'"},
        {"{\"a\":-1}", "", "byte 5"},
        {"{\"a\":99999999}", "", "id below"},
        {"{\"a\":1,\"b\":1}", "", "two tokens"},
        {"{\"a\\u0000\":1}", "", "byte 9"},
        {"{\"a\\ud800x\":1}", "", "expected"},
        {"{\"\\xff\":1}", "", "expected"},
        {"{\"a\":1}", "", "lacks <|startoftext|>"},
        {"{\"<|startoftext|>\":1}", "", "lacks <|endoftext|>"},
        {"{\"<|startoftext|>\":1,\"<|endoftext|>\":2}", "a b\n", "line 1: 'a' is not in the vocabulary"},
        {"{\"<|startoftext|>\":1,\"<|endoftext|>\":2,\"a\":3,\"b\":4}", "\na b\n", "line 2: 'ab' is not"},
        {"{\"<|startoftext|>\":1,\"<|endoftext|>\":2}", "#version\na b c\n", "line 2: not two tokens"},
        {"{\"<|startoftext|>\":1,\"<|endoftext|>\":2}", "ab\n", "line 1: not two tokens"},
        {"{\"<|startoftext|>\":1,\"<|endoftext|>\":2}", " b\n", "line 1: not two tokens"},
    };
    for (size_t i = 0; i < SM_COUNT(bad); i++) {
        sm_err e = {0};
        sm_bpe *b = sm_bpe_from_vocab(NULL, bad[i].vocab, strlen(bad[i].vocab), bad[i].merges, strlen(bad[i].merges), &e);
        CHECKF(!b && e.code == SUMI_E_FORMAT && strstr(e.msg, bad[i].says), "case %zu: %s", i, e.msg);
        sm_bpe_free(b);
    }
    sm_err e = {0};
    CHECK(!sm_bpe_load(NULL, "/nonexistent/vocab.json", "/nonexistent/merges.txt", &e) && e.code == SUMI_E_FILE);
    CHECK(strstr(e.msg, "/nonexistent/vocab.json") != NULL);
}

TEST(bpe_bad_text)
{
    sm_err e = {0};
    sm_bpe *b = sm_bpe_from_merges(NULL, "", 0, &e);
    CHECK(b && sm_bpe_size(b) == 514);
    static const struct {
        const char *s;
        size_t n, at;
    } bad[] = {{"abc\xff", 4, 3}, {"\xc3", 1, 0}, {"a\xed\xa0\x80", 4, 1}, {"\xc0\x80", 2, 0}, {"ab\xf4\x90\x80\x80", 6, 2},
               {"\x80", 1, 0}};
    for (size_t i = 0; i < SM_COUNT(bad); i++) {
        sm_ids ids = {0};
        char want[32];
        snprintf(want, sizeof want, "offset %zu", bad[i].at);
        sm_err_clear(&e);
        CHECKF(sm_bpe_encode(b, bad[i].s, bad[i].n, &ids, &e) == SUMI_E_ARG && strstr(e.msg, want), "case %zu: %s", i, e.msg);
        sm_ids_free(&ids);
    }
    sm_ids ids = {0};
    sm_err_clear(&e);
    CHECK(sm_bpe_encode(b, "a\0b", 3, &ids, &e) == SUMI_OK && ids.n == 2); /* NUL is removed like other controls, and no end */
    sm_ids_free(&ids);
    sm_bpe_free(b);
}

/* Every allocation of loading, encoding, decoding and training fails in turn: an error each time, and nothing leaks. */
TEST(bpe_out_of_memory)
{
    sm_bpe_line line[] = {{"caf\xc3\xa9 e\xcc\x81 hello hello", 18, 3}};
    int failed = 0;
    for (int64_t k = 1; k < 4000; k++) {
        sm_mem mem = {.fail_at = k};
        sm_err e = {0};
        sm_buf merges = {.mem = &mem}, text = {.mem = &mem};
        sm_ids ids = {.mem = &mem};
        sumi_status st = sm_bpe_train(&mem, line, 1, 520, &merges, &e);
        sm_bpe *b = st == SUMI_OK ? sm_bpe_from_merges(&mem, merges.data, merges.len, &e) : NULL;
        if (b && sm_bpe_encode(b, line[0].text, line[0].n, &ids, &e) == SUMI_OK)
            sm_bpe_decode(b, ids.id, ids.n, &text, &e);
        bool reached = mem.fail_at <= 0;
        CHECKF(e.code == (reached ? SUMI_E_MEMORY : SUMI_OK), "allocation %d: %s", (int)k, e.msg);
        failed += reached;
        sm_bpe_free(b);
        sm_ids_free(&ids);
        sm_buf_free(&merges);
        sm_buf_free(&text);
        CHECKF(mem.total == 0, "allocation %d: %zu bytes leak", (int)k, mem.total);
        if (!reached)
            break;
    }
    CHECK(failed > 20);
}

/* ---- training ---------------------------------------------------------------------------------------------------- */

/* Sennrich et al. 2016, the paper's own example: low x5, lower x2, newest x6, widest x3; the first merges are
 * e s, es t</w>, l o (with equal counts broken by the smaller pair). */
TEST(bpe_train_paper)
{
    static const sm_bpe_line lines[] = {{"low", 3, 5}, {"lower", 5, 2}, {"newest", 6, 6}, {"widest", 6, 3}};
    sm_buf out = {0};
    sm_err e = {0};
    CHECK(sm_bpe_train(NULL, lines, 4, 514 + 4, &out, &e) == SUMI_OK);
    /* es: 9, st</w>: 9; e s is the smaller pair. Then es t</w> 9, l o 7, and of the sixes (n e, e w, w est</w>) e w. */
    CHECKF(out.data && !strcmp(out.data, "#version: 0.2\ne s\nes t</w>\nl o\ne w\n"), "%s", out.data);
    sm_buf_free(&out);
}

/* The order and the grouping of the lines do not matter; the learned list loads, and encodes its own text shorter. */
TEST(bpe_train_order)
{
    static const sm_bpe_line one[] = {
        {"a smiling cat", 13, 2}, {"two red apples, noto style", 26, 1}, {"the cat's apples", 16, 3}};
    static const sm_bpe_line two[] = {{"THE CAT'S APPLES", 16, 1},
                                      {"two red apples, noto style", 26, 1},
                                      {"a smiling cat", 13, 2},
                                      {"the  cat's apples", 17, 2},
                                      {"never counted", 13, 0}};
    sm_buf a = {0}, b = {0};
    sm_err e = {0};
    CHECK(sm_bpe_train(NULL, one, 3, 600, &a, &e) == SUMI_OK && sm_bpe_train(NULL, two, 5, 600, &b, &e) == SUMI_OK);
    CHECKF(a.len == b.len && a.len > 20 && !memcmp(a.data, b.data, a.len), "%s\n---\n%s", a.data, b.data);
    sm_bpe *t = sm_bpe_from_merges(NULL, a.data, a.len, &e);
    CHECKF(t != NULL, "%s", e.msg);
    sm_ids ids = {0};
    CHECK(t && sm_bpe_encode(t, "the cat's apples", 16, &ids, &e) == SUMI_OK);
    CHECKF(ids.n == 4, "%zu tokens for: the cat 's apples", ids.n); /* seen three times and more: one token each */
    sm_ids_free(&ids);
    sm_bpe_free(t);
    CHECK(sm_bpe_train(NULL, one, 3, 513, &b, &e) == SUMI_E_ARG);
    sm_buf_free(&a);
    sm_buf_free(&b);
}
