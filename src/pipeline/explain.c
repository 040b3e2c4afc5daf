/* The public call that shows what is made of a prompt: sides of AND, which text holds at which call of the denoiser, its chunks
 * and weights, networks. For people, who debug prompts with it, or as JSON. */
#include <stdio.h>
#include <string.h>

#include "io/json.h"
#include "pipeline/levels.h"
#include "pipeline/model.h"
#include "pipeline/p2p.h"
#include "pipeline/params.h"
#include "pipeline/text.h"
#include "text/prompt.h"

typedef struct shown {
    const sm_bpe *bpe;
    sm_mem *mem;
    sm_emphasis emphasis;
    int length, calls;
    bool json;
    sm_buf *out;
    sm_err *e;
} shown;

/* ---- for people ---- */

/* Tokens from..to of a chunk as text, one line whatever they say. */
static void put_words(const shown *x, const int32_t *id, size_t n)
{
    sm_buf b = {.mem = x->mem};
    sm_bpe_decode(x->bpe, id, n, &b, x->e);
    for (size_t i = 0; b.data && i < b.len; i++)
        b.data[i] = (unsigned char)b.data[i] < 32 ? ' ' : b.data[i];
    sm_buf_fmt(x->out, "%s", b.data ? b.data : "");
    sm_buf_free(&b);
}

static void text_chunk(const shown *x, const sm_chunks *c, int k)
{
    const int32_t *id = c->id + (size_t)k * (size_t)c->length;
    const float *w = c->weight + (size_t)k * (size_t)c->length;
    const int32_t *piece = c->piece + (size_t)k * (size_t)c->length;
    int n = 0;
    for (int i = 1; i < c->length; i++)
        n += piece[i] >= 0;
    sm_buf_fmt(x->out, "    chunk %d of %d, %d of %d tokens\n", k + 1, c->n, n, c->length - 2);
    for (int i = 1, to; i <= n; i = to) {
        for (to = i; to <= n && w[to] == w[i]; to++)
            ;
        sm_buf_fmt(x->out, "      %-8.4g", (double)w[i]);
        put_words(x, id + i, (size_t)(to - i));
        sm_buf_fmt(x->out, "\n");
    }
}

/* ---- JSON ---- */

static void json_chunk(const shown *x, const sm_chunks *c, int k)
{
    const int32_t *id = c->id + (size_t)k * (size_t)c->length;
    const float *w = c->weight + (size_t)k * (size_t)c->length;
    sm_buf_fmt(x->out, "%s{\"ids\":[", k ? "," : "");
    for (int i = 0; i < c->length; i++)
        sm_buf_fmt(x->out, "%s%d", i ? "," : "", (int)id[i]);
    sm_buf_fmt(x->out, "],\"weights\":[");
    for (int i = 0; i < c->length; i++)
        sm_buf_fmt(x->out, "%s%.7g", i ? "," : "", (double)w[i]);
    sm_buf_fmt(x->out, "]}");
}

/* ---- both ---- */

static sumi_status put_stage(const shown *x, const char *text, int from, int to, bool first)
{
    sm_chunks c;
    if (!sm_chunks_make(x->bpe, text, x->emphasis, x->length, x->mem, &c, x->e)) {
        if (x->json) {
            sm_buf_fmt(x->out, "%s{\"from\":%d,\"to\":%d,\"text\":", first ? "" : ",", from, to);
            sm_json_put_text(x->out, text);
            sm_buf_fmt(x->out, ",\"cut\":%d,\"chunks\":[", c.cut);
        } else {
            sm_buf_fmt(x->out, "  calls %d to %d of %d\n", from, to, x->calls);
        }
        for (int k = 0; k < c.n; k++)
            (x->json ? json_chunk : text_chunk)(x, &c, k);
        if (x->json)
            sm_buf_fmt(x->out, "]}");
        else if (c.cut)
            sm_buf_fmt(x->out, "    %d tokens left out\n", c.cut);
    }
    sm_chunks_free(&c);
    return x->e->code;
}

static void put_part(const shown *x, const sm_prompt_part *p, sm_join join, const char *title, int k, int parts)
{
    static const char *const words[] = {"side", "text, one behind the other,", "text, blended,"};
    if (x->json)
        sm_buf_fmt(x->out, "%s{\"weight\":%.7g,\"stages\":[", k ? "," : "", (double)p->weight);
    else if (parts > 1)
        sm_buf_fmt(x->out, "%s, %s %d of %d, weight %.4g\n", title, words[join], k + 1, parts, (double)p->weight);
    else
        sm_buf_fmt(x->out, p->weight == 1 ? "%s\n" : "%s, weight %.4g\n", title, (double)p->weight);
    /* The stage that ends with call n, counted from 0, has the n + 1 first calls. */
    for (int i = 0, from = 1; i < p->stages && from <= x->calls && !x->e->code; i++) {
        int to = SM_MIN(p->stage[i].end + 1, x->calls);
        put_stage(x, p->stage[i].text, from, to, i == 0);
        from = to + 1;
    }
    if (x->json)
        sm_buf_fmt(x->out, "]}");
}

static sumi_status put_prompt(const shown *x, const char *text, bool negative)
{
    sm_arena room;
    sm_prompt p;
    sm_prompt_how how = {x->emphasis, negative, x->calls, 0};
    sm_arena_init(&room, x->mem, SM_MEM_MISC);
    if (!sm_prompt_read(text, &how, &room, &p, x->e)) {
        if (x->json)
            sm_buf_fmt(x->out, ",\"%s\":[", negative ? "negative" : "prompt");
        for (int i = 0; i < p.parts && !x->e->code; i++)
            put_part(x, &p.part[i], p.join, negative ? "negative prompt" : "prompt", i, p.parts);
        if (x->json)
            sm_buf_fmt(x->out, "]%s", negative ? "" : ",\"networks\":[");
        for (int i = 0; i < p.nets; i++) {
            if (x->json) {
                sm_buf_fmt(x->out, "%s{\"kind\":", i ? "," : "");
                sm_json_put_text(x->out, p.net[i].kind);
                sm_buf_fmt(x->out, ",\"name\":");
                sm_json_put_text(x->out, p.net[i].name);
                sm_buf_fmt(x->out, "}");
            } else {
                sm_buf_fmt(x->out, "network %s: %s\n", p.net[i].kind, p.net[i].name);
            }
        }
        if (x->json && !negative)
            sm_buf_fmt(x->out, "]");
    }
    sm_arena_free(&room);
    return x->e->code;
}

sumi_status sumi_prompt_explain(sumi_context *ctx, const sumi_model *m, const sumi_request *r, int json, char **out)
{
    sm_err *e = sm_begin(ctx);
    sm_buf b = {.mem = &ctx->mem};
    *out = NULL;
    if (sm_request_check(r, e))
        return e->code;
    const sm_sampler *s = sm_sampler_find(r->sampler[0] ? r->sampler : m->traits.sampler);
    shown x = {.bpe = m->bpe, .mem = &ctx->mem, .length = m->traits.text[0].clip.max_position_embeddings,
               .json = json != 0, .out = &b, .e = e};
    int steps = r->steps;
    char *list = NULL;
    if (r->sigmas[0] && sm_levels_list(r->sigmas, &steps, x.mem, &list, e))
        return e->code;
    sm_free(list);
    x.calls = sm_text_calls(s, steps ? steps : m->traits.steps);
    if (x.length < 3 || !sm_emphasis_by_name(r->emphasis, &x.emphasis))
        return sm_fail(e, SUMI_E_ARG, "--emphasis: '%.40s' is unknown, or the model reads no text", r->emphasis);
    if (json)
        sm_buf_fmt(&b, "{\"calls\":%d,\"chunk\":%d,\"emphasis\":\"%s\"", x.calls, x.length - 2, sm_emphasis_a1111(x.emphasis));
    put_prompt(&x, r->prompt, false);
    if (!e->code && (json || r->negative_prompt[0]))
        put_prompt(&x, r->negative_prompt, true);
    sm_prompt_how how = {x.emphasis, false, x.calls, 0};
    if (!e->code && sm_p2p_wanted(r))
        sm_p2p_explain(m->bpe, r, &how, x.length, json, x.mem, &b, e);
    if (json)
        sm_buf_fmt(&b, "}\n");
    if (b.oom)
        sm_fail(e, SUMI_E_MEMORY, "out of memory for the description of a prompt");
    if (e->code)
        sm_buf_free(&b);
    else
        *out = b.data;
    return e->code;
}
