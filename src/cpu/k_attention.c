/* Attention without the score matrix, forward: online softmax (Milakov and Gimelshein 2018, Dao et al. 2022), blocks of queries
 * against tiles of keys. Everything is computed transposed, queries in the lanes of vectors: the maximum, the sum and the
 * correction of a row are lane by lane, nothing is ever added across a vector, any head size is a number of rows, and keys
 * and values are only broadcast, so a copy of their rows is all the packing they need.
 *
 * One to three vectors of queries, w lanes, and a tile of keys:
 *   scores  S[key][w] = K Q, in units of AT_UNIT
 *   weights P = 2^(S - reference) in place, their sum
 *   values  O[dv][w] = O + V P
 * A row's reference is the maximum of its first AT_HEAD scores, and that of a tile which is more than AT_MOST above the last:
 * weights need not be below 1, only far from overflow, so most tiles correct nothing, and weights are made block by block beside
 * the products (k_attention_tile.c). Only where a score is that far above, biased or hidden, a tile's scores are all there first.
 * Sizes of tiles depend on head sizes alone, every element is one chain of multiply-adds in the order of d or of keys, and
 * references depend on the row's scores alone: a row's bits depend neither on the rest of the batch nor on blocks, threads or the
 * instruction set, nor on which of the two ways its weights were made.
 *
 * Floor, in cycles of two 8-lane multiply-add units: a vector of scores takes (d + dv) / 2 for the two products and 2.5 for the 5
 * multiply-adds of the exponential, so 94% of the peak is the end at d = 40, 97% at 80, 98% at 160. Bytes: queries
 * and results once, keys and values once per unit: (d + dv) / 768 floats a score, 2% of the time of its flops at 20 GB/s.
 * The gradient is k_attention_grad.c, softmax and rotary embedding k_softmax.c. */
#include "cpu/attention.h"

enum { MAX_TASKS = 64 };

/* Keys of a tile, queries of a unit at most: its queries, outputs and a tile are to stay in 512 KiB of second cache, and the
 * copy of a tile is to serve many. Where all keys are one tile a unit is only a share of the work. */
static int64_t tile_of(const attn *a) { return SM_MAX(a->d, a->dv) > 256 ? 64 : 128; }
static int64_t most_of(const attn *a)
{
    int64_t wide = a->d + a->dv;
    return wide <= 96 ? 768 : wide <= 160 ? 512 : wide <= 320 ? 256 : 192;
}

/* ---- some queries, one tile of keys ---- */

/* Weights where a score may be far above the reference, biased or hidden; fix: what earlier tiles' results are to be multiplied
 * with. */
static void weigh(const attn *a, const at_part *p, float *fix)
{
    const int64_t w = p->nv * SM_VL;
    float top[AT_VECS * SM_VL];
    at_part b = *p;
    b.max = top;
    for (int l = 0; l < w; l += SM_VL)
        vstore(top + l, vset(-INFINITY));
    SM_K(sm_attention_scores)(a, &b);
    for (int l = 0; l < w; l += SM_VL) {
        vf old = p->j ? vload(p->max + l) : vset(-INFINITY), m = old, high = vload(top + l), sum = vset(0);
        for (int64_t j = 0; !p->j && j < SM_MIN(AT_HEAD, p->keys); j++)
            m = vmax(vload(p->s + j * w + l), m);
        m = vsel((vi)(high - m <= vset(AT_MOST)), m, high);
        vstore(p->max + l, m);
        m = vsel((vi)(m == vset(-INFINITY)), vset(0), m); /* nothing seen yet: -infinity and 0 make weights 0 */
        for (float *s = p->s + l; s < p->s + p->keys * w; s += w) {
            vf x = vload(s) - m, e = at_exp2(vsel((vi)(x == vset(-INFINITY)), x, vmax(vset(-AT_LEAST), x)));
            sum += e;
            vstore(s, e);
        }
        vstore(p->part + l, sum);
        vstore(fix + l, at_exp2(old - m));
    }
}

static void attend(const attn *a, const at_part *p)
{
    const int64_t w = p->nv * SM_VL;
    float fix[AT_VECS * SM_VL];
    bool future = attn_visible(a, p->i) < p->j + p->keys;
    bool near = !p->bias && !future && SM_K(sm_attention_weights)(p, a->d);
    if (!near)
        weigh(a, p, fix);
    SM_K(sm_attention_values)(p, a->dv, near || !p->j ? NULL : fix);
    for (int l = 0; l < w; l += SM_VL)
        vstore(p->sum + l, vfma(vload(p->sum + l), near ? vset(1) : vload(fix + l), vload(p->part + l)));
}

/* ---- a unit: some queries of a head, all its keys ---- */

/* A task's memory: q [d][unit], o [dv][unit], max and sum [unit], of one block only where all keys are one tile; k and v of a
 * tile; s and bias_t [tile][AT_VECS vectors]. Rows of dv and of keys are rounded up to AT_ROWS. */
typedef struct scratch { float *q, *o, *max, *sum, *k, *v, *s, *bias_t; } scratch;

enum { PAD = 4 }; /* keys: without it panels of values would lie 4096 bytes apart, all in the same lines of the first cache */

static int64_t units_of(const attn *a) { return (a->tq + most_of(a) - 1) / most_of(a); }
/* Queries of a unit: about equal parts, whole blocks. */
static int64_t unit_of(const attn *a) { return at_up((a->tq + units_of(a) - 1) / units_of(a), AT_VECS * SM_VL); }
static bool one_tile(const attn *a) { return a->tk <= tile_of(a); }

static size_t layout(const attn *a, bool bias, float *at, scratch *m)
{
    int64_t unit = SM_MIN(one_tile(a) ? AT_VECS * SM_VL : unit_of(a), at_up(a->tq, SM_VL)), dv = at_up(a->dv, AT_ROWS);
    int64_t keys = at_up(SM_MIN(tile_of(a), a->tk), AT_ROWS), s = keys * AT_VECS * SM_VL;
    int64_t sizes[] = {a->d * unit, dv * unit, unit, unit, keys * a->d, (keys + PAD) * dv, s, bias ? s : 0};
    float **parts[] = {&m->q, &m->o, &m->max, &m->sum, &m->k, &m->v, &m->s, &m->bias_t};
    int64_t sum = 0;
    for (size_t i = 0; i < SM_COUNT(sizes); i++) {
        *parts[i] = at ? at + sum : NULL;
        sum += at_up(sizes[i], 16);
    }
    return (size_t)sum;
}

/* Queries [i, i + rows) of a head and what they need; bias is that of the head's query 0. No rows: there is no such unit. */
typedef struct unit { int64_t head, i, rows; const float *q, *k, *v, *bias; float *y; } unit;

static unit unit_at(const attn *a, float *out, int64_t index)
{
    int64_t head = index / units_of(a), i = index % units_of(a) * unit_of(a), n = head / a->h, h = head % a->h;
    int64_t q = (n * a->tq + i) * a->h + h, k = n * a->tk * a->h + h;
    if (n >= a->n || i >= a->tq)
        return (unit){.head = -1};
    return (unit){head, i, SM_MIN(a->tq - i, unit_of(a)), a->q + q * a->d, a->k + k * a->d, a->v + k * a->dv,
                  attn_bias(a, n, h, 0), out + q * a->dv};
}

static void begin(const attn *a, const at_part *p, const float *q, int64_t stride)
{
    const int64_t w = p->nv * SM_VL;
    for (int64_t l = 0; l < w; l += SM_VL) {
        at_pack_lanes(q + l * stride, stride, p->rows - l, a->d, a->scale * AT_UNIT, p->q + l, w);
        vstore(p->max + l, vset(-INFINITY));
        vstore(p->sum + l, vset(0));
    }
}

static void end(const attn *a, const at_part *p, float *y, int64_t stride)
{
    const int64_t w = p->nv * SM_VL;
    for (int64_t l = 0; l < w; l += SM_VL) {
        vf sum = vload(p->sum + l), inv = vsel((vi)(sum == vset(0)), vset(0), 1 / sum);
        at_unpack_lanes(p->o + l, w, inv, p->rows - l, a->dv, y + l * stride, stride);
    }
}

/* What is wanted after a tile: the next one's keys and values, queries of the next unit. None of it is fetched, nor this unit's
 * queries and places of results, where all of an operation's tensors are likely in the second cache: that costs it some 4%. */
typedef struct after { const float *k, *v, *q; int64_t keys, rows; } after;

enum { NEAR = 2 << 20 };
static bool is_near(const attn *a) { return 4 * a->n * a->h * (a->tq + a->tk) * (a->d + a->dv) <= NEAR; }

static void want(at_ahead *f, const float *x, int64_t stride, int64_t d, int64_t from, int64_t to)
{
    if (from < to)
        f->rows[f->count++] = (at_rows){x + from * stride, stride, d, to - from};
}

/* What a block of queries [i, to) of the unit sees to while it computes: its share of the next tile, the next queries, the place
 * of its results. */
static at_ahead look_ahead(const attn *a, const unit *u, const after *n, int64_t i, int64_t to, bool last, const at_part *p)
{
    int64_t qs = a->h * a->d, vs = a->h * a->dv, rows = 0;
    int64_t from = n->keys * i / u->rows, upto = n->keys * to / u->rows;
    at_ahead f = {.count = 0};
    if (is_near(a))
        return f;
    if (last)
        want(&f, u->y, vs, a->dv, i, to);
    if (!p->j)
        want(&f, u->q, qs, a->d, to, SM_MIN(to + p->rows, u->rows));
    if (last && to == u->rows)
        want(&f, n->q, qs, a->d, 0, n->rows);
    want(&f, n->k, qs, a->d, from, upto);
    want(&f, n->v, vs, a->dv, from, upto);
    for (int r = 0; r < f.count; r++)
        rows += f.rows[r].rows;
    f.each = (rows * AT_HEAD + p->keys - 1) / p->keys;
    return f;
}

/* One tile of keys for all queries of a unit. */
static void run_tile(const attn *a, const unit *u, int64_t j, bool last, const after *n, const scratch *m)
{
    float part[AT_VECS * SM_VL];
    at_part p = {.j = j, .keys = SM_MIN(tile_of(a), a->tk - j), .k = m->k, .v = m->v, .s = m->s, .bias_t = m->bias_t};
    p.panel = p.keys + PAD;
    p.part = part;
    for (int64_t i = 0; i < u->rows; i += p.nv * SM_VL) {
        int64_t at = one_tile(a) ? 0 : i;
        p.nv = at_vecs((u->rows - i + SM_VL - 1) / SM_VL);
        p.i = u->i + i;
        p.rows = SM_MIN(u->rows - i, p.nv * SM_VL);
        p.q = m->q + at * a->d;
        p.bias = u->bias ? u->bias + p.i * a->bias_q + j : NULL;
        p.o = m->o + at * at_up(a->dv, AT_ROWS);
        p.max = m->max + at;
        p.sum = m->sum + at;
        at_ahead ahead = look_ahead(a, u, n, i, i + p.rows, last, &p);
        p.ahead = &ahead;
        if (!j)
            begin(a, &p, u->q + i * a->h * a->d, a->h * a->d);
        if (!j || j < attn_visible(a, p.i + p.rows - 1))
            attend(a, &p);
        if (last)
            end(a, &p, u->y + i * a->h * a->dv, a->h * a->dv);
    }
}

/* `packed` is the head whose only tile is in memory already. */
static void run_unit(const attn *a, const unit *u, const unit *next, bool packed, const scratch *m)
{
    int64_t qs = a->h * a->d, vs = a->h * a->dv, tile = tile_of(a), seen = SM_MAX(attn_visible(a, u->i + u->rows - 1), 1);
    for (int64_t j = 0, to; j < seen; j = to) {
        int64_t keys = SM_MIN(tile, a->tk - j);
        bool last = j + keys >= seen;
        to = j + keys;
        after n = {u->k + to * qs, u->v + to * vs, NULL, SM_MIN(tile, a->tk - to), 0};
        if (last) {
            bool other = next->rows && !(one_tile(a) && next->head == u->head);
            n = (after){next->k, next->v, next->q, other ? SM_MIN(tile, a->tk) : 0, SM_MIN(next->rows, AT_VECS * SM_VL)};
        }
        if (!packed) {
            at_pack_keys(u->k + j * qs, qs, keys, a->d, m->k);
            at_pack_values(u->v + j * vs, vs, keys, a->dv, keys + PAD, m->v);
        }
        run_tile(a, u, j, last, &n, m);
    }
}

static void run_attention(const sm_kcall *c, int task, int tasks)
{
    attn a = attn_of(c, 3);
    scratch m;
    size_t floats = layout(&a, a.bias, NULL, &m);
    layout(&a, a.bias, (float *)c->work + floats * (size_t)task, &m);
    int64_t from, to, packed = -1;
    sm_range(a.n * a.h * units_of(&a), task, tasks, &from, &to);
    for (int64_t i = from; i < to; i++) {
        unit u = unit_at(&a, c->dst.data, i), next = unit_at(&a, c->dst.data, i + 1);
        if (!u.rows)
            continue;
        run_unit(&a, &u, &next, packed == u.head, &m);
        packed = one_tile(&a) ? u.head : -1;
    }
}

static int tasks_of(const sm_node *n, int pass)
{
    attn a = attn_sizes(n);
    double work = (double)(a.n * a.h * a.tq) * (double)(a.tk * (a.d + a.dv));
    double t = SM_MIN(work / 262144 + 1, (double)(a.n * a.h * units_of(&a)));
    return (int)SM_MIN(t, MAX_TASKS);
}

static size_t work_of(const sm_node *n)
{
    attn a = attn_sizes(n);
    scratch m;
    return sizeof(float) * layout(&a, n->nsrc > 3 && n->src[3], NULL, &m) * (size_t)tasks_of(n, 0);
}

void SM_K(sm_cpu_attention)(sm_kernel *k)
{
    k[SM_OP_ATTENTION] = (sm_kernel){.run = run_attention, .tasks = tasks_of, .work = work_of};
    SM_K(sm_attention_grad_kernels)(k);
    SM_K(sm_softmax_kernels)(k);
}
