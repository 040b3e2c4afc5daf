/* What a model may be called, and what a hub may call its files (see name.h). Every part that becomes a path of the cache is
 * checked here: nothing that a user types or a server sends can name a file outside it. URLs as in RFC 3986, taken apart by
 * libcurl. */
#include "hub/name.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#include "hub/digest.h"

#define WORD "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

/* One part of OWNER/NAME of n bytes: the hub's rules. */
static bool part_ok(const char *s, size_t n)
{
    if (n < 1 || n >= SM_HUB_PART || strspn(s, WORD) < n || s[0] == '.' || s[0] == '-')
        return false;
    for (size_t i = 0; i + 1 < n; i++)
        if ((s[i] == '.' && s[i + 1] == '.') || (s[i] == '-' && s[i + 1] == '-')) /* "--" parts the cache's folder names */
            return false;
    return true;
}

static bool is_url(const char *s) { return !strncmp(s, "http://", 7) || !strncmp(s, "https://", 8); }

/* Bytes of a revision at s: one part, or three that begin with refs. */
static size_t revision_len(const char *s)
{
    size_t n = strcspn(s, "/");
    if (n != 4 || strncmp(s, "refs", 4))
        return n;
    for (int i = 0; i < 2 && s[n]; i++)
        n += 1 + strcspn(s + n + 1, "/");
    return n;
}

static bool revision_ok(const char *s, size_t n)
{
    if (n < 1 || n >= SM_HUB_REVISION || strspn(s, WORD "/+") < n || s[n - 1] == '/')
        return false;
    for (size_t i = 0; i < n; i++) /* no part may begin with a dot or a dash */
        if ((!i || s[i - 1] == '/') && (s[i] == '.' || s[i] == '-' || s[i] == '/'))
            return false;
    return true;
}

const char *sm_hub_path_wrong(const char *path)
{
    size_t n = strlen(path);
    if (!n)
        return "is empty";
    if (n > 400)
        return "is longer than 400 bytes";
    if (!sm_utf8_valid(path, n))
        return "is not UTF-8";
    for (const char *s = path; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f || *s == '\\')
            return "holds a control character or a backslash";
    for (const char *s = path;; s++) {
        size_t k = strcspn(s, "/");
        if (!k || k > 200)
            return k ? "has a part of more than 200 bytes" : "has an empty part or begins or ends with a slash";
        if (s[0] == '.' && (k == 1 || (k == 2 && s[1] == '.')))
            return "has a part that is '.' or '..'";
        s += k;
        if (!*s)
            return NULL;
    }
}

/* ---- OWNER/NAME... ------------------------------------------------------------------------------------------------- */

static sumi_status parse_plain(const char *what, sm_hub_name *o, sm_err *e)
{
    size_t n = strcspn(what, "/");
    const char *name = what + n + (what[n] == '/');
    size_t m = strcspn(name, "@/");
    if (!what[n] || !part_ok(what, n) || !part_ok(name, m))
        return sm_fail(e, SUMI_E_ARG, "'%.120s' is no model's name: write OWNER/NAME, OWNER/NAME@REVISION, OWNER/NAME/FILE or an "
                       "https:// address", what);
    memcpy(o->owner, what, n);
    memcpy(o->name, name, m);
    const char *rest = name + m;
    if (*rest == '@') {
        size_t k = revision_len(++rest);
        if (!revision_ok(rest, k))
            return sm_fail(e, SUMI_E_ARG, "'%.120s': what follows @ is no revision (a branch, a tag, a commit or refs/pr/N)",
                           what);
        memcpy(o->revision, rest, k);
        rest += k;
    } else {
        strcpy(o->revision, "main");
    }
    if (!*rest)
        return SUMI_OK;
    const char *wrong = sm_hub_path_wrong(rest + 1);
    if (wrong)
        return sm_fail(e, SUMI_E_ARG, "'%.120s': the file's name %s", what, wrong);
    strcpy(o->path, rest + 1);
    return SUMI_OK;
}

bool sm_hub_is_name(const char *what)
{
    sm_hub_name n = {0};
    sm_err e = {0};
    return is_url(what) || !parse_plain(what, &n, &e);
}

/* ---- URLs ---------------------------------------------------------------------------------------------------------- */

static bool url_part(CURLU *u, CURLUPart part, unsigned flags, char *out, size_t size)
{
    char *s = NULL;
    bool ok = !curl_url_get(u, part, &s, flags) && strlen(s) < size;
    if (ok)
        strcpy(out, s);
    curl_free(s);
    return ok;
}

bool sm_origin_of(const char *url, sm_origin *o)
{
    CURLU *u = curl_url();
    *o = (sm_origin){0};
    bool ok = u && !curl_url_set(u, CURLUPART_URL, url, 0) && url_part(u, CURLUPART_SCHEME, 0, o->scheme, sizeof o->scheme) &&
              url_part(u, CURLUPART_HOST, 0, o->host, sizeof o->host) &&
                  url_part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT, o->port, sizeof o->port);
    curl_url_cleanup(u);
    for (char *s = o->host; ok && *s; s++)
        *s = *s >= 'A' && *s <= 'Z' ? (char)(*s + 32) : *s;
    return ok;
}

bool sm_origin_same(const sm_origin *a, const sm_origin *b)
{
    return !strcmp(a->scheme, b->scheme) && !strcmp(a->host, b->host) && !strcmp(a->port, b->port);
}

bool sm_origin_loopback(const sm_origin *o)
{
    if (!strcmp(o->host, "localhost") || !strcmp(o->host, "[::1]"))
        return true;
    return !strncmp(o->host, "127.", 4) && o->host[strspn(o->host, "0123456789.")] == 0;
}

/* A page of the hub as OWNER/NAME...: path is decoded and begins with a slash. False: some other address. */
static bool parse_page(const char *path, sm_hub_name *o)
{
    char plain[SM_HUB_ADDRESS];
    const char *owner = path + 1, *name = owner + strcspn(owner, "/");
    size_t n = *name ? strcspn(name + 1, "/") : 0;
    const char *verb = name + 1 + n;
    sm_err e = {0};
    if (!n)
        return false;
    if (!*verb || !strcmp(verb, "/"))
        snprintf(plain, sizeof plain, "%.*s", (int)(verb - owner), owner);
    else if (!strncmp(verb, "/blob/", 6) || !strncmp(verb, "/tree/", 6))
        snprintf(plain, sizeof plain, "%.*s@%s", (int)(verb - owner), owner, verb + 6);
    else if (!strncmp(verb, "/resolve/", 9))
        snprintf(plain, sizeof plain, "%.*s@%s", (int)(verb - owner), owner, verb + 9);
    else
        return false;
    sm_hub_name x = {0};
    if (parse_plain(plain, &x, &e))
        return false;
    *o = x;
    return true;
}

static bool has_user(CURLU *u)
{
    char *s = NULL;
    bool has = curl_url_get(u, CURLUPART_USER, &s, 0) != CURLUE_NO_USER;
    curl_free(s);
    return has;
}

static sumi_status parse_url(const char *what, const char *endpoint, sm_hub_name *o, sm_err *e)
{
    char path[SM_HUB_ADDRESS];
    sm_origin a, b;
    CURLU *u = curl_url();
    if (!u)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for an address");
    if (strlen(what) >= SM_HUB_ADDRESS)
        sm_fail(e, SUMI_E_ARG, "the address is longer than %d bytes", SM_HUB_ADDRESS - 1);
    else if (curl_url_set(u, CURLUPART_URL, what, 0) || !sm_origin_of(what, &a))
        sm_fail(e, SUMI_E_ARG, "'%.60s' is no valid address", what);
    else if (has_user(u))
        sm_fail(e, SUMI_E_ARG, "the address has a user name or password in it: sumi takes none there");
    else if (curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0) || !url_part(u, CURLUPART_URL, 0, o->address, sizeof o->address))
        sm_fail(e, SUMI_E_ARG, "the address is too long");
    else if (sm_origin_of(endpoint, &b) && sm_origin_same(&a, &b) &&
             url_part(u, CURLUPART_PATH, CURLU_URLDECODE, path, sizeof path))
        parse_page(path, o); /* otherwise the address stays one */
    curl_url_cleanup(u);
    return e->code;
}

sumi_status sm_hub_parse(const char *what, const char *endpoint, sm_hub_name *o, sm_err *e)
{
    *o = (sm_hub_name){0};
    return is_url(what) ? parse_url(what, endpoint, o, e) : parse_plain(what, o, e);
}

/* ---- an address' place ----------------------------------------------------------------------------------------------- */

sumi_status sm_hub_address_path(const char *address, char *out, size_t size, sm_err *e)
{
    char path[SM_HUB_ADDRESS], hex[SM_DIGEST_HEX], mark[16] = "";
    sm_origin o;
    if (!sm_origin_of(address, &o) || o.host[0] == '.' || strpbrk(o.host, "/\\%")) /* the host becomes a folder */
        return sm_fail(e, SUMI_E_ARG, "'%.60s' is no valid address", address);
    bool usual = !strcmp(o.port, !strcmp(o.scheme, "https") ? "443" : "80");
    const char *query = strchr(address, '?'), *start = strstr(address, "://") + 3;
    start += strcspn(start, "/?");
    size_t n = query ? (size_t)(query - start) : strlen(start);
    if (query && query[1] && sm_digest_text(query + 1, hex))
        snprintf(mark, sizeof mark, "-%.8s", hex);
    if (n < 2 || start[n - 1] == '/')
        return sm_fail(e, SUMI_E_ARG, "'%.*s' names no file", (int)(query ? query - address : (long)strlen(address)), address);
    memcpy(path, start + 1, n - 1);
    path[n - 1] = 0;
    const char *wrong = sm_hub_path_wrong(path);
    if (wrong)
        return sm_fail(e, SUMI_E_ARG, "'%.*s': the file's name %s", 100, path, wrong);
    char *base = strrchr(path, '/');
    base = base ? base + 1 : path;
    char *dot = strrchr(base, '.');
    size_t stem = dot && dot != base ? (size_t)(dot - path) : strlen(path);
    int k = snprintf(out, size, "url/%s/%s%s%s/%.*s%s%s", o.scheme, o.host, usual ? "" : ":", usual ? "" : o.port, (int)stem,
                     path, mark, path + stem);
    return k > 0 && (size_t)k < size ? SUMI_OK : sm_fail(e, SUMI_E_ARG, "the address is too long");
}
