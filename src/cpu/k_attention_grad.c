/* Attention's gradient (Dao et al. 2022): blocks of queries against all keys of a head, scores computed again; one task per
 * head adds up dk and dv in the order of queries, so bits depend neither on threads nor on the rest of the batch. */
#include "cpu/attention.h"
#include "cpu/tile.h"

enum { QUERIES = 64, MAX_TASKS = 64 };

static int64_t up16(int64_t x) { return at_up(x, 16); }

/* s = scale s + bias over the first `seen` of n scores, -infinity after; returns the largest, at least `max`. */
static float scores_max(float *s, const float *bias, float scale, int64_t seen, int64_t n, float max)
{
    vf top[SM_LV], k = vset(scale);
    for (int l = 0; l < SM_LV; l++)
        top[l] = vset(max);
    for (int64_t i = 0; i < n; i += 16)
        for (int l = 0; l < SM_LV; l++) {
            vf v = vload(s + i + l * SM_VL) * k;
            if (bias)
                v = v + vload16(bias, i, seen, l, 0);
            if (i + 16 > seen) {
                float t[SM_VL];
                vstore(t, v);
                for (int j = sm_part(SM_MAX(seen - i, 0), l); j < SM_VL; j++)
                    t[j] = -INFINITY;
                v = vload(t);
            }
            top[l] = vmax(v, top[l]);
            vstore(s + i + l * SM_VL, v);
        }
    return sm_fold16_max(top);
}

/* s = exp(s - max) over n scores (a multiple of 16); returns the sum. */
static float scores_exp(float *s, float max, int64_t n)
{
    vf sum[SM_LV], m = vset(max == -INFINITY ? 0 : max);
    for (int l = 0; l < SM_LV; l++)
        sum[l] = vset(0);
    for (int64_t i = 0; i < n; i += 16)
        for (int l = 0; l < SM_LV; l++) {
            vf e = vexp(vload(s + i + l * SM_VL) - m);
            sum[l] += e;
            vstore(s + i + l * SM_VL, e);
        }
    return sm_fold16(sum);
}

/* kt [d][tk16], vt [dv][tk16], k [tk][d16], p and dp [QUERIES][tk16], q [QUERIES][d16], dy [QUERIES][dv16] */
typedef struct grad_scratch { float *kt, *vt, *k, *p, *dp, *q, *dy; } grad_scratch;

static size_t grad_floats(const attn *a)
{
    return (size_t)((a->d + a->dv + 2 * QUERIES) * up16(a->tk) + a->tk * up16(a->d) + QUERIES * (up16(a->d) + up16(a->dv)));
}

static grad_scratch grad_memory(const attn *a, float *at)
{
    int64_t ld = up16(a->tk);
    grad_scratch m = {.kt = at};
    m.vt = m.kt + a->d * ld;
    m.p = m.vt + a->dv * ld;
    m.dp = m.p + QUERIES * ld;
    m.k = m.dp + QUERIES * ld;
    m.q = m.k + a->tk * up16(a->d);
    m.dy = m.q + QUERIES * up16(a->d);
    return m;
}

/* Weights in p and dP in dp become P and dS = P (dP - sum P dP) scale. */
static void score_gradient(float *p, float *dp, float sum, float scale, int64_t n)
{
    vf inv = vset(sum == 0 ? 0 : 1 / sum), acc[SM_LV];
    for (int l = 0; l < SM_LV; l++)
        acc[l] = vset(0);
    for (int64_t i = 0; i < n; i += 16)
        for (int l = 0; l < SM_LV; l++) {
            float *at = p + i + l * SM_VL;
            vf v = vload(at) * inv;
            vstore(at, v);
            acc[l] = vfma(v, vload(dp + i + l * SM_VL), acc[l]);
        }
    vf delta = vset(sm_fold16(acc));
    for (int64_t i = 0; i < n; i += SM_VL)
        vstore(dp + i, vload(p + i) * (vload(dp + i) - delta) * scale);
}

static void grad_block(const attn *a, const float *dy, int64_t n, int64_t h, int64_t i0, float *const out[3], const grad_scratch *m)
{
    int64_t rows = SM_MIN(a->tq - i0, QUERIES), ld = up16(a->tk), qs = a->h * a->d, vs = a->h * a->dv;
    tile_mat q = {a->q + (n * a->tq + i0) * qs + h * a->d, qs, 1}, g = {dy + (n * a->tq + i0) * vs + h * a->dv, vs, 1};
    tile_mm(rows, ld, a->d, q, m->kt, ld, m->p, ld, 0);
    tile_mm(rows, ld, a->dv, g, m->vt, ld, m->dp, ld, 0);
    for (int64_t r = 0; r < rows; r++) {
        float *p = m->p + r * ld, max = scores_max(p, attn_bias(a, n, h, i0 + r), a->scale, attn_visible(a, i0 + r), ld, -INFINITY);
        score_gradient(p, m->dp + r * ld, scores_exp(p, max, ld), a->scale, ld);
    }
    tile_pack(q.p, qs, rows, a->d, m->q);
    tile_pack(g.p, vs, rows, a->dv, m->dy);
    tile_mat ds = {m->dp, ld, 1}, ds_t = {m->dp, 1, ld}, p_t = {m->p, 1, ld};
    int64_t k0 = n * a->tk * qs + h * a->d, v0 = n * a->tk * vs + h * a->dv;
    tile_mm(rows, a->d, a->tk, ds, m->k, up16(a->d), out[0] + (n * a->tq + i0) * qs + h * a->d, qs, 0);
    tile_mm(a->tk, a->d, rows, ds_t, m->q, up16(a->d), out[1] + k0, qs, i0 > 0);
    tile_mm(a->tk, a->dv, rows, p_t, m->dy, up16(a->dv), out[2] + v0, vs, i0 > 0);
}

static void run_grad(const sm_kcall *c, int task, int tasks)
{
    attn a = attn_of(c, 4);
    int64_t qs = a.h * a.d, vs = a.h * a.dv, from, to;
    grad_scratch m = grad_memory(&a, (float *)c->work + grad_floats(&a) * (size_t)task);
    float *dq = c->dst.data, *dk = dq + a.n * a.tq * qs, *const out[3] = {dq, dk, dk + a.n * a.tk * qs};
    sm_range(a.n * a.h, task, tasks, &from, &to);
    for (int64_t i = from; i < to; i++) {
        int64_t n = i / a.h, h = i % a.h;
        const float *k = a.k + n * a.tk * qs + h * a.d;
        tile_pack_transposed(k, qs, a.tk, a.d, m.kt);
        tile_pack(k, qs, a.tk, a.d, m.k);
        tile_pack_transposed(a.v + n * a.tk * vs + h * a.dv, vs, a.tk, a.dv, m.vt);
        for (int64_t i0 = 0; i0 < a.tq; i0 += QUERIES)
            grad_block(&a, c->src[3].data, n, h, i0, out, &m);
    }
}

static int grad_tasks(const sm_node *n, int pass)
{
    attn a = attn_sizes(n);
    double t = (double)(a.n * a.h * a.tq) * (double)(a.tk * (a.d + a.dv)) / 131072 + 1;
    t = SM_MIN(t, (double)(a.n * a.h));
    return (int)SM_MIN(t, MAX_TASKS);
}

static size_t grad_work(const sm_node *n)
{
    attn a = attn_sizes(n);
    return sizeof(float) * grad_floats(&a) * (size_t)grad_tasks(n, 0);
}

void SM_K(sm_attention_grad_kernels)(sm_kernel *k);

void SM_K(sm_attention_grad_kernels)(sm_kernel *k)
{
    k[SM_OP_ATTENTION_GRAD] = (sm_kernel){.run = run_grad, .tasks = grad_tasks, .work = grad_work};
}
