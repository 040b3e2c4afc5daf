/* Resampling and blurring against Pillow, torch and NumPy (tests/fixtures/resize.safetensors, tools/fixtures/make_edits.py). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/blur.h"
#include "io/resize.h"
#include "pipeline/mask.h"
#include "reference.h"
#include "test.h"

enum { ROOM = 8192 };

/* The tensor as bytes; its size. */
static size_t bytes_of(const reference *f, const char *name, uint8_t *out)
{
    const sm_weight *w = reference_find(f, "%s", name);
    size_t n = w ? w->bytes / sizeof(float) : 0;
    CHECK(n <= ROOM);
    for (size_t i = 0; i < n && n <= ROOM; i++)
        out[i] = (uint8_t)((const float *)w->t.data)[i];
    return n;
}

/* Checks n bytes against the tensor: none further off than `most`. */
static void same_bytes(const reference *f, const char *name, const uint8_t *x, size_t n, int most)
{
    uint8_t want[ROOM];
    int worst = 0;
    CHECKF(bytes_of(f, name, want) == n, "%s: %zu bytes", name, n);
    for (size_t i = 0; i < n && n <= ROOM; i++)
        worst = SM_MAX(worst, abs(x[i] - want[i]));
    CHECKF(worst <= most, "%s: bytes differ by %d", name, worst);
}

/* "out.KIND.NAME.WxH": every tensor that begins so is handed to fn. */
static void each(const reference *f, const char *kind,
                 void (*fn)(const reference *, const char *full, const char *name, int w, int h))
{
    int found = 0;
    for (size_t i = 0; i < sm_weights_count(f->w); i++) {
        const char *full = sm_weights_at(f->w, i)->name;
        char name[32];
        int w, h;
        if (!strncmp(full, kind, strlen(kind)) && sscanf(full + strlen(kind), "%31[^.].%dx%d", name, &w, &h) == 3) {
            fn(f, full, name, w, h);
            found++;
        }
    }
    CHECKF(found > 3, "%s: %d tensors", kind, found);
}

static void check_filter(const reference *f, const char *full, const char *name, int w, int h)
{
    uint8_t in[ROOM], out[ROOM];
    sm_err e = {0};
    sm_filter filter = sm_filter_find(name);
    if (filter == SM_FILTER_COUNT || ((const sm_weight *)sm_weights_find(f->w, full))->t.dims[2] != 3)
        return; /* one of torch's */
    CHECK(bytes_of(f, "in.picture", in) == 11 * 13 * 3);
    CHECK(!sm_resize(in, 13, 11, 3, NULL, filter, out, w, h, NULL, &e));
    same_bytes(f, full, out, (size_t)w * (size_t)h * 3, 0);
}

TEST(edit_resize_as_pillow)
{
    reference f;
    if (reference_open(&f, "resize.safetensors"))
        each(&f, "out.", check_filter);
    reference_close(&f);
}

static void check_fit(const reference *f, const char *full, const char *name, int w, int h)
{
    uint8_t in[ROOM], out[ROOM];
    sm_err e = {0};
    CHECK(bytes_of(f, "in.picture", in) == 11 * 13 * 3);
    sm_fit fit = !strcmp(name, "crop") ? SM_FIT_CROP : SM_FIT_FILL;
    CHECK(!sm_fit_picture(in, 13, 11, 3, fit, SM_FILTER_LANCZOS, out, w, h, NULL, &e));
    same_bytes(f, full, out, (size_t)w * (size_t)h * 3, 0);
}

TEST(edit_resize_modes)
{
    reference f;
    if (reference_open(&f, "resize.safetensors"))
        each(&f, "out.fit.", check_fit);
    reference_close(&f);
}

static void check_interp(const reference *f, const char *full, const char *name, int w, int h)
{
    static const char *const names[] = {"nearest", "nearest-exact", "bilinear", "bicubic", "bilinear-aa", "bicubic-aa"};
    float out[ROOM];
    sm_err e = {0};
    const sm_weight *z = reference_find(f, "in.latents");
    if (!z || ((const sm_weight *)sm_weights_find(f->w, full))->t.dims[2] != 4)
        return;
    for (size_t i = 0; i < SM_COUNT(names); i++)
        if (!strcmp(names[i], name)) {
            CHECK(!sm_interpolate(z->t.data, 6, 5, 4, (sm_interp)i, out, w, h, NULL, &e));
            reference_near(f, full, out, (int64_t)w * h * 4, 1e-6, name);
        }
}

TEST(edit_interpolate_as_torch)
{
    reference f;
    if (reference_open(&f, "resize.safetensors"))
        each(&f, "out.", check_interp);
    reference_close(&f);
}

/* Pillow's boxes to the bit; the Gaussian against NumPy's sums in double, rounded alike. */
TEST(edit_blur)
{
    static const int sigmas[] = {1, 4, 16};
    uint8_t x[ROOM];
    char name[32];
    reference f;
    sm_err e = {0};
    bool ok = reference_open(&f, "resize.safetensors");
    for (size_t i = 0; ok && i < SM_COUNT(sigmas); i++) {
        size_t n = bytes_of(&f, "in.big", x);
        CHECK(!sm_blur_boxes(x, 20, 24, 3, sigmas[i], NULL, &e));
        snprintf(name, sizeof name, "out.boxes.%d", sigmas[i]);
        same_bytes(&f, name, x, n, 0);
        bytes_of(&f, "in.big", x);
        CHECK(!sm_blur_gauss(x, 20, 24, 3, sigmas[i], NULL, &e));
        snprintf(name, sizeof name, "out.gauss.%d", sigmas[i]);
        same_bytes(&f, name, x, n, 0);
    }
    reference_close(&f);
}

TEST(edit_mask_fill_as_pillow)
{
    uint8_t x[ROOM], mask[ROOM];
    reference f;
    sm_err e = {0};
    if (reference_open(&f, "resize.safetensors")) {
        size_t n = bytes_of(&f, "in.big", x);
        CHECK(bytes_of(&f, "in.mask", mask) == n / 3);
        CHECK(!sm_mask_fill(x, mask, 20, 24, NULL, &e));
        same_bytes(&f, "out.filled", x, n, 0);
    }
    reference_close(&f);
}

/* Every allocation that fails is an error. */
TEST(edit_resize_memory)
{
    uint8_t in[13 * 11 * 3] = {0}, out[ROOM];
    float z[20] = {0}, zo[80];
    for (int64_t at = 1; at < 8; at++) {
        sm_mem mem = {.fail_at = at};
        sm_err e = {0};
        sumi_status st = sm_fit_picture(in, 13, 11, 3, SM_FIT_FILL, SM_FILTER_LANCZOS, out, 20, 8, &mem, &e);
        CHECKF(st == (at <= 9 ? SUMI_E_MEMORY : SUMI_OK) && st == e.code, "allocation %d: %d", (int)at, st);
        CHECK(mem.total == 0);
        mem = (sm_mem){.fail_at = at};
        sm_err_clear(&e);
        st = sm_interpolate(z, 5, 4, 1, SM_INTERP_BICUBIC, zo, 10, 8, &mem, &e);
        CHECK(st == (at <= 5 ? SUMI_E_MEMORY : SUMI_OK));
        CHECK(mem.total == 0);
    }
}

/* The region grows to the proportions that are drawn and stays in the picture. */
TEST(edit_mask_region)
{
    uint8_t mask[64 * 48] = {0};
    sm_rect r;
    CHECK(!sm_mask_region(mask, 64, 48, 4, &r));
    for (int y = 20; y < 24; y++)
        memset(mask + y * 64 + 30, 255, 16);
    CHECK(sm_mask_region(mask, 64, 48, 2, &r) && r.x == 28 && r.y == 18 && r.w == 20 && r.h == 8);
    r = sm_mask_widen(r, 64, 48, 32, 32);
    CHECKF(r.x == 28 && r.y == 12 && r.w == 20 && r.h == 20, "%d %d %d %d", r.x, r.y, r.w, r.h);
    r = sm_mask_widen((sm_rect){0, 40, 60, 8}, 64, 48, 32, 32); /* as far as the picture goes */
    CHECKF(r.x == 0 && r.y == 0 && r.w == 60 && r.h == 48, "%d %d %d %d", r.x, r.y, r.w, r.h);
}
