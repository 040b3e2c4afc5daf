/* The same bits for any number of threads and any batch: every case of op_cases.c with a batch dimension, alone and in a
 * batch of three; every case on one to four threads; a small network with all of it. */
#include "kernel_run.h"
#include "ops/ops.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

static sm_pool *pools[5]; /* by number of threads */

static bool make_pools(void)
{
    sm_err e = {0};
    for (int t = 1; t <= 4; t++)
        if (!pools[t] && !(pools[t] = sm_pool_new(NULL, t, &e)))
            CHECKF(false, "%s", e.msg);
    return pools[4] != NULL;
}

static void drop_pools(void)
{
    for (int t = 1; t <= 4; t++) {
        sm_pool_free(pools[t]);
        pools[t] = NULL;
    }
}

static void *values_of(const op_case *c, int i, uint64_t seed, const sm_node *src)
{
    void *v = malloc((size_t)sm_numel(src) * 4);
    if (!v)
        exit(2);
    case_values(c, i, seed, src, v);
    return v;
}

static void check_threads(const op_case *c, const sm_backend *be)
{
    sm_graph *g = sm_graph_new(NULL, NULL);
    sm_node *src[SM_MAX_SRC], *n = case_record(c, g, 0, src);
    kernel_run r = {.k = &be->k[c->op], .node = n, .high = true, .inplace = -1};
    for (int i = 0; i < SM_MAX_SRC; i++)
        r.src[i] = src[i] ? values_of(c, i, 11, src[i]) : NULL;
    float *one = NULL;
    for (int t = 1; t <= 4; t++) {
        r.pool = pools[t];
        float *y = kernel_result(&r);
        if (one)
            CHECKF(!memcmp(one, y, (size_t)sm_numel(n) * sizeof *y), "%s: %s on %d threads gives other bits", case_name(c),
                   be->name, t);
        if (!one)
            one = y;
        else
            free(y);
    }
    free(one);
    for (int i = 0; i < SM_MAX_SRC; i++)
        free((void *)r.src[i]);
    sm_graph_free(g);
}

TEST(determinism_threads)
{
    const sm_backend *be[4];
    int n = sm_cpu_backends(be);
    if (make_pools())
        for (int b = 0; b < n; b++)
            for (int i = 0; i < op_case_count; i++)
                if (!op_cases[i].bench)
                    check_threads(&op_cases[i], be[b]);
    drop_pools();
}

/* Three copies of a sample in a batch against the sample alone. Sources without a batch dimension stay as they are. */
static void check_batch(const op_case *c, const sm_backend *be)
{
    enum { N = 3 };
    sm_graph *g = sm_graph_new(NULL, NULL);
    sm_node *s1[SM_MAX_SRC], *s3[SM_MAX_SRC], *one = case_record(c, g, 1, s1), *three = case_record(c, g, N, s3);
    CHECKF(!g->err.code, "%s: %s", case_name(c), g->err.msg);
    kernel_run r1 = {.k = &be->k[c->op], .node = one, .high = true, .inplace = -1}, r3 = r1;
    r3.node = three;
    for (int i = 0; i < SM_MAX_SRC && !g->err.code; i++) {
        if (!s1[i])
            continue;
        r1.src[i] = values_of(c, i, 12, s1[i]);
        size_t bytes = (size_t)sm_numel(s1[i]) * sm_dtype_size(s1[i]->dtype);
        char *v = malloc(bytes * N);
        if (!v)
            exit(2);
        for (int k = 0; k < (c->batch >> i & 1 ? N : 1); k++)
            memcpy(v + (size_t)k * bytes, r1.src[i], bytes);
        r3.src[i] = v;
    }
    if (!g->err.code) {
        float *y1 = kernel_result(&r1), *y3 = kernel_result(&r3);
        int64_t n = sm_numel(one);
        CHECKF(sm_numel(three) == N * n, "%s: batch flags are wrong", case_name(c));
        for (int k = 0; k < N && sm_numel(three) == N * n; k++)
            CHECKF(!memcmp(y1, y3 + k * n, (size_t)n * sizeof *y1), "%s: %s: sample %d of 3 has other bits than alone",
                   case_name(c), be->name, k);
        free(y1);
        free(y3);
    }
    for (int i = 0; i < SM_MAX_SRC; i++) {
        free((void *)r1.src[i]);
        free((void *)r3.src[i]);
    }
    sm_graph_free(g);
}

TEST(determinism_batch)
{
    const sm_backend *be[4];
    int n = sm_cpu_backends(be), checked = 0;
    for (int b = 0; b < n; b++)
        for (int i = 0; i < op_case_count; i++)
            if (op_cases[i].batch && !op_cases[i].bench) {
                check_batch(&op_cases[i], be[b]);
                checked++;
            }
    CHECK(checked > 100);
}

/* ---- a network: convolution, group norm, attention with a context, GEGLU, mean loss per sample ---- */

enum { SIDE = 9, CH = 24, HEADS = 3, CTX = 11 };

typedef struct net { sm_graph *g; sm_node *x, *ctx, *out; float *weights; int64_t used; } net;

static sm_node *weight(net *t, int rank, const int64_t *dims)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= dims[i];
    sm_node *w = sm_leaf_param(t->g, "w", SM_F32, rank, dims, t->weights + t->used, false);
    t->used += n;
    return w;
}
#define W(...) weight(t, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (int64_t[]){__VA_ARGS__})

static void record_net(net *t, int64_t batch)
{
    t->g = sm_graph_new(NULL, NULL);
    t->used = 0;
    t->x = sm_input(t->g, "x", SM_F32, 4, (int64_t[]){batch, SIDE, SIDE, 4});
    t->ctx = sm_input(t->g, "ctx", SM_F32, 3, (int64_t[]){batch, CTX, 20});
    sm_conv c = {.pad = 1};
    sm_node *h = sm_conv2d(t->x, W(CH, 4, 3, 3), W(CH), &c);
    h = sm_add(h, sm_conv2d(sm_silu(sm_group_norm(h, W(CH), W(CH), 4, 1e-5f)), W(CH, CH, 3, 3), W(CH), &c));
    sm_node *tok = SM_RESHAPE(h, batch, SIDE * SIDE, CH), *n = sm_layer_norm(tok, W(CH), W(CH), 1e-5f);
    sm_node *q = SM_RESHAPE(sm_linear(n, W(CH, CH), NULL), batch, SIDE * SIDE, HEADS, CH / HEADS);
    sm_node *k = SM_RESHAPE(sm_linear(t->ctx, W(CH, 20), NULL), batch, CTX, HEADS, CH / HEADS);
    sm_node *v = SM_RESHAPE(sm_linear(t->ctx, W(CH, 20), NULL), batch, CTX, HEADS, CH / HEADS);
    tok = sm_add(tok, SM_RESHAPE(sm_attention(q, k, v, NULL, 0, false), batch, SIDE * SIDE, CH));
    sm_node *ff = sm_linear(sm_layer_norm(tok, W(CH), W(CH), 1e-5f), W(4 * CH, CH), W(4 * CH));
    ff = sm_mul(sm_slice(ff, 2, 0, 2 * CH), sm_gelu_erf(sm_slice(ff, 2, 2 * CH, 2 * CH)));
    tok = sm_add(tok, sm_linear(ff, W(CH, 2 * CH), W(CH)));
    t->out = sm_sum(sm_softmax(sm_add(tok, sm_sum(tok, 1))), 2);
}
#undef W

/* Output of the batch whose sample k is sample ids[k]. */
static float *net_result(const sm_backend *be, sm_pool *pool, float *weights, int64_t batch, const int *ids, int64_t *n)
{
    sm_err e = {0};
    net t = {.weights = weights};
    record_net(&t, batch);
    sm_plan *p = sm_plan_new(t.g, 1, &t.out, be, &e);
    float *y = NULL;
    CHECKF(p != NULL, "%s", e.msg);
    if (p) {
        int64_t nx = sm_numel(t.x) / batch, nc = sm_numel(t.ctx) / batch;
        for (int64_t k = 0; k < batch; k++) {
            test_fill((float *)sm_plan_data(p, t.x) + k * nx, nx, 100 + (uint64_t)ids[k], -1, 1);
            test_fill((float *)sm_plan_data(p, t.ctx) + k * nc, nc, 200 + (uint64_t)ids[k], -1, 1);
        }
        CHECKF(!sm_plan_run(p, pool, NULL, &e), "%s", e.msg);
        *n = sm_numel(t.out) / batch;
        y = malloc((size_t)(*n * batch) * sizeof *y);
        memcpy(y, sm_plan_data(p, t.out), (size_t)(*n * batch) * sizeof *y);
    }
    sm_plan_free(p);
    sm_graph_free(t.g);
    return y;
}

TEST(determinism_network)
{
    enum { WEIGHTS = 20000 };
    static float weights[WEIGHTS];
    test_fill(weights, WEIGHTS, 7, -0.3f, 0.3f);
    const sm_backend *be[4];
    int backends = sm_cpu_backends(be), ids[3] = {0, 1, 2};
    int64_t n = 0;
    float *vector = NULL;
    if (!make_pools())
        return;
    for (int b = 0; b < backends; b++) {
        float *all = net_result(be[b], pools[1], weights, 3, ids, &n);
        for (int t = 1; all && t <= 4; t++) {
            float *y = net_result(be[b], pools[t], weights, 3, ids, &n);
            CHECKF(y && !memcmp(y, all, (size_t)(3 * n) * sizeof *y), "%s on %d threads gives other bits", be[b]->name, t);
            free(y);
        }
        for (int k = 0; all && k < 3; k++) {
            float *y = net_result(be[b], pools[2], weights, 1, &ids[k], &n);
            CHECKF(y && !memcmp(y, all + k * n, (size_t)n * sizeof *y), "%s: sample %d alone has other bits than in a batch of 3",
                   be[b]->name, k);
            free(y);
        }
        if (b && vector && all)
            CHECKF(!memcmp(vector, all, (size_t)(3 * n) * sizeof *all), "%s and %s give other bits", be[1]->name, be[b]->name);
        if (b && !vector)
            vector = all;
        else
            free(all);
    }
    free(vector);
    drop_pools();
}
