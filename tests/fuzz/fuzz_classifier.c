/* Fuzz entry of classifiers of noisy latents: the input is a safetensors header, to which as many zeros are added as it asks for.
 * What is detected is recorded with its gradient on small latents; each step fails in one line or gives what the next one can
 * use. */
#include "header.h"
#include "io/tensors.h"
#include "model/classifier.h"

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
    size_t bytes;
    char *file = file_of(data, size, &bytes);
    sm_weights *w = sm_weights_new(&mem, &e);
    sm_tensors *f = w ? sm_tensors_open_mem(file, bytes, "fuzz", &mem, &e) : NULL;
    if (!f || sm_tensors_into(f, w, "classifier.", &mem, &e) || sm_detect_classifier(w, &h, &c, "fuzz", &e))
        check(one_line(&e));
    else
        record(w, &c, &mem);
    sm_weights_unref(&w);
    check(mem.total == 0);
    free(file);
    return 0;
}
