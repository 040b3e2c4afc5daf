/* Spherical interpolation (see slerp.h). In double, with arc cosine and sine that have the same bits on every machine. */
#include "sample/slerp.h"

#include <math.h>

#include "base/rng_torch.h"

/* Of 0..1: twice the arc tangent of sqrt((1 - c) / (1 + c)), whose angle is halved three times, after which it is at most 0.1 and
 * the series up to x^17 is cut off below 1e-20. */
static double acos_of(double c)
{
    double x = sqrt((1 - c) / (1 + c)), sum = 0;
    for (int i = 0; i < 3; i++)
        x /= 1 + sqrt(1 + x * x);
    for (int n = 17; n >= 1; n -= 2)
        sum = 1.0 / n - x * x * sum;
    return 16 * x * sum;
}

static double angle_of(double c) { return c < 0 ? 3.14159265358979323846 - acos_of(-c) : acos_of(c); }

/* Cosine of the angle between two columns; 1 where one is all zeros. */
static double cosine(int64_t h, int64_t columns, const float *a, const float *b)
{
    double aa = 0, bb = 0, ab = 0;
    for (int64_t y = 0; y < h; y++) {
        double p = a[y * columns], q = b[y * columns];
        aa += p * p;
        bb += q * q;
        ab += p * q;
    }
    return aa > 0 && bb > 0 ? fmin(fmax(ab / (sqrt(aa) * sqrt(bb)), -1), 1) : 1;
}

static void mix(double of_a, double of_b, int64_t h, int64_t columns, float *a, const float *b)
{
    for (int64_t y = 0; y < h; y++)
        a[y * columns] = (float)(of_a * a[y * columns] + of_b * b[y * columns]);
}

void sm_slerp(double t, int64_t h, int64_t columns, float *a, const float *b)
{
    double mean = 0;
    for (int64_t i = 0; i < columns; i++)
        mean += cosine(h, columns, a + i, b + i) / (double)columns;
    for (int64_t i = 0; i < columns; i++) {
        double angle = angle_of(cosine(h, columns, a + i, b + i)), whole, first, second, none;
        sm_torch_sincos(angle, &whole, &none);
        sm_torch_sincos((1 - t) * angle, &first, &none);
        sm_torch_sincos(t * angle, &second, &none);
        if (mean > 0.9995)
            mix(t, 1 - t, h, columns, a + i, b + i);
        else if (whole < 1e-6)
            mix(1 - t, t, h, columns, a + i, b + i);
        else
            mix(first / whole, second / whole, h, columns, a + i, b + i);
    }
}
