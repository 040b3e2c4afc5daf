/* Running a plan: weights are packed before use, kernels run pass by pass, pages of mapped weights are given back where the
 * plan was asked to. Also the table of where the time went. */
#include "base/pages.h"
#include "graph/plan_impl.h"

typedef struct prep_job { const step *s; void *out; } prep_job;

static void prep_task(void *arg, int task, int tasks)
{
    prep_job *j = arg;
    j->s->k->prep(&j->s->call, j->out, task, tasks);
}

sumi_status sm_plan_prepare(sm_plan *p, sm_err *e)
{
    p->packed = sm_alloc0(p->mem, SM_MEM_GRAPH, sizeof *p->packed * (size_t)(p->npacked + 1));
    if (!p->packed)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory while planning");
    int at = 0;
    for (int i = 0; i < p->nsteps; i++) {
        step *s = &p->steps[i];
        if (!s->keep)
            continue;
        size_t bytes = s->k->prep_bytes(s->call.node);
        void *out = p->packed[at++] = sm_alloc(p->mem, SM_MEM_PACKED, bytes);
        if (!out)
            return sm_fail(e, SUMI_E_MEMORY, "out of memory for packed weights of %s", s->call.node->src[1]->name);
        prep_job job = {s, out};
        sm_pool_run(NULL, prep_task, &job, s->prep_tasks);
        s->call.prep = out;
    }
    return SUMI_OK;
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

/* With a weight that is not kept packed: part by part, each used before the next one takes its place. */
static void run_step(step *s, sm_pool *pool)
{
    prep_job job = {s, s->prep_each_run};
    if (!s->prep_each_run) {
        run_passes(s, pool);
        return;
    }
    for (int64_t u = 0; u < s->units; u += s->part) {
        if (s->part < s->units) {
            s->call.part[0] = u;
            s->call.part[1] = SM_MIN(u + s->part, s->units);
        }
        sm_pool_run(pool, prep_task, &job, s->prep_tasks);
        run_passes(s, pool);
    }
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
    for (int i = 0; i < p->nsteps; i++) {
        if (cancel && __atomic_load_n(cancel, __ATOMIC_RELAXED))
            return sm_fail(e, SUMI_E_CANCELLED, "cancelled");
        double t = p->profile ? sm_now() : 0;
        run_step(&p->steps[i], pool);
        if (p->opts.drop_pages)
            drop_pages(&p->steps[i]);
        if (p->profile) {
            sm_op_id op = p->steps[i].call.node->op;
            p->seconds[op] += sm_now() - t;
            p->calls[op]++;
        }
    }
    return SUMI_OK;
}

size_t sm_plan_activation_bytes(const sm_plan *p) { return p->arena_bytes; }
size_t sm_plan_packed_bytes(const sm_plan *p) { return p->packed_bytes; }
sm_cost sm_plan_cost(const sm_plan *p) { return p->cost; }
int sm_plan_steps(const sm_plan *p) { return p->nsteps; }
void sm_plan_profile(sm_plan *p, bool on) { p->profile = on; }

void sm_plan_report(const sm_plan *p, sm_buf *b)
{
    double total = 0, flops[SM_OP_COUNT] = {0}, bytes[SM_OP_COUNT] = {0};
    int nodes[SM_OP_COUNT] = {0};
    for (int i = 0; i < p->nsteps; i++) {
        const sm_node *n = p->steps[i].call.node;
        sm_cost c = sm_ops[n->op].cost(n);
        flops[n->op] += c.flops;
        bytes[n->op] += c.bytes;
        nodes[n->op]++;
    }
    for (int o = 0; o < SM_OP_COUNT; o++)
        total += p->seconds[o];
    sm_buf_fmt(b, "%-20s %6s %9s %6s %9s %9s\n", "op", "nodes", "ms", "%", "GFLOP/s", "GB/s");
    for (int o = 0; o < SM_OP_COUNT; o++) {
        if (!p->calls[o])
            continue;
        double runs = (double)p->calls[o] / nodes[o], s = p->seconds[o] / runs;
        sm_buf_fmt(b, "%-20s %6d %9.3f %6.1f %9.1f %9.1f\n", sm_ops[o].name, nodes[o], s * 1e3, 100 * p->seconds[o] / total,
                   flops[o] / s / 1e9, bytes[o] / s / 1e9);
    }
}

static size_t alive_at(const sm_plan *p, int t)
{
    size_t bytes = 0;
    for (int i = 0; i < p->nstores; i++)
        if (p->stores[i].from <= t && t <= p->stores[i].to)
            bytes += p->stores[i].bytes;
    return bytes;
}

static int fullest(const sm_plan *p)
{
    int at = 0;
    size_t most = 0;
    for (int t = 0; t < p->nsteps; t++) {
        size_t now = alive_at(p, t);
        if (now > most) {
            most = now;
            at = t;
        }
    }
    return at;
}

size_t sm_plan_floor_bytes(const sm_plan *p) { return alive_at(p, fullest(p)); }

void sm_plan_memory(const sm_plan *p, sm_buf *b)
{
    enum { LISTED = 8 };
    int at = fullest(p), shown = 0;
    if (!p->nsteps)
        return;
    const sm_node *n = p->steps[at].call.node;
    sm_buf_fmt(b, "step %d of %d, %s in %s: %.1f MB alive\n", at + 1, p->nsteps, sm_ops[n->op].name, n->name,
               (double)alive_at(p, at) * 1e-6);
    for (size_t below = SIZE_MAX; shown < LISTED; shown++) {
        size_t size = 0;
        for (int i = 0; i < p->nstores; i++)
            if (p->stores[i].from <= at && at <= p->stores[i].to && p->stores[i].bytes < below)
                size = SM_MAX(size, p->stores[i].bytes);
        if (!size)
            break;
        for (int i = 0; i < p->nstores; i++) {
            const storage *s = &p->stores[i];
            char dims[96];
            if (s->bytes == size && s->from <= at && at <= s->to)
                sm_buf_fmt(b, "  %8.1f MB  %s %s\n", (double)size * 1e-6,
                           s->first ? s->first->name : "input, workspace or packed weights", s->first ? sm_dims_str(s->first, dims) : "");
        }
        below = size;
    }
}
