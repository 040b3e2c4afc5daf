/* Fuzz entry of the picture reader: bytes of a PNG, JPEG or WebP file, sides limited to 256 so that a run stays short. Every
 * pixel and text of what decodes is read; texts are written again in each format and read back. */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "io/image.h"

static void check(bool ok)
{
    if (!ok)
        abort();
}

/* Metadata that came out of a file can be written again in each format, unless its key is none for writing. */
static void again(const sm_image *im, sm_mem *mem)
{
    static uint8_t dot[3] = {1, 2, 3};
    sm_image one = {.width = 1, .height = 1, .channels = 3, .pixels = dot};
    for (int f = SM_IMAGE_PNG; f <= SM_IMAGE_WEBP; f++) {
        sm_buf out = {.mem = mem};
        sm_err e = {0};
        if (sm_image_encode(&one, (sm_image_format)f, 0, im->ntext, im->text, &out, &e) == SUMI_OK) {
            sm_image back;
            check(sm_image_decode(&back, out.data, out.len, "again", 1, mem, &e) == SUMI_OK && back.ntext == im->ntext);
            sm_image_free(&back);
        }
        sm_buf_free(&out);
    }
}

static uint32_t big(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }

/* Sets the checksum of every PNG chunk right, which changes would hardly do by chance. */
static void mend(uint8_t *p, size_t size)
{
    for (size_t at = 8; at + 12 <= size && big(p + at) <= size - at - 12; at += 12 + big(p + at)) {
        uint32_t n = big(p + at), crc = (uint32_t)crc32(0, p + at + 4, n + 4);
        for (int i = 0; i < 4; i++)
            p[at + 8 + n + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
    }
}

static void decode(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    decode(data, size);
    if (size >= 8 && !memcmp(data, "\x89PNG", 4)) {
        uint8_t *copy = malloc(size);
        if (!copy)
            abort();
        memcpy(copy, data, size);
        mend(copy, size);
        decode(copy, size);
        free(copy);
    }
    return 0;
}

static void decode(const uint8_t *data, size_t size)
{
    sm_mem mem = {0};
    sm_err e = {0};
    sm_image im;
    sumi_status st = sm_image_decode(&im, data, size, "fuzz", 256, &mem, &e);
    check(st == e.code && (st == SUMI_OK || e.msg[0]));
    if (st == SUMI_OK) {
        check(im.width > 0 && im.width <= 256 && im.height > 0 && im.height <= 256 && (im.channels == 3 || im.channels == 4));
        volatile uint8_t sum = 0; /* every pixel is read */
        for (size_t i = 0; i < (size_t)im.width * (size_t)im.height * (size_t)im.channels; i++)
            sum = sum ^ im.pixels[i];
        for (int i = 0; i < im.ntext; i++)
            check(sm_utf8_valid(im.text[i].key, strlen(im.text[i].key)) &&
                  sm_utf8_valid(im.text[i].value, strlen(im.text[i].value)));
        if (im.ntext)
            again(&im, &mem);
    }
    sm_image_free(&im);
    check(mem.total == 0);
}
