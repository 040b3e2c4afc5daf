/* What requests that encode pictures need of a model: an encoder that is whole, said before anything is computed, whose numbers
 * are numbers, and the memory of hires fix between its passes. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "families.h"
#include "io/safetensors.h"
#include "test.h"

typedef enum fault { WHOLE, NO_ENCODER, NAN_ENCODER } fault;

/* The tiny SD 1 file with that fault. */
static const char *model_with(fault f)
{
    enum { MOST = 800 };
    static char paths[3][300];
    static const char *const names[] = {"encoder-whole.safetensors", "encoder-none.safetensors", "encoder-nan.safetensors"};
    static float bias[64];
    sm_st_item item[MOST];
    sm_err e = {0};
    size_t n = 0;
    if (paths[f][0])
        return paths[f];
    snprintf(paths[f], sizeof paths[f], "%s", test_tmp(names[f]));
    sm_weights *w = sm_weights_new(NULL, &e);
    CHECKF(w && !sm_st_load(family_model("sd1", FAMILY_FILE), w, NULL, NULL, &e), "%s", e.msg);
    for (size_t i = 0; w && i < sm_weights_count(w) && n < MOST; i++) {
        const sm_weight *x = sm_weights_at(w, i);
        if (f == NO_ENCODER && strstr(x->name, "first_stage_model.encoder.mid"))
            continue;
        item[n] = (sm_st_item){.name = x->name, .t = x->t};
        if (f == NAN_ENCODER && !strcmp(x->name, "first_stage_model.encoder.conv_out.bias") && x->bytes <= sizeof bias) {
            memcpy(bias, x->t.data, x->bytes);
            bias[0] = NAN;
            item[n].t.data = bias;
        }
        n++;
    }
    CHECKF(!sm_st_write(paths[f], n, item, 0, NULL, NULL, &e), "%s", e.msg);
    sm_weights_unref(&w);
    return paths[f];
}

typedef struct session { sumi_context *ctx; sumi_model *m; char picture[300]; } session;

static bool begin(session *s, fault f)
{
    static const uint8_t rgb[16 * 16 * 3] = {7};
    sumi_model_options o = {.path = model_with(f), .tokenizer = family_tokenizer()};
    *s = (session){0};
    CHECK(!sumi_context_new(NULL, &s->ctx));
    CHECKF(!sumi_model_load_with(s->ctx, &o, &s->m), "%s", sumi_error(s->ctx));
    snprintf(s->picture, sizeof s->picture, "%s", test_tmp("encoder-in.png"));
    sumi_image im = {.width = 16, .height = 16, .channels = 3, .pixels = (uint8_t *)(uintptr_t)rgb};
    CHECK(!sumi_image_save(s->ctx, &im, s->picture));
    return s->m != NULL;
}

static void end(session *s)
{
    sumi_model_free(s->m);
    sumi_context_free(s->ctx);
}

static sumi_request small(void)
{
    sumi_request r = sumi_request_default();
    r.prompt = "a cat";
    r.steps = 2;
    r.seed = 5;
    r.width = r.height = 16;
    return r;
}

static void count(void *user, const sumi_progress *p) { ++*(int *)user; }

/* Draws and expects the message; "" none. Returns the calls of progress. */
static int expect(session *s, const sumi_request *r, sumi_status code, const char *says, const char *and)
{
    sumi_images *im = NULL;
    int calls = 0;
    sumi_callbacks cb = {.progress = count, .user = &calls};
    sumi_status st = sumi_generate(s->ctx, s->m, r, &cb, &im);
    CHECKF(st == code && strstr(sumi_error(s->ctx), says) && strstr(sumi_error(s->ctx), and) && !strchr(sumi_error(s->ctx), '\n'),
           "%d: %s", st, sumi_error(s->ctx));
    sumi_images_free(im);
    return calls;
}

TEST(edit_encoder_missing)
{
    session s;
    if (begin(&s, NO_ENCODER)) {
        sumi_request r = small();
        expect(&s, &r, SUMI_OK, "", ""); /* what needs no encoder is drawn */
        r.hires_upscale = 2;
        expect(&s, &r, SUMI_OK, "", "");
        r.hires_upscaler = "Lanczos";
        int calls = expect(&s, &r, SUMI_E_MODEL, "--hires-upscaler: ", "--vae FILE");
        r = small();
        r.init_image = s.picture;
        calls += expect(&s, &r, SUMI_E_MODEL, "--init-image: ", "vae.encoder.mid_block");
        CHECKF(!calls, "%d calls of progress", calls);
        sumi_plan_info info;
        CHECKF(sumi_plan_request(s.ctx, s.m, &r, &info) == SUMI_E_MODEL, "%s", sumi_error(s.ctx));
    }
    end(&s);
}

TEST(edit_encoder_of_nan)
{
    session s;
    if (begin(&s, NAN_ENCODER)) {
        sumi_request r = small();
        r.init_image = s.picture;
        expect(&s, &r, SUMI_E_NUMERIC, "--init-image: the autoencoder gave NaN", "");
        r = small();
        r.hires_upscale = 2;
        r.hires_upscaler = "Nearest";
        expect(&s, &r, SUMI_E_NUMERIC, "--hires-upscaler: the autoencoder gave NaN", "");
    }
    end(&s);
}

/* A small square that becomes a wide strip is enlarged to the strip's width a side first; that is the most held at once. */
TEST(edit_encoder_hires_plan)
{
    session s;
    sumi_plan_info info = {0};
    for (int i = 0; i < 2; i++) {
        if (begin(&s, WHOLE)) {
            sumi_request r = small();
            sumi_images *im = NULL;
            r.steps = 1;
            r.hires_width = 1600;
            r.hires_height = 16;
            r.hires_upscaler = "Lanczos";
            if (!i)
                CHECKF(!sumi_plan_request(s.ctx, s.m, &r, &info), "%s", sumi_error(s.ctx));
            else
                CHECKF(!sumi_generate(s.ctx, s.m, &r, NULL, &im), "%s", sumi_error(s.ctx));
            double took = (double)sumi_memory_peak(s.ctx), said = (double)info.peak_bytes - (double)info.weight_bytes;
            CHECKF(!i || (said > 0.9 * took && said < 1.1 * took), "said %.0f, took %.0f", said, took);
            sumi_images_free(im);
        }
        end(&s);
    }
}
