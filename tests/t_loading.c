/* Whatever a model lies in loads as the same model, and what lacks something says what: own files under other programs' names,
 * folders as one file, sets of weights under every name, parts and tensors that are not there, names that a terminal would obey,
 * tokenizers that are pipes. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/shown.h"
#include "families.h"
#include "hub/listing.h"
#include "io/tensors.h"
#include "io/weight_files.h"
#include "model/layout.h"
#include "test.h"
#include "text/bpe.h"
#include "tiny.h"

static const char *const parts[] = {"unet", "vae", "text_encoder"};

static void copy(const char *from, const char *to)
{
    sm_buf b = {0};
    sm_err e = {0};
    CHECKF(!sm_file_read(from, 1 << 28, &b, &e) && !sm_file_write(to, b.data, b.len, &e), "%s", e.msg);
    sm_buf_free(&b);
}

/* The one picture of a few steps; false with the message in out, which has 640 bytes. */
static bool draw(const sumi_model_options *o, uint8_t *rgb, char *out)
{
    sumi_context *ctx;
    sumi_model *m = NULL;
    sumi_images *im = NULL;
    sumi_request r = sumi_request_default();
    r.prompt = "a cat";
    r.steps = 2;
    r.seed = 1;
    r.width = r.height = 16;
    CHECK(sumi_context_new(&(sumi_context_options){.threads = 1}, &ctx) == SUMI_OK);
    bool ok = !sumi_model_load_with(ctx, o, &m) && !sumi_generate(ctx, m, &r, NULL, &im);
    snprintf(out, 640, "%s", sumi_error(ctx));
    if (ok)
        memcpy(rgb, sumi_images_at(im, 0)->pixels, 16 * 16 * 3);
    sumi_images_free(im);
    sumi_model_free(m);
    sumi_context_free(ctx);
    return ok;
}

static bool same_picture(const sumi_model_options *a, const sumi_model_options *b, char *out)
{
    uint8_t x[16 * 16 * 3] = {0}, y[16 * 16 * 3] = {1};
    bool ok = draw(a, x, out) && draw(b, y, out) && !memcmp(x, y, sizeof x);
    if (!ok && !out[0])
        snprintf(out, 640, "other pixels");
    return ok;
}

static void convert(const char *in, const char *out, sumi_convert_options o, char *text)
{
    sumi_context *ctx;
    char *summary = NULL;
    CHECK(sumi_context_new(&(sumi_context_options){.threads = 1}, &ctx) == SUMI_OK);
    CHECKF(!sumi_convert(ctx, in, out, &o, NULL, &summary), "%s", sumi_error(ctx));
    if (text)
        snprintf(text, 2000, "%s", summary ? summary : "");
    sumi_text_free(summary);
    sumi_context_free(ctx);
}

/* ---- own files --------------------------------------------------------------------------------------------------- */

TEST(load_own_under_other_names)
{
    static const sumi_convert_options ways[] = {
        {.layout = "original", .format = "safetensors"}, {.layout = "diffusers", .format = "safetensors"},
        {.layout = "original", .format = "gguf"}, {.format = "gguf"}};
    char path[300], msg[640];
    for (size_t i = 0; i < SM_COUNT(ways); i++) {
        snprintf(path, sizeof path, "%s", test_tmp("own-other.bin"));
        convert(tiny_model(TINY_UNET), path, ways[i], NULL);
        CHECKF(same_picture(&(sumi_model_options){.path = tiny_model(TINY_UNET)}, &(sumi_model_options){.path = path}, msg),
               "way %zu: %s", i, msg);
    }
}

/* Component of the tiny model as a folder in diffusers' layout; with a scheduler, as every such folder has. */
static void write_component(const sm_st *f, const char *dir, const char *part, const cJSON *config)
{
    enum { MOST = 300 };
    sm_st_item item[MOST];
    char path[400];
    sm_err e = {0};
    size_t n = 0, k = strlen(part);
    char *text = cJSON_PrintUnformatted(cJSON_GetObjectItem(config, part));
    snprintf(path, sizeof path, "%s/%s", dir, part);
    CHECK(!mkdir(path, 0777));
    for (size_t i = 0; i < sm_st_count(f) && n < MOST; i++) {
        const sm_st_entry *x = sm_st_at(f, i);
        if (strncmp(x->name, part, k) || x->name[k] != '.')
            continue;
        item[n] = (sm_st_item){.name = x->name + k + 1, .t = {.data = (void *)x->data, .dtype = x->type, .rank = x->rank}};
        memcpy(item[n++].t.dims, x->dims, sizeof item[0].t.dims);
    }
    snprintf(path, sizeof path, "%s/%s/config.json", dir, part);
    CHECK(text && !sm_file_write(path, text, strlen(text), &e));
    snprintf(path, sizeof path, "%s/%s/model.safetensors", dir, part);
    CHECKF(!sm_st_write(path, n, item, 0, NULL, NULL, &e), "%s", e.msg);
    cJSON_free(text);
}

/* shift: the ids that vocab.json gives are moved by so much, so that merges alone do not tell them. */
static void write_folder(const char *dir, int shift)
{
    static const char scheduler[] = "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"shift\":1.0}";
    char path[400];
    sm_err e = {0};
    sm_st *f = sm_st_open(tiny_model(TINY_UNET), NULL, &e);
    CHECKF(f && !mkdir(dir, 0777), "%s", e.msg);
    cJSON *config = cJSON_Parse(f ? sm_st_metadata(f, "sumi.model") : "{}"), *vocab = cJSON_CreateObject();
    const char *merges = f ? sm_st_metadata(f, "merges") : "";
    for (size_t i = 0; f && i < SM_COUNT(parts); i++)
        write_component(f, dir, parts[i], config);
    sm_bpe *b = sm_bpe_from_merges(NULL, merges, strlen(merges), &e);
    int32_t n = b ? sm_bpe_size(b) : 0;
    for (int32_t i = 0; i < n; i++)
        cJSON_AddNumberToObject(vocab, sm_bpe_token(b, i), i < n - 2 ? (i + shift) % (n - 2) : i);
    char *text = cJSON_PrintUnformatted(vocab);
    snprintf(path, sizeof path, "%s/tokenizer", dir);
    CHECK(!mkdir(path, 0777));
    snprintf(path, sizeof path, "%s/tokenizer/vocab.json", dir);
    CHECK(text && !sm_file_write(path, text, strlen(text), &e));
    snprintf(path, sizeof path, "%s/tokenizer/merges.txt", dir);
    CHECK(!sm_file_write(path, merges, strlen(merges), &e));
    snprintf(path, sizeof path, "%s/scheduler", dir);
    CHECK(!mkdir(path, 0777));
    snprintf(path, sizeof path, "%s/scheduler/scheduler_config.json", dir);
    CHECK(!sm_file_write(path, scheduler, sizeof scheduler - 1, &e));
    snprintf(path, sizeof path, "%s/model_index.json", dir);
    CHECK(!sm_file_write(path, "{}", 2, &e));
    cJSON_free(text);
    cJSON_Delete(vocab);
    cJSON_Delete(config);
    sm_bpe_free(b);
    sm_st_close(f);
}

/* Neither flow nor the words are in the tensors: the one file gets what the folder says. */
TEST(load_flow_folder_as_one_file)
{
    char dir[300], path[300], words[400], text[2000], msg[640];
    snprintf(path, sizeof path, "%s", test_tmp("flow.safetensors"));
    snprintf(dir, sizeof dir, "%s", test_tmp("flow-folder"));
    write_folder(dir, 0);
    convert(dir, path, (sumi_convert_options){0}, NULL);
    CHECKF(same_picture(&(sumi_model_options){.path = dir}, &(sumi_model_options){.path = path}, msg), "%s", msg);
    convert(dir, path, (sumi_convert_options){.layout = "original"}, NULL);
    CHECKF(same_picture(&(sumi_model_options){.path = dir}, &(sumi_model_options){.path = path}, msg), "original: %s", msg);
    snprintf(dir, sizeof dir, "%s", test_tmp("flow-folder-shifted"));
    write_folder(dir, 1);
    snprintf(words, sizeof words, "%s/tokenizer", dir);
    convert(dir, path, (sumi_convert_options){0}, text);
    CHECKF(strstr(text, "--tokenizer"), "%s", text);
    sumi_model_options with = {.path = path, .tokenizer = words};
    CHECKF(same_picture(&(sumi_model_options){.path = dir}, &with, msg), "other ids: %s", msg);
    uint8_t rgb[16 * 16 * 3];
    CHECKF(!draw(&(sumi_model_options){.path = path}, rgb, msg) && strstr(msg, "--tokenizer"), "%s", msg);
}

/* The configuration in the metadata is that of the autoencoder that is in the file. */
TEST(load_own_with_other_autoencoder)
{
    char path[300], msg[640];
    const char *own = tiny_model(TINY_UNET);
    sumi_model_options with = {.path = own, .vae = own}; /* what its tensors tell is not quite what its configuration says */
    snprintf(path, sizeof path, "%s", test_tmp("own-vae.safetensors"));
    convert(own, path, (sumi_convert_options){.vae = own}, NULL);
    CHECKF(same_picture(&with, &(sumi_model_options){.path = path}, msg), "%s", msg);
}

/* A part that is a folder is what its own config.json says, not what its tensors let guess. */
TEST(load_part_folders)
{
    char part[3][400], config[500], msg[640];
    const char *dir = family_model("sd1", FAMILY_FOLDER);
    for (int i = 0; i < 3; i++)
        snprintf(part[i], sizeof part[i], "%s/%s", dir, parts[i]);
    sumi_model_options whole = {.path = dir, .tokenizer = family_tokenizer()}, with = whole;
    with.unet = part[0], with.vae = part[1], with.text_encoder = part[2];
    CHECKF(same_picture(&whole, &with, msg), "the folder's own parts: %s", msg);
    with.path = family_model("sd1", FAMILY_FILE);
    CHECKF(same_picture(&whole, &with, msg), "on top of one file: %s", msg);
    sm_buf was = {0};
    sm_err e = {0};
    snprintf(config, sizeof config, "%s/config.json", part[1]);
    CHECKF(!sm_file_read(config, 1 << 20, &was, &e), "%s", e.msg);
    cJSON *j = cJSON_ParseWithLength(was.data ? was.data : "", was.len);
    cJSON_DeleteItemFromObject(j, "scaling_factor");
    cJSON_AddNumberToObject(j, "scaling_factor", 0.5);
    char *text = cJSON_PrintUnformatted(j);
    CHECK(text && !sm_file_write(config, text, strlen(text), &e));
    CHECKF(same_picture(&whole, &with, msg), "another scaling_factor, from the folder and on top of the file: %s", msg);
    with.vae = NULL;
    CHECK(!same_picture(&whole, &with, msg));
    CHECK(!sm_file_write(config, "{", 1, &e));
    with.vae = part[1];
    CHECKF(!same_picture(&with, &with, msg) && strstr(msg, "vae/config.json"), "%s", msg);
    CHECK(!sm_file_write(config, was.data, was.len, &e));
    cJSON_free(text);
    cJSON_Delete(j);
    sm_buf_free(&was);
}

/* ---- weights under every name ------------------------------------------------------------------------------------ */

static const char *const pool[] = {
    "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bf16.safetensors",
    "diffusion_pytorch_model.non_ema.safetensors", "diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin",
    "diffusion_pytorch_model-00001-of-00002.safetensors", "diffusion_pytorch_model-00002-of-00002.safetensors",
    "diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
    "model.safetensors", "model.bf16.safetensors", "pytorch_model.bin", "pytorch_model-00001-of-00002.bin",
    "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json", "model-00001-of-00002.fp16.safetensors",
    "model-00002-of-00002.fp16.safetensors", "optimizer.bin", "model.onnx"};

/* The files of the pool in the bits of set: does the hub's choice hold what the loader takes? */
static void check_agreement(unsigned set, const char *dir)
{
    char path[400];
    sm_buf json = {0};
    sm_listing l;
    sm_err e = {0}, why = {0};
    sm_wf_set found;
    sm_buf_fmt(&json, "{\"sha\":\"%040d\",\"siblings\":[{\"rfilename\":\"model_index.json\",\"size\":2,\"blobId\":\"%040d\"}", 1,
               1);
    for (size_t i = 0; i < SM_COUNT(pool); i++)
        if (set >> i & 1) {
            sm_buf_fmt(&json, ",{\"rfilename\":\"unet/%s\",\"size\":1,\"blobId\":\"%040d\"}", pool[i], 1);
            snprintf(path, sizeof path, "%s/%s", dir, pool[i]);
            fclose(fopen(path, "w"));
        }
    sm_buf_fmt(&json, "]}");
    CHECKF(!sm_listing_parse(json.data, json.len, "a/b", NULL, &l, &e) &&
           !sm_listing_select(&l, &(sm_hub_wish){.path = ""}, "a/b", &e), "%s", e.msg);
    sumi_status st = sm_wf_find(dir, NULL, &found, &why);
    size_t taken = 0;
    for (size_t i = 0; i < l.n; i++)
        taken += l.at[i].taken && strncmp(l.at[i].path, "unet/", 5) == 0;
    CHECKF(st == SUMI_E_FILE || (st == SUMI_OK) == (taken > 0), "%x: %d %zu %s", set, st, taken, why.msg);
    for (int i = 0; i < found.n && !st; i++) {
        snprintf(path, sizeof path, "unet/%s", strrchr(found.path[i], '/') + 1);
        const sm_hub_file *f = sm_listing_find(&l, path);
        CHECKF(f && f->taken, "%x: %s is loaded, but not pulled", set, path);
    }
    sm_wf_free(&found);
    sm_listing_free(&l);
    sm_buf_free(&json);
    for (size_t i = 0; i < SM_COUNT(pool); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, pool[i]);
        unlink(path);
    }
}

TEST(load_takes_what_is_pulled)
{
    char dir[300];
    snprintf(dir, sizeof dir, "%s", test_tmp("names"));
    CHECK(!mkdir(dir, 0777));
    for (unsigned i = 0; i < SM_COUNT(pool); i++)
        check_agreement(1u << i, dir);
    uint32_t x = 12345;
    for (int i = 0; i < 300; i++) {
        x = x * 1664525 + 1013904223;
        unsigned set = x >> 12;
        x = x * 1664525 + 1013904223;
        check_agreement(set & x >> 12, dir); /* a quarter of the names */
    }
}

/* The folder of sd1 with all weights under other names, in a fresh folder. */
static void renamed_folder(const char *dir, const char *unet, const char *vae, const char *text, const char *source)
{
    const char *const to[] = {unet, vae, text}, *from = family_model("sd1", FAMILY_FOLDER);
    char a[400], b[400];
    mkdir(dir, 0777);
    for (size_t i = 0; i < SM_COUNT(parts); i++) {
        snprintf(b, sizeof b, "%s/%s", dir, parts[i]);
        mkdir(b, 0777);
        snprintf(a, sizeof a, "%s/%s/config.json", from, parts[i]);
        snprintf(b, sizeof b, "%s/%s/config.json", dir, parts[i]);
        copy(a, b);
        snprintf(a, sizeof a, "%s/%s/%s.safetensors", from, parts[i], i == 2 ? "model" : "diffusion_pytorch_model");
        snprintf(b, sizeof b, "%s/%s/%s", dir, parts[i], to[i]);
        copy(source ? source : a, b);
    }
    snprintf(b, sizeof b, "%s/scheduler", dir);
    mkdir(b, 0777);
    snprintf(a, sizeof a, "%s/scheduler/scheduler_config.json", from);
    snprintf(b, sizeof b, "%s/scheduler/scheduler_config.json", dir);
    copy(a, b);
    snprintf(b, sizeof b, "%s/model_index.json", dir);
    sm_file_write(b, "{}", 2, NULL);
}

TEST(load_folders_of_every_name)
{
    static const struct { const char *unet, *vae, *text; bool ckpt; } cases[] = {
        {"diffusion_pytorch_model.bf16.safetensors", "diffusion_pytorch_model.fp16.safetensors", "model.bf16.safetensors", false},
        {"diffusion_pytorch_model.non_ema.safetensors", "diffusion_pytorch_model.ema.safetensors", "model.x.safetensors", false},
        {"diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin", "pytorch_model.bin", true},
        {"diffusion_pytorch_model-00001-of-00001.bin", "diffusion_pytorch_model.bf16.bin", "pytorch_model.fp16.bin", true},
        {"diffusion_pytorch_model.fp16-00001-of-00001.safetensors", "model.safetensors", "model-00001-of-00001.safetensors",
         false},
    };
    char dir[300], one[300], ckpt[300], msg[640], name[40];
    sumi_model_options whole = {.path = family_model("sd1", FAMILY_FOLDER), .tokenizer = family_tokenizer()};
    snprintf(ckpt, sizeof ckpt, "%s", test_fixture("family_sd1.ckpt")); /* each part takes its own of it */
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        snprintf(name, sizeof name, "named-%zu", i);
        snprintf(dir, sizeof dir, "%s", test_tmp(name));
        renamed_folder(dir, cases[i].unet, cases[i].vae, cases[i].text, cases[i].ckpt ? ckpt : NULL);
        sumi_model_options o = {.path = dir, .tokenizer = family_tokenizer()};
        CHECKF(same_picture(&whole, &o, msg), "case %zu: %s", i, msg);
        snprintf(one, sizeof one, "%s", test_tmp("named.safetensors"));
        convert(dir, one, (sumi_convert_options){.layout = "original"}, NULL);
        o.path = one;
        CHECKF(same_picture(&whole, &o, msg), "case %zu, converted: %s", i, msg);
        sumi_context *ctx;
        char *text = NULL;
        CHECK(!sumi_context_new(NULL, &ctx) && !sumi_inspect(ctx, dir, 0, &text) && text && strstr(text, "Stable Diffusion 1.x"));
        sumi_text_free(text);
        sumi_context_free(ctx);
    }
}

TEST(load_shards_that_are_missing)
{
    char dir[300], path[400], msg[640];
    uint8_t rgb[16 * 16 * 3];
    snprintf(dir, sizeof dir, "%s", test_tmp("shard-missing"));
    renamed_folder(dir, "diffusion_pytorch_model-00002-of-00003.bin", "model.safetensors", "model.safetensors", NULL);
    sumi_model_options o = {.path = dir, .tokenizer = family_tokenizer()};
    CHECKF(!draw(&o, rgb, msg) && strstr(msg, "diffusion_pytorch_model-00001-of-00003.bin is missing"), "%s", msg);
    snprintf(path, sizeof path, "%s/unet/diffusion_pytorch_model-00002-of-00003.bin", dir);
    CHECK(!unlink(path));
    CHECKF(!draw(&o, rgb, msg) && strstr(msg, "no weights"), "%s", msg);
}

/* Pages of all formats can be given back. */
TEST(load_every_format_is_mapped)
{
    static const char *const files[] = {"vae_tiny.safetensors", "family_sd1.ckpt", "gguf_blocks.gguf"};
    for (size_t i = 0; i < SM_COUNT(files); i++) {
        sm_err e = {0};
        size_t mapped = 0, n = 0;
        sm_weights *w = sm_weights_new(NULL, &e);
        CHECKF(!sm_tensors_load(test_fixture(files[i]), w, NULL, NULL, &e), "%s", e.msg);
        for (size_t k = 0; k < sm_weights_count(w); k++, n++)
            mapped += sm_weights_at(w, k)->mapped;
        CHECKF(n && mapped == n, "%s: %zu of %zu tensors", files[i], mapped, n);
        sm_weights_unref(&w);
    }
}

/* ---- what is missing --------------------------------------------------------------------------------------------- */

/* Rewrites a file of tensors without one of them. */
static void drop_tensor(const char *path, const char *name)
{
    enum { MOST = 800 };
    static sm_st_item item[MOST];
    sm_err e = {0};
    size_t n = 0;
    bool found = false;
    char to[500];
    sm_st *f = sm_st_open(path, NULL, &e);
    for (size_t i = 0; f && i < sm_st_count(f) && n < MOST; i++) {
        const sm_st_entry *x = sm_st_at(f, i);
        found |= !strcmp(x->name, name);
        if (!strcmp(x->name, name))
            continue;
        item[n] = (sm_st_item){.name = x->name, .t = {.data = (void *)x->data, .dtype = x->type, .rank = x->rank}};
        memcpy(item[n++].t.dims, x->dims, sizeof item[0].t.dims);
    }
    snprintf(to, sizeof to, "%s.less", path);
    CHECKF(found && !sm_st_write(to, n, item, 0, NULL, NULL, &e) && !rename(to, path), "%s: %s", name, e.msg);
    sm_st_close(f);
}

/* Known when the model is opened, not when the part's turn comes. */
TEST(load_names_missing_tensors)
{
    static const struct { const char *part, *tensor, *flag; } cases[] = {
        {"unet", "up_blocks.0.resnets.0.conv2.weight", "--unet FILE"},
        {"vae", "decoder.mid_block.resnets.1.conv1.weight", "--vae FILE"},
        {"text_encoder", "text_model.final_layer_norm.weight", "--text-encoder FILE"}};
    char dir[300], path[400], msg[640];
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        sumi_context *ctx;
        sumi_model *m = NULL;
        snprintf(path, sizeof path, "lacks-%zu", i);
        snprintf(dir, sizeof dir, "%s", test_tmp(path));
        renamed_folder(dir, "model.safetensors", "model.safetensors", "model.safetensors", NULL);
        snprintf(path, sizeof path, "%s/%s/model.safetensors", dir, cases[i].part);
        drop_tensor(path, cases[i].tensor);
        sumi_model_options o = {.path = dir, .tokenizer = family_tokenizer()};
        CHECK(!sumi_context_new(NULL, &ctx));
        CHECKF(sumi_model_load_with(ctx, &o, &m) == SUMI_E_MODEL && strstr(sumi_error(ctx), cases[i].tensor) &&
               strstr(sumi_error(ctx), cases[i].flag), "%s", sumi_error(ctx));
        sumi_model_free(m);
        sumi_context_free(ctx);
        /* the flag's file takes its place, damaged or not */
        snprintf(path, sizeof path, "%s/%s", family_model("sd1", FAMILY_FOLDER), cases[i].part);
        *(i == 0 ? &o.unet : i == 1 ? &o.vae : &o.text_encoder) = path;
        sumi_model_options whole = {.path = family_model("sd1", FAMILY_FOLDER), .tokenizer = family_tokenizer()};
        CHECKF(same_picture(&whole, &o, msg), "%s: %s", cases[i].part, msg);
    }
}

TEST(load_names_missing_parts)
{
    static const char *const flags[] = {"--unet FILE", "--vae FILE", "--text-encoder FILE"};
    char dir[300], path[400], msg[640];
    uint8_t rgb[16 * 16 * 3];
    for (size_t i = 0; i < SM_COUNT(parts); i++) {
        snprintf(path, sizeof path, "partless-%zu", i);
        snprintf(dir, sizeof dir, "%s", test_tmp(path));
        renamed_folder(dir, "model.safetensors", "model.safetensors", "model.safetensors", NULL);
        snprintf(path, sizeof path, "%s/%s/config.json", dir, parts[i]);
        CHECK(!unlink(path));
        sumi_model_options o = {.path = dir, .tokenizer = family_tokenizer()};
        CHECKF(!draw(&o, rgb, msg) && strstr(msg, flags[i]) && strstr(msg, "partless"), "%s: %s", parts[i], msg);
        snprintf(path, sizeof path, "%s/%s", family_model("sd1", FAMILY_FOLDER), parts[i]);
        *(i == 0 ? &o.unet : i == 1 ? &o.vae : &o.text_encoder) = path;
        CHECKF(draw(&o, rgb, msg), "%s: %s", parts[i], msg);
    }
    const char *xl = family_model("xl", FAMILY_FOLDER);
    char kept[420];
    snprintf(path, sizeof path, "%s/text_encoder_2/config.json", xl);
    snprintf(kept, sizeof kept, "%s.kept", path);
    CHECK(!rename(path, kept));
    sumi_model_options o = {.path = xl, .tokenizer = family_tokenizer()};
    CHECKF(!draw(&o, rgb, msg) && strstr(msg, "--text-encoder-2 FILE"), "%s", msg);
    CHECK(!rename(kept, path));
}

/* Latents are divided by these numbers. */
TEST(load_latents_statistics)
{
    static const struct { const char *config; bool good; } cases[] = {
        {"\"latents_mean\":[0,1,2,3],\"latents_std\":[1,2,3,4]", true}, {"\"latents_mean\":null,\"latents_std\":null", true},
        {"\"latents_mean\":[0,1,2,3],\"latents_std\":[1,0,3,4]", false},
        {"\"latents_mean\":[0,1,2,3],\"latents_std\":[1,-2,3,4]", false},
        {"\"latents_mean\":[0,1,2,3],\"latents_std\":[1,2,3,\"4\"]", false},
        {"\"latents_mean\":[0,1,null,3],\"latents_std\":[1,2,3,4]", false},
        {"\"latents_mean\":[0,1,2,1e300],\"latents_std\":[1,2,3,4]", false}};
    char path[400], msg[640];
    uint8_t rgb[16 * 16 * 3];
    sm_err e = {0};
    const char *dir = family_model("playground", FAMILY_FOLDER);
    sumi_model_options o = {.path = dir, .tokenizer = family_tokenizer()};
    snprintf(path, sizeof path, "%s/vae/config.json", dir);
    sm_buf was = {0}, now = {0};
    CHECKF(!sm_file_read(path, 1 << 20, &was, &e), "%s", e.msg);
    const char *end = was.data ? strrchr(was.data, '}') : NULL;
    for (size_t i = 0; end && i < SM_COUNT(cases); i++) {
        cJSON *j = cJSON_ParseWithLength(was.data, was.len);
        cJSON_DeleteItemFromObject(j, "latents_mean");
        cJSON_DeleteItemFromObject(j, "latents_std");
        char *text = cJSON_PrintUnformatted(j);
        now.len = 0;
        sm_buf_fmt(&now, "%.*s,%s}", (int)strlen(text) - 1, text, cases[i].config);
        CHECK(!sm_file_write(path, now.data, now.len, &e));
        bool ok = draw(&o, rgb, msg);
        CHECKF(ok == cases[i].good && (ok || strstr(msg, "vae/config.json: latents_")), "%s: %s", cases[i].config, msg);
        cJSON_free(text);
        cJSON_Delete(j);
    }
    CHECK(!sm_file_write(path, was.data, was.len, &e));
    sm_buf_free(&was);
    sm_buf_free(&now);
}

/* ---- names that are shown ---------------------------------------------------------------------------------------- */

TEST(shown_texts)
{
    static const struct { const char *text, *shown; } cases[] = {
        {"unet.conv_in.weight", "unet.conv_in.weight"}, {"", ""},
        {"h\xc3\xa9 \xe6\x97\xa5 \xf0\x9f\x98\x80", "h\xc3\xa9 \xe6\x97\xa5 \xf0\x9f\x98\x80"},
        {"\x1b[31mred\n", "\\x1b[31mred\\x0a"}, {"\x7f\x01", "\\x7f\\x01"}, {"\xc2\x9b" "2J", "\\xc2\\x9b2J"},
        {"a\xff" "b\xc3", "a\\xff" "b\\xc3"}, {"\xe2\x80\xae" "gpj", "\\xe2\\x80\\xaegpj"}, {"\xed\xa0\x80", "\\xed\\xa0\\x80"}};
    char out[64], small[12];
    for (size_t i = 0; i < SM_COUNT(cases); i++)
        CHECKF(!strcmp(sm_shown(cases[i].text, out, sizeof out), cases[i].shown), "%s, wanted is %s", out, cases[i].shown);
    CHECK(!strcmp(sm_shown("12345678901", small, sizeof small), "12345678901"));
    CHECK(!strcmp(sm_shown("123456789012", small, sizeof small), "12345678..."));
    CHECK(!strcmp(sm_shown("1234567\x01", small, sizeof small), "1234567\\x01"));
    CHECK(!strcmp(sm_shown("12345678\x01", small, sizeof small), "12345678..."));
    CHECK(!strcmp(sm_shown("1234567\xc3\xa9\xc3\xa9\xc3\xa9", small, sizeof small), "1234567..."));
}

/* Nothing that a terminal would obey comes out, whatever a file's tensors are called. */
TEST(shown_names_of_tensors)
{
    char path[300], longest[1030];
    sm_err e = {0};
    sm_buf h = {0};
    memset(longest, 'n', sizeof longest);
    longest[1020] = 0;
    const char *const names[] = {"\\u001b[31mred", "\\u009b2J.x", "vae.\\u202eevil", longest,
                                 "line\\nbreak", "\\u007f\\u0007.bell"};
    sm_buf_fmt(&h, "%8s{", "");
    for (size_t i = 0; i < SM_COUNT(names); i++)
        sm_buf_fmt(&h, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}", i ? "," : "",
                   names[i], 4 * i, 4 * i + 4);
    sm_buf_fmt(&h, "}");
    uint64_t n = h.len - 8;
    memcpy(h.data, &n, 8);
    for (size_t i = 0; i < SM_COUNT(names); i++)
        sm_buf_add(&h, "\0\0\0\0", 4);
    snprintf(path, sizeof path, "%s", test_tmp("odd-names.safetensors"));
    CHECKF(!sm_file_write(path, h.data, h.len, &e), "%s", e.msg);
    sm_buf_free(&h);
    for (int json = 0; json < 2; json++) {
        sumi_context *ctx;
        char *text = NULL;
        CHECK(!sumi_context_new(NULL, &ctx));
        CHECKF(!sumi_inspect(ctx, path, json, &text) && text, "%s", sumi_error(ctx));
        size_t line = 0;
        for (const char *s = text; s && *s; s++) {
            line = *s == '\n' ? 0 : line + 1;
            CHECKF((unsigned char)*s >= 0x20 || *s == '\n' || (json && *s == '\t'), "a byte %02x in %s", (unsigned char)*s, text);
            CHECKF(line < 700, "a line of %zu bytes", line);
        }
        CHECK(text && sm_utf8_valid(text, strlen(text)) && !strstr(text, "\xc2\x9b") &&
              !strchr(text, 0x7f) && strstr(text, "x1b"));
        sumi_text_free(text);
        sumi_context_free(ctx);
    }
}

/* ---- tokenizers -------------------------------------------------------------------------------------------------- */

/* An alarm ends the process if one waits for somebody to write. */
TEST(load_tokenizers_that_are_pipes)
{
    char dir[300], vocab[400], merges[400], gz[400];
    sm_err e = {0};
    snprintf(dir, sizeof dir, "%s", test_tmp("pipes"));
    snprintf(vocab, sizeof vocab, "%s/vocab.json", dir);
    snprintf(merges, sizeof merges, "%s/merges.txt", dir);
    snprintf(gz, sizeof gz, "%s/bpe.txt.gz", dir);
    CHECK(!mkdir(dir, 0777) && !mkfifo(gz, 0666) && !mkfifo(merges, 0666));
    alarm(60);
    CHECK(!sm_bpe_load_openai(NULL, gz, &e) && e.code == SUMI_E_FILE && strstr(e.msg, "bpe.txt.gz"));
    CHECK(!sm_file_write(vocab, "{\"<|startoftext|>\":1,\"<|endoftext|>\":2}", 39, NULL));
    e = (sm_err){0};
    CHECKF(!sm_bpe_load(NULL, vocab, merges, &e) && e.code == SUMI_E_FILE && strstr(e.msg, "merges.txt"), "%s", e.msg);
    CHECK(!unlink(vocab) && !mkfifo(vocab, 0666));
    e = (sm_err){0};
    CHECK(!sm_bpe_load(NULL, vocab, merges, &e) && e.code == SUMI_E_FILE && strstr(e.msg, "vocab.json"));
    e = (sm_err){0};
    CHECK(!sm_bpe_load_openai(NULL, "/dev/zero", &e) && !sm_bpe_load_openai(NULL, dir, &e) && e.code == SUMI_E_FILE);
    alarm(0);
}
