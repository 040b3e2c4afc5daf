/* Backend selection: one table of kernels per instruction set, filled once, the best one the CPU can run chosen at run
 * time. SUMI_CPU names another. Also the storage types as f32, bit by bit (IEEE 754 binary16 and bfloat16). */
#include "cpu/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { SCALAR, AVX2, AVX512, NEON, ISAS };

typedef struct isa_row {
    const char *name;
    bool built;
} isa_row;

static const isa_row isa[ISAS] = {
#if defined(__x86_64__)
    {"scalar", true}, {"avx2", true}, {"avx512", true}, {"neon", false},
#elif defined(__aarch64__)
    {"scalar", true}, {"avx2", false}, {"avx512", false}, {"neon", true},
#else
    {"scalar", true}, {"avx2", false}, {"avx512", false}, {"neon", false},
#endif
};

static const char *const exact_name[ISAS] = {"scalar-exact", "avx2-exact", "avx512-exact", "neon-exact"};

static sm_backend backends[ISAS], exact[ISAS], rounded[2]; /* constant after fill_tables, which runs once */
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

#define ADD_SCALAR(f) sm_cpu_##f##_scalar(b->k);
#define ADD_AVX2(f) sm_cpu_##f##_avx2(b->k);
#define ADD_AVX512(f) sm_cpu_##f##_avx512(b->k);
#define ADD_NEON(f) sm_cpu_##f##_neon(b->k);

/* The table once more, with direct convolutions; the scalar ones are. */
static void fill_exact(int i)
{
    sm_backend *b = &exact[i];
    *b = backends[i];
    b->name = exact_name[i];
#if defined(__x86_64__)
    if (i == AVX2)
        ADD_AVX2(conv_direct)
    if (i == AVX512)
        ADD_AVX512(conv_direct)
#elif defined(__aarch64__)
    if (i == NEON)
        ADD_NEON(conv_direct)
#endif
}

/* AVX-512's two tables once more. */
static void fill_rounded(void)
{
#if defined(__x86_64__)
    static const char *const names[] = {"avx512-bf16", "avx512-exact-bf16"};
    for (int i = 0; i < 2; i++) {
        rounded[i] = i ? exact[AVX512] : backends[AVX512];
        rounded[i].name = names[i];
        sm_cpu_bf16_rows(rounded[i].k);
    }
#endif
}

static void fill_tables(void)
{
    for (int i = 0; i < ISAS; i++) {
        sm_backend *b = &backends[i];
        b->name = isa[i].name;
        SM_FAMILIES(ADD_SCALAR)
#if defined(__x86_64__)
        if (i == AVX2) {
            SM_FAMILIES(ADD_AVX2)
        }
        if (i == AVX512) {
            SM_FAMILIES(ADD_AVX512)
        }
#elif defined(__aarch64__)
        if (i == NEON) {
            SM_FAMILIES(ADD_NEON)
        }
#endif
        fill_exact(i);
    }
    fill_rounded();
}

#if defined(__x86_64__)
/* Bit 29 of ecx of leaf 1; the builtin of clang 14 does not know it. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c >> 29 & 1;
}
#endif

static bool cpu_has(int i)
{
#if defined(__x86_64__)
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    if (i == AVX2)
        return avx2;
    if (i == AVX512)
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
    return isa[i].built;
}

int sm_cpu_backends(const sm_backend *out[4])
{
    int n = 0;
    pthread_once(&tables_once, fill_tables);
    for (int i = 0; i < ISAS; i++)
        if (isa[i].built && cpu_has(i))
            out[n++] = &backends[i];
    return n;
}

const sm_backend *sm_cpu_backend(const char *mask, sm_err *e)
{
    const sm_backend *have[ISAS];
    int n = sm_cpu_backends(have);
    if (!mask)
        mask = getenv("SUMI_CPU");
    if (!mask || !mask[0] || !strcmp(mask, "auto"))
        return have[n - 1];
    if (!strcmp(mask, "exact"))
        return &exact[have[n - 1] - backends];
    for (int i = 0; i < n; i++) {
        if (!strcmp(have[i]->name, mask))
            return have[i];
        if (!strcmp(exact_name[have[i] - backends], mask))
            return &exact[have[i] - backends];
    }
    for (int i = 0; i < ISAS; i++)
        if (!strcmp(isa[i].name, mask) || !strcmp(exact_name[i], mask)) {
            sm_fail(e, SUMI_E_SUPPORT, "--cpu (SUMI_CPU): this machine cannot run %s kernels, the best it has is %s", mask,
                    have[n - 1]->name);
            return NULL;
        }
    sm_fail(e, SUMI_E_ARG,
            "--cpu (SUMI_CPU): unknown instruction set '%.40s', must be auto, scalar, avx2, avx512 or neon, with -exact for direct "
            "convolutions", mask);
    return NULL;
}

const sm_backend *sm_cpu_bf16(const sm_backend *be, sm_err *e)
{
    bool can = false;
#if defined(__x86_64__)
    can = __builtin_cpu_supports("avx512bf16");
#endif
    if (can && (be == &backends[AVX512] || be == &exact[AVX512]))
        return &rounded[be == &exact[AVX512]];
    if (can)
        sm_fail(e, SUMI_E_SUPPORT, "--compute bf16: has AVX-512 kernels alone, and %s was asked for (--cpu, SUMI_CPU); give --compute f32, "
                "the usual one", be->name);
    else
        sm_fail(e, SUMI_E_SUPPORT, "--compute bf16: this processor lacks AVX512_BF16; give --compute f32, the usual one");
    return NULL;
}

int sm_tasks_default(const sm_node *n, int pass)
{
    int64_t t = (sm_numel(n) + 16383) / 16384;
    return (int)SM_MIN(SM_MAX(t, 1), 64);
}

/* ---- storage types ----------------------------------------------------------------------------------------------- */

static float bits_f32(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

float sm_f16_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023;
    if (e == 31) /* infinity; a NaN is made quiet, as the hardware does */
        return bits_f32(sign | 0x7f800000 | m << 13 | (m ? 0x400000 : 0));
    if (e)
        return bits_f32(sign | (e + 112) << 23 | m << 13);
    float f = (float)m * 0x1p-24f;
    return sign ? -f : f;
}

uint16_t sm_f32_f16(float f)
{
    uint32_t u = f32_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    if (a >= 0x477ff000) /* 65520 rounds to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (a < 0x38800000) { /* below 2^-14: a multiple of 2^-24, rounded by the addition */
        float r = bits_f32(a) + 0.5f;
        return (uint16_t)(sign | (f32_bits(r) - 0x3f000000));
    }
    a += 0xfff + (a >> 13 & 1);
    return (uint16_t)(sign | (a - 0x38000000) >> 13);
}

float sm_bf16_f32(uint16_t h) { return bits_f32((uint32_t)h << 16); }

uint16_t sm_f32_bf16(float f)
{
    uint32_t u = f32_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

float sm_load_f32(const sm_tensor *t, int64_t i)
{
    float y;
    switch (t->dtype) {
    case SM_F32: return ((const float *)t->data)[i];
    case SM_F16: return sm_f16_f32(((const uint16_t *)t->data)[i]);
    case SM_BF16: return sm_bf16_f32(((const uint16_t *)t->data)[i]);
    default: sm_load_values(t, i, 1, &y); return y;
    }
}
