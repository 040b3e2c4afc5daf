/* Runs a fuzz entry point without a fuzzer: on every file of the folders and files named, then on deterministic changes of
 * each (cut short, a byte replaced, a run of bytes overwritten by its neighbours), so that the usual suite meets each parser
 * with some thousands of wrong files. With no corpus the seeds are the empty file and short runs of bytes.
 * CHANGES=N changes per file, 200 otherwise. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static long runs;
static int changes = 200;

static uint64_t next(uint64_t *s)
{
    *s ^= *s << 13; /* xorshift64 */
    *s ^= *s >> 7;
    return *s ^= *s << 17;
}

/* A copy of exactly size bytes, so that a sanitizer sees a read past the end. */
static void feed(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        abort();
    memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    runs++;
}

static void change(uint8_t *d, size_t *size, uint64_t *s)
{
    size_t at = next(s) % *size;
    switch (next(s) % 5) {
    case 0: *size = at; break;
    case 1: d[at] ^= (uint8_t)(1u << next(s) % 8); break;
    case 2: d[at] = (uint8_t)next(s); break;
    case 3: d[at] = "\0\xff\x7f\x80" "9-{\""[next(s) % 8]; break;
    default: {
        size_t from = next(s) % *size, n = 1 + next(s) % 16;
        n = n > *size - at ? *size - at : n;
        n = n > *size - from ? *size - from : n;
        memmove(d + at, d + from, n);
    }
    }
}

static void feed_changed(const uint8_t *data, size_t size)
{
    uint64_t s = 0x9e3779b97f4a7c15u ^ size;
    uint8_t *d = malloc(size + 1);
    if (!d)
        abort();
    feed(data, size);
    for (int i = 0; size && i < changes; i++) {
        size_t n = size;
        memcpy(d, data, size);
        for (uint64_t k = 1 + next(&s) % 4; k && n; k--)
            change(d, &n, &s);
        feed(d, n);
    }
    free(d);
}

static int feed_file(const char *path, long size)
{
    FILE *f = fopen(path, "rb");
    uint8_t *d = malloc((size_t)size + 1);
    int ok = f && d && fread(d, 1, (size_t)size, f) == (size_t)size;
    if (ok)
        feed_changed(d, (size_t)size);
    else
        fprintf(stderr, "%s: cannot be read\n", path);
    free(d);
    if (f)
        fclose(f);
    return ok;
}

static int feed_path(const char *path)
{
    struct stat st;
    char name[1024];
    int ok = 1;
    if (stat(path, &st))
        return fprintf(stderr, "%s: missing\n", path), 0;
    if (!S_ISDIR(st.st_mode))
        return feed_file(path, (long)st.st_size);
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (e->d_name[0] != '.') {
            snprintf(name, sizeof name, "%s/%s", path, e->d_name);
            ok &= feed_path(name);
        }
    if (dir)
        closedir(dir);
    return ok;
}

int main(int argc, char **argv)
{
    uint8_t seed[64] = {0};
    const char *n = getenv("CHANGES");
    int ok = 1;
    changes = n ? atoi(n) : changes;
    for (size_t i = 0; i <= sizeof seed; i += 8) {
        feed_changed(seed, i);
        memset(seed, i % 16 ? '{' : 0xff, i);
    }
    for (int i = 1; i < argc; i++)
        ok &= feed_path(argv[i]);
    printf("%ld inputs\n", runs);
    return !ok;
}
