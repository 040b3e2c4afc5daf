/* sumi_tokenize on a model: whatever its merges, the tokens spell the text between the two marks (vocabularies:
 * cli/t_tokenize.sh). */
#include <string.h>

#include "sumi.h"
#include "test.h"
#include "tiny.h"

TEST(tokenize_by_the_model)
{
    sumi_context *c = NULL;
    sumi_model *m = NULL;
    sumi_tokens *t = NULL;
    char text[64] = "";
    bool ok = !sumi_context_new(NULL, &c) && !sumi_model_load(c, tiny_model(TINY_UNET), &m) &&
        !sumi_tokenize(c, m, NULL, "Red  disc", &t);
    CHECKF(ok, "%s", sumi_error(c));
    CHECK(ok && t->count >= 3 && !strcmp(t->text[0], "<|startoftext|>") && !strcmp(t->text[t->count - 1], "<|endoftext|>"));
    CHECK(ok && t->id[0] + 1 == t->id[t->count - 1]);
    for (size_t i = 1; ok && i + 1 < t->count && strlen(text) + strlen(t->text[i]) < sizeof text; i++)
        strcat(text, t->text[i]);
    CHECKF(!strcmp(text, "red</w>disc</w>"), "%s", text);
    sumi_tokens_free(t);
    CHECK(sumi_tokenize(c, NULL, NULL, "x", &t) == SUMI_E_ARG && !t && strstr(sumi_error(c), "vocabulary"));
    CHECK(sumi_tokenize(c, m, NULL, "\xff", &t) == SUMI_E_ARG && !t);
    sumi_tokens_free(NULL);
    sumi_model_free(m);
    sumi_context_free(c);
}
