/* What the machine can do: multiply-adds in registers on all threads of a pool, which other benchmarks measure in turns with
 * their own work, since the clock of a shared machine swings by half. */
#ifndef BENCH_PEAK_H
#define BENCH_PEAK_H

#include "base/base.h"

#include <string.h>
#include <time.h>

/* Chains enough to hide a multiply-add's latency; some 20 ms on each thread. */
enum { CHAINS = 12, LOOPS = 1 << 19, SPINS = 24 };

#if defined(__x86_64__)
#define EACH(X) X("0") X("1") X("2") X("3") X("4") X("5") X("6") X("7") X("8") X("9") X("10") X("11")
#define CLOBBERS "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12"
#define FMA256(i) "vfmadd231ps %%ymm12, %%ymm12, %%ymm" i "\n\t"
#define FMA512(i) "vfmadd231ps %%zmm12, %%zmm12, %%zmm" i "\n\t"
__attribute__((target("avx2,fma"))) static void spin_avx2(void)
{
    __asm__ volatile("vzeroall" ::: CLOBBERS);
    for (int n = 0; n < LOOPS; n++)
        __asm__ volatile(EACH(FMA256)::: CLOBBERS);
}
__attribute__((target("avx512f"))) static void spin_avx512(void)
{
    __asm__ volatile("vzeroall" ::: CLOBBERS);
    for (int n = 0; n < LOOPS; n++)
        __asm__ volatile(EACH(FMA512)::: CLOBBERS);
}
#endif

/* Processor seconds of all threads: unlike the clock on the wall, not disturbed by what else the machine does. */
static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Of the calling thread, exact where that of the process is not: the system adds other threads' time by ticks. */
static double own_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct spins { int width; uint64_t ns; /* of all tasks */ } spins;

static void peak_task(void *arg, int task, int tasks)
{
    spins *s = arg;
    double t = own_seconds();
#if defined(__x86_64__)
    for (int i = 0; i < SPINS; i++)
        s->width == 16 ? spin_avx512() : spin_avx2();
#endif
    __atomic_add_fetch(&s->ns, (uint64_t)((own_seconds() - t) * 1e9) + 1, __ATOMIC_RELAXED);
}

/* GFLOP per processor second while all threads do it; 0 where there is no measurement for this machine. */
static double peak(sm_pool *pool, int width)
{
    spins s = {.width = width};
    if (!width)
        return 0;
    sm_pool_run(pool, peak_task, &s, sm_pool_threads(pool));
    return 2.0 * SPINS * CHAINS * LOOPS * width * sm_pool_threads(pool) / (double)s.ns;
}

/* Floats in a vector of the instruction set `name`; 0 where there is no measurement for it. */
static int peak_width(const char *name)
{
    return !strncmp(name, "avx512", 6) ? 16 : !strncmp(name, "avx2", 4) ? 8 : 0;
}

#endif
