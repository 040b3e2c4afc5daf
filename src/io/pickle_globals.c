/* The globals that a checkpoint may name, and nothing else: what torch.save writes for tensors (torch/_utils.py,
 * torch/storage.py), and what training frameworks leave beside a state dict that says nothing about tensors. */
#include "io/pickle.h"

#include <string.h>

#include "graph/graph.h"

static const sm_pk_dtype dtypes[] = {
    {"FloatStorage", "float32", "F32", 4, 4, SM_F32},
    {"HalfStorage", "float16", "F16", 2, 2, SM_F16},
    {"BFloat16Storage", "bfloat16", "BF16", 2, 2, SM_BF16},
    {"DoubleStorage", "float64", "F64", 8, 8, SM_F32},
    {"IntStorage", "int32", "I32", 4, 4, SM_I32},
    {"LongStorage", "int64", "I64", 8, 8, -1},
    {"ShortStorage", "int16", "I16", 2, 2, -1},
    {"CharStorage", "int8", "I8", 1, 1, -1},
    {"ByteStorage", "uint8", "U8", 1, 1, -1},
    {"BoolStorage", "bool", "BOOL", 1, 1, -1},
    {"ComplexFloatStorage", "complex64", "C64", 8, 4, -1},
    {NULL, "uint16", "U16", 2, 2, -1},
    {NULL, "uint32", "U32", 4, 4, -1},
    {NULL, "uint64", "U64", 8, 8, -1},
    {NULL, "float8_e4m3fn", "F8_E4M3", 1, 1, -1},
    {NULL, "float8_e5m2", "F8_E5M2", 1, 1, -1},
    {"UntypedStorage", NULL, "U8", 1, 1, -1}, /* bytes; _rebuild_tensor_v3 says the type */
};

#define TORCH_TYPES(I) {"torch", NULL, SM_PK_G_STORAGE, &dtypes[I]}, {"torch", NULL, SM_PK_G_DTYPE, &dtypes[I]}

/* Rows without a name have that of their type. */
static const sm_pk_global globals[] = {
    TORCH_TYPES(0), TORCH_TYPES(1), TORCH_TYPES(2), TORCH_TYPES(3), TORCH_TYPES(4), TORCH_TYPES(5), TORCH_TYPES(6),
    TORCH_TYPES(7), TORCH_TYPES(8),
    TORCH_TYPES(9), TORCH_TYPES(10), TORCH_TYPES(11), TORCH_TYPES(12), TORCH_TYPES(13), TORCH_TYPES(14), TORCH_TYPES(15),
    TORCH_TYPES(16),
    {"torch.storage", NULL, SM_PK_G_STORAGE, &dtypes[16]},
    {"torch._utils", "_rebuild_tensor", SM_PK_G_TENSOR, NULL},
    {"torch._utils", "_rebuild_tensor_v2", SM_PK_G_TENSOR_V2, NULL},
    {"torch._utils", "_rebuild_tensor_v3", SM_PK_G_TENSOR_V3, NULL},
    {"torch._utils", "_rebuild_parameter", SM_PK_G_PARAMETER, NULL},
    {"torch._utils", "_rebuild_parameter_with_state", SM_PK_G_PARAMETER_STATE, NULL},
    {"torch", "Size", SM_PK_G_SEQUENCE, NULL},
    {"torch", "device", SM_PK_G_OPAQUE, NULL},
    {"collections", "OrderedDict", SM_PK_G_DICT, NULL},
    {"builtins", "set", SM_PK_G_SEQUENCE, NULL},
    {"__builtin__", "set", SM_PK_G_SEQUENCE, NULL}, /* Python 2's name */
    /* How protocols 1 and 2 spell bytes, and what notes of a training are made of. */
    {"_codecs", "encode", SM_PK_G_OPAQUE, NULL},
    {"numpy", "dtype", SM_PK_G_OPAQUE, NULL},
    {"numpy.core.multiarray", "scalar", SM_PK_G_OPAQUE, NULL},
    {"numpy._core.multiarray", "scalar", SM_PK_G_OPAQUE, NULL},
    {"pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", SM_PK_G_LABEL, NULL}, /* a key of SD 1.x's checkpoints */
};

static bool same(const char *a, const char *s, size_t n) { return a && strlen(a) == n && !memcmp(a, s, n); }

const sm_pk_global *sm_pk_global_find(const char *module, size_t nmodule, const char *name, size_t nname)
{
    for (size_t i = 0; i < SM_COUNT(globals); i++) {
        const sm_pk_global *g = &globals[i];
        const char *own = g->name ? g->name : g->call == SM_PK_G_STORAGE ? g->type->storage : g->type->torch;
        if (same(own, name, nname) && same(g->module, module, nmodule))
            return g;
    }
    return NULL;
}
