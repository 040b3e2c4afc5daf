/* Writing models of published shapes (see bigmodel.h): the components are recorded without memory for their tensors, then every
 * value is computed and written in turn. */
#include "bigmodel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/rng.h"
#include "cpu/cpu.h"

static const big_model models[] = {{
    .name = "sd15", .parts = 3,
    .scheduler =
        "{\"_class_name\":\"PNDMScheduler\",\"beta_start\":0.00085,\"beta_end\":0.012,\"beta_schedule\":\"scaled_linear\","
                 "\"num_train_timesteps\":1000,\"prediction_type\":\"epsilon\",\"set_alpha_to_one\":false,\"skip_prk_steps\":true,\"steps_offset\":1}",
    .part = {
        {"text_encoder", SM_MODEL_CLIP,
         "{\"architectures\":[\"CLIPTextModel\"],\"vocab_size\":49408,\"hidden_size\":768,\"intermediate_size\":3072,\"num_hidden_layers\":12,"
         "\"num_attention_heads\":12,\"max_position_embeddings\":77,\"hidden_act\":\"quick_gelu\",\"layer_norm_eps\":1e-05,"
         "\"projection_dim\":768,\"bos_token_id\":0,\"eos_token_id\":2,\"pad_token_id\":1,\"model_type\":\"clip_text_model\"}",
         "CLIPTextModel", "transformers"},
        {"unet", SM_MODEL_UNET,
         "{\"_class_name\":\"UNet2DConditionModel\",\"act_fn\":\"silu\",\"attention_head_dim\":8,\"block_out_channels\":[320,640,1280,1280],"
         "\"center_input_sample\":false,\"cross_attention_dim\":768,\"down_block_types\":[\"CrossAttnDownBlock2D\",\"CrossAttnDownBlock2D\","
         "\"CrossAttnDownBlock2D\",\"DownBlock2D\"],\"downsample_padding\":1,\"flip_sin_to_cos\":true,\"freq_shift\":0,\"in_channels\":4,"
         "\"layers_per_block\":2,\"mid_block_scale_factor\":1,\"norm_eps\":1e-05,\"norm_num_groups\":32,\"out_channels\":4,\"sample_size\":64,"
         "\"up_block_types\":[\"UpBlock2D\",\"CrossAttnUpBlock2D\",\"CrossAttnUpBlock2D\",\"CrossAttnUpBlock2D\"]}",
         "UNet2DConditionModel", "diffusers"},
        {"vae", SM_MODEL_VAE,
         "{\"_class_name\":\"AutoencoderKL\",\"act_fn\":\"silu\",\"block_out_channels\":[128,256,512,512],\"down_block_types\":["
         "\"DownEncoderBlock2D\",\"DownEncoderBlock2D\",\"DownEncoderBlock2D\",\"DownEncoderBlock2D\"],\"in_channels\":3,\"latent_channels\":4,"
         "\"layers_per_block\":2,\"norm_num_groups\":32,\"out_channels\":3,\"sample_size\":512,\"scaling_factor\":0.18215,\"up_block_types\":["
         "\"UpDecoderBlock2D\",\"UpDecoderBlock2D\",\"UpDecoderBlock2D\",\"UpDecoderBlock2D\"]}",
         "AutoencoderKL", "diffusers"},
    }}, {
    .name = "sdxl", .parts = 1, /* the UNet alone */
    .scheduler =
        "{\"_class_name\":\"EulerDiscreteScheduler\",\"beta_start\":0.00085,\"beta_end\":0.012,\"beta_schedule\":\"scaled_linear\","
        "\"num_train_timesteps\":1000,\"prediction_type\":\"epsilon\",\"steps_offset\":1,\"timestep_spacing\":\"leading\"}",
    .part = {
        {"unet", SM_MODEL_UNET,
         "{\"_class_name\":\"UNet2DConditionModel\",\"act_fn\":\"silu\",\"addition_embed_type\":\"text_time\",\"addition_time_embed_dim\":256,"
         "\"attention_head_dim\":[5,10,20],\"block_out_channels\":[320,640,1280],\"center_input_sample\":false,\"cross_attention_dim\":2048,"
         "\"down_block_types\":[\"DownBlock2D\",\"CrossAttnDownBlock2D\",\"CrossAttnDownBlock2D\"],\"downsample_padding\":1,"
         "\"flip_sin_to_cos\":true,\"freq_shift\":0,\"in_channels\":4,\"layers_per_block\":2,\"mid_block_scale_factor\":1,\"norm_eps\":1e-05,"
         "\"norm_num_groups\":32,\"out_channels\":4,\"projection_class_embeddings_input_dim\":2816,\"sample_size\":128,"
         "\"transformer_layers_per_block\":[1,2,10],\"up_block_types\":[\"CrossAttnUpBlock2D\",\"CrossAttnUpBlock2D\",\"UpBlock2D\"],"
         "\"use_linear_projection\":true}",
         "UNet2DConditionModel", "diffusers"},
    }}};

const big_model *big_model_find(const char *name)
{
    for (size_t i = 0; i < SM_COUNT(models); i++)
        if (!strcmp(models[i].name, name))
            return &models[i];
    return NULL;
}

static uint64_t splitmix64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

float big_value(uint64_t hash, int64_t i, int rank, int64_t fan, bool weight)
{
    float u = (float)(int32_t)(splitmix64(hash + (uint64_t)i) >> 40) * 0x1p-23f - 1;
    return rank > 1 ? u * sqrtf(3.0f / (float)fan) : weight ? 1 + 0.1f * u : 0.02f * u;
}

static bool complain(const char *what, const char *more)
{
    fprintf(stderr, "bigmodel: %s: %s\n", what, more);
    return false;
}

/* Records a component without values; the table gets its tensors. */
static bool learn_shapes(const big_part *part, sm_weights *w)
{
    static const nn_init init = {.shapes_only = true};
    union { sm_clip_config clip; sm_unet_config unet; sm_vae_config vae; } c;
    sm_err e = {0};
    sm_graph *g = sm_graph_new(NULL, &e);
    if (!g || sm_config_read(part->kind, part->config, strlen(part->config), &c, &e))
        return complain(part->name, e.msg);
    nn_scope s = nn_root(g, w, &init);
    if (part->kind == SM_MODEL_CLIP) {
        sm_clip_text(&s, &c.clip, sm_input(g, "ids", SM_I32, 2, (int64_t[]){1, c.clip.max_position_embeddings}), NULL);
    } else if (part->kind == SM_MODEL_UNET) {
        sm_node *x = sm_input(g, "x", SM_F32, 4, (int64_t[]){1, 64, 64, c.unet.in_channels}),
                *t = sm_input(g, "t", SM_F32, 1, (int64_t[]){1});
        int pooled = c.unet.projection_class_embeddings_input_dim - 6 * c.unet.addition_time_embed_dim; /* with text_time */
        sm_unet_cond cond = {0};
        if (c.unet.addition_time_embed_dim && pooled > 0) {
            c.unet.time_ids = 6;
            cond.text_embeds = sm_input(g, "text_embeds", SM_F32, 2, (int64_t[]){1, pooled});
            cond.time_ids = sm_input(g, "time_ids", SM_F32, 2, (int64_t[]){1, 6});
        }
        sm_unet(&s, &c.unet, x, t, sm_input(g, "ctx", SM_F32, 3, (int64_t[]){1, 77, c.unet.cross_attention_dim}), &cond);
    } else {
        sm_vae_encode(&s, &c.vae, sm_input(g, "image", SM_F32, 4, (int64_t[]){1, 64, 64, c.vae.in_channels}));
        sm_vae_decode(&s, &c.vae, sm_input(g, "z", SM_F32, 4, (int64_t[]){1, 8, 8, c.vae.latent_channels}));
    }
    bool ok = !g->err.code || complain(part->name, g->err.msg);
    sm_graph_free(g);
    return ok;
}

static int64_t count(const sm_weight *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->t.rank; i++)
        n *= t->t.dims[i];
    return n;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(sm_weight *const *)a)->name, (*(sm_weight *const *)b)->name);
}

static void write_header(FILE *f, sm_weight *const *t, size_t n)
{
    sm_buf b = {0};
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        sm_buf_fmt(&b, "%s\"%s\":{\"dtype\":\"F16\",\"shape\":[", i ? "," : "{", t[i]->name);
        for (int d = 0; d < t[i]->t.rank; d++)
            sm_buf_fmt(&b, "%s%lld", d ? "," : "", (long long)t[i]->t.dims[d]);
        size_t end = at + 2 * (size_t)count(t[i]);
        sm_buf_fmt(&b, "],\"data_offsets\":[%zu,%zu]}", at, end);
        at = end;
    }
    sm_buf_fmt(&b, "}");
    while (b.len % 8)
        sm_buf_add(&b, " ", 1);
    uint64_t len = b.len;
    fwrite(&len, 8, 1, f);
    fwrite(b.data, 1, b.len, f);
    sm_buf_free(&b);
}

static void write_values(FILE *f, const sm_weight *t)
{
    uint16_t part[4096];
    int64_t n = count(t), fan = t->t.rank > 1 ? n / t->t.dims[0] : 1;
    uint64_t hash = sm_hash64(t->name, strlen(t->name));
    size_t len = strlen(t->name);
    bool weight = len > 7 && !strcmp(t->name + len - 7, ".weight");
    for (int64_t i = 0; i < n; i += 4096) {
        int64_t k = SM_MIN(4096, n - i);
        for (int64_t j = 0; j < k; j++)
            part[j] = sm_f32_f16(big_value(hash, i + j, t->t.rank, fan, weight));
        fwrite(part, 2, (size_t)k, f);
    }
}

static bool write_text(const char *dir, const char *sub, const char *file, const char *text)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, sub);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s/%s", dir, sub, file);
    FILE *f = fopen(path, "w");
    if (!f)
        return complain(path, "cannot be written");
    fputs(text, f);
    return fclose(f) == 0 || complain(path, "cannot be written");
}

static bool write_part(const big_part *part, const char *dir)
{
    char path[600];
    sm_err e = {0};
    sm_weights *w = sm_weights_new(NULL, &e);
    if (!w || !learn_shapes(part, w) || !write_text(dir, part->name, "config.json", part->config))
        return false;
    size_t n = sm_weights_count(w);
    sm_weight **t = malloc(n * sizeof *t);
    for (size_t i = 0; t && i < n; i++)
        t[i] = sm_weights_at(w, i);
    snprintf(path, sizeof path, "%s/%s/%s", dir, part->name,
             part->kind == SM_MODEL_CLIP ? "model.safetensors" : "diffusion_pytorch_model.safetensors");
    FILE *f = t ? fopen(path, "wb") : NULL;
    bool ok = f != NULL;
    if (ok) {
        qsort(t, n, sizeof *t, by_name);
        write_header(f, t, n);
        for (size_t i = 0; i < n; i++)
            write_values(f, t[i]);
        ok = !ferror(f);
        ok &= fclose(f) == 0;
    }
    free(t);
    sm_weights_unref(&w);
    return ok || complain(path, "cannot be written");
}

bool big_model_write(const big_model *m, const char *dir)
{
    sm_buf index = {0};
    mkdir(dir, 0777);
    sm_buf_fmt(&index, "{\"_class_name\":\"StableDiffusionPipeline\",\"scheduler\":[\"diffusers\",\"PNDMScheduler\"]");
    for (int i = 0; i < m->parts; i++)
        sm_buf_fmt(&index, ",\"%s\":[\"%s\",\"%s\"]", m->part[i].name, m->part[i].library, m->part[i].class_name);
    sm_buf_fmt(&index, "}");
    bool ok = write_text(dir, ".", "model_index.json", index.data) &&
              write_text(dir, "scheduler", "scheduler_config.json", m->scheduler);
    for (int i = 0; i < m->parts && ok; i++)
        ok = write_part(&m->part[i], dir);
    sm_buf_free(&index);
    return ok;
}
