/* Attention without the score matrix. Forward (Milakov and Gimelshein 2018, Dao et al. 2022): blocks of queries against
 * tiles of keys, the running maximum and sum of each row corrected from tile to tile. Gradient: blocks of queries against
 * all keys of a head, scores computed again; one task per head adds up dk and dv in the order of queries.
 * Sizes of tiles depend on head sizes alone, so a row's bits do not depend on the rest of the batch.
 * Softmax and rotary embedding are k_softmax.c. */
#include "cpu/cpu.h"
#include "cpu/tile.h"
#include "cpu/vmath.h"

enum { QUERIES = 64, MAX_TASKS = 64 };

/* q [n, tq, h, d], k [n, tk, h, d], v [n, tk, h, dv]; bias strides are 0 where it broadcasts. */
typedef struct attn {
    int64_t n, h, tq, tk, d, dv, tile;
    const float *q, *k, *v, *bias;
    int64_t bias_n, bias_h, bias_q;
    float scale;
    bool causal;
} attn;

static int64_t up16(int64_t x) { return (x + 15) & ~(int64_t)15; }

static attn sizes(const sm_node *node)
{
    const sm_node *q = node->src[0], *k = node->src[1], *v = node->src[2];
    attn a = {.n = q->dims[0], .h = q->dims[2], .tq = q->dims[1], .tk = k->dims[1], .d = q->dims[3], .dv = v->dims[3]};
    a.scale = node->p.attn.scale != 0 ? node->p.attn.scale : 1 / __builtin_sqrtf((float)a.d);
    a.causal = node->p.attn.causal;
    a.tile = SM_MAX(SM_MIN(16384 / SM_MAX(a.d, a.dv), 256) & ~(int64_t)15, 16);
    return a;
}

static attn attn_of(const sm_kcall *c, int bias)
{
    attn a = sizes(c->node);
    a.q = c->src[0].data;
    a.k = c->src[1].data;
    a.v = c->src[2].data;
    if (bias < c->nsrc && c->src[bias].data) {
        const int64_t *d = c->src[bias].dims;
        a.bias = c->src[bias].data;
        a.bias_q = d[2] == 1 ? 0 : a.tk;
        a.bias_h = d[1] == 1 ? 0 : d[2] * a.tk;
        a.bias_n = d[0] == 1 ? 0 : d[1] * d[2] * a.tk;
    }
    return a;
}

/* Keys row i may look at. */
static int64_t visible(const attn *a, int64_t i)
{
    int64_t n = a->causal ? i + a->tk - a->tq + 1 : a->tk;
    return SM_MAX(SM_MIN(n, a->tk), 0);
}

static const float *bias_row(const attn *a, int64_t n, int64_t h, int64_t i)
{
    return a->bias ? a->bias + n * a->bias_n + h * a->bias_h + i * a->bias_q : NULL;
}

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

static void scale_row(float *y, float k, int64_t n)
{
    int64_t i = 0;
    for (; i + SM_VL <= n; i += SM_VL)
        vstore(y + i, vload(y + i) * k);
    if (i < n)
        vstore_part(y + i, vload_part(y + i, (int)(n - i), 0) * k, (int)(n - i));
}

/* ---- forward ---- */

/* A task's memory: K transposed [d][tile], V [tile][dv16], scores [QUERIES][tile]. */
typedef struct scratch { float *kt, *v, *s; int64_t head, tile; } scratch;

static int64_t blocks_of(const attn *a) { return (a->tq + QUERIES - 1) / QUERIES; }
static size_t scratch_floats(const attn *a)
{
    int64_t tile = SM_MIN(a->tile, up16(a->tk));
    return (size_t)(a->d * tile + tile * up16(a->dv) + QUERIES * tile);
}

static int tasks_of(const sm_node *n, int pass)
{
    attn a = sizes(n);
    double work = (double)(a.n * a.h * a.tq) * (double)(a.tk * (a.d + a.dv));
    double t = SM_MIN(work / 262144 + 1, (double)(a.n * a.h * blocks_of(&a)));
    return (int)SM_MIN(t, MAX_TASKS);
}

static size_t work_of(const sm_node *n)
{
    attn a = sizes(n);
    return sizeof(float) * scratch_floats(&a) * (size_t)tasks_of(n, 0);
}

/* Running maximum and sum of each row of the block. */
typedef struct running { float max[QUERIES], sum[QUERIES]; } running;

/* Scores of rows [i0, i0 + rows) against keys [j0, j0 + keys) to weights; what the rows have gathered is corrected. */
static void weigh(const attn *a, int64_t n, int64_t h, int64_t i0, int64_t rows, int64_t j0, int64_t keys, float *s,
                  running *run, float *y)
{
    int64_t ld = up16(keys);
    for (int64_t r = 0; r < rows; r++) {
        const float *bias = bias_row(a, n, h, i0 + r);
        int64_t seen = SM_MAX(SM_MIN(visible(a, i0 + r) - j0, keys), 0);
        float max = scores_max(s + r * ld, bias ? bias + j0 : NULL, a->scale, seen, ld, run->max[r]);
        float sum = scores_exp(s + r * ld, max, ld);
        if (j0) {
            vf k = vexp(vset(run->max[r] - (max == -INFINITY ? 0 : max)));
            scale_row(y + r * a->h * a->dv, k[0], a->dv);
            sum = sfma(run->sum[r], k[0], sum);
        }
        run->max[r] = max;
        run->sum[r] = sum;
    }
}

static void forward_block(const attn *a, int64_t head, int64_t i0, float *out, scratch *m)
{
    int64_t n = head / a->h, h = head % a->h, rows = SM_MIN(a->tq - i0, QUERIES), qs = a->h * a->d, vs = a->h * a->dv;
    tile_mat q = {a->q + (n * a->tq + i0) * qs + h * a->d, qs, 1};
    float *y = out + (n * a->tq + i0) * vs + h * a->dv;
    int64_t last = SM_MAX(visible(a, i0 + rows - 1), 1);
    running run;
    for (int r = 0; r < QUERIES; r++)
        run.max[r] = -INFINITY;
    for (int64_t j0 = 0; j0 < last; j0 += a->tile) {
        int64_t keys = SM_MIN(a->tk - j0, a->tile), ld = up16(keys);
        if (m->head != head || m->tile != j0) {
            tile_pack_transposed(a->k + (n * a->tk + j0) * qs + h * a->d, qs, keys, a->d, m->kt);
            tile_pack(a->v + (n * a->tk + j0) * vs + h * a->dv, vs, keys, a->dv, m->v);
            m->head = head;
            m->tile = j0;
        }
        tile_mm(rows, ld, a->d, q, m->kt, ld, m->s, ld, 0);
        weigh(a, n, h, i0, rows, j0, keys, m->s, &run, y);
        tile_mat p = {m->s, ld, 1};
        tile_mm(rows, a->dv, keys, p, m->v, up16(a->dv), y, vs, j0 > 0);
    }
    for (int64_t r = 0; r < rows; r++)
        scale_row(y + r * vs, run.sum[r] == 0 ? 0 : 1 / run.sum[r], a->dv);
}

static void run_attention(const sm_kcall *c, int task, int tasks)
{
    attn a = attn_of(c, 3);
    int64_t tile = SM_MIN(a.tile, up16(a.tk)), blocks = blocks_of(&a), from, to;
    float *mem = (float *)c->work + scratch_floats(&a) * (size_t)task;
    scratch m = {mem, mem + a.d * tile, mem + a.d * tile + tile * up16(a.dv), -1, -1};
    sm_range(a.n * a.h * blocks, task, tasks, &from, &to);
    for (int64_t i = from; i < to; i++)
        forward_block(&a, i / blocks, i % blocks * QUERIES, c->dst.data, &m);
}

/* ---- gradient ---- */

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
        float *p = m->p + r * ld, max = scores_max(p, bias_row(a, n, h, i0 + r), a->scale, visible(a, i0 + r), ld, -INFINITY);
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
    attn a = sizes(n);
    double t = (double)(a.n * a.h * a.tq) * (double)(a.tk * (a.d + a.dv)) / 131072 + 1;
    t = SM_MIN(t, (double)(a.n * a.h));
    return (int)SM_MIN(t, MAX_TASKS);
}

static size_t grad_work(const sm_node *n)
{
    attn a = sizes(n);
    return sizeof(float) * grad_floats(&a) * (size_t)grad_tasks(n, 0);
}

void SM_K(sm_softmax_kernels)(sm_kernel *k);

void SM_K(sm_cpu_attention)(sm_kernel *k)
{
    k[SM_OP_ATTENTION] = (sm_kernel){.run = run_attention, .tasks = tasks_of, .work = work_of};
    k[SM_OP_ATTENTION_GRAD] = (sm_kernel){.run = run_grad, .tasks = grad_tasks, .work = grad_work};
    SM_K(sm_softmax_kernels)(k);
}
