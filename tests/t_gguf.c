/* GGUF and the storage types: values and bytes equal those of the `gguf` package (fixtures by tools/fixtures/make_gguf.py), and
 * whatever is wrong with a file gives one error, no crash and no leak. Hostile files are built here by hand from the format's
 * description (github.com/ggml-org/ggml, docs/gguf.md). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cpu/cpu.h"
#include "io/gguf.h"
#include "io/safetensors.h"
#include "io/tensors.h"
#include "test.h"

static sm_gguf *open_fixture(const char *name)
{
    sm_err e = {0};
    sm_gguf *f = sm_gguf_open(test_fixture(name), NULL, &e);
    CHECKF(f != NULL, "%s", e.msg);
    return f;
}

static sm_st *open_values(const char *name)
{
    sm_err e = {0};
    sm_st *f = sm_st_open(test_fixture(name), NULL, &e);
    CHECKF(f != NULL, "%s", e.msg);
    return f;
}

/* Number of values with different bits; one NaN is as good as another. */
static size_t different(const float *a, const void *b, size_t n)
{
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++) {
        float v;
        memcpy(&v, (const char *)b + 4 * i, 4);
        wrong += memcmp(&a[i], &v, 4) && !(isnan(a[i]) && isnan(v));
    }
    return wrong;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

TEST(gguf_values_of_blocks)
{
    sm_gguf *f = open_fixture("gguf_blocks.gguf");
    sm_st *v = open_values("gguf_blocks.safetensors");
    if (!f || !v)
        return;
    CHECK(sm_gguf_count(f) == 10);
    for (size_t i = 0; i < sm_gguf_count(f); i++) {
        const sm_st_entry *t = sm_gguf_at(f, i);
        const sm_st_entry *want = sm_st_find(v, t->name);
        CHECKF(want && want->rank == 2 && t->rank == 2 && want->dims[0] == t->dims[0] && want->dims[1] == t->dims[1], "%s",
               t->name);
        int found = sm_store_find(t->dtype);
        sm_dtype store = (sm_dtype)found;
        CHECKF(t->computable && found >= SM_Q4_0 && t->type == store && sm_store_find(t->name) == found, "%s", t->name);
        size_t n = (size_t)(t->dims[0] * t->dims[1]);
        CHECK(t->bytes == n / (size_t)sm_dtype_block(store) * sm_dtype_block_bytes(store));
        float *y = malloc(n * sizeof *y);
        sm_load_blocks(store, t->data, (int64_t)n, y);
        CHECKF(!different(y, want->data, n), "%s: %zu of %zu values differ", t->name, different(y, want->data, n), n);
        free(y);
    }
    sm_gguf_close(f);
    sm_st_close(v);
}

TEST(gguf_values_of_fp8)
{
    sm_st *v = open_values("gguf_blocks.safetensors");
    uint8_t every[256];
    float y[256];
    for (int i = 0; i < 256; i++)
        every[i] = (uint8_t)i;
    for (int k = 0; v && k < 2; k++) {
        sm_load_blocks(k ? SM_F8_E5M2 : SM_F8_E4M3, every, 256, y);
        CHECK(!different(y, sm_st_find(v, k ? "f8_e5m2" : "f8_e4m3")->data, 256));
    }
    sm_st_close(v);
}

TEST(gguf_bytes_of_blocks)
{
    static const sm_dtype types[] = {SM_Q4_0, SM_Q4_1, SM_Q5_0, SM_Q5_1, SM_Q8_0};
    sm_st *v = open_values("gguf_save.safetensors");
    if (!v)
        return;
    const sm_st_entry *in = sm_st_find(v, "in.x");
    int64_t n = in->dims[0] * in->dims[1];
    float *x = malloc((size_t)n * 4), *y = malloc((size_t)n * 4);
    uint8_t *b = malloc((size_t)n * 4);
    memcpy(x, in->data, (size_t)n * 4);
    for (size_t k = 0; k < SM_COUNT(types); k++) {
        const char *name = sm_store_name(types[k]);
        char lower[8] = {0}, key[24];
        for (size_t i = 0; name[i]; i++)
            lower[i] = (char)(name[i] == 'Q' ? 'q' : name[i]);
        snprintf(key, sizeof key, "out.%s", lower);
        const sm_st_entry *want = sm_st_find(v, key);
        CHECK(sm_store_writable(types[k]) && sm_store_save(types[k], x, n, b));
        size_t block = sm_dtype_block_bytes(types[k]), wrong = 0, first = 0;
        CHECKF(want && want->bytes == (size_t)n / 32 * block, "%s", key);
        for (size_t i = want->bytes / block; i-- > 0;)
            if (memcmp(b + i * block, want->data + i * block, block))
                wrong++, first = i;
        CHECKF(!wrong, "%s: %zu blocks differ, the first is %zu", name, wrong, first);
        snprintf(key, sizeof key, "back.%s", lower);
        sm_load_blocks(types[k], b, n, y);
        CHECKF(!different(y, sm_st_find(v, key)->data, (size_t)n), "%s", key);
    }
    free(x);
    free(y);
    free(b);
    sm_st_close(v);
}

TEST(gguf_save_refuses)
{
    float x[256] = {1, -2, 3};
    uint8_t b[1024];
    for (sm_dtype t = 0; t < SM_DTYPES; t++) {
        bool blocks = sm_dtype_block(t) > 1, endless = !blocks && t != SM_F8_E4M3;
        const char *name = sm_store_name(t);
        x[40] = 0;
        CHECK(sm_store_writable(t) == (t != SM_I32) && sm_store_save(t, x, 256, b) == (t != SM_I32));
        CHECK(!blocks || !sm_store_save(t, x, 255, b));
        for (int k = 0; k < 3 &&
             t != SM_I32; k++) { /* in plain types, infinities (where they exist) and NaN are values like others */
            x[40] = k == 0 ? NAN : k == 1 ? INFINITY : -INFINITY;
            CHECKF(sm_store_save(t, x, 256, b) == (k ? endless : !blocks), "%s", name);
        }
        x[40] = 3.4e38f;
        CHECKF(sm_store_save(t, x, 256, b) == (t == SM_F32), "%s", name);
        x[40] = 464; /* rounds to 448 */
        CHECKF(sm_store_save(t, x, 256, b) == (t != SM_I32), "%s", name);
        x[40] = 464.1f;
        CHECKF(sm_store_save(t, x, 256, b) == (t != SM_I32 && t != SM_F8_E4M3), "%s", name);
    }
    for (int i = 0; i < 256; i++) /* the reciprocal of the scale is infinite */
        x[i] = i % 2 ? 1e-45f : -3e-41f;
    for (sm_dtype t = SM_Q4_0; t <= SM_Q6_K; t++) {
        float y[256];
        CHECK(sm_store_save(t, x, 256, b));
        sm_load_blocks(t, b, 256, y);
        for (int i = 0; i < 256; i++)
            CHECKF(y[i] == 0, "%s", sm_store_name(t));
    }
    CHECK(sm_store_find("q4_k") == SM_Q4_K && sm_store_find("IQ4_NL") == -1 && sm_store_find("") == -1);
}

/* ---- listing ----------------------------------------------------------------------------------------------------- */

static void check_numbers(const sm_gguf *f)
{
    CHECK(sm_gguf_metadata(f, "u8")->u == 200 && sm_gguf_metadata(f, "i8")->i == -100 && sm_gguf_metadata(f, "u16")->u == 60000);
    CHECK(sm_gguf_metadata(f, "i16")->i == -30000 && sm_gguf_metadata(f, "u32")->u == 4000000000u);
    CHECK(sm_gguf_metadata(f, "i32")->i == -2000000000 && sm_gguf_metadata(f, "f32")->f == (double)0.1f);
    CHECK(sm_gguf_metadata(f, "f64")->f == 0.1 && sm_gguf_metadata(f, "u64")->u == UINT64_MAX &&
          sm_gguf_metadata(f, "i64")->i == INT64_MIN);
    CHECK(sm_gguf_metadata(f, "yes")->u == 1 && sm_gguf_metadata(f, "no")->u == 0 &&
          sm_gguf_metadata(f, "no")->type == SM_GGUF_BOOL);
    CHECK(!strcmp(sm_gguf_text(f, "text"), "zwei Zeilen\nund äöü") && sm_gguf_metadata(f, "text")->n == 22);
    CHECK(!strcmp(sm_gguf_text(f, "empty"), "") && !sm_gguf_text(f, "u8") && !sm_gguf_text(f, "none") &&
          !sm_gguf_metadata(f, "none"));
    const sm_gguf_value *a = sm_gguf_metadata(f, "words");
    CHECK(a->type == SM_GGUF_ARRAY && a->of == SM_GGUF_STRING && a->n == 3 && a->items[0].n == 1 && a->items[0].s[0] == 'a');
    CHECK(a->items[1].n == 0 && a->items[2].n == 5 && !memcmp(a->items[2].s, "süß", 5));
    a = sm_gguf_metadata(f, "ints");
    CHECK(a->of == SM_GGUF_I32 && a->n == 3 && !memcmp(a->raw, (int32_t[]){1, -2, 3}, 12));
    a = sm_gguf_metadata(f, "floats");
    CHECK(a->of == SM_GGUF_F32 && a->n == 2 && !memcmp(a->raw, (float[]){0.5f, -0.25f}, 8));
    a = sm_gguf_metadata(f, "flags");
    CHECK(a->of == SM_GGUF_BOOL && a->n == 3 && !memcmp(a->raw, "\1\0\1", 3));
}

static void check_tensors(const sm_gguf *f)
{
    static const struct { const char *name, *dtype; bool computable; int rank; int64_t dims[3]; size_t bytes; } row[] = {
        {"a.f16", "F16", true, 2, {2, 3}, 12}, {"b.bf16", "BF16", true, 2, {2, 3}, 12}, {"f64", "F64", false, 1, {1}, 8},
        {"flat", "F32", true, 3, {3, 2, 4}, 96}, {"i32", "I32", true, 3, {1, 1, 2}, 8}, {"iq", "IQ4_NL", false, 2, {1, 64}, 36},
        {"q8", "Q8_0", true, 2, {2, 32}, 68}, {"z.f32", "F32", true, 2, {2, 3}, 24}};
    CHECK(sm_gguf_count(f) == SM_COUNT(row) && !sm_gguf_at(f, SM_COUNT(row)));
    for (size_t i = 0; i < SM_COUNT(row); i++) {
        const sm_st_entry *t = sm_gguf_at(f, i);
        CHECKF(!strcmp(t->name, row[i].name) && !strcmp(t->dtype, row[i].dtype) && t->computable == row[i].computable, "%s",
               t->name);
        CHECKF(t->rank == row[i].rank && t->bytes == row[i].bytes && sm_gguf_find(f, row[i].name) == t, "%s", t->name);
        CHECKF(!memcmp(t->dims, row[i].dims, (size_t)t->rank * sizeof *t->dims), "%s", t->name);
    }
    CHECK(!sm_gguf_find(f, "") && !sm_gguf_find(f, "zz"));
    CHECK(!memcmp(sm_gguf_find(f, "z.f32")->data, (float[]){-2.5f, -1.5f, -0.5f, 0.5f, 1.5f, 2.5f}, 24));
}

TEST(gguf_listing)
{
    for (int version = 2; version <= 3; version++) {
        sm_gguf *f = open_fixture(version == 2 ? "gguf_v2.gguf" : "gguf_meta.gguf");
        if (!f)
            return;
        CHECK(sm_gguf_version(f) == version);
        check_numbers(f);
        check_tensors(f);
        for (size_t i = 0; i < sm_gguf_metadata_count(f); i++)
            CHECK(&sm_gguf_metadata_at(f, i)->value == sm_gguf_metadata(f, sm_gguf_metadata_at(f, i)->key));
        CHECK(!sm_gguf_metadata_at(f, sm_gguf_metadata_count(f)));
        sm_gguf_close(f);
    }
    sm_err e = {0};
    CHECK(!sm_gguf_open(test_fixture("gguf_big_endian.gguf"), NULL, &e) && e.code == SUMI_E_FORMAT &&
          strstr(e.msg, "big-endian"));
    sm_err_clear(&e);
    CHECK(!sm_gguf_open(test_fixture("gguf_blocks.safetensors"), NULL, &e) && e.code == SUMI_E_FORMAT &&
          strstr(e.msg, "no GGUF file"));
    sm_err_clear(&e);
    CHECK(!sm_gguf_open(test_tmp("none.gguf"), NULL, &e) && e.code == SUMI_E_FILE);
}

/* ---- into weights ------------------------------------------------------------------------------------------------ */

TEST(gguf_into_weights)
{
    sm_mem mem = {0};
    sm_err e = {0};
    sm_weights *w = sm_weights_new(&mem, &e);
    CHECKF(sm_gguf_load(test_fixture("gguf_meta.gguf"), w, "p.", &mem, &e) == SUMI_OK, "%s", e.msg);
    CHECK(sm_weights_count(w) == 6 && !sm_weights_find(w, "p.iq") && !sm_weights_find(w, "p.f64") && !sm_weights_find(w, "q8"));
    sm_weight *q = sm_weights_find(w, "p.q8"), *h = sm_weights_find(w, "p.a.f16"), *i = sm_weights_find(w, "p.i32");
    CHECK(q && q->t.dtype == SM_Q8_0 && q->t.rank == 2 && q->t.dims[0] == 2 && q->t.dims[1] == 32 && q->bytes == 68 && q->mapped);
    CHECK(h && h->t.dtype == SM_F16 && sm_load_f32(&h->t, 5) == 2.5f && sm_weights_find(w, "p.b.bf16")->t.dtype == SM_BF16);
    CHECK(i && i->t.dtype == SM_I32 && ((int32_t *)i->t.data)[1] == -8 && sm_weights_find(w, "p.flat")->t.rank == 3);
    float y[64], part[40];
    sm_load_blocks(SM_Q8_0, q->t.data, 64, y);
    sm_load_values(&q->t, 7, 40, part);
    CHECK(!memcmp(part, y + 7, sizeof part));
    for (int n = 0; n < 64; n++)
        CHECK(sm_load_f32(&q->t, n) == y[n]);
    sm_weights_unref(&w);
    CHECK(mem.total == 0);
}

/* The front that tells formats apart knows it by content, and keeps the types. */
TEST(gguf_as_tensors)
{
    sm_err e = {0};
    sm_mem mem = {0};
    sm_tensors *f = sm_tensors_open(test_fixture("gguf_meta.gguf"), &mem, &e);
    CHECKF(f && !strcmp(sm_tensors_format(f), "GGUF file") && sm_tensors_count(f) == 8, "%s", e.msg);
    if (!f)
        return;
    CHECK(sm_tensors_find(f, "q8") && !strcmp(sm_tensors_find(f, "q8")->dtype, "Q8_0") && !sm_tensors_find(f, "q9"));
    sm_weights *w = sm_weights_new(&mem, &e);
    CHECK(sm_tensors_into(f, w, NULL, &mem, &e) == SUMI_OK && sm_weights_find(w, "q8")->t.dtype == SM_Q8_0);
    sm_weights_unref(&w);
    CHECK(mem.total == 0);
}

TEST(gguf_into_weights_errors)
{
    sm_mem mem = {0};
    sm_err e = {0};
    sm_weights *w = sm_weights_new(&mem, &e);
    CHECKF(sm_gguf_load(test_fixture("gguf_blocks.gguf"), w, NULL, &mem, &e) == SUMI_OK && sm_weights_count(w) == 10, "%s",
           e.msg);
    CHECK(sm_gguf_load(test_fixture("gguf_blocks.gguf"), w, NULL, &mem, &e) == SUMI_E_FORMAT && strstr(e.msg, "twice"));
    sm_weights_unref(&w);
    CHECK(mem.total == 0);
}

/* Whatever allocation fails: one error, nothing lost. */
TEST(gguf_allocations_fail)
{
    sumi_status st = SUMI_E_MEMORY;
    for (int64_t k = 1; st != SUMI_OK && k < 1000; k++) {
        sm_mem mem = {0};
        sm_err e = {0};
        sm_weights *w = sm_weights_new(&mem, &e);
        mem.fail_at = k;
        st = sm_gguf_load(test_fixture("gguf_meta.gguf"), w, NULL, &mem, &e);
        CHECKF(st == SUMI_OK ? k > 8 : st == SUMI_E_MEMORY && strstr(e.msg, "memory"), "allocation %d: %s", (int)k, e.msg);
        sm_weights_unref(&w);
        CHECKF(mem.total == 0, "%zu bytes lost at allocation %d", mem.total, (int)k);
    }
    CHECK(st == SUMI_OK);
}

TEST(gguf_cut_short)
{
    static const char *const names[] = {"gguf_meta.gguf", "gguf_blocks.gguf"};
    for (size_t i = 0; i < SM_COUNT(names); i++) {
        sm_buf b = {0};
        sm_err e = {0};
        CHECK(sm_file_read(test_fixture(names[i]), 1 << 20, &b, &e) == SUMI_OK);
        sm_gguf *whole = sm_gguf_open_mem(b.data, b.len, names[i], NULL, &e);
        size_t needed = 0; /* the padding after the last tensor may be missing */
        for (size_t k = 0; whole && k < sm_gguf_count(whole); k++)
            needed = SM_MAX(needed, (size_t)(sm_gguf_at(whole, k)->data - (const uint8_t *)b.data) + sm_gguf_at(whole, k)->bytes);
        CHECK(whole && needed > b.len - 32);
        sm_gguf_close(whole);
        for (size_t percent = 0; percent < 100; percent++) {
            sm_mem mem = {0};
            size_t n = b.len * percent / 100;
            char *part = malloc(n + 1); /* of its own, so that a sanitizer sees a read past the end */
            memcpy(part, b.data, n);
            sm_err_clear(&e);
            sm_gguf *f = sm_gguf_open_mem(part, n, "cut.gguf", &mem, &e);
            CHECKF(n >= needed ? f != NULL : !f && e.code == SUMI_E_FORMAT && strstr(e.msg, "truncated") && !strchr(e.msg, '\n'),
                   "%zu%%: %s",
                   percent, e.msg);
            sm_gguf_close(f);
            CHECK(mem.total == 0);
            free(part);
        }
        sm_buf_free(&b);
    }
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b)
{
    const sm_gguf_item *x = a, *y = b;
    return ((const char *)x->data > (const char *)y->data) - ((const char *)x->data < (const char *)y->data);
}

static bool same_file(const char *a, const char *b)
{
    sm_buf x = {0}, y = {0};
    sm_err e = {0};
    bool same = sm_file_read(a, 1 << 20, &x, &e) == SUMI_OK && sm_file_read(b, 1 << 20, &y, &e) == SUMI_OK && x.len == y.len &&
                !memcmp(x.data, y.data, x.len);
    sm_buf_free(&x);
    sm_buf_free(&y);
    return same;
}

/* Everything known of a file as items in the file's order, and its metadata. */
static size_t items_of(const sm_gguf *f, sm_gguf_item *items, sm_gguf_meta *meta)
{
    size_t n = 0;
    for (size_t i = 0; i < sm_gguf_count(f); i++) {
        const sm_st_entry *t = sm_gguf_at(f, i);
        if (!t->computable)
            continue;
        sm_dtype s = (sm_dtype)sm_store_find(t->dtype);
        items[n] = (sm_gguf_item){.name = t->name, .store = s, .rank = t->rank, .data = t->data, .as = s};
        memcpy(items[n++].dims, t->dims, sizeof t->dims);
    }
    qsort(items, n, sizeof *items, by_place);
    for (size_t i = 0; i < sm_gguf_metadata_count(f); i++)
        meta[i] = *sm_gguf_metadata_at(f, i);
    return n;
}

/* The reference's writer wrote this file: ours gives the same bytes. */
TEST(gguf_writes_the_same_file)
{
    sm_gguf *f = open_fixture("gguf_blocks.gguf");
    sm_gguf_item items[16];
    sm_gguf_meta meta[16];
    sm_err e = {0};
    if (!f)
        return;
    const char *path = test_tmp("same.gguf");
    size_t n = items_of(f, items, meta);
    CHECKF(sm_gguf_write(path, n, items, sm_gguf_metadata_count(f), meta, NULL, &e) == SUMI_OK, "%s", e.msg);
    char other[512];
    snprintf(other, sizeof other, "%s", test_fixture("gguf_blocks.gguf"));
    CHECK(same_file(path, other));
    sm_gguf_close(f);
}

TEST(gguf_round_trip)
{
    sm_gguf *f = open_fixture("gguf_meta.gguf");
    sm_gguf_item items[16];
    sm_gguf_meta meta[40];
    sm_err e = {0};
    sm_mem mem = {0};
    if (!f)
        return;
    char path[512], again[512];
    snprintf(path, sizeof path, "%s", test_tmp("round.gguf"));
    snprintf(again, sizeof again, "%s", test_tmp("again.gguf"));
    size_t n = items_of(f, items, meta), nmeta = sm_gguf_metadata_count(f);
    /* an array of arrays, which the reference's writer does not make, and an alignment */
    sm_gguf_value inner[2] = {{SM_GGUF_ARRAY, SM_GGUF_U16, 2, {.raw = "\1\2\3\4"}}, {SM_GGUF_ARRAY, SM_GGUF_U16, 0, {.raw = ""}}};
    meta[nmeta++] = (sm_gguf_meta){"nested", {SM_GGUF_ARRAY, SM_GGUF_ARRAY, 2, {.items = inner}}};
    meta[nmeta++] = (sm_gguf_meta){"general.alignment", {SM_GGUF_U32, SM_GGUF_U8, 0, {.u = 128}}};
    CHECKF(sm_gguf_write(path, n, items, nmeta, meta, &mem, &e) == SUMI_OK, "%s", e.msg);
    sm_gguf *g = sm_gguf_open(path, &mem, &e);
    CHECKF(g && sm_gguf_count(g) == n && sm_gguf_metadata_count(g) == nmeta, "%s", e.msg);
    if (g) {
        check_numbers(g);
        const sm_gguf_value *v = sm_gguf_metadata(g, "nested");
        CHECK(v && v->of == SM_GGUF_ARRAY && v->n == 2 && v->items[0].of == SM_GGUF_U16 &&
              !memcmp(v->items[0].raw, "\1\2\3\4", 4));
        for (size_t i = 0; i < n; i++) {
            const sm_st_entry *t = sm_gguf_find(g, items[i].name), *o = sm_gguf_find(f, items[i].name);
            CHECK(t && t->bytes == o->bytes && t->rank == o->rank && t->dtype == o->dtype && !memcmp(t->data, o->data, o->bytes));
            CHECK(t && (uintptr_t)t->data % 128 == 0 && !memcmp(t->dims, o->dims, (size_t)o->rank * 8));
        }
        sm_gguf_item back[16];
        sm_gguf_meta metas[40];
        n = items_of(g, back, metas);
        CHECK(sm_gguf_write(again, n, back, nmeta, metas, &mem, &e) == SUMI_OK);
        sm_gguf *h = sm_gguf_open(again, &mem, &e); /* the second writing has sorted metadata: from here the bytes stay */
        n = h ? items_of(h, back, metas) : 0;
        CHECK(h && sm_gguf_write(path, n, back, nmeta, metas, &mem, &e) == SUMI_OK && same_file(path, again));
        sm_gguf_close(h);
    }
    sm_gguf_close(g);
    sm_gguf_close(f);
    CHECK(mem.total == 0);
}

/* Conversion in pieces gives the bytes of conversion at once, from and to every type that can. */
TEST(gguf_converts)
{
    enum { N = 9 * 1024 }; /* more than a piece */
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    uint8_t *from = malloc(N * 4), *want = malloc(N * 4);
    char path[512];
    snprintf(path, sizeof path, "%s", test_tmp("convert.gguf"));
    test_fill(x, N, 7, -2, 2);
    for (sm_dtype a = 0; a < SM_DTYPES; a++)
        for (sm_dtype b = 0; b < SM_DTYPES; b++) {
            if (a == SM_I32 || b == SM_I32 || b == SM_F8_E4M3 || b == SM_F8_E5M2)
                continue;
            sm_err e = {0};
            CHECK(sm_store_save(a, x, N, from));
            sm_load_blocks(a, from, N, y);
            if (a == b) /* copied: K types do not come out of a second search as they were */
                memcpy(want, from, sm_dtype_bytes(a, N));
            else
                CHECK(sm_store_save(b, y, N, want));
            sm_gguf_item item = {"w", a, 2, {9, 1024}, from, b};
            CHECKF(sm_gguf_write(path, 1, &item, 0, NULL, NULL, &e) == SUMI_OK, "%s", e.msg);
            sm_gguf *f = sm_gguf_open(path, NULL, &e);
            const sm_st_entry *t = f ? sm_gguf_find(f, "w") : NULL;
            CHECKF(t && sm_store_find(t->dtype) == (int)b && t->dims[0] == 9 && !memcmp(t->data, want, t->bytes), "%s to %s",
                   sm_store_name(a), sm_store_name(b));
            sm_gguf_close(f);
        }
    free(x);
    free(y);
    free(from);
    free(want);
}

static void refuses(sm_gguf_item item, sm_gguf_meta meta, sumi_status want, const char *why)
{
    sm_err e = {0};
    sm_mem mem = {0};
    const char *path = test_tmp("refused.gguf");
    sumi_status st = sm_gguf_write(path, 1, &item, 1, &meta, &mem, &e);
    CHECKF(st == want && e.code == want && strstr(e.msg, why) && strstr(e.msg, path), "status %d, '%s', expected '%s'", st, e.msg,
           why);
    FILE *f = fopen(path, "rb");
    CHECK(!f && mem.total == 0);
    if (f)
        fclose(f);
}

TEST(gguf_write_errors)
{
    float x[64] = {0, 1e30f, NAN};
    const sm_gguf_item good = {"w", SM_F32, 1, {64}, x, SM_F32};
    const sm_gguf_meta fine = {"key", {SM_GGUF_U8, SM_GGUF_U8, 0, {.u = 1}}};
    sm_gguf_item t = good;
    sm_gguf_meta m = fine;
    t.name = "", refuses(t, fine, SUMI_E_ARG, "name");
    t.name = "\xff", refuses(t, fine, SUMI_E_ARG, "name");
    t = good, t.dims[0] = -1, refuses(t, fine, SUMI_E_ARG, "shape");
    t = good, t.rank = 9, refuses(t, fine, SUMI_E_ARG, "shape");
    t = good, t.rank = 2, t.dims[0] = t.dims[1] = INT64_MAX, refuses(t, fine, SUMI_E_ARG, "shape");
    t = good, t.as = SM_F8_E4M3, refuses(t, fine, SUMI_E_ARG, "no such type");
    t = good, t.as = SM_Q4_K, refuses(t, fine, SUMI_E_ARG, "64 values, no whole number of Q4_K");
    t = good, t.store = SM_I32, t.as = SM_F32, refuses(t, fine, SUMI_E_ARG, "cannot be made");
    t = good, t.as = SM_Q8_0, t.dims[0] = 63, refuses(t, fine, SUMI_E_ARG, "63 values");
    t = good, t.as = SM_F16, refuses(t, fine, SUMI_E_NUMERIC, "too large for F16");
    t = good, t.as = SM_Q8_0, refuses(t, fine, SUMI_E_NUMERIC, "too large for Q8_0");
    m.key = "a\n", refuses(good, m, SUMI_E_ARG, "key");
    m = fine, m.key = "general.alignment", refuses(good, m, SUMI_E_ARG, "alignment");
    m = fine, m.value.type = SM_GGUF_BOOL, m.value.u = 2, refuses(good, m, SUMI_E_ARG, "does not allow");
    m.value = (sm_gguf_value){SM_GGUF_STRING, SM_GGUF_U8, 1, {.s = "\xff"}}, refuses(good, m, SUMI_E_ARG, "does not allow");
    sm_err e = {0};
    sm_gguf_item twice[2] = {good, good};
    sm_gguf_meta keys[2] = {fine, fine};
    CHECK(sm_gguf_write(test_tmp("twice.gguf"), 2, twice, 0, NULL, NULL, &e) == SUMI_E_ARG && strstr(e.msg, "given twice"));
    sm_err_clear(&e);
    CHECK(sm_gguf_write(test_tmp("twice.gguf"), 1, twice, 2, keys, NULL, &e) == SUMI_E_ARG && strstr(e.msg, "given twice"));
    sm_err_clear(&e);
    CHECK(sm_gguf_write("/dev/full", 1, twice, 1, keys, NULL, &e) == SUMI_E_FILE && strstr(e.msg, "No space"));
    sumi_status st = SUMI_E_MEMORY;
    for (int64_t k = 1; st != SUMI_OK && k < 100; k++) {
        sm_mem mem = {.fail_at = k};
        sm_err_clear(&e);
        st = sm_gguf_write(test_tmp("memory.gguf"), 1, twice, 1, keys, &mem, &e);
        CHECKF((st == SUMI_OK || st == SUMI_E_MEMORY) && mem.total == 0, "%s", e.msg);
    }
    CHECK(st == SUMI_OK);
}
