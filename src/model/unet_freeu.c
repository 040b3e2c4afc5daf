/* FreeU (Si et al. 2023): on the way up a UNet's own features are strengthened and the skip connections lose low frequencies.
 * Formulas of ChenyangSi/FreeU and ComfyUI (which block: by the features' width) and of diffusers (by its number).
 *
 * The filter scales the four frequencies -1 and 0 of each axis, all that the references' square around the middle holds. Of a
 * real picture x its share is  sum over m of f_m <f_m, x> / HW  with the seven functions f below, so no transform is needed. */
#include "model/model.h"

#include <math.h>

enum { BASIS = 7 };

/* f[m][p] for the pixels p of h x w: 1, then cosine and sine of the angle along y, along x, along both. A side of one pixel has
 * no frequency of its own: those functions stay zero. */
static void fill_basis(float *f, int64_t h, int64_t w)
{
    for (int64_t y = 0; y < h; y++)
        for (int64_t x = 0; x < w; x++) {
            double a = 2 * M_PI * (double)y / (double)h, b = 2 * M_PI * (double)x / (double)w;
            float *to = f + y * w + x;
            int64_t n = h * w;
            to[0] = 1;
            to[n] = h > 1 ? (float)cos(a) : 0;
            to[2 * n] = h > 1 ? (float)sin(a) : 0;
            to[3 * n] = w > 1 ? (float)cos(b) : 0;
            to[4 * n] = w > 1 ? (float)sin(b) : 0;
            to[5 * n] = h > 1 && w > 1 ? (float)cos(a + b) : 0;
            to[6 * n] = h > 1 && w > 1 ? (float)sin(a + b) : 0;
        }
}

/* The functions as a constant [N,BASIS,H W]. */
static sm_node *basis(sm_graph *g, int64_t n, int64_t h, int64_t w)
{
    float *f = sm_alloc(g->mem, SM_MEM_GRAPH, sizeof *f * BASIS * (size_t)(h * w));
    if (!f) {
        sm_fail(&g->err, SUMI_E_MEMORY, "out of memory for FreeU's filter");
        return g->poison;
    }
    fill_basis(f, h, w);
    sm_node *k = sm_const(g, SM_F32, 3, (int64_t[]){1, BASIS, h * w}, f);
    sm_free(f);
    return sm_expand(k, 3, (int64_t[]){n, BASIS, h * w});
}

/* x [N,H,W,C] with those frequencies times s. */
static sm_node *filter(sm_node *x, float s)
{
    if (sm_poisoned(x))
        return x;
    int64_t n = x->dims[0], h = x->dims[1], w = x->dims[2], c = x->dims[3];
    sm_node *f = basis(x->g, n, h, w), *pixels = SM_RESHAPE(x, n, h * w, c);
    sm_node *share = sm_matmul(f, sm_matmul(f, pixels, false, false), true, false);
    return sm_add(x, SM_RESHAPE(sm_affine(share, (s - 1) / (float)(h * w), 0), n, h, w, c));
}

/* Largest value of each picture of [N,H,W,1]. */
static sm_node *largest(sm_node *x)
{
    sm_param p = {.pool = {.kernel = {(int)x->dims[1], (int)x->dims[2]}, .stride = {1, 1}}};
    return sm_record(x->g, SM_OP_MAX_POOL, 1, &x, &p);
}

/* Mean over the channels, each picture's from 0 to 1: [N,H,W,1]. One value everywhere gives 0. */
static sm_node *importance(sm_node *x)
{
    sm_node *mean = sm_affine(sm_sum(x, 3), 1 / (float)x->dims[3], 0);
    if (sm_poisoned(mean))
        return mean;
    sm_node *top = largest(mean), *bottom = sm_affine(largest(sm_affine(mean, -1, 0)), -1, 0);
    return sm_div(sm_sub(mean, bottom), sm_affine(sm_sub(top, bottom), 1, 1e-30f));
}

/* The first half of x's channels times b, or times 1 to b by importance. */
static sm_node *strengthen(sm_node *x, float b, bool by_importance)
{
    int64_t c = x->dims[3], half = c / 2;
    sm_node *first = sm_slice(x, 3, 0, half), *rest = sm_slice(x, 3, half, c - half);
    first = by_importance ? sm_mul(first, sm_affine(importance(x), b - 1, 1)) : sm_affine(first, b, 0);
    return sm_concat2(first, rest, 3);
}

void sm_unet_freeu(const sm_unet_tweaks *t, int base, int block, sm_node **x, sm_node **skip)
{
    if (sm_poisoned(*x) || sm_poisoned(*skip))
        return;
    int64_t width = (*x)->dims[3];
    int stage = t->freeu == SM_FREEU_DIFFUSERS ? block : width == 4 * base ? 0 : width == 2 * base ? 1 : 2;
    if (stage > 1)
        return;
    *x = strengthen(*x, t->b[stage], t->freeu == SM_FREEU_2);
    *skip = filter(*skip, t->s[stage]);
}
