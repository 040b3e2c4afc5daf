/* Fuzz entry of the picture index (pictograms.jsonl): any bytes are either parsed or refused with a message; what is parsed
 * gives captions of sound text. */
#include <stdlib.h>
#include <string.h>

#include "train/captions.h"
#include "train/picture_index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sm_arena a;
    sm_arena_init(&a, NULL, SM_MEM_DATA);
    sm_picture *pics = NULL;
    int64_t n = 0;
    sm_err e = {0};
    if (sm_picture_index_parse((const char *)data, size, "fuzz", &a, &pics, &n, &e) != SUMI_OK) {
        if (e.code == SUMI_OK || !e.msg[0])
            abort();
    } else {
        for (int64_t i = 0; i < SM_MIN(n, (int64_t)16); i++) {
            char text[320];
            const sm_picture *p = &pics[i], *q = &pics[n - 1 - i];
            sm_scene_words w = {.thing = {{p->caption, p->tags, p->n_tags}, {q->caption, q->tags, q->n_tags}},
                                .n = 1 + (int)(i & 1),
                                .same = i & 2, .style = p->style_row, .colour = (int)(i % SM_COLOURS)};
            sm_dice d = sm_dice_new(1, SM_DICE_CAPTION, (uint64_t)i, size);
            sm_caption_draw(&w, &d, text, sizeof text);
            if (!sm_utf8_valid(text, strlen(text)))
                abort();
        }
    }
    sm_arena_free(&a);
    return 0;
}
