/* One step's predictions put together (see guidance.h): classifier-free guidance (Ho & Salimans 2022) of prompts in parts (Liu et
 * al. 2022, as A1111's combine_denoised), InstructPix2Pix's two scales (Brooks et al. 2023), adaptive projected guidance (Sadat
 * et al. 2024), PAG, SAG, rescaling (Lin et al. 2024, section 3.4). */
#include "sample/guidance.h"

#include <math.h>
#include <string.h>

/* The parts' prediction as one: base + sum of weight (part - base), where base is the unconditional prediction or, where there is
 * none, the first part. */
static void join(const float *const *part, const double *weight, int parts, const float *base, float *out, int64_t n)
{
    if (parts == 1 && (!base || weight[0] == 1)) {
        memcpy(out, part[0], sizeof *out * (size_t)n);
        return;
    }
    if (!base)
        base = part[0];
    for (int64_t i = 0; i < n; i++) {
        double sum = base[i];
        for (int k = 0; k < parts; k++)
            sum += weight[k] * ((double)part[k][i] - base[i]);
        out[i] = (float)sum;
    }
}

static double deviation(const float *x, int64_t n)
{
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++)
        square += (x[i] - mean) * (x[i] - mean);
    return sqrt(square / (double)n);
}

static void rescale(double phi, const float *e, float *g, int64_t n)
{
    double was = deviation(e, n), now = deviation(g, n);
    if (now > 0) {
        double f = phi * was / now + (1 - phi);
        for (int64_t i = 0; i < n; i++)
            g[i] = (float)(f * g[i]);
    }
}

static double product(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* g = u + scale (d - (1 - eta) d's part along e), d the difference of e and u with the earlier steps' added and its norm limited;
 * on x0 plus the plain difference, which ComfyUI's node leaves in cond. g may be u; room holds d. */
static void project(const sm_guidance *p, double scale, const float *e, const float *u, float *average, float *g, int64_t n,
                    float *d)
{
    double plain = p->kind == SM_GUIDE_APG_X0;
    for (int64_t i = 0; i < n; i++) {
        double x = (double)e[i] - u[i];
        d[i] = (float)(average ? x + p->momentum * average[i] : x);
    }
    if (average)
        memcpy(average, d, sizeof *d * (size_t)n);
    double norm = sqrt(product(d, d, n)), ee = product(e, e, n);
    double k = p->norm > 0 && norm > p->norm ? p->norm / norm : 1, along = ee > 0 ? (1 - p->eta) * product(d, e, n) / ee : 0;
    for (int64_t i = 0; i < n; i++)
        g[i] = (float)(u[i] + scale * k * (d[i] - along * e[i]) + plain * ((double)e[i] - u[i]));
}

static void to_output(const sm_precond *pc, const float *x, float *g, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        g[i] = (float)((g[i] - pc->c_skip * x[i]) / pc->c_out);
}

/* The kinds that work on x0: e and g (which holds the unconditional prediction) go there, the result comes back. */
static void in_x0(const sm_guidance *p, const sm_guidance_step *s, const sm_guided *in, const float *e, float *g, float *room)
{
    float *e0 = room, *more = room + in->n;
    sm_precond_out(in->pc, in->x, e, e0, in->n);
    sm_precond_out(in->pc, in->x, in->uncond, g, in->n);
    if (p->mimic.scale > 0)
        sm_mimic_apply(&p->mimic, s->scale, s->mimic, e0, g, g, in->n, in->channels, more);
    else
        project(p, s->scale, e0, g, in->average, g, in->n, more);
    to_output(in->pc, in->x, g, in->n);
}

static void scale(const sm_guidance *p, const sm_guidance_step *s, const sm_guided *in, const float *e, float *g, float *room)
{
    int64_t n = in->n;
    const float *u = in->uncond, *image = in->image;
    if (!s->active || !u)
        memcpy(g, e, sizeof *g * (size_t)n);
    else if (p->mimic.scale > 0 || p->kind == SM_GUIDE_APG_X0)
        in_x0(p, s, in, e, g, room);
    else if (p->kind == SM_GUIDE_APG)
        project(p, s->scale, e, u, in->average, g, n, room);
    else if (image)
        for (int64_t i = 0; i < n; i++)
            g[i] = (float)(u[i] + s->scale * ((double)e[i] - image[i]) + p->image_scale * ((double)image[i] - u[i]));
    else
        for (int64_t i = 0; i < n; i++)
            g[i] = (float)(u[i] + s->scale * ((double)e[i] - u[i]));
}

/* g += k (a - b) */
static void push(float *g, double k, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        g[i] = (float)(g[i] + k * ((double)a[i] - b[i]));
}

void sm_guidance_combine(const sm_guidance *p, const sm_guidance_step *s, const sm_guided *in, float *x0, float *room)
{
    int64_t n = in->n;
    float *e = room, *more = room + n;
    join(in->cond, in->weight, in->parts, in->uncond, e, n);
    scale(p, s, in, e, x0, more);
    if (in->perturbed && s->pag != 0) {
        join(in->perturbed, in->weight, in->parts, in->uncond, more, n);
        push(x0, s->pag, e, more, n);
    }
    if (in->degraded)
        push(x0, s->sag, in->uncond ? in->uncond : in->cond[0], in->degraded, n);
    if (p->rescale != 0 && s->active)
        rescale(p->rescale, e, x0, n);
    sm_precond_out(in->pc, in->x, x0, x0, n);
    if (p->clamp > 0)
        sm_clamp_apply(p->clamp, p->clamp_max, x0, n, room);
}
