/* Loading of byte-pair vocabularies: from a merge list alone (OpenAI's order of ids), or from transformers' vocab.json and
 * merges.txt. Everything read is taken as hostile: sizes are bounded and errors name the line or the byte. */
#include "text/bpe_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define MAX_TOKENS (1 << 22)
#define MAX_FILE ((size_t)256 << 20)
#define OPENAI_MERGES (49152 - 256 - 2)

/* ---- spellings to ids -------------------------------------------------------------------------------------------- */

static uint32_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a, then mixed */
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)s[i]) * 0x100000001b3u;
    return (uint32_t)sm_bpe_mix(h);
}

/* The slot that holds the spelling, or the free one where it belongs. */
static int32_t *slot_of(const sm_bpe *b, const char *s, size_t n)
{
    for (uint32_t h = hash_bytes(s, n);; h++) {
        int32_t *at = &b->slot[h & (b->slots - 1)];
        if (*at < 0 || (b->tok[*at].n == n && !memcmp(b->tok[*at].s, s, n)))
            return at;
    }
}

int32_t sm_bpe_find(const sm_bpe *b, const char *token, size_t n) { return *slot_of(b, token, n); }

static uint32_t pow2_above(size_t n)
{
    uint32_t p = 16;
    while (p < n)
        p *= 2;
    return p;
}

static sm_bpe *bpe_new(sm_mem *mem, int32_t size, size_t merges, sm_err *e)
{
    sm_bpe *b = sm_alloc0(mem, SM_MEM_DATA, sizeof *b);
    if (!b)
        goto fail;
    b->mem = mem;
    sm_arena_init(&b->arena, mem, SM_MEM_DATA);
    b->size = size;
    b->slots = pow2_above((size_t)size * 2);
    b->pairs = pow2_above(merges * 2);
    b->tok = sm_alloc0(mem, SM_MEM_DATA, (size_t)size * sizeof *b->tok);
    b->slot = sm_alloc(mem, SM_MEM_DATA, b->slots * sizeof *b->slot);
    b->pair = sm_alloc(mem, SM_MEM_DATA, b->pairs * sizeof *b->pair);
    if (!b->tok || !b->slot || !b->pair)
        goto fail;
    for (uint32_t i = 0; i < b->slots; i++)
        b->slot[i] = -1;
    for (uint32_t i = 0; i < b->pairs; i++)
        b->pair[i].key = SM_BPE_FREE;
    return b;
fail:
    sm_bpe_free(b);
    sm_fail(e, SUMI_E_MEMORY, "out of memory for a vocabulary of %d tokens", (int)size);
    return NULL;
}

/* Gives id the spelling s. A spelling met twice belongs to its last id, as in OpenAI's dictionary. */
static void set_token(sm_bpe *b, int32_t id, const char *s, size_t n)
{
    b->tok[id].s = s;
    b->tok[id].n = (uint32_t)n;
    *slot_of(b, s, n) = id;
}

static char *keep(sm_bpe *b, const char *s, size_t n, const char *t, size_t tn, sm_err *e)
{
    char *p = sm_arena_get(&b->arena, n + tn + 1);
    if (!p) {
        sm_fail(e, SUMI_E_MEMORY, "out of memory for a vocabulary of %d tokens", (int)b->size);
        return NULL;
    }
    memcpy(p, s, n);
    memcpy(p + n, t, tn);
    return p;
}

/* ---- merge lists ------------------------------------------------------------------------------------------------- */

typedef struct merge_line {
    const char *a, *b; /* left and right spelling, inside the text */
    uint32_t an, bn;
    size_t line; /* from 1 */
} merge_line;

/* Splits the text into at most limit merges; an empty line is passed over. *out is allocated. */
static sumi_status read_merges(sm_mem *mem, const char *s, size_t n, bool skip_first, size_t limit, merge_line **out,
                               size_t *count, sm_err *e)
{
    size_t lines = 1, line = 0, m = 0;
    for (size_t i = 0; i < n; i++)
        lines += s[i] == '\n';
    merge_line *l = sm_alloc(mem, SM_MEM_DATA, SM_MIN(lines, (size_t)MAX_TOKENS) * sizeof *l);
    if (!l)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for a list of %zu merges", lines);
    for (size_t i = 0; i < n && m < limit;) {
        const char *at = s + i, *nl = memchr(at, '\n', n - i);
        size_t len = nl ? (size_t)(nl - at) : n - i;
        i += len + 1;
        line++;
        if (len && at[len - 1] == '\r')
            len--;
        if (!len || (line == 1 && (skip_first || (len >= 8 && !memcmp(at, "#version", 8)))))
            continue;
        const char *gap = memchr(at, ' ', len);
        size_t an = gap ? (size_t)(gap - at) : 0, bn = gap ? len - an - 1 : 0;
        if (!an || !bn || memchr(gap + 1, ' ', bn) || memchr(at, 0, len) || !sm_utf8_valid(at, len) || m == MAX_TOKENS) {
            sm_free(l);
            return sm_fail(e, SUMI_E_FORMAT, "merges, line %zu: %s", line,
                           m == MAX_TOKENS ? "more merges than any tokenizer has" : "not two tokens with one space between them");
        }
        l[m++] = (merge_line){at, gap + 1, (uint32_t)an, (uint32_t)bn, line};
    }
    *out = l;
    *count = m;
    return SUMI_OK;
}

static void set_pair(sm_bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t made)
{
    uint64_t key = (uint64_t)left << 32 | (uint32_t)right;
    uint32_t h = (uint32_t)sm_bpe_mix(key);
    while (b->pair[h & (b->pairs - 1)].key != SM_BPE_FREE && b->pair[h & (b->pairs - 1)].key != key)
        h++;
    b->pair[h & (b->pairs - 1)] = (sm_bpe_pair){key, rank, made};
}

/* Fills the pair table from the merges, the base ids and the two marks from the vocabulary. */
static sumi_status link_vocab(sm_bpe *b, const merge_line *l, size_t n, sm_err *e)
{
    for (int byte = 0; byte < 256; byte++) {
        char s[12];
        int len = sm_utf8_put(sm_bpe_byte_char(byte), s);
        memcpy(s + len, "</w>", 4);
        b->base[0][byte] = sm_bpe_find(b, s, (size_t)len);
        b->base[1][byte] = sm_bpe_find(b, s, (size_t)len + 4);
    }
    b->start = sm_bpe_find(b, "<|startoftext|>", 15);
    b->end = sm_bpe_find(b, "<|endoftext|>", 13);
    if (b->start < 0 || b->end < 0)
        return sm_fail(e, SUMI_E_FORMAT, "the vocabulary lacks %s: it is not a CLIP tokenizer's",
                       b->start < 0 ? "<|startoftext|>" : "<|endoftext|>");
    sm_buf made = {.mem = b->mem};
    sumi_status st = SUMI_OK;
    for (size_t i = 0; st == SUMI_OK && i < n; i++) {
        int32_t left = sm_bpe_find(b, l[i].a, l[i].an), right = sm_bpe_find(b, l[i].b, l[i].bn);
        made.len = 0;
        sm_buf_add(&made, l[i].a, l[i].an);
        sm_buf_add(&made, l[i].b, l[i].bn);
        int32_t id = made.oom ? -1 : sm_bpe_find(b, made.data, made.len);
        bool c = left >= 0 && right < 0;
        if (made.oom)
            st = sm_fail(e, SUMI_E_MEMORY, "out of memory for a list of %zu merges", n);
        else if (left < 0 || right < 0 || id < 0)
            st = sm_fail(e, SUMI_E_FORMAT, "merges, line %zu: '%.*s%.*s' is not in the vocabulary", l[i].line,
                         c ? 0 : (int)SM_MIN(l[i].an, 100u), l[i].a, left < 0 ? 0 : (int)SM_MIN(l[i].bn, 100u), l[i].b);
        else
            set_pair(b, left, right, (uint32_t)i, id);
    }
    sm_buf_free(&made);
    return st;
}

/* Ids in OpenAI's order. */
static sumi_status fill_openai(sm_bpe *b, const merge_line *l, size_t n, sm_err *e)
{
    for (int end = 0; end < 2; end++)
        for (int byte = 0; byte < 256; byte++) {
            char s[4];
            size_t len = (size_t)sm_utf8_put(sm_bpe_byte_char(byte), s);
            char *p = keep(b, s, len, "</w>", end ? 4 : 0, e);
            if (!p)
                return SUMI_E_MEMORY;
            set_token(b, end * 256 + sm_bpe_byte_order(byte), p, strlen(p));
        }
    for (size_t i = 0; i < n; i++) {
        char *p = keep(b, l[i].a, l[i].an, l[i].b, l[i].bn, e);
        if (!p)
            return SUMI_E_MEMORY;
        set_token(b, (int32_t)(512 + i), p, l[i].an + l[i].bn);
    }
    set_token(b, (int32_t)(512 + n), "<|startoftext|>", 15);
    set_token(b, (int32_t)(513 + n), "<|endoftext|>", 13);
    return SUMI_OK;
}

static sm_bpe *from_merges(sm_mem *mem, const char *text, size_t n, bool skip_first, size_t limit, sm_err *e)
{
    merge_line *l;
    size_t count;
    if (read_merges(mem, text, n, skip_first, limit, &l, &count, e) != SUMI_OK)
        return NULL;
    sm_bpe *b = bpe_new(mem, (int32_t)(514 + count), count, e);
    if (b && (fill_openai(b, l, count, e) != SUMI_OK || link_vocab(b, l, count, e) != SUMI_OK)) {
        sm_bpe_free(b);
        b = NULL;
    }
    sm_free(l);
    return b;
}

sm_bpe *sm_bpe_from_merges(sm_mem *mem, const char *text, size_t n, sm_err *e)
{
    return from_merges(mem, text, n, false, SIZE_MAX, e);
}

sm_bpe *sm_bpe_from_openai(sm_mem *mem, const char *text, size_t n, sm_err *e)
{
    return from_merges(mem, text, n, true, OPENAI_MERGES, e);
}

/* ---- a merge list again ------------------------------------------------------------------------------------------ */

static int by_rank(const void *a, const void *b)
{
    const sm_bpe_pair *x = a, *y = b;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

static bool same_tokens(const sm_bpe *a, const sm_bpe *b)
{
    bool same = a->size == b->size;
    for (int32_t i = 0; same && i < a->size; i++)
        same = a->tok[i].s && b->tok[i].s && !strcmp(a->tok[i].s, b->tok[i].s);
    return same;
}

sumi_status sm_bpe_merges(const sm_bpe *b, sm_buf *out, sm_err *e)
{
    size_t n = 0, from = out->len;
    sm_bpe_pair *p = sm_alloc(b->mem, SM_MEM_DATA, b->pairs * sizeof *p);
    for (uint32_t i = 0; p && i < b->pairs; i++)
        if (b->pair[i].key != SM_BPE_FREE)
            p[n++] = b->pair[i];
    if (p)
        qsort(p, n, sizeof *p, by_rank);
    for (size_t i = 0; p && i < n; i++)
        sm_buf_fmt(out, "%s %s\n", b->tok[p[i].key >> 32].s, b->tok[(uint32_t)p[i].key].s);
    sm_free(p);
    if (!p || out->oom)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for a list of merges");
    sm_bpe *again = sm_bpe_from_merges(b->mem, out->data ? out->data + from : "", out->len - from, e);
    if (again && !same_tokens(b, again))
        sm_fail(e, SUMI_E_SUPPORT, "the tokenizer's ids are not in the order of its merges, which a list of merges cannot tell");
    sm_bpe_free(again);
    return e->code;
}

/* ---- vocab.json: one flat object of strings to whole numbers ------------------------------------------------------ */

typedef struct scan {
    const char *s;
    size_t n, i;
} scan;

static void skip_space(scan *p)
{
    while (p->i < p->n && strchr(" \t\r\n", p->s[p->i]) && p->s[p->i])
        p->i++;
}

static bool take(scan *p, char c)
{
    skip_space(p);
    if (p->i >= p->n || p->s[p->i] != c)
        return false;
    p->i++;
    return true;
}

static bool hex4(scan *p, uint32_t *v)
{
    *v = 0;
    for (int k = 0; k < 4; k++, p->i++) {
        if (p->i >= p->n)
            return false;
        char c = p->s[p->i];
        int d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (d < 0)
            return false;
        *v = *v << 4 | (uint32_t)d;
    }
    return true;
}

/* After a backslash. U+0000 is refused: no byte is spelled with it, and tokens are C strings. */
static bool take_escape(scan *p, sm_buf *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (p->i >= p->n)
        return false;
    char c = p->s[p->i++];
    const char *at = c ? strchr(from, c) : NULL;
    if (at) {
        sm_buf_add(out, &to[at - from], 1);
        return true;
    }
    uint32_t v, low;
    if (c != 'u' || !hex4(p, &v) || !v || (v >= 0xdc00 && v < 0xe000))
        return false;
    if (v >= 0xd800 && v < 0xdc00) {
        if (p->n - p->i < 2 || p->s[p->i] != '\\' || p->s[p->i + 1] != 'u')
            return false;
        p->i += 2;
        if (!hex4(p, &low) || low < 0xdc00 || low > 0xdfff)
            return false;
        v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
    }
    char u[4];
    sm_buf_add(out, u, (size_t)sm_utf8_put(v, u));
    return true;
}

static bool take_string(scan *p, sm_buf *out)
{
    out->len = 0;
    if (!take(p, '"'))
        return false;
    while (p->i < p->n && p->s[p->i] != '"') {
        if ((uint8_t)p->s[p->i] < 0x20)
            return false;
        if (p->s[p->i] == '\\') {
            p->i++;
            if (!take_escape(p, out))
                return false;
        } else {
            sm_buf_add(out, &p->s[p->i++], 1);
        }
    }
    return take(p, '"') && out->len > 0;
}

static bool take_id(scan *p, int32_t *id)
{
    skip_space(p);
    size_t first = p->i;
    int64_t v = 0;
    while (p->i < p->n && p->s[p->i] >= '0' && p->s[p->i] <= '9' && v < MAX_TOKENS)
        v = v * 10 + (p->s[p->i++] - '0');
    *id = (int32_t)v;
    return p->i > first && v < MAX_TOKENS;
}

/* One walk over the object: b NULL finds the largest id, otherwise the tokens are set. */
static sumi_status walk_vocab(const char *s, size_t n, sm_bpe *b, int32_t *last, sm_mem *mem, sm_err *e)
{
    scan p = {s, n, 0};
    sm_buf t = {.mem = mem};
    sumi_status st = SUMI_OK;
    bool more = take(&p, '{');
    if (!more)
        st = sm_fail(e, SUMI_E_FORMAT, "vocab.json: not an object of tokens and ids");
    for (; st == SUMI_OK && more; more = take(&p, ',')) {
        int32_t id;
        if (!take_string(&p, &t) || !take(&p, ':') || !take_id(&p, &id) || !sm_utf8_valid(t.data, t.len) || t.oom) {
            st = t.oom ? sm_fail(e, SUMI_E_MEMORY, "out of memory for vocab.json")
                       : sm_fail(e, SUMI_E_FORMAT, "vocab.json, byte %zu: expected \"token\": id, with an id below %d", p.i,
                                 MAX_TOKENS);
        } else if (!b) {
            *last = SM_MAX(*last, id);
        } else if (b->tok[id].s) {
            st = sm_fail(e, SUMI_E_FORMAT, "vocab.json, byte %zu: id %d is given to two tokens", p.i, (int)id);
        } else {
            char *kept = keep(b, t.data, t.len, "", 0, e);
            if (kept)
                set_token(b, id, kept, t.len);
            else
                st = SUMI_E_MEMORY;
        }
    }
    if (st == SUMI_OK && !take(&p, '}'))
        st = sm_fail(e, SUMI_E_FORMAT, "vocab.json, byte %zu: expected ',' or '}'", p.i);
    sm_buf_free(&t);
    return st;
}

sm_bpe *sm_bpe_from_vocab(sm_mem *mem, const char *vocab, size_t vocab_n, const char *merges, size_t merges_n, sm_err *e)
{
    merge_line *l;
    size_t count;
    int32_t last = -1;
    if (walk_vocab(vocab, vocab_n, NULL, &last, mem, e) != SUMI_OK ||
        read_merges(mem, merges, merges_n, false, SIZE_MAX, &l, &count, e) != SUMI_OK)
        return NULL;
    sm_bpe *b = bpe_new(mem, last + 1, count, e);
    if (b && (walk_vocab(vocab, vocab_n, b, &last, mem, e) != SUMI_OK || link_vocab(b, l, count, e) != SUMI_OK)) {
        sm_bpe_free(b);
        b = NULL;
    }
    sm_free(l);
    return b;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

/* NULL on failure. Never waits: a pipe would, for somebody at its other end, when it is opened or when it is read. */
static gzFile open_file(const char *path, sm_err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    bool file = fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode);
    gzFile f = file ? gzdopen(fd, "rb") : NULL;
    if (f)
        return f;
    if (fd < 0)
        sm_fail(e, SUMI_E_FILE, "cannot open %s: %s", path, strerror(errno));
    else if (!file)
        sm_fail(e, SUMI_E_FILE, "%s: not a regular file", path);
    else
        sm_fail(e, SUMI_E_MEMORY, "%s: out of memory", path);
    if (fd >= 0)
        close(fd);
    return NULL;
}

/* The whole file, unpacked if it is gzipped. */
static sumi_status read_all(const char *path, sm_buf *out, sm_err *e)
{
    gzFile f = open_file(path, e);
    if (!f)
        return e ? e->code : SUMI_E_FILE;
    char part[16384];
    int got = 0;
    while (out->len <= MAX_FILE && !out->oom && (got = gzread(f, part, sizeof part)) > 0)
        sm_buf_add(out, part, (size_t)got);
    int close = gzclose(f);
    if (out->oom)
        return sm_fail(e, SUMI_E_MEMORY, "%s: out of memory", path);
    if (got < 0 || close != Z_OK)
        return sm_fail(e, SUMI_E_FILE, "%s: cannot be read, or is a damaged gzip file", path);
    if (out->len > MAX_FILE)
        return sm_fail(e, SUMI_E_FORMAT, "%s: larger than any vocabulary", path);
    return SUMI_OK;
}

/* Puts the file's name in front of a message that lacks it. */
static void name_file(sm_err *e, const char *path)
{
    if (!e)
        return;
    sm_err was = *e;
    sm_err_clear(e);
    sm_fail(e, was.code, "%s: %.400s", path, was.msg);
}

sm_bpe *sm_bpe_load(sm_mem *mem, const char *vocab_json, const char *merges_txt, sm_err *e)
{
    sm_buf v = {.mem = mem}, m = {.mem = mem};
    sm_bpe *b = NULL;
    if (read_all(vocab_json, &v, e) == SUMI_OK && read_all(merges_txt, &m, e) == SUMI_OK) {
        b = sm_bpe_from_vocab(mem, v.data ? v.data : "", v.len, m.data ? m.data : "", m.len, e);
        if (!b)
            name_file(e, e && strncmp(e->msg, "vocab.json", 10) ? merges_txt : vocab_json);
    }
    sm_buf_free(&v);
    sm_buf_free(&m);
    return b;
}

sm_bpe *sm_bpe_load_openai(sm_mem *mem, const char *path, sm_err *e)
{
    sm_buf m = {.mem = mem};
    sm_bpe *b = NULL;
    if (read_all(path, &m, e) == SUMI_OK) {
        b = sm_bpe_from_openai(mem, m.data ? m.data : "", m.len, e);
        if (!b)
            name_file(e, path);
    }
    sm_buf_free(&m);
    return b;
}
