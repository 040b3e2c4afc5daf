/* conv2d and its input gradient as gather products, its weight gradient as an outer product.
 *
 * conv2d_dx gathers too: the pixels of x fall into stride*stride phases, and all pixels of a phase receive the same taps
 * from output pixels at a fixed distance. With circular padding a pixel has up to three images along an axis. */
#include "cpu/winograd.h"

enum { MOST = 32 }; /* tasks of one op */

/* ---- geometry ---------------------------------------------------------------------------------------------------- */

/* Forward: tap k of an axis reads input position out*stride + k*dil - pad. */
static sm_taps forward_taps(const sm_param *p, int axis, int64_t kernel)
{
    int dil = p->conv.dil[axis];
    return (sm_taps){{{(int)kernel, 0, 1, -p->conv.pad[2 * axis], dil}}, (int)kernel};
}

/* Backward: input position phase + g*stride (its image `turn` sizes further) is read by tap k of output
 * g + (phase + pad + turn*size - k*dil) / stride, where that is whole: every k_step-th k from the first that fits. */
static sm_taps backward_taps(const sm_param *p, int axis, int64_t kernel, int64_t size, int phase)
{
    sm_taps t = {.count = 0};
    int s = p->conv.stride[axis], dil = p->conv.dil[axis], reach = p->conv.circular[axis] ? 1 : 0;
    for (int turn = -reach; turn <= reach; turn++) {
        int64_t at = phase + p->conv.pad[2 * axis] + turn * size, k = 0, step = 1;
        while (step < s && step * dil % s)
            step++;
        while (k < step && (at - k * dil) % s)
            k++;
        sm_prog *g = &t.p[turn + reach];
        if (k < step && k < kernel) { /* from the last tap to the first, so that sources are read forwards */
            int64_t count = (kernel - k + step - 1) / step, last = k + (count - 1) * step;
            *g = (sm_prog){(int)count, (int)last, -(int)step, (at - last * dil) / s, step * dil / s};
        }
        t.count += g->count;
    }
    return t;
}

/* Number of positions of an axis in a phase. */
static int64_t phase_size(int64_t size, int stride, int phase) { return (size - phase + stride - 1) / stride; }

/* ---- shared by conv2d and conv2d_dx ------------------------------------------------------------------------------ */

/* What differs between the two: k source channels and cols result channels of one group, rows of the largest phase. */
typedef struct plan { int64_t taps, k, cols, rows; int groups, phases[2]; int64_t from, to; sm_grid grid; } plan;

/* part: panels of the weight, as sm_kcall.part; from and to are columns. Only a weight of one group is cut. */
static plan make_plan(const sm_node *n, const int64_t part[2])
{
    const int64_t *w = n->src[1]->dims, *x = n->src[0]->dims;
    bool back = n->op == SM_OP_CONV2D_DX;
    plan p = {.taps = w[2] * w[3], .groups = n->p.conv.groups, .phases = {1, 1}};
    p.k = back ? w[0] / p.groups : w[1];
    p.cols = back ? w[1] : w[0] / p.groups;
    if (back)
        for (int i = 0; i < 2; i++)
            p.phases[i] = (int)SM_MIN(n->p.conv.stride[i], n->dims[1 + i]);
    int64_t pieces = (int64_t)p.phases[0] * p.phases[1];
    p.rows = n->dims[0] * phase_size(n->dims[1], p.phases[0], 0) * phase_size(n->dims[2], p.phases[1], 0);
    p.from = part[0] * SM_NR;
    p.to = part[1] ? SM_MIN(part[1] * SM_NR, p.cols) : p.cols;
    double taps = (double)p.taps / (double)pieces,
           source = (double)p.k * SM_MIN(taps, (double)(x[0] * x[1] * x[2]) / (double)p.rows);
    p.grid = SM_K(sm_gemm_grid)(p.rows, p.to - p.from, (double)p.k * taps, source, (int)SM_MAX(1, MOST / (pieces * p.groups)));
    return p;
}

static plan whole_plan(const sm_node *n) { return make_plan(n, (const int64_t[]){0, 0}); }

static int64_t plan_items(const plan *p) { return (int64_t)p->groups * p->phases[0] * p->phases[1] * p->grid.tm * p->grid.tn; }

static int gather_tasks(const sm_node *n, int pass)
{
    plan p = whole_plan(n);
    double work = (double)p.rows * p.phases[0] * p.phases[1] * (double)p.cols * p.groups * (double)p.k * (double)p.taps;
    return (int)SM_MIN(SM_MIN(plan_items(&p), MOST), (int64_t)(work / 1e5) + 1);
}

/* Packed weight: [group][panel][tap][k][width]. */
static size_t gather_prep_bytes(const sm_node *n)
{
    plan p = whole_plan(n);
    return (size_t)(p.groups * sm_packed_cols(p.cols) * p.taps * p.k) * sizeof(float);
}

static size_t gather_prep_unit(const sm_node *n)
{
    plan p = whole_plan(n);
    return p.groups > 1 ? 0 : (size_t)(SM_NR * p.taps * p.k) * sizeof(float);
}

static int gather_prep_tasks(const sm_node *n)
{
    plan p = whole_plan(n);
    return (int)SM_MIN(SM_MIN(p.groups * sm_panels(p.cols) * sm_pack_pieces(p.k), sm_numel(n->src[1]) / 32768 + 1), MOST);
}

static void gather_prep(const sm_kcall *c, void *out, int task, int tasks)
{
    plan p = make_plan(c->node, c->part);
    const sm_tensor *w = &c->src[1]; /* [O, C/g, kh, kw] */
    int64_t panels = sm_panels(p.to - p.from), pieces = sm_pack_pieces(p.k), a, b, in = p.taps, o = w->dims[1] * p.taps, steps[2];
    bool back = c->node->op == SM_OP_CONV2D_DX;
    sm_pack_src s = {.t = *w, .col = back ? in : o, .step = back ? o : in, .tap_step = 1, .n = p.cols, .k = p.k, .taps = p.taps};
    sm_range(p.groups * panels * pieces, task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) { /* where a step's columns lie side by side, their panels follow each other */
        int64_t g = i / pieces / panels, j = (back ? i % panels : i / pieces % panels) * SM_NR;
        s.base = g * (w->dims[0] / p.groups) * o;
        sm_pack_piece(p.k, back ? i / panels : i, steps);
        SM_K(sm_gemm_pack)(&s, p.from + j, steps, (float *)out + (g * sm_packed_cols(p.cols) + j) * p.taps * p.k);
    }
}

/* Where no padding comes between them, the taps of a kernel row are one run of neighbouring pixels. */
static void join_row(sm_gather *g, const sm_param *p, int64_t kw)
{
    if (p->conv.groups == 1 && p->conv.dil[1] == 1 && !p->conv.pad[2] && !p->conv.pad[3]) {
        g->k *= kw;
        g->kw = 1;
        g->taps[1] = (sm_taps){{{1, 0, 1, 0, 0}}, 1};
    }
}

static void gather_item(const sm_kcall *c, const plan *p, int64_t item)
{
    const sm_tensor *x = &c->src[0], *w = &c->src[1], *y = &c->dst;
    const sm_param *q = &c->node->p;
    bool back = c->node->op == SM_OP_CONV2D_DX;
    int pieces = p->grid.tm * p->grid.tn;
    int64_t phase = item / pieces % (p->phases[0] * p->phases[1]), group = item / pieces / (p->phases[0] * p->phases[1]), r[2],
            j[2];
    sm_gather g = {
        .src = (const float *)x->data + group * p->k, .src_size = {x->dims[1], x->dims[2]}, .ld_src = x->dims[3], .n = x->dims[0],
        .dst = (float *)y->data + group * p->cols, .dst_size = {y->dims[1], y->dims[2]}, .ld_dst = y->dims[3],
        .kw = (int)w->dims[3], .k = p->k, .cols = p->cols, .packed_k = p->taps * p->k,
        .b = (const float *)c->prep + group * sm_packed_cols(p->cols) * p->taps * p->k, .b_from = p->from, .bias = c->src[2],
        .bias_base = group * p->cols};
    for (int i = 0; i < 2; i++) {
        int f = (int)(i ? phase % p->phases[1] : phase / p->phases[1]);
        g.stride[i] = back ? 1 : q->conv.stride[i];
        g.circular[i] = back ? 0 : q->conv.circular[i];
        g.dst_step[i] = back ? q->conv.stride[i] : 1;
        g.dst_off[i] = f;
        g.grid[i] = phase_size(y->dims[1 + i], g.dst_step[i], f);
        g.taps[i] = back ? backward_taps(q, i, w->dims[2 + i], y->dims[1 + i], f) : forward_taps(q, i, w->dims[2 + i]);
    }
    if (!back)
        join_row(&g, q, w->dims[3]);
    SM_K(sm_gemm_piece)(p->grid, (int)(item % pieces), g.n * g.grid[0] * g.grid[1], p->to - p->from, r, j);
    j[0] += p->from;
    j[1] += p->from;
    SM_K(sm_gemm_gather)(&g, r, j);
}

static void gather_run(const sm_kcall *c, int task, int tasks)
{
    plan p = make_plan(c->node, c->part);
    int64_t a, b;
    sm_range(plan_items(&p), task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++)
        gather_item(c, &p, i);
}

/* ---- conv2d_dw --------------------------------------------------------------------------------------------------- */

/* Pass 0: work[split][group][tap][C/g][O/g] = sums over parts of the pixels (then, for a single tap, scratch). Pass 1: adds the
 * parts in order and turns the result to [O, C/g, kh, kw]. */
typedef struct dw_plan { int64_t taps, cg, og, pixels; int groups, splits; sm_grid grid; } dw_plan;

static dw_plan make_dw(const sm_node *n)
{
    const int64_t *y = n->src[1]->dims;
    dw_plan p = {.taps = n->dims[2] * n->dims[3], .cg = n->dims[1], .groups = n->p.conv.groups, .pixels = y[0] * y[1] * y[2]};
    p.og = n->dims[0] / p.groups;
    p.splits = sm_gemm_splits(sm_numel(n), p.pixels);
    double k = (double)p.pixels / p.splits;
    p.grid = SM_K(sm_gemm_grid)(p.taps * p.cg, p.og, k, k / (double)p.taps, SM_MAX(1, MOST / (p.groups * p.splits)));
    return p;
}

static int64_t dw_items(const dw_plan *p) { return (int64_t)p->groups * p->splits * p->grid.tm * p->grid.tn; }

static int dw_tasks(const sm_node *n, int pass)
{
    dw_plan p = make_dw(n);
    if (pass == 1)
        return (int)SM_MIN(SM_MIN(sm_numel(n) / 32768 + 1, MOST), n->dims[0]);
    double work = (double)sm_numel(n) * (double)p.pixels;
    return (int)SM_MIN(SM_MIN(dw_items(&p), MOST), (int64_t)(work / 1e5) + 1);
}

static int64_t dw_parts(const dw_plan *p) { return p->splits * p->groups * p->taps * p->cg * p->og; }

static size_t dw_work(const sm_node *n)
{
    dw_plan p = make_dw(n);
    return (size_t)(dw_parts(&p) + (p.taps == 1 ? dw_tasks(n, 0) * sm_scratch(n->src[0]->dims[3]) : 0)) * sizeof(float);
}

static void dw_item(const sm_kcall *c, const dw_plan *p, int64_t item, int task)
{
    const sm_tensor *x = &c->src[0], *y = &c->src[1];
    const sm_param *q = &c->node->p;
    int pieces = p->grid.tm * p->grid.tn;
    int64_t group = item / pieces % p->groups, split = item / pieces / p->groups, r[2], j[2], px[2];
    sm_outer o = {
        .src = (const float *)x->data + group * p->cg, .src_size = {x->dims[1], x->dims[2]}, .ld_src = x->dims[3], .m = p->cg,
        .stride = {q->conv.stride[0], q->conv.stride[1]}, .circular = {q->conv.circular[0], q->conv.circular[1]},
        .n = y->dims[0], .grid = {y->dims[1], y->dims[2]},
        .taps = {forward_taps(q, 0, q->conv.size[0]), forward_taps(q, 1, q->conv.size[1])},
        .right = {.t = *y, .base = group * p->og, .col = 1, .step = y->dims[3], .n = p->og, .k = p->pixels, .taps = 1},
        .out = (float *)c->work + (split * p->groups + group) * p->taps * p->cg * p->og, .ld_out = p->og,
        .scratch = (float *)c->work + dw_parts(p) + task * sm_scratch(x->dims[3])};
    SM_K(sm_gemm_piece)(p->grid, (int)(item % pieces), p->taps * p->cg, p->og, r, j);
    sm_range(p->pixels, (int)split, p->splits, &px[0], &px[1]);
    SM_K(sm_gemm_outer)(&o, r, j, px);
}

/* Sums of `count` values (channel, tap) from number v on, each for n <= TURN columns from column i of all groups, to x
 * [count][TURN]. */
enum { TURN = 16, RUN = 72 };
static void dw_sums(const float *part, const dw_plan *p, int64_t i, int n, int64_t v, int64_t count, float *x)
{
    int64_t per_group = p->taps * p->cg * p->og, total = per_group * p->groups, ch = v / p->taps, tap = v % p->taps;
    const float *from = part + i / p->og * per_group + i % p->og;
    for (int64_t k = 0; k < count; k++, x += TURN) {
        const float *at = from + (tap * p->cg + ch) * p->og;
        memcpy(x, at, (size_t)n * sizeof *x);
        for (int split = 1; split < p->splits; split++)
            for (int l = 0; l < n; l++)
                x[l] += at[split * total + l];
        if (++tap == p->taps) {
            tap = 0;
            ch++;
        }
    }
}

static void dw_turn(const sm_kcall *c, const dw_plan *p, int task, int tasks)
{
    float *dw = c->dst.data, x[RUN * TURN];
    int64_t each = p->cg * p->taps, a, b;
    sm_range(p->og * p->groups, task, tasks, &a, &b);
    for (int64_t i = a, n; i < b; i += n) {
        n = SM_MIN(SM_MIN(TURN, b - i), p->og - i % p->og);
        for (int64_t v = 0; v < each; v += RUN) {
            int64_t count = SM_MIN(RUN, each - v);
            dw_sums(c->work, p, i, (int)n, v, count, x);
            sm_transpose(x, TURN, dw + i * each + v, each, n, count);
        }
    }
}

static void dw_run(const sm_kcall *c, int task, int tasks)
{
    dw_plan p = make_dw(c->node);
    if (c->pass == 1) {
        dw_turn(c, &p, task, tasks);
        return;
    }
    int64_t a, b;
    sm_range(dw_items(&p), task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++)
        dw_item(c, &p, i, task);
}

/* ---- the rows: by minimal filtering where that fits -------------------------------------------------------------- */

static int conv_tasks(const sm_node *n, int pass)
{
    return SM_K(sm_winograd_fits)(n) ? SM_K(sm_winograd_tasks)(n) : gather_tasks(n, pass);
}
static size_t conv_work(const sm_node *n) { return SM_K(sm_winograd_fits)(n) ? SM_K(sm_winograd_work)(n) : 0; }
static size_t conv_prep_bytes(const sm_node *n)
{
    return SM_K(sm_winograd_fits)(n) ? SM_K(sm_winograd_prep_bytes)(n) : gather_prep_bytes(n);
}
static size_t conv_prep_unit(const sm_node *n)
{
    return SM_K(sm_winograd_fits)(n) ? SM_K(sm_winograd_prep_unit)(n) : gather_prep_unit(n);
}
static bool conv_unprepared(const sm_node *n) { return SM_K(sm_winograd_fits)(n) && SM_K(sm_winograd_unprepared)(n); }
static int conv_prep_tasks(const sm_node *n)
{
    return SM_K(sm_winograd_fits)(n) ? SM_K(sm_winograd_prep_tasks)(n) : gather_prep_tasks(n);
}
static void conv_prep(const sm_kcall *c, void *out, int task, int tasks)
{
    (SM_K(sm_winograd_fits)(c->node) ? SM_K(sm_winograd_prep) : gather_prep)(c, out, task, tasks);
}
static void conv_run(const sm_kcall *c, int task, int tasks)
{
    (SM_K(sm_winograd_fits)(c->node) ? SM_K(sm_winograd_run) : gather_run)(c, task, tasks);
}
/* Sizes must be even where pixels are doubled. */
static bool conv_fuses(const sm_node *n, const sm_finish *f)
{
    const int64_t *x = n->src[0]->dims;
    int64_t pixels = n->dims[1] * n->dims[2];
    return n->op == SM_OP_CONV2D && f->act == SM_OP_INPUT && !f->gate && (f->add_rows <= 1 || f->add_rows % pixels == 0) &&
           (!f->doubled || (x[1] % 2 == 0 && x[2] % 2 == 0)) && SM_K(sm_winograd_fits)(n);
}
static const char *conv_how(const sm_node *n) { return SM_K(sm_winograd_fits)(n) ? SM_K(sm_winograd_how)(n) : NULL; }
static int weight_tasks(const sm_node *n, int pass)
{
    return SM_K(sm_winograd_dw_fits)(n) ? SM_K(sm_winograd_dw_tasks)(n, pass) : dw_tasks(n, pass);
}
static size_t weight_work(const sm_node *n) { return SM_K(sm_winograd_dw_fits)(n) ? SM_K(sm_winograd_dw_work)(n) : dw_work(n); }
static void weight_run(const sm_kcall *c, int task, int tasks)
{
    (SM_K(sm_winograd_dw_fits)(c->node) ? SM_K(sm_winograd_dw_run) : dw_run)(c, task, tasks);
}

void SM_K(sm_cpu_conv)(sm_kernel *k)
{
    k[SM_OP_CONV2D] = k[SM_OP_CONV2D_DX] = (sm_kernel){.run = conv_run, .tasks = conv_tasks, .work = conv_work,
                                                       .prep_bytes = conv_prep_bytes,
                                                       .prep_unit = conv_prep_unit, .prep = conv_prep,
                                                       .prep_tasks = conv_prep_tasks,
                                                       .unprepared = conv_unprepared, .how = conv_how, .fuses = conv_fuses};
    k[SM_OP_CONV2D_DW] = (sm_kernel){.run = weight_run, .passes = 2, .tasks = weight_tasks, .work = weight_work};
}

void SM_K(sm_cpu_conv_direct)(sm_kernel *k)
{
    k[SM_OP_CONV2D] = k[SM_OP_CONV2D_DX] = (sm_kernel){.run = gather_run, .tasks = gather_tasks, .prep_bytes = gather_prep_bytes,
                                                       .prep_unit = gather_prep_unit, .prep = gather_prep,
                                                       .prep_tasks = gather_prep_tasks};
    k[SM_OP_CONV2D_DW] = (sm_kernel){.run = dw_run, .passes = 2, .tasks = dw_tasks, .work = dw_work};
}
