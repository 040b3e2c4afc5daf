/* The request's parameters, all from the one table in sumi.h: defaults, setting from text, checking. */
#include "pipeline/params.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

/* ---- finding ----------------------------------------------------------------------------------------------------- */

static bool same_name(const char *row, const char *name, size_t n)
{
    if (strlen(row) != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if ((row[i] == '-' ? '_' : row[i]) != (name[i] == '-' ? '_' : name[i]))
            return false;
    return true;
}

/* Names of A1111's API, and of its script "Prompts from file". */
static const char *const others[][2] = {
    {"sampler_name", "sampler"}, {"scheduler", "schedule"}, {"batch_size", "count"}, {"subseed", "variation_seed"},
    {"subseed_strength", "variation_strength"}, {"variation_seed_strength", "variation_strength"},
    {"seed_resize_from_w", "seed_resize_width"}, {"seed_resize_from_h", "seed_resize_height"}, {"eta_noise_seed_delta", "ensd"},
    {"denoising_strength", "strength"}};

const sumi_param_info *sm_param_find_n(const char *name, size_t n)
{
    for (size_t i = 0; i < SM_COUNT(table); i++)
        if (same_name(table[i].name, name, n) || same_name(table[i].flag, name, n))
            return &table[i];
    for (size_t i = 0; i < SM_COUNT(others); i++)
        if (same_name(others[i][0], name, n))
            return sm_param_find_n(others[i][1], strlen(others[i][1]));
    for (size_t i = 0; i < SM_COUNT(table); i++)
        if (n && strlen(table[i].a1111) == n && !strncasecmp(table[i].a1111, name, n))
            return &table[i];
    return NULL;
}

const sumi_param_info *sm_param_find(const char *name) { return sm_param_find_n(name, strlen(name)); }
const sumi_param_info *sumi_param_find(const char *name) { return sm_param_find(name); }

/* ---- values ------------------------------------------------------------------------------------------------------ */

static sumi_status set_number(const sumi_param_info *p, void *at, const char *value, sm_err *e)
{
    char *end;
    errno = 0;
    double v = strtod(value, &end);
    bool whole = p->type != SUMI_PARAM_FLOAT;
    if (end == value || *end || errno == ERANGE || !isfinite(v) || (whole && v != floor(v)))
        return sm_fail(e, SUMI_E_ARG, "--%s: '%.80s' is not a %snumber", p->flag, value, whole ? "whole " : "");
    if (v < p->low || v > p->high)
        return sm_fail(e, SUMI_E_ARG, "--%s: %.80s is out of range, %.16g to %.16g", p->flag, value, p->low, p->high);
    if (p->type == SUMI_PARAM_INT)
        *(int *)at = (int)v;
    else if (p->type == SUMI_PARAM_INT64)
        *(int64_t *)at = (int64_t)v;
    else
        *(float *)at = (float)v;
    return SUMI_OK;
}

sumi_status sm_param_set(const sumi_param_info *p, sumi_request *r, const char *value, sm_err *e)
{
    void *at = (char *)r + p->offset;
    sm_choice c;
    if (p->type == SUMI_PARAM_TEXT)
        *(const char **)at = value;
    else
        set_number(p, at, p->type == SUMI_PARAM_INT && sm_choice_find(p, value, &c) ? c.name : value, e);
    return e->code;
}

sumi_status sumi_request_set(sumi_context *ctx, sumi_request *r, const char *name, const char *value)
{
    sm_err *e = sm_begin(ctx);
    const sumi_param_info *p = sm_param_find(name);
    return p ? sm_param_set(p, r, value, e) : sm_fail(e, SUMI_E_ARG, "unknown parameter '%.80s'", name);
}

double sm_param_number(const sumi_param_info *p, const sumi_request *r)
{
    const void *at = (const char *)r + p->offset;
    return p->type == SUMI_PARAM_INT ? *(const int *)at : p->type == SUMI_PARAM_INT64 ? (double)*(const int64_t *)at
                                                                                      : *(const float *)at;
}

bool sm_param_is_default(const sumi_param_info *p, const sumi_request *r)
{
    sumi_request d = sumi_request_default();
    if (p->type == SUMI_PARAM_TEXT)
        return !strcmp(sm_param_text(p, r), sm_param_text(p, &d));
    double a = sm_param_number(p, r), b = sm_param_number(p, &d);
    return a == b || (isnan(a) && isnan(b));
}

void sm_param_put(const sumi_param_info *p, const sumi_request *r, sm_buf *b)
{
    char text[48];
    if (p->type == SUMI_PARAM_TEXT) {
        sm_buf_fmt(b, "%s", sm_param_text(p, r));
    } else if (p->type != SUMI_PARAM_FLOAT) {
        sm_buf_fmt(b, "%lld", (long long)sm_param_number(p, r)); /* whole numbers of the table are exact in double */
    } else {
        float v = (float)sm_param_number(p, r);
        for (int digits = 6; digits <= 9; digits++) {
            snprintf(text, sizeof text, "%.*g", digits, (double)v);
            if (strtof(text, NULL) == v)
                break;
        }
        sm_buf_fmt(b, "%s", text);
    }
}

bool sm_param_is_path(const sumi_param_info *p)
{
    static const char *const files[] = {"init_image", "mask", "refiner", "init_latents", "classifier"};
    for (size_t i = 0; i < SM_COUNT(files); i++)
        if (!strcmp(files[i], p->name))
            return true;
    return false;
}

/* ---- checking ---------------------------------------------------------------------------------------------------- */

static sumi_status bad_word(const sumi_param_info *p, const char *s, sm_err *e)
{
    char list[200] = "";
    const char *word, *last = NULL;
    size_t n = 0, i = 0, words = 0;
    for (; n < sizeof list && (word = sm_choice_word(p, &i)); last = word)
        if (last)
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", words++ ? ", " : "", last);
    if (n < sizeof list)
        n += (size_t)snprintf(list + n, sizeof list - n, " or %s", last);
    if (words > 6 || n >= sizeof list)
        return sm_fail(e, SUMI_E_ARG, "--%s: '%.40s' is unknown; see `sumi generate --help`", p->flag, s);
    return sm_fail(e, SUMI_E_ARG, "--%s: '%.40s' is unknown; %s", p->flag, s, list);
}

static sumi_status check_text(const sumi_param_info *p, const sumi_request *r, sm_err *e)
{
    const char *s = sm_param_text(p, r);
    sm_choice c;
    if (!s)
        return sm_fail(e, SUMI_E_ARG, "%s is NULL; use \"\" for none", p->name);
    size_t n = strlen(s);
    if (n > SUMI_TEXT_MAX)
        return sm_fail(e, SUMI_E_ARG, "--%s: %zu bytes, at most %d", p->flag, n, SUMI_TEXT_MAX);
    if (!sm_utf8_valid(s, n))
        return sm_fail(e, SUMI_E_ARG, "--%s: not valid UTF-8", p->flag);
    return sm_param_is_default(p, r) || !sm_choice_at(p, 0, &c) || sm_choice_find(p, s, &c) ? SUMI_OK : bad_word(p, s, e);
}

sumi_status sm_request_check(const sumi_request *r, sm_err *e)
{
    for (size_t i = 0; i < SM_COUNT(table); i++) {
        const sumi_param_info *p = &table[i];
        if (p->type == SUMI_PARAM_TEXT) {
            if (check_text(p, r, e))
                return e->code;
            continue;
        }
        bool whole = p->type != SUMI_PARAM_FLOAT; /* 0.01 is less as a float */
        double v = sm_param_number(p, r), low = whole ? p->low : (double)(float)p->low,
               high = whole ? p->high : (double)(float)p->high;
        if (!(v >= low && v <= high))
            return sm_fail(e, SUMI_E_ARG, "--%s: %.10g is out of range, %.16g to %.16g", p->flag, v, p->low, p->high);
    }
    double last = sm_param_find("seed")->high;
    if (r->variation_strength <= 0 && (double)r->seed + (r->count - 1) > last) /* pictures whose infotext could not be read */
        return sm_fail(e, SUMI_E_ARG, "--seed: %lld leaves no seeds for %d pictures, the last one is %.0f",
                       (long long)r->seed, r->count, last);
    if (r->variation_strength > 0 && (double)r->variation_seed + (r->count - 1) > last)
        return sm_fail(e, SUMI_E_ARG, "--variation-seed: %lld leaves no seeds for %d pictures, the last one is %.0f",
                       (long long)r->variation_seed, r->count, last);
    return SUMI_OK;
}

void sm_request_spell(sumi_request *r)
{
    sm_choice c;
    for (size_t i = 0; i < SM_COUNT(table); i++)
        if (table[i].type == SUMI_PARAM_TEXT && sm_choice_at(&table[i], 0, &c) &&
            sm_choice_find(&table[i], sm_param_text(&table[i], r), &c))
            *(const char **)((char *)r + table[i].offset) = c.name;
}
