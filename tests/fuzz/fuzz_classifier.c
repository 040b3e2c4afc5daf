/* Fuzz entry of classifiers of noisy latents: the input is a safetensors header, to which as many zeros are added as it asks for. What
 * is detected is recorded with its gradient on small latents; each step fails in one line or gives what the next one can use. */
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "io/tensors.h"
#include "model/classifier.h"

enum { MOST_DATA = 1 << 20 };

static void check(bool ok)
{
    if (!ok)
        abort();
}

static bool one_line(const sm_err *e) { return e->code != SUMI_OK && e->msg[0] && !strchr(e->msg, '\n'); }

/* The largest offset that the header names, for the data; 0 where it is none. */
static size_t data_bytes(const char *head, size_t n)
{
    sm_err e = {0};
    uint64_t most = 0, end;
    cJSON *j = sm_json_parse(NULL, head, n, 4, 1 << 16, "fuzz", &e);
    for (const cJSON *c = j ? j->child : NULL; c; c = c->next) {
        const cJSON *range = cJSON_GetObjectItemCaseSensitive(c, "data_offsets");
        if (cJSON_GetArraySize(range) == 2 && sm_json_index(cJSON_GetArrayItem(range, 1), &end))
            most = SM_MAX(most, end);
    }
    cJSON_Delete(j);
    return most <= MOST_DATA ? (size_t)most : 0;
}

static void record(sm_weights *w, const sm_classifier_config *c, sm_mem *mem)
{
    sm_err e = {0};
    sm_graph *g = sm_graph_new(mem, &e);
    nn_scope root = nn_root(g, w, NULL), s = nn_sub(&root, "%s", c->component);
    int side = 1 << SM_MIN(c->halvings, 4);
    sm_node *x = sm_input(g, "x", SM_F32, 4, (int64_t[]){2, side, 2 * side, SM_MIN(c->in_channels, 64)}), *dx;
    sm_node *y = sm_classifier(&s, c, x, sm_input(g, "t", SM_F32, 1, (int64_t[]){2}));
    if (!sm_poisoned(y)) {
        check(y->rank == 2 && y->dims[0] == 2 && y->dims[1] == c->classes);
        sm_grad(sm_sum_all(sm_slice(sm_log_softmax(y), -1, 0, 1)), 1, &x, &dx);
        check(sm_poisoned(dx) || sm_same_shape(x, dx));
    }
    check(g->err.code == SUMI_OK || one_line(&g->err));
    sm_graph_free(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sm_mem mem = {0};
    sm_err e = {0};
    sm_classifier_config c;
    /* the last byte is what the metadata would say */
    sm_classifier_hints h = {.num_res_blocks = size ? data[size - 1] & 3 : 0, .num_heads = size ? data[size - 1] >> 2 & 7 : 0};
    size_t body = data_bytes((const char *)data, size);
    uint64_t head = size;
    char *file = calloc(1, 8 + size + body + 1);
    check(file != NULL);
    memcpy(file, &head, 8);
    memcpy(file + 8, data, size);
    sm_weights *w = sm_weights_new(&mem, &e);
    sm_tensors *f = w ? sm_tensors_open_mem(file, 8 + size + body, "fuzz", &mem, &e) : NULL;
    if (!f || sm_tensors_into(f, w, "classifier.", &mem, &e) || sm_detect_classifier(w, &h, &c, "fuzz", &e))
        check(one_line(&e));
    else
        record(w, &c, &mem);
    sm_weights_unref(&w);
    check(mem.total == 0);
    free(file);
    return 0;
}
