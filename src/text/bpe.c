/* Encoding and decoding with CLIP's byte-pair vocabulary (see bpe.h). A word is a doubly linked list of token ids; a heap
 * of (rank, position) gives the next merge, so a word of n bytes takes O(n log n) however long it is. The result is that
 * of OpenAI's loop: the lowest-ranked pair of the word, everywhere from left to right, then the next. */
#include "text/bpe_impl.h"
#include "text/clean.h"

#include <string.h>

#define START "<|startoftext|>"
#define END "<|endoftext|>"

bool sm_ids_add(sm_ids *ids, int32_t id)
{
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? ids->cap * 2 : 64;
        int32_t *p = sm_realloc(ids->mem, SM_MEM_MISC, ids->id, cap * sizeof *p);
        if (!p)
            return false;
        ids->id = p;
        ids->cap = cap;
    }
    ids->id[ids->n++] = id;
    return true;
}

void sm_ids_free(sm_ids *ids)
{
    sm_free(ids->id);
    ids->id = NULL;
    ids->n = ids->cap = 0;
}

/* ---- byte alphabet ----------------------------------------------------------------------------------------------- */

/* Printable Latin-1 spells itself and comes first: 0x21..0x7e, 0xa1..0xac, 0xae..0xff. The other 68 bytes are spelled
 * with U+0100 onward, in the order of their values. */
static int unprintable_rank(int byte)
{
    if (byte <= 0x20)
        return byte;
    if (byte >= 0x7f && byte <= 0xa0)
        return 0x21 + byte - 0x7f;
    return byte == 0xad ? 67 : -1;
}

uint32_t sm_bpe_byte_char(int byte)
{
    int r = unprintable_rank(byte);
    return r < 0 ? (uint32_t)byte : (uint32_t)(0x100 + r);
}

int sm_bpe_byte_order(int byte)
{
    int r = unprintable_rank(byte);
    if (r >= 0)
        return 188 + r;
    return byte < 0x7f ? byte - 0x21 : byte < 0xad ? 94 + byte - 0xa1 : 106 + byte - 0xae;
}

/* -1 where cp spells no byte. */
static int char_byte(uint32_t cp)
{
    if (cp < 0x100)
        return unprintable_rank((int)cp) < 0 ? (int)cp : -1;
    if (cp < 0x121)
        return (int)cp - 0x100;
    if (cp < 0x143)
        return (int)cp - 0x121 + 0x7f;
    return cp == 0x143 ? 0xad : -1;
}

/* ---- cleaning and splitting -------------------------------------------------------------------------------------- */

/* Texts of printable ASCII without an ampersand need no repair. */
static bool needs_repair(const sm_cps *c)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->cp[i] > 126 || c->cp[i] == '&' || (c->cp[i] < 32 && c->cp[i] != '\n' && c->cp[i] != '\t'))
            return true;
    return false;
}

/* Whether the capital sigma at position i ends a word: behind a cased letter and before none, as Unicode's Final_Sigma. */
static bool final_sigma(const sm_cps *c, size_t i)
{
    size_t a = i, b = i + 1;
    while (a && sm_uni_case(c->cp[a - 1]) == SM_CASE_IGNORABLE)
        a--;
    while (b < c->n && sm_uni_case(c->cp[b]) == SM_CASE_IGNORABLE)
        b++;
    return a && sm_uni_case(c->cp[a - 1]) == SM_CASE_CASED && (b == c->n || sm_uni_case(c->cp[b]) != SM_CASE_CASED);
}

/* Lower case, whitespace collapsed to single spaces and trimmed. */
static bool add_lower(const sm_cps *c, sm_cps *out)
{
    bool ok = true, gap = false;
    size_t first = out->n;
    for (size_t i = 0; ok && i < c->n; i++) {
        if (sm_uni_class(c->cp[i]) == SM_UNI_SPACE) {
            gap = out->n > first;
            continue;
        }
        uint32_t low[2];
        int k = sm_uni_lower(c->cp[i], low);
        if (c->cp[i] == 0x3a3 && final_sigma(c, i))
            low[0] = 0x3c2;
        ok = (!gap || sm_cps_add(out, ' ')) && sm_cps_add(out, low[0]) && (k < 2 || sm_cps_add(out, low[1]));
        gap = false;
    }
    return ok;
}

sumi_status sm_bpe_clean(const char *text, size_t n, sm_cps *out, sm_err *e)
{
    if (n >= INT32_MAX / 4)
        return sm_fail(e, SUMI_E_ARG, "the text has %zu bytes; at most %d are read", n, INT32_MAX / 4 - 1);
    sm_cps raw = {out->mem, NULL, 0, 0};
    sumi_status st = sm_uni_decode(text, n, &raw, e);
    if (st == SUMI_OK) {
        bool ok = !needs_repair(&raw) || (sm_text_repair(&raw) && sm_html_unescape(&raw) && sm_html_unescape(&raw));
        if (!ok || !add_lower(&raw, out))
            st = sm_fail(e, SUMI_E_MEMORY, "out of memory for a text of %zu bytes", n);
    }
    sm_cps_free(&raw);
    return st;
}

/* The expression ignores case, which after lower-casing concerns the long s alone. */
static bool starts_with(const sm_cps *c, size_t at, const char *lit, size_t *len)
{
    size_t n = strlen(lit);
    if (c->n - at < n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (c->cp[at + i] != (uint8_t)lit[i] && !(lit[i] == 's' && c->cp[at + i] == 0x17f))
            return false;
    *len = n;
    return true;
}

static bool has_long_s(const sm_cps *c, size_t at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (c->cp[at + i] == 0x17f)
            return true;
    return false;
}

/* Letters, numbers, spaces, others as the expression below sees them. U+0345, no letter itself, has a letter's case variant
 * (iota), so that neither [\p{L}] nor, ignoring case, [^\s\p{L}\p{N}] takes it: it parts words like a space. */
static sm_uni class_of(uint32_t cp) { return cp == 0x345 ? SM_UNI_SPACE : sm_uni_class(cp); }

/* <|startoftext|>|<|endoftext|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+ */
bool sm_bpe_next(const sm_cps *c, size_t *at, size_t *to, sm_bpe_kind *kind)
{
    static const char *const contraction[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    size_t i = *at, len;
    while (i < c->n && class_of(c->cp[i]) == SM_UNI_SPACE)
        i++;
    if (i == c->n)
        return false;
    *at = i;
    *kind = SM_BPE_WORD;
    if (c->cp[i] == '<' && (starts_with(c, i, START, &len) || starts_with(c, i, END, &len))) {
        if (!has_long_s(c, i, len))
            *kind = len == sizeof START - 1 ? SM_BPE_START : SM_BPE_END;
        *to = i + len;
        return true;
    }
    if (c->cp[i] == '\'') {
        for (size_t k = 0; k < SM_COUNT(contraction); k++)
            if (starts_with(c, i, contraction[k], &len)) {
                *to = i + len;
                return true;
            }
    }
    sm_uni first = class_of(c->cp[i++]);
    if (first != SM_UNI_NUMBER)
        while (i < c->n && class_of(c->cp[i]) == first)
            i++;
    *to = i;
    return true;
}

/* ---- merging ----------------------------------------------------------------------------------------------------- */

/* Work space of one call. A word has n symbols; at most n - 1 + 2 (n - 1) pairs ever enter the heap. */
typedef struct merger {
    sm_mem *mem;
    int32_t *sym, *prev, *next; /* [cap]; sym -1: merged away or unknown byte */
    int32_t *done;              /* [cap] positions merged in the current round */
    uint64_t *heap;             /* [3 cap] rank << 32 | position, smallest first */
    size_t cap, heap_n;
} merger;

static void merger_free(merger *m)
{
    sm_free(m->sym);
    sm_free(m->heap);
}

static bool merger_reserve(merger *m, size_t n)
{
    if (n <= m->cap)
        return true;
    size_t cap = SM_MAX(n, SM_MAX(m->cap * 2, 64));
    merger_free(m);
    m->cap = 0;
    m->sym = sm_alloc(m->mem, SM_MEM_MISC, cap * 4 * sizeof *m->sym);
    m->heap = sm_alloc(m->mem, SM_MEM_MISC, cap * 3 * sizeof *m->heap);
    if (!m->sym || !m->heap)
        return false;
    m->cap = cap;
    m->prev = m->sym + cap;
    m->next = m->prev + cap;
    m->done = m->next + cap;
    return true;
}

static void heap_push(merger *m, uint64_t v)
{
    size_t i = m->heap_n++;
    for (; i && m->heap[(i - 1) / 2] > v; i = (i - 1) / 2)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = v;
}

static uint64_t heap_pop(merger *m)
{
    uint64_t top = m->heap[0], v = m->heap[--m->heap_n];
    size_t i = 0;
    for (size_t k = 1; k < m->heap_n; k = 2 * i + 1) {
        if (k + 1 < m->heap_n && m->heap[k + 1] < m->heap[k])
            k++;
        if (m->heap[k] >= v)
            break;
        m->heap[i] = m->heap[k];
        i = k;
    }
    m->heap[i] = v;
    return top;
}

/* The merge of the symbol at position i with the one after it, NULL where there is none. */
static const sm_bpe_pair *pair_at(const sm_bpe *b, const merger *m, int32_t i)
{
    int32_t j = m->next[i];
    if (j < 0 || m->sym[i] < 0 || m->sym[j] < 0)
        return NULL;
    uint64_t key = (uint64_t)m->sym[i] << 32 | (uint32_t)m->sym[j];
    for (uint32_t h = (uint32_t)sm_bpe_mix(key);; h++) {
        const sm_bpe_pair *p = &b->pair[h & (b->pairs - 1)];
        if (p->key == key)
            return p;
        if (p->key == SM_BPE_FREE)
            return NULL;
    }
}

static void consider(const sm_bpe *b, merger *m, int32_t i)
{
    const sm_bpe_pair *p = i >= 0 ? pair_at(b, m, i) : NULL;
    if (p)
        heap_push(m, (uint64_t)p->rank << 32 | (uint32_t)i);
}

/* Merges every pair of the lowest rank from left to right. New pairs enter the heap after the round, as a pair of still
 * lower rank that the round makes must wait for its end. */
static void merge_round(const sm_bpe *b, merger *m)
{
    uint64_t rank = m->heap[0] >> 32;
    size_t done = 0;
    while (m->heap_n && m->heap[0] >> 32 == rank) {
        int32_t i = (int32_t)(uint32_t)heap_pop(m);
        const sm_bpe_pair *p = pair_at(b, m, i);
        if (!p || p->rank != rank) /* one of the two was merged since the entry was made */
            continue;
        int32_t j = m->next[i];
        m->sym[i] = p->made;
        m->sym[j] = -1;
        m->next[i] = m->next[j];
        if (m->next[j] >= 0)
            m->prev[m->next[j]] = i;
        m->done[done++] = i;
    }
    for (size_t k = 0; k < done; k++) {
        int32_t i = m->done[k];
        consider(b, m, i);
        if (m->prev[i] >= 0)
            consider(b, m, m->prev[i]);
    }
}

/* Appends the ids of one word, the n code points at cp. A byte that the vocabulary lacks gives the end token, CLIP's
 * "unknown". */
static bool encode_word(const sm_bpe *b, merger *m, const uint32_t *cp, size_t n, sm_ids *out)
{
    char u[4];
    int32_t len = 0;
    for (size_t i = 0; i < n; i++)
        len += sm_utf8_put(cp[i], u);
    if (!merger_reserve(m, (size_t)len))
        return false;
    len = 0;
    for (size_t i = 0; i < n; i++) {
        int k = sm_utf8_put(cp[i], u);
        for (int j = 0; j < k; j++)
            m->sym[len++] = b->base[i + 1 == n && j + 1 == k][(uint8_t)u[j]];
    }
    for (int32_t i = 0; i < len; i++) {
        m->prev[i] = i - 1;
        m->next[i] = i + 1 < len ? i + 1 : -1;
    }
    m->heap_n = 0;
    for (int32_t i = 0; i + 1 < len; i++)
        consider(b, m, i);
    while (m->heap_n)
        merge_round(b, m);
    for (int32_t i = 0; i >= 0; i = m->next[i])
        if (!sm_ids_add(out, m->sym[i] < 0 ? b->end : m->sym[i]))
            return false;
    return true;
}

sumi_status sm_bpe_encode(const sm_bpe *b, const char *text, size_t n, sm_ids *out, sm_err *e)
{
    sm_cps c = {out->mem, NULL, 0, 0};
    sumi_status st = sm_bpe_clean(text, n, &c, e);
    merger m = {.mem = out->mem};
    bool ok = true;
    size_t at = 0, to;
    sm_bpe_kind kind;
    for (; st == SUMI_OK && ok && sm_bpe_next(&c, &at, &to, &kind); at = to)
        ok = kind == SM_BPE_WORD ? encode_word(b, &m, c.cp + at, to - at, out)
                                 : sm_ids_add(out, kind == SM_BPE_START ? b->start : b->end);
    if (!ok)
        st = sm_fail(e, SUMI_E_MEMORY, "out of memory while tokenizing a text of %zu bytes", n);
    merger_free(&m);
    sm_cps_free(&c);
    return st;
}

sumi_status sm_bpe_row(const sm_bpe *b, const char *text, size_t n, int length, int32_t pad, int32_t *row, int *used, size_t *cut,
                       sm_err *e)
{
    if (length < 2)
        return sm_fail(e, SUMI_E_ARG, "a row of %d tokens has no room for the start and the end token", length);
    sm_ids ids = {.mem = b->mem};
    sumi_status st = sm_bpe_encode(b, text, n, &ids, e);
    if (st == SUMI_OK) {
        size_t fit = SM_MIN(ids.n, (size_t)length - 2);
        row[0] = b->start;
        if (fit)
            memcpy(row + 1, ids.id, fit * sizeof *row);
        row[fit + 1] = b->end;
        for (int i = (int)fit + 2; i < length; i++)
            row[i] = pad < 0 ? b->end : pad;
        if (used)
            *used = (int)fit + 2;
        if (cut)
            *cut = ids.n - fit;
    }
    sm_ids_free(&ids);
    return st;
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

static void decode_token(sm_buf *out, const char *s, size_t n)
{
    bool word_end = n >= 4 && !memcmp(s + n - 4, "</w>", 4);
    if (word_end)
        n -= 4;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = sm_utf8_get(s + i, n - i, &cp), byte = len ? char_byte(cp) : -1;
        char c = (char)byte;
        if (byte >= 0)
            sm_buf_add(out, &c, 1);
        else
            sm_buf_add(out, s + i, (size_t)SM_MAX(len, 1));
        i += (size_t)SM_MAX(len, 1);
    }
    if (word_end)
        sm_buf_add(out, " ", 1);
}

sumi_status sm_bpe_decode(const sm_bpe *b, const int32_t *ids, size_t n, sm_buf *out, sm_err *e)
{
    bool space = false; /* the text so far ends in a space of ours */
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= b->size || !b->tok[ids[i]].s)
            return sm_fail(e, SUMI_E_ARG, "token id %d is not in the vocabulary of %d tokens", (int)ids[i], (int)b->size);
        const sm_bpe_tok *t = &b->tok[ids[i]];
        bool special = ids[i] == b->start || ids[i] == b->end;
        if (special)
            sm_buf_add(out, t->s, t->n);
        else
            decode_token(out, t->s, t->n);
        space = !special && t->n >= 4 && !memcmp(t->s + t->n - 4, "</w>", 4);
    }
    if (out->oom)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory while decoding %zu tokens", n);
    if (space)
        out->data[--out->len] = 0;
    return SUMI_OK;
}

/* ---- vocabulary -------------------------------------------------------------------------------------------------- */

int32_t sm_bpe_size(const sm_bpe *b) { return b->size; }
int32_t sm_bpe_start(const sm_bpe *b) { return b->start; }
int32_t sm_bpe_end(const sm_bpe *b) { return b->end; }

const char *sm_bpe_token(const sm_bpe *b, int32_t id) { return id >= 0 && id < b->size ? b->tok[id].s : NULL; }

void sm_bpe_free(sm_bpe *b)
{
    if (!b)
        return;
    sm_arena_free(&b->arena);
    sm_free(b->tok);
    sm_free(b->slot);
    sm_free(b->pair);
    sm_free(b);
}
