/* A zip archive in memory (see zip.h), after PKWARE's APPNOTE.TXT 4.3 and 4.5.3. The directory at the end says where the local
 * header of an entry is, and that where its content begins; the two must agree. */
#include "io/zip.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum {
    MAX_ENTRIES = 1000000, MAX_NAME = 1023,
    LOCAL = 30, CENTRAL = 46, END = 22, END64 = 56, LOCATOR64 = 20, MAX_COMMENT = 65535, /* bytes of the records, without names */
    LOCAL_MAGIC = 0x04034b50, CENTRAL_MAGIC = 0x02014b50, END_MAGIC = 0x06054b50, END64_MAGIC = 0x06064b50,
    LOCATOR64_MAGIC = 0x07064b50,
    FLAG_ENCRYPTED = 1, FLAG_SIZES_FOLLOW = 8, METHOD_STORED = 0, METHOD_DEFLATED = 8, EXTRA_ZIP64 = 1
};

struct sm_zip {
    const uint8_t *data;
    size_t size;
    const char *label;
    sm_mem *mem;
    sm_arena arena;        /* names, label */
    sm_zip_entry *entries;
    size_t count;
};

/* Where the directory is: entries of them from begin to end. */
typedef struct directory {
    uint64_t begin, end, entries;
} directory;

static uint64_t get(const uint8_t *p, int bytes)
{
    uint64_t x = 0;
    for (int i = bytes - 1; i >= 0; i--)
        x = x << 8 | p[i];
    return x;
}

/* The record at the end, behind which only its comment follows, and the one of 64-bit numbers before it where there is one. */
static bool find_directory(const sm_zip *z, directory *d)
{
    const uint8_t *p = z->data;
    size_t at = z->size;
    for (size_t k = END; k <= z->size && k <= END + MAX_COMMENT && at == z->size; k++)
        if (get(p + z->size - k, 4) == END_MAGIC && get(p + z->size - 2 - (k - END), 2) == k - END)
            at = z->size - k;
    if (at == z->size)
        return false;
    *d = (directory){get(p + at + 16, 4), at, get(p + at + 10, 2)};
    uint64_t bytes = get(p + at + 12, 4);
    if (at >= LOCATOR64 && get(p + at - LOCATOR64, 4) == LOCATOR64_MAGIC) {
        uint64_t end64 = get(p + at - LOCATOR64 + 8, 8);
        if (at - LOCATOR64 < END64 || end64 > at - LOCATOR64 - END64 || get(p + end64, 4) != END64_MAGIC)
            return false;
        *d = (directory){get(p + end64 + 48, 8), end64, get(p + end64 + 32, 8)};
        bytes = get(p + end64 + 40, 8);
    }
    return d->begin <= d->end && d->end - d->begin == bytes;
}

/* ---- the directory ----------------------------------------------------------------------------------------------- */

static bool bad(const sm_zip *z, const char *name, const char *what, sm_err *e)
{
    sm_fail(e, SUMI_E_FORMAT, "%s: entry '%.200s' of the zip archive %s", z->label, name, what);
    return false;
}

static bool plain_name(const char *s, size_t n)
{
    if (!n || strlen(s) != n || *s == '/' || strchr(s, '\\') || !sm_utf8_valid(s, n))
        return false;
    for (const char *p = s; p; p = strchr(p, '/')) {
        p += *p == '/';
        if (!strncmp(p, "..", 2) && (p[2] == '/' || !p[2]))
            return false;
    }
    return true;
}

/* The directory's numbers of one entry; those that are 0xffffffff are in its extra field. */
typedef struct numbers {
    uint64_t size, packed, local;
} numbers;

static bool read_extra(const uint8_t *p, size_t n, numbers *x)
{
    uint64_t *const field[] = {&x->size, &x->packed, &x->local};
    while (n >= 4) {
        size_t id = (size_t)get(p, 2), k = (size_t)get(p + 2, 2);
        p += 4;
        n -= 4;
        if (k > n)
            return false;
        for (size_t i = 0, at = 0; id == EXTRA_ZIP64 && i < SM_COUNT(field); i++)
            if (*field[i] == UINT32_MAX) {
                if (k - at < 8)
                    return false;
                *field[i] = get(p + at, 8);
                at += 8;
            }
        if (id == EXTRA_ZIP64)
            return true;
        p += k;
        n -= k;
    }
    return true;
}

/* The local header of an entry whose directory record is c, before limit; where its content begins, or NULL. */
static const uint8_t *content_of(const sm_zip *z, const uint8_t *c, const numbers *x, uint64_t limit)
{
    size_t nname = (size_t)get(c + 28, 2);
    if (x->local > limit || limit - x->local < LOCAL + nname)
        return NULL;
    const uint8_t *p = z->data + x->local;
    uint64_t before = LOCAL + nname + get(p + 28, 2), packed = get(p + 18, 4), size = get(p + 22, 4);
    bool sizes = get(p + 6, 2) & FLAG_SIZES_FOLLOW ||
        ((packed == x->packed || packed == UINT32_MAX) && (size == x->size || size == UINT32_MAX));
    bool same = get(p, 4) == LOCAL_MAGIC && get(p + 8, 2) == get(c + 10, 2) && get(p + 26, 2) == nname &&
        !memcmp(p + LOCAL, c + CENTRAL, nname);
    return same && sizes && limit - x->local >= before ? p + before : NULL;
}

/* Describes the entry at *at of the directory and goes on to the next. */
static bool read_entry(sm_zip *z, const directory *d, uint64_t *at, sm_zip_entry *x, sm_err *e)
{
    char name[MAX_NAME + 1] = "";
    const uint8_t *c = z->data + *at;
    if (d->end - *at < CENTRAL || get(c, 4) != CENTRAL_MAGIC)
        return bad(z, name, "cannot be read; is the file truncated?", e);
    size_t nname = (size_t)get(c + 28, 2), nextra = (size_t)get(c + 30, 2),
        all = CENTRAL + nname + nextra + (size_t)get(c + 32, 2);
    if (d->end - *at < all)
        return bad(z, name, "cannot be read; is the file truncated?", e);
    *at += all;
    memcpy(name, c + CENTRAL, SM_MIN(nname, (size_t)MAX_NAME));
    if (nname > MAX_NAME || !plain_name(name, nname))
        return bad(z, "", "has a name that no checkpoint has", e);
    uint64_t method = get(c + 10, 2);
    if (get(c + 8, 2) & FLAG_ENCRYPTED)
        return bad(z, name, "is encrypted", e);
    if (method != METHOD_STORED && method != METHOD_DEFLATED)
        return bad(z, name, "is packed by a method other than deflate; unpack and zip it again without compression", e);
    numbers n = {.size = get(c + 24, 4), .packed = get(c + 20, 4), .local = get(c + 42, 4)};
    x->data = read_extra(c + CENTRAL + nname, nextra, &n) ? content_of(z, c, &n, d->begin) : NULL;
    if (!x->data)
        return bad(z, name, "does not fit its local header", e);
    if (n.packed > d->begin - (uint64_t)(x->data - z->data))
        return bad(z, name, "reaches out of the file", e);
    x->stored = method == METHOD_STORED;
    if (n.size > SIZE_MAX / 2 || (x->stored && n.packed != n.size))
        return bad(z, name, "has two sizes that do not fit", e);
    x->header = z->data + n.local;
    x->packed = (size_t)n.packed;
    x->size = (size_t)n.size;
    x->crc = (uint32_t)get(c + 16, 4);
    x->name = sm_arena_str(&z->arena, name);
    if (!x->name)
        sm_fail(e, SUMI_E_MEMORY, "%s: out of memory for its list of entries", z->label);
    return x->name;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const sm_zip_entry *)a)->name, ((const sm_zip_entry *)b)->name);
}

static int by_place(const void *a, const void *b)
{
    const sm_zip_entry *x = a, *y = b;
    return (x->header > y->header) - (x->header < y->header);
}

static bool check_places(sm_zip *z, sm_err *e)
{
    const uint8_t *end = z->data;
    qsort(z->entries, z->count, sizeof *z->entries, by_place);
    for (size_t i = 0; i < z->count; i++) {
        const sm_zip_entry *x = &z->entries[i];
        if (x->header < end)
            return bad(z, x->name, "overlaps another", e);
        end = x->data + x->packed;
    }
    qsort(z->entries, z->count, sizeof *z->entries, by_name);
    for (size_t i = 1; i < z->count; i++)
        if (!by_name(&z->entries[i - 1], &z->entries[i]))
            return bad(z, z->entries[i].name, "is there twice", e);
    return true;
}

static bool read_directory(sm_zip *z, sm_err *e)
{
    directory d;
    if (!find_directory(z, &d)) {
        sm_fail(e, SUMI_E_FORMAT, "%s: begins like a zip archive but has no directory at its end; is the file truncated?",
                z->label);
        return false;
    }
    if (d.entries > MAX_ENTRIES || d.entries > (d.end - d.begin) / CENTRAL) {
        sm_fail(e, SUMI_E_FORMAT, "%s: the zip archive claims more entries than it can hold", z->label);
        return false;
    }
    z->entries = sm_alloc0(z->mem, SM_MEM_MISC, ((size_t)d.entries + 1) * sizeof *z->entries);
    if (!z->entries) {
        sm_fail(e, SUMI_E_MEMORY, "%s: out of memory for its list of entries", z->label);
        return false;
    }
    uint64_t at = d.begin;
    for (; z->count < d.entries; z->count++)
        if (!read_entry(z, &d, &at, &z->entries[z->count], e))
            return false;
    if (at != d.end) {
        sm_fail(e, SUMI_E_FORMAT, "%s: the zip archive's directory holds more than its entries", z->label);
        return false;
    }
    return check_places(z, e);
}

sm_zip *sm_zip_open_mem(const void *data, size_t size, const char *label, sm_mem *mem, sm_err *e)
{
    sm_zip *z = sm_alloc0(mem, SM_MEM_MISC, sizeof *z);
    if (!z) {
        sm_fail(e, SUMI_E_MEMORY, "%s: out of memory", label);
        return NULL;
    }
    z->data = data;
    z->size = size;
    z->mem = mem;
    z->label = label;
    sm_arena_init(&z->arena, mem, SM_MEM_MISC);
    char *own = sm_arena_str(&z->arena, label);
    if (!own)
        sm_fail(e, SUMI_E_MEMORY, "%s: out of memory", label);
    else if (z->label = own, read_directory(z, e))
        return z;
    sm_zip_close(z);
    return NULL;
}

void sm_zip_close(sm_zip *z)
{
    if (!z)
        return;
    sm_free(z->entries);
    sm_arena_free(&z->arena);
    sm_free(z);
}

size_t sm_zip_count(const sm_zip *z) { return z->count; }
const sm_zip_entry *sm_zip_at(const sm_zip *z, size_t i) { return i < z->count ? &z->entries[i] : NULL; }

const sm_zip_entry *sm_zip_find(const sm_zip *z, const char *name)
{
    sm_zip_entry key = {.name = name};
    return z->count ? bsearch(&key, z->entries, z->count, sizeof key, by_name) : NULL;
}

sumi_status sm_zip_inflate(const sm_zip *z, const sm_zip_entry *x, void *out, sm_err *e)
{
    enum { PIECE = 1 << 30 }; /* zlib counts in 32 bits */
    z_stream s = {.next_in = (Bytef *)x->data, .next_out = out};
    size_t in = x->packed, room = x->size;
    uint32_t crc = 0;
    int st = inflateInit2(&s, -15);
    if (st != Z_OK)
        return sm_fail(e, SUMI_E_MEMORY, "%s: out of memory unpacking '%.200s'", z->label, x->name);
    for (bool moved = true; st == Z_OK && moved;) {
        uInt a = s.avail_in = (uInt)SM_MIN(in, (size_t)PIECE), b = s.avail_out = (uInt)SM_MIN(room, (size_t)PIECE);
        const Bytef *from = s.next_out;
        st = inflate(&s, Z_NO_FLUSH);
        crc = (uint32_t)crc32(crc, from, b - s.avail_out);
        moved = a != s.avail_in || b != s.avail_out;
        in -= a - s.avail_in;
        room -= b - s.avail_out;
    }
    inflateEnd(&s);
    if (st != Z_STREAM_END || in || room || crc != x->crc)
        bad(z, x->name, "is damaged: it does not unpack to the size and checksum that the archive states", e);
    return e->code;
}
