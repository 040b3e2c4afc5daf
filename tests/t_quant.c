/* Storage types of weights: FP8 as torch rounds and reads it (tools/fixtures/make_fp8.py), the K types' search against the
 * simplest scales and against uniform rounding, and layers that read every type: the same bits as with the values in f32. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "io/quant.h"
#include "io/safetensors.h"
#include "model/model.h"
#include "ops/ops.h"
#include "test.h"

TEST(quant_fp8_as_torch)
{
    sm_err e = {0};
    sm_st *f = sm_st_open(test_fixture("fp8.safetensors"), NULL, &e);
    CHECKF(f != NULL, "%s", e.msg);
    for (int k = 0; f && k < 2; k++) {
        const char *const names[] = {"e4m3", "values.e4m3", "e5m2", "values.e5m2"};
        const sm_st_entry *x = sm_st_find(f, "x"), *want = sm_st_find(f, names[2 * k]), *values = sm_st_find(f, names[2 * k + 1]);
        int64_t n = x->dims[0], wrong = 0;
        CHECK(n > 3000 && want->dims[0] == n && values->dims[0] == 256);
        for (int64_t i = 0; i < n; i++) {
            float v;
            memcpy(&v, x->data + 4 * i, 4);
            uint8_t got = k ? sm_f32_f8_e5m2(v) : sm_f32_f8_e4m3(v);
            bool same = got == want->data[i] || (isnan(v) && (got & 127) == 127 && (want->data[i] & 127) == 127);
            CHECKF(same || wrong++ > 4, "%s: %a is %02x, torch says %02x", names[2 * k], (double)v, got, want->data[i]);
        }
        for (int c = 0; c < 256; c++) {
            uint8_t code = (uint8_t)c;
            float got, v;
            sm_load_blocks(k ? SM_F8_E5M2 : SM_F8_E4M3, &code, 1, &got);
            memcpy(&v, values->data + 4 * c, 4);
            CHECKF(!memcmp(&got, &v, 4) || (isnan(got) && isnan(v)), "%s: code %02x is %a", names[2 * k], code, (double)got);
        }
    }
    sm_st_close(f);
}

/* ---- K types ----------------------------------------------------------------------------------------------------- */

typedef struct k_form { sm_dtype t; int group, low, high, slow, shigh; bool offset; } k_form;
static const k_form forms[] = {
    {SM_Q2_K, 16, 0, 3, 0, 15, true},       {SM_Q3_K, 16, -4, 3, -32, 31, false}, {SM_Q4_K, 32, 0, 15, 0, 63, true},
    {SM_Q5_K, 32, 0, 31, 0, 63, true},      {SM_Q6_K, 16, -32, 31, -128, 127, false}};

/* Sums of squared differences of a block: with the simplest scales (largest over largest, all rounded to nearest), and what
 * uniform rounding costs on average with a scale of each group's own, kept exactly: a twelfth of the step squared. */
static void simplest(const float *x, const k_form *f, double *error, double *uniform)
{
    double scale[16], offset[16], top = 0, low = 0;
    *error = *uniform = 0;
    for (int g = 0; g < 256 / f->group; g++) {
        double a = 0, b = 0, peak = 0;
        for (int i = g * f->group; i < (g + 1) * f->group; i++) {
            a = fmin(a, x[i]);
            b = i == g * f->group ? x[i] : fmax(b, x[i]);
            peak = fabs(x[i]) > fabs(peak) ? x[i] : peak;
        }
        scale[g] = f->offset ? (b - a) / f->high : peak / f->low;
        offset[g] = f->offset ? -a : 0;
        top = fabs(scale[g]) > fabs(top) ? scale[g] : top;
        low = fmax(low, offset[g]);
        *uniform += f->group * scale[g] * scale[g] / 12;
    }
    double d = sm_f16_f32(sm_f32_f16((float)(top / (f->slow ? f->slow : f->shigh)))),
        m = sm_f16_f32(sm_f32_f16((float)(low / f->shigh)));
    for (int i = 0; i < 256; i++) {
        double s = d ? d * fmax(f->slow, fmin(f->shigh, rint(scale[i / f->group] / d))) : 0,
            o = m ? m * rint(offset[i / f->group] / m) : 0;
        double q = s ? fmax(f->low, fmin(f->high, rint((x[i] + o) / s))) : 0, r = x[i] - (s * q - o);
        *error += r * r;
    }
}

enum { KINDS = 6, BLOCKS = 40 };

static void fill(float *x, int kind, int seed)
{
    float u[512];
    test_fill(u, 512, (uint64_t)(seed * KINDS + kind), 1e-7f, 1);
    for (int i = 0; i < 256; i++) {
        float n = sqrtf(-2 * logf(u[i])) * cosf(6.2831853f * u[256 + i]); /* Box and Muller */
        switch (kind) {
        case 0: x[i] = 0.02f * n; break;
        case 1: x[i] = u[i]; break;                        /* of one sign */
        case 2: x[i] = -3 - u[i]; break;
        case 3: x[i] = i % 61 ? 0.01f * n : 0.5f * n; break; /* some large ones */
        case 4: x[i] = 0.02f * n * (float)(1 + i / 16); break; /* groups unlike each other */
        default: x[i] = floorf(16 * u[i]) / 8; break;      /* few values */
        }
    }
}

TEST(quant_k_types_beat_simple_rounding)
{
    for (size_t k = 0; k < SM_COUNT(forms); k++)
        for (int kind = 0; kind < KINDS; kind++) {
            double got = 0, simple = 0, uniform = 0;
            for (int b = 0; b < BLOCKS; b++) {
                float x[256], y[256];
                uint8_t out[256];
                double e, u, own = 0;
                fill(x, kind, b);
                CHECK(sm_store_save(forms[k].t, x, 256, out));
                sm_load_blocks(forms[k].t, out, 256, y);
                simplest(x, &forms[k], &e, &u);
                for (int i = 0; i < 256; i++)
                    own += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
                CHECKF(own <= e * 1.0001 + 1e-9, "%s, kind %d, block %d: %g, simplest %g", sm_store_name(forms[k].t), kind, b,
                       own, e);
                got += own;
                simple += e;
                uniform += u;
            }
            CHECKF(got <= simple && (kind || got < 0.9 * simple), "%s, kind %d: %g of the simplest", sm_store_name(forms[k].t),
                   kind, got / simple);
            CHECKF(kind || got <= uniform, "%s: %g of uniform rounding", sm_store_name(forms[k].t), got / uniform);
        }
}

TEST(quant_k_types_edges)
{
    for (size_t k = 0; k < SM_COUNT(forms); k++) {
        float x[256] = {0}, y[256];
        uint8_t out[256];
        CHECK(sm_store_save(forms[k].t, x, 256, out));
        sm_load_blocks(forms[k].t, out, 256, y);
        for (int i = 0; i < 256; i++)
            CHECK(y[i] == 0);
        for (int i = 0; i < 256; i++)
            x[i] = -2;
        CHECK(sm_store_save(forms[k].t, x, 256, out));
        sm_load_blocks(forms[k].t, out, 256, y);
        for (int i = 0; i < 256; i++)
            CHECKF(fabsf(y[i] + 2) < 0.004f, "%s: %g", sm_store_name(forms[k].t), (double)y[i]);
        x[200] = 3e38f;
        CHECK(!sm_store_save(forms[k].t, x, 256, out));
        x[200] = -INFINITY;
        CHECK(!sm_store_save(forms[k].t, x, 256, out));
        CHECK(!sm_store_save(forms[k].t, x, 128, out));
    }
}

/* ---- layers ------------------------------------------------------------------------------------------------------ */

typedef struct result { float *y; int64_t n; } result;

/* linear [30,512], conv [24,32,3,3] with stride 1, a table's rows, and the gradient of linear's and conv's inputs. */
static result run(const sm_tensor w[3], const sm_backend *be)
{
    sm_err e = {0};
    result r = {0};
    sm_graph *g = sm_graph_new(NULL, &e);
    sm_node *p[3], *x = sm_input(g, "x", SM_F32, 2, (int64_t[]){7, 512}), *im = sm_input(g, "im", SM_F32, 4,
                                                                                         (int64_t[]){1, 6, 5, 32});
    sm_node *ids = sm_input(g, "ids", SM_I32, 1, (int64_t[]){3});
    for (int i = 0; i < 3; i++) {
        p[i] = sm_leaf_param(g, "w", w[i].dtype, w[i].rank, w[i].dims, w[i].data, false);
        p[i]->scale = w[i].scale;
        p[i]->scale_run = w[i].scale_run;
    }
    const sm_conv c = {.stride = 1, .pad = 1, .dil = 1, .groups = 1};
    sm_node *lin = sm_linear(x, p[0], NULL), *conv = sm_conv2d(im, p[1], NULL, &c), *out[5] = {lin, conv, sm_gather(p[2], ids)};
    sm_node *loss = sm_add(sm_sum_to(sm_mul(lin, lin), 1, (int64_t[]){1}), sm_sum_to(sm_mul(conv, conv), 1, (int64_t[]){1}));
    bool ok = sm_grad(loss, 2, (sm_node *[]){x, im}, out + 3);
    CHECKF(ok && !g->err.code, "%s", g->err.msg);
    sm_plan *plan = sm_plan_new(g, 5, out, be, &e);
    CHECKF(plan != NULL, "%s", e.msg);
    if (plan) {
        test_fill(sm_plan_data(plan, x), sm_numel(x), 1, -1, 1);
        test_fill(sm_plan_data(plan, im), sm_numel(im), 2, -1, 1);
        memcpy(sm_plan_data(plan, ids), (int32_t[]){11, 0, 5}, 12);
        CHECK(sm_plan_run(plan, NULL, NULL, &e) == SUMI_OK);
        for (int i = 0; i < 5; i++)
            r.n += sm_numel(out[i]);
        r.y = malloc((size_t)r.n * sizeof *r.y);
        float *at = r.y;
        for (int i = 0; i < 5; at += sm_numel(out[i]), i++)
            memcpy(at, sm_plan_data(plan, out[i]), (size_t)sm_numel(out[i]) * sizeof *at);
    }
    sm_plan_free(plan);
    sm_graph_free(g);
    return r;
}

TEST(quant_layers_read_every_type)
{
    static const int64_t dims[3][4] = {{30, 512}, {24, 32, 3, 3}, {12, 256}};
    static const int ranks[3] = {2, 4, 2};
    const sm_backend *be[4];
    int backends = sm_cpu_backends(be);
    float scale[30];
    test_fill(scale, 30, 9, 0.1f, 2);
    for (sm_dtype t = SM_F16; t < SM_DTYPES; t++)
        for (int scaled = 0; t != SM_I32 && scaled < (t == SM_F8_E4M3 ? 3 : 1); scaled++) { /* one for all, one a row */
            sm_tensor w[3], f[3];
            for (int i = 0; i < 3; i++) {
                int64_t n = 1;
                f[i] = w[i] = (sm_tensor){.dtype = t, .rank = ranks[i]};
                for (int k = 0; k < ranks[i]; k++)
                    n *= w[i].dims[k] = f[i].dims[k] = dims[i][k];
                float *x = f[i].data = malloc((size_t)n * 4);
                w[i].data = malloc(sm_dtype_bytes(t, n));
                test_fill(x, n, (uint64_t)i, -0.5f, 0.5f);
                CHECK(sm_store_save(t, x, n, w[i].data));
                w[i].scale = scaled ? scale : NULL;
                w[i].scale_run = scaled == 1 ? n : n / dims[i][0];
                sm_load_values(&w[i], 0, n, x);
                f[i].dtype = SM_F32;
            }
            for (int b = 0; b < backends; b++) {
                result got = run(w, be[b]), want = run(f, be[b]);
                CHECKF(got.y && want.y && got.n == want.n && !memcmp(got.y, want.y, (size_t)got.n * 4), "%s, scaled %d, %s",
                       sm_dtype_name(t),
                       scaled, be[b]->name);
                free(got.y);
                free(want.y);
            }
            for (int i = 0; i < 3; i++) {
                free(w[i].data);
                free(f[i].data);
            }
        }
}
