/* The trainer's vector loops: against the scalar reference in double, AdamW against its definition, tails, equal bits. */
#include "cpu/cpu.h"
#include "cpu/optim.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 67 };

static const sm_adamw params = {.lr = 1e-2f, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-8f, .weight_decay = 0.1f, .bias1 = 0.271f,
                                .bias2 = 0.029701f, .grad_scale = 0.5f, .average = 0.25f};

typedef struct state { float w[N], m[N], v[N], ema[N], g[N]; } state;

static void fill(state *s)
{
    test_fill(s->w, N, 1, -1, 1);
    test_fill(s->m, N, 2, -1, 1);
    test_fill(s->v, N, 3, 0.01f, 1);
    test_fill(s->g, N, 4, -1, 1);
    test_fill(s->ema, N, 5, -1, 1);
}

TEST(optim_adamw)
{
    const sm_backend *be[4];
    int n = sm_cpu_backends(be);
    for (int len = 1; len <= N; len += len < 20 ? 1 : 47) {
        state ref, first = {0};
        fill(&ref);
        sm_optim_scalar.adamw(ref.w, ref.m, ref.v, ref.ema, ref.g, len, &params);
        for (int b = 1; b < n; b++) {
            state s, before;
            fill(&s);
            fill(&before);
            sm_optim_for(be[b]->name)->adamw(s.w, s.m, s.v, s.ema, s.g, len, &params);
            CHECK(test_maxdiff(s.ema, ref.ema, N) < 3e-7 && test_maxdiff(s.w, ref.w, N) < 3e-7 &&
                  test_maxdiff(s.m, ref.m, N) < 3e-7 && test_maxdiff(s.v, ref.v, N) < 3e-7);
            CHECKF(!memcmp(s.w + len, before.w + len, (size_t)(N - len) * 4), "%s wrote past %d elements", be[b]->name, len);
            CHECKF(!memcmp(s.ema + len, before.ema + len, (size_t)(N - len) * 4), "%s averaged past %d elements", be[b]->name,
                   len);
            sm_optim_for(be[b]->name)->adamw(before.w, before.m, before.v, NULL, before.g, len, &params);
            CHECKF(!memcmp(s.w, before.w, sizeof s.w), "%s: other weights where their average is kept", be[b]->name);
            if (b == 1)
                first = s;
            else
                CHECKF(!memcmp(&first, &s, sizeof s), "%s and %s give other bits", be[1]->name, be[b]->name);
        }
    }
}

/* With m = v = 0 the first step moves every weight by lr in the direction of -g, whatever its size (Kingma and Ba 2015). */
TEST(optim_adamw_first_step)
{
    const sm_backend *be[4];
    int n = sm_cpu_backends(be);
    sm_adamw p = {.lr = 0.1f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-12f, .bias1 = 0.1f, .bias2 = 0.001f, .grad_scale = 1};
    for (int b = 0; b < n; b++) {
        float w[3] = {1, 1, 1}, m[3] = {0}, v[3] = {0}, ema[3] = {1, 2, 0}, g[3] = {1e-3f, -5, 70};
        p.average = 0.5f;
        sm_optim_for(be[b]->name)->adamw(w, m, v, ema, g, 3, &p);
        CHECKF(fabs(ema[0] - 0.95) < 1e-5 && fabs(ema[1] - 1.55) < 1e-5 && fabs(ema[2] - 0.45) < 1e-5, "%s: %g %g %g",
               be[b]->name, ema[0], ema[1], ema[2]);
        CHECKF(fabs(w[0] - 0.9) < 1e-5 && fabs(w[1] - 1.1) < 1e-5 && fabs(w[2] - 0.9) < 1e-5, "%s: %g %g %g", be[b]->name, w[0],
               w[1], w[2]);
    }
}

TEST(optim_other_loops)
{
    const sm_backend *be[4];
    int n = sm_cpu_backends(be);
    double sums[4];
    for (int b = 0; b < n; b++) {
        const sm_optim *o = sm_optim_for(be[b]->name);
        float c[N], x[5] = {1, 2, 3, -4, 0.5f};
        test_fill(c, N, 6, -1, 1);
        CHECK(o->sum_squares(x, 5) == 30.25 && o->sum_squares(x, 0) == 0);
        sums[b] = o->sum_squares(c, N);
        CHECK(fabs(sums[b] - sums[0]) < 1e-12 && (b < 2 || sums[b] == sums[1]));
        for (int bad = 0; bad < N; bad += 11) {
            float keep = c[bad];
            CHECK(o->all_finite(c, N));
            c[bad] = bad % 2 ? NAN : -INFINITY;
            CHECK(!o->all_finite(c, N) && o->all_finite(c, bad));
            c[bad] = keep;
        }
    }
}
