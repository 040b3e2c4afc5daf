/* Learning of byte-pair merges (Sennrich et al. 2016, algorithm 1) over CLIP's words. The lines' words are counted once;
 * each merge then rewrites the words that hold the pair and corrects the counts of their neighbours. Words are scanned for
 * every merge, which is plain and quick enough for corpora of up to about a million distinct words.
 * Symbols are numbered as the ids of sm_bpe_from_merges: bytes, bytes at a word's end, then the merges. */
#include "text/bpe_impl.h"

#include <stdlib.h>
#include <string.h>

/* A distinct word: len symbols from sym[at] on. */
typedef struct word {
    size_t at;
    uint32_t len;
    uint64_t count;
} word;

typedef struct count_slot {
    uint64_t key; /* left << 32 | right, SM_BPE_FREE: free */
    uint64_t n;
} count_slot;

typedef struct trainer {
    sm_mem *mem;
    sm_ids sym;
    word *words;
    size_t n, cap;
    uint32_t *index; /* hash of words to numbers + 1, 0 free */
    size_t slots;
    count_slot *pair;
    size_t pairs, used; /* slots (a power of two), filled */
} trainer;

static uint64_t hash_word(const int32_t *s, size_t n)
{
    uint64_t h = n;
    for (size_t i = 0; i < n; i++)
        h = sm_bpe_mix(h ^ (uint32_t)s[i]) + i;
    return h;
}

/* ---- words ------------------------------------------------------------------------------------------------------- */

static bool grow_words(trainer *t)
{
    size_t cap = t->cap ? t->cap * 2 : 1024, slots = cap * 2;
    word *w = sm_realloc(t->mem, SM_MEM_DATA, t->words, cap * sizeof *w);
    if (!w)
        return false;
    t->words = w;
    uint32_t *index = sm_alloc0(t->mem, SM_MEM_DATA, slots * sizeof *index);
    if (!index)
        return false;
    sm_free(t->index);
    t->index = index;
    t->slots = slots;
    t->cap = cap;
    for (size_t i = 0; i < t->n; i++) {
        size_t h = hash_word(t->sym.id + w[i].at, w[i].len);
        while (index[h & (slots - 1)])
            h++;
        index[h & (slots - 1)] = (uint32_t)i + 1;
    }
    return true;
}

/* Counts the word whose symbols stand at the end of t->sym, from at on; takes them away again if it is known. */
static bool count_word(trainer *t, size_t at, uint64_t count)
{
    const int32_t *s = t->sym.id + at;
    uint32_t len = (uint32_t)(t->sym.n - at);
    if (t->n == t->cap && (t->n >= UINT32_MAX / 4 || !grow_words(t)))
        return false;
    size_t h = hash_word(s, len);
    for (; t->index[h & (t->slots - 1)]; h++) {
        word *w = &t->words[t->index[h & (t->slots - 1)] - 1];
        if (w->len == len && !memcmp(t->sym.id + w->at, s, len * sizeof *s)) {
            w->count += count;
            t->sym.n = at;
            return true;
        }
    }
    t->words[t->n++] = (word){at, len, count};
    t->index[h & (t->slots - 1)] = (uint32_t)t->n;
    return true;
}

static sumi_status count_line(trainer *t, const sm_bpe_line *l, sm_err *e)
{
    sm_cps c = {t->mem, NULL, 0, 0};
    sumi_status st = sm_bpe_clean(l->text, l->n, &c, e);
    size_t at = 0, to;
    sm_bpe_kind kind;
    bool ok = true;
    for (; st == SUMI_OK && ok && l->count && sm_bpe_next(&c, &at, &to, &kind); at = to) {
        if (kind != SM_BPE_WORD)
            continue;
        size_t first = t->sym.n;
        for (size_t i = at; ok && i < to; i++) {
            char u[4];
            int k = sm_utf8_put(c.cp[i], u);
            for (int j = 0; ok && j < k; j++)
                ok = sm_ids_add(&t->sym, (i + 1 == to && j + 1 == k ? 256 : 0) + sm_bpe_byte_order((uint8_t)u[j]));
        }
        ok = ok && count_word(t, first, l->count);
    }
    sm_cps_free(&c);
    return ok ? st : sm_fail(e, SUMI_E_MEMORY, "out of memory while counting words");
}

/* ---- pair counts ------------------------------------------------------------------------------------------------- */

static count_slot *pair_slot(const trainer *t, uint64_t key)
{
    uint64_t h = sm_bpe_mix(key);
    while (t->pair[h & (t->pairs - 1)].key != key && t->pair[h & (t->pairs - 1)].key != SM_BPE_FREE)
        h++;
    return &t->pair[h & (t->pairs - 1)];
}

static bool grow_pairs(trainer *t)
{
    trainer was = *t;
    t->pairs = was.pairs ? was.pairs * 2 : 4096;
    t->pair = sm_alloc(t->mem, SM_MEM_DATA, t->pairs * sizeof *t->pair);
    if (!t->pair) {
        t->pair = was.pair;
        t->pairs = was.pairs;
        return false;
    }
    t->used = 0;
    for (size_t i = 0; i < t->pairs; i++)
        t->pair[i] = (count_slot){SM_BPE_FREE, 0};
    for (size_t i = 0; i < was.pairs; i++)
        if (was.pair[i].key != SM_BPE_FREE && was.pair[i].n) { /* pairs that no longer occur are dropped here */
            *pair_slot(t, was.pair[i].key) = was.pair[i];
            t->used++;
        }
    sm_free(was.pair);
    return true;
}

static bool pair_add(trainer *t, int32_t left, int32_t right, uint64_t n)
{
    if (t->used * 2 >= t->pairs && !grow_pairs(t))
        return false;
    uint64_t key = (uint64_t)left << 32 | (uint32_t)right;
    count_slot *s = pair_slot(t, key);
    t->used += s->key == SM_BPE_FREE;
    s->key = key;
    s->n += n; /* n is two's complement for taking away */
    return true;
}

static bool word_pairs(trainer *t, const word *w, uint64_t n)
{
    for (uint32_t i = 0; i + 1 < w->len; i++)
        if (!pair_add(t, t->sym.id[w->at + i], t->sym.id[w->at + i + 1], n))
            return false;
    return true;
}

/* The commonest pair, the smallest key among equals; 0 if none occurs twice. */
static uint64_t best_pair(const trainer *t, uint64_t *key)
{
    uint64_t n = 1;
    for (size_t i = 0; i < t->pairs; i++) {
        const count_slot *s = &t->pair[i];
        if (s->key != SM_BPE_FREE && (s->n > n || (s->n == n && n > 1 && s->key < *key))) {
            n = s->n;
            *key = s->key;
        }
    }
    return n > 1 ? n : 0;
}

/* Rewrites every word that holds the pair, from left to right. */
static bool merge_pair(trainer *t, uint64_t key, int32_t made)
{
    int32_t left = (int32_t)(key >> 32), right = (int32_t)(uint32_t)key;
    for (size_t k = 0; k < t->n; k++) {
        word *w = &t->words[k];
        int32_t *s = t->sym.id + w->at;
        uint32_t i = 0, out = 0;
        while (i + 1 < w->len && !(s[i] == left && s[i + 1] == right))
            i++;
        if (i + 1 >= w->len)
            continue;
        if (!word_pairs(t, w, 0 - w->count))
            return false;
        for (out = i; i < w->len; out++) {
            bool hit = i + 1 < w->len && s[i] == left && s[i + 1] == right;
            s[out] = hit ? made : s[i];
            i += hit ? 2 : 1;
        }
        w->len = out;
        if (!word_pairs(t, w, w->count))
            return false;
    }
    return true;
}

/* ---- the text ---------------------------------------------------------------------------------------------------- */

typedef struct span {
    size_t at, len; /* of a symbol's spelling in the buffer */
} span;

static void spell_bytes(sm_buf *s, span *of)
{
    for (int end = 0; end < 2; end++)
        for (int byte = 0; byte < 256; byte++) {
            char u[4];
            int len = sm_utf8_put(sm_bpe_byte_char(byte), u);
            of[end * 256 + sm_bpe_byte_order(byte)] = (span){s->len, (size_t)len + (end ? 4 : 0)};
            sm_buf_add(s, u, (size_t)len);
            if (end)
                sm_buf_add(s, "</w>", 4);
        }
}

/* Learns up to `merges` merges and writes their lines. */
static bool learn(trainer *t, int merges, sm_buf *out)
{
    sm_buf s = {.mem = t->mem}; /* spellings */
    span *of = sm_alloc(t->mem, SM_MEM_DATA, (size_t)(512 + merges) * sizeof *of);
    bool ok = of != NULL;
    if (ok)
        spell_bytes(&s, of);
    ok = ok && !s.oom;
    for (size_t i = 0; ok && i < t->n; i++)
        ok = word_pairs(t, &t->words[i], t->words[i].count);
    sm_buf_add(out, "#version: 0.2\n", 14);
    uint64_t key = 0;
    for (int m = 0; ok && m < merges && best_pair(t, &key); m++) {
        span l = of[key >> 32], r = of[(uint32_t)key];
        sm_buf made = {.mem = t->mem};
        sm_buf_add(&made, s.data + l.at, l.len);
        sm_buf_add(&made, s.data + r.at, r.len);
        sm_buf_add(out, s.data + l.at, l.len);
        sm_buf_add(out, " ", 1);
        sm_buf_add(out, s.data + r.at, r.len);
        sm_buf_add(out, "\n", 1);
        of[512 + m] = (span){s.len, l.len + r.len};
        if (!made.oom)
            sm_buf_add(&s, made.data, made.len);
        ok = !made.oom && !s.oom && merge_pair(t, key, 512 + m);
        sm_buf_free(&made);
    }
    ok = ok && !s.oom && !out->oom;
    sm_buf_free(&s);
    sm_free(of);
    return ok;
}

sumi_status sm_bpe_train(sm_mem *mem, const sm_bpe_line *lines, size_t n, int vocab_size, sm_buf *out, sm_err *e)
{
    if (vocab_size < 514 || vocab_size > 1 << 22)
        return sm_fail(e, SUMI_E_ARG, "a byte-pair vocabulary has 514 to %d tokens, not %d", 1 << 22, vocab_size);
    trainer t = {.mem = mem, .sym = {.mem = mem}};
    sumi_status st = SUMI_OK;
    for (size_t i = 0; st == SUMI_OK && i < n; i++)
        st = count_line(&t, &lines[i], e);
    if (st == SUMI_OK && !learn(&t, vocab_size - 514, out))
        st = sm_fail(e, SUMI_E_MEMORY, "out of memory while learning %d merges", vocab_size - 514);
    sm_ids_free(&t.sym);
    sm_free(t.words);
    sm_free(t.index);
    sm_free(t.pair);
    return st;
}
