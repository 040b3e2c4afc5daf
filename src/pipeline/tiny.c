/* Loading and running the tiny autoencoder (see tiny.h, model/taesd.c). It is convolutions alone: a band of rows with as much around it
 * as a pixel sees has the values that the whole picture has. */
#include "pipeline/tiny.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/file.h"
#include "io/json.h"
#include "io/tensors.h"
#include "io/weight_files.h"

/* ---- loading ------------------------------------------------------------------------------------------------------- */

/* Tensors of f into w under diffusers' names; f is taken over. */
static sumi_status add_file(sm_tensors *f, sm_weights *w, sm_mem *mem, sm_err *e)
{
    bool decoder = sm_tensors_find(f, "1.weight") && !sm_tensors_find(f, "0.weight");
    char name[64];
    sm_tensor t;
    for (size_t i = 0; i < sm_tensors_count(f) && !e->code; i++) {
        const sm_st_entry *x = sm_tensors_at(f, i);
        if (sm_taesd_name(x->name, decoder, name, sizeof name)) {
            if (!sm_tensors_view(f, x, w, &t, mem, e))
                sm_weights_add(w, name, &t, e);
        } else if (strcmp(x->name, "vae_scale") && strcmp(x->name, "vae_shift")) {
            sm_fail(e, SUMI_E_MODEL, "%s: '%.80s' is no tensor of a tiny autoencoder", sm_tensors_path(f), x->name);
        }
    }
    if (!e->code)
        return sm_tensors_keep(f, w, e);
    sm_tensors_close(f);
    return e->code;
}

/* What diffusers' config.json may say that the tensors do not. */
static sumi_status check_config(const char *dir, sm_mem *mem, sm_err *e)
{
    sm_buf text = {.mem = mem};
    sm_err why = {0};
    char path[600];
    snprintf(path, sizeof path, "%.500s/config.json", dir);
    cJSON *j = sm_file_read(path, (size_t)1 << 20, &text, &why) ? NULL : sm_json_parse(mem, text.data, text.len, 8, 10000, path, e);
    const cJSON *act = cJSON_GetObjectItemCaseSensitive(j, "act_fn"), *up = cJSON_GetObjectItemCaseSensitive(j, "upsample_fn");
    if ((cJSON_IsString(act) && strcmp(act->valuestring, "relu")) || (cJSON_IsString(up) && strcmp(up->valuestring, "nearest")))
        sm_fail(e, SUMI_E_SUPPORT, "%s: act_fn and upsample_fn other than relu and nearest are not supported", path);
    cJSON_Delete(j);
    sm_buf_free(&text);
    return e->code;
}

static sumi_status load(struct sm_tiny *t, const char *path, sm_mem *mem, sm_err *e)
{
    struct stat st;
    sm_wf_set set;
    sm_tensors *f;
    if (stat(path, &st) || !S_ISDIR(st.st_mode))
        return (f = sm_tensors_open(path, mem, e)) ? add_file(f, t->w, mem, e) : e->code;
    sm_wf_find(path, mem, &set, e);
    for (int i = 0; i < set.n && !e->code; i++)
        if ((f = sm_tensors_open(set.path[i], mem, e)))
            add_file(f, t->w, mem, e);
    sm_wf_free(&set);
    return e->code ? e->code : check_config(path, mem, e);
}

/* Every tensor that the layers need is there and fits: they are recorded once. */
static sumi_status check(const sumi_model *m, const char *path, sm_err *e)
{
    const struct sm_tiny *t = m->tiny;
    const sm_taesd_half *halves[] = {&t->c.decoder, &t->c.encoder};
    int f = sm_vae_factor(&m->vae), side = 1;
    for (int i = 0; i < 2; i++)
        if (halves[i]->layers && (halves[i]->channels != m->vae.latent_channels || halves[i]->factor != f))
            return sm_fail(e, SUMI_E_MODEL, "%s: is for latents of %d channels and %d pixels, those of %s have %d and %d", path,
                           halves[i]->channels, halves[i]->factor, m->name, m->vae.latent_channels, f);
    sm_graph *g = sm_graph_new(m->mem, e);
    for (int i = 0; g && i < 2; i++) {
        nn_scope s = nn_root(g, t->w, NULL);
        int64_t dims[4] = {1, i ? side * f : side, i ? side * f : side, i ? 3 : m->vae.latent_channels};
        sm_node *in = sm_input(g, "in", SM_F32, 4, dims);
        sm_node *out = !halves[i]->layers ? in : i ? sm_taesd_encode(&s, &t->c, in) : sm_taesd_decode(&s, &t->c, in);
        if (!i && halves[i]->layers && !sm_poisoned(out) && out->dims[3] != 3)
            sm_graph_fail(g, "a decoder to %d channels, 3 were expected", (int)out->dims[3]);
    }
    if (g && g->err.code)
        sm_fail(e, g->err.code, "%s: %s", path, g->err.msg);
    sm_graph_free(g);
    return e->code;
}

sumi_status sm_tiny_load(sumi_model *m, const char *path, sm_err *e)
{
    sm_err why = {0};
    m->tiny = sm_alloc0(m->mem, SM_MEM_WEIGHT, sizeof *m->tiny);
    if (!m->tiny)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory opening %s", path);
    m->tiny->w = sm_weights_new(m->mem, &why);
    if (!m->tiny->w || load(m->tiny, path, m->mem, &why) || sm_detect_taesd(m->tiny->w, &m->tiny->c, path, &why) || check(m, path, &why))
        return sm_fail(e, why.code, "--taesd: %s", why.msg);
    return SUMI_OK;
}

void sm_tiny_free(struct sm_tiny *t)
{
    if (t)
        sm_weights_unref(&t->w);
    sm_free(t);
}

sumi_status sm_tiny_wanted(const sumi_model *m, bool encoder, const char *flag, sm_err *e)
{
    const char *half = encoder ? "encoder" : "decoder";
    if (m->tiny && (encoder ? &m->tiny->c.encoder : &m->tiny->c.decoder)->layers)
        return SUMI_OK;
    if (m->tiny)
        return sm_fail(e, SUMI_E_ARG, "--%s taesd: the file given with --taesd has no %s", flag, half);
    return sm_fail(e, SUMI_E_ARG, "--%s taesd: needs a tiny %s of this model's latents: give its file with --taesd FILE", flag, half);
}

/* ---- encoding ------------------------------------------------------------------------------------------------------ */

bool sm_tiny_encodes(const sm_job *j) { return !strcasecmp(j->r.vae_encoder, "taesd"); }

sumi_status sm_tiny_open_encoder(sm_part *p, const sm_job *j, int h, int w, sm_err *e)
{
    if (sm_tiny_wanted(j->m, true, "vae-encoder", e) || !(p->g = sm_graph_new(j->mem, e)))
        return e->code;
    const struct sm_tiny *t = j->m->tiny;
    nn_scope s = nn_root(p->g, t->w, NULL);
    s.circular[0] = j->circular[0];
    s.circular[1] = j->circular[1];
    p->in[0] = sm_input(p->g, "image", SM_F32, 4, (int64_t[]){1, h * t->c.encoder.factor, w * t->c.encoder.factor, 3});
    p->out = sm_taesd_encode(&s, &t->c, p->in[0]);
    sm_plan_opts opts = sm_job_plan_opts(j);
    p->p = sm_plan_new_with(p->g, 1, &p->out, j->be, &opts, e);
    return e->code;
}

/* From the denoiser's latents back to the large autoencoder's. */
static void to_moments(const sumi_model *m, const float *latent, int64_t pixels, float *moments)
{
    int c = m->vae.latent_channels;
    for (int64_t i = 0; i < pixels; i++)
        for (int k = 0; k < c; k++) {
            double z = (double)latent[i * c + k] / m->vae.scaling_factor;
            z = m->traits.latents_stats ? z * m->traits.latents_std[k] + m->traits.latents_mean[k] : z + m->vae.shift_factor;
            moments[i * 2 * c + k] = (float)z;
            moments[i * 2 * c + c + k] = -30; /* a deviation of 3e-7 */
        }
}

sumi_status sm_tiny_encode(const sm_job *j, int h, int w, const float *image, float *moments, sm_err *e)
{
    sm_part p = {0};
    if (!sm_tiny_open_encoder(&p, j, h, w, e)) {
        memcpy(sm_plan_data(p.p, p.in[0]), image, sizeof *image * (size_t)sm_numel(p.in[0]));
        if (!sm_plan_run(p.p, j->pool, sm_job_cancel(j), e))
            to_moments(j->m, sm_plan_data(p.p, p.out), (int64_t)h * w, moments);
    }
    sm_part_close(&p);
    return e->code;
}

/* ---- decoding ------------------------------------------------------------------------------------------------------ */

enum { WHOLE = 128 * 128 }; /* latents of a picture that is decoded at once: 64 channels of 1024x1024 pixels are 268 MB */

sm_tiny_decoder sm_tiny_decoder_of(const sm_job *j, int h, int w)
{
    sm_tiny_decoder d = {.j = j, .h = h, .w = w, .rows = h, .window = h};
    int around = 2 * j->m->tiny->c.decoder.reach;
    if ((int64_t)h * w > WHOLE) {
        d.rows = SM_MAX(WHOLE / w - around, 16);
        d.window = d.rows + around;
    }
    if (d.window >= h)
        d.rows = d.window = h;
    return d;
}

void sm_tiny_close(sm_tiny_decoder *d)
{
    sm_part_close(&d->part);
    sm_free(d->pixels);
    d->pixels = NULL;
}

sumi_status sm_tiny_open(sm_tiny_decoder *d, sm_err *e)
{
    const sm_job *j = d->j;
    const struct sm_tiny *t = j->m->tiny;
    sm_part *p = &d->part;
    if (p->p)
        return SUMI_OK;
    p->g = sm_graph_new(j->mem, e);
    if (!p->g)
        return e->code;
    nn_scope s = nn_root(p->g, t->w, NULL);
    s.circular[0] = j->circular[0] && d->window == d->h; /* bands bring what is beyond the edge along */
    s.circular[1] = j->circular[1];
    p->in[0] = sm_input(p->g, "latents", SM_F32, 4, (int64_t[]){1, d->window, d->w, t->c.decoder.channels});
    p->out = sm_taesd_decode(&s, &t->c, p->in[0]);
    sm_plan_opts opts = sm_job_plan_opts(j);
    p->p = sm_plan_new_with(p->g, 1, &p->out, j->be, &opts, e);
    if (!p->p)
        sm_part_close(p);
    return e->code;
}

double sm_tiny_flops(const sm_tiny_decoder *d) { return sm_plan_cost(d->part.p).flops * ((d->h + d->rows - 1) / d->rows); }

static const float *run(sm_tiny_decoder *d, sm_err *e)
{
    return sm_plan_run(d->part.p, d->j->pool, sm_job_cancel(d->j), e) ? NULL : sm_plan_data(d->part.p, d->part.out);
}

/* Rows [y, y + rows) of latents and what they give. */
static sumi_status band(sm_tiny_decoder *d, const float *latent, int y, sm_err *e)
{
    const struct sm_tiny *t = d->j->m->tiny;
    int f = t->c.decoder.factor, around = (d->window - d->rows) / 2, rows = SM_MIN(d->rows, d->h - y);
    size_t line = (size_t)d->w * (size_t)t->c.decoder.channels, out = (size_t)d->w * (size_t)(f * f) * 3;
    int start = d->j->circular[0] ? y - around : SM_MAX(SM_MIN(y - around, d->h - d->window), 0);
    float *to = sm_plan_data(d->part.p, d->part.in[0]);
    for (int i = 0; i < d->window; i++)
        memcpy(to + (size_t)i * line, latent + (size_t)((start + i + d->h) % d->h) * line, sizeof *to * line);
    const float *from = run(d, e);
    if (from)
        memcpy(d->pixels + (size_t)y * out, from + (size_t)(y - start) * out, sizeof *from * out * (size_t)rows);
    return e->code;
}

const float *sm_tiny_decode(sm_tiny_decoder *d, const float *latent, sm_err *e)
{
    const sm_taesd_half *c = &d->j->m->tiny->c.decoder;
    size_t n = (size_t)d->h * (size_t)d->w, f2 = (size_t)(c->factor * c->factor);
    if (sm_tiny_open(d, e))
        return NULL;
    if (d->window == d->h) {
        memcpy(sm_plan_data(d->part.p, d->part.in[0]), latent, sizeof *latent * n * (size_t)c->channels);
        return run(d, e);
    }
    if (!d->pixels && !(d->pixels = sm_alloc(d->j->mem, SM_MEM_DATA, sizeof *d->pixels * n * f2 * 3)))
        sm_fail(e, SUMI_E_MEMORY, "out of memory for a picture of %dx%d latents", d->w, d->h);
    for (int y = 0; y < d->h && !e->code; y += d->rows)
        band(d, latent, y, e);
    return e->code ? NULL : d->pixels;
}
