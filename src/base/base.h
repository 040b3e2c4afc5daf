/* Base: errors, accounted memory, arenas, strings. Everything else in sumi stands on this header.
 * It may be included together with include/sumi.h, which supplies the status codes, and imports nothing else of ours. */
#ifndef SM_BASE_H
#define SM_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sumi.h"

#define SM_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define SM_MIN(a, b) ((a) < (b) ? (a) : (b))
#define SM_MAX(a, b) ((a) > (b) ? (a) : (b))
#define SM_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* ---- errors ------------------------------------------------------------------------------------------------------ */

/* The first failure sticks: sm_fail on an error that is already set keeps the older message. */
typedef struct sm_err {
    sumi_status code;
    char msg[640];
} sm_err;

/* Records the failure (unless one is recorded already) and returns the code now in e. e may be NULL. */
sumi_status sm_fail(sm_err *e, sumi_status code, const char *fmt, ...) SM_PRINTF(3, 4);
void sm_err_clear(sm_err *e);

/* ---- accounted memory -------------------------------------------------------------------------------------------- */

typedef enum sm_memcat { SM_MEM_MISC, SM_MEM_GRAPH, SM_MEM_ACTIVATION, SM_MEM_WEIGHT, SM_MEM_PACKED, SM_MEM_DATA,
                        SM_MEM_CATS } sm_memcat;

/* Counters of one context. Thread-safe. fail_at makes the n-th allocation from now fail (tests); 0 is never. */
typedef struct sm_mem {
    size_t now[SM_MEM_CATS], total, peak;
    int64_t fail_at;
    size_t kept;            /* bytes that nobody uses and that wait for who comes next (parked): in peak, not in total */
    size_t keep;            /* large blocks of activations may wait in as many bytes; 0: none. sm_mem_trim before the counters
                               go */
    size_t spare_bytes;     /* of those */
    struct block *spare;
    char lock;
} sm_mem;

/* 64-byte aligned memory, not zeroed; NULL when the system or fail_at refuses. mem may be NULL (not accounted).
 * sm_alloc0 zeroes. sm_realloc keeps the content. All are released with sm_free, which takes NULL too. */
void *sm_alloc(sm_mem *mem, sm_memcat cat, size_t bytes);
void *sm_alloc0(sm_mem *mem, sm_memcat cat, size_t bytes);
void *sm_realloc(sm_mem *mem, sm_memcat cat, void *p, size_t bytes);
void sm_free(void *p);
/* A block that its owner keeps without using it, and takes up again. sm_free takes both kinds. */
void sm_mem_park(void *p);
void sm_mem_unpark(void *p);
/* Gives back what waits in mem->spare. */
void sm_mem_trim(sm_mem *mem);

/* ---- arena ------------------------------------------------------------------------------------------------------- */

typedef struct sm_arena {
    sm_mem *mem;
    sm_memcat cat;
    struct sm_chunk *head;
} sm_arena;

void sm_arena_init(sm_arena *a, sm_mem *mem, sm_memcat cat);
void *sm_arena_get(sm_arena *a, size_t bytes);       /* zeroed, 64-byte aligned; NULL on failure */
char *sm_arena_str(sm_arena *a, const char *s);      /* copy */
char *sm_arena_fmt(sm_arena *a, const char *fmt, ...) SM_PRINTF(2, 3);
void sm_arena_free(sm_arena *a);

/* ---- growing byte buffer ----------------------------------------------------------------------------------------- */

/* Zero-initialise with only mem set. A failed append sets oom and makes later appends no-ops; check once at the end. */
typedef struct sm_buf {
    sm_mem *mem;
    char *data; /* always NUL-terminated when not NULL */
    size_t len, cap;
    bool oom;
} sm_buf;

void sm_buf_add(sm_buf *b, const void *p, size_t n);
void sm_buf_fmt(sm_buf *b, const char *fmt, ...) SM_PRINTF(2, 3);
void sm_buf_free(sm_buf *b);

/* ---- misc -------------------------------------------------------------------------------------------------------- */

double sm_now(void); /* seconds, monotonic */

/* a*b and a+b in size_t; false on overflow. */
static inline bool sm_mul_ok(size_t a, size_t b, size_t *r) { return !__builtin_mul_overflow(a, b, r); }
static inline bool sm_add_ok(size_t a, size_t b, size_t *r) { return !__builtin_add_overflow(a, b, r); }

/* The half-open share [*a, *b) of n items that task has, of tasks. Shares differ by one item at most. */
static inline void sm_range(int64_t n, int task, int tasks, int64_t *a, int64_t *b)
{
    *a = n * task / tasks;
    *b = n * (task + 1) / tasks;
}

/* True when the n bytes are well-formed UTF-8 (no overlong forms, surrogates or values past U+10FFFF). */
bool sm_utf8_valid(const char *s, size_t n);

#endif
