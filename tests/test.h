/* The test harness: a test is a function registered by TEST(); CHECK records a failure and goes on.
 * `sumi-test [FILTER]` runs the tests whose name contains FILTER, `sumi-test -l` lists them. */
#ifndef SM_TEST_H
#define SM_TEST_H

#include "base/base.h"

typedef struct sm_test {
    const char *name;
    void (*fn)(void);
    struct sm_test *next;
} sm_test;

void test_register(sm_test *t);
void test_check(bool ok, const char *file, int line, const char *fmt, ...) SM_PRINTF(4, 5);
void test_skip(const char *why); /* counts the running test as skipped and says why; return after it */

/* Max |a - b| over n, and the RMS of b, the reference. */
double test_maxdiff(const float *a, const float *b, int64_t n);
double test_rms(const float *b, int64_t n);
/* Deterministic uniform floats in [lo, hi), the same on every machine. */
void test_fill(float *x, int64_t n, uint64_t seed, float lo, float hi);
/* Path below tests/fixtures, in a static buffer good until the next call. */
const char *test_fixture(const char *name);
/* A fresh file path in a temporary folder that is removed at exit. */
const char *test_tmp(const char *name);

#define TEST(NAME)                                                                                   \
    static void NAME(void);                                                                          \
    __attribute__((constructor)) static void reg_##NAME(void)                                        \
    {                                                                                                \
        static sm_test t = {#NAME, NAME, NULL};                                                      \
        test_register(&t);                                                                           \
    }                                                                                                \
    static void NAME(void)
#define CHECK(c) test_check((c), __FILE__, __LINE__, "%s", #c)
#define CHECKF(c, ...) test_check((c), __FILE__, __LINE__, __VA_ARGS__)

#endif
