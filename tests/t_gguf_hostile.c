/* GGUF headers that lie, written byte by byte: counts, lengths, types, shapes, offsets, alignment, doubles. Every one is refused
 * with one line that names the file and the fault; nothing is allocated for what is only claimed. */
#include <stdlib.h>
#include <string.h>

#include "io/gguf.h"
#include "test.h"

static void u32(sm_buf *b, uint32_t v) { sm_buf_add(b, &v, 4); }
static void u64(sm_buf *b, uint64_t v) { sm_buf_add(b, &v, 8); }
static void str(sm_buf *b, const char *s)
{
    u64(b, strlen(s));
    sm_buf_add(b, s, strlen(s));
}

static sm_buf head(uint32_t version, uint64_t tensors, uint64_t pairs)
{
    sm_buf b = {0};
    sm_buf_add(&b, "GGUF", 4);
    u32(&b, version);
    u64(&b, tensors);
    u64(&b, pairs);
    return b;
}

static void tensor(sm_buf *b, const char *name, uint32_t type, uint64_t values, uint64_t offset)
{
    str(b, name);
    u32(b, 1);
    u64(b, values);
    u32(b, type);
    u64(b, offset);
}

static void data(sm_buf *b, size_t alignment, size_t bytes)
{
    while (b->len % alignment)
        sm_buf_add(b, "", 1);
    for (size_t i = 0; i < bytes; i++)
        sm_buf_add(b, "", 1);
}

/* Opens a copy of exactly these bytes and releases b. why NULL: it must open. */
static void opens(sm_buf b, const char *why)
{
    sm_mem mem = {0};
    sm_err e = {0};
    uint8_t *p = malloc(b.len);
    memcpy(p, b.data, b.len);
    sm_gguf *f = sm_gguf_open_mem(p, b.len, "test.gguf", &mem, &e);
    if (why)
        CHECKF(!f && e.code == SUMI_E_FORMAT && strstr(e.msg, why) && strstr(e.msg, "test.gguf") && !strchr(e.msg, '\n'),
               "'%s', expected '%s'", e.msg, why);
    else
        CHECKF(f && !e.code, "%s", e.msg);
    sm_gguf_close(f);
    CHECKF(mem.total == 0 && mem.peak < 1 << 20, "%zu bytes lost, peak %zu", mem.total, mem.peak);
    free(p);
    sm_buf_free(&b);
}

TEST(gguf_hostile_start)
{
    opens(head(3, 0, 0), NULL);
    opens(head(2, 0, 0), NULL);
    opens(head(0, 0, 0), "version 0");
    opens(head(1, 0, 0), "version 1");
    opens(head(4, 0, 0), "version 4");
    opens(head(0x03000000, 0, 0), "big-endian");
    opens(head(0x02000000, 0, 0), "big-endian");
    sm_buf b = head(3, 0, 0);
    b.data[3] = 'f';
    opens(b, "no GGUF file");
    static const uint64_t lies[] = {1, 100, 4000001, UINT32_MAX, (uint64_t)1 << 62, INT64_MAX, UINT64_MAX};
    for (size_t i = 0; i < SM_COUNT(lies); i++) {
        opens(head(3, lies[i], 0), "truncated");
        opens(head(3, 0, lies[i]), "truncated");
    }
}

/* One metadata pair of that type whose value is these n bytes. */
static sm_buf pair(uint32_t type, const void *value, size_t n)
{
    sm_buf b = head(3, 0, 1);
    str(&b, "key");
    u32(&b, type);
    sm_buf_add(&b, value, n);
    return b;
}

static sm_buf array(uint32_t of, uint64_t n, size_t bytes)
{
    sm_buf b = pair(SM_GGUF_ARRAY, "", 0);
    u32(&b, of);
    u64(&b, n);
    for (size_t i = 0; i < bytes; i++)
        sm_buf_add(&b, "", 1);
    return b;
}

TEST(gguf_hostile_metadata)
{
    static const uint8_t sizes[SM_GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
    for (uint32_t t = 0; t < SM_GGUF_TYPES; t++) {
        opens(pair(t, "\0\0\0\0\0\0\0\0\0\0\0\0", sizes[t]), NULL);
        opens(pair(t, "\0\0\0\0\0\0\0\0\0\0\0\0", sizes[t] - 1u), "truncated");
        opens(array(t, 3, 3u * sizes[t]), NULL);
        opens(array(t, 3, 3u * sizes[t] - 1), "truncated");
        opens(array(t, 0, 0), NULL);
        opens(array(t, UINT64_MAX / 8 + 2, 64), "truncated");
        opens(array(t, UINT64_MAX, 64), "truncated");
    }
    opens(pair(SM_GGUF_TYPES, "\0\0\0\0\0\0\0\0", 8), "type");
    opens(pair(UINT32_MAX, "\0\0\0\0\0\0\0\0", 8), "type");
    opens(array(SM_GGUF_TYPES, 1, 8), "type");
    opens(pair(SM_GGUF_BOOL, "\2", 1), "truth value");
    sm_buf b = array(SM_GGUF_BOOL, 3, 3);
    b.data[b.len - 1] = 2;
    opens(b, "truth value");
    opens(pair(SM_GGUF_STRING, "\2\0\0\0\0\0\0\0a\0", 10), "NUL");
    opens(pair(SM_GGUF_STRING, "\2\0\0\0\0\0\0\0a\xff", 10), "UTF-8");
    opens(pair(SM_GGUF_STRING, "\xff\xff\xff\xff\xff\xff\xff\xff" "a", 9), "truncated");
    opens(pair(SM_GGUF_STRING, "\0\0\0\0\0\0\0\x80" "a", 9), "truncated");
}

/* Arrays in arrays: four levels are read, five are not, however often. */
TEST(gguf_hostile_nesting)
{
    for (int levels = 1; levels < 40000; levels = levels < 7 ? levels + 1 : levels * 20) {
        sm_buf b = pair(SM_GGUF_ARRAY, "", 0);
        for (int i = 1; i < levels; i++) {
            u32(&b, SM_GGUF_ARRAY);
            u64(&b, 1);
        }
        u32(&b, SM_GGUF_U8);
        u64(&b, 1);
        sm_buf_add(&b, "x", 1);
        opens(b, levels <= 4 ? NULL : "nested deeper");
    }
}

static sm_buf keys(const char *a, const char *b2)
{
    sm_buf b = head(3, 0, 2);
    for (int i = 0; i < 2; i++) {
        str(&b, i ? b2 : a);
        u32(&b, SM_GGUF_U8);
        sm_buf_add(&b, "", 1);
    }
    return b;
}

static sm_buf aligned(uint32_t type, uint64_t value, uint64_t offset)
{
    sm_buf b = head(3, 2, 1);
    str(&b, "general.alignment");
    u32(&b, type);
    sm_buf_add(&b, &value, type == SM_GGUF_U32 ? 4 : 8);
    tensor(&b, "a", 0, 1, 0);
    tensor(&b, "b", 0, 1, offset);
    data(&b, 256, 260);
    return b;
}

TEST(gguf_hostile_names)
{
    char longest[1200];
    opens(keys("a", "b"), NULL);
    opens(keys("a", "a"), "twice");
    opens(keys("", "a"), "empty");
    opens(keys("a\n", "b"), "control character");
    opens(keys("\xc3", "b"), "UTF-8");
    memset(longest, 'k', sizeof longest);
    longest[1025] = 0;
    opens(keys(longest, "b"), "1024");
    longest[1024] = 0;
    opens(keys(longest, "b"), NULL);
    memset(longest, 0x80, 1024); /* a message that cuts a name keeps whole characters */
    for (int i = 0; i < 1024; i += 2)
        longest[i] = (char)0xc3;
    opens(keys(longest, longest), "twice");
    opens(aligned(SM_GGUF_U32, 256, 256), NULL);
    opens(aligned(SM_GGUF_U32, 4, 4), NULL);
    opens(aligned(SM_GGUF_U32, 0, 0), "alignment");
    opens(aligned(SM_GGUF_U32, 48, 48), "alignment");
    opens(aligned(SM_GGUF_U32, 0x80000000u, 0), "outside");
    opens(aligned(SM_GGUF_U64, 32, 32), "alignment");
    opens(aligned(SM_GGUF_U32, 256, 128), "multiple of the alignment");
}

/* Two tensors of 10 floats (40 bytes: places 0 and 64), with that offset and size of the second. */
static sm_buf two(const char *second, uint32_t type, uint64_t values, uint64_t offset, size_t bytes)
{
    sm_buf b = head(3, 2, 0);
    tensor(&b, "a", 0, 10, 0);
    tensor(&b, second, type, values, offset);
    data(&b, 32, bytes);
    return b;
}

TEST(gguf_hostile_tensors)
{
    opens(two("b", 0, 10, 64, 104), NULL);
    opens(two("b", 0, 10, 64, 5000), NULL);
    opens(two("b", 0, 10, 64, 103), "truncated");
    opens(two("a", 0, 10, 64, 104), "twice");
    opens(two("b", 0, 10, 32, 104), "overlaps");
    opens(two("b", 0, 10, 0, 104), "overlaps");
    opens(two("b", 0, 10, 96, 136), "gap");
    opens(two("b", 0, 10, 65, 136), "alignment");
    opens(two("b", 0, 10, (uint64_t)1 << 62, 104), "outside");
    opens(two("b", 0, 10, UINT64_MAX - 31, 104), "outside");
    opens(two("b", 0, ((uint64_t)1 << 53) - 1, 64, 104), "larger than the file");
    opens(two("b", 0, (uint64_t)1 << 53, 64, 104), "whose product is too large");
    opens(two("b", 0, (uint64_t)1 << 62, 64, 104), "whose product is too large");
    opens(two("b", 0, (uint64_t)1 << 63, 64, 104), "too large");
    opens(two("b", 0, UINT64_MAX, 64, 104), "too large");
    opens(two("b", 0, 0, 64, 104), NULL);
    opens(two("b", 2, 32, 64, 82), NULL);
    opens(two("b", 2, 33, 64, 104), "blocks");
    opens(two("b", 12, 32, 64, 300), "blocks");
    static const uint32_t none[] = {4, 5, 31, 32, 33, 36, 42, 1000, UINT32_MAX};
    for (size_t i = 0; i < SM_COUNT(none); i++)
        opens(two("b", none[i], 10, 64, 104), "type");
    opens(two("", 0, 10, 64, 104), "empty");
    opens(two("b\t", 0, 10, 64, 104), "control");
    sm_buf b = head(3, 1, 0); /* a product of sizes that overflows */
    str(&b, "t");
    u32(&b, 4);
    for (int i = 0; i < 4; i++)
        u64(&b, 1 << 20);
    u32(&b, 0);
    u64(&b, 0);
    opens(b, "too large");
    for (uint32_t rank = 9; rank; rank = rank == 9 ? UINT32_MAX : 0) {
        b = head(3, 1, 0);
        str(&b, "t");
        u32(&b, rank);
        for (int i = 0; i < 20; i++)
            u64(&b, 0);
        opens(b, "8 dimensions");
    }
    b = head(3, 0, 0); /* no tensors: no data is needed, not even its alignment */
    sm_buf_add(&b, "x", 1);
    opens(b, NULL);
}

/* A converter's note of the shape is believed only when it fits. */
TEST(gguf_hostile_shape_note)
{
    static const struct { int32_t dims[9]; uint32_t n; int rank; } row[] = {
        {{2, 5}, 2, 2}, {{10, 1, 1}, 3, 3}, {{2, 4}, 2, 1}, {{-2, -5}, 2, 1}, {{0}, 1, 1},
        {{65536, 65536, 65536, 65536, 65536}, 5, 1},
        {{10, 1, 1, 1, 1, 1, 1, 1}, 8, 8}, {{10, 1, 1, 1, 1, 1, 1, 1, 1}, 9, 1}, {{10}, 0, 1}};
    for (size_t i = 0; i < SM_COUNT(row); i++) {
        sm_err e = {0};
        sm_buf b = head(3, 1, 1);
        str(&b, "comfy.gguf.orig_shape.t");
        u32(&b, SM_GGUF_ARRAY);
        u32(&b, SM_GGUF_I32);
        u64(&b, row[i].n);
        sm_buf_add(&b, row[i].dims, row[i].n * 4);
        tensor(&b, "t", 0, 10, 0);
        data(&b, 32, 40);
        sm_gguf *f = sm_gguf_open_mem(b.data, b.len, "x", NULL, &e);
        CHECKF(f && sm_gguf_find(f, "t")->rank == row[i].rank, "row %zu %s", i, e.msg);
        CHECK(!f || sm_gguf_find(f, "t")->dims[0] == (row[i].rank > 1 ? row[i].dims[0] : 10));
        CHECK(!f || sm_gguf_find(f, "t")->computable == (row[i].rank <= SM_MAX_DIMS));
        sm_gguf_close(f);
        sm_buf_free(&b);
    }
}
