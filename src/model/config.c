/* config.json to config struct and back: one table of fields per kind of model drives both directions. Defaults are those of
 * the classes in diffusers and transformers. Keys that do not change what is computed are not listed and ignored; keys that
 * would (MUST) are refused unless they have the one value that is implemented. */
#include "model/model.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef enum field_kind {
    INT,      /* a list of equal numbers counts as that number */
    OPTIONAL, /* INT that is null where 0 */
    FLOAT,
    BOOL,
    CHANNELS, /* list of 1..SM_BLOCKS numbers, required; its length goes to the struct's `blocks` */
    PER_BLOCK,/* int[SM_BLOCKS]: one number for all blocks, or a list of `blocks` */
    DEPTHS,   /* of a UNet: PER_BLOCK whose items may be lists, a number for each layer; those of each down block ... */
    REVERSE,  /* ... and, first up block first, of each up block; null where they mirror the down blocks */
    TYPES,    /* list of block types: text is "plain" or "plain|with attention"; bool[SM_BLOCKS] tells which */
    CHOICE,   /* int: 0 for null, else 1 + position in text "a|b|c" */
    LAYERS,   /* bool[SM_LAYERS]: list of layer numbers */
    MUST      /* absent, null or one of text "a|b"; stored nowhere */
} field_kind;

typedef struct field {
    const char *name;
    field_kind kind;
    size_t at;      /* offset in the struct */
    double fallback;
    const char *text;
} field;

#define F(S, name, kind, fallback) {#name, kind, offsetof(S, name), fallback, NULL}
#define T(S, name, kind, member, fallback, text) {name, kind, offsetof(S, member), fallback, text}
#define M(name, text) {name, MUST, 0, 0, text}

static const field CLIP[] = {
    F(sm_clip_config, vocab_size, INT, 49408),
    F(sm_clip_config, hidden_size, INT, 512),
    F(sm_clip_config, intermediate_size, INT, 2048),
    F(sm_clip_config, num_hidden_layers, INT, 12),
    F(sm_clip_config, num_attention_heads, INT, 8),
    F(sm_clip_config, max_position_embeddings, INT, 77),
    F(sm_clip_config, projection_dim, INT, 512),
    F(sm_clip_config, eos_token_id, INT, 49407),
    F(sm_clip_config, layer_norm_eps, FLOAT, 1e-5),
    /* in the order of sm_act */
    T(sm_clip_config, "hidden_act", CHOICE, hidden_act, SM_ACT_QUICK_GELU, "silu|gelu_pytorch_tanh|gelu|quick_gelu|relu"),
};

static const field UNET[] = {
    F(sm_unet_config, block_out_channels, CHANNELS, 0),
    F(sm_unet_config, in_channels, INT, 4),
    F(sm_unet_config, out_channels, INT, 4),
    F(sm_unet_config, layers_per_block, PER_BLOCK, 2),
    F(sm_unet_config, attention_head_dim, PER_BLOCK, 8),
    T(sm_unet_config, "down_block_types", TYPES, down_attention, 0, "DownBlock2D|CrossAttnDownBlock2D"),
    T(sm_unet_config, "up_block_types", TYPES, up_attention, 0, "UpBlock2D|CrossAttnUpBlock2D"),
    F(sm_unet_config, transformer_layers_per_block, DEPTHS, 1),
    T(sm_unet_config, "reverse_transformer_layers_per_block", REVERSE, up_depth, 0, NULL),
    T(sm_unet_config, "mid_block_type", CHOICE, mid_block, SM_MID_CROSS, "UNetMidBlock2D|UNetMidBlock2DCrossAttn"),
    F(sm_unet_config, cross_attention_dim, INT, 1280),
    F(sm_unet_config, norm_num_groups, INT, 32),
    F(sm_unet_config, norm_eps, FLOAT, 1e-5),
    F(sm_unet_config, use_linear_projection, BOOL, 0),
    F(sm_unet_config, flip_sin_to_cos, BOOL, 1),
    F(sm_unet_config, center_input_sample, BOOL, 0),
    F(sm_unet_config, freq_shift, FLOAT, 0),
    T(sm_unet_config, "addition_embed_type", CHOICE, text_time, 0, "text_time"),
    F(sm_unet_config, addition_time_embed_dim, OPTIONAL, 0),
    F(sm_unet_config, projection_class_embeddings_input_dim, OPTIONAL, 0),
    F(sm_unet_config, num_class_embeds, OPTIONAL, 0),
    F(sm_unet_config, time_cond_proj_dim, OPTIONAL, 0),
    M("act_fn", "silu|swish"),
    M("time_embedding_type", "positional"),
    M("resnet_time_scale_shift", "default|scale_shift"),
    M("class_embed_type", ""),
    M("encoder_hid_dim_type", ""),
    M("encoder_hid_dim", ""),
    M("time_embedding_act_fn", ""),
    M("timestep_post_act", ""),
    M("cross_attention_norm", ""),
    M("only_cross_attention", "false"),
    M("dual_cross_attention", "false"),
    M("class_embeddings_concat", "false"),
    M("resnet_skip_time_act", "false"),
    M("attention_type", "default"),
    M("conv_in_kernel", "3"),
    M("conv_out_kernel", "3"),
    M("downsample_padding", "1"),
    M("mid_block_scale_factor", "1"),
    M("resnet_out_scale_factor", "1"),
};

static const field VAE[] = {
    F(sm_vae_config, block_out_channels, CHANNELS, 0),
    F(sm_vae_config, in_channels, INT, 3),
    F(sm_vae_config, out_channels, INT, 3),
    F(sm_vae_config, latent_channels, INT, 4),
    F(sm_vae_config, layers_per_block, INT, 1),
    F(sm_vae_config, norm_num_groups, INT, 32),
    F(sm_vae_config, scaling_factor, FLOAT, 0.18215),
    F(sm_vae_config, shift_factor, FLOAT, 0),
    F(sm_vae_config, use_quant_conv, BOOL, 1),
    F(sm_vae_config, use_post_quant_conv, BOOL, 1),
    F(sm_vae_config, mid_block_add_attention, BOOL, 1),
    T(sm_vae_config, "down_block_types", TYPES, blocks, 0, "DownEncoderBlock2D"),
    T(sm_vae_config, "up_block_types", TYPES, blocks, 0, "UpDecoderBlock2D"),
    M("act_fn", "silu|swish"),
};

static const field MMDIT[] = {
    F(sm_mmdit_config, sample_size, INT, 128),
    F(sm_mmdit_config, patch_size, INT, 2),
    F(sm_mmdit_config, in_channels, INT, 16),
    F(sm_mmdit_config, out_channels, INT, 16),
    F(sm_mmdit_config, num_layers, INT, 18),
    F(sm_mmdit_config, attention_head_dim, INT, 64),
    F(sm_mmdit_config, num_attention_heads, INT, 18),
    F(sm_mmdit_config, joint_attention_dim, INT, 4096),
    F(sm_mmdit_config, caption_projection_dim, INT, 1152),
    F(sm_mmdit_config, pooled_projection_dim, INT, 2048),
    F(sm_mmdit_config, pos_embed_max_size, INT, 96),
    T(sm_mmdit_config, "qk_norm", CHOICE, qk_norm, 0, "rms_norm"),
    T(sm_mmdit_config, "dual_attention_layers", LAYERS, dual_attention, 0, NULL),
};

static const struct row {
    const char *name, *key;    /* the class, and under which key a config names it */
    const field *fields;
    int count;
    size_t size, blocks;       /* of the struct; offset of `blocks` in it */
} ROWS[SM_MODEL_KINDS] = {
    [SM_MODEL_CLIP] = {"clip_text_model", "model_type", CLIP, SM_COUNT(CLIP), sizeof(sm_clip_config), 0},
    [SM_MODEL_UNET] = {"UNet2DConditionModel", "_class_name", UNET, SM_COUNT(UNET), sizeof(sm_unet_config),
                       offsetof(sm_unet_config, blocks)},
    [SM_MODEL_VAE] = {"AutoencoderKL", "_class_name", VAE, SM_COUNT(VAE), sizeof(sm_vae_config), offsetof(sm_vae_config, blocks)},
    [SM_MODEL_MMDIT] = {"SD3Transformer2DModel", "_class_name", MMDIT, SM_COUNT(MMDIT), sizeof(sm_mmdit_config), 0},
};

/* Position of s among the alternatives "a|b|c", -1 when absent. */
static int among(const char *text, const char *s)
{
    size_t n = strlen(s);
    for (int i = 0;; i++) {
        size_t len = strcspn(text, "|");
        if (len == n && n && !memcmp(text, s, n))
            return i;
        if (!text[len])
            return -1;
        text += len + 1;
    }
}

/* Alternative i of text, for writing. */
static void put_choice(const char *text, int i, sm_buf *out)
{
    while (i-- > 0)
        text += strcspn(text, "|") + 1;
    sm_buf_fmt(out, "\"%.*s\"", (int)strcspn(text, "|"), text);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static sumi_status bad(sm_err *e, const field *f, const char *want)
{
    return sm_fail(e, SUMI_E_FORMAT, "config: \"%s\" must be %s", f->name, want);
}

/* A whole number in 0..2^24 (a list of equal ones counts as one). */
static bool whole(const cJSON *v, int *out)
{
    if (cJSON_IsArray(v)) {
        int first, other;
        if (!v->child || !whole(v->child, &first))
            return false;
        for (const cJSON *i = v->child->next; i; i = i->next)
            if (!cJSON_IsNumber(i) || !whole(i, &other) || other != first)
                return false;
        *out = first;
        return true;
    }
    if (!cJSON_IsNumber(v) || !(v->valuedouble >= 0 && v->valuedouble <= 1 << 24) || v->valuedouble != floor(v->valuedouble))
        return false;
    *out = (int)v->valuedouble;
    return true;
}

static sumi_status read_channels(const field *f, const cJSON *v, int *out, int *blocks, sm_err *e)
{
    int n = cJSON_IsArray(v) ? cJSON_GetArraySize(v) : 0;
    if (n < 1 || n > SM_BLOCKS)
        return bad(e, f, "a list of 1 to 8 numbers");
    *blocks = n;
    for (const cJSON *i = v->child; i; i = i->next)
        if (cJSON_IsArray(i) || !whole(i, out++))
            return bad(e, f, "a list of whole numbers");
    return SUMI_OK;
}

static sumi_status read_per_block(const field *f, const cJSON *v, int *out, int blocks, sm_err *e)
{
    int one = (int)f->fallback;
    bool list = cJSON_IsArray(v);
    if (list && cJSON_GetArraySize(v) != blocks)
        return bad(e, f, "one number, or a list as long as block_out_channels");
    if (v && !list && !whole(v, &one))
        return bad(e, f, "a whole number or a list of them");
    const cJSON *item = list ? v->child : NULL;
    for (int i = 0; i < blocks; i++, item = item ? item->next : NULL) {
        out[i] = one;
        if (item && (cJSON_IsArray(item) || !whole(item, &out[i])))
            return bad(e, f, "a whole number or a list of them");
    }
    return SUMI_OK;
}

/* Item i of a list of depths for n layers: row gets them where it is a list, *one the first of them or the only number. */
static bool read_depth(const cJSON *item, int n, int *row, int *one)
{
    memset(row, 0, (SM_UNET_LAYERS + 1) * sizeof *row);
    if (!cJSON_IsArray(item))
        return cJSON_IsNumber(item) && whole(item, one);
    int got = 0;
    for (const cJSON *i = item->child; i; i = i->next)
        if (cJSON_IsArray(i) || got > SM_UNET_LAYERS || !whole(i, &row[got++]))
            return false;
    *one = row[0];
    return got >= n;
}

/* Rows whose numbers are all `one` say nothing more and are cleared. */
static bool plain_row(const int *row, int n, int one)
{
    for (int i = 0; i < n; i++)
        if (row[i] != one)
            return false;
    return true;
}

static sumi_status read_depths(const field *f, const cJSON *v, sm_unet_config *c, sm_err *e)
{
    const char *want = "a number, or a list as long as block_out_channels of numbers or of lists with one for each layer";
    bool list = cJSON_IsArray(v);
    if (!list)
        return read_per_block(f, v, c->transformer_layers_per_block, c->blocks, e);
    if (cJSON_GetArraySize(v) != c->blocks)
        return bad(e, f, want);
    const cJSON *item = v->child;
    for (int i = 0; i < c->blocks; i++, item = item->next) {
        int n = SM_MIN(c->layers_per_block[i], SM_UNET_LAYERS);
        int *row = c->down_depth[i], *one = &c->transformer_layers_per_block[i];
        if (!read_depth(item, n, row, one))
            return bad(e, f, want);
        if (!c->down_attention[i] || plain_row(row, n, *one))
            memset(row, 0, sizeof c->down_depth[i]);
    }
    return SUMI_OK;
}

static sumi_status read_reverse(const field *f, const cJSON *v, sm_unet_config *c, sm_err *e)
{
    const char *want = "a list as long as block_out_channels of numbers or of lists with one for each layer";
    for (int i = 0; !v && i < c->blocks; i++)
        if (c->down_depth[i][0])
            return bad(e, f, "given where transformer_layers_per_block has lists");
    if (!v)
        return SUMI_OK;
    if (!cJSON_IsArray(v) || cJSON_GetArraySize(v) != c->blocks)
        return bad(e, f, want);
    const cJSON *item = v->child;
    for (int i = 0; i < c->blocks; i++, item = item->next) {
        int level = c->blocks - 1 - i, n = SM_MIN(c->layers_per_block[level], SM_UNET_LAYERS) + 1, *row = c->up_depth[i], one;
        if (!read_depth(item, n, row, &one))
            return bad(e, f, want);
        for (int k = n - 1; k >= 0 && !row[0]; k--) /* row[0] last */
            row[k] = one;
        if (!c->up_attention[i] || plain_row(row, n, c->transformer_layers_per_block[level]))
            memset(row, 0, sizeof c->up_depth[i]);
    }
    return SUMI_OK;
}

/* attention: bool[blocks], or NULL where the text has one alternative. Absent: all plain. */
static sumi_status read_types(const field *f, const cJSON *v, bool *attention, int blocks, sm_err *e)
{
    if (!v)
        return attention ? bad(e, f, "a list of block types") : SUMI_OK;
    if (!cJSON_IsArray(v) || cJSON_GetArraySize(v) != blocks)
        return bad(e, f, "a list as long as block_out_channels");
    int k = 0;
    for (const cJSON *i = v->child; i; i = i->next, k++) {
        int t = cJSON_IsString(i) ? among(f->text, i->valuestring) : -1;
        if (t < 0)
            return sm_fail(e, SUMI_E_SUPPORT, "config: \"%s\" has the block type %s; supported: %s", f->name,
                           cJSON_IsString(i) ? i->valuestring : "?", f->text);
        if (attention)
            attention[k] = t == 1;
    }
    return SUMI_OK;
}

static sumi_status read_choice(const field *f, const cJSON *raw, int *out, sm_err *e)
{
    *out = raw ? 0 : (int)f->fallback;
    if (!raw || cJSON_IsNull(raw))
        return SUMI_OK;
    int i = cJSON_IsString(raw) ? among(f->text, raw->valuestring) : -1;
    if (i < 0)
        return sm_fail(e, SUMI_E_SUPPORT, "config: \"%s\" is %s; supported: %s", f->name,
                       cJSON_IsString(raw) ? raw->valuestring : "no text", f->text);
    *out = i + 1;
    return SUMI_OK;
}

static sumi_status read_layers(const field *f, const cJSON *v, bool *out, sm_err *e)
{
    if (v && !cJSON_IsArray(v))
        return bad(e, f, "a list of layer numbers");
    for (const cJSON *i = v ? v->child : NULL; i; i = i->next) {
        int n;
        if (cJSON_IsArray(i) || !whole(i, &n) || n >= SM_LAYERS)
            return bad(e, f, "a list of layer numbers below 64");
        out[n] = true;
    }
    return SUMI_OK;
}

static sumi_status check_must(const field *f, const cJSON *v, sm_err *e)
{
    char text[64];
    if (!v)
        return SUMI_OK;
    if (cJSON_IsString(v))
        snprintf(text, sizeof text, "%s", v->valuestring);
    else if (cJSON_IsNumber(v))
        snprintf(text, sizeof text, "%g", v->valuedouble);
    else
        snprintf(text, sizeof text, "%s", cJSON_IsBool(v) ? cJSON_IsTrue(v) ? "true" : "false" : "a list");
    if (among(f->text, text) >= 0)
        return SUMI_OK;
    return sm_fail(e, SUMI_E_SUPPORT, "config: \"%s\" is %s, which is not supported%s%s", f->name, text,
                   f->text[0] ? "; supported: " : "", f->text);
}

static sumi_status read_number(const field *f, const cJSON *v, void *to, sm_err *e)
{
    int i = (int)f->fallback;
    double d = v ? v->valuedouble : f->fallback;
    switch (f->kind) {
    case INT:
    case OPTIONAL:
        if (v && !whole(v, &i))
            return bad(e, f, "a whole number");
        *(int *)to = i;
        return SUMI_OK;
    case FLOAT:
        if (v && (!cJSON_IsNumber(v) || !isfinite((float)d)))
            return bad(e, f, "a number");
        *(float *)to = (float)d;
        return SUMI_OK;
    default: /* BOOL */
        if (v && !cJSON_IsBool(v))
            return bad(e, f, "true or false");
        *(bool *)to = v ? cJSON_IsTrue(v) : f->fallback != 0;
        return SUMI_OK;
    }
}

static sumi_status read_field(const struct row *r, const field *f, const cJSON *root, char *config, sm_err *e)
{
    const cJSON *raw = cJSON_GetObjectItemCaseSensitive(root, f->name), *v = cJSON_IsNull(raw) ? NULL : raw;
    void *to = config + f->at;
    int *blocks = (int *)(void *)(config + r->blocks);
    switch (f->kind) {
    case INT:
    case OPTIONAL:
    case FLOAT:
    case BOOL:
        return read_number(f, v, to, e);
    case CHANNELS:
        return read_channels(f, v, to, blocks, e);
    case PER_BLOCK:
        return read_per_block(f, v, to, *blocks, e);
    case DEPTHS:
        return read_depths(f, v, (sm_unet_config *)(void *)config, e);
    case REVERSE:
        return read_reverse(f, v, (sm_unet_config *)(void *)config, e);
    case TYPES:
        return read_types(f, v, strchr(f->text, '|') ? to : NULL, *blocks, e);
    case CHOICE:
        return read_choice(f, raw, to, e);
    case LAYERS:
        return read_layers(f, v, to, e);
    case MUST:
        return check_must(f, v, e);
    }
    return SUMI_OK;
}

sumi_status sm_config_read(sm_model_kind kind, const char *json, size_t n, void *config, sm_err *e)
{
    const struct row *r = &ROWS[kind];
    cJSON *file = cJSON_ParseWithLength(json, n);
    if (!file || !cJSON_IsObject(file)) {
        cJSON_Delete(file);
        return sm_fail(e, SUMI_E_FORMAT, "config of %s is not a JSON object", r->name);
    }
    /* A whole CLIP model keeps its text half in an object of its own. */
    const cJSON *text = kind == SM_MODEL_CLIP ? cJSON_GetObjectItemCaseSensitive(file, "text_config") : NULL;
    const cJSON *root = cJSON_IsObject(text) ? text : file;
    sumi_status status = SUMI_OK;
    memset(config, 0, r->size);
    for (int i = 0; i < r->count && status == SUMI_OK; i++)
        status = read_field(r, &r->fields[i], root, config, e);
    cJSON_Delete(file);
    return status;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static void put_list(const field *f, const char *from, int blocks, sm_buf *out)
{
    bool two = f->kind == TYPES && strchr(f->text, '|');
    const char *between = "";
    sm_buf_fmt(out, "[");
    for (int i = 0; i < (f->kind == LAYERS ? SM_LAYERS : blocks); i++) {
        if (f->kind == LAYERS && !((const bool *)from)[i])
            continue;
        sm_buf_fmt(out, "%s", between);
        between = ", ";
        if (f->kind == TYPES)
            put_choice(f->text, two && ((const bool *)from)[i], out);
        else
            sm_buf_fmt(out, "%d", f->kind == LAYERS ? i : ((const int *)(const void *)from)[i]);
    }
    sm_buf_fmt(out, "]");
}

static void put_row(const int *row, int n, int one, sm_buf *out)
{
    if (!row[0])
        sm_buf_fmt(out, "%d", one);
    for (int i = 0; row[0] && i < n; i++)
        sm_buf_fmt(out, "%s%d%s", i ? ", " : "[", row[i], i + 1 == n ? "]" : "");
}

/* Where anything is nested, diffusers wants both lists. */
static void put_depths(const sm_unet_config *c, bool up, sm_buf *out)
{
    bool nested = false;
    for (int i = 0; i < c->blocks; i++)
        nested |= c->down_depth[i][0] || c->up_depth[i][0];
    if (up && !nested) {
        sm_buf_fmt(out, "null");
        return;
    }
    for (int i = 0; i < c->blocks; i++) {
        int level = up ? c->blocks - 1 - i : i, n = c->layers_per_block[level] + up;
        sm_buf_fmt(out, i ? ", " : "[");
        const int *row = up ? c->up_depth[i] : c->down_depth[i];
        put_row(row, SM_MIN(n, SM_UNET_LAYERS + 1), c->transformer_layers_per_block[level], out);
    }
    sm_buf_fmt(out, "]");
}

static void put_field(const field *f, const char *from, int blocks, sm_buf *out)
{
    int i = 0;
    float x = 0;
    sm_buf_fmt(out, ",\n  \"%s\": ", f->name);
    switch (f->kind) {
    case INT:
    case OPTIONAL:
        memcpy(&i, from, sizeof i);
        if (i || f->kind == INT)
            sm_buf_fmt(out, "%d", i);
        else
            sm_buf_fmt(out, "null");
        break;
    case FLOAT:
        memcpy(&x, from, sizeof x);
        sm_buf_fmt(out, "%.9g", (double)x);
        break;
    case BOOL:
        sm_buf_fmt(out, "%s", *(const bool *)from ? "true" : "false");
        break;
    case CHOICE:
        memcpy(&i, from, sizeof i);
        if (i)
            put_choice(f->text, i - 1, out);
        else
            sm_buf_fmt(out, "null");
        break;
    case DEPTHS:
        put_depths((const sm_unet_config *)(const void *)(from - f->at), false, out);
        break;
    case REVERSE:
        put_depths((const sm_unet_config *)(const void *)(from - f->at), true, out);
        break;
    default:
        put_list(f, from, blocks, out);
    }
}

void sm_config_write(sm_model_kind kind, const void *config, sm_buf *out)
{
    const struct row *r = &ROWS[kind];
    int blocks;
    memcpy(&blocks, (const char *)config + r->blocks, sizeof blocks);
    sm_buf_fmt(out, "{\n  \"%s\": \"%s\"", r->key, r->name);
    for (int i = 0; i < r->count; i++)
        if (r->fields[i].kind != MUST)
            put_field(&r->fields[i], (const char *)config + r->fields[i].at, blocks, out);
    sm_buf_fmt(out, "\n}\n");
}
