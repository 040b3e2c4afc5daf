/* The turns of minimal filtering, F(2x2, 3x3) and F(4x4, 3x3): of kernels (G g G'), of the picture's tiles (B' d B) and of the
 * products' sums (A' m A), each first along columns, then along rows (Lavin and Gray 2016, section 4.1).
 *
 * F(4x4)'s polynomials are taken at 0, -a, a, -b, b and infinity. In float32 the points decide about the error (Barabasz et al.
 * 2020): a = 5/8 and b = 3/2 have a fourth of the worst error of the usual 1 and 2, and all constants of the two turns that are
 * done for every picture are exact. Measured on uniform numbers (docs/SPEED.md): 1.0e-6 of the rms at 128 channels, where the
 * direct sum has 0.6e-6, and at 512, where sums of 128 channels are added, 1.0e-6 for 1.2e-6. */
#include "cpu/winograd.h"

#define FLAT static inline __attribute__((always_inline))
#define A 0.625f
#define B 1.5f
enum { P2 = SM_WINO_POINTS, P4 = SM_WINO_POINTS4 };

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

/* g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2. */
FLAT void kernel2(vf a, vf b, vf c, vf *out)
{
    vf half = vset(0.5f), ends = a + c;
    out[0] = a;
    out[1] = half * (ends + b);
    out[2] = half * (ends - b);
    out[3] = c;
}

/* The kernel's polynomial at a point p and at -p over 2 p^2 (p^2 - q^2), q the other pair. */
FLAT void kernel_pair(vf a, vf b, vf c, float p, float q, vf *out)
{
    float by = 1 / (2 * p * p * (p * p - q * q));
    vf even = vfma(vset(p * p * by), c, vset(by) * a), odd = vset(p * by) * b;
    out[0] = even + odd;
    out[1] = even - odd;
}

FLAT void kernel4(vf a, vf b, vf c, vf *out)
{
    out[0] = vset(1 / (A * A * B * B)) * a;
    kernel_pair(a, b, c, A, B, out + 1);
    kernel_pair(a, b, c, B, A, out + 3);
    out[5] = c;
}

typedef void kernel_turn(vf, vf, vf, vf *);
FLAT void kernels(const int all, kernel_turn *turn, const float *taps, int n, bool back, float *out, int64_t apart)
{
    for (int i = 0; i < n; i += SM_VL) {
        vf g[9], rows[3][6], u[6];
        for (int t = 0; t < 9; t++)
            g[t] = vload(taps + (back ? 8 - t : t) * n + i);
        for (int y = 0; y < 3; y++)
            turn(g[3 * y], g[3 * y + 1], g[3 * y + 2], rows[y]);
        for (int x = 0; x < all; x++) {
            turn(rows[0][x], rows[1][x], rows[2][x], u);
            for (int y = 0; y < all; y++)
                vstore(out + (all * y + x) * apart + i, u[y]);
        }
    }
}

void SM_K(sm_wino_kernels)(int side, const float *taps, int n, bool back, float *out, int64_t apart)
{
    if (side == 4)
        kernels(6, kernel4, taps, n, back, out, apart);
    else
        kernels(4, kernel2, taps, n, back, out, apart);
}

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

static const float zeros[SM_WINO_LONGEST];

/* The all x all pixels of a tile at channel c0; zeros outside. */
FLAT void find_pixels(const int all, const sm_wino_tiles *p, const sm_wino_at *at, int64_t c0, const float **px)
{
    int64_t x0 = at->x * p->side + p->off[1], y0 = at->y * p->side + p->off[0];
    const int half = p->half;
    const int64_t w = p->w >> half;
    const float *image = p->src + at->n * (p->h >> half) * w * p->ld + c0;
    if (x0 >= 0 && y0 >= 0 && x0 + all <= p->w && y0 + all <= p->h) {
        const float *first = image + (y0 * p->w + x0) * p->ld;
        for (int i = 0; i < all * all && !half; i++)
            px[i] = first + (i / all * p->w + i % all) * p->ld;
        for (int i = 0; i < all * all && half; i++)
            px[i] = image + (((y0 + i / all) >> half) * w + ((x0 + i % all) >> half)) * p->ld;
        return;
    }
    for (int i = 0; i < all * all; i++) {
        int64_t y = y0 + i / all, x = x0 + i % all;
        if (p->circular[0])
            y = y < 0 ? y + p->h : y >= p->h ? y - p->h : y;
        if (p->circular[1])
            x = x < 0 ? x + p->w : x >= p->w ? x - p->w : x;
        bool in = (uint64_t)y < (uint64_t)p->h && (uint64_t)x < (uint64_t)p->w;
        px[i] = in ? image + ((y >> half) * w + (x >> half)) * p->ld : zeros;
    }
}

FLAT void pixels2(const vf *d, vf *out)
{
    out[0] = d[0] - d[2];
    out[1] = d[1] + d[2];
    out[2] = d[2] - d[1];
    out[3] = d[1] - d[3];
}

/* Point p and -p: d4 - q^2 d2 and d3 - q^2 d1 are what both have. */
FLAT void pixel_pair(const vf *d, float p, float q, vf *out)
{
    vf even = vfma(vset(-q * q), d[2], d[4]), odd = vfma(vset(-q * q), d[1], d[3]);
    out[0] = vfma(vset(p), odd, even);
    out[1] = vfma(vset(-p), odd, even);
}

FLAT void pixels4(const vf *d, vf *out)
{
    vf all = vset(A * A * B * B), sum = vset(-(A * A + B * B));
    out[0] = vfma(all, d[0], vfma(sum, d[2], d[4]));
    pixel_pair(d, A, B, out + 1);
    pixel_pair(d, B, A, out + 3);
    out[5] = vfma(all, d[1], vfma(sum, d[3], d[5]));
}

typedef void pixel_turn(const vf *, vf *);
/* One vector of channels: `live` of them, from pixels px + c. */
FLAT void tile_vector(const int all, pixel_turn *turn, const float *const *px, int64_t c, int live, float *out, int64_t apart)
{
    vf d[6], t[6][6], u[6];
    for (int x = 0; x < all; x++) {
        for (int y = 0; y < all; y++)
            d[y] = live == SM_VL ? vload(px[y * all + x] + c) : vload_part(px[y * all + x] + c, live, 0);
        turn(d, u);
        for (int y = 0; y < all; y++)
            t[y][x] = u[y];
    }
    for (int y = 0; y < all; y++) {
        turn(t[y], u);
        for (int x = 0; x < all; x++)
            vstore(out + (y * all + x) * apart, u[x]);
    }
}

/* The pixels of the tile beside, as far as they are not of this one too: from memory, while this one is turned. */
FLAT void fetch(const int all, const float *const *px, int64_t c)
{
    for (int y = 0; y < all; y++)
        for (int x = SM_WINO_MORE; x < all; x++)
            __builtin_prefetch(px[y * all + x] + c);
}

FLAT void pixels(const int all, pixel_turn *turn, const sm_wino_tiles *p, const int64_t tiles[2], int64_t c0, int64_t len, float *v,
                 int64_t ld, int64_t apart)
{
    sm_wino_at at = sm_wino_find(p, tiles[0]);
    const float *px[2][36];
    find_pixels(all, p, &at, c0, px[0]);
    for (int64_t t = 0; t < tiles[1]; t++) {
        const float *const *now = px[t & 1], *const *next = now;
        if (t + 1 < tiles[1]) {
            sm_wino_next(p, &at);
            find_pixels(all, p, &at, c0, px[~t & 1]);
            next = px[~t & 1];
        }
        int64_t c = 0;
        for (; c + SM_VL <= len; c += SM_VL) {
            fetch(all, next, c);
            tile_vector(all, turn, now, c, SM_VL, v + t * ld + c, apart);
        }
        if (c < len)
            tile_vector(all, turn, now, c, (int)(len - c), v + t * ld + c, apart);
    }
}

void SM_K(sm_wino_pixels)(const sm_wino_tiles *p, int64_t t0, int64_t count, int64_t c0, int64_t len, float *v, int64_t ld, int64_t apart)
{
    const int64_t tiles[2] = {t0, count};
    if (p->side == 4)
        pixels(6, pixels4, p, tiles, c0, len, v, ld, apart);
    else
        pixels(4, pixels2, p, tiles, c0, len, v, ld, apart);
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

FLAT void results2(const vf *m, vf *out)
{
    out[0] = m[0] + m[1] + m[2];
    out[1] = m[1] - m[2] - m[3];
}

FLAT void results4(const vf *m, vf *out)
{
    vf ea = m[1] + m[2], oa = m[1] - m[2], eb = m[3] + m[4], ob = m[3] - m[4];
    out[0] = m[0] + (ea + eb);
    out[1] = vfma(vset(A), oa, vset(B) * ob);
    out[2] = vfma(vset(A * A), ea, vset(B * B) * eb);
    out[3] = vfma(vset(A * A * A), oa, vfma(vset(B * B * B), ob, m[5]));
}

typedef void result_turn(const vf *, vf *);
/* What is added to a tile's results beside the bias: its first pixel's and the steps to the next ones; NULL: nothing. */
typedef struct more { const float *at; int64_t step[2]; } more;

FLAT vf with(vf v, const more *a, int y, int x, int live)
{
    const float *at = a->at + y * a->step[0] + x * a->step[1];
    return live == SM_VL ? v + vload(at) : v + vload_part(at, live, 0);
}

/* One vector of columns: m's points to side x side pixels, of which exist[0] x exist[1] are stored, `live` columns of each. */
FLAT void result_vector(const int side, result_turn *turn, const float *m, int64_t apart, vf bias, const more *add, const int exist[2],
                        float *to, const int64_t step[2], int live)
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
FLAT float *find_results(const int side, const sm_wino_out *o, const sm_wino_at *at, int exist[2])
{
    int64_t x = at->x * side, y = at->y * side;
    exist[0] = (int)SM_MIN(side, o->oh - y);
    exist[1] = (int)SM_MIN(side, o->ow - x);
    return o->dst + ((at->n * o->oh + y) * o->ow + x) * o->ld;
}

/* The memory of a tile's results to the caches, before they are stored. */
FLAT void fetch_results(const int side, const int exist[2], const float *to, const int64_t step[2])
{
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            if (y < exist[0] && x < exist[1])
                __builtin_prefetch(to + y * step[0] + x * step[1], 1);
}

/* Of the tile at `at`, whose results are at to, from column 0 on. */
FLAT more find_more(const sm_wino_out *o, int64_t picture, const float *to)
{
    if (!o->add)
        return (more){NULL, {0, 0}};
    if (o->add_each)
        return (more){o->add + picture / o->add_each * o->ld, {0, 0}};
    return (more){o->add + (to - o->dst), {o->ow * o->ld, o->ld}};
}

FLAT void results(const int side, result_turn *turn, const sm_wino_tiles *p, const sm_wino_out *o, const int64_t tiles[2], const float *m,
                  int64_t apart)
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
                result_vector(side, turn, m + j * tiles[1] + t * width + c, apart, vload(o->bias + j + c), &add, exist, to + j + c, step,
                              (int)SM_MIN(SM_VL, o->cols - j - c));
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
