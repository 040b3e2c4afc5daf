/* Runs the registered tests in order of name, each in this process, and prints the closing line. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static sm_test *all;
static int checks, failures; /* of the running test */
static const char *skipped;
static char tmp_dir[64];

void test_register(sm_test *t)
{
    sm_test **at = &all;
    while (*at && strcmp((*at)->name, t->name) < 0)
        at = &(*at)->next;
    t->next = *at;
    *at = t;
}

void test_check(bool ok, const char *file, int line, const char *fmt, ...)
{
    __atomic_fetch_add(&checks, 1, __ATOMIC_RELAXED); /* some check from threads */
    if (ok)
        return;
    va_list ap;
    va_start(ap, fmt);
    if (failures++ < 8) {
        printf("  %s:%d: ", file, line);
        vprintf(fmt, ap);
        printf("\n");
    }
    va_end(ap);
}

void test_skip(const char *why) { skipped = why; }

double test_maxdiff(const float *a, const float *b, int64_t n)
{
    double m = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        if (!(d <= m))
            m = isnan(d) && a[i] == b[i] ? m : d;
        if (isnan(m))
            return INFINITY;
    }
    return m;
}

double test_rms(const float *b, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += (double)b[i] * b[i];
    return sqrt(s / (double)(n ? n : 1));
}

void test_fill(float *x, int64_t n, uint64_t seed, float lo, float hi)
{
    uint64_t s = seed * 0x9e3779b97f4a7c15u + 0x1234567;
    for (int64_t i = 0; i < n; i++) {
        s += 0x9e3779b97f4a7c15u; /* splitmix64 */
        uint64_t z = s;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        x[i] = lo + (hi - lo) * (float)((double)(z >> 40) / 16777216.0);
    }
}

const char *test_fixture(const char *name)
{
    static char path[512];
    const char *dir = getenv("SUMI_FIXTURES");
    snprintf(path, sizeof path, "%s/%s", dir ? dir : "tests/fixtures", name);
    return path;
}

static void remove_tmp(void)
{
    char cmd[96];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", tmp_dir);
    if (tmp_dir[0] && system(cmd))
        fprintf(stderr, "cannot remove %s\n", tmp_dir);
}

const char *test_tmp(const char *name)
{
    static char path[4][256];
    static unsigned at;
    if (!tmp_dir[0]) {
        strcpy(tmp_dir, "/tmp/sumi-test-XXXXXX");
        if (!mkdtemp(tmp_dir))
            abort();
        atexit(remove_tmp);
    }
    char *p = path[at++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", tmp_dir, name);
    return p;
}

int main(int argc, char **argv)
{
    bool list = argc > 1 && !strcmp(argv[1], "-l");
    const char *filter = argc > 1 && !list ? argv[1] : "";
    int passed = 0, failed = 0, skips = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (sm_test *t = all; t; t = t->next) {
        if (list)
            printf("%s\n", t->name);
        if (list || !strstr(t->name, filter))
            continue;
        checks = failures = 0;
        skipped = NULL;
        double t0 = sm_now();
        t->fn();
        double s = sm_now() - t0;
        if (!checks && !skipped)
            test_check(false, t->name, 0, "nothing was checked");
        printf("%-7s %s (%.2f s)%s%s\n", failures ? "FAILED" : skipped ? "skipped" : "ok", t->name, s, skipped ? ": " : "",
               skipped ? skipped : "");
        if (failures)
            failed++;
        else if (skipped)
            skips++;
        else
            passed++;
    }
    if (list)
        return 0;
    if (skips)
        printf("%d passed, %d failed, %d skipped\n", passed, failed, skips);
    else
        printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed;
}
