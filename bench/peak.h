/* What the machine can do: multiply-adds in registers on all threads of a pool, which other benchmarks measure in turns with their own
 * work, since the clock of a shared machine swings by half. */
#ifndef BENCH_PEAK_H
#define BENCH_PEAK_H

#include "base/base.h"

#include <string.h>
#include <time.h>

/* Chains enough to hide a multiply-add's latency. Some 20 ms in all: the system adds the other threads' processor time by ticks. */
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

static void peak_task(void *arg, int task, int tasks)
{
#if defined(__x86_64__)
    for (int i = 0; i < SPINS; i++)
        *(int *)arg == 16 ? spin_avx512() : spin_avx2();
#endif
}

/* GFLOP per processor second; 0 where there is no measurement for this machine. */
static double peak(sm_pool *pool, int width)
{
    if (!width)
        return 0;
    double t = cpu_seconds();
    sm_pool_run(pool, peak_task, &width, sm_pool_threads(pool));
    return 2.0 * SPINS * CHAINS * LOOPS * width * sm_pool_threads(pool) / (cpu_seconds() - t) * 1e-9;
}

/* Floats in a vector of the instruction set `name`; 0 where there is no measurement for it. */
static int peak_width(const char *name)
{
    return !strncmp(name, "avx512", 6) ? 16 : !strncmp(name, "avx2", 4) ? 8 : 0;
}

#endif
