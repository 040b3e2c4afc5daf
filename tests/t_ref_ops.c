/* Operations against PyTorch: forward and gradients of every record function of ops.h, on tests/fixtures/ops.safetensors
 * (tools/fixtures/make_ops.py: float64 results and autograd's gradients of sum(out * dy)), on every backend of this CPU, with
 * sources as graph inputs and, forward only, with the later sources as constant weights that the backend may prepare. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cpu/cpu.h"
#include "io/safetensors.h"
#include "ops/ops.h"
#include "test.h"

/* Largest |d| in units of float32's epsilon times the larger of 1 and the reference's RMS. Worst seen with the vector kernels:
 * 7.2, a bias gradient; slack is a factor for sums of hundreds of products and for a mean far above the deviation (23). */
enum { UNITS = 12 };

typedef struct ref_case {
    const char *name;
    sm_node *(*record)(sm_node **x, const double *k);
    double k[6];
    double slack;      /* 0 means 1 */
    bool forward_only; /* linear has no gradient for x where w is f16 or bf16: its product takes f32 only */
} ref_case;

/* ---- record functions: x are the sources, k the case's numbers ---------------------------------------------------- */

#define REC(NAME, EXPR)                                                   \
    static sm_node *NAME(sm_node **x, const double *k)                    \
    {                                                                     \
        (void)k;                                                          \
        return EXPR;                                                      \
    }
#define I(n) ((int)k[n])
#define F(n) ((float)k[n])

REC(linear, sm_linear(x[0], x[1], x[2]))
REC(matmul, sm_matmul(x[0], x[1], I(0), I(1)))
REC(conv, sm_conv2d(x[0], x[1], x[2], &(sm_conv){.stride = I(0), .pad = I(1), .dil = I(2), .groups = I(3),
    .circular = {I(4), I(5)}}))
REC(conv_pads, sm_conv2d(x[0], x[1], x[2], &(sm_conv){.stride = I(0), .use_pad4 = true, .pad4 = {I(1), I(2), I(3), I(4)}}))
REC(conv_transpose, sm_conv2d_dx(x[0], x[1], x[2], &(sm_param){.conv = {.stride = {I(0), I(0)}, .dil = {1, 1}, .groups = I(2),
    .pad = {I(1), I(1), I(1), I(1)}}}, I(3), I(4)))
REC(group_norm, sm_group_norm(x[0], x[1], x[2], I(0), F(1)))
REC(layer_norm, sm_layer_norm(x[0], x[1], x[2], F(0)))
REC(rms_norm, sm_rms_norm(x[0], x[1], F(0)))
REC(attention, sm_attention(x[0], x[1], x[2], x[3], F(0), I(1)))
REC(rope, sm_rope(x[0], x[1], x[2], I(0), I(1)))
REC(softmax, sm_softmax(x[0]))
REC(log_softmax, sm_log_softmax(x[0]))
REC(unary, sm_unary((sm_op_id)I(0), x[0]))
REC(affine, sm_affine(x[0], F(0), F(1)))
REC(add, sm_add(x[0], x[1]))
REC(sub, sm_sub(x[0], x[1]))
REC(mul, sm_mul(x[0], x[1]))
REC(divide, sm_div(x[0], x[1]))
REC(reshape, SM_RESHAPE(x[0], 4, -1, 3))
REC(permute, SM_PERMUTE(x[0], 2, 0, 3, 1))
REC(concat, sm_concat(x[2] ? 3 : 2, x, I(0)))
REC(slice, sm_slice(x[0], I(0), I(1), I(2)))
REC(pad, sm_pad(x[0], I(0), I(1), I(2)))
REC(expand, sm_expand(x[0], 4, (int64_t[]){4, 2, 3, 5}))
REC(gather, sm_gather(x[0], x[1]))
REC(shuffle, sm_pixel_shuffle(x[0], I(0)))
REC(unshuffle, sm_pixel_unshuffle(x[0], I(0)))
REC(nearest, sm_resize_nearest(x[0], I(0), I(1)))
REC(bilinear, sm_resize_bilinear(x[0], I(0), I(1)))
REC(avg_pool, sm_avg_pool(x[0], I(0), I(1), I(2)))
REC(max_pool, sm_max_pool(x[0], I(0), I(1), I(2)))
REC(sum, sm_sum(x[0], I(0)))
REC(sum_to, sm_sum_to(x[0], 3, (int64_t[]){3, 1, 5}))
REC(sum_all, sm_sum_all(x[0]))
REC(mean_all, sm_mean_all(x[0]))
REC(mse, sm_mse(x[0], x[1]))
REC(l1, sm_l1(x[0], x[1]))
REC(huber, sm_huber(x[0], x[1], F(0)))

/* LOOSE has slack before k. */
#define CASE(NAME, REC, ...) {.name = NAME, .record = REC, .k = {__VA_ARGS__}}
#define LOOSE(NAME, REC, SLACK, ...) {.name = NAME, .record = REC, .k = {__VA_ARGS__}, .slack = SLACK}
#define FORWARD(NAME, REC) {.name = NAME, .record = REC, .forward_only = true}

static const ref_case cases[] = {
    CASE("linear/bias", linear, 0), CASE("linear/plain", linear, 0), LOOSE("linear/long", linear, 2, 0),
    CASE("linear/f16", linear), CASE("linear/bf16", linear),
    CASE("matmul/00", matmul, 0, 0), CASE("matmul/01", matmul, 0, 1), CASE("matmul/10", matmul, 1, 0),
    CASE("matmul/11", matmul, 1, 1),
    /* stride, pad, dilation, groups, circular y, x */
    CASE("conv2d/3x3", conv, 1, 1, 1, 1), CASE("conv2d/1x1", conv, 1, 0, 1, 1),
    CASE("conv2d/stride2", conv, 2, 1, 1, 1), CASE("conv2d/trailing", conv_pads, 2, 0, 1, 0, 1),
    CASE("conv2d/dilated", conv, 1, 2, 2, 1), CASE("conv2d/oblong", conv, 1, 2, 1, 1),
    CASE("conv2d/groups", conv, 1, 1, 1, 3), CASE("conv2d/depthwise", conv, 1, 1, 1, 4),
    CASE("conv2d/circular", conv, 1, 1, 1, 1, 1, 1), CASE("conv2d/circular_x", conv, 1, 2, 1, 1, 0, 1),
    LOOSE("conv2d/wide", conv, 2, 1, 1, 1, 1), CASE("conv2d/f16", conv, 1, 1, 1, 1),
    /* stride, pad, groups, height, width */
    CASE("conv_transpose/k4s2", conv_transpose, 2, 1, 1, 6, 8),
    CASE("conv_transpose/k3s2", conv_transpose, 2, 1, 1, 8, 6),
    CASE("conv_transpose/groups", conv_transpose, 1, 1, 2, 4, 3),
    CASE("group_norm/affine", group_norm, 4, 1e-5), CASE("group_norm/plain", group_norm, 2, 1e-6),
    CASE("group_norm/tokens", group_norm, 1, 1e-5), LOOSE("group_norm/offset", group_norm, 3, 2, 1e-5),
    CASE("layer_norm/affine", layer_norm, 1e-5), CASE("layer_norm/plain", layer_norm, 1e-6),
    CASE("rms_norm/weight", rms_norm, 1e-6), CASE("rms_norm/plain", rms_norm, 1e-5),
    /* scale, causal */
    CASE("attention/self", attention, 0, 0), CASE("attention/cross", attention, 0, 0),
    CASE("attention/causal", attention, 0, 1), CASE("attention/causal_tail", attention, 0, 1),
    CASE("attention/scale", attention, 1, 0), CASE("attention/bias", attention, 0, 0),
    CASE("attention/padding", attention, 0, 0), CASE("attention/long", attention, 0, 0),
    CASE("rope/pairs", rope, 1, 0), CASE("rope/halves", rope, 0, 0), CASE("rope/pairs_inverse", rope, 1, 1),
    CASE("softmax", softmax, 0), CASE("softmax/large", softmax, 0),
    CASE("log_softmax", log_softmax, 0), CASE("log_softmax/large", log_softmax, 0),
    CASE("unary/silu", unary, SM_OP_SILU), CASE("unary/gelu_tanh", unary, SM_OP_GELU_TANH),
    CASE("unary/gelu_erf", unary, SM_OP_GELU_ERF), CASE("unary/quick_gelu", unary, SM_OP_QUICK_GELU),
    CASE("unary/sigmoid", unary, SM_OP_SIGMOID), CASE("unary/tanh", unary, SM_OP_TANH),
    CASE("unary/relu", unary, SM_OP_RELU), CASE("unary/abs", unary, SM_OP_ABS),
    CASE("unary/square", unary, SM_OP_SQUARE), CASE("unary/exp", unary, SM_OP_EXP),
    CASE("unary/log", unary, SM_OP_LOG), CASE("unary/sqrt", unary, SM_OP_SQRT), CASE("unary/sin", unary, SM_OP_SIN),
    CASE("unary/cos", unary, SM_OP_COS),
    CASE("affine", affine, 2.5, -0.75),
    CASE("add/same", add, 0), CASE("add/last", add, 0), CASE("add/middle", add, 0), CASE("add/scalar", add, 0),
    CASE("sub/same", sub, 0), CASE("sub/last", sub, 0), CASE("sub/middle", sub, 0), CASE("sub/scalar", sub, 0),
    CASE("mul/same", mul, 0), CASE("mul/last", mul, 0), CASE("mul/middle", mul, 0), CASE("mul/scalar", mul, 0),
    CASE("div/same", divide, 0), CASE("div/last", divide, 0), CASE("div/middle", divide, 0),
    CASE("div/scalar", divide, 0),
    CASE("reshape", reshape, 0),
    CASE("permute", permute, 0),
    CASE("concat/last", concat, -1), CASE("concat/first", concat, 0),
    CASE("slice", slice, 1, 1, 3), CASE("slice/last", slice, -1, 2, 5),
    CASE("pad", pad, 1, 1, 2),
    CASE("expand", expand, 0),
    CASE("gather", gather, 0), CASE("gather/f16", gather, 0),
    CASE("pixel_shuffle", shuffle, 2),
    CASE("pixel_unshuffle", unshuffle, 2),
    CASE("resize_nearest/double", nearest, 8, 10), CASE("resize_nearest/odd", nearest, 7, 3),
    CASE("resize_nearest/shrink", nearest, 2, 4),
    CASE("resize_bilinear/double", bilinear, 8, 10), CASE("resize_bilinear/odd", bilinear, 7, 3),
    CASE("resize_bilinear/shrink", bilinear, 2, 4),
    CASE("avg_pool/2x2", avg_pool, 2, 2, 0), CASE("avg_pool/3x3", avg_pool, 3, 2, 1),
    CASE("avg_pool/overlap", avg_pool, 3, 1, 1),
    CASE("max_pool/2x2", max_pool, 2, 2, 0), CASE("max_pool/3x3", max_pool, 3, 2, 1),
    CASE("max_pool/overlap", max_pool, 3, 1, 1),
    CASE("sum/last", sum, -1), CASE("sum/middle", sum, 1), CASE("sum/long", sum, 0),
    CASE("sum_to", sum_to, 0),
    CASE("sum_all", sum_all, 0),
    CASE("mean_all", mean_all, 0),
    CASE("mse", mse, 0),
    CASE("l1", l1, 0),
    CASE("huber", huber, 0.3),
};

/* ---- running ------------------------------------------------------------------------------------------------------ */

typedef struct ref_run {
    const ref_case *c;
    const sm_st *f;
    sm_mem mem;
    sm_err err;
    sm_graph *g;
    sm_node *x[SM_MAX_SRC], *dy;
    sm_node *out[1 + SM_MAX_SRC];            /* the result, then gradients */
    const sm_st_entry *want[1 + SM_MAX_SRC];
    void *copy[SM_MAX_SRC];                  /* aligned values of constant sources */
    int nout;
} ref_run;

static const sm_st_entry *entry(const ref_run *r, const char *what, int i)
{
    char name[128];
    snprintf(name, sizeof name, i < 0 ? "%s/%s" : "%s/%s%d", r->c->name, what, i);
    return sm_st_find(r->f, name);
}

/* The values of an entry that the file does not align, for a leaf that outlives the plan. */
static sm_node *constant(ref_run *r, const sm_st_entry *s, int i)
{
    r->copy[i] = sm_alloc(&r->mem, SM_MEM_WEIGHT, s->bytes);
    if (!r->copy[i])
        return r->g->poison;
    memcpy(r->copy[i], s->data, s->bytes);
    return sm_leaf_param(r->g, "w", s->type, s->rank, s->dims, r->copy[i], false);
}

static void record(ref_run *r, bool weights)
{
    const sm_st_entry *s;
    for (int i = 0; i < SM_MAX_SRC && (s = entry(r, "in", i)); i++)
        r->x[i] = i && weights ? constant(r, s, i) : sm_input(r->g, "x", s->type, s->rank, s->dims);
    r->out[0] = r->c->record(r->x, r->c->k);
    r->want[0] = entry(r, "out", -1);
    r->nout = 1;
    const sm_st_entry *dy = entry(r, "dy", -1);
    if (weights || r->c->forward_only || !dy)
        return;
    sm_node *wrt[SM_MAX_SRC];
    for (int i = 0; i < SM_MAX_SRC && r->x[i]; i++)
        if ((s = entry(r, "d", i))) {
            wrt[r->nout - 1] = r->x[i];
            r->want[r->nout++] = s;
        }
    r->dy = sm_input(r->g, "dy", SM_F32, dy->rank, dy->dims);
    if (r->nout > 1)
        sm_grad(sm_sum_all(sm_mul(r->out[0], r->dy)), r->nout - 1, wrt, r->out + 1);
}

static void fill(const sm_plan *p, const sm_node *n, const sm_st_entry *s)
{
    void *data = n && s ? sm_plan_data(p, n) : NULL;
    if (data)
        memcpy(data, s->data, s->bytes);
}

static void compare(ref_run *r, const sm_plan *p, const char *how)
{
    for (int i = 0; i < r->nout; i++) {
        const sm_st_entry *s = r->want[i];
        int64_t n = sm_numel(r->out[i]);
        const float *got = sm_plan_data(p, r->out[i]);
        bool fits = s && got && (size_t)n * sizeof(float) == s->bytes && s->rank == r->out[i]->rank &&
                    !memcmp(s->dims, r->out[i]->dims, sizeof *s->dims * (size_t)s->rank);
        CHECKF(fits, "%s, %s: output %d has another shape than the reference", r->c->name, how, i);
        float *want = fits ? sm_alloc(&r->mem, SM_MEM_MISC, s->bytes) : NULL;
        if (!want)
            continue;
        memcpy(want, s->data, s->bytes);
        double rms = test_rms(want, n), d = test_maxdiff(got, want, n);
        double units = d / (0x1p-23 * SM_MAX(1, rms) * (r->c->slack > 0 ? r->c->slack : 1));
        CHECKF(units <= UNITS, "%s, %s: %s %d differs by %.3g (%.1f units), rms %.3g", r->c->name, how,
               i ? "gradient" : "result", i, d, units, rms);
        sm_free(want);
    }
}

static void run_case(const ref_case *c, const sm_st *f, const sm_backend *be, bool weights)
{
    char how[64];
    snprintf(how, sizeof how, "%s%s", be->name, weights ? " with prepared weights" : "");
    ref_run r = {.c = c, .f = f};
    r.g = sm_graph_new(&r.mem, &r.err);
    if (r.g)
        record(&r, weights);
    sm_plan *p = r.g ? sm_plan_new(r.g, r.nout, r.out, be, &r.err) : NULL;
    if (p) {
        for (int i = 0; i < SM_MAX_SRC && r.x[i]; i++)
            if (!r.copy[i])
                fill(p, r.x[i], entry(&r, "in", i));
        fill(p, r.dy, entry(&r, "dy", -1));
        if (sm_plan_run(p, NULL, NULL, &r.err) == SUMI_OK)
            compare(&r, p, how);
    }
    CHECKF(p && !r.err.code, "%s, %s: %s", c->name, how, r.err.msg);
    sm_plan_free(p);
    sm_graph_free(r.g);
    for (int i = 0; i < SM_MAX_SRC; i++)
        sm_free(r.copy[i]);
}

static sm_st *fixture_file(sm_err *e)
{
    sm_st *f = sm_st_open(test_fixture("ops.safetensors"), NULL, e);
    CHECKF(f != NULL, "%s", e->msg);
    return f;
}

TEST(ref_ops_as_pytorch)
{
    sm_err e = {0};
    const sm_backend *be[4];
    sm_st *f = fixture_file(&e);
    int n = sm_cpu_backends(be);
    for (size_t i = 0; f && i < SM_COUNT(cases); i++)
        for (int b = 0; b < n; b++)
            for (int w = 0; w < 2; w++)
                run_case(&cases[i], f, be[b], w);
    sm_st_close(f);
}

/* Every case of the file is checked above, and no case is checked that the file lacks. */
TEST(ref_ops_cover_the_fixture)
{
    sm_err e = {0};
    sm_st *f = fixture_file(&e);
    size_t in_file = 0;
    for (size_t i = 0; f && i < sm_st_count(f); i++) {
        const char *name = sm_st_at(f, i)->name, *end = strrchr(name, '/');
        if (!end || strcmp(end, "/out"))
            continue;
        in_file++;
        bool found = false;
        for (size_t c = 0; c < SM_COUNT(cases); c++)
            found |= strlen(cases[c].name) == (size_t)(end - name) && !strncmp(cases[c].name, name, (size_t)(end - name));
        CHECKF(found, "no record function for %s", name);
    }
    CHECKF(!f || in_file == SM_COUNT(cases), "%zu cases in the file, %zu in the table", in_file, SM_COUNT(cases));
    sm_st_close(f);
}
