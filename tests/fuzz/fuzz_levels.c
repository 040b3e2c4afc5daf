/* Fuzz entry of what people write about noise levels: lists of them, and names of families, whose schedules are then made.
 * What is taken falls, is finite and stays inside its room; failures have a message. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/levels.h"

enum { ROOM = 40 };

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void falls(const double *v, int n)
{
    for (int i = 0; i < n; i++)
        check(isfinite(v[i]) && v[i] >= 0 && (!i || v[i] < v[i - 1]));
}

static void use_family(const char *name, int pick)
{
    sumi_model m;
    sm_noise n;
    sm_err e = {0};
    sumi_request r = sumi_request_default();
    double s[ROOM + 2];
    int steps = 0;
    if (sm_levels_family(name, &m, &e)) {
        check(e.msg[0]);
        return;
    }
    r.sampler = "euler";
    r.schedule = sm_schedules[pick % sm_schedule_count].name;
    if (!sm_levels_open(&n, &m, &r, NULL, &e) && !sm_levels_fill(&n, &m, &r, 1 + pick % ROOM, s, &steps, &e)) {
        check(steps >= 1 && steps <= ROOM && s[steps] == 0);
        falls(s, steps + 1);
    }
    check(!e.code == !e.msg[0]);
    sm_noise_free(&n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *text = malloc(n + 1);
    double v[ROOM];
    sm_err e = {0};
    if (!text)
        return 0;
    memcpy(text, data, n);
    text[n] = 0;
    int count = sm_sigmas_parse(text, v, ROOM, "list", &e);
    check(count ? count >= 2 && count <= ROOM && !e.code : e.code && e.msg[0]);
    falls(v, count);
    if (n)
        use_family(text + 1, data[0]);
    free(text);
    return 0;
}
