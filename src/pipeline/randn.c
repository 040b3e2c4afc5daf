/* A request's noise, from the generator it names (see randn.h). */
#include "pipeline/randn.h"

#include <string.h>

#include "base/rng.h"
#include "sample/slerp.h"

/* Streams of sumi's own numbers: the start, then a stream for every draw. */
enum { STREAM_START = 1, STREAM_STEP = 2 };

static const char *const kinds[SM_RANDN_COUNT] = {"sumi", "torch", "philox"};

sm_randn_kind sm_randn_find(const char *name)
{
    int k = 0;
    while (k < SM_RANDN_COUNT && strcmp(kinds[k], name))
        k++;
    return (sm_randn_kind)k;
}

sumi_status sm_randn_open(sm_randn *r, sm_mem *mem, const char *name, int most, int h, int w, int c, sm_err *e)
{
    *r = (sm_randn){.kind = sm_randn_find(name), .h = h, .w = w, .c = c, .most = most};
    if (r->kind == SM_RANDN_COUNT)
        return sm_fail(e, SUMI_E_ARG, "--rng: '%.40s' is unknown; sumi, torch or philox", name);
    if (r->kind == SM_RANDN_SUMI)
        return SUMI_OK;
    r->planes = sm_alloc(mem, SM_MEM_MISC, sizeof *r->planes * (size_t)h * (size_t)w * (size_t)c);
    if (r->kind == SM_RANDN_TORCH)
        r->cpu = sm_alloc(mem, SM_MEM_MISC, sizeof *r->cpu * (size_t)most);
    if (!r->planes || (r->kind == SM_RANDN_TORCH && !r->cpu))
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for the noise of %d pictures", most);
    return SUMI_OK;
}

sumi_status sm_randn_vary(sm_randn *r, sm_mem *mem, const sumi_request *q, int f, sm_err *e)
{
    r->delta = (uint64_t)q->ensd;
    r->strength = q->variation_strength;
    r->same = r->strength > 0;
    r->from_h = q->seed_resize_height / f;
    r->from_w = q->seed_resize_width / f;
    if (!r->from_h || !r->from_w || (r->from_h == r->h && r->from_w == r->w))
        r->from_h = r->from_w = 0;
    if (!r->same && !r->from_h)
        return SUMI_OK;
    size_t here = (size_t)r->h * (size_t)r->w, there = (size_t)r->from_h * (size_t)r->from_w,
           most = SM_MAX(here, there) * (size_t)r->c;
    r->room = sm_alloc(mem, SM_MEM_MISC, sizeof *r->room * 2 * most);
    if (r->planes && there > here) {
        sm_free(r->planes);
        r->planes = sm_alloc(mem, SM_MEM_MISC, sizeof *r->planes * most);
    }
    if (!r->room || (r->kind != SM_RANDN_SUMI && !r->planes))
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for the noise of a picture of %dx%d",
                       q->seed_resize_width, q->seed_resize_height);
    return SUMI_OK;
}

static void cpu_normals(uint64_t seed, float *out, size_t n)
{
    sm_torch_cpu g;
    sm_torch_cpu_seed(&g, seed);
    sm_torch_cpu_normal(&g, out, n);
}

static void cuda_normals(uint64_t seed, float *out, size_t n) { sm_torch_cuda_normal(seed, 0, out, n); }

sumi_status sm_randn_open_paths(sm_randn *r, sm_mem *mem, double low, double high, sm_err *e)
{
    sm_normals *const normals[SM_RANDN_COUNT] = {NULL, cpu_normals, cuda_normals};
    r->paths = sm_alloc0(mem, SM_MEM_MISC, sizeof *r->paths * (size_t)r->most);
    if (!r->paths)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for the noise of %d pictures", r->most);
    r->low = low;
    r->high = high;
    for (int k = 0; k < r->most; k++)
        if (sm_brownian_open(&r->paths[k], mem, (size_t)r->h * (size_t)r->w * (size_t)r->c, normals[r->kind], e))
            return e->code;
    return SUMI_OK;
}

void sm_randn_close(sm_randn *r)
{
    for (int k = 0; r->paths && k < r->most; k++)
        sm_brownian_close(&r->paths[k]);
    sm_free(r->paths);
    sm_free(r->planes);
    sm_free(r->room);
    sm_free(r->cpu);
    *r = (sm_randn){0};
}

/* Of picture k. */
static uint64_t seed_of(const sm_randn *r, int k) { return r->seed + (r->same ? 0 : (uint64_t)k); }

static void begin(sm_randn *r, uint64_t delta)
{
    r->drawn = 0;
    for (int k = 0; r->cpu && k < r->n; k++)
        sm_torch_cpu_seed(&r->cpu[k], seed_of(r, k) + delta);
}

void sm_randn_start(sm_randn *r, uint64_t seed, int n)
{
    r->seed = seed;
    r->n = n;
    r->delayed = r->delta != 0;
    begin(r, 0);
    for (int k = 0; r->paths && k < n; k++)
        sm_brownian_start(&r->paths[k], seed_of(r, k), r->low, r->high);
}

void sm_randn_start_of(sm_randn *r, const sumi_request *q, int first, int n)
{
    r->subseed = (uint64_t)sm_subseed_of(q, first);
    sm_randn_start(r, (uint64_t)sm_seed_of(q, first), n);
}

/* r->planes, [c, pixels], to [pixels, c]. */
static void to_channels_last(const sm_randn *r, size_t pixels, float *out)
{
    size_t c = (size_t)r->c;
    for (size_t k = 0; k < c; k++)
        for (size_t i = 0; i < pixels; i++)
            out[i * c + k] = r->planes[k * pixels + i];
}

/* What is drawn beside the sampler's noise has numbers from -2 down. */
static uint64_t stream_of(int draw)
{
    return draw == -1 ? STREAM_START : draw < 0 ? (uint64_t)draw : STREAM_STEP + (uint64_t)draw;
}

/* The first noise of a seed at some size, by a generator of its own. */
static void first_of(const sm_randn *r, uint64_t seed, size_t pixels, float *out)
{
    size_t n = pixels * (size_t)r->c;
    if (r->kind == SM_RANDN_SUMI) {
        sm_rng_normal(seed, STREAM_START, 0, out, n);
        return;
    }
    (r->kind == SM_RANDN_TORCH ? cpu_normals : cuda_normals)(seed, r->planes, n);
    to_channels_last(r, pixels, out);
}

void sm_randn_plain(sm_randn *r, int k, float *out) { first_of(r, seed_of(r, k), (size_t)r->h * (size_t)r->w, out); }

/* Lays the middle of from [from_h, from_w, c] over the middle of out [h, w, c]; what is larger is cut, the same on either side,
 * and where that leaves a half the place is A1111's. */
static void lay_over(const sm_randn *r, const float *from, float *out)
{
    int y = (r->h - r->from_h) >> 1, x = (r->w - r->from_w) >> 1; /* rounded down, as Python's // */
    int h = r->from_h + (y < 0 ? 2 * y : 0), w = r->from_w + (x < 0 ? 2 * x : 0);
    for (int i = 0; i < h; i++)
        memcpy(out + ((size_t)(SM_MAX(y, 0) + i) * (size_t)r->w + (size_t)SM_MAX(x, 0)) * (size_t)r->c,
               from + ((size_t)(SM_MAX(-y, 0) + i) * (size_t)r->from_w + (size_t)SM_MAX(-x, 0)) * (size_t)r->c,
               sizeof *out * (size_t)SM_MAX(w, 0) * (size_t)r->c);
}

/* The start of picture k, out [h, w, c] being its own. */
static void vary(sm_randn *r, int k, float *out)
{
    int h = r->from_h ? r->from_h : r->h, w = r->from_h ? r->from_w : r->w;
    size_t pixels = (size_t)h * (size_t)w;
    float *x = r->from_h ? r->room : out, *sub = r->room + pixels * (size_t)r->c;
    if (r->from_h)
        first_of(r, seed_of(r, k), pixels, x);
    if (r->strength > 0) {
        first_of(r, r->subseed + (uint64_t)k, pixels, sub);
        sm_slerp(r->strength, h, (int64_t)w * r->c, x, sub);
    }
    if (r->from_h)
        lay_over(r, x, out);
}

void sm_randn_draw(sm_randn *r, int draw, float *out)
{
    size_t pixels = (size_t)r->h * (size_t)r->w, each = pixels * (size_t)r->c;
    if (draw >= 0 && r->delayed) {
        begin(r, r->delta);
        r->delayed = false;
    }
    for (int k = 0; k < r->n; k++, out += each) {
        uint64_t seed = seed_of(r, k) + (draw >= 0 ? r->delta : 0);
        if (r->kind == SM_RANDN_SUMI) {
            sm_rng_normal(seed, stream_of(draw), 0, out, each);
        } else {
            if (r->kind == SM_RANDN_TORCH)
                sm_torch_cpu_normal(&r->cpu[k], r->planes, each);
            else
                sm_torch_cuda_normal(seed, r->drawn, r->planes, each);
            to_channels_last(r, pixels, out);
        }
        if (draw == -1 && r->room)
            vary(r, k, out);
    }
    r->drawn++;
}

void sm_randn_step(sm_randn *r, double from, double to, float *out)
{
    size_t each = (size_t)r->h * (size_t)r->w * (size_t)r->c;
    for (int k = 0; k < r->n; k++, out += each) {
        sm_brownian_step(&r->paths[k], from, to, r->planes ? r->planes : out);
        if (r->planes)
            to_channels_last(r, (size_t)r->h * (size_t)r->w, out);
    }
}
