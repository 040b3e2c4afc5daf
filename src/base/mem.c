/* Accounted memory (see base.h). Blocks of a MiB and more are mapped on huge-page boundaries: one fault and one entry of the
 * address caches for 2 MiB where the system has such pages, 4 KiB pages for the rest behind the last whole one, so that nothing
 * is taken that was not asked for. Where the counters' owner allows it (sm_mem.keep), large blocks of activations wait for
 * the next plan instead of going back to the system, which would clear their pages again. */
#include "base/base.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif

/* PAGE: what mappings are multiples of, the largest of any system's pages. One lies in front of a block, for its head. */
enum { LARGE = 1 << 20, HUGE_PAGE = 2 << 20, PAGE = 65536 };

/* So many allocations of activations, some five pictures' plans, a block waits for one that needs half of it. */
enum { PATIENCE = 16 };

/* Sits in front of every block; 64 bytes so that the block keeps its alignment. */
typedef struct block {
    sm_mem *mem;
    size_t bytes;
    sm_memcat cat;
    bool mapped;
    bool parked;            /* in use by nobody: counted in mem->kept */
    uint16_t passed;        /* allocations since one needed half of it */
    struct block *next;     /* of mem->spare */
    char fill[64 - sizeof(sm_mem *) - sizeof(size_t) - sizeof(sm_memcat) - 2 * sizeof(bool) - sizeof(uint16_t) - sizeof(void *)];
} block;
_Static_assert(sizeof(block) == 64, "block header keeps 64-byte alignment");

static bool refused(sm_mem *mem)
{
    if (!mem || !__atomic_load_n(&mem->fail_at, __ATOMIC_RELAXED))
        return false;
    return __atomic_sub_fetch(&mem->fail_at, 1, __ATOMIC_RELAXED) == 0;
}

static void account(const block *b, bool take)
{
    sm_mem *mem = b->mem;
    if (!mem)
        return;
    if (!take) {
        __atomic_sub_fetch(&mem->now[b->cat], b->bytes, __ATOMIC_RELAXED);
        __atomic_sub_fetch(&mem->total, b->bytes, __ATOMIC_RELAXED);
        return;
    }
    __atomic_add_fetch(&mem->now[b->cat], b->bytes, __ATOMIC_RELAXED);
    size_t total = __atomic_add_fetch(&mem->total, b->bytes, __ATOMIC_RELAXED) + __atomic_load_n(&mem->kept, __ATOMIC_RELAXED);
    size_t peak = __atomic_load_n(&mem->peak, __ATOMIC_RELAXED);
    while (total > peak && !__atomic_compare_exchange_n(&mem->peak, &peak, total, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

/* ---- from the system ----------------------------------------------------------------------------------------------- */

static size_t pages_of(size_t bytes) { return (bytes + PAGE - 1) & ~(size_t)(PAGE - 1); }

#ifndef SANITIZED
/* Zeroed; what follows the head is at a huge page's beginning. */
static block *map(size_t bytes)
{
    size_t rounded = pages_of(bytes), whole = rounded + PAGE + HUGE_PAGE;
    char *at = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    char *data = at + (HUGE_PAGE - (uintptr_t)(at + PAGE) % HUGE_PAGE) % HUGE_PAGE + PAGE;
    if (data - PAGE > at)
        munmap(at, (size_t)(data - PAGE - at));
    if (data + rounded < at + whole)
        munmap(data + rounded, (size_t)(at + whole - data - rounded));
#ifdef MADV_HUGEPAGE
    madvise(data, rounded, MADV_HUGEPAGE); /* a system without them says no */
#endif
    return (block *)data - 1;
}
#endif

static void give_back(block *b)
{
    if (b->mapped)
        munmap((char *)(b + 1) - PAGE, PAGE + pages_of(b->bytes));
    else
        free(b);
}

/* zero: the memory is known to be. */
static block *take(size_t bytes, bool *zero)
{
    *zero = false;
    if (bytes > PTRDIFF_MAX)
        return NULL;
#ifndef SANITIZED
    if (bytes >= LARGE) {
        block *b = map(bytes);
        if (b)
            *b = (block){.mapped = *zero = true};
        return b;
    }
#endif
    block *b = aligned_alloc(64, (bytes + sizeof(block) + 63) & ~(size_t)63);
    if (b)
        *b = (block){0};
    return b;
}

/* ---- blocks that wait ---------------------------------------------------------------------------------------------- */

static void lock(sm_mem *mem)
{
    while (__atomic_test_and_set(&mem->lock, __ATOMIC_ACQUIRE))
        ;
}
static void unlock(sm_mem *mem) { __atomic_clear(&mem->lock, __ATOMIC_RELEASE); }

void sm_mem_park(void *p)
{
    block *b = (block *)p - 1;
    b->parked = true;
    account(b, false);
    if (b->mem)
        __atomic_add_fetch(&b->mem->kept, b->bytes, __ATOMIC_RELAXED);
}

void sm_mem_unpark(void *p)
{
    block *b = (block *)p - 1;
    b->parked = false;
    if (b->mem)
        __atomic_sub_fetch(&b->mem->kept, b->bytes, __ATOMIC_RELAXED);
    account(b, true);
}

/* Those go back that more than `most` allocations in a row had no use for. */
static void let_go(sm_mem *mem, int most)
{
    block *gone = NULL;
    lock(mem);
    for (block **at = &mem->spare; *at;) {
        block *b = *at;
        if (b->passed <= most) {
            at = &b->next;
            continue;
        }
        *at = b->next;
        mem->spare_bytes -= b->bytes;
        b->next = gone;
        gone = b;
    }
    unlock(mem);
    for (block *b = gone, *next; b; b = next) {
        next = b->next;
        __atomic_sub_fetch(&mem->kept, b->bytes, __ATOMIC_RELAXED);
        give_back(b);
    }
}

void sm_mem_trim(sm_mem *mem)
{
    if (mem && mem->keep)
        let_go(mem, -1);
}

/* An allocation of activations passes by. */
static void age(sm_mem *mem)
{
    lock(mem);
    for (block *b = mem->spare; b; b = b->next)
        b->passed++;
    unlock(mem);
    let_go(mem, PATIENCE);
}

/* The smallest that is large enough, however large: a small plan may hold a large block while a large plan maps another one, but
 * only for so long. Where none is large enough, all go. */
static block *reuse(sm_mem *mem, size_t bytes)
{
    block **best = NULL, *b = NULL;
    lock(mem);
    for (block **at = &mem->spare; *at; at = &(*at)->next)
        if ((*at)->bytes >= bytes && (!best || (*at)->bytes < (*best)->bytes))
            best = at;
    if (best) {
        b = *best;
        *best = b->next;
        mem->spare_bytes -= b->bytes;
        b->passed = b->bytes / 2 <= bytes ? 0 : b->passed;
    }
    unlock(mem);
    if (!b)
        sm_mem_trim(mem);
    else
        sm_mem_unpark(b + 1);
    return b;
}

/* Whether the block waits from now on. */
static bool keep(block *b)
{
    sm_mem *mem = b->mem;
    if (b->cat != SM_MEM_ACTIVATION || b->bytes < LARGE || !mem || !mem->keep)
        return false;
    lock(mem);
    bool fits = b->bytes <= mem->keep - mem->spare_bytes;
    if (fits) {
        sm_mem_park(b + 1);
#ifdef MADV_FREE
        if (b->mapped) /* nobody wants what is in it: the system may have the pages when it runs out of others */
            madvise(b + 1, pages_of(b->bytes), MADV_FREE);
#endif
        b->next = mem->spare;
        mem->spare = b;
        mem->spare_bytes += b->bytes;
    }
    unlock(mem);
    return fits;
}

/* ---- the calls ----------------------------------------------------------------------------------------------------- */

static void *get(sm_mem *mem, sm_memcat cat, size_t bytes, bool *zero)
{
    if (refused(mem))
        return NULL;
    *zero = false;
    block *b = NULL;
    if (mem && mem->keep && cat == SM_MEM_ACTIVATION) {
        age(mem);
        b = bytes >= LARGE ? reuse(mem, bytes) : NULL;
    }
    if (b)
        return b + 1;
    if (!(b = take(bytes, zero)) && mem) { /* what waits may be what is missing */
        sm_mem_trim(mem);
        b = take(bytes, zero);
    }
    if (!b)
        return NULL;
    b->mem = mem;
    b->bytes = bytes;
    b->cat = cat;
    account(b, true);
    return b + 1;
}

void *sm_alloc(sm_mem *mem, sm_memcat cat, size_t bytes)
{
    bool zero;
    return get(mem, cat, bytes, &zero);
}

void *sm_alloc0(sm_mem *mem, sm_memcat cat, size_t bytes)
{
    bool zero;
    void *p = get(mem, cat, bytes, &zero);
    if (p && !zero)
        memset(p, 0, bytes);
    return p;
}

void *sm_realloc(sm_mem *mem, sm_memcat cat, void *p, size_t bytes)
{
    void *q = sm_alloc(mem, cat, bytes);
    if (q && p) {
        memcpy(q, p, SM_MIN(bytes, ((block *)p - 1)->bytes));
        sm_free(p);
    }
    return q;
}

void sm_free(void *p)
{
    if (!p)
        return;
    block *b = (block *)p - 1;
    if (b->parked && b->mem)
        __atomic_sub_fetch(&b->mem->kept, b->bytes, __ATOMIC_RELAXED);
    else if (keep(b))
        return;
    else
        account(b, false);
    give_back(b);
}
