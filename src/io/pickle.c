/* The restricted unpickler (see pickle.h): the stack machine of Python's pickle, without its power to import and call. Calls
 * of the few known functions become values here; what they would compute is left to the reader of the file. No recursion. */
#include "io/pickle.h"

#include <stdio.h>
#include <string.h>

typedef struct vm {
    sm_pickle *p;
    const uint8_t *d;
    size_t n, at, op;           /* op: where the present opcode is */
    const char *label;
    sm_pk_value **stack, **memo;
    size_t depth, cap, nmemo, memoed; /* memoed: entries set, where MEMOIZE goes on */
    size_t *marks, nmarks, capmarks;
    sm_err *e;
} vm;

static SM_PRINTF(2, 3) bool bad(vm *v, const char *fmt, ...)
{
    char why[400];
    va_list a;
    va_start(a, fmt);
    vsnprintf(why, sizeof why, fmt, a);
    va_end(a);
    sm_fail(v->e, SUMI_E_FORMAT, "%s: pickle byte %zu: %s", v->label, v->op, why);
    return false;
}

static bool no_memory(vm *v)
{
    sm_fail(v->e, SUMI_E_MEMORY, "%s: out of memory reading its pickle", v->label);
    return false;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static const uint8_t *take(vm *v, uint64_t n)
{
    const uint8_t *p = v->d + v->at;
    if (n > v->n - v->at) {
        bad(v, "ends in the middle; is the file truncated?");
        return NULL;
    }
    v->at += (size_t)n;
    return p;
}

/* A whole number of k bytes, least significant first. */
static bool number(vm *v, int k, uint64_t *x)
{
    const uint8_t *p = take(v, (uint64_t)k);
    *x = 0;
    for (int i = k - 1; p && i >= 0; i--)
        *x = *x << 8 | p[i];
    return p;
}

/* Up to the end of the line, which is passed. */
static bool line(vm *v, const char **s, size_t *n)
{
    const uint8_t *p = v->d + v->at, *end = memchr(p, '\n', v->n - v->at);
    *s = NULL;
    *n = 0;
    if (!end)
        return bad(v, "ends in the middle of a line; is the file truncated?");
    *s = (const char *)p;
    *n = (size_t)(end - p);
    v->at += *n + 1;
    return true;
}

/* ---- values and the stack ---------------------------------------------------------------------------------------- */

static sm_pk_value *make(vm *v, sm_pk_kind kind)
{
    if (v->p->values == SM_PK_MAX_VALUES) {
        bad(v, "more than %d values", SM_PK_MAX_VALUES);
        return NULL;
    }
    sm_pk_value *x = sm_arena_get(&v->p->arena, sizeof *x);
    if (!x) {
        no_memory(v);
        return NULL;
    }
    v->p->values++;
    x->kind = kind;
    return x;
}

/* x may be NULL: the failure of what made it. */
static bool push(vm *v, sm_pk_value *x)
{
    if (!x)
        return false;
    if (v->depth == SM_PK_MAX_VALUES)
        return bad(v, "a stack of more than %d values", SM_PK_MAX_VALUES);
    if (v->depth == v->cap) {
        size_t cap = v->cap ? v->cap * 2 : 256;
        sm_pk_value **s = sm_realloc(v->p->mem, SM_MEM_MISC, v->stack, cap * sizeof *s);
        if (!s)
            return no_memory(v);
        v->stack = s;
        v->cap = cap;
    }
    v->stack[v->depth++] = x;
    return true;
}

static size_t floor_of(const vm *v) { return v->nmarks ? v->marks[v->nmarks - 1] : 0; }

static sm_pk_value *pop(vm *v)
{
    if (v->depth > floor_of(v))
        return v->stack[--v->depth];
    bad(v, "takes a value from an empty stack");
    return NULL;
}

static sm_pk_value *top(vm *v)
{
    if (v->depth > floor_of(v))
        return v->stack[v->depth - 1];
    bad(v, "needs a value on the stack");
    return NULL;
}

static bool mark(vm *v)
{
    if (v->nmarks == SM_PK_MAX_VALUES)
        return bad(v, "more than %d marks", SM_PK_MAX_VALUES);
    if (v->nmarks == v->capmarks) {
        size_t cap = v->capmarks ? v->capmarks * 2 : 64, *m = sm_realloc(v->p->mem, SM_MEM_MISC, v->marks, cap * sizeof *m);
        if (!m)
            return no_memory(v);
        v->marks = m;
        v->capmarks = cap;
    }
    v->marks[v->nmarks++] = v->depth;
    return true;
}

/* Takes off everything above the last mark; *items stays good until the next push. */
static bool pop_mark(vm *v, sm_pk_value ***items, size_t *n)
{
    *items = NULL;
    *n = 0;
    if (!v->nmarks)
        return bad(v, "has no mark to go back to");
    size_t from = v->marks[--v->nmarks];
    *items = v->stack ? v->stack + from : NULL; /* nothing was pushed yet */
    *n = v->depth - from;
    v->depth = from;
    return true;
}

static bool push_int(vm *v, sm_pk_kind kind, int64_t i)
{
    sm_pk_value *x = make(v, kind);
    if (x)
        x->u.i = i;
    return push(v, x);
}

static bool push_text(vm *v, sm_pk_kind kind, int length_bytes)
{
    uint64_t n;
    const uint8_t *s = number(v, length_bytes, &n) ? take(v, n) : NULL;
    sm_pk_value *x = s ? make(v, kind) : NULL;
    if (x && kind == SM_PK_STR) {
        x->u.s = (const char *)s;
        x->n = (size_t)n;
    }
    return push(v, x);
}

/* Little-endian two's complement of n bytes. */
static bool push_long(vm *v, int length_bytes)
{
    uint64_t n, x = 0;
    const uint8_t *p = number(v, length_bytes, &n) ? take(v, n) : NULL;
    if (!p)
        return false;
    if (n > 8)
        return push(v, make(v, SM_PK_OTHER));
    for (uint64_t i = n; i-- > 0;)
        x = x << 8 | p[i];
    if (n && n < 8 && p[n - 1] & 0x80)
        x |= ~(uint64_t)0 << (8 * n);
    return push_int(v, SM_PK_INT, (int64_t)x);
}

/* Protocol 1: decimal digits, an L after a long, 00 and 01 for false and true. */
static bool push_decimal(vm *v, bool is_long)
{
    const char *s;
    size_t n;
    if (!line(v, &s, &n))
        return false;
    if (!is_long && n == 2 && s[0] == '0' && (s[1] == '0' || s[1] == '1'))
        return push_int(v, SM_PK_BOOL, s[1] == '1');
    n -= is_long && n && s[n - 1] == 'L';
    size_t i = n && s[0] == '-';
    uint64_t x = 0;
    bool large = false, good = i < n;
    for (; i < n; i++) {
        good &= s[i] >= '0' && s[i] <= '9';
        large |= __builtin_mul_overflow(x, (uint64_t)10, &x) || __builtin_add_overflow(x, (uint64_t)(s[i] - '0'), &x);
    }
    if (!good)
        return bad(v, "has a whole number that is none");
    return large || x > INT64_MAX ? push(v, make(v, SM_PK_OTHER))
        : push_int(v, SM_PK_INT, s[0] == '-' ? -(int64_t)x : (int64_t)x);
}

static bool push_double(vm *v)
{
    const uint8_t *p = take(v, 8);
    uint64_t bits = 0;
    for (int i = 0; p && i < 8; i++) /* most significant first */
        bits = bits << 8 | p[i];
    sm_pk_value *x = p ? make(v, SM_PK_FLOAT) : NULL;
    if (x)
        memcpy(&x->u.f, &bits, 8);
    return push(v, x);
}

/* ---- containers -------------------------------------------------------------------------------------------------- */

static bool append(vm *v, sm_pk_value *to, sm_pk_value *const *items, size_t n)
{
    if (n > SM_PK_MAX_ITEMS - v->p->items)
        return bad(v, "more than %d items of containers", SM_PK_MAX_ITEMS);
    v->p->items += n;
    if (to->n + n > to->cap) {
        size_t cap = SM_MAX(to->n + n, to->cap * 2);
        sm_pk_value **more = sm_arena_get(&v->p->arena, cap * sizeof *more);
        if (!more)
            return no_memory(v);
        if (to->n)
            memcpy(more, to->u.item, to->n * sizeof *more);
        to->u.item = more;
        to->cap = cap;
    }
    if (n)
        memcpy(to->u.item + to->n, items, n * sizeof *items);
    to->n += n;
    return true;
}

static sm_pk_value *container(vm *v, sm_pk_kind kind, bool fixed, sm_pk_value *const *items, size_t n)
{
    sm_pk_value *x = make(v, kind);
    if (!x || !append(v, x, items, n))
        return NULL;
    x->fixed = fixed;
    return x;
}

/* The n topmost values become a tuple. */
static bool small_tuple(vm *v, size_t n)
{
    if (v->depth - floor_of(v) < n)
        return bad(v, "makes a tuple of more values than there are");
    v->depth -= n;
    return push(v, container(v, SM_PK_LIST, true, v->stack + v->depth, n));
}

static bool marked(vm *v, sm_pk_kind kind, bool fixed)
{
    sm_pk_value **items;
    size_t n;
    if (!pop_mark(v, &items, &n))
        return false;
    if (kind == SM_PK_DICT && n % 2)
        return bad(v, "a key without a value");
    return push(v, container(v, kind, fixed, items, n));
}

/* Adds items to the container on top of the stack: a dict when kind says so, else a list or set. */
static bool extend(vm *v, sm_pk_kind kind, sm_pk_value *const *items, size_t n)
{
    sm_pk_value *to = top(v);
    if (!to)
        return false;
    if (to->kind != kind || to->fixed)
        return bad(v, kind == SM_PK_DICT ? "sets an item of what is no dict" : "adds to what is no list");
    if (kind == SM_PK_DICT && n % 2)
        return bad(v, "a key without a value");
    return append(v, to, items, n);
}

static bool extend_marked(vm *v, sm_pk_kind kind)
{
    sm_pk_value **items;
    size_t n;
    return pop_mark(v, &items, &n) && extend(v, kind, items, n);
}

/* One item, or key and value. */
static bool extend_top(vm *v, sm_pk_kind kind)
{
    size_t n = kind == SM_PK_DICT ? 2 : 1;
    if (v->depth - floor_of(v) < n + 1)
        return bad(v, "takes a value from an empty stack");
    v->depth -= n;
    return extend(v, kind, v->stack + v->depth, n);
}

/* ---- memo -------------------------------------------------------------------------------------------------------- */

static bool put(vm *v, uint64_t i)
{
    sm_pk_value *x = top(v);
    if (!x)
        return false;
    /* Picklers count up from 0 or 1, so a memo never has more places than the pickle has bytes. */
    if (i >= SM_PK_MAX_VALUES || i > v->n)
        return bad(v, "memo %llu is out of any order", (unsigned long long)i);
    if (i >= v->nmemo) {
        size_t want = SM_MAX((size_t)i + 1, v->nmemo ? v->nmemo * 2 : 64);
        sm_pk_value **m = sm_realloc(v->p->mem, SM_MEM_MISC, v->memo, want * sizeof *m);
        if (!m)
            return no_memory(v);
        memset(m + v->nmemo, 0, (want - v->nmemo) * sizeof *m);
        v->memo = m;
        v->nmemo = want;
    }
    v->memoed += !v->memo[i];
    v->memo[i] = x;
    return true;
}

static bool get(vm *v, uint64_t i)
{
    if (i >= v->nmemo || !v->memo[i])
        return bad(v, "memo %llu was never set", (unsigned long long)i);
    return push(v, v->memo[i]);
}

/* ---- globals and calls ------------------------------------------------------------------------------------------- */

/* A name of the file in a message: at most 100 bytes, what is not printable shown as '?'. */
static const char *shown(char out[104], const char *s, size_t n)
{
    size_t k = SM_MIN(n, (size_t)100);
    for (size_t i = 0; i < k; i++)
        out[i] = s[i] > ' ' && s[i] < 127 ? s[i] : '?';
    out[k] = 0;
    return out;
}

static bool push_global(vm *v, const char *module, size_t nmodule, const char *name, size_t nname)
{
    char a[104], b[104];
    const sm_pk_global *g = sm_pk_global_find(module, nmodule, name, nname);
    if (!g)
        return bad(v, "names %s.%s, which is refused: a checkpoint may hold tensors and plain containers only, anything else "
                   "could run code",
                   shown(a, module, nmodule), shown(b, name, nname));
    sm_pk_value *x = make(v, SM_PK_GLOBAL);
    if (x)
        x->u.global = g;
    return push(v, x);
}

static bool global_lines(vm *v)
{
    const char *module, *name;
    size_t nmodule, nname;
    return line(v, &module, &nmodule) && line(v, &name, &nname) && push_global(v, module, nmodule, name, nname);
}

static bool global_stack(vm *v)
{
    sm_pk_value *name = pop(v), *module = name ? pop(v) : NULL;
    if (!module)
        return false;
    if (name->kind != SM_PK_STR || module->kind != SM_PK_STR)
        return bad(v, "names a global by what is no text");
    return push_global(v, module->u.s, module->n, name->u.s, name->n);
}

static const sm_pk_value *arg(const sm_pk_value *args, size_t i, sm_pk_kind kind)
{
    return i < args->n && args->u.item[i]->kind == kind ? args->u.item[i] : NULL;
}

/* Whole numbers, none negative, at most SM_PK_MAX_DIMS; -1 when args has something else there. */
static int sizes(const sm_pk_value *args, size_t i, int64_t out[SM_PK_MAX_DIMS])
{
    const sm_pk_value *t = arg(args, i, SM_PK_LIST);
    if (!t || t->n > SM_PK_MAX_DIMS)
        return -1;
    for (size_t k = 0; k < t->n; k++) {
        if (t->u.item[k]->kind != SM_PK_INT || t->u.item[k]->u.i < 0)
            return -1;
        out[k] = t->u.item[k]->u.i;
    }
    return (int)t->n;
}

/* (storage, offset, sizes, strides, ...): v2 goes on with requires_grad and hooks, v3 with those and the dtype. */
static sm_pk_value *rebuild_tensor(vm *v, const sm_pk_value *args, sm_pk_call call)
{
    const sm_pk_value *storage = arg(args, 0, SM_PK_STORAGE), *offset = arg(args, 1, SM_PK_INT),
        *type = arg(args, 6, SM_PK_GLOBAL);
    sm_pk_tensor t = {.rank = 0};
    int rank = sizes(args, 2, t.dims), strides = sizes(args, 3, t.strides);
    bool v3 = call == SM_PK_G_TENSOR_V3;
    if (!storage || !offset || offset->u.i < 0 || rank < 0 || rank != strides ||
        (v3 && (!type || type->u.global->call != SM_PK_G_DTYPE))) {
        bad(v, "a tensor whose storage, offset, sizes (at most %d) or strides are none, or negative", SM_PK_MAX_DIMS);
        return NULL;
    }
    t.storage = storage->u.storage;
    t.type = v3 ? type->u.global->type : t.storage->type;
    t.offset = (uint64_t)offset->u.i;
    t.rank = rank;
    sm_pk_value *x = make(v, SM_PK_TENSOR);
    sm_pk_tensor *own = x ? sm_arena_get(&v->p->arena, sizeof *own) : NULL;
    if (!own) {
        no_memory(v);
        return NULL;
    }
    *own = t;
    x->u.tensor = own;
    return x;
}

/* OrderedDict() or OrderedDict([[key, value], ...]). */
static sm_pk_value *ordered_dict(vm *v, const sm_pk_value *args)
{
    sm_pk_value *x = make(v, SM_PK_DICT);
    const sm_pk_value *pairs = arg(args, 0, SM_PK_LIST);
    if (args->n && (args->n > 1 || !pairs)) {
        bad(v, "calls OrderedDict with what is no list");
        return NULL;
    }
    for (size_t i = 0; x && pairs && i < pairs->n; i++) {
        const sm_pk_value *pair = pairs->u.item[i];
        if (pair->kind != SM_PK_LIST || pair->n != 2) {
            bad(v, "calls OrderedDict with what is no pair");
            return NULL;
        }
        if (!append(v, x, pair->u.item, 2))
            return NULL;
    }
    return x;
}

static sm_pk_value *call_known(vm *v, const sm_pk_global *g, sm_pk_value *args)
{
    sm_pk_value *first = args->n ? args->u.item[0] : NULL;
    switch (g->call) {
    case SM_PK_G_TENSOR:
    case SM_PK_G_TENSOR_V2:
    case SM_PK_G_TENSOR_V3: return rebuild_tensor(v, args, g->call);
    case SM_PK_G_PARAMETER:
    case SM_PK_G_PARAMETER_STATE:
        if (first && first->kind == SM_PK_TENSOR)
            return first;
        bad(v, "makes a parameter of what is no tensor");
        return NULL;
    case SM_PK_G_DICT: return ordered_dict(v, args);
    case SM_PK_G_SEQUENCE:
        if (args->n == 1 && first->kind == SM_PK_LIST)
            return container(v, SM_PK_LIST, true, first->u.item, first->n);
        bad(v, "calls %s.%s with what is no list", g->module, g->name);
        return NULL;
    case SM_PK_G_OPAQUE: return make(v, SM_PK_OTHER);
    default: bad(v, "calls %s.%s, which only names something", g->module, g->name ? g->name : g->type->name); return NULL;
    }
}

static bool reduce(vm *v)
{
    sm_pk_value *args = pop(v), *fn = args ? pop(v) : NULL;
    if (!fn)
        return false;
    if (fn->kind != SM_PK_GLOBAL || args->kind != SM_PK_LIST || !args->fixed)
        return bad(v, "calls what is no function, or with what is no tuple");
    return push(v, call_known(v, fn->u.global, args));
}

/* The attributes of a dict (`_metadata` of a state dict) and of what is opaque say nothing about tensors. */
static bool build(vm *v)
{
    sm_pk_value *state = pop(v), *x = state ? top(v) : NULL;
    if (!x)
        return false;
    return x->kind == SM_PK_DICT || x->kind == SM_PK_OTHER || bad(v, "gives attributes to what has none");
}

static bool is_text(const sm_pk_value *v, const char *text)
{
    return v->kind == SM_PK_STR && v->n == strlen(text) && !memcmp(v->u.s, text, v->n);
}

/* ('storage', type, key, location, number of elements[, None]) */
static bool persistent(vm *v)
{
    sm_pickle *p = v->p;
    sm_pk_value *id = pop(v);
    if (!id)
        return false;
    if (id->kind == SM_PK_LIST && id->n && is_text(id->u.item[0], "module"))
        return bad(v, "holds a whole module with its source code, which is refused; save its state_dict instead");
    const sm_pk_value *type = id->kind == SM_PK_LIST ? arg(id, 1, SM_PK_GLOBAL) : NULL,
        *key = type ? arg(id, 2, SM_PK_STR) : NULL;
    const sm_pk_value *count = key ? arg(id, 4, SM_PK_INT) : NULL;
    uint64_t bytes;
    if (!count || !is_text(id->u.item[0], "storage") || type->u.global->call != SM_PK_G_STORAGE || !key->n || id->n > 6 ||
        count->u.i < 0)
        return bad(v, "a reference that is no storage of torch's");
    if (id->n == 6 && id->u.item[5]->kind != SM_PK_NONE)
        return bad(v, "a view of a storage, as torch before 0.4 wrote; save the file again with a newer torch");
    if (__builtin_mul_overflow((uint64_t)count->u.i, (uint64_t)type->u.global->type->size, &bytes))
        return bad(v, "a storage larger than any file");
    if (p->nstorages == p->capstorages) {
        size_t cap = p->capstorages ? p->capstorages * 2 : 64;
        sm_pk_storage **more = sm_realloc(p->mem, SM_MEM_MISC, p->storages, cap * sizeof *more);
        if (!more)
            return no_memory(v);
        p->storages = more;
        p->capstorages = cap;
    }
    sm_pk_value *x = make(v, SM_PK_STORAGE);
    sm_pk_storage *s = x ? sm_arena_get(&p->arena, sizeof *s) : NULL;
    if (!s)
        return no_memory(v);
    *s = (sm_pk_storage){.key = key->u.s, .nkey = key->n, .type = type->u.global->type, .bytes = bytes};
    x->u.storage = p->storages[p->nstorages++] = s;
    return push(v, x);
}

/* ---- the machine ------------------------------------------------------------------------------------------------- */

static bool protocol(vm *v)
{
    uint64_t x;
    return number(v, 1, &x) && (x <= 5 || bad(v, "protocol %d; 1 to 5 are known", (int)x));
}

/* Opcodes with an index or a plain number behind them. */
static bool with_number(vm *v, uint8_t op)
{
    uint64_t x;
    int k = op == 'J' || op == 'r' || op == 'j' ? 4 : op == 'M' ? 2 : op == 0x95 ? 8 : 1;
    if (!number(v, k, &x))
        return false;
    switch (op) {
    case 'J': return push_int(v, SM_PK_INT, (int32_t)(uint32_t)x);
    case 'K':
    case 'M': return push_int(v, SM_PK_INT, (int64_t)x);
    case 'q':
    case 'r': return put(v, x);
    case 'h':
    case 'j': return get(v, x);
    default: return x <= v->n - v->at || bad(v, "a frame longer than the pickle; is the file truncated?");
    }
}

static bool pop_op(vm *v, uint8_t op)
{
    sm_pk_value **items;
    size_t n;
    if (op == '1' || (v->nmarks && v->depth == floor_of(v))) /* POP takes a bare mark off too */
        return pop_mark(v, &items, &n);
    return pop(v);
}

static bool step(vm *v, uint8_t op)
{
    switch (op) {
    case 0x80: return protocol(v);
    case 'J': case 'K': case 'M': case 'q': case 'r': case 'h': case 'j': case 0x95: return with_number(v, op);
    case '(': return mark(v);
    case '0': case '1': return pop_op(v, op);
    case '2': return push(v, top(v));
    case 'N': return push(v, make(v, SM_PK_NONE));
    case 0x88: case 0x89: return push_int(v, SM_PK_BOOL, op == 0x88);
    case 'I': case 'L': return push_decimal(v, op == 'L');
    case 0x8a: return push_long(v, 1);
    case 0x8b: return push_long(v, 4);
    case 'G': return push_double(v);
    case 'X': case 'T': return push_text(v, SM_PK_STR, 4); /* T and U: Python 2's str */
    case 0x8c: case 'U': return push_text(v, SM_PK_STR, 1);
    case 0x8d: return push_text(v, SM_PK_STR, 8);
    case 'B': return push_text(v, SM_PK_OTHER, 4);
    case 'C': return push_text(v, SM_PK_OTHER, 1);
    case 0x8e: case 0x96: return push_text(v, SM_PK_OTHER, 8);
    case ')': return push(v, container(v, SM_PK_LIST, true, NULL, 0));
    case 0x85: case 0x86: case 0x87: return small_tuple(v, (size_t)op - 0x84);
    case 't': case 0x91: return marked(v, SM_PK_LIST, true);
    case 'l': return marked(v, SM_PK_LIST, false);
    case 'd': return marked(v, SM_PK_DICT, false);
    case ']': case 0x8f: return push(v, make(v, SM_PK_LIST));
    case '}': return push(v, make(v, SM_PK_DICT));
    case 'a': return extend_top(v, SM_PK_LIST);
    case 's': return extend_top(v, SM_PK_DICT);
    case 'e': case 0x90: return extend_marked(v, SM_PK_LIST);
    case 'u': return extend_marked(v, SM_PK_DICT);
    case 0x94: return put(v, v->memoed);
    case 'c': return global_lines(v);
    case 0x93: return global_stack(v);
    case 'R': case 0x81: return reduce(v);
    case 'b': return build(v);
    case 'Q': return persistent(v);
    default: return bad(v, "opcode 0x%02x, which torch.save does not write, is refused", op);
    }
}

static sm_pk_value *run(vm *v)
{
    for (;;) {
        v->op = v->at;
        const uint8_t *op = take(v, 1);
        if (!op)
            return NULL;
        if (*op != '.') {
            if (!step(v, *op))
                return NULL;
            continue;
        }
        if (v->nmarks || v->depth != 1) {
            bad(v, "stops with %zu values instead of one", v->depth);
            return NULL;
        }
        return v->stack[0];
    }
}

sm_pk_value *sm_pickle_read(sm_pickle *p, const uint8_t *data, size_t n, const char *label, size_t *used, sm_err *e)
{
    vm v = {.p = p, .d = data, .n = SM_MIN(n, (size_t)SM_PK_MAX_BYTES), .label = label, .e = e};
    sm_pk_value *x = run(&v);
    *used = v.at;
    sm_free(v.stack);
    sm_free(v.memo);
    sm_free(v.marks);
    return x;
}

void sm_pickle_init(sm_pickle *p, sm_mem *mem)
{
    *p = (sm_pickle){.mem = mem};
    sm_arena_init(&p->arena, mem, SM_MEM_MISC);
}

void sm_pickle_free(sm_pickle *p)
{
    sm_free(p->storages);
    sm_arena_free(&p->arena);
}

const sm_pk_value *sm_pk_get(const sm_pk_value *v, const char *key)
{
    for (size_t i = 0; v->kind == SM_PK_DICT && i + 1 < v->n; i += 2)
        if (is_text(v->u.item[i], key))
            return v->u.item[i + 1];
    return NULL;
}
