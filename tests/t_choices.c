/* Choices in prompts: what is drawn is what the syntax allows, as often as the weights say, by the seed alone; other text
 * stays. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/rng.h"
#include "test.h"
#include "text/choices.h"

static const char *make(sm_arena *a, const char *text, const char *folder, uint64_t seed)
{
    sm_err e = {0};
    const char *made = sm_choices_make(text, folder, seed, 1, a, &e);
    CHECKF(made, "%s: %s", text, e.msg);
    return made ? made : "";
}

TEST(choices_leave_other_text)
{
    static const char *const texts[] = {"", "a red apple", "(a:1.2), [b|c], [d:e:0.5], <lora:x:1> AND y :0.5",
                                        "{masterpiece}, {{best}}", "an open { brace", "a } b {",
                                        "__name__ without a folder", "\\(escaped\\) \\[b\\]", "50$$ and {a$b}",
                                        "\xe8\x8b\xb9 {\xe6\x9e\x9c}", "a | b"};
    sm_arena a = {0};
    for (size_t i = 0; i < SM_COUNT(texts); i++)
        CHECKF(!strcmp(make(&a, texts[i], "", i), texts[i]), "%s", texts[i]);
    CHECK(!sm_choices_any("a [b|c] __d__", false) && sm_choices_any("a {b|c}", false) && sm_choices_any("__d__", true) &&
          sm_choices_any("\\{", false));
    CHECK(!strcmp(make(&a, "\\{a\\|b\\} {c}", "", 1), "{a\\|b} {c}"));
    sm_arena_free(&a);
}

/* One draw is the 32-bit number as a fraction of the weights' sum. */
TEST(choices_by_the_seed)
{
    static const char *const words[] = {"ab", "cd", "ef"};
    sm_arena a = {0};
    for (uint64_t seed = 0; seed < 50; seed++) {
        size_t k = (size_t)(sm_rng_u32(seed, 1, 0) * 0x1p-32 * 3), m = (size_t)(sm_rng_u32(seed, 1, 1) * 0x1p-32 * 3);
        char want[32];
        snprintf(want, sizeof want, "x %s, %s.", words[k], words[m]);
        CHECK(!strcmp(make(&a, "x {ab|cd|ef}, {ab|cd|ef}.", "", seed), want));
    }
    sm_arena_free(&a);
}

static int count(const char *text, const char *word, int n)
{
    sm_arena a = {0};
    int k = 0;
    for (int seed = 0; seed < n; seed++)
        k += strstr(make(&a, text, "", (uint64_t)seed), word) != NULL;
    sm_arena_free(&a);
    return k;
}

/* Frequencies within four standard deviations. */
TEST(choices_as_often_as_weights_say)
{
    enum { N = 4000 };
    static const struct { const char *text, *word; double p; } cases[] = {
        {"{3::red|green}", "red", 0.75}, {"{red|0.5::green|0.5::blue}", "blue", 0.25}, {"{a|{red|b}}", "red", 0.25},
        {"{0::red|green}", "red", 0},
        {"{2$$red|a|b|c}", "red", 0.5}, {"{1-2$$red|a|b|c}", "red", 0.375}, {"{red|}", "red", 0.5},
        {"{[red|b]|c|d}", "[red|b]", 1.0 / 3}};
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        double p = cases[i].p, sigma = sqrt(p * (1 - p) / N), got = count(cases[i].text, cases[i].word, N) / (double)N;
        CHECKF(fabs(got - p) <= 4 * sigma, "%s: %g, not %g", cases[i].text, got, p);
    }
}

TEST(choices_of_several)
{
    sm_arena a = {0};
    for (uint64_t seed = 0; seed < 60; seed++) {
        const char *two = make(&a, "{2$$ and $$a|b|c}", "", seed);
        CHECKF(strlen(two) == 7 && !strncmp(two + 1, " and ", 5) && two[0] != two[6] && strspn(two, "abc") == 1 &&
               strspn(two + 6, "abc") == 1, "%s", two);
        const char *all = make(&a, "{9$$a|b|c}", "", seed);
        CHECKF(strlen(all) == 7 && strchr(all, 'a') && strchr(all, 'b') && strchr(all, 'c') && all[1] == ',' && all[2] == ' ',
               "%s", all);
        CHECK(!strcmp(make(&a, "{0$$a|b}!", "", seed), "!"));
    }
    sm_arena_free(&a);
}

static void put(const char *folder, const char *name, const char *text)
{
    char path[512];
    sm_err e = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECKF(!sm_file_write(path, text, strlen(text), &e), "%s", e.msg);
}

static void check_refused(const char *folder, const char *text, const char *want)
{
    sm_arena a = {0};
    sm_err e = {0};
    CHECKF(!sm_choices_make(text, folder, 1, 1, &a, &e) && e.code == SUMI_E_ARG && strstr(e.msg, want), "%s: %s", text, e.msg);
    sm_arena_free(&a);
}

TEST(choices_from_files)
{
    sm_arena a = {0};
    char folder[400], sub[420];
    snprintf(folder, sizeof folder, "%s", test_tmp("wildcards"));
    snprintf(sub, sizeof sub, "%s/deep", folder);
    CHECK(!mkdir(folder, 0777) && !mkdir(sub, 0777));
    put(folder, "pet.txt", "# a comment\n  cat \r\n\n3::dog\n");
    put(folder, "one.txt", "a {big|big} __pet__");
    put(folder, "self.txt", "__self__");
    put(folder, "none.txt", "# nothing\n");
    put(folder, "bad.txt", "\xff\n");
    put(sub, "b1.txt", "x1");
    put(sub, "b2.txt", "x2");
    int dogs = 0;
    for (uint64_t seed = 0; seed < 400; seed++) {
        const char *pet = make(&a, "__pet__", folder, seed);
        CHECK(!strcmp(pet, "cat") || !strcmp(pet, "dog"));
        dogs += pet[0] == 'd';
        const char *one = make(&a, "<__one__>", folder, seed), *deep = make(&a, "__deep/b*__", folder, seed),
                   *two = make(&a, "{2$$__pet__}", folder, seed);
        CHECKF(!strcmp(one, "<a big cat>") || !strcmp(one, "<a big dog>"), "%s", one);
        CHECK(!strcmp(deep, "x1") || !strcmp(deep, "x2"));
        CHECK(!strcmp(two, "cat, dog") || !strcmp(two, "dog, cat"));
    }
    CHECKF(dogs > 300 - 35 && dogs < 300 + 35, "%d", dogs); /* 300, deviation 8.7 */
    check_refused(folder, "__missing__", "/missing.txt is not there");
    check_refused(folder, "__none__", "__none__");
    check_refused(folder, "__bad__", "not UTF-8");
    check_refused(folder, "__self__", "does a wildcard name itself");
    CHECK(!strcmp(make(&a, "__../x__ __/etc/x__", folder, 1), "__../x__ __/etc/x__"));
    sm_arena_free(&a);
}

/* Whatever it is given it ends, soon. */
TEST(choices_survive_anything)
{
    sm_arena a = {0};
    sm_err e = {0};
    char *text = sm_arena_get(&a, 60001);
    static const char *const parts[] = {"{", "}", "{a|", "|", "$$", "2$$", "__", "\\", "[", "]", "{{a|b}|{c|d}}", "::", "9::",
                                        "{1-9$$"};
    for (uint64_t seed = 0; seed < 40; seed++) {
        size_t n = 0;
        for (uint64_t i = 0; n < (seed < 20 ? 200 : 59000); i++) {
            const char *p = parts[seed % 20 < SM_COUNT(parts) ? seed % 20 : sm_rng_u32(seed, 9, i) % SM_COUNT(parts)];
            memcpy(text + n, p, strlen(p) + 1);
            n += strlen(p);
        }
        sm_err_clear(&e);
        double t0 = sm_now();
        CHECK(sm_choices_make(text, "", seed, 1, &a, &e) || e.code == SUMI_E_ARG);
        CHECKF(sm_now() - t0 < 20, "%.30s...: %g s", text, sm_now() - t0);
    }
    sm_arena_free(&a);
}
