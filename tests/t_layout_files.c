/* Layouts: files that hold something else than one whole model, stored types, and files that are wrong. */
#include "layout_file.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "io/gguf.h"

/* ---- other things than one whole model --------------------------------------------------------------------------- */

static const char *const bare[] = {"conv_in.weight", "encoder.conv_in.weight", "embeddings.token_embedding.weight"};

/* Text encoders under bare names: what the caller asks for, else by width. */
TEST(layout_bare_text_encoders)
{
    struct { sm_component only; int64_t width; const char *name; } cases[] = {
        {SM_COMPONENTS, 768, "text_encoder.text_model.embeddings.token_embedding.weight"},
        {SM_COMPONENTS, 1280, "text_encoder_2.text_model.embeddings.token_embedding.weight"},
        {SM_COMPONENT_TEXT_2, 8, "text_encoder_2.text_model.embeddings.token_embedding.weight"},
        {SM_COMPONENT_TEXT, 1280, "text_encoder.text_model.embeddings.token_embedding.weight"},
    };
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        sm_weights *w = NULL;
        sm_layout_report r;
        sm_err e = {0};
        item x = layout_item("embeddings.token_embedding.weight", 2, 2, cases[i].width, 0, 0);
        CHECK(layout_read_items(&x, 1, cases[i].only, &w, &r, &e) == SUMI_OK && sm_weights_find(w, cases[i].name));
        sm_weights_unref(&w);
    }
}

/* Canonical names under components' prefixes stay as they are, also ones that no table knows. */
TEST(layout_diffusers_names_stay)
{
    item x[] = {layout_item("unet.conv_in.weight", 4, 4, 4, 3, 3), layout_item("unet.something_new.weight", 1, 4, 0, 0, 0),
                layout_item("transformer.pos_embed.proj.weight", 4, 4, 4, 2, 2),
                    layout_item("vae.decoder.conv_in.weight", 4, 4, 4, 3, 3),
                layout_item("text_encoder.text_model.embeddings.position_ids", 1, 3, 0, 0, 0)};
    sm_weights *w = NULL;
    sm_layout_report r;
    sm_err e = {0};
    CHECK(layout_read_items(x, SM_COUNT(x), SM_COMPONENTS, &w, &r, &e) == SUMI_OK);
    CHECK(!strcmp(r.layout, "diffusers") && sm_weights_count(w) == 4 && r.ignored == 1 && !r.unknown);
    for (size_t i = 0; i < 4; i++)
        CHECK(sm_weights_find(w, x[i].name) != NULL);
    sm_weights_unref(&w);
}

TEST(layout_mixed)
{
    item x[] = {layout_item("first_stage_model.encoder.norm_out.weight", 1, 4, 0, 0, 0),
                layout_item("unet.conv_norm_out.weight", 1, 4, 0, 0, 0)};
    sm_weights *w = NULL;
    sm_layout_report r;
    sm_err e = {0};
    CHECK(layout_read_items(x, 2, SM_COMPONENTS, &w, &r, &e) == SUMI_OK && !strcmp(r.layout, "mixed"));
    CHECK(sm_weights_find(w, "vae.encoder.conv_norm_out.weight") && sm_weights_find(w, "unet.conv_norm_out.weight"));
    sm_weights_unref(&w);
}

/* Marks, which may be empty tensors, and the latents' statistics of Playground 2.5. */
TEST(layout_marks)
{
    float mean[4] = {-1.5f, 2, 3.25f, 0.5f}, std[4] = {8, 9, 10, 11};
    item x[] = {layout_item("v_pred", 1, 0, 0, 0, 0), layout_item("ztsnr", 0, 0, 0, 0, 0), layout_item("edm_mean", 4, 1, 4, 1, 1),
                layout_item("edm_std", 4, 1, 4, 1, 1)};
    x[2].data = mean;
    x[3].data = std;
    sm_weights *w = NULL;
    sm_layout_report r;
    sm_err e = {0};
    CHECK(layout_read_items(x, 4, SM_COMPONENTS, &w, &r, &e) == SUMI_OK && sm_weights_count(w) == 0 && !r.unknown);
    CHECK(r.v_prediction && r.zero_snr && r.edm_mark && !memcmp(r.latents_mean, mean, sizeof mean) &&
          !memcmp(r.latents_std, std, sizeof std));
    sm_layout_report again; /* the same marks after a way back */
    sm_layout_export *out = NULL;
    size_t n = 0;
    CHECK(sm_layout_add_marks(&r, w, &e) == SUMI_OK && sm_layout_original(w, &out, &n, NULL, &e) == SUMI_OK && n == 4);
    for (size_t i = 0; i < n; i++) {
        x[i] = layout_item(out[i].name, out[i].rank, out[i].dims[0], out[i].dims[1], out[i].dims[2], out[i].dims[3]);
        x[i].data = out[i].part[0]->t.data;
    }
    sm_weights *w2 = NULL;
    CHECK(layout_read_items(x, n, SM_COMPONENTS, &w2, &again, &e) == SUMI_OK && again.v_prediction && again.zero_snr);
    CHECK(again.edm_mark && !memcmp(again.latents_mean, mean, sizeof mean) && !memcmp(again.latents_std, std, sizeof std));
    sm_weights_unref(&w2);
    sm_free(out);
    sm_weights_unref(&w);
    x[2] = layout_item("edm_mean", 2, 2, 3, 0, 0); /* not four numbers */
    CHECK(layout_read_items(x + 2, 1, SM_COMPONENTS, &w, &r, &e) == SUMI_OK && r.edm_mark && r.latents_mean[0] == 0);
    sm_weights_unref(&w);
}

/* CosXL's marks: refused where a picture is wanted (t_detect.c), kept in conversions. */
TEST(layout_marks_of_cosxl)
{
    float most = 120, least = 0.002f;
    item x[] = {layout_item("edm_vpred.sigma_max", 0, 0, 0, 0, 0), layout_item("edm_vpred.sigma_min", 0, 0, 0, 0, 0)};
    x[0].data = &most;
    x[1].data = &least;
    sm_weights *w = NULL;
    sm_layout_report r;
    sm_err e = {0};
    CHECK(layout_read_items(x, 2, SM_COMPONENTS, &w, &r, &e) == SUMI_OK && !r.unknown);
    CHECK(r.edm_v && !r.edm_mark && !r.v_prediction);
    CHECK(r.edm_v_sigma[0] == most && r.edm_v_sigma[1] == least);
    CHECK(sm_layout_add_marks(&r, w, &e) == SUMI_OK && sm_weights_count(w) == 2);
    const sm_weight *m = sm_weights_find(w, "edm_vpred.sigma_max");
    CHECK(m && m->t.rank == 0 && *(const float *)m->t.data == most);
    sm_weights_unref(&w);
}

TEST(layout_things_on_top)
{
    static const struct { const char *name; bool lora, control, embedding; } cases[] = {
        {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", true, false, false},
        {"unet.down_blocks.0.attentions.0.proj_in.lora_A.weight", true, false, false},
        {"text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight", true, false, false},
        {"unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight", true, false, false},
        {"lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a", true, false, false},
        {"control_model.input_hint_block.0.weight", false, true, false},
        {"controlnet_cond_embedding.conv_in.weight", false, true, false},
        {"string_to_param.*", false, false, true},
        {"emb_params", false, false, true},
        {"clip_g", false, false, true},
        {"<cat-toy>", false, false, true},
        {"unet:0:up", true, false, false}, /* the first LoRA files, cloneofsimo's */
    };
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        sm_weights *w = NULL;
        sm_layout_report r;
        sm_err e = {0};
        item x = layout_item(cases[i].name, 1, 4, 0, 0, 0);
        CHECK(layout_read_items(&x, 1, SM_COMPONENTS, &w, &r, &e) == SUMI_OK && sm_weights_count(w) == 0);
        CHECKF(r.lora == cases[i].lora && r.controlnet == cases[i].control && r.embedding == cases[i].embedding, "%s", x.name);
        CHECK(r.unknown == 1 && !strcmp(r.first_unknown, x.name));
        sm_weights_unref(&w);
    }
}

/* A ControlNet has the UNet's names in its first half; it is no UNet. */
TEST(layout_controlnet_is_no_unet)
{
    item x[] = {layout_item("conv_in.weight", 4, 4, 4, 3, 3), layout_item("controlnet_down_blocks.0.weight", 4, 4, 4, 1, 1)};
    sm_weights *w = NULL;
    sm_layout_report r;
    sm_err e = {0};
    CHECK(layout_read_items(x, 2, SM_COMPONENTS, &w, &r, &e) == SUMI_OK && r.controlnet && !r.found[SM_COMPONENT_UNET] &&
          r.unknown == 2);
    sm_weights_unref(&w);
}

/* label_emb is XL's added embedding, but a class embedding in unCLIP models, which have SD 2.x's text encoder. */
TEST(layout_class_embedding)
{
    item x[] = {layout_item("model.diffusion_model.label_emb.0.0.weight", 2, 4, 4, 0, 0),
                layout_item("cond_stage_model.model.ln_final.weight", 1, 4, 0, 0, 0),
                layout_item("model.diffusion_model.label_emb.weight", 2, 4, 4, 0, 0),
                layout_item("model.diffusion_model.input_blocks.1.0.in_layers.0.weight", 1, 4, 0, 0, 0),
                layout_item("model.diffusion_model.input_blocks.1.1.proj_in.weight", 2, 4, 4, 0, 0)};
    sm_weights *w = NULL;
    sm_layout_report r;
    sm_err e = {0};
    CHECK(layout_read_items(x, 1, SM_COMPONENTS, &w, &r, &e) == SUMI_OK &&
          sm_weights_find(w, "unet.add_embedding.linear_1.weight"));
    sm_weights_unref(&w);
    CHECK(layout_read_items(x, 5, SM_COMPONENTS, &w, &r, &e) == SUMI_OK &&
          sm_weights_find(w, "unet.class_embedding.linear_1.weight"));
    CHECK(sm_weights_find(w, "unet.class_embedding.weight") != NULL);
    sm_layout_export *out = NULL;
    size_t n = 0;
    item both = layout_item("unet.add_embedding.linear_1.weight", 2, 4, 4, 0, 0);
    CHECKF(sm_layout_original(w, &out, &n, NULL, &e) == SUMI_OK && n == 5, "%s", e.msg);
    sm_free(out);
    sm_buf more = layout_file(&both, 1);
    CHECK(layout_read(&more, SM_COMPONENTS, &w, &r, &e) == SUMI_OK);
    CHECK(sm_layout_original(w, &out, &n, NULL, &e) != SUMI_OK && !out && strstr(e.msg, "add_embedding.linear_1"));
    sm_weights_unref(&w);
    sm_buf_free(&more);
}

/* Layers per block that differ, which places of samplers tell: 2 and 1 down, 3 and 1 up (derived by hand from the construction
 * loop of openaimodel.py). */
TEST(layout_uneven_blocks)
{
    static const char *const pairs[][2] = {
        {"input_blocks.1.0.in_layers.0.weight", "down_blocks.0.resnets.0.norm1.weight"},
        {"input_blocks.2.0.in_layers.0.weight", "down_blocks.0.resnets.1.norm1.weight"},
        {"input_blocks.3.0.op.weight", "down_blocks.0.downsamplers.0.conv.weight"},
        {"input_blocks.4.0.in_layers.0.weight", "down_blocks.1.resnets.0.norm1.weight"},
        {"input_blocks.4.1.norm.weight", "down_blocks.1.attentions.0.norm.weight"},
        {"output_blocks.0.0.in_layers.0.weight", "up_blocks.0.resnets.0.norm1.weight"},
        {"output_blocks.1.0.in_layers.0.weight", "up_blocks.0.resnets.1.norm1.weight"},
        {"output_blocks.2.0.in_layers.0.weight", "up_blocks.0.resnets.2.norm1.weight"},
        {"output_blocks.2.1.norm.weight", "up_blocks.0.attentions.2.norm.weight"},
        {"output_blocks.2.2.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"},
        {"output_blocks.3.0.in_layers.0.weight", "up_blocks.1.resnets.0.norm1.weight"},
    };
    item x[SM_COUNT(pairs)];
    char name[200];
    for (size_t i = 0; i < SM_COUNT(pairs); i++)
        x[i] = layout_item(pairs[i][0], 1, (int64_t)i + 1, 0, 0, 0);
    sm_weights *w = NULL;
    sm_layout_report r;
    sm_err e = {0};
    sm_layout_export *out = NULL;
    size_t n = 0;
    CHECK(layout_read_items(x, SM_COUNT(pairs), SM_COMPONENTS, &w, &r, &e) == SUMI_OK && !r.unknown);
    CHECK(sm_layout_original(w, &out, &n, NULL, &e) == SUMI_OK && n == SM_COUNT(pairs));
    for (size_t i = 0; i < SM_COUNT(pairs); i++) {
        snprintf(name, sizeof name, "unet.%s", pairs[i][1]);
        const sm_weight *t = sm_weights_find(w, name);
        CHECKF(t && t->t.dims[0] == (int64_t)i + 1, "%s", name);
        snprintf(name, sizeof name, "model.diffusion_model.%s", pairs[i][0]);
        bool found = false;
        for (size_t k = 0; k < n; k++)
            found |= !strcmp(out[k].name, name) && out[k].part[0] == t;
        CHECKF(found, "%s", name);
    }
    sm_free(out);
    sm_weights_unref(&w);
}

/* ---- types ------------------------------------------------------------------------------------------------------- */

/* Values of a tensor of any type. */
static bool has_values(const sm_weights *w, const char *name, sm_dtype type, const float *want, int64_t n)
{
    const sm_weight *x = sm_weights_find(w, name);
    float *got = calloc((size_t)n + 1, sizeof *got);
    if (x && x->t.dtype == type)
        sm_load_values(&x->t, 0, n, got);
    bool same = x && x->t.dtype == type && !memcmp(got, want, (size_t)n * sizeof *got);
    free(got);
    return same;
}

/* F64 becomes f32, FP8 keeps its type and takes the scale beside it; thirds of rows take their share of the scales. */
TEST(layout_types)
{
    static const double wide[2] = {1.5, -0.1};
    static const uint8_t f8[6] = {0x38, 0x40, 0xb8, 0x00, 0x7e, 0x01}; /* e4m3: 1, 2, -1, 0, 448, 2^-9 */
    static const float rows[3] = {2, 0.5f, 0.25f}, half[1] = {0.5f}, f32[2] = {1.5f, -0.1f};
    item x[] = {layout_item("unet.conv_in.bias", 1, 2, 0, 0, 0), layout_item("unet.conv_in.weight", 2, 3, 2, 0, 0),
                layout_item("unet.conv_in.scale_weight", 1, 3, 0, 0, 0),
                layout_item("unet.conv_out.weight", 1, 6, 0, 0, 0),
                    layout_item("transformer.resblocks.0.attn.in_proj_weight", 2, 3, 2, 0, 0),
                layout_item("transformer.resblocks.1.attn.out_proj.weight", 2, 3, 2, 0, 0),
                    layout_item("transformer.resblocks.1.attn.out_proj.weight_scale", 0, 0, 0, 0, 0),
                layout_item("text_projection", 2, 3, 2, 0, 0)};
    x[0].type = "F64", x[0].data = wide;
    x[2].data = rows;
    x[6].data = half;
    x[7].type = "F16", x[7].data = "aAbBcCdDeEfF";
    for (int i = 1; i < 6; i += 2 - (i > 2))
        x[i].type = "F8_E4M3", x[i].data = f8;
    sm_weights *w = NULL;
    sm_layout_report r;
    sm_err e = {0};
    CHECKF(layout_read_items(x, SM_COUNT(x), SM_COMPONENTS, &w, &r, &e) == SUMI_OK, "%s", e.msg);
    CHECK(has_values(w, "unet.conv_in.bias", SM_F32, f32, 2) && r.ignored == 2);
    CHECK(has_values(w, "unet.conv_in.weight", SM_F8_E4M3, (float[]){2, 4, -0.5f, 0, 112, 0.00048828125f}, 6));
    CHECK(has_values(w, "unet.conv_out.weight", SM_F8_E4M3, (float[]){1, 2, -1, 0, 448, 0.001953125f}, 6));
#define LAYERS "text_encoder.text_model.encoder.layers."
    CHECK(has_values(w, LAYERS "0.self_attn.q_proj.weight", SM_F8_E4M3, (float[]){1, 2}, 2));
    CHECK(has_values(w, LAYERS "0.self_attn.v_proj.weight", SM_F8_E4M3, (float[]){448, 0.001953125f}, 2));
    CHECK(has_values(w, LAYERS "1.self_attn.out_proj.weight", SM_F8_E4M3, (float[]){0.5f, 1, -0.5f, 0, 224, 0.0009765625f}, 6));
    const sm_weight *p = sm_weights_find(w, "text_encoder.text_projection.weight");
    CHECK(p && p->t.dtype == SM_F16 && p->t.dims[0] == 2 && p->t.dims[1] == 3 && !memcmp(p->t.data, "aAcCeEbBdDfF", 12));
    sm_weights_unref(&w);
    item rowwise[] = {x[4], layout_item("transformer.resblocks.0.attn.in_proj_scale_weight", 1, 3, 0, 0, 0)};
    rowwise[1].data = rows;
    CHECK(layout_read_items(rowwise, 2, SM_COMPONENTS, &w, &r, &e) == SUMI_OK && r.ignored == 1);
    CHECK(has_values(w, LAYERS "0.self_attn.q_proj.weight", SM_F8_E4M3, (float[]){2, 4}, 2));
    CHECK(has_values(w, LAYERS "0.self_attn.k_proj.weight", SM_F8_E4M3, (float[]){-0.5f, 0}, 2));
    CHECK(has_values(w, LAYERS "0.self_attn.v_proj.weight", SM_F8_E4M3, (float[]){112, 0.00048828125f}, 2));
    sm_weights_unref(&w);
    item bad[] = {x[1], layout_item("unet.conv_in.scale_weight", 1, 2, 0, 0, 0)};
    CHECK(layout_read_items(bad, 2, SM_COMPONENTS, &w, &r, &e) == SUMI_E_FORMAT && strstr(e.msg, "scale_weight"));
    sm_weights_unref(&w);
}

/* Quantised weights of a GGUF file: thirds are views of whole blocks, a transposed one is f32. */
TEST(layout_quantised)
{
    enum { C = 32, P = 64 };
    static float in[3 * C * C], proj[C * P], got[C * P];
    test_fill(in, 3 * C * C, 1, -1, 1);
    test_fill(proj, C * P, 2, -1, 1);
    sm_gguf_item x[] = {{.name = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight", .rank = 2,
                         .dims = {3 * C, C}, .data = in},
                        {.name = "conditioner.embedders.1.model.text_projection", .rank = 2, .dims = {C, P}, .data = proj}};
    for (int i = 0; i < 2; i++) {
        x[i].store = SM_F32;
        x[i].as = SM_Q8_0;
    }
    const char *path = test_tmp("layout.gguf");
    sm_err e = {0};
    sm_layout_report r;
    CHECKF(sm_gguf_write(path, 2, x, 0, NULL, NULL, &e) == SUMI_OK, "%s", e.msg);
    sm_weights *w = sm_weights_new(NULL, NULL);
    sm_tensors *f = sm_tensors_open(path, NULL, &e);
    const sm_st_entry *whole = f ? sm_tensors_find(f, x[0].name) : NULL, *p = f ? sm_tensors_find(f, x[1].name) : NULL;
    CHECK(whole && p && sm_layout_into(f, w, SM_COMPONENTS, &r, NULL, &e) == SUMI_OK && sm_weights_count(w) == 4);
    if (whole && p) {
        sm_load_blocks(SM_Q8_0, whole->data, 3 * C * C, in);
        CHECK(has_values(w, "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.weight", SM_Q8_0, in, C * C));
        CHECK(has_values(w, "text_encoder_2.text_model.encoder.layers.0.self_attn.v_proj.weight", SM_Q8_0, in + 2 * C * C,
                         C * C));
        sm_load_blocks(SM_Q8_0, p->data, C * P, proj);
        for (int i = 0; i < C; i++)
            for (int j = 0; j < P; j++)
                got[j * C + i] = proj[i * P + j];
        CHECK(has_values(w, "text_encoder_2.text_projection.weight", SM_F32, got, C * P));
    }
    sm_weights_unref(&w);
}

/* ---- wrong files ------------------------------------------------------------------------------------------------- */

static void refused(const item *x, size_t n, sumi_status want, const char *a, const char *b)
{
    sm_weights *w = NULL;
    sm_layout_report r;
    sm_err e = {0};
    sumi_status st = layout_read_items(x, n, SM_COMPONENTS, &w, &r, &e);
    CHECKF(st == want && e.code == want, "%s: status %d, %s", x[0].name, (int)st, e.msg);
    CHECKF(strstr(e.msg, a) && strstr(e.msg, b) && !strchr(e.msg, '\n'), "%s", e.msg);
    sm_weights_unref(&w);
}

TEST(layout_wrong_shapes)
{
    item x = layout_item("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight", 2, 13, 4, 0, 0);
    refused(&x, 1, SUMI_E_FORMAT, x.name, "13");
    x = layout_item("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias", 0, 0, 0, 0, 0);
    refused(&x, 1, SUMI_E_FORMAT, x.name, "q, k and v");
    x = layout_item("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight", 3, 3, 3, 3, 0);
    refused(&x, 1, SUMI_E_FORMAT, x.name, "q, k and v");
    x = layout_item("conditioner.embedders.1.model.text_projection", 1, 4, 0, 0, 0);
    refused(&x, 1, SUMI_E_FORMAT, x.name, "matrix");
    x = layout_item("unet.conv_in.weight", 2, 4, 0, 0, 0);
    refused(&x, 1, SUMI_E_SUPPORT, x.name, "empty");
    x = layout_item("unet.conv_in.weight", 1, 4, 0, 0, 0);
    x.type = "U8", x.data = "abcd";
    refused(&x, 1, SUMI_E_SUPPORT, x.name, "U8");
}

TEST(layout_duplicates)
{
    item x[] = {layout_item("model.diffusion_model.input_blocks.0.0.weight", 4, 4, 4, 3, 3),
                layout_item("unet.conv_in.weight", 4, 4, 4, 3, 3)};
    refused(x, 2, SUMI_E_FORMAT, x[0].name, x[1].name);
    item y[] = {layout_item("cond_stage_model.model.transformer.resblocks.3.attn.in_proj_bias", 1, 6, 0, 0, 0),
                layout_item("text_encoder.text_model.encoder.layers.3.self_attn.v_proj.bias", 1, 2, 0, 0, 0)};
    refused(y, 2, SUMI_E_FORMAT, y[0].name, y[1].name);
    sm_weights *w = NULL;
    sm_layout_report r;
    sm_err e = {0};
    CHECK(layout_read_items(x, 1, SM_COMPONENTS, &w, &r, &e) == SUMI_OK);
    sm_buf second = layout_file(x + 1, 1);
    CHECK(layout_read(&second, SM_COMPONENTS, &w, &r, &e) == SUMI_E_FORMAT && strstr(e.msg, "loaded already"));
    sm_weights_unref(&w);
    sm_buf_free(&second);
}

TEST(layout_odd_names)
{
    static const char *const names[] = {
        "model.diffusion_model.input_blocks.99999999999999999999.0.in_layers.0.weight",
            "model.diffusion_model.input_blocks.9999.0.op.weight",
        "model.diffusion_model.input_blocks.01.0.in_layers.0.weight", "model.diffusion_model.input_blocks.-1.0.op.weight",
        "model.diffusion_model.input_blocks..0.op.weight", "model.diffusion_model.output_blocks.300.2.conv.weight",
        "model.diffusion_model.", "first_stage_model.decoder.up.8.block.0.norm1.weight",
            "first_stage_model.decoder.up.9999.block.0.norm1.weight",
        "cond_stage_model.model.transformer.resblocks.12345.ln_1.weight", "conditioner.embedders.2.model.ln_final.weight",
            "down_blocks",
        "input_blocks.0.0.", "", "unet.", "unet", "transformer.resblocks."};
    for (size_t i = 0; i < SM_COUNT(names); i++) {
        if (!*names[i])
            continue; /* safetensors has no such names */
        item x = layout_item(names[i], 1, 3, 0, 0, 0);
        sm_weights *w = NULL;
        sm_layout_report r;
        sm_err e = {0};
        CHECK(layout_read_items(&x, 1, SM_COMPONENTS, &w, &r, &e) == SUMI_OK);
        CHECKF(r.unknown == 1 && sm_weights_count(w) == 0, "%s", names[i]);
        sm_weights_unref(&w);
    }
    for (size_t i = 0; i < SM_COUNT(bare); i++) { /* and these are known, alone */
        item x = layout_item(bare[i], 2, 3, 2, 0, 0);
        sm_weights *w = NULL;
        sm_layout_report r;
        sm_err e = {0};
        CHECK(layout_read_items(&x, 1, SM_COMPONENTS, &w, &r, &e) == SUMI_OK && sm_weights_count(w) == 1);
        sm_weights_unref(&w);
    }
}

static void export_refused(const item *x, size_t n, sumi_status want, const char *what)
{
    sm_weights *w = NULL;
    sm_layout_report r;
    sm_err e = {0};
    sm_layout_export *out = NULL;
    size_t k;
    CHECK(layout_read_items(x, n, SM_COMPONENTS, &w, &r, &e) == SUMI_OK);
    CHECKF(sm_layout_original(w, &out, &k, NULL, &e) == want && strstr(e.msg, what) && !out && !k, "%s: %s", what, e.msg);
    sm_weights_unref(&w);
}

TEST(layout_export_refuses)
{
#define ATTN "text_encoder_2.text_model.encoder.layers.0.self_attn."
    item x[] = {layout_item(ATTN "q_proj.weight", 2, 4, 4, 0, 0), layout_item(ATTN "k_proj.weight", 2, 4, 4, 0, 0),
                layout_item(ATTN "v_proj.weight", 2, 4, 5, 0, 0)};
    export_refused(x, 3, SUMI_E_MODEL, "unlike");
    export_refused(x, 2, SUMI_E_MODEL, "lacks a part");
    export_refused(x + 1, 1, SUMI_E_MODEL, "lacks a part");
    x[0] = layout_item("transformer.pos_embed.proj.weight", 4, 4, 4, 2, 2);
    export_refused(x, 1, SUMI_E_SUPPORT, "transformer.pos_embed.proj.weight");
    x[0] = layout_item("unet.new_thing.weight", 1, 4, 0, 0, 0);
    export_refused(x, 1, SUMI_E_SUPPORT, "unet.new_thing.weight");
    x[0] = layout_item("unet.up_blocks.3.resnets.2.norm1.weight", 1, 4, 0, 0,
                       0); /* which place is told by the blocks before it */
    export_refused(x, 1, SUMI_E_SUPPORT, "told apart");
    x[0] = layout_item("text_encoder_2.text_projection.weight", 1, 4, 0, 0, 0);
    export_refused(x, 1, SUMI_E_MODEL, "dimensions");
}
