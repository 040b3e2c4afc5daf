/* Errors, arenas, byte buffers (see base.h). */
#include "base/base.h"
#include "base/shown.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

sumi_status sm_fail(sm_err *e, sumi_status code, const char *fmt, ...)
{
    if (!e)
        return code;
    if (e->code != SUMI_OK)
        return e->code;
    char text[sizeof e->msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    sm_shown(text, e->msg, sizeof e->msg); /* names in it come from files and servers */
    return e->code = code;
}

void sm_err_clear(sm_err *e)
{
    e->code = SUMI_OK;
    e->msg[0] = 0;
}

/* ---- arena ---- */

struct sm_chunk {
    struct sm_chunk *next;
    size_t used, size;
    char fill[64 - sizeof(void *) - 2 * sizeof(size_t)];
    char data[];
};

void sm_arena_init(sm_arena *a, sm_mem *mem, sm_memcat cat) { *a = (sm_arena){.mem = mem, .cat = cat}; }

void *sm_arena_get(sm_arena *a, size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    size_t n = (bytes + 63) & ~(size_t)63;
    struct sm_chunk *c = a->head;
    if (!c || c->size - c->used < n) {
        size_t size = SM_MAX(n, (size_t)65536 - 128);
        c = sm_alloc(a->mem, a->cat, sizeof *c + size);
        if (!c)
            return NULL;
        *c = (struct sm_chunk){.next = a->head, .size = size};
        a->head = c;
    }
    void *p = c->data + c->used;
    c->used += n;
    memset(p, 0, n);
    return p;
}

char *sm_arena_str(sm_arena *a, const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = sm_arena_get(a, n);
    return p ? memcpy(p, s, n) : NULL;
}

char *sm_arena_fmt(sm_arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = n < 0 ? NULL : sm_arena_get(a, (size_t)n + 1);
    if (p)
        vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}

void sm_arena_free(sm_arena *a)
{
    for (struct sm_chunk *c = a->head, *next; c; c = next) {
        next = c->next;
        sm_free(c);
    }
    a->head = NULL;
}

/* ---- byte buffer ---- */

static bool buf_room(sm_buf *b, size_t n)
{
    size_t need;
    if (b->oom || !sm_add_ok(b->len, n + 1, &need)) {
        b->oom = true;
        return false;
    }
    if (need > b->cap) {
        size_t cap = SM_MAX(need, b->cap ? b->cap * 2 : 256);
        char *p = sm_realloc(b->mem, SM_MEM_MISC, b->data, cap);
        if (!p) {
            b->oom = true;
            return false;
        }
        b->data = p;
        b->cap = cap;
    }
    return true;
}

void sm_buf_add(sm_buf *b, const void *p, size_t n)
{
    if (!buf_room(b, n))
        return;
    if (n)
        memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = 0;
}

void sm_buf_fmt(sm_buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) {
        b->oom = true; /* more than INT_MAX bytes */
    } else if (buf_room(b, (size_t)n)) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

void sm_buf_free(sm_buf *b)
{
    sm_free(b->data);
    *b = (sm_buf){.mem = b->mem};
}

double sm_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool sm_utf8_valid(const char *str, size_t n)
{
    const unsigned char *s = (const unsigned char *)str;
    for (size_t i = 0; i < n;) {
        unsigned c = s[i], more = c < 0x80 ? 0 : (c >> 5) == 6 ? 1 : (c >> 4) == 14 ? 2 : (c >> 3) == 30 ? 3 : 9;
        if (more == 9 || i + more >= n)
            return false;
        uint32_t v = more == 0 ? c : c & (0x3fu >> more);
        for (unsigned k = 1; k <= more; k++) {
            if ((s[i + k] & 0xc0) != 0x80)
                return false;
            v = v << 6 | (s[i + k] & 0x3f);
        }
        static const uint32_t least[4] = {0, 0x80, 0x800, 0x10000};
        if (v < least[more] || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff))
            return false;
        i += more + 1;
    }
    return true;
}
