/* linear with operands rounded to bfloat16 (bf16.h): prep is the weight as panels of pairs, half the bytes of f32. Layers whose
 * rows are a batch's items (embeddings of timesteps and what is modulated by them, pooled texts) or few tokens of each stay f32:
 * they take no time, and what they are rounded by would move every token. That depends on one item alone, so that an item's bits
 * do not depend on the batch. */
#include "cpu/bf16.h"
#include "cpu/linear_few.h"

enum { MOST = 32 }; /* tasks of an op */

static sm_kernel plain; /* the f32 row; constant once the tables are filled */

static bool rounds(const sm_node *n) { return sm_linear_rows(n) / n->dims[0] > SM_FEW_ROWS; }

static const char *how(const sm_node *n) { return rounds(n) ? "bf16" : plain.how ? plain.how(n) : NULL; }

static sm_grid grid_of(const sm_node *n, int64_t cols)
{
    double k = (double)n->src[1]->dims[1];
    return SM_K(sm_gemm_grid)(sm_linear_rows(n), cols, k / 2, k, MOST);
}

static int tasks_of(const sm_node *n, int pass)
{
    if (!rounds(n))
        return plain.tasks(n, pass);
    sm_grid g = grid_of(n, n->src[1]->dims[0]);
    return g.tm * g.tn;
}

/* Words of a task's copies of rows, floats of its unfinished results. */
static int64_t copy_of(const sm_node *n) { return SM_MIN(sm_linear_rows(n), BF_MC) * BF_LD; }
static int64_t sums_of(const sm_node *n) { return SM_MIN(sm_linear_rows(n), BF_MC) * bf16_sums(n->src[1]->dims[1]); }

static size_t work_of(const sm_node *n)
{
    if (!rounds(n))
        return plain.work ? plain.work(n) : 0;
    return sizeof(uint32_t) * (size_t)(copy_of(n) * tasks_of(n, 0));
}

static size_t finish_work(const sm_node *n)
{
    if (!rounds(n))
        return plain.finish_work ? plain.finish_work(n) : 0;
    return sizeof(float) * (size_t)(sums_of(n) * tasks_of(n, 0));
}

/* ---- the weight -------------------------------------------------------------------------------------------------- */

static size_t prep_unit(const sm_node *n)
{
    if (!rounds(n))
        return plain.prep_unit ? plain.prep_unit(n) : 0;
    return sizeof(uint32_t) * BF_NR * (size_t)bf16_pairs(n->src[1]->dims[1]);
}

static size_t prep_bytes(const sm_node *n)
{
    if (!rounds(n))
        return plain.prep_bytes(n);
    return prep_unit(n) * (size_t)bf16_panels(n->src[1]->dims[0]);
}

static int prep_tasks(const sm_node *n)
{
    if (!rounds(n))
        return plain.prep_tasks ? plain.prep_tasks(n) : 1;
    int64_t most = bf16_panels(n->src[1]->dims[0]) * sm_pack_pieces(n->src[1]->dims[1]), wanted = sm_numel(n->src[1]) / 65536 + 1;
    return (int)SM_MIN(SM_MIN(most, wanted), MOST);
}

/* Panels that a part of a call is about; with a gate those of the left half. */
static void part_of(const sm_kcall *c, int64_t part[2])
{
    sm_part_of(c, bf16_panels(c->src[1].dims[0]) / (c->finish.gate ? 2 : 1), part);
}

/* With a gate a part is panels of the left half and then those of the right half that belong to them: a whole weight lies as
 * usual. */
static void prep(const sm_kcall *c, void *out, int task, int tasks)
{
    if (!rounds(c->node)) {
        plain.prep(c, out, task, tasks);
        return;
    }
    const sm_tensor *w = &c->src[1];
    int64_t k = w->dims[1], part[2], pieces = sm_pack_pieces(k), a, b, steps[2], half = bf16_panels(w->dims[0]) / 2;
    part_of(c, part);
    int64_t panels = part[1] - part[0];
    sm_range(panels * (c->finish.gate ? 2 : 1) * pieces, task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) {
        int64_t at = i / pieces, panel = at < panels ? part[0] + at : part[0] + at - panels + half;
        sm_pack_piece(k, i, steps);
        int64_t p[2] = {steps[0] / 2, bf16_pairs(steps[1])};
        sm_bf16_pack(w, panel * BF_NR, p, (uint32_t *)out + (at * bf16_pairs(k) + p[0]) * BF_NR);
    }
}

static bool unprepared(const sm_node *n) { return !rounds(n) && plain.unprepared && plain.unprepared(n); }

/* ---- the product ------------------------------------------------------------------------------------------------- */

/* A gate needs whole panels on both sides. */
static bool fuses(const sm_node *n, const sm_finish *f)
{
    if (!rounds(n))
        return plain.fuses(n, f);
    return SM_K(sm_finish_knows)(f->act) && !f->doubled && (!f->gate || n->src[1]->dims[0] % (2 * BF_NR) == 0);
}

static void run(const sm_kcall *c, int task, int tasks)
{
    const sm_node *n = c->node;
    if (!rounds(n)) {
        plain.run(c, task, tasks);
        return;
    }
    const sm_finish *f = &c->finish;
    int64_t part[2], r[2], j[2], a, b;
    bf16_product g = {.x = c->src[0].data, .dst = c->dst.data, .k = c->src[1].dims[1], .b = c->prep, .bias = c->src[2]};
    g.cols = c->src[1].dims[0] / (f->gate ? 2 : 1);
    g.copy = (uint32_t *)c->work + task * copy_of(n);
    part_of(c, part);
    g.b_from = part[0] * BF_NR;
    if (f->act != SM_OP_INPUT || f->gate || f->add_rows) {
        g.finish = f;
        g.sums = (float *)c->work + copy_of(n) * tasks + task * sums_of(n);
        g.gate = (part[1] - part[0]) * BF_NR;
    }
    int64_t cols = SM_MIN(part[1] * BF_NR, g.cols) - g.b_from;
    sm_grid grid = grid_of(n, cols);
    sm_range(grid.tm * grid.tn, task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) {
        SM_K(sm_gemm_piece)(grid, (int)i, sm_linear_rows(n), cols, r, j);
        j[0] += g.b_from;
        j[1] += g.b_from;
        sm_bf16_gemm(&g, r, j);
    }
}

void sm_cpu_bf16_rows(sm_kernel *k)
{
    plain = k[SM_OP_LINEAR];
    k[SM_OP_LINEAR] = (sm_kernel){.run = run, .tasks = tasks_of, .work = work_of, .prep_bytes = prep_bytes, .prep_unit = prep_unit,
                                  .prep = prep, .prep_tasks = prep_tasks, .unprepared = unprepared, .how = how, .fuses = fuses,
                                  .finish_work = finish_work};
    sm_bf16_attention_rows(k);
}
