/* A zip archive in memory (see zip.h; format: PKWARE's APPNOTE.TXT). minizip reads through the callbacks below, which never
 * leave the archive's bytes. */
#include "io/zip.h"

#include <minizip/unzip.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ENTRIES = 1000000, MAX_NAME = 1023, LOCAL_HEADER = 30, FLAG_ENCRYPTED = 1, METHOD_STORED = 0, METHOD_DEFLATED = 8 };

struct sm_zip {
    const uint8_t *data;
    size_t size, at;       /* at: where minizip reads next */
    const char *label;
    sm_mem *mem;
    sm_arena arena;        /* names, label */
    unzFile file;
    sm_zip_entry *entries;
    size_t count;
};

/* ---- the archive as minizip sees it ------------------------------------------------------------------------------ */

static voidpf ZCALLBACK mem_open(voidpf z, const void *name, int mode) { return z; }
static int ZCALLBACK mem_close(voidpf opaque, voidpf z) { return 0; }
static int ZCALLBACK mem_error(voidpf opaque, voidpf z) { return 0; }
static uLong ZCALLBACK mem_write(voidpf opaque, voidpf z, const void *p, uLong n) { return 0; }
static ZPOS64_T ZCALLBACK mem_tell(voidpf opaque, voidpf stream) { return ((sm_zip *)stream)->at; }

static uLong ZCALLBACK mem_read(voidpf opaque, voidpf stream, void *out, uLong n)
{
    sm_zip *z = stream;
    n = SM_MIN(n, z->size - z->at);
    memcpy(out, z->data + z->at, n);
    z->at += n;
    return n;
}

static long ZCALLBACK mem_seek(voidpf opaque, voidpf stream, ZPOS64_T to, int origin)
{
    sm_zip *z = stream;
    uint64_t from = origin == ZLIB_FILEFUNC_SEEK_CUR ? z->at : origin == ZLIB_FILEFUNC_SEEK_END ? z->size : 0, at;
    if (__builtin_add_overflow(from, (uint64_t)to, &at) || at > z->size)
        return -1;
    z->at = (size_t)at;
    return 0;
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

/* Describes minizip's current entry; limit is where the directory begins. */
static bool read_entry(sm_zip *z, size_t limit, sm_zip_entry *x, sm_err *e)
{
    char name[MAX_NAME + 1] = "";
    unz_file_info64 info;
    unz64_file_pos pos;
    int method, level;
    if (unzGetCurrentFileInfo64(z->file, &info, name, sizeof name, NULL, 0, NULL, 0) != UNZ_OK || unzGetFilePos64(z->file, &pos) != UNZ_OK)
        return bad(z, name, "cannot be read; is the file truncated?", e);
    if (info.size_filename > MAX_NAME || !plain_name(name, info.size_filename))
        return bad(z, "", "has a name that no checkpoint has", e);
    if (info.flag & FLAG_ENCRYPTED)
        return bad(z, name, "is encrypted", e);
    if (info.compression_method != METHOD_STORED && info.compression_method != METHOD_DEFLATED)
        return bad(z, name, "is packed by a method other than deflate; unpack and zip it again without compression", e);
    if (unzOpenCurrentFile2(z->file, &method, &level, 1) != UNZ_OK)
        return bad(z, name, "does not fit its local header", e);
    uint64_t begin = unzGetCurrentFileZStreamPos64(z->file);
    unzCloseCurrentFile(z->file);
    if (begin > limit || info.compressed_size > limit - begin)
        return bad(z, name, "reaches out of the file", e);
    x->stored = info.compression_method == METHOD_STORED;
    if (info.uncompressed_size > SIZE_MAX / 2 || (x->stored && info.compressed_size != info.uncompressed_size))
        return bad(z, name, "has two sizes that do not fit", e);
    x->data = z->data + begin;
    x->packed = (size_t)info.compressed_size;
    x->size = (size_t)info.uncompressed_size;
    x->directory = pos.pos_in_zip_directory;
    x->number = pos.num_of_file;
    x->name = sm_arena_str(&z->arena, name);
    if (!x->name)
        sm_fail(e, SUMI_E_MEMORY, "%s: out of memory for its list of entries", z->label);
    return x->name;
}

static int by_name(const void *a, const void *b) { return strcmp(((const sm_zip_entry *)a)->name, ((const sm_zip_entry *)b)->name); }

static int by_place(const void *a, const void *b)
{
    const sm_zip_entry *x = a, *y = b;
    return (x->data > y->data) - (x->data < y->data);
}

/* Between the contents of two entries lies at least the local header of the second, with its name. */
static bool check_places(sm_zip *z, sm_err *e)
{
    const uint8_t *end = z->data;
    qsort(z->entries, z->count, sizeof *z->entries, by_place);
    for (size_t i = 0; i < z->count; i++) {
        const sm_zip_entry *x = &z->entries[i];
        if ((size_t)(x->data - end) < LOCAL_HEADER + strlen(x->name) || x->data < end)
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
    unz_global_info64 info;
    if (unzGetGlobalInfo64(z->file, &info) != UNZ_OK || info.number_entry > MAX_ENTRIES || info.number_entry > z->size / LOCAL_HEADER) {
        sm_fail(e, SUMI_E_FORMAT, "%s: the zip archive claims more entries than it can hold", z->label);
        return false;
    }
    z->entries = sm_alloc0(z->mem, SM_MEM_MISC, ((size_t)info.number_entry + 1) * sizeof *z->entries);
    if (!z->entries) {
        sm_fail(e, SUMI_E_MEMORY, "%s: out of memory for its list of entries", z->label);
        return false;
    }
    if (!info.number_entry)
        return true;
    int st = unzGoToFirstFile(z->file);
    size_t limit = (size_t)SM_MIN(unzGetOffset64(z->file), z->size);
    for (; st == UNZ_OK && z->count < info.number_entry; st = unzGoToNextFile(z->file)) {
        if (!read_entry(z, limit, &z->entries[z->count], e))
            return false;
        z->count++;
    }
    if (z->count != info.number_entry)
        return bad(z, "", "cannot be read; is the file truncated?", e);
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
    zlib_filefunc64_def io = {mem_open, mem_read, mem_write, mem_tell, mem_seek, mem_close, mem_error, z};
    char *own = sm_arena_str(&z->arena, label);
    if (!own) {
        sm_fail(e, SUMI_E_MEMORY, "%s: out of memory", label);
    } else {
        z->label = own;
        z->file = unzOpen2_64(label, &io);
        if (!z->file)
            sm_fail(e, SUMI_E_FORMAT, "%s: begins like a zip archive but has no directory at its end; is the file truncated?", label);
        else if (read_directory(z, e))
            return z;
    }
    sm_zip_close(z);
    return NULL;
}

void sm_zip_close(sm_zip *z)
{
    if (!z)
        return;
    if (z->file)
        unzClose(z->file);
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

sumi_status sm_zip_inflate(sm_zip *z, const sm_zip_entry *x, void *out, sm_err *e)
{
    unz64_file_pos pos = {x->directory, x->number};
    uint8_t *to = out, extra;
    size_t left = x->size;
    bool ok = unzGoToFilePos64(z->file, &pos) == UNZ_OK && unzOpenCurrentFile(z->file) == UNZ_OK;
    for (int n = 1; ok && left && n > 0; left -= (size_t)SM_MAX(n, 0), to += SM_MAX(n, 0))
        n = unzReadCurrentFile(z->file, to, (unsigned)SM_MIN(left, (size_t)1 << 30));
    ok = ok && !left && unzReadCurrentFile(z->file, &extra, 1) == 0;
    int closed = unzCloseCurrentFile(z->file); /* checks the CRC */
    if (!ok || closed != UNZ_OK)
        bad(z, x->name, "is damaged: it does not unpack to the size and checksum that the archive states", e);
    return ok && closed == UNZ_OK ? SUMI_OK : SUMI_E_FORMAT;
}
