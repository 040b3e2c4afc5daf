/* Names of styles and background colours, and English plurals of the data set's captions. */
#include "train/captions.h"

#include <stdio.h>
#include <string.h>

const sm_style sm_styles[SM_STYLES] = {
    {"noto", "noto", {"noto emoji", "google", "android"}},
    {"noto-v1", "noto classic", {"old noto", "noto v1", "classic noto"}},
    {"twemoji", "twemoji", {"twitter", "twitter emoji", "twemoji flat"}},
    {"fluent-emoji", "fluent 3d", {"3d fluent", "3d", "fluent emoji 3d"}},
    {"fluent-emoji-flat", "fluent flat", {"flat fluent", "flat", "fluent emoji flat"}},
    {"emojione", "emojione", {"emoji one", "emojione v2", "joypixels"}},
    {"fxemoji", "firefox", {"firefox os", "fxemoji", "mozilla"}},
    {"streamline-emojis", "streamline", {"streamline emoji", "outlined", "streamline emojis"}},
};

/* Softer than the CSS colours of the same names, so that a drawing on them stays visible. */
const sm_colour sm_colours[SM_COLOURS] = {
    {"white", {255, 255, 255}, "plain white"},
    {"black", {0, 0, 0}, "pitch black"},
    {"grey", {128, 128, 128}, "gray"},
    {"light grey", {211, 211, 211}, "light gray"},
    {"dark grey", {64, 64, 64}, "dark gray"},
    {"red", {220, 38, 38}, "bright red"},
    {"dark red", {127, 20, 20}, "maroon"},
    {"orange", {249, 140, 30}, NULL},
    {"yellow", {250, 215, 50}, "bright yellow"},
    {"green", {50, 160, 70}, NULL},
    {"light green", {150, 220, 150}, "pale green"},
    {"dark green", {10, 90, 45}, "forest green"},
    {"mint", {190, 240, 220}, "mint green"},
    {"teal", {0, 128, 128}, NULL},
    {"turquoise", {64, 208, 208}, "cyan"},
    {"sky blue", {135, 206, 235}, "light blue"},
    {"blue", {40, 90, 220}, NULL},
    {"navy", {15, 25, 90}, "navy blue"},
    {"purple", {125, 50, 170}, "violet"},
    {"lavender", {220, 208, 250}, "light purple"},
    {"pink", {255, 182, 203}, "light pink"},
    {"magenta", {220, 20, 150}, "hot pink"},
    {"brown", {125, 75, 40}, NULL},
    {"beige", {240, 228, 200}, "cream"},
};

int sm_style_find(const char *s)
{
    for (int i = 0; s && i < SM_STYLES; i++)
        if (!strcmp(s, sm_styles[i].id) || !strcmp(s, sm_styles[i].name))
            return i;
    return -1;
}

int sm_colour_find(const char *s)
{
    for (int i = 0; s && i < SM_COLOURS; i++)
        if (!strcmp(s, sm_colours[i].name) || (sm_colours[i].other && !strcmp(s, sm_colours[i].other)))
            return i;
    return -1;
}

static const char *const irregular[][2] = {
    {"mouse", "mice"},     {"goose", "geese"},     {"ox", "oxen"},           {"wolf", "wolves"},       {"leaf", "leaves"},
    {"knife", "knives"},   {"scarf", "scarves"},   {"potato", "potatoes"},   {"tomato", "tomatoes"},   {"mango", "mangoes"},
    {"volcano", "volcanoes"}, {"mosquito", "mosquitoes"}, {"tornado", "tornadoes"}, {"buffalo", "buffaloes"}, {"die", "dice"},
    {"fish", "fish"},      {"deer", "deer"},       {"moose", "moose"},       {"bison", "bison"},       {"shrimp", "shrimp"},
    {"squid", "squid"},    {"sheep", "sheep"},     {"salmon", "salmon"},     {"blowfish", "blowfish"}, {"jellyfish", "jellyfish"},
    {"tooth", "teeth"},    {"foot", "feet"},       {"cactus", "cacti"},      {"bus", "buses"},
    {"minibus", "minibuses"}, {"trolleybus", "trolleybuses"}, {"octopus", "octopuses"}, {"abacus", "abacuses"},
    {"sheaf", "sheaves"},
    {"hippopotamus", "hippopotamuses"}, {"rhinoceros", "rhinoceroses"}, {"hibiscus", "hibiscuses"}, {"snowman", "snowmen"},
    {"lotus", "lotuses"},
};

/* Words that end the head noun phrase: "pot of food", "umbrella on ground". */
static const char *const prepositions[] = {"with", "of", "on", "in", "at", "without", "behind", "over", "from", "showing",
                                           "holding", "and", "blowing", "screaming", "shaking", "facing", "tilted", "not", "done",
                                           "increasing", "decreasing", "high", "low", "medium",
                                           "vomiting", "exhaling", "savoring", "fluttering"};

static bool is_preposition(const char *s, size_t n)
{
    for (size_t i = 0; i < SM_COUNT(prepositions); i++)
        if (strlen(prepositions[i]) == n && !memcmp(prepositions[i], s, n))
            return true;
    return false;
}

/* Byte length of the part of the caption whose last word is the head noun: up to the first preposition. */
static size_t head_length(const char *s)
{
    for (const char *p = s; (p = strchr(p, ' ')); p++)
        if (is_preposition(p + 1, strcspn(p + 1, " ")))
            return (size_t)(p - s);
    return strlen(s);
}

static bool vowel(char c) { return c && strchr("aeiou", c); }

static bool ends(const char *s, size_t n, const char *tail)
{
    size_t t = strlen(tail);
    return n >= t && !memcmp(s + n - t, tail, t);
}

void sm_caption_plural(const char *caption, char *out, size_t cap)
{
    size_t head = head_length(caption), word = head;
    while (word > 0 && caption[word - 1] != ' ' && caption[word - 1] != '-')
        word--;
    const char *w = caption + word;
    size_t n = head - word;
    for (size_t i = 0; i < SM_COUNT(irregular); i++)
        if (strlen(irregular[i][0]) == n && !memcmp(irregular[i][0], w, n)) {
            snprintf(out, cap, "%.*s%s%s", (int)word, caption, irregular[i][1], caption + head);
            return;
        }
    int keep = (int)head;
    const char *tail = "s";
    if (ends(w, n, "ss") || ends(w, n, "x") || ends(w, n, "ch") || ends(w, n, "sh"))
        tail = "es";
    else if (ends(w, n, "s"))
        tail = "";
    else if (n > 1 && w[n - 1] == 'y' && !vowel(w[n - 2]))
        keep--, tail = "ies";
    snprintf(out, cap, "%.*s%s%s", keep, caption, tail, caption + head);
}

bool sm_caption_countable(const char *caption)
{
    static const char *const first[] = {"two", "hundred", "no", "first", "last", "one", "three", "four", "five", "six", "seven",
                                        "eight", "nine", "ten", "eleven", "twelve", "1st", "2nd", "3rd", "rolling", "globe"};
    static const char *const mass[] = {"bacon", "butter", "bread", "broccoli", "ice", "fire", "fog", "dna", "salt", "soap",
                                       "sushi", "spaghetti", "coral", "garlic", "popcorn", "custard", "rice", "milky way", "sake",
                                       "foggy", "honey", "food", "clothes", "meat", "furniture", "weather", "oden", "zzz",
                                       "x-ray", "music", "locked", "dizzy", "away", "camping", "bowling", "construction", "night",
                                       "flatbread", "money", "luggage", "cooking", "badminton", "hockey", "star-struck",
                                       "ping pong"};
    size_t head = head_length(caption), word1 = strcspn(caption, " -");
    for (size_t i = 0; i < SM_COUNT(first); i++)
        if (strlen(first[i]) == word1 && !memcmp(first[i], caption, word1))
            return false;
    for (size_t i = 0; i < SM_COUNT(mass); i++)
        if (ends(caption, head, mass[i]) && (strlen(mass[i]) == head || caption[head - strlen(mass[i]) - 1] == ' '))
            return false;
    if (strstr(caption, "o’clock") || strstr(caption, " and ") || caption[0] < 'a' || caption[0] > 'z')
        return false;
    bool plural = ends(caption, head, "s") && !ends(caption, head, "ss"); /* but not of Latin and Greek make */
    return !plural || ends(caption, head, "us") || ends(caption, head, "ceros");
}
