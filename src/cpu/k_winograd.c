/* conv2d and conv2d_dx of 3x3 kernels at stride 1 by minimal filtering F(2x2, 3x3) (Winograd 1980; Lavin and Gray 2016):
 * a 4x4 tile of the picture and the kernel are turned into 16 numbers each, whose products, summed over the channels, turn
 * into 2x2 results. That is 16 products where the direct sum has 36. Every one of the 16 points is a matrix product
 * [tiles, channels] x [channels, columns] of the usual tiles; all of them for one block of tiles stay in the L2 cache.
 *
 * Every result is made of the same additions in the same order whatever the blocks, the tasks and the pictures beside, so its
 * bits do not depend on them; whether a convolution goes this way depends on the shapes of one picture alone. conv2d_dx is the
 * same with kernels turned by 180 degrees and channels exchanged. docs/SPEED.md has its rounding error in a whole model. */
#include "cpu/winograd.h"

/* TILES rows of KC numbers a point fill the L2 cache, COLS columns of sums beside them; MOST tasks. Turned kernels are 16/9 of the
 * kernels. Where they are too many for the L3 cache, blocks have more tiles, so that they are read less often (measured, 64 tiles of
 * 1280 to 1280 channels: 118% of the multiply-add peak with 48, 140% with 64; 1024 tiles of 320: 174 and 156%, AVX2), and
 * pictures of few tiles are left to the direct sum. */
enum { POINTS = SM_WINO_POINTS, TILES = 48, MORE_TILES = 64, KC = SM_WINO_LONGEST, COLS = 128, MOST = 16, FEW_WEIGHTS = 1 << 18 };

typedef struct wino {
    sm_wino_tiles in;
    int64_t oh, ow, k, cols, from, to;
    int64_t tiles;                  /* of all pictures */
    int64_t most;                   /* tiles of a block */
    int64_t blocks, chunks, chunk;  /* items: blocks of tiles x chunks of so many columns, whole panels */
    int64_t kparts;
} wino;

/* ---- which, and how it is cut ------------------------------------------------------------------------------------ */

bool SM_K(sm_winograd_fits)(const sm_node *n)
{
    const sm_param *p = &n->p;
    const int64_t *w = n->src[1]->dims, *x = n->src[0]->dims;
    int64_t least = w[0] * w[1] > FEW_WEIGHTS ? 7 : 4;
    return w[2] == 3 && w[3] == 3 && w[0] >= 16 && w[1] >= 16 && sm_wino_geometry(p, x, n->dims, least);
}

/* Columns that a turned picture is used for: UNIT, unless there would be fewer than four items to share out. */
enum { UNIT = COLS / SM_NR * SM_NR, SHORT = COLS / SM_NR / 4 * SM_NR };

/* part: units of the weight, as sm_kcall.part. */
static wino make(const sm_node *n, const int64_t part[2])
{
    const int64_t *x = n->src[0]->dims, *w = n->src[1]->dims;
    bool back = n->op == SM_OP_CONV2D_DX;
    wino p = {.in = sm_wino_tiles_of(&n->p, x, n->dims), .oh = n->dims[1], .ow = n->dims[2], .k = x[3], .cols = back ? w[1] : w[0]};
    for (int i = 0; i < 2 && back; i++)
        p.in.off[i] = n->p.conv.pad[2 * i] - 2;
    p.tiles = x[0] * p.in.th * p.in.tw;
    p.from = part[0] * UNIT;
    p.to = part[1] ? SM_MIN(part[1] * UNIT, p.cols) : p.cols;
    p.most = SM_MIN(p.tiles, p.k * p.cols > FEW_WEIGHTS ? MORE_TILES : TILES);
    p.blocks = (p.tiles + p.most - 1) / p.most;
    p.chunk = p.blocks * ((p.to - p.from + UNIT - 1) / UNIT) < 4 ? SHORT : UNIT;
    p.chunks = (p.to - p.from + p.chunk - 1) / p.chunk;
    p.kparts = (p.k + KC - 1) / KC;
    return p;
}

static wino whole(const sm_node *n) { return make(n, (const int64_t[]){0, 0}); }

int SM_K(sm_winograd_tasks)(const sm_node *n)
{
    wino p = whole(n);
    return (int)SM_MIN(p.blocks * p.chunks, MOST);
}

static int64_t row_size(const wino *p) { return ((p->k + p->kparts - 1) / p->kparts + SM_VL - 1) / SM_VL * SM_VL; }

/* Of one task: turned pictures [POINTS][tiles][row_size], sums [panel][POINTS][tiles][width]. */
static int64_t room(const wino *p) { return POINTS * p->most * (row_size(p) + COLS); }

size_t SM_K(sm_winograd_work)(const sm_node *n)
{
    wino p = whole(n);
    return (size_t)(SM_K(sm_winograd_tasks)(n) * room(&p)) * sizeof(float);
}

/* ---- weights: [panel][POINTS][k][width] -------------------------------------------------------------------------- */

size_t SM_K(sm_winograd_prep_bytes)(const sm_node *n)
{
    wino p = whole(n);
    return (size_t)(sm_packed_cols(p.cols) * POINTS * p.k) * sizeof(float);
}

size_t SM_K(sm_winograd_prep_unit)(const sm_node *n) { return (size_t)(UNIT * POINTS * whole(n).k) * sizeof(float); }

enum { STEPS = 16 }; /* channels of a kernel that are turned at a time */

int SM_K(sm_winograd_prep_tasks)(const sm_node *n)
{
    wino p = whole(n);
    return (int)SM_MIN(SM_MIN(sm_panels(p.cols) * sm_pack_pieces(p.k), sm_numel(n->src[1]) / 32768 + 1), 32);
}

/* One row or column of the kernel's turn: g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2. */
static inline void turn_kernel(vf a, vf b, vf c, vf out[4])
{
    vf half = vset(0.5f), ends = a + c;
    out[0] = a;
    out[1] = half * (ends + b);
    out[2] = half * (ends - b);
    out[3] = c;
}

/* Taps [9][steps][width] to points: out is that of point 0, the next one's is `apart` further. */
static void turn_kernels(const float *taps, int steps, int width, bool back, float *out, int64_t apart)
{
    for (int i = 0; i < steps * width; i += SM_VL) {
        vf g[9], rows[3][4], u[4];
        for (int t = 0; t < 9; t++)
            g[t] = vload(taps + (back ? 8 - t : t) * steps * width + i);
        for (int y = 0; y < 3; y++)
            turn_kernel(g[3 * y], g[3 * y + 1], g[3 * y + 2], rows[y]);
        for (int x = 0; x < 4; x++) {
            turn_kernel(rows[0][x], rows[1][x], rows[2][x], u);
            for (int y = 0; y < 4; y++)
                vstore(out + (4 * y + x) * apart + i, u[y]);
        }
    }
}

void SM_K(sm_winograd_prep)(const sm_kcall *c, void *out, int task, int tasks)
{
    wino p = make(c->node, c->part);
    bool back = c->node->op == SM_OP_CONV2D_DX;
    const sm_tensor *w = &c->src[1]; /* [O, C, 3, 3] */
    int64_t pieces = sm_pack_pieces(p.k), a, b, o = w->dims[1] * 9, steps[2];
    float taps[9 * STEPS * SM_NR];
    sm_range(sm_panels(p.to - p.from) * pieces, task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) {
        int64_t j = p.from + i / pieces * SM_NR;
        int width = sm_panel_width(p.cols, j);
        sm_pack_piece(p.k, i, steps);
        for (int64_t k = steps[0]; k < steps[1]; k += STEPS) {
            int count = (int)SM_MIN(STEPS, steps[1] - k);
            sm_pack_src s = {.t = *w, .col = back ? 9 : o, .step = back ? o : 9, .tap_step = 1, .n = p.cols, .k = count, .taps = 9};
            s.base = k * s.step;
            SM_K(sm_gemm_pack)(&s, j, (const int64_t[]){0, count}, taps);
            turn_kernels(taps, count, width, back, (float *)out + (j - p.from) * POINTS * p.k + k * width, p.k * width);
        }
    }
}

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

static const float zeros[SM_WINO_LONGEST];

/* The 16 pixels of a tile at channel c0; zeros outside. */
static void find_pixels(const sm_wino_tiles *p, const sm_wino_at *at, int64_t c0, const float *px[POINTS])
{
    int64_t x0 = at->x * 2 + p->off[1], y0 = at->y * 2 + p->off[0];
    const float *image = p->src + at->n * p->h * p->w * p->ld + c0;
    if (x0 >= 0 && y0 >= 0 && x0 + 4 <= p->w && y0 + 4 <= p->h) {
        const float *first = image + (y0 * p->w + x0) * p->ld;
        for (int i = 0; i < POINTS; i++)
            px[i] = first + (i / 4 * p->w + i % 4) * p->ld;
        return;
    }
    for (int i = 0; i < POINTS; i++) {
        int64_t y = y0 + i / 4, x = x0 + i % 4;
        if (p->circular[0])
            y = y < 0 ? y + p->h : y >= p->h ? y - p->h : y;
        if (p->circular[1])
            x = x < 0 ? x + p->w : x >= p->w ? x - p->w : x;
        bool in = (uint64_t)y < (uint64_t)p->h && (uint64_t)x < (uint64_t)p->w;
        px[i] = in ? image + (y * p->w + x) * p->ld : zeros;
    }
}

static inline __attribute__((always_inline)) void turn_pixels(const vf d[POINTS], float *out, int64_t apart)
{
    vf t[POINTS];
    for (int x = 0; x < 4; x++) {
        t[x] = d[x] - d[8 + x];
        t[4 + x] = d[4 + x] + d[8 + x];
        t[8 + x] = d[8 + x] - d[4 + x];
        t[12 + x] = d[4 + x] - d[12 + x];
    }
    for (int y = 0; y < POINTS; y += 4) {
        vstore(out + y * apart, t[y] - t[y + 2]);
        vstore(out + (y + 1) * apart, t[y + 1] + t[y + 2]);
        vstore(out + (y + 2) * apart, t[y + 2] - t[y + 1]);
        vstore(out + (y + 3) * apart, t[y + 1] - t[y + 3]);
    }
}

void SM_K(sm_winograd_pixels)(const sm_wino_tiles *p, int64_t t0, int64_t count, int64_t c0, int64_t len, float *v, int64_t ld)
{
    sm_wino_at at = sm_wino_find(p, t0);
    for (int64_t t = 0; t < count; t++, sm_wino_next(p, &at)) {
        const float *px[POINTS];
        vf d[POINTS];
        find_pixels(p, &at, c0, px);
        int64_t c = 0;
        for (; c + SM_VL <= len; c += SM_VL) {
            for (int i = 0; i < POINTS; i++)
                d[i] = vload(px[i] + c);
            turn_pixels(d, v + t * ld + c, count * ld);
        }
        if (c == len)
            continue;
        for (int i = 0; i < POINTS; i++)
            d[i] = vload_part(px[i] + c, (int)(len - c), 0);
        turn_pixels(d, v + t * ld + c, count * ld);
    }
}

/* m [POINTS][count][width] (+)= v [POINTS][count][ld] u [POINTS][k][width], len steps of each. */
static void multiply(const float *v, int64_t ld, int64_t count, const float *u, int64_t k, int64_t len, int width, float *m, bool add)
{
    const float *rows[SM_MR];
    float *to[SM_MR];
    int groups = (int)((count + SM_MR - 1) / SM_MR);
    for (int i = 0; i < POINTS; i++) {
        const float *b = u + i * k * width;
        sm_tile t = {.nv = width / SM_VL, .n = width, .segs = 1, .len = len, .rows = rows, .b = &b, .c = to, .add = add};
        for (int g = 0; g < groups; g++) {
            int64_t r0, r1;
            sm_range(count, g, groups, &r0, &r1);
            t.m = (int)(r1 - r0);
            for (int r = 0; r < t.m; r++) {
                rows[r] = v + (i * count + r0 + r) * ld;
                to[r] = m + (i * count + r0 + r) * width;
            }
            SM_K(sm_gemm_tile)(&t);
        }
    }
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

/* Columns of one panel of tiles [t0, t0 + count): m [POINTS][count][width] to dst at column j, `cols` of them exist. */
static void put_block(const wino *p, const float *m, int64_t t0, int64_t count, int width, int cols, const float *bias, float *dst)
{
    sm_wino_at at = sm_wino_find(&p->in, t0);
    for (int64_t t = 0; t < count; t++, sm_wino_next(&p->in, &at)) {
        int64_t x0 = at.x * 2, y0 = at.y * 2;
        float *to = dst + ((at.n * p->oh + y0) * p->ow + x0) * p->cols;
        bool right = x0 + 1 < p->ow, below = y0 + 1 < p->oh;
        for (int c = 0; c < cols; c += SM_VL) {
            vf s[2][4], b = vload(bias + c);
            for (int x = 0; x < 4; x++) {
                const float *from = m + (x * count + t) * width + c;
                vf a0 = vload(from), a1 = vload(from + 4 * count * width);
                vf a2 = vload(from + 8 * count * width), a3 = vload(from + 12 * count * width);
                s[0][x] = a0 + a1 + a2;
                s[1][x] = a1 - a2 - a3;
            }
            int live = SM_MIN(cols - c, SM_VL);
            for (int y = 0; y < 1 + below; y++) {
                vstore_part(to + y * p->ow * p->cols + c, s[y][0] + s[y][1] + s[y][2] + b, live);
                if (right)
                    vstore_part(to + (y * p->ow + 1) * p->cols + c, s[y][1] - s[y][2] - s[y][3] + b, live);
            }
        }
    }
}

static void run_item(const sm_kcall *c, const wino *p, int64_t item, float *v)
{
    int64_t t0, t1, j0 = p->from + item / p->blocks * p->chunk, j1 = SM_MIN(j0 + p->chunk, p->to), ld = row_size(p);
    sm_range(p->tiles, (int)(item % p->blocks), (int)p->blocks, &t0, &t1);
    int64_t count = t1 - t0;
    float *sums = v + POINTS * p->most * ld;
    for (int64_t part = 0; part < p->kparts; part++) {
        int64_t c0 = part * p->k / p->kparts, len = (part + 1) * p->k / p->kparts - c0;
        SM_K(sm_winograd_pixels)(&p->in, t0, count, c0, len, v, ld);
        for (int64_t j = j0; j < j1; j += SM_NR) {
            int width = sm_panel_width(p->cols, j);
            const float *u = (const float *)c->prep + (j - p->from) * POINTS * p->k + c0 * width;
            multiply(v, ld, count, u, p->k, len, width, sums + POINTS * count * (j - j0), part > 0);
        }
    }
    for (int64_t j = j0; j < j1; j += SM_NR) {
        int width = sm_panel_width(p->cols, j), cols = (int)SM_MIN(width, p->cols - j);
        float bias[SM_NR] = {0};
        for (int i = 0; c->src[2].data && i < cols; i++)
            bias[i] = sm_load_f32(&c->src[2], j + i);
        put_block(p, sums + POINTS * count * (j - j0), t0, count, width, cols, bias, (float *)c->dst.data + j);
    }
}

void SM_K(sm_winograd_run)(const sm_kcall *c, int task, int tasks)
{
    wino p = make(c->node, c->part), most = whole(c->node);
    int64_t a, b;
    p.in.src = c->src[0].data;
    sm_range(p.blocks * p.chunks, task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++)
        run_item(c, &p, i, (float *)c->work + task * room(&most));
}
