/* Where guidance acts and how strongly: intervals of noise levels or steps, and scales that change. The curves are the modes of
 * sd-dynamic-thresholding (its truncated constants included, so that scales agree), and those of Wang et al. 2024 ("Analysis of
 * Classifier-Free Guidance Weight Schedulers") with the power-cosine of Gao et al. 2023, which count from scale 1. */
#include "sample/guidance.h"

#include <math.h>
#include <strings.h>

#define QUARTER 1.5707 /* of a circle, as the extension has it */
#define CIRCLE 6.28318

static double constant(double u, double p) { return 1; }
static double linear_down(double u, double p) { return 1 - u; }
static double cosine_down(double u, double p) { return cos(u * QUARTER); }
static double half_cosine_down(double u, double p) { return cos(u); }
static double linear_up(double u, double p) { return u; }
static double cosine_up(double u, double p) { return 1 - cos(u * QUARTER); }
static double half_cosine_up(double u, double p) { return 1 - cos(u); }
static double power_up(double u, double p) { return pow(u, p); }
static double power_down(double u, double p) { return 1 - pow(u, p); }
static double linear_repeating(double u, double p)
{
    double v = fmod(u * p, 1);
    return v < 0.5 ? 1 - 2 * v : 2 * v - 1;
}
static double cosine_repeating(double u, double p) { return cos(u * CIRCLE * p) / 2 + 0.5; }
static double sawtooth(double u, double p) { return fmod(u * p, 1); }
static double twice_up(double u, double p) { return 2 * u; }
static double twice_cosine(double u, double p) { return 1 - cos(M_PI * u); }
static double power_cosine(double u, double p) { return (1 - cos(M_PI * pow(u, p))) / 2; }

const sm_curve sm_curves[] = {
    {"constant", "Constant", "the same all the time", 0, constant},
    {"linear_down", "Linear Down", "from the scale to the lowest", 0, linear_down},
    {"cosine_down", "Cosine Down", "the same, slower at first", 0, cosine_down},
    {"half_cosine_down", "Half Cosine Down", "ends at about half the scale", 0, half_cosine_down},
    {"linear_up", "Linear Up", "from the lowest to the scale", 0, linear_up},
    {"cosine_up", "Cosine Up", "the same, slower at first", 0, cosine_up},
    {"half_cosine_up", "Half Cosine Up", "ends at about half the scale", 0, half_cosine_up},
    {"power_up", "Power Up", "u^VALUE", 0, power_up},
    {"power_down", "Power Down", "1 - u^VALUE", 0, power_down},
    {"linear_repeating", "Linear Repeating", "VALUE triangles", 0, linear_repeating},
    {"cosine_repeating", "Cosine Repeating", "VALUE waves", 0, cosine_repeating},
    {"sawtooth", "Sawtooth", "VALUE rises", 0, sawtooth},
    {"wang_linear", "Wang Linear", "rises from 1 to twice the scale: its mean is the scale", 1, twice_up},
    {"wang_cosine", "Wang Cosine", "the same along a cosine", 1, twice_cosine},
    {"power_cosine", "Power Cosine", "rises from 1 to the scale, later the larger VALUE is", 1, power_cosine},
};
const int sm_curve_count = SM_COUNT(sm_curves);

const sm_curve *sm_curve_find(const char *name)
{
    for (int i = 0; i < sm_curve_count; i++)
        if (!strcasecmp(name, sm_curves[i].name) || !strcasecmp(name, sm_curves[i].a1111))
            return &sm_curves[i];
    return NULL;
}

double sm_guidance_position(const double *sigmas, int steps, double sigma)
{
    int i = 0;
    if (!sigmas || sigma >= sigmas[0])
        return 0;
    while (i + 1 < steps && sigmas[i + 1] >= sigma)
        i++;
    return i + (sigmas[i] - sigma) / (sigmas[i] - sigmas[i + 1]);
}

static double along(const sm_curve *c, double scale, double low, double u, double power)
{
    return c ? low + (scale - low) * c->at(u, power) : scale;
}

sm_guidance_step sm_guidance_at(const sm_guidance *g, double sigma, double t, double position, int steps)
{
    const double slack = 1e-4; /* fractions are f32: 0.7 of ten steps is the seventh. Heun looks at the last level, too */
    double u = steps > 1 ? fmin(position / (steps - 1), 1) : 0, step = floor(position + slack);
    bool here = sigma >= g->low && (g->high <= 0 || sigma <= g->high) && step >= floor(g->start * steps + slack) &&
                (g->stop <= 0 || g->stop >= 1 || steps < 1 || step < floor(g->stop * steps + slack));
    sm_guidance_step s = {.scale = along(g->curve, g->scale, g->curve_low, u, g->power), .sag = g->sag,
                          .mimic = along(g->mimic.curve, g->mimic.scale, g->mimic.low, u, g->power)};
    s.pag = g->pag_adaptive > 0 ? fmax(0, g->pag - g->pag_adaptive * (1000 - t)) : g->pag;
    s.classifier = here ? g->classifier : 0;
    s.active = here && s.scale != 1;
    return s;
}
