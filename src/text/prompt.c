/* A prompt as a whole, A1111's way (see prompt.h): comments (modules/processing_scripts/comments.py), <lora:...> and its like
 * (extra_networks.py), AND with weights (prompt_parser.py), then each part's schedule. */
#include "text/prompt.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#include "text/unicode.h"

static const struct { const char *name, *a1111; } modes[] = {
    [SM_EMPHASIS_ORIGINAL] = {"original", "Original"}, [SM_EMPHASIS_NO_NORM] = {"no_norm", "No norm"},
    [SM_EMPHASIS_IGNORE] = {"ignore", "Ignore"},
    [SM_EMPHASIS_NONE] = {"none", "None"}, [SM_EMPHASIS_COMFY] = {"comfy", "ComfyUI"},
    [SM_EMPHASIS_COMPEL] = {"compel", "compel"}, [SM_EMPHASIS_DIFFUSERS] = {"diffusers", "diffusers"},
};

bool sm_emphasis_by_name(const char *name, sm_emphasis *out)
{
    for (size_t i = 0; i < SM_COUNT(modes); i++)
        if (!strcasecmp(name, modes[i].name) || !strcasecmp(name, modes[i].a1111)) {
            *out = (sm_emphasis)i;
            return true;
        }
    return false;
}

const char *sm_emphasis_a1111(sm_emphasis m) { return (size_t)m < SM_COUNT(modes) ? modes[m].a1111 : "Original"; }

/* ---- characters ---------------------------------------------------------------------------------------------------- */

int sm_prompt_space(const char *s, size_t n)
{
    uint32_t cp;
    int len = n ? sm_utf8_get(s, n, &cp) : 0;
    return len && ((cp >= 0x1c && cp <= 0x1f) || sm_uni_class(cp) == SM_UNI_SPACE) ? len : 0;
}

/* The same of \w. */
static int word_at(const char *s, size_t n)
{
    uint32_t cp;
    int len = n ? sm_utf8_get(s, n, &cp) : 0;
    return len && (cp == '_' || sm_uni_word(cp)) ? len : 0;
}

bool sm_prompt_keyword(const char *s, size_t from, size_t at, size_t n, const char *word)
{
    size_t len = strlen(word), before = at;
    if (n - at < len || memcmp(s + at, word, len) || word_at(s + at + len, n - at - len))
        return false;
    while (before > from && ((unsigned char)s[--before] & 0xc0) == 0x80)
        ;
    return at == from || !word_at(s + before, at - before);
}

static size_t digits(const char *s, size_t at, size_t n)
{
    while (at < n && s[at] >= '0' && s[at] <= '9')
        at++;
    return at;
}

/* Up to 15 digits over a power of ten up to 22 are correctly rounded (both are exact in double); more are near enough. */
bool sm_prompt_number(const char *s, size_t n, bool exponent, double *out)
{
    size_t at = n && (*s == '+' || *s == '-'), whole = digits(s, at, n), end = whole;
    double x = 0, scale = 0, e10 = 0;
    if (end < n && s[end] == '.')
        end = digits(s, end + 1, n);
    if (end - at <= (size_t)(end > whole))
        return false;
    for (size_t i = at; i < end; i++)
        if (s[i] != '.') {
            x = 10 * x + (s[i] - '0');
            scale += i > whole;
        }
    if (exponent && end < n && (s[end] == 'e' || s[end] == 'E')) {
        bool minus = end + 1 < n && s[end + 1] == '-';
        size_t first = end + 1 + (end + 1 < n && (s[end + 1] == '-' || s[end + 1] == '+'));
        end = digits(s, first, n);
        if (end == first)
            return false;
        for (size_t i = first; i < end; i++)
            e10 = fmin(10 * e10 + (s[i] - '0'), 1e6);
        scale -= minus ? -e10 : e10;
    }
    x = x == 0 ? 0 : scale > 0 ? x / pow(10, scale) : x * pow(10, -scale);
    *out = *s == '-' ? -x : x;
    return end == n;
}

/* ---- comments, networks ---------------------------------------------------------------------------------------------- */

/* From a # to the end of its line nothing is said. The line break before it goes too where the # begins a line; one stays. */
static void strip_comments(const char *s, sm_buf *out)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n;) {
        bool line = (i == 0 && s[0] == '#') || (s[i] == '\n' && s[i + 1] == '#');
        if (line || s[i] == '#') {
            i += strcspn(s + i + (s[i] == '\n'), "\n") + (s[i] == '\n');
            i += i < n;
            sm_buf_add(out, "\n", 1);
        } else {
            size_t run = 1 + strcspn(s + i + 1, "#\n");
            sm_buf_add(out, s + i, run);
            i += run;
        }
    }
    sm_buf_add(out, "", 0);
}

static char *copy(sm_arena *room, const char *s, size_t n)
{
    char *to = sm_arena_get(room, n + 1);
    if (to)
        memcpy(to, s, n);
    return to;
}

/* Length of <kind:name> at s, 0 where there is none. *colon: where the kind ends. */
static size_t network_at(const char *s, size_t n, size_t *colon)
{
    size_t at = 1;
    for (int len; (len = word_at(s + at, n - at)) > 0;)
        at += (size_t)len;
    const char *close = at > 1 && at < n && s[at] == ':' ? memchr(s + at, '>', n - at) : NULL;
    *colon = at;
    return close && close > s + at + 1 ? (size_t)(close - s) + 1 : 0;
}

/* The text without them; they go to out. NULL when memory is out. */
static char *take_networks(const char *s, size_t n, sm_arena *room, sm_prompt *out)
{
    char *to = sm_arena_get(room, n + 1);
    size_t w = 0, most = 0;
    for (size_t i = 0; i < n; i++)
        most += s[i] == '>';
    out->net = sm_arena_get(room, sizeof *out->net * (most + 1));
    for (size_t i = 0; to && out->net && i < n;) {
        size_t colon, len = s[i] == '<' && (size_t)out->nets < most ? network_at(s + i, n - i, &colon) : 0;
        if (!len) {
            to[w++] = s[i++];
            continue;
        }
        sm_prompt_net net = {copy(room, s + i + 1, colon - 1), copy(room, s + i + colon + 1, len - colon - 2)};
        if (!net.kind || !net.name)
            return NULL;
        out->net[out->nets++] = net;
        i += len;
    }
    return out->net ? to : NULL;
}

/* ---- AND --------------------------------------------------------------------------------------------------------------- */

/* Start of the white space that ends s[0..n). */
static size_t trim(const char *s, size_t n)
{
    size_t end = 0;
    uint32_t cp;
    for (size_t i = 0; i < n;) {
        int space = sm_prompt_space(s + i, n - i), len = space ? space : sm_utf8_get(s + i, n - i, &cp);
        i += (size_t)SM_MAX(len, 1);
        end = space ? end : i;
    }
    return end;
}

/* Takes " : 1.5" off the end, as A1111 does with or without AND; returns what is left. */
static size_t take_weight(const char *s, size_t n, float *weight)
{
    size_t end = trim(s, n), at = end;
    double w;
    *weight = 1;
    while (at > 0 && s[at - 1] != ':')
        at--;
    if (!at)
        return end;
    size_t number = at;
    for (int len; (len = sm_prompt_space(s + number, end - number)) > 0;)
        number += (size_t)len;
    if (!sm_prompt_number(s + number, end - number, false, &w))
        return end;
    *weight = (float)w;
    return trim(s, at - 1);
}

static sumi_status add_part(const char *s, size_t n, bool weighed, const sm_prompt_how *how, sm_arena *room,
                            sm_prompt *out, sm_err *e)
{
    if (out->parts == SM_PROMPT_SIDES)
        return sm_fail(e, SUMI_E_ARG, "the prompt has more than %d sides of AND; at every step each is a prediction of its own",
                       SM_PROMPT_SIDES);
    sm_prompt_part *p = &out->part[out->parts++];
    *p = (sm_prompt_part){.weight = 1};
    size_t len = weighed ? take_weight(s, n, &p->weight) : n;
    p->text = copy(room, s, len);
    if (!p->text)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for a prompt of %zu bytes", n);
    if (how->emphasis <= SM_EMPHASIS_NONE)
        return sm_prompt_schedule(p->text, len, how->calls, how->earlier, room, &p->stage, &p->stages, e);
    p->stage = sm_arena_get(room, sizeof *p->stage);
    if (!p->stage)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for a prompt of %zu bytes", n);
    p->stage[p->stages++] = (sm_prompt_stage){how->calls, p->text};
    return SUMI_OK;
}

/* Texts without a schedule hold to the end. */
static sumi_status hold(sm_prompt *out, const sm_prompt_how *how, sm_arena *room, sm_err *e)
{
    sm_prompt_stage *stage = sm_arena_get(room, sizeof *stage * (size_t)out->parts);
    for (int i = 0; stage && i < out->parts; i++) {
        stage[i] = (sm_prompt_stage){how->calls, out->part[i].text};
        out->part[i].stage = &stage[i];
        out->part[i].stages = 1;
    }
    return stage ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "out of memory for the texts of a prompt");
}

sumi_status sm_prompt_read(const char *text, const sm_prompt_how *how, sm_arena *room, sm_prompt *out, sm_err *e)
{
    bool own = how->emphasis > SM_EMPHASIS_NONE, nets = !how->negative && how->emphasis != SM_EMPHASIS_DIFFUSERS;
    sm_buf b = {.mem = room->mem};
    *out = (sm_prompt){0};
    if (!sm_utf8_valid(text, strlen(text)))
        return sm_fail(e, SUMI_E_ARG, "the %sprompt is not UTF-8", how->negative ? "negative " : "");
    if (own)
        sm_buf_add(&b, text, strlen(text));
    else
        strip_comments(text, &b);
    const char *s = b.data ? nets ? take_networks(b.data, b.len, room, out) : copy(room, b.data, b.len) : NULL;
    bool oom = b.oom || !s;
    sm_buf_free(&b);
    if (!oom && how->emphasis == SM_EMPHASIS_COMPEL && sm_prompt_joined(s, room, out, e))
        return e->code;
    if (out->join)
        return hold(out, how, room, e);
    size_t n = oom ? 0 : strlen(s), most = 1, from = 0;
    for (size_t i = 0; i < n; i++)
        most += s[i] == 'A';
    out->part = oom ? NULL : sm_arena_get(room, sizeof *out->part * SM_MIN(most, (size_t)SM_PROMPT_SIDES));
    if (!out->part)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for a prompt of %zu bytes", strlen(text));
    bool parted = !how->negative && !own;
    for (size_t i = 0; parted && i < n && !e->code; i++)
        if (s[i] == 'A' && sm_prompt_keyword(s, 0, i, n, "AND")) {
            add_part(s + from, i - from, true, how, room, out, e);
            from = i + 3;
        }
    return e->code ? e->code : add_part(s + from, n - from, parted, how, room, out, e);
}
