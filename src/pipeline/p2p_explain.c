/* What Prompt-to-Prompt makes of two prompts, for people who wonder which words an edit keeps (see p2p.h). */
#include <stdio.h>
#include <string.h>

#include "io/json.h"
#include "pipeline/p2p.h"

typedef struct shown {
    const sm_bpe *bpe;
    sm_mem *mem;
    bool json;
    sm_buf *out;
    sm_err *e;
} shown;

/* The only text of a prompt, NULL and e set where there are several. */
static const char *only_text(const char *prompt, const sm_prompt_how *how, sm_arena *room, sm_err *e)
{
    sm_prompt p;
    if (sm_prompt_read(prompt, how, room, &p, e))
        return NULL;
    if (p.parts > 1 || p.join || p.part[0].stages > 1)
        return sm_fail(e, SUMI_E_ARG,
                       "--edit-from-prompt: AND, .and, .blend, [a:b:0.5] and [a|b] make several texts of a prompt; "
                       "Prompt-to-Prompt needs one"),
               NULL;
    return p.part[0].stage[0].text;
}

static void put_token(const shown *x, int32_t id, bool first)
{
    sm_buf b = {.mem = x->mem};
    sm_bpe_decode(x->bpe, &id, 1, &b, x->e);
    if (x->json)
        sm_json_put_text(x->out, b.data ? b.data : "");
    else
        sm_buf_fmt(x->out, first ? "%-15s " : " %s", b.data ? b.data : "");
    x->out->oom |= b.oom;
    sm_buf_free(&b);
}

/* Edited token j: the source tokens it looks like, or itself. */
static void put_line(const shown *x, const sm_align_text *text, const float *map, const float *own, int j)
{
    int t = text[0].length, from = 0;
    sm_buf_fmt(x->out, x->json ? "%s{\"token\":" : "      ", j > 1 ? "," : "");
    put_token(x, text[0].id[j], true);
    sm_buf_fmt(x->out, x->json ? ",\"own\":%g,\"from\":[" : own[j] > 0 ? "its own" : "from", (double)own[j]);
    for (int i = 0; i < t; i++) {
        if (map[i * t + j] == 0)
            continue;
        if (x->json)
            sm_buf_fmt(x->out, "%s[%d,%.7g]", from++ ? "," : "", i, (double)map[i * t + j]);
        else if (i == 0 || i >= text[1].n - 1)
            sm_buf_fmt(x->out, " a mark");
        else
            put_token(x, text[1].id[i], false);
    }
    sm_buf_fmt(x->out, x->json ? "]}" : "\n");
}

static sumi_status put_pair(const shown *x, const sumi_request *r, const sm_chunks *c, sm_arena *room)
{
    size_t t = (size_t)c[0].length;
    bool *begins[2] = {sm_arena_get(room, t), sm_arena_get(room, t)};
    float *map = sm_arena_get(room, sizeof *map * t * t), *own = sm_arena_get(room, sizeof *own * t);
    if (!begins[0] || !begins[1] || !map || !own)
        return sm_fail(x->e, SUMI_E_MEMORY, "out of memory for aligning two prompts");
    if (c[0].n > 1 || c[1].n > 1)
        return sm_fail(x->e, SUMI_E_ARG, "--edit-from-prompt: both prompts must fit one chunk of %d tokens", c[0].length - 2);
    sm_align_text text[2] = {sm_p2p_text(x->bpe, &c[0], begins[0]), sm_p2p_text(x->bpe, &c[1], begins[1])};
    bool replaces = sm_p2p_replaces(r, text);
    if (replaces ? sm_align_replace(&text[1], &text[0], map, own, x->e)
                 : sm_align_refine(&text[1], &text[0], map, own, x->mem, x->e))
        return x->e->code;
    const char *source = r->edit_from_prompt[0] ? r->edit_from_prompt : r->prompt, *mode = replaces ? "replace" : "refine";
    if (x->json) {
        sm_buf_fmt(x->out, ",\"edit_from\":{\"text\":");
        sm_json_put_text(x->out, source);
        sm_buf_fmt(x->out, ",\"mode\":\"%s\",\"tokens\":[", mode);
    } else {
        sm_buf_fmt(x->out, "edited from: %s\n  %s; whose attention each token takes over\n", source, mode);
    }
    for (int j = 1; j < text[0].n - 1; j++)
        put_line(x, text, map, own, j);
    sm_buf_fmt(x->out, x->json ? "]}" : "");
    return x->e->code;
}

sumi_status sm_p2p_explain(const sm_bpe *bpe, const sumi_request *r, const sm_prompt_how *how, int length, bool json, sm_mem *mem,
                           sm_buf *out, sm_err *e)
{
    shown x = {bpe, mem, json, out, e};
    sm_chunks c[2] = {{0}, {0}};
    sm_arena room;
    sm_arena_init(&room, mem, SM_MEM_MISC);
    const char *edited = only_text(r->prompt, how, &room, e);
    const char *source = edited ? only_text(r->edit_from_prompt[0] ? r->edit_from_prompt : r->prompt, how, &room, e) : NULL;
    if (source && !sm_chunks_make(bpe, edited, how->emphasis, length, mem, &c[0], e) &&
        !sm_chunks_make(bpe, source, how->emphasis, length, mem, &c[1], e))
        put_pair(&x, r, c, &room);
    sm_chunks_free(&c[0]);
    sm_chunks_free(&c[1]);
    sm_arena_free(&room);
    return e->code;
}
