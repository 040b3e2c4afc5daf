/* Fuzz entry of what a file of tensors amounts to: the input is a safetensors header, to which as many zeros are added as it asks
 * for. Names become components, shapes a configuration, that a recorded model and a description; each step fails in one line or
 * gives what the next one can use. Nothing may depend on how large sizes are said to be. */
#include "header.h"
#include "pipeline/model.h"

/* A detected model as a request would take it. */
static void use(sm_weights *w, const sm_detected *d, sm_mem *mem)
{
    sm_err e = {0};
    sm_buf text = {.mem = mem};
    sumi_model m = {.mem = mem, .w = w, .family = d->family, .denoiser = d->denoiser, .vae = d->vae, .traits = d->traits};
    if (sm_components_fit(m.family, &m.denoiser, &m.traits, &m.vae, "fuzz", &e) || sm_model_complete(&m, true, "fuzz", &e)) {
        check(one_line(&e));
        return;
    }
    sm_model_describe(&m, &text);
    check(!text.oom && text.data);
    sumi_model again = {.mem = mem};
    check(!sm_model_configure(&again, text.data, "fuzz", &e) || one_line(&e)); /* sizes that detection allows may be refused */
    sm_buf_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sm_mem mem = {0};
    sm_err e = {0};
    sm_layout_report r = {0};
    sm_detected d = {0};
    size_t bytes;
    char *file = file_of(data, size, &bytes);
    sm_weights *w = sm_weights_new(&mem, &e);
    sm_tensors *f = w ? sm_tensors_open_mem(file, bytes, "fuzz", &mem, &e) : NULL;
    if (!f || sm_layout_into(f, w, SM_COMPONENTS, &r, &mem, &e) || sm_detect(w, &r, "fuzz", &d, &e))
        check(one_line(&e));
    else if (d.family && !d.missing[0])
        use(w, &d, &mem);
    sm_weights_unref(&w);
    check(mem.total == 0);
    free(file);
    return 0;
}
