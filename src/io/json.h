/* JSON of unknown origin, parsed by cJSON after a scan that bounds what the parse can cost. */
#ifndef SM_JSON_H
#define SM_JSON_H

#include <cjson/cJSON.h>

#include "base/base.h"

/* Parses the n bytes at text. Refused with SUMI_E_FORMAT and a message that starts with label: bytes that are not UTF-8,
 * NUL in a string, nesting past max_depth, more than max_items values, members of one object with the same name, anything
 * but white space after the value. The caller frees the value with cJSON_Delete. NULL on failure. */
cJSON *sm_json_parse(sm_mem *mem, const char *text, size_t n, int max_depth, size_t max_items, const char *label, sm_err *e);

/* Appends the text as a JSON string, quotes included. */
void sm_json_put_text(sm_buf *b, const char *s);

/* True when item is a whole number from 0 to 2^53 - 1, where a double is still exact. */
bool sm_json_index(const cJSON *item, uint64_t *value);

#endif
