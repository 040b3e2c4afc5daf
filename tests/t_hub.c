/* Names, digests, listings and the choice of files of src/hub. Digests: FIPS 180-4's example and git's well-known empty blob;
 * file names as diffusers 0.42 and transformers 5.23 save them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hub/digest.h"
#include "hub/listing.h"
#include "hub/name.h"
#include "test.h"

#define HUB "https://huggingface.co"

TEST(hub_digest)
{
    char hex[SM_DIGEST_HEX] = "";
    CHECK(sm_digest_text("abc", hex) && !strcmp(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    sm_digest *d = sm_digest_new(SM_DIGEST_GIT, 0, NULL);
    CHECK(sm_digest_end(d, hex) && !strcmp(hex, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"));
    sm_digest_free(d);
    d = sm_digest_new(SM_DIGEST_GIT, 6, NULL); /* printf 'hello\n' | git hash-object --stdin */
    CHECK(sm_digest_add(d, "hel", 3) && sm_digest_add(d, "lo\n", 3) && sm_digest_end(d, hex));
    CHECKF(!strcmp(hex, "ce013625030ba8dba906f756967f9e9ca394464a"), "%s", hex);
    sm_digest_free(d);
    CHECK(sm_is_hex("0aF", 3) && !sm_is_hex("0aF", 2) && !sm_is_hex("0ag", 3) && !sm_is_hex(NULL, 0));
}

static bool parses(const char *what, const char *owner, const char *name, const char *revision, const char *path)
{
    sm_hub_name n;
    sm_err e = {0};
    return !sm_hub_parse(what, HUB, &n, &e) && !strcmp(n.owner, owner) && !strcmp(n.name, name) &&
        !strcmp(n.revision, revision) && !strcmp(n.path, path);
}

TEST(hub_names)
{
    CHECK(parses("owner/name", "owner", "name", "main", ""));
    CHECK(parses("owner/na.me_1-x@v2", "owner", "na.me_1-x", "v2", ""));
    CHECK(parses("owner/name/unet/x y.safetensors", "owner", "name", "main", "unet/x y.safetensors"));
    CHECK(parses("owner/name@v2/unet/x", "owner", "name", "v2", "unet/x"));
    CHECK(parses("owner/name@refs/pr/3", "owner", "name", "refs/pr/3", ""));
    CHECK(parses("owner/name@refs/pr/3/unet/x", "owner", "name", "refs/pr/3", "unet/x"));
    CHECK(parses(HUB "/owner/name", "owner", "name", "main", ""));
    CHECK(parses(HUB "/owner/name/", "owner", "name", "main", ""));
    CHECK(parses(HUB ":443/owner/name/blob/main/a%20b.safetensors?x=1", "owner", "name", "main", "a b.safetensors"));
    CHECK(parses(HUB "/owner/name/resolve/v2/unet/x.bin?download=true", "owner", "name", "v2", "unet/x.bin"));
    CHECK(parses(HUB "/owner/name/tree/v2", "owner", "name", "v2", ""));
    CHECK(parses(HUB "/datasets/owner/name/resolve/main/x", "", "", "", ""));       /* an address, as others */
    CHECK(parses("https://example.org/owner/name", "", "", "", ""));
    CHECK(parses("https://huggingface.co.example.org/owner/name", "", "", "", ""));
    CHECK(parses("http://huggingface.co/owner/name", "", "", "", ""));              /* another scheme: not the hub */
    CHECK(parses(HUB "/owner/name/blob/main/%2e%2e%2f%2e%2e%2fx", "", "", "", "")); /* no file of a model */
}

TEST(hub_names_refused)
{
    static const char *const bad[] = {
        "", "name", "/abs/path", "./x", "../x/y", "owner/", "/name", "a b/c", "owner/..", "../..", "owner/.x", "-o/x",
            "owner/a--b", "owner/name@",
        "owner/name@../x", "owner/name@-x", "owner/name@a//b", "owner/name@refs", "owner/name/../x", "owner/name/a/../../x",
            "owner/name//x",
        "owner/name/x/", "owner/name/a\\b", "owner/name/a\nb", "owner/na\xffme", "owner/name/\xff", "https://",
            "https://user:pass@example.org/x",
        "https://user@example.org/x", "ftp://example.org/x", "file:///etc/passwd", "https://exa mple.org/x",
    };
    sm_hub_name n;
    for (size_t i = 0; i < SM_COUNT(bad); i++) {
        sm_err e = {0};
        bool refs = !strcmp(bad[i], "owner/name@refs"); /* one part called refs is a branch's name */
        CHECKF((sm_hub_parse(bad[i], HUB, &n, &e) == SUMI_E_ARG && e.msg[0]) != refs, "%s", bad[i]);
    }
    char big[6000] = "owner/name/";
    memset(big + 11, 'x', sizeof big - 12);
    big[sizeof big - 1] = 0;
    CHECK(sm_hub_parse(big, HUB, &n, &(sm_err){0}) == SUMI_E_ARG);
    memcpy(big, "https://a/b", 11);
    CHECK(sm_hub_parse(big, HUB, &n, &(sm_err){0}) == SUMI_E_ARG);
    CHECK(sm_hub_is_name("a/b") && sm_hub_is_name("https://x/y") && !sm_hub_is_name("model.safetensors") &&
          !sm_hub_is_name("./a/b") && !sm_hub_is_name("a/b/../c"));
}

TEST(hub_address_places)
{
    static const char *const pairs[][2] = {
        {"https://example.org/a/b.safetensors", "url/https/example.org/a/b.safetensors"},
        {"https://Example.org:443/b", "url/https/example.org/b"},
        {"http://localhost:8080/b", "url/http/localhost:8080/b"},
        {"https://example.org/a/b.gguf?k=v", "url/https/example.org/a/b-9246d2c0.gguf"}, /* printf 'k=v' | sha256sum */
        {"https://example.org/../../b", "url/https/example.org/b"},
    };
    char out[4096];
    sm_hub_name n;
    for (size_t i = 0; i < SM_COUNT(pairs); i++) {
        sm_err e = {0};
        bool ok = !sm_hub_parse(pairs[i][0], HUB, &n, &e) && !sm_hub_address_path(n.address, out, sizeof out, &e);
        CHECKF(ok && !strcmp(out, pairs[i][1]), "%s: %s", pairs[i][0], ok ? out : e.msg);
    }
    static const char *const nowhere[] = {"https://example.org", "https://example.org/", "https://example.org/a/",
                                          "https://example.org/?x=1", "https://example.org//a",
                                          "https:///../x", "https://../x", "https://./x", "https://.org/x"};
    for (size_t i = 0; i < SM_COUNT(nowhere); i++)
        CHECKF(sm_hub_parse(nowhere[i], HUB, &n, &(sm_err){0}) ||
               sm_hub_address_path(n.address, out, sizeof out, &(sm_err){0}) == SUMI_E_ARG, "%s", nowhere[i]);
}

TEST(hub_origins)
{
    sm_origin a, b;
    CHECK(sm_origin_of("https://A.org/x", &a) && sm_origin_of("https://a.org:443/y?z", &b) && sm_origin_same(&a, &b));
    static const char *const other[] = {"http://a.org", "https://a.org:444", "https://b.a.org", "https://a.org.b",
                                        "https://a.org@b.org"};
    for (size_t i = 0; i < SM_COUNT(other); i++)
        CHECKF(sm_origin_of(other[i], &b) && !sm_origin_same(&a, &b), "%s", other[i]);
    static const struct { const char *url; bool here; } loop[] = {
        {"http://localhost:1/", true}, {"http://127.0.0.1/", true}, {"http://127.1.2.3/", true}, {"http://[::1]:5/", true},
        {"http://127.evil.org/", false}, {"http://localhost.evil.org/", false}, {"http://128.0.0.1/", false},
            {"http://10.0.0.1/", false},
    };
    for (size_t i = 0; i < SM_COUNT(loop); i++)
        CHECKF(sm_origin_of(loop[i].url, &a) && sm_origin_loopback(&a) == loop[i].here, "%s", loop[i].url);
}

/* ---- listings ------------------------------------------------------------------------------------------------------ */

#define COMMIT "0123456789abcdef0123456789abcdef01234567"

/* A listing of the given paths, separated by spaces. */
static sumi_status listing_of(const char *paths, sm_listing *l, sm_err *e)
{
    sm_buf b = {0};
    sm_buf_fmt(&b, "{\"sha\":\"" COMMIT "\",\"siblings\":[");
    for (const char *s = paths; *s;) {
        int n = (int)strcspn(s, " ");
        sm_buf_fmt(&b, "%s{\"rfilename\":\"%.*s\",\"size\":5,\"blobId\":\"" COMMIT "\"}", s == paths ? "" : ",", n, s);
        s += n + (s[n] == ' ');
    }
    sm_buf_fmt(&b, "]}");
    sumi_status st = sm_listing_parse(b.data, b.len, "a/b", NULL, l, e);
    sm_buf_free(&b);
    return st;
}

/* What is taken, separated by spaces, in order of the paths; or the failure. */
static const char *taken(const char *paths, const char *variant, const char *include, const char *exclude)
{
    static char out[2000];
    sm_listing l;
    sm_err e = {0};
    sm_hub_wish w = {.path = "", .variant = variant, .include = include, .exclude = exclude};
    out[0] = 0;
    if (listing_of(paths, &l, &e) || sm_listing_select(&l, &w, "a/b", &e))
        snprintf(out, sizeof out, "failed: %s", e.msg);
    for (size_t i = 0; i < l.n && !e.code; i++)
        if (l.at[i].taken)
            snprintf(out + strlen(out), sizeof out - strlen(out), "%s%s", out[0] ? " " : "", l.at[i].path);
    sm_listing_free(&l);
    return out;
}

#define TAKES(want, ...)                                                    \
    do {                                                                    \
        const char *got = taken(__VA_ARGS__);                               \
        CHECKF(!strcmp(got, want), "takes '%s', wanted is '%s'", got, want); \
    } while (0)

TEST(hub_select_folder)
{
    const char *sd = "README.md flax_model.msgpack model_index.json safety_checker/model.safetensors "
                     "scheduler/scheduler_config.json "
                     "unet/config.json unet/diffusion_pytorch_model.bin unet/diffusion_pytorch_model.fp16.safetensors "
                     "unet/diffusion_pytorch_model.non_ema.safetensors unet/diffusion_pytorch_model.safetensors "
                     "unet/openvino_model.xml "
                     "unet/sub/model.safetensors v1-5-pruned.ckpt vae/config.json vae/diffusion_pytorch_model.bin";
    TAKES("model_index.json scheduler/scheduler_config.json unet/config.json unet/diffusion_pytorch_model.safetensors "
          "vae/config.json "
          "vae/diffusion_pytorch_model.bin", sd, NULL, NULL, NULL);
    TAKES("model_index.json scheduler/scheduler_config.json unet/config.json unet/diffusion_pytorch_model.fp16.safetensors "
          "vae/config.json "
          "vae/diffusion_pytorch_model.bin", sd, "fp16", NULL, NULL);
    TAKES("model_index.json unet/config.json unet/diffusion_pytorch_model.safetensors", sd, NULL, NULL, "vae/*,scheduler/");
    TAKES("v1-5-pruned.ckpt", sd, NULL, "*.ckpt", NULL);
    TAKES("unet/config.json vae/config.json", sd, NULL, "unet/,vae/", "*.bin,*.safetensors,*.xml");
    CHECK(strstr(taken(sd, "fp8", NULL, NULL), "no weights of the variant 'fp8'"));
    CHECK(strstr(taken(sd, NULL, "*.onnx", NULL), "no file is left"));
}

TEST(hub_select_shards)
{
    const char *t = "model_index.json transformer/config.json transformer/diffusion_pytorch_model-00001-of-00002.safetensors "
                    "transformer/diffusion_pytorch_model-00002-of-00002.safetensors "
                    "transformer/diffusion_pytorch_model.fp16-00001-of-00001.safetensors "
                    "transformer/diffusion_pytorch_model.safetensors.index.fp16.json "
                    "transformer/diffusion_pytorch_model.safetensors.index.json "
                    "transformer/diffusion_pytorch_model-00001-of-00002.bin transformer/diffusion_pytorch_model.bin.index.json";
    TAKES("model_index.json transformer/config.json transformer/diffusion_pytorch_model-00001-of-00002.safetensors "
          "transformer/diffusion_pytorch_model-00002-of-00002.safetensors "
          "transformer/diffusion_pytorch_model.safetensors.index.json", t, NULL, NULL, NULL);
    TAKES("model_index.json transformer/config.json transformer/diffusion_pytorch_model.fp16-00001-of-00001.safetensors "
          "transformer/diffusion_pytorch_model.safetensors.index.fp16.json", t, "fp16", NULL, NULL);
    TAKES("model_index.json vae/model-00001-of-00002.fp16.safetensors",
          "model_index.json vae/model-00001-of-00002.fp16.safetensors vae/model.onnx", NULL, NULL, NULL);
    TAKES("model_index.json vae/diffusion_pytorch_model.fp16.safetensors",
          "model_index.json vae/diffusion_pytorch_model.fp16.safetensors vae/diffusion_pytorch_model.fp16.bin "
          "vae/model_index.json.bak", NULL, NULL, NULL);
}

TEST(hub_select_single)
{
    TAKES("model.safetensors", "README.md model.ckpt model.safetensors", NULL, NULL, NULL);
    TAKES("sub/x.gguf", "a.ckpt b.pt sub/x.gguf", NULL, NULL, NULL);
    TAKES("xl.fp16.safetensors", "xl.fp16.safetensors xl.safetensors", "fp16", NULL, NULL);
    TAKES("config.json model.safetensors vocab.txt", "config.json model.safetensors pytorch_model.bin vocab.txt sub/x.json",
          NULL, NULL, NULL);
    CHECK(strstr(taken("a.safetensors b.safetensors c.ckpt", NULL, NULL, NULL),
                 "2 models (a.safetensors, b.safetensors): name one"));
    CHECK(strstr(taken("README.md", NULL, NULL, NULL), "no model that sumi reads"));
    CHECK(strstr(taken("", NULL, NULL, NULL), "no model that sumi reads"));
}

TEST(hub_listing_refused)
{
    static const char *const bad[][2] = {
        {"", "listing"}, {"[]", "listing"}, {"{}", "listing"}, {"{\"sha\":\"12\",\"siblings\":[]}", "listing"},
            {"{\"sha\":\"" COMMIT "\"}", "listing"},
        {"{\"sha\":\"../../../../../../../../../../../../../a\",\"siblings\":[]}", "listing"},
        {"{\"sha\":\"" COMMIT "\",\"siblings\":[1]}", "without a name"},
        {"{\"sha\":\"" COMMIT "\",\"siblings\":[{\"rfilename\":\"a\"}]}", "size or digest"},
        {"{\"sha\":\"" COMMIT "\",\"siblings\":[{\"rfilename\":\"a\",\"size\":1}]}", "size or digest"},
        {"{\"sha\":\"" COMMIT "\",\"siblings\":[{\"rfilename\":\"a\",\"size\":1.5,\"blobId\":\"" COMMIT "\"}]}",
         "size or digest"},
        {"{\"sha\":\"" COMMIT "\",\"siblings\":[{\"rfilename\":\"a\",\"size\":1e300,\"blobId\":\"" COMMIT "\"}]}",
         "size or digest"},
        {"{\"sha\":\"" COMMIT "\",\"siblings\":[{\"rfilename\":\"a\",\"size\":1,\"blobId\":\"" COMMIT "\","
         "\"lfs\":{\"size\":1,\"sha256\":\"" COMMIT "\"}}]}", "size or digest"},
    };
    for (size_t i = 0; i < SM_COUNT(bad); i++) {
        sm_listing l;
        sm_err e = {0};
        CHECKF(sm_listing_parse(bad[i][0], strlen(bad[i][0]), "a/b", NULL, &l, &e) && (i == 0 || strstr(e.msg, bad[i][1])),
               "%s: %s", bad[i][0], e.msg);
        sm_listing_free(&l);
    }
}
