/* Files of tensors of any format (see tensors.h). A format is one row: how it is recognised and the calls of its reader. */
#include "io/tensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cpu/cpu.h"
#include "io/ckpt.h"
#include "io/gguf.h"
#include "io/quant.h"
#include "io/weight_files.h"

enum {
    HEAD = 512,            /* bytes at the beginning of a file that tell its format */
    NAME_BYTES = 1100 /* longest name that is looked at; the formats allow 1024 bytes */
};

typedef struct format {
    const char *name;
    bool (*is)(const void *head, size_t n); /* NULL: what nobody else takes, and folders */
    void *(*open)(const char *path, sm_mem *mem, sm_err *e);
    void *(*open_mem)(const void *data, size_t size, const char *label, sm_mem *mem, sm_err *e);
    void (*close)(void *f);
    size_t (*count)(const void *f);
    const sm_st_entry *(*at)(const void *f, size_t i);
    sumi_status (*map)(const void *f, sm_weights *w, sm_err *e); /* tells of mapped memory; may be NULL */
} format;

/* The calls of a reader whose struct is sm_NAME, behind void pointers. */
#define READER(NAME)                                                                                                        \
    static void *open_##NAME(const char *path, sm_mem *mem, sm_err *e) { return sm_##NAME##_open(path, mem, e); }           \
    static void *mem_##NAME(const void *data, size_t size, const char *label, sm_mem *mem, sm_err *e)                       \
    {                                                                                                                       \
        return sm_##NAME##_open_mem(data, size, label, mem, e);                                                             \
    }                                                                                                                       \
    static void close_##NAME(void *f) { sm_##NAME##_close(f); }                                                             \
    static size_t count_##NAME(const void *f) { return sm_##NAME##_count(f); }                                              \
    static const sm_st_entry *at_##NAME(const void *f, size_t i) { return sm_##NAME##_at(f, i); }
#define ROW(NAME) open_##NAME, mem_##NAME, close_##NAME, count_##NAME, at_##NAME

READER(ckpt)
READER(st)
READER(gguf)

static sumi_status map_st(const void *f, sm_weights *w, sm_err *e) { return sm_st_map(f, w, e); }
static sumi_status map_gguf(const void *f, sm_weights *w, sm_err *e) { return sm_gguf_map(f, w, e); }
static sumi_status map_ckpt(const void *f, sm_weights *w, sm_err *e) { return sm_ckpt_map(f, w, e); }

static const format formats[] = {
    {"GGUF file", sm_gguf_is, ROW(gguf), map_gguf},
    {"PyTorch checkpoint", sm_ckpt_is, ROW(ckpt), map_ckpt},
    {"safetensors", NULL, ROW(st), map_st},
};

struct sm_tensors {
    const format *format;
    void *file;
    char path[256]; /* its end, when it is longer */
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

/* A file of the format that head tells, from data or, when that is NULL, from path. */
static sm_tensors *open_as(const uint8_t *head, size_t n, const char *path, const void *data, size_t size, sm_mem *mem, sm_err *e)
{
    const format *t = formats;
    while (t->is && !t->is(head, n))
        t++;
    sm_tensors *f = sm_alloc0(mem, SM_MEM_MISC, sizeof *f);
    if (!f) {
        sm_fail(e, SUMI_E_MEMORY, "%s: out of memory", path);
        return NULL;
    }
    size_t len = strlen(path), most = sizeof f->path - 1;
    memcpy(f->path, len > most ? path + (len - most) : path, SM_MIN(len, most));
    f->format = t;
    f->file = data ? t->open_mem(data, size, path, mem, e) : t->open(path, mem, e);
    if (f->file)
        return f;
    sm_free(f);
    return NULL;
}

/* A component's folder stands for its weights, where that is one file of any format or an index. */
static sm_tensors *open_folder(const char *path, sm_mem *mem, sm_err *e)
{
    sm_wf_set set;
    sm_err none = {0};
    uint8_t head[HEAD] = {0};
    const char *file = !sm_wf_find(path, mem, &set, &none) && set.n == 1 ? set.path[0] : path;
    sm_tensors *f = open_as(head, read_head(file, head), file, NULL, 0, mem, e);
    sm_wf_free(&set);
    return f;
}

sm_tensors *sm_tensors_open(const char *path, sm_mem *mem, sm_err *e)
{
    uint8_t head[HEAD] = {0};
    struct stat st;
    if (!stat(path, &st) && S_ISDIR(st.st_mode))
        return open_folder(path, mem, e);
    size_t n = read_head(path, head);
    return open_as(head, n, path, NULL, 0, mem, e);
}

sm_tensors *sm_tensors_open_mem(const void *data, size_t size, const char *label, sm_mem *mem, sm_err *e)
{
    return open_as(data, SM_MIN(size, (size_t)HEAD), label, data, size, mem, e);
}

void sm_tensors_close(sm_tensors *f)
{
    if (f)
        f->format->close(f->file);
    sm_free(f);
}

const char *sm_tensors_path(const sm_tensors *f) { return f->path; }
const char *sm_tensors_metadata(const sm_tensors *f, const char *key)
{
    return f->format->open == open_st ? sm_st_metadata(f->file, key)
           : f->format->open == open_gguf ? sm_gguf_text(f->file, key) : NULL;
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

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* Elements; 0 for an empty tensor or one of too many. */
static size_t elements(const sm_st_entry *x)
{
    size_t n = 1;
    for (int i = 0; i < x->rank; i++)
        if (x->dims[i] < 0 || !sm_mul_ok(n, (size_t)x->dims[i], &n))
            return 0;
    return n;
}

/* The type of the data, or of what they are turned into; -1: not usable. *wide: they are F64. */
static int type_of(const sm_st_entry *x, bool *wide)
{
    int t = sm_store_find(x->dtype);
    *wide = !x->computable && !strcmp(x->dtype, "F64");
    if (x->rank > SM_MAX_DIMS || !elements(x))
        return -1;
    return *wide ? SM_F32 : t > SM_I32 ? t : x->computable ? (int)x->type : -1;
}

bool sm_tensors_usable(const sm_st_entry *x)
{
    bool wide;
    return type_of(x, &wide) >= 0;
}

/* The scale beside an FP8 weight, NULL for none. */
static const sm_st_entry *scale_of(const sm_tensors *f, const sm_st_entry *x)
{
    static const char *const tails[] = {"scale_weight", "weight_scale"};
    char name[NAME_BYTES + 16];
    size_t n = strlen(x->name);
    const sm_st_entry *s = NULL;
    if (n < 6 || n >= NAME_BYTES || strcmp(x->name + n - 6, "weight"))
        return NULL;
    for (size_t i = 0; i < SM_COUNT(tails) && !s; i++) {
        memcpy(name, x->name, n - 6);
        strcpy(name + n - 6, tails[i]);
        s = sm_tensors_find(f, name);
    }
    return s;
}

/* Memory of w's; NULL and e set on failure. */
static void *owned(size_t n, size_t size, const char *name, sm_weights *w, sm_mem *mem, sm_err *e)
{
    size_t bytes;
    void *p = sm_mul_ok(n, size, &bytes) ? sm_alloc(mem, SM_MEM_WEIGHT, bytes) : NULL;
    if (!p)
        sm_fail(e, SUMI_E_MEMORY, "out of memory for tensor %s", name);
    return p && sm_weights_keep(w, sm_free, p, e) == SUMI_OK ? p : NULL;
}

static sumi_status take_scale(const sm_tensors *f, const sm_st_entry *x, sm_weights *w, sm_tensor *t, sm_mem *mem, sm_err *e)
{
    const sm_st_entry *s = scale_of(f, x);
    if (!s)
        return SUMI_OK;
    size_t values = elements(x), n = elements(s), rows = x->rank ? (size_t)x->dims[0] : 1;
    if (!s->computable || s->type > SM_BF16 || (n != 1 && n != rows))
        return sm_fail(e, SUMI_E_FORMAT, "%s: tensor %s must be one scale or one for each of %zu rows", f->path, s->name, rows);
    float *scale = owned(n, sizeof *scale, s->name, w, mem, e);
    if (!scale)
        return SUMI_E_MEMORY;
    sm_load_blocks(s->type, s->data, (int64_t)n, scale);
    t->scale = scale;
    t->scale_run = (int64_t)(values / n);
    return SUMI_OK;
}

static void f64_to_f32(const uint8_t *src, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        double v;
        memcpy(&v, src + i * sizeof v, sizeof v);
        out[i] = (float)v;
    }
}

sumi_status sm_tensors_view(const sm_tensors *f, const sm_st_entry *x, sm_weights *w, sm_tensor *t, sm_mem *mem, sm_err *e)
{
    bool wide;
    int type = type_of(x, &wide);
    if (type < 0)
        return sm_fail(e, SUMI_E_SUPPORT,
                       "%s: tensor %s (%s, %d dimensions) is empty or of a type that sumi does not compute with",
                       f->path, x->name, x->dtype, x->rank);
    *t = (sm_tensor){.data = (void *)x->data, .dtype = (sm_dtype)type, .rank = x->rank};
    memcpy(t->dims, x->dims, (size_t)x->rank * sizeof *t->dims);
    if (type == SM_F8_E4M3 || type == SM_F8_E5M2)
        return take_scale(f, x, w, t, mem, e);
    size_t size = sm_dtype_size(t->dtype); /* 0 for blocks, which may lie anywhere */
    if (!size || (!wide && (uintptr_t)x->data % size == 0))
        return SUMI_OK;
    size_t n = elements(x);
    t->data = owned(n, size, x->name, w, mem, e);
    if (!t->data)
        return SUMI_E_MEMORY;
    if (wide)
        f64_to_f32(x->data, n, t->data);
    else
        memcpy(t->data, x->data, n * size);
    return SUMI_OK;
}

sumi_status sm_tensors_transpose(sm_tensor *t, const char *name, sm_weights *w, sm_mem *mem, sm_err *e)
{
    if (t->rank != 2)
        return sm_fail(e, SUMI_E_FORMAT, "tensor %s has %d dimensions, must be a matrix", name, t->rank);
    size_t r = (size_t)t->dims[0], c = (size_t)t->dims[1], s = t->scale ? 0 : sm_dtype_size(t->dtype);
    sm_tensor y = {.dtype = s ? t->dtype : SM_F32, .rank = 2, .dims = {t->dims[1], t->dims[0]}};
    uint8_t *to = y.data = owned(r * c, s ? s : sizeof(float), name, w, mem, e); /* r * c fits: it is in memory */
    if (!to)
        return SUMI_E_MEMORY;
    for (size_t i = 0; i < r; i++)
        for (size_t j = 0; j < c; j++)
            if (s)
                memcpy(to + (j * r + i) * s, (const uint8_t *)t->data + (i * c + j) * s, s);
            else
                sm_load_values(t, (int64_t)(i * c + j), 1, (float *)y.data + j * r + i);
    *t = y;
    return SUMI_OK;
}

/* ---- into the table of weights ----------------------------------------------------------------------------------- */

static void close_kept(void *f) { sm_tensors_close(f); }

sumi_status sm_tensors_keep(sm_tensors *f, sm_weights *w, sm_err *e)
{
    sumi_status st = sm_weights_keep(w, close_kept, f, e);
    return st == SUMI_OK && f->format->map ? f->format->map(f->file, w, e) : st;
}

static sumi_status add(const sm_tensors *f, const sm_st_entry *x, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e)
{
    char name[2 * NAME_BYTES];
    sm_tensor t;
    size_t n = strlen(prefix), k = strlen(x->name);
    if (n + k >= sizeof name)
        return sm_fail(e, SUMI_E_FORMAT, "%s: tensor '%.100s' has too long a name", f->path, x->name);
    memcpy(name, prefix, n);
    memcpy(name + n, x->name, k + 1);
    sumi_status st = sm_tensors_view(f, x, w, &t, mem, e);
    return st == SUMI_OK ? sm_weights_add(w, name, &t, e) : st;
}

sumi_status sm_tensors_into(sm_tensors *f, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e)
{
    sumi_status st = sm_tensors_keep(f, w, e);
    for (size_t i = 0; st == SUMI_OK && i < sm_tensors_count(f); i++)
        if (sm_tensors_usable(sm_tensors_at(f, i)))
            st = add(f, sm_tensors_at(f, i), w, prefix ? prefix : "", mem, e);
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
