/* Reader of pictograms.jsonl (see picture_index.h; written by tools/pictograms/prepare.py). JSON itself is io/json.h's. */
#include "train/picture_index.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "io/json.h"
#include "train/captions.h"

enum { FIELD_MAX = 160, TAGS_MAX = 64, LINES_MAX = 1000000 };
#define INDEX_MAX ((size_t)64 << 20)

/* What a message is about. */
typedef struct place {
    const char *path;
    int64_t line; /* from 1 */
    sm_err *e;    /* never NULL */
} place;

static sumi_status bad(const place *p, const char *field, const char *what)
{
    return sm_fail(p->e, SUMI_E_FORMAT, "%s:%lld: %s: %s; run tools/pictograms/prepare.py again", p->path, (long long)p->line,
                   field, what);
}

static bool has_control(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 32 || *s == 127)
            return true;
    return false;
}

/* A non-empty string of at most FIELD_MAX bytes, valid UTF-8 without control characters, copied into the arena; else NULL. */
static const char *take_string(const place *p, const char *field, const cJSON *j, sm_arena *a)
{
    const char *s = cJSON_GetStringValue(j);
    if (!s || !*s)
        return bad(p, field, s ? "is empty" : "is missing or no string"), NULL;
    size_t n = strlen(s);
    if (n > FIELD_MAX || !sm_utf8_valid(s, n) || has_control(s))
        return bad(p, field, n > FIELD_MAX ? "is longer than 160 bytes" : "holds control characters or invalid UTF-8"), NULL;
    const char *copy = sm_arena_str(a, s);
    if (!copy)
        sm_fail(p->e, SUMI_E_MEMORY, "%s: out of memory", p->path);
    return copy;
}

static const char *take_field(const place *p, const cJSON *object, const char *field, sm_arena *a)
{
    return take_string(p, field, cJSON_GetObjectItemCaseSensitive(object, field), a);
}

static sumi_status take_tags(const place *p, const cJSON *object, sm_picture *pic, sm_arena *a)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, "tags"), *item;
    if (!cJSON_IsArray(list))
        return bad(p, "tags", "is missing or no array");
    int n = cJSON_GetArraySize(list);
    if (n > TAGS_MAX)
        return bad(p, "tags", "has more than 64 entries");
    const char **tags = sm_arena_get(a, sizeof *tags * (size_t)(n + 1));
    if (!tags)
        return sm_fail(p->e, SUMI_E_MEMORY, "%s: out of memory", p->path);
    cJSON_ArrayForEach(item, list)
    {
        if (!(tags[pic->n_tags] = take_string(p, "tags", item, a)))
            return p->e->code;
        pic->n_tags++;
    }
    pic->tags = tags;
    return SUMI_OK;
}

static sumi_status take_split(const place *p, const cJSON *object, sm_picture *pic)
{
    const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "split"));
    if (s && !strcmp(s, "train"))
        pic->split = SM_SPLIT_TRAIN;
    else if (s && !strcmp(s, "concept"))
        pic->split = SM_SPLIT_CONCEPT;
    else if (s && !strcmp(s, "pair"))
        pic->split = SM_SPLIT_PAIR;
    else
        return bad(p, "split", "is none of train, concept, pair");
    return SUMI_OK;
}

static sumi_status take_picture(const place *p, const cJSON *object, sm_picture *pic, sm_arena *a)
{
    if (!cJSON_IsObject(object))
        return bad(p, "line", "is no JSON object");
    if (!(pic->style = take_field(p, object, "style", a)) || !(pic->name = take_field(p, object, "name", a)) ||
        !(pic->caption = take_field(p, object, "caption", a)) || !(pic->group = take_field(p, object, "group", a)) ||
        !(pic->sub = take_field(p, object, "sub", a)))
        return p->e->code;
    pic->style_row = sm_style_find(pic->style);
    if (pic->style_row < 0)
        return bad(p, "style", "is not known to this version");
    sumi_status st = take_tags(p, object, pic, a);
    return st != SUMI_OK ? st : take_split(p, object, pic);
}

static sumi_status parse_line(const place *p, const char *s, size_t n, sm_picture *pic, sm_arena *a)
{
    char label[300];
    snprintf(label, sizeof label, "%.250s:%lld", p->path, (long long)p->line);
    cJSON *j = sm_json_parse(a->mem, s, n, 8, 1000, label, p->e);
    if (!j)
        return p->e->code;
    sumi_status st = take_picture(p, j, pic, a);
    cJSON_Delete(j);
    return st;
}

sumi_status sm_picture_index_parse(const char *text, size_t n, const char *path, sm_arena *a, sm_picture **out, int64_t *count,
                                   sm_err *e)
{
    size_t lines = 0;
    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    lines += n && text[n - 1] != '\n';
    if (lines > LINES_MAX)
        return sm_fail(e, SUMI_E_FORMAT, "%s: has %zu lines; a million at most are possible", path, lines);
    sm_picture *pics = sm_arena_get(a, sizeof *pics * SM_MAX(lines, (size_t)1));
    if (!pics)
        return sm_fail(e, SUMI_E_MEMORY, "%s: out of memory for %zu lines", path, lines);
    sm_err local = {0};
    place p = {path, 0, e ? e : &local};
    for (size_t at = 0; at < n;) {
        const char *nl = memchr(text + at, '\n', n - at);
        size_t len = nl ? (size_t)(nl - text) - at : n - at;
        sm_picture *pic = &pics[p.line++];
        pic->row = p.line - 1;
        sumi_status st = parse_line(&p, text + at, len, pic, a);
        if (st != SUMI_OK)
            return st;
        at += len + 1;
    }
    if (!lines)
        return sm_fail(e, SUMI_E_FORMAT, "%s: is empty", path);
    *out = pics;
    *count = (int64_t)lines;
    return SUMI_OK;
}

sumi_status sm_picture_index_read(const char *path, sm_arena *a, sm_picture **out, int64_t *count, sm_err *e)
{
    sm_buf b = {.mem = a->mem};
    sumi_status st = sm_file_read(path, INDEX_MAX, &b, e);
    if (st == SUMI_OK)
        st = sm_picture_index_parse(b.data ? b.data : "", b.len, path, a, out, count, e);
    sm_buf_free(&b);
    return st;
}
