/* The quantile function of the beta distribution: I_x(a, b) by the continued fraction of Abramowitz & Stegun 26.5.8 (evaluated by
 * Lentz's method), inverted by Newton's steps inside a bracket that halves. */
#include <float.h>
#include <math.h>

#include "sample/schedule.h"

/* Keeps a denominator of the fraction from being 0. */
static double apart(double x) { return fabs(x) < DBL_MIN * 1e8 ? DBL_MIN * 1e8 : x; }

/* The fraction for x <= (a + 1) / (a + b + 2), where it converges fast. */
static double fraction(double x, double a, double b)
{
    double c = 1, d = 1 / apart(1 - (a + b) * x / (a + 1)), f = d;
    for (int m = 1; m < 500; m++) {
        double up = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
               down = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        d = 1 / apart(1 + up * d);
        c = apart(1 + up / c);
        f *= d * c;
        d = 1 / apart(1 + down * d);
        c = apart(1 + down / c);
        f *= d * c;
        if (fabs(d * c - 1) < DBL_EPSILON)
            break;
    }
    return f;
}

/* log of 1 / (a B(a, b)), without which the fraction's front is. lgamma_r: lgamma writes a global. */
static double log_beta(double a, double b)
{
    int sign;
    return lgamma_r(a, &sign) + lgamma_r(b, &sign) - lgamma_r(a + b, &sign);
}

static double incomplete(double x, double a, double b, double lb)
{
    if (x <= 0 || x >= 1)
        return x >= 1;
    double front = exp(a * log(x) + b * log1p(-x) - lb);
    return x <= (a + 1) / (a + b + 2) ? front * fraction(x, a, b) / a : 1 - front * fraction(1 - x, b, a) / b;
}

/* For p of the lower half, where x is small and so as exact as p. */
static double lower(double p, double a, double b)
{
    double lo = 0, hi = 1, lb = log_beta(a, b), x = fmin(exp((log(p * a) + lb) / a), 0.5); /* I_x is about x^a / (a B) */
    for (int i = 0; i < 200; i++) {
        double f = incomplete(x, a, b, lb) - p, slope = exp((a - 1) * log(x) + (b - 1) * log1p(-x) - lb), next = x - f / slope;
        if (f > 0)
            hi = x;
        else
            lo = x;
        if (!(next > lo && next < hi))
            next = 0.5 * (lo + hi);
        if (fabs(next - x) <= 2 * DBL_EPSILON * x)
            return next;
        x = next;
    }
    return x;
}

double sm_beta_quantile(double p, double a, double b)
{
    if (p <= 0 || p >= 1)
        return p >= 1;
    if (a == b && p == 0.5)
        return 0.5;
    /* The half that p is in by the distribution's own middle. */
    return p <= incomplete(0.5, a, b, log_beta(a, b)) ? lower(p, a, b) : 1 - lower(1 - p, b, a);
}
