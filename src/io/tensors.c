/* Files of tensors of any format (see tensors.h). A format is one row: how it is recognised and the calls of its reader. */
#include "io/tensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/ckpt.h"
#include "io/gguf.h"

enum {
    HEAD = 512,            /* bytes at the beginning of a file that tell its format */
    NAME_MAX_BYTES = 1100 /* longest name that is looked at; the formats allow 1024 bytes */
};

typedef struct format {
    const char *name;
    bool (*is)(const void *head, size_t n); /* NULL: what nobody else takes, and folders */
    void *(*open)(const char *path, sm_mem *mem, sm_err *e);
    void *(*open_mem)(const void *data, size_t size, const char *label, sm_mem *mem, sm_err *e);
    void (*close)(void *f);
    size_t (*count)(const void *f);
    const sm_st_entry *(*at)(const void *f, size_t i);
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

static const format formats[] = {
    {"GGUF file", sm_gguf_is, ROW(gguf)},
    {"PyTorch checkpoint", sm_ckpt_is, ROW(ckpt)},
    {"safetensors", NULL, ROW(st)},
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

sm_tensors *sm_tensors_open(const char *path, sm_mem *mem, sm_err *e)
{
    uint8_t head[HEAD] = {0};
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

/* The storage type of entries that are converted; -1 for others. */
static int converted(const sm_st_entry *x)
{
    int s = sm_store_find(x->dtype);
    return s > SM_STORE_I32 ? s : -1;
}

/* Elements; 0 for an empty tensor or one of too many. */
static size_t elements(const sm_st_entry *x)
{
    size_t n = 1;
    for (int i = 0; i < x->rank; i++)
        if (x->dims[i] < 0 || !sm_mul_ok(n, (size_t)x->dims[i], &n))
            return 0;
    return n;
}

bool sm_tensors_usable(const sm_st_entry *x)
{
    return x->computable || ((converted(x) >= 0 || !strcmp(x->dtype, "F64")) && x->rank <= SM_MAX_DIMS && elements(x) > 0);
}

/* The scale beside an FP8 weight, NULL for none. */
static const sm_st_entry *scale_of(const sm_tensors *f, const sm_st_entry *x)
{
    static const char *const tails[] = {"scale_weight", "weight_scale"};
    char name[NAME_MAX_BYTES + 16];
    size_t n = strlen(x->name);
    const sm_st_entry *s = NULL;
    if (n < 6 || n >= NAME_MAX_BYTES || strcmp(x->name + n - 6, "weight"))
        return NULL;
    for (size_t i = 0; i < SM_COUNT(tails) && !s; i++) {
        memcpy(name, x->name, n - 6);
        strcpy(name + n - 6, tails[i]);
        s = sm_tensors_find(f, name);
    }
    return s;
}

/* Scales as f32 into s, one or `rows` of them; 0 for another number or type. */
static size_t read_scales(const sm_st_entry *x, size_t rows, float *s)
{
    size_t n = elements(x);
    int store = sm_store_find(x->dtype);
    if (!x->computable || store < 0 || store > SM_STORE_BF16 || (n != 1 && n != rows))
        return 0;
    sm_store_load((sm_store)store, x->data, (int64_t)n, s);
    return n;
}

/* FP8 and blocks into f16, in pieces of a block or a row of a scale. */
static sumi_status dequantise(const sm_st_entry *x, const float *scale, size_t scales, size_t n, uint16_t *out, sm_err *e)
{
    sm_store store = (sm_store)converted(x);
    size_t block = (size_t)sm_store_block(store), per_scale = scales ? n / scales : n;
    float y[SM_STORE_MAX_BLOCK];
    if (n % block)
        return sm_fail(e, SUMI_E_FORMAT, "tensor %s (%s) does not divide into blocks of %zu", x->name, x->dtype, block);
    for (size_t i = 0; i < n; i += block) {
        sm_store_load(store, x->data + i / block * sm_store_block_bytes(store), (int64_t)block, y);
        for (size_t k = 0; scales && k < block; k++)
            y[k] *= scale[(i + k) / per_scale];
        if (!sm_store_save(SM_STORE_F16, y, (int64_t)block, out + i))
            return sm_fail(e, SUMI_E_NUMERIC, "tensor %s (%s) has values too large for f16", x->name, x->dtype);
    }
    return SUMI_OK;
}

static sumi_status convert_fp8_or_blocks(const sm_tensors *f, const sm_st_entry *x, size_t n, void *out, sm_mem *mem, sm_err *e)
{
    const sm_st_entry *s = x->dtype[0] == 'F' ? scale_of(f, x) : NULL;
    size_t rows = x->rank ? (size_t)x->dims[0] : 1, scales = 0;
    float *scale = NULL;
    sumi_status st = SUMI_OK;
    if (s) {
        scale = sm_alloc(mem, SM_MEM_MISC, rows * sizeof *scale);
        scales = scale ? read_scales(s, rows, scale) : 0;
        if (!scale)
            st = sm_fail(e, SUMI_E_MEMORY, "out of memory for tensor %s", s->name);
        else if (!scales)
            st = sm_fail(e, SUMI_E_FORMAT, "tensor %s must be one scale or one for each of %zu rows", s->name, rows);
    }
    if (st == SUMI_OK)
        st = dequantise(x, scale, scales, n, out, e);
    sm_free(scale);
    return st;
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
    size_t n = elements(x), bytes;
    bool blocks = converted(x) >= 0, wide = !x->computable && !strcmp(x->dtype, "F64");
    if (!sm_tensors_usable(x))
        return sm_fail(e, SUMI_E_SUPPORT, "%s: tensor %s (%s, %d dimensions) is empty or of a type that sumi does not compute with",
                       f->path, x->name, x->dtype, x->rank);
    *t = (sm_tensor){.data = (void *)x->data, .dtype = blocks ? SM_F16 : wide ? SM_F32 : x->type, .rank = x->rank};
    memcpy(t->dims, x->dims, (size_t)x->rank * sizeof *t->dims);
    if (!blocks && !wide && (uintptr_t)x->data % sm_dtype_size(t->dtype) == 0)
        return SUMI_OK;
    if (!sm_mul_ok(n, sm_dtype_size(t->dtype), &bytes) || !(t->data = sm_alloc(mem, SM_MEM_WEIGHT, bytes)))
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for tensor %s", x->name);
    sumi_status st = sm_weights_keep(w, sm_free, t->data, e);
    if (st == SUMI_OK && blocks)
        st = convert_fp8_or_blocks(f, x, n, t->data, mem, e);
    else if (st == SUMI_OK && wide)
        f64_to_f32(x->data, n, t->data);
    else if (st == SUMI_OK)
        memcpy(t->data, x->data, bytes);
    return st;
}

/* ---- into the table of weights ----------------------------------------------------------------------------------- */

static void close_kept(void *f) { sm_tensors_close(f); }

sumi_status sm_tensors_keep(sm_tensors *f, sm_weights *w, sm_err *e) { return sm_weights_keep(w, close_kept, f, e); }

static sumi_status add(const sm_tensors *f, const sm_st_entry *x, sm_weights *w, const char *prefix, sm_mem *mem, sm_err *e)
{
    char name[2 * NAME_MAX_BYTES];
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
