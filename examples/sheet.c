/* Many prompts on one contact sheet, with nothing but sumi.h: one model, one request each, the pictures side by side.
 *     sheet FILE.png COLUMNS PROMPT...
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sumi.h>

enum { GAP = 4 }; /* white pixels between pictures */

/* The sheet for n pictures like p, all white. */
static sumi_image blank(const sumi_image *p, int n, int columns)
{
    int rows = (n + columns - 1) / columns;
    sumi_image s = {.width = columns * (p->width + GAP) - GAP, .height = rows * (p->height + GAP) - GAP, .channels = 3};
    s.pixels = malloc((size_t)s.width * (size_t)s.height * 3);
    if (s.pixels)
        memset(s.pixels, 255, (size_t)s.width * (size_t)s.height * 3);
    return s;
}

static void place(const sumi_image *p, int k, int columns, sumi_image *s)
{
    int left = k % columns * (p->width + GAP), top = k / columns * (p->height + GAP);
    for (int y = 0; y < p->height; y++)
        memcpy(s->pixels + ((size_t)(top + y) * (size_t)s->width + (size_t)left) * 3, p->pixels + (size_t)y * (size_t)p->width * 3,
               (size_t)p->width * 3);
}

/* Draws one prompt into the sheet, which the first one makes; 0 on success. */
static int draw(sumi_context *ctx, sumi_model *model, const char *prompt, int k, int n, int columns, sumi_image *sheet)
{
    sumi_images *out = NULL;
    sumi_request r = sumi_request_default();
    r.prompt = prompt;
    r.seed = 1;
    if (sumi_generate(ctx, model, &r, NULL, &out))
        return 1;
    if (!sheet->pixels)
        *sheet = blank(sumi_images_at(out, 0), n, columns);
    if (sheet->pixels)
        place(sumi_images_at(out, 0), k, columns, sheet);
    sumi_images_free(out);
    return !sheet->pixels;
}

int main(int argc, char **argv)
{
    int columns = argc > 2 ? atoi(argv[2]) : 0, n = argc - 3;
    if (columns < 1 || columns > 100 || n < 1)
        return fprintf(stderr, "usage: sheet FILE.png COLUMNS PROMPT...\n"), 2;
    sumi_context *ctx;
    sumi_model *model = NULL;
    sumi_image sheet = {0};
    int bad = sumi_context_new(NULL, &ctx) || sumi_model_load(ctx, NULL, &model);
    for (int k = 0; k < n && !bad; k++)
        bad = draw(ctx, model, argv[3 + k], k, n, columns < n ? columns : n, &sheet);
    bad = bad || sumi_image_save(ctx, &sheet, argv[1]);
    if (bad)
        fprintf(stderr, "sheet: %s\n", sumi_error(ctx));
    free(sheet.pixels);
    sumi_model_free(model);
    sumi_context_free(ctx);
    return bad;
}
