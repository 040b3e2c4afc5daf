/* Guidance by itself: formulas in double where there is no program to compare with, diffusers' rescaled guidance
 * (tests/fixtures/samplers.json), where it acts, what each kind needs. Whole requests: t_guidance_request.c. */
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "io/json.h"
#include "sample/guidance.h"
#include "test.h"

enum { N = 24, PARTS = 3 };

static const sm_precond plain = {.c_in = 1, .c_skip = 0, .c_out = 1}; /* outputs are x0 */

/* One picture's CFG by the room's function, in the model's outputs. */
static void guide(const sm_guidance *g, double sigma, const float *cond, const float *uncond, float *out, int64_t n)
{
    float room[3 * 64], x[64] = {0};
    sm_guidance_step s = sm_guidance_at(g, sigma, 0, 0, 0);
    sm_guided in = {
        .cond = &cond, .weight = (double[]){1}, .parts = 1, .uncond = uncond, .x = x, .pc = &plain, .n = n, .channels = 1};
    sm_guidance_combine(g, &s, &in, out, room);
}

static int list(const cJSON *a, float *v)
{
    int n = 0;
    const cJSON *x;
    cJSON_ArrayForEach(x, a) v[n++] = (float)x->valuedouble;
    return n;
}

TEST(guidance_rescale_of_diffusers)
{
    sm_err e = {0};
    sm_buf text = {0};
    cJSON *j = !sm_file_read(test_fixture("samplers.json"), 1 << 26, &text, &e) ? cJSON_Parse(text.data) : NULL,
          *g = cJSON_GetObjectItem(j, "guidance"), *cases = cJSON_GetObjectItem(g, "cases"), *r;
    float cond[64], uncond[64], out[64], want[64];
    CHECKF(g && cases, "%s", e.msg);
    int n = g ? list(cJSON_GetObjectItem(g, "cond"), cond) : 0, count = g ? cJSON_GetObjectItem(g, "count")->valueint : 1;
    list(cJSON_GetObjectItem(g, "uncond"), uncond);
    cJSON_ArrayForEach(r, cases)
    {
        sm_guidance q = {.scale = cJSON_GetObjectItem(r, "scale")->valuedouble,
                         .rescale = cJSON_GetObjectItem(r, "rescale")->valuedouble};
        list(cJSON_GetObjectItem(r, "out"), want);
        for (int k = 0; k < count; k++)
            guide(&q, 1, cond + k * (n / count), uncond + k * (n / count), out + k * (n / count), n / count);
        CHECKF(test_maxdiff(out, want, n) < 1e-5, "scale %g, rescale %g: %g", q.scale, q.rescale, test_maxdiff(out, want, n));
    }
    cJSON_Delete(j);
    sm_buf_free(&text);
}

TEST(guidance_acts_where_it_should)
{
    sm_guidance none = {.scale = 1}, levels = {.scale = 5, .low = 0.3, .high = 2},
                steps = {.scale = 5, .start = 0.2f, .stop = 0.7f};
    float cond[2] = {1, 2}, uncond[2] = {5, 7}, out[2];
    CHECK(!sm_guidance_at(&none, 1, 0, 0, 10).active && sm_guidance_at(&levels, 1, 0, 0, 10).active);
    CHECK(sm_guidance_at(&levels, 0.3, 0, 0, 10).active && sm_guidance_at(&levels, 2, 0, 0, 10).active);
    CHECK(!sm_guidance_at(&levels, 0.29, 0, 0, 10).active && !sm_guidance_at(&levels, 2.1, 0, 0, 10).active);
    for (int i = 0; i < 10; i++)
        CHECKF(sm_guidance_at(&steps, 1, 0, i, 10).active == (i >= 2 && i < 7), "step %d", i);
    steps.stop = 1; /* a list of levels that ends above 0: Heun's second call of the last step is at its end */
    CHECK(sm_guidance_at(&steps, 1, 0, sm_guidance_position((const double[]){3, 2, 1}, 2, 1), 2).active);
    guide(&levels, 3, cond, uncond, out, 2);
    CHECK(!memcmp(out, cond, sizeof cond));
    /* PAG by timesteps: 3 - 0.004 (1000 - t), nothing below t = 250 */
    sm_guidance pag = {.scale = 1, .pag = 3, .pag_adaptive = 0.004};
    CHECK(fabs(sm_guidance_at(&pag, 1, 800, 0, 1).pag - 2.2) < 1e-12 && sm_guidance_at(&pag, 1, 200, 0, 1).pag == 0);
}

TEST(guidance_position_in_the_schedule)
{
    const double sigmas[] = {10, 4, 2, 0};
    CHECK(sm_guidance_position(sigmas, 3, 10) == 0 && sm_guidance_position(sigmas, 3, 11) == 0);
    CHECK(sm_guidance_position(sigmas, 3, 4) == 1 && sm_guidance_position(sigmas, 3, 2) == 2);
    CHECK(fabs(sm_guidance_position(sigmas, 3, 7) - 0.5) < 1e-12 && fabs(sm_guidance_position(sigmas, 3, 0.5) - 2.75) < 1e-12);
    CHECK(sm_guidance_position(NULL, 0, 1) == 0);
}

/* The ends of every curve; the first and the last step are u = 0 and u = 1. */
TEST(guidance_curves)
{
    static const struct { const char *name; double first, last; } ends[] = {
        {"constant", 7, 7},     {"linear_down", 7, 1},      {"Cosine Down", 7, 1.00058},    {"half_cosine_down", 7, 4.24181},
        {"linear_up", 1, 7},    {"cosine_up", 1, 6.99942},  {"Half Cosine Up", 1, 3.75819}, {"power_up", 1, 7},
        {"power_down", 7, 1},   {"linear_repeating", 7, 7}, {"cosine_repeating", 7, 7},     {"sawtooth", 1, 1},
        {"wang_linear", 1, 13}, {"wang_cosine", 1, 13},     {"power_cosine", 1, 7}};
    CHECK((int)SM_COUNT(ends) == sm_curve_count && !sm_curve_find("wavy"));
    for (size_t i = 0; i < SM_COUNT(ends); i++) {
        sm_guidance g = {.scale = 7, .curve = sm_curve_find(ends[i].name), .curve_low = 1, .power = 3};
        CHECKF(g.curve != NULL, "%s", ends[i].name);
        double a = sm_guidance_at(&g, 1, 0, 0, 6).scale, b = sm_guidance_at(&g, 1, 0, 5, 6).scale;
        CHECKF(fabs(a - ends[i].first) < 1e-5 && fabs(b - ends[i].last) < 1e-5, "%s: %.6g to %.6g", ends[i].name, a, b);
    }
}

typedef struct outputs { float cond[PARTS][N], other[PARTS][N], uncond[N], image[N], x[N]; } outputs;

static void fill(outputs *o)
{
    test_fill(&o->cond[0][0], sizeof *o / sizeof(float), 5, -2, 2);
}

static void near(const float *got, const double *want, const char *what)
{
    double worst = 0;
    for (int i = 0; i < N; i++)
        worst = fmax(worst, fabs(got[i] - want[i]));
    CHECKF(worst <= 1e-5, "%s: %g", what, worst);
}

/* Parts of a prompt: A1111's combine_denoised, u + s sum w (c - u); without the negative prompt the first part takes its place.
 * PAG's perturbed parts are joined alike. */
TEST(guidance_of_parts)
{
    outputs o;
    float room[3 * N], got[N];
    double weight[PARTS] = {1, -0.5, 0.75}, want[N], alone[N];
    const float *cond[PARTS], *other[PARTS];
    fill(&o);
    for (int k = 0; k < PARTS; k++) {
        cond[k] = o.cond[k];
        other[k] = o.other[k];
    }
    sm_guidance g = {.scale = 4, .pag = 2};
    sm_guidance_step s = sm_guidance_at(&g, 1, 0, 0, 1), off = s;
    sm_guided in = {
        .cond = cond, .weight = weight, .parts = PARTS, .uncond = o.uncond, .x = o.x, .pc = &plain, .n = N, .channels = 4};
    for (int i = 0; i < N; i++) {
        double e = 0, p = 0, c0 = o.cond[0][i];
        for (int k = 0; k < PARTS; k++) {
            e += weight[k] * ((double)o.cond[k][i] - o.uncond[i]);
            p += weight[k] * ((double)o.other[k][i] - o.uncond[i]);
        }
        want[i] = o.uncond[i] + 4 * e + 2 * (e - p);
        alone[i] = c0 - 0.5 * (o.cond[1][i] - c0) + 0.75 * (o.cond[2][i] - c0);
    }
    in.perturbed = other;
    sm_guidance_combine(&g, &s, &in, got, room);
    near(got, want, "three parts and PAG");
    in.perturbed = NULL;
    in.uncond = NULL;
    off.active = false;
    sm_guidance_combine(&g, &off, &in, got, room);
    near(got, alone, "three parts without the negative prompt");
}

/* Brooks et al. 2023, equation 3; its scale of the picture at 1 is plain guidance. Then through a preconditioning. */
TEST(guidance_of_edits)
{
    outputs o;
    float room[3 * N], got[N];
    double want[N];
    fill(&o);
    const float *cond = o.cond[0];
    sm_precond pc = {.c_in = 1, .c_skip = 0.7, .c_out = -1.3};
    sm_guidance g = {.scale = 7, .image_scale = 1.5};
    sm_guidance_step s = sm_guidance_at(&g, 1, 0, 0, 1);
    sm_guided in = {.cond = &cond,
                    .weight = (double[]){1},
                    .parts = 1,
                    .uncond = o.uncond,
                    .image = o.image,
                    .x = o.x,
                    .pc = &pc,
                    .n = N,
                    .channels = 4};
    for (int i = 0; i < N; i++) {
        double u = o.uncond[i], im = o.image[i], c = cond[i];
        want[i] = 0.7 * o.x[i] - 1.3 * (u + 7 * (c - im) + 1.5 * (im - u));
    }
    sm_guidance_combine(&g, &s, &in, got, room);
    near(got, want, "two scales");
}

/* Imagen's thresholding leaves what is within -1..1, and cuts at most at the given value. */
TEST(guidance_clamp_within_one)
{
    float x[5] = {0.25f, -0.9f, 0.5f, -0.125f, 0.75f}, was[5], big[5] = {8, -4, 2, 1, 0}, room[5];
    memcpy(was, x, sizeof x);
    sm_clamp_apply(0.5, 0, x, 5, room);
    CHECK(!memcmp(x, was, sizeof x));
    sm_clamp_apply(0.75, 0, big, 5, room); /* the value at three quarters is 4 */
    CHECK(big[0] == 1 && big[1] == -1 && big[2] == 0.5f && big[3] == 0.25f && big[4] == 0);
    sm_clamp_apply(1, 0.5, big, 5, room);
    CHECK(big[0] == 1 && big[2] == 1 && big[3] == 0.5f);
}

/* Outside the mask nothing changes, a constant estimate is blurred into itself, and flows keep 1 - sigma of the change. */
TEST(guidance_sag_degrades)
{
    enum { H = 6, W = 2 };
    sm_sag s = {.h = H, .w = W, .c = 2, .mh = 3, .mw = 1, .sigma = 0.25, .blur = 1};
    float map[3] = {1, 1.5f, 0.5f}, x[N], x0[N], out[N], flow[N], room[2 * N], even[N];
    test_fill(x, N, 1, -1, 1);
    test_fill(x0, N, 2, -1, 1);
    for (int i = 0; i < N; i++)
        even[i] = i % 2 ? 0.5f : -0.25f;
    sm_sag_degrade(&s, map, x, even, out, room);
    CHECK(test_maxdiff(out, x, N) < 1e-6);
    sm_sag_degrade(&s, map, x, x0, out, room);
    for (int i = 0; i < N; i++)
        CHECKF((out[i] != x[i]) == (i / (2 * W) == 2 || i / (2 * W) == 3), "row %d", i / (2 * W));
    s.flow = true;
    sm_sag_degrade(&s, map, x, x0, flow, room);
    for (int i = 0; i < N; i++)
        CHECK(fabs((flow[i] - x[i]) - 0.75 * (out[i] - x[i])) < 1e-6);
}
