/* Tiny checkpoints of every family (see families.h). */
#include "families.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/file.h"
#include "io/safetensors.h"
#include "test.h"

enum { MOST = 800 };

typedef struct maker {
    sm_arena a;
    sm_err err;
    char *text;                /* the fixture's lines */
    char dir[256];             /* of the checkpoint */
    sm_st_item stored[MOST], part[MOST];
    size_t nstored, nparts;
    char component[32];        /* of part[] */
} maker;

static bool open_lines(maker *m)
{
    enum { ROOM = 4 << 20 };
    gzFile f = gzopen(test_fixture("families.txt.gz"), "rb");
    m->text = sm_arena_get(&m->a, ROOM + 1);
    int n = f && m->text ? gzread(f, m->text, ROOM) : -1;
    CHECKF(n > 0 && n < ROOM, "families.txt.gz cannot be read");
    if (f)
        gzclose(f);
    return n > 0;
}

/* The next field of a line, cut off at its blank. */
static char *field(char **at)
{
    char *s = *at, *end = strchr(s, ' ');
    *at = end ? end + 1 : s + strlen(s);
    if (end)
        *end = 0;
    return s;
}

static size_t read_dims(const char *s, sm_tensor *t)
{
    size_t n = 1;
    for (t->rank = 0; *s && *s != '-' && t->rank < SM_MAX_DIMS; s += *s == ',') {
        t->dims[t->rank] = strtol(s, (char **)(uintptr_t)&s, 10);
        n *= (size_t)t->dims[t->rank++];
    }
    return n;
}

/* stored NAME D,D,... LO HI */
static void read_stored(maker *m, char *line)
{
    sm_st_item *x = &m->stored[m->nstored++];
    *x = (sm_st_item){.name = field(&line), .t = {.dtype = SM_F32}};
    size_t n = read_dims(field(&line), &x->t);
    float lo = strtof(field(&line), NULL), hi = strtof(field(&line), NULL);
    x->t.data = sm_arena_get(&m->a, n * sizeof(float));
    if (x->t.data)
        test_fill(x->t.data, (int64_t)n, crc32(0, (const Bytef *)x->name, (uInt)strlen(x->name)), lo, hi);
}

static void transpose(const float *x, const int64_t *to, float *out)
{
    for (int64_t i = 0; i < to[0]; i++)
        for (int64_t k = 0; k < to[1]; k++)
            out[i * to[1] + k] = x[k * to[0] + i];
}

/* Writes what was gathered of a component into its folder. */
static void flush_part(maker *m)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s/%s.safetensors", m->dir, m->component,
             m->component[0] == 't' ? "model" : "diffusion_pytorch_model");
    if (m->nparts)
        sm_st_write(path, m->nparts, m->part, 0, NULL, NULL, &m->err);
    m->nparts = 0;
}

/* canonical COMPONENT NAME D,D,... HOW STORED */
static void read_canonical(maker *m, char *line)
{
    char *component = field(&line);
    if (strcmp(m->component, component)) {
        flush_part(m);
        snprintf(m->component, sizeof m->component, "%s", component);
    }
    sm_st_item *x = &m->part[m->nparts++];
    *x = (sm_st_item){.name = field(&line), .t = {.dtype = SM_F32}};
    size_t n = read_dims(field(&line), &x->t), i = 0;
    const char *how = field(&line), *stored = field(&line);
    while (i < m->nstored && strcmp(m->stored[i].name, stored))
        i++;
    CHECKF(i < m->nstored, "families.txt.gz: no stored tensor %s", stored);
    float *from = i < m->nstored ? m->stored[i].t.data : NULL;
    x->t.data = from;
    if (from && !strncmp(how, "third", 5))
        x->t.data = from + (size_t)(how[5] - '0') * n;
    if (from && !strcmp(how, "transposed") && (x->t.data = sm_arena_get(&m->a, n * sizeof(float))))
        transpose(from, x->t.dims, x->t.data);
}

/* text PATH CONTENT */
static void write_text(maker *m, const char *dir, char *line)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, field(&line));
    for (char *p = line; *p; p++)
        *p = *p == '\t' ? '\n' : *p;
    char *slash = strrchr(path, '/');
    *slash = 0;
    mkdir(path, 0755);
    *slash = '/';
    sm_file_write(path, line, strlen(line), &m->err);
}

/* Goes through the lines of one family; name NULL: those before the first. */
static void read_lines(maker *m, const char *name, family_form form)
{
    bool here = !name;
    for (char *line = m->text, *next; *line; line = next) {
        next = strchr(line, '\n');
        *next++ = 0;
        const char *kind = field(&line);
        if (!strcmp(kind, "family"))
            here = name && !strcmp(field(&line), name);
        else if (here && !strcmp(kind, "stored") && m->nstored < MOST)
            read_stored(m, line);
        else if (here && !strcmp(kind, "canonical") && form == FAMILY_FOLDER && m->nparts < MOST)
            read_canonical(m, line);
        else if (here && !strcmp(kind, "text") && form == FAMILY_FOLDER)
            write_text(m, m->dir, line);
    }
}

static void write_file(maker *m, family_form form)
{
    size_t n = 0;
    for (size_t i = 0; i < m->nstored; i++)
        if (form == FAMILY_FILE || strstr(m->stored[i].name, "diffusion_model."))
            m->part[n++] = m->stored[i];
    CHECKF(n > 20, "families.txt.gz: %zu tensors", n);
    if (n)
        sm_st_write(m->dir, n, m->part, 0, NULL, NULL, &m->err);
}

static const char *const folders[] = {"", "/unet", "/vae", "/text_encoder", "/text_encoder_2"};

/* Texts come after the tensors of a folder: its folders are made first. */
static void make_folders(const char *dir)
{
    char path[300];
    for (size_t i = 0; i < SM_COUNT(folders); i++) {
        snprintf(path, sizeof path, "%s%s", dir, folders[i]);
        mkdir(path, 0755);
    }
}

/* Those that the family has no use for: a folder with something in it stays. */
static void drop_empty(const char *dir)
{
    char path[300];
    for (size_t i = 1; i < SM_COUNT(folders); i++) {
        snprintf(path, sizeof path, "%s%s", dir, folders[i]);
        rmdir(path);
    }
}

bool family_write(const char *name, family_form form, const char *path)
{
    maker *m = calloc(1, sizeof *m);
    if (!m)
        return false;
    sm_arena_init(&m->a, NULL, SM_MEM_MISC);
    snprintf(m->dir, sizeof m->dir, "%s", path);
    if (form == FAMILY_FOLDER)
        make_folders(path);
    if (open_lines(m))
        read_lines(m, name, form);
    if (form == FAMILY_FOLDER)
        flush_part(m);
    else
        write_file(m, form);
    if (form == FAMILY_FOLDER)
        drop_empty(path);
    CHECKF(!m->err.code, "%s", m->err.msg);
    bool ok = !m->err.code;
    sm_arena_free(&m->a);
    free(m);
    return ok;
}

const char *family_model(const char *name, family_form form)
{
    static const char *const endings[FAMILY_FORMS] = {"", ".safetensors", "-unet.safetensors"};
    static struct { char name[32], path[FAMILY_FORMS][256]; } made[16];
    int i = 0;
    while (i < 15 && made[i].name[0] && strcmp(made[i].name, name))
        i++;
    snprintf(made[i].name, sizeof made[i].name, "%s", name);
    char *path = made[i].path[form];
    if (!path[0]) {
        char file[64];
        snprintf(file, sizeof file, "family-%s%s", name, endings[form]);
        snprintf(path, 256, "%s", test_tmp(file));
        if (!family_write(name, form, path))
            path[0] = 0;
    }
    return path;
}

const char *family_tokenizer(void)
{
    static char path[280];
    if (!path[0]) {
        const char *dir = test_tmp("family-text");
        snprintf(path, sizeof path, "%s/tokenizer", dir);
        if (!family_write(NULL, FAMILY_FOLDER, dir))
            path[0] = 0;
    }
    return path;
}
