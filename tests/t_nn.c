/* The table of weights, scopes and initial values, config.json, and models under bad tables and failing allocations. */
#include "cpu/cpu.h"
#include "io/safetensors.h"
#include "model/model.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- table --------------------------------------------------------------------------------------------------------- */

TEST(weights_table)
{
    enum { N = 3000 };
    static float data[N];
    sm_mem mem = {0};
    sm_err e = {0};
    sm_weights *w = sm_weights_new(&mem, &e);
    char name[32];
    for (int i = 0; i < N; i++) {
        sm_tensor t = {.data = &data[i], .dtype = SM_F32, .rank = 1, .dims = {1}};
        snprintf(name, sizeof name, "block.%d.weight", i);
        CHECK(sm_weights_add(w, name, &t, &e) == SUMI_OK);
    }
    CHECK(sm_weights_count(w) == N && !sm_weights_find(w, "block.3000.weight") && !sm_weights_find(w, ""));
    for (int i = 0; i < N; i += 7) {
        snprintf(name, sizeof name, "block.%d.weight", i);
        sm_weight *x = sm_weights_find(w, name);
        CHECK(x && x->t.data == &data[i] && x->bytes == 4 && !x->mutable_data && x == sm_weights_at(w, (size_t)i));
    }
    sm_tensor t = {.data = data, .dtype = SM_F32, .rank = 1, .dims = {1}};
    CHECK(sm_weights_add(w, "block.5.weight", &t, &e) == SUMI_E_FORMAT && strstr(e.msg, "block.5.weight"));
    sm_err_clear(&e);
    t.dims[0] = 0;
    CHECK(sm_weights_add(w, "empty", &t, &e) == SUMI_E_FORMAT && !sm_weights_find(w, "empty"));
    sm_err_clear(&e);
    t = (sm_tensor){.dtype = SM_F32, .rank = 3, .dims = {INT64_MAX, INT64_MAX, 2}};
    CHECK(sm_weights_add(w, "huge", &t, &e) == SUMI_E_FORMAT);
    sm_weights_unref(&w);
    CHECK(w == NULL && mem.total == 0);
    sm_weights_unref(&w);
}

static void count_up(void *arg) { ++*(int *)arg; }

TEST(weights_references_and_keepers)
{
    sm_mem mem = {0};
    sm_err e = {0};
    int freed = 0;
    sm_weights *w = sm_weights_new(&mem, &e), *other = sm_weights_ref(w);
    CHECK(sm_weights_keep(w, count_up, &freed, &e) == SUMI_OK && sm_weights_keep(w, count_up, &freed, &e) == SUMI_OK);
    sm_weight *x = sm_weights_create(w, "made", 2, (int64_t[]){3, 5}, &e);
    CHECK(x && x->mutable_data && x->t.dtype == SM_F32 && x->bytes == 60 && x->t.dims[2] == 1 && ((float *)x->t.data)[14] == 0);
    sm_weights_unref(&w);
    CHECK(freed == 0 && sm_weights_find(other, "made") == x);
    sm_weights_unref(&other);
    CHECK(freed == 2 && mem.total == 0);
}

/* ---- initial values ------------------------------------------------------------------------------------------------- */

typedef struct model {
    sm_mem mem;
    sm_err e;
    sm_weights *w;
    sm_graph *g;
    nn_init init;
    nn_scope s;
} model;

static void model_open(model *m, uint64_t seed)
{
    *m = (model){.init = {.seed = seed}};
    m->w = sm_weights_new(&m->mem, &m->e);
    m->g = sm_graph_new(&m->mem, &m->e);
    m->s = nn_root(m->g, m->w, &m->init);
}

static void model_close(model *m)
{
    sm_graph_free(m->g);
    sm_weights_unref(&m->w);
    CHECK(m->mem.total == 0);
}

static const float *values(const model *m, const char *name, int64_t *n)
{
    const sm_weight *x = sm_weights_find(m->w, name);
    *n = x ? (int64_t)(x->bytes / 4) : 0;
    CHECKF(x != NULL, "%s was not made", name);
    return x ? x->t.data : NULL;
}

/* Mean, deviation and largest size against what the distribution has, at five standard errors. */
static void check_moments(const model *m, const char *name, double deviation, double most)
{
    int64_t n;
    const float *x = values(m, name, &n);
    double mean = 0, top = 0, rms = test_rms(x, n);
    for (int64_t i = 0; i < n; i++) {
        mean += (double)x[i] / (double)n;
        top = fmax(top, fabs((double)x[i]));
    }
    CHECKF(fabs(mean) <= 5 * deviation / sqrt((double)n), "%s: mean %g", name, mean);
    CHECKF(fabs(rms - deviation) <= 5 * deviation / sqrt((double)n), "%s: deviation %g, expected %g", name, rms, deviation);
    CHECKF(top <= most && top > 0.9 * fmin(most, 2 * deviation), "%s: largest %g, bound %g", name, top, most);
}

static void check_all(const model *m, const char *name, float v)
{
    int64_t n;
    const float *x = values(m, name, &n);
    for (int64_t i = 0; i < n; i++)
        if (x[i] != v) {
            CHECKF(false, "%s[%lld] is %g, expected %g", name, (long long)i, (double)x[i], (double)v);
            return;
        }
}

/* PyTorch 2: nn.Linear and nn.Conv2d draw weight and bias from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), whose deviation is the
 * bound over sqrt(3); nn.Embedding from N(0, 1), CLIP's from N(0, 0.02^2). */
TEST(nn_initial_values)
{
    model m;
    model_open(&m, 7);
    sm_node *x = sm_input(m.g, "x", SM_F32, 4, (int64_t[]){1, 4, 4, 64}), *ids = sm_input(m.g, "ids", SM_I32, 1, (int64_t[]){3});
    nn_linear(&m.s, "linear", x, 300, true);
    nn_conv(&m.s, "conv", x, 48, 3, 1, 1, true);
    nn_conv(&m.s, "point", x, 48, 1, 1, 0, false);
    nn_linear_zero(&m.s, "zero", x, 10);
    nn_group_norm(&m.s, "norm", x, 8, 1e-5f);
    nn_embedding(&m.s, "emb", ids, 200, 64, NN_NORMAL_1);
    nn_embedding(&m.s, "clip", ids, 200, 64, NN_NORMAL_002);
    CHECKF(!m.g->err.code, "%s", m.g->err.msg);
    double b = 1 / sqrt(64.0), bc = 1 / sqrt(576.0);
    check_moments(&m, "linear.weight", b / sqrt(3), b);
    check_moments(&m, "linear.bias", b / sqrt(3), b);
    check_moments(&m, "conv.weight", bc / sqrt(3), bc);
    check_moments(&m, "point.weight", b / sqrt(3), b);
    check_moments(&m, "emb.weight", 1, 6.8);
    check_moments(&m, "clip.weight", 0.02, 6.8 * 0.02);
    check_all(&m, "zero.weight", 0);
    check_all(&m, "zero.bias", 0);
    check_all(&m, "norm.weight", 1);
    check_all(&m, "norm.bias", 0);
    const sm_weight *p = sm_weights_find(m.w, "point.weight");
    CHECK(p && p->t.rank == 4 && p->t.dims[2] == 1 && !nn_has(&m.s, "point.bias"));
    model_close(&m);
}

/* Values depend on seed and name alone: not on the order of recording, nor on what else there is. */
TEST(nn_initial_values_by_name)
{
    model a, b, c;
    int64_t n, k;
    model_open(&a, 1);
    model_open(&b, 1);
    model_open(&c, 2);
    sm_node *xa = sm_input(a.g, "x", SM_F32, 2, (int64_t[]){1, 16}), *xb = sm_input(b.g, "x", SM_F32, 2, (int64_t[]){1, 16});
    nn_linear(&a.s, "one", xa, 16, true);
    nn_linear(&a.s, "two", xa, 16, true);
    nn_linear(&b.s, "two", xb, 16, true);
    nn_linear(&c.s, "two", sm_input(c.g, "x", SM_F32, 2, (int64_t[]){1, 16}), 16, true);
    const float *one = values(&a, "one.weight", &n), *two = values(&a, "two.weight", &n), *same = values(&b, "two.weight", &k);
    CHECK(n == k && !memcmp(two, same, (size_t)n * 4) && memcmp(one, two, (size_t)n * 4));
    CHECK(memcmp(two, values(&c, "two.weight", &k), (size_t)n * 4));
    nn_linear(&a.s, "two", xa, 16, true);
    CHECK(sm_weights_count(a.w) == 4 && !a.g->err.code);
    model_close(&a);
    model_close(&b);
    model_close(&c);
}

TEST(nn_scope_names_and_taps)
{
    model m;
    model_open(&m, 1);
    sm_node *x = sm_input(m.g, "x", SM_F32, 2, (int64_t[]){1, 8});
    nn_scope block = nn_sub(&m.s, "blocks.%d", 3), inner = nn_sub(&block, "attn");
    sm_node *q = nn_linear(&inner, "to_q", x, 8, false);
    nn_here(&block);
    sm_node *y = sm_add(q, x);
    CHECK(nn_has(&inner, "to_q.weight") && !nn_has(&inner, "to_q.bias") && sm_weights_find(m.w, "blocks.3.attn.to_q.weight"));
    CHECK(nn_tap(m.g, "blocks.3") == y && nn_tap(m.g, "blocks.3.attn") == q);
    CHECK(nn_tap(m.g, "blocks") == y && !nn_tap(m.g, "block"));
    CHECK(nn_dim(&inner, "to_q.weight", 1, -1) == 8 && nn_dim(&inner, "to_q.weight", 2, -1) == -1);
    CHECK(nn_dim(&inner, "none", 0, 5) == 5);
    char deep[200];
    memset(deep, 'a', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    nn_sub(&block, "%s", deep);
    CHECK(m.g->err.code == SUMI_E_MODEL);
    model_close(&m);
}

/* A linear layer may be stored as a 1x1 convolution and the other way round; a bias is there if the table has it. */
TEST(nn_loaded_layers)
{
    model m;
    model_open(&m, 1);
    float data[64] = {0};
    sm_tensor conv = {.data = data, .dtype = SM_F32, .rank = 4, .dims = {4, 16, 1, 1}};
    sm_tensor lin = {.data = data, .dtype = SM_F16, .rank = 2, .dims = {4, 16}};
    CHECK(sm_weights_add(m.w, "a.weight", &conv, &m.e) == SUMI_OK && sm_weights_add(m.w, "b.weight", &lin, &m.e) == SUMI_OK);
    m.s.init = NULL;
    sm_node *x = sm_input(m.g, "x", SM_F32, 4, (int64_t[]){1, 2, 2, 16});
    sm_node *a = nn_linear(&m.s, "a", x, 4, true), *b = nn_conv(&m.s, "b", x, 4, 1, 1, 0, true);
    CHECKF(!m.g->err.code && a->op == SM_OP_LINEAR && b->op == SM_OP_LINEAR, "%s", m.g->err.msg);
    CHECK(!a->src[2] && b->src[1]->dtype == SM_F16);
    CHECK(sm_poisoned(nn_linear(&m.s, "b", x, 5, false)));
    CHECK(strstr(m.g->err.msg, "b.weight has shape [4, 16]; the model needs [5, 16]"));
    model_close(&m);
    model_open(&m, 1);
    m.s.init = NULL;
    nn_linear(&m.s, "gone", sm_input(m.g, "x", SM_F32, 2, (int64_t[]){1, 3}), 5, false);
    CHECKF(strstr(m.g->err.msg, "tensor gone.weight is missing; the model needs it with shape [5, 3]"), "%s", m.g->err.msg);
    model_close(&m);
}

/* y's values for x = 0.1, 0.2, ... in a fresh buffer. */
static float *evaluate(model *m, const sm_node *x, sm_node *y)
{
    sm_plan *p = sm_plan_new(m->g, 1, &y, sm_cpu_backend("", &m->e), &m->e);
    float *out = sm_alloc(NULL, SM_MEM_MISC, (size_t)sm_numel(y) * sizeof(float)), *in = p ? sm_plan_data(p, x) : NULL;
    for (int64_t i = 0; in && i < sm_numel(x); i++)
        in[i] = 0.1f * (float)(i + 1);
    bool ok = in && out && sm_plan_run(p, NULL, NULL, &m->e) == SUMI_OK;
    CHECKF(ok, "%s%s", m->g->err.msg, m->e.msg);
    if (ok)
        memcpy(out, sm_plan_data(p, y), (size_t)sm_numel(y) * sizeof(float));
    sm_plan_free(p);
    return out;
}

/* norm2(h) (1 + scale) + shift is norm2 with weight w (1 + scale) and bias b (1 + scale) + shift: a block whose time_emb_proj
 * gives a constant scale and shift equals a plain one with that norm2 and no time. */
TEST(nn_resnet_scale_shift)
{
    model m;
    model_open(&m, 5);
    int64_t c = 4;
    sm_node *x = sm_input(m.g, "x", SM_F32, 4, (int64_t[]){1, 3, 3, c});
    sm_node *temb = sm_const(m.g, SM_F32, 2, (int64_t[]){1, 2}, (float[2]){1, 2});
    nn_scope a = nn_sub(&m.s, "a"), b = nn_sub(&m.s, "b");
    sm_weights_create(m.w, "a.time_emb_proj.weight", 2, (int64_t[]){2 * c, 2}, &m.e);
    float *constant = sm_weights_create(m.w, "a.time_emb_proj.bias", 1, (int64_t[]){2 * c}, &m.e)->t.data;
    sm_node *ya = nn_resnet_block(&a, x, temb, c, 2, 1e-5f), *yb = nn_resnet_block(&b, x, NULL, c, 2, 1e-5f);
    const char *const shared[] = {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"};
    for (size_t i = 0; i < SM_COUNT(shared); i++) {
        char from[64], to[64];
        snprintf(from, sizeof from, "b.%s", shared[i]);
        snprintf(to, sizeof to, "a.%s", shared[i]);
        memcpy(sm_weights_find(m.w, to)->t.data, sm_weights_find(m.w, from)->t.data, sm_weights_find(m.w, to)->bytes);
    }
    float *w = sm_weights_find(m.w, "b.norm2.weight")->t.data, *bias = sm_weights_find(m.w, "b.norm2.bias")->t.data;
    for (int i = 0; i < c; i++) {
        w[i] = 1 + (constant[i] = 0.3f * (float)i - 0.2f);
        bias[i] = constant[c + i] = 0.5f - 0.4f * (float)i;
    }
    float *va = evaluate(&m, x, ya), *vb = evaluate(&m, x, yb);
    CHECK(test_maxdiff(va, vb, 9 * c) <= 1e-5 * test_rms(vb, 9 * c));
    sm_free(va);
    sm_free(vb);
    model_close(&m);
}

/* ---- whole models made anew ------------------------------------------------------------------------------------------ */

static const sm_unet_config UNET = {
    .in_channels = 4, .out_channels = 4, .blocks = 2, .block_out_channels = {8, 16}, .layers_per_block = {1, 1},
    .transformer_layers_per_block = {1, 1}, .attention_head_dim = {2, 2}, .down_attention = {true}, .up_attention = {false, true},
    .mid_block = SM_MID_CROSS, .cross_attention_dim = 12, .norm_num_groups = 4, .norm_eps = 1e-5f, .flip_sin_to_cos = true,
};
static const sm_vae_config VAE = {
    .in_channels = 3, .out_channels = 3, .latent_channels = 4, .blocks = 2, .block_out_channels = {8, 16}, .layers_per_block = 1,
    .norm_num_groups = 4, .scaling_factor = 0.5f, .shift_factor = 0.25f, .use_quant_conv = true, .mid_block_add_attention = true,
};
static const sm_mmdit_config MMDIT = {
    .sample_size = 8, .patch_size = 2, .in_channels = 4, .out_channels = 4, .num_layers = 2, .attention_head_dim = 8,
    .num_attention_heads = 2, .joint_attention_dim = 12, .caption_projection_dim = 16, .pooled_projection_dim = 10,
    .pos_embed_max_size = 6, .dual_attention = {true}, .qk_norm = 1,
};
static const sm_clip_config CLIP = {
    .vocab_size = 50, .hidden_size = 12, .intermediate_size = 24, .num_hidden_layers = 2, .num_attention_heads = 2,
    .max_position_embeddings = 9, .projection_dim = 10, .eos_token_id = 49, .hidden_act = SM_ACT_GELU_ERF,
    .layer_norm_eps = 1e-5f,
};

/* A pipeline's worth of models in one graph; y is the denoisers' outputs and the autoencoder's. */
static bool record_all(const nn_scope *s)
{
    sm_graph *g = s->g;
    nn_scope text = nn_sub(s, "text_encoder"), unet = nn_sub(s, "unet"), vae = nn_sub(s, "vae"), mmdit = nn_sub(s, "transformer");
    sm_node *ids = sm_input(g, "ids", SM_I32, 2, (int64_t[]){2, 9}), *eos = sm_input(g, "eos", SM_I32, 1, (int64_t[]){2});
    sm_node *x = sm_input(g, "x", SM_F32, 4, (int64_t[]){2, 8, 6, 4}), *t = sm_input(g, "t", SM_F32, 1, (int64_t[]){2});
    nn_here(&text);
    sm_clip_out o = sm_clip_text(&text, &CLIP, ids, eos);
    nn_here(&unet);
    sm_node *u = sm_unet(&unet, &UNET, x, t, o.last, NULL);
    nn_here(&mmdit);
    sm_node *m = sm_mmdit(&mmdit, &MMDIT, x, t, o.last, o.projected ? o.projected : g->poison);
    nn_here(&vae);
    sm_node *image = sm_vae_decode(&vae, &VAE, x), *z = sm_vae_encode(&vae, &VAE, image);
    return !g->err.code && sm_same_shape(u, x) && sm_same_shape(m, x) && image->dims[1] == 16 && image->dims[3] == 3 &&
           z->dims[2] == 6 && z->dims[3] == 8;
}

/* Recorded once it is made; recorded again it is found, whole and unchanged, without a generator. */
TEST(nn_models_made_then_loaded)
{
    model m;
    model_open(&m, 3);
    CHECKF(record_all(&m.s), "%s", m.g->err.msg);
    size_t count = sm_weights_count(m.w);
    int nodes = m.g->count;
    nn_scope again = nn_root(m.g, m.w, NULL);
    CHECKF(record_all(&again), "%s", m.g->err.msg);
    CHECK(sm_weights_count(m.w) == count && m.g->count == 2 * nodes);
    for (size_t i = 0; i < count; i++)
        CHECK(sm_weights_at(m.w, i)->used);
    const char *const made[] = {
        "unet.down_blocks.0.downsamplers.0.conv.bias",
        "unet.up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_out.0.bias",
        "vae.quant_conv.weight", "vae.decoder.mid_block.attentions.0.to_q.bias", "text_encoder.text_projection.weight",
        "transformer.transformer_blocks.0.attn2.norm_q.weight", "transformer.transformer_blocks.1.attn.add_q_proj.weight"};
    const char *const none[] = {
        "unet.down_blocks.1.downsamplers.0.conv.bias",
        "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.bias",
        "vae.post_quant_conv.weight", "text_encoder.text_projection.bias", "transformer.transformer_blocks.1.attn2.to_q.weight",
        "transformer.transformer_blocks.1.attn.to_add_out.weight", "transformer.transformer_blocks.1.ff_context.net.2.weight"};
    for (size_t i = 0; i < SM_COUNT(made); i++)
        CHECKF(sm_weights_find(m.w, made[i]) && !sm_weights_find(m.w, none[i]), "%s, not %s", made[i], none[i]);
    CHECK(!sm_weights_find(m.w, "transformer.pos_embed.pos_embed")->mutable_data);
    check_all(&m, "unet.conv_out.weight", 0);
    check_all(&m, "transformer.proj_out.weight", 0);
    check_all(&m, "transformer.transformer_blocks.0.norm1.linear.bias", 0);
    model_close(&m);
}

/* A new position table is the one that diffusers makes for the same sizes (the fixture's is not random). */
TEST(nn_mmdit_position_table)
{
    model m;
    sm_mmdit_config c;
    model_open(&m, 1);
    sm_st *f = sm_st_open(test_fixture("mmdit_tiny.safetensors"), NULL, &m.e);
    const sm_st_entry *want = f ? sm_st_find(f, "w.pos_embed.pos_embed") : NULL;
    const char *json = f ? sm_st_metadata(f, "config") : NULL;
    CHECKF(want && json && sm_config_read(SM_MODEL_MMDIT, json, strlen(json), &c, &m.e) == SUMI_OK, "%s", m.e.msg);
    if (want && json && !m.e.code) {
        sm_node *x = sm_input(m.g, "x", SM_F32, 4, (int64_t[]){1, 8, 8, c.in_channels});
        sm_node *t = sm_input(m.g, "t", SM_F32, 1, (int64_t[]){1});
        sm_node *ctx = sm_input(m.g, "ctx", SM_F32, 3, (int64_t[]){1, 3, c.joint_attention_dim});
        sm_mmdit(&m.s, &c, x, t, ctx, sm_input(m.g, "p", SM_F32, 2, (int64_t[]){1, c.pooled_projection_dim}));
        int64_t n;
        const float *made = values(&m, "pos_embed.pos_embed", &n);
        float *copy = sm_alloc(NULL, SM_MEM_MISC, want->bytes); /* the file's data need not be aligned */
        memcpy(copy, want->data, want->bytes);
        CHECK(made && (size_t)n * 4 == want->bytes && test_maxdiff(made, copy, n) <= 1e-6);
        sm_free(copy);
    }
    sm_st_close(f);
    model_close(&m);
}

/* Each allocation fails in turn: an error, no crash, nothing lost. */
TEST(nn_models_allocation_failures)
{
    int64_t at = 1;
    for (bool done = false; !done && at < 100000; at += 1 + at / 16) {
        model m = {.init = {.seed = 3}};
        m.mem.fail_at = at;
        m.w = sm_weights_new(&m.mem, &m.e);
        m.g = m.w ? sm_graph_new(&m.mem, &m.e) : NULL;
        if (m.g) {
            m.s = nn_root(m.g, m.w, &m.init);
            done = record_all(&m.s);
            CHECKF(done || m.g->err.code == SUMI_E_MEMORY, "allocation %lld: %s", (long long)at, m.g->err.msg);
        } else {
            CHECK(m.e.code == SUMI_E_MEMORY);
        }
        model_close(&m);
    }
    CHECKF(at > 100 && at < 100000, "stopped at %lld", (long long)at);
}

/* ---- config.json ------------------------------------------------------------------------------------------------------ */

static sumi_status read_text(sm_model_kind kind, const char *json, void *config, sm_err *e)
{
    sm_err_clear(e);
    return sm_config_read(kind, json, strlen(json), config, e);
}

/* From the published config.json of Stable Diffusion 2 and XL, shortened. */
TEST(config_unet)
{
    sm_err e;
    sm_unet_config c;
    CHECK(read_text(SM_MODEL_UNET,
        "{\"block_out_channels\": [320, 640, 1280, 1280], \"attention_head_dim\": [5, 10, 20, 20], \"cross_attention_dim\": 1024,"
        " \"down_block_types\": [\"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\", \"DownBlock2D\"],"
        " \"up_block_types\": [\"UpBlock2D\", \"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\"],"
        " \"use_linear_projection\": true, \"sample_size\": 96, \"class_embed_type\": null}", &c, &e) == SUMI_OK);
    CHECK(c.blocks == 4 && c.attention_head_dim[2] == 20 && c.layers_per_block[3] == 2 && c.transformer_layers_per_block[0] == 1);
    CHECK(c.down_attention[2] && !c.down_attention[3] && !c.up_attention[0] && c.up_attention[3] && c.mid_block == SM_MID_CROSS);
    CHECK(c.norm_num_groups == 32 && fabsf(c.norm_eps - 1e-5f) < 1e-11f);
    CHECK(c.flip_sin_to_cos && c.use_linear_projection && !c.text_time);
    CHECK(read_text(SM_MODEL_UNET,
        "{\"block_out_channels\": [320, 640, 1280], \"transformer_layers_per_block\": [1, 2, 10],"
        " \"addition_embed_type\": \"text_time\","
        " \"addition_time_embed_dim\": 256, \"projection_class_embeddings_input_dim\": 2816, \"mid_block_type\": null,"
        " \"cross_attention_dim\": [2048, 2048, 2048],"
        " \"down_block_types\": [\"DownBlock2D\", \"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\"],"
        " \"up_block_types\": [\"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\", \"UpBlock2D\"]}", &c, &e) == SUMI_OK);
    CHECK(c.text_time == 1 && c.transformer_layers_per_block[2] == 10);
    CHECK(c.cross_attention_dim == 2048 && c.mid_block == SM_MID_NONE);
}

/* Written and read again, every field comes back. */
#define ROUND_TRIP(KIND, TYPE, VALUE)                                                                        \
    do {                                                                                                     \
        sm_buf b = {0};                                                                                      \
        TYPE back;                                                                                           \
        sm_config_write(KIND, &VALUE, &b);                                                                   \
        CHECK(!b.oom && read_text(KIND, b.data, &back, &e) == SUMI_OK && !memcmp(&back, &VALUE, sizeof back)); \
        sm_buf_free(&b);                                                                                     \
    } while (0)

TEST(config_round_trip)
{
    sm_err e;
    sm_unet_config unet;
    sm_vae_config vae;
    sm_mmdit_config mmdit;
    sm_clip_config clip;
    memset(&unet, 0, sizeof unet); /* padding bytes are compared too */
    memset(&vae, 0, sizeof vae);
    memset(&mmdit, 0, sizeof mmdit);
    memset(&clip, 0, sizeof clip);
    unet = UNET;
    vae = VAE;
    mmdit = MMDIT;
    clip = CLIP;
    ROUND_TRIP(SM_MODEL_UNET, sm_unet_config, unet);
    ROUND_TRIP(SM_MODEL_VAE, sm_vae_config, vae);
    ROUND_TRIP(SM_MODEL_MMDIT, sm_mmdit_config, mmdit);
    ROUND_TRIP(SM_MODEL_CLIP, sm_clip_config, clip);
}

#define PLAIN "\"down_block_types\": [\"DownBlock2D\"], \"up_block_types\": [\"UpBlock2D\"]"

TEST(config_refused)
{
    static const struct { sm_model_kind kind; sumi_status status; const char *json, *says; } bad[] = {
        {SM_MODEL_UNET, SUMI_E_FORMAT, "", "config"},
        {SM_MODEL_UNET, SUMI_E_FORMAT, "[1, 2]", "not a JSON object"},
        {SM_MODEL_UNET, SUMI_E_FORMAT, "{}", "block_out_channels"},
        {SM_MODEL_UNET, SUMI_E_FORMAT, "{\"block_out_channels\": [1,2,3,4,5,6,7,8,9]}", "block_out_channels"},
        {SM_MODEL_UNET, SUMI_E_FORMAT, "{\"block_out_channels\": [8, -1]}", "block_out_channels"},
        {SM_MODEL_UNET, SUMI_E_FORMAT, "{\"block_out_channels\": [8], \"layers_per_block\": [1, 2]}", "layers_per_block"},
        {SM_MODEL_VAE, SUMI_E_FORMAT, "{\"block_out_channels\": [8], \"norm_num_groups\": 1e300}", "norm_num_groups"},
        {SM_MODEL_VAE, SUMI_E_FORMAT, "{\"block_out_channels\": [8], \"scaling_factor\": \"small\"}", "scaling_factor"},
        {SM_MODEL_UNET, SUMI_E_SUPPORT, "{\"block_out_channels\": [8], \"down_block_types\": [\"K\"]}", "block type K"},
        {SM_MODEL_UNET, SUMI_E_SUPPORT, "{\"block_out_channels\": [8], " PLAIN ", \"class_embed_type\": \"timestep\"}",
            "class_embed_type"},
        {SM_MODEL_UNET, SUMI_E_SUPPORT,
            "{\"block_out_channels\": [8], " PLAIN ", \"mid_block_type\": \"UNetMidBlock2DSimpleCrossAttn\"}",
            "mid_block_type"},
        {SM_MODEL_CLIP, SUMI_E_FORMAT, "{\"vocab_size\": [3, 4]}", "vocab_size"},
        {SM_MODEL_CLIP, SUMI_E_SUPPORT, "{\"hidden_act\": \"mish\"}", "hidden_act"},
        {SM_MODEL_MMDIT, SUMI_E_FORMAT, "{\"dual_attention_layers\": [64]}", "dual_attention_layers"},
        {SM_MODEL_MMDIT, SUMI_E_SUPPORT, "{\"qk_norm\": \"layer_norm\"}", "qk_norm"},
    };
    for (size_t i = 0; i < SM_COUNT(bad); i++) {
        union { sm_unet_config u; sm_vae_config v; sm_mmdit_config m; sm_clip_config c; } any;
        sm_err e;
        sumi_status s = read_text(bad[i].kind, bad[i].json, &any, &e);
        CHECKF(s == bad[i].status && strstr(e.msg, bad[i].says), "%s: %d %s", bad[i].json, (int)s, e.msg);
    }
}

/* The end of text: first eos id, or, in configs of the old kind (eos_token_id 2), the first largest id. */
TEST(clip_eos_rows)
{
    const int32_t ids[2][5] = {{8, 3, 9, 9, 4}, {8, 9, 3, 10, 10}};
    int32_t rows[2];
    sm_clip_config c = CLIP;
    c.eos_token_id = 9;
    sm_clip_eos_rows(&c, ids[0], 2, 5, rows);
    CHECK(rows[0] == 2 && rows[1] == 5 + 1);
    c.eos_token_id = 2;
    sm_clip_eos_rows(&c, ids[0], 2, 5, rows);
    CHECK(rows[0] == 2 && rows[1] == 5 + 3);
}
