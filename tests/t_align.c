/* Aligning two prompts' tokens for Prompt-to-Prompt: 700 pairs of texts by the reference's rules (tests/fixtures/p2p_align.json,
 * tools/fixtures/make_p2p.py), and words found among CLIP's tokens. */
#include <math.h>
#include <string.h>

#include "known.h"
#include "test.h"
#include "text/align.h"

enum { MOST = 32 };

typedef struct side {
    int32_t id[MOST];
    bool begins[MOST];
    sm_align_text t;
} side;

static void side_of(const cJSON *ids, const cJSON *lengths, side *s)
{
    const cJSON *x;
    int at = 1;
    *s = (side){.t = {.id = s->id, .begins = s->begins, .length = MOST}};
    cJSON_ArrayForEach(x, ids)
        s->id[s->t.n++] = x->valueint;
    for (int i = s->t.n; i < MOST; i++)
        s->id[i] = 1;
    cJSON_ArrayForEach(x, lengths)
    {
        s->begins[at] = true;
        at += x->valueint;
    }
}

/* What the answer says, as map and own. */
static void wanted(const cJSON *answer, bool refine, const side *edited, float *map, float *own)
{
    const cJSON *x;
    int j = 0;
    memset(map, 0, sizeof *map * MOST * MOST);
    memset(own, 0, sizeof *own * MOST);
    cJSON_ArrayForEach(x, answer)
    {
        if (!refine)
            map[cJSON_GetArrayItem(x, 0)->valueint * MOST + cJSON_GetArrayItem(x, 1)->valueint] =
                1 / (float)cJSON_GetArrayItem(x, 2)->valueint;
        else if (x->valueint < 0)
            own[j++] = 1;
        else
            map[x->valueint * MOST + j++] = 1;
    }
    for (j = edited->t.n; refine && j < MOST; j++)
        map[j * MOST + j] = 1;
}

TEST(align_as_the_reference)
{
    cJSON *file = known_json("p2p_align.json");
    const cJSON *c;
    int n = 0;
    static float map[MOST * MOST], want[MOST * MOST];
    float own[MOST], want_own[MOST];
    CHECK(file && cJSON_GetObjectItem(file, "length")->valueint == MOST);
    cJSON_ArrayForEach(c, cJSON_GetObjectItem(file, "cases"))
    {
        sm_err e = {0};
        side a, b;
        bool refine = !strcmp(cJSON_GetArrayItem(c, 0)->valuestring, "refine");
        side_of(cJSON_GetArrayItem(c, 1), cJSON_GetArrayItem(c, 2), &a);
        side_of(cJSON_GetArrayItem(c, 3), cJSON_GetArrayItem(c, 4), &b);
        wanted(cJSON_GetArrayItem(c, 5), refine, &b, want, want_own);
        sumi_status st = refine ? sm_align_refine(&a.t, &b.t, map, own, NULL, &e) : sm_align_replace(&a.t, &b.t, map, own, &e);
        CHECKF(!st && !memcmp(map, want, sizeof map) && !memcmp(own, want_own, sizeof own), "case %d: %s", n, e.msg);
        n++;
    }
    CHECK(n == 700);
    cJSON_Delete(file);
}

/* A text as one chunk of CLIP's. */
static void clip_side(const sm_bpe *b, const char *text, side *s)
{
    sm_err e = {0};
    *s = (side){.t = {.id = s->id, .begins = s->begins, .length = MOST}};
    CHECK(!sm_bpe_row(b, text, strlen(text), MOST, -1, s->id, &s->t.n, NULL, &e));
    sm_align_words(b, s->id, s->t.n, MOST, s->begins);
}

/* How often the words are found, and where: '#' for every token of theirs. */
static void found(const sm_bpe *b, const char *text, const char *words, int times, const char *where)
{
    side s;
    sm_err e = {0};
    bool marks[MOST] = {0};
    char got[MOST + 1] = "";
    clip_side(b, text, &s);
    int n = sm_align_find(b, &s.t, words, strlen(words), marks, NULL, &e);
    for (int i = 0; i < s.t.n; i++)
        got[i] = marks[i] ? '#' : '.';
    CHECKF(n == times && !strcmp(got, where), "'%s' in '%s': %d times, %s (%s)", words, text, n, got, e.msg);
}

TEST(align_words_among_tokens)
{
    sm_err e = {0};
    sm_bpe *b = sm_bpe_clip(NULL, &e);
    side s;
    CHECK(b != NULL);
    found(b, "a cat and a dog", "cat", 1, "..#....");
    found(b, "a Cat, a cat.", "CAT", 2, "..#..#..");
    found(b, "a bobcat on a mat", "cat", 0, ".......");         /* the end of a word is none: bobcat is one token */
    found(b, "a steampunkcat sleeps", "cat", 0, ".......");      /* nor is it of several tokens, steam punk cat */
    found(b, "a photorealistic photo", "photo", 1, "....#.");    /* photo realistic */
    found(b, "a photorealistic photo", "photorealistic", 1, "..##..");
    found(b, "pepperoni pizza, cold pizza", "cold pizza", 1, "....##.");
    found(b, "a cat", "a", 1, ".#..");
    found(b, "a cat", "", 0, "....");
    found(b, "", "cat", 0, "..");
    clip_side(b, "it's a photorealistic cat, two", &s);
    CHECK(sm_align_count(&s.t) == 7); /* it 's a photorealistic cat , two */
    bool marks[MOST] = {0};
    CHECK(sm_align_find(b, &s.t, "\xff", 1, marks, NULL, &e) == -1 && e.code == SUMI_E_ARG);
    sm_bpe_free(b);
}

TEST(align_refuses)
{
    sm_err e = {0};
    static float map[MOST * MOST];
    float own[MOST];
    sm_bpe *b = sm_bpe_clip(NULL, &e);
    side s, t;
    clip_side(b, "a red apple", &s);
    clip_side(b, "an apple", &t);
    CHECK(sm_align_replace(&s.t, &t.t, map, own, &e) == SUMI_E_ARG && strstr(e.msg, "3 in the source and 2"));
    sm_bpe_free(b);
}
