/* Progress, waiting and tries of a pull (see session.h), and what each refusal of a server means for the one who asked. */
#include "hub/session.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

void sm_session_show(sm_session *x, const char *stage, const char *message)
{
    double now = sm_now();
    if (!x->cb || !x->cb->progress)
        return;
    sumi_progress p = {.stage = stage, .step = (int64_t)x->done, .steps = (int64_t)x->total, .seconds = now - x->begun, .eta = -1,
                       .rate = x->rate, .unit = "B", .message = message};
    if (x->rate > 0 && x->total > x->done)
        p.eta = (double)(x->total - x->done) / x->rate;
    x->cb->progress(x->cb->user, &p);
}

/* The rate of about the last five seconds: short enough to follow the line, long enough to read the time left. */
void sm_session_moved(sm_session *x, size_t bytes)
{
    double now = sm_now(), dt = now - x->rate_at;
    x->done += bytes;
    x->moved += bytes;
    if (!x->rate_at || dt > 60) { /* the first bytes, or after a pause */
        x->rate_at = now;
        x->rate_moved = x->moved;
    } else if (dt >= 0.5) {
        double fresh = (double)(x->moved - x->rate_moved) / dt, part = x->rate > 0 ? dt / (dt + 5) : 1;
        x->rate += part * (fresh - x->rate);
        x->rate_at = now;
        x->rate_moved = x->moved;
    }
    sm_session_show(x, "pull", NULL);
}

bool sm_session_cancelled(const sm_session *x)
{
    return x->cb && x->cb->cancel && __atomic_load_n(x->cb->cancel, __ATOMIC_RELAXED);
}

sumi_status sm_session_stopped(sm_err *e) { return sm_fail(e, SUMI_E_CANCELLED, "stopped"); }

bool sm_session_sleep(sm_session *x, double seconds)
{
    for (double end = sm_now() + seconds; !sm_session_cancelled(x) && sm_now() < end;)
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    return !sm_session_cancelled(x);
}

/* ---- refusals ------------------------------------------------------------------------------------------------------ */

static void refuse(const sm_session *x, const sm_http_reply *r, const char *what, const char *whose, sm_err *e)
{
    const char *hub = x->s->endpoint;
    bool token = x->s->token[0];
    if (r->status == 401 && whose && token)
        sm_fail(e, SUMI_E_NETWORK, "%s: %s does not take the token in HF_TOKEN (401), or the name is wrong", what, hub);
    else if (r->status == 401 && whose)
        sm_fail(e, SUMI_E_NETWORK, "%s: %s wants a token (401): the name is wrong, or the model is private or gated; "
                "put a token that may read it into HF_TOKEN", what, hub);
    else if (r->status == 403 && whose)
        sm_fail(e, SUMI_E_NETWORK, "%s: %s refuses (403): accept the model's terms at %s/%s and put a token of that account "
                "into HF_TOKEN", what,
                hub, hub, whose);
    else if (r->status == 404 && whose && !strcmp(r->error_code, "RevisionNotFound"))
        sm_fail(e, SUMI_E_NETWORK, "%s: the model has no such revision (404)", what);
    else if (r->status == 404 && whose && !strcmp(r->error_code, "EntryNotFound"))
        sm_fail(e, SUMI_E_NETWORK, "%s: the model has no such file (404); %s/%s/tree/main lists them", what, hub, whose);
    else if (r->status == 404)
        sm_fail(e, SUMI_E_NETWORK, "%s: not found at %s (404): check the spelling%s", what, whose ? hub : r->host,
                whose && !token ? "; private models need HF_TOKEN" : "");
    else if (r->status == 401 || r->status == 403)
        sm_fail(e, SUMI_E_NETWORK, "%s: %s does not let you have it (%ld)", what, r->host, r->status);
    else if (r->status == 429)
        sm_fail(e, SUMI_E_NETWORK, "%s: %s wants fewer requests (429): try again in %.0f seconds%s; what was fetched is kept",
                what, r->host, r->retry_after > 0 ? r->retry_after : 60, token || !whose ? "" : ", or with a token in HF_TOKEN");
    else if (r->status >= 500)
        sm_fail(e, SUMI_E_NETWORK, "%s: %s is in trouble (%ld): try again later; what was fetched is kept", what, r->host,
                r->status);
    else
        sm_fail(e, SUMI_E_NETWORK, "%s: %s answers with status %ld", what, r->host, r->status);
}

/* Statuses that another try may turn into success. */
static bool passing(long status)
{
    return status == 408 || status == 425 || status == 429 || (status >= 500 && status != 501 && status != 505);
}

bool sm_session_again(sm_session *x, sm_tries *t, sm_http_end end, const sm_http_reply *r, const char *why, const char *what,
                      const char *whose,
                      sm_err *e)
{
    char note[400], amount[32] = "";
    bool dropped = end == SM_HTTP_DROPPED;
    if (end == SM_HTTP_STOPPED)
        sm_session_stopped(e); /* unless a callback left a reason */
    if (end == SM_HTTP_STOPPED || end == SM_HTTP_FAILED || e->code)
        return false;
    int most = dropped && !sm_http_answered(x->http) ? SM_MIN(x->s->tries, 2) : x->s->tries;
    double wait = x->s->backoff * (double)(1 << SM_MIN(t->used, 10));
    wait = SM_MAX(SM_MIN(wait, 60), dropped ? 0 : r->retry_after);
    t->used++;
    if (!dropped && (!passing(r->status) || t->used >= most || t->waited + wait > x->s->patience))
        return refuse(x, r, what, whose, e), false;
    bool answered = sm_http_answered(x->http);
    if (t->used >= most) {
        sm_fail(e, SUMI_E_NETWORK, "%s: %s: %s; %s", what, answered ? "the connection drops" : "no connection", why,
                answered ? "what was fetched is kept, and the same command goes on from there"
                         : "check the network, the proxy and HF_ENDPOINT");
        return false;
    }
    if (x->done)
        snprintf(amount, sizeof amount, " at %.1f MB", (double)x->done / 1e6);
    if (dropped)
        snprintf(note, sizeof note, "%.120s: %s%s (%.120s), next try in %.1f s", what,
                 answered ? "connection lost" : "no connection", amount, why, wait);
    else
        snprintf(note, sizeof note, "%.120s: %.100s answers %ld, next try in %.1f s", what, r->host, r->status, wait);
    sm_session_show(x, "pull", note);
    t->waited += dropped ? 0 : wait;
    return sm_session_sleep(x, wait) || (sm_session_stopped(e), false);
}
