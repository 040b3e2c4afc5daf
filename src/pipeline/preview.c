/* Cheap previews (see preview.h): what a latent's channels add to red, green and blue, as in ComfyUI's Latent2RGB and A1111's
 * "Approx cheap". The numbers are those of ComfyUI's latent_formats (published facts about these autoencoders, of the denoiser's
 * latents); for any other autoencoder they are fitted to a picture that its own decoder gave. */
#include "pipeline/preview.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#include "pipeline/sheet.h"

sumi_status sm_preview_method_of(const char *word, sm_preview_method *out, sm_err *e)
{
    static const struct { const char *word; sm_preview_method method; } rows[] = {
        {"full", SM_PREVIEW_FULL}, {"taesd", SM_PREVIEW_TAESD}, {"approx-cheap", SM_PREVIEW_LINEAR},
        {"approx cheap", SM_PREVIEW_LINEAR}, {"latent2rgb", SM_PREVIEW_LINEAR}}; /* A1111's and ComfyUI's words too */
    *out = SM_PREVIEW_FULL;
    if (!word || !word[0])
        return SUMI_OK;
    for (size_t i = 0; i < SM_COUNT(rows); i++)
        if (!strcasecmp(word, rows[i].word)) {
            *out = rows[i].method;
            return SUMI_OK;
        }
    return sm_fail(e, SUMI_E_ARG, "preview method '%.40s' is unknown; full, taesd or approx-cheap", word);
}

static const struct { float scaling; bool stats; sm_linear_rgb l; } known[] = {
    {0.18215f, false,
     {4, {{0.3512f, 0.2297f, 0.3227f}, {0.3250f, 0.4974f, 0.2350f}, {-0.2829f, 0.1762f, 0.2721f}, {-0.2120f, -0.2616f, -0.7177f}},
      {0}}},
    {0.13025f, false,
     {4, {{0.3651f, 0.4232f, 0.4341f}, {-0.2533f, -0.0042f, 0.1068f}, {0.1076f, 0.1111f, -0.0362f},
          {-0.3165f, -0.2492f, -0.2188f}},
                       {0.1084f, -0.0175f, -0.0011f}}},
    {0.5f, true,
     {4, {{0.3920f, 0.4054f, 0.4549f}, {-0.2634f, -0.0196f, 0.0653f}, {0.0568f, 0.1687f, -0.0755f},
          {-0.3112f, -0.2359f, -0.2076f}}, {0}}},
    {1.5305f, false,
     {16, {{-0.0922f, -0.0175f, 0.0749f}, {0.0311f, 0.0633f, 0.0954f}, {0.1994f, 0.0927f, 0.0458f}, {0.0856f, 0.0339f, 0.0902f},
                           {0.0587f, 0.0272f, -0.0496f}, {-0.0006f, 0.1104f, 0.0309f}, {0.0978f, 0.0306f, 0.0427f},
                           {-0.0042f, 0.1038f, 0.1358f},
                           {-0.0194f, 0.0020f, 0.0669f}, {-0.0488f, 0.0130f, -0.0268f}, {0.0922f, 0.0988f, 0.0951f},
                           {-0.0278f, 0.0524f, -0.0542f},
                           {0.0332f, 0.0456f, 0.0895f}, {-0.0069f, -0.0030f, -0.0810f}, {-0.0596f, -0.0465f, -0.0293f},
                           {-0.1448f, -0.1463f, -0.1189f}},
                      {0.2394f, 0.2135f, 0.1925f}}},
};

const sm_linear_rgb *sm_linear_known(const sumi_model *m)
{
    for (size_t i = 0; i < SM_COUNT(known); i++)
        if (known[i].l.channels == m->vae.latent_channels && fabsf(known[i].scaling - m->vae.scaling_factor) < 1e-6f &&
            known[i].stats == m->traits.latents_stats)
            return &known[i].l;
    return NULL;
}

/* ---- least squares ------------------------------------------------------------------------------------------------- */

enum { SIDE = SM_LINEAR_MOST + 1 };

/* a x = b for a symmetric, positive a [n, n] and three b at once, which become x (Cholesky). */
static void solve(double a[SIDE][SIDE], double b[SIDE][3], int n)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            double s = a[i][j];
            for (int k = 0; k < j; k++)
                s -= a[i][k] * a[j][k];
            a[i][j] = i == j ? sqrt(s) : s / a[j][j];
        }
    for (int c = 0; c < 3; c++) {
        for (int i = 0; i < n; i++) {
            for (int k = 0; k < i; k++)
                b[i][c] -= a[i][k] * b[k][c];
            b[i][c] /= a[i][i];
        }
        for (int i = n - 1; i >= 0; i--) {
            for (int k = i + 1; k < n; k++)
                b[i][c] -= a[k][i] * b[k][c];
            b[i][c] /= a[i][i];
        }
    }
}

bool sm_linear_fit(const float *latent, const uint8_t *rgb, int64_t n, int channels, sm_linear_rgb *out)
{
    double a[SIDE][SIDE] = {{0}}, b[SIDE][3] = {{0}}, x[SIDE];
    if (channels > SM_LINEAR_MOST)
        return false;
    for (int64_t p = 0; p < n; p++) {
        for (int i = 0; i <= channels; i++)
            x[i] = i < channels ? latent[p * channels + i] : 1;
        for (int i = 0; i <= channels; i++) {
            for (int j = 0; j <= i; j++)
                a[i][j] += x[i] * x[j];
            for (int c = 0; c < 3; c++)
                b[i][c] += x[i] * (rgb[p * 3 + c] / 127.5 - 1);
        }
    }
    for (int i = 0; i <= channels; i++) /* latents have a variance of about 1; a channel that is constant gets nothing */
        a[i][i] += 1e-3 * (double)n + 1e-12;
    solve(a, b, channels + 1);
    *out = (sm_linear_rgb){.channels = channels};
    for (int c = 0; c < 3; c++) {
        for (int i = 0; i < channels; i++)
            out->factor[i][c] = (float)b[i][c];
        out->bias[c] = (float)b[channels][c];
    }
    return true;
}

void sm_linear_apply(const sm_linear_rgb *l, const float *latent, int64_t n, uint8_t *rgb)
{
    for (int64_t p = 0; p < n; p++) {
        float y[3] = {l->bias[0], l->bias[1], l->bias[2]};
        for (int i = 0; i < l->channels; i++)
            for (int c = 0; c < 3; c++)
                y[c] += latent[p * l->channels + i] * l->factor[i][c];
        sm_pixels_from_float(y, 3, rgb + p * 3);
    }
}
