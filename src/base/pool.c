/* Thread pool: tasks are taken from an atomic counter; workers spin briefly for the next job, then sleep. A job ends when its
 * last task has ended, whether or not every worker has come. */
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

/* Long enough to cover the gap between two ops of a graph, short enough not to burn when idle. */
enum { SPIN = 2000, MOST = 1024 /* threads */ };

struct sm_pool {
    int threads;
    pthread_t *th;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* The job: written by the caller while no task of an older job is open, read before a task is taken. */
    sm_task_fn *fn;
    void *arg;
    int tasks;
    bool quit;
    _Alignas(64) uint64_t ticket; /* job number << 32 | tasks not yet taken */
    _Alignas(64) int done;        /* finished tasks of the job */
    int sleepers;
};

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("" ::: "memory");
#endif
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
        __atomic_add_fetch(&p->done, 1, __ATOMIC_RELEASE);
        at = __atomic_load_n(&p->ticket, __ATOMIC_ACQUIRE);
    }
}

static uint32_t await_job(sm_pool *p, uint32_t seen)
{
    for (int i = 0; i < SPIN; i++) {
        uint32_t s = job_of(__atomic_load_n(&p->ticket, __ATOMIC_ACQUIRE));
        if (s != seen)
            return s;
        pause_cpu();
    }
    pthread_mutex_lock(&p->lock);
    p->sleepers++;
    uint32_t s;
    while ((s = job_of(__atomic_load_n(&p->ticket, __ATOMIC_ACQUIRE))) == seen)
        pthread_cond_wait(&p->wake, &p->lock);
    p->sleepers--;
    pthread_mutex_unlock(&p->lock);
    return s;
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
    pthread_mutex_lock(&p->lock);
    uint32_t job = job_of(__atomic_load_n(&p->ticket, __ATOMIC_RELAXED)) + 1;
    __atomic_store_n(&p->ticket, (uint64_t)job << 32 | (uint32_t)tasks, __ATOMIC_RELEASE);
    if (p->sleepers)
        pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
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
    p->threads = 1;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
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
    for (int i = 1; i < p->threads; i++)
        pthread_join(p->th[i], NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    sm_free(p->th);
    sm_free(p);
}

int sm_pool_threads(const sm_pool *p) { return p ? p->threads : 1; }

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
    take_tasks(p, post(p, tasks));
    for (int i = 0; __atomic_load_n(&p->done, __ATOMIC_ACQUIRE) < tasks; i++)
        if (i < SPIN)
            pause_cpu();
        else
            sched_yield();
}

int sm_cpu_count(void)
{
    cpu_set_t set;
    /* A machine of more than 1024 processors does not fit the set. */
    long n = sched_getaffinity(0, sizeof set, &set) ? sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
    return (int)SM_MIN(SM_MAX(n, 1), MOST);
}
