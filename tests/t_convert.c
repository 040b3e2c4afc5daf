/* sumi_convert: bits that stay, types that are given and kept, scales, layouts, a UNet that gives the same bits from its
 * quantised file as from that file in f32, memory, and what is refused. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "cpu/cpu.h"
#include "io/gguf.h"
#include "io/tensors.h"
#include "model/layout_impl.h"
#include "model/model.h"
#include "pipeline/context.h"
#include "process.h"
#include "test.h"

static char folder[300];

/* Paths below a folder of this run's; four live at a time. */
static const char *at(const char *name)
{
    static char path[4][400];
    static int k;
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "%s", test_tmp("convert"));
        mkdir(folder, 0700);
    }
    char *p = path[k++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

/* Converts with o; the summary or the message goes to text, which has room for 2000 bytes and may be NULL. */
static sumi_status convert(const char *in, const char *out, sumi_convert_options o, char *text)
{
    sumi_context *ctx;
    char *summary = NULL;
    sumi_status st = sumi_context_new(&(sumi_context_options){.threads = 2}, &ctx);
    st = st ? st : sumi_convert(ctx, in, out, &o, NULL, &summary);
    if (text)
        snprintf(text, 2000, "%s", st ? sumi_error(ctx) : summary);
    sumi_text_free(summary);
    sumi_context_free(ctx);
    return st;
}

static void converts(const char *in, const char *out, sumi_convert_options o)
{
    char text[2000];
    sumi_status st = convert(in, out, o, text);
    CHECKF(!st, "%s to %s: %s", in, out, text);
}

static void refuses(const char *in, const char *out, sumi_convert_options o, sumi_status want, const char *why)
{
    char text[2000];
    sumi_status st = convert(in, out, o, text);
    CHECKF(st == want && strstr(text, why) && !strchr(text, '\n'), "status %d, '%s', expected %d, '%s'", st, text, want, why);
}

static sm_tensors *open_file(const char *path)
{
    sm_err e = {0};
    sm_tensors *f = sm_tensors_open(path, NULL, &e);
    CHECKF(f != NULL, "%s", e.msg);
    return f;
}

/* Whether both files have the same tensors: names, types, shapes, bits. */
static bool same_tensors(const char *a, const char *b)
{
    sm_tensors *x = open_file(a), *y = open_file(b);
    bool same = x && y && sm_tensors_count(x) == sm_tensors_count(y);
    for (size_t i = 0; same && i < sm_tensors_count(x); i++) {
        const sm_st_entry *p = sm_tensors_at(x, i), *q = sm_tensors_at(y, i);
        same = !strcmp(p->name, q->name) && !strcmp(p->dtype, q->dtype) && p->rank == q->rank && p->bytes == q->bytes &&
               !memcmp(p->dims, q->dims, (size_t)p->rank * sizeof *p->dims) && !memcmp(p->data, q->data, p->bytes);
        if (!same)
            printf("  %s %s %zu bytes and %s %s %zu\n", p->name, p->dtype, p->bytes, q->name, q->dtype, q->bytes);
    }
    sm_tensors_close(x);
    sm_tensors_close(y);
    return same;
}

/* dtype as the file says, "" where there is none. */
static const char *type_in(const char *path, const char *name)
{
    static char type[4][16];
    static int k;
    sm_tensors *f = open_file(path);
    const sm_st_entry *x = f ? sm_tensors_find(f, name) : NULL;
    char *t = type[k++ % 4];
    snprintf(t, sizeof type[0], "%s", x ? x->dtype : "");
    sm_tensors_close(f);
    return t;
}

/* ---- a small file of everything ---------------------------------------------------------------------------------- */

#define UNET "model.diffusion_model."
#define XL_TEXT "conditioner.embedders.1.model."

static const char *source(void)
{
    const char *path = at("source.safetensors");
    static float x[32 * 512], conv[16 * 32 * 9], norm[512];
    static uint16_t h[64], b[64];
    static const int64_t ids[4] = {0, 1, 2, 3};
    static const double alphas[3] = {0.5, 0.25, 1e-9};
    sm_err e = {0};
    test_fill(x, 32 * 512, 1, -1, 1);
    test_fill(conv, 16 * 32 * 9, 2, -1, 1);
    test_fill(norm, 512, 3, -1, 1);
    for (int i = 0; i < 64; i++) {
        h[i] = (uint16_t)(i * 491);
        b[i] = (uint16_t)(0x3c00 + i * 13 + i % 2 * 0x8000);
    }
    sm_tensor views[] = {{.data = x, .rank = 2, .dims = {32, 512}}, {.data = conv, .rank = 4, .dims = {16, 32, 3, 3}},
                         {.data = norm, .rank = 1, .dims = {512}}, {.data = h, .dtype = SM_F16, .rank = 2, .dims = {2, 32}},
                         {.data = b, .dtype = SM_BF16, .rank = 3, .dims = {2, 4, 8}},
                             {.data = x, .dtype = SM_I32, .rank = 1, .dims = {3}},
                         {.data = norm, .rank = 0}, {.data = x, .rank = 2, .dims = {32, 500}}};
    const char *const names[] = {UNET "output_blocks.1.1.to_q.weight", UNET "output_blocks.2.0.in_layers.2.weight",
                                 UNET "a.norm.weight",
                                 "half", "brain", "int", "number", UNET "middle_block.1.odd.weight"};
    sm_out_tensor t[14];
    for (size_t i = 0; i < SM_COUNT(names); i++)
        t[i] = sm_out_of(names[i], &views[i], views[i].dtype);
    t[8] = (sm_out_tensor){.name = "position_ids", .rank = 2, .dims = {1, 4}, .raw = "I64", .raw_data = ids, .raw_bytes = 32};
    t[9] = (sm_out_tensor){.name = "alphas", .rank = 1, .dims = {3}, .raw = "F64", .raw_data = alphas, .raw_bytes = 24};
    t[10] = sm_out_of(UNET "time_embed.0.weight", &views[0], SM_F32);
    t[11] = sm_out_of(UNET "output_blocks.2.0.in_layers.0.weight", &views[2], SM_F32);
    t[12] = sm_out_of(XL_TEXT "transformer.resblocks.0.mlp.c_fc.weight", &views[0], SM_F32);
    t[13] = sm_out_of(XL_TEXT "token_embedding.weight", &views[0], SM_F32);
    const sm_st_meta meta[] = {{"format", "pt"}, {"title", "süß \"x\"\n"}};
    CHECKF(!sm_st_write_out(path, &(sm_out){.n = 14, .t = t}, 2, meta, NULL, &e), "%s", e.msg);
    return path;
}

TEST(convert_keeps_bits)
{
    sm_err e = {0};
    char in[400];
    snprintf(in, sizeof in, "%s", source());
    converts(in, at("keep.safetensors"), (sumi_convert_options){0});
    CHECK(same_tensors(in, at("keep.safetensors")));
    converts(in, at("keep.gguf"), (sumi_convert_options){0});
    CHECK(same_tensors(in, at("keep.gguf")));
    converts(at("keep.gguf"), at("back.safetensors"), (sumi_convert_options){.type = "keep", .layout = "keep",
                                                                             .format = "safetensors"});
    CHECK(same_tensors(in, at("back.safetensors")));
    sm_st *f = sm_st_open(at("back.safetensors"), NULL, &e);
    CHECK(f && sm_st_metadata(f, "title") && !strcmp(sm_st_metadata(f, "title"), "süß \"x\"\n") &&
          !strcmp(sm_st_metadata(f, "format"), "pt"));
    sm_st_close(f);
    sm_gguf *g = sm_gguf_open(at("keep.gguf"), NULL, &e);
    CHECK(g && !strcmp(sm_gguf_text(g, "title"), "süß \"x\"\n") && !strcmp(sm_gguf_text(g, "general.architecture"), "sd1"));
    sm_tensors *any = open_file(at("keep.gguf")); /* "sumi.model" makes a model of sumi's own of GGUF, too */
    CHECK(any && sm_tensors_metadata(any, "title") && !strcmp(sm_tensors_metadata(any, "title"), "süß \"x\"\n") &&
          !sm_tensors_metadata(any, "general.quantization_version") && !sm_tensors_metadata(any, "none"));
    sm_tensors_close(any);
    CHECK(g && sm_gguf_metadata(g, "general.quantization_version")->u == 2 && sm_gguf_metadata(g, "general.file_type")->u == 0);
    sm_gguf_close(g);
    /* exact ways round: f16 and bf16 through f32 */
    static const char *const halves[] = {"f16", "bf16"};
    for (int i = 0; i < 2; i++) {
        converts(in, at("half.safetensors"), (sumi_convert_options){.type = halves[i]});
        converts(at("half.safetensors"), at("single.gguf"), (sumi_convert_options){.type = "f32"});
        converts(at("single.gguf"), at("again.safetensors"), (sumi_convert_options){.type = halves[i]});
        CHECK(same_tensors(at("half.safetensors"), at("again.safetensors")));
    }
}

/* Metadata of every type survives GGUF to GGUF, blocks and unknown types too. */
TEST(convert_gguf_to_gguf)
{
    converts(test_fixture("gguf_meta.gguf"), at("meta.gguf"), (sumi_convert_options){0});
    char path[512];
    snprintf(path, sizeof path, "%s", test_fixture("gguf_meta.gguf"));
    CHECK(same_tensors(path, at("meta.gguf")));
    sm_err e = {0};
    sm_gguf *a = sm_gguf_open(path, NULL, &e), *b = sm_gguf_open(at("meta.gguf"), NULL, &e);
    for (size_t i = 0; a && b && i < sm_gguf_metadata_count(a); i++) {
        const sm_gguf_meta *m = sm_gguf_metadata_at(a, i);
        const sm_gguf_value *v = sm_gguf_metadata(b, m->key);
        bool gone = !strncmp(m->key, "comfy.", 6) || !strcmp(m->key, "general.alignment");
        CHECKF(gone || (v && v->type == m->value.type && (v->type == SM_GGUF_ARRAY ? v->n == m->value.n : v->u == m->value.u ||
                                                          v->s)), "%s", m->key);
    }
    sm_gguf_close(a);
    sm_gguf_close(b);
    char text[2000];
    CHECK(convert(path, at("meta.safetensors"), (sumi_convert_options){0}, text) == SUMI_E_SUPPORT && strstr(text, "IQ4_NL"));
}

TEST(convert_quantises_matrices)
{
    static const char *const types[] = {"q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"};
    char in[400], text[2000];
    snprintf(in, sizeof in, "%s", source());
    for (size_t i = 0; i < SM_COUNT(types); i++) {
        CHECK(!convert(in, at("q.gguf"), (sumi_convert_options){.type = types[i]}, text));
        sm_dtype t = (sm_dtype)sm_store_find(types[i]);
        CHECKF(!strcmp(type_in(at("q.gguf"), UNET "output_blocks.1.1.to_q.weight"), sm_store_name(t)), "%s", types[i]);
        CHECKF(!strcmp(type_in(at("q.gguf"), UNET "output_blocks.2.0.in_layers.2.weight"), "F16"), "%s",
               types[i]); /* rows of 3 */
        CHECKF(!strcmp(type_in(at("q.gguf"), UNET "middle_block.1.odd.weight"), "F16"), "%s", types[i]);
        CHECKF(!strcmp(type_in(at("q.gguf"), UNET "a.norm.weight"), "F32"), "%s", types[i]);
        CHECKF(!strcmp(type_in(at("q.gguf"), UNET "time_embed.0.weight"), "F32"), "%s", types[i]);
        CHECKF(strstr(text, "rows no whole number of blocks: " UNET "middle_block.1.odd.weight") && strstr(text, "2 kept as f16"),
               "%s", text);
        sm_tensors *f = open_file(at("q.gguf")), *s = open_file(in);
        CHECKF(!strcmp(type_in(at("q.gguf"), XL_TEXT "transformer.resblocks.0.mlp.c_fc.weight"), sm_store_name(t)), "%s",
               types[i]);
        CHECKF(!strcmp(type_in(at("q.gguf"), XL_TEXT "token_embedding.weight"), "F32"), "%s", types[i]);
        const sm_st_entry *x = f ? sm_tensors_find(f, UNET "output_blocks.1.1.to_q.weight") : NULL;
        uint8_t *want = malloc(32 * 512 * 4);
        CHECK(sm_store_save(t, (const float *)sm_tensors_find(s, UNET "output_blocks.1.1.to_q.weight")->data, 32 * 512, want));
        CHECKF(x && x->bytes == sm_dtype_bytes(t, 32 * 512) && !memcmp(x->data, want, x->bytes), "%s", types[i]);
        free(want);
        sm_tensors_close(f);
        sm_tensors_close(s);
        /* block types that are kept in safetensors become f32, exactly; and stay in GGUF */
        converts(at("q.gguf"), at("dq.safetensors"), (sumi_convert_options){0});
        converts(at("q.gguf"), at("same.gguf"), (sumi_convert_options){0});
        CHECK(same_tensors(at("q.gguf"), at("same.gguf")) && !strcmp(type_in(at("dq.safetensors"),
                                                                             UNET "output_blocks.1.1.to_q.weight"), "F32"));
    }
    converts(in, at("q.gguf"), (sumi_convert_options){.type = "q8_0", .keep_type = "nothing,*.to_?.weight"});
    CHECK(!strcmp(type_in(at("q.gguf"), UNET "output_blocks.1.1.to_q.weight"), "F32"));
}

/* A convolution that was stored flat, as ComfyUI's tools do. */
TEST(convert_flat_blocks)
{
    static float x[8 * 32 * 9];
    static uint8_t q[8 * 32 * 9 / 32 * 34];
    sm_err e = {0};
    test_fill(x, 8 * 32 * 9, 4, -1, 1);
    CHECK(sm_store_save(SM_Q8_0, x, 8 * 32 * 9, q));
    sm_gguf_item item = {"c.weight", SM_Q8_0, 2, {9, 256}, q, SM_Q8_0};
    sm_gguf_meta shape = {"comfy.gguf.orig_shape.c.weight", {SM_GGUF_ARRAY, SM_GGUF_I32, 4, {.raw = (int32_t[]){8, 32, 3, 3}}}};
    CHECKF(!sm_gguf_write(at("flat.gguf"), 1, &item, 1, &shape, NULL, &e), "%s", e.msg);
    converts(at("flat.gguf"), at("flat2.gguf"), (sumi_convert_options){0});
    CHECK(same_tensors(at("flat.gguf"), at("flat2.gguf")));
    sm_gguf *f = sm_gguf_open(at("flat2.gguf"), NULL, &e);
    CHECK(f && sm_gguf_at(f, 0)->rank == 4 && sm_gguf_at(f, 0)->dims[3] == 3);
    sm_gguf_close(f);
    converts(at("flat.gguf"), at("flat.safetensors"), (sumi_convert_options){.type = "f32"});
    sm_tensors *t = open_file(at("flat.safetensors"));
    float *y = malloc(sizeof x);
    sm_load_blocks(SM_Q8_0, q, 8 * 32 * 9, y);
    CHECK(t && sm_tensors_at(t, 0)->rank == 4 && !memcmp(sm_tensors_at(t, 0)->data, y, sizeof x));
    free(y);
    sm_tensors_close(t);
}

/* ---- FP8 with scales --------------------------------------------------------------------------------------------- */

TEST(convert_scaled_fp8)
{
    static uint8_t code[64];
    float scale = 0.3f, rows[2] = {0.5f, 3};
    sm_err e = {0};
    for (int i = 0; i < 64; i++)
        code[i] = (uint8_t)(i * 2 + 1);
    const sm_tensor w = {.data = code, .dtype = SM_F8_E4M3, .rank = 2, .dims = {2, 32}}, s = {.data = &scale, .rank = 0},
                    r = {.data = rows, .rank = 2, .dims = {2, 1}};
    sm_out_tensor t[] = {sm_out_of("a.weight", &w, w.dtype), sm_out_of("a.scale_weight", &s, SM_F32),
                         sm_out_of("b.weight", &w, w.dtype),
                         sm_out_of("b.weight_scale", &r, SM_F32), sm_out_of("b.input_scale", &s, SM_F32),
                             sm_out_of("c.weight", &w, w.dtype),
                         {.name = "scaled_fp8", .rank = 1, .raw = "F8_E4M3", .raw_data = code}};
    CHECKF(!sm_st_write_out(at("f8.safetensors"), &(sm_out){.n = 7, .t = t}, 0, NULL, NULL, &e), "%s", e.msg);
    converts(at("f8.safetensors"), at("f8_keep.safetensors"), (sumi_convert_options){0});
    CHECK(same_tensors(at("f8.safetensors"), at("f8_keep.safetensors")));
    converts(at("f8.safetensors"), at("f8_single.safetensors"), (sumi_convert_options){.type = "f32"});
    sm_tensors *f = open_file(at("f8_single.safetensors"));
    CHECK(f && sm_tensors_count(f) == 3);
    for (int k = 0; f && k < 3; k++) {
        const sm_st_entry *x = sm_tensors_at(f, (size_t)k);
        for (int i = 0; i < 64; i++) {
            float v, want;
            sm_load_blocks(SM_F8_E4M3, &code[i], 1, &want);
            want *= k == 0 ? scale : k == 1 ? rows[i / 32] : 1;
            memcpy(&v, x->data + 4 * i, 4);
            CHECKF(v == want || (isnan(v) && isnan(want)), "%s %d: %g, %g", x->name, i, (double)v, (double)want);
        }
    }
    sm_tensors_close(f);
    converts(at("f8.safetensors"), at("f8.gguf"), (sumi_convert_options){.keep_type = "*"}); /* GGUF has no FP8 */
    CHECK(!strcmp(type_in(at("f8.gguf"), "a.weight"), "F32") && !strcmp(type_in(at("f8.gguf"), "c.weight"), "F16"));
    CHECK(!strcmp(type_in(at("f8.gguf"), "a.scale_weight"), "") && !strcmp(type_in(at("f8.gguf"), "scaled_fp8"), ""));
}

/* ---- a UNet ------------------------------------------------------------------------------------------------------ */

static const sm_unet_config small = {
    .in_channels = 4, .out_channels = 4, .blocks = 2, .block_out_channels = {32, 64}, .layers_per_block = {1, 1},
    .transformer_layers_per_block = {1, 1}, .attention_head_dim = {2, 2}, .down_attention = {true, true},
        .up_attention = {true, true},
    .mid_block = SM_MID_CROSS, .cross_attention_dim = 32, .norm_num_groups = 8, .norm_eps = 1e-5f, .flip_sin_to_cos = true,
    .use_linear_projection = true};

static sm_node *record(sm_graph *g, sm_weights *w, const nn_init *init, sm_node *in[3])
{
    nn_scope root = nn_root(g, w, init), s = nn_sub(&root, "unet");
    in[0] = sm_input(g, "x", SM_F32, 4, (int64_t[]){2, 8, 8, 4});
    in[1] = sm_input(g, "t", SM_F32, 1, (int64_t[]){2});
    in[2] = sm_input(g, "ctx", SM_F32, 3, (int64_t[]){2, 5, 32});
    return sm_unet(&s, &small, in[0], in[1], in[2], NULL);
}

static void write_unet(const char *path)
{
    static const nn_init init = {.seed = 4};
    sm_err e = {0};
    sm_weights *w = sm_weights_new(NULL, &e);
    sm_graph *g = sm_graph_new(NULL, &e);
    sm_node *in[3];
    record(g, w, &init, in);
    for (size_t i = 0; i < sm_weights_count(w); i++) { /* new last layers are zero */
        sm_weight *x = sm_weights_at(w, i);
        float bound = x->t.rank > 1 ? 0.1f : 0.5f;
        test_fill(x->t.data, (int64_t)(x->bytes / 4), i + 1, -bound, bound);
    }
    CHECKF(!g->err.code && !sm_st_write_weights(path, w, SM_F32, 0, NULL, NULL, &e), "%s%s", g->err.msg, e.msg);
    sm_graph_free(g);
    sm_weights_unref(&w);
}

enum { OUT = 2 * 8 * 8 * 4 };

static void run_unet(const char *path, float *y, size_t *stored)
{
    sm_err e = {0};
    sm_layout_report r;
    sm_weights *w = sm_weights_new(NULL, &e);
    sm_tensors *f = open_file(path);
    sm_graph *g = sm_graph_new(NULL, &e);
    sm_node *in[3];
    CHECKF(f && !sm_layout_into(f, w, SM_COMPONENTS, &r, NULL, &e), "%s", e.msg);
    sm_node *out = record(g, w, NULL, in);
    sm_plan *p = sm_plan_new(g, 1, &out, sm_cpu_backend(NULL, &e), &e);
    CHECKF(p != NULL, "%s", e.msg);
    *stored = 0;
    for (size_t i = 0; i < sm_weights_count(w); i++)
        *stored += sm_weights_at(w, i)->t.dtype > SM_I32;
    if (p) {
        test_fill(sm_plan_data(p, in[0]), OUT, 1, -1, 1);
        memcpy(sm_plan_data(p, in[1]), (float[]){3, 800}, 8);
        test_fill(sm_plan_data(p, in[2]), 2 * 5 * 32, 2, -1, 1);
        CHECK(!sm_plan_run(p, NULL, NULL, &e));
        memcpy(y, sm_plan_data(p, out), OUT * sizeof *y);
    }
    sm_plan_free(p);
    sm_graph_free(g);
    sm_weights_unref(&w);
}

TEST(convert_quantised_unet_same_bits)
{
    static const char *const types[] = {"q8_0", "q4_0", "q5_1", "q2_k", "q4_k", "q6_k", "f8_e4m3", "f8_e5m2"};
    float want[OUT], got[OUT], whole[OUT];
    size_t stored;
    write_unet(at("unet.safetensors"));
    run_unet(at("unet.safetensors"), whole, &stored);
    for (size_t i = 0; i < SM_COUNT(types); i++) {
        const char *name = types[i][0] == 'q' ? "unet_q.gguf" : "unet_f8.safetensors";
        converts(at("unet.safetensors"), at(name), (sumi_convert_options){.type = types[i]});
        converts(at(name), at("unet_f32.safetensors"), (sumi_convert_options){.type = "f32"});
        run_unet(at(name), got, &stored);
        CHECKF(stored >= 4, "%s: %zu weights", types[i], stored);
        run_unet(at("unet_f32.safetensors"), want, &stored);
        CHECK(stored == 0);
        CHECKF(!memcmp(got, want, sizeof got), "%s: differs by %g", types[i], test_maxdiff(got, want, OUT));
        double d = test_maxdiff(got, whole, OUT), rms = test_rms(whole, OUT);
        CHECKF(d > 0 && d < 0.7 * rms && rms > 0.01, "%s: %g of %g from the unquantised", types[i], d, rms);
    }
    /* there and back: names of the single file, q, k and v apart as they were */
    converts(at("unet.safetensors"), at("unet_original.safetensors"), (sumi_convert_options){.layout = "original"});
    CHECK(!strcmp(type_in(at("unet_original.safetensors"), UNET "input_blocks.0.0.weight"), "F32"));
    converts(at("unet_original.safetensors"), at("unet_back.safetensors"), (sumi_convert_options){.layout = "diffusers"});
    CHECK(same_tensors(at("unet.safetensors"), at("unet_back.safetensors")));
    converts(at("unet.safetensors"), at("unet_q_original.gguf"), (sumi_convert_options){.layout = "original", .type = "q8_0"});
    converts(at("unet.safetensors"), at("unet_q.gguf"), (sumi_convert_options){.type = "q8_0"});
    run_unet(at("unet_q_original.gguf"), got, &stored);
    CHECK(stored >= 5);
    run_unet(at("unet_q.gguf"), want, &stored);
    CHECKF(!memcmp(got, want, sizeof got), "original layout: differs by %g", test_maxdiff(got, want, OUT));
}

/* A folder in diffusers' layout; another autoencoder in place of its own. */
static void write_vae(const char *path, uint64_t seed)
{
    static const sm_vae_config config = {.in_channels = 3, .out_channels = 3, .latent_channels = 4, .blocks = 2,
                                         .block_out_channels = {8, 16}, .layers_per_block = 1, .norm_num_groups = 4,
                                         .scaling_factor = 0.5f, .use_quant_conv = true, .mid_block_add_attention = true};
    nn_init init = {.seed = seed};
    sm_err e = {0};
    sm_weights *w = sm_weights_new(NULL, &e);
    sm_graph *g = sm_graph_new(NULL, &e);
    nn_scope s = nn_root(g, w, &init);
    sm_vae_encode(&s, &config, sm_vae_decode(&s, &config, sm_input(g, "z", SM_F32, 4, (int64_t[]){1, 4, 4, 4})));
    CHECKF(!g->err.code && !sm_st_write_weights(path, w, SM_F32, 0, NULL, NULL, &e), "%s%s", g->err.msg, e.msg);
    sm_graph_free(g);
    sm_weights_unref(&w);
}

/* What the scheduler's configuration says becomes marks of the one file, whatever its layout. */
static void check_scheduler(const char *in)
{
    static const struct { const char *config, *marks; } cases[] = {
        {"{\"prediction_type\":\"epsilon\"}", ""},
        {"{\"prediction_type\":\"v_prediction\"}", "v_pred"},
        {"{\"prediction_type\":\"v_prediction\",\"rescale_betas_zero_snr\":true}", "v_pred ztsnr"},
        {"{\"_class_name\":\"EDMEulerScheduler\",\"prediction_type\":\"epsilon\"}", "edm_mean edm_std"},
        {"{\"_class_name\":\"EDMEulerScheduler\",\"prediction_type\":\"v_prediction\",\"sigma_max\":120}",
         "edm_vpred.sigma_max edm_vpred.sigma_min"}};
    static const char *const layouts[] = {"keep", "original", "diffusers"};
    static const char vae[] = "{\"latents_mean\":[1,2,3,4],\"latents_std\":[5,6,7,8]}";
    sm_err e = {0};
    mkdir(at("folder/scheduler"), 0700);
    CHECK(!sm_file_write(at("folder/vae/config.json"), vae, sizeof vae - 1, &e));
    for (size_t i = 0; i < SM_COUNT(cases) * SM_COUNT(layouts); i++) {
        const char *config = cases[i / 3].config, *layout = layouts[i % 3];
        char found[200] = "";
        CHECK(!sm_file_write(at("folder/scheduler/scheduler_config.json"), config, strlen(config), &e));
        converts(in, at("marked.safetensors"), (sumi_convert_options){.layout = layout});
        sm_tensors *f = open_file(at("marked.safetensors"));
        for (size_t k = 0; k < sm_tensors_count(f); k++)
            if (sm_layout_mark(sm_tensors_at(f, k)->name))
                snprintf(found + strlen(found), sizeof found - strlen(found), "%s%s", *found ? " " : "",
                         sm_tensors_at(f, k)->name);
        CHECKF(!strcmp(found, cases[i / 3].marks), "%s, %s: '%s'", config, layout, found);
        sm_tensors_close(f);
    }
    unlink(at("folder/scheduler/scheduler_config.json"));
    unlink(at("folder/vae/config.json"));
}

/* What one file has no room for is said. */
static void check_betas(const char *in)
{
    static const struct { const char *config; bool said; } cases[] = {
        {"{\"_class_name\":\"DDIMScheduler\",\"beta_schedule\":\"scaled_linear\",\"beta_start\":0.00085,\"beta_end\":0.012}",
         false},
        {"{\"_class_name\":\"DDIMScheduler\",\"beta_schedule\":\"linear\",\"beta_start\":0.00085,\"beta_end\":0.012}", true},
        {"{\"_class_name\":\"DDPMScheduler\"}", true},
        {"{\"_class_name\":\"DDIMScheduler\",\"num_train_timesteps\":2,\"trained_betas\":[0.1,0.2]}", true},
        {"{\"_class_name\":\"EDMEulerScheduler\"}", false},
        {"{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\"}", false}};
    char said[2000];
    sm_err e = {0};
    mkdir(at("folder/scheduler"), 0700);
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        CHECK(!sm_file_write(at("folder/scheduler/scheduler_config.json"), cases[i].config, strlen(cases[i].config), &e));
        CHECKF(!convert(in, at("betas.safetensors"), (sumi_convert_options){0}, said), "%s", said);
        CHECKF(cases[i].said == !!strstr(said, "--beta-schedule"), "%s: %s", cases[i].config, said);
    }
    unlink(at("folder/scheduler/scheduler_config.json"));
}

TEST(convert_folder_and_vae)
{
    char in[400], other[400], vae[400];
    sm_err e = {0};
    snprintf(in, sizeof in, "%s", at("folder"));
    mkdir(in, 0700);
    mkdir(at("folder/unet"), 0700);
    mkdir(at("folder/vae"), 0700);
    CHECK(!sm_file_write(at("folder/model_index.json"), "{}", 2, &e));
    refuses(in, at("x.safetensors"), (sumi_convert_options){0}, SUMI_E_MODEL, "folder/unet: no weights");
    write_unet(at("unet_named.safetensors"));
    snprintf(other, sizeof other, "%s", at("other.safetensors"));
    snprintf(vae, sizeof vae, "%s", at("folder/vae/diffusion_pytorch_model.safetensors"));
    write_vae(vae, 1);
    write_vae(other, 2);
    /* the UNet under bare names, as in a folder */
    sm_weights *w = sm_weights_new(NULL, &e), *bare = sm_weights_new(NULL, &e);
    CHECK(!sm_tensors_load(at("unet_named.safetensors"), w, NULL, NULL, &e));
    for (size_t i = 0; i < sm_weights_count(w); i++)
        CHECK(!sm_weights_add(bare, sm_weights_at(w, i)->name + strlen("unet."), &sm_weights_at(w, i)->t, &e));
    CHECK(!sm_st_write_weights(at("folder/unet/diffusion_pytorch_model.safetensors"), bare, SM_F32, 0, NULL, NULL, &e));
    sm_weights_unref(&bare);
    sm_weights_unref(&w);
    converts(in, at("folder.safetensors"), (sumi_convert_options){0});
    converts(in, at("folder_o.safetensors"), (sumi_convert_options){.layout = "original"});
    converts(at("folder_o.safetensors"), at("folder_d.safetensors"), (sumi_convert_options){.layout = "diffusers"});
    CHECK(same_tensors(at("folder.safetensors"), at("folder_d.safetensors")));
    converts(at("folder_o.safetensors"), at("vae_o.safetensors"), (sumi_convert_options){.vae = other});
    converts(at("vae_o.safetensors"), at("vae_d.safetensors"), (sumi_convert_options){.layout = "diffusers"});
    converts(in, at("vae_in.safetensors"), (sumi_convert_options){.vae = other});
    CHECK(same_tensors(at("vae_d.safetensors"), at("vae_in.safetensors")));
    sm_tensors *a = open_file(at("vae_in.safetensors")), *b = open_file(other), *c = open_file(at("folder.safetensors"));
    const char *name = "decoder.conv_in.weight";
    const sm_st_entry *x = sm_tensors_find(a, "vae.decoder.conv_in.weight"), *y = sm_tensors_find(b, name);
    CHECK(x && y && x->bytes == y->bytes && !memcmp(x->data, y->data, x->bytes) && sm_tensors_count(a) == sm_tensors_count(c));
    sm_tensors_close(a);
    sm_tensors_close(b);
    sm_tensors_close(c);
    check_scheduler(in);
    check_betas(in);
    refuses(in, vae, (sumi_convert_options){0}, SUMI_E_ARG, "is a file that is read");
    refuses(in, other, (sumi_convert_options){.vae = other}, SUMI_E_ARG, "is a file that is read");
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* 300 MB of f16 by a formula, in 24 tensors and one of 64 MB. */
static bool write_large(const char *path)
{
    enum { PIECE = 1 << 20, TENSORS = 24 };
    sm_err e = {0};
    sm_buf b = {0};
    uint16_t *h = malloc(PIECE * sizeof *h);
    size_t at_byte = 0;
    for (int i = 0; i < PIECE; i++)
        h[i] = sm_f32_f16((float)((int)(i * 2654435761u >> 8 & 0xffff) - 32768) / 65536);
    sm_buf_add(&b, "\0\0\0\0\0\0\0\0{", 9);
    for (int i = 0; i <= TENSORS; i++) {
        size_t n = (size_t)PIECE * (i ? 10 : 64) / 2 * 2;
        sm_buf_fmt(&b, "%s\"w%d.weight\":{\"dtype\":\"F16\",\"shape\":[%zu,1024],\"data_offsets\":[%zu,%zu]}", i ? "," : "", i,
                   n / 2048, at_byte, at_byte + n);
        at_byte += n;
    }
    sm_buf_fmt(&b, "}");
    while (b.len % 8)
        sm_buf_add(&b, " ", 1);
    uint64_t head = b.len - 8;
    memcpy(b.data, &head, 8);
    sm_file_writer *w = sm_file_writer_open(NULL, path, &e);
    bool ok = w && !sm_file_writer_append(w, b.data, b.len, &e);
    for (size_t done = 0; ok && done < at_byte; done += PIECE)
        ok = !sm_file_writer_append(w, h, PIECE, &e);
    ok = ok && !sm_file_writer_commit(w, &e);
    CHECKF(ok, "%s", e.msg);
    free(h);
    sm_buf_free(&b);
    return ok;
}

/* A v-prediction model stays one where names change. */
TEST(convert_keeps_marks)
{
    sm_err e = {0};
    write_unet(at("unet_plain.safetensors"));
    sm_weights *w = sm_weights_new(NULL, &e);
    CHECK(!sm_tensors_load(at("unet_plain.safetensors"), w, NULL, NULL, &e) &&
          sm_weights_create(w, "v_pred", 1, (int64_t[]){1}, &e));
    CHECK(!sm_st_write_weights(at("unet_v.safetensors"), w, SM_F32, 0, NULL, NULL, &e));
    sm_weights_unref(&w);
    converts(at("unet_v.safetensors"), at("unet_v_o.safetensors"), (sumi_convert_options){.layout = "original"});
    converts(at("unet_v_o.safetensors"), at("unet_v_d.safetensors"), (sumi_convert_options){.layout = "diffusers"});
    sm_tensors *o = open_file(at("unet_v_o.safetensors")), *d = open_file(at("unet_v_d.safetensors"));
    CHECK(sm_tensors_find(o, "v_pred") && sm_tensors_find(d, "v_pred"));
    sm_tensors_close(o);
    sm_tensors_close(d);
}

TEST(convert_memory)
{
    static const struct { const char *in, *out, *type; } row[] = {
        {"large.safetensors", "large.gguf", "q8_0"}, {"large.safetensors", "large2.safetensors", "keep"},
            {"large.gguf", "large3.safetensors", "f16"}};
    if (SANITIZED || !process_reset_peak()) {
        test_skip("the peak of resident memory cannot be read here");
        return;
    }
    if (!write_large(at("large.safetensors")))
        return;
    for (size_t i = 0; i < SM_COUNT(row); i++) {
        CHECK(process_reset_peak());
        double before = process_memory("VmRSS");
        converts(at(row[i].in), at(row[i].out), (sumi_convert_options){.type = row[i].type});
        double peak = process_memory("VmHWM") - before;
        CHECKF(peak < 60e6, "%s to %s: %.0f MB", row[i].in, row[i].type, peak / 1e6);
    }
    unlink(at("large.safetensors"));
    for (size_t i = 0; i < SM_COUNT(row); i++)
        unlink(at(row[i].out));
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

TEST(convert_refuses)
{
    char in[400], link[400];
    struct stat st;
    snprintf(in, sizeof in, "%s", source());
    snprintf(link, sizeof link, "%s", at("link.safetensors"));
    refuses(in, at("r.gguf"), (sumi_convert_options){.type = "q9"}, SUMI_E_ARG, "--type: 'q9' is unknown");
    refuses(in, at("r.gguf"), (sumi_convert_options){.type = "i32"}, SUMI_E_ARG, "--type: 'i32'");
    refuses(in, at("r.gguf"), (sumi_convert_options){.layout = "kohya"}, SUMI_E_ARG, "--layout: 'kohya'");
    refuses(in, at("r.gguf"), (sumi_convert_options){.format = "onnx"}, SUMI_E_ARG, "--format: 'onnx'");
    refuses(in, at("r.out"), (sumi_convert_options){.type = "q8_0"}, SUMI_E_ARG, "safetensors has no type Q8_0");
    refuses(in, at("r.bin"), (sumi_convert_options){0}, SUMI_E_ARG, "PyTorch's files are read only");
    refuses(in, at("r.gguf"), (sumi_convert_options){.type = "f8_e4m3"}, SUMI_E_ARG, "GGUF has no type F8_E4M3");
    refuses(in, in, (sumi_convert_options){.type = "f16"}, SUMI_E_ARG, "is a file that is read");
    CHECK(!symlink(in, link));
    refuses(link, in, (sumi_convert_options){0}, SUMI_E_ARG, "is a file that is read");
    refuses(in, link, (sumi_convert_options){0}, SUMI_E_ARG, "is a file that is read");
    refuses(at("none"), at("r.gguf"), (sumi_convert_options){0}, SUMI_E_FILE, "none");
    refuses(in, at("no/folder/r.gguf"), (sumi_convert_options){0}, SUMI_E_FILE, "no/folder/r.gguf");
    refuses(in, "/dev/full", (sumi_convert_options){0}, SUMI_E_FILE, "No space");
    refuses(in, at("r.gguf"), (sumi_convert_options){.vae = in}, SUMI_E_MODEL, "holds no autoencoder");
    refuses(test_fixture("fp8.safetensors"), at("r.safetensors"), (sumi_convert_options){.type = "f16"}, SUMI_E_NUMERIC,
            "too large for F16");
    CHECK(stat(at("r.gguf"), &st) && stat(at("r.bin"), &st) && stat(at("r.safetensors"), &st));
}

/* Cancelled: no file. */
TEST(convert_cancels)
{
    int cancel = 1;
    struct stat st;
    sumi_context *ctx;
    CHECK(!sumi_context_new(NULL, &ctx));
    CHECK(sumi_convert(ctx, source(), at("cancelled.gguf"), NULL, &(sumi_callbacks){.cancel = &cancel},
                       NULL) == SUMI_E_CANCELLED);
    CHECK(stat(at("cancelled.gguf"), &st));
    sumi_context_free(ctx);
}

/* Whatever allocation fails: one error, no file, nothing lost. */
TEST(convert_allocations_fail)
{
    static const sumi_convert_options way[] = {{.type = "q8_0"}, {.layout = "original", .type = "f16"}};
    write_unet(at("memory_in.safetensors"));
    for (size_t i = 0; i < SM_COUNT(way); i++) {
        sumi_status st = SUMI_E_MEMORY;
        const char *out = i ? "memory.safetensors" : "memory.gguf";
        for (int64_t k = 1; st != SUMI_OK && k < 20000; k += k < 90 ? 1 : 37) {
            sumi_context *ctx;
            struct stat there;
            char *text = NULL;
            CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &ctx));
            size_t before = ctx->mem.total;
            ctx->mem.fail_at = k;
            st = sumi_convert(ctx, at("memory_in.safetensors"), at(out), &way[i], NULL, &text);
            ctx->mem.fail_at = 0;
            CHECKF(st == SUMI_OK || (st == SUMI_E_MEMORY && !text && stat(at(out), &there)), "allocation %d: status %d, %s",
                   (int)k, st, sumi_error(ctx));
            sumi_text_free(text);
            CHECKF(ctx->mem.total == before, "allocation %d: %zu bytes lost", (int)k, ctx->mem.total - before);
            sumi_context_free(ctx);
        }
        CHECK(st == SUMI_OK);
    }
}
