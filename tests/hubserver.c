/* The hub of hubserver.h. One thread a port, one a connection, one request a connection. */
#include "hubserver.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hub/digest.h"

typedef struct counter { char name[64]; int n; } counter;

struct hubserver {
    int fd[2], port[2], stop, live, ncounters;
    pthread_t thread[2];
    pthread_mutex_t lock;
    counter counter[128];
    sm_buf lines;
    FILE *log;
};

typedef struct conn {
    hubserver *h;
    int fd, which;
    char path[6200], range[64], if_range[64], auth[128];
} conn;

/* ---- what is served ------------------------------------------------------------------------------------------------ */

typedef struct served { const char *layout, *path; size_t size; bool lfs; } served;

static const served files[] = {
    {"folder", "README.md", 900, false},
    {"folder", "model_index.json", 120, false},
    {"folder", "flax_model.msgpack", 5000, true},
    {"folder", "v1-5-pruned.ckpt", 90000, true},
    {"folder", "safety_checker/model.safetensors", 9000, true},
    {"folder", "scheduler/scheduler_config.json", 300, false},
    {"folder", "text_encoder/config.json", 500, false},
    {"folder", "text_encoder/model.safetensors", 30000, true},
    {"folder", "text_encoder/pytorch_model.bin", 30010, true},
    {"folder", "text_encoder/pytorch_model.fp16.bin", 15010, true},
    {"folder", "tokenizer/merges.txt", 4000, false},
    {"folder", "tokenizer/vocab.json", 4500, false},
    {"folder", "unet/config.json", 700, false},
    {"folder", "unet/diffusion_pytorch_model-00001-of-00002.safetensors", 80000, true},
    {"folder", "unet/diffusion_pytorch_model-00002-of-00002.safetensors", 70000, true},
    {"folder", "unet/diffusion_pytorch_model.bin", 150000, true},
    {"folder", "unet/diffusion_pytorch_model.fp16.safetensors", 75000, true},
    {"folder", "unet/diffusion_pytorch_model.non_ema.safetensors", 150001, true},
    {"folder", "unet/diffusion_pytorch_model.safetensors.index.json", 400, false},
    {"folder", "vae/config.json", 600, false},
    {"folder", "vae/diffusion_pytorch_model.bin", 20000, true},
    {"one", ".gitattributes", 100, false},
    {"one", "config.txt", 0, false},
    {"one", "model.safetensors", HUB_ONE_BYTES, true},
    {"many", "a.safetensors", 1000, true},
    {"many", "b-fp16.safetensors", 1100, true},
    {"many", "c.ckpt", 1200, true},
    {"part", "config.json", 300, false},
    {"part", "diffusion_pytorch_model.safetensors", 2000, true},
    {"part", "diffusion_pytorch_model.bin", 2001, true},
    {"part", "old/x.safetensors", 2002, true},
};

/* Names that no listing should hold, as JSON texts. */
static const char *const evil[][2] = {
    {"evil-dotdot", "../../x"}, {"evil-inner", "a/../../x"}, {"evil-abs", "/tmp/x"}, {"evil-nul", "a\\u0000b"},
        {"evil-back", "a\\\\..\\\\b"},
    {"evil-line", "a\\nb"}, {"evil-dot", "./x"}, {"evil-slash", "a//b"}, {"evil-end", "a/"}, {"evil-empty", ""},
};

static const char *layout_of(const char *name)
{
    return !strncmp(name, "folder", 6) ? "folder" : !strncmp(name, "many", 4) ? "many" : !strncmp(name, "part", 4) ? "part"
        : "one";
}

uint8_t hub_byte(const char *path, int version, size_t i)
{
    uint32_t seed = 2166136261u + (uint32_t)version;
    for (; *path; path++)
        seed = (seed ^ (uint8_t)*path) * 16777619u;
    uint32_t x = (uint32_t)i * 2654435761u ^ seed;
    return (uint8_t)((x ^ x >> 15) * 2246822519u >> 24);
}

/* ---- sockets ------------------------------------------------------------------------------------------------------- */

static bool stopping(const conn *c) { return __atomic_load_n(&c->h->stop, __ATOMIC_SEQ_CST); }

static bool say(conn *c, const void *data, size_t n)
{
    for (const char *p = data; n;) {
        ssize_t k = send(c->fd, p, n, MSG_NOSIGNAL);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0 || stopping(c))
            return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

static void sayf(conn *c, const char *fmt, ...) SM_PRINTF(2, 3);
static void sayf(conn *c, const char *fmt, ...)
{
    char text[8192];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    say(c, text, (size_t)n);
}

static void refuse(conn *c, int status, const char *headers)
{
    sayf(c, "HTTP/1.1 %d No\r\n%sContent-Length: 3\r\nConnection: close\r\n\r\nno\n", status, headers);
}

/* How often this was asked for by name before, from 0. */
static int times(hubserver *h, const char *name)
{
    int i = 0, n = 0;
    pthread_mutex_lock(&h->lock);
    while (i < h->ncounters && strcmp(h->counter[i].name, name))
        i++;
    if (i == h->ncounters && i < (int)SM_COUNT(h->counter))
        snprintf(h->counter[h->ncounters++].name, sizeof h->counter[0].name, "%.63s", name);
    n = h->counter[i % (int)SM_COUNT(h->counter)].n++;
    pthread_mutex_unlock(&h->lock);
    return n;
}

static void wait_ms(conn *c, int ms)
{
    for (; ms > 0 && !stopping(c); ms -= 20)
        poll(NULL, 0, ms < 20 ? ms : 20);
}

/* Until the other side has gone. */
static void wait_gone(conn *c)
{
    char x;
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    while (!stopping(c) && !(poll(&p, 1, 50) > 0 && recv(c->fd, &x, 1, 0) <= 0))
        ;
}

/* ---- the listing --------------------------------------------------------------------------------------------------- */

static void put_file(sm_buf *b, const served *f, const char *name, int version, bool first)
{
    char hex[SM_DIGEST_HEX], *data = malloc(f->size + 1);
    sm_digest *d = sm_digest_new(f->lfs ? SM_DIGEST_SHA256 : SM_DIGEST_GIT, f->size, NULL);
    for (size_t i = 0; i < f->size; i++)
        data[i] = (char)hub_byte(f->path, f->lfs ? version : 1, i);
    sm_digest_add(d, data, f->size);
    sm_digest_end(d, hex);
    sm_digest_free(d);
    free(data);
    size_t size = !strcmp(name, "huge") && f->lfs ? (size_t)1e15 : f->size;
    sm_buf_fmt(b, "%s{\"rfilename\":\"%s\",\"size\":%zu,", first ? "" : ",", f->path, size);
    if (f->lfs)
        sm_buf_fmt(b, "\"blobId\":\"%040d\",\"lfs\":{\"sha256\":\"%s\",\"size\":%zu,\"pointerSize\":134}}", 0, hex, size);
    else
        sm_buf_fmt(b, "\"blobId\":\"%s\"}", hex);
}

static void list(conn *c, const char *name, int version)
{
    sm_buf b = {0};
    bool first = true;
    sm_buf_fmt(&b, "{\"id\":\"acme/%s\",\"private\":false,\"sha\":\"%040d\",\"siblings\":[", name, version);
    for (size_t i = 0; i < SM_COUNT(files); i++)
        if (!strcmp(files[i].layout, layout_of(name))) {
            put_file(&b, &files[i], name, version, first);
            first = false;
        }
    for (size_t i = 0; i < SM_COUNT(evil); i++)
        if (!strcmp(evil[i][0], name))
            sm_buf_fmt(&b, ",{\"rfilename\":\"%s\",\"size\":1,\"blobId\":\"%040d\"}", evil[i][1], 7);
    if (!strcmp(name, "evil-long"))
        sm_buf_fmt(&b, ",{\"rfilename\":\"%05000d\",\"size\":1,\"blobId\":\"%040d\"}", 0, 7);
    if (!strcmp(name, "evil-twice"))
        sm_buf_fmt(&b, ",{\"rfilename\":\"model.safetensors\",\"size\":1,\"blobId\":\"%040d\"}", 7);
    if (!strcmp(name, "evil-size"))
        sm_buf_fmt(&b, ",{\"rfilename\":\"x\",\"size\":-1,\"blobId\":\"%040d\"}", 7);
    if (!strcmp(name, "evil-digest"))
        sm_buf_fmt(&b, ",{\"rfilename\":\"x\",\"size\":1,\"blobId\":\"../../../../tmp/x\"}");
    sm_buf_fmt(&b, "]}");
    sayf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", b.len);
    say(c, b.data, b.len);
    sm_buf_free(&b);
}

static void api(conn *c, const char *name, const char *rest)
{
    char key[96];
    snprintf(key, sizeof key, "api %s", name);
    int k = times(c->h, key);
    bool token = !strcmp(c->auth, "Bearer " HUB_TOKEN);
    if (strncmp(rest, "/revision/", 10))
        refuse(c, 404, "");
    else if (!strcmp(name, "nothing"))
        refuse(c, 404, "X-Error-Code: RepoNotFound\r\nX-Error-Message: \033[31mno\r\n");
    else if (!strncmp(rest, "/revision/nowhere", 17))
        refuse(c, 404, "X-Error-Code: RevisionNotFound\r\n");
    else if (!strcmp(name, "private") && !token)
        refuse(c, 401, "X-Error-Code: RepoNotFound\r\n");
    else if (!strcmp(name, "gated"))
        refuse(c, 403, "X-Error-Code: GatedRepo\r\n");
    else if (!strcmp(name, "busy-api") && k < 2)
        refuse(c, 429, "Retry-After: 1\r\n");
    else if (!strcmp(name, "html"))
        sayf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html>Welcome to the airport</html>");
    else if (!strcmp(name, "renamed"))
        sayf(c, "HTTP/1.1 307 Moved\r\nLocation: /api/models/acme/one%s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", rest);
    else
        list(c, name, !strcmp(name, "moving") && k ? 2 : 1);
}

/* ---- files --------------------------------------------------------------------------------------------------------- */

typedef struct sending {
    size_t size, from, drop_at; /* drop_at: bytes of the body after which the connection ends */
    int version, status, delay; /* delay: milliseconds before each 8 kB */
    bool ranges, wrong, chunked, stall;
    long lie;                   /* added to Content-Length */
    const char *etag, *extra;   /* extra: header lines */
} sending;

static void fault_of(const char *name, int k, sending *s)
{
    bool first = k == 0;
    if (!strcmp(name, "drop")) s->drop_at = 100000;
    if (!strcmp(name, "drop-once") && first) s->drop_at = 100000;
    if (!strcmp(name, "drop-always")) s->drop_at = 0;
    if (!strcmp(name, "no-ranges")) s->ranges = false, s->drop_at = first ? 100000 : SIZE_MAX;
    if (!strcmp(name, "longer")) s->lie = 500;
    if (!strcmp(name, "shorter")) s->lie = -500;
    if (!strcmp(name, "wrong")) s->wrong = true;
    if (!strcmp(name, "wrong-once") && first) s->wrong = true, s->drop_at = 100000;
    if (!strcmp(name, "etag")) s->version = first ? 1 : 2, s->etag = first ? "\"v1\"" : "\"v2\"", s->drop_at = first ? 100000
        : SIZE_MAX;
    if (!strcmp(name, "range-lie")) s->drop_at = first ? 100000 : SIZE_MAX;
    if (!strcmp(name, "trickle")) s->delay = 20;
    if (!strcmp(name, "slow")) s->delay = 30;
    if (!strcmp(name, "stall") && first) s->stall = true, s->drop_at = 100000;
    if (!strcmp(name, "chunked")) s->chunked = true;
    if (!strcmp(name, "too-much")) s->chunked = true, s->size += 5000;
    if (!strcmp(name, "endless")) s->chunked = true, s->size = SIZE_MAX;
    if (!strcmp(name, "no-etag")) s->etag = NULL, s->drop_at = first ? 100000 : SIZE_MAX;
    if (!strcmp(name, "empty") || !strcmp(name, "empty-chunked")) s->size = 0, s->chunked = name[5];
    if (!strcmp(name, "gzip")) s->extra = "Content-Encoding: gzip\r\n";
}

static bool send_body(conn *c, const char *path, const sending *s)
{
    char buf[8192 + 32];
    size_t end = s->size, sent = 0;
    for (size_t at = s->from; at < end && sent < s->drop_at;) {
        size_t n = SM_MIN(SM_MIN((size_t)8192, end - at), s->drop_at - sent), m = 0;
        if (s->chunked)
            m = (size_t)snprintf(buf, 32, "%zx\r\n", n);
        for (size_t i = 0; i < n; i++)
            buf[m + i] = (char)(hub_byte(path, s->version, at + i) ^ (s->wrong && at + i == 5000 ? 1 : 0));
        memcpy(buf + m + n, "\r\n", 2);
        wait_ms(c, s->delay);
        if (!say(c, buf, m + n + (s->chunked ? 2 : 0)))
            return false;
        at += n;
        sent += n;
    }
    if (s->chunked && sent < s->drop_at)
        sayf(c, "0\r\n\r\n");
    if (s->stall)
        wait_gone(c);
    return true;
}

static void send_file(conn *c, const char *name, const char *path, size_t size, int version, bool faulty)
{
    char key[96], tag[80];
    snprintf(key, sizeof key, "file %s", name);
    sending s = {.size = size, .version = version, .drop_at = SIZE_MAX, .ranges = true, .extra = "", .etag = "\"v1\""};
    if (faulty)
        fault_of(name, times(c->h, key), &s);
    bool same = !c->if_range[0] || (s.etag && !strcmp(c->if_range, s.etag));
    size_t from = c->range[0] ? (size_t)strtoull(c->range, NULL, 10) : 0;
    snprintf(tag, sizeof tag, s.etag ? "ETag: %s\r\n" : "%s", s.etag ? s.etag : "");
    if (from && s.ranges && same && from >= s.size) {
        sayf(c, "HTTP/1.1 416 Past\r\nContent-Range: bytes */%zu\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", s.size);
        return;
    }
    bool part = from && s.ranges && same;
    size_t lie = part && !strcmp(name, "range-lie") && from == 100000 ? 50 : 0;
    s.from = part ? from - lie : 0;
    if (part)
        sayf(c, "HTTP/1.1 206 Part\r\nContent-Range: bytes %zu-%zu/%zu\r\n", s.from, s.size - 1, s.size);
    else
        sayf(c, "HTTP/1.1 200 OK\r\n");
    sayf(c, "%s%sConnection: close\r\n", tag, s.extra);
    if (s.chunked)
        sayf(c, "Transfer-Encoding: chunked\r\n\r\n");
    else
        sayf(c, "Content-Length: %zu\r\n\r\n", (size_t)((long)(s.size - s.from) + s.lie));
    send_body(c, path, &s);
}

static void send_bomb(conn *c)
{
    sayf(c, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 1000000 && !stopping(c); i++) {
        char line[120];
        int n = snprintf(line, sizeof line, "X-Header-%d: %080d\r\n", i, 0);
        if (!say(c, line, (size_t)n))
            return;
    }
}

/* Answers that are no file at all; true when one was given. */
static bool instead_of_file(conn *c, const char *name, const char *path, int version)
{
    char key[96], line[512];
    snprintf(key, sizeof key, "instead %s", name);
    int k = times(c->h, key);
    bool token = !strcmp(c->auth, "Bearer " HUB_TOKEN);
    if (!strcmp(name, "bomb"))
        send_bomb(c);
    else if (!strcmp(name, "busy") && k < 2)
        refuse(c, 429, "Retry-After: 1\r\n");
    else if (!strcmp(name, "busy-long"))
        refuse(c, 429, "Retry-After: 3600\r\n");
    else if (!strcmp(name, "trouble") && k < 2)
        refuse(c, 503, "");
    else if (!strcmp(name, "broken"))
        refuse(c, 500, "");
    else if (!strcmp(name, "gone"))
        refuse(c, 404, "X-Error-Code: EntryNotFound\r\n");
    else if (!strcmp(name, "loop"))
        snprintf(line, sizeof line, "Location: %.400s\r\n", c->path), refuse(c, 302, line);
    else if (!strcmp(name, "to-file"))
        refuse(c, 302, "Location: file:///etc/passwd\r\n");
    else if (!strcmp(name, "to-ftp"))
        refuse(c, 302, "Location: ftp://127.0.0.1/x\r\n");
    else if (!strcmp(name, "folder-gone") && !strncmp(path, "unet/", 5))
        refuse(c, 404, "X-Error-Code: EntryNotFound\r\n");
    else if (!strcmp(name, "to-nowhere"))
        refuse(c, 302, "");
    else if (!strcmp(name, "private") && !token)
        refuse(c, 401, "");
    else if ((!strcmp(name, "redirect") || !strcmp(name, "private")) && c->which == 0) {
        snprintf(line, sizeof line, "X-Linked-Etag: \"%064d\"\r\nLocation: http://localhost:%d/cdn/%s/%d/%s?signature=SIGNED\r\n",
                 0, c->h->port[1], name, version, path);
        refuse(c, 302, line);
    } else {
        return false;
    }
    return true;
}

static void file(conn *c, const char *name, const char *path, int version)
{
    bool weights = strstr(path, ".safetensors") != NULL;
    if (weights && instead_of_file(c, name, path, version))
        return;
    for (size_t i = 0; i < SM_COUNT(files); i++)
        if (!strcmp(files[i].layout, layout_of(name)) && !strcmp(files[i].path, path)) {
            send_file(c, name, path, files[i].size, files[i].lfs ? version : 1, weights);
            return;
        }
    refuse(c, 404, "X-Error-Code: EntryNotFound\r\n");
}

/* ---- requests ------------------------------------------------------------------------------------------------------ */

static void route(conn *c)
{
    char name[80] = "", rest[600] = "";
    int version = 1;
    if (sscanf(c->path, "/api/models/acme/%79[^/]%599s", name, rest) == 2)
        api(c, name, rest);
    else if (sscanf(c->path, "/acme/%79[^/]/resolve/%d/%599[^?]", name, &version, rest) == 3)
        file(c, name, rest, version);
    else if (c->which && sscanf(c->path, "/cdn/%79[^/]/%d/%599[^?]", name, &version, rest) == 3)
        send_file(c, name, rest, HUB_ONE_BYTES, version, false);
    else if (sscanf(c->path, "/files/%79[^/]/%599[^?]", name, rest) == 2 && !instead_of_file(c, name, rest, 1))
        send_file(c, name, "model.safetensors", HUB_ONE_BYTES, 1, true);
    else if (!rest[0])
        refuse(c, 404, "");
}

static void header(const char *request, const char *name, char *out, size_t size)
{
    const char *s = strcasestr(request, name);
    out[0] = 0;
    if (s)
        snprintf(out, size, "%.*s", (int)SM_MIN(strcspn(s + strlen(name), "\r\n"), size - 1), s + strlen(name));
}

static void note(conn *c)
{
    hubserver *h = c->h;
    char line[6600];
    snprintf(line, sizeof line, "%d %s range=%s if-range=%s auth=%d\n", c->which, c->path, c->range, c->if_range,
             c->auth[0] != 0);
    pthread_mutex_lock(&h->lock);
    sm_buf_fmt(&h->lines, "%s", line);
    if (h->log) {
        fputs(line, h->log);
        fflush(h->log);
    }
    pthread_mutex_unlock(&h->lock);
}

static void *serve_one(void *arg)
{
    conn *c = arg;
    char text[8192];
    size_t n = 0;
    ssize_t k;
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_sec = 5}, sizeof(struct timeval));
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){.tv_sec = 5}, sizeof(struct timeval));
    do {
        k = recv(c->fd, text + n, sizeof text - 1 - n, 0);
        n += k > 0 ? (size_t)k : 0;
        text[n] = 0;
    } while (k > 0 && n < sizeof text - 1 && !strstr(text, "\r\n\r\n"));
    if (sscanf(text, "GET %6000s", c->path) == 1) {
        header(text, "\r\nRange: bytes=", c->range, sizeof c->range);
        header(text, "\r\nIf-Range: ", c->if_range, sizeof c->if_range);
        header(text, "\r\nAuthorization: ", c->auth, sizeof c->auth);
        note(c);
        route(c);
    }
    shutdown(c->fd, SHUT_WR); /* what was sent arrives before the end does */
    for (int i = 0; i < 20 && recv(c->fd, text, sizeof text, MSG_DONTWAIT) < 0 && !stopping(c); i++)
        poll(&(struct pollfd){.fd = c->fd, .events = POLLIN}, 1, 10);
    close(c->fd);
    __atomic_fetch_sub(&c->h->live, 1, __ATOMIC_SEQ_CST);
    free(c);
    return NULL;
}

typedef struct port_arg { hubserver *h; int which; } port_arg;

static void *serve_port(void *arg)
{
    port_arg a = *(port_arg *)arg;
    free(arg);
    struct pollfd p = {.fd = a.h->fd[a.which], .events = POLLIN};
    while (!__atomic_load_n(&a.h->stop, __ATOMIC_SEQ_CST)) {
        if (poll(&p, 1, 50) <= 0)
            continue;
        int fd = accept(p.fd, NULL, NULL);
        conn *c = fd >= 0 ? calloc(1, sizeof *c) : NULL;
        pthread_t t;
        if (!c)
            continue;
        *c = (conn){.h = a.h, .fd = fd, .which = a.which};
        __atomic_fetch_add(&a.h->live, 1, __ATOMIC_SEQ_CST);
        if (!pthread_create(&t, NULL, serve_one, c))
            pthread_detach(t);
    }
    return NULL;
}

hubserver *hub_start(FILE *log)
{
    hubserver *h = calloc(1, sizeof *h);
    pthread_mutex_init(&h->lock, NULL);
    h->log = log;
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t n = sizeof a;
        port_arg *p = malloc(sizeof *p);
        *p = (port_arg){h, i};
        h->fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (bind(h->fd[i], (struct sockaddr *)&a, sizeof a) || listen(h->fd[i], 64) ||
            getsockname(h->fd[i], (struct sockaddr *)&a, &n) ||
            pthread_create(&h->thread[i], NULL, serve_port, p))
            abort();
        h->port[i] = ntohs(a.sin_port);
    }
    return h;
}

void hub_stop(hubserver *h)
{
    __atomic_store_n(&h->stop, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 2; i++) {
        pthread_join(h->thread[i], NULL);
        close(h->fd[i]);
    }
    while (__atomic_load_n(&h->live, __ATOMIC_SEQ_CST))
        poll(NULL, 0, 5);
    sm_buf_free(&h->lines);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

int hub_port(const hubserver *h, int which) { return h->port[which]; }

int hub_count(hubserver *h, const char *text)
{
    int n = 0;
    pthread_mutex_lock(&h->lock);
    for (const char *s = h->lines.data; s && *s;) {
        size_t k = strcspn(s, "\n");
        n += memmem(s, k, text, strlen(text)) != NULL;
        s += k + (s[k] == '\n');
    }
    pthread_mutex_unlock(&h->lock);
    return n;
}
