/* conv2d and conv2d_dx of 3x3 kernels at stride 1 by minimal filtering (Winograd 1980; Lavin and Gray 2016): a tile of the
 * picture and the kernel are turned into so many numbers each, whose products, summed over the channels, turn into a tile of
 * results (k_winograd_turn.c). F(2x2): 16 products for 2x2 results where the direct sum has 36; F(4x4): 36 where it has 144.
 * Every one of the 16 or 36 points is a matrix product [tiles, channels] x [channels, columns] of the usual tiles. Channels are
 * turned and multiplied in parts: what the parts of a block of tiles need stays in the L2 cache, of one point in L1.
 *
 * Kernels that stay turned from run to run, or serve many tiles, are turned by prep. For few tiles each task turns a panel of a
 * part when it comes to it (run with prep NULL): the numbers, up to four times as many as the kernel's, never leave the L2 cache.
 *
 * Every result is made of the same additions in the same order whatever the blocks, the tasks and the pictures beside, so its
 * bits do not depend on them: a part's products are one chain, parts are added in order. Which form a convolution takes depends
 * on the shapes of one picture alone. conv2d_dx is the same with kernels turned by 180 degrees and channels exchanged. */
#include "cpu/winograd.h"

/* A block has at most TILES or TILES4 tiles and COLS columns: turned pictures and sums of a part fit into 1 MiB (measured, 128 to
 * 128 channels: F(4x4) 240 and 296% of the multiply-add peak with 24 tiles, 226 and 248% with 48, AVX-512 and AVX2). MOST
 * tasks. */
enum { TILES = 48, TILES4 = 24, COLS = 160, MOST = 16 };

/* Where kernels are turned by the tasks: up to FEW_TILES tiles at once share a turn of a panel, for up to two such blocks. It
 * takes some 130 cycles a vector of kernels from memory with AVX-512 where a tile's products take 18. Items have about ITEM
 * columns; with at most TAIL_TILES, whose turns cost little, the last items are shorter (chunk_start). */
enum { FEW_TILES = 64, TURNED_HERE = 2 * FEW_TILES, ITEM = 320, TAIL_TILES = 4 };

/* F(4x4) where its turns pay: many kernels are not kept, and turning them costs more than products. More than MANY_STEPS channels
 * are turned for half as many columns at a time: a part of the weight stays below 24 MB. */
enum { FEW_WEIGHTS = 1 << 18, LEAST4 = 16, LEAST4_MANY = 4, MANY_STEPS = 1024 };

/* Channels are cut into equal parts of whole groups of sixteen, at most SM_WINO_LONGEST: a part's products are a sum of its
 * own. */
enum { GROUP = 16 };

typedef struct wino {
    sm_wino_tiles in;
    int points;
    int64_t oh, ow, k, cols, unit, from, to;
    int64_t tiles;                  /* of all pictures */
    int64_t most;                   /* tiles of a block */
    int64_t blocks, chunks, chunk;  /* items: blocks of tiles x chunks of so many columns, whole panels */
    int64_t kparts;
    bool here;                      /* kernels are turned by the tasks */
    bool tail;                      /* the last chunks are shorter (chunk_start) */
} wino;

/* ---- which, and how it is cut ------------------------------------------------------------------------------------ */

/* Results a side of the tiles that a convolution is cut into; 0: left to the direct sum. */
static int side_of(const sm_node *n)
{
    const int64_t *w = n->src[1]->dims, *x = n->src[0]->dims;
    bool many = w[0] * w[1] > FEW_WEIGHTS;
    if (w[2] != 3 || w[3] != 3 || w[0] < 16 || w[1] < 16 || !sm_wino_geometry(&n->p, x, n->dims, many ? 7 : 4))
        return 0;
    return (n->dims[1] + 3) / 4 * ((n->dims[2] + 3) / 4) < (many ? LEAST4_MANY : LEAST4) ? 2 : 4;
}

bool SM_K(sm_winograd_fits)(const sm_node *n) { return side_of(n) > 0; }
const char *SM_K(sm_winograd_how)(const sm_node *n) { return side_of(n) == 4 ? "F(4x4)" : "F(2x2)"; }

/* Columns that a turned picture is used for, and that a weight's part has: `unit`, equal shares of at most COLS; unless there
 * would be fewer than four items to share out, then SHORT, of which units are multiples. */
enum { SHORT = 32 / SM_NR * SM_NR };

static int64_t equal_units(int64_t cols, int64_t most)
{
    int64_t units = (cols + most - 1) / most, shorts = (cols + SHORT - 1) / SHORT;
    return SM_MAX((shorts + units - 1) / units * SHORT, SHORT);
}

/* Items where kernels are turned by the tasks: equal chunks of columns, four or a multiple, so that two and four threads share
 * them well. */
static void cut_here(wino *p)
{
    int64_t panels = sm_panels(p->cols), most = ITEM / SM_NR;
    p->here = true;
    p->blocks = (p->tiles + FEW_TILES - 1) / FEW_TILES;
    p->most = SM_MIN(p->tiles, ((p->tiles + SM_MR - 1) / SM_MR + p->blocks - 1) / p->blocks * SM_MR);
    p->chunks = SM_MIN(((panels + most - 1) / most + 3) / 4 * 4, panels);
    p->chunk = (panels + p->chunks - 1) / p->chunks * SM_NR;
    p->chunks = (p->cols + p->chunk - 1) / p->chunk;
    p->tail = p->tiles <= TAIL_TILES && p->chunks >= 4 && p->chunks + 4 <= MOST && p->chunk >= 4 * SM_NR &&
              p->chunks * p->chunk == panels * SM_NR;
    p->chunks += p->tail ? 4 : 0;
}

/* First column of a chunk. With tail the last eight are as wide as four: two whole ones, then pairs of 6, 3 and 1 tenths, so that
 * two and four threads end together although one is held up (measured: 5% of the clock at 8x8 with two). */
static int64_t chunk_start(const wino *p, int64_t i)
{
    int64_t first = p->chunks - 6, width = p->chunk / SM_NR, steps[3] = {(3 * width + 2) / 5, 0, SM_MAX(1, (width + 5) / 10)};
    if (!p->tail || i <= first)
        return p->from + i * p->chunk;
    steps[1] = width - steps[0] - steps[2];
    int64_t j = first * width;
    for (int64_t k = first; k < i; k++)
        j += steps[(k - first) / 2];
    return SM_MIN(j * SM_NR, p->cols);
}

/* part: units of the weight, as sm_kcall.part. */
static wino make(const sm_node *n, const int64_t part[2], bool here)
{
    const int64_t *x = n->src[0]->dims, *w = n->src[1]->dims;
    bool back = n->op == SM_OP_CONV2D_DX;
    int side = side_of(n);
    wino p = {.in = sm_wino_tiles_of(&n->p, x, n->dims, side), .points = (side + 2) * (side + 2),
              .oh = n->dims[1], .ow = n->dims[2], .k = x[3], .cols = back ? w[1] : w[0]};
    for (int i = 0; i < 2 && back; i++)
        p.in.off[i] = n->p.conv.pad[2 * i] - 2;
    p.tiles = x[0] * p.in.th * p.in.tw;
    p.unit = equal_units(p.cols, p.k > MANY_STEPS && side == 4 ? COLS / 2 : COLS);
    p.from = part[0] * p.unit;
    p.to = part[1] ? SM_MIN(part[1] * p.unit, p.cols) : p.cols;
    p.most = SM_MIN(p.tiles, side == 4 ? TILES4 : TILES);
    p.blocks = (p.tiles + p.most - 1) / p.most;
    p.chunk = p.blocks * ((p.to - p.from + p.unit - 1) / p.unit) < 4 ? SHORT : p.unit;
    p.chunks = (p.to - p.from + p.chunk - 1) / p.chunk;
    p.kparts = (p.k + SM_WINO_LONGEST - 1) / SM_WINO_LONGEST;
    if (here)
        cut_here(&p);
    return p;
}

static wino whole(const sm_node *n, bool here) { return make(n, (const int64_t[]){0, 0}, here); }

bool SM_K(sm_winograd_unprepared)(const sm_node *n) { return whole(n, false).tiles <= TURNED_HERE; }

/* First channel of a part. */
static int64_t part_start(const wino *p, int64_t part)
{
    return SM_MIN(part * ((p->k + GROUP - 1) / GROUP) / p->kparts * GROUP, p->k);
}

int SM_K(sm_winograd_tasks)(const sm_node *n)
{
    wino p = whole(n, SM_K(sm_winograd_unprepared)(n));
    return (int)SM_MIN(p.blocks * p.chunks, MOST);
}

static int64_t row_size(const wino *p) { return SM_MIN((p->k + GROUP - 1) / GROUP * GROUP, SM_WINO_LONGEST); }

/* Whether kernels are turned on the way to the products (k_winograd_few.c). */
static bool few(const wino *p) { return p->here && p->in.side == 4 && p->most <= SM_WINO_FEW; }

/* Of one task: turned pictures [points][tiles][row_size], sums [points][panel][tiles][width] and, if it turns them, kernels of a
 * panel [points][row_size][width]; from point to point SM_WINO_PAD more. */
static int64_t pixels_room(const wino *p)
{
    return p->points * (few(p) ? SM_WINO_FEW_APART : p->most * row_size(p) + SM_WINO_PAD);
}
static int64_t sums_room(const wino *p) { return p->points * (p->most * SM_MAX(p->chunk, p->unit) + SM_WINO_PAD); }
static int64_t room(const wino *p)
{
    return pixels_room(p) + sums_room(p) + (p->here ? p->points * (row_size(p) * SM_NR + SM_WINO_PAD) : 0);
}

/* Whether its weight will be prepared is not known yet. */
size_t SM_K(sm_winograd_work)(const sm_node *n)
{
    wino p = whole(n, false), q = whole(n, true);
    int64_t most = SM_K(sm_winograd_unprepared)(n) ? SM_MAX(room(&p), room(&q)) : room(&p);
    return (size_t)(SM_K(sm_winograd_tasks)(n) * most) * sizeof(float);
}

/* ---- weights: [unit][part of k][point][panel][k][width], in the order in which they are read ---------------------- */

/* Floats of so many whole units and, if there are columns left, the last one. */
static int64_t weight_size(const wino *p, int64_t cols)
{
    return p->points * (sm_packed_cols(cols) * p->k + (cols + p->unit - 1) / p->unit * p->kparts * SM_WINO_PAD);
}

size_t SM_K(sm_winograd_prep_bytes)(const sm_node *n)
{
    wino p = whole(n, false);
    return (size_t)weight_size(&p, p.cols) * sizeof(float);
}

size_t SM_K(sm_winograd_prep_unit)(const sm_node *n)
{
    wino p = whole(n, false);
    return (size_t)weight_size(&p, p.unit) * sizeof(float);
}

int SM_K(sm_winograd_prep_tasks)(const sm_node *n)
{
    wino p = whole(n, false);
    return (int)SM_MIN(SM_MIN(sm_panels(p.cols) * p.kparts, sm_numel(n->src[1]) / 32768 + 1), 32);
}

/* Where a part of k of the panel of column j begins; the next point is `apart` floats further. */
static int64_t weight_at(const wino *p, int64_t j, int64_t part, int64_t *apart)
{
    int64_t j0 = j / p->unit * p->unit, wide = sm_packed_cols(SM_MIN(p->unit, p->cols - j0)), c0 = part_start(p, part);
    int64_t len = part_start(p, part + 1) - c0;
    *apart = wide * len + SM_WINO_PAD;
    return weight_size(p, j0 - p->from) + p->points * (wide * c0 + part * SM_WINO_PAD) + (j - j0) * len;
}

static sm_wino_weight weight_of(const sm_kcall *c, const wino *p)
{
    return (sm_wino_weight){&c->src[1], p->cols, p->in.side, c->node->op == SM_OP_CONV2D_DX};
}

void SM_K(sm_winograd_prep)(const sm_kcall *c, void *out, int task, int tasks)
{
    wino p = make(c->node, c->part, false);
    sm_wino_weight w = weight_of(c, &p);
    int64_t a, b, apart;
    sm_range(sm_panels(p.to - p.from) * p.kparts, task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) {
        int64_t j = p.from + i / p.kparts * SM_NR, part = i % p.kparts, at = weight_at(&p, j, part, &apart);
        SM_K(sm_wino_kernels)(&w, j, part_start(&p, part), part_start(&p, part + 1), (float *)out + at, apart);
    }
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* sums of one panel [count][width] (+)= v [count][ld] u [len][width]. Fetched meanwhile: the sums, which are added to at the end
 * (AVX-512, 64x64: 14.0 to 12.5 ms); `next`, the panel that follows, by the first two groups of rows a half each; what is read
 * later at far, 16 bytes a step, unless NULL. */
static void multiply(const float *v, int64_t ld, int64_t count, const float *u, const float *next, int64_t len,
                     int width, const float *far, float *sums, bool add)
{
    const float *rows[SM_MR];
    float *to[SM_MR];
    int groups = (int)((count + SM_MR - 1) / SM_MR);
    sm_tile t = {.nv = width / SM_VL, .n = width, .segs = 1, .len = len, .rows = rows, .b = &u, .c = to, .add_to = add};
    for (int g = 0; g < groups; g++) {
        int64_t r0, r1;
        sm_range(count, g, groups, &r0, &r1);
        t.m = (int)(r1 - r0);
        for (int64_t i = r0 * width; i < r1 * width; i += 16)
            __builtin_prefetch(sums + i, 1);
        t.far = g ? NULL : far;
        t.ahead = g < 2 ? next + g * len / 2 * width : NULL;
        for (int r = 0; r < t.m; r++) {
            rows[r] = v + (r0 + r) * ld;
            to[r] = sums + (r0 + r) * width;
        }
        SM_K(sm_gemm_tile)(&t);
    }
}

/* What of an item's work is whose: tiles [t0, t0 + count), columns [j0, j1); room for turned pictures, sums, kernels, points so
 * far apart. */
typedef struct item {
    int64_t t0, count, j0, j1, ld, v_apart, apart;
    float *v, *sums, *u;
} item;

static item find_item(const wino *p, int64_t i, float *room)
{
    int64_t groups = (p->tiles + SM_MR - 1) / SM_MR, g[2], j0 = chunk_start(p, i / p->blocks);
    sm_range(groups, (int)(i % p->blocks), (int)p->blocks, &g[0], &g[1]);
    item it = {.t0 = g[0] * SM_MR, .j0 = j0, .j1 = SM_MIN(chunk_start(p, i / p->blocks + 1), p->to), .v = room};
    it.count = SM_MIN(g[1] * SM_MR, p->tiles) - it.t0;
    it.ld = few(p) ? SM_WINO_LONGEST : row_size(p);
    it.v_apart = few(p) ? SM_WINO_FEW_APART : it.count * it.ld + SM_WINO_PAD;
    it.apart = it.count * sm_packed_cols(it.j1 - j0) + SM_WINO_PAD;
    it.sums = it.v + pixels_room(p);
    it.u = it.sums + sums_room(p);
    return it;
}

/* A part's products with kernels that prep has turned. */
static void part_prepared(const sm_kcall *c, const wino *p, const item *it, int64_t part, int64_t len)
{
    int64_t panels = sm_panels(it->j1 - it->j0), apart;
    const float *u = (const float *)c->prep + weight_at(p, it->j0, part, &apart);
    for (int64_t i = 0; i < p->points * panels; i++) {
        int64_t point = i / panels, j = i % panels * SM_NR, then = SM_MIN(i + 1, p->points * panels - 1);
        multiply(it->v + point * it->v_apart, it->ld, it->count, u + point * apart + j * len,
                 u + then / panels * apart + then % panels * SM_NR * len, len, sm_panel_width(p->cols, it->j0 + j), NULL,
                 it->sums + point * it->apart + j * it->count, part > 0);
    }
}

/* The same, panel by panel, with kernels turned here. Each point's products fetch the stored kernels of one of the next columns
 * that will be turned: those of the next panel or part. */
static void part_here(const sm_kcall *c, const wino *p, const item *it, int64_t part, int64_t len)
{
    sm_wino_weight w = weight_of(c, p);
    int64_t c0 = part_start(p, part);
    if (few(p)) {
        SM_K(sm_wino_products_few)(&(sm_wino_few){&w, it->v, it->count, c0, len, it->j0, it->j1, it->sums, it->apart, part > 0});
        return;
    }
    for (int64_t j = 0; j < it->j1 - it->j0; j += SM_NR) {
        int width = sm_panel_width(p->cols, it->j0 + j);
        int64_t apart = len * width + SM_WINO_PAD;
        bool last = j + SM_NR >= it->j1 - it->j0;
        int64_t then = last ? it->j0 : it->j0 + j + SM_NR, c_then = last ? c0 + len : c0;
        SM_K(sm_wino_kernels)(&w, it->j0 + j, c0, c0 + len, it->u, apart);
        for (int64_t i = 0; i < p->points; i++)
            multiply(it->v + i * it->v_apart, it->ld, it->count, it->u + i * apart, it->u + SM_MIN(i + 1, p->points - 1) * apart,
                     len, width,
                     i < width ? SM_K(sm_wino_ahead)(&w, then + i, c_then) : NULL, it->sums + i * it->apart + j * it->count,
                     part > 0);
    }
}

static void run_item(const sm_kcall *c, const wino *p, const item *it)
{
    float bias[ITEM] = {0};
    for (int64_t part = 0; part < p->kparts; part++) {
        int64_t c0 = part_start(p, part), len = part_start(p, part + 1) - c0;
        SM_K(sm_wino_pixels)(&p->in, it->t0, it->count, c0, len, it->v, it->ld, it->v_apart);
        (p->here ? part_here : part_prepared)(c, p, it, part, len);
    }
    for (int64_t j = it->j0; c->src[2].data && j < it->j1; j++)
        bias[j - it->j0] = sm_load_f32(&c->src[2], j);
    sm_wino_out o = {(float *)c->dst.data + it->j0, p->oh, p->ow, p->cols, it->j1 - it->j0, bias, NULL, 0};
    if (c->finish.add_rows) {
        o.add = c->finish.add + it->j0;
        o.add_each = c->finish.add_rows == 1 ? 0 : c->finish.add_rows / (p->oh * p->ow);
    }
    SM_K(sm_wino_results)(&p->in, &o, it->t0, it->count, it->sums, it->apart);
}

void SM_K(sm_winograd_run)(const sm_kcall *c, int task, int tasks)
{
    wino p = make(c->node, c->part, !c->prep), most = whole(c->node, !c->prep);
    int64_t a, b;
    p.in.src = c->src[0].data;
    p.in.half = c->finish.doubled;
    sm_range(p.blocks * p.chunks, task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) {
        item it = find_item(&p, i, (float *)c->work + task * room(&most));
        run_item(c, &p, &it);
    }
}
