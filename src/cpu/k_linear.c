/* linear and matmul as gather products (left operand row by row) or outer products (left operand stored transposed). */
#include "cpu/gemm.h"
#include "cpu/linear_few.h"
#include "cpu/linear_local.h"

enum { MOST = 32, COPIED = 8, WIDE = 4 * SM_NR }; /* pieces of one op, where each copies rows; columns from which on that pays */

static const sm_taps one_tap = {{{.count = 1}}, 1};

/* rows x k times the packed b, dense on both sides. */
static sm_gather dense(const float *x, float *y, int64_t rows, int64_t k, int64_t cols, const float *b)
{
    return (sm_gather){
        .src = x, .src_size = {1, rows}, .ld_src = k, .stride = {1, 1}, .n = 1, .grid = {1, rows},
        .dst = y, .dst_size = {1, rows},
        .ld_dst = cols, .dst_step = {1, 1}, .taps = {one_tap, one_tap}, .kw = 1, .k = k, .cols = cols, .packed_k = k, .b = b};
}

/* ---- linear: prep is the packed weight --------------------------------------------------------------------------- */

/* Floats of a task's copies. */
static int64_t linear_copy(const sm_node *n)
{
    const int64_t *w = n->src[1]->dims;
    return w[0] >= WIDE && sm_linear_rows(n) > SM_MR && !SM_K(sm_linear_few)(n) ? sm_gather_copy(w[1]) : 0;
}

static sm_grid linear_grid(const sm_node *n, int64_t cols)
{
    int64_t k = n->src[1]->dims[1];
    return SM_K(sm_gemm_grid)(sm_linear_rows(n), cols, (double)k, (double)k, linear_copy(n) ? COPIED : MOST);
}

static int linear_pieces(const sm_node *n)
{
    sm_grid g = linear_grid(n, n->src[1]->dims[0]);
    return g.tm * g.tn;
}

static bool linear_unprepared(const sm_node *n) { return !SM_K(sm_linear_few)(n) && SM_K(sm_linear_local)(n); }

static int linear_tasks(const sm_node *n, int pass)
{
    if (SM_K(sm_linear_few)(n))
        return SM_K(sm_linear_few_tasks)(n);
    return SM_MAX(linear_pieces(n), linear_unprepared(n) ? SM_K(sm_linear_local_tasks)(n) : 0);
}

/* Copies of rows, each piece its own, whatever part of the weight the pieces are of; or the panels that tasks pack. */
static size_t linear_work(const sm_node *n)
{
    int64_t copies = linear_copy(n) * COPIED;
    int64_t panels = linear_unprepared(n) ? SM_K(sm_linear_local_panel)(n) * linear_tasks(n, 0) : 0;
    return (size_t)SM_MAX(copies, panels) * sizeof(float);
}

static size_t linear_prep_bytes(const sm_node *n)
{
    const int64_t *w = n->src[1]->dims;
    return SM_K(sm_linear_few)(n) ? 0 : (size_t)(sm_packed_cols(w[0]) * w[1]) * sizeof(float);
}

static size_t linear_prep_unit(const sm_node *n) { return (size_t)(SM_NR * n->src[1]->dims[1]) * sizeof(float); }

static int linear_prep_tasks(const sm_node *n)
{
    int64_t most = sm_panels(n->src[1]->dims[0]) * sm_pack_pieces(n->src[1]->dims[1]), wanted = sm_numel(n->src[1]) / 32768 + 1;
    return (int)SM_MIN(SM_MIN(most, wanted), MOST);
}

/* With a gate a part is panels of the left half and then those of the right half that belong to them: a whole weight lies as
 * usual. */
static void linear_prep(const sm_kcall *c, void *out, int task, int tasks)
{
    const sm_tensor *w = &c->src[1];
    sm_pack_src s = {.t = *w, .col = w->dims[1], .step = 1, .n = w->dims[0], .k = w->dims[1], .taps = 1};
    int64_t part[2], pieces = sm_pack_pieces(s.k), a, b, steps[2], half = c->finish.gate ? sm_panels(s.n) / 2 : 0;
    sm_part_of(c, half ? half : sm_panels(s.n), part);
    int64_t panels = part[1] - part[0];
    sm_range(panels * (half ? 2 : 1) * pieces, task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) {
        int64_t at = i / pieces, panel = at < panels ? part[0] + at : part[0] + at - panels + half;
        sm_pack_piece(s.k, i, steps);
        SM_K(sm_gemm_pack)(&s, panel * SM_NR, steps, (float *)out + at * SM_NR * s.k);
    }
}

static bool finishes(const sm_finish *f) { return f->act != SM_OP_INPUT || f->gate || f->add_rows; }

/* A gate needs whole panels on both sides. */
static bool linear_fuses(const sm_node *n, const sm_finish *f)
{
    return !SM_K(sm_linear_few)(n) && SM_K(sm_finish_knows)(f->act) && !f->doubled &&
           (!f->gate || n->src[1]->dims[0] % (2 * SM_NR) == 0);
}

/* Floats of a task's unfinished results, of both halves with a gate, or of partial sums. */
static int64_t linear_sums(const sm_node *n)
{
    int64_t partial = n->src[1]->dims[1] > SM_KC ? SM_NC : 0;
    int64_t sums = SM_MIN(sm_linear_rows(n), SM_MC) * SM_MAX(2 * SM_FINISH_COLS, partial);
    return SM_MAX(sums, linear_unprepared(n) ? SM_K(sm_linear_local_sums)(n) : 0);
}

static size_t linear_finish_work(const sm_node *n) { return sizeof(float) * (size_t)(linear_sums(n) * linear_tasks(n, 0)); }

static void linear_run(const sm_kcall *c, int task, int tasks)
{
    if (SM_K(sm_linear_few)(c->node)) {
        SM_K(sm_linear_few_run)(c, task, tasks);
        return;
    }
    float *sums = NULL;
    if (finishes(&c->finish))
        sums = (float *)c->work + linear_work(c->node) / sizeof(float) + task * linear_sums(c->node);
    if (!c->prep) {
        SM_K(sm_linear_local_run)(c, (float *)c->work + task * SM_K(sm_linear_local_panel)(c->node), sums, task, tasks);
        return;
    }
    const sm_tensor *w = &c->src[1];
    int64_t rows = sm_linear_rows(c->node), part[2], r[2], j[2], a, b;
    sm_gather g = dense(c->src[0].data, c->dst.data, rows, w->dims[1], c->finish.gate ? w->dims[0] / 2 : w->dims[0], c->prep);
    g.bias = c->src[2];
    sm_part_of(c, sm_panels(g.cols), part);
    g.b_from = part[0] * SM_NR;
    if (sums) {
        if (sm_only_adds(&c->finish)) {
            g.add = c->finish.add;
            g.partial = w->dims[1] > SM_KC ? sums : NULL;
        } else {
            g.finish = &c->finish;
            g.sums = sums;
            g.gate = (part[1] - part[0]) * SM_NR;
        }
    }
    int64_t cols = SM_MIN(part[1] * SM_NR, g.cols) - g.b_from;
    sm_grid grid = linear_grid(c->node, cols);
    sm_range(grid.tm * grid.tn, task, tasks, &a, &b);
    if (linear_copy(c->node) && cols >= WIDE)
        g.copy = (float *)c->work + a * linear_copy(c->node);
    for (int64_t i = a; i < b; i++) {
        SM_K(sm_gemm_piece)(grid, (int)i, rows, cols, r, j);
        j[0] += g.b_from;
        j[1] += g.b_from;
        SM_K(sm_gemm_gather)(&g, r, j);
    }
}

/* ---- matmul ------------------------------------------------------------------------------------------------------ */

/* ta == 0: pass 0 packs b, pass 1 multiplies. ta == 1: pass 0 multiplies, the sum over k in `splits` equal parts where
 * there are too few outputs to share out (decided by the shape alone), pass 1 adds the parts in order. */
typedef struct dims { int64_t batch, m, n, k; int ta, tb, splits; sm_grid grid; } dims;

static dims matmul_dims(const sm_node *n)
{
    int r = n->rank;
    dims d = {.m = n->dims[r - 2], .n = n->dims[r - 1], .ta = n->p.matmul.ta, .tb = n->p.matmul.tb, .splits = 1};
    d.k = n->src[0]->dims[r - 1 - d.ta];
    d.batch = sm_numel(n) / (d.m * d.n);
    if (d.ta)
        d.splits = sm_gemm_splits(sm_numel(n), d.k);
    int most = (int)SM_MAX(1, MOST / (d.batch * d.splits));
    d.grid = SM_K(sm_gemm_grid)(d.m, d.n, (double)d.k / d.splits, (double)d.k / d.splits, most);
    return d;
}

static int64_t matmul_items(const dims *d) { return d->batch * d->splits * d->grid.tm * d->grid.tn; }

static int matmul_tasks(const sm_node *n, int pass)
{
    dims d = matmul_dims(n);
    if (pass == !d.ta) {
        double work = (double)d.batch * (double)d.m * (double)d.n * (double)d.k;
        return (int)SM_MIN(SM_MIN(matmul_items(&d), MOST), (int64_t)(work / 1e5) + 1);
    }
    int64_t moved = d.ta ? (d.splits > 1 ? sm_numel(n) : 1) : d.batch * d.n * d.k;
    return (int)SM_MIN(SM_MIN(moved / 32768 + 1, MOST), d.ta ? MOST : d.batch * sm_panels(d.n));
}

/* Packed b, or the parts of the sum and each task's scratch. */
static int64_t matmul_parts(const dims *d) { return d->splits > 1 ? d->splits * d->batch * d->m * d->n : 0; }

static size_t matmul_work(const sm_node *n)
{
    dims d = matmul_dims(n);
    int64_t floats = d.ta ? matmul_parts(&d) + matmul_tasks(n, 0) * sm_scratch(d.m) : d.batch * sm_packed_cols(d.n) * d.k;
    return (size_t)floats * sizeof(float);
}

static sm_pack_src matmul_right(const sm_kcall *c, const dims *d, int64_t batch)
{
    return (sm_pack_src){.t = c->src[1], .base = batch * d->n * d->k, .col = d->tb ? d->k : 1, .step = d->tb ? 1 : d->n,
                         .n = d->n, .k = d->k, .taps = 1};
}

static void matmul_pack(const sm_kcall *c, const dims *d, int task, int tasks)
{
    int64_t panels = sm_panels(d->n), a, b;
    sm_range(d->batch * panels, task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) {
        int64_t batch = i / panels, j = i % panels * SM_NR;
        sm_pack_src s = matmul_right(c, d, batch);
        SM_K(sm_gemm_pack)(&s, j, (const int64_t[]){0, d->k}, (float *)c->work + (batch * sm_packed_cols(d->n) + j) * d->k);
    }
}

static void matmul_item(const sm_kcall *c, const dims *d, int64_t item, int task)
{
    int pieces = d->grid.tm * d->grid.tn;
    int64_t batch = item / pieces / d->splits, split = item / pieces % d->splits, r[2], j[2], p[2];
    const float *a = (const float *)c->src[0].data + batch * d->m * d->k;
    float *y = (float *)c->dst.data + batch * d->m * d->n;
    SM_K(sm_gemm_piece)(d->grid, (int)(item % pieces), d->m, d->n, r, j);
    if (!d->ta) {
        sm_gather g = dense(a, y, d->m, d->k, d->n, (const float *)c->work + batch * sm_packed_cols(d->n) * d->k);
        SM_K(sm_gemm_gather)(&g, r, j);
        return;
    }
    if (d->splits > 1)
        y = (float *)c->work + (split * d->batch + batch) * d->m * d->n;
    sm_outer o = {.src = a, .src_size = {1, d->k}, .ld_src = d->m, .m = d->m, .stride = {1, 1}, .n = 1, .grid = {1, d->k},
                  .taps = {one_tap, one_tap}, .right = matmul_right(c, d, batch), .out = y, .ld_out = d->n,
                  .scratch = (float *)c->work + matmul_parts(d) + task * sm_scratch(d->m)};
    sm_range(d->k, (int)split, d->splits, &p[0], &p[1]);
    SM_K(sm_gemm_outer)(&o, r, j, p);
}

static void matmul_sum(const sm_kcall *c, const dims *d, int task, int tasks)
{
    const float *part = c->work;
    float *y = c->dst.data;
    int64_t total = d->batch * d->m * d->n, a, b;
    sm_range(total, task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) {
        float s = part[i];
        for (int k = 1; k < d->splits; k++)
            s += part[k * total + i];
        y[i] = s;
    }
}

static void matmul_run(const sm_kcall *c, int task, int tasks)
{
    dims d = matmul_dims(c->node);
    if (c->pass == d.ta) {
        if (!d.ta)
            matmul_pack(c, &d, task, tasks);
        else if (d.splits > 1)
            matmul_sum(c, &d, task, tasks);
        return;
    }
    int64_t a, b;
    sm_range(matmul_items(&d), task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++)
        matmul_item(c, &d, i, task);
}

void SM_K(sm_cpu_linear)(sm_kernel *k)
{
    k[SM_OP_LINEAR] = (sm_kernel){.run = linear_run, .tasks = linear_tasks, .work = linear_work, .prep_bytes = linear_prep_bytes,
                                  .prep_unit = linear_prep_unit, .prep = linear_prep, .prep_tasks = linear_prep_tasks,
                                  .unprepared = linear_unprepared, .fuses = linear_fuses, .finish_work = linear_finish_work};
    k[SM_OP_MATMUL] = (sm_kernel){.run = matmul_run, .passes = 2, .tasks = matmul_tasks, .work = matmul_work};
}
