/* Texts and orientation in EXIF, the metadata of JPEG, WebP and PNG (CIPA DC-008, EXIF 2.32; TIFF 6.0 for the container). Some
 * keys have tags of their own in the first directory, "parameters" is the UserComment of the EXIF directory as in the other tools
 * of the field, everything else travels in a MakerNote of ours: "sumi", then key and value in turn, each with a NUL. */
#include <string.h>

#include "io/image_impl.h"

enum { TAG_ORIENTATION = 0x0112, TAG_EXIF = 0x8769, TAG_MAKER_NOTE = 0x927c, TAG_USER_COMMENT = 0x9286, BYTE = 1, ASCII = 2,
      SHORT = 3, LONG = 4, UNDEFINED = 7, MAX_ENTRIES = 512 };

/* Texts of the first directory, in order of tag. The keys are PNG's. */
static const struct { uint16_t tag; const char *key; } tags[] = {
    {0x010e, "Description"}, {0x010f, "Make"}, {0x0110, "Model"}, {0x0131, "Software"},
    {0x013b, "Author"}, {0x8298, "Copyright"}};

static int tag_of(const char *key)
{
    for (size_t i = 0; i < SM_COUNT(tags); i++)
        if (!strcmp(tags[i].key, key))
            return tags[i].tag;
    return 0;
}

/* ---- writing: big endian ----------------------------------------------------------------------------------------- */

static void put(sm_buf *b, uint32_t v, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--)
        sm_buf_add(b, &(char){(char)(v >> (8 * i))}, 1);
}

/* One directory entry; its data, when longer than four bytes, goes to the end of `far`, which will lie at offset far_at. */
static void put_entry(sm_buf *dir, sm_buf *far, uint32_t far_at, uint16_t tag, uint16_t type, const void *data, size_t n)
{
    put(dir, tag, 2);
    put(dir, type, 2);
    put(dir, type == LONG ? 1 : (uint32_t)n, 4);
    if (n <= 4) {
        sm_buf_add(dir, data, n);
        sm_buf_add(dir, "\0\0\0\0", 4 - n);
        return;
    }
    put(dir, far_at + (uint32_t)far->len, 4);
    sm_buf_add(far, data, n);
    sm_buf_add(far, "", n & 1); /* values lie on even offsets */
}

/* Decodes one character of valid UTF-8. */
static uint32_t next_char(const char **s)
{
    const unsigned char *p = (const unsigned char *)*s;
    int more = p[0] < 0x80 ? 0 : p[0] < 0xe0 ? 1 : p[0] < 0xf0 ? 2 : 3;
    uint32_t c = more ? p[0] & (0x3fu >> more) : p[0];
    for (int i = 1; i <= more; i++)
        c = c << 6 | (p[i] & 0x3f);
    *s += more + 1;
    return c;
}

static void user_comment(sm_buf *b, const char *s)
{
    const char *p = s;
    while (*p && (unsigned char)*p < 0x80)
        p++;
    if (!*p) {
        sm_buf_add(b, "ASCII\0\0", 8);
        sm_buf_add(b, s, (size_t)(p - s));
        return;
    }
    sm_buf_add(b, "UNICODE", 8);
    while (*s) {
        uint32_t c = next_char(&s);
        if (c >= 0x10000) {
            put(b, 0xd800 + ((c - 0x10000) >> 10), 2);
            put(b, 0xdc00 + ((c - 0x10000) & 0x3ff), 2);
        } else {
            put(b, c, 2);
        }
    }
}

void sm_exif_write(sm_buf *out, int ntext, const sm_image_text *text)
{
    sm_buf dir = {.mem = out->mem}, far = dir, sub = dir, note = dir, comment = dir;
    int first = 1, second = 0; /* entries of both directories; the first has the pointer to the second */
    for (int i = 0; i < ntext; i++) {
        if (!strcmp(text[i].key, "parameters") && !comment.len) {
            user_comment(&comment, text[i].value);
        } else if (tag_of(text[i].key)) {
            first++;
        } else {
            sm_buf_add(&note, "sumi", note.len ? 0 : 5);
            sm_buf_add(&note, text[i].key, strlen(text[i].key) + 1);
            sm_buf_add(&note, text[i].value, strlen(text[i].value) + 1);
        }
    }
    second = (note.len > 0) + (comment.len > 0);
    uint32_t sub_at = 8 + 2 + 12 * (uint32_t)first + 4, far_at = sub_at + 2 + 12 * (uint32_t)second + 4;
    put(&dir, (uint32_t)first, 2);
    for (size_t t = 0; t < SM_COUNT(tags); t++) /* entries are in order of tag; TAG_EXIF is greater than all of these */
        for (int i = 0; i < ntext; i++)
            if (tag_of(text[i].key) == tags[t].tag)
                put_entry(&dir, &far, far_at, tags[t].tag, ASCII, text[i].value, strlen(text[i].value) + 1);
    put(&dir, TAG_EXIF, 2);
    put(&dir, LONG, 2);
    put(&dir, 1, 4);
    put(&dir, sub_at, 4);
    put(&dir, 0, 4);
    put(&sub, (uint32_t)second, 2);
    if (note.len)
        put_entry(&sub, &far, far_at, TAG_MAKER_NOTE, UNDEFINED, note.data, note.len);
    if (comment.len)
        put_entry(&sub, &far, far_at, TAG_USER_COMMENT, UNDEFINED, comment.data, comment.len);
    put(&sub, 0, 4);
    sm_buf_add(out, "Exif\0\0MM\0*\0\0\0\x08", 14);
    const sm_buf *part[] = {&dir, &sub, &far};
    for (size_t i = 0; i < SM_COUNT(part); i++)
        sm_buf_add(out, part[i]->data, part[i]->len);
    out->oom = out->oom || dir.oom || far.oom || sub.oom || note.oom || comment.oom;
    sm_buf_free(&dir);
    sm_buf_free(&far);
    sm_buf_free(&sub);
    sm_buf_free(&note);
    sm_buf_free(&comment);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

typedef struct tiff {
    const uint8_t *p;
    size_t n;
    bool little;
    sm_image *im;
    size_t *left; /* bytes of values still to be read: those of a sound block do not overlap, so all together they are not longer
                     than it */
    bool *seen;   /* the EXIF directory was followed */
} tiff;

/* Whether a value of n bytes is to be read, which is then counted. Thousands of entries may share one long value otherwise. */
static bool spend(const tiff *t, size_t n)
{
    bool ok = n <= *t->left;
    *t->left -= ok ? n : 0;
    return ok;
}

/* The number at offset at, which the caller has checked. */
static uint32_t get(const tiff *t, size_t at, int bytes)
{
    uint32_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint32_t)t->p[at + (size_t)i] << 8 * (t->little ? i : bytes - 1 - i);
    return v;
}

static void put_char(sm_buf *b, uint32_t c)
{
    char s[4] = {(char)c};
    int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int i = n - 1; n > 1 && i >= 0; i--, c >>= 6)
        s[i] = (char)(i ? 0x80 | (c & 0x3f) : lead[n] | c);
    sm_buf_add(b, s, (size_t)n);
}

/* Whether UTF-16 text is little endian. Some programs write it big endian into little-endian files, which shows in the zero
 * halves of its Latin characters; a big-endian file is believed. */
static bool little_text(const tiff *t, const uint8_t *p, size_t n)
{
    size_t first = 0, second = 0;
    for (size_t i = 0; i + 1 < n; i += 2) {
        first += !p[i];
        second += !p[i + 1];
    }
    return t->little && first <= second;
}

/* UTF-16 to UTF-8, up to a NUL; a surrogate without its partner becomes U+FFFD. */
static bool add_utf16(const tiff *t, const uint8_t *p, size_t n)
{
    bool little = little_text(t, p, n);
    sm_buf b = {.mem = t->im->arena.mem};
    for (size_t i = 0; i + 1 < n; i += 2) {
        uint32_t c = (uint32_t)(little ? p[i] | p[i + 1] << 8 : p[i + 1] | p[i] << 8);
        if (!c)
            break;
        if (c == 0xfeff && !i)
            continue;
        if (c >= 0xd800 && c < 0xdc00 && i + 3 < n) {
            uint32_t d = (uint32_t)(little ? p[i + 2] | p[i + 3] << 8 : p[i + 3] | p[i + 2] << 8);
            if (d >= 0xdc00 && d < 0xe000) {
                c = 0x10000 + ((c - 0xd800) << 10) + (d - 0xdc00);
                i += 2;
            }
        }
        put_char(&b, c >= 0xd800 && c < 0xe000 ? 0xfffd : c);
    }
    bool ok = !b.oom && sm_image_add_text(t->im, "parameters", b.data ? b.data : "", b.len);
    sm_buf_free(&b);
    return ok;
}

static bool read_comment(const tiff *t, const uint8_t *p, size_t n)
{
    if (n < 8)
        return true;
    if (!memcmp(p, "UNICODE", 8))
        return add_utf16(t, p + 8, n - 8);
    return sm_image_add_text(t->im, "parameters", (const char *)p + 8, n - 8);
}

static bool read_note(const tiff *t, const uint8_t *p, size_t n)
{
    if (n < 6 || memcmp(p, "sumi", 5))
        return true;
    const uint8_t *end = p + n;
    for (p += 5; p < end;) {
        const uint8_t *key_end = memchr(p, 0, (size_t)(end - p));
        const uint8_t *value = key_end ? key_end + 1 : end;
        const uint8_t *value_end = value < end ? memchr(value, 0, (size_t)(end - value)) : NULL;
        if (!value_end)
            return true;
        if (!sm_image_add_text(t->im, (const char *)p, (const char *)value, (size_t)(value_end - value)))
            return false;
        p = value_end + 1;
    }
    return true;
}

/* The directory at offset at; follows the pointer to the EXIF directory from the first one only, so it ends. */
static bool read_directory(const tiff *t, size_t at, bool first)
{
    if (at > t->n || t->n - at < 2)
        return true;
    size_t entries = SM_MIN(SM_MIN(get(t, at, 2), (uint32_t)MAX_ENTRIES), (t->n - at - 2) / 12);
    bool ok = true;
    for (size_t i = 0; ok && i < entries; i++) {
        size_t d = at + 2 + 12 * i, n = get(t, d + 4, 4), v = n > 4 ? get(t, d + 8, 4) : d + 8;
        uint32_t tag = get(t, d, 2), type = get(t, d + 2, 2);
        if (first && tag == TAG_ORIENTATION && (type == SHORT || type == LONG) && n == 1 && !t->im->orientation)
            t->im->orientation = (int)SM_MIN(get(t, d + 8, type == SHORT ? 2 : 4), 9u);
        if (first && tag == TAG_EXIF && type == LONG && n == 1 && !*t->seen) {
            *t->seen = true;
            ok = read_directory(t, get(t, d + 8, 4), false);
        }
        if ((type != BYTE && type != ASCII && type != UNDEFINED) || v > t->n || n > t->n - v)
            continue;
        for (size_t k = 0; ok && first && type == ASCII && k < SM_COUNT(tags); k++)
            if (tags[k].tag == tag && spend(t, n))
                ok = sm_image_add_text(t->im, tags[k].key, (const char *)t->p + v, n);
        if (ok && !first && tag == TAG_USER_COMMENT && spend(t, n))
            ok = read_comment(t, t->p + v, n);
        if (ok && !first && tag == TAG_MAKER_NOTE && spend(t, n))
            ok = read_note(t, t->p + v, n);
    }
    return ok;
}

bool sm_exif_read(sm_image *im, const uint8_t *data, size_t n)
{
    if (n >= 6 && !memcmp(data, "Exif\0", 6)) {
        data += 6;
        n -= 6;
    }
    if (n < 8 || (memcmp(data, "MM\0*", 4) && memcmp(data, "II*\0", 4)))
        return true;
    size_t left = n;
    bool seen = false;
    tiff t = {data, n, data[0] == 'I', im, &left, &seen};
    return read_directory(&t, get(&t, 4, 4), true);
}
