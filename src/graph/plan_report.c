/* What a plan says of itself: sizes, where the time of its runs went, what fills its memory. */
#include "graph/plan_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t sm_plan_activation_bytes(const sm_plan *p) { return p->arena_bytes; }
size_t sm_plan_packed_bytes(const sm_plan *p) { return p->packed_bytes; }
sm_cost sm_plan_cost(const sm_plan *p) { return p->cost; }
int sm_plan_steps(const sm_plan *p) { return p->nsteps; }
void sm_plan_profile(sm_plan *p, bool on) { p->profile = on; }

/* ---- time -------------------------------------------------------------------------------------------------------- */

/* Steps of one operation, of convolutions also of one size, stride and form. */
typedef struct row {
    char name[48];
    int nodes;
    double seconds[2], cpu, flops, bytes;
} row;

static void name_step(const step *s, char name[48])
{
    const sm_node *n = s->call.node;
    const char *how = s->k->how ? s->k->how(n) : NULL;
    int at = snprintf(name, 48, "%s", sm_ops[n->op].name);
    if (n->op == SM_OP_CONV2D || n->op == SM_OP_CONV2D_DX)
        at += snprintf(name + at, 48 - (size_t)at, " %dx%d", (int)n->src[1]->dims[2], (int)n->src[1]->dims[3]);
    if ((n->op == SM_OP_CONV2D || n->op == SM_OP_CONV2D_DX) && n->p.conv.stride[0] > 1)
        at += snprintf(name + at, 48 - (size_t)at, " /%d", n->p.conv.stride[0]);
    if (how)
        at += snprintf(name + at, 48 - (size_t)at, " %s", how);
    const sm_finish *f = &s->call.finish;
    snprintf(name + at, 48 - (size_t)at, "%s%s%s%s%s", f->doubled ? " x2" : "", f->act ? " " : "",
             f->act ? sm_ops[f->act].name : "", f->gate ? " gate" : "", f->add_rows ? " +" : "");
}

static void add_to(row *r, const step *s)
{
    r->nodes++;
    r->seconds[0] += s->seconds[0];
    r->seconds[1] += s->seconds[1];
    r->cpu += s->cpu;
    r->flops += s->cost.flops;
    r->bytes += s->cost.bytes;
}

static int by_time(const void *a, const void *b)
{
    double x = ((const row *)a)->cpu, y = ((const row *)b)->cpu;
    return (x < y) - (x > y);
}

static void print_row(const row *r, int runs, double total, sm_buf *b)
{
    double s = r->cpu / runs;
    sm_buf_fmt(b, "%-32s %6d %10.3f %10.3f %10.3f %6.1f %9.1f %9.1f\n", r->name, r->nodes,
               (r->seconds[0] + r->seconds[1]) / runs * 1e3,
               r->seconds[0] / runs * 1e3, s * 1e3, total > 0 ? 100 * r->cpu / total : 0, s > 0 ? r->flops / s * 1e-9 : 0,
               s > 0 ? r->bytes / s * 1e-9 : 0);
}

void sm_plan_report(const sm_plan *p, sm_buf *b)
{
    row *rows = sm_alloc0(p->mem, SM_MEM_GRAPH, sizeof *rows * (size_t)(p->nsteps + 1)), all = {.name = "all"};
    int n = 0;
    if (!rows) {
        b->oom = true;
        return;
    }
    for (int i = 0; i < p->nsteps; i++) {
        char name[48];
        int r = 0;
        name_step(&p->steps[i], name);
        while (r < n && strcmp(rows[r].name, name))
            r++;
        if (r == n)
            memcpy(rows[n++].name, name, sizeof name);
        add_to(&rows[r], &p->steps[i]);
        add_to(&all, &p->steps[i]);
    }
    qsort(rows, (size_t)n, sizeof *rows, by_time);
    int runs = SM_MAX(p->profiled, 1);
    sm_buf_fmt(b, "%-32s %6s %10s %10s %10s %6s %9s %9s\n", "operation", "nodes", "ms", "weights", "processor", "%", "GFLOP/s",
               "GB/s");
    for (int i = 0; i < n; i++)
        print_row(&rows[i], runs, all.cpu, b);
    print_row(&all, runs, all.cpu, b);
    sm_free(rows);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

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
                           s->first ? s->first->name : "input, workspace or packed weights",
                           s->first ? sm_dims_str(s->first, dims) : "");
        }
        below = size;
    }
}
