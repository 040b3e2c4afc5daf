/* The tiny autoencoder: against diffusers' AutoencoderTiny (tools/fixtures/make_taesd.py), its files by every program's names,
 * bands, requests and previews that use it; previews by sums over channels. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "families.h"
#include "io/safetensors.h"
#include "pipeline/preview.h"
#include "pipeline/sheet.h"
#include "pipeline/tiny.h"
#include "reference.h"
#include "requests.h"
#include "test.h"

/* ---- the model ----------------------------------------------------------------------------------------------------- */

/* The fixture's w.* under diffusers' names. */
static sm_weights *weights_of(const reference *r, sm_err *e)
{
    sm_weights *w = sm_weights_new(NULL, e);
    for (size_t i = 0; i < sm_weights_count(r->w); i++) {
        const sm_weight *x = sm_weights_at(r->w, i);
        if (!strncmp(x->name, "w.", 2))
            sm_weights_add(w, x->name + 2, &x->t, e);
    }
    return w;
}

static void compare(const reference *r, const sm_graph *g, const sm_plan *p, const char *what,
                    const sm_node *out, const char *backend)
{
    reference_near(r, what, sm_plan_data(p, out), sm_numel(out), 1e-4, backend);
    for (size_t i = 0; i < sm_weights_count(r->w); i++) {
        const char *name = sm_weights_at(r->w, i)->name, *half = strstr(what, "image") ? "tap.decoder." : "tap.encoder.";
        const sm_node *n = !strncmp(name, half, strlen(half)) ? nn_tap(g, name + 4) : NULL;
        if (n && sm_plan_data(p, n))
            reference_near(r, name, sm_plan_data(p, n), sm_numel(n), 1e-4, backend);
    }
}

TEST(taesd_as_diffusers)
{
    reference r;
    sm_err e = {0};
    const sm_backend *be[4];
    sm_taesd_config c = {0};
    sm_weights *w = reference_open(&r, "taesd_tiny.safetensors") ? weights_of(&r, &e) : NULL;
    CHECKF(w && !sm_detect_taesd(w, &c, "fixture", &e), "%s", e.msg);
    CHECK(c.decoder.channels == 4 && c.encoder.channels == 4 && c.decoder.factor == 4 && c.encoder.factor == 4);
    for (int half = 0; half < 2 && !e.code; half++)
        for (int b = 0, n = sm_cpu_backends(be); b < n; b++) {
            const sm_weight *x = reference_find(&r, half ? "in.image" : "in.latent");
            sm_graph *g = sm_graph_new(NULL, &e);
            nn_scope s = nn_root(g, w, NULL);
            sm_node *in = sm_input(g, "in", SM_F32, 4, x->t.dims);
            sm_node *all[64] = {half ? sm_taesd_encode(&s, &c, in) : sm_taesd_decode(&s, &c, in)};
            int outs = 1;
            for (size_t i = 0; i < sm_weights_count(r.w) && outs < 64; i++) {
                const char *name = sm_weights_at(r.w, i)->name;
                sm_node *tap = strncmp(name, half ? "tap.encoder." : "tap.decoder.", 12) ? NULL : nn_tap(g, name + 4);
                CHECKF(strncmp(name, half ? "tap.encoder." : "tap.decoder.", 12) || tap, "%s was not recorded", name);
                if (tap)
                    all[outs++] = tap;
            }
            CHECK(outs > 7);
            sm_plan *p = sm_plan_new(g, outs, all, be[b], &e);
            CHECKF(p, "%s", e.msg);
            if (p) {
                memcpy(sm_plan_data(p, in), x->t.data, x->bytes);
                CHECK(!sm_plan_run(p, NULL, NULL, &e));
                compare(&r, g, p, half ? "out.latent" : "out.image", all[0], be[b]->name);
            }
            sm_plan_free(p);
            sm_graph_free(g);
        }
    sm_weights_unref(&w);
    reference_close(&r);
}

TEST(taesd_names)
{
    static const struct { const char *stored; bool decoder; const char *name; } rows[] = {
        {"decoder.layers.3.conv.0.weight", false, "decoder.layers.3.conv.0.weight"},
        {"encoder.layers.0.bias", true, "encoder.layers.0.bias"},
        {"1.weight", true, "decoder.layers.0.weight"}, {"19.bias", true, "decoder.layers.18.bias"},
        {"14.bias", false, "encoder.layers.14.bias"},
        {"taesd_decoder.3.conv.4.bias", false, "decoder.layers.2.conv.4.bias"},
        {"taesd_encoder.1.skip.weight", true, "encoder.layers.1.skip.weight"},
        {"decoder.1.weight", false, "decoder.layers.0.weight"}, {"decoder.up_blocks.0.resnets.0.conv1.weight", true, NULL},
        {"0.weight", true, NULL}, {"3.conv.1.weight", true, NULL}, {"3.conv.0.weights", true, NULL}, {"99.weight", true, NULL},
        {"-1.weight", false, NULL}};
    for (size_t i = 0; i < SM_COUNT(rows); i++) {
        char out[64];
        bool is = sm_taesd_name(rows[i].stored, rows[i].decoder, out, sizeof out);
        CHECKF(is == (rows[i].name != NULL) && (!is || !strcmp(out, rows[i].name)), "%s: %s",
               rows[i].stored, is ? out : "no name");
    }
}

/* ---- files --------------------------------------------------------------------------------------------------------- */

typedef enum style { DIFFUSERS, AUTHORS_DECODER, AUTHORS_ENCODER, COMFY, STYLES } style;

/* A file of the fixture's weights; NULL in extra: nothing else. */
static void write_file(const reference *r, style how, const char *extra, const char *path)
{
    static char names[96][80];
    sm_st_item item[96] = {{0}};
    size_t n = 0;
    sm_err e = {0};
    for (size_t i = 0; i < sm_weights_count(r->w); i++) {
        const sm_weight *x = sm_weights_at(r->w, i);
        int layer, at = 0;
        bool decoder = !strncmp(x->name, "w.decoder.", 10);
        if (sscanf(x->name + (decoder ? 10 : 2), decoder ? "layers.%d%n" : "encoder.layers.%d%n", &layer, &at) != 1 ||
            strncmp(x->name, "w.", 2) || (how == AUTHORS_DECODER && !decoder) || (how == AUTHORS_ENCODER && decoder))
            continue;
        const char *rest = x->name + (decoder ? 10 : 2) + at;
        if (how == DIFFUSERS)
            snprintf(names[n], sizeof names[n], "%s", x->name + 2);
        else
            snprintf(names[n], sizeof names[n], "%s%d%s", how != COMFY ? "" : decoder ? "taesd_decoder."
                                                                                      : "taesd_encoder.", layer + decoder, rest);
        item[n].name = names[n];
        item[n++].t = x->t;
    }
    if (extra) {
        item[n] = item[0];
        item[n++].name = extra;
    }
    CHECKF(!sm_st_write(path, n, item, 0, NULL, NULL, &e), "%s", e.msg);
}

static sumi_status load(sumi_context *ctx, const char *taesd, sumi_model **m)
{
    sumi_model_options o = {.path = family_model("sd1", FAMILY_FOLDER), .tokenizer = family_tokenizer(), .taesd = taesd};
    return sumi_model_load_with(ctx, &o, m);
}

/* What most tests here begin with: a context, the fixture, room for a file's name and for a model with it. */
typedef struct opened {
    reference r;
    sumi_context *ctx;
    sumi_model *m;
    char path[300];
} opened;

static void open_fixture(opened *o, const char *file)
{
    *o = (opened){.m = NULL};
    snprintf(o->path, sizeof o->path, "%s", test_tmp(file));
    CHECK(!sumi_context_new(NULL, &o->ctx) && reference_open(&o->r, "taesd_tiny.safetensors"));
}

static bool open_model(opened *o, const char *file, style how)
{
    open_fixture(o, file);
    write_file(&o->r, how, NULL, o->path);
    bool is = !load(o->ctx, o->path, &o->m);
    CHECKF(is, "%s", sumi_error(o->ctx));
    return is;
}

static void close_fixture(opened *o)
{
    sumi_model_free(o->m);
    reference_close(&o->r);
    sumi_context_free(o->ctx);
}

static sumi_request small(void)
{
    sumi_request r = sumi_request_default();
    r.prompt = "a red ring";
    r.seed = 40;
    r.steps = 2;
    r.width = 32;
    r.height = 40;
    r.sampler = "euler";
    r.vae_decoder = "taesd";
    return r;
}

enum { W = 8, H = 10, EACH = W * H * 4 }; /* latents of that */

/* What the tiny decoder makes of a latent [4, H, W] of a file, 8 bit. */
static void expected(const struct sumi_model *m, const char *file, uint8_t *rgb)
{
    sm_err e = {0};
    sm_weights *w = sm_weights_new(NULL, &e);
    sm_tensors_load(file, w, NULL, NULL, &e);
    const sm_weight *x = sm_weights_find(w, "latents");
    CHECKF(x && x->bytes == EACH * sizeof(float), "%s", e.msg);
    sm_job j = {.m = m, .be = sm_cpu_backend("scalar", &e), .mem = m->mem, .r = sumi_request_default()};
    sm_tiny_bands d = sm_tiny_bands_of(&j, false, H, W);
    float z[EACH];
    for (int i = 0; x && i < EACH; i++)
        z[i] = ((const float *)x->t.data)[i % 4 * W * H + i / 4];
    const float *y = x ? sm_tiny_run(&d, z, &e) : NULL;
    CHECKF(y, "%s", e.msg);
    if (y)
        sm_pixels_from_float(y, 32 * 40 * 3, rgb);
    sm_tiny_close(&d);
    sm_weights_unref(&w);
}

static int off_by(const uint8_t *a, const uint8_t *b, int n)
{
    int worst = 0;
    for (int i = 0; i < n; i++)
        worst = SM_MAX(worst, abs(a[i] - b[i]));
    return worst;
}

typedef struct heard { char told[400]; } heard;

static void on_message(void *user, const sumi_progress *p)
{
    heard *h = user;
    if (p->message)
        snprintf(h->told, sizeof h->told, "%s", p->message);
}

static void on_look(void *user, int index, int step, int width, int height, const uint8_t *rgb) { (void)rgb; }

TEST(taesd_decodes_requests)
{
    opened o;
    char latents[300];
    uint8_t want[32 * 40 * 3];
    snprintf(latents, sizeof latents, "%s", test_tmp("tiny-latents.safetensors"));
    open_fixture(&o, "tiny.safetensors");
    for (int how = DIFFUSERS; how < STYLES; how++) {
        sumi_model *m = NULL;
        sumi_images *im = NULL;
        sumi_request q = small();
        q.save_latents = latents;
        write_file(&o.r, (style)how, how == COMFY ? "vae_scale" : NULL, o.path);
        CHECKF(!load(o.ctx, o.path, &m), "%s", sumi_error(o.ctx));
        if (how == AUTHORS_ENCODER)
            CHECK(sumi_generate(o.ctx, m, &q, NULL, &im) == SUMI_E_ARG &&
                  strstr(sumi_error(o.ctx), "--vae-decoder taesd: the file given with --taesd has no decoder"));
        else if (!sumi_generate(o.ctx, m, &q, NULL, &im)) {
            expected(m, latents, want);
            CHECKF(off_by(want, sumi_images_at(im, 0)->pixels, (int)sizeof want) <= 1, "names of kind %d", how);
            CHECKF(strstr(sumi_images_at(im, 0)->infotext, "VAE Decoder: TAESD") &&
                   strstr(sumi_images_at(im, 0)->infotext, "TAESD file: "), "%s", sumi_images_at(im, 0)->infotext);
        } else {
            CHECKF(false, "%s", sumi_error(o.ctx));
        }
        sumi_images_free(im);
        sumi_model_free(m);
    }
    close_fixture(&o);
}

TEST(taesd_encodes_requests)
{
    opened o;
    char picture[300];
    snprintf(picture, sizeof picture, "%s", test_tmp("tiny-init.png"));
    if (open_model(&o, "tiny-both.safetensors", DIFFUSERS)) {
        sumi_images *a = NULL, *b = NULL, *c = NULL;
        sumi_request q = small();
        CHECKF(!sumi_generate(o.ctx, o.m, &q, NULL, &a) && !sumi_image_save(o.ctx, sumi_images_at(a, 0), picture), "%s",
               sumi_error(o.ctx));
        q.init_image = picture;
        CHECKF(!sumi_generate(o.ctx, o.m, &q, NULL, &b), "%s", sumi_error(o.ctx));
        q.vae_encoder = "taesd";
        CHECKF(!sumi_generate(o.ctx, o.m, &q, NULL, &c), "%s", sumi_error(o.ctx));
        CHECK(b && c && off_by(sumi_images_at(b, 0)->pixels, sumi_images_at(c, 0)->pixels, 32 * 40 * 3) > 8);
        CHECK(c && strstr(sumi_images_at(c, 0)->infotext, "VAE Encoder: TAESD"));
        sumi_plan_info tiny, full;
        CHECK(!sumi_plan_request(o.ctx, o.m, &q, &tiny));
        q.vae_encoder = q.vae_decoder = "full";
        CHECK(!sumi_plan_request(o.ctx, o.m, &q, &full) && full.decode_flops != tiny.decode_flops &&
              full.encode_flops != tiny.encode_flops);
        sumi_images_free(a);
        sumi_images_free(b);
        sumi_images_free(c);
        q = small();
        requests_out_of_memory(o.ctx, o.m, &q);
    }
    close_fixture(&o);
}

/* One that nothing uses is told and, as one that only previews use, not recorded: the picture is the same without it. */
TEST(taesd_idle)
{
    static const struct { const char *line, *preview; bool recorded; const char *told; } rows[] = {
        {"x", NULL, false, "no effect: --taesd without --vae-decoder taesd, --vae-encoder taesd or --preview-method taesd"},
        {"x --hires-steps 2 --vae-encoder taesd", NULL, false,
         "no effect: --vae-encoder without --init-image; --hires-steps without --hires-upscale; --taesd without --vae-decoder "
         "taesd or --preview-method taesd"},
        {"x", "full", false, "no effect: --taesd without --vae-decoder taesd, --vae-encoder taesd or --preview-method taesd"},
        {"x", "TAESD", false, ""}, {"x --vae-decoder taesd", NULL, true, ""}, {"x --vae-decoder Taesd --vae-tile 4", NULL, true,
         "no effect: --vae-tile without --vae-decoder full"},
        {"x --vae-encoder taesd --hires-upscale 2 --hires-upscaler lanczos --strength 0.5", NULL, true, ""}};
    opened o;
    open_model(&o, "tiny-idle.safetensors", DIFFUSERS);
    for (size_t i = 0; o.m && i < SM_COUNT(rows); i++) {
        heard h = {0};
        sumi_callbacks cb = {.preview = rows[i].preview ? on_look : NULL, .preview_method = rows[i].preview,
                             .progress = on_message, .user = &h};
        sumi_request q = sumi_request_default();
        sumi_images *im = NULL;
        char *texts = NULL;
        CHECKF(!sumi_request_read(o.ctx, rows[i].line, &q, &texts), "%s", sumi_error(o.ctx));
        q.steps = 2;
        q.width = q.height = 32;
        CHECKF(!sumi_generate(o.ctx, o.m, &q, &cb, &im), "%s: %s", rows[i].line, sumi_error(o.ctx));
        CHECKF(!strcmp(h.told, rows[i].told), "%s: '%s'", rows[i].line, h.told);
        const char *text = im ? sumi_images_at(im, 0)->infotext : "";
        CHECKF(rows[i].recorded == (strstr(text, ", TAESD file: ") != NULL) && strstr(text, ", Model file: ") &&
               strstr(text, ", Tokenizer file: "), "%s: %s", rows[i].line, text);
        sumi_images_free(im);
        sumi_text_free(texts);
    }
    close_fixture(&o);
}

/* A decoder whose layers are numbered in two ways may be either of two; so is one that has a layer under both names. */
TEST(taesd_files_with_two_namings)
{
    static const struct { style how; const char *extra, *message; } rows[] = {
        {DIFFUSERS, "decoder.1.weight", "name the layers of one decoder in two ways"},
        {DIFFUSERS, "taesd_encoder.0.weight", "name the layers of one encoder in two ways"},
        {AUTHORS_DECODER, "decoder.layers.40.bias", "name the layers of one decoder in two ways"},
        {COMFY, "decoder.layers.40.bias", "name the layers of one decoder in two ways"},
        {AUTHORS_DECODER, "taesd_decoder.1.weight", "appears twice"}};
    opened o;
    open_fixture(&o, "tiny-two.safetensors");
    for (size_t i = 0; i < SM_COUNT(rows); i++) {
        write_file(&o.r, rows[i].how, rows[i].extra, o.path);
        CHECKF(load(o.ctx, o.path, &o.m) && strstr(sumi_error(o.ctx), rows[i].message) && strstr(sumi_error(o.ctx), "--taesd: "),
               "%s: %s", rows[i].extra, sumi_error(o.ctx));
    }
    close_fixture(&o);
}

TEST(taesd_files_that_do_not_fit)
{
    opened o;
    sumi_images *im = NULL;
    open_fixture(&o, "tiny-bad.safetensors");
    write_file(&o.r, DIFFUSERS, "decoder.mid_block.weight", o.path);
    CHECK(load(o.ctx, o.path, &o.m) == SUMI_E_MODEL &&
          strstr(sumi_error(o.ctx), "'decoder.mid_block.weight' is no tensor of a tiny autoencoder"));
    write_file(&o.r, DIFFUSERS, NULL, o.path);
    CHECK(load(o.ctx, test_fixture("vae_tiny.safetensors"), &o.m) == SUMI_E_MODEL && strstr(sumi_error(o.ctx), "--taesd: "));
    CHECK(load(o.ctx, "/nowhere/tiny.safetensors", &o.m) == SUMI_E_FILE && !o.m);
    CHECK(!load(o.ctx, NULL, &o.m));
    sumi_request q = small();
    CHECK(sumi_generate(o.ctx, o.m, &q, NULL, &im) == SUMI_E_ARG &&
          strstr(sumi_error(o.ctx), "--vae-decoder taesd: needs a tiny decoder"));
    close_fixture(&o);
}

/* Bands of 9 rows of latents against the whole: the same up to the rounding of convolutions that are cut otherwise. in: [40, 6]
 * latents or their pixels. */
static void check_bands(const sm_job *j, bool encoder, const float *in)
{
    enum { RH = 40, RW = 6 };
    sm_err e = {0};
    int64_t n = RH * RW * (encoder ? 4 : 48);
    sm_tiny_bands whole = sm_tiny_bands_of(j, encoder, RH, RW), bands = whole;
    CHECK(whole.window == RH);
    bands.rows = 9;
    bands.window = 9 + 2 * (encoder ? &j->m->tiny->c.encoder : &j->m->tiny->c.decoder)->reach;
    CHECK(bands.window < RH);
    const float *a = sm_tiny_run(&whole, in, &e), *b = sm_tiny_run(&bands, in, &e);
    CHECKF(a && b, "%s", e.msg);
    if (a && b)
        CHECKF(test_maxdiff(a, b, n) <= 2e-5 * test_rms(a, n), "%s, circular %d: %.3g of %.3g", encoder ? "encoder" : "decoder",
               j->circular[0], test_maxdiff(a, b, n), test_rms(a, n));
    CHECK(sm_tiny_flops(&bands) > sm_tiny_flops(&whole) &&
          sm_plan_activation_bytes(bands.part.p) < sm_plan_activation_bytes(whole.part.p));
    sm_tiny_close(&whole);
    sm_tiny_close(&bands);
}

/* Edges that meet included. Large pictures are cut by themselves. */
TEST(taesd_in_bands)
{
    opened o;
    sm_err e = {0};
    static float z[40 * 6 * 4], x[40 * 6 * 48];
    test_fill(z, SM_COUNT(z), 9, -2, 2);
    test_fill(x, SM_COUNT(x), 10, -1, 1);
    open_model(&o, "tiny-bands.safetensors", DIFFUSERS);
    for (int k = 0; o.m && k < 4; k++) {
        sm_job j = {.m = o.m, .be = sm_cpu_backend("", &e), .mem = o.m->mem, .r = sumi_request_default(),
                    .circular = {k / 2, k / 2}};
        check_bands(&j, k % 2, k % 2 ? x : z);
        sm_tiny_bands large = sm_tiny_bands_of(&j, k % 2, 512, 256);
        CHECKF(large.rows > 16 && large.window * 256 <= 128 * 128, "%d of %d rows", large.rows, large.window);
    }
    close_fixture(&o);
}

/* ---- previews ------------------------------------------------------------------------------------------------------ */

typedef struct looks { int calls, width, height; uint8_t last[32 * 40 * 3]; } looks;

static void on_preview(void *user, int index, int step, int width, int height, const uint8_t *rgb)
{
    looks *l = user;
    l->calls++;
    l->width = width;
    l->height = height;
    memcpy(l->last, rgb, (size_t)width * (size_t)height * 3);
}

TEST(taesd_previews)
{
    opened o;
    if (open_model(&o, "tiny-previews.safetensors", AUTHORS_DECODER)) {
        sumi_images *im = NULL, *plain = NULL;
        looks l = {0};
        sumi_callbacks cb = {.preview = on_preview, .user = &l, .preview_method = "taesd"};
        sumi_request q = small();
        CHECKF(!sumi_generate(o.ctx, o.m, &q, &cb, &im) && l.calls == 2 && l.width == 32 && l.height == 40, "%s",
               sumi_error(o.ctx));
        CHECK(im && off_by(l.last, sumi_images_at(im, 0)->pixels, 32 * 40 * 3) <= 1); /* Euler's last estimate is the picture */
        q.vae_decoder = "full";
        CHECK(!sumi_generate(o.ctx, o.m, &q, &cb, &plain) && off_by(l.last, sumi_images_at(im, 0)->pixels, 32 * 40 * 3) <= 1);
        CHECK(plain && off_by(l.last, sumi_images_at(plain, 0)->pixels, 32 * 40 * 3) > 8);
        sumi_images_free(plain);
        sumi_images_free(im);
        l.calls = 0;
        cb.preview_method = "Approx cheap";
        CHECKF(!sumi_generate(o.ctx, o.m, &q, &cb, &im) && l.calls == 2 && l.width == W && l.height == H, "%s",
               sumi_error(o.ctx));
        CHECK(!sumi_generate(o.ctx, o.m, &q, NULL, &plain) &&
              !off_by(sumi_images_at(im, 0)->pixels, sumi_images_at(plain, 0)->pixels, 32 * 40 * 3));
        sumi_images_free(im);
        sumi_images_free(plain);
        cb.preview_method = "best";
        CHECK(sumi_generate(o.ctx, o.m, &q, &cb, &im) == SUMI_E_ARG &&
              strstr(sumi_error(o.ctx), "preview method 'best' is unknown"));
    }
    close_fixture(&o);
}

/* Colours that are a sum over the channels are found again; a constant channel gets nothing. */
TEST(preview_sums_over_channels)
{
    enum { N = 400, C = 3 };
    static const float factor[C][3] = {{0.2f, -0.1f, 0.05f}, {0.1f, 0.15f, -0.2f}, {0, 0, 0}}, bias[3] = {0.1f, -0.2f, 0.3f};
    float latent[N * C];
    uint8_t rgb[N * 3], again[N * 3];
    test_fill(latent, N * C, 4, -1.5f, 1.5f);
    for (int i = 0; i < N; i++) {
        latent[i * C + 2] = 0;
        for (int c = 0; c < 3; c++) {
            float y = bias[c];
            for (int k = 0; k < C; k++)
                y += factor[k][c] * latent[i * C + k];
            rgb[i * 3 + c] = (uint8_t)lrintf((y + 1) * 127.5f);
        }
    }
    sm_linear_rgb l;
    CHECK(sm_linear_fit(latent, rgb, N, C, &l) && l.channels == C && !sm_linear_fit(latent, rgb, 1, SM_LINEAR_MOST + 1, &l));
    sm_linear_fit(latent, rgb, N, C, &l);
    for (int c = 0; c < 3; c++)
        for (int k = 0; k <= C; k++) {
            float got = k < C ? l.factor[k][c] : l.bias[c], want = k < C ? factor[k][c] : bias[c];
            CHECKF(fabsf(got - want) < 2e-3f, "channel %d, colour %d: %g, not %g", k, c, (double)got, (double)want);
        }
    sm_linear_apply(&l, latent, N, again);
    CHECK(off_by(rgb, again, N * 3) <= 1);
}

/* For tools/gallery.sh: a tiny autoencoder of family sd1's latents. */
TEST(stand_ins_taesd)
{
    reference r;
    const char *dir = getenv("SUMI_STAND_INS");
    char path[400];
    snprintf(path, sizeof path, "%s%s", dir ? dir : test_tmp("taesd.safetensors"), dir ? "/taesd.safetensors" : "");
    if (reference_open(&r, "taesd_tiny.safetensors"))
        write_file(&r, DIFFUSERS, NULL, path);
    reference_close(&r);
}
