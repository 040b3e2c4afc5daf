/* Choices in prompts, drawn by a seed, in the syntax of the Dynamic Prompts extension of AUTOMATIC1111's webui:
 *   {red|green|blue}          one of them; options may hold choices again
 *   {3::red|green}            red three times as often
 *   {2$$red|green|blue}       two different ones, joined by ", ";  {1-2$$a|b|c} one or two;  {2$$ and $$a|b|c} joined by " and "
 *   __animals__ a line of FOLDER/animals.txt; __beasts/big*__ of all the files that match; {2$$__animals__} two of them Files
 *   hold an option a line ("3::cat" with a weight), # begins a comment line, lines may hold choices. Braces without | or $$ are
 *   text, and so are names between __ where there is no folder. \{ \} are braces that are text. */
#ifndef SM_TEXT_CHOICES_H
#define SM_TEXT_CHOICES_H

#include "base/base.h"

/* Whether anything in text would be drawn or taken for an escape; if not, it is its own result. */
bool sm_choices_any(const char *text, bool folder);

/* The text with every choice made, in arena a; NULL on failure. folder "": no wildcards. The same seed, stream and files give the
 * same text. */
const char *sm_choices_make(const char *text, const char *folder, uint64_t seed, uint64_t stream, sm_arena *a, sm_err *e);

#endif
