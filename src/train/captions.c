/* One caption of one training example. About half are the fixed form that pictures are scored by,
 *
 *     CAPTION, STYLE style, on a COLOUR background
 *
 * with the style left out at times and the colour left out mostly when it is white (and only then). The others are free:
 *
 *     [wrapper] SUBJECT [STYLE] [COLOUR]      in shuffled order, now and then with junk words and in another case
 *     SUBJECT: caption, with an article, without filler words, with words in another order, with keywords, or keywords alone;
 *              "two Xs", "X and Y" for pictures of two things.
 *
 * so that a prompt finds its concept by its words, not by a template. */
#include "train/captions.h"

#include <stdio.h>
#include <string.h>

enum { TEXT = 512, WORDS = 24 };

/* Text under construction; what does not fit is dropped, at a character boundary. */
typedef struct text {
    char b[TEXT];
    size_t n;
} text;

static void put(text *t, const char *s)
{
    size_t all = strlen(s), k = SM_MIN(all, TEXT - 1 - t->n);
    while (k && k < all && ((unsigned char)s[k] & 0xc0) == 0x80)
        k--;
    memcpy(t->b + t->n, s, k);
    t->b[t->n += k] = 0;
}

/* Appends with a blank between, unless t is empty. */
static void put_word(text *t, const char *s)
{
    if (t->n && *s)
        put(t, " ");
    put(t, s);
}

static void finish(const text *t, char *out, size_t cap)
{
    if (!cap)
        return;
    size_t n = SM_MIN(t->n, cap - 1);
    while (n && n < t->n && ((unsigned char)t->b[n] & 0xc0) == 0x80)
        n--;
    memcpy(out, t->b, n);
    out[n] = 0;
}

static const char *choose(sm_dice *d, const char *const *list, size_t n) { return list[sm_dice_pick(d, (int64_t)n)]; }
#define CHOOSE(d, list) choose(d, list, SM_COUNT(list))

static bool is_vowel(char c) { return c && strchr("aeiouAEIOU", c); }

/* "a " or "an " before s, nothing before plurals and names. */
static const char *article(const char *s)
{
    if (!sm_caption_countable(s))
        return "";
    return is_vowel(s[0]) && strncmp(s, "uni", 3) && strncmp(s, "ewe", 3) && strncmp(s, "one", 3) &&
        strncmp(s, "euro", 4) ? "an " : "a ";
}

/* ---- the fixed form ---------------------------------------------------------------------------------------------- */

static void put_plain_subject(text *t, const sm_scene_words *w)
{
    char plural[TEXT];
    if (w->n == 2 && w->same) {
        sm_caption_plural(w->thing[0].caption, plural, sizeof plural);
        put(t, "two ");
        put(t, plural);
        return;
    }
    put(t, w->thing[0].caption);
    if (w->n == 2) {
        put(t, " and ");
        put(t, w->thing[1].caption);
    }
}

void sm_caption_fixed(const sm_scene_words *w, bool style, bool colour, char *out, size_t cap)
{
    text t = {.n = 0};
    put_plain_subject(&t, w);
    if (style) {
        put(&t, ", ");
        put(&t, sm_styles[w->style].name);
        put(&t, " style");
    }
    if (colour) {
        put(&t, ", on a ");
        put(&t, sm_colours[w->colour].name);
        put(&t, " background");
    }
    finish(&t, out, cap);
}

/* ---- subjects ---------------------------------------------------------------------------------------------------- */

/* Typographic apostrophes, dashes and accented letters as a keyboard without them types them. */
static void fold(char *s)
{
    static const char *const map[][2] = {{"’", "'"}, {"–", "-"}, {"ñ", "n"}, {"ó", "o"}, {"è", "e"}, {"ā", "a"},
                                         {"ō", "o"}, {"é", "e"}, {"ê", "e"}, {"á", "a"}, {"ü", "u"}};
    char *o = s;
    while (*s) {
        size_t i = 0;
        while (i < SM_COUNT(map) && strncmp(s, map[i][0], strlen(map[i][0])))
            i++;
        if (i == SM_COUNT(map)) {
            *o++ = *s++;
        } else {
            *o++ = map[i][1][0];
            s += strlen(map[i][0]);
        }
    }
    *o = 0;
}

/* Splits s at blanks in place. */
static int split(char *s, char **word)
{
    int n = 0;
    for (char *p = strtok_r(s, " ", &s); p && n < WORDS; p = strtok_r(NULL, " ", &s))
        word[n++] = p;
    return n;
}

static bool filler(const char *w)
{
    static const char *const words[] = {"with", "of", "and", "the", "a", "in", "on", "but", "from"};
    for (size_t i = 0; i < SM_COUNT(words); i++)
        if (!strcmp(w, words[i]))
            return true;
    return false;
}

/* The caption's words without fillers. */
static int content_words(char *caption, char **word)
{
    int n = split(caption, word), k = 0;
    for (int i = 0; i < n; i++)
        if (!filler(word[i]))
            word[k++] = word[i];
    return k;
}

/* Without fillers, and at times without the word "face" where two others remain. */
static void put_terse(text *t, sm_dice *d, const char *caption)
{
    char copy[TEXT], *word[WORDS];
    snprintf(copy, sizeof copy, "%s", caption);
    int n = content_words(copy, word);
    bool drop_face = n > 2 && sm_dice_chance(d, 0.4f);
    for (int i = 0; i < n; i++)
        if (!drop_face || strcmp(word[i], "face"))
            put_word(t, word[i]);
}

/* "smiling cat" as "cat smiling"; longer ones with the last word first, or in any order. */
static void put_reordered(text *t, sm_dice *d, const char *caption)
{
    char copy[TEXT], *word[WORDS];
    snprintf(copy, sizeof copy, "%s", caption);
    int n = content_words(copy, word);
    if (n > 2 && sm_dice_chance(d, 0.6f)) {
        for (int i = n - 1; i > 0; i--) {
            int64_t j = sm_dice_pick(d, i + 1);
            char *swap = word[i];
            word[i] = word[j];
            word[j] = swap;
        }
        for (int i = 0; i < n; i++)
            put_word(t, word[i]);
        return;
    }
    for (int i = 0; i < n; i++)
        put_word(t, word[(i + n - 1) % n]);
}

/* count different keywords in the order of a random rotation. */
static void put_tags(text *t, sm_dice *d, const sm_thing *g, int count, const char *between)
{
    int first = (int)sm_dice_pick(d, g->n_tags);
    for (int i = 0; i < count && i < g->n_tags; i++) {
        if (i)
            put(t, between);
        put(t, g->tags[(first + i) % g->n_tags]);
    }
}

static void put_thing(text *t, sm_dice *d, const sm_thing *g)
{
    float r = sm_dice_unit(d);
    if (r < 0.16f) {
        put_terse(t, d, g->caption);
    } else if (r < 0.30f) {
        put_reordered(t, d, g->caption);
    } else if (r < 0.42f && g->n_tags > 0) {
        put(t, g->caption);
        put(t, sm_dice_chance(d, 0.5f) ? ", " : " ");
        put_tags(t, d, g, 1 + (int)sm_dice_pick(d, 2), " ");
    } else if (r < 0.49f && g->n_tags > 2) {
        put_tags(t, d, g, 3 + (int)sm_dice_pick(d, 3), sm_dice_chance(d, 0.5f) ? ", " : " ");
    } else {
        if (sm_dice_chance(d, 0.45f))
            put(t, sm_dice_chance(d, 0.85f) ? article(g->caption) : "the ");
        put(t, g->caption);
    }
}

static void put_two(text *t, sm_dice *d, const sm_scene_words *w)
{
    static const char *const twice[] = {"two ", "two ", "two ", "2 ", "a pair of ", "a couple of "};
    static const char *const join[][2] = {{" and ", ""}, {" and ", ""}, {" next to ", ""}, {" beside ", ""}, {" & ", ""},
                                          {", ", ""},    {" with ", ""}, {" left of ", ""},
                                          {" on the left and ", " on the right"}};
    if (w->same) {
        char plural[TEXT];
        sm_caption_plural(w->thing[0].caption, plural, sizeof plural);
        put(t, CHOOSE(d, twice));
        put(t, plural);
        return;
    }
    const char *const *j = join[sm_dice_pick(d, SM_COUNT(join))];
    bool art = sm_dice_chance(d, 0.5f);
    put(t, art ? article(w->thing[0].caption) : "");
    put(t, w->thing[0].caption);
    put(t, j[0]);
    put(t, art ? article(w->thing[1].caption) : "");
    put(t, w->thing[1].caption);
    put(t, j[1]);
}

/* ---- style, colour, wrappers ------------------------------------------------------------------------------------- */

/* A phrase for the style that follows (after true) or precedes the subject. */
static void put_style(text *t, sm_dice *d, int style, bool after)
{
    static const char *const late[][2] = {{", ", " style"},   {", ", " style"},         {" in ", " style"}, {" ", " style"},
                                          {", ", ""},
                                          {" as ", " emoji"}, {" in the style of ", ""}, {" (", ")"},
                                          {" drawn in ", " style"}};
    static const char *const early[][2] = {{"", " style "}, {"", " style "}, {"", " "}, {"", " emoji of "}, {"", ": "}};
    const sm_style *s = &sm_styles[style];
    const char *name = sm_dice_chance(d, 0.75f) ? s->name : s->other[sm_dice_pick(d, SM_COUNT(s->other))];
    const char *const *f = after ? late[sm_dice_pick(d, SM_COUNT(late))] : early[sm_dice_pick(d, SM_COUNT(early))];
    put(t, f[0]);
    put(t, name);
    put(t, f[1]);
}

static void put_colour(text *t, sm_dice *d, int colour, bool after)
{
    static const char *const late[][2] = {{", on @ ", " background"}, {" on @ ", " background"}, {" with @ ", " background"},
                                          {", ", " background"},      {" on ", ""},              {" against @ ", " background"},
                                          {" over @ ", " backdrop"},  {", background ", ""}};
    static const char *const early[][2] = {{"on @ ", " background, "}, {"", " background, "}, {"on ", ": "}};
    const sm_colour *c = &sm_colours[colour];
    const char *name = c->other && sm_dice_chance(d, 0.25f) ? c->other : c->name;
    const char *const *f = after ? late[sm_dice_pick(d, SM_COUNT(late))] : early[sm_dice_pick(d, SM_COUNT(early))];
    for (const char *p = f[0]; *p; p++) {
        char one[2] = {*p, 0};
        put(t, *p != '@' ? one : is_vowel(name[0]) ? "an" : "a");
    }
    put(t, name);
    put(t, f[1]);
}

static void put_wrapped(text *t, sm_dice *d, const char *subject)
{
    static const char *const before[] = {"a picture of ", "an emoji of ", "drawing of ", "a drawing of ", "an icon of ",
                                         "picture of ",
                                         "image of ",     "please draw ", "draw ",       "show me ",      "i want ",
                                         "cartoon of ",
                                         "an illustration of ", "clipart of ", "emoji: "};
    static const char *const behind[] = {" emoji", " icon", " picture", " drawing", " clipart", " please", " sticker",
                                         " illustration"};
    float r = sm_dice_unit(d);
    put(t, r < 0.22f ? CHOOSE(d, before) : "");
    put(t, subject);
    put(t, r >= 0.22f && r < 0.34f ? CHOOSE(d, behind) : "");
}

/* A word the model has to live with: praise from other models' prompts, or syllables that mean nothing. */
static void put_junk(text *t, sm_dice *d)
{
    static const char *const praise[] = {"beautiful", "high quality", "4k", "masterpiece", "nice", "detailed", "best", "very",
                                         "trending",
                                         "super", "amazing", "new", "lovely", "great", "digital art"};
    static const char *const syllable[] = {"ba", "zor", "quil", "ven", "tu", "mik", "lor", "sha", "dex", "wob", "ni", "gra",
                                           "pel", "yux"};
    if (t->n)
        put(t, " ");
    if (sm_dice_chance(d, 0.6f)) {
        put(t, CHOOSE(d, praise));
        return;
    }
    for (int i = 0; i < 3; i++)
        put(t, CHOOSE(d, syllable));
}

/* Upper case for ASCII letters: the first one, each word's, or all. */
static void recase(char *s, sm_dice *d)
{
    int64_t mode = sm_dice_pick(d, 3);
    for (size_t i = 0; s[i]; i++)
        if (s[i] >= 'a' && s[i] <= 'z' && (mode == 2 || i == 0 || (mode == 1 && s[i - 1] == ' ')))
            s[i] = (char)(s[i] - 'a' + 'A');
}

static void put_free(text *t, sm_dice *d, const sm_scene_words *w)
{
    text thing = {.n = 0}, subject = {.n = 0};
    if (w->n == 2)
        put_two(&thing, d, w);
    else
        put_thing(&thing, d, &w->thing[0]);
    put_wrapped(&subject, d, thing.b);

    bool style = sm_dice_chance(d, 0.7f), colour = w->colour != SM_WHITE || sm_dice_chance(d, 0.25f);
    bool style_late = sm_dice_chance(d, 0.75f), colour_late = sm_dice_chance(d, 0.88f), swap = sm_dice_chance(d, 0.25f);
    bool junk_first = sm_dice_chance(d, 0.04f), junk_last = sm_dice_chance(d, 0.04f);
    if (junk_first) {
        put_junk(t, d);
        put(t, " ");
    }
    if (colour && !colour_late)
        put_colour(t, d, w->colour, false);
    if (style && !style_late)
        put_style(t, d, w->style, false);
    put(t, subject.b);
    if (colour && colour_late && swap)
        put_colour(t, d, w->colour, true);
    if (style && style_late)
        put_style(t, d, w->style, true);
    if (colour && colour_late && !swap)
        put_colour(t, d, w->colour, true);
    if (junk_last)
        put_junk(t, d);
    if (sm_dice_chance(d, 0.5f))
        fold(t->b);
    if (sm_dice_chance(d, 0.1f))
        recase(t->b, d);
    t->n = strlen(t->b);
}

void sm_caption_draw(const sm_scene_words *w, sm_dice *d, char *out, size_t cap)
{
    if (sm_dice_chance(d, 0.5f)) {
        bool style = sm_dice_chance(d, 0.8f), colour = w->colour != SM_WHITE || sm_dice_chance(d, 0.3f);
        sm_caption_fixed(w, style, colour, out, cap);
        return;
    }
    text t = {.n = 0};
    put_free(&t, d, w);
    finish(&t, out, cap);
}
