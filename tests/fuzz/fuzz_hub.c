/* Fuzz entry of what a hub sends and a user types: the listing and the choice of its files; after a first byte '@' a name; after
 * 'H' the head of an answer, line by line. Nothing that is accepted may leave the cache or end a line. */
#include <stdlib.h>
#include <string.h>

#include "hub/http.h"
#include "hub/listing.h"
#include "hub/name.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A relative path that stays below the folder it is put into. */
static bool stays(const char *path)
{
    if (!*path || *path == '/' || strlen(path) > 600)
        return false;
    for (const char *s = path; s; s = strchr(s, '/') ? strchr(s, '/') + 1 : NULL)
        if (!strncmp(s, "../", 3) || !strcmp(s, "..") || !strcmp(s, ".") || *s == '/' || !*s)
            return false;
    return true;
}

static void name(const char *text)
{
    char path[4096];
    sm_hub_name n;
    sm_err e = {0};
    if (sm_hub_parse(text, "https://huggingface.co", &n, &e)) {
        if (!e.msg[0])
            abort();
        return;
    }
    if (n.owner[0] ? !stays(n.owner) || !stays(n.name) || !stays(n.revision) || strchr(n.owner, '/') || strchr(n.name, '/')
        : !n.address[0])
        abort();
    if (n.path[0] && !stays(n.path))
        abort();
    if (!n.owner[0] && !sm_hub_address_path(n.address, path, sizeof path, &e) && !stays(path))
        abort();
}

static void listing(const char *data, size_t size)
{
    static const sm_hub_wish wishes[] = {{.path = ""}, {.path = "", .variant = "fp16"}, {.path = "", .include = "*.json,u*"},
                                         {.path = "model.safetensors"}};
    sm_mem mem = {0};
    sm_err e = {0};
    sm_listing l;
    if (!sm_listing_parse(data, size, "fuzz", &mem, &l, &e)) {
        for (size_t i = 0; i < l.n; i++)
            if (!stays(l.at[i].path) || strspn(l.at[i].digest, "0123456789abcdef") != strlen(l.at[i].digest) ||
                strlen(l.at[i].digest) < 40)
                abort();
        for (size_t k = 0; k < SM_COUNT(wishes); k++)
            sm_listing_select(&l, &wishes[k], "fuzz", &(sm_err){0});
    } else if (!e.msg[0]) {
        abort();
    }
    sm_listing_free(&l);
    if (mem.total)
        abort();
}

static bool printable(const char *s, size_t size)
{
    size_t n = strnlen(s, size);
    for (size_t i = 0; i < n; i++)
        if (s[i] <= 0x20 || s[i] >= 0x7f)
            return false;
    return n < size;
}

/* Each line in memory of its own size, as it comes out of the network: not ended by a NUL. */
static void head(const char *data, size_t size)
{
    sm_http_reply r = {0};
    for (size_t at = 0, end; at < size; at = end) {
        const char *nl = memchr(data + at, '\n', size - at);
        end = nl ? (size_t)(nl - data) + 1 : size;
        char *line = malloc(end - at);
        if (!line)
            abort();
        memcpy(line, data + at, end - at);
        sm_http_header(&r, line, end - at);
        free(line);
        if (!printable(r.etag, sizeof r.etag) || !printable(r.linked_etag, sizeof r.linked_etag) ||
            !printable(r.error_code, sizeof r.error_code) || r.range_from < -1 || r.range_total < -1 || r.length < -1)
            abort();
        if (r.etag[0] && (strlen(r.etag) < 2 || r.etag[0] != '"' || r.etag[strlen(r.etag) - 1] != '"'))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[3000];
    if (size && data[0] == 'H') {
        head((const char *)data + 1, size - 1);
        return 0;
    }
    if (!size || data[0] != '@') {
        listing((const char *)data, size);
        return 0;
    }
    size_t n = SM_MIN(size - 1, sizeof text - 1);
    memcpy(text, data + 1, n);
    text[n] = 0;
    name(text);
    return 0;
}
