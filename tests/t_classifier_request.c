/* Classifier guidance through whole requests on the tiny model `deep`: latents of every step against guided-diffusion's own
 * sampler (fixture classifier, tools/fixtures/make_classifier.py), alone and with what it goes together with; the same bits over
 * threads, pictures at once and low memory; the plan; files that are damaged, foreign or hostile. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "classifier_file.h"
#include "families.h"
#include "pipeline/context.h"
#include "reference.h"
#include "requests.h"
#include "test.h"
#include "tiny.h"

enum { STEPS = 10, EACH = 48 * 32 * 3 };

typedef struct fixture {
    reference f;
    cJSON *config;
    sumi_context *ctx;
    sumi_model *m;
    char file[256], noise[256], saved[256];
    bool ok;
} fixture;

static cJSON *read_metadata(const char *key)
{
    sm_err e = {0};
    sm_st *f = sm_st_open(test_fixture("classifier.safetensors"), NULL, &e);
    const char *text = f ? sm_st_metadata(f, key) : NULL;
    cJSON *j = text ? cJSON_Parse(text) : NULL;
    sm_st_close(f);
    CHECKF(j != NULL, "classifier.safetensors: no %s", key);
    return j;
}

static void fixture_open(fixture *x, const char *model, int low_memory, int threads)
{
    bool flow = !strcmp(model, "mmdit");
    sumi_model_options o = {.path = flow ? tiny_model(TINY_MMDIT) : family_model(model, FAMILY_FOLDER),
                            .tokenizer = flow ? NULL : family_tokenizer(), .low_memory = low_memory};
    *x = (fixture){0};
    x->config = reference_open(&x->f, "classifier.safetensors") ? cJSON_Parse(x->f.config) : NULL;
    snprintf(x->file, sizeof x->file, "%s", classifier_file(x->config, "adaptive", NULL, "classifier-adaptive.safetensors"));
    snprintf(x->noise, sizeof x->noise, "%s", test_tmp("classifier-noise.safetensors"));
    snprintf(x->saved, sizeof x->saved, "%s", test_tmp("classifier-latents.safetensors"));
    CHECK(sumi_context_new(&(sumi_context_options){.threads = threads}, &x->ctx) == SUMI_OK);
    x->ok = x->config && x->file[0] && !sumi_model_load_with(x->ctx, &o, &x->m);
    CHECKF(x->ok, "%s", sumi_error(x->ctx));
}

static void fixture_close(fixture *x)
{
    cJSON_Delete(x->config);
    sumi_model_free(x->m);
    sumi_context_free(x->ctx);
    reference_close(&x->f);
}

static sumi_request request(const fixture *x)
{
    sumi_request r = sumi_request_default();
    r.prompt = "a cat in a hat";
    r.negative_prompt = "blurry, a very long text that does not fit";
    r.emphasis = "diffusers"; /* cuts it as the fixture's pipelines do */
    r.steps = STEPS;
    r.width = 48;
    r.height = 32;
    r.seed = 1;
    r.sampler = "ddim";
    r.schedule = "simple";
    r.classifier = x->file;
    r.classifier_class = "3";
    r.classifier_scale = 100;
    return r;
}

/* ---- against guided-diffusion -------------------------------------------------------------------------------------- */

static void compare(const fixture *x, const char *name, int pictures)
{
    sm_mem mem = {0};
    sm_err e = {0};
    const sm_weight *want = reference_find(&x->f, "latents.%s", name);
    sm_weights *got = sm_weights_new(&mem, &e);
    CHECKF(got && !sm_st_load(x->saved, got, NULL, &mem, &e), "%s", e.msg);
    int64_t n = (int64_t)pictures * 4 * 8 * 12;
    CHECK(want && want->bytes == sizeof(float) * (size_t)n * (STEPS + 1));
    for (int i = 0; want && got && i <= STEPS; i++) {
        char step[32];
        snprintf(step, sizeof step, i == STEPS ? "latents" : "latents.%d", i);
        const sm_weight *l = sm_weights_find(got, step);
        CHECKF(l && l->bytes == sizeof(float) * (size_t)n, "%s: %s is missing or of another size", name, step);
        if (!l)
            break;
        const float *b = (const float *)want->t.data + i * n;
        double d = test_maxdiff(l->t.data, b, n) / test_rms(b, n);
        CHECKF(d <= 1e-4, "%s: latents of step %d differ by %.3g rms", name, i, d);
    }
    sm_weights_unref(&got);
}

static void check_request(fixture *x, const cJSON *how, const char *name)
{
    sumi_request r = request(x);
    sumi_images *im = NULL;
    sm_err e = {0};
    const cJSON *v;
    cJSON_ArrayForEach(v, how)
    {
        char value[32]; /* numbers; texts live on in `how` */
        snprintf(value, sizeof value, "%.9g", v->valuedouble);
        CHECKF(!sumi_request_set(x->ctx, &r, v->string, cJSON_IsString(v) ? v->valuestring : value), "%s", sumi_error(x->ctx));
    }
    const sm_weight *noise = reference_find(&x->f, "noise");
    sm_st_item item = {.name = "latents", .t = noise ? noise->t : (sm_tensor){0}};
    item.t.dims[0] = r.count;
    r.init_latents = x->noise;
    r.save_latents = x->saved;
    r.save_steps = 1;
    CHECKF(!sm_st_write(x->noise, 1, &item, 0, NULL, NULL, &e), "%s", e.msg);
    sumi_status st = sumi_generate(x->ctx, x->m, &r, NULL, &im);
    CHECKF(!st, "%s: %s", name, sumi_error(x->ctx));
    if (!st)
        compare(x, name, r.count);
    sumi_images_free(im);
}

/* Alone, after CFG, away from a class, with a model of v, after rescaling, in some steps only. */
TEST(classifier_requests)
{
    cJSON *all = read_metadata("requests");
    const cJSON *how;
    fixture x;
    int n = 0;
    fixture_open(&x, "deep", 0, 0);
    if (x.ok)
        cJSON_ArrayForEach(how, all) {
            check_request(&x, how, how->string);
            n++;
        }
    CHECK(n == 6);
    fixture_close(&x);
    cJSON_Delete(all);
}

/* ---- bits and memory ----------------------------------------------------------------------------------------------- */

/* Pixels of three pictures, or of the k-th alone. */
static size_t drawn(const char *model, int threads, int low_memory, int k, float scale, const char *sampler, uint8_t *rgb)
{
    fixture x;
    size_t bytes = 0;
    sumi_images *im = NULL;
    fixture_open(&x, model, low_memory, threads);
    sumi_request r = request(&x);
    r.count = k < 0 ? 3 : 1;
    r.seed = k < 0 ? 1 : 1 + k;
    r.steps = 3;
    r.classifier_scale = scale;
    r.sampler = sampler;
    if (!strcmp(model, "mmdit")) {
        r.emphasis = "original";
        r.width = 24, r.height = 16;
    }
    CHECKF(x.ok && !sumi_generate(x.ctx, x.m, &r, NULL, &im), "%s: %s", model, sumi_error(x.ctx));
    for (size_t i = 0; im && i < sumi_images_count(im); i++, bytes += EACH) {
        const sumi_image *p = sumi_images_at(im, i); /* the small ones are padded with zeros */
        memset(rgb + bytes, 0, EACH);
        memcpy(rgb + bytes, p->pixels, (size_t)p->width * (size_t)p->height * 3);
    }
    sumi_images_free(im);
    fixture_close(&x);
    return bytes;
}

/* Also CFG++, whose noise is that of the unguided prediction, and a flow model, which begins at noise alone. */
TEST(classifier_same_bits)
{
    static const struct {
        const char *model, *sampler;
    } cases[] = {{"deep", "ddim"}, {"deep", "euler_cfg_pp"}, {"playground", "euler"}, {"mmdit", "euler"}};
    static uint8_t all[3 * EACH], again[3 * EACH];
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        const char *m = cases[i].model, *s = cases[i].sampler;
        CHECK(drawn(m, 1, 0, -1, 100, s, all) == sizeof all);
        CHECKF(drawn(m, 3, 0, -1, 100, s, again) == sizeof again && !memcmp(all, again, sizeof all), "%s: threads", m);
        CHECKF(drawn(m, 2, 1, -1, 100, s, again) == sizeof again && !memcmp(all, again, sizeof all), "%s: low memory", m);
        CHECKF(drawn(m, 2, 0, 2, 100, s, again) == EACH && !memcmp(all + 2 * EACH, again, EACH), "%s: one picture alone", m);
        CHECKF(drawn(m, 2, 0, 2, 0, s, again) == EACH && memcmp(all + 2 * EACH, again, EACH), "%s: it changes the picture", m);
    }
}

/* What is planned is taken, within a twentieth; a step costs as much more as the gradient does, where it acts. */
TEST(classifier_in_the_plan)
{
    double step[3] = {0};
    size_t packed[4] = {0};
    for (int i = 0; i < 4; i++) {
        sumi_plan_info p = {0};
        double taken = 0;
        for (int draw = 0; draw < 2; draw++) {
            fixture x;
            sumi_images *im = NULL;
            fixture_open(&x, "deep", i == 1, 1);
            sumi_request r = request(&x);
            r.width = r.height = 64;
            r.classifier_scale = i == 2 ? 0 : 100;
            if (i == 1) /* of all that is planned the largest */
                r.classifier = classifier_file(x.config, "spatial_v2", NULL, "classifier-large.safetensors");
            r.guidance_stop = i == 3 ? 0.5f : 1;
            r.cfg_scale = 1;
            CHECKF(x.ok && !(draw ? sumi_generate(x.ctx, x.m, &r, NULL, &im) : sumi_plan_request(x.ctx, x.m, &r, &p)), "%s",
                   sumi_error(x.ctx));
            taken = (double)sumi_memory_peak(x.ctx);
            sumi_images_free(im);
            fixture_close(&x);
        }
        double planned = (double)p.peak_bytes - (double)p.weight_bytes;
        CHECKF(planned > 0.95 * taken && planned < 1.05 * taken, "case %d: planned %.0f, taken %.0f", i, planned, taken);
        packed[i] = p.packed_bytes;
        if (i != 1)
            step[i > 1 ? i - 1 : 0] = p.step_flops;
    }
    CHECK(packed[0] > packed[2] && packed[0] == packed[3]);
    CHECKF(step[0] > 1.2 * step[1] && fabs((step[2] - step[1]) / (step[0] - step[1]) - 0.5) < 1e-9,
           "flops %g, %g without, %g in half of the steps", step[0], step[1], step[2]);
}

/* Every allocation fails once; nothing is left. */
TEST(classifier_out_of_memory)
{
    fixture x;
    fixture_open(&x, "deep", 0, 1);
    sumi_request r = request(&x);
    r.width = r.height = 16;
    r.steps = 1;
    if (x.ok)
        requests_out_of_memory(x.ctx, x.m, &r);
    fixture_close(&x);
}

/* ---- classes, files ------------------------------------------------------------------------------------------------ */

/* A request with what is set; its status, and the message in ctx. */
static sumi_status ask(fixture *x, const char *file, const char *const set[6], char infotext[2048])
{
    sumi_request r = request(x);
    sumi_images *im = NULL;
    r.classifier = file;
    r.width = r.height = 32;
    r.steps = 1;
    for (int i = 0; i < 6 && set[i]; i += 2)
        CHECKF(!sumi_request_set(x->ctx, &r, set[i], set[i + 1]), "%s", sumi_error(x->ctx));
    sumi_status st = sumi_generate(x->ctx, x->m, &r, NULL, &im);
    if (!st && infotext)
        snprintf(infotext, 2048, "%s", sumi_images_at(im, 0)->infotext);
    sumi_images_free(im);
    return st;
}

/* By name and number the same; the infotext says which file it was, and its request is the same again. */
TEST(classifier_names_and_infotext)
{
    static const classifier_change named = {.metadata = {{"class_names", "[\"cat\", \"a dog\", \"7\", \"\\u00fc\"]"}}};
    char a[2048] = "", b[2048] = "", file[256];
    fixture x;
    sumi_infotext *t = NULL;
    fixture_open(&x, "deep", 0, 0);
    snprintf(file, sizeof file, "%s", classifier_file(x.config, "adaptive", &named, "classifier-named.safetensors"));
    CHECKF(!ask(&x, file, (const char *[6]){"class", "a dog"}, a), "%s", sumi_error(x.ctx));
    CHECKF(!ask(&x, file, (const char *[6]){"class", "1"}, b), "%s", sumi_error(x.ctx));
    CHECK(strstr(a, "Classifier class: a dog, Classifier scale: 100, Classifier hash: ") && strstr(b, "Classifier class: 1"));
    CHECK(!sumi_infotext_parse(x.ctx, a, &t) && !strcmp(t->request.classifier, file) && strlen(t->request.classifier_hash) == 10);
    for (size_t i = 0; t && i < t->count; i++)
        CHECKF(t->field[i].understood, "%s is not understood", t->field[i].key);
    if (t)
        CHECKF(!ask(&x, file, (const char *[6]){"classifier-hash", t->request.classifier_hash}, b), "%s", sumi_error(x.ctx));
    CHECK(ask(&x, file, (const char *[6]){"classifier-hash", "0123456789"}, NULL) == SUMI_E_ARG &&
          strstr(sumi_error(x.ctx), "--classifier-hash"));
    CHECK(!ask(&x, file, (const char *[6]){"class", "7"}, b)); /* a name before a number */
    CHECK(ask(&x, file, (const char *[6]){"class", "cow"}, NULL) == SUMI_E_ARG &&
          strstr(sumi_error(x.ctx), "0 to 9, or a name: cat, a dog, 7"));
    CHECK(ask(&x, file, (const char *[6]){"class", ""}, NULL) == SUMI_E_ARG && strstr(sumi_error(x.ctx), "towards which class"));
    CHECK(ask(&x, file, (const char *[6]){"class", "10"}, NULL) == SUMI_E_ARG &&
          ask(&x, file, (const char *[6]){"class", "-1"}, NULL) == SUMI_E_ARG);
    CHECK(!ask(&x, "", (const char *[6]){"class", "1"}, NULL)); /* without a classifier it does nothing */
    sumi_infotext_free(t);
    fixture_close(&x);
}

TEST(classifier_refusals)
{
    static const struct { const char *name; classifier_change change; sumi_status status; const char *says; } cases[] = {
        {"adaptive", {.in_channels = 3}, SUMI_E_ARG, "3 channels (pixels?)"},
        {"adaptive", {.without = "input_blocks.0.0"}, SUMI_E_MODEL, "no tensor input_blocks.0.0.weight"},
        {"adaptive", {.without = "out."}, SUMI_E_MODEL, "no classifier in guided-diffusion's layout"},
        {"adaptive", {.without = "input_blocks.2.0.in_layers.2"}, SUMI_E_MODEL, "block 2 of the classifier lacks"},
        {"adaptive", {.without = "middle_block.1.qkv"}, SUMI_E_MODEL, "middle_block.1"},
        {"adaptive", {.without = "time_embed.2"}, SUMI_E_MODEL, "time_embed.2"},
        {"adaptive", {.cut = "input_blocks.1.0.in_layers.2.weight", .axis = 0, .to = 31}, SUMI_E_MODEL, "shape"},
        {"adaptive", {.cut = "input_blocks.1.0.in_layers.2.weight", .axis = 2, .to = 2}, SUMI_E_MODEL, "shape"},
        {"adaptive", {.cut = "middle_block.1.qkv.weight", .axis = 0, .to = 7}, SUMI_E_MODEL, "shape"},
        {"adaptive", {.cut = "out.3.weight", .axis = 0, .to = 2}, SUMI_E_ARG, "0 to 1"},
        {"adaptive", {.cut = "time_embed.0.weight", .axis = 1, .to = 1}, SUMI_E_MODEL, "timestep embedding"},
        {"adaptive", {.metadata = {{"num_head_channels", "7"}}}, SUMI_E_MODEL, "heads"},
        {"adaptive", {.metadata = {{"num_heads", "0"}}}, SUMI_E_FORMAT, "num_heads"},
        {"adaptive", {.metadata = {{"num_heads", "2x"}}}, SUMI_E_FORMAT, "num_heads"},
        {"adaptive", {.metadata = {{"class_names", "{\"a\": 1}"}}}, SUMI_E_FORMAT, "a list of texts"},
        {"adaptive", {.metadata = {{"class_names", "[1, 2]"}}}, SUMI_E_FORMAT, "a list of texts"},
        {"adaptive", {.metadata = {{"class_names", "[\"a\""}}}, SUMI_E_FORMAT, "class_names"},
        {"plain", {.metadata = {{"class_names", "[]"}}}, SUMI_E_MODEL, "num_res_blocks"},
        {"plain", {.metadata = {{"num_res_blocks", "4"}}}, SUMI_E_MODEL, "do not make levels"},
        {"attention", {0}, SUMI_E_ARG, "--size 48x48"},
        {"attention", {.cut = "out.2.positional_embedding", .axis = 1, .to = 1}, SUMI_E_MODEL, "0 places"},
        {"spatial", {.cut = "out.0.weight", .axis = 1, .to = 5}, SUMI_E_MODEL, "shape"},
        {"spatial_v2", {.without = "out.1"}, SUMI_E_MODEL, "out.1"},
    };
    fixture x;
    fixture_open(&x, "deep", 0, 0);
    for (size_t i = 0; x.ok && i < SM_COUNT(cases); i++) {
        const char *file = classifier_file(x.config, cases[i].name, &cases[i].change, "classifier-bad.safetensors");
        sumi_status st = ask(&x, file, (const char *[6]){NULL}, NULL);
        const char *says = sumi_error(x.ctx);
        CHECKF(st == cases[i].status && strstr(says, cases[i].says) && strstr(says, "--cl") && !strchr(says, '\n'),
               "case %zu: %d, %s", i, (int)st, says);
    }
    fixture_close(&x);
}

TEST(classifier_inspected)
{
    static const struct {
        const char *name, *says;
    } cases[] = {{"adaptive", "noisy classifier, 10 classes, 4 channels, adaptive pool"},
                 {"attention", "10 classes, 4 channels, attention pool"},
                 {"spatial", "4 channels, spatial pool"},
                 {"spatial_v2", "4 channels, spatial_v2 pool"}};
    static const classifier_change named = {.metadata = {{"class_names", "[\"a\"]"}}};
    fixture x;
    fixture_open(&x, "deep", 0, 1);
    for (size_t i = 0; i <= SM_COUNT(cases); i++) {
        const char *name = cases[i % SM_COUNT(cases)].name, *says = i < SM_COUNT(cases) ? cases[i].says : "10 classes with names";
        char *text = NULL;
        CHECK(!sumi_inspect(
            x.ctx, classifier_file(x.config, name, i < SM_COUNT(cases) ? NULL : &named, "classifier-inspected.safetensors"), 0,
            &text));
        CHECKF(text && strstr(text, says) && !strstr(text, "because"), "%s: %s", name, text);
        sumi_text_free(text);
    }
    fixture_close(&x);
}

/* What is no classifier at all, and pictures that are too small for one. */
TEST(classifier_foreign_files)
{
    fixture x;
    char file[256];
    fixture_open(&x, "deep", 0, 0);
    CHECK(ask(&x, "/no/such/file", (const char *[6]){NULL}, NULL) == SUMI_E_FILE && strstr(sumi_error(x.ctx), "--classifier: "));
    CHECK(ask(&x, test_fixture("families.txt.gz"), (const char *[6]){NULL}, NULL) && strstr(sumi_error(x.ctx), "--classifier: "));
    CHECK(ask(&x, test_fixture("vae_tiny.safetensors"), (const char *[6]){NULL}, NULL) == SUMI_E_MODEL &&
          strstr(sumi_error(x.ctx), "no classifier"));
    snprintf(file, sizeof file, "%s", family_model("sd1", FAMILY_FILE));
    CHECK(ask(&x, file, (const char *[6]){NULL}, NULL) == SUMI_E_MODEL && strstr(sumi_error(x.ctx), "a denoiser"));
    snprintf(file, sizeof file, "%s", classifier_file(x.config, "spatial", NULL, "classifier-spatial.safetensors"));
    CHECK(ask(&x, file, (const char *[6]){"width", "8", "height", "8"}, NULL) == SUMI_E_ARG);
    CHECKF(strstr(sumi_error(x.ctx), "halves pictures 2 times") != NULL, "%s", sumi_error(x.ctx));
    CHECKF(!ask(&x, x.file, (const char *[6]){"hires-upscale", "1.5"}, NULL), "%s", sumi_error(x.ctx));
    snprintf(file, sizeof file, "%s", classifier_file(x.config, "attention", NULL, "classifier-attention.safetensors"));
    CHECK(ask(&x, file, (const char *[6]){"width", "48", "height", "48"}, NULL) == SUMI_OK);
    /* before the first pass */
    CHECK(ask(&x, file, (const char *[6]){"width", "48", "height", "48", "hires-upscale", "1.5"}, NULL) == SUMI_E_ARG);
    fixture_close(&x);
}
