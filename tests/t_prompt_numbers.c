/* Encoded prompts against A1111's algorithm, ComfyUI's and compel's on tiny text encoders (tests/fixtures/prompts.safetensors,
 * made in double by tools/fixtures/prompt_numbers.py): chunks, emphasis, schedules, AND, pooled text, of one encoder and two,
 * padded with end marks and with zeros. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/file.h"
#include "families.h"
#include "pipeline/text.h"
#include "reference.h"
#include "test.h"

typedef struct one {
    sumi_context *ctx;
    sumi_model *m;
    sm_job j;
    sm_text_cond c;
    bool job;
} one;

static bool load(sumi_context *ctx, const char *family, sumi_model **m)
{
    sumi_model_options o = {.path = family_model(family, FAMILY_FOLDER), .tokenizer = family_tokenizer()};
    return !sumi_model_load_with(ctx, &o, m);
}

static bool open_one(one *x, const char *family, const sumi_request *r)
{
    sm_err e = {0};
    *x = (one){0};
    bool ok = !sumi_context_new(&(sumi_context_options){.threads = 1}, &x->ctx) && load(x->ctx, family, &x->m);
    CHECKF(ok, "%s", sumi_error(x->ctx));
    x->job = ok && !sm_job_init(&x->j, x->m, x->ctx, r, &e);
    if (x->job && !sm_text_open(&x->c, &x->j, 0, 1, 0, &e))
        sm_text_encode(&x->c, &x->j, &e);
    CHECKF(!e.code, "'%s': %s", r->prompt, e.msg);
    return x->job && !e.code;
}

static void close_one(one *x)
{
    sm_text_close(&x->c);
    if (x->job)
        sm_job_done(&x->j);
    sumi_model_free(x->m);
    sumi_context_free(x->ctx);
}

/* One side at one call: every text's context and pooled text, the latter where the reference has one. */
static void check_side(const reference *f, const one *x, int n, int call, bool negative)
{
    const sm_text_pick *pick;
    int parts = sm_text_at(&x->c, 0, call, negative, &pick);
    for (int k = 0; k < parts; k++) {
        char name[64], pooled[80];
        snprintf(name, sizeof name, "%d.%d.%s.%d", n, call, negative ? "n" : "p", k);
        snprintf(pooled, sizeof pooled, "%s.pooled", name);
        const sm_weight *w = reference_find(f, "%s", name);
        int tokens = sm_text_tokens(&x->c, pick[k].row);
        CHECKF(w && w->t.rank == 2 && w->t.dims[0] == tokens && w->t.dims[1] == x->c.width, "%s: %d tokens of width %d",
               name, tokens, x->c.width);
        if (w && w->t.dims[0] == tokens)
            reference_near(f, name, sm_text_context(&x->c, pick[k].row), (int64_t)tokens * x->c.width, 1e-5, x->j.r.prompt);
        if (sm_weights_find(f->w, pooled))
            reference_near(f, pooled, sm_text_pooled(&x->c, pick[k].row), x->c.pool, 1e-5, x->j.r.prompt);
    }
}

TEST(prompt_embeddings)
{
    sm_err e = {0};
    sm_buf b = {0};
    reference f;
    cJSON *table = sm_file_read(test_fixture("prompts.json"), 1 << 20, &b, &e) ? NULL : cJSON_ParseWithLength(b.data, b.len);
    const cJSON *row, *call, *w;
    int n = 0;
    bool ok = reference_open(&f, "prompts.safetensors");
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(table, "numbers")) {
        sumi_request r = sumi_request_default();
        one x;
        r.emphasis = cJSON_GetStringValue(cJSON_GetArrayItem(row, 1));
        r.prompt = cJSON_GetStringValue(cJSON_GetArrayItem(row, 2));
        r.negative_prompt = cJSON_GetStringValue(cJSON_GetArrayItem(row, 3));
        r.steps = 4;
        r.sampler = "euler";
        if (ok && open_one(&x, cJSON_GetStringValue(cJSON_GetArrayItem(row, 0)), &r)) {
            const sm_text_pick *pick;
            int parts = sm_text_at(&x.c, 0, 0, false, &pick), k = 0;
            cJSON_ArrayForEach(w, cJSON_GetArrayItem(row, 5))
                CHECKF(k < parts && pick[k].weight == (float)cJSON_GetNumberValue(w), "'%s': weight %d", r.prompt, k), k++;
            CHECK(k == parts);
            cJSON_ArrayForEach(call, cJSON_GetArrayItem(row, 4)) {
                check_side(&f, &x, n, (int)cJSON_GetNumberValue(call), false);
                check_side(&f, &x, n, (int)cJSON_GetNumberValue(call), true);
            }
        }
        if (ok)
            close_one(&x);
        n++;
    }
    CHECKF(n >= 15, "%d cases %s", n, e.msg);
    reference_close(&f);
    cJSON_Delete(table);
    sm_buf_free(&b);
}

/* ---- which text at which call ------------------------------------------------------------------------------------ */

static int first_row(const one *x, int call)
{
    const sm_text_pick *pick;
    sm_text_at(&x->c, 0, call, false, &pick);
    return pick->row;
}

/* The first call at which the second text holds. */
static int changes(const char *prompt, const char *sampler, int steps)
{
    sumi_request r = sumi_request_default();
    one x;
    r.prompt = prompt;
    r.sampler = sampler;
    r.steps = steps;
    int call = -1;
    if (open_one(&x, "sd1", &r))
        for (call = 0; call < 100 && first_row(&x, call) == first_row(&x, 0); call++)
            ;
    close_one(&x);
    return call;
}

/* A1111 counts calls from 0 and a text holds up to and with the call of its number; samplers of two calls a step have twice as
 * many, in which whole numbers count, too. */
TEST(prompt_calls)
{
    CHECK(changes("[a:b:3]", "euler", 10) == 4);
    CHECK(changes("[a:b:0.5]", "euler", 10) == 6);
    CHECK(changes("[a:b:0.5]", "heun", 10) == 11);
    CHECK(changes("[a:b:3]", "heun", 10) == 4);
    CHECK(changes("[a|b]", "euler", 10) == 2); /* calls 0 and 1 have the first */
    CHECK(changes("a", "euler", 10) == 100);
}

/* Two pictures with the same prompt, and the same texts on both sides, are encoded once. */
TEST(prompt_rows_are_shared)
{
    sumi_request r = sumi_request_default();
    const char *const prompts[] = {"a cat", "a hat, a very long text that goes on and on", "a cat"};
    const sm_text_pick *a, *b;
    sm_err e = {0};
    one x;
    r.prompt = "a cat";
    r.negative_prompt = "a cat";
    bool ok = open_one(&x, "sd1", &r);
    CHECK(ok && sm_text_sequences(&x.c) == 1);
    sm_text_close(&x.c);
    x.j.prompts = prompts;
    if (ok && !sm_text_open(&x.c, &x.j, 0, 3, 0, &e)) {
        sm_text_at(&x.c, 0, 0, false, &a);
        sm_text_at(&x.c, 2, 0, false, &b);
        CHECK(a->row == b->row && sm_text_tokens(&x.c, a->row) == 16);
        sm_text_at(&x.c, 1, 0, false, &b);
        CHECK(sm_text_tokens(&x.c, b->row) > 16);
    }
    CHECKF(!e.code, "%s", e.msg);
    close_one(&x);
}

/* Each allocation in turn: an error, nothing lost. */
TEST(prompt_rows_out_of_memory)
{
    static const char *const prompts[][2] = {{"original", "a [cat:(hat:1.3), in the hat, a cat in the hat:2] AND b:0.5 <lora:x>"},
                                             {"compel", "a cat-- in (the hat)1.3"}};
    for (size_t i = 0; i < SM_COUNT(prompts); i++) {
        sumi_request r = sumi_request_default();
        one x;
        r.emphasis = prompts[i][0];
        r.prompt = prompts[i][1];
        r.steps = 4;
        bool ok = open_one(&x, "sd1", &r), more = ok;
        sm_text_close(&x.c);
        for (int64_t k = 1; more; k += 1 + k / 40) { /* the encoder's own ones are tested elsewhere */
            sm_err e = {0};
            size_t before = x.ctx->mem.total;
            x.ctx->mem.fail_at = k;
            if (!sm_text_open(&x.c, &x.j, 0, 1, 0, &e))
                sm_text_encode(&x.c, &x.j, &e);
            more = x.ctx->mem.fail_at == 0;
            x.ctx->mem.fail_at = 0;
            CHECKF(e.code == (more ? SUMI_E_MEMORY : SUMI_OK), "%s, allocation %d: %s", r.emphasis, (int)k, e.msg);
            sm_text_close(&x.c);
            CHECKF(x.ctx->mem.total == before, "%s, allocation %d: %zu bytes are lost", r.emphasis, (int)k,
                   x.ctx->mem.total - before);
        }
        close_one(&x);
    }
}

/* Hires fix: whole numbers count from A1111's total_steps of the first pass, whatever its sampler evaluates. */
TEST(prompt_second_pass)
{
    static const struct { const char *sampler, *prompt; } cases[] = {
        {"heun", "[cat:hat:10]"}, {"restart", "[cat:hat:10]"}, {"dpm_adaptive", "[cat:hat:6]"}, {"plms", "[cat:hat:6]"},
        {"euler", "[cat:hat:1.5]"}};
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        sumi_request r = sumi_request_default();
        sm_err e = {0};
        one x;
        r.prompt = cases[i].prompt;
        r.sampler = cases[i].sampler;
        r.steps = 4;
        bool ok = open_one(&x, "sd1", &r);
        sm_text_close(&x.c);
        if (ok && !sm_text_open(&x.c, &x.j, 0, 1, 4, &e)) {
            const sm_text_pick *p[4];
            for (int call = 0; call < 4; call++)
                sm_text_at(&x.c, 0, call, false, &p[call]);
            CHECKF(p[0]->row == p[2]->row && p[2]->row != p[3]->row, "%s: %d %d %d %d", r.sampler, p[0]->row,
                   p[1]->row, p[2]->row, p[3]->row);
        }
        CHECKF(!e.code, "%s", e.msg);
        close_one(&x);
    }
}

TEST(prompt_too_many_chunks)
{
    static char text[20000];
    sumi_request r = sumi_request_default();
    sm_err e = {0};
    one x;
    r.prompt = "a";
    r.steps = 1000;
    bool ok = open_one(&x, "sd1", &r);
    int n = sprintf(text, "[");
    for (int i = 0; i < 997; i++)
        n += sprintf(text + n, "%d|", i);
    n += sprintf(text + n, "a]");
    for (int i = 0; i < 17; i++)
        n += sprintf(text + n, " BREAK b");
    sm_text_close(&x.c);
    x.j.r.prompt = text;
    CHECKF(ok && sm_text_open(&x.c, &x.j, 0, 1, 0, &e) == SUMI_E_ARG && strstr(e.msg, "at most 16384"), "%s", e.msg);
    close_one(&x);
}

/* ---- what is told -------------------------------------------------------------------------------------------------- */

static void listen(void *user, const sumi_progress *p)
{
    if (p->message)
        snprintf((char *)user + strlen(user), 1000 - strlen(user), "%s\n", p->message);
}

TEST(prompt_networks_are_reported)
{
    sumi_context *ctx;
    sumi_model *m = NULL;
    sumi_images *with = NULL, *without = NULL;
    sumi_request r = sumi_request_default();
    char told[1000] = "";
    sumi_callbacks cb = {.progress = listen, .user = told};
    r.prompt = "a cat<lora:style:0.8>";
    r.steps = 1;
    r.width = r.height = 32;
    r.seed = 1;
    bool ok = !sumi_context_new(NULL, &ctx) && load(ctx, "sd1", &m) && !sumi_generate(ctx, m, &r, &cb, &with);
    CHECKF(ok && strstr(told, "<lora:style:0.8>: left out"), "%s %s", told, sumi_error(ctx));
    r.prompt = "a cat";
    *told = 0;
    ok = ok && !sumi_generate(ctx, m, &r, &cb, &without);
    CHECK(ok && !*told && !memcmp(sumi_images_at(with, 0)->pixels, sumi_images_at(without, 0)->pixels, 32 * 32 * 3));
    r.emphasis = "diffusers";
    r.prompt = "a text that does not fit into a chunk";
    sumi_images_free(without);
    without = NULL;
    ok = ok && !sumi_generate(ctx, m, &r, &cb, &without);
    CHECKF(ok && strstr(told, "left out, as --emphasis diffusers says"), "%s", told);
    sumi_images_free(with);
    r.emphasis = "loud";
    CHECK(sumi_generate(ctx, m, &r, NULL, &with) == SUMI_E_ARG && strstr(sumi_error(ctx), "--emphasis"));
    sumi_images_free(without);
    sumi_model_free(m);
    sumi_context_free(ctx);
}
