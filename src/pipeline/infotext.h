/* A1111's text of generation parameters: its quoting, and how it looks for "Key: value". */
#ifndef SM_INFOTEXT_H
#define SM_INFOTEXT_H

#include "base/base.h"

/* Appends a value, as a JSON string where a reader would otherwise take it apart or change it. */
void sm_infotext_quote(const char *value, sm_buf *b);
/* White space as Python's str.strip and regular expressions have it: s and *n become what is between it. */
const char *sm_infotext_strip(const char *s, size_t *n);
/* Length of white space at s[0..n), one character; 0: none. */
size_t sm_infotext_space(const char *s, size_t n);

/* Appends ", KEY: VALUE" for every parameter but the prompts that is not its default. */
void sm_infotext_put_request(const sumi_request *r, sm_buf *b);
/* sumi_infotext_parse without a context. */
sumi_status sm_infotext_read(sm_mem *mem, const char *text, sumi_infotext **out, sm_err *e);

/* What sd-dynamic-thresholding turns itself on by, before its parameters. */
#define SM_INFOTEXT_THRESHOLDS "Dynamic thresholding enabled"
#define SM_INFOTEXT_NEGATIVE "Negative prompt:"

#endif
