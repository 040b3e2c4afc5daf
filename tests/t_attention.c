/* Attention where its short cuts end (see k_attention.c): scores far above those of the first keys, hidden and biased ones, what
 * is not a number. A row has the same bits whichever way its weights were made, alone and among others, on every
 * vector unit. t_kernels.c holds the ordinary cases against the scalar reference. */
#include "kernel_run.h"

#include "ops/ops.h"
#include "test.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One sample of H heads; keys are three tiles, the last one short. */
enum { H = 2, TQ = 75, TK = 300, D = 20, BACKENDS = 4 };
typedef struct call { int64_t tq; bool causal; const float *q, *k, *v, *bias; } call;

/* [tq, H, D], in malloc'd memory. */
static float *result(const call *c, const sm_backend *be)
{
    sm_graph *g = sm_graph_new(NULL, NULL);
    const int64_t many[] = {1, c->tq, H, D}, keys[] = {1, TK, H, D}, row[] = {1, 1, 1, TK};
    sm_node *in[] = {sm_input(g, "q", SM_F32, 4, many), sm_input(g, "k", SM_F32, 4, keys), sm_input(g, "v", SM_F32, 4, keys)};
    sm_node *bias = c->bias ? sm_input(g, "bias", SM_F32, 4, row) : NULL;
    kernel_run r = {.k = &be->k[SM_OP_ATTENTION], .high = true, .inplace = -1};
    r.node = sm_attention(in[0], in[1], in[2], bias, 0, c->causal);
    r.src[0] = c->q;
    r.src[1] = c->k;
    r.src[2] = c->v;
    r.src[3] = c->bias;
    float *y = kernel_result(&r);
    sm_graph_free(g);
    return y;
}

static float q[TQ * H * D], k[TK * H * D], v[TK * H * D];

/* Scores rise along the keys, within a tile and from tile to tile: by 0 for row 0, by about 30 `steep` for the last one. */
static void rising(float steep)
{
    test_fill(q, TQ * H * D, 1, -1, 1);
    test_fill(k, TK * H * D, 2, -1, 1);
    test_fill(v, TK * H * D, 3, -1, 1);
    for (int i = 0; i < TQ * H; i++)
        q[i * D] = steep * (float)i / (TQ * H) * (i % 7 ? 1 : -1);
    for (int j = 0; j < TK * H; j++)
        k[j * D] = (float)(j / H % 200) * 0.67f; /* over sqrt(D): 30 at most */
}

/* Largest error of row i of y, and what it may be: every score is off by at most (D + 4) 2^-24 of the sum of its products' sizes
 * and of the reference, 2^x by 2^-22, and sums of TK weights by TK 2^-24 in the worst case, numerator and denominator alike. */
static void check_row(const float *y, int i, const char *name)
{
    double s[TK], top = -INFINITY, size = 0, sum = 0;
    int h = i % H;
    for (int j = 0; j < TK; j++) {
        double a = 0, b = 0;
        for (int c = 0; c < D; c++) {
            double x = (double)q[i * D + c] * k[(j * H + h) * D + c] / sqrt(D);
            a += x;
            b += fabs(x);
        }
        s[j] = a;
        top = fmax(top, a);
        size = fmax(size, b);
    }
    for (int j = 0; j < TK; j++)
        sum += s[j] = exp(s[j] - top);
    double tol = 2 * (expm1(4 * (D + 4) * 0x1p-24 * size) + 0x1p-22 + TK * 0x1p-24), worst = 0;
    for (int c = 0; c < D; c++) {
        double want = 0;
        for (int j = 0; j < TK; j++)
            want += s[j] / sum * v[(j * H + h) * D + c];
        double off = fabs(y[i * D + c] - want);
        worst = off <= worst ? worst : off; /* NaN too */
    }
    CHECKF(worst <= tol, "%s: row %d is off by %.3g, allowed %.3g", name, i, worst, tol);
}

static void check_ways(const char *name)
{
    const sm_backend *be[BACKENDS];
    float *first = NULL, none[TK] = {0};
    for (int b = 1, n = sm_cpu_backends(be); b < n; b++) {
        float *y = result(&(call){TQ, false, q, k, v, NULL}, be[b]), *z = result(&(call){TQ, false, q, k, v, none}, be[b]);
        for (int i = 0; i < TQ * H; i++)
            check_row(y, i, be[b]->name);
        CHECKF(!memcmp(y, z, sizeof q), "%s scores, %s: a bias of zeros changes bits", name, be[b]->name);
        if (first)
            CHECKF(!memcmp(first, y, sizeof q), "%s scores, %s: vector units disagree", name, be[b]->name);
        free(z);
        if (!first)
            first = y;
        else
            free(y);
    }
    free(first);
}

/* Gentle: no tile is above the first keys by more than weights may be. Steep: for some rows, by up to a thousand. */
TEST(attention_rising_scores)
{
    rising(0.3f);
    check_ways("gentle");
    rising(3);
    check_ways("rising");
    rising(30);
    check_ways("steep");
}

/* Rows from 30 on alone: other lanes, other neighbours. The last row of a causal call sees all keys. */
TEST(attention_rows_stand_alone)
{
    enum { FROM = 30 * H * D, LAST = (TQ - 1) * H * D };
    const sm_backend *be[BACKENDS];
    rising(3);
    for (int b = 1, n = sm_cpu_backends(be); b < n; b++) {
        float *y = result(&(call){TQ, false, q, k, v, NULL}, be[b]);
        float *z = result(&(call){TQ - 30, false, q + FROM, k, v, NULL}, be[b]);
        float *future = result(&(call){TQ, true, q, k, v, NULL}, be[b]);
        CHECKF(!memcmp(y + FROM, z, sizeof q - FROM * sizeof *q), "%s: rows depend on their neighbours", be[b]->name);
        CHECKF(!memcmp(y + LAST, future + LAST, sizeof q - LAST * sizeof *q), "%s: the last causal row differs", be[b]->name);
        free(y);
        free(z);
        free(future);
    }
}

/* A query, then a key, that holds a NaN of any kind: its row, then all rows of its head, are NaN, no other bit changes. */
TEST(attention_not_a_number)
{
    static const uint32_t kinds[] = {0x7fc00000, 0xffffffff, 0x7fffffff, 0x7fc00001};
    const sm_backend *be[BACKENDS];
    rising(3);
    for (int b = 1, n = sm_cpu_backends(be); b < n; b++) {
        float *y = result(&(call){TQ, false, q, k, v, NULL}, be[b]);
        for (size_t kind = 0; kind < SM_COUNT(kinds); kind++)
            for (int key = 0; key < 2; key++) {
                enum { ROW = 11, KEY = 250 };
                float *x = key ? &k[KEY * H * D + 3] : &q[ROW * D + 3], was = *x;
                memcpy(x, &kinds[kind], sizeof *x);
                float *z = result(&(call){TQ, false, q, k, v, NULL}, be[b]);
                *x = was;
                int wrong = 0;
                for (int i = 0; i < TQ * H * D; i++) {
                    bool hit = key ? i / D % H == 0 : i / D == ROW, nan = z[i] != z[i];
                    wrong += hit ? !nan : memcmp(&y[i], &z[i], sizeof *y) != 0;
                }
                CHECKF(!wrong, "%s: %d wrong elements, %s, bits %08x", be[b]->name, wrong, key ? "key" : "query", kinds[kind]);
                free(z);
            }
        free(y);
    }
}

/* Masks may hold the lowest float: hidden from all keys in this way a row is the mean of V, as softmax of equal scores is. */
TEST(attention_lowest_bias)
{
    const sm_backend *be[BACKENDS];
    int n = sm_cpu_backends(be);
    float bias[TK];
    rising(0);
    for (int j = 0; j < TK; j++)
        bias[j] = -FLT_MAX;
    for (int b = 0; b < n; b++) {
        float *y = result(&(call){.tq = TQ, .q = q, .k = k, .v = v, .bias = bias}, be[b]);
        double worst = 0;
        for (int c = 0; c < H * D; c++) {
            double mean = 0;
            for (int j = 0; j < TK; j++)
                mean += (double)v[j * H * D + c] / TK;
            double off = fabs(y[c] - mean);
            worst = off <= worst ? worst : off;
        }
        CHECKF(worst < TK * 0x1p-24, "%s: %g from the mean", be[b]->name, worst);
        free(y);
    }
}

/* A query that is no number, or has no scores that are: its head's results are NaN, the scalar reference's too, all others not. */
TEST(attention_of_no_number)
{
    const sm_backend *be[BACKENDS];
    const int row = 41, head = 1;
    int n = sm_cpu_backends(be);
    for (int i = 0; i < 2 * n; i++) {
        rising(1);
        q[(row * H + head) * D + 3] = i % 2 ? NAN : INFINITY; /* keys of both signs: infinity less infinity */
        float *y = result(&(call){.tq = TQ, .q = q, .k = k, .v = v}, be[i / 2]);
        int wrong = 0;
        for (int c = 0; c < TQ * H * D; c++)
            wrong += (y[c] != y[c]) != (c / D == row * H + head);
        CHECKF(!wrong, "%s, %s: %d results", be[i / 2]->name, i % 2 ? "NaN" : "infinity", wrong);
        free(y);
    }
}
