/* Group statistics of a picture without its margins, and group norm by given statistics. As in k_group_norm.c vectors run over
 * channels: every row of pixels gives each channel its mean and sum of squared deviations (two sweeps), rows and the channels
 * of a group are joined in double in the order of rows. */
#include "cpu/cpu.h"
#include "cpu/simd.h"

#include <math.h>

/* What counts of x [n, h, w, c]: rows of `width` pixels, rows of all pictures one after the other. */
typedef struct region { int64_t h, w, c, rows, width, groups; const int *margin; } region;

static region region_of(const sm_node *n)
{
    const int64_t *d = n->src[0]->dims;
    const int *m = n->p.norm.margin;
    return (region){d[1], d[2], d[3], d[0] * (d[1] - m[0] - m[1]), d[2] - m[2] - m[3], n->p.norm.groups, m};
}

/* out [2][c]: means, sums of squared deviations. */
static void row_sums(const region *g, const float *x, float *out)
{
    for (int64_t k = 0; k < g->c; k += SM_VL) {
        int part = (int)SM_MIN(g->c - k, SM_VL);
        vf mean = vset(0), m2 = vset(0);
        for (int64_t i = 0; i < g->width; i++)
            mean += vload_part(x + i * g->c + k, part, 0);
        mean = mean * (1 / (float)g->width);
        for (int64_t i = 0; i < g->width; i++) {
            vf d = vload_part(x + i * g->c + k, part, 0) - mean;
            m2 = vfma(d, d, m2);
        }
        vstore_part(out + k, mean, part);
        vstore_part(out + g->c + k, m2, part);
    }
}

static void join_group(const region *g, const float *sums, int64_t i, float *dst)
{
    int64_t d = g->c / g->groups, c0 = i * d;
    double mean = 0, m2 = 0;
    for (int64_t r = 0; r < g->rows; r++)
        for (int64_t k = c0; k < c0 + d; k++)
            mean += sums[r * 2 * g->c + k];
    mean /= (double)(g->rows * d);
    for (int64_t r = 0; r < g->rows; r++)
        for (int64_t k = c0; k < c0 + d; k++) {
            double t = sums[r * 2 * g->c + k] - mean;
            m2 += sums[(r * 2 + 1) * g->c + k] + (double)g->width * t * t;
        }
    dst[i] = (float)mean;
    dst[g->groups + i] = (float)(m2 / (double)(g->rows * g->width * d));
}

/* Pass 0: rows. Pass 1: groups. */
static void run_stats(const sm_kcall *c, int task, int tasks)
{
    region g = region_of(c->node);
    float *sums = c->work;
    int64_t per = g.h - g.margin[0] - g.margin[1], a, b;
    sm_range(c->pass ? g.groups : g.rows, task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++)
        if (c->pass)
            join_group(&g, sums, i, c->dst.data);
        else
            row_sums(&g, (const float *)c->src[0].data + ((i / per * g.h + i % per + g.margin[0]) * g.w + g.margin[2]) * g.c,
                     sums + i * 2 * g.c);
}

static int stats_tasks(const sm_node *n, int pass)
{
    region g = region_of(n);
    int64_t most = pass ? g.groups : g.rows, wanted = g.rows * g.c * (pass ? 2 : g.width) / 16384 + 1;
    return (int)SM_MIN(SM_MIN(most, wanted), 64);
}

static size_t stats_work(const sm_node *n)
{
    region g = region_of(n);
    return sizeof(float) * (size_t)(g.rows * 2 * g.c);
}

/* ---- y = (x - mean) scale + shift -------------------------------------------------------------------------------- */

/* Pass 0, one task: work [3][c] mean, scale, shift. */
static void fill_factors(const sm_kcall *c, int64_t ch)
{
    const float *t = c->src[1].data;
    const sm_tensor *w = &c->src[2], *b = &c->src[3];
    float *f = c->work;
    int64_t groups = c->node->p.norm.groups;
    for (int64_t k = 0; k < ch; k++) {
        int64_t g = k / (ch / groups);
        double rstd = 1 / sqrt(t[groups + g] + (double)c->node->p.norm.eps);
        f[k] = t[g];
        f[ch + k] = (float)(rstd * (c->nsrc > 2 && w->data ? sm_load_f32(w, k) : 1));
        f[2 * ch + k] = c->nsrc > 3 && b->data ? sm_load_f32(b, k) : 0;
    }
}

static void run_by(const sm_kcall *c, int task, int tasks)
{
    const sm_node *n = c->node;
    int64_t ch = n->dims[n->rank - 1], a, b;
    const float *f = c->work, *x = c->src[0].data;
    float *y = c->dst.data;
    if (!c->pass) {
        fill_factors(c, ch);
        return;
    }
    sm_range(sm_numel(n) / ch, task, tasks, &a, &b);
    for (int64_t r = a; r < b; r++)
        for (int64_t k = 0; k < ch; k += SM_VL) {
            int part = (int)SM_MIN(ch - k, SM_VL);
            vf d = vload_part(x + r * ch + k, part, 0) - vload_part(f + k, part, 0);
            vstore_part(y + r * ch + k, vfma(d, vload_part(f + ch + k, part, 0), vload_part(f + 2 * ch + k, part, 0)), part);
        }
}

static int by_tasks(const sm_node *n, int pass) { return pass ? sm_tasks_default(n, pass) : 1; }
static size_t by_work(const sm_node *n) { return sizeof(float) * (size_t)(3 * n->dims[n->rank - 1]); }

void SM_K(sm_group_stats_kernels)(sm_kernel *k);

void SM_K(sm_group_stats_kernels)(sm_kernel *k)
{
    k[SM_OP_GROUP_STATS] = (sm_kernel){.run = run_stats, .passes = 2, .tasks = stats_tasks, .work = stats_work};
    k[SM_OP_GROUP_NORM_BY] = (sm_kernel){.run = run_by, .passes = 2, .tasks = by_tasks, .work = by_work, .inplace = true};
}
