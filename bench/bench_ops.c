/* Times the bench rows of tests/op_cases.c (the table that the kernel checks walk over): everything but matrix products and
 * convolutions, which bench_gemm times. Memory-bound ops are set against a copy measured in turns with them by the clock,
 * attention against the multiply-add peak by processor time. bench_ops [threads] [filter] [bf16]; SUMI_CPU chooses the
 * instruction set, bf16 the kernels that round what they multiply. */
#include "../tests/op_cases.c"
#include "peak.h"

#include <stdlib.h>
#include <time.h>

enum { RUNS = 15, COPY = 1 << 20 };

/* Splitmix64, as the tests fill their inputs. */
void test_fill(float *x, int64_t n, uint64_t seed, float lo, float hi)
{
    for (int64_t i = 0; i < n; i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        x[i] = lo + (hi - lo) * (float)((double)((z ^ z >> 31) >> 40) / 16777216.0);
    }
}

typedef struct job { const sm_kernel *k; sm_kcall call; } job;

static void task_fn(void *arg, int task, int tasks)
{
    const job *j = arg;
    j->k->run(&j->call, task, tasks);
}

static double run_once(job *j, sm_pool *pool)
{
    double t = sm_now();
    for (int p = 0; p < SM_MAX(j->k->passes, 1); p++) {
        j->call.pass = p;
        sm_pool_run(pool, task_fn, j, j->k->tasks ? j->k->tasks(j->call.node, p) : sm_tasks_default(j->call.node, p));
    }
    return sm_now() - t;
}

static float *copy_from, *copy_to;

static void copy_task(void *arg, int task, int tasks)
{
    int64_t a, b;
    sm_range(COPY, task, tasks, &a, &b);
    memcpy(copy_to + a, copy_from + a, (size_t)(b - a) * sizeof(float));
}

static double copy_once(sm_pool *pool)
{
    double t = sm_now();
    sm_pool_run(pool, copy_task, NULL, 64);
    return sm_now() - t;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void *filled(const op_case *c, int i, const sm_node *s)
{
    void *p = sm_alloc(NULL, SM_MEM_MISC, (size_t)sm_numel(s) * 4);
    if (!p)
        exit(2);
    if (s->dtype == SM_F32)
        test_fill(p, sm_numel(s), (uint64_t)i, sm_ops[c->op].lo, sm_ops[c->op].hi);
    else
        case_values(c, i, 1, s, p);
    return p;
}

static sm_tensor tensor(const sm_node *n, void *data)
{
    sm_tensor t = {.data = data, .dtype = n->dtype, .rank = n->rank};
    memcpy(t.dims, n->dims, sizeof t.dims);
    return t;
}

static bool is_attention(sm_op_id op) { return op == SM_OP_ATTENTION || op == SM_OP_ATTENTION_GRAD; }

/* Median share of the multiply-add peak, each run's peak measured just before it. */
static void report_attention(const op_case *c, const sm_node *n, job *j, sm_pool *pool, int width)
{
    double s[RUNS], share[RUNS], flops = sm_ops[c->op].cost(n).flops;
    int reps = (int)SM_MIN(50, 1 + 5e8 / flops); /* processor time of other threads comes in ticks */
    for (int i = 0; i < RUNS; i++) {
        double top = peak(pool, width), t = sm_now(), cpu = cpu_seconds();
        for (int r = 0; r < reps; r++)
            run_once(j, pool);
        cpu = (cpu_seconds() - cpu) / reps;
        s[i] = (sm_now() - t) / reps;
        share[i] = top > 0 ? 100 * flops / cpu * 1e-9 / top : 0;
    }
    qsort(s, RUNS, sizeof *s, by_value);
    qsort(share, RUNS, sizeof *share, by_value);
    printf("%-72s %8.3f ms +-%2.0f%% %7.1f GFLOP/s, %3.0f%% of the peak\n", case_name(c), s[RUNS / 2] * 1e3,
           50 * (s[RUNS * 3 / 4] - s[RUNS / 4]) / s[RUNS / 2], flops / s[RUNS / 2] * 1e-9, share[RUNS / 2]);
    fflush(stdout);
}

static void report(const op_case *c, const sm_node *n, double *s, double copy)
{
    qsort(s, RUNS, sizeof *s, by_value);
    double t = s[RUNS / 2];
    sm_cost cost = sm_ops[c->op].cost(n);
    printf("%-72s %8.3f ms +-%2.0f%% ", case_name(c), t * 1e3, 50 * (s[RUNS * 3 / 4] - s[RUNS / 4]) / t);
    printf("%7.1f GB/s, %3.0f%% of a copy\n", cost.bytes / t * 1e-9, 100 * cost.bytes / t * copy / (COPY * 8.0));
}

static void bench_case(const op_case *c, const sm_backend *be, sm_pool *pool)
{
    sm_graph *g = sm_graph_new(NULL, NULL);
    sm_node *src[SM_MAX_SRC], *n = case_record(c, g, 0, src);
    job j = {.k = &be->k[c->op], .call = {.node = n, .nsrc = n->nsrc}};
    double s[RUNS], copies[RUNS];
    for (int i = 0; i < n->nsrc; i++)
        if (src[i])
            j.call.src[i] = tensor(src[i], filled(c, i, src[i]));
    j.call.dst = tensor(n, sm_alloc(NULL, SM_MEM_MISC, (size_t)sm_numel(n) * 4));
    size_t work = j.k->work ? j.k->work(n) : 0;
    j.call.work = work ? sm_alloc(NULL, SM_MEM_MISC, work) : NULL;
    if (!j.call.dst.data || (work && !j.call.work))
        exit(2);
    run_once(&j, pool);
    for (int i = 0; i < RUNS && !is_attention(c->op); i++) {
        copies[i] = copy_once(pool);
        s[i] = run_once(&j, pool);
    }
    if (is_attention(c->op))
        report_attention(c, n, &j, pool, peak_width(be->name));
    else {
        qsort(copies, RUNS, sizeof *copies, by_value);
        report(c, n, s, copies[RUNS / 2]);
    }
    for (int i = 0; i < n->nsrc; i++)
        sm_free(j.call.src[i].data);
    sm_free(j.call.dst.data);
    sm_free(j.call.work);
    sm_graph_free(g);
}

int main(int argc, char **argv)
{
    sm_err e = {0};
    int threads = argc > 1 ? atoi(argv[1]) : sm_cpu_count();
    const sm_backend *be = sm_cpu_backend(NULL, &e);
    if (be && argc > 3 && !strcmp(argv[3], "bf16"))
        be = sm_cpu_bf16(be, &e);
    sm_pool *pool = be ? sm_pool_new(NULL, threads, &e) : NULL;
    copy_from = sm_alloc0(NULL, SM_MEM_MISC, COPY * sizeof(float));
    copy_to = sm_alloc0(NULL, SM_MEM_MISC, COPY * sizeof(float));
    if (!pool || !copy_from || !copy_to) {
        fprintf(stderr, "bench_ops: %s\n", e.msg[0] ? e.msg : "out of memory");
        return 2;
    }
    printf("%s, %d threads; median of %d, half the middle half's width; a copy of 4 MiB, or the peak, in turns\n",
           be->name, threads, RUNS);
    for (int i = 0; i < op_case_count; i++)
        if (op_cases[i].bench && op_cases[i].op > SM_OP_CONV2D_DW && (argc < 3 || strstr(sm_ops[op_cases[i].op].name, argv[2])))
            bench_case(&op_cases[i], be, pool);
    sm_pool_free(pool);
    sm_free(copy_from);
    sm_free(copy_to);
    return 0;
}
