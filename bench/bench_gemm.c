/* Times matrix products and convolutions in the shapes that training and large models use, against the machine's own
 * multiply-add peak measured in turns with them. bench_gemm [threads] [filter] [bf16]; SUMI_CPU chooses the
 * instruction set, bf16 the kernels that round what they multiply. */
#include "cpu/cpu.h"
#include "ops/ops.h"
#include "peak.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- running one op ---------------------------------------------------------------------------------------------- */

typedef struct job { const sm_kernel *k; sm_kcall call; void *prep; } job;

static void run_task(void *arg, int task, int tasks)
{
    job *j = arg;
    j->k->run(&j->call, task, tasks);
}
static void prep_task(void *arg, int task, int tasks)
{
    job *j = arg;
    j->k->prep(&j->call, j->prep, task, tasks);
}

static void *filled(sm_node *n)
{
    size_t count = (size_t)sm_numel(n);
    float *p = sm_alloc(NULL, SM_MEM_MISC, count * sizeof *p);
    if (!p)
        exit(1);
    uint32_t s = 1;
    for (size_t i = 0; i < count; i++) {
        s = s * 1664525 + 1013904223;
        p[i] = (float)(int32_t)s * 0x1p-31f;
    }
    return p;
}

static sm_tensor tensor(sm_node *n)
{
    sm_tensor t = {.data = filled(n), .dtype = SM_F32, .rank = n->rank};
    memcpy(t.dims, n->dims, sizeof t.dims);
    return t;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median GFLOP/s by the clock, and percent of the peak: of one thread by processor time, of several by the clock. */
static void time_node(sm_node *n, sm_pool *pool, const sm_backend *be, int width, const char *what)
{
    enum { RUNS = 7 };
    job j = {.k = &be->k[n->op], .call = {.node = n, .nsrc = n->nsrc}};
    for (int i = 0; i < n->nsrc; i++)
        if (n->src[i])
            j.call.src[i] = tensor(n->src[i]);
    j.call.dst = tensor(n);
    size_t work = j.k->work ? j.k->work(n) : 0, prep = j.k->prep_bytes ? j.k->prep_bytes(n) : 0;
    j.call.work = work ? sm_alloc0(NULL, SM_MEM_MISC, work) : NULL;
    j.prep = prep ? sm_alloc0(NULL, SM_MEM_MISC, prep) : NULL;
    j.call.prep = j.prep;
    double rate[RUNS], share[RUNS], prep_ms = 0, flops = sm_ops[n->op].cost(n).flops;
    int threads = sm_pool_threads(pool);
    int tasks = j.k->tasks ? j.k->tasks(n, j.k->passes > 1 && n->op == SM_OP_MATMUL && !n->p.matmul.ta) : 0;
    for (int r = -1; r < RUNS; r++) {
        double top = peak(pool, width), t = sm_now();
        if (prep)
            sm_pool_run(pool, prep_task, &j, j.k->prep_tasks ? j.k->prep_tasks(n) : 1);
        double mid = sm_now(), cpu = cpu_seconds();
        int reps = (int)SM_MIN(50, 1 + 3e9 / flops);
        for (int i = 0; i < reps; i++)
            for (j.call.pass = 0; j.call.pass < SM_MAX(j.k->passes, 1); j.call.pass++)
                sm_pool_run(pool, run_task, &j, j.k->tasks ? j.k->tasks(n, j.call.pass) : sm_tasks_default(n, j.call.pass));
        if (r < 0)
            continue;
        prep_ms = (mid - t) * 1e3;
        rate[r] = flops * reps / (sm_now() - mid) * 1e-9;
        share[r] = top > 0 ? 100 * (threads > 1 ? rate[r] / threads : flops * reps / (cpu_seconds() - cpu) * 1e-9) / top : 0;
    }
    qsort(rate, RUNS, sizeof *rate, by_value);
    qsort(share, RUNS, sizeof *share, by_value);
    printf("%-44s %2d tasks  %7.1f GFLOP/s (%.0f..%.0f)  %5.1f%%  pack %.2f ms\n", what, tasks, rate[RUNS / 2], rate[0],
           rate[RUNS - 1], share[RUNS / 2], prep_ms);
    fflush(stdout);
    for (int i = 0; i < n->nsrc; i++)
        sm_free(j.call.src[i].data);
    sm_free(j.call.dst.data);
    sm_free(j.call.work);
    sm_free(j.prep);
}

/* ---- shapes ------------------------------------------------------------------------------------------------------ */

typedef struct shape { int n, h, w, c, o, k, stride; } shape; /* k 0: a matrix product of n rows, c -> o */

static const shape shapes[] = {
    {64, 16, 16, 96, 96, 3, 1}, {64, 16, 16, 192, 96, 3, 1}, {64, 8, 8, 192, 192, 3, 1}, {64, 8, 8, 384, 192, 3, 1},
    {64, 4, 4, 384, 384, 3, 1}, {16, 64, 64, 32, 32, 3, 1}, {16, 32, 32, 64, 64, 3, 1}, {16, 16, 16, 128, 128, 3, 1},
    {64, 16, 16, 96, 96, 3, 2}, {16, 64, 64, 3, 32, 3, 1}, {64, 16, 16, 4, 96, 3, 1}, {64, 16, 16, 96, 4, 3, 1},
    {64, 16, 16, 96, 192, 1, 1},
    {16384, 1, 1, 192, 192, 0, 1}, {4096, 1, 1, 192, 768, 0, 1}, {4096, 1, 1, 768, 192, 0, 1}, {2048, 1, 1, 384, 384, 0, 1},
    {64, 1, 1, 96, 384, 0, 1},
    {4096, 1, 1, 320, 320, 0, 1}, {4096, 1, 1, 320, 2560, 0, 1}, {1024, 1, 1, 640, 640, 0, 1}, {1024, 1, 1, 640, 5120, 0, 1},
    {256, 1, 1, 1280, 1280, 0, 1}, {256, 1, 1, 1280, 10240, 0, 1}, {64, 1, 1, 1280, 1280, 0, 1}, {77, 1, 1, 768, 3072, 0, 1},
    {2048, 1, 1, 2048, 2048, 0, 1}, {4608, 1, 1, 3072, 3072, 0, 1}, {1, 64, 64, 320, 320, 3, 1}, {1, 16, 16, 1280, 1280, 3, 1},
    {2, 64, 64, 320, 320, 3, 1}, {2, 32, 32, 640, 640, 3, 1}, {2, 32, 32, 1920, 640, 3, 1}, {2, 16, 16, 1280, 1280, 3, 1},
    {1, 64, 64, 512, 512, 3, 1}, {1, 128, 128, 512, 512, 3, 1}, {1, 256, 256, 256, 256, 3, 1}, {1, 512, 512, 128, 128, 3, 1},
};

#define IN(...) sm_input(g, "x", SM_F32, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (int64_t[]){__VA_ARGS__})

/* Forward (dir 0), input gradient (1), weight gradient (2). */
static sm_node *record(sm_graph *g, const shape *s, int dir)
{
    if (!s->k) {
        sm_node *x = IN(s->n, s->c), *y = IN(s->n, s->o), *w = IN(s->o, s->c);
        return dir == 0 ? sm_linear(IN(1, s->n, s->c), w, IN(s->o)) : dir == 1 ? sm_matmul(y, w, false, false) : sm_matmul(y, x, true, false);
    }
    sm_conv c = {.stride = s->stride, .pad = s->k / 2};
    sm_node *x = IN(s->n, s->h, s->w, s->c), *w = IN(s->o, s->c, s->k, s->k), *y = sm_conv2d(x, w, IN(s->o), &c);
    if (dir == 0)
        return y;
    sm_node *dy = IN(y->dims[0], y->dims[1], y->dims[2], y->dims[3]);
    return dir == 1 ? sm_conv2d_dx(dy, w, NULL, &y->p, s->h, s->w) : sm_conv2d_dw(x, dy, &y->p, s->k, s->k);
}

int main(int argc, char **argv)
{
    static const char *const dirs[] = {"forward", "dx", "dw"};
    sm_err e = {0};
    const sm_backend *be = sm_cpu_backend(NULL, &e);
    if (be && argc > 3 && !strcmp(argv[3], "bf16"))
        be = sm_cpu_bf16(be, &e);
    sm_pool *pool = sm_pool_new(NULL, argc > 1 ? atoi(argv[1]) : sm_cpu_count(), &e);
    if (!be || !pool) {
        fprintf(stderr, "bench_gemm: %s\n", e.msg);
        return 1;
    }
    int width = peak_width(be->name);
    printf("%s, %d threads, multiply-add peak %.1f GFLOP/s a core\n", be->name, sm_pool_threads(pool), peak(pool, width));
    for (size_t i = 0; i < SM_COUNT(shapes); i++)
        for (int dir = 0; dir < 3; dir++) {
            const shape *s = &shapes[i];
            char what[96];
            if (s->k)
                snprintf(what, sizeof what, "conv%dx%d/%d [%d,%d,%d,%d]->%d %s", s->k, s->k, s->stride, s->n, s->h,
                         s->w, s->c, s->o, dirs[dir]);
            else
                snprintf(what, sizeof what, "linear [%d,%d]->%d %s", s->n, s->c, s->o, dirs[dir]);
            if (argc > 2 && !strstr(what, argv[2]))
                continue;
            sm_graph *g = sm_graph_new(NULL, &e);
            sm_node *n = g ? record(g, s, dir) : NULL;
            if (!n || g->err.code) {
                fprintf(stderr, "bench_gemm: %s\n", g ? g->err.msg : e.msg);
                return 1;
            }
            time_node(n, pool, be, width, what);
            sm_graph_free(g);
        }
    sm_pool_free(pool);
    return 0;
}
