/* Reading infotexts as AUTOMATIC1111's stable-diffusion-webui does (modules/infotext_utils.py, parse_generation_parameters): the
 * last line holds parameters if at least three are found in it, found from left to right are
 *   key    a word character, then one or more word characters, blanks, '-' and '/', up to a colon
 *   value  a string in double quotes (backslash escapes) that a comma or the end follows, or else all up to the next comma
 * and the lines before are the prompt and, from the line that begins so, the negative prompt. Older spellings are understood:
 * schedules at the end of a sampler's name, "First pass size" of the first hires fix. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "io/json.h"
#include "pipeline/infotext.h"
#include "pipeline/origin.h"
#include "pipeline/params.h"
#include "sample/sampler.h"
#include "sample/schedule.h"
#include "text/unicode.h"

enum { MAX_FIELDS = 1024, FEWEST = 3 };

typedef struct reader {
    sumi_infotext out; /* first: the public handle */
    sm_arena arena;
    sumi_field field[MAX_FIELDS];
    const char *sampler, *schedule, *rng;
    int first_pass[2]; /* -1: not said */
    bool oom;
} reader;

/* ---- finding keys and values --------------------------------------------------------------------------------------- */

typedef struct span { const char *at; size_t n; } span;

/* Length of a word character at s; 0: none. */
static size_t word(const char *s, const char *end)
{
    uint32_t cp = 0;
    int k = s < end ? sm_utf8_get(s, (size_t)(end - s), &cp) : 0;
    return k && (cp == '_' || sm_uni_word(cp)) ? (size_t)k : 0;
}

static size_t key_char(const char *s, const char *end)
{
    return s < end && (*s == ' ' || *s == '-' || *s == '/') ? 1 : word(s, end);
}

/* The value at s; *next is what follows its comma, or the end. */
static span value_at(const char *s, const char *end, const char **next)
{
    size_t k;
    while ((k = sm_infotext_space(s, (size_t)(end - s))))
        s += k;
    if (s < end && *s == '"') {
        const char *q = s + 1;
        while (q < end && *q != '"')
            q += *q == '\\' && q + 1 < end ? 2 : 1;
        if (q < end && q > s + 1 && (q + 1 == end || q[1] == ',')) {
            *next = q + 1 + (q + 1 < end);
            return (span){s, (size_t)(q + 1 - s)};
        }
    }
    const char *comma = memchr(s, ',', (size_t)(end - s));
    *next = comma ? comma + 1 : end;
    return (span){s, (size_t)((comma ? comma : end) - s)};
}

/* The next pair from *s on; false: no more. */
static bool next_pair(const char **s, const char *end, span *key, span *value)
{
    while (*s < end) {
        const char *a = *s;
        size_t first = word(a, end), k;
        const char *b = a;
        while ((k = key_char(b, end)))
            b += k;
        if (!first) { /* a key cannot begin here */
            uint32_t cp;
            k = (size_t)sm_utf8_get(a, (size_t)(end - a), &cp);
            *s = a + (k ? k : 1);
        } else if (b < end && *b == ':' && (size_t)(b - a) > first) {
            *key = (span){a, (size_t)(b - a)};
            *value = value_at(b + 1, end, s);
            return true;
        } else {
            *s = b < end ? b + 1 : end; /* no other beginning in this run does better, but for a last character before the
                                           colon */
        }
    }
    return false;
}

static int count_pairs(span line)
{
    span key, value;
    int n = 0;
    for (const char *s = line.at; n < FEWEST && next_pair(&s, line.at + line.n, &key, &value);)
        n++;
    return n;
}

/* ---- values ---------------------------------------------------------------------------------------------------------- */

static char *copy(reader *r, const char *s, size_t n)
{
    char *c = sm_arena_get(&r->arena, n + 1);
    r->oom = r->oom || !c;
    if (c)
        memcpy(c, s, n);
    return c;
}

/* Text of a value: the string that JSON quotes stand for, or the value itself. */
static char *unquoted(reader *r, span v)
{
    if (v.n >= 2 && v.at[0] == '"' && v.at[v.n - 1] == '"') {
        sm_err why = {0};
        cJSON *j = sm_json_parse(r->arena.mem, v.at, v.n, 1, 4, "", &why);
        char *text = cJSON_IsString(j) ? copy(r, j->valuestring, strlen(j->valuestring)) : NULL;
        r->oom = r->oom || why.code == SUMI_E_MEMORY;
        cJSON_Delete(j);
        if (text)
            return text;
    }
    return copy(r, v.at, v.n);
}

/* "512x768", all of it digits around the x. */
static bool size_value(const char *v, char w[16], char h[16])
{
    size_t a = strspn(v, "0123456789"), b = v[a] == 'x' ? strspn(v + a + 1, "0123456789") : 0;
    if (!a || !b || v[a + 1 + b] || a > 9 || b > 9)
        return false;
    snprintf(w, 16, "%.*s", (int)a, v);
    snprintf(h, 16, "%.*s", (int)b, v + a + 1);
    return true;
}

static const char *path_of(reader *r, const char *value);

/* Sets the row whose infotext key this is, if there is one and the value makes sense to it. */
static bool set_row(reader *r, const char *key, const char *value)
{
    if (!strcmp(key, "Eta DDIM")) /* A1111's, for DDIM alone */
        key = "Eta";
    if (!strcmp(key, "Power scheduler value")) /* sd-dynamic-thresholding's in its first months */
        key = "Scheduler value";
    size_t rows, n = strlen(value);
    const sumi_param_info *t = sumi_params(&rows);
    sm_err why = {0};
    sm_choice c;
    for (size_t i = 0; i < rows; i++) {
        if (!t[i].a1111[0] || strcmp(t[i].a1111, key))
            continue;
        value = sm_infotext_strip(value, &n);
        const char *text = copy(r, value, n);
        text = text && sm_param_is_path(&t[i]) ? path_of(r, text) : text;
        if (!text || strlen(text) > SUMI_TEXT_MAX || /* a home folder's name makes it longer */
            (t[i].type == SUMI_PARAM_TEXT && sm_choice_at(&t[i], 0, &c) && !sm_choice_find(&t[i], text, &c)))
            return false;
        return !sm_param_set(&t[i], &r->out.request, t[i].type == SUMI_PARAM_TEXT &&
                             sm_choice_find(&t[i], text, &c) ? c.name : text, &why);
    }
    return false;
}

static bool set_size(reader *r, const char *key, const char *w, const char *h)
{
    char part[128];
    if (!strcmp(key, "First pass size")) {
        r->first_pass[0] = atoi(w);
        r->first_pass[1] = atoi(h);
        return true;
    }
    snprintf(part, sizeof part, "%.100s-1", key);
    bool ok = set_row(r, part, w);
    part[strlen(part) - 1] = '2';
    return set_row(r, part, h) && ok;
}

/* "~/REST" below the home folder. */
static const char *path_of(reader *r, const char *value)
{
    const char *home = getenv("HOME");
    const char *path = value[0] == '~' && value[1] == '/' && home ? sm_arena_fmt(&r->arena, "%s%s", home, value + 1) : value;
    r->oom = r->oom || !path;
    return path;
}

/* What is no row of the table. */
static bool set_other(reader *r, const char *key, const char *value)
{
    sumi_infotext *o = &r->out;
    const char **file = sm_origin_member(&o->model, key);
    const struct { const char *key, **at; } texts[] = {
        {"Sampler", &r->sampler}, {"Schedule type", &r->schedule}, {"RNG", &r->rng}, {"Model", &o->model_name},
        {"Model hash", &o->model_hash},
        {"Version", &o->version}, {"Prompt", &o->request.prompt}, {"Negative prompt", &o->request.negative_prompt}};
    for (size_t i = 0; i < SM_COUNT(texts); i++)
        if (!strcmp(texts[i].key, key)) {
            *texts[i].at = value;
            return true;
        }
    if (file)
        return (*file = path_of(r, value)) != NULL;
    if (!strcmp(key, SM_ORIGIN_LOW_MEMORY))
        return o->model.low_memory = !strcmp(value, "True"), true;
    return !strcmp(key, SM_INFOTEXT_THRESHOLDS) || !strcmp(key, "Template") || !strcmp(key, "Negative Template");
}

static void read_fields(reader *r, span line)
{
    span key, value;
    char w[16], h[16];
    for (const char *s = line.at; r->out.count < MAX_FIELDS && next_pair(&s, line.at + line.n, &key, &value);) {
        if (!value.n) /* A1111 drops what has no value */
            continue;
        const char *k = copy(r, key.at, key.n), *v = unquoted(r, value);
        if (!k || !v)
            return;
        bool ok = set_other(r, k, v) || (size_value(v, w, h) && set_size(r, k, w, h)) || set_row(r, k, v);
        r->field[r->out.count++] = (sumi_field){k, v, ok};
    }
}

/* ---- what several keys say together ------------------------------------------------------------------------------------ */

/* What A1111's "Automatic" is for samplers that do not take the model's own timesteps evenly. */
static const char *automatic(const sm_sampler *s, bool said)
{
    static const struct { const char *a1111, *schedule; bool always; } list[] = {
        {"DPM++ 2M", "karras", false}, {"DPM++ SDE", "karras", false}, {"DPM++ 2S a", "karras", false}, {"DPM2", "karras", false},
        {"DPM2 a", "karras", false}, {"DPM++ 2M SDE", "exponential", false}, {"DPM++ 2M SDE Heun", "exponential", false},
        {"DPM++ 3M SDE", "exponential", false}, {"Restart", "karras", true}, {"DDIM", "ddim_uniform", true},
        {"PLMS", "ddim_uniform", true}};
    for (size_t i = 0; i < SM_COUNT(list); i++)
        if (!strcmp(s->a1111, list[i].a1111))
            return said || list[i].always ? list[i].schedule : "normal";
    return "normal";
}

/* Cuts " Karras" off a sampler's name; the schedule it names, NULL: none. */
static const sm_schedule *suffix(char *name)
{
    size_t n = strlen(name);
    for (int i = 0; i < sm_schedule_count; i++) {
        const char *both[] = {sm_schedules[i].a1111, sm_schedules[i].name};
        for (int k = 0; k < 2; k++) {
            size_t m = strlen(both[k]);
            if (n > m + 1 && name[n - m - 1] == ' ' && !strcasecmp(name + n - m, both[k])) {
                name[n - m - 1] = 0;
                return &sm_schedules[i];
            }
        }
    }
    return NULL;
}

/* Before version 1.9 the schedule was part of the sampler's name, and no schedule there meant the plain one. */
static void settle_sampler(reader *r)
{
    if (!r->sampler)
        return;
    size_t n = strlen(r->sampler);
    const char *at = sm_infotext_strip(r->sampler, &n);
    char *name = copy(r, at, n);
    if (!name)
        return;
    const sm_sampler *s = sm_sampler_find(name);
    const sm_schedule *c = s ? NULL : suffix(name), *said = r->schedule ? sm_schedule_find(r->schedule) : NULL;
    s = s ? s : sm_sampler_find(name);
    c = c ? c : said;
    if (s) {
        r->out.request.sampler = s->name;
        r->out.request.schedule = c ? c->name : !r->schedule ||
                                  !strcasecmp(r->schedule, "Automatic") ? automatic(s, r->schedule != NULL) : "normal";
        if (!r->schedule && r->out.request.sigmas[0]) /* the list is in its place */
            r->out.request.schedule = "";
    }
    for (size_t i = 0; i < r->out.count; i++) {
        sumi_field *f = &r->field[i];
        if (!strcmp(f->key, "Sampler"))
            f->understood = s != NULL;
        if (!strcmp(f->key, "Schedule type"))
            f->understood = said || !strcasecmp(f->value, "Automatic") || !strcasecmp(f->value, "Uniform");
    }
}

static void settle_rng(reader *r)
{
    bool own = !strncmp(r->out.version, "sumi", 4);
    if (r->rng && !set_row(r, "RNG", r->rng))
        for (size_t i = 0; i < r->out.count; i++)
            r->field[i].understood = r->field[i].understood && strcmp(r->field[i].key, "RNG");
    if (!r->rng && !own && r->out.count)
        r->out.request.rng = "philox";
}

/* A1111 merges tokens without drawing which of them stay. */
static void settle_merging(reader *r)
{
    for (size_t i = 0; i < r->out.count; i++)
        if (!strcmp(r->field[i].key, "Token merging random"))
            return;
    if (strncmp(r->out.version, "sumi", 4) &&
        (r->out.request.token_merging_ratio > 0 || r->out.request.token_merging_ratio_hr > 0))
        r->out.request.token_merging_random = 0;
}

/* The first hires fix gave the final size, and the first pass's apart; 0x0 stood for 512x512 pixels in the picture's shape. */
static void settle_first_pass(reader *r)
{
    sumi_request *q = &r->out.request;
    char w[16], h[16];
    int fw = r->first_pass[0], fh = r->first_pass[1], width = q->width ? q->width : 512, height = q->height ? q->height : 512;
    if (fw < 0)
        return;
    if (!fw || !fh) {
        double scale = sqrt(512.0 * 512.0 / ((double)width * height));
        fw = (int)ceil(scale * width / 64) * 64;
        fh = (int)ceil(scale * height / 64) * 64;
    }
    snprintf(w, sizeof w, "%d", width);
    snprintf(h, sizeof h, "%d", height);
    set_size(r, "Hires resize", w, h);
    snprintf(w, sizeof w, "%d", fw);
    snprintf(h, sizeof h, "%d", fh);
    set_size(r, "Size", w, h);
}

/* ---- the whole ------------------------------------------------------------------------------------------------------- */

static void add_line(sm_buf *b, span line)
{
    if (b->len)
        sm_buf_add(b, "\n", 1);
    sm_buf_add(b, line.at, line.n);
}

/* Prompts from the text before the last line of parameters; {NULL, 0}: there is no line. */
static void read_prompts(reader *r, span text)
{
    sm_buf b[2] = {{.mem = r->arena.mem}, {.mem = r->arena.mem}};
    const char *s = text.at, *end = text.at ? text.at + text.n : NULL;
    const size_t mark = strlen(SM_INFOTEXT_NEGATIVE);
    int to = 0;
    for (bool more = text.at != NULL; more;) {
        const char *nl = memchr(s, '\n', (size_t)(end - s));
        span line = {s, (size_t)((nl ? nl : end) - s)};
        line.at = sm_infotext_strip(line.at, &line.n);
        if (line.n >= mark && !memcmp(line.at, SM_INFOTEXT_NEGATIVE, mark)) {
            to = 1;
            line = (span){line.at + mark, line.n - mark};
            line.at = sm_infotext_strip(line.at, &line.n);
        }
        add_line(&b[to], line);
        more = nl != NULL;
        s = nl ? nl + 1 : end;
    }
    const char **at[2] = {&r->out.request.prompt, &r->out.request.negative_prompt};
    for (int i = 0; i < 2; i++) {
        *at[i] = b[i].len ? copy(r, b[i].data, b[i].len) : "";
        r->oom = r->oom || b[i].oom;
        sm_buf_free(&b[i]);
    }
}

static void read_text(reader *r, const char *text)
{
    span all = {text, strlen(text)}, last;
    all.at = sm_infotext_strip(text, &all.n);
    const char *nl = memrchr(all.at, '\n', all.n);
    last.at = nl ? nl + 1 : all.at;
    last.n = (size_t)(all.at + all.n - last.at);
    bool parameters = count_pairs(last) >= FEWEST;
    if (parameters)
        all = nl ? (span){all.at, (size_t)(nl - all.at)} : (span){0};
    read_prompts(r, all);
    if (parameters)
        read_fields(r, last);
}

sumi_status sm_infotext_read(sm_mem *mem, const char *text, sumi_infotext **out, sm_err *e)
{
    *out = NULL;
    if (!text || !sm_utf8_valid(text, strlen(text)))
        return sm_fail(e, SUMI_E_ARG, text ? "the infotext is not valid UTF-8" : "there is no infotext");
    reader *r = sm_alloc0(mem, SM_MEM_DATA, sizeof *r);
    if (!r)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for an infotext");
    sm_arena_init(&r->arena, mem, SM_MEM_DATA);
    r->out = (sumi_infotext){.request = sumi_request_default(), .model_name = "", .model_hash = "",
                             .version = "", .field = r->field};
    r->out.request.choices = 0; /* the prompt is what was drawn */
    r->first_pass[0] = -1;
    read_text(r, text);
    settle_sampler(r);
    settle_rng(r);
    settle_merging(r);
    settle_first_pass(r);
    if (r->oom) {
        sumi_infotext_free(&r->out);
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for an infotext");
    }
    *out = &r->out;
    return SUMI_OK;
}

sumi_status sumi_infotext_parse(sumi_context *ctx, const char *text, sumi_infotext **out)
{
    return sm_infotext_read(&ctx->mem, text, out, sm_begin(ctx));
}

void sumi_infotext_free(sumi_infotext *t)
{
    reader *r = (reader *)t;
    if (!r)
        return;
    sm_arena_free(&r->arena);
    sm_free(r);
}
