/* The feature and the search of the concept score (see concept_score.h).
 *
 * 1. Colours become OKLab (Ottosson, 2020) minus white, so that an empty background is zero.
 * 2. What differs from white is weighed; its centroid and rms radius give a square window (side 3.4 radii), so that place
 *    and size in the frame do not matter (moment normalisation, Hu 1962).
 * 3. Of the window: mean colour over overlapping cells of a 12x12, a 6x6 and a 3x3 grid; histograms of edge orientation
 *    (8 unsigned directions, weighed by edge strength) over 8x8 and 4x4 cells, their square roots (Dalal and Triggs, 2005).
 * 4. A gallery centres each dimension and divides it by its spread, weighs the five groups of dimensions equally up to the
 *    constants below, and compares by cosine. */
#include "eval/concept_score.h"

#include <math.h>
#include <string.h>

enum { WIN = 48, BINS = 8, GROUPS = 5 };

/* Sizes of the groups of dimensions and what each contributes to the squared length of an average vector. */
static const int group_dim[GROUPS] = {3 * 144, 3 * 36, 3 * 9, BINS * 64, BINS * 16};
static const float group_weight[GROUPS] = {1.0f, 0.7f, 0.3f, 0.8f, 0.5f};

/* ---- the window -------------------------------------------------------------------------------------------------- */

/* sRGB bytes to OKLab minus white. */
static void to_lab(const uint8_t *p, const float *linear, float *lab)
{
    float r = linear[p[0]], g = linear[p[1]], b = linear[p[2]];
    float l = cbrtf(0.4122214708f * r + 0.5363325363f * g + 0.0514459929f * b);
    float m = cbrtf(0.2119034982f * r + 0.6806995451f * g + 0.1073969566f * b);
    float s = cbrtf(0.0883024619f * r + 0.2817188376f * g + 0.6299787005f * b);
    lab[0] = 0.2104542553f * l + 0.7936177850f * m - 0.0040720468f * s - 1.0f;
    lab[1] = 1.9779984951f * l - 2.4285922050f * m + 0.4505937099f * s;
    lab[2] = 0.0259040371f * l + 0.7827717662f * m - 0.8086757660f * s;
}

/* How much a pixel is not background: 0 below a distance of 0.04 from white (noise, soft shadows), 1 from 0.16 on. */
static float foreground(const float *lab)
{
    float d = sqrtf(lab[0] * lab[0] + lab[1] * lab[1] + lab[2] * lab[2]);
    return SM_MAX(0.0f, SM_MIN(1.0f, (d - 0.04f) / 0.12f));
}

/* Sums over rectangles from the corner: sum[(y * (w + 1) + x) * 3 + c], y 0..h, x 0..w. */
typedef struct sums {
    double *sum;
    int w, h;
    double cx, cy, radius; /* centroid and rms radius of the foreground, in pixels */
} sums;

static void sums_fill(sums *s, const uint8_t *rgb)
{
    float linear[256], lab[3];
    for (int i = 0; i < 256; i++)
        linear[i] = i <= 10 ? (float)i / 255.0f / 12.92f : powf(((float)i / 255.0f + 0.055f) / 1.055f, 2.4f);
    size_t stride = (size_t)(s->w + 1) * 3;
    double n = 0, x1 = 0, y1 = 0, r2 = 0;
    memset(s->sum, 0, stride * sizeof *s->sum);
    for (int y = 0; y < s->h; y++) {
        double row[3] = {0, 0, 0}, *o = s->sum + (size_t)(y + 1) * stride;
        o[0] = o[1] = o[2] = 0;
        for (int x = 0; x < s->w; x++) {
            to_lab(rgb + ((size_t)y * (size_t)s->w + (size_t)x) * 3, linear, lab);
            double f = (double)foreground(lab);
            n += f;
            x1 += f * (x + 0.5);
            y1 += f * (y + 0.5);
            r2 += f * ((x + 0.5) * (x + 0.5) + (y + 0.5) * (y + 0.5));
            for (int c = 0; c < 3; c++) {
                row[c] += (double)lab[c];
                o[(x + 1) * 3 + c] = o[(x + 1) * 3 + c - (int)stride] + row[c];
            }
        }
    }
    s->cx = s->w / 2.0, s->cy = s->h / 2.0, s->radius = SM_MAX(s->w, s->h) / 3.4;
    if (n < 0.002 * s->w * s->h) /* blank: the whole frame */
        return;
    s->cx = x1 / n;
    s->cy = y1 / n;
    s->radius = SM_MAX(sqrt(SM_MAX(0.0, r2 / n - s->cx * s->cx - s->cy * s->cy)), 0.05 * SM_MAX(s->w, s->h));
}

/* Channel c summed over [0, x] x [0, y], x and y fractional; outside the frame is white, which adds nothing. */
static double corner(const sums *s, double x, double y, int c)
{
    x = SM_MAX(0.0, SM_MIN((double)s->w, x));
    y = SM_MAX(0.0, SM_MIN((double)s->h, y));
    int xi = SM_MIN((int)x, s->w - 1), yi = SM_MIN((int)y, s->h - 1);
    double fx = x - xi, fy = y - yi;
    const double *p = s->sum + ((size_t)yi * (size_t)(s->w + 1) + (size_t)xi) * 3 + c, *q = p + (s->w + 1) * 3;
    return (1 - fy) * ((1 - fx) * p[0] + fx * p[3]) + fy * ((1 - fx) * q[0] + fx * q[3]);
}

/* Mean of channel c over a rectangle in window coordinates (0..1 each way). */
static float window_mean(const sums *s, double x0, double y0, double x1, double y1, int c)
{
    double side = 3.4 * s->radius, left = s->cx - side / 2, top = s->cy - side / 2;
    double a = left + x0 * side, b = left + x1 * side, u = top + y0 * side, v = top + y1 * side;
    double sum = corner(s, b, v, c) - corner(s, a, v, c) - corner(s, b, u, c) + corner(s, a, u, c);
    return (float)(sum / ((b - a) * (v - u)));
}

/* ---- the feature ------------------------------------------------------------------------------------------------- */

/* Mean colours over n x n cells, each half as wide again as its share, so that small moves change little. */
static float *colour_grid(const sums *s, int n, float *out)
{
    for (int y = 0; y < n; y++)
        for (int x = 0; x < n; x++)
            for (int c = 0; c < 3; c++)
                *out++ = window_mean(s, (x - 0.25) / n, (y - 0.25) / n, (x + 1.25) / n, (y + 1.25) / n, c) * (c ? 2.0f : 1.0f);
    return out;
}

/* Adds weight v at (y, x) in cells of an n x n grid, shared among the four nearest cells. */
static void spread(float *hist, int n, double y, double x, int bin, float v)
{
    double gy = y * n - 0.5, gx = x * n - 0.5;
    int y0 = (int)floor(gy), x0 = (int)floor(gx);
    for (int k = 0; k < 4; k++) {
        int yy = y0 + (k >> 1), xx = x0 + (k & 1);
        float w = (float)((k >> 1 ? gy - y0 : 1 - gy + y0) * (k & 1 ? gx - x0 : 1 - gx + x0));
        if (yy >= 0 && yy < n && xx >= 0 && xx < n)
            hist[(yy * n + xx) * BINS + bin] += w * v;
    }
}

/* Orientation histograms of the window win, float [WIN, WIN, 3], over n x n cells; square roots, unit length. */
static float *edge_grid(const float *win, int n, float *out)
{
    int dim = n * n * BINS;
    memset(out, 0, sizeof *out * (size_t)dim);
    for (int y = 1; y < WIN - 1; y++)
        for (int x = 1; x < WIN - 1; x++) {
            float best = 0, gx = 0, gy = 0;
            for (int c = 0; c < 3; c++) { /* the channel with the strongest edge */
                const float *p = win + (y * WIN + x) * 3 + c;
                float dx = p[3] - p[-3], dy = p[WIN * 3] - p[-WIN * 3], m = dx * dx + dy * dy;
                if (m > best)
                    best = m, gx = dx, gy = dy;
            }
            if (best < 1e-6f)
                continue;
            double turn = atan2((double)gy, (double)gx) / M_PI * BINS; /* opposite directions are one */
            turn -= floor(turn / BINS) * BINS;
            int b = (int)turn % BINS;
            float f = (float)(turn - floor(turn)), v = sqrtf(best);
            spread(out, n, (y + 0.5) / WIN, (x + 0.5) / WIN, b, v * (1 - f));
            spread(out, n, (y + 0.5) / WIN, (x + 0.5) / WIN, (b + 1) % BINS, v * f);
        }
    float total = 1e-6f;
    for (int i = 0; i < dim; i++)
        total += out[i];
    for (int i = 0; i < dim; i++)
        out[i] = sqrtf(out[i] / total);
    return out + dim;
}

sumi_status sm_concept_feature(const uint8_t *rgb, int w, int h, float *out, sm_mem *mem, sm_err *e)
{
    if (w < 8 || h < 8 || w > 4096 || h > 4096)
        return sm_fail(e, SUMI_E_ARG, "concept score: a picture of %dx%d pixels; 8 to 4096 a side are possible", w, h);
    sums s = {.w = w, .h = h};
    s.sum = sm_alloc(mem, SM_MEM_DATA, sizeof *s.sum * 3 * (size_t)(w + 1) * (size_t)(h + 1));
    float *win = sm_alloc(mem, SM_MEM_DATA, sizeof *win * 3 * WIN * WIN);
    bool ok = s.sum && win;
    if (ok) {
        sums_fill(&s, rgb);
        for (int y = 0; y < WIN; y++)
            for (int x = 0; x < WIN; x++)
                for (int c = 0; c < 3; c++) /* cells twice as wide as their share: a little blur before edges are taken */
                    win[(y * WIN + x) * 3 + c] = window_mean(&s, (x - 0.5) / WIN, (y - 0.5) / WIN, (x + 1.5) / WIN,
                                                             (y + 1.5) / WIN, c);
        float *o = colour_grid(&s, 12, out);
        o = colour_grid(&s, 6, o);
        o = colour_grid(&s, 3, o);
        o = edge_grid(win, 8, o);
        edge_grid(win, 4, o);
    }
    sm_free(win);
    sm_free(s.sum);
    return ok ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "concept score: out of memory for a picture of %dx%d pixels", w, h);
}

/* ---- the gallery ------------------------------------------------------------------------------------------------- */

struct sm_gallery {
    sm_mem *mem;
    const sm_dataset *d;
    int64_t n;
    int64_t *picture; /* [n], of d */
    float *feature;   /* [n, SM_CONCEPT_DIM], normalised, unit length */
    float mean[SM_CONCEPT_DIM], gain[SM_CONCEPT_DIM];
};

/* Mean of each dimension; gain = group weight / (deviation + the group's mean deviation / 2), so that dimensions which hardly
 * vary do not count for more than they say. */
static void learn_scale(sm_gallery *g)
{
    float dev[SM_CONCEPT_DIM];
    for (int k = 0; k < SM_CONCEPT_DIM; k++) {
        double s = 0, q = 0;
        for (int64_t i = 0; i < g->n; i++)
            s += (double)g->feature[i * SM_CONCEPT_DIM + k];
        s /= (double)g->n;
        for (int64_t i = 0; i < g->n; i++) {
            double x = (double)g->feature[i * SM_CONCEPT_DIM + k] - s;
            q += x * x;
        }
        g->mean[k] = (float)s;
        dev[k] = (float)sqrt(q / (double)g->n);
    }
    for (int group = 0, k0 = 0; group < GROUPS; k0 += group_dim[group++]) {
        float mean = 0;
        for (int k = 0; k < group_dim[group]; k++)
            mean += dev[k0 + k] / (float)group_dim[group];
        for (int k = 0; k < group_dim[group]; k++)
            g->gain[k0 + k] = sqrtf(group_weight[group] / (float)group_dim[group]) / (dev[k0 + k] + mean / 2 + 1e-6f);
    }
}

static void normalise(const sm_gallery *g, float *f)
{
    double q = 1e-12;
    for (int k = 0; k < SM_CONCEPT_DIM; k++) {
        f[k] = (f[k] - g->mean[k]) * g->gain[k];
        q += (double)f[k] * (double)f[k];
    }
    for (int k = 0; k < SM_CONCEPT_DIM; k++)
        f[k] *= (float)(1 / sqrt(q));
}

static sumi_status fill(sm_gallery *g, int style, sm_err *e)
{
    int side = sm_dataset_side(g->d);
    uint8_t *rgb = sm_alloc(g->mem, SM_MEM_DATA, (size_t)side * (size_t)side * 3);
    if (!rgb)
        return sm_fail(e, SUMI_E_MEMORY, "concept score: out of memory for a gallery");
    sumi_status st = SUMI_OK;
    for (int64_t i = 0; i < sm_dataset_count(g->d) && st == SUMI_OK; i++) {
        if (sm_dataset_picture(g->d, i)->style_row != style)
            continue;
        sm_scene s = {.picture = {i, i}, .place = {.n = 1, .at = {{0, 0, 1}}, .colour = SM_WHITE}};
        st = sm_dataset_draw(g->d, &s, side, rgb, e);
        if (st == SUMI_OK)
            st = sm_concept_feature(rgb, side, side, g->feature + g->n * SM_CONCEPT_DIM, g->mem, e);
        g->picture[g->n++] = i;
    }
    sm_free(rgb);
    return st;
}

sm_gallery *sm_gallery_new(const sm_dataset *d, int style, sm_mem *mem, sm_err *e)
{
    int64_t n = 0;
    for (int64_t i = 0; i < sm_dataset_count(d); i++)
        n += sm_dataset_picture(d, i)->style_row == style;
    if (!n)
        return sm_fail(e, SUMI_E_ARG, "concept score: the data set has no picture of style %s",
                       style >= 0 && style < SM_STYLES ? sm_styles[style].name : "(unknown)"), NULL;
    sm_gallery *g = sm_alloc0(mem, SM_MEM_DATA, sizeof *g);
    if (g) {
        g->mem = mem;
        g->d = d;
        g->picture = sm_alloc(mem, SM_MEM_DATA, sizeof *g->picture * (size_t)n);
        g->feature = sm_alloc(mem, SM_MEM_DATA, sizeof *g->feature * SM_CONCEPT_DIM * (size_t)n);
    }
    if (!g || !g->picture || !g->feature)
        sm_fail(e, SUMI_E_MEMORY, "concept score: out of memory for a gallery of %lld pictures", (long long)n);
    else if (fill(g, style, e) == SUMI_OK) {
        learn_scale(g);
        for (int64_t i = 0; i < n; i++)
            normalise(g, g->feature + i * SM_CONCEPT_DIM);
        return g;
    }
    sm_gallery_free(g);
    return NULL;
}

void sm_gallery_free(sm_gallery *g)
{
    if (!g)
        return;
    sm_free(g->picture);
    sm_free(g->feature);
    sm_free(g);
}

int64_t sm_gallery_count(const sm_gallery *g) { return g->n; }

/* ---- search ------------------------------------------------------------------------------------------------------ */

static const char *caption_of(const sm_gallery *g, int64_t i) { return sm_dataset_picture(g->d, g->picture[i])->caption; }

/* Takes the most similar picture of the next caption again and again, crossing its caption's other pictures out. */
static void rank_captions(const sm_gallery *g, float *similarity, const char *wanted, sm_concept_hit *hit)
{
    bool known = false;
    for (int64_t i = 0; i < g->n; i++)
        known |= !strcmp(caption_of(g, i), wanted);
    for (int rank = 1; rank <= g->n && (rank <= 5 || (known && !hit->rank)); rank++) {
        int64_t best = 0;
        for (int64_t i = 1; i < g->n; i++)
            if (similarity[i] > similarity[best])
                best = i;
        if (similarity[best] < -2.0f)
            return;
        const char *name = caption_of(g, best);
        if (rank <= 5)
            hit->nearest[rank - 1] = g->picture[best];
        if (rank == 1)
            hit->similarity = similarity[best];
        if (!strcmp(name, wanted))
            hit->rank = rank;
        for (int64_t i = 0; i < g->n; i++)
            if (!strcmp(caption_of(g, i), name))
                similarity[i] = -3.0f;
    }
}

sumi_status sm_gallery_find(const sm_gallery *g, const uint8_t *rgb, int w, int h, const char *caption, sm_concept_hit *hit,
                            sm_err *e)
{
    *hit = (sm_concept_hit){.nearest = {-1, -1, -1, -1, -1}};
    float f[SM_CONCEPT_DIM];
    sumi_status st = sm_concept_feature(rgb, w, h, f, g->mem, e);
    if (st != SUMI_OK)
        return st;
    float *similarity = sm_alloc(g->mem, SM_MEM_DATA, sizeof *similarity * (size_t)g->n);
    if (!similarity)
        return sm_fail(e, SUMI_E_MEMORY, "concept score: out of memory");
    normalise(g, f);
    for (int64_t i = 0; i < g->n; i++) {
        const float *x = g->feature + i * SM_CONCEPT_DIM;
        float s = 0;
        for (int k = 0; k < SM_CONCEPT_DIM; k++)
            s += f[k] * x[k];
        similarity[i] = s;
    }
    rank_captions(g, similarity, caption, hit);
    sm_free(similarity);
    return SUMI_OK;
}

void sm_concept_tally_add(sm_concept_tally *t, const sm_concept_hit *hit)
{
    t->n++;
    t->top1 += hit->rank == 1;
    t->top5 += hit->rank >= 1 && hit->rank <= 5;
    t->reciprocal += hit->rank ? 1.0 / hit->rank : 0;
}

sumi_status sm_concept_score(const sm_gallery *g, int64_t n, const uint8_t *const *rgb, int side, const char *const *caption,
                             sm_concept_tally *t, int *rank, sm_err *e)
{
    for (int64_t i = 0; i < n; i++) {
        sm_concept_hit hit;
        sumi_status st = sm_gallery_find(g, rgb[i], side, side, caption[i], &hit, e);
        if (st != SUMI_OK)
            return st;
        sm_concept_tally_add(t, &hit);
        if (rank)
            rank[i] = hit.rank;
    }
    return SUMI_OK;
}
