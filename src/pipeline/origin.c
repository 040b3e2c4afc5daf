/* Model hash and file names of infotexts (see origin.h). The hash is A1111's: SHA-256 of the file, cut to ten digits. At some 1.8
 * GB a second it takes less than a sampling step of a model of that size, so it is read once a model and cached nowhere. Files
 * below the home folder are written with "~", which keeps the user's name out of pictures. */
#include "pipeline/origin.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hub/digest.h"
#include "pipeline/infotext.h"

enum { PIECE = 16 << 10 };

struct sm_origin {
    sm_mem *mem;
    char *file;           /* that is hashed; NULL: a folder */
    char *text;           /* ", Model file: ..." */
    size_t tiny[2];       /* from where to where it tells the tiny autoencoder */
    bool hashed;
    char hash[11];
    pthread_mutex_t lock; /* of the two above */
};

static const struct { const char *key; size_t at; } keys[] = {
    {"Model file", offsetof(sumi_model_options, path)},
    {"VAE file", offsetof(sumi_model_options, vae)},
    {"Text encoder file", offsetof(sumi_model_options, text_encoder)},
    {"Text encoder 2 file", offsetof(sumi_model_options, text_encoder_2)},
    {"Denoiser file", offsetof(sumi_model_options, unet)},
    {"TAESD file", offsetof(sumi_model_options, taesd)},
    {"Tokenizer file", offsetof(sumi_model_options, tokenizer)},
};

const char **sm_origin_member(sumi_model_options *o, const char *key)
{
    for (size_t i = 0; i < SM_COUNT(keys); i++)
        if (!strcmp(keys[i].key, key))
            return (const char **)((char *)o + keys[i].at);
    return NULL;
}

void sm_origin_put_path(const char *path, sm_buf *b)
{
    const char *home = getenv("HOME");
    size_t n = home ? strlen(home) : 0;
    sm_buf p = {.mem = b->mem};
    bool below = n > 1 && !strncmp(path, home, n) && path[n] == '/';
    bool folder = path[0] == ' ' || !strncmp(path, "~/", 2); /* a name that would be read as something else */
    sm_buf_fmt(&p, "%s%s", below ? "~" : folder ? "./" : "", below ? path + n : path);
    b->oom = b->oom || p.oom;
    if (!b->oom)
        sm_infotext_quote(p.data, b);
    sm_buf_free(&p);
}

sm_origin *sm_origin_new(const sumi_model_options *o, const char *file, sm_mem *mem, sm_err *e)
{
    struct stat st;
    sm_buf text = {.mem = mem}, name = {.mem = mem};
    sm_origin *g = sm_alloc0(mem, SM_MEM_MISC, sizeof *g);
    size_t tiny[2] = {0};
    sm_buf_fmt(&text, "%s", "");
    for (size_t i = 0; i < SM_COUNT(keys); i++) {
        const char *path = *(const char *const *)((const char *)o + keys[i].at);
        if (!path || !sm_utf8_valid(path, strlen(path)))
            continue;
        bool is_tiny = keys[i].at == offsetof(sumi_model_options, taesd);
        tiny[0] = is_tiny ? text.len : tiny[0];
        sm_buf_fmt(&text, ", %s: ", keys[i].key);
        sm_origin_put_path(path, &text);
        tiny[1] = is_tiny ? text.len : tiny[1];
    }
    if (o->low_memory)
        sm_buf_fmt(&text, ", " SM_ORIGIN_LOW_MEMORY ": True");
    if (!stat(file, &st) && S_ISREG(st.st_mode))
        sm_buf_fmt(&name, "%s", file);
    if (!g || text.oom || name.oom) {
        sm_free(g);
        sm_buf_free(&text);
        sm_buf_free(&name);
        sm_fail(e, SUMI_E_MEMORY, "out of memory opening %s", file);
        return NULL;
    }
    *g = (sm_origin){.mem = mem, .file = name.data, .text = text.data, .tiny = {tiny[0], tiny[1]}};
    pthread_mutex_init(&g->lock, NULL);
    return g;
}

void sm_origin_free(sm_origin *g)
{
    if (!g)
        return;
    pthread_mutex_destroy(&g->lock);
    sm_free(g->file);
    sm_free(g->text);
    sm_free(g);
}

static void read_hash(sm_origin *g)
{
    char hex[SM_DIGEST_HEX] = "";
    sm_digest *d = sm_digest_new(SM_DIGEST_SHA256, 0, NULL);
    char piece[PIECE]; /* on the stack: plans of memory know nothing of it */
    int fd = d ? open(g->file, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t n = fd < 0 ? -1 : 1;
    while (n > 0 && (n = read(fd, piece, sizeof piece)) > 0)
        n = sm_digest_add(d, piece, (size_t)n) ? n : -1;
    if (n == 0 && sm_digest_end(d, hex))
        memcpy(g->hash, hex, sizeof g->hash - 1);
    if (fd >= 0)
        close(fd);
    sm_digest_free(d);
}

const char *sm_origin_hash(sm_origin *g)
{
    pthread_mutex_lock(&g->lock);
    if (!g->hashed && g->file)
        read_hash(g);
    g->hashed = true;
    pthread_mutex_unlock(&g->lock);
    return g->hash;
}

const char *sm_origin_file(const sm_origin *g) { return g->file; }

void sm_origin_put(const sm_origin *g, bool tiny, sm_buf *b)
{
    sm_buf_add(b, g->text, g->tiny[tiny ? 1 : 0]);
    sm_buf_fmt(b, "%s", g->text + g->tiny[1]);
}
