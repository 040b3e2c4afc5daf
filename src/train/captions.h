/* Captions of training examples: the fixed form `CAPTION, STYLE style, on a COLOUR background` for about half of them, free
 * wordings of the same thing for the rest. Style and background names live here too. See captions.c for the grammar. */
#ifndef SM_CAPTIONS_H
#define SM_CAPTIONS_H

#include "train/dice.h"

/* A drawing style: the data set's id, the name in prompts, and other names that free wordings use now and then. */
typedef struct sm_style {
    const char *id, *name, *other[3];
} sm_style;

enum { SM_STYLES = 8, SM_COLOURS = 24, SM_WHITE = 0 };
extern const sm_style sm_styles[SM_STYLES];

/* A background colour: name in prompts, sRGB, and another name or NULL. Row SM_WHITE is white, the default. */
typedef struct sm_colour {
    const char *name;
    uint8_t rgb[3];
    const char *other;
} sm_colour;
extern const sm_colour sm_colours[SM_COLOURS];

int sm_style_find(const char *id_or_name); /* row, or -1 */
int sm_colour_find(const char *name);      /* row, or -1 */

/* What a drawing shows: CLDR short name and keywords (UTF-8, NUL-terminated, borrowed). */
typedef struct sm_thing {
    const char *caption;
    const char *const *tags;
    int n_tags;
} sm_thing;

/* What a picture to be captioned shows: one thing, twice the same thing (n = 2, same), or two things, left one first. */
typedef struct sm_scene_words {
    sm_thing thing[2];
    int n;
    bool same;
    int style;  /* row of sm_styles */
    int colour; /* row of sm_colours */
} sm_scene_words;

/* "two CAPTIONs" can be told from "CAPTION": it names one countable thing whose plural differs ("book", not "books"). */
bool sm_caption_countable(const char *caption);
/* Plural of a caption's head noun: "two " is not included. "face with tongue" gives "faces with tongue". */
void sm_caption_plural(const char *caption, char *out, size_t cap);

/* The fixed form. Leaving out the colour means a white background. Truncated to cap - 1 bytes at a character boundary. */
void sm_caption_fixed(const sm_scene_words *w, bool style, bool colour, char *out, size_t cap);

/* One caption, drawn with d. A colour other than white is always named. cap of 320 holds every caption of the data set. */
void sm_caption_draw(const sm_scene_words *w, sm_dice *d, char *out, size_t cap);

#endif
