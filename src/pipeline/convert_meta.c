/* sumi convert: metadata. safetensors holds texts, GGUF typed values. What the format of the output shares with that of the input
 * is copied; texts become texts, numbers their decimal form, lists JSON. What describes the storage of the old file is not
 * carried over: general.alignment, general.file_type, general.quantization_version, comfy.gguf.orig_shape.
 *
 * What readers of GGUF want: general.architecture "sd1", "sdxl", "sd3" or "flux" (ComfyUI-GGUF, loader.py; without the key it
 * looks at the names, as stable-diffusion.cpp always does), general.quantization_version 2, general.file_type the number of
 * llama.cpp's list, at most 4 dimensions, and names of at most 127 bytes. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "io/json.h"
#include "pipeline/convert.h"
#include "pipeline/model.h"

enum { QUANTIZATION_VERSION = 2, LONGEST = 1024 };

static bool describes_storage(const char *key)
{
    static const char *const keys[] = {"general.alignment", "general.file_type", "general.quantization_version"};
    for (size_t i = 0; i < SM_COUNT(keys); i++)
        if (!strcmp(key, keys[i]))
            return true;
    return !strncmp(key, "comfy.gguf.orig_shape.", 22);
}

static sumi_status no_memory(const sm_conversion *c, sm_err *e)
{
    return sm_fail(e, SUMI_E_MEMORY, "out of memory converting %s", c->in);
}

/* ---- into texts -------------------------------------------------------------------------------------------------- */

static void put_number(sm_buf *b, const sm_gguf_value *v)
{
    switch (v->type) {
    case SM_GGUF_BOOL: sm_buf_fmt(b, v->u ? "true" : "false"); break;
    case SM_GGUF_F32: sm_buf_fmt(b, "%.9g", v->f); break;
    case SM_GGUF_F64: sm_buf_fmt(b, "%.17g", v->f); break;
    case SM_GGUF_I8: case SM_GGUF_I16: case SM_GGUF_I32: case SM_GGUF_I64: sm_buf_fmt(b, "%lld", (long long)v->i); break;
    default: sm_buf_fmt(b, "%llu", (unsigned long long)v->u);
    }
}

/* Element i of a list of numbers, as the reader gives single ones. */
static sm_gguf_value element(const sm_gguf_value *list, uint64_t i)
{
    static const uint8_t sizes[SM_GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    sm_gguf_value v = {.type = list->of};
    size_t n = sizes[list->of];
    uint64_t u = 0;
    float f;
    memcpy(&u, (const uint8_t *)list->raw + i * n, n);
    if (v.type == SM_GGUF_F32) {
        memcpy(&f, &u, 4);
        v.f = (double)f;
    } else if (v.type == SM_GGUF_F64) {
        memcpy(&v.f, &u, 8);
    } else if (v.type == SM_GGUF_I8 || v.type == SM_GGUF_I16 || v.type == SM_GGUF_I32 || v.type == SM_GGUF_I64) {
        v.i = (int64_t)(u << (64 - 8 * n)) >> (64 - 8 * n);
    } else {
        v.u = u;
    }
    return v;
}

static void put_json(sm_buf *b, const sm_gguf_value *v, sm_arena *a)
{
    if (v->type == SM_GGUF_STRING) {
        char *s = sm_arena_fmt(a, "%.*s", (int)v->n, v->s);
        b->oom |= !s;
        if (s)
            sm_json_put_text(b, s);
        return;
    }
    if (v->type != SM_GGUF_ARRAY) {
        put_number(b, v);
        return;
    }
    sm_buf_fmt(b, "[");
    for (uint64_t i = 0; i < v->n && !b->oom; i++) {
        sm_gguf_value one = v->of == SM_GGUF_STRING || v->of == SM_GGUF_ARRAY ? v->items[i] : element(v, i);
        sm_buf_add(b, ", ", i ? 2 : 0);
        put_json(b, &one, a);
    }
    sm_buf_fmt(b, "]");
}

/* What makes a file sumi's own, where it is written anew. */
static bool replaced(const sm_conversion *c, const char *key)
{
    return (c->own && !strcmp(key, "sumi.model")) || (c->merges && !strcmp(key, "merges"));
}

static sumi_status texts_of_gguf(sm_conversion *c, sm_err *e)
{
    for (size_t i = 0; i < sm_gguf_metadata_count(c->meta_gguf); i++) {
        const sm_gguf_meta *m = sm_gguf_metadata_at(c->meta_gguf, i);
        const char *text = m->value.type == SM_GGUF_STRING ? m->value.s : NULL;
        sm_buf b = {.mem = c->mem};
        if (describes_storage(m->key) || replaced(c, m->key))
            continue;
        if (!text) {
            put_json(&b, &m->value, &c->arena);
            text = b.oom || !b.data ? NULL : sm_arena_str(&c->arena, b.data);
        }
        sm_buf_free(&b);
        if (!text)
            return no_memory(c, e);
        c->meta[c->nmeta++] = (sm_st_meta){m->key, text};
    }
    return SUMI_OK;
}

/* ---- into typed values ------------------------------------------------------------------------------------------- */

static sm_gguf_value number(uint32_t v) { return (sm_gguf_value){SM_GGUF_U32, SM_GGUF_U8, 0, {.u = v}}; }
static sm_gguf_value text(const char *s) { return (sm_gguf_value){SM_GGUF_STRING, SM_GGUF_U8, strlen(s), {.s = s}}; }

/* What ComfyUI-GGUF calls the family, NULL for none of its own; told by the names of both layouts. */
static const char *architecture(const sm_conversion *c)
{
    static const struct { const char *part, *arch; } marks[] = {
        {"double_blocks.0.img_attn.proj.weight", "flux"}, {"transformer_blocks.0.attn.add_q_proj.weight", "sd3"},
        {"joint_blocks.0.x_block.attn.qkv.weight", "sd3"}, {"label_emb.0.0.weight", "sdxl"},
        {"add_embedding.linear_1.weight", "sdxl"},
        {"output_blocks.2.0.in_layers.0.weight", "sd1"}, {"up_blocks.0.resnets.0.time_emb_proj.weight", "sd1"}};
    for (size_t k = 0; k < SM_COUNT(marks); k++)
        for (size_t i = 0; i < c->n; i++)
            if (strstr(c->t[i].name, marks[k].part))
                return marks[k].arch;
    return NULL;
}

/* The number of llama.cpp's list of file types for the type of most values; -1: none. */
static int file_type(const sm_conversion *c)
{
    static const int8_t types[SM_DTYPES] = {[SM_F32] = 0, [SM_F16] = 1, [SM_BF16] = 32, [SM_I32] = -1, [SM_F8_E4M3] = -1,
                                            [SM_F8_E5M2] = -1,
                                            [SM_Q4_0] = 2, [SM_Q4_1] = 3, [SM_Q5_0] = 8, [SM_Q5_1] = 9, [SM_Q8_0] = 7,
                                                [SM_Q2_K] = 10, [SM_Q3_K] = 12, [SM_Q4_K] = 15, [SM_Q5_K] = 17, [SM_Q6_K] = 18};
    double values[SM_DTYPES] = {0};
    int most = 0;
    for (size_t i = 0; i < c->n; i++)
        for (int k = 0; k < c->t[i].parts; k++)
            values[c->t[i].as] += (double)c->t[i].part[k].n;
    for (int i = 1; i < SM_DTYPES; i++)
        most = values[i] > values[most] ? i : most;
    return types[most];
}

static bool key_ok(const char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)s[i] < 0x20 || s[i] == 0x7f)
            return false;
    return n > 0 && n <= LONGEST;
}

static bool has(const sm_conversion *c, const char *key)
{
    for (size_t i = 0; i < c->nmeta; i++)
        if (!strcmp(c->gmeta[i].key, key))
            return true;
    return false;
}

/* Behind the shapes of flattened tensors, which are there already. */
static void typed(sm_conversion *c)
{
    for (size_t i = 0; c->meta_gguf && i < sm_gguf_metadata_count(c->meta_gguf); i++) {
        const sm_gguf_meta *m = sm_gguf_metadata_at(c->meta_gguf, i);
        if (!describes_storage(m->key) && !replaced(c, m->key))
            c->gmeta[c->nmeta++] = *m;
    }
    for (size_t i = 0; c->meta_st && i < sm_st_metadata_count(c->meta_st); i++) {
        sm_st_meta m = sm_st_metadata_at(c->meta_st, i);
        if (!describes_storage(m.key) && key_ok(m.key) && !has(c, m.key) && !replaced(c, m.key))
            c->gmeta[c->nmeta++] = (sm_gguf_meta){m.key, text(m.value)};
    }
    if (c->own)
        c->gmeta[c->nmeta++] = (sm_gguf_meta){"sumi.model", text(c->own)};
    if (c->merges)
        c->gmeta[c->nmeta++] = (sm_gguf_meta){"merges", text(c->merges)};
    const char *arch = architecture(c);
    if (arch && !has(c, "general.architecture"))
        c->gmeta[c->nmeta++] = (sm_gguf_meta){"general.architecture", text(arch)};
    c->gmeta[c->nmeta++] = (sm_gguf_meta){"general.quantization_version", number(QUANTIZATION_VERSION)};
    if (file_type(c) >= 0)
        c->gmeta[c->nmeta++] = (sm_gguf_meta){"general.file_type", number((uint32_t)file_type(c))};
}

sumi_status sm_convert_meta(sm_conversion *c, sm_err *e)
{
    if (c->gguf) {
        typed(c);
        return SUMI_OK;
    }
    for (size_t i = 0; c->meta_st && i < sm_st_metadata_count(c->meta_st); i++)
        if (!replaced(c, sm_st_metadata_at(c->meta_st, i).key))
            c->meta[c->nmeta++] = sm_st_metadata_at(c->meta_st, i);
    if (c->own)
        c->meta[c->nmeta++] = (sm_st_meta){"sumi.model", c->own};
    if (c->merges)
        c->meta[c->nmeta++] = (sm_st_meta){"merges", c->merges};
    return c->meta_gguf ? texts_of_gguf(c, e) : SUMI_OK;
}

/* ---- what a folder says beside its tensors ----------------------------------------------------------------------- */

/* A configuration of the folder; NULL where there is none, or with e set. */
static cJSON *folder_config(const sm_conversion *c, const char *name, sm_err *e)
{
    char path[4200];
    sm_buf text = {.mem = c->mem};
    cJSON *j = NULL;
    snprintf(path, sizeof path, "%.4000s/%s", c->in, name);
    if (!access(path, F_OK) && !sm_file_read(path, (size_t)1 << 20, &text, e))
        j = sm_json_parse(c->mem, text.data ? text.data : "", text.len, 8, 4096, path, e);
    sm_buf_free(&text);
    return j;
}

static const char *word(const cJSON *j, const char *name)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(j, name);
    return cJSON_IsString(x) ? x->valuestring : "";
}

static double number_in(const cJSON *j, const char *name, double usual)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(j, name);
    return cJSON_IsNumber(x) ? x->valuedouble : usual;
}

/* Noise levels made of other betas than Stable Diffusion's: no tensor of a single file says so. */
static bool other_betas(const cJSON *j)
{
    return cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(j, "trained_betas")) ||
           strcmp(word(j, "beta_schedule"), "scaled_linear") ||
           number_in(j, "beta_start", 0.0001) != 0.00085 || number_in(j, "beta_end", 0.02) != 0.012 ||
           number_in(j, "num_train_timesteps", 1000) != 1000;
}

sumi_status sm_convert_folder_marks(sm_conversion *c, sm_layout_report *r, sm_err *e)
{
    char path[4200];
    snprintf(path, sizeof path, "%.4000s/vae/config.json", c->in);
    cJSON *j = folder_config(c, "scheduler/scheduler_config.json", e);
    cJSON *vae = e->code ? NULL : folder_config(c, "vae/config.json", e);
    bool v = !strcmp(word(j, "prediction_type"), "v_prediction"), edm = !strncmp(word(j, "_class_name"), "EDM", 3);
    r->zero_snr = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(j, "rescale_betas_zero_snr"));
    r->v_prediction = v && !edm;
    r->edm_v = v && edm;
    if (r->edm_v) {
        r->edm_v_sigma[0] = (float)number_in(j, "sigma_max", 80);
        r->edm_v_sigma[1] = (float)number_in(j, "sigma_min", 0.002);
    }
    c->flow = strstr(word(j, "_class_name"), "FlowMatch") || !strcmp(word(j, "prediction_type"), "flow_prediction");
    r->edm_mark = edm && !v && !e->code && sm_latents_stats(vae, path, r->latents_mean, r->latents_std, e);
    if (j && !edm && !c->flow && other_betas(j))
        c->note =
            "scheduler_config.json's betas are not in it, Stable Diffusion's will be assumed: keep the folder, or see "
            "--beta-schedule";
    cJSON_Delete(j);
    cJSON_Delete(vae);
    return e->code;
}
