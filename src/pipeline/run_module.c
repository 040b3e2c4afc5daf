/* `sumi run`: one part of a model, recorded on the shapes of the given tensors and run (see module.h). The way the parts
 * work together, such as the latents' scale, is left out on purpose: what comes out is what diffusers' module of that name
 * gives. */
#include <stdio.h>
#include <string.h>

#include "pipeline/module.h"

typedef struct run {
    sm_module m;
    sm_slots s;
    sm_slot_value value[SM_MODULE_INPUTS];
    sm_graph *g;
    sm_plan *p;
    nn_scope scope;
    sm_node *in[SM_MODULE_INPUTS], *eos, *out[SM_MODULE_OUTPUTS];
} run;

/* ---- recording: r->out[i] for r->s.out[i] ---- */

/* The node of an input, NULL where it was not given. */
static sm_node *input(const run *r, sm_slot_id id)
{
    for (int i = 0; i < r->s.nin; i++)
        if (r->s.in[i].id == id)
            return r->in[i];
    return NULL;
}

static void record_clip(run *r)
{
    sm_node *ids = input(r, SM_IN_IDS);
    int n = 0;
    r->eos = sm_input(r->g, "eos", SM_I32, 1, &ids->dims[0]);
    sm_clip_out t = sm_clip_text(&r->scope, &r->m.c.clip, ids, r->eos);
    r->out[n++] = t.last;
    r->out[n++] = t.pooled ? t.pooled : t.last;
    for (int i = 0; i <= t.layers && n < r->s.nout; i++)
        r->out[n++] = t.hidden[i];
    while (n < r->s.nout) /* text_embeds; after a failure, which the graph holds, the rest */
        r->out[n++] = t.projected ? t.projected : r->g->poison;
}

static void record_unet(run *r)
{
    sm_unet_cond c = {.text_embeds = input(r, SM_IN_POOLED), .time_ids = input(r, SM_IN_TIME_IDS),
                      .labels = input(r, SM_IN_LABELS), .timestep_cond = input(r, SM_IN_TIME_COND)};
    r->out[0] = sm_unet(&r->scope, &r->m.c.unet, input(r, SM_IN_SAMPLE), input(r, SM_IN_TIME), input(r, SM_IN_CONTEXT), &c);
}

static void record_vae(run *r)
{
    const sm_vae_config *c = &r->m.c.vae;
    sm_node *x = input(r, SM_IN_SAMPLE);
    if (r->m.row == &sm_module_rows[SM_MODULE_VAE_DECODER]) {
        r->out[0] = sm_vae_decode(&r->scope, c, x);
        return;
    }
    sm_node *moments = sm_vae_encode(&r->scope, c, x);
    r->out[0] = sm_slice(moments, -1, 0, c->latent_channels);
    r->out[1] = sm_slice(moments, -1, c->latent_channels, c->latent_channels);
}

static sumi_status record(run *r, const sm_backend *be, sm_err *e)
{
    r->g = sm_graph_new(r->m.mem, e);
    if (!r->g)
        return e->code;
    nn_scope root = nn_root(r->g, r->m.w, NULL);
    r->scope = nn_sub(&root, "%s", sm_component_names[r->m.row->component]);
    for (int i = 0; i < r->s.nin; i++)
        if (r->value[i].rank)
            r->in[i] = sm_input(r->g, r->s.in[i].name, r->s.in[i].ids ? SM_I32 : SM_F32, r->value[i].rank, r->value[i].dims);
    switch (r->m.row->kind) {
    case SM_MODEL_CLIP: record_clip(r); break;
    case SM_MODEL_UNET: record_unet(r); break;
    case SM_MODEL_VAE: record_vae(r); break;
    default:
        r->out[0] = sm_mmdit(&r->scope, &r->m.c.mmdit, input(r, SM_IN_SAMPLE), input(r, SM_IN_TIME), input(r, SM_IN_CONTEXT),
                             input(r, SM_IN_POOLED));
    }
    r->p = sm_plan_new(r->g, r->s.nout, r->out, be, e);
    return e->code;
}

/* ---- running ---- */

static void put_inputs(const run *r)
{
    for (int i = 0; i < r->s.nin; i++) {
        void *to = r->in[i] ? sm_plan_data(r->p, r->in[i]) : NULL;
        if (to)
            memcpy(to, r->value[i].data, 4 * (size_t)sm_numel(r->in[i]));
    }
    if (r->eos)
        sm_clip_eos_rows(&r->m.c.clip, r->value[0].data, (int)r->value[0].dims[0], (int)r->value[0].dims[1],
                         sm_plan_data(r->p, r->eos));
}

/* diffusers' DiagonalGaussianDistribution clamps so. */
static void clamp_logvar(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = x[i] < -30 ? -30 : x[i] > 20 ? 20 : x[i];
}

static sumi_status write_outputs(const run *r, const char *path, sm_err *e)
{
    const float *data[SM_MODULE_OUTPUTS];
    int64_t dims[SM_MODULE_OUTPUTS][4];
    for (int i = 0; i < r->s.nout; i++) {
        float *x = sm_plan_data(r->p, r->out[i]);
        if (!strcmp(r->s.out[i].name, "logvar"))
            clamp_logvar(x, sm_numel(r->out[i]));
        data[i] = x;
        memcpy(dims[i], r->out[i]->dims, sizeof dims[i]);
    }
    return sm_slots_write(&r->s, data, (const int64_t (*)[4])dims, path, r->m.mem, e);
}

/* Base and refiner differ in how many time ids they take, which a file of the UNet alone may not tell: the inputs do. */
static void settle_time_ids(run *r, const char *in)
{
    sm_err none = {0};
    sm_tensors *f = r->m.row->kind == SM_MODEL_UNET && r->m.c.unet.text_time ? sm_tensors_open(in, r->m.mem, &none) : NULL;
    const sm_st_entry *x = f ? sm_tensors_find(f, "added_cond_kwargs.time_ids") : NULL;
    if (x && x->rank == 2 && (x->dims[1] == 5 || x->dims[1] == 6))
        r->m.c.unet.time_ids = (int)x->dims[1];
    sm_tensors_close(f);
}

static void close_run(run *r)
{
    for (int i = 0; i < SM_MODULE_INPUTS; i++)
        sm_free(r->value[i].data);
    sm_plan_free(r->p);
    sm_graph_free(r->g);
    sm_module_close(&r->m);
}

static sumi_status find_row(const char *name, const sm_module_row **row, sm_err *e)
{
    sm_module_id id = sm_module_find(name);
    *row = &sm_module_rows[id < SM_MODULES ? id : 0];
    if (id < SM_MODULES)
        return SUMI_OK;
    return sm_fail(e, SUMI_E_ARG, "'%.40s' is no module; text_encoder, text_encoder_2, unet, transformer, vae_encoder or "
                   "vae_decoder", name);
}

/* A step writes over inputs that nothing reads any more, so each evaluation is given them anew. seconds and table may be NULL. */
static sumi_status evaluate(const run *r, sm_pool *pool, int times, double *seconds, char **table, sm_err *e)
{
    sm_buf b = {.mem = r->m.mem};
    for (int i = 0; i < times && !e->code; i++) {
        put_inputs(r);
        sm_plan_profile(r->p, table && (i > 0 || times == 1));
        double started = sm_now();
        sm_plan_run(r->p, pool, NULL, e);
        if (seconds)
            seconds[i] = sm_now() - started;
    }
    if (!table || e->code)
        return e->code;
    sm_plan_report(r->p, &b);
    if (b.oom) {
        sm_buf_free(&b);
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for the table of times");
    }
    *table = b.data;
    return SUMI_OK;
}

static sumi_status run_module(sumi_context *ctx, const sumi_model_options *o, const char *module, const char *in,
                              const char *out, int times, double *seconds, char **table)
{
    sm_err *e = sm_begin(ctx);
    const sm_module_row *row;
    if (!ctx->be || !ctx->pool)
        return sm_fail(e, SUMI_E_ARG, "the context could not be made and holds only its error");
    if (find_row(module, &row, e))
        return e->code;
    run *r = sm_alloc0(&ctx->mem, SM_MEM_MISC, sizeof *r);
    if (!r)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory running a module");
    if (!sm_module_open(&r->m, row, o ? o : &(sumi_model_options){0}, &ctx->mem, e)) {
        settle_time_ids(r, in);
        sm_module_slots(&r->m, &r->s);
        if (!sm_slots_read(&r->s, &r->m, in, r->value, e) && !record(r, ctx->compute, e) &&
            !evaluate(r, ctx->pool, times, seconds, table, e))
            write_outputs(r, out, e);
    }
    if (e->code && table) {
        sumi_text_free(*table);
        *table = NULL;
    }
    close_run(r);
    sm_free(r);
    return e->code;
}

sumi_status sumi_run_module(sumi_context *ctx, const sumi_model_options *o, const char *module, const char *in, const char *out)
{
    return run_module(ctx, o, module, in, out, 1, NULL, NULL);
}

sumi_status sumi_time_module(sumi_context *ctx, const sumi_model_options *o, const char *module, const char *in,
                             const char *out, int times, double *seconds)
{
    if (times < 1 || !seconds)
        return sm_fail(sm_begin(ctx), SUMI_E_ARG, "a module is timed at least once, and its seconds need a place");
    return run_module(ctx, o, module, in, out, times, seconds, NULL);
}

sumi_status sumi_profile_module(sumi_context *ctx, const sumi_model_options *o, const char *module,
                                const char *in, const char *out, int times, double *seconds, char **table)
{
    *table = NULL;
    if (times < 1 || !seconds)
        return sm_fail(sm_begin(ctx), SUMI_E_ARG, "a module is timed at least once, and its seconds need a place");
    return run_module(ctx, o, module, in, out, times, seconds, table);
}

/* ---- listing ---- */

static void list_slots(const char *what, const sm_slot *slot, int n, sm_buf *b)
{
    char shape[96];
    for (int i = 0; i < n; i++) {
        const sm_slot *s = &slot[i];
        sm_buf_fmt(b, "  %-6s %-32s %s", what, s->name, sm_slot_shape(s, NULL, shape));
        if (s->ids)
            sm_buf_fmt(b, ", integers from 0 to %lld", (long long)s->below - 1);
        if (s->other)
            sm_buf_fmt(b, ", or as %s", s->other);
        sm_buf_fmt(b, "%s\n", s->optional ? ", may be left out" : "");
    }
}

/* What lies between a module's tensors and what a request does with them. */
static const char *remark(const sm_module *m, char buf[200])
{
    const sm_vae_config *v = &m->c.vae;
    buf[0] = 0;
    if (m->row->kind == SM_MODEL_VAE && v->shift_factor != 0)
        snprintf(buf, 200, "; latents as the autoencoder knows them, the denoiser's are (latents - %g) * %g",
                 (double)v->shift_factor, (double)v->scaling_factor);
    else if (m->row->kind == SM_MODEL_VAE)
        snprintf(buf, 200, "; latents as the autoencoder knows them, the denoiser's are %g times these",
                 (double)v->scaling_factor);
    else if (m->row->kind == SM_MODEL_CLIP)
        snprintf(buf, 200, "; T at most %d", m->c.clip.max_position_embeddings);
    return buf;
}

static sumi_status list_one(const sm_module_row *row, const sumi_model_options *o, sm_mem *mem, sm_buf *b, sm_err *e)
{
    sm_module m;
    char more[200];
    sm_slots *s = sm_alloc(mem, SM_MEM_MISC, sizeof *s);
    if (!s)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory listing modules");
    if (!sm_module_open(&m, row, o, mem, e)) {
        sm_module_slots(&m, s);
        sm_buf_fmt(b, "%s of %s%s\n", row->name, m.path, remark(&m, more));
        list_slots("takes", s->in, s->nin, b);
        list_slots("gives", s->out, s->nout, b);
    }
    sm_module_close(&m);
    sm_free(s);
    return e->code;
}

sumi_status sumi_list_module(sumi_context *ctx, const sumi_model_options *o, const char *module, char **out)
{
    sm_err *e = sm_begin(ctx), why = {0};
    sm_buf b = {.mem = &ctx->mem};
    const sm_module_row *row = NULL;
    sumi_model_options none = {0};
    int listed = 0;
    *out = NULL;
    if (module && find_row(module, &row, e))
        return e->code;
    for (int i = 0; i < SM_MODULES; i++)
        if (!row || row == &sm_module_rows[i]) {
            sm_err_clear(&why);
            if (!list_one(&sm_module_rows[i], o ? o : &none, &ctx->mem, &b, &why))
                listed++;
            else if (why.code != SUMI_E_MODEL || row)
                break;
        }
    if (why.code && (!listed || why.code != SUMI_E_MODEL))
        sm_fail(e, why.code, "%s", why.msg);
    else if (b.oom)
        sm_fail(e, SUMI_E_MEMORY, "out of memory listing modules");
    if (e->code)
        sm_buf_free(&b);
    else
        *out = b.data;
    return e->code;
}
