/* sumi convert: which type a tensor gets. Plain types are given to every tensor of floats. FP8 and block types are given to
 * matrices alone, and not to those that are small and matter: stable-diffusion.cpp (ModelLoader::tensor_should_be_converted)
 * leaves biases, scales, everything with "embedding" in its name and rows that are no whole number of blocks as they are, and for
 * other families the layers that read time, guidance and text; ComfyUI-GGUF's tools/convert.py leaves tensors of one dimension,
 * time and label embeddings and the first and last layers. This is the union of both, and the autoencoder besides. */
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/shown.h"
#include "cpu/cpu.h"
#include "pipeline/convert.h"

/* Parts of names of what is never quantised. */
static const char *const precious[] = {
    "norm", ".ln_", "embed", "label_emb", "time_in.", "vector_in.", "guidance_in.", "img_in.", "txt_in.", "final_layer.",
    "scale_shift_table",
    "first_stage_model.", "conv_in.", "conv_out.", "diffusion_model.input_blocks.0.0.", "diffusion_model.out.2.",
};

static bool is_precious(const char *name)
{
    if (!strncmp(name, "vae.", 4))
        return true;
    if (!strncmp(name, "conditioner.embedders.", 22)) /* XL's text encoders: "embed" is their place, not what they are */
        name += 22;
    for (size_t i = 0; i < SM_COUNT(precious); i++)
        if (strstr(name, precious[i]))
            return true;
    return false;
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && !strcmp(s + n - k, tail);
}

/* Whether one of the comma-separated patterns fits. */
static bool matches(const char *patterns, const char *name)
{
    char one[256];
    for (const char *p = patterns; p && *p; p += *p == ',') {
        size_t n = strcspn(p, ",");
        if (n < sizeof one) {
            memcpy(one, p, n);
            one[n] = 0;
            if (!fnmatch(one, name, 0))
                return true;
        }
        p += n;
    }
    return false;
}

static bool fits_half(const sm_out_tensor *t)
{
    float x[SM_MAX_BLOCK];
    for (int i = 0; i < t->parts; i++)
        for (int64_t at = 0; at < t->part[i].n; at += SM_MAX_BLOCK) {
            int64_t n = SM_MIN(SM_MAX_BLOCK, t->part[i].n - at);
            sm_load_values(&t->part[i].t, at, n, x);
            for (int64_t k = 0; k < n; k++)
                if (x[k] >= 65520 || x[k] <= -65520)
                    return false;
        }
    return true;
}

/* The type that all parts have; F32 for a mixture. */
static sm_dtype stored_type(const sm_out_tensor *t)
{
    for (int i = 1; i < t->parts; i++)
        if (t->part[i].t.dtype != t->part[0].t.dtype)
            return SM_F32;
    return t->part[0].t.dtype;
}

static bool has_scale(const sm_out_tensor *t)
{
    for (int i = 0; i < t->parts; i++)
        if (t->part[i].t.scale)
            return true;
    return false;
}

/* The type a tensor that keeps its own gets: another one where the file has no such type, or a scale would be lost. */
static sm_dtype own_type(const sm_conversion *c, const sm_out_tensor *t, sm_kept *why)
{
    sm_dtype has = stored_type(t);
    bool f8 = has == SM_F8_E4M3 || has == SM_F8_E5M2, scaled = has_scale(t);
    if (!f8 && !(sm_dtype_block(has) > 1 && (!c->gguf || t->transpose)))
        return has;
    if (f8 && !c->gguf && !(scaled && c->canonical))
        return has;
    *why = SM_KEPT_NO_TYPE;
    return f8 && !scaled ? SM_F16 : SM_F32; /* exact: f16 holds every FP8 value */
}

static sm_dtype choose(const sm_conversion *c, const sm_out_tensor *t, sm_kept *why)
{
    int64_t row = t->rank ? t->dims[t->rank - 1] : 1;
    bool plain = c->type <= SM_BF16;
    *why = SM_CONVERTED;
    if (stored_type(t) == SM_I32)
        *why = SM_KEPT_INTEGER;
    else if (matches(c->patterns, t->name))
        *why = SM_KEPT_PATTERN;
    else if (c->type != SM_KEEP && !plain && t->rank < 2)
        *why = SM_KEPT_SMALL;
    else if (c->type != SM_KEEP && !plain && (is_precious(t->name) || !ends_with(t->name, "weight")))
        *why = SM_KEPT_NAME;
    else if (c->type != SM_KEEP && row % sm_dtype_block(c->type))
        *why = SM_KEPT_ROWS;
    if (*why == SM_CONVERTED && c->type != SM_KEEP)
        return c->type;
    if (*why == SM_KEPT_ROWS && stored_type(t) == SM_F32 && fits_half(t)) /* convolutions: most of a UNet's bytes otherwise */
        return SM_F16;
    return own_type(c, t, why);
}

/* Blocks whose rows are no whole number of them (a convolution that ComfyUI's tools quantised) are stored flat, the shape in the
 * metadata. */
static sumi_status flatten(sm_conversion *c, sm_out_tensor *t, sm_err *e)
{
    int block = sm_dtype_block(t->as);
    int64_t n = 1, width = 0;
    for (int i = 0; i < t->rank; i++)
        n *= t->dims[i];
    width = n % SM_MAX_BLOCK ? block : SM_MAX_BLOCK;
    char *key = sm_arena_fmt(&c->arena, "comfy.gguf.orig_shape.%s", t->name);
    int32_t *shape = sm_arena_get(&c->arena, SM_ST_MAX_DIMS * sizeof *shape);
    if (!key || !shape)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory converting %s", c->in);
    for (int i = 0; i < t->rank; i++)
        shape[i] = (int32_t)t->dims[i];
    c->gmeta[c->nmeta++] = (sm_gguf_meta){key, {SM_GGUF_ARRAY, SM_GGUF_I32, (uint64_t)t->rank, {.raw = shape}}};
    t->rank = 2;
    t->dims[0] = n / width;
    t->dims[1] = width;
    return SUMI_OK;
}

sumi_status sm_convert_type(sm_conversion *c, sm_out_tensor *t, sm_err *e)
{
    sm_kept why;
    t->as = choose(c, t, &why);
    if (!c->kept[why]++)
        c->first[why] = t->name;
    if (t->as == stored_type(t) && has_scale(t) && !c->gguf && !c->canonical) /* its scale is kept beside it */
        for (int i = 0; i < t->parts; i++)
            t->part[i].t.scale = NULL;
    for (int i = 0; i < t->parts; i++)
        c->bytes_in += sm_dtype_bytes(t->part[i].t.dtype, t->part[i].n);
    if (c->gguf && t->rank > 4)
        return sm_fail(e, SUMI_E_SUPPORT, "%s: tensor %s has %d dimensions; GGUF has at most 4", c->in, t->name, t->rank);
    int64_t row = t->rank ? t->dims[t->rank - 1] : 1;
    return row % sm_dtype_block(t->as) ? flatten(c, t, e) : SUMI_OK;
}

bool sm_convert_is_scale(const char *name, size_t *stem, bool *weight)
{
    static const struct { const char *tail; bool weight; } tails[] = {
        {"scale_weight", true}, {"weight_scale", true}, {"scale_input", false}, {"input_scale", false}, {"scaled_fp8", false}};
    for (size_t i = 0; i < SM_COUNT(tails); i++)
        if (ends_with(name, tails[i].tail)) {
            *stem = strlen(name) - strlen(tails[i].tail);
            *weight = tails[i].weight;
            return !*stem || name[*stem - 1] == '.';
        }
    return false;
}

/* ---- summary ----------------------------------------------------------------------------------------------------- */

static void put_size(sm_buf *b, double bytes)
{
    const char *unit = bytes >= 1e9 ? "GB" : bytes >= 1e6 ? "MB" : "kB";
    sm_buf_fmt(b, "%.2f %s", bytes / (bytes >= 1e9 ? 1e9 : bytes >= 1e6 ? 1e6 : 1e3), unit);
}

void sm_convert_summary(const sm_conversion *c, sm_buf *b)
{
    static const char *const reasons[SM_KEPT_REASONS] = {
        [SM_KEPT_NAME] = "kept, norms, embeddings, first and last layers, the autoencoder",
        [SM_KEPT_ROWS] = "kept as f16 or as they were, rows no whole number of blocks",
        [SM_KEPT_SMALL] = "kept, of one dimension",
        [SM_KEPT_PATTERN] = "kept, named by --keep-type",
        [SM_KEPT_INTEGER] = "kept, integers",
        [SM_KEPT_NO_TYPE] = "as f32 or f16, the file's format has no such type or scale",
    };
    size_t count[SM_DTYPES] = {0}, raw = 0;
    double bytes = 0;
    for (size_t i = 0; i < c->n; i++) {
        bytes += (double)sm_out_bytes(&c->t[i]);
        if (c->t[i].parts)
            count[c->t[i].as]++;
        else
            raw++;
    }
    sm_buf_fmt(b, "%s: %s, %zu tensors, ", c->out, c->gguf ? "GGUF" : "safetensors", c->n);
    put_size(b, bytes);
    sm_buf_fmt(b, " (from ");
    put_size(b, (double)c->bytes_in);
    sm_buf_fmt(b, ")\n ");
    const char *sep = " ";
    for (int t = 0; t < SM_DTYPES; t++)
        if (count[t]) {
            sm_buf_fmt(b, "%s%s %zu", sep, sm_store_name((sm_dtype)t), count[t]);
            sep = ", ";
        }
    if (raw)
        sm_buf_fmt(b, "%sother types %zu", sep, raw);
    sm_buf_fmt(b, "\n");
    char name[200];
    for (int k = SM_KEPT_NAME; k < SM_KEPT_REASONS; k++)
        if (c->kept[k])
            sm_buf_fmt(b, "  %zu %s: %s%s\n", c->kept[k], reasons[k], sm_shown(c->first[k], name, sizeof name),
                       c->kept[k] > 1 ? " ..." : "");
    if (c->left_out)
        sm_buf_fmt(b, "  %zu left out, of a type that the format lacks or without use: %s%s\n", c->left_out,
                   sm_shown(c->first_left_out, name, sizeof name), c->left_out > 1 ? " ..." : "");
    if (c->scaled)
        sm_buf_fmt(b, "  %zu scales of FP8 tensors multiplied in\n", c->scaled);
    if (c->note)
        sm_buf_fmt(b, "  %s\n", c->note);
}
