/* PyTorch checkpoints: torch's own files have the tensors that the same torch stored as safetensors
 * (tools/fixtures/make_ckpt.py); whatever else a file holds or lies about is one line and nothing is left behind. Hostile
 * pickles and archives are built here byte by byte, from Lib/pickletools.py and PKWARE's APPNOTE.TXT. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/file.h"
#include "io/ckpt.h"
#include "io/pickle.h"
#include "io/tensors.h"
#include "io/zip.h"
#include "test.h"

static const char *const files[] = {"zip_p2.ckpt", "zip_p4.ckpt", "stream_p1.pt", "stream_p2.pt", "stream_p4.pt", "stream_p5.pt",
                                    "training.ckpt", "big_endian.ckpt"};

static const char *fixture(const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "ckpt/%s", name);
    return test_fixture(path);
}

static bool read_fixture(const char *name, sm_buf *b)
{
    sm_err e = {0};
    *b = (sm_buf){0};
    bool ok = sm_file_read(fixture(name), 1 << 20, b, &e) == SUMI_OK;
    CHECKF(ok, "%s", e.msg);
    return ok;
}

/* ---- what torch wrote -------------------------------------------------------------------------------------------- */

/* Every entry of the reference is there with its type, sizes and bytes, and no other. */
static void same_tensors(const char *name, const char *reference)
{
    sm_err e = {0};
    sm_mem mem = {0};
    sm_st *ref = sm_st_open(fixture(reference), &mem, &e);
    sm_ckpt *f = sm_ckpt_open(fixture(name), &mem, &e);
    CHECKF(ref && f, "%s: %s", name, e.msg);
    CHECKF(ref && f && sm_ckpt_count(f) == sm_st_count(ref), "%s: %zu tensors", name, f ? sm_ckpt_count(f) : 0);
    for (size_t i = 0; ref && f && i < sm_ckpt_count(f); i++) {
        const sm_st_entry *t = sm_ckpt_at(f, i), *want = sm_st_find(ref, t->name);
        CHECKF(want != NULL, "%s: %s is not in the reference", name, t->name);
        if (!want)
            continue;
        CHECKF(!strcmp(t->dtype, want->dtype) || (!strcmp(t->dtype, "F64") && !strcmp(want->dtype, "F32")), "%s: %s is %s", name,
               t->name, t->dtype);
        CHECKF(t->computable == want->computable && t->type == want->type && t->rank == want->rank && t->bytes == want->bytes,
               "%s: %s", name, t->name);
        CHECKF(!memcmp(t->dims, want->dims, (size_t)t->rank * sizeof *t->dims), "%s: sizes of %s", name, t->name);
        CHECKF(t->bytes == want->bytes && !memcmp(t->data, want->data, t->bytes), "%s: values of %s", name, t->name);
        CHECK(sm_ckpt_find(f, t->name) == t && (!i || strcmp(sm_ckpt_at(f, i - 1)->name, t->name) < 0));
    }
    CHECK(!f || (!sm_ckpt_find(f, "absent") && !sm_ckpt_at(f, sm_ckpt_count(f))));
    sm_ckpt_close(f);
    sm_st_close(ref);
    CHECKF(mem.total == 0, "%zu bytes leaked", mem.total);
}

TEST(ckpt_zip) { same_tensors("zip_p2.ckpt", "tree.safetensors"), same_tensors("zip_p4.ckpt", "tree.safetensors"); }
TEST(ckpt_zip_big_endian) { same_tensors("big_endian.ckpt", "big_endian.safetensors"); }
TEST(ckpt_state_dict_is_the_model) { same_tensors("training.ckpt", "model.safetensors"); }

TEST(ckpt_stream)
{
    static const char *const name[] = {"stream_p1.pt", "stream_p2.pt", "stream_p4.pt", "stream_p5.pt"};
    for (size_t i = 0; i < SM_COUNT(name); i++)
        same_tensors(name[i], "tree.safetensors");
}

/* Stored entries are used where they lie; tensors that share a storage share its bytes. */
TEST(ckpt_in_place)
{
    sm_buf b;
    sm_err e = {0};
    sm_ckpt *f = read_fixture("zip_p2.ckpt", &b) ? sm_ckpt_open_mem(b.data, b.len, "x", NULL, &e) : NULL;
    CHECKF(f != NULL, "%s", e.msg);
    static const char *const name[] = {"f32", "bf16", "module.weight", "shared.all", "shared.again", "shared.head", "shared.tail",
                                       "views.column"};
    const uint8_t *at[SM_COUNT(name)] = {0};
    for (size_t i = 0; f && i < SM_COUNT(name); i++) {
        const sm_st_entry *t = sm_ckpt_find(f, name[i]);
        at[i] = t ? t->data : NULL;
        bool inside = at[i] >= (uint8_t *)b.data && at[i] < (uint8_t *)b.data + b.len;
        CHECKF(t && inside == !!strcmp(name[i], "views.column"), "%s", name[i]);
    }
    CHECK(at[3] && at[3] == at[4] && at[3] == at[5] && at[3] + 15 * 4 == at[6]);
    sm_ckpt_close(f);
    sm_buf_free(&b);
}

TEST(ckpt_into_weights)
{
    sm_err e = {0};
    sm_mem mem = {0};
    for (size_t k = 0; k < SM_COUNT(files); k++) {
        sm_weights *w = sm_weights_new(&mem, &e);
        sm_ckpt *f = sm_ckpt_open(fixture(files[k]), &mem, &e);
        size_t computable = 0;
        for (size_t i = 0; f && i < sm_ckpt_count(f); i++)
            computable += sm_ckpt_at(f, i)->computable;
        sm_ckpt_close(f);
        CHECKF(sm_ckpt_load(fixture(files[k]), w, "p.", &mem, &e) == SUMI_OK && computable && sm_weights_count(w) == computable,
               "%s", e.msg);
        for (size_t i = 0; i < sm_weights_count(w); i++) {
            const sm_weight *x = sm_weights_at(w, i);
            CHECKF((uintptr_t)x->t.data % sm_dtype_size(x->t.dtype) == 0, "%s", x->name);
        }
        CHECK(sm_ckpt_load(fixture(files[k]), w, "p.", &mem, &e) == SUMI_E_FORMAT && strstr(e.msg, "twice"));
        e = (sm_err){0};
        CHECK(sm_ckpt_load("/nothing/here.ckpt", w, "q.", &mem, &e) == SUMI_E_FILE && strstr(e.msg, "/nothing/here.ckpt"));
        e = (sm_err){0};
        sm_weights_unref(&w);
        CHECK(mem.total == 0);
    }
}

/* The content tells the format; both kinds of file list and load alike. */
TEST(ckpt_tensors_any_format)
{
    static const char *const both[] = {"training.ckpt", "model.safetensors"};
    for (int k = 0; k < 2; k++) {
        char path[512];
        sm_err e = {0};
        sm_mem mem = {0};
        sm_buf b;
        snprintf(path, sizeof path, "%s", test_tmp("file.bin"));
        CHECK(read_fixture(both[k], &b) && sm_file_write(path, b.data, b.len, &e) == SUMI_OK);
        sm_buf_free(&b);
        sm_tensors *f = sm_tensors_open(path, &mem, &e);
        CHECKF(f && !strcmp(sm_tensors_format(f), k ? "safetensors" : "PyTorch checkpoint"), "%s", e.msg);
        CHECK(f && sm_tensors_count(f) == 2 && !strcmp(sm_tensors_at(f, 0)->name, "model.a.bias") && !sm_tensors_at(f, 2));
        CHECK(f && sm_tensors_find(f, "model.a.weight") == sm_tensors_at(f, 1) && !sm_tensors_find(f, "model") &&
              !sm_tensors_find(f, "z"));
        sm_tensors_close(f);
        sm_weights *w = sm_weights_new(&mem, &e);
        CHECKF(sm_tensors_load(path, w, "m.", &mem, &e) == SUMI_OK && sm_weights_count(w) == 2 &&
               sm_weights_find(w, "m.model.a.bias"), "%s", e.msg);
        CHECK(sm_tensors_load("/nothing/here", w, NULL, &mem, &e) == SUMI_E_FILE && strstr(e.msg, "/nothing/here: No such file"));
        sm_weights_unref(&w);
        CHECK(mem.total == 0);
    }
}

/* Real files that people made, where a checkout has them beside it. */
TEST(ckpt_real_files)
{
    static const struct { const char *name, *tensor, *dtype; size_t count; int64_t first; } row[] = {
        {"taef2_decoder.pth", "1.weight", "F16", 0, 64}, {"taef2_encoder.pth", "0.weight", "F16", 0, 64},
        {"ti_fastai_learned_embeds.bin", "<birb-style>", "F32", 1, 768}, {"vqvae_nimblebox.pt", NULL, "F32", 23, 0}};
    const char *dir = getenv("SUMI_DATA") ? getenv("SUMI_DATA") : "../shared/data";
    int seen = 0;
    for (size_t i = 0; i < SM_COUNT(row); i++) {
        char path[512];
        sm_err e = {0};
        snprintf(path, sizeof path, "%s/weights/%s", dir, row[i].name);
        FILE *there = fopen(path, "rb");
        if (!there)
            continue;
        fclose(there);
        seen++;
        sm_ckpt *f = sm_ckpt_open(path, NULL, &e);
        CHECKF(f && (!row[i].count || sm_ckpt_count(f) == row[i].count), "%s: %s, %zu tensors", row[i].name, e.msg,
               f ? sm_ckpt_count(f) : 0);
        const sm_st_entry *t = !f ? NULL : row[i].tensor ? sm_ckpt_find(f, row[i].tensor) : sm_ckpt_at(f, 0);
        CHECKF(t && !strcmp(t->dtype, row[i].dtype) && (!row[i].first || t->dims[0] == row[i].first), "%s", row[i].name);
        sm_ckpt_close(f);
    }
    if (!seen)
        test_skip("no checkpoints in ../shared/data/weights (SUMI_DATA names another folder)");
}

/* ---- damage ------------------------------------------------------------------------------------------------------ */

/* "" when these bytes open, else the message, which is one line. */
static const char *says(const void *data, size_t size)
{
    static char msg[640];
    sm_err e = {0};
    sm_mem mem = {0};
    uint8_t *copy = malloc(size ? size : 1); /* exactly so many: a sanitizer sees a read past the end */
    memcpy(copy, data, size);
    sm_ckpt *f = sm_ckpt_open_mem(copy, size, "test.ckpt", &mem, &e);
    CHECKF(f ? !e.code : e.code && !strncmp(e.msg, "test.ckpt: ", 11) && !strchr(e.msg, '\n'), "status %d '%s'", e.code, e.msg);
    snprintf(msg, sizeof msg, "%s", e.msg);
    sm_ckpt_close(f);
    CHECKF(mem.total == 0, "%zu bytes leaked after '%s'", mem.total, msg);
    free(copy);
    return msg;
}

static void expect(const void *data, size_t size, const char *why)
{
    const char *msg = says(data, size);
    CHECKF(*why ? strstr(msg, why) != NULL : !*msg, "'%s', expected '%s'", msg, why);
}

TEST(ckpt_cut)
{
    for (size_t k = 0; k < SM_COUNT(files); k++) {
        sm_buf b;
        if (!read_fixture(files[k], &b))
            continue;
        CHECK(!*says(b.data, b.len));
        for (int percent = 0; percent < 100; percent++)
            CHECKF(*says(b.data, b.len * (size_t)percent / 100), "%s cut at %d%%", files[k], percent);
        CHECK(*says(b.data, b.len - 1) || !strncmp(b.data, "PK", 2));
        sm_buf_free(&b);
    }
}

TEST(ckpt_each_allocation_fails)
{
    static const char *const name[] = {"zip_p2.ckpt", "stream_p4.pt", "big_endian.ckpt"};
    for (size_t k = 0; k < SM_COUNT(name); k++) {
        int at = 0;
        for (bool done = false; !done && at < 5000;) {
            sm_err e = {0};
            sm_mem mem = {0};
            sm_weights *w = sm_weights_new(&mem, &e);
            mem.fail_at = ++at;
            done = sm_tensors_load(fixture(name[k]), w, NULL, &mem, &e) == SUMI_OK;
            CHECKF(done || (e.code == SUMI_E_MEMORY && e.msg[0]), "%s, allocation %d: %d %s", name[k], at, e.code, e.msg);
            sm_weights_unref(&w);
            CHECKF(mem.total == 0, "%s, allocation %d: %zu bytes leaked", name[k], at, mem.total);
        }
        CHECKF(at > 5 && at < 5000, "%d allocations", at);
    }
}

/* ---- pickles ----------------------------------------------------------------------------------------------------- */

/* A stream whose object is the pickle p and which has no storages. */
static void stream_says(const char *p, size_t n, const char *why)
{
    static const char head[] =
        "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\x0d\0\0\0little_endian\x88s.";
    sm_buf b = {0};
    sm_buf_add(&b, head, sizeof head - 1);
    sm_buf_add(&b, p, n);
    sm_buf_add(&b, "\x80\x02].", 4);
    expect(b.data, b.len, why);
    sm_buf_free(&b);
}
#define PICKLE(TEXT, WHY) stream_says(TEXT, sizeof TEXT - 1, WHY)

TEST(ckpt_unlisted_globals)
{
    PICKLE("\x80\x02" "cos\nsystem\nX\x02\0\0\0ls\x85R.", "byte 2: names os.system, which is refused");
    PICKLE("\x80\x02" "cposix\nsystem\n.", "posix.system");
    PICKLE("\x80\x02" "cbuiltins\neval\n.", "builtins.eval");
    PICKLE("\x80\x02" "c__builtin__\nexec\n.", "__builtin__.exec");
    PICKLE("\x80\x02" "cbuiltins\ngetattr\n.", "builtins.getattr");
    PICKLE("\x80\x02" "ctorch\nload\n.", "torch.load");
    PICKLE("\x80\x02" "ctorch.serialization\nload\n.", "torch.serialization.load");
    PICKLE("\x80\x02" "ctorch.hub\nload\n.", "torch.hub.load");
    PICKLE("\x80\x02" "ctorch._utils\n_rebuild_tensor_v2 \n.", "torch._utils._rebuild_tensor_v2?");
    PICKLE("\x80\x02" "ctorch\n_utils._rebuild_tensor_v2\n.", "torch._utils._rebuild_tensor_v2, which is refused");
    PICKLE("\x80\x02" "ctorch\n\n.", "torch.,");
    PICKLE("\x80\x02" "c\n\n.", "names .,");
    PICKLE("\x80\x02" "cnumpy.core.multiarray\n_reconstruct\n.", "numpy.core.multiarray._reconstruct");
    PICKLE("\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.", "byte 14: names os.system, which is refused");
    PICKLE("\x80\x04K\x01K\x02\x93.", "what is no text");
    PICKLE("\x80\x02" "(ios\nsystem\n.", "opcode 0x69");     /* INST */
    PICKLE("\x80\x02" "(cos\nsystem\no.", "os.system");        /* OBJ */
    PICKLE("\x80\x02" "(ccollections\nOrderedDict\no.", "opcode 0x6f");
    PICKLE("\x80\x04" "ccollections\nOrderedDict\n)}\x92.", "opcode 0x92"); /* NEWOBJ_EX */
    PICKLE("\x80\x02\x82\x01.", "opcode 0x82");                  /* EXT1 */
    PICKLE("\x80\x02Ptorch\n.", "opcode 0x50");                  /* PERSID */
    PICKLE("\x80\x05\x97.", "opcode 0x97");                      /* NEXT_BUFFER */
    PICKLE("\x80\x06N.", "protocol 6");
}

TEST(ckpt_calls)
{
    PICKLE("\x80\x02" "cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n)R.", "which only names something");
    PICKLE("\x80\x02" "ctorch\nFloatStorage\n)R.", "which only names something");
    PICKLE("\x80\x02" "ctorch\nfloat32\n)R.", "which only names something");
    PICKLE("\x80\x02})R.", "calls what is no function");
    PICKLE("\x80\x02" "ccollections\nOrderedDict\n]R.", "with what is no tuple");
    PICKLE("\x80\x02" "ccollections\nOrderedDict\nN\x85R.", "calls OrderedDict");
    PICKLE("\x80\x02" "ccollections\nOrderedDict\n]N\x86\x85R.", "calls OrderedDict");
    PICKLE("\x80\x02" "ccollections\nOrderedDict\n]]a\x85R.", "no pair");
    PICKLE("\x80\x02" "ccollections\nOrderedDict\n](K\x01K\x02la\x85R.", "");
    PICKLE("\x80\x02" "ctorch._utils\n_rebuild_parameter\n}\x88}\x87R.", "makes a parameter");
    PICKLE("\x80\x02" "ctorch._utils\n_rebuild_parameter\n)R.", "makes a parameter");
    PICKLE("\x80\x02" "ctorch._utils\n_rebuild_tensor_v2\n)R.", "a tensor whose storage");
    PICKLE("\x80\x02" "ctorch._utils\n_rebuild_tensor_v2\n(NK\0))\x89NtR.", "a tensor whose storage");
    PICKLE("\x80\x02" "ctorch\nSize\nK\x01\x85R.", "calls torch.Size");
    PICKLE("\x80\x02K\x01}b.", "gives attributes");
    PICKLE("\x80\x02}}b.", "");
    PICKLE("\x80\x02(X\x06\0\0\0moduleNNtQ.", "whole module");
    PICKLE("\x80\x02NQ.", "no storage of torch's");
    PICKLE("\x80\x02(X\x07\0\0\0storageX\x01\0\0\0aX\x01\0\0\0bX\x03\0\0\0cpuK\x01tQ.", "no storage of torch's");
    PICKLE("\x80\x02(X\x07\0\0\0storagectorch\nfloat32\nX\x01\0\0\0bX\x03\0\0\0cpuK\x01tQ.", "no storage of torch's");
    PICKLE("\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0bX\x03\0\0\0cpuJ\xff\xff\xff\xfftQ.",
           "no storage of torch's");
    PICKLE("\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0bX\x03\0\0\0cpu\x8a\x08\0\0\0\0\0\0\0\x7ftQ.",
           "larger than any file");
    PICKLE("\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0bX\x03\0\0\0cpuK\x01)tQ.", "view of a storage");
    PICKLE("\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0bX\x03\0\0\0cpuK\x01tQ.", "storage is not in the file");
}

TEST(ckpt_stack_and_memo)
{
    PICKLE("", "ends in the middle"); /* the list of keys is taken for the object, and then there are none */
    PICKLE(".", "stops with 0 values");
    PICKLE("\x80\x02NN.", "stops with 2 values");
    PICKLE("\x80\x02N(.", "stops with 1 values");
    PICKLE("\x80\x02N(0.", "");
    PICKLE("\x80\x02(1N.", "");
    PICKLE("\x80\x02N20.", "");
    PICKLE("\x80\x02" "0.", "empty stack");
    PICKLE("\x80\x02" "1.", "no mark");
    PICKLE("\x80\x02" "2.", "needs a value");
    PICKLE("\x80\x02N(2.", "needs a value");
    PICKLE("\x80\x02" "R.", "empty stack");
    PICKLE("\x80\x02" "b.", "empty stack");
    PICKLE("\x80\x02" "Q.", "empty stack");
    PICKLE("\x80\x02" "a.", "empty stack");
    PICKLE("\x80\x02}N(Ns.", "empty stack");
    PICKLE("\x80\x02\x85.", "more values than there are");
    PICKLE("\x80\x02NN\x87.", "more values than there are");
    PICKLE("\x80\x02t.", "no mark");
    PICKLE("\x80\x02}(Nu.", "a key without a value");
    PICKLE("\x80\x02(Nd.", "a key without a value");
    PICKLE("\x80\x02)Na.", "adds to what is no list");
    PICKLE("\x80\x02]NNs.", "sets an item of what is no dict");
    PICKLE("\x80\x02}(NNe.", "adds to what is no list");
    PICKLE("\x80\x02(e.", "needs a value");
    PICKLE("\x80\x02h\x01.", "memo 1 was never set");
    PICKLE("\x80\x02Nq\x01h\x02.", "memo 2 was never set");
    PICKLE("\x80\x02Nq\x01h\x01" "0.", "");
    PICKLE("\x80\x02q\x01.", "needs a value");
    PICKLE("\x80\x02Nr\xff\xff\xff\xff.", "memo 4294967295 is out of any order");
    PICKLE("\x80\x02Nr\xff\xff\0\0.", "memo 65535 is out of any order");
    PICKLE("\x80\x02j\xff\xff\xff\xff.", "memo 4294967295 was never set");
    PICKLE("\x80\x02X\xff\xff\xff\xff" "a.", "ends in the middle");
    PICKLE("\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff" "a.", "ends in the middle");
    PICKLE("\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.", "a frame longer than the pickle");
    PICKLE("\x80\x02\x8b\xff\xff\xff\xff.", "ends in the middle");
    PICKLE("I12x\n.", "a whole number that is none");
    PICKLE("I\n.", "a whole number that is none");
    PICKLE("L-L\n.", "a whole number that is none");
    PICKLE("L-99999999999999999999999L\n.", "");
    PICKLE("I1", "middle of a line");
}

static const sm_pk_value *number_of(sm_pickle *p, const char *text, size_t n)
{
    sm_err e = {0};
    size_t used;
    const sm_pk_value *v = sm_pickle_read(p, (const uint8_t *)text, n, "x", &used, &e);
    CHECKF(v && used == n, "%s", e.msg);
    static const sm_pk_value none;
    return v ? v : &none;
}
#define NUMBER(TEXT, KIND, VALUE) (x = number_of(&p, TEXT, sizeof TEXT - 1), CHECK(x->kind == KIND && x->u.i == (VALUE)))

TEST(ckpt_pickle_numbers)
{
    sm_mem mem = {0};
    sm_pickle p;
    const sm_pk_value *x;
    sm_pickle_init(&p, &mem);
    NUMBER("K\xff.", SM_PK_INT, 255);
    NUMBER("M\x01\x02.", SM_PK_INT, 513);
    NUMBER("J\xfe\xff\xff\xff.", SM_PK_INT, -2);
    NUMBER("I01\n.", SM_PK_BOOL, 1);
    NUMBER("I00\n.", SM_PK_BOOL, 0);
    NUMBER("I-17\n.", SM_PK_INT, -17);
    NUMBER("L9223372036854775807L\n.", SM_PK_INT, INT64_MAX);
    NUMBER("L9223372036854775808L\n.", SM_PK_OTHER, 0);
    NUMBER("\x8a\x00.", SM_PK_INT, 0);
    NUMBER("\x8a\x01\xff.", SM_PK_INT, -1);
    NUMBER("\x8a\x02\xff\x00.", SM_PK_INT, 255);
    NUMBER("\x8a\x08\0\0\0\0\0\0\0\x80.", SM_PK_INT, INT64_MIN);
    NUMBER("\x8a\x09\0\0\0\0\0\0\0\0\x01.", SM_PK_OTHER, 0);
    x = number_of(&p, "G\xbf\xf8\0\0\0\0\0\0.", 10);
    CHECK(x->kind == SM_PK_FLOAT && x->u.f == -1.5);
    sm_pickle_free(&p);
    CHECK(mem.total == 0);
}

/* A pickle of head, n times body, and tail. */
static void repeated(const char *head, const char *body, size_t nbody, int n, const char *tail, const char *why)
{
    sm_buf b = {0};
    sm_buf_fmt(&b, "%s", head);
    for (int i = 0; i < n; i++)
        sm_buf_add(&b, body, nbody);
    sm_buf_fmt(&b, "%s", tail);
    stream_says(b.data, b.len, why);
    sm_buf_free(&b);
}

TEST(ckpt_bombs)
{
    repeated("\x80\x02N", "\x85", 1, 1000, ".", "64 deep");                /* tuples in tuples */
    repeated("\x80\x02N", "\x85", 1, 62, ".", "");
    PICKLE("\x80\x02]q\x01h\x01" "a.", "holds itself");
    PICKLE("\x80\x02}q\x01X\x01\0\0\0ah\x01s.", "holds itself");
    repeated("\x80\x02N", "2\x86", 2, 60, ".", "more than 4000000 values"); /* 2^60 leaves */
    repeated("\x80\x02", "(", 1, 2000001, "", "marks");
    repeated("\x80\x02N", "2", 1, 2000001, "", "stack of more than");
    repeated("\x80\x02", "}0", 2, 2000001, "", "more than 2000000 values");
    /* One list of 1000 pairs, made an OrderedDict of its own again and again. */
    sm_buf b = {0};
    sm_buf_fmt(&b, "\x80\x02" "ccollections\nOrderedDict\nq%c](", 1);
    for (int i = 0; i < 1000; i++)
        sm_buf_add(&b, "NN\x86", 3);
    sm_buf_fmt(&b, "e\x85q%c0", 2);
    for (int i = 0; i < 5000; i++)
        sm_buf_add(&b, "h\1h\2R0", 6);
    stream_says(b.data, b.len, "items of containers");
    sm_buf_free(&b);
}

/* ---- tensors in archives ----------------------------------------------------------------------------------------- */

typedef struct part {
    const char *name, *data;
    size_t n;
    int method;             /* 0, or 8: deflated */
    int64_t size, packed;   /* what the directory claims, when not 0 */
    int64_t shift;          /* added to the claimed place of the local header */
    int flags;
    bool zip64;             /* sizes and place in an extra field of 64-bit numbers */
} part;

static void le(sm_buf *b, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        sm_buf_add(b, &(char){i < 8 ? (char)(v >> (8 * i)) : 0}, 1);
}

static size_t deflate_part(const part *p, uint8_t **out)
{
    z_stream z = {0};
    size_t cap = p->n + p->n / 100 + 1000;
    *out = malloc(cap);
    CHECK(deflateInit2(&z, 9, Z_DEFLATED, -15, 9, Z_DEFAULT_STRATEGY) == Z_OK);
    z.next_in = (Bytef *)p->data;
    z.avail_in = (uInt)p->n;
    z.next_out = *out;
    z.avail_out = (uInt)cap;
    CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END);
    deflateEnd(&z);
    return z.total_out;
}

/* An archive of these parts. The local headers agree with the directory. */
static void archive(sm_buf *b, const part *parts, int n)
{
    sm_buf dir = {0};
    for (int i = 0; i < n; i++) {
        const part *p = &parts[i];
        uint8_t *packed = NULL;
        size_t k = p->method == 8 ? deflate_part(p, &packed) : p->n, at = b->len, name = strlen(p->name);
        for (int d = 0; d < 2; d++) { /* the local header, then the directory's */
            sm_buf *o = d ? &dir : b;
            le(o, d ? 0x02014b50 : 0x04034b50, 4);
            le(o, 20, d ? 4 : 2); /* made by and needed; needed */
            le(o, (uint64_t)p->flags, 2);
            le(o, (uint64_t)p->method, 2);
            le(o, 0, 4);
            le(o, crc32(0, (const Bytef *)p->data, (uInt)p->n), 4);
            uint64_t number[3] = {(uint64_t)(p->size ? p->size : (int64_t)p->n), (uint64_t)(p->packed ? p->packed : (int64_t)k),
                                  (uint64_t)((int64_t)at + p->shift)};
            size_t numbers = d ? 3 : 2;
            le(o, p->zip64 ? UINT32_MAX : number[1], 4);
            le(o, p->zip64 ? UINT32_MAX : number[0], 4);
            le(o, name, 2);
            le(o, p->zip64 ? 4 + 8 * numbers : 0, 2);
            if (d) {
                le(o, 0, 10); /* comment, disk, attributes */
                le(o, p->zip64 ? UINT32_MAX : number[2], 4);
            }
            sm_buf_add(o, p->name, name);
            if (p->zip64) {
                le(o, 1, 2);
                le(o, 8 * numbers, 2);
                for (size_t j = 0; j < numbers; j++)
                    le(o, number[j], 8);
            }
        }
        sm_buf_add(b, packed ? (const char *)packed : p->data, k);
        free(packed);
    }
    size_t at = b->len;
    sm_buf_add(b, dir.data, dir.len);
    le(b, 0x06054b50, 4);
    le(b, 0, 4);
    le(b, (uint64_t)n, 2);
    le(b, (uint64_t)n, 2);
    le(b, dir.len, 4);
    le(b, at, 4);
    le(b, 0, 2);
    sm_buf_free(&dir);
}

static void archive_says(const part *parts, int n, const char *why)
{
    sm_buf b = {0};
    archive(&b, parts, n);
    expect(b.data, b.len, why);
    sm_buf_free(&b);
}

/* The pickle of one tensor "t" of 6 elements of float32 in storage "0", with this tail of _rebuild_tensor_v2's arguments. */
#define STORAGE(N) "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" "0X\3\0\0\0cpuK" N "tQ"
#define ONE(N, REST) "\x80\x02}X\1\0\0\0tctorch._utils\n_rebuild_tensor_v2\n(" STORAGE(N) REST "\x89Nt" "Rs."
#define TENSOR(REST) ONE("\6", REST)
static const char six[24] = "\0\0\x80\x3f\0\0\0\x40";

static void tensor_says(const char *pickle, size_t n, const char *why)
{
    archive_says((part[]){{.name = "a/data.pkl", .data = pickle, .n = n}, {.name = "a/data/0", .data = six, .n = 24}}, 2, why);
}
#define T(REST, WHY) tensor_says(TENSOR(REST), sizeof(TENSOR(REST)) - 1, WHY)

TEST(ckpt_tensor_views)
{
    T("K\0K\2K\3\x86K\3K\1\x86", "");
    T("K\0K\3K\2\x86K\1K\3\x86", "");
    T("K\5)" ")", "");
    T("K\6)" ")", "reaches out of its storage");
    T("K\1K\2K\3\x86K\3K\1\x86", "reaches out of its storage");
    T("K\0K\7\x85K\1\x85", "reaches out of its storage");
    T("K\0K\2\x85K\6\x85", "reaches out of its storage");
    T("K\0K\2\x85K\5\x85", "");
    T("K\0K\1\x85\x8a\x08\0\0\0\0\0\0\0\x40\x85", "");                       /* the stride of a single one is free */
    T("K\0K\0\x85\x8a\x08\0\0\0\0\0\0\0\x40\x85", "");
    T("K\0K\2\x85J\xff\xff\xff\xff\x85", "or negative");
    T("K\0J\xff\xff\xff\xff\x85K\1\x85", "or negative");
    T("J\xff\xff\xff\xffK\1\x85K\1\x85", "or negative");
    T("K\0K\2\x85)", "a tensor whose storage");
    T("K\0K\2K\2", "a tensor whose storage");
    T("K\0(K\1K\1K\1K\1K\1K\1K\1K\1K\1t(K\1K\1K\1K\1K\1K\1K\1K\1K\1t", "at most 8");
    T("K\0K\4\x85\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85", "too large");
    T("K\0\x8a\x08\0\0\0\0\0\0\0\x40K\4\x86K\0K\0\x86", "too large");
    T("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\1\x85K\1\x85", "reaches out of its storage");
    T("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x3fK\2\x85K\1\x85", "reaches out of its storage");
    T("K\0\x8a\x05\0\0\0\0\1\x85K\0\x85", "far more than its file explains"); /* 16 GB of one element */
    T("K\0J\0\0\0\2\x85K\0\x85", "far more than its file explains");
}

TEST(ckpt_zip_lies)
{
    static const char good[] = TENSOR("K\0K\6\x85K\1\x85");
    const part p = {.name = "a/data.pkl", .data = good, .n = sizeof good - 1}, d = {.name = "a/data/0", .data = six, .n = 24};
    part q;
#define WITH(FIELD, VALUE) (q = d, q.FIELD = (VALUE), q)
#define SAYS(WHY, ...) archive_says((part[]){__VA_ARGS__}, (int)SM_COUNT(((part[]){__VA_ARGS__})), WHY)
    SAYS("", p, d);
    SAYS("", d, p);
    SAYS("storage '0' is not in the archive", p);
    SAYS("has no data.pkl", d);
    SAYS("several checkpoints", p, d, ((part){.name = "b/data.pkl", .data = good, .n = sizeof good - 1}));
    SAYS("TorchScript", p, d, ((part){.name = "a/constants.pkl", .data = "", .n = 0}));
    SAYS("has 20 bytes, but 24 are stated", p, WITH(n, 20));
    SAYS("twice", p, d, d);
    SAYS("two sizes that do not fit", p, WITH(size, 25));
    SAYS("reaches out of the file", p, (q = d, q.size = q.packed = 4000, q));
    SAYS("reaches out of the file", p, (q = d, q.size = q.packed = 0xfffffff0, q));
    SAYS("local header", p, WITH(shift, 1));
    SAYS("encrypted", p, WITH(flags, 1));
    SAYS("other than deflate", p, WITH(method, 12));
    SAYS("", p, WITH(zip64, true));
    SAYS("", ((part){.name = "a/data.pkl", .data = good, .n = sizeof good - 1, .zip64 = true}), WITH(zip64, true));
    static const int64_t lies[] = {4000, 1 << 30, (int64_t)1 << 32, (int64_t)1 << 40, INT64_MAX, INT64_MIN, -1, -24};
    for (size_t i = 0; i < SM_COUNT(lies); i++)
        SAYS("reaches out of the file", p, (q = d, q.zip64 = true, q.size = q.packed = lies[i], q));
    SAYS("local header", p, (q = d, q.zip64 = true, q.shift = (int64_t)1 << 40, q));
    SAYS("local header", p, (q = d, q.zip64 = true, q.shift = INT64_MIN, q));
    static const char *const names[] = {"", "/a", "../a", "a/..", "a/../b", "a\\b", "\xff", ".."};
    for (size_t i = 0; i < SM_COUNT(names); i++)
        SAYS("a name that no checkpoint has", p, d, ((part){.name = names[i], .data = six, .n = 24}));
    SAYS("", p, d, ((part){.name = "a..b/..c", .data = six, .n = 24}));
    SAYS("neither little nor big", p, d, ((part){.name = "a/byteorder", .data = "middle", .n = 6}));
    SAYS("", p, d, ((part){.name = "a/byteorder", .data = "little", .n = 6}));
    expect("PK\3\4", 4, "no directory at its end");
    expect("PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 22, "no PyTorch checkpoint");
}

/* Two entries over the same bytes: the directory points twice at one local header, under the same and under another name. */
TEST(ckpt_zip_overlap)
{
    static const char good[] = TENSOR("K\0K\6\x85K\1\x85");
    const part p = {.name = "a/data.pkl", .data = good, .n = sizeof good - 1}, d = {.name = "a/data/0", .data = six, .n = 24};
    const part again = {.name = "a/data/1", .data = six, .n = 24, .shift = -(30 + 8 + 24)};
    SAYS("does not fit its local header", p, d, again);
    /* An entry whose content is the next one, header and all. */
    sm_buf inner = {0}, outer = {0};
    archive(&inner, &d, 1);
    archive(&outer, (part[]){{.name = "a/data/9", .data = inner.data, .n = inner.len}, p,
                             {.name = "a/data/0", .data = six, .n = 24}}, 3);
    CHECK(!*says(outer.data, outer.len));
    outer.len = 0;
    int64_t back = (int64_t)(30 + 8 + inner.len + 30 + 10 + p.n - 38);
    archive(&outer, (part[]){{.name = "a/data/9", .data = inner.data, .n = inner.len}, p,
                             {.name = "a/data/0", .data = six, .n = 24, .shift = -back}}, 3);
    expect(outer.data, outer.len, "overlaps another");
    sm_buf_free(&inner);
    sm_buf_free(&outer);
}

/* Somebody zipped the files again: deflated entries are unpacked, up to a limit that no small file gets past. */
TEST(ckpt_zip_deflated)
{
    static const char good[] = TENSOR("K\0K\6\x85K\1\x85");
    const part p = {.name = "a/data.pkl", .data = good, .n = sizeof good - 1, .method = 8};
    part d = {.name = "a/data/0", .data = six, .n = 24, .method = 8};
    sm_buf b = {0};
    sm_err e = {0};
    sm_mem mem = {0};
    archive(&b, (part[]){p, d}, 2);
    sm_ckpt *f = sm_ckpt_open_mem(b.data, b.len, "x", &mem, &e);
    const sm_st_entry *t = f ? sm_ckpt_find(f, "t") : NULL;
    CHECKF(t && t->bytes == 24 && !memcmp(t->data, six, 24), "%s", e.msg);
    sm_ckpt_close(f);
    CHECK(mem.total == 0);
    b.len = 0;
    static const char more[] = ONE("\7", "K\0K\6\x85K\1\x85");
    d.size = 28; /* stated everywhere, but not there */
    archive(&b, (part[]){{.name = "a/data.pkl", .data = more, .n = sizeof more - 1}, d}, 2);
    expect(b.data, b.len, "is damaged");
    b.len = 0;
    d.size = 20;
    static const char less[] = ONE("\5", "K\0K\5\x85K\1\x85");
    archive(&b, (part[]){{.name = "a/data.pkl", .data = less, .n = sizeof less - 1}, d}, 2);
    expect(b.data, b.len, "is damaged");
    /* A bomb: 100 MB of zeros in 100 KB. */
    enum { BOMB = 100 << 20 };
    static const char large[] =
        "\x80\x02}X\1\0\0\0tctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
                                "0X\3\0\0\0cpuJ\0\0\x90\1tQK\0K\6\x85K\1\x85\x89NtRs.";
    char *zeros = calloc(1, BOMB);
    b.len = 0;
    archive(&b, (part[]){{.name = "a/data.pkl", .data = large, .n = sizeof large - 1},
                         {.name = "a/data/0", .data = zeros, .n = BOMB, .method = 8}}, 2);
    CHECK(b.len < 200000);
    expect(b.data, b.len, "far more than its file explains");
    free(zeros);
    sm_buf_free(&b);
}

TEST(ckpt_names)
{
    /* {K: tensor} with K in different shapes; D is a memo of the tensor. */
#define NAMED(BEFORE, AFTER) \
    "\x80\x02" BEFORE "ctorch._utils\n_rebuild_tensor_v2\n(" STORAGE("\6") "K\0K\6\x85K\1\x85\x89NtR" AFTER
#define N(BEFORE, AFTER, WHY) tensor_says(NAMED(BEFORE, AFTER), sizeof(NAMED(BEFORE, AFTER)) - 1, WHY)
    N("", ".", "");                                        /* "tensor" */
    N("}X\0\0\0\0", "s.", "name that is empty");
    N("}X\1\0\0\0\xff", "s.", "no UTF-8");
    N("}X\3\0\0\0a\0b", "s.", "no UTF-8");
    N("}N", "s.", "neither text nor a whole number");
    N("}G\0\0\0\0\0\0\0\0", "s.", "neither text nor a whole number");
    N("}K\7", "s.", "");
    N("}X\1\0\0\0a", "q\1sX\1\0\0\0ah\1s.", "'a' is there twice");
    N("}X\3\0\0\0a.b", "q\1sX\1\0\0\0a}X\1\0\0\0bh\1ss.", "'a.b' is there twice");
    N("}X\1\0\0\0" "0", "q\1sK\0h\1s.", "'0' is there twice");
}

/* Formats that are refused by name. */
TEST(ckpt_other_formats)
{
    uint8_t tar[1024] = {0};
    memcpy(tar + 257, "ustar", 5);
    CHECK(sm_ckpt_is(tar, 512));
    expect(tar, sizeof tar, "a tar archive");
    expect("\x80\x02}.", 4, "a pickle, but none that torch.save wrote");
    expect("", 0, "no PyTorch checkpoint");
    static const char st[] = "\x80\5\0\0\0\0\0\0{";
    CHECK(!sm_ckpt_is(st, sizeof st - 1) && !sm_ckpt_is("", 0) && sm_ckpt_is("PK\3\4", 4) && sm_ckpt_is("\x80\x02}.", 4));
}

/* ---- the stream's own parts -------------------------------------------------------------------------------------- */

#define HEAD "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19."
#define SYSTEM "\x80\x02}X\x0d\0\0\0little_endian\x88s."
#define VERSION "\x80\x02M\xe9\x03."
#define OBJECT TENSOR("K\0K\6\x85K\1\x85")
#define KEYS "\x80\x02]X\1\0\0\0" "0a."
#define COUNT "\6\0\0\0\0\0\0\0"
#define VALUES "abcdefghijklmnopqrstuvwx"
#define S(TEXT, WHY) expect(TEXT, sizeof(TEXT) - 1, WHY)

TEST(ckpt_stream_lies)
{
    S(HEAD VERSION SYSTEM OBJECT KEYS COUNT VALUES, "");
    S(HEAD VERSION SYSTEM OBJECT KEYS COUNT VALUES "x", "bytes after the last storage");
    S(HEAD "\x80\x02M\xea\x03." SYSTEM OBJECT KEYS COUNT VALUES, "unknown version");
    S(HEAD VERSION "\x80\x02}." OBJECT KEYS COUNT VALUES, "unknown version");
    S(HEAD VERSION SYSTEM OBJECT "\x80\x02}." COUNT VALUES, "keys are no list");
    S(HEAD VERSION SYSTEM OBJECT "\x80\x02]K\0a." COUNT VALUES, "no tensor has");
    S(HEAD VERSION SYSTEM OBJECT "\x80\x02]X\1\0\0\0" "1a." COUNT VALUES, "no tensor has");
    S(HEAD VERSION SYSTEM OBJECT "\x80\x02](X\1\0\0\0" "0X\1\0\0\0" "0e." COUNT VALUES COUNT VALUES, "one twice");
    S(HEAD VERSION SYSTEM OBJECT "\x80\x02]." , "storage is not in the file");
    S(HEAD VERSION SYSTEM OBJECT KEYS, "ends before its last storage");
    S(HEAD VERSION SYSTEM OBJECT KEYS COUNT "abc", "ends in a storage");
    S(HEAD VERSION SYSTEM OBJECT KEYS "\7\0\0\0\0\0\0\0" VALUES "abcd", "not the size that its pickle states");
    S(HEAD VERSION SYSTEM OBJECT KEYS "\6\0\0\0\0\0\0\x40" VALUES, "not the size that its pickle states");
    S(HEAD VERSION SYSTEM "\x80\x02}." "\x80\x02].", "");
    S(HEAD VERSION SYSTEM, "truncated");
    S(HEAD, "truncated");
    /* A stream of another byte order: counts and values are turned. */
    static const char big[] = HEAD VERSION "\x80\x02}X\x0d\0\0\0little_endian\x89s." OBJECT KEYS "\0\0\0\0\0\0\0\6" VALUES;
    sm_err e = {0};
    sm_ckpt *f = sm_ckpt_open_mem(big, sizeof big - 1, "x", NULL, &e);
    CHECKF(f && sm_ckpt_count(f) == 1 && !memcmp(sm_ckpt_at(f, 0)->data, "dcbahgfelkjipomntsrqxwvu", 8), "%s", e.msg);
    sm_ckpt_close(f);
}
