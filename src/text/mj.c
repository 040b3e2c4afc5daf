/* Taking Midjourney's suffixes off a prompt (see mj.h; docs.midjourney.com, "Parameter List"). */
#include "text/mj.h"

#include <string.h>

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

/* Length of the dashes of a suffix at s + at, 0 where none begins. */
static size_t dashes_at(const char *s, size_t at)
{
    size_t n = !strncmp(s + at, "--", 2) ? 2 : !strncmp(s + at, "\xe2\x80\x94", 3) ? 3 : 0; /* em dash */
    return n && (!at || is_blank(s[at - 1])) && is_letter(s[at + n]) ? n : 0;
}

/* The next suffix's dashes at or after at, else the text's end. */
static size_t next_suffix(const char *s, size_t at)
{
    while (s[at] && !dashes_at(s, at))
        at++;
    return at;
}

/* A copy without the white space around it. */
static char *copy(sm_arena *room, const char *s, size_t from, size_t to)
{
    while (from < to && is_blank(s[from]))
        from++;
    while (to > from && is_blank(s[to - 1]))
        to--;
    char *out = sm_arena_get(room, to - from + 1);
    if (out)
        memcpy(out, s + from, to - from);
    return out;
}

sumi_status sm_suffixes_split(const char *prompt, sm_arena *room, char **text, sm_suffix **out, int *n, sm_err *e)
{
    int most = 1;
    for (size_t at = next_suffix(prompt, 0); prompt[at]; at = next_suffix(prompt, at + 1))
        most++;
    size_t at = next_suffix(prompt, 0);
    *n = 0;
    *text = copy(room, prompt, 0, at);
    *out = sm_arena_get(room, sizeof **out * (size_t)most);
    bool ok = *text && *out;
    while (ok && prompt[at]) {
        size_t name = at + dashes_at(prompt, at), value = name, end = next_suffix(prompt, name);
        while (value < end && !is_blank(prompt[value]) && prompt[value] != '=')
            value++;
        sm_suffix *x = &(*out)[(*n)++];
        x->name = copy(room, prompt, name, value);
        x->value = copy(room, prompt, value + (value < end && prompt[value] == '='), end);
        ok = x->name && x->value;
        at = end;
    }
    return ok ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "out of memory for a prompt of %zu bytes", strlen(prompt));
}
