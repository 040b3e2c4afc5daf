/* Softmax and log-softmax over the last dimension with the gradient of the first, and the rotary embedding. Sums and
 * maxima run in sixteen lanes. All legal in place: a row's statistics are read before the row is written. */
#include "cpu/cpu.h"
#include "cpu/vmath.h"

/* Largest value and sum of exp(x - max). */
static void row_stats(const float *x, int64_t n, float *max, float *sum)
{
    vf m[SM_LV], s[SM_LV];
    for (int l = 0; l < SM_LV; l++) {
        m[l] = vset(-INFINITY);
        s[l] = vset(0);
    }
    for (int64_t i = 0; i < n; i += 16)
        for (int l = 0; l < SM_LV; l++)
            m[l] = vmax(vload16(x, i, n, l, -INFINITY), m[l]);
    *max = sm_fold16_max(m);
    for (int64_t i = 0; i < n; i += 16)
        for (int l = 0; l < SM_LV; l++)
            s[l] += vexp(vload16(x, i, n, l, -INFINITY) - *max);
    *sum = sm_fold16(s);
}

static void run_softmax(const sm_kcall *c, int task, int tasks)
{
    int64_t n = c->dst.dims[c->dst.rank - 1], from, to;
    sm_range(sm_numel(c->node) / n, task, tasks, &from, &to);
    for (int64_t r = from; r < to; r++) {
        const float *x = (const float *)c->src[0].data + r * n;
        float *y = (float *)c->dst.data + r * n, max, sum;
        row_stats(x, n, &max, &sum);
        float inv = 1 / sum;
        for (int64_t i = 0; i < n; i += 16)
            for (int l = 0; l < SM_LV; l++)
                vstore16(y, i, n, l, vexp(vload16(x, i, n, l, 0) - max) * inv);
    }
}

static void run_log_softmax(const sm_kcall *c, int task, int tasks)
{
    int64_t n = c->dst.dims[c->dst.rank - 1], from, to;
    sm_range(sm_numel(c->node) / n, task, tasks, &from, &to);
    for (int64_t r = from; r < to; r++) {
        const float *x = (const float *)c->src[0].data + r * n;
        float *y = (float *)c->dst.data + r * n, max, sum;
        row_stats(x, n, &max, &sum);
        vf log_sum = vlog(vset(sum));
        for (int64_t i = 0; i < n; i += 16)
            for (int l = 0; l < SM_LV; l++)
                vstore16(y, i, n, l, vload16(x, i, n, l, 0) - max - log_sum);
    }
}

/* (y, dy): dx = y (dy - sum y dy) */
static void run_softmax_dx(const sm_kcall *c, int task, int tasks)
{
    int64_t n = c->dst.dims[c->dst.rank - 1], from, to;
    sm_range(sm_numel(c->node) / n, task, tasks, &from, &to);
    for (int64_t r = from; r < to; r++) {
        const float *y = (const float *)c->src[0].data + r * n, *dy = (const float *)c->src[1].data + r * n;
        float *dx = (float *)c->dst.data + r * n;
        vf acc[SM_LV];
        for (int l = 0; l < SM_LV; l++)
            acc[l] = vset(0);
        for (int64_t i = 0; i < n; i += 16)
            for (int l = 0; l < SM_LV; l++)
                acc[l] = vfma(vload16(y, i, n, l, 0), vload16(dy, i, n, l, 0), acc[l]);
        float dot = sm_fold16(acc);
        for (int64_t i = 0; i < n; i += 16)
            for (int l = 0; l < SM_LV; l++)
                vstore16(dx, i, n, l, vload16(y, i, n, l, 0) * (vload16(dy, i, n, l, 0) - dot));
    }
}

/* One row [D] with halves (i, i + half). sign is -1 for the inverse. */
static void rope_halves(const float *x, const float *co, const float *si, float *y, int64_t half, float sign)
{
    for (int64_t i = 0; i < half; i += SM_VL) {
        int n = (int)SM_MIN(half - i, SM_VL);
        vf a = vload_part(x + i, n, 0), b = vload_part(x + half + i, n, 0);
        vf c = vload_part(co + i, n, 0), s = vload_part(si + i, n, 0) * sign;
        vstore_part(y + i, a * c - b * s, n);
        vstore_part(y + half + i, a * s + b * c, n);
    }
}

static void rope_pairs(const float *x, const float *co, const float *si, float *y, int64_t half, float sign)
{
    for (int64_t i = 0; i < half; i++) {
        float a = x[2 * i], b = x[2 * i + 1], s = si[i] * sign;
        y[2 * i] = a * co[i] - b * s;
        y[2 * i + 1] = a * s + b * co[i];
    }
}

static void run_rope(const sm_kcall *c, int task, int tasks)
{
    const sm_tensor *x = &c->src[0];
    int64_t d = x->dims[3], half = d / 2, from, to;
    float sign = c->node->p.rope.inverse ? -1 : 1;
    sm_range(x->dims[0] * x->dims[1] * x->dims[2], task, tasks, &from, &to);
    for (int64_t r = from; r < to; r++) {
        int64_t t = r / x->dims[2] % x->dims[1];
        const float *in = (const float *)x->data + r * d, *co = (const float *)c->src[1].data + t * half;
        const float *si = (const float *)c->src[2].data + t * half;
        (c->node->p.rope.interleaved ? rope_pairs : rope_halves)(in, co, si, (float *)c->dst.data + r * d, half, sign);
    }
}

void SM_K(sm_softmax_kernels)(sm_kernel *k);

void SM_K(sm_softmax_kernels)(sm_kernel *k)
{
    k[SM_OP_ROPE] = (sm_kernel){.run = run_rope, .inplace = true};
    k[SM_OP_SOFTMAX] = (sm_kernel){.run = run_softmax, .inplace = true};
    k[SM_OP_SOFTMAX_DX] = (sm_kernel){.run = run_softmax_dx, .inplace = true};
    k[SM_OP_LOG_SOFTMAX] = (sm_kernel){.run = run_log_softmax, .inplace = true};
}
