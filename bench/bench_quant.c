/* Layers by the type their weights are stored in: processor time of a run, as a ratio to the same layer in f16 and to turning
 * the whole weight into f32 in a buffer and taking the layer in f32. All in turns, one thread, weights not kept packed, as in
 * models that are larger than what a plan may keep. So many copies of a weight are gone through in turns that none is in a
 * cache where few rows use it. bench_quant [all] [FILTER of a shape's line] [FILTER of types]; SUMI_CPU chooses instructions. */
#include "cpu/cpu.h"
#include "ops/ops.h"
#include "peak.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* rows x c -> o; size > 0: a 3x3 convolution of rows pictures size x size, `back`: its input gradient. often: in the short
 * list. */
typedef struct shape { int rows, c, o, size; bool back, often; } shape;

static const shape shapes[] = {
    {1, 1280, 1280, 0, 0, 1}, {2, 1280, 1280, 0, 0, 1}, {4, 1280, 1280, 0, 0, 1}, {8, 1280, 1280, 0, 0, 1},
    {16, 1280, 1280, 0, 0, 1},
    {64, 1280, 1280, 0, 0, 1}, {77, 768, 3072, 0, 0, 1}, {154, 2048, 1280, 0, 0, 1}, {256, 1280, 1280, 0, 0, 1},
    {1024, 640, 640, 0, 0, 1}, {4096, 320, 320, 0, 0, 1},
    {1, 3072, 3072, 0, 0, 1}, {2, 3072, 3072, 0, 0, 0}, {4, 3072, 3072, 0, 0, 1}, {8, 3072, 3072, 0, 0, 0},
    {16, 3072, 3072, 0, 0, 1},
    {64, 3072, 3072, 0, 0, 0}, {77, 3072, 3072, 0, 0, 1}, {154, 3072, 3072, 0, 0, 0}, {256, 3072, 3072, 0, 0, 1},
    {1024, 3072, 3072, 0, 0, 0}, {4096, 1536, 1536, 0, 0, 0},
    {1, 768, 768, 0, 0, 0}, {77, 768, 768, 0, 0, 0}, {77, 3072, 768, 0, 0, 0}, {1, 320, 1280, 0, 0, 0}, {154, 768, 320, 0, 0, 0},
    {256, 1280, 10240, 0, 0, 0}, {1024, 640, 5120, 0, 0, 0}, {4096, 320, 2560, 0, 0, 0},
    {1, 1280, 1280, 8, 0, 1}, {2, 1280, 1280, 16, 0, 0}, {2, 640, 640, 32, 0, 1}, {2, 320, 320, 64, 0, 0},
    {1, 1280, 1280, 8, 1, 1}, {2, 640, 640, 32, 1, 0},
};

/* Where a block's f16 scales are: random bytes there would be infinities. */
typedef struct form { sm_dtype t; int half[2]; bool often; } form;
static const form forms[] = {
    {SM_F16, {-1, -1}, 1}, {SM_F32, {-1, -1}, 1}, {SM_BF16, {-1, -1}, 1}, {SM_F8_E4M3, {-1, -1}, 1}, {SM_F8_E5M2, {-1, -1}, 0},
    {SM_Q8_0, {0, -1}, 1}, {SM_Q4_0, {0, -1}, 1}, {SM_Q4_1, {0, 2}, 0}, {SM_Q5_0, {0, -1}, 0}, {SM_Q5_1, {0, 2}, 0},
    {SM_Q2_K, {80, 82}, 0}, {SM_Q3_K, {108, -1}, 0}, {SM_Q4_K, {0, 2}, 1}, {SM_Q5_K, {0, 2}, 0}, {SM_Q6_K, {208, -1}, 1},
};
enum { FORMS = SM_COUNT(forms), RUNS = 7, COLD = 48 << 20, MOST_COPIES = 64, WHOLE = 2 };

static void fill(uint8_t *p, int64_t n, const form *f)
{
    static uint32_t s = 1;
    int64_t step = f->t == SM_F32 ? 4 : f->half[0] < 0 ? 2 : (int64_t)sm_dtype_block_bytes(f->t);
    for (int64_t i = 0; i < (int64_t)sm_dtype_bytes(f->t, n); i++) {
        s = s * 1664525 + 1013904223;
        p[i] = (uint8_t)(s >> 24);
    }
    for (int64_t i = 0; i < (int64_t)sm_dtype_bytes(f->t, n); i += step)
        if (f->half[0] >= 0)
            for (int k = 0; k < 2 && f->half[k] >= 0; k++)
                p[i + f->half[k] + 1] = 0x1c;
        else if (f->t == SM_F8_E4M3 || f->t == SM_F8_E5M2)
            p[i] &= 0xb7, p[i + 1] &= 0xb7;
        else
            p[i + step - 1] = f->t == SM_F16 ? 0x20 : 0x3c;
}

static sm_node *record(sm_graph *g, const shape *s, sm_dtype t, const void *w, bool changes, sm_node *x)
{
    int64_t dims[4] = {s->o, s->c, 3, 3};
    sm_node *p = sm_leaf_param(g, "w", t, s->size ? 4 : 2, dims, w, changes);
    const sm_conv c = {.stride = 1, .pad = 1};
    static const sm_param back = {.conv = {.stride = {1, 1}, .dil = {1, 1}, .groups = 1, .pad = {1, 1, 1, 1}}};
    if (!s->size)
        return sm_linear(x, p, NULL);
    return s->back ? sm_conv2d_dx(x, p, NULL, &back, s->size, s->size) : sm_conv2d(x, p, NULL, &c);
}

/* A layer of one type: copies of its weight, one after the other. */
typedef struct layer {
    const form *f;
    uint8_t *w[MOST_COPIES];
    int copies;
    sm_graph *g;
    sm_plan *p;
    double t[RUNS], whole[RUNS];
} layer;

static sm_plan *planned(sm_graph *g, const shape *s, sm_dtype t, uint8_t *const *w, int copies,
                        bool changes, const sm_backend *be)
{
    sm_node *y[MOST_COPIES];
    sm_err e = {0};
    int channels = s->back ? s->o : s->c;
    int64_t dims[4] = {s->rows, s->size, s->size, channels}, flat[2] = {s->rows, channels};
    sm_node *x = sm_input(g, "x", SM_F32, s->size ? 4 : 2, s->size ? dims : flat);
    for (int i = 0; i < copies; i++)
        y[i] = record(g, s, t, w[i], changes, x);
    sm_plan *p = sm_plan_new_with(g, copies, y, be, &(sm_plan_opts){.packed = 0}, &e);
    if (!p) {
        fprintf(stderr, "bench_quant: %s\n", e.msg);
        exit(1);
    }
    float *v = sm_plan_data(p, x);
    for (int64_t i = 0; i < sm_numel(x); i++)
        v[i] = (float)(i * 37 % 101 - 50) * 0.02f;
    return p;
}

static void *room(size_t bytes)
{
    void *p = sm_alloc(NULL, SM_MEM_MISC, bytes);
    if (!p)
        exit(1);
    return p;
}

/* As many copies as are larger than the caches; one will do where the arithmetic takes far longer than reading. */
static layer make(const shape *s, const form *f, const sm_backend *be)
{
    int64_t n = (int64_t)s->c * s->o * (s->size ? 9 : 1), rows = (int64_t)s->rows * (s->size ? s->size * s->size : 1);
    size_t bytes = sm_dtype_bytes(f->t, n);
    layer l = {.f = f, .g = sm_graph_new(NULL, NULL)};
    l.copies = (int)SM_MIN(SM_MAX(COLD / bytes / (size_t)SM_MAX(rows / 16, 1), 1), MOST_COPIES);
    for (int i = 0; i < l.copies; i++) {
        l.w[i] = room(bytes);
        fill(l.w[i], n, f);
    }
    l.p = planned(l.g, s, f->t, l.w, l.copies, false, be);
    return l;
}

static void drop(layer *l)
{
    sm_plan_free(l->p);
    sm_graph_free(l->g);
    for (int i = 0; i < l->copies; i++)
        sm_free(l->w[i]);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median of the ratios of what was measured in the same round. */
static double ratio(const double *a, const double *b)
{
    double r[RUNS];
    for (int i = 0; i < RUNS; i++)
        r[i] = a[i] / b[i];
    qsort(r, RUNS, sizeof *r, by_value);
    return r[RUNS / 2];
}

/* Seconds of one copy: the layer as it is stored, and the weight turned into f32 first. */
static void time_layer(layer *l, sm_plan *f32, float *buffer, int64_t n, int repeat, int run)
{
    double t = cpu_seconds();
    for (int i = 0; i < repeat; i++)
        sm_plan_run(l->p, NULL, NULL, NULL);
    double mid = cpu_seconds();
    int whole = SM_MIN(l->copies, WHOLE) * SM_MIN(repeat, 4);
    for (int i = 0; i < whole; i++) {
        sm_load_blocks(l->f->t, l->w[i % l->copies], n, buffer);
        sm_plan_run(f32, NULL, NULL, NULL);
    }
    if (run < 0)
        return;
    l->t[run] = (mid - t) / (repeat * l->copies);
    l->whole[run] = (cpu_seconds() - mid) / whole;
}

static void time_shape(const shape *s, const char *what, const char *type, bool all, const sm_backend *be)
{
    layer l[FORMS];
    int count = 0;
    int64_t n = (int64_t)s->c * s->o * (s->size ? 9 : 1);
    float *buffer = room((size_t)n * sizeof *buffer);
    memset(buffer, 0, (size_t)n * sizeof *buffer);
    uint8_t *only[1] = {(uint8_t *)buffer};
    sm_graph *g = sm_graph_new(NULL, NULL);
    sm_plan *f32 = planned(g, s, SM_F32, only, 1, true, be);
    double flops = sm_plan_cost(f32).flops;
    for (int i = 0; i < FORMS; i++)
        if (!i || (type ? strstr(sm_dtype_name(forms[i].t), type) != NULL : all || forms[i].often))
            l[count++] = make(s, &forms[i], be);
    for (int r = -1; r < RUNS; r++)
        for (int i = 0; i < count; i++)
            time_layer(&l[i], f32, buffer, n, (int)SM_MAX(1, 1e9 / (flops + 10 * (double)n) / l[i].copies), r);
    printf("%s\n", what);
    for (int i = 0; i < count; i++) {
        double own = ratio(l[i].t, l[0].t), whole = ratio(l[i].t, l[i].whole);
        qsort(l[i].t, RUNS, sizeof *l[i].t, by_value);
        double t = l[i].t[RUNS / 2];
        printf("  %-8s %9.4f ms  %6.1f GFLOP/s  %5.1f GB/s stored  %5.2f of f16  %5.2f of turning all\n",
               sm_dtype_name(l[i].f->t), t * 1e3, flops / t * 1e-9, (double)sm_dtype_bytes(l[i].f->t, n) / t * 1e-9, own, whole);
        drop(&l[i]);
    }
    fflush(stdout);
    sm_plan_free(f32);
    sm_graph_free(g);
    sm_free(buffer);
}

int main(int argc, char **argv)
{
    sm_err e = {0};
    const sm_backend *be = sm_cpu_backend(NULL, &e);
    bool all = argc > 1 && !strcmp(argv[1], "all");
    const char *filter = argc > 1 + all ? argv[1 + all] : "", *type = argc > 2 + all ? argv[2 + all] : NULL;
    if (!be) {
        fprintf(stderr, "bench_quant: %s\n", e.msg);
        return 1;
    }
    printf("%s, one thread, multiply-add peak %.1f GFLOP/s\n", be->name, peak(NULL, peak_width(be->name)));
    for (size_t i = 0; i < SM_COUNT(shapes); i++) {
        const shape *s = &shapes[i];
        char what[96];
        if (s->size)
            snprintf(what, sizeof what, "conv3x3%s [%d,%d,%d,%d]->%d", s->back ? " dx" : "", s->rows, s->size, s->size, s->c,
                     s->o);
        else
            snprintf(what, sizeof what, "linear [%d,%d]->%d", s->rows, s->c, s->o);
        if ((all || s->often || *filter) && strstr(what, filter))
            time_shape(s, what, type, all, be);
    }
    return 0;
}
