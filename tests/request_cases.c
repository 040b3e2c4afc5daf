/* See request_cases.h. */
#include "request_cases.h"

#include <stdio.h>
#include <string.h>

#include "families.h"
#include "io/safetensors.h"
#include "test.h"

bool request_noise(const reference *f, const char *name, int pictures, const char *path)
{
    const sm_weight *noise = reference_find(f, "%s", name);
    sm_err e = {0};
    if (!noise)
        return false;
    sm_st_item item = {.name = "latents", .t = noise->t};
    item.t.dims[0] = pictures;
    CHECKF(!sm_st_write(path, 1, &item, 0, NULL, NULL, &e), "%s", e.msg);
    return !e.code;
}

void request_steps_near(const reference *f, const char *name, const char *path, int steps, const char *where)
{
    sm_mem mem = {0};
    sm_err e = {0};
    const sm_weight *want = reference_find(f, "latents.%s", name);
    sm_weights *got = sm_weights_new(&mem, &e);
    CHECKF(got && !sm_st_load(path, got, NULL, &mem, &e), "%s", e.msg);
    for (int i = 0; want && got && i <= steps; i++) {
        char step[32];
        snprintf(step, sizeof step, i == steps ? "latents" : "latents.%d", i);
        const sm_weight *x = sm_weights_find(got, step);
        int64_t n = (int64_t)(want->bytes / sizeof(float)) / (steps + 1);
        CHECKF(x && (int64_t)(x->bytes / sizeof(float)) == n, "%s: %s is missing or of another size", name, step);
        if (!x)
            break;
        const float *b = (const float *)want->t.data + i * n;
        double d = test_maxdiff(x->t.data, b, n) / test_rms(b, n);
        CHECKF(d <= 1e-4, "%s: latents of step %d differ by %.3g rms (%s)", name, i, d, where);
    }
    sm_weights_unref(&got);
}

void request_set(sumi_context *ctx, sumi_request *r, const char *name, const char *value)
{
    CHECKF(!sumi_request_set(ctx, r, name, value), "%s", sumi_error(ctx));
}

size_t request_pixels(sumi_context *ctx, sumi_model *m, const sumi_request *r, uint8_t *rgb)
{
    sumi_images *im = NULL;
    size_t bytes = 0;
    CHECKF(!sumi_generate(ctx, m, r, NULL, &im), "%s: %s", r->sampler, sumi_error(ctx));
    for (size_t i = 0; im && i < sumi_images_count(im); i++) {
        const sumi_image *p = sumi_images_at(im, i);
        size_t n = (size_t)p->width * (size_t)p->height * 3;
        memcpy(rgb + bytes, p->pixels, n);
        bytes += n;
    }
    sumi_images_free(im);
    return bytes;
}

/* ---- fixtures ---------------------------------------------------------------------------------------------------- */

void request_cases_open(request_cases *x, const char *name, int low_memory, int threads)
{
    sumi_model_options o = {.path = family_model("deep", FAMILY_FOLDER), .tokenizer = family_tokenizer(),
                            .low_memory = low_memory};
    char file[64];
    *x = (request_cases){0};
    for (int i = 0; i < 3; i++) {
        snprintf(file, sizeof file, "%s-%s.safetensors", name, i < 2 ? i ? "noise-2" : "noise-1" : "latents");
        snprintf(i < 2 ? x->noise[i] : x->saved, sizeof x->saved, "%s", test_tmp(file));
    }
    snprintf(file, sizeof file, "%s.safetensors", name);
    CHECK(sumi_context_new(&(sumi_context_options){.threads = threads}, &x->ctx) == SUMI_OK);
    x->ok = reference_open(&x->f, file) && request_noise(&x->f, "noise", 1, x->noise[0]) &&
            request_noise(&x->f, "noise", 2, x->noise[1]);
    CHECKF(x->ok && !sumi_model_load_with(x->ctx, &o, &x->m), "%s", sumi_error(x->ctx));
    x->cases = x->f.config ? cJSON_Parse(x->f.config) : NULL;
    x->ok = x->ok && x->m && x->cases;
    CHECK(x->ok);
}

void request_cases_close(request_cases *x)
{
    cJSON_Delete(x->cases);
    sumi_model_free(x->m);
    sumi_context_free(x->ctx);
    reference_close(&x->f);
}

sumi_request request_cases_base(int steps, const char *sampler)
{
    sumi_request r = sumi_request_default();
    r.prompt = "a cat in a hat";
    r.negative_prompt = "blurry, a very long text that does not fit";
    r.emphasis = "diffusers"; /* cuts it as the fixtures' pipelines do */
    r.steps = steps;
    r.cfg_scale = 5;
    r.width = 48;
    r.height = 32;
    r.seed = 1;
    r.sampler = sampler;
    r.schedule = "simple";
    return r;
}

sumi_request request_cases_plain(request_cases *x, const char *name, const sumi_request *base)
{
    const cJSON *how = cJSON_GetObjectItem(x->cases, name), *p;
    sumi_request r = *base;
    CHECKF(how != NULL, "no case %s", name);
    cJSON_ArrayForEach(p, how)
    {
        char value[32];
        snprintf(value, sizeof value, "%.9g", p->valuedouble);
        request_set(x->ctx, &r, p->string, cJSON_IsString(p) ? p->valuestring : value);
    }
    return r;
}

sumi_request request_cases_named(request_cases *x, const char *name, const sumi_request *base)
{
    sumi_request r = request_cases_plain(x, name, base);
    r.init_latents = x->noise[r.count == 2];
    r.save_latents = x->saved;
    r.save_steps = 1;
    return r;
}

/* ---- what holds for every case ----------------------------------------------------------------------------------- */

void request_cases_plan_is_taken(const char *fixture, const char *const *names, size_t n, const sumi_request *base)
{
    for (size_t i = 0; i < 2 * n; i++) {
        const char *name = names[i / 2];
        sumi_plan_info p = {0};
        double taken = 0;
        for (int draw = 0; draw < 2; draw++) {
            request_cases x;
            sumi_images *im = NULL;
            request_cases_open(&x, fixture, i % 2, 1);
            sumi_request r = request_cases_plain(&x, name, base);
            r.width = r.height = 64;
            CHECKF(x.ok && !(draw ? sumi_generate(x.ctx, x.m, &r, NULL, &im) : sumi_plan_request(x.ctx, x.m, &r, &p)), "%s: %s",
                   name, sumi_error(x.ctx));
            taken = (double)sumi_memory_peak(x.ctx);
            sumi_images_free(im);
            request_cases_close(&x);
        }
        double planned = (double)p.peak_bytes - (double)p.weight_bytes;
        CHECKF(planned > 0.95 * taken && planned < 1.05 * taken, "%s%s: planned %.0f, taken %.0f", name,
               i % 2 ? " in low memory" : "", planned, taken);
    }
}

enum { EACH = 48 * 32 * 3 };

/* Three pictures, or the k-th alone; bytes. */
static size_t drawn(const char *fixture, const char *name, const sumi_request *base, int low_memory,
                    int threads, int k, uint8_t *rgb)
{
    request_cases x;
    size_t bytes = 0;
    request_cases_open(&x, fixture, low_memory, threads);
    if (x.ok) {
        sumi_request r = request_cases_plain(&x, name, base);
        r.steps = base->steps;
        r.count = k < 0 ? 3 : 1;
        r.seed = k < 0 ? 1 : 1 + k;
        bytes = request_pixels(x.ctx, x.m, &r, rgb);
    }
    request_cases_close(&x);
    return bytes;
}

void request_cases_same_bits(const char *fixture, const char *const *names, size_t n, const sumi_request *base)
{
    static uint8_t all[3 * EACH], again[3 * EACH];
    for (size_t i = 0; i < n; i++) {
        CHECK(drawn(fixture, names[i], base, 0, 1, -1, all) == sizeof all);
        CHECKF(drawn(fixture, names[i], base, 0, 3, -1, again) == sizeof again && !memcmp(all, again, sizeof all),
               "%s: threads", names[i]);
        CHECKF(drawn(fixture, names[i], base, 1, 2, -1, again) == sizeof again && !memcmp(all, again, sizeof all),
               "%s: low memory", names[i]);
        for (int k = 0; k < 3; k += 2)
            CHECKF(drawn(fixture, names[i], base, 0, 2, k, again) == EACH && !memcmp(all + k * EACH, again, EACH),
                   "%s: picture %d alone", names[i], k);
    }
}
