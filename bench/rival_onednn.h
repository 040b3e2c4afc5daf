/* oneDNN's inner product with weights in the layout that it asks for, turned into it once: the counterpart of sumi's packed
 * weights. By dlopen, so its types are declared here as far as they are needed: descriptors of version 2 are structs of some 700
 * (memory) and 4,000 bytes (operation) that only the library looks into. */
#ifndef BENCH_RIVAL_ONEDNN_H
#define BENCH_RIVAL_ONEDNN_H

#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Values of dnnl_types.h. */
enum { ODN_F32 = 3, ODN_ANY = 1, ODN_INFERENCE = 96, ODN_CPU = 1, ODN_IN_ORDER = 1, ODN_WEIGHTS_MD = 131, ODN_SRC = 1,
      ODN_DST = 17, ODN_WEIGHTS = 33 };
typedef union odn_md { char room[4096]; void *align; } odn_md;
typedef union odn_desc { char room[65536]; void *align; } odn_desc;
typedef struct odn_arg { int arg; void *memory; } odn_arg;
typedef struct odn_version { int major, minor, patch; } odn_version; /* what dnnl_version points to begins with */

typedef struct onednn {
    const odn_version *(*version)(void);
    int (*engine)(void **, int kind, size_t index), (*stream)(void **, void *engine, unsigned flags), (*wait)(void *stream);
    int (*strides)(odn_md *, int ndims, const int64_t *dims, int type, const int64_t *strides);
    int (*tag)(odn_md *, int ndims, const int64_t *dims, int type, int tag);
    int (*product)(odn_desc *, int kind, const odn_md *src, const odn_md *weights, const odn_md *bias, const odn_md *dst);
    int (*describe)(void **, const odn_desc *, const void *attr, void *engine, const void *hint);
    int (*turn)(void **, const odn_md *from, void *engine, const odn_md *to, void *to_engine, const void *attr);
    const odn_md *(*query)(const void *described, int what, int index);
    int (*primitive)(void **, const void *described), (*memory)(void **, const odn_md *, void *engine, void *data);
    int (*execute)(const void *primitive, void *stream, int count, const odn_arg *args);
    void *on, *queue;
} onednn;

/* A product y = x w', all set up. */
typedef struct odn_product { void *primitive; odn_arg args[3]; } odn_product;

/* False where `so` is none of version 2 or lacks something. */
static bool odn_open(onednn *o, void *so)
{
    const struct { const char *name; void *to; } symbols[] = {
        {"dnnl_version", &o->version}, {"dnnl_engine_create", &o->engine}, {"dnnl_stream_create", &o->stream},
        {"dnnl_stream_wait", &o->wait},
        {"dnnl_memory_desc_init_by_strides", &o->strides}, {"dnnl_memory_desc_init_by_tag", &o->tag},
        {"dnnl_inner_product_forward_desc_init", &o->product}, {"dnnl_primitive_desc_create", &o->describe},
        {"dnnl_reorder_primitive_desc_create", &o->turn}, {"dnnl_primitive_desc_query_md", &o->query},
        {"dnnl_primitive_create", &o->primitive}, {"dnnl_memory_create", &o->memory}, {"dnnl_primitive_execute", &o->execute}};
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *f = so ? dlsym(so, symbols[i].name) : NULL;
        if (!f)
            return false;
        memcpy(symbols[i].to, &f, sizeof f);
    }
    return o->version()->major == 2 && !o->engine(&o->on, ODN_CPU, 0) && !o->stream(&o->queue, o->on, ODN_IN_ORDER);
}

static void odn_multiply(const onednn *o, const odn_product *p)
{
    o->execute(p->primitive, o->queue, 3, p->args);
    o->wait(o->queue);
}

/* x [m][k], w [n][k] (copied), y [m][n]; what it makes is kept until the process ends. */
static bool odn_setup(const onednn *o, odn_product *p, int64_t m, int64_t n, int64_t k, const float *x, const float *w, float *y)
{
    static odn_desc desc;
    odn_md src, dst, stored, any;
    void *described, *turn, *turned, *from, *to;
    if (o->strides(&src, 2, (int64_t[]){m, k}, ODN_F32, (int64_t[]){k, 1}) ||
        o->strides(&dst, 2, (int64_t[]){m, n}, ODN_F32, (int64_t[]){n, 1}) ||
        o->strides(&stored, 2, (int64_t[]){n, k}, ODN_F32, (int64_t[]){k, 1}) ||
        o->tag(&any, 2, (int64_t[]){n, k}, ODN_F32, ODN_ANY) ||
        o->product(&desc, ODN_INFERENCE, &src, &any, NULL, &dst) || o->describe(&described, &desc, NULL, o->on, NULL))
        return false;
    const odn_md *wanted = o->query(described, ODN_WEIGHTS_MD, 0);
    if (!wanted || o->primitive(&p->primitive, described) || o->memory(&from, &stored, o->on, (void *)w) ||
        o->memory(&to, wanted, o->on, (void *)UINTPTR_MAX) || o->turn(&turn, &stored, o->on, wanted, o->on, NULL) ||
        o->primitive(&turned, turn))
        return false;
    if (o->execute(turned, o->queue, 2, (odn_arg[]){{ODN_SRC, from}, {ODN_DST, to}}) || o->wait(o->queue))
        return false;
    p->args[0].arg = ODN_SRC, p->args[1].arg = ODN_WEIGHTS, p->args[2].arg = ODN_DST;
    p->args[1].memory = to;
    return !o->memory(&p->args[0].memory, &src, o->on, (void *)x) && !o->memory(&p->args[2].memory, &dst, o->on, y);
}

#endif
