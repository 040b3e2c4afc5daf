/* Compositing of cut-out drawings over a plain background (see compose.h). Resampling is separable and exact by area; the
 * "over" operator on premultiplied alpha follows Porter and Duff, Compositing Digital Images (1984). */
#include "train/compose.h"

#include <math.h>
#include <string.h>

#include "train/captions.h"

/* Weights of the source pixels under each of the frame's pixels along one axis. They sum to less than 1 at a drawing's rim:
 * the rest is transparent. */
typedef struct axis {
    int *first, *count;
    float *w; /* [size, most] */
    int most;
} axis;

static bool axis_new(axis *a, int size, double ratio, sm_mem *mem)
{
    a->most = (int)ceil(SM_MAX(ratio, 1.0)) + 2;
    a->first = sm_alloc0(mem, SM_MEM_DATA, sizeof(int) * (size_t)size);
    a->count = sm_alloc0(mem, SM_MEM_DATA, sizeof(int) * (size_t)size);
    a->w = sm_alloc0(mem, SM_MEM_DATA, sizeof(float) * (size_t)size * (size_t)a->most);
    return a->first && a->count && a->w;
}

static void axis_free(axis *a)
{
    sm_free(a->first);
    sm_free(a->count);
    sm_free(a->w);
}

/* src pixels of a drawing cover [at, at + scale] of the frame's size pixels; ratio is source pixels a frame pixel. */
static void axis_fill(axis *a, int size, int src, double at, double ratio)
{
    for (int i = 0; i < size; i++) {
        double lo = (i - at * size) * ratio, hi = lo + ratio;
        float *w = a->w + (size_t)i * (size_t)a->most;
        if (ratio < 1.0) { /* bilinear at the centre, between pixel centres floor(c) and floor(c) + 1 */
            double c = (lo + hi) / 2 - 0.5;
            lo = floor(c);
            hi = lo + 2;
        }
        int j0 = (int)SM_MAX(floor(lo + 1e-9), 0.0), j1 = (int)SM_MIN(ceil(hi - 1e-9), (double)src);
        if (hi <= 0 || lo >= src || j1 <= j0)
            continue;
        a->first[i] = j0;
        a->count[i] = SM_MIN(j1 - j0, a->most);
        for (int k = 0; k < a->count[i]; k++) {
            int j = j0 + k;
            if (ratio < 1.0)
                w[k] = (float)SM_MAX(0.0, 1.0 - fabs(j + 0.5 - (i + 0.5 - at * size) * ratio));
            else
                w[k] = (float)((SM_MIN(hi, j + 1.0) - SM_MAX(lo, (double)j)) / ratio);
        }
    }
}

/* rgba [src, src, 4] straight to rows [src, size, 4] premultiplied, filtered along x. Values 0..255. */
static void filter_x(const sm_layer *l, const axis *a, int size, float *rows)
{
    for (int y = 0; y < l->size; y++)
        for (int i = 0; i < size; i++) {
            float s[4] = {0, 0, 0, 0};
            for (int k = 0; k < a->count[i]; k++) {
                const uint8_t *p = l->rgba + ((size_t)y * (size_t)l->size + (size_t)(a->first[i] + k)) * 4;
                float w = a->w[(size_t)i * (size_t)a->most + (size_t)k], alpha = w * p[3] * (1.0f / 255);
                s[0] += alpha * p[0];
                s[1] += alpha * p[1];
                s[2] += alpha * p[2];
                s[3] += alpha;
            }
            memcpy(rows + ((size_t)y * (size_t)size + (size_t)i) * 4, s, sizeof s);
        }
}

/* Filters rows along y and lays the result over canvas, float [size, size, 3]. */
static void blend_y(const axis *a, const float *rows, int size, float *canvas)
{
    for (int i = 0; i < size; i++)
        for (int x = 0; x < size; x++) {
            float s[4] = {0, 0, 0, 0};
            for (int k = 0; k < a->count[i]; k++) {
                const float *p = rows + ((size_t)(a->first[i] + k) * (size_t)size + (size_t)x) * 4;
                float w = a->w[(size_t)i * (size_t)a->most + (size_t)k];
                for (int c = 0; c < 4; c++)
                    s[c] += w * p[c];
            }
            float *o = canvas + ((size_t)i * (size_t)size + (size_t)x) * 3, rest = 1.0f - SM_MIN(s[3], 1.0f);
            for (int c = 0; c < 3; c++)
                o[c] = s[c] + rest * o[c];
        }
}

static sumi_status draw(const sm_layer *l, int size, float *canvas, sm_mem *mem, sm_err *e)
{
    if (!l->rgba || l->size < 1 || l->size > 4096 || !(l->scale > 0.01f && l->scale < 100.0f) || !(fabsf(l->x) < 100.0f) ||
        !(fabsf(l->y) < 100.0f))
        return sm_fail(e, SUMI_E_ARG, "compose: a layer of %d pixels at (%g, %g), scale %g, is out of range", l->size,
                       (double)l->x,
                       (double)l->y, (double)l->scale);
    double ratio = l->size / ((double)l->scale * size);
    axis ax = {0}, ay = {0};
    float *rows = sm_alloc(mem, SM_MEM_DATA, sizeof(float) * 4 * (size_t)l->size * (size_t)size);
    bool ok = axis_new(&ax, size, ratio, mem) && axis_new(&ay, size, ratio, mem) && rows;
    if (ok) {
        axis_fill(&ax, size, l->size, (double)l->x, ratio);
        axis_fill(&ay, size, l->size, (double)l->y, ratio);
        filter_x(l, &ax, size, rows);
        blend_y(&ay, rows, size, canvas);
    }
    sm_free(rows);
    axis_free(&ax);
    axis_free(&ay);
    return ok ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "compose: out of memory for a picture of %d pixels", size);
}

sumi_status sm_compose(const sm_layer *layer, int n, const uint8_t background[3], int size, uint8_t *rgb, sm_mem *mem, sm_err *e)
{
    if (size < 8 || size > 2048 || n < 0)
        return sm_fail(e, SUMI_E_ARG, "compose: a picture of %d pixels; 8 to 2048 are possible", size);
    size_t pixels = (size_t)size * (size_t)size;
    float *canvas = sm_alloc(mem, SM_MEM_DATA, sizeof(float) * 3 * pixels);
    if (!canvas)
        return sm_fail(e, SUMI_E_MEMORY, "compose: out of memory for a picture of %d pixels", size);
    for (size_t i = 0; i < pixels * 3; i++)
        canvas[i] = background[i % 3];
    sumi_status st = SUMI_OK;
    for (int i = 0; i < n && st == SUMI_OK; i++)
        st = draw(&layer[i], size, canvas, mem, e);
    for (size_t i = 0; i < pixels * 3; i++)
        rgb[i] = (uint8_t)SM_MAX(0.0f, SM_MIN(255.0f, canvas[i] + 0.5f));
    sm_free(canvas);
    return st;
}

void sm_rgb_to_float(const uint8_t *rgb, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)rgb[i] * (2.0f / 255) - 1.0f;
}

void sm_place(const sm_compose_opts *o, uint64_t variant, bool countable, sm_dice *d, sm_placement *p)
{
    *p = (sm_placement){.n = 1, .colour = SM_WHITE};
    p->at[0].scale = 1.0f;
    if (variant == 0)
        return;
    if (!sm_dice_chance(d, o->p_white))
        p->colour = 1 + (int)sm_dice_pick(d, SM_COLOURS - 1);
    if (sm_dice_chance(d, o->p_two)) {
        p->n = 2;
        p->same = sm_dice_chance(d, 0.5f) && countable;
        float scale = sm_dice_range(d, 0.46f, 0.52f);
        for (int i = 0; i < 2; i++) {
            /* Centres near a quarter and three quarters of the width, half of the height. */
            p->at[i].scale = scale;
            p->at[i].x = 0.25f + 0.5f * (float)i + sm_dice_range(d, -0.01f, 0.01f) - scale / 2;
            p->at[i].y = 0.5f + sm_dice_range(d, -0.06f, 0.06f) - scale / 2;
        }
        return;
    }
    float scale = sm_dice_range(d, o->scale_min, o->scale_max), room = SM_MAX(0.0f, 1.0f - scale);
    p->at[0].scale = scale;
    p->at[0].x = room * sm_dice_unit(d);
    p->at[0].y = room * sm_dice_unit(d);
}
