/* A request's noise, from the generator it names (see randn.h). */
#include "pipeline/randn.h"

#include <string.h>

#include "base/rng.h"

/* Streams of sumi's own numbers: the start, then a stream for every draw. */
enum { STREAM_START = 1, STREAM_STEP = 2 };

static const struct { const char *name, *a1111; } kinds[SM_RANDN_COUNT] = {{"sumi", NULL}, {"torch", "CPU"}, {"philox", "NV"}};

sm_randn_kind sm_randn_find(const char *name)
{
    int k = 0;
    while (k < SM_RANDN_COUNT && strcmp(kinds[k].name, name))
        k++;
    return (sm_randn_kind)k;
}

const char *sm_randn_a1111(sm_randn_kind kind) { return kinds[kind].a1111; }

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
    sm_free(r->cpu);
    *r = (sm_randn){0};
}

void sm_randn_start(sm_randn *r, uint64_t seed, int n)
{
    r->seed = seed;
    r->n = n;
    r->drawn = 0;
    for (int k = 0; r->cpu && k < n; k++)
        sm_torch_cpu_seed(&r->cpu[k], seed + (uint64_t)k);
    for (int k = 0; r->paths && k < n; k++)
        sm_brownian_start(&r->paths[k], seed + (uint64_t)k, r->low, r->high);
}

/* [c, h * w] to [h * w, c]. */
static void to_channels_last(const sm_randn *r, float *out)
{
    size_t pixels = (size_t)r->h * (size_t)r->w, c = (size_t)r->c;
    for (size_t k = 0; k < c; k++)
        for (size_t i = 0; i < pixels; i++)
            out[i * c + k] = r->planes[k * pixels + i];
}

/* What is drawn beside the sampler's noise has numbers from -2 down. */
static uint64_t stream_of(int draw) { return draw == -1 ? STREAM_START : draw < 0 ? (uint64_t)draw : STREAM_STEP + (uint64_t)draw; }

void sm_randn_draw(sm_randn *r, int draw, float *out)
{
    size_t each = (size_t)r->h * (size_t)r->w * (size_t)r->c;
    for (int k = 0; k < r->n; k++, out += each) {
        uint64_t seed = r->seed + (uint64_t)k;
        if (r->kind == SM_RANDN_SUMI) {
            sm_rng_normal(seed, stream_of(draw), 0, out, each);
            continue;
        }
        if (r->kind == SM_RANDN_TORCH)
            sm_torch_cpu_normal(&r->cpu[k], r->planes, each);
        else
            sm_torch_cuda_normal(seed, r->drawn, r->planes, each);
        to_channels_last(r, out);
    }
    r->drawn++;
}

void sm_randn_step(sm_randn *r, double from, double to, float *out)
{
    size_t each = (size_t)r->h * (size_t)r->w * (size_t)r->c;
    for (int k = 0; k < r->n; k++, out += each) {
        sm_brownian_step(&r->paths[k], from, to, r->planes ? r->planes : out);
        if (r->planes)
            to_channels_last(r, out);
    }
}
