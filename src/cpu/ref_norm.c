/* Scalar reference of group, layer and RMS norm and their backward ops. Statistics are computed twice where a backward op
 * needs them: nothing is kept from the forward op. With xhat = (x - mean) * rstd and g = dy * w,
 *   dx = rstd * (g - mean(g) - xhat * mean(g * xhat)),  dw = sum dy * xhat,  db = sum dy;
 * RMS norm is the same without the mean of x and without mean(g). */
#include "cpu/ref.h"

#include <math.h>
#include <string.h>

/* Elements normalised together: `rows` runs of `width` values, runs `stride` apart, the first at `at`, its channel `c0`. */
typedef struct set { int64_t rows, width, stride, at, c0; } set;

static bool is_group(const sm_node *n) { return n->op >= SM_OP_GROUP_NORM && n->op <= SM_OP_GROUP_NORM_DP; }
static bool is_rms(const sm_node *n) { return n->op >= SM_OP_RMS_NORM && n->op <= SM_OP_RMS_NORM_DP; }

static int64_t set_count(const sm_kcall *c)
{
    const sm_tensor *x = &c->src[0];
    return is_group(c->node) ? x->dims[0] * c->node->p.norm.groups : ref_numel(x) / ref_last(x);
}

static set set_of(const sm_kcall *c, int64_t i)
{
    const sm_tensor *x = &c->src[0];
    int64_t ch = ref_last(x), g = c->node->p.norm.groups;
    if (!is_group(c->node))
        return (set){1, ch, ch, i * ch, 0};
    int64_t rows = ref_numel(x) / x->dims[0] / ch, w = ch / g;
    return (set){rows, w, ch, i / g * rows * ch + i % g * w, i % g * w};
}

static void stats(const sm_kcall *c, const set *s, double *mean, double *rstd)
{
    const float *x = ref_f32(c, 0);
    double m = 0, v = 0, n = (double)(s->rows * s->width);
    for (int64_t r = 0; r < s->rows && !is_rms(c->node); r++)
        for (int64_t j = 0; j < s->width; j++)
            m += x[s->at + r * s->stride + j] / n;
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t j = 0; j < s->width; j++) {
            double d = x[s->at + r * s->stride + j] - m;
            v += d * d / n;
        }
    *mean = m;
    *rstd = 1 / sqrt(v + c->node->p.norm.eps);
}

static double weight(const sm_kcall *c, int i, int64_t ch, double absent)
{
    return c->src[i].data ? sm_load_f32(&c->src[i], ch) : absent;
}

/* One task: sums in double, in the order of pixels. */
static void run_group_stats(const sm_kcall *c, int task, int tasks)
{
    const float *x = ref_f32(c, 0);
    const int64_t *d = c->src[0].dims;
    const int *cut = c->node->p.norm.margin;
    int64_t groups = c->node->p.norm.groups, width = d[3] / groups, h = d[1] - cut[0] - cut[1], w = d[2] - cut[2] - cut[3];
    double n = (double)(d[0] * h * w * width);
    for (int64_t g = 0; g < groups && task == 0; g++) {
        double m = 0, v = 0;
        for (int turn = 0; turn < 2; turn++)
            for (int64_t i = 0; i < d[0] * h * w * width; i++) {
                int64_t col = i / width % w + cut[2], row = i / width / w % h + cut[0], at = i / width / w / h;
                double t = x[((at * d[1] + row) * d[2] + col) * d[3] + g * width + i % width];
                if (turn)
                    v += (t - m) * (t - m) / n;
                else
                    m += t / n;
            }
        ((float *)c->dst.data)[g] = (float)m;
        ((float *)c->dst.data)[groups + g] = (float)v;
    }
}

static void run_group_norm_by(const sm_kcall *c, int task, int tasks)
{
    const float *x = ref_f32(c, 0), *t = ref_f32(c, 1);
    float *y = c->dst.data;
    int64_t ch = ref_last(&c->src[0]), groups = c->node->p.norm.groups, a, b;
    sm_range(ref_numel(&c->src[0]), task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) {
        int64_t k = i % ch, g = k / (ch / groups);
        double r = 1 / sqrt(t[groups + g] + (double)c->node->p.norm.eps);
        y[i] = (float)((x[i] - (double)t[g]) * r * weight(c, 2, k, 1) + weight(c, 3, k, 0));
    }
}

static void run_forward(const sm_kcall *c, int task, int tasks)
{
    const float *x = ref_f32(c, 0);
    float *y = c->dst.data;
    int64_t a, b;
    sm_range(set_count(c), task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) {
        set s = set_of(c, i);
        double mean, rstd;
        stats(c, &s, &mean, &rstd);
        for (int64_t r = 0; r < s.rows; r++)
            for (int64_t j = 0; j < s.width; j++) {
                int64_t at = s.at + r * s.stride + j;
                double bias = is_rms(c->node) ? 0 : weight(c, 2, s.c0 + j, 0);
                y[at] = (float)((x[at] - mean) * rstd * weight(c, 1, s.c0 + j, 1) + bias);
            }
    }
}

static void run_dx(const sm_kcall *c, int task, int tasks)
{
    const float *x = ref_f32(c, 0), *dy = ref_f32(c, 1);
    float *dx = c->dst.data;
    int64_t a, b;
    sm_range(set_count(c), task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) {
        set s = set_of(c, i);
        double mean, rstd, mg = 0, mgx = 0, n = (double)(s.rows * s.width);
        stats(c, &s, &mean, &rstd);
        for (int64_t r = 0; r < s.rows; r++)
            for (int64_t j = 0; j < s.width; j++) {
                int64_t at = s.at + r * s.stride + j;
                double g = dy[at] * weight(c, 2, s.c0 + j, 1);
                mg += g / n;
                mgx += g * (x[at] - mean) * rstd / n;
            }
        if (is_rms(c->node))
            mg = 0;
        for (int64_t r = 0; r < s.rows; r++)
            for (int64_t j = 0; j < s.width; j++) {
                int64_t at = s.at + r * s.stride + j;
                double g = dy[at] * weight(c, 2, s.c0 + j, 1);
                dx[at] = (float)(rstd * (g - mg - (x[at] - mean) * rstd * mgx));
            }
    }
}

/* One task: the sums run over all sets. work: dw and db in double. */
static void run_dp(const sm_kcall *c, int task, int tasks)
{
    const float *x = ref_f32(c, 0), *dy = ref_f32(c, 1);
    int64_t ch = ref_last(&c->src[0]), rows = c->dst.dims[0];
    float *out = c->dst.data;
    double *sum = c->work;
    memset(sum, 0, sizeof *sum * (size_t)(2 * ch));
    for (int64_t i = 0; i < set_count(c); i++) {
        set s = set_of(c, i);
        double mean, rstd;
        stats(c, &s, &mean, &rstd);
        for (int64_t r = 0; r < s.rows; r++)
            for (int64_t j = 0; j < s.width; j++) {
                int64_t at = s.at + r * s.stride + j;
                sum[s.c0 + j] += dy[at] * (x[at] - mean) * rstd;
                sum[ch + s.c0 + j] += dy[at];
            }
    }
    for (int64_t j = 0; j < rows * ch; j++)
        out[j] = (float)sum[j];
}

static int one_task(const sm_node *n, int pass) { return 1; }
static size_t dp_work(const sm_node *n) { return sizeof(double) * 2 * (size_t)n->dims[1]; }

void sm_cpu_norm_scalar(sm_kernel *k)
{
    static const sm_op_id forward[] = {SM_OP_GROUP_NORM, SM_OP_LAYER_NORM, SM_OP_RMS_NORM};
    for (int i = 0; i < 3; i++) { /* _DX and _DP follow */
        k[forward[i]] = (sm_kernel){.run = run_forward};
        k[forward[i] + 1] = (sm_kernel){.run = run_dx};
        k[forward[i] + 2] = (sm_kernel){.run = run_dp, .tasks = one_task, .work = dp_work};
    }
    k[SM_OP_GROUP_STATS] = (sm_kernel){.run = run_group_stats, .tasks = one_task};
    k[SM_OP_GROUP_NORM_BY] = (sm_kernel){.run = run_group_norm_by};
}
