/* A made-up picture data set for tests: drawn shapes, written in the files that src/train/dataset.h reads. */
#ifndef SYNTH_H
#define SYNTH_H

#include "base/base.h"

enum { SYNTH_SIDE = 32, SYNTH_SHAPES = 8, SYNTH_COLOURS = 6, SYNTH_THINGS = SYNTH_SHAPES * SYNTH_COLOURS };

/* Thing k (0 .. SYNTH_THINGS - 1) as straight-alpha rgba uint8 [side, side, 4]: a shape in a colour, transparent around. */
void synth_rgba(int k, int side, uint8_t *rgba);
/* "red disc" and so on, in a static buffer good until the next call. */
const char *synth_caption(int k);

/* Writes n pictures (things 0 .. n-1 in style noto; every fifth is split pair, every seventh concept) to the two files. */
bool synth_write(const char *pixels, const char *index, int n);
/* A safetensors file with this header text and n zero bytes behind it. */
bool synth_tensor_file(const char *path, const char *header, size_t n);
bool synth_text_file(const char *path, const char *text);

#endif
