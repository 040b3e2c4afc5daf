/* The three products of attention over some queries and keys, queries in lanes (see k_attention.c), and the scores with biases
 * and hidden keys. Blocks of AT_ROWS rows by 1 to 3 vectors in registers; the functions by width are kept apart so that
 * compilers give each its registers. Every element is one chain of multiply-adds in order, carried on over pieces. */
#include "cpu/attention.h"

enum { STEPS = 192 }; /* of d at a time: as many rows of queries stay in the first cache */

/* Steps [from, to) of d of all scores; with the last, the maxima of keys [0, top). */
SM_FLAT void score_steps(const int nv, const at_part *p, int64_t d, int64_t from, int64_t to, int64_t top)
{
    const int64_t w = nv * SM_VL, keys = p->keys;
    const float *k = p->k + from, *q = p->q + from * w;
    float *s = p->s;
    vf max[AT_VECS], acc[AT_ROWS][AT_VECS];
    SM_UNROLL(8) for (int v = 0; v < nv; v++)
        max[v] = vload(p->max + v * SM_VL);
    for (int64_t j = 0; j < keys; j += AT_ROWS, k += AT_ROWS * d, s += AT_ROWS * w) {
        if (from)
            at_load(nv, acc, s, w);
        else
            at_zero(nv, acc);
        at_product(nv, acc, k, d, 1, q, w, to - from, NULL);
        at_store(nv, acc, s, w);
        if (j + AT_ROWS <= top)
            SM_UNROLL(8) for (int i = 0; i < AT_ROWS; i++)
                SM_UNROLL(8) for (int v = 0; v < nv; v++)
                    max[v] = vmax(acc[i][v], max[v]);
    }
    SM_UNROLL(8) for (int v = 0; v < nv; v++)
        vstore(p->max + v * SM_VL, max[v]);
}

/* Some of the rows that are needed next. A call between blocks costs little: no vector is kept across. */
static __attribute__((noinline)) void fetch_some(at_ahead *f)
{
    for (int64_t n = f->each; n > 0 && f->at < f->count; n--) {
        at_rows *r = &f->rows[f->at];
        at_fetch(r->x, r->stride, r->d, 0, 1);
        r->x += r->stride;
        if (--r->rows <= 0)
            f->at++;
    }
    __asm__ volatile("" ::: "memory");
}

/* A row of scores becomes weights. */
SM_FLAT void weigh_row(const int nv, const at_part *p, float *s, at_range *seen)
{
    at_range range = *seen;
    SM_UNROLL(8) for (int v = 0; v < nv; v++) {
        vf e = at_weight(vload(s + v * SM_VL) - vload(p->max + v * SM_VL), &range);
        if (!AT_SUMS)
            vstore(p->part + v * SM_VL, vload(p->part + v * SM_VL) + e);
        vstore(s + v * SM_VL, e);
    }
    *seen = range;
}

/* Weights of all keys, the first `head` of which have their scores, all of them those of earlier steps of d. While a block's
 * products are summed up, rows of an earlier block become weights, one after every 1 / AT_ROWS of the steps: their additions and
 * shifts go to units that the products leave idle, so that only their multiply-adds cost time. */
SM_FLAT void weight_steps(const int nv, const at_part *p, int64_t d, int64_t from, int64_t head, at_range *seen)
{
    const int64_t w = nv * SM_VL, keys = p->keys, each = (d - from) / AT_ROWS, rest = (d - from) % AT_ROWS;
    const float *k = p->k + from + head * d, *q = p->q + from * w;
    float *s = p->s, *end = s + keys * w;
    vf acc[AT_ROWS][AT_VECS];
    for (int64_t j = head; j < keys; j += AT_ROWS, k += AT_ROWS * d) {
        const float *a = k, *b = q;
        float *c = p->s + j * w;
        if (j % AT_HEAD == 0 && p->ahead->at < p->ahead->count)
            fetch_some(p->ahead);
        if (from)
            at_load(nv, acc, c, w);
        else
            at_zero(nv, acc);
        for (int r = 0; r < AT_ROWS; r++, s += w) {
            for (int64_t n = each; n; n--, a++, b += w)
                at_step(nv, acc, a, d, b, NULL);
            weigh_row(nv, p, s, seen);
        }
        for (int64_t n = rest; n; n--, a++, b += w)
            at_step(nv, acc, a, d, b, NULL);
        at_store(nv, acc, c, w);
    }
    for (; s < end; s += w)
        weigh_row(nv, p, s, seen);
}

/* O = fix O + V P, O + V P or V P, see sm_attention_values. */
SM_FLAT void values(const int nv, const at_part *p, int64_t dv, const float *fix)
{
    const int64_t w = nv * SM_VL, keys = p->keys;
    const float *x = p->v, *s = p->s;
    float *o = p->o;
    vf acc[AT_ROWS][AT_VECS];
    for (int64_t c = 0; c < dv; c += AT_ROWS, x += AT_ROWS * p->panel, o += AT_ROWS * w) {
        if (fix)
            at_scaled(nv, acc, o, w, fix);
        else if (p->j)
            at_load(nv, acc, o, w);
        else
            at_zero(nv, acc);
        if (AT_SUMS && !c && p->part) {
            vf sum[AT_VECS];
            SM_UNROLL(8) for (int v = 0; v < nv; v++)
                sum[v] = vset(0);
            at_product(nv, acc, x, 1, AT_ROWS, s, w, keys, sum);
            SM_UNROLL(8) for (int v = 0; v < nv; v++)
                vstore(p->part + v * SM_VL, sum[v]);
        } else {
            at_product(nv, acc, x, 1, AT_ROWS, s, w, keys, NULL);
        }
        at_store(nv, acc, o, w);
    }
}

/* C[key][ld] = P[key] R, added where p's queries are not the first, nv vectors wide. */
SM_FLAT void key_rows(const int nv, const at_part *p, const float *r, int64_t ld, float *c)
{
    const int64_t w = p->nv * SM_VL, keys = p->keys;
    const float *s = p->s;
    vf acc[AT_ROWS][AT_VECS];
    for (int64_t j = 0; j < keys; j += AT_ROWS, s += AT_ROWS * w, c += AT_ROWS * ld) {
        if (p->i)
            at_load(nv, acc, c, ld);
        else
            at_zero(nv, acc);
        at_product(nv, acc, s, w, 1, r, ld, p->rows, NULL);
        at_store(nv, acc, c, ld);
    }
}

#define OWN static __attribute__((noinline)) void
#define EACH(NV)                                                                                        \
    OWN steps_##NV(const at_part *p, int64_t d, int64_t from, int64_t to, int64_t top)                  \
    {                                                                                                   \
        score_steps(NV, p, d, from, to, top);                                                           \
    }                                                                                                   \
    OWN weights_##NV(const at_part *p, int64_t d, int64_t from, int64_t head, at_range *seen)           \
    {                                                                                                   \
        weight_steps(NV, p, d, from, head, seen);                                                       \
    }                                                                                                   \
    OWN values_##NV(const at_part *p, int64_t dv, const float *fix) { values(NV, p, dv, fix); }         \
    OWN key_rows_##NV(const at_part *p, const float *r, int64_t ld, float *c) { key_rows(NV, p, r, ld, c); }
EACH(1) EACH(2) EACH(3)
static void (*const steps_of[AT_VECS])(const at_part *, int64_t, int64_t, int64_t, int64_t) = {steps_1, steps_2, steps_3};
static void (*const weights_of[AT_VECS])(const at_part *, int64_t, int64_t, int64_t, at_range *) = {weights_1, weights_2,
                                                                                                  weights_3};
static void (*const values_of[AT_VECS])(const at_part *, int64_t, const float *) = {values_1, values_2, values_3};
static void (*const key_rows_of[AT_VECS])(const at_part *, const float *, int64_t, float *) = {key_rows_1, key_rows_2,
                                                                                            key_rows_3};

void SM_K(sm_attention_product)(const at_part *p, int64_t d, int64_t top)
{
    for (int64_t from = 0; from < d; from += STEPS)
        steps_of[p->nv - 1](p, d, from, SM_MIN(from + STEPS, d), from + STEPS < d ? 0 : top);
}

/* Steps [0, upto) of the scores of keys [from, to). */
static void some_scores(const at_part *p, int64_t d, int64_t upto, int64_t from, int64_t to)
{
    at_part b = *p;
    b.k += from * d;
    b.s += from * p->nv * SM_VL;
    b.keys = to - from;
    for (int64_t c = 0; c < upto && from < to; c += STEPS)
        steps_of[p->nv - 1](&b, d, c, SM_MIN(c + STEPS, upto), 0);
}

bool SM_K(sm_attention_weights)(const at_part *p, int64_t d)
{
    const int64_t w = p->nv * SM_VL, last = (d - 1) / STEPS * STEPS, head = SM_MIN(p->j ? AT_ROWS : AT_HEAD, p->keys);
    at_range seen = at_any;
    fetch_some(p->ahead); /* with the head */
    some_scores(p, d, d, 0, head);
    for (int64_t l = 0; l < w; l += SM_VL) {
        vf max = vload(p->s + l);
        for (int64_t j = 1; j < head && !p->j; j++)
            max = vmax(vload(p->s + j * w + l), max);
        if (!p->j)
            vstore(p->max + l, max);
        vstore(p->part + l, vset(0));
    }
    some_scores(p, d, last, head, p->keys);
    weights_of[p->nv - 1](p, d, last, head, &seen);
    return at_inside(seen);
}

void SM_K(sm_attention_values)(const at_part *p, int64_t dv, const float *fix) { values_of[p->nv - 1](p, dv, fix); }

void SM_K(sm_attention_key_rows)(const at_part *p, const float *rows, int64_t ld, float *c)
{
    int64_t vecs = ld / SM_VL;
    for (int nv; vecs; vecs -= nv, rows += nv * SM_VL, c += nv * SM_VL) {
        nv = at_vecs(vecs);
        key_rows_of[nv - 1](p, rows, ld, c);
    }
}

/* A bias in the scores' units: one that is finite stays so, since masks may hold the lowest float. */
static inline vf bias_units(vf b)
{
    const vf most = vset(2.3e38f);
    return vsel((vi)(b - b == (vf){0}), vmin(vmax(b, -most), most), b);
}

static void add_bias(const attn *a, const at_part *p)
{
    const int64_t w = p->nv * SM_VL;
    if (a->bias_q) {
        sm_transpose(p->bias, a->bias_q, p->bias_t, w, p->keys, p->rows);
        for (int64_t j = 0; j < p->keys && p->rows < w; j++)
            memset(p->bias_t + j * w + p->rows, 0, sizeof(float) * (size_t)(w - p->rows));
    }
    for (int64_t j = 0; j < p->keys; j++)
        for (int64_t l = 0; l < w; l += SM_VL) {
            float *s = p->s + j * w + l;
            vstore(s, vfma(bias_units(a->bias_q ? vload(p->bias_t + j * w + l) : vset(p->bias[j])), vset(AT_UNIT), vload(s)));
        }
}

/* Scores of keys that a query may not look at become -infinity. */
static void hide_future(const attn *a, const at_part *p)
{
    vi lane;
    for (int l = 0; l < SM_VL; l++)
        lane[l] = l;
    for (int64_t j = 0; j < p->keys; j++) {
        int64_t first = p->j + j - (p->i + a->tk - a->tq); /* the first lane that sees key j */
        for (int v = 0; v < p->nv && first > v * SM_VL; v++) {
            float *s = p->s + (j * p->nv + v) * SM_VL;
            vstore(s, vsel((vi)(lane < viset((int32_t)SM_MIN(first - v * SM_VL, SM_VL))), vset(-INFINITY), vload(s)));
        }
    }
}

void SM_K(sm_attention_scores)(const attn *a, const at_part *p)
{
    const int64_t w = p->nv * SM_VL;
    bool future = attn_visible(a, p->i) < p->j + p->keys;
    for (int64_t j = 0; p->ahead && j < p->keys; j += AT_HEAD)
        fetch_some(p->ahead);
    int64_t top = p->bias || future ? 0 : p->keys / AT_ROWS * AT_ROWS;
    SM_K(sm_attention_product)(p, a->d, top);
    if (p->bias)
        add_bias(a, p);
    if (future)
        hide_future(a, p);
    for (int64_t l = 0; l < w; l += SM_VL) {
        vf max = vload(p->max + l);
        for (int64_t j = top; j < p->keys; j++)
            max = vmax(vload(p->s + j * w + l), max);
        vstore(p->max + l, max);
    }
}
