/* Pictures: pixels and texts against what Pillow decodes from the same files (tests/fixtures/images, made by
 * tools/fixtures/make_images.py), round trips, and damage of every kind. */
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "io/image.h"
#include "test.h"

static sm_buf slurp(const char *path)
{
    sm_buf b = {0};
    sm_err e = {0};
    CHECKF(sm_file_read(path, 1 << 24, &b, &e) == SUMI_OK, "%s", e.msg);
    return b;
}

static const char *fixture(const char *name, const char *tail)
{
    static char path[256];
    snprintf(path, sizeof path, "images/%s%s", name, tail);
    return test_fixture(path);
}

/* Largest difference of any byte; 999 when the sizes differ. */
static int diff(const sm_image *im, const sm_buf *raw)
{
    int worst = 0;
    size_t n = (size_t)im->width * (size_t)im->height * (size_t)im->channels;
    if (!im->pixels || n != raw->len)
        return 999;
    for (size_t i = 0; i < n; i++)
        worst = SM_MAX(worst, abs(im->pixels[i] - (uint8_t)raw->data[i]));
    return worst;
}

static bool has(const sm_image *im, const char *key, const char *value)
{
    const char *v = sm_image_text_find(im, key);
    return v && !strcmp(v, value);
}

/* ---- against Pillow ---------------------------------------------------------------------------------------------- */

/* The same libraries decode in both, up to versions: JPEG's inverse transform may differ by a rounding. */
TEST(image_load_formats)
{
    static const struct { const char *name; int channels, tolerance; } row[] = {
        {"rgb.png", 3, 0}, {"rgba.png", 4, 0}, {"grey.png", 3, 0}, {"grey_alpha.png", 4, 0}, {"bits.png", 3, 0},
        {"palette.png", 3, 0},
        {"palette_clear.png", 4, 0}, {"smooth.jpg", 3, 2}, {"progressive.jpg", 3, 2}, {"grey.jpg", 3, 2}, {"cmyk.jpg", 3, 3},
        {"exif.jpg", 3, 2}, {"lossless.webp", 4, 0}, {"lossy.webp", 3, 2}};
    for (size_t i = 0; i < SM_COUNT(row); i++) {
        sm_mem mem = {0};
        sm_err e = {0};
        sm_image im;
        sm_buf raw = slurp(fixture(row[i].name, ".raw"));
        CHECKF(sm_image_load(&im, fixture(row[i].name, ""), &mem, &e) == SUMI_OK, "%s: %s", row[i].name, e.msg);
        CHECKF(im.width == 19 && im.height == 13 && im.channels == row[i].channels, "%s: %d x %d x %d", row[i].name, im.width,
               im.height, im.channels);
        CHECKF(diff(&im, &raw) <= row[i].tolerance, "%s: a byte differs by %d", row[i].name, diff(&im, &raw));
        sm_buf_free(&raw);
        sm_image_free(&im);
        CHECK(mem.total == 0);
    }
}

TEST(image_load_texts)
{
    sm_image im;
    sm_err e = {0};
    char packed[160] = "";
    for (int i = 0; i < 20; i++)
        strcat(packed, "packed ");
    CHECK(sm_image_load(&im, fixture("rgb.png", ""), NULL, &e) == SUMI_OK && im.ntext == 3);
    CHECK(has(&im, "parameters", "a red apple\nSteps: 20") && has(&im, "Title", "Äpfel 苹果 🍎") && has(&im, "Comment", packed));
    CHECK(!sm_image_text_find(&im, "none"));
    sm_image_free(&im);
    CHECK(sm_image_load(&im, fixture("exif.jpg", ""), NULL, &e) == SUMI_OK);
    CHECK(has(&im, "parameters", "ein Äpfel 🍎") && has(&im, "Description", "a description"));
    sm_image_free(&im);
    CHECK(sm_image_load(&im, fixture("lossy.webp", ""), NULL, &e) == SUMI_OK);
    CHECK(has(&im, "parameters", "ein Äpfel 🍎") && has(&im, "Description", "a description"));
    sm_image_free(&im);
    CHECK(sm_image_load(&im, fixture("smooth.jpg", ""), NULL, &e) == SUMI_OK && has(&im, "Comment", "made by Pillow"));
    sm_image_free(&im);
}

/* ---- against libpng's writer: what Pillow does not write --------------------------------------------------------- */

static void png_put(png_structp p, png_bytep data, size_t n) { sm_buf_add(png_get_io_ptr(p), data, n); }
static void png_done(png_structp p) {}

/* An interlaced picture of 16-bit RGB or 4-bit grey; sample (x, y, c) is 16 bits of value(x, y, c). */
static unsigned value(int x, int y, int c) { return (unsigned)(x * 4099 + y * 257 * 11 + c * 20011) & 0xffff; }

static sm_buf interlaced(int w, int h, bool grey4)
{
    sm_buf out = {0};
    png_structp p = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(p);
    png_bytep rows[32];
    png_set_write_fn(p, &out, png_put, png_done);
    png_set_IHDR(p, info, (unsigned)w, (unsigned)h, grey4 ? 4 : 16, grey4 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_ADAM7, 0, 0);
    for (int y = 0; y < h; y++) {
        rows[y] = calloc(1, (size_t)w * 6);
        for (int x = 0; x < w; x++) {
            if (grey4)
                rows[y][x / 2] = (uint8_t)(rows[y][x / 2] | value(x, y, 0) >> 12 << (x & 1 ? 0 : 4));
            for (int c = 0; c < 3 && !grey4; c++) {
                rows[y][6 * x + 2 * c] = (uint8_t)(value(x, y, c) >> 8);
                rows[y][6 * x + 2 * c + 1] = (uint8_t)value(x, y, c);
            }
        }
    }
    png_write_info(p, info);
    png_write_image(p, rows);
    png_write_end(p, info);
    png_destroy_write_struct(&p, &info);
    for (int y = 0; y < h; y++)
        free(rows[y]);
    return out;
}

TEST(image_png_interlaced_and_deep)
{
    for (int grey = 0; grey < 2; grey++) {
        sm_buf file = interlaced(21, 17, grey);
        sm_image im;
        sm_err e = {0};
        CHECKF(sm_image_decode(&im, file.data, file.len, "x", 0, NULL, &e) == SUMI_OK, "%s", e.msg);
        CHECK(im.width == 21 && im.height == 17 && im.channels == 3);
        for (int i = 0; im.pixels && i < 21 * 17 * 3; i++) {
            unsigned v = value(i / 3 % 21, i / 63, grey ? 0 : i % 3);
            unsigned want = grey ? (v >> 12) * 17 : (v * 255 + 32767) / 65535; /* rounded as the PNG standard says */
            CHECKF(im.pixels[i] == want, "byte %d is %d, expected %u", i, im.pixels[i], want);
        }
        sm_image_free(&im);
        sm_buf_free(&file);
    }
}

/* ---- round trips ------------------------------------------------------------------------------------------------- */

static sm_image noise(int w, int h, int channels, uint8_t *px)
{
    for (int i = 0; i < w * h * channels; i++)
        px[i] = (uint8_t)(i * 2654435761u >> 21);
    return (sm_image){.width = w, .height = h, .channels = channels, .pixels = px};
}

TEST(image_lossless_round_trip)
{
    static uint8_t px[40 * 31 * 4];
    static const int sizes[][2] = {{1, 1}, {1, 31}, {40, 1}, {40, 31}, {17, 5}};
    for (size_t k = 0; k < SM_COUNT(sizes) * 4; k++) {
        sm_image im = noise(sizes[k / 4][0], sizes[k / 4][1], 3 + (int)(k & 1), px), back;
        sm_mem mem = {0};
        sm_buf out = {.mem = &mem};
        sm_err e = {0};
        sm_image_format f = k & 2 ? SM_IMAGE_WEBP : SM_IMAGE_PNG;
        CHECKF(sm_image_encode(&im, f, 0, 0, NULL, &out, &e) == SUMI_OK, "%s", e.msg);
        CHECKF(sm_image_decode(&back, out.data, out.len, "x", 0, &mem, &e) == SUMI_OK, "%s", e.msg);
        size_t n = (size_t)im.width * (size_t)im.height * (size_t)im.channels;
        CHECKF(back.width == im.width && back.height == im.height && back.channels == im.channels && !memcmp(back.pixels, px, n),
               "case %zu", k);
        if (f == SM_IMAGE_PNG)
            CHECK(out.data[24] == 8 && out.data[28] == 0); /* IHDR: bit depth, interlace */
        sm_image_free(&back);
        sm_buf_free(&out);
        CHECK(mem.total == 0);
    }
}

/* A smooth picture through JPEG, and alpha onto white. The bound of quality 95 is a quantisation step, of 4:4:4. */
TEST(image_lossy_round_trip)
{
    static uint8_t px[32 * 32 * 4];
    for (int i = 0; i < 32 * 32; i++) {
        uint8_t p[4] = {(uint8_t)(i % 32 * 8), (uint8_t)(i / 32 * 8), 90, (uint8_t)(i / 32 < 16 ? 255 : 0)};
        memcpy(px + 4 * i, p, 4);
    }
    for (int f = SM_IMAGE_JPEG; f <= SM_IMAGE_WEBP; f++) {
        sm_image im = {.width = 32, .height = 32, .channels = 4, .pixels = px}, back;
        sm_buf out = {0};
        sm_err e = {0};
        CHECK(sm_image_encode(&im, (sm_image_format)f, f == SM_IMAGE_WEBP ? 95 : 0, 0, NULL, &out, &e) == SUMI_OK);
        CHECK(sm_image_decode(&back, out.data, out.len, "x", 0, NULL, &e) == SUMI_OK &&
              back.channels == (f == SM_IMAGE_JPEG ? 3 : 4));
        for (int i = 0; i < 32 * 32; i++)
            for (int c = 0; c < 3 && back.pixels; c++) {
                int y = i / 32, want = y < 16 ? px[4 * i + c] : 255, got = back.pixels[back.channels * i + c];
                if ((y < 12 && f == SM_IMAGE_WEBP) || (f == SM_IMAGE_JPEG && (y < 12 || y > 20)))
                    CHECKF(abs(got - want) <= 12, "format %d pixel %d,%d: %d, expected %d", f, i % 32, y, got, want);
            }
        sm_image_free(&back);
        sm_buf_free(&out);
    }
}

TEST(image_texts_round_trip)
{
    static uint8_t px[12];
    sm_image im = noise(2, 2, 3, px);
    static const sm_image_text texts[] = {{"parameters", "a cat, noto style\nSteps: 20, CFG scale: 4"}, {"Software", "sumi"},
        {"Title", "Äpfel 🍎 \xed\x9f\xbf \xee\x80\x80"}, {"Comment", ""}, {"Copyright", "nobody"}, {"x", "1"}};
    static const sm_image_text other[] = {{"parameters", "一只猫 🐱"}, {"Description", "é"}, {"Author", "s"}};
    const struct { const sm_image_text *t; int n; } set[] = {{texts, SM_COUNT(texts)}, {other, SM_COUNT(other)}, {texts, 1},
                                                             {texts + 1, 1}, {texts + 2, 1}};
    for (size_t k = 0; k < SM_COUNT(set) * 3; k++) {
        sm_buf out = {0};
        sm_err e = {0};
        sm_image back;
        int n = set[k / 3].n;
        CHECKF(sm_image_encode(&im, (sm_image_format)(k % 3), 0, n, set[k / 3].t, &out, &e) == SUMI_OK, "%s", e.msg);
        CHECKF(sm_image_decode(&back, out.data, out.len, "x", 0, NULL, &e) == SUMI_OK && back.ntext == n, "%d texts, %s",
               back.ntext, e.msg);
        for (int i = 0; i < n; i++)
            CHECKF(has(&back, set[k / 3].t[i].key, set[k / 3].t[i].value), "format %zu: text %s", k % 3, set[k / 3].t[i].key);
        sm_image_free(&back);
        sm_buf_free(&out);
    }
}

TEST(image_save_by_extension)
{
    static uint8_t px[27];
    static const struct { const char *name; const char *magic; int at; } row[] = {
        {"a.png", "\x89PNG", 0}, {"a.PNG", "\x89PNG", 0}, {"a.jpg", "\xff\xd8\xff", 0}, {"a.jpeg", "\xff\xd8\xff", 0},
        {"a.webp", "WEBP", 8}};
    sm_image im = noise(3, 3, 3, px), back;
    for (size_t i = 0; i < SM_COUNT(row); i++) {
        const char *path = test_tmp(row[i].name);
        sm_err e = {0};
        sm_image_text t = {"parameters", "p"};
        CHECKF(sm_image_save(&im, path, &t, NULL, &e) == SUMI_OK, "%s", e.msg);
        sm_buf b = slurp(path);
        CHECK(b.len > 12 && !memcmp(b.data + row[i].at, row[i].magic, strlen(row[i].magic)));
        sm_buf_free(&b);
        CHECK(sm_image_load(&back, path, NULL, &e) == SUMI_OK && has(&back, "parameters", "p"));
        sm_image_free(&back);
    }
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

TEST(image_save_errors)
{
    static uint8_t px[27];
    sm_image im = noise(3, 3, 3, px), none = {0}, two = {.width = 1, .height = 1, .channels = 2, .pixels = px};
    sm_err e = {0};
    sm_buf out = {0};
    CHECK(sm_image_save(&im, "x.gif", NULL, NULL, &e) == SUMI_E_ARG && strstr(e.msg, "x.gif") && strstr(e.msg, ".png"));
    sm_err_clear(&e);
    CHECK(sm_image_save(&im, ".png", NULL, NULL, &e) == SUMI_E_ARG);
    sm_err_clear(&e);
    const char *path = test_tmp("missing/a.png");
    CHECK(sm_image_save(&im, path, NULL, NULL, &e) == SUMI_E_FILE && strstr(e.msg, path));
    sm_err_clear(&e);
    CHECK(sm_image_encode(&none, SM_IMAGE_PNG, 0, 0, NULL, &out, &e) == SUMI_E_ARG);
    CHECK(sm_image_encode(&two, SM_IMAGE_PNG, 0, 0, NULL, &out, &e) == SUMI_E_ARG);
    CHECK(sm_image_encode(&im, SM_IMAGE_PNG, 101, 0, NULL, &out, &e) == SUMI_E_ARG);
    static const sm_image_text wrong[] = {{"", "v"}, {"ä", "v"}, {" a", "v"}, {"k", "\xff"}, {"a\nb", "v"}};
    for (size_t i = 0; i < SM_COUNT(wrong); i++) {
        sm_err_clear(&e);
        CHECK(sm_image_encode(&im, SM_IMAGE_PNG, 0, 1, &wrong[i], &out, &e) == SUMI_E_ARG && e.msg[0]);
    }
    char *longest = malloc(70001);
    memset(longest, 'x', 70000);
    longest[70000] = 0;
    sm_image_text t = {"parameters", longest};
    sm_err_clear(&e);
    CHECK(sm_image_encode(&im, SM_IMAGE_JPEG, 0, 1, &t, &out, &e) == SUMI_E_ARG && strstr(e.msg, "64 KB"));
    CHECK(!out.len);
    sm_err_clear(&e);
    sm_image back;
    CHECK(sm_image_encode(&im, SM_IMAGE_WEBP, 0, 1, &t, &out, &e) == SUMI_OK &&
          sm_image_decode(&back, out.data, out.len, "x", 0, NULL, &e) == SUMI_OK);
    CHECK(has(&back, "parameters", longest));
    sm_image_free(&back);
    sm_buf_free(&out);
    free(longest);
}

TEST(image_load_errors)
{
    sm_image im;
    sm_err e = {0};
    const char *path = test_tmp("no-picture.png");
    CHECK(sm_image_load(&im, path, NULL, &e) == SUMI_E_FILE && strstr(e.msg, path) && !im.pixels);
    sm_err_clear(&e);
    CHECK(sm_file_write(path, "GIF89a", 6, &e) == SUMI_OK);
    CHECK(sm_image_load(&im, path, NULL, &e) == SUMI_E_FORMAT && strstr(e.msg, path) && strstr(e.msg, "no PNG, JPEG or WebP"));
    static const char *const name[] = {"rgb.png", "smooth.jpg", "lossless.webp"};
    for (size_t i = 0; i < SM_COUNT(name); i++) { /* 19 pixels wide */
        sm_buf b = slurp(fixture(name[i], ""));
        sm_err_clear(&e);
        CHECK(sm_image_decode(&im, b.data, b.len, "wide", 18, NULL, &e) == SUMI_E_FORMAT && strstr(e.msg, "wide"));
        CHECKF(i == 0 || strstr(e.msg, "19 x 13"), "%s", e.msg);
        sm_err_clear(&e);
        CHECK(sm_image_decode(&im, b.data, b.len, "wide", 19, NULL, &e) == SUMI_OK);
        sm_image_free(&im);
        sm_buf_free(&b);
    }
}

static const char *const damaged[] = {"rgb.png", "palette_clear.png", "smooth.jpg", "progressive.jpg", "cmyk.jpg", "exif.jpg",
                                      "lossless.webp", "lossy.webp"};

/* No prefix of a file is taken for the whole: the data is all needed, and its end is marked. */
TEST(image_truncated)
{
    for (size_t k = 0; k < SM_COUNT(damaged); k++) {
        sm_buf b = slurp(fixture(damaged[k], ""));
        for (size_t n = 0; n < b.len; n++) {
            uint8_t *cut = malloc(n ? n : 1);
            memcpy(cut, b.data, n);
            sm_mem mem = {0};
            sm_err e = {0};
            sm_image im;
            sumi_status st = sm_image_decode(&im, cut, n, "cut", 0, &mem, &e);
            CHECKF(st == SUMI_E_FORMAT && strstr(e.msg, "cut: ") == e.msg && !im.pixels, "%s: %zu of %zu bytes: status %d '%s'",
                   damaged[k], n, b.len, st, e.msg);
            CHECK(mem.total == 0);
            sm_image_free(&im);
            free(cut);
        }
        sm_buf_free(&b);
    }
}

/* A picture whose data ends early but whose end is marked: libjpeg would fill the rest with grey. */
TEST(image_jpeg_cut_inside)
{
    for (int k = 0; k < 2; k++) {
        sm_buf b = slurp(fixture(k ? "progressive.jpg" : "smooth.jpg", ""));
        sm_err e = {0};
        sm_image im;
        memcpy(b.data + b.len - 40, "\xff\xd9", 2);
        CHECK(sm_image_decode(&im, b.data, b.len - 38, "cut", 0, NULL, &e) == SUMI_E_FORMAT && strstr(e.msg, "cut: JPEG: "));
        sm_image_free(&im);
        sm_buf_free(&b);
    }
}

/* A text chunk that claims 2 GB must not cost 2 GB. */
TEST(image_png_huge_chunk)
{
    static const uint8_t lie[8] = {0x7a, 0, 0, 0x1c, 'i', 'T', 'X', 't'};
    sm_buf b = slurp(fixture("rgb.png", ""));
    for (int i = 0; i < 2; i++) {
        memcpy(b.data + 33, lie, 8); /* the first chunk after IHDR */
        if (i)
            memcpy(b.data + 37, "tEXt", 4);
        sm_mem mem = {0};
        sm_err e = {0};
        sm_image im;
        CHECK(sm_image_decode(&im, b.data, b.len, "x", 0, &mem, &e) == SUMI_E_FORMAT);
        CHECKF(mem.peak < 1 << 20 && !mem.total, "%zu bytes", mem.peak);
    }
    sm_buf_free(&b);
}

/* Every byte replaced: any outcome but a crash, a leak or a failure without a message. PNG's checksums find all of them. */
TEST(image_bytes_replaced)
{
    for (size_t k = 0; k < SM_COUNT(damaged); k++) {
        sm_buf b = slurp(fixture(damaged[k], ""));
        for (size_t i = 0; i < b.len * 2; i++) {
            char was = b.data[i / 2];
            b.data[i / 2] = (char)(i & 1 ? ~was : was + 1);
            sm_mem mem = {0};
            sm_err e = {0};
            sm_image im;
            sumi_status st = sm_image_decode(&im, b.data, b.len, "damaged", 256, &mem, &e);
            CHECKF(st == e.code && (st == SUMI_OK || e.msg[0]), "%s byte %zu", damaged[k], i / 2);
            sm_image_free(&im);
            CHECK(mem.total == 0);
            b.data[i / 2] = was;
        }
        sm_buf_free(&b);
    }
}

TEST(image_allocations)
{
    static uint8_t px[36];
    static const sm_image_text texts[] = {{"parameters", "ä"}, {"Software", "sumi"}, {"Title", "t"}};
    sm_image im = noise(3, 3, 4, px);
    for (int f = 0; f < 3; f++)
        for (int64_t n = 1;; n++) {
            sm_mem mem = {.fail_at = n};
            sm_buf out = {.mem = &mem};
            sm_err e = {0};
            sm_image back = {0};
            sumi_status st = sm_image_encode(&im, (sm_image_format)f, 0, 3, texts, &out, &e);
            if (st == SUMI_OK)
                st = sm_image_decode(&back, out.data, out.len, "x", 0, &mem, &e);
            sm_image_free(&back);
            sm_buf_free(&out);
            CHECKF(mem.total == 0, "format %d, allocation %lld leaks", f, (long long)n);
            if (mem.fail_at || n > 10000) {
                CHECKF(st == SUMI_OK && n < 10000, "%s", e.msg);
                break;
            }
            CHECKF(st == SUMI_E_MEMORY && strstr(e.msg, "memory"), "format %d, allocation %lld: status %d '%s'", f, (long long)n,
                   st, e.msg);
        }
}
