/* What the planner joins and what it holds. Joined operations give the bits of separate ones: a plan that is asked for every
 * intermediate result joins nothing. Results that depend on fixed inputs alone are computed when those change. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "ops/ops.h"
#include "test.h"

enum { MOST_NODES = 64 };

typedef struct net { sm_graph *g; uint64_t seed; float *values[MOST_NODES]; int count; } net;

static sm_node *param(net *t, int rank, const int64_t *dims)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= dims[i];
    float *v = t->values[t->count++] = malloc((size_t)n * sizeof *v);
    test_fill(v, n, ++t->seed, -0.5f, 0.5f);
    return sm_leaf_param(t->g, "w", SM_F32, rank, dims, v, false);
}
#define W(...) param(t, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (int64_t[]){__VA_ARGS__})
#define X(...) sm_input(t->g, "x", SM_F32, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (int64_t[]){__VA_ARGS__})

static sm_node *acts(net *t)
{
    sm_node *x = X(5, 3, 40);
    x = sm_silu(sm_linear(x, W(64, 40), W(64)));
    x = sm_gelu_tanh(sm_linear(x, W(37, 64), NULL));
    x = sm_quick_gelu(sm_linear(x, W(33, 37), W(33)));
    x = sm_unary(SM_OP_RELU, sm_linear(x, W(20, 33), W(20)));
    return sm_gelu_erf(SM_RESHAPE(sm_linear(x, W(50, 20), W(50)), 15, 50));
}

/* More rows than a block has, more steps than one of K. */
static sm_node *gate(net *t)
{
    sm_node *h = sm_linear(X(1, 311, 500), W(384, 500), W(384));
    h = sm_mul(sm_slice(h, -1, 0, 192), sm_gelu_erf(sm_slice(h, -1, 192, 192)));
    return sm_linear(h, W(37, 192), NULL);
}

/* Few rows: where the weight does not stay packed each task packs some panels, K in several parts. */
static sm_node *wide_gate(net *t)
{
    sm_node *h = sm_linear(X(3, 10, 1100), W(1088, 1100), W(1088));
    return sm_mul(sm_slice(h, -1, 0, 544), sm_silu(sm_slice(h, -1, 544, 544)));
}

static sm_node *tall_gate(net *t) /* more rows, 2.5 MiB of weights: in parts where they do not stay packed */
{
    sm_node *h = sm_linear(X(1, 515, 512), W(1280, 512), W(1280));
    return sm_mul(sm_slice(h, -1, 0, 640), sm_silu(sm_slice(h, -1, 640, 640)));
}

static sm_node *read_gate(net *t) /* both halves are read again: the linear layer's result stays */
{
    sm_node *h = sm_linear(X(1, 37, 50), W(64, 50), W(64));
    sm_node *y = sm_mul(sm_slice(h, -1, 0, 32), sm_silu(sm_slice(h, -1, 32, 32)));
    return sm_matmul(y, h, true, false);
}

static sm_node *sums(net *t)
{
    sm_node *x = X(2, 150, 410), *r = sm_affine(X(2, 150, 70), 2, 1), *row = W(1, 1, 70), *each = W(2, 1, 70);
    r = sm_add(r, sm_linear(x, W(70, 410), W(70)));
    r = sm_add(sm_linear(r, W(70, 70), NULL), r); /* r is read by both: not in place */
    r = sm_add(sm_linear(r, W(70, 70), W(70)), row);
    r = sm_add(each, sm_linear(r, W(70, 70), W(70)));
    return sm_add(sm_linear(r, W(33, 70), NULL), sm_linear(r, W(33, 70), W(33)));
}

/* K in several parts on every instruction set: sums of parts must not touch what is added. */
static sm_node *long_sums(net *t)
{
    sm_node *x = X(2, 75, 1700), *r = sm_affine(X(2, 75, 70), 2, 1);
    r = sm_add(r, sm_linear(x, W(70, 1700), W(70)));
    return sm_add(sm_linear(x, W(70, 1700), NULL), sm_affine(sm_add(r, sm_linear(x, W(70, 1700), NULL)), 2, 0));
}

static sm_node *pictures(net *t)
{
    sm_conv c = {.stride = 1, .pad = 1}, wraps = {.stride = 1, .pad = 1, .circular = {1, 1}};
    sm_node *x = X(2, 9, 11, 16), *h = sm_silu(sm_group_norm(x, W(16), W(16), 4, 1e-5f));
    h = sm_add(sm_conv2d(h, W(20, 16, 3, 3), W(20), &c), W(2, 1, 1, 20));
    h = sm_silu(sm_group_norm(h, W(20), NULL, 5, 1e-5f));
    h = sm_add(sm_linear(x, W(36, 16), W(36)), sm_conv2d(h, W(36, 20, 3, 3), NULL, &c));
    h = sm_conv2d(sm_resize_nearest(h, 18, 22), W(40, 36, 3, 3), W(40), &c);
    h = sm_add(sm_conv2d(sm_resize_nearest(h, 36, 44), W(17, 40, 3, 3), NULL, &wraps), W(1, 1, 1, 17));
    sm_node *other = sm_resize_nearest(h, 72, 44); /* not the double in both directions */
    return sm_conv2d(other, W(16, 17, 3, 3), NULL, &c);
}

typedef sm_node *record(net *t);

/* numel floats of the result; apart: every intermediate is a result too. */
static float *result(record *r, const sm_backend *be, bool apart, int threads, size_t packed, int *steps, int64_t *n)
{
    net t = {.g = sm_graph_new(NULL, NULL)};
    sm_node *y = r(&t), *outs[MOST_NODES] = {y};
    sm_err e = {0};
    int count = 1;
    CHECKF(!t.g->err.code && t.g->count <= MOST_NODES, "%s", t.g->err.msg);
    for (int i = 0; apart && i < t.g->count; i++)
        if (t.g->nodes[i] != y && t.g->nodes[i]->nsrc)
            outs[count++] = t.g->nodes[i];
    sm_plan *p = sm_plan_new_with(t.g, count, outs, be, &(sm_plan_opts){.packed = packed}, &e);
    sm_pool *pool = sm_pool_new(NULL, threads, &e);
    CHECKF(p && pool, "%s", e.msg);
    float *out = NULL;
    *n = sm_numel(y);
    for (int i = 0; p && i < t.g->count; i++)
        if (t.g->nodes[i]->op == SM_OP_INPUT && sm_plan_data(p, t.g->nodes[i]))
            test_fill(sm_plan_data(p, t.g->nodes[i]), sm_numel(t.g->nodes[i]), 99 + (uint64_t)i, -1, 1);
    if (p && pool && !sm_plan_run(p, pool, NULL, &e)) {
        out = malloc((size_t)*n * sizeof *out);
        memcpy(out, sm_plan_data(p, y), (size_t)*n * sizeof *out);
        *steps = sm_plan_steps(p);
    }
    sm_plan_free(p);
    sm_pool_free(pool);
    sm_graph_free(t.g);
    for (int i = 0; i < t.count; i++)
        free(t.values[i]);
    return out;
}

/* joined: steps that vanish on vector backends at least. */
static void compare(const char *name, record *r, int joined)
{
    const sm_backend *be[4];
    int n = sm_cpu_backends(be);
    for (int b = r == tall_gate; b < n; b++) { /* the scalar backend, which is slow, packs nothing */
        int apart = 0, together = 0;
        int64_t len;
        float *want = result(r, be[b], true, 1, SM_PACKED_USUAL, &apart, &len);
        for (int i = 0; i < 4; i++) {
            float *got = result(r, be[b], false, 1 + i, i % 2 ? 0 : SM_PACKED_USUAL, &together, &len);
            CHECKF(want && got && !memcmp(want, got, (size_t)len * sizeof *got), "%s: %s, joined, %d threads: other bits",
                   name, be[b]->name, 1 + i);
            free(got);
        }
        CHECKF(!strcmp(be[b]->name, "scalar") || !strcmp(be[b]->name, "neon") || apart - together == joined,
               "%s: %s joins %d, wanted %d", name, be[b]->name, apart - together, joined);
        free(want);
    }
}

TEST(fuse_activations) { compare("activations", acts, 5); }
TEST(fuse_gates)
{
    compare("gate", gate, 4);
    compare("gate, panels of each task", wide_gate, 4);
    compare("gate in parts", tall_gate, 4);
    compare("gate and its input", read_gate, 0);
}
TEST(fuse_sums)
{
    compare("sums", sums, 5);
    compare("long sums", long_sums, 3);
}
TEST(fuse_pictures) { compare("pictures", pictures, 2 + 1 + 1 + 2 + 1); }

/* ---- fixed inputs ------------------------------------------------------------------------------------------------- */

static float held_first(sm_plan *p, const sm_node *y) { return *(const float *)sm_plan_data(p, y); }

/* y = silu(c w) x, c fixed; values by hand: w = 2, silu(1) = 1 / (1 + exp(-1)), silu(2) likewise. */
TEST(fuse_fixed_inputs_are_used_when_they_change)
{
    sm_err e = {0};
    const float two[1] = {2}, half = 0.5f, one = 1, cs[3] = {0.5f, 1, 1};
    const double silu[3] = {0.7310585786300049, 1.7615941559557649, 1.7615941559557649};
    sm_graph *g = sm_graph_new(NULL, &e);
    sm_node *c = sm_input(g, "c", SM_F32, 2, (int64_t[]){1, 1}), *x = sm_input(g, "x", SM_F32, 2, (int64_t[]){1, 1});
    c->fixed = true;
    sm_node *k = sm_silu(sm_linear(c, sm_leaf_param(g, "w", SM_F32, 2, (int64_t[]){1, 1}, two, false), NULL));
    sm_node *y = sm_mul(sm_affine(k, 1, 0), x), *out[2] = {y, k};
    sm_plan *p = sm_plan_new(g, 2, out, sm_cpu_backend(NULL, NULL), &e);
    CHECKF(p != NULL, "%s", e.msg);
    for (int i = 0; p && i < 3; i++) {
        sm_plan_put(p, c, 0, &cs[i], sizeof cs[i]);
        *(float *)sm_plan_data(p, x) = (float)(i + 1);
        CHECK(!sm_plan_run(p, NULL, NULL, &e));
        CHECK(fabs(held_first(p, y) - silu[i] * (i + 1)) < 1e-6 * silu[i] * (i + 1));
        CHECK(fabs(held_first(p, k) - silu[i]) < 1e-6);
    }
    if (p) { /* past sm_plan_put nothing knows of it: what was held is used */
        *(float *)sm_plan_data(p, c) = half;
        CHECK(!sm_plan_run(p, NULL, NULL, &e));
        CHECK(fabs(held_first(p, y) - silu[2] * 3) < 1e-5);
        int stop = 1;
        *(float *)sm_plan_data(p, c) = one;
        sm_plan_put(p, c, 0, &half, sizeof half); /* a change, and a run that is stopped before it is seen */
        CHECK(sm_plan_run(p, NULL, &stop, &e) == SUMI_E_CANCELLED);
        sm_err_clear(&e);
        sm_plan_put(p, c, 0, &half, sizeof half);
        CHECK(!sm_plan_run(p, NULL, NULL, &e));
        CHECK(fabs(held_first(p, y) - silu[0] * 3) < 1e-5);
    }
    sm_plan_free(p);
    sm_graph_free(g);
}

static bool same_bits(const void *a, const void *b, size_t n) { return !memcmp(a, b, n); }

/* Runs the plan of y three times on the same c (fixed) and x, both [16, 64]; out gets the first run's result, up to 1024
 * floats. */
static void held_runs(sm_graph *g, const sm_node *c, const sm_node *x, sm_node *y, float *out)
{
    sm_err e = {0};
    sm_plan *p = sm_plan_new(g, 1, &y, sm_cpu_backend(NULL, NULL), &e);
    size_t bytes = sizeof *out * (size_t)sm_numel(y);
    float cs[1024];
    test_fill(cs, 1024, 3, -1, 1);
    CHECKF(p && bytes <= sizeof cs, "%s", e.msg);
    for (int run = 0; p && run < 3; run++) {
        sm_plan_put(p, c, 0, cs, sizeof cs);
        test_fill(sm_plan_data(p, x), 1024, 4, -1, 1);
        CHECK(!sm_plan_run(p, NULL, NULL, &e));
        if (run == 0)
            memcpy(out, sm_plan_data(p, y), bytes);
        CHECKF(same_bits(out, sm_plan_data(p, y), bytes), "run %d gives other bits", run);
    }
    sm_plan_free(p);
}

/* Results that are held lie where no other step of a later run writes: between steps that reuse memory ... */
TEST(fuse_held_results_survive_runs)
{
    float out[1024];
    sm_graph *g = sm_graph_new(NULL, NULL);
    sm_node *c = sm_input(g, "c", SM_F32, 2, (int64_t[]){16, 64}), *x = sm_input(g, "x", SM_F32, 2, (int64_t[]){16, 64});
    c->fixed = true;
    sm_node *y = x;
    for (int i = 0; i < 6; i++) { /* each held result is read late */
        sm_node *k = sm_unary(SM_OP_SQUARE, sm_affine(c, 1, (float)i));
        y = sm_add(sm_affine(sm_affine(y, 1, 1), 0.5f, 0), sm_reshape(k, 2, (int64_t[]){16, 64}));
    }
    held_runs(g, c, x, y, out);
    sm_graph_free(g);
}

/* ... and after a step whose result, of the same size, nobody reads any more when the held one is first computed. */
TEST(fuse_held_results_survive_earlier_steps)
{
    float out[1024], cs[1024], xs[1024], ones[64];
    sm_graph *g = sm_graph_new(NULL, NULL);
    sm_node *c = sm_input(g, "c", SM_F32, 2, (int64_t[]){16, 64}), *x = sm_input(g, "x", SM_F32, 2, (int64_t[]){16, 64});
    c->fixed = true;
    for (int i = 0; i < 64; i++)
        ones[i] = 1;
    sm_node *sum = sm_linear(sm_affine(x, 2, 0), sm_leaf_param(g, "w", SM_F32, 2, (int64_t[]){1, 64}, ones, false), NULL);
    sm_node *k = sm_unary(SM_OP_SQUARE, sm_affine(c, 1, 3));
    held_runs(g, c, x, sm_mul(k, sum), out);
    test_fill(cs, 1024, 3, -1, 1);
    test_fill(xs, 1024, 4, -1, 1);
    for (int r = 0; r < 16; r++) {
        double s = 0;
        for (int i = 0; i < 64; i++)
            s += 2 * (double)xs[64 * r + i];
        for (int i = 64 * r; i < 64 * (r + 1); i++)
            CHECK(fabs(out[i] - pow(cs[i] + 3.0, 2) * s) < 16 * 2e-5);
    }
    sm_graph_free(g);
}
