/* Midjourney's suffixes: where they begin and end, and what they do to a request. Expected values follow from the meanings that
 * include/sumi.h gives; 1344x768 is XL's own size for 16:9 (SDXL report, appendix I). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "families.h"
#include "sumi.h"
#include "test.h"
#include "text/mj.h"

/* The parts of a prompt as "text|name=value|...". */
static const char *split(const char *prompt)
{
    static char line[700];
    sm_arena room;
    sm_suffix *s;
    sm_err e = {0};
    char *text;
    int n;
    sm_arena_init(&room, NULL, SM_MEM_MISC);
    if (sm_suffixes_split(prompt, &room, &text, &s, &n, &e))
        snprintf(line, sizeof line, "%s", e.msg);
    else {
        int at = snprintf(line, sizeof line, "%s", text);
        for (int i = 0; i < n; i++)
            at += snprintf(line + at, sizeof line - (size_t)at, "|%s=%s", s[i].name, s[i].value);
    }
    sm_arena_free(&room);
    return line;
}

TEST(mj_split)
{
    static const char *const cases[][2] = {
        {"a red apple", "a red apple"}, {"a --ar 16:9", "a|ar=16:9"}, {"a  --no b, c d --seed 3 ", "a|no=b, c d|seed=3"},
        {"--tile", "|tile="},
        {"a --tile --ar 1:2", "a|tile=|ar=1:2"}, {"a \xe2\x80\x94" "ar 1:2", "a|ar=1:2"}, {"a--b", "a--b"},
        {"a -- b", "a -- b"}, {"a --", "a --"},
        {"a - b -c", "a - b -c"}, {"a --9", "a --9"}, {"word++ dog-- cat", "word++ dog-- cat"}, {"a --ar=3:2", "a|ar=3:2"},
        {"", ""},
        {"a \xe2\x80\x94 b", "a \xe2\x80\x94 b"}, {"a\n--seed\t4", "a|seed=4"},
    };
    for (size_t i = 0; i < SM_COUNT(cases); i++)
        CHECKF(!strcmp(split(cases[i][0]), cases[i][1]), "'%s': %s", cases[i][0], split(cases[i][0]));
}

typedef struct at_hand { sumi_context *ctx; sumi_model *m; } at_hand;

static at_hand open_xl(void)
{
    at_hand x = {0};
    sumi_model_options o = {.path = family_model("xl", FAMILY_FOLDER), .tokenizer = family_tokenizer()};
    bool ok = !sumi_context_new(NULL, &x.ctx) && !sumi_model_load_with(x.ctx, &o, &x.m);
    CHECKF(ok, "%s", sumi_error(x.ctx));
    return x;
}

static void close_xl(at_hand x)
{
    sumi_model_free(x.m);
    sumi_context_free(x.ctx);
}

TEST(mj_meanings)
{
    at_hand x = open_xl();
    sumi_request r = sumi_request_default();
    char *texts = NULL;
    r.prompt =
        "a castle --ar 16:9 --no people, cars --seed 7 --chaos 40 --stylize 700 --quality 0.5 --tile --repeat 3 --iw 2 --v 6.1 "
        "--style raw --image a.png";
    r.negative_prompt = "fog";
    r.width = r.height = 1024;
    r.steps = 31;
    r.cfg_scale = 8;
    sumi_status st = x.m ? sumi_request_midjourney(x.ctx, x.m, &r, &texts) : SUMI_E_ARG;
    CHECKF(!st && texts, "%s", sumi_error(x.ctx));
    CHECK(!strcmp(r.prompt, "a castle") && !strcmp(r.negative_prompt, "fog, people, cars") && !strcmp(r.tile, "both") &&
          !strcmp(r.init_image, "a.png"));
    CHECKF(r.width == 1344 && r.height == 768, "%dx%d", r.width, r.height);
    CHECK(r.seed == 7 && r.count == 3 && r.steps == 16);
    CHECKF(fabsf(r.cfg_scale - 4) < 1e-5f && fabsf(r.guidance_start - 0.2f) < 1e-6f && fabsf(r.strength - 0.5f) < 1e-6f,
           "%g %g %g", (double)r.cfg_scale, (double)r.guidance_start, (double)r.strength);
    sumi_text_free(texts);
    /* What is none of Midjourney's may be a flag of the request's. */
    r = sumi_request_default();
    r.prompt = "a castle --cfg 2.5 --ar 1:2 --sampler heun";
    r.width = r.height = 64;
    st = x.m ? sumi_request_midjourney(x.ctx, x.m, &r, &texts) : SUMI_E_ARG;
    CHECKF(!st && r.cfg_scale == 2.5f && !strcmp(r.sampler, "heun"), "%s", sumi_error(x.ctx));
    CHECKF(r.width == 44 && r.height == 92, "%dx%d", r.width, r.height); /* 45.3 x 90.5 in steps of the autoencoder's 4 pixels */
    sumi_text_free(texts);
    r.prompt = "a castle";
    CHECK(x.m && !sumi_request_midjourney(x.ctx, x.m, &r, &texts) && !texts);
    close_xl(x);
}

TEST(mj_refused)
{
    static const char *const cases[][2] = {
        {"a --ar 16", "16:9"}, {"a --ar 0:1", "16:9"}, {"a --ar 100:1", "8:1"}, {"a --ar", "needs a value"},
        {"a --sref 3", "--sref in the prompt is unknown"},
        {"a --chaos 101", "out of range"}, {"a --seed x", "not a whole number"}, {"a --stylize much", "not a number"},
        {"a --prompt b", "unknown"},
        {"a --steps", "needs a value"}, {"a --quality 0", "out of range"},
    };
    at_hand x = open_xl();
    for (size_t i = 0; i < SM_COUNT(cases) && x.m; i++) {
        sumi_request r = sumi_request_default();
        char *texts = NULL;
        r.prompt = cases[i][0];
        sumi_status st = sumi_request_midjourney(x.ctx, x.m, &r, &texts);
        CHECKF(st == SUMI_E_ARG && !texts && r.prompt == cases[i][0] && strstr(sumi_error(x.ctx), cases[i][1]),
               "'%s': %d %s", cases[i][0], st, sumi_error(x.ctx));
    }
    close_xl(x);
}

/* Suffixes in a line of requests stay in the prompt wherever flags stand. */
TEST(mj_lines)
{
    static const struct { const char *line, *prompt, *negative, *tile; int64_t seed; } cases[] = {
        {"a cat --no dogs --seed 1", "a cat --no dogs", "", "", 1},
        {"a cat --seed 2 --no dogs, mice --steps 3 --ar 2:1", "a cat --no dogs, mice --ar 2:1", "", "", 2},
        {"a cat --negative fog, rain --no dogs --seed 3", "a cat --no dogs", "fog, rain", "", 3},
        {"--prompt \"a cat\" --seed 4 --no dogs", "a cat --no dogs", "", "", 4},
        {"a cat --tile --ar 2:1 --seed 5", "a cat --ar 2:1", "", "both", 5},
        {"a cat --seed 6 --tile", "a cat", "", "both", 6},
        {"a cat --negative \"a --seed 1\" --seed 7", "a cat", "a --seed 1", "", 7},
    };
    at_hand x = open_xl();
    for (size_t i = 0; i < SM_COUNT(cases) && x.ctx; i++) {
        sumi_request r = sumi_request_default();
        char *texts = NULL;
        sumi_status st = sumi_request_read(x.ctx, cases[i].line, &r, &texts);
        CHECKF(!st && !strcmp(r.prompt, cases[i].prompt) && !strcmp(r.negative_prompt, cases[i].negative) &&
               !strcmp(r.tile, cases[i].tile) &&
                   r.seed == cases[i].seed, "'%s': '%s', '%s', %s", cases[i].line, r.prompt,
                   r.negative_prompt, sumi_error(x.ctx));
        sumi_text_free(texts);
    }
    sumi_request r = sumi_request_default();
    char *texts = NULL;
    CHECKF(sumi_request_read(x.ctx, "a cat --negative 5\" disks --seed 3", &r, &texts) == SUMI_E_ARG && !texts &&
           strstr(sumi_error(x.ctx), "not closed"), "%s", sumi_error(x.ctx));
    CHECK(sumi_request_read(x.ctx, "a cat --steps --seed 3", &r, &texts) == SUMI_E_ARG &&
          strstr(sumi_error(x.ctx), "--steps needs a value"));
    close_xl(x);
}

TEST(prompt_explained)
{
    at_hand x = open_xl();
    sumi_request r = sumi_request_default();
    char *out = NULL;
    r.prompt = "a (cat:1.3) [in:the:0.5] AND b:0.5 <lora:x:1>";
    r.steps = 4;
    r.sampler = "heun";
    bool ok = x.m && !sumi_prompt_explain(x.ctx, x.m, &r, 0, &out);
    CHECKF(ok && strstr(out, "prompt, side 1 of 2, weight 1\n  calls 1 to 5 of 8\n") && strstr(out, "calls 6 to 8 of 8") &&
           strstr(out, "1.3     cat\n") &&
           strstr(out, "side 2 of 2, weight 0.5") && strstr(out, "of 14 tokens") && strstr(out, "network lora: x:1"), "%s",
           ok ? out : sumi_error(x.ctx));
    sumi_text_free(out);
    ok = x.m && !sumi_prompt_explain(x.ctx, x.m, &r, 1, &out);
    CHECKF(ok && strstr(out, "{\"calls\":8,\"chunk\":14,") &&
           strstr(out, "\"networks\":[{\"kind\":\"lora\",\"name\":\"x:1\"}]") && strstr(out, "\"from\":6,\"to\":8"),
           "%s", ok ? out : sumi_error(x.ctx));
    sumi_text_free(out);
    r.sampler = "dpm_adaptive"; /* three evaluations a step, but no second_order in A1111's table */
    ok = x.m && !sumi_prompt_explain(x.ctx, x.m, &r, 1, &out);
    CHECKF(ok && strstr(out, "{\"calls\":4,"), "%s", ok ? out : sumi_error(x.ctx));
    sumi_text_free(out);
    r.emphasis = "loud";
    CHECK(x.m && sumi_prompt_explain(x.ctx, x.m, &r, 0, &out) == SUMI_E_ARG && !out);
    close_xl(x);
}
