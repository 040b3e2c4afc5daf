/* Runs one kernel with everything it may touch fenced off (see kernel_run.h). */
#include "kernel_run.h"

#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

guarded guarded_new(size_t bytes, size_t align, bool high)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + align + page - 1) / page * page + (bytes ? 0 : page);
    guarded g = {.map_bytes = room + 2 * page};
    g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == MAP_FAILED || mprotect(g.map, page, PROT_NONE) || mprotect((char *)g.map + page + room, page, PROT_NONE)) {
        perror("guard pages");
        exit(2);
    }
    char *start = (char *)g.map + page;
    size_t offset = high ? (room - bytes) / align * align : 0;
    memset(start, 0xff, room);
    g.data = start + offset;
    return g;
}

void guarded_free(guarded *g) { munmap(g->map, g->map_bytes); }

typedef struct job { const sm_kernel *k; const sm_kcall *c; void *prep; } job;

static void prep_task(void *arg, int task, int tasks)
{
    const job *j = arg;
    j->k->prep(j->c, j->prep, task, tasks);
}

static void run_task(void *arg, int task, int tasks)
{
    const job *j = arg;
    j->k->run(j->c, task, tasks);
}

static sm_tensor tensor(const sm_node *n, void *data)
{
    sm_tensor t = {.data = data, .dtype = n->dtype, .rank = n->rank};
    memcpy(t.dims, n->dims, sizeof t.dims);
    return t;
}

static void run_passes(const kernel_run *r, sm_kcall *c)
{
    job j = {r->k, c, NULL};
    guarded prep = {0};
    size_t bytes = r->k->prep_bytes ? r->k->prep_bytes(r->node) : 0;
    if (r->unprepared && r->k->unprepared && r->k->unprepared(r->node))
        bytes = 0;
    if (bytes) {
        prep = guarded_new(bytes, 64, r->high);
        j.prep = prep.data;
        sm_pool_run(r->pool, prep_task, &j, r->k->prep_tasks ? r->k->prep_tasks(r->node) : 1);
        c->prep = prep.data;
    }
    for (int pass = 0; pass < SM_MAX(r->k->passes, 1); pass++) {
        c->pass = pass;
        int tasks = r->k->tasks ? r->k->tasks(r->node, pass) : sm_tasks_default(r->node, pass);
        sm_pool_run(r->pool, run_task, &j, r->one_task ? 1 : tasks);
    }
    if (bytes)
        guarded_free(&prep);
}

float *kernel_result(const kernel_run *r)
{
    const sm_node *n = r->node;
    size_t bytes = (size_t)sm_numel(n) * sm_dtype_size(n->dtype), work_bytes = r->k->work ? r->k->work(n) : 0;
    sm_kcall c = {.node = n, .nsrc = n->nsrc};
    guarded src[SM_MAX_SRC], dst = {0}, work = guarded_new(work_bytes, 64, r->high);
    for (int i = 0; i < n->nsrc; i++) {
        if (!n->src[i])
            continue;
        size_t b = (size_t)sm_numel(n->src[i]) * sm_dtype_size(n->src[i]->dtype);
        src[i] = guarded_new(b, sm_dtype_size(n->src[i]->dtype), r->high);
        memcpy(src[i].data, r->src[i], b);
        c.src[i] = tensor(n->src[i], src[i].data);
    }
    if (r->inplace < 0)
        dst = guarded_new(bytes, 4, r->high);
    c.dst = tensor(n, r->inplace < 0 ? dst.data : src[r->inplace].data);
    c.work = work_bytes ? work.data : NULL;
    run_passes(r, &c);
    float *out = malloc(bytes);
    if (!out)
        exit(2);
    memcpy(out, c.dst.data, bytes);
    for (int i = 0; i < n->nsrc; i++)
        if (n->src[i])
            guarded_free(&src[i]);
    if (dst.map)
        guarded_free(&dst);
    guarded_free(&work);
    return out;
}

const sm_backend *kernel_bf16(void)
{
    const sm_backend *be = sm_cpu_backend("avx512", NULL), *bf16 = be ? sm_cpu_bf16(be, NULL) : NULL;
    if (!bf16)
        test_skip("this processor lacks AVX512_BF16");
    return bf16;
}
