/* The turns of minimal filtering, F(2x2, 3x3) and F(4x4, 3x3), of the picture's tiles (B' d B) and of the products' sums (A' m
 * A), each first along columns, then along rows (Lavin and Gray 2016, section 4.1); kernels: k_winograd_kernels.c.
 *
 * F(4x4)'s polynomials are taken at 0, -a, a, -b, b and infinity. In float32 the points decide about the error (Barabasz et al.
 * 2020): a = 5/8 and b = 3/2 have a fourth of the worst error of the usual 1 and 2, and all constants of the kernels' and the
 * pictures' turns are exact. Measured on uniform numbers (docs/SPEED.md): 1.0e-6 of the rms at 128 channels, where the
 * direct sum has 0.6e-6, and at 512, where sums of 128 channels are added, 1.0e-6 for 1.2e-6. */
#include "cpu/winograd.h"

#define A SM_WINO_A
#define B SM_WINO_B
enum { P2 = SM_WINO_POINTS, P4 = SM_WINO_POINTS4 };

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

static const float zeros[SM_WINO_LONGEST];

/* Up to STRIP tiles side by side, from channel c0 on: of each row the first pixel's place and a mask, by which pixels outside are
 * read as zeros; of each column how far it is from there, -1 where it is outside. */
enum { STRIP = 4, COLUMNS = 4 * STRIP + SM_WINO_MORE };
typedef struct strip { const float *row[6]; int64_t mask[6], col[COLUMNS]; int tiles; } strip;

/* Where position i of an axis is read; -1: outside. */
SM_FLAT int64_t place(int64_t i, int64_t size, int circular)
{
    if (circular)
        i = i < 0 ? i + size : i >= size ? i - size : i;
    return (uint64_t)i < (uint64_t)size ? i : -1;
}

static void find_strip(const sm_wino_tiles *p, const sm_wino_at *at, int tiles, int64_t c0, strip *s)
{
    int64_t x0 = at->x * p->side + p->off[1], y0 = at->y * p->side + p->off[0], line = (p->w >> p->half) * p->ld;
    const float *image = p->src + at->n * (p->h >> p->half) * line + c0;
    s->tiles = tiles;
    for (int i = 0; i < p->side + SM_WINO_MORE; i++) {
        int64_t y = place(y0 + i, p->h, p->circular[0]);
        s->row[i] = y < 0 ? zeros : image + (y >> p->half) * line;
        s->mask[i] = y < 0 ? 0 : -1;
    }
    for (int i = 0; i < p->side * tiles + SM_WINO_MORE; i++) {
        int64_t x = place(x0 + i, p->w, p->circular[1]);
        s->col[i] = x < 0 ? -1 : (x >> p->half) * p->ld;
    }
}

SM_FLAT void pixels2(const vf *d, vf *out)
{
    out[0] = d[0] - d[2];
    out[1] = d[1] + d[2];
    out[2] = d[2] - d[1];
    out[3] = d[1] - d[3];
}

/* Point p and -p: d4 - q^2 d2 and d3 - q^2 d1 are what both have. */
SM_FLAT void pixel_pair(const vf *d, float p, float q, vf *out)
{
    vf even = vfma(vset(-q * q), d[2], d[4]), odd = vfma(vset(-q * q), d[1], d[3]);
    out[0] = vfma(vset(p), odd, even);
    out[1] = vfma(vset(-p), odd, even);
}

SM_FLAT void pixels4(const vf *d, vf *out)
{
    vf all = vset(A * A * B * B), sum = vset(-(A * A + B * B));
    out[0] = vfma(all, d[0], vfma(sum, d[2], d[4]));
    pixel_pair(d, A, B, out + 1);
    pixel_pair(d, B, A, out + 3);
    out[5] = vfma(all, d[1], vfma(sum, d[3], d[5]));
}

typedef void pixel_turn(const vf *, vf *);
/* One vector of channels, `live` of them from c on, of a strip: its columns, which neighbouring tiles share, then the tiles'
 * rows. */
SM_FLAT void strip_vector(const int side, pixel_turn *turn, const strip *s, int64_t c, int live, float *out,
                       int64_t ld, int64_t apart)
{
    const int all = side + SM_WINO_MORE;
    vf d[6], u[6], t[6][COLUMNS];
    for (int x = 0; x < side * s->tiles + SM_WINO_MORE; x++) {
        for (int y = 0; y < all; y++) {
            const float *px = s->row[y] + (s->col[x] & s->mask[y]) + c;
            d[y] = s->col[x] < 0 ? vset(0) : live == SM_VL ? vload(px) : vload_part(px, live, 0);
        }
        turn(d, u);
        for (int y = 0; y < all; y++)
            t[y][x] = u[y];
    }
    for (int i = 0; i < s->tiles; i++) {
        float *to = out + i * ld;
        SM_ROLLED for (int y = 0; y < all; y++, to += all * apart) {
            turn(t[y] + i * side, u);
            for (int x = 0; x < all; x++)
                vstore(to + x * apart, u[x]);
        }
    }
}

/* The strip beside, from memory while this one is turned. */
SM_FLAT void fetch(const int side, const strip *s, int64_t c)
{
    for (int x = SM_WINO_MORE; x < side * s->tiles + SM_WINO_MORE; x++)
        for (int y = 0; y < side + SM_WINO_MORE; y++)
            __builtin_prefetch(s->row[y] + (s->col[x] & s->mask[y]) + c, 0, 2);
}

SM_FLAT void pixels(const int side, pixel_turn *turn, const sm_wino_tiles *p, const int64_t tiles[2], int64_t c0, int64_t len,
                 float *v, int64_t ld, int64_t apart)
{
    sm_wino_at at = sm_wino_find(p, tiles[0]);
    strip s[2];
    find_strip(p, &at, (int)SM_MIN(SM_MIN(STRIP, tiles[1]), p->tw - at.x), c0, &s[0]);
    for (int64_t t = 0, i = 0; t < tiles[1]; i ^= 1) {
        int64_t then = t + s[i].tiles, c = 0;
        s[!i].tiles = 0;
        if (then < tiles[1]) {
            at = sm_wino_find(p, tiles[0] + then);
            find_strip(p, &at, (int)SM_MIN(SM_MIN(STRIP, tiles[1] - then), p->tw - at.x), c0, &s[!i]);
        }
        for (; c < len; c += SM_VL) {
            if (s[!i].tiles && c % 16 == 0)
                fetch(side, &s[!i], c);
            strip_vector(side, turn, &s[i], c, (int)SM_MIN(SM_VL, len - c), v + t * ld + c, ld, apart);
        }
        t = then;
    }
}

void SM_K(sm_wino_pixels)(const sm_wino_tiles *p, int64_t t0, int64_t count, int64_t c0, int64_t len, float *v,
                          int64_t ld, int64_t apart)
{
    const int64_t tiles[2] = {t0, count};
    if (p->side == 4)
        pixels(4, pixels4, p, tiles, c0, len, v, ld, apart);
    else
        pixels(2, pixels2, p, tiles, c0, len, v, ld, apart);
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

SM_FLAT void results2(const vf *m, vf *out)
{
    out[0] = m[0] + m[1] + m[2];
    out[1] = m[1] - m[2] - m[3];
}

/* What the products at a point p are divided by: p^2 (p^2 - q^2) 2, q the other pair's, and at 0 their squares' product. */
#define OF_A (1 / (2 * A * A * (A * A - B * B)))
#define OF_B (1 / (2 * B * B * (B * B - A * A)))

SM_FLAT void results4(const vf *m, vf *out)
{
    vf ea = m[1] + m[2], oa = m[1] - m[2], eb = m[3] + m[4], ob = m[3] - m[4];
    out[0] = vfma(vset(1 / (A * A * B * B)), m[0], vfma(vset(OF_A), ea, vset(OF_B) * eb));
    out[1] = vfma(vset(OF_A * A), oa, vset(OF_B * B) * ob);
    out[2] = vfma(vset(OF_A * A * A), ea, vset(OF_B * B * B) * eb);
    out[3] = vfma(vset(OF_A * A * A * A), oa, vfma(vset(OF_B * B * B * B), ob, m[5]));
}

typedef void result_turn(const vf *, vf *);
/* What is added to a tile's results beside the bias: its first pixel's and the steps to the next ones; NULL: nothing. */
typedef struct more { const float *at; int64_t step[2]; } more;

SM_FLAT vf with(vf v, const more *a, int y, int x, int live)
{
    const float *at = a->at + y * a->step[0] + x * a->step[1];
    return live == SM_VL ? v + vload(at) : v + vload_part(at, live, 0);
}

/* One vector of columns: m's points to side x side pixels, of which exist[0] x exist[1] are stored, `live` columns of each. */
SM_FLAT void result_vector(const int side, result_turn *turn, const float *m, int64_t apart, vf bias,
                        const more *add, const int exist[2], float *to, const int64_t step[2], int live)
{
    vf s[4][6], d[6], u[4];
    for (int x = 0; x < side + 2; x++) {
        for (int y = 0; y < side + 2; y++)
            d[y] = vload(m + (y * (side + 2) + x) * apart);
        turn(d, u);
        for (int y = 0; y < side; y++)
            s[y][x] = u[y];
    }
    if (exist[0] == side && exist[1] == side && live == SM_VL) {
        for (int y = 0; y < side; y++) {
            turn(s[y], u);
            for (int x = 0; x < side; x++) {
                vf v = u[x] + bias;
                vstore(to + y * step[0] + x * step[1], add->at ? with(v, add, y, x, SM_VL) : v);
            }
        }
        return;
    }
    for (int y = 0; y < exist[0]; y++) {
        turn(s[y], u);
        for (int x = 0; x < side; x++)
            if (x < exist[1]) {
                vf v = u[x] + bias;
                vstore_part(to + y * step[0] + x * step[1], add->at ? with(v, add, y, x, live) : v, live);
            }
    }
}

/* Where the results of a tile are, and how many of them exist. */
SM_FLAT float *find_results(const int side, const sm_wino_out *o, const sm_wino_at *at, int exist[2])
{
    int64_t x = at->x * side, y = at->y * side;
    exist[0] = (int)SM_MIN(side, o->oh - y);
    exist[1] = (int)SM_MIN(side, o->ow - x);
    return o->dst + ((at->n * o->oh + y) * o->ow + x) * o->ld;
}

/* The memory of a tile's results to the caches, before they are stored. */
SM_FLAT void fetch_results(const int side, const int exist[2], const float *to, const int64_t step[2])
{
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            if (y < exist[0] && x < exist[1])
                __builtin_prefetch(to + y * step[0] + x * step[1], 1);
}

/* Of the tile at `at`, whose results are at to, from column 0 on. */
SM_FLAT more find_more(const sm_wino_out *o, int64_t picture, const float *to)
{
    if (!o->add)
        return (more){NULL, {0, 0}};
    if (o->add_each)
        return (more){o->add + picture / o->add_each * o->ld, {0, 0}};
    return (more){o->add + (to - o->dst), {o->ow * o->ld, o->ld}};
}

SM_FLAT void results(const int side, result_turn *turn, const sm_wino_tiles *p, const sm_wino_out *o, const int64_t tiles[2],
                  const float *m, int64_t apart)
{
    sm_wino_at at = sm_wino_find(p, tiles[0]);
    const int64_t step[2] = {o->ow * o->ld, o->ld};
    int exist[2], then[2];
    float *to = find_results(side, o, &at, exist), *next;
    for (int64_t t = 0; t < tiles[1]; t++, to = next, memcpy(exist, then, sizeof exist)) {
        more add = find_more(o, at.n, to);
        const float *added = add.at;
        sm_wino_next(p, &at);
        next = find_results(side, o, &at, then);
        for (int64_t j = 0; j < o->cols; j += SM_NR) {
            int width = sm_panel_width(o->cols, j);
            for (int c = 0; c < width; c += SM_VL) {
                if (t + 1 < tiles[1])
                    fetch_results(side, then, next + j + c, step);
                add.at = added ? added + j + c : NULL;
                result_vector(side, turn, m + j * tiles[1] + t * width + c, apart, vload(o->bias + j + c),
                              &add, exist, to + j + c, step, (int)SM_MIN(SM_VL, o->cols - j - c));
            }
        }
    }
}

void SM_K(sm_wino_results)(const sm_wino_tiles *p, const sm_wino_out *o, int64_t t0, int64_t count, const float *m, int64_t apart)
{
    const int64_t tiles[2] = {t0, count};
    if (p->side == 4)
        results(4, results4, p, o, tiles, m, apart);
    else
        results(2, results2, p, o, tiles, m, apart);
}
