/* Contexts, and the small public calls around them. */
#include "pipeline/context.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Of activations that wait for the next plan: enough for rounds of small pictures, which come and go in tenths of seconds. What
 * a picture of 512x512 takes goes back: clearing its pages is a hundredth of its time. */
enum { KEEP = 64 << 20 };

sm_err *sm_begin(sumi_context *ctx)
{
    sm_err_clear(&ctx->err);
    return &ctx->err;
}

sumi_status sumi_context_new(const sumi_context_options *o, sumi_context **out)
{
    sumi_context *c = calloc(1, sizeof *c);
    *out = c;
    if (!c)
        return SUMI_E_MEMORY;
    c->mem.keep = KEEP;
    int threads = o && o->threads ? o->threads : sm_cpu_count();
    c->be = sm_cpu_backend(o ? o->cpu : NULL, &c->err);
    c->compute = c->be;
    if (c->be && o && o->compute && strcasecmp(o->compute, "f32")) {
        c->compute = strcasecmp(o->compute, "bf16") ? NULL : sm_cpu_bf16(c->be, &c->err);
        if (!c->compute)
            sm_fail(&c->err, SUMI_E_ARG, "--compute: '%.40s' is unknown; f32 or bf16", o->compute);
    }
    if (c->compute)
        c->pool = sm_pool_new(&c->mem, threads, &c->err);
    return c->err.code;
}

void sumi_context_free(sumi_context *ctx)
{
    if (!ctx)
        return;
    sm_pool_free(ctx->pool);
    sm_mem_trim(&ctx->mem);
    free(ctx);
}

const char *sumi_error(const sumi_context *ctx) { return ctx ? ctx->err.msg : "out of memory"; }
const char *sumi_version(void) { return SUMI_VERSION; }
const char *sumi_context_cpu(const sumi_context *ctx) { return ctx->be ? ctx->be->name : "none"; }
int sumi_context_threads(const sumi_context *ctx) { return sm_pool_threads(ctx->pool); }
size_t sumi_memory_peak(const sumi_context *ctx) { return ctx->mem.peak; }
void sumi_text_free(char *text) { sm_free(text); }
