/* What it costs not to keep weights packed: layers of Stable Diffusion 1.5 with f16 weights, packed once for all runs and
 * packed part by part in every run, in turns. bench_pack [threads]; seconds of processor time, SUMI_CPU chooses the
 * instruction set. */
#include "cpu/cpu.h"
#include "ops/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct shape { int h, c, o, k; const char *what; } shape; /* two pictures of h x h; k 0: a linear layer */

static const shape shapes[] = {
    {64, 320, 320, 3, "conv, 64x64"}, {32, 640, 640, 3, "conv, 32x32"}, {16, 1280, 1280, 3, "conv, 16x16"},
    {8, 1280, 1280, 3, "conv, 8x8"},
    {16, 2560, 1280, 3, "conv, 16x16"}, {8, 2560, 1280, 3, "conv, 8x8"}, {64, 320, 2560, 0, "linear, 64x64"},
    {32, 640, 5120, 0, "linear, 32x32"}, {16, 1280, 10240, 0, "linear, 16x16"}, {16, 5120, 1280, 0, "linear, 16x16"},
    {8, 1280, 1280, 0, "linear, 8x8"}, {1, 1280, 1280, 0, "linear, time"},
};

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint16_t *weights(int64_t n)
{
    uint16_t *w = sm_alloc(NULL, SM_MEM_MISC, (size_t)n * sizeof *w);
    uint32_t s = 1;
    for (int64_t i = 0; w && i < n; i++) {
        s = s * 1664525 + 1013904223;
        w[i] = sm_f32_f16((float)(int32_t)s * 0x1p-36f);
    }
    return w;
}

static sm_node *record(sm_graph *g, const shape *s, const uint16_t *w, sm_node **x)
{
    int64_t pixels[4] = {2, s->h, s->h, s->c}, dims[4] = {s->o, s->c, s->k ? s->k : 1, s->k ? s->k : 1};
    *x = sm_input(g, "x", SM_F32, 4, pixels);
    sm_node *p = sm_leaf_param(g, "w", SM_F16, s->k ? 4 : 2, dims, w, false);
    return s->k ? sm_conv2d(*x, p, NULL, &(sm_conv){.stride = 1, .pad = s->k / 2}) : sm_linear(*x, p, NULL);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double one_run(sm_plan *p, sm_pool *pool, int reps)
{
    double t = cpu_seconds();
    for (int i = 0; i < reps; i++)
        sm_plan_run(p, pool, NULL, NULL);
    return (cpu_seconds() - t) / reps;
}

static void time_shape(const shape *s, const sm_backend *be, sm_pool *pool)
{
    enum { RUNS = 7 };
    static const sm_plan_opts opts[2] = {{.packed = SIZE_MAX}, {.packed = 0}};
    int64_t n = (int64_t)s->o * s->c * (s->k ? s->k * s->k : 1);
    uint16_t *w = weights(n);
    sm_graph *g = sm_graph_new(NULL, NULL);
    sm_node *x, *y = record(g, s, w, &x);
    sm_plan *p[2];
    double t[2][RUNS];
    for (int i = 0; i < 2; i++) {
        sm_err e = {0};
        p[i] = sm_plan_new_with(g, 1, &y, be, &opts[i], &e);
        if (!p[i]) {
            fprintf(stderr, "bench_pack: %s\n", e.msg);
            exit(1);
        }
        memset(sm_plan_data(p[i], x), 0, (size_t)sm_numel(x) * sizeof(float));
    }
    double flops = sm_plan_cost(p[0]).flops;
    int reps = (int)(1 + 2e10 / flops / 4);
    reps = SM_MIN(reps, 200);
    for (int r = -1; r < RUNS; r++)
        for (int i = 0; i < 2; i++) {
            double v = one_run(p[i], pool, reps);
            if (r >= 0)
                t[i][r] = v;
        }
    for (int i = 0; i < 2; i++)
        qsort(t[i], RUNS, sizeof **t, by_value);
    double kept = t[0][RUNS / 2], parts = t[1][RUNS / 2];
    printf("%-14s %5d to %5d  %8.2f ms kept (%5.0f GFLOP/s)  %8.2f ms in parts  %+6.1f%%  %.3f ns a weight, %.1f MB kept, %.1f "
           "MB at a time\n",
           s->what, s->c, s->o, kept * 1e3, flops / kept * 1e-9, parts * 1e3, 100 * (parts / kept - 1),
           (parts - kept) / (double)n * 1e9,
           (double)sm_plan_packed_bytes(p[0]) * 1e-6,
           (double)(sm_plan_activation_bytes(p[1]) - sm_plan_activation_bytes(p[0])) * 1e-6);
    fflush(stdout);
    for (int i = 0; i < 2; i++)
        sm_plan_free(p[i]);
    sm_graph_free(g);
    sm_free(w);
}

int main(int argc, char **argv)
{
    sm_err e = {0};
    const sm_backend *be = sm_cpu_backend(NULL, &e);
    sm_pool *pool = sm_pool_new(NULL, argc > 1 ? atoi(argv[1]) : sm_cpu_count(), &e);
    if (!be || !pool) {
        fprintf(stderr, "bench_pack: %s\n", e.msg);
        return 1;
    }
    printf("%s, %d threads\n", be->name, sm_pool_threads(pool));
    for (size_t i = 0; i < SM_COUNT(shapes); i++)
        time_shape(&shapes[i], be, pool);
    sm_pool_free(pool);
    return 0;
}
