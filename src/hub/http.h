/* One GET at a time over libcurl, with the rules that every transfer of this room follows: certificates are checked, plain http
 * only where it is allowed, redirects followed by hand so that the token goes to the hub alone, answers bounded. */
#ifndef SM_HUB_HTTP_H
#define SM_HUB_HTTP_H

#include "base/base.h"

typedef struct sm_http sm_http;

typedef struct sm_http_policy {
    const char *home;      /* the hub's address: the only place the token is sent to */
    const char *token;     /* "" for none */
    bool insecure_http;    /* plain http to other machines, too; the token does not go with it */
    double stall;          /* seconds without a byte after which a connection counts as dropped */
    const int *cancel;     /* as in sumi_callbacks; may be NULL */
} sm_http_policy;

/* What came back: of the last answer, but for what the hub adds to the redirect it gives (linked_etag, commit, error_code). */
typedef struct sm_http_reply {
    long status;           /* 0: none */
    char host[280];        /* that gave it, with port, for messages */
    char etag[200];        /* as it stands in the header, only when strong (RFC 9110, 8.8.3); else "" */
    char linked_etag[200]; /* the hub's digest of the file, without quotes */
    char error_code[40];   /* the hub's X-Error-Code */
    int64_t length;        /* of the body, -1: not said */
    int64_t range_from, range_total; /* Content-Range, -1: not said */
    double retry_after;    /* seconds, 0: not said */
    bool encoded;          /* has a Content-Encoding */
} sm_http_reply;

typedef struct sm_http_request {
    const char *url;
    uint64_t from;         /* ask for the bytes from here; 0 for all */
    const char *if_range;  /* with from: the ETag that the earlier bytes had; "" or NULL: none */
    /* Before the first byte of a body with status 2xx, then for its bytes; false ends the transfer as SM_HTTP_STOPPED. */
    bool (*head)(void *arg, const sm_http_reply *r);
    bool (*body)(void *arg, const void *data, size_t n);
    void *arg;
} sm_http_request;

typedef enum sm_http_end {
    SM_HTTP_DONE,          /* an answer, whole as HTTP counts; r->status says which */
    SM_HTTP_DROPPED,       /* no connection, or it ended early: worth another try; why has the reason */
    SM_HTTP_STOPPED,       /* by a callback or the caller's cancel */
    SM_HTTP_FAILED         /* not worth another try; e says why */
} sm_http_end;

/* The policy's texts are borrowed. NULL on failure. */
sm_http *sm_http_new(sm_mem *mem, const sm_http_policy *p, sm_err *e);
void sm_http_free(sm_http *h);
sm_http_end sm_http_get(sm_http *h, const sm_http_request *q, sm_http_reply *r, char why[256], sm_err *e);
/* One line of an answer's head, with or without its line end: a status line makes r that of a new answer (what a redirect's hub
 * said stays), a header that counts goes into r. */
void sm_http_header(sm_http_reply *r, const char *line, size_t n);
/* True once any server has answered: what is unreachable from the start is given up sooner. */
bool sm_http_answered(const sm_http *h);

#endif
