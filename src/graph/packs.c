/* The store of prepared weights (see packs.h), and a plan's use of it. */
#include "graph/packs.h"

#include <string.h>

#include "graph/plan_impl.h"

void sm_packs_init(sm_packs *s, sm_mem *mem)
{
    *s = (sm_packs){.mem = mem};
    pthread_mutex_init(&s->lock, NULL);
}

static void slab_free(sm_slab *s)
{
    sm_free(s->data);
    sm_free(s);
}

void sm_packs_close(sm_packs *s)
{
    for (sm_slab *l = s->slabs, *next; l; l = next) {
        next = l->next;
        slab_free(l);
    }
    pthread_mutex_destroy(&s->lock);
}

/* The slab that has been idle for longest goes, until there is room for so many more bytes or none is left. */
static void make_room(sm_packs *s, size_t bytes)
{
    while (s->idle && s->bytes + bytes > s->keep) {
        sm_slab **oldest = NULL;
        for (sm_slab **at = &s->slabs; *at; at = &(*at)->next)
            if (!(*at)->users && (!oldest || (*at)->used < (*oldest)->used))
                oldest = at;
        sm_slab *l = *oldest;
        *oldest = l->next;
        s->bytes -= l->bytes;
        s->idle -= l->bytes;
        slab_free(l);
    }
}

void sm_packs_keep(sm_packs *s, size_t bytes)
{
    pthread_mutex_lock(&s->lock);
    s->keep = bytes;
    make_room(s, 0);
    pthread_mutex_unlock(&s->lock);
}

size_t sm_packs_bytes(sm_packs *s)
{
    pthread_mutex_lock(&s->lock);
    size_t bytes = s->bytes;
    pthread_mutex_unlock(&s->lock);
    return bytes;
}

/* ---- copies -------------------------------------------------------------------------------------------------------- */

static bool is_conv(sm_op_id op) { return op == SM_OP_CONV2D || op == SM_OP_CONV2D_DX; }

static sm_pack pack_of(const step *s)
{
    const sm_node *n = s->call.node;
    sm_pack k = {.prep = s->k->prep, .how = s->k->how ? s->k->how(n) : NULL, .op = n->op, .w = s->call.src[1],
                 .bytes = s->k->prep_bytes(n), .unit = s->k->prep_unit ? s->k->prep_unit(n) : 0};
    if (is_conv(n->op))
        k.p.conv = n->p.conv;
    return k;
}

static bool same(const sm_pack *a, const sm_pack *b)
{
    return a->w.data == b->w.data && a->prep == b->prep && a->how == b->how && a->op == b->op && a->bytes == b->bytes &&
           a->unit == b->unit &&
           a->w.dtype == b->w.dtype && a->w.scale == b->w.scale && a->w.scale_run == b->w.scale_run && a->w.rank == b->w.rank &&
           !memcmp(a->w.dims, b->w.dims, sizeof a->w.dims) &&
           (!is_conv(a->op) || !memcmp(&a->p.conv, &b->p.conv, sizeof a->p.conv));
}

static sm_pack *find(const sm_packs *s, const sm_pack *k, sm_slab **of)
{
    for (sm_slab *l = s->slabs; l; l = l->next)
        for (int i = 0; i < l->n; i++)
            if (same(&l->at[i], k)) {
                *of = l;
                return &l->at[i];
            }
    return NULL;
}

/* The store that a step's weight may be shared through; NULL: none. */
static sm_packs *store_of(const step *s)
{
    const sm_node *w = s->call.node->src[1];
    while (w->nsrc)
        w = w->src[0];
    return w->packs;
}

static void use(sm_plan *p, sm_slab *l)
{
    for (int i = 0; i < p->nslabs; i++)
        if (p->slabs[i] == l)
            return;
    p->slabs[p->nslabs++] = l;
    if (l->owner && !l->users++ && l->used) { /* else it is new */
        sm_mem_unpark(l);
        sm_mem_unpark(l->data);
        l->owner->idle -= l->bytes;
    }
}

/* ---- a plan's part ------------------------------------------------------------------------------------------------- */

static size_t rounded(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* A slab for those steps without a copy whose store is that one, with room for all of theirs. */
static sumi_status new_slab(sm_plan *p, sm_packs *store, bool shared, sm_err *e)
{
    size_t bytes = 0;
    int n = 0;
    for (int i = 0; i < p->nsteps; i++) {
        const step *s = &p->steps[i];
        if (!s->keep || s->pack || (store_of(s) == store && store) != shared)
            continue;
        bytes += rounded(s->k->prep_bytes(s->call.node));
        n++;
    }
    if (!n)
        return SUMI_OK;
    sm_mem *mem = shared ? store->mem : p->mem;
    if (shared)
        make_room(store, bytes);
    sm_slab *l = sm_alloc0(mem, SM_MEM_GRAPH, sizeof *l + sizeof *l->at * (size_t)n);
    char *data = l ? sm_alloc(mem, SM_MEM_PACKED, bytes) : NULL;
    if (!data) {
        sm_free(l);
        return sm_fail(e, SUMI_E_MEMORY, "out of memory: %.1f MB for packed weights", (double)bytes * 1e-6);
    }
    *l = (sm_slab){.owner = shared ? store : NULL, .bytes = bytes, .data = data};
    for (int i = 0; i < p->nsteps; i++) {
        step *s = &p->steps[i];
        if (!s->keep || s->pack || (store_of(s) == store && store) != shared)
            continue;
        s->pack = &l->at[l->n++];
        *s->pack = pack_of(s);
        s->pack->out = data;
        data += rounded(s->pack->bytes);
    }
    use(p, l);
    if (shared) {
        l->next = store->slabs;
        store->slabs = l;
        store->bytes += bytes;
    }
    return SUMI_OK;
}

/* The plan's store, locked, or NULL. */
static sm_packs *lock_store(sm_plan *p)
{
    for (int i = 0; i < p->nsteps && !p->store; i++)
        p->store = p->steps[i].keep ? store_of(&p->steps[i]) : NULL;
    if (p->store)
        pthread_mutex_lock(&p->store->lock);
    return p->store;
}

static void unlock(sm_packs *s)
{
    if (s)
        pthread_mutex_unlock(&s->lock);
}

sumi_status sm_plan_prepare(sm_plan *p, sm_err *e)
{
    if (!p->npacked)
        return SUMI_OK;
    p->slabs = sm_alloc0(p->mem, SM_MEM_GRAPH, sizeof *p->slabs * (size_t)(p->npacked + 2));
    if (!p->slabs)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory while planning");
    sm_packs *store = lock_store(p);
    for (int i = 0; i < p->nsteps; i++) {
        step *s = &p->steps[i];
        if (!s->keep || !store || store_of(s) != store)
            continue;
        sm_slab *l;
        sm_pack k = pack_of(s);
        if ((s->pack = find(store, &k, &l)))
            use(p, l);
    }
    sumi_status st = store ? new_slab(p, store, true, e) : SUMI_OK;
    if (!st)
        st = new_slab(p, store, false, e);
    unlock(store);
    for (int i = 0; i < p->nsteps; i++)
        if (p->steps[i].pack)
            p->steps[i].call.prep = p->steps[i].pack->out;
    return st;
}

static void prep_task(void *arg, int task, int tasks)
{
    const step *s = arg;
    s->k->prep(&s->call, s->pack->out, task, tasks);
}

void sm_plan_pack(sm_plan *p, sm_pool *pool)
{
    sm_packs *store = p->npacked ? lock_store(p) : NULL;
    for (int i = 0; i < p->nsteps; i++) {
        step *s = &p->steps[i];
        if (!s->pack || s->pack->ready)
            continue;
        sm_pool_run(pool, prep_task, s, s->prep_tasks);
        s->pack->ready = true;
    }
    unlock(store);
    p->ready = true;
}

void sm_plan_unpack(sm_plan *p)
{
    sm_packs *store = p->nslabs ? lock_store(p) : NULL;
    for (int i = 0; i < p->nslabs; i++) {
        sm_slab *l = p->slabs[i];
        if (!l->owner) {
            slab_free(l);
        } else if (!--l->users) {
            l->used = ++store->clock;
            sm_mem_park(l);
            sm_mem_park(l->data);
            store->idle += l->bytes;
        }
    }
    if (store)
        make_room(store, 0);
    unlock(store);
    sm_free(p->slabs);
}
