/* Times sumi's matrix product against those of OpenBLAS, BLIS and oneDNN in one run, in turns, where the system has these
 * libraries (or LD_LIBRARY_PATH names them: tools/peers/build.sh DIR libs). bench_rivals [threads] [rounds] [filter]. x [M,K] is
 * multiplied with weights as they are stored, [N,K] (NT), as a rival may prefer them, [K,N] (NN), and as oneDNN asks to have them
 * (kept: turned once, its inner product; version 2 only). The others' products turn weights in each call; sumi does once for all
 * calls ("sumi"), or in each, as a plan does whose model is too large to be kept ("+pack"). The libraries are
 * told sumi's instruction set where they would not know the processor. Ends in a table for docs/SPEED.md: percent of the peak
 * measured in turns, of one thread by processor time, of several by the clock. Cycles are the calling thread's, by
 * perf_event_open. */
#include "cpu/cpu.h"
#include "ops/ops.h"
#include "peak.h"
#include "rival_onednn.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/perf_event.h>
#endif

typedef void cblas_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda,
                      const float *b, int ldb, float beta, float *c, int ldc);
typedef int dnnl_fn(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
                    const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

enum { SUMI, SUMI_PACK, OPENBLAS, BLIS, DNNL, LIBRARIES, ROUNDS_MAX = 64 };
enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 }; /* cblas.h */

static const struct { const char *name, *files[3], *symbol; } library[LIBRARIES] = {
    [SUMI] = {.name = "sumi"},
    [SUMI_PACK] = {.name = "+pack"},
    [OPENBLAS] = {"OpenBLAS", {"libopenblas.so.0", "libopenblas.so"}, "cblas_sgemm"},
    [BLIS] = {"BLIS", {"libblis.so.4", "libblis.so"}, "cblas_sgemm"},
    [DNNL] = {"oneDNN", {"libdnnl.so.2", "libdnnl.so.3", "libdnnl.so"}, "dnnl_sgemm"},
};

/* A way to compute the product. */
enum { NT, NN, KEPT };
typedef struct way { int lib, form; void *call; } way;
typedef struct problem {
    int m, n, k;
    const float *x, *nk, *kn, *zero; /* inputs, weights both ways round, sumi's bias */
    float *y;
    sm_pool *pool;
    const sm_kernel *kernel;
    sm_kcall op;
    void *prep;
    const onednn *dnnl;
    odn_product kept;
} problem;

static int cycles_fd = -1;

static void open_cycles(void)
{
#if defined(__linux__)
    struct perf_event_attr a = {.type = PERF_TYPE_HARDWARE, .size = sizeof a, .config = PERF_COUNT_HW_CPU_CYCLES,
                                .exclude_kernel = 1, .exclude_hv = 1};
    cycles_fd = (int)syscall(SYS_perf_event_open, &a, 0, -1, -1, 0);
#endif
}

/* Cycles of this thread so far; 0 where the machine does not count them. */
static double cycles(void)
{
    uint64_t v = 0;
    return cycles_fd >= 0 && read(cycles_fd, &v, sizeof v) == sizeof v ? (double)v : 0;
}

static void run_task(void *arg, int task, int tasks)
{
    problem *p = arg;
    p->kernel->run(&p->op, task, tasks);
}

static void prep_task(void *arg, int task, int tasks)
{
    problem *p = arg;
    p->kernel->prep(&p->op, p->prep, task, tasks);
}

static void sumi_pack(problem *p)
{
    if (p->prep)
        sm_pool_run(p->pool, prep_task, p, p->kernel->prep_tasks ? p->kernel->prep_tasks(p->op.node) : 1);
}

static void sumi_run(problem *p)
{
    for (p->op.pass = 0; p->op.pass < SM_MAX(p->kernel->passes, 1); p->op.pass++)
        sm_pool_run(p->pool, run_task, p, p->kernel->tasks ? p->kernel->tasks(p->op.node, p->op.pass)
                                                           : sm_tasks_default(p->op.node, p->op.pass));
}

/* What plan_run.c does with a weight that does not stay packed: the kernel packs it, or it is packed a part at a time. */
static void sumi_unkept(problem *p)
{
    if (p->kernel->unprepared && p->kernel->unprepared(p->op.node)) {
        p->op.prep = NULL;
        sumi_run(p);
        p->op.prep = p->prep;
        return;
    }
    int64_t unit = p->prep && p->kernel->prep_unit ? (int64_t)p->kernel->prep_unit(p->op.node) : 0,
            bytes = p->prep ? (int64_t)p->kernel->prep_bytes(p->op.node) : 0;
    int64_t units = unit ? (bytes + unit - 1) / unit : 1, part = unit ? SM_MAX((2 << 20) / unit, 1) : 1;
    for (int64_t u = 0; u < units; u += part) {
        if (part < units)
            p->op.part[0] = u, p->op.part[1] = SM_MIN(u + part, units);
        sumi_pack(p);
        sumi_run(p);
    }
    p->op.part[0] = p->op.part[1] = 0;
}

static void multiply(problem *p, const way *w)
{
    const float *b = w->form == NN ? p->kn : p->nk;
    int ldb = w->form == NN ? p->n : p->k;
    if (w->lib == SUMI)
        sumi_run(p);
    else if (w->lib == SUMI_PACK)
        sumi_unkept(p);
    else if (w->form == KEPT)
        odn_multiply(p->dnnl, &p->kept);
    else if (w->lib == DNNL)
        ((dnnl_fn *)w->call)('N', w->form == NN ? 'N' : 'T', p->m, p->n, p->k, 1, p->x, p->k, b, ldb, 0, p->y, p->n);
    else
        ((cblas_fn *)w->call)(ROW_MAJOR, NO_TRANS, w->form == NN ? NO_TRANS : TRANS, p->m, p->n, p->k, 1, p->x,
                              p->k, b, ldb, 0, p->y, p->n);
}

static float *numbers(size_t count, uint32_t seed)
{
    float *p = sm_alloc(NULL, SM_MEM_MISC, count * sizeof *p);
    if (!p)
        exit(1);
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525 + 1013904223;
        p[i] = (float)(int32_t)seed * 0x1p-31f;
    }
    return p;
}

static float *turned(const float *w, int n, int k)
{
    float *t = sm_alloc(NULL, SM_MEM_MISC, sizeof *t * (size_t)n * (size_t)k);
    if (!t)
        exit(1);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < k; j++)
            t[(size_t)j * n + i] = w[(size_t)i * k + j];
    return t;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    return x[n / 2];
}

/* ---- one shape --------------------------------------------------------------------------------------------------- */

typedef struct figures { double rate[ROUNDS_MAX], share[ROUNDS_MAX], per_cycle[ROUNDS_MAX], off; } figures;

/* Largest difference from what sumi gave, of the sums' usual size, sqrt(K)/3 for numbers from -1 to 1. */
static double difference(const problem *p, const float *want)
{
    double most = 0;
    for (size_t i = 0; i < (size_t)p->m * (size_t)p->n; i++)
        most = fmax(most, fabs((double)p->y[i] - want[i]));
    return most / (sqrt(p->k) / 3);
}

static void time_way(problem *p, const way *w, int width, figures *f, int round)
{
    double flops = 2.0 * p->m * p->n * p->k, top = peak(p->pool, width);
    int reps = (int)SM_MIN(200, 1 + 2e9 / flops), threads = sm_pool_threads(p->pool);
    multiply(p, w); /* wakes the library's threads */
    double wall = sm_now(), all = cpu_seconds(), mine = own_seconds(), c = cycles();
    for (int i = 0; i < reps; i++)
        multiply(p, w);
    c = cycles() - c, mine = own_seconds() - mine, all = cpu_seconds() - all, wall = sm_now() - wall;
    f->rate[round] = flops * reps / wall * 1e-9;
    f->share[round] = top > 0 ? 100 * (threads > 1 ? f->rate[round] / threads : flops * reps / all * 1e-9) / top : 0;
    f->per_cycle[round] = c > 0 ? flops * reps / (wall * (c / mine) * threads) : 0; /* c / mine: the clock */
}

static const char *const form_name[] = {"NT", "NN", "kept"};

static void show(const way *w, figures *f, int rounds)
{
    printf("  %-9s%-4s %7.1f GFLOP/s %5.1f%%", library[w->lib].name, w->lib < OPENBLAS ? "" : form_name[w->form],
           median(f->rate, rounds), median(f->share, rounds));
    if (f->per_cycle[0] > 0)
        printf(" %5.1f flop/cycle/core", median(f->per_cycle, rounds));
    puts(f->off > 1e-4 ? "  WRONG" : "");
}

/* Best percent of each library, [1] kept or [0] turned in each call. */
typedef struct row { double share[LIBRARIES][2]; } row;

static void time_shape(problem *p, const way *ways, int nway, int width, int rounds, row *out)
{
    float *want = sm_alloc(NULL, SM_MEM_MISC, sizeof *want * (size_t)p->m * (size_t)p->n);
    figures *f = calloc((size_t)nway, sizeof *f);
    if (!want || !f)
        exit(1);
    sumi_pack(p);
    for (int r = -1; r < rounds; r++)
        for (int i = 0; i < nway; i++) {
            if (ways[i].lib == SUMI)
                sumi_pack(p); /* what a part at a time has overwritten */
            if (r >= 0)
                time_way(p, &ways[i], width, &f[i], r);
            else
                multiply(p, &ways[i]);
            if (r < 0 && !i)
                memcpy(want, p->y, sizeof *want * (size_t)p->m * (size_t)p->n);
            else if (r < 0)
                f[i].off = difference(p, want);
        }
    printf("%d,%d,%d (M,K,N)\n", p->m, p->k, p->n);
    for (int i = 0; i < nway; i++) {
        double *best = &out->share[ways[i].lib][ways[i].form == KEPT];
        show(&ways[i], &f[i], rounds);
        *best = fmax(*best, median(f[i].share, rounds));
    }
    fflush(stdout);
    sm_free(want);
    free(f);
}

static void print_table(const row *rows, const char *const *names, int count)
{
    puts("\n| M, K, N | sumi | packing each time | OpenBLAS | BLIS | oneDNN | oneDNN, kept | sumi of the best |\n"
         "|---|---|---|---|---|---|---|---|");
    for (int i = 0; i < count; i++) {
        const double (*s)[2] = rows[i].share;
        double best = fmax(fmax(s[OPENBLAS][0], s[BLIS][0]), fmax(s[DNNL][0], s[DNNL][1]));
        printf("| %s | %.0f%% | %.0f%% | %.0f%% | %.0f%% | %.0f%% | %.0f%% | %.2f |\n", names[i], s[SUMI][0], s[SUMI_PACK][0],
               s[OPENBLAS][0], s[BLIS][0], s[DNNL][0], s[DNNL][1], best > 0 ? s[SUMI][0] / best : 0);
    }
}

/* ---- all shapes -------------------------------------------------------------------------------------------------- */

/* M, K, N: linear layers of SD 1.5's UNet at 512x512, a text encoder's, a square, a large transformer's. */
static const int shapes[][3] = {{4096, 320, 320}, {4096, 320, 2560}, {1024, 640, 640}, {1024, 640, 5120},
                                {256, 1280, 1280}, {256, 1280, 10240},
                                {64, 1280, 1280}, {77, 768, 3072}, {2048, 2048, 2048}, {4608, 3072, 3072}};

static sm_tensor tensor(sm_node *n, const void *data)
{
    sm_tensor t = {.data = (void *)data, .dtype = SM_F32, .rank = n->rank};
    memcpy(t.dims, n->dims, sizeof t.dims);
    return t;
}

static void run_shape(const int *s, sm_pool *pool, const sm_backend *be, const way *ways, int nway, int rounds, row *out)
{
    sm_err e = {0};
    problem p = {.m = s[0], .k = s[1], .n = s[2], .pool = pool};
    if (nway && ways[nway - 1].form == KEPT)
        p.dnnl = ways[nway - 1].call;
    size_t m = (size_t)p.m, n = (size_t)p.n, k = (size_t)p.k;
    float *x = numbers(m * k, 1), *nk = numbers(n * k, 2), *kn = turned(nk, p.n, p.k),
          *zero = sm_alloc0(NULL, SM_MEM_MISC, n * sizeof *zero);
    p.x = x, p.nk = nk, p.kn = kn, p.zero = zero, p.y = numbers(m * n, 3);
    sm_graph *g = sm_graph_new(NULL, &e);
    sm_node *in = sm_input(g, "x", SM_F32, 2, (int64_t[]){p.m, p.k}), *w = sm_input(g, "w", SM_F32, 2, (int64_t[]){p.n, p.k});
    sm_node *b = sm_input(g, "b", SM_F32, 1, (int64_t[]){p.n}), *y = sm_linear(in, w, b);
    if (!zero || g->err.code)
        exit(1);
    p.kernel = &be->k[y->op];
    p.op = (sm_kcall){.node = y, .nsrc = y->nsrc, .src = {tensor(in, x), tensor(w, nk), tensor(b, zero)}, .dst = tensor(y, p.y)};
    size_t work = p.kernel->work ? p.kernel->work(y) : 0, prep = p.kernel->prep_bytes ? p.kernel->prep_bytes(y) : 0;
    p.op.work = work ? sm_alloc0(NULL, SM_MEM_MISC, work) : NULL;
    p.op.prep = p.prep = prep ? sm_alloc0(NULL, SM_MEM_MISC, prep) : NULL;
    if (p.dnnl && !odn_setup(p.dnnl, &p.kept, p.m, p.n, p.k, x, nk, p.y))
        nway--;
    time_shape(&p, ways, nway, peak_width(be->name), rounds, out);
    void *all[] = {x, nk, kn, zero, p.y, p.op.work, p.prep};
    for (size_t i = 0; i < SM_COUNT(all); i++)
        sm_free(all[i]);
    sm_graph_free(g);
}

/* The libraries that are there, with `threads` threads that sleep when they have nothing to do; columns found. */
static int find_ways(const char *threads, bool wide, way *ways, onednn *dnnl)
{
    const char *const set[][2] = {{"OMP_NUM_THREADS", threads}, {"OPENBLAS_NUM_THREADS", threads}, {"BLIS_NUM_THREADS", threads},
                                  /* its numbers of skx and haswell */
                                  {"OPENBLAS_CORETYPE", wide ? "SkylakeX" : "Haswell"}, {"BLIS_ARCH_TYPE", wide ? "0" : "3"},
                                  {"ONEDNN_MAX_CPU_ISA", wide ? "ALL" : "AVX2"}};
    const char *const usual[][2] = {{"OMP_WAIT_POLICY", "passive"}, {"OPENBLAS_THREAD_TIMEOUT", "4"}};
    unsetenv("OPENBLAS_L2_SIZE");
    for (size_t i = 0; i < SM_COUNT(set); i++)
        setenv(set[i][0], set[i][1], 1);
    for (size_t i = 0; i < SM_COUNT(usual); i++)
        setenv(usual[i][0], usual[i][1], 0);
    int n = 0;
    ways[n++] = (way){.lib = SUMI};
    ways[n++] = (way){.lib = SUMI_PACK};
    void *so = NULL;
    for (int l = OPENBLAS; l < LIBRARIES; l++) {
        void *call = NULL;
        const char *file = "";
        so = NULL;
        for (int i = 0; i < 3 && !so && library[l].files[i]; i++)
            so = dlopen(file = library[l].files[i], RTLD_NOW | RTLD_LOCAL);
        call = so ? dlsym(so, library[l].symbol) : NULL;
        const char *(*core)(void) = so ? (const char *(*)(void))dlsym(so, "openblas_get_corename") : NULL;
        printf("%s: %s%s%s\n", library[l].name, call ? file : "not here", call && core ? ", for " : "",
               call && core ? core() : "");
        for (int form = NT; call && form <= NN; form++)
            ways[n++] = (way){.lib = l, .form = form, .call = call};
    }
    if (odn_open(dnnl, so)) /* the last one is oneDNN */
        ways[n++] = (way){.lib = DNNL, .form = KEPT, .call = dnnl};
    return n;
}

int main(int argc, char **argv)
{
    sm_err e = {0};
    way ways[2 * LIBRARIES];
    onednn dnnl = {0};
    setvbuf(stdout, NULL, _IOLBF, 0);
    const sm_backend *be = sm_cpu_backend(NULL, &e);
    sm_pool *pool = sm_pool_new(NULL, argc > 1 ? atoi(argv[1]) : sm_cpu_count(), &e);
    if (!be || !pool) {
        fprintf(stderr, "bench_rivals: %s\n", e.msg);
        return 1;
    }
    int rounds = argc > 2 ? atoi(argv[2]) : 7, width = peak_width(be->name), count = 0;
    rounds = SM_MAX(1, SM_MIN(rounds, ROUNDS_MAX));
    char threads[16], names[SM_COUNT(shapes)][48];
    const char *name[SM_COUNT(shapes)];
    row rows[SM_COUNT(shapes)] = {0};
    snprintf(threads, sizeof threads, "%d", sm_pool_threads(pool));
    int nway = find_ways(threads, width == 16, ways, &dnnl);
    open_cycles();
    printf("sumi: %s, %s threads, multiply-add peak %.1f GFLOP/s a core, %s\n", be->name, threads, peak(pool, width),
           cycles() > 0 ? "cycles counted" : "no counter of cycles");
    for (size_t i = 0; i < SM_COUNT(shapes); i++) {
        snprintf(names[count], sizeof names[count], "%d,%d,%d", shapes[i][0], shapes[i][1], shapes[i][2]);
        if (argc >= 4 && !strstr(names[count], argv[3]))
            continue;
        run_shape(shapes[i], pool, be, ways, nway, rounds, &rows[count]);
        name[count] = names[count];
        count++;
    }
    print_table(rows, name, count);
    sm_pool_free(pool);
    return 0;
}
