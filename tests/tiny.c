/* A whole training run small enough for tests (see tiny.h). */
#include "tiny.h"

#include <stdio.h>

#include "base/file.h"
#include "synth.h"
#include "test.h"

/* A whole tiny run: 16-pixel pictures, both stages of a few steps. %s: output, pictures, index, denoiser, more keys of the
 * autoencoder section, more sections. */
static const char config_text[] =
    "{\"name\":\"tiny\",\"output\":\"%s\",\"seed\":7,\"vocab_size\":600,"
    "\"data\":{\"pictures\":\"%s\",\"index\":\"%s\",\"size\":16,\"variants\":2},"
    "\"text_encoder\":{\"hidden_size\":16,\"intermediate_size\":32,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
    "\"max_position_embeddings\":16,\"projection_dim\":12},"
    "\"vae\":{\"latent_channels\":4,\"block_out_channels\":[8,8],\"layers_per_block\":1,\"norm_num_groups\":4,"
    "\"down_block_types\":[\"DownEncoderBlock2D\",\"DownEncoderBlock2D\"],"
    "\"up_block_types\":[\"UpDecoderBlock2D\",\"UpDecoderBlock2D\"],"
    "\"mid_block_add_attention\":false,\"use_quant_conv\":false,\"use_post_quant_conv\":false},"
    "\"denoiser\":{%s},"
    "\"autoencoder\":{\"steps\":8,\"batch\":2,\"crop\":8,\"save_every\":3,\"log_every\":4,\"warmup\":2%s},"
    "\"flow\":{\"steps\":10,\"batch\":4,\"save_every\":3,\"log_every\":5,\"warmup\":2}%s}";

#define UNET "\"in_channels\":4,\"out_channels\":4,\"block_out_channels\":[8,16],\"layers_per_block\":1,\"norm_num_groups\":4," \
    "\"down_block_types\":[\"DownBlock2D\",\"CrossAttnDownBlock2D\"]," \
    "\"up_block_types\":[\"CrossAttnUpBlock2D\",\"UpBlock2D\"],\"attention_head_dim\":2,\"cross_attention_dim\":16"
static const char *const denoisers[TINY_KINDS] = {
    [TINY_UNET] = UNET,
    [TINY_UNET_XL] = UNET ",\"addition_embed_type\":\"text_time\",\"addition_time_embed_dim\":4,"
                          "\"projection_class_embeddings_input_dim\":36",
    [TINY_MMDIT] =
        "\"_class_name\":\"SD3Transformer2DModel\",\"sample_size\":8,\"patch_size\":2,\"in_channels\":4,\"out_channels\":4,"
                   "\"num_layers\":2,\"attention_head_dim\":8,\"num_attention_heads\":2,\"joint_attention_dim\":16,"
                   "\"caption_projection_dim\":16,\"pooled_projection_dim\":12,\"pos_embed_max_size\":8",
};
static const char *const sections[TINY_KINDS] = {
    [TINY_UNET] = "",
    [TINY_UNET_XL] = "",
    [TINY_MMDIT] = ",\"validate\":{\"every\":10,\"steps\":1,\"prompts\":[\"red disc\"]}",
};

tiny tiny_setup(const char *name, tiny_kind kind, const char *extra)
{
    tiny s;
    char text[4096];
    sm_err e = {0};
    snprintf(s.dir, sizeof s.dir, "%s", test_tmp(name));
    snprintf(s.config, sizeof s.config, "%s.json", s.dir);
    snprintf(s.pixels, sizeof s.pixels, "%s.safetensors", s.dir);
    snprintf(s.index, sizeof s.index, "%s.jsonl", s.dir);
    CHECK(synth_write(s.pixels, s.index, 12));
    int n = snprintf(text, sizeof text, config_text, s.dir, s.pixels, s.index, denoisers[kind], extra, sections[kind]);
    CHECK(n > 0 && n < (int)sizeof text && !sm_file_write(s.config, text, (size_t)n, &e));
    return s;
}

sumi_status tiny_train(const tiny *s, const char *out, int resume, int64_t max_steps, int threads, char *message)
{
    sumi_context *ctx;
    sumi_context_options co = {.threads = threads};
    sumi_train_options o = {.resume = resume, .output = out, .max_steps = max_steps};
    sumi_status st = sumi_context_new(&co, &ctx);
    if (!st)
        st = sumi_train(ctx, s->config, &o, NULL);
    if (message)
        snprintf(message, 640, "%s", sumi_error(ctx));
    sumi_context_free(ctx);
    return st;
}

const char *tiny_model(tiny_kind kind)
{
    static const char *const names[TINY_KINDS] = {"request-unet", "request-unet-xl", "request-mmdit"};
    static char paths[TINY_KINDS][300];
    if (!paths[kind][0]) {
        tiny s = tiny_setup(names[kind], kind, "");
        char msg[640];
        sumi_status st = tiny_train(&s, NULL, 0, 0, 0, msg);
        CHECKF(!st, "%s", msg);
        snprintf(paths[kind], sizeof paths[0], "%s/tiny.safetensors", s.dir);
    }
    return paths[kind];
}
