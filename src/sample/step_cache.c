/* Decisions and forecasts of step caching (see step_cache.h). Formulas of the papers; where their code and the paper differ the
 * code's are taken: easycache's rate is measured between full steps, and its sum begins anew with one. Sums run in one fixed
 * order, in double. */
#include "sample/step_cache.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool sm_cache_acts(const sm_cache_way *w, int step, int steps)
{
    return step >= (int)ceil((w->start - 1e-6) * steps) && step < (int)floor((w->end + 1e-6) * steps); /* shares come as floats */
}

bool sm_cache_polynomial(const char *text, sm_cache_way *w)
{
    static const char *const between = ", \t\r\n";
    w->coefficients = 0;
    for (text += strspn(text, between); *text; text += strspn(text, between)) {
        char *end;
        double v = strtod(text, &end);
        if (end == text || !isfinite(v) || (*end && !strchr(between, *end)) || w->coefficients == SM_CACHE_POLYNOMIAL)
            return false;
        w->polynomial[w->coefficients++] = v;
        text = end;
    }
    return true;
}

/* ---- forecasts ------------------------------------------------------------------------------------------------------- */

void sm_cache_keep(sm_cache_past *p, int order, int64_t step, const float *x, int64_t n)
{
    int old = p->have, now = SM_MIN(old, order) + 1;
    float by = old ? 1 / (float)(step - p->last) : 0;
    for (int64_t i = 0; i < n; i++) {
        float v = x[i];
        for (int k = 0; k < now; k++) {
            float before = k < old ? p->term[k][i] : 0;
            p->term[k][i] = v;
            v = (v - before) * by;
        }
    }
    p->have = now;
    p->last = step;
}

void sm_cache_forecast(const sm_cache_past *p, int64_t step, float *out, int64_t n)
{
    double d = (double)(step - p->last), c = 1;
    memcpy(out, p->term[0], sizeof *out * (size_t)n);
    for (int k = 1; k < p->have; k++) {
        c *= d / k;
        for (int64_t i = 0; i < n; i++)
            out[i] += (float)c * p->term[k][i];
    }
}

/* ---- changes --------------------------------------------------------------------------------------------------------- */

static double mean_size(const float *x, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += fabs((double)x[i]);
    return s / (double)n;
}

static double mean_change(const float *a, const float *b, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += fabs((double)a[i] - (double)b[i]);
    return s / (double)n;
}

static double polynomial(const sm_cache_way *w, double x)
{
    double y = 0;
    for (int i = 0; i < w->coefficients; i++)
        y = y * x + w->polynomial[i];
    return w->coefficients ? y : x;
}

/* The change that this step brings; infinite where it cannot be foreseen yet. */
static double foreseen(const sm_cache_way *w, const sm_cache_watch *c, const float *x, int64_t n)
{
    if (!c->seen || (w->kind == SM_CACHE_EASY && c->full < 2))
        return INFINITY;
    double change = mean_change(x, c->before, n);
    return w->kind == SM_CACHE_EASY ? c->rate * change / c->norm : polynomial(w, change / mean_size(c->before, n));
}

bool sm_cache_due(const sm_cache_way *w, sm_cache_watch *c, bool acts, const float *x, int64_t n)
{
    if (acts)
        c->sum += foreseen(w, c, x, n);
    bool due = !acts || !(c->sum < w->threshold);
    if (due)
        c->sum = 0;
    memcpy(c->before, x, sizeof *x * (size_t)n);
    c->seen = true;
    return due;
}

void sm_cache_learn(sm_cache_watch *c, const float *in, const float *out, int64_t n)
{
    double change = c->full ? mean_change(in, c->in, n) : 0;
    if (change > 0) {
        c->rate = mean_change(out, c->out, n) / change;
        c->full = 2;
    } else if (!c->full)
        c->full = 1;
    c->norm = mean_size(out, n);
    memcpy(c->in, in, sizeof *in * (size_t)n);
    memcpy(c->out, out, sizeof *out * (size_t)n);
}

void sm_cache_forget(sm_cache_watch *c)
{
    c->sum = 0;
    c->full = 0;
    c->seen = false;
}
