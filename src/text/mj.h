/* What Midjourney's users write behind a prompt: "a red apple --ar 16:9 --no leaves, stalk --seed 3". */
#ifndef SM_TEXT_MJ_H
#define SM_TEXT_MJ_H

#include "base/base.h"

typedef struct sm_suffix { const char *name, *value; } sm_suffix; /* "ar", "16:9"; "" without a value */

/* Takes the suffixes off: *text is what stands before the first one. A suffix begins with two dashes, or a long one that a phone
 * made of them, before a letter and behind a space or nothing; its value goes up to the next one. All live in room. */
sumi_status sm_suffixes_split(const char *prompt, sm_arena *room, char **text, sm_suffix **out, int *n, sm_err *e);

#endif
