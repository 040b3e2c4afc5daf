/* What handing work to threads costs: bench_pool [threads]. Jobs of no work in a row, after pauses in which the workers have gone
 * to sleep, the processor time that a pool burns while its context is idle or computes alone, and jobs of 64 uneven tasks alone
 * and beside other busy processes. */
#include "base/pool.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TASKS = 64, MOST = 4096 };

static double clock_of(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double cpu_seconds(void) { return clock_of(CLOCK_PROCESS_CPUTIME_ID); }

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *x, int n, double q)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    return x[(int)(q * (n - 1))];
}

static void nothing(void *arg, int task, int tasks) {}

/* About 10 to 30 microseconds. */
static void uneven(void *arg, int task, int tasks)
{
    double x = 1;
    for (int i = 0; i < 6000 * (1 + task % 3); i++)
        x = x * 0.999999 + 1e-9;
    ((volatile double *)arg)[task * 8] = x;
}

static void latency(sm_pool *p, int tasks, int pause_us, int n)
{
    static double t[MOST];
    double cpu = cpu_seconds(), start = sm_now();
    for (int i = 0; i < n; i++) {
        if (pause_us)
            usleep((useconds_t)pause_us);
        t[i] = sm_now();
        sm_pool_run(p, nothing, NULL, tasks);
        t[i] = sm_now() - t[i];
    }
    cpu = cpu_seconds() - cpu;
    start = sm_now() - start;
    double median = quantile(t, n, 0.5), late = quantile(t, n, 0.95);
    printf("  %2d empty tasks, %4d us between jobs: %6.2f us, one in twenty above %7.2f; %5.1f us of processor time a job\n",
           tasks, pause_us, median * 1e6, late * 1e6, cpu / n * 1e6);
}

/* Processor time of a second in which nothing is asked for, after one job. */
static void idle(sm_pool *p)
{
    sm_pool_run(p, nothing, NULL, TASKS);
    double cpu = cpu_seconds();
    sleep(1);
    printf("  a second of idleness: %.3f ms of processor time\n", (cpu_seconds() - cpu) * 1e3);
}

/* The caller alone computes for 100 ms of its own processor time, in stretches between jobs: what the others take meanwhile. */
static void serial(sm_pool *p, double stretch)
{
    double cpu = cpu_seconds(), own = clock_of(CLOCK_THREAD_CPUTIME_ID), now = own;
    while (now - own < 0.1) {
        sm_pool_run(p, nothing, NULL, 2);
        for (double t = now; now - t < stretch;)
            now = clock_of(CLOCK_THREAD_CPUTIME_ID);
    }
    printf("  100 ms computed alone in stretches of %4.0f us: %.1f ms of the other threads' time\n", stretch * 1e6,
           (cpu_seconds() - cpu - (now - own)) * 1e3);
}

static double jobs(sm_pool *p, int n)
{
    static double out[TASKS * 8];
    double t = sm_now();
    for (int i = 0; i < n; i++)
        sm_pool_run(p, uneven, out, TASKS);
    return (sm_now() - t) / n;
}

static void beside(sm_pool *p, int neighbours)
{
    enum { ROUNDS = 7, JOBS = 60 };
    pid_t child[8];
    double t[ROUNDS], cpu = cpu_seconds();
    for (int i = 0; i < neighbours; i++)
        if (!(child[i] = fork())) {
            for (volatile unsigned k = 0;; k++)
                ;
        }
    for (int r = 0; r < ROUNDS; r++)
        t[r] = jobs(p, JOBS);
    cpu = cpu_seconds() - cpu;
    for (int i = 0; i < neighbours; i++) {
        kill(child[i], SIGKILL);
        waitpid(child[i], NULL, 0);
    }
    printf("  %d tasks of 10 to 30 us beside %d busy processes: %.2f ms a job, %.2f ms of processor time\n", TASKS, neighbours,
           quantile(t, ROUNDS, 0.5) * 1e3, cpu / (ROUNDS * JOBS) * 1e3);
}

int main(int argc, char **argv)
{
    static const int counts[] = {2, 4};
    int most = sm_cpu_count();
    for (size_t i = 0; i < SM_COUNT(counts); i++) {
        int threads = argc > 1 ? atoi(argv[1]) : counts[i];
        sm_err e = {0};
        sm_pool *p = sm_pool_new(NULL, threads, &e);
        if (!p) {
            fprintf(stderr, "%s\n", e.msg);
            return 1;
        }
        printf("%d threads, %d processors\n", threads, most);
        latency(p, 2, 0, 2000);
        latency(p, 16, 0, 2000);
        latency(p, 16, 2000, 200);
        idle(p);
        serial(p, 10e-6);
        serial(p, 1e-3);
        for (int k = 0; k <= 2; k++)
            beside(p, k);
        sm_pool_free(p);
        if (argc > 1)
            break;
    }
    return 0;
}
