/* Scalar references of conv2d and its adjoints, each output element a direct sum in one double accumulator.
 *
 * Forward, per axis: output o reads padded position o*stride + k*dil, that is input position minus pad (modulo the size
 * when circular, zero outside otherwise). The adjoints visit the same (output, tap, input) triples. */
#include "cpu/cpu.h"

/* Input position that output o reads with tap k along an axis of size n; -1 in zero padding. */
static int64_t source(const sm_param *p, int axis, int64_t o, int64_t k, int64_t n)
{
    int64_t i = o * p->conv.stride[axis] + k * p->conv.dil[axis] - p->conv.pad[2 * axis];
    if (p->conv.circular[axis])
        return (i % n + n) % n;
    return i < 0 || i >= n ? -1 : i;
}

static double load_bias(const sm_tensor *b, int64_t i) { return b->data ? sm_load_f32(b, i) : 0; }

/* x [N,H,W,C], w [O,C/g,kh,kw] -> y [N,Ho,Wo,O] */
static void conv2d(const sm_kcall *c, int task, int tasks)
{
    const sm_tensor *x = &c->src[0], *w = &c->src[1], *y = &c->dst;
    const sm_param *p = &c->node->p;
    const float *px = x->data;
    float *py = y->data;
    int64_t h = x->dims[1], wd = x->dims[2], ci = x->dims[3], o = y->dims[3], cg = w->dims[1], kh = w->dims[2], kw = w->dims[3];
    int64_t og = o / p->conv.groups, i0, i1;
    sm_range(sm_numel(c->node), task, tasks, &i0, &i1);
    for (int64_t i = i0; i < i1; i++) {
        int64_t oc = i % o, ox = i / o % y->dims[2], oy = i / o / y->dims[2] % y->dims[1], n = i / o / y->dims[2] / y->dims[1];
        double s = load_bias(&c->src[2], oc);
        for (int64_t ky = 0; ky < kh; ky++)
            for (int64_t kx = 0; kx < kw; kx++) {
                int64_t iy = source(p, 0, oy, ky, h), ix = source(p, 1, ox, kx, wd);
                if (iy < 0 || ix < 0)
                    continue;
                const float *row = px + ((n * h + iy) * wd + ix) * ci + oc / og * cg;
                for (int64_t j = 0; j < cg; j++)
                    s += (double)row[j] * sm_load_f32(w, ((oc * cg + j) * kh + ky) * kw + kx);
            }
        py[i] = (float)s;
    }
}

/* Sum over output channels of one group: dy row (og channels) times w[.., j, ky, kx]. */
static double dx_dot(const float *dy, const sm_tensor *w, int64_t o0, int64_t og, int64_t j, int64_t ky, int64_t kx)
{
    int64_t cg = w->dims[1], kh = w->dims[2], kw = w->dims[3];
    double s = 0;
    for (int64_t o = 0; o < og; o++)
        s += (double)dy[o0 + o] * sm_load_f32(w, (((o0 + o) * cg + j) * kh + ky) * kw + kx);
    return s;
}

/* The outputs along one axis that read input position i with tap k: writes them to out, returns their number (the
 * padded axis holds an image of i at i + pad, and when circular also one size further on either side). */
static int readers(const sm_param *p, int axis, int64_t i, int64_t k, int64_t n, int64_t no, int64_t out[3])
{
    int found = 0, reach = p->conv.circular[axis] ? 1 : 0;
    for (int r = -reach; r <= reach; r++) {
        int64_t pos = i + p->conv.pad[2 * axis] + r * n - k * p->conv.dil[axis], s = p->conv.stride[axis];
        if (pos >= 0 && pos % s == 0 && pos / s < no)
            out[found++] = pos / s;
    }
    return found;
}

/* dy [N,Ho,Wo,O], w [O,C/g,kh,kw] -> dx [N,H,W,C] */
static void conv2d_dx(const sm_kcall *c, int task, int tasks)
{
    const sm_tensor *y = &c->src[0], *w = &c->src[1], *x = &c->dst;
    const sm_param *p = &c->node->p;
    const float *py = y->data;
    float *px = x->data;
    int64_t h = x->dims[1], wd = x->dims[2], ci = x->dims[3], o = y->dims[3], cg = w->dims[1], og = o / p->conv.groups, i0, i1;
    sm_range(sm_numel(c->node), task, tasks, &i0, &i1);
    for (int64_t i = i0; i < i1; i++) {
        int64_t ch = i % ci, ix = i / ci % wd, iy = i / ci / wd % h, n = i / ci / wd / h, oys[3], oxs[3];
        double s = load_bias(&c->src[2], ch);
        for (int64_t ky = 0; ky < w->dims[2]; ky++)
            for (int64_t kx = 0; kx < w->dims[3]; kx++) {
                int ny = readers(p, 0, iy, ky, h, y->dims[1], oys), nx = readers(p, 1, ix, kx, wd, y->dims[2], oxs);
                for (int a = 0; a < ny; a++)
                    for (int b = 0; b < nx; b++)
                        s += dx_dot(py + ((n * y->dims[1] + oys[a]) * y->dims[2] + oxs[b]) * o, w, ch / cg * og, og, ch % cg, ky,
                                    kx);
            }
        px[i] = (float)s;
    }
}

/* x [N,H,W,C], dy [N,Ho,Wo,O] -> dw [O,C/g,kh,kw] */
static void conv2d_dw(const sm_kcall *c, int task, int tasks)
{
    const sm_tensor *x = &c->src[0], *y = &c->src[1], *w = &c->dst;
    const sm_param *p = &c->node->p;
    const float *px = x->data, *py = y->data;
    float *pw = w->data;
    int64_t h = x->dims[1], wd = x->dims[2], ci = x->dims[3], o = y->dims[3], cg = w->dims[1], kh = w->dims[2], kw = w->dims[3];
    int64_t og = o / p->conv.groups, i0, i1;
    sm_range(sm_numel(c->node), task, tasks, &i0, &i1);
    for (int64_t i = i0; i < i1; i++) {
        int64_t kx = i % kw, ky = i / kw % kh, j = i / kw / kh % cg, oc = i / kw / kh / cg;
        double s = 0;
        for (int64_t q = 0; q < y->dims[0] * y->dims[1] * y->dims[2]; q++) {
            int64_t ox = q % y->dims[2], oy = q / y->dims[2] % y->dims[1], n = q / y->dims[2] / y->dims[1];
            int64_t iy = source(p, 0, oy, ky, h), ix = source(p, 1, ox, kx, wd);
            if (iy >= 0 && ix >= 0)
                s += (double)px[((n * h + iy) * wd + ix) * ci + oc / og * cg + j] * py[q * o + oc];
        }
        pw[i] = (float)s;
    }
}

void sm_cpu_conv_scalar(sm_kernel *k)
{
    k[SM_OP_CONV2D] = (sm_kernel){.run = conv2d};
    k[SM_OP_CONV2D_DX] = (sm_kernel){.run = conv2d_dx};
    k[SM_OP_CONV2D_DW] = (sm_kernel){.run = conv2d_dw};
}
