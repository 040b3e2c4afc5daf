/* Thread pool: tasks are taken from an atomic counter, so a thread that is held up takes fewer. Who has nothing to do looks for
 * work for a while, then sleeps on a futex: workers until the next job, the caller until the last task has ended. A job ends
 * when its last task has ended, whether or not every worker has come. */
#include "base/pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* LOOK: nanoseconds, longer than the gaps between the operations of a graph (a few thousand), about what sleeping and waking
 * cost (20 to 50 thousand where the processor was halted): whatever comes, at most twice the best. Clocks are read every CHECK
 * looks. WAKE: threads that one wakes; those wake as many, so that the caller does not spend its time on all of them. */
enum { LOOK = 50000, CHECK = 32, WAKE = 2, MOST = 1024 /* threads */ };

struct sm_pool {
    int threads;
    bool looks;                     /* there is a processor for every thread; else looking takes it from who works */
    pthread_t *th;
    /* The job: written by the caller while no task of an older job is open, read before a task is taken. */
    sm_task_fn *fn;
    void *arg;
    int tasks;
    bool quit;
    _Alignas(64) uint64_t ticket;   /* job number << 32 | tasks not yet taken */
    _Alignas(64) uint32_t done;     /* finished tasks of the job; the caller sleeps on it */
    uint32_t waiting;               /* it does */
    _Alignas(64) uint32_t posted;   /* the ticket's job number, which workers sleep on */
    int sleepers;
};

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#else
    __asm__ volatile("" ::: "memory");
#endif
}

/* Sleeps while *word is value; may return at any time. */
static void doze(uint32_t *word, uint32_t value) { syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0); }
static void wake(uint32_t *word, int threads) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0); }

/* Looks until *word is no longer value; false: it still is, and the time is over. */
static bool look(const sm_pool *p, const uint32_t *word, uint32_t value)
{
    double end = 0;
    for (int i = 0; p->looks || i < CHECK; i++) {
        if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != value)
            return true;
        pause_cpu();
        if (i % CHECK == CHECK - 1) {
            double now = sm_now();
            end = end > 0 ? end : now + 1e-9 * LOOK;
            if (now >= end)
                break;
        }
    }
    return false;
}

static uint32_t job_of(uint64_t ticket) { return (uint32_t)(ticket >> 32); }

/* Takes and runs tasks of job `job` until none is left. A thread that comes late finds another job number or no task and
 * leaves, so the caller never waits for a thread that has not begun. The fields that were read are the job's own if the
 * exchange succeeds: there was an open task before and after they were read, and only with none left does the caller write
 * those of the next job. (A count upwards would not do: a late thread could hold the new job's larger number of tasks
 * against the old ticket.) */
static void take_tasks(sm_pool *p, uint32_t job)
{
    uint64_t at = __atomic_load_n(&p->ticket, __ATOMIC_ACQUIRE);
    while (job_of(at) == job && (uint32_t)at) {
        sm_task_fn *fn = __atomic_load_n(&p->fn, __ATOMIC_RELAXED);
        void *arg = __atomic_load_n(&p->arg, __ATOMIC_RELAXED);
        int tasks = __atomic_load_n(&p->tasks, __ATOMIC_RELAXED), open = (int)(uint32_t)at;
        if (!__atomic_compare_exchange_n(&p->ticket, &at, at - 1, true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            continue;
        fn(arg, tasks - open, tasks);
        /* Either the caller sees the count before it sleeps or this sees that it waits: both orders are of all threads alike. */
        if ((int)__atomic_add_fetch(&p->done, 1, __ATOMIC_SEQ_CST) == tasks && __atomic_load_n(&p->waiting, __ATOMIC_SEQ_CST))
            wake(&p->done, 1);
        at = __atomic_load_n(&p->ticket, __ATOMIC_ACQUIRE);
    }
}

/* Wakes a few more where there are tasks for them. */
static void wake_some(sm_pool *p)
{
    if (__atomic_load_n(&p->sleepers, __ATOMIC_SEQ_CST) && (uint32_t)__atomic_load_n(&p->ticket, __ATOMIC_ACQUIRE))
        wake(&p->posted, WAKE);
}

static uint32_t await_job(sm_pool *p, uint32_t seen)
{
    if (!look(p, &p->posted, seen)) {
        __atomic_add_fetch(&p->sleepers, 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&p->posted, __ATOMIC_SEQ_CST) == seen)
            doze(&p->posted, seen);
        __atomic_sub_fetch(&p->sleepers, 1, __ATOMIC_SEQ_CST);
        wake_some(p);
    }
    return __atomic_load_n(&p->posted, __ATOMIC_ACQUIRE);
}

static void *worker(void *arg)
{
    sm_pool *p = arg;
    uint32_t seen = 0;
    for (;;) {
        seen = await_job(p, seen);
        if (__atomic_load_n(&p->quit, __ATOMIC_ACQUIRE))
            return NULL;
        take_tasks(p, seen);
    }
}

static uint32_t post(sm_pool *p, int tasks)
{
    uint32_t job = job_of(__atomic_load_n(&p->ticket, __ATOMIC_RELAXED)) + 1;
    __atomic_store_n(&p->ticket, (uint64_t)job << 32 | (uint32_t)tasks, __ATOMIC_RELEASE);
    __atomic_store_n(&p->posted, job, __ATOMIC_SEQ_CST);
    return job;
}

sm_pool *sm_pool_new(sm_mem *mem, int threads, sm_err *e)
{
    if (threads < 1 || threads > MOST) {
        sm_fail(e, SUMI_E_ARG, "threads: %d is not in 1..%d", threads, MOST);
        return NULL;
    }
    sm_pool *p = sm_alloc0(mem, SM_MEM_MISC, sizeof *p);
    pthread_t *th = sm_alloc0(mem, SM_MEM_MISC, sizeof *th * (size_t)threads);
    if (!p || !th) {
        sm_free(p);
        sm_free(th);
        sm_fail(e, SUMI_E_MEMORY, "out of memory for a thread pool");
        return NULL;
    }
    p->th = th;
    p->looks = threads <= sm_cpu_count();
    p->threads = 1;
    for (; p->threads < threads; p->threads++)
        if (pthread_create(&th[p->threads], NULL, worker, p)) {
            sm_fail(e, SUMI_E_MEMORY, "cannot start thread %d of %d", p->threads + 1, threads);
            sm_pool_free(p);
            return NULL;
        }
    return p;
}

void sm_pool_free(sm_pool *p)
{
    if (!p)
        return;
    __atomic_store_n(&p->quit, true, __ATOMIC_RELEASE);
    post(p, 0);
    wake(&p->posted, MOST);
    for (int i = 1; i < p->threads; i++)
        pthread_join(p->th[i], NULL);
    sm_free(p->th);
    sm_free(p);
}

int sm_pool_threads(const sm_pool *p) { return p ? p->threads : 1; }

/* The caller's part of a job whose tasks are all taken. */
static void await_done(sm_pool *p, uint32_t tasks)
{
    uint32_t seen;
    while ((seen = __atomic_load_n(&p->done, __ATOMIC_ACQUIRE)) != tasks) {
        if (look(p, &p->done, seen))
            continue;
        __atomic_store_n(&p->waiting, 1, __ATOMIC_SEQ_CST);
        while ((seen = __atomic_load_n(&p->done, __ATOMIC_SEQ_CST)) != tasks)
            doze(&p->done, seen);
        __atomic_store_n(&p->waiting, 0, __ATOMIC_RELAXED);
    }
}

void sm_pool_run(sm_pool *p, sm_task_fn *fn, void *arg, int tasks)
{
    if (!p || p->threads == 1 || tasks <= 1) {
        for (int t = 0; t < tasks; t++)
            fn(arg, t, tasks);
        return;
    }
    __atomic_store_n(&p->fn, fn, __ATOMIC_RELAXED);
    __atomic_store_n(&p->arg, arg, __ATOMIC_RELAXED);
    __atomic_store_n(&p->tasks, tasks, __ATOMIC_RELAXED);
    __atomic_store_n(&p->done, 0, __ATOMIC_RELAXED);
    uint32_t job = post(p, tasks);
    if (__atomic_load_n(&p->sleepers, __ATOMIC_SEQ_CST))
        wake(&p->posted, SM_MIN(WAKE, tasks - 1));
    take_tasks(p, job);
    await_done(p, (uint32_t)tasks);
}

int sm_cpu_count(void)
{
    cpu_set_t set;
    /* A machine of more than 1024 processors does not fit the set. */
    long n = sched_getaffinity(0, sizeof set, &set) ? sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
    return (int)SM_MIN(SM_MAX(n, 1), MOST);
}
