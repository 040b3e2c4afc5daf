/* Fuzz entry of a model's folder in diffusers' layout: the first byte says which of its small files the rest of the input is; all
 * others are those of a tiny model. The folder opens or says why not in one line that names it. 'm' is no file but the
 * configuration that sumi's own files carry. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/safetensors.h"
#include "pipeline/model.h"

static const char *const files[] = {
    "model_index.json", "scheduler/scheduler_config.json", "vae/config.json", "unet/config.json", "text_encoder/config.json",
    "tokenizer/vocab.json", "tokenizer/merges.txt", "unet/model.safetensors.index.json"};

static const char unet[] =
    "{\"block_out_channels\":[8],\"layers_per_block\":1,\"down_block_types\":[\"CrossAttnDownBlock2D\"],\"up_block_types\":"
    "[\"CrossAttnUpBlock2D\"],\"attention_head_dim\":2,\"cross_attention_dim\":8,\"norm_num_groups\":2,\"sample_size\":8}";
static const char vae[] =
    "{\"block_out_channels\":[8],\"layers_per_block\":1,\"norm_num_groups\":2,\"down_block_types\":[\"DownEncoderBlock2D\"],"
    "\"up_block_types\":[\"UpDecoderBlock2D\"],\"latents_mean\":[0,0,0,0],\"latents_std\":[1,1,1,1]}";
static const char text[] = "{\"vocab_size\":514,\"hidden_size\":8,\"intermediate_size\":8,\"num_hidden_layers\":1,"
                           "\"num_attention_heads\":1,\"max_position_embeddings\":8,\"eos_token_id\":513}";

static char dir[64];
static sm_buf original[sizeof files / sizeof *files];

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void put(const char *name, const char *data, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    check(f && fwrite(data, 1, n, f) == n && !fclose(f));
}

static void remove_all(void)
{
    static const char *const folders[] = {"unet", "vae", "text_encoder", "tokenizer", "scheduler"};
    char path[128];
    for (size_t i = 0; i < SM_COUNT(files); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    for (size_t i = 0; i < SM_COUNT(folders); i++) {
        snprintf(path, sizeof path, "%s/%s/model.safetensors", dir, folders[i]);
        unlink(path);
        snprintf(path, sizeof path, "%s/%s", dir, folders[i]);
        rmdir(path);
    }
    rmdir(dir);
}

/* Weights of one part by recording it on an empty table. */
static void make_part(const char *part, sm_model_kind kind, const char *json)
{
    union { sm_unet_config unet; sm_vae_config vae; sm_clip_config clip; } c;
    char path[128];
    nn_init init = {.seed = 1};
    sm_err e = {0};
    int64_t one = 1;
    sm_weights *w = sm_weights_new(NULL, &e);
    sm_graph *g = sm_graph_new(NULL, &e);
    check(w && g && !sm_config_read(kind, json, strlen(json), &c, &e));
    nn_scope s = nn_root(g, w, &init);
    if (kind == SM_MODEL_CLIP) {
        sm_clip_text(&s, &c.clip, sm_input(g, "ids", SM_I32, 2, (int64_t[]){1, 8}), NULL);
    } else if (kind == SM_MODEL_VAE) {
        sm_vae_decode(&s, &c.vae, sm_input(g, "z", SM_F32, 4, (int64_t[]){1, 2, 2, 4}));
    } else {
        sm_node *x = sm_input(g, "x", SM_F32, 4, (int64_t[]){1, 2, 2, 4}), *t = sm_input(g, "t", SM_F32, 1, &one);
        sm_unet(&s, &c.unet, x, t, sm_input(g, "ctx", SM_F32, 3, (int64_t[]){1, 8, 8}), NULL);
    }
    snprintf(path, sizeof path, "%s/%s/model.safetensors", dir, part);
    check(!g->err.code && !sm_st_write_weights(path, w, SM_F32, 0, NULL, NULL, &e));
    sm_graph_free(g);
    sm_weights_unref(&w);
}

static void put_vocab(sm_buf *b)
{
    sm_err e = {0};
    sm_bpe *bpe = sm_bpe_from_merges(NULL, "", 0, &e);
    for (int32_t i = 0; bpe && i < sm_bpe_size(bpe); i++) {
        sm_buf_fmt(b, i ? ",\"" : "{\"");
        for (const char *s = sm_bpe_token(bpe, i); *s; s++)
            sm_buf_fmt(b, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
        sm_buf_fmt(b, "\":%d", (int)i);
    }
    sm_buf_fmt(b, "}");
    sm_bpe_free(bpe);
}

static void make_folder(void)
{
    static const char *const folders[] = {"", "/unet", "/vae", "/text_encoder", "/tokenizer", "/scheduler"};
    char path[128];
    snprintf(dir, sizeof dir, "%s/sumi-fuzz-%ld", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", (long)getpid());
    for (size_t i = 0; i < SM_COUNT(folders); i++) {
        snprintf(path, sizeof path, "%s%s", dir, folders[i]);
        mkdir(path, 0700);
    }
    atexit(remove_all);
    make_part("unet", SM_MODEL_UNET, unet);
    make_part("vae", SM_MODEL_VAE, vae);
    make_part("text_encoder", SM_MODEL_CLIP, text);
    sm_buf_fmt(&original[0], "{}");
    sm_buf_fmt(&original[1], "{\"prediction_type\":\"epsilon\",\"beta_schedule\":\"scaled_linear\"}");
    sm_buf_fmt(&original[2], "%s", vae);
    sm_buf_fmt(&original[3], "%s", unet);
    sm_buf_fmt(&original[4], "%s", text);
    put_vocab(&original[5]);
    sm_buf_fmt(&original[6], "#version: 0.2\n");
    for (size_t i = 0; i < SM_COUNT(files); i++)
        if (original[i].data)
            put(files[i], original[i].data, original[i].len);
}

static bool opens(sm_err *e)
{
    sm_mem mem = {0};
    sumi_model *m = NULL;
    sumi_status st = sm_model_open(&m, &mem, &(sumi_model_options){.path = dir}, true, e);
    check((st == SUMI_OK) == (m != NULL) && st == e->code);
    sumi_model_free(m);
    check(mem.total == 0);
    return !st;
}

/* What is read is written and read again as the same. */
static void configuration(const char *data, size_t n)
{
    sm_mem mem = {0};
    sm_err e = {0};
    sm_buf b = {0}, c = {0};
    char *json = malloc(n + 1);
    check(json != NULL);
    memcpy(json, data, n);
    json[n] = 0;
    sumi_model m = {.mem = &mem}, again = {.mem = &mem};
    if (sm_model_configure(&m, json, "fuzz", &e)) {
        check(e.msg[0] && !strchr(e.msg, '\n'));
    } else {
        sm_model_describe(&m, &b);
        check(!b.oom && !sm_model_configure(&again, b.data, "fuzz", &e));
        sm_model_describe(&again, &c);
        check(!c.oom && !strcmp(b.data, c.data));
    }
    sm_buf_free(&b);
    sm_buf_free(&c);
    free(json);
    check(mem.total == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sm_err e = {0};
    size_t i = size ? (size_t)(data[0] - '0') : 99;
    if (!dir[0]) {
        make_folder();
        check(opens(&e));
    }
    if (size && data[0] == 'm') {
        configuration((const char *)data + 1, size - 1);
        return 0;
    }
    if (i >= SM_COUNT(files))
        return 0;
    put(files[i], (const char *)data + 1, size - 1);
    if (!opens(&e))
        check(e.msg[0] && !strchr(e.msg, '\n') && strstr(e.msg, dir));
    if (original[i].data) {
        put(files[i], original[i].data, original[i].len);
    } else {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    return 0;
}
