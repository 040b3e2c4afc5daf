/* The thread pool: every task runs once, results are seen by the caller, pools come and go under work. Meant for
 * ThreadSanitizer as much as for its own checks (make tsan). */
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/pool.h"
#include "test.h"

enum { MOST = 300 };

typedef struct tally { int hits[MOST], tasks; int64_t *sum; } tally;

/* Plain memory on purpose: the pool alone has to order these accesses. */
static void count_task(void *arg, int task, int tasks)
{
    tally *t = arg;
    t->hits[task]++;
    t->sum[task] += tasks;
    CHECK(tasks == t->tasks);
}

TEST(pool_runs_every_task_once)
{
    for (int threads = 1; threads <= 5; threads++) {
        sm_err e = {0};
        sm_pool *p = sm_pool_new(NULL, threads, &e);
        CHECKF(p && sm_pool_threads(p) == threads, "%s", e.msg);
        int64_t sum[MOST] = {0};
        for (int k = 0; p && k < 400; k++) {
            tally t = {.tasks = (k * 7) % MOST, .sum = sum};
            if (k % 97 == 0)
                usleep(3000); /* long enough for the workers to go to sleep */
            sm_pool_run(p, count_task, &t, t.tasks);
            for (int i = 0; i < MOST; i++)
                CHECK(t.hits[i] == (i < t.tasks));
        }
        sm_pool_free(p);
    }
}

/* Small jobs, then large ones, back to back: a worker that is late for the small one must not take a task of the large one
 * before it is posted. (A pool that got this wrong did so in about one job of 20,000.) */
static void hit_task(void *arg, int task, int tasks) { ((int *)arg)[task]++; }

TEST(pool_late_workers_harm_nothing)
{
    int wrong = 0;
    sm_pool *p = sm_pool_new(NULL, 4, NULL);
    double end = sm_now() + 2;
    for (int k = 0; p && !wrong && sm_now() < end; k++) {
        int hits[48] = {0}, tasks = 2 + k % 2 * 40;
        sm_pool_run(p, hit_task, hits, tasks);
        for (int i = 0; i < 48; i++)
            wrong += hits[i] != (i < tasks);
    }
    CHECKF(p && !wrong, "%d tasks ran twice or not at all", wrong);
    sm_pool_free(p);
}

/* Sleeps 2 ms, the second task 60 ms: the caller, which takes the first, has to wait. */
static void sleep_task(void *arg, int task, int tasks) { usleep(task ? 60000 : 2000); }

static double burnt(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Who waits looks for a moment and then sleeps: workers without a job, a caller whose last task takes long, more threads than
 * processors too. 0.7 s of waiting for up to eight threads; a twentieth of that would be much. */
TEST(pool_waits_asleep)
{
    sm_pool *p[2] = {sm_pool_new(NULL, 2, NULL), sm_pool_new(NULL, 8, NULL)};
    double start = burnt();
    for (int k = 0; p[0] && p[1] && k < 6; k++)
        sm_pool_run(p[k % 2], sleep_task, NULL, 2);
    usleep(300000);
    CHECKF(p[0] && p[1] && burnt() - start < 0.035, "%.3f s of processor time", burnt() - start);
    sm_pool_free(p[0]);
    sm_pool_free(p[1]);
}

TEST(pool_without_threads_is_serial)
{
    int64_t sum[MOST] = {0};
    tally t = {.tasks = 3, .sum = sum};
    sm_pool_run(NULL, count_task, &t, 3);
    CHECK(t.hits[0] == 1 && t.hits[2] == 1 && !t.hits[3] && sm_pool_threads(NULL) == 1);
    sm_pool_free(NULL);
}

TEST(pool_comes_and_goes)
{
    sm_mem mem = {0};
    for (int k = 0; k < 60; k++) {
        int64_t sum[MOST] = {0};
        tally t = {.tasks = 4, .sum = sum};
        sm_pool *p = sm_pool_new(&mem, 1 + k % 4, NULL);
        if (p && k % 3)
            sm_pool_run(p, count_task, &t, 4);
        sm_pool_free(p);
    }
    CHECK(mem.total == 0);
}

TEST(pool_sizes_out_of_range_are_refused)
{
    static const int bad[] = {0, -1, 1025};
    for (size_t i = 0; i < SM_COUNT(bad); i++) {
        sm_err e = {0};
        CHECK(!sm_pool_new(NULL, bad[i], &e) && e.code == SUMI_E_ARG && strstr(e.msg, "1..1024"));
    }
    CHECK(sm_cpu_count() >= 1 && sm_cpu_count() <= 1024);
}
