/* The request's parameters, all from the one table in sumi.h: defaults, setting from text, checking. */
#include "pipeline/params.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define INFO(TYPE, NAME, DEF, LO, HI, FLAG, A1111, HELP) \
    {SUMI_PARAM_##TYPE, #NAME, FLAG, A1111, HELP, LO, HI, offsetof(sumi_request, NAME)},
static const sumi_param_info table[] = {SUMI_PARAMS(INFO)};

const sumi_param_info *sumi_params(size_t *n)
{
    *n = SM_COUNT(table);
    return table;
}

sumi_request sumi_request_default(void)
{
#define DEFAULT(TYPE, NAME, DEF, ...) .NAME = DEF,
    return (sumi_request){SUMI_PARAMS(DEFAULT)};
}

static sumi_status set_number(const sumi_param_info *p, void *at, const char *value, sm_err *e)
{
    char *end;
    errno = 0;
    double v = strtod(value, &end);
    bool whole = p->type != SUMI_PARAM_FLOAT;
    if (end == value || *end || errno == ERANGE || !isfinite(v) || (whole && v != floor(v)))
        return sm_fail(e, SUMI_E_ARG, "--%s: '%s' is not a %snumber", p->flag, value, whole ? "whole " : "");
    if (v < p->low || v > p->high)
        return sm_fail(e, SUMI_E_ARG, "--%s: %s is out of range, %.10g to %.10g", p->flag, value, p->low, p->high);
    if (p->type == SUMI_PARAM_INT)
        *(int *)at = (int)v;
    else if (p->type == SUMI_PARAM_INT64)
        *(int64_t *)at = (int64_t)v;
    else
        *(float *)at = (float)v;
    return SUMI_OK;
}

sumi_status sumi_request_set(sumi_context *ctx, sumi_request *r, const char *name, const char *value)
{
    sm_err *e = sm_begin(ctx);
    for (size_t i = 0; i < SM_COUNT(table); i++) {
        const sumi_param_info *p = &table[i];
        if (strcmp(p->name, name) && strcmp(p->flag, name))
            continue;
        void *at = (char *)r + p->offset;
        if (p->type != SUMI_PARAM_TEXT)
            return set_number(p, at, value, e);
        *(const char **)at = value;
        return SUMI_OK;
    }
    return sm_fail(e, SUMI_E_ARG, "unknown parameter '%s'", name);
}

static double number_at(const sumi_param_info *p, const sumi_request *r)
{
    const void *at = (const char *)r + p->offset;
    return p->type == SUMI_PARAM_INT ? *(const int *)at : p->type == SUMI_PARAM_INT64 ? (double)*(const int64_t *)at : *(const float *)at;
}

static sumi_status check_text(const sumi_param_info *p, const char *s, sm_err *e)
{
    if (!s)
        return sm_fail(e, SUMI_E_ARG, "%s is NULL; use \"\" for none", p->name);
    size_t n = strlen(s);
    if (n > SUMI_TEXT_MAX)
        return sm_fail(e, SUMI_E_ARG, "--%s: %zu bytes, at most %d", p->flag, n, SUMI_TEXT_MAX);
    return sm_utf8_valid(s, n) ? SUMI_OK : sm_fail(e, SUMI_E_ARG, "--%s: not valid UTF-8", p->flag);
}

sumi_status sm_request_check(const sumi_request *r, sm_err *e)
{
    for (size_t i = 0; i < SM_COUNT(table); i++) {
        const sumi_param_info *p = &table[i];
        if (p->type == SUMI_PARAM_TEXT) {
            if (check_text(p, *(const char *const *)((const char *)r + p->offset), e))
                return e->code;
            continue;
        }
        double v = number_at(p, r);
        if (!(v >= p->low && v <= p->high))
            return sm_fail(e, SUMI_E_ARG, "--%s: %.10g is out of range, %.10g to %.10g", p->flag, v, p->low, p->high);
    }
    return SUMI_OK;
}
