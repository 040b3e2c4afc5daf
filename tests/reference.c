/* Reader of the reference files (see reference.h). */
#include "reference.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/safetensors.h"
#include "test.h"

bool reference_open(reference *r, const char *name)
{
    *r = (reference){.name = name};
    sm_st *f = sm_st_open(test_fixture(name), &r->mem, &r->err);
    r->w = f ? sm_weights_new(&r->mem, &r->err) : NULL;
    if (!r->w) {
        sm_st_close(f);
    } else if (!sm_st_into(f, r->w, NULL, &r->mem, &r->err)) { /* the table keeps f */
        r->config = sm_st_metadata(f, "config");
        r->f32_error = sm_st_metadata(f, "f32_error");
    }
    CHECKF(!r->err.code, "%s", r->err.msg);
    return !r->err.code;
}

void reference_close(reference *r)
{
    sm_weights_unref(&r->w);
    CHECKF(r->mem.total == 0, "%s: %zu bytes are left", r->name, r->mem.total);
}

bool reference_config(reference *r, sm_model_kind kind, void *config)
{
    bool ok = r->config && !sm_config_read(kind, r->config, strlen(r->config), config, &r->err);
    CHECKF(ok, "%s: %s", r->name, r->config ? r->err.msg : "no config");
    return ok;
}

const sm_weight *reference_find(const reference *r, const char *fmt, ...)
{
    char name[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    const sm_weight *w = sm_weights_find(r->w, name);
    CHECKF(w != NULL, "%s lacks %s", r->name, name);
    return w;
}

/* The tensor, if it is n floats. */
static const float *floats(const reference *r, const char *name, int64_t n)
{
    const sm_weight *w = reference_find(r, "%s", name);
    bool fits = w && w->t.dtype == SM_F32 && w->bytes == (size_t)n * sizeof(float);
    CHECKF(!w || fits, "%s: %s is not %lld floats", r->name, name, (long long)n);
    return fits ? w->t.data : NULL;
}

void reference_copy(const reference *r, const char *name, float *x, int64_t n)
{
    const float *from = floats(r, name, n);
    CHECK(x != NULL);
    if (from && x)
        memcpy(x, from, (size_t)n * sizeof *x);
}

void reference_near(const reference *r, const char *name, const float *x, int64_t n, double tolerance, const char *where)
{
    const float *want = floats(r, name, n);
    if (!want)
        return;
    double d = x ? test_maxdiff(x, want, n) : INFINITY, rms = test_rms(want, n);
    CHECKF(d <= tolerance * rms, "%s, %s: %s differs by %.3g, rms %.3g", r->name, where, name, d, rms);
}
