/* Fuzz entry of what is read from pictures' texts and lists of prompts: infotexts, choices, lines of --prompts, axes of grids. An
 * infotext's values are in range, and what is written of them is read back the same. */
#include <stdlib.h>
#include <string.h>

#include "pipeline/grid.h"
#include "pipeline/infotext.h"
#include "text/choices.h"

static void check_again(const sumi_infotext *t)
{
    size_t n;
    const sumi_param_info *p = sumi_params(&n);
    sm_buf b = {0};
    sumi_infotext *back = NULL;
    sm_buf_fmt(&b, "x\nSteps: 1, Steps: 1, Steps: 1");
    sm_infotext_put_request(&t->request, &b);
    sm_buf_fmt(&b, ", Version: sumi");
    if (sm_infotext_read(NULL, b.data, &back, NULL))
        abort();
    for (size_t i = 0; i < n; i++) {
        bool texts = p[i].type == SUMI_PARAM_TEXT;
        if (!p[i].a1111[0] || i < 2 || !strcmp(p[i].name, "schedule") || sm_param_is_default(&p[i], &t->request))
            continue; /* a schedule is told by the sampler where there is none */
        if (texts ? strcmp(sm_param_text(&p[i], &t->request), sm_param_text(&p[i], &back->request))
                  : sm_param_number(&p[i], &t->request) != sm_param_number(&p[i], &back->request))
            abort();
    }
    sumi_infotext_free(back);
    sm_buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static sumi_context *c;
    sumi_infotext *t = NULL;
    sumi_request r = sumi_request_default();
    sm_arena a = {0};
    sm_axis x;
    char *text = malloc(n + 1), *texts = NULL;
    if (!text || (!c && sumi_context_new(&(sumi_context_options){.threads = 1}, &c)))
        abort();
    memcpy(text, data, n);
    text[n] = 0;
    sm_err e = {0};
    if (!sm_infotext_read(NULL, text, &t, &e)) {
        sm_err why = {0};
        if (sm_request_check(&t->request, &why) && strlen(text) <= SUMI_TEXT_MAX)
            abort();
        if (!why.code)
            check_again(t);
    }
    sumi_infotext_free(t);
    sm_err_clear(&e);
    if (strlen(text) < 4096) {
        const char *made = sm_choices_make(text, "", n, 1, &a, &e);
        if (made && sm_utf8_valid(text, strlen(text)) && !sm_utf8_valid(made, strlen(made)))
            abort();
    }
    if (!sumi_request_read(c, text, &r, &texts) && sm_request_check(&r, NULL))
        abort();
    sumi_text_free(texts);
    sm_err_clear(&e);
    if (!sm_axis_read(&x, text, &a, &e) && (x.n < 1 || x.n > SM_GRID_VALUES))
        abort();
    sm_arena_free(&a);
    free(text);
    return 0;
}
