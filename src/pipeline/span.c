/* Progress of parts as that of the whole (see span.h). */
#include "pipeline/span.h"

#include <stdio.h>
#include <string.h>

static void tell(void *user, const sumi_progress *p)
{
    sm_span *s = user;
    bool sample = !strcmp(p->stage, "sample") || !strcmp(p->stage, "invert"), decode = !strcmp(p->stage, "decode");
    double part = sample && p->steps > 0 ? (double)p->step / (double)p->steps : decode;
    double done = s->done + s->part * part, spent = sm_now() - s->started;
    sumi_progress q = *p;
    if (p->message && !strncmp(p->message, s->told, sizeof s->told - 1))
        q.message = NULL;
    else if (p->message)
        snprintf(s->told, sizeof s->told, "%s", p->message);
    q.stage = s->stage;
    q.step = (int64_t)done;
    q.steps = (int64_t)s->whole;
    q.seconds = spent;
    q.eta = done > 0 ? spent * (s->whole - done) / done : -1;
    s->to->progress(s->to->user, &q);
}

static void pass_preview(void *user, int index, int step, int width, int height, const uint8_t *rgb)
{
    const sm_span *s = user;
    s->to->preview(s->to->user, index, step, width, height, rgb);
}

sumi_callbacks sm_span_start(sm_span *s, const sumi_callbacks *to, const char *stage, double whole)
{
    *s = (sm_span){.to = to, .stage = stage, .whole = whole, .started = sm_now()};
    return (sumi_callbacks){.progress = to && to->progress ? tell : NULL, .preview = to && to->preview ? pass_preview : NULL,
                            .preview_every = to ? to->preview_every : 0, .preview_method = to ? to->preview_method : NULL,
                            .cancel = to ? to->cancel : NULL, .user = s};
}

void sm_span_next(sm_span *s, double steps)
{
    s->done += s->part;
    s->part = steps;
}
