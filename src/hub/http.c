/* A GET and its redirects (see http.h). HTTP as in RFC 9110; the hub's own headers (X-Linked-Etag, X-Error-Code) as its public
 * clients read them. Nothing that a server says is put into messages but numbers and the host's name, so no answer can make
 * the program print what was sent to it. */
#include "hub/http.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "hub/name.h"

enum { HOPS = 8, HEADER_BYTES = 128 << 10, CONNECT_SECONDS = 20, WASTE_BYTES = 1 << 20 };

struct sm_http {
    CURL *curl;
    sm_http_policy p;
    sm_origin home;
    bool answered;
    char error[CURL_ERROR_SIZE];
};

typedef struct transfer {
    sm_http *h;
    const sm_http_request *q;
    sm_http_reply *r;
    size_t header_bytes, wasted;
    bool in_body, stopped, bomb;
} transfer;

/* ---- what libcurl calls -------------------------------------------------------------------------------------------- */

/* Copies a header's value when it is printable ASCII and fits; quotes is for ETags, whose quotes belong to them. */
static void take(char *out, size_t size, const char *s, size_t n, bool quotes)
{
    if (!quotes && n >= 2 && s[0] == '"' && s[n - 1] == '"')
        s++, n -= 2;
    for (size_t i = 0; i < n; i++)
        if (s[i] <= 0x20 || s[i] >= 0x7f)
            return;
    if (n < size) {
        memcpy(out, s, n);
        out[n] = 0;
    }
}

/* A whole number of at most 18 digits at *s, or -1; *s moves past it. */
static int64_t whole(const char **s)
{
    size_t n = strspn(*s, "0123456789");
    int64_t x = n && n < 19 ? strtoll(*s, NULL, 10) : -1;
    *s += n;
    return x;
}

/* "bytes 5-9/10", "bytes 5-9/" with a star, "bytes " star "/10". */
static void take_range(sm_http_reply *r, const char *value, size_t n)
{
    char text[80];
    const char *s = text;
    if (n < 6 || n >= sizeof text || strncasecmp(value, "bytes ", 6))
        return;
    memcpy(text, value, n);
    text[n] = 0;
    s += 6;
    if (*s == '*') {
        s++;
    } else {
        r->range_from = whole(&s);
        s += *s == '-';
        whole(&s);
    }
    if (*s++ == '/')
        r->range_total = whole(&s);
}

static void begin_reply(sm_http_reply *r)
{
    r->status = 0;
    r->etag[0] = 0;
    r->length = r->range_from = r->range_total = -1;
    r->retry_after = 0;
    r->encoded = false;
}

static void take_header(sm_http_reply *r, const char *name, size_t n, const char *value, size_t m)
{
    struct { const char *name; char *at; size_t size; } text[] = {
        {"X-Linked-Etag", r->linked_etag, sizeof r->linked_etag},
        {"X-Error-Code", r->error_code, sizeof r->error_code},
    };
    for (size_t i = 0; i < SM_COUNT(text); i++)
        if (strlen(text[i].name) == n && !strncasecmp(text[i].name, name, n))
            take(text[i].at, text[i].size, value, m, false);
    if (n == 4 && !strncasecmp(name, "ETag", n) && m >= 2 && value[0] == '"' && value[m - 1] == '"')
        take(r->etag, sizeof r->etag, value, m, true);
    if (n == 13 && !strncasecmp(name, "Content-Range", n))
        take_range(r, value, m);
    if (n == 16 && !strncasecmp(name, "Content-Encoding", n))
        r->encoded |= m != 8 || strncasecmp(value, "identity", m);
}

void sm_http_header(sm_http_reply *r, const char *line, size_t n)
{
    const char *colon = memchr(line, ':', n), *v = colon ? colon + 1 : line, *end = line + n;
    if (n > 5 && !memcmp(line, "HTTP/", 5)) {
        begin_reply(r);
        return;
    }
    if (!colon)
        return;
    while (v < end && (*v == ' ' || *v == '\t'))
        v++;
    while (end > v && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' ' || end[-1] == '\t'))
        end--;
    take_header(r, line, (size_t)(colon - line), v, (size_t)(end - v));
}

static size_t on_header(char *data, size_t one, size_t n, void *user)
{
    transfer *t = user;
    t->header_bytes += n;
    if (t->header_bytes > HEADER_BYTES) {
        t->bomb = true;
        return 0;
    }
    if (!t->in_body) /* else a trailer */
        sm_http_header(t->r, data, n);
    return n;
}

/* Before the first byte of a body, or after the headers of an answer without one. */
static bool enter_body(transfer *t)
{
    curl_off_t x = -1;
    t->in_body = true;
    curl_easy_getinfo(t->h->curl, CURLINFO_RESPONSE_CODE, &t->r->status);
    if (!curl_easy_getinfo(t->h->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &x))
        t->r->length = x;
    if (!curl_easy_getinfo(t->h->curl, CURLINFO_RETRY_AFTER, &x) && x > 0)
        t->r->retry_after = (double)x;
    t->h->answered |= t->r->status != 0;
    bool good = t->r->status >= 200 && t->r->status < 300;
    t->stopped = good && t->q->head && !t->q->head(t->q->arg, t->r);
    return !t->stopped;
}

static size_t on_body(char *data, size_t one, size_t n, void *user)
{
    transfer *t = user;
    if (!t->in_body && !enter_body(t))
        return 0;
    if (t->r->status >= 200 && t->r->status < 300) {
        t->stopped = t->q->body && !t->q->body(t->q->arg, data, n);
        return t->stopped ? 0 : n;
    }
    t->wasted += n; /* error pages and the bodies of redirects are of no use; a short one keeps the connection */
    return t->wasted > WASTE_BYTES ? 0 : n;
}

static bool cancelled(const sm_http *h) { return h->p.cancel && __atomic_load_n(h->p.cancel, __ATOMIC_RELAXED); }

static int on_progress(void *user, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal, curl_off_t ulnow)
{
    transfer *t = user;
    t->stopped |= cancelled(t->h);
    return t->stopped;
}

/* ---- one hop ------------------------------------------------------------------------------------------------------- */

/* Whether this scheme and host may be asked; before: the hop that redirected here, or NULL. */
static bool may_ask(const sm_http *h, const sm_origin *to, const sm_origin *before, sm_err *e)
{
    if (!strcmp(to->scheme, "https"))
        return true;
    if (strcmp(to->scheme, "http"))
        return sm_fail(e, SUMI_E_NETWORK, "%s redirects to an address that is neither https nor http",
                       before ? before->host : "the hub"), false;
    if (before && !strcmp(before->scheme, "https"))
        return sm_fail(e, SUMI_E_NETWORK, "%s redirects from https to plain http at %s: refused", before->host, to->host), false;
    if (sm_origin_loopback(to) || h->p.insecure_http)
        return true;
    return sm_fail(e, SUMI_E_ARG, "http://%s is not encrypted: use https://, or --insecure-http to fetch over it all the same",
                   to->host), false;
}

static struct curl_slist *append(struct curl_slist *l, const char *text)
{
    struct curl_slist *longer = l || text ? curl_slist_append(l, text) : NULL;
    return longer ? longer : l;
}

static struct curl_slist *headers_for(const sm_http *h, const sm_http_request *q, const sm_origin *to)
{
    char line[1200];
    struct curl_slist *l = append(NULL, "Accept-Encoding: identity");
    bool secret = !strcmp(to->scheme, "https") || sm_origin_loopback(to);
    if (h->p.token[0] && secret && sm_origin_same(to, &h->home)) {
        snprintf(line, sizeof line, "Authorization: Bearer %s", h->p.token);
        l = append(l, line);
        explicit_bzero(line, sizeof line);
    }
    if (q->from && q->if_range && q->if_range[0]) {
        snprintf(line, sizeof line, "If-Range: %s", q->if_range);
        l = append(l, line);
    }
    return l;
}

static void set_options(sm_http *h, transfer *t, const char *url, const sm_origin *to, struct curl_slist *headers)
{
    CURL *c = h->curl;
    char range[32];
    const char *bundle = getenv("SSL_CERT_FILE");
    curl_easy_reset(c); /* keeps connections */
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 2L);
    if (bundle && bundle[0])
        curl_easy_setopt(c, CURLOPT_CAINFO, bundle);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(c, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE); /* none of them for a proxy */
    if (sm_origin_loopback(to))
        curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(c, CURLOPT_USERAGENT, "sumi/" SUMI_VERSION);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)(h->p.stall < 1 ? 1 : h->p.stall));
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, h->error);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, t);
    snprintf(range, sizeof range, "%llu-", (unsigned long long)t->q->from);
    if (t->q->from)
        curl_easy_setopt(c, CURLOPT_RANGE, range); /* copied */
}

static sm_http_end conclude(sm_http *h, const transfer *t, CURLcode code, char why[256], sm_err *e)
{
    const char *host = t->r->host;
    if (t->bomb)
        return sm_fail(e, SUMI_E_NETWORK, "%s sends more than %d kB of headers", host, HEADER_BYTES >> 10), SM_HTTP_FAILED;
    if (t->stopped || cancelled(h))
        return SM_HTTP_STOPPED;
    if (!code || t->wasted > WASTE_BYTES)
        return SM_HTTP_DONE;
    const char *reason = h->error[0] ? h->error : curl_easy_strerror(code);
    switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_ISSUER_ERROR:
        sm_fail(e, SUMI_E_NETWORK, "%s: its certificate is not trusted: %.200s; a private authority's goes into SSL_CERT_FILE",
                host, reason);
        return SM_HTTP_FAILED;
    case CURLE_SSL_CACERT_BADFILE:
        sm_fail(e, SUMI_E_FILE, "the trusted certificates cannot be read (package ca-certificates, SSL_CERT_FILE): %.200s",
                reason);
        return SM_HTTP_FAILED;
    case CURLE_OUT_OF_MEMORY: sm_fail(e, SUMI_E_MEMORY, "out of memory asking %s", host); return SM_HTTP_FAILED;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        sm_fail(e, SUMI_E_NETWORK, "%s: an address that cannot be asked for", host);
        return SM_HTTP_FAILED;
    default: snprintf(why, 256, "%.200s", reason); return SM_HTTP_DROPPED;
    }
}

static sm_http_end one_hop(sm_http *h, const sm_http_request *q, const char *url, const sm_origin *to, sm_http_reply *r,
                           char why[256], sm_err *e)
{
    transfer t = {.h = h, .q = q, .r = r};
    begin_reply(r);
    snprintf(r->host, sizeof r->host, "%.256s%s%.8s", to->host, !strcmp(to->port, "443") || !strcmp(to->port, "80") ? "" : ":",
             !strcmp(to->port, "443") || !strcmp(to->port, "80") ? "" : to->port);
    struct curl_slist *headers = headers_for(h, q, to);
    h->error[0] = 0;
    set_options(h, &t, url, to, headers);
    CURLcode code = curl_easy_perform(h->curl);
    if (!code && !t.in_body)
        enter_body(&t);
    sm_http_end end = conclude(h, &t, code, why, e);
    curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    return end;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------- */

sm_http_end sm_http_get(sm_http *h, const sm_http_request *q, sm_http_reply *r, char why[256], sm_err *e)
{
    char url[4096];
    sm_origin at, before;
    *r = (sm_http_reply){0};
    snprintf(url, sizeof url, "%s", q->url);
    for (int hop = 0;; hop++) {
        if (!sm_origin_of(url, &at))
            return sm_fail(e, SUMI_E_NETWORK, "%s redirects to an address that is neither https nor http",
                           hop ? r->host : "the hub"), SM_HTTP_FAILED;
        if (!may_ask(h, &at, hop ? &before : NULL, e))
            return SM_HTTP_FAILED;
        sm_http_end end = one_hop(h, q, url, &at, r, why, e);
        bool moved = r->status == 301 || r->status == 302 || r->status == 303 || r->status == 307 || r->status == 308;
        if (end != SM_HTTP_DONE || !moved)
            return end;
        char *next = NULL;
        curl_easy_getinfo(h->curl, CURLINFO_REDIRECT_URL, &next);
        if (!next || strlen(next) >= sizeof url)
            return sm_fail(e, SUMI_E_NETWORK, "%s redirects without saying where to", r->host), SM_HTTP_FAILED;
        if (hop == HOPS)
            return sm_fail(e, SUMI_E_NETWORK, "%s: more than %d redirects, one after the other", r->host, HOPS), SM_HTTP_FAILED;
        snprintf(url, sizeof url, "%s", next);
        before = at;
    }
}

sm_http *sm_http_new(sm_mem *mem, const sm_http_policy *p, sm_err *e)
{
    sm_http *h = sm_alloc0(mem, SM_MEM_MISC, sizeof *h);
    if (h) {
        h->p = *p;
        h->curl = curl_easy_init();
    }
    if (!h || !h->curl) {
        sm_fail(e, SUMI_E_MEMORY, "out of memory for a connection");
        sm_http_free(h);
        return NULL;
    }
    if (!sm_origin_of(p->home, &h->home))
        h->home = (sm_origin){0}; /* equal to none that is asked */
    return h;
}

void sm_http_free(sm_http *h)
{
    if (h)
        curl_easy_cleanup(h->curl);
    sm_free(h);
}

bool sm_http_answered(const sm_http *h) { return h->answered; }
