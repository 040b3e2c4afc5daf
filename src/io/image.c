/* Loading and saving pictures: format, limits, files (see image.h). The formats themselves are in image_png.c, image_jpeg.c and
 * image_webp.c. */
#include "io/image.h"

#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "io/image_impl.h"

/* ---- loading ----------------------------------------------------------------------------------------------------- */

sumi_status sm_image_shape(sm_image *im, const sm_image_source *s, uint64_t width, uint64_t height, int channels, sm_err *e)
{
    if (!width || !height || width > (uint64_t)s->max_side || height > (uint64_t)s->max_side)
        return sm_fail(e, SUMI_E_FORMAT, "%s: a picture of %llu x %llu pixels; 1 to %d a side are possible", s->label,
                       (unsigned long long)width, (unsigned long long)height, s->max_side);
    im->width = (int)width;
    im->height = (int)height;
    im->channels = channels;
    im->pixels = sm_alloc(s->mem, SM_MEM_DATA, (size_t)width * height * (size_t)channels);
    return im->pixels ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "%s: out of memory for %d x %d pixels", s->label, im->width,
                                          im->height);
}

bool sm_image_add_text(sm_image *im, const char *key, const char *value, size_t n)
{
    while (n && !value[n - 1])
        n--;
    if (im->ntext == SM_IMAGE_MAX_TEXTS || !sm_utf8_valid(key, strlen(key)) || !sm_utf8_valid(value, n) || memchr(value, 0, n))
        return true;
    if (!im->text)
        im->text = sm_arena_get(&im->arena, SM_IMAGE_MAX_TEXTS * sizeof *im->text);
    char *k = im->text ? sm_arena_str(&im->arena, key) : NULL, *v = k ? sm_arena_get(&im->arena, n + 1) : NULL;
    if (!v)
        return false;
    memcpy(v, value, n);
    im->text[im->ntext++] = (sm_image_text){k, v};
    return true;
}

/* TIFF's orientations: from 5 on stored rows are the picture's columns; stored rows or columns may begin at the far side. */
static sumi_status upright(sm_image *im, const char *label, sm_mem *mem, sm_err *e)
{
    int o = im->orientation, w = im->width, h = im->height, c = im->channels;
    bool turned = o >= 5, from_right = o == 2 || o == 3 || o == 6 || o == 7, from_below = o == 3 || o == 4 || o == 7 || o == 8;
    if (o < 2 || o > 8)
        return SUMI_OK;
    uint8_t *to = sm_alloc(mem, SM_MEM_DATA, (size_t)w * (size_t)h * (size_t)c);
    if (!to)
        return sm_fail(e, SUMI_E_MEMORY, "%s: out of memory for %d x %d pixels", label, w, h);
    im->width = turned ? h : w;
    im->height = turned ? w : h;
    const uint8_t *from = im->pixels;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++, from += c) {
            int at_x = turned ? y : x, at_y = turned ? x : y;
            at_x = from_right ? im->width - 1 - at_x : at_x;
            at_y = from_below ? im->height - 1 - at_y : at_y;
            memcpy(to + ((size_t)at_y * (size_t)im->width + (size_t)at_x) * (size_t)c, from, (size_t)c);
        }
    sm_free(im->pixels);
    im->pixels = to;
    return SUMI_OK;
}

sumi_status sm_image_decode(sm_image *im, const void *data, size_t size, const char *label, int max_side, sm_mem *mem, sm_err *e)
{
    sm_err own = {0};
    sm_image_source s = {data, size, label, max_side > 0 ? SM_MIN(max_side, SM_IMAGE_MAX_SIDE) : SM_IMAGE_MAX_SIDE, mem};
    *im = (sm_image){0};
    sm_arena_init(&im->arena, mem, SM_MEM_DATA);
    if (size >= 8 && !memcmp(data, "\x89PNG\r\n\x1a\n", 8))
        sm_png_decode(im, &s, &own);
    else if (size >= 3 && !memcmp(data, "\xff\xd8\xff", 3))
        sm_jpeg_decode(im, &s, &own);
    else if (size >= 12 && !memcmp(data, "RIFF", 4) && !memcmp(s.data + 8, "WEBP", 4))
        sm_webp_decode(im, &s, &own);
    else
        sm_fail(&own, SUMI_E_FORMAT, "%s: no PNG, JPEG or WebP picture", label);
    if (own.code != SUMI_OK || upright(im, label, mem, &own)) {
        sm_image_free(im);
        sm_fail(e, own.code, "%s", own.msg);
    }
    return own.code;
}

sumi_status sm_image_load(sm_image *im, const char *path, sm_mem *mem, sm_err *e)
{
    sm_err own = {0};
    *im = (sm_image){0};
    sm_map *map = sm_map_open(mem, path, &own);
    if (map)
        sm_image_decode(im, map->data, map->size, path, 0, mem, &own);
    sm_map_close(map);
    if (own.code != SUMI_OK)
        sm_fail(e, own.code, "%s", own.msg);
    return own.code;
}

void sm_image_free(sm_image *im)
{
    sm_free(im->pixels);
    sm_arena_free(&im->arena);
    *im = (sm_image){0};
}

const char *sm_image_text_find(const sm_image *im, const char *key)
{
    for (int i = 0; i < im->ntext; i++)
        if (!strcmp(im->text[i].key, key))
            return im->text[i].value;
    return NULL;
}

/* ---- saving ------------------------------------------------------------------------------------------------------ */

sumi_status sm_image_format_of(const char *path, sm_image_format *f, sm_err *e)
{
    static const struct { const char *ext; sm_image_format f; } row[] = {
        {".png", SM_IMAGE_PNG}, {".jpg", SM_IMAGE_JPEG}, {".jpeg", SM_IMAGE_JPEG}, {".webp", SM_IMAGE_WEBP}};
    size_t n = strlen(path);
    for (size_t i = 0; i < SM_COUNT(row); i++) {
        size_t k = strlen(row[i].ext);
        if (n > k && !strcasecmp(path + n - k, row[i].ext)) {
            *f = row[i].f;
            return SUMI_OK;
        }
    }
    return sm_fail(e, SUMI_E_ARG, "cannot write %s: the name of a picture ends in .png, .jpg, .jpeg or .webp", path);
}

static sumi_status check_text(const sm_image_text *t, sm_err *e)
{
    size_t n = strlen(t->key);
    bool ok = n >= 1 && n <= 79 && t->key[0] != ' ' && t->key[n - 1] != ' ' && !strstr(t->key, "  ");
    for (size_t i = 0; i < n; i++)
        ok = ok && t->key[i] >= 32 && t->key[i] < 127;
    if (!ok)
        return sm_fail(e, SUMI_E_ARG, "a picture's metadata key '%.100s' is not 1 to 79 printable ASCII characters", t->key);
    if (!sm_utf8_valid(t->value, strlen(t->value)))
        return sm_fail(e, SUMI_E_ARG, "a picture's metadata '%s' is not UTF-8", t->key);
    return SUMI_OK;
}

sumi_status sm_image_encode(const sm_image *im, sm_image_format f, int quality, int ntext, const sm_image_text *text, sm_buf *out,
                            sm_err *e)
{
    if (im->width < 1 || im->height < 1 || im->width > SM_IMAGE_MAX_SIDE || im->height > SM_IMAGE_MAX_SIDE ||
        (im->channels != 3 && im->channels != 4) || !im->pixels)
        return sm_fail(e, SUMI_E_ARG, "cannot encode a picture of %d x %d pixels with %d channels", im->width, im->height,
                       im->channels);
    if (quality < 0 || quality > 100 || ntext < 0 || ntext > SM_IMAGE_MAX_TEXTS)
        return sm_fail(e, SUMI_E_ARG, "cannot encode a picture: quality must be 0 to 100, texts at most %d", SM_IMAGE_MAX_TEXTS);
    for (int i = 0; i < ntext; i++) {
        sumi_status st = check_text(&text[i], e);
        if (st != SUMI_OK)
            return st;
    }
    switch (f) {
    case SM_IMAGE_PNG: return sm_png_encode(im, ntext, text, out, e);
    case SM_IMAGE_JPEG: return sm_jpeg_encode(im, quality, ntext, text, out, e);
    case SM_IMAGE_WEBP: return sm_webp_encode(im, quality, ntext, text, out, e);
    }
    return sm_fail(e, SUMI_E_ARG, "unknown picture format %d", (int)f);
}

sumi_status sm_image_save(const sm_image *im, const char *path, const sm_image_text *text, sm_mem *mem, sm_err *e)
{
    sm_image_format f = SM_IMAGE_PNG;
    sm_buf out = {.mem = mem};
    sumi_status st = sm_image_format_of(path, &f, e);
    if (st == SUMI_OK)
        st = sm_image_encode(im, f, 0, text ? 1 : 0, text, &out, e);
    if (st == SUMI_OK)
        st = sm_file_write(path, out.data, out.len, e);
    sm_buf_free(&out);
    return st;
}
