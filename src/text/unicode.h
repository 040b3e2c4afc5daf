/* Unicode as the tokenizers need it: UTF-8, character classes, lower case, canonical composition (UAX #15, NFC).
 * The data is unicode_table.h, made by tools/make_unicode.py, which names the Unicode version. */
#ifndef SM_TEXT_UNICODE_H
#define SM_TEXT_UNICODE_H

#include "base/base.h"

/* General categories L* and N*, the White_Space property, and the rest. */
typedef enum sm_uni { SM_UNI_OTHER, SM_UNI_LETTER, SM_UNI_NUMBER, SM_UNI_SPACE } sm_uni;

/* A growing text of code points. Zero-initialise with only mem set; free with sm_cps_free. */
typedef struct sm_cps {
    sm_mem *mem;
    uint32_t *cp;
    size_t n, cap;
} sm_cps;

bool sm_cps_add(sm_cps *c, uint32_t cp); /* false when memory is out */
void sm_cps_free(sm_cps *c);

sm_uni sm_uni_class(uint32_t cp);
bool sm_uni_word(uint32_t cp);    /* a letter or number of Python's Unicode, which is older than that of sm_uni_class */
bool sm_uni_decimal(uint32_t cp); /* general category Nd */

/* What a character counts as where a capital sigma asks whether it ends a word. */
typedef enum sm_case { SM_CASE_NONE, SM_CASE_CASED, SM_CASE_IGNORABLE } sm_case;
sm_case sm_uni_case(uint32_t cp);
/* Lower case, context-free as in Unicode's simple mapping; U+0130 alone gives two. Returns how many were written. */
int sm_uni_lower(uint32_t cp, uint32_t out[2]);

/* Reads one well-formed code point of s[0..n); returns its length in bytes, 0 where none begins. */
int sm_utf8_get(const char *s, size_t n, uint32_t *cp);
/* Writes cp (at most U+10FFFF) and returns its length. */
int sm_utf8_put(uint32_t cp, char out[4]);

/* Appends the text's code points. Ill-formed UTF-8 is SUMI_E_ARG and names the byte offset. */
sumi_status sm_uni_decode(const char *s, size_t n, sm_cps *out, sm_err *e);
/* Brings c into composed normal form in place. */
sumi_status sm_uni_nfc(sm_cps *c, sm_err *e);

#endif
