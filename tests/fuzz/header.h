/* For fuzzers whose input is a safetensors header: a whole file of it. */
#ifndef FUZZ_HEADER_H
#define FUZZ_HEADER_H

#include <stdlib.h>
#include <string.h>

#include "io/json.h"

enum { MOST_DATA = 1 << 20 };

static inline void check(bool ok)
{
    if (!ok)
        abort();
}

static inline bool one_line(const sm_err *e) { return e->code != SUMI_OK && e->msg[0] && !strchr(e->msg, '\n'); }

/* The largest offset that the header names, for the data; 0 where it is none. */
static inline size_t data_bytes(const char *head, size_t n)
{
    sm_err e = {0};
    uint64_t most = 0, end;
    cJSON *j = sm_json_parse(NULL, head, n, 4, 1 << 16, "fuzz", &e);
    for (const cJSON *c = j ? j->child : NULL; c; c = c->next) {
        const cJSON *range = cJSON_GetObjectItemCaseSensitive(c, "data_offsets");
        if (cJSON_GetArraySize(range) == 2 && sm_json_index(cJSON_GetArrayItem(range, 1), &end))
            most = SM_MAX(most, end);
    }
    cJSON_Delete(j);
    return most <= MOST_DATA ? (size_t)most : 0;
}

/* The header's length, the header and as many zeros as it asks for, *bytes in all; for free. */
static inline char *file_of(const uint8_t *head, size_t n, size_t *bytes)
{
    uint64_t length = n;
    *bytes = 8 + n + data_bytes((const char *)head, n);
    char *file = calloc(1, *bytes + 1);
    check(file != NULL);
    memcpy(file, &length, 8);
    memcpy(file + 8, head, n);
    return file;
}

#endif
