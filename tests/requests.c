/* What tests of whole requests share (see requests.h). */
#include "requests.h"

#include "pipeline/context.h"
#include "test.h"

void requests_xl_sizes(sumi_request *r)
{
    r->original_width = 72;
    r->original_height = 80;
    r->crop_top = 3;
    r->crop_left = 5;
    r->target_width = 40;
    r->target_height = 56;
}

void requests_out_of_memory(sumi_context *ctx, sumi_model *m, const sumi_request *r)
{
    sumi_status st = SUMI_E_MEMORY;
    size_t before = ctx->mem.total;
    for (int i = 1; st == SUMI_E_MEMORY && i < 100000; i += 1 + i / 16) {
        sumi_images *im = NULL;
        ctx->mem.fail_at = i;
        st = sumi_generate(ctx, m, r, NULL, &im);
        ctx->mem.fail_at = 0;
        sumi_images_free(im);
        CHECKF(ctx->mem.total == before, "allocation %d: %zu bytes are left", i, ctx->mem.total - before);
    }
    CHECKF(!st, "%s", sumi_error(ctx));
}
