/* The graph room: sticky errors, shapes, gradients of composites against derivations by hand, planning (views, in-place,
 * liveness, dead ops), allocations that fail. */
#include <math.h>
#include <string.h>

#include "cpu/cpu.h"
#include "ops/ops.h"
#include "test.h"

static const sm_backend *backend(void) { return sm_cpu_backend(NULL, NULL); }

static sm_node *input(sm_graph *g, const char *name, int64_t a, int64_t b)
{
    return sm_input(g, name, SM_F32, 2, (int64_t[]){a, b});
}

TEST(graph_first_failure_sticks)
{
    sm_err e = {0};
    sm_graph *g = sm_graph_new(NULL, &e);
    strcpy(g->scope, "down_blocks.1.attentions.0");
    sm_node *a = input(g, "a", 2, 3), *b = input(g, "b", 4, 5);
    sm_node *bad = sm_matmul(a, b, false, false);
    CHECK(sm_poisoned(bad));
    CHECK(sm_poisoned(sm_add(bad, a)));
    CHECK(sm_poisoned(sm_reshape(a, 1, (int64_t[]){7})));
    CHECKF(strstr(g->err.msg, "down_blocks.1.attentions.0: matmul") && strstr(g->err.msg, "[2, 3]") &&
           strstr(g->err.msg, "[4, 5]"), "message: %s", g->err.msg);
    sm_node *out[1] = {bad};
    CHECK(!sm_plan_new(g, 1, out, backend(), &e));
    CHECK(e.code == SUMI_E_MODEL && !strcmp(e.msg, g->err.msg));
    sm_graph_free(g);
}

TEST(graph_shape_errors_name_shapes)
{
    static const struct { int which; const char *want; } cases[] = {{0, "broadcast"}, {1, "groups"}, {2, "kernel"}, {3, "axis"},
                                                                    {4, "fit"}};
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        sm_graph *g = sm_graph_new(NULL, NULL);
        sm_node *x = sm_input(g, "x", SM_F32, 4, (int64_t[]){1, 3, 3, 6}),
            *w = sm_input(g, "w", SM_F32, 4, (int64_t[]){8, 6, 5, 5});
        switch (cases[i].which) {
        case 0: sm_add(x, sm_input(g, "y", SM_F32, 1, (int64_t[]){5})); break;
        case 1: sm_group_norm(x, NULL, NULL, 4, 1e-5f); break;
        case 2: sm_conv2d(x, w, NULL, NULL); break;
        case 3: sm_sum(x, 4); break;
        case 4: sm_linear(x, sm_input(g, "v", SM_F32, 2, (int64_t[]){2, 5}), NULL); break;
        }
        CHECKF(strstr(g->err.msg, cases[i].want), "case %zu: %s", i, g->err.msg);
        sm_graph_free(g);
    }
}

/* loss = mean((x w^T + b - y)^2): dw = 2/(MN) (xw^T+b-y)^T x, db = column sums; by hand for 2x2. */
TEST(graph_gradient_of_least_squares)
{
    static float w[4] = {0.5f, -1, 2, 0.25f}, b[2] = {0.1f, -0.2f};
    sm_err e = {0};
    sm_graph *g = sm_graph_new(NULL, &e);
    sm_node *x = input(g, "x", 2, 2), *y = input(g, "y", 2, 2);
    sm_node *W = sm_leaf_param(g, "w", SM_F32, 2, (int64_t[]){2, 2}, w, true),
        *B = sm_leaf_param(g, "b", SM_F32, 1, (int64_t[]){2}, b, true);
    sm_node *loss = sm_mse(sm_linear(x, W, B), y), *wrt[2] = {W, B}, *out[3];
    CHECK(sm_grad(loss, 2, wrt, out));
    out[2] = loss;
    sm_plan *p = sm_plan_new(g, 3, out, backend(), &e);
    CHECKF(p != NULL, "%s", e.msg);
    if (!p)
        return sm_graph_free(g);
    const float xs[4] = {1, 2, -3, 0.5f}, ys[4] = {0, 1, 2, -1};
    memcpy(sm_plan_data(p, x), xs, sizeof xs);
    memcpy(sm_plan_data(p, y), ys, sizeof ys);
    CHECK(sm_plan_run(p, NULL, NULL, &e) == SUMI_OK);
    double r[4], want_loss = 0;
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            r[i * 2 + j] = xs[i * 2] * w[j * 2] + xs[i * 2 + 1] * w[j * 2 + 1] + b[j] - ys[i * 2 + j];
            want_loss += r[i * 2 + j] * r[i * 2 + j] / 4;
        }
    const float *dw = sm_plan_data(p, out[0]), *db = sm_plan_data(p, out[1]);
    CHECK(fabs(*(float *)sm_plan_data(p, loss) - want_loss) < 1e-6);
    for (int j = 0; j < 2; j++) {
        CHECK(fabs(db[j] - (r[j] + r[2 + j]) / 2) < 1e-6);
        for (int k = 0; k < 2; k++)
            CHECK(fabs(dw[j * 2 + k] - (r[j] * xs[k] + r[2 + j] * xs[2 + k]) / 2) < 1e-5);
    }
    sm_plan_free(p);
    sm_graph_free(g);
}

/* x used three times: gradients of all uses add up. d/dx sum(x*x + 3x) = 2x + 3 */
TEST(graph_gradients_of_several_uses_add)
{
    static float v[3] = {1, -2, 0.5f};
    sm_err e = {0};
    sm_graph *g = sm_graph_new(NULL, &e);
    sm_node *x = sm_leaf_param(g, "x", SM_F32, 1, (int64_t[]){3}, v, true);
    sm_node *loss = sm_sum_all(sm_add(sm_mul(x, x), sm_affine(x, 3, 0))), *d;
    CHECK(sm_grad(loss, 1, &x, &d));
    sm_plan *p = sm_plan_new(g, 1, &d, backend(), &e);
    CHECK(p && !sm_plan_run(p, NULL, NULL, &e));
    for (int i = 0; p && i < 3; i++)
        CHECK(((float *)sm_plan_data(p, d))[i] == 2 * v[i] + 3);
    sm_plan_free(p);
    sm_graph_free(g);
}

/* Views, in-place chains and reuse of storage give what separate buffers would. Run twice: inputs must survive a run. */
TEST(graph_plan_reuses_memory_without_harm)
{
    sm_err e = {0};
    sm_graph *g = sm_graph_new(NULL, &e);
    sm_node *x = input(g, "x", 8, 64), *a = sm_affine(x, 2, 1);
    sm_node *top = sm_slice(a, 0, 0, 1), *keep = sm_reshape(a, 1, (int64_t[]){512});
    sm_node *b = sm_add(a, top); /* reads a row of what in-place work would overwrite */
    for (int i = 0; i < 20; i++)
        b = sm_affine(b, 1, 1);
    sm_node *outs[2] = {b, keep}, *unused = sm_unary(SM_OP_EXP, x);
    sm_plan *p = sm_plan_new(g, 2, outs, backend(), &e);
    CHECKF(p != NULL, "%s", e.msg);
    for (int run = 0; p && run < 2; run++) {
        float *xs = sm_plan_data(p, x);
        if (run == 0)
            test_fill(xs, 512, 7, -1, 1);
        CHECK(!sm_plan_run(p, NULL, NULL, &e));
        const float *bs = sm_plan_data(p, b), *ks = sm_plan_data(p, keep);
        for (int i = 0; i < 512; i++) {
            float want = 2 * xs[i] + 1, head = 2 * xs[i % 64] + 1, sum = want + head;
            for (int k = 0; k < 20; k++)
                sum += 1;
            CHECK(ks[i] == want);
            CHECK(bs[i] == sum);
        }
    }
    CHECK(p && !sm_plan_data(p, unused));
    CHECKF(p && sm_plan_steps(p) == 22, "steps %d", p ? sm_plan_steps(p) : 0);
    CHECKF(p && sm_plan_activation_bytes(p) <= 3 * 2048 + 64, "arena %zu bytes", p ? sm_plan_activation_bytes(p) : 0);
    sm_plan_free(p);
    sm_graph_free(g);
}

TEST(graph_every_allocation_may_fail)
{
    int64_t n = 1;
    for (bool done = false; !done && n < 400; n++) {
        sm_mem mem = {.fail_at = n};
        sm_err e = {0};
        sm_graph *g = sm_graph_new(&mem, &e);
        sm_plan *p = NULL;
        if (g) {
            sm_node *x = input(g, "x", 4, 8), *w = sm_const(g, SM_F32, 2, (int64_t[]){8, 8}, (float[64]){1});
            sm_node *loss = sm_mean_all(sm_silu(sm_linear(x, w, NULL))), *d;
            sm_grad(loss, 1, &x, &d);
            p = sm_plan_new(g, 1, &d, backend(), &e);
        }
        done = p && !sm_plan_run(p, NULL, NULL, &e) && mem.fail_at > 0;
        CHECKF(p || e.code == SUMI_E_MEMORY, "allocation %lld: code %d, %s", (long long)n, e.code, e.msg);
        sm_plan_free(p);
        sm_graph_free(g);
        CHECKF(mem.total == 0, "allocation %lld failing leaks %zu bytes", (long long)n, mem.total);
    }
    CHECK(n > 5 && n < 400);
}

TEST(graph_dims_of_any_size_fit_their_text)
{
    sm_node n = {.rank = 6, .dims = {INT64_MAX, INT64_MAX, INT64_MAX, 100000000000, 1, INT64_MAX}};
    struct { char text[96], guard[32]; } b;
    memset(&b, 7, sizeof b);
    CHECK(sm_dims_str(&n, b.text) == b.text && memchr(b.text, 0, sizeof b.text) && strlen(b.text) > 60);
    for (size_t i = 0; i < sizeof b.guard; i++)
        CHECK(b.guard[i] == 7);
    n = (sm_node){.rank = 0};
    CHECK(!strcmp(sm_dims_str(&n, b.text), "[]"));
}

/* The sum of two norms, or of two attentions, that differ in a parameter alone: both get the same dy right after each
 * other. The gradient of the sum is the sum of the gradients taken apart. */
static void two_alike(int which, const float *xs, float *dw)
{
    static float w[8] = {1, 2, -1, 0.5f, 0.25f, 3, 1, -2};
    sm_err e = {0};
    sm_graph *g = sm_graph_new(NULL, &e);
    sm_node *x = sm_input(g, "x", SM_F32, 4, (int64_t[]){1, 3, 2, 8}), *y[2], *d;
    sm_node *W = sm_leaf_param(g, "w", SM_F32, 1, (int64_t[]){8}, w, true);
    for (int k = 0; k < 2; k++)
        y[k] = which < 3 ? sm_group_norm(x, W, NULL, k ? 4 : 2, 1e-5f) : sm_attention(x, sm_mul(x, W), x, NULL, 0, false);
    if (which >= 3)
        y[1] = sm_attention(x, y[0]->src[1], x, NULL, 0, true);
    sm_node *sum = which % 3 == 0 ? sm_add(y[0], y[1]) : y[which % 3 - 1];
    CHECK(sm_grad(sm_sum_all(sm_mul(sum, x)), 1, &W, &d));
    sm_plan *p = sm_plan_new(g, 1, &d, backend(), &e);
    if (p) {
        memcpy(sm_plan_data(p, x), xs, sizeof *xs * 48);
        CHECK(!sm_plan_run(p, NULL, NULL, &e));
        memcpy(dw, sm_plan_data(p, d), sizeof w);
    }
    CHECKF(p != NULL, "%s", e.msg);
    sm_plan_free(p);
    sm_graph_free(g);
}

TEST(graph_gradients_of_look_alikes_are_kept_apart)
{
    float x[48], both[8] = {0}, one[8] = {0}, two[8] = {0};
    test_fill(x, 48, 3, -2, 2);
    for (int which = 0; which < 6; which += 3) {
        two_alike(which, x, both);
        two_alike(which + 1, x, one);
        two_alike(which + 2, x, two);
        for (int i = 0; i < 8; i++)
            CHECKF(fabsf(both[i] - one[i] - two[i]) < 1e-4f, "%s, %d: %g, apart %g + %g", which ? "attention" : "group norm", i,
                   both[i], one[i], two[i]);
    }
}

TEST(graph_cancel_stops)
{
    sm_err e = {0};
    int cancel = 1;
    sm_graph *g = sm_graph_new(NULL, &e);
    sm_node *y = sm_silu(input(g, "x", 2, 2));
    sm_plan *p = sm_plan_new(g, 1, &y, backend(), &e);
    CHECK(p && sm_plan_run(p, NULL, &cancel, &e) == SUMI_E_CANCELLED);
    sm_plan_free(p);
    sm_graph_free(g);
}
