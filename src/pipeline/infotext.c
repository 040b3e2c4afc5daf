/* Writing infotexts in the format of AUTOMATIC1111's stable-diffusion-webui: the prompt, "Negative prompt: ...", and a line of
 * "Key: value" pairs, whose keys and order are those of the parameter table. What that format loses (blanks at the ends of a
 * prompt's lines) and what it has no key for (model files, prompts before choices were made) goes into keys of our own. */
#include "pipeline/infotext.h"

#include <string.h>

#include "pipeline/generate.h"
#include "pipeline/origin.h"
#include "pipeline/params.h"
#include "pipeline/randn.h"
#include "pipeline/tiny.h"
#include "text/unicode.h"

size_t sm_infotext_space(const char *s, size_t n)
{
    uint32_t cp = 0;
    int k = n ? sm_utf8_get(s, n, &cp) : 0;
    return k && (sm_uni_class(cp) == SM_UNI_SPACE || (cp >= 0x1c && cp <= 0x1f)) ? (size_t)k : 0;
}

const char *sm_infotext_strip(const char *s, size_t *n)
{
    size_t k;
    while ((k = sm_infotext_space(s, *n)))
        s += k, *n -= k;
    while (*n) {
        size_t at = *n - 1;
        while (at && ((unsigned char)s[at] & 0xc0) == 0x80)
            at--;
        if (sm_infotext_space(s + at, *n - at) != *n - at)
            break;
        *n = at;
    }
    return s;
}

/* Whether a prompt comes back from an infotext as it went in: its lines have no white space at their ends and none begins with
 * what begins the negative prompt. */
static bool plain(const char *prompt)
{
    size_t all = strlen(prompt), n = all;
    if (sm_infotext_strip(prompt, &n) != prompt || n != all)
        return false;
    for (const char *line = prompt; line;) {
        const char *end = strchr(line, '\n');
        size_t whole = end ? (size_t)(end - line) : strlen(line);
        n = whole;
        if (sm_infotext_strip(line, &n) != line || n != whole ||
            !strncmp(line, SM_INFOTEXT_NEGATIVE, strlen(SM_INFOTEXT_NEGATIVE)))
            return false;
        line = end ? end + 1 : NULL;
    }
    return true;
}

/* As Python's json.dumps with ensure_ascii off. */
static void put_json(const char *s, sm_buf *b)
{
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    sm_buf_add(b, "\"", 1);
    for (; *s; s++) {
        const char *at = strchr(from, *s);
        if (at)
            sm_buf_fmt(b, "\\%c", to[at - from]);
        else if ((unsigned char)*s < 0x20)
            sm_buf_fmt(b, "\\u%04x", (unsigned char)*s);
        else
            sm_buf_add(b, s, 1);
    }
    sm_buf_add(b, "\"", 1);
}

void sm_infotext_quote(const char *value, sm_buf *b)
{
    size_t n = strlen(value), all = n;
    sm_infotext_strip(value, &n);
    if (strpbrk(value, ",:\n") || value[0] == '"' || n != all || !n)
        put_json(value, b);
    else
        sm_buf_add(b, value, n);
}

/* "K-1" with n = length of K; 0 for another name. */
static size_t pair_key(const char *a1111, char digit)
{
    size_t n = strlen(a1111);
    return n > 2 && a1111[n - 2] == '-' && a1111[n - 1] == digit ? n - 2 : 0;
}

/* p[0] and p[1] as one key. */
static void put_pair(const sumi_param_info *p, const sumi_request *r, sm_buf *b)
{
    sm_buf_fmt(b, ", %.*s: ", (int)pair_key(p->a1111, '1'), p->a1111);
    sm_param_put(p, r, b);
    sm_buf_add(b, "x", 1);
    sm_param_put(p + 1, r, b);
}

static void put_row(const sumi_param_info *p, const sumi_request *r, sm_buf *b)
{
    sm_buf v = {.mem = b->mem};
    sm_choice c;
    sm_param_put(p, r, &v);
    b->oom = b->oom || v.oom;
    if (!b->oom && sm_param_is_path(p)) {
        sm_buf_fmt(b, ", %s: ", p->a1111);
        sm_origin_put_path(v.data, b);
    } else if (!b->oom) {
        if (!strcmp(p->name, "mimic_scale"))
            sm_buf_fmt(b, ", " SM_INFOTEXT_THRESHOLDS ": True");
        sm_buf_fmt(b, ", %s: ", p->a1111);
        sm_infotext_quote(sm_choice_find(p, v.data, &c) ? c.a1111 : v.data, b);
    }
    sm_buf_free(&v);
}

static void put_text(const char *key, const char *text, sm_buf *b)
{
    sm_buf_fmt(b, ", %s: ", key);
    put_json(text, b);
}

static void put_model(const sumi_model *m, sm_buf *b)
{
    const char *hash = m->origin ? sm_origin_hash(m->origin) : "";
    if (hash[0])
        sm_buf_fmt(b, ", Model hash: %s", hash);
    sm_buf_fmt(b, ", Model: ");
    sm_infotext_quote(m->name, b);
}

/* Rows from..to-1. */
static void put_rows(const sumi_request *r, size_t from, size_t to, sm_buf *b)
{
    size_t rows;
    const sumi_param_info *t = sumi_params(&rows);
    for (size_t i = from; i < to; i++) {
        size_t pair = i + 1 < rows ? pair_key(t[i].a1111, '1') : 0;
        pair = pair && pair == pair_key(t[i + 1].a1111, '2') && !strncmp(t[i].a1111, t[i + 1].a1111, pair) ? pair : 0;
        bool usual = sm_param_is_default(&t[i], r) && (!pair || sm_param_is_default(&t[i + 1], r));
        if (pair && !usual)
            put_pair(&t[i], r, b);
        else if (t[i].a1111[0] && !usual)
            put_row(&t[i], r, b);
        i += pair > 0;
    }
}

/* Rows: the prompts; up to the size, behind which A1111 has the model; all. */
static void count_rows(size_t *prompts, size_t *size, size_t *all)
{
    const sumi_param_info *t = sumi_params(all);
    for (*prompts = 0; strcmp(t[*prompts].name, "negative_prompt"); ++*prompts)
        ;
    for (*size = ++*prompts; strcmp(t[*size].name, "height"); ++*size)
        ;
    ++*size;
}

void sm_infotext_put_request(const sumi_request *r, sm_buf *b)
{
    size_t prompts, size, all;
    count_rows(&prompts, &size, &all);
    put_rows(r, prompts, all, b);
}

void sm_job_infotext(const sm_job *j, int k, sm_buf *b)
{
    size_t prompts, size, all;
    sumi_request r = j->r;
    sm_buf line = {.mem = b->mem};
    r.seed = sm_seed_of(&j->r, k);
    r.variation_seed = sm_subseed_of(&j->r, k);
    r.init_latents_at += j->r.init_latents[0] ? k : 0;
    r.prompt = j->prompts ? j->prompts[k] : r.prompt;
    r.edit_from_prompt = j->sources ? j->sources[k] : r.edit_from_prompt;
    r.negative_prompt = j->negatives ? j->negatives[k] : r.negative_prompt;
    count_rows(&prompts, &size, &all);
    put_rows(&r, prompts, size, &line);
    put_model(j->m, &line);
    put_rows(&r, size, all, &line);
    if (j->m->origin)
        sm_origin_put(j->m->origin, sm_tiny_makes(j), &line);
    if (j->prompts && j->r.choices && strcmp(j->r.prompt, r.prompt))
        put_text("Template", j->r.prompt, &line);
    if (j->negatives && strcmp(j->r.negative_prompt, r.negative_prompt))
        put_text("Negative Template", j->r.negative_prompt, &line);
    if (!plain(r.prompt) || !plain(r.negative_prompt)) { /* one may be taken for a part of the other */
        put_text("Prompt", r.prompt, &line);
        put_text("Negative prompt", r.negative_prompt, &line);
    }
    sm_buf_fmt(&line, ", Version: sumi " SUMI_VERSION);
    sm_buf_fmt(b, "%s%s%s\n%s", r.prompt, r.negative_prompt[0] ? "\n" SM_INFOTEXT_NEGATIVE " " : "", r.negative_prompt,
               line.data ? line.data + 2 : "");
    b->oom = b->oom || line.oom;
    sm_buf_free(&line);
}
