/* Files cut at every 1% of their length, and paths that are no files: through every way in (listing, inspecting, loading) one
 * line that names the file, nothing left behind, and no waiting. What bytes in memory may do is in t_io, t_ckpt, t_gguf and
 * t_image. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/file.h"
#include "io/image.h"
#include "io/tensors.h"
#include "text/bpe.h"
#include "test.h"
#include "tiny.h"

/* One line that names `names`. */
static bool one_line(const char *msg, const char *names) { return msg[0] && strstr(msg, names) && !strchr(msg, '\n'); }

/* Every way to open a model file or folder says no, naming `names`. */
static void refused(const char *path, const char *names, const char *what)
{
    sm_err e = {0};
    sm_mem mem = {0};
    sumi_context *ctx;
    sumi_model *m = NULL;
    char *text = NULL;
    sm_tensors *f = sm_tensors_open(path, &mem, &e);
    CHECKF(!f && e.code && one_line(e.msg, names), "%s: tensors: %d '%s'", what, e.code, e.msg);
    sm_tensors_close(f);
    CHECKF(mem.total == 0, "%s: %zu bytes leaked", what, mem.total);
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &ctx));
    CHECKF(sumi_inspect(ctx, path, 0, &text) && !text && one_line(sumi_error(ctx), names), "%s: inspect: '%s'", what,
           sumi_error(ctx));
    CHECKF(sumi_model_load(ctx, path, &m) && !m && one_line(sumi_error(ctx), names), "%s: load: '%s'", what, sumi_error(ctx));
    sumi_text_free(text);
    sumi_model_free(m);
    sumi_context_free(ctx);
}

static sm_buf read_file(const char *path)
{
    sm_buf b = {0};
    sm_err e = {0};
    CHECKF(!sm_file_read(path, 1 << 26, &b, &e) && b.len, "%s", e.msg);
    return b;
}

static void write_file(const char *path, const sm_buf *b)
{
    FILE *f = fopen(path, "wb"); /* a test's file need not be safe on a disk, which takes long */
    CHECK(f && fwrite(b->data, 1, b->len, f) == b->len && !fclose(f));
}

/* Shortens the file at path, which holds b or more than the wanted part of it. */
static void cut(const char *path, const sm_buf *b, int percent)
{
    CHECK(!truncate(path, (off_t)(b->len * (size_t)percent / 100)));
}

TEST(cut_tensor_files)
{
    /* padding: bytes behind the last tensor, without which nothing is missing */
    static const struct { const char *name; size_t padding; } files[] = {
        {"vae_plain_tiny.safetensors", 0}, {"ckpt/tree.safetensors", 0}, {"ckpt/zip_p2.ckpt", 0}, {"ckpt/zip_p4.ckpt", 0},
        {"ckpt/training.ckpt", 0}, {"ckpt/big_endian.ckpt", 0}, {"../fuzz/corpus/ckpt/zip_deflated", 0}, {"ckpt/stream_p1.pt", 0},
        {"ckpt/stream_p2.pt", 0}, {"ckpt/stream_p4.pt", 0}, {"gguf_meta.gguf", 28}, {"gguf_v2.gguf", 28}, {"gguf_blocks.gguf", 8},
    };
    char path[300], what[400];
    snprintf(path, sizeof path, "%s", test_tmp("cut.bin"));
    for (size_t i = 0; i < SM_COUNT(files); i++) {
        sm_buf b = read_file(test_fixture(files[i].name));
        write_file(path, &b);
        for (int percent = 99; percent >= 0; percent--) {
            cut(path, &b, percent);
            snprintf(what, sizeof what, "%s at %d%%", files[i].name, percent);
            if (b.len * (size_t)percent / 100 < b.len - files[i].padding)
                refused(path, "cut.bin", what);
        }
        sm_buf_free(&b);
    }
}

TEST(cut_pictures)
{
    static const char *const files[] = {"rgb.png", "palette_clear.png", "grey_alpha.png", "smooth.jpg", "progressive.jpg",
                                        "cmyk.jpg", "exif.jpg",
                                        "lossy.webp", "lossless.webp"};
    sumi_context *ctx;
    char path[300], name[60];
    snprintf(path, sizeof path, "%s", test_tmp("cut.picture"));
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &ctx));
    for (size_t i = 0; i < SM_COUNT(files); i++) {
        snprintf(name, sizeof name, "images/%s", files[i]);
        sm_buf b = read_file(test_fixture(name));
        write_file(path, &b);
        for (int percent = 99; percent >= 0; percent--) {
            sumi_images *im = NULL;
            cut(path, &b, percent);
            CHECKF(sumi_image_load(ctx, path, &im) && !im && one_line(sumi_error(ctx), path), "%s at %d%%: '%s'", name, percent,
                   sumi_error(ctx));
            sumi_images_free(im);
        }
        sm_buf_free(&b);
    }
    sumi_context_free(ctx);
}

/* ---- several files ----------------------------------------------------------------------------------------------- */

/* Part k of n of the tensors of f, under their names without `prefix`. */
static void write_shard(const sm_st *f, const char *prefix, const char *path, int k, int n)
{
    enum { MOST = 400 };
    sm_st_item item[MOST];
    sm_err e = {0};
    size_t count = 0, at = 0;
    for (size_t i = 0; i < sm_st_count(f) && count < MOST; i++) {
        const sm_st_entry *x = sm_st_at(f, i);
        if (strncmp(x->name, prefix, strlen(prefix)) || (int)(at++ % (size_t)n) != k)
            continue;
        item[count] = (sm_st_item){.name = x->name + strlen(prefix),
                                   .t = {.data = (void *)x->data, .dtype = x->type, .rank = x->rank}};
        memcpy(item[count++].t.dims, x->dims, sizeof item[0].t.dims);
    }
    CHECKF(count && count < MOST && !sm_st_write(path, count, item, 0, NULL, NULL, &e), "%s: %zu tensors: %s", path, count,
           e.msg);
}

/* A folder with an index of two shards. */
static void make_shards(const char *dir)
{
    char path[400];
    sm_err e = {0};
    sm_buf index = {0};
    sm_st *f = sm_st_open(test_fixture("vae_plain_tiny.safetensors"), NULL, &e);
    CHECKF(f && !mkdir(dir, 0777), "%s", e.msg);
    if (!f)
        return;
    for (int k = 0; k < 2; k++) {
        snprintf(path, sizeof path, "%s/part-%d.safetensors", dir, k);
        write_shard(f, "", path, k, 2);
    }
    sm_buf_fmt(&index, "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {");
    for (size_t i = 0; i < sm_st_count(f); i++)
        sm_buf_fmt(&index, "%s\"%s\": \"part-%zu.safetensors\"", i ? ", " : "", sm_st_at(f, i)->name, i % 2);
    sm_buf_fmt(&index, "}}");
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    CHECK(!sm_file_write(path, index.data, index.len, &e));
    sm_buf_free(&index);
    sm_st_close(f);
}

TEST(cut_shards_and_their_index)
{
    static const char *const files[] = {"model.safetensors.index.json", "part-0.safetensors", "part-1.safetensors"};
    char dir[300], path[400], index[400], what[400];
    sm_err e = {0};
    snprintf(dir, sizeof dir, "%s", test_tmp("shards"));
    make_shards(dir);
    snprintf(index, sizeof index, "%s/%s", dir, files[0]);
    sm_tensors *f = sm_tensors_open(dir, NULL, &e);
    CHECKF(f && sm_tensors_count(f) > 4, "%s", e.msg);
    sm_tensors_close(f);
    for (size_t i = 0; i < SM_COUNT(files); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        sm_buf b = read_file(path);
        for (int percent = 99; percent >= 0; percent--) {
            cut(path, &b, percent);
            snprintf(what, sizeof what, "%s at %d%%", files[i], percent);
            e = (sm_err){0};
            f = sm_tensors_open(percent % 2 ? dir : index, NULL, &e);
            CHECKF(!f && one_line(e.msg, files[i]), "%s: '%s'", what, e.msg);
            sm_tensors_close(f);
        }
        CHECK(!unlink(path));
        e = (sm_err){0};
        CHECKF(!sm_tensors_open(index, NULL, &e) && one_line(e.msg, files[i]), "%s missing: '%s'", files[i], e.msg);
        write_file(path, &b);
        sm_buf_free(&b);
    }
}

/* The two tables of the tiny model's tokenizer, as transformers keeps them. */
static void write_tokenizer(const char *dir, const sm_bpe *b, const char *merges)
{
    char path[400];
    cJSON *vocab = cJSON_CreateObject();
    for (int32_t i = 0; i < sm_bpe_size(b); i++)
        if (sm_bpe_token(b, i))
            cJSON_AddNumberToObject(vocab, sm_bpe_token(b, i), i);
    char *text = cJSON_PrintUnformatted(vocab);
    snprintf(path, sizeof path, "%s/tokenizer/vocab.json", dir);
    CHECK(text && !sm_file_write(path, text, strlen(text), NULL));
    snprintf(path, sizeof path, "%s/tokenizer/merges.txt", dir);
    CHECK(!sm_file_write(path, merges, strlen(merges), NULL));
    cJSON_free(text);
    cJSON_Delete(vocab);
}

/* The tiny model as a folder in diffusers' layout. */
static void make_folder(const char *dir)
{
    static const char *const parts[] = {"unet", "vae", "text_encoder"};
    static const char index[] = "{\"_class_name\": \"StableDiffusionPipeline\"}";
    char path[400];
    sm_err e = {0};
    sm_st *f = sm_st_open(tiny_model(TINY_UNET), NULL, &e);
    CHECKF(f && !mkdir(dir, 0777), "%s", e.msg);
    const char *merges = f ? sm_st_metadata(f, "merges") : "";
    cJSON *config = cJSON_Parse(f ? sm_st_metadata(f, "sumi.model") : "{}");
    for (size_t i = 0; f && i < SM_COUNT(parts); i++) {
        char prefix[40], *text = cJSON_PrintUnformatted(cJSON_GetObjectItem(config, parts[i]));
        snprintf(path, sizeof path, "%s/%s", dir, parts[i]);
        CHECK(!mkdir(path, 0777));
        snprintf(path, sizeof path, "%s/%s/config.json", dir, parts[i]);
        CHECK(text && !sm_file_write(path, text, strlen(text), &e));
        snprintf(path, sizeof path, "%s/%s/model.safetensors", dir, parts[i]);
        snprintf(prefix, sizeof prefix, "%s.", parts[i]);
        write_shard(f, prefix, path, 0, 1);
        cJSON_free(text);
    }
    snprintf(path, sizeof path, "%s/tokenizer", dir);
    CHECK(!mkdir(path, 0777));
    sm_bpe *b = sm_bpe_from_merges(NULL, merges, strlen(merges), &e);
    if (b)
        write_tokenizer(dir, b, merges);
    sm_bpe_free(b);
    snprintf(path, sizeof path, "%s/model_index.json", dir);
    CHECK(!sm_file_write(path, index, sizeof index - 1, &e));
    cJSON_Delete(config);
    sm_st_close(f);
}

TEST(cut_files_of_a_model_folder)
{
    static const char *const files[] = {"model_index.json", "unet/config.json", "unet/model.safetensors",
                                        "vae/config.json", "vae/model.safetensors", "text_encoder/config.json",
                                        "text_encoder/model.safetensors", "tokenizer/vocab.json"};
    sumi_context *ctx;
    sumi_model *m = NULL;
    char dir[300], path[400];
    snprintf(dir, sizeof dir, "%s", test_tmp("model-folder"));
    make_folder(dir);
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &ctx));
    CHECKF(!sumi_model_load(ctx, dir, &m), "%s", sumi_error(ctx));
    sumi_model_free(m);
    for (size_t i = 0; i < SM_COUNT(files); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        sm_buf b = read_file(path);
        for (int percent = 99; percent >= 0; percent--) {
            cut(path, &b, percent);
            CHECKF(sumi_model_load(ctx, dir, &m) && !m && one_line(sumi_error(ctx), "model-folder"), "%s at %d%%: '%s'", files[i],
                   percent, sumi_error(ctx));
        }
        write_file(path, &b);
        sm_buf_free(&b);
    }
    CHECKF(!sumi_model_load(ctx, dir, &m), "whole again: %s", sumi_error(ctx));
    sumi_model_free(m);
    sumi_context_free(ctx);
}

/* ---- what is no file --------------------------------------------------------------------------------------------- */

static void make_socket(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(strlen(path) < sizeof a.sun_path);
    memcpy(a.sun_path, path, strnlen(path, sizeof a.sun_path - 1));
    CHECK(fd >= 0 && !bind(fd, (struct sockaddr *)&a, sizeof a));
    close(fd);
}

/* None of these may wait for somebody at the other end: an alarm ends the process if one does. */
TEST(odd_paths_are_refused_at_once)
{
    char path[300];
    alarm(60);
    refused("", "", "an empty path");
    refused("/dev/null", "/dev/null", "a device");
    refused("/dev/zero", "/dev/zero", "an endless device");
    refused("/dev/full", "/dev/full", "a device");
    refused("/", "/", "the root");
    refused("/proc/self/mem", "/proc/self/mem", "what cannot be mapped");
    refused("/proc/self/status", "/proc/self/status", "a file whose length is said to be 0");
    snprintf(path, sizeof path, "%s", test_tmp("a-pipe"));
    CHECK(!mkfifo(path, 0666));
    refused(path, "a-pipe", "a pipe");
    sm_image im;
    sm_err e = {0};
    CHECKF(sm_image_load(&im, path, NULL, &e) && one_line(e.msg, "a-pipe"), "'%s'", e.msg);
    snprintf(path, sizeof path, "%s", test_tmp("a-socket"));
    make_socket(path);
    refused(path, "a-socket", "a socket");
    snprintf(path, sizeof path, "%s", test_tmp("a-loop"));
    CHECK(!symlink(path, path));
    refused(path, "a-loop", "a link to itself");
    snprintf(path, sizeof path, "%s", test_tmp("a-dangling-link"));
    CHECK(!symlink("/nonexistent", path));
    refused(path, "a-dangling-link", "a link to nothing");
    snprintf(path, sizeof path, "%s", test_tmp("an-empty-file"));
    CHECK(!sm_file_write(path, "", 0, &e));
    refused(path, "an-empty-file", "an empty file");
    snprintf(path, sizeof path, "%s/below", test_tmp("an-empty-file"));
    refused(path, "below", "below a file");
    alarm(0);
}

/* The same inside of folders, where a name leads to them. */
TEST(odd_files_in_folders_are_refused_at_once)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json",
                                        "diffusion_pytorch_model.safetensors", "any.safetensors"};
    char dir[300], path[400], kept[420];
    sm_err e = {0};
    alarm(60);
    for (int kind = 0; kind < 4; kind++) /* a pipe, a folder, a link to itself, the folder again */
        for (size_t i = 0; i < SM_COUNT(names); i++) {
            snprintf(dir, sizeof dir, "%s", test_tmp("odd-folder"));
            snprintf(path, sizeof path, "%s/%s", dir, names[i]);
            CHECK(!mkdir(dir, 0777));
            CHECK(!(kind == 0 ? mkfifo(path, 0666) : kind == 1 ? mkdir(path, 0777) : symlink(kind == 2 ? names[i] : ".", path)));
            refused(dir, "odd-folder", names[i]);
            CHECK(!remove(path) && !remove(dir));
        }
    snprintf(dir, sizeof dir, "%s", test_tmp("odd-model"));
    make_folder(dir);
    static const char *const parts[] = {"model_index.json", "unet/config.json", "vae/model.safetensors"};
    for (size_t i = 0; i < SM_COUNT(parts); i++) {
        sumi_context *ctx;
        sumi_model *m = NULL;
        snprintf(path, sizeof path, "%s/%s", dir, parts[i]);
        snprintf(kept, sizeof kept, "%s.kept", path);
        CHECK(!rename(path, kept) && !mkfifo(path, 0666));
        CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &ctx));
        sumi_status st = sumi_model_load(ctx, dir, &m);
        CHECKF(i == 0 || (st && one_line(sumi_error(ctx), "odd-model")), "%s is a pipe: %d '%s'", parts[i], st, sumi_error(ctx));
        sumi_model_free(m);
        sumi_context_free(ctx);
        CHECK(!unlink(path) && !rename(kept, path));
    }
    CHECKF(!e.code, "%s", e.msg);
    alarm(0);
}

/* Not as root, who may read everything. */
TEST(unreadable_files_are_refused)
{
    char path[300];
    if (!geteuid()) {
        test_skip("run as root, who reads files of mode 000");
        return;
    }
    snprintf(path, sizeof path, "%s", test_tmp("closed.safetensors"));
    sm_buf b = read_file(test_fixture("vae_plain_tiny.safetensors"));
    CHECK(!sm_file_write(path, b.data, b.len, NULL) && !chmod(path, 0));
    refused(path, "closed.safetensors", "a file that may not be read");
    sm_buf_free(&b);
}
