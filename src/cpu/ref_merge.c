/* Scalar reference of token merging: every similarity in double, ranks by counting. */
#include "cpu/merge.h"
#include "cpu/ref.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* work: for each of n * go tokens the best similarity, its cell, whether it joins. */
typedef struct room { double *best; int32_t *match; uint8_t *joins; } room;

static room room_of(const sm_kcall *c, const tokens *k)
{
    room r = {.best = c->work};
    r.match = (int32_t *)(r.best + k->n * k->go);
    r.joins = (uint8_t *)(r.match + k->n * k->go);
    return r;
}

static size_t match_work(const sm_node *n)
{
    tokens k = tokens_of(n);
    return (size_t)(k.n * k.go) * (sizeof(double) + sizeof(int32_t) + 1) + 1;
}

static double length(const float *x, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += (double)x[i] * x[i];
    return sqrt(s > FLT_MIN ? s : FLT_MIN);
}

static void best_match(const sm_kcall *c, const tokens *k, const float *x, const float *a, double *best, int32_t *match)
{
    *best = -INFINITY;
    *match = 0;
    for (int64_t j = 0; j < k->stay; j++) {
        const float *b = x + token_of(k, c->src[1].data, j) * k->c;
        double dot = 0;
        for (int64_t i = 0; i < k->c; i++)
            dot += (double)a[i] * b[i];
        dot /= length(b, k->c);
        if (dot > *best) {
            *best = dot;
            *match = (int32_t)j;
        }
    }
    *best /= length(a, k->c);
}

static void run_match(const sm_kcall *c, int task, int tasks)
{
    tokens k = tokens_of(c->node);
    room r = room_of(c, &k);
    int64_t from, to;
    sm_range(k.n, task, tasks, &from, &to);
    for (int64_t n = from; n < to; n++) {
        const float *x = ref_f32(c, 0) + n * k.t * k.c;
        double *best = r.best + n * k.go;
        int32_t *match = r.match + n * k.go;
        int64_t i = 0;
        for (int64_t t = 0; t < k.t; t++)
            if (!token_stays(&k, c->src[1].data, t)) {
                best_match(c, &k, x, x + t * k.c, &best[i], &match[i]);
                i++;
            }
        for (i = 0; i < k.go; i++) {
            int64_t before = 0;
            for (int64_t j = 0; j < k.go; j++)
                before += best[j] > best[i] || (best[j] == best[i] && j < i);
            r.joins[n * k.go + i] = before < k.merged;
        }
        tokens_number(&k, c->src[1].data, match, r.joins + n * k.go, (int32_t *)c->dst.data + n * k.t);
    }
}

static void run_merge(const sm_kcall *c, int task, int tasks)
{
    int64_t t = c->src[0].dims[1], ch = c->src[0].dims[2], rows = c->dst.dims[1], from, to;
    const int32_t *row = c->src[1].data;
    sm_range(c->dst.dims[0] * rows, task, tasks, &from, &to);
    for (int64_t i = from; i < to; i++)
        for (int64_t k = 0; k < ch; k++) {
            int64_t n = i / rows, count = 0;
            double sum = 0;
            for (int64_t j = 0; j < t; j++)
                if (row[n * t + j] == i % rows) {
                    sum += ref_f32(c, 0)[(n * t + j) * ch + k];
                    count++;
                }
            ((float *)c->dst.data)[i * ch + k] = count ? (float)(sum / (double)count) : 0;
        }
}

static void run_part(const sm_kcall *c, int task, int tasks)
{
    int64_t rows = c->src[0].dims[1], ch = c->src[0].dims[2], t = c->dst.dims[1], from, to;
    const int32_t *row = c->src[1].data;
    sm_range(c->dst.dims[0] * t, task, tasks, &from, &to);
    for (int64_t i = from; i < to; i++)
        for (int64_t k = 0; k < ch; k++)
            ((float *)c->dst.data)[i * ch + k] =
                row[i] < 0 || row[i] >= rows ? NAN : ref_f32(c, 0)[(i / t * rows + row[i]) * ch + k];
}

void sm_cpu_merge_scalar(sm_kernel *k)
{
    k[SM_OP_TOKEN_MATCH] = (sm_kernel){.run = run_match, .work = match_work};
    k[SM_OP_TOKEN_MERGE] = (sm_kernel){.run = run_merge};
    k[SM_OP_TOKEN_PART] = (sm_kernel){.run = run_part};
}
