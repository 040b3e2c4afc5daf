/* Thread pool: tasks are taken from an atomic counter; workers spin briefly for the next job, then sleep. */
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>

/* Long enough to cover the gap between two ops of a graph, short enough not to burn when idle. */
enum { SPIN = 2000 };

struct sm_pool {
    int threads;
    pthread_t *th;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* The job: written by the caller before seq is raised, read by workers after they see the new seq. */
    sm_task_fn *fn;
    void *arg;
    int tasks;
    bool quit;
    _Alignas(64) uint32_t seq;  /* job number */
    _Alignas(64) int next;      /* next task to take */
    _Alignas(64) int busy;      /* workers still inside the current job */
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

static void take_tasks(sm_pool *p)
{
    for (;;) {
        int t = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED);
        if (t >= p->tasks)
            return;
        p->fn(p->arg, t, p->tasks);
    }
}

static uint32_t await_job(sm_pool *p, uint32_t seen)
{
    for (int i = 0; i < SPIN; i++) {
        uint32_t s = __atomic_load_n(&p->seq, __ATOMIC_ACQUIRE);
        if (s != seen)
            return s;
        pause_cpu();
    }
    pthread_mutex_lock(&p->lock);
    p->sleepers++;
    uint32_t s;
    while ((s = __atomic_load_n(&p->seq, __ATOMIC_ACQUIRE)) == seen)
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
        if (p->quit)
            return NULL;
        take_tasks(p);
        __atomic_sub_fetch(&p->busy, 1, __ATOMIC_RELEASE);
    }
}

static void post(sm_pool *p)
{
    pthread_mutex_lock(&p->lock);
    __atomic_add_fetch(&p->seq, 1, __ATOMIC_RELEASE);
    if (p->sleepers)
        pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

sm_pool *sm_pool_new(sm_mem *mem, int threads, sm_err *e)
{
    if (threads < 1 || threads > 1024) {
        sm_fail(e, SUMI_E_ARG, "threads: %d is not in 1..1024", threads);
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
    p->quit = true;
    post(p);
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
    p->fn = fn;
    p->arg = arg;
    p->tasks = tasks;
    __atomic_store_n(&p->next, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&p->busy, p->threads - 1, __ATOMIC_RELAXED);
    post(p);
    take_tasks(p);
    for (int i = 0; __atomic_load_n(&p->busy, __ATOMIC_ACQUIRE); i++)
        if (i < SPIN)
            pause_cpu();
        else
            sched_yield();
}

int sm_cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set))
        return 1;
    int n = CPU_COUNT(&set);
    return n < 1 ? 1 : n;
}
