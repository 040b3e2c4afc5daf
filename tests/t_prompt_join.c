/* compel's .and and .blend: how prompts are read, as compel 2.5.1's PromptParser reads them (its answers are in the tables), and
 * contexts that are put together from those of the texts alone, which t_prompt_numbers.c compares with compel. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "families.h"
#include "pipeline/text.h"
#include "test.h"
#include "text/prompt.h"

enum { MOST = 4 };

TEST(prompt_join_reads_as_compel)
{
    static const struct { const char *prompt; sm_join join; int parts; const char *text[MOST]; float weight[MOST]; } rows[] = {
        {"(\"a cat\", \"a dog\").blend(0.7, 0.3)", SM_JOIN_BLEND, 2, {"a cat", "a dog"}, {0.7f, 0.3f}},
        {"(\"a cat\",\"a dog\").blend(1,-1,no_normalize)", SM_JOIN_BLEND, 2, {"a cat", "a dog"}, {1, -1}},
        {"(\"a cat\", \"a dog\").blend()", SM_JOIN_BLEND, 2, {"a cat", "a dog"}, {0.5f, 0.5f}},
        {"(cat, dog).blend(1, 3)", SM_JOIN_BLEND, 2, {"cat", "dog"}, {0.25f, 0.75f}},
        {"(\"only\").blend(2)", SM_JOIN_BLEND, 1, {"only"}, {1}},
        {" ( \"a cat\" , \"b\" ) .blend( 1 , 1 ) ", SM_JOIN_BLEND, 2, {"a cat", "b"}, {0.5f, 0.5f}},
        {"(\"a cat\", \"a dog\").and()", SM_JOIN_BEHIND, 2, {"a cat", "a dog"}, {1, 1}},
        {"(\"a cat++\", \"a (dog)0.5\").and(1, 0.5)", SM_JOIN_BEHIND, 2, {"a cat++", "a (dog)0.5"}, {1, 0.5f}},
        {"((a cat), \"x\").and()", SM_JOIN_BEHIND, 2, {"(a cat)", "x"}, {1, 1}},
        {"(\"a \\\"b\\\" c\", \"d\").and()", SM_JOIN_BEHIND, 2, {"a \"b\" c", "d"}, {1, 1}},
        {"(\"a, b\", \"c. d\", \"e)\").and(1, 2, 3)", SM_JOIN_BEHIND, 3, {"a, b", "c. d", "e)"}, {1, 2, 3}},
        {"a cat", SM_JOIN_NONE, 1, {"a cat"}, {1}},
        {"(a cat, a dog)", SM_JOIN_NONE, 1, {"(a cat, a dog)"}, {1}},
        {"(\"a cat\")++ on a (mat)0.8", SM_JOIN_NONE, 1, {"(\"a cat\")++ on a (mat)0.8"}, {1}}};
    sm_prompt_how how = {.emphasis = SM_EMPHASIS_COMPEL, .calls = 4};
    for (size_t i = 0; i < SM_COUNT(rows); i++) {
        sm_arena room;
        sm_prompt p;
        sm_err e = {0};
        sm_arena_init(&room, NULL, SM_MEM_MISC);
        CHECKF(!sm_prompt_read(rows[i].prompt, &how, &room, &p, &e) && p.join == rows[i].join && p.parts == rows[i].parts,
               "%s: %d parts, %s", rows[i].prompt, p.parts, e.msg);
        for (int k = 0; k < p.parts && k < rows[i].parts; k++)
            CHECKF(!strcmp(p.part[k].text, rows[i].text[k]) && p.part[k].weight == rows[i].weight[k] && p.part[k].stages == 1,
                   "%s: '%s' %g", rows[i].prompt, p.part[k].text, (double)p.part[k].weight);
        sm_arena_free(&room);
    }
}

/* Not for the other languages, and refused where compel draws its operator as words or fails. */
TEST(prompt_join_refused)
{
    static const struct { const char *prompt, *message; } rows[] = {
        {"(\"a\", \"b\").blend(1)", "1 weights for 2 texts"}, {"(\"a\", \"b\").blend(1, -1)", "add up to 0"},
        {"x (\"a\", \"b\").blend(1,1)", "is of a whole prompt"}, {"(\"a\" \"b\").blend(1,1)", "is of a whole prompt"},
        {"\"a cat\".and()", "is of a whole prompt"}, {"(a cat, a dog).and()", "is of a whole prompt"},
        {"(\"a\", \"b\").and(1,2) c", "is of a whole prompt"},
        {"(\"a\", \"b\").and(no_normalize)", "is of a whole prompt"}, {"(\"a\", \"b\").and(1,,2)", "is of a whole prompt"},
        {"a (b).swap(c)", ".swap(...), which is not there"}};
    for (size_t i = 0; i < SM_COUNT(rows); i++) {
        sm_prompt_how how = {.emphasis = SM_EMPHASIS_COMPEL, .calls = 4};
        sm_arena room;
        sm_prompt p;
        sm_pieces pieces = {0};
        sm_err e = {0};
        sm_arena_init(&room, NULL, SM_MEM_MISC);
        if (!sm_prompt_read(rows[i].prompt, &how, &room, &p, &e))
            sm_prompt_weigh(p.part[0].text, SM_EMPHASIS_COMPEL, &pieces, &e);
        CHECKF(e.code && strstr(e.msg, rows[i].message), "%s: %s", rows[i].prompt, e.msg);
        sm_err_clear(&e);
        how.emphasis = SM_EMPHASIS_ORIGINAL;
        CHECK(!sm_prompt_read(rows[i].prompt, &how, &room, &p, &e) && !p.join);
        sm_pieces_free(&pieces);
        sm_arena_free(&room);
    }
}

/* ---- contexts -------------------------------------------------------------------------------------------------------- */

typedef struct texts { float *context, *pooled; int tokens, width, pool; } texts;

static texts encode(sumi_context *ctx, sumi_model *m, const char *prompt)
{
    sumi_request r = sumi_request_default();
    sm_job j;
    sm_text_cond c = {0};
    sm_err e = {0};
    texts x = {0};
    const sm_text_pick *pick;
    r.prompt = prompt;
    r.emphasis = "compel";
    r.steps = 4;
    r.sampler = "euler";
    if (!sm_job_init(&j, m, ctx, &r, &e)) {
        if (!sm_text_open(&c, &j, 0, 1, 0, &e) && !sm_text_encode(&c, &j, &e)) {
            CHECK(sm_text_at(&c, 0, 3, false, &pick) == 1 && pick[0].weight == 1);
            x = (texts){.tokens = sm_text_tokens(&c, pick[0].row), .width = c.width, .pool = c.pool};
            x.context = sm_alloc(NULL, SM_MEM_MISC, sizeof(float) * (size_t)(x.tokens * x.width));
            x.pooled = sm_alloc(NULL, SM_MEM_MISC, sizeof(float) * (size_t)x.pool);
            memcpy(x.context, sm_text_context(&c, pick[0].row), sizeof(float) * (size_t)(x.tokens * x.width));
            memcpy(x.pooled, sm_text_pooled(&c, pick[0].row), sizeof(float) * (size_t)x.pool);
        }
        sm_text_close(&c);
        sm_job_done(&j);
    }
    CHECKF(!e.code, "%s: %s", prompt, e.msg);
    return x;
}

static void done(texts *x)
{
    sm_free(x->context);
    sm_free(x->pooled);
}

/* Long enough for two chunks of the tiny encoders. */
#define LONG "a cat in the hat a cat in the hat a cat in the hat a cat in the hat a cat in the hat a cat in the hat a cat in " \
             "the " \
             "hat"

static void check_family(const char *family)
{
    sumi_context *ctx = NULL;
    sumi_model *m = NULL;
    sumi_model_options o = {.path = family_model(family, FAMILY_FOLDER), .tokenizer = family_tokenizer()};
    CHECKF(!sumi_context_new(&(sumi_context_options){.threads = 1}, &ctx) && !sumi_model_load_with(ctx, &o, &m), "%s",
           sumi_error(ctx));
    if (!m)
        return;
    texts a = encode(ctx, m, "a (cat)1.3 hat"), b = encode(ctx, m, "(the)0.6 " LONG), empty = encode(ctx, m, "\"\"");
    texts both = encode(ctx, m, "(\"a (cat)1.3 hat\", \"(the)0.6 " LONG "\").and(1, 0.5)");
    texts mix = encode(ctx, m, "(\"a (cat)1.3 hat\", \"(the)0.6 " LONG "\").blend(3, 1)");
    int na = a.tokens * a.width, nb = b.tokens * b.width, ne = empty.tokens * empty.width;
    CHECKF(b.tokens > a.tokens && both.tokens == a.tokens + b.tokens && mix.tokens == b.tokens && empty.tokens == a.tokens,
           "%s: %d %d %d %d", family, a.tokens, b.tokens, both.tokens, mix.tokens);
    CHECKF(!memcmp(both.context, a.context, sizeof(float) * (size_t)na), "%s: the first text is as it is alone", family);
    double off = 0, rms = test_rms(b.context, nb);
    for (int i = 0; i < nb; i++) {
        double z = empty.context[i % ne], first = i < na ? a.context[i] : z;
        off = fmax(off, fabs(both.context[na + i] - (z + 0.5 * (b.context[i] - z))));
        off = fmax(off, fabs(mix.context[i] - (0.75 * first + 0.25 * (double)b.context[i])));
    }
    CHECKF(off <= 1e-6 * rms, "%s: off by %g of %g", family, off, rms);
    for (int i = 0; i < a.pool; i++)
        CHECK(both.pooled[i] == a.pooled[i] && fabs(mix.pooled[i] - (0.75 * a.pooled[i] + 0.25 * b.pooled[i])) < 1e-5);
    CHECK((a.pool > 0) == !strcmp(family, "xl"));
    done(&a);
    done(&b);
    done(&empty);
    done(&both);
    done(&mix);
    sumi_model_free(m);
    sumi_context_free(ctx);
}

TEST(prompt_join_contexts)
{
    check_family("sd1");
    check_family("xl");
}

/* A picture of it, with a negative prompt of the kind, and what `sumi prompt` says. */
TEST(prompt_join_draws)
{
    sumi_context *ctx = NULL;
    sumi_model *m = NULL;
    sumi_images *one = NULL, *two = NULL;
    char *text = NULL;
    sumi_model_options o = {.path = family_model("sd1", FAMILY_FOLDER), .tokenizer = family_tokenizer()};
    CHECKF(!sumi_context_new(&(sumi_context_options){.threads = 1}, &ctx) && !sumi_model_load_with(ctx, &o, &m), "%s",
           sumi_error(ctx));
    sumi_request r = sumi_request_default();
    r.emphasis = "compel";
    r.prompt = "(\"a cat\", \"" LONG "\").and()";
    r.negative_prompt = "(\"hat\", \"cat\").blend(0.5, 0.5)";
    r.steps = 2;
    r.width = r.height = 32;
    r.seed = 1;
    r.cfg_scale = 3;
    CHECKF(m && !sumi_generate(ctx, m, &r, NULL, &one), "%s", sumi_error(ctx));
    r.negative_prompt = "hat";
    CHECKF(m && !sumi_generate(ctx, m, &r, NULL, &two), "%s", sumi_error(ctx));
    CHECK(one && two && memcmp(sumi_images_at(one, 0)->pixels, sumi_images_at(two, 0)->pixels, 32 * 32 * 3));
    r.prompt = "(\"a cat\", \"a dog\").blend(3, 1)";
    CHECKF(m && !sumi_prompt_explain(ctx, m, &r, 0, &text) && strstr(text, "prompt, text, blended, 1 of 2, weight 0.75\n"), "%s",
           text ? text : sumi_error(ctx));
    sumi_text_free(text);
    sumi_images_free(one);
    sumi_images_free(two);
    sumi_model_free(m);
    sumi_context_free(ctx);
}
