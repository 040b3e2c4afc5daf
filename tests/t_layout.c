/* Layouts of checkpoints against diffusers' own conversion: names, shapes and contents (tests/fixtures/layouts.txt.gz, see
 * tools/fixtures/make_layouts.py), and the way back bit for bit. */
#include "layout_file.h"
#include "test.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { MOST = 1200 };

typedef struct fixture {
    item stored[MOST], canonical[MOST];
    size_t nstored, ncanonical;
} fixture;

/* ---- fixture ----------------------------------------------------------------------------------------------------- */

static void parse(char *line, fixture *f)
{
    char *save = NULL, *word = strtok_r(line, " \n", &save), *name = strtok_r(NULL, " \n", &save),
        *dims = strtok_r(NULL, " \n", &save);
    bool stored = !strcmp(word, "stored");
    item *x = stored ? &f->stored[f->nstored++] : &f->canonical[f->ncanonical++];
    *x = (item){0};
    snprintf(x->name, sizeof x->name, "%s", name);
    for (char *s = NULL, *d = strtok_r(dims, ",", &s); d && strcmp(d, "-"); d = strtok_r(NULL, ",", &s))
        x->dims[x->rank++] = atoll(d);
    if (!stored)
        x->crc = (uint32_t)strtoul(strtok_r(NULL, " \n", &save), NULL, 16);
}

static fixture *load_case(const char *name)
{
    fixture *f = calloc(1, sizeof *f);
    gzFile z = gzopen(test_fixture("layouts.txt.gz"), "rb");
    char line[512];
    bool in = false;
    while (z && gzgets(z, line, sizeof line)) {
        if (!strncmp(line, "case ", 5)) {
            line[strcspn(line, "\n")] = 0;
            in = !strcmp(line + 5, name);
        } else if (in && (line[0] == 's' || line[0] == 'c') && f->nstored < MOST && f->ncanonical < MOST) {
            parse(line, f);
        }
    }
    gzclose(z);
    CHECKF(f->nstored && f->ncanonical, "the fixture has no case %s", name);
    return f;
}

static bool same_shape(const item *x, const sm_tensor *t)
{
    return t->rank == x->rank && !memcmp(t->dims, x->dims, (size_t)x->rank * sizeof *x->dims);
}

static void check_canonical(const char *name, const fixture *f, const sm_weights *w)
{
    CHECKF(sm_weights_count(w) == f->ncanonical, "%s: %zu tensors, diffusers has %zu", name, sm_weights_count(w), f->ncanonical);
    for (size_t i = 0; i < f->ncanonical; i++) {
        const item *x = &f->canonical[i];
        const sm_weight *t = sm_weights_find(w, x->name);
        CHECKF(t != NULL, "%s: %s is missing", name, x->name);
        if (!t)
            continue;
        CHECKF(same_shape(x, &t->t), "%s: %s has another shape", name, x->name);
        CHECKF(crc32(0, t->t.data, (uInt)t->bytes) == x->crc, "%s: %s has another content", name, x->name);
    }
}

/* ---- the way back ------------------------------------------------------------------------------------------------ */

/* The items of an export, with data of their own. */
static size_t exported(const sm_layout_export *x, size_t n, item *out)
{
    for (size_t i = 0; i < n; i++) {
        const sm_tensor *t = &x[i].part[0]->t;
        item *y = &out[i];
        *y = (item){.rank = x[i].rank, .type = sm_dtype_name(t->dtype)};
        y->type = t->dtype == SM_F32 ? NULL : "F16";
        snprintf(y->name, sizeof y->name, "%s", x[i].name);
        memcpy(y->dims, x[i].dims, sizeof x[i].dims);
        size_t s = sm_dtype_size(t->dtype), at = 0;
        uint8_t *d = malloc(layout_numel(y) * s);
        for (int p = 0; p < x[i].parts; at += x[i].part[p++]->bytes)
            memcpy(d + at, x[i].part[p]->t.data, x[i].part[p]->bytes);
        for (int64_t r = 0; x[i].transpose && r < t->dims[0]; r++)
            for (int64_t c = 0; c < t->dims[1]; c++)
                memcpy(d + (size_t)(c * t->dims[0] + r) * s, (uint8_t *)t->data + (size_t)(r * t->dims[1] + c) * s, s);
        y->data = d;
    }
    return n;
}

static const item *find_item(const item *x, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(x[i].name, name))
            return &x[i];
    return NULL;
}

/* Every stored tensor that was not ignored comes out as it went in. */
static void check_stored(const char *name, const fixture *f, const item *out, size_t n, size_t left_out, const char *prefix)
{
    CHECKF(n + left_out == f->nstored, "%s: %zu tensors exported, %zu stored, %zu of them ignored", name, n, f->nstored,
           left_out);
    for (size_t i = 0; i < n; i++) {
        const item *x = find_item(f->stored, f->nstored, out[i].name + strlen(prefix));
        CHECKF(x != NULL, "%s: %s was not stored", name, out[i].name);
        if (!x)
            continue;
        float *v = malloc((layout_numel(x) + 1) * sizeof *v);
        layout_formula(x->name, layout_numel(x), v);
        CHECKF(x->rank == out[i].rank && !memcmp(x->dims, out[i].dims, (size_t)x->rank * sizeof *x->dims),
               "%s: %s has another shape", name, x->name);
        CHECKF(!memcmp(v, out[i].data, layout_numel(x) * sizeof *v), "%s: %s has another content", name, x->name);
        free(v);
    }
}

/* canonical -> original -> canonical, bit for bit. prefix: what the export has in front of names that were stored bare; NULL
 * when the stored form was diffusers'. */
static void check_way_back(const char *name, const fixture *f, const sm_weights *w, size_t left_out, const char *prefix)
{
    sm_layout_export *x = NULL;
    size_t n = 0;
    sm_err e = {0};
    sm_layout_report r;
    CHECKF(sm_layout_original(w, &x, &n, NULL, &e) == SUMI_OK, "%s: %s", name, e.msg);
    item *out = calloc(n + 1, sizeof *out);
    exported(x, n, out);
    for (size_t i = 1; i < n; i++)
        CHECK(strcmp(x[i - 1].name, x[i].name) < 0);
    if (prefix)
        check_stored(name, f, out, n, left_out, prefix);
    sm_weights *again = NULL;
    CHECKF(layout_read_items(out, n, SM_COMPONENTS, &again, &r, &e) == SUMI_OK, "%s: %s", name, e.msg);
    check_canonical(name, f, again);
    CHECKF(!strcmp(r.layout, "original") && !r.unknown, "%s: the export is %s, unknown %s", name, r.layout, r.first_unknown);
    sm_weights_unref(&again);
    for (size_t i = 0; i < n; i++)
        free((void *)out[i].data);
    free(out);
    sm_free(x);
}

static void check_case(const char *name, const char *layout, size_t ignored, const char *prefix)
{
    fixture *f = load_case(name);
    sm_weights *w = NULL;
    sm_layout_report r;
    sm_err e = {0};
    CHECKF(layout_read_items(f->stored, f->nstored, SM_COMPONENTS, &w, &r, &e) == SUMI_OK, "%s: %s", name, e.msg);
    CHECKF(!strcmp(r.layout, layout), "%s: layout %s", name, r.layout);
    CHECKF(r.ignored == ignored && !r.unknown, "%s: %zu ignored, %zu unknown (%s)", name, r.ignored, r.unknown, r.first_unknown);
    check_canonical(name, f, w);
    check_way_back(name, f, w, ignored, prefix);
    sm_weights_unref(&w);
    free(f);
}

TEST(layout_whole_checkpoints)
{
    check_case("sd15", "original", 6, "");
    check_case("sd2", "original", 14, ""); /* 12 tensors of the last layer, text_projection, logit_scale */
    check_case("xl", "original", 2, "");
    check_case("refiner", "original", 0, "");
}

/* SD Turbo's text encoder has the prefix of the refiner's. */
TEST(layout_version_2_in_the_refiners_place)
{
    static const char before[] = "cond_stage_model.model.", after[] = "conditioner.embedders.0.model.";
    fixture *f = load_case("sd2");
    sm_weights *w = NULL;
    sm_layout_report r;
    sm_err e = {0};
    for (size_t i = 0; i < f->nstored; i++) {
        item *x = &f->stored[i];
        char name[sizeof x->name];
        if (strncmp(x->name, before, strlen(before)))
            continue;
        float *v = malloc((layout_numel(x) + 1) * sizeof *v);
        layout_formula(x->name, layout_numel(x), v);
        snprintf(name, sizeof name, "%s%s", after, x->name + strlen(before));
        memcpy(x->name, name, sizeof name);
        x->data = v;
    }
    CHECKF(layout_read_items(f->stored, f->nstored, SM_COMPONENTS, &w, &r, &e) == SUMI_OK, "%s", e.msg);
    CHECK(!strcmp(r.layout, "original") && r.ignored == 14 && !r.unknown && !r.found[SM_COMPONENT_TEXT_2]);
    check_canonical("sd2 with the refiner's prefix", f, w);
    sm_weights_unref(&w);
    for (size_t i = 0; i < f->nstored; i++)
        free((void *)(uintptr_t)f->stored[i].data);
    free(f);
}

TEST(layout_unets)
{
    check_case("inpainting", "original", 0, "");
    check_case("middle_resnet", "original", 0, "");
    check_case("middle_none", "original", 0, "");
    check_case("unet_bare", "original", 0, "model.diffusion_model.");
}

TEST(layout_autoencoders)
{
    check_case("vae_bare", "original", 0, "first_stage_model.");
    check_case("vae_prefix", "original", 0, NULL);
    check_case("vae_old", "diffusers", 0, NULL);
}

TEST(layout_text_encoders)
{
    check_case("clip_flat", "diffusers", 0, NULL);
    check_case("clip_projection", "diffusers", 0, NULL);
    check_case("openclip_bare", "original", 2, NULL);
}

/* ---- published models -------------------------------------------------------------------------------------------- */

/* The canonical names and shapes of a model of detect.json.gz, without data. */
static sm_weights *published(const cJSON *models, const char *name)
{
    static const float nothing[1];
    sm_weights *w = sm_weights_new(NULL, NULL);
    const cJSON *t, *d;
    cJSON_ArrayForEach(t, cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(models, name), "tensors"))
    {
        sm_tensor x = {.data = (void *)(uintptr_t)nothing, .dtype = SM_F16};
        cJSON_ArrayForEach(d, t) x.dims[x.rank++] = (int64_t)d->valuedouble;
        if (!strstr(t->string, "position_ids"))
            CHECK(sm_weights_add(w, t->string, &x, NULL) == SUMI_OK);
    }
    return w;
}

/* crc32 of the lines `NAME D,D,...`, as in the fixture. */
static uint32_t sum_of(const sm_layout_export *x, size_t n)
{
    sm_buf b = {0};
    for (size_t i = 0; i < n; i++) {
        sm_buf_fmt(&b, "%s ", x[i].name);
        for (int d = 0; d < x[i].rank; d++)
            sm_buf_fmt(&b, "%s%lld", d ? "," : "", (long long)x[i].dims[d]);
        sm_buf_fmt(&b, "%s\n", x[i].rank ? "" : "-");
    }
    uint32_t crc = (uint32_t)crc32(0, (const Bytef *)b.data, (uInt)b.len);
    sm_buf_free(&b);
    return crc;
}

static sm_buf unpack(const char *path)
{
    gzFile z = gzopen(path, "rb");
    sm_buf b = {0};
    char part[8192];
    for (int n; z && (n = gzread(z, part, sizeof part)) > 0;)
        sm_buf_add(&b, part, (size_t)n);
    gzclose(z);
    return b;
}

/* SD 1.5 to unCLIP at full size: every stored name and shape is that of the original programs' construction loops, which
 * diffusers' conversion turns into these canonical ones. */
TEST(layout_published_models)
{
    sm_buf text = unpack(test_fixture("layouts.txt.gz")), json = unpack(test_fixture("detect.json.gz"));
    cJSON *all = json.data ? cJSON_ParseWithLength(json.data, json.len) : NULL;
    int models = 0;
    for (char *line = text.data ? strstr(text.data, "\nwhole ") : NULL; line; line = strstr(line + 1, "\nwhole "), models++) {
        char name[64];
        size_t want, n = 0;
        unsigned crc;
        CHECK(sscanf(line, "\nwhole %63s %zu %x", name, &want, &crc) == 3);
        sm_weights *w = published(cJSON_GetObjectItemCaseSensitive(all, "models"), name);
        sm_layout_export *x = NULL;
        sm_err e = {0};
        CHECKF(sm_layout_original(w, &x, &n, NULL, &e) == SUMI_OK, "%s: %s", name, e.msg);
        CHECKF(n == want, "%s: %zu tensors, %zu in the original form", name, n, want);
        CHECKF(x && sum_of(x, n) == crc, "%s: other names or shapes", name);
        sm_free(x);
        sm_weights_unref(&w);
    }
    CHECK(models == 15);
    cJSON_Delete(all);
    sm_buf_free(&text);
    sm_buf_free(&json);
}

TEST(layout_only_one_component)
{
    fixture *f = load_case("sd15");
    sm_weights *w = NULL;
    sm_layout_report r;
    sm_err e = {0};
    CHECK(layout_read_items(f->stored, f->nstored, SM_COMPONENT_VAE, &w, &r, &e) == SUMI_OK);
    CHECK(sm_weights_count(w) == 152 && r.found[SM_COMPONENT_VAE] == 152 && r.found[SM_COMPONENT_UNET] > 400 &&
          r.found[SM_COMPONENT_TEXT] == 36);
    for (size_t i = 0; i < sm_weights_count(w); i++)
        CHECK(!strncmp(sm_weights_at(w, i)->name, "vae.", 4));
    sm_weights_unref(&w);
    free(f);
}

/* Each allocation fails in turn: an error or nothing, and no memory is left. */
TEST(layout_no_memory)
{
    fixture *f = load_case("openclip_bare");
    sm_buf file = layout_file(f->stored, f->nstored);
    sumi_status st = SUMI_E_MEMORY;
    for (int64_t k = 1; k < 2000 && st != SUMI_OK; k++) {
        sm_mem mem = {.fail_at = k};
        sm_err e = {0};
        sm_layout_report r;
        sm_layout_export *out = NULL;
        size_t n;
        sm_weights *w = sm_weights_new(&mem, &e);
        sm_tensors *t = w ? sm_tensors_open_mem(file.data, file.len, "file", &mem, &e) : NULL;
        st = t ? sm_layout_into(t, w, SM_COMPONENTS, &r, &mem, &e) : e.code;
        if (st == SUMI_OK)
            st = sm_layout_original(w, &out, &n, &mem, &e);
        CHECK(st == e.code && (st == SUMI_OK || st == SUMI_E_MEMORY));
        sm_free(out);
        sm_weights_unref(&w);
        CHECKF(mem.total == 0, "%zu bytes left after failure %lld", mem.total, (long long)k);
    }
    CHECK(st == SUMI_OK);
    sm_buf_free(&file);
    free(f);
}
