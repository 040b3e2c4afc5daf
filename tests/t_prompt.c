/* The prompt language's words against A1111's parser run by lark, ComfyUI's and compel's rules (tests/fixtures/prompts.json, made
 * by tools/fixtures/make_prompts.py): what is drawn at which call, sides of AND, networks, weights. Then what no reference
 * defines. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/file.h"
#include "test.h"
#include "text/prompt.h"

static cJSON *open_table(void)
{
    sm_err e = {0};
    sm_buf b = {0};
    cJSON *j = sm_file_read(test_fixture("prompts.json"), 1 << 20, &b, &e) ? NULL : cJSON_ParseWithLength(b.data, b.len);
    CHECKF(j != NULL, "prompts.json: %s", e.msg);
    sm_buf_free(&b);
    return j;
}

static const char *text_at(const cJSON *row, int i) { return cJSON_GetStringValue(cJSON_GetArrayItem(row, i)); }
static double number_at(const cJSON *row, int i) { return cJSON_GetNumberValue(cJSON_GetArrayItem(row, i)); }

TEST(prompt_schedules)
{
    cJSON *table = open_table();
    const cJSON *row;
    int n = 0;
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(table, "schedules")) {
        sm_arena room;
        sm_err e = {0};
        sm_prompt_stage *stage = NULL;
        int stages = 0;
        const char *text = text_at(row, 0);
        const cJSON *want = cJSON_GetArrayItem(row, 3);
        sm_arena_init(&room, NULL, SM_MEM_MISC);
        bool ok = !sm_prompt_schedule(text, strlen(text), (int)number_at(row, 1), (int)number_at(row, 2), &room, &stage, &stages,
                                      &e);
        CHECKF(ok && stages == cJSON_GetArraySize(want), "'%s': %d stages, want %d %s", text, stages, cJSON_GetArraySize(want),
               e.msg);
        for (int i = 0; ok && i < stages && i < cJSON_GetArraySize(want); i++) {
            const cJSON *w = cJSON_GetArrayItem(want, i);
            CHECKF(stage[i].end == (int)number_at(w, 0) && !strcmp(stage[i].text, text_at(w, 1)), "'%s': %d '%s', want %d '%s'",
                   text, stage[i].end, stage[i].text, (int)number_at(w, 0), text_at(w, 1));
        }
        sm_arena_free(&room);
        n++;
    }
    CHECK(n >= 400);
    cJSON_Delete(table);
}

TEST(prompt_and_and_networks)
{
    cJSON *table = open_table();
    const cJSON *row;
    int n = 0;
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(table, "and")) {
        sm_arena room;
        sm_err e = {0};
        sm_prompt p;
        sm_prompt_how how = {.calls = 10};
        const cJSON *parts = cJSON_GetArrayItem(row, 1), *nets = cJSON_GetArrayItem(row, 2);
        sm_arena_init(&room, NULL, SM_MEM_MISC);
        bool ok = !sm_prompt_read(text_at(row, 0), &how, &room, &p, &e) && p.parts == cJSON_GetArraySize(parts) &&
            p.nets == cJSON_GetArraySize(nets);
        CHECKF(ok, "'%s': %d sides, %d networks %s", text_at(row, 0), p.parts, p.nets, e.msg);
        for (int i = 0; ok && i < p.parts; i++) {
            const cJSON *w = cJSON_GetArrayItem(parts, i);
            CHECKF(!strcmp(p.part[i].text, text_at(w, 0)) && p.part[i].weight == (float)number_at(w, 1),
                   "'%s': '%s' %g, want '%s' %g", text_at(row, 0),
                   p.part[i].text, (double)p.part[i].weight, text_at(w, 0), number_at(w, 1));
        }
        for (int i = 0; ok && i < p.nets; i++) {
            const cJSON *w = cJSON_GetArrayItem(nets, i);
            CHECKF(!strcmp(p.net[i].kind, text_at(w, 0)) && !strcmp(p.net[i].name, text_at(w, 1)), "'%s': <%s:%s>",
                   text_at(row, 0), p.net[i].kind, p.net[i].name);
        }
        sm_arena_free(&room);
        n++;
    }
    CHECK(n >= 100);
    cJSON_Delete(table);
}

/* Whether both are the same words: white space apart, which separates tokens and is none. */
static bool same_words(const char *a, size_t n, const char *b)
{
    for (size_t i = 0;;) {
        while (i < n && strchr(" \n\t", a[i]))
            i++;
        while (*b && strchr(" \n\t", *b))
            b++;
        if (i == n || !*b)
            return i == n && !*b;
        if (a[i++] != *b++)
            return false;
    }
}

static void check_weights(const cJSON *table, const char *name, sm_emphasis m, int least)
{
    const cJSON *row;
    int n = 0;
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(table, name)) {
        sm_pieces p = {0};
        sm_err e = {0};
        const cJSON *want = cJSON_GetArrayItem(row, 1);
        bool ok = !sm_prompt_weigh(text_at(row, 0), m, &p, &e) && (int)p.n == cJSON_GetArraySize(want);
        CHECKF(ok, "%s, '%s': %zu pieces, want %d %s", name, text_at(row, 0), p.n, cJSON_GetArraySize(want), e.msg);
        for (int i = 0; ok && i < (int)p.n; i++) {
            const cJSON *w = cJSON_GetArrayItem(want, i);
            const char *at = p.text.data + p.piece[i].at, *text = text_at(w, 0);
            bool exact = p.piece[i].n == strlen(text) && !memcmp(at, text, p.piece[i].n);
            CHECKF(exact || (m == SM_EMPHASIS_COMPEL && same_words(at, p.piece[i].n, text)), "%s, '%s': '%.*s', want '%s'", name,
                   text_at(row, 0), (int)p.piece[i].n, at, text);
            CHECKF(fabs(p.piece[i].weight - number_at(w, 1)) <= 1e-14 * fabs(number_at(w, 1)), "%s, '%s': %.17g, want %.17g",
                   name, text_at(row, 0), p.piece[i].weight, number_at(w, 1));
        }
        sm_pieces_free(&p);
        n++;
    }
    CHECKF(n >= least, "%s: %d cases", name, n);
}

TEST(prompt_weights)
{
    cJSON *table = open_table();
    check_weights(table, "original", SM_EMPHASIS_ORIGINAL, 200);
    check_weights(table, "comfy", SM_EMPHASIS_COMFY, 100);
    check_weights(table, "compel", SM_EMPHASIS_COMPEL, 100);
    cJSON_Delete(table);
}

/* ---- limits and errors ------------------------------------------------------------------------------------------- */

static void repeat(char *to, const char *what, int times)
{
    *to = 0;
    for (size_t n = strlen(what); times-- > 0; to += n)
        memcpy(to, what, n + 1);
}

static sumi_status read_it(const char *text, sm_emphasis m, bool negative, sm_prompt *p, sm_arena *room, sm_err *e)
{
    sm_prompt_how how = {.emphasis = m, .negative = negative, .calls = 20};
    return sm_prompt_read(text, &how, room, p, e);
}

TEST(prompt_hostile)
{
    static char text[70000];
    sm_pieces p = {0};
    sm_err e = {0};
    repeat(text, "(", 60000);
    CHECK(sm_prompt_weigh(text, SM_EMPHASIS_ORIGINAL, &p, &e) == SUMI_E_ARG && strstr(e.msg, "250 brackets"));
    sm_pieces_free(&p);
    repeat(text, "((a)", 15000);
    sm_err_clear(&e);
    CHECK(sm_prompt_weigh(text, SM_EMPHASIS_COMFY, &p, &e) == SUMI_OK); /* items follow each other, nothing lies deep */
    sm_pieces_free(&p);
    repeat(text, "(", 30000);
    repeat(text + 30000, ")", 30000);
    sm_err_clear(&e);
    CHECK(sm_prompt_weigh(text, SM_EMPHASIS_COMFY, &p, &e) == SUMI_E_ARG && strstr(e.msg, "250 brackets"));
    sm_pieces_free(&p);
    sm_err_clear(&e);
    CHECK(sm_prompt_weigh(text, SM_EMPHASIS_COMPEL, &p, &e) == SUMI_OK); /* too deep is text there */
    sm_pieces_free(&p);
    sm_err_clear(&e);
    CHECK(sm_prompt_weigh("(a:1.2.3)", SM_EMPHASIS_ORIGINAL, &p, &e) == SUMI_E_ARG && strstr(e.msg, "'1.2.3'"));
    sm_pieces_free(&p);
    sm_err_clear(&e);
    CHECK(sm_prompt_weigh("(a b).swap(c)", SM_EMPHASIS_COMPEL, &p, &e) == SUMI_E_SUPPORT && strstr(e.msg, ".swap("));
    sm_pieces_free(&p);
}

TEST(prompt_schedule_limits)
{
    static char text[70000];
    sm_arena room;
    sm_err e = {0};
    sm_prompt_stage *stage;
    int stages;
    sm_arena_init(&room, NULL, SM_MEM_MISC);
    repeat(text, "[", 20000);
    repeat(text + 20000, ":2]", 10000); /* half of them match: nested ten thousand deep */
    CHECK(!sm_prompt_schedule(text, strlen(text), 20, 0, &room, &stage, &stages, &e) && stages == 2 &&
          strlen(stage[0].text) == 10000);
    repeat(text, "[a|b|c|d|e|f|g]", 4000);
    CHECK(!sm_prompt_schedule(text, strlen(text), 1000, 0, &room, &stage, &stages, &e) && stages == 1000 &&
          stage[7].text == stage[0].text);
    char *at = text + sprintf(text, "[1|2|3|4|5|6|7|8|9|10|11|12|13|14|15|16|17|18|19][a|b|c|d|e|f|g|h|i|j|k|l|m|n|o|p|q]");
    repeat(at, "x", 65000);
    CHECK(sm_prompt_schedule(text, strlen(text), 1000, 0, &room, &stage, &stages, &e) == SUMI_E_ARG && strstr(e.msg, "16 MB"));
    sm_arena_free(&room);
}

TEST(prompt_sides)
{
    sm_arena room;
    sm_prompt p;
    sm_err e = {0};
    sm_arena_init(&room, NULL, SM_MEM_MISC);
    /* The negative prompt knows neither AND nor networks nor a weight of its own, but schedules. */
    CHECK(!read_it("a AND <lora:x:1> [b:c:0.5]:2", SM_EMPHASIS_ORIGINAL, true, &p, &room, &e) && p.parts == 1 &&
          !p.nets && p.part[0].stages == 2);
    CHECK(!strcmp(p.part[0].stage[0].text, "a AND <lora:x:1> b:2") && p.part[0].weight == 1);
    /* Other grammars know none of this, networks apart. */
    CHECK(!read_it("a AND [b:c:5] <lora:x> # d", SM_EMPHASIS_COMFY, false, &p, &room, &e) && p.parts == 1 && p.nets == 1);
    CHECK(!strcmp(p.part[0].stage[0].text, "a AND [b:c:5]  # d") && p.part[0].stages == 1);
    CHECK(!read_it("a AND <lora:x> # d", SM_EMPHASIS_DIFFUSERS, false, &p, &room, &e) && !p.nets &&
          !strcmp(p.part[0].text, "a AND <lora:x> # d"));
    /* Without emphasis there are schedules still. */
    CHECK(!read_it("(a:1.2) [b:c:5] AND d", SM_EMPHASIS_NONE, false, &p, &room, &e) && p.parts == 2 && p.part[0].stages == 2);
    CHECK(read_it("\xff", SM_EMPHASIS_ORIGINAL, false, &p, &room, &e) == SUMI_E_ARG && strstr(e.msg, "UTF-8"));
    sm_arena_free(&room);
}

TEST(prompt_numbers_by_hand)
{
    static const struct { const char *s; bool exponent, ok; double x; } cases[] = {
        {"1", false, true, 1}, {"-1.5", false, true, -1.5}, {"+.5", false, true, 0.5}, {"5.", false, true, 5},
        {".", false, false, 0},
        {"", false, false, 0}, {"-", false, false, 0}, {"1e3", false, false, 0}, {"1e3", true, true, 1000},
        {"1.1", false, true, 1.1},
        {"0.7", false, true, 0.7}, {"1e-2", true, true, 0.01}, {"1e", true, false, 0}, {"1e400", true, true, INFINITY},
        {"0e999", true, true, 0},
        {"12a", false, false, 0}, {"123456789.125", false, true, 123456789.125}, {"1e-400", true, true, 0},
    };
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        double x = 0;
        bool ok = sm_prompt_number(cases[i].s, strlen(cases[i].s), cases[i].exponent, &x);
        CHECKF(ok == cases[i].ok && (!ok || x == cases[i].x), "'%s': %d %.17g", cases[i].s, ok, x);
    }
}

/* Each allocation in turn. */
TEST(prompt_out_of_memory)
{
    static const char *const text = "a (b:1.2) [c:[d|e]:0.5] AND f <lora:x:1>, [g::3] # h";
    for (int m = SM_EMPHASIS_ORIGINAL; m <= SM_EMPHASIS_DIFFUSERS; m++)
        for (int64_t k = 1;; k++) {
            sm_mem mem = {.fail_at = k};
            sm_arena room;
            sm_err e = {0};
            sm_prompt p;
            sm_pieces pieces = {.text.mem = &mem};
            sm_arena_init(&room, &mem, SM_MEM_MISC);
            sumi_status st = read_it(text, (sm_emphasis)m, false, &p, &room, &e);
            if (!st)
                st = sm_prompt_weigh(text, (sm_emphasis)m, &pieces, &e);
            bool failed = mem.fail_at == 0;
            CHECKF(st == (failed ? SUMI_E_MEMORY : SUMI_OK), "allocation %d: %s", (int)k, e.msg);
            sm_pieces_free(&pieces);
            sm_arena_free(&room);
            CHECK(mem.total == 0);
            if (!failed)
                break;
        }
}
