/* Outer product: the sum runs over pixels, both operands are stored with the pixel outermost. The left one (the source of
 * a convolution, channels broadcast) is read in place as strips of pixels that lie side by side, which also skips padding;
 * the right one is packed a block of pixels at a time. */
#include "cpu/gemm.h"

enum { KB = SM_OUTER_K, COPY_PANELS = 3 }; /* panels from which on a copy of the left operand pays */

typedef struct strips {
    sm_strip s[KB];
    int count;
    int64_t lda, width;
    const float *right; /* [pixels of the block][width] */
    int64_t next;       /* pixel after the last strip */
} strips;

/* Appends len pixels from number p of the block, read from a on; grows the last strip if this one follows it. */
static void add_strip(strips *l, const float *a, int64_t p, int64_t len)
{
    sm_strip *last = l->s + l->count - 1;
    if (l->count && l->next == p && last->a + last->len * l->lda == a)
        last->len += len;
    else
        l->s[l->count++] = (sm_strip){a, l->right + p * l->width, len};
    l->next = p + len;
}

/* Floor of a / b for b > 0. */
static int64_t div_floor(int64_t a, int64_t b) { return a / b - (a % b < 0); }

/* Pixels x0 <= x < x1 of one grid row, which reads the source row at `row`; the first is number p of the block. */
static void add_row(const sm_outer *o, strips *l, const float *row, int64_t ox, int64_t x0, int64_t x1, int64_t p)
{
    int64_t size = o->src_size[1], s = o->stride[1];
    for (int turn = o->circular[1] ? 1 : 0; turn >= (o->circular[1] ? -1 : 0); turn--) {
        int64_t off = ox + turn * size; /* valid where 0 <= x*s + off < size */
        int64_t a = SM_MAX(x0, div_floor(-off + s - 1, s)), b = SM_MIN(x1, div_floor(size - 1 - off, s) + 1);
        if (a < b)
            add_strip(l, row + (a * s + off) * o->ld_src, p + a - x0, b - a);
    }
}

/* Strips of pixels [p0, p1) for the tap with source offset off, channels from i on. */
static void find_strips(const sm_outer *o, strips *l, const int64_t off[2], int64_t i, int64_t p0, int64_t p1)
{
    int64_t w = o->grid[1], h = o->grid[0], sh = o->src_size[0];
    l->count = 0;
    for (int64_t p = p0; p < p1;) {
        int64_t x = p % w, y = p / w % h, n = p / w / h, x1 = SM_MIN(w, x + p1 - p), sy = y * o->stride[0] + off[0];
        if (o->circular[0])
            sy = sy < 0 ? sy + sh : sy >= sh ? sy - sh : sy;
        if (sy >= 0 && sy < sh)
            add_row(o, l, o->src + (n * sh + sy) * o->src_size[1] * o->ld_src + i, off[1], x, x1, p - p0);
        p += x1 - x;
    }
}

/* Rows of a tile side by side: out[step][SM_MR] from n <= SM_MR floats of every step of all strips. */
static void copy_rows(const strips *l, int64_t row, int n, float *out)
{
    for (int s = 0; s < l->count; s++) {
        const float *a = l->s[s].a + row;
        if (n == SM_MR)
            for (int64_t k = l->s[s].len; k; k--, a += l->lda, out += SM_MR)
                memcpy(out, a, SM_MR * sizeof *out);
        else
            for (int64_t k = l->s[s].len; k; k--, a += l->lda, out += SM_MR)
                memcpy(out, a, (size_t)n * sizeof *out);
    }
}

/* The strips of one tap for `rows` channels in tiles: in place, or from copies (one for each tile) at `copies`. */
static void run_tap(const sm_outer *o, const strips *l, const sm_tile *tile, float *out, int64_t rows, const float *copies)
{
    int tiles = (int)((rows + SM_MR - 1) / SM_MR);
    sm_strip shifted[KB];
    float *c[SM_MR];
    sm_tile t = *tile;
    t.strips = shifted;
    t.segs = l->count;
    t.lda = copies ? SM_MR : l->lda;
    t.c = c;
    for (int i = 0; i < tiles; i++) {
        int64_t a, b;
        sm_range(rows, i, tiles, &a, &b);
        const float *copy = copies ? copies + (int64_t)i * SM_MR * KB : NULL;
        for (int s = 0; s < l->count; s++) {
            shifted[s] = (sm_strip){copies ? copy : l->s[s].a + a, l->s[s].b, l->s[s].len};
            copy += copies ? l->s[s].len * SM_MR : 0;
        }
        t.m = (int)(b - a);
        for (int r = 0; r < t.m; r++)
            c[r] = out + (a + r) * o->ld_out;
        SM_K(sm_gemm_tile)(&t);
    }
}

static int64_t axis_offset(const sm_taps *t, int64_t i)
{
    const sm_prog *p = t->p;
    while (i >= p->count)
        i -= p++->count;
    return p->off + i * p->off_step;
}

static void offsets(const sm_outer *o, int64_t tap, int64_t off[2])
{
    off[0] = axis_offset(&o->taps[0], tap / o->taps[1].count);
    off[1] = axis_offset(&o->taps[1], tap % o->taps[1].count);
}

/* Copies of rows r (of the only tap) for a block of pixels. */
static void copy_left(const sm_outer *o, const int64_t r[2], int64_t p0, int64_t p1)
{
    strips l = {.lda = o->stride[1] * o->ld_src};
    int64_t off[2];
    offsets(o, 0, off);
    find_strips(o, &l, off, r[0], p0, p1);
    int tiles = (int)((r[1] - r[0] + SM_MR - 1) / SM_MR);
    for (int i = 0; i < tiles; i++) {
        int64_t a, b;
        sm_range(r[1] - r[0], i, tiles, &a, &b);
        copy_rows(&l, a, (int)(b - a), o->scratch + (int64_t)i * SM_MR * KB);
    }
}

/* One block of pixels, one panel: packs it and runs the rows r of all taps. */
static void run_panel(const sm_outer *o, const int64_t r[2], int64_t j, int64_t p0, int64_t p1, bool add, bool copied)
{
    float right[KB * SM_NR] __attribute__((aligned(64)));
    int width = sm_panel_width(o->right.n, j);
    sm_pack_src part = o->right;
    part.base += p0 * part.step;
    part.k = p1 - p0;
    SM_K(sm_gemm_pack)(&part, j, (const int64_t[]){0, part.k}, right);
    strips l = {.lda = o->stride[1] * o->ld_src, .width = width, .right = right};
    sm_tile t = {.nv = width / SM_VL, .n = (int)SM_MIN(width, o->right.n - j), .add = add};
    for (int64_t tap = r[0] / o->m; tap * o->m < r[1]; tap++) {
        int64_t i0 = SM_MAX(r[0] - tap * o->m, 0), i1 = SM_MIN(r[1] - tap * o->m, o->m), off[2];
        offsets(o, tap, off);
        find_strips(o, &l, off, i0, p0, p1);
        run_tap(o, &l, &t, o->out + (tap * o->m + i0) * o->ld_out + j, i1 - i0, copied ? o->scratch : NULL);
    }
}

void SM_K(sm_gemm_outer)(const sm_outer *o, const int64_t r[2], const int64_t j[2], const int64_t p[2])
{
    bool copied = o->taps[0].count * o->taps[1].count == 1 && sm_scratch(o->ld_src) && j[1] - j[0] > (COPY_PANELS - 1) * SM_NR;
    int64_t most = copied ? SM_OUTER_M : r[1] - r[0];
    for (int64_t i = r[0]; i < r[1]; i += most) {
        const int64_t part[2] = {i, SM_MIN(i + most, r[1])};
        for (int64_t p0 = p[0]; p0 < p[1]; p0 += KB) {
            int64_t p1 = SM_MIN(p0 + KB, p[1]);
            if (copied)
                copy_left(o, part, p0, p1);
            for (int64_t c = j[0]; c < j[1]; c += SM_NR)
                run_panel(o, part, c, p0, p1, p0 > p[0], copied);
        }
    }
}
