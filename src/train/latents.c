/* Second stage: the latents of every variant of every training picture, encoded once and kept as f16, with the one shift
 * and scale that bring them to mean 0 and deviation 1 (as SD 3's shift_factor and scaling_factor). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "io/safetensors.h"
#include "train/stages.h"

enum { BATCH = 16 };

typedef struct encoder {
    sm_graph *g;
    sm_plan *p;
    sm_node *image, *mean;
    uint8_t *rgb;
} encoder;

/* A batch from example `first` on; past the last one it repeats that. */
typedef struct draw_job { sm_trainer *t; encoder *c; int64_t first, count; sm_err err; } draw_job;

static void draw_task(void *arg, int task, int tasks)
{
    draw_job *j = arg;
    sm_trainer *t = j->t;
    int size = t->cfg.data.size;
    int64_t k = SM_MIN(j->first + task, j->count - 1);
    sm_scene s = sm_dataset_scene(t->data, &t->compose, t->init.seed, k / t->cfg.data.variants,
                                  (uint64_t)(k % t->cfg.data.variants));
    size_t n = (size_t)size * (size_t)size * 3;
    sm_err e = {0};
    if (sm_dataset_draw(t->data, &s, size, j->c->rgb + (size_t)task * n, &e))
        sm_task_failed(&j->err, &e);
    else
        sm_rgb_to_float(j->c->rgb + (size_t)task * n, (int64_t)n, (float *)sm_plan_data(j->c->p, j->c->image) + (size_t)task * n);
}

static sumi_status open_encoder(encoder *c, sm_trainer *t, sm_err *e)
{
    int64_t s = t->cfg.data.size;
    c->g = sm_graph_new(t->mem, e);
    c->rgb = sm_alloc(t->mem, SM_MEM_DATA, (size_t)(s * s * 3 * BATCH));
    if (!c->g || !c->rgb)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for the latents stage");
    nn_scope root = nn_root(c->g, t->vae_weights, NULL), vae = nn_sub(&root, "vae");
    c->image = sm_input(c->g, "image", SM_F32, 4, (int64_t[]){BATCH, s, s, t->vae.in_channels});
    c->mean = sm_slice(sm_vae_encode(&vae, &t->vae, c->image), -1, 0, t->vae.latent_channels);
    c->p = sm_plan_new(c->g, 1, &c->mean, t->be, e);
    return e->code;
}

static void close_encoder(encoder *c)
{
    sm_plan_free(c->p);
    sm_graph_free(c->g);
    sm_free(c->rgb);
}

typedef struct sums { double sum, squares; int64_t n; } sums;

/* n latents from place `at` on, as f16. */
static sumi_status keep(sm_trainer *t, const float *z, int64_t at, int64_t n, sums *st, sm_err *e)
{
    for (int64_t i = 0; i < n; i++) {
        if (!(fabsf(z[i]) < 65520)) /* what f16 rounds to infinity, or NaN */
            return sm_fail(e, SUMI_E_NUMERIC, "latents: the autoencoder gives %g, which f16 cannot hold: train it longer or with "
                           "a "
                           "larger kl_weight",
                           (double)z[i]);
        st->sum += z[i];
        st->squares += (double)z[i] * z[i];
        t->latents[at + i] = sm_f32_f16(z[i]);
    }
    st->n += n;
    return SUMI_OK;
}

static sumi_status encode_all(sm_trainer *t, encoder *c, int64_t count, int64_t each, sums *st, sm_err *e)
{
    draw_job job = {.t = t, .c = c, .count = count};
    double t0 = sm_now();
    for (int64_t k = 0; k < count; k += BATCH) {
        job.first = k;
        sm_pool_run(t->pool, draw_task, &job, BATCH);
        if (job.err.code)
            return sm_fail(e, job.err.code, "%s", job.err.msg);
        if (sm_plan_run(c->p, t->pool, t->cb ? t->cb->cancel : NULL, e))
            return e->code;
        if (keep(t, sm_plan_data(c->p, c->mean), k * each, SM_MIN((int64_t)BATCH, count - k) * each, st, e))
            return e->code;
        if (t->cb && t->cb->progress && k / BATCH % 16 == 0) {
            double dt = sm_now() - t0;
            sumi_progress p = {.stage = "latents", .step = k, .steps = count, .seconds = dt, .rate = (double)(k + BATCH) / dt};
            p.eta = (double)(count - k) / SM_MAX(p.rate, 1e-9);
            t->cb->progress(t->cb->user, &p);
        }
    }
    return SUMI_OK;
}

/* What the latents depend on beside their shape: the encoder's values and the seed of the compositions. */
static const char *source_of(const sm_trainer *t, char buf[40])
{
    uint64_t h = sm_hash64(&t->init.seed, sizeof t->init.seed);
    for (size_t i = 0; i < sm_weights_count(t->vae_weights); i++) {
        const sm_weight *w = sm_weights_at(t->vae_weights, i);
        if (!strncmp(w->name, "vae.encoder.", 12) || !strncmp(w->name, "vae.quant_conv.", 15))
            h = h * 31 + sm_hash64(w->t.data, w->bytes);
    }
    snprintf(buf, 40, "%016llx", (unsigned long long)h);
    return buf;
}

/* Which pictures, in which order: their places in the data set, what they are called and how they are drawn. */
static const char *pictures_of(const sm_trainer *t, char buf[40])
{
    uint64_t h = 0;
    for (int64_t i = 0; i < sm_dataset_count(t->data); i++) {
        const sm_picture *p = sm_dataset_picture(t->data, i);
        h = (h * 31 + sm_hash64(p->name, strlen(p->name))) * 31 + sm_hash64(p->style, strlen(p->style)) + (uint64_t)p->row;
    }
    snprintf(buf, 40, "%016llx", (unsigned long long)h);
    return buf;
}

static sumi_status write_latents(const sm_trainer *t, const char *path, int64_t count, sm_err *e)
{
    int64_t s = t->cfg.data.size / sm_vae_factor(&t->vae);
    char shift[32], scale[32], source[40], pictures[40];
    snprintf(shift, sizeof shift, "%.9g", t->shift);
    snprintf(scale, sizeof scale, "%.9g", t->scale);
    sm_st_item item = {.name = "latents", .t = {.data = t->latents, .dtype = SM_F16, .rank = 4,
                                                .dims = {count, s, s, t->vae.latent_channels}}};
    sm_st_meta meta[] = {{"shift_factor", shift}, {"scaling_factor", scale}, {"source", source_of(t, source)},
                         {"pictures", pictures_of(t, pictures)}};
    return sm_st_write(path, 1, &item, SM_COUNT(meta), meta, t->mem, e);
}

static sumi_status read_latents(sm_trainer *t, const char *path, int64_t count, int64_t each, sm_err *e)
{
    sm_st *f = sm_st_open(path, t->mem, e);
    if (!f)
        return e->code;
    char now[40], here[40];
    const char *shift = sm_st_metadata(f, "shift_factor"), *scale = sm_st_metadata(f, "scaling_factor"),
        *source = sm_st_metadata(f, "source");
    const sm_st_entry *x = sm_st_find(f, "latents");
    const char *pictures = sm_st_metadata(f, "pictures"); /* files of older versions have none */
    size_t bytes = (size_t)(count * each) * 2;
    bool stale = (source && strcmp(source, source_of(t, now))) || (pictures && strcmp(pictures, pictures_of(t, here)));
    if (!shift || !scale || !x || strcmp(x->dtype, "F16") || x->bytes != bytes || stale)
        sm_fail(e, SUMI_E_FORMAT, "%s: latents of another data set or model; delete it to encode anew", path);
    else {
        memcpy(t->latents, x->data, bytes);
        t->shift = strtof(shift, NULL);
        t->scale = strtof(scale, NULL);
    }
    sm_st_close(f);
    return e->code;
}

sumi_status sm_stage_latents(sm_trainer *t, bool *done, sm_err *e)
{
    int64_t s = t->cfg.data.size / sm_vae_factor(&t->vae), each = s * s * t->vae.latent_channels;
    int64_t count = sm_dataset_count(t->data) * t->cfg.data.variants;
    char path[512];
    sm_out_path(t, "latents.safetensors", path);
    if (t->as_is && !sm_file_exists(path))
        return sm_fail(e, SUMI_E_FILE, "%s is missing: run the latents stage before the export", path);
    sm_free(t->latents);
    t->latents = sm_alloc(t->mem, SM_MEM_DATA, (size_t)(count * each) * 2);
    if (!t->latents)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for %.0f MB of latents", (double)(count * each) * 2e-6);
    *done = true;
    if (sm_file_exists(path))
        return read_latents(t, path, count, each, e);
    encoder c = {0};
    sums st = {0};
    if (!open_encoder(&c, t, e) && !encode_all(t, &c, count, each, &st, e)) {
        double mean = st.sum / (double)st.n, var = st.squares / (double)st.n - mean * mean;
        t->shift = (float)mean;
        t->scale = (float)(1 / sqrt(SM_MAX(var, 1e-12)));
        write_latents(t, path, count, e);
    }
    close_encoder(&c);
    return e->code;
}
