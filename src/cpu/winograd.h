/* Convolutions of 3x3 kernels at stride 1 by minimal filtering: conv2d and conv2d_dx (k_winograd.c, their turns
 * k_winograd_turn.c, few tiles k_winograd_few.c), conv2d_dw (k_winograd_dw.c), chosen in k_conv.c; the turn of kernels:
 * k_winograd_kernels.c. */
#ifndef SM_WINOGRAD_H
#define SM_WINOGRAD_H

#include "cpu/gemm.h"

/* F(2x2) and F(4x4): results a side of a tile, whose pixels are so many more; its numbers after the turn. */
enum { SM_WINO_MORE = 2, SM_WINO_POINTS = 16, SM_WINO_POINTS4 = 36, SM_WINO_MOST_POINTS = SM_WINO_POINTS4 };
enum { SM_WINO_LONGEST = 128 }; /* channels that are turned at a time */

/* Points of F(4x4): 0, -A, A, -B, B and infinity. */
#define SM_WINO_A 0.625f
#define SM_WINO_B 1.5f

/* What a point's numbers are longer than they need be: points a multiple of a page apart would share few sets of the caches. */
enum { SM_WINO_PAD = 16 };

/* The tiles of pictures [n, h, w, ld] that belong to side x side results each; th x tw of them a picture. */
typedef struct sm_wino_tiles {
    const float *src;
    int64_t h, w, ld, th, tw;
    int side;                       /* 2 or 4 */
    int half;                       /* 1: src has half of h and of w: each pixel counts for four */
    int off[2];                     /* source position of tap 0 of result 0 */
    const int *circular;
} sm_wino_tiles;

/* Of a convolution x -> y, both [n, h, w, c]; src is left to the caller. */
static inline sm_wino_tiles sm_wino_tiles_of(const sm_param *p, const int64_t *x, const int64_t *y, int side)
{
    return (sm_wino_tiles){.h = x[1], .w = x[2], .ld = x[3], .th = (y[1] + side - 1) / side, .tw = (y[2] + side - 1) / side,
                           .side = side, .off = {-p->conv.pad[0], -p->conv.pad[2]}, .circular = p->conv.circular};
}

/* Where a tile is: walking costs no division. */
typedef struct sm_wino_at { int64_t x, y, n; } sm_wino_at;
static inline sm_wino_at sm_wino_find(const sm_wino_tiles *p, int64_t tile)
{
    return (sm_wino_at){tile % p->tw, tile / p->tw % p->th, tile / p->tw / p->th};
}
static inline void sm_wino_next(const sm_wino_tiles *p, sm_wino_at *at)
{
    if (++at->x < p->tw)
        return;
    at->x = 0;
    if (++at->y < p->th)
        return;
    at->y = 0;
    at->n++;
}

/* Whether a 3x3 convolution's strides and paddings and the sides of its results (at least so many) are such. */
static inline bool sm_wino_geometry(const sm_param *p, const int64_t *x, const int64_t *y, int64_t least)
{
    for (int i = 0; i < 2; i++)
        if (p->conv.stride[i] != 1 || p->conv.dil[i] != 1 || p->conv.pad[2 * i] > 2 || y[1 + i] < least ||
            (p->conv.circular[i] && (p->conv.pad[2 * i] != 1 || y[1 + i] != x[1 + i])))
            return false;
    return p->conv.groups == 1;
}

/* ---- turns (k_winograd_turn.c) ----------------------------------------------------------------------------------- */

/* Channels [c0, c0 + len), at most SM_WINO_LONGEST, of tiles [t0, t0 + count): point i of tile t to v + i * apart + t * ld, ld
 * whole vectors; lanes past len hold zeros. */
void SM_K(sm_wino_pixels)(const sm_wino_tiles *p, int64_t t0, int64_t count, int64_t c0, int64_t len, float *v,
                          int64_t ld, int64_t apart);

/* Kernels of channels [c0, c1) of the panel of column j to out [point][c1 - c0][width], points `apart` floats apart. The weight
 * [O, C, 3, 3] has as many columns as O or, `back`, C, and is turned by 180 degrees then (k_winograd_kernels.c). */
typedef struct sm_wino_weight { const sm_tensor *t; int64_t cols; int side; bool back; } sm_wino_weight;
void SM_K(sm_wino_kernels)(const sm_wino_weight *w, int64_t j, int64_t c0, int64_t c1, float *out, int64_t apart);

/* F(4x4) kernels turned along rows only, of `count` channels (at most SM_WINO_STEPS) from c on and a vector of columns from j on,
 * lanes past the last column zeros: [6][SM_WINO_STEPS][3] vectors. */
enum { SM_WINO_STEPS = 16 };
void SM_K(sm_wino_halfway)(const sm_wino_weight *w, int64_t j, int64_t c, int count, float *rows);

/* Where the stored kernels of column j begin, from channel k on, if they are a run; NULL: they are not, or there is no such
 * column. */
static inline const float *SM_K(sm_wino_ahead)(const sm_wino_weight *w, int64_t j, int64_t k)
{
    int64_t at = (j * w->t->dims[1] + k) * 9;
    return w->back || j >= w->cols ? NULL : (const float *)((const char *)w->t->data + sm_dtype_bytes(w->t->dtype, at));
}

/* Products of at most SM_WINO_FEW tiles (0: there are none) with kernels turned on the way (k_winograd_few.c): channels [c0, c0 +
 * len) and columns [j0, j1), j0 the first of a panel. Pictures are turned to v, points SM_WINO_FEW_APART and tiles
 * SM_WINO_LONGEST floats apart, room for SM_WINO_FEW of them; sums are laid out as sm_wino_results reads them, and added to or
 * begun. */
enum { SM_WINO_FEW = SM_VL == 16 ? 4 : 0, SM_WINO_FEW_APART = SM_WINO_FEW * SM_WINO_LONGEST + SM_WINO_PAD };
typedef struct sm_wino_few {
    const sm_wino_weight *w;
    const float *v;
    int64_t count, c0, len, j0, j1;
    float *sums;
    int64_t apart;
    bool add;
} sm_wino_few;
void SM_K(sm_wino_products_few)(const sm_wino_few *f);

/* Results of tiles [t0, t0 + count): columns [0, cols) of dst [n, oh, ow, ld], plus bias, plus add where not NULL: like dst or,
 * with add_each, a row for so many pictures. Point i of tile t and the column c of the panel that begins at column j is at m + i
 * * apart + j * count + t * its width + c - j. */
typedef struct sm_wino_out { float *dst; int64_t oh, ow, ld, cols; const float *bias, *add; int64_t add_each; } sm_wino_out;
void SM_K(sm_wino_results)(const sm_wino_tiles *p, const sm_wino_out *o, int64_t t0, int64_t count,
                           const float *m, int64_t apart);

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

/* Whether a recorded conv2d or conv2d_dx goes this way: by the shapes of one picture. */
bool SM_K(sm_winograd_fits)(const sm_node *n);
/* Members of sm_kernel for such nodes. */
const char *SM_K(sm_winograd_how)(const sm_node *n);
bool SM_K(sm_winograd_unprepared)(const sm_node *n);
int SM_K(sm_winograd_tasks)(const sm_node *n);
size_t SM_K(sm_winograd_work)(const sm_node *n);
size_t SM_K(sm_winograd_prep_bytes)(const sm_node *n);
size_t SM_K(sm_winograd_prep_unit)(const sm_node *n);
int SM_K(sm_winograd_prep_tasks)(const sm_node *n);
void SM_K(sm_winograd_prep)(const sm_kcall *c, void *out, int task, int tasks);
void SM_K(sm_winograd_run)(const sm_kcall *c, int task, int tasks);

/* The same of conv2d_dw; two passes. */
bool SM_K(sm_winograd_dw_fits)(const sm_node *n);
int SM_K(sm_winograd_dw_tasks)(const sm_node *n, int pass);
size_t SM_K(sm_winograd_dw_work)(const sm_node *n);
void SM_K(sm_winograd_dw_run)(const sm_kcall *c, int task, int tasks);

#endif
