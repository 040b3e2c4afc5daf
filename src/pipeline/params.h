/* The parameter table of sumi.h as the library works with it: rows found by name, values as text, checking. */
#ifndef SM_PARAMS_H
#define SM_PARAMS_H

#include "pipeline/context.h"

/* By the field's name, the flag ('-' and '_' are the same) or A1111's name, letter case aside in the latter; NULL: none. */
const sumi_param_info *sm_param_find(const char *name);
/* The first n bytes of it. */
const sumi_param_info *sm_param_find_n(const char *name, size_t n);

/* Sets the row's parameter from text, checking type and range. Texts are borrowed. */
sumi_status sm_param_set(const sumi_param_info *p, sumi_request *r, const char *value, sm_err *e);
/* The value, a text or a number. */
static inline const char *sm_param_text(const sumi_param_info *p, const sumi_request *r)
{
    return *(const char *const *)((const char *)r + p->offset);
}
double sm_param_number(const sumi_param_info *p, const sumi_request *r);
/* Whether it is what sumi_request_default has. */
bool sm_param_is_default(const sumi_param_info *p, const sumi_request *r);
/* Appends the value: texts as they are, numbers with as many digits as bring the same number back. */
void sm_param_put(const sumi_param_info *p, const sumi_request *r, sm_buf *b);
/* "0..1" rows. */
static inline bool sm_param_switch(const sumi_param_info *p) { return p->type == SUMI_PARAM_INT && p->low == 0 && p->high == 1; }

/* Every parameter in range, every text present, UTF-8 and of at most SUMI_TEXT_MAX bytes; words among their choices. */
sumi_status sm_request_check(const sumi_request *r, sm_err *e);
/* Brings words with another spelling (A1111's, other letter case) to their names. */
void sm_request_spell(sumi_request *r);

/* Whether the autoencoder's encoder has work: a picture to begin from, hires fix of pixels. r is spelled. */
bool sm_request_encodes(const sumi_request *r);
/* Appends a line about parameters that have no effect because what they belong to is off (idle.c); nothing where all have.
 * encodes: the model sees a picture in every request. */
void sm_request_idle(const sumi_request *r, bool encodes, sm_buf *out);

/* Rows that name files. */
bool sm_param_is_path(const sumi_param_info *p);

/* For requests that name none. Unguessable is not needed, different is. */
int64_t sm_random_seed(void);

/* ---- choices.c ---- */

/* A word that a parameter takes (for an INT, the number as text), and A1111's spelling. */
typedef struct sm_choice { const char *name, *a1111; } sm_choice;

/* The i-th; false past the last, or where any value goes. A word with several spellings comes several times. */
bool sm_choice_at(const sumi_param_info *p, size_t i, sm_choice *out);
/* The words one by one, without their further spellings: *i is 0 at first; NULL past the last. */
const char *sm_choice_word(const sumi_param_info *p, size_t *i);
/* By either spelling, letter case aside. */
bool sm_choice_find(const sumi_param_info *p, const char *word, sm_choice *out);

#endif
