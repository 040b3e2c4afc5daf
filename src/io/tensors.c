/* Files of tensors of any format (see tensors.h). A format is one row: how it is recognised and the five calls of its reader. */
#include "io/tensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/ckpt.h"
#include "io/gguf.h"

enum { HEAD = 512 }; /* bytes at the beginning of a file that tell its format */

typedef struct format {
    const char *name;
    bool (*is)(const void *head, size_t n); /* NULL: what nobody else takes, and folders */
    void *(*open)(const char *path, sm_mem *mem, sm_err *e);
    void (*close)(void *f);
    size_t (*count)(const void *f);
    const sm_st_entry *(*at)(const void *f, size_t i);
    sumi_status (*into)(void *f, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e);
} format;

/* The calls of a reader whose struct is sm_NAME, behind void pointers; what follows NAME goes to sm_NAME_into. */
#define READER(NAME, ...)                                                                                                   \
    static void *open_##NAME(const char *path, sm_mem *mem, sm_err *e) { return sm_##NAME##_open(path, mem, e); }           \
    static void close_##NAME(void *f) { sm_##NAME##_close(f); }                                                             \
    static size_t count_##NAME(const void *f) { return sm_##NAME##_count(f); }                                              \
    static const sm_st_entry *at_##NAME(const void *f, size_t i) { return sm_##NAME##_at(f, i); }                           \
    static sumi_status into_##NAME(void *f, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e)                      \
    {                                                                                                                       \
        return sm_##NAME##_into(f, w, prefix, ##__VA_ARGS__, mem, e);                                                       \
    }
#define ROW(NAME) open_##NAME, close_##NAME, count_##NAME, at_##NAME, into_##NAME

READER(ckpt)
READER(st)
READER(gguf, SM_F16) /* what quantised types become when they are loaded */

static const format formats[] = {
    {"GGUF file", sm_gguf_is, ROW(gguf)},
    {"PyTorch checkpoint", sm_ckpt_is, ROW(ckpt)},
    {"safetensors", NULL, ROW(st)},
};

struct sm_tensors {
    const format *format;
    void *file;
};

/* The bytes at the beginning of a file; 0 for what cannot be read, which its reader will say. */
static size_t read_head(const char *path, uint8_t head[HEAD])
{
    size_t n = 0;
    ssize_t k = 1;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    while (fd >= 0 && n < HEAD && (k = read(fd, head + n, HEAD - n)) != 0)
        if (k > 0)
            n += (size_t)k;
        else if (errno != EINTR)
            break;
    if (fd >= 0)
        close(fd);
    return n;
}

sm_tensors *sm_tensors_open(const char *path, sm_mem *mem, sm_err *e)
{
    uint8_t head[HEAD] = {0};
    size_t n = read_head(path, head);
    const format *t = formats;
    while (t->is && !t->is(head, n))
        t++;
    sm_tensors *f = sm_alloc0(mem, SM_MEM_MISC, sizeof *f);
    if (!f) {
        sm_fail(e, SUMI_E_MEMORY, "%s: out of memory", path);
        return NULL;
    }
    f->format = t;
    f->file = t->open(path, mem, e);
    if (f->file)
        return f;
    sm_free(f);
    return NULL;
}

void sm_tensors_close(sm_tensors *f)
{
    if (f)
        f->format->close(f->file);
    sm_free(f);
}

const char *sm_tensors_format(const sm_tensors *f) { return f->format->name; }
size_t sm_tensors_count(const sm_tensors *f) { return f->format->count(f->file); }
const sm_st_entry *sm_tensors_at(const sm_tensors *f, size_t i) { return f->format->at(f->file, i); }

const sm_st_entry *sm_tensors_find(const sm_tensors *f, const char *name)
{
    size_t a = 0, b = sm_tensors_count(f);
    while (a < b) {
        size_t m = a + (b - a) / 2;
        int c = strcmp(sm_tensors_at(f, m)->name, name);
        if (!c)
            return sm_tensors_at(f, m);
        *(c < 0 ? &a : &b) = c < 0 ? m + 1 : m;
    }
    return NULL;
}

sumi_status sm_tensors_into(sm_tensors *f, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e)
{
    sumi_status st = f->format->into(f->file, w, prefix, mem, e);
    sm_free(f);
    return st;
}

sumi_status sm_tensors_load(const char *path, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e)
{
    sm_err own = {0};
    sm_tensors *f = sm_tensors_open(path, mem, &own);
    if (f)
        return sm_tensors_into(f, w, prefix, mem, e);
    sm_fail(e, own.code, "%s", own.msg);
    return own.code;
}
