/* Whole requests and single modules of every family in every layout, through the public calls, against diffusers' pipelines
 * (tests/fixtures/family_*.safetensors, made in double by tools/fixtures/make_families.py): latents of every one of 20 steps
 * from the same noise with two prompts' guidance, pictures, text embeddings, UNet and autoencoder. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "families.h"
#include "io/safetensors.h"
#include "reference.h"
#include "requests.h"
#include "test.h"

enum { STEPS = 20 };

typedef struct family {
    const char *name;
    const char *prediction; /* given where a single file cannot tell */
    bool edm;
} family;

/* ---- modules ----------------------------------------------------------------------------------------------------- */

/* Writes tensors "MODULE/in.X" of the fixture as X; how many. */
static size_t write_inputs(const reference *f, const char *module, const char *path)
{
    sm_st_item item[8];
    sm_err e = {0};
    size_t n = 0, k = strlen(module);
    for (size_t i = 0; i < sm_weights_count(f->w); i++) {
        const sm_weight *w = sm_weights_at(f->w, i);
        if (!strncmp(w->name, module, k) && !strncmp(w->name + k, "/in.", 4) && n < SM_COUNT(item))
            item[n++] = (sm_st_item){.name = w->name + k + 4, .t = w->t};
    }
    if (n)
        CHECKF(!sm_st_write(path, n, item, 0, NULL, NULL, &e), "%s", e.msg);
    return n;
}

static void compare_outputs(const reference *f, const char *module, const char *path, const char *where)
{
    sm_mem mem = {0};
    sm_err e = {0};
    size_t k = strlen(module), compared = 0;
    sm_weights *got = sm_weights_new(&mem, &e);
    CHECKF(got && !sm_st_load(path, got, NULL, &mem, &e), "%s", e.msg);
    for (size_t i = 0; got && i < sm_weights_count(f->w); i++) {
        const sm_weight *want = sm_weights_at(f->w, i);
        if (strncmp(want->name, module, k) || strncmp(want->name + k, "/out.", 5))
            continue;
        const sm_weight *x = sm_weights_find(got, want->name + k + 5);
        bool same = x && x->t.rank == want->t.rank && !memcmp(x->t.dims, want->t.dims, sizeof *x->t.dims * (size_t)x->t.rank);
        CHECKF(same, "%s, %s: %s is missing or of another shape", f->name, where, want->name);
        if (same)
            reference_near(f, want->name, x->t.data, (int64_t)(x->bytes / sizeof(float)), 1e-4, where);
        compared++;
    }
    CHECKF(compared > 0, "%s: nothing to compare of %s", f->name, module);
    sm_weights_unref(&got);
}

static void check_modules(const char *name, const char *model)
{
    static const char *const modules[] = {"text_encoder", "text_encoder_2", "unet", "vae_encoder", "vae_decoder"};
    char file[64], in[256], out[256];
    reference f;
    sumi_context *ctx;
    sumi_model_options o = {.path = model};
    snprintf(file, sizeof file, "family_%s.safetensors", name);
    snprintf(in, sizeof in, "%s", test_tmp("module-in.safetensors"));
    snprintf(out, sizeof out, "%s", test_tmp("module-out.safetensors"));
    CHECK(sumi_context_new(NULL, &ctx) == SUMI_OK);
    for (size_t i = 0; i < SM_COUNT(modules) && reference_open(&f, file); i++) {
        if (write_inputs(&f, modules[i], in)) {
            sumi_status st = sumi_run_module(ctx, &o, modules[i], in, out);
            CHECKF(!st, "%s: %s", modules[i], sumi_error(ctx));
            if (!st)
                compare_outputs(&f, modules[i], out, model);
        }
        reference_close(&f);
    }
    sumi_context_free(ctx);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static sumi_request request(const family *a, const char *sampler, const char *noise, const char *saved)
{
    sumi_request r = sumi_request_default();
    r.prompt = "a cat in a hat";
    r.negative_prompt = "blurry, a very long text that does not fit";
    r.emphasis = "diffusers"; /* whose pipelines cut it */
    r.steps = STEPS;
    r.cfg_scale = 7;
    r.width = 24;
    r.height = 16;
    r.count = 2;
    r.seed = 1;
    r.sampler = sampler;
    r.schedule = a->edm ? "karras" : strcmp(sampler, "euler") ? "simple" : "normal"; /* trailing and linspace in diffusers */
    r.init_latents = noise;
    r.save_latents = saved;
    r.save_steps = 1;
    requests_xl_sizes(&r);
    r.aesthetic_score = 6.5f;
    r.negative_aesthetic_score = 2.25f;
    return r;
}

/* Every block of the saved latents against latents.SAMPLER [STEPS + 1, 2, 4, h, w]. */
static void compare_latents(const reference *f, const char *sampler, const char *path, const char *where)
{
    sm_mem mem = {0};
    sm_err e = {0};
    const sm_weight *want = reference_find(f, "latents.%s", sampler);
    sm_weights *got = sm_weights_new(&mem, &e);
    CHECKF(got && !sm_st_load(path, got, NULL, &mem, &e), "%s", e.msg);
    double worst = 0;
    int at = 0;
    for (int i = 0; want && got && i <= STEPS; i++) {
        char name[32];
        snprintf(name, sizeof name, i == STEPS ? "latents" : "latents.%d", i);
        const sm_weight *x = sm_weights_find(got, name);
        int64_t n = (int64_t)(want->bytes / sizeof(float) / (STEPS + 1));
        CHECKF(x && (int64_t)(x->bytes / sizeof(float)) == n, "%s: %s is missing or of another size", where, name);
        if (!x)
            break;
        const float *b = (const float *)want->t.data + i * n;
        double d = test_maxdiff(x->t.data, b, n) / test_rms(b, n);
        if (!(d <= worst)) {
            worst = d;
            at = i;
        }
    }
    CHECKF(worst <= 1e-3, "%s, %s: latents of step %d differ by %.3g rms (%s)", f->name, sampler, at, worst, where);
    sm_weights_unref(&got);
}

/* Pictures of pipelines are 0..1, not rounded. */
static void compare_pictures(const reference *f, const sumi_images *im, const char *where)
{
    const sm_weight *want = reference_find(f, "image");
    size_t each = want ? want->bytes / sizeof(float) / 2 : 0;
    double worst = 0;
    CHECK(want && sumi_images_count(im) == 2);
    for (size_t k = 0; want && k < sumi_images_count(im); k++) {
        const sumi_image *p = sumi_images_at(im, k);
        CHECK((size_t)p->width * (size_t)p->height * 3 == each);
        for (size_t i = 0; i < each; i++)
            worst = fmax(worst, fabs(p->pixels[i] - 255 * ((const float *)want->t.data)[k * each + i]));
    }
    CHECKF(worst <= 0.75, "%s: pixels differ by %.3g (%s)", f->name, worst, where);
}

static bool write_noise(const reference *f, const char *path)
{
    const sm_weight *noise = reference_find(f, "noise");
    sm_err e = {0};
    bool ok = noise && !sm_st_write(path, 1, &(sm_st_item){.name = "latents", .t = noise->t}, 0, NULL, NULL, &e);
    CHECKF(ok, "%s", e.msg);
    return ok;
}

static void check_requests(const family *a, const sumi_model_options *o, int samplers)
{
    static const char *const names[] = {"euler", "ddim", "dpmpp_2m"};
    char file[64], noise[256], saved[256];
    reference f;
    sumi_context *ctx;
    sumi_model *m = NULL;
    snprintf(file, sizeof file, "family_%s.safetensors", a->name);
    snprintf(noise, sizeof noise, "%s", test_tmp("family-noise.safetensors"));
    snprintf(saved, sizeof saved, "%s", test_tmp("family-latents.safetensors"));
    CHECK(sumi_context_new(NULL, &ctx) == SUMI_OK);
    bool ok = reference_open(&f, file) && write_noise(&f, noise) && !sumi_model_load_with(ctx, o, &m);
    CHECKF(ok, "%s: %s", o->path, sumi_error(ctx));
    for (int i = 0; ok && i < samplers; i++) {
        sumi_images *im = NULL;
        sumi_request r = request(a, names[i], noise, saved);
        r.prediction = a->prediction ? a->prediction : "";
        sumi_status st = sumi_generate(ctx, m, &r, NULL, &im);
        CHECKF(!st, "%s, %s: %s", o->path, names[i], sumi_error(ctx));
        if (!st)
            compare_latents(&f, names[i], saved, o->path);
        if (!st && i == 0)
            compare_pictures(&f, im, o->path);
        sumi_images_free(im);
    }
    sumi_model_free(m);
    sumi_context_free(ctx);
    reference_close(&f);
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

static void check_folder(const family *a)
{
    sumi_model_options o = {.path = family_model(a->name, FAMILY_FOLDER), .tokenizer = family_tokenizer()};
    check_modules(a->name, o.path);
    check_requests(&(family){a->name, NULL, a->edm}, &o, 3);
}

static void check_file(const family *a)
{
    sumi_model_options o = {.path = family_model(a->name, FAMILY_FILE), .tokenizer = family_tokenizer()};
    check_modules(a->name, o.path);
    check_requests(a, &o, 3);
}

#define FAMILY(NAME, PREDICTION, EDM)                                                   \
    TEST(family_folder_##NAME) { check_folder(&(family){#NAME, PREDICTION, EDM}); }     \
    TEST(family_file_##NAME) { check_file(&(family){#NAME, PREDICTION, EDM}); }

FAMILY(sd1, NULL, false)
FAMILY(sd1_v, NULL, false)             /* a key says it */
FAMILY(sd2, "v_prediction", false)     /* nothing does; 24 layers of text of which 23 count */
FAMILY(xl, NULL, false)
FAMILY(refiner, NULL, false)
FAMILY(playground, NULL, true)
FAMILY(inpaint, NULL, false)
FAMILY(ip2p, NULL, false)
TEST(family_folder_lcm) { check_folder(&(family){"lcm", NULL, false}); } /* single files have no place for its layer */

/* torch.save's archive of sd1. */
TEST(family_ckpt)
{
    char path[512];
    snprintf(path, sizeof path, "%s", test_fixture("family_sd1.ckpt"));
    check_modules("sd1", path);
    check_requests(&(family){"sd1", NULL, false}, &(sumi_model_options){.path = path, .tokenizer = family_tokenizer()}, 1);
}

/* A file of the UNet alone: runs as a module; with the other parts from a folder it draws what the whole model draws; without
 * them the message says which flags are missing. */
TEST(family_parts)
{
    char vae[300], text[300], path[300];
    sumi_context *ctx;
    sumi_model *m = NULL;
    snprintf(path, sizeof path, "%s", family_model("sd1", FAMILY_UNET));
    snprintf(vae, sizeof vae, "%s/vae", family_model("sd1", FAMILY_FOLDER));
    snprintf(text, sizeof text, "%s/text_encoder", family_model("sd1", FAMILY_FOLDER));
    sumi_model_options o = {.path = path, .vae = vae, .text_encoder = text, .tokenizer = family_tokenizer()};
    check_requests(&(family){"sd1", NULL, false}, &o, 1);
    CHECK(sumi_context_new(NULL, &ctx) == SUMI_OK);
    CHECK(sumi_model_load(ctx, path, &m) == SUMI_E_MODEL && strstr(sumi_error(ctx), "--vae") &&
          strstr(sumi_error(ctx), "--text-encoder"));
    CHECK(m == NULL);
    sumi_context_free(ctx);
}
