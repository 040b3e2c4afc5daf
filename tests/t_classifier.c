/* The noisy classifier against guided-diffusion's EncoderUNetModel: logits and gradients with every pool and option (fixture
 * classifier, made by tools/fixtures/make_classifier.py from the package itself), the gradient against differences, what the
 * tensors of published sizes are taken for; and what its gradient does to x0, on a mixture of Gaussians where the answer is
 * known. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "classifier_file.h"
#include "cpu/cpu.h"
#include "io/tensors.h"
#include "known.h"
#include "model/classifier.h"
#include "reference.h"
#include "sample/param.h"
#include "test.h"

/* ---- the network --------------------------------------------------------------------------------------------------- */

typedef struct network {
    sm_mem mem;
    sm_err err;
    sm_weights *w;
    sm_classifier_config c;
    sm_graph *g;
    sm_plan *p;
    sm_node *x, *t, *logits, *chosen, *gradient;
} network;

static void network_close(network *n)
{
    sm_plan_free(n->p);
    sm_graph_free(n->g);
    sm_weights_unref(&n->w);
}

static int said(const cJSON *one, const char *key)
{
    const cJSON *x = cJSON_GetObjectItem(cJSON_GetObjectItem(one, "metadata"), key);
    int v = 0;
    return x && sscanf(x->valuestring, "%d", &v) == 1 ? v : x ? 1 : 0;
}

/* Recorded and planned for pictures of x's shape. */
static bool network_open(network *n, const cJSON *one, const char *path, const char *prefix, const sm_tensor *x,
                         const sm_backend *be)
{
    sm_classifier_hints h = {said(one, "num_res_blocks"), said(one, "num_heads"), said(one, "num_head_channels"),
                             said(one, "use_new_attention_order")};
    *n = (network){0};
    n->w = sm_weights_new(&n->mem, &n->err);
    n->g = sm_graph_new(&n->mem, &n->err);
    if (!n->w || !n->g || sm_tensors_load(path, n->w, prefix, &n->mem, &n->err) ||
        sm_detect_classifier(n->w, &h, &n->c, path, &n->err))
        return false;
    nn_scope root = nn_root(n->g, n->w, NULL), s = nn_sub(&root, "%s", n->c.component);
    n->x = sm_input(n->g, "x", SM_F32, 4, x->dims);
    n->t = sm_input(n->g, "t", SM_F32, 1, x->dims);
    n->logits = sm_classifier(&s, &n->c, n->x, n->t);
    if (sm_poisoned(n->logits))
        return sm_fail(&n->err, n->g->err.code, "%s", n->g->err.msg), false;
    n->chosen =
        sm_sum_all(sm_slice(sm_log_softmax(n->logits), -1, (int64_t)cJSON_GetNumberValue(cJSON_GetObjectItem(one, "class")), 1));
    sm_grad(n->chosen, 1, &n->x, &n->gradient);
    n->p = sm_plan_new(n->g, 3, (sm_node *[]){n->logits, n->gradient, n->chosen}, be, &n->err);
    return n->p != NULL;
}

static double network_run(network *n, const float *x, const float *t, sm_pool *pool)
{
    memcpy(sm_plan_data(n->p, n->x), x, sizeof *x * (size_t)sm_numel(n->x));
    memcpy(sm_plan_data(n->p, n->t), t, sizeof *t * (size_t)sm_numel(n->t));
    CHECKF(!sm_plan_run(n->p, pool, NULL, &n->err), "%s", n->err.msg);
    return *(float *)sm_plan_data(n->p, n->chosen);
}

/* The gradient along a direction against (L(x + h v) - L(x - h v)) / 2h; what float leaves of the difference is some 1e-4 of
 * it. */
static void check_differences(network *n, const char *name, const float *x, const float *t, sm_pool *pool)
{
    enum { MOST = 2 * 4 * 8 * 18 };
    static float v[MOST], y[MOST];
    const int64_t size = sm_numel(n->x);
    const float h = strcmp(name, "spatial") ? 0.004f : 0.0002f; /* a ReLU has its kink 0.0005 off */
    double along = 0, scale = 0, two[2];
    test_fill(v, size, 7, -1, 1);
    network_run(n, x, t, pool);
    const float *g = sm_plan_data(n->p, n->gradient);
    for (int64_t i = 0; i < size; i++) {
        v[i] = copysignf(v[i], g[i]); /* so that no sum cancels */
        along += (double)g[i] * v[i];
        scale += fabs((double)g[i]);
    }
    for (int k = 0; k < 2; k++) {
        for (int64_t i = 0; i < size; i++)
            y[i] = x[i] + (k ? -h : h) * v[i];
        two[k] = network_run(n, y, t, pool);
    }
    double difference = (two[0] - two[1]) / (2 * (double)h);
    CHECKF(fabs(difference - along) < 2e-3 * fabs(along), "%s: slope %.6g, gradient %.6g (%.3g)", name, difference, along, scale);
}

static void check_case(const reference *f, const cJSON *config, const char *name, const sm_backend *be, const char *prefix,
                       bool differences)
{
    char in[64], at[64], logits[64], gradient[64];
    snprintf(in, sizeof in, "%s/in.x", name);
    snprintf(at, sizeof at, "%s/in.timestep", name);
    snprintf(logits, sizeof logits, "%s/out.logits", name);
    snprintf(gradient, sizeof gradient, "%s/out.gradient", name);
    const sm_weight *x = reference_find(f, "%s", in), *t = reference_find(f, "%s", at);
    const char *path = classifier_file(config, name, NULL, "classifier-case.safetensors");
    sm_err e = {0};
    sm_pool *pool = sm_pool_new(NULL, 1, &e);
    network n = {0};
    if (x && t && path[0] && pool) {
        bool ok = network_open(&n, cJSON_GetObjectItem(config, name), path, prefix, &x->t, be);
        CHECKF(ok, "%s: %s", name, n.err.msg);
        if (ok) {
            network_run(&n, x->t.data, t->t.data, pool);
            reference_near(f, logits, sm_plan_data(n.p, n.logits), sm_numel(n.logits), 1e-4, be->name);
            reference_near(f, gradient, sm_plan_data(n.p, n.gradient), sm_numel(n.gradient), 1e-4, be->name);
            if (differences)
                check_differences(&n, name, x->t.data, t->t.data, pool);
        }
    }
    network_close(&n);
    sm_pool_free(pool);
}

TEST(classifier_networks)
{
    const sm_backend *be[4];
    int backends = sm_cpu_backends(be);
    reference f;
    cJSON *config = reference_open(&f, "classifier.safetensors") ? cJSON_Parse(f.config) : NULL;
    const cJSON *one;
    int n = 0;
    cJSON_ArrayForEach(one, config)
        for (int i = 0; i < backends; i++, n++)
            check_case(&f, config, one->string, be[i], i ? "module." : "classifier.",
                       i == backends - 1); /* whatever stands before the names */
    CHECK(n >= 5);
    cJSON_Delete(config);
    reference_close(&f);
}

/* ---- what tensors tell --------------------------------------------------------------------------------------------- */

static cJSON *published(void)
{
    static char text[1 << 20];
    gzFile f = gzopen(test_fixture("classifiers.json.gz"), "rb");
    int n = f ? gzread(f, text, sizeof text - 1) : -1;
    if (f)
        gzclose(f);
    cJSON *all = n > 0 ? cJSON_ParseWithLength(text, (size_t)n) : NULL;
    CHECK(all != NULL);
    return all;
}

/* Shapes alone; one value stands for all. */
static sm_weights *shapes(const cJSON *one, sm_mem *mem, sm_err *e)
{
    static float nothing[1];
    const cJSON *line;
    sm_weights *w = sm_weights_new(mem, e);
    cJSON_ArrayForEach(line, cJSON_GetObjectItem(one, "tensors"))
    {
        char name[160];
        const cJSON *dims = cJSON_GetArrayItem(line, 1);
        sm_tensor t = {.data = nothing, .dtype = SM_F32, .rank = cJSON_GetArraySize(dims)};
        for (int i = 0; i < t.rank; i++)
            t.dims[i] = cJSON_GetArrayItem(dims, i)->valueint;
        snprintf(name, sizeof name, "classifier.%s", cJSON_GetArrayItem(line, 0)->valuestring);
        if (w)
            sm_weights_add(w, name, &t, e);
    }
    return w;
}

/* guided-diffusion's own sizes, without a word of metadata; recording asks for every tensor. */
TEST(classifier_published_sizes)
{
    cJSON *all = published();
    const cJSON *one, *x;
    cJSON_ArrayForEach(one, all)
    {
        sm_mem mem = {0};
        sm_err e = {0};
        sm_classifier_config c = {0};
        int size = cJSON_GetObjectItem(one, "size")->valueint, halves = 0;
        sm_weights *w = shapes(one, &mem, &e);
        CHECKF(w && !sm_detect_classifier(w, &(sm_classifier_hints){0}, &c, "it", &e), "%d: %s", size, e.msg);
        cJSON_ArrayForEach(x, cJSON_GetObjectItem(one, "halves"))
        {
            CHECKF(c.down[x->valueint] != SM_DOWN_NONE, "%d: block %d halves", size, x->valueint);
            halves++;
        }
        CHECK(c.halvings == halves && c.pool == SM_POOL_ATTENTION && c.head_channels == 64 && c.classes == 1000 &&
              c.groups == 32 && c.in_channels == 3);
        sm_graph *g = sm_graph_new(&mem, &e);
        nn_scope root = nn_root(g, w, NULL), s = nn_sub(&root, "%s", c.component);
        sm_node *y = sm_classifier(&s, &c, sm_input(g, "x", SM_F32, 4, (int64_t[]){2, size, size, 3}),
                                   sm_input(g, "t", SM_F32, 1, (int64_t[]){2}));
        CHECKF(!sm_poisoned(y) && y->dims[1] == 1000, "%d: %s", size, g->err.msg);
        for (size_t i = 0; i < sm_weights_count(w); i++)
            CHECKF(sm_weights_at(w, i)->used, "%d: %s is not used", size, sm_weights_at(w, i)->name);
        sm_graph_free(g);
        sm_weights_unref(&w);
    }
    cJSON_Delete(all);
}

/* ---- what the gradient does ---------------------------------------------------------------------------------------- */

/* log of a N(m, v) density's value times its share. */
static double log_part(double x, double share, double mean, double variance)
{
    return log(share) - 0.5 * log(variance) - (x - mean) * (x - mean) / (2 * variance);
}

/* log p(part y | x) where x = alpha x0 + sigma n. */
static double log_posterior(double x, double alpha, double sigma, int y)
{
    double l[3], most = -INFINITY, sum = 0;
    for (int i = 0; i < 3; i++) {
        l[i] = log_part(x, known_share[i], alpha * known_mean[i], alpha * alpha * known_dev[i] * known_dev[i] + sigma * sigma);
        most = fmax(most, l[i]);
    }
    for (int i = 0; i < 3; i++)
        sum += exp(l[i] - most);
    return l[y] - most - log(sum);
}

/* With the exact gradient and scale 1 the denoiser becomes that of the class alone: E[x0 | x, y] of one Gaussian. In what the
 * model sees, c_in x, the gradient is 1 / c_in times that in x. */
static void check_tweedie(const sm_noise *noise, sm_pred pred, double sigma)
{
    sm_precond pc;
    sm_err e = {0};
    double alpha = noise->flow ? 1 - sigma : 1;
    CHECKF(!sm_precond_at(noise, pred, sigma, &pc, &e), "%s", e.msg);
    for (int y = 0; y < 3; y++)
        for (double x = -2.5; x < 3; x += 0.7) {
            double h = 1e-4, v = known_dev[y] * known_dev[y], total = alpha * alpha * v + sigma * sigma;
            double in_x = (log_posterior(x + h, alpha, sigma, y) - log_posterior(x - h, alpha, sigma, y)) / (2 * h);
            double got = known_x0(x, sigma, alpha, 0) + sm_precond_score(noise, &pc, sigma) * in_x / pc.c_in;
            double want = known_mean[y] + alpha * v / total * (x - alpha * known_mean[y]);
            CHECKF(fabs(got - want) < 1e-5 * (1 + fabs(want)), "%s sigma %g, x %g, part %d: %.9g, want %.9g",
                   noise->flow ? "flow" : "ve", sigma, x, y, got, want);
        }
}

TEST(classifier_gradient_makes_the_class)
{
    sm_mem mem = {0};
    sm_err e = {0};
    sm_noise vp, edm, flow;
    sm_precond pc;
    CHECK(!sm_noise_vp(&vp, &mem, SM_BETA_SCALED_LINEAR, 1000, 0.00085, 0.012, &e) &&
          !sm_noise_edm(&edm, &mem, 100, 0.002, 80, 0.5, &e) && !sm_noise_flow(&flow, 1000, 3, &e));
    for (double sigma = 0.1; sigma < 14; sigma *= 1.9) {
        check_tweedie(&vp, SM_PRED_EPS, sigma);
        check_tweedie(&vp, SM_PRED_V, sigma);
        check_tweedie(&edm, SM_PRED_EDM, sigma);
    }
    for (double sigma = 0.05; sigma < 0.96; sigma += 0.1)
        check_tweedie(&flow, SM_PRED_FLOW, sigma);
    CHECK(!sm_precond_at(&flow, SM_PRED_FLOW, 1, &pc, &e) &&
          sm_precond_score(&flow, &pc, 1) == 0); /* noise alone knows no class */
    /* Dhariwal & Nichol's algorithm 2: eps - sqrt(1 - alpha_bar) gradient */
    double sigma = 2.5, bar = 1 / (1 + sigma * sigma);
    CHECK(!sm_precond_at(&vp, SM_PRED_EPS, sigma, &pc, &e));
    CHECK(fabs(sm_precond_score(&vp, &pc, sigma) / sigma - sqrt(1 - bar)) < 1e-12);
    sm_noise_free(&vp);
    sm_noise_free(&edm);
    sm_noise_free(&flow);
}
