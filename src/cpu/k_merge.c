/* Token merging. Matching is a matrix product of which only each row's largest value and its place are kept: a block of rows
 * meets panel after panel of the tokens that stay, whose length has been divided out while packing; products of a panel stay in
 * the first cache. A row's own length only scales its maximum. Similarities are the chains of gemm.h, so places and bits depend
 * on no cut. */
#include "cpu/gemm.h"
#include "cpu/merge.h"

#include <float.h>
#include <math.h>

enum { BLOCK = 8 * SM_MR, MOST = 32 }; /* rows that meet a panel, tasks */

/* Of pass 0: the panels, [n][stay in whole vectors * c], and the tokens that may go; of pass 1: similarity and cell of the best
 * match, [n][go]; of pass 2: ranks and who joins. */
typedef struct room { float *packed; uint64_t *rank; float *best; int32_t *match, *go; uint8_t *joins; } room;

static size_t room_at(const tokens *k, char *work, room *r)
{
    size_t rows = (size_t)(k->n * k->go), at = 0;
    *r = (room){0};
    void **part[] = {(void **)&r->packed, (void **)&r->rank, (void **)&r->best, (void **)&r->match,
                     (void **)&r->go, (void **)&r->joins};
    const size_t bytes[] = {sizeof(float) * (size_t)(k->n * sm_packed_cols(k->stay) * k->c), sizeof *r->rank * rows,
                            sizeof *r->best * rows, sizeof *r->match * rows, sizeof *r->go * (size_t)k->go, rows};
    for (size_t i = 0; i < SM_COUNT(part); i++) {
        *part[i] = work + at;
        at += (bytes[i] + 63) & ~(size_t)63;
    }
    return at;
}

static size_t match_work(const sm_node *n)
{
    static char none[1]; /* only differences of addresses are wanted */
    tokens k = tokens_of(n);
    room r;
    return room_at(&k, none, &r);
}

/* 1 / |x| over sixteen lanes; what is no length counts as a tiny one. */
static float inverse_length(const float *x, int64_t n)
{
    vf lane[SM_LV] = {0};
    for (int64_t i = 0; i < n; i += 16)
        for (int l = 0; l < SM_LV; l++) {
            vf v = vload16(x, i, n, l, 0);
            lane[l] = vfma(v, v, lane[l]);
        }
    float s = sm_fold16(lane);
    return 1 / __builtin_sqrtf(s > FLT_MIN ? s : FLT_MIN);
}

/* ---- pass 0 -------------------------------------------------------------------------------------------------------- */

static void pack_panel(const tokens *k, const float *x, const int32_t *chosen, int64_t j, float *out)
{
    int width = sm_panel_width(k->stay, j), cols = (int)SM_MIN(width, k->stay - j);
    const float *from[SM_NR];
    float by[SM_NR];
    for (int i = 0; i < cols; i++) {
        from[i] = x + token_of(k, chosen, j + i) * k->c;
        by[i] = inverse_length(from[i], k->c);
    }
    for (int64_t c0 = 0; c0 < k->c; c0 += 16) /* few enough to keep the written lines in the cache */
        for (int i = 0; i < width; i++)
            for (int64_t c = c0; c < SM_MIN(c0 + 16, k->c); c++)
                out[c * width + i] = i < cols ? from[i][c] * by[i] : 0;
}

static void pack(const sm_kcall *c, const tokens *k, const room *r, int task, int tasks)
{
    int64_t panels = sm_panels(k->stay), a, b, count = 0;
    sm_range(k->n * panels, task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) {
        int64_t n = i / panels, j = i % panels * SM_NR;
        const float *x = (const float *)c->src[0].data + n * k->t * k->c;
        pack_panel(k, x, c->src[1].data, j, r->packed + (n * sm_packed_cols(k->stay) + j) * k->c);
    }
    for (int64_t t = 0; t < k->t && !task; t++)
        if (!token_stays(k, c->src[1].data, t))
            r->go[count++] = (int32_t)t;
}

/* ---- pass 1 -------------------------------------------------------------------------------------------------------- */

/* Products of the block's rows with a panel; the best so far, lane by lane, and where it was. */
typedef struct block {
    const float *row[BLOCK];
    int rows;
    float dot[BLOCK][SM_NR], best[BLOCK][SM_NR];
    int32_t at[BLOCK][SM_NR];
} block;

static void multiply(block *b, const tokens *k, const float *panel, int width, int cols)
{
    for (int64_t from = 0; from < k->c; from += SM_KC)
        for (int i = 0; i < b->rows; i += SM_MR) {
            const float *rows[SM_MR], *right = panel + from * width;
            float *to[SM_MR];
            sm_tile t = {.m = SM_MIN(b->rows - i, SM_MR), .nv = width / SM_VL, .n = cols, .segs = 1,
                         .len = SM_MIN(k->c - from, SM_KC), .rows = rows, .b = &right, .c = to, .add = from > 0};
            for (int m = 0; m < t.m; m++) {
                rows[m] = b->row[i + m] + from;
                to[m] = b->dot[i + m];
            }
            SM_K(sm_gemm_tile)(&t);
        }
}

static void keep_best(block *b, int64_t j, int width, int cols)
{
    vi lane;
    for (int l = 0; l < SM_VL; l++)
        lane[l] = l;
    for (int i = 0; i < b->rows; i++) {
        for (int l = cols; l < width; l++)
            b->dot[i][l] = -INFINITY;
        for (int v = 0; v < width; v += SM_VL) {
            vf x = vload(b->dot[i] + v), best = vload(b->best[i] + v), at = vload((float *)b->at[i] + v);
            vi more = x > best;
            vstore(b->best[i] + v, vsel(more, x, best));
            vstore((float *)b->at[i] + v, vsel(more, (vf)(lane + (int32_t)(j + v)), at));
        }
    }
}

/* Of equal lanes the first place. */
static float fold(const block *b, int i, int32_t *match)
{
    float best = -INFINITY;
    *match = 0;
    for (int l = 0; l < SM_NR; l++)
        if (b->best[i][l] > best || (b->best[i][l] == best && b->at[i][l] < *match)) {
            best = b->best[i][l];
            *match = b->at[i][l];
        }
    return best;
}

static void match_block(const tokens *k, const room *r, const float *x, int64_t n, int64_t from, int rows)
{
    block b = {.rows = rows};
    for (int i = 0; i < rows; i++) {
        b.row[i] = x + r->go[from + i] * k->c;
        for (int l = 0; l < SM_NR; l++) {
            b.best[i][l] = -INFINITY;
            b.at[i][l] = 0;
        }
    }
    for (int64_t j = 0; j < k->stay; j += SM_NR) {
        int width = sm_panel_width(k->stay, j), cols = (int)SM_MIN(width, k->stay - j);
        multiply(&b, k, r->packed + (n * sm_packed_cols(k->stay) + j) * k->c, width, cols);
        keep_best(&b, j, width, cols);
    }
    for (int i = 0; i < rows; i++) {
        int64_t at = n * k->go + from + i;
        r->best[at] = fold(&b, i, &r->match[at]) * inverse_length(b.row[i], k->c);
    }
}

static void match(const sm_kcall *c, const tokens *k, const room *r, int task, int tasks)
{
    int64_t blocks = (k->go + BLOCK - 1) / BLOCK, a, b;
    sm_range(k->n * blocks, task, tasks, &a, &b);
    for (int64_t i = a; i < b; i++) {
        int64_t n = i / blocks, from = i % blocks * BLOCK;
        match_block(k, r, (const float *)c->src[0].data + n * k->t * k->c, n, from, (int)SM_MIN(BLOCK, k->go - from));
    }
}

/* ---- pass 2 -------------------------------------------------------------------------------------------------------- */

/* Falling similarity, then rising number, as rising integers that are all different. */
static uint64_t rank_of(float x, int64_t i)
{
    uint32_t u;
    x += 0.0f; /* -0 is 0 */
    memcpy(&u, &x, sizeof u);
    u = u >> 31 ? ~u : u | 0x80000000u;
    return (uint64_t)~u << 32 | (uint64_t)i;
}

/* The number with `place` smaller ones among n different ones: byte by byte from the top. */
static uint64_t nth(const uint64_t *x, int64_t n, int64_t place)
{
    uint64_t known = 0, mask = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        int64_t count[256] = {0};
        int byte = 0;
        for (int64_t i = 0; i < n; i++)
            if ((x[i] & mask) == known)
                count[x[i] >> shift & 255]++;
        while (place >= count[byte])
            place -= count[byte++];
        known |= (uint64_t)byte << shift;
        mask |= (uint64_t)255 << shift;
    }
    return known;
}

static void choose(const sm_kcall *c, const tokens *k, const room *r, int task, int tasks)
{
    int64_t a, b;
    sm_range(k->n, task, tasks, &a, &b);
    for (int64_t n = a; n < b; n++) {
        uint64_t *rank = r->rank + n * k->go;
        uint8_t *joins = r->joins + n * k->go;
        for (int64_t i = 0; i < k->go; i++)
            rank[i] = rank_of(r->best[n * k->go + i], i);
        uint64_t last = k->merged ? nth(rank, k->go, k->merged - 1) : 0;
        for (int64_t i = 0; i < k->go; i++)
            joins[i] = k->merged && rank[i] <= last;
        tokens_number(k, c->src[1].data, r->match + n * k->go, joins, (int32_t *)c->dst.data + n * k->t);
    }
}

static void run_match(const sm_kcall *c, int task, int tasks)
{
    tokens k = tokens_of(c->node);
    room r;
    room_at(&k, c->work, &r);
    (c->pass == 0 ? pack : c->pass == 1 ? match : choose)(c, &k, &r, task, tasks);
}

static int match_tasks(const sm_node *n, int pass)
{
    tokens k = tokens_of(n);
    int64_t items = pass == 0 ? k.n * sm_panels(k.stay) : pass == 1 ? k.n * ((k.go + BLOCK - 1) / BLOCK) : k.n;
    return (int)SM_MIN(SM_MAX(items, 1), MOST);
}

/* ---- merging and parting ------------------------------------------------------------------------------------------- */

static void add(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += SM_VL) {
        int part = (int)SM_MIN(n - i, SM_VL);
        vstore_part(y + i, vload_part(y + i, part, 0) + vload_part(x + i, part, 0), part);
    }
}

static void divide(float *y, int32_t by, int64_t n)
{
    vf d = vset((float)by);
    for (int64_t i = 0; i < n; i += SM_VL) {
        int part = (int)SM_MIN(n - i, SM_VL);
        vstore_part(y + i, vload_part(y + i, part, 0) / d, part);
    }
}

/* Rows [from, to) of one picture: every task goes over all its tokens, whose numbers cost little beside their values. */
static void merge_rows(const float *x, const int32_t *row, int64_t t, int64_t ch, int64_t from, int64_t to,
                       int32_t *count, float *y)
{
    memset(count + from, 0, sizeof *count * (size_t)(to - from));
    for (int64_t i = 0; i < t; i++) {
        if (row[i] < from || row[i] >= to)
            continue;
        if (count[row[i]]++)
            add(y + row[i] * ch, x + i * ch, ch);
        else
            memcpy(y + row[i] * ch, x + i * ch, sizeof *y * (size_t)ch);
    }
    for (int64_t i = from; i < to; i++)
        if (!count[i])
            memset(y + i * ch, 0, sizeof *y * (size_t)ch);
        else if (count[i] > 1)
            divide(y + i * ch, count[i], ch);
}

static size_t merge_work(const sm_node *n) { return sizeof(int32_t) * (size_t)(n->dims[0] * n->dims[1]); }

static void run_merge(const sm_kcall *c, int task, int tasks)
{
    int64_t t = c->src[0].dims[1], ch = c->src[0].dims[2], rows = c->dst.dims[1], from, to;
    sm_range(c->dst.dims[0] * rows, task, tasks, &from, &to);
    for (int64_t i = from; i < to;) {
        int64_t n = i / rows, end = SM_MIN(to, (n + 1) * rows);
        merge_rows((const float *)c->src[0].data + n * t * ch, (const int32_t *)c->src[1].data + n * t, t, ch,
                   i - n * rows, end - n * rows, (int32_t *)c->work + n * rows, (float *)c->dst.data + n * rows * ch);
        i = end;
    }
}

static void run_part(const sm_kcall *c, int task, int tasks)
{
    int64_t rows = c->src[0].dims[1], ch = c->src[0].dims[2], t = c->dst.dims[1], from, to;
    const int32_t *row = c->src[1].data;
    sm_range(c->dst.dims[0] * t, task, tasks, &from, &to);
    for (int64_t i = from; i < to; i++) {
        float *y = (float *)c->dst.data + i * ch;
        if (row[i] >= 0 && row[i] < rows)
            memcpy(y, (const float *)c->src[0].data + (i / t * rows + row[i]) * ch, sizeof *y * (size_t)ch);
        else
            for (int64_t j = 0; j < ch; j++)
                y[j] = NAN;
    }
}

void SM_K(sm_cpu_merge)(sm_kernel *k)
{
    k[SM_OP_TOKEN_MATCH] = (sm_kernel){.run = run_match, .passes = 3, .tasks = match_tasks, .work = match_work};
    k[SM_OP_TOKEN_MERGE] = (sm_kernel){.run = run_merge, .work = merge_work};
    k[SM_OP_TOKEN_PART] = (sm_kernel){.run = run_part};
}
