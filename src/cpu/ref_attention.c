/* Scalar reference of attention and its gradient, rotary embedding, softmax. Scores are recomputed where they are needed,
 * so a row of attention needs no memory: three sweeps over the keys for the forward op. */
#include "cpu/ref.h"

#include <math.h>
#include <string.h>

/* Sizes and sources of one attention call. bias is the source's index. */
typedef struct attn {
    int64_t n, h, tq, tk, d, dv;
    const float *q, *k, *v;
    const sm_tensor *bias;
    double scale;
    int causal;
} attn;

static attn attn_of(const sm_kcall *c, int bias)
{
    const sm_tensor *q = &c->src[0], *k = &c->src[1], *v = &c->src[2];
    attn a = {.n = q->dims[0], .h = q->dims[2], .tq = q->dims[1], .tk = k->dims[1], .d = q->dims[3], .dv = v->dims[3]};
    a.q = q->data;
    a.k = k->data;
    a.v = v->data;
    a.bias = bias < c->nsrc && c->src[bias].data ? &c->src[bias] : NULL;
    a.scale = c->node->p.attn.scale != 0 ? c->node->p.attn.scale : 1 / sqrt((double)a.d);
    a.causal = c->node->p.attn.causal;
    return a;
}

/* Offset of token t of head h of sample n, width w. */
static int64_t row(const attn *a, int64_t n, int64_t t, int64_t h, int64_t tokens, int64_t w)
{
    return ((n * tokens + t) * a->h + h) * w;
}

static double score(const attn *a, int64_t n, int64_t h, int64_t i, int64_t j)
{
    if (a->causal && j > i + a->tk - a->tq)
        return -INFINITY;
    const float *q = a->q + row(a, n, i, h, a->tq, a->d), *k = a->k + row(a, n, j, h, a->tk, a->d);
    double s = 0;
    for (int64_t d = 0; d < a->d; d++)
        s += (double)q[d] * k[d];
    int64_t idx[4] = {n, h, i, j};
    return s * a->scale + (a->bias ? ((const float *)a->bias->data)[ref_broadcast(a->bias, 4, idx)] : 0);
}

/* Largest score and sum of exponentials of row i; all keys masked gives sum 0, a NaN among them NaN. */
static void row_stats(const attn *a, int64_t n, int64_t h, int64_t i, double *max, double *sum)
{
    double m = -INFINITY, s = 0;
    for (int64_t j = 0; j < a->tk; j++)
        m = m >= score(a, n, h, i, j) || isnan(m) ? m : score(a, n, h, i, j);
    for (int64_t j = 0; j < a->tk && m != -INFINITY; j++)
        s += exp(score(a, n, h, i, j) - m);
    *max = m;
    *sum = s;
}

static double prob(const attn *a, int64_t n, int64_t h, int64_t i, int64_t j, double max, double sum)
{
    return sum == 0 ? 0 : exp(score(a, n, h, i, j) - max) / sum;
}

/* One output element at a time would repeat the scores; blocks of DB columns share them. */
enum { DB = 64 };

static void run_attention(const sm_kcall *c, int task, int tasks)
{
    attn a = attn_of(c, 3);
    int64_t from, to;
    sm_range(a.n * a.h * a.tq, task, tasks, &from, &to);
    for (int64_t r = from; r < to; r++) {
        int64_t i = r % a.tq, h = r / a.tq % a.h, n = r / a.tq / a.h;
        float *y = (float *)c->dst.data + row(&a, n, i, h, a.tq, a.dv);
        double max, sum;
        row_stats(&a, n, h, i, &max, &sum);
        for (int64_t d0 = 0; d0 < a.dv; d0 += DB) {
            double acc[DB] = {0};
            int64_t w = SM_MIN(a.dv - d0, DB);
            for (int64_t j = 0; j < a.tk; j++) {
                double p = prob(&a, n, h, i, j, max, sum);
                const float *v = a.v + row(&a, n, j, h, a.tk, a.dv) + d0;
                for (int64_t d = 0; d < w; d++)
                    acc[d] += p * v[d];
            }
            for (int64_t d = 0; d < w; d++)
                y[d0 + d] = (float)acc[d];
        }
    }
}

/* dP_ij = dy_i . v_j, delta_i = sum_j P_ij dP_ij, dS = P (dP - delta) scale, dq = dS k, dk = dS^T q, dv = P^T dy.
 * acc holds dq, dk, dv of one (n, h) in double. */
static void grad_head(const attn *a, const float *dy, int64_t n, int64_t h, double *dq, double *dk, double *dv)
{
    for (int64_t i = 0; i < a->tq; i++) {
        const float *g = dy + row(a, n, i, h, a->tq, a->dv), *q = a->q + row(a, n, i, h, a->tq, a->d);
        double max, sum, delta = 0;
        row_stats(a, n, h, i, &max, &sum);
        for (int pass = 0; pass < 2; pass++)
            for (int64_t j = 0; j < a->tk; j++) {
                double p = prob(a, n, h, i, j, max, sum), dp = 0;
                const float *v = a->v + row(a, n, j, h, a->tk, a->dv), *k = a->k + row(a, n, j, h, a->tk, a->d);
                for (int64_t d = 0; d < a->dv; d++)
                    dp += (double)g[d] * v[d];
                if (!pass) {
                    delta += p * dp;
                    continue;
                }
                double ds = p * (dp - delta) * a->scale;
                for (int64_t d = 0; d < a->dv; d++)
                    dv[j * a->dv + d] += p * g[d];
                for (int64_t d = 0; d < a->d; d++) {
                    dq[i * a->d + d] += ds * k[d];
                    dk[j * a->d + d] += ds * q[d];
                }
            }
    }
}

static size_t head_doubles(int64_t tq, int64_t tk, int64_t d, int64_t dv) { return (size_t)(tq * d + tk * (d + dv)); }

static void run_grad(const sm_kcall *c, int task, int tasks)
{
    attn a = attn_of(c, 4);
    float *out[3] = {c->dst.data, (float *)c->dst.data + ref_numel(&c->src[0])};
    out[2] = out[1] + ref_numel(&c->src[1]);
    const int64_t tokens[3] = {a.tq, a.tk, a.tk}, width[3] = {a.d, a.d, a.dv};
    size_t len = head_doubles(a.tq, a.tk, a.d, a.dv);
    double *acc = (double *)c->work + len * (size_t)task;
    int64_t from, to;
    sm_range(a.n * a.h, task, tasks, &from, &to);
    for (int64_t r = from; r < to; r++) {
        int64_t n = r / a.h, h = r % a.h;
        memset(acc, 0, len * sizeof *acc);
        double *dk = acc + a.tq * a.d, *s = acc;
        grad_head(&a, ref_f32(c, 3), n, h, acc, dk, dk + a.tk * a.d);
        for (int k = 0; k < 3; k++)
            for (int64_t t = 0; t < tokens[k]; t++)
                for (int64_t d = 0; d < width[k]; d++)
                    out[k][row(&a, n, t, h, tokens[k], width[k]) + d] = (float)*s++;
    }
}

static int grad_tasks(const sm_node *n, int pass) { return (int)SM_MIN(n->src[0]->dims[0] * n->src[0]->dims[2], 16); }

static size_t grad_work(const sm_node *n)
{
    const sm_node *q = n->src[0], *v = n->src[2];
    return sizeof(double) * (size_t)grad_tasks(n, 0) * head_doubles(q->dims[1], v->dims[1], q->dims[3], v->dims[3]);
}

static void run_rope(const sm_kcall *c, int task, int tasks)
{
    const sm_tensor *x = &c->src[0];
    const float *in = x->data, *cs = ref_f32(c, 1), *sn = ref_f32(c, 2);
    float *y = c->dst.data;
    int64_t d = x->dims[3], half = d / 2, from, to;
    bool inter = c->node->p.rope.interleaved;
    sm_range(x->dims[0] * x->dims[1] * x->dims[2], task, tasks, &from, &to);
    for (int64_t r = from; r < to; r++) {
        int64_t t = r / x->dims[2] % x->dims[1];
        for (int64_t i = 0; i < half; i++) {
            int64_t ia = r * d + (inter ? 2 * i : i), ib = inter ? ia + 1 : ia + half;
            double co = cs[t * half + i], si = sn[t * half + i], a = in[ia], b = in[ib];
            if (c->node->p.rope.inverse)
                si = -si;
            y[ia] = (float)(a * co - b * si);
            y[ib] = (float)(a * si + b * co);
        }
    }
}

static void run_softmax(const sm_kcall *c, int task, int tasks)
{
    int64_t w = ref_last(&c->dst), from, to;
    sm_range(ref_numel(&c->dst) / w, task, tasks, &from, &to);
    for (int64_t r = from; r < to; r++) {
        const float *x = ref_f32(c, 0) + r * w;
        float *y = (float *)c->dst.data + r * w;
        double max = -INFINITY, sum = 0;
        for (int64_t i = 0; i < w; i++)
            max = fmax(max, x[i]);
        for (int64_t i = 0; i < w; i++)
            sum += exp(x[i] - max);
        for (int64_t i = 0; i < w; i++)
            y[i] = (float)(c->node->op == SM_OP_SOFTMAX ? exp(x[i] - max) / sum : x[i] - max - log(sum));
    }
}

static void run_softmax_dx(const sm_kcall *c, int task, int tasks)
{
    int64_t w = ref_last(&c->dst), from, to;
    sm_range(ref_numel(&c->dst) / w, task, tasks, &from, &to);
    for (int64_t r = from; r < to; r++) {
        const float *y = ref_f32(c, 0) + r * w, *dy = ref_f32(c, 1) + r * w;
        float *dx = (float *)c->dst.data + r * w;
        double dot = 0;
        for (int64_t i = 0; i < w; i++)
            dot += (double)y[i] * dy[i];
        for (int64_t i = 0; i < w; i++)
            dx[i] = (float)(y[i] * (dy[i] - dot));
    }
}

void sm_cpu_attention_scalar(sm_kernel *k)
{
    k[SM_OP_ATTENTION] = (sm_kernel){.run = run_attention};
    k[SM_OP_ATTENTION_GRAD] = (sm_kernel){.run = run_grad, .tasks = grad_tasks, .work = grad_work};
    k[SM_OP_ROPE] = (sm_kernel){.run = run_rope};
    k[SM_OP_SOFTMAX] = (sm_kernel){.run = run_softmax};
    k[SM_OP_LOG_SOFTMAX] = (sm_kernel){.run = run_softmax};
    k[SM_OP_SOFTMAX_DX] = (sm_kernel){.run = run_softmax_dx};
}
