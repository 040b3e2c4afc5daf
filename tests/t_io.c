/* Files and safetensors: what comes back is what was written; whatever is wrong with a file gives one error, no crash and no
 * leak, also when memory or the disk ends at any point. Expected bytes are built here by hand from the format's description
 * (github.com/huggingface/safetensors). */
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "io/safetensors.h"
#include "test.h"

/* ---- files ------------------------------------------------------------------------------------------------------- */

static int files_in(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *x; d && (x = readdir(d));)
        n += x->d_name[0] != '.' || strstr(x->d_name, ".tmp");
    if (d)
        closedir(d);
    return n;
}

static bool holds(const char *path, const char *text)
{
    sm_buf b = {0};
    sm_err e = {0};
    bool same = sm_file_read(path, 1 << 20, &b, &e) == SUMI_OK && b.len == strlen(text) &&
        !memcmp(b.data ? b.data : "", text, b.len);
    sm_buf_free(&b);
    return same;
}

static bool fails_with(sumi_status st, const sm_err *e, sumi_status want, const char *part1, const char *part2)
{
    bool ok = st == want && e->code == want && strstr(e->msg, part1) && strstr(e->msg, part2) && !strchr(e->msg, '\n');
    if (!ok)
        printf("  status %d, message '%s'\n", st, e->msg);
    return ok;
}

TEST(io_file_write_read)
{
    const char *dir = test_tmp("files");
    char path[512], link[512];
    struct stat st;
    sm_err e = {0};
    CHECK(!mkdir(dir, 0777));
    snprintf(path, sizeof path, "%s/a.txt", dir);
    snprintf(link, sizeof link, "%s/link", dir);
    CHECK(sm_file_write(path, "first", 5, &e) == SUMI_OK && holds(path, "first"));
    CHECK(!chmod(path, 0640) && !symlink("a.txt", link));
    CHECK(sm_file_write(link, "second", 6, &e) == SUMI_OK && holds(path, "second"));
    CHECK(!lstat(link, &st) && S_ISLNK(st.st_mode));
    CHECK(!stat(path, &st) && (st.st_mode & 0777) == 0640);
    CHECK(sm_file_write(path, "", 0, &e) == SUMI_OK && holds(path, ""));
    sm_map *m = sm_map_open(NULL, path, &e);
    CHECK(m && !m->size && !m->data);
    sm_map_close(m);
    sm_file_writer *w = sm_file_writer_open(NULL, path, &e);
    CHECK(w && sm_file_writer_append(w, "lost", 4, &e) == SUMI_OK);
    sm_file_writer_abort(w);
    CHECK(holds(path, "") && files_in(dir) == 2);
    w = sm_file_writer_open(NULL, path, &e);
    for (int i = 0; w && i < 3; i++)
        CHECK(sm_file_writer_append(w, "abc", 3, &e) == SUMI_OK);
    CHECK(holds(path, "")); /* not before the commit */
    CHECK(w && sm_file_writer_commit(w, &e) == SUMI_OK && holds(path, "abcabcabc") && files_in(dir) == 2);
    m = sm_map_open(NULL, path, &e);
    CHECK(m && m->size == 9 && !memcmp(m->data, "abcabcabc", 9));
    sm_map_close(m);
    sm_buf b = {0};
    CHECK(fails_with(sm_file_read(path, 8, &b, &e), &e, SUMI_E_FORMAT, path, "8 bytes"));
    CHECK(!b.data);
}

TEST(io_file_errors)
{
    sm_err e = {0};
    sm_buf b = {0};
    const char *none = test_tmp("nothing/here"), *dir = test_tmp("folder");
    CHECK(!mkdir(dir, 0777));
    CHECK(fails_with(sm_file_read(none, 10, &b, &e), &e, SUMI_E_FILE, none, "No such file"));
    sm_err_clear(&e);
    CHECK(!sm_map_open(NULL, none, &e) && fails_with(e.code, &e, SUMI_E_FILE, none, "No such file"));
    sm_err_clear(&e);
    CHECK(!sm_map_open(NULL, dir, &e) && fails_with(e.code, &e, SUMI_E_FILE, dir, "Is a directory"));
    sm_err_clear(&e);
    CHECK(!sm_map_open(NULL, "/dev/null", &e) && fails_with(e.code, &e, SUMI_E_FILE, "/dev/null", "regular"));
    sm_err_clear(&e);
    CHECK(fails_with(sm_file_write(none, "x", 1, &e), &e, SUMI_E_FILE, none, "No such file"));
    sm_err_clear(&e);
    CHECK(fails_with(sm_file_write(dir, "x", 1, &e), &e, SUMI_E_FILE, dir, "Is a directory"));
    sm_err_clear(&e);
    CHECK(fails_with(sm_file_write("/dev/full", "x", 1, &e), &e, SUMI_E_FILE, "/dev/full", "No space left"));
    sm_err_clear(&e);
    CHECK(sm_file_write("/dev/null", "x", 1, &e) == SUMI_OK);
    CHECK(fails_with(sm_file_write("/proc/sumi-cannot-write-here", "x", 1, &e), &e, SUMI_E_FILE, "/proc/sumi", ":"));
}

/* The system refuses to write past a size in the middle of a file, as a full disk would: the old content stays. */
TEST(io_file_disk_full)
{
    const char *dir = test_tmp("quota");
    char path[512];
    sm_err e = {0};
    struct rlimit old, low;
    CHECK(!mkdir(dir, 0777));
    snprintf(path, sizeof path, "%s/a", dir);
    CHECK(sm_file_write(path, "good", 4, &e) == SUMI_OK);
    char *big = calloc(1, 100000);
    void (*before)(int) = signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    low = old;
    low.rlim_cur = 50000;
    CHECK(!setrlimit(RLIMIT_FSIZE, &low));
    CHECK(fails_with(sm_file_write(path, big, 100000, &e), &e, SUMI_E_FILE, path, "File too large"));
    sm_err_clear(&e);
    sm_file_writer *w = sm_file_writer_open(NULL, path, &e);
    CHECK(w && sm_file_writer_append(w, big, 100000, &e) == SUMI_E_FILE && sm_file_writer_append(w, big, 1, &e) == SUMI_E_FILE);
    CHECK(w && sm_file_writer_commit(w, &e) == SUMI_E_FILE);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, before);
    free(big);
    CHECK(holds(path, "good") && files_in(dir) == 1);
}

/* ---- safetensors: building files by hand ------------------------------------------------------------------------- */

/* A file of that header and nbytes of data 0, 1, 2, ...; released with free. */
static uint8_t *st_bytes(const char *header, size_t nbytes, size_t *size)
{
    size_t h = strlen(header);
    uint8_t *p = malloc(8 + h + nbytes);
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(h >> (8 * i));
    memcpy(p + 8, header, h);
    for (size_t i = 0; i < nbytes; i++)
        p[8 + h + i] = (uint8_t)i;
    *size = 8 + h + nbytes;
    return p;
}

/* "" when header and data make a good file, else the message. */
static const char *st_says(const char *header, size_t nbytes)
{
    static char msg[640];
    size_t size;
    sm_err e = {0};
    sm_mem mem = {0};
    uint8_t *p = st_bytes(header, nbytes, &size);
    sm_st *f = sm_st_open_mem(p, size, "test.safetensors", &mem, &e);
    snprintf(msg, sizeof msg, "%s", e.msg);
    CHECKF(f ? e.code == SUMI_OK : e.code == SUMI_E_FORMAT && e.msg[0], "status %d '%s'", e.code, e.msg);
    sm_st_close(f);
    CHECKF(mem.total == 0, "%zu bytes leaked for %s", mem.total, header);
    free(p);
    return msg;
}

static void good(const char *header, size_t nbytes)
{
    CHECKF(!st_says(header, nbytes)[0], "%s: %s", header, st_says(header, nbytes));
}
static void bad(const char *header, size_t nbytes, const char *why)
{
    const char *msg = st_says(header, nbytes);
    CHECKF(strstr(msg, why) && strstr(msg, "test.safetensors") && !strchr(msg, '\n'), "%.200s: '%s', expected '%s'", header, msg,
           why);
}

#define T(NAME, DTYPE, SHAPE, A, B) "\"" NAME "\":{\"dtype\":\"" DTYPE "\",\"shape\":" SHAPE ",\"data_offsets\":[" #A "," #B "]}"

TEST(io_st_good_headers)
{
    good("{}", 0);
    good("{}   \n", 0);
    good("{" T("a", "F32", "[2]", 0, 8) "}", 8);
    good("{" T("a", "F32", "[]", 0, 4) "}", 4);
    good("{" T("a", "F32", "[0]", 0, 0) "}", 0);
    good("{" T("a", "F32", "[0]", 4, 4) "," T("b", "I32", "[1]", 0, 4) "}", 4);
    good("{" T("b", "U8", "[3]", 0, 3) "," T("a", "F64", "[1]", 3, 11) ",\"__metadata__\":{\"k\":\"v\"}}", 11);
    good("{" T("a", "F4", "[3,2]", 0, 3) "}", 3);
    good("{" T("a", "BOOL", "[1,1,1,1,1,1,1,1]", 0, 1) "}", 1);
    good("{ \"a\" : { \"shape\" : [ 2 ] , \"data_offsets\" : [0,2] , \"dtype\" : \"F8_E4M3\" } }", 2);
}

TEST(io_st_bad_headers)
{
    bad("", 0, "no safetensors");
    bad("[]", 0, "no safetensors");
    bad("{ ", 0, "not valid");
    bad("{}x", 0, "not valid");
    bad("{}{}", 0, "not valid");
    bad("{\"a\":1}", 0, "JSON object");
    bad("{\"a\":[]}", 0, "JSON object");
    bad("{\"a\":{}}", 0, "must have");
    bad("{" T("", "F32", "[2]", 0, 8) "}", 8, "name");
    bad("{" T("a", "F99", "[2]", 0, 8) "}", 8, "dtype");
    bad("{" T("a", "f32", "[2]", 0, 8) "}", 8, "dtype");
    bad("{\"a\":{\"dtype\":3,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype");
    bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8, "nothing else");
    bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"shape\":[2]}}", 8, "twice");
    bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"offsets\":[0,8]}}", 8, "must have");
    bad("{" T("a", "F32", "[2]", 0, 8) "," T("a", "F32", "[2]", 0, 8) "}", 8, "twice");
    bad("{" T("a", "F32", "2", 0, 8) "}", 8, "shape");
    bad("{" T("a", "F32", "[-2]", 0, 8) "}", 8, "whole number");
    bad("{" T("a", "F32", "[-2,-1]", 0, 8) "}", 8, "whole number");
    bad("{" T("a", "F32", "[NaN]", 0, 8) "}", 8, "not valid");
    bad("{" T("a", "F32", "[1e999]", 0, 8) "}", 8, "whole number");
    bad("{" T("a", "F32", "[1.5]", 0, 8) "}", 8, "whole number");
    bad("{" T("a", "F32", "[null]", 0, 8) "}", 8, "whole number");
    bad("{" T("a", "F32", "[\"2\"]", 0, 8) "}", 8, "whole number");
    bad("{" T("a", "F32", "[[2]]", 0, 8) "}", 8, "whole number");
    bad("{" T("a", "F32", "[9007199254740993]", 0, 8) "}", 8, "whole number");
    bad("{" T("a", "F32", "[4294967296,4294967296]", 0, 8) "}", 8, "too large");
    bad("{" T("a", "F32", "[4503599627370496,1024,4]", 0, 8) "}", 8, "too large");
    bad("{" T("a", "F32", "[4503599627370496,1024]", 0, 0) "}", 0, "do not fit");
    bad("{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, "8 dimensions");
    bad("{" T("a", "F32", "[2]", 0, 7) "}", 8, "do not fit");
    bad("{" T("a", "F32", "[3]", 0, 8) "}", 8, "do not fit");
    bad("{" T("a", "F4", "[3]", 0, 2) "}", 2, "do not fit");
    bad("{" T("a", "F32", "[2]", 8, 0) "}", 8, "outside");
    bad("{" T("a", "F32", "[2]", 0, 16) "}", 8, "outside");
    bad("{" T("a", "F32", "[2]", -1, 7) "}", 8, "data_offsets");
    bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "data_offsets");
    bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", 8, "data_offsets");
    bad("{" T("a", "F32", "[2]", 18446744073709551616, 18446744073709551624) "}", 8, "data_offsets");
}

TEST(io_st_bad_layout)
{
    bad("{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[2]", 4, 12) "}", 12, "overlaps");
    bad("{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[2]", 0, 8) "}", 8, "overlaps");
    bad("{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[2]", 9, 17) "}", 17, "hole");
    bad("{" T("a", "F32", "[2]", 1, 9) "}", 9, "hole");
    bad("{" T("a", "F32", "[2]", 0, 8) "}", 9, "after the last tensor");
    bad("{}", 1, "after the last tensor");
    bad("{\"__metadata__\":[]}", 0, "__metadata__");
    bad("{\"__metadata__\":{\"k\":1}}", 0, "__metadata__");
    bad("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, "twice");
    bad("{\"__metadata__\":{\"k\":\"a\\u0000b\"}}", 0, "NUL");
    bad("{\"__metadata__\":{\"k\":\"\xff\"}}", 0, "UTF-8");
    bad("{\"__metadata__\":{\"k\":\"\x01\"}}", 0, "control");
    bad("{\"a\":[[[[[[1]]]]]]}", 0, "deeply");
    char *deep = malloc(200002);
    memset(deep, '[', 200000);
    deep[0] = '{';
    deep[200000] = 0;
    bad(deep, 0, "deeply");
    memset(deep + 1, ',', 199999);
    bad(deep, 0, "not valid");
    free(deep);
    char *wide = malloc(4000010);
    strcpy(wide, "{\"a\":[");
    memset(wide + 6, ',', 4000001);
    wide[4000007] = 0;
    bad(wide, 0, "too many values");
    free(wide);
    char longest[1200];
    memset(longest, 'n', sizeof longest);
    char head[1400];
    snprintf(head, sizeof head, "{\"%.1025s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", longest);
    bad(head, 1, "1024");
    snprintf(head, sizeof head, "{\"%.1024s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", longest);
    good(head, 1);
}

TEST(io_st_lying_length)
{
    size_t size;
    uint8_t *p = st_bytes("{" T("a", "F32", "[2]", 0, 8) "}", 8, &size);
    uint64_t h = p[0];
    static const uint64_t lies[] = {0, 1, 2, 100000000, 100000001, 1u << 31, 0xffffffffu, UINT64_MAX, UINT64_MAX - 7,
                                    (uint64_t)1 << 63};
    for (size_t i = 0; i < SM_COUNT(lies) + 2 * h; i++) {
        uint64_t lie = i < SM_COUNT(lies) ? lies[i] : i - SM_COUNT(lies);
        sm_err e = {0};
        if (lie == h)
            continue;
        memcpy(p, &lie, 8);
        CHECKF(!sm_st_open_mem(p, size, "lie", NULL, &e) && e.code == SUMI_E_FORMAT, "length %llu", (unsigned long long)lie);
    }
    free(p);
}

/* ---- safetensors: content ---------------------------------------------------------------------------------------- */

TEST(io_st_listing)
{
    size_t size;
    sm_err e = {0};
    uint8_t *p = st_bytes("{\"__metadata__\":{\"format\":\"pt\",\"a\":\"\\u00e4\\n\"}," T("z", "I64", "[2,1]", 0, 16) ","
                          T("b", "BF16", "[1,2]", 16, 20) "," T("a.weight", "F32", "[]", 20, 24) "," T("e", "F32", "[0,7]", 24,
                              24) ","
                          T("r7", "F32", "[1,1,1,1,1,1,1]", 24, 28) "}", 28, &size);
    sm_st *f = sm_st_open_mem(p, size, "x", NULL, &e);
    CHECKF(f != NULL, "%s", e.msg);
    if (!f)
        return free(p);
    static const struct { const char *name, *dtype; bool computable; int rank; size_t at, bytes; } row[] = {
        {"a.weight", "F32", true, 0, 20, 4}, {"b", "BF16", true, 2, 16, 4}, {"e", "F32", false, 2, 24, 0},
        {"r7", "F32", false, 7, 24, 4},
        {"z", "I64", false, 2, 0, 16}};
    CHECK(sm_st_count(f) == SM_COUNT(row) && !sm_st_at(f, SM_COUNT(row)));
    for (size_t i = 0; i < SM_COUNT(row); i++) {
        const sm_st_entry *t = sm_st_at(f, i);
        CHECK(!strcmp(t->name, row[i].name) && !strcmp(t->dtype, row[i].dtype) && t->computable == row[i].computable);
        CHECK(t->rank == row[i].rank && t->bytes == row[i].bytes && t->data == p + size - 28 + row[i].at);
        CHECK(sm_st_find(f, row[i].name) == t);
    }
    CHECK(sm_st_at(f, 1)->type == SM_BF16 && sm_st_at(f, 1)->dims[0] == 1 && sm_st_at(f, 1)->dims[1] == 2);
    CHECK(!sm_st_find(f, "") && !sm_st_find(f, "c") && !sm_st_find(f, "zz"));
    CHECK(sm_st_metadata_count(f) == 2 && !strcmp(sm_st_metadata_at(f, 0).key, "format") && !sm_st_metadata_at(f, 2).key);
    CHECK(!strcmp(sm_st_metadata(f, "a"), "ä\n") && !sm_st_metadata(f, "b"));
    sm_st_close(f);
    free(p);
}

static void write_text(const char *path, const void *data, size_t n)
{
    sm_err e = {0};
    CHECKF(sm_file_write(path, data, n, &e) == SUMI_OK, "%s", e.msg);
}

/* Tensors of a file whose data starts at an odd offset: views must be aligned all the same. */
TEST(io_st_into_weights)
{
    const char *path = test_tmp("odd.safetensors");
    sm_mem mem = {0};
    sm_err e = {0};
    size_t size;
    float want[2] = {1.5f, -2.25f};
    for (int pad = 0; pad < 4; pad++) {
        char header[300];
        snprintf(header, sizeof header, "{" T("f", "F32", "[2]", 0, 8) "," T("u", "U8", "[1]", 8, 9) "," T("h", "F16", "[1]", 9,
            11) "}%*s", pad, "");
        uint8_t *p = st_bytes(header, 11, &size);
        memcpy(p + size - 11, want, 8);
        write_text(path, p, size);
        free(p);
        sm_weights *w = sm_weights_new(&mem, &e);
        CHECKF(sm_st_load(path, w, "text_encoder.", &mem, &e) == SUMI_OK, "%s", e.msg);
        CHECK(sm_weights_count(w) == 2 && !sm_weights_find(w, "text_encoder.u"));
        const sm_weight *f = sm_weights_find(w, "text_encoder.f"), *h = sm_weights_find(w, "text_encoder.h");
        CHECK(f && (uintptr_t)f->t.data % 4 == 0 && f->t.dtype == SM_F32 && f->t.dims[0] == 2 && !memcmp(f->t.data, want, 8));
        CHECK(h && (uintptr_t)h->t.data % 2 == 0 && *(uint16_t *)h->t.data == 0x0a09);
        CHECK(sm_st_load(path, w, "text_encoder.", &mem, &e) == SUMI_E_FORMAT && strstr(e.msg, "twice"));
        sm_err_clear(&e);
        CHECK(sm_st_load(path, w, NULL, &mem, &e) == SUMI_OK && sm_weights_count(w) == 4);
        sm_weights_unref(&w);
        CHECK(mem.total == 0);
    }
}

/* The file's exact bytes, as the format's description has them. */
TEST(io_st_write_bytes)
{
    static const char head[] =
        "{\"__metadata__\":{\"a\":\"2\",\"b\":\"q\\\"\\u000a\"},\"f\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                               "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[4,8]},"
                               "\"h\":{\"dtype\":\"F16\",\"shape\":[1,1],\"data_offsets\":[8,10]}}";
    static const uint8_t data[10] = {0, 0, 0x80, 0x3f, 0x80, 0x3f, 0x20, 0xc1, 0, 0x3c};
    const char *path = test_tmp("bytes.safetensors");
    float one = 1, two[2] = {1, -10};
    sm_st_item item[] =
        {{.name = "h", .t = {.data = &one, .dtype = SM_F32, .rank = 2, .dims = {1, 1}}, .convert = true, .as = SM_F16},
                         {.name = "f", .t = {.data = &one, .dtype = SM_F32, .rank = 1, .dims = {1}}},
                         {.name = "b", .t = {.data = two, .dtype = SM_F32, .rank = 1, .dims = {2}},
                          .convert = true, .as = SM_BF16}};
    sm_st_meta meta[] = {{"b", "q\"\n"}, {"a", "2"}};
    sm_err e = {0};
    sm_buf b = {0};
    CHECKF(sm_st_write(path, 3, item, 2, meta, NULL, &e) == SUMI_OK && sm_file_read(path, 4096, &b, &e) == SUMI_OK, "%s", e.msg);
    size_t h = (sizeof head - 1 + 7) / 8 * 8;
    CHECK(b.len == 8 + h + 10 && (uint8_t)b.data[0] == (h & 255) && (uint8_t)b.data[1] == h >> 8 &&
          !memcmp(b.data + 2, "\0\0\0\0\0\0", 6));
    CHECK(b.len == 8 + h + 10 && !memcmp(b.data + 8, head, sizeof head - 1) && !memcmp(b.data + 8 + h, data, 10));
    for (size_t i = 8 + sizeof head - 1; i < 8 + h && i < b.len; i++)
        CHECK(b.data[i] == ' ');
    sm_buf_free(&b);
}

TEST(io_st_write_many)
{
    enum { N = 20001 }; /* more than one piece of conversion */
    const char *path = test_tmp("many.safetensors");
    float *x = malloc(N * sizeof *x);
    test_fill(x, N, 1, -4, 4);
    sm_err e = {0};
    sm_mem mem = {0};
    sm_weights *w = sm_weights_new(&mem, &e);
    sm_weight *a = sm_weights_create(w, "a", 1, (int64_t[]){N}, &e);
    memcpy(a->t.data, x, N * sizeof *x);
    int32_t ids[3] = {1, -2, 3};
    sm_weights_add(w, "ids", &(sm_tensor){.data = ids, .dtype = SM_I32, .rank = 1, .dims = {3}}, &e);
    static const double eps[] = {0, 0x1p-11, 0x1p-8}; /* half a unit in the last place, relative */
    for (sm_dtype as = SM_F32; as <= SM_BF16; as++) {
        CHECKF(sm_st_write_weights(path, w, as, 0, NULL, &mem, &e) == SUMI_OK, "%s", e.msg);
        sm_st *f = sm_st_open(path, &mem, &e);
        const sm_st_entry *t = f ? sm_st_find(f, "a") : NULL, *i = f ? sm_st_find(f, "ids") : NULL;
        CHECK(t && t->type == as && t->dims[0] == N && i && i->type == SM_I32 && !memcmp(i->data, ids, sizeof ids));
        sm_st_close(f);
        /* back to F32 through a second file; every value is within rounding */
        sm_weights *v = sm_weights_new(&mem, &e);
        CHECK(sm_st_load(path, v, NULL, &mem, &e) == SUMI_OK &&
              sm_st_write_weights(path, v, SM_F32, 0, NULL, &mem, &e) == SUMI_OK);
        sm_weights_unref(&v);
        v = sm_weights_new(&mem, &e);
        CHECK(sm_st_load(path, v, NULL, &mem, &e) == SUMI_OK);
        const float *y = sm_weights_find(v, "a") ? sm_weights_find(v, "a")->t.data : x;
        bool close = y != x;
        for (int k = 0; k < N; k++)
            close = close && fabs((double)y[k] - x[k]) <= eps[as] * fabs(x[k]) + (as == SM_F16 ? 0x1p-25 : 0);
        CHECK(close);
        sm_weights_unref(&v);
    }
    sm_weights_unref(&w);
    CHECK(mem.total == 0 && e.code == SUMI_OK);
    free(x);
}

TEST(io_st_write_errors)
{
    const char *path = test_tmp("errors.safetensors");
    float big[2] = {1, 65520}, inf = INFINITY;
    sm_err e = {0};
    struct stat st;
    sm_st_item item = {.name = "a", .t = {.data = big, .dtype = SM_F32, .rank = 1, .dims = {2}}, .convert = true, .as = SM_F16};
    CHECK(fails_with(sm_st_write(path, 1, &item, 0, NULL, NULL, &e), &e, SUMI_E_NUMERIC, path, "too large for F16"));
    CHECK(stat(path, &st)); /* nothing was left */
    sm_err_clear(&e);
    item.t = (sm_tensor){.data = &inf, .rank = 1, .dims = {1}};
    CHECK(sm_st_write(path, 1, &item, 0, NULL, NULL, &e) == SUMI_OK);
    sm_st_item twice[] = {{.name = "a", .t = {.data = big, .dtype = SM_F32, .rank = 1, .dims = {2}}},
                          {.name = "b", .t = {.data = big, .dtype = SM_F32, .rank = 1, .dims = {1}}},
                          {.name = "a", .t = {.data = big, .dtype = SM_F16, .rank = 1, .dims = {1}}}};
    CHECK(fails_with(sm_st_write(path, 3, twice, 0, NULL, NULL, &e), &e, SUMI_E_ARG, path, "twice"));
    sm_err_clear(&e);
    CHECK(fails_with(sm_st_write("/dev/full", 1, twice, 0, NULL, NULL, &e), &e, SUMI_E_FILE, "/dev/full", "No space"));
    sm_err_clear(&e);
    sm_st_item wrong[] = {{.name = "", .t = {.data = big, .dtype = SM_F32, .rank = 1, .dims = {2}}},
                          {.name = "__metadata__", .t = {.data = big, .dtype = SM_F32, .rank = 1, .dims = {2}}},
                          {.name = "\xff", .t = {.data = big, .dtype = SM_F32, .rank = 1, .dims = {2}}},
                          {.name = "a", .t = {.data = big, .dtype = SM_F32, .rank = 1, .dims = {-1}}},
                          {.name = "a", .t = {.data = big, .dtype = SM_F32, .rank = 2, .dims = {INT64_MAX, 4}}},
                          {.name = "a", .t = {.data = big, .dtype = SM_I32, .rank = 1, .dims = {1}}, .convert = true}};
    for (size_t i = 0; i < SM_COUNT(wrong); i++) {
        CHECKF(fails_with(sm_st_write(path, 1, &wrong[i], 0, NULL, NULL, &e), &e, SUMI_E_ARG, path, "cannot write"), "item %zu",
               i);
        sm_err_clear(&e);
    }
    CHECK(sm_st_write(path, 0, NULL, 1, &(sm_st_meta){"k", "\xc3"}, NULL, &e) == SUMI_E_ARG);
}

/* ---- shards ------------------------------------------------------------------------------------------------------ */

static const char *in_dir(const char *dir, const char *name)
{
    static char path[4][512];
    static int at;
    snprintf(path[at % 4], sizeof path[0], "%s/%s", dir, name);
    return path[at++ % 4];
}

static void write_one(const char *path, const char *name, float value)
{
    sm_err e = {0};
    sm_st_item item = {.name = name, .t = {.data = &value, .dtype = SM_F32, .rank = 1, .dims = {1}}};
    CHECKF(sm_st_write(path, 1, &item, 1, &(sm_st_meta){"of", name}, NULL, &e) == SUMI_OK, "%s", e.msg);
}

/* Message of opening path; the values of a and b when it opens. */
static const char *open_says(const char *path, float *a, float *b)
{
    static sm_err e;
    sm_mem mem = {0};
    e = (sm_err){0};
    sm_st *f = sm_st_open(path, &mem, &e);
    const sm_st_entry *x = f ? sm_st_find(f, "a") : NULL, *y = f ? sm_st_find(f, "b") : NULL;
    *a = *b = 0;
    if (x)
        memcpy(a, x->data, 4);
    if (y)
        memcpy(b, y->data, 4);
    CHECK(!f == !!e.msg[0] && (!f || !strcmp(sm_st_metadata(f, "of"), "a")));
    sm_st_close(f);
    CHECK(mem.total == 0);
    return e.msg;
}

static void index_is(const char *path, const char *json) { write_text(path, json, strlen(json)); }

TEST(io_st_shards)
{
    char dir[256];
    float a, b;
    snprintf(dir, sizeof dir, "%s", test_tmp("io_shards"));
    CHECK(!mkdir(dir, 0777) && strstr(open_says(dir, &a, &b), "holds no .safetensors"));
    write_one(in_dir(dir, "m-1.safetensors"), "a", 1);
    CHECK(!open_says(dir, &a, &b)[0] && a == 1 && b == 0);
    write_one(in_dir(dir, "m-2.safetensors"), "b", 2);
    CHECK(strstr(open_says(dir, &a, &b), "several"));
    char index[512];
    snprintf(index, sizeof index, "%s", in_dir(dir, "m.safetensors.index.json"));
    index_is(index, "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}");
    CHECK(!open_says(dir, &a, &b)[0] && a == 1 && b == 2);
    CHECK(!open_says(index, &a, &b)[0] && a == 1 && b == 2);
    index_is(index, "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-1.safetensors\"}}");
    CHECK(strstr(open_says(dir, &a, &b), "'b' is not in m-1.safetensors"));
    index_is(index, "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-3.safetensors\"}}");
    CHECK(strstr(open_says(dir, &a, &b), "m-3.safetensors: No such file"));
    write_one(in_dir(dir, "m-2.safetensors"), "a", 2);
    index_is(index, "{\"weight_map\":{\"a\":\"m-1.safetensors\"}}");
    CHECK(!open_says(dir, &a, &b)[0] && a == 1);
    static const char *const wrong[] = {
        "", "{}", "[]", "{\"weight_map\":{}}", "{\"weight_map\":[]}", "{\"weight_map\":{\"a\":1}}",
        "{\"weight_map\":{\"a\":\"\"}}", "{\"weight_map\":{\"a\":\"../m-1.safetensors\"}}",
        "{\"weight_map\":{\"a\":\"/m-1.safetensors\"}}", "{\"weight_map\":{\"a\":\"x/m-1.safetensors\"}}",
        "{\"weight_map\":{\"a\":\".safetensors\"}}", "{\"weight_map\":{\"a\":\"m-1.bin\"}}",
        "{\"weight_map\":{\"\":\"m-1.safetensors\"}}", "{\"weight_map\":{\"a\":\"m-1.safetensors\"}",
        "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"a\":\"m-2.safetensors\"}}"};
    for (size_t i = 0; i < SM_COUNT(wrong); i++) {
        index_is(index, wrong[i]);
        CHECKF(strstr(open_says(dir, &a, &b), "m.safetensors.index.json"), "%s: '%s'", wrong[i], open_says(dir, &a, &b));
    }
    write_one(in_dir(dir, "model.safetensors"), "a", 5);
    CHECK(!open_says(dir, &a, &b)[0] && a == 5);
}

TEST(io_st_shards_repeat)
{
    char dir[256];
    float a, b;
    snprintf(dir, sizeof dir, "%s", test_tmp("repeat"));
    CHECK(!mkdir(dir, 0777));
    sm_err e = {0};
    sm_st_item two[] = {{.name = "b", .t = {.data = &b, .dtype = SM_F32, .rank = 1, .dims = {1}}},
                        {.name = "a", .t = {.data = &b, .dtype = SM_F32, .rank = 1, .dims = {1}}}};
    b = 1;
    write_one(in_dir(dir, "1.safetensors"), "a", 1);
    CHECK(sm_st_write(in_dir(dir, "2.safetensors"), 2, two, 0, NULL, NULL, &e) == SUMI_OK);
    index_is(in_dir(dir, "model.safetensors.index.json"), "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}");
    CHECK(strstr(open_says(dir, &a, &b), "'a' is in two of its files"));
}

/* ---- hostility --------------------------------------------------------------------------------------------------- */

TEST(io_st_truncated)
{
    const char *path = test_tmp("whole.safetensors");
    float x[6] = {1, 2, 3, 4, 5, 6};
    sm_st_item item[] = {{.name = "one", .t = {.data = x, .dtype = SM_F32, .rank = 2, .dims = {2, 3}}},
                         {.name = "two", .t = {.data = x, .dtype = SM_F32, .rank = 1, .dims = {1}},
                          .convert = true, .as = SM_F16}};
    sm_err e = {0};
    sm_buf b = {0};
    CHECK(sm_st_write(path, 2, item, 1, &(sm_st_meta){"k", "v"}, NULL, &e) == SUMI_OK &&
          sm_file_read(path, 4096, &b, &e) == SUMI_OK);
    for (size_t n = 0; n <= b.len; n++) {
        uint8_t *cut = malloc(n ? n : 1); /* of exactly this size, so that a sanitizer sees a byte read past it */
        memcpy(cut, b.data, n);
        sm_mem mem = {0};
        e = (sm_err){0};
        sm_st *f = sm_st_open_mem(cut, n, "cut", &mem, &e);
        CHECKF(n == b.len ? f && !e.code : !f && e.code == SUMI_E_FORMAT && e.msg[0], "%zu of %zu bytes: '%s'", n, b.len, e.msg);
        sm_st_close(f);
        CHECK(mem.total == 0);
        free(cut);
    }
    sm_buf_free(&b);
}

/* Runs work with the n-th allocation failing, for all n: an error of that kind, and nothing left over. */
static void each_allocation(const char *what, sumi_status (*work)(sm_mem *mem, const char *path, sm_err *e), const char *path)
{
    for (int64_t n = 1; n < 10000; n++) {
        sm_mem mem = {.fail_at = n};
        sm_err e = {0};
        sumi_status st = work(&mem, path, &e);
        CHECKF(mem.total == 0, "%s: allocation %lld failing leaks %zu bytes", what, (long long)n, mem.total);
        if (mem.fail_at) {
            CHECKF(st == SUMI_OK && n > 1, "%s: %s", what, e.msg);
            return;
        }
        CHECKF(st == SUMI_E_MEMORY && e.code == st && strstr(e.msg, "out of memory"), "%s: allocation %lld: status %d '%s'", what,
               (long long)n, st, e.msg);
    }
    CHECK(!"ended");
}

static sumi_status work_load(sm_mem *mem, const char *path, sm_err *e)
{
    sm_weights *w = sm_weights_new(mem, e);
    sumi_status st = w ? sm_st_load(path, w, "p.", mem, e) : e->code;
    sm_weights_unref(&w);
    return st;
}

static sumi_status work_write(sm_mem *mem, const char *path, sm_err *e)
{
    float x[3] = {1, 2, 3};
    sm_st_item item[] = {{.name = "a", .t = {.data = x, .dtype = SM_F32, .rank = 1, .dims = {3}}},
                         {.name = "b", .t = {.data = x, .dtype = SM_F32, .rank = 1, .dims = {1}},
                          .convert = true, .as = SM_BF16}};
    return sm_st_write(path, 2, item, 1, &(sm_st_meta){"k", "v"}, mem, e);
}

TEST(io_st_allocations)
{
    char dir[256], odd[512];
    snprintf(dir, sizeof dir, "%s", test_tmp("alloc"));
    CHECK(!mkdir(dir, 0777));
    size_t size;
    uint8_t *p = st_bytes("{\"__metadata__\":{\"k\":\"v\"}," T("u", "U8", "[1]", 0, 1) "," T("a", "F32", "[1]", 1, 5) "," T("h",
        "F16", "[1]", 5, 7) "}", 7, &size);
    snprintf(odd, sizeof odd, "%s", in_dir(dir, "odd.safetensors"));
    write_text(odd, p, size);
    free(p);
    each_allocation("load a file", work_load, odd);
    write_one(in_dir(dir, "two.safetensors"), "b", 2);
    each_allocation("write a file", work_write, in_dir(dir, "two.safetensors"));
    write_one(in_dir(dir, "two.safetensors"), "b", 2);
    index_is(in_dir(dir, "x.safetensors.index.json"), "{\"weight_map\":{\"a\":\"odd.safetensors\",\"b\":\"two.safetensors\"}}");
    each_allocation("load a folder", work_load, dir);
    CHECK(files_in(dir) == 3);
}
