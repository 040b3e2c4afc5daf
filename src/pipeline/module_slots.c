/* The slots of modules (see module.h): which inputs and outputs each has, reading them from a file, writing them. Names and
 * shapes are those of diffusers' and transformers' forward(); what a safetensors file calls "a.b" is forward(a={"b": ...}). */
#include <stdio.h>
#include <string.h>

#include "cpu/cpu.h"
#include "pipeline/module.h"

/* ---- the tables ---- */

static sm_slot *add(sm_slot *list, int *n, sm_slot_id id, const char *name, int rank, const int64_t *dims)
{
    sm_slot *s = &list[(*n)++];
    *s = (sm_slot){.id = id, .rank = rank};
    snprintf(s->name, sizeof s->name, "%s", name);
    memcpy(s->dims, dims, sizeof *dims * (size_t)rank);
    return s;
}
#define DIMS(...) (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (int64_t[]){__VA_ARGS__}
#define IN(ID, NAME, ...) add(s->in, &s->nin, ID, NAME, DIMS(__VA_ARGS__))
#define OUT(NAME, ...) add(s->out, &s->nout, 0, NAME, DIMS(__VA_ARGS__))

static void clip_slots(const sm_module *m, sm_slots *s)
{
    const sm_clip_config *c = &m->c.clip;
    char name[64];
    sm_slot *ids = IN(SM_IN_IDS, "input_ids", -'N', -'T');
    ids->ids = true;
    ids->below = c->vocab_size;
    OUT("last_hidden_state", -'N', -'T', c->hidden_size);
    OUT("pooler_output", -'N', c->hidden_size);
    for (int i = 0; i <= c->num_hidden_layers && i <= SM_LAYERS; i++) {
        snprintf(name, sizeof name, "hidden_states.%d", i);
        OUT(name, -'N', -'T', c->hidden_size);
    }
    snprintf(name, sizeof name, "%s.text_projection.weight", sm_component_names[m->row->component]);
    const sm_weight *projection = sm_weights_find(m->w, name);
    if (projection)
        OUT("text_embeds", -'N', projection->t.dims[0]);
}

static void unet_slots(const sm_module *m, sm_slots *s)
{
    const sm_unet_config *c = &m->c.unet;
    IN(SM_IN_SAMPLE, "sample", -'N', c->in_channels, -'H', -'W');
    IN(SM_IN_TIME, "timestep", -'N')->each = true;
    IN(SM_IN_CONTEXT, "encoder_hidden_states", -'N', -'T', c->cross_attention_dim);
    if (c->text_time) {
        int ids = sm_unet_time_ids(c);
        IN(SM_IN_POOLED, "added_cond_kwargs.text_embeds", -'N',
           c->projection_class_embeddings_input_dim - (int64_t)ids * c->addition_time_embed_dim);
        IN(SM_IN_TIME_IDS, "added_cond_kwargs.time_ids", -'N', ids);
    }
    if (c->time_cond_proj_dim > 0)
        IN(SM_IN_TIME_COND, "timestep_cond", -'N', c->time_cond_proj_dim)->optional = true;
    if (c->num_class_embeds > 0) {
        sm_slot *labels = IN(SM_IN_LABELS, "class_labels", -'N');
        labels->ids = true;
        labels->below = c->num_class_embeds;
    }
    OUT("sample", -'N', c->out_channels, -'H', -'W');
}

static void mmdit_slots(const sm_module *m, sm_slots *s)
{
    const sm_mmdit_config *c = &m->c.mmdit;
    IN(SM_IN_SAMPLE, "hidden_states", -'N', c->in_channels, -'H', -'W')->other = "sample";
    IN(SM_IN_TIME, "timestep", -'N')->each = true;
    IN(SM_IN_CONTEXT, "encoder_hidden_states", -'N', -'T', c->joint_attention_dim);
    IN(SM_IN_POOLED, "pooled_projections", -'N', c->pooled_projection_dim);
    OUT("sample", -'N', c->out_channels, -'H', -'W');
}

void sm_module_slots(const sm_module *m, sm_slots *s)
{
    const sm_vae_config *v = &m->c.vae;
    *s = (sm_slots){0};
    switch ((sm_module_id)(m->row - sm_module_rows)) {
    case SM_MODULE_TEXT:
    case SM_MODULE_TEXT_2: clip_slots(m, s); break;
    case SM_MODULE_UNET: unet_slots(m, s); break;
    case SM_MODULE_TRANSFORMER: mmdit_slots(m, s); break;
    case SM_MODULE_VAE_ENCODER:
        IN(SM_IN_SAMPLE, "sample", -'N', v->in_channels, -'H', -'W');
        OUT("mean", -'N', v->latent_channels, -'h', -'w');
        OUT("logvar", -'N', v->latent_channels, -'h', -'w');
        break;
    default:
        IN(SM_IN_SAMPLE, "latents", -'N', v->latent_channels, -'h', -'w');
        OUT("sample", -'N', v->out_channels, -'H', -'W');
    }
}

const char *sm_slot_shape(const sm_slot *s, const int64_t letters[26], char buf[96])
{
    int at = snprintf(buf, 96, "[");
    for (int i = 0; i < s->rank; i++) {
        int64_t d = s->dims[i], bound = d < 0 && letters ? letters[(int)(-d | 32) - 'a'] : 0;
        if (d < 0 && !bound)
            at += snprintf(buf + at, (size_t)(96 - at), "%s%c", i ? ", " : "", (char)-d);
        else
            at += snprintf(buf + at, (size_t)(96 - at), "%s%lld", i ? ", " : "", (long long)(bound ? bound : d));
    }
    snprintf(buf + at, (size_t)(96 - at), s->each ? "] or [1] or []" : "]");
    return buf;
}

/* ---- reading ---- */

typedef enum number { N_F32, N_F16, N_BF16, N_F64, N_I64, N_I32, NUMBERS } number;

static const struct { const char *name; size_t bytes; } numbers[NUMBERS] = {
    [N_F32] = {"F32", 4}, [N_F16] = {"F16", 2}, [N_BF16] = {"BF16", 2}, [N_F64] = {"F64", 8}, [N_I64] = {"I64", 8},
    [N_I32] = {"I32", 4}};

/* Value i; files align to nothing. */
static double value_at(const uint8_t *data, number t, int64_t i)
{
    union { float f; uint16_t h; double d; int64_t l; int32_t i; } v;
    memcpy(&v, data + (size_t)i * numbers[t].bytes, numbers[t].bytes);
    switch (t) {
    case N_F32: return v.f;
    case N_F16: return sm_f16_f32(v.h);
    case N_BF16: return sm_bf16_f32(v.h);
    case N_F64: return v.d;
    case N_I64: return (double)v.l;
    default: return v.i;
    }
}

typedef struct reader {
    const sm_slots *s;
    const sm_module *m;
    const char *path;
    int64_t letters[26];
} reader;

static sumi_status wrong_shape(const reader *r, const sm_slot *s, const sm_st_entry *x, sm_err *e)
{
    char want[96], is[200] = "";
    for (int i = 0; i < x->rank; i++)
        snprintf(is + strlen(is), sizeof is - strlen(is), "%s%lld", i ? ", " : "", (long long)x->dims[i]);
    return sm_fail(e, SUMI_E_FORMAT, "%s: '%.60s' is [%s], the %s takes %s", r->path, x->name, is, r->m->row->name,
                   sm_slot_shape(s, r->letters, want));
}

/* Binds free letters; every size is 1 at least. */
static sumi_status check_shape(reader *r, const sm_slot *s, const sm_st_entry *x, sm_err *e)
{
    int64_t old[26];
    bool one = s->each && (x->rank == 0 || (x->rank == 1 && x->dims[0] == 1)), ok = one || x->rank == s->rank;
    memcpy(old, r->letters, sizeof old);
    for (int i = 0; ok && !one && i < s->rank; i++) {
        int64_t *letter = s->dims[i] < 0 ? &r->letters[(int)(-s->dims[i] | 32) - 'a'] : NULL;
        if (letter && !*letter && x->dims[i] > 0)
            *letter = x->dims[i];
        ok = x->dims[i] > 0 && x->dims[i] == (letter ? *letter : s->dims[i]);
    }
    if (ok)
        return SUMI_OK;
    memcpy(r->letters, old, sizeof old);
    return wrong_shape(r, s, x, e);
}

static sumi_status number_of(const reader *r, const sm_slot *s, const sm_st_entry *x, number *t, sm_err *e)
{
    size_t n = 1;
    int k = s->ids ? N_I64 : 0;
    while (k < NUMBERS && strcmp(numbers[k].name, x->dtype))
        k++;
    if (k == NUMBERS)
        return sm_fail(e, SUMI_E_FORMAT, "%s: '%.60s' is of type %.20s; %s", r->path, x->name, x->dtype,
                       s->ids ? "I64 or I32 was expected" : "F32, F16, BF16, F64, I64 or I32 was expected");
    for (int i = 0; i < x->rank; i++)
        if (!sm_mul_ok(n, (size_t)x->dims[i], &n))
            n = SIZE_MAX / 16;
    if (n * numbers[k].bytes != x->bytes)
        return sm_fail(e, SUMI_E_FORMAT, "%s: '%.60s' has %zu bytes for %zu values", r->path, x->name, x->bytes, n);
    *t = (number)k;
    return SUMI_OK;
}

/* NCHW to NHWC for four dims, else as it is. out [numel]. */
static void put_floats(const sm_st_entry *x, number t, const int64_t *d, int rank, float *out)
{
    int64_t n = 1, hw = rank == 4 ? d[2] * d[3] : 1, c = rank == 4 ? d[1] : 1;
    for (int i = 0; i < rank; i++)
        n *= d[i];
    for (int64_t i = 0; i < n; i++)
        out[i / (hw * c) * hw * c + i % hw * c + i / hw % c] = (float)value_at(x->data, t, i);
}

static sumi_status put_ids(const reader *r, const sm_slot *s, const sm_st_entry *x, number t, int64_t n, int32_t *out, sm_err *e)
{
    for (int64_t i = 0; i < n; i++) {
        double v = value_at(x->data, t, i);
        if (!(v >= 0 && v < (double)s->below))
            return sm_fail(e, SUMI_E_FORMAT, "%s: '%.60s' holds %.0f at place %lld; the %s takes 0 to %lld", r->path, x->name, v,
                           (long long)i, r->m->row->name, (long long)s->below - 1);
        out[i] = (int32_t)v;
    }
    return SUMI_OK;
}

static sumi_status read_slot(reader *r, const sm_slot *s, const sm_st_entry *x, sm_slot_value *v, sm_err *e)
{
    number t = N_F32;
    int64_t n = 1;
    if (check_shape(r, s, x, e) || number_of(r, s, x, &t, e))
        return e->code;
    v->rank = s->rank;
    for (int i = 0; i < s->rank; i++) {
        int64_t letter = s->dims[i] < 0 ? r->letters[(int)(-s->dims[i] | 32) - 'a'] : 0;
        v->dims[i] = letter ? letter : s->dims[i];
        n *= v->dims[i];
    }
    v->data = sm_alloc(r->m->mem, SM_MEM_DATA, 4 * (size_t)n);
    if (!v->data)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for '%.60s' of %s", x->name, r->path);
    if (s->ids)
        return put_ids(r, s, x, t, n, v->data, e);
    if (s->each && x->bytes == numbers[t].bytes)
        for (int64_t i = 0; i < n; i++)
            ((float *)v->data)[i] = (float)value_at(x->data, t, 0);
    else
        put_floats(x, t, v->dims, s->rank, v->data);
    if (s->rank == 4) {
        int64_t c = v->dims[1];
        memmove(v->dims + 1, v->dims + 2, 2 * sizeof c);
        v->dims[3] = c;
    }
    return SUMI_OK;
}

static bool is_named(const sm_slot *s, const char *name)
{
    return !strcmp(s->name, name) || (s->other && !strcmp(s->other, name));
}

/* Everything in the file must be an input: a misspelled optional one would go unnoticed else. */
static sumi_status check_names(const reader *r, const sm_tensors *f, sm_err *e)
{
    char list[400] = "";
    for (int k = 0; k < r->s->nin; k++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", k ? ", " : "", r->s->in[k].name);
    for (size_t i = 0; i < sm_tensors_count(f); i++) {
        int k = 0;
        while (k < r->s->nin && !is_named(&r->s->in[k], sm_tensors_at(f, i)->name))
            k++;
        if (k == r->s->nin)
            return sm_fail(e, SUMI_E_FORMAT, "%s: '%.60s' is no input of this %s, which takes %s", r->path,
                           sm_tensors_at(f, i)->name, r->m->row->name, list);
    }
    return SUMI_OK;
}

static sumi_status read_all(reader *r, const sm_tensors *f, sm_slot_value *value, sm_err *e)
{
    for (int i = 0; i < r->s->nin && !e->code; i++) {
        const sm_slot *s = &r->s->in[i];
        const sm_st_entry *x = sm_tensors_find(f, s->name), *other = s->other ? sm_tensors_find(f, s->other) : NULL;
        char shape[96];
        if (x && other)
            sm_fail(e, SUMI_E_FORMAT, "%s: '%s' and '%s' are one input: give one of them", r->path, s->name, s->other);
        else if (x || other)
            read_slot(r, s, x ? x : other, &value[i], e);
        else if (!s->optional)
            sm_fail(e, SUMI_E_FORMAT, "%s: lacks '%s', %s, which the %s takes", r->path, s->name,
                    sm_slot_shape(s, r->letters, shape), r->m->row->name);
    }
    return e->code;
}

sumi_status sm_slots_read(const sm_slots *s, const sm_module *m, const char *path, sm_slot_value value[SM_MODULE_INPUTS],
                          sm_err *e)
{
    reader r = {.s = s, .m = m, .path = path};
    memset(value, 0, sizeof *value * SM_MODULE_INPUTS);
    sm_tensors *f = sm_tensors_open(path, m->mem, e);
    if (f && !check_names(&r, f, e))
        read_all(&r, f, value, e);
    sm_tensors_close(f);
    return e->code;
}

/* ---- writing ---- */

/* [n, h, w, c] to [n, c, h, w]. */
static void to_first(const float *x, const int64_t *d, float *out)
{
    int64_t hw = d[1] * d[2], c = d[3];
    for (int64_t i = 0; i < d[0] * hw * c; i++)
        out[i / (hw * c) * hw * c + i % c * hw + i / c % hw] = x[i];
}

sumi_status sm_slots_write(const sm_slots *s, const float *const *data, const int64_t (*dims)[4], const char *path, sm_mem *mem,
                           sm_err *e)
{
    sm_st_item *item = sm_alloc0(mem, SM_MEM_MISC, sizeof *item * SM_MODULE_OUTPUTS);
    for (int i = 0; item && i < s->nout && !e->code; i++) {
        const int64_t *d = dims[i];
        const sm_slot *o = &s->out[i];
        item[i] = (sm_st_item){.name = o->name, .t = {.dtype = SM_F32, .rank = o->rank, .dims = {d[0], d[1], d[2], d[3]},
                                                      .data = (void *)(uintptr_t)data[i]}};
        if (o->rank != 4)
            continue;
        item[i].t = (sm_tensor){.dtype = SM_F32, .rank = 4, .dims = {d[0], d[3], d[1], d[2]}};
        item[i].t.data = sm_alloc(mem, SM_MEM_DATA, sizeof(float) * (size_t)(d[0] * d[1] * d[2] * d[3]));
        if (item[i].t.data)
            to_first(data[i], d, item[i].t.data);
        else
            sm_fail(e, SUMI_E_MEMORY, "out of memory writing %s", path);
    }
    if (!item)
        sm_fail(e, SUMI_E_MEMORY, "out of memory writing %s", path);
    if (!e->code)
        sm_st_write(path, (size_t)s->nout, item, 0, NULL, mem, e);
    for (int i = 0; item && i < s->nout; i++)
        if (s->out[i].rank == 4)
            sm_free(item[i].t.data);
    sm_free(item);
    return e->code;
}
