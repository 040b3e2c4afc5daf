/* Stand-ins for the models that the pages' commands name: families in the forms of the pages, which sumi_inspect knows; left in
 * the folder SUMI_STAND_INS where that is set, for tools/gallery.sh to run those commands with. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "families.h"
#include "sumi.h"
#include "test.h"

typedef struct stand_in {
    const char *family; /* of families.txt.gz */
    family_form form;
    const char *name, *word; /* sumi_inspect says the word */
} stand_in;

static void stand_in_made(sumi_context *ctx, const stand_in *s, const char *dir)
{
    char path[400], *text = NULL;
    if (dir)
        snprintf(path, sizeof path, "%s/%s", dir, s->name);
    else
        snprintf(path, sizeof path, "%s", test_tmp(s->name));
    bool ok = family_write(s->family, s->form, path);
    if (ok && s->word)
        ok = !sumi_inspect(ctx, path, 0, &text) && strstr(text, s->word);
    CHECKF(ok, "%s: %s%s", s->name, sumi_error(ctx), text ? text : "");
    sumi_text_free(text);
}

TEST(stand_ins)
{
    static const stand_in all[] = {
        {"sd1", FAMILY_FOLDER, "sd1", "Stable Diffusion 1"},
        {"sd1", FAMILY_FILE, "sd1.safetensors", "Stable Diffusion 1"},
        {"sd2", FAMILY_FILE, "sd2.safetensors", "Stable Diffusion 2"},
        {"xl", FAMILY_FOLDER, "xl", "XL"},
        {"refiner", FAMILY_FOLDER, "xl-refiner", "refiner"},
        {"inpaint", FAMILY_FILE, "inpaint.safetensors", "inpaint"},
        {"ip2p", FAMILY_FILE, "ip2p.safetensors", "InstructPix2Pix"},
        {"lcm", FAMILY_FOLDER, "lcm", "LCM"},
        {NULL, FAMILY_FOLDER, "text", NULL}, /* tokenizer/, of all of them */
    };
    sumi_context *ctx;
    CHECK(!sumi_context_new(NULL, &ctx));
    for (size_t i = 0; i < SM_COUNT(all); i++)
        stand_in_made(ctx, &all[i], getenv("SUMI_STAND_INS"));
    sumi_context_free(ctx);
}
