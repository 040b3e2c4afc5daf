/* The autoencoder in pieces (see vae_tiles.h). "Cells" below are pixels of the map between the low and the high half: as many as
 * latents; the high half reads or writes f pixels a side for each. */
#include "pipeline/vae_tiles.h"

#include <string.h>

#include "cpu/cpu.h"

/* The sample: crops of an eighth of a window (but of CROP cells at least), spread over the picture, as many pixels together as
 * a window. Many small crops matter more than the zeros that come in at their edges: with crops of 24 or 16 cells, or without
 * counting a margin of 2 or 3 cells, the errors of uneven pictures were up to three times as large (tests/t_tiles.c). */
enum { NORMS = 128, CROP = 8, CROPS = 8 };

/* Statistics of one norm, gathered over tiles. */
typedef struct gathered { double count, *mean, *m2; } gathered;

/* The norms of a recording of the high half, in order. */
typedef struct norms {
    nn_norms hook;
    enum { MEASURE, GIVEN, GIVEN_AND_MEASURE } mode;
    int side, margin[4];   /* cells of the recorded input's first axis, cells to leave out */
    int count;
    sm_node *given[NORMS], *measured[NORMS];
    double pixels[NORMS];  /* that measured[i] saw */
} norms;

typedef struct work {
    const sm_tiled_vae *v;
    bool encode;
    int h, w, f;           /* cells, pixels a cell */
    int reach, down, across;
    int src_c, dst_c;      /* channels of the high half's input and result */
    int src_k, dst_k;      /* their pixels a cell: 1 or f */
    const float *src;      /* [h src_k, w src_k, src_c] */
    float *dst;
    int norms;
    int groups;
    float *stats;          /* [norms][2][groups] */
    gathered sums[NORMS];
    double *sums_memory;
    int done, windows;
} work;

typedef struct rect { int y, x, h, w; } rect;

typedef struct part { sm_graph *g; sm_plan *p; sm_node *in, *out; } part;

static void close_part(part *p)
{
    sm_plan_free(p->p);
    sm_graph_free(p->g);
    *p = (part){0};
}

/* ---- recording --------------------------------------------------------------------------------------------------- */

static sm_node *norm_at(nn_norms *hook, sm_node *x, int groups)
{
    norms *n = (norms *)hook;
    if (sm_poisoned(x))
        return x;
    if (n->count == NORMS)
        return sm_graph_fail(x->g, "VAE: more than %d norms", NORMS);
    int i = n->count++, margin[4], num = (int)x->dims[1], den = n->side;
    for (int k = 0; k < 4; k++) /* sizes are multiples: num / den or den / num is whole */
        margin[k] = (int)((int64_t)n->margin[k] * num / den);
    n->pixels[i] = (double)(x->dims[1] - margin[0] - margin[1]) * (double)(x->dims[2] - margin[2] - margin[3]);
    if (n->mode != GIVEN)
        n->measured[i] = sm_group_stats(x, groups, margin);
    if (n->mode != MEASURE)
        n->given[i] = sm_input(x->g, "statistics", SM_F32, 2, (int64_t[]){2, groups});
    return n->mode == MEASURE ? n->measured[i] : n->given[i];
}

static nn_scope scope_of(const work *k, sm_graph *g)
{
    nn_scope root = nn_root(g, (sm_weights *)k->v->w, NULL);
    return nn_sub(&root, "%s", k->v->component);
}

/* n NULL: norms as usual. A margin's unit is cells; h, w of the input in cells. */
static sumi_status open_high(const work *k, part *p, norms *n, int count, int h, int w, sm_err *e)
{
    sm_node *out[NORMS + 1];
    int outs = 0;
    p->g = sm_graph_new(k->v->mem, e);
    if (!p->g)
        return e->code;
    nn_scope s = scope_of(k, p->g);
    s.circular[0] = k->v->circular[0] && h == k->h; /* else a window has what is at the other side */
    s.circular[1] = k->v->circular[1] && w == k->w;
    if (n) {
        s.norms = &n->hook;
        n->hook.at = norm_at;
        n->side = h;
    }
    p->in = sm_input(p->g, "x", SM_F32, 4, (int64_t[]){count, (int64_t)h * k->src_k, (int64_t)w * k->src_k, k->src_c});
    p->out = (k->encode ? sm_vae_encode_high : sm_vae_decode_high)(&s, k->v->c, p->in);
    if (!n || n->mode != MEASURE)
        out[outs++] = p->out;
    for (int i = 0; n && n->mode != GIVEN && i < n->count; i++)
        out[outs++] = n->measured[i];
    p->p = sm_plan_new_with(p->g, outs, out, k->v->be, &k->v->opts, e);
    return e->code;
}

static sumi_status open_low(const work *k, part *p, sm_err *e)
{
    p->g = sm_graph_new(k->v->mem, e);
    if (!p->g)
        return e->code;
    nn_scope s = scope_of(k, p->g);
    s.circular[0] = k->v->circular[0];
    s.circular[1] = k->v->circular[1];
    int c = k->encode ? k->dst_c : k->v->c->latent_channels;
    p->in = sm_input(p->g, "x", SM_F32, 4, (int64_t[]){1, k->h, k->w, c});
    sm_node *x = !k->encode && k->v->unscale ? k->v->unscale(k->v->unscale_arg, p->in) : p->in;
    p->out = (k->encode ? sm_vae_encode_low : sm_vae_decode_low)(&s, k->v->c, x);
    p->p = sm_plan_new_with(p->g, 1, &p->out, k->v->be, &k->v->opts, e);
    return e->code;
}

static sumi_status run(const work *k, const part *p, sm_err *e) { return sm_plan_run(p->p, k->v->pool, k->v->cancel, e); }

/* ---- geometry ---------------------------------------------------------------------------------------------------- */

static int tiles_along(int size, int tile, int reach)
{
    int core = SM_MAX(tile - 2 * reach, reach);
    return size <= tile ? 1 : (size + core - 1) / core;
}

static rect tile_at(const work *k, int i)
{
    int64_t y0, y1, x0, x1;
    sm_range(k->h, i / k->across, k->down, &y0, &y1);
    sm_range(k->w, i % k->across, k->across, &x0, &x1);
    return (rect){(int)y0, (int)x0, (int)(y1 - y0), (int)(x1 - x0)};
}

/* A tile with all that its pixels depend on; where edges meet it goes on at the other side, else it ends with the picture. */
static void widen(int *at, int *len, int size, int reach, bool circular)
{
    int from = *at - reach, to = *at + *len + reach;
    if (*len == size || !circular) {
        from = SM_MAX(from, 0);
        to = SM_MIN(to, size);
    }
    *at = from;
    *len = to - from;
}

static rect window_of(const work *k, rect t)
{
    widen(&t.y, &t.h, k->h, k->reach, k->v->circular[0]);
    widen(&t.x, &t.w, k->w, k->reach, k->v->circular[1]);
    return t;
}

/* Copies a window of the source, row by row, cells beyond an edge from the other side. */
static void cut_out(const work *k, rect r, float *to)
{
    size_t cell = (size_t)k->src_k * (size_t)k->src_c, line = cell * (size_t)k->w;
    for (int y = 0; y < r.h * k->src_k; y++) {
        int row = ((r.y + k->h) * k->src_k + y) % (k->h * k->src_k);
        for (int x = 0; x < r.w; x++, to += cell)
            memcpy(to, k->src + (size_t)row * line + (size_t)((r.x + k->w + x) % k->w) * cell, cell * sizeof *to);
    }
}

static void put_tile(const work *k, rect t, rect win, const float *from)
{
    size_t cell = (size_t)k->dst_k * (size_t)k->dst_c;
    for (int y = 0; y < t.h * k->dst_k; y++) {
        const float *row = from + ((size_t)((t.y - win.y) * k->dst_k + y) * (size_t)win.w + (size_t)(t.x - win.x)) * cell;
        float *to = k->dst + ((size_t)(t.y * k->dst_k + y) * (size_t)k->w + (size_t)t.x) * cell;
        memcpy(to, row, (size_t)t.w * cell * sizeof *row);
    }
}

/* ---- statistics -------------------------------------------------------------------------------------------------- */

static float *stats_of(const work *k, int norm) { return k->stats + (size_t)norm * 2 * (size_t)k->groups; }
static size_t stats_bytes(const work *k) { return sizeof(float) * 2 * (size_t)k->groups; }

/* The crops along an axis, about as long together as a window: their length and number. */
typedef struct crops { int len, count; } crops;

static crops crops_along(const work *k, int size)
{
    int tile = k->v->tile ? k->v->tile : SM_VAE_TILE, len = SM_MIN(SM_MAX(tile / CROPS, CROP), size);
    return (crops){len, SM_MAX(1, SM_MIN(tile, size) / len)};
}

/* Where crop i begins: the middles of as many equal parts are its middle. */
static int crop_at(const crops *c, int i, int size)
{
    int at = (int)((2 * (int64_t)i + 1) * size / (2 * c->count)) - c->len / 2;
    return SM_MIN(SM_MAX(at, 0), size - c->len);
}

static sumi_status open_sample(const work *k, part *p, norms *n, const crops *y, const crops *x, sm_err *e)
{
    *n = (norms){.mode = MEASURE};
    return open_high(k, p, n, y->count * x->count, y->len, x->len, e);
}

static sumi_status sample(work *k, sm_err *e)
{
    crops y = crops_along(k, k->h), x = crops_along(k, k->w);
    norms n;
    part p = {0};
    if (!open_sample(k, &p, &n, &y, &x, e)) {
        float *to = sm_plan_data(p.p, p.in);
        size_t each = (size_t)y.len * (size_t)x.len * (size_t)k->src_k * (size_t)k->src_k * (size_t)k->src_c;
        for (int i = 0; i < y.count * x.count; i++)
            cut_out(k, (rect){crop_at(&y, i / x.count, k->h), crop_at(&x, i % x.count, k->w), y.len, x.len},
                    to + (size_t)i * each);
        if (!run(k, &p, e)) {
            k->norms = n.count;
            for (int i = 0; i < n.count; i++)
                memcpy(stats_of(k, i), sm_plan_data(p.p, n.measured[i]), stats_bytes(k));
        }
    }
    close_part(&p);
    return e->code;
}

/* Joins a tile's statistics with those gathered so far (Chan, Golub, LeVeque 1979). */
static void gather(const work *k, gathered *s, const float *stats, double pixels)
{
    double total = s->count + pixels;
    for (int g = 0; g < k->groups; g++) {
        double d = stats[g] - s->mean[g];
        s->mean[g] += d * pixels / total;
        s->m2[g] += stats[k->groups + g] * pixels + d * d * s->count * pixels / total;
    }
    s->count = total;
}

/* What was gathered becomes what the next round is given. */
static void adopt(work *k)
{
    for (int i = 0; i < k->norms; i++)
        for (int g = 0; g < k->groups; g++) {
            float *to = stats_of(k, i);
            to[g] = (float)k->sums[i].mean[g];
            to[k->groups + g] = (float)(k->sums[i].m2[g] / k->sums[i].count);
        }
}

static void forget(work *k)
{
    memset(k->sums_memory, 0, sizeof(double) * 2 * NORMS * (size_t)k->groups);
    for (int i = 0; i < NORMS; i++) {
        double *at = k->sums_memory + (size_t)(2 * i) * (size_t)k->groups;
        k->sums[i] = (gathered){0, at, at + k->groups};
    }
}

/* ---- the high half ----------------------------------------------------------------------------------------------- */

static sumi_status run_tile(work *k, int i, bool last, sm_err *e)
{
    rect t = tile_at(k, i), win = window_of(k, t);
    norms n = {.mode = last ? GIVEN : GIVEN_AND_MEASURE,
               .margin = {t.y - win.y, win.y + win.h - t.y - t.h, t.x - win.x, win.x + win.w - t.x - t.w}};
    part p = {0};
    if (!open_high(k, &p, &n, 1, win.h, win.w, e)) {
        cut_out(k, win, sm_plan_data(p.p, p.in));
        for (int j = 0; j < n.count; j++)
            memcpy(sm_plan_data(p.p, n.given[j]), stats_of(k, j), stats_bytes(k));
        if (!run(k, &p, e)) {
            for (int j = 0; j < n.count && !last; j++)
                gather(k, &k->sums[j], sm_plan_data(p.p, n.measured[j]), n.pixels[j]);
            if (last)
                put_tile(k, t, win, sm_plan_data(p.p, p.out));
        }
    }
    close_part(&p);
    if (k->v->progress)
        k->v->progress(k->v->user, ++k->done, k->windows);
    return e->code;
}

static sumi_status run_tiles(work *k, sm_err *e)
{
    int rounds = SM_MAX(k->v->rounds, 1);
    k->windows = rounds * k->down * k->across;
    for (int r = 0; r < rounds && !e->code; r++) {
        forget(k);
        for (int i = 0; i < k->down * k->across && !e->code; i++)
            run_tile(k, i, r == rounds - 1, e);
        if (r < rounds - 1)
            adopt(k);
    }
    return e->code;
}

static sumi_status run_whole(const work *k, sm_err *e)
{
    part p = {0};
    if (!open_high(k, &p, NULL, 1, k->h, k->w, e)) {
        cut_out(k, (rect){0, 0, k->h, k->w}, sm_plan_data(p.p, p.in));
        if (!run(k, &p, e))
            put_tile(k, (rect){0, 0, k->h, k->w}, (rect){0, 0, k->h, k->w}, sm_plan_data(p.p, p.out));
    }
    close_part(&p);
    return e->code;
}

static sumi_status run_high(work *k, sm_err *e)
{
    if (k->down * k->across == 1)
        return run_whole(k, e);
    k->stats = sm_alloc(k->v->mem, SM_MEM_MISC, sizeof(float) * 2 * NORMS * (size_t)k->groups);
    k->sums_memory = sm_alloc(k->v->mem, SM_MEM_MISC, sizeof(double) * 2 * NORMS * (size_t)k->groups);
    if (!k->stats || !k->sums_memory)
        sm_fail(e, SUMI_E_MEMORY, "out of memory for the statistics of tiles");
    else if (!sample(k, e))
        run_tiles(k, e);
    sm_free(k->stats);
    sm_free(k->sums_memory);
    return e->code;
}

/* The low half, from x to y. */
static sumi_status run_low(const work *k, const float *x, float *y, sm_err *e)
{
    part p = {0};
    if (!open_low(k, &p, e)) {
        memcpy(sm_plan_data(p.p, p.in), x, sizeof *x * (size_t)sm_numel(p.in));
        if (!run(k, &p, e))
            memcpy(y, sm_plan_data(p.p, p.out), sizeof *y * (size_t)sm_numel(p.out));
    }
    close_part(&p);
    return e->code;
}

static sumi_status start(work *k, const sm_tiled_vae *v, bool encode, int h, int w, sm_err *e)
{
    const sm_vae_config *c = v->c;
    int tile = v->tile ? v->tile : SM_VAE_TILE;
    *k = (work){.v = v, .encode = encode, .h = h, .w = w};
    if (c->blocks < 1 || c->blocks > SM_BLOCKS || h < 1 || w < 1 || c->norm_num_groups < 1)
        return sm_fail(e, SUMI_E_ARG, "VAE: nothing to compute in %dx%d latents by %d blocks", w, h, c->blocks);
    k->f = sm_vae_factor(c);
    k->reach = sm_vae_reach(c, encode);
    k->groups = c->norm_num_groups;
    int between = encode ? c->block_out_channels[SM_MAX(c->blocks - 2, 0)] : c->block_out_channels[c->blocks - 1];
    k->src_c = encode ? c->in_channels : between;
    k->dst_c = encode ? between : c->out_channels;
    k->src_k = encode ? k->f : 1;
    k->dst_k = encode ? 1 : k->f;
    k->down = tiles_along(h, tile, k->reach);
    k->across = tiles_along(w, tile, k->reach);
    return SUMI_OK;
}

static float *map_memory(const work *k, sm_err *e)
{
    size_t n = (size_t)k->h * (size_t)k->w * (size_t)(k->encode ? k->dst_c : k->src_c);
    float *x = sm_alloc(k->v->mem, SM_MEM_DATA, sizeof *x * n);
    if (!x)
        sm_fail(e, SUMI_E_MEMORY, "out of memory between the halves of the autoencoder (%dx%d)", k->w, k->h);
    return x;
}

sumi_status sm_vae_decode_tiled(const sm_tiled_vae *v, const float *z, int h, int w, float *out, sm_err *e)
{
    work k;
    sm_err own = {0};
    float *map = start(&k, v, false, h, w, &own) ? NULL : map_memory(&k, &own);
    if (map && !run_low(&k, z, map, &own)) {
        k.src = map;
        k.dst = out;
        run_high(&k, &own);
    }
    sm_free(map);
    return own.code ? sm_fail(e, own.code, "%s", own.msg) : SUMI_OK;
}

sumi_status sm_vae_encode_tiled(const sm_tiled_vae *v, const float *image, int h, int w, float *moments, sm_err *e)
{
    work k;
    sm_err own = {0};
    float *map = start(&k, v, true, h, w, &own) ? NULL : map_memory(&k, &own);
    if (map) {
        k.src = image;
        k.dst = map;
        if (!run_high(&k, &own))
            run_low(&k, map, moments, &own);
    }
    sm_free(map);
    return own.code ? sm_fail(e, own.code, "%s", own.msg) : SUMI_OK;
}

/* ---- what it takes ----------------------------------------------------------------------------------------------- */

static void count_part(const part *p, sm_vae_tiles_info *out, double times)
{
    out->bytes = SM_MAX(out->bytes, sm_plan_activation_bytes(p->p) + sm_plan_packed_bytes(p->p));
    out->flops += sm_plan_cost(p->p).flops * times;
}

sumi_status sm_vae_tiles_plan(const sm_tiled_vae *v, bool encode, int h, int w, sm_vae_tiles_info *out, sm_err *e)
{
    work k;
    part p = {0};
    sm_err own = {0};
    *out = (sm_vae_tiles_info){0};
    if (!start(&k, v, encode, h, w, &own) && !open_low(&k, &p, &own))
        count_part(&p, out, 1);
    close_part(&p);
    out->down = k.down;
    out->across = k.across;
    bool whole = k.down * k.across == 1;
    norms sampled;
    if (!whole && !own.code) {
        crops y = crops_along(&k, h), x = crops_along(&k, w);
        if (!open_sample(&k, &p, &sampled, &y, &x, &own))
            count_part(&p, out, 1);
        close_part(&p);
    }
    for (int i = 0; i < k.down * k.across && !own.code; i++) {
        rect win = window_of(&k, tile_at(&k, i));
        norms n = {.mode = GIVEN};
        if (!open_high(&k, &p, whole ? NULL : &n, 1, win.h, win.w, &own))
            count_part(&p, out, whole ? 1 : SM_MAX(v->rounds, 1));
        close_part(&p);
    }
    out->bytes += sizeof(float) * (size_t)h * (size_t)w * (size_t)(encode ? k.dst_c : k.src_c);
    return own.code ? sm_fail(e, own.code, "%s", own.msg) : SUMI_OK;
}
