/* What a request is told, and what comes back of it from a picture's file: parameters without effect, pictures that begin from
 * given latents, files named below the home folder, a refiner by A1111's name, eta 0, lists of noise levels in prompts' counts,
 * limits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "families.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "pipeline/infotext.h"
#include "pipeline/origin.h"
#include "pipeline/params.h"
#include "test.h"
#include "text/prompt.h"

enum { SIDE = 32, L = SIDE / 4, EACH = 4 * L * L }; /* family sd1: latents of 4 channels, 4 pixels */

typedef struct session { sumi_context *ctx; sumi_model *m; char told[600]; } session;

static bool begin_with(session *s, const char *path)
{
    sumi_model_options o = {.path = path, .tokenizer = family_tokenizer()};
    *s = (session){0};
    CHECK(!sumi_context_new(NULL, &s->ctx));
    CHECKF(!sumi_model_load_with(s->ctx, &o, &s->m), "%s", sumi_error(s->ctx));
    return s->m != NULL;
}

static bool begin(session *s) { return begin_with(s, family_model("sd1", FAMILY_FOLDER)); }

static void end(session *s)
{
    sumi_model_free(s->m);
    sumi_context_free(s->ctx);
}

static sumi_request small(void)
{
    sumi_request r = sumi_request_default();
    r.prompt = "a red ring";
    r.sampler = "euler";
    r.schedule = "normal";
    r.seed = 40;
    r.steps = 2;
    r.width = r.height = SIDE;
    r.cfg_scale = 2;
    return r;
}

static void hear(void *user, const sumi_progress *p)
{
    session *s = user;
    if (p->message)
        snprintf(s->told, sizeof s->told, "%s", p->message);
}

static sumi_images *draw(session *s, const sumi_request *r)
{
    sumi_images *im = NULL;
    sumi_callbacks cb = {.progress = hear, .user = s};
    s->told[0] = 0;
    sumi_generate(s->ctx, s->m, r, &cb, &im);
    CHECKF(im, "%s", sumi_error(s->ctx));
    return im;
}

static bool equal(const sumi_images *a, size_t i, const sumi_images *b, size_t k)
{
    const sumi_image *x = sumi_images_at(a, i), *y = sumi_images_at(b, k);
    return x && y && x->width == y->width && x->height == y->height &&
           !memcmp(x->pixels, y->pixels, 3 * (size_t)x->width * (size_t)x->height);
}

/* Picture k by its infotext is the same; *text is its infotext then, for free. */
static void check_again(session *s, const sumi_request *r, int k, char **text)
{
    sumi_infotext *t = NULL;
    sumi_images *a = draw(s, r), *b = NULL;
    const sumi_image *im = sumi_images_at(a, (size_t)k);
    *text = strdup(im ? im->infotext : "");
    CHECKF(!sumi_infotext_parse(s->ctx, *text, &t), "%s", sumi_error(s->ctx));
    for (size_t i = 0; t && i < t->count; i++)
        CHECKF(t->field[i].understood, "%s: %s", t->field[i].key, t->field[i].value);
    b = t ? draw(s, &t->request) : NULL;
    CHECKF(equal(a, (size_t)k, b, 0) && !strcmp(*text, sumi_images_at(b, 0)->infotext), "%s\n%s", *text,
           b ? sumi_images_at(b, 0)->infotext : "");
    sumi_images_free(a);
    sumi_images_free(b);
    sumi_infotext_free(t);
}

/* ---- parameters without effect --------------------------------------------------------------------------------------- */

TEST(notes_idle)
{
    static const struct { const char *line, *told; } rows[] = {
        {"x --steps 3", ""},
        {"x --hires-steps 4 --hires-upscaler Lanczos", "no effect: --hires-upscaler, --hires-steps without --hires-upscale"},
        {"x --hires-steps 4 --hires-upscale 2", ""},
        {"x --mask-blur 2 --mask-invert 1 --resize-mode crop",
         "no effect: --resize-mode without --init-image; --mask-blur, --mask-invert without --mask"},
        {"x --init-image a --outpaint-left 8 --mask-blur 2 --mask-padding 4",
         "no effect: --mask-padding without --only-masked 1"},
        {"x --variation-seed 3", "no effect: --variation-seed without --variation-strength"},
        {"x --s-tmin 1 --apg-eta 1 --pag-layers mid,up --freeu-b1 1.2",
         "no effect: --s-tmin without --s-churn; --apg-eta without --guidance apg; "
         "--pag-layers without --pag; --freeu-b1 without --freeu"},
        {"x --guidance APG --apg-eta 1 --freeu v1 --freeu-b1 1.2", ""},
        {"x --threshold-percentile 99 --sched-val 3",
         "no effect: --sched-val without --cfg-mode; --threshold-percentile without --mimic-scale"},
        {"x --mimic-scale 7 --mimic-mode power_up --sched-val 3", ""},
        {"x --refiner-switch-at 0.5 --init-latents-at 1 --sag-blur 2 --sample-max-value 2",
         "no effect: --sample-max-value without "
         "--dynamic-thresholding-ratio; --sag-blur without --sag; --refiner-switch-at without --refiner; --init-latents-at "
         "without --init-latents"},
        {"x --vae-encode mean --hires-upscale 2 --hires-upscaler lanczos", ""},
        {"x --class 3 --p2p-mode replace --p2p-blend-start 0.5",
         "no effect: --class without --classifier; --p2p-mode without --edit-from-prompt; "
         "--p2p-blend-start without --p2p-blend"},
        {"x --invert-steps 3 --invert-cfg 2 --init-image a", "no effect: --invert-cfg, --invert-steps without --invert 1"},
        {"x --vae-encode mean --hires-upscale 2", "no effect: --vae-encode without --init-image"},
        {"x --vae-tile 64 --vae-decoder TAESD --vae-encoder taesd",
         "no effect: --vae-encoder without --init-image; --vae-tile without --vae-decoder full"},
        {"x --vae-tile 64 --vae-decoder taesd --init-image a", ""},
        {"x --vae-tile 64 --vae-decoder taesd --vae-encoder taesd --init-image a",
         "no effect: --vae-tile without --vae-decoder full"},
        {"x --vae-encode mean --vae-tile 64 --vae-decoder taesd", ""}}; /* the last: of a model that always sees a picture */
    sumi_context *c = NULL;
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &c));
    for (size_t i = 0; i < SM_COUNT(rows); i++) {
        sumi_request r = sumi_request_default();
        char *texts = NULL;
        sm_buf b = {0};
        CHECKF(!sumi_request_read(c, rows[i].line, &r, &texts), "%s", sumi_error(c));
        sm_request_idle(&r, i + 1 == SM_COUNT(rows), &b);
        CHECKF(!strcmp(b.data ? b.data : "", rows[i].told), "%s: %s", rows[i].line, b.data ? b.data : "");
        sm_buf_free(&b);
        sumi_text_free(texts);
    }
    sumi_context_free(c);
}

/* What A1111 writes beside a picture that was inpainted draws from noise once its strength is set aside, and says what it leaves
 * out. */
TEST(notes_of_a1111)
{
    session s;
    sumi_infotext *t = NULL;
    sumi_images *im = NULL;
    if (!begin(&s))
        return;
    CHECK(!sumi_infotext_parse(s.ctx,
                               "cat\nSteps: 2, Sampler: Euler, Schedule type: Automatic, CFG scale: 2, Seed: 5, Size: 32x32, "
                               "Denoising strength: 0.75, "
                                      "Mask blur: 4, Inpaint area: Whole picture, Masked area padding: 32, Masked content: "
                                      "latent noise, Version: v1.10.1", &t));
    if (!t)
        return;
    for (size_t i = 0; i < t->count; i++)
        CHECKF(t->field[i].understood, "%s", t->field[i].key);
    CHECK(sumi_generate(s.ctx, s.m, &t->request, NULL, &im) == SUMI_E_ARG &&
          strstr(sumi_error(s.ctx), "--strength 0.75 needs a picture"));
    t->request.strength = -1;
    im = draw(&s, &t->request);
    CHECKF(!strcmp(s.told, "no effect: --mask-blur, --masked-content without --mask; --mask-padding without --only-masked 1"),
           "%s", s.told);
    sumi_images_free(im);
    sumi_infotext_free(t);
    end(&s);
}

/* ---- what files are named, and found again ---------------------------------------------------------------------------- */

TEST(notes_given_latents)
{
    session s;
    float x[3 * EACH];
    char path[300], *text;
    sm_err e = {0};
    test_fill(x, 3 * EACH, 1, -1.7f, 1.7f);
    snprintf(path, sizeof path, "%s", test_tmp("given.safetensors"));
    CHECK(!sm_st_write(path, 1,
                       &(sm_st_item){.name = "latents", .t = {.dtype = SM_F32, .rank = 4, .dims = {3, 4, L, L}, .data = x}},
                       0, NULL, NULL, &e));
    if (!begin(&s))
        return;
    sumi_request r = small();
    r.count = 2;
    r.init_latents = path;
    check_again(&s, &r, 0, &text);
    CHECK(strstr(text, "Initial latents: ") && !strstr(text, "Initial latents at"));
    free(text);
    check_again(&s, &r, 1, &text);
    CHECKF(strstr(text, ", Initial latents at: 1"), "%s", text);
    free(text);
    r.init_latents_at = 1;
    check_again(&s, &r, 1, &text);
    CHECKF(strstr(text, ", Initial latents at: 2"), "%s", text);
    free(text);
    sumi_images *two = draw(&s, &r), *one = NULL;
    r.init_latents_at = 2;
    r.count = 1;
    r.seed++;
    one = draw(&s, &r);
    CHECK(equal(two, 1, one, 0) && !equal(two, 0, one, 0));
    sumi_images_free(two);
    sumi_images_free(one);
    r.init_latents_at = 3;
    CHECK(sumi_generate(s.ctx, s.m, &r, NULL, &one) == SUMI_E_FORMAT && strstr(sumi_error(s.ctx), "of shape [4, 4, 8, 8]"));
    end(&s);
}

/* The user's name stays out of pictures. */
TEST(notes_home)
{
    session s;
    uint8_t rgb[SIDE * SIDE * 3];
    char path[300], home[300], mask[300], was[300] = "", *text;
    const char *old = getenv("HOME");
    snprintf(was, sizeof was, "%s", old ? old : "");
    snprintf(path, sizeof path, "%s", test_tmp("a, b.png"));
    snprintf(mask, sizeof mask, "%s", test_tmp("mask.png"));
    snprintf(home, sizeof home, "%.*s", (int)(strrchr(path, '/') - path), path);
    memset(rgb, 255, sizeof rgb);
    setenv("HOME", home, 1); /* the model's path is below it, too */
    if (!begin(&s))
        return;
    const sumi_image white = {.width = SIDE, .height = SIDE, .channels = 3, .pixels = rgb};
    CHECK(!sumi_image_save(s.ctx, &white, path) && !sumi_image_save(s.ctx, &white, mask));
    sumi_request r = small();
    r.init_image = path;
    r.mask = mask;
    r.strength = 0.5f;
    check_again(&s, &r, 0, &text);
    CHECKF(strstr(text, ", Init image: \"~/a, b.png\", ") && strstr(text, ", Mask: ~/mask.png") && !strstr(text, home), "%s",
           text);
    free(text);
    setenv("HOME", was, 1);
    end(&s);
}

/* A folder that is called ~ is not the home folder, and a leading blank is part of a name. */
TEST(notes_odd_paths)
{
    static const char *const rows[][2] = {{"~/b.png", "./~/b.png"}, {" b.png", "./ b.png"}, {"~b.png", "~b.png"},
                                          {"a/~/b.png", "a/~/b.png"}};
    for (size_t i = 0; i < SM_COUNT(rows); i++) {
        sm_buf b = {0};
        sm_origin_put_path(rows[i][0], &b);
        CHECKF(b.data && !strcmp(b.data, rows[i][1]), "'%s': '%s'", rows[i][0], b.data ? b.data : "");
        sm_buf_free(&b);
    }
}

static void copy_file(const char *from, const char *to)
{
    sm_err e = {0};
    sm_buf b = {0};
    CHECKF(!sm_file_read(from, 64 << 20, &b, &e) && !sm_file_write(to, b.data, b.len, &e), "%s", e.msg);
    sm_buf_free(&b);
}

/* "NAME [HASH]" is the file of that name beside the model. */
TEST(notes_refiner_of_a1111)
{
    session s;
    char base[300], path[300], name[64], *text;
    sumi_images *im = NULL;
    snprintf(base, sizeof base, "%s", test_tmp("base one.safetensors"));
    snprintf(path, sizeof path, "%s", test_tmp("xl refiner_1.0.safetensors"));
    copy_file(family_model("sd1", FAMILY_FILE), base);
    copy_file(base, path);
    if (!begin_with(&s, base))
        return;
    sumi_request r = small();
    r.steps = 4;
    r.refiner_switch_at = 0.5f;
    snprintf(name, sizeof name, "xl refiner_1.0 [%s]", sumi_model_hash(s.m));
    r.refiner = name;
    check_again(&s, &r, 0, &text);
    CHECKF(strstr(text, name), "%s", text);
    free(text);
    static const struct { const char *refiner, *message; } bad[] = {
        {"xl refiner_1.0 [0123456789]", "has the hash "},
        {"nothing like it [0123456789]",
         "beside the model there is no nothing like it.safetensors or .ckpt; say where it is: --refiner FILE"},
        {"nothing like it [01234567]", "is A1111's name of a checkpoint"}};
    for (size_t i = 0; i < SM_COUNT(bad); i++) {
        r.refiner = bad[i].refiner;
        CHECKF(sumi_generate(s.ctx, s.m, &r, NULL, &im) && strstr(sumi_error(s.ctx), bad[i].message) &&
               !strchr(sumi_error(s.ctx), '\n'), "%s", sumi_error(s.ctx));
    }
    end(&s);
}

/* ---- keys ------------------------------------------------------------------------------------------------------------ */

TEST(notes_keys)
{
    session s;
    char *text;
    sumi_infotext *t = NULL;
    if (!begin(&s))
        return;
    sumi_request r = small();
    r.eta = 0; /* of a sampler without noise: nothing to say, nothing to refuse */
    check_again(&s, &r, 0, &text);
    CHECKF(strstr(text, ", Eta: 0") && !strstr(text, "Dynamic"), "%s", text);
    free(text);
    r = small();
    r.mimic_scale = 1.5f;
    check_again(&s, &r, 0, &text);
    CHECKF(strstr(text, ", Dynamic thresholding enabled: True, Mimic scale: 1.5"), "%s", text);
    free(text);
    CHECK(!sumi_infotext_parse(s.ctx,
                               "x\nSteps: 2, Sampler: DDIM, Seed: 1, Eta DDIM: 0.5, Dynamic thresholding enabled: True, Mimic "
                               "scale: 7, "
                               "Mimic mode: Power Up, Power scheduler value: 3", &t));
    CHECK(t && t->request.eta == 0.5f && t->request.mimic_scale == 7 && t->request.sched_val == 3 &&
          !strcmp(t->request.mimic_mode, "power_up"));
    for (size_t i = 0; t && i < t->count; i++)
        CHECKF(t->field[i].understood, "%s", t->field[i].key);
    sumi_infotext_free(t);
    r = small();
    r.eta = 0.5f;
    sumi_images *im = NULL;
    CHECK(sumi_generate(s.ctx, s.m, &r, NULL, &im) == SUMI_E_ARG &&
          strstr(sumi_error(s.ctx), "--eta: sampler euler draws no noise"));
    end(&s);
}

/* ---- prompts --------------------------------------------------------------------------------------------------------- */

/* Five levels are four steps; Heun looks twice at each. */
TEST(notes_prompt_counts_levels)
{
    session s;
    char *text = NULL;
    if (!begin(&s))
        return;
    sumi_request r = sumi_request_default();
    r.prompt = "[a:b:0.5]";
    r.sigmas = "14,7,3,1,0";
    r.sampler = "euler";
    CHECKF(!sumi_prompt_explain(s.ctx, s.m, &r, 1, &text) && strstr(text, "\"calls\":4,"), "%s", text ? text : sumi_error(s.ctx));
    sumi_text_free(text);
    r.sampler = "heun";
    CHECKF(!sumi_prompt_explain(s.ctx, s.m, &r, 1, &text) && strstr(text, "\"calls\":8,"), "%s", text ? text : sumi_error(s.ctx));
    sumi_text_free(text);
    r.steps = 3;
    CHECK(sumi_prompt_explain(s.ctx, s.m, &r, 0, &text) == SUMI_E_ARG && strstr(sumi_error(s.ctx), "5 levels are 4 steps"));
    end(&s);
}

TEST(notes_sides_of_and)
{
    char text[SM_PROMPT_SIDES * 6 + 16];
    sm_prompt_how how = {.calls = 4};
    for (int extra = 0; extra < 2; extra++) {
        sm_arena room;
        sm_prompt p;
        sm_err e = {0};
        size_t n = 0;
        sm_arena_init(&room, NULL, SM_MEM_MISC);
        for (int i = 1; i < SM_PROMPT_SIDES + extra; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, "a AND ");
        snprintf(text + n, sizeof text - n, "a");
        sm_prompt_read(text, &how, &room, &p, &e);
        CHECKF(extra ? e.code == SUMI_E_ARG && strstr(e.msg, "more than 64 sides of AND") : !e.code && p.parts == SM_PROMPT_SIDES,
               "%s", e.msg);
        sm_arena_free(&room);
    }
}

/* JSON lines may say null for the default, and the schema says so. */
TEST(notes_schema_takes_null)
{
    sumi_context *c = NULL;
    char *text = NULL, *texts = NULL;
    size_t n;
    sm_err e = {0};
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &c) && !sumi_schema(c, 0, &text));
    cJSON *root = sm_json_parse(NULL, text, strlen(text), 8, 1 << 16, "schema", &e);
    const sumi_param_info *t = sumi_params(&n);
    for (size_t i = 0; root && i < n; i++) {
        const cJSON *p = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(root, "properties"), t[i].name);
        const cJSON *type = cJSON_GetObjectItemCaseSensitive(p, "type"), *words = cJSON_GetObjectItemCaseSensitive(p, "enum"), *v;
        bool null = false, in_words = !words;
        char line[80];
        cJSON_ArrayForEach(v, type) null |= !strcmp(cJSON_GetStringValue(v), "null");
        cJSON_ArrayForEach(v, words) in_words |= cJSON_IsNull(v);
        sumi_request r = sumi_request_default();
        snprintf(line, sizeof line, "{\"%s\": null}", t[i].name);
        CHECKF(null && in_words && !sumi_request_read(c, line, &r, &texts), "%s", t[i].name);
        sumi_text_free(texts);
    }
    CHECKF(root, "%s", e.msg);
    cJSON_Delete(root);
    sumi_text_free(text);
    sumi_context_free(c);
}
