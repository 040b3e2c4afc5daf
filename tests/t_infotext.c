/* Infotexts: A1111's rules, by what Python's regular expressions read (tools/fixtures/make_infotexts.py); what sumi makes of
 * them; and that what sumi writes comes back, pictures and requests alike. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "io/image.h"
#include "io/json.h"
#include "pipeline/context.h"
#include "pipeline/infotext.h"
#include "pipeline/params.h"
#include "test.h"
#include "tiny.h"

static sumi_infotext *parse(sumi_context *c, const char *text)
{
    sumi_infotext *t = NULL;
    CHECKF(!sumi_infotext_parse(c, text, &t), "%s", sumi_error(c));
    return t;
}

static const char *value_of(const sumi_infotext *t, const char *key)
{
    for (size_t i = 0; t && i < t->count; i++)
        if (!strcmp(t->field[i].key, key))
            return t->field[i].value;
    return NULL;
}

static const char *text_of(const cJSON *o, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsString(v) ? v->valuestring : "?";
}

static void check_case(sumi_context *c, const cJSON *want)
{
    sumi_infotext *t = parse(c, text_of(want, "text"));
    const cJSON *pairs = cJSON_GetObjectItemCaseSensitive(want, "pairs"), *p;
    size_t i = 0;
    if (!t)
        return;
    CHECKF(!strcmp(t->request.prompt, text_of(want, "prompt")) &&
           !strcmp(t->request.negative_prompt, text_of(want, "negative_prompt")),
           "prompts '%s' '%s' of: %s", t->request.prompt, t->request.negative_prompt, text_of(want, "text"));
    CHECKF(t->count == (size_t)cJSON_GetArraySize(pairs), "%zu pairs, not %d, of: %s", t->count, cJSON_GetArraySize(pairs),
           text_of(want, "text"));
    cJSON_ArrayForEach(p, pairs)
    {
        if (i < t->count)
            CHECKF(!strcmp(t->field[i].key, p->child->valuestring) && !strcmp(t->field[i].value, p->child->next->valuestring),
                   "'%s' '%s' of: %s", t->field[i].key, t->field[i].value, text_of(want, "text"));
        i++;
    }
    sumi_infotext_free(t);
}

TEST(infotext_reads_as_a1111)
{
    sumi_context *c = NULL;
    sm_err e = {0};
    sm_buf b = {0};
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &c) &&
          !sm_file_read(test_fixture("infotexts.json"), 1 << 20, &b, &e));
    cJSON *root = sm_json_parse(NULL, b.data, b.len, 8, 1 << 16, "infotexts.json", &e);
    const cJSON *cases = cJSON_GetObjectItemCaseSensitive(root, "cases"), *one;
    CHECKF(cJSON_GetArraySize(cases) >= 400, "%s", e.msg);
    cJSON_ArrayForEach(one, cases) check_case(c, one);
    cJSON_Delete(root);
    sm_buf_free(&b);
    sumi_context_free(c);
}

/* A1111's own pictures of several years. */
TEST(infotext_samplers_and_schedules)
{
    static const struct { const char *line, *sampler, *schedule, *rng; } cases[] = {
        {"Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1, Size: 512x768", "dpmpp_2m", "karras", "philox"},
        {"Steps: 20, Sampler: DPM++ 2M, CFG scale: 7, Seed: 1, Size: 512x768", "dpmpp_2m", "normal", "philox"},
        {"Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x768, RNG: CPU",
         "dpmpp_2m", "karras", "torch"},
        {"Steps: 20, Sampler: DPM++ 2M, Schedule type: Automatic, CFG scale: 7, Seed: 1, Size: 512x768, RNG: NV",
         "dpmpp_2m", "karras", "philox"},
        {"Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, Seed: 1, Size: 512x768",
         "euler_a", "normal", "philox"},
        {"Steps: 20, Sampler: Euler a, Schedule type: Uniform, CFG scale: 7, Seed: 1, Size: 512x768",
         "euler_a", "normal", "philox"},
        {"Steps: 20, Sampler: DDIM, CFG scale: 7, Seed: 1, Size: 512x768", "ddim", "ddim_uniform", "philox"},
        {"Steps: 20, Sampler: Euler, Schedule type: SGM Uniform, CFG scale: 7, Seed: 1, Size: 512x768", "euler",
         "sgm_uniform", "philox"},
        {"Steps: 20, Sampler: Nobody's, CFG scale: 7, Seed: 1, Size: 512x768", "", "", "philox"},
        {"Steps: 20, Sampler: Euler, Schedule type: Normal, CFG scale: 7, Seed: 1, Size: 512x768, Version: sumi 0.1.0",
         "euler", "normal", "sumi"},
    };
    sumi_context *c = NULL;
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &c));
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        sumi_infotext *t = parse(c, cases[i].line);
        const sumi_request *r = &t->request;
        CHECKF(!strcmp(r->sampler, cases[i].sampler) && !strcmp(r->schedule, cases[i].schedule) && !strcmp(r->rng, cases[i].rng),
               "%s: %s %s %s", cases[i].line, r->sampler, r->schedule, r->rng);
        CHECK(r->steps == 20 && r->cfg_scale == 7 && r->seed == 1 && r->width == 512 && r->height == 768 && !r->choices);
        CHECK(t->field[1].understood == (cases[i].sampler[0] != 0));
        sumi_infotext_free(t);
    }
    sumi_context_free(c);
}

TEST(infotext_old_and_strange)
{
    sumi_context *c = NULL;
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &c));
    /* The first hires fix: 768x1024 by a pass whose area is that of 512x512, sides up to multiples of 64: sqrt(1/3) of each. */
    sumi_infotext *t =
        parse(c, "cat\nSteps: 9, Seed: 3, Size: 768x1024, First pass size: 0x0, Model hash: 7460a6fa, Hypernet: x");
    CHECK(t->request.width == 448 && t->request.height == 640 && t->request.hires_width == 768 &&
          t->request.hires_height == 1024);
    CHECK(!strcmp(t->model_hash, "7460a6fa") && t->field[3].understood && !t->field[5].understood &&
          !strcmp(value_of(t, "Hypernet"), "x"));
    sumi_infotext_free(t);
    t = parse(c, "cat\nSteps: 9, Seed: 3, Size: 768x1024, First pass size: 384x512");
    CHECK(t->request.width == 384 && t->request.height == 512 && t->request.hires_width == 768);
    sumi_infotext_free(t);
    t = parse(c,
              "cat\nSteps: 100000, Seed: x, Size: 99999999x1, CFG scale: 1e99, Clip skip: 2, Denoising strength: 0.5, Mask mode: "
              "Inpaint not masked");
    sumi_request d = sumi_request_default();
    CHECK(t->request.steps == d.steps && t->request.seed == d.seed && t->request.width == d.width &&
          t->request.cfg_scale == d.cfg_scale);
    CHECK(t->request.clip_skip == 2 && t->request.strength == 0.5f && t->request.mask_invert == 1);
    CHECK(!t->field[0].understood && !t->field[1].understood && !t->field[2].understood && !t->field[3].understood &&
          t->field[4].understood);
    sumi_infotext_free(t);
    t = parse(c, "cat\nSteps: 9, Seed: 3, Init image: 64x64"); /* a file's name may look like a size */
    CHECK(!strcmp(t->request.init_image, "64x64") && t->field[2].understood);
    sumi_infotext_free(t);
    t = parse(c, "only words, no parameters");
    CHECK(t->count == 0 && !strcmp(t->request.prompt, "only words, no parameters"));
    sumi_infotext_free(t);
    CHECK(sumi_infotext_parse(c, "a\xff", &t) == SUMI_E_ARG && !t && strstr(sumi_error(c), "UTF-8"));
    sumi_context_free(c);
}

/* json.dumps(text, ensure_ascii=False) of Python, where A1111 quotes. */
TEST(infotext_quotes_as_a1111)
{
    static const char *const cases[][2] = {{"plain text", "plain text"}, {"a, b", "\"a, b\""},
                                           {"a:b", "\"a:b\""}, {"a\nb", "\"a\\nb\""},
                                           {"say \"x\", \\", "\"say \\\"x\\\", \\\\\""},
                                           {"\xc3\xa9:\t\x01", "\"\xc3\xa9:\\t\\u0001\""}};
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        sm_buf b = {0};
        sm_infotext_quote(cases[i][0], &b);
        CHECKF(!strcmp(b.data, cases[i][1]), "%s", b.data);
        sm_buf_free(&b);
    }
}

/* ---- there and back -------------------------------------------------------------------------------------------------- */

static bool same_parameters(const sumi_request *a, const sumi_request *b)
{
    size_t n;
    const sumi_param_info *t = sumi_params(&n);
    bool same = true;
    for (size_t i = 0; i < n; i++) {
        bool eq = t[i].type == SUMI_PARAM_TEXT ? !strcmp(sm_param_text(&t[i], a), sm_param_text(&t[i], b))
                                               : sm_param_number(&t[i], a) == sm_param_number(&t[i], b);
        CHECKF(eq || !strcmp(t[i].name, "choices"), "%s does not come back", t[i].name);
        same = same && eq;
    }
    return same;
}

static sumi_images *draw(sumi_context *c, sumi_model *m, const sumi_request *r)
{
    sumi_images *im = NULL;
    CHECKF(!sumi_generate(c, m, r, NULL, &im), "%s", sumi_error(c));
    return im;
}

/* Draws, reads the picture's infotext from a file, and draws by that. */
static void check_round_trip(sumi_context *c, sumi_model *m, const sumi_request *r, const char *file)
{
    sumi_images *im = draw(c, m, r), *loaded = NULL;
    const sumi_image *a = sumi_images_at(im, (size_t)r->count - 1);
    const char *path = test_tmp(file);
    CHECKF(a && !sumi_image_save(c, a, path) && !sumi_image_load(c, path, &loaded), "%s", sumi_error(c));
    const sumi_image *f = sumi_images_at(loaded, 0);
    if (!a || !f)
        return;
    CHECK(!strcmp(a->infotext, f->infotext));
    sumi_infotext *t = parse(c, f->infotext);
    CHECKF(!strcmp(t->model_hash, sumi_model_hash(m)) && strlen(t->model_hash) == 10, "%s", t->model_hash);
    CHECK(t->request.seed == r->seed + r->count - 1);
    CHECKF(t->request.cfg_scale == r->cfg_scale, "%.9g for %.9g", (double)t->request.cfg_scale, (double)r->cfg_scale);
    for (size_t i = 0; i < t->count; i++)
        CHECKF(t->field[i].understood, "%s is not understood", t->field[i].key);
    sumi_images *again = draw(c, m, &t->request);
    const sumi_image *b = sumi_images_at(again, 0);
    CHECKF(b && a->width == b->width && a->height == b->height &&
           !memcmp(a->pixels, b->pixels, 3 * (size_t)a->width * (size_t)a->height), "%s", a->infotext);
    if (b && !strstr(a->infotext, "Template:"))
        CHECKF(!strcmp(a->infotext, b->infotext), "%s\n%s", a->infotext, b->infotext);
    sumi_images_free(again);
    sumi_images_free(loaded);
    sumi_images_free(im);
    sumi_infotext_free(t);
}

TEST(infotext_draws_the_same_again)
{
    static const struct { const char *prompt, *negative; float cfg; } cases[] = {
        {"red disc, noto style", "", 3}, {" blanks at the ends \n\n ", "Negative prompt: of one\n  and more ", 2.3456789f},
        {"Negative prompt: is what it begins with", "\xe8\x8b\xb9\xe6\x9e\x9c", 1e-5f},
        {"a\nSteps: 9, Seed: 3, Size: 8x8", "x", 7},
        {"a {red|blue|green} {disc|square}", "{one|two|three}", 4}, {"braces \\{are\\} text", "", 1.5f}};
    static const char *const files[] = {"r.png", "r.jpg", "r.webp"};
    sumi_context *c = NULL;
    sumi_model *m = NULL;
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 2}, &c) && !sumi_model_load(c, tiny_model(TINY_UNET), &m));
    for (size_t i = 0; m && i < SM_COUNT(cases); i++) {
        sumi_request r = sumi_request_default();
        r.prompt = cases[i].prompt;
        r.negative_prompt = cases[i].negative;
        r.cfg_scale = cases[i].cfg;
        r.seed = 90 + (int64_t)i;
        r.count = 1 + (int)i % 2;
        r.steps = 2;
        r.rng = i % 2 ? "torch" : "sumi";
        check_round_trip(c, m, &r, files[i % 3]);
    }
    sumi_model_free(m);
    sumi_context_free(c);
}

/* Every row that the infotext has, at a value that is not its default, comes back as it was. */
TEST(infotext_holds_every_row)
{
    size_t n;
    const sumi_param_info *t = sumi_params(&n);
    sm_err e = {0};
    sumi_context *c = NULL;
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &c));
    sm_buf b = {0};
    sumi_request r = sumi_request_default();
    char text[200][32];
    size_t texts = 0;
    for (size_t i = 0; i < n; i++) {
        sm_choice w;
        if (!t[i].a1111[0] || i < 2)
            continue;
        if (t[i].type != SUMI_PARAM_TEXT) {
            snprintf(text[texts % 200], 32, "%.17g", sm_param_is_default(&t[i], &r) &&
                     sm_param_number(&t[i], &r) != t[i].high ? t[i].high : t[i].low);
        } else if (sm_choice_at(&t[i], 1, &w) || sm_choice_at(&t[i], 0, &w)) {
            snprintf(text[texts % 200], 32, "%s", w.name);
        } else {
            snprintf(text[texts % 200], 32, "a, \"b\": %zu", i);
        }
        CHECKF(texts < 200 && !sm_param_set(&t[i], &r, text[texts++ % 200], &e), "%s", e.msg);
    }
    r.choices = 0;
    r.seed = 12345;
    r.prompt = "p";
    sm_infotext_put_request(&r, &b);
    sm_buf line = {0};
    sm_buf_fmt(&line, "p\n%s, Version: sumi 0", b.data + 2);
    sumi_infotext *back = parse(c, line.data);
    CHECKF(back && same_parameters(&r, &back->request), "%s", line.data);
    sumi_infotext_free(back);
    sm_buf_free(&b);
    sm_buf_free(&line);
    sumi_context_free(c);
}

/* ---- pictures of other programs --------------------------------------------------------------------------------------- */

static char *info(sumi_context *c, const char *path, int json, int *found)
{
    char *text = NULL;
    CHECKF(!sumi_picture_info(c, path, json, found, &text), "%s", sumi_error(c));
    return text;
}

static const char *picture(const char *name, int ntext, const sm_image_text *text)
{
    uint8_t px[12] = {0};
    sm_image im = {.width = 2, .height = 2, .channels = 3, .pixels = px};
    sm_image_format f;
    sm_err e = {0};
    sm_buf b = {0};
    const char *path = test_tmp(name);
    CHECKF(!sm_image_format_of(path, &f, &e) && !sm_image_encode(&im, f, 0, ntext, text, &b, &e) &&
           !sm_file_write(path, b.data, b.len, &e), "%s", e.msg);
    sm_buf_free(&b);
    return path;
}

#define GRAPH "{\"3\": {\"class_type\": \"KSampler\", \"inputs\": {\"seed\": 8, \"cfg\": 7.5, \"sampler_name\": \"euler\", " \
              "\"positive\": [\"6\", 0]}}," \
              " \"6\": {\"class_type\": \"CLIPTextEncode\", \"inputs\": {\"text\": \"a cat\"}}}"

TEST(infotext_of_pictures)
{
    sumi_context *c = NULL;
    int found;
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &c));
    char *text = info(c, picture("bare.png", 0, NULL), 0, &found);
    CHECK(!found && text && !text[0]);
    sumi_text_free(text);
    static const char *const names[] = {"p.png", "p.jpg", "p.webp"};
    for (int i = 0; i < 3; i++) {
        text = info(c, picture(names[i], 1, &(sm_image_text){"parameters", "cat\nSteps: 20, Sampler: Euler a, Seed: 5, Odd: 1"}),
                    0, &found);
        CHECKF(found && !strcmp(text, "cat\nSteps: 20, Sampler: Euler a, Seed: 5, Odd: 1\n(not understood by sumi: Odd)\n"), "%s",
               text);
        sumi_text_free(text);
    }
    text = info(c, picture("c.png", 2, (sm_image_text[]){{"prompt", GRAPH}, {"workflow", "{\"nodes\": []}"}}), 0, &found);
    CHECKF(found && strstr(text, "ComfyUI") &&
           strstr(text, "3 KSampler: seed 8 cfg 7.5 sampler_name \"euler\" positive <- 6\n") &&
           strstr(text, "6 CLIPTextEncode: text \"a cat\"\n"), "%s", text);
    sumi_text_free(text);
    text = info(c, picture("c.webp", 1, &(sm_image_text){"Make", "prompt:" GRAPH}), 1, &found);
    CHECKF(found && strstr(text, "\"program\": \"comfyui\""), "%s", text);
    sumi_text_free(text);
    text = info(c,
                picture("j.png", 1,
                        &(sm_image_text){"parameters", "cat\nSteps: 20, Sampler: Euler a, Seed: 5, Odd: 1, Size: 8x16"}), 1,
                        &found);
    sm_err e = {0};
    cJSON *o = sm_json_parse(NULL, text, strlen(text), 8, 1000, "info", &e);
    const cJSON *r = cJSON_GetObjectItemCaseSensitive(o, "request");
    CHECKF(o && !strcmp(text_of(o, "program"), "a1111") && !strcmp(text_of(r, "sampler"), "euler_a") &&
           !strcmp(text_of(r, "rng"), "philox"), "%s", text);
    CHECK(cJSON_GetObjectItemCaseSensitive(r, "height") && cJSON_GetObjectItemCaseSensitive(r, "height")->valueint == 16);
    cJSON_Delete(o);
    sumi_text_free(text);
    sumi_context_free(c);
}

/* Each allocation failing in turn is an error that says so, until none fails. */
static sumi_status with_failing(sumi_context *c, int what, int64_t at, const char *path)
{
    sumi_infotext *t = NULL;
    sumi_request r = sumi_request_default();
    char *text = NULL;
    int found;
    c->mem.fail_at = at;
    sumi_status st =
        what == 0 ? sumi_infotext_parse(c, "a\nNegative prompt: b\nSteps: 2, Seed: 3, Model: \"x, y\", Model file: ~/m", &t)
                     : what == 1 ? sumi_schema(c, 0, &text)
                                 : what == 2 ? sumi_request_read(c, "{\"prompt\": \"x\", \"steps\": 3}", &r, &text)
                     : sumi_picture_info(c, path, 1, &found, &text);
    CHECK(st == SUMI_OK || (!t && !text));
    c->mem.fail_at = 0;
    sumi_infotext_free(t);
    sumi_text_free(text);
    return st;
}

TEST(infotext_out_of_memory)
{
    sumi_context *c = NULL;
    const char *path = picture("oom.png", 1,
                               &(sm_image_text){"parameters", "cat\nSteps: 20, Sampler: Euler a, Seed: 5, Odd: \"1, 2\""});
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &c));
    size_t before = c->mem.total;
    for (int what = 0; what < 4; what++) {
        sumi_status st = SUMI_E_MEMORY;
        int64_t at = 1;
        for (; st && at < 1000; at++) {
            st = with_failing(c, what, at, path);
            CHECKF(st == SUMI_OK || st == SUMI_E_MEMORY, "%d, allocation %lld: %d %s", what, (long long)at, (int)st,
                   sumi_error(c));
        }
        CHECKF(at > 2 && at < 1000, "%d: %lld", what, (long long)at);
    }
    CHECK(c->mem.total == before);
    sumi_context_free(c);
}
