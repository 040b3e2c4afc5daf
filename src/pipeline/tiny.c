/* Loading and running the tiny autoencoder (see tiny.h, model/taesd.c). It is convolutions alone: a band of rows with as much
 * around it as a pixel sees has the values that the whole picture has. */
#include "pipeline/tiny.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/file.h"
#include "io/json.h"
#include "io/tensors.h"
#include "io/weight_files.h"
#include "pipeline/params.h"

/* ---- loading ------------------------------------------------------------------------------------------------------- */

/* The first tensor of each half. */
typedef struct first { char decoder[80], encoder[80]; } first;

/* Diffusers' names have "layers." before a layer's number, all others have not and count a decoder's from one: a half that has
 * both kinds is none. */
static sumi_status one_way(first *seen, const char *stored, bool decoder, const char *path, sm_err *e)
{
    char *was = decoder ? seen->decoder : seen->encoder;
    if (!was[0])
        snprintf(was, sizeof seen->decoder, "%s", stored);
    if (!strstr(was, "layers.") == !strstr(stored, "layers."))
        return SUMI_OK;
    return sm_fail(e, SUMI_E_MODEL, "%s: '%s' and '%.79s' name the layers of one %s in two ways; which are meant is not known",
                   path, was, stored, decoder ? "decoder" : "encoder");
}

/* Tensors of f into w under diffusers' names; f is taken over. */
static sumi_status add_file(sm_tensors *f, sm_weights *w, first *seen, sm_mem *mem, sm_err *e)
{
    bool decoder = sm_tensors_find(f, "1.weight") && !sm_tensors_find(f, "0.weight");
    char name[64];
    sm_tensor t;
    for (size_t i = 0; i < sm_tensors_count(f) && !e->code; i++) {
        const sm_st_entry *x = sm_tensors_at(f, i);
        if (sm_taesd_name(x->name, decoder, name, sizeof name)) {
            if (!one_way(seen, x->name, name[0] == 'd', sm_tensors_path(f), e) && !sm_tensors_view(f, x, w, &t, mem, e))
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
    cJSON *j = sm_file_read(path, (size_t)1 << 20, &text, &why) ? NULL
                                                                : sm_json_parse(mem, text.data, text.len, 8, 10000, path, e);
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
    first seen = {0};
    if (stat(path, &st) || !S_ISDIR(st.st_mode))
        return (f = sm_tensors_open(path, mem, e)) ? add_file(f, t->w, &seen, mem, e) : e->code;
    sm_wf_find(path, mem, &set, e);
    for (int i = 0; i < set.n && !e->code; i++)
        if ((f = sm_tensors_open(set.path[i], mem, e)))
            add_file(f, t->w, &seen, mem, e);
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
    if (!m->tiny->w || load(m->tiny, path, m->mem, &why) || sm_detect_taesd(m->tiny->w, &m->tiny->c, path, &why) ||
        check(m, path, &why))
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
    return sm_fail(e, SUMI_E_ARG, "--%s taesd: needs a tiny %s of this model's latents: give its file with --taesd FILE", flag,
                   half);
}

/* ---- who uses it --------------------------------------------------------------------------------------------------- */

bool sm_tiny_encodes(const sm_job *j) { return !strcasecmp(j->r.vae_encoder, "taesd"); }

bool sm_tiny_makes(const sm_job *j)
{
    return !strcasecmp(j->r.vae_decoder, "taesd") ||
           (sm_tiny_encodes(j) && (sm_request_encodes(&j->r) || j->m->traits.extra == SM_EXTRA_INPAINT));
}

void sm_tiny_idle(const sm_job *j, sm_buf *line)
{
    bool looks = j->cb && j->cb->preview && j->cb->preview_method && !strcasecmp(j->cb->preview_method, "taesd");
    if (j->m->tiny && !looks && !sm_tiny_makes(j))
        sm_buf_fmt(line, "%s--taesd without --vae-decoder taesd%s or --preview-method taesd", line->len ? "; " : "no effect: ",
                   sm_tiny_encodes(j) ? "" : ", --vae-encoder taesd");
}

/* ---- running ------------------------------------------------------------------------------------------------------- */

enum { WHOLE = 128 * 128 }; /* latents of a picture that goes through at once: 64 channels of 1024x1024 pixels are 268 MB */

static const sm_taesd_half *half_of(const sm_tiny_bands *b)
{
    const sm_taesd_config *c = &b->j->m->tiny->c;
    return b->encoder ? &c->encoder : &c->decoder;
}

sm_tiny_bands sm_tiny_bands_of(const sm_job *j, bool encoder, int h, int w)
{
    sm_tiny_bands b = {.j = j, .encoder = encoder, .h = h, .w = w, .rows = h, .window = h};
    int around = 2 * half_of(&b)->reach;
    if ((int64_t)h * w > WHOLE) {
        b.rows = SM_MAX(WHOLE / w - around, 16);
        b.window = b.rows + around;
    }
    if (b.window >= h)
        b.rows = b.window = h;
    return b;
}

void sm_tiny_close(sm_tiny_bands *b)
{
    sm_part_close(&b->part);
    sm_free(b->out);
    b->out = NULL;
}

/* Numbers of a row of latents, and of as many rows of pixels as belong to it. */
static size_t latent_line(const sm_tiny_bands *b) { return (size_t)b->w * (size_t)half_of(b)->channels; }
static size_t pixel_line(const sm_tiny_bands *b)
{
    return (size_t)b->w * (size_t)half_of(b)->factor * (size_t)half_of(b)->factor * 3;
}

sumi_status sm_tiny_open(sm_tiny_bands *b, sm_err *e)
{
    const sm_job *j = b->j;
    const struct sm_tiny *t = j->m->tiny;
    const sm_taesd_half *half = half_of(b);
    sm_part *p = &b->part;
    if (p->p)
        return SUMI_OK;
    p->g = sm_graph_new(j->mem, e);
    if (!p->g)
        return e->code;
    nn_scope s = nn_root(p->g, t->w, NULL);
    s.circular[0] = j->circular[0] && b->window == b->h; /* bands bring what is beyond the edge along */
    s.circular[1] = j->circular[1];
    int f = half->factor, c = half->channels;
    p->in[0] = b->encoder ? sm_input(p->g, "image", SM_F32, 4, (int64_t[]){1, b->window * f, b->w * f, 3})
                          : sm_input(p->g, "latents", SM_F32, 4, (int64_t[]){1, b->window, b->w, c});
    p->out = (b->encoder ? sm_taesd_encode : sm_taesd_decode)(&s, &t->c, p->in[0]);
    sm_plan_opts opts = sm_job_plan_opts(j);
    p->p = sm_plan_new_with(p->g, 1, &p->out, j->be, &opts, e);
    if (p->p && b->window < b->h &&
        !(b->out = sm_alloc(j->mem, SM_MEM_DATA, sizeof *b->out * (size_t)b->h * (b->encoder ? latent_line(b) : pixel_line(b)))))
        sm_fail(e, SUMI_E_MEMORY, "out of memory for a picture of %dx%d latents", b->w, b->h);
    if (e->code)
        sm_tiny_close(b);
    return e->code;
}

double sm_tiny_flops(const sm_tiny_bands *b) { return sm_plan_cost(b->part.p).flops * ((b->h + b->rows - 1) / b->rows); }

static const float *run(sm_tiny_bands *b, sm_err *e)
{
    return sm_plan_run(b->part.p, b->j->pool, sm_job_cancel(b->j), e) ? NULL : sm_plan_data(b->part.p, b->part.out);
}

/* What latent rows [y, y + rows) give. */
static sumi_status band(sm_tiny_bands *b, const float *in, int y, sm_err *e)
{
    int around = (b->window - b->rows) / 2, rows = SM_MIN(b->rows, b->h - y);
    size_t line = b->encoder ? pixel_line(b) : latent_line(b), out = b->encoder ? latent_line(b) : pixel_line(b);
    int start = b->j->circular[0] ? y - around : SM_MAX(SM_MIN(y - around, b->h - b->window), 0);
    float *to = sm_plan_data(b->part.p, b->part.in[0]);
    for (int i = 0; i < b->window; i++)
        memcpy(to + (size_t)i * line, in + (size_t)((start + i + b->h) % b->h) * line, sizeof *to * line);
    const float *from = run(b, e);
    if (from)
        memcpy(b->out + (size_t)y * out, from + (size_t)(y - start) * out, sizeof *from * out * (size_t)rows);
    return e->code;
}

const float *sm_tiny_run(sm_tiny_bands *b, const float *in, sm_err *e)
{
    if (sm_tiny_open(b, e))
        return NULL;
    if (b->window == b->h) {
        memcpy(sm_plan_data(b->part.p, b->part.in[0]), in, sizeof *in * (size_t)sm_numel(b->part.in[0]));
        return run(b, e);
    }
    for (int y = 0; y < b->h && !e->code; y += b->rows)
        band(b, in, y, e);
    return e->code ? NULL : b->out;
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
    if (sm_tiny_wanted(j->m, true, "vae-encoder", e))
        return e->code;
    sm_tiny_bands b = sm_tiny_bands_of(j, true, h, w);
    const float *latent = sm_tiny_run(&b, image, e);
    if (latent)
        to_moments(j->m, latent, (int64_t)h * w, moments);
    sm_tiny_close(&b);
    return e->code;
}
