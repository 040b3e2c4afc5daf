/* EXIF orientation: pictures stored in each of the eight ways come out upright, from every format. What a stored row and column
 * is comes from TIFF 6.0's table of the tag Orientation: the sides of the picture where row 0 and column 0 lie. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <webp/mux.h>
#include <zlib.h>

#include "base/file.h"
#include "io/image.h"
#include "test.h"

enum { W = 24, H = 16, BLOCK = 8 }; /* blocks of one colour survive JPEG */

typedef enum side { TOP, BOTTOM, LEFT, RIGHT } side;
static const struct { side row0, col0; } table[9] = {{TOP, LEFT},   {TOP, LEFT},     {TOP, RIGHT},
                                                       {BOTTOM, RIGHT}, {BOTTOM, LEFT},
                                                     {LEFT, TOP},   {RIGHT, TOP},    {RIGHT, BOTTOM}, {LEFT, BOTTOM}};

/* The upright picture: 3x2 blocks, all different. */
static void colour(int x, int y, uint8_t out[3])
{
    int k = y / BLOCK * (W / BLOCK) + x / BLOCK;
    out[0] = (uint8_t)(30 + 40 * k);
    out[1] = (uint8_t)(230 - 35 * k);
    out[2] = (uint8_t)(k % 2 ? 200 : 60);
}

/* Where the n-th row or column from that side is: x or y of the picture. */
static void place(side from, int n, int *x, int *y)
{
    switch (from) {
    case TOP: *y = n; break;
    case BOTTOM: *y = H - 1 - n; break;
    case LEFT: *x = n; break;
    case RIGHT: *x = W - 1 - n; break;
    }
}

static sm_image stored(int orientation, uint8_t *pixels)
{
    bool turned = table[orientation].row0 == LEFT || table[orientation].row0 == RIGHT;
    sm_image im = {.width = turned ? H : W, .height = turned ? W : H, .channels = 3, .pixels = pixels};
    for (int r = 0; r < im.height; r++)
        for (int c = 0; c < im.width; c++, pixels += 3) {
            int x = 0, y = 0;
            place(table[orientation].row0, r, &x, &y);
            place(table[orientation].col0, c, &x, &y);
            colour(x, y, pixels);
        }
    return im;
}

/* A TIFF of one directory: orientation as SHORT (3) or LONG (4). Returns its length. */
static size_t exif(uint32_t orientation, int type, bool little, uint8_t out[26])
{
    const uint32_t field[][2] = {{2, 42}, {4, 8}, {2, 1}, {2, 0x0112}, {2, (uint32_t)type}, {4, 1},
                                 {type == 3 ? 2 : 4, orientation},
                                 {type == 3 ? 2 : 0, 0}};
    size_t n = 2;
    memcpy(out, little ? "II" : "MM", 2);
    for (size_t i = 0; i < SM_COUNT(field); i++)
        for (uint32_t k = 0; k < field[i][0]; k++)
            out[n++] = (uint8_t)(field[i][1] >> 8 * (little ? k : field[i][0] - 1 - k));
    return n;
}

static void put32(sm_buf *b, uint32_t v)
{
    sm_buf_add(b, (uint8_t[]){(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v}, 4);
}

/* The file with an EXIF block; PNG: at the front (before the pixels) or the back. */
static sm_buf with_exif(sm_image_format f, const sm_buf *file, const uint8_t *data, size_t n, bool back)
{
    sm_buf out = {0};
    if (f == SM_IMAGE_JPEG) { /* APP1 behind SOI */
        sm_buf_add(&out, file->data, 2);
        sm_buf_add(&out, (uint8_t[]){0xff, 0xe1, 0, (uint8_t)(n + 8)}, 4);
        sm_buf_add(&out, "Exif\0", 6);
        sm_buf_add(&out, data, n);
        sm_buf_add(&out, file->data + 2, file->len - 2);
    } else if (f == SM_IMAGE_PNG) { /* behind IHDR, or before IEND */
        size_t at = back ? file->len - 12 : 33;
        sm_buf_add(&out, file->data, at);
        put32(&out, (uint32_t)n);
        sm_buf_add(&out, "eXIf", 4);
        sm_buf_add(&out, data, n);
        put32(&out, (uint32_t)crc32(crc32(0, (const Bytef *)"eXIf", 4), data, (uInt)n));
        sm_buf_add(&out, file->data + at, file->len - at);
    } else {
        WebPData picture = {(const uint8_t *)file->data, file->len}, block = {data, n}, whole = {0};
        WebPMux *mux = WebPMuxNew();
        CHECK(WebPMuxSetImage(mux, &picture, 0) == WEBP_MUX_OK && WebPMuxSetChunk(mux, "EXIF", &block, 0) == WEBP_MUX_OK &&
              WebPMuxAssemble(mux, &whole) == WEBP_MUX_OK);
        sm_buf_add(&out, whole.bytes, whole.size);
        WebPDataClear(&whole);
        WebPMuxDelete(mux);
    }
    return out;
}

/* Largest difference from the upright picture; 999 for another size. */
static int off(const sm_image *im)
{
    int worst = 0;
    if (im->width != W || im->height != H)
        return 999;
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) {
            uint8_t c[3];
            colour(x, y, c);
            for (int k = 0; k < 3; k++)
                worst = SM_MAX(worst, abs(im->pixels[(y * W + x) * im->channels + k] - c[k]));
        }
    return worst;
}

static void check(sm_image_format f, int orientation, int type, bool little, bool back)
{
    sm_mem mem = {0};
    sm_err e = {0};
    uint8_t pixels[W * H * 3], block[26];
    sm_buf file = {0};
    sm_image im = stored(orientation, pixels), got;
    CHECKF(!sm_image_encode(&im, f, 0, 0, NULL, &file, &e), "%s", e.msg);
    size_t n = exif((uint32_t)orientation, type, little, block);
    sm_buf whole = with_exif(f, &file, block, n, back);
    CHECKF(!sm_image_decode(&got, whole.data, whole.len, "stored", 0, &mem, &e), "%s", e.msg);
    CHECKF(got.pixels && off(&got) <= (f == SM_IMAGE_JPEG ? 3 : 0) && got.orientation == orientation,
           "format %d, orientation %d, %d: off by %d, is %d", f,
           orientation, little, got.pixels ? off(&got) : -1, got.orientation);
    sm_image_free(&got);
    CHECK(mem.total == 0);
    for (int64_t at = 1; at < 30; at++) {
        mem.fail_at = at;
        sm_err why = {0};
        sumi_status st = sm_image_decode(&got, whole.data, whole.len, "stored", 0, &mem, &why);
        CHECKF(!st || st == SUMI_E_MEMORY, "allocation %lld: %d, %s", (long long)at, st, why.msg);
        sm_image_free(&got);
        CHECKF(mem.total == 0, "allocation %lld: %zu bytes", (long long)at, mem.total);
    }
    sm_buf_free(&file);
    sm_buf_free(&whole);
}

TEST(orientation_upright)
{
    for (int f = SM_IMAGE_PNG; f <= SM_IMAGE_WEBP; f++)
        for (int o = 1; o <= 8; o++) {
            check((sm_image_format)f, o, 3, false, false);
            check((sm_image_format)f, o, 3, true, true);
        }
    check(SM_IMAGE_PNG, 6, 4, true, false); /* LONG, which some programs write */
}

/* What is no orientation leaves the picture as it is. */
TEST(orientation_none)
{
    static const uint32_t wrong[] = {0, 9, 40000};
    for (size_t i = 0; i < SM_COUNT(wrong); i++) {
        sm_mem mem = {0};
        sm_err e = {0};
        uint8_t pixels[W * H * 3], block[26];
        sm_buf file = {0};
        sm_image im = stored(1, pixels), got;
        CHECKF(!sm_image_encode(&im, SM_IMAGE_PNG, 0, 0, NULL, &file, &e), "%s", e.msg);
        size_t n = exif(wrong[i], 3, true, block);
        sm_buf whole = with_exif(SM_IMAGE_PNG, &file, block, n, false);
        CHECKF(!sm_image_decode(&got, whole.data, whole.len, "stored", 0, &mem, &e) && off(&got) == 0, "%u: %s", wrong[i], e.msg);
        sm_image_free(&got);
        sm_buf_free(&file);
        sm_buf_free(&whole);
    }
}

/* The public reader, which init images and masks go through too. */
TEST(orientation_public)
{
    sumi_context *ctx = NULL;
    sumi_images *im = NULL;
    sm_err e = {0};
    uint8_t pixels[W * H * 3], block[26];
    sm_buf file = {0};
    char path[300];
    snprintf(path, sizeof path, "%s", test_tmp("turned.jpg"));
    sm_image x = stored(6, pixels);
    CHECKF(!sm_image_encode(&x, SM_IMAGE_JPEG, 0, 0, NULL, &file, &e), "%s", e.msg);
    sm_buf whole = with_exif(SM_IMAGE_JPEG, &file, block, exif(6, 3, false, block), false);
    CHECK(!sm_file_write(path, whole.data, whole.len, &e) && !sumi_context_new(NULL, &ctx));
    CHECKF(!sumi_image_load(ctx, path, &im), "%s", sumi_error(ctx));
    const sumi_image *p = sumi_images_at(im, 0);
    CHECK(p && off(&(sm_image){.width = p->width, .height = p->height, .channels = p->channels, .pixels = p->pixels}) <= 3);
    sumi_images_free(im);
    sumi_context_free(ctx);
    sm_buf_free(&file);
    sm_buf_free(&whole);
}

static void put_entry(sm_buf *b, uint32_t tag_type, uint32_t n, uint32_t at)
{
    put32(b, tag_type);
    put32(b, n);
    put32(b, at);
}

/* Many entries that share one long value, through directories that share another: read once, else 60 kB take half a minute. */
TEST(orientation_exif_shared)
{
    enum { ENTRIES = 512, SECOND = 8 + 2 + 12 * ENTRIES + 4, VALUE = SECOND + 2 + 12 * ENTRIES + 4, LONG_TEXT = 3000 };
    sm_mem mem = {0};
    sm_err e = {0};
    uint8_t pixels[W * H * 3];
    sm_buf file = {0}, tiff = {0};
    sm_image im = stored(1, pixels), got;
    CHECKF(!sm_image_encode(&im, SM_IMAGE_PNG, 0, 0, NULL, &file, &e), "%s", e.msg);
    sm_buf_add(&tiff, "MM\0*\0\0\0\x08\x02", 10); /* 512 entries, big endian: its second byte is the string's end */
    for (int i = 0; i < ENTRIES; i++)
        put_entry(&tiff, 0x87690004, 1, SECOND);
    put32(&tiff, 0);
    sm_buf_add(&tiff, "\x02", 2);
    for (int i = 0; i < ENTRIES; i++)
        put_entry(&tiff, 0x92860007, 8 + LONG_TEXT, VALUE);
    put32(&tiff, 0);
    sm_buf_add(&tiff, "ASCII\0\0", 8);
    for (int i = 0; i < LONG_TEXT; i++)
        sm_buf_add(&tiff, "a", 1);
    sm_buf whole = with_exif(SM_IMAGE_PNG, &file, (const uint8_t *)tiff.data, tiff.len, false);
    CHECKF(!sm_image_decode(&got, whole.data, whole.len, "shared", 0, &mem, &e), "%s", e.msg);
    CHECKF(got.ntext >= 1 && got.ntext <= 5, "%d texts of %d bytes in a block of %zu", got.ntext, LONG_TEXT, tiff.len);
    CHECK(strlen(got.text[0].value) == LONG_TEXT);
    sm_image_free(&got);
    sm_buf_free(&tiff);
    sm_buf_free(&file);
    sm_buf_free(&whole);
}
