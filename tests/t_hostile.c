/* Model files whose configuration lies: sizes that are absurd, zero, negative or do not fit the tensors, and tensors cut to
 * fit a lie. Loading, planning, drawing and inspecting give one clear line, never a crash or a flood of memory. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "io/safetensors.h"
#include "test.h"
#include "tiny.h"

/* The configuration with the value of section.key replaced; false when it has none. */
static bool lie(const char *config, const char *section, const char *key, const char *value, sm_buf *out)
{
    char name[80];
    snprintf(name, sizeof name, "\"%s\":", section);
    const char *at = strstr(config, name);
    snprintf(name, sizeof name, "\"%s\":", key);
    at = at ? strstr(at, name) : NULL;
    if (!at)
        return false;
    at += strlen(name);
    const char *end = at + strspn(at, " ");
    end += *end == '[' ? strcspn(end, "]") + 1 : strcspn(end, ",}\n");
    sm_buf_add(out, config, (size_t)(at - config));
    sm_buf_fmt(out, "%s%s", value, end);
    return !out->oom;
}

/* Writes the model of `from` with this configuration; the first size of tensors whose name begins with cut becomes 1, those
 * of the tensor `nan` become NaN. */
static bool rewrite_with(const char *from, const char *to, const char *config, const char *merges, const char *cut,
                         const char *nan)
{
    enum { MOST = 400 };
    static uint8_t ones[64]; /* every float type calls this NaN */
    sm_err e = {0};
    sm_st_item item[MOST];
    memset(ones, 0xff, sizeof ones);
    sm_st *f = sm_st_open(from, NULL, &e);
    size_t n = f ? sm_st_count(f) : 0;
    for (size_t i = 0; i < n && i < MOST; i++) {
        const sm_st_entry *x = sm_st_at(f, i);
        item[i] = (sm_st_item){.name = x->name, .t = {.data = (void *)x->data, .dtype = x->type, .rank = x->rank}};
        memcpy(item[i].t.dims, x->dims, sizeof item[i].t.dims);
        if (cut && !strncmp(x->name, cut, strlen(cut)))
            item[i].t.dims[0] = 1;
        if (nan && !strcmp(x->name, nan) && x->bytes <= sizeof ones)
            item[i].t.data = ones;
    }
    sm_st_meta meta[] = {{"sumi.model", config}, {"merges", merges ? merges : f ? sm_st_metadata(f, "merges") : ""}};
    bool ok = n && n < MOST && !sm_st_write(to, n, item, 2, meta, NULL, &e);
    sm_st_close(f);
    CHECKF(ok, "%s", e.msg);
    return ok;
}

static bool rewrite(const char *from, const char *to, const char *config, const char *merges, const char *cut)
{
    return rewrite_with(from, to, config, merges, cut, NULL);
}

/* Everything a caller may do with the file; the message of the first failure, "" if there was none. */
static void use(const char *path, char msg[640])
{
    sumi_context *ctx;
    sumi_model *m = NULL;
    sumi_images *im = NULL;
    sumi_plan_info info;
    sumi_request r = sumi_request_default();
    sumi_context_options o = {.threads = 1};
    r.prompt = "red disc";
    r.seed = 1;
    msg[0] = 0;
    CHECK(!sumi_context_new(&o, &ctx));
    for (int json = 0; json < 2; json++) {
        char *text = NULL;
        sumi_inspect(ctx, path, json, &text);
        sumi_text_free(text);
    }
    if (sumi_model_load(ctx, path, &m)) {
        snprintf(msg, 640, "%s", sumi_error(ctx));
        CHECKF(strstr(msg, "hostile-"), "does not name the file: %s", msg);
    } else if (sumi_plan_request(ctx, m, &r, &info) | sumi_generate(ctx, m, &r, NULL, &im)) {
        snprintf(msg, 640, "%s", sumi_error(ctx));
    }
    CHECKF(!strchr(msg, '\n'), "more than one line: %s", msg);
    CHECKF(sumi_memory_peak(ctx) < (size_t)64 << 20, "took %zu bytes", sumi_memory_peak(ctx));
    sumi_images_free(im);
    sumi_model_free(m);
    sumi_context_free(ctx);
}

typedef struct hostile { const char *section, *key, *value, *want; } hostile;

/* cut: see rewrite. */
static void check_lies(tiny_kind kind, const hostile *h, size_t n, const char *cut)
{
    char msg[640], path[300];
    sm_err e = {0};
    sm_st *f = sm_st_open(tiny_model(kind), NULL, &e);
    CHECKF(f != NULL, "%s", e.msg);
    snprintf(path, sizeof path, "%s", test_tmp("hostile-lie.safetensors"));
    for (size_t i = 0; f && i < n; i++) {
        sm_buf config = {0};
        bool told = lie(sm_st_metadata(f, "sumi.model"), h[i].section, h[i].key, h[i].value, &config);
        CHECKF(told, "%s.%s is not in the configuration", h[i].section, h[i].key);
        if (told && rewrite(tiny_model(kind), path, config.data, NULL, cut)) {
            use(path, msg);
            CHECKF(strstr(msg, h[i].want) != NULL, "%s.%s = %s: '%s' lacks '%s'", h[i].section, h[i].key, h[i].value, msg,
                   h[i].want);
        }
        sm_buf_free(&config);
    }
    sm_st_close(f);
}

TEST(hostile_sizes_in_a_unet_model)
{
    static const hostile cases[] = {
        {"unet", "in_channels", "9", "conv_in"},
        {"unet", "norm_num_groups", "0", "groups"}, {"unet", "norm_num_groups", "3", "groups"},
        {"unet", "norm_num_groups", "-4", "norm_num_groups"},
        {"unet", "layers_per_block", "[0, 0]", "layers_per_block"},
        {"unet", "layers_per_block", "[16777216, 1]", "layers_per_block"},
        {"unet", "block_out_channels", "[16777216, 16777216]", "frequencies"},
        {"unet", "block_out_channels", "[]", "block_out_channels"},
        {"unet", "block_out_channels", "[8,8,8,8,8,8,8,8,8]", "block_out_channels"},
        {"unet", "attention_head_dim", "[0, 0]", "heads"},
        {"unet", "transformer_layers_per_block", "[1, 16777216]", "transformer_layers_per_block"},
        {"unet", "cross_attention_dim", "17", "width 17"},
        {"unet", "freq_shift", "4", "frequencies"}, {"unet", "norm_eps", "1e99", "norm_eps"},
        {"text_encoder", "num_hidden_layers", "0", "num_hidden_layers"},
        {"text_encoder", "num_hidden_layers", "16777216", "num_hidden_layers"},
        {"text_encoder", "max_position_embeddings", "1", "max_position_embeddings"},
        {"text_encoder", "max_position_embeddings", "16777216", "max_position_embeddings"},
        {"text_encoder", "max_position_embeddings", "17", "position_embedding"},
        {"text_encoder", "num_attention_heads", "0", "heads"},
        {"text_encoder", "hidden_size", "16777216", "hidden_size"}, {"text_encoder", "vocab_size", "514", "vocab_size"},
        {"text_encoder", "intermediate_size", "16777216", "tensor"},
        {"vae", "latent_channels", "0", "latent_channels"}, {"vae", "latent_channels", "16777216", "latent_channels"},
        {"vae", "latent_channels", "8", "latent channels"},
        {"vae", "in_channels", "1", "in_channels 1"},
        {"vae", "scaling_factor", "0", "scaling_factor"}, {"vae", "norm_num_groups", "0", "groups"},
        {"vae", "layers_per_block", "0", "layers"},
        {"vae", "layers_per_block", "16777216", "layers"},
        {"vae", "block_out_channels", "[8,8,8,8,8,8,8,8]", "block_out_channels"},
        {"defaults", "steps", "0", "steps"}, {"defaults", "steps", "1e9", "steps"}, {"defaults", "steps", "\"many\"", "steps"},
        {"defaults", "width", "-16", "width"}, {"defaults", "width", "17", "17x16"},
        {"defaults", "cfg_scale", "-1e30", "cfg_scale"},
        {"defaults", "shift", "0", "shift"}, {"defaults", "sampler", "\"nope\"", "nope"}, {"defaults", "schedule", "7e7", ""},
    };
    check_lies(TINY_UNET, cases, SM_COUNT(cases), NULL);
}

TEST(hostile_sizes_in_a_transformer_model)
{
    static const hostile cases[] = {
        {"transformer", "patch_size", "0", "patch"}, {"transformer", "patch_size", "16777216", "patch"},
        {"transformer", "patch_size", "3", "pos_embed.proj.weight"},
        {"transformer", "num_layers", "0", "num_layers"}, {"transformer", "num_layers", "16777216", "num_layers"},
        {"transformer", "pos_embed_max_size", "0", "pos_embed_max_size"},
        {"transformer", "pos_embed_max_size", "16777216", "pos_embed_max_size"},
        {"transformer", "pos_embed_max_size", "1", "pos_embed.pos_embed"},
        {"transformer", "attention_head_dim", "0", "attention_head_dim"},
        {"transformer", "num_attention_heads", "16777216", "caption_projection_dim"},
        {"transformer", "in_channels", "5", "sample"},
        {"transformer", "pooled_projection_dim", "16777216", "pooled"},
        {"transformer", "joint_attention_dim", "0", "width 0"}, {"text_encoder", "projection_dim", "16777216", ""},
    };
    check_lies(TINY_MMDIT, cases, SM_COUNT(cases), NULL);
}

/* The tensors agree with the lie, so recording alone would notice nothing: what is read behind them would be too short. */
TEST(hostile_channels_that_the_tensors_confirm)
{
    static const hostile out = {"unet", "out_channels", "1", "makes 1 latent channels"},
        picture = {"vae", "out_channels", "1", "out_channels 1"},
                         latent = {"vae", "latent_channels", "1", "latent channels"};
    check_lies(TINY_UNET, &out, 1, "unet.conv_out.");
    check_lies(TINY_UNET, &picture, 1, "vae.decoder.conv_out.");
    check_lies(TINY_UNET, &latent, 1, "vae.encoder.conv_out.");
}

TEST(hostile_configuration_texts)
{
    static char deep[40001];
    memset(deep, '[', sizeof deep - 1);
    const char *const texts[] = {"", "{", "[]", "7", "{}", "{\"unet\":7}", "{\"unet\":{}}", "{\"unet\":{},\"unet\":{}}", deep,
                                 "{\"unet\":{\"block_out_channels\":\"x\"}}"};
    char msg[640], path[300];
    snprintf(path, sizeof path, "%s", test_tmp("hostile-text.safetensors"));
    for (size_t i = 0; i < SM_COUNT(texts); i++) {
        if (!rewrite(tiny_model(TINY_UNET), path, texts[i], NULL, NULL))
            continue;
        use(path, msg);
        CHECKF(strstr(msg, "configuration") || strstr(msg, "config"), "%.30s: %s", texts[i], msg);
    }
}

TEST(hostile_weights_of_nan_are_no_picture)
{
    static const struct { const char *tensor, *want; } cases[] = {
        {"vae.decoder.conv_in.bias", "the autoencoder gave NaN"}, {"unet.conv_in.bias", "the model gave NaN"},
        {"text_encoder.text_model.final_layer_norm.bias", "the model gave NaN"},
    };
    char msg[640], path[300];
    sm_st *f = sm_st_open(tiny_model(TINY_UNET), NULL, NULL);
    snprintf(path, sizeof path, "%s", test_tmp("hostile-nan.safetensors"));
    for (size_t i = 0; f && i < SM_COUNT(cases); i++)
        if (rewrite_with(tiny_model(TINY_UNET), path, sm_st_metadata(f, "sumi.model"), NULL, NULL, cases[i].tensor)) {
            use(path, msg);
            CHECKF(strstr(msg, cases[i].want) != NULL, "%s: '%s'", cases[i].tensor, msg);
        }
    sm_st_close(f);
}

TEST(hostile_merges)
{
    static const char *const merges[] = {"", "x", "a b c d\n", "\n\n\n", "#version: 0.2\nzz qq\n"};
    char msg[640], path[300];
    sm_st *f = sm_st_open(tiny_model(TINY_UNET), NULL, NULL);
    snprintf(path, sizeof path, "%s", test_tmp("hostile-merges.safetensors"));
    for (size_t i = 0; f && i < SM_COUNT(merges); i++)
        if (rewrite(tiny_model(TINY_UNET), path, sm_st_metadata(f, "sumi.model"), merges[i], NULL))
            use(path, msg); /* no merges at all are a tokenizer of single bytes: it may draw */
    sm_st_close(f);
}

/* A name goes into the file's JSON, into metadata that is read by lines, and is part of a path when it is trained. */
TEST(hostile_names)
{
    sm_buf config = {0};
    sumi_context *ctx;
    sumi_model *m = NULL;
    char path[300];
    sm_st *f = sm_st_open(tiny_model(TINY_UNET), NULL, NULL);
    snprintf(path, sizeof path, "%s", test_tmp("hostile-name.safetensors"));
    sm_buf_fmt(&config, "{\"name\":\"two\\nlines \\u001b[2J \\\"quoted\\\"\"%s",
               f ? strchr(sm_st_metadata(f, "sumi.model"), ',') : "}");
    CHECK(!sumi_context_new(NULL, &ctx));
    if (rewrite(tiny_model(TINY_UNET), path, config.data, NULL, NULL)) {
        CHECKF(!sumi_model_load(ctx, path, &m), "%s", sumi_error(ctx));
        CHECKF(m && strstr(sumi_model_summary(m), "two lines  [2J \"quoted\"") == sumi_model_summary(m), "%s",
               m ? sumi_model_summary(m) : "");
    }
    sumi_model_free(m);
    sumi_context_free(ctx);
    sm_st_close(f);
    sm_buf_free(&config);
}
