/* Attention's gradient (Dao et al. 2022), queries in lanes as in k_attention.c: blocks of queries against all keys of a head,
 * scores computed again. With q scaled, P the weights and dP = V dY,
 *   dS = P (dP - delta), delta = sum over keys of P dP
 *   dV += P dY, dK += dS q (rows of keys), dQ = scale K dS (lanes)
 * One task per head adds up dk and dv in the order of queries, so bits depend neither on threads nor on the rest of the batch.
 *
 * Floor: a vector of scores takes (3 d + 2 dv) / 2 cycles of two 8-lane multiply-add units for the five products and 7 for
 * weights and dS, so 93% of the peak is the end at d = 40, 96% at 64. Bytes: P and dP of a block, 8 a query and key, written
 * once and read four times, from the second cache up to some 2,000 keys. */
#include "cpu/attention.h"

enum { MAX_TASKS = 64, TILE = 128 };

/* A task's memory. Rows of keys and of heads, where they are outputs, are rounded up to AT_ROWS, columns to SM_VL (dc, dvc);
 * w lanes of queries: q [d][w], dy [dv][w], dq [d][w], their rows q_rows [w][dc], dy_rows [w][dvc]; of all keys k [d], v [dv],
 * panels of k, p and dp [w], dk [dc], dv [dvc]. */
typedef struct memory { float *q, *dy, *dq, *q_rows, *dy_rows, *max, *k, *v, *panels, *p, *dp, *dk, *dv, *bias_t; } memory;

static int64_t lanes_of(const attn *a) { return SM_MIN(at_up(a->tq, SM_VL), AT_VECS * SM_VL); }

static size_t layout(const attn *a, bool bias, float *at, memory *m)
{
    int64_t w = lanes_of(a), keys = at_up(a->tk, AT_ROWS), dr = at_up(a->d, AT_ROWS);
    int64_t dc = at_up(a->d, SM_VL), dvc = at_up(a->dv, SM_VL);
    int64_t sizes[] = {a->d * w,      a->dv * w, dr * w,   w * dc,   w * dvc,   w,          keys * a->d,
                       keys * a->dv, keys * dr, keys * w, keys * w, keys * dc, keys * dvc, bias ? keys * w : 0};
    float **parts[] = {&m->q, &m->dy, &m->dq, &m->q_rows, &m->dy_rows, &m->max, &m->k, &m->v, &m->panels, &m->p,
                       &m->dp, &m->dk, &m->dv, &m->bias_t};
    int64_t sum = 0;
    for (size_t i = 0; i < SM_COUNT(sizes); i++) {
        *parts[i] = at ? at + sum : NULL;
        sum += at_up(sizes[i], 16);
    }
    return (size_t)sum;
}

/* Scores in p and dP in dp, a vector of queries of the block, become P and dS. Sums run in tiles of TILE keys. */
static void score_gradient(const at_part *b, float *p, float *dp, vf max)
{
    const int64_t w = b->nv * SM_VL;
    vf m = vsel((vi)(max == vset(-INFINITY)), vset(0), max), sum = vset(0), delta = vset(0);
    for (int64_t t = 0; t < b->keys; t += TILE) {
        vf s = vset(0), x = vset(0);
        for (int64_t j = t; j < SM_MIN(t + TILE, b->keys); j++) {
            vf e = at_exp2(vload(p + j * w) - m);
            s += e;
            x = vfma(e, vload(dp + j * w), x);
            vstore(p + j * w, e);
        }
        sum += s;
        delta += x;
    }
    vf inv = vsel((vi)(sum == vset(0)), vset(0), 1 / sum);
    delta *= inv;
    for (int64_t j = 0; j < b->keys; j++) {
        vf y = vload(p + j * w) * inv;
        vstore(p + j * w, y);
        vstore(dp + j * w, y * (vload(dp + j * w) - delta));
    }
}

/* Rows of x times k, zeros up to ld. */
static void copy_rows(const float *x, int64_t stride, int64_t rows, int64_t d, float k, float *y, int64_t ld)
{
    for (int64_t r = 0; r < rows; r++, x += stride, y += ld)
        for (int64_t c = 0; c < ld; c += SM_VL)
            vstore(y + c, (c + SM_VL <= d ? vload(x + c) : vload_part(x + c, (int)(d - c), 0)) * k);
}

typedef struct head { const float *q, *k, *v, *dy, *bias; float *dq, *dk, *dv; } head;

static void grad_block(const attn *a, const head *h, int64_t i, int64_t rows, const memory *m)
{
    int64_t qs = a->h * a->d, vs = a->h * a->dv, dc = at_up(a->d, SM_VL), dvc = at_up(a->dv, SM_VL);
    at_part b = {.i = i, .rows = rows, .panel = a->tk, .max = m->max, .bias_t = m->bias_t};
    b.nv = (int)((rows + SM_VL - 1) / SM_VL);
    int64_t w = b.nv * SM_VL;
    /* whole blocks of keys, hidden ones with weight 0, since key_rows adds whole ones; the first writes all of dk and dv */
    b.keys = i ? SM_MIN(at_up(SM_MAX(attn_visible(a, i + rows - 1), 1), AT_ROWS), a->tk) : a->tk;
    b.bias = h->bias ? h->bias + i * a->bias_q : NULL;
    for (int64_t l = 0; l < w; l += SM_VL) {
        at_pack_lanes(h->q + (i + l) * qs, qs, rows - l, a->d, a->scale * AT_UNIT, m->q + l, w);
        at_pack_lanes(h->dy + (i + l) * vs, vs, rows - l, a->dv, 1, m->dy + l, w);
        vstore(m->max + l, vset(-INFINITY));
    }
    copy_rows(h->q + i * qs, qs, rows, a->d, a->scale, m->q_rows, dc);
    copy_rows(h->dy + i * vs, vs, rows, a->dv, 1, m->dy_rows, dvc);
    int64_t after = SM_MIN(i + 2 * rows, a->tq); /* the next block's rows, this one's results */
    at_fetch(h->q, qs, a->d, i + rows, after);
    at_fetch(h->dy, vs, a->dv, i + rows, after);
    at_fetch(h->dq, qs, a->d, i, i + rows);
    at_part s = b, ds = b;
    s.q = m->q;
    s.k = m->k;
    s.s = m->p;
    SM_K(sm_attention_scores)(a, &s);
    ds.q = m->dy;
    ds.k = m->v;
    ds.s = m->dp;
    SM_K(sm_attention_product)(&ds, a->dv, 0);
    for (int64_t l = 0; l < w; l += SM_VL)
        score_gradient(&b, m->p + l, m->dp + l, vload(m->max + l));
    SM_K(sm_attention_key_rows)(&s, m->dy_rows, dvc, m->dv);
    SM_K(sm_attention_key_rows)(&ds, m->q_rows, dc, m->dk);
    ds.v = m->panels;
    ds.o = m->dq;
    SM_K(sm_attention_values)(&ds, a->d, NULL);
    for (int64_t l = 0; l < w; l += SM_VL)
        at_unpack_lanes(m->dq + l, w, vset(a->scale), rows - l, a->d, h->dq + (i + l) * qs, qs);
}

static void put_rows(const float *x, int64_t ld, int64_t rows, int64_t d, float *y, int64_t stride)
{
    for (int64_t r = 0; r < rows; r++)
        memcpy(y + r * stride, x + r * ld, sizeof(float) * (size_t)d);
}

static void grad_head(const attn *a, const head *h, const memory *m)
{
    int64_t qs = a->h * a->d, vs = a->h * a->dv, dc = at_up(a->d, SM_VL), dvc = at_up(a->dv, SM_VL);
    at_pack_keys(h->k, qs, a->tk, a->d, m->k);
    at_pack_keys(h->v, vs, a->tk, a->dv, m->v);
    at_pack_values(m->k, a->d, a->tk, a->d, a->tk, m->panels);
    for (int64_t i = 0, rows; i < a->tq; i += rows) {
        rows = SM_MIN(at_vecs((a->tq - i + SM_VL - 1) / SM_VL) * SM_VL, a->tq - i);
        grad_block(a, h, i, rows, m);
    }
    put_rows(m->dk, dc, a->tk, a->d, h->dk, qs);
    put_rows(m->dv, dvc, a->tk, a->dv, h->dv, vs);
}

static head head_at(const attn *a, const sm_kcall *c, int64_t i)
{
    int64_t n = i / a->h, h = i % a->h, qs = a->h * a->d, vs = a->h * a->dv;
    int64_t q = n * a->tq * qs + h * a->d, k = n * a->tk * qs + h * a->d;
    int64_t v = n * a->tk * vs + h * a->dv, y = n * a->tq * vs + h * a->dv;
    float *dq = c->dst.data, *dk = dq + a->n * a->tq * qs, *dv = dk + a->n * a->tk * qs;
    return (head){a->q + q, a->k + k, a->v + v, (const float *)c->src[3].data + y, attn_bias(a, n, h, 0), dq + q, dk + k, dv + v};
}

static void run_grad(const sm_kcall *c, int task, int tasks)
{
    attn a = attn_of(c, 4);
    memory m;
    size_t floats = layout(&a, a.bias, NULL, &m);
    layout(&a, a.bias, (float *)c->work + floats * (size_t)task, &m);
    int64_t from, to;
    sm_range(a.n * a.h, task, tasks, &from, &to);
    for (int64_t i = from; i < to; i++) {
        head h = head_at(&a, c, i);
        grad_head(&a, &h, &m);
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
    memory m;
    return sizeof(float) * layout(&a, n->nsrc > 4 && n->src[4], NULL, &m) * (size_t)grad_tasks(n, 0);
}

void SM_K(sm_attention_grad_kernels)(sm_kernel *k)
{
    k[SM_OP_ATTENTION_GRAD] = (sm_kernel){.run = run_grad, .tasks = grad_tasks, .work = grad_work};
}
