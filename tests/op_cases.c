/* The table of op cases: odd sizes, tails, ones, strided parameters, long reductions (see op_cases.h). */
#include "op_cases.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define RANK(...) (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))
#define S(TYPE, FILL, ...) {true, RANK(__VA_ARGS__), {__VA_ARGS__}, TYPE, FILL}
#define F(...) S(SM_F32, FILL_UNIFORM, __VA_ARGS__)
#define H(...) S(SM_F16, FILL_UNIFORM, __VA_ARGS__)
#define B(...) S(SM_BF16, FILL_UNIFORM, __VA_ARGS__)
#define MASK(...) S(SM_F32, FILL_MASK, __VA_ARGS__)
#define GRID(...) S(SM_F32, FILL_GRID, __VA_ARGS__)
#define IDS(...) S(SM_I32, FILL_IDS, __VA_ARGS__)
#define NONE {false}
#define C(ID, ...) {.op = SM_OP_##ID, .src = {__VA_ARGS__}
#define P(...) , .p = {__VA_ARGS__}
#define BATCH(bits) , .batch = bits
#define BENCH , .bench = true

/* stride, dilation, groups, padding top bottom left right */
#define CONV(sy, sx, dy, dx, g, t, b, l, r) .conv.stride = {sy, sx}, .conv.dil = {dy, dx}, \
    .conv.groups = g, .conv.pad = {t, b, l, r}
#define SIZE(h, w) .conv.size = {h, w}
#define POOL(k, s, pd) .pool = {{k, k}, {s, s}, {pd, pd}}
#define PERM(...) .perm = {{__VA_ARGS__}}
#define TOKENS(h, w, sy, sx, r) .tokens = {{h, w}, {sy, sx}, r}
#define TO(...) .shape = {RANK(__VA_ARGS__), {__VA_ARGS__}}

#define UNARY(ID, FX)                                                                                       \
    C(ID, FX(1)) BATCH(1)}, C(ID, FX(5, 7)) BATCH(1)}, C(ID, FX(3, 16, 4)) BATCH(1)}, C(ID, FX(2, 33)) BATCH(1)}, \
    C(ID, F(40000))}, C(ID, F(64, 16, 16, 64)) BENCH},                                                      \
    C(ID##_DX, FX(1), F(1)) BATCH(3)}, C(ID##_DX, FX(5, 7), F(5, 7)) BATCH(3)}, C(ID##_DX, FX(2, 33), F(2, 33)) BATCH(3)}, \
    C(ID##_DX, F(40000), F(40000))}, C(ID##_DX, F(64, 16, 16, 64), F(64, 16, 16, 64)) BENCH},

#define BINARY(ID)                                                                                          \
    C(ID, F(1), F(1)) BATCH(3)}, C(ID, F(3, 5, 7), F(3, 5, 7)) BATCH(3)}, C(ID, F(3, 37), F(1)) BATCH(1)},  \
    C(ID, F(1), F(19)) BATCH(2)},                                                                           \
    C(ID, F(2, 3, 5, 17), F(17)) BATCH(1)}, C(ID, F(2, 4, 3, 20), F(2, 1, 1, 20)) BATCH(3)},                \
    C(ID, F(2, 1, 1, 20), F(2, 4, 3, 20)) BATCH(3)}, C(ID, F(2, 9, 1), F(2, 1, 11)) BATCH(3)},              \
    C(ID, F(3, 7, 1), F(3, 7, 9)) BATCH(3)},                                                                \
    C(ID, F(2, 3, 4, 5), F(3, 1, 5)) BATCH(1)}, C(ID, F(2, 1, 3, 1, 5), F(4, 1, 6, 5)) BATCH(1)},           \
    C(ID, F(5, 1), F(1, 1, 1, 3))},                                                                         \
    C(ID, F(3, 13000), F(3, 13000)) BATCH(3)}, C(ID, F(64, 16, 16, 64), F(64, 16, 16, 64)) BENCH},          \
    C(ID, F(64, 16, 16, 64), F(64, 1, 1, 64)) BENCH}, C(ID, F(64, 16, 16, 64), F(64)) BENCH},               \
    C(ID, F(64, 16, 16, 64), F(1)) BENCH},

#define GN(g) P(.norm = {.groups = g, .eps = 1e-5f})
#define ROW GN(1)

const op_case op_cases[] = {
    C(LINEAR, F(1, 1), F(1, 1)) BATCH(1)}, C(LINEAR, F(3, 5), F(7, 5), F(7)) BATCH(1)},
    C(LINEAR, F(2, 9, 33), F(17, 33), F(17)) BATCH(1)},
    C(LINEAR, F(2, 17), H(31, 17), H(31)) BATCH(1)}, C(LINEAR, F(2, 3, 18), B(9, 18), B(9)) BATCH(1)},
    C(LINEAR, F(4, 130), F(1, 130), NONE) BATCH(1)},
    C(LINEAR, F(1, 64), F(96, 64), F(96)) BATCH(1)}, C(LINEAR, F(3, 50, 48), F(40, 48)) BATCH(1)},
    C(LINEAR, F(7, 3000), F(5, 3000)) BATCH(1)}, C(LINEAR, F(5), F(3, 5), F(3))},
    C(LINEAR, F(64, 64, 256), F(1024, 256), F(1024)) BENCH}, C(LINEAR, F(64, 256, 128), F(128, 128), F(128)) BENCH},
    C(MATMUL, F(1, 1), F(1, 1))}, C(MATMUL, F(5, 7), F(7, 3))}, C(MATMUL, F(7, 5), F(7, 3)) P(.matmul = {1, 0})},
    C(MATMUL, F(5, 7), F(3, 7)) P(.matmul = {0, 1})}, C(MATMUL, F(7, 5), F(3, 7)) P(.matmul = {1, 1})},
    C(MATMUL, F(3, 2, 9, 17), F(3, 2, 17, 33)) BATCH(3)}, C(MATMUL, F(2, 40, 19), F(2, 40, 35)) P(.matmul = {1, 0}) BATCH(3)},
    C(MATMUL, F(2, 13, 20), F(2, 50, 20)) P(.matmul = {0, 1}) BATCH(3)}, C(MATMUL, F(3000, 5), F(3000, 9)) P(.matmul = {1, 0})},
    C(MATMUL, F(16384, 128), F(16384, 128)) P(.matmul = {1, 0}) BENCH}, C(MATMUL, F(4096, 1024), F(1024, 256)) BENCH},

    C(CONV2D, F(1, 1, 1, 1), F(1, 1, 1, 1)) P(CONV(1, 1, 1, 1, 1, 0, 0, 0, 0)) BATCH(1)},
    C(CONV2D, F(2, 5, 7, 3), F(4, 3, 3, 3), F(4)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 1)) BATCH(1)},
    C(CONV2D, F(2, 6, 5, 17), F(19, 17, 3, 3), F(19)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 1)) BATCH(1)},
    C(CONV2D, F(1, 8, 9, 16), F(33, 16, 3, 3)) P(CONV(2, 2, 1, 1, 1, 1, 1, 1, 1)) BATCH(1)},
    /* channels just below a multiple of a block's steps, on each instruction set, with pixels outside */
    C(CONV2D, F(1, 3, 3, 511), F(3, 511, 3, 3)) P(CONV(2, 2, 1, 1, 1, 1, 1, 1, 1)) BATCH(1)},
    C(CONV2D, F(1, 3, 3, 1023), F(3, 1023, 3, 3)) P(CONV(2, 2, 1, 1, 1, 1, 1, 1, 1)) BATCH(1)},
    C(CONV2D, F(1, 3, 3, 1535), F(3, 1535, 3, 3)) P(CONV(2, 2, 1, 1, 1, 1, 1, 1, 1)) BATCH(1)},
    C(CONV2D, F(2, 8, 8, 5), F(6, 5, 3, 3), F(6)) P(CONV(2, 2, 1, 1, 1, 0, 1, 0, 1)) BATCH(1)},
    C(CONV2D, F(1, 9, 11, 4), F(6, 2, 3, 2), F(6)) P(CONV(1, 2, 2, 1, 2, 2, 0, 1, 3)) BATCH(1)},
    C(CONV2D, F(2, 6, 6, 8), F(8, 1, 3, 3), F(8)) P(CONV(1, 1, 1, 1, 8, 1, 1, 1, 1)) BATCH(1)},
    C(CONV2D, F(2, 5, 6, 7), F(9, 7, 1, 1), F(9)) P(CONV(1, 1, 1, 1, 1, 0, 0, 0, 0)) BATCH(1)},
    C(CONV2D, F(2, 7, 7, 6), F(5, 6, 1, 1)) P(CONV(2, 2, 1, 1, 1, 0, 0, 0, 0)) BATCH(1)},
    C(CONV2D, F(2, 5, 6, 3), F(4, 3, 3, 3), F(4)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 1), .conv.circular = {1, 1}) BATCH(1)},
    C(CONV2D, F(1, 6, 5, 3), F(4, 3, 3, 5)) P(CONV(1, 1, 1, 1, 1, 1, 1, 2, 2), .conv.circular = {0, 1}) BATCH(1)},
    C(CONV2D, F(2, 5, 7, 6), H(8, 6, 3, 3), H(8)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 1)) BATCH(1)},
    C(CONV2D, F(2, 5, 7, 6), B(8, 6, 3, 3), B(8)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 1)) BATCH(1)},
    C(CONV2D, F(1, 8, 8, 4), F(5, 4, 4, 4)) P(CONV(4, 4, 1, 1, 1, 0, 0, 0, 0)) BATCH(1)},
    C(CONV2D, F(1, 6, 6, 260), F(3, 260, 3, 3)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 1)) BATCH(1)},
    C(CONV2D, F(32, 16, 16, 128), F(128, 128, 3, 3), F(128)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 1)) BENCH},
    C(CONV2D_DX, F(1, 1, 1, 1), F(1, 1, 1, 1)) P(CONV(1, 1, 1, 1, 1, 0, 0, 0, 0), SIZE(1, 1)) BATCH(1)},
    C(CONV2D_DX, F(2, 5, 7, 4), F(4, 3, 3, 3), F(3)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 1), SIZE(5, 7)) BATCH(1)},
    C(CONV2D_DX, F(2, 6, 5, 19), F(19, 17, 3, 3)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 1), SIZE(6, 5)) BATCH(1)},
    C(CONV2D_DX, F(1, 4, 5, 33), F(33, 16, 3, 3)) P(CONV(2, 2, 1, 1, 1, 1, 1, 1, 1), SIZE(8, 9)) BATCH(1)},
    C(CONV2D_DX, F(2, 4, 4, 6), F(6, 5, 4, 4), F(5)) P(CONV(2, 2, 1, 1, 1, 1, 1, 1, 1), SIZE(8, 8)) BATCH(1)},
    C(CONV2D_DX, F(1, 7, 7, 6), F(6, 2, 3, 2)) P(CONV(1, 2, 2, 1, 2, 2, 0, 1, 3), SIZE(9, 11)) BATCH(1)},
    C(CONV2D_DX, F(2, 6, 6, 8), F(8, 1, 3, 3)) P(CONV(1, 1, 1, 1, 8, 1, 1, 1, 1), SIZE(6, 6)) BATCH(1)},
    C(CONV2D_DX, F(2, 5, 6, 9), F(9, 7, 1, 1)) P(CONV(1, 1, 1, 1, 1, 0, 0, 0, 0), SIZE(5, 6)) BATCH(1)},
    C(CONV2D_DX, F(2, 5, 6, 4), F(4, 3, 3, 3)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 1), SIZE(5, 6), .conv.circular = {1, 1}) BATCH(1)},
    C(CONV2D_DX, F(2, 3, 3, 6), H(6, 5, 3, 3)) P(CONV(2, 2, 1, 1, 1, 1, 1, 1, 1), SIZE(6, 5)) BATCH(1)},
    C(CONV2D_DX, F(2, 6, 5, 19), H(19, 37, 3, 3)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 1), SIZE(6, 5)) BATCH(1)},
    C(CONV2D_DX, F(1, 3, 3, 21), B(21, 70, 3, 3)) P(CONV(2, 2, 1, 1, 1, 1, 1, 1, 1), SIZE(6, 5)) BATCH(1)},
    C(CONV2D_DX, F(1, 3, 2, 300), H(300, 60, 1, 1)) P(CONV(1, 1, 1, 1, 1, 0, 0, 0, 0), SIZE(3, 2)) BATCH(1)},
    C(CONV2D_DX, F(1, 4, 4, 17), H(17, 37, 4, 4)) P(CONV(2, 2, 1, 1, 1, 1, 1, 1, 1), SIZE(8, 8)) BATCH(1)},
    C(CONV2D_DX, F(1, 4, 4, 5), H(5, 19, 5, 5)) P(CONV(2, 2, 1, 1, 1, 2, 2, 2, 2), SIZE(8, 8)) BATCH(1)},
    C(CONV2D_DX, F(1, 5, 4, 6), H(6, 19, 3, 2)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 0), SIZE(5, 4)) BATCH(1)},
    C(CONV2D_DX, F(32, 16, 16, 128), F(128, 128, 3, 3)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 1), SIZE(16, 16)) BENCH},
    C(CONV2D_DW, F(1, 1, 1, 1), F(1, 1, 1, 1)) P(CONV(1, 1, 1, 1, 1, 0, 0, 0, 0), SIZE(1, 1))},
    C(CONV2D_DW, F(2, 5, 7, 3), F(2, 5, 7, 4)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 1), SIZE(3, 3))},
    C(CONV2D_DW, F(3, 6, 5, 17), F(3, 6, 5, 19)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 1), SIZE(3, 3))},
    C(CONV2D_DW, F(1, 8, 9, 16), F(1, 4, 5, 33)) P(CONV(2, 2, 1, 1, 1, 1, 1, 1, 1), SIZE(3, 3))},
    C(CONV2D_DW, F(1, 9, 11, 4), F(1, 7, 7, 6)) P(CONV(1, 2, 2, 1, 2, 2, 0, 1, 3), SIZE(3, 2))},
    C(CONV2D_DW, F(2, 6, 6, 8), F(2, 6, 6, 8)) P(CONV(1, 1, 1, 1, 8, 1, 1, 1, 1), SIZE(3, 3))},
    C(CONV2D_DW, F(2, 5, 6, 7), F(2, 5, 6, 9)) P(CONV(1, 1, 1, 1, 1, 0, 0, 0, 0), SIZE(1, 1))},
    C(CONV2D_DW, F(2, 5, 6, 3), F(2, 5, 6, 4)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 1), SIZE(3, 3), .conv.circular = {1, 1})},
    C(CONV2D_DW, F(2, 33, 35, 3), F(2, 33, 35, 2)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 1), SIZE(3, 3))},
    C(CONV2D_DW, F(32, 16, 16, 128), F(32, 16, 16, 128)) P(CONV(1, 1, 1, 1, 1, 1, 1, 1, 1), SIZE(3, 3)) BENCH},

    C(GROUP_NORM, F(2, 3, 5, 6), F(6), F(6)) GN(2) BATCH(1)}, C(GROUP_NORM, F(1, 2), NONE, NONE) GN(1) BATCH(1)},
    C(GROUP_NORM, F(3, 7, 40), F(40), F(40)) GN(8) BATCH(1)}, C(GROUP_NORM, F(2, 70, 66), H(66), B(66)) GN(3) BATCH(1)},
    C(GROUP_NORM, F(9, 5, 5, 32), F(32), F(32)) GN(32) BATCH(1)}, C(GROUP_NORM, F(2, 30, 40, 36), F(36), F(36)) GN(4) BATCH(1)},
    C(GROUP_NORM, F(32, 16, 16, 128), F(128), F(128)) GN(32) BENCH},
    C(GROUP_NORM, F(1, 128, 128, 64), F(64), F(64)) GN(32) BENCH},
    C(GROUP_NORM_DX, F(2, 3, 5, 6), F(2, 3, 5, 6), F(6)) GN(2) BATCH(3)},
    C(GROUP_NORM_DX, F(3, 7, 40), F(3, 7, 40), NONE) GN(8) BATCH(3)},
    C(GROUP_NORM_DX, F(2, 30, 40, 36), F(2, 30, 40, 36), F(36)) GN(4) BATCH(3)},
    C(GROUP_NORM_DX, F(9, 5, 5, 32), F(9, 5, 5, 32), F(32)) GN(32) BATCH(3)},
    C(GROUP_NORM_DX, F(32, 16, 16, 128), F(32, 16, 16, 128), F(128)) GN(32) BENCH},
    C(GROUP_STATS, F(1, 1, 1, 2)) GN(1)}, C(GROUP_STATS, F(2, 3, 5, 6)) GN(2)},
    C(GROUP_STATS, F(3, 9, 11, 40)) P(.norm = {8, 0, {2, 1, 3, 4}})},
    C(GROUP_STATS, F(1, 60, 50, 36)) P(.norm = {4, 0, {0, 7, 0, 0}})},
    C(GROUP_NORM_BY, F(2, 3, 5, 6), F(2, 2), F(6), F(6)) GN(2) BATCH(1)}, C(GROUP_NORM_BY, F(3, 7, 40), F(2, 8)) GN(8) BATCH(1)},
    C(GROUP_NORM_BY, F(2, 70, 66), F(2, 3), H(66), B(66)) GN(3) BATCH(1)},
    C(GROUP_NORM_DP, F(2, 3, 5, 6), F(2, 3, 5, 6)) GN(2)}, C(GROUP_NORM_DP, F(9, 5, 5, 32), F(9, 5, 5, 32)) GN(4)},
    C(GROUP_NORM_DP, F(2, 30, 40, 36), F(2, 30, 40, 36)) GN(4)},
    C(GROUP_NORM_DP, F(32, 16, 16, 128), F(32, 16, 16, 128)) GN(32) BENCH},
    C(LAYER_NORM, F(2, 3, 5), F(5), F(5)) ROW BATCH(1)}, C(LAYER_NORM, F(3), F(3), F(3)) ROW},
    C(LAYER_NORM, F(4, 48), NONE, NONE) ROW BATCH(1)},
    C(LAYER_NORM, F(3, 7, 33), F(33), NONE) ROW BATCH(1)}, C(LAYER_NORM, F(2, 5, 40), H(40), B(40)) ROW BATCH(1)},
    C(LAYER_NORM, F(2, 5000), F(5000), F(5000)) ROW BATCH(1)}, C(LAYER_NORM, F(64, 64, 256), F(256), F(256)) ROW BENCH},
    C(LAYER_NORM_DX, F(2, 3, 5), F(2, 3, 5), F(5)) ROW BATCH(3)}, C(LAYER_NORM_DX, F(4, 48), F(4, 48), NONE) ROW BATCH(3)},
    C(LAYER_NORM_DX, F(3, 7, 33), F(3, 7, 33), F(33)) ROW BATCH(3)},
    C(LAYER_NORM_DX, F(64, 64, 256), F(64, 64, 256), F(256)) ROW BENCH},
    C(LAYER_NORM_DP, F(2, 3, 5), F(2, 3, 5)) ROW}, C(LAYER_NORM_DP, F(2, 70, 33), F(2, 70, 33)) ROW},
    C(LAYER_NORM_DP, F(300, 48), F(300, 48)) ROW}, C(LAYER_NORM_DP, F(64, 64, 256), F(64, 64, 256)) ROW BENCH},
    C(RMS_NORM, F(2, 3, 5), F(5)) ROW BATCH(1)}, C(RMS_NORM, F(2, 3, 2, 64), F(64)) ROW BATCH(1)},
    C(RMS_NORM, F(3, 17), NONE) ROW BATCH(1)},
    C(RMS_NORM, F(2, 5, 40), B(40)) ROW BATCH(1)}, C(RMS_NORM, F(64, 64, 4, 64), F(64)) ROW BENCH},
    C(RMS_NORM_DX, F(2, 3, 5), F(2, 3, 5), F(5)) ROW BATCH(3)}, C(RMS_NORM_DX, F(3, 17), F(3, 17), NONE) ROW BATCH(3)},
    C(RMS_NORM_DX, F(2, 3, 2, 64), F(2, 3, 2, 64), F(64)) ROW BATCH(3)},
    C(RMS_NORM_DP, F(2, 3, 5), F(2, 3, 5)) ROW}, C(RMS_NORM_DP, F(3, 50, 2, 40), F(3, 50, 2, 40)) ROW},

    C(ATTENTION, F(1, 1, 1, 1), F(1, 1, 1, 1), F(1, 1, 1, 1)) BATCH(7)},
    C(ATTENTION, F(2, 5, 3, 4), F(2, 7, 3, 4), F(2, 7, 3, 6)) BATCH(7)},
    C(ATTENTION, F(2, 16, 2, 16), F(2, 16, 2, 16), F(2, 16, 2, 16)) BATCH(7)},
    C(ATTENTION, F(1, 67, 2, 40), F(1, 77, 2, 40), F(1, 77, 2, 40)) P(.attn = {0.3f, 0}) BATCH(7)},
    C(ATTENTION, F(2, 9, 2, 20), F(2, 9, 2, 20), F(2, 9, 2, 20)) P(.attn = {0, 1}) BATCH(7)},
    /* the last key alone in its tile */
    C(ATTENTION, F(1, 129, 1, 8), F(1, 129, 1, 8), F(1, 129, 1, 8)) P(.attn = {0, 1}) BATCH(7)},
    C(ATTENTION, F(2, 5, 2, 8), F(2, 12, 2, 8), F(2, 12, 2, 8)) P(.attn = {0, 1}) BATCH(7)},
    C(ATTENTION, F(1, 9, 1, 8), F(1, 4, 1, 8), F(1, 4, 1, 8)) P(.attn = {0, 1}) BATCH(7)},
    C(ATTENTION, F(2, 11, 3, 8), F(2, 19, 3, 8), F(2, 19, 3, 8), MASK(2, 3, 11, 19)) BATCH(15)},
    C(ATTENTION, F(2, 11, 3, 8), F(2, 19, 3, 8), F(2, 19, 3, 8), MASK(2, 1, 1, 19)) BATCH(15)},
    C(ATTENTION, F(2, 6, 3, 8), F(2, 6, 3, 8), F(2, 6, 3, 8), MASK(1, 3, 6, 6)) P(.attn = {0, 1}) BATCH(7)},
    C(ATTENTION, F(1, 60, 1, 24), F(1, 600, 1, 24), F(1, 600, 1, 24), MASK(1, 1, 1, 600)) BATCH(7)},
    C(ATTENTION, F(1, 300, 1, 8), F(1, 300, 1, 8), F(1, 300, 1, 8)) P(.attn = {0, 1}) BATCH(7)},
    C(ATTENTION, F(1, 20, 1, 512), F(1, 70, 1, 512), F(1, 70, 1, 512)) BATCH(7)},
    /* blocks of queries, tiles of keys and pieces of heads with rests, each with a mask of its own or the future hidden */
    C(ATTENTION, F(2, 70, 2, 13), F(2, 300, 2, 13), F(2, 300, 2, 10), MASK(2, 2, 70, 300)) BATCH(15)},
    C(ATTENTION, F(1, 250, 1, 6), F(1, 200, 1, 6), F(1, 200, 1, 9), MASK(1, 1, 250, 200)) P(.attn = {-0.7f, 1}) BATCH(7)},
    C(ATTENTION, F(1, 37, 1, 270), F(1, 150, 1, 270), F(1, 150, 1, 33)) P(.attn = {0, 1}) BATCH(7)},
    C(ATTENTION, F(64, 64, 4, 64), F(64, 64, 4, 64), F(64, 64, 4, 64)) BENCH},
    C(ATTENTION, F(64, 64, 4, 32), F(64, 77, 4, 32), F(64, 77, 4, 32)) BENCH},
    C(ATTENTION, F(16, 256, 4, 32), F(16, 256, 4, 32), F(16, 256, 4, 32)) BENCH},
    C(ATTENTION, F(64, 16, 8, 64), F(64, 16, 8, 64), F(64, 16, 8, 64)) BENCH},
    C(ATTENTION, F(1, 1024, 8, 64), F(1, 1024, 8, 64), F(1, 1024, 8, 64)) BENCH},
    C(ATTENTION, F(1, 4096, 8, 40), F(1, 4096, 8, 40), F(1, 4096, 8, 40)) BENCH},
    C(ATTENTION, F(1, 1024, 8, 80), F(1, 1024, 8, 80), F(1, 1024, 8, 80)) BENCH},
    C(ATTENTION, F(1, 256, 8, 160), F(1, 256, 8, 160), F(1, 256, 8, 160)) BENCH},
    C(ATTENTION, F(1, 4096, 8, 40), F(1, 77, 8, 40), F(1, 77, 8, 40)) BENCH},
    C(ATTENTION, F(1, 4096, 1, 512), F(1, 4096, 1, 512), F(1, 4096, 1, 512)) BENCH},
    C(ATTENTION_GRAD, F(1, 1, 1, 1), F(1, 1, 1, 1), F(1, 1, 1, 1), F(1, 1, 1, 1))},
    C(ATTENTION_GRAD, F(2, 5, 3, 4), F(2, 7, 3, 4), F(2, 7, 3, 6), F(2, 5, 3, 6))},
    C(ATTENTION_GRAD, F(1, 67, 2, 40), F(1, 77, 2, 40), F(1, 77, 2, 40), F(1, 67, 2, 40)) P(.attn = {0.3f, 0})},
    C(ATTENTION_GRAD, F(2, 9, 2, 20), F(2, 13, 2, 20), F(2, 13, 2, 20), F(2, 9, 2, 20)) P(.attn = {0, 1})},
    C(ATTENTION_GRAD, F(1, 9, 1, 8), F(1, 4, 1, 8), F(1, 4, 1, 8), F(1, 9, 1, 8)) P(.attn = {0, 1})},
    C(ATTENTION_GRAD, F(2, 11, 3, 8), F(2, 19, 3, 8), F(2, 19, 3, 8), F(2, 11, 3, 8), MASK(2, 3, 11, 19))},
    C(ATTENTION_GRAD, F(2, 11, 3, 8), F(2, 19, 3, 8), F(2, 19, 3, 8), F(2, 11, 3, 8), MASK(2, 1, 1, 19))},
    C(ATTENTION_GRAD, F(2, 70, 2, 13), F(2, 130, 2, 13), F(2, 130, 2, 10), F(2, 70, 2, 10), MASK(2, 2, 70, 130))},
    C(ATTENTION_GRAD, F(1, 100, 1, 30), F(1, 60, 1, 30), F(1, 60, 1, 9), F(1, 100, 1, 9),
      MASK(1, 1, 100, 60)) P(.attn = {-0.7f, 1})},
    C(ATTENTION_GRAD, F(1, 60, 2, 205), F(1, 150, 2, 205), F(1, 150, 2, 16), F(1, 60, 2, 16)) P(.attn = {0, 1})},
    C(ATTENTION_GRAD, F(64, 64, 4, 64), F(64, 64, 4, 64), F(64, 64, 4, 64), F(64, 64, 4, 64)) BENCH},
    C(ATTENTION_GRAD, F(64, 64, 4, 32), F(64, 77, 4, 32), F(64, 77, 4, 32), F(64, 64, 4, 32)) BENCH},
    C(ATTENTION_GRAD, F(64, 16, 8, 64), F(64, 16, 8, 64), F(64, 16, 8, 64), F(64, 16, 8, 64)) BENCH},
    C(ATTENTION_GRAD, F(1, 1024, 8, 40), F(1, 1024, 8, 40), F(1, 1024, 8, 40), F(1, 1024, 8, 40)) BENCH},
    C(ROPE, F(1, 1, 1, 2), F(1, 1), F(1, 1)) BATCH(1)}, C(ROPE, F(2, 5, 3, 34), F(5, 17), F(5, 17)) BATCH(1)},
    C(ROPE, F(2, 5, 3, 34), F(5, 17), F(5, 17)) P(.rope = {1, 0}) BATCH(1)},
    C(ROPE, F(2, 4, 2, 16), F(4, 8), F(4, 8)) P(.rope = {0, 1}) BATCH(1)},
    C(ROPE, F(2, 4, 2, 6), F(4, 3), F(4, 3)) P(.rope = {1, 1}) BATCH(1)},
    C(SOFTMAX, F(1)) BATCH(0)}, C(SOFTMAX, F(3, 5)) BATCH(1)}, C(SOFTMAX, F(2, 3, 33)) BATCH(1)},
    C(SOFTMAX, F(2, 5000)) BATCH(1)}, C(SOFTMAX, F(4096, 64)) BENCH},
    C(SOFTMAX_DX, F(3, 5), F(3, 5)) BATCH(3)}, C(SOFTMAX_DX, F(2, 3, 33), F(2, 3, 33)) BATCH(3)},
    C(SOFTMAX_DX, F(1, 1), F(1, 1)) BATCH(3)},
    C(LOG_SOFTMAX, F(1, 1)) BATCH(1)}, C(LOG_SOFTMAX, F(3, 5)) BATCH(1)}, C(LOG_SOFTMAX, F(2, 3, 50)) BATCH(1)},

    C(AFFINE, F(1)) P(.affine = {2, -1}) BATCH(1)}, C(AFFINE, F(3, 7)) P(.affine = {0.3f, 0.7f}) BATCH(1)},
    C(AFFINE, F(40000)) P(.affine = {-1.5f, 0})}, C(AFFINE, F(64, 16, 16, 64)) P(.affine = {0.5f, 1}) BENCH},
    UNARY(SILU, F) UNARY(GELU_TANH, F) UNARY(GELU_ERF, F) UNARY(QUICK_GELU, F) UNARY(RELU, GRID) UNARY(SIGMOID, F) UNARY(TANH, F)
    UNARY(EXP, F) UNARY(LOG, F) UNARY(SQRT, F) UNARY(SIN, F) UNARY(COS, F) UNARY(ABS, GRID) UNARY(SQUARE, F)
    BINARY(ADD) BINARY(SUB) BINARY(MUL) BINARY(DIV)

    C(RESHAPE, F(2, 6)) P(TO(3, 4))}, C(RESHAPE, F(5)) P(TO(1, 5, 1))},
    C(PERMUTE, F(3)) P(PERM(0))}, C(PERMUTE, F(5, 7)) P(PERM(1, 0))}, C(PERMUTE, F(2, 33, 18)) P(PERM(0, 2, 1)) BATCH(1)},
    C(PERMUTE, F(3, 4, 5)) P(PERM(2, 0, 1))},
    C(PERMUTE, F(2, 3, 4, 5)) P(PERM(0, 2, 1, 3)) BATCH(1)}, C(PERMUTE, F(2, 3, 4, 5)) P(PERM(3, 1, 2, 0))},
    C(PERMUTE, F(2, 3, 4, 5, 2, 2)) P(PERM(0, 1, 4, 2, 5, 3)) BATCH(1)},
    C(PERMUTE, F(1, 20, 1, 19)) P(PERM(3, 0, 2, 1))}, C(PERMUTE, F(2, 2, 3, 2, 3, 2)) P(PERM(5, 4, 3, 2, 1, 0))},
    C(PERMUTE, F(150, 140)) P(PERM(1, 0))},
    C(PERMUTE, F(64, 64, 256)) P(PERM(0, 2, 1)) BENCH}, C(PERMUTE, F(64, 64, 4, 64)) P(PERM(0, 2, 1, 3)) BENCH},
    C(CONCAT, F(3, 4)) P(.axis = {0})}, C(CONCAT, F(2, 3), F(4, 3)) P(.axis = {0})},
    C(CONCAT, F(2, 3, 5), F(2, 1, 5), F(2, 4, 5)) P(.axis = {1}) BATCH(7)},
    C(CONCAT, F(2, 3, 17), F(2, 3, 1)) P(.axis = {-1}) BATCH(3)}, C(CONCAT, F(3, 6000), F(3, 6001)) P(.axis = {1}) BATCH(3)},
    C(CONCAT, F(64, 16, 16, 64), F(64, 16, 16, 64)) P(.axis = {3}) BENCH},
    C(SLICE, F(5)) P(.slice = {0, 2, 2})}, C(SLICE, F(4, 5, 6)) P(.slice = {1, 1, 3}) BATCH(1)},
    C(SLICE, F(3, 40)) P(.slice = {-1, 7, 19}) BATCH(1)},
    C(SLICE, F(3, 1, 4)) P(.slice = {1, 0, 1}) BATCH(1)}, C(SLICE, F(64, 64, 768)) P(.slice = {2, 256, 256}) BENCH},
    C(PAD, F(5)) P(.slice = {0, 2, 1})}, C(PAD, F(3, 2, 7)) P(.slice = {1, 0, 3}) BATCH(1)},
    C(PAD, F(3, 2, 7)) P(.slice = {-1, 5, 0}) BATCH(1)}, C(PAD, F(2, 3)) P(.slice = {1, 0, 0}) BATCH(1)},
    C(EXPAND, F(1)) P(TO(3, 5))}, C(EXPAND, F(5)) P(TO(2, 3, 5))}, C(EXPAND, F(2, 1, 7)) P(TO(2, 4, 7)) },
    C(EXPAND, F(3, 1)) P(TO(2, 3, 19))}, C(EXPAND, F(2, 1, 3, 1)) P(TO(2, 5, 3, 4))},
    C(GATHER, F(1, 1), IDS(1)) BATCH(2)}, C(GATHER, F(7, 19), IDS(2, 5)) BATCH(2)}, C(GATHER, H(9, 21), IDS(4)) BATCH(2)},
    C(GATHER, B(9, 40), IDS(3, 2, 2)) BATCH(2)},
    C(SCATTER_ADD, F(1, 1), IDS(1)) P(.slice = {0, 0, 1})}, C(SCATTER_ADD, F(3, 9, 19), IDS(3, 9)) P(.slice = {0, 0, 7})},
    C(SCATTER_ADD, F(50, 33), IDS(50)) P(.slice = {0, 0, 600})},
    C(SCATTER_ADD, F(64, 24, 256), IDS(64, 24)) P(.slice = {0, 0, 4096}) BENCH},
    C(RESIZE_NEAREST, F(1, 1, 1, 1)) P(.resize = {{2, 3}}) BATCH(1)},
    C(RESIZE_NEAREST, F(2, 3, 5, 7)) P(.resize = {{6, 10}}) BATCH(1)},
    C(RESIZE_NEAREST, F(2, 5, 4, 3)) P(.resize = {{3, 7}}) BATCH(1)},
    C(RESIZE_NEAREST, F(32, 8, 8, 128)) P(.resize = {{16, 16}}) BENCH},
    C(RESIZE_NEAREST_DX, F(2, 6, 10, 7)) P(.resize = {{3, 5}}) BATCH(1)},
    C(RESIZE_NEAREST_DX, F(2, 3, 7, 3)) P(.resize = {{5, 4}}) BATCH(1)},
    C(RESIZE_NEAREST_DX, F(32, 16, 16, 128)) P(.resize = {{8, 8}}) BENCH},
    C(RESIZE_BILINEAR, F(1, 1, 1, 1)) P(.resize = {{2, 3}}) BATCH(1)},
    C(RESIZE_BILINEAR, F(2, 3, 5, 7)) P(.resize = {{6, 10}}) BATCH(1)},
    C(RESIZE_BILINEAR, F(2, 9, 8, 17)) P(.resize = {{4, 5}}) BATCH(1)},
    C(RESIZE_BILINEAR_DX, F(2, 6, 10, 7)) P(.resize = {{3, 5}}) BATCH(1)},
    C(RESIZE_BILINEAR_DX, F(2, 4, 5, 17)) P(.resize = {{9, 8}}) BATCH(1)},
    C(AVG_POOL, F(1, 1, 1, 1)) P(POOL(1, 1, 0)) BATCH(1)}, C(AVG_POOL, F(2, 6, 5, 7)) P(POOL(2, 2, 0)) BATCH(1)},
    C(AVG_POOL, F(2, 6, 7, 17)) P(POOL(3, 2, 1)) BATCH(1)},
    C(AVG_POOL_DX, F(2, 6, 5, 7), F(2, 3, 2, 7)) P(POOL(2, 2, 0)) BATCH(3)},
    C(AVG_POOL_DX, F(2, 6, 7, 17), F(2, 3, 4, 17)) P(POOL(3, 2, 1)) BATCH(3)},
    C(AVG_POOL_DX, F(1, 5, 5, 3), F(1, 2, 2, 3)) P(POOL(2, 3, 0)) BATCH(3)},
    C(MAX_POOL, F(1, 1, 1, 1)) P(POOL(1, 1, 0)) BATCH(1)}, C(MAX_POOL, GRID(2, 6, 5, 3)) P(POOL(2, 2, 0)) BATCH(1)},
    C(MAX_POOL, GRID(1, 6, 7, 4)) P(POOL(3, 2, 1)) BATCH(1)}, C(MAX_POOL, F(2, 9, 9, 33)) P(POOL(3, 1, 1)) BATCH(1)},
    C(MAX_POOL_DX, F(2, 6, 5, 3), F(2, 3, 2, 3)) P(POOL(2, 2, 0)) BATCH(3)},
    C(MAX_POOL_DX, F(1, 6, 7, 20), F(1, 3, 4, 20)) P(POOL(3, 2, 1)) BATCH(3)},

    C(SUM, F(1)) P(.axis = {0})}, C(SUM, F(3, 17)) P(.axis = {1}) BATCH(1)}, C(SUM, F(19, 5)) P(.axis = {0})},
    C(SUM, F(2, 30, 33)) P(.axis = {1}) BATCH(1)},
    C(SUM, F(20000)) P(.axis = {0})}, C(SUM, F(3, 9001)) P(.axis = {-1}) BATCH(1)}, C(SUM, F(1000, 7)) P(.axis = {0})},
    C(SUM, F(2, 700, 70)) P(.axis = {1}) BATCH(1)}, C(SUM, F(4194304)) P(.axis = {0}) BENCH},
    C(SUM_TO, F(3, 5)) P(TO(5))}, C(SUM_TO, F(3, 5)) P(TO(3, 5))}, C(SUM_TO, F(2, 3, 4, 17)) P(TO(17))},
    C(SUM_TO, F(2, 3, 4, 17)) P(TO(2, 1, 1, 17))},
    C(SUM_TO, F(2, 3, 4, 5)) P(TO(3, 1, 5))}, C(SUM_TO, F(3, 4, 5, 6)) P(TO(1, 4, 1, 6))}, C(SUM_TO, F(3, 4, 5)) P(TO(1))},
    C(SUM_TO, F(2, 30, 9)) P(TO(2, 30, 1))}, C(SUM_TO, F(4, 5, 6)) P(TO(1, 5, 1))}, C(SUM_TO, F(3, 400, 66)) P(TO(66))},
    C(SUM_TO, F(64, 16, 16, 64)) P(TO(64)) BENCH}, C(SUM_TO, F(64, 16, 16, 64)) P(TO(64, 1, 1, 64)) BENCH},

    C(TOKEN_MATCH, F(1, 2, 1), IDS(1)) P(TOKENS(1, 2, 1, 2, 1)) BATCH(1)},
    C(TOKEN_MATCH, F(2, 20, 5), IDS(4)) P(TOKENS(4, 5, 2, 2, 7)) BATCH(1)},
    C(TOKEN_MATCH, F(3, 56, 17), IDS(12)) P(TOKENS(7, 8, 2, 2, 0)) BATCH(1)},
    C(TOKEN_MATCH, F(2, 64, 33), IDS(16)) P(TOKENS(8, 8, 2, 2, 48)) BATCH(1)},
    C(TOKEN_MATCH, F(2, 900, 20), IDS(225)) P(TOKENS(30, 30, 2, 2, 450)) BATCH(1)},
    C(TOKEN_MATCH, F(2, 70, 400), IDS(6)) P(TOKENS(10, 7, 3, 3, 30)) BATCH(1)},
    C(TOKEN_MATCH, F(1, 4096, 320), IDS(1024)) P(TOKENS(64, 64, 2, 2, 2048)) BENCH},
    C(TOKEN_MERGE, F(1, 1, 1), IDS(1, 1)) P(.slice = {0, 0, 1}) BATCH(3)},
    C(TOKEN_MERGE, F(2, 9, 19), IDS(2, 9)) P(.slice = {0, 0, 5}) BATCH(3)},
    C(TOKEN_MERGE, F(3, 300, 130), IDS(3, 300)) P(.slice = {0, 0, 170}) BATCH(3)},
    C(TOKEN_MERGE, F(1, 4096, 320), IDS(1, 4096)) P(.slice = {0, 0, 2048}) BENCH},
    C(TOKEN_PART, F(1, 1, 1), IDS(1, 1)) P(.slice = {0, 0, 1}) BATCH(3)},
    C(TOKEN_PART, F(2, 5, 19), IDS(2, 9)) P(.slice = {0, 0, 5}) BATCH(3)},
    C(TOKEN_PART, F(3, 70, 130), IDS(3, 200)) P(.slice = {0, 0, 70}) BATCH(3)},
    C(TOKEN_PART, F(1, 2048, 320), IDS(1, 4096)) P(.slice = {0, 0, 2048}) BENCH},
};
const int op_case_count = (int)SM_COUNT(op_cases);

static int source_count(const op_case *c)
{
    int n = 0;
    for (int i = 0; i < SM_MAX_SRC; i++)
        if (c->src[i].used)
            n = i + 1;
    return n;
}

sm_node *case_record(const op_case *c, sm_graph *g, int64_t batch, sm_node *src[SM_MAX_SRC])
{
    int n = source_count(c);
    for (int i = 0; i < SM_MAX_SRC; i++) {
        const case_src *s = &c->src[i];
        int64_t dims[SM_MAX_DIMS];
        memcpy(dims, s->dims, sizeof dims);
        if (batch && c->batch >> i & 1)
            dims[0] = batch;
        src[i] = s->used ? sm_input(g, "source", s->dtype, s->rank, dims) : NULL;
    }
    return sm_record(g, c->op, n, src, &c->p);
}

static void put_float(void *out, sm_dtype t, int64_t i, float v)
{
    if (t == SM_F32)
        ((float *)out)[i] = v;
    else
        ((uint16_t *)out)[i] = t == SM_F16 ? sm_f32_f16(v) : sm_f32_bf16(v);
}

void case_values(const op_case *c, int i, uint64_t seed, const sm_node *src, void *out)
{
    const sm_op_row *row = &sm_ops[c->op];
    int64_t n = sm_numel(src), last = src->dims[src->rank - 1], rows = c->op == SM_OP_GATHER ? c->src[0].dims[0]
                   : c->op == SM_OP_TOKEN_MATCH ? c->p.tokens.cell[0] * c->p.tokens.cell[1] : c->p.slice.len;
    for (int64_t k = 0; k < n; k++) {
        float u;
        test_fill(&u, 1, seed + (uint64_t)i * 7919 + (uint64_t)k * 104729, 0, 1);
        float v = row->lo + (row->hi - row->lo) * u;
        if (c->src[i].fill == FILL_IDS) {
            ((int32_t *)out)[k] = (int32_t)SM_MIN((int64_t)(u * (float)rows), rows - 1);
            continue;
        }
        if (c->src[i].fill == FILL_MASK && (u < 0.33f || k / last % 5 == 4))
            v = -INFINITY;
        if (c->src[i].fill == FILL_GRID) /* odd multiples of (hi - lo) / 2n in a scrambled order, 0 is not one of them */
            v = row->lo + (row->hi - row->lo) * ((float)(k * 7919 % n) + 0.5f) / (float)n +
                (n % 2 ? (row->hi - row->lo) / 4 / (float)n : 0);
        put_float(out, c->src[i].dtype, k, v);
    }
}

static double group_terms(const sm_node *n)
{
    const sm_node *x = n->src[0];
    return (double)sm_numel(x) / (double)x->dims[0] / n->p.norm.groups;
}

double case_terms(const sm_node *n)
{
    const sm_node *a = n->src[0], *b = n->nsrc > 1 ? n->src[1] : NULL;
    double in = (double)sm_numel(a), out = (double)sm_numel(n);
    switch (n->op) {
    case SM_OP_LINEAR: return (double)b->dims[1];
    case SM_OP_MATMUL: return (double)a->dims[a->rank - 1 - n->p.matmul.ta];
    case SM_OP_CONV2D: case SM_OP_CONV2D_DX:
        return (double)sm_numel(b) / (double)b->dims[0] * (double)(n->op == SM_OP_CONV2D ? 1 : b->dims[0]);
    case SM_OP_CONV2D_DW: return (double)(b->dims[0] * b->dims[1] * b->dims[2]);
    case SM_OP_GROUP_NORM: case SM_OP_GROUP_NORM_DX: return group_terms(n);
    case SM_OP_LAYER_NORM: case SM_OP_LAYER_NORM_DX: case SM_OP_RMS_NORM: case SM_OP_RMS_NORM_DX:
    case SM_OP_SOFTMAX: case SM_OP_SOFTMAX_DX: case SM_OP_LOG_SOFTMAX: return (double)a->dims[a->rank - 1];
    case SM_OP_GROUP_STATS: return in / (double)n->p.norm.groups;
    case SM_OP_GROUP_NORM_DP: case SM_OP_LAYER_NORM_DP: case SM_OP_RMS_NORM_DP: return in / (double)a->dims[a->rank - 1];
    case SM_OP_ATTENTION: case SM_OP_ATTENTION_GRAD: return (double)(a->dims[3] + SM_MAX(a->dims[1], b->dims[1]));
    case SM_OP_SCATTER_ADD: return (double)sm_numel(b);
    case SM_OP_SUM: case SM_OP_SUM_TO: case SM_OP_RESIZE_NEAREST_DX: case SM_OP_RESIZE_BILINEAR_DX: return SM_MAX(in / out, 1);
    case SM_OP_TOKEN_MERGE: return (double)a->dims[1] / (double)n->dims[1] + 4;
    case SM_OP_AVG_POOL: case SM_OP_AVG_POOL_DX: case SM_OP_MAX_POOL_DX: return (double)n->p.pool.kernel[0] * n->p.pool.kernel[1];
    default: return 1;
    }
}

const char *case_name(const op_case *c)
{
    static char name[400];
    int at = snprintf(name, sizeof name, "%s", sm_ops[c->op].name);
    for (int i = 0; i < source_count(c); i++) {
        const case_src *s = &c->src[i];
        at += snprintf(name + at, sizeof name - (size_t)at, s->used ? " [" : " none");
        for (int d = 0; s->used && d < s->rank; d++)
            at += snprintf(name + at, sizeof name - (size_t)at, d ? ",%lld" : "%lld", (long long)s->dims[d]);
        if (s->used)
            at += snprintf(name + at, sizeof name - (size_t)at, "]%s", s->dtype == SM_F32 ? "" : sm_dtype_name(s->dtype));
    }
    return name;
}
