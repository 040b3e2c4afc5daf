/* What commands that work with the library begin and end with: the context, the request from the flags, the model. */
#include <string.h>

#include "cli/cli.h"

int cli_open(cli_session *s, const cli_args *a)
{
    *s = (cli_session){.request = sumi_request_default()};
    sumi_status st = sumi_context_new(&a->v.context, &s->ctx);
    for (int i = 0; i < a->nset && !st; i++)
        st = sumi_request_set(s->ctx, &s->request, a->set[i].name, a->set[i].value);
    return st ? cli_failed(s->ctx, st) : 0;
}

int cli_open_model(cli_session *s, const cli_args *a)
{
    sumi_model_options o = a->v.load;
    o.low_memory = a->v.low_memory;
    sumi_status st = sumi_model_load_with(s->ctx, &o, &s->model);
    return st ? cli_failed(s->ctx, st) : 0;
}

void cli_close(cli_session *s)
{
    sumi_model_free(s->model);
    sumi_context_free(s->ctx);
}

const char *cli_amount(double x, double base, const char *unit)
{
    static char text[2][32];
    static int at;
    const char *prefix = " kMGTP";
    char *t = text[at++ % 2];
    int k = 0;
    for (; x >= base && k < 5; k++)
        x /= base;
    snprintf(t, sizeof text[0], "%.*f %.*s%s", k && x < 99.95 ? 1 : 0, x, k > 0, prefix + k, unit);
    return t;
}
