/* Requests whose products round what they multiply (--compute bf16): near the f32 picture and not it, the same bits for any threads
 * and number of pictures, told in the picture's file; refused where the processor or the instruction set at hand cannot. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "families.h"
#include "kernel_run.h"
#include "pipeline/context.h"
#include "test.h"
#include "tiny.h"

static sumi_request request(const char *compute)
{
    sumi_request r = sumi_request_default();
    r.prompt = "a red ring";
    r.seed = 40;
    r.steps = 4;
    r.cfg_scale = 3;
    r.width = r.height = 32;
    r.compute = compute;
    return r;
}

/* A family's tiny checkpoint, or with NULL the tiny transformer of sumi's own kind. */
static sumi_images *draw(const char *family, const sumi_request *r, int threads, sumi_context **ctx)
{
    sumi_model_options o = {.path = family ? family_model(family, FAMILY_FOLDER) : tiny_model(TINY_MMDIT)};
    sumi_model *m = NULL;
    sumi_images *im = NULL;
    o.tokenizer = family ? family_tokenizer() : NULL;
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = threads, .cpu = "avx512"}, ctx));
    CHECKF(!sumi_model_load_with(*ctx, &o, &m) && !sumi_generate(*ctx, m, r, NULL, &im), "%s", sumi_error(*ctx));
    sumi_model_free(m);
    return im;
}

static size_t bytes(const sumi_image *x) { return 3 * (size_t)x->width * (size_t)x->height; }

static void check_family(const char *family)
{
    sumi_context *c[4];
    sumi_request f32 = request("f32"), one = request("bf16"), three = one;
    three.count = 3;
    three.seed--;
    sumi_images *im[] = {draw(family, &f32, 2, &c[0]), draw(family, &one, 1, &c[1]), draw(family, &one, 3, &c[2]),
                         draw(family, &three, 2, &c[3])};
    const sumi_image *a = sumi_images_at(im[0], 0), *b = sumi_images_at(im[1], 0), *d = sumi_images_at(im[2], 0),
                     *e = sumi_images_at(im[3], 1);
    const char *name = family ? family : "transformer";
    CHECK(a && b && d && e && a->width == b->width && a->height == b->height);
    if (a && b && d && e) {
        double off = 0;
        for (size_t i = 0; i < bytes(a); i++)
            off += fabs((double)a->pixels[i] - b->pixels[i]) / (double)bytes(a);
        CHECKF(off > 0 && off < 8, "%s: %.3g grey levels from f32", name, off);
        CHECKF(!memcmp(b->pixels, d->pixels, bytes(b)), "%s: other bits with three threads", name);
        CHECKF(!memcmp(b->pixels, e->pixels, bytes(b)), "%s: other bits among three pictures", name);
        CHECKF(strstr(b->infotext, "Compute: bf16") && !strstr(a->infotext, "Compute"), "%s", b->infotext);
        sumi_infotext *t = NULL;
        CHECK(!sumi_infotext_parse(c[0], b->infotext, &t) && !strcmp(t->request.compute, "bf16"));
        sumi_infotext_free(t);
    }
    for (int i = 0; i < 4; i++) {
        sumi_images_free(im[i]);
        sumi_context_free(c[i]);
    }
}

TEST(compute_bf16_unet)
{
    if (kernel_bf16())
        check_family("sd1");
}

TEST(compute_bf16_unet_xl)
{
    if (kernel_bf16())
        check_family("xl");
}

TEST(compute_bf16_transformer)
{
    if (kernel_bf16())
        check_family(NULL);
}

TEST(compute_is_refused)
{
    static const char *const cpus[] = {"scalar", "avx2"};
    sumi_context *ctx;
    for (size_t i = 0; i < SM_COUNT(cpus); i++) {
        sumi_model *m = NULL;
        sumi_images *im = NULL;
        sumi_request r = request("bf16");
        if (!sumi_context_new(&(sumi_context_options){.threads = 1, .cpu = cpus[i]}, &ctx) &&
            !sumi_model_load(ctx, tiny_model(TINY_MMDIT), &m)) {
            CHECKF(sumi_generate(ctx, m, &r, NULL, &im) == SUMI_E_SUPPORT && strstr(sumi_error(ctx), "--compute bf16: "), "%s",
                   sumi_error(ctx));
            r.compute = "int8";
            CHECKF(sumi_generate(ctx, m, &r, NULL, &im) == SUMI_E_ARG && strstr(sumi_error(ctx), "int8"), "%s", sumi_error(ctx));
        }
        sumi_model_free(m);
        sumi_context_free(ctx);
        CHECK(sumi_context_new(&(sumi_context_options){.threads = 1, .cpu = cpus[i], .compute = "bf16"}, &ctx) != SUMI_OK);
        sumi_context_free(ctx);
    }
    CHECK(sumi_context_new(&(sumi_context_options){.threads = 1, .compute = "int8"}, &ctx) == SUMI_E_ARG &&
          strstr(sumi_error(ctx), "--compute: 'int8' is unknown"));
    sumi_context_free(ctx);
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1, .compute = "f32"}, &ctx) && ctx->compute == ctx->be);
    sumi_context_free(ctx);
    if (kernel_bf16()) {
        CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1, .cpu = "avx512", .compute = "bf16"}, &ctx) &&
              ctx->compute == sm_cpu_bf16(ctx->be, NULL));
        sumi_context_free(ctx);
    }
}
