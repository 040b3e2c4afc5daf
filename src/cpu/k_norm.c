/* Layer and RMS norm: a row at a time, sums in sixteen lanes. Group norm (channels last) is k_group_norm.c.
 * The backward ops compute the statistics again; formulas in ref_norm.c. Each kernel is legal in place: a row (or a block)
 * is read before it is written. Weights in f16 or bf16 are widened into the work memory in a first pass. */
#include "cpu/cpu.h"
#include "cpu/simd.h"

enum { DP_ROWS = 64 }; /* rows whose dw, db are summed in order; the blocks are then added in double, in order */

typedef struct stat { float mean, rstd; } stat;

static bool is_rms(const sm_node *n) { return n->op >= SM_OP_RMS_NORM && n->op <= SM_OP_RMS_NORM_DP; }
static int64_t width_of(const sm_node *n) { return n->src[0]->dims[n->src[0]->rank - 1]; }

/* Sum over a row of (x - mean)^2, or of x when `squares` is false. */
static inline float row_sum(const float *x, int64_t n, float mean, bool squares)
{
    vf acc[SM_LV], m = vset(mean);
    for (int l = 0; l < SM_LV; l++)
        acc[l] = vset(0);
    for (int64_t i = 0; i < n; i += 16)
        for (int l = 0; l < SM_LV; l++) {
            vf v = vload16(x, i, n, l, mean);
            acc[l] = squares ? vfma(v - m, v - m, acc[l]) : acc[l] + v;
        }
    return sm_fold16(acc);
}

static inline stat row_stat(const float *x, int64_t n, float eps, bool rms)
{
    float mean = rms ? 0 : row_sum(x, n, 0, false) / (float)n;
    float var = row_sum(x, n, mean, true) / (float)n;
    return (stat){mean, 1 / __builtin_sqrtf(var + eps)};
}

/* ---- weights as f32 ---- */

/* Source i as f32: itself, or its copy number `slot` in the work memory; NULL when absent. */
static const float *vector(const sm_kcall *c, int i, int slot, int64_t n)
{
    if (!c->src[i].data || c->src[i].dtype == SM_F32)
        return c->src[i].data;
    return (const float *)c->work + slot * ((n + 15) & ~(int64_t)15);
}

static void widen(const sm_kcall *c, int first)
{
    int64_t n = width_of(c->node);
    for (int i = first; i < c->nsrc; i++)
        if (c->src[i].data && c->src[i].dtype != SM_F32)
            for (int64_t k = 0; k < n; k++)
                ((float *)c->work)[(i - first) * ((n + 15) & ~(int64_t)15) + k] = sm_load_f32(&c->src[i], k);
}

static bool has_narrow(const sm_node *n)
{
    for (int i = 1; i < n->nsrc; i++)
        if (n->src[i] && n->src[i]->dtype != SM_F32)
            return true;
    return false;
}

static size_t widen_work(const sm_node *n) { return has_narrow(n) ? sizeof(float) * 2 * ((size_t)width_of(n) + 16) : 0; }
static int row_tasks(const sm_node *n, int pass) { return pass ? sm_tasks_default(n, 0) : 1; }

/* ---- forward and dx: pass 0 widens, pass 1 computes ---- */

static void run_forward(const sm_kcall *c, int task, int tasks)
{
    if (c->pass == 0) {
        widen(c, 1);
        return;
    }
    bool rms = is_rms(c->node);
    int64_t n = width_of(c->node), from, to;
    const float *w = vector(c, 1, 0, n), *b = rms ? NULL : vector(c, 2, 1, n);
    sm_range(sm_numel(c->node) / n, task, tasks, &from, &to);
    for (int64_t r = from; r < to; r++) {
        const float *x = (const float *)c->src[0].data + r * n;
        float *y = (float *)c->dst.data + r * n;
        stat s = row_stat(x, n, c->node->p.norm.eps, rms);
        vf mean = vset(s.mean), rstd = vset(s.rstd);
        for (int64_t i = 0; i < n; i += 16)
            for (int l = 0; l < SM_LV; l++) {
                vf v = (vload16(x, i, n, l, 0) - mean) * rstd;
                if (w)
                    v = v * vload16(w, i, n, l, 0);
                if (b)
                    v = v + vload16(b, i, n, l, 0);
                vstore16(y, i, n, l, v);
            }
    }
}

/* dx = rstd * (g - mg - xhat * mgx) */
static void run_dx(const sm_kcall *c, int task, int tasks)
{
    if (c->pass == 0) {
        widen(c, 2);
        return;
    }
    bool rms = is_rms(c->node);
    int64_t n = width_of(c->node), from, to;
    const float *w = vector(c, 2, 0, n);
    sm_range(sm_numel(c->node) / n, task, tasks, &from, &to);
    for (int64_t r = from; r < to; r++) {
        const float *x = (const float *)c->src[0].data + r * n, *dy = (const float *)c->src[1].data + r * n;
        float *dx = (float *)c->dst.data + r * n;
        stat s = row_stat(x, n, c->node->p.norm.eps, rms);
        vf mean = vset(s.mean), rstd = vset(s.rstd), sg[SM_LV], sx[SM_LV];
        for (int l = 0; l < SM_LV; l++)
            sg[l] = sx[l] = vset(0);
        for (int64_t i = 0; i < n; i += 16)
            for (int l = 0; l < SM_LV; l++) {
                vf g = vload16(dy, i, n, l, 0);
                if (w)
                    g = g * vload16(w, i, n, l, 0);
                sg[l] += g;
                sx[l] = vfma(g, vload16(x, i, n, l, s.mean) - mean, sx[l]);
            }
        vf mg = vset(rms ? 0 : sm_fold16(sg) / (float)n), k = vset(sm_fold16(sx) * s.rstd * s.rstd / (float)n);
        for (int64_t i = 0; i < n; i += 16)
            for (int l = 0; l < SM_LV; l++) {
                vf g = vload16(dy, i, n, l, 0);
                if (w)
                    g = g * vload16(w, i, n, l, 0);
                vstore16(dx, i, n, l, rstd * vfma(mean - vload16(x, i, n, l, 0), k, g - mg));
            }
    }
}

/* ---- dw, db: pass 0 sums blocks of rows, pass 1 adds the blocks ---- */

static int64_t dp_rows(const sm_node *n) { return sm_numel(n->src[0]) / width_of(n); }
static int64_t dp_blocks(const sm_node *n) { return (dp_rows(n) + DP_ROWS - 1) / DP_ROWS; }

static int dp_tasks(const sm_node *n, int pass)
{
    int64_t t = pass ? width_of(n) * dp_blocks(n) / 8192 : SM_MIN(dp_blocks(n), sm_numel(n->src[0]) / 16384);
    return (int)SM_MAX(SM_MIN(SM_MIN(t, 64), width_of(n)), 1);
}

static size_t dp_work(const sm_node *n) { return sizeof(float) * 2 * (size_t)(dp_blocks(n) * width_of(n)); }

/* out[0][C] = sum dy xhat, out[1][C] = sum dy */
static void dp_block(const float *x, const float *dy, int64_t rows, int64_t n, float eps, bool rms, float *out)
{
    stat s[DP_ROWS];
    for (int64_t r = 0; r < rows; r++)
        s[r] = row_stat(x + r * n, n, eps, rms);
    for (int64_t i = 0; i < n; i += 16) {
        vf dw[SM_LV], db[SM_LV];
        for (int l = 0; l < SM_LV; l++)
            dw[l] = db[l] = vset(0);
        for (int64_t r = 0; r < rows; r++)
            for (int l = 0; l < SM_LV; l++) {
                vf g = vload16(dy + r * n, i, n, l, 0);
                dw[l] = vfma(g, (vload16(x + r * n, i, n, l, 0) - vset(s[r].mean)) * s[r].rstd, dw[l]);
                db[l] += g;
            }
        for (int l = 0; l < SM_LV; l++) {
            vstore16(out, i, n, l, dw[l]);
            vstore16(out + n, i, n, l, db[l]);
        }
    }
}

static void run_dp(const sm_kcall *c, int task, int tasks)
{
    const sm_node *node = c->node;
    int64_t n = width_of(node), blocks = dp_blocks(node), rows = dp_rows(node), from, to;
    float *part = c->work, *out = c->dst.data;
    sm_range(c->pass ? n : blocks, task, tasks, &from, &to);
    if (c->pass == 0) {
        for (int64_t b = from; b < to; b++) {
            int64_t r = b * DP_ROWS;
            dp_block((const float *)c->src[0].data + r * n, (const float *)c->src[1].data + r * n, SM_MIN(rows - r, DP_ROWS), n,
                     node->p.norm.eps, is_rms(node), part + b * 2 * n);
        }
        return;
    }
    for (int64_t k = from; k < to; k++)
        for (int64_t row = 0; row < c->dst.dims[0]; row++) {
            double s = 0;
            for (int64_t b = 0; b < blocks; b++)
                s += part[(b * 2 + row) * n + k];
            out[row * n + k] = (float)s;
        }
}

static void put(sm_kernel *k, sm_op_id forward)
{
    k[forward] = (sm_kernel){.run = run_forward, .passes = 2, .tasks = row_tasks, .work = widen_work, .inplace = true};
    k[forward + 1] = (sm_kernel){.run = run_dx, .passes = 2, .tasks = row_tasks, .work = widen_work, .inplace = true};
    k[forward + 2] = (sm_kernel){.run = run_dp, .passes = 2, .tasks = dp_tasks, .work = dp_work};
}

void SM_K(sm_group_norm_kernels)(sm_kernel *k);
void SM_K(sm_group_stats_kernels)(sm_kernel *k);

void SM_K(sm_cpu_norm)(sm_kernel *k)
{
    put(k, SM_OP_LAYER_NORM);
    put(k, SM_OP_RMS_NORM);
    SM_K(sm_group_norm_kernels)(k);
    SM_K(sm_group_stats_kernels)(k);
}
