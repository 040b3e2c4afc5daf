/* Pulls from the test hub (hubserver.h): every fault a server or a line can have, what is left in the cache after it, and that
 * the token goes nowhere else. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "hub/cache.h"
#include "hub/hub.h"
#include "hubserver.h"
#include "test.h"

#define ONE "0000000000000000000000000000000000000001"
#define TWO "0000000000000000000000000000000000000002"

typedef struct bench {
    hubserver *h;
    sm_hub_settings s;
    sm_hub_pulled out;
    sm_err e;
    char messages[2000];
    int64_t last_step, last_steps;
    int cancel, cancel_at; /* cancel_at: bytes */
} bench;

static void on_progress(void *user, const sumi_progress *p)
{
    bench *b = user;
    size_t n = strlen(b->messages);
    if (p->message)
        snprintf(b->messages + n, sizeof b->messages - n, "%s\n", p->message);
    b->last_step = p->step;
    b->last_steps = p->steps;
    if (b->cancel_at && p->step >= b->cancel_at)
        __atomic_store_n(&b->cancel, 1, __ATOMIC_RELAXED);
}

/* A server and an empty cache. */
static void open_bench(bench *b, const char *name)
{
    char endpoint[64];
    uint64_t freed;
    *b = (bench){.h = hub_start(NULL)};
    snprintf(endpoint, sizeof endpoint, "http://127.0.0.1:%d", hub_port(b->h, 0));
    sumi_pull_options o = {.cache = test_tmp(name), .endpoint = endpoint, .token = ""};
    CHECKF(!sm_hub_settings_read(&o, &b->s, &b->e), "%s", b->e.msg);
    b->s.backoff = 0.01;
    b->s.stall = 60; /* the machine may be busy */
    setenv("HF_HUB_CACHE", "/nonexistent", 1);
    sm_cache_remove(b->s.cache, &freed);
}

static void close_bench(bench *b)
{
    hub_stop(b->h);
    unsetenv("HF_HUB_CACHE");
}

static sumi_status pull_with(bench *b, const char *what, const sumi_pull_options *o)
{
    sumi_callbacks cb = {.progress = on_progress, .cancel = &b->cancel, .user = b};
    b->e = (sm_err){0};
    b->messages[0] = 0;
    return sm_hub_pull(what, &b->s, o, &cb, NULL, &b->out, &b->e);
}

static sumi_status pull(bench *b, const char *what) { return pull_with(b, what, NULL); }

static bool holds(const char *path, const char *name, int version, size_t size)
{
    sm_buf f = {0};
    bool ok = !sm_file_read(path, 1 << 24, &f, NULL) && f.len == size;
    for (size_t i = 0; ok && i < size; i++)
        ok = (uint8_t)f.data[i] == hub_byte(name, version, i);
    sm_buf_free(&f);
    return ok;
}

static const char *in_cache(const bench *b, const char *model, const char *below)
{
    static char path[2][4096];
    static int at;
    char *p = path[at++ % 2];
    snprintf(p, sizeof path[0], "%s/hub/models--acme--%s/%s", b->s.cache, model, below);
    return p;
}

/* The .part of the model's only blob: its size, -1 without one. */
typedef struct parts { int64_t size; int etags; const char *folder; } parts;
static bool see_part(void *arg, const char *name)
{
    parts *p = arg;
    struct stat st;
    char path[4096];
    size_t n = strlen(name);
    snprintf(path, sizeof path, "%s/%s", p->folder, name);
    if (n > 5 && !strcmp(name + n - 5, ".part") && !stat(path, &st))
        p->size = st.st_size;
    p->etags += n > 5 && !strcmp(name + n - 5, ".etag");
    return true;
}
static parts parts_of(const bench *b, const char *model)
{
    parts p = {-1, 0, in_cache(b, model, "blobs")};
    sm_cache_each(p.folder, see_part, &p);
    return p;
}

/* acme/NAME, laid out as one file, arrives whole. */
static void arrives(bench *b, const char *name, int version)
{
    char what[80];
    snprintf(what, sizeof what, "acme/%s", name);
    sumi_status st = pull(b, what);
    CHECKF(!st, "%s: %s", name, b->e.msg);
    CHECKF(!st && holds(b->out.path, "model.safetensors", version, HUB_ONE_BYTES), "%s: wrong content", name);
    CHECKF(parts_of(b, name).size == -1 && parts_of(b, name).etags == 0, "%s: leaves a part", name);
}

static void fails(bench *b, const char *what, sumi_status status, const char *why)
{
    sumi_status st = pull(b, what);
    CHECKF(st == status && strstr(b->e.msg, why), "%s: status %d, '%s', wanted is '%s'", what, st, b->e.msg, why);
    CHECKF(!strstr(b->e.msg, HUB_TOKEN) && !strstr(b->messages, HUB_TOKEN) && !strstr(b->e.msg, "SIGNED"), "%s tells a secret",
           what);
}

TEST(hub_pull_plain)
{
    bench b;
    open_bench(&b, "hub");
    arrives(&b, "one", 1);
    CHECK(b.out.files == 1 && b.out.bytes == HUB_ONE_BYTES && b.out.fetched == HUB_ONE_BYTES && !strcmp(b.out.commit, ONE));
    CHECK(b.last_step == HUB_ONE_BYTES && b.last_steps == HUB_ONE_BYTES);
    CHECK(hub_count(b.h, "range=") == 2 && hub_count(b.h, "auth=1") == 0);
    arrives(&b, "one", 1); /* again: only the listing */
    CHECK(b.out.fetched == 0 && hub_count(b.h, "range=") == 3);
    CHECKF(!pull(&b, "acme/one/config.txt") && b.out.bytes == 0 &&
           !access(in_cache(&b, "one", "snapshots/" ONE "/config.txt"), F_OK), "%s", b.e.msg);
    arrives(&b, "chunked", 1);
    arrives(&b, "renamed", 1);
    arrives(&b, "trickle", 1);
    close_bench(&b);
}

TEST(hub_pull_folder)
{
    bench b;
    open_bench(&b, "hub");
    CHECKF(!pull(&b, "acme/folder"), "%s", b.e.msg);
    CHECKF(b.out.files == 12, "%d files", b.out.files);
    const char *weights = "unet/diffusion_pytorch_model-00001-of-00002.safetensors";
    char path[4300];
    snprintf(path, sizeof path, "%s/%s", b.out.path, weights);
    CHECK(holds(path, weights, 1, 80000));
    CHECK(holds(in_cache(&b, "folder", "snapshots/" ONE "/vae/diffusion_pytorch_model.bin"), "vae/diffusion_pytorch_model.bin",
                1, 20000));
    CHECK(access(in_cache(&b, "folder", "snapshots/" ONE "/v1-5-pruned.ckpt"), F_OK));
    CHECK(access(in_cache(&b, "folder", ".unfinished-" ONE), F_OK));
    int before = hub_count(b.h, "resolve");
    CHECKF(!pull_with(&b, "acme/folder", &(sumi_pull_options){.variant = "fp16"}), "%s", b.e.msg);
    CHECKF(hub_count(b.h, "resolve") == before + 2, "%d more requests", hub_count(b.h, "resolve") - before);
    CHECKF(!pull_with(&b, "acme/folder@v9", &(sumi_pull_options){.list = 1}) && strstr(b.messages, "70000  unet/"), "%s",
           b.messages);
    CHECK(hub_count(b.h, "resolve") == before + 2);
    CHECKF(!pull(&b, "acme/part") && b.out.files == 2 && !strcmp(strstr(b.out.path, ONE), ONE), "%s", b.e.msg);
    fails(&b, "acme/many", SUMI_E_ARG, "holds 2 models");
    CHECKF(!pull(&b, "acme/many/c.ckpt") && holds(b.out.path, "c.ckpt", 1, 1200), "%s", b.e.msg);
    fails(&b, "acme/many/d.ckpt", SUMI_E_ARG, "has no file 'd.ckpt'");
    close_bench(&b);
}

TEST(hub_pull_drops)
{
    bench b;
    open_bench(&b, "hub");
    arrives(&b, "drop", 1); /* in pieces of 100,000 bytes */
    CHECK(hub_count(b.h, "range=100000- if-range=\"v1\"") == 1 && hub_count(b.h, "range=200000- if-range=\"v1\"") == 1);
    CHECK(b.out.fetched == HUB_ONE_BYTES && strstr(b.messages, "connection lost"));
    arrives(&b, "no-etag", 1); /* goes on all the same: the digest decides */
    CHECK(hub_count(b.h, "range=100000- if-range= ") == 1);
    arrives(&b, "no-ranges", 1);
    arrives(&b, "range-lie", 1);
    b.s.stall = 1;
    arrives(&b, "stall", 1);
    b.s.stall = 60;
    fails(&b, "acme/drop-always", SUMI_E_NETWORK, "goes on from there");
    CHECK(hub_count(b.h, "drop-always/resolve") == b.s.tries);
    close_bench(&b);
}

/* A pull that ended at 100,000 bytes, then another process' one. */
TEST(hub_pull_resumes)
{
    bench b;
    open_bench(&b, "hub");
    b.s.tries = 1;
    fails(&b, "acme/drop-once", SUMI_E_NETWORK, "goes on from there");
    CHECK(parts_of(&b, "drop-once").size == 100000 && parts_of(&b, "drop-once").etags == 1);
    CHECK(!access(in_cache(&b, "drop-once", ".unfinished-" ONE), F_OK));
    char path[4096];
    sm_err e = {0};
    CHECK(sm_hub_find_in(&b.s, "acme/drop-once", NULL, path, sizeof path, &e) == SUMI_E_FILE && strstr(e.msg, "not finished"));
    arrives(&b, "drop-once", 1);
    CHECK(b.out.fetched == HUB_ONE_BYTES - 100000 && hub_count(b.h, "range=100000- if-range=\"v1\"") == 1);
    CHECK(access(in_cache(&b, "drop-once", ".unfinished-" ONE), F_OK) &&
          !sm_hub_find_in(&b.s, "acme/drop-once", NULL, path, sizeof path, &b.e));
    fails(&b, "acme/folder-gone", SUMI_E_NETWORK, "no such file"); /* half a model is none */
    e = (sm_err){0};
    CHECKF(sm_hub_find_in(&b.s, "acme/folder-gone", NULL, path, sizeof path, &e) && strstr(e.msg, "not finished"), "%s", e.msg);
    e = (sm_err){0};
    const char *file = "acme/folder-gone/tokenizer/merges.txt"; /* the files that are there, are */
    CHECKF(!sm_hub_find_in(&b.s, file, NULL, path, sizeof path, &e) && !access(path, F_OK), "%s", path);
    b.s.tries = 6;
    arrives(&b, "wrong-once", 1); /* the pieces do not fit: once more from the beginning */
    CHECKF(strstr(b.messages, "once more from the beginning"), "%s", b.messages);
    close_bench(&b);
}

/* The file changes while its first part is there: the address' ETag tells, and all comes anew. */
TEST(hub_pull_changed)
{
    bench b;
    char url[120];
    open_bench(&b, "hub");
    snprintf(url, sizeof url, "http://127.0.0.1:%d/files/etag/model.safetensors?key=secret", hub_port(b.h, 0));
    CHECKF(!pull(&b, url) && holds(b.out.path, "model.safetensors", 2, HUB_ONE_BYTES), "%s", b.e.msg);
    CHECK(hub_count(b.h, "range=100000- if-range=\"v1\"") == 1 && !strstr(b.messages, "secret") && !strstr(b.out.path, "secret"));
    snprintf(url, sizeof url, "http://127.0.0.1:%d/files/no-etag/model.safetensors", hub_port(b.h, 0));
    CHECKF(!pull(&b, url) && holds(b.out.path, "model.safetensors", 1, HUB_ONE_BYTES), "%s", b.e.msg);
    CHECK(hub_count(b.h, "files/no-etag/model.safetensors range= ") == 2); /* nothing to go on by */
    close_bench(&b);
}

TEST(hub_pull_lies)
{
    bench b;
    open_bench(&b, "hub");
    fails(&b, "acme/longer", SUMI_E_NETWORK, "announces 300500 bytes, the hub's listing 300000");
    fails(&b, "acme/shorter", SUMI_E_NETWORK, "announces 299500 bytes");
    fails(&b, "acme/too-much", SUMI_E_NETWORK, "sends more than the file's 300000 bytes");
    fails(&b, "acme/endless", SUMI_E_NETWORK, "sends more than the file's 300000 bytes");
    fails(&b, "acme/wrong", SUMI_E_NETWORK, "wrong content");
    CHECK(parts_of(&b, "wrong").size == -1);
    fails(&b, "acme/gzip", SUMI_E_NETWORK, "compressed");
    fails(&b, "acme/bomb", SUMI_E_NETWORK, "of headers");
    fails(&b, "acme/html", SUMI_E_FORMAT, "HF_ENDPOINT");
    fails(&b, "acme/huge", SUMI_E_FILE, "GB are free");
    char url[120];
    b.s.unsized_limit = 1 << 20;
    snprintf(url, sizeof url, "http://127.0.0.1:%d/files/endless/model.safetensors", hub_port(b.h, 0));
    fails(&b, url, SUMI_E_NETWORK, "does not say how large");
    snprintf(url, sizeof url, "http://127.0.0.1:%d/files/shorter/model.safetensors", hub_port(b.h, 0));
    sumi_pull_options o = {.sha256 = "00000000000000000000000000000000000000000000000000000000000000aa"};
    CHECKF(pull_with(&b, url, &o) == SUMI_E_NETWORK && strstr(b.e.msg, "wrong content"), "%s", b.e.msg);
    close_bench(&b);
}

/* 200 and no byte: never a model. The listing says so, and so does common sense; a digest that fits it does not. */
TEST(hub_pull_empty)
{
    static const char *const names[] = {"empty", "empty-chunked"};
    bench b;
    char url[120];
    open_bench(&b, "hub");
    b.s.tries = 2;
    for (size_t i = 0; i < SM_COUNT(names); i++) {
        snprintf(url, sizeof url, "acme/%s", names[i]);
        fails(&b, url, SUMI_E_NETWORK, i ? "ended early" : "announces 0 bytes, the hub's listing 300000");
        snprintf(url, sizeof url, "http://127.0.0.1:%d/files/%s/model.safetensors", hub_port(b.h, 0), names[i]);
        fails(&b, url, SUMI_E_NETWORK, "sends an empty file");
        CHECK(access(b.out.path, F_OK));
        sumi_pull_options o = {.sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}; /* of nothing */
        CHECKF(!pull_with(&b, url, &o) && b.out.bytes == 0, "%s", b.e.msg);
        fails(&b, url, SUMI_E_NETWORK, "sends an empty file"); /* one that is there is not taken for the file either */
    }
    close_bench(&b);
}

TEST(hub_pull_refusals)
{
    bench b;
    open_bench(&b, "hub");
    fails(&b, "acme/nothing", SUMI_E_NETWORK, "not found");
    CHECK(!strchr(b.e.msg, '\033'));
    fails(&b, "acme/one@nowhere", SUMI_E_NETWORK, "no such revision");
    fails(&b, "acme/gone", SUMI_E_NETWORK, "no such file");
    fails(&b, "acme/gated", SUMI_E_NETWORK, "accept the model's terms");
    fails(&b, "acme/private", SUMI_E_NETWORK, "HF_TOKEN");
    fails(&b, "acme/broken", SUMI_E_NETWORK, "in trouble (500)");
    CHECK(hub_count(b.h, "broken/resolve") == b.s.tries);
    fails(&b, "acme/loop", SUMI_E_NETWORK, "redirects");
    fails(&b, "acme/to-file", SUMI_E_NETWORK, "neither https nor http");
    fails(&b, "acme/to-ftp", SUMI_E_NETWORK, "neither https nor http");
    fails(&b, "acme/to-nowhere", SUMI_E_NETWORK, "without saying where to");
    fails(&b, "acme/busy-long", SUMI_E_NETWORK, "try again in 3600 seconds");
    CHECK(hub_count(b.h, "busy-long/resolve") == 1);
    arrives(&b, "trouble", 1);
    double t0 = sm_now();
    arrives(&b, "busy", 1); /* twice a second, as Retry-After says */
    CHECKF(sm_now() - t0 >= 2, "%g seconds", sm_now() - t0);
    CHECK(hub_count(b.h, "/busy/resolve") == 3);
    b.s.patience = 0.5;
    fails(&b, "acme/busy-api", SUMI_E_NETWORK, "fewer requests (429)");
    strcpy(b.s.endpoint, "http://127.0.0.1:1");
    fails(&b, "acme/one", SUMI_E_NETWORK, "no connection");
    fails(&b, "http://192.0.2.1/x", SUMI_E_ARG, "not encrypted");
    strcpy(b.s.endpoint, "http://192.0.2.1");
    fails(&b, "acme/one", SUMI_E_ARG, "not encrypted");
    close_bench(&b);
}

/* The hub gets the token, the storage it redirects to does not, nor does any other server. */
TEST(hub_pull_token)
{
    bench b;
    char url[120];
    open_bench(&b, "hub");
    strcpy(b.s.token, HUB_TOKEN);
    arrives(&b, "private", 1);
    CHECK(hub_count(b.h, "0 /api/models/acme/private") == 1 && hub_count(b.h, "0 /acme/private/resolve") == 1 &&
          hub_count(b.h, "1 /cdn/private") == 1);
    CHECK(hub_count(b.h, "auth=1") == 2 && hub_count(b.h, "auth=0") == 1);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/cdn/one/1/model.safetensors", hub_port(b.h, 1));
    CHECKF(!pull(&b, url), "%s", b.e.msg); /* same host, other port */
    snprintf(url, sizeof url, "http://localhost:%d/files/one/model.safetensors", hub_port(b.h, 0));
    CHECKF(!pull(&b, url), "%s", b.e.msg); /* same port, other name */
    CHECK(hub_count(b.h, "auth=1") == 2);
    strcpy(b.s.token, "hf_wrong");
    fails(&b, "acme/private", SUMI_E_NETWORK, "does not take the token");
    CHECK(!strstr(b.e.msg, "hf_wrong"));
    sm_hub_settings s;
    static const char *const bad[] = {"a b", "a\r\nX: y", "\xc3\xa4", "a\x01"};
    for (size_t i = 0; i < SM_COUNT(bad); i++)
        CHECKF(sm_hub_settings_read(&(sumi_pull_options){.cache = "/x", .token = bad[i]}, &s, &(sm_err){0}) == SUMI_E_ARG, "%s",
               bad[i]);
    CHECK(!sm_hub_settings_read(&(sumi_pull_options){.cache = "/x", .token = "hf_x\n"}, &s, &(sm_err){0}) &&
          !strcmp(s.token, "hf_x"));
    close_bench(&b);
}

TEST(hub_pull_evil_names)
{
    static const char *const names[] = {"dotdot", "inner", "abs", "nul", "back", "line", "dot", "slash", "end", "empty", "long",
                                        "twice", "size", "digest"};
    bench b;
    open_bench(&b, "hub");
    for (size_t i = 0; i < SM_COUNT(names); i++) {
        char what[60];
        snprintf(what, sizeof what, "acme/evil-%s", names[i]);
        fails(&b, what, SUMI_E_FORMAT, "acme/evil-");
        CHECK(!strchr(b.e.msg, '\n'));
    }
    CHECK(hub_count(b.h, "resolve") == 0);
    close_bench(&b);
}

/* A branch that moves: the new snapshot takes over when it is whole; what both have is one file. */
TEST(hub_pull_moving)
{
    bench b;
    char path[4096];
    struct stat one, two;
    uint64_t freed;
    open_bench(&b, "hub");
    arrives(&b, "moving", 1);
    CHECKF(!pull(&b, "acme/moving/config.txt"), "%s", b.e.msg); /* a part of the new commit does not take the name over */
    CHECK(!strcmp(b.out.commit, TWO) && !sm_hub_find_in(&b.s, "acme/moving", NULL, path, sizeof path, &b.e) && strstr(path, ONE));
    CHECKF(!sm_hub_find_in(&b.s, "acme/moving/config.txt", NULL, path, sizeof path, &b.e) && strstr(path, TWO), "%s", b.e.msg);
    CHECKF(!pull(&b, "acme/moving") && strstr(b.out.path, TWO) && holds(b.out.path, "model.safetensors", 2, HUB_ONE_BYTES),
           "%s", b.e.msg);
    CHECK(!sm_hub_find_in(&b.s, "acme/moving", NULL, path, sizeof path, &b.e) && !strcmp(path, b.out.path));
    CHECK(!sm_hub_find_in(&b.s, "acme/moving@0000000000000000000000000000000000000001", NULL, path, sizeof path, &b.e) &&
          strstr(path, ONE));
    CHECKF(!pull(&b, "acme/moving@v1"), "%s", b.e.msg); /* the same commit under another name: nothing to fetch */
    CHECK(b.out.fetched == 0 && !stat(b.out.path, &two) && two.st_nlink == 2);
    sm_hub_entries l;
    CHECK(!sm_hub_list(&b.s, NULL, &l, &b.e) && l.n == 2 && !strcmp(l.at[0].name, "acme/moving") &&
          !strcmp(l.at[1].name, "acme/moving@000000000000"));
    sm_hub_entries_free(&l);
    CHECKF(!sm_hub_remove(&b.s, "acme/moving@" ONE, NULL, &freed, &b.e) && freed == HUB_ONE_BYTES, "%s %d", b.e.msg, (int)freed);
    CHECK(stat(in_cache(&b, "moving", "snapshots/" ONE), &one) && !stat(b.out.path, &two));
    /* the model, an empty file, two refs */
    sumi_status gone = sm_hub_remove(&b.s, "acme/moving", NULL, &freed, &b.e);
    CHECKF(!gone && freed == HUB_ONE_BYTES + 2 * 40 && stat(b.out.path, &two) && access(in_cache(&b, "moving", ""), F_OK),
           "%s %d", b.e.msg, (int)freed);
    CHECK(sm_hub_remove(&b.s, "acme/moving", NULL, &freed, &b.e) == SUMI_E_FILE);
    close_bench(&b);
}

TEST(hub_pull_check)
{
    bench b;
    open_bench(&b, "hub");
    arrives(&b, "one", 1);
    char path[4096];
    strcpy(path, b.out.path);
    FILE *f = fopen(path, "r+");
    CHECK(f && !fseek(f, 7, SEEK_SET) && fputc('x', f) != EOF && !fclose(f)); /* the disk's fault: blob and name are one file */
    CHECK(!pull(&b, "acme/one") && !holds(path, "model.safetensors", 1, HUB_ONE_BYTES));
    CHECKF(!pull_with(&b, "acme/one", &(sumi_pull_options){.check = 1}) && holds(path, "model.safetensors", 1, HUB_ONE_BYTES),
           "%s", b.e.msg);
    CHECK(b.out.fetched == HUB_ONE_BYTES);
    close_bench(&b);
}

TEST(hub_pull_cancelled)
{
    bench b;
    open_bench(&b, "hub");
    b.cancel_at = 50000;
    CHECK(pull(&b, "acme/slow") == SUMI_E_CANCELLED && !strcmp(b.e.msg, "stopped"));
    int64_t kept = parts_of(&b, "slow").size;
    CHECKF(kept >= 50000 && kept < HUB_ONE_BYTES, "%d", (int)kept);
    b.cancel = b.cancel_at = 0;
    arrives(&b, "slow", 1);
    CHECK((int64_t)b.out.fetched == HUB_ONE_BYTES - kept);
    close_bench(&b);
}

static void *pull_thread(void *arg)
{
    bench *b = arg;
    pull(b, "acme/slow");
    return NULL;
}

/* Two at once: one waits, nothing is fetched twice. */
TEST(hub_pull_two_at_once)
{
    bench b, c;
    pthread_t t;
    uint64_t freed;
    bool busy = false;
    open_bench(&b, "hub");
    c = (bench){.h = b.h, .s = b.s};
    CHECK(!pthread_create(&t, NULL, pull_thread, &c));
    for (int i = 0; i < 500 && hub_count(b.h, "/acme/slow/resolve") == 0; i++)
        usleep(10000);
    CHECK(sm_hub_remove(&b.s, "acme/slow", NULL, &freed, &b.e) == SUMI_E_FILE && strstr(b.e.msg, "being pulled"));
    arrives(&b, "slow", 1);
    pthread_join(t, NULL);
    CHECKF(!c.e.code, "%s", c.e.msg);
    CHECK(b.out.fetched + c.out.fetched == HUB_ONE_BYTES && strstr(b.messages, "another pull is at work"));
    CHECK(hub_count(b.h, "slow/resolve") == 1); /* the empty file needs no request: the layout's single model is one file */
    CHECK(sm_cache_lock(in_cache(&b, "slow", ".lock"), NULL, NULL, &busy, &b.e) >= 0 && !busy);
    close_bench(&b);
}

TEST(hub_find_foreign)
{
    bench b;
    char path[4096], repo[4096], text[4200];
    open_bench(&b, "hub");
    snprintf(repo, sizeof repo, "%s", test_tmp("foreign"));
    snprintf(text, sizeof text, "%s/models--who--what/snapshots/" ONE "/unet/x", repo);
    CHECK(!sm_cache_folders(text, &b.e));
    snprintf(text, sizeof text, "%s/models--who--what/refs/x", repo);
    CHECK(!sm_cache_folders(text, &b.e));
    snprintf(text, sizeof text, "%s/models--who--what/refs/main", repo);
    CHECK(!sm_file_write(text, ONE, 40, &b.e));
    snprintf(text, sizeof text, "%s/models--who--what/snapshots/" ONE "/model_index.json", repo);
    CHECK(!sm_file_write(text, "{}", 2, &b.e));
    setenv("HF_HUB_CACHE", repo, 1);
    CHECKF(!sm_hub_find_in(&b.s, "who/what", NULL, path, sizeof path, &b.e) && strstr(path, ONE), "%s", b.e.msg);
    sm_hub_entries l;
    CHECK(!sm_hub_list(&b.s, NULL, &l, &b.e) && l.n == 1 && l.at[0].foreign && l.at[0].bytes == 2 &&
          !strcmp(l.at[0].name, "who/what"));
    sm_hub_entries_free(&l);
    uint64_t freed;
    CHECK(sm_hub_remove(&b.s, "who/what", NULL, &freed, &b.e) == SUMI_E_FILE && strstr(b.e.msg, "only reads"));
    b.e = (sm_err){0};
    CHECK(sm_hub_find_in(&b.s, "who/else", NULL, path, sizeof path, &b.e) == SUMI_E_FILE &&
          strstr(b.e.msg, "sumi pull who/else"));
    close_bench(&b);
}

/* Each allocation of a pull fails in turn: an error, and the next pull goes on. */
TEST(hub_pull_out_of_memory)
{
    bench b;
    open_bench(&b, "hub");
    bool done = false;
    for (int64_t k = 1; k < 400 && !done; k++) {
        sm_mem mem = {.fail_at = k};
        b.e = (sm_err){0};
        sumi_status st = sm_hub_pull("acme/part", &b.s, NULL, NULL, &mem, &b.out, &b.e);
        done = mem.fail_at > 0;
        CHECKF(done ? !st : !st || st == SUMI_E_MEMORY, "allocation %d: %d %s", (int)k, st, b.e.msg);
        CHECK(mem.total == 0);
    }
    CHECK(done);
    close_bench(&b);
}
