/* Prompt-to-Prompt through whole requests on the tiny models `deep` and `xl`: the edited picture's latents of every step
 * against attention maps formed by the paper's rules in diffusers' loops (tests/fixtures/p2p.safetensors,
 * tools/fixtures/make_p2p.py); what follows from the definition; the same bits over threads, pictures at once and low
 * memory; what it does not go with. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "families.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "pipeline/context.h"
#include "pipeline/params.h"
#include "request_cases.h"
#include "requests.h"
#include "test.h"
#include "tiny.h"

enum { STEPS = 5, WIDTH = 48, HEIGHT = 32, EACH = WIDTH * HEIGHT * 3 };

static sumi_request request(void)
{
    sumi_request r = sumi_request_default();
    r.negative_prompt = "a hat";
    r.emphasis = "diffusers";
    r.steps = STEPS;
    r.cfg_scale = 5;
    r.width = WIDTH;
    r.height = HEIGHT;
    r.seed = 1;
    r.sampler = "ddim";
    r.schedule = "simple";
    return r;
}

typedef struct fixture {
    sumi_context *ctx;
    sumi_model *m;
} fixture;

static bool fixture_open(fixture *x, const char *model, int low_memory, int threads)
{
    sumi_model_options o = {
        .path = family_model(model, FAMILY_FOLDER), .tokenizer = family_tokenizer(), .low_memory = low_memory};
    *x = (fixture){0};
    CHECK(sumi_context_new(&(sumi_context_options){.threads = threads}, &x->ctx) == SUMI_OK);
    CHECKF(!sumi_model_load_with(x->ctx, &o, &x->m), "%s", sumi_error(x->ctx));
    return x->m != NULL;
}

static void fixture_close(fixture *x)
{
    sumi_model_free(x->m);
    sumi_context_free(x->ctx);
}

/* ---- against the reference ----------------------------------------------------------------------------------------- */

static int whole(const cJSON *how, const char *key)
{
    const cJSON *x = cJSON_GetObjectItem(how, key);
    return x ? x->valueint : 0;
}

/* The case's request but for its texts' storage, which is `how`. Numbers go by values[]. */
static sumi_request case_request(const fixture *x, const cJSON *how)
{
    sumi_request r = request();
    const cJSON *p;
    cJSON_ArrayForEach(p, how)
    {
        char value[32];
        snprintf(value, sizeof value, "%.9g", p->valuedouble);
        if (!strcmp(p->string, "count") || !strcmp(p->string, "large") || !strcmp(p->string, "xl"))
            continue;
        request_set(x->ctx, &r, p->string, cJSON_IsString(p) ? p->valuestring : value);
    }
    r.count = whole(how, "count");
    if (whole(how, "large"))
        r.width = 128, r.height = 96;
    return r;
}

static void check_case(const reference *f, const cJSON *how, int low_memory)
{
    fixture x;
    char noise[256], saved[256];
    bool large = whole(how, "large");
    snprintf(noise, sizeof noise, "%s", test_tmp("p2p-noise.safetensors"));
    snprintf(saved, sizeof saved, "%s", test_tmp("p2p-latents.safetensors"));
    if (fixture_open(&x, whole(how, "xl") ? "xl" : "deep", low_memory, 0) &&
        request_noise(f, large ? "noise_large" : "noise", whole(how, "count"), noise)) {
        sumi_request r = case_request(&x, how);
        sumi_images *im = NULL;
        r.init_latents = noise;
        r.save_latents = saved;
        r.save_steps = 1;
        sumi_status st = sumi_generate(x.ctx, x.m, &r, NULL, &im);
        CHECKF(!st, "%s: %s", how->string, sumi_error(x.ctx));
        if (!st)
            request_steps_near(f, how->string, saved, STEPS, low_memory ? "low memory" : "usual memory");
        sumi_images_free(im);
    }
    fixture_close(&x);
}

/* All cases whose names begin so. */
static void check_cases(const char *prefix, int low_memory)
{
    reference f;
    int n = 0;
    bool ok = reference_open(&f, "p2p.safetensors");
    cJSON *cases = ok && f.config ? cJSON_Parse(f.config) : NULL;
    const cJSON *c;
    cJSON_ArrayForEach(c, cases)
        if (!strncmp(c->string, prefix, strlen(prefix))) {
            check_case(&f, c, low_memory);
            n++;
        }
    CHECKF(n > 0, "no case %s", prefix);
    cJSON_Delete(cases);
    reference_close(&f);
}

TEST(p2p_replace) { check_cases("replace", 0); }
TEST(p2p_refine) { check_cases("refine", 0); }
TEST(p2p_reweight) { check_cases("reweight", 0); }
TEST(p2p_words_own_steps) { check_cases("words", 0); }
TEST(p2p_self_attention) { check_cases("self", 0); }
TEST(p2p_blend) { check_cases("blend", 0); }
TEST(p2p_two_text_encoders) { check_cases("xl", 0); }
TEST(p2p_in_low_memory) { check_cases("blend_both", 1); }

/* ---- what follows from the definition ------------------------------------------------------------------------------ */

/* The pictures of a request, on a new context. */
static size_t drawn_by(const char *model, const sumi_request *r, int low_memory, int threads, uint8_t *rgb)
{
    fixture x;
    size_t bytes = 0;
    if (fixture_open(&x, model, low_memory, threads))
        bytes = request_pixels(x.ctx, x.m, r, rgb);
    fixture_close(&x);
    return bytes;
}

static size_t drawn(const sumi_request *r, int low_memory, int threads, uint8_t *rgb)
{
    return drawn_by("deep", r, low_memory, threads, rgb);
}

static double pixels_apart(const uint8_t *a, const uint8_t *b, size_t n)
{
    int most = 0;
    for (size_t i = 0; i < n; i++)
        most = SM_MAX(most, abs((int)a[i] - (int)b[i]));
    return most;
}

/* Edited from its own prompt a picture is what it is alone, noise that samplers draw on the way included. */
TEST(p2p_of_the_same_prompt)
{
    static const char *const samplers[] = {"euler_a", "dpmpp_2m_sde", "heun", "dpmpp_sde", "lcm", "unipc", "euler_cfg_pp"};
    static uint8_t alone[2 * EACH], edited[2 * EACH];
    for (size_t i = 0; i < SM_COUNT(samplers); i++) {
        sumi_request r = request();
        r.prompt = "a {cat|hat|blue} in the hat"; /* the same choice in both */
        r.sampler = samplers[i];
        r.cfg_scale = i == 6 ? 0.7f : 3;
        r.count = 2;
        CHECK(drawn(&r, 0, 0, alone) == sizeof alone);
        r.edit_from_prompt = r.prompt;
        CHECK(drawn(&r, 0, 0, edited) == sizeof edited);
        double d = pixels_apart(alone, edited, sizeof alone);
        CHECKF(d <= 2, "%s: %g levels apart", samplers[i], d);
    }
}

/* A picture with something in it, and a mask, white on the left. */
static void write_pictures(const char *picture, const char *mask)
{
    static uint8_t rgb[2][EACH];
    sumi_context *c;
    for (int i = 0; i < EACH; i++) {
        int x = i / 3 % WIDTH, y = i / 3 / WIDTH;
        rgb[0][i] = (uint8_t)(x * 5 + (i % 3) * (y * 3 + 20));
        rgb[1][i] = x < WIDTH / 2 ? 255 : 0;
    }
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &c));
    CHECK(!sumi_image_save(c, &(sumi_image){.width = WIDTH, .height = HEIGHT, .channels = 3, .pixels = rgb[0]}, picture));
    CHECK(!sumi_image_save(c, &(sumi_image){.width = WIDTH, .height = HEIGHT, .channels = 3, .pixels = rgb[1]}, mask));
    sumi_context_free(c);
}

/* The same where a picture is begun from, kept outside a mask, seen beside the latents, or inverted; and with a scale inside
 * the model. */
TEST(p2p_of_the_same_prompt_and_a_picture)
{
    static const struct { const char *model, *set[8]; } cases[] = {
        {"deep", {"strength", "0.6"}},
        {"deep", {"mask", "", "strength", "0.8"}},
        {"deep", {"mask", "", "strength", "0.8", "edit-rules", "diffusers"}},
        {"deep", {"mask", "", "p2p-blend", "cat", "p2p-blend-threshold", "0.85", "edit-rules", "diffusers"}},
        {"inpaint", {"mask", "", "strength", "1"}},
        {"deep", {"invert", "1", "invert-prompt", "a hat"}},
        {"lcm", {"init-image", "", "sampler", "lcm"}},
    };
    static uint8_t alone[2 * EACH], edited[2 * EACH];
    char picture[256], mask[256];
    snprintf(picture, sizeof picture, "%s", test_tmp("p2p-picture.png"));
    snprintf(mask, sizeof mask, "%s", test_tmp("p2p-mask.png"));
    write_pictures(picture, mask);
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        sumi_request r = request();
        r.prompt = "a cat in the hat";
        r.init_image = picture;
        r.count = 2;
        for (int k = 0; k < 8 && cases[i].set[k]; k += 2) {
            const sumi_param_info *p = sumi_param_find(cases[i].set[k]);
            sm_err e = {0};
            CHECKF(p && !sm_param_set(p, &r, strcmp(cases[i].set[k], "mask") ? cases[i].set[k + 1] : mask, &e), "%s", e.msg);
        }
        CHECK(drawn_by(cases[i].model, &r, 0, 0, alone) == sizeof alone);
        r.edit_from_prompt = r.prompt;
        CHECK(drawn_by(cases[i].model, &r, 0, 0, edited) == sizeof edited);
        double d = pixels_apart(alone, edited, sizeof alone);
        CHECKF(d <= 2, "case %zu: %g levels apart", i, d);
    }
}

/* Words re-weighted: the source, and what is inverted, is the prompt itself, as if it were said to be. */
TEST(p2p_inverts_by_its_source)
{
    static uint8_t itself[2 * EACH], said[2 * EACH];
    char picture[256], mask[256];
    snprintf(picture, sizeof picture, "%s", test_tmp("p2p-inverted.png"));
    snprintf(mask, sizeof mask, "%s", test_tmp("p2p-inverted-mask.png"));
    write_pictures(picture, mask);
    for (int choices = 0; choices < 2; choices++) {
        sumi_request r = request();
        r.prompt = choices ? "a {blue|big} cat in the hat" : "a cat in the hat";
        r.init_image = picture;
        r.invert = 1;
        r.count = 2;
        r.p2p_reweight = "cat:3";
        CHECK(drawn(&r, 0, 0, itself) == sizeof itself);
        r.edit_from_prompt = r.prompt;
        CHECK(drawn(&r, 0, 0, said) == sizeof said);
        CHECK(!memcmp(itself, said, sizeof said));
    }
}

/* With nothing taken over the edited picture is bit for bit what its prompt draws, and bounded to words that nobody attends
 * to, the source's. */
TEST(p2p_of_nothing_and_of_all)
{
    static uint8_t plain[EACH], source[EACH], got[EACH];
    sumi_request r = request(), s = request();
    r.prompt = "a hat in the cat";
    s.prompt = "a cat in a hat";
    CHECK(drawn(&r, 0, 0, plain) == EACH && drawn(&s, 0, 0, source) == EACH);
    r.edit_from_prompt = s.prompt;
    r.p2p_cross_steps = r.p2p_self_steps = "0";
    CHECK(drawn(&r, 0, 0, got) == EACH && !memcmp(plain, got, EACH));
    r.p2p_blend = "the";
    r.p2p_blend_threshold = 1; /* a share of the largest is never above it */
    CHECK(drawn(&r, 0, 0, got) == EACH && !memcmp(source, got, EACH));
}

/* The share of the steps after which it is bounded is one of noise levels where a sampler takes several at a time: from the
 * fourth of nine on is another picture than at the end alone. */
TEST(p2p_blend_begins_by_levels)
{
    static uint8_t early[EACH], late[EACH];
    sumi_request r = request();
    r.prompt = "a hat in the cat";
    r.edit_from_prompt = "a cat in a hat";
    r.sampler = "dpm_fast";
    r.steps = 9;
    r.p2p_blend = "cat";
    r.p2p_blend_threshold = 0.85f;
    r.p2p_blend_start = 0.34f;
    CHECK(drawn(&r, 0, 0, early) == EACH);
    r.p2p_blend_start = 0.9f;
    CHECK(drawn(&r, 0, 0, late) == EACH);
    CHECK(memcmp(early, late, EACH));
}

TEST(p2p_same_bits)
{
    static uint8_t all[3 * EACH], again[3 * EACH];
    for (int kind = 0; kind < 3; kind++) {
        sumi_request r = request();
        r.emphasis = "original";
        r.steps = 3;
        r.count = 3;
        r.prompt = kind == 1 ? "a {blue|the|hat in a} cat in a hat" : "a (blue:1.2) cat in the hat";
        r.edit_from_prompt = kind == 1 ? "a {cat|hat} in a hat" : "a cat in the hat";
        r.sampler = kind == 2 ? "euler_a" : "ddim";
        r.p2p_blend = "cat";
        r.p2p_blend_threshold = 0.85f;
        r.p2p_reweight = kind ? "cat:2" : "";
        CHECK(drawn(&r, 0, 1, all) == sizeof all);
        CHECKF(drawn(&r, 0, 3, again) == sizeof again && !memcmp(all, again, sizeof all), "kind %d: threads", kind);
        CHECKF(drawn(&r, 1, 2, again) == sizeof again && !memcmp(all, again, sizeof all), "kind %d: low memory", kind);
        r.count = 1;
        for (int k = 0; k < 3; k += 2) {
            r.seed = 1 + k;
            CHECKF(drawn(&r, 0, 2, again) == EACH && !memcmp(all + k * EACH, again, EACH), "kind %d: picture %d alone", kind, k);
        }
    }
}

/* More pictures than a round has, whose last is smaller. */
TEST(p2p_of_many_pictures)
{
    enum { MANY = 10 };
    static uint8_t all[MANY * EACH], one[EACH];
    sumi_request r = request();
    r.steps = 1;
    r.prompt = "a hat in the cat";
    r.edit_from_prompt = "a cat in a hat";
    r.p2p_self_steps = "1";
    r.count = MANY;
    CHECK(drawn(&r, 0, 0, all) == sizeof all);
    r.count = 1;
    r.seed += MANY - 1;
    CHECK(drawn(&r, 0, 0, one) == EACH && !memcmp(all + (MANY - 1) * EACH, one, EACH));
}

/* A row of its own for every parameter: the picture's text makes it again. */
TEST(p2p_infotext)
{
    fixture x;
    sumi_images *im = NULL, *again = NULL;
    sumi_infotext *t = NULL;
    sumi_request r = request();
    r.prompt = "a {blue|big} cat: \"the\", a hat";
    r.edit_from_prompt = "a {cat|hat}, a \"hat\": the ";
    r.p2p_mode = "refine";
    r.p2p_cross_steps = "0.6, hat:0.2-0.4";
    r.p2p_self_steps = "0.1-0.7";
    r.p2p_self_size = 7;
    r.p2p_reweight = "cat:2.5, hat : -1";
    r.p2p_blend = "cat, hat";
    r.p2p_blend_subtract = "the";
    r.p2p_blend_start = 0.1f;
    r.p2p_blend_threshold = 0.7f;
    if (fixture_open(&x, "deep", 0, 0)) {
        CHECKF(!sumi_generate(x.ctx, x.m, &r, NULL, &im), "%s", sumi_error(x.ctx));
        const sumi_image *p = sumi_images_at(im, 0), *q = NULL;
        if (p && !sumi_infotext_parse(x.ctx, p->infotext, &t)) {
            for (size_t i = 0; i < t->count; i++)
                CHECKF(t->field[i].understood, "%s", t->field[i].key);
            CHECKF(!sumi_generate(x.ctx, x.m, &t->request, NULL, &again), "%s in %s", sumi_error(x.ctx), p->infotext);
            q = sumi_images_at(again, 0);
        }
        CHECK(p && q && !memcmp(p->pixels, q->pixels, EACH));
        CHECK(t && !strcmp(t->request.p2p_reweight, r.p2p_reweight) && !strcmp(t->request.p2p_cross_steps, r.p2p_cross_steps));
    }
    sumi_infotext_free(t);
    sumi_images_free(im);
    sumi_images_free(again);
    fixture_close(&x);
}

/* Which token takes over whose attention, as people and programs see it. */
TEST(p2p_explained)
{
    fixture x;
    char *text = NULL;
    sumi_request r = request();
    r.prompt = "a (blue:1.2) cat in the hat";
    r.edit_from_prompt = "a cat in a hat";
    r.emphasis = "original";
    if (fixture_open(&x, "deep", 0, 1)) {
        CHECKF(!sumi_prompt_explain(x.ctx, x.m, &r, 0, &text), "%s", sumi_error(x.ctx));
        CHECKF(text && strstr(text, "edited from: a cat in a hat\n  refine;"), "%s", text);
        CHECKF(text && strstr(text, "      bl              its own\n") && strstr(text, "      cat             from cat\n"), "%s",
               text);
        sumi_text_free(text);
        r.prompt = "a hat in a cat";
        CHECK(!sumi_prompt_explain(x.ctx, x.m, &r, 1, &text));
        cJSON *j = cJSON_Parse(text), *e = cJSON_GetObjectItem(j, "edit_from"), *k = cJSON_GetObjectItem(e, "tokens");
        CHECKF(e && !strcmp(cJSON_GetObjectItem(e, "mode")->valuestring, "replace") && cJSON_GetArraySize(k) == 5, "%s", text);
        cJSON *second = cJSON_GetArrayItem(k, 1), *from = cJSON_GetArrayItem(cJSON_GetObjectItem(second, "from"), 0);
        CHECKF(!strcmp(cJSON_GetObjectItem(second, "token")->valuestring, "hat") && cJSON_GetArrayItem(from, 0)->valueint == 2,
               "%s", text);
        cJSON_Delete(j);
        sumi_text_free(text);
        r.prompt = "a cat AND a hat";
        CHECK(sumi_prompt_explain(x.ctx, x.m, &r, 0, &text) == SUMI_E_ARG && strstr(sumi_error(x.ctx), "needs one"));
    }
    fixture_close(&x);
}

/* ---- planning, memory ---------------------------------------------------------------------------------------------- */

/* The planned peak is what is taken, within a twentieth; the source's predictions count. */
TEST(p2p_in_the_plan)
{
    for (int low = 0; low < 2; low++) {
        sumi_plan_info p = {0}, plain = {0};
        double taken = 0;
        for (int draw = 0; draw < 2; draw++) {
            fixture x;
            sumi_images *im = NULL;
            sumi_request r = request();
            r.prompt = "a hat in the cat";
            r.width = r.height = 64;
            if (fixture_open(&x, "deep", low, 1)) {
                if (draw == 0)
                    CHECK(!sumi_plan_request(x.ctx, x.m, &r, &plain));
                fixture_close(&x);
            }
            r.edit_from_prompt = "a cat in a hat";
            r.p2p_blend = "cat";
            if (fixture_open(&x, "deep", low, 1))
                CHECKF(!(draw ? sumi_generate(x.ctx, x.m, &r, NULL, &im) : sumi_plan_request(x.ctx, x.m, &r, &p)),
                       "%s", sumi_error(x.ctx));
            taken = (double)sumi_memory_peak(x.ctx);
            sumi_images_free(im);
            fixture_close(&x);
        }
        double planned = (double)p.peak_bytes - (double)p.weight_bytes, times = p.step_flops / plain.step_flops;
        CHECKF(planned > 0.95 * taken && planned < 1.05 * taken, "low %d: planned %.0f, taken %.0f", low, planned, taken);
        CHECKF(times > 1.98 && times < 2.3, "%g times the flops of one picture", times);
    }
}

TEST(p2p_out_of_memory)
{
    fixture x;
    sumi_request r = request();
    r.prompt = "a blue cat in a hat";
    r.edit_from_prompt = "a cat in a hat";
    r.p2p_blend = "blue";
    r.p2p_reweight = "blue:2";
    r.width = r.height = 16;
    r.steps = 1;
    if (fixture_open(&x, "deep", 0, 1))
        requests_out_of_memory(x.ctx, x.m, &r);
    fixture_close(&x);
}

/* ---- refusals ------------------------------------------------------------------------------------------------------ */

TEST(p2p_refusals)
{
    static const struct { const char *set[4], *says; } cases[] = {
        {{"p2p-mode", "reweight", "p2p-blend", ""}, "replace"},
        {{"p2p-mode", "replace", "edit-from-prompt", "a cat"}, "as many words"},
        {{"edit-from-prompt", "a cat AND a hat", "emphasis", "original"}, "source prompt has parts"},
        {{"prompt", "a [cat:hat:0.5]", "emphasis", "original"}, "prompt changes between steps"},
        {{"prompt", "(\"a hat\", \"a cat\").blend(1, 1)", "emphasis", "compel"}, "the prompt is put together of texts"},
        {{"edit-from-prompt", "(\"a hat\", \"a cat\").and()", "emphasis", "compel"}, "source prompt is put together of texts"},
        {{"edit-from-prompt", "a cat a cat a cat a cat a cat a cat a cat a cat a cat", "emphasis", "original"},
         "fit one chunk of 14"},
        {{"p2p-reweight", "dog:2", "seed", "1"}, "'dog' is not in the prompt"},
        {{"p2p-reweight", "ca:2", "seed", "1"}, "'ca' is not in the prompt"},
        {{"p2p-reweight", "cat:much", "seed", "1"}, "'cat:much' is not WORD:FACTOR"},
        {{"p2p-reweight", "cat", "seed", "1"}, "'cat' is not WORD:FACTOR"},
        {{"p2p-reweight", "2", "seed", "1"}, "is not WORD:FACTOR"},
        {{"p2p-reweight", "cat:nan", "seed", "1"}, "is not WORD:FACTOR"},
        {{"p2p-reweight", "cat:1e30", "seed", "1"}, "is not WORD:FACTOR"},
        {{"p2p-reweight", ":2", "seed", "1"}, "is not WORD:FACTOR"},
        {{"p2p-reweight", "cat:1-2", "seed", "1"}, "is not WORD:FACTOR"},
        {{"p2p-cross-steps", "1.5", "seed", "1"}, "from 0 to 1"},
        {{"p2p-cross-steps", "0.5-0.2", "seed", "1"}, "from 0 to 1"},
        {{"p2p-cross-steps", "0.8, cat:2", "seed", "1"}, "from 0 to 1"},
        {{"p2p-cross-steps", "0.8, 0.4", "seed", "1"}, "one share"},
        {{"p2p-cross-steps", "", "seed", "1"}, "is missing"},
        {{"p2p-cross-steps", "0.8, dog:0.2", "seed", "1"}, "'dog' is not in the prompt"},
        {{"p2p-self-steps", "half", "seed", "1"}, "is not WORD:SHARE"},
        {{"p2p-self-steps", "0.4, cat:0.2", "seed", "1"}, "names no words"},
        {{"p2p-blend", "cat, dog", "seed", "1"}, "'dog' is not in either prompt"},
        {{"p2p-blend", " , ", "seed", "1"}, "--p2p-blend: names no words"},
        {{"p2p-reweight", ",", "edit-from-prompt", ""}, "--p2p-reweight: names no words"},
        {{"p2p-reweight", "cat:2", "p2p-blend-subtract", "\xff"}, "UTF-8"},
        {{"sampler", "dpm_adaptive", "seed", "1"}, "chooses its own"},
        {{"pag", "3", "seed", "1"}, "--pag"},
        {{"sag", "1", "seed", "1"}, "--sag"},
        {{"hires-upscale", "2", "seed", "1"}, "hires fix"},
    };
    fixture x;
    if (fixture_open(&x, "deep", 0, 0))
        for (size_t i = 0; i < SM_COUNT(cases); i++) {
            sumi_request r = request();
            sumi_images *im = NULL;
            r.prompt = "a hat in the cat";
            r.edit_from_prompt = "a cat in a hat";
            for (int k = 0; k < 4; k += 2)
                request_set(x.ctx, &r, cases[i].set[k], cases[i].set[k + 1]);
            CHECKF(sumi_generate(x.ctx, x.m, &r, NULL, &im) == SUMI_E_ARG && strstr(sumi_error(x.ctx), cases[i].says),
                   "case %zu: %s", i, sumi_error(x.ctx));
            CHECK(!strchr(sumi_error(x.ctx), '\n'));
        }
    fixture_close(&x);
}

TEST(p2p_refusals_of_models)
{
    static const struct { const char *model, *says; sumi_status code; } cases[] = {
        {"mmdit", "is a transformer", SUMI_E_SUPPORT},
        {"ip2p", "is an edit model", SUMI_E_ARG},
    };
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        bool mmdit = !strcmp(cases[i].model, "mmdit");
        sumi_model_options o = {.path = mmdit ? tiny_model(TINY_MMDIT) : family_model(cases[i].model, FAMILY_FOLDER),
                                .tokenizer = mmdit ? NULL : family_tokenizer()};
        sumi_request r = request();
        sumi_context *ctx;
        sumi_model *m = NULL;
        sumi_images *im = NULL;
        r.sampler = r.schedule = "";
        r.prompt = "a cat";
        r.edit_from_prompt = "a hat";
        CHECK(sumi_context_new(NULL, &ctx) == SUMI_OK);
        CHECKF(!sumi_model_load_with(ctx, &o, &m), "%s", sumi_error(ctx));
        CHECKF(m && sumi_generate(ctx, m, &r, NULL, &im) == cases[i].code && strstr(sumi_error(ctx), cases[i].says),
               "%s: %s", cases[i].model, sumi_error(ctx));
        sumi_model_free(m);
        sumi_context_free(ctx);
    }
}
