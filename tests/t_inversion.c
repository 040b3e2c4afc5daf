/* Pictures run backwards to noise: every step against diffusers' DDIMInverseScheduler (tests/fixtures/inversion.safetensors, made
 * in double by tools/fixtures/make_inversion.py), the way itself on distributions whose flow is known, and what follows from the
 * definitions. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "families.h"
#include "io/safetensors.h"
#include "known.h"
#include "pipeline/context.h"
#include "reference.h"
#include "sample/invert.h"
#include "requests.h"
#include "test.h"
#include "tiny.h"

enum { WIDTH = 24, HEIGHT = 16 };

/* ---- the way ------------------------------------------------------------------------------------------------------- */

enum { LANES = 24 };
static const double mu = 0.4, dev = 0.6;

typedef struct world {
    sm_sampling p;
    bool mixture;
    int calls, told;
    double last;
} world;

static sumi_status exact_denoise(void *ctx, const float *x, double sigma, float *x0, sm_err *e)
{
    world *w = ctx;
    double a = w->p.flow ? 1 - sigma : 1, gain = a * dev * dev / (a * a * dev * dev + sigma * sigma);
    for (int64_t i = 0; i < w->p.n; i++)
        x0[i] = (float)(w->mixture ? known_x0(x[i], sigma, a, 0) : mu + gain * (x[i] - a * mu));
    w->calls++;
    return SUMI_OK;
}

static bool on_step(void *ctx, int step, double sigma, const float *x, const float *x0)
{
    world *w = ctx;
    CHECKF(step == ++w->told && sigma > w->last && sigma == w->p.sigmas[w->p.steps - step], "step %d at %g", step, sigma);
    w->last = sigma;
    return true;
}

/* Of a Gaussian's probability flow, where deviations from the mean keep their share: x at sigma from x0. */
static double flow_at(double x0, double sigma, bool flow)
{
    double a = flow ? 1 - sigma : 1;
    return a * mu + (x0 - mu) * sqrt(a * a * dev * dev + sigma * sigma) / dev;
}

typedef struct trip { double up, back; } trip; /* RMS errors: at the top against the flow, and back at 0 against the start */

/* n even steps in sigma up to top and, by Euler, down again. */
static trip travel(const sm_noise *m, sm_pred pred, bool mixture, int refine, double top, int n)
{
    double sigmas[257];
    float start[LANES], x[LANES];
    sm_err e = {0};
    trip t = {0};
    for (int i = 0; i <= n; i++)
        sigmas[i] = top * (n - i) / n;
    for (int i = 0; i < LANES; i++)
        start[i] = x[i] = (float)(-1.9 + 3.8 * i / (LANES - 1));
    world w = {.p = {.n = LANES, .flow = m->flow, .levels = m, .sigmas = sigmas, .steps = n, .denoise = exact_denoise,
                     .on_step = on_step}, .mixture = mixture};
    w.p.ctx = &w;
    CHECKF(!sm_invert(&w.p, pred, refine, x, &e), "%s", e.msg);
    CHECKF(w.calls == sm_invert_evals(n, refine) && w.told == n, "%d calls, %d steps", w.calls, w.told);
    for (int i = 0; i < LANES; i++)
        t.up += pow(x[i] - flow_at(start[i], top, m->flow), 2) / LANES;
    w.p.on_step = NULL;
    CHECKF(!sm_sample(sm_sampler_find("euler"), &w.p, x, &e), "%s", e.msg);
    for (int i = 0; i < LANES; i++)
        t.back += pow(x[i] - start[i], 2) / LANES;
    return (trip){sqrt(t.up), sqrt(t.back)};
}

static const struct { const char *name; sm_pred pred; double top; } kinds[] = {
    {"eps", SM_PRED_EPS, 2}, {"v", SM_PRED_V, 2}, {"x0", SM_PRED_X0, 2}, {"flow", SM_PRED_FLOW, 0.9}, {"edm", SM_PRED_EDM, 2}};

static bool levels_of(sm_pred pred, sm_noise *m)
{
    sm_err e = {0};
    sumi_status st = pred == SM_PRED_FLOW  ? sm_noise_flow(m, 1000, 1, &e)
                     : pred == SM_PRED_EDM ? sm_noise_edm(m, NULL, 1000, 0.002, 80, 0.5, &e)
                                           : sm_noise_vp(m, NULL, SM_BETA_SCALED_LINEAR, 1000, 0.00085, 0.012, &e);
    CHECKF(!st, "%s", e.msg);
    return !st;
}

/* Of first order: twice the steps, half the error, both of the way up and of what is lost there and back. */
TEST(inversion_order)
{
    for (size_t i = 0; i < SM_COUNT(kinds); i++) {
        sm_noise m = {0};
        if (!levels_of(kinds[i].pred, &m))
            continue;
        for (int n = 32; n <= 64; n *= 2) {
            trip a = travel(&m, kinds[i].pred, false, 0, kinds[i].top, n),
                 b = travel(&m, kinds[i].pred, false, 0, kinds[i].top, 2 * n);
            double up = log2(a.up / b.up), back = log2(a.back / b.back);
            CHECKF(fabs(up - 1) < 0.15 && fabs(back - 1) < 0.15, "%s, %d steps: orders %.3f and %.3f, errors %.3g and %.3g",
                   kinds[i].name, n, up, back, b.up, b.back);
        }
        sm_noise_free(&m);
    }
}

/* The fixed point of every step is where Euler's step comes down from, whatever the model predicts. */
TEST(inversion_refined)
{
    for (size_t i = 0; i < SM_COUNT(kinds); i++) {
        sm_noise m = {0};
        if (!levels_of(kinds[i].pred, &m))
            continue;
        for (int mixture = 0; mixture < 2; mixture++) {
            double plain = travel(&m, kinds[i].pred, mixture, 0, kinds[i].top, 40).back,
                   some = travel(&m, kinds[i].pred, mixture, 3, kinds[i].top, 40).back,
                   many = travel(&m, kinds[i].pred, mixture, 60, kinds[i].top, 40).back;
            CHECKF(plain > 1e-3 && some < 0.1 * plain && many < 5e-6, "%s, %s: %.3g lost, %.3g, %.3g", kinds[i].name,
                   mixture ? "mixture" : "one", plain, some, many);
        }
        sm_noise_free(&m);
    }
}

static sumi_status no_number(void *ctx, const float *x, double sigma, float *x0, sm_err *e)
{
    x0[0] = NAN;
    return SUMI_OK;
}

static bool stops(void *ctx, int step, double sigma, const float *x, const float *x0) { return step < 2; }

TEST(inversion_way_refused)
{
    sm_noise m = {0};
    double good[] = {3, 1, 0}, rising[] = {1, 3, 0}, below[] = {1, 0.5, -1}, high[] = {1.5, 1, 0};
    float x[1] = {0};
    world w = {.p = {.n = 1, .levels = &m, .sigmas = good, .steps = 2, .denoise = exact_denoise}};
    w.p.ctx = &w;
    if (!levels_of(SM_PRED_EPS, &m))
        return;
    const struct { const double *sigmas; bool flow, nan, stop; sumi_status code; const char *says; } rows[] = {
        {rising, false, false, false, SUMI_E_ARG, "must fall"},       {below, false, false, false, SUMI_E_ARG, "out of range"},
        {high, true, false, false, SUMI_E_ARG, "out of range"},
              {good, false, true, false, SUMI_E_NUMERIC, "NaN or infinity at noise level 1"},
        {good, false, false, true, SUMI_E_CANCELLED, "step 2 of 2 of the inversion"}};
    for (size_t i = 0; i < SM_COUNT(rows); i++) {
        sm_sampling p = w.p;
        sm_err e = {0};
        p.sigmas = rows[i].sigmas;
        p.flow = rows[i].flow;
        p.denoise = rows[i].nan ? no_number : exact_denoise;
        p.on_step = rows[i].stop ? stops : NULL;
        CHECKF(sm_invert(&p, SM_PRED_EPS, 0, x, &e) == rows[i].code && strstr(e.msg, rows[i].says), "row %zu: %s", i, e.msg);
    }
    sm_noise_free(&m);
}

/* ---- requests ------------------------------------------------------------------------------------------------------ */

typedef struct session { sumi_context *ctx; sumi_model *m; char saved[300], inverted[300], picture[300]; } session;

static bool begin(session *s, const char *model, const char *picture, const uint8_t *rgb, int w, int h)
{
    sumi_model_options o = {.path = model, .tokenizer = strstr(model, "family") ? family_tokenizer() : NULL};
    *s = (session){0};
    snprintf(s->saved, sizeof s->saved, "%s", test_tmp("inversion-latents.safetensors"));
    snprintf(s->inverted, sizeof s->inverted, "%s", test_tmp("inversion-inverted.safetensors"));
    snprintf(s->picture, sizeof s->picture, "%s", test_tmp(picture));
    CHECK(!sumi_context_new(NULL, &s->ctx));
    CHECKF(!sumi_model_load_with(s->ctx, &o, &s->m), "%s: %s", model, sumi_error(s->ctx));
    sumi_image im = {.width = w, .height = h, .channels = 3, .pixels = (uint8_t *)(uintptr_t)rgb};
    CHECKF(!sumi_image_save(s->ctx, &im, s->picture), "%s", sumi_error(s->ctx));
    return s->m != NULL;
}

static void end(session *s)
{
    sumi_model_free(s->m);
    sumi_context_free(s->ctx);
}

static sumi_images *draw(session *s, const sumi_request *r)
{
    sumi_images *im = NULL;
    CHECKF(!sumi_generate(s->ctx, s->m, r, NULL, &im), "%s", sumi_error(s->ctx));
    return im;
}

/* n floats of "latents.STEP" or, step < 0, "latents"; false where there is none. */
static bool saved(const char *path, int step, float *x, size_t n)
{
    sm_mem mem = {0};
    sm_err e = {0};
    char name[32];
    snprintf(name, sizeof name, step < 0 ? "latents" : "latents.%d", step);
    sm_weights *w = sm_weights_new(&mem, &e);
    CHECKF(w && !sm_st_load(path, w, NULL, &mem, &e), "%s", e.msg);
    const sm_weight *t = w ? sm_weights_find(w, name) : NULL;
    bool there = t && t->bytes == n * sizeof *x;
    if (there)
        memcpy(x, t->t.data, t->bytes);
    sm_weights_unref(&w);
    return there;
}

/* ---- against diffusers --------------------------------------------------------------------------------------------- */

enum { EACH = 4 * (HEIGHT / 4) * (WIDTH / 4) };

/* scale: of the file's "latents". */
static void compare(const reference *f, const char *tensor, const char *path, double scale, double tolerance)
{
    const sm_weight *want = reference_find(f, "%s", tensor);
    int steps = want ? (int)want->t.dims[0] - 1 : 0;
    float x[EACH];
    for (int i = 0; i <= steps && want; i++) {
        const float *b = (const float *)want->t.data + i * EACH;
        bool there = saved(path, i == steps ? -1 : i, x, EACH);
        for (int k = 0; i == steps && k < EACH; k++)
            x[k] = (float)(scale * x[k]);
        double d = there ? test_maxdiff(x, b, EACH) / test_rms(b, EACH) : INFINITY;
        CHECKF(d <= tolerance, "%s: step %d of %d differs by %.3g rms", tensor, i, steps, d);
    }
    CHECK(want && !saved(path, steps, x, EACH));
}

typedef struct run { const char *name, *family; float cfg, strength; bool on; } run;

static sumi_request request_of(const run *a, const session *s)
{
    sumi_request r = sumi_request_default();
    r.prompt = "a hat";
    r.negative_prompt = "blurry, a very long text that does not fit";
    r.emphasis = "diffusers";
    r.steps = 10;
    r.cfg_scale = 7;
    r.seed = 3;
    r.rng = "torch";
    r.sampler = "ddim";
    r.schedule = "simple"; /* trailing */
    r.edit_rules = "diffusers";
    r.save_latents = s->saved;
    r.save_inverted = s->inverted;
    r.save_steps = 1;
    requests_xl_sizes(&r);
    r.init_image = s->picture;
    r.strength = a->strength;
    r.invert = 1;
    r.invert_prompt = "a cat in a hat";
    r.invert_cfg = a->cfg;
    return r;
}

/* The reference itself loses up to 2e-5 in float32, and 2e-4 in what is drawn from there with guidance 7. */
static void check_run(const run *a)
{
    reference f;
    session s;
    sm_noise m = {0};
    uint8_t rgb[WIDTH * HEIGHT * 3] = {0};
    char name[64];
    bool ok = reference_open(&f, "inversion.safetensors");
    const sm_weight *in = ok ? reference_find(&f, "in.picture") : NULL;
    for (int i = 0; in && i < WIDTH * HEIGHT * 3; i++)
        rgb[i] = (uint8_t)((const float *)in->t.data)[i];
    if (begin(&s, family_model(a->family, FAMILY_FOLDER), "inversion-in.png", rgb, WIDTH, HEIGHT) && levels_of(SM_PRED_EPS, &m)) {
        sumi_request r = request_of(a, &s);
        sumi_images *im = draw(&s, &r);
        snprintf(name, sizeof name, "%s.inverted", a->name);
        if (im)
            compare(&f, name, s.inverted, sm_noise_sigma(&m, a->strength < 1 ? 599 : 999), 1e-4);
        snprintf(name, sizeof name, "%s.latents", a->name);
        if (im && a->on)
            compare(&f, name, s.saved, 1, 1e-3);
        snprintf(name, sizeof name, "%s.image", a->name);
        const sm_weight *want = a->on ? reference_find(&f, "%s", name) : NULL;
        /* rounded; latents that are 1e-4 rms off move a pixel by some hundredths */
        for (int i = 0; im && want && i < WIDTH * HEIGHT * 3; i++) {
            float b = ((const float *)want->t.data)[i];
            CHECKF(fabsf((float)sumi_images_at(im, 0)->pixels[i] - b) <= 0.55f, "%s: pixel %d is %d, not %.4f", name, i,
                   sumi_images_at(im, 0)->pixels[i], b);
        }
        sumi_images_free(im);
    }
    sm_noise_free(&m);
    end(&s);
    reference_close(&f);
}

TEST(inversion_eps) { check_run(&(run){"eps", "sd1", 1, 1, true}); }
TEST(inversion_eps_cfg) { check_run(&(run){"eps_cfg", "sd1", 1.5f, 1, false}); }
TEST(inversion_v) { check_run(&(run){"v", "sd1_v", 1, 1, true}); }
TEST(inversion_v_cfg) { check_run(&(run){"v_cfg", "sd1_v", 3, 1, false}); }
TEST(inversion_part) { check_run(&(run){"part", "sd1", 1, 0.6f, false}); }
TEST(inversion_xl) { check_run(&(run){"xl", "xl", 1, 1, false}); }
TEST(inversion_xl_cfg) { check_run(&(run){"xl_cfg", "xl", 1.5f, 1, false}); }

/* ---- what follows from the definitions ----------------------------------------------------------------------------- */

enum { SIDE = 16, SMALL = 4 * 8 * 8 };

static bool begin_small(session *s, const char *model)
{
    uint8_t rgb[SIDE * SIDE * 3], *at = rgb;
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            for (int k = 0; k < 3; k++)
                *at++ = (uint8_t)(128 + 90 * sin(0.31 * x + 0.7 * k) * cos(0.23 * y));
    return begin(s, model, "inversion-small.png", rgb, SIDE, SIDE);
}

static sumi_request small(const session *s)
{
    sumi_request r = sumi_request_default();
    r.prompt = r.invert_prompt = "red disc";
    r.steps = 8;
    r.seed = 5;
    r.cfg_scale = 1;
    r.sampler = "euler";
    r.schedule = "simple";
    r.init_image = s->picture;
    r.invert = 1;
    r.vae_encode = "mean";
    r.save_latents = s->saved;
    r.save_inverted = s->inverted;
    r.save_steps = 1;
    return r;
}

/* What comes back of the picture's latents, as RMS error over their RMS. */
static double lost(session *s, const sumi_request *r, size_t n)
{
    float from[SMALL], to[SMALL];
    double sum = 0;
    sumi_images_free(draw(s, r));
    CHECK(saved(s->inverted, 0, from, n) && saved(s->saved, -1, to, n));
    for (size_t i = 0; i < n; i++)
        sum += pow(to[i] - from[i], 2) / (double)n;
    return sqrt(sum) / test_rms(from, (int64_t)n);
}

/* Drawing with the inversion's prompt leads back, the closer the more steps there are, and exactly where each was refined. */
TEST(inversion_leads_back)
{
    static const struct { const char *family; tiny_kind kind; double within; } rows[] = {
        {NULL, TINY_UNET, 1e-4}, {NULL, TINY_UNET_XL, 1e-4}, {NULL, TINY_MMDIT, 1e-4}, {"sd1", 0, 1e-3}, {"playground", 0, 1e-3}};
    for (size_t i = 0; i < SM_COUNT(rows); i++) {
        session s;
        if (begin_small(&s, rows[i].family ? family_model(rows[i].family, FAMILY_FOLDER) : tiny_model(rows[i].kind))) {
            sumi_request r = small(&s);
            size_t n = rows[i].family ? SMALL / 4 : SMALL;
            r.strength = rows[i].family ? 0.4f : 1; /* random weights denoise nothing, so higher up no fixed point is found */
            double few = lost(&s, &r, n);
            r.steps = 32;
            double many = lost(&s, &r, n);
            r.steps = 8;
            r.invert_refine = 40;
            double exact = lost(&s, &r, n);
            CHECKF(many < 0.6 * few && exact <= rows[i].within, "%s %d: %.3g lost, in 32 steps %.3g, refined %.3g",
                   rows[i].family ? rows[i].family : "tiny", rows[i].kind, few, many, exact);
        }
        end(&s);
    }
}

static bool same_pixels(const sumi_images *a, size_t i, const sumi_images *b, size_t k)
{
    const sumi_image *p = sumi_images_at(a, i), *q = sumi_images_at(b, k);
    return p && q && p->width == q->width && p->height == q->height &&
           !memcmp(p->pixels, q->pixels, (size_t)p->width * (size_t)p->height * 3);
}

/* The saved latents are --init-latents of the same start: once inverted, drawn from as often as one likes. */
TEST(inversion_saved)
{
    session s;
    if (begin_small(&s, tiny_model(TINY_UNET))) {
        sumi_request r = small(&s);
        r.prompt = "blue square";
        r.cfg_scale = 3;
        sumi_images *once = draw(&s, &r);
        sumi_request later = small(&s);
        later.prompt = r.prompt;
        later.cfg_scale = 3;
        later.init_image = later.invert_prompt = later.save_inverted = "";
        later.invert = 0;
        later.init_latents = s.inverted;
        later.width = later.height = SIDE;
        sumi_images *twice = draw(&s, &later);
        CHECK(same_pixels(once, 0, twice, 0));
        sumi_images_free(once);
        sumi_images_free(twice);
    }
    end(&s);
}

/* Picture k of a batch is the single one of seed + k, and the infotext says all it takes. */
TEST(inversion_batch_and_infotext)
{
    session s;
    sumi_infotext *t = NULL;
    if (begin_small(&s, tiny_model(TINY_UNET))) {
        sumi_request r = small(&s);
        r.vae_encode = "sample";
        r.prompt = "blue {disc|square|ring}";
        r.negative_prompt = "green";
        r.cfg_scale = 2;
        r.invert_cfg = 1.5f;
        r.invert_steps = 5;
        r.invert_refine = 1;
        r.strength = 0.7f;
        r.save_latents = r.save_inverted = "";
        r.save_steps = 0;
        r.count = 3;
        sumi_images *all = draw(&s, &r);
        CHECK(!same_pixels(all, 0, all, 2));
        r.count = 1;
        r.seed = 7;
        sumi_images *one = draw(&s, &r);
        CHECK(same_pixels(all, 2, one, 0));
        const char *text = sumi_images_at(all, 2)->infotext;
        CHECKF(strstr(text, "Invert: True, Invert prompt: red disc, Invert CFG scale: 1.5, Invert steps: 5, Invert refine: 1"),
               "%s", text);
        CHECKF(!sumi_infotext_parse(s.ctx, text, &t), "%s", sumi_error(s.ctx));
        sumi_images *again = t ? draw(&s, &t->request) : NULL;
        CHECK(same_pixels(all, 2, again, 0));
        sumi_images_free(all);
        sumi_images_free(one);
        sumi_images_free(again);
        sumi_infotext_free(t);
    }
    end(&s);
}

/* With Prompt-to-Prompt both pictures begin from what the source's prompt inverts to: where nothing is taken over the edited one
 * is what its prompt alone draws from there, and an edit that changes no word is the picture itself. */
TEST(inversion_edited)
{
    session s;
    float from[SMALL], to[SMALL];
    if (begin_small(&s, tiny_model(TINY_UNET))) {
        sumi_request r = small(&s);
        r.prompt = "blue disc";
        r.invert_prompt = "red disc";
        sumi_images *alone = draw(&s, &r);
        r.invert_prompt = "";
        r.edit_from_prompt = "red disc";
        r.p2p_cross_steps = r.p2p_self_steps = "0";
        sumi_images *beside = draw(&s, &r);
        CHECK(same_pixels(alone, 0, beside, 0) && saved(s.saved, -1, from, SMALL));
        r.p2p_cross_steps = "0.8";
        sumi_images *taken = draw(&s, &r);
        CHECK(saved(s.saved, -1, to, SMALL) && memcmp(from, to, sizeof from));
        r.prompt = "red disc";
        r.invert_refine = 40;
        sumi_images *same = draw(&s, &r);
        CHECK(saved(s.inverted, 0, from, SMALL) && saved(s.saved, -1, to, SMALL));
        CHECKF(test_maxdiff(to, from, SMALL) < 1e-3 * test_rms(from, SMALL), "%g of %g", test_maxdiff(to, from, SMALL),
               test_rms(from, SMALL));
        sumi_images_free(alone);
        sumi_images_free(beside);
        sumi_images_free(taken);
        sumi_images_free(same);
    }
    end(&s);
}

/* Of a schedule of its own the inversion takes what is below the level where drawing begins. */
TEST(inversion_steps)
{
    static const struct { int steps; float strength; int run; } rows[] = {{0, 1, 8}, {0, 0.5f, 5}, {5, 1, 5}, {12, 1, 12},
                                                                          {1, 1, 1}, {12, 0.5f, 8}};
    session s;
    float x[SMALL];
    bool ok = begin_small(&s, tiny_model(TINY_UNET));
    for (size_t i = 0; ok && i < SM_COUNT(rows); i++) {
        sumi_request r = small(&s);
        r.invert_steps = rows[i].steps;
        r.strength = rows[i].strength;
        sumi_images_free(draw(&s, &r));
        CHECKF(saved(s.inverted, rows[i].run - 1, x, SMALL) && !saved(s.inverted, rows[i].run, x, SMALL), "row %zu: not %d steps",
               i, rows[i].run);
    }
    end(&s);
}

/* A prompt that changes says at each level what it would say there on the way down: of 8 steps the lower three are
 * the second text's (A1111 counts the one at the half to the first). */
TEST(inversion_prompt_changes)
{
    session s;
    float second[2][SMALL], both[2][SMALL];
    if (begin_small(&s, tiny_model(TINY_UNET))) {
        sumi_request r = small(&s);
        r.invert_prompt = "blue disc";
        sumi_images_free(draw(&s, &r));
        CHECK(saved(s.inverted, 3, second[0], SMALL) && saved(s.inverted, 4, second[1], SMALL));
        r.invert_prompt = "[red:blue:0.5] disc";
        sumi_images_free(draw(&s, &r));
        CHECK(saved(s.inverted, 3, both[0], SMALL) && saved(s.inverted, 4, both[1], SMALL));
        CHECK(!memcmp(second[0], both[0], sizeof both[0]) && memcmp(second[1], both[1], sizeof both[1]));
    }
    end(&s);
}

/* A mask whose left half is white. */
static const char *left_half(session *s)
{
    static char path[300];
    uint8_t white[SIDE * SIDE * 3];
    for (int i = 0; i < SIDE * SIDE * 3; i++)
        white[i] = i / 3 % SIDE < SIDE / 2 ? 255 : 0;
    snprintf(path, sizeof path, "%s", test_tmp("inversion-mask.png"));
    CHECK(!sumi_image_save(s->ctx, &(sumi_image){.width = SIDE, .height = SIDE, .channels = 3, .pixels = white}, path));
    return path;
}

/* Outside the mask the picture comes out as it was. */
TEST(inversion_mask)
{
    session s;
    if (begin_small(&s, tiny_model(TINY_UNET))) {
        int kept = 0, drawn = 0;
        sumi_request r = small(&s);
        sumi_images *from = NULL;
        r.prompt = "blue square";
        r.mask = left_half(&s);
        r.mask_blur = 0;
        sumi_images *im = draw(&s, &r);
        CHECK(!sumi_image_load(s.ctx, s.picture, &from));
        for (int i = 0; im && from && i < SIDE * SIDE * 3; i++)
            *(i / 3 % SIDE < SIDE / 2 ? &drawn : &kept) += sumi_images_at(im, 0)->pixels[i] != sumi_images_at(from, 0)->pixels[i];
        CHECKF(!kept && drawn > 100, "%d outside, %d inside", kept, drawn);
        sumi_images_free(im);
        sumi_images_free(from);
    }
    end(&s);
}

/* With diffusers' rules what is outside goes down the way that it came up, level by level (DiffEdit), for each picture of a
 * round. */
TEST(inversion_mask_by_levels)
{
    enum { PICTURES = 2, ALL = PICTURES * SMALL };
    session s;
    float up[ALL], down[ALL];
    if (begin_small(&s, tiny_model(TINY_UNET))) {
        sumi_request r = small(&s);
        r.prompt = "blue square";
        r.mask = left_half(&s);
        r.edit_rules = "diffusers";
        r.vae_encode = "sample";
        r.count = PICTURES;
        sumi_images_free(draw(&s, &r));
        for (int step = 1; step <= r.steps; step++) { /* before it, at last the result */
            int inside = 0, outside = 0;
            CHECK(saved(s.inverted, r.steps - step, up, ALL) && saved(s.saved, step < r.steps ? step : -1, down, ALL));
            for (int i = 0; i < ALL; i++)
                *(i % 8 < 4 ? &inside : &outside) += up[i] != down[i];
            CHECKF(!outside && inside > ALL / 4, "step %d: %d outside differ, %d inside", step, outside, inside);
        }
    }
    end(&s);
}

typedef struct told { int64_t step, steps; int inverted, warned; } told;

static void tell(void *user, const sumi_progress *p)
{
    told *t = user;
    bool inverts = !strcmp(p->stage, "invert");
    t->warned += p->message && strstr(p->message, "draws noise") != NULL;
    if ((!inverts && strcmp(p->stage, "sample")) || p->message)
        return;
    CHECKF(p->step > t->step && p->step <= p->steps, "%lld of %lld after %lld", (long long)p->step,
           (long long)p->steps, (long long)t->step);
    t->inverted += inverts;
    t->step = p->step;
    t->steps = p->steps;
}

/* Progress and plan count the inversion's calls; a sampler that draws noise is remarked on. */
TEST(inversion_counted)
{
    session s;
    sumi_images *im = NULL;
    sumi_plan_info plain, info;
    if (begin_small(&s, tiny_model(TINY_UNET))) {
        sumi_request r = small(&s);
        told t = {0};
        sumi_callbacks cb = {.progress = tell, .user = &t};
        r.invert_refine = 2;
        r.invert_cfg = 2; /* two predictions a call; drawing takes one */
        CHECKF(!sumi_generate(s.ctx, s.m, &r, &cb, &im), "%s", sumi_error(s.ctx));
        CHECKF(t.steps == 8 + 24 && t.step == 32 && t.inverted == 8 && !t.warned, "%lld of %lld, %d", (long long)t.step,
               (long long)t.steps, t.inverted);
        sumi_images_free(im);
        CHECKF(!sumi_plan_request(s.ctx, s.m, &r, &info), "%s", sumi_error(s.ctx));
        sumi_request i2i = sumi_request_default();
        i2i.prompt = "red disc";
        i2i.cfg_scale = 1;
        i2i.steps = 8;
        i2i.init_image = s.picture;
        i2i.strength = 1;
        CHECK(!sumi_plan_request(s.ctx, s.m, &i2i, &plain));
        double call = plain.step_flops, more = info.total_flops - plain.total_flops;
        CHECKF(info.steps == 32 && plain.steps == 8 && more > 24 * 2 * call * 0.99 && more < 24 * 2 * call * 1.2,
               "%d steps, %g of %g", info.steps, more, call);
        r.sampler = "euler_a";
        t = (told){0};
        CHECKF(!sumi_generate(s.ctx, s.m, &r, &cb, &im), "%s", sumi_error(s.ctx));
        CHECKF(t.warned == 1, "%d", t.warned);
        sumi_images_free(im);
    }
    end(&s);
}

TEST(inversion_refused)
{
    static const struct { const char *says; const char *set[4][2]; } rows[] = {
        {"--invert needs a picture: --init-image FILE", {{"init-image", ""}}},
        {"--save-inverted: nothing is inverted without --invert 1", {{"invert", "0"}}},
        {"--save-inverted: same.safetensors is --save-latents' file",
         {{"save-inverted", "same.safetensors"}, {"save-latents", "same.safetensors"}}},
        {"--init-latents: --invert makes the start itself", {{"init-latents", "x.safetensors"}}},
        {"--variation-strength: it changes the noise of the start", {{"variation-strength", "0.5"}}},
        {"--seed-resize: it changes the noise of the start", {{"seed-resize-width", "64"}, {"seed-resize-height", "64"}}},
        {"--refiner: --invert goes up with one model only", {{"refiner", "x.safetensors"}}},
        {"--invert-steps: --sigmas lists the levels",
         {{"sigmas", "0.9,0.5,0"}, {"schedule", ""}, {"steps", "0"}, {"invert-steps", "3"}}},
        {"--masked-content: latent noise leaves nothing", {{"masked-content", "latent noise"}}},
        {"--invert-steps: 2000 is out of range", {{"invert-steps", "2000"}}},
        {"--invert-refine: -1 is out of range", {{"invert-refine", "-1"}}},
        {"--save-inverted: no-such/x.safetensors: the folder cannot be written to", {{"save-inverted", "no-such/x.safetensors"}}},
        {"--hires-...: hires fix begins from noise", {{"hires-upscale", "2"}}},
        {"--invert-steps: masks by --edit-rules diffusers",
         {{"edit-rules", "diffusers"}, {"outpaint-left", "8"}, {"invert-steps", "3"}}},
        {"--sampler: dpm_adaptive goes by levels of its own",
         {{"edit-rules", "diffusers"}, {"outpaint-left", "8"}, {"sampler", "dpm_adaptive"}}},
        {"--sampler: dpm_fast goes by levels of its own",
         {{"edit-rules", "diffusers"}, {"outpaint-left", "8"}, {"sampler", "DPM fast"}}},
    };
    session s;
    bool ok = begin_small(&s, tiny_model(TINY_UNET));
    for (size_t i = 0; ok && i < SM_COUNT(rows); i++) {
        sumi_request r = small(&s);
        sumi_images *im = NULL;
        sumi_status st = SUMI_OK;
        for (int k = 0; k < 4 && rows[i].set[k][0] && !st; k++)
            st = sumi_request_set(s.ctx, &r, rows[i].set[k][0], rows[i].set[k][1]);
        st = st ? st : sumi_generate(s.ctx, s.m, &r, NULL, &im);
        CHECKF(st && strstr(sumi_error(s.ctx), rows[i].says) && !strchr(sumi_error(s.ctx), '\n') && !im,
               "row %zu: %s", i, sumi_error(s.ctx));
        sumi_images_free(im);
    }
    end(&s);
    static const char *const models[] = {"inpaint", "ip2p"};
    for (size_t i = 0; i < SM_COUNT(models); i++) {
        if (begin_small(&s, family_model(models[i], FAMILY_FOLDER))) {
            sumi_request r = small(&s);
            sumi_images *im = NULL;
            CHECKF(sumi_generate(s.ctx, s.m, &r, NULL, &im) == SUMI_E_ARG && strstr(sumi_error(s.ctx), "looks at the picture"),
                   "%s: %s", models[i], sumi_error(s.ctx));
        }
        end(&s);
    }
}

/* The plan is what the request takes, within a tenth, and every allocation that fails is an error. */
TEST(inversion_memory)
{
    session s;
    sumi_plan_info info = {0};
    const char *model = family_model("sd1", FAMILY_FOLDER);
    for (int i = 0; i < 2; i++) {
        if (begin_small(&s, model)) {
            sumi_request r = small(&s);
            r.width = r.height = 64;
            r.invert_cfg = 2;
            if (!i)
                CHECKF(!sumi_plan_request(s.ctx, s.m, &r, &info), "%s", sumi_error(s.ctx));
            else {
                sumi_images_free(draw(&s, &r));
                double took = (double)sumi_memory_peak(s.ctx), said = (double)info.peak_bytes - (double)info.weight_bytes;
                CHECKF(said > 0.9 * took && said < 1.1 * took, "said %.0f, took %.0f", said, took);
            }
        }
        end(&s);
    }
    if (begin_small(&s, model)) {
        sumi_request r = small(&s);
        sumi_status st = SUMI_E_MEMORY;
        sumi_images *im = NULL;
        size_t before = s.ctx->mem.total;
        int64_t at = 1;
        r.mask = left_half(&s);
        r.edit_rules = "diffusers";
        r.steps = 2;
        for (; st && at < 100000; at += 1 + at / 40) {
            s.ctx->mem.fail_at = at;
            st = sumi_generate(s.ctx, s.m, &r, NULL, &im);
            CHECKF(!st || (st == SUMI_E_MEMORY && !im), "allocation %lld: %d, %s", (long long)at, st, sumi_error(s.ctx));
            s.ctx->mem.fail_at = 0;
            sumi_images_free(im);
            im = NULL;
            CHECKF(s.ctx->mem.total == before, "allocation %lld: %zu bytes are left", (long long)at, s.ctx->mem.total - before);
        }
        CHECKF(at > 50, "%lld", (long long)at);
    }
    end(&s);
}
