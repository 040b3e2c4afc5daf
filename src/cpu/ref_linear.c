/* Scalar references of linear and matmul: three loops, one double accumulator per output element. */
#include "cpu/cpu.h"

static void linear(const sm_kcall *c, int task, int tasks)
{
    const sm_tensor *w = &c->src[1], *b = &c->src[2];
    const float *x = c->src[0].data;
    float *y = c->dst.data;
    int64_t n = w->dims[0], k = w->dims[1], i0, i1;
    sm_range(sm_numel(c->node), task, tasks, &i0, &i1);
    for (int64_t i = i0; i < i1; i++) {
        const float *row = x + i / n * k;
        int64_t o = i % n;
        double s = 0;
        for (int64_t j = 0; j < k; j++)
            s += (double)row[j] * sm_load_f32(w, o * k + j);
        y[i] = (float)(s + (b->data ? sm_load_f32(b, o) : 0));
    }
}

static void matmul(const sm_kcall *c, int task, int tasks)
{
    const sm_tensor *a = &c->src[0], *b = &c->src[1];
    const float *pa = a->data, *pb = b->data;
    float *y = c->dst.data;
    int ta = c->node->p.matmul.ta, tb = c->node->p.matmul.tb, r = a->rank;
    int64_t m = c->dst.dims[r - 2], n = c->dst.dims[r - 1], k = a->dims[r - 1 - ta], i0, i1;
    int64_t am = ta ? 1 : k, ak = ta ? m : 1, bk = tb ? 1 : n, bn = tb ? k : 1; /* strides */
    sm_range(sm_numel(c->node), task, tasks, &i0, &i1);
    for (int64_t i = i0; i < i1; i++) {
        int64_t batch = i / (m * n), row = i / n % m, col = i % n;
        const float *ra = pa + batch * m * k + row * am, *rb = pb + batch * k * n + col * bn;
        double s = 0;
        for (int64_t j = 0; j < k; j++)
            s += (double)ra[j * ak] * rb[j * bk];
        y[i] = (float)s;
    }
}

void sm_cpu_linear_scalar(sm_kernel *k)
{
    k[SM_OP_LINEAR] = (sm_kernel){.run = linear};
    k[SM_OP_MATMUL] = (sm_kernel){.run = matmul};
}
