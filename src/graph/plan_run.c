/* Running a plan: weights are packed before use, kernels run pass by pass, pages of mapped weights are given back where the
 * plan was asked to. */
#include "base/pages.h"
#include "graph/plan_impl.h"

#include <time.h>

typedef struct prep_job { const step *s; void *out; } prep_job;

static void prep_task(void *arg, int task, int tasks)
{
    prep_job *j = arg;
    j->s->k->prep(&j->s->call, j->out, task, tasks);
}

static void kernel_task(void *arg, int task, int tasks)
{
    const step *s = arg;
    s->k->run(&s->call, task, tasks);
}

static void run_passes(step *s, sm_pool *pool)
{
    for (int pass = 0; pass < s->passes; pass++) {
        s->call.pass = pass;
        int tasks = s->k->tasks ? s->k->tasks(s->call.node, pass) : sm_tasks_default(s->call.node, pass);
        sm_pool_run(pool, kernel_task, s, tasks);
    }
}

typedef struct clocks { double wall, cpu; } clocks;

static clocks read_clocks(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (clocks){sm_now(), (double)t.tv_sec + 1e-9 * (double)t.tv_nsec};
}

/* The time since *t is the step's, for its weight or for its kernel; *t is now. profile false: nothing. */
static void clock_to(bool profile, clocks *t, step *s, bool kernel)
{
    if (!profile)
        return;
    clocks now = read_clocks();
    s->seconds[kernel] += now.wall - t->wall;
    s->cpu += now.cpu - t->cpu;
    *t = now;
}

/* With a weight that is not kept packed: part by part, each used before the next one takes its place. */
static void run_step(step *s, sm_pool *pool, bool profile)
{
    prep_job job = {s, s->prep_each_run};
    clocks t = profile ? read_clocks() : (clocks){0, 0};
    for (int64_t u = 0; s->prep_each_run && u < s->units; u += s->part) {
        if (s->part < s->units) {
            s->call.part[0] = u;
            s->call.part[1] = SM_MIN(u + s->part, s->units);
        }
        sm_pool_run(pool, prep_task, &job, s->prep_tasks);
        clock_to(profile, &t, s, false);
        run_passes(s, pool);
        clock_to(profile, &t, s, true);
    }
    if (!s->prep_each_run)
        run_passes(s, pool);
    clock_to(profile, &t, s, true);
}

/* The mapped weight that source k of n is or is a view of; NULL: none. */
static const sm_node *mapped_weight(const sm_node *n, int k)
{
    const sm_node *w = n->src[k];
    while (w && w->nsrc)
        w = w->op == SM_OP_RESHAPE || w->op == SM_OP_SLICE ? w->src[0] : NULL;
    return w && w->op == SM_OP_PARAM && w->mapped ? w : NULL;
}

/* Weights that this step has read go back to the page cache. */
static void drop_pages(const step *s)
{
    const sm_node *n = s->call.node;
    for (int k = 0; k < n->nsrc; k++)
        if (mapped_weight(n, k))
            sm_pages_drop(s->call.src[k].data, sm_dtype_bytes(n->src[k]->dtype, sm_numel(n->src[k])));
}

size_t sm_plan_mapped_bytes(const sm_plan *p)
{
    size_t all = 0, most = 0;
    for (int i = 0; i < p->nsteps; i++) {
        const sm_node *n = p->steps[i].call.node;
        size_t here = 0;
        for (int k = n->op == SM_OP_GATHER; k < n->nsrc; k++) {
            const sm_node *w = mapped_weight(n, k);
            if (!w)
                continue;
            here += sm_dtype_bytes(w->dtype, sm_numel(w));
            bool again = false; /* read by an earlier step */
            for (int j = 0; j < i && !again; j++)
                for (int l = 0; l < p->steps[j].call.node->nsrc; l++)
                    again |= mapped_weight(p->steps[j].call.node, l) == w;
            all += again ? 0 : sm_dtype_bytes(w->dtype, sm_numel(w));
        }
        most = SM_MAX(most, here);
    }
    return p->opts.drop_pages ? most : all;
}

sumi_status sm_plan_run(sm_plan *p, sm_pool *pool, const int *cancel, sm_err *e)
{
    if (!p->ready)
        sm_plan_pack(p, pool);
    for (int i = 0; i < p->nsteps; i++) {
        if (cancel && __atomic_load_n(cancel, __ATOMIC_RELAXED))
            return sm_fail(e, SUMI_E_CANCELLED, "cancelled");
        if (p->steps[i].held && !p->stale)
            continue;
        run_step(&p->steps[i], pool, p->profile);
        if (p->opts.drop_pages)
            drop_pages(&p->steps[i]);
    }
    p->stale = false;
    p->profiled += p->profile;
    return SUMI_OK;
}
