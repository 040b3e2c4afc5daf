/* What self-attention guidance asks the model about (Hong et al. 2023, section 4): the predicted picture blurred where its middle
 * attention looks most, with its own predicted noise put back. Blur, mask and enlarging as in diffusers'
 * StableDiffusionSAGPipeline. */
#include "sample/guidance.h"

#include <math.h>

enum { REACH = 4, WIDTH = 2 * REACH + 1 }; /* of the Gaussian, whatever its deviation (diffusers, ComfyUI) */

/* Position i of a line of n that is mirrored at its ends without repeating them. */
static int mirrored(int i, int n)
{
    int period = SM_MAX(1, 2 * (n - 1));
    i = (i % period + period) % period;
    return i < n ? i : period - i;
}

/* Along one axis: `lines` are addressed by the caller's strides. */
static void blur_line(const double k[WIDTH], const float *x, float *y, int n, int64_t stride)
{
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int d = -REACH; d <= REACH; d++)
            sum += k[d + REACH] * x[mirrored(i + d, n) * stride];
        y[i * stride] = (float)sum;
    }
}

static void gaussian(double sigma, double k[WIDTH])
{
    double sum = 0;
    for (int d = -REACH; d <= REACH; d++)
        sum += k[d + REACH] = exp(-0.5 * d * d / (sigma * sigma));
    for (int d = 0; d < WIDTH; d++)
        k[d] /= sum;
}

/* y = blurred x, both [h, w, c]; room like x. */
static void blur(const sm_sag *s, const float *x, float *y, float *room)
{
    double k[WIDTH];
    gaussian(s->blur, k);
    int64_t row = (int64_t)s->w * s->c;
    for (int64_t i = 0; i < row; i++)
        blur_line(k, x + i, room + i, s->h, row);
    for (int r = 0; r < s->h; r++)
        for (int c = 0; c < s->c; c++)
            blur_line(k, room + r * row + c, y + r * row + c, s->w, s->c);
}

void sm_sag_degrade(const sm_sag *s, const float *map, const float *x, const float *x0, float *out, float *room)
{
    float *soft = room, *more = room + (int64_t)s->h * s->w * s->c;
    double keep = s->flow ? 1 - s->sigma : 1; /* of x0 in x */
    blur(s, x0, soft, more);
    for (int r = 0; r < s->h; r++)
        for (int q = 0; q < s->w; q++) {
            bool seen = map[(int64_t)(r * s->mh / s->h) * s->mw + q * s->mw / s->w] > 1;
            for (int64_t i = ((int64_t)r * s->w + q) * s->c, end = i + s->c; i < end; i++)
                out[i] = (float)(seen ? x[i] + keep * ((double)soft[i] - x0[i]) : x[i]);
        }
}
